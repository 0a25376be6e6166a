//! What every source file keeps to: sizes, names, nothing unfinished, no integration test left out.

use std::collections::BTreeMap;

use super::Tree;

/// What still exceeds a limit.
pub(super) const ALLOW: &str = "xtask/tidy-allow.toml";
/// Most code lines of a file: no blank lines, no comments, no inline test module.
const FILE_LINES: usize = 500;
/// Most code lines of a function.
const FUNCTION_LINES: usize = 70;
/// Signs of something unfinished. Spelt in halves, so that this file has none.
const UNFINISHED: [&str; 4] = [
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
];

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    let mut sizes = Sizes::default();
    for (path, text) in tree.files("", ".rs") {
        if path.ends_with("/mod.rs") {
            problems.push(format!(
                "{path}: modules are named after themselves (foo.rs beside foo/), not mod.rs"
            ));
        }
        for (number, line) in text.lines().enumerate() {
            for sign in UNFINISHED.iter().filter(|sign| line.contains(**sign)) {
                problems.push(format!("{path}:{}: `{sign}` is unfinished work", number + 1));
            }
        }
        sizes.measure(path, text);
    }
    problems.extend(sizes.check(tree.text(ALLOW).unwrap_or_default()));
    problems.extend(unlisted_tests(tree));
    problems
}

#[derive(Default)]
struct Sizes {
    files: BTreeMap<String, usize>,
    functions: BTreeMap<String, usize>,
}

impl Sizes {
    fn measure(&mut self, path: &str, text: &str) {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
        self.files
            .insert(path.to_owned(), code.lines().filter(|line| is_code(line)).count());
        for (name, lines) in functions(text) {
            let longest = self.functions.entry(format!("{path}::{name}")).or_default();
            *longest = lines.max(*longest);
        }
    }

    fn check(&self, allow: &str) -> Vec<String> {
        let allow: toml::Table = match allow.parse() {
            Ok(table) => table,
            Err(error) => return vec![format!("{ALLOW}: {error}")],
        };
        let mut problems = over(&self.files, FILE_LINES, allow.get("files"));
        problems.extend(over(&self.functions, FUNCTION_LINES, allow.get("functions")));
        problems
    }
}

/// What exceeds its limit, and what is allowed more than it needs.
fn over(sizes: &BTreeMap<String, usize>, limit: usize, allowed: Option<&toml::Value>) -> Vec<String> {
    let empty = toml::Table::new();
    let allowed = allowed.and_then(toml::Value::as_table).unwrap_or(&empty);
    let granted = |name: &str| {
        allowed
            .get(name)
            .and_then(toml::Value::as_integer)
            .and_then(|lines| usize::try_from(lines).ok())
    };
    let mut problems = Vec::new();
    for (name, lines) in sizes.iter().filter(|(_, lines)| **lines > limit) {
        match granted(name) {
            None => problems.push(format!("{name}: {lines} code lines, more than {limit}")),
            Some(granted) if *lines > granted => {
                problems.push(format!(
                    "{name}: {lines} code lines; it has grown past the {granted} in {ALLOW}"
                ));
            }
            Some(granted) if *lines < granted => {
                problems.push(format!("{ALLOW}: {name} needs only {lines}: lower it"));
            }
            Some(_) => {}
        }
    }
    let needless = allowed
        .keys()
        .filter(|name| sizes.get(*name).is_none_or(|lines| *lines <= limit));
    problems.extend(needless.map(|name| format!("{ALLOW}: {name} needs no exception any more: remove it")));
    problems
}

/// The functions of a formatted file with their code lines, from `fn` to the brace that closes at its indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<_> = text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let rest = lines.get(start..).unwrap_or_default();
        let declared_only = rest.iter().position(|line| line.trim_end().ends_with(';'));
        let opened = rest
            .iter()
            .position(|line| line.trim_end().ends_with('{') || line.trim_end().ends_with('}'));
        if declared_only < opened && declared_only.is_some() {
            continue;
        }
        let end = rest
            .iter()
            .position(|line| *line == format!("{indent}}}"))
            .unwrap_or(0);
        let count = rest.iter().take(end + 1).filter(|line| is_code(line)).count();
        found.push((name.to_owned(), count));
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    let words = [
        "pub",
        "async",
        "const",
        "unsafe",
        "extern",
        "pub(crate)",
        "pub(super)",
    ];
    if !before
        .split_whitespace()
        .all(|word| words.contains(&word) || word.starts_with("pub(in"))
    {
        return None;
    }
    after.split(['(', '<']).next().filter(|name| !name.is_empty())
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("//")
}

/// One integration binary a crate, and each of its files is in it.
fn unlisted_tests(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, _) in tree.files("", ".rs") {
        let Some((home, file)) = path.split_once("/tests/") else {
            continue;
        };
        // `src/foo/tests/…` are unit tests.
        if home.contains("/src") || home.ends_with("src") {
            continue;
        }
        let Some(module) = file.strip_prefix("it/") else {
            problems.push(format!(
                "{path}: integration tests are modules of {home}/tests/it/main.rs: one binary links once"
            ));
            continue;
        };
        let name = module.trim_end_matches(".rs");
        if name == "main" || name.contains('/') {
            continue;
        }
        let main = tree.text(&format!("{home}/tests/it/main.rs")).unwrap_or_default();
        let listed = main.lines().any(|line| line.trim() == format!("mod {name};"));
        if !listed {
            problems.push(format!(
                "{path}: never runs: `mod {name};` is not in {home}/tests/it/main.rs"
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        format!(
            "/// Docs.\npub(crate) async fn long(\n    a: u8,\n) {{\n{}}}\n",
            "    call();\n".repeat(lines - 4)
        )
    }

    fn problems(path: &str, text: &str, allow: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text), (ALLOW, allow)]))
    }

    #[test]
    fn a_function_may_have_seventy_lines_and_not_one_more() {
        assert_eq!(problems("a.rs", &function(70), ""), [""; 0]);
        assert_eq!(
            problems("a.rs", &function(71), ""),
            ["a.rs::long: 71 code lines, more than 70"]
        );
    }

    #[test]
    fn a_file_may_have_five_hundred_lines_without_comments_and_tests() {
        let file = |lines: usize| {
            format!(
                "{}\n// why\n\n#[cfg(test)]\nmod tests {{\n{}}}\n",
                "x;\n".repeat(lines),
                "y;\n".repeat(90)
            )
        };
        assert_eq!(problems("a.rs", &file(500), ""), [""; 0]);
        assert_eq!(
            problems("a.rs", &file(501), ""),
            ["a.rs: 501 code lines, more than 500"]
        );
    }

    #[test]
    fn an_exception_holds_exactly_and_only_shrinks() {
        let allow = |lines: usize| format!("[functions]\n\"a.rs::long\" = {lines}\n");
        assert_eq!(problems("a.rs", &function(80), &allow(80)), [""; 0]);
        assert!(problems("a.rs", &function(81), &allow(80))[0].contains("has grown past"));
        assert!(problems("a.rs", &function(79), &allow(80))[0].contains("lower it"));
        assert!(problems("a.rs", &function(70), &allow(80))[0].contains("remove it"));
    }

    #[test]
    fn declarations_and_functions_in_text_are_not_measured() {
        let text = "trait T {\n    fn a(&self);\n    fn b(\n        &self,\n    ) -> u8;\n}\nlet s = \"fn c() {\";\n";
        assert_eq!(functions(text), []);
        assert_eq!(functions("    const fn one() -> u8 { 1 }\n").len(), 1);
    }

    #[test]
    fn unfinished_work_and_mod_files_are_found() {
        for sign in UNFINISHED {
            let found = problems("a.rs", &format!("\n    {sign}\n"), "");
            assert!(
                found.len() == 1 && found[0].starts_with("a.rs:2: "),
                "{sign}: {found:?}"
            );
        }
        assert_eq!(problems("crates/x/src/foo/mod.rs", "", "").len(), 1);
    }

    #[test]
    fn an_integration_file_that_never_runs_is_found() {
        let listed = ("crates/x/tests/it/main.rs", "mod a;\n");
        let tree = |more: &str| {
            Tree::of(&[
                listed,
                ("crates/x/tests/it/a.rs", ""),
                ("crates/x/src/b/tests/c.rs", ""),
                (more, ""),
            ])
        };
        assert_eq!(unlisted_tests(&tree("crates/x/tests/it/a/deeper.rs")), [""; 0]);
        assert!(unlisted_tests(&tree("crates/x/tests/it/b.rs"))[0].contains("never runs"));
        assert!(unlisted_tests(&tree("crates/x/tests/second.rs"))[0].contains("links once"));
    }
}
