//! The ports to what processes share: a second level, and a backplane that tells of changes.
//!
//! Both are object safe. What an implementation has to keep is said in MUST; the contract suite of this crate's tests
//! checks it on the model that the simulation uses and on Redis alike.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::entry::Body;
use crate::error::RemoteError;
use crate::partition::PartitionId;
use crate::version::{Key, Mark, Version};

/// A boxed future, so that ports are object safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a partition's log is.
///
/// The nonce is random for each change, and for the beginning of a log. Two histories that have the same sequence
/// number but parted ways (a failover lost a change and took another one) so differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// How many changes there were.
    pub seq: u64,
    /// Drawn with the last one.
    pub nonce: u64,
}

impl Position {
    /// The generation of a tag that was raised, or first asked for, here: grows along a history, differs between
    /// histories that parted, and is never 0.
    pub const fn generation(self) -> u64 {
        ((self.seq + 1) << 24) | (self.nonce & 0xFF_FFFF)
    }
}

/// A change as its partition's log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Whose log.
    pub partition: PartitionId,
    /// The log's position after it.
    pub position: Position,
    /// The nonce of the change before it.
    pub before: u64,
    /// What changed.
    pub notice: Notice,
}

/// What changed. Never the value: who needs it reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A key has reached a version.
    Key {
        /// The key.
        key: Key,
        /// What it has reached.
        version: Version,
        /// Where the source then was.
        mark: Mark,
    },
    /// A tag has reached a generation.
    Tag {
        /// The tag.
        tag: Key,
        /// What it has reached; grows within one history of the log.
        generation: u64,
    },
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// What it has reached.
    pub version: Version,
    /// Where the source was after it, if the source can tell.
    pub mark: Mark,
    /// The new value, that there is none any more, or nothing but the version.
    pub body: Body,
    /// Its tags with their generations.
    pub tags: Vec<(Key, u64)>,
}

/// What an L2 read found.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// The entry, unless there is none.
    pub record: Option<Record>,
    /// How far the partition's log was at that moment, or before it; `None` when it has not begun.
    pub position: Option<Position>,
}

/// An entry of the second level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its version.
    pub version: Version,
    /// Its body; [`Body::Unknown`] is a marker, which only tells the version.
    pub body: Body,
    /// Its tags with the generations captured before its load.
    pub tags: Vec<(Key, u64)>,
    /// At least how old it is.
    pub age: Duration,
}

/// Whether this node may load a key on behalf of all.
#[derive(Clone, Debug)]
pub enum Leased {
    /// It may, and should fill with this.
    Granted(Lease),
    /// Another one does.
    Held,
}

/// The right to fill a key. A change of the key ends it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Tells this lease from all others.
    pub token: u64,
    /// What the key has reached: a load below this is not wanted.
    pub floor: Version,
    /// The largest mark of the partition.
    pub mark: Mark,
    /// How far the partition's log was when it was granted.
    pub position: Position,
}

/// What was loaded.
#[derive(Clone, Debug)]
pub struct Fill {
    /// The key.
    pub key: Key,
    /// The lease's token.
    pub token: u64,
    /// The loaded version.
    pub version: Version,
    /// The loaded body.
    pub body: Body,
    /// Its tags with the generations captured before the load.
    pub tags: Vec<(Key, u64)>,
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Stored.
    Stored,
    /// Not: the lease is gone, or the key has reached a higher version.
    Refused,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is in effect. `kept` says whether the body was stored with it, or a marker only.
    Done {
        /// The log entry; `None` when the log had it already.
        logged: Option<Logged>,
        /// Whether the body is there.
        kept: bool,
    },
    /// The key has reached a higher version already.
    Superseded(Version),
}

/// What a replay brought.
#[derive(Clone, Debug)]
pub enum Replay {
    /// All changes after the given position, in order.
    Changes(Vec<Logged>),
    /// The log does not reach back that far, or its history is another one.
    Lost,
}

/// The answer for each of several things asked for, in their order.
pub type Each<T> = Vec<Result<T, RemoteError>>;

/// A level that processes share.
///
/// - A read MUST tell a position that is not later than what it found.
/// - A lease MUST end with any change of its key, and MUST NOT be granted twice at a time.
/// - A fill MUST be refused without its live lease, and below the key's version.
/// - A change MUST be compared by version, logged and told to the partition's listeners in one step, and its lease
///   ended. A version that is there but was never logged MUST be logged.
/// - Where there is no entry, or a marker only, a change whose mark is behind the partition's keeps no body: something
///   newer may have been there and been evicted.
/// - Each operation MUST answer in bounded time.
pub trait SecondLevel: fmt::Debug + Send + Sync {
    /// Reads entries.
    fn get(&self, keys: Vec<Key>) -> BoxFuture<'_, Each<Fetched>>;
    /// Reads one entry, as most reads do.
    fn get_one(&self, key: Key) -> BoxFuture<'_, Result<Fetched, RemoteError>> {
        Box::pin(async move {
            let answer = self.get(vec![key]).await.pop();
            answer.unwrap_or_else(|| Err(RemoteError::Corrupt("answered nothing".to_owned())))
        })
    }
    /// Leases keys.
    fn lease(&self, keys: Vec<Key>) -> BoxFuture<'_, Each<Leased>>;
    /// Stores what was loaded under leases.
    fn fill(&self, fills: Vec<Fill>) -> BoxFuture<'_, Each<Filled>>;
    /// Brings changes into effect.
    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Each<Applied>>;
    /// The generations of tags; those that have none get one.
    fn tags(&self, tags: Vec<Key>) -> BoxFuture<'_, Each<u64>>;
    /// Raises a tag's generation.
    fn bump(&self, tag: Key) -> BoxFuture<'_, Result<Logged, RemoteError>>;
}

/// What tells a node of the others' changes.
///
/// Messages may be lost, doubled, late and out of order; positions and replays may fail. None of it makes an answer
/// wrong, it only costs trust.
pub trait Backplane: fmt::Debug + Send + Sync {
    /// Where the log of each partition is, read after the call; `None` for those that can't be told now.
    /// MUST answer in bounded time, and MUST begin the logs that have not begun.
    fn positions(&self) -> BoxFuture<'_, Vec<Option<Position>>>;
    /// The changes of a partition after a position. MUST answer in bounded time.
    fn replay(&self, partition: PartitionId, after: Position) -> BoxFuture<'_, Result<Replay, RemoteError>>;
    /// Passes on what is published, for as long as the future is polled; it has to reconnect by itself. What the
    /// channel does not take at once is dropped.
    fn listen(&self, sink: mpsc::Sender<Logged>) -> BoxFuture<'static, ()>;
}
