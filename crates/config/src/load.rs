//! Layers → merged value → checked value → settings.
//!
//! 1. Precedence is fixed: defaults < files in the order given < environment < flags. The order of
//!    the builder's calls does not matter across kinds.
//! 2. Nothing stops at the first problem. What can't be read is set aside, the rest is still checked,
//!    and `validate` still runs when the rest makes a settings value.
//! 3. Only the value in effect is checked: a bad value that a higher layer overrides does not stop a
//!    start (unknown keys, duplicates and clashes do, they can't be overridden).

mod input;
mod outcome;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use figment::value::{Dict, Value};
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};

use crate::assign::{self, Assignment};
use crate::check::{self, Checked};
use crate::layer::{self, Stack};
use crate::problem::{Errors, Findings, Problem, ProblemKind};
use crate::schema::Schema;
use crate::secret::Variables;
use crate::source::Sources;
use crate::{KeyPath, Loaded, Source};
use input::{Environment, Presence};

#[cfg(all(feature = "yaml", feature = "toml"))]
#[cfg(test)]
mod tests;

/// The largest configuration file unless [`Loader::max_file_bytes`] says otherwise: 1 MiB.
pub const DEFAULT_MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Collects layers and loads settings from them.
///
/// Reading happens in [`load`](Self::load); nothing before it can fail.
#[derive(Clone)]
#[must_use = "nothing is read before `load`"]
pub struct Loader {
    files: Vec<(PathBuf, Presence)>,
    environment: Option<Environment>,
    flags: Vec<Assignment>,
    max_file_bytes: u64,
}

impl Default for Loader {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            environment: None,
            flags: Vec::new(),
            max_file_bytes: DEFAULT_MAX_FILE_BYTES,
        }
    }
}

/// Shows what would be read, no values: variables and flags may hold secrets.
impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags: Vec<_> = self.flags.iter().map(|flag| flag.source.to_string()).collect();
        f.debug_struct("Loader")
            .field("files", &self.files)
            .field(
                "environment",
                &self.environment.as_ref().map(|environment| &environment.prefix),
            )
            .field("flags", &flags)
            .field("max_file_bytes", &self.max_file_bytes)
            .finish()
    }
}

impl Loader {
    /// A loader without layers: it loads the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file that has to be there. The extension says how it is read: `.yaml`, `.yml`, `.toml`, `.json`.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push((path.into(), Presence::Required));
        self
    }

    /// A file that is read if it is there.
    pub fn optional_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push((path.into(), Presence::Optional));
        self
    }

    /// The largest file that is read, in bytes; [`DEFAULT_MAX_FILE_BYTES`] if never called.
    pub fn max_file_bytes(mut self, bytes: u64) -> Self {
        self.max_file_bytes = bytes;
        self
    }

    /// The variables of the process that begin with `prefix`, for instance `MYAPP_`: what follows is the
    /// key path in capitals, two underscores between its segments (`MYAPP_DATABASE__POOL_SIZE`).
    /// There is one environment: a second call, or one of [`env_from`](Self::env_from), replaces the first.
    pub fn env(mut self, prefix: impl Into<String>) -> Self {
        self.environment = Some(Environment {
            prefix: prefix.into(),
            fixed: None,
            ignored: BTreeSet::new(),
        });
        self
    }

    /// The same over given variables, for tests. `env:NAME` secrets are looked up in them, too.
    pub fn env_from<K, V>(
        mut self,
        prefix: impl Into<String>,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let fixed = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        self.environment = Some(Environment {
            prefix: prefix.into(),
            fixed: Some(fixed),
            ignored: BTreeSet::new(),
        });
        self
    }

    /// Names with the prefix that are no settings, whole (`MYAPP_LOG`). Call it after [`env`](Self::env).
    pub fn ignore_env<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        if let Some(environment) = &mut self.environment {
            environment.ignored.extend(names.into_iter().map(Into::into));
        }
        self
    }

    /// A key set on the command line; `flag` is what the user wrote, for the report.
    pub fn flag(
        mut self,
        path: impl Into<KeyPath>,
        value: impl Into<String>,
        flag: impl Into<String>,
    ) -> Self {
        self.flags.push(Assignment {
            prefix: String::new(),
            segments: path.into().segments().to_vec(),
            text: value.into(),
            source: Source::Flag { flag: flag.into() },
        });
        self
    }

    /// Reads the layers, checks them, and asks `validate` for what only the settings know.
    ///
    /// Blocks on file reads; it is meant for the start of a program.
    ///
    /// # Errors
    /// Every problem of every layer at once.
    pub fn load<T>(self, validate: impl FnOnce(&T, &mut Findings)) -> Result<Loaded<T>, Errors>
    where
        T: DeserializeOwned + Serialize + Default + JsonSchema,
    {
        let schema = SchemaGenerator::default().into_root_schema_for::<T>().to_value();
        let schema = Schema::new(&schema);
        let defaults = match Value::serialize(T::default()) {
            Ok(Value::Dict(_, dict)) => dict,
            _ => Dict::new(),
        };
        let mut merged = self.merge(schema, defaults);
        let mut value = Value::from(merged.dict);
        let Checked { problems, secrets } =
            check::check(&mut value, &schema.root(), &merged.sources, &merged.variables);
        merged.problems.extend(problems.into_iter().filter(|problem| {
            // What an unreadable file may have held is not missing.
            merged.files_read || problem.kind != ProblemKind::Missing
        }));
        outcome::finish(
            value,
            merged.sources,
            secrets,
            merged.problems,
            merged.files_read,
            validate,
        )
    }

    fn merge(self, schema: Schema<'_>, defaults: Dict) -> Merged {
        let mut problems = Vec::new();
        let mut stack = Stack::new();
        let mut files_read = true;
        for (path, presence) in &self.files {
            match input::read_file(
                path,
                *presence,
                self.max_file_bytes,
                &schema.root(),
                &mut problems,
            ) {
                Some(layer) => stack.push(layer),
                None => files_read = false,
            }
        }
        let variables = Variables(
            self.environment
                .as_ref()
                .and_then(|environment| environment.fixed.clone()),
        );
        if let Some(environment) = self.environment {
            let assignments = environment.assignments(&mut problems);
            assign::push(&mut stack, &defaults, schema, assignments, &mut problems);
        }
        assign::push(&mut stack, &defaults, schema, self.flags, &mut problems);
        problems.extend(stack.clashes());
        let sources = stack.sources();
        let mut dict = stack.dict();
        layer::fill(&mut dict, defaults, &schema.root());
        Merged {
            dict,
            sources,
            variables,
            problems,
            files_read,
        }
    }
}

struct Merged {
    dict: Dict,
    sources: Sources,
    variables: Variables,
    problems: Vec<Problem>,
    files_read: bool,
}
