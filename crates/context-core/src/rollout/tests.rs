use super::*;
use crate::cached::{CACHE_NAME, CachedStore, HeldLimits};
use crate::fake::FakeStore;
use crate::session::{Consistency, Token};
use crate::settings::LimitSettings;
use crate::{NewItem, OptimizedContextManager, Origin, StandardContextManager};

fn key(id: &str) -> ContextKey {
    ContextKey::new(TenantId::parse("acme").unwrap(), ContextId::parse(id).unwrap())
}

fn manager(settings: RolloutSettings) -> (RolloutContextManager, Arc<Rollout>) {
    let clock = crate::contract::clock();
    let store = Arc::new(FakeStore::new(clock.clone()));
    let cache = contextkeep_cache::Cache::builder(CACHE_NAME).build().unwrap();
    let held = HeldLimits {
        contexts: 100,
        bytes: 1 << 20,
        context_bytes: 1 << 17,
        cold_percent: 30,
    };
    let cached = CachedStore::new(store.clone(), cache, Some(held), clock);
    let rollout = Arc::new(Rollout::new(settings));
    let manager = RolloutContextManager::new(
        Arc::new(StandardContextManager::new(store, LimitSettings::default())),
        Arc::new(OptimizedContextManager::new(cached, LimitSettings::default())),
        rollout.clone(),
    );
    (manager, rollout)
}

async fn origin(manager: &RolloutContextManager, id: &str) -> Origin {
    let session = Session::new(Consistency::Session, Token::default());
    let key = key(id);
    let window = manager.window(
        &key,
        WindowRequest {
            max_tokens: Some(1000),
            ..WindowRequest::default()
        },
    );
    session.scope(window).await.unwrap().origin
}

async fn fill(manager: &RolloutContextManager, id: &str) {
    let new = NewContext::of_agent("a").with_id(ContextId::parse(id).unwrap());
    manager.create(&key(id).tenant, new).await.unwrap();
    let append = AppendRequest {
        items: vec![NewItem::parse(r#"{"role":"user","content":"hello"}"#, 1 << 10).unwrap()],
        expected: None,
        idempotency_key: None,
    };
    manager.append(&key(id), append).await.unwrap();
}

// The migration from one to the other: no restart, and no answer from the past on the way.
#[tokio::test]
async fn flags_take_effect_at_once_and_in_both_directions() {
    let off = RolloutSettings {
        optimized: Flag::OFF,
        ..RolloutSettings::default()
    };
    let (manager, rollout) = manager(off);
    fill(&manager, "a").await;
    assert_eq!(origin(&manager, "a").await, Origin::Primary);
    assert_eq!(origin(&manager, "a").await, Origin::Primary);
    rollout.set(RolloutSettings::default());
    origin(&manager, "a").await;
    assert_eq!(origin(&manager, "a").await, Origin::L1);
    rollout.set(RolloutSettings {
        l1: Flag::OFF,
        ..RolloutSettings::default()
    });
    assert_eq!(origin(&manager, "a").await, Origin::Primary);
    rollout.set(off);
    // R1: what is written meanwhile is known to the cache when it is used again.
    fill(&manager, "b").await;
    let update = ContextPatch {
        name: Some(Some("new".to_owned())),
        ..ContextPatch::default()
    };
    manager.update(&key("a"), update, None).await.unwrap();
    rollout.set(RolloutSettings::default());
    let session = Session::new(Consistency::Bounded, Token::default());
    let context = session.scope(manager.get(&key("a"))).await.unwrap().value;
    assert_eq!(context.name.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_share_of_contexts_is_always_the_same_and_about_that_large() {
    let share = |percent| RolloutSettings {
        l1: Flag::Percent(percent),
        ..RolloutSettings::default()
    };
    let (small, large) = (Rollout::new(share(20)), Rollout::new(share(60)));
    let (mut in_small, mut in_large) = (0, 0);
    for number in 0..2000 {
        let key = key(&format!("c{number}"));
        let (few, many) = (small.decide(&key).plan.l1, large.decide(&key).plan.l1);
        assert!(many || !few, "who was in stays in when the share grows");
        assert_eq!(few, Rollout::new(share(20)).decide(&key).plan.l1);
        in_small += u32::from(few);
        in_large += u32::from(many);
    }
    assert!((300..500).contains(&in_small), "{in_small} of 2000");
    assert!((1050..1350).contains(&in_large), "{in_large} of 2000");
    assert_eq!(
        Rollout::new(share(0)).decide(&key("x")).plan,
        Plan {
            l1: false,
            ..Plan::default()
        }
    );
    assert_eq!(Rollout::new(share(100)).decide(&key("x")).plan, Plan::default());
}

async fn compared(rollout: &Rollout, many: u64) -> ShadowCounts {
    for _ in 0..1000 {
        let counts = rollout.shadows();
        if counts.same + counts.different + counts.moved + counts.failed >= many {
            return counts;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("{:?} after two seconds", rollout.shadows());
}

#[tokio::test]
async fn a_shadow_is_compared_and_changes_no_answer() {
    let (manager, rollout) = manager(RolloutSettings {
        optimized: Flag::SHADOW,
        ..RolloutSettings::default()
    });
    fill(&manager, "a").await;
    for round in 1..=3 {
        assert_eq!(origin(&manager, "a").await, Origin::Primary);
        assert_eq!(compared(&rollout, round).await.same, round);
    }
    assert_eq!(rollout.shadows().different, 0);
}

// A comparison that could not fail would be worth nothing.
#[tokio::test]
async fn a_shadow_that_answers_otherwise_is_counted() {
    let shadow = RolloutSettings {
        optimized: Flag::SHADOW,
        ..RolloutSettings::default()
    };
    let (here, _) = manager(shadow);
    let (elsewhere, _) = manager(shadow);
    fill(&here, "a").await;
    let new = NewContext::of_agent("another").with_id(ContextId::parse("a").unwrap());
    elsewhere.create(&key("a").tenant, new).await.unwrap();
    let patch = |name: &str| ContextPatch {
        name: Some(Some(name.to_owned())),
        ..ContextPatch::default()
    };
    elsewhere.update(&key("a"), patch("x"), None).await.unwrap();
    let rollout = Arc::new(Rollout::new(shadow));
    let torn = RolloutContextManager::new(
        here.standard.clone(),
        elsewhere.optimized.clone(),
        rollout.clone(),
    );
    torn.get(&key("a")).await.unwrap();
    assert_eq!(compared(&rollout, 1).await.different, 1);
    elsewhere.update(&key("a"), patch("y"), None).await.unwrap();
    torn.get(&key("a")).await.unwrap();
    assert_eq!(compared(&rollout, 2).await.moved, 1);
    elsewhere.delete(&key("a"), None).await.unwrap();
    torn.get(&key("a")).await.unwrap();
    assert_eq!(compared(&rollout, 3).await.failed, 1);
}
