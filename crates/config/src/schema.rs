//! A reading view of a JSON Schema, of the parts `schemars` produces for settings structs.
//!
//! The schema is the contract between a settings type and this crate: keys, types, formats and
//! bounds are read from it, never from the type.

use serde_json::{Map, Value as Json};

use crate::range::Range;

type Object = Map<String, Json>;

/// References and `allOf` nest at most this deep; a schema that refers to itself ends here.
const MAX_REFERENCES: usize = 32;

/// The whole schema, with the definitions its references point to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema<'a> {
    root: &'a Json,
}

impl<'a> Schema<'a> {
    pub(crate) fn new(root: &'a Json) -> Self {
        Self { root }
    }

    pub(crate) fn root(self) -> Shape<'a> {
        self.shape(self.root)
    }

    /// What a schema says, its references and `allOf` followed, an optional value unwrapped.
    pub(crate) fn shape(self, schema: &'a Json) -> Shape<'a> {
        let mut shape = Shape {
            schema: self,
            parts: Vec::new(),
            alternatives: Vec::new(),
            nullable: false,
        };
        self.collect(schema, &mut shape, MAX_REFERENCES);
        shape
    }

    fn collect(self, schema: &'a Json, shape: &mut Shape<'a>, depth: usize) {
        let (Some(object), true) = (schema.as_object(), depth > 0) else {
            return;
        };
        shape.parts.push(object);
        if is_nullable(object) {
            shape.nullable = true;
        }
        if let Some(target) = object
            .get("$ref")
            .and_then(Json::as_str)
            .and_then(|name| self.definition(name))
        {
            self.collect(target, shape, depth - 1);
        }
        for member in list(object, "allOf") {
            self.collect(member, shape, depth - 1);
        }
        let (null, mut others): (Vec<_>, Vec<_>) = list(object, "anyOf")
            .chain(list(object, "oneOf"))
            .partition(|alternative| is_null(alternative));
        shape.nullable |= !null.is_empty();
        if others.len() == 1 && !null.is_empty() {
            // `Option<Section>`: the section is the shape.
            others
                .drain(..)
                .for_each(|only| self.collect(only, shape, depth - 1));
        }
        shape.alternatives.extend(others);
    }

    fn definition(self, reference: &str) -> Option<&'a Json> {
        self.root.pointer(reference.strip_prefix('#')?)
    }
}

/// What a schema allows at one place.
#[derive(Clone, Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) schema: Schema<'a>,
    parts: Vec<&'a Object>,
    alternatives: Vec<&'a Json>,
    pub(crate) nullable: bool,
}

impl<'a> Shape<'a> {
    fn keyword(&self, name: &str) -> Option<&'a Json> {
        self.parts.iter().find_map(|part| part.get(name))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.keyword(name).and_then(Json::as_str)
    }

    /// A keyword that counts characters or elements.
    pub(crate) fn count(&self, name: &str) -> Option<usize> {
        self.keyword(name)
            .and_then(Json::as_u64)
            .and_then(|count| usize::try_from(count).ok())
    }

    pub(crate) fn range(&self) -> Range {
        Range::read(|name| self.keyword(name))
    }

    pub(crate) fn default(&self) -> Option<&'a Json> {
        self.keyword("default")
    }

    /// `writeOnly`: goes in, never comes out.
    pub(crate) fn is_secret(&self) -> bool {
        self.parts
            .iter()
            .any(|part| part.get("writeOnly") == Some(&Json::Bool(true)))
            && !self.is_section()
            && !self.allows("array")
    }

    pub(crate) fn format(&self) -> Option<Format> {
        match self.text("format")? {
            "duration" | "human-duration" => Some(Format::Duration),
            "byte-size" => Some(Format::ByteSize),
            _ => None,
        }
    }

    /// The types by name, `null` left out; empty when anything goes.
    pub(crate) fn types(&self) -> Vec<&'a str> {
        let declared = match self.keyword("type") {
            Some(Json::String(name)) => vec![name.as_str()],
            Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
            _ if self.parts.iter().any(|part| part.contains_key("properties")) => vec!["object"],
            _ if self.own_choices().next().is_some() => vec!["string"],
            _ => Vec::new(),
        };
        declared.into_iter().filter(|name| *name != "null").collect()
    }

    pub(crate) fn allows(&self, name: &str) -> bool {
        self.types().contains(&name)
    }

    /// Nothing is known about the value: it is taken as it is.
    pub(crate) fn is_any(&self) -> bool {
        self.types().is_empty() && self.alternatives.is_empty()
    }

    /// A struct, a map, or an enum of them.
    pub(crate) fn is_section(&self) -> bool {
        self.allows("object")
            || (self.types().is_empty() && self.variants().any(|variant| variant.is_section()))
    }

    pub(crate) fn is_enum(&self) -> bool {
        !self.alternatives.is_empty()
    }

    /// A struct: merging and defaults go through it key by key.
    pub(crate) fn is_struct(&self) -> bool {
        self.allows("object") && self.alternatives.is_empty() && self.extra().is_none()
    }

    pub(crate) fn properties(&self) -> impl Iterator<Item = (&'a str, &'a Json)> {
        let own = self
            .parts
            .iter()
            .filter_map(|part| part.get("properties")?.as_object());
        own.flatten().map(|(key, schema)| (key.as_str(), schema))
    }

    pub(crate) fn property(&self, key: &str) -> Option<&'a Json> {
        self.properties()
            .find_map(|(name, schema)| (name == key).then_some(schema))
    }

    /// The schema of keys that are not properties: maps have one.
    pub(crate) fn extra(&self) -> Option<&'a Json> {
        self.keyword("additionalProperties")
            .filter(|extra| **extra != Json::Bool(false))
    }

    pub(crate) fn required(&self) -> impl Iterator<Item = &'a str> {
        self.parts
            .iter()
            .flat_map(|part| list(part, "required"))
            .filter_map(Json::as_str)
    }

    pub(crate) fn items(&self) -> Option<&'a Json> {
        self.keyword("items")
    }

    /// The single value a tag takes.
    pub(crate) fn constant(&self) -> Option<&'a str> {
        self.text("const")
    }

    /// The texts this place takes, when it takes only certain ones; those of its variants included.
    pub(crate) fn choices(&self) -> Vec<&'a str> {
        self.own_choices()
            .chain(self.variants().flat_map(|variant| variant.choices()))
            .collect()
    }

    fn own_choices(&self) -> impl Iterator<Item = &'a str> {
        let listed = self
            .parts
            .iter()
            .flat_map(|part| list(part, "enum"))
            .filter_map(Json::as_str);
        listed.chain(self.constant())
    }

    /// The variants of an enum; none for everything else.
    pub(crate) fn variants(&self) -> impl Iterator<Item = Self> {
        self.alternatives
            .iter()
            .map(|alternative| self.schema.shape(alternative))
    }

    /// The key `wanted` of a section in any spelling of case, with its schema: own properties first,
    /// then those of the variants, then a map's key in lower case.
    pub(crate) fn lookup(&self, wanted: &str) -> Option<(String, &'a Json)> {
        let spelled = |name: &str| {
            name.replace('-', "_")
                .eq_ignore_ascii_case(&wanted.replace('-', "_"))
        };
        if let Some((name, schema)) = self.properties().find(|(name, _)| spelled(name)) {
            return Some((name.to_owned(), schema));
        }
        self.variants()
            .find_map(|variant| variant.lookup(wanted))
            .or_else(|| self.extra().map(|schema| (wanted.to_lowercase(), schema)))
    }

    /// Every key a section may have, its variants' included.
    pub(crate) fn known_keys(&self) -> Vec<&'a str> {
        let inner = self.variants().flat_map(|variant| variant.known_keys());
        self.properties().map(|(key, _)| key).chain(inner).collect()
    }
}

/// A text that means more than its letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Duration,
    ByteSize,
}

fn list<'a>(object: &'a Object, key: &str) -> impl Iterator<Item = &'a Json> + use<'a> {
    object.get(key).and_then(Json::as_array).into_iter().flatten()
}

fn is_null(schema: &Json) -> bool {
    schema.get("type").and_then(Json::as_str) == Some("null")
}

fn is_nullable(object: &Object) -> bool {
    list(object, "type").any(|name| name == "null") || list(object, "enum").any(Json::is_null)
}

/// The candidate that is spelled most like `wanted`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}
