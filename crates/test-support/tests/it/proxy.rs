use contextkeep_test_support::postgres::{Connection, DATABASE, USER};
use contextkeep_test_support::{PgCluster, Proxy, RedisNode};

use crate::SOON;

#[test]
#[ignore = "needs server binaries"]
fn a_member_behind_a_proxy_is_cut_off_while_it_serves_others() {
    let cluster = PgCluster::builder().start().unwrap();
    let primary = cluster.primary();
    let proxy = Proxy::start(primary.addr()).unwrap();
    let open = || Connection::open(proxy.addr(), USER, DATABASE, SOON);
    let mut session = open().unwrap();
    session.query("select 1").unwrap();
    proxy.cut();
    assert!(session.query("select 1").is_err() && open().is_err());
    assert_eq!(primary.sql_value("select 1").unwrap(), "1");
    proxy.heal();
    open().unwrap().query("select 1").unwrap();
}

#[test]
#[ignore = "needs server binaries"]
fn a_command_sent_into_a_blackhole_is_carried_out_after_the_healing() {
    let node = RedisNode::start_alone().unwrap();
    let proxy = Proxy::start(node.addr()).unwrap();
    let mut connection = contextkeep_test_support::redis::Connection::open(proxy.addr(), SOON).unwrap();
    connection.command(&["PING"]).unwrap();
    proxy.blackhole();
    let waiting = std::thread::spawn(move || connection.command(&["INCR", "n"]));
    assert_eq!(
        node.command(&["EXISTS", "n"]).unwrap(),
        contextkeep_test_support::redis::Value::Int(0)
    );
    proxy.heal();
    assert_eq!(
        waiting.join().unwrap().unwrap(),
        contextkeep_test_support::redis::Value::Int(1)
    );
}
