//! A name for each request, in the log and in the answer.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id of a client that is passed on.
const BYTES_MAX: usize = 128;

/// Where the ids of this process begin. Drawn once: to draw for each request would ask the system each time.
static FIRST: LazyLock<u128> = LazyLock::new(|| Uuid::now_v7().as_u128());
/// The next ids that no thread has.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Ids that a thread takes at a time: a counter that all of them raise for each request would travel between processors.
const BLOCK: u64 = 1024;

thread_local! {
    /// Of the ids that this thread has: the next one, and how many are left.
    static MINE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// The client's id for the request, or one of ours: no other process makes the same.
pub(super) fn of(headers: &HeaderMap) -> HeaderValue {
    or_fresh(headers.get(REQUEST_ID))
}

/// As [`of`], by the value of [`REQUEST_ID`].
pub(super) fn or_fresh(theirs: Option<&HeaderValue>) -> HeaderValue {
    match theirs {
        Some(id) if is_passed_on(id) => id.clone(),
        _ => fresh(),
    }
}

fn is_passed_on(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn count() -> u64 {
    MINE.with(|mine| {
        let (next, left) = match mine.get() {
            (_, 0) => (NEXT.fetch_add(BLOCK, Ordering::Relaxed), BLOCK),
            some => some,
        };
        mine.set((next + 1, left - 1));
        next
    })
}

fn fresh() -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = Uuid::from_u128(FIRST.wrapping_add(u128::from(count())))
        .hyphenated()
        .encode_lower(&mut text);
    // Hexadecimal digits are always a header's value.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// The id as text.
pub(super) fn text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_ours_differ_and_have_the_form_of_a_uuid() {
        let ids: Vec<HeaderValue> = (0..100).map(|_| of(&HeaderMap::new())).collect();
        for (index, id) in ids.iter().enumerate() {
            assert!(Uuid::parse_str(text(id)).is_ok(), "{id:?}");
            assert!(!ids[..index].contains(id), "{id:?}");
        }
    }

    #[test]
    fn threads_never_make_the_same_id() {
        let ids = || (0..3 * BLOCK).map(|_| count()).collect::<Vec<_>>();
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ids)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len() as u64, 4 * 3 * BLOCK);
    }

    #[test]
    fn an_id_of_the_client_is_passed_on_if_it_is_short_and_visible() {
        let long = "x".repeat(BYTES_MAX + 1);
        for (id, passed) in [("abc-1", true), ("", false), ("a b", false), (&long, false)] {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(id).unwrap())]);
            assert_eq!(text(&of(&headers)) == id, passed, "{id:?}");
        }
    }
}
