//! One run: the stage, the clients, the faults, the end, the verdict.

#![expect(clippy::print_stdout, reason = "a run of minutes tells how far it is")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::check::{self, Guarantee, Violation};
use super::client::Nodes;
use super::finale::{self, Differing, Ending};
use super::front::Bug;
use super::history::{Answer, History, Operation};
use super::schedule::{self, Event};
use super::stage::Stage;
use super::workload::{self, Registry, Worker};
use super::{faults, front, observer};

/// After the faults nodes may differ from the database for so long, on a machine that does other things as well.
const AGREED: Duration = Duration::from_secs(20);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// What is to be run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) schedule: String,
    pub(super) seed: u64,
    /// Of the work, without the time for starting and healing.
    pub(super) lasts: Duration,
    pub(super) clients: u16,
    /// Planted in the first node.
    pub(super) bug: Option<Bug>,
}

impl Plan {
    /// Replicas that follow at once hardly ever show that nobody looked at the floor.
    fn lag(&self) -> Duration {
        match self.bug {
            Some(Bug::SkipFloor) => Duration::from_millis(500),
            _ => Duration::ZERO,
        }
    }
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) plan: Plan,
    /// By kind: all, and how many of them had a good answer.
    pub(super) operations: BTreeMap<&'static str, (u64, u64)>,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) violations: Vec<Violation>,
    /// Acknowledged writes that count for G5 later than from then, and all of them.
    pub(super) put_off: (usize, usize),
    pub(super) end: End,
}

/// Runs it.
pub(super) fn run(plan: Plan) -> Report {
    let events = schedule::draw(&plan.schedule, plan.seed, plan.lasts);
    println!(
        "{} seed {} for {:?}, {} clients",
        plan.schedule, plan.seed, plan.lasts, plan.clients
    );
    for event in &events {
        println!("  {event}");
    }
    let stage = Stage::start(plan.lag());
    let nodes = Nodes::new(stage.nodes.iter().map(super::stage::Node::address));
    if let Some(bug) = plan.bug {
        nodes.moved(0, front::start(bug, nodes.address(0)));
    }
    let over = AtomicBool::new(false);
    let (history, end) = thread::scope(|scope| {
        let observers: Vec<_> = (0..nodes.len())
            .map(|node| {
                let (nodes, over) = (&nodes, &over);
                scope.spawn(move || observer::observe(nodes, node, over))
            })
            .collect();
        // Whatever panics in here must not leave the observers looking for ever.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drive(&plan, &stage, &nodes, &events)
        }));
        over.store(true, Ordering::Release);
        let untold = observers
            .into_iter()
            .flat_map(|observer| observer.join().unwrap())
            .collect();
        match done {
            Ok((history, end)) => (History { untold, ..history }, end),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let violations = check::check(&history);
    let report = Report {
        operations: counted(&history.operations),
        faults: kinds(&events),
        plan,
        violations,
        put_off: check::put_off(&history),
        end,
    };
    println!("{report}");
    report
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct End {
    /// What nodes answered differently from the database.
    pub(super) differing: Vec<Differing>,
    /// What is known of the first of these.
    pub(super) inquest: Vec<String>,
    pub(super) healed: Duration,
    pub(super) agreed: Duration,
}

/// Work, faults, healing, and the last look.
fn drive(plan: &Plan, stage: &Stage, nodes: &Nodes, events: &[Event]) -> (History, End) {
    let mut operations = workload::prepare(nodes);
    let registry = Registry::default();
    let workers = work(plan, stage, nodes, &registry, events);
    let healed = finale::heal(stage);
    for worker in workers {
        operations.extend(worker.settle());
    }
    let Ending {
        kept,
        differing,
        agreed,
    } = finale::compare(nodes, stage.postgres.primary(), AGREED);
    operations.sort_by_key(|operation| operation.ended);
    let first = differing.first();
    let inquest = first.map(|first| finale::inquest(stage, &operations, first));
    (
        History {
            operations,
            kept,
            untold: Vec::new(),
        },
        End {
            differing,
            inquest: inquest.unwrap_or_default(),
            healed,
            agreed,
        },
    )
}

/// The clients at work while things break.
fn work<'run>(
    plan: &Plan,
    stage: &Stage,
    nodes: &'run Nodes,
    registry: &'run Registry,
    events: &[Event],
) -> Vec<Worker<'run>> {
    // What a token is for shows when its client reads elsewhere what it has just written.
    let own_writes = if plan.bug == Some(Bug::SkipFloor) { 70 } else { 0 };
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.clients)
            .map(|number| Worker::new(nodes, registry, plan.seed, number).own_writes(own_writes))
            .map(|worker| scope.spawn(|| worker.work(&stop, &count)))
            .collect();
        let begun = nodes.now();
        for event in events {
            until(nodes, begun + event.at, &count);
            println!(
                "{:7.2} s  {:?}",
                nodes.now().saturating_sub(begun).as_secs_f64(),
                event.fault
            );
            let ongoing = faults::begin(event.fault, stage);
            until(nodes, nodes.now() + event.lasts, &count);
            faults::end(&ongoing, stage, nodes);
            println!("{:7.2} s  over", nodes.now().saturating_sub(begun).as_secs_f64());
        }
        until(nodes, begun + plan.lasts, &count);
        stop.store(true, Ordering::Release);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

/// Waits for a moment of the schedule, and says now and then how far the clients are.
fn until(nodes: &Nodes, moment: Duration, count: &AtomicU64) {
    let mut said = nodes.now();
    while let Some(left) = moment.checked_sub(nodes.now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left.min(Duration::from_millis(100)));
        if nodes.now() > said + PROGRESS {
            said = nodes.now();
            println!("           {} operations", count.load(Ordering::Relaxed));
        }
    }
}

fn counted(operations: &[Operation]) -> BTreeMap<&'static str, (u64, u64)> {
    let mut counts: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
    for operation in operations {
        let (all, good) = counts.entry(operation.what.as_str()).or_default();
        *all += 1;
        // That a context is not there is an answer as good as any.
        *good += u64::from(!matches!(operation.answer, Answer::Unknown { .. }));
    }
    counts
}

fn kinds(events: &[Event]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts.entry(event.fault.kind()).or_default() += 1;
    }
    counts
}

impl Report {
    /// Whether the checker found something by one of these.
    pub(super) fn finds(&self, by: &[Guarantee]) -> bool {
        self.violations
            .iter()
            .any(|violation| by.contains(&violation.guarantee))
    }

    /// Panics if anything was not as promised, with the seed and how to see it again.
    pub(super) fn assert_good(&self) {
        let good = self.violations.is_empty() && self.end.differing.is_empty();
        assert!(good, "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan {
            schedule,
            seed,
            lasts,
            clients,
            bug,
        } = &self.plan;
        let seconds = lasts.as_secs();
        writeln!(f, "run: {schedule} seed {seed}, {seconds} s, {clients} clients")?;
        if let Some(bug) = bug {
            writeln!(f, "planted: {bug:?}")?;
        }
        for (kind, (all, good)) in &self.operations {
            writeln!(f, "operations: {kind} {all}, answered {good}")?;
        }
        for (kind, count) in &self.faults {
            writeln!(f, "faults: {kind} {count}")?;
        }
        writeln!(
            f,
            "healed in {:.1} s, agreed in {:.1} s",
            self.end.healed.as_secs_f64(),
            self.end.agreed.as_secs_f64()
        )?;
        let (late, writes) = self.put_off;
        writeln!(f, "writes: acknowledged {writes}")?;
        writeln!(f, "writes: of these the shared level may have heard later {late}")?;
        for (guarantee, count) in check::tally(&self.violations) {
            writeln!(f, "violations: {guarantee:?} {} {count}", guarantee.broken())?;
        }
        writeln!(
            f,
            "violations: nodes that differ in the end {}",
            self.end.differing.len()
        )?;
        let mut shown: BTreeMap<_, u32> = BTreeMap::new();
        for violation in &self.violations {
            let count = shown.entry(violation.guarantee).or_default();
            *count += 1;
            if *count <= 5 {
                writeln!(f, "{violation}")?;
            }
        }
        for differing in self.end.differing.iter().take(5) {
            writeln!(f, "in the end {differing}")?;
        }
        for line in &self.end.inquest {
            writeln!(f, "    {line}")?;
        }
        write!(
            f,
            "again: cargo xtask chaos --schedule {schedule} --seed {seed} --seconds {seconds}"
        )
    }
}
