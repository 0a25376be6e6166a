//! Many appenders at once.

use super::history::{Dice, History, Naming, append_of, create, key};
use super::*;
use crate::store::ContextStore;

const APPENDERS: u64 = 200;
const APPENDS: u64 = 10;

async fn appenders(contexts: u64) {
    let scratch = Scratch::create(&shared()).await;
    let store = scratch.open(Arc::new(crate::SystemClock)).await;
    create(store.as_ref(), contexts).await;
    let history = Arc::new(History::default());
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let (store, history) = (store.clone(), history.clone());
            tokio::spawn(async move {
                let mut dice = Dice::new(appender + 1);
                for n in 0..APPENDS {
                    let context = dice.roll(contexts);
                    let name = format!("{appender}.{n}");
                    history.append(store.as_ref(), context, &name, &mut dice).await;
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.await.unwrap();
    }
    for context in 0..contexts {
        history.check(store.as_ref(), context).await;
    }
    assert!(history.acknowledged() as u64 >= APPENDERS * APPENDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn two_hundred_appenders_to_one_context_lose_and_double_nothing() {
    appenders(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn two_hundred_appenders_to_a_thousand_contexts_lose_and_double_nothing() {
    appenders(1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn one_append_that_is_refused_does_not_touch_its_neighbours() {
    let scratch = Scratch::create(&shared()).await;
    let store = scratch.open(Arc::new(crate::SystemClock)).await;
    create(store.as_ref(), 4).await;
    let good: Vec<_> = (0..50u64)
        .map(|n| {
            let store = store.clone();
            let append = append_of(&format!("good.{n}"), Naming::Key, 1);
            tokio::spawn(async move { store.append(&key(n % 4), append).await })
        })
        .collect();
    let bad: Vec<_> = (0..50u64)
        .map(|n| {
            let store = store.clone();
            let mut append = append_of(&format!("bad.{n}"), Naming::Key, 1);
            // Half of them name a version that is not there, half a context.
            let context = if n % 2 == 0 { n % 4 } else { 1000 + n };
            append.expected = (n % 2 == 0).then_some(1_000_000);
            tokio::spawn(async move { store.append(&key(context), append).await })
        })
        .collect();
    for outcome in good {
        outcome.await.unwrap().unwrap();
    }
    for (n, outcome) in bad.into_iter().enumerate() {
        match outcome.await.unwrap().unwrap_err() {
            Error::VersionMismatch {
                expected: 1_000_000, ..
            } if n % 2 == 0 => {}
            Error::NotFound if n % 2 == 1 => {}
            other => panic!("{n}: {other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_full_queue_refuses_and_forgets_nothing() {
    let scratch = Scratch::create(&shared()).await;
    let settings = DatabaseSettings {
        write_queue: 8,
        ..scratch.settings()
    };
    let store =
        Arc::new(PgContextStore::new(&settings.clone().into(), Arc::new(crate::SystemClock)).unwrap());
    prepared(&store).await;
    create(store.as_ref(), 1).await;
    let appends: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            let append = append_of(&format!("{n}"), Naming::None, 1);
            tokio::spawn(async move { store.append(&key(0), append).await })
        })
        .collect();
    let (mut stored, mut refused) = (0, 0);
    for append in appends {
        match append.await.unwrap() {
            Ok(_) => stored += 1,
            Err(Error::Overloaded { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0, "two hundred appends went through a queue of eight");
    assert_eq!(store.head(&key(0)).await.unwrap().item_count, stored);
    assert_eq!(store.check().await.unwrap().writes_waiting, 0);
    // What was refused has left no trace in the counts: there is room again.
    let append = append_of("after", Naming::None, 1);
    store.append(&key(0), append).await.unwrap();
}
