//! Shapes on the wire. They exist here only; the core's types are not serialised for the wire's sake.

mod asked;
mod told;
pub(crate) mod write;

pub(crate) use asked::{CreateContext, Fork, Items, PatchContext, Search, Truncate, parse_items};
pub(crate) use told::{
    AppendedBody, ContextBody, ContextList, HitList, ItemList, StoredItem, TruncationBody,
};
