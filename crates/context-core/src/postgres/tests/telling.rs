//! What writers tell a cache that they share: with a real Redis.

use contextkeep_test_support::eventually_async;

use super::history::{Naming, append_of, create, key};
use super::relaying::{Node, SOON, redis, sql};
use super::*;
use crate::Version;
use crate::manager::Origin;
use crate::session::{Consistency, Session, Token};

// A writer that holds nothing says what it has made of the head all the same, so that nobody has to ask the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn writers_by_turns_leave_a_whole_head() {
    let scratch = Scratch::create(&shared()).await;
    let nodes = Nodes::start(&scratch).await;
    create(nodes.writers[0].store.as_ref(), 1).await;
    for version in 2..8 {
        let writer = nodes.turn(version, 1).await;
        let append = append_of(&format!("turn-{version}"), Naming::ClientId, 1);
        assert_eq!(
            writer.cached.append(&key(0), append).await.unwrap().version,
            version
        );
        // The first of all writers has nothing to go on from.
        let told = if version == 2 { Origin::Primary } else { Origin::L2 };
        assert_eq!(nodes.read(&key(0), version).await, told, "{version}");
        if version == 2 {
            // A reader is answered before what he has loaded is in Redis, where the next writer is to find it, and keeps it
            // himself after that.
            eventually_async("what was loaded to be kept", SOON, async || {
                (nodes.read(&key(0), version).await == Origin::L1).then_some(())
            })
            .await;
        }
    }
}

// So do batches, each of whose contexts is asked for, and replacements, whose store knows the whole head.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn batches_and_replacements_leave_whole_heads() {
    const CONTEXTS: u64 = 3;
    let scratch = Scratch::create(&shared()).await;
    let nodes = Nodes::start(&scratch).await;
    create(nodes.writers[0].store.as_ref(), CONTEXTS).await;
    for version in 2..8 {
        let writer = nodes.turn(version, CONTEXTS).await;
        let name = |context| format!("turn-{version}-{context}");
        let append = |context| append_of(&name(context), Naming::ClientId, 1);
        if version % 3 == 2 {
            for context in 0..CONTEXTS {
                let replaced = writer.cached.replace(&key(context), append(context)).await;
                assert_eq!(replaced.unwrap().appended.version, version);
            }
        } else {
            let batch = (0..CONTEXTS)
                .map(|context| (key(context).id, append(context)))
                .collect();
            for appended in writer.cached.append_many(&key(0).tenant, batch).await {
                assert_eq!(appended.unwrap().version, version);
            }
        }
        for context in 0..CONTEXTS {
            assert_eq!(nodes.read(&key(context), version).await, Origin::L2, "{version}");
        }
    }
}

/// Two that write by turns, and one that reads.
struct Nodes {
    writers: [Node; 2],
    reader: Node,
}

impl Nodes {
    /// On a database whose writes take longer than a look into Redis, as those do that reach a disk.
    async fn start(scratch: &Scratch) -> Self {
        let clock = crate::contract::clock();
        let url = redis();
        let node = || Node::start(scratch, &clock, &url);
        let nodes = Self {
            writers: [node().await, node().await],
            reader: node().await,
        };
        let slow = "CREATE FUNCTION contextkeep.slow() RETURNS trigger LANGUAGE plpgsql
                AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
            CREATE TRIGGER slow AFTER INSERT OR UPDATE ON contextkeep.heads
                FOR EACH STATEMENT EXECUTE FUNCTION contextkeep.slow()";
        sql(scratch, slow).await;
        nodes
    }

    /// The writer of this version, once it has heard that the heads that it holds are out of date.
    async fn turn(&self, version: Version, contexts: u64) -> &Node {
        let writer = &self.writers[usize::from(version % 2 == 1)];
        eventually_async("the other's change to be heard of", SOON, async || {
            let is_held = |context| writer.cached.head_ready(&key(context)).is_some();
            (!(0..contexts).any(is_held)).then_some(())
        })
        .await;
        writer
    }

    /// Where a reader who has seen this version gets the head from, which is the one that the store has.
    async fn read(&self, key: &ContextKey, version: Version) -> Origin {
        let session = Session::new(Consistency::Session, Token::default());
        session.saw(key, version);
        let head = session.scope(self.reader.cached.head(key)).await.unwrap();
        assert_eq!(head, self.writers[0].store.head(key).await.unwrap(), "{version}");
        session.origin().unwrap()
    }
}
