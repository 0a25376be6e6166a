//! Export and import of whole contexts, for both faces of the program: the command line and REST.
//!
//! Two formats, both JSON lines:
//! - `contextkeep`: a context line, its item lines, an end line that says how many they were, so that a file
//!   that was cut off is noticed;
//! - `openai-chat`: one line a conversation, `{"id": …, "messages": […]}`.
//!
//! Items are copied byte for byte in both directions.

mod export;
mod import;
mod lines;

pub use export::{Format, export_context};
pub use import::{Import, LineError, Report};
pub use lines::LINE_BYTES_MAX;
