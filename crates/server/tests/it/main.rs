//! Integration tests of the server, in one binary: the real `contextkeep`, from the outside.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise, its helpers included"
)]

mod admin;
mod bad_bodies;
mod bad_connections;
mod bad_paths;
mod bad_sizes;
mod bad_start;
mod bad_storage;
mod batch;
mod caching;
mod chaos;
mod contexts;
mod items;
mod kill;
mod mcp;
mod postgres;
mod protocol;
mod search;
mod semantic;
mod sharing;
mod shutdown;
mod summaries;
mod support;
mod tokenizers;
mod traces;
mod transcripts;
mod transfer;
mod windows;
