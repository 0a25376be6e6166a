//! Vectors beside the items.

use crate::semantic::{
    Claim, Direction, Filled, Lot, Model, NearestPage, NearestQuery, Text, Vector, VectorStore,
};

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the suite is one module in several rooms")
)]
use super::*;

const DIMENSIONS: u16 = 64;
const LEASE: Duration = Duration::from_mins(2);

fn model(name: &str) -> Model {
    Model {
        name: name.into(),
        dimensions: DIMENSIONS,
    }
}

/// What a text means to these tests: how often each three characters stand in it, by a hash of them. Deterministic, and
/// texts that share words are near to each other.
pub fn meaning(text: &str, dimensions: u16) -> Vec<f32> {
    let mut meaning = vec![0.0; usize::from(dimensions)];
    let text = format!("  {}  ", text.to_lowercase());
    for three in text.as_bytes().windows(3) {
        // FNV-1a, 32 bits.
        let hash = three.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        let place = (hash % u32::from(dimensions)) as usize;
        if let Some(place) = meaning.get_mut(place) {
            *place += 1.0;
        }
    }
    meaning
}

fn claiming(items_max: u32) -> Claim {
    Claim {
        items_max,
        bytes_max: 1 << 20,
        lease: LEASE,
    }
}

fn vector_of(text: &str) -> Vector {
    Vector::rounded(&meaning(text, DIMENSIONS)).unwrap()
}

fn filled(lot: Lot) -> Filled {
    let through = lot.items.last().map_or(0, |item| item.seq);
    let vectors = lot.items.into_iter();
    Filled {
        stream: lot.stream,
        news: lot.news,
        through,
        ends: lot.ends,
        vectors: vectors.map(|item| (item.seq, vector_of(&item.text))).collect(),
    }
}

/// How many items these are.
fn items_in(lots: &[Lot]) -> usize {
    lots.iter().map(|lot| lot.items.len()).sum()
}

impl Subject {
    fn vectors(&self) -> Arc<dyn VectorStore> {
        self.store.clone().vectors().unwrap()
    }

    async fn claimed(&self, model: &Model, items_max: u32) -> Vec<Lot> {
        self.store.settle().await.unwrap();
        self.vectors().claim(model, claiming(items_max)).await.unwrap()
    }

    /// Embeds what there is to embed; answers how many items that were.
    async fn embed_all(&self, model: &Model) -> usize {
        let mut items = 0;
        for _ in 0..1000 {
            let lots = self.claimed(model, 7).await;
            if lots.is_empty() {
                return items;
            }
            items += items_in(&lots);
            let done = lots.into_iter().map(filled).collect();
            self.vectors().fill(model, done).await.unwrap();
        }
        panic!("there is always something to embed");
    }

    async fn near_with(&self, tenant: &TenantId, query: NearestQuery) -> NearestPage {
        self.vectors().nearest(tenant, query).await.unwrap()
    }

    async fn near(&self, text: &str, context: Option<&str>) -> Vec<(String, Seq)> {
        let query = nearest(text, context);
        found(&self.near_with(&self.tenant, query).await)
    }
}

fn nearest(text: &str, context: Option<&str>) -> NearestQuery {
    NearestQuery {
        model: model("m"),
        direction: Direction::of(&meaning(text, DIMENSIONS)).unwrap(),
        search: SearchQuery {
            context: context.map(|id| ContextId::parse(id).unwrap()),
            ..searching(text)
        },
        scan_max: 1000,
    }
}

fn found(page: &NearestPage) -> Vec<(String, Seq)> {
    let hits = page.hits.iter();
    hits.map(|hit| (hit.context.to_string(), hit.item.seq)).collect()
}

fn hit(id: &str, seq: Seq) -> (String, Seq) {
    (id.to_owned(), seq)
}

pub async fn what_is_nearest_comes_first(t: Subject) {
    let (a, b) = (t.create("a").await, t.create("b").await);
    t.append(
        &a,
        &[&said("booking a flight to Paris"), &said("the weather is fine")],
    )
    .await;
    t.append(&b, &[&said("a flight was booked to Paris"), &said("xyzzy")])
        .await;
    assert_eq!(t.embed_all(&model("m")).await, 4);
    let page = t.near_with(&t.tenant, nearest("a flight to Paris", None)).await;
    let mut best = found(&page)[..2].to_vec();
    best.sort();
    assert_eq!(best, [hit("a", 1), hit("b", 1)]);
    assert!(page.hits.is_sorted_by(|one, next| one.score >= next.score));
    assert!(page.hits[0].score > 0.7 && page.hits[0].score < 1.001, "{page:?}");
    assert!(page.hits[0].snippet.contains("«Paris»"), "{page:?}");
    assert_eq!((page.scanned, page.cut_off, page.lag_items), (4, false, 0));
    assert_eq!(t.near("xyzzy", Some("b")).await[0], hit("b", 2));
    assert_eq!(
        t.near("xyzzy", Some("a")).await.len(),
        2,
        "inside one context only"
    );
    let mut second = nearest("the weather is fine", None);
    (second.search.offset, second.search.limit) = (1, 2);
    let all = t.near("the weather is fine", None).await;
    let page = t.near_with(&t.tenant, second).await;
    assert_eq!((found(&page), page.more), (all[1..3].to_vec(), true));
    assert_eq!(all[0], hit("a", 2));
    let nowhere = nearest("x", Some("nope"));
    assert!(matches!(
        t.vectors().nearest(&t.tenant, nowhere).await,
        Err(Error::NotFound)
    ));
}

pub async fn nearest_filters_and_says_when_it_stops(t: Subject) {
    let (a, b) = (t.create("a").await, t.create("b").await);
    let start = t.clock.now();
    for hour in 0..30 {
        let key = if hour % 2 == 0 { &a } else { &b };
        let body = if hour == 20 {
            r#"{"role":"assistant","content":"flight 20"}"#.to_owned()
        } else {
            said(&format!("flight {hour}"))
        };
        t.append(key, &[&body]).await;
        t.clock.advance(Duration::from_hours(1));
    }
    t.embed_all(&model("m")).await;
    let at = |hour: u64| Some(start.saturating_add(Duration::from_hours(hour)));
    for (inside, since, until, role, hits) in [
        (None, None, None, None, 30),
        (None, at(10), at(13), None, 3),
        (Some("a"), at(10), at(13), None, 2),
        (None, at(30), None, None, 0),
        (None, None, None, Some(Role::Assistant), 1),
        (Some("a"), None, None, Some(Role::Assistant), 1),
        (Some("b"), None, None, Some(Role::Assistant), 0),
        (None, at(21), None, Some(Role::Assistant), 0),
    ] {
        let mut query = nearest("flight", inside);
        (query.search.since, query.search.until, query.search.role) = (since, until, role);
        let page = t.near_with(&t.tenant, query.clone()).await;
        assert_eq!(page.hits.len(), hits, "{inside:?} {since:?} {until:?} {role:?}");
        assert_eq!(page.scanned, hits as u64);
        assert!(!page.cut_off);
        assert!(page.hits.iter().all(|hit| query.search.admits(&hit.item)));
    }
    // The oldest are those that are not looked at.
    for (inside, newest) in [
        (None, [hit("a", 15), hit("b", 15)]),
        (Some("a"), [hit("a", 14), hit("a", 15)]),
    ] {
        let cut = NearestQuery {
            scan_max: 2,
            ..nearest("flight", inside)
        };
        let page = t.near_with(&t.tenant, cut).await;
        let mut seen = found(&page);
        seen.sort();
        assert_eq!(
            (seen.as_slice(), page.scanned, page.cut_off),
            (&newest[..], 2, true)
        );
    }
    let exactly = NearestQuery {
        scan_max: 30,
        ..nearest("flight", None)
    };
    let page = t.near_with(&t.tenant, exactly).await;
    assert_eq!((page.scanned, page.cut_off), (30, false));
}

pub async fn long_scans_see_everything_once(t: Subject) {
    let key = t.create("a").await;
    for batch in 0..3 {
        let bodies: Vec<String> = (0..400).map(|n| said(&format!("flight {batch} {n}"))).collect();
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        t.append(&key, &bodies).await;
    }
    t.store.settle().await.unwrap();
    loop {
        let lots = t.claimed(&model("m"), 500).await;
        if lots.is_empty() {
            break;
        }
        let done = lots.into_iter().map(filled).collect();
        t.vectors().fill(&model("m"), done).await.unwrap();
    }
    for inside in [None, Some("a")] {
        let all = NearestQuery {
            scan_max: 5000,
            ..nearest("flight 1 77", inside)
        };
        let page = t.near_with(&t.tenant, all).await;
        assert_eq!((page.scanned, page.cut_off), (1200, false), "{inside:?}");
        assert_eq!(found(&page)[0], hit("a", 478));
        let cut = NearestQuery {
            scan_max: 1000,
            ..nearest("flight 0 0", inside)
        };
        let page = t.near_with(&t.tenant, cut).await;
        assert_eq!((page.scanned, page.cut_off), (1000, true), "{inside:?}");
        assert!(page.hits.iter().all(|hit| hit.item.seq > 200));
    }
}

pub async fn items_are_claimed_once(t: Subject) {
    let (a, m) = (t.create("a").await, model("m"));
    t.append(&a, &[&said("one"), &said("two"), &said("three")]).await;
    assert_eq!(t.claimed(&m, 2).await.len(), 1, "and that leases the stream");
    assert_eq!(t.claimed(&m, 2).await, []);
    assert_eq!(t.vectors().lacking(&m).await.unwrap(), 3);
    t.clock.advance(LEASE * 2);
    let lots = t.claimed(&m, 2).await;
    assert_eq!(
        (items_in(&lots), lots[0].ends),
        (2, false),
        "it was not brought to its end"
    );
    let text = |seq, text: &str| Text {
        seq,
        text: text.to_owned(),
    };
    assert_eq!(lots[0].items, [text(1, "one"), text(2, "two")]);
    let undone = lots.into_iter().map(Lot::undone).collect();
    t.vectors().fill(&m, undone).await.unwrap();
    let lots = t.claimed(&m, 2).await;
    assert_eq!(
        items_in(&lots),
        2,
        "what was given back is there for the next one"
    );
    let done: Vec<Filled> = lots.into_iter().map(filled).collect();
    t.vectors().fill(&m, done.clone()).await.unwrap();
    t.vectors().fill(&m, done).await.unwrap();
    assert_eq!(t.vectors().lacking(&m).await.unwrap(), 1);
    let lots = t.claimed(&m, 2).await;
    assert_eq!(
        (items_in(&lots), lots[0].items[0].seq, lots[0].ends),
        (1, 3, true)
    );
    // Somebody appends while the last ones are embedded.
    t.append(&a, &[&said("four")]).await;
    t.store.settle().await.unwrap();
    let done = lots.into_iter().map(filled).collect();
    t.vectors().fill(&m, done).await.unwrap();
    assert_eq!(t.embed_all(&m).await, 1, "and that is not passed over");
    assert_eq!(t.vectors().lacking(&m).await.unwrap(), 0);
    assert_eq!(t.near("two", None).await.len(), 4, "each once");
    // Large items come one at a time.
    t.append(&a, &[&said(&"x".repeat(1000)), &said(&"y".repeat(1000))])
        .await;
    t.store.settle().await.unwrap();
    let small = Claim {
        bytes_max: 500,
        ..claiming(10)
    };
    let lots = t.vectors().claim(&m, small).await.unwrap();
    assert_eq!((items_in(&lots), lots[0].ends), (1, false));
}

pub async fn an_item_may_have_no_vector(t: Subject) {
    let (a, m) = (t.create("a").await, model("m"));
    t.append(&a, &[&said("one"), &said(""), &said("three")]).await;
    let lots = t.claimed(&m, 10).await;
    assert_eq!(lots[0].items[1].text, "");
    let done = lots.into_iter().map(filled).map(|mut lot| {
        lot.vectors.remove(1);
        lot
    });
    t.vectors().fill(&m, done.collect()).await.unwrap();
    assert_eq!(t.vectors().lacking(&m).await.unwrap(), 0);
    assert_eq!(t.claimed(&m, 10).await, []);
    assert_eq!(t.near("one", None).await.len(), 2);
}

pub async fn models_do_not_mix(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[&said("one"), &said("two")]).await;
    assert_eq!(t.embed_all(&model("m")).await, 2);
    let other = NearestQuery {
        model: model("other"),
        ..nearest("one", None)
    };
    assert_eq!(t.near_with(&t.tenant, other.clone()).await.hits, []);
    let lots = t.claimed(&model("other"), 1).await;
    assert_eq!(items_in(&lots), 1, "a model that is new has everything to do");
    let done = lots.into_iter().map(filled).collect();
    t.vectors().fill(&model("other"), done).await.unwrap();
    let page = t.near_with(&t.tenant, other).await;
    assert_eq!((found(&page), page.lag_items), (vec![hit("a", 1)], 1));
    assert_eq!(t.near("one", None).await.len(), 2);
    let resized = Model {
        dimensions: 8,
        ..model("m")
    };
    assert_eq!(
        items_in(&t.claimed(&resized, 10).await),
        2,
        "as has one of another size"
    );
    t.append(&key, &[&said("three")]).await;
    assert_eq!(
        (t.embed_all(&model("m")).await, t.embed_all(&model("other")).await),
        (1, 2)
    );
}

pub async fn vectors_stay_with_their_tenant(t: Subject) {
    let other = TenantId::parse("other").unwrap();
    t.create("a").await;
    t.append(&t.key("a"), &[&said("a secret of acme")]).await;
    t.store.create(&other, new("a")).await.unwrap();
    let theirs = ContextKey::new(other.clone(), ContextId::parse("a").unwrap());
    t.append(&theirs, &[&said("a secret of other")]).await;
    t.embed_all(&model("m")).await;
    for inside in [None, Some("a")] {
        for (tenant, secret) in [(&t.tenant, "acme"), (&other, "other")] {
            let page = t.near_with(tenant, nearest("a secret", inside)).await;
            assert_eq!((page.hits.len(), page.scanned), (1, 1), "{inside:?}");
            assert!(page.hits[0].item.body.contains(secret));
        }
    }
    let nobody = TenantId::parse("nobody").unwrap();
    let page = t.near_with(&nobody, nearest("a secret", None)).await;
    assert_eq!((page.hits, page.scanned), (Vec::new(), 0));
}

pub async fn vectors_go_with_their_items(t: Subject) {
    let m = model("m");
    let (a, b) = (t.create("a").await, t.create("b").await);
    t.append(&a, &[&said("one"), &said("two"), &said("three")]).await;
    t.append(&b, &[&said("four")]).await;
    t.embed_all(&m).await;
    let fork = t.store.fork(&a, 2, new("f")).await.unwrap();
    let fork = ContextKey::new(t.tenant.clone(), fork.context.id);
    assert_eq!(
        t.embed_all(&m).await,
        0,
        "a fork shares the vectors of what it shares"
    );
    assert_eq!(t.near("two", Some("f")).await, [hit("f", 2), hit("f", 1)]);
    assert_eq!(t.near("two", None).await.len(), 4, "each item once");
    t.append(&fork, &[&said("five")]).await;
    assert_eq!(t.embed_all(&m).await, 1);
    assert_eq!(t.near("five", Some("f")).await[0], hit("f", 3));
    assert_eq!(t.near("five", Some("a")).await.len(), 3);
    // Truncated: not there any more, in the fork it still is.
    let keep = vec![SeqRange { first: 2, last: 3 }];
    t.store.rewrite(&a, keep, None).await.unwrap();
    assert_eq!(t.near("one", Some("a")).await.len(), 2);
    assert_eq!(t.near("one", Some("f")).await[0], hit("f", 1));
    assert_eq!(t.near("one", None).await[0], hit("f", 1));
    assert_eq!(t.embed_all(&m).await, 0, "nothing is embedded twice");
    // Replaced: only the new ones.
    t.store.replace(&b, append(&[&said("six")])).await.unwrap();
    assert_eq!(t.embed_all(&m).await, 1);
    assert_eq!(t.near("four", Some("b")).await, [hit("b", 2)]);
    // Deleted: found through the fork only, and gone with that.
    t.store.delete(&a, None).await.unwrap();
    let mut left = t.near("two", None).await;
    left.sort();
    assert_eq!(left, [hit("b", 2), hit("f", 1), hit("f", 2), hit("f", 3)]);
    t.store.delete(&fork, None).await.unwrap();
    assert_eq!(t.near("two", None).await, [hit("b", 2)]);
    t.clock.advance(Duration::from_hours(2));
    let purged = t.purge_all(retention_of(&t.clock)).await;
    assert_eq!(purged, expected_purge(&t, 5));
    let page = t.near_with(&t.tenant, nearest("two", None)).await;
    assert_eq!(page.scanned, 1, "no vector outlives its item");
    // A claim that was under way then.
    let late = Filled {
        stream: 1,
        news: 0,
        through: 3,
        ends: true,
        vectors: vec![(1, vector_of("one"))],
    };
    t.vectors().fill(&m, vec![late]).await.unwrap();
    let page = t.near_with(&t.tenant, nearest("two", None)).await;
    assert_eq!(page.scanned, 1);
}

pub async fn models_that_nobody_uses_are_forgotten(t: Subject) {
    let key = t.create("a").await;
    t.append(&key, &[&said("one"), &said("two"), &said("three")])
        .await;
    t.embed_all(&model("old")).await;
    let old = NearestQuery {
        model: model("old"),
        ..nearest("one", None)
    };
    for day in 0..40 {
        t.clock.advance(Duration::from_hours(24));
        if day < 35 {
            // Whoever looks for work uses it.
            assert_eq!(t.embed_all(&model("m")).await, if day == 0 { 3 } else { 0 });
        }
        t.purge_all(retention_of(&t.clock)).await;
    }
    assert_eq!(t.near("one", None).await.len(), 3);
    if format!("{:?}", t.store).contains("FakeStore") {
        return;
    }
    assert_eq!(t.near_with(&t.tenant, old.clone()).await.scanned, 0);
    assert_eq!(t.embed_all(&model("old")).await, 3, "it begins anew");
    assert_eq!(t.near_with(&t.tenant, old).await.scanned, 3);
}

pub async fn fillers_at_once_do_nothing_twice(t: Subject) {
    let m = model("m");
    let mut keys = Vec::new();
    for number in 0..12 {
        keys.push(t.create(&format!("c{number}")).await);
    }
    for key in &keys {
        t.append(key, &[&said("one"), &said("two"), &said("three")]).await;
    }
    t.store.settle().await.unwrap();
    let filler = || async {
        let mut items = Vec::new();
        loop {
            let lots = t.vectors().claim(&m, claiming(5)).await.unwrap();
            if lots.is_empty() {
                return items;
            }
            items.extend(
                lots.iter()
                    .flat_map(|lot| lot.items.iter().map(|item| (lot.stream, item.seq))),
            );
            tokio::task::yield_now().await;
            let done = lots.into_iter().map(filled).collect();
            t.vectors().fill(&m, done).await.unwrap();
        }
    };
    let (one, two, three) = tokio::join!(filler(), filler(), filler());
    let mut items = [one, two, three].concat();
    // One that found everything leased has ended before the others: what they left is not lost.
    items.extend(filler().await);
    let done = items.len();
    items.sort_unstable();
    items.dedup();
    assert_eq!((done, items.len()), (36, 36));
    assert_eq!(t.vectors().lacking(&m).await.unwrap(), 0);
    let texts = t.near("two", None).await;
    assert_eq!(texts.len(), 36);
}
