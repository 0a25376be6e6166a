//! Summaries by a model that does what it is told.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use tokio::sync::Semaphore;

use super::*;
use crate::fake::FakeStore;
use crate::manager::ContextManager;
use crate::settings::LimitSettings;
use crate::store::{Append, ContextStore};
use crate::summary::{Draft, Fault, Kind, PutSummary, Summary, SummaryRequest};
use crate::{ContextId, NewContext, NewItem, StandardContextManager, TenantId, Tokenizer};

const LIMITS: ModelLimits = ModelLimits {
    max_input_tokens: 2000,
    max_output_tokens: 500,
    max_concurrent: 2,
    queue: 8,
    rest: Duration::from_mins(1),
};

/// Answers as it was told, "summary N" once it runs out, and not before it may.
#[derive(Debug)]
struct Scripted {
    script: Mutex<VecDeque<Result<String, Fault>>>,
    drafts: Mutex<Vec<Draft>>,
    may: Semaphore,
    asking: AtomicUsize,
    most_asking: AtomicUsize,
}

impl Scripted {
    fn new(script: impl IntoIterator<Item = Result<String, Fault>>) -> Arc<Self> {
        let free = Self::held(script);
        free.may.add_permits(1000);
        free
    }

    /// Waits for permits.
    fn held(script: impl IntoIterator<Item = Result<String, Fault>>) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script.into_iter().collect()),
            drafts: Mutex::default(),
            may: Semaphore::new(0),
            asking: AtomicUsize::new(0),
            most_asking: AtomicUsize::new(0),
        })
    }

    fn drafts(&self) -> Vec<Draft> {
        self.drafts.lock().unwrap().clone()
    }

    async fn until_asked(&self, times: usize) {
        let asked = async || (self.drafts().len() >= times).then_some(());
        contextkeep_test_support::eventually_async("the model is asked", Duration::from_secs(20), asked)
            .await;
    }
}

#[async_trait::async_trait]
impl Summariser for Scripted {
    async fn summarise(&self, draft: &Draft) -> Result<String, Fault> {
        let number = {
            let mut drafts = self.drafts.lock().unwrap();
            drafts.push(draft.clone());
            drafts.len()
        };
        let asking = self.asking.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_asking.fetch_max(asking, Ordering::Relaxed);
        self.may.acquire().await.unwrap().forget();
        self.asking.fetch_sub(1, Ordering::Relaxed);
        let scripted = self.script.lock().unwrap().pop_front();
        scripted.unwrap_or_else(|| Ok(format!("summary {number}")))
    }
}

struct Bench {
    store: Arc<FakeStore>,
    model: Arc<Scripted>,
    background: BackgroundSummaries,
    manager: StandardContextManager,
}

fn bench(model: Arc<Scripted>, limits: ModelLimits) -> Bench {
    let store = Arc::new(FakeStore::new(crate::contract::clock()));
    let background = BackgroundSummaries::with_model(store.clone(), model.clone(), limits);
    let manager = StandardContextManager::new(store.clone(), LimitSettings::default());
    Bench {
        manager: manager.with_background(background.clone()),
        store,
        model,
        background,
    }
}

fn key(tenant: &str, id: &str) -> ContextKey {
    ContextKey::new(TenantId::parse(tenant).unwrap(), ContextId::parse(id).unwrap())
}

impl Bench {
    async fn talk(&self, key: &ContextKey, turns: std::ops::RangeInclusive<u32>) {
        let new = NewContext {
            tokenizer: Some(Tokenizer::Estimate),
            ..NewContext::of_agent("a").with_id(key.id.clone())
        };
        if *turns.start() == 1 {
            self.store.create(&key.tenant, new).await.unwrap();
        }
        for turn in turns {
            for (role, text) in [
                ("user", format!("please change flight HAT{turn:03}")),
                ("assistant", format!("I confirmed the change for ${turn}50.")),
            ] {
                let body = serde_json::json!({"role": role, "content": text}).to_string();
                self.append(key, &body).await;
            }
        }
    }

    async fn append(&self, key: &ContextKey, body: &str) {
        let mut item = NewItem::parse(body, 1 << 22).unwrap();
        item.count(Tokenizer::Estimate);
        let append = Append {
            items: Arc::from([item]),
            tokenizer: Tokenizer::Estimate,
            expected: None,
            idempotency: None,
        };
        self.store.append(key, append).await.unwrap();
    }

    async fn ask(&self, key: &ContextKey, last: u64) -> Summary {
        let request = SummaryRequest {
            range: Some(to(last)),
        };
        self.manager.summary(key, request).await.unwrap().value.unwrap()
    }
}

const fn to(last: u64) -> SeqRange {
    SeqRange { first: 1, last }
}

#[tokio::test]
async fn who_asks_first_gets_sentences_and_who_asks_later_the_models() {
    let bench = bench(Scripted::new([]), LIMITS);
    let key = key("acme", "a");
    bench.talk(&key, 1..=10).await;
    assert_eq!(bench.ask(&key, 8).await.kind, Kind::Extractive);
    bench.background.settled().await;
    let summary = bench.ask(&key, 8).await;
    assert_eq!((summary.kind, summary.text.as_str()), (Kind::Model, "summary 1"));
    assert_eq!(summary.tokens, Tokenizer::Estimate.count("summary 1"));
    let draft = bench.model.drafts().pop().unwrap();
    assert!(draft.material.contains("[1] user: please change flight HAT001\n"));
    assert!(
        draft
            .material
            .contains("[8] assistant: I confirmed the change for $450.\n")
    );
    assert!(!draft.material.contains("HAT005") && !draft.material.contains("former_summary"));

    // The next one goes on from it, and from nothing before it (B3).
    assert_eq!(bench.ask(&key, 20).await.kind, Kind::Extractive);
    bench.background.settled().await;
    let summary = bench.ask(&key, 20).await;
    assert_eq!((summary.kind, summary.text.as_str()), (Kind::Model, "summary 2"));
    let draft = bench.model.drafts().pop().unwrap();
    assert!(
        draft
            .material
            .starts_with("<former_summary>\nsummary 1\n</former_summary>\n")
    );
    assert!(draft.material.contains("HAT005") && !draft.material.contains("HAT004"));
    let counts = bench.background.counts();
    assert_eq!((counts.kept, counts.waiting, counts.running), (2, 0, 0));
}

#[tokio::test]
async fn more_than_there_is_room_for_is_told_by_its_extract() {
    let limits = ModelLimits {
        max_input_tokens: ModelLimits::INPUT_TOKENS_MIN,
        ..LIMITS
    };
    let bench = bench(Scripted::new([]), limits);
    let key = key("acme", "a");
    bench.talk(&key, 1..=200).await;
    bench.ask(&key, 400).await;
    bench.background.settled().await;
    let draft = bench.model.drafts().pop().unwrap();
    let tokens = Tokenizer::Estimate.count(draft.instructions) + Tokenizer::Estimate.count(&draft.material);
    assert!(tokens <= limits.max_input_tokens, "{tokens}");
    assert!(
        draft
            .material
            .starts_with("<former_summary>\nGoal [1]: please change flight HAT001"),
        "{}",
        draft.material
    );
    assert!(draft.material.contains("[400] assistant"), "{}", draft.material);
    assert_eq!(bench.ask(&key, 400).await.kind, Kind::Model);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_fails_leaves_the_extract_and_is_left_alone_for_a_while() {
    let faults = [
        Fault::NotAsked("open".into()),
        Fault::Failed("500".into()),
        Fault::Unusable("garbage".into()),
    ];
    let useless = [" \n", "nul \0 here"].map(|text| Ok(text.to_owned()));
    let long = Ok("x".repeat(crate::summary::TEXT_BYTES_MAX + 1));
    let script = faults.map(Err).into_iter().chain(useless).chain([long]);
    let bench = bench(Scripted::new(script), LIMITS);
    let key = key("acme", "a");
    bench.talk(&key, 1..=4).await;
    for asked in 1..=6 {
        assert_eq!(bench.ask(&key, 8).await.kind, Kind::Extractive);
        bench.background.settled().await;
        assert_eq!(bench.ask(&key, 8).await.kind, Kind::Extractive);
        bench.background.settled().await;
        assert_eq!(bench.model.drafts().len(), asked, "it rests");
        tokio::time::advance(LIMITS.rest).await;
    }
    let counts = bench.background.counts();
    assert_eq!((counts.not_asked, counts.failed, counts.unusable), (1, 1, 4));
    bench.ask(&key, 8).await;
    bench.background.settled().await;
    assert_eq!(bench.ask(&key, 8).await.kind, Kind::Model, "it came back");
}

#[tokio::test]
async fn what_a_model_says_too_long_is_cut() {
    let bench = bench(Scripted::new([Ok("word ".repeat(3000))]), LIMITS);
    let key = key("acme", "a");
    bench.talk(&key, 1..=4).await;
    bench.ask(&key, 8).await;
    bench.background.settled().await;
    let summary = bench.ask(&key, 8).await;
    assert_eq!(summary.kind, Kind::Model);
    assert!(summary.tokens <= LIMITS.max_output_tokens && summary.text.ends_with('…'));
}

#[tokio::test]
async fn a_late_answer_is_never_put_over_what_came_meanwhile() {
    let bench = bench(Scripted::held([]), LIMITS);
    let key = key("acme", "a");
    bench.talk(&key, 1..=4).await;
    bench.ask(&key, 8).await;
    bench.model.until_asked(1).await;
    // Another server was quicker, and the client knows better than both.
    let stream = bench.store.head(&key).await.unwrap().stream;
    let quicker = Summary {
        kind: Kind::Model,
        text: "quicker".to_owned(),
        ..bench.ask(&key, 8).await
    };
    bench.store.keep_summary(&key, quicker, stream).await.unwrap();
    let put = PutSummary {
        range: to(8),
        text: "theirs".to_owned(),
    };
    bench.manager.put_summary(&key, put).await.unwrap();
    bench.model.may.add_permits(1);
    bench.background.settled().await;
    assert_eq!(bench.ask(&key, 8).await.text, "theirs");
    let all = bench.store.summaries(&key).await.unwrap();
    let texts: Vec<&str> = all.iter().skip(1).map(|one| one.text.as_str()).collect();
    assert_eq!(texts, ["quicker", "theirs"]);
    assert_eq!(bench.background.counts().needless, 1);

    // A replacement has taken its items away; it is a summary of nothing.
    bench.talk(&key, 5..=8).await;
    bench.ask(&key, 16).await;
    bench.model.until_asked(2).await;
    let body = NewItem::parse(r#"{"role":"user","content":"other"}"#, 1 << 20).unwrap();
    let replaced = Append {
        items: Arc::from([body]),
        tokenizer: Tokenizer::Estimate,
        expected: None,
        idempotency: None,
    };
    bench.store.replace(&key, replaced).await.unwrap();
    bench.model.may.add_permits(1);
    bench.background.settled().await;
    assert!(bench.store.summaries(&key).await.unwrap().is_empty());
    assert_eq!(bench.background.counts().outdated, 1);
}

#[tokio::test]
async fn one_tenants_flood_does_not_keep_the_others_waiting() {
    let limits = ModelLimits {
        max_concurrent: 1,
        queue: 6,
        ..LIMITS
    };
    let bench = bench(Scripted::held([]), limits);
    for id in 0..20 {
        let key = key("flood", &format!("f{id}"));
        bench.talk(&key, 1..=1).await;
        bench.ask(&key, 2).await;
        if id == 0 {
            bench.model.until_asked(1).await;
        }
    }
    let counts = bench.background.counts();
    assert_eq!((counts.waiting, counts.shed), (6, 13));
    let calm = key("calm", "c");
    bench.talk(&calm, 1..=1).await;
    assert_eq!(bench.ask(&calm, 2).await.kind, Kind::Extractive);
    assert_eq!(bench.background.counts().waiting, 6, "one of the flood gave way");
    // One that runs, at most one of the flood whose turn it is, then the calm one.
    bench.model.may.add_permits(3);
    bench.model.until_asked(4).await;
    assert_eq!(bench.ask(&calm, 2).await.kind, Kind::Model);
    assert_eq!(bench.model.most_asking.load(Ordering::Relaxed), 1);
    bench.model.may.add_permits(100);
    bench.background.settled().await;
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_what_is_under_way_and_not_for_ever() {
    let limits = ModelLimits {
        max_concurrent: 1,
        ..LIMITS
    };
    for answers in [true, false] {
        let bench = bench(Scripted::held([]), limits);
        let (a, b) = (key("acme", "a"), key("acme", "b"));
        for key in [&a, &b] {
            bench.talk(key, 1..=2).await;
            bench.ask(key, 4).await;
        }
        bench.model.until_asked(1).await;
        let closing = bench.background.close(Duration::from_secs(5));
        let answering = async {
            tokio::task::yield_now().await;
            if answers {
                bench.model.may.add_permits(1);
            }
        };
        let before = Instant::now();
        tokio::join!(closing, answering);
        let kind = bench.ask(&a, 4).await.kind;
        if answers {
            assert_eq!(kind, Kind::Model);
        } else {
            assert_eq!(
                (kind, before.elapsed()),
                (Kind::Extractive, Duration::from_secs(5))
            );
        }
        assert_eq!(
            bench.ask(&b, 4).await.kind,
            Kind::Extractive,
            "what waited was given up"
        );
        assert_eq!(bench.model.drafts().len(), 1, "nothing more is taken on");
        let counts = bench.background.counts();
        assert_eq!((counts.running, counts.waiting), (0, 0));
    }
}
