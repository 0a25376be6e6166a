//! SQLSTATE codes, as Postgres documents them (its appendix of error codes; checked against 15).

use crate::{Again, Outcome, Verdict};

/// Judges a server's error code.
///
/// | code | verdict | again | reason |
/// |---|---|---|---|
/// | 08001, 08004 | failure | not applied | no session was established |
/// | 08*, 40003 | failure | if idempotent | the session broke; what it did is unknown |
/// | 53300 | throttled | not applied | too many connections: refused at the door |
/// | 53* | failure | not applied | out of disk, memory or a configured limit: the statement was rolled back |
/// | 57P03 | failure | not applied | starting up or shutting down: refused at the door |
/// | 57P01, 57P02, 57P05 | failure | if idempotent | the session was ended |
/// | 57014 | failure | if idempotent | cancelled, which includes `statement_timeout` |
/// | 58* (not 58P01, 58P02), XX* | failure | no | I/O errors and broken data |
/// | 25006 | failure | not applied | a write reached a standby: the primary has moved |
/// | 40* | neutral | not applied | serialization failure, deadlock: rolled back, do it again |
/// | 55P03, 55006 | neutral | not applied | a lock or an object is in use |
/// | everything else | neutral | no | the statement's own fault |
pub fn code(code: &str) -> Outcome {
    let neutral = |again| Outcome::new(Verdict::Neutral, again);
    let failure = |again| Outcome::new(Verdict::Failure, again);
    match (code, code.get(..2).unwrap_or_default()) {
        ("08001" | "08004" | "25006" | "57P03", _) => failure(Again::NotApplied),
        ("53300", _) => Outcome::new(Verdict::Throttled { retry_after: None }, Again::NotApplied),
        ("40003" | "57P01" | "57P02" | "57P05" | "57014", _) | (_, "08") => failure(Again::IfIdempotent),
        (_, "53") => failure(Again::NotApplied),
        ("58P01" | "58P02", _) => neutral(Again::No),
        (_, "58" | "XX") => failure(Again::No),
        ("55P03" | "55006", _) | (_, "40") => neutral(Again::NotApplied),
        _ => neutral(Again::No),
    }
}

/// An error without a code: the connection, not the server. `sent` says whether the statement may have left.
pub const fn connection(sent: bool) -> Outcome {
    super::http::transport(sent)
}

/// No connection came free in the pool: our own limit, so it says nothing about the server.
pub const POOL_TIMEOUT: Outcome = Outcome::new(Verdict::Neutral, Again::No);
