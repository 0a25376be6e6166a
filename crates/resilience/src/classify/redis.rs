//! Redis error replies, as Redis 7 and 8 document them (their first word is the code).

use crate::{Again, Outcome, Verdict};

/// Judges an error reply by its code, or by the whole line it starts.
///
/// | code | verdict | again | reason |
/// |---|---|---|---|
/// | LOADING, BUSY, MASTERDOWN, CLUSTERDOWN, NOREPLICAS, MISCONF, READONLY | failure | not applied | the node refuses for now, before running anything |
/// | TRYAGAIN | neutral | not applied | a slot is moving |
/// | MOVED, ASK | neutral | not applied | the key lives elsewhere; the client follows |
/// | OOM | throttled | not applied | full: fewer writes, please |
/// | UNKILLABLE, IOERR | failure | if idempotent | the node is in trouble |
/// | WRONGTYPE, NOSCRIPT, CROSSSLOT, EXECABORT, NOAUTH, NOPERM, ERR, … | neutral | no | the command's own fault |
///
/// `ERR max number of clients reached` is throttled: it is how a full server refuses a connection.
pub fn reply(line: &str) -> Outcome {
    let line = line.trim_start_matches('-');
    let code = line.split_ascii_whitespace().next().unwrap_or_default();
    match code {
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "NOREPLICAS" | "MISCONF" | "READONLY" => {
            Outcome::new(Verdict::Failure, Again::NotApplied)
        }
        "TRYAGAIN" | "MOVED" | "ASK" => Outcome::new(Verdict::Neutral, Again::NotApplied),
        "OOM" => Outcome::new(Verdict::Throttled { retry_after: None }, Again::NotApplied),
        "UNKILLABLE" | "IOERR" => Outcome::FAILURE,
        "ERR" if line.starts_with("ERR max number of clients") => {
            Outcome::new(Verdict::Throttled { retry_after: None }, Again::NotApplied)
        }
        _ => Outcome::NEUTRAL,
    }
}

/// A connection that broke or could not be made. `sent` says whether the command may have left.
pub const fn connection(sent: bool) -> Outcome {
    super::http::transport(sent)
}
