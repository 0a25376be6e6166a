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
