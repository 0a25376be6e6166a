//! Searches by meaning and the task that feeds them, over the fake store, with an embedder that does what it is told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::clock::{Clock as _, ManualClock};
use crate::contract::{clock, meaning};
use crate::error::Error;
use crate::fake::FakeStore;
use crate::manager::{AppendRequest, ContextManager};
use crate::settings::LimitSettings;
use crate::store::ContextStore;
use crate::{ContextId, ContextKey, NewContext, NewItem, StandardContextManager, TenantId};

const DIMENSIONS: u16 = 128;

/// Embeds by [`meaning`]; refuses texts with the word `poison`.
#[derive(Debug, Default)]
struct Scripted {
    is_down: AtomicBool,
    is_shut: AtomicBool,
    is_odd: AtomicBool,
    asked: AtomicUsize,
    largest: AtomicUsize,
}

#[async_trait::async_trait]
impl Embedder for Scripted {
    fn model(&self) -> &'static str {
        "trigrams"
    }

    fn dimensions(&self) -> u16 {
        DIMENSIONS
    }

    fn is_ready(&self) -> bool {
        !self.is_shut.load(Ordering::SeqCst)
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Fault> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.largest.fetch_max(texts.len(), Ordering::SeqCst);
        assert!(texts.iter().all(|text| !text.is_empty()));
        if self.is_down.load(Ordering::SeqCst) {
            return Err(Fault::Failed {
                detail: "status 500".into(),
                retry_after: Some(Duration::from_secs(7)),
            });
        }
        if let Some(text) = texts.iter().find(|text| text.contains("poison")) {
            return Err(Fault::Refused((*text).to_owned()));
        }
        let dimensions = DIMENSIONS - u16::from(self.is_odd.load(Ordering::SeqCst));
        Ok(texts.iter().map(|text| meaning(text, dimensions)).collect())
    }
}

struct Setup {
    manager: StandardContextManager,
    semantic: Semantic,
    embedder: Arc<Scripted>,
    tenant: TenantId,
    clock: Arc<ManualClock>,
}

impl Setup {
    fn new(limits: SemanticLimits) -> Self {
        let clock = clock();
        let store: Arc<dyn ContextStore> = Arc::new(FakeStore::new(clock.clone()));
        let embedder = Arc::new(Scripted::default());
        let semantic = Semantic::new(store.clone().vectors().unwrap(), embedder.clone(), limits);
        Self {
            manager: StandardContextManager::new(store, LimitSettings::default())
                .with_semantic(semantic.clone()),
            semantic,
            embedder,
            tenant: TenantId::parse("acme").unwrap(),
            clock,
        }
    }

    async fn said(&self, id: &str, texts: &[&str]) {
        let id = ContextId::parse(id).unwrap();
        let new = NewContext::of_agent("a").with_id(id.clone());
        self.manager.create(&self.tenant, new).await.unwrap();
        let items = texts.iter().map(|text| {
            let body = serde_json::json!({"role": "user", "content": text}).to_string();
            NewItem::parse(&body, 1 << 20).unwrap()
        });
        let request = AppendRequest {
            items: items.collect(),
            expected: None,
            idempotency_key: None,
        };
        let key = ContextKey::new(self.tenant.clone(), id);
        self.manager.append(&key, request).await.unwrap();
    }

    async fn search(&self, query: SemanticQuery) -> Result<SemanticPage, Error> {
        let answer = self.manager.search_semantic(&self.tenant, query).await;
        answer.map(|answer| answer.value)
    }
}

fn asking(text: &str, hybrid: bool) -> SemanticQuery {
    SemanticQuery {
        text: text.to_owned(),
        hybrid,
        context: None,
        role: None,
        since: None,
        until: None,
        offset: 0,
        limit: 10,
    }
}

fn seqs(page: &SemanticPage) -> Vec<u64> {
    page.hits.iter().map(|hit| hit.item.seq).collect()
}

const TALK: [&str; 4] = [
    "we fly to Paris on Friday",
    "the invoice is overdue",
    "a flight to Paris",
    "flights, flying, flight plans for Parisians",
];

#[tokio::test]
async fn a_question_finds_what_no_word_of_it_is_in() {
    let t = Setup::new(SemanticLimits::default());
    t.said("a", &TALK).await;
    assert_eq!(t.semantic.catch_up().await.unwrap(), 4);
    let page = t.search(asking("parisian flights", false)).await.unwrap();
    assert_eq!(seqs(&page)[0], 4);
    assert_eq!(*seqs(&page).last().unwrap(), 2);
    assert_eq!((page.scanned, page.cut_off, page.degraded), (4, false, None));
    assert_eq!((page.model.as_str(), page.lag_items), ("trigrams", 0));
    let second = SemanticQuery {
        offset: 1,
        limit: 2,
        ..asking("parisian flights", false)
    };
    let paged = t.search(second).await.unwrap();
    assert_eq!((seqs(&paged), paged.more), (seqs(&page)[1..3].to_vec(), true));
}

#[tokio::test]
async fn a_hybrid_search_puts_both_lists_together() {
    let t = Setup::new(SemanticLimits::default());
    t.said("a", &TALK).await;
    t.semantic.catch_up().await.unwrap();
    let page = t.search(asking("flight paris", true)).await.unwrap();
    // In both lists, and first in one of them.
    assert_eq!(seqs(&page)[0], 3);
    assert_eq!(seqs(&page).len(), 4, "each once");
    let first = &page.hits[0];
    assert!(
        first.score > 1.0 / 61.0 + 1.0 / 65.0 && first.score <= 2.0 / 61.0,
        "{first:?}"
    );
    assert!(first.snippet.contains("«flight»"), "{first:?}");
    assert!(page.hits.is_sorted_by(|one, next| one.score >= next.score));
    let second = SemanticQuery {
        offset: 3,
        ..asking("flight paris", true)
    };
    let paged = t.search(second).await.unwrap();
    assert_eq!((seqs(&paged), paged.more), (seqs(&page)[3..].to_vec(), false));
    assert!(matches!(
        t.search(asking("\"open", true)).await,
        Err(Error::Invalid(_))
    ));
}

#[tokio::test]
async fn without_the_embedder_hybrid_answers_by_words_and_says_so() {
    let t = Setup::new(SemanticLimits::default());
    t.said("a", &TALK).await;
    t.semantic.catch_up().await.unwrap();
    for (down, odd) in [(true, false), (false, true)] {
        t.embedder.is_down.store(down, Ordering::SeqCst);
        t.embedder.is_odd.store(odd, Ordering::SeqCst);
        let error = t.search(asking("flight", false)).await.unwrap_err();
        assert_eq!((error.code(), error.status()), ("embedder_unavailable", 503));
        let wait = if down { 7 } else { 5 };
        assert_eq!(error.retry_after(), Some(Duration::from_secs(wait)), "{error}");
        let page = t.search(asking("flight", true)).await.unwrap();
        assert_eq!((page.degraded, page.scanned), (Some(DEGRADED), 0));
        let mut found = seqs(&page);
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let t = Setup::new(SemanticLimits::default());
    for text in ["", " \n", &"x".repeat(5000)] {
        let refused = t.search(asking(text, false)).await;
        assert!(
            matches!(&refused, Err(Error::Invalid(invalid)) if invalid.field == "query"),
            "{refused:?}"
        );
    }
    let backwards = SemanticQuery {
        since: Some(t.clock.now()),
        until: Some(t.clock.now()),
        ..asking("x", false)
    };
    assert!(matches!(t.search(backwards).await, Err(Error::Invalid(_))));
    let nowhere = SemanticQuery {
        context: Some(ContextId::parse("nope").unwrap()),
        ..asking("x", false)
    };
    assert!(matches!(t.search(nowhere).await, Err(Error::NotFound)));
    assert_eq!(
        t.embedder.asked.load(Ordering::SeqCst),
        1,
        "only for what can be found"
    );
    let store: Arc<dyn ContextStore> = Arc::new(FakeStore::new(t.clock.clone()));
    let without = StandardContextManager::new(store, LimitSettings::default());
    for hybrid in [true, false] {
        let refused = without.search_semantic(&t.tenant, asking("x", hybrid)).await;
        let error = refused.unwrap_err();
        assert_eq!(error.status(), 422);
        assert!(
            error
                .hint()
                .unwrap()
                .contains("context_manager.semantic.endpoint")
        );
    }
}

#[tokio::test]
async fn batches_are_bounded_and_a_refused_text_does_not_keep_the_others_from_theirs() {
    let t = Setup::new(SemanticLimits {
        batch: 3,
        item_chars: 20,
        ..SemanticLimits::default()
    });
    t.said("a", &["one", "poison", "", "four", "five", &"long ".repeat(100)])
        .await;
    assert_eq!(t.semantic.catch_up().await.unwrap(), 4);
    assert!(t.embedder.largest.load(Ordering::SeqCst) <= 3);
    let counts = t.semantic.counts();
    assert_eq!((counts.embedded, counts.empty, counts.refused), (4, 1, 1));
    assert_eq!((counts.failed, counts.lacking), (0, 0));
    let asked = t.embedder.asked.load(Ordering::SeqCst);
    assert_eq!(t.semantic.catch_up().await.unwrap(), 0);
    assert_eq!(
        t.embedder.asked.load(Ordering::SeqCst),
        asked,
        "what was refused is not asked again"
    );
}

#[tokio::test]
async fn what_failed_is_given_back() {
    let t = Setup::new(SemanticLimits::default());
    t.said("a", &TALK).await;
    for odd in [false, true] {
        t.embedder.is_down.store(!odd, Ordering::SeqCst);
        t.embedder.is_odd.store(odd, Ordering::SeqCst);
        let failed = t.semantic.catch_up().await;
        assert!(
            matches!(failed, Err(Error::EmbedderUnavailable { .. })),
            "{failed:?}"
        );
    }
    t.embedder.is_odd.store(false, Ordering::SeqCst);
    assert_eq!((t.semantic.counts().failed, t.semantic.counts().lacking), (2, 4));
    // Not when the lease is over, but now.
    assert_eq!(t.semantic.catch_up().await.unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_task_embeds_what_comes_and_leaves_an_embedder_alone_that_is_down() {
    let t = Setup::new(SemanticLimits::default());
    t.embedder.is_shut.store(true, Ordering::SeqCst);
    t.semantic.start();
    t.semantic.start();
    t.said("a", &TALK).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(t.embedder.asked.load(Ordering::SeqCst), 0);
    t.embedder.is_shut.store(false, Ordering::SeqCst);
    t.embedder.is_down.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_mins(10)).await;
    let asked = t.embedder.asked.load(Ordering::SeqCst);
    assert!((10..=20).contains(&asked), "{asked}");
    t.embedder.is_down.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(t.semantic.counts().embedded, 4);
    t.said("b", &["five"]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(t.semantic.counts().embedded, 5);
    t.semantic.close().await;
    t.said("c", &["six"]).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(t.semantic.counts().embedded, 5);
}
