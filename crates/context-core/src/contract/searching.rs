//! Search.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;

pub async fn searches_find(t: Subject) {
    let (a, b) = (t.create("a").await, t.create("b").await);
    t.append(
        &a,
        &[
            &said("a flight to Paris"),
            r#"{"role":"assistant","content":"Paris it is, booked"}"#,
            &said("thank you"),
        ],
    )
    .await;
    t.append(&b, &[&said("a train to Rome")]).await;
    let hit = |id: &str, seq| (id.to_owned(), seq);
    assert_eq!(t.found("paris", None).await, [hit("a", 1), hit("a", 2)]);
    assert_eq!(t.found("\"flight to\"", None).await, [hit("a", 1)]);
    assert_eq!(t.found("fli* OR train", None).await, [hit("a", 1), hit("b", 1)]);
    assert_eq!(t.found("paris -booked", None).await, [hit("a", 1)]);
    assert_eq!(t.found("to", Some("b")).await, [hit("b", 1)]);
    let by_assistant = SearchQuery {
        role: Some(Role::Assistant),
        ..searching("paris")
    };
    let page = t.store.search(&t.tenant, by_assistant).await.unwrap();
    assert_eq!(page.hits.len(), 1);
    assert_eq!(page.hits[0].snippet, "«Paris» it is, booked");
    let first = t
        .store
        .search(
            &t.tenant,
            SearchQuery {
                limit: 1,
                ..searching("paris")
            },
        )
        .await
        .unwrap();
    let second = t
        .store
        .search(
            &t.tenant,
            SearchQuery {
                limit: 1,
                offset: 1,
                ..searching("paris")
            },
        )
        .await
        .unwrap();
    assert!(first.more && !second.more && first.hits[0].item != second.hits[0].item);
}

pub async fn searches_that_lag_behind_nothing_find_everything(t: Subject) {
    let a = t.create("a").await;
    for round in 0..5 {
        let word = format!("word{round}");
        t.append(&a, &[&said(&word)]).await;
        // At any moment of the indexing, each of which another round may meet.
        let mut found = false;
        for _ in 0..100_000 {
            let page = t.store.search(&t.tenant, searching(&word)).await.unwrap();
            found = !page.hits.is_empty();
            if found || page.lag_items == 0 {
                break;
            }
        }
        assert!(found, "{word}: nothing found, and nothing that is not indexed");
    }
}

pub async fn searches_filter_by_time_and_role(t: Subject) {
    let (a, b) = (t.create("a").await, t.create("b").await);
    let start = t.clock.now();
    for hour in 0..400 {
        // Many that a filter leaves out, so that it cannot be applied to the best of them only.
        let body = said(&format!(
            "needle {}",
            "needle ".repeat(usize::from(hour != 200) * 5)
        ));
        t.append(if hour % 2 == 0 { &a } else { &b }, &[&body]).await;
        t.clock.advance(Duration::from_hours(1));
    }
    t.append(
        &a,
        &[r#"{"role":"assistant","content":"one needle in a long, long sentence of others"}"#],
    )
    .await;
    t.store.settle().await.unwrap();
    let at = |hour: u64| Some(start.saturating_add(Duration::from_hours(hour)));
    for (inside, since, until, role, hits) in [
        (None, at(200), at(201), None, 1),
        (None, at(199), at(202), None, 3),
        (Some("a"), at(199), at(202), None, 1),
        (Some("b"), at(199), at(202), None, 2),
        (Some("b"), at(200), at(201), None, 0),
        (None, at(399), None, None, 2),
        (None, None, at(2), None, 2),
        (None, at(500), None, None, 0),
        (None, at(3), at(3), None, 0),
        (None, None, None, Some(Role::Assistant), 1),
        (None, None, at(400), Some(Role::Assistant), 0),
        (Some("a"), at(1), None, Some(Role::Assistant), 1),
    ] {
        let query = SearchQuery {
            context: inside.map(|id| ContextId::parse(id).unwrap()),
            since,
            until,
            role,
            ..searching("need*")
        };
        let page = t.store.search(&t.tenant, query.clone()).await.unwrap();
        assert_eq!(page.hits.len(), hits, "{inside:?} {since:?} {until:?} {role:?}");
        assert!(page.hits.iter().all(|hit| query.admits(&hit.item)));
    }
}

pub async fn searches_stay_inside(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[&said("one two"), &said("three")]).await;
    let missing = SearchQuery {
        context: Some(ContextId::parse("nope").unwrap()),
        ..searching("one")
    };
    assert!(matches!(
        t.store.search(&t.tenant, missing).await,
        Err(Error::NotFound)
    ));
    for hostile in [
        "scope:t1 one",
        "body : nothing",
        "one\" OR \"three",
        "one AND NOT two",
        "NEAR(one two)",
        "-two one",
        "^one + *",
    ] {
        // Whatever it means, it is not an error of ours and finds nothing outside.
        if let Ok(query) = Query::parse(hostile) {
            t.store
                .search(
                    &t.tenant,
                    SearchQuery {
                        query,
                        ..searching("x")
                    },
                )
                .await
                .unwrap();
        }
    }
}
