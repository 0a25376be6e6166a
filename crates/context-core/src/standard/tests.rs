use super::*;
use crate::SystemClock;
use crate::fake::FakeStore;

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
