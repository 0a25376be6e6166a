//! The backplane without a second level: the store itself tells what changed. Asked as often as the cache polls, so that
//! the bound holds by the store's word (G5). No notifications: they would serialise commits.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use contextkeep_cache::remote::{BoxFuture, Logged, Notice, Position, Replay};
use contextkeep_cache::{Backplane, Mark, PartitionId, RemoteError};
use tokio::sync::mpsc;

use super::key::Name;
use crate::Version;
use crate::error::Result;
use crate::id::ContextKey;
use crate::store::ContextStore;

/// What a store has to tell since it was asked last.
#[derive(Debug)]
pub enum Changes {
    /// These contexts reached these versions; perhaps among others that were told before.
    Known(Vec<(ContextKey, Version)>),
    /// More than can be told, or nobody knows.
    Unknown,
}

/// A store that others change as well and that can tell what they did.
#[async_trait::async_trait]
pub trait ChangeFeed: Send + Sync + fmt::Debug {
    /// What changed since the last call. Everything that was acknowledged before this call, by whomever, is told by it or
    /// was told before. Never called twice at a time.
    ///
    /// # Errors
    /// `Unavailable`; the next call tells what this one would have.
    async fn changes(&self) -> Result<Changes>;
}

/// Changes that a reader may still ask for.
const LOG_MAX: usize = 4096;

/// A backplane made of a feed: one log, kept by this process for itself.
#[derive(Clone)]
pub struct FeedBackplane(Arc<Inner>);

struct Inner {
    feed: Arc<dyn ChangeFeed>,
    store: Arc<dyn ContextStore>,
    /// Of the cache that listens; all partitions have the same log.
    partitions: u16,
    log: tokio::sync::Mutex<Log>,
    sink: Mutex<Option<mpsc::Sender<Logged>>>,
}

#[derive(Debug)]
struct Log {
    position: Position,
    recent: VecDeque<Logged>,
}

impl FeedBackplane {
    /// The backplane for a cache of one partition ([`FeedBackplane::PARTITIONS`]) of this store's heads.
    pub fn new(feed: Arc<dyn ChangeFeed>, store: Arc<dyn ContextStore>) -> Self {
        Self(Arc::new(Inner {
            feed,
            store,
            partitions: Self::PARTITIONS,
            log: tokio::sync::Mutex::new(Log {
                position: Position { seq: 0, nonce: 1 },
                recent: VecDeque::new(),
            }),
            sink: Mutex::new(None),
        }))
    }

    /// What the listening cache has to be built with: with one log there is nothing to divide.
    pub const PARTITIONS: u16 = 1;
}

impl Inner {
    async fn ask(&self) -> Option<Position> {
        let mut log = self.log.lock().await;
        match self.feed.changes().await {
            Ok(Changes::Known(changes)) => {
                for (key, version) in changes {
                    let logged = log.add(&Name::new(self.store.history(), &key), version);
                    self.pass_on(logged);
                }
                Some(log.position)
            }
            Ok(Changes::Unknown) => {
                log.begin_anew();
                Some(log.position)
            }
            Err(error) => {
                tracing::debug!(%error, "the store does not tell its changes; nothing is taken for fresh");
                None
            }
        }
    }

    fn pass_on(&self, logged: Logged) {
        let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        // What the channel does not take is replayed.
        if let Some(sink) = sink.as_ref() {
            drop(sink.try_send(logged));
        }
    }
}

impl Log {
    fn add(&mut self, name: &Name, version: Version) -> Logged {
        let before = self.position.nonce;
        self.position.seq += 1;
        let logged = Logged {
            partition: 0,
            position: self.position,
            before,
            notice: Notice::Key {
                key: name.as_str().into(),
                version: version.into(),
                mark: Mark::ZERO,
            },
        };
        if self.recent.len() == LOG_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(logged.clone());
        logged
    }

    /// Another history: whoever followed this one drops what he holds.
    fn begin_anew(&mut self) {
        self.position.nonce += 1;
        self.recent.clear();
    }

    fn after(&self, after: Position) -> Replay {
        if after.nonce != self.position.nonce || after.seq > self.position.seq {
            return Replay::Lost;
        }
        let missing = self.position.seq - after.seq;
        let kept = self.recent.len() as u64;
        match usize::try_from(kept.wrapping_sub(missing)) {
            Ok(skip) if missing <= kept => Replay::Changes(self.recent.iter().skip(skip).cloned().collect()),
            _ => Replay::Lost,
        }
    }
}

impl Backplane for FeedBackplane {
    fn positions(&self) -> BoxFuture<'_, Vec<Option<Position>>> {
        Box::pin(async move {
            let position = self.0.ask().await;
            vec![position; usize::from(self.0.partitions)]
        })
    }

    fn replay(&self, _: PartitionId, after: Position) -> BoxFuture<'_, Result<Replay, RemoteError>> {
        Box::pin(async move { Ok(self.0.log.lock().await.after(after)) })
    }

    fn listen(&self, sink: mpsc::Sender<Logged>) -> BoxFuture<'static, ()> {
        let inner = self.0.clone();
        Box::pin(async move {
            *inner.sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
            std::future::pending::<()>().await;
        })
    }
}

impl fmt::Debug for FeedBackplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedBackplane")
            .field("feed", &self.0.feed)
            .finish_non_exhaustive()
    }
}
