//! Windows with a summary, over generated conversations in all dialects: through a manager, item by item.

use proptest::prelude::*;

use super::formats::generated::{Exchange, all, any_exchange};
use super::*;
use crate::fake::FakeStore;
use crate::manager::ContextManager;
use crate::settings::LimitSettings;
use crate::store::{Append, ContextStore};
use crate::{ContextId, ContextKey, NewItem, StandardContextManager, TenantId};

/// A conversation that grows in a store.
struct Growing {
    store: Arc<FakeStore>,
    manager: StandardContextManager,
    key: ContextKey,
    budget: u64,
}

impl Growing {
    async fn new(budget: u64) -> Self {
        let store = Arc::new(FakeStore::new(crate::contract::clock()));
        let id = ContextId::parse("a").unwrap();
        let tenant = TenantId::parse("acme").unwrap();
        let new = NewContext {
            tokenizer: Some(Tokenizer::Estimate),
            ..NewContext::of_agent("a").with_id(id.clone())
        };
        store.create(&tenant, new).await.unwrap();
        Self {
            manager: StandardContextManager::new(store.clone(), LimitSettings::default()),
            store,
            key: ContextKey::new(tenant, id),
            budget,
        }
    }

    async fn append(&self, body: &str) {
        let mut item = NewItem::parse(body, 1 << 22).unwrap();
        item.count(Tokenizer::Estimate);
        let append = Append {
            items: Arc::from([item]),
            tokenizer: Tokenizer::Estimate,
            expected: None,
            idempotency: None,
        };
        self.store.append(&self.key, append).await.unwrap();
    }

    async fn window(&self, cut: Cut, summary: bool) -> Result<Window> {
        let request = WindowRequest {
            max_tokens: Some(self.budget),
            reserve: 0,
            cut,
            summary,
        };
        let answer = self.manager.window(&self.key, request).await?;
        Ok(Window::clone(&answer.value))
    }
}

fn check(window: &Window, budget: u64) -> Result<(), TestCaseError> {
    prop_assert!(window.tokens <= budget, "W4: {} > {budget}", window.tokens);
    let tokens: u64 = window.items.iter().map(|item| u64::from(item.tokens)).sum();
    prop_assert_eq!(tokens, window.tokens);
    prop_assert!(window.items.is_sorted_by(|a, b| a.seq < b.seq), "W5");
    for format in Format::ALL {
        if let Some(rendered) = format.render(&window.items)
            && let Err(broken) = rules::check(format, &rendered)
        {
            return Err(TestCaseError::fail(format!("{format:?}: {broken}")));
        }
    }
    let why = [Reason::SummaryLeftOut, Reason::SummaryPending];
    let said = window.reasons.iter().any(|reason| why.contains(reason));
    match (window.omitted, window.summary) {
        (None, summary) => prop_assert_eq!(summary, None),
        (Some(_), None) => prop_assert!(said, "{:?}", window.reasons),
        (Some(omitted), Some(placed)) => {
            prop_assert!(!said);
            let covered = (omitted.first_seq, omitted.last_seq, omitted.last_seq);
            prop_assert_eq!((placed.range.first, placed.range.last, placed.seq), covered);
            let at = window
                .items
                .iter()
                .position(|item| item.seq == placed.seq)
                .unwrap();
            prop_assert_eq!(window.items[at].tokens, placed.tokens);
            prop_assert!(u64::from(placed.tokens) <= allotment(budget));
            // After everything that is kept from before it, before what is there for its place.
            let cut = window.items.iter().position(|item| !item.traits.always_kept());
            prop_assert!(cut.is_none_or(|cut| at < cut));
        }
    }
    Ok(())
}

/// W9: the same items as without, the same beginning while what is left out stays.
fn stays(before: &Window, now: &Window) -> Result<(), TestCaseError> {
    let range = |window: &Window| {
        window
            .omitted
            .map(|omitted| (omitted.first_seq, omitted.last_seq))
    };
    if before.summary.is_some() && now.summary.is_some() && range(before) == range(now) {
        prop_assert!(now.items.starts_with(&before.items), "{before:?}\n{now:?}");
        prop_assert!(before.cut_seq.is_none() || before.prefix_hash == now.prefix_hash);
    }
    Ok(())
}

proptest! {
    // Each case reads a window after each item.
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    // W4, W5, W9.
    #[test]
    fn windows_with_a_summary_keep_their_rules(
        exchanges in prop::collection::vec(any_exchange(), 1..25),
        budget in prop_oneof![40..400_u64, 400..3000_u64],
        cut in prop_oneof![3 => Just(Cut::Sticky), 1 => Just(Cut::Tight)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(grow(&exchanges, budget, cut))?;
    }

    // W7 with a summary.
    #[test]
    fn a_larger_budget_never_shows_less_beside_a_summary(
        exchanges in prop::collection::vec(any_exchange(), 1..25), budget in 40..2500_u64, more in 1..400_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut growing = Growing::new(budget).await;
            for body in all(&exchanges) {
                growing.append(&body.to_string()).await;
            }
            let Ok(small) = growing.window(Cut::Sticky, true).await else { return Ok(()) };
            growing.budget += more;
            let large = growing.window(Cut::Sticky, true).await.unwrap();
            let own = |window: &Window| -> Vec<Seq> {
                let placed = window.summary.map(|placed| placed.seq);
                window.items.iter().map(|item| item.seq).filter(|seq| Some(*seq) != placed).collect()
            };
            let large = own(&large);
            prop_assert!(own(&small).iter().all(|seq| large.contains(seq)));
            Ok(())
        })?;
    }
}

async fn grow(exchanges: &[Exchange], budget: u64, cut: Cut) -> Result<(), TestCaseError> {
    let growing = Growing::new(budget).await;
    let mut before: Option<Window> = None;
    for body in all(exchanges) {
        growing.append(&body.to_string()).await;
        let plain = growing.window(cut, false).await;
        let window = match growing.window(cut, true).await {
            Ok(window) => window,
            Err(Error::BudgetTooSmall { .. }) => {
                prop_assert!(plain.is_err(), "a summary is no reason to fail");
                continue;
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert!(plain.is_ok());
        check(&window, budget)?;
        prop_assert_eq!(
            &growing.window(cut, true).await.unwrap(),
            &window,
            "twice the same"
        );
        if let Some(before) = &before {
            stays(before, &window)?;
        }
        before = Some(window);
    }
    Ok(())
}

#[tokio::test]
async fn what_takes_too_long_is_made_in_the_background() {
    let growing = Growing::new(1500).await;
    let text = "we agreed that the total is $1200 for flight HAT136. ".repeat(30);
    for _ in 0..2500 {
        let body = serde_json::json!({"role": "user", "content": text}).to_string();
        growing.append(&body).await;
    }
    let window = growing.window(Cut::Sticky, true).await.unwrap();
    assert_eq!(window.summary, None);
    assert!(window.reasons.contains(&Reason::SummaryPending));
    let shown = async || {
        let window = growing.window(Cut::Sticky, true).await.unwrap();
        window.summary.map(|_| window)
    };
    let what = "the summary is there";
    let window =
        contextkeep_test_support::eventually_async(what, std::time::Duration::from_mins(1), shown).await;
    check(&window, 1500).unwrap();
}

#[test]
fn a_summary_that_is_too_long_is_cut() {
    let summary = |kind| crate::summary::Summary {
        kind,
        range: crate::store::SeqRange { first: 2, last: 9 },
        text: "they moved a flight \u{1F642} to May. ".repeat(200),
        tokens: 0,
        source: [0; 32],
        created_at: Timestamp::default(),
    };
    for limit in [40, 100, 1000] {
        let model = summary(crate::summary::Kind::Model);
        let item = summary_item(&model, limit, Tokenizer::O200kBase, Timestamp::default()).unwrap();
        assert!(
            u64::from(item.tokens) <= limit && u64::from(item.tokens) + 30 > limit,
            "{} of {limit}",
            item.tokens
        );
        assert!(
            item.body
                .contains("[Summary of items 2 to 9 of this conversation")
        );
        assert_eq!((item.seq, item.traits.role), (9, Role::User));
    }
    let own = summary(crate::summary::Kind::External);
    assert!(summary_item(&own, 20, Tokenizer::O200kBase, Timestamp::default()).is_none());
}
