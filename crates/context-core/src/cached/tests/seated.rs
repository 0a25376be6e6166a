//! Stores around stores: one that gives each call a session, one that counts and fails, one whose answers come late.

use std::sync::atomic::AtomicBool;

use super::*;

macro_rules! around {
    ($store:ty, $self:ident, $name:tt, $call:ident => $wrapped:expr $(; $($more:tt)*)?) => {
        around!($store, $self, $name, $call => $wrapped, $call => $wrapped $(; $($more)*)?);
    };
    ($store:ty, $self:ident, $name:tt, $read:ident => $reading:expr, $write:ident => $writing:expr $(; $($more:tt)*)?) => {
        #[async_trait::async_trait]
        impl ContextStore for $store {
            async fn create(&$self, tenant: &TenantId, new: NewContext) -> Result<Created> {
                let $write = $self.$name.create(tenant, new);
                $writing
            }
            async fn head(&$self, key: &ContextKey) -> Result<Context> {
                let $read = $self.$name.head(key);
                $reading
            }
            async fn heads(&$self, tenant: &TenantId, ids: &[ContextId]) -> Result<Vec<Option<Context>>> {
                let $read = $self.$name.heads(tenant, ids);
                $reading
            }
            async fn update(&$self, key: &ContextKey, patch: ContextPatch, expected: Option<Version>) -> Result<Context> {
                let $write = $self.$name.update(key, patch, expected);
                $writing
            }
            async fn delete(&$self, key: &ContextKey, expected: Option<Version>) -> Result<Version> {
                let $write = $self.$name.delete(key, expected);
                $writing
            }
            async fn delete_many(&$self, tenant: &TenantId, deletes: Vec<(ContextId, Option<Version>)>) -> Vec<Result<Version>> {
                $self.$name.delete_many(tenant, deletes).await
            }
            async fn append(&$self, key: &ContextKey, append: Append) -> Result<Appended> {
                let $write = $self.$name.append(key, append);
                $writing
            }
            async fn append_many(&$self, tenant: &TenantId, appends: Vec<(ContextId, Append)>) -> Vec<Result<Appended>> {
                $self.$name.append_many(tenant, appends).await
            }
            async fn replace(&$self, key: &ContextKey, append: Append) -> Result<Replaced> {
                let $write = $self.$name.replace(key, append);
                $writing
            }
            async fn rewrite(&$self, key: &ContextKey, keep: Vec<SeqRange>, expected: Option<Version>) -> Result<Context> {
                let $write = $self.$name.rewrite(key, keep, expected);
                $writing
            }
            async fn fork(&$self, key: &ContextKey, at: Seq, new: NewContext) -> Result<Created> {
                let $write = $self.$name.fork(key, at, new);
                $writing
            }
            async fn items(&$self, key: &ContextKey, query: ItemQuery) -> Result<ItemPage> {
                let $read = $self.$name.items(key, query);
                $reading
            }
            async fn tail(&$self, key: &ContextKey, query: TailQuery) -> Result<Tail> {
                let $read = $self.$name.tail(key, query);
                $reading
            }
            async fn summaries(&$self, key: &ContextKey) -> Result<Vec<Summary>> {
                let $read = $self.$name.summaries(key);
                $reading
            }
            async fn put_summary(&$self, key: &ContextKey, summary: Summary) -> Result<Summary> {
                let $write = $self.$name.put_summary(key, summary);
                $writing
            }
            async fn summaries_of(&$self, key: &ContextKey, range: SeqRange) -> Result<Vec<Summary>> {
                let $read = $self.$name.summaries_of(key, range);
                $reading
            }
            async fn keep_summary(&$self, key: &ContextKey, summary: Summary, stream: u64) -> Result<Option<Summary>> {
                let $write = $self.$name.keep_summary(key, summary, stream);
                $writing
            }
            async fn list(&$self, tenant: &TenantId, query: ListQuery) -> Result<ContextPage> {
                let $read = $self.$name.list(tenant, query);
                $reading
            }
            async fn search(&$self, tenant: &TenantId, query: SearchQuery) -> Result<SearchPage> {
                let $read = $self.$name.search(tenant, query);
                $reading
            }
            async fn purge(&$self, retention: Retention) -> Result<Purged> {
                $self.$name.purge(retention).await
            }
            async fn check(&$self) -> Result<StoreHealth> {
                $self.$name.check().await
            }
            async fn settle(&$self) -> Result<()> {
                $self.$name.settle().await
            }
            $($($more)*)?
            fn history(&$self) -> u64 {
                $self.$name.history()
            }
        }
    };
}

/// Each call in a session of its own, without a past: what the cache may answer, it answers.
#[derive(Debug)]
pub(super) struct Seated(pub(super) CachedStore);

around!(Seated, self, 0, call => in_session(Consistency::Session, call).await.0;
    fn vectors(self: Arc<Self>) -> Option<Arc<dyn VectorStore>> {
        Arc::new(self.0.clone()).vectors()
    }
);

/// Counts reads, and fails them if told.
#[derive(Debug)]
pub(super) struct Counted {
    store: FakeStore,
    pub(super) reads: AtomicU64,
    pub(super) failing: AtomicBool,
}

impl Counted {
    pub(super) fn new(store: FakeStore) -> Self {
        Self {
            store,
            reads: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        }
    }

    fn read(&self) -> Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.failing.load(Ordering::Relaxed) {
            return Err(Error::Unavailable {
                detail: "told to fail".into(),
                retry_after: Duration::from_secs(1),
            });
        }
        Ok(())
    }
}

around!(Counted, self, store, call => { self.read()?; call.await }, write => write.await);

/// What is written is there at once, its answer comes late.
#[derive(Debug)]
pub(super) struct Slow(pub(super) FakeStore);

impl Slow {
    pub(super) const ANSWER: Duration = Duration::from_millis(100);
}

around!(Slow, self, 0, call => call.await, write => {
    let done = write.await;
    tokio::time::sleep(Self::ANSWER).await;
    done
});

/// A primary and a standby that received nothing but the creation of `a`; the standby is another history.
#[derive(Debug)]
pub(super) struct Promoted {
    servers: [FakeStore; 2],
    serves: std::sync::atomic::AtomicUsize,
}

impl Promoted {
    pub(super) fn new(clock: Arc<ManualClock>) -> Self {
        Self {
            servers: [FakeStore::new(clock.clone()), FakeStore::new(clock)],
            serves: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    pub(super) async fn promote(&self) {
        self.servers[1].create(&tenant(), new("a")).await.unwrap();
        self.serves.store(1, Ordering::Relaxed);
    }

    fn server(&self) -> &FakeStore {
        &self.servers[self.serves.load(Ordering::Relaxed)]
    }
}

#[async_trait::async_trait]
impl ContextStore for Promoted {
    async fn create(&self, tenant: &TenantId, new: NewContext) -> Result<Created> {
        self.server().create(tenant, new).await
    }
    async fn head(&self, key: &ContextKey) -> Result<Context> {
        // Numbers of streams are given out anew as well.
        let context = self.server().head(key).await?;
        Ok(Context { stream: 1, ..context })
    }
    async fn update(&self, _: &ContextKey, _: ContextPatch, _: Option<Version>) -> Result<Context> {
        unreachable!("not part of the case")
    }
    async fn delete(&self, _: &ContextKey, _: Option<Version>) -> Result<Version> {
        unreachable!("not part of the case")
    }
    async fn append(&self, key: &ContextKey, append: Append) -> Result<Appended> {
        self.server().append(key, append).await
    }
    async fn replace(&self, _: &ContextKey, _: Append) -> Result<Replaced> {
        unreachable!("not part of the case")
    }
    async fn rewrite(&self, _: &ContextKey, _: Vec<SeqRange>, _: Option<Version>) -> Result<Context> {
        unreachable!("not part of the case")
    }
    async fn fork(&self, _: &ContextKey, _: Seq, _: NewContext) -> Result<Created> {
        unreachable!("not part of the case")
    }
    async fn items(&self, key: &ContextKey, query: ItemQuery) -> Result<ItemPage> {
        self.server().items(key, query).await
    }
    async fn tail(&self, key: &ContextKey, query: TailQuery) -> Result<Tail> {
        let mut tail = self.server().tail(key, query).await?;
        tail.context.stream = 1;
        Ok(tail)
    }
    async fn summaries(&self, _: &ContextKey) -> Result<Vec<Summary>> {
        unreachable!("not part of the case")
    }
    async fn put_summary(&self, _: &ContextKey, _: Summary) -> Result<Summary> {
        unreachable!("not part of the case")
    }
    async fn keep_summary(&self, _: &ContextKey, _: Summary, _: u64) -> Result<Option<Summary>> {
        unreachable!("not part of the case")
    }
    async fn list(&self, _: &TenantId, _: ListQuery) -> Result<ContextPage> {
        unreachable!("not part of the case")
    }
    async fn search(&self, _: &TenantId, _: SearchQuery) -> Result<SearchPage> {
        unreachable!("not part of the case")
    }
    async fn purge(&self, _: Retention) -> Result<Purged> {
        unreachable!("not part of the case")
    }
    async fn check(&self) -> Result<StoreHealth> {
        self.server().check().await
    }
    async fn settle(&self) -> Result<()> {
        self.server().settle().await
    }
    fn history(&self) -> u64 {
        1 + self.serves.load(Ordering::Relaxed) as u64
    }
}
