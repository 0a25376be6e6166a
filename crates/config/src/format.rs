//! The file formats, by extension. Each turns text into a [`Node`] tree with positions.

mod json;
#[cfg(feature = "toml")]
mod toml;
#[cfg(feature = "yaml")]
mod yaml;

use std::path::Path;

use crate::node::{Node, SyntaxError};

#[cfg(test)]
mod tests;

/// Parses a whole text.
pub(crate) type Parse = fn(&str) -> Result<Node, SyntaxError>;

/// The parser for `path`, or what to tell the user.
pub(crate) fn for_path(path: &Path) -> Result<Parse, &'static str> {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "json" => Ok(json::parse),
        #[cfg(feature = "yaml")]
        "yaml" | "yml" => Ok(yaml::parse),
        #[cfg(feature = "toml")]
        "toml" => Ok(toml::parse),
        #[cfg(not(feature = "yaml"))]
        "yaml" | "yml" => Err("this program was built without YAML support"),
        #[cfg(not(feature = "toml"))]
        "toml" => Err("this program was built without TOML support"),
        _ => Err("name it .yaml, .yml, .toml or .json: the extension says how to read it"),
    }
}
