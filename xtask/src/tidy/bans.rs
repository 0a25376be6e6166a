//! The bans of `clippy.toml` have one place each where they may be lifted.

use std::collections::BTreeMap;

use super::Tree;

/// Where a ban is lifted, how often, and for what. Everything else has to take what it needs as a parameter.
const LIFTED: [(&str, usize, &str); 6] = [
    (
        "crates/config/src/env.rs",
        2,
        "the one reader of the environment: one variable, all variables",
    ),
    (
        "crates/context-core/src/clock.rs",
        1,
        "where wall-clock time enters",
    ),
    ("crates/resilience/src/clock.rs", 1, "where monotonic time enters"),
    (
        "crates/server/src/telemetry/metrics/table.rs",
        1,
        "metrics are registered by their table",
    ),
    (
        "crates/test-support/src/env.rs",
        1,
        "the harness reads the environment",
    ),
    (
        "crates/test-support/src/wait.rs",
        2,
        "the harness' clock, and its one pause between two looks",
    ),
];

/// What a lifted ban names. Spelt in halves, so that this file has none.
const SIGN: &str = concat!("clippy::", "disallowed_");

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = LIFTED.iter().map(|(path, _, _)| (*path, 0)).collect();
    for (path, text) in tree.files("", ".rs") {
        let count = text.matches(SIGN).count();
        if count > 0 {
            counts.insert(path, count);
        }
    }
    let problem = |(path, count): (&str, usize)| {
        let allowed = LIFTED
            .iter()
            .find(|(lifted, _, _)| *lifted == path)
            .map_or(0, |(_, allowed, _)| *allowed);
        (count != allowed).then(|| {
            format!("{path}: lifts a ban of clippy.toml {count} times, and may {allowed}: see xtask/src/tidy/bans.rs")
        })
    };
    counts.into_iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifting(times: usize) -> String {
        format!("#[expect({SIGN}methods, reason = \"x\")]\n").repeat(times)
    }

    fn problems(more: &[(&str, &str)]) -> Vec<String> {
        let texts: Vec<_> = LIFTED
            .iter()
            .map(|(path, times, _)| (*path, lifting(*times)))
            .collect();
        let files: Vec<_> = texts.iter().map(|(path, text)| (*path, text.as_str())).collect();
        check(&Tree::of(&[&files[..], more].concat()))
    }

    #[test]
    fn the_places_in_the_table_are_fine() {
        assert_eq!(problems(&[]), [""; 0]);
    }

    #[test]
    fn a_place_that_is_not_in_the_table_is_found() {
        let found = problems(&[("crates/x/src/lib.rs", &lifting(1))]);
        assert!(
            found.len() == 1 && found[0].contains("lifts a ban of clippy.toml 1 times, and may 0"),
            "{found:?}"
        );
    }

    #[test]
    fn one_time_too_many_and_a_line_of_the_table_that_is_not_used_are_found() {
        let (path, times, _) = LIFTED[0];
        assert_eq!(problems(&[(path, &lifting(times + 1))]).len(), 1);
        assert_eq!(problems(&[(path, "")]).len(), 1);
    }
}
