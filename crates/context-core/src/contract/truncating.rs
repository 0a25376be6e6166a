//! Truncations, through the manager: what is dropped is gone everywhere, what stays is as it was.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;
use crate::manager::{ContextManager, TruncateRequest};
use crate::settings::LimitSettings;
use crate::truncate::Strategy;
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
