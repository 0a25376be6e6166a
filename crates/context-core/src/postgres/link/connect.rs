//! Opens connections: one way for the pool, the shared ones and the health check's.
//!
//! **Poolers.** A prepared statement lives in one server session. Behind a pooler in transaction mode the next
//! statement may run in another session, where the name is missing, or, worse, names the statement of another
//! process: names are counted from 0 in each. So `auto` prepares only on a connection that is shown to be a
//! server's own session. It is opened with a start option that holds a random word, and asked for that word:
//! only a session that was started for us, by a server that we talk to, knows it. `PgBouncer` refuses the option or
//! drops it. An error that only a pooler causes (26000, 42P05) ends preparing as well.
//!
//! **No storm.** While connecting fails, one attempt is made at a time, after a pause that doubles up to a
//! second, with jitter; everybody else gets the last attempt's error at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contextkeep_resilience::{Random, SplitMix};
use deadpool_postgres::ClientWrapper;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Socket};

use super::address::{Address, Encryption};
use super::fault::{Fault, Kind};
use super::statement::LinkSettings;
use super::status::Counters;
use super::wire::Link;
use crate::settings::PreparedStatements;

/// Pauses between attempts while connecting fails.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Cancel requests under way at a time: each is a short connection of its own, which the server does not count.
/// Beyond that, a connection is closed without one.
const CANCELS_MAX: usize = 16;

/// Opens connections to one address.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) address: Address,
    pub(super) settings: LinkSettings,
    pub(super) counters: Counters,
    /// A pooler stands in between: nothing is prepared (only in `auto`).
    pooler: AtomicBool,
    failing: Mutex<Option<Failing>>,
    /// While connecting fails: held by the one who tries.
    trying: tokio::sync::Mutex<()>,
    cancels: Arc<Semaphore>,
    random: SplitMix,
    ids: AtomicU64,
}

/// The last attempts failed.
#[derive(Debug)]
struct Failing {
    error: Fault,
    pause: Duration,
    until: Instant,
}

impl Connector {
    pub(super) fn new(address: Address, settings: LinkSettings) -> Arc<Self> {
        Arc::new(Self {
            address,
            settings,
            counters: Counters::default(),
            pooler: AtomicBool::new(false),
            failing: Mutex::new(None),
            trying: tokio::sync::Mutex::new(()),
            cancels: Arc::new(Semaphore::new(CANCELS_MAX)),
            random: SplitMix::from_entropy(),
            ids: AtomicU64::new(0),
        })
    }

    /// Opens a connection, within `connect_timeout` for each host of the address.
    ///
    /// # Errors
    /// Why there is none; at once and without an attempt, if the last ones failed a moment ago.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Link, Fault> {
        let _alone = match self.failure() {
            None => None,
            Some(error) => match self.trying.try_lock() {
                Ok(alone) if self.may_try() => Some(alone),
                _ => return Err(error),
            },
        };
        self.open_now().await
    }

    /// As [`Connector::open`], but also while others have to wait: for the health check.
    pub(super) async fn open_now(self: &Arc<Self>) -> Result<Link, Fault> {
        let opened = match tokio::time::timeout(self.patience(), Box::pin(self.dial())).await {
            Ok(opened) => opened,
            Err(_) => Err(Fault::late(Kind::Unreachable, false)),
        };
        match opened {
            Ok((client, prepares)) => {
                self.succeeded();
                Ok(self.link(client, prepares))
            }
            Err(fault) => {
                let fault = fault.at(&self.address.to_string());
                self.failed(&fault);
                Err(fault)
            }
        }
    }

    /// Longest time for opening a connection: each host gets its own.
    fn patience(&self) -> Duration {
        let hosts = u32::try_from(self.address.hosts()).unwrap_or(u32::MAX);
        self.settings.connect_timeout.saturating_mul(hosts)
    }

    fn link(self: &Arc<Self>, client: ClientWrapper, prepares: bool) -> Link {
        self.counters.created.fetch_add(1, Ordering::Relaxed);
        // ±10 %, so that connections opened together are not replaced together.
        let jitter = 0.9 + 0.2 * self.random.unit();
        let expires = self
            .settings
            .lifetime
            .map(|lifetime| Instant::now() + lifetime.mul_f64(jitter));
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        Link::new(id, client, prepares, expires, self.clone())
    }

    /// A connection, and whether statements may be prepared on it.
    async fn dial(&self) -> Result<(ClientWrapper, bool), Fault> {
        let config = &self.address.config;
        match self.settings.prepared {
            PreparedStatements::On => Ok((self.dial_with(config).await?, true)),
            PreparedStatements::Off => Ok((self.dial_with(config).await?, false)),
            PreparedStatements::Auto if self.is_behind_pooler() => Ok((self.dial_with(config).await?, false)),
            PreparedStatements::Auto => self.dial_and_look().await,
        }
    }

    async fn dial_and_look(&self) -> Result<(ClientWrapper, bool), Fault> {
        let config = &self.address.config;
        let word = format!("{:016x}", self.random.bits());
        let mut marked = config.clone();
        let given = config.get_options().unwrap_or_default();
        marked.options(format!("{given} -c contextkeep.link={word}").trim_start());
        let client = match self.dial_with(&marked).await {
            Ok(client) => client,
            // The server itself takes the option, so whoever does not is not the server.
            Err(fault) if is_refusal(&fault) => {
                let client = self.dial_with(config).await?;
                self.found_pooler();
                return Ok((client, false));
            }
            Err(fault) => return Err(fault),
        };
        let sql = "SELECT current_setting('contextkeep.link', true) IS NOT DISTINCT FROM $1";
        let rows = client
            .query_typed(sql, &[(&word, tokio_postgres::types::Type::TEXT)])
            .await
            .map_err(|error| Fault::connecting(&error))?;
        let ours = rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false));
        if !ours {
            self.found_pooler();
        }
        Ok((client, ours))
    }

    /// A connection that is nobody else's, counted nowhere and closed when it is dropped.
    pub(super) async fn dial_alone(&self) -> Result<ClientWrapper, Fault> {
        let dialed = Box::pin(self.dial_with(&self.address.config));
        let dialed = tokio::time::timeout(self.patience(), dialed).await;
        let dialed = dialed.unwrap_or_else(|_| Err(Fault::late(Kind::Unreachable, false)));
        dialed.map_err(|fault| fault.at(&self.address.to_string()))
    }

    async fn dial_with(&self, config: &Config) -> Result<ClientWrapper, Fault> {
        let dialed = match &self.address.encryption {
            Encryption::Never(tls) => connect(config, *tls).await,
            Encryption::Verified(tls) => connect(config, tls.clone()).await,
            Encryption::IfOffered(tls) => match connect(config, tls.clone()).await {
                // The server offers encryption that is none: as libpq, go on without.
                Err(fault) if fault.kind() == Kind::Tls => {
                    let mut plain = config.clone();
                    plain.ssl_mode(tokio_postgres::config::SslMode::Disable);
                    connect(&plain, tokio_postgres::NoTls).await
                }
                dialed => dialed,
            },
        };
        dialed.map(|(client, driver)| ClientWrapper::new(client, driver))
    }

    /// Asks the server to stop what runs on this connection; does not wait for it.
    pub(super) fn cancel(&self, client: &Client) {
        let token = client.cancel_token();
        let (Ok(runtime), Ok(place)) = (
            tokio::runtime::Handle::try_current(),
            self.cancels.clone().try_acquire_owned(),
        ) else {
            return;
        };
        let encryption = self.address.encryption.clone();
        let patience = self.settings.connect_timeout;
        runtime.spawn(async move {
            let request = async {
                match encryption {
                    Encryption::Never(tls) => token.cancel_query(tls).await,
                    Encryption::IfOffered(tls) | Encryption::Verified(tls) => token.cancel_query(tls).await,
                }
            };
            match tokio::time::timeout(patience, request).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a cancel request was not delivered"),
                Err(_) => tracing::debug!("a cancel request was not delivered in time"),
            }
            drop(place);
        });
    }

    /// Whether nothing is prepared because of a pooler.
    pub(super) fn is_behind_pooler(&self) -> bool {
        self.pooler.load(Ordering::Relaxed)
    }

    /// Statements are sent unprepared from now on, if that is left to us.
    pub(super) fn found_pooler(&self) {
        if self.settings.prepared == PreparedStatements::Auto && !self.pooler.swap(true, Ordering::Relaxed) {
            tracing::info!(
                address = %self.address,
                "a connection pooler stands before Postgres: statements are sent unprepared"
            );
        }
    }

    /// Looks anew at the next connection: the address may lead elsewhere now.
    pub(super) fn forget_pooler(&self) {
        self.pooler.store(false, Ordering::Relaxed);
    }

    fn failure(&self) -> Option<Fault> {
        self.failing().as_ref().map(|failing| failing.error.clone())
    }

    fn may_try(&self) -> bool {
        self.failing()
            .as_ref()
            .is_none_or(|failing| failing.until <= Instant::now())
    }

    fn failed(&self, error: &Fault) {
        self.counters.connect_failures.fetch_add(1, Ordering::Relaxed);
        let mut failing = self.failing();
        let pause = failing
            .as_ref()
            .map_or(PAUSE_MIN, |before| (before.pause * 2).min(PAUSE_MAX));
        // Half to all of the pause, so that many processes do not try together.
        let until = Instant::now() + pause.mul_f64(0.5 + 0.5 * self.random.unit());
        if failing.is_none() {
            tracing::warn!(%error, "Postgres cannot be reached");
        }
        *failing = Some(Failing {
            error: error.clone(),
            pause,
            until,
        });
    }

    fn succeeded(&self) {
        if self.failing().take().is_some() {
            tracing::info!(address = %self.address, "Postgres can be reached again");
        }
    }

    fn failing(&self) -> std::sync::MutexGuard<'_, Option<Failing>> {
        // Each change is one assignment, so a panic cannot leave it half done.
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether somebody answered, and refused for no reason that the server itself would have.
fn is_refusal(fault: &Fault) -> bool {
    !matches!(
        fault.kind(),
        Kind::Login
            | Kind::NoDatabase
            | Kind::TooManyConnections
            | Kind::Starting
            | Kind::ReadOnly
            | Kind::Tls
    ) && fault.sqlstate().is_some()
}

async fn connect<T>(config: &Config, tls: T) -> Result<(Client, JoinHandle<()>), Fault>
where
    T: MakeTlsConnect<Socket> + Send + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config
        .connect(tls)
        .await
        .map_err(|error| Fault::connecting(&error))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %Fault::from(&error), "a Postgres connection ended");
        }
    });
    Ok((client, driver))
}
