//! What a breaker may be told, as both read it, and how such settings are drawn.

use std::time::Duration;

use contextkeep_resilience::breaker::{Abandoned, HalfOpen, Window};
use contextkeep_resilience::{Backoff, Breaker, Jitter, ManualClock};
use proptest::prelude::*;

use super::ms;

/// The longest `Retry-After` that is believed.
pub(super) const MAX_RETRY_AFTER: Duration = ms(700);

#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) window: Window,
    pub(super) failure_percent: Option<u32>,
    pub(super) slow_percent: Option<u32>,
    pub(super) slow_after: Duration,
    pub(super) consecutive: Option<u16>,
    pub(super) min_calls: u32,
    pub(super) base: Duration,
    pub(super) cap: Duration,
    pub(super) stable_after: Duration,
    pub(super) half_open: HalfOpen,
    pub(super) abandoned: Abandoned,
}

impl Rules {
    pub(super) fn breaker(&self, clock: &ManualClock) -> Breaker {
        let rate = |percent: Option<u32>| percent.map(|percent| f64::from(percent) / 100.0);
        Breaker::builder("model")
            .window(self.window)
            .failure_rate(rate(self.failure_percent))
            .slow(self.slow_after, rate(self.slow_percent))
            .consecutive(self.consecutive)
            .min_calls(self.min_calls)
            .open(Backoff::exponential(self.base, self.cap).jitter(Jitter::None))
            .max_retry_after(MAX_RETRY_AFTER)
            .stable_after(self.stable_after)
            .half_open(self.half_open.clone())
            .abandoned(self.abandoned)
            .clock(clock.clone())
            .build()
            .unwrap()
    }
}

pub(super) fn rules() -> impl Strategy<Value = Rules> {
    let window = prop_oneof![
        (1_u64..20, 1_u32..=16).prop_map(|(slice, slices)| Window::Time {
            span: ms(slice * 50) * slices,
            slices
        }),
        (1_u16..60).prop_map(Window::Calls),
    ];
    let percent = || proptest::option::of(1_u32..=100);
    let half_open = (1_u8..5, 1_u8..5, 1_u64..500, 0_usize..3).prop_map(|(probes, need, wait, ramp)| {
        HalfOpen::probes(probes, need.min(probes), ms(wait)).then_ramp(vec![1.0; ramp], ms(100))
    });
    let abandoned = prop_oneof![
        Just(Abandoned::FailureIfSlow),
        Just(Abandoned::Ignore),
        Just(Abandoned::Failure)
    ];
    let times = (1_u64..300, 1_u64..300, 1_u64..2000, 0_u64..1000);
    (
        window,
        (percent(), percent()),
        proptest::option::of(1_u16..6),
        1_u32..30,
        half_open,
        abandoned,
        times,
    )
        .prop_map(
            |(
                window,
                (failure_percent, slow_percent),
                consecutive,
                min_calls,
                half_open,
                abandoned,
                times,
            )| {
                let (slow, base, cap, stable) = times;
                let min_calls = if let Window::Calls(calls) = window {
                    min_calls.min(calls.into())
                } else {
                    min_calls
                };
                Rules {
                    window,
                    failure_percent,
                    slow_percent,
                    slow_after: ms(slow),
                    consecutive,
                    min_calls,
                    base: ms(base),
                    cap: ms(cap),
                    stable_after: ms(stable),
                    half_open,
                    abandoned,
                }
            },
        )
}
