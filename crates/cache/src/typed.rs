//! Values instead of bytes.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::answer::{Answer, Kept, Origin, Read};
use crate::cache::Cache;
use crate::error::{Error, LoadError};
use crate::loader::Loader;
use crate::version::Version;
use crate::{Put, Receipt};

/// Turns values into bytes and back. Bytes that can't be decoded are an error of the read, not of the cache.
pub trait Codec<V>: Send + Sync + 'static {
    /// The bytes of a value.
    ///
    /// # Errors
    ///
    /// When it has none.
    fn encode(&self, value: &V) -> Result<Bytes, LoadError>;

    /// The value of some bytes.
    ///
    /// # Errors
    ///
    /// When they are not what [`encode`](Self::encode) makes.
    fn decode(&self, bytes: &Bytes) -> Result<V, LoadError>;
}

/// A [`Cache`] of values. An entry is decoded once in a process; a hit hands out the same `Arc`.
///
/// The first level weighs the bytes; decoded values come on top of `max_bytes`, unless the cache was told their
/// [size](crate::Builder::decoded_size).
pub struct Typed<V, C> {
    cache: Cache,
    codec: Arc<C>,
    value: PhantomData<fn() -> V>,
}

/// A value with its version, where it came from and how old it is.
#[derive(Debug)]
pub struct Found<V> {
    /// The value, or `None` if the key has none.
    pub value: Option<Arc<V>>,
    /// The version of the value, or of its absence.
    pub version: Version,
    /// Where it came from.
    pub origin: Origin,
    /// See [`Answer::age`].
    pub age: Duration,
    /// See [`Answer::is_aging`].
    pub is_aging: bool,
    /// See [`Answer::keep`].
    pub kept: Option<Kept>,
}

impl<V: Send + Sync + 'static, C: Codec<V>> Typed<V, C> {
    /// A view on a cache. Different types must not share keys.
    pub fn new(cache: Cache, codec: C) -> Self {
        Self {
            cache,
            codec: Arc::new(codec),
            value: PhantomData,
        }
    }

    /// The cache below.
    pub const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What the first level may answer at once.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`].
    pub fn get(&self, key: &str, read: &Read) -> Result<Option<Found<V>>, Error> {
        self.cache
            .get(key, read)
            .map(|answer| self.found(&answer))
            .transpose()
    }

    /// See [`Cache::get_or_load`].
    ///
    /// # Errors
    ///
    /// As there, and [`Error::Decode`].
    pub async fn get_or_load(
        &self,
        key: &str,
        read: &Read,
        loader: &Arc<dyn Loader>,
    ) -> Result<Found<V>, Error> {
        let answer = self.cache.get_or_load(key, read, loader).await?;
        self.found(&answer)
    }

    /// See [`Cache::get_many`].
    pub async fn get_many(
        &self,
        keys: &[&str],
        read: &Read,
        loader: &Arc<dyn Loader>,
    ) -> Vec<Result<Found<V>, Error>> {
        let answers = self.cache.get_many(keys, read, loader).await;
        answers.into_iter().map(|answer| self.found(&answer?)).collect()
    }

    /// See [`Cache::put`].
    ///
    /// # Errors
    ///
    /// As there, and [`Error::Encode`].
    pub async fn put(&self, key: &str, version: Version, value: &V) -> Result<Receipt, Error> {
        let bytes = self.codec.encode(value).map_err(Error::Encode)?;
        self.cache.put(Put::value(key, version, bytes)).await
    }

    fn found(&self, answer: &Answer) -> Result<Found<V>, Error> {
        let value = answer
            .entry
            .decoded(|bytes| self.codec.decode(bytes))
            .transpose()
            .map_err(Error::Decode)?;
        Ok(Found {
            value,
            version: answer.version(),
            origin: answer.origin(),
            age: answer.age(),
            is_aging: answer.is_aging(),
            kept: answer.keep(),
        })
    }
}

impl<V, C> fmt::Debug for Typed<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}
