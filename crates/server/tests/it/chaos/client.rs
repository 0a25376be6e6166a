//! One client: its session, its connections, and what it was answered, noted as it happens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

use contextkeep_test_support::wait;
use serde_json::json;

use super::answer;
use super::history::{Answer, Demand, Item, Moment, Name, Operation, What};
use super::wire::{Request, Wire};
use crate::support::{ACME, OTHER};

/// The tenants' credentials, in the order of their names.
const SECRETS: [&str; 2] = [ACME, OTHER];
/// Tokens of a window, so that not every window is the whole context.
const WINDOW_TOKENS: u32 = 400;
/// Items of a page.
const PAGE_ITEMS: u32 = 40;

/// Where the nodes are, and since when the run goes on.
pub(super) struct Nodes {
    addresses: Vec<RwLock<SocketAddr>>,
    clock: Box<dyn Fn() -> Moment + Send + Sync>,
}

impl Nodes {
    pub(super) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            addresses: addresses.into_iter().map(RwLock::new).collect(),
            clock: Box::new(wait::stopwatch()),
        }
    }

    pub(super) fn now(&self) -> Moment {
        (self.clock)()
    }

    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn address(&self, node: usize) -> SocketAddr {
        *self.addresses[node]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A node has come back elsewhere.
    pub(super) fn moved(&self, node: usize, to: SocketAddr) {
        *self.addresses[node]
            .write()
            .unwrap_or_else(PoisonError::into_inner) = to;
    }
}

/// What a client has seen, as it knows it and as its token says it.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    token: Option<String>,
    pub(super) floors: BTreeMap<Name, u64>,
}

/// One client of one tenant. It does one thing at a time.
pub(super) struct Client<'run> {
    nodes: &'run Nodes,
    pub(super) number: u16,
    pub(super) tenant: u8,
    pub(super) session: Session,
    wires: Vec<Wire>,
    pub(super) operations: Vec<Operation>,
}

/// One append of a batch.
pub(super) type Entry = (Name, Option<String>, Vec<Item>);

impl<'run> Client<'run> {
    pub(super) fn new(nodes: &'run Nodes, number: u16, tenant: u8) -> Self {
        Self {
            nodes,
            number,
            tenant,
            session: Session::default(),
            wires: (0..nodes.len()).map(|_| Wire::default()).collect(),
            operations: Vec::new(),
        }
    }

    /// Asks a node and notes what came of it.
    pub(super) fn ask(&mut self, node: usize, context: &Name, what: What, demand: Demand) -> &Operation {
        let contexts = match &what {
            What::List | What::Search => self.session.floors.keys().cloned().collect(),
            _ => vec![context.clone()],
        };
        let (method, path, body) = request(context, &what);
        let floors = self.floors(&contexts, demand);
        let key = key_of(&what);
        let (began, reply, ended) = self.send(node, method, path, body, key.as_deref(), demand);
        let answer = match reply {
            Ok(response) => answer::read(context, &what, &response),
            Err(error) => Answer::Unknown {
                status: 0,
                why: error.to_string(),
            },
        };
        self.note(Operation {
            client: self.number,
            node,
            tenant: self.tenant,
            began,
            ended,
            context: context.clone(),
            what,
            demand,
            floors,
            answer,
        })
    }

    /// Reads several heads in one request.
    pub(super) fn ask_many(&mut self, node: usize, contexts: &[Name], demand: Demand) {
        let ids: Vec<&str> = contexts.iter().map(|name| &**name).collect();
        let body = json!({ "get": ids }).to_string();
        let floors = self.floors(contexts, demand);
        let (began, reply, ended) = self.send(node, "POST", "/v1/batch".to_owned(), body, None, demand);
        let answer = match reply {
            Ok(response) => answer::read_many(contexts, &response),
            Err(error) => Answer::Unknown {
                status: 0,
                why: error.to_string(),
            },
        };
        self.note(Operation {
            client: self.number,
            node,
            tenant: self.tenant,
            began,
            ended,
            context: Name::from(""),
            what: What::BatchGet,
            demand,
            floors,
            answer,
        });
    }

    /// Appends to several contexts in one request: an operation each, of the same time.
    pub(super) fn append_many(&mut self, node: usize, entries: Vec<Entry>) {
        let body = batch_of(&entries);
        let demand = Demand::Session;
        let contexts: Vec<Name> = entries.iter().map(|(context, ..)| context.clone()).collect();
        let floors = self.floors(&contexts, demand);
        let (began, reply, ended) = self.send(node, "POST", "/v1/batch".to_owned(), body, None, demand);
        let count = entries.len();
        let answers = match reply {
            Ok(response) => answer::read_appends(&contexts, &response),
            Err(error) => vec![
                Answer::Unknown {
                    status: 0,
                    why: error.to_string()
                };
                count
            ],
        };
        for ((context, key, items), answer) in entries.into_iter().zip(answers) {
            self.note(Operation {
                client: self.number,
                node,
                tenant: self.tenant,
                began,
                ended,
                context,
                what: What::Append { key, items },
                demand,
                floors: floors.clone(),
                answer,
            });
        }
    }

    /// What the token that goes with a request has seen of these.
    fn floors(&self, contexts: &[Name], demand: Demand) -> BTreeMap<Name, u64> {
        if !demand.has_floor() {
            return BTreeMap::new();
        }
        let seen = |name: &Name| Some((name.clone(), *self.session.floors.get(name)?));
        contexts.iter().filter_map(seen).collect()
    }

    fn send(
        &mut self,
        node: usize,
        method: &'static str,
        path: String,
        body: String,
        key: Option<&str>,
        demand: Demand,
    ) -> (Moment, std::io::Result<crate::support::http::Response>, Moment) {
        let bearer = format!("Bearer {}", SECRETS[usize::from(self.tenant)]);
        let mut headers = vec![("authorization", bearer.as_str())];
        let consistency = match demand {
            Demand::Session | Demand::Bare => None,
            Demand::Strong => Some("strong"),
            Demand::Bounded => Some("bounded"),
            Demand::Any => Some("any"),
        };
        headers.extend(consistency.map(|name| ("contextkeep-consistency", name)));
        let token = self.session.token.as_deref().filter(|_| demand != Demand::Bare);
        headers.extend(token.map(|token| ("contextkeep-token", token)));
        headers.extend(key.map(|key| ("idempotency-key", key)));
        let request = Request {
            method,
            path,
            headers,
            body,
        };
        let began = self.nodes.now();
        let reply = self.wires[node].call(self.nodes.address(node), &request);
        let ended = self.nodes.now();
        if let Ok(response) = &reply
            && (200..300).contains(&response.status)
            && demand != Demand::Bare
            && let Some(token) = response.header("contextkeep-token")
        {
            self.session.token = Some(token.to_owned());
        }
        (began, reply, ended)
    }

    fn note(&mut self, operation: Operation) -> &Operation {
        if operation.demand != Demand::Bare
            && let Some(done) = operation.done()
        {
            let own = done.tag.map(|tag| (operation.context.clone(), tag));
            let shown = done
                .sights
                .iter()
                .filter_map(|sight| Some((sight.context.clone(), sight.version?)));
            for (context, version) in own.into_iter().chain(shown) {
                let floor = self.session.floors.entry(context).or_default();
                *floor = version.max(*floor);
            }
        }
        if matches!(&operation.answer, Answer::Refused { code, .. } if code == "session_lost") {
            self.session = Session::default();
        }
        self.operations.push(operation);
        self.operations.last().unwrap()
    }
}

fn key_of(what: &What) -> Option<String> {
    match what {
        What::Append { key, .. } => key.clone(),
        _ => None,
    }
}

fn items_of(items: &[Item]) -> String {
    let bodies: Vec<String> = items.iter().map(|item| item.body()).collect();
    format!("[{}]", bodies.join(","))
}

fn batch_of(entries: &[Entry]) -> String {
    let appends: Vec<String> = entries
        .iter()
        .map(|(context, key, items)| {
            let key = key
                .as_ref()
                .map(|key| format!(r#","idempotency_key":"{key}""#))
                .unwrap_or_default();
            format!(r#"{{"id":"{context}","items":{}{key}}}"#, items_of(items))
        })
        .collect();
    format!(r#"{{"append":[{}]}}"#, appends.join(","))
}

/// Method, path and body.
fn request(context: &Name, what: &What) -> (&'static str, String, String) {
    let at = |rest: &str| format!("/v1/contexts/{context}{rest}");
    match what {
        What::Create => (
            "POST",
            "/v1/contexts".to_owned(),
            json!({"id": &**context, "agent_id": "a"}).to_string(),
        ),
        What::Append { items, .. } => (
            "POST",
            at("/items"),
            format!(r#"{{"items":{}}}"#, items_of(items)),
        ),
        What::Replace { items } => (
            "POST",
            at("/replace"),
            format!(r#"{{"items":{}}}"#, items_of(items)),
        ),
        What::Truncate => ("POST", at("/truncate"), r#"{"max_tokens":300}"#.to_owned()),
        What::Delete => ("DELETE", at(""), String::new()),
        What::Fork { parent } => (
            "POST",
            format!("/v1/contexts/{parent}/fork"),
            json!({"context": {"id": &**context, "agent_id": "fork"}}).to_string(),
        ),
        What::Head | What::Foreign => ("GET", at(""), String::new()),
        What::Items => (
            "GET",
            at(&format!("/items?order=desc&limit={PAGE_ITEMS}")),
            String::new(),
        ),
        What::Window => (
            "GET",
            at(&format!("/window?max_tokens={WINDOW_TOKENS}")),
            String::new(),
        ),
        What::List => ("GET", "/v1/contexts?limit=30".to_owned(), String::new()),
        What::Search => (
            "POST",
            "/v1/search".to_owned(),
            json!({"query": "words", "limit": 20}).to_string(),
        ),
        What::BatchGet => ("POST", "/v1/batch".to_owned(), r#"{"get":[]}"#.to_owned()),
    }
}
