//! Nothing in the tree belongs to one machine: no absolute paths of somebody's, no other registry.

use super::Tree;

/// Beginnings of paths that exist on one machine only. Spelt in halves, so that this file has none.
const PATHS: [&str; 4] = [
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
];
/// Where every locked package comes from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.files("", "") {
        for (number, line) in text.lines().enumerate() {
            for found in PATHS.iter().filter(|prefix| has_path(line, prefix)) {
                problems.push(format!(
                    "{path}:{}: `{found}…` is a path of one machine",
                    number + 1
                ));
            }
            let source = line
                .strip_prefix("source = ")
                .filter(|_| path.ends_with("Cargo.lock"));
            if source.is_some_and(|source| source.trim_matches('"') != REGISTRY) {
                problems.push(format!(
                    "{path}:{}: packages come from crates.io only",
                    number + 1
                ));
            }
            if path.starts_with(".cargo/") && (line.starts_with("[source") || line.starts_with("[registr")) {
                problems.push(format!(
                    "{path}:{}: a registry is a matter of the machine, not of the project",
                    number + 1
                ));
            }
        }
    }
    problems
}

/// Whether the line holds an absolute path with this beginning, and not one that merely contains it.
fn has_path(line: &str, prefix: &str) -> bool {
    line.match_indices(prefix).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        before
            .is_none_or(|before| !(before.is_alphanumeric() || matches!(before, '.' | '_' | '-' | '}' | '/')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_one_machine_is_found_at_any_boundary() {
        for prefix in PATHS {
            for line in [
                format!("{prefix}x"),
                format!("see `{prefix}x`"),
                format!("a={prefix}x"),
            ] {
                assert_eq!(check(&Tree::of(&[("docs/a.md", &line)])).len(), 1, "{line}");
            }
            let inner = format!("docs{prefix}x and ${{dir}}{prefix}x");
            assert_eq!(check(&Tree::of(&[("docs/a.md", &inner)])), [""; 0], "{inner}");
        }
    }

    #[test]
    fn a_package_from_elsewhere_is_found() {
        let lock = |source: &str| {
            check(&Tree::of(&[(
                "Cargo.lock",
                &format!("[[package]]\nsource = \"{source}\"\n"),
            )]))
        };
        assert_eq!(lock(REGISTRY), [""; 0]);
        assert_eq!(lock("git+https://example.org/x").len(), 1);
        assert_eq!(lock("registry+https://mirror.example.org/index").len(), 1);
    }

    #[test]
    fn a_registry_in_the_projects_cargo_configuration_is_found() {
        assert_eq!(
            check(&Tree::of(&[(".cargo/config.toml", "[source.crates-io]\n")])).len(),
            1
        );
    }
}
