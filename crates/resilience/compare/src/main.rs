//! The same experiments on this project's breaker and on others, through their public interfaces.
//!
//! Informational: nothing depends on it and no test runs it. What it prints is the tables in the README.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::oneshot::{self, Receiver, Sender};

mod parts;
mod subjects;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How a call went: let through with this result, or turned away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Went {
    Well,
    Badly,
    Away,
}

type Call = Pin<Box<dyn Future<Output = Went>>>;

/// What to build: a window of `window` calls that opens at 50 %, open for `OPEN`, one probe.
#[derive(Clone, Copy)]
struct Setup {
    window: u16,
    /// Over time instead, where there is a choice: all calls of the last minute.
    time: bool,
}

const OPEN: Duration = ms(20);

/// A breaker of some crate. A call ends as its channel says, and hangs as long as that is silent.
struct Subject {
    call: Box<dyn Fn(Receiver<bool>) -> Call>,
    wait: Box<dyn Fn(Duration)>,
}

fn poll(call: &mut Call) -> Option<Went> {
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(went) => Some(went),
        Poll::Pending => None,
    }
}

async fn work(channel: Receiver<bool>) -> io::Result<()> {
    if channel.await.unwrap_or(false) {
        Ok(())
    } else {
        Err(io::Error::other("down"))
    }
}

impl Subject {
    fn quick(&self, good: bool) -> Went {
        let (say, hear) = oneshot::channel();
        let _ = say.send(good);
        poll(&mut (self.call)(hear)).expect("the call is ready")
    }

    /// A call that hangs, if it was let through.
    fn hang(&self) -> Option<(Sender<bool>, Call)> {
        let (say, hear) = oneshot::channel();
        let mut call = (self.call)(hear);
        poll(&mut call).is_none().then_some((say, call))
    }

    /// Fails until it opens, then waits until it may probe.
    fn trip(&self) {
        let tripped = (0..100_000).any(|_| self.quick(false) == Went::Away);
        assert!(tripped, "it never opened");
        (self.wait)(OPEN + ms(5));
    }

    fn let_through(&self, calls: usize) -> usize {
        let held: Vec<_> = (0..calls).filter_map(|_| self.hang()).collect();
        held.len()
    }
}

type Make = fn(Setup) -> Subject;

const SMALL: Setup = counted(2);

const fn counted(window: u16) -> Setup {
    Setup { window, time: false }
}

fn a_window_slides(make: Make) -> String {
    let subject = make(counted(100));
    for _ in 0..100_000 {
        subject.quick(true);
    }
    let failures = (0..200_000)
        .take_while(|_| subject.quick(false) != Went::Away)
        .count();
    format!("{failures}")
}

fn b_early_answer(make: Make) -> String {
    let subject = make(SMALL);
    let (say, mut early) = subject.hang().expect("closed");
    subject.trip();
    let Some(_probe) = subject.hang() else {
        return "no probe".into();
    };
    let _ = say.send(true);
    poll(&mut early);
    format!("{} of 3 let through", subject.let_through(3))
}

fn c_hung_probe(make: Make) -> String {
    let subject = make(SMALL);
    subject.trip();
    let _hung = subject.hang();
    (subject.wait)(OPEN * 25);
    let second = subject.hang().is_some();
    (subject.wait)(OPEN * 2);
    if second || subject.hang().is_some() {
        "given up"
    } else {
        "for ever"
    }
    .into()
}

fn d1_stampede(make: Make) -> String {
    let subject = make(SMALL);
    subject.trip();
    subject.let_through(1000).to_string()
}

fn d2_cancelled_probes(make: Make) -> String {
    let subject = make(SMALL);
    subject.trip();
    for _ in 0..5 {
        drop(subject.hang());
    }
    (subject.wait)(OPEN * 2);
    if subject.quick(true) == Went::Well {
        "returned"
    } else {
        "stuck"
    }
    .into()
}

fn h_outer_timeout(make: Make) -> String {
    let subject = make(SMALL);
    for calls in 0..50 {
        let Some(call) = subject.hang() else {
            return format!("{calls} calls");
        };
        (subject.wait)(ms(10));
        drop(call);
    }
    "never opens".into()
}

fn i_old_probe(make: Make) -> String {
    let subject = make(SMALL);
    subject.trip();
    let Some((say, mut old)) = subject.hang() else {
        return "no probe".into();
    };
    // End the episode: by giving the probe up, or by failing another one.
    for _ in 0..20 {
        (subject.wait)(OPEN * 5);
        if subject.quick(false) == Went::Badly {
            break;
        }
    }
    (subject.wait)(OPEN * 4);
    let Some(_new) = subject.hang() else {
        return "no second episode".into();
    };
    let _ = say.send(true);
    poll(&mut old);
    format!("{} of 3 let through", subject.let_through(3))
}

fn cost(make: Make) -> String {
    const CALLS: u32 = 200_000;
    let subject = make(counted(100));
    let mut runs = [0; 5].map(|_: u128| {
        let start = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(subject.quick(true));
        }
        start.elapsed().as_nanos() / u128::from(CALLS)
    });
    runs.sort_unstable();
    let allocations = allocation_counter::measure(|| _ = subject.quick(true)).count_total;
    format!("{} ns, {allocations} allocations", runs[2])
}

/// What a call costs with so many samples in a window of time.
fn j_filled_window(make: Make) -> String {
    const CALLS: u32 = 500;
    let each = [1_000, 10_000, 100_000].map(|filled| {
        let subject = make(Setup {
            window: u16::MAX,
            time: true,
        });
        for _ in 0..filled {
            subject.quick(true);
        }
        let runs = (0..5).map(|_| {
            let start = Instant::now();
            for _ in 0..CALLS {
                std::hint::black_box(subject.quick(true));
            }
            start.elapsed().as_nanos() / u128::from(CALLS)
        });
        runs.min().unwrap_or_default().to_string()
    });
    format!("{} ns", each.join(" / "))
}

fn main() {
    let experiments: [(&str, fn(Make) -> String); 9] = [
        ("A", a_window_slides),
        ("B", b_early_answer),
        ("C", c_hung_probe),
        ("D1", d1_stampede),
        ("D2", d2_cancelled_probes),
        ("H", h_outer_timeout),
        ("I", i_old_probe),
        ("J", j_filled_window),
        ("cost", cost),
    ];
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    for (name, make) in subjects::ALL {
        println!("## {name}");
        for (letter, experiment) in experiments {
            if name == subjects::BASELINE && letter != "cost" {
                continue;
            }
            if !chosen.is_empty() && !chosen.iter().any(|word| word == letter) {
                continue;
            }
            let result =
                std::panic::catch_unwind(|| experiment(make)).unwrap_or_else(|_| "does not apply".into());
            println!("{letter:<4} {result}");
        }
    }
    if chosen.is_empty() || chosen.iter().any(|word| word == "parts") {
        parts::run();
    }
}
