//! The tools: one module each, listed here in the order that clients see.

mod append;
mod create;
mod delete;
mod fork;
mod list;
mod search;
mod summarize;
mod truncate;
mod update;
mod window;

use std::sync::LazyLock;

use contextkeep_core::error::Invalid;
use contextkeep_core::settings::LimitSettings;
use contextkeep_core::{
    ContextId, ContextKey, ContextManager, Error, JsonObject as ObjectText, TenantId, Timestamp,
};
use futures_util::future::BoxFuture;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::fault::Fault;
use super::message::Message;
use super::reply::Reply;
use super::schema;

/// One call of a tool.
pub(super) struct Call<'a> {
    /// Does the work.
    pub(super) manager: &'a dyn ContextManager,
    /// How much one request may ask for.
    pub(super) limits: &'a LimitSettings,
    /// The cap on the result.
    pub(super) chars_max: usize,
    /// Whose data (M1).
    pub(super) tenant: &'a TenantId,
    /// The arguments, checked against the tool's schema.
    pub(super) arguments: JsonObject,
    /// The request as sent.
    pub(super) message: &'a Message,
}

impl Call<'_> {
    /// The arguments as a type. What the schema allows, the type takes.
    fn arguments<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        serde_json::from_value(std::mem::take(&mut self.arguments).into())
            .map_err(|error| Invalid::new("arguments", error.to_string()).into())
    }

    fn key(&self, id: &str) -> Result<ContextKey, Error> {
        Ok(ContextKey::new(self.tenant.clone(), ContextId::parse(id)?))
    }

    /// The argument `metadata`, as sent.
    fn metadata(&self) -> Result<Option<ObjectText>, Error> {
        let verbatim = self.message.verbatim()?;
        verbatim
            .metadata
            .map(|text| ObjectText::parse("metadata", text.get()))
            .transpose()
    }
}

/// A tool and what it does.
struct Entry {
    tool: Tool,
    run: for<'a> fn(Call<'a>) -> BoxFuture<'a, Result<Reply, Fault>>,
}

macro_rules! catalog {
    ($($module:ident),+ $(,)?) => {
        LazyLock::new(|| vec![$(Entry {
            tool: $module::tool(),
            run: |call| Box::pin($module::run(call)),
        }),+])
    };
}

/// Sorted by name, so that the list is the same everywhere and prompt caches stay warm.
static CATALOG: LazyLock<Vec<Entry>> = catalog![
    append, create, delete, fork, list, search, summarize, truncate, update, window
];

/// All tools.
pub(super) fn list() -> Vec<Tool> {
    CATALOG.iter().map(|entry| entry.tool.clone()).collect()
}

/// The tool of this name.
pub(super) fn find(name: &str) -> Option<&'static Tool> {
    entry(name).map(|entry| &entry.tool)
}

fn entry(name: &str) -> Option<&'static Entry> {
    CATALOG.iter().find(|entry| entry.tool.name == name)
}

/// Runs a tool; `None` if there is no tool of this name.
pub(super) fn run<'a>(name: &str, call: Call<'a>) -> Option<BoxFuture<'a, Result<Reply, Fault>>> {
    let entry = entry(name)?;
    if let Err(invalid) = schema::check(&entry.tool.input_schema, &call.arguments) {
        return Some(Box::pin(std::future::ready(Err(invalid.into()))));
    }
    Some((entry.run)(call))
}

/// What a tool does to the world, in the words of the protocol.
enum Effect {
    Reads,
    /// Adds, and nothing else.
    Adds {
        idempotent: bool,
    },
    /// Changes or removes what was there. Doing it twice changes nothing more.
    Changes,
}

fn tool<A: JsonSchema, R: JsonSchema>(
    name: &'static str,
    title: &'static str,
    description: &'static str,
    effect: &Effect,
) -> Tool {
    let (read_only, destructive, idempotent) = match effect {
        Effect::Reads => (true, false, true),
        Effect::Adds { idempotent } => (false, false, *idempotent),
        Effect::Changes => (false, true, true),
    };
    let annotations = ToolAnnotations::new()
        .read_only(read_only)
        .destructive(destructive)
        .idempotent(idempotent)
        .open_world(false);
    Tool::new(name, description, schema::of_arguments::<A>())
        .with_title(title)
        .with_raw_output_schema(schema::of_result::<R>())
        .with_annotations(annotations)
}

/// A point in time as an argument.
fn time(field: &'static str, text: Option<&str>) -> Result<Option<Timestamp>, Error> {
    text.map(|text| {
        Timestamp::parse(text).ok_or_else(|| {
            Invalid::new(field, format!("{text:?} is not an RFC 3339 time"))
                .hint("write it like 2026-01-31T12:00:00Z")
                .into()
        })
    })
    .transpose()
}

/// An id under an argument that is not called `id`.
fn id_under(field: &'static str, text: &str) -> Result<ContextId, Error> {
    ContextId::parse(text).map_err(|error| match error {
        Error::Invalid(invalid) => Error::Invalid(Invalid {
            field: field.into(),
            ..invalid
        }),
        error => error,
    })
}
