//! What a second level has to keep, for any implementation. Keys are new for each run.

use std::sync::Arc;
#[cfg(feature = "redis")]
use std::time::Duration;

use crate::entry::Body;
use crate::remote::{
    Applied, Backplane, Change, Fill, Filled, Lease, Leased, Logged, Notice, Position, Record, Replay,
    SecondLevel,
};
use crate::version::{Key, Mark, Version};

/// Both ports of one level.
#[derive(Clone)]
pub(crate) struct Level {
    pub(crate) tier: Arc<dyn SecondLevel>,
    pub(crate) backplane: Arc<dyn Backplane>,
    pub(crate) partitions: u16,
}

fn value(text: &str) -> Body {
    Body::Value(text.to_owned().into())
}

pub(crate) fn change(key: &Key, version: u64, mark: u64, body: Body) -> Change {
    Change {
        key: key.clone(),
        version: Version::new(version),
        mark: Mark::new(mark),
        body,
        tags: vec![(Key::from("red"), 7)],
    }
}

impl Level {
    pub(crate) async fn get(&self, key: &Key) -> (Option<Record>, Option<Position>) {
        let fetched = self.tier.get_one(key.clone()).await.unwrap();
        let among = self.tier.get(vec![key.clone(); 2]).await.remove(0).unwrap();
        let shown =
            |record: &Option<Record>| record.as_ref().map(|found| (found.version, found.body.clone()));
        assert_eq!(
            shown(&fetched.record),
            shown(&among.record),
            "one by itself is one among many"
        );
        (fetched.record, fetched.position)
    }

    pub(crate) async fn apply(&self, change: Change) -> Applied {
        self.tier.apply(vec![change]).await.remove(0).unwrap()
    }

    async fn lease(&self, key: &Key) -> Option<Lease> {
        match self.tier.lease(vec![key.clone()]).await.remove(0).unwrap() {
            Leased::Granted(lease) => Some(lease),
            Leased::Held => None,
        }
    }

    async fn fill(&self, key: &Key, token: u64, version: u64, body: Body) -> Filled {
        let fill = Fill {
            key: key.clone(),
            token,
            version: Version::new(version),
            body,
            tags: Vec::new(),
        };
        self.tier.fill(vec![fill]).await.remove(0).unwrap()
    }

    /// All of it.
    pub(crate) async fn keeps_the_contract(&self, unique: &str) {
        let key = |name: &str| Key::from(format!("{unique}:{name} with spaces"));
        self.versions_only_grow(&key("a")).await;
        self.a_fill_needs_its_lease(&key("b")).await;
        self.a_fill_is_not_a_change(&key("c")).await;
        self.marks_tell_what_came_later(&key("d")).await;
        self.a_log_is_a_chain(&key("e")).await;
        self.tags_have_generations(&key("f")).await;
        self.many_at_once(unique).await;
    }

    async fn versions_only_grow(&self, key: &Key) {
        assert_eq!(self.get(key).await.0, None);
        let done = self.apply(change(key, 2, 1, value("two"))).await;
        assert!(
            matches!(
                &done,
                Applied::Done {
                    logged: Some(_),
                    kept: true
                }
            ),
            "{done:?}"
        );
        let superseded = self.apply(change(key, 1, 1, value("one"))).await;
        assert_eq!(superseded, Applied::Superseded(Version::new(2)));
        let (record, _) = self.get(key).await;
        let record = record.unwrap();
        assert_eq!((record.version.get(), &record.body), (2, &value("two")));
        assert_eq!(record.tags, [(Key::from("red"), 7)]);
        let again = self.apply(change(key, 2, 1, Body::Unknown)).await;
        assert_eq!(
            again,
            Applied::Done {
                logged: None,
                kept: false
            }
        );
        assert_eq!(
            self.get(key).await.0.unwrap().body,
            value("two"),
            "a marker says less"
        );
        self.apply(change(key, 3, 1, Body::Absent)).await;
        assert_eq!(self.get(key).await.0.unwrap().body, Body::Absent);
        let huge = self.apply(change(key, u64::MAX, 1, value("last"))).await;
        assert!(
            matches!(huge, Applied::Done { kept: true, .. }),
            "no 53 bits: {huge:?}"
        );
        let under = self
            .apply(change(key, u64::MAX - 1, 1, value("last but one")))
            .await;
        assert_eq!(under, Applied::Superseded(Version::new(u64::MAX)));
    }

    async fn a_fill_needs_its_lease(&self, key: &Key) {
        let lease = self.lease(key).await.unwrap();
        assert_eq!(lease.floor, Version::ZERO);
        assert!(self.lease(key).await.is_none(), "one at a time");
        assert_eq!(
            self.fill(key, lease.token ^ 1, 1, value("x")).await,
            Filled::Refused
        );
        self.apply(change(key, 2, 1, Body::Unknown)).await;
        assert_eq!(
            self.fill(key, lease.token, 5, value("x")).await,
            Filled::Refused,
            "a change ends it"
        );
        let lease = self.lease(key).await.unwrap();
        assert_eq!(lease.floor.get(), 2);
        assert_eq!(
            self.fill(key, lease.token, 1, value("x")).await,
            Filled::Refused,
            "G6"
        );
        assert_eq!(self.fill(key, lease.token, 2, value("two")).await, Filled::Stored);
        assert_eq!(self.get(key).await.0.unwrap().body, value("two"));
        assert!(self.lease(key).await.is_some(), "a fill gives it back");
    }

    async fn a_fill_is_not_a_change(&self, key: &Key) {
        // A load that is ahead of the change it saw: when the change comes, the others still have to hear of it.
        let lease = self.lease(key).await.unwrap();
        assert_eq!(
            self.fill(key, lease.token, 4, value("four")).await,
            Filled::Stored
        );
        let done = self.apply(change(key, 4, 1, Body::Unknown)).await;
        assert!(matches!(done, Applied::Done { logged: Some(_), .. }), "{done:?}");
        let again = self.apply(change(key, 4, 1, Body::Unknown)).await;
        assert!(matches!(again, Applied::Done { logged: None, .. }), "{again:?}");
        assert_eq!(self.get(key).await.0.unwrap().body, value("four"));
    }

    async fn marks_tell_what_came_later(&self, key: &Key) {
        self.apply(change(key, 1, 50, value("one"))).await;
        let other = Key::from(format!("{key} other"));
        // A second key of the same partition, which has nothing yet.
        let same = (0..10_000)
            .map(|number| Key::from(format!("{other}{number}")))
            .find(|same| self.partition(same) == self.partition(key))
            .unwrap();
        let late = self.apply(change(&same, 1, 40, value("late"))).await;
        assert!(
            matches!(
                late,
                Applied::Done {
                    kept: false,
                    logged: Some(_)
                }
            ),
            "{late:?}"
        );
        assert_eq!(self.get(&same).await.0.unwrap().body, Body::Unknown);
        let again = self.apply(change(&same, 1, 40, value("late"))).await;
        assert!(
            matches!(again, Applied::Done { kept: false, .. }),
            "nor over its own marker: {again:?}"
        );
        assert_eq!(self.get(&same).await.0.unwrap().body, Body::Unknown);
        assert_eq!(self.lease(&same).await.unwrap().mark, Mark::new(50));
    }

    fn partition(&self, key: &Key) -> u16 {
        crate::partition::partition_of(key, self.partitions)
    }

    async fn logged(&self, change: Change) -> Logged {
        match self.apply(change).await {
            Applied::Done {
                logged: Some(logged), ..
            } => logged,
            other => panic!("{other:?}"),
        }
    }

    async fn a_log_is_a_chain(&self, key: &Key) {
        let first = self.logged(change(key, 1, 100, Body::Unknown)).await;
        let second = self.logged(change(key, 2, 101, Body::Unknown)).await;
        assert_eq!(second.position.seq, first.position.seq + 1);
        assert_eq!(second.before, first.position.nonce);
        assert_eq!(second.partition, self.partition(key));
        let expected = Notice::Key {
            key: key.clone(),
            version: Version::new(2),
            mark: Mark::new(101),
        };
        assert_eq!(second.notice, expected);
        assert_eq!(self.get(key).await.1, Some(second.position));
        let positions = self.backplane.positions().await;
        assert_eq!(positions.len(), usize::from(self.partitions));
        assert!(positions.iter().all(Option::is_some), "asking begins the logs");
        assert_eq!(positions[usize::from(second.partition)], Some(second.position));

        let replay = |after| self.backplane.replay(second.partition, after);
        assert!(matches!(replay(second.position).await.unwrap(), Replay::Changes(none) if none.is_empty()));
        let Replay::Changes(changes) = replay(first.position).await.unwrap() else {
            panic!("it is still there");
        };
        assert_eq!(changes, std::slice::from_ref(&second));
        let other = Position {
            nonce: first.position.nonce ^ 1,
            ..first.position
        };
        assert!(
            matches!(replay(other).await.unwrap(), Replay::Lost),
            "another history"
        );
        let ahead = Position {
            seq: second.position.seq + 5,
            nonce: 1,
        };
        assert!(
            matches!(replay(ahead).await.unwrap(), Replay::Lost),
            "a later one"
        );
    }

    async fn tags_have_generations(&self, tag: &Key) {
        let ask = || async { self.tier.tags(vec![tag.clone()]).await.remove(0).unwrap() };
        let first = ask().await;
        assert!(first != 0 && first == ask().await);
        let raised = self.tier.bump(tag.clone()).await.unwrap();
        let Notice::Tag { generation, .. } = raised.notice else {
            panic!("{raised:?}");
        };
        assert!(generation > first && generation == ask().await);
        assert_eq!(generation, raised.position.generation());
    }

    async fn many_at_once(&self, unique: &str) {
        let keys: Vec<Key> = (0..40)
            .map(|number| Key::from(format!("{unique}:many{number}")))
            .collect();
        let changes = keys
            .iter()
            .map(|key| change(key, 1, u64::MAX / 2, value(key)))
            .collect();
        let applied = self.tier.apply(changes).await;
        assert!(
            applied
                .iter()
                .all(|one| matches!(one, Ok(Applied::Done { kept: true, .. })))
        );
        let got = self.tier.get(keys.clone()).await;
        for (key, got) in keys.iter().zip(got) {
            assert_eq!(got.unwrap().record.unwrap().body, value(key));
        }
    }

    /// A message comes to who listens. Only for levels that send any.
    #[cfg(feature = "redis")]
    pub(crate) async fn tells(&self, unique: &str) {
        let (sink, mut inbox) = tokio::sync::mpsc::channel(64);
        let listening = tokio::spawn(self.backplane.listen(sink));
        let key = Key::from(format!("{unique}:told"));
        let mut version = 0;
        // Until the subscription stands, messages pass by.
        let heard = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                version += 1;
                self.apply(change(&key, version, 0, Body::Unknown)).await;
                let next = tokio::time::timeout(Duration::from_millis(50), inbox.recv()).await;
                if let Ok(Some(logged)) = next {
                    return logged;
                }
            }
        });
        let heard = heard.await.unwrap();
        assert!(matches!(heard.notice, Notice::Key { key: of, .. } if of == key));
        listening.abort();
    }
}
