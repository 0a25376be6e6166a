//! Client ids once their items are gone: a retry that comes late adds nothing (S4, G2).

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;

fn named(client_id: &str, text: &str) -> String {
    serde_json::json!({"role": "user", "content": text, "client_id": client_id}).to_string()
}

fn again(first: Appended) -> Appended {
    Appended {
        replayed: true,
        at: None,
        ..first
    }
}

/// The seq of the item that keeps an append from being stored.
async fn refused_by(t: &Subject, key: &ContextKey, bodies: &[&str]) -> Seq {
    match t.store.append(key, append(bodies)).await {
        Err(Error::ClientIdReused { seq, .. }) => seq,
        other => panic!("{other:?}"),
    }
}

pub async fn client_ids_outlive_a_replacement(t: Subject) {
    let tight = NewContext {
        max_tokens: Some(1),
        ..new("a")
    };
    assert!(t.store.create(&t.tenant, tight).await.unwrap().is_new);
    let key = t.key("a");
    let (m1, m2) = (named("m1", "one"), named("m2", "two"));
    let first = t.append(&key, &[&m1, &m2]).await;
    assert!(first.over_budget);
    t.append(&key, &[&said("3")]).await;
    t.store.replace(&key, append(&[&said("summary")])).await.unwrap();
    let roomy = ContextPatch {
        max_tokens: Some(10_000),
        ..ContextPatch::default()
    };
    t.store.update(&key, roomy, None).await.unwrap();
    let before = (t.head(&key).await, t.all(&key).await);

    assert_eq!(t.append(&key, &[&m1, &m2]).await, again(first));
    let spaced = r#"{ "client_id":"m1", "content":"one", "role":"user" }"#;
    assert_eq!(t.append(&key, &[spaced, &m2]).await, again(first));
    let conditional = Append {
        expected: Some(1),
        ..append(&[&m1, &m2])
    };
    assert_eq!(t.store.append(&key, conditional).await.unwrap(), again(first));
    let second = t.append(&key, &[&m2]).await;
    assert_eq!(
        (second.first_seq, second.version, second.over_budget),
        (2, first.version, true)
    );
    assert_eq!(refused_by(&t, &key, &[&named("m2", "not two")]).await, 2);
    assert_eq!((t.head(&key).await, t.all(&key).await), before);

    let partly = t.append(&key, &[&m1, &named("m5", "five")]).await;
    assert_eq!(
        (partly.first_seq, partly.last_seq, partly.replayed),
        (1, 5, false)
    );
    assert_eq!(
        t.all(&key).await,
        [(4, said("summary")), (5, named("m5", "five"))]
    );
}

pub async fn client_ids_outlive_every_replacement(t: Subject) {
    let key = t.create("a").await;
    let (m1, m2, m3) = (named("m1", "one"), named("m2", "two"), named("m3", "three"));
    let mut answers = vec![(&m1, t.append(&key, &[&m1]).await)];
    for body in [&m2, &m3] {
        let replaced = t.store.replace(&key, append(&[body])).await.unwrap().appended;
        answers.push((body, replaced));
        for (body, first) in &answers {
            assert_eq!(t.append(&key, &[body]).await, again(*first));
        }
    }
    let all = t.append(&key, &[&m1, &m2, &m3]).await;
    assert_eq!(
        (all.first_seq, all.last_seq, all.version, all.replayed),
        (1, 3, 4, true)
    );
    assert_eq!(t.all(&key).await, [(3, m3)]);
}

// A body is compared as long as there is one: until the purge, and as long as a fork has it.
pub async fn what_is_purged_is_known_by_its_client_id_alone(t: Subject) {
    let key = t.create("a").await;
    let mut firsts = Vec::new();
    for id in ["m1", "m2", "m3"] {
        firsts.push((id, t.append(&key, &[&named(id, "said")]).await));
    }
    let kept = vec![SeqRange { first: 2, last: 3 }];
    t.store.rewrite(&key, kept, None).await.unwrap();
    t.store.fork(&key, Seq::MAX, new("f")).await.unwrap();
    t.store.replace(&key, append(&[&said("summary")])).await.unwrap();
    let before = t.head(&key).await;
    let check = async |purged: usize| {
        for (index, (id, first)) in firsts.iter().enumerate() {
            assert_eq!(t.append(&key, &[&named(id, "said")]).await, again(*first), "{id}");
            let other = named(id, "something else");
            if index < purged {
                assert_eq!(t.append(&key, &[&other]).await, again(*first), "{id}");
            } else {
                assert_eq!(refused_by(&t, &key, &[&other]).await, first.first_seq, "{id}");
            }
        }
        assert_eq!(t.head(&key).await, before);
    };
    check(0).await;
    assert_eq!(t.purge_all(retention_of(&t.clock)).await, expected_purge(&t, 1));
    check(1).await;
    t.store.delete(&t.key("f"), None).await.unwrap();
    t.clock.advance(Duration::from_hours(48));
    assert_eq!(t.purge_all(retention_of(&t.clock)).await, expected_purge(&t, 2));
    check(3).await;
}

pub async fn a_replacement_takes_over_the_client_ids_that_it_uses(t: Subject) {
    let key = t.create("a").await;
    let (long, short, m2) = (
        named("m1", "a long story about nothing"),
        named("m1", "short"),
        named("m2", "two"),
    );
    let first = t.append(&key, &[&long, &m2]).await;
    let replaced = t.store.replace(&key, append(&[&short])).await.unwrap().appended;
    assert_eq!(t.append(&key, &[&short]).await, again(replaced));
    assert_eq!(refused_by(&t, &key, &[&long]).await, 3);
    let second = t.append(&key, &[&m2]).await;
    assert_eq!(
        (second.first_seq, second.version, second.replayed),
        (2, first.version, true)
    );
    let both = t.append(&key, &[&short, &m2]).await;
    assert_eq!(
        (both.first_seq, both.last_seq, both.version, both.replayed),
        (2, 3, 3, true)
    );

    // Put back as they are.
    let replaced = t
        .store
        .replace(&key, append(&[&short, &m2]))
        .await
        .unwrap()
        .appended;
    assert_eq!((replaced.first_seq, replaced.last_seq), (4, 5));
    t.purge_all(retention_of(&t.clock)).await;
    assert_eq!(t.append(&key, &[&short, &m2]).await, again(replaced));
    assert_eq!(refused_by(&t, &key, &[&long]).await, 4);

    // And back to what the id named first.
    let replaced = t.store.replace(&key, append(&[&long])).await.unwrap().appended;
    assert_eq!(t.append(&key, &[&long]).await, again(replaced));
    assert_eq!(refused_by(&t, &key, &[&short]).await, 6);
    assert_eq!(t.all(&key).await, [(6, long.clone())]);
    t.store.replace(&key, append(&[])).await.unwrap();
    t.purge_all(retention_of(&t.clock)).await;
    assert_eq!(t.append(&key, &[&long]).await, again(replaced));
    assert!(t.all(&key).await.is_empty());
}

pub async fn client_ids_end_with_their_context(t: Subject) {
    let m1 = named("m1", "one");
    let expires_at = Some(t.clock.now().saturating_add(Duration::from_mins(1)));
    let expiring = NewContext {
        expires_at,
        ..new("expiring")
    };
    t.store.create(&t.tenant, expiring).await.unwrap();
    let keys = [
        t.key("expiring"),
        t.create("deleted").await,
        t.create("both").await,
    ];
    for key in &keys {
        t.append(key, &[&m1]).await;
        t.store.replace(key, append(&[&said("summary")])).await.unwrap();
        assert!(t.append(key, &[&m1]).await.replayed);
    }
    let fork = t.store.fork(&keys[1], 2, new("f")).await.unwrap().context;
    let in_fork = t.append(&t.key("f"), &[&m1]).await;
    assert_eq!(
        (in_fork.replayed, in_fork.first_seq),
        (false, fork.next_seq),
        "what a fork shares has no client ids in it"
    );
    t.store.delete(&keys[1], None).await.unwrap();
    t.store
        .delete_many(&t.tenant, vec![(keys[2].id.clone(), None)])
        .await
        .remove(0)
        .unwrap();
    t.clock.advance(Duration::from_mins(1));
    for key in &keys {
        let created = t.store.create(&t.tenant, new(key.id.as_str())).await.unwrap();
        assert!(created.is_new);
        assert!(!t.append(key, &[&m1]).await.replayed);
        assert_eq!(t.all(key).await, [(1, m1.clone())]);
    }
}

// S9: the appends of a batch, and those that come at the same time, go to the store together.
pub async fn late_retries_travel_with_fresh_appends(t: Subject) {
    let keys = [t.create("a").await, t.create("b").await];
    let old: Vec<String> = (0..10).map(|n| named(&format!("old{n}"), "said")).collect();
    let mut firsts = Vec::new();
    for body in &old {
        firsts.push(t.append(&keys[0], &[body]).await);
    }
    t.store.replace(&keys[0], append(&[])).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for (n, (body, first)) in (0_u64..).zip(old.clone().into_iter().zip(firsts)) {
        let (store, tenant) = (t.store.clone(), t.tenant.clone());
        let ids = keys.clone().map(|key| key.id);
        tasks.spawn(async move {
            let [a, b] = &ids;
            let other = body.replace("said", "something else");
            let fresh = named(&format!("new{n}"), "said");
            let batch = vec![
                (a.clone(), append(&[&fresh])),
                (a.clone(), append(&[&body])),
                (b.clone(), append(&[&said("beside")])),
                (a.clone(), append(&[&other])),
                (b.clone(), append(&[&body])),
                (a.clone(), append(&[&body])),
            ];
            let outcomes = store.append_many(&tenant, batch).await;
            assert!(outcomes.iter().take(3).all(Result::is_ok), "{outcomes:?}");
            for place in [1, 5] {
                assert_eq!(*outcomes[place].as_ref().unwrap(), again(first));
            }
            assert!(
                matches!(outcomes[3], Err(Error::ClientIdReused { seq, .. }) if seq == first.first_seq),
                "{outcomes:?}"
            );
            let news = [0, 2, 4].map(|place| *outcomes[place].as_ref().unwrap());
            assert!(news.iter().all(|appended| !appended.replayed));
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for (key, items, version) in [(&keys[0], 10, 22), (&keys[1], 20, 21)] {
        let head = t.head(key).await;
        assert_eq!((head.item_count, head.version), (items, version));
    }
}
