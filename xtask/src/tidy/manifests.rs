//! What every manifest has: the shared lints, a README, crate documentation, versions in one place.

use std::collections::BTreeSet;

use super::{Manifest, Tree};

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let manifests = Manifest::all(tree);
    let mut problems: Vec<String> = manifests
        .iter()
        .flat_map(|manifest| of_member(tree, manifest))
        .collect();
    problems.extend(of_table(tree, &manifests));
    problems
}

fn of_member(tree: &Tree, manifest: &Manifest<'_>) -> Vec<String> {
    let home = manifest.home;
    let mut problems = Vec::new();
    let lints = manifest
        .table
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(toml::Value::as_bool);
    if lints != Some(true) {
        problems.push(format!("{home}/Cargo.toml: lacks `[lints] workspace = true`"));
    }
    if tree
        .text(&format!("{home}/README.md"))
        .is_none_or(|text| text.trim().is_empty())
    {
        problems.push(format!("{home}: lacks a README.md"));
    }
    let roots = ["lib.rs", "main.rs"].map(|root| tree.text(&format!("{home}/src/{root}")));
    let documented = |text: &str| text.starts_with("//!") || text.starts_with("#![doc");
    if !roots.into_iter().flatten().all(documented) {
        problems.push(format!(
            "{home}/src: crate documentation has to stand first in lib.rs and main.rs"
        ));
    }
    for (_, name, value) in manifest.dependencies() {
        let inherited = value.get("workspace").is_some() || value.get("path").is_some();
        if !inherited {
            problems.push(format!(
                "{home}/Cargo.toml: {name} has a version of its own; versions stand in the root Cargo.toml"
            ));
        }
    }
    problems
}

/// The table of dependencies: a reason beside each entry, and somebody who uses it.
fn of_table(tree: &Tree, manifests: &[Manifest<'_>]) -> Vec<String> {
    let Some(text) = tree.text("Cargo.toml") else {
        return Vec::new();
    };
    let used: BTreeSet<_> = manifests
        .iter()
        .flat_map(Manifest::dependencies)
        .map(|(_, name, _)| name)
        .collect();
    let waiting = allowed_unused(tree);
    let section = text.split("[workspace.dependencies]").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let mut problems = Vec::new();
    for line in section.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, entry)) = line.split_once(" = ") else {
            continue;
        };
        if !entry.contains("path = ") && !entry.contains(" # ") {
            problems.push(format!(
                "Cargo.toml: {name} lacks a comment that says what it is for"
            ));
        }
        if !used.contains(name) && !waiting.iter().any(|allowed| allowed == name) {
            problems.push(format!("Cargo.toml: no crate uses {name}"));
        }
    }
    problems
}

fn allowed_unused(tree: &Tree) -> Vec<String> {
    let table: toml::Table = tree
        .text(super::sources::ALLOW)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let names = table
        .get("unused")
        .and_then(|unused| unused.get("dependencies"))
        .and_then(toml::Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "[package]\nname = \"x\"\n[dependencies]\nserde.workspace = true\n[lints]\nworkspace = true\n";
    const ROOT: &str = "[workspace.dependencies]\n# ours\nserde = \"1\" # shapes\nx = { path = \"crates/x\" }\n\n[profile.dev]\ndebug = 1\n";

    fn problems(manifest: &str, root: &str, lib: &str, readme: &str) -> Vec<String> {
        let files = [
            ("Cargo.toml", root),
            ("crates/x/Cargo.toml", manifest),
            ("crates/x/src/lib.rs", lib),
            ("crates/x/README.md", readme),
        ];
        let user = (
            "xtask/Cargo.toml",
            "[dependencies]\nx.workspace = true\n[lints]\nworkspace = true\n",
        );
        let tree = Tree::of(
            &[
                &files[..],
                &[user, ("xtask/README.md", "x"), ("xtask/src/main.rs", "//! x")],
            ]
            .concat(),
        );
        check(&tree)
    }

    #[test]
    fn a_complete_crate_is_fine() {
        assert_eq!(problems(GOOD, ROOT, "//! X.\n", "# x\n"), [""; 0]);
    }

    #[test]
    fn missing_lints_readme_and_documentation_are_found() {
        let found = problems(
            "[package]\nname = \"x\"\n[dependencies]\nserde.workspace = true\n",
            ROOT,
            "fn f() {}\n",
            " ",
        );
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn a_version_outside_the_table_is_found_in_both_spellings() {
        for dependency in ["log = \"0.4\"", "log = { version = \"0.4\", features = [] }"] {
            let manifest = GOOD.replace("[lints]", &format!("{dependency}\n[lints]"));
            let found = problems(&manifest, ROOT, "//! X.\n", "# x\n");
            assert!(
                found.len() == 1 && found[0].contains("log has a version of its own"),
                "{found:?}"
            );
        }
    }

    #[test]
    fn an_entry_without_reason_or_user_is_found() {
        let root = ROOT.replace("serde = \"1\" # shapes", "serde = \"1\"\nlog = \"0.4\" # facade");
        let found = problems(GOOD, &root, "//! X.\n", "# x\n");
        assert_eq!(
            found,
            [
                "Cargo.toml: serde lacks a comment that says what it is for",
                "Cargo.toml: no crate uses log"
            ]
        );
    }
}
