//! The documents that must be there, and the numbers of the decisions.

use super::Tree;

/// Removing one of these is a decision, not an accident.
const REQUIRED: [&str; 4] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-MIT",
    "docs/TESTING.md",
];
/// Where decisions are recorded, as `0001-imperative-title.md`.
const DECISIONS: &str = "docs/adr/";

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let missing = REQUIRED
        .iter()
        .filter(|path| tree.text(path).is_none_or(|text| text.trim().is_empty()));
    let mut problems: Vec<String> = missing.map(|path| format!("{path}: missing")).collect();
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
    fn a_missing_or_empty_document_is_found() {
        assert_eq!(check(&Tree::default()).len(), REQUIRED.len());
        assert_eq!(
            check(&Tree::of(&[("CONTRIBUTING.md", " \n")])).len(),
            REQUIRED.len()
        );
    }
}
