use super::*;
use crate::SystemClock;
use crate::fake::FakeStore;
use crate::truncate::{AutoTruncation, Strategy};

#[tokio::test]
async fn a_truncation_drops_nothing_of_a_context_that_is_longer_than_a_window_and_within_its_budget() {
    let store = Arc::new(FakeStore::new(Arc::new(SystemClock)));
    let manager = StandardContextManager::new(store, LimitSettings::default());
    let tenant = TenantId::parse("t").unwrap();
    let created = manager.create(&tenant, NewContext::of_agent("a")).await.unwrap();
    let key = ContextKey::new(tenant, created.value.context.id);
    let item = NewItem::parse(r#"{"role":"user","content":"x"}"#, 1000).unwrap();
    for _ in 0..=window::ITEMS_MAX / 1000 {
        let request = AppendRequest {
            items: vec![item.clone(); 1000],
            expected: None,
            idempotency_key: None,
        };
        manager.append(&key, request).await.unwrap();
    }
    let request = TruncateRequest {
        max_tokens: u64::MAX,
        ..TruncateRequest::default()
    };
    let truncation = manager.truncate(&key, request).await.unwrap().value;
    assert_eq!(truncation.dropped_items, 0);
    assert_eq!(truncation.context.item_count, u64::from(window::ITEMS_MAX) + 1000);
}

// G2: the append comes between the choice, which is made off the reactor, and its writing.
#[tokio::test]
async fn a_truncation_that_names_no_version_is_not_refused_for_one() {
    let store = Arc::new(FakeStore::new(Arc::new(SystemClock)));
    let manager = StandardContextManager::new(store, LimitSettings::default());
    let tenant = TenantId::parse("t").unwrap();
    let new = NewContext::of_agent("a").with_id(id("c"));
    manager.create(&tenant, new).await.unwrap();
    let key = ContextKey::new(tenant, id("c"));
    let (_, request) = long("c", 0, 20);
    manager.append(&key, request).await.unwrap();
    let request = TruncateRequest {
        max_tokens: 20_000,
        strategy: Strategy::Importance,
        ..TruncateRequest::default()
    };
    let (truncated, appended) = tokio::join!(
        manager.truncate(&key, request),
        say(&manager, &key, r#"{"role":"user","content":"meanwhile"}"#)
    );
    assert_eq!(appended.first_seq, 21);
    let context = truncated.unwrap().value.context;
    assert!(context.tokens <= 20_000 && context.next_seq == 22, "{context:?}");
}

fn id(name: &str) -> ContextId {
    ContextId::parse(name).unwrap()
}

/// An append of items that are counted off the reactor.
fn long(context: &str, n: usize, items: usize) -> (ContextId, AppendRequest) {
    let text = "unbelievably ".repeat(2000);
    let body = serde_json::json!({"role": "user", "content": format!("{n} {text}")}).to_string();
    let request = AppendRequest {
        items: vec![NewItem::parse(&body, 1 << 20).unwrap(); items],
        expected: None,
        idempotency_key: None,
    };
    (id(context), request)
}

#[tokio::test]
async fn a_batch_counts_each_append_as_its_context_counts_and_keeps_the_order() {
    let store = Arc::new(FakeStore::new(Arc::new(SystemClock)));
    let limits = LimitSettings {
        append_items: 2,
        ..LimitSettings::default()
    };
    let manager = StandardContextManager::new(store, limits);
    let tenant = TenantId::parse("t").unwrap();
    for (name, tokenizer) in [("a", Tokenizer::Estimate), ("b", Tokenizer::default())] {
        let new = NewContext {
            tokenizer: Some(tokenizer),
            ..NewContext::of_agent("x").with_id(id(name))
        };
        manager.create(&tenant, new).await.unwrap();
    }
    let batch = ["a", "b", "a", "b", "a"].iter().enumerate();
    let mut requests: Vec<_> = batch.map(|(n, context)| long(context, n, 1)).collect();
    requests.insert(2, long("a", 9, 3));
    requests.insert(3, long("b", 9, 0));
    let answer = manager.append_many(&tenant, requests).await;
    let seqs: Vec<_> = answer
        .value
        .iter()
        .map(|outcome| match outcome {
            Ok(appended) => Ok(appended.first_seq),
            Err(error) => Err(error.code()),
        })
        .collect();
    assert_eq!(
        seqs,
        [
            Ok(1),
            Ok(1),
            Err("too_large"),
            Err("invalid"),
            Ok(2),
            Ok(2),
            Ok(3)
        ]
    );
    let query = ItemQuery {
        after: 0,
        before: Seq::MAX,
        order: crate::store::Order::Ascending,
        limit: 10,
        bytes_max: u64::MAX,
    };
    for (name, numbers) in [("a", ["0", "2", "4"].as_slice()), ("b", &["1", "3"])] {
        let key = ContextKey::from((&tenant, &id(name)));
        let single = manager.append(&key, long(name, 0, 1).1).await.unwrap();
        let page = manager.items(&key, query).await.unwrap().value;
        for (item, number) in page.items.iter().zip(numbers) {
            assert!(item.body.contains(&format!("\"content\":\"{number} ")));
            assert_eq!(
                u64::from(item.tokens),
                single.value.tokens,
                "counted as {name} counts"
            );
        }
    }
}

/// A manager, and a context in its store that is to keep to so many tokens by itself.
async fn self_truncating(max_tokens: u64, strategy: Strategy) -> (StandardContextManager, ContextKey) {
    let store = Arc::new(FakeStore::new(Arc::new(SystemClock)));
    let manager = StandardContextManager::new(store, LimitSettings::default());
    let tenant = TenantId::parse("t").unwrap();
    let new = NewContext {
        max_tokens: Some(max_tokens),
        truncation: Some(AutoTruncation::By(strategy)),
        tokenizer: Some(Tokenizer::Estimate),
        ..NewContext::of_agent("a").with_id(id("c"))
    };
    manager.create(&tenant, new).await.unwrap();
    (manager, ContextKey::new(tenant, id("c")))
}

async fn say(manager: &StandardContextManager, key: &ContextKey, body: &str) -> Appended {
    let request = AppendRequest {
        items: vec![NewItem::parse(body, 1000).unwrap()],
        expected: None,
        idempotency_key: None,
    };
    manager.append(key, request).await.unwrap().value
}

#[tokio::test]
async fn appends_succeed_while_what_must_stay_is_over_the_budget() {
    let (manager, key) = self_truncating(20, Strategy::Importance).await;
    let pinned = r#"{"role":"user","content":"this must never be forgotten by anybody here","pinned":true}"#;
    for n in 1..=10 {
        let appended = say(&manager, &key, pinned).await;
        assert_eq!((appended.last_seq, appended.version), (n, n + 1));
        manager.settled().await;
    }
    let head = manager.get(&key).await.unwrap().value;
    assert_eq!(
        (head.item_count, head.version),
        (10, 11),
        "nothing could be dropped"
    );
}

#[tokio::test]
async fn nearly_all_of_the_budget_may_be_what_must_stay() {
    let (manager, key) = self_truncating(40, Strategy::PreservingUser).await;
    let pinned = r#"{"role":"user","content":"this must never be forgotten by anybody, not here and not there, at no time whatever it is","pinned":true}"#;
    say(&manager, &key, pinned).await;
    for _ in 0..20 {
        say(&manager, &key, r#"{"role":"assistant","content":"hm"}"#).await;
        manager.settled().await;
    }
    let head = manager.get(&key).await.unwrap().value;
    assert!(
        head.tokens > AutoTruncation::target(40) && head.tokens <= 40,
        "{}",
        head.tokens
    );
    assert_eq!(head.first_seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_once_get_their_seqs_while_the_context_truncates_itself() {
    let (manager, key) = self_truncating(200, Strategy::ToolResultsFirst).await;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (manager, key) = (manager.clone(), key.clone());
        writers.spawn(async move {
            let mut seqs = Vec::new();
            for _ in 0..50 {
                let body = r#"{"role":"assistant","content":"eight words are in this one, more or less"}"#;
                seqs.push(say(&manager, &key, body).await.first_seq);
            }
            seqs
        });
    }
    let mut seqs = Vec::new();
    while let Some(done) = writers.join_next().await {
        seqs.extend(done.unwrap());
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=400).collect::<Vec<_>>());
    manager.settled().await;
    // One more, for the case that the last ones lost every race against each other.
    say(&manager, &key, r#"{"role":"user","content":"done"}"#).await;
    manager.settled().await;
    let head = manager.get(&key).await.unwrap().value;
    assert!(head.tokens <= 200, "{}", head.tokens);
    assert_eq!(head.next_seq, 402);
}
