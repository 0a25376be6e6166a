//! One Postgres server.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, Slowness};
use super::{Connection, DATABASE, READY_TIMEOUT, Row, USER};
use crate::daemon::{Daemon, Stop};
use crate::process::{self, Started};
use crate::wait::{self, Look};
use crate::{Error, Result};

/// Bounds each step of a question to a server: a frozen one does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// One member of a [`PgCluster`](super::PgCluster).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PgMember {
    pub(super) daemon: Daemon,
    pub(super) disk: Option<Disk>,
    pub(super) port: u16,
    pub(super) sockets: PathBuf,
    pub(super) bin: PathBuf,
}

impl PgMember {
    /// Its name: `pg-primary`, `pg-replica-1`, …; a promoted replica keeps its own.
    pub fn name(&self) -> &str {
        self.daemon.name()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// URL of the tests' database on it.
    pub fn dsn(&self) -> String {
        self.dsn_at(self.addr(), DATABASE)
    }

    /// URL of a database as reached by another address, such as a [`Proxy`](crate::Proxy)'s in front of it.
    pub fn dsn_at(&self, addr: SocketAddr, database: &str) -> String {
        format!("postgres://{USER}@{addr}/{database}")
    }

    /// The process behind it.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// See [`Daemon::is_running`].
    pub fn is_running(&self) -> bool {
        self.daemon.is_running()
    }

    /// See [`Daemon::stop`].
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub fn stop(&self, how: Stop) -> Result<()> {
        self.daemon.stop(how)
    }

    /// Kills the server and all its sessions; it may be started again.
    ///
    /// # Errors
    ///
    /// When a process survives.
    pub fn kill(&self) -> Result<()> {
        self.daemon.kill()?;
        // Left by the dead server. Its number may be somebody else's by now, which would keep the next one from
        // starting.
        match fs::remove_file(self.daemon.data().join("postmaster.pid")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove postmaster.pid", error))
            }
            _ => Ok(()),
        }
    }

    /// See [`Daemon::freeze`].
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.daemon.freeze()
    }

    /// See [`Daemon::thaw`].
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.daemon.thaw()
    }

    /// Makes its disk this much slower than it is, whether it runs or not; the default is as fast as it was.
    ///
    /// # Errors
    ///
    /// When the cluster is not [`slowable`](super::PgClusterBuilder::slowable).
    pub fn slow_disk(&self, by: Slowness) -> Result<()> {
        let not = || Error::State("the cluster was not built slowable".to_owned());
        self.disk.as_ref().ok_or_else(not)?.slow(by)
    }

    /// Starts it (again) on its old port and data; returns once it answers queries.
    ///
    /// # Errors
    ///
    /// With the end of its log when it does not come up.
    pub fn start(&self) -> Result<()> {
        self.wait_ready(&self.spawn()?)
    }

    /// Stops it, if it runs, and starts it again.
    ///
    /// # Errors
    ///
    /// As of [`stop`](Self::stop) and [`start`](Self::start).
    pub fn restart(&self, how: Stop) -> Result<()> {
        self.stop(how)?;
        self.start()
    }

    /// Runs statements on a connection of its own to the tests' database.
    ///
    /// # Errors
    ///
    /// When it can't be reached within ten seconds, or refuses.
    pub fn sql(&self, sql: &str) -> Result<Vec<Row>> {
        self.connect(DATABASE)?.query(sql)
    }

    /// The single value that a statement returns.
    ///
    /// # Errors
    ///
    /// As of [`sql`](Self::sql), and when there is not exactly one value or it is NULL.
    pub fn sql_value(&self, sql: &str) -> Result<String> {
        single_value(sql, self.sql(sql)?)
    }

    /// The same for the harness' own questions, in the database that is there before the tests' is.
    pub(super) fn ask(&self, sql: &str) -> Result<String> {
        single_value(sql, self.connect("postgres")?.query(sql)?)
    }

    /// Opens a connection to one of its databases.
    ///
    /// # Errors
    ///
    /// As of [`Connection::open`].
    pub fn connect(&self, database: &str) -> Result<Connection> {
        Connection::open(self.addr(), USER, database, ANSWER_TIMEOUT)
    }

    pub(super) fn spawn(&self) -> Result<Started> {
        self.daemon.start()
    }

    pub(super) fn wait_ready(&self, started: &Started) -> Result<()> {
        wait::until(&format!("{} to answer", self.name()), READY_TIMEOUT, || {
            started.still_runs()?;
            let answer = self
                .connect("postgres")
                .and_then(|mut connection| connection.query("show data_directory"));
            Ok(match answer {
                // Somebody else's server may sit on a port that ours is about to fail to bind.
                Ok(rows) if rows == [[Some(self.daemon.data().display().to_string())]] => Look::Done(()),
                Ok(rows) => Look::NotYet(format!("a server with the data of {rows:?}")),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })
    }

    /// Waits until the replica streams from this one.
    pub(super) fn wait_streaming(&self, replica: &Self) -> Result<()> {
        let sql = format!(
            "select count(*) from pg_stat_replication where state = 'streaming' and application_name = '{}'",
            replica.slot()
        );
        wait::until(
            &format!("{} to stream from {}", replica.name(), self.name()),
            READY_TIMEOUT,
            || Ok(Look::when(self.ask(&sql)? == "1")),
        )
    }

    /// Makes sure that a replication slot for the replica exists here.
    pub(super) fn keep_slot_for(&self, replica: &Self) -> Result<()> {
        let slot = replica.slot();
        let sql = format!(
            "select pg_create_physical_replication_slot('{slot}', true) \
             where not exists (select from pg_replication_slots where slot_name = '{slot}')"
        );
        self.connect("postgres")?.query(&sql).map(drop)
    }

    /// Makes the tests' database, once.
    pub(super) fn ensure_database(&self) -> Result<()> {
        let mut connection = self.connect("postgres")?;
        let known = connection.query(&format!("select from pg_database where datname = '{DATABASE}'"))?;
        if known.is_empty() {
            connection.query(&format!("create database {DATABASE}"))?;
        }
        Ok(())
    }

    /// Points this replica at a primary: now if it runs, else when it starts.
    pub(super) fn follow(&self, primary: &Self) -> Result<()> {
        primary.keep_slot_for(self)?;
        self.write_follow(primary)?;
        self.daemon.reload();
        Ok(())
    }

    /// Writes the configuration of a standby of `primary`.
    pub(super) fn write_follow(&self, primary: &Self) -> Result<()> {
        let slot = self.slot();
        let text = format!(
            "primary_conninfo = 'host={} port={} user={USER} application_name={slot}'\nprimary_slot_name = '{slot}'\n",
            primary.sockets.display(),
            primary.port
        );
        for (name, text) in [("follow.conf", text.as_str()), ("standby.signal", "")] {
            let path = self.daemon.data().join(name);
            fs::write(&path, text).map_err(Error::at("write", &path))?;
            if let Some(user) = &self.daemon.user {
                user.own(&path)?;
            }
        }
        Ok(())
    }

    /// Replaces its data by a copy of the running primary's.
    pub(super) fn copy_from(&self, primary: &Self) -> Result<()> {
        primary.keep_slot_for(self)?;
        let data = self.daemon.data();
        fs::remove_dir_all(&data).map_err(Error::at("empty", &data))?;
        let mut backup = self.daemon.command(&self.bin.join("pg_basebackup"));
        backup.args([
            "-X",
            "stream",
            "-c",
            "fast",
            "--no-sync",
            "-U",
            USER,
            "-p",
            &primary.port.to_string(),
        ]);
        backup.arg("-h").arg(&primary.sockets).arg("-D").arg(&data);
        process::run(&mut backup, READY_TIMEOUT)?;
        self.write_follow(primary)
    }

    /// Its name as slot and application name, which may not hold a dash.
    pub(super) fn slot(&self) -> String {
        self.name().replace('-', "_")
    }
}

fn single_value(sql: &str, mut rows: Vec<Row>) -> Result<String> {
    let value = match rows.as_mut_slice() {
        [row] if row.len() == 1 => row.pop().flatten(),
        _ => None,
    };
    value.ok_or_else(|| Error::State(format!("`{sql}` did not return exactly one value")))
}
