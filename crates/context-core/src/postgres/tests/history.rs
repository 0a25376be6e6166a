//! What many clients did and were told, and what has to be true of the store after it (G1–G3).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::store::{Append, Appended, ContextStore, Idempotency, ItemQuery, Order};
use crate::{ContextId, ContextKey, Error, IdempotencyKey, NewContext, NewItem, Seq, TenantId, Tokenizer};

/// How an append is named, which decides whether it may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    Key,
    ClientId,
    None,
}

/// A sequence that looks random and is the same each time.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Bodies by context: acknowledged at a seq, or of unknown fate.
#[derive(Debug, Default)]
pub(super) struct History {
    acknowledged: Mutex<BTreeMap<String, BTreeMap<Seq, String>>>,
    unknown: Mutex<Vec<String>>,
}

pub(super) fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

pub(super) fn key(number: u64) -> ContextKey {
    ContextKey::new(tenant(), ContextId::parse(&format!("c{number}")).unwrap())
}

pub(super) async fn create(store: &dyn ContextStore, contexts: u64) {
    for number in 0..contexts {
        let new = NewContext {
            tokenizer: Some(Tokenizer::Estimate),
            ..NewContext::of_agent("a").with_id(key(number).id)
        };
        assert!(store.create(&tenant(), new).await.unwrap().is_new);
    }
}

pub(super) fn append_of(name: &str, naming: Naming, items: u64) -> Append {
    let items: Arc<[NewItem]> = (0..items)
        .map(|n| {
            let mut body = serde_json::json!({"role": "user", "content": format!("{name}.{n}")});
            if naming == Naming::ClientId {
                body["client_id"] = format!("{name}.{n}").into();
            }
            let mut item = NewItem::parse(&body.to_string(), 1 << 20).unwrap();
            item.count(Tokenizer::Estimate);
            item
        })
        .collect();
    Append {
        items,
        tokenizer: Tokenizer::Estimate,
        expected: None,
        idempotency: (naming == Naming::Key).then(|| Idempotency {
            key: IdempotencyKey::parse(name).unwrap(),
            fingerprint: [7; 32],
        }),
    }
}

impl History {
    /// Appends as a client does: repeats what has a name until it is answered, gives up what has none at the first
    /// error, and now and then goes away in the middle.
    pub(super) async fn append(&self, store: &dyn ContextStore, context: u64, name: &str, dice: &mut Dice) {
        let naming = [Naming::Key, Naming::ClientId, Naming::None][usize::try_from(dice.roll(3)).unwrap()];
        let append = append_of(name, naming, 1 + dice.roll(3));
        for _ in 0..2000 {
            let patience = if naming != Naming::None && dice.roll(4) == 0 {
                Duration::from_micros(dice.roll(2000))
            } else {
                Duration::from_mins(1)
            };
            let outcome = tokio::time::timeout(patience, store.append(&key(context), append.clone())).await;
            match outcome {
                Ok(Ok(appended)) => return self.acknowledge(context, &append, appended),
                Ok(Err(Error::Unavailable { .. } | Error::Overloaded { .. })) | Err(_) => {
                    if naming == Naming::None {
                        let bodies = append.items.iter().map(|item| item.body.to_string());
                        return self.unknown.lock().unwrap().extend(bodies);
                    }
                    tokio::time::sleep(Duration::from_millis(dice.roll(20))).await;
                }
                Ok(Err(error)) => panic!("{name}: {error}"),
            }
        }
        panic!("{name} was not answered in two thousand tries");
    }

    fn acknowledge(&self, context: u64, append: &Append, appended: Appended) {
        let mut all = self.acknowledged.lock().unwrap();
        let of_context = all.entry(key(context).id.to_string()).or_default();
        for (item, seq) in append.items.iter().zip(appended.first_seq..) {
            let other = of_context.insert(seq, item.body.to_string());
            assert_eq!(other, None, "seq {seq} of context {context} was given twice");
        }
        assert_eq!(
            appended.last_seq - appended.first_seq + 1,
            append.items.len() as u64
        );
    }

    /// Checks a context: no gap, nothing lost, nothing twice, nothing that nobody sent.
    pub(super) async fn check(&self, store: &dyn ContextStore, context: u64) {
        let key = key(context);
        let mut stored: BTreeMap<Seq, String> = BTreeMap::new();
        loop {
            let query = ItemQuery {
                after: stored.len() as u64,
                before: Seq::MAX,
                order: Order::Ascending,
                limit: 1000,
                bytes_max: u64::MAX,
            };
            let page = store.items(&key, query).await.unwrap();
            stored.extend(
                page.items
                    .into_iter()
                    .map(|item| (item.seq, item.body.to_string())),
            );
            if !page.more {
                break;
            }
        }
        let seqs: Vec<Seq> = stored.keys().copied().collect();
        assert_eq!(
            seqs,
            (1..=stored.len() as u64).collect::<Vec<_>>(),
            "seqs of {}",
            key.id
        );
        let head = store.head(&key).await.unwrap();
        assert_eq!(
            (head.item_count, head.next_seq),
            (stored.len() as u64, stored.len() as u64 + 1)
        );
        let all = self.acknowledged.lock().unwrap();
        let none = BTreeMap::new();
        let acknowledged = all.get(key.id.as_str()).unwrap_or(&none);
        for (seq, body) in acknowledged {
            assert_eq!(
                stored.get(seq),
                Some(body),
                "seq {seq} of {} was acknowledged",
                key.id
            );
        }
        let unknown = self.unknown.lock().unwrap();
        for (seq, body) in &stored {
            assert!(
                acknowledged.contains_key(seq) || unknown.contains(body),
                "{body} at seq {seq} of {} is there twice or was never sent",
                key.id
            );
        }
        let distinct: std::collections::BTreeSet<&String> = stored.values().collect();
        assert_eq!(
            distinct.len(),
            stored.len(),
            "a body of {} is there twice",
            key.id
        );
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged
            .lock()
            .unwrap()
            .values()
            .map(BTreeMap::len)
            .sum()
    }
}
