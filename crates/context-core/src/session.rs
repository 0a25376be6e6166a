//! Sessions: what a client has seen, and what a read therefore may not fall behind (G4).
//!
//! A session is ambient, as a deadline is: a face puts a request into the scope of one, stores and managers below look
//! it up and note what they saw. Work outside of every scope reads from the primary.
//!
//! - **Q1** A token only ever rises: what is in it when a request ends covers what was in it before and everything that
//!   the request read and wrote.
//! - **Q2** A context's version in a token is a floor: an answer below it is not given. A version comes from the same
//!   snapshot as the data beside it, so it cannot be wrong about them.
//! - **Q3** What a token has no room for is not forgotten: such a token sends reads of unknown contexts to the primary.
//! - **Q4** A position in the log counts only in the epoch that it was taken in; after a failover the versions remain.
//! - **Q5** A context that a token had no room for comes back into it only with an answer that cannot be older than what was
//!   let go of. To `bounded` and `any` it may be: after those the context stays unknown (Q3).

mod spent;
mod stages;
mod token;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::Version;
use crate::id::ContextKey;
use crate::manager::Origin;

use self::spent::Spent;

pub use self::spent::Stage;
#[cfg(any(test, feature = "postgres"))]
pub(crate) use self::spent::spent;
pub(crate) use self::spent::timed;
pub use self::stages::{StageSpan, Stages};
#[cfg(feature = "cache")]
pub(crate) use self::token::Name;
pub use self::token::{Epoch, MadeToken, Token};

/// What a read may be answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// The newest acknowledged state: from the primary.
    Strong,
    /// Never older than what the session has seen, and within the bound otherwise.
    #[default]
    Session,
    /// At most the bound behind the newest acknowledged state, whatever the session has seen.
    Bounded,
    /// Whatever is at hand, however old.
    Any,
}

impl Consistency {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Strong, Self::Session, Self::Bounded, Self::Any];

    /// Stable name, used on both faces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Session => "session",
            Self::Bounded => "bounded",
            Self::Any => "any",
        }
    }

    /// Reads [`Consistency::as_str`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|consistency| consistency.as_str() == name)
    }
}

/// Which optimizations a read may use; all of them unless the rollout says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag of the rollout")]
pub struct Plan {
    /// The cache at all.
    pub optimized: bool,
    /// The level in the process.
    pub l1: bool,
    /// The level that processes share.
    pub l2: bool,
    /// Read replicas.
    pub replicas: bool,
    /// A second replica if the first is late.
    pub hedging: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            optimized: true,
            l1: true,
            l2: true,
            replicas: true,
            hedging: true,
        }
    }
}

/// An answer that needs no waiting, and what a session notes of it.
#[cfg(feature = "cache")]
pub(crate) struct AtOnce<T> {
    pub(crate) value: T,
    pub(crate) version: Version,
    pub(crate) origin: Origin,
    pub(crate) age: Duration,
}

tokio::task_local! {
    static CURRENT: Arc<Session>;
}

/// One request's view of what its client has seen.
#[derive(Debug)]
pub struct Session {
    consistency: Consistency,
    plan: Plan,
    /// Whether somebody has made sure of the bound already: see [`Session::at_least`].
    is_bounded_by_floor: bool,
    /// What the request came with. Its reads are measured against this and what it has seen itself since.
    state: Mutex<State>,
    spent: Spent,
}

#[derive(Debug)]
struct State {
    token: Token,
    origin: Option<Origin>,
    age: Option<Duration>,
}

impl Session {
    /// A session that begins with what its client brought.
    pub fn new(consistency: Consistency, token: Token) -> Arc<Self> {
        Self::with_plan(consistency, token, Plan::default())
    }

    fn with_plan(consistency: Consistency, token: Token, plan: Plan) -> Arc<Self> {
        Arc::new(Self::made(consistency, token, plan))
    }

    fn made(consistency: Consistency, token: Token, plan: Plan) -> Self {
        Self {
            consistency,
            plan,
            is_bounded_by_floor: false,
            state: Mutex::new(State {
                token,
                origin: None,
                age: None,
            }),
            spent: Spent::default(),
        }
    }

    /// Runs a future in this session. Tasks that it spawns are not in it.
    ///
    /// # Cancellation
    /// Dropping it drops the future.
    pub async fn scope<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        CURRENT.scope(self.clone(), future).await
    }

    /// Runs a closure in this session: for what needs no waiting.
    pub fn sync_scope<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// The session of the present task, if it is in one.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs a future whose reads are answered by the primary, and that notes what it sees in the session around it.
    pub(crate) async fn strong<F: Future>(future: F) -> F::Output {
        let Some(outer) = Self::current() else {
            return future.await;
        };
        outer
            .around(
                Self::with_plan(Consistency::Strong, outer.token(), outer.plan),
                future,
            )
            .await
    }

    /// Runs a future whose reads of this context are answered at this version or later, whatever the session around it
    /// takes, and that notes what it sees there. Outside of every session it changes nothing.
    ///
    /// The caller has the version from an answer that kept the bound, so what has that version keeps it as well (G5), from
    /// whoever it comes: a replica need not show that it is not behind, which it can't while the primary is silent.
    pub(crate) async fn at_least<F: Future>(key: &ContextKey, version: Version, future: F) -> F::Output {
        let Some(outer) = Self::current() else {
            return future.await;
        };
        let inner = Arc::new(Self {
            is_bounded_by_floor: true,
            ..Self::made(Consistency::Session, outer.token(), outer.plan)
        });
        inner.saw(key, version);
        outer.around(inner, future).await
    }

    /// Runs a future that may use these optimizations, and that notes what it sees in the session around it.
    #[cfg(feature = "cache")]
    pub(crate) async fn planned<F: Future>(plan: Plan, future: F) -> F::Output {
        match Self::current() {
            Some(outer) if outer.plan != plan => {
                let inner = Self::with_plan(outer.consistency, outer.token(), plan);
                outer.around(inner, future).await
            }
            _ => future.await,
        }
    }

    /// A session that begins where this one is now.
    #[cfg(feature = "cache")]
    pub(crate) fn again(&self) -> Arc<Self> {
        Self::with_plan(self.consistency, self.token(), self.plan)
    }

    /// Which optimizations the present session's reads may use. Outside of every session: all.
    #[cfg(any(feature = "cache", feature = "postgres"))]
    pub(crate) fn current_plan() -> Plan {
        CURRENT.try_with(|session| session.plan).unwrap_or_default()
    }

    async fn around<F: Future>(&self, inner: Arc<Self>, future: F) -> F::Output {
        let output = inner.scope(future).await;
        let seen = inner.lock();
        let mut state = self.lock();
        if inner.consistency != Consistency::Strong && self.may_be_older(&state.token) {
            state.token.raise_known(&seen.token);
        } else {
            state.token.raise(&seen.token);
        }
        (state.origin, state.age) = (seen.origin, seen.age);
        for stage in Stage::ALL {
            self.spent.add(stage, inner.spent.of(stage));
        }
        output
    }

    /// What its reads may be answered with.
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }

    /// Whether a version that its token names is all that an answer needs.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "only replicas have to be asked")
    )]
    pub(crate) fn is_bounded_by_floor(&self) -> bool {
        self.is_bounded_by_floor
    }

    /// Which optimizations its reads may use.
    #[cfg(feature = "cache")]
    pub(crate) fn plan(&self) -> Plan {
        self.plan
    }

    /// Forgets what the client has seen, after it was told that this is lost: what comes next is measured against what is
    /// left.
    pub fn forget(&self) {
        self.lock().token = Token::default();
    }

    /// What the client has seen by now.
    pub fn token(&self) -> Token {
        self.lock().token.clone()
    }

    /// What the client is told: the text of its token, and how old the last answer may be, each if there is something to
    /// tell.
    pub fn told(&self) -> (Option<Bytes>, Option<Duration>) {
        let state = self.lock();
        (state.token.encode_bytes(), state.age)
    }

    /// As [`Session::told`]. `made` is kept beside what the session was answered, and saves to write the token's text again.
    pub fn told_with(&self, made: &MadeToken) -> (Option<Bytes>, Option<Duration>) {
        let state = self.lock();
        (state.token.encode_or(made), state.age)
    }

    /// Where the last answer came from, if a store has said so.
    pub fn origin(&self) -> Option<Origin> {
        self.lock().origin
    }

    /// The version that an answer about a context must have at least, and whether the client may have seen contexts that
    /// its token does not name (Q3).
    pub fn floor(&self, key: &ContextKey) -> (Option<Version>, bool) {
        let state = self.lock();
        (state.token.floor(key), state.token.has_overflowed())
    }

    /// Answers about the context of this [`Name`] and notes it, all of it under one lock: `answer` gets what
    /// [`Session::floor`] says. It must not ask the session anything.
    #[cfg(feature = "cache")]
    pub(crate) fn answer_at_once<T>(
        &self,
        name: Name,
        answer: impl FnOnce((Option<Version>, bool)) -> Option<AtOnce<T>>,
    ) -> Option<T> {
        let mut state = self.lock();
        let place = state.token.place(name);
        let floor = place.and_then(|place| state.token.floor_at(place));
        let answer = answer((floor, state.token.has_overflowed()))?;
        if place.is_some() || !self.may_be_older(&state.token) {
            state.token.saw_at(place, name, answer.version);
        }
        (state.origin, state.age) = (Some(answer.origin), Some(answer.age));
        Some(answer.value)
    }

    /// Notes a version of a context that was read or written.
    pub fn saw(&self, key: &ContextKey, version: Version) {
        let token = &mut self.lock().token;
        if !self.may_be_older(token) || token.floor(key).is_some() {
            token.saw(key, version);
        }
    }

    /// Q5: whether what is answered about a context that the token does not name may be older than what was seen of it.
    fn may_be_older(&self, token: &Token) -> bool {
        token.has_overflowed() && matches!(self.consistency, Consistency::Bounded | Consistency::Any)
    }

    /// Notes a position in the log that covers what was read or written.
    pub fn saw_position(&self, epoch: Epoch, lsn: u64) {
        self.lock().token.saw_position(epoch, lsn);
    }

    /// Notes that something was seen whose place is not known: from here on the primary has to be asked (Q3).
    pub fn saw_unplaced(&self) {
        self.lock().token.overflow();
    }

    /// Notes where an answer came from and how old it may be, if that is known.
    pub fn served_by(&self, origin: Origin, age: Option<Duration>) {
        let mut state = self.lock();
        (state.origin, state.age) = (Some(origin), age);
    }

    /// What a stage of the request took so far.
    pub fn spent(&self, stage: Stage) -> Duration {
        self.spent.of(stage)
    }

    /// What the present session says, if the task is in one: as [`Session::current`] without another owner, whose count
    /// all threads that serve a client would fight over.
    pub(crate) fn with_current<T>(look: impl FnOnce(&Self) -> T) -> Option<T> {
        CURRENT.try_with(|session| look(session)).ok()
    }

    /// How old the last answer may be, if a store has said so.
    pub fn age(&self) -> Option<Duration> {
        self.lock().age
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A future that is in the session and the trace of whoever calls this, on whichever task it then runs.
#[cfg(feature = "cache")]
pub(crate) fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let (session, stages) = (Session::current(), Stages::current());
    async move {
        let in_session = async {
            match session {
                Some(session) => session.scope(future).await,
                None => future.await,
            }
        };
        match stages {
            Some(stages) => stages.scope(in_session).await,
            None => in_session.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextId, TenantId};

    fn key(id: &str) -> ContextKey {
        ContextKey::new(TenantId::parse("acme").unwrap(), ContextId::parse(id).unwrap())
    }

    #[tokio::test]
    async fn what_is_seen_inside_is_in_the_token_outside() {
        assert!(Session::current().is_none());
        let session = Session::new(Consistency::Session, Token::default());
        session
            .scope(async {
                let current = Session::current().unwrap();
                current.saw(&key("a"), 7);
                current.served_by(Origin::Replica, None);
            })
            .await;
        assert_eq!(session.token().floor(&key("a")), Some(7));
        assert_eq!(session.origin(), Some(Origin::Replica));
        assert!(Session::current().is_none());
    }

    // Q5
    #[test]
    fn what_a_token_let_go_of_comes_back_with_no_older_version() {
        let mut token = Token::default();
        for number in 0..40 {
            token.saw(&key(&format!("c{number}")), 9);
        }
        let unknown = (None, true);
        for consistency in [Consistency::Bounded, Consistency::Any] {
            let session = Session::new(consistency, token.clone());
            assert_eq!(session.floor(&key("c0")), unknown);
            session.saw(&key("c0"), 5);
            assert_eq!(session.floor(&key("c0")), unknown, "{consistency:?}");
            // What it names only rises.
            session.saw(&key("c39"), 5);
            session.saw(&key("c38"), 11);
            assert_eq!(session.token().floor(&key("c39")), Some(9));
            assert_eq!(session.token().floor(&key("c38")), Some(11));
        }
        // These are answered by the primary, which has no older one.
        for consistency in [Consistency::Session, Consistency::Strong] {
            let session = Session::new(consistency, token.clone());
            session.saw(&key("c0"), 10);
            assert_eq!(session.floor(&key("c0")), (Some(10), true), "{consistency:?}");
        }
        // Nothing was let go of.
        let session = Session::new(Consistency::Any, Token::default());
        session.saw(&key("c0"), 5);
        assert_eq!(session.floor(&key("c0")), (Some(5), false));
    }

    // Q5, by way of a session inside: its floor is what a weaker one was answered with.
    #[tokio::test]
    async fn a_floor_inside_a_weaker_session_is_none_of_its_own() {
        let mut token = Token::default();
        for number in 0..40 {
            token.saw(&key(&format!("c{number}")), 9);
        }
        let session = Session::new(Consistency::Any, token);
        let inside = async {
            let current = Session::current().unwrap();
            assert_eq!(current.floor(&key("c0")).0, Some(5));
            current.saw(&key("c39"), 12);
        };
        session.scope(Session::at_least(&key("c0"), 5, inside)).await;
        assert_eq!(session.floor(&key("c0")), (None, true));
        assert_eq!(session.floor(&key("c39")), (Some(12), true));
        // What the primary has answered is the newest.
        let strong = async { Session::current().unwrap().saw(&key("c0"), 10) };
        session.scope(Session::strong(strong)).await;
        assert_eq!(session.floor(&key("c0")), (Some(10), true));
    }

    #[tokio::test]
    async fn strong_reads_inside_a_weaker_session_raise_its_token() {
        let session = Session::new(Consistency::Any, Token::default());
        session
            .scope(Session::strong(async {
                let current = Session::current().unwrap();
                assert_eq!(current.consistency(), Consistency::Strong);
                current.saw(&key("a"), 3);
            }))
            .await;
        assert_eq!(session.token().floor(&key("a")), Some(3));
    }
}
