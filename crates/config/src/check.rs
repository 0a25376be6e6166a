//! The merged value against the schema: every problem at once, each where its value came from.
//!
//! On the way values are brought into the form the settings types read: secrets are resolved, a
//! bare `0` for a duration becomes `0s`, an empty section becomes one without keys.

mod leaf;
mod variant;

use std::collections::BTreeSet;
use std::path::Path;

use figment::value::{Dict, Value};

use crate::problem::{Problem, ProblemKind};
use crate::schema::{Shape, nearest};
use crate::secret::{self, Variables};
use crate::source::Sources;
use crate::{KeyPath, Source};

#[cfg(test)]
mod tests;

/// The result of a walk.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) problems: Vec<Problem>,
    /// The paths of the secrets that are set.
    pub(crate) secrets: BTreeSet<KeyPath>,
}

/// Checks `value` against `shape` in place.
pub(crate) fn check(
    value: &mut Value,
    shape: &Shape<'_>,
    sources: &Sources,
    variables: &Variables,
) -> Checked {
    let mut checker = Checker {
        sources,
        variables,
        checked: Checked::default(),
    };
    checker.value(shape, value, &KeyPath::root());
    checker.checked
}

struct Checker<'a> {
    sources: &'a Sources,
    variables: &'a Variables,
    checked: Checked,
}

impl Checker<'_> {
    fn value(&mut self, shape: &Shape<'_>, value: &mut Value, path: &KeyPath) {
        if shape.is_any() || (matches!(value, Value::Empty(..)) && shape.nullable) {
            return;
        }
        if shape.is_enum() {
            return self.variants(shape, value, path);
        }
        match value {
            Value::Empty(..) if shape.is_struct() => *value = Value::from(Dict::new()),
            Value::Dict(_, dict) if shape.allows("object") => return self.section(shape, dict, path),
            Value::Array(_, items) if shape.allows("array") => return self.list(shape, items, path),
            _ => {}
        }
        match leaf::check(shape, value) {
            Err(fault) => self.report(fault.kind, path, fault.message, fault.hint),
            Ok(()) if shape.is_secret() => self.secret(value, path),
            Ok(()) => {}
        }
    }

    fn report(
        &mut self,
        kind: ProblemKind,
        path: &KeyPath,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let problem = Problem::new(kind, path.clone(), self.sources.of(path), message).maybe_hint(hint);
        self.checked.problems.push(problem);
    }

    fn section(&mut self, shape: &Shape<'_>, dict: &mut Dict, path: &KeyPath) {
        for (key, value) in &mut *dict {
            let path = path.child(key);
            match shape.property(key).or_else(|| shape.extra()) {
                Some(schema) => self.value(&shape.schema.shape(schema), value, &path),
                None => self.unknown(shape, key, &path),
            }
        }
        for key in shape.required().filter(|key| !dict.contains_key(*key)) {
            let mut problem = Problem::new(
                ProblemKind::Missing,
                path.child(key),
                self.sources.of(path),
                "is missing",
            );
            problem.hint = shape
                .property(key)
                .map(|schema| format!("it takes {}", leaf::expected(&shape.schema.shape(schema))));
            self.checked.problems.push(problem);
        }
    }

    fn unknown(&mut self, shape: &Shape<'_>, key: &str, path: &KeyPath) {
        let keys = shape.known_keys();
        let hint = match nearest(key, keys.iter().copied()) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if key == "<<" => Some("merge keys are not part of YAML 1.2".to_owned()),
            None if (1..=8).contains(&keys.len()) => Some(format!("known here: {}", keys.join(", "))),
            None => None,
        };
        self.report(ProblemKind::UnknownKey, path, "unknown key", hint);
    }

    fn list(&mut self, shape: &Shape<'_>, items: &mut [Value], path: &KeyPath) {
        if let Some((bound, count)) = leaf::length_fault(shape, "minItems", "maxItems", items.len()) {
            let message = format!("has {} elements, {bound} {count} are allowed", items.len());
            self.report(ProblemKind::OutOfRange, path, message, None);
        }
        let Some(inner) = shape.items().map(|items| shape.schema.shape(items)) else {
            return;
        };
        for (index, item) in items.iter_mut().enumerate() {
            self.value(&inner, item, &path.child(index.to_string()));
        }
    }

    fn secret(&mut self, value: &mut Value, path: &KeyPath) {
        let Value::String(_, text) = value else { return };
        self.checked.secrets.insert(path.clone());
        let source = self.sources.of(path);
        let folder = match &source {
            Source::File { path, .. } => path.parent().unwrap_or(Path::new("")),
            _ => Path::new(""),
        };
        match secret::resolve(text, folder, self.variables) {
            Ok(resolved) => *text = resolved,
            Err(unresolved) => {
                self.report(
                    ProblemKind::Secret,
                    path,
                    unresolved.message,
                    Some(unresolved.hint.to_owned()),
                );
            }
        }
    }
}
