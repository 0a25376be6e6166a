//! The end of a run: everything heals, and what the database has is read, past every server.

use std::collections::BTreeMap;
use std::time::Duration;

use contextkeep_test_support::postgres::{PgMember, Row};
use contextkeep_test_support::wait::{self, Look};

use super::client::{Client, Nodes};
use super::history::{Demand, Extent, Item, Kept, Name, TENANTS, What};
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
pub(super) fn kept(primary: &PgMember) -> BTreeMap<(u8, Name), Kept> {
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

/// What a node has to be asked for, and what the database says of it.
type Question<'kept> = (usize, u8, &'kept Name, &'kept Kept);

/// Asks every node for every context, without a token; what still differs from the database when time is up, and how
/// long it took until nothing did.
pub(super) fn compare(
    nodes: &Nodes,
    kept: &BTreeMap<(u8, Name), Kept>,
    within: Duration,
) -> (Vec<String>, Duration) {
    let since = wait::stopwatch();
    let all = kept.iter().flat_map(|((tenant, context), kept)| {
        (0..nodes.len()).map(move |node| (node, *tenant, context, kept))
    });
    let mut open: Vec<Question<'_>> = all.collect();
    let mut differing = Vec::new();
    let agreed = wait::until("all nodes to agree with the database", within, || {
        // Nobody writes any more: who agrees goes on agreeing.
        differing = differences(nodes, &mut open);
        Ok(Look::when(open.is_empty()))
    });
    if agreed.is_ok() {
        differing.clear();
    }
    (differing, since())
}

/// Asks once, and leaves in `open` who differs.
fn differences(nodes: &Nodes, open: &mut Vec<Question<'_>>) -> Vec<String> {
    let mut clients = [0, 1].map(|tenant| Client::new(nodes, u16::MAX - 2, tenant));
    let mut found = Vec::new();
    open.retain(|(node, tenant, context, kept)| {
        let read = clients[usize::from(*tenant)].ask(*node, context, What::Head, Demand::Bare);
        let version = read.done().and_then(|done| done.tag);
        let right = if kept.deleted {
            read.found_nothing()
        } else {
            version == Some(kept.version)
        };
        if !right {
            found.push(format!(
                "the database has version {}, deleted {}: {read}",
                kept.version, kept.deleted
            ));
        }
        !right
    });
    found
}
