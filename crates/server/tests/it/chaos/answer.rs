//! Answers of the server, read into what the checker needs of them.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::history::{Answer, Appended, Done, Extent, Item, Name, Origin, Sight, What};
use crate::support::http::Response;

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<Stored<'a>>,
}

#[derive(Deserialize)]
struct Stored<'a> {
    seq: u64,
    #[serde(borrow)]
    item: &'a RawValue,
}

#[derive(Deserialize)]
struct Hits<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct Hit<'a> {
    context_id: String,
    seq: u64,
    #[serde(borrow)]
    item: &'a RawValue,
}

/// The answer about one context, or to a list or search.
pub(super) fn read(context: &Name, what: &What, response: &Response) -> Answer {
    if let Some(answer) = not_done(response.status, || code_of(&response.json())) {
        return answer;
    }
    let mut done = headers(response);
    match what {
        What::Append { .. } | What::Replace { .. } => {
            let appended = appended(&response.json());
            done.sights.extend(appended.map(|appended| {
                // Nobody else can have taken part in this version.
                Sight::of(context.clone(), Some(appended.version))
            }));
            done.appended = appended;
        }
        What::Create | What::Fork { .. } | What::Head | What::Foreign => {
            done.sights.extend(head(&response.json()));
        }
        What::Truncate => {
            let answer = response.json();
            done.dropped = ranges(&answer["dropped_ranges"]);
            done.sights.extend(head(&answer["context"]));
        }
        What::Items | What::Window => {
            let version = if *what == What::Window {
                response.json()["version"].as_u64()
            } else {
                done.tag
            };
            let page: Page<'_> = serde_json::from_slice(&response.body).unwrap();
            let mut sight = Sight::of(context.clone(), version);
            sight.items = page
                .items
                .iter()
                .map(|stored| (stored.seq, Item::parse(stored.item.get())))
                .collect();
            done.sights.push(sight);
        }
        What::List => {
            let answer = response.json();
            done.sights.extend(
                answer["contexts"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(head),
            );
        }
        What::Search => {
            let page: Hits<'_> = serde_json::from_slice(&response.body).unwrap();
            done.sights.extend(page.hits.into_iter().map(|hit| {
                let mut sight = Sight::of(hit.context_id.into(), None);
                sight.items.push((hit.seq, Item::parse(hit.item.get())));
                sight
            }));
        }
        What::Delete | What::BatchGet => {}
    }
    Answer::Done(done)
}

/// The answer to a batch of reads.
pub(super) fn read_many(contexts: &[Name], response: &Response) -> Answer {
    if let Some(answer) = not_done(response.status, || code_of(&response.json())) {
        return answer;
    }
    let mut done = headers(response);
    for (context, result) in contexts.iter().zip(results(response)) {
        match result["status"].as_u64() {
            Some(200) => done.sights.extend(head(&result["context"])),
            Some(404) => done.absent.push(context.clone()),
            _ => {}
        }
    }
    Answer::Done(done)
}

/// The answers to a batch of appends.
pub(super) fn read_appends(contexts: &[Name], response: &Response) -> Vec<Answer> {
    if let Some(answer) = not_done(response.status, || code_of(&response.json())) {
        return vec![answer; contexts.len()];
    }
    let each = contexts.iter().zip(results(response)).map(|(context, result)| {
        let status = result["status"]
            .as_u64()
            .and_then(|status| u16::try_from(status).ok());
        if let Some(answer) = not_done(status.unwrap_or_default(), || code_of(&result["problem"])) {
            return answer;
        }
        let mut done = headers(response);
        done.appended = appended(&result["appended"]);
        done.tag = done.appended.map(|appended| appended.version);
        done.sights.extend(
            done.appended
                .map(|appended| Sight::of(context.clone(), Some(appended.version))),
        );
        Answer::Done(done)
    });
    each.collect()
}

fn results(response: &Response) -> Vec<Value> {
    match response.json()["results"].take() {
        Value::Array(results) => results,
        other => panic!("a batch without results: {other}"),
    }
}

fn not_done(status: u16, code: impl FnOnce() -> String) -> Option<Answer> {
    match status {
        200..300 => None,
        429 | 500.. => Some(Answer::Unknown { status, why: code() }),
        _ => Some(Answer::Refused { status, code: code() }),
    }
}

fn code_of(problem: &Value) -> String {
    problem["code"].as_str().unwrap_or_default().to_owned()
}

fn headers(response: &Response) -> Done {
    let number = |name: &str| response.header(name)?.trim_matches('"').parse().ok();
    Done {
        origin: response.header("contextkeep-origin").and_then(Origin::parse),
        age: number("age"),
        tag: number("etag"),
        ..Done::default()
    }
}

fn appended(answer: &Value) -> Option<Appended> {
    Some(Appended {
        first_seq: answer["first_seq"].as_u64()?,
        last_seq: answer["last_seq"].as_u64()?,
        tokens: answer["tokens"].as_u64()?,
        version: answer["version"].as_u64()?,
    })
}

fn head(head: &Value) -> Option<Sight> {
    let mut sight = Sight::of(head["id"].as_str()?.into(), Some(head["version"].as_u64()?));
    sight.extent = Some(Extent {
        first_seq: head["first_seq"].as_u64()?,
        next_seq: head["next_seq"].as_u64()?,
        items: head["item_count"].as_u64()?,
    });
    Some(sight)
}

fn ranges(ranges: &Value) -> Vec<(u64, u64)> {
    let pair = |range: &Value| Some((range["first_seq"].as_u64()?, range["last_seq"].as_u64()?));
    ranges.as_array().into_iter().flatten().filter_map(pair).collect()
}
