//! Reads: pages, tails, lists.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;

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
    assert_eq!(tail.before, Some(Kind::Message));
    let tail = t.store.tail(&key, whole()).await.unwrap();
    assert_eq!((tail.kept.len(), tail.run.len(), tail.before), (0, 5, None));
}

pub async fn what_is_kept_is_bounded_by_bytes(t: Subject) {
    let key = t.create("a").await;
    let text = "x".repeat((1 << 20) - 100);
    let pinned = format!(r#"{{"role":"user","content":"{text}","pinned":true}}"#);
    for _ in 0..3 {
        t.append(&key, &[&pinned]).await;
    }
    t.append(&key, &[&said("1")]).await;
    let (one, bytes) = (pinned.len() as u64, |bytes_max| TailQuery {
        items_max: 10,
        max_tokens: Some(100),
        bytes_max,
        ..whole()
    });
    let tail = t.store.tail(&key, bytes(3 * one)).await.unwrap();
    assert_eq!((tail.kept.len(), tail.run.len()), (3, 1));
    let outcome = t.store.tail(&key, bytes(3 * one - 1)).await;
    let Err(Error::TooLarge { actual, limit, .. }) = outcome else {
        panic!("three megabytes were answered: {outcome:?}");
    };
    assert_eq!((actual, limit), (3 * one, 3 * one - 1));
    // What comes after the bound is not looked at.
    let outcome = t.store.tail(&key, bytes(one)).await;
    assert!(
        matches!(outcome, Err(Error::TooLarge { actual, .. }) if actual == 2 * one),
        "{outcome:?}"
    );
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
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(ToString::to_string).collect() };
    let of_session = NewContext {
        labels: Some(words(&["x", "y"])),
        session_id: Some("s1".into()),
        ..new("a")
    };
    let labelled = NewContext {
        labels: Some(words(&["x"])),
        ..new("b")
    };
    let of_agent = NewContext {
        agent_id: "coder".into(),
        ..new("c")
    };
    for context in [of_session, labelled, of_agent] {
        t.store.create(&t.tenant, context).await.unwrap();
    }
    for (agent, session, labels, expected) in [
        (Some("coder"), None, vec![], vec!["c"]),
        (None, Some("s1"), vec![], vec!["a"]),
        (None, None, vec!["x", "y"], vec!["a"]),
        (None, None, vec!["x"], vec!["b", "a"]),
        (None, None, vec!["%"], vec![]),
        (Some("coder"), Some("s1"), vec![], vec![]),
    ] {
        let query = ListQuery {
            agent_id: agent.map(str::to_owned),
            session_id: session.map(str::to_owned),
            labels: words(&labels),
            limit: 10,
            ..ListQuery::default()
        };
        let page = t.store.list(&t.tenant, query).await.unwrap();
        let ids: Vec<&str> = page.contexts.iter().map(|context| context.id.as_str()).collect();
        assert_eq!(ids, expected, "{agent:?} {session:?} {labels:?}");
    }
}
