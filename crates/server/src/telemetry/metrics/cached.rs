//! What the cache tells, as metrics.

use super::observed::float;
use super::table;
use crate::caching::Caching;

pub(super) fn observe(caching: &Caching) {
    for (origin, count) in caching.counts.origins() {
        table::CACHE_READS.count(&[origin], count);
    }
    for (event, count) in caching.counts.events() {
        table::CACHE_EVENTS.count(&[event], count);
    }
    let standing = caching.standing();
    let heads = standing.heads;
    for (gauge, value) in [
        (&table::CACHE_ENTRIES, heads.entries as u64),
        (&table::CACHE_BYTES, heads.bytes),
        (&table::CACHE_LOADS, heads.loads as u64),
        (&table::CACHE_DEFERRED, heads.deferred as u64),
        (&table::CACHE_TRUSTED, heads.trusted_partitions as u64),
        (&table::HELD_CONTEXTS, standing.held.contexts),
        (&table::HELD_BYTES, standing.held.bytes),
        (&table::COLD_CONTEXTS, standing.held.cold_contexts),
        (&table::COLD_BYTES, standing.held.cold_bytes),
    ] {
        gauge.set(&[], float(value));
    }
    let reach = caching.redis_reach();
    let reachable = reach.map_or(f64::NAN, |reach| if reach.reachable { 1.0 } else { 0.0 });
    table::REDIS_REACHABLE.set(&[], reachable);
    if let Some(relay) = standing.relay {
        table::RELAYED.count(&["known"], relay.known);
        table::RELAYED.count(&["mended"], relay.mended);
        table::RELAY_FAILURES.count(&[], relay.failed);
        table::RELAY_WALKS.count(&[], relay.walks);
        let lag = relay.lag.map_or(f64::NAN, |lag| lag.as_secs_f64());
        table::RELAY_LAG.set(&[], lag);
    }
    let shadows = standing.shadows;
    for (outcome, count) in [
        ("same", shadows.same),
        ("different", shadows.different),
        ("moved", shadows.moved),
        ("failed", shadows.failed),
        ("skipped", shadows.skipped),
    ] {
        table::SHADOWS.count(&[outcome], count);
    }
}
