use std::sync::Arc;

use super::*;
use crate::store::Idempotency;
use crate::{ContextId, NewItem, TenantId};

fn job(context: &str, body: &str, key: Option<&str>, expected: Option<u64>) -> Job {
    let item = NewItem::parse(body, 1 << 20).unwrap();
    Job {
        key: ContextKey::new(
            TenantId::parse("acme").unwrap(),
            ContextId::parse(context).unwrap(),
        ),
        append: Append {
            items: Arc::from([item]),
            tokenizer: Tokenizer::Estimate,
            expected,
            idempotency: key.map(|key| Idempotency {
                key: IdempotencyKey::parse(key).unwrap(),
                fingerprint: [0; 32],
            }),
        },
        now: Timestamp::from_micros(0),
        room: Room::of(&Arc::default(), body.len() as u64),
        reply: oneshot::channel().0,
    }
}

fn plain(context: &str) -> Job {
    job(context, r#"{"role":"user","content":"a"}"#, None, None)
}

fn keyed(context: &str, key: &str) -> Job {
    job(context, r#"{"role":"user","content":"a"}"#, Some(key), None)
}

fn queue(jobs: impl IntoIterator<Item = Job>) -> Queue {
    let mut queue = Queue::default();
    for job in jobs {
        queue.push(job);
    }
    queue
}

const FOUR: GroupMax = GroupMax {
    jobs: 4,
    bytes: 1 << 20,
};

fn names(group: &Group) -> Vec<String> {
    group.jobs.iter().map(|job| job.key.id.to_string()).collect()
}

/// What goes into a group of at most four, and how many could go into another one at the same time.
fn take(jobs: impl IntoIterator<Item = Job>) -> (Vec<String>, usize) {
    let mut queue = queue(jobs);
    let group = queue.take(FOUR);
    (names(&group), queue.ready())
}

#[test]
fn plain_appends_of_one_context_go_together_up_to_the_limit() {
    let jobs = ["a", "a", "b", "a", "c", "d"].map(plain);
    let (taken, ready) = take(jobs);
    assert_eq!(taken, ["a", "a", "a", "b"]);
    assert_eq!(ready, 2);
}

#[test]
fn a_context_is_in_one_group_at_a_time() {
    let mut queue = queue(["a", "a", "b"].map(plain));
    let first = queue.take(FOUR);
    queue.push(plain("a"));
    queue.push(plain("c"));
    assert_eq!(queue.ready(), 1);
    let second = queue.take(FOUR);
    assert_eq!(names(&second), ["c"]);
    assert!(queue.take(FOUR).jobs.is_empty());
    queue.release(&first.contexts);
    assert_eq!(queue.ready(), 1);
    assert_eq!(names(&queue.take(FOUR)), ["a"]);
    queue.release(&second.contexts);
    assert_eq!(queue.ready(), 0);
}

#[test]
fn a_context_that_left_some_behind_goes_behind_the_others() {
    let mut queue = queue(["a"; 6].map(plain));
    let first = queue.take(FOUR);
    assert_eq!(names(&first), ["a"; 4]);
    assert_eq!(queue.ready(), 0);
    queue.push(plain("b"));
    queue.release(&first.contexts);
    assert_eq!(names(&queue.take(FOUR)), ["b", "a", "a"]);
}

#[test]
fn appends_of_a_context_keep_their_order() {
    let names = ["1", "2", "2", "3", "4", "5"];
    let mut queue = queue(names.map(|key| keyed("a", key)));
    queue.push(keyed("b", "1"));
    let mut order = Vec::new();
    // The one under way and what comes meanwhile.
    while queue.ready() > 0 {
        let group = queue.take(FOUR);
        queue.push(plain("c"));
        order.extend(group.jobs.iter().filter_map(|job| {
            let key = job.append.idempotency.as_ref()?.key.as_str();
            (job.key.id.as_str() == "a").then(|| key.to_owned())
        }));
        queue.release(&group.contexts);
        if order.len() == names.len() {
            break;
        }
    }
    assert_eq!(order, names);
}

#[test]
fn what_was_answered_leaves_nothing_behind() {
    let mut queue = queue(["a", "b"].map(plain));
    let group = queue.take(FOUR);
    queue.release(&group.contexts);
    assert!(queue.lines.is_empty() && queue.turns.is_empty());
}

#[test]
fn a_key_that_stands_twice_waits_and_holds_back_its_context() {
    let (taken, ready) = take([keyed("a", "k"), keyed("a", "k"), plain("a"), plain("b")]);
    assert_eq!(taken, ["a", "b"]);
    assert_eq!(ready, 0);
}

#[test]
fn a_client_id_that_stands_twice_waits() {
    let named = || {
        job(
            "a",
            r#"{"role":"user","content":"a","client_id":"m1"}"#,
            None,
            None,
        )
    };
    assert_eq!(take([named(), named()]).0.len(), 1);
}

#[test]
fn an_append_that_names_a_version_is_alone() {
    let conditional = || job("a", r#"{"role":"user","content":"a"}"#, None, Some(3));
    assert_eq!(take([conditional(), plain("a")]).0.len(), 1);
    assert_eq!(take([plain("a"), conditional()]).0.len(), 1);
    assert_eq!(take([plain("b"), conditional()]).0.len(), 2);
}

#[test]
fn bytes_bound_a_group_but_never_empty_it() {
    let mut queue = queue(["a", "b"].map(plain));
    let most = GroupMax { jobs: 10, bytes: 1 };
    assert_eq!(names(&queue.take(most)), ["a"]);
    assert_eq!(queue.ready(), 1);
    assert_eq!(names(&queue.take(most)), ["b"]);
}
