//! The coherence protocol: how far each partition's log has been followed. No I/O and no clock in here: what comes in
//! is messages, polled positions and replays; what goes out is [`Step`]s for the engine to take.
//!
//! - **C1** `at` moves to a log entry only when all before it have been applied here, and only along a chain of nonces.
//! - **C2** The horizon moves to `sent + bound` only when everything up to a position that was read after `sent` has
//!   been applied.
//! - **C3** A history that is not the one that was followed costs the partition its generation, and what this node
//!   remembers of recent changes is brought to the second level again.

use std::collections::{BTreeMap, VecDeque};

use crate::clock::Nanos;
use crate::partition::PartitionId;
use crate::remote::{Logged, Notice, Position, Replay};

/// Messages that are kept while those before them are missing.
const AHEAD: usize = 64;
/// Recent changes of all partitions that are remembered for [`Step::Restore`].
const JOURNAL: usize = 4096;

/// What the engine has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Apply a change. `in_order` says whether all before it have been applied.
    Apply { notice: Notice, in_order: bool },
    /// Everything acknowledged up to `sent` is applied.
    Validate { partition: PartitionId, sent: Nanos },
    /// Ask for what comes after.
    Replay { partition: PartitionId, after: Position },
    /// Drop the partition. `suspect` says that its history is another one (C3), not that it was just met.
    Drop { partition: PartitionId, suspect: bool },
    /// Bring these to the second level again (C3).
    Restore { notices: Vec<Notice> },
    /// For the observer.
    Gap,
}

#[derive(Debug, Default)]
struct Log {
    at: Option<Position>,
    /// Messages past a gap, by sequence number.
    ahead: BTreeMap<u64, Logged>,
    /// A position that was polled and is not reached yet, and when that poll was sent.
    pending: Option<(u64, Nanos)>,
}

/// How far all logs have been followed.
#[derive(Debug)]
pub(crate) struct Coherence {
    logs: Vec<Log>,
    journal: VecDeque<(PartitionId, Notice)>,
    #[cfg(test)]
    pub(crate) lose_gaps: bool,
}

impl Coherence {
    pub(crate) fn new(partitions: u16) -> Self {
        Self {
            logs: (0..partitions).map(|_| Log::default()).collect(),
            journal: VecDeque::new(),
            #[cfg(test)]
            lose_gaps: false,
        }
    }

    /// Where the logs were followed to: to be taken before a poll is sent, and given to [`polled`](Self::polled).
    pub(crate) fn snapshot(&self) -> Vec<Option<Position>> {
        self.logs.iter().map(|log| log.at).collect()
    }

    /// A message, or the log entry of a change of our own.
    pub(crate) fn heard(&mut self, logged: Logged, steps: &mut Vec<Step>) {
        let partition = logged.partition;
        let Some(log) = self.logs.get_mut(usize::from(partition)) else {
            return;
        };
        #[cfg(test)]
        if self.lose_gaps && log.at.is_some_and(|at| logged.position.seq > at.seq) {
            log.at = Some(logged.position);
            steps.push(applied(&mut self.journal, logged, true));
            return;
        }
        let seq = logged.position.seq;
        match log.at {
            Some(at) if seq == at.seq + 1 => {
                if logged.before == at.nonce {
                    log.at = Some(logged.position);
                    steps.push(applied(&mut self.journal, logged, true));
                    self.catch_up(partition, steps);
                } else {
                    self.diverged(partition, steps);
                }
            }
            Some(at) if seq == at.seq && logged.position.nonce != at.nonce => self.diverged(partition, steps),
            Some(at) if seq > at.seq => {
                // Applied at once, because a version needs no order, and again in its turn for what does.
                steps.push(Step::Apply {
                    notice: logged.notice.clone(),
                    in_order: false,
                });
                log.ahead.insert(seq, logged);
                if log.ahead.len() > AHEAD {
                    log.ahead.clear();
                    steps.push(Step::Gap);
                    steps.push(Step::Replay { partition, after: at });
                }
            }
            _ => steps.push(Step::Apply {
                notice: logged.notice,
                in_order: false,
            }),
        }
    }

    /// The answer to a poll that was sent at `sent`, when `before` was the [`snapshot`](Self::snapshot).
    pub(crate) fn polled(
        &mut self,
        sent: Nanos,
        before: &[Option<Position>],
        now: &[Option<Position>],
        steps: &mut Vec<Step>,
    ) {
        for index in 0..self.logs.len() {
            let (Ok(partition), Some(Some(polled))) = (PartitionId::try_from(index), now.get(index)) else {
                continue;
            };
            let known = before.get(index).copied().flatten();
            self.polled_one(partition, sent, known, *polled, steps);
        }
    }

    fn polled_one(
        &mut self,
        partition: PartitionId,
        sent: Nanos,
        before: Option<Position>,
        polled: Position,
        steps: &mut Vec<Step>,
    ) {
        let Some(log) = self.logs.get_mut(usize::from(partition)) else {
            return;
        };
        let Some(at) = log.at else {
            // What is held from before was loaded without knowing this log.
            log.at = Some(polled);
            steps.push(Step::Drop {
                partition,
                suspect: false,
            });
            steps.push(Step::Validate { partition, sent });
            self.catch_up(partition, steps);
            return;
        };
        let parted = |known: Position| polled.seq == known.seq && polled.nonce != known.nonce;
        let regressed = before.is_some_and(|before| polled.seq < before.seq || parted(before));
        if regressed || parted(at) {
            self.diverged(partition, steps);
        } else if polled.seq <= at.seq {
            log.pending = None;
            steps.push(Step::Validate { partition, sent });
        } else if log.pending.is_some() {
            // The messages had the time between two polls to come.
            log.pending = Some((polled.seq, sent));
            steps.push(Step::Gap);
            steps.push(Step::Replay { partition, after: at });
        } else {
            log.pending = Some((polled.seq, sent));
        }
    }

    /// The answer to [`Step::Replay`].
    pub(crate) fn replayed(
        &mut self,
        partition: PartitionId,
        after: Position,
        replay: Replay,
        steps: &mut Vec<Step>,
    ) {
        let Some(at) = self.logs.get(usize::from(partition)).and_then(|log| log.at) else {
            return;
        };
        match replay {
            // Meanwhile it may have caught up or parted; then the question is not the present one.
            Replay::Lost if at == after => self.diverged(partition, steps),
            Replay::Lost => {}
            Replay::Changes(changes) => {
                for logged in changes {
                    let at = self.logs.get(usize::from(partition)).and_then(|log| log.at);
                    if at.is_some_and(|at| logged.position.seq > at.seq) {
                        self.heard(logged, steps);
                    }
                }
            }
        }
    }

    /// A read or a lease of the second level told this position. Whether it is one that the followed log can have.
    pub(crate) fn agrees(&self, partition: PartitionId, before: Option<Position>, told: Position) -> bool {
        let at = self.logs.get(usize::from(partition)).and_then(|log| log.at);
        let fits = |known: Position| told.seq > known.seq || told == known;
        // It was told some time between `before` and now.
        before.is_none_or(fits) && at.is_none_or(|at| told.seq != at.seq || told.nonce == at.nonce)
    }

    pub(crate) fn position(&self, partition: PartitionId) -> Option<Position> {
        self.logs.get(usize::from(partition)).and_then(|log| log.at)
    }

    /// C1 for messages that had come too early, C2 for a poll that had.
    fn catch_up(&mut self, partition: PartitionId, steps: &mut Vec<Step>) {
        let Some(log) = self.logs.get_mut(usize::from(partition)) else {
            return;
        };
        while let (Some(at), Some(first)) = (log.at, log.ahead.first_entry()) {
            if *first.key() > at.seq + 1 {
                break;
            }
            let logged = first.remove();
            if logged.position.seq <= at.seq {
                continue;
            }
            if logged.before != at.nonce {
                self.diverged(partition, steps);
                return;
            }
            log.at = Some(logged.position);
            steps.push(applied(&mut self.journal, logged, true));
        }
        if let (Some(at), Some((seq, sent))) = (log.at, log.pending)
            && at.seq >= seq
        {
            log.pending = None;
            steps.push(Step::Validate { partition, sent });
        }
    }

    /// C3. The next poll finds the new history.
    pub(crate) fn diverged(&mut self, partition: PartitionId, steps: &mut Vec<Step>) {
        if let Some(log) = self.logs.get_mut(usize::from(partition)) {
            *log = Log::default();
        }
        let notices: Vec<_> = self
            .journal
            .iter()
            .filter(|(of, _)| *of == partition)
            .map(|(_, notice)| notice.clone())
            .collect();
        steps.push(Step::Drop {
            partition,
            suspect: true,
        });
        if !notices.is_empty() {
            steps.push(Step::Restore { notices });
        }
    }
}

fn applied(journal: &mut VecDeque<(PartitionId, Notice)>, logged: Logged, in_order: bool) -> Step {
    if journal.len() >= JOURNAL {
        journal.pop_front();
    }
    journal.push_back((logged.partition, logged.notice.clone()));
    Step::Apply {
        notice: logged.notice,
        in_order,
    }
}

#[cfg(test)]
mod tests;
