//! The place in the outbox up to which the shared cache was told; see [`crate::cached::relay`]. Each step is a statement
//! of its own, so that no transaction is open while somebody talks to the cache (O3).
//!
//! Rows are read in the order of their transactions and only if those are older than every one that still runs, as the
//! search index does it: a transaction that commits late is not passed over. No commit here waits for a disk: a place that
//! was lost is a place further back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::link::Statement;
use super::replicas::Replicas;
use super::rows::{count, get};
use super::transaction::statement;
use crate::cached::relay::{LEASE, Look, Outbox, Place, Untold};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::id::{ContextId, ContextKey, TenantId};
use crate::{Timestamp, Version};

/// Heads that a walk reads at a time, whether they changed lately or not.
const WALK: i64 = 2000;

/// The outbox of one store, as one process follows it.
#[derive(Debug)]
pub(super) struct PgOutbox {
    servers: Arc<Replicas>,
    clock: Arc<dyn Clock>,
    ready: watch::Receiver<Result<()>>,
    /// This process, in the row of `relaying`.
    holder: String,
    /// How long what was written to the cache can be served at most.
    life: Duration,
}

impl PgOutbox {
    pub(super) fn new(
        servers: Arc<Replicas>,
        clock: Arc<dyn Clock>,
        ready: watch::Receiver<Result<()>>,
        life: Duration,
    ) -> Self {
        Self {
            servers,
            clock,
            ready,
            holder: Uuid::now_v7().to_string(),
            life,
        }
    }

    async fn read(&self, place: Place, rows: u32) -> Result<Untold> {
        let primary = self.servers.primary();
        let rows_max = i64::from(rows);
        let found = primary
            .query(&CHANGES, &[&place.transaction, &place.row, &rows_max])
            .await?;
        let mut untold = Untold {
            changes: Vec::new(),
            place,
            more: false,
            overtaken: false,
        };
        for row in &found {
            // The last row that was read, with how many there were; the others each a context.
            match get::<Option<String>>(row, 0)? {
                Some(transaction) => {
                    untold.place.transaction = transaction;
                    untold.place.row = get(row, 1)?;
                    untold.more = get::<i64>(row, 2)? >= rows_max;
                }
                None => untold.changes.push(context(row, 3)?),
            }
        }
        if let Some(after) = untold.place.walked {
            let since = self.clock.now().saturating_sub(self.life).as_micros();
            let walked = primary.query(&HEADS, &[&after, &WALK, &since]).await?;
            untold.place.walked = None;
            for row in &walked {
                match get::<Option<i64>>(row, 0)? {
                    Some(last) => {
                        let whole = get::<i64>(row, 1)? >= WALK;
                        untold.place.walked = whole.then_some(last);
                        untold.more |= whole;
                    }
                    None => untold.changes.push(context(row, 2)?),
                }
            }
        }
        Ok(untold)
    }
}

/// A tenant, an id and a version, from this column on.
fn context(row: &Row, at: usize) -> Result<(ContextKey, Version)> {
    let tenant = TenantId::parse(get(row, at)?)?;
    let id = ContextId::parse(get(row, at + 1)?)?;
    Ok((ContextKey::new(tenant, id), count(row, at + 2)?))
}

/// A place that is ahead of the server's transactions is that of another server, whose rows were copied here.
macro_rules! lost {
    () => {
        "(r.overtaken OR r.xid >= pg_snapshot_xmax(pg_current_snapshot()))"
    };
}

static LOOK: Statement = Statement {
    name: "relaying_look",
    sql: concat!(
        "SELECT (",
        lost!(),
        " OR r.after_ctx IS NOT NULL OR coalesce(c.xid < pg_snapshot_xmin(pg_current_snapshot()), false))
                AND (r.holder = $1 OR r.held_until <= clock_timestamp()), c.changed_at
          FROM contextkeep.relaying r LEFT JOIN LATERAL (
              SELECT c.xid, c.changed_at FROM contextkeep.changes c
              WHERE (c.xid, c.change_no) > (r.xid, r.change_no) ORDER BY c.xid, c.change_no LIMIT 1
          ) c ON true"
    ),
    types: &[Type::TEXT],
};

static TAKE: Statement = Statement {
    name: "relaying_take",
    sql: concat!(
        "WITH was AS (SELECT ",
        lost!(),
        " AS lost, r.xid >= pg_snapshot_xmax(pg_current_snapshot()) AS ahead FROM contextkeep.relaying r)
          UPDATE contextkeep.relaying r SET holder = $1, held_until = clock_timestamp() + $2 * interval '1 millisecond',
                 overtaken = r.overtaken AND NOT was.lost, after_ctx = CASE WHEN was.lost THEN 0 ELSE r.after_ctx END,
                 xid = CASE WHEN was.ahead THEN '0'::xid8 ELSE r.xid END,
                 change_no = CASE WHEN was.ahead THEN 0 ELSE r.change_no END
          FROM was WHERE r.holder = $1 OR r.held_until <= clock_timestamp()
          RETURNING r.xid::text, r.change_no, r.after_ctx, was.lost, set_config('synchronous_commit', 'off', true)"
    ),
    types: &[Type::TEXT, Type::FLOAT8],
};

static CHANGES: Statement = Statement {
    name: "relaying_changes",
    sql: "WITH c AS MATERIALIZED (
              SELECT xid, change_no, ctx_nos, versions FROM contextkeep.changes
              WHERE (xid, change_no) > ($1::text::xid8, $2) AND xid < pg_snapshot_xmin(pg_current_snapshot())
              ORDER BY xid, change_no LIMIT $3
          )
          (SELECT c.xid::text, c.change_no, (SELECT count(*) FROM c), NULL::text, NULL::text, NULL::bigint
           FROM c ORDER BY c.xid DESC, c.change_no DESC LIMIT 1)
          UNION ALL
          SELECT NULL, NULL, NULL, x.tenant, x.id, max(n.version)
          FROM c, unnest(c.ctx_nos, c.versions) AS n (ctx_no, version)
          JOIN contextkeep.contexts x USING (ctx_no)
          WHERE n.version > 0 GROUP BY x.tenant, x.id",
    types: &[Type::TEXT, Type::INT8, Type::INT8],
};

static HEADS: Statement = Statement {
    name: "relaying_heads",
    sql: "WITH h AS MATERIALIZED (
              SELECT ctx_no, version, greatest(updated_at, deleted_at) AS changed_at FROM contextkeep.heads
              WHERE ctx_no > $1 ORDER BY ctx_no LIMIT $2
          )
          (SELECT h.ctx_no, (SELECT count(*) FROM h), NULL::text, NULL::text, NULL::bigint
           FROM h ORDER BY h.ctx_no DESC LIMIT 1)
          UNION ALL
          SELECT NULL, NULL, x.tenant, x.id, h.version
          FROM h JOIN contextkeep.contexts x USING (ctx_no) WHERE h.changed_at >= $3",
    types: &[Type::INT8, Type::INT8, Type::INT8],
};

static MOVE: Statement = Statement {
    name: "relaying_move",
    sql: "UPDATE contextkeep.relaying r SET xid = $2::text::xid8, change_no = $3, after_ctx = $4,
                 held_until = CASE WHEN $5 THEN r.held_until ELSE '-infinity' END
          WHERE r.holder = $1 RETURNING set_config('synchronous_commit', 'off', true)",
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT8, Type::BOOL],
};

static GIVE_BACK: Statement = Statement {
    name: "relaying_give_back",
    sql: "UPDATE contextkeep.relaying r SET held_until = '-infinity'
          WHERE r.holder = $1 RETURNING set_config('synchronous_commit', 'off', true)",
    types: &[Type::TEXT],
};

#[async_trait::async_trait]
impl Outbox for PgOutbox {
    async fn look(&self) -> Result<Look> {
        self.ready.borrow().clone()?;
        let rows = self.servers.primary().query(&LOOK, &[&self.holder]).await?;
        let row = rows
            .first()
            .ok_or_else(|| Error::internal("contextkeep.relaying has no row"))?;
        let oldest = get::<Option<i64>>(row, 1)?.map(Timestamp::from_micros);
        let now = self.clock.now().as_micros();
        let since = |at: Timestamp| u64::try_from(now.saturating_sub(at.as_micros())).unwrap_or(0);
        Ok(Look {
            due: get(row, 0)?,
            lag: oldest.map(|at| Duration::from_micros(since(at))),
        })
    }

    async fn take(&self, rows: u32) -> Result<Option<Untold>> {
        let lease = LEASE.as_secs_f64() * 1000.0;
        let taken = statement(&self.servers, |session| async move {
            Ok(session.query(&TAKE, &[&self.holder, &lease]).await?)
        })
        .await?;
        let Some(row) = taken.first() else {
            return Ok(None);
        };
        let place = Place {
            transaction: get(row, 0)?,
            row: get(row, 1)?,
            walked: get(row, 2)?,
        };
        let overtaken = get(row, 3)?;
        let untold = self.read(place, rows).await?;
        Ok(Some(Untold { overtaken, ..untold }))
    }

    async fn told(&self, untold: &Untold) -> Result<bool> {
        let Place {
            transaction,
            row,
            walked,
        } = &untold.place;
        let moved = statement(&self.servers, |session| async move {
            let to: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&self.holder, transaction, row, walked, &untold.more];
            Ok(session.query(&MOVE, &to).await?)
        })
        .await?;
        Ok(!moved.is_empty())
    }

    async fn give_back(&self) -> Result<()> {
        statement(&self.servers, |session| async move {
            Ok(session.query(&GIVE_BACK, &[&self.holder]).await?)
        })
        .await
        .map(drop)
    }
}
