//! The breakers, set up alike: a window of n calls that opens at 50 % failures, open for 20 ms, one probe.

use std::rc::Rc;
use std::sync::Arc;
use std::thread::sleep;

use crate::{Make, OPEN, Setup, Subject, Went, ms, work};

/// What the experiments themselves cost.
pub const BASELINE: &str = "no breaker";

pub const ALL: [(&str, Make); 7] = [
    (BASELINE, none),
    ("contextkeep-resilience", ours),
    ("tower-resilience-circuitbreaker 0.14.0", tower_resilience),
    ("seatbelt 0.11.0", seatbelt),
    ("failsafe 1.3.0", failsafe),
    ("recloser 1.4.0", recloser),
    ("circuitbreaker-rs 0.1.1", circuitbreaker_rs),
];

fn went<E>(result: Result<(), E>, refused: impl Fn(&E) -> bool) -> Went {
    match result {
        Ok(()) => Went::Well,
        Err(error) if refused(&error) => Went::Away,
        Err(_) => Went::Badly,
    }
}

fn none(_: Setup) -> Subject {
    Subject {
        call: Box::new(|channel| Box::pin(async { went(work(channel).await, |_| false) })),
        wait: Box::new(sleep),
    }
}

fn ours(setup: Setup) -> Subject {
    use contextkeep_resilience::breaker::{HalfOpen, Window};
    use contextkeep_resilience::{Backoff, Breaker, Error};
    let window = if setup.time {
        Window::time(ms(60_000))
    } else {
        Window::Calls(setup.window)
    };
    let breaker = Breaker::builder("ours")
        .window(window)
        .min_calls(u32::from(setup.window).min(2047))
        .consecutive(None)
        .slow(ms(5), None)
        .open(Backoff::constant(OPEN))
        .half_open(HalfOpen::probes(1, 1, OPEN * 4))
        .build()
        .expect("valid");
    Subject {
        call: Box::new(move |channel| {
            let breaker = breaker.clone();
            Box::pin(async move { went(breaker.call(|| work(channel)).await, Error::is_local) })
        }),
        wait: Box::new(sleep),
    }
}

fn tower_resilience(setup: Setup) -> Subject {
    use tower::{Layer, Service, ServiceExt, service_fn};
    use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer, SlidingWindowType};
    let builder = CircuitBreakerLayer::builder();
    let builder = if setup.time {
        builder
            .sliding_window_type(SlidingWindowType::TimeBased)
            .sliding_window_duration(ms(60_000))
    } else {
        builder
    };
    let layer = builder
        .failure_rate_threshold(0.5)
        .sliding_window_size(setup.window.into())
        .minimum_number_of_calls(setup.window.into())
        .slow_call_duration_threshold(ms(5))
        .wait_duration_in_open(OPEN)
        .permitted_calls_in_half_open(1)
        .build()
        .expect("valid");
    let service = layer.layer(service_fn(work));
    Subject {
        call: Box::new(move |channel| {
            let mut service = service.clone();
            Box::pin(async move {
                let result = async { service.ready().await?.call(channel).await }.await;
                went(result, |error| matches!(error, CircuitBreakerError::OpenCircuit))
            })
        }),
        wait: Box::new(sleep),
    }
}

fn seatbelt(setup: Setup) -> Subject {
    use layered::{Execute, Service, Stack};
    use seatbelt::breaker::{Breaker, HalfOpenMode};
    use seatbelt::{RecoveryInfo, ResilienceContext};
    use std::io;
    use tick::ClockControl;
    use tokio::sync::oneshot::Receiver;
    let control = ClockControl::new();
    let context: ResilienceContext<Receiver<bool>, io::Result<()>> =
        ResilienceContext::new(control.to_clock());
    let stack = (
        Breaker::layer("seatbelt", &context)
            .recovery_with(|result: &io::Result<()>, _| match result {
                Ok(()) => RecoveryInfo::never(),
                Err(_) => RecoveryInfo::retry(),
            })
            .rejected_input(|_, _| Err(io::Error::from(io::ErrorKind::ResourceBusy)))
            .failure_threshold(0.5)
            .min_throughput(setup.window.into())
            .break_duration(OPEN)
            .half_open_mode(HalfOpenMode::quick()),
        Execute::new(work),
    );
    let service = Arc::new(stack.into_service());
    Subject {
        call: Box::new(move |channel| {
            let service = Arc::clone(&service);
            Box::pin(async move {
                let refused = |error: &io::Error| error.kind() == io::ErrorKind::ResourceBusy;
                went(service.execute(channel).await, refused)
            })
        }),
        wait: Box::new(move |time| control.advance(time)),
    }
}

fn failsafe(setup: Setup) -> Subject {
    assert!(!setup.time, "it has no window");
    use failsafe::futures::CircuitBreaker;
    use failsafe::{Config, Error, backoff, failure_policy};
    // It has no window of calls; a run of failures as long as half the window stands in for it.
    let run = u32::from(setup.window / 2).max(1);
    let policy = failure_policy::consecutive_failures(run, backoff::constant(OPEN));
    let breaker = Config::new().failure_policy(policy).build();
    Subject {
        call: Box::new(move |channel| {
            let breaker = breaker.clone();
            Box::pin(async move {
                let result = breaker.call(Box::pin(work(channel))).await;
                went(result, |error| matches!(error, Error::Rejected))
            })
        }),
        wait: Box::new(sleep),
    }
}

fn recloser(setup: Setup) -> Subject {
    assert!(!setup.time, "its window counts calls");
    use ::recloser::{AsyncRecloser, Error, Recloser};
    let breaker = Recloser::custom()
        .error_rate(0.5)
        .closed_len(setup.window.into())
        .half_open_len(1)
        .open_wait(OPEN)
        .build();
    let breaker = Rc::new(AsyncRecloser::from(breaker));
    Subject {
        call: Box::new(move |channel| {
            let breaker = Rc::clone(&breaker);
            Box::pin(async move {
                went(breaker.call(work(channel)).await, |error| {
                    matches!(error, Error::Rejected)
                })
            })
        }),
        wait: Box::new(sleep),
    }
}

fn circuitbreaker_rs(setup: Setup) -> Subject {
    assert!(!setup.time, "its window counts calls");
    use ::circuitbreaker_rs::{BreakerError, CircuitBreaker, DefaultPolicy};
    let breaker: CircuitBreaker<DefaultPolicy, std::io::Error> =
        CircuitBreaker::<DefaultPolicy, std::io::Error>::builder()
            .failure_threshold(0.5)
            .min_throughput(setup.window.into())
            .cooldown(OPEN)
            .probe_interval(1)
            .build();
    let breaker = Rc::new(breaker);
    Subject {
        call: Box::new(move |channel| {
            let breaker = Rc::clone(&breaker);
            Box::pin(async move {
                let result = breaker.call_async(|| work(channel)).await;
                went(result, |error| !matches!(error, BreakerError::Operation(_)))
            })
        }),
        wait: Box::new(sleep),
    }
}
