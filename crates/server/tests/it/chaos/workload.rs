//! What clients do: mixed operations on contexts of three kinds, through all nodes, each client of its own seed.
//!
//! | contexts | what happens to them |
//! | --- | --- |
//! | `log-N`, under the same ids in both tenants | appended to, read, forked: nothing in them may ever be missing |
//! | `shrink-N`, likewise | truncated and replaced besides |
//! | of a client's making, and forks | appended to, read, deleted; an id is used once |

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use contextkeep_resilience::{Random as _, SplitMix};

use super::client::{Client, Entry, Nodes, Session};
use super::history::{Demand, Item, Name, Operation, TENANTS, What};

const LOGS: u64 = 5;
const SHRINKS: u64 = 2;
/// Contexts of the clients' making that are there at a time, a tenant.
const LIVE_MAX: usize = 12;
/// Deleted ones that are still asked for.
const GONE_MAX: usize = 20;
/// Operations after which a client begins a new session, or takes over another's.
const SESSION: u64 = 60;
/// Longest pause between two operations of a client.
const PAUSE: Duration = Duration::from_millis(12);
/// Tries of one append after the faults are over.
const SETTLE_TRIES: usize = 40;
/// Tries of a creation before them: a machine may be busy.
const PREPARE_TRIES: usize = 10;

/// What the clients of a run know together.
#[derive(Default)]
pub(super) struct Registry {
    live: [Mutex<Vec<Name>>; 2],
    gone: [Mutex<VecDeque<Name>>; 2],
    /// A session that somebody may take over: tokens are good on any node and in anybody's hands.
    handed: [Mutex<Option<Session>>; 2],
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client and what it draws from.
pub(super) struct Worker<'run> {
    client: Client<'run>,
    registry: &'run Registry,
    nodes: &'run Nodes,
    random: SplitMix,
    appends: u32,
    /// Of a hundred steps so many are reads of an own write, besides those that there are anyway.
    own_writes: u64,
    /// Appends with a name whose outcome is not known.
    open: Vec<Entry>,
    /// Acknowledged ones, to be repeated.
    known: VecDeque<Entry>,
}

/// How an append is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    Key,
    ClientIds,
    Nothing,
}

/// Makes the contexts that are there from the beginning.
pub(super) fn prepare(nodes: &Nodes) -> Vec<Operation> {
    let mut operations = Vec::new();
    for tenant in 0..2 {
        let mut client = Client::new(nodes, u16::MAX - u16::from(tenant), tenant);
        for name in (0..LOGS).map(log).chain((0..SHRINKS).map(shrink)) {
            let created = (0..PREPARE_TRIES).any(|_| {
                let created = client.ask(0, &name, What::Create, Demand::Session);
                created.done().is_some()
            });
            assert!(created, "{name} could not be made before any fault");
        }
        operations.append(&mut client.operations);
    }
    operations
}

fn log(n: u64) -> Name {
    format!("log-{n}").into()
}

fn shrink(n: u64) -> Name {
    format!("shrink-{n}").into()
}

impl<'run> Worker<'run> {
    pub(super) fn new(nodes: &'run Nodes, registry: &'run Registry, seed: u64, number: u16) -> Self {
        let tenant = u8::try_from(usize::from(number) % TENANTS.len()).unwrap();
        Self {
            client: Client::new(nodes, number, tenant),
            registry,
            nodes,
            random: SplitMix::seeded(seed ^ (u64::from(number) << 40)),
            appends: 0,
            own_writes: 0,
            open: Vec::new(),
            known: VecDeque::new(),
        }
    }

    pub(super) fn own_writes(self, percent: u64) -> Self {
        Self {
            own_writes: percent,
            ..self
        }
    }

    /// Works until it is told to stop; answers what it did.
    pub(super) fn work(mut self, stop: &AtomicBool, counted: &std::sync::atomic::AtomicU64) -> Self {
        while !stop.load(Ordering::Acquire) {
            self.step();
            counted.fetch_add(1, Ordering::Relaxed);
            let pause = PAUSE.mul_f64(self.random.unit());
            std::thread::park_timeout(pause);
        }
        self
    }

    /// After the faults: what is open is repeated until its outcome is known.
    pub(super) fn settle(mut self) -> Vec<Operation> {
        for entry in std::mem::take(&mut self.open) {
            let known = (0..SETTLE_TRIES).any(|_| {
                self.append(entry.clone());
                self.open.pop().is_none()
            });
            assert!(
                known,
                "an append has no outcome after {SETTLE_TRIES} tries, without any fault: {entry:?}"
            );
        }
        self.client.operations
    }

    fn draw(&self, below: u64) -> u64 {
        self.random.bits() % below
    }

    fn node(&self) -> usize {
        usize::try_from(self.draw(self.nodes.len() as u64)).unwrap()
    }

    fn pick(&self, names: &[Name]) -> Option<Name> {
        let place = usize::try_from(self.draw(names.len().max(1) as u64)).unwrap();
        names.get(place).cloned()
    }

    fn tenant(&self) -> usize {
        usize::from(self.client.tenant)
    }

    fn live(&self) -> Option<Name> {
        self.pick(&lock(&self.registry.live[self.tenant()]))
    }

    /// A context to write to or to read, of any kind.
    fn context(&self) -> Name {
        match self.draw(20) {
            0..13 => log(self.draw(LOGS)),
            13..16 => shrink(self.draw(SHRINKS)),
            _ => self.live().unwrap_or_else(|| log(0)),
        }
    }

    fn demand(&self) -> Demand {
        match self.draw(100) {
            0..45 => Demand::Session,
            45..70 => Demand::Bare,
            70..78 => Demand::Strong,
            78..88 => Demand::Bounded,
            _ => Demand::Any,
        }
    }

    fn writing(&self) -> Demand {
        if self.draw(4) == 0 {
            Demand::Bare
        } else {
            Demand::Session
        }
    }

    fn step(&mut self) {
        self.change_session();
        if self.draw(3) > 0
            && let Some(entry) = self.open.pop()
        {
            return self.append(entry);
        }
        if self.draw(100) < self.own_writes {
            return self.read_own_write();
        }
        match self.draw(100) {
            0..14 => self.read(What::Head),
            14..28 => self.read(What::Window),
            28..34 => self.read_own_write(),
            34..42 => self.read(What::Items),
            42..45 => self.read(What::List),
            45..47 => self.read(What::Search),
            47..52 => self.read_many(),
            52..70 => self.append_new(Naming::Key),
            70..78 => self.append_new(Naming::Nothing),
            78..82 => self.append_new(Naming::ClientIds),
            82..85 => self.append_many(),
            85..89 => self.repeat(),
            89..91 => self.fork(),
            91..92 => self.shrink(),
            92..94 => self.create(),
            94..96 => self.delete(),
            96..98 => self.read_gone(),
            _ => self.read_foreign(),
        }
    }

    fn change_session(&mut self) {
        if self.draw(SESSION) > 0 {
            return;
        }
        let handed = &self.registry.handed[self.tenant()];
        let taken = if self.draw(2) == 0 {
            lock(handed).take()
        } else {
            None
        };
        let before = std::mem::replace(&mut self.client.session, taken.unwrap_or_default());
        *lock(handed) = Some(before);
    }

    fn read(&mut self, what: What) {
        let context = match what {
            What::List | What::Search => Name::from(""),
            _ => self.context(),
        };
        let (node, demand) = (self.node(), self.demand());
        self.client.ask(node, &context, what, demand);
    }

    /// Right after the answer, through another node: what the token is for.
    fn read_own_write(&mut self) {
        let entry = self.entry(Naming::Key);
        let (context, key, items) = entry.clone();
        let node = self.node();
        let what = What::Append { key, items };
        let operation = self.client.ask(node, &context, what, Demand::Session);
        let (unknown, done) = (operation.is_unknown(), operation.done().is_some());
        self.remember(entry, unknown, done);
        let elsewhere = (node + 1) % self.nodes.len();
        let what = match self.draw(4) {
            0 => What::Head,
            1 => What::Window,
            // Pages may come from replicas, which acknowledge what they do not show yet.
            _ => What::Items,
        };
        self.client.ask(elsewhere, &context, what, Demand::Session);
    }

    fn read_many(&mut self) {
        let mut names: Vec<Name> = (0..3).map(|_| self.context()).collect();
        names.sort();
        names.dedup();
        let (node, demand) = (self.node(), self.demand());
        self.client.ask_many(node, &names, demand);
    }

    fn entry(&mut self, naming: Naming) -> Entry {
        let context = self.context();
        self.entry_of(context, naming)
    }

    fn entry_of(&mut self, context: Name, naming: Naming) -> Entry {
        self.appends += 1;
        let count = 1 + self.draw(3);
        let items = (0..count).map(|index| Item {
            tenant: self.client.tenant,
            client: self.client.number,
            append: self.appends,
            index: u8::try_from(index).unwrap(),
            named: naming == Naming::ClientIds,
        });
        let items = items.collect();
        let key = (naming == Naming::Key).then(|| format!("{}-{}", self.client.number, self.appends));
        (context, key, items)
    }

    fn append_new(&mut self, naming: Naming) {
        let entry = self.entry(naming);
        self.append(entry);
    }

    fn append(&mut self, entry: Entry) {
        let (node, demand) = (self.node(), self.writing());
        let (context, key, items) = entry.clone();
        let operation = self
            .client
            .ask(node, &context, What::Append { key, items }, demand);
        let (unknown, done) = (operation.is_unknown(), operation.done().is_some());
        self.remember(entry, unknown, done);
    }

    /// An append without a name is not repeated: it would be another one.
    fn remember(&mut self, entry: Entry, unknown: bool, done: bool) {
        let (_, key, items) = &entry;
        if key.is_none() && !items.iter().all(|item| item.named) {
            return;
        }
        if unknown {
            self.open.push(entry);
        } else if done {
            self.known.push_back(entry);
            if self.known.len() > 16 {
                self.known.pop_front();
            }
        }
    }

    fn append_many(&mut self) {
        let entries: Vec<Entry> = (0..3).map(|_| self.entry(Naming::Key)).collect();
        let node = self.node();
        self.client.append_many(node, entries.clone());
        let operations = &self.client.operations;
        let outcomes: Vec<(bool, bool)> = operations[operations.len() - entries.len()..]
            .iter()
            .map(|operation| (operation.is_unknown(), operation.done().is_some()))
            .collect();
        for (entry, (unknown, done)) in entries.into_iter().zip(outcomes) {
            self.remember(entry, unknown, done);
        }
    }

    fn repeat(&mut self) {
        if let Some(entry) = self.known.pop_front() {
            self.append(entry);
        }
    }

    fn fork(&mut self) {
        self.appends += 1;
        let child = self.own_name("fork");
        let parent = log(self.draw(LOGS));
        self.make(&child, What::Fork { parent });
    }

    fn create(&mut self) {
        self.appends += 1;
        let name = self.own_name("made");
        self.make(&name, What::Create);
    }

    fn own_name(&self, kind: &str) -> Name {
        let tenant = TENANTS[self.tenant()];
        format!("{tenant}-{kind}-{}-{}", self.client.number, self.appends).into()
    }

    fn make(&mut self, name: &Name, what: What) {
        if lock(&self.registry.live[self.tenant()]).len() >= LIVE_MAX {
            return self.delete();
        }
        let (node, demand) = (self.node(), self.writing());
        if self.client.ask(node, name, what, demand).done().is_some() {
            lock(&self.registry.live[self.tenant()]).push(name.clone());
        }
    }

    fn delete(&mut self) {
        let tenant = self.tenant();
        let Some(name) = self.live() else { return };
        lock(&self.registry.live[tenant]).retain(|other| *other != name);
        let (node, demand) = (self.node(), self.writing());
        self.client.ask(node, &name, What::Delete, demand);
        let mut gone = lock(&self.registry.gone[tenant]);
        gone.push_back(name);
        if gone.len() > GONE_MAX {
            gone.pop_front();
        }
    }

    fn shrink(&mut self) {
        let context = shrink(self.draw(SHRINKS));
        if self.draw(2) == 0 {
            let (node, demand) = (self.node(), self.writing());
            self.client.ask(node, &context, What::Truncate, demand);
        } else {
            self.replace(&context);
        }
    }

    /// Between an append and its repetition, which then comes when its items are gone.
    fn replace(&mut self, context: &Name) {
        let naming = if self.draw(4) == 0 {
            Naming::Key
        } else {
            Naming::ClientIds
        };
        let entry = self.entry_of(context.clone(), naming);
        self.append(entry.clone());
        let (_, _, items) = self.entry_of(context.clone(), Naming::Nothing);
        let (node, demand) = (self.node(), self.writing());
        self.client.ask(node, context, What::Replace { items }, demand);
        self.append(entry);
    }

    fn read_gone(&mut self) {
        let gone: Vec<Name> = lock(&self.registry.gone[self.tenant()]).iter().cloned().collect();
        let Some(name) = self.pick(&gone) else { return };
        let what = if self.draw(2) == 0 {
            What::Head
        } else {
            What::Window
        };
        let (node, demand) = (self.node(), self.demand());
        self.client.ask(node, &name, what, demand);
    }

    /// A context that only the other tenant has.
    fn read_foreign(&mut self) {
        let theirs = self.pick(&lock(&self.registry.live[1 - self.tenant()]));
        if let Some(name) = theirs {
            let (node, demand) = (self.node(), self.demand());
            self.client.ask(node, &name, What::Foreign, demand);
        }
    }
}
