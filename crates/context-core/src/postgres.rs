//! The Postgres store: a primary, its replicas, their pools.

pub(crate) mod link;
pub(crate) mod replicas;
