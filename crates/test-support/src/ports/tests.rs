use std::collections::HashSet;

use super::*;

#[test]
fn ports_differ_and_can_be_bound() {
    let ports = free(16).unwrap();
    assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 16);
    let bound: Vec<_> = ports
        .iter()
        .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).ok())
        .collect();
    assert!(
        !bound.is_empty(),
        "none of {ports:?} could be bound after its release"
    );
}
