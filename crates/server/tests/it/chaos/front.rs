//! Planted bugs: a front between the clients and one node that does to requests and answers what a server with the bug
//! would do. Nothing in the product knows of it, and a run with it has to fail by the guarantee that it breaks.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::wire::{Request, Wire};
use crate::support::http::Response;

/// What is wrong with the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// A session's reads are not measured against what it has seen: whatever is at hand will do.
    SkipFloor,
    /// What was read is kept without looking at versions, and whoever comes last overwrites: also with what is older.
    BlindSet,
    /// Appends are answered before they are committed, and some of them then are not.
    AckBeforeCommit,
}

/// One of so many appends is lost after it was acknowledged.
const LOST: usize = 5;
/// How long what was kept is served.
const KEPT: Duration = Duration::from_secs(2);

/// What all connections of a front share.
struct Shared {
    bug: Bug,
    upstream: SocketAddr,
    kept: Mutex<HashMap<String, (Arc<Response>, tokio::time::Instant)>>,
    appends: Mutex<usize>,
}

/// Starts the front of a node; it ends with the process. Answers where it listens.
pub(super) fn start(bug: Bug, upstream: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::new(Shared {
        bug,
        upstream,
        kept: Mutex::default(),
        appends: Mutex::default(),
    });
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let shared = shared.clone();
            // A connection ends with an error when either side goes away.
            std::thread::spawn(move || drop(serve(&shared, client)));
        }
    });
    address
}

/// A request as it came.
struct Asked {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn is_append(&self) -> bool {
        self.method == "POST" && self.path.ends_with("/items")
    }
}

fn serve(shared: &Shared, client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = BufReader::new(client);
    let mut upstream = Wire::default();
    while let Some(asked) = read(&mut client)? {
        let response = answer(shared, &mut upstream, &asked)?;
        client.get_mut().write_all(&written(&response))?;
    }
    Ok(())
}

fn answer(shared: &Shared, upstream: &mut Wire, asked: &Asked) -> io::Result<Response> {
    match shared.bug {
        Bug::SkipFloor => forward(shared, upstream, &anything(asked), &[]),
        Bug::BlindSet if asked.method == "GET" => remembered(shared, upstream, asked),
        Bug::AckBeforeCommit if asked.is_append() => early(shared, upstream, asked),
        _ => forward(shared, upstream, asked, &[]),
    }
}

/// A session's read as a server takes it that forgets the floor: whatever is at hand will do.
fn anything(asked: &Asked) -> Asked {
    let has_floor = asked.header("contextkeep-token").is_some();
    let mut headers = asked.headers.clone();
    if has_floor && asked.header("contextkeep-consistency").is_none() {
        headers.retain(|(name, _)| name != "contextkeep-token");
        headers.push(("contextkeep-consistency".to_owned(), "any".to_owned()));
    }
    Asked {
        method: asked.method,
        path: asked.path.clone(),
        headers,
        body: asked.body.clone(),
    }
}

/// Passes a request on, without these headers.
fn forward(shared: &Shared, upstream: &mut Wire, asked: &Asked, without: &[&str]) -> io::Result<Response> {
    const PASSED: [&str; 4] = [
        "authorization",
        "contextkeep-token",
        "contextkeep-consistency",
        "idempotency-key",
    ];
    let passed = PASSED.into_iter().filter(|name| !without.contains(name));
    let headers = passed
        .filter_map(|name| Some((name, asked.header(name)?)))
        .collect();
    let request = Request {
        method: asked.method,
        path: asked.path.clone(),
        headers,
        body: asked.body.clone(),
    };
    upstream.call(shared.upstream, &request)
}

/// A cache that is set blindly: what it has is served for a while, whatever the version, and a slow reader overwrites
/// what a quick one brought after it.
fn remembered(shared: &Shared, upstream: &mut Wire, asked: &Asked) -> io::Result<Response> {
    let lock = || shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
    let name = format!("{:?} {}", asked.header("authorization"), asked.path);
    let kept = lock().get(&name).cloned();
    if let Some((response, at)) = kept
        && at.elapsed() < KEPT
    {
        return Ok(Response::clone(&response));
    }
    let response = forward(shared, upstream, asked, &[])?;
    if response.status == 200 {
        lock().insert(name, (Arc::new(response.clone()), tokio::time::Instant::now()));
    }
    Ok(response)
}

/// Looks where the append would go, answers that it is there, and sends it on only then, mostly.
fn early(shared: &Shared, upstream: &mut Wire, asked: &Asked) -> io::Result<Response> {
    let head = Asked {
        method: "GET",
        path: asked.path.trim_end_matches("/items").to_owned(),
        headers: vec![
            (
                "authorization".to_owned(),
                asked.header("authorization").unwrap_or_default().to_owned(),
            ),
            ("contextkeep-consistency".to_owned(), "strong".to_owned()),
        ],
        body: String::new(),
    };
    let mut response = forward(shared, upstream, &head, &[])?;
    if response.status != 200 {
        return forward(shared, upstream, asked, &[]);
    }
    let (head, sent): (Value, Value) = (response.json(), serde_json::from_str(&asked.body)?);
    let (next_seq, version) = (
        head["next_seq"].as_u64().unwrap(),
        head["version"].as_u64().unwrap() + 1,
    );
    let items = sent["items"].as_array().map_or(0, Vec::len) as u64;
    let promise = json!({"first_seq": next_seq, "last_seq": next_seq + items - 1, "tokens": 16 * items,
        "version": version, "over_budget": false});
    response.body = promise.to_string().into_bytes();
    response.headers.retain(|(name, _)| name != "etag");
    response
        .headers
        .push(("etag".to_owned(), format!("\"{version}\"")));
    let number = {
        let mut appends = shared.appends.lock().unwrap_or_else(PoisonError::into_inner);
        *appends += 1;
        *appends
    };
    if number % LOST != 0 {
        // Whatever comes of it: the client has its answer.
        drop(forward(shared, upstream, asked, &[]));
    }
    Ok(response)
}

/// The next request of a connection; nothing when its client is done.
fn read(client: &mut BufReader<TcpStream>) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if client.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let known = ["GET", "POST", "DELETE"];
    let method = words
        .next()
        .and_then(|word| known.into_iter().find(|known| *known == word));
    let method = method.ok_or_else(|| io::Error::other("not a method of ours"))?;
    let path = words.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        client.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut asked = Asked {
        method,
        path,
        headers,
        body: String::new(),
    };
    let length = asked
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    client.read_exact(&mut body)?;
    asked.body = String::from_utf8(body).map_err(io::Error::other)?;
    Ok(Some(asked))
}

fn written(response: &Response) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {} Planted\r\n", response.status).into_bytes();
    for (name, value) in &response.headers {
        if !matches!(
            name.as_str(),
            "content-length" | "transfer-encoding" | "connection"
        ) {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
    if response.status != 204 {
        bytes.extend_from_slice(format!("content-length: {}\r\n", response.body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&response.body);
    bytes
}
