//! What a call costs: instructions as a gate, nanoseconds as information.
//!
//! `cargo bench -p contextkeep-resilience --features tokio --bench cost` runs each case under callgrind with
//! two numbers of calls; the difference is the cost of a call, free of start-up and of neighbours on the
//! machine. A case over its limit fails the run. Without valgrind the run fails too, unless `--wall` is
//! given, which prints only the nanoseconds.
#![expect(clippy::print_stdout, reason = "a report for people is its output")]

use std::env::args;
use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::pin;
use std::process::{Command, ExitCode};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use contextkeep_resilience::breaker::Window;
use contextkeep_resilience::{
    AnyError, Breaker, BreakerSettings, Budget, Bulkhead, Clock, Fallback, Gate, Guard, Hedge, Idempotent,
    ManualClock, Policy, Profile, Retry, Served, SystemClock, gate,
};

/// A path, and how many instructions a call of it may take.
struct Case {
    name: &'static str,
    limit: u64,
    run: fn(u32),
}

const CASES: [Case; 12] = [
    Case {
        name: "two readings of the system clock",
        limit: 180,
        run: two_readings,
    },
    Case {
        name: "closed call, by permit",
        limit: 390,
        run: closed_system_clock,
    },
    Case {
        name: "closed call, by permit, clock free",
        limit: 217,
        run: closed_clock_free,
    },
    Case {
        name: "closed call, by `call`",
        limit: 400,
        run: closed_future,
    },
    Case {
        name: "closed call, 100,000 samples in the window",
        limit: 217,
        run: closed_full_window,
    },
    Case {
        name: "closed failing call, 100,000 samples",
        limit: 660,
        run: failing_full_window,
    },
    Case {
        name: "closed call, window of 100 calls",
        limit: 193,
        run: closed_calls_window,
    },
    Case {
        name: "open rejection, system clock",
        limit: 197,
        run: open_reject,
    },
    Case {
        name: "bulkhead slot",
        limit: 49,
        run: bulkhead,
    },
    Case {
        name: "budget: a call and a retry",
        limit: 53,
        run: budget,
    },
    Case {
        name: "guard behind dyn Gate",
        limit: 670,
        run: dyn_gate,
    },
    Case {
        name: "full policy, no timer armed",
        limit: 1680,
        run: full_policy,
    },
];

fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("every case is ready at once"),
    }
}

fn breaker(clock: impl Clock + 'static) -> Breaker {
    Breaker::builder("bench")
        .failure_rate(1.0)
        .consecutive(None)
        .clock(clock)
        .build()
        .expect("valid")
}

fn repeat(times: u32, mut call: impl FnMut()) {
    for _ in 0..times {
        call();
    }
}

fn closed(breaker: &Breaker, times: u32) {
    repeat(times, || {
        black_box(breaker).try_acquire().expect("closed").success();
    });
}

/// What the system takes of every call below that reads its clock.
fn two_readings(times: u32) {
    repeat(times, || {
        black_box((SystemClock.now(), SystemClock.now()));
    });
}

fn closed_system_clock(times: u32) {
    closed(&breaker(SystemClock), times);
}

fn closed_clock_free(times: u32) {
    closed(&breaker(ManualClock::new()), times);
}

fn closed_future(times: u32) {
    let breaker = breaker(SystemClock);
    repeat(times, || {
        at_once(breaker.call(|| ready(black_box(Ok::<_, ()>(()))))).expect("closed");
    });
}

fn filled() -> Breaker {
    let breaker = breaker(ManualClock::new());
    closed(&breaker, 100_000);
    breaker
}

fn closed_full_window(times: u32) {
    closed(&filled(), times);
}

fn failing_full_window(times: u32) {
    // No rate that could trip; each failure sums the window all the same.
    let rules = Breaker::builder("bench")
        .failure_rate(None)
        .consecutive(None)
        .slow(Duration::from_secs(1), 1.0);
    let breaker = rules.clock(ManualClock::new()).build().expect("valid");
    closed(&breaker, 100_000);
    repeat(times, || {
        black_box(&breaker)
            .try_acquire()
            .expect("below the rate")
            .failure();
    });
}

fn closed_calls_window(times: u32) {
    let builder = Breaker::builder("bench")
        .window(Window::Calls(100))
        .clock(ManualClock::new());
    closed(&builder.build().expect("valid"), times);
}

fn open_reject(times: u32) {
    let settings = BreakerSettings {
        failure_threshold: 1,
        ..BreakerSettings::default()
    };
    let breaker = settings
        .breaker("bench", Profile::PostgresWrite)
        .build()
        .expect("valid");
    breaker.try_acquire().expect("closed").failure();
    repeat(times, || {
        drop(black_box(&breaker).try_acquire().expect_err("open for a minute"));
    });
}

fn bulkhead(times: u32) {
    let bulkhead = Bulkhead::new("bench", 100, 100);
    repeat(times, || drop(black_box(&bulkhead).try_acquire()));
}

fn budget(times: u32) {
    let budget = Budget::share_of_in_flight(0.2, 3);
    repeat(times, || {
        let call = black_box(&budget).call();
        drop(budget.try_spend(contextkeep_resilience::Extra::Retry));
        drop(call);
    });
}

fn dyn_gate(times: u32) {
    let guard = Guard::new(breaker(SystemClock), Bulkhead::new("bench", 100, 100));
    let gate: &dyn Gate = &guard;
    repeat(times, || {
        at_once(gate::run(black_box(gate), &AnyError, || ready(Ok::<_, ()>(())))).expect("closed");
    });
}

fn full_policy(times: u32) {
    let budget = Budget::tokens(0.1, 10);
    let policy = Policy::named("bench")
        .clock(SystemClock)
        .fallback(Fallback::max_age(Duration::from_mins(1)))
        .total_timeout(Duration::from_secs(1))
        .retry(Retry::new(2, &budget))
        .hedge(Hedge::p95(&budget))
        .guard(breaker(SystemClock), Some(Bulkhead::new("bench", 100, 100)))
        .queue_wait(Duration::from_millis(100))
        .attempt_timeout(Duration::from_millis(500))
        .build();
    repeat(times, || {
        let nothing = |_: &_| ready(None::<Served<u32>>);
        let answer = at_once(policy.run_or(Idempotent::Yes, |_| ready(black_box(Ok::<_, ()>(7))), nothing));
        assert!(answer.is_ok());
    });
}

/// Instructions that a whole process of `times` calls executes.
fn instructions(case: usize, times: u32) -> Option<u64> {
    let this = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["--case", &case.to_string(), &times.to_string()])
        .output()
        .ok()?;
    let report = String::from_utf8_lossy(&output.stderr);
    let line = report.lines().find(|line| line.contains("Collected :"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// Nanoseconds a call. Set-up is in both of two lengths of run and drops out of their difference; of each
/// length the best of forty counts, because neighbours on the machine only ever add.
fn nanoseconds(run: fn(u32)) -> u64 {
    const FEW: u32 = 5_000;
    const MANY: u32 = 45_000;
    let best = |times| {
        let one = |_| {
            let start = SystemClock.now();
            run(times);
            SystemClock.now().as_nanos() - start.as_nanos()
        };
        (0..40).map(one).min().unwrap_or_default()
    };
    best(MANY).saturating_sub(best(FEW)) / u64::from(MANY - FEW)
}

fn main() -> ExitCode {
    let words: Vec<String> = args().collect();
    if let [_, flag, case, times] = &words[..]
        && flag == "--case"
    {
        let case: usize = case.parse().expect("a case number");
        (CASES[case].run)(times.parse().expect("a number of calls"));
        return ExitCode::SUCCESS;
    }
    let wall_only = words.iter().any(|word| word == "--wall");
    let mut failed = false;
    println!("{:<46} {:>13} {:>7} {:>5}", "path", "instructions", "limit", "ns");
    for (number, case) in CASES.iter().enumerate() {
        let wall = nanoseconds(case.run);
        if wall_only {
            println!("{:<46} {:>13} {:>7} {wall:>5}", case.name, "-", "-");
            continue;
        }
        let (Some(few), Some(many)) = (instructions(number, 1000), instructions(number, 11_000)) else {
            println!("valgrind did not run; install it, or pass --wall for nanoseconds only");
            return ExitCode::FAILURE;
        };
        let each = (many - few) / 10_000;
        let verdict = if each > case.limit { "OVER" } else { "" };
        failed |= each > case.limit;
        println!(
            "{:<46} {each:>13} {:>7} {wall:>5} {verdict}",
            case.name, case.limit
        );
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
