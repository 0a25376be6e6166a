//! `PgBouncer` in front of a Postgres member, in transaction mode.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::daemon::{Daemon, Graceful};
use crate::folder::{Folder, Lifetime};
use crate::postgres::{Connection, DATABASE, PgMember, USER};
use crate::process::Started;
use crate::wait::{self, Look};
use crate::{Error, Result, locate, ports};

/// How long it gets to answer after its start.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bounds each step of a question to it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to start over when another process took our port meanwhile.
const PORT_ATTEMPTS: usize = 3;

/// A `PgBouncer` that lends each server session for one transaction. Dropping it ends it.
#[derive(Debug)]
pub struct PgBouncer {
    daemon: Daemon,
    port: u16,
    /// Held only to be dropped with this.
    _folder: Arc<Folder>,
}

impl PgBouncer {
    /// Starts one that keeps `sessions` sessions with the member's test database.
    ///
    /// # Errors
    ///
    /// When it is not installed or does not come up; the error carries the end of its log.
    pub fn start(member: &PgMember, sessions: usize) -> Result<Self> {
        let folder = Arc::new(Folder::create(Lifetime::Owner)?);
        let mut daemon = Daemon::new(&folder, "pgbouncer", locate::pgbouncer()?, Graceful::Term)?;
        daemon.args = vec!["pgbouncer.ini".to_owned()];
        let mut bouncer = Self {
            daemon,
            port: 0,
            _folder: folder,
        };
        for _ in 1..PORT_ATTEMPTS {
            match bouncer.bring_up(member, sessions) {
                Err(error) if error.is_port_taken() => {}
                other => return other.map(|()| bouncer),
            }
        }
        bouncer.bring_up(member, sessions).map(|()| bouncer)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// URL of the member's test database by way of it.
    pub fn dsn(&self) -> String {
        format!("postgres://{USER}@{}/{DATABASE}", self.addr())
    }

    /// The process behind it.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    fn bring_up(&mut self, member: &PgMember, sessions: usize) -> Result<()> {
        self.port = ports::free(1)?.first().copied().unwrap_or_default();
        let server = member.addr();
        let text = format!(
            "[databases]\n\
             {DATABASE} = host={} port={} user={USER}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = transaction\n\
             default_pool_size = {sessions}\n\
             max_client_conn = 200\n",
            server.ip(),
            server.port(),
            self.port
        );
        let path = self.daemon.data().join("pgbouncer.ini");
        fs::write(&path, text).map_err(Error::at("write", &path))?;
        let started = self.daemon.start()?;
        self.wait_ready(&started)
    }

    fn wait_ready(&self, started: &Started) -> Result<()> {
        wait::until("pgbouncer to answer", READY_TIMEOUT, || {
            started.still_runs()?;
            let answer = Connection::open(self.addr(), USER, DATABASE, ANSWER_TIMEOUT)
                .and_then(|mut connection| connection.query("select 1"));
            Ok(match answer {
                Ok(_) => Look::Done(()),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })
    }
}
