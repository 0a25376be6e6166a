//! Loading heads before anybody asks: at the start those that a snapshot names, then by interval those that are read
//! often or were read lately and are about to go. In small batches with pauses, behind readers' loads.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contextkeep_cache::settings::WarmingSettings;
use contextkeep_cache::{Key, Warmed, Warming, snapshot};
use tokio_util::sync::CancellationToken;

use super::Caching;

/// Most names in a snapshot.
const SNAPSHOT_MAX: usize = 10_000;

/// Keeps the cache warm until the server stops, and leaves a snapshot then.
pub(crate) async fn run(caching: Arc<Caching>, settings: WarmingSettings, draining: CancellationToken) {
    if !settings.enabled || !caching.levels.memory {
        return;
    }
    if let Some(path) = caching.snapshot.clone() {
        let names = restore(path).await;
        warm(&caching, names, "snapshot").await;
    }
    let every = settings.warmup_interval.max(std::time::Duration::from_secs(1));
    let mut rounds = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = draining.cancelled() => break,
            _ = rounds.tick() => {}
        }
        let cache = caching.store.cache();
        let mut names: Vec<Key> = cache.popular(settings.popular_contexts_count as usize);
        let known: HashSet<Key> = names.iter().cloned().collect();
        let recent = cache.recent(settings.recent_contexts_count as usize);
        names.extend(recent.into_iter().filter(|name| !known.contains(name)));
        warm(&caching, names, "round").await;
        save(&caching).await;
    }
    save(&caching).await;
}

async fn warm(caching: &Caching, names: Vec<Key>, what: &'static str) {
    let asked = names.len();
    if asked == 0 {
        return;
    }
    let warmed: Warmed = caching.store.warm(names, &Warming::default()).await;
    tracing::info!(
        what,
        asked,
        held = warmed.held,
        loaded = warmed.loaded,
        failed = warmed.failed,
        left = warmed.left,
        "warmed the cache"
    );
}

async fn restore(path: PathBuf) -> Vec<Key> {
    let read = tokio::task::spawn_blocking(move || match File::open(&path) {
        Ok(file) => {
            let restored = snapshot::read(BufReader::new(file), SNAPSHOT_MAX);
            if let Some(warning) = restored.warning {
                tracing::warn!(%warning, path = %path.display(), "the cache starts cold");
            }
            restored.keys
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the cache starts cold");
            Vec::new()
        }
    });
    read.await.unwrap_or_default()
}

async fn save(caching: &Caching) {
    let Some(path) = caching.snapshot.clone() else {
        return;
    };
    let cache = caching.store.cache().clone();
    let written = tokio::task::spawn_blocking(move || {
        write(&path, &cache).map_err(|error| format!("{}: {error}", path.display()))
    });
    if let Ok(Err(error)) = written.await {
        tracing::warn!(%error, "the names of cached contexts were not saved; the next start is colder");
    }
}

/// Beside the old one first: a snapshot is whole or not there.
fn write(path: &Path, cache: &contextkeep_cache::Cache) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let file = BufWriter::new(File::create(&new)?);
    snapshot::write(cache, file, SNAPSHOT_MAX)?;
    std::fs::rename(new, path)
}
