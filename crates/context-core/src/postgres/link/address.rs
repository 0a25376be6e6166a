//! Where a server is and how the way to it is protected, out of a DSN.
//!
//! `sslmode` as we have it, which is stricter than libpq's in one place:
//!
//! | word | encrypted | verified |
//! |---|---|---|
//! | `disable` | no | |
//! | `prefer` (no word) | if the server can | no |
//! | `require`, `verify-full` | yes | certificate and name |
//!
//! libpq's `require` verifies nothing, so it stops no attacker that `prefer` does not stop.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Invalid, Result};

mod dsn;
mod tls;

/// What the server shows in `pg_stat_activity`, unless the DSN says otherwise.
const APPLICATION_NAME: &str = "contextkeep";
/// Peers that vanish without a word are noticed after 10 + 3 × 5 s of silence, or 10 s of unanswered data.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// How the way is protected.
#[derive(Clone)]
pub(super) enum Encryption {
    Never(NoTls),
    IfOffered(MakeRustlsConnect),
    Verified(MakeRustlsConnect),
}

/// One server (or the hosts of one DSN, tried in order), ready to connect to.
#[derive(Clone)]
pub(crate) struct Address {
    pub(super) config: Config,
    pub(super) encryption: Encryption,
    shown: Box<str>,
}

impl Address {
    /// Understands a DSN, URL or `key=value`; reads `ca_file` and the system's certificates, connects to nothing.
    ///
    /// `key` is where the DSN was configured, for errors: `context_manager.database.dsn`.
    ///
    /// # Errors
    /// Names the key, what is wrong and what to do; shows no part of the DSN that may be a secret.
    pub(crate) fn parse(
        key: &str,
        dsn: &SecretString,
        ca_file: Option<&Path>,
        connect_timeout: Duration,
    ) -> Result<Self> {
        let invalid = |problem: String| Invalid::new(key.to_owned(), problem).hint(HINT);
        let (text, mode) = dsn::take_sslmode(dsn.expose_secret()).map_err(invalid)?;
        // Errors of the client quote options; a password with a blank in it would be one.
        let mut config = Config::from_str(&text).map_err(|_| {
            invalid(
                "is not a DSN that can be read (a value with blanks needs quotes, a URL percent-encoding)"
                    .into(),
            )
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(invalid("names no host".into()).into());
        }
        let (ssl_mode, encryption) = match mode {
            dsn::Mode::Disable => (SslMode::Disable, Encryption::Never(NoTls)),
            dsn::Mode::Prefer => (SslMode::Prefer, Encryption::IfOffered(tls::unverified()?)),
            dsn::Mode::Verify => (
                SslMode::Require,
                Encryption::Verified(tls::verified(key, ca_file)?),
            ),
        };
        if ca_file.is_some() && mode != dsn::Mode::Verify {
            return Err(Invalid::new(
                key.to_owned(),
                "has an sslmode that verifies nothing, but ca_file is set",
            )
            .hint("add sslmode=verify-full to the DSN, or remove ca_file")
            .into());
        }
        config.ssl_mode(ssl_mode);
        if config.get_application_name().is_none() {
            config.application_name(APPLICATION_NAME);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(connect_timeout);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        config
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        Ok(Self {
            shown: shown(&config).into_boxed_str(),
            config,
            encryption,
        })
    }

    /// How many hosts are tried in turn.
    pub(super) fn hosts(&self) -> usize {
        self.config
            .get_hosts()
            .len()
            .max(self.config.get_hostaddrs().len())
            .max(1)
    }
}

const HINT: &str = "as in postgres://user:password@host:5432/database?sslmode=verify-full";

fn shown(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let host = |(index, host): (usize, &Host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(index)),
        #[cfg(unix)]
        Host::Unix(path) => format!("{}:{}", path.display(), port(index)),
    };
    let mut hosts: Vec<String> = config.get_hosts().iter().enumerate().map(host).collect();
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().map(ToString::to_string).collect();
    }
    // Absent ones are the account that the process runs under.
    let user = config.get_user().unwrap_or("(account)");
    let database = config.get_dbname().unwrap_or(user);
    format!("{user}@{}/{database}", hosts.join(","))
}

/// As `user@host:port/database`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.shown).finish()
    }
}

#[cfg(test)]
mod tests;
