//! Search by meaning on both faces, with an embedder that this test serves.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use contextkeep_core::contract::meaning;
use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::{Server, eventually};

const KEY: &str = "sk-not-for-the-log";
const DIMENSIONS: u16 = 128;

/// An endpoint that embeds by letters, or is down.
pub(crate) struct Embedder {
    url: String,
    texts: Arc<Mutex<Vec<String>>>,
    /// The `traceparent` of those who asked for each text, nothing for those who sent none.
    traceparents: Arc<Mutex<BTreeMap<String, String>>>,
    is_down: Arc<AtomicBool>,
}

impl Embedder {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (texts, is_down): (Arc<Mutex<Vec<String>>>, Arc<AtomicBool>) = Default::default();
        let (noted, down) = (texts.clone(), is_down.clone());
        let traceparents: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
        let traced = traceparents.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let (mut length, mut line, mut traceparent) = (0, String::new(), String::new());
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.trim().parse().unwrap();
                    }
                    if let Some(value) = line.strip_prefix("traceparent: ") {
                        value.trim().clone_into(&mut traceparent);
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let asked: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(asked["model"], "letters");
                let input = asked["input"].as_array().unwrap().iter();
                let input: Vec<String> = input.map(|text| text.as_str().unwrap().to_owned()).collect();
                let embed = |text: &String| json!({"embedding": meaning(text, DIMENSIONS)});
                let data: Vec<Value> = input.iter().map(embed).collect();
                let (status, body) = if down.load(Ordering::SeqCst) {
                    ("500 Internal Server Error", String::new())
                } else {
                    let of_each = input.iter().map(|text| (text.clone(), traceparent.clone()));
                    traced.lock().unwrap().extend(of_each);
                    noted.lock().unwrap().extend(input);
                    ("200 OK", json!({ "data": data }).to_string())
                };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
                let mut stream = reader.into_inner();
                // Who has stopped does not listen any more.
                drop(stream.write_all((head + &body).as_bytes()));
            }
        });
        Self {
            url,
            texts,
            traceparents,
            is_down,
        }
    }

    /// What whoever last asked for this text sent as `traceparent`, nothing if he sent none; `None` if nobody has asked.
    pub(crate) fn traceparent(&self, text: &str) -> Option<String> {
        self.traceparents.lock().unwrap().get(text).cloned()
    }

    pub(crate) fn config(&self, more: &str) -> String {
        format!(
            "context_manager: {{ semantic: {{ endpoint: '{}', model: letters, dimensions: {DIMENSIONS}, \
             api_key: '{KEY}', max_retries: 0, poll: 20ms, {more} }} }}",
            self.url
        )
    }

    fn times(&self, text: &str) -> usize {
        let texts = self.texts.lock().unwrap();
        texts.iter().filter(|one| *one == text).count()
    }
}

const TALK: [&str; 4] = [
    "we fly to Paris on Friday",
    "the invoice is overdue",
    "a flight to Paris",
    "flights, flying, flight plans for Parisians",
];

fn talk(client: &Client, id: &str) {
    client
        .post("/v1/contexts", json!({"id": id, "agent_id": "a"}).to_string())
        .ok();
    let items: Vec<Value> = TALK
        .iter()
        .map(|text| json!({"role": "user", "content": text}))
        .collect();
    client
        .post(
            &format!("/v1/contexts/{id}/items"),
            json!({ "items": items }).to_string(),
        )
        .ok();
}

fn search(client: &Client, path: &str, query: &Value) -> Value {
    client.post(path, query.to_string()).ok()
}

fn seqs(page: &Value) -> Vec<u64> {
    let hits = page["hits"].as_array().unwrap().iter();
    hits.map(|hit| hit["seq"].as_u64().unwrap()).collect()
}

/// Waits until so many items can be found by meaning.
fn settle(client: &Client, items: u64) -> Value {
    let query = json!({"query": "parisian flights", "mode": "semantic"});
    eventually("all items are embedded", || {
        let page = search(client, "/v1/search", &query);
        (page["semantic"]["scanned"] == items && page["lag_items"] == 0).then_some(page)
    })
}

#[test]
fn both_faces_find_what_no_word_of_the_question_is_in() {
    let embedder = Embedder::new();
    let server = Server::with(&embedder.config("scan_max: 5"));
    let client = server.client();
    talk(&client, "c");
    let page = settle(&client, 4);
    assert_eq!(seqs(&page)[0], 4);
    assert_eq!(
        page["semantic"],
        json!({"model": "letters", "scanned": 4, "cut_off": false})
    );
    assert_eq!(page.get("degraded"), None);
    assert_eq!(embedder.times(TALK[0]), 1);
    // By words nothing is found, and nobody is asked.
    let words = search(&client, "/v1/search", &json!({"query": "parisian flights"}));
    assert_eq!((seqs(&words), words.get("semantic")), (Vec::new(), None));
    // Pages end where they should.
    let mut query = json!({"query": "parisian flights", "mode": "semantic", "limit": 3});
    let first = search(&client, "/v1/contexts/c/search", &query);
    query["cursor"] = first["next_cursor"].clone();
    let second = search(&client, "/v1/contexts/c/search", &query);
    assert_eq!([seqs(&first), seqs(&second)].concat(), seqs(&page));
    assert_eq!(second["next_cursor"], Value::Null);
    query["mode"] = "hybrid".into();
    client
        .post("/v1/contexts/c/search", query.to_string())
        .problem(422, "invalid");
    for mode in ["semantic", "hybrid"] {
        let query = json!({"query": "flight to paris", "mode": mode});
        let rest = search(&client, "/v1/contexts/c/search", &query);
        let arguments = json!({"id": "c", "query": "flight to paris", "mode": mode});
        let tool = crate::summaries::tool(&client, "context_search", &arguments);
        assert_eq!(seqs(&rest), seqs(&tool), "{mode}: {tool}");
        assert_eq!(
            (seqs(&rest)[0], &rest["semantic"]),
            (3, &tool["semantic"]),
            "{mode}"
        );
    }
    talk(&client, "d");
    let page = eventually("the newest five are those that are looked at", || {
        let query = json!({"query": "flight", "mode": "semantic"});
        let page = search(&client, "/v1/search", &query);
        (page["semantic"]["cut_off"] == true).then_some(page)
    });
    assert_eq!(page["semantic"]["scanned"], 5);
    let figures = client.get("/metrics").text();
    assert!(
        figures.contains("contextkeep_server_embedder_breaker_info{state=\"closed\"} 1"),
        "{figures}"
    );
    let log = server.log();
    assert!(!log.contains(KEY) && !log.contains("invoice"), "{log}");
}

#[test]
fn without_the_embedder_one_mode_answers_503_and_the_other_by_words() {
    let embedder = Embedder::new();
    let server = Server::with(&embedder.config("failure_threshold: 1, open_time: 5m"));
    let client = server.client();
    talk(&client, "c");
    settle(&client, 4);
    embedder.is_down.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let query = json!({"query": "flight", "mode": "semantic"});
        let answer = client.post("/v1/search", query.to_string());
        assert!(
            answer
                .header("retry-after")
                .is_some_and(|wait| wait.parse::<u64>().is_ok())
        );
        answer.problem(503, "embedder_unavailable");
        let query = json!({"query": "flight", "mode": "hybrid"});
        let page = search(&client, "/v1/search", &query);
        assert_eq!(page["degraded"], "embedder_unavailable");
        let mut found = seqs(&page);
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
    }
    // What is appended meanwhile is not lost.
    talk(&client, "d");
    server.terminate();
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
}

#[test]
fn without_a_configured_embedder_the_key_to_set_is_named() {
    let server = Server::start();
    let client = server.client();
    talk(&client, "c");
    for mode in ["semantic", "hybrid"] {
        let query = json!({"query": "flight", "mode": mode});
        let problem = client
            .post("/v1/search", query.to_string())
            .problem(422, "invalid");
        assert!(
            problem.to_string().contains("context_manager.semantic.endpoint"),
            "{problem}"
        );
    }
    let query = json!({"query": "flight", "mode": "telepathy"});
    client
        .post("/v1/search", query.to_string())
        .problem(422, "invalid");
    let page = search(&client, "/v1/search", &json!({"query": "flight", "mode": "text"}));
    assert_eq!(page.get("semantic"), None);
}
