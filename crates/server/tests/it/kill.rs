//! `kill -9` during a stream of appends: what was acknowledged is there, once, and nothing else twice (G1, G2, G3).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::{Server, eventually, folder};

/// How often the server is killed.
const KILLS: usize = 50;
/// The clients; each names its appends in its own way.
const WRITERS: [Naming; 4] = [Naming::ClientId, Naming::Key, Naming::Both, Naming::None];
/// The contexts, each written to by all clients.
const CONTEXTS: [&str; 2] = ["left", "right"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Naming {
    /// Each item by `client_id`.
    ClientId,
    /// The append by `Idempotency-Key`.
    Key,
    /// Both.
    Both,
    /// Not at all: such an append is not repeated.
    None,
}

/// One append: where, and the bodies of its items.
#[derive(Clone, Debug)]
struct Append {
    context: &'static str,
    key: Option<String>,
    bodies: Vec<String>,
}

/// What a client knows.
#[derive(Debug)]
struct Writer {
    number: usize,
    naming: Naming,
    appends: usize,
    /// Sent and not answered: is repeated after the restart if it has a name.
    open: Option<Append>,
    /// By context and seq.
    acknowledged: BTreeMap<(&'static str, u64), String>,
    /// Bodies that may be there, without a name to ask by.
    unknown: Vec<String>,
}

impl Writer {
    /// Appends until the server is gone, first what was left open.
    fn write(&mut self, client: &Client, answered: &AtomicUsize) {
        loop {
            let append = self.open.take().unwrap_or_else(|| self.next());
            let Some(first_seq) = send(client, &append) else {
                if self.naming == Naming::None {
                    self.unknown.extend(append.bodies);
                } else {
                    self.open = Some(append);
                }
                return;
            };
            for (seq, body) in (first_seq..).zip(append.bodies) {
                self.acknowledged.insert((append.context, seq), body);
            }
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn next(&mut self) -> Append {
        self.appends += 1;
        let name = format!("{}-{}", self.number, self.appends);
        let named = matches!(self.naming, Naming::ClientId | Naming::Both);
        let bodies = (0..=self.appends % 3).map(|index| {
            let client_id = if named {
                format!(r#","client_id":"{name}-{index}""#)
            } else {
                String::new()
            };
            format!(r#"{{"role":"user", "content":"{name}-{index} ü"{client_id}}}"#)
        });
        Append {
            context: CONTEXTS[self.appends % CONTEXTS.len()],
            key: matches!(self.naming, Naming::Key | Naming::Both).then(|| name.clone()),
            bodies: bodies.collect(),
        }
    }
}

/// Sends an append; the first seq if it was acknowledged, nothing if the server is gone.
fn send(client: &Client, append: &Append) -> Option<u64> {
    let body = format!(r#"{{"items":[{}]}}"#, append.bodies.join(","));
    let headers: Vec<(&str, &str)> = append
        .key
        .iter()
        .map(|key| ("idempotency-key", key.as_str()))
        .collect();
    let path = format!("/v1/contexts/{}/items", append.context);
    let answer = client.try_send("POST", &path, &headers, body.as_bytes()).ok()?;
    let answer = answer.ok();
    let (first, last) = (
        answer["first_seq"].as_u64().unwrap(),
        answer["last_seq"].as_u64().unwrap(),
    );
    assert_eq!(
        last - first + 1,
        append.bodies.len() as u64,
        "{append:?}: {answer}"
    );
    Some(first)
}

#[test]
fn killed_fifty_times_nothing_acknowledged_is_lost_and_nothing_is_twice() {
    let folder = folder();
    let mut server = Server::in_folder(folder.path());
    for id in CONTEXTS {
        server
            .client()
            .post("/v1/contexts", json!({"id": id, "agent_id": "a"}).to_string())
            .ok();
    }
    let mut writers: Vec<Writer> = (0..)
        .zip(WRITERS)
        .map(|(number, naming)| Writer {
            number,
            naming,
            appends: 0,
            open: None,
            acknowledged: BTreeMap::new(),
            unknown: Vec::new(),
        })
        .collect();
    for kill in 0..KILLS {
        server = kill_during_appends(server, &mut writers, kill);
        check(&server.client(), &writers);
    }
    // What was left open is asked for again: now every named append is there exactly once.
    for writer in &mut writers {
        if let Some(append) = writer.open.take() {
            let first_seq = send(&server.client(), &append).unwrap();
            for (seq, body) in (first_seq..).zip(append.bodies) {
                writer.acknowledged.insert((append.context, seq), body);
            }
        }
    }
    check(&server.client(), &writers);
    let acknowledged: usize = writers.iter().map(|writer| writer.acknowledged.len()).sum();
    assert!(
        acknowledged > KILLS * WRITERS.len(),
        "only {acknowledged} items were written"
    );
    server.stop();
}

/// Lets the clients write, kills the server after a few answers, and starts it again.
fn kill_during_appends(server: Server, writers: &mut [Writer], kill: usize) -> Server {
    let answered = AtomicUsize::new(0);
    let enough = WRITERS.len() + kill * 7 % 23;
    let client = server.client();
    let killed = thread::scope(|scope| {
        for writer in writers {
            scope.spawn(|| writer.write(&client, &answered));
        }
        // The kill lands wherever the clients are by then.
        eventually("the appends are answered", || {
            (answered.load(Ordering::SeqCst) >= enough).then_some(())
        });
        server.kill()
    });
    killed.up()
}

/// Every acknowledged item is at its seq with its bytes; no body is there twice; seqs have no gaps.
fn check(client: &Client, writers: &[Writer]) {
    for context in CONTEXTS {
        let stored = stored(client, context);
        let mut seen = std::collections::HashSet::new();
        for (index, (seq, body)) in stored.iter().enumerate() {
            assert_eq!(*seq, index as u64 + 1, "a gap in {context}");
            assert!(seen.insert(body), "{body} is twice in {context}");
        }
        let mut known = 0;
        for writer in writers {
            for ((_, seq), body) in writer.acknowledged.iter().filter(|((id, _), _)| *id == context) {
                let there = stored.get(usize::try_from(*seq).unwrap() - 1);
                assert_eq!(
                    there.map(|(_, body)| body),
                    Some(body),
                    "item {seq} of {context} by {:?}",
                    writer.naming
                );
                known += 1;
            }
        }
        let open: Vec<&String> = writers
            .iter()
            .flat_map(|writer| {
                writer
                    .unknown
                    .iter()
                    .chain(writer.open.iter().flat_map(|append| &append.bodies))
            })
            .collect();
        let unasked = stored.iter().filter(|(_, body)| open.contains(&body)).count();
        assert_eq!(
            stored.len(),
            known + unasked,
            "{context} has items that nobody sent"
        );
    }
}

/// All items as seq and body.
fn stored(client: &Client, context: &str) -> Vec<(u64, String)> {
    let mut items = Vec::new();
    let mut after = 0;
    loop {
        let page = client.get(&format!("/v1/contexts/{context}/items?limit=1000&after={after}"));
        assert_eq!(page.status, 200, "{}", page.text());
        let page: Page = serde_json::from_slice(&page.body).unwrap();
        items.extend(
            page.items
                .into_iter()
                .map(|item| (item.seq, item.item.get().to_owned())),
        );
        match (page.next_cursor, items.last()) {
            (Some(_), Some((last, _))) => after = *last,
            _ => return items,
        }
    }
}

#[derive(serde::Deserialize)]
struct Page {
    items: Vec<Stored>,
    next_cursor: Option<Value>,
}

#[derive(serde::Deserialize)]
struct Stored {
    seq: u64,
    item: Box<serde_json::value::RawValue>,
}
