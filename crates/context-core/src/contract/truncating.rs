//! Truncations, through the manager: what is dropped is gone everywhere, what stays is as it was.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;
use crate::manager::{AppendRequest, ContextManager, TruncateRequest};
use crate::settings::LimitSettings;
use crate::truncate::{AutoTruncation, Strategy};
use crate::{StandardContextManager, WindowRequest};

fn manager(t: &Subject) -> StandardContextManager {
    StandardContextManager::new(t.store.clone(), LimitSettings::default())
}

/// Six turns of four items: a question, a call, its result, an answer. One word is in one turn only.
async fn filled(t: &Subject, id: &str) -> ContextKey {
    let key = t.create(id).await;
    t.append(&key, &[r#"{ "role":"system", "content":"be kind"}"#])
        .await;
    for turn in 1..=6 {
        let call = serde_json::json!({"role": "assistant", "content": null, "tool_calls": [{"id": format!("c{turn}"),
            "type": "function", "function": {"name": "look", "arguments": format!("{{\"what\":\"called{turn}\"}}")}}]});
        let result = serde_json::json!({"role": "tool", "tool_call_id": format!("c{turn}"),
            "content": format!("returned{turn} {}", "filler ".repeat(40))});
        let answer = serde_json::json!({"role": "assistant", "content": format!("answered{turn} plainly"),
            "importance": f64::from(turn % 3) / 2.0});
        t.append(
            &key,
            &[
                &said(&format!("asked{turn} something")),
                &call.to_string(),
                &result.to_string(),
                &answer.to_string(),
            ],
        )
        .await;
    }
    key
}

pub async fn truncations_leave_the_rest_as_it_was(t: Subject) {
    let manager = manager(&t);
    for strategy in Strategy::ALL {
        let key = filled(&t, strategy.as_str()).await;
        let before = t.all(&key).await;
        let head = t.head(&key).await;
        let request = TruncateRequest {
            max_tokens: head.tokens / 2,
            strategy,
            query: (strategy == Strategy::Relevance).then(|| "asked2 returned5".to_owned()),
            ..TruncateRequest::default()
        };
        let dry = TruncateRequest {
            dry_run: true,
            ..request.clone()
        };
        let dry = manager.truncate(&key, dry).await.unwrap().value;
        assert_eq!(
            t.all(&key).await,
            before,
            "{strategy:?}: a dry run changes nothing"
        );
        let done = manager.truncate(&key, request.clone()).await.unwrap().value;
        assert_eq!(
            (dry.dropped_items, dry.dropped_tokens, &dry.dropped_ranges),
            (done.dropped_items, done.dropped_tokens, &done.dropped_ranges),
            "{strategy:?}: the dry run told the truth"
        );
        assert!(
            done.context.tokens <= head.tokens / 2 && done.dropped_items > 0,
            "{strategy:?}"
        );
        assert_eq!(done.context, t.head(&key).await);

        let is_dropped = |seq: &Seq| {
            done.dropped_ranges
                .iter()
                .any(|range| (range.first..=range.last).contains(seq))
        };
        let (gone, stays): (Vec<_>, Vec<_>) = before.into_iter().partition(|(seq, _)| is_dropped(seq));
        assert_eq!(gone.len() as u64, done.dropped_items);
        assert_eq!(t.all(&key).await, stays, "{strategy:?}: byte for byte");
        let request_all = WindowRequest {
            max_tokens: Some(u64::from(u32::MAX)),
            ..WindowRequest::default()
        };
        let window = manager.window(&key, request_all).await.unwrap().value;
        let shown: Vec<(Seq, String)> = window
            .items
            .iter()
            .map(|item| (item.seq, item.body.to_string()))
            .collect();
        assert_eq!(shown, stays, "{strategy:?}: the window");
        found_if_kept(&t, strategy.as_str(), &gone, &stays).await;

        let again = manager.truncate(&key, request).await.unwrap().value;
        assert_eq!(
            (again.dropped_items, again.context.version),
            (0, done.context.version)
        );
    }
}

/// Each item has a word of its own; it is found exactly if the item stays.
async fn found_if_kept(t: &Subject, id: &str, gone: &[(Seq, String)], stays: &[(Seq, String)]) {
    let word = |body: &str| -> Option<String> {
        let at = ["asked", "called", "returned", "answered"]
            .iter()
            .find_map(|word| body.find(word));
        Some(
            body.chars()
                .skip(at?)
                .take_while(|c| c.is_alphanumeric())
                .collect(),
        )
    };
    for (seq, body) in gone {
        if let Some(word) = word(body) {
            assert!(t.found(&word, Some(id)).await.is_empty(), "{seq} {word}");
        }
    }
    for (seq, body) in stays {
        if let Some(word) = word(body) {
            assert_eq!(t.found(&word, Some(id)).await, [(id.to_owned(), *seq)], "{word}");
        }
    }
}

/// Appends turns of a question and an answer until a context has been over its budget several times.
async fn overfilled(t: &Subject, id: &str, truncation: AutoTruncation) -> (ContextKey, u64) {
    let context = NewContext {
        truncation: Some(truncation),
        max_tokens: Some(400),
        ..new(id)
    };
    assert!(t.store.create(&t.tenant, context).await.unwrap().is_new);
    let (key, manager) = (t.key(id), manager(t));
    for turn in 0..30 {
        let answer = serde_json::json!({"role": "assistant", "content": format!("answer {turn} {}", "word ".repeat(10))});
        let bodies = [said(&format!("question {turn}")), answer.to_string()];
        let items = bodies.map(|body| NewItem::parse(&body, 1 << 20).unwrap()).into();
        let request = AppendRequest {
            items,
            expected: None,
            idempotency_key: None,
        };
        let appended = manager.append(&key, request).await.unwrap().value;
        assert_eq!(appended.last_seq, 2 * turn + 2);
        manager.settled().await;
    }
    (key, 400)
}

pub async fn contexts_truncate_themselves_as_they_want(t: Subject) {
    for strategy in Strategy::ALL {
        let (key, budget) = overfilled(&t, strategy.as_str(), AutoTruncation::By(strategy)).await;
        let head = t.head(&key).await;
        assert_eq!(head.truncation, AutoTruncation::By(strategy));
        assert!(head.tokens <= budget, "{strategy:?}: {}", head.tokens);
        assert!(
            head.tokens > budget / 2,
            "{strategy:?}: no more than needed, {}",
            head.tokens
        );
        let kept = t.all(&key).await;
        assert_eq!(kept.last().unwrap().0, 60, "{strategy:?}: the newest is there");
        let questions = kept.iter().filter(|(_, body)| body.contains("question")).count();
        if strategy == Strategy::PreservingUser {
            assert!(
                questions > kept.len() / 2,
                "{strategy:?}: {questions} of {}",
                kept.len()
            );
        }
    }
    let (key, budget) = overfilled(&t, "none", AutoTruncation::None).await;
    let head = t.head(&key).await;
    assert_eq!((head.truncation, head.item_count), (AutoTruncation::None, 60));
    assert!(head.tokens > budget);
}

pub async fn the_way_to_truncate_is_a_field_like_others(t: Subject) {
    let policy = AutoTruncation::By(Strategy::Importance);
    let asked = NewContext {
        truncation: Some(policy),
        ..new("a")
    };
    assert_eq!(
        t.store
            .create(&t.tenant, asked.clone())
            .await
            .unwrap()
            .context
            .truncation,
        policy
    );
    assert!(!t.store.create(&t.tenant, asked).await.unwrap().is_new);
    assert!(
        !t.store.create(&t.tenant, new("a")).await.unwrap().is_new,
        "nothing said, nothing differs"
    );
    let other = NewContext {
        truncation: Some(AutoTruncation::None),
        ..new("a")
    };
    assert!(matches!(
        t.store.create(&t.tenant, other).await,
        Err(Error::ContextDiffers { field: "truncation" })
    ));
    let fork = t
        .store
        .fork(&t.key("a"), Seq::MAX, new("f"))
        .await
        .unwrap()
        .context;
    assert_eq!(fork.truncation, policy, "a fork does as its parent");
    let patch = ContextPatch {
        truncation: Some(AutoTruncation::None),
        ..ContextPatch::default()
    };
    t.store.update(&t.key("a"), patch, None).await.unwrap();
    assert_eq!(t.head(&t.key("a")).await.truncation, AutoTruncation::None);
    assert_eq!(t.head(&t.key("f")).await.truncation, policy);
}

pub async fn truncations_are_conditional(t: Subject) {
    let manager = manager(&t);
    let key = filled(&t, "a").await;
    let head = t.head(&key).await;
    for strategy in Strategy::ALL {
        let request = TruncateRequest {
            max_tokens: head.tokens / 2,
            strategy,
            query: (strategy == Strategy::Relevance).then(|| "asked2".to_owned()),
            expected: Some(head.version - 1),
            dry_run: false,
        };
        let refused = manager.truncate(&key, request.clone()).await;
        assert!(
            matches!(refused, Err(Error::VersionMismatch { .. })),
            "{refused:?}"
        );
        let small = TruncateRequest {
            max_tokens: 1,
            expected: None,
            ..request.clone()
        };
        let refused = manager.truncate(&key, small).await;
        assert!(
            matches!(refused, Err(Error::BudgetTooSmall { .. })),
            "{refused:?}"
        );
        let query = match request.query {
            None => Some("a query where none belongs".to_owned()),
            Some(_) => None,
        };
        let refused = manager.truncate(&key, TruncateRequest { query, ..request }).await;
        assert!(
            matches!(&refused, Err(Error::Invalid(invalid)) if invalid.field == "query"),
            "{refused:?}"
        );
    }
    assert_eq!(t.head(&key).await, head, "nothing happened");
}
