//! The in-memory store for tests. It passes the same contract suite as the real ones, so that a test on it
//! says something about them. Not for production: nothing survives the process.

mod appends;
mod entry;
mod vectors;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use appends::{add, before_write, join, known, remember};
use entry::{Entry, Named, expect, new_entry, next_stream};

use crate::clock::Clock;
use crate::error::{Error, Invalid, Result};
use crate::id::{ContextId, ContextKey, TenantId};
use crate::item::searchable_text;
use crate::search::snippet;
use crate::semantic::VectorStore;
use crate::store::{
    Append, Appended, ContextPage, ContextStore, Created, Hit, ItemPage, ItemQuery, ListQuery, Order, Purged,
    Replaced, Retention, SearchPage, SearchQuery, SeqRange, StoreHealth, Tail, TailQuery,
};
use crate::summary::{PER_CONTEXT_MAX, Summary};
use crate::{Context, ContextPatch, ForkedFrom, Item, NewContext, NewItem, Seq, Timestamp, Version};

/// See the [module](self).
#[derive(Debug)]
pub struct FakeStore {
    contexts: Mutex<HashMap<ContextKey, Entry>>,
    vectors: Mutex<vectors::Kept>,
    clock: Arc<dyn Clock>,
}

impl FakeStore {
    /// An empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            contexts: Mutex::default(),
            vectors: Mutex::default(),
            clock,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContextKey, Entry>> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, vectors::Kept> {
        self.vectors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, key: &ContextKey, work: impl FnOnce(&mut Entry, Timestamp) -> Result<T>) -> Result<T> {
        let now = self.clock.now();
        let mut contexts = self.lock();
        let entry = contexts
            .get_mut(key)
            .filter(|entry| entry.is_there(now))
            .ok_or(Error::NotFound)?;
        work(entry, now)
    }

    fn insert(
        &self,
        tenant: &TenantId,
        new: NewContext,
        shared: Option<(ForkedFrom, Vec<Item>)>,
    ) -> Result<Created> {
        let now = self.clock.now();
        let id = new.id.clone().unwrap_or_else(ContextId::generate);
        let key = ContextKey::new(tenant.clone(), id.clone());
        let mut contexts = self.lock();
        let mut version = 0;
        if let Some(entry) = contexts.get_mut(&key) {
            if entry.is_there(now) {
                return match new.differs_from(&entry.context) {
                    Some(field) => Err(Error::ContextDiffers { field }),
                    None => Ok(Created {
                        context: entry.context.clone(),
                        is_new: false,
                        parent_stream: None,
                    }),
                };
            }
            if entry.deleted_at.is_none() {
                entry.bury(now);
            }
            version = entry.context.version;
        }
        let mut entry = new_entry(id, new, now);
        entry.context.version = version + 1;
        if let Some((parent, items)) = shared {
            entry.context.next_seq = parent.at_seq + 1;
            entry.context.forked_from = Some(parent);
            entry.set_items(items);
        }
        let context = entry.context.clone();
        contexts.insert(key, entry);
        Ok(Created {
            context,
            is_new: true,
            parent_stream: None,
        })
    }
}

#[async_trait::async_trait]
impl ContextStore for FakeStore {
    async fn create(&self, tenant: &TenantId, new: NewContext) -> Result<Created> {
        self.insert(tenant, new, None)
    }

    async fn head(&self, key: &ContextKey) -> Result<Context> {
        self.with(key, |entry, _| Ok(entry.context.clone()))
    }

    async fn update(
        &self,
        key: &ContextKey,
        patch: ContextPatch,
        expected: Option<Version>,
    ) -> Result<Context> {
        self.with(key, |entry, now| {
            expect(entry, expected)?;
            patch.apply(&mut entry.context);
            entry.context.version += 1;
            entry.context.updated_at = now;
            Ok(entry.context.clone())
        })
    }

    async fn delete(&self, key: &ContextKey, expected: Option<Version>) -> Result<Version> {
        self.with(key, |entry, now| {
            expect(entry, expected)?;
            entry.bury(now);
            Ok(entry.context.version)
        })
    }

    async fn append(&self, key: &ContextKey, append: Append) -> Result<Appended> {
        self.with(key, |entry, now| {
            if let Some(appended) = before_write(entry, &append)? {
                return Ok(appended);
            }
            let known = append
                .items
                .iter()
                .map(|item| known(entry, item))
                .collect::<Result<Vec<_>>>()?;
            let old = known.iter().flatten().copied().reduce(join);
            let new: Vec<&NewItem> = append
                .items
                .iter()
                .zip(&known)
                .filter(|(_, known)| known.is_none())
                .map(|(item, _)| item)
                .collect();
            if let (Some(old), true) = (old, new.is_empty()) {
                return Ok(old);
            }
            expect(entry, append.expected)?;
            let added = add(entry, &new, now);
            let appended = old.map_or(added, |old| join(added, old));
            remember(entry, &append, appended, now);
            Ok(appended)
        })
    }

    async fn replace(&self, key: &ContextKey, append: Append) -> Result<Replaced> {
        self.with(key, |entry, now| {
            if let Some(appended) = before_write(entry, &append)? {
                return Ok(Replaced { appended, head: None });
            }
            expect(entry, append.expected)?;
            entry.summaries.clear();
            entry.set_items(Vec::new());
            entry.context.stream = next_stream();
            let appended = add(entry, &append.items.iter().collect::<Vec<_>>(), now);
            remember(entry, &append, appended, now);
            let head = Some(entry.context.clone());
            Ok(Replaced { appended, head })
        })
    }

    async fn rewrite(
        &self,
        key: &ContextKey,
        keep: Vec<SeqRange>,
        expected: Option<Version>,
    ) -> Result<Context> {
        self.with(key, |entry, now| {
            expect(entry, expected)?;
            let ascending = keep.windows(2).all(|pair| pair[0].last < pair[1].first);
            if !ascending
                || keep
                    .iter()
                    .any(|range| range.first > range.last || range.last >= entry.context.next_seq)
            {
                return Err(
                    Invalid::new("keep", "is not made of ascending ranges of items that are there").into(),
                );
            }
            let mut items = std::mem::take(&mut entry.items);
            items.retain(|item| {
                keep.iter()
                    .any(|range| (range.first..=range.last).contains(&item.seq))
            });
            entry.set_items(items);
            entry.context.stream = next_stream();
            entry.context.version += 1;
            entry.context.updated_at = now;
            Ok(entry.context.clone())
        })
    }

    async fn fork(&self, key: &ContextKey, at: Seq, new: NewContext) -> Result<Created> {
        let (parent, items) = self.with(key, |entry, _| Ok((entry.context.clone(), entry.items.clone())))?;
        let newest = parent.next_seq - 1;
        let at = if at == Seq::MAX { newest } else { at };
        if at > newest {
            return Err(Invalid::new("at", format!("is {at}; the newest item is {newest}")).into());
        }
        let new = new.forked_from(&parent)?;
        let items = items.into_iter().filter(|item| item.seq <= at).collect();
        let stream = parent.stream;
        let parent = ForkedFrom {
            id: parent.id,
            at_seq: at,
        };
        let mut created = self.insert(&key.tenant, new, Some((parent, items)))?;
        created.parent_stream = created.is_new.then_some(stream);
        Ok(created)
    }

    async fn items(&self, key: &ContextKey, query: ItemQuery) -> Result<ItemPage> {
        self.with(key, |entry, _| {
            let mut chosen: Vec<&Item> = entry
                .items
                .iter()
                .filter(|item| item.seq > query.after && item.seq < query.before)
                .collect();
            if query.order == Order::Descending {
                chosen.reverse();
            }
            let mut page = ItemPage {
                version: entry.context.version,
                items: Vec::new(),
                more: false,
            };
            let mut bytes = 0;
            for item in chosen {
                bytes += item.body.len() as u64;
                if page.items.len() >= query.limit as usize
                    || (bytes > query.bytes_max && !page.items.is_empty())
                {
                    page.more = true;
                    break;
                }
                page.items.push(item.clone());
            }
            Ok(page)
        })
    }

    async fn tail(&self, key: &ContextKey, query: TailQuery) -> Result<Tail> {
        self.with(key, |entry, _| {
            let tokens_max = query.tokens_max(&entry.context);
            let (mut tokens, mut bytes, mut taken) = (0, 0, 0);
            for item in entry.items.iter().rev() {
                tokens += u64::from(item.tokens);
                bytes += item.body.len() as u64;
                if tokens > tokens_max || bytes > query.bytes_max || taken >= query.items_max as usize {
                    break;
                }
                taken += 1;
            }
            let (older, run) = entry.items.split_at(entry.items.len() - taken);
            let before = older.last().map(|item| item.traits.kind);
            let kept: Vec<Item> = older
                .iter()
                .filter(|item| item.traits.always_kept())
                .take(query.items_max as usize)
                .cloned()
                .collect();
            let mut bytes = 0;
            for item in &kept {
                bytes += item.body.len() as u64;
                if bytes > query.bytes_max {
                    return Err(query.kept_too_large(bytes));
                }
            }
            Ok(Tail {
                context: entry.context.clone(),
                kept,
                run: run.to_vec(),
                before,
            })
        })
    }

    async fn summaries(&self, key: &ContextKey) -> Result<Vec<Summary>> {
        self.with(key, |entry, _| {
            let mut all = entry.summaries.clone();
            all.sort_by_key(|one| (one.kind, one.range.first, one.range.last));
            Ok(all)
        })
    }

    async fn keep_summary(&self, key: &ContextKey, summary: Summary, stream: u64) -> Result<Option<Summary>> {
        let there = self.with(key, |entry, _| {
            if entry.context.stream != stream {
                return Ok(Some(None));
            }
            let same = |one: &&Summary| (one.kind, one.range) == (summary.kind, summary.range);
            Ok(entry.summaries.iter().find(same).cloned().map(Some))
        })?;
        match there {
            Some(there) => Ok(there),
            None => self.put_summary(key, summary).await.map(Some),
        }
    }

    async fn put_summary(&self, key: &ContextKey, summary: Summary) -> Result<Summary> {
        self.with(key, |entry, now| {
            let summary = Summary {
                created_at: now,
                ..summary
            };
            let all = &mut entry.summaries;
            all.retain(|one| (one.kind, one.range) != (summary.kind, summary.range));
            all.push(summary.clone());
            all.sort_by_key(|one| (one.created_at, one.range.last, one.range.first, one.kind));
            let surplus = all.len().saturating_sub(PER_CONTEXT_MAX);
            all.drain(..surplus);
            Ok(summary)
        })
    }

    async fn list(&self, tenant: &TenantId, query: ListQuery) -> Result<ContextPage> {
        let now = self.clock.now();
        let contexts = self.lock();
        let place = |context: &Context| (context.created_at, context.id.clone());
        let mut chosen: Vec<Context> = contexts
            .iter()
            .filter(|(key, entry)| key.tenant == *tenant && entry.is_there(now))
            .map(|(_, entry)| entry.context.clone())
            .filter(|context| {
                query
                    .agent_id
                    .as_ref()
                    .is_none_or(|agent| *agent == context.agent_id)
            })
            .filter(|context| query.session_id.is_none() || query.session_id == context.session_id)
            .filter(|context| query.labels.iter().all(|label| context.labels.contains(label)))
            .filter(|context| {
                query
                    .forked_from
                    .as_ref()
                    .is_none_or(|id| context.forked_from.as_ref().map(|parent| &parent.id) == Some(id))
            })
            .filter(|context| {
                query
                    .after
                    .as_ref()
                    .is_none_or(|after| place(context) < (after.created_at, after.id.clone()))
            })
            .collect();
        chosen.sort_by_key(|context| std::cmp::Reverse(place(context)));
        let more = chosen.len() > query.limit as usize;
        chosen.truncate(query.limit as usize);
        Ok(ContextPage {
            contexts: chosen,
            more,
        })
    }

    async fn search(&self, tenant: &TenantId, query: SearchQuery) -> Result<SearchPage> {
        if let Some(id) = &query.context {
            self.head(&ContextKey::new(tenant.clone(), id.clone())).await?;
        }
        let now = self.clock.now();
        let contexts = self.lock();
        let mut hits: Vec<Hit> = contexts
            .iter()
            .filter(|(key, entry)| key.tenant == *tenant && entry.is_there(now))
            .filter(|(key, _)| query.context.as_ref().is_none_or(|id| *id == key.id))
            .flat_map(|(key, entry)| entry.items.iter().map(|item| (key.id.clone(), item.clone())))
            .filter(|(_, item)| query.admits(item))
            .map(|(context, item)| (searchable_text(&item.body), context, item))
            .filter(|(text, ..)| query.query.matches(text))
            .map(|(text, context, item)| Hit {
                snippet: snippet(&text, &query.query),
                context,
                #[expect(clippy::cast_precision_loss, reason = "a score of a fake")]
                score: 1.0 / (1.0 + text.len() as f64),
                item,
            })
            .collect();
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.item.seq.cmp(&a.item.seq)));
        let rest = hits.split_off((query.offset as usize).min(hits.len()));
        let more = rest.len() > query.limit as usize;
        Ok(SearchPage {
            hits: rest.into_iter().take(query.limit as usize).collect(),
            more,
            lag_items: 0,
        })
    }

    fn vectors(self: Arc<Self>) -> Option<Arc<dyn VectorStore>> {
        Some(self)
    }

    async fn purge(&self, retention: Retention) -> Result<Purged> {
        let now = self.clock.now();
        let mut purged = Purged::default();
        let mut contexts = self.lock();
        for entry in contexts.values_mut() {
            if entry.deleted_at.is_none() && !entry.is_there(now) {
                entry.bury(now);
                purged.expired += 1;
            }
            let keys = entry.keys.len();
            entry.keys.retain(|_, (.., used)| *used >= retention.keys_before);
            purged.keys += (keys - entry.keys.len()) as u64;
        }
        // A stored item's body is its own; forks have the same one.
        let items = contexts.values().flat_map(|entry| &entry.items);
        let bodies: HashSet<*const u8> = items.map(|item| item.body.as_ptr()).collect();
        let named = contexts
            .values_mut()
            .flat_map(|entry| entry.client_ids.values_mut());
        for named in named {
            named.purged |= !bodies.contains(&named.item.body.as_ptr());
        }
        let entries = contexts.len();
        contexts.retain(|_, entry| {
            entry
                .deleted_at
                .is_none_or(|at| at >= retention.tombstones_before)
        });
        purged.tombstones = (entries - contexts.len()) as u64;
        Ok(purged)
    }

    async fn check(&self) -> Result<StoreHealth> {
        Ok(StoreHealth {
            kind: "fake",
            writes_waiting: 0,
            search_lag_items: 0,
        })
    }

    async fn settle(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn fresh(clock: Arc<ManualClock>) -> std::future::Ready<(Arc<dyn ContextStore>, ())> {
        std::future::ready((Arc::new(FakeStore::new(clock)), ()))
    }

    crate::store_contract!(fresh);
}
