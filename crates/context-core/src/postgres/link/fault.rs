//! What an error of Postgres or of its pool means: to the caller, to a retry, to the other connections.
//!
//! Codes as Postgres documents them in its appendix of error codes (checked against 15).

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use contextkeep_resilience::classify::sqlstate;
use contextkeep_resilience::{Outcome, Verdict};
use tokio_postgres::error::SqlState;

use crate::error::{Error, Invalid};

/// When to try again, where nobody knows better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// No connection could be made.
    Unreachable,
    /// The connection ended or broke; what the statement did is unknown.
    Lost,
    /// The server starts, stops or recovers, and takes no connections.
    Starting,
    /// A write reached a server that is a standby.
    ReadOnly,
    /// The server ended the statement: its time was up, or somebody cancelled it.
    Cancelled,
    /// We gave up waiting; what the statement did is unknown.
    TimedOut,
    /// The server stopped answering anybody while it worked on this; what the statement did is unknown.
    Silent,
    /// The request's deadline passed; what the statement did is unknown.
    Deadline,
    /// No pooled connection came free in time.
    PoolTimeout,
    /// Too many statements are under way on the shared connections.
    Busy,
    /// The primary serves as many reads for the replicas as it may.
    Spill,
    /// A breaker refused the call: nothing was sent.
    Open,
    /// As many calls as allowed are under way: nothing was sent.
    Crowded,
    /// The endpoint is closed.
    Closed,
    /// The server has no connection left for us.
    TooManyConnections,
    /// The server is out of memory or of something configured.
    OutOfResources,
    /// The server's disk is full.
    Full,
    /// A deadlock or a serialization failure: rolled back, may be done again.
    Conflict,
    /// A prepared statement is not there, or is somebody else's: a pooler stands in between.
    Pooler,
    /// The server does not accept who we say we are.
    Login,
    /// There is no such database.
    NoDatabase,
    /// The schema is missing or of another version.
    NoSchema,
    /// We lack a privilege.
    Denied,
    /// No encrypted connection could be made.
    Tls,
    /// The server's data is damaged.
    Damaged,
    /// Text that Postgres cannot hold: a NUL.
    Nul,
    /// A constraint refused the row.
    Constraint,
    /// A defect of ours.
    Internal,
}

/// An error of the link. Holds no value of a statement and no password.
#[derive(Clone)]
pub(crate) struct Fault {
    kind: Kind,
    code: Option<SqlState>,
    detail: Box<str>,
    /// When another try may fare better, where somebody knows.
    retry_after: Option<Duration>,
}

impl Fault {
    /// One of ours, with words for the operator.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            code: None,
            detail: detail.into().into_boxed_str(),
            retry_after: None,
        }
    }

    /// The same with the time after which another try may fare better.
    #[must_use]
    pub(crate) const fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// After [`Endpoint::close`](super::Endpoint::close).
    pub(super) fn closed() -> Self {
        Self::new(Kind::Closed, "the connections to Postgres are closed")
    }

    /// Time was up: the deadline's, or `late`'s own.
    pub(super) fn late(late: Kind, by_deadline: bool) -> Self {
        if by_deadline {
            return Self::new(
                Kind::Deadline,
                "the request's deadline passed while it waited for Postgres",
            );
        }
        let detail = match late {
            Kind::PoolTimeout => {
                "no connection came free within context_manager.database.pool_timeout; raise max_open_conns if the \
                 server has room"
            }
            Kind::Unreachable => "no connection was made within context_manager.database.connect_timeout",
            _ => "Postgres did not answer within context_manager.database.statement_timeout and a second",
        };
        Self::new(late, detail)
    }

    /// The same with where it happened before it.
    #[must_use]
    pub(super) fn at(mut self, place: &str) -> Self {
        self.detail = format!("{place}: {}", self.detail).into_boxed_str();
        self
    }

    /// An error from opening a connection: whatever is not understood means that there is none.
    pub(super) fn connecting(error: &tokio_postgres::Error) -> Self {
        let mut fault = Self::from(error);
        if error.as_db_error().is_none() {
            fault.kind = match words(error) {
                "error performing TLS handshake" => Kind::Tls,
                "invalid configuration" | "authentication error" => Kind::Login,
                _ => Kind::Unreachable,
            };
            if fault.kind == Kind::Tls {
                fault.detail = tls_words(&fault.detail).into_boxed_str();
            }
        } else if fault.kind == Kind::Lost {
            fault.kind = Kind::Unreachable;
        }
        fault
    }

    /// What kind of trouble it is.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// The server's code, if it said it.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        self.code.as_ref().map(SqlState::code)
    }

    /// Whether the whole transaction was rolled back for a reason that passes: do it again. Also the case when a
    /// pooler was found out, because from then on statements are sent in a way that works.
    pub(crate) const fn is_transient_conflict(&self) -> bool {
        matches!(self.kind, Kind::Conflict | Kind::Pooler)
    }

    /// Whether it is certain that the statement (in a transaction: the transaction) had no effect.
    pub(crate) fn is_not_applied(&self) -> bool {
        match self.kind {
            Kind::Lost | Kind::TimedOut | Kind::Silent | Kind::Deadline => false,
            // In doubt by the server's own words: "statement completion unknown".
            _ => self.code != Some(SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN),
        }
    }

    /// Whether the other connections to this server are in doubt as well: it is going down, or not the primary.
    pub(crate) const fn is_suspect(&self) -> bool {
        matches!(
            self.kind,
            Kind::Unreachable | Kind::Lost | Kind::Starting | Kind::ReadOnly
        )
    }

    /// What it says to breakers and pickers.
    pub(crate) fn outcome(&self) -> Outcome {
        match (self.kind, self.sqlstate()) {
            (Kind::PoolTimeout | Kind::Busy | Kind::Spill | Kind::Open | Kind::Crowded | Kind::Closed, _) => {
                sqlstate::POOL_TIMEOUT
            }
            (Kind::Deadline, _) => Outcome::NEUTRAL,
            // The server's fault, whatever the code says of the statement.
            (Kind::Login | Kind::NoDatabase, _) => {
                Outcome::new(Verdict::Failure, contextkeep_resilience::Again::NotApplied)
            }
            (Kind::Unreachable | Kind::Tls, _) => sqlstate::connection(false),
            (_, Some(code)) => sqlstate::code(code),
            (Kind::Lost | Kind::TimedOut | Kind::Silent, None) => sqlstate::connection(true),
            _ => Outcome::NEUTRAL,
        }
    }
}

impl From<&tokio_postgres::Error> for Fault {
    fn from(error: &tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return Self {
                // "cached plan must not change result type": the words are translated, the routine is not.
                kind: match db.routine() {
                    Some("RevalidateCachedQuery") => Kind::Conflict,
                    _ => kind_of(db.code()),
                },
                code: Some(db.code().clone()),
                detail: server_words(db).into_boxed_str(),
                retry_after: None,
            };
        }
        let kind = match words(error) {
            _ if error.is_closed() => Kind::Lost,
            "error communicating with the server"
            | "error connecting to server"
            | "timeout waiting for server" => Kind::Lost,
            _ => Kind::Internal,
        };
        // The source of a conversion error may hold the value.
        let detail = match (kind, error.source()) {
            (Kind::Internal, Some(source)) if words(error).starts_with("error performing TLS") => {
                format!("{error}: {source}")
            }
            (Kind::Internal, _) | (_, None) => error.to_string(),
            (_, Some(source)) => format!("{error}: {source}"),
        };
        Self::new(kind, detail)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::from(&error)
    }
}

/// The client's kinds are private; its words for them are fixed and short.
fn words(error: &tokio_postgres::Error) -> &'static str {
    const KNOWN: [&str; 7] = [
        "error performing TLS handshake",
        "error communicating with the server",
        "error connecting to server",
        "timeout waiting for server",
        "authentication error",
        "invalid configuration",
        "connection closed",
    ];
    let text = error.to_string();
    KNOWN.into_iter().find(|known| text == *known).unwrap_or("")
}

fn tls_words(detail: &str) -> String {
    if detail.ends_with("server does not support TLS") {
        format!(
            "{detail}; switch `ssl` on in the server, or set sslmode=disable in context_manager.database.dsn if the \
             network is trusted"
        )
    } else {
        format!("{detail}; check the server's certificate, its name, and context_manager.database.ca_file")
    }
}

fn kind_of(code: &SqlState) -> Kind {
    match (code.code(), code.code().get(..2).unwrap_or_default()) {
        ("25006", _) => Kind::ReadOnly,
        ("57P01" | "57P02" | "57P05" | "40003", _) | (_, "08") => Kind::Lost,
        ("57P03", _) => Kind::Starting,
        ("57014", _) => Kind::Cancelled,
        ("53100", _) => Kind::Full,
        ("53300", _) => Kind::TooManyConnections,
        (_, "53") => Kind::OutOfResources,
        ("40001" | "40P01", _) => Kind::Conflict,
        ("26000" | "42P05", _) => Kind::Pooler,
        ("3D000", _) => Kind::NoDatabase,
        (_, "28") => Kind::Login,
        ("42P01" | "42883" | "42703" | "42704" | "3F000", _) => Kind::NoSchema,
        ("42501", _) => Kind::Denied,
        ("XX001" | "XX002", _) => Kind::Damaged,
        ("22021" | "22P05", _) => Kind::Nul,
        (_, "23") => Kind::Constraint,
        _ => Kind::Internal,
    }
}

/// The server's message and code, without what may quote a value: the detail always, the message in the classes
/// "data exception" and "integrity constraint violation".
fn server_words(db: &tokio_postgres::error::DbError) -> String {
    let code = db.code().code();
    match (code.get(..2), db.constraint()) {
        (Some("23"), Some(constraint)) => format!("constraint {constraint} refused it (SQLSTATE {code})"),
        (Some("22" | "23"), _) => format!("a value was refused (SQLSTATE {code})"),
        _ => format!("{} (SQLSTATE {code})", db.message()),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = &self.detail;
        match self.kind {
            Kind::Login => write!(
                f,
                "Postgres refused the login: {detail}; check user and password in context_manager.database.dsn and the \
                 server's pg_hba.conf"
            ),
            Kind::NoDatabase => write!(
                f,
                "Postgres has no such database: {detail}; create it, or correct the name in context_manager.database.dsn"
            ),
            Kind::NoSchema => write!(
                f,
                "the schema is missing or of another version: {detail}; run `contextkeep migrate`"
            ),
            Kind::Denied => write!(
                f,
                "Postgres denies it: {detail}; grant it to the user of context_manager.database.dsn"
            ),
            Kind::ReadOnly => write!(f, "Postgres is a standby and takes no writes: {detail}"),
            Kind::Cancelled => write!(
                f,
                "Postgres ended the statement: {detail}; it ran longer than the request's deadline or \
                 context_manager.database.statement_timeout, or was cancelled"
            ),
            Kind::TooManyConnections => write!(
                f,
                "Postgres has no connection left: {detail}; lower context_manager.database.max_open_conns or raise the \
                 server's max_connections"
            ),
            Kind::Full => write!(
                f,
                "the disk of Postgres is full: {detail}; make room on its server: reads go on, writes are refused until then"
            ),
            Kind::Pooler => write!(
                f,
                "a pooler does not keep prepared statements: {detail}; set context_manager.database.prepared_statements \
                 to off"
            ),
            _ => f.write_str(detail),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let detail = fault.to_string();
        let retry_after = fault.retry_after.unwrap_or(RETRY_AFTER);
        match fault.kind {
            Kind::Crowded => Self::Overloaded {
                what: "a Postgres server's share of context_manager.circuit_breaker.max_concurrent_requests",
                retry_after,
            },
            Kind::PoolTimeout => Self::Overloaded {
                what: "the pool of Postgres connections",
                retry_after: RETRY_AFTER,
            },
            Kind::Busy => Self::Overloaded {
                what: "the queue of the shared Postgres connections",
                retry_after: RETRY_AFTER,
            },
            Kind::Spill => Self::Overloaded {
                what: "the primary's share of the replicas' reads",
                retry_after: RETRY_AFTER,
            },
            Kind::Full => Self::StorageFull { detail },
            Kind::Damaged => Self::StorageDamaged { detail },
            Kind::Nul => Self::Invalid(
                Invalid::new(
                    "",
                    "holds the character U+0000, which Postgres cannot keep in text",
                )
                .hint("remove it, or send it escaped once more"),
            ),
            Kind::Constraint | Kind::Internal => Self::Internal { detail },
            _ => Self::Unavailable { detail, retry_after },
        }
    }
}

#[cfg(test)]
mod tests;
