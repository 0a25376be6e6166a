use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::*;
use crate::error::Error;
use crate::postgres::append::Committed;
use crate::store::Append;
use crate::{ContextId, NewItem, Result, TenantId, Timestamp, Tokenizer};

/// A database whose commits end when the test says so.
struct Database(mpsc::UnboundedSender<Begun>);

/// A group whose commit has begun; it ends, and each append is refused, when this is dropped.
struct Begun {
    size: usize,
    at: Instant,
    _end: oneshot::Sender<()>,
}

/// Stands for the outcome: what it is does not matter here.
fn refused() -> Result<Committed> {
    Err(Error::NotFound)
}

impl Commit for Database {
    async fn commit(&self, jobs: Vec<Job>) {
        let (end, ended) = oneshot::channel();
        let begun = Begun {
            size: jobs.len(),
            at: Instant::now(),
            _end: end,
        };
        self.0.send(begun).ok();
        ended.await.ok();
        for job in jobs {
            assert!(job.key.id.as_str() != "poison", "planted");
            job.answer(refused());
        }
    }
}

struct Stage {
    lanes: Arc<Lanes<Database>>,
    begun: mpsc::UnboundedReceiver<Begun>,
}

impl Stage {
    fn new(at_once: usize) -> Self {
        let (sender, begun) = mpsc::unbounded_channel();
        let most = GroupMax {
            jobs: 256,
            bytes: 1 << 20,
        };
        Self {
            lanes: Lanes::new(Database(sender), at_once, most),
            begun,
        }
    }

    /// Appends to a context of each name; the receivers learn the outcomes.
    fn enqueue(&self, names: impl IntoIterator<Item = String>) -> Vec<oneshot::Receiver<Result<Committed>>> {
        let item = NewItem::parse(r#"{"role":"user","content":"a"}"#, 1 << 20).unwrap();
        let (jobs, outcomes): (Vec<_>, Vec<_>) = names
            .into_iter()
            .map(|name| {
                let (reply, outcome) = oneshot::channel();
                let job = Job {
                    key: ContextKey::new(TenantId::parse("acme").unwrap(), ContextId::parse(&name).unwrap()),
                    append: Append {
                        items: Arc::from([item.clone()]),
                        tokenizer: Tokenizer::Estimate,
                        expected: None,
                        idempotency: None,
                    },
                    now: Timestamp::from_micros(0),
                    room: Room::of(&self.lanes.unanswered, 1),
                    reply,
                };
                (job, outcome)
            })
            .unzip();
        self.lanes.enqueue(jobs);
        outcomes
    }

    fn many(&self, prefix: &str, count: usize) -> Vec<oneshot::Receiver<Result<Committed>>> {
        self.enqueue((0..count).map(|number| format!("{prefix}{number}")))
    }

    async fn next(&mut self) -> Begun {
        self.begun.recv().await.unwrap()
    }

    /// Whether no group begins without any time passing.
    async fn is_quiet(&mut self) -> bool {
        for _ in 0..10 {
            yield_now().await;
        }
        self.begun.is_empty()
    }
}

#[tokio::test(start_paused = true)]
async fn few_writers_wait_for_nobody() {
    let mut stage = Stage::new(2);
    stage.many("a", 1);
    let _first = stage.next().await;
    stage.many("b", 2);
    assert_eq!(stage.next().await.size, 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_groups_than_lanes() {
    let mut stage = Stage::new(2);
    stage.many("a", 1);
    let first = stage.next().await;
    stage.many("b", 1);
    let _second = stage.next().await;
    stage.many("c", 200);
    assert!(stage.is_quiet().await);
    drop(first);
    assert_eq!(stage.next().await.size, 200);
}

#[tokio::test(start_paused = true)]
async fn under_load_a_small_group_gathers_until_the_one_under_way_ends() {
    let mut stage = Stage::new(2);
    stage.many("a", usize::try_from(MANY).unwrap());
    let first = stage.next().await;
    stage.many("b", 2);
    stage.many("c", 3);
    assert!(stage.is_quiet().await);
    let begun = first.at;
    drop(first);
    let second = stage.next().await;
    assert_eq!((second.size, second.at), (5, begun));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_takes_long_holds_up_nobody() {
    let mut stage = Stage::new(2);
    stage.many("a", usize::try_from(MANY).unwrap());
    let first = stage.next().await;
    stage.many("b", 2);
    let second = stage.next().await;
    assert!(second.at - first.at >= WAIT_MAX && second.at - first.at < 2 * WAIT_MAX);
    drop(second);
    // The one that hangs does not hold up those that come later either.
    stage.many("c", 1);
    assert_eq!(stage.next().await.size, 1);
}

#[tokio::test(start_paused = true)]
async fn enough_wait_for_nobody() {
    let mut stage = Stage::new(2);
    stage.many("a", usize::try_from(MANY).unwrap());
    let first = stage.next().await;
    stage.many("b", ENOUGH - 1);
    assert!(stage.is_quiet().await);
    stage.many("c", 1);
    let second = stage.next().await;
    assert_eq!((second.size, second.at), (ENOUGH, first.at));
}

#[tokio::test(start_paused = true)]
async fn a_context_waits_for_its_own_group_only() {
    let mut stage = Stage::new(2);
    stage.enqueue(["a".to_owned()]);
    let first = stage.next().await;
    stage.enqueue(["a".to_owned(), "b".to_owned()]);
    assert_eq!(stage.next().await.size, 1);
    assert!(stage.is_quiet().await);
    drop(first);
    assert_eq!(stage.next().await.size, 1);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_panics_leaves_the_others_alone() {
    let mut stage = Stage::new(1);
    let lost = stage.enqueue(["poison".to_owned()]);
    let poison = stage.next().await;
    let later = stage.enqueue(["poison2".to_owned(), "a".to_owned()]);
    drop(poison);
    for outcome in lost {
        assert!(outcome.await.is_err(), "nobody answers it");
    }
    drop(stage.next().await);
    for outcome in later {
        assert!(outcome.await.unwrap().is_err());
    }
    assert_eq!(stage.lanes.unanswered.jobs(), 0);
}

#[test]
fn a_runtime_that_ends_keeps_no_context() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    };
    let mut stage = Stage::new(1);
    let first = runtime();
    let (lost, _begun) = first.block_on(async { (stage.enqueue(["a".to_owned()]), stage.next().await) });
    drop(first);
    drop(lost);
    runtime().block_on(async {
        stage.enqueue(["a".to_owned()]);
        assert_eq!(stage.next().await.size, 1);
    });
}

#[tokio::test]
async fn what_is_refused_for_want_of_room_takes_none() {
    let waiting = Arc::new(Waiting::default());
    let first = waiting.admit(10, 2, 15).unwrap();
    let second = waiting.admit(10, 2, 15).unwrap();
    assert!(waiting.admit(1, 2, 100).is_none(), "as many as may wait");
    drop(second);
    assert!(waiting.admit(1, 9, 10).is_none(), "as many bytes as may wait");
    assert_eq!((waiting.jobs(), waiting.bytes.load(Ordering::Relaxed)), (1, 10));
    drop(first);
    assert_eq!((waiting.jobs(), waiting.bytes.load(Ordering::Relaxed)), (0, 0));
}
