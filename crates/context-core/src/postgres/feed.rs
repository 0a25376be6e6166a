//! What changed, by the outbox: every transaction that changes contexts leaves a row there with their versions. Polled
//! and not notified: `NOTIFY` makes commits wait for each other.
//!
//! Numbers of transactions are drawn before the commit, so that a row may appear behind one that was read. Each look
//! therefore begins at the oldest transaction that was still under way at the last one; what is told twice does no harm.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::Type;

use super::link::Statement;
use super::replicas::Replicas;
use super::rows::{count, get};
use crate::cached::{ChangeFeed, Changes};
use crate::error::Result;
use crate::id::{ContextId, ContextKey, TenantId};

/// Rows of the outbox that are read in one look; one holds up to a group of appends.
const ROWS_MAX: i64 = 2000;
/// After so long a silence rows may have been purged that were never read.
const SILENCE_MAX: Duration = Duration::from_mins(1);

static CHANGES: Statement = Statement {
    name: "changes",
    sql: "WITH s AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin),
          c AS MATERIALIZED (
              SELECT ctx_nos, versions FROM contextkeep.changes WHERE $1 <> '' AND xid >= $1::text::xid8 LIMIT $2
          )
          SELECT s.xmin::text, (SELECT count(*) FROM c), NULL::text, NULL::text, NULL::bigint FROM s
          UNION ALL
          SELECT NULL, NULL, x.tenant, x.id, max(n.version)
          FROM c, unnest(c.ctx_nos, c.versions) AS n (ctx_no, version)
          JOIN contextkeep.contexts x USING (ctx_no)
          GROUP BY x.tenant, x.id",
    types: &[Type::TEXT, Type::INT8],
};

/// The feed of one store.
#[derive(Debug)]
pub(super) struct Feed {
    servers: Arc<Replicas>,
    last: Mutex<Option<Look>>,
}

/// How far the last look got.
#[derive(Clone, Debug)]
struct Look {
    /// Everything older was committed or given up by then.
    xmin: String,
    at: Instant,
}

impl Feed {
    pub(super) fn new(servers: Arc<Replicas>) -> Self {
        Self {
            servers,
            last: Mutex::new(None),
        }
    }

    fn last(&self) -> Option<Look> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait::async_trait]
impl ChangeFeed for Feed {
    async fn changes(&self) -> Result<Changes> {
        let last = self.last();
        let at = Instant::now();
        let from = last.as_ref().map_or("", |look| look.xmin.as_str());
        let rows = self
            .servers
            .primary()
            .query(&CHANGES, &[&from, &ROWS_MAX])
            .await?;
        let mut known = Vec::new();
        let (mut xmin, mut read) = (String::new(), 0);
        for row in &rows {
            // The first row tells how far this look goes, the others each a context.
            if let Some(now) = get::<Option<String>>(row, 0)? {
                (xmin, read) = (now, get::<i64>(row, 1)?);
                continue;
            }
            let tenant = TenantId::parse(get(row, 2)?)?;
            let id = ContextId::parse(get(row, 3)?)?;
            known.push((ContextKey::new(tenant, id), count(row, 4)?));
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Look { xmin, at });
        let whole = last.is_some_and(|look| at.duration_since(look.at) < SILENCE_MAX) && read < ROWS_MAX;
        Ok(if whole {
            Changes::Known(known)
        } else {
            Changes::Unknown
        })
    }
}
