//! From the checked value to settings, or to every problem.

use std::collections::BTreeSet;

use figment::value::Value;
use serde::{Serialize, de::DeserializeOwned};

use crate::problem::{Errors, Findings, Problem, ProblemKind};
use crate::source::Sources;
use crate::{KeyPath, Loaded};

/// Deserialises and validates. Values with a problem are taken out first, so that the contradictions
/// of the rest are reported as well; those that touch a value with a problem are not.
pub(super) fn finish<T: DeserializeOwned + Serialize>(
    mut value: Value,
    sources: Sources,
    secrets: BTreeSet<KeyPath>,
    mut problems: Vec<Problem>,
    complete: bool,
    validate: impl FnOnce(&T, &mut Findings),
) -> Result<Loaded<T>, Errors> {
    for problem in &problems {
        remove(&mut value, problem.path.segments());
    }
    let mut findings = Findings::default();
    let settings = match value.deserialize::<T>() {
        Ok(settings) => {
            if complete {
                validate(&settings, &mut findings);
            }
            Some(settings)
        }
        Err(errors) => {
            if problems.is_empty() {
                problems.extend(
                    errors
                        .into_iter()
                        .map(|error| rejected(&error, &sources, &secrets)),
                );
            }
            None
        }
    };
    let found: Vec<_> = findings
        .into_inner()
        .into_iter()
        .filter(|finding| !problems.iter().any(|problem| finding.touches(&problem.path)))
        .map(|finding| finding.into_problem(&sources))
        .collect();
    problems.extend(found);
    match settings {
        Some(value) if problems.is_empty() => Ok(Loaded::new(value, sources, secrets)),
        _ => Err(Errors::new(problems)),
    }
}

/// What the schema allows and the type still refuses: a `Deserialize` of its own.
fn rejected(error: &figment::Error, sources: &Sources, secrets: &BTreeSet<KeyPath>) -> Problem {
    let path: KeyPath = error.path.iter().cloned().collect();
    let secret = secrets.iter().any(|secret| secret.starts_with(&path));
    // The message of a foreign `Deserialize` may quote what it was given.
    let message = if secret {
        "is not accepted".to_owned()
    } else {
        error.kind.to_string()
    };
    Problem::new(ProblemKind::BadValue, path.clone(), sources.of(&path), message)
}

fn remove(value: &mut Value, segments: &[String]) {
    match (value, segments) {
        (Value::Dict(_, dict), [last]) => drop(dict.remove(last)),
        (Value::Dict(_, dict), [first, rest @ ..]) => {
            if let Some(inner) = dict.get_mut(first) {
                remove(inner, rest);
            }
        }
        (Value::Array(_, items), [index, rest @ ..]) => {
            if let Some(item) = index.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                remove(item, rest);
            }
        }
        _ => {}
    }
}
