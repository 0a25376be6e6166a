//! Loom: no interleaving spends more than there is.

use loom::thread;

use super::{Budget, Extra};

#[test]
fn the_last_token_is_spent_once() {
    loom::model(|| {
        let budget = Budget::tokens(0.0, 1);
        let other = budget.clone();
        let thread = thread::spawn(move || other.try_spend(Extra::Retry).is_some());
        let mine = budget.try_spend(Extra::Retry).is_some();
        assert!(mine ^ thread.join().unwrap());
    });
}

#[test]
fn a_share_is_never_exceeded_and_always_returned() {
    loom::model(|| {
        let budget = Budget::share_of_in_flight(0.0, 1);
        let other = budget.clone();
        let thread = thread::spawn(move || other.try_spend(Extra::Hedge));
        let mine = budget.try_spend(Extra::Retry);
        let theirs = thread.join().unwrap();
        assert!(mine.is_some() ^ theirs.is_some());
        drop((mine, theirs));
        assert!(budget.try_spend(Extra::Retry).is_some());
    });
}
