//! Which crates have service-backed tests: found in their sources, so that a new one is expected to run at once.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::tidy::Tree;

/// What a group of tests can't do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// The shared services: `#[ignore = "needs services"]`.
    Services,
    /// Binaries to start servers of its own: `#[ignore = "needs server binaries"]`.
    Binaries,
}

/// The tests of one crate with the same needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    /// The crate's folder.
    pub(crate) home: String,
    /// What they need.
    pub(crate) needs: Needs,
    /// The functions' names.
    pub(crate) names: Vec<String>,
}

/// Finds them below `crates/`.
pub(crate) fn find(root: &Path) -> Result<Vec<Suite>> {
    Ok(in_tree(&Tree::load(root)?))
}

fn in_tree(tree: &Tree) -> Vec<Suite> {
    let mut suites: Vec<Suite> = Vec::new();
    for (path, text) in tree.files("crates/", ".rs") {
        let home: String = path.split('/').take(2).collect::<Vec<_>>().join("/");
        for (needs, name) in ignored_tests(text) {
            match suites
                .iter_mut()
                .find(|suite| suite.home == home && suite.needs == needs)
            {
                Some(suite) => suite.names.push(name),
                None => suites.push(Suite {
                    home: home.clone(),
                    needs,
                    names: vec![name],
                }),
            }
        }
    }
    suites
}

fn ignored_tests(text: &str) -> Vec<(Needs, String)> {
    let mut found = Vec::new();
    let mut waiting = None;
    for line in text.lines().map(str::trim) {
        match line {
            r#"#[ignore = "needs services"]"# => waiting = Some(Needs::Services),
            r#"#[ignore = "needs server binaries"]"# => waiting = Some(Needs::Binaries),
            _ => {}
        }
        let name = line
            .split_once("fn ")
            .and_then(|(_, rest)| rest.split(['(', '<']).next());
        if let (Some(needs), Some(name)) = (waiting, name) {
            waiting = None;
            // A macro's `$name` stands for names that are written elsewhere.
            if !name.starts_with('$') {
                found.push((needs, name.to_owned()));
            }
        }
    }
    found
}

/// The crates none of whose service-backed tests ran, with the names; empty suites would be found by no one else.
pub(crate) fn that_ran_nothing(suites: &[Suite], ran: &BTreeSet<String>, skipped: &[String]) -> Vec<String> {
    if suites.is_empty() {
        return vec!["the workspace's tests (none is marked as service-backed)".to_owned()];
    }
    let expected = suites
        .iter()
        .filter(|suite| !suite.names.iter().all(|name| skipped.contains(name)));
    let silent = expected.filter(|suite| !suite.names.iter().any(|name| ran.contains(name)));
    silent
        .map(|suite| {
            format!(
                "the {} in {} ({})",
                suite.names.len(),
                suite.home,
                suite.names.join(", ")
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "#[test]\n#[ignore = \"needs services\"]\nfn reads() {}\n\n#[tokio::test]\n    #[ignore = \"needs server binaries\"]\n    async fn breaks() {}\n#[ignore = \"needs services\"]\nfn $name() {}\n#[test]\nfn plain() {}\n";

    fn suites() -> Vec<Suite> {
        in_tree(&Tree::of(&[
            ("crates/cache/tests/it/redis.rs", SOURCE),
            ("xtask/src/x.rs", SOURCE),
        ]))
    }

    #[test]
    fn ignored_tests_are_found_by_crate_and_need() {
        let suite = |needs, name: &str| Suite {
            home: "crates/cache".to_owned(),
            needs,
            names: vec![name.to_owned()],
        };
        assert_eq!(
            suites(),
            [suite(Needs::Services, "reads"), suite(Needs::Binaries, "breaks")]
        );
    }

    #[test]
    fn a_suite_that_ran_nothing_is_reported() {
        let ran = BTreeSet::from(["breaks".to_owned(), "plain".to_owned()]);
        assert_eq!(
            that_ran_nothing(&suites(), &ran, &[]),
            ["the 1 in crates/cache (reads)"]
        );
    }

    #[test]
    fn a_suite_that_was_skipped_by_name_is_not_reported_twice() {
        let ran = BTreeSet::from(["reads".to_owned()]);
        assert_eq!(that_ran_nothing(&suites(), &ran, &["breaks".to_owned()]), [""; 0]);
    }

    #[test]
    fn a_workspace_without_any_suite_is_reported() {
        assert_eq!(that_ran_nothing(&[], &BTreeSet::new(), &[]).len(), 1);
    }
}
