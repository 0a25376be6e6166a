//! Moving an embedded installation into Postgres: every row as it is, numbers, versions and times included, so that
//! clients notice nothing.
//!
//! - **A1** All or nothing: the rows are copied in one transaction, into a database that has no context yet.
//! - **A2** What is copied is one snapshot of the file. Writes to it after that are not: stop its server first.
//! - **A3** The search index is not copied but made anew from the outbox, behind the copy.
//! - **A4** At the end every context is read through both stores and compared, heads and bodies.

mod tables;

use std::pin::pin;

use rusqlite::Connection;
use tokio::sync::mpsc;
use tokio_postgres::Client;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::ToSql;

use self::tables::{Cell, TABLES, Table};
use crate::embedded::EmbeddedStore;
use crate::error::{Error, Result};
use crate::id::{ContextId, ContextKey, TenantId};
use crate::postgres::PgContextStore;
use crate::store::{ContextStore, ItemQuery, Order};
use crate::{Invalid, Seq};

/// Rows that are on their way from one store to the other at a time.
const ROWS_UNDER_WAY: usize = 1024;
/// Items compared at a time.
const PAGE: u32 = 500;
/// Bytes of items compared at a time.
const PAGE_BYTES: u64 = 8 << 20;

/// What is being done, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many rows were copied, of so many in all.
    Copied(u64, u64),
    /// So many contexts were compared, of so many in all.
    Compared(u64, u64),
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Rows of all tables.
    pub rows: u64,
    /// Contexts that were compared.
    pub contexts: u64,
    /// Items that were compared.
    pub items: u64,
}

/// Copies everything in `from` into `to`, which has to be prepared and empty, and compares.
///
/// # Errors
/// `Invalid` if the database has contexts already; `StorageDamaged` if what was copied is not what is there, which
/// leaves the copy in place to be looked at; else as any write.
///
/// # Cancellation
/// Dropping it while rows are copied leaves the database empty.
pub async fn adopt(
    from: &EmbeddedStore,
    to: &PgContextStore,
    progress: impl Fn(Progress),
) -> Result<Adopted> {
    let mut adopted = Adopted {
        rows: copy(from, to, &progress).await?,
        ..Adopted::default()
    };
    to.look_for_work();
    let keys = from.dump(living).await?;
    for (index, key) in keys.iter().enumerate() {
        adopted.items += compare(from, to, key).await?;
        adopted.contexts += 1;
        progress(Progress::Compared(index as u64 + 1, keys.len() as u64));
    }
    Ok(adopted)
}

async fn copy(from: &EmbeddedStore, to: &PgContextStore, progress: &impl Fn(Progress)) -> Result<u64> {
    let total = from.dump(tables::count).await?;
    let client = to.alone().await?;
    client.batch_execute("BEGIN").await.map_err(failed)?;
    // Nobody else writes while this decides whether the database is empty, and until it is full.
    client
        .batch_execute("LOCK TABLE contextkeep.contexts, contextkeep.items IN EXCLUSIVE MODE")
        .await
        .map_err(failed)?;
    let there = client.query_typed("SELECT 1 FROM contextkeep.contexts LIMIT 1", &[]);
    if !there.await.map_err(failed)?.is_empty() {
        return Err(Invalid::new(
            "context_manager.database.dsn",
            "names a database that has contexts already",
        )
        .hint("move into an empty database, or import single contexts from an export")
        .into());
    }
    let mut copied = 0;
    for table in &TABLES {
        copied += copy_table(from, &client, table, |rows| {
            progress(Progress::Copied(copied + rows, total));
        })
        .await?;
    }
    client.batch_execute(tables::AFTER).await.map_err(failed)?;
    client.batch_execute("COMMIT").await.map_err(failed)?;
    Ok(copied)
}

async fn copy_table(
    from: &EmbeddedStore,
    client: &Client,
    table: &'static Table,
    progress: impl Fn(u64),
) -> Result<u64> {
    let (rows, mut arriving) = mpsc::channel::<Vec<Cell>>(ROWS_UNDER_WAY);
    let reading = from.dump(move |connection| read_table(connection, table, &rows));
    let writing = async {
        let sink = client.copy_in(table.copy).await.map_err(failed)?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, table.types));
        let mut written = 0;
        while let Some(row) = arriving.recv().await {
            let cells: Vec<&(dyn ToSql + Sync)> = row.iter().map(|cell| cell as _).collect();
            writer.as_mut().write(&cells).await.map_err(failed)?;
            written += 1;
            progress(written);
        }
        writer.as_mut().finish().await.map_err(failed)?;
        Ok::<u64, Error>(written)
    };
    let (read, written) = futures_util::future::join(reading, writing).await;
    // A reader that failed ended the rows early, so its error comes first.
    read?;
    written
}

fn read_table(connection: &Connection, table: &Table, rows: &mpsc::Sender<Vec<Cell>>) -> Result<()> {
    let mut statement = connection.prepare(table.select)?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let cells = (0..table.types.len())
            .map(|column| Ok(Cell::from(row.get::<_, rusqlite::types::Value>(column)?)))
            .collect::<Result<Vec<_>>>()?;
        if rows.blocking_send(cells).is_err() {
            // The writer has failed and says why.
            return Ok(());
        }
    }
    Ok(())
}

/// The contexts that can be read, by key.
fn living(connection: &Connection) -> Result<Vec<ContextKey>> {
    let mut statement = connection.prepare(
        "SELECT t.id, c.id FROM contexts c JOIN tenants t USING (tenant_no) WHERE c.deleted_at IS NULL ORDER BY c.ctx_no",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (tenant, id) = row?;
        Ok(ContextKey::new(TenantId::parse(&tenant)?, ContextId::parse(&id)?))
    })
    .collect()
}

/// Reads a context from both stores; answers how many items it has.
async fn compare(from: &EmbeddedStore, to: &PgContextStore, key: &ContextKey) -> Result<u64> {
    let differs = |what: &str| Error::StorageDamaged {
        detail: format!(
            "{what} of context {} of tenant {} is not what it was in the data file; keep the file, empty the database \
             and report this",
            key.id, key.tenant
        ),
    };
    let context = match (from.head(key).await, to.head(key).await) {
        // It expired meanwhile.
        (Err(Error::NotFound), _) => return Ok(0),
        (Ok(was), Ok(is)) if was == is => was,
        (Ok(_), Ok(_) | Err(Error::NotFound)) => return Err(differs("the head")),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let (mut after, mut items) = (context.first_seq - 1, 0);
    loop {
        let query = ItemQuery {
            after,
            before: Seq::MAX,
            order: Order::Ascending,
            limit: PAGE,
            bytes_max: PAGE_BYTES,
        };
        let (was, is) = (from.items(key, query).await?, to.items(key, query).await?);
        if was != is {
            return Err(differs("an item"));
        }
        items += was.items.len() as u64;
        after = was.items.last().map_or(after, |item| item.seq);
        if !was.more {
            return Ok(items);
        }
    }
}

fn failed(error: tokio_postgres::Error) -> Error {
    crate::postgres::link::Fault::from(error).into()
}
