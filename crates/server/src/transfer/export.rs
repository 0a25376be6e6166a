//! Writing contexts out.

use std::io::Write as _;

use contextkeep_core::store::{ItemQuery, Order};
use contextkeep_core::{Context, ContextKey, ContextManager, Result, Seq};
use futures_util::{Stream, stream};

use crate::rest::dto::{ContextBody, write};

/// How contexts are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Everything that Contextkeep knows, for another Contextkeep.
    #[default]
    Contextkeep,
    /// One conversation a line, for other tools; items that are not chat messages stay as they are.
    OpenaiChat,
}

impl Format {
    /// Reads the name used in requests.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "contextkeep" => Some(Self::Contextkeep),
            "openai-chat" => Some(Self::OpenaiChat),
            _ => None,
        }
    }
}

/// Items read at a time.
const PAGE: u32 = 500;
/// Bytes of items read at a time.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;

enum State {
    Head,
    Items { after: Seq, written: u64 },
    Done,
}

/// A context as pieces of text, read page by page: memory does not depend on its length.
///
/// Items appended meanwhile are in it if the reading has not passed the end. A deletion in between ends it
/// with an error.
pub fn export_context<'manager>(
    manager: &'manager dyn ContextManager,
    key: &'manager ContextKey,
    format: Format,
) -> impl Stream<Item = Result<Vec<u8>>> + 'manager {
    stream::try_unfold(State::Head, move |state| async move {
        match state {
            State::Head => {
                let context = manager.get(key).await?.value;
                Ok(Some((
                    head(&context, format),
                    State::Items { after: 0, written: 0 },
                )))
            }
            State::Items { after, written } => {
                let query = ItemQuery {
                    after,
                    before: Seq::MAX,
                    order: Order::Ascending,
                    limit: PAGE,
                    bytes_max: PAGE_BYTES,
                };
                let page = manager.items(key, query).await?.value;
                let mut text = Vec::new();
                for (item, index) in page.items.iter().zip(written..) {
                    match format {
                        Format::Contextkeep => {
                            write::item(&mut text, item);
                            text.push(b'\n');
                        }
                        Format::OpenaiChat => {
                            if index > 0 {
                                text.push(b',');
                            }
                            text.extend_from_slice(item.body.as_bytes());
                        }
                    }
                }
                let written = written + page.items.len() as u64;
                if let Some(last) = page.items.last().filter(|_| page.more) {
                    Ok(Some((
                        text,
                        State::Items {
                            after: last.seq,
                            written,
                        },
                    )))
                } else {
                    text.extend(end(format, written));
                    Ok(Some((text, State::Done)))
                }
            }
            State::Done => Ok(None),
        }
    })
}

fn head(context: &Context, format: Format) -> Vec<u8> {
    let mut text = Vec::new();
    match format {
        Format::Contextkeep => {
            text.extend_from_slice(b"{\"contextkeep\":1,\"context\":");
            serde_json::to_writer(&mut text, &ContextBody::from(context))
                .expect("invariant: a head serialises");
            text.extend_from_slice(b"}\n");
        }
        Format::OpenaiChat => {
            text.extend_from_slice(b"{\"id\":");
            serde_json::to_writer(&mut text, context.id.as_str()).expect("invariant: a string serialises");
            text.extend_from_slice(b",\"messages\":[");
        }
    }
    text
}

fn end(format: Format, written: u64) -> Vec<u8> {
    let mut text = Vec::new();
    match format {
        Format::Contextkeep => writeln!(text, "{{\"end\":{{\"items\":{written}}}}}"),
        Format::OpenaiChat => writeln!(text, "]}}"),
    }
    .expect("invariant: writing to memory does not fail");
    text
}
