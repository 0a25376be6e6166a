//! What it brings to keep the ends of contexts compressed that nobody has asked for lately: windows that memory answers, with
//! and without, out of the same bytes.
//!
//! `cargo bench -p contextkeep-core --features cache --bench cold -- transcripts.jsonl`, each line `{"id", "messages": […]}` in
//! the chat format; then, if it is not 50, the percent of the room that holds what is compressed. Each conversation is ten contexts; windows of 8,192 tokens are asked for by Zipf's law, most of them
//! after nothing has changed, by the manager on the embedded store. Shares are the same on any machine, times are not.
#![expect(
    clippy::cast_precision_loss,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program that prints, and stops at a surprise"
)]

use std::sync::Arc;
use std::time::Duration;

use contextkeep_cache::Cache;
use contextkeep_core::cached::{CACHE_NAME, CachedStore, HeldLimits, HeldStats};
use contextkeep_core::embedded::EmbeddedStore;
use contextkeep_core::rollout::Rollout;
use contextkeep_core::session::{Consistency, Session, Token};
use contextkeep_core::settings::{EmbeddedSettings, LimitSettings, RolloutSettings, Synchronous};
use contextkeep_core::{
    AppendRequest, ContextId, ContextKey, ContextManagerFactory, NewContext, NewItem, Origin, SystemClock,
    TenantId, WindowRequest,
};
use serde_json::Value;
use tokio::time::Instant;

/// Contexts of each conversation.
const COPIES: usize = 10;
const WINDOWS: usize = 30_000;
/// The exponent of Zipf's law.
const SKEW: f64 = 0.8;
/// Room for the ends and windows, in percent of the bytes of all items.
const ROOMS: [u64; 4] = [10, 20, 40, 80];

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'));
    let path = arguments.next();
    let percent = arguments.next().map_or(50, |percent| percent.parse().unwrap());
    let path = path.unwrap_or_else(|| panic!("name a file of conversations: see the head of this file"));
    let text = std::fs::read_to_string(&path).unwrap();
    let conversations: Vec<Vec<NewItem>> = text.lines().map(conversation).collect();
    let bytes: usize = conversations.iter().flatten().map(|item| item.body.len()).sum();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let settings = EmbeddedSettings {
            path: folder.path().to_owned(),
            synchronous: Synchronous::Normal,
            ..EmbeddedSettings::default()
        };
        let store = Arc::new(EmbeddedStore::open(&settings, Arc::new(SystemClock)).unwrap());
        let keys = filled(&store, &conversations).await;
        let all = (bytes * COPIES) as u64;
        println!(
            "{} contexts of {} bytes each, {WINDOWS} windows",
            keys.len(),
            all / keys.len() as u64
        );
        println!("room      from memory: without, with    a window: without, with    compressed to");
        for room in ROOMS {
            let (without, _) = run(&store, &keys, all * room / 100, 0).await;
            let (with, held) = run(&store, &keys, all * room / 100, percent).await;
            println!(
                "{room:>3} %     {:>19.1} %, {:>4.1} %    {:>8.1?}, {:>8.1?}    {} contexts of {} bytes",
                without.share * 100.0,
                with.share * 100.0,
                without.mean,
                with.mean,
                held.cold_contexts,
                held.cold_bytes / held.cold_contexts.max(1)
            );
        }
    });
}

fn conversation(line: &str) -> Vec<NewItem> {
    let line: Value = serde_json::from_str(line).unwrap();
    let messages = line["messages"].as_array().unwrap();
    let item = |message: &Value| NewItem::parse(&message.to_string(), 1 << 20).unwrap();
    messages.iter().map(item).collect()
}

async fn filled(store: &Arc<EmbeddedStore>, conversations: &[Vec<NewItem>]) -> Vec<ContextKey> {
    let (manager, _) = ContextManagerFactory::new(store.clone(), LimitSettings::default()).build();
    let tenant = TenantId::parse("acme").unwrap();
    let mut keys = Vec::new();
    for copy in 0..COPIES {
        for (number, items) in conversations.iter().enumerate() {
            let id = ContextId::parse(&format!("conversation-{copy}-{number}")).unwrap();
            let new = NewContext::of_agent("a").with_id(id.clone());
            manager.create(&tenant, new).await.unwrap();
            let key = ContextKey::new(tenant.clone(), id);
            let append = AppendRequest {
                items: items.clone(),
                expected: None,
                idempotency_key: None,
            };
            manager.append(&key, append).await.unwrap();
            keys.push(key);
        }
    }
    keys
}

struct Outcome {
    share: f64,
    mean: Duration,
}

/// The second half of the windows counts: memory is full by then.
async fn run(
    store: &Arc<EmbeddedStore>,
    keys: &[ContextKey],
    bytes: u64,
    cold_percent: u8,
) -> (Outcome, HeldStats) {
    let held = HeldLimits {
        contexts: 100_000,
        bytes,
        context_bytes: 1 << 18,
        cold_percent,
    };
    let clock = Arc::new(SystemClock);
    let cache = Cache::builder(CACHE_NAME).build().unwrap();
    let cached = CachedStore::new(store.clone(), cache, Some(held), clock);
    let rollout = Arc::new(Rollout::new(RolloutSettings::default()));
    let (manager, _) = ContextManagerFactory::new(store.clone(), LimitSettings::default())
        .cached(cached.clone(), rollout)
        .build();
    let mut draws = Draws::new(keys.len());
    let mut window = async || {
        let key = &keys[draws.next()];
        // Agents ask for what they have room for: two sizes of the same context.
        let request = WindowRequest {
            max_tokens: Some(if draws.is_odd() { 8192 } else { 6000 }),
            ..WindowRequest::default()
        };
        let session = Session::new(Consistency::Session, Token::default());
        session.scope(manager.window(key, request)).await.unwrap();
        session.origin() == Some(Origin::L1)
    };
    for _ in 0..WINDOWS / 2 {
        window().await;
    }
    let begun = Instant::now();
    let mut remembered = 0_u32;
    for _ in 0..WINDOWS / 2 {
        remembered += u32::from(window().await);
    }
    let outcome = Outcome {
        share: f64::from(remembered) / (WINDOWS / 2) as f64,
        mean: begun.elapsed() / u32::try_from(WINDOWS / 2).unwrap(),
    };
    (outcome, cached.held())
}

/// Ranks by Zipf's law, always the same.
struct Draws {
    below: Vec<f64>,
    state: u64,
}

impl Draws {
    fn new(number: usize) -> Self {
        let mut sum = 0.0;
        let below = (1..=number).map(|rank| {
            sum += (rank as f64).powf(-SKEW);
            sum
        });
        Self {
            below: below.collect(),
            state: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// `SplitMix64` (Steele, Lea, Flood, 2014).
    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn next(&mut self) -> usize {
        let share = (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        let place = share * self.below.last().unwrap();
        self.below
            .partition_point(|below| *below <= place)
            .min(self.below.len() - 1)
    }

    fn is_odd(&mut self) -> bool {
        self.bits() & 1 == 1
    }
}
