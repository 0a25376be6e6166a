//! Items as columns: one array for each.

use crate::error::{Error, Result};
use crate::{ClientId, NewItem};

/// What does not depend on where an item is put.
#[derive(Default)]
pub(in super::super) struct Columns<'items> {
    pub(in super::super) tokens: Vec<i32>,
    pub(in super::super) roles: Vec<&'static str>,
    pub(in super::super) kinds: Vec<&'static str>,
    pub(in super::super) pinned: Vec<bool>,
    pub(in super::super) kept: Vec<bool>,
    pub(in super::super) importances: Vec<Option<f64>>,
    pub(in super::super) client_ids: Vec<Option<&'items str>>,
    pub(in super::super) links: Vec<Option<String>>,
    pub(in super::super) bodies: Vec<&'items str>,
}

/// A column in which every row is NULL as an empty array, for which Postgres has NULLs as well beside longer ones.
pub(in super::super) fn or_empty<T>(column: &[Option<T>]) -> &[Option<T>] {
    if column.iter().all(Option::is_none) {
        &[]
    } else {
        column
    }
}

impl<'items> Columns<'items> {
    /// Adds a row.
    pub(in super::super) fn push(&mut self, item: &'items NewItem) -> Result<()> {
        let traits = &item.traits;
        self.tokens.push(item.tokens.cast_signed());
        self.roles.push(traits.role.as_str());
        self.kinds.push(traits.kind.as_str());
        self.pinned.push(traits.pinned);
        self.kept.push(traits.always_kept());
        self.importances.push(traits.importance);
        self.client_ids
            .push(traits.client_id.as_ref().map(ClientId::as_str));
        self.links.push(if traits.links.is_empty() {
            None
        } else {
            let links = serde_json::to_string(&traits.links);
            Some(links.map_err(|error| Error::internal(error.to_string()))?)
        });
        self.bodies.push(&item.body);
        Ok(())
    }
}
