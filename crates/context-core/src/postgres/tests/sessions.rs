//! Sessions over two nodes and two replicas: no read below what its client has seen (G4), none beyond the bound (G5).

use contextkeep_test_support::{PgCluster, eventually_async};

use super::history::{Naming, append_of, create, key, tenant};
use super::*;
use crate::manager::Origin;
use crate::session::{Consistency, Session, Token};
use crate::settings::ReplicaSettings;
use crate::store::{ContextStore, ListQuery, TailQuery};

const SOON: Duration = Duration::from_secs(30);

struct Nodes {
    cluster: PgCluster,
    first: Arc<PgContextStore>,
    second: Arc<PgContextStore>,
}

/// Two servers over one primary and its replicas.
async fn nodes() -> Nodes {
    let cluster = PgCluster::builder().replicas(2).start().unwrap();
    let database = DatabaseSettings {
        dsn: Some(SecretString::from(cluster.primary().dsn())),
        max_open_conns: 12,
        ..DatabaseSettings::default()
    };
    let settings = PostgresSettings {
        replicas: cluster
            .replicas()
            .map(|replica| ReplicaSettings::at(replica.dsn()))
            .collect(),
        ..database.into()
    };
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let store = PgContextStore::new(&settings, Arc::new(crate::SystemClock)).unwrap();
        prepared(&store).await;
        eventually_async("the servers were looked at", SOON, async || store.servers.epoch()).await;
        nodes.push(Arc::new(store));
    }
    let (second, first) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    Nodes {
        cluster,
        first,
        second,
    }
}

fn query() -> TailQuery {
    TailQuery {
        max_tokens: None,
        reserve: 0,
        items_max: 100,
        bytes_max: 1 << 20,
    }
}

/// Appends in a session that began with `token`; answers the token after it, versions included as a manager does.
async fn append(store: &PgContextStore, token: Token, name: &str) -> Token {
    let session = Session::new(Consistency::Session, token);
    session
        .scope(async {
            let appended = store
                .append(&key(0), append_of(name, Naming::None, 1))
                .await
                .unwrap();
            session.saw(&key(0), appended.version);
        })
        .await;
    session.token()
}

/// Items that a read in a session sees, and where it was answered.
async fn tail(store: &PgContextStore, consistency: Consistency, token: &Token) -> (u64, Origin) {
    let session = Session::new(consistency, token.clone());
    let tail = session.scope(store.tail(&key(0), query())).await.unwrap();
    (tail.context.item_count, session.origin().unwrap())
}

fn pause(cluster: &PgCluster, paused: bool) {
    for replica in cluster.replicas() {
        let verb = if paused { "pause" } else { "resume" };
        replica.sql(&format!("SELECT pg_wal_replay_{verb}()")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_session_never_sees_less_than_it_has_seen_and_nobody_beyond_the_bound() {
    let nodes = nodes().await;
    create(nodes.first.as_ref(), 1).await;
    let mut token = append(&nodes.first, Token::default(), "before").await;
    eventually_async("a replica answers", SOON, async || {
        let (items, origin) = tail(&nodes.second, Consistency::Session, &token).await;
        assert_eq!(items, 1);
        (origin == Origin::Replica).then_some(())
    })
    .await;

    pause(&nodes.cluster, true);
    for n in 2..30 {
        token = append(&nodes.first, token, &n.to_string()).await;
        // Another node, right away: what this client wrote, or nothing.
        assert_eq!(
            tail(&nodes.second, Consistency::Session, &token).await,
            (n, Origin::Primary)
        );
        assert_eq!(
            tail(&nodes.second, Consistency::Strong, &Token::default())
                .await
                .0,
            n
        );
    }
    // Without a token: as soon as the replicas are known to be behind for longer than the bound, nobody is sent there.
    eventually_async("the replicas are known to be behind", SOON, async || {
        let (items, origin) = tail(&nodes.second, Consistency::Session, &Token::default()).await;
        (origin == Origin::Primary && items == 29).then_some(())
    })
    .await;
    for _ in 0..20 {
        let (items, _) = tail(&nodes.second, Consistency::Bounded, &Token::default()).await;
        assert_eq!(items, 29);
    }

    pause(&nodes.cluster, false);
    eventually_async("replicas answer again", SOON, async || {
        let (items, origin) = tail(&nodes.second, Consistency::Session, &token).await;
        assert_eq!(items, 29);
        (origin == Origin::Replica).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn lists_show_what_the_session_created() {
    let nodes = nodes().await;
    let list = async |token: &Token| {
        let session = Session::new(Consistency::Session, token.clone());
        let query = ListQuery {
            limit: 1000,
            ..ListQuery::default()
        };
        let page = session.scope(nodes.second.list(&tenant(), query)).await.unwrap();
        (page.contexts.len(), session.origin().unwrap(), session.token())
    };
    let mut token = Token::default();
    let mut from_replicas = 0;
    for n in 0..60 {
        let session = Session::new(Consistency::Session, token.clone());
        let new = NewContext::of_agent("a").with_id(key(n).id);
        session.scope(nodes.first.create(&tenant(), new)).await.unwrap();
        token = session.token();
        assert!(token.position().is_some());
        let (contexts, origin, after) = list(&token).await;
        assert_eq!(contexts as u64, n + 1, "answered by {origin:?}");
        from_replicas += u64::from(origin == Origin::Replica);
        token = after;
    }
    eventually_async("a replica has everything", SOON, async || {
        let (contexts, origin, _) = list(&token).await;
        assert_eq!(contexts, 60);
        (origin == Origin::Replica).then_some(())
    })
    .await;
    // Not a demand: how many depends on the machine.
    tracing::debug!(from_replicas, "of 60 lists right after a write");
}

/// Items of each context that a read of many in a session sees, and where it was answered.
async fn heads(store: &PgContextStore, token: &Token, contexts: u64) -> (Vec<Option<u64>>, Origin) {
    let session = Session::new(Consistency::Session, token.clone());
    let ids: Vec<_> = (0..contexts).map(|n| key(n).id).collect();
    let heads = session.scope(store.heads(&tenant(), &ids)).await.unwrap();
    let items = heads
        .into_iter()
        .map(|head| head.map(|head| head.item_count))
        .collect();
    (items, session.origin().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn batches_keep_to_the_session() {
    let nodes = nodes().await;
    create(nodes.first.as_ref(), 3).await;
    let append = async |name: &str, token: Token| {
        let session = Session::new(Consistency::Session, token);
        let appends = (0..3)
            .map(|n| (key(n).id, append_of(name, Naming::None, 1)))
            .collect();
        let outcomes = session.scope(nodes.first.append_many(&tenant(), appends)).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        session.token()
    };
    let early = append("before", Token::default()).await;
    assert!(early.position().is_some());
    eventually_async("a replica answers", SOON, async || {
        let (items, origin) = heads(&nodes.second, &early, 3).await;
        assert_eq!(items, [Some(1); 3]);
        (origin == Origin::Replica).then_some(())
    })
    .await;

    pause(&nodes.cluster, true);
    let late = append("after", early.clone()).await;
    let newest = (vec![Some(2); 3], Origin::Primary);
    assert_eq!(heads(&nodes.second, &late, 3).await, newest);
    // A read of one context leaves its version in the token and no position.
    let session = Session::new(Consistency::Session, early);
    session.saw(&key(1), 3);
    assert_eq!(heads(&nodes.second, &session.token(), 3).await, newest);
    let everything = ListQuery {
        limit: 10,
        ..ListQuery::default()
    };
    let listed = session
        .scope(nodes.second.list(&tenant(), everything))
        .await
        .unwrap();
    assert_eq!(session.origin(), Some(Origin::Primary));
    assert!(listed.contexts.iter().all(|context| context.version == 3));

    let session = Session::new(Consistency::Session, late);
    let deletes = vec![(key(0).id, None), (key(2).id, Some(3))];
    let outcomes = session.scope(nodes.first.delete_many(&tenant(), deletes)).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let left = (vec![None, Some(2), None], Origin::Primary);
    assert_eq!(heads(&nodes.second, &session.token(), 3).await, left);
}

/// The setting by which commits wait for a standby, on the primary.
fn wait_for(cluster: &PgCluster, standbys: &str) {
    let primary = cluster.primary();
    primary
        .sql(&format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{standbys}'"
        ))
        .unwrap();
    primary.sql("SELECT pg_reload_conf()").unwrap();
}

// A standby shows a commit that the primary does not show yet: nothing is lost, and nobody is told that it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn what_a_standby_shows_first_is_waited_for() {
    let nodes = nodes().await;
    create(nodes.first.as_ref(), 1).await;
    let token = append(&nodes.first, Token::default(), "first").await;
    wait_for(&nodes.cluster, "nobody");
    let mut writer = nodes.cluster.primary().connect("contextkeep").unwrap();
    // It has no answer before somebody is waited for who is there.
    let write = std::thread::spawn(move || drop(writer.query("UPDATE contextkeep.heads SET version = 9")));
    let seen = eventually_async("a standby shows it", SOON, async || {
        let session = Session::new(Consistency::Any, token.clone());
        let head = session.scope(nodes.second.head(&key(0))).await.unwrap();
        session.saw(&key(0), head.version);
        (head.version == 9).then(|| session.token())
    })
    .await;
    let strong = async || {
        let session = Session::new(Consistency::Strong, seen.clone());
        session.scope(nodes.second.head(&key(0))).await
    };
    let error = strong().await.unwrap_err();
    assert_eq!(error.code(), "unavailable", "{error}");
    wait_for(&nodes.cluster, "");
    let head = eventually_async("the primary shows it", SOON, async || match strong().await {
        Err(Error::Unavailable { .. }) => None,
        other => Some(other.unwrap()),
    })
    .await;
    assert_eq!(head.version, 9);
    write.join().unwrap();
}

// A create whose client went away is there, by the primary alone: who asks for it again waits as the first one did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn who_finds_a_context_waits_for_standbys_as_who_creates_it() {
    let cluster = PgCluster::builder().replicas(1).start().unwrap();
    let database = DatabaseSettings {
        dsn: Some(SecretString::from(cluster.primary().dsn())),
        durability: Durability::Replicated,
        ..DatabaseSettings::default()
    };
    wait_for(&cluster, "ANY 1 (*)");
    let store = PgContextStore::new(&database.into(), Arc::new(crate::SystemClock)).unwrap();
    eventually_async("the server has its new setting", SOON, async || {
        store.prepare().await.ok()
    })
    .await;
    wait_for(&cluster, "nobody");
    let create = async || {
        let new = NewContext::of_agent("a").with_id(key(0).id);
        store.create(&tenant(), new).await
    };
    let a_moment = Duration::from_secs(1);
    let first = tokio::time::timeout(a_moment, create()).await;
    assert!(first.is_err(), "{first:?}");
    eventually_async("the primary has it", SOON, async || {
        let count = cluster
            .primary()
            .sql_value("SELECT count(*) FROM contextkeep.contexts")
            .unwrap();
        (count == "1").then_some(())
    })
    .await;
    let again = tokio::time::timeout(a_moment, create()).await;
    assert!(again.is_err(), "{again:?}");
    wait_for(&cluster, "");
    let found = eventually_async("it is found", SOON, async || create().await.ok()).await;
    assert!(!found.is_new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn what_a_failover_lost_is_said() {
    let nodes = nodes().await;
    create(nodes.first.as_ref(), 1).await;
    let token = append(&nodes.first, Token::default(), "kept").await;
    nodes.cluster.wait_replayed(SOON).unwrap();
    // The standbys are cut off from what comes now.
    for replica in nodes.cluster.replicas() {
        replica
            .sql("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
            .unwrap();
        replica.sql("SELECT pg_reload_conf()").unwrap();
    }
    // Both: one that still receives shows what the other has lost.
    for replica in nodes.cluster.replicas() {
        eventually_async("the standby is cut off", SOON, async || {
            let receivers = replica
                .sql_value("SELECT count(*) FROM pg_stat_wal_receiver")
                .unwrap();
            (receivers == "0").then_some(())
        })
        .await;
    }
    let lost = append(&nodes.first, token.clone(), "lost").await;
    let name = nodes.cluster.replicas().next().unwrap().name().to_owned();
    nodes.cluster.primary().kill().unwrap();
    nodes.cluster.promote(&name).unwrap();
    let error = eventually_async("the new primary is found", SOON, async || {
        let session = Session::new(Consistency::Session, lost.clone());
        match session.scope(nodes.second.tail(&key(0), query())).await {
            Err(error @ Error::SessionLost { .. }) => Some(error),
            Err(Error::Unavailable { .. } | Error::Overloaded { .. }) => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert_eq!(error.code(), "session_lost", "{error}");
    // What was there before the failover is still there for who has not seen more.
    let (items, _) = tail(&nodes.second, Consistency::Session, &token).await;
    assert_eq!(items, 1);
    eventually_async("writes go on", SOON, async || {
        let append = append_of("after", Naming::Key, 1);
        nodes.first.append(&key(0), append).await.ok()
    })
    .await;
}

// G9: who knows from elsewhere which version is within the bound needs nobody to vouch for the replica that has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_version_that_is_known_to_do_is_read_while_the_primary_is_silent() {
    let nodes = nodes().await;
    create(nodes.first.as_ref(), 1).await;
    let token = append(&nodes.first, Token::default(), "one").await;
    let version = token.floor(&key(0)).unwrap();
    nodes.cluster.wait_replayed(SOON).unwrap();
    nodes.cluster.primary().freeze().unwrap();
    let key = key(0);
    let read = async |least| {
        let session = Session::new(Consistency::Bounded, Token::default());
        let tail = nodes.second.tail(&key, query());
        let items = session
            .scope(async {
                match least {
                    Some(version) => Session::at_least(&key, version, tail).await,
                    None => tail.await,
                }
            })
            .await
            .map(|tail| tail.context.item_count);
        (items, session.origin())
    };
    eventually_async("no replica is within the bound", SOON, async || {
        read(None).await.0.is_err().then_some(())
    })
    .await;
    assert!(matches!(
        read(Some(version)).await,
        (Ok(1), Some(Origin::Replica))
    ));
    let (later, _) = read(Some(version + 1)).await;
    assert_eq!(later.unwrap_err().code(), "unavailable");
    nodes.cluster.primary().thaw().unwrap();
}

// G9: a list may take as long as a statement may, but not on a replica that answers nobody.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs server binaries"]
async fn a_list_under_way_on_a_frozen_replica_goes_elsewhere() {
    let nodes = nodes().await;
    create(&*nodes.first, 1).await;
    let query = || ListQuery {
        limit: 10,
        ..ListQuery::default()
    };
    let list = || async {
        let session = Session::new(Consistency::Bounded, Token::default());
        session.scope(nodes.first.list(&tenant(), query())).await
    };
    eventually_async("a list comes from a replica", SOON, async || {
        let session = Session::new(Consistency::Bounded, Token::default());
        session.scope(nodes.first.list(&tenant(), query())).await.unwrap();
        (session.origin() == Some(Origin::Replica)).then_some(())
    })
    .await;
    for replica in nodes.cluster.replicas() {
        replica.freeze().unwrap();
    }
    // Far below the limit of a statement, which is what it waited for before.
    let lists = futures_util::future::join_all((0..8).map(|_| list()));
    let lists = tokio::time::timeout(DatabaseSettings::default().statement_timeout / 2, lists);
    for page in lists.await.expect("nobody waits for a frozen replica") {
        assert_eq!(page.unwrap().contexts.len(), 1);
    }
    for replica in nodes.cluster.replicas() {
        replica.thaw().unwrap();
    }
}
