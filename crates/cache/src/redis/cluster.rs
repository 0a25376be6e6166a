//! Connections to a cluster, and what to do about one that has fallen silent.
//!
//! The library's connection follows the topology by itself, in one task that carries all its requests. While that task asks
//! for the topology it polls no request, and one that was polled last when the task's budget had run out may hold the lock
//! that the asking waits for (redis 1.8 on tokio 1.54, whose semaphores take a permit before they look at the budget): then
//! nothing is answered any more, for ever. It takes a server that goes away and a few dozen requests at once.
//!
//! - **R0** That task has at most [`ROOM`] requests at a time, which its budget is enough for, as long as they are answered
//!   promptly: one server that hangs must not hold up what goes to the others.
//! - **R1** A connection that answers nothing for [`SILENCE`] though it is asked is replaced by a new one, as soon as that
//!   is there. One that answers again meanwhile stays.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_redis::redis::aio::ConnectionLike;
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value, cmd};
use tokio::sync::Semaphore;

use crate::clock::{Clock, Nanos, TokioClock};

/// A task of tokio's has a budget of 128 steps; a request takes its message, its lock, its way to the server and its answer,
/// and some of that again if it is repeated.
const ROOM: usize = 16;
/// How long a request waits for room: enough to spread a burst, and little to whoever is far from his servers.
const PATIENCE: Duration = Duration::from_millis(2);
/// How long a connection may answer nothing.
const SILENCE: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A connection to a cluster. Clones share it.
#[derive(Clone)]
pub(super) struct Cluster {
    link: ClusterConnection,
    pulse: Pulse,
    room: Arc<Semaphore>,
}

impl Cluster {
    pub(super) fn new(link: ClusterConnection) -> Self {
        Self {
            link,
            pulse: Pulse::default(),
            room: Arc::new(Semaphore::new(ROOM)),
        }
    }

    /// Subscribes to a channel of one slot.
    pub(super) async fn ssubscribe(&mut self, channel: &str) -> RedisResult<()> {
        ask(&self.pulse, &self.room, self.link.ssubscribe(channel)).await
    }

    /// Whether it has answered nothing for [`SILENCE`].
    pub(super) fn is_silent(&self) -> bool {
        self.pulse.is_silent(TokioClock.now())
    }

    /// R1: what takes its place, once it has to be replaced.
    pub(super) async fn replaced<T>(&self, new: impl Future<Output = T>) -> T {
        self.pulse.replaced(new).await
    }

    /// R1: for a connection that is seldom asked: asks it, and returns when not all servers have answered.
    pub(super) async fn falls_silent(&mut self) {
        while !self.is_silent() {
            tokio::time::sleep(SILENCE).await;
            // What it answers, or that it refuses, does not matter.
            drop(tokio::time::timeout(SILENCE, cmd("PING").query_async::<Value>(self)).await);
        }
    }
}

impl ConnectionLike for Cluster {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let asked = self.link.req_packed_command(command);
        Box::pin(ask(&self.pulse, &self.room, asked))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let asked = self.link.req_packed_commands(pipeline, offset, count);
        Box::pin(ask(&self.pulse, &self.room, asked))
    }

    fn get_db(&self) -> i64 {
        0
    }
}

async fn ask<T>(
    pulse: &Pulse,
    room: &Semaphore,
    question: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    // R0
    let _room = match room.try_acquire() {
        Ok(room) => Some(room),
        Err(_) => tokio::time::timeout(PATIENCE, room.acquire())
            .await
            .ok()
            .and_then(Result::ok),
    };
    pulse.asked(TokioClock.now());
    let answer = question.await;
    // An error is an answer of the task, unless it is that there was none.
    if !answer.as_ref().is_err_and(RedisError::is_timeout) {
        pulse.answered();
    }
    answer
}

/// Since when a connection owes an answer, in nanoseconds; 0 if it has answered last. Who asks and goes away leaves
/// that to the next one who is answered.
#[derive(Clone, Debug, Default)]
struct Pulse(Arc<AtomicU64>);

impl Pulse {
    fn asked(&self, now: Nanos) {
        let since = now.as_nanos().max(1);
        // Most find that somebody is waiting already, which costs no writing.
        if self.0.load(Ordering::Relaxed) == 0 {
            self.0.store(since, Ordering::Relaxed);
        }
    }

    fn answered(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn is_silent(&self, now: Nanos) -> bool {
        let since = self.0.load(Ordering::Relaxed);
        since != 0 && now.since(Nanos::from_nanos(since)) > SILENCE
    }

    /// R1.
    async fn replaced<T>(&self, new: impl Future<Output = T>) -> T {
        let mut new = pin!(new);
        loop {
            self.until(true).await;
            tokio::select! {
                new = &mut new => return new,
                () = self.until(false) => {}
            }
        }
    }

    async fn until(&self, silent: bool) {
        while self.is_silent(TokioClock.now()) != silent {
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn silence_is_counted_from_the_first_question_since_the_last_answer() {
        let pulse = Pulse::default();
        let start = TokioClock.now();
        let at = |seconds| start.after(Duration::from_secs(seconds));
        assert!(!pulse.is_silent(at(9)), "nobody has asked");
        pulse.asked(at(10));
        pulse.asked(at(11));
        assert!(!pulse.is_silent(at(11)));
        assert!(pulse.is_silent(at(12)));
        pulse.answered();
        assert!(!pulse.is_silent(at(99)));
        pulse.asked(at(100));
        assert!(!pulse.is_silent(at(101)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_one_is_replaced_and_one_that_answers_again_is_not() {
        let pulse = Pulse::default();
        let new = async { tokio::time::sleep(SILENCE).await };
        let mut replaced = pin!(pulse.replaced(new));
        let mut within = async |limit| tokio::time::timeout(limit, replaced.as_mut()).await.is_ok();
        assert!(!within(Duration::from_mins(1)).await, "nobody has asked");
        pulse.asked(TokioClock.now());
        assert!(
            !within(SILENCE + SILENCE / 2).await,
            "the new one is not there yet"
        );
        pulse.answered();
        assert!(!within(Duration::from_mins(1)).await);
        pulse.asked(TokioClock.now());
        assert!(within(SILENCE * 3).await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_holds_others_up_for_as_long_as_the_patience() {
        let (pulse, room) = (Pulse::default(), Semaphore::new(1));
        let mut hangs = pin!(ask::<()>(&pulse, &room, std::future::pending()));
        assert!(hangs.as_mut().now_or_never().is_none());
        let began = tokio::time::Instant::now();
        assert_eq!(ask(&pulse, &room, std::future::ready(Ok(7))).await.unwrap(), 7);
        assert_eq!(began.elapsed(), PATIENCE);
    }
}
