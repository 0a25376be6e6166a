//! Retention: sweeps what expired and what nothing reaches any more, in small batches, so that requests pass
//! in between.

use std::sync::Arc;

use contextkeep_core::settings::RetentionSettings;
use contextkeep_core::store::{Purged, Retention};
use contextkeep_core::{Clock, ContextStore, Result};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Sweeps every `sweep_interval` until the server stops.
pub async fn run(
    store: Arc<dyn ContextStore>,
    clock: Arc<dyn Clock>,
    settings: RetentionSettings,
    draining: CancellationToken,
) {
    let mut ticks = tokio::time::interval(settings.sweep_interval.max(std::time::Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = draining.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match sweep(store.as_ref(), clock.as_ref(), &settings, &draining).await {
            Ok(purged) if purged == Purged::default() => {}
            Ok(purged) => tracing::info!(
                expired = purged.expired,
                items = purged.items,
                tombstones = purged.tombstones,
                keys = purged.keys,
                "swept"
            ),
            Err(error) => tracing::warn!(%error, "sweeping; the next sweep takes it up again"),
        }
    }
}

async fn sweep(
    store: &dyn ContextStore,
    clock: &dyn Clock,
    settings: &RetentionSettings,
    draining: &CancellationToken,
) -> Result<Purged> {
    let retention = Retention {
        tombstones_before: clock.now().saturating_sub(settings.tombstones),
        keys_before: clock.now().saturating_sub(settings.idempotency_keys),
        batch: settings.batch,
    };
    let mut all = Purged::default();
    loop {
        let purged = store.purge(retention).await?;
        all.expired += purged.expired;
        all.items += purged.items;
        all.tombstones += purged.tombstones;
        all.keys += purged.keys;
        if !purged.more || draining.is_cancelled() {
            return Ok(all);
        }
        tokio::task::yield_now().await;
    }
}
