//! A source that counts, waits and fails as told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contextkeep_cache::{Cache, Loaded, Loader, Policy, Version, Wanted, loader};

#[derive(Debug, Default)]
pub(crate) struct Source {
    rows: Mutex<HashMap<String, (u64, String)>>,
    pub(crate) loads: AtomicU64,
    pub(crate) calls: AtomicU64,
    delay_ms: AtomicU64,
    failing: AtomicU64,
    pub(crate) wanted: Mutex<Vec<Wanted>>,
}

impl Source {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn set(&self, key: &str, version: u64, value: &str) {
        self.rows
            .lock()
            .unwrap()
            .insert(key.to_owned(), (version, value.to_owned()));
    }

    pub(crate) fn delay(&self, by: Duration) {
        self.delay_ms
            .store(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, failing: bool) {
        self.failing.store(failing.into(), Ordering::Relaxed);
    }

    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    fn read(&self, wanted: &Wanted) -> Loaded {
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.wanted.lock().unwrap().push(wanted.clone());
        match self.rows.lock().unwrap().get(wanted.key.as_str()) {
            Some((version, value)) => Loaded::value(Version::new(*version), value.clone()),
            None => Loaded::absent(Version::ZERO),
        }
    }

    /// Reads at once, answers later: what was read may be old by then.
    pub(crate) fn loader(self: &Arc<Self>) -> Arc<dyn Loader> {
        let source = Arc::clone(self);
        loader::many(move |wanted: Vec<Wanted>| {
            source.calls.fetch_add(1, Ordering::Relaxed);
            let rows: Vec<Loaded> = wanted.iter().map(|one| source.read(one)).collect();
            let delay = Duration::from_millis(source.delay_ms.load(Ordering::Relaxed));
            let failing = source.failing.load(Ordering::Relaxed) != 0;
            async move {
                tokio::time::sleep(delay).await;
                if failing {
                    Err("the source is down")
                } else {
                    Ok(rows)
                }
            }
        })
    }
}

pub(crate) fn cache(policy: Policy) -> Cache {
    Cache::builder("test").policy(policy).seed(1).build().unwrap()
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn v(version: u64) -> Version {
    Version::new(version)
}
