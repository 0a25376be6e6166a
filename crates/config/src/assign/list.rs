//! Setting single elements of lists that came from another layer.

use std::collections::BTreeMap;

use figment::value::{Dict, Empty, Tag, Value};

use super::Set;
use crate::KeyPath;
use crate::layer::{Layer, Stack, each_child};
use crate::problem::{Problem, ProblemKind};

/// Copies the lists whose elements are set, with the elements in place, into a layer of their own.
pub(super) fn patch(
    stack: &Stack,
    defaults: &Dict,
    elements: Vec<Set>,
    problems: &mut Vec<Problem>,
) -> Layer {
    let current = Value::from(stack.dict());
    let defaults = Value::from(defaults.clone());
    let sources = stack.sources();
    let mut root = Value::from(Dict::new());
    let mut places = BTreeMap::new();
    for set in elements {
        let segments = set.path.segments();
        let list_at = set.list_at.unwrap_or_default();
        let list: KeyPath = segments.iter().take(list_at).cloned().collect();
        if !places.contains_key(&list) {
            let old = find(&current, &list).or_else(|| find(&defaults, &list)).cloned();
            let old = old.unwrap_or_else(|| Value::from(Vec::<Value>::new()));
            record(&old, &list, &mut |path| {
                places.insert(path.clone(), sources.of(path));
            });
            // The way to a list leads through sections only, which `put` creates.
            let placed = put(&mut root, list.segments(), 0, list_at, old);
            debug_assert!(placed.is_ok(), "only an index can fail");
        }
        match put(&mut root, segments, 0, list_at, set.value) {
            Ok(()) => {
                places.retain(|path, _| !path.starts_with(&set.path));
                places.insert(set.path, set.source);
            }
            Err(length) => {
                let message = format!("leaves a gap: the list has {length} elements");
                let problem = Problem::new(ProblemKind::OutOfRange, set.path, set.source, message);
                problems.push(problem.hint(format!("the next index is {length}")));
            }
        }
    }
    let Value::Dict(_, dict) = root else {
        return Layer::default();
    };
    Layer { dict, places }
}

pub(super) fn find<'a>(value: &'a Value, path: &KeyPath) -> Option<&'a Value> {
    path.segments()
        .iter()
        .try_fold(value, |value, segment| match value {
            Value::Dict(_, dict) => dict.get(segment),
            Value::Array(_, items) => items.get(segment.parse::<usize>().ok()?),
            _ => None,
        })
}

fn record(value: &Value, path: &KeyPath, each: &mut dyn FnMut(&KeyPath)) {
    each(path);
    each_child(value, |key, child| record(child, &path.child(key), each));
}

/// Sets `leaf` at `segments`, making what is missing on the way; from `list_at` on a numeric segment
/// is an index. `Err` holds the length of a list whose end the index is beyond.
pub(super) fn put(
    value: &mut Value,
    segments: &[String],
    depth: usize,
    list_at: usize,
    leaf: Value,
) -> Result<(), usize> {
    let Some(segment) = segments.get(depth) else {
        *value = leaf;
        return Ok(());
    };
    let index = segment.parse::<usize>().ok().filter(|_| depth >= list_at);
    let fits = matches!(
        (&*value, index),
        (Value::Array(..), Some(_)) | (Value::Dict(..), None)
    );
    if !fits {
        *value = if index.is_some() {
            Value::from(Vec::<Value>::new())
        } else {
            Value::from(Dict::new())
        };
    }
    match (value, index) {
        (Value::Array(_, items), Some(index)) => {
            if index > items.len() {
                return Err(items.len());
            }
            if index == items.len() {
                items.push(Value::Empty(Tag::Default, Empty::Unit));
            }
            items
                .get_mut(index)
                .map_or(Ok(()), |item| put(item, segments, depth + 1, list_at, leaf))
        }
        (Value::Dict(_, dict), _) => {
            let slot = dict
                .entry(segment.clone())
                .or_insert(Value::Empty(Tag::Default, Empty::Unit));
            put(slot, segments, depth + 1, list_at, leaf)
        }
        _ => Ok(()),
    }
}
