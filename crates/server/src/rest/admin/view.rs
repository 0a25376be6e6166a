//! What the routes for operators answer.

use std::collections::BTreeMap;
use std::time::Duration;

use contextkeep_core::postgres::insight::{
    Closed, Insight, Plan, PoolStatus, ServerInsight, SlowStatement, StatementInsight, Tallies,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::gates::{self, GateView};

/// The servers of the database.
#[derive(Serialize, ToSchema)]
pub(super) struct DatabaseView {
    /// Each server, the configured primary first.
    servers: Vec<ServerView>,
    /// Which servers answered reads since the start.
    reads: ReadsView,
    /// Appends that wait for their commit.
    writes_waiting: u64,
    /// What stands in front of the servers as primaries, and in front of searches.
    gates: Vec<GateView>,
}

/// One server of the database.
#[derive(Serialize, ToSchema)]
struct ServerView {
    /// `primary`, `replica-1`, … as configured.
    name: String,
    /// Host, port and database.
    address: String,
    /// Whether it takes the writes at the moment.
    is_primary: bool,
    /// Whether it replays another server's log; absent before it said anything.
    in_recovery: Option<bool>,
    /// `unknown`, `healthy`, `lagging`, `suspect` or `down`.
    state: &'static str,
    /// `closed`, `open`, `half_open`, `recovering` or `isolated`.
    breaker: &'static str,
    /// Bytes of the log behind the primary, as last seen.
    lag_bytes: Option<u64>,
    /// How old its data may be.
    lag_ms: Option<f64>,
    /// Routed reads under way.
    reads_in_flight: u64,
    /// The connections to it.
    pool: PoolView,
}

/// The connections to a server.
#[derive(Serialize, ToSchema)]
struct PoolView {
    /// Pooled connections, in use or not.
    open: usize,
    /// Pooled connections that nobody uses.
    idle: usize,
    /// Most pooled connections.
    max: usize,
    /// Callers that wait for one.
    waiting: usize,
    /// Shared connections.
    shared: usize,
    /// Statements under way on the shared ones.
    shared_in_flight: usize,
    /// Opened since the start, of every kind.
    opened: u64,
    /// Closed since the start, by reason.
    closed: BTreeMap<&'static str, u64>,
    /// Attempts to connect that failed since the start.
    connect_failures: u64,
    /// Callers turned away since the start.
    shed: u64,
    /// Whether a pooler was found in between, so that statements are sent unprepared.
    behind_pooler: bool,
}

/// Which servers answered reads since the start.
#[derive(Serialize, ToSchema)]
struct ReadsView {
    /// A replica.
    replica: u64,
    /// The primary, as was asked for.
    primary: u64,
    /// The primary, because a replica's answer was too old.
    unmet: u64,
    /// The primary, because a replica failed.
    failed: u64,
    /// The primary, because no replica qualified.
    none: u64,
    /// Sent to a second replica as well.
    hedged: u64,
    /// Answered by that second one.
    hedge_won: u64,
    /// Refused, because the primary serves as many as it may.
    shed: u64,
    /// Times that writes moved to another server.
    promotions: u64,
}

/// What the statements cost.
#[derive(Serialize, ToSchema)]
pub(super) struct QueriesView {
    /// From how many milliseconds on a statement is slow.
    slow_query_threshold_ms: f64,
    /// Each statement that ran since the start, the one that took the most time in all first.
    statements: Vec<StatementView>,
    /// The last slow ones, the newest first.
    slow: Vec<SlowView>,
    /// The last plan of each statement that has one, the newest first.
    plans: Vec<PlanView>,
    /// Plans since the start.
    explaining: ExplainingView,
}

/// What one statement cost since the start, on all servers together.
#[derive(Serialize, ToSchema)]
struct StatementView {
    /// Its name.
    statement: &'static str,
    /// How often it ran.
    calls: u64,
    /// How often it failed.
    failures: u64,
    /// How often it was slow.
    slow: u64,
    /// All calls together.
    total_ms: f64,
    /// The mean.
    mean_ms: f64,
    /// Half of the calls took at most so long; rounded up to a bucket's limit.
    p50_ms: f64,
    /// 99 of 100 calls took at most so long; rounded up to a bucket's limit.
    p99_ms: f64,
    /// The longest.
    max_ms: f64,
}

/// A statement that was slow.
#[derive(Serialize, ToSchema)]
struct SlowView {
    /// When it ended.
    at: String,
    /// Its name.
    statement: &'static str,
    /// On which server.
    server: String,
    /// How long it took, waiting included.
    took_ms: f64,
    /// Whether it failed.
    failed: bool,
}

/// How a server would run a statement, whatever the values.
#[derive(Serialize, ToSchema)]
struct PlanView {
    /// When it was taken.
    at: String,
    /// The statement's name.
    statement: &'static str,
    /// On which server.
    server: String,
    /// What `EXPLAIN (FORMAT JSON)` answered.
    #[schema(value_type = Vec<Object>)]
    plan: Option<Box<RawValue>>,
}

/// Plans since the start.
#[derive(Serialize, ToSchema)]
struct ExplainingView {
    /// Taken.
    taken: u64,
    /// Tried without success.
    failed: u64,
    /// Left out, because the pool had no connection to spare.
    skipped: u64,
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl From<&Insight> for DatabaseView {
    fn from(insight: &Insight) -> Self {
        Self {
            servers: insight.servers.iter().map(ServerView::from).collect(),
            reads: ReadsView::from(&insight.reads),
            writes_waiting: insight.writes_waiting,
            gates: gates::of(insight),
        }
    }
}

impl From<&ServerInsight> for ServerView {
    fn from(server: &ServerInsight) -> Self {
        let member = &server.member;
        Self {
            name: member.name.to_string(),
            address: server.address.clone(),
            is_primary: member.is_primary,
            in_recovery: member.in_recovery,
            state: member.state.as_str(),
            breaker: member.breaker.as_str(),
            lag_bytes: member.lag_bytes,
            lag_ms: member.lag.map(ms),
            reads_in_flight: member.in_flight,
            pool: PoolView::from(&server.pool),
        }
    }
}

impl From<&PoolStatus> for PoolView {
    fn from(pool: &PoolStatus) -> Self {
        let closed = Closed::ALL.into_iter();
        Self {
            open: pool.open,
            idle: pool.idle,
            max: pool.max,
            waiting: pool.waiting,
            shared: pool.shared,
            shared_in_flight: pool.shared_in_flight,
            opened: pool.created,
            closed: closed
                .map(|reason| (reason.as_str(), pool.closed_for(reason)))
                .collect(),
            connect_failures: pool.connect_failures,
            shed: pool.shed,
            behind_pooler: pool.behind_pooler,
        }
    }
}

impl From<&Tallies> for ReadsView {
    fn from(reads: &Tallies) -> Self {
        Self {
            replica: reads.replica,
            primary: reads.primary,
            unmet: reads.unmet,
            failed: reads.failed,
            none: reads.none,
            hedged: reads.hedged,
            hedge_won: reads.hedge_won,
            shed: reads.shed,
            promotions: reads.promotions,
        }
    }
}

impl From<&Insight> for QueriesView {
    fn from(insight: &Insight) -> Self {
        Self {
            slow_query_threshold_ms: ms(insight.slow_query_threshold),
            statements: insight.statements.iter().map(StatementView::from).collect(),
            slow: insight.slow.iter().map(SlowView::from).collect(),
            plans: insight.plans.iter().map(PlanView::from).collect(),
            explaining: ExplainingView {
                taken: insight.explaining.taken,
                failed: insight.explaining.failed,
                skipped: insight.explaining.skipped,
            },
        }
    }
}

impl From<&StatementInsight> for StatementView {
    fn from(statement: &StatementInsight) -> Self {
        let (calls, total_ms) = (statement.calls(), ms(statement.total()));
        #[expect(
            clippy::cast_precision_loss,
            reason = "beyond 2^53 the last digits do not matter"
        )]
        let mean_ms = total_ms / calls.max(1) as f64;
        Self {
            statement: statement.name,
            calls,
            failures: statement.failures,
            slow: statement.slow,
            total_ms,
            mean_ms,
            p50_ms: ms(statement.quantile(0.5)),
            p99_ms: ms(statement.quantile(0.99)),
            max_ms: ms(statement.max),
        }
    }
}

impl From<&SlowStatement> for SlowView {
    fn from(slow: &SlowStatement) -> Self {
        Self {
            at: slow.at.to_string(),
            statement: slow.statement,
            server: slow.endpoint.to_string(),
            took_ms: ms(slow.took),
            failed: slow.failed,
        }
    }
}

impl From<&Plan> for PlanView {
    fn from(plan: &Plan) -> Self {
        Self {
            at: plan.at.to_string(),
            statement: plan.statement,
            server: plan.endpoint.to_string(),
            plan: RawValue::from_string(plan.json.clone()).ok(),
        }
    }
}
