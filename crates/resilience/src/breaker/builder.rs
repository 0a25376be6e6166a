//! Builds a breaker from its settings.

use std::sync::Arc;
use std::time::Duration;

use super::Breaker;
use super::config::{Abandoned, Check, Config, ConfigError, HalfOpen, Window};
use super::machine::Core;
use crate::backoff::{Backoff, Jitter};
use crate::clock::{Clock, SystemClock, whole_nanos};
use crate::name::Name;
use crate::random::{Random, SplitMix};

/// Builds a [`Breaker`]. Starts from the values in the crate's defaults table for a database write.
#[derive(Debug)]
#[must_use]
pub struct BreakerBuilder {
    name: Name,
    failure_rate: Option<f64>,
    slow_rate: Option<f64>,
    config: Config,
    observe_only: bool,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl BreakerBuilder {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            failure_rate: Some(0.5),
            slow_rate: None,
            config: Config {
                window: Window::time(Duration::from_secs(10)),
                failure_ppm: None,
                slow_ppm: None,
                slow_after_nanos: 1_000_000_000,
                consecutive: Some(5),
                min_calls: 20,
                open: Backoff::exponential(Duration::from_secs(1), Duration::from_secs(30))
                    .jitter(Jitter::Upper(0.5)),
                max_retry_after: Duration::from_mins(5),
                stable_after: Duration::from_secs(30),
                half_open: HalfOpen::probes(3, 2, Duration::from_secs(5)),
                abandoned: Abandoned::default(),
            },
            observe_only: false,
            clock: Arc::new(SystemClock),
            random: Arc::new(SplitMix::from_entropy()),
        }
    }

    /// Over which calls the rates are taken. Default: 10 s in ten slices.
    pub const fn window(mut self, window: Window) -> Self {
        self.config.window = window;
        self
    }

    /// Open when this share of the window failed (over 0, up to 1), given [`Self::min_calls`]. Default 0.5;
    /// `None` turns the rule off.
    pub fn failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.failure_rate = rate.into();
        self
    }

    /// A call that takes this long is slow (default 1 s), and when this share of the window is slow, given
    /// [`Self::min_calls`], the breaker opens. Default: no such rule; the threshold still serves
    /// [`Abandoned::FailureIfSlow`].
    pub fn slow(mut self, after: Duration, rate: impl Into<Option<f64>>) -> Self {
        self.config.slow_after_nanos = whole_nanos(after);
        self.slow_rate = rate.into();
        self
    }

    /// Open after so many failures in a row (1 to 65535). Default 5; `None` turns the rule off.
    pub fn consecutive(mut self, failures: impl Into<Option<u16>>) -> Self {
        self.config.consecutive = failures.into().map(u64::from);
        self
    }

    /// Rates are not looked at below this many calls in the window (1 to 2047). Default 20. So many calls
    /// abandoned in a row, with no answer between them, open the breaker too.
    pub const fn min_calls(mut self, calls: u32) -> Self {
        self.config.min_calls = calls;
        self
    }

    /// How long it stays open: the first opening gets try 0, a re-opening the next. Default 1 s doubling to
    /// 30 s, the upper half left to chance.
    pub const fn open(mut self, backoff: Backoff) -> Self {
        self.config.open = backoff;
        self
    }

    /// The longest `retry_after` of the dependency's that is believed. Default 5 min.
    pub const fn max_retry_after(mut self, limit: Duration) -> Self {
        self.config.max_retry_after = limit;
        self
    }

    /// After this long closed, the next opening is a first one again. Default 30 s.
    pub const fn stable_after(mut self, quiet: Duration) -> Self {
        self.config.stable_after = quiet;
        self
    }

    /// How it finds out that the dependency is back. Default: 2 of 3 probes, 5 s, no ramp.
    pub fn half_open(mut self, half_open: HalfOpen) -> Self {
        self.config.half_open = half_open;
        self
    }

    /// What a dropped call says.
    pub const fn abandoned(mut self, rule: Abandoned) -> Self {
        self.config.abandoned = rule;
        self
    }

    /// Start as a breaker that records and never rejects (see [`Breaker::observe_only`]).
    pub const fn observe_only(mut self, on: bool) -> Self {
        self.observe_only = on;
        self
    }

    /// The clock. Default [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The source of jitter and of the ramp's draws. Default [`SplitMix::from_entropy`].
    pub fn random(mut self, random: impl Random + 'static) -> Self {
        self.random = Arc::new(random);
        self
    }

    /// The breaker.
    ///
    /// # Errors
    /// Every setting that makes no sense.
    pub fn build(mut self) -> Result<Breaker, ConfigError> {
        let mut check = Check::default();
        self.config.failure_ppm = self.failure_rate.map(|rate| check.ppm("failure_rate", rate));
        self.config.slow_ppm = self.slow_rate.map(|rate| check.ppm("slow", rate));
        check.config(&self.config);
        check.done()?;
        Ok(Breaker::from_core(Core::new(
            self.name,
            self.config,
            self.observe_only,
            self.clock,
            self.random,
        )))
    }
}
