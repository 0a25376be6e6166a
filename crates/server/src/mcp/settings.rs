//! Settings of the MCP face.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// The MCP endpoint at `/mcp` and the stdio server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct McpSettings {
    /// Names in a request's `Host` that are served, as `host` or `host:port`; guards a local server against
    /// DNS rebinding. Add the public name of a deployment. Loopback names by default; an empty list
    /// accepts any.
    pub allowed_hosts: Vec<String>,
    /// Web pages that may call, as `https://app.example.com:443` or `http://localhost:*`. A request without an
    /// `Origin`, which is every client but a browser, passes. Pages on loopback by default; an empty list
    /// refuses all pages.
    pub allowed_origins: Vec<String>,
    /// Largest request, in bytes. Over stdio: largest line.
    #[schemars(with = "String", extend("format" = "byte-size"))]
    pub max_request_size: ByteSize,
    /// Answer with plain JSON instead of a stream of one event.
    pub json_response: bool,
    /// Longest text of one result, in characters. Clients cut or hide what is longer.
    #[schemars(range(min = 4000, max = 10_000_000))]
    pub max_result_chars: usize,
    /// How long one request may take. A write that is cut off here may still be kept.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub call_timeout: Duration,
}

impl Default for McpSettings {
    fn default() -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            allowed_hosts: owned(&["localhost", "127.0.0.1", "::1"]),
            allowed_origins: owned(&["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"]),
            max_request_size: ByteSize::mib(8),
            json_response: true,
            max_result_chars: 40_000,
            call_timeout: Duration::from_secs(30),
        }
    }
}

impl McpSettings {
    /// The largest request as a count.
    pub(super) fn request_bytes_max(&self) -> usize {
        usize::try_from(self.max_request_size.as_u64()).unwrap_or(usize::MAX)
    }
}
