//! `cargo xtask standalone`: a leaf crate, taken by a project that has nothing else of ours, builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sh;

/// The crates that somebody may take alone, by folder.
pub(crate) const LEAVES: [&str; 3] = ["config", "cache", "resilience"];

/// Arguments of `cargo xtask standalone`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this leaf crate
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(LEAVES))]
    leaf: Option<String>,
}

/// Checks each leaf, or the one that was asked for.
pub(crate) fn run(args: &Args) -> Result<()> {
    let source = Source::find()?;
    for leaf in LEAVES
        .iter()
        .filter(|leaf| args.leaf.as_deref().is_none_or(|only| only == **leaf))
    {
        check(leaf, &source).with_context(|| format!("contextkeep-{leaf} does not stand alone"))?;
    }
    Ok(())
}

/// How the foreign project depends on us.
enum Source {
    /// As strangers do: a revision of a repository.
    Git { repository: PathBuf, revision: String },
    /// The working tree, which has changes that no revision has (or a history too short to be cloned).
    Path(PathBuf),
}

impl Source {
    fn find() -> Result<Self> {
        let git = |args: &[&'static str]| sh::output(&mut sh::command("git", args.iter().copied()));
        let whole = git(&["rev-parse", "--is-shallow-repository"])?.trim() == "false";
        if whole && git(&["status", "--porcelain"])?.trim().is_empty() {
            let repository = git(&["rev-parse", "--path-format=absolute", "--git-common-dir"])?;
            let revision = git(&["rev-parse", "HEAD"])?.trim().to_owned();
            return Ok(Self::Git {
                repository: repository.trim().into(),
                revision,
            });
        }
        Ok(Self::Path(sh::root()))
    }

    fn dependency(&self, leaf: &str, features: &[&str]) -> String {
        let from = match self {
            Self::Git { repository, revision } => {
                format!("git = \"file://{}\", rev = \"{revision}\"", repository.display())
            }
            Self::Path(root) => format!("path = \"{}\"", root.join("crates").join(leaf).display()),
        };
        format!("{{ {from}, features = {features:?} }}")
    }
}

/// What somebody may take of a leaf, beside its defaults.
fn selections(leaf: &str) -> &'static [&'static [&'static str]] {
    match leaf {
        "resilience" => &[&[], &["tokio"], &["tower"], &["tokio", "tower"]],
        _ => &[&[]],
    }
}

fn check(leaf: &str, source: &Source) -> Result<()> {
    let name = format!("contextkeep-{leaf}");
    let how = match source {
        Source::Git { .. } => "by git",
        Source::Path(_) => "by path: the tree is dirty or shallow",
    };
    for features in selections(leaf) {
        let count = check_with(&name, &source.dependency(leaf, features))?;
        let with = match features {
            [] => String::new(),
            features => format!(" with {}", features.join(" and ")),
        };
        println!("standalone: {name}{with} builds alone ({how}), {count} dependencies");
    }
    Ok(())
}

/// Builds a foreign project with that dependency; how many packages it brought.
fn check_with(name: &str, dependency: &str) -> Result<usize> {
    let project = tempfile::tempdir().context("could not create a foreign project")?;
    write_project(project.path(), name, dependency)?;
    // The same target folder and profile, so that what is built already is not built again.
    let mut build = cargo_in(project.path(), &["check", "--quiet"]);
    sh::run(build.env("CARGO_TARGET_DIR", sh::target_folder()?))?;
    let tree = sh::output(&mut cargo_in(
        project.path(),
        &["tree", "--edges", "normal", "--prefix", "none"],
    ))?;
    let dependencies = dependencies(&tree, name);
    let ours: Vec<_> = dependencies
        .iter()
        .filter(|other| other.starts_with("contextkeep"))
        .collect();
    if !ours.is_empty() {
        bail!("it pulls in {ours:?}");
    }
    Ok(dependencies.len())
}

fn cargo_in(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(args).current_dir(folder);
    command
}

fn write_project(folder: &Path, name: &str, dependency: &str) -> Result<()> {
    let manifest = format!(
        "[package]\nname = \"foreign-project\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\n{name} = {dependency}\n\n[profile.dev]\ndebug = \"line-tables-only\"\n"
    );
    let root = sh::root();
    fs::write(folder.join("Cargo.toml"), manifest)?;
    // The same versions as ours, so that nothing is fetched that was not fetched before; and our compiler.
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    fs::copy(
        root.join("rust-toolchain.toml"),
        folder.join("rust-toolchain.toml"),
    )?;
    fs::create_dir(folder.join("src"))?;
    fs::write(
        folder.join("src/lib.rs"),
        format!("pub use {};\n", name.replace('-', "_")),
    )?;
    Ok(())
}

/// The different packages in an unindented `cargo tree`, without the project and the leaf themselves.
fn dependencies<'a>(tree: &'a str, leaf: &str) -> Vec<&'a str> {
    let mut names: Vec<_> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| {
            !line.is_empty()
                && !line.starts_with("foreign-project ")
                && !line.starts_with(&format!("{leaf} "))
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_counted_once_and_the_leaf_not_at_all() {
        let tree = "foreign-project v0.0.0 (/x)\ncontextkeep-cache v0.1.0 (/y)\nserde v1.0.1\nserde v1.0.1 (*)\nserde v0.9.0\n\n";
        assert_eq!(
            dependencies(tree, "contextkeep-cache"),
            ["serde v0.9.0", "serde v1.0.1"]
        );
    }

    #[test]
    fn another_crate_of_ours_is_seen() {
        let tree = "foreign-project v0.0.0\ncontextkeep-cache v0.1.0\ncontextkeep-config v0.1.0 (/z)\n";
        assert_eq!(
            dependencies(tree, "contextkeep-cache"),
            ["contextkeep-config v0.1.0 (/z)"]
        );
    }
}
