//! The usual case: no key of the group was used before. What differs from one append to the next is worked out here,
//! so that the database has little more to do than to write the rows (`append_fresh_v2`).

use std::collections::HashMap;

use tokio_postgres::types::{ToSql, Type};

use super::super::group::Job;
use super::super::link::{Session, Statement};
use super::super::rows::{count, get, int};
use super::super::transaction::Outcome;
use super::columns::{Columns, or_empty};
use crate::Timestamp;
use crate::error::{Error, Result};
use crate::id::ContextKey;
use crate::store::Appended;

static APPEND: Statement = Statement {
    name: "append_fresh",
    sql: "SELECT ord, version, next_seq, tokens, max_tokens FROM contextkeep.append_fresh_v2(
              $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
              $24, $25, $26, $27, $28, $29, $30, $31)",
    types: &[
        Type::TEXT,
        // contexts
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        // items
        Type::INT4_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT4_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::BOOL_ARRAY,
        Type::BOOL_ARRAY,
        Type::FLOAT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        // keys
        Type::INT4_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
    ],
};

/// One row of parameters for each context of the group.
#[derive(Default)]
struct Contexts<'job> {
    tenants: Vec<&'job str>,
    ids: Vec<&'job str>,
    nows: Vec<i64>,
    tokenizers: Vec<&'static str>,
    expected: Vec<Option<i64>>,
    appends: Vec<i64>,
    counts: Vec<i64>,
    sums: Vec<i64>,
}

/// One for each item.
#[derive(Default)]
struct Items<'job> {
    owners: Vec<i32>,
    offsets: Vec<i64>,
    running: Vec<i64>,
    appends: Vec<i64>,
    appends_running: Vec<i64>,
    columns: Columns<'job>,
}

/// One for each append that has a key.
#[derive(Default)]
struct Keys<'job> {
    owners: Vec<i32>,
    names: Vec<&'job str>,
    fingerprints: Vec<&'job [u8]>,
    firsts: Vec<i64>,
    lasts: Vec<i64>,
    tokens: Vec<i64>,
    appends: Vec<i64>,
    running: Vec<i64>,
}

/// Where an append stands among those of its context, counted from the first of the group.
#[derive(Clone, Copy)]
struct Place {
    context: usize,
    append: i64,
    offset: i64,
    count: i64,
    tokens: i64,
    running: i64,
}

/// Commits a group. An append without an outcome was not written and has to be asked about with care; after an error
/// that says "rolled back" none was written.
pub(super) async fn commit(
    session: &Session,
    group: &[Job],
    synchronous_commit: &'static str,
) -> Outcome<Vec<Option<Appended>>> {
    let mut contexts = Contexts::default();
    let mut items = Items::default();
    let mut keys = Keys::default();
    let mut numbers: HashMap<&ContextKey, usize> = HashMap::with_capacity(group.len());
    let mut places = Vec::with_capacity(group.len());
    for job in group {
        let context = *numbers.entry(&job.key).or_insert_with(|| contexts.add(job));
        let place = contexts.grow(context, job);
        items.add(job, place)?;
        keys.add(job, place);
        places.push(place);
    }
    let params: [&(dyn ToSql + Sync); 31] = [
        &synchronous_commit,
        &contexts.tenants,
        &contexts.ids,
        &contexts.nows,
        &contexts.tokenizers,
        &contexts.expected,
        &contexts.appends,
        &contexts.counts,
        &contexts.sums,
        &items.owners,
        &items.offsets,
        &items.running,
        &items.appends,
        &items.appends_running,
        &items.columns.tokens,
        &items.columns.roles,
        &items.columns.kinds,
        &items.columns.pinned,
        &items.columns.kept,
        &or_empty(&items.columns.importances),
        &or_empty(&items.columns.client_ids),
        &or_empty(&items.columns.links),
        &items.columns.bodies,
        &keys.owners,
        &keys.names,
        &keys.fingerprints,
        &keys.firsts,
        &keys.lasts,
        &keys.tokens,
        &keys.appends,
        &keys.running,
    ];
    let rows = session.query(&APPEND, &params).await?;
    let mut written: Vec<Option<Written>> = Vec::new();
    written.resize_with(contexts.ids.len(), || None);
    for row in &rows {
        let (number, context) = Written::of(row)?;
        if let Some(slot) = number.checked_sub(1).and_then(|number| written.get_mut(number)) {
            *slot = Some(context);
        }
    }
    Ok(places
        .into_iter()
        .map(|place| {
            let context = written.get(place.context)?.as_ref()?;
            Some(context.answer(place, &contexts))
        })
        .collect())
}

/// A context after the group.
struct Written {
    version: u64,
    next_seq: u64,
    tokens: u64,
    max_tokens: u64,
}

impl Written {
    fn of(row: &tokio_postgres::Row) -> Result<(usize, Self)> {
        let number: i32 = get(row, 0)?;
        Ok((
            usize::try_from(number).map_err(|_| Error::internal("a context has no number"))?,
            Self {
                version: count(row, 1)?,
                next_seq: count(row, 2)?,
                tokens: count(row, 3)?,
                max_tokens: count(row, 4)?,
            },
        ))
    }

    fn answer(&self, place: Place, contexts: &Contexts<'_>) -> Appended {
        let of_context = |numbers: &[i64]| {
            numbers
                .get(place.context)
                .copied()
                .unwrap_or_default()
                .cast_unsigned()
        };
        let first_seq = self.next_seq - of_context(&contexts.counts) + place.offset.cast_unsigned();
        let tokens_after = self.tokens - of_context(&contexts.sums) + place.running.cast_unsigned();
        Appended {
            first_seq,
            last_seq: first_seq + place.count.cast_unsigned() - 1,
            tokens: place.tokens.cast_unsigned(),
            version: self.version - of_context(&contexts.appends) + place.append.cast_unsigned(),
            over_budget: tokens_after > self.max_tokens,
            replayed: false,
            at: Some(Timestamp::from_micros(
                contexts.nows.get(place.context).copied().unwrap_or_default(),
            )),
        }
    }
}

impl<'job> Contexts<'job> {
    fn add(&mut self, job: &'job Job) -> usize {
        self.tenants.push(job.key.tenant.as_str());
        self.ids.push(job.key.id.as_str());
        self.nows.push(job.now.as_micros());
        self.tokenizers.push(job.append.tokenizer.as_str());
        self.expected.push(job.append.expected.map(int));
        self.appends.push(0);
        self.counts.push(0);
        self.sums.push(0);
        self.ids.len() - 1
    }

    /// Notes one more append to a context; answers its place.
    fn grow(&mut self, context: usize, job: &Job) -> Place {
        let items = &job.append.items;
        let tokens: i64 = items.iter().map(|item| i64::from(item.tokens)).sum();
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let mut place = Place {
            context,
            append: 0,
            offset: 0,
            count,
            tokens,
            running: 0,
        };
        if let Some(now) = self.nows.get_mut(context) {
            *now = (*now).max(job.now.as_micros());
        }
        if let Some(appends) = self.appends.get_mut(context) {
            *appends += 1;
            place.append = *appends;
        }
        if let Some(counted) = self.counts.get_mut(context) {
            place.offset = *counted;
            *counted += count;
        }
        if let Some(sum) = self.sums.get_mut(context) {
            *sum += tokens;
            place.running = *sum;
        }
        place
    }
}

fn number(index: usize) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}

impl<'job> Items<'job> {
    fn add(&mut self, job: &'job Job, place: Place) -> Result<()> {
        let mut running = place.running - place.tokens;
        for (item, offset) in job.append.items.iter().zip(place.offset..) {
            running += i64::from(item.tokens);
            self.owners.push(number(place.context));
            self.offsets.push(offset);
            self.running.push(running);
            self.appends.push(place.append);
            self.appends_running.push(place.running);
            self.columns.push(item)?;
        }
        Ok(())
    }
}

impl<'job> Keys<'job> {
    fn add(&mut self, job: &'job Job, place: Place) {
        if let Some(idempotency) = &job.append.idempotency {
            self.owners.push(number(place.context));
            self.names.push(idempotency.key.as_str());
            self.fingerprints.push(&idempotency.fingerprint);
            self.firsts.push(place.offset);
            self.lasts.push(place.offset + place.count - 1);
            self.tokens.push(place.tokens);
            self.appends.push(place.append);
            self.running.push(place.running);
        }
    }
}
