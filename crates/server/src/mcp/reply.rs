//! The result of a tool: one JSON text, sent as text and as structured content.
//!
//! The text holds items byte for byte. The structured content is the same value after a round trip through a
//! tree: keys are sorted, and numbers that no 64-bit type holds are rounded.

use contextkeep_core::Error;
use rmcp::model::{CallToolResult, ContentBlock};
use serde::Serialize;

/// A result, serialised.
#[derive(Debug)]
pub(super) struct Reply {
    text: String,
}

impl Reply {
    /// Serialises a view.
    pub(super) fn of(view: &impl Serialize) -> Result<Self, Error> {
        let text = serde_json::to_string(view).map_err(|error| defect(&error))?;
        Ok(Self { text })
    }

    /// Its length in characters, which is what clients cap.
    pub(super) fn chars(&self) -> usize {
        self.text.chars().count()
    }

    /// The JSON text.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// For `tools/call`.
    pub(super) fn into_result(self) -> Result<CallToolResult, Error> {
        let mut result = CallToolResult::success(Vec::new());
        result.structured_content = Some(serde_json::from_str(&self.text).map_err(|error| defect(&error))?);
        result.content = vec![ContentBlock::text(self.text)];
        Ok(result)
    }
}

fn defect(error: &serde_json::Error) -> Error {
    Error::Internal {
        detail: format!("a result as JSON: {error}"),
    }
}
