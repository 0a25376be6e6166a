//! Writes JSON whose items are copied as they are: neither parsed nor serialised again.

use std::io::Write as _;

use contextkeep_core::Item;
use contextkeep_core::json::write::time;
pub(crate) use contextkeep_core::json::write::{each, number, string};
use contextkeep_core::semantic::SemanticPage;
use contextkeep_core::store::{Hit, ItemPage};

fn cursor(out: &mut Vec<u8>, cursor: Option<&str>) {
    out.extend_from_slice(b",\"next_cursor\":");
    match cursor {
        Some(cursor) => string(out, cursor),
        None => out.extend_from_slice(b"null"),
    }
}

/// One stored item.
pub(crate) fn item(out: &mut Vec<u8>, item: &Item) {
    out.push(b'{');
    number(out, "seq", item.seq);
    out.push(b',');
    number(out, "tokens", item.tokens.into());
    out.push(b',');
    time(out, "created_at", item.created_at);
    out.extend_from_slice(b",\"item\":");
    out.extend_from_slice(item.body.as_bytes());
    out.push(b'}');
}

pub(crate) fn capacity(items: &[Item]) -> usize {
    items.iter().map(|item| item.body.len() + 96).sum::<usize>() + 256
}

pub(crate) fn page(page: &ItemPage, next: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity(&page.items));
    out.push(b'{');
    each(&mut out, "items", &page.items, item);
    cursor(&mut out, next);
    out.push(b'}');
    out
}

pub(crate) fn hits(
    hits: &[Hit],
    next: Option<&str>,
    lag_items: u64,
    semantic: Option<&SemanticPage>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(hits.iter().map(|hit| hit.item.body.len() + 512).sum::<usize>() + 128);
    out.push(b'{');
    each(&mut out, "hits", hits, |out, hit| {
        out.extend_from_slice(b"{\"context_id\":");
        string(out, hit.context.as_str());
        out.push(b',');
        number(out, "seq", hit.item.seq);
        write!(out, ",\"score\":{:.6},\"snippet\":", hit.score)
            .expect("invariant: writing to memory does not fail");
        string(out, &hit.snippet);
        out.extend_from_slice(b",\"item\":");
        out.extend_from_slice(hit.item.body.as_bytes());
        out.push(b'}');
    });
    cursor(&mut out, next);
    out.push(b',');
    number(&mut out, "lag_items", lag_items);
    if let Some(page) = semantic {
        scan(&mut out, page);
    }
    out.push(b'}');
    out
}

fn scan(out: &mut Vec<u8>, page: &SemanticPage) {
    out.extend_from_slice(b",\"semantic\":{\"model\":");
    string(out, &page.model);
    out.push(b',');
    number(out, "scanned", page.scanned);
    write!(out, ",\"cut_off\":{}}}", page.cut_off).expect("invariant: writing to memory does not fail");
    if let Some(degraded) = page.degraded {
        out.extend_from_slice(b",\"degraded\":");
        string(out, degraded);
    }
}
