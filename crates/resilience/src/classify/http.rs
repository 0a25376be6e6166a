//! HTTP status codes (RFC 9110, RFC 6585).

use std::time::Duration;

use crate::{Again, Outcome, Verdict};

/// Judges a status code and, if there was one, its parsed `Retry-After`.
///
/// | status | verdict | again |
/// |---|---|---|
/// | 1xx, 2xx, 3xx | success | no |
/// | 408, 425 | failure | if idempotent |
/// | 429, and 503 with `Retry-After` | throttled | after it |
/// | 501, 505 | neutral: the server is well, the request is beyond it | no |
/// | other 5xx | failure | if idempotent |
/// | other 4xx | neutral | no |
pub const fn status(code: u16, retry_after: Option<Duration>) -> Outcome {
    match (code, retry_after) {
        (100..=399, _) => Outcome::SUCCESS,
        (429, wait) => Outcome::throttled(wait),
        (503, Some(wait)) => Outcome::throttled(Some(wait)),
        (501 | 505, _) => Outcome::NEUTRAL,
        (408 | 425 | 500..=599, _) => Outcome::FAILURE,
        _ => Outcome::NEUTRAL,
    }
}

/// A transport that broke. `sent` says whether any of the request may have reached the server: a refused
/// connection or a failed handshake is not sent, a reset while waiting is.
pub const fn transport(sent: bool) -> Outcome {
    Outcome::new(
        Verdict::Failure,
        if sent {
            Again::IfIdempotent
        } else {
            Again::NotApplied
        },
    )
}

/// Reads `Retry-After` as seconds, or as an HTTP date relative to `date`, the response's own `Date` header,
/// so that no clock of ours is compared with the server's. A date in the past is zero.
pub fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let then = unix_seconds(value)?;
    let now = unix_seconds(date?.trim())?;
    Some(Duration::from_secs(u64::try_from(then - now).unwrap_or(0)))
}

/// An `IMF-fixdate` (`Sun, 06 Nov 1994 08:49:37 GMT`) in seconds since 1970.
fn unix_seconds(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut fields = text.split_once(", ")?.1.split(' ');
    let day: i64 = fields.next()?.parse().ok()?;
    let month_name = fields.next()?;
    let month = i64::try_from(MONTHS.iter().position(|month| *month == month_name)?).ok()? + 1;
    let year: i64 = fields
        .next()?
        .parse()
        .ok()
        .filter(|year| (1970..10_000).contains(year))?;
    let mut clock = fields.next()?.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let in_range = (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    (in_range && fields.next() == Some("GMT"))
        .then(|| days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days in the proleptic Gregorian calendar, counting years from March so that the leap day comes last.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}
