//! Whatever is done, what is answered from memory is what the store would have answered.

use proptest::prelude::*;

use super::*;
use crate::store::SeqRange;

#[derive(Clone, Debug)]
enum Op {
    Append {
        context: u8,
        items: u8,
        size: u16,
        pinned: bool,
    },
    Update(u8),
    Rewrite {
        context: u8,
        first: u8,
        last: u8,
        keep_end: u8,
    },
    Replace(u8),
    Delete(u8),
    Create(u8),
    Fork {
        context: u8,
        at: u8,
    },
    Tail {
        context: u8,
        tokens: u16,
        items_max: u8,
        bytes_max: u16,
    },
    Page {
        context: u8,
        after: u8,
        before: u8,
        limit: u8,
        descending: bool,
        bytes_max: u16,
    },
    Head(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let context = 0..3_u8;
    prop_oneof![
        6 => (context.clone(), 1..4_u8, 1..300_u16, prop::bool::weighted(0.1))
            .prop_map(|(context, items, size, pinned)| Op::Append { context, items, size, pinned }),
        1 => context.clone().prop_map(Op::Update),
        1 => (context.clone(), 1..10_u8, 0..10_u8, 1..5_u8)
            .prop_map(|(context, first, last, keep_end)| Op::Rewrite { context, first, last, keep_end }),
        1 => context.clone().prop_map(Op::Replace),
        1 => context.clone().prop_map(Op::Delete),
        2 => context.clone().prop_map(Op::Create),
        1 => (context.clone(), 0..20_u8).prop_map(|(context, at)| Op::Fork { context, at }),
        6 => (context.clone(), 1..2000_u16, 1..40_u8, 1..20_000_u16)
            .prop_map(|(context, tokens, items_max, bytes_max)| Op::Tail { context, tokens, items_max, bytes_max }),
        4 => (context.clone(), 0..30_u8, 0..40_u8, 1..10_u8, any::<bool>(), 1..5_000_u16)
            .prop_map(|(context, after, before, limit, descending, bytes_max)| {
                Op::Page { context, after, before, limit, descending, bytes_max }
            }),
        2 => context.prop_map(Op::Head),
    ]
}

fn id(context: u8) -> String {
    format!("c{context}")
}

fn items(count: u8, size: u16, pinned: bool) -> Append {
    let body = format!(
        r#"{{"role":"user","content":{:?},"pinned":{pinned}}}"#,
        "y".repeat(usize::from(size))
    );
    let mut item = NewItem::parse(&body, 1 << 20).unwrap();
    item.count(Tokenizer::Estimate);
    Append {
        items: vec![item; usize::from(count)].into(),
        ..said("")
    }
}

/// Writes go through the cached store, reads through both.
struct Both {
    store: Arc<FakeStore>,
    cached: CachedStore,
    clock: Arc<ManualClock>,
    forks: u32,
}

impl Both {
    fn new() -> Self {
        let clock = crate::contract::clock();
        let store = Arc::new(FakeStore::new(clock.clone()));
        let small = HeldLimits {
            contexts: 4,
            bytes: 40 << 10,
            context_bytes: 10 << 10,
            cold_percent: 50,
        };
        let cache = Cache::builder(CACHE_NAME).build().unwrap();
        Self {
            cached: CachedStore::new(store.clone(), cache, Some(small), clock.clone()),
            store,
            clock,
            forks: 0,
        }
    }

    async fn run(&mut self, op: Op) {
        match op {
            Op::Append { .. }
            | Op::Update(_)
            | Op::Rewrite { .. }
            | Op::Replace(_)
            | Op::Delete(_)
            | Op::Create(_) => self.write(op).await,
            Op::Fork { context, at } => self.fork(context, at).await,
            Op::Tail {
                context,
                tokens,
                items_max,
                bytes_max,
            } => {
                let query = TailQuery {
                    max_tokens: Some(u64::from(tokens)),
                    reserve: u64::from(tokens / 10),
                    items_max: u32::from(items_max),
                    bytes_max: u64::from(bytes_max),
                };
                compare_tail(&self.cached, &self.store, &key(&id(context)), query).await;
            }
            Op::Page {
                context,
                after,
                before,
                limit,
                descending,
                bytes_max,
            } => {
                let query = ItemQuery {
                    after: u64::from(after),
                    before: u64::from(before),
                    order: if descending {
                        Order::Descending
                    } else {
                        Order::Ascending
                    },
                    limit: u32::from(limit),
                    bytes_max: u64::from(bytes_max),
                };
                let key = key(&id(context));
                let (answer, _) = in_session(Consistency::Session, self.cached.items(&key, query)).await;
                same(answer, self.store.items(&key, query).await);
            }
            Op::Head(context) => {
                let key = key(&id(context));
                let (answer, _) = in_session(Consistency::Session, self.cached.head(&key)).await;
                same(answer, self.store.head(&key).await);
            }
        }
    }

    /// Whether a write is refused, for want of its context say, does not matter here.
    async fn write(&self, op: Op) {
        let cached = &self.cached;
        match op {
            Op::Append {
                context,
                items: count,
                size,
                pinned,
            } => drop(
                cached
                    .append(&key(&id(context)), items(count, size, pinned))
                    .await,
            ),
            Op::Update(context) => {
                let patch = ContextPatch {
                    name: Some(Some(format!("n{}", self.clock.now()))),
                    ..ContextPatch::default()
                };
                drop(cached.update(&key(&id(context)), patch, None).await);
            }
            Op::Rewrite {
                context,
                first,
                last,
                keep_end,
            } => {
                let key = key(&id(context));
                if let Ok(head) = self.store.head(&key).await {
                    let keep = kept(&head, u64::from(first), u64::from(last), u64::from(keep_end));
                    drop(cached.rewrite(&key, keep, None).await);
                }
            }
            Op::Replace(context) => drop(cached.replace(&key(&id(context)), items(2, 5, false)).await),
            Op::Delete(context) => drop(cached.delete(&key(&id(context)), None).await),
            Op::Create(context) => drop(cached.create(&tenant(), new(&id(context))).await),
            read => panic!("{read:?} is no write"),
        }
    }

    async fn fork(&mut self, context: u8, at: u8) {
        self.forks += 1;
        let name = format!("f{}", self.forks);
        let forked = self
            .cached
            .fork(&key(&id(context)), u64::from(at), new(&name))
            .await;
        if forked.is_ok() {
            compare_tail(&self.cached, &self.store, &key(&name), budget(500)).await;
        }
    }
}

/// A range at the beginning and one at the end.
fn kept(head: &Context, first: Seq, last: Seq, at_end: u64) -> Vec<SeqRange> {
    let end = head.next_seq - 1;
    let tail = SeqRange {
        first: end.saturating_sub(at_end).max(1),
        last: end,
    };
    let mut keep = vec![SeqRange { first, last }, tail];
    keep.retain(|range| range.first <= range.last);
    if keep.len() == 2 && keep[0].last >= keep[1].first {
        keep.remove(0);
    }
    keep
}

async fn compare_tail(cached: &CachedStore, store: &FakeStore, key: &ContextKey, query: TailQuery) {
    let (answer, _) = in_session(Consistency::Session, cached.tail(key, query)).await;
    same(answer, store.tail(key, query).await);
}

fn same<T: PartialEq + std::fmt::Debug>(answer: Result<T>, truth: Result<T>) {
    match (answer, truth) {
        (Ok(answer), Ok(truth)) => assert_eq!(answer, truth),
        (Err(Error::NotFound), Err(Error::NotFound)) => {}
        (
            Err(Error::TooLarge { actual, limit, .. }),
            Err(Error::TooLarge {
                actual: truly,
                limit: at_most,
                ..
            }),
        ) => assert_eq!((actual, limit), (truly, at_most)),
        (answer, truth) => panic!("answered {answer:?}, the store says {truth:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn answers_from_memory_are_the_stores_own(ops in prop::collection::vec(op(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut both = Both::new();
            for op in ops {
                both.clock.advance(Duration::from_millis(7));
                both.run(op).await;
            }
        });
    }
}
