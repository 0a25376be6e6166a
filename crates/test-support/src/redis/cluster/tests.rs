use super::*;

fn range(first: i64, last: i64, port: i64) -> Value {
    let primary = Value::Array(vec![Value::Text("127.0.0.1".to_owned()), Value::Int(port)]);
    Value::Array(vec![Value::Int(first), Value::Int(last), primary])
}

#[test]
fn the_primary_of_a_slot_is_found_at_the_edges_of_its_range() {
    let slots = Value::Array(vec![range(0, 99, 1), range(100, 16383, 2)]);
    let ports = [0, 99, 100, 16383].map(|slot| port_of_slot(&slots, slot));
    assert_eq!(ports, [Some(1), Some(1), Some(2), Some(2)]);
}

#[test]
fn a_slot_that_nobody_serves_has_no_primary() {
    assert_eq!(port_of_slot(&Value::Array(vec![range(0, 99, 1)]), 100), None);
    assert_eq!(port_of_slot(&Value::Nil, 0), None);
}
