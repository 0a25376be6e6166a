//! The port to the source: how what is missing gets loaded.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::answer::Origin;
use crate::entry::Body;
use crate::error::LoadError;
use crate::version::{Key, Mark, Version};

/// Which copy of the source may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Any that has come at least this far. Zero: any at all, if its version reaches the floor.
    AtLeast(Mark),
    /// The newest: a replica's word is not enough.
    Newest,
}

/// A key that is to be loaded.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The key.
    pub key: Key,
    /// The least version that will do.
    pub floor: Version,
    /// Which copy of the source may be read.
    pub source: Source,
}

/// What was loaded for one key.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub(crate) version: Version,
    pub(crate) body: Body,
    pub(crate) origin: Origin,
    pub(crate) ttl: Option<Duration>,
}

impl Loaded {
    /// A value.
    pub fn value(version: Version, value: impl Into<Bytes>) -> Self {
        Self {
            version,
            body: Body::Value(value.into()),
            origin: Origin::Primary,
            ttl: None,
        }
    }

    /// That there is none. The version is that of the delete; zero if the source keeps none, which is taken only from
    /// the source's newest state.
    pub const fn absent(version: Version) -> Self {
        Self {
            version,
            body: Body::Absent,
            origin: Origin::Primary,
            ttl: None,
        }
    }

    /// Says that a replica answered.
    #[must_use]
    pub const fn from_replica(mut self) -> Self {
        self.origin = Origin::Replica;
        self
    }

    /// Keeps this one for another time than the cache's.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// The future of a load.
pub type Loading = Pin<Box<dyn Future<Output = Result<Vec<Loaded>, LoadError>> + Send>>;

/// Loads what is not cached.
///
/// The future runs in a task of its own: a caller that goes away does not end it. It answers one [`Loaded`] for each
/// wanted key, in order.
pub trait Loader: Send + Sync {
    /// Loads all of these.
    fn load(&self, wanted: Vec<Wanted>) -> Loading;
}

/// A loader of one key, made of a closure.
pub fn one<F, Fut, E>(load: F) -> Arc<dyn Loader>
where
    F: Fn(Wanted) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Loaded, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Arc::new(One(load))
}

/// A loader of many keys at once, made of a closure.
pub fn many<F, Fut, E>(load: F) -> Arc<dyn Loader>
where
    F: Fn(Vec<Wanted>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<Loaded>, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Arc::new(Many(load))
}

struct One<F>(F);
struct Many<F>(F);

impl<F, Fut, E> Loader for One<F>
where
    F: Fn(Wanted) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Loaded, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn load(&self, wanted: Vec<Wanted>) -> Loading {
        let loads: Vec<Fut> = wanted.into_iter().map(&self.0).collect();
        Box::pin(async move {
            let mut loaded = Vec::with_capacity(loads.len());
            for load in loads {
                loaded.push(load.await.map_err(|error| LoadError::from(error.into()))?);
            }
            Ok(loaded)
        })
    }
}

impl<F, Fut, E> Loader for Many<F>
where
    F: Fn(Vec<Wanted>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Vec<Loaded>, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn load(&self, wanted: Vec<Wanted>) -> Loading {
        let load = (self.0)(wanted);
        Box::pin(async move { load.await.map_err(|error| LoadError::from(error.into())) })
    }
}

impl fmt::Debug for dyn Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loader")
    }
}
