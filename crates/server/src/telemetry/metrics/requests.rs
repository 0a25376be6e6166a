//! How long requests took, counted in the buckets that Prometheus reads.
//!
//! Not through the facade: its histogram keeps every value with the time at which it came until somebody looks, and sorts
//! them into buckets then, which costs a request as much as the rest of an answer from memory.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{Method, StatusCode};

use super::table::REQUEST_DURATION;

/// Upper limits of the buckets, as text for Prometheus and in microseconds.
const LIMITS: [(&str, u64); 12] = [
    ("0.001", 1_000),
    ("0.0025", 2_500),
    ("0.005", 5_000),
    ("0.01", 10_000),
    ("0.025", 25_000),
    ("0.05", 50_000),
    ("0.1", 100_000),
    ("0.25", 250_000),
    ("0.5", 500_000),
    ("1", 1_000_000),
    ("2.5", 2_500_000),
    ("10", 10_000_000),
];
/// Methods as labels; anything can stand in a request's place for it.
const METHODS: [&str; 8] = [
    "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "other",
];
/// Classes of status as labels.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Threads count in places of their own, so that they do not fight over one.
const SHARDS: usize = 4;

/// The requests of one route. Routes are few: they are those of the router.
#[derive(Debug, Default)]
pub(crate) struct Requests([[OnceLock<Box<Tally>>; CLASSES.len()]; METHODS.len()]);

#[derive(Debug, Default)]
struct Tally([Shard; SHARDS]);

/// On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// Per bucket, and what took longer than all of them.
    counts: [AtomicU64; LIMITS.len() + 1],
    nanos: AtomicU64,
}

static ROUTES: LazyLock<RwLock<HashMap<String, Arc<Requests>>>> = LazyLock::new(RwLock::default);

/// Those of a route; `route` is the path of the route, not that of a request.
pub(crate) fn of_route(route: &str) -> Arc<Requests> {
    let known = ROUTES
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .get(route)
        .cloned();
    known.unwrap_or_else(|| {
        let mut routes = ROUTES.write().unwrap_or_else(PoisonError::into_inner);
        routes.entry(route.to_owned()).or_default().clone()
    })
}

impl Requests {
    /// One was answered.
    pub(crate) fn served(&self, method: &Method, status: StatusCode, took: Duration) {
        let method = METHODS.iter().position(|known| *known == method.as_str());
        let method = method.unwrap_or(METHODS.len() - 1);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        let cell = self.0.get(method).and_then(|classes| classes.get(class));
        if let Some(cell) = cell {
            cell.get_or_init(Box::default).add(took);
        }
    }
}

impl Tally {
    fn add(&self, took: Duration) {
        let Some(shard) = self.0.get(shard()) else { return };
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = LIMITS.iter().position(|(_, micros)| nanos <= micros * 1000);
        if let Some(count) = shard.counts.get(bucket.unwrap_or(LIMITS.len())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        shard.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many were in each bucket or a lower one, and how long all took together.
    fn cumulated(&self) -> ([u64; LIMITS.len() + 1], Duration) {
        let mut counts = [0; LIMITS.len() + 1];
        let mut nanos = 0;
        for shard in &self.0 {
            for (sum, count) in counts.iter_mut().zip(&shard.counts) {
                *sum += count.load(Ordering::Relaxed);
            }
            nanos += shard.nanos.load(Ordering::Relaxed);
        }
        let mut below = 0;
        for count in &mut counts {
            below += *count;
            *count = below;
        }
        (counts, Duration::from_nanos(nanos))
    }
}

/// The present thread's.
fn shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    MINE.with(Cell::get)
}

/// Appends all of them as Prometheus reads them.
pub(super) fn render(out: &mut String) {
    let routes: BTreeMap<String, Arc<Requests>> = {
        let routes = ROUTES.read().unwrap_or_else(PoisonError::into_inner);
        routes
            .iter()
            .map(|(route, requests)| (route.clone(), requests.clone()))
            .collect()
    };
    let name = REQUEST_DURATION.name;
    let mut lines = String::new();
    for (route, requests) in &routes {
        for (method, classes) in METHODS.iter().zip(&requests.0) {
            for (status, cell) in CLASSES.iter().zip(classes) {
                if let Some(tally) = cell.get() {
                    let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
                    histogram(&mut lines, name, &labels, tally);
                }
            }
        }
    }
    if !lines.is_empty() {
        write!(
            out,
            "# HELP {name} {}\n# TYPE {name} histogram\n{lines}\n",
            REQUEST_DURATION.meaning
        )
        .expect("invariant: writing to memory does not fail");
    }
}

fn histogram(out: &mut String, name: &str, labels: &str, tally: &Tally) {
    let (counts, sum) = tally.cumulated();
    let limits = LIMITS.iter().map(|(limit, _)| *limit).chain(["+Inf"]);
    for (limit, count) in limits.zip(counts) {
        writeln!(out, "{name}_bucket{{{labels},le=\"{limit}\"}} {count}")
            .expect("invariant: writing to memory does not fail");
    }
    let count = counts.last().copied().unwrap_or_default();
    writeln!(
        out,
        "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {count}",
        sum.as_secs_f64()
    )
    .expect("invariant: writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_in_its_bucket_and_all_above() {
        let tally = Tally::default();
        for micros in [1, 1_000, 1_001, 10_000_000, 10_000_001] {
            tally.add(Duration::from_micros(micros));
        }
        let mut text = String::new();
        histogram(&mut text, "d", "route=\"/a\"", &tally);
        for line in [
            "d_bucket{route=\"/a\",le=\"0.001\"} 2",
            "d_bucket{route=\"/a\",le=\"0.0025\"} 3",
            "d_bucket{route=\"/a\",le=\"2.5\"} 3",
            "d_bucket{route=\"/a\",le=\"10\"} 4",
            "d_bucket{route=\"/a\",le=\"+Inf\"} 5",
            "d_sum{route=\"/a\"} 20.002003",
            "d_count{route=\"/a\"} 5",
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
        }
    }

    #[test]
    fn limits_as_text_and_as_numbers_are_the_same_and_ascend() {
        for (text, micros) in LIMITS {
            let seconds: f64 = text.parse().unwrap();
            assert_eq!(Duration::from_secs_f64(seconds), Duration::from_micros(micros));
        }
        assert!(LIMITS.is_sorted_by_key(|(_, micros)| *micros));
    }

    #[test]
    fn threads_count_together_by_route_method_and_class() {
        let requests = of_route("/of-this-test");
        std::thread::scope(|scope| {
            for _ in 0..SHARDS * 2 {
                scope.spawn(|| requests.served(&Method::GET, StatusCode::OK, Duration::from_millis(2)));
            }
        });
        let odd = Method::from_bytes(b"BREW").unwrap();
        of_route("/of-this-test").served(&odd, StatusCode::IM_A_TEAPOT, Duration::ZERO);
        let mut text = String::new();
        render(&mut text);
        let name = REQUEST_DURATION.name;
        for line in [
            format!("# TYPE {name} histogram"),
            format!("{name}_count{{method=\"GET\",route=\"/of-this-test\",status=\"2xx\"}} 8"),
            format!("{name}_sum{{method=\"GET\",route=\"/of-this-test\",status=\"2xx\"}} 0.016"),
            format!("{name}_count{{method=\"other\",route=\"/of-this-test\",status=\"4xx\"}} 1"),
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
        }
    }
}
