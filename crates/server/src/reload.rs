//! SIGHUP: reads the configuration again and takes over what may change while the server runs, which is the rollout.

use std::sync::Arc;

use crate::caching::Caching;
use crate::config::{self, AppConfig, Sources};

/// Reloads at each SIGHUP, until it is dropped.
pub(crate) async fn run(sources: Sources, running: AppConfig, caching: Option<Arc<Caching>>) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => {
                tracing::warn!(%error, "SIGHUP is not handled");
                return;
            }
        };
        while hangups.recv().await.is_some() {
            reload(sources.clone(), &running, caching.as_deref());
        }
    }
    #[cfg(not(unix))]
    drop((sources, running, caching));
}

fn reload(sources: Sources, running: &AppConfig, caching: Option<&Caching>) {
    let config = match config::load(sources) {
        Ok(loaded) => loaded.value,
        Err(errors) => {
            tracing::error!(%errors, "the configuration was not reloaded; the old one stays");
            return;
        }
    };
    let rollout = config.context_manager.rollout;
    if let Some(caching) = caching {
        caching.rollout.set(rollout);
    } else {
        tracing::warn!("there is no cache, so that the rollout has nothing to bring into use");
    }
    if !same_but_for_rollout(&config, running) {
        tracing::warn!(
            "something else than context_manager.rollout was changed; it takes effect at the next start"
        );
    }
    tracing::info!("the configuration was reloaded");
}

/// Secrets do not show here: a changed password alone goes unmentioned.
fn same_but_for_rollout(new: &AppConfig, running: &AppConfig) -> bool {
    let mut new = new.clone();
    new.context_manager.rollout = running.context_manager.rollout;
    match (serde_json::to_value(&new), serde_json::to_value(running)) {
        (Ok(new), Ok(running)) => new == running,
        _ => false,
    }
}
