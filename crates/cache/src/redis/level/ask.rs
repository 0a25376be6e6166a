//! Asking the server, within the deadline.

use deadpool::managed::Object;
use deadpool_redis::redis::{Cmd, FromRedisValue, RedisResult, ScriptInvocation};
use tokio::time::Instant;

use super::Inner;
use crate::error::RemoteError;
use crate::redis::link::{Dialler, unavailable};

/// Our own deadline around everything, because the library's does not cover reconnecting.
pub(super) async fn until<T>(
    deadline: Instant,
    work: impl Future<Output = RedisResult<T>>,
) -> Result<T, RemoteError> {
    match tokio::time::timeout_at(deadline, work).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if error.is_timeout() => Err(RemoteError::TimedOut),
        Ok(Err(error)) => Err(unavailable(error)),
        Err(_) => Err(RemoteError::TimedOut),
    }
}

impl Inner {
    async fn within<T>(&self, work: impl Future<Output = RedisResult<T>>) -> Result<T, RemoteError> {
        until(Instant::now() + self.dial.answer_within(), work).await
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RemoteError> {
        let mut link = self.shared.link()?;
        self.within(command.query_async(&mut link)).await
    }

    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RemoteError> {
        let mut link = self.shared.link()?;
        self.within(script.invoke_async(&mut link)).await
    }

    /// A command with a large body, on a connection of the pool. One that failed, or whose answer nobody waited for, does
    /// not go back.
    pub(super) async fn ask_pooled<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RemoteError> {
        let mut lent = Lent(Some(self.pool.get().await.map_err(unavailable)?));
        let Some(link) = &mut lent.0 else {
            return Err(RemoteError::Unavailable("no connection".to_owned()));
        };
        let answer = self.within(command.query_async(&mut **link)).await;
        if answer.is_ok() {
            drop(lent.0.take());
        }
        answer
    }
}

/// A connection of the pool, which loses it unless it is taken out of here.
struct Lent(Option<Object<Dialler>>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            drop(Object::take(link));
        }
    }
}
