//! The composition root: the one file that names concrete adapters and says what is wired to what.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use contextkeep_config::Loaded;
use contextkeep_core::embedded::EmbeddedStore;
use contextkeep_core::{ContextManager, ContextManagerFactory, ContextStore, SystemClock};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth::Gatekeeper;
use crate::config::AppConfig;
use crate::rest::{self, Rest};
use crate::{listener, mcp, shutdown, sweeper};

/// Longest wait of a command for the search index. What is not indexed by then, the next start takes up.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// The parts that every command works on.
#[derive(Debug)]
pub struct Parts {
    /// The store; closed by [`Parts::close`].
    pub embedded: Arc<EmbeddedStore>,
    /// Every operation on contexts.
    pub manager: Arc<dyn ContextManager>,
}

impl Parts {
    /// Opens the store and builds the manager.
    ///
    /// # Errors
    /// What is wrong with the store, and what to do.
    pub fn open(config: &AppConfig) -> anyhow::Result<Self> {
        let settings = &config.context_manager;
        if settings.database.dsn.is_some() {
            bail!(
                "context_manager.database.dsn is set, but this version has no Postgres store yet; \
                 take it away to use the embedded store in {}",
                settings.embedded.path.display()
            );
        }
        let embedded = Arc::new(
            EmbeddedStore::open(&settings.embedded, Arc::new(SystemClock))
                .context("the embedded store does not open")?,
        );
        let store: Arc<dyn ContextStore> = embedded.clone();
        let (manager, _) = ContextManagerFactory::new(store, settings.limits.clone()).build();
        Ok(Self { embedded, manager })
    }

    /// Waits until everything is indexed: commands search right away, and a server that runs beside them does not
    /// learn of what they appended. On a full disk that may never be, so the wait has an end.
    pub async fn settle(&self) {
        match tokio::time::timeout(SETTLE_MAX, self.embedded.settle()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the search index does not catch up"),
            Err(_) => tracing::warn!("the search index does not catch up; some items are not found yet"),
        }
    }

    /// Finishes what was accepted and closes the file.
    pub async fn close(self) {
        let embedded = self.embedded;
        if let Err(error) = tokio::task::spawn_blocking(move || embedded.close()).await {
            tracing::error!(%error, "closing the store");
        }
    }
}

/// `contextkeep serve`: runs until a signal says stop.
///
/// # Errors
/// What kept it from starting: the store, the port, the credentials.
pub async fn serve(loaded: Loaded<AppConfig>) -> anyhow::Result<()> {
    for note in crate::config::without_effect(&loaded) {
        tracing::warn!("{note}");
    }
    let config = loaded.value;
    let parts = Parts::open(&config)?;
    let gatekeeper = Gatekeeper::new(&config.auth)?;
    let listener = listen(&config).await?;
    let address = listener.local_addr()?;
    let draining = CancellationToken::new();
    tracing::info!(
        %address,
        data = %config.context_manager.embedded.path.display(),
        credentials = config.auth.keys.len(),
        "listening"
    );

    let sweeper = tokio::spawn(sweeper::run(
        parts.embedded.clone(),
        Arc::new(SystemClock),
        config.context_manager.retention.clone(),
        draining.clone(),
    ));
    let signal = tokio::spawn(shutdown::wait(draining.clone()));
    let router = router(&config, &parts, gatekeeper, draining.clone());
    listener::serve(listener, router, &config.server, draining.clone()).await;

    draining.cancel();
    signal.abort();
    if let Err(error) = sweeper.await {
        tracing::error!(%error, "the sweeper failed");
    }
    parts.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Both faces behind one gate.
pub fn router(
    config: &AppConfig,
    parts: &Parts,
    gatekeeper: Gatekeeper,
    draining: CancellationToken,
) -> Router {
    let rest = Rest {
        manager: parts.manager.clone(),
        limits: Arc::new(config.context_manager.limits.clone()),
        settings: Arc::new(config.server.clone()),
        draining,
    };
    // Requests in flight end with the connections that carry them, so nothing has to break them off.
    let mcp = mcp::service(
        parts.manager.clone(),
        config.context_manager.limits.clone(),
        &config.mcp,
        CancellationToken::new(),
    );
    rest::router(&rest, gatekeeper, Router::new().nest("/mcp", mcp))
}

async fn listen(config: &AppConfig) -> anyhow::Result<TcpListener> {
    let bind = config.server.bind;
    TcpListener::bind(bind).await.with_context(|| {
        format!("cannot listen on {bind} (server.bind); another process may have the port: choose another with --bind")
    })
}
