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
        expected: None,
        dry_run: false,
    };
    let truncation = manager.truncate(&key, request).await.unwrap().value;
    assert_eq!(truncation.dropped_items, 0);
    assert_eq!(truncation.context.item_count, u64::from(window::ITEMS_MAX) + 1000);
}
