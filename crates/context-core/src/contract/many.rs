//! Operations on many contexts: each element as if it were alone, after those before it (S9).

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;

fn id(name: &str) -> ContextId {
    ContextId::parse(name).unwrap()
}

fn ids(names: &[&str]) -> Vec<ContextId> {
    names.iter().map(|name| id(name)).collect()
}

fn expecting(bodies: &[&str], version: u64) -> Append {
    Append {
        expected: Some(version),
        ..append(bodies)
    }
}

/// Short words for outcomes, to compare whole batches.
fn told<T: Copy>(outcomes: &[crate::Result<T>], good: impl Fn(T) -> String) -> Vec<String> {
    let word = |outcome: &crate::Result<T>| match outcome {
        Ok(value) => good(*value),
        Err(error) => error.code().to_owned(),
    };
    outcomes.iter().map(word).collect()
}

fn place(appended: Appended) -> String {
    let replayed = if appended.replayed { " again" } else { "" };
    format!(
        "{}-{} v{}{replayed}",
        appended.first_seq, appended.last_seq, appended.version
    )
}

pub async fn heads_come_in_the_order_of_the_ids(t: Subject) {
    let (a, b) = (t.create("a").await, t.create("b").await);
    t.append(&b, &[&said("1")]).await;
    let gone = t.create("gone").await;
    t.store.delete(&gone, None).await.unwrap();
    let expires_at = Some(t.clock.now().saturating_add(Duration::from_mins(1)));
    let expiring = NewContext {
        expires_at,
        ..new("expired")
    };
    t.store.create(&t.tenant, expiring).await.unwrap();
    t.clock.advance(Duration::from_mins(1));

    let asked = ids(&["b", "never", "a", "gone", "b", "expired"]);
    let heads = t.store.heads(&t.tenant, &asked).await.unwrap();
    let (a, b) = (t.head(&a).await, t.head(&b).await);
    assert_eq!(
        heads,
        [Some(b.clone()), None, Some(a), None, Some(b), None],
        "the same id may stand twice, and what is missing has its place"
    );
    assert!(t.store.heads(&t.tenant, &[]).await.unwrap().is_empty());
}

pub async fn appends_of_many_have_their_own_outcomes(t: Subject) {
    let (a, b) = (t.create("a").await, t.create("b").await);
    t.append(&a, &[r#"{"role":"user","content":"1","client_id":"m1"}"#])
        .await;
    t.store.append(&a, keyed(&[&said("2")], "k", 1)).await.unwrap();
    let batch = vec![
        (id("a"), append(&[&said("3"), &said("4")])),
        (id("never"), append(&[&said("x")])),
        (id("b"), expecting(&[&said("x")], 9)),
        (id("a"), keyed(&[&said("2")], "k", 1)),
        (id("a"), keyed(&[&said("x")], "k", 2)),
        (
            id("a"),
            append(&[r#"{"role":"user","content":"x","client_id":"m1"}"#]),
        ),
        (
            id("b"),
            Append {
                tokenizer: Tokenizer::O200kBase,
                ..append(&[&said("x")])
            },
        ),
        (
            id("a"),
            append(&[r#"{"role":"user","content":"1","client_id":"m1"}"#]),
        ),
        (id("b"), append(&[&said("1")])),
    ];
    let outcomes = t.store.append_many(&t.tenant, batch).await;
    assert_eq!(
        told(&outcomes, place),
        [
            "3-4 v4",
            "not_found",
            "version_mismatch",
            "2-2 v3 again",
            "idempotency_key_reused",
            "client_id_reused",
            "internal",
            "1-1 v2 again",
            "1-1 v2",
        ]
    );
    assert!(matches!(
        outcomes.get(2),
        Some(Err(Error::VersionMismatch {
            expected: 9,
            actual: 1
        }))
    ));
    assert!(matches!(
        outcomes.get(6),
        Some(Err(Error::TokenizerMismatch {
            actual: Tokenizer::Estimate
        }))
    ));
    assert_eq!(t.all(&a).await.len(), 4, "what was refused added nothing");
    assert_eq!(t.all(&b).await, [(1, said("1"))]);
    assert_eq!((t.head(&a).await.version, t.head(&b).await.version), (4, 2));
    assert!(t.store.append_many(&t.tenant, Vec::new()).await.is_empty());
}

pub async fn appends_of_many_keep_their_order(t: Subject) {
    let keys = [t.create("a").await, t.create("b").await, t.create("c").await];
    // The appends to `c` each name the version that the one before makes; those to `b` have keys.
    let contexts = ["a", "b", "c"].into_iter().cycle();
    let batch: Vec<_> = (0..60_u64)
        .zip(contexts)
        .map(|(n, context)| {
            let body = said(&n.to_string());
            let one = match context {
                "c" => expecting(&[&body], 1 + n / 3),
                "b" => keyed(&[&body], &format!("k{}", n / 3), 1),
                _ => append(&[&body]),
            };
            (id(context), one)
        })
        .collect();
    let outcomes = t.store.append_many(&t.tenant, batch.clone()).await;
    for (n, outcome) in (0..60_u64).zip(outcomes) {
        let appended = outcome.unwrap();
        assert_eq!(
            (appended.first_seq, appended.version),
            (1 + n / 3, 2 + n / 3),
            "append {n}"
        );
    }
    for (key, first) in keys.iter().zip(0_u64..) {
        let expected: Vec<_> = (0..20_u64)
            .map(|n| (n + 1, said(&(n * 3 + first).to_string())))
            .collect();
        assert_eq!(t.all(key).await, expected);
    }
    // The whole batch again: keys answer what they answered, conditions fail, the rest is added.
    let again = t.store.append_many(&t.tenant, batch).await;
    for (n, outcome) in (0..60_u64).zip(again) {
        match n % 3 {
            0 => assert_eq!(outcome.unwrap().first_seq, 21 + n / 3),
            1 => {
                let appended = outcome.unwrap();
                assert!(appended.replayed);
                assert_eq!(appended.first_seq, 1 + n / 3);
            }
            _ => assert!(matches!(outcome, Err(Error::VersionMismatch { actual: 21, .. }))),
        }
    }
}

pub async fn a_key_twice_in_a_batch_is_used_once(t: Subject) {
    let key = t.create("a").await;
    let named = r#"{"role":"user","content":"n","client_id":"m1"}"#;
    let batch = vec![
        (id("a"), keyed(&[&said("1")], "k", 1)),
        (id("a"), keyed(&[&said("1")], "k", 1)),
        (id("a"), keyed(&[&said("2")], "k", 2)),
        (id("a"), append(&[named])),
        (id("a"), append(&[named])),
    ];
    let outcomes = t.store.append_many(&t.tenant, batch).await;
    assert_eq!(
        told(&outcomes, place),
        [
            "1-1 v2",
            "1-1 v2 again",
            "idempotency_key_reused",
            "2-2 v3",
            "2-2 v3 again"
        ]
    );
    assert_eq!(t.all(&key).await.len(), 2);
}

pub async fn deletes_of_many_have_their_own_outcomes(t: Subject) {
    for name in ["a", "b", "c", "stays"] {
        let key = t.create(name).await;
        t.append(&key, &[&said("needle")]).await;
    }
    t.store.settle().await.unwrap();
    let batch = vec![
        (id("b"), None),
        (id("never"), None),
        (id("stays"), Some(9)),
        (id("a"), Some(1)),
        (id("a"), Some(2)),
        (id("b"), None),
        (id("a"), Some(2)),
        (id("stays"), Some(1)),
        (id("c"), Some(2)),
    ];
    let outcomes = t.store.delete_many(&t.tenant, batch).await;
    assert_eq!(
        told(&outcomes, |version| format!("v{version}")),
        [
            "v3",
            "not_found",
            "version_mismatch",
            "version_mismatch",
            "v3",
            "not_found",
            "not_found",
            "version_mismatch",
            "v3",
        ]
    );
    assert!(matches!(
        outcomes.get(3),
        Some(Err(Error::VersionMismatch {
            expected: 1,
            actual: 2
        }))
    ));
    for name in ["a", "b", "c"] {
        assert!(matches!(t.store.head(&t.key(name)).await, Err(Error::NotFound)));
    }
    assert_eq!(t.head(&t.key("stays")).await.version, 2);
    assert_eq!(t.found("needle", None).await, [("stays".to_owned(), 1)]);
    assert!(t.store.delete_many(&t.tenant, Vec::new()).await.is_empty());
}

// S6
pub async fn deletes_of_many_leave_what_one_leaves(t: Subject) {
    let (a, b) = (t.create("a").await, t.create("b").await);
    t.append(&a, &[&said("1"), &said("2")]).await;
    t.store.append(&b, keyed(&[&said("3")], "k", 1)).await.unwrap();
    t.append(&b, &[r#"{"role":"user","content":"4","client_id":"m1"}"#])
        .await;
    t.store.fork(&a, 1, new("fork")).await.unwrap();
    let deletes = vec![(id("a"), None), (id("b"), None)];
    let outcomes = t.store.delete_many(&t.tenant, deletes).await;
    let versions: Vec<u64> = outcomes.into_iter().map(|outcome| outcome.unwrap()).collect();
    assert_eq!(versions, [3, 4]);
    let purged = t.purge_all(retention_of(&t.clock)).await;
    assert_eq!(
        purged,
        expected_purge(&t, 3),
        "what a fork shares stays, the rest is removed"
    );
    assert_eq!(t.all(&t.key("fork")).await, [(1, said("1"))]);

    let again = t.store.create(&t.tenant, new("b")).await.unwrap();
    assert_eq!((again.is_new, again.context.version), (true, 5));
    let keyed = t.store.append(&b, keyed(&[&said("3")], "k", 1)).await.unwrap();
    let named = t
        .append(&b, &[r#"{"role":"user","content":"4","client_id":"m1"}"#])
        .await;
    assert!(!keyed.replayed && !named.replayed, "keys end with their context");
    assert_eq!(t.all(&b).await.len(), 2);
}

// S5
pub async fn many_stay_inside_their_tenant(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[&said("1")]).await;
    let other = TenantId::parse("other").unwrap();
    assert_eq!(t.store.heads(&other, &ids(&["a"])).await.unwrap(), [None]);
    let appends = vec![(id("a"), append(&[&said("x")]))];
    let outcomes = t.store.append_many(&other, appends.clone()).await;
    assert_eq!(told(&outcomes, place), ["not_found"]);
    let outcomes = t.store.delete_many(&other, vec![(id("a"), None)]).await;
    assert_eq!(told(&outcomes, |version| version.to_string()), ["not_found"]);
    assert_eq!(t.all(&key).await, [(1, said("1"))]);

    // The same id, of both.
    t.store.create(&other, new("a")).await.unwrap();
    let outcomes = t.store.append_many(&other, appends).await;
    assert_eq!(told(&outcomes, place), ["1-1 v2"]);
    let outcomes = t.store.delete_many(&other, vec![(id("a"), None)]).await;
    assert_eq!(told(&outcomes, |version| version.to_string()), ["3"]);
    let heads = t.store.heads(&t.tenant, &ids(&["a"])).await.unwrap();
    assert_eq!(heads, [Some(t.head(&key).await)]);
    assert_eq!(t.all(&key).await, [(1, said("1"))]);
}
