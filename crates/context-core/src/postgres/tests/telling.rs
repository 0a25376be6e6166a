//! What writers tell a cache that they share: with a real Redis.

use contextkeep_cache::Read;
use contextkeep_test_support::eventually_async;

use super::history::{Naming, append_of, create, key};
use super::relaying::{Node, SOON, redis};
use super::*;
use crate::manager::Origin;
use crate::session::{Consistency, Session, Token};

// A writer that holds nothing says what it has made of the head all the same, so that nobody has to ask the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn writers_by_turns_leave_a_whole_head() {
    let scratch = Scratch::create(&shared()).await;
    let clock = crate::contract::clock();
    let url = redis();
    let node = || Node::start(&scratch, &clock, &url);
    let (writers, reader) = ([node().await, node().await], node().await);
    create(writers[0].store.as_ref(), 1).await;
    let key = key(0);
    for (version, writer) in (2..8).zip(writers.iter().cycle()) {
        let cache = writer.cached.cache();
        eventually_async("the other's change to be heard of", SOON, async || {
            let held = |name: &contextkeep_cache::Key| cache.get(name, &Read::new()).is_some();
            (!cache.recent(9).iter().any(held)).then_some(())
        })
        .await;
        let append = append_of(&format!("turn-{version}"), Naming::ClientId, 1);
        assert_eq!(writer.cached.append(&key, append).await.unwrap().version, version);
        let session = Session::new(Consistency::Session, Token::default());
        session.saw(&key, version);
        let head = session.scope(reader.cached.head(&key)).await.unwrap();
        assert_eq!(head, writer.store.head(&key).await.unwrap(), "{version}");
        // The first of all writers has nothing to go on from.
        let told = if version == 2 { Origin::Primary } else { Origin::L2 };
        assert_eq!(session.origin(), Some(told), "{version}");
    }
}
