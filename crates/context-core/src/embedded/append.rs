//! Appends: their cost does not depend on the length of the context.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, Head, SEQ_MAX, int, rid, seq_of};
use super::{streams, summaries, write};
use crate::error::{Error, Result};
use crate::id::ContextKey;
use crate::store::{Append, Appended, Idempotency};
use crate::{Context, NewItem, Timestamp, json};

/// What an append did, and what the search index has to look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) appended: Appended,
    pub(super) stream_no: i64,
    pub(super) new_items: u64,
}

pub(super) fn append(
    connection: &Connection,
    key: &ContextKey,
    append: &Append,
    now: Timestamp,
) -> Result<Outcome> {
    let mut head = rows::head(connection, key, now)?;
    check_tokenizer(&head, append)?;
    // Replays come before the condition: the first try may have been what changed the version.
    if let Some(appended) = replayed(connection, &head, append.idempotency.as_ref())? {
        return Ok(Outcome {
            appended,
            stream_no: head.stream_no,
            new_items: 0,
        });
    }
    let known = append
        .items
        .iter()
        .map(|item| known(connection, &head, item))
        .collect::<Result<Vec<_>>>()?;
    if known.iter().all(Option::is_some) {
        let appended = answer_again(&known.iter().flatten().collect::<Vec<_>>())?;
        return Ok(Outcome {
            appended,
            stream_no: head.stream_no,
            new_items: 0,
        });
    }
    write::check_version(&head, append.expected)?;

    let new: Vec<&NewItem> = append
        .items
        .iter()
        .zip(&known)
        .filter(|(_, known)| known.is_none())
        .map(|(item, _)| item)
        .collect();
    let mut appended = insert(connection, &mut head, &new, now)?;
    for known in known.iter().flatten() {
        appended.first_seq = appended.first_seq.min(seq_of(known.rid));
        appended.last_seq = appended.last_seq.max(seq_of(known.rid));
        appended.tokens += known.tokens;
    }
    remember(connection, &head, append.idempotency.as_ref(), &appended, now)?;
    Ok(Outcome {
        appended,
        stream_no: head.stream_no,
        new_items: new.len() as u64,
    })
}

/// Puts other items in the place of all: a new stream, whose seqs go on where the old one's ended.
pub(super) fn replace(
    connection: &Connection,
    key: &ContextKey,
    append: &Append,
    now: Timestamp,
) -> Result<(Outcome, Option<Context>)> {
    let mut head = rows::head(connection, key, now)?;
    check_tokenizer(&head, append)?;
    if let Some(appended) = replayed(connection, &head, append.idempotency.as_ref())? {
        let outcome = Outcome {
            appended,
            stream_no: head.stream_no,
            new_items: 0,
        };
        return Ok((outcome, None));
    }
    write::check_version(&head, append.expected)?;
    let stream_no = streams::create(connection, head.ctx_no, &[], head.context.next_seq)?;
    streams::release(connection, head.stream_no)?;
    let_go(connection, &head, &append.items)?;
    summaries::forget(connection, head.ctx_no)?;
    head.stream_no = stream_no;
    head.context.stream = stream_no.cast_unsigned();
    head.context.first_seq = head.context.next_seq;
    (head.context.item_count, head.context.tokens) = (0, 0);
    let new: Vec<&NewItem> = append.items.iter().collect();
    let appended = insert(connection, &mut head, &new, now)?;
    remember(connection, &head, append.idempotency.as_ref(), &appended, now)?;
    let outcome = Outcome {
        appended,
        stream_no,
        new_items: new.len() as u64,
    };
    Ok((outcome, Some(head.context)))
}

/// Makes room for the client ids of new items: from now on they name these. Those of all other items that ever were in the
/// context stay known, so that a late retry adds nothing.
fn let_go(connection: &Connection, head: &Head, items: &[NewItem]) -> Result<()> {
    let mut forget =
        connection.prepare_cached("DELETE FROM item_keys WHERE ctx_no = ?1 AND client_id = ?2")?;
    for client_id in items.iter().filter_map(|item| item.traits.client_id.as_ref()) {
        forget.execute(params![head.ctx_no, client_id.as_str()])?;
    }
    Ok(())
}

fn check_tokenizer(head: &Head, append: &Append) -> Result<()> {
    let actual = head.context.tokenizer;
    if actual == append.tokenizer {
        Ok(())
    } else {
        Err(Error::TokenizerMismatch { actual })
    }
}

/// An item that its client id says was stored before.
struct Known {
    rid: i64,
    tokens: u64,
    version: u64,
    over_budget: bool,
}

fn known(connection: &Connection, head: &Head, item: &NewItem) -> Result<Option<Known>> {
    let Some(client_id) = &item.traits.client_id else {
        return Ok(None);
    };
    let known = connection
        .prepare_cached(
            "SELECT rid, tokens, version, over_budget FROM item_keys WHERE ctx_no = ?1 AND client_id = ?2",
        )?
        .query_row(params![head.ctx_no, client_id.as_str()], |row| {
            Ok(Known {
                rid: row.get(0)?,
                tokens: row.get::<_, i64>(1)?.cast_unsigned(),
                version: row.get::<_, i64>(2)?.cast_unsigned(),
                over_budget: row.get(3)?,
            })
        })
        .optional()?;
    let Some(known) = known else { return Ok(None) };
    let body: Option<String> = connection
        .prepare_cached("SELECT body FROM items WHERE rid = ?1")?
        .query_row([known.rid], |row| row.get(0))
        .optional()?;
    // A body that was purged can no longer be compared; the client id alone decides then.
    let same = body.is_none_or(|body| {
        *body == *item.body || json::parse_strict(&body) == json::parse_strict(&item.body)
    });
    if same {
        Ok(Some(known))
    } else {
        Err(Error::ClientIdReused {
            client_id: client_id.to_string(),
            seq: seq_of(known.rid),
        })
    }
}

fn answer_again(known: &[&Known]) -> Result<Appended> {
    known
        .iter()
        .map(|known| Appended {
            first_seq: seq_of(known.rid),
            last_seq: seq_of(known.rid),
            tokens: known.tokens,
            version: known.version,
            over_budget: known.over_budget,
            replayed: true,
            at: None,
        })
        .reduce(|all, one| Appended {
            first_seq: all.first_seq.min(one.first_seq),
            last_seq: all.last_seq.max(one.last_seq),
            tokens: all.tokens + one.tokens,
            version: all.version.max(one.version),
            over_budget: if one.version >= all.version {
                one.over_budget
            } else {
                all.over_budget
            },
            replayed: true,
            at: None,
        })
        .ok_or_else(|| Error::internal("an append without items reached the store"))
}

fn replayed(
    connection: &Connection,
    head: &Head,
    idempotency: Option<&Idempotency>,
) -> Result<Option<Appended>> {
    let Some(idempotency) = idempotency else {
        return Ok(None);
    };
    let row = connection
        .prepare_cached(
            "SELECT fingerprint, first_seq, last_seq, tokens, version, over_budget FROM append_keys
             WHERE ctx_no = ?1 AND key = ?2",
        )?
        .query_row(params![head.ctx_no, idempotency.key.as_str()], |row| {
            let appended = Appended {
                first_seq: row.get::<_, i64>(1)?.cast_unsigned(),
                last_seq: row.get::<_, i64>(2)?.cast_unsigned(),
                tokens: row.get::<_, i64>(3)?.cast_unsigned(),
                version: row.get::<_, i64>(4)?.cast_unsigned(),
                over_budget: row.get(5)?,
                replayed: true,
                at: None,
            };
            Ok((row.get::<_, Vec<u8>>(0)?, appended))
        })
        .optional()?;
    match row {
        Some((fingerprint, _)) if fingerprint != idempotency.fingerprint => Err(Error::IdempotencyKeyReused),
        Some((_, appended)) => Ok(Some(appended)),
        None => Ok(None),
    }
}

fn remember(
    connection: &Connection,
    head: &Head,
    idempotency: Option<&Idempotency>,
    appended: &Appended,
    now: Timestamp,
) -> Result<()> {
    let Some(Idempotency { key, fingerprint }) = idempotency else {
        return Ok(());
    };
    connection
        .prepare_cached(
            "INSERT INTO append_keys (ctx_no, key, fingerprint, first_seq, last_seq, tokens, version, over_budget, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            head.ctx_no,
            key.as_str(),
            fingerprint.as_slice(),
            int(appended.first_seq),
            int(appended.last_seq),
            int(appended.tokens),
            int(appended.version),
            appended.over_budget,
            now.as_micros(),
        ])?;
    Ok(())
}

/// Writes new items at the end of the head's own stream, and the head.
fn insert(connection: &Connection, head: &mut Head, items: &[&NewItem], now: Timestamp) -> Result<Appended> {
    let context = &mut head.context;
    let first_seq = context.next_seq;
    let count = items.len() as u64;
    if first_seq + count > SEQ_MAX {
        return Err(Error::TooLarge {
            what: "the context in items".into(),
            actual: first_seq + count,
            limit: SEQ_MAX,
        });
    }
    let tokens: u64 = items.iter().map(|item| u64::from(item.tokens)).sum();
    context.version += 1;
    context.next_seq += count;
    context.item_count += count;
    context.tokens += tokens;
    context.updated_at = context.updated_at.max(now);
    let appended = Appended {
        first_seq,
        last_seq: context.next_seq - 1,
        tokens,
        version: context.version,
        over_budget: context.over_budget(),
        replayed: false,
        at: Some(now),
    };
    for (item, seq) in items.iter().zip(first_seq..) {
        head.written_tokens += u64::from(item.tokens);
        insert_item(connection, head, item, rid(head.stream_no, seq), &appended, now)?;
    }
    write::save_head(connection, head)?;
    Ok(appended)
}

fn insert_item(
    connection: &Connection,
    head: &Head,
    item: &NewItem,
    rid: i64,
    appended: &Appended,
    now: Timestamp,
) -> Result<()> {
    let traits = &item.traits;
    let links = match &traits.links {
        links if links.is_empty() => None,
        links => Some(serde_json::to_string(links).map_err(|error| Error::internal(error.to_string()))?),
    };
    connection
        .prepare_cached(
            "INSERT INTO items (rid, tokens, total, created_at, role, kind, pinned, kept, importance, client_id, links, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            rid,
            item.tokens,
            int(head.written_tokens),
            now.as_micros(),
            traits.role.as_str(),
            traits.kind.as_str(),
            traits.pinned,
            traits.always_kept(),
            traits.importance,
            traits.client_id.as_ref().map(crate::ClientId::as_str),
            links,
            &*item.body,
        ])?;
    if let Some(client_id) = &traits.client_id {
        connection
            .prepare_cached(
                "INSERT INTO item_keys (ctx_no, client_id, rid, tokens, version, over_budget)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                head.ctx_no,
                client_id.as_str(),
                rid,
                item.tokens,
                int(appended.version),
                appended.over_budget,
            ])?;
    }
    Ok(())
}
