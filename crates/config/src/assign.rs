//! Variables and flags: single keys as text, typed by the schema.
//!
//! A text key stays text even if it looks like a number. `true`, `1`, `false` and `0` are booleans;
//! lists read `a,b` or JSON; sections read JSON. An index sets one element of a list, or the one after its end.

mod list;
mod text;

use figment::value::{Dict, Value};

use crate::layer::{Layer, Stack};
use crate::problem::{Problem, ProblemKind};
use crate::schema::{Schema, Shape, nearest};
use crate::{KeyPath, Source};

#[cfg(test)]
mod tests;

/// One key to set.
#[derive(Clone)]
pub(crate) struct Assignment {
    /// What every variable begins with; empty for flags.
    pub(crate) prefix: String,
    pub(crate) segments: Vec<String>,
    pub(crate) text: String,
    pub(crate) source: Source,
}

/// A key that exists, with its value.
struct Set {
    path: KeyPath,
    /// How many segments lead to the first list that is entered by index, if one is.
    list_at: Option<usize>,
    value: Value,
    source: Source,
}

/// Adds the assignments to the stack as one layer (two, when elements of lists are set).
pub(crate) fn push(
    stack: &mut Stack,
    defaults: &Dict,
    schema: Schema<'_>,
    assignments: Vec<Assignment>,
    problems: &mut Vec<Problem>,
) {
    let mut sets: Vec<Set> = Vec::new();
    for assignment in assignments {
        match resolve(schema, assignment) {
            Ok(set) => sets.push(set),
            Err(problem) => problems.push(*problem),
        }
    }
    sets.sort_by_cached_key(|set| in_order(&set.path));
    let sets = without_conflicts(sets, problems);
    let (elements, whole): (Vec<_>, Vec<_>) = sets.into_iter().partition(|set| set.list_at.is_some());
    let mut layer = Layer::default();
    for set in whole {
        layer.places.insert(set.path.clone(), set.source);
        // Conflicts are gone: every step is a section or new.
        let mut root = Value::from(std::mem::take(&mut layer.dict));
        let placed = list::put(&mut root, set.path.segments(), 0, usize::MAX, set.value);
        debug_assert!(placed.is_ok(), "only an index can fail");
        if let Value::Dict(_, dict) = root {
            layer.dict = dict;
        }
    }
    stack.push(layer);
    if !elements.is_empty() {
        let patched = list::patch(stack, defaults, elements, problems);
        stack.push(patched);
    }
}

fn resolve(schema: Schema<'_>, assignment: Assignment) -> Result<Set, Box<Problem>> {
    let Assignment {
        prefix,
        segments,
        text,
        source,
    } = assignment;
    let mut shape = schema.root();
    let mut path = KeyPath::root();
    let mut list_at = None;
    for (depth, segment) in segments.iter().enumerate() {
        if let (true, Some(items)) = (shape.allows("array"), shape.items()) {
            if segment.parse::<usize>().is_err() {
                let problem = Problem::new(
                    ProblemKind::UnknownKey,
                    path.child(segment),
                    source,
                    "a list has no keys",
                );
                return Err(Box::new(problem.hint("name an element by its index, from 0")));
            }
            list_at.get_or_insert(depth);
            path = path.child(segment);
            shape = schema.shape(items);
        } else if shape.is_any() && depth > 0 {
            path = path.child(segment.to_lowercase());
        } else if let Some((key, inner)) = shape.lookup(segment) {
            path = path.child(key);
            shape = schema.shape(inner);
        } else {
            return Err(Box::new(unknown(&shape, &path, &prefix, &segments, source)));
        }
    }
    let value = text::typed(&shape, text);
    Ok(Set {
        path,
        list_at,
        value,
        source,
    })
}

/// No key is called like the segment behind `at`; what follows it stays in the suggestion.
fn unknown(shape: &Shape<'_>, at: &KeyPath, prefix: &str, segments: &[String], source: Source) -> Problem {
    let depth = at.segments().len();
    let segment = segments.get(depth).map_or("", String::as_str);
    let hint = nearest(segment, shape.known_keys()).map(|near| {
        let rest = segments.iter().skip(depth + 1).map(String::as_str);
        let meant = at.segments().iter().map(String::as_str).chain([near]).chain(rest);
        match &source {
            Source::Environment { .. } => format!("did you mean `{}`?", variable_name(prefix, meant)),
            _ => format!(
                "did you mean `{}`?",
                meant.map(str::to_owned).collect::<KeyPath>()
            ),
        }
    });
    Problem::new(
        ProblemKind::UnknownKey,
        at.child(segment.to_lowercase()),
        source,
        "unknown key",
    )
    .maybe_hint(hint)
}

/// The variable of a key: `PREFIX_` and the segments in capitals, two underscores between them.
pub(crate) fn variable_name(prefix: &str, segments: impl Iterator<Item = impl AsRef<str>>) -> String {
    let name = segments
        .map(|segment| segment.as_ref().replace('-', "_").to_uppercase())
        .collect::<Vec<_>>()
        .join("__");
    format!("{prefix}{name}")
}

/// Sorts a path right before what lies below it, and index 2 before index 10.
fn in_order(path: &KeyPath) -> Vec<(u64, String)> {
    let segments = path.segments().iter();
    segments
        .map(|segment| (segment.parse().unwrap_or(u64::MAX), segment.clone()))
        .collect()
}

/// Two texts for one key, or one for a key and one for a key below it: the lower ones are reported.
fn without_conflicts(sets: Vec<Set>, problems: &mut Vec<Problem>) -> Vec<Set> {
    let mut kept: Vec<Set> = Vec::new();
    for set in sets {
        match kept.last() {
            Some(above) if set.path.starts_with(&above.path) => {
                let message = if set.path == above.path {
                    format!("{} sets the same key", above.source)
                } else {
                    format!("{} sets {} as a whole", above.source, above.path)
                };
                let problem = Problem::new(ProblemKind::Conflict, set.path, set.source, message);
                problems.push(problem.hint("remove one of the two"));
            }
            _ => kept.push(set),
        }
    }
    kept
}
