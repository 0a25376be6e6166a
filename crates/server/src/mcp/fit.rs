//! Keeping a result under the clients' caps (M3).

use contextkeep_core::window::Format;
use contextkeep_core::{ContextKey, ContextManager, Error, WindowRequest};
use serde::Serialize;

use super::fault::Fault;
use super::reply::Reply;
use super::view::WindowView;

/// Room for what stands around the entries of a page, in characters.
const FRAME_CHARS: usize = 512;
/// How often a window is asked for anew. Each try aims a tenth below the cap, so that two are the rule.
const TRIES_MAX: u32 = 8;

/// How many entries from the front fit into one result. At least one, so that paging always moves on.
pub(super) fn entries<T: Serialize>(entries: &[T], chars_max: usize) -> Result<usize, Error> {
    let mut left = chars_max.saturating_sub(FRAME_CHARS);
    for (count, entry) in entries.iter().enumerate() {
        let chars = Reply::of(entry)?.chars() + 1;
        if chars > left && count > 0 {
            return Ok(count);
        }
        left = left.saturating_sub(chars);
    }
    Ok(entries.len())
}

/// A window that fits. Never cuts between items itself: it asks for a smaller budget, so that the window's own
/// rules hold for what is left.
pub(super) async fn window(
    manager: &dyn ContextManager,
    key: &ContextKey,
    request: WindowRequest,
    format: Format,
    chars_max: usize,
) -> Result<Reply, Fault> {
    let mut request = request;
    let mut shrunk_to = None;
    // Tokens and characters of the last window that did not fit; the tokens go down with each try.
    let mut too_large: Option<(u64, usize)> = None;
    for _ in 0..TRIES_MAX {
        let next = match manager.window(key, request).await {
            Ok(answer) => {
                let rendered = format.render(&answer.value.items);
                let view = WindowView::of(key.id.as_str(), &answer.value, answer.origin.as_str(), shrunk_to)
                    .rendered(format, &answer.value, rendered.as_ref());
                let reply = Reply::of(&view)?;
                let chars = reply.chars();
                if chars <= chars_max {
                    return Ok(reply);
                }
                too_large = Some((answer.value.tokens, chars));
                shrink(answer.value.tokens, chars, chars_max)
            }
            Err(Error::BudgetTooSmall { minimum, .. }) if too_large.is_some() => {
                let smaller_exists = too_large.is_some_and(|(tokens, _)| minimum < tokens);
                if !smaller_exists || shrunk_to == Some(minimum) {
                    break;
                }
                minimum
            }
            Err(error) => return Err(error.into()),
        };
        shrunk_to = Some(next);
        request = WindowRequest {
            max_tokens: Some(next),
            reserve: 0,
            ..request
        };
    }
    Err(Fault::ResultTooLarge {
        chars: too_large.map_or(0, |(_, chars)| chars),
        limit: chars_max,
    })
}

/// Tokens scaled by how much too long the text is, less a tenth.
fn shrink(tokens: u64, chars: usize, chars_max: usize) -> u64 {
    let scaled = u128::from(tokens) * chars_max as u128 * 9 / (chars.max(1) as u128 * 10);
    u64::try_from(scaled)
        .unwrap_or(u64::MAX)
        .min(tokens.saturating_sub(1))
}
