use std::time::Duration;

use super::{AnyError, http, judge, redis, sqlstate};
use crate::{Again, Error, Outcome, Rejected, Verdict, Why};

#[test]
fn a_client_error_is_neither_success_nor_failure() {
    for code in [400, 401, 403, 404, 409, 422, 501, 505] {
        assert_eq!(http::status(code, None).verdict, Verdict::Neutral, "{code}");
    }
}

#[test]
fn server_errors_and_request_timeouts_are_failures() {
    for code in [408, 500, 502, 503, 504, 599] {
        assert_eq!(http::status(code, None), Outcome::FAILURE, "{code}");
    }
}

#[test]
fn retry_after_throttles() {
    let wait = Duration::from_secs(3);
    for code in [429, 503] {
        let outcome = http::status(code, Some(wait));
        assert_eq!(
            outcome.verdict,
            Verdict::Throttled {
                retry_after: Some(wait)
            }
        );
        assert_eq!(outcome.again, Again::After(wait));
    }
}

#[test]
fn retry_after_is_read_as_seconds_or_as_a_date_relative_to_the_response() {
    assert_eq!(http::retry_after(" 120 ", None), Some(Duration::from_mins(2)));
    let date = Some("Fri, 31 Dec 1999 23:59:29 GMT");
    assert_eq!(
        http::retry_after("Fri, 31 Dec 1999 23:59:59 GMT", date),
        Some(Duration::from_secs(30))
    );
    assert_eq!(
        http::retry_after("Sat, 01 Jan 2000 00:00:29 GMT", date),
        Some(Duration::from_mins(1))
    );
    assert_eq!(
        http::retry_after(
            "Thu, 29 Feb 2024 00:00:00 GMT",
            Some("Wed, 28 Feb 2024 00:00:00 GMT")
        ),
        Some(Duration::from_hours(24))
    );
    assert_eq!(
        http::retry_after("Fri, 31 Dec 1999 23:00:00 GMT", date),
        Some(Duration::ZERO)
    );
    for nonsense in [
        "",
        "soon",
        "-1",
        "Fri, 31 Foo 1999 23:59:59 GMT",
        "Fri, 31 Dec 1999 25:59:59 GMT",
    ] {
        assert_eq!(http::retry_after(nonsense, date), None, "{nonsense}");
    }
    assert_eq!(http::retry_after("Fri, 31 Dec 1999 23:59:59 GMT", None), None);
}

#[test]
fn sqlstates_are_judged_by_what_they_say_about_the_server() {
    use Verdict::{Failure, Neutral};
    let cases = [
        ("08006", Failure, Again::IfIdempotent),
        ("08001", Failure, Again::NotApplied),
        ("53100", Failure, Again::NotApplied),
        (
            "53300",
            Verdict::Throttled { retry_after: None },
            Again::NotApplied,
        ),
        ("57P01", Failure, Again::IfIdempotent),
        ("57P03", Failure, Again::NotApplied),
        ("57014", Failure, Again::IfIdempotent),
        ("25006", Failure, Again::NotApplied),
        ("40001", Neutral, Again::NotApplied),
        ("40P01", Neutral, Again::NotApplied),
        ("40003", Failure, Again::IfIdempotent),
        ("23505", Neutral, Again::No),
        ("42P01", Neutral, Again::No),
        ("22001", Neutral, Again::No),
        ("P0001", Neutral, Again::No),
        ("XX001", Failure, Again::No),
        ("", Neutral, Again::No),
        ("é", Neutral, Again::No),
    ];
    for (code, verdict, again) in cases {
        assert_eq!(sqlstate::code(code), Outcome::new(verdict, again), "{code}");
    }
}

#[test]
fn redis_replies_are_judged_by_their_first_word() {
    assert_eq!(
        redis::reply("LOADING Redis is loading the dataset in memory").verdict,
        Verdict::Failure
    );
    assert_eq!(redis::reply("-BUSY script").verdict, Verdict::Failure);
    assert_eq!(
        redis::reply("BUSYKEY Target key name already exists.").verdict,
        Verdict::Neutral
    );
    assert_eq!(
        redis::reply("OOM command not allowed").verdict,
        Verdict::Throttled { retry_after: None }
    );
    assert_eq!(
        redis::reply("ERR max number of clients reached").verdict,
        Verdict::Throttled { retry_after: None }
    );
    for line in [
        "WRONGTYPE x",
        "NOSCRIPT x",
        "MOVED 3999 127.0.0.1:6381",
        "ERR syntax error",
        "",
    ] {
        assert_eq!(redis::reply(line).verdict, Verdict::Neutral, "{line}");
    }
}

#[test]
fn our_own_refusals_say_nothing_about_the_dependency_but_a_timeout_does() {
    let refusal = |why| Error::<()>::Rejected(Rejected::new("x".into(), why, None));
    assert_eq!(
        judge::<(), ()>(&AnyError, Err(&refusal(Why::AttemptTimeout))),
        Outcome::FAILURE
    );
    for why in [Why::Open, Why::BulkheadFull, Why::QueueTimeout, Why::Deadline] {
        assert_eq!(
            judge::<(), ()>(&AnyError, Err(&refusal(why))),
            Outcome::NEUTRAL,
            "{why:?}"
        );
    }
}
