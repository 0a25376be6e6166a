//! `cargo xtask features`: each crate that others take is clean without features, and with each of them alone.

use anyhow::{Context, Result};

use crate::sh;

/// The crates that other services take one by one, by the ends of their names.
const CRATES: [&str; 4] = ["config", "cache", "resilience", "core"];

/// Arguments of `cargo xtask features`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this crate
    #[arg(value_name = "CRATE", value_parser = clap::builder::PossibleValuesParser::new(CRATES))]
    only: Option<String>,
}

/// Lints each crate, or the one that was asked for.
pub(crate) fn run(args: &Args) -> Result<()> {
    let metadata = sh::metadata()?;
    for name in CRATES
        .iter()
        .filter(|name| args.only.as_deref().is_none_or(|only| only == **name))
    {
        let package = format!("contextkeep-{name}");
        let features = of(&metadata, &package).with_context(|| format!("there is no {package}"))?;
        for feature in std::iter::once("").chain(features) {
            let mut clippy = sh::command(
                "cargo",
                [
                    "clippy",
                    "--quiet",
                    "--package",
                    &package,
                    "--all-targets",
                    "--no-default-features",
                ],
            );
            if !feature.is_empty() {
                clippy.args(["--features", feature]);
            }
            sh::run(clippy.args(["--", "-D", "warnings"]))?;
        }
    }
    Ok(())
}

/// The package's features, without `default`, which is not one of its own.
fn of<'a>(metadata: &'a serde_json::Value, package: &str) -> Option<Vec<&'a str>> {
    let packages = metadata.get("packages")?.as_array()?;
    let named =
        |found: &&serde_json::Value| found.get("name").and_then(serde_json::Value::as_str) == Some(package);
    let features = packages.iter().find(named)?.get("features")?.as_object()?;
    Some(
        features
            .keys()
            .map(String::as_str)
            .filter(|name| *name != "default")
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_feature_of_the_package_is_tried_alone() {
        let metadata = json!({"packages": [
            {"name": "other", "features": {"x": []}},
            {"name": "leaf", "features": {"default": ["a"], "a": [], "b": ["a"]}},
        ]});
        assert_eq!(of(&metadata, "leaf"), Some(vec!["a", "b"]));
        assert_eq!(of(&metadata, "absent"), None);
    }
}
