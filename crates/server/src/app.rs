//! The composition root: the one file that names concrete adapters and says what is wired to what.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use contextkeep_config::Loaded;
use contextkeep_core::embedded::EmbeddedStore;
use contextkeep_core::postgres::PgContextStore;
use contextkeep_core::postgres::insight::Insight;
use contextkeep_core::settings::DatabaseSettings;
use contextkeep_core::{ContextManager, ContextManagerFactory, ContextStore, Error, SystemClock, Tokenizer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth::Gatekeeper;
use crate::caching::{self, Caching};
use crate::config::{AppConfig, Sources};
use crate::rest::{self, Front, Reach};
use crate::semantic::SemanticSearch;
use crate::summaries::{Summaries, SummariesSettings};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::slow::SlowRequests;
use crate::telemetry::traces::Traces;
use crate::{listener, mcp, reload, shutdown, sweeper, telemetry};

/// Longest wait of a command for the search index. What is not indexed by then, the next start takes up.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// How long a summary that is being made may go on after the last request.
const SUMMARY_GRACE: Duration = Duration::from_secs(2);

/// The store that the configuration asks for.
#[derive(Clone, Debug)]
pub enum Storage {
    /// One file.
    Embedded(Arc<EmbeddedStore>),
    /// A server.
    Postgres(Arc<PgContextStore>),
}

impl Storage {
    /// Opens the file, or makes ready to connect to the server.
    ///
    /// # Errors
    /// What is wrong with the file or the settings, and what to do.
    pub fn new(config: &AppConfig) -> anyhow::Result<Self> {
        let settings = &config.context_manager;
        for (name, file) in &settings.tokenizers {
            // A second store in the process, as for an adoption, finds them there.
            if Tokenizer::parse(name).is_none() {
                Tokenizer::load(name, file).context("context_manager.tokenizers")?;
                tracing::info!(name, file = %file.display(), "a tokenizer was loaded");
            }
        }
        let clock = Arc::new(SystemClock);
        if settings.database.dsn.is_some() {
            let store = PgContextStore::new(&settings.postgres(), clock).context("the Postgres store")?;
            return Ok(Self::Postgres(Arc::new(store)));
        }
        let store =
            EmbeddedStore::open(&settings.embedded, clock).context("the embedded store does not open")?;
        Ok(Self::Embedded(Arc::new(store)))
    }

    /// Makes sure that it can be used now.
    ///
    /// # Errors
    /// What keeps the database from being used, and what to do.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Postgres(store) => store.prepare().await.context("the Postgres store"),
        }
    }

    /// As [`Storage::prepare`]; a database that only is not there yet may come later, unless the settings say that the
    /// program ends then. Until it comes, requests are answered 503.
    async fn prepare_or_wait(&self, settings: &DatabaseSettings) -> anyhow::Result<()> {
        let Self::Postgres(store) = self else {
            return Ok(());
        };
        match store.prepare().await {
            Ok(()) => Ok(()),
            Err(error @ Error::Unavailable { .. }) if !settings.require_at_start => {
                tracing::warn!(%error, "the database is not ready; requests are answered 503 until it is");
                store.prepare_in_background();
                Ok(())
            }
            Err(error) => Err(error).context("the Postgres store"),
        }
    }

    /// The port that everything else uses.
    pub fn store(&self) -> Arc<dyn ContextStore> {
        match self {
            Self::Embedded(store) => store.clone(),
            Self::Postgres(store) => store.clone(),
        }
    }

    /// What it knows of its servers and statements; the embedded store has none.
    pub fn insight(&self) -> Option<Insight> {
        match self {
            Self::Embedded(_) => None,
            Self::Postgres(store) => Some(store.insight()),
        }
    }

    async fn close(self) {
        match self {
            Self::Postgres(store) => store.close().await,
            Self::Embedded(store) => {
                if let Err(error) = tokio::task::spawn_blocking(move || store.close()).await {
                    tracing::error!(%error, "closing the store");
                }
            }
        }
    }
}

/// The parts that every command works on.
#[derive(Debug)]
pub struct Parts {
    /// The store; closed by [`Parts::close`].
    pub storage: Storage,
    /// Every operation on contexts.
    pub manager: Arc<dyn ContextManager>,
    /// The cache in front of the store, of a server that has one.
    pub caching: Option<Arc<Caching>>,
    /// What makes summaries in the background.
    pub summaries: Summaries,
    /// What answers searches by meaning. Embeds nothing before it is started.
    pub semantic: SemanticSearch,
}

impl Parts {
    /// Opens the store and builds the manager. Has to be called on a runtime.
    ///
    /// # Errors
    /// What is wrong with the store, and what to do.
    pub fn open(config: &AppConfig) -> anyhow::Result<Self> {
        let storage = Storage::new(config)?;
        // It would have ended before a model has answered.
        let summaries = Summaries::new(&SummariesSettings::default(), storage.store())?;
        Self::with(storage, config, None, summaries)
    }

    /// As [`Parts::open`], with the cache that the settings describe: for a server, over HTTP or stdio. A single command
    /// has no use for one.
    ///
    /// # Errors
    /// As there, and what is wrong with the cache's settings.
    pub fn open_cached(config: &AppConfig) -> anyhow::Result<Self> {
        let storage = Storage::new(config)?;
        let caching = Caching::new(&config.context_manager, &storage, Arc::new(SystemClock))?;
        let summaries = Summaries::new(&config.context_manager.summaries, storage.store())?;
        Self::with(storage, config, caching.map(Arc::new), summaries)
    }

    fn with(
        storage: Storage,
        config: &AppConfig,
        caching: Option<Arc<Caching>>,
        summaries: Summaries,
    ) -> anyhow::Result<Self> {
        let semantic = SemanticSearch::new(&config.context_manager.semantic, storage.store())?;
        let limits = config.context_manager.limits.clone();
        let mut factory =
            ContextManagerFactory::new(storage.store(), limits).summaries(summaries.background.clone());
        if let Some(caching) = &caching {
            factory = factory.cached(caching.store.clone(), caching.rollout.clone());
        }
        if let Some(semantic) = semantic.semantic() {
            factory = factory.semantic(semantic.clone());
        }
        let (manager, _) = factory.build();
        Ok(Self {
            storage,
            manager,
            caching,
            summaries,
            semantic,
        })
    }

    /// Waits until everything is indexed: commands search right away, and a server that runs beside them does not
    /// learn of what they appended. On a full disk that may never be, so the wait has an end.
    pub async fn settle(&self) {
        match tokio::time::timeout(SETTLE_MAX, self.storage.store().settle()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the search index does not catch up"),
            Err(_) => tracing::warn!("the search index does not catch up; some items are not found yet"),
        }
    }

    /// Finishes what was accepted and closes the store.
    pub async fn close(self) {
        self.summaries.background.close(SUMMARY_GRACE).await;
        self.semantic.close().await;
        self.storage.close().await;
    }
}

/// `contextkeep serve`: runs until a signal says stop.
///
/// # Errors
/// What kept it from starting: the store, the port, the credentials.
pub async fn serve(loaded: Loaded<AppConfig>, sources: Sources) -> anyhow::Result<()> {
    for note in crate::config::without_effect(&loaded) {
        tracing::warn!("{note}");
    }
    let config = loaded.value;
    let parts = Parts::open_cached(&config)?;
    parts
        .storage
        .prepare_or_wait(&config.context_manager.database)
        .await?;
    let gatekeeper = Gatekeeper::new(&config.auth)?;
    let listener = listen(&config).await?;
    let address = listener.local_addr()?;
    let draining = CancellationToken::new();
    tracing::info!(
        %address,
        data = %data(&config),
        credentials = config.auth.keys.len(),
        "listening"
    );

    parts.semantic.start();
    let sweeper = tokio::spawn(sweeper::run(
        parts.storage.store(),
        Arc::new(SystemClock),
        config.context_manager.retention.clone(),
        draining.clone(),
    ));
    let signal = tokio::spawn(shutdown::wait(draining.clone()));
    let warmer = parts.caching.clone().map(|caching| {
        let settings = config.context_manager.cache.warming.clone();
        tokio::spawn(caching::keep_warm(caching, settings, draining.clone()))
    });
    let reloader = tokio::spawn(reload::run(sources, config.clone(), parts.caching.clone()));
    let traces = traces(&config)?;
    let telling = Telling {
        metrics: metrics(&config, &parts, traces.clone(), &draining)?,
        traces: traces.clone(),
    };
    let front = front(&config, &parts, gatekeeper, telling, draining.clone());
    listener::serve(listener, front, &config.server, draining.clone()).await;

    draining.cancel();
    signal.abort();
    reloader.abort();
    if let Some(warmer) = warmer
        && let Err(error) = warmer.await
    {
        tracing::error!(%error, "warming failed");
    }
    if let Err(error) = sweeper.await {
        tracing::error!(%error, "the sweeper failed");
    }
    tokio::join!(parts.close(), async {
        if let Some(traces) = traces {
            traces.close().await;
        }
    });
    tracing::info!("stopped");
    Ok(())
}

/// Begins to trace requests, if that is wanted.
pub(crate) fn traces(config: &AppConfig) -> anyhow::Result<Option<Arc<Traces>>> {
    Traces::start(&config.telemetry.traces, Arc::new(SystemClock))
}

/// What the server tells of its requests.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    /// The figures for Prometheus, if they are kept.
    pub metrics: Option<Arc<Metrics>>,
    /// What traces requests, if any are.
    pub traces: Option<Arc<Traces>>,
}

/// Where the data is, for the log. Not the DSN: it may hold a password.
pub(crate) fn data(config: &AppConfig) -> String {
    match config.context_manager.database.dsn {
        Some(_) => "postgres".to_owned(),
        None => config.context_manager.embedded.path.display().to_string(),
    }
}

/// Begins to keep figures, if that is wanted.
fn metrics(
    config: &AppConfig,
    parts: &Parts,
    traces: Option<Arc<Traces>>,
    draining: &CancellationToken,
) -> anyhow::Result<Option<Arc<Metrics>>> {
    if !config.context_manager.monitoring.metrics_enabled {
        return Ok(None);
    }
    let metrics = Arc::new(Metrics::install(
        parts.caching.clone(),
        parts.summaries.clone(),
        parts.semantic.clone(),
        traces,
    )?);
    let storage = parts.storage.clone();
    tokio::spawn(telemetry::metrics::keep(
        metrics.clone(),
        move || storage.insight(),
        draining.clone(),
    ));
    Ok(Some(metrics))
}

/// Both faces behind one gate.
pub fn front(
    config: &AppConfig,
    parts: &Parts,
    gatekeeper: Gatekeeper,
    telling: Telling,
    draining: CancellationToken,
) -> Front {
    let rest = Reach {
        manager: parts.manager.clone(),
        limits: Arc::new(config.context_manager.limits.clone()),
        settings: Arc::new(config.server.clone()),
        storage: parts.storage.clone(),
        caching: parts.caching.clone(),
        metrics: telling.metrics,
        traces: telling.traces,
        slow: SlowRequests::from(config.context_manager.monitoring.slow_request_threshold),
        draining,
    };
    // Requests in flight end with the connections that carry them, so nothing has to break them off.
    let mcp_service = mcp::service(
        parts.manager.clone(),
        config.context_manager.limits.clone(),
        &config.mcp,
        CancellationToken::new(),
    );
    rest::front(
        rest.into(),
        gatekeeper,
        Router::new().nest(mcp::PATH, mcp_service),
    )
}

async fn listen(config: &AppConfig) -> anyhow::Result<TcpListener> {
    let bind = config.server.bind;
    TcpListener::bind(bind).await.with_context(|| {
        format!("cannot listen on {bind} (server.bind); another process may have the port: choose another with --bind")
    })
}
