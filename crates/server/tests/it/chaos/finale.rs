//! The end of a run: everything heals, and what the database has is read, past every server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use contextkeep_test_support::postgres::{PgMember, Row};
use contextkeep_test_support::redis::Value;
use contextkeep_test_support::wait::{self, Look};

use super::client::{Client, Nodes};
use super::history::{Demand, Extent, Item, Kept, Name, Operation, TENANTS, What};
use super::stage::Stage;

/// By then every node is ready again and answers as the database does. Generous: the machine may be busy.
const HEALED: Duration = Duration::from_mins(1);

/// Waits until all nodes are ready and the replicas have everything; answers how long that took.
pub(super) fn heal(stage: &Stage) -> Duration {
    let since = wait::stopwatch();
    for (number, node) in stage.nodes.iter().enumerate() {
        let ready = wait::until(&format!("node {number} to be ready"), HEALED, || {
            Ok(node.not_ready().map_or(Look::Done(()), Look::NotYet))
        });
        ready.unwrap_or_else(|error| panic!("{error}\n{}", node.log_tail(30)));
    }
    stage.postgres.wait_replayed(HEALED).unwrap();
    since()
}

const HEADS: &str =
    "SELECT c.tenant, c.id, h.version, h.deleted_at IS NOT NULL, h.first_seq, h.next_seq, h.item_count
    FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)";
const ITEMS: &str = "SELECT c.tenant, c.id, i.seq, i.body
    FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)
    JOIN contextkeep.spans p ON p.stream_no = h.stream_no
    JOIN contextkeep.items i ON i.stream_no = p.source_no AND i.seq BETWEEN p.first_seq AND p.last_seq
    WHERE h.deleted_at IS NULL AND i.seq >= h.first_seq AND i.seq < h.next_seq";

/// Everything that the database has, by its tables.
fn kept(primary: &PgMember) -> BTreeMap<(u8, Name), Kept> {
    let mut all = BTreeMap::new();
    for row in primary.sql(HEADS).unwrap() {
        let [tenant, id, version, deleted, first_seq, next_seq, items] = columns(row);
        let number = |text: String| -> u64 { text.parse().unwrap() };
        let extent = Extent {
            first_seq: number(first_seq),
            next_seq: number(next_seq),
            items: number(items),
        };
        let kept = Kept {
            version: number(version),
            deleted: deleted == "t",
            extent,
            items: BTreeMap::new(),
        };
        all.insert((tenant_number(&tenant), Name::from(id)), kept);
    }
    for row in primary.sql(ITEMS).unwrap() {
        let [tenant, id, seq, body] = columns(row);
        let kept = all.get_mut(&(tenant_number(&tenant), Name::from(id))).unwrap();
        kept.items.insert(seq.parse().unwrap(), Item::parse(&body));
    }
    all
}

/// None of them is NULL.
fn columns<const COUNT: usize>(row: Row) -> [String; COUNT] {
    let texts: Vec<String> = row.into_iter().map(Option::unwrap).collect();
    texts.try_into().unwrap()
}

fn tenant_number(name: &str) -> u8 {
    let place = TENANTS.iter().position(|tenant| *tenant == name);
    u8::try_from(place.unwrap()).unwrap()
}

/// What the database had in the end, and who differed from it.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) kept: BTreeMap<(u8, Name), Kept>,
    pub(super) differing: Vec<Differing>,
    pub(super) agreed: Duration,
}

/// What a node answered differently from the database when time was up.
#[derive(Clone, Debug)]
pub(super) struct Differing {
    pub(super) tenant: u8,
    pub(super) context: Name,
    what: String,
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Asks every node for every context, without a token, until all of them answer what the database has; or, when time is
/// up, what still differs.
///
/// The database is read anew each time: a write whose client has given up may still be on its way to it. Who agreed about
/// a version is not asked about it again.
pub(super) fn compare(nodes: &Nodes, primary: &PgMember, within: Duration) -> Ending {
    let since = wait::stopwatch();
    let (mut have, mut differing) = (BTreeMap::new(), Vec::new());
    let mut agreeing = BTreeSet::new();
    let agreed = wait::until("all nodes to agree with the database", within, || {
        have = kept(primary);
        differing = differences(nodes, &have, &mut agreeing);
        Ok(Look::when(differing.is_empty()))
    });
    if agreed.is_ok() {
        differing.clear();
    }
    Ending {
        kept: have,
        differing,
        agreed: since(),
    }
}

/// Asks every node once for every context that the database has, unless it agreed about this version before.
fn differences(
    nodes: &Nodes,
    kept: &BTreeMap<(u8, Name), Kept>,
    agreeing: &mut BTreeSet<(usize, u8, Name, u64)>,
) -> Vec<Differing> {
    let mut clients = [0, 1].map(|tenant| Client::new(nodes, u16::MAX - 2, tenant));
    let mut found = Vec::new();
    for ((tenant, context), kept) in kept {
        for node in 0..nodes.len() {
            let asked = (node, *tenant, context.clone(), kept.version);
            if agreeing.contains(&asked) {
                continue;
            }
            let read = clients[usize::from(*tenant)].ask(node, context, What::Head, Demand::Bare);
            let version = read.done().and_then(|done| done.tag);
            let right = if kept.deleted {
                read.found_nothing()
            } else {
                version == Some(kept.version)
            };
            if right {
                agreeing.insert(asked);
            } else {
                found.push(Differing {
                    tenant: *tenant,
                    context: context.clone(),
                    what: format!(
                        "the database has version {}, deleted {}: {read}",
                        kept.version, kept.deleted
                    ),
                });
            }
        }
    }
    found
}

/// Why a context may differ: what the shared level holds of it, how far it was told of the outbox, and what clients did
/// with it.
pub(super) fn inquest(stage: &Stage, operations: &[Operation], differing: &Differing) -> Vec<String> {
    let Differing { tenant, context, .. } = differing;
    let name = format!("{}/{context}", TENANTS[usize::from(*tenant)]);
    let mut found = vec![format!("what is known of {name}")];
    for node in stage.redis.nodes() {
        let Ok(Value::Array(keys)) = node.command(&["KEYS", &format!("*/{name}*")]) else {
            continue;
        };
        for key in keys.iter().filter_map(Value::as_text) {
            // Format, kind, whether it was logged, version and time; a lease is shorter.
            let held = node.command(&["GETRANGE", key, "0", "35"]);
            let left = node.command(&["PTTL", key]);
            found.push(format!("{} {key}: {held:?}, {left:?} ms left", node.name()));
        }
    }
    let place = stage.postgres.primary().sql(RELAYING);
    found.push(format!("the outbox: {place:?}"));
    let of_it = |operation: &&Operation| operation.tenant == *tenant && operation.context == *context;
    found.extend(operations.iter().filter(of_it).map(ToString::to_string));
    found
}

const RELAYING: &str = "SELECT r.xid, r.change_no, r.after_ctx, r.held_until > now(), r.overtaken,
    (SELECT count(*) FROM contextkeep.changes c WHERE (c.xid, c.change_no) > (r.xid, r.change_no)),
    pg_current_snapshot() FROM contextkeep.relaying r";
