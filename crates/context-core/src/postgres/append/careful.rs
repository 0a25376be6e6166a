//! Every key is looked up before anything is written (`append_v1`): retries, conflicts, contexts that are not there.

use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::super::group::Job;
use super::super::link::{Session, Statement};
use super::super::rows::{count, get, int};
use super::super::transaction::Outcome;
use super::columns::Columns;
use crate::error::{Error, Result};
use crate::store::{Append, Appended};
use crate::{NewItem, Tokenizer, json};

static APPEND: Statement = Statement {
    name: "append",
    sql: "SELECT outcome, first_seq, last_seq, tokens, version, over_budget, seq, detail, body
          FROM contextkeep.append_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
    types: &[
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT4_ARRAY,
        Type::INT4_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::BOOL_ARRAY,
        Type::BOOL_ARRAY,
        Type::FLOAT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT,
    ],
};

/// Commits what can be committed of a group; one outcome for each append, in order.
pub(super) async fn commit(
    session: &Session,
    jobs: &[Job],
    synchronous_commit: &'static str,
) -> Outcome<Vec<Result<Appended>>> {
    let appends: Vec<&Append> = jobs.iter().map(|job| &job.append).collect();
    let rows = ask(session, jobs, &appends, synchronous_commit).await?;
    let mut outcomes = Vec::with_capacity(jobs.len());
    for (job, row) in jobs.iter().zip(&rows) {
        let outcome = match decide(job, &job.append, row) {
            Ok(Decided::Outcome(outcome)) => outcome,
            // The group is committed by now: what fails here is this append's own and must not have the others done
            // once more.
            Ok(Decided::SameInOtherWords(append)) => again(session, job, append, synchronous_commit)
                .await
                .unwrap_or_else(|failure| Err(failure.into())),
            Err(error) => Err(error),
        };
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// Asks for one append whose items mean the same as stored ones and are spelled otherwise, until the database knows
/// all of them by their bytes.
async fn again(
    session: &Session,
    job: &Job,
    mut append: Append,
    synchronous_commit: &'static str,
) -> Outcome<Result<Appended>> {
    for _ in 0..append.items.len() {
        let rows = ask(session, std::slice::from_ref(job), &[&append], synchronous_commit).await?;
        let decided = rows
            .first()
            .ok_or_else(|| Error::internal("an append has no outcome"))
            .and_then(|row| decide(job, &append, row));
        match decided {
            Ok(Decided::Outcome(outcome)) => return Ok(outcome),
            Ok(Decided::SameInOtherWords(other)) => append = other,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Err(Error::internal(
        "an append does not become the one that was stored",
    )))
}

async fn ask(
    session: &Session,
    jobs: &[Job],
    appends: &[&Append],
    synchronous_commit: &'static str,
) -> Outcome<Vec<Row>> {
    let mut owners: Vec<i32> = Vec::new();
    let mut items = Columns::default();
    for (owner, append) in (1..).zip(appends) {
        for item in append.items.iter() {
            owners.push(owner);
            items.push(item)?;
        }
    }
    let tenants: Vec<&str> = jobs.iter().map(|job| job.key.tenant.as_str()).collect();
    let ids: Vec<&str> = jobs.iter().map(|job| job.key.id.as_str()).collect();
    let nows: Vec<i64> = jobs.iter().map(|job| job.now.as_micros()).collect();
    let tokenizers: Vec<&str> = appends.iter().map(|append| append.tokenizer.as_str()).collect();
    let expected: Vec<Option<i64>> = appends.iter().map(|append| append.expected.map(int)).collect();
    let keys = || appends.iter().map(|append| append.idempotency.as_ref());
    let names: Vec<Option<&str>> = keys().map(|key| Some(key?.key.as_str())).collect();
    let prints: Vec<Option<&[u8]>> = keys().map(|key| Some(key?.fingerprint.as_slice())).collect();
    let params: [&(dyn ToSql + Sync); 18] = [
        &tenants,
        &ids,
        &nows,
        &tokenizers,
        &expected,
        &names,
        &prints,
        &owners,
        &items.tokens,
        &items.roles,
        &items.kinds,
        &items.pinned,
        &items.kept,
        &items.importances,
        &items.client_ids,
        &items.links,
        &items.bodies,
        &synchronous_commit,
    ];
    Ok(session.query(&APPEND, &params).await?)
}

enum Decided {
    Outcome(Result<Appended>),
    /// An item has the client id of a stored one and means the same: this append has the stored one's bytes.
    SameInOtherWords(Append),
}

fn decide(job: &Job, append: &Append, row: &Row) -> Result<Decided> {
    let outcome: &str = get(row, 0)?;
    let error = match outcome {
        "new" | "known" | "key_known" => {
            let appended = Appended {
                first_seq: count(row, 1)?,
                last_seq: count(row, 2)?,
                tokens: count(row, 3)?,
                version: count(row, 4)?,
                over_budget: get(row, 5)?,
                replayed: outcome != "new",
                // One context may have had several appends of the group, all at the time of the latest.
                at: None,
            };
            return Ok(Decided::Outcome(Ok(appended)));
        }
        "missing" => Error::NotFound,
        "tokenizer" => {
            let name: &str = get(row, 7)?;
            Error::TokenizerMismatch {
                actual: Tokenizer::stored(name).ok_or_else(|| Error::StorageDamaged {
                    detail: format!("context {:?} names the tokenizer {name:?}", job.key.id),
                })?,
            }
        }
        "key_reused" => Error::IdempotencyKeyReused,
        "version" => Error::VersionMismatch {
            expected: append.expected.unwrap_or_default(),
            actual: count(row, 4)?,
        },
        "differs" => return differs(append, row),
        other => Error::internal(format!("append_v1 answered {other:?}")),
    };
    Ok(Decided::Outcome(Err(error)))
}

fn differs(append: &Append, row: &Row) -> Result<Decided> {
    let (client_id, stored): (&str, &str) = (get(row, 7)?, get(row, 8)?);
    let mut items: Vec<NewItem> = append.items.to_vec();
    let item = items.iter_mut().find(|item| {
        item.traits
            .client_id
            .as_ref()
            .is_some_and(|id| id.as_str() == client_id)
    });
    match item {
        Some(item) if json::parse_strict(stored) == json::parse_strict(&item.body) => {
            item.body = Arc::from(stored);
            Ok(Decided::SameInOtherWords(Append {
                items: items.into(),
                ..append.clone()
            }))
        }
        _ => Ok(Decided::Outcome(Err(Error::ClientIdReused {
            client_id: client_id.to_owned(),
            seq: count(row, 6)?,
        }))),
    }
}
