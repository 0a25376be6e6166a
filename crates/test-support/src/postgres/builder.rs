//! How a cluster is described and brought up.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::disk::{self, Disk};
use super::{PgCluster, PgMember, USER};
use crate::daemon::{Daemon, Graceful};
use crate::folder::{Folder, Lifetime};
use crate::{Error, Result, locate, ports, process};

/// How often to start over when another process took one of our ports meanwhile.
const PORT_ATTEMPTS: usize = 3;
/// How long `initdb` and a copy of its result may take.
const PREPARE_TIMEOUT: Duration = Duration::from_mins(1);

/// Settings that every member has. Replicas look for their primary ten times a second, so that a restart is
/// noticed at once; shared memory segments are files, so that a killed server leaves nothing behind in the system.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
max_connections = 200
max_wal_senders = 16
max_replication_slots = 16
hot_standby = on
wal_retrieve_retry_interval = '100ms'
wal_receiver_status_interval = '1s'
dynamic_shared_memory_type = mmap
logging_collector = off
log_line_prefix = '%m [%p] %u@%d '
include_if_exists = 'follow.conf'
";

/// A cluster to be started.
#[derive(Debug, Clone, Default)]
#[must_use = "nothing runs before `start`"]
pub struct PgClusterBuilder {
    replicas: usize,
    durable: bool,
    slowable: bool,
    settings: Vec<(String, String)>,
}

impl PgClusterBuilder {
    /// How many streaming replicas it has; none by default.
    pub fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// Whether commits reach the disk before they are acknowledged (`fsync`, `full_page_writes`). Off by default:
    /// a test that kills processes needs no disk, only one that measures commits does.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Whether [`PgMember::slow_disk`] works. Commits wait for a flush only with `fsync` on.
    pub fn slowable(mut self, slowable: bool) -> Self {
        self.slowable = slowable;
        self
    }

    /// Adds a server setting for all members, after (and so above) the harness' own.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the cluster in a folder of its own, which goes away with the returned value.
    ///
    /// # Errors
    ///
    /// When Postgres is not installed or a member does not come up; the error carries the end of its log.
    pub fn start(self) -> Result<PgCluster> {
        let folder = if self.durable {
            Folder::create_on_disk(Lifetime::Owner)?
        } else {
            Folder::create(Lifetime::Owner)?
        };
        self.start_in(&Arc::new(folder))
    }

    /// Starts the cluster in a folder that it shares with other servers. One cluster fits into a folder.
    ///
    /// # Errors
    ///
    /// As of [`start`](Self::start).
    pub fn start_in(self, folder: &Arc<Folder>) -> Result<PgCluster> {
        let bin = locate::postgres()?;
        let mut members = self.members(folder, &bin)?;
        self.prepare(folder, &members)?;
        for _ in 1..PORT_ATTEMPTS {
            match bring_up(&members) {
                Err(error) if error.is_port_taken() => {
                    members.iter().try_for_each(PgMember::kill)?;
                    assign_ports(&mut members)?;
                    configure_standbys(&members)?;
                }
                other => return other.map(|()| cluster(members, folder)),
            }
        }
        bring_up(&members).map(|()| cluster(members, folder))
    }

    fn members(&self, folder: &Folder, bin: &Path) -> Result<Vec<PgMember>> {
        let names = std::iter::once("pg-primary".to_owned())
            .chain((1..=self.replicas).map(|n| format!("pg-replica-{n}")));
        let slow = self.slowable.then(|| disk::library(folder)).transpose()?;
        let member = |name: String| {
            let mut daemon = Daemon::new(folder, &name, bin.join("postgres"), Graceful::Int)?;
            let disk = slow
                .as_ref()
                .map(|library| Disk::new(library, &name))
                .transpose()?;
            daemon.env = disk.as_ref().map(Disk::environment).unwrap_or_default();
            Ok(PgMember {
                daemon,
                disk,
                port: 0,
                sockets: folder.sockets(),
                bin: bin.to_owned(),
            })
        };
        let mut members = names.map(member).collect::<Result<Vec<_>>>()?;
        assign_ports(&mut members)?;
        Ok(members)
    }

    /// Makes the first member's data and copies it, never started, to the others.
    fn prepare(&self, folder: &Folder, members: &[PgMember]) -> Result<()> {
        let [primary, replicas @ ..] = members else {
            return Ok(());
        };
        let data = primary.daemon.data();
        let mut initdb = folder.command(&primary.bin.join("initdb"));
        initdb
            .args([
                "-U",
                USER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "--no-sync",
                "-D",
            ])
            .arg(&data);
        process::run(&mut initdb, PREPARE_TIMEOUT)?;
        let conf = data.join("postgresql.conf");
        let stock = fs::read_to_string(&conf).map_err(Error::at("read", &conf))?;
        fs::write(&conf, format!("{stock}\n{}", self.settings_text())).map_err(Error::at("write", &conf))?;
        for replica in replicas {
            let copy: &mut Command = &mut folder.command(Path::new("cp"));
            process::run(
                copy.args(["-R", "-p"])
                    .arg(data.join("."))
                    .arg(replica.daemon.data()),
                PREPARE_TIMEOUT,
            )?;
        }
        configure_standbys(members)
    }

    fn settings_text(&self) -> String {
        // What is not durable may be in memory: there, little WAL is kept.
        let own = if self.durable {
            "fsync = on\nfull_page_writes = on\n"
        } else {
            "fsync = off\nfull_page_writes = off\nmax_wal_size = 256MB\n"
        };
        let given = self
            .settings
            .iter()
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")));
        format!("{SETTINGS}{own}{}", given.collect::<String>())
    }
}

fn cluster(members: Vec<PgMember>, folder: &Arc<Folder>) -> PgCluster {
    PgCluster {
        members,
        primary: AtomicUsize::new(0),
        folder: Some(Arc::clone(folder)),
    }
}

fn assign_ports(members: &mut [PgMember]) -> Result<()> {
    let ports = ports::free(members.len())?;
    for (member, port) in members.iter_mut().zip(ports) {
        member.port = port;
        let sockets = member.sockets.display().to_string();
        let data = member.daemon.data().display().to_string();
        member.daemon.args = ["-D", &data, "-p", &port.to_string(), "-k", &sockets]
            .map(str::to_owned)
            .to_vec();
    }
    Ok(())
}

fn configure_standbys(members: &[PgMember]) -> Result<()> {
    let [primary, replicas @ ..] = members else {
        return Ok(());
    };
    replicas
        .iter()
        .try_for_each(|replica| replica.write_follow(primary))
}

/// Starts all members at once and returns when the replicas stream and the tests' database is on each.
fn bring_up(members: &[PgMember]) -> Result<()> {
    let [primary, replicas @ ..] = members else {
        return Ok(());
    };
    let started = members.iter().map(PgMember::spawn).collect::<Result<Vec<_>>>()?;
    for (member, started) in members.iter().zip(&started) {
        member.wait_ready(started)?;
        if member.name() == primary.name() {
            replicas
                .iter()
                .try_for_each(|replica| primary.keep_slot_for(replica))?;
            primary.ensure_database()?;
        }
    }
    replicas
        .iter()
        .try_for_each(|replica| primary.wait_streaming(replica))?;
    // A view that owns nothing: only to wait until the database has reached every member.
    let view = PgCluster {
        members: members.to_vec(),
        primary: AtomicUsize::new(0),
        folder: None,
    };
    view.wait_replayed(super::READY_TIMEOUT)
}

#[cfg(test)]
mod tests;
