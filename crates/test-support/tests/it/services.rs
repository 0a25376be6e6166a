use std::path::PathBuf;
use std::sync::Arc;

use contextkeep_test_support::postgres::PgMember;
use contextkeep_test_support::services::{Mode, REPLICAS};
use contextkeep_test_support::{Folder, Lifetime, RedisNode, Services, teardown};

/// Leaves nothing running when a test fails half way; after a success there is nothing left to do.
struct TearDown(PathBuf);

impl Drop for TearDown {
    fn drop(&mut self) {
        drop(teardown(&self.0, false));
    }
}

#[test]
#[ignore = "needs services"]
fn a_test_attaches_to_what_the_run_has_started() {
    let services = Services::attach();
    assert_eq!(services.urls.pg_replicas.len(), REPLICAS);
    assert!(services.urls.redis_cluster.len() >= 3);
    if services.mode == Mode::Local {
        let postgres = services.postgres().unwrap();
        assert_eq!(postgres.primary().dsn(), services.urls.pg_primary);
        assert!(postgres.members().iter().all(PgMember::is_running));
        assert!(services.redis().unwrap().is_running());
        assert!(
            services
                .redis_cluster()
                .unwrap()
                .nodes()
                .iter()
                .all(RedisNode::is_running)
        );
    }
}

#[test]
#[ignore = "needs server binaries"]
fn detached_services_stay_until_their_folder_is_torn_down() {
    let folder = Arc::new(Folder::create(Lifetime::Detached).unwrap());
    let root = folder.root().to_owned();
    let _on_panic = TearDown(root.clone());
    let started = Services::start_local(&folder).unwrap();
    let file = root.join("services.json");
    started.save(&file).unwrap();
    drop((started, folder));

    let found = Services::load(&file).unwrap();
    assert!(found.postgres().unwrap().primary().sql_value("select 1").unwrap() == "1");
    let pid = found.postgres().unwrap().primary().daemon().pid().unwrap();
    teardown(&root, false).unwrap();
    assert!(!root.exists() && !contextkeep_test_support::process::is_alive(pid));
}
