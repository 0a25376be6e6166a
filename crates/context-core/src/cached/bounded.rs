//! What the process holds, bounded in number and bytes.

use std::hash::Hash;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

pub(super) type Bounded<K, V> = Cache<K, V, AtLeast, DefaultHashBuilder, Leaving>;

/// What takes so many bytes, always the same while it is held: the library weighs it again when it goes.
pub(super) trait Weigh {
    fn weight(&self) -> u64;
}

/// Room for so many and so many bytes, of which one takes at most `item_max`.
pub(super) fn bounded<K, V>(count_max: u64, bytes_max: u64, item_max: u64) -> Option<Bounded<K, V>>
where
    K: Eq + Hash,
    V: Weigh + Clone,
{
    // Each shard holds several of the largest, whatever the number of cores.
    let shards = usize::try_from(bytes_max / item_max.max(1) / 8).unwrap_or(1);
    let options = OptionsBuilder::new()
        .estimated_items_capacity(usize::try_from(count_max).unwrap_or(usize::MAX))
        .weight_capacity(bytes_max)
        .shards(shards.clamp(1, 16))
        .build()
        .ok()?;
    Some(Cache::with_options(
        options,
        AtLeast(bytes_max.div_ceil(count_max.max(1))),
        DefaultHashBuilder::default(),
        Leaving,
    ))
}

/// What is pushed out is handed to whoever pushed it out, by `insert_with_lifecycle`.
#[derive(Clone, Debug)]
pub(super) struct Leaving;

impl<K, V> Lifecycle<K, V> for Leaving {
    type RequestState = Vec<(K, V)>;

    fn on_evict(&self, state: &mut Self::RequestState, key: K, value: V) {
        state.push((key, value));
    }
}

/// Nothing counts for less than its share of the bytes, so that the number is bounded as well.
#[derive(Clone, Debug)]
pub(super) struct AtLeast(u64);

impl<K, V: Weigh> Weighter<K, V> for AtLeast {
    fn weight(&self, _: &K, value: &V) -> u64 {
        value.weight().max(self.0)
    }
}
