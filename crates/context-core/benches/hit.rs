//! N2: a window that is kept ready, by the manager, against a raw `quick_cache` get of an `Arc` by the same key:
//! `cargo bench -p contextkeep-core --features cache --bench hit`.
//!
//! What a hit does beside its lookup: the rollout, the session's floor, the head's coherence (generation, horizon, times,
//! version), the request that the window was made for, the origin, and the version for the session's token. All hits are in
//! sessions that have seen their contexts; a session has room for 32 of them, so there is one for each 32.
//!
//! Rounds of the two alternate; the median of the ratios is what counts. Fails when a hit allocates.
//!
//! `… --bench hit -- instructions` counts instructions instead, by valgrind, which other work on the machine does not
//! disturb. There has to be a valgrind.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program that prints, and stops at a surprise"
)]

use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use contextkeep_cache::Cache;
use contextkeep_core::cached::{CACHE_NAME, CachedStore, HeldLimits};
use contextkeep_core::embedded::EmbeddedStore;
use contextkeep_core::rollout::Rollout;
use contextkeep_core::session::{Consistency, Session, Token};
use contextkeep_core::settings::{EmbeddedSettings, LimitSettings, RolloutSettings, Synchronous};
use contextkeep_core::{
    AppendRequest, ContextId, ContextKey, ContextManager, ContextManagerFactory, NewContext, NewItem, Origin,
    SystemClock, TenantId, Tokenizer, WindowRequest,
};
use contextkeep_test_support::figures::median;
use quick_cache::sync::Cache as Raw;
use tokio::runtime::Builder as Runtime;
use tokio::time::Instant;

const GETS: usize = 200_000;
const ROUNDS: usize = 21;
const CONTEXTS: usize = 1000;
/// Contexts that a session's token has room for.
const CONTEXTS_A_SESSION: usize = 32;

/// The contexts of one session.
struct Visit {
    session: Arc<Session>,
    keys: Vec<ContextKey>,
}

/// Both with the same keys.
struct Both {
    manager: Arc<dyn ContextManager>,
    raw: Raw<ContextKey, Arc<u64>>,
    visits: Vec<Visit>,
    request: WindowRequest,
    _folder: tempfile::TempDir,
}

impl Both {
    async fn filled(contexts: usize) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let settings = EmbeddedSettings {
            path: folder.path().to_owned(),
            synchronous: Synchronous::Normal,
            ..EmbeddedSettings::default()
        };
        let clock = Arc::new(SystemClock);
        let store = Arc::new(EmbeddedStore::open(&settings, clock.clone()).unwrap());
        let held = HeldLimits {
            contexts: 20_000,
            bytes: 1 << 30,
            context_bytes: 1 << 20,
            cold_percent: 30,
        };
        // As the server does it over this store: nobody tells of others' changes.
        let cache = Cache::builder(CACHE_NAME).max_entries(20_000).build().unwrap();
        let cached = CachedStore::new(store.clone(), cache, Some(held), clock);
        let rollout = Arc::new(Rollout::new(RolloutSettings::default()));
        let (manager, _) = ContextManagerFactory::new(store, LimitSettings::default())
            .cached(cached, rollout)
            .build();
        let request = WindowRequest {
            max_tokens: Some(1000),
            ..WindowRequest::default()
        };
        let both = Self {
            manager,
            raw: Raw::new(20_000),
            visits: visits(contexts),
            request,
            _folder: folder,
        };
        for visit in &both.visits {
            visit.session.scope(both.fill(&visit.keys)).await;
        }
        both
    }

    async fn fill(&self, keys: &[ContextKey]) {
        for key in keys {
            self.raw.insert(key.clone(), Arc::new(7));
            let new = NewContext {
                tokenizer: Some(Tokenizer::Estimate),
                ..NewContext::of_agent("a").with_id(key.id.clone())
            };
            self.manager.create(&key.tenant, new).await.unwrap();
            let item = NewItem::parse(r#"{"role":"user","content":"hello there"}"#, 1 << 20).unwrap();
            let append = AppendRequest {
                items: vec![item],
                expected: None,
                idempotency_key: None,
            };
            self.manager.append(key, append).await.unwrap();
            for _ in 0..2 {
                self.manager.window(key, self.request).await.unwrap();
            }
            let ready = self
                .manager
                .window_ready(key, &self.request)
                .expect("it is kept ready");
            assert_eq!(ready.origin, Origin::L1);
        }
    }

    fn each(&self, mut gets: usize, get: impl Fn(&ContextKey)) {
        loop {
            for visit in &self.visits {
                let here = gets.min(visit.keys.len());
                visit.session.sync_scope(|| {
                    for key in visit.keys.iter().take(here) {
                        get(black_box(key));
                    }
                });
                gets -= here;
                if gets == 0 {
                    return;
                }
            }
        }
    }

    fn theirs(&self, gets: usize) {
        self.each(gets, |key| {
            black_box(self.raw.get(key));
        });
    }

    fn ours(&self, gets: usize) {
        self.each(gets, |key| {
            let ready = self.manager.window_ready(key, black_box(&self.request));
            assert!(black_box(ready).is_some());
        });
    }
}

fn visits(contexts: usize) -> Vec<Visit> {
    let tenant = TenantId::parse("acme").unwrap();
    let keys: Vec<ContextKey> = (0..contexts)
        .map(|number| {
            ContextKey::new(
                tenant.clone(),
                ContextId::parse(&format!("context-{number:08}")).unwrap(),
            )
        })
        .collect();
    keys.chunks(CONTEXTS_A_SESSION)
        .map(|keys| Visit {
            session: Session::new(Consistency::Session, Token::default()),
            keys: keys.to_vec(),
        })
        .collect()
}

fn time(run: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    run();
    begun.elapsed().as_secs_f64() * 1e9
}

/// Nanoseconds, in alternating rounds. Whether no hit allocated.
fn times(both: &Both, contexts: usize) -> bool {
    both.theirs(GETS);
    both.ours(GETS);
    let (mut theirs, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (a, b) = (time(|| both.theirs(GETS)), time(|| both.ours(GETS)));
        theirs.push(a);
        ours.push(b);
        ratios.push(a / b);
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = |times| median(times) / GETS as f64;
    let allocations = allocation_counter::measure(|| both.ours(GETS)).count_total;
    println!(
        "{contexts:>6} contexts: raw {:6.1} ns, the manager {:6.1} ns, ratio (median of {ROUNDS}) {:.2}, \
         allocations in {GETS} hits {allocations}",
        each(theirs),
        each(ours),
        median(ratios)
    );
    allocations == 0
}

/// Instructions of this program, run for so many gets of one of the two.
fn collected(whose: &str, contexts: usize, gets: usize) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--toggle-collect=hit::counted*", "--collect-atstart=no"])
        .arg(std::env::current_exe().unwrap())
        .args(["one", whose, &contexts.to_string(), &gets.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.unwrap_or_else(|| panic!("no count: {said}"))
}

/// What is counted. A function of its own, for valgrind to find.
#[inline(never)]
fn counted(both: &Both, whose: &str, gets: usize) {
    if whose == "raw" {
        both.theirs(gets);
    } else {
        both.ours(gets);
    }
}

fn instructions() {
    let each = |whose| {
        let (few, many) = (CONTEXTS, CONTEXTS + 20_000);
        (collected(whose, CONTEXTS, many) - collected(whose, CONTEXTS, few)) / 20_000
    };
    let (raw, ours) = (each("raw"), each("manager"));
    println!("{CONTEXTS:>6} contexts: raw {raw} instructions, the manager {ours}");
}

fn runtime(builder: &mut Runtime) -> tokio::runtime::Runtime {
    builder.enable_all().build().unwrap()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["one", whose, contexts, gets] => {
            let both =
                runtime(&mut Runtime::new_current_thread()).block_on(Both::filled(contexts.parse().unwrap()));
            counted(&both, whose, gets.parse().unwrap());
            ExitCode::SUCCESS
        }
        ["instructions", ..] => {
            instructions();
            ExitCode::SUCCESS
        }
        _ => {
            let mut well = true;
            // With a thread of its own, so that the cache's clock runs meanwhile.
            let runtime = runtime(Runtime::new_multi_thread().worker_threads(1));
            for contexts in [CONTEXTS, 10 * CONTEXTS] {
                let both = runtime.block_on(Both::filled(contexts));
                well &= times(&both, contexts);
            }
            if well {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
