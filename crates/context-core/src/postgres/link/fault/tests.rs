use super::*;

fn reported(code: &str) -> Fault {
    let code = SqlState::from_code(code);
    Fault {
        kind: kind_of(&code),
        code: Some(code),
        detail: "as the server says".into(),
        retry_after: None,
    }
}

/// Code, kind, our error's code, certainly without effect, other connections suspect, again by itself.
const TABLE: [(&str, Kind, &str, bool, bool, bool); 34] = [
    ("08000", Kind::Lost, "unavailable", false, true, false),
    ("08006", Kind::Lost, "unavailable", false, true, false),
    ("08P01", Kind::Lost, "unavailable", false, true, false),
    ("22021", Kind::Nul, "invalid", true, false, false),
    ("22P05", Kind::Nul, "invalid", true, false, false),
    ("22P02", Kind::Internal, "internal", true, false, false),
    ("23505", Kind::Constraint, "internal", true, false, false),
    ("25006", Kind::ReadOnly, "unavailable", true, true, false),
    ("25P02", Kind::Internal, "internal", true, false, false),
    ("26000", Kind::Pooler, "unavailable", true, false, true),
    ("42P05", Kind::Pooler, "unavailable", true, false, true),
    ("28000", Kind::Login, "unavailable", true, false, false),
    ("28P01", Kind::Login, "unavailable", true, false, false),
    ("3D000", Kind::NoDatabase, "unavailable", true, false, false),
    ("3F000", Kind::NoSchema, "unavailable", true, false, false),
    ("40001", Kind::Conflict, "unavailable", true, false, true),
    ("40003", Kind::Lost, "unavailable", false, true, false),
    ("40P01", Kind::Conflict, "unavailable", true, false, true),
    ("42501", Kind::Denied, "unavailable", true, false, false),
    ("42703", Kind::NoSchema, "unavailable", true, false, false),
    ("42883", Kind::NoSchema, "unavailable", true, false, false),
    ("42P01", Kind::NoSchema, "unavailable", true, false, false),
    ("53100", Kind::Full, "storage_full", true, false, false),
    ("53200", Kind::OutOfResources, "unavailable", true, false, false),
    (
        "53300",
        Kind::TooManyConnections,
        "unavailable",
        true,
        false,
        false,
    ),
    ("53400", Kind::OutOfResources, "unavailable", true, false, false),
    ("57014", Kind::Cancelled, "unavailable", true, false, false),
    ("57P01", Kind::Lost, "unavailable", false, true, false),
    ("57P02", Kind::Lost, "unavailable", false, true, false),
    ("57P03", Kind::Starting, "unavailable", true, true, false),
    ("58030", Kind::Internal, "internal", true, false, false),
    ("XX000", Kind::Internal, "internal", true, false, false),
    ("XX001", Kind::Damaged, "storage_damaged", true, false, false),
    ("XX002", Kind::Damaged, "storage_damaged", true, false, false),
];

#[test]
fn each_code_means_what_the_table_says() {
    for (code, kind, ours, not_applied, suspect, again) in TABLE {
        let fault = reported(code);
        let seen = (
            fault.kind(),
            fault.is_not_applied(),
            fault.is_suspect(),
            fault.is_transient_conflict(),
        );
        assert_eq!(seen, (kind, not_applied, suspect, again), "{code}");
        assert_eq!(fault.sqlstate(), Some(code));
        assert_eq!(Error::from(fault).code(), ours, "{code}");
    }
}

#[test]
fn words_name_the_key_and_the_way_out() {
    for (code, words) in [
        ("28P01", ["context_manager.database.dsn", "pg_hba.conf"]),
        ("3D000", ["context_manager.database.dsn", "create it"]),
        ("42P01", ["contextkeep migrate", "schema"]),
        ("53300", ["max_open_conns", "max_connections"]),
        ("57014", ["statement_timeout", "deadline"]),
        ("26000", ["prepared_statements", "off"]),
        ("42501", ["grant", "user"]),
    ] {
        let text = reported(code).to_string();
        for word in words {
            assert!(text.contains(word), "{code}: {text}");
        }
    }
}

#[test]
fn our_own_limits_shed_and_say_nothing_about_the_server() {
    for kind in [Kind::PoolTimeout, Kind::Busy] {
        let fault = Fault::late(kind, false);
        assert_eq!(fault.outcome(), sqlstate::POOL_TIMEOUT, "{kind:?}");
        assert!(fault.is_not_applied() && !fault.is_suspect());
        let error = Error::from(fault);
        assert_eq!(error.code(), "overloaded");
        assert!(error.retry_after().is_some());
    }
}

#[test]
fn what_was_given_up_may_have_been_done() {
    assert!(!Fault::late(Kind::TimedOut, false).is_not_applied());
    assert!(!Fault::new(Kind::Silent, "").is_not_applied());
    let deadline = Fault::late(Kind::PoolTimeout, true);
    assert_eq!(deadline.kind(), Kind::Deadline);
    assert!(!deadline.is_not_applied());
    assert_eq!(deadline.outcome().verdict, Verdict::Neutral);
}

#[test]
fn breakers_hear_of_a_dead_server_and_not_of_a_conflict() {
    for kind in [
        Kind::Unreachable,
        Kind::Lost,
        Kind::TimedOut,
        Kind::Silent,
        Kind::Tls,
    ] {
        assert_eq!(
            Fault::new(kind, "").outcome().verdict,
            Verdict::Failure,
            "{kind:?}"
        );
    }
    for code in ["28P01", "3D000", "57P03", "25006"] {
        assert_eq!(reported(code).outcome().verdict, Verdict::Failure, "{code}");
    }
    for code in ["40001", "23505", "42P01"] {
        assert_eq!(reported(code).outcome().verdict, Verdict::Neutral, "{code}");
    }
}
