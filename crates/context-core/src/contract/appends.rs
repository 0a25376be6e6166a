//! Appends: order, bytes, exactly once, many writers.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;

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
    assert_eq!(once(again), once(first));
    assert!(matches!(
        t.store.append(&key, keyed(&[&said("9")], "k", 9)).await,
        Err(Error::IdempotencyKeyReused)
    ));
    assert_eq!(t.all(&key).await.len(), 2);
    let replaced = t.store.replace(&key, keyed(&[&said("r")], "r", 3)).await.unwrap();
    assert_eq!(replaced.head, Some(t.head(&key).await));
    let again = t.store.replace(&key, keyed(&[&said("r")], "r", 3)).await.unwrap();
    assert!(again.appended.replayed && again.head.is_none());
    assert_eq!(once(again.appended), once(replaced.appended));
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
    assert_eq!(once(again), once(first));
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
    assert_eq!(once(t.store.append(&key, request).await.unwrap()), once(first));
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
