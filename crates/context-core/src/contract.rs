//! The contract of [`ContextStore`]: one suite that every implementation passes, the fake included, so that
//! a test on the fake says something about the real ones.
//!
//! A store's tests are one line, `store_contract!(make)`, where `make(clock)` is async and answers a fresh,
//! empty store and a guard that is dropped after the case.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite of assertions")]
#![expect(clippy::missing_panics_doc, reason = "panicking is how a case fails")]
#![expect(missing_docs, reason = "each case is named after what it demands")]

mod appends;
mod client_ids;
mod heads;
mod life;
mod many;
mod reads;
mod searching;
mod streams;
mod summaries;
mod truncating;
mod vectors;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, ManualClock};
use crate::context::JsonObject;
use crate::item::Kind;
use crate::search::Query;
use crate::store::{
    Append, Appended, ContextStore, Idempotency, ItemPage, ItemQuery, ListPosition, ListQuery, Order,
    Retention, SearchQuery, SeqRange, TailQuery,
};
use crate::truncate::{AutoTruncation, Strategy};
use crate::{
    Context, ContextId, ContextKey, ContextPatch, Error, IdempotencyKey, NewContext, NewItem, Role, Seq,
    TenantId, Timestamp, Tokenizer,
};

pub use appends::*;
pub use client_ids::*;
pub use heads::*;
pub use life::*;
pub use many::*;
pub use reads::*;
pub use searching::*;
pub use streams::*;
pub use summaries::*;
pub use truncating::*;
pub use vectors::*;

/// One test per case of the contract, for the store that the closure makes. Attributes before it are put on each.
#[macro_export]
macro_rules! store_contract {
    ($(#[$attribute:meta])* $make:path) => {
        $crate::store_contract!(@cases [$(#[$attribute])*] $make;
            created_contexts_are_found, creating_again_finds_the_same, of_many_who_create_an_id_at_once_one_does,
            creating_otherwise_conflicts,
            ids_are_made_when_none_is_given, patches_change_what_they_name, versions_count_commits,
            conditions_hold, seqs_have_no_gaps, bodies_come_back_byte_for_byte, keys_are_used_once,
            keys_are_not_shared, client_ids_are_stored_once, client_ids_of_other_content_conflict,
            client_ids_outlive_a_replacement, client_ids_outlive_every_replacement,
            what_is_purged_is_known_by_its_client_id_alone, a_replacement_takes_over_the_client_ids_that_it_uses,
            client_ids_end_with_their_context, late_retries_travel_with_fresh_appends,
            half_known_appends_add_the_rest, counts_of_another_tokenizer_are_refused, replays_come_before_conditions,
            pages_go_both_ways, pages_are_bounded_by_bytes, tails_have_what_is_kept, what_is_kept_is_bounded_by_bytes, tails_stop_at_the_budget,
            forks_share_and_part, forks_outlive_their_parent, forks_of_forks_read_everything, replaced_items_are_gone,
            rewrites_keep_ranges, streams_are_numbered, deleted_contexts_are_gone, versions_survive_deletion, expired_contexts_are_gone,
            tenants_do_not_meet, tenants_use_the_same_ids, lists_are_newest_first, lists_filter, searches_find, searches_stay_inside,
            purges_remove_what_nothing_reaches, purges_forget_keys_and_tombstones, writers_at_once_all_succeed,
            dropped_appends_do_not_block, heads_come_in_the_order_of_the_ids, appends_of_many_have_their_own_outcomes,
            appends_of_many_keep_their_order, a_key_twice_in_a_batch_is_used_once,
            deletes_of_many_have_their_own_outcomes, deletes_of_many_leave_what_one_leaves,
            many_stay_inside_their_tenant, truncations_leave_the_rest_as_it_was, truncations_are_conditional,
            contexts_truncate_themselves_as_they_want, the_way_to_truncate_is_a_field_like_others,
            forks_are_listed_and_remember_their_parent, searches_filter_by_time_and_role, searches_that_lag_behind_nothing_find_everything,
            summaries_come_back_as_they_were_put, the_oldest_summaries_make_room,
            summaries_outlive_their_items_and_not_their_context, a_context_is_summarised_step_by_step, a_summary_that_is_kept_stays_and_is_of_one_stream,
            a_window_may_have_a_summary_of_what_it_leaves_out, a_clients_summary_goes_before_ours_in_a_window,
            what_a_window_leaves_out_is_summarised,
            what_is_nearest_comes_first, nearest_filters_and_says_when_it_stops, long_scans_see_everything_once,
            items_are_claimed_once, an_item_may_have_no_vector, models_do_not_mix, vectors_stay_with_their_tenant,
            vectors_go_with_their_items, models_that_nobody_uses_are_forgotten, fillers_at_once_do_nothing_twice
        );
    };
    (@cases $attributes:tt $make:path; $($case:ident),+) => {$(
        $crate::store_contract!(@case $attributes $make; $case);
    )+};
    (@case [$(#[$attribute:meta])*] $make:path; $case:ident) => {
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let clock = $crate::contract::clock();
            let (store, _guard) = ($make)(clock.clone()).await;
            $crate::contract::$case($crate::contract::Subject::new(store, clock)).await;
        }
    };
}

/// Where every case begins: 2026-01-01.
pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::starting_at(Timestamp::from_micros(
        1_767_225_600_000_000,
    )))
}

/// The store under test.
#[derive(Debug)]
pub struct Subject {
    store: Arc<dyn ContextStore>,
    clock: Arc<ManualClock>,
    tenant: TenantId,
}

impl Subject {
    /// A fresh, empty store.
    pub fn new(store: Arc<dyn ContextStore>, clock: Arc<ManualClock>) -> Self {
        Self {
            store,
            clock,
            tenant: TenantId::parse("acme").unwrap(),
        }
    }

    fn key(&self, id: &str) -> ContextKey {
        ContextKey::new(self.tenant.clone(), ContextId::parse(id).unwrap())
    }

    async fn create(&self, id: &str) -> ContextKey {
        let created = self.store.create(&self.tenant, new(id)).await.unwrap();
        assert!(created.is_new);
        self.key(id)
    }

    async fn append(&self, key: &ContextKey, bodies: &[&str]) -> Appended {
        self.store.append(key, append(bodies)).await.unwrap()
    }

    async fn head(&self, key: &ContextKey) -> Context {
        self.store.head(key).await.unwrap()
    }

    async fn all(&self, key: &ContextKey) -> Vec<(Seq, String)> {
        let page = self.store.items(key, everything()).await.unwrap();
        assert!(!page.more);
        page.items
            .into_iter()
            .map(|item| (item.seq, item.body.to_string()))
            .collect()
    }

    async fn found(&self, query: &str, context: Option<&str>) -> Vec<(String, Seq)> {
        self.store.settle().await.unwrap();
        let query = SearchQuery {
            context: context.map(|id| ContextId::parse(id).unwrap()),
            ..searching(query)
        };
        let mut hits: Vec<_> = self
            .store
            .search(&self.tenant, query)
            .await
            .unwrap()
            .hits
            .into_iter()
            .map(|hit| (hit.context.to_string(), hit.item.seq))
            .collect();
        hits.sort();
        hits
    }

    async fn purge_all(&self, retention: Retention) -> u64 {
        let mut items = 0;
        for _ in 0..1000 {
            let purged = self.store.purge(retention).await.unwrap();
            items += purged.items;
            if !purged.more {
                return items;
            }
        }
        panic!("the purge does not end");
    }
}

fn new(id: &str) -> NewContext {
    NewContext {
        tokenizer: Some(Tokenizer::Estimate),
        ..NewContext::of_agent("planner")
    }
    .with_id(ContextId::parse(id).unwrap())
}

fn said(text: &str) -> String {
    serde_json::json!({"role": "user", "content": text}).to_string()
}

fn items(bodies: &[&str]) -> Arc<[NewItem]> {
    bodies
        .iter()
        .map(|body| {
            let mut item = NewItem::parse(body, 1 << 20).unwrap();
            item.count(Tokenizer::Estimate);
            item
        })
        .collect()
}

fn append(bodies: &[&str]) -> Append {
    Append {
        items: items(bodies),
        tokenizer: Tokenizer::Estimate,
        expected: None,
        idempotency: None,
    }
}

fn keyed(bodies: &[&str], key: &str, fingerprint: u8) -> Append {
    let idempotency = Idempotency {
        key: IdempotencyKey::parse(key).unwrap(),
        fingerprint: [fingerprint; 32],
    };
    Append {
        idempotency: Some(idempotency),
        ..append(bodies)
    }
}

fn everything() -> ItemQuery {
    ItemQuery {
        after: 0,
        before: Seq::MAX,
        order: Order::Ascending,
        limit: 10_000,
        bytes_max: u64::MAX,
    }
}

fn searching(query: &str) -> SearchQuery {
    SearchQuery {
        query: Query::parse(query).unwrap(),
        context: None,
        role: None,
        since: None,
        until: None,
        offset: 0,
        limit: 100,
    }
}

fn retention_of(clock: &ManualClock) -> Retention {
    Retention {
        tombstones_before: clock.now().saturating_sub(Duration::from_hours(1)),
        keys_before: clock.now().saturating_sub(Duration::from_hours(1)),
        batch: 7,
    }
}

fn seqs(page: &ItemPage) -> Vec<Seq> {
    page.items.iter().map(|item| item.seq).collect()
}

fn once(appended: Appended) -> Appended {
    Appended {
        replayed: false,
        at: None,
        ..appended
    }
}

fn whole() -> TailQuery {
    TailQuery {
        max_tokens: Some(u64::MAX),
        reserve: 0,
        items_max: 10_000,
        bytes_max: u64::MAX,
    }
}

/// The fake drops items at once; the others count what a purge removes.
fn expected_purge(t: &Subject, items: u64) -> u64 {
    if format!("{:?}", t.store).contains("FakeStore") {
        0
    } else {
        items
    }
}
