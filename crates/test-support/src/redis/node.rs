//! One Redis server.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::resp::{Connection, Value};
use crate::daemon::{Daemon, Graceful, Stop};
use crate::folder::{Folder, Lifetime};
use crate::process::Started;
use crate::wait::{self, Look};
use crate::{Error, Result, locate, ports};

/// How long a node gets to answer after its start.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bounds each step of a command to a node: a frozen one does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to start over when another process took our port meanwhile.
const PORT_ATTEMPTS: usize = 3;

/// One Redis server, alone or in a [`RedisCluster`](super::RedisCluster). It forgets its data when it ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RedisNode {
    pub(super) daemon: Daemon,
    pub(super) port: u16,
    /// 0 for a node without TLS.
    #[serde(default)]
    tls_port: u16,
    /// Held only to be dropped with the last handle of whoever started it.
    #[serde(skip)]
    _folder: Option<Arc<Folder>>,
}

impl RedisNode {
    /// Starts a single node in a folder of its own, which goes away with the last clone of the returned value.
    ///
    /// # Errors
    ///
    /// When Redis is not installed or does not come up; the error carries the end of its log.
    pub fn start_alone() -> Result<Self> {
        Self::start_in(&Arc::new(Folder::create(Lifetime::Owner)?), "redis")
    }

    /// Starts a single node under this name in a folder that it shares with other servers.
    ///
    /// # Errors
    ///
    /// As of [`start_alone`](Self::start_alone).
    pub fn start_in(folder: &Arc<Folder>, name: &str) -> Result<Self> {
        let mut node = Self::new(folder, name, &locate::redis()?)?;
        node.start_on_free_ports(1, |node, ports| {
            node.assign_port(ports.first().copied().unwrap_or_default(), &[]);
        })?;
        Ok(node)
    }

    /// Starts a single node in a folder of its own that takes TLS besides, at [`tls_url`](Self::tls_url), with this
    /// certificate and this key, both PEM. It asks clients for no certificate; commands of the harness go the plain way.
    ///
    /// # Errors
    ///
    /// As of [`start_alone`](Self::start_alone); also when Redis was built without TLS or refuses the certificate.
    pub fn start_with_tls(certificate: &str, key: &str) -> Result<Self> {
        let folder = Arc::new(Folder::create(Lifetime::Owner)?);
        let mut node = Self::new(&folder, "redis", &locate::redis()?)?;
        let mut files = Vec::new();
        for (name, pem) in [("server.crt", certificate), ("server.key", key)] {
            let path = node.daemon.data().join(name);
            fs::write(&path, pem).map_err(Error::at("write", &path))?;
            folder.give(&path)?;
            files.push(path.display().to_string());
        }
        node.start_on_free_ports(2, |node, ports| {
            node.tls_port = ports.get(1).copied().unwrap_or_default();
            let tls_port = node.tls_port.to_string();
            let mut more = vec!["--tls-port", &tls_port, "--tls-auth-clients", "no"];
            for (option, file) in ["--tls-cert-file", "--tls-key-file"].into_iter().zip(&files) {
                more.extend([option, file]);
            }
            node.assign_port(ports.first().copied().unwrap_or_default(), &more);
        })?;
        Ok(node)
    }

    fn start_on_free_ports(&mut self, count: usize, assign: impl Fn(&mut Self, &[u16])) -> Result<()> {
        for _ in 1..PORT_ATTEMPTS {
            assign(self, &ports::free(count)?);
            match self.start() {
                Err(error) if error.is_port_taken() => {}
                other => return other,
            }
        }
        self.start()
    }

    pub(super) fn new(folder: &Arc<Folder>, name: &str, program: &Path) -> Result<Self> {
        let daemon = Daemon::new(folder, name, PathBuf::from(program), Graceful::Term)?;
        Ok(Self {
            daemon,
            port: 0,
            tls_port: 0,
            _folder: Some(Arc::clone(folder)),
        })
    }

    /// Sets the port and the whole command line.
    pub(super) fn assign_port(&mut self, port: u16, more: &[&str]) {
        self.port = port;
        let (port, data) = (port.to_string(), self.daemon.data().display().to_string());
        let own = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--dir",
            &data,
            "--save",
            "",
            "--appendonly",
            "no",
            // `DEBUG SLEEP`: a server that is alive and answers nobody.
            "--enable-debug-command",
            "local",
        ];
        self.daemon.args = own.iter().chain(more).map(|word| (*word).to_owned()).collect();
    }

    /// Its name: `redis`, or `redis-cluster-1`, … in a cluster.
    pub fn name(&self) -> &str {
        self.daemon.name()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its URL, database 0.
    pub fn url(&self) -> String {
        self.url_at(self.addr())
    }

    /// Its URL as reached by another address, such as a [`Proxy`](crate::Proxy)'s in front of it.
    pub fn url_at(&self, addr: SocketAddr) -> String {
        format!("redis://{addr}")
    }

    /// Its URL by TLS; no server's unless it was [started with it](Self::start_with_tls).
    pub fn tls_url(&self) -> String {
        format!("rediss://{}:{}", Ipv4Addr::LOCALHOST, self.tls_port)
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

    /// See [`Daemon::kill`].
    ///
    /// # Errors
    ///
    /// When it survives.
    pub fn kill(&self) -> Result<()> {
        self.daemon.kill()
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

    /// Starts it (again) on its old port, empty; returns once it answers. A cluster's node keeps its identity.
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

    /// Runs one command on a connection of its own.
    ///
    /// # Errors
    ///
    /// When it can't be reached within ten seconds, or answers with an error.
    pub fn command(&self, words: &[&str]) -> Result<Value> {
        self.connect()?.command(words)
    }

    /// Opens a connection to it.
    ///
    /// # Errors
    ///
    /// When it can't be reached within ten seconds.
    pub fn connect(&self) -> Result<Connection> {
        Connection::open(self.addr(), ANSWER_TIMEOUT)
    }

    pub(super) fn spawn(&self) -> Result<Started> {
        self.daemon.start()
    }

    pub(super) fn wait_ready(&self, started: &Started) -> Result<()> {
        let ours = Value::Text(self.daemon.data().display().to_string());
        wait::until(&format!("{} to answer", self.name()), READY_TIMEOUT, || {
            started.still_runs()?;
            Ok(match self.command(&["CONFIG", "GET", "dir"]) {
                // Somebody else's server may sit on a port that ours is about to fail to bind.
                Ok(Value::Array(pair)) if pair.last() == Some(&ours) => Look::Done(()),
                Ok(other) => Look::NotYet(format!("{other:?}")),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })
    }
}
