//! Reading the layers: files to layers, variables to assignments.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use crate::assign::Assignment;
use crate::problem::{Problem, ProblemKind};
use crate::schema::Shape;
use crate::{KeyPath, Source, env, file, format, layer};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Presence {
    Required,
    Optional,
}

#[derive(Clone)]
pub(super) struct Environment {
    pub(super) prefix: String,
    /// `None`: the process environment.
    pub(super) fixed: Option<Vec<(OsString, OsString)>>,
    pub(super) ignored: BTreeSet<String>,
}

/// `None` when the file could not be understood; a missing optional file is an empty layer.
pub(super) fn read_file(
    path: &Path,
    presence: Presence,
    limit: u64,
    shape: &Shape<'_>,
    problems: &mut Vec<Problem>,
) -> Option<layer::Layer> {
    let unreadable = |message: &str, hint: Option<&str>| {
        Problem::new(
            ProblemKind::Unreadable,
            KeyPath::root(),
            Source::whole_file(path),
            message,
        )
        .maybe_hint(hint.map(str::to_owned))
    };
    let parse = match format::for_path(path) {
        Ok(parse) => parse,
        Err(hint) => {
            problems.push(unreadable("is of an unknown kind", Some(hint)));
            return None;
        }
    };
    let text = match file::read(path, limit) {
        Ok(Some(text)) => text,
        Ok(None) if presence == Presence::Optional => return Some(layer::Layer::default()),
        Ok(None) => {
            problems.push(unreadable("does not exist", Some("check the path")));
            return None;
        }
        Err(fault) => {
            problems.push(unreadable(&fault.message, fault.hint));
            return None;
        }
    };
    match parse(&text) {
        Ok(node) => Some(layer::from_file(node, path, shape, problems)),
        Err(error) => {
            let source = Source::file(path, error.line);
            let message = format!("column {}: {}", error.column, error.message);
            let problem = Problem::new(ProblemKind::Syntax, KeyPath::root(), source, message);
            problems.push(problem.maybe_hint(error.hint.map(str::to_owned)));
            None
        }
    }
}

impl Environment {
    pub(super) fn assignments(self, problems: &mut Vec<Problem>) -> Vec<Assignment> {
        let mut assignments = Vec::new();
        for (name, value) in self.fixed.unwrap_or_else(env::all) {
            // A name that is not UTF-8 can't be one of ours.
            let Some(variable) = name.to_str().filter(|name| !self.ignored.contains(*name)) else {
                continue;
            };
            let Some(rest) = variable.strip_prefix(&self.prefix) else {
                continue;
            };
            let segments: Vec<_> = rest.split("__").map(str::to_owned).collect();
            let source = Source::Environment {
                variable: variable.to_owned(),
            };
            let Ok(text) = value.into_string() else {
                let path = segments
                    .into_iter()
                    .map(|segment| segment.to_lowercase())
                    .collect();
                problems.push(Problem::new(ProblemKind::BadValue, path, source, "is not UTF-8"));
                continue;
            };
            assignments.push(Assignment {
                prefix: self.prefix.clone(),
                segments,
                text,
                source,
            });
        }
        assignments
    }
}
