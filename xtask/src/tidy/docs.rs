//! The documents that must be there, the numbers of the decisions, and one toolchain for everybody.

use super::Tree;

/// Removing one of these is a decision, not an accident.
const REQUIRED: [&str; 8] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "docs/ARCHITECTURE.md",
    "docs/OPERATIONS.md",
    "docs/TESTING.md",
];
/// Where decisions are recorded, as `0001-imperative-title.md`.
const DECISIONS: &str = "docs/adr/";

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let missing = REQUIRED
        .iter()
        .filter(|path| tree.text(path).is_none_or(|text| text.trim().is_empty()));
    let mut problems: Vec<String> = missing.map(|path| format!("{path}: missing")).collect();
    problems.extend(other_toolchain(tree));
    let mut expected = 1;
    for (path, _) in tree.files(DECISIONS, ".md") {
        let name = path.strip_prefix(DECISIONS).unwrap_or(path);
        if name == "README.md" {
            continue;
        }
        let number = name
            .split_once('-')
            .filter(|(digits, _)| digits.len() == 4)
            .and_then(|(digits, _)| digits.parse::<u32>().ok());
        match number {
            Some(number) if number == expected => expected += 1,
            Some(number) => {
                problems.push(format!(
                    "{path}: decisions are numbered without gaps or doubles; {expected:04} is due"
                ));
                expected = number + 1;
            }
            None => problems.push(format!("{path}: a decision is called 0001-imperative-title.md")),
        }
    }
    problems
}

/// The image is built by the toolchain that everybody else uses.
fn other_toolchain(tree: &Tree) -> Option<String> {
    let pinned = tree
        .text("rust-toolchain.toml")?
        .lines()
        .find_map(|line| line.strip_prefix("channel = "))?;
    let image = format!("FROM rust:{}-", pinned.trim_matches('"'));
    let same = tree
        .text("Dockerfile")?
        .lines()
        .any(|line| line.starts_with(&image));
    (!same).then(|| format!("Dockerfile: builds with another toolchain than rust-toolchain.toml's {pinned}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(decisions: &[&str]) -> Vec<String> {
        let paths: Vec<String> = decisions
            .iter()
            .map(|name| format!("{DECISIONS}{name}"))
            .collect();
        let mut files: Vec<(&str, &str)> = REQUIRED.iter().map(|path| (*path, "text")).collect();
        files.extend(paths.iter().map(|path| (path.as_str(), "text")));
        check(&Tree::of(&files))
    }

    #[test]
    fn numbered_decisions_are_fine() {
        assert_eq!(problems(&["README.md", "0001-a.md", "0002-b.md"]), [""; 0]);
    }

    #[test]
    fn gaps_doubles_and_other_names_are_found() {
        for decisions in [
            &["0002-a.md"][..],
            &["0001-a.md", "0001-b.md"],
            &["0001-a.md", "0003-b.md"],
            &["notes.md"],
        ] {
            assert_eq!(problems(decisions).len(), 1, "{decisions:?}");
        }
    }

    #[test]
    fn an_image_built_by_another_toolchain_is_found() {
        let pinned = ("rust-toolchain.toml", "[toolchain]\nchannel = \"1.95.0\"\n");
        let with = |image| other_toolchain(&Tree::of(&[pinned, ("Dockerfile", image)]));
        assert_eq!(with("FROM rust:1.95.0-slim-bookworm AS build\n"), None);
        assert!(with("FROM rust:1.94.0-slim-bookworm AS build\n").is_some());
    }

    #[test]
    fn a_missing_or_empty_document_is_found() {
        assert_eq!(check(&Tree::default()).len(), REQUIRED.len());
        assert_eq!(
            check(&Tree::of(&[("CONTRIBUTING.md", " \n")])).len(),
            REQUIRED.len()
        );
    }
}
