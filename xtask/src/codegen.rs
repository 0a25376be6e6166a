//! `cargo xtask codegen`: the pages of `docs/reference` are printed by the code they describe.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::sh;

/// The table: which page is the standard output of which command. Pages are added here and nowhere else.
const PAGES: [Page; 7] = [
    Page {
        path: "docs/reference/configuration.md",
        cargo: &[
            "run",
            "-q",
            "-p",
            "contextkeep-server",
            "--",
            "docs",
            "configuration",
        ],
    },
    Page {
        path: "docs/reference/contextkeep.schema.json",
        cargo: &["run", "-q", "-p", "contextkeep-server", "--", "config", "schema"],
    },
    Page {
        path: "docs/reference/errors.md",
        cargo: &["run", "-q", "-p", "contextkeep-server", "--", "docs", "errors"],
    },
    Page {
        path: "docs/reference/openapi.json",
        cargo: &["run", "-q", "-p", "contextkeep-server", "--", "docs", "openapi"],
    },
    Page {
        path: "docs/reference/metrics.md",
        cargo: &["run", "-q", "-p", "contextkeep-server", "--", "docs", "metrics"],
    },
    Page {
        path: "docs/reference/cli.md",
        cargo: &["run", "-q", "-p", "contextkeep-server", "--", "docs", "cli"],
    },
    Page {
        path: "docs/reference/mcp-tools.json",
        cargo: &["run", "-q", "-p", "contextkeep-server", "--", "docs", "mcp-tools"],
    },
];

/// A generated file.
struct Page {
    /// Path from the root.
    path: &'static str,
    /// Arguments of `cargo` that print it.
    cargo: &'static [&'static str],
}

/// Arguments of `cargo xtask codegen`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if a page differs from what would be written
    #[arg(long)]
    check: bool,
}

/// Writes or checks every page.
pub(crate) fn run(args: &Args) -> Result<()> {
    let stale = generate(&sh::root(), &PAGES, args.check, |cargo| {
        sh::output(&mut sh::command("cargo", cargo.iter().copied()))
    })?;
    if !stale.is_empty() {
        bail!(
            "not up to date:\n{}\nwrite them again with `cargo xtask codegen`",
            stale.join("\n")
        );
    }
    println!("codegen: {} pages up to date", PAGES.len());
    Ok(())
}

/// Writes the pages that differ, or with `check` only says in what.
fn generate(
    root: &Path,
    pages: &[Page],
    check: bool,
    print: impl Fn(&[&str]) -> Result<String>,
) -> Result<Vec<String>> {
    let mut stale = Vec::new();
    for page in pages {
        let text = print(page.cargo).with_context(|| format!("could not generate {}", page.path))?;
        let path = root.join(page.path);
        let present = fs::read_to_string(&path).unwrap_or_default();
        if present == text {
            continue;
        }
        if check {
            stale.push(format!("{}: {}", page.path, first_difference(&present, &text)));
            continue;
        }
        let folder = path.parent().context("a page has no folder")?;
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        fs::write(&path, text).with_context(|| format!("could not write {}", page.path))?;
        println!("codegen: wrote {}", page.path);
    }
    Ok(stale)
}

fn first_difference(present: &str, wanted: &str) -> String {
    let mut wanted_lines = wanted.lines();
    let mut number = 0;
    for line in present.lines() {
        number += 1;
        match wanted_lines.next() {
            Some(other) if other == line => {}
            Some(other) => return format!("line {number} is `{line}`, would be `{other}`"),
            None => return format!("line {number} (`{line}`) would go"),
        }
    }
    wanted_lines.next().map_or_else(
        || "its last line ends differently".to_owned(),
        |line| format!("line {} (`{line}`) is missing", number + 1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: [Page; 1] = [Page {
        path: "docs/reference/page.md",
        cargo: &["run"],
    }];

    const PRINTED: &str = "one\ntwo\n";

    fn printer() -> impl Fn(&[&str]) -> Result<String> {
        |_| Ok(PRINTED.to_owned())
    }

    #[test]
    fn a_page_is_written_once_and_then_up_to_date() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(generate(root.path(), &PAGE, false, printer()).unwrap(), [""; 0]);
        assert_eq!(
            fs::read_to_string(root.path().join(PAGE[0].path)).unwrap(),
            "one\ntwo\n"
        );
        assert_eq!(generate(root.path(), &PAGE, true, printer()).unwrap(), [""; 0]);
    }

    #[test]
    fn a_check_reports_a_stale_page_and_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(PAGE[0].path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "one\nold\n").unwrap();
        let stale = generate(root.path(), &PAGE, true, printer()).unwrap();
        assert_eq!(stale, ["docs/reference/page.md: line 2 is `old`, would be `two`"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\nold\n");
    }

    #[test]
    fn a_missing_page_and_a_failing_command_are_reported() {
        let root = tempfile::tempdir().unwrap();
        let stale = generate(root.path(), &PAGE, true, printer()).unwrap();
        assert_eq!(stale, ["docs/reference/page.md: line 1 (`one`) is missing"]);
        let failed = generate(root.path(), &PAGE, true, |_| bail!("broken"));
        assert!(format!("{:#}", failed.unwrap_err()).contains("page.md: broken"));
    }
}
