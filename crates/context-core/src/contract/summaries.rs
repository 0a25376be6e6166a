//! Summaries: kept beside the items, gone with the context.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;
use crate::StandardContextManager;
use crate::manager::ContextManager;
use crate::settings::LimitSettings;
use crate::summary::{Kind as SummaryKind, PER_CONTEXT_MAX, PutSummary, Summary, SummaryRequest};

fn summary(t: &Subject, kind: SummaryKind, first: Seq, last: Seq, text: &str) -> Summary {
    Summary {
        kind,
        range: SeqRange { first, last },
        text: text.to_owned(),
        tokens: 7,
        source: [u8::try_from(last % 256).unwrap(); 32],
        created_at: t.clock.now(),
    }
}

pub async fn summaries_come_back_as_they_were_put(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[&said("1"), &said("2"), &said("3")]).await;
    let version = t.head(&key).await.version;
    assert!(t.store.summaries(&key).await.unwrap().is_empty());
    let late = summary(&t, SummaryKind::Extractive, 1, 3, "three \u{1F642}\nlines");
    let early = summary(&t, SummaryKind::Extractive, 1, 2, "two");
    let theirs = summary(&t, SummaryKind::External, 1, 3, "theirs");
    for one in [&late, &theirs, &early] {
        t.store.put_summary(&key, one.clone()).await.unwrap();
    }
    assert_eq!(
        t.store.summaries(&key).await.unwrap(),
        [early.clone(), late, theirs.clone()]
    );
    let newer = Summary {
        text: "newer".to_owned(),
        ..summary(&t, SummaryKind::Extractive, 1, 3, "")
    };
    t.store.put_summary(&key, newer.clone()).await.unwrap();
    assert_eq!(t.store.summaries(&key).await.unwrap(), [early, newer, theirs]);
    assert_eq!(
        t.head(&key).await.version,
        version,
        "a summary is not a change of the context"
    );

    let other = ContextKey::new(TenantId::parse("other").unwrap(), key.id.clone());
    assert!(
        matches!(t.store.summaries(&other).await, Err(Error::NotFound)),
        "S5"
    );
    let stray = summary(&t, SummaryKind::External, 1, 1, "x");
    assert!(matches!(
        t.store.put_summary(&other, stray).await,
        Err(Error::NotFound)
    ));
}

pub async fn the_oldest_summaries_make_room(t: Subject) {
    let key = t.create("a").await;
    for last in 1..=PER_CONTEXT_MAX as u64 + 3 {
        t.clock.advance(Duration::from_secs(1));
        let one = summary(&t, SummaryKind::Extractive, 1, last, "x");
        t.store.put_summary(&key, one).await.unwrap();
    }
    let left: Vec<Seq> = t
        .store
        .summaries(&key)
        .await
        .unwrap()
        .iter()
        .map(|one| one.range.last)
        .collect();
    assert_eq!(left, (4..=PER_CONTEXT_MAX as u64 + 3).collect::<Vec<_>>());
}

pub async fn summaries_outlive_their_items_and_not_their_context(t: Subject) {
    for (id, many) in [("a", false), ("b", true)] {
        let key = t.create(id).await;
        t.append(&key, &[&said("1"), &said("2"), &said("3")]).await;
        let one = summary(&t, SummaryKind::External, 1, 2, "what was said");
        t.store.put_summary(&key, one.clone()).await.unwrap();
        t.store
            .rewrite(&key, vec![SeqRange { first: 3, last: 3 }], None)
            .await
            .unwrap();
        t.purge_all(retention_of(&t.clock)).await;
        assert_eq!(
            t.store.summaries(&key).await.unwrap(),
            std::slice::from_ref(&one),
            "a truncation leaves it"
        );
        let fork = format!("fork-{id}");
        t.store.fork(&key, Seq::MAX, new(&fork)).await.unwrap();
        assert!(
            t.store.summaries(&t.key(&fork)).await.unwrap().is_empty(),
            "a fork begins without"
        );
        t.store.replace(&key, append(&[&said("other")])).await.unwrap();
        assert!(
            t.store.summaries(&key).await.unwrap().is_empty(),
            "it was of what was replaced"
        );
        t.store.put_summary(&key, one).await.unwrap();
        if many {
            let deletes = vec![(key.id.clone(), None)];
            t.store
                .delete_many(&t.tenant, deletes)
                .await
                .pop()
                .unwrap()
                .unwrap();
        } else {
            t.store.delete(&key, None).await.unwrap();
        }
        assert!(matches!(t.store.summaries(&key).await, Err(Error::NotFound)));
        t.create(id).await;
        assert!(
            t.store.summaries(&key).await.unwrap().is_empty(),
            "another context of the same id"
        );
    }
}

pub async fn a_summary_that_is_kept_stays_and_is_of_one_stream(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[&said("1"), &said("2"), &said("3")]).await;
    let stream = t.head(&key).await.stream;
    let of = async |first, last| {
        t.store
            .summaries_of(&key, SeqRange { first, last })
            .await
            .unwrap()
    };
    assert!(of(1, 2).await.is_empty());
    let first = summary(&t, SummaryKind::Model, 1, 2, "first");
    let late = summary(&t, SummaryKind::Model, 1, 2, "late");
    let kept = async |one: &Summary| t.store.keep_summary(&key, one.clone(), stream).await.unwrap();
    assert_eq!(kept(&first).await, Some(first.clone()));
    t.clock.advance(Duration::from_secs(1));
    assert_eq!(kept(&late).await, Some(first.clone()), "the first one stays");
    let ours = summary(&t, SummaryKind::Extractive, 1, 2, "ours");
    let theirs = summary(&t, SummaryKind::External, 1, 2, "theirs");
    let other = summary(&t, SummaryKind::Extractive, 1, 3, "another range");
    for one in [&theirs, &ours, &other] {
        assert_eq!(kept(one).await.as_ref(), Some(one));
    }
    assert_eq!(of(1, 2).await, [ours.clone(), first.clone(), theirs.clone()]);
    assert_eq!(
        t.store.summaries(&key).await.unwrap(),
        [ours, other, first, theirs],
        "by kind, then by range"
    );

    // Appends leave the stream; a replacement is another one, and so is what comes after a deletion.
    t.append(&key, &[&said("4")]).await;
    assert_eq!(t.head(&key).await.stream, stream);
    t.store.replace(&key, append(&[&said("other")])).await.unwrap();
    assert_eq!(kept(&late).await, None);
    t.store.delete(&key, None).await.unwrap();
    assert!(matches!(
        t.store.keep_summary(&key, late.clone(), stream).await,
        Err(Error::NotFound)
    ));
    t.create("a").await;
    t.append(&key, &[&said("1"), &said("2")]).await;
    assert_eq!(kept(&late).await, None);
    assert!(t.store.summaries(&key).await.unwrap().is_empty());
    let nobody = t.key("nobody");
    let range = SeqRange { first: 1, last: 2 };
    assert!(matches!(
        t.store.summaries_of(&nobody, range).await,
        Err(Error::NotFound)
    ));
}

/// Thirty turns about flights, each of two items.
async fn talked(t: &Subject) -> (StandardContextManager, ContextKey) {
    let manager = StandardContextManager::new(t.store.clone(), LimitSettings::default());
    let key = t.create("a").await;
    for turn in 1..=30 {
        let asked = said(&format!(
            "please change the flight HAT{turn:03} to another day in May"
        ));
        let answer = format!("I have confirmed the change number {turn} for ${turn}50.");
        let answer = serde_json::json!({"role": "assistant", "content": answer}).to_string();
        t.append(&key, &[&asked, &answer]).await;
    }
    (manager, key)
}

fn range(first: Seq, last: Seq) -> SummaryRequest {
    SummaryRequest {
        range: Some(SeqRange { first, last }),
    }
}

pub async fn a_context_is_summarised_step_by_step(t: Subject) {
    let (manager, key) = talked(&t).await;
    let ask = async |request| manager.summary(&key, request).await.unwrap().value;
    let part = ask(range(1, 20)).await.unwrap();
    assert_eq!(
        (part.kind, part.range),
        (SummaryKind::Extractive, SeqRange { first: 1, last: 20 })
    );
    assert!(
        part.text.starts_with("Goal [1]: please change the flight HAT001"),
        "{}",
        part.text
    );
    assert!(part.text.contains("Last request [19]: "), "{}", part.text);
    let whole = ask(range(1, 60)).await.unwrap();
    assert!(
        whole.text.contains("Last request [59]: ") && whole.text.contains("HAT001"),
        "{}",
        whole.text
    );
    assert!(whole.tokens <= crate::summary::TOKENS_MAX);
    assert_eq!(ask(range(1, 60)).await.unwrap(), whole, "it was kept");
    for (first, last, field) in [(0, 3, "first_seq"), (5, 4, "first_seq"), (1, 61, "last_seq")] {
        let refused = manager.summary(&key, range(first, last)).await;
        assert!(
            matches!(&refused, Err(Error::Invalid(invalid)) if invalid.field == field),
            "{refused:?}"
        );
    }
    let last = vec![SeqRange { first: 60, last: 60 }];
    t.store.rewrite(&key, last, None).await.unwrap();
    assert_eq!(ask(range(1, 60)).await.unwrap(), whole, "its items are gone");
    let nothing = manager.summary(&key, range(2, 9)).await;
    assert!(
        matches!(&nothing, Err(Error::Invalid(invalid)) if invalid.field == "first_seq"),
        "{nothing:?}"
    );
}

pub async fn a_window_may_have_a_summary_of_what_it_leaves_out(t: Subject) {
    let (manager, key) = talked(&t).await;
    let request = crate::WindowRequest {
        max_tokens: Some(600),
        summary: true,
        ..crate::WindowRequest::default()
    };
    let window = async || manager.window(&key, request).await.unwrap().value;
    let first = window().await;
    let (omitted, placed) = (first.omitted.unwrap(), first.summary.unwrap());
    assert_eq!(
        (placed.range.first, placed.range.last, placed.seq),
        (omitted.first_seq, omitted.last_seq, omitted.last_seq)
    );
    assert_eq!(placed.kind, SummaryKind::Extractive);
    assert!(first.tokens <= 600, "{}", first.tokens);
    let body = &first.items.first().unwrap().body;
    assert!(
        body.contains("Goal [1]: please change the flight HAT001"),
        "{body}"
    );
    assert_eq!(first.items[1].seq, omitted.last_seq + 1);
    assert_eq!(*window().await, *first, "it was kept");

    // Appends change nothing before the end until the cut moves, and then it goes on from the last one.
    let mut before = first;
    let mut moves = 0;
    for turn in 31..=60 {
        let asked = said(&format!(
            "please change the flight HAT{turn:03} to another day in May"
        ));
        t.append(&key, &[&asked]).await;
        let now = window().await;
        assert!(now.tokens <= 600, "{}", now.tokens);
        if now.omitted.map(|omitted| omitted.last_seq) == before.omitted.map(|omitted| omitted.last_seq) {
            assert!(now.items.starts_with(&before.items));
            assert_eq!(now.prefix_hash, before.prefix_hash);
        } else {
            moves += 1;
            assert_ne!(now.prefix_hash, before.prefix_hash);
            let body = &now.items.first().unwrap().body;
            assert!(body.contains("Goal [1]: "), "{body}");
        }
        before = now;
    }
    assert!((1..=6).contains(&moves), "{moves}");
}

pub async fn a_clients_summary_goes_before_ours_in_a_window(t: Subject) {
    let (manager, key) = talked(&t).await;
    let request = crate::WindowRequest {
        max_tokens: Some(600),
        summary: true,
        ..crate::WindowRequest::default()
    };
    let window = async || manager.window(&key, request).await.unwrap().value;
    let before = window().await;
    // The prefix has another name then.
    let put = PutSummary {
        range: before.summary.unwrap().range,
        text: "the traveller moved many flights".to_owned(),
    };
    manager.put_summary(&key, put).await.unwrap();
    let theirs = window().await;
    assert_eq!(theirs.summary.unwrap().kind, SummaryKind::External);
    assert!(
        theirs
            .items
            .first()
            .unwrap()
            .body
            .contains("the traveller moved many flights")
    );
    assert_ne!(theirs.prefix_hash, before.prefix_hash);
    assert_eq!(theirs.items[1..], before.items[1..]);
    // Nothing is left out, so there is nothing to summarise.
    let everything = crate::WindowRequest {
        max_tokens: Some(100_000),
        ..request
    };
    let everything = manager.window(&key, everything).await.unwrap().value;
    assert_eq!((everything.summary, everything.omitted), (None, None));
    let plain = manager
        .window(
            &key,
            crate::WindowRequest {
                summary: false,
                ..request
            },
        )
        .await;
    assert_eq!(plain.unwrap().value.summary, None);
}

pub async fn what_a_window_leaves_out_is_summarised(t: Subject) {
    let (manager, key) = talked(&t).await;
    let ask = async || {
        manager
            .summary(&key, SummaryRequest::default())
            .await
            .unwrap()
            .value
    };
    assert_eq!(ask().await, None, "everything is in the window");
    let patch = ContextPatch {
        max_tokens: Some(200),
        ..ContextPatch::default()
    };
    t.store.update(&key, patch, None).await.unwrap();
    let omitted = ask().await.unwrap();
    let window = manager.window(&key, crate::WindowRequest::default()).await;
    assert_eq!(
        omitted.range.last,
        window.unwrap().value.omitted.unwrap().last_seq
    );
    let put = PutSummary {
        range: omitted.range,
        text: "the traveller moved many flights".to_owned(),
    };
    let theirs = manager.put_summary(&key, put).await.unwrap().value;
    assert_eq!(theirs.kind, SummaryKind::External);
    assert_eq!(ask().await.unwrap(), theirs, "the client knows better");
}
