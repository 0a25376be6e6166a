//! Vectors in memory. An item that forks share is one allocation here, as it is one row in the real stores, and that is
//! what a vector is of.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Entry, FakeStore};
use crate::error::Result;
use crate::id::{ContextKey, TenantId};
use crate::item::searchable_text;
use crate::search::snippet;
use crate::semantic::{
    Best, Claim, Filled, Lot, Model, NearestPage, NearestQuery, Text, Vector, VectorStore,
};
use crate::store::{ContextStore as _, Hit};
use crate::{Item, Timestamp};

#[derive(Debug, Default)]
pub(super) struct Kept {
    of_models: HashMap<Model, OfModel>,
}

#[derive(Debug, Default)]
struct OfModel {
    /// What was seen to, with its vector if it has one. The text stays allocated, so that no other one gets its place.
    done: HashMap<usize, (Arc<str>, Option<Vector>)>,
    leases: HashMap<u64, Timestamp>,
}

fn place(item: &Item) -> usize {
    item.body.as_ptr().addr()
}

impl OfModel {
    fn lacks<'a>(&self, entry: &'a Entry) -> impl Iterator<Item = &'a Item> + use<'a, '_> {
        entry
            .items
            .iter()
            .filter(|item| !self.done.contains_key(&place(item)))
    }
}

#[async_trait::async_trait]
impl VectorStore for FakeStore {
    async fn claim(&self, model: &Model, claim: Claim) -> Result<Vec<Lot>> {
        let now = self.clock.now();
        let contexts = self.lock();
        let mut kept = self.kept();
        let of_model = kept.of_models.entry(model.clone()).or_default();
        of_model.leases.retain(|_, until| *until > now);
        let (mut lots, mut seen) = (Vec::new(), HashSet::new());
        let (mut room, mut bytes) = (claim.items_max as usize, 0);
        for entry in contexts.values().filter(|entry| entry.is_there(now)) {
            let stream = entry.context.stream;
            if of_model.leases.contains_key(&stream) {
                continue;
            }
            let mut lot = Lot {
                stream,
                news: 0,
                items: Vec::new(),
                ends: true,
            };
            for item in of_model.lacks(entry).filter(|item| !seen.contains(&place(item))) {
                let taken = bytes + item.body.len() as u64;
                if room == 0 || (taken > claim.bytes_max && bytes > 0) {
                    lot.ends = false;
                    break;
                }
                (room, bytes) = (room - 1, taken);
                lot.items.push(Text {
                    seq: item.seq,
                    text: searchable_text(&item.body),
                });
            }
            if !lot.items.is_empty() {
                seen.extend(entry.items.iter().map(place));
                lots.push(lot);
            }
        }
        for lot in &lots {
            of_model
                .leases
                .insert(lot.stream, now.saturating_add(claim.lease));
        }
        Ok(lots)
    }

    async fn fill(&self, model: &Model, filled: Vec<Filled>) -> Result<()> {
        let contexts = self.lock();
        let mut kept = self.kept();
        let of_model = kept.of_models.entry(model.clone()).or_default();
        for lot in filled {
            of_model.leases.remove(&lot.stream);
            let entry = contexts.values().find(|entry| entry.context.stream == lot.stream);
            let items = entry.into_iter().flat_map(|entry| &entry.items);
            for item in items.filter(|item| item.seq <= lot.through) {
                let vector = lot.vectors.iter().find(|(seq, _)| *seq == item.seq);
                let vector = vector.map(|(_, vector)| vector.clone());
                of_model
                    .done
                    .entry(place(item))
                    .or_insert_with(|| (item.body.clone(), vector));
            }
        }
        Ok(())
    }

    async fn lacking(&self, model: &Model) -> Result<u64> {
        let now = self.clock.now();
        let contexts = self.lock();
        let kept = self.kept();
        let Some(of_model) = kept.of_models.get(model) else {
            return Ok(0);
        };
        let there = contexts.values().filter(|entry| entry.is_there(now));
        let items: HashSet<usize> = there.flat_map(|entry| of_model.lacks(entry)).map(place).collect();
        Ok(items.len() as u64)
    }

    async fn nearest(&self, tenant: &TenantId, query: NearestQuery) -> Result<NearestPage> {
        let search = &query.search;
        if let Some(id) = &search.context {
            self.head(&ContextKey::new(tenant.clone(), id.clone())).await?;
        }
        let lag_items = self.lacking(&query.model).await?;
        let now = self.clock.now();
        let contexts = self.lock();
        let kept = self.kept();
        let vector = |item: &Item| {
            kept.of_models
                .get(&query.model)?
                .done
                .get(&place(item))?
                .1
                .clone()
        };
        let mut entries: Vec<_> = contexts
            .iter()
            .filter(|(key, entry)| key.tenant == *tenant && entry.is_there(now))
            .filter(|(key, _)| search.context.as_ref().is_none_or(|id| *id == key.id))
            .collect();
        // An item is shown in the context that it was appended to, if that is there.
        entries.sort_by_key(|(_, entry)| (entry.context.forked_from.is_some(), entry.context.created_at));
        let mut seen = HashSet::new();
        let mut candidates: Vec<_> = entries
            .into_iter()
            .flat_map(|(key, entry)| entry.items.iter().map(move |item| (key, item)))
            .filter(|(_, item)| search.admits(item))
            .filter(|(_, item)| seen.insert(place(item)))
            .filter_map(|(key, item)| Some((key, item, vector(item)?)))
            .collect();
        candidates.sort_by_key(|(_, item, _)| std::cmp::Reverse((item.created_at, item.seq)));
        let cut_off = candidates.len() > query.scan_max as usize;
        let mut best = Best::new(query.ranked());
        for (key, item, vector) in candidates.into_iter().take(query.scan_max as usize) {
            if let Some(cosine) = query.direction.cosine(vector.as_bytes()) {
                best.show(cosine, (key, item));
            }
        }
        let scanned = best.shown();
        let mut hits: Vec<Hit> = best
            .into_sorted()
            .map(|(score, (key, item))| Hit {
                context: key.id.clone(),
                item: item.clone(),
                score: f64::from(score),
                snippet: snippet(&searchable_text(&item.body), &search.query),
            })
            .skip(search.offset as usize)
            .take(search.limit as usize + 1)
            .collect();
        let more = hits.len() > search.limit as usize;
        hits.truncate(search.limit as usize);
        Ok(NearestPage {
            hits,
            more,
            scanned,
            cut_off,
            lag_items,
        })
    }
}
