//! What a breaker may be told, checked once.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::ring::{MAX_EXACT, MAX_SLICES};

/// Over which calls rates are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The calls of the last `span`, forgotten a `slices`th at a time (1 to 16).
    Time {
        /// Its length.
        span: Duration,
        /// Its resolution.
        slices: u32,
    },
    /// The last so many calls (1 to 1024), exactly.
    Calls(u16),
}

impl Window {
    /// A time window in ten slices.
    pub const fn time(span: Duration) -> Self {
        Self::Time { span, slices: 10 }
    }
}

/// How a half-open breaker finds out.
#[derive(Debug, Clone, PartialEq)]
pub struct HalfOpen {
    /// At most so many probes run or have ended in one episode (1 to 255).
    pub probes: u8,
    /// So many of them must succeed (1 to `probes`). More than `probes - need` failures re-open.
    pub need: u8,
    /// When probes have been out for this long without a pause and without a decision, the episode has failed,
    /// even if nobody polls them any more.
    pub max_wait: Duration,
    /// After the probes: the share of traffic let in at each stage before the breaker is closed. Empty closes at once.
    pub ramp: Vec<f64>,
    /// How long a stage of the ramp lasts.
    pub stage: Duration,
}

impl HalfOpen {
    /// `need` of `probes` must succeed; no ramp.
    pub const fn probes(probes: u8, need: u8, max_wait: Duration) -> Self {
        Self {
            probes,
            need,
            max_wait,
            ramp: Vec::new(),
            stage: Duration::from_secs(1),
        }
    }

    /// After the probes, let these shares of the traffic in, each for `stage`.
    #[must_use]
    pub fn then_ramp(mut self, shares: impl Into<Vec<f64>>, stage: Duration) -> Self {
        self.ramp = shares.into();
        self.stage = stage;
        self
    }
}

/// What a dropped call says. In async Rust a timeout outside the breaker *is* a drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Abandoned {
    /// Dropped after the slow threshold: a slow failure. Dropped sooner: nothing is known. The default.
    #[default]
    FailureIfSlow,
    /// Nothing, however late.
    Ignore,
    /// A failure, however soon.
    Failure,
}

/// Settings that make no sense: all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// A setting that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which one.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, Problem { key, message }) in self.problems.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{key}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Every decision of the breaker, in plain numbers.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) window: Window,
    pub(super) failure_ppm: Option<u64>,
    pub(super) slow_ppm: Option<u64>,
    pub(super) slow_after_nanos: u64,
    pub(super) consecutive: Option<u64>,
    pub(super) min_calls: u32,
    pub(super) open: Backoff,
    pub(super) max_retry_after: Duration,
    pub(super) stable_after: Duration,
    pub(super) half_open: HalfOpen,
    pub(super) abandoned: Abandoned,
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(super) struct Check(Vec<Problem>);

impl Check {
    /// Everything but the rates, which only exist here once they have become parts per million.
    pub(super) fn config(&mut self, config: &Config) {
        let (half_open, min_calls) = (&config.half_open, config.min_calls);
        match config.window {
            Window::Time { span, slices } => {
                let cut = (1..=MAX_SLICES).contains(&slices);
                self.refuse(!cut, "window", "must have 1 to 16 slices");
                self.refuse(span.is_zero(), "window", "must have a length");
            }
            Window::Calls(calls) => {
                let held = (1..=1024).contains(&calls);
                self.refuse(!held, "window", "must hold 1 to 1024 calls");
                let fits = min_calls <= u32::from(calls);
                self.refuse(!fits, "min_calls", "is more than the window can hold");
            }
        }
        let exact = (1..=MAX_EXACT).contains(&min_calls);
        self.refuse(!exact, "min_calls", "must be 1 to 2047");
        let never = config.consecutive == Some(0);
        self.refuse(never, "consecutive", "must be at least 1");
        let at_once = config.open.ceiling(0).is_zero();
        self.refuse(at_once, "open", "must be longer than zero");
        self.refuse(half_open.probes == 0, "half_open.probes", "must be at least 1");
        self.refuse(half_open.need == 0, "half_open.need", "must be at least 1");
        let too_many = half_open.need > half_open.probes;
        self.refuse(too_many, "half_open.need", "is more than there are probes");
        let no_wait = half_open.max_wait.is_zero();
        self.refuse(no_wait, "half_open.max_wait", "must be longer than zero");
        for share in &half_open.ramp {
            self.ppm("half_open.ramp", *share);
        }
        let no_stage = !half_open.ramp.is_empty() && half_open.stage.is_zero();
        self.refuse(no_stage, "half_open.stage", "must be longer than zero");
    }

    /// A share in parts per million.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is not in (0, 1] is refused"
    )]
    pub(super) fn ppm(&mut self, key: &'static str, rate: f64) -> u64 {
        let valid = rate > 0.0 && rate <= 1.0;
        let message = "is not a share: it must be over 0 and at most 1";
        self.refuse(!valid, key, &format!("{rate} {message}"));
        ((rate * 1_000_000.0).round() as u64).max(1)
    }

    fn refuse(&mut self, wrong: bool, key: &'static str, message: &str) {
        if wrong {
            let message = message.to_owned();
            self.0.push(Problem { key, message });
        }
    }

    /// Nothing, or everything that is wrong.
    pub(super) fn done(self) -> Result<(), ConfigError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(ConfigError { problems: self.0 })
    }
}
