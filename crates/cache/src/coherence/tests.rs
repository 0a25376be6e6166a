use std::time::Duration;

use super::*;
use crate::version::{Key, Mark, Version};

fn at(seq: u64) -> Position {
    Position { seq, nonce: seq * 7 }
}

/// The change that brings the log of partition 0 to `seq`.
fn change(seq: u64) -> Logged {
    Logged {
        partition: 0,
        position: at(seq),
        before: at(seq - 1).nonce,
        notice: notice(seq),
    }
}

fn notice(version: u64) -> Notice {
    Notice::Key {
        key: Key::from("k"),
        version: Version::new(version),
        mark: Mark::ZERO,
    }
}

fn sent(ms: u64) -> Nanos {
    Nanos::ZERO.after(Duration::from_millis(ms))
}

struct Follower(Coherence);

impl Follower {
    /// One that has met the log at this position.
    fn met(seq: u64) -> Self {
        let mut follower = Self(Coherence::new(1));
        let met = follower.polled(1, seq);
        assert!(matches!(met[0], Step::Drop { suspect: false, .. }), "{met:?}");
        assert!(validated(&met));
        follower
    }

    fn heard(&mut self, logged: Logged) -> Vec<Step> {
        let mut steps = Vec::new();
        self.0.heard(logged, &mut steps);
        steps
    }

    fn polled(&mut self, ms: u64, seq: u64) -> Vec<Step> {
        let (before, mut steps) = (self.0.snapshot(), Vec::new());
        self.0.polled(sent(ms), &before, &[Some(at(seq))], &mut steps);
        steps
    }

    fn replayed(&mut self, after: u64, replay: Replay) -> Vec<Step> {
        let mut steps = Vec::new();
        self.0.replayed(0, at(after), replay, &mut steps);
        steps
    }
}

fn validated(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::Validate { .. }))
}

fn diverged(steps: &[Step]) -> bool {
    steps
        .iter()
        .any(|step| matches!(step, Step::Drop { suspect: true, .. }))
}

fn asks(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::Replay { .. }))
}

#[test]
fn messages_in_order_are_followed() {
    let mut follower = Follower::met(3);
    let steps = follower.heard(change(4));
    let expected = Step::Apply {
        notice: notice(4),
        in_order: true,
    };
    assert_eq!(steps, [expected]);
    assert!(validated(&follower.polled(2, 4)), "C2");
}

#[test]
fn messages_out_of_order_are_applied_at_once_and_followed_when_the_gap_closes() {
    let mut follower = Follower::met(3);
    let early = follower.heard(change(5));
    assert!(matches!(early[..], [Step::Apply { in_order: false, .. }]));
    assert!(!validated(&follower.polled(2, 5)), "C1: 4 is missing");
    let closing = follower.heard(change(4));
    let in_order = |step: &&Step| matches!(step, Step::Apply { in_order: true, .. });
    assert_eq!(closing.iter().filter(in_order).count(), 2);
    assert!(validated(&closing), "C2: the poll that came too early counts now");
    assert!(validated(&follower.polled(3, 5)));
}

#[test]
fn a_lost_message_is_replayed_after_the_second_poll() {
    // F7.
    let mut follower = Follower::met(3);
    assert!(!asks(&follower.polled(2, 5)), "F26: it may still be on its way");
    assert!(asks(&follower.polled(3, 5)));
    let steps = follower.replayed(3, Replay::Changes(vec![change(4), change(5)]));
    assert!(validated(&steps));
}

#[test]
fn a_doubled_message_changes_nothing() {
    let mut follower = Follower::met(3);
    follower.heard(change(4));
    let again = follower.heard(change(4));
    assert!(matches!(again[..], [Step::Apply { in_order: false, .. }]));
    assert!(validated(&follower.polled(2, 4)));
}

#[test]
fn a_log_that_went_back_is_another_log() {
    // F9.
    let mut follower = Follower::met(3);
    follower.heard(change(4));
    let steps = follower.polled(2, 3);
    assert!(diverged(&steps));
    let restored = Step::Restore {
        notices: vec![notice(4)],
    };
    assert!(steps.contains(&restored), "C3: what was lost is told again");
    assert!(validated(&follower.polled(3, 3)), "and the new one is met");
}

#[test]
fn a_log_that_went_back_and_caught_up_again_is_noticed_by_its_nonce() {
    // F9, F25.
    let mut follower = Follower::met(3);
    follower.heard(change(4));
    let mut other = change(5);
    other.before += 1;
    assert!(diverged(&follower.heard(other)));

    let mut follower = Follower::met(3);
    let before = follower.0.snapshot();
    let mut steps = Vec::new();
    let other = Position { seq: 3, nonce: 1 };
    follower.0.polled(sent(2), &before, &[Some(other)], &mut steps);
    assert!(diverged(&steps));
    assert!(!follower.0.agrees(0, Some(at(3)), other));
}

#[test]
fn a_poll_that_messages_have_overtaken_is_not_a_log_that_went_back() {
    let mut follower = Follower::met(3);
    let before = follower.0.snapshot();
    follower.heard(change(4));
    follower.heard(change(5));
    let mut steps = Vec::new();
    follower.0.polled(sent(2), &before, &[Some(at(4))], &mut steps);
    assert!(validated(&steps) && !diverged(&steps));
}

#[test]
fn a_replay_that_does_not_reach_back_is_a_divergence_unless_it_is_overtaken() {
    let mut follower = Follower::met(3);
    follower.heard(change(4));
    assert_eq!(follower.replayed(3, Replay::Lost), []);
    assert!(diverged(&follower.replayed(4, Replay::Lost)));
}

#[test]
fn a_silent_partition_whose_position_is_not_told_is_not_validated() {
    let mut follower = Follower::met(3);
    let (before, mut steps) = (follower.0.snapshot(), Vec::new());
    follower.0.polled(sent(2), &before, &[None], &mut steps);
    assert_eq!(steps, []);
}

#[test]
fn what_waits_behind_a_gap_is_bounded() {
    let mut follower = Follower::met(3);
    let mut asked = false;
    for seq in 5..200 {
        asked |= asks(&follower.heard(change(seq)));
        assert!(follower.0.logs[0].ahead.len() <= AHEAD);
    }
    assert!(asked);
}
