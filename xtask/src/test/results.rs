//! How many tests passed, and which ran: out of nextest's report or libtest's lines.

use std::collections::BTreeSet;

/// What a run has come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
    /// The last part of the name of each test that ran.
    pub(crate) names: BTreeSet<String>,
    /// The names of those that failed first and passed when tried again.
    pub(crate) flaky: BTreeSet<String>,
}

impl Results {
    /// Takes one line that libtest printed.
    pub(crate) fn see(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count_before(counts, " passed");
            self.failed += count_before(counts, " failed");
        } else if let Some((name, verdict)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
            && !verdict.starts_with("ignored")
        {
            self.names.insert(last_part(name));
        }
    }

    /// Adds another run's.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.names.extend(other.names);
        self.flaky.extend(other.flaky);
    }

    /// Counts a run that failed without a failed test (a crash, a build error) as one failure.
    pub(crate) fn or_failure(mut self, success: bool) -> Self {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

/// Reads the `JUnit` report that nextest writes: one `testcase` a test, with a `failure` or `error` inside if it failed.
pub(crate) fn of_junit(report: &str) -> Results {
    let mut results = Results::default();
    for case in report.split("<testcase ").skip(1) {
        let case = case.split("</testcase>").next().unwrap_or(case);
        if case.contains("<failure") || case.contains("<error") {
            results.failed += 1;
        } else {
            results.passed += 1;
        }
        let name = case
            .split_once("name=\"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(name, _)| name);
        if case.contains("<flakyFailure") || case.contains("<flakyError") {
            results.flaky.extend(name.map(str::to_owned));
        }
        results.names.extend(name.map(last_part));
    }
    results
}

/// The number right before a word: 12 in `ok. 12 passed; 0 failed`.
fn count_before(text: &str, word: &str) -> u64 {
    let before = text.split_once(word).map(|(before, _)| before);
    before
        .and_then(|before| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn last_part(name: &str) -> String {
    let name = name.trim_end_matches(" - should panic");
    name.rsplit("::").next().unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_counted_and_ignored_tests_have_not_run() {
        let mut results = Results::default();
        for line in [
            "running 4 tests",
            "test a::first ... ok",
            "test a::b::second - should panic ... ok",
            "test third ... FAILED",
            "test fourth ... ignored, needs services",
            "test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            results.see(line);
        }
        assert_eq!((results.passed, results.failed), (9, 1));
        assert_eq!(
            results.names,
            ["first", "second", "third"].map(str::to_owned).into()
        );
    }

    #[test]
    fn a_junit_report_is_counted_by_case() {
        let report = r#"<testsuites name="nextest-run" tests="3" failures="1" errors="1">
            <testsuite name="x::it" tests="3">
              <testcase name="m::good" classname="x::it" time="0.1"></testcase>
              <testcase name="bad" classname="x::it"><failure type="test failure">&lt;failure</failure></testcase>
              <testcase name="ugly" classname="x::it"><error type="timeout"/></testcase>
              <testcase name="m::shy" classname="x::it"><flakyFailure/></testcase>
            </testsuite></testsuites>"#;
        let results = of_junit(report);
        assert_eq!((results.passed, results.failed), (2, 2));
        assert!(results.names.contains("good") && results.names.len() == 4);
        assert_eq!(results.flaky, ["m::shy".to_owned()].into());
    }

    #[test]
    fn a_run_that_fails_without_a_failed_test_is_still_a_failure() {
        assert_eq!(Results::default().or_failure(false).failed, 1);
        assert_eq!(Results::default().or_failure(true).failed, 0);
    }
}
