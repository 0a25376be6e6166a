//! Writes: the store first, then the cache, then the answer (K2). A caller that goes away between the commit and its
//! telling must not leave the cache untold: what is left of the write goes on without it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::heads::Change;
use super::unbroken::Unbroken;
use super::{CachedStore, Inner};
use crate::error::{Error, Result};
use crate::id::{ContextId, ContextKey, TenantId};
use crate::session::{Session, Stage, carried, timed};
use crate::store::{Append, Appended, Created, Replaced, SeqRange};
use crate::{Context, ContextPatch, Head, Item, NewContext, NewItem, Seq, Timestamp, Version};

impl CachedStore {
    /// Runs a write to its end, in the session and the trace of its caller.
    ///
    /// # Cancellation
    /// Dropping it does not end the write.
    async fn to_the_end<T, W>(&self, write: impl FnOnce(Arc<Inner>) -> W) -> Result<T>
    where
        T: Send + 'static,
        W: Future<Output = T> + Send + 'static,
    {
        // A write that panics is one failed request and not a connection that breaks off.
        Unbroken::new(AssertUnwindSafe(carried(write(self.0.clone()))).catch_unwind())
            .await
            .map_err(|_| Error::internal("a write panicked; the log has the place"))
    }

    pub(super) async fn create_and_tell(&self, tenant: TenantId, new: NewContext) -> Result<Created> {
        self.to_the_end(|inner| async move {
            let created = inner.store.create(&tenant, new).await?;
            inner.tell_created(&tenant, &created).await;
            Ok(created)
        })
        .await?
    }

    pub(super) async fn update_and_tell(
        &self,
        key: ContextKey,
        patch: ContextPatch,
        expected: Option<Version>,
    ) -> Result<Context> {
        self.to_the_end(|inner| async move {
            let context = inner.store.update(&key, patch, expected).await?;
            inner.tell(&key, Change::To(Box::new(context.clone()))).await;
            Ok(context)
        })
        .await?
    }

    pub(super) async fn rewrite_and_tell(
        &self,
        key: ContextKey,
        keep: Vec<SeqRange>,
        expected: Option<Version>,
    ) -> Result<Context> {
        self.to_the_end(|inner| async move {
            let context = inner.store.rewrite(&key, keep, expected).await?;
            inner.tell(&key, Change::To(Box::new(context.clone()))).await;
            Ok(context)
        })
        .await?
    }

    pub(super) async fn delete_and_tell(
        &self,
        key: ContextKey,
        expected: Option<Version>,
    ) -> Result<Version> {
        self.to_the_end(|inner| async move {
            let version = inner.store.delete(&key, expected).await?;
            inner.tell(&key, Change::Gone(version)).await;
            Ok(version)
        })
        .await?
    }

    pub(super) async fn delete_many_and_tell(
        &self,
        tenant: TenantId,
        deletes: Vec<(ContextId, Option<Version>)>,
    ) -> Vec<Result<Version>> {
        let count = deletes.len();
        let done = self.to_the_end(|inner| async move {
            let keys: Vec<ContextKey> = deletes.iter().map(|(id, _)| (&tenant, id).into()).collect();
            let outcomes = inner.store.delete_many(&tenant, deletes).await;
            let gone = keys.iter().zip(&outcomes);
            let gone = gone.filter_map(|(key, outcome)| Some((key, Change::Gone(*outcome.as_ref().ok()?))));
            inner.tell_all(gone.collect()).await;
            outcomes
        });
        all_or_each(done.await, count)
    }

    pub(super) async fn append_and_tell(&self, key: ContextKey, append: Append) -> Result<Appended> {
        self.to_the_end(|inner| async move {
            let items = append.items.clone();
            let told = inner.ask_told(std::slice::from_ref(&key));
            let appended = inner.store.append(&key, append).await?;
            let told = by_now(told).next().flatten();
            let change = inner.appended(&key, &items, &appended, told);
            inner.tell(&key, change).await;
            Ok(appended)
        })
        .await?
    }

    pub(super) async fn append_many_and_tell(
        &self,
        tenant: TenantId,
        appends: Vec<(ContextId, Append)>,
    ) -> Vec<Result<Appended>> {
        let count = appends.len();
        let done = self.to_the_end(|inner| async move {
            let (keys, items): (Vec<ContextKey>, Vec<Arc<[NewItem]>>) = appends
                .iter()
                .map(|(id, append)| (ContextKey::from((&tenant, id)), append.items.clone()))
                .unzip();
            let told = inner.ask_told(&keys);
            let outcomes = inner.store.append_many(&tenant, appends).await;
            let mut told = by_now(told);
            let mut changes = Vec::with_capacity(outcomes.len());
            for ((key, items), outcome) in keys.iter().zip(&items).zip(&outcomes) {
                let told = told.next().flatten();
                if let Ok(appended) = outcome {
                    changes.push((key, inner.appended(key, items, appended, told)));
                }
            }
            inner.tell_all(changes).await;
            outcomes
        });
        all_or_each(done.await, count)
    }

    pub(super) async fn replace_and_tell(&self, key: ContextKey, append: Append) -> Result<Replaced> {
        self.to_the_end(|inner| async move {
            let replaced = inner.store.replace(&key, append).await?;
            let change = match &replaced.head {
                Some(head) => Change::To(Box::new(head.clone())),
                None => Change::Unknown(replaced.appended.version),
            };
            inner.tell(&key, change).await;
            Ok(replaced)
        })
        .await?
    }

    pub(super) async fn fork_and_tell(&self, key: ContextKey, at: Seq, new: NewContext) -> Result<Created> {
        self.to_the_end(|inner| async move {
            let created = inner.store.fork(&key, at, new).await?;
            inner.share(&key, &created);
            inner.tell_created(&key.tenant, &created).await;
            Ok(created)
        })
        .await?
    }
}

impl Inner {
    async fn tell(&self, key: &ContextKey, change: Change) {
        self.tell_all(vec![(key, change)]).await;
    }

    async fn tell_all(&self, changes: Vec<(&ContextKey, Change)>) {
        if let Some(tails) = &self.tails {
            for (key, _) in changes
                .iter()
                .filter(|(_, change)| matches!(change, Change::Gone(_)))
            {
                tails.forget(key);
            }
        }
        timed(Stage::Cache, self.heads.tell(changes)).await;
    }

    async fn tell_created(&self, tenant: &TenantId, created: &Created) {
        // What was there already was read, not written: it may be old by now.
        if created.is_new {
            let key = ContextKey::from((tenant, &created.context.id));
            let context = Box::new(created.context.clone());
            self.tell(&key, Change::To(context)).await;
        }
    }

    /// Asks for the heads as other processes have told them, where this one has none: a writer that can say what it has
    /// made of a head saves the next reader the primary, which may not be there by then. In a task of its own, since nobody
    /// may wait for the answer, and a question that is dropped may cost its connection.
    fn ask_told(self: &Arc<Self>, keys: &[ContextKey]) -> Option<JoinHandle<Told>> {
        let l2 = self.heads.cache().has_remote() && Session::current_plan().l2;
        if !l2 || keys.iter().all(|key| self.heads.peek(key).is_some()) {
            return None;
        }
        let (inner, keys) = (Arc::clone(self), keys.to_vec());
        Some(tokio::spawn(async move {
            let told = keys.iter().map(async |key| match inner.heads.peek(key) {
                Some(_) => None,
                None => inner.heads.told(key).await,
            });
            join_all(told).await
        }))
    }

    /// What an append has made of the head, if the head before it is at hand; what is held of the items follows.
    fn appended(
        &self,
        key: &ContextKey,
        items: &[NewItem],
        appended: &Appended,
        told: Option<Arc<Head>>,
    ) -> Change {
        self.derive(key, items, appended, told)
            .map_or(Change::Unknown(appended.version), |context| {
                if let (Some(tails), Some(at)) = (&self.tails, appended.at) {
                    let stored = items
                        .iter()
                        .zip(appended.first_seq..)
                        .map(|(item, seq)| stored(item, seq, at));
                    tails.extend(self.history(), key, &context, appended.first_seq, stored);
                }
                Change::To(Box::new(context))
            })
    }

    fn derive(
        &self,
        key: &ContextKey,
        items: &[NewItem],
        appended: &Appended,
        told: Option<Arc<Head>>,
    ) -> Option<Context> {
        let at = appended.at.filter(|_| !appended.replayed)?;
        let held = || {
            let tails = self.tails.as_ref()?;
            tails.any(self.history(), key, |held| {
                Some(Arc::new(held.context().clone().into()))
            })
        };
        // Which of them is at hand does not matter: a version is one state.
        let is_before = |head: &Arc<Head>| head.version + 1 == appended.version;
        let peeked = self.heads.peek(key).filter(is_before);
        let before = peeked.or_else(|| told.filter(is_before)).or_else(held)?;
        let tokens: u64 = items.iter().map(|item| u64::from(item.tokens)).sum();
        // Of an append that was known in part, not everything is new.
        let all_new = appended.tokens == tokens
            && appended.first_seq == before.next_seq
            && appended.last_seq + 1 - appended.first_seq == items.len() as u64;
        if !all_new || before.version + 1 != appended.version {
            return None;
        }
        let mut context = Context::clone(&before);
        if context.item_count == 0 {
            context.first_seq = appended.first_seq;
        }
        context.version = appended.version;
        context.next_seq = appended.last_seq + 1;
        context.item_count += items.len() as u64;
        context.tokens += tokens;
        context.updated_at = context.updated_at.max(at);
        Some(context)
    }

    /// A fork holds what its parent holds.
    fn share(&self, parent: &ContextKey, created: &Created) {
        let (Some(tails), Some(stream)) = (&self.tails, created.parent_stream) else {
            return;
        };
        let fork = &created.context;
        if let Some(held) = tails.any(self.history(), parent, |held| held.forked(stream, fork)) {
            let key = ContextKey::from((&parent.tenant, &fork.id));
            tails.hold(&key, held);
        }
    }
}

/// What others have told of some contexts, in their order.
type Told = Vec<Option<Arc<Head>>>;

/// What has come by now: a write waits for nothing else than its commit.
fn by_now(told: Option<JoinHandle<Told>>) -> impl Iterator<Item = Option<Arc<Head>>> {
    let told = told.and_then(|told| told.now_or_never()?.ok());
    told.unwrap_or_default().into_iter()
}

fn stored(item: &NewItem, seq: Seq, at: Timestamp) -> Item {
    Item {
        seq,
        tokens: item.tokens,
        created_at: at,
        traits: item.traits.clone(),
        body: item.body.clone(),
    }
}

/// What became of each of many whose task ended early is unknown of all.
fn all_or_each<T>(done: Result<Vec<Result<T>>>, count: usize) -> Vec<Result<T>> {
    match done {
        Ok(outcomes) => outcomes,
        Err(error) => std::iter::repeat_with(|| Err(error.clone()))
            .take(count)
            .collect(),
    }
}
