//! Streams: forks, replacements, rewrites.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;

pub async fn forks_share_and_part(t: Subject) {
    let parent = t.create("a").await;
    t.append(&parent, &[&said("1"), &said("2"), &said("3")]).await;
    let fork = t.store.fork(&parent, 2, new("f")).await.unwrap();
    assert!(fork.is_new);
    assert_eq!(fork.parent_stream, Some(t.head(&parent).await.stream));
    let again = t.store.fork(&parent, 2, new("f")).await.unwrap();
    assert_eq!((again.is_new, again.parent_stream), (false, None));
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
    let other = NewContext {
        tokenizer: Some(Tokenizer::O200kBase),
        ..new("g")
    };
    assert!(matches!(
        t.store.fork(&parent, 1, other).await,
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
    t.clock.advance(Duration::from_hours(2));
    assert_eq!(t.purge_all(retention_of(&t.clock)).await, expected_purge(&t, 1));
    assert_eq!(t.all(&t.key("f")).await, [(1, said("1")), (2, said("2"))]);
    assert_eq!(
        t.found("1 OR 2 OR 3", None).await,
        [("f".to_owned(), 1), ("f".to_owned(), 2)]
    );
}

pub async fn forks_are_listed_and_remember_their_parent(t: Subject) {
    let parent = t.create("a").await;
    t.append(&parent, &[&said("1"), &said("2"), &said("3")]).await;
    assert_eq!(t.head(&parent).await.forked_from, None);
    for (id, at) in [("f1", 2), ("f2", Seq::MAX), ("f3", 0)] {
        t.clock.advance(Duration::from_secs(1));
        let fork = t.store.fork(&parent, at, new(id)).await.unwrap().context;
        let forked_from = crate::ForkedFrom {
            id: parent.id.clone(),
            at_seq: at.min(3),
        };
        assert_eq!(fork.forked_from.as_ref(), Some(&forked_from));
        assert_eq!(t.head(&t.key(id)).await, fork);
    }
    t.store.fork(&t.key("f1"), 1, new("g")).await.unwrap();
    let forks = async |id: &str, limit| {
        let query = ListQuery {
            forked_from: Some(ContextId::parse(id).unwrap()),
            limit,
            ..ListQuery::default()
        };
        let page = t.store.list(&t.tenant, query).await.unwrap();
        let ids: Vec<String> = page
            .contexts
            .iter()
            .map(|context| context.id.to_string())
            .collect();
        (ids, page.more)
    };
    assert_eq!(
        forks("a", 10).await,
        (vec!["f3".into(), "f2".into(), "f1".into()], false)
    );
    assert_eq!(forks("a", 2).await, (vec!["f3".into(), "f2".into()], true));
    assert_eq!(forks("f1", 10).await, (vec!["g".into()], false));
    assert_eq!(forks("g", 10).await, (vec![], false));
    t.store.delete(&parent, None).await.unwrap();
    t.store.delete(&t.key("f2"), None).await.unwrap();
    t.purge_all(retention_of(&t.clock)).await;
    assert_eq!(
        forks("a", 10).await.0,
        ["f3", "f1"],
        "the parent is gone, its name is not"
    );
    assert_eq!(t.all(&t.key("f1")).await, [(1, said("1")), (2, said("2"))]);
    let again = t.store.create(&t.tenant, new("f2")).await.unwrap();
    assert_eq!((again.is_new, again.context.forked_from), (true, None));
    let other = TenantId::parse("other").unwrap();
    let query = ListQuery {
        forked_from: Some(parent.id.clone()),
        limit: 10,
        ..ListQuery::default()
    };
    assert!(
        t.store.list(&other, query).await.unwrap().contexts.is_empty(),
        "S5"
    );
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
    t.append(&key, &[&said("alpha"), &said("beta")]).await;
    let made = t.store.replace(&key, append(&[&said("gamma")])).await.unwrap();
    let replaced = made.appended;
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
    assert_eq!(made.head, Some(head));
    assert!(t.found("alpha OR beta", None).await.is_empty());
    let emptied = t.store.replace(&key, append(&[])).await.unwrap();
    let head = t.head(&key).await;
    assert_eq!((head.item_count, emptied.appended.tokens), (0, 0));
    assert_eq!(emptied.head, Some(head));
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

// G3: what a cache holds of a stream stays right as long as the head names the same one.
pub async fn streams_are_numbered(t: Subject) {
    let key = t.create("a").await;
    let first = t.head(&key).await.stream;
    let appended = t.append(&key, &[&said("1"), &said("2")]).await;
    let head = t.head(&key).await;
    assert_eq!(head.stream, first);
    if let Some(at) = appended.at {
        assert_eq!(head.updated_at, at.max(head.created_at));
        let page = t.store.items(&key, everything()).await.unwrap();
        assert!(page.items.iter().all(|item| item.created_at == at));
    }
    let patch = ContextPatch {
        name: Some(Some("n".to_owned())),
        ..ContextPatch::default()
    };
    assert_eq!(t.store.update(&key, patch, None).await.unwrap().stream, first);
    let fork = t.store.fork(&key, 1, new("f")).await.unwrap().context.stream;
    assert_ne!(fork, first);
    let range = SeqRange { first: 2, last: 2 };
    let rewritten = t.store.rewrite(&key, vec![range], None).await.unwrap().stream;
    assert_ne!(rewritten, first);
    assert_eq!(t.head(&key).await.stream, rewritten);
    t.store.replace(&key, append(&[&said("3")])).await.unwrap();
    let replaced = t.head(&key).await.stream;
    t.store.delete(&key, None).await.unwrap();
    t.create("a").await;
    let all = [first, fork, rewritten, replaced, t.head(&key).await.stream];
    let different: std::collections::HashSet<u64> = all.into_iter().collect();
    assert_eq!(different.len(), all.len(), "{all:?}");
}
