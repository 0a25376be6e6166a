//! Who may depend on whom.

use super::{Kind, Manifest, Tree};

/// The workspace's edges. A new one needs an ADR and a line here, in the same commit.
const EDGES: [(&str, &[&str]); 7] = [
    ("contextkeep-config", &[]),
    ("contextkeep-cache", &[]),
    ("contextkeep-resilience", &[]),
    (
        "contextkeep-core",
        &["contextkeep-cache", "contextkeep-resilience"],
    ),
    (
        "contextkeep-server",
        &[
            "contextkeep-core",
            "contextkeep-config",
            "contextkeep-cache",
            "contextkeep-resilience",
        ],
    ),
    (TEST_SUPPORT, &[]),
    ("xtask", &[TEST_SUPPORT]),
];

/// May be a dev-dependency of everybody.
const TEST_SUPPORT: &str = "contextkeep-test-support";

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for manifest in Manifest::all(tree) {
        let name = manifest.name();
        let Some((_, allowed)) = EDGES.iter().find(|(from, _)| *from == name) else {
            problems.push(format!(
                "{}: {name} is not in the table of edges in xtask/src/tidy/edges.rs",
                manifest.home
            ));
            continue;
        };
        for (kind, to, value) in manifest.dependencies() {
            // A renamed dependency is the package that it names.
            let to = value.get("package").and_then(toml::Value::as_str).unwrap_or(to);
            let ours = to.starts_with("contextkeep") || to == "xtask";
            let testing = kind == Kind::Dev && to == TEST_SUPPORT && name != TEST_SUPPORT;
            if ours && !testing && !allowed.contains(&to) {
                problems.push(format!(
                    "{}/Cargo.toml: {name} → {to}: a new edge needs an ADR and the table in xtask/src/tidy/edges.rs",
                    manifest.home
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, dependencies: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{name}\"\n{dependencies}");
        check(&Tree::of(&[("crates/x/Cargo.toml", &text)]))
    }

    #[test]
    fn an_edge_of_the_table_and_foreign_crates_are_fine() {
        let edges = "[dependencies]\ncontextkeep-cache.workspace = true\nserde = \"1\"\n[dev-dependencies]\ncontextkeep-test-support.workspace = true\n";
        assert_eq!(problems("contextkeep-core", edges), [""; 0]);
    }

    #[test]
    fn any_other_edge_is_found_in_every_kind_of_table() {
        for table in [
            "dependencies",
            "dev-dependencies",
            "build-dependencies",
            "target.'cfg(unix)'.dependencies",
        ] {
            let found = problems(
                "contextkeep-cache",
                &format!("[{table}]\ncontextkeep-config.workspace = true\n"),
            );
            assert!(
                found.len() == 1 && found[0].contains("a new edge needs an ADR"),
                "{table}: {found:?}"
            );
        }
    }

    #[test]
    fn an_edge_is_not_hidden_by_a_new_name() {
        let hidden = "[dependencies]\nother = { package = \"contextkeep-core\", path = \"../core\" }\n";
        assert_eq!(problems("contextkeep-cache", hidden).len(), 1);
    }

    #[test]
    fn test_support_is_for_tests_only() {
        let shipped = "[dependencies]\ncontextkeep-test-support.workspace = true\n";
        assert_eq!(problems("contextkeep-server", shipped).len(), 1);
        assert_eq!(problems("xtask", shipped), [""; 0]);
    }

    #[test]
    fn a_crate_that_the_table_does_not_know_is_found() {
        assert_eq!(problems("contextkeep-new", "").len(), 1);
    }
}
