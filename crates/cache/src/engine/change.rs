//! Changes: raise what is needed, tell the second level, then keep the value here.

use super::Engine;
use crate::clock::Nanos;
use crate::entry::{Body, Entry};
use crate::error::{Error, RemoteError, checked};
use crate::observe::{Event, RemoteOp};
use crate::remote::{Applied, Change, Logged};
use crate::sync::lock;
use crate::tag::Captured;
use crate::version::{Key, Mark, Version};

/// A change to be told to the cache, after it was committed at the source.
#[derive(Clone, Debug)]
pub struct Put {
    key: String,
    version: Version,
    mark: Mark,
    body: Body,
    tags: Vec<Key>,
}

impl Put {
    /// The key has this value now.
    pub fn value(key: impl Into<String>, version: Version, value: impl Into<bytes::Bytes>) -> Self {
        Self::new(key, version, Body::Value(value.into()))
    }

    /// The key was deleted.
    pub fn tombstone(key: impl Into<String>, version: Version) -> Self {
        Self::new(key, version, Body::Absent)
    }

    /// The key has this version now; who wants the value loads it.
    pub fn invalidation(key: impl Into<String>, version: Version) -> Self {
        Self::new(key, version, Body::Unknown)
    }

    fn new(key: impl Into<String>, version: Version, body: Body) -> Self {
        Self {
            key: key.into(),
            version,
            mark: Mark::ZERO,
            body,
            tags: Vec::new(),
        }
    }

    /// Where the source was after the commit.
    #[must_use]
    pub const fn mark(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self
    }

    /// The value belongs to these tags.
    #[must_use]
    pub fn tags<T: Into<Key>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Receipt {
    /// In effect at every level: from now on the bound runs for all nodes.
    Acknowledged,
    /// The key has this higher version already.
    Superseded(Version),
    /// In effect in this process only, because the second level could not take it. It will be brought there as soon as
    /// it can be, by this process; a caller with an outbox repeats it as well, which does no harm.
    Deferred(RemoteErrorKind),
}

/// Why a change was deferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteErrorKind {
    /// The second level did not answer in time.
    TimedOut,
    /// It can't be reached or refuses.
    Unavailable,
}

/// A change on its way.
struct Under {
    change: Change,
    tags: Captured,
    generation: u64,
}

impl Engine {
    pub(crate) async fn apply(&self, puts: Vec<Put>) -> Vec<Result<Receipt, Error>> {
        let began = self.now();
        let mut places = Vec::with_capacity(puts.len());
        let mut under = Vec::with_capacity(puts.len());
        for put in puts {
            match checked(&put.key) {
                Ok(key) => {
                    places.push(None);
                    under.push(self.announce(key, put));
                }
                Err(error) => places.push(Some(error)),
            }
        }
        let mut receipts = self.bring(under, began).await.into_iter();
        places
            .into_iter()
            .map(|refused| match refused {
                Some(error) => Err(error),
                None => receipts.next().ok_or(Error::Abandoned),
            })
            .collect()
    }

    /// F1: from here on this process neither serves nor stores anything older.
    fn announce(&self, key: Key, put: Put) -> Under {
        let partition = self.partitions.at(self.partitions.id(&key));
        let generation = partition.generation();
        // What the tags' generations were when the value came is known only if it is known now, without asking.
        let known = self.capture_known(&put.tags);
        let body = if known.is_some() { put.body } else { Body::Unknown };
        let tags = known.unwrap_or_default();
        self.reached(&key, put.version, false);
        Under {
            change: Change {
                key,
                version: put.version,
                mark: put.mark,
                body,
                tags: tags
                    .iter()
                    .map(|(cell, generation)| (cell.name.clone(), *generation))
                    .collect(),
            },
            tags,
            generation,
        }
    }

    async fn bring(&self, under: Vec<Under>, began: Nanos) -> Vec<Receipt> {
        let Some(remote) = &self.remote else {
            return under
                .into_iter()
                .map(|one| self.keep_local(&one, began))
                .collect();
        };
        if under.is_empty() {
            return Vec::new();
        }
        let changes: Vec<Change> = under.iter().map(|one| one.change.clone()).collect();
        let results = self
            .ask(RemoteOp::Apply, changes.len(), remote.apply(changes))
            .await;
        let mut receipts = Vec::with_capacity(under.len());
        for (one, result) in under.into_iter().zip(results) {
            receipts.push(match result {
                Ok(applied) => self.applied(&one, applied, began),
                Err(error) => self.defer(&one.change, &error),
            });
        }
        receipts
    }

    /// Without a second level: the mark tells whether something newer may have been here and been evicted.
    fn keep_local(&self, one: &Under, began: Nanos) -> Receipt {
        let partition = self.partitions.at(self.partitions.id(&one.change.key));
        // Where others change things too, a change without a mark can't be placed.
        let unplaced = self.backplane.is_some() && one.change.mark == Mark::ZERO;
        let late = one.change.mark < partition.mark() || unplaced;
        partition.raise_mark(one.change.mark);
        if late {
            return Receipt::Acknowledged;
        }
        self.keep(one, began)
    }

    fn applied(&self, one: &Under, applied: Applied, began: Nanos) -> Receipt {
        match applied {
            Applied::Superseded(version) => {
                self.reached(&one.change.key, version, false);
                Receipt::Superseded(version)
            }
            Applied::Done { logged, kept } => {
                let receipt = if kept {
                    self.keep(one, began)
                } else {
                    Receipt::Acknowledged
                };
                self.partitions
                    .at(self.partitions.id(&one.change.key))
                    .raise_mark(one.change.mark);
                if let Some(logged) = logged {
                    self.heard(logged);
                }
                receipt
            }
        }
    }

    /// Puts the body where the marker of exactly this version still is. If it is gone, something newer may have been
    /// here and gone as well.
    fn keep(&self, one: &Under, began: Nanos) -> Receipt {
        let key = &one.change.key;
        let Some(memory) = &self.memory else {
            return Receipt::Acknowledged;
        };
        if one.change.body == Body::Unknown {
            return Receipt::Acknowledged;
        }
        let mut entry = Entry::new(
            one.change.version,
            one.change.body.clone(),
            self.partitions.id(key),
            one.generation,
        );
        entry.tags = one.tags.clone();
        entry.known_at = began;
        let mut entry = self.finish(entry, None, key);
        if self.remote.is_none()
            && let Some(entry) = std::sync::Arc::get_mut(&mut entry)
        {
            // Nobody has confirmed that it was the newest: only the horizon vouches for it.
            entry.span.trusted_until = Nanos::ZERO;
        }
        let locked = self.lock(key);
        let held = memory.peek(key);
        let receipt = match held {
            Some(held) if held.version > one.change.version => Receipt::Superseded(held.version),
            Some(held) if held.version == one.change.version && held.is_marker() => {
                let stored = memory.upsert(key, entry);
                if !stored && memory.is_oversize(one.change.body.len()) {
                    self.event(&Event::Oversize(one.change.body.len()));
                }
                Receipt::Acknowledged
            }
            _ => Receipt::Acknowledged,
        };
        drop(locked);
        receipt
    }

    fn defer(&self, change: &Change, error: &RemoteError) -> Receipt {
        // A body that is too large, or whatever else is wrong with it: the version is what matters.
        let kept = lock(&self.recovery).defer(change);
        self.event(if kept {
            &Event::Deferred
        } else {
            &Event::RecoveryFull
        });
        Receipt::Deferred(match error {
            RemoteError::TimedOut => RemoteErrorKind::TimedOut,
            _ => RemoteErrorKind::Unavailable,
        })
    }

    /// The key has reached a version (F1). From elsewhere it concerns only what is held or being loaded here.
    pub(super) fn reached(&self, key: &Key, version: Version, from_elsewhere: bool) {
        let partition = self.partitions.id(key);
        let locked = self.lock(key);
        let flying = locked.raise(version);
        let Some(memory) = &self.memory else { return };
        let held = memory.peek(key);
        let concerned = !from_elsewhere || flying || held.is_some();
        if !concerned || held.is_some_and(|held| held.version >= version) {
            return;
        }
        let generation = self.partitions.at(partition).generation();
        let mut marker = Entry::new(version, Body::Unknown, partition, generation);
        marker.known_at = self.now();
        let marker = self.finish(marker, None, key);
        memory.upsert(key, marker);
        drop(locked);
    }

    /// Raises a tag: no entry that has it is served any more, nor a load under way stored.
    pub(crate) async fn bump_tag(&self, tag: &str) -> Result<Receipt, Error> {
        let tag = checked(tag)?;
        let cell = self.tags.cell(&tag, self.partitions.id(&tag));
        let Some(remote) = &self.remote else {
            cell.raise(cell.generation() + 1);
            return Ok(Receipt::Acknowledged);
        };
        let bumped = async { vec![remote.bump(tag.clone()).await] };
        let bumped = self.ask(RemoteOp::Tag, 1, Box::pin(bumped)).await;
        match bumped.into_iter().next() {
            Some(Ok(logged)) => {
                self.heard(logged);
                Ok(Receipt::Acknowledged)
            }
            Some(Err(error)) => {
                self.tags.doubt(&tag);
                let kept = lock(&self.recovery).defer_tag(&tag);
                self.event(if kept {
                    &Event::Deferred
                } else {
                    &Event::RecoveryFull
                });
                Ok(Receipt::Deferred(match error {
                    RemoteError::TimedOut => RemoteErrorKind::TimedOut,
                    _ => RemoteErrorKind::Unavailable,
                }))
            }
            None => Err(Error::Abandoned),
        }
    }

    /// A log entry, heard on the backplane or made by ourselves.
    pub(super) fn heard(&self, logged: Logged) {
        let mut steps = Vec::new();
        lock(&self.coherence).heard(logged, &mut steps);
        self.take(steps);
    }
}
