//! One server: its pool, its shared connections, its health check.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;

use super::address::Address;
use super::connect::Connector;
use super::fault::{Fault, Kind};
use super::limit::Limit;
use super::pool::Pool;
use super::position::{Epoch, Lsn, Probe};
use super::session::Session;
use super::shared::{Shared, Turn};
#[cfg(test)]
use super::statement::Call;
use super::statement::{LinkSettings, Params, Statement, Watch};
use super::status::{Closed, PoolStatus};
use super::wire::Link;
use crate::error::Result;

/// Role, position and log, in one look.
///
/// A primary's position is what it has flushed, which is all that it has acknowledged. Its timeline is that of the
/// segment it writes, because its control file learns of a promotion only at the next checkpoint; a standby's is
/// also that of what it receives (where we may see it), for the same reason.
static LOOK: Statement = Statement {
    name: "look",
    sql: "SELECT pg_is_in_recovery(), \
          CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, \
          (SELECT system_identifier FROM pg_control_system()), \
          CASE WHEN pg_is_in_recovery() \
            THEN (SELECT GREATEST(r.min_recovery_end_timeline, c.timeline_id, w.received_tli) \
                    FROM pg_control_recovery() r, pg_control_checkpoint() c \
                    LEFT JOIN pg_stat_wal_receiver w ON true) \
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END, \
          CASE WHEN pg_is_in_recovery() \
            THEN (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint END, \
          current_setting('synchronous_standby_names') <> ''",
    types: &[],
};

/// Bounds of the pause between two rounds of maintenance.
const ROUND_MIN: Duration = Duration::from_millis(50);
const ROUND_MAX: Duration = Duration::from_secs(10);
/// Longest time for one health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// One server. Nothing connects before it is asked for.
pub(crate) struct Endpoint {
    name: Arc<str>,
    connector: Arc<Connector>,
    pool: Pool,
    shared: Shared,
    /// The health check's own connection.
    checking: tokio::sync::Mutex<Option<Link>>,
    checked: Mutex<Option<Instant>>,
    watch: Arc<dyn Watch>,
    maintenance: OnceLock<AbortHandle>,
}

impl Endpoint {
    /// An endpoint of this name (`primary`, `replica-1`; for logs and labels). Connects to nothing.
    ///
    /// # Errors
    /// Only for a defect of ours.
    pub(crate) fn new(
        name: impl Into<Arc<str>>,
        address: Address,
        settings: LinkSettings,
        watch: Arc<dyn Watch>,
    ) -> Result<Arc<Self>> {
        let connector = Connector::new(address, settings);
        Ok(Arc::new(Self {
            name: name.into(),
            pool: Pool::new(connector.clone())?,
            shared: Shared::new(connector.clone()),
            connector,
            checking: tokio::sync::Mutex::new(None),
            checked: Mutex::new(None),
            watch,
            maintenance: OnceLock::new(),
        }))
    }

    /// Its name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &Address {
        &self.connector.address
    }

    /// A short read on a shared connection, pipelined with those of others.
    ///
    /// # Cancellation
    /// Safe; the server still does the work, so nothing slow belongs here.
    pub(crate) async fn query(
        self: &Arc<Self>,
        statement: &'static Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Fault> {
        let limit = self.limit();
        let mut tries = 0;
        loop {
            let (started, turn) = self.read_begins(limit).await?;
            let result = limit
                .run(Kind::TimedOut, pin!(turn.link().query(statement, params)))
                .await;
            self.read_ends(started, turn, &[statement], &result);
            tries += 1;
            if tries == 2 || !is_pooler(&result) {
                return result;
            }
        }
    }

    /// Two short reads in one flush on the same shared connection. The second takes its snapshot after the first
    /// has ended: for a check that has to hold for the read after it.
    ///
    /// # Cancellation
    /// As of [`Endpoint::query`].
    #[cfg(test)]
    pub(crate) async fn pair(
        self: &Arc<Self>,
        first: Call<'_>,
        second: Call<'_>,
    ) -> Result<(Vec<Row>, Vec<Row>), Fault> {
        let limit = self.limit();
        let mut tries = 0;
        loop {
            let (started, turn) = self.read_begins(limit).await?;
            let result = limit
                .run(Kind::TimedOut, pin!(turn.link().pair(first, second)))
                .await;
            self.read_ends(started, turn, &[first.statement, second.statement], &result);
            tries += 1;
            if tries == 2 || !is_pooler(&result) {
                return result;
            }
        }
    }

    async fn read_begins(self: &Arc<Self>, limit: Limit) -> Result<(Instant, Turn<'_>), Fault> {
        self.maintained();
        limit.begin()?;
        let started = Instant::now();
        Ok((started, self.shared.turn(limit).await?))
    }

    fn read_ends<T>(
        &self,
        started: Instant,
        turn: Turn<'_>,
        statements: &[&'static Statement],
        result: &Result<T, Fault>,
    ) {
        turn.settle(result);
        for statement in statements {
            self.watch.ran(statement, started.elapsed(), result.is_err());
        }
        self.heard(result);
    }

    /// A connection for this caller alone; waits at most `pool_timeout` for one.
    pub(crate) async fn session(self: &Arc<Self>) -> Result<Session, Fault> {
        self.maintained();
        let limit = self.limit();
        limit.begin()?;
        let pooled = self.pool.take(limit).await?;
        Ok(Session::new(self.clone(), pooled))
    }

    /// A connection outside of the pool, for what is done once and takes its time: migrations. Closed when dropped.
    pub(crate) async fn alone(&self) -> Result<deadpool_postgres::ClientWrapper, Fault> {
        self.connector.dial_alone().await
    }

    /// Looks at the server on a connection of its own, which waits behind no traffic.
    ///
    /// # Cancellation
    /// Safe; the next look opens a new connection.
    pub(crate) async fn check(self: &Arc<Self>, patience: Duration) -> Result<Probe, Fault> {
        self.maintained();
        let started = Instant::now();
        let looked = tokio::time::timeout(patience, self.look()).await;
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let rows = looked.unwrap_or_else(|_| {
            Err(Fault::new(
                Kind::TimedOut,
                "Postgres did not answer a health check in time",
            ))
        })?;
        let row = rows
            .first()
            .ok_or_else(|| Fault::new(Kind::Internal, "a health check answered no row"))?;
        Ok(Probe {
            took: started.elapsed(),
            ..probe(row)?
        })
    }

    async fn look(&self) -> Result<Vec<Row>, Fault> {
        let mut checking = self.checking.lock().await;
        self.pool.is_open()?;
        // Out of its place while it is used, so that a look that is given up leaves no half-used connection.
        let link = match checking
            .take()
            .filter(|link| !link.is_closed() && !link.is_expired())
        {
            Some(link) => link,
            None => self.connector.open_now().await?,
        };
        let rows = link.query(&LOOK, &[]).await;
        if rows.is_ok() {
            *checking = Some(link);
        }
        rows
    }

    /// The connections at the moment, and what became of the earlier ones.
    pub(crate) fn status(&self) -> PoolStatus {
        let mut status = PoolStatus {
            behind_pooler: self.connector.is_behind_pooler(),
            ..PoolStatus::default()
        };
        self.pool.fill(&mut status);
        self.shared.fill(&mut status);
        self.connector.counters.fill(&mut status);
        status
    }

    /// Lets go of every connection that nobody uses at the moment: they may lead to a server that is dead, or
    /// not what it was. What is under way still ends.
    pub(crate) fn suspect(&self) {
        self.pool.drop_idle(Closed::Suspect);
        self.shared.drop_all(Closed::Suspect);
        self.connector.forget_pooler();
    }

    /// Closes all connections. What is under way still ends; whoever waits or comes later gets an error.
    pub(crate) async fn close(&self) {
        if let Some(maintenance) = self.maintenance.get() {
            maintenance.abort();
        }
        self.pool.close();
        self.shared.close();
        drop(self.checking.lock().await.take());
    }

    pub(super) fn settings(&self) -> &LinkSettings {
        &self.connector.settings
    }

    pub(super) fn watch(&self) -> &dyn Watch {
        &*self.watch
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Draws conclusions from an error for the other connections.
    pub(super) fn heard<T>(&self, result: &Result<T, Fault>) {
        if let Err(fault) = result
            && matches!(fault.kind(), Kind::Lost | Kind::Starting | Kind::ReadOnly)
        {
            self.pool.drop_idle(Closed::Suspect);
            if fault.kind() == Kind::ReadOnly {
                self.shared.drop_all(Closed::Suspect);
            }
        }
    }

    fn limit(&self) -> Limit {
        Limit::start(self.connector.settings.statement_timeout)
    }

    /// Starts maintenance at the first use, because there may be no runtime before.
    fn maintained(self: &Arc<Self>) {
        self.maintenance
            .get_or_init(|| tokio::spawn(maintain(Arc::downgrade(self), self.round())).abort_handle());
    }

    /// Often enough for the shortest of the times that maintenance looks after.
    fn round(&self) -> Duration {
        let settings = &self.connector.settings;
        let shortest = [settings.lifetime, settings.idle_time]
            .into_iter()
            .flatten()
            .fold(settings.health_check_interval, Duration::min);
        (shortest / 4).clamp(ROUND_MIN, ROUND_MAX)
    }

    fn is_check_due(&self) -> bool {
        let checked = *self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.is_none_or(|checked| checked.elapsed() >= self.connector.settings.health_check_interval)
    }
}

fn is_pooler<T>(result: &Result<T, Fault>) -> bool {
    matches!(result, Err(fault) if fault.kind() == Kind::Pooler)
}

fn probe(row: &Row) -> Result<Probe, Fault> {
    let lsn: Option<PgLsn> = row.try_get(1)?;
    let age: Option<i64> = row.try_get(4)?;
    Ok(Probe {
        in_recovery: row.try_get(0)?,
        lsn: lsn.map(Lsn::from),
        epoch: Epoch {
            // Both are unsigned in the server and signed in SQL.
            system_identifier: row.try_get::<_, i64>(2)?.cast_unsigned(),
            timeline: row.try_get::<_, i32>(3)?.cast_unsigned(),
        },
        replay_age: age.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default())),
        has_synchronous_standbys: row.try_get(5)?,
        took: Duration::ZERO,
    })
}

/// Ends with the endpoint: it holds it only while it works.
async fn maintain(endpoint: Weak<Endpoint>, round: Duration) {
    let mut rounds = tokio::time::interval(round);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut healthy = true;
    loop {
        rounds.tick().await;
        let Some(endpoint) = endpoint.upgrade() else {
            return;
        };
        endpoint.pool.maintain();
        endpoint.shared.maintain();
        if !endpoint.is_check_due() {
            continue;
        }
        match endpoint.check(HEALTH_TIMEOUT).await {
            Ok(_) if !healthy => {
                tracing::info!(endpoint = %endpoint.name, "Postgres answers its health check again");
                healthy = true;
            }
            Ok(_) => {}
            Err(error) => {
                if healthy {
                    tracing::warn!(endpoint = %endpoint.name, %error, "Postgres fails its health check");
                }
                healthy = false;
                // One that has no connection left for us is alive, and so are those that we have.
                if error.is_suspect() || error.kind() == Kind::TimedOut {
                    endpoint.suspect();
                }
            }
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(maintenance) = self.maintenance.get() {
            maintenance.abort();
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("address", &self.connector.address)
            .finish_non_exhaustive()
    }
}
