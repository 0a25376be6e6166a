//! Every metric: its name, what it is, its labels, what it means.

use metrics::Label;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only rises, from 0 at the start.
    Counter,
    /// A value at the moment; `NaN` where it is not known.
    Gauge,
    /// How values are spread.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) meaning: &'static str,
}

macro_rules! table {
    ($($metric:ident $kind:ident $name:literal [$($label:literal),*] $meaning:literal;)+) => {
        $(pub(super) static $metric: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            meaning: $meaning,
        };)+
        /// All of them, as the reference lists them.
        pub(super) static ALL: &[&Metric] = &[$(&$metric),+];
    };
}

table! {
    REQUEST_DURATION Histogram "contextkeep_server_request_duration_seconds" ["method", "route", "status"]
        "Requests by route and class of status, from the head of the request to the head of the answer.";
    STATEMENT_DURATION Histogram "contextkeep_core_statement_duration_seconds" ["statement"]
        "Statements as their callers saw them, failed ones included; pipelined ones each with the time of the whole flush.";
    STATEMENT_FAILURES Counter "contextkeep_core_statement_failures_total" ["statement"]
        "Statements that failed, timeouts included.";
    STATEMENT_SLOW Counter "contextkeep_core_slow_statements_total" ["statement"]
        "Statements that took at least `monitoring.slow_query_threshold`.";
    PLANS Counter "contextkeep_core_plans_total" ["outcome"]
        "Plans of slow statements: `taken`, `failed`, or `skipped` because the pool had no connection to spare.";
    POOL_OPEN Gauge "contextkeep_core_pool_open_connections" ["server"]
        "Pooled connections, in use or not.";
    POOL_IDLE Gauge "contextkeep_core_pool_idle_connections" ["server"]
        "Pooled connections that nobody uses.";
    POOL_MAX Gauge "contextkeep_core_pool_max_connections" ["server"]
        "Most pooled connections: what `max_open_conns` leaves beside the shared ones and the health check's.";
    POOL_WAITING Gauge "contextkeep_core_pool_waiting_callers" ["server"]
        "Callers that wait for a pooled connection.";
    SHARED_OPEN Gauge "contextkeep_core_shared_open_connections" ["server"]
        "Shared connections.";
    SHARED_IN_FLIGHT Gauge "contextkeep_core_shared_in_flight_statements" ["server"]
        "Statements under way on the shared connections.";
    OPENED Counter "contextkeep_core_opened_connections_total" ["server"]
        "Connections opened, of every kind.";
    CLOSED Counter "contextkeep_core_closed_connections_total" ["server", "reason"]
        "Connections closed: `lost`, `lifetime`, `idle_time`, `surplus`, `abandoned`, `suspect`, `shutdown`.";
    CONNECT_FAILURES Counter "contextkeep_core_failed_connections_total" ["server"]
        "Attempts to connect that failed.";
    SHED Counter "contextkeep_core_shed_callers_total" ["server"]
        "Callers turned away because no connection came free, or too much was under way.";
    PRIMARY Gauge "contextkeep_core_server_primary_info" ["server"]
        "1 for the server that takes the writes, 0 for the others.";
    HEALTH Gauge "contextkeep_core_server_health_info" ["server", "state"]
        "1 for the state that a server is in, 0 for the others: `unknown`, `healthy`, `lagging`, `suspect`, `down`.";
    BREAKER Gauge "contextkeep_core_server_breaker_info" ["server", "state"]
        "1 for the state that its breaker is in, 0 for the others: `closed`, `open`, `half_open`, `recovering`, `isolated`.";
    GATE Gauge "contextkeep_core_gate_info" ["gate", "state"]
        "1 for the state that the breaker in front of a primary or of searches is in, 0 for the others: `closed`, `open`, `half_open`, `recovering`, `isolated`.";
    GATE_RUNNING Gauge "contextkeep_core_gate_running_calls" ["gate"]
        "Calls under way behind a gate.";
    GATE_WAITING Gauge "contextkeep_core_gate_waiting_calls" ["gate"]
        "Calls that wait for their turn at a gate.";
    GATE_REFUSED Counter "contextkeep_core_gate_refused_calls_total" ["gate"]
        "Calls that a gate turned away.";
    LAG_BYTES Gauge "contextkeep_core_server_lag_bytes" ["server"]
        "Bytes of the log behind the primary, as last seen.";
    LAG_SECONDS Gauge "contextkeep_core_server_lag_seconds" ["server"]
        "How old the data of a server may be.";
    IN_FLIGHT Gauge "contextkeep_core_server_in_flight_reads" ["server"]
        "Routed reads under way.";
    READS Counter "contextkeep_core_routed_reads_total" ["outcome"]
        "Reads answered by a `replica` or, as asked, by the `primary`; gone on to the primary because a replica's answer was too old (`unmet`), it `failed`, or `none` qualified.";
    HEDGES Counter "contextkeep_core_hedged_reads_total" ["outcome"]
        "Reads sent to a second replica as well (`sent`), and answered by it (`won`).";
    READS_SHED Counter "contextkeep_core_shed_reads_total" []
        "Reads refused because the primary serves as many for the replicas as it may.";
    PROMOTIONS Counter "contextkeep_core_promotions_total" []
        "Times that writes moved to another server.";
    CACHE_READS Counter "contextkeep_cache_reads_total" ["origin"]
        "Reads of heads through the cache by where they were answered from: `l1`, `l2`, `replica`, `primary`, `stale`.";
    CACHE_EVENTS Counter "contextkeep_cache_events_total" ["event"]
        "What happened in the cache: `loaded`, `load_failed`, `refreshing`, `overloaded`, `remote_failed`, `fill_refused`, `lease_held`, `source_behind`, `gap`, `diverged`, `deferred`, `recovered`, `recovery_full`, `warmed`, `oversize`.";
    CACHE_ENTRIES Gauge "contextkeep_cache_heads_entries" []
        "Heads in the process.";
    CACHE_BYTES Gauge "contextkeep_cache_heads_bytes" []
        "Bytes of heads in the process, as accounted.";
    CACHE_LOADS Gauge "contextkeep_cache_in_flight_loads" []
        "Loads of heads under way.";
    CACHE_DEFERRED Gauge "contextkeep_cache_deferred_changes" []
        "Changes that wait for the level that processes share.";
    CACHE_TRUSTED Gauge "contextkeep_cache_trusted_partitions" []
        "Partitions whose entries may be served without asking; 0 while nobody tells of others' changes.";
    REDIS_REACHABLE Gauge "contextkeep_cache_redis_reachable_info" []
        "1 while the Redis of the cache answers, 0 while it does not, `NaN` before it was asked.";
    HELD_CONTEXTS Gauge "contextkeep_core_held_contexts" []
        "Contexts whose ends are held in the process.";
    HELD_BYTES Gauge "contextkeep_core_held_bytes" []
        "Bytes of the ends that are held in the process, and of the windows that are kept ready.";
    COLD_CONTEXTS Gauge "contextkeep_core_cold_contexts" []
        "Those of the held contexts that are compressed, because nobody has asked for them lately.";
    COLD_BYTES Gauge "contextkeep_core_cold_bytes" []
        "Their bytes, compressed; part of the held bytes.";
    RELAYED Counter "contextkeep_core_relayed_changes_total" ["outcome"]
        "Changes that this server told Redis out of the outbox of Postgres: `known` there already, or `mended`, because whoever made them did not tell it, or not yet.";
    RELAY_FAILURES Counter "contextkeep_core_failed_relays_total" []
        "Tries to tell Redis what is in the outbox that failed. Nothing is lost: they are repeated.";
    RELAY_WALKS Counter "contextkeep_core_relay_walks_total" []
        "Times that this server began to tell all that changed lately, because the outbox was purged before Redis was told; once is usual after an update from a version without a relay.";
    RELAY_LAG Gauge "contextkeep_core_relay_lag_seconds" []
        "Age of the oldest change in the outbox that Redis was not told of, by whichever server; 0 if there is none.";
    SHADOWS Counter "contextkeep_core_shadow_reads_total" ["outcome"]
        "Reads tried in the shadow: `same`, `different`, `moved` (the context was changed in between), `failed`, `skipped`.";
    SUMMARIES Counter "contextkeep_core_background_summaries_total" ["outcome"]
        "Summaries made in the background, by a model if `summaries.endpoint` is set: `kept`; `needless`, somebody else had made it; `outdated`, the context was truncated, replaced or deleted meanwhile; `not_asked`, the model is known to be down or wants to be left alone; `failed`, it did not answer; `unusable`, what it answered is no summary; `store_failed`; `shed`, too many waited.";
    SUMMARIES_WAITING Gauge "contextkeep_core_waiting_summaries" []
        "Contexts that wait for a summary in the background.";
    SUMMARIES_RUNNING Gauge "contextkeep_core_running_summaries" []
        "Contexts of which a summary is being made in the background.";
    MODEL_BREAKER Gauge "contextkeep_server_summary_breaker_info" ["state"]
        "1 for the state that the breaker of `summaries.endpoint` is in, 0 for the others: `closed`, `open`, `half_open`, `recovering`, `isolated`.";
    EMBEDDED Counter "contextkeep_core_embedded_items_total" ["outcome"]
        "Items that were seen to for searches by meaning, if `semantic.endpoint` is set: `embedded`; `empty`, without text; `refused`, the embedder does not take it or has no vector for it.";
    EMBEDDING_FAILURES Counter "contextkeep_core_failed_embeddings_total" ["reason"]
        "Batches of items that got no vectors and are tried again, because of the `embedder` or the `store`.";
    EMBEDDING_LAG Gauge "contextkeep_core_unembedded_items" []
        "Items that can be found by words and not yet by meaning, as last counted, up to 10000.";
    EMBEDDER_BREAKER Gauge "contextkeep_server_embedder_breaker_info" ["state"]
        "1 for the state that the breaker of `semantic.endpoint` is in, 0 for the others: `closed`, `open`, `half_open`, `recovering`, `isolated`.";
    SPANS Counter "contextkeep_server_spans_total" ["outcome"]
        "Spans of traces, if `telemetry.traces.enabled`: `exported`; `dropped`, `telemetry.traces.queue` was full; `failed`, their export failed; `rejected` by the collector.";
    SPAN_EXPORTS Counter "contextkeep_server_span_exports_total" ["outcome"]
        "Exports of spans that a collector has `taken`, or that `failed`.";
    SPANS_WAITING Gauge "contextkeep_server_waiting_spans" []
        "Spans that wait to be exported or are being exported.";
    TRACES_LEFT_OUT Counter "contextkeep_server_left_out_traces_total" []
        "Requests and calls that were not traced because a second had `telemetry.traces.max_per_second` already.";
    WRITES_WAITING Gauge "contextkeep_core_waiting_appends" []
        "Appends that wait for their commit.";
}

/// What a value is given to.
enum Handle {
    Counter(metrics::Counter),
    Gauge(metrics::Gauge),
    Histogram(metrics::Histogram),
}

impl Metric {
    /// Sets a gauge, or raises a counter to a value.
    pub(super) fn set(&self, values: &[&str], value: f64) {
        if let Handle::Gauge(gauge) = self.handle(values) {
            gauge.set(value);
        }
    }

    /// Raises a counter to what was counted elsewhere.
    pub(super) fn count(&self, values: &[&str], value: u64) {
        if let Handle::Counter(counter) = self.handle(values) {
            counter.absolute(value);
        }
    }

    /// Adds a value to a histogram, so many times.
    pub(super) fn record(&self, values: &[&str], value: f64, times: usize) {
        if let Handle::Histogram(histogram) = self.handle(values) {
            histogram.record_many(value, times);
        }
    }

    #[expect(
        clippy::disallowed_macros,
        reason = "the one place: names and labels are those of the table"
    )]
    fn handle(&self, values: &[&str]) -> Handle {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let labels: Vec<Label> = self
            .labels
            .iter()
            .zip(values)
            .map(|(name, value)| Label::new(*name, (*value).to_owned()))
            .collect();
        match self.kind {
            Kind::Counter => Handle::Counter(metrics::counter!(self.name, labels)),
            Kind::Gauge => Handle::Gauge(metrics::gauge!(self.name, labels)),
            Kind::Histogram => Handle::Histogram(metrics::histogram!(self.name, labels)),
        }
    }
}

/// Says of each what it means.
pub(super) fn describe() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.meaning),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.meaning),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.meaning),
        }
    }
}

const HEAD: &str = "# Metrics

Generated by `cargo xtask codegen`. At `GET /metrics` in Prometheus' text format, unless
`context_manager.monitoring.metrics_enabled` is false; with `auth.keys`, for a key with `admin: true`. Counters begin at 0
when the process starts. The values of labels are names in the code (`statement`), paths of routes (`route`), the
servers of the configuration (`server`: `primary`, `replica-1`, …; `gate`: these and `search`), and the words below. Of
metrics that begin with `contextkeep_core_` the embedded store has those of held contexts, shadow reads, summaries and
embedded items only.

| name | kind | labels | meaning |
| --- | --- | --- | --- |
";

/// The reference page.
pub(super) fn reference() -> String {
    let rows = ALL.iter().map(|metric| {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!(
            "| `{}` | {kind} | {} | {} |\n",
            metric.name,
            labels.join(", "),
            metric.meaning
        )
    });
    std::iter::once(HEAD.to_owned()).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule_and_do_not_repeat() {
        for (index, metric) in ALL.iter().enumerate() {
            let name = metric.name;
            assert!(
                ["contextkeep_core_", "contextkeep_cache_", "contextkeep_server_"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix)),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            let others = ALL.get(index + 1..).unwrap_or_default();
            assert!(others.iter().all(|other| other.name != name), "{name}");
            assert!(metric.meaning.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn labels_are_of_a_closed_set() {
        let closed = [
            "method",
            "route",
            "status",
            "statement",
            "server",
            "state",
            "reason",
            "outcome",
            "origin",
            "event",
            "gate",
        ];
        for metric in ALL {
            for label in metric.labels {
                assert!(closed.contains(label), "{}: {label}", metric.name);
            }
        }
    }
}
