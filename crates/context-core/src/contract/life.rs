//! The end of contexts: deletion, expiry, purge; and the walls between tenants.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;

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
    let expires_at = Some(t.clock.now().saturating_add(Duration::from_mins(1)));
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
    t.clock.advance(Duration::from_mins(1));
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
    let patch = ContextPatch {
        max_tokens: Some(1),
        ..ContextPatch::default()
    };
    let refusals = [
        t.store.head(&foreign).await.map(drop),
        t.store.items(&foreign, everything()).await.map(drop),
        t.store.tail(&foreign, whole()).await.map(drop),
        t.store.append(&foreign, append(&[&said("x")])).await.map(drop),
        t.store.replace(&foreign, append(&[&said("x")])).await.map(drop),
        t.store.rewrite(&foreign, vec![], None).await.map(drop),
        t.store.fork(&foreign, 1, new("f")).await.map(drop),
        t.store.update(&foreign, patch, None).await.map(drop),
        t.store.delete(&foreign, None).await.map(drop),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Err(Error::NotFound)), "{refusal:?}");
    }
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
}

// S5
pub async fn tenants_use_the_same_ids(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[&said("needle")]).await;
    let other = TenantId::parse("other").unwrap();
    let foreign = ContextKey::new(other.clone(), key.id.clone());
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
    t.clock.advance(Duration::from_hours(2));
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
