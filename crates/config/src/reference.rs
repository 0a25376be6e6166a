//! The reference page: every key of a settings type, from its schema, its doc comments and its defaults.

use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value as Json;

use crate::KeyPath;
use crate::assign::variable_name;
use crate::schema::{Format, Schema, Shape};
use crate::secret::REDACTED;

#[cfg(test)]
mod tests;

/// Sections nest at most this deep on the page; a type that contains itself ends here.
const MAX_SECTIONS: usize = 12;

/// A Markdown page with one table a section: key, type and bounds, default, variable, what it changes.
///
/// `prefix` is the one given to [`Loader::env`](crate::Loader::env). The output depends on the type
/// alone, so a test can compare it with a committed file.
pub fn reference<T: JsonSchema + Serialize + Default>(prefix: &str) -> String {
    let schema = SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    let mut page = Page {
        prefix,
        text: String::new(),
    };
    let root = Schema::new(&schema).root();
    page.section(
        &root,
        &Heading::of(KeyPath::root(), &root, None),
        Some(&defaults),
        0,
    );
    page.text
}

struct Page<'a> {
    prefix: &'a str,
    text: String,
}

/// A table to be: its heading and the words under it.
#[derive(Clone)]
struct Heading<'a> {
    path: KeyPath,
    /// Which variant of the section, if there are several.
    variant: Option<String>,
    /// The section's own words, or those of the list or map it is an element of.
    words: Option<&'a str>,
}

impl<'a> Heading<'a> {
    fn of(path: KeyPath, shape: &Shape<'a>, fallback: Option<&'a str>) -> Self {
        Self {
            path,
            variant: None,
            words: shape.text("description").or(fallback),
        }
    }
}

impl Page<'_> {
    fn section(&mut self, shape: &Shape<'_>, heading: &Heading<'_>, defaults: Option<&Json>, depth: usize) {
        let path = &heading.path;
        let keys = shape
            .properties()
            .map(|(key, schema)| (key, shape.schema.shape(schema)));
        let (sections, leaves): (Vec<_>, Vec<_>) = keys.partition(|(_, inner)| opens(inner));
        if !leaves.is_empty() || heading.words.is_some() {
            self.heading(heading);
        }
        if !leaves.is_empty() {
            self.line("| key | takes | default | variable | what it changes |");
            self.line("| --- | --- | --- | --- | --- |");
            for (key, inner) in &leaves {
                let default = default_of(inner, defaults, key);
                self.row(shape, inner, &path.child(*key), default.as_ref());
            }
            self.line("");
        }
        if depth < MAX_SECTIONS {
            for (key, inner) in sections {
                let default = default_of(&inner, defaults, key);
                self.nested(&inner, path.child(key), default.as_ref(), depth + 1);
            }
        }
    }

    fn heading(&mut self, heading: &Heading<'_>) {
        if !heading.path.is_root() {
            let variant = heading
                .variant
                .as_ref()
                .map(|variant| format!(" ({variant})"))
                .unwrap_or_default();
            self.line(&format!("## `{}`{variant}\n", heading.path));
        }
        if let Some(words) = heading.words {
            self.line(&format!("{}\n", words.trim()));
        }
    }

    /// A section, the elements of a list of sections, the entries of a map of sections, or the
    /// variants of an enum of sections.
    fn nested(&mut self, shape: &Shape<'_>, path: KeyPath, defaults: Option<&Json>, depth: usize) {
        let words = shape.text("description");
        let element = shape.items().map(|items| (items, "0"));
        let entry = shape
            .extra()
            .filter(|_| shape.properties().next().is_none())
            .map(|extra| (extra, "<name>"));
        if let Some((inner, name)) = element.or(entry) {
            let inner = shape.schema.shape(inner);
            return self.section(&inner, &Heading::of(path.child(name), &inner, words), None, depth);
        }
        if !shape.is_enum() {
            return self.section(shape, &Heading::of(path, shape, None), defaults, depth);
        }
        let choices: Vec<_> = texts(shape)
            .into_iter()
            .map(|choice| format!("`{choice}`"))
            .collect();
        if !choices.is_empty() {
            self.heading(&Heading::of(path.clone(), shape, None));
            self.line(&format!("{}, or a section:\n", choices.join(", ")));
        }
        for variant in shape.variants().filter(|variant| variant.allows("object")) {
            let mut heading = Heading::of(path.clone(), &variant, words);
            heading.variant = tag(&variant);
            self.section(&variant, &heading, None, depth);
        }
    }

    fn row(&mut self, section: &Shape<'_>, shape: &Shape<'_>, path: &KeyPath, default: Option<&Json>) {
        let key = path.segments().last().map_or("", String::as_str);
        let default = match default {
            Some(Json::Null) | None if section.required().any(|required| required == key) => {
                "required".to_owned()
            }
            Some(Json::Null) | None => "not set".to_owned(),
            Some(_) if shape.is_secret() => format!("`{REDACTED}`"),
            Some(default) => format!("`{}`", compact(default)),
        };
        let variable = variable_name(self.prefix, path.segments().iter());
        let words = shape.text("description").map(|words| words.trim().to_owned());
        let words: Vec<_> = words.into_iter().chain(meanings(shape)).collect();
        let cells = [
            format!("`{key}`"),
            takes(shape),
            default,
            format!("`{variable}`"),
            words.join(" "),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        self.line(&format!("| {} |", cells.join(" | ")));
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }
}

/// Whether a key gets a table of its own.
fn opens(shape: &Shape<'_>) -> bool {
    if shape.is_secret() {
        return false;
    }
    let holds_sections = |inner: Option<&Json>| {
        inner.is_some_and(|inner| {
            let inner = shape.schema.shape(inner);
            inner.is_section() && inner.properties().next().is_some()
        })
    };
    shape.is_section() && (shape.properties().next().is_some() || shape.is_enum())
        || holds_sections(shape.items())
        || holds_sections(shape.extra())
}

fn default_of(shape: &Shape<'_>, defaults: Option<&Json>, key: &str) -> Option<Json> {
    defaults
        .and_then(|defaults| defaults.get(key))
        .or_else(|| shape.default())
        .cloned()
}

/// Text without its quotes, everything else as JSON.
fn compact(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn takes(shape: &Shape<'_>) -> String {
    let choices = shape.choices();
    let others = shape
        .variants()
        .filter(|variant| variant.choices().is_empty())
        .map(|variant| takes(&variant));
    let mut words: Vec<String> = choices
        .iter()
        .map(|choice| format!("`{choice}`"))
        .chain(others)
        .collect();
    if words.is_empty() {
        words.push(plain(shape));
    }
    words.join(", ")
}

fn plain(shape: &Shape<'_>) -> String {
    match shape.format() {
        Some(Format::Duration) => return "duration".to_owned(),
        Some(Format::ByteSize) => return "size".to_owned(),
        None if shape.is_secret() => return "secret: text, `env:NAME` or `file:PATH`".to_owned(),
        None => {}
    }
    let types = shape.types().into_iter().map(|name| match name {
        "string" => "text".to_owned(),
        "integer" | "number" => {
            let range = shape.range().short().to_string();
            if range.is_empty() {
                name.to_owned()
            } else {
                format!("{name}, {range}")
            }
        }
        "array" => match shape.items() {
            Some(items) => format!("list of {}", takes(&shape.schema.shape(items))),
            None => "list".to_owned(),
        },
        "object" => match shape.extra() {
            Some(extra) => format!("map to {}", takes(&shape.schema.shape(extra))),
            None => "section".to_owned(),
        },
        other => other.to_owned(),
    });
    let types: Vec<_> = types.collect();
    if types.is_empty() {
        "anything".to_owned()
    } else {
        types.join(" or ")
    }
}

/// What the documented variants of an enum mean.
fn meanings(shape: &Shape<'_>) -> Vec<String> {
    let meaning = |variant: Shape<'_>| {
        Some(format!(
            "`{}`: {}",
            variant.constant()?,
            variant.text("description")?.trim()
        ))
    };
    shape.variants().filter_map(meaning).collect()
}

/// The variants of an enum that are only a text.
fn texts<'a>(shape: &Shape<'a>) -> Vec<&'a str> {
    shape
        .variants()
        .filter(|variant| !variant.allows("object"))
        .flat_map(|variant| variant.choices())
        .collect()
}

/// `kind: token`, for a variant that is told by a key with a constant.
fn tag(variant: &Shape<'_>) -> Option<String> {
    variant.properties().find_map(|(key, schema)| {
        let constant = variant.schema.shape(schema).constant()?;
        Some(format!("`{key}: {constant}`"))
    })
}
