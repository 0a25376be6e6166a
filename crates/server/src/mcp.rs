//! The MCP face: tools, resources and prompts over Streamable HTTP and stdio.
//!
//! One endpoint serves revisions 2026-07-28 and 2025-11-25. There is no session of the protocol in either: over
//! HTTP every request stands alone, so that any node can answer it.
//!
//! - **M1** Whose data is touched is said by the [`Principal`](crate::auth::Principal) that an authentication
//!   layer (HTTP) or the caller of [`serve_stdio`] put there. A request without one is an internal error, never
//!   a default tenant (G8).
//! - **M2** What a tool's input schema promises is what is enforced: both come from one type, and arguments
//!   are checked against the schema itself before anything runs.
//! - **M3** The text of a result is at most [`McpSettings::max_result_chars`] long, or says that it could not
//!   be. What was left out, and how to get it, is in the result.
//! - **M4** Items are stored as the bytes that the client sent, on both transports.
//! - **M5** Over stdio one client talks to the process, so all its requests are one session: it reads what it wrote,
//!   from the cache and from replicas. Over HTTP a request is in a session if its headers ask for one, as over REST;
//!   clients keep no token by themselves, so without them reads are the primary's.
//!
//! Cancellation: a client that goes away, or `notifications/cancelled`, drops the call's future; see
//! [`ContextManager`](contextkeep_core::ContextManager) for what that means to a write.

mod completion;
mod endpoint;
mod fault;
mod fit;
mod handler;
mod lines;
mod message;
mod prompts;
mod reply;
mod resources;
mod schema;
mod settings;
mod stdio;
mod tools;
mod view;

pub use endpoint::service;
pub use fault::CODES;
pub use settings::McpSettings;
pub use stdio::{serve_stdio, serve_streams};

/// The path of the endpoint over HTTP.
pub(crate) const PATH: &str = "/mcp";

/// Tools, resource templates and prompts as clients see them, for the generated reference.
pub fn describe() -> serde_json::Value {
    serde_json::json!({
        "tools": tools::list(),
        "resource_templates": resources::templates(),
        "prompts": prompts::list(),
    })
}
