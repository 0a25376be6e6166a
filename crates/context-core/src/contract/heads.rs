//! Heads: creating, finding, changing, versions and conditions.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;

pub async fn created_contexts_are_found(t: Subject) {
    let metadata = JsonObject::parse("metadata", r#"{"b": 1, "a":[2 ,3]}"#).unwrap();
    let asked = NewContext {
        session_id: Some("s".into()),
        model_id: Some("m".into()),
        name: Some("n".into()),
        description: Some("d".into()),
        metadata: Some(metadata.clone()),
        labels: Some(vec!["x".into(), "y".into()]),
        max_tokens: Some(77),
        truncation: Some(AutoTruncation::By(Strategy::Importance)),
        expires_at: Some(Timestamp::from_micros(i64::MAX)),
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

// Also of an id that was there before and is a tombstone.
pub async fn of_many_who_create_an_id_at_once_one_does(t: Subject) {
    for version in [1, 3] {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (store, tenant) = (t.store.clone(), t.tenant.clone());
            tasks.spawn(async move { store.create(&tenant, new("a")).await.unwrap() });
        }
        let created = tasks.join_all().await;
        assert_eq!(created.iter().filter(|created| created.is_new).count(), 1);
        let head = t.head(&t.key("a")).await;
        assert_eq!(head.version, version);
        assert!(created.iter().all(|created| created.context == head));
        t.store.delete(&t.key("a"), None).await.unwrap();
    }
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
        );
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
