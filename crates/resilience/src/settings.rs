//! Settings for a configuration file, and the profiles they start from.

use std::time::Duration;

use crate::backoff::{Backoff, Jitter};
use crate::breaker::{Breaker, BreakerBuilder, HalfOpen, Window};
use crate::bulkhead::Bulkhead;
use crate::name::Name;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The five settings that an operator sees.
///
/// Everything they do not say comes from a [`Profile`]: the windows and rates that open the breaker besides
/// the run of failures, the spare probe, the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BreakerSettings {
    /// Whether the dependency is guarded. When off, the breaker still measures and reports, but rejects
    /// nothing, and there is no bulkhead.
    pub enabled: bool,
    /// So many failures in a row open the breaker (1 to 65535). The failure rate of the dependency's profile
    /// opens it as well.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub failure_threshold: u16,
    /// So many successful probes close it again (1 to 254). As many probes may fail besides as the profile
    /// allows.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 254)))]
    pub success_threshold: u8,
    /// How long an open breaker rejects before it lets probes through. A tenth of it is left to chance, so
    /// that many processes do not probe at once: never longer than this, at least nine tenths of it.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub timeout: Duration,
    /// At most so many calls run at once (at least 1); the profile says how many more may wait.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub max_concurrent_requests: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            failure_threshold: 5,
            success_threshold: 2,
            timeout: secs(60),
            max_concurrent_requests: 100,
        }
    }
}

/// A setting that makes no sense, with a way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// The key, relative to the section.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: &'static str,
}

impl std::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.key, self.message, self.hint)
    }
}

impl std::error::Error for SettingsError {}

impl BreakerSettings {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// Everything that does not, at once.
    pub fn validate(&self) -> Result<(), Vec<SettingsError>> {
        let mut errors = Vec::new();
        let mut refuse = |wrong: bool, key, message: &str, hint| {
            if wrong {
                errors.push(SettingsError {
                    key,
                    message: message.to_owned(),
                    hint,
                });
            }
        };
        refuse(
            self.failure_threshold == 0,
            "failure_threshold",
            "zero failures would open the breaker at once",
            "use at least 1; to switch the breaker off, set enabled: false",
        );
        refuse(
            !(1..=254).contains(&self.success_threshold),
            "success_threshold",
            "is not between 1 and 254",
            "2 is usual",
        );
        refuse(
            self.timeout.is_zero(),
            "timeout",
            "an open breaker has to stay open for some time",
            "use e.g. 60s",
        );
        refuse(
            self.max_concurrent_requests == 0,
            "max_concurrent_requests",
            "zero would reject every call",
            "use at least 1; to switch the limit off, set enabled: false",
        );
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The breaker they describe, on top of a profile. Not to be built from settings that do not
    /// [`validate`](Self::validate): the builder refuses them too.
    pub fn breaker(&self, name: impl Into<Name>, profile: Profile) -> BreakerBuilder {
        let base = profile.half_open();
        let spare = base.probes - base.need;
        let half_open = HalfOpen {
            probes: self.success_threshold.saturating_add(spare),
            need: self.success_threshold,
            ..base
        };
        profile
            .breaker(name)
            .observe_only(!self.enabled)
            .consecutive(self.failure_threshold)
            .open(Backoff::constant(self.timeout).jitter(Jitter::Upper(0.1)))
            .half_open(half_open)
    }

    /// The bulkhead they describe; `None` when not enabled.
    pub fn bulkhead(&self, name: impl Into<Name>, profile: Profile) -> Option<Bulkhead> {
        let limit = self.max_concurrent_requests;
        self.enabled
            .then(|| Bulkhead::new(name, limit, profile.queue_for(limit)))
    }
}

/// What suits a kind of dependency. Starting points: measure, then change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Statements that change something.
    PostgresWrite,
    /// Statements that change nothing, on a replica or the primary.
    PostgresRead,
    /// A cache, whose misses are not worth waiting for.
    RedisCache,
    /// Somebody else's HTTP interface, a breaker for each host.
    RestUpstream,
}

impl Profile {
    /// A builder with this profile's windows, rates, open times and probes.
    pub fn breaker(self, name: impl Into<Name>) -> BreakerBuilder {
        let builder = Breaker::builder(name).half_open(self.half_open());
        let open = |base, cap| Backoff::exponential(base, cap).jitter(Jitter::Upper(0.5));
        match self {
            Self::PostgresWrite => builder.slow(secs(1), None).open(open(secs(1), secs(30))),
            Self::PostgresRead => builder.slow(ms(500), 0.8).open(open(secs(1), secs(30))),
            Self::RedisCache => builder
                .window(Window::time(secs(5)))
                .failure_rate(0.3)
                .min_calls(50)
                .consecutive(10)
                .slow(ms(50), None)
                .open(open(ms(250), secs(5))),
            Self::RestUpstream => builder
                .window(Window::time(secs(30)))
                .min_calls(10)
                .slow(secs(5), None)
                .open(open(secs(2), secs(120))),
        }
    }

    /// How this profile probes.
    pub fn half_open(self) -> HalfOpen {
        match self {
            Self::PostgresWrite | Self::PostgresRead => HalfOpen::probes(3, 2, secs(5)),
            Self::RedisCache => HalfOpen::probes(5, 4, secs(1)),
            Self::RestUpstream => {
                HalfOpen::probes(1, 1, secs(10)).then_ramp([0.01, 0.05, 0.25, 0.5], secs(2))
            }
        }
    }

    /// How many may wait in front of `limit` slots.
    pub const fn queue_for(self, limit: u32) -> u32 {
        match self {
            Self::PostgresWrite | Self::PostgresRead => limit.saturating_mul(2),
            Self::RedisCache => 0,
            Self::RestUpstream => limit,
        }
    }

    /// How long to wait in that queue.
    pub const fn queue_wait(self) -> Duration {
        match self {
            Self::PostgresWrite | Self::PostgresRead => ms(100),
            Self::RedisCache => Duration::ZERO,
            Self::RestUpstream => ms(250),
        }
    }

    /// How long one attempt may take.
    pub const fn attempt_timeout(self) -> Duration {
        match self {
            Self::PostgresWrite => secs(2),
            Self::PostgresRead => ms(500),
            Self::RedisCache => ms(50),
            Self::RestUpstream => secs(5),
        }
    }

    /// How many further attempts are worth making.
    pub const fn max_retries(self) -> u32 {
        match self {
            Self::PostgresWrite | Self::RestUpstream => 2,
            Self::PostgresRead => 1,
            Self::RedisCache => 0,
        }
    }

    /// The share of extra attempts a budget should allow.
    pub const fn budget_share(self) -> f64 {
        match self {
            Self::PostgresWrite | Self::PostgresRead => 0.1,
            Self::RedisCache => 0.0,
            Self::RestUpstream => 0.2,
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
