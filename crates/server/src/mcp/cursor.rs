//! Cursors: opaque to clients, and no secret. A cursor names a place in an order, never whose order it is, so
//! that a forged one shows its forger nothing but another page of their own.

use contextkeep_core::error::{Error, Invalid};
use contextkeep_core::store::ListPosition;
use contextkeep_core::{Context, ContextId, Timestamp};

/// Most hits that paging through a search can reach: each page searches anew.
pub(super) const SEARCH_OFFSET_MAX: u32 = 10_000;

/// The place after a context in a list.
pub(super) fn after_context(context: &Context) -> String {
    format!("l.{}.{}", context.created_at.as_micros(), context.id)
}

/// Reads [`after_context`] back.
pub(super) fn list_position(cursor: &str) -> Result<ListPosition, Error> {
    let place = cursor.strip_prefix("l.").and_then(|rest| {
        let (micros, id) = rest.split_once('.')?;
        Some(ListPosition {
            created_at: Timestamp::from_micros(micros.parse().ok()?),
            id: ContextId::parse(id).ok()?,
        })
    });
    place.ok_or_else(invalid)
}

/// The place after so many hits.
pub(super) fn after_hits(offset: u32) -> String {
    format!("s.{offset}")
}

/// Reads [`after_hits`] back.
pub(super) fn search_offset(cursor: &str) -> Result<u32, Error> {
    cursor
        .strip_prefix("s.")
        .and_then(|offset| offset.parse().ok())
        .filter(|offset| *offset <= SEARCH_OFFSET_MAX)
        .ok_or_else(invalid)
}

fn invalid() -> Error {
    Invalid::new("cursor", "is not a cursor of this list")
        .hint("pass next_cursor of the page before as it is, with the same other arguments, or leave it out to start again")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_cursor_is_refused() {
        for forged in [
            "",
            "l.",
            "l.x.a",
            "l.1.",
            "l.1.a/b",
            "s.",
            "s.-1",
            "s.10001",
            "s.1",
            "l.1.\u{e9}",
        ] {
            assert!(
                list_position(forged).is_err(),
                "{forged:?} was accepted as a place in a list"
            );
        }
        for forged in ["", "s.", "s.-1", "s.10001", "s.1 ", "l.1.a"] {
            assert!(
                search_offset(forged).is_err(),
                "{forged:?} was accepted as an offset"
            );
        }
    }

    #[test]
    fn a_cursor_reads_back_what_it_names() {
        let position = list_position("l.-7.user:7@host.x").unwrap();
        assert_eq!(
            (position.created_at.as_micros(), position.id.as_str()),
            (-7, "user:7@host.x")
        );
        assert_eq!(search_offset(&after_hits(40)).unwrap(), 40);
    }
}
