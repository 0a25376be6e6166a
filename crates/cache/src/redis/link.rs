//! Connections: shared multiplexed ones for small things, pooled ones for large bodies, so that a small answer never
//! waits behind a large one. The stock managers PING at each checkout, a cluster's at every primary, and have no
//! timeouts; these have none of the former and all of the latter.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Pool, QueueMode, RecycleError, RecycleResult, Timeouts};
use deadpool_redis::redis::aio::{
    AsyncPushSender, ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection,
};
use deadpool_redis::redis::cluster::{ClusterClient, ClusterClientBuilder};
use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    ProtocolVersion, RedisFuture, RedisResult, TlsCertificates, Value,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};

use super::cluster::Cluster;
use super::lanes::Lanes;
use crate::error::RemoteError;
use crate::settings::RedisSettings;

/// The first and the longest pause between two attempts to reach a cluster for the first time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

pub(super) fn unavailable(error: impl std::fmt::Display) -> RemoteError {
    let mut why = error.to_string();
    // What rustls says when it does not trust the other side; how to get over it is ours to say.
    if why.contains("invalid peer certificate") {
        why.push_str(": name the authority that signs the server's certificate in ca_file");
    }
    RemoteError::Unavailable(why)
}

/// A shared connection, whatever it leads to.
#[derive(Clone)]
pub(super) enum Link {
    /// Reconnects by itself.
    Managed(Box<ConnectionManager>),
    /// One of the pool's, to a single node.
    Plain(MultiplexedConnection),
    /// Follows the cluster's topology by itself.
    Cluster(Cluster),
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Managed(link) => link.req_packed_command(cmd),
            Self::Plain(link) => link.req_packed_command(cmd),
            Self::Cluster(link) => link.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Managed(link) => link.req_packed_commands(pipeline, offset, count),
            Self::Plain(link) => link.req_packed_commands(pipeline, offset, count),
            Self::Cluster(link) => link.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// How to connect.
#[derive(Clone, Debug)]
pub(super) enum Server {
    Single(Box<Client>),
    Cluster(Vec<ConnectionInfo>),
}

/// What a server wants to hear first.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) db: usize,
}

/// What every connection is made with.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) server: Server,
    /// What may sign the server's certificate, if not the usual ones.
    authority: Option<TlsCertificates>,
    settings: Arc<RedisSettings>,
}

impl Dial {
    /// Understands the endpoints. Nothing is connected yet.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RemoteError> {
        if settings
            .endpoints
            .iter()
            .any(|endpoint| endpoint.starts_with("rediss://"))
        {
            // An error says that the process has chosen a provider already, which is as good.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let endpoints: Vec<ConnectionInfo> = settings
            .endpoints
            .iter()
            .map(|endpoint| info(endpoint, settings))
            .collect::<RedisResult<_>>()
            .map_err(unavailable)?;
        let authority = settings.ca_file.as_deref().map(authority).transpose()?;
        let server = match (settings.is_cluster(), endpoints.first()) {
            (false, Some(first)) => {
                let client = match &authority {
                    Some(authority) => Client::build_with_tls(first.clone(), authority.clone()),
                    None => Client::open(first.clone()),
                };
                Server::Single(Box::new(client.map_err(unavailable)?))
            }
            _ => Server::Cluster(endpoints),
        };
        Ok(Self {
            server,
            authority,
            settings: Arc::new(settings.clone()),
        })
    }

    /// The single node's address and what it wants to hear first; nothing for a cluster.
    pub(super) fn login(&self) -> Option<(&ConnectionAddr, Login)> {
        let Server::Single(client) = &self.server else {
            return None;
        };
        let info = client.get_connection_info();
        let redis = info.redis_settings();
        let login = Login {
            user: redis.username().map(str::to_owned),
            password: redis.password().map(|word| SecretString::from(word.to_owned())),
            db: usize::try_from(redis.db()).ok()?,
        };
        Some((info.addr(), login))
    }

    pub(super) fn dial_timeout(&self) -> Duration {
        self.settings.dial_timeout
    }

    pub(super) fn max_conn_age(&self) -> Duration {
        self.settings.max_conn_age
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.server, Server::Cluster(_))
    }

    /// How long an answer may take: one connection carries reads and writes alike.
    pub(super) fn answer_within(&self) -> Duration {
        self.settings.read_timeout.max(self.settings.write_timeout)
    }

    fn cluster(&self, endpoints: &[ConnectionInfo], push: Option<Push>) -> RedisResult<ClusterClient> {
        let mut builder = ClusterClientBuilder::new(endpoints.iter().cloned())
            .retries(self.settings.max_retries.max(1))
            .min_retry_wait(8)
            .max_retry_wait(256)
            .connection_timeout(self.settings.dial_timeout)
            .response_timeout(self.answer_within())
            .overall_response_timeout(Some(self.answer_within() * 2))
            .use_protocol(ProtocolVersion::RESP3)
            .tcp_settings(tcp(&self.settings));
        if let Some(password) = &self.settings.password {
            builder = builder.password(password.expose_secret());
        }
        if let Some(user) = endpoints
            .first()
            .and_then(|info| info.redis_settings().username())
        {
            builder = builder.username(user);
        }
        if let Some(authority) = &self.authority {
            builder = builder.certs(authority.clone());
        }
        if let Some(push) = push {
            builder = builder.push_sender(push);
        }
        builder.build()
    }

    fn manager(&self, client: &Client, push: Option<Push>) -> RedisResult<ConnectionManager> {
        let mut config = ConnectionManagerConfig::new()
            .set_number_of_retries(usize::try_from(self.settings.max_retries).unwrap_or(usize::MAX))
            .set_min_delay(Duration::from_millis(8))
            .set_max_delay(Duration::from_millis(256))
            .set_connection_timeout(Some(self.settings.dial_timeout))
            // A timer a command: `Inner::within` has one anyway. Nothing is around what a listening connection sends.
            .set_response_timeout(push.is_some().then(|| self.answer_within()))
            .set_pipeline_buffer_size(1024);
        if let Some(push) = push {
            config = config.set_push_sender(push).set_automatic_resubscription();
        }
        ConnectionManager::new_lazy_with_config(client.clone(), config)
    }

    /// A shared connection. One to a single node is made when it is first used; one to a cluster has to be made now.
    pub(super) async fn shared(&self, push: Option<Push>) -> RedisResult<Link> {
        match &self.server {
            Server::Single(client) => Ok(Link::Managed(Box::new(self.manager(client, push)?))),
            Server::Cluster(endpoints) => {
                let client = self.cluster(endpoints, push)?;
                Ok(Link::Cluster(Cluster::new(client.get_async_connection().await?)))
            }
        }
    }

    async fn exclusive(&self) -> RedisResult<Link> {
        match &self.server {
            Server::Single(client) => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(self.settings.dial_timeout))
                    // As of the shared one.
                    .set_response_timeout(None);
                let link = client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?;
                Ok(Link::Plain(link))
            }
            Server::Cluster(_) => self.shared(None).await,
        }
    }
}

/// The file is read here and never again; whether it holds certificates is known now and not at the first connection.
fn authority(file: &Path) -> Result<TlsCertificates, RemoteError> {
    let refused = |why: &dyn std::fmt::Display| unavailable(format!("ca_file {}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| refused(&error))?;
    let mut certificates = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refused(&error))?;
        let added = rustls::RootCertStore::empty().add(certificate);
        added.map_err(|error| refused(&error))?;
        certificates += 1;
    }
    if certificates == 0 {
        return Err(refused(&"it has no certificate"));
    }
    Ok(TlsCertificates {
        client_tls: None,
        root_cert: Some(pem),
    })
}

fn tcp(settings: &RedisSettings) -> TcpSettings {
    // Unless told, the library leaves Nagle's algorithm on, which doubles the time of a large SET.
    let tcp = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(settings.write_timeout);
    #[cfg(not(target_os = "linux"))]
    let _ = settings;
    tcp
}

fn info(endpoint: &str, settings: &RedisSettings) -> RedisResult<ConnectionInfo> {
    let url = if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("redis://{endpoint}")
    };
    let info = url.into_connection_info()?;
    let mut redis = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3)
        .set_db(i64::from(settings.db));
    if let Some(password) = &settings.password {
        redis = redis.set_password(password.expose_secret());
    }
    Ok(info.set_redis_settings(redis).set_tcp_settings(tcp(settings)))
}

/// What a listening connection does with what is pushed to it.
#[derive(Clone)]
pub(super) struct Push(pub(super) Arc<dyn Fn(deadpool_redis::redis::PushInfo) + Send + Sync>);

impl AsyncPushSender for Push {
    fn send(
        &self,
        info: deadpool_redis::redis::PushInfo,
    ) -> Result<(), deadpool_redis::redis::aio::SendError> {
        (self.0)(info);
        Ok(())
    }
}

/// A shared connection that is made in the background, however long that takes; until then, why it is not there. One to a
/// cluster that has fallen silent is replaced.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Result<Link, RemoteError>>>);

impl Shared {
    pub(super) fn connect(dial: &Dial, tasks: &mut Vec<tokio::task::JoinHandle<()>>) -> Self {
        let shared = Self(Arc::new(Mutex::new(Err(unavailable("not connected yet")))));
        let (place, dial) = (shared.clone(), dial.clone());
        tasks.push(tokio::spawn(async move {
            let mut link = connected(&dial, None, |why| place.set(Err(why))).await;
            place.set(Ok(link.clone()));
            // The others see to themselves.
            while let Link::Cluster(cluster) = link {
                link = cluster.replaced(connected(&dial, None, |_| ())).await;
                place.set(Ok(link.clone()));
            }
        }));
        shared
    }

    fn set(&self, link: Result<Link, RemoteError>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    pub(super) fn link(&self) -> Result<Link, RemoteError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Tries until it is connected, and tells each failure.
pub(super) async fn connected(dial: &Dial, push: Option<Push>, failed: impl Fn(RemoteError)) -> Link {
    let mut pause = FIRST_PAUSE;
    loop {
        // The library's own limit does not cover all of it: see redis-rs 1953.
        let limit = dial.settings.dial_timeout;
        match tokio::time::timeout(limit, dial.shared(push.clone())).await {
            Ok(Ok(link)) => return link,
            Ok(Err(error)) => failed(unavailable(error)),
            Err(_) => failed(RemoteError::TimedOut),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Makes the pool's connections.
#[derive(Debug)]
pub(super) struct Dialler {
    dial: Dial,
    max_age: Duration,
}

impl Manager for Dialler {
    type Type = Link;
    type Error = RemoteError;

    async fn create(&self) -> Result<Link, RemoteError> {
        self.dial.exclusive().await.map_err(unavailable)
    }

    /// Asks the network nothing. A connection whose last use failed is not given back, so what is here worked.
    async fn recycle(&self, _: &mut Link, metrics: &Metrics) -> RecycleResult<RemoteError> {
        if !self.max_age.is_zero() && metrics.age() > self.max_age {
            return Err(RecycleError::message("it is too old"));
        }
        Ok(())
    }
}

/// The connections for large bodies.
pub(super) fn pool(
    dial: &Dial,
    lanes: Lanes,
    tasks: &mut Vec<tokio::task::JoinHandle<()>>,
) -> Result<Pool<Dialler>, RemoteError> {
    let settings = &dial.settings;
    let most = usize::try_from(settings.pool_size).unwrap_or(usize::MAX);
    let dialler = Dialler {
        dial: dial.clone(),
        max_age: settings.max_conn_age,
    };
    let pool: Pool<Dialler> = Pool::builder(dialler)
        .max_size(most)
        .queue_mode(QueueMode::Lifo)
        .runtime(deadpool::Runtime::Tokio1)
        .timeouts(Timeouts {
            wait: Some(settings.pool_timeout),
            create: Some(settings.dial_timeout),
            recycle: None,
        })
        .build()
        .map_err(unavailable)?;
    let idle_for = settings.idle_timeout;
    let least = usize::try_from(settings.min_idle_conns).unwrap_or(0).min(most);
    tasks.push(tokio::spawn(keep(pool.clone(), lanes, idle_for, least)));
    Ok(pool)
}

/// Closes what nobody used for `idle_for`, and keeps `least` of the pool's that were ever needed.
async fn keep(pool: Pool<Dialler>, lanes: Lanes, idle_for: Duration, least: usize) {
    if idle_for.is_zero() {
        return;
    }
    let mut interval = tokio::time::interval((idle_for / 4).max(Duration::from_millis(100)));
    loop {
        interval.tick().await;
        let mut surplus = pool.status().available.saturating_sub(least);
        pool.retain(|_, metrics| {
            let idle = metrics.last_used() > idle_for && surplus > 0;
            surplus -= usize::from(idle);
            !idle
        });
        lanes.close_idle(idle_for);
    }
}
