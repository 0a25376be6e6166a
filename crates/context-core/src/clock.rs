//! Time is a parameter. Wall-clock time is used for timestamps and retention only: no ordering and no
//! coherence decision depends on it.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use jiff::tz::Offset;

/// A point in time: microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This point moved forward; stops at the end of representable time.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// This point moved back; stops at the beginning of representable time.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// Parses RFC 3339, such as `2026-01-31T12:00:00Z`.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>()
            .ok()
            .map(|at| Self(at.as_microsecond()))
    }
}

impl Timestamp {
    /// Appends what [`Display`](fmt::Display) shows, without the detour by a formatter: each head has two of them.
    pub fn write_to(self, out: &mut Vec<u8>) {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) if self.0 >= Self::YEAR_ZERO => out.extend_from_slice(&rfc3339(at)),
            _ => write!(out, "{self}").expect("invariant: writing to memory does not fail"),
        }
    }

    /// 0000-01-01, before which years have a sign and six digits.
    const YEAR_ZERO: i64 = -62_167_219_200_000_000;
}

/// A time with four digits for its year, in UTC with microseconds.
fn rfc3339(at: jiff::Timestamp) -> [u8; 27] {
    let at = Offset::UTC.to_datetime(at);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |end: usize, digits: usize, number: u32| {
        let mut rest = number;
        for digit in text[..end].iter_mut().rev().take(digits) {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
    };
    put(4, 4, at.year().unsigned_abs().into());
    put(7, 2, at.month().unsigned_abs().into());
    put(10, 2, at.day().unsigned_abs().into());
    put(13, 2, at.hour().unsigned_abs().into());
    put(16, 2, at.minute().unsigned_abs().into());
    put(19, 2, at.second().unsigned_abs().into());
    put(26, 6, at.subsec_nanosecond().unsigned_abs() / 1000);
    text
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => write!(f, "{at:.6}"),
            // Outside the years -9999 to 9999: the number is all there is to say.
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is not an RFC 3339 time such as 2026-01-31T12:00:00Z"
            ))
        })
    }
}

/// Where wall-clock time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where wall-clock time enters"
        )]
        let now = jiff::Timestamp::now();
        Timestamp(now.as_microsecond())
    }
}

/// A clock that moves when a test says so.
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug)]
pub struct ManualClock(std::sync::atomic::AtomicI64);

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// Starts at the given point.
    pub fn starting_at(at: Timestamp) -> Self {
        Self(std::sync::atomic::AtomicI64::new(at.0))
    }

    /// Moves forward.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.0.fetch_add(micros, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_read_back_what_they_print() {
        let at = Timestamp::from_micros(1_790_000_000_123_456);
        assert_eq!(Timestamp::parse(&at.to_string()), Some(at));
        assert!(at.to_string().ends_with(".123456Z"), "{at}");
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn what_is_written_to_memory_is_what_is_shown() {
        let micros = [
            0,
            1,
            -1,
            1_790_000_000_000_000,
            -62_135_596_800_000_001,
            Timestamp::YEAR_ZERO,
            Timestamp::YEAR_ZERO - 1,
            253_402_207_200_999_999,
            253_402_300_799_999_999,
            i64::MIN,
            i64::MAX,
        ];
        for at in micros.map(Timestamp::from_micros) {
            let mut out = b"at ".to_vec();
            at.write_to(&mut out);
            assert_eq!(out, format!("at {at}").into_bytes());
        }
    }
}
