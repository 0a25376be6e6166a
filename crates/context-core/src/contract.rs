//! The contract of [`ContextStore`]: one suite that every implementation passes, the fake included, so that
//! a test on the fake says something about the real ones.
//!
//! A store's tests are one line, `store_contract!(make)`, where `make(clock)` is async and answers a fresh,
//! empty store and a guard that is dropped after the case.

#![expect(clippy::unwrap_used, reason = "a suite of assertions")]
#![expect(clippy::missing_panics_doc, reason = "panicking is how a case fails")]
#![expect(missing_docs, reason = "each case is named after what it demands")]

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, ManualClock};
use crate::context::JsonObject;
use crate::search::Query;
use crate::store::{
    Append, Appended, ContextStore, Idempotency, ItemPage, ItemQuery, ListPosition, ListQuery, Order,
    Retention, SearchQuery, SeqRange, TailQuery,
};
use crate::{
    Context, ContextId, ContextKey, ContextPatch, Error, IdempotencyKey, NewContext, NewItem, Role, Seq,
    TenantId, Timestamp, Tokenizer,
};

/// One test per case of the contract, for the store that the closure makes.
#[macro_export]
macro_rules! store_contract {
    ($make:expr) => {
        $crate::store_contract!(@cases $make;
            created_contexts_are_found, creating_again_finds_the_same, creating_otherwise_conflicts,
            ids_are_made_when_none_is_given, patches_change_what_they_name, versions_count_commits,
            conditions_hold, seqs_have_no_gaps, bodies_come_back_byte_for_byte, keys_are_used_once,
            keys_are_not_shared, client_ids_are_stored_once, client_ids_of_other_content_conflict,
            half_known_appends_add_the_rest, counts_of_another_tokenizer_are_refused, replays_come_before_conditions,
            pages_go_both_ways, pages_are_bounded_by_bytes, tails_have_what_is_kept, tails_stop_at_the_budget,
            forks_share_and_part, forks_outlive_their_parent, forks_of_forks_read_everything, replaced_items_are_gone,
            rewrites_keep_ranges, deleted_contexts_are_gone, versions_survive_deletion, expired_contexts_are_gone,
            tenants_do_not_meet, lists_are_newest_first, lists_filter, searches_find, searches_stay_inside,
            purges_remove_what_nothing_reaches, purges_forget_keys_and_tombstones, writers_at_once_all_succeed,
            dropped_appends_do_not_block
        );
    };
    (@cases $make:expr; $($case:ident),+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let clock = $crate::contract::clock();
            let (store, _guard) = ($make)(clock.clone()).await;
            $crate::contract::$case($crate::contract::Subject::new(store, clock)).await;
        }
    )+};
}

/// Where every case begins: 2026-01-01.
pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::starting_at(Timestamp::from_micros(
        1_767_225_600_000_000,
    )))
}

/// The store under test.
#[derive(Debug)]
pub struct Subject {
    store: Arc<dyn ContextStore>,
    clock: Arc<ManualClock>,
    tenant: TenantId,
}

impl Subject {
    /// A fresh, empty store.
    pub fn new(store: Arc<dyn ContextStore>, clock: Arc<ManualClock>) -> Self {
        Self {
            store,
            clock,
            tenant: TenantId::parse("acme").unwrap(),
        }
    }

    fn key(&self, id: &str) -> ContextKey {
        ContextKey::new(self.tenant.clone(), ContextId::parse(id).unwrap())
    }

    async fn create(&self, id: &str) -> ContextKey {
        let created = self.store.create(&self.tenant, new(id)).await.unwrap();
        assert!(created.is_new);
        self.key(id)
    }

    async fn append(&self, key: &ContextKey, bodies: &[&str]) -> Appended {
        self.store.append(key, append(bodies)).await.unwrap()
    }

    async fn head(&self, key: &ContextKey) -> Context {
        self.store.head(key).await.unwrap()
    }

    async fn all(&self, key: &ContextKey) -> Vec<(Seq, String)> {
        let page = self.store.items(key, everything()).await.unwrap();
        assert!(!page.more);
        page.items
            .into_iter()
            .map(|item| (item.seq, item.body.to_string()))
            .collect()
    }

    async fn found(&self, query: &str, context: Option<&str>) -> Vec<(String, Seq)> {
        self.store.settle().await.unwrap();
        let query = SearchQuery {
            context: context.map(|id| ContextId::parse(id).unwrap()),
            ..searching(query)
        };
        let mut hits: Vec<_> = self
            .store
            .search(&self.tenant, query)
            .await
            .unwrap()
            .hits
            .into_iter()
            .map(|hit| (hit.context.to_string(), hit.item.seq))
            .collect();
        hits.sort();
        hits
    }

    async fn purge_all(&self, retention: Retention) -> u64 {
        let mut items = 0;
        for _ in 0..1000 {
            let purged = self.store.purge(retention).await.unwrap();
            items += purged.items;
            if !purged.more {
                return items;
            }
        }
        panic!("the purge does not end");
    }
}

fn new(id: &str) -> NewContext {
    NewContext {
        tokenizer: Some(Tokenizer::Estimate),
        ..NewContext::of_agent("planner")
    }
    .with_id(ContextId::parse(id).unwrap())
}

fn said(text: &str) -> String {
    serde_json::json!({"role": "user", "content": text}).to_string()
}

fn items(bodies: &[&str]) -> Arc<[NewItem]> {
    bodies
        .iter()
        .map(|body| {
            let mut item = NewItem::parse(body, 1 << 20).unwrap();
            item.count(Tokenizer::Estimate);
            item
        })
        .collect()
}

fn append(bodies: &[&str]) -> Append {
    Append {
        items: items(bodies),
        tokenizer: Tokenizer::Estimate,
        expected: None,
        idempotency: None,
    }
}

fn keyed(bodies: &[&str], key: &str, fingerprint: u8) -> Append {
    let idempotency = Idempotency {
        key: IdempotencyKey::parse(key).unwrap(),
        fingerprint: [fingerprint; 32],
    };
    Append {
        idempotency: Some(idempotency),
        ..append(bodies)
    }
}

fn everything() -> ItemQuery {
    ItemQuery {
        after: 0,
        before: Seq::MAX,
        order: Order::Ascending,
        limit: 10_000,
        bytes_max: u64::MAX,
    }
}

fn searching(query: &str) -> SearchQuery {
    SearchQuery {
        query: Query::parse(query).unwrap(),
        context: None,
        role: None,
        offset: 0,
        limit: 100,
    }
}

fn retention_of(clock: &ManualClock) -> Retention {
    Retention {
        tombstones_before: clock.now().saturating_sub(Duration::from_secs(3600)),
        keys_before: clock.now().saturating_sub(Duration::from_secs(3600)),
        batch: 7,
    }
}

fn seqs(page: &ItemPage) -> Vec<Seq> {
    page.items.iter().map(|item| item.seq).collect()
}

fn once(appended: Appended) -> Appended {
    Appended {
        replayed: false,
        ..appended
    }
}

pub async fn created_contexts_are_found(t: Subject) {
    let metadata = JsonObject::parse("metadata", r#"{"b": 1, "a":[2 ,3]}"#).unwrap();
    let asked = NewContext {
        session_id: Some("s".into()),
        name: Some("n".into()),
        metadata: Some(metadata.clone()),
        labels: Some(vec!["x".into(), "y".into()]),
        max_tokens: Some(77),
        ..new("a")
    };
    let created = t.store.create(&t.tenant, asked).await.unwrap().context;
    let head = t.head(&t.key("a")).await;
    assert_eq!(head, created);
    assert_eq!(
        (
            head.version,
            head.first_seq,
            head.next_seq,
            head.item_count,
            head.tokens
        ),
        (1, 1, 1, 0, 0)
    );
    assert_eq!(
        (head.metadata, head.max_tokens, head.labels.len()),
        (metadata, 77, 2)
    );
    assert_eq!((head.created_at, head.updated_at), (t.clock.now(), t.clock.now()));
    assert!(matches!(t.store.head(&t.key("b")).await, Err(Error::NotFound)));
}

pub async fn creating_again_finds_the_same(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[&said("x")]).await;
    let again = t.store.create(&t.tenant, new("a")).await.unwrap();
    assert!(!again.is_new);
    assert_eq!(again.context, t.head(&key).await);
}

pub async fn creating_otherwise_conflicts(t: Subject) {
    let key = t.create("a").await;
    let other = NewContext {
        name: Some("other".into()),
        ..new("a")
    };
    assert!(matches!(
        t.store.create(&t.tenant, other).await,
        Err(Error::ContextDiffers { field: "name" })
    ));
    assert_eq!(t.head(&key).await.version, 1);
}

pub async fn ids_are_made_when_none_is_given(t: Subject) {
    let first = t
        .store
        .create(&t.tenant, NewContext::of_agent("a"))
        .await
        .unwrap()
        .context
        .id;
    let second = t
        .store
        .create(&t.tenant, NewContext::of_agent("a"))
        .await
        .unwrap()
        .context
        .id;
    assert_ne!(first, second);
}

pub async fn patches_change_what_they_name(t: Subject) {
    let key = t.create("a").await;
    let patch = ContextPatch {
        name: Some(Some("n".into())),
        max_tokens: Some(5),
        ..ContextPatch::default()
    };
    let patched = t.store.update(&key, patch, None).await.unwrap();
    assert_eq!(
        (patched.name.as_deref(), patched.max_tokens, patched.version),
        (Some("n"), 5, 2)
    );
    let cleared = t
        .store
        .update(
            &key,
            ContextPatch {
                name: Some(None),
                ..ContextPatch::default()
            },
            None,
        )
        .await
        .unwrap();
    assert_eq!((cleared.name, cleared.max_tokens), (None, 5));
    assert_eq!(t.head(&key).await.version, 3);
}

// S2
pub async fn versions_count_commits(t: Subject) {
    let key = t.create("a").await;
    assert_eq!(t.append(&key, &[&said("1"), &said("2")]).await.version, 2);
    assert_eq!(t.append(&key, &[&said("3")]).await.version, 3);
    let wrong = Append {
        expected: Some(1),
        ..append(&[&said("x")])
    };
    assert!(t.store.append(&key, wrong).await.is_err());
    assert_eq!(t.head(&key).await.version, 3);
}

pub async fn conditions_hold(t: Subject) {
    let key = t.create("a").await;
    let mismatch = |outcome: Error| {
        assert!(
            matches!(
                outcome,
                Error::VersionMismatch {
                    expected: 9,
                    actual: 1
                }
            ),
            "{outcome:?}"
        )
    };
    let patch = ContextPatch {
        max_tokens: Some(5),
        ..ContextPatch::default()
    };
    mismatch(t.store.update(&key, patch.clone(), Some(9)).await.unwrap_err());
    mismatch(t.store.delete(&key, Some(9)).await.unwrap_err());
    mismatch(
        t.store
            .append(
                &key,
                Append {
                    expected: Some(9),
                    ..append(&[&said("x")])
                },
            )
            .await
            .unwrap_err(),
    );
    mismatch(
        t.store
            .replace(
                &key,
                Append {
                    expected: Some(9),
                    ..append(&[&said("x")])
                },
            )
            .await
            .unwrap_err(),
    );
    mismatch(t.store.rewrite(&key, vec![], Some(9)).await.unwrap_err());
    assert_eq!(t.store.update(&key, patch, Some(1)).await.unwrap().version, 2);
    assert_eq!(
        t.store
            .append(
                &key,
                Append {
                    expected: Some(2),
                    ..append(&[&said("x")])
                }
            )
            .await
            .unwrap()
            .version,
        3
    );
    assert_eq!(t.store.delete(&key, Some(3)).await.unwrap(), 4);
}

// S3
pub async fn seqs_have_no_gaps(t: Subject) {
    let key = t.create("a").await;
    let first = t.append(&key, &[&said("1"), &said("2")]).await;
    let second = t.append(&key, &[&said("3")]).await;
    assert_eq!(
        (first.first_seq, first.last_seq, second.first_seq, second.last_seq),
        (1, 2, 3, 3)
    );
    let head = t.head(&key).await;
    assert_eq!((head.first_seq, head.next_seq, head.item_count), (1, 4, 3));
    assert_eq!(head.tokens, first.tokens + second.tokens);
    assert_eq!(
        t.all(&key).await.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

// S7
pub async fn bodies_come_back_byte_for_byte(t: Subject) {
    let key = t.create("a").await;
    let odd = [
        "{ \"role\" : \"user\",\n\t\"content\":\"a\\u0000b \\ud83d\\ude00 é \\/ \",\"x\":1.0e2,\"y\":12345678901234567890123}",
        r#"{"content":null,"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
        r#"{"type":"function_call_output","call_id":"c1","output":"x"}"#,
    ];
    t.append(&key, &odd).await;
    let page = t.store.items(&key, everything()).await.unwrap();
    for (item, body) in page.items.iter().zip(odd) {
        assert_eq!(&*item.body, body);
        assert_eq!(item.traits, NewItem::parse(body, 1 << 20).unwrap().traits);
    }
}

// S4
pub async fn keys_are_used_once(t: Subject) {
    let key = t.create("a").await;
    let first = t.store.append(&key, keyed(&[&said("1")], "k", 1)).await.unwrap();
    t.append(&key, &[&said("2")]).await;
    let again = t.store.append(&key, keyed(&[&said("1")], "k", 1)).await.unwrap();
    assert!(again.replayed && !first.replayed);
    assert_eq!(once(again), first);
    assert!(matches!(
        t.store.append(&key, keyed(&[&said("9")], "k", 9)).await,
        Err(Error::IdempotencyKeyReused)
    ));
    assert_eq!(t.all(&key).await.len(), 2);
    let replaced = t.store.replace(&key, keyed(&[&said("r")], "r", 3)).await.unwrap();
    assert_eq!(
        once(t.store.replace(&key, keyed(&[&said("r")], "r", 3)).await.unwrap()),
        replaced
    );
    assert_eq!(t.all(&key).await.len(), 1);
}

pub async fn keys_are_not_shared(t: Subject) {
    let (a, b) = (t.create("a").await, t.create("b").await);
    t.store.append(&a, keyed(&[&said("1")], "k", 1)).await.unwrap();
    assert!(
        !t.store
            .append(&b, keyed(&[&said("2")], "k", 2))
            .await
            .unwrap()
            .replayed
    );
}

// S4
pub async fn client_ids_are_stored_once(t: Subject) {
    let key = t.create("a").await;
    let (m1, m2) = (
        r#"{"role":"user","content":"1","client_id":"m1"}"#,
        r#"{"role":"user","content":"2","client_id":"m2"}"#,
    );
    let first = t.append(&key, &[m1, m2]).await;
    t.append(&key, &[&said("3")]).await;
    let again = t.append(&key, &[m1, m2]).await;
    assert!(again.replayed);
    assert_eq!(once(again), first);
    let spaced = r#"{ "role":"user", "client_id":"m1", "content":"1" }"#;
    assert!(
        t.append(&key, &[spaced]).await.replayed,
        "the same content in other spacing is the same item"
    );
    assert_eq!(t.head(&key).await.version, 3);
}

pub async fn client_ids_of_other_content_conflict(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[r#"{"role":"user","content":"1","client_id":"m1"}"#])
        .await;
    let other = t
        .store
        .append(
            &key,
            append(&[&said("x"), r#"{"role":"user","content":"2","client_id":"m1"}"#]),
        )
        .await;
    assert!(
        matches!(other, Err(Error::ClientIdReused { seq: 1, .. })),
        "{other:?}"
    );
    assert_eq!(t.all(&key).await.len(), 1, "a refused append adds nothing");
}

pub async fn half_known_appends_add_the_rest(t: Subject) {
    let key = t.create("a").await;
    let (m1, m2) = (
        r#"{"role":"user","content":"1","client_id":"m1"}"#,
        r#"{"role":"user","content":"2","client_id":"m2"}"#,
    );
    t.append(&key, &[m1]).await;
    let both = t.append(&key, &[m1, m2]).await;
    assert_eq!(
        (both.first_seq, both.last_seq, both.version, both.replayed),
        (1, 2, 3, false)
    );
    assert_eq!(t.all(&key).await.len(), 2);
}

pub async fn counts_of_another_tokenizer_are_refused(t: Subject) {
    let key = t.create("a").await;
    let other = Append {
        tokenizer: Tokenizer::O200kBase,
        ..append(&[&said("x")])
    };
    let refused = t.store.append(&key, other).await;
    assert!(
        matches!(
            refused,
            Err(Error::TokenizerMismatch {
                actual: Tokenizer::Estimate
            })
        ),
        "{refused:?}"
    );
}

pub async fn replays_come_before_conditions(t: Subject) {
    let key = t.create("a").await;
    let request = Append {
        expected: Some(1),
        ..keyed(&[&said("1")], "k", 1)
    };
    let first = t.store.append(&key, request.clone()).await.unwrap();
    assert_eq!(once(t.store.append(&key, request).await.unwrap()), first);
}

pub async fn pages_go_both_ways(t: Subject) {
    let key = t.create("a").await;
    let bodies: Vec<String> = (1..=10).map(|n| said(&n.to_string())).collect();
    t.append(&key, &bodies.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let page = t
        .store
        .items(
            &key,
            ItemQuery {
                after: 3,
                limit: 4,
                ..everything()
            },
        )
        .await
        .unwrap();
    assert_eq!((seqs(&page), page.more), (vec![4, 5, 6, 7], true));
    let page = t
        .store
        .items(
            &key,
            ItemQuery {
                after: 7,
                limit: 4,
                ..everything()
            },
        )
        .await
        .unwrap();
    assert_eq!((seqs(&page), page.more), (vec![8, 9, 10], false));
    let page = t
        .store
        .items(
            &key,
            ItemQuery {
                before: 4,
                limit: 2,
                order: Order::Descending,
                ..everything()
            },
        )
        .await
        .unwrap();
    assert_eq!((seqs(&page), page.more), (vec![3, 2], true));
    let page = t
        .store
        .items(
            &key,
            ItemQuery {
                after: 10,
                ..everything()
            },
        )
        .await
        .unwrap();
    assert_eq!((seqs(&page), page.more, page.version), (vec![], false, 2));
    let page = t
        .store
        .items(
            &key,
            ItemQuery {
                after: Seq::MAX,
                ..everything()
            },
        )
        .await
        .unwrap();
    assert_eq!(seqs(&page), Vec::<Seq>::new());
}

pub async fn pages_are_bounded_by_bytes(t: Subject) {
    let key = t.create("a").await;
    let big = said(&"x".repeat(1000));
    t.append(&key, &[&big, &big, &big]).await;
    let page = t
        .store
        .items(
            &key,
            ItemQuery {
                bytes_max: 2500,
                ..everything()
            },
        )
        .await
        .unwrap();
    assert_eq!((seqs(&page), page.more), (vec![1, 2], true));
    let page = t
        .store
        .items(
            &key,
            ItemQuery {
                bytes_max: 1,
                ..everything()
            },
        )
        .await
        .unwrap();
    assert_eq!(
        (seqs(&page), page.more),
        (vec![1], true),
        "a page always moves on"
    );
}

pub async fn tails_have_what_is_kept(t: Subject) {
    let key = t.create("a").await;
    t.append(
        &key,
        &[
            r#"{"role":"system","content":"be kind"}"#,
            &said("1"),
            r#"{"role":"user","content":"pin","pinned":true}"#,
        ],
    )
    .await;
    t.append(&key, &[&said("2"), &said("3")]).await;
    let tail = t
        .store
        .tail(
            &key,
            TailQuery {
                items_max: 2,
                ..whole()
            },
        )
        .await
        .unwrap();
    assert_eq!(tail.kept.iter().map(|item| item.seq).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(tail.run.iter().map(|item| item.seq).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(tail.context, t.head(&key).await);
    let tail = t.store.tail(&key, whole()).await.unwrap();
    assert_eq!((tail.kept.len(), tail.run.len()), (0, 5));
}

fn whole() -> TailQuery {
    TailQuery {
        max_tokens: Some(u64::MAX),
        reserve: 0,
        items_max: 10_000,
        bytes_max: u64::MAX,
    }
}

pub async fn tails_stop_at_the_budget(t: Subject) {
    let key = t.create("a").await;
    let each = u64::from(Tokenizer::Estimate.count("12345678")) + u64::from(crate::TOKENS_PER_ITEM);
    t.append(&key, &[&said("12345678"), &said("12345678"), &said("12345678")])
        .await;
    for (max_tokens, reserve, expected) in [
        (each * 2, 0, 2),
        (each * 2 - 1, 0, 1),
        (each * 3, each, 2),
        (0, 0, 0),
    ] {
        let query = TailQuery {
            max_tokens: Some(max_tokens),
            reserve,
            ..whole()
        };
        assert_eq!(
            t.store.tail(&key, query).await.unwrap().run.len(),
            expected,
            "{max_tokens} - {reserve}"
        );
    }
    let patch = ContextPatch {
        max_tokens: Some(each),
        ..ContextPatch::default()
    };
    t.store.update(&key, patch, None).await.unwrap();
    let tail = t
        .store
        .tail(
            &key,
            TailQuery {
                max_tokens: None,
                ..whole()
            },
        )
        .await
        .unwrap();
    assert_eq!(tail.run.len(), 1, "the context's own budget");
}

pub async fn forks_share_and_part(t: Subject) {
    let parent = t.create("a").await;
    t.append(&parent, &[&said("1"), &said("2"), &said("3")]).await;
    let fork = t.store.fork(&parent, 2, new("f")).await.unwrap();
    assert!(fork.is_new);
    assert_eq!(
        (
            fork.context.next_seq,
            fork.context.item_count,
            fork.context.version
        ),
        (3, 2, 1)
    );
    let fork = t.key("f");
    t.append(&fork, &[&said("other 3")]).await;
    t.append(&parent, &[&said("4")]).await;
    assert_eq!(
        t.all(&fork).await,
        [(1, said("1")), (2, said("2")), (3, said("other 3"))]
    );
    assert_eq!(t.all(&parent).await.len(), 4);
    let total: u64 = t
        .store
        .items(&fork, everything())
        .await
        .unwrap()
        .items
        .iter()
        .map(|item| u64::from(item.tokens))
        .sum();
    assert_eq!(t.head(&fork).await.tokens, total);
    let empty = t.store.fork(&parent, 0, new("e")).await.unwrap().context;
    assert_eq!((empty.item_count, empty.tokens, empty.next_seq), (0, 0, 1));
    assert!(matches!(
        t.store.fork(&parent, 5, new("g")).await,
        Err(Error::Invalid(_))
    ));
    assert!(matches!(
        t.store.fork(&t.key("none"), 1, new("g")).await,
        Err(Error::NotFound)
    ));
    assert_eq!(
        t.store
            .fork(&parent, Seq::MAX, new("h"))
            .await
            .unwrap()
            .context
            .item_count,
        4
    );
}

pub async fn forks_outlive_their_parent(t: Subject) {
    let parent = t.create("a").await;
    t.append(&parent, &[&said("1"), &said("2"), &said("3")]).await;
    t.store.fork(&parent, 2, new("f")).await.unwrap();
    t.store.delete(&parent, None).await.unwrap();
    t.clock.advance(Duration::from_secs(7200));
    assert_eq!(t.purge_all(retention_of(&t.clock)).await, expected_purge(&t, 1));
    assert_eq!(t.all(&t.key("f")).await, [(1, said("1")), (2, said("2"))]);
    assert_eq!(
        t.found("1 OR 2 OR 3", None).await,
        [("f".to_owned(), 1), ("f".to_owned(), 2)]
    );
}

/// The fake drops items at once; the others count what a purge removes.
fn expected_purge(t: &Subject, items: u64) -> u64 {
    if format!("{:?}", t.store).starts_with("FakeStore") {
        0
    } else {
        items
    }
}

pub async fn forks_of_forks_read_everything(t: Subject) {
    let mut key = t.create("f0").await;
    t.append(&key, &[&said("0")]).await;
    for level in 1..=20 {
        let id = format!("f{level}");
        t.store.fork(&key, Seq::MAX, new(&id)).await.unwrap();
        key = t.key(&id);
        t.append(&key, &[&said(&level.to_string())]).await;
    }
    let bodies: Vec<(Seq, String)> = (0..=20)
        .map(|level| (level + 1, said(&level.to_string())))
        .collect();
    assert_eq!(t.all(&key).await, bodies);
    let tail = t
        .store
        .tail(
            &key,
            TailQuery {
                items_max: 5,
                ..whole()
            },
        )
        .await
        .unwrap();
    assert_eq!(
        tail.run.iter().map(|item| item.seq).collect::<Vec<_>>(),
        [17, 18, 19, 20, 21]
    );
}

// S3
pub async fn replaced_items_are_gone(t: Subject) {
    let key = t.create("a").await;
    let m1 = r#"{"role":"user","content":"alpha","client_id":"m1"}"#;
    t.append(&key, &[m1, &said("beta")]).await;
    let replaced = t.store.replace(&key, append(&[&said("gamma")])).await.unwrap();
    assert_eq!(
        (replaced.first_seq, replaced.last_seq, replaced.version),
        (3, 3, 3)
    );
    assert_eq!(t.all(&key).await, [(3, said("gamma"))]);
    let head = t.head(&key).await;
    assert_eq!(
        (head.first_seq, head.next_seq, head.item_count, head.tokens),
        (3, 4, 1, replaced.tokens)
    );
    assert!(t.found("alpha OR beta", None).await.is_empty());
    assert!(
        !t.append(&key, &[m1]).await.replayed,
        "its client id went with it"
    );
    let emptied = t
        .store
        .replace(
            &key,
            Append {
                items: Arc::from([]),
                ..append(&[])
            },
        )
        .await
        .unwrap();
    assert_eq!((t.head(&key).await.item_count, emptied.tokens), (0, 0));
}

pub async fn rewrites_keep_ranges(t: Subject) {
    let key = t.create("a").await;
    let bodies: Vec<String> = (1..=10).map(|n| said(&n.to_string())).collect();
    t.append(&key, &bodies.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let ranges = vec![SeqRange { first: 1, last: 1 }, SeqRange { first: 7, last: 10 }];
    let context = t.store.rewrite(&key, ranges, None).await.unwrap();
    assert_eq!(
        (
            context.item_count,
            context.first_seq,
            context.next_seq,
            context.version
        ),
        (5, 1, 11, 3)
    );
    assert_eq!(context, t.head(&key).await);
    assert_eq!(t.append(&key, &[&said("11")]).await.first_seq, 11);
    let kept: Vec<Seq> = t.all(&key).await.into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(kept, [1, 7, 8, 9, 10, 11]);
    t.store
        .rewrite(&key, vec![SeqRange { first: 8, last: 11 }], None)
        .await
        .unwrap();
    assert_eq!(t.purge_all(retention_of(&t.clock)).await, expected_purge(&t, 7));
    assert_eq!(t.all(&key).await.len(), 4);
    let total: u64 = t
        .store
        .items(&key, everything())
        .await
        .unwrap()
        .items
        .iter()
        .map(|item| u64::from(item.tokens))
        .sum();
    assert_eq!(t.head(&key).await.tokens, total);
    let bad = vec![SeqRange { first: 9, last: 9 }, SeqRange { first: 8, last: 8 }];
    assert!(matches!(
        t.store.rewrite(&key, bad, None).await,
        Err(Error::Invalid(_))
    ));
    assert!(matches!(
        t.store
            .rewrite(&key, vec![SeqRange { first: 9, last: 99 }], None)
            .await,
        Err(Error::Invalid(_))
    ));
}

// S6
pub async fn deleted_contexts_are_gone(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[&said("needle")]).await;
    t.store.settle().await.unwrap();
    assert_eq!(t.store.delete(&key, None).await.unwrap(), 3);
    assert!(matches!(t.store.head(&key).await, Err(Error::NotFound)));
    assert!(matches!(
        t.store.items(&key, everything()).await,
        Err(Error::NotFound)
    ));
    assert!(matches!(t.store.tail(&key, whole()).await, Err(Error::NotFound)));
    assert!(matches!(
        t.store.append(&key, append(&[&said("x")])).await,
        Err(Error::NotFound)
    ));
    assert!(matches!(t.store.delete(&key, None).await, Err(Error::NotFound)));
    assert!(t.found("needle", None).await.is_empty());
    assert!(
        t.store
            .list(
                &t.tenant,
                ListQuery {
                    limit: 10,
                    ..ListQuery::default()
                }
            )
            .await
            .unwrap()
            .contexts
            .is_empty()
    );
}

// S6
pub async fn versions_survive_deletion(t: Subject) {
    let key = t.create("a").await;
    t.store.append(&key, keyed(&[&said("1")], "k", 1)).await.unwrap();
    let tombstone = t.store.delete(&key, None).await.unwrap();
    let again = t.store.create(&t.tenant, new("a")).await.unwrap();
    assert!(again.is_new);
    assert_eq!(again.context.version, tombstone + 1);
    assert!(t.all(&key).await.is_empty());
    assert!(
        !t.store
            .append(&key, keyed(&[&said("1")], "k", 1))
            .await
            .unwrap()
            .replayed
    );
    t.purge_all(retention_of(&t.clock)).await;
    assert_eq!(t.all(&key).await, [(1, said("1"))]);
}

pub async fn expired_contexts_are_gone(t: Subject) {
    let expires_at = Some(t.clock.now().saturating_add(Duration::from_secs(60)));
    t.store
        .create(
            &t.tenant,
            NewContext {
                expires_at,
                ..new("a")
            },
        )
        .await
        .unwrap();
    let key = t.key("a");
    t.append(&key, &[&said("needle")]).await;
    t.store.settle().await.unwrap();
    t.clock.advance(Duration::from_secs(60));
    assert!(matches!(t.store.head(&key).await, Err(Error::NotFound)));
    assert!(matches!(
        t.store.append(&key, append(&[&said("x")])).await,
        Err(Error::NotFound)
    ));
    assert!(t.found("needle", None).await.is_empty());
    let again = t.store.create(&t.tenant, new("a")).await.unwrap().context;
    assert!(again.version > 2, "{}", again.version);
    t.store
        .create(
            &t.tenant,
            NewContext {
                expires_at: Some(t.clock.now().saturating_add(Duration::from_secs(1))),
                ..new("b")
            },
        )
        .await
        .unwrap();
    t.clock.advance(Duration::from_secs(1));
    assert_eq!(t.store.purge(retention_of(&t.clock)).await.unwrap().expired, 1);
}

// S5
pub async fn tenants_do_not_meet(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[&said("needle")]).await;
    t.store.settle().await.unwrap();
    let other = TenantId::parse("other").unwrap();
    let foreign = ContextKey::new(other.clone(), key.id.clone());
    assert!(matches!(t.store.head(&foreign).await, Err(Error::NotFound)));
    assert!(matches!(
        t.store.items(&foreign, everything()).await,
        Err(Error::NotFound)
    ));
    assert!(matches!(
        t.store.tail(&foreign, whole()).await,
        Err(Error::NotFound)
    ));
    assert!(matches!(
        t.store.append(&foreign, append(&[&said("x")])).await,
        Err(Error::NotFound)
    ));
    assert!(matches!(
        t.store.replace(&foreign, append(&[&said("x")])).await,
        Err(Error::NotFound)
    ));
    assert!(matches!(
        t.store.rewrite(&foreign, vec![], None).await,
        Err(Error::NotFound)
    ));
    assert!(matches!(
        t.store.fork(&foreign, 1, new("f")).await,
        Err(Error::NotFound)
    ));
    assert!(matches!(
        t.store
            .update(
                &foreign,
                ContextPatch {
                    max_tokens: Some(1),
                    ..ContextPatch::default()
                },
                None
            )
            .await,
        Err(Error::NotFound)
    ));
    assert!(matches!(
        t.store.delete(&foreign, None).await,
        Err(Error::NotFound)
    ));
    assert!(
        t.store
            .list(
                &other,
                ListQuery {
                    limit: 10,
                    ..ListQuery::default()
                }
            )
            .await
            .unwrap()
            .contexts
            .is_empty()
    );
    assert!(
        t.store
            .search(&other, searching("needle"))
            .await
            .unwrap()
            .hits
            .is_empty()
    );
    // The same id and the same words belong to each alone.
    assert!(t.store.create(&other, new("a")).await.unwrap().is_new);
    t.append(&foreign, &[&said("needle of the other")]).await;
    t.store.settle().await.unwrap();
    assert_eq!(
        t.store
            .search(&other, searching("needle"))
            .await
            .unwrap()
            .hits
            .len(),
        1
    );
    assert_eq!(t.found("needle", None).await, [("a".to_owned(), 1)]);
    assert_eq!(t.head(&key).await.item_count, 1);
}

pub async fn lists_are_newest_first(t: Subject) {
    for id in ["a", "b", "c", "d", "e"] {
        t.create(id).await;
        if id != "c" {
            t.clock.advance(Duration::from_secs(1)); // c and d are created at the same moment
        }
    }
    let mut listed = Vec::new();
    let mut after = None;
    for _ in 0..10 {
        let page = t
            .store
            .list(
                &t.tenant,
                ListQuery {
                    after: after.clone(),
                    limit: 2,
                    ..ListQuery::default()
                },
            )
            .await
            .unwrap();
        listed.extend(page.contexts.iter().map(|context| context.id.to_string()));
        after = page.contexts.last().map(|last| ListPosition {
            created_at: last.created_at,
            id: last.id.clone(),
        });
        if !page.more {
            break;
        }
    }
    assert_eq!(listed, ["e", "d", "c", "b", "a"]);
}

pub async fn lists_filter(t: Subject) {
    let labels = |labels: &[&str]| Some(labels.iter().map(ToString::to_string).collect());
    t.store
        .create(
            &t.tenant,
            NewContext {
                labels: labels(&["x", "y"]),
                session_id: Some("s1".into()),
                ..new("a")
            },
        )
        .await
        .unwrap();
    t.store
        .create(
            &t.tenant,
            NewContext {
                labels: labels(&["x"]),
                ..new("b")
            },
        )
        .await
        .unwrap();
    t.store
        .create(
            &t.tenant,
            NewContext {
                agent_id: "coder".into(),
                ..new("c")
            },
        )
        .await
        .unwrap();
    let ids = async |query: ListQuery| -> Vec<String> {
        let page = t
            .store
            .list(&t.tenant, ListQuery { limit: 10, ..query })
            .await
            .unwrap();
        page.contexts
            .into_iter()
            .map(|context| context.id.to_string())
            .collect()
    };
    assert_eq!(
        ids(ListQuery {
            agent_id: Some("coder".into()),
            ..ListQuery::default()
        })
        .await,
        ["c"]
    );
    assert_eq!(
        ids(ListQuery {
            session_id: Some("s1".into()),
            ..ListQuery::default()
        })
        .await,
        ["a"]
    );
    assert_eq!(
        ids(ListQuery {
            labels: vec!["x".into(), "y".into()],
            ..ListQuery::default()
        })
        .await,
        ["a"]
    );
    assert_eq!(
        ids(ListQuery {
            labels: vec!["x".into()],
            ..ListQuery::default()
        })
        .await,
        ["b", "a"]
    );
    assert!(
        ids(ListQuery {
            labels: vec!["%".into()],
            ..ListQuery::default()
        })
        .await
        .is_empty()
    );
}

pub async fn searches_find(t: Subject) {
    let (a, b) = (t.create("a").await, t.create("b").await);
    t.append(
        &a,
        &[
            &said("a flight to Paris"),
            r#"{"role":"assistant","content":"Paris it is, booked"}"#,
            &said("thank you"),
        ],
    )
    .await;
    t.append(&b, &[&said("a train to Rome")]).await;
    let hit = |id: &str, seq| (id.to_owned(), seq);
    assert_eq!(t.found("paris", None).await, [hit("a", 1), hit("a", 2)]);
    assert_eq!(t.found("\"flight to\"", None).await, [hit("a", 1)]);
    assert_eq!(t.found("fli* OR train", None).await, [hit("a", 1), hit("b", 1)]);
    assert_eq!(t.found("paris -booked", None).await, [hit("a", 1)]);
    assert_eq!(t.found("to", Some("b")).await, [hit("b", 1)]);
    let by_assistant = SearchQuery {
        role: Some(Role::Assistant),
        ..searching("paris")
    };
    let page = t.store.search(&t.tenant, by_assistant).await.unwrap();
    assert_eq!(page.hits.len(), 1);
    assert_eq!(page.hits[0].snippet, "«Paris» it is, booked");
    let first = t
        .store
        .search(
            &t.tenant,
            SearchQuery {
                limit: 1,
                ..searching("paris")
            },
        )
        .await
        .unwrap();
    let second = t
        .store
        .search(
            &t.tenant,
            SearchQuery {
                limit: 1,
                offset: 1,
                ..searching("paris")
            },
        )
        .await
        .unwrap();
    assert!(first.more && !second.more && first.hits[0].item != second.hits[0].item);
}

pub async fn searches_stay_inside(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[&said("one two"), &said("three")]).await;
    let missing = SearchQuery {
        context: Some(ContextId::parse("nope").unwrap()),
        ..searching("one")
    };
    assert!(matches!(
        t.store.search(&t.tenant, missing).await,
        Err(Error::NotFound)
    ));
    for hostile in [
        "scope:t1 one",
        "body : nothing",
        "one\" OR \"three",
        "one AND NOT two",
        "NEAR(one two)",
        "-two one",
        "^one + *",
    ] {
        // Whatever it means, it is not an error of ours and finds nothing outside.
        if let Ok(query) = Query::parse(hostile) {
            t.store
                .search(
                    &t.tenant,
                    SearchQuery {
                        query,
                        ..searching("x")
                    },
                )
                .await
                .unwrap();
        }
    }
}

pub async fn purges_remove_what_nothing_reaches(t: Subject) {
    let key = t.create("a").await;
    let bodies: Vec<String> = (1..=20).map(|n| said(&format!("word{n}"))).collect();
    t.append(&key, &bodies.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    t.store.settle().await.unwrap();
    t.store.fork(&key, 5, new("f")).await.unwrap();
    t.store.delete(&key, None).await.unwrap();
    assert_eq!(t.purge_all(retention_of(&t.clock)).await, expected_purge(&t, 15));
    assert_eq!(t.purge_all(retention_of(&t.clock)).await, 0);
    t.store.delete(&t.key("f"), None).await.unwrap();
    assert_eq!(t.purge_all(retention_of(&t.clock)).await, expected_purge(&t, 5));
}

pub async fn purges_forget_keys_and_tombstones(t: Subject) {
    let (a, b) = (t.create("a").await, t.create("b").await);
    t.store.append(&a, keyed(&[&said("1")], "k", 1)).await.unwrap();
    t.append(&b, &[&said("2")]).await;
    t.store.delete(&b, None).await.unwrap();
    t.purge_all(retention_of(&t.clock)).await;
    assert!(
        t.store
            .append(&a, keyed(&[&said("1")], "k", 1))
            .await
            .unwrap()
            .replayed
    );
    t.clock.advance(Duration::from_secs(7200));
    let mut purged = t
        .store
        .purge(Retention {
            batch: 100,
            ..retention_of(&t.clock)
        })
        .await
        .unwrap();
    assert_eq!(purged.keys, 1);
    if purged.tombstones == 0 {
        purged = t
            .store
            .purge(Retention {
                batch: 100,
                ..retention_of(&t.clock)
            })
            .await
            .unwrap();
    }
    assert_eq!(purged.tombstones, 1);
    assert!(
        !t.store
            .append(&a, keyed(&[&said("1")], "k", 1))
            .await
            .unwrap()
            .replayed
    );
    assert_eq!(
        t.store.create(&t.tenant, new("b")).await.unwrap().context.version,
        1
    );
}

// G2: appends without a condition commute.
pub async fn writers_at_once_all_succeed(t: Subject) {
    let keys = [t.create("a").await, t.create("b").await];
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..20 {
        for key in &keys {
            let (store, key) = (t.store.clone(), key.clone());
            tasks.spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0..10 {
                    let body = said(&format!("w{writer} n{n}"));
                    let appended = store.append(&key, append(&[&body])).await.unwrap();
                    acknowledged.push((appended.first_seq, body));
                }
                (key, acknowledged)
            });
        }
    }
    let mut acknowledged: std::collections::HashMap<ContextKey, Vec<(Seq, String)>> =
        std::collections::HashMap::new();
    while let Some(done) = tasks.join_next().await {
        let (key, items) = done.unwrap();
        acknowledged.entry(key).or_default().extend(items);
    }
    for (key, mut items) in acknowledged {
        items.sort();
        assert_eq!(
            t.all(&key).await,
            items,
            "what was acknowledged is what is there, in this order"
        );
        assert_eq!(t.head(&key).await.version, 201);
    }
}

pub async fn dropped_appends_do_not_block(t: Subject) {
    let key = t.create("a").await;
    for n in 0..50 {
        let body = said(&n.to_string());
        let append = t.store.append(&key, append(&[&body]));
        drop(tokio::time::timeout(Duration::ZERO, append).await);
    }
    let last = t.append(&key, &[&said("last")]).await;
    let all = t.all(&key).await;
    assert_eq!(all.last(), Some(&(last.last_seq, said("last"))));
    assert_eq!(
        all.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        (1..=last.last_seq).collect::<Vec<_>>()
    );
}
