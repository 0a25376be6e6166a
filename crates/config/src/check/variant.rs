//! Enums: the variant a value names is the one it is checked against, so that a wrong key in it is
//! reported as that and not as "no variant matches".

use figment::value::{Dict, Value};

use super::{Checked, Checker, leaf};
use crate::KeyPath;
use crate::problem::ProblemKind;
use crate::schema::Shape;

impl Checker<'_> {
    pub(super) fn variants(&mut self, shape: &Shape<'_>, value: &mut Value, path: &KeyPath) {
        let variants: Vec<_> = shape.variants().collect();
        if let Value::Dict(_, dict) = &*value {
            let sections: Vec<_> = variants
                .iter()
                .filter(|variant| variant.allows("object"))
                .collect();
            if let Some(tag) = sections.iter().find_map(|variant| tag_of(variant)) {
                return self.tagged(&sections, tag, value, path);
            }
            if let Some(variant) = sections.iter().find(|variant| is_named_by(variant, dict)) {
                return self.value(variant, value, path);
            }
        }
        self.untagged(shape, &variants, value, path);
    }

    /// `{kind: b, ..}`: the variants differ by a key with a constant.
    fn tagged(&mut self, variants: &[&Shape<'_>], tag: &str, value: &mut Value, path: &KeyPath) {
        let Value::Dict(_, dict) = &*value else { return };
        let names: Vec<_> = variants
            .iter()
            .filter_map(|variant| constant(variant, tag))
            .collect();
        let below = path.child(tag);
        let one_of = format!("it is one of {}", names.join(", "));
        match dict.get(tag) {
            Some(Value::String(_, given)) => {
                let named = variants
                    .iter()
                    .find(|variant| constant(variant, tag) == Some(given));
                if let Some(variant) = named {
                    return self.value(variant, value, path);
                }
                let (message, hint) = leaf::bad_choice(given, &names);
                self.report(ProblemKind::BadValue, &below, message, Some(hint));
            }
            Some(other) => {
                let message = format!("expected text, found {}", leaf::kind_of(other));
                self.report(ProblemKind::WrongType, &below, message, Some(one_of));
            }
            None => self.report(ProblemKind::Missing, &below, "is missing", Some(one_of)),
        }
    }

    /// The first variant that takes the value, each tried on a copy.
    fn untagged(&mut self, shape: &Shape<'_>, variants: &[Shape<'_>], value: &mut Value, path: &KeyPath) {
        let mut nearest: Option<Checked> = None;
        for variant in variants {
            let mut attempt = value.clone();
            let checked = Checked::default();
            let mut checker = Checker {
                sources: self.sources,
                variables: self.variables,
                checked,
            };
            checker.value(variant, &mut attempt, path);
            let mut checked = checker.checked;
            if checked.problems.is_empty() {
                *value = attempt;
                self.checked.secrets.append(&mut checked.secrets);
                return;
            }
            // A variant of the right type is nearer than one of another type.
            let right_type = checked
                .problems
                .iter()
                .all(|problem| problem.kind != ProblemKind::WrongType);
            if right_type && nearest.is_none() {
                nearest = Some(checked);
            }
        }
        let choices = shape.choices();
        match (value, nearest) {
            (Value::String(_, text), _) if !choices.is_empty() => {
                let (message, hint) = leaf::bad_choice(text, &choices);
                let others = variants.iter().filter(|variant| variant.choices().is_empty());
                let hint: Vec<_> = std::iter::once(hint).chain(others.map(leaf::expected)).collect();
                self.report(ProblemKind::BadValue, path, message, Some(hint.join(" or ")));
            }
            (_, Some(mut nearest)) => self.checked.problems.append(&mut nearest.problems),
            (value, None) => {
                let message = format!(
                    "expected {}, found {}",
                    leaf::expected(shape),
                    leaf::kind_of(value)
                );
                self.report(ProblemKind::WrongType, path, message, None);
            }
        }
    }
}

/// The key that holds the variant's name, in an internally or adjacently tagged enum.
fn tag_of<'a>(variant: &Shape<'a>) -> Option<&'a str> {
    variant
        .properties()
        .find_map(|(key, _)| constant(variant, key).map(|_| key))
}

fn constant<'a>(variant: &Shape<'a>, key: &str) -> Option<&'a str> {
    variant.schema.shape(variant.property(key)?).constant()
}

/// `{variant: {..}}`: one required key, and it is there.
fn is_named_by(variant: &Shape<'_>, dict: &Dict) -> bool {
    let mut required = variant.required();
    matches!((required.next(), required.next()), (Some(key), None) if dict.contains_key(key))
}
