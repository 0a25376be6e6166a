use super::*;

const ACCOUNTS: &str = "root:x:0:0:root:/none:/bin/sh\npostgres:x:101:103::/var/lib/postgresql:/bin/sh\nbad\nfake:x:0:7::/:/bin/sh\n";

#[test]
fn an_account_is_read_with_its_numbers() {
    let user = User::find(ACCOUNTS, "postgres").unwrap();
    assert_eq!((user.uid, user.gid), (101, 103));
}

#[test]
fn an_account_that_is_root_in_disguise_is_refused() {
    assert_eq!(User::find(ACCOUNTS, "fake"), None);
    assert_eq!(User::find(ACCOUNTS, "root"), None);
}

#[test]
fn a_missing_account_is_none() {
    assert_eq!(User::find(ACCOUNTS, "nobody"), None);
}
