//! Heads in the coherent cache: what is small and changes. Everything that has to agree between processes is here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use contextkeep_cache::loader::Loading;
use contextkeep_cache::{
    Cache, Codec, Found, Key, LoadError, Loaded, Loader, Put, Read, Receipt, Typed, Version as CacheVersion,
    Wanted,
};

use super::key::{self, Name};
use crate::error::{Error, Result};
use crate::head::record;
use crate::id::{ContextId, ContextKey, TenantId};
use crate::store::ContextStore;
use crate::{Context, Head, Version};

/// Heads as bytes, see [`record`].
#[derive(Debug)]
pub(super) struct HeadCodec;

impl Codec<Head> for HeadCodec {
    fn encode(&self, head: &Head) -> Result<Bytes, LoadError> {
        Ok(record::encode(head))
    }

    fn decode(&self, bytes: &Bytes) -> Result<Head, LoadError> {
        record::decode(bytes).map_err(|error| Arc::new(error) as LoadError)
    }
}

pub(super) struct Heads {
    typed: Typed<Head, HeadCodec>,
    loader: Arc<dyn Loader>,
    store: Arc<dyn ContextStore>,
}

impl Heads {
    pub(super) fn new(cache: Cache, store: Arc<dyn ContextStore>) -> Self {
        Self {
            typed: Typed::new(cache, HeadCodec),
            loader: Arc::new(HeadLoader(store.clone())),
            store,
        }
    }

    pub(super) fn cache(&self) -> &Cache {
        self.typed.cache()
    }

    pub(super) fn loader(&self) -> &Arc<dyn Loader> {
        &self.loader
    }

    fn name(&self, key: &ContextKey) -> Name {
        Name::new(self.store.history(), key)
    }

    /// What the process holds itself.
    pub(super) fn hit(&self, key: &ContextKey, read: &Read) -> Option<Found<Head>> {
        self.typed.get(self.name(key).as_str(), read).ok().flatten()
    }

    pub(super) async fn get(
        &self,
        key: &ContextKey,
        read: &Read,
    ) -> Result<Found<Head>, contextkeep_cache::Error> {
        let name = self.name(key);
        self.typed.get_or_load(name.as_str(), read, &self.loader).await
    }

    /// What the process holds, for going on from it.
    pub(super) fn peek(&self, key: &ContextKey) -> Option<Arc<Head>> {
        self.hit(key, &Read::new())?.value
    }

    /// For going on from, where the process holds nothing: what others have told, whatever its age.
    pub(super) async fn told(&self, key: &ContextKey) -> Option<Arc<Head>> {
        let (_, bytes) = self.cache().remote_value(self.name(key).as_str()).await?;
        record::decode(&bytes).ok().map(Arc::new)
    }

    /// The heads of these, none of them below its floor; `None` if one could not be had so.
    pub(super) async fn get_many(
        &self,
        keys: &[ContextKey],
        floors: &[Version],
        read: &Read,
    ) -> Option<Vec<Found<Head>>> {
        let names: Vec<Name> = keys.iter().map(|key| self.name(key)).collect();
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        let found = self.typed.get_many(&names, read, &self.loader).await;
        let found: Vec<Found<Head>> = found.into_iter().collect::<Result<_, _>>().ok()?;
        let reached = |(found, floor): (&Found<Head>, &Version)| found.version >= (*floor).into();
        found.iter().zip(floors).all(reached).then_some(found)
    }

    /// Tells what was committed. A cache that can't be told now is told later; that is not the writer's trouble.
    pub(super) async fn tell(&self, changes: Vec<(&ContextKey, Change)>) {
        let puts = changes
            .into_iter()
            .map(|(key, change)| self.put(key, change))
            .collect();
        for receipt in self.typed.cache().put_many(puts).await {
            match receipt {
                Ok(Receipt::Deferred(why)) => tracing::debug!(?why, "a change waits for the second level"),
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a change was not told to the cache"),
            }
        }
    }

    fn put(&self, key: &ContextKey, change: Change) -> Put {
        let name = self.name(key);
        let name = name.as_str();
        match change {
            Change::To(context) => Put::value(name, context.version.into(), record::encode(&context)),
            Change::Gone(version) => Put::tombstone(name, version.into()),
            Change::Unknown(version) => Put::invalidation(name, version.into()),
        }
    }
}

/// What has become of a head.
#[derive(Debug)]
pub(super) enum Change {
    /// This.
    To(Box<Context>),
    /// It was deleted.
    Gone(Version),
    /// It has this version; who needs the rest reads it.
    Unknown(Version),
}

impl fmt::Debug for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heads")
            .field("cache", self.typed.cache())
            .finish_non_exhaustive()
    }
}

/// Loads heads from the primary: outside of a session the store asks no other. What a replica says could be older than
/// what the cache has forgotten (G6).
#[derive(Debug)]
struct HeadLoader(Arc<dyn ContextStore>);

impl Loader for HeadLoader {
    fn load(&self, wanted: Vec<Wanted>) -> Loading {
        let store = self.0.clone();
        Box::pin(async move {
            load(store.as_ref(), &wanted)
                .await
                .map_err(|error| Arc::new(error) as LoadError)
        })
    }
}

async fn load(store: &dyn ContextStore, wanted: &[Wanted]) -> Result<Vec<Loaded>> {
    let keys = wanted
        .iter()
        .map(|wanted| parse(&wanted.key))
        .collect::<Result<Vec<_>>>()?;
    if let [key] = keys.as_slice() {
        return match store.head(key).await {
            Ok(context) => Ok(vec![loaded(Some(&context))]),
            Err(Error::NotFound) => Ok(vec![loaded(None)]),
            Err(error) => Err(error),
        };
    }
    let mut tenants: BTreeMap<&TenantId, Vec<(usize, ContextId)>> = BTreeMap::new();
    for (place, key) in keys.iter().enumerate() {
        tenants
            .entry(&key.tenant)
            .or_default()
            .push((place, key.id.clone()));
    }
    let mut all: Vec<Option<Loaded>> = vec![None; keys.len()];
    for (tenant, asked) in tenants {
        let ids: Vec<ContextId> = asked.iter().map(|(_, id)| id.clone()).collect();
        let heads = store.heads(tenant, &ids).await?;
        for ((place, _), head) in asked.iter().zip(heads) {
            if let Some(slot) = all.get_mut(*place) {
                *slot = Some(loaded(head.as_ref()));
            }
        }
    }
    all.into_iter()
        .map(|loaded| {
            loaded.ok_or_else(|| Error::internal("the store answered fewer heads than were asked for"))
        })
        .collect()
}

fn parse(key: &Key) -> Result<ContextKey> {
    key::parse(key).ok_or_else(|| Error::internal(format!("{key:?} does not name a context")))
}

fn loaded(head: Option<&Context>) -> Loaded {
    match head {
        Some(context) => Loaded::value(context.version.into(), record::encode(context)),
        // A context that is not there has no version that the store would tell; the primary's word is the newest.
        None => Loaded::absent(CacheVersion::ZERO),
    }
}
