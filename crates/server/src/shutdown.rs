//! The signals that mean stop.

use tokio_util::sync::CancellationToken;

/// Cancels `draining` at the first SIGTERM or Ctrl-C.
pub async fn wait(draining: CancellationToken) {
    signal().await;
    tracing::info!("stopping: no new connections, requests may end");
    draining.cancel();
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM is not handled");
            drop(tokio::signal::ctrl_c().await);
        }
    }
}

#[cfg(not(unix))]
async fn signal() {
    drop(tokio::signal::ctrl_c().await);
}
