//! `cargo xtask tidy`: the rules of this workspace that no compiler knows.
//!
//! Every check is a function from a [`Tree`] (paths and texts, no file system) to problems, so that each one's unit
//! tests plant a violation and see it found. The whole of it also runs as a test below.

mod bans;
mod docs;
mod edges;
mod machine;
mod manifests;
mod sources;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::sh;

/// The workspace's tracked text files (and new ones that are not ignored).
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads what git knows of.
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let args = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
        let list = sh::output(sh::command("git", args).current_dir(root))?;
        let mut files = BTreeMap::new();
        for path in list.split_terminator('\0') {
            // Files that were removed and not yet committed, and binary ones, have no text to check.
            if let Ok(text) = fs::read_to_string(root.join(path)) {
                files.insert(path.to_owned(), text);
            }
        }
        Ok(Self { files })
    }

    /// A tree of the given files.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        Self { files }
    }

    /// The files with this beginning and end.
    pub(crate) fn files<'a>(
        &'a self,
        prefix: &'a str,
        suffix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self
            .files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()));
        all.filter(move |(path, _)| path.starts_with(prefix) && path.ends_with(suffix))
    }

    /// One file's text.
    fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }
}

/// The manifest of a workspace member.
struct Manifest<'a> {
    /// The member's folder.
    home: &'a str,
    table: toml::Table,
}

impl<'a> Manifest<'a> {
    /// All members' manifests; one that can't be parsed would have failed long before this runs.
    fn all(tree: &'a Tree) -> Vec<Self> {
        let members = tree
            .files("", "/Cargo.toml")
            .filter(|(path, _)| path.starts_with("crates/") || path.starts_with("xtask/"));
        let parsed = members.filter_map(|(path, text)| {
            let table: toml::Table = text.parse().ok()?;
            // A manifest with a workspace of its own stands outside ours on purpose.
            (!table.contains_key("workspace")).then_some(())?;
            Some(Self {
                home: path.strip_suffix("/Cargo.toml")?,
                table,
            })
        });
        parsed.collect()
    }

    fn name(&self) -> &str {
        self.table
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(toml::Value::as_str)
            .unwrap_or(self.home)
    }

    /// Each dependency with the kind of table it stands in, those for certain targets included.
    fn dependencies(&self) -> impl Iterator<Item = (Kind, &str, &toml::Value)> {
        let targets = self.table.get("target").and_then(toml::Value::as_table);
        let tables = targets
            .into_iter()
            .flat_map(|targets| targets.values().filter_map(toml::Value::as_table));
        std::iter::once(&self.table).chain(tables).flat_map(|table| {
            Kind::ALL.into_iter().flat_map(move |(kind, key)| {
                let entries = table.get(key).and_then(toml::Value::as_table);
                entries
                    .into_iter()
                    .flatten()
                    .map(move |(name, value)| (kind, name.as_str(), value))
            })
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Build,
    Dev,
}

impl Kind {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Normal, "dependencies"),
        (Self::Build, "build-dependencies"),
        (Self::Dev, "dev-dependencies"),
    ];
}

/// Prints every problem, and fails if there is one.
pub(crate) fn run() -> Result<()> {
    let problems = problems(&Tree::load(&sh::root())?);
    if !problems.is_empty() {
        bail!("the tree is untidy:\n{}", problems.join("\n"));
    }
    println!("tidy: all good");
    Ok(())
}

fn problems(tree: &Tree) -> Vec<String> {
    let checks = [
        edges::check,
        manifests::check,
        sources::check,
        bans::check,
        machine::check,
        docs::check,
    ];
    checks.iter().flat_map(|check| check(tree)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tree_is_tidy() {
        let problems = problems(&Tree::load(&sh::root()).unwrap());
        assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
    }

    #[test]
    fn dependencies_of_every_kind_of_table_are_found() {
        let text = "[dependencies]\na = \"1\"\n[dev-dependencies]\nb = \"1\"\n[target.'cfg(unix)'.build-dependencies]\nc = \"1\"\n";
        let tree = Tree::of(&[("crates/x/Cargo.toml", text)]);
        let manifests = Manifest::all(&tree);
        let found: Vec<_> = manifests[0]
            .dependencies()
            .map(|(kind, name, _)| (kind, name))
            .collect();
        assert_eq!(found, [(Kind::Normal, "a"), (Kind::Dev, "b"), (Kind::Build, "c")]);
    }
}
