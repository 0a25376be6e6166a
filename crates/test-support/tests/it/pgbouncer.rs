use contextkeep_test_support::postgres::{Connection, DATABASE, USER};
use contextkeep_test_support::{PgBouncer, PgCluster, eventually};

use crate::SOON;

#[test]
#[ignore = "needs server binaries"]
fn a_pooler_lends_one_session_to_many_clients_and_ends_with_its_handle() {
    let cluster = PgCluster::builder().start().unwrap();
    let bouncer = PgBouncer::start(cluster.primary(), 1).unwrap();
    let connect = || Connection::open(bouncer.addr(), USER, DATABASE, SOON);
    let (mut one, mut two) = (connect().unwrap(), connect().unwrap());
    let backend = "select pg_backend_pid()";
    assert_eq!(one.query(backend).unwrap(), two.query(backend).unwrap());
    let addr = bouncer.addr();
    drop(bouncer);
    eventually("the pooler to be gone", SOON, || {
        std::net::TcpStream::connect(addr).is_err().then_some(())
    });
}
