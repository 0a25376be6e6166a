#![doc = include_str!("../README.md")]

pub mod env;

mod assign;
mod check;
mod file;
mod format;
mod json_schema;
mod layer;
mod load;
mod loaded;
mod node;
mod path;
mod problem;
mod range;
mod reference;
mod schema;
mod secret;
mod source;

pub use json_schema::json_schema;
pub use load::{DEFAULT_MAX_FILE_BYTES, Loader};
pub use loaded::{Entry, Loaded};
pub use path::KeyPath;
pub use problem::{Errors, Finding, Findings, Problem, ProblemKind};
pub use reference::reference;
pub use source::Source;
