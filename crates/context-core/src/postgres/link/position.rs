//! Where a server is in the log, and which log that is.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::types::PgLsn;

/// A position in the write-ahead log. Positions compare within one [`Epoch`] only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lsn(pub u64);

impl Lsn {
    /// As a parameter of a statement, type `pg_lsn`.
    pub(crate) fn to_sql(self) -> PgLsn {
        PgLsn::from(self.0)
    }

    /// The bytes from `earlier` to here; 0 if `earlier` is in fact later.
    pub(crate) const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<PgLsn> for Lsn {
    fn from(lsn: PgLsn) -> Self {
        Self(lsn.into())
    }
}

/// As Postgres writes it: `16/B374D848`.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position in the log: two hexadecimal numbers of at most 8 digits with a slash between them")]
pub(crate) struct NotAnLsn;

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let half = |digits: &str| {
            // `from_str_radix` takes a sign, Postgres does not.
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if plain {
                u32::from_str_radix(digits, 16).ok()
            } else {
                None
            }
        };
        let (high, low) = text.split_once('/').ok_or(NotAnLsn)?;
        let (high, low) = (half(high).ok_or(NotAnLsn)?, half(low).ok_or(NotAnLsn)?);
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

/// Which log a position belongs to: that of another epoch says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Epoch {
    /// Drawn by `initdb`; the same on a primary and its standbys.
    pub system_identifier: u64,
    /// One more with each promotion.
    pub timeline: u32,
}

/// As `7301234567890123456.1`.
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.system_identifier, self.timeline)
    }
}

/// What a look at a server showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Probe {
    /// Whether it replays another server's log: it takes no writes.
    pub in_recovery: bool,
    /// Replayed up to here (standby), written up to here (primary). `None`: nothing replayed yet.
    pub lsn: Option<Lsn>,
    /// Its log. A standby may learn of a promotion some time after it follows the new primary.
    pub epoch: Epoch,
    /// Standby: the time since the last replayed commit was made. Rises on an idle primary, and is skewed by the
    /// servers' clocks.
    pub replay_age: Option<Duration>,
    /// Primary: whether `synchronous_standby_names` names anybody, without which `durability: replicated` waits
    /// for nobody.
    pub has_synchronous_standbys: bool,
    /// How long the look took.
    pub took: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_written_as_postgres_writes_it() {
        for (text, value) in [
            ("0/0", 0),
            ("16/B374D848", 0x16_B374_D848),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Lsn(value)), "{text}");
            assert_eq!(Lsn(value).to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_position_is_refused() {
        for text in [
            "",
            "/",
            "1/",
            "/1",
            "1",
            "1/2/3",
            "+1/2",
            "1/-2",
            "100000000/0",
            "g/0",
            " 1/2",
        ] {
            assert_eq!(text.parse::<Lsn>(), Err(NotAnLsn), "{text:?}");
        }
    }

    #[test]
    fn positions_compare_as_numbers_not_as_text() {
        let (small, large): (Lsn, Lsn) = ("0/FFFFFFFF".parse().unwrap(), "1/0".parse().unwrap());
        assert!(small < large);
        assert_eq!(large.bytes_since(small), 1);
        assert_eq!(small.bytes_since(large), 0);
    }
}
