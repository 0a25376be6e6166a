//! What a request says, parsed with errors that name the field.

use std::borrow::Cow;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use bytes::Bytes;
use contextkeep_core::{ContextId, ContextKey, Error, IdempotencyKey, Invalid, Version};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;

use super::Rest;
use super::problem::Problem;
use crate::auth::Principal;

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // There is no default: a request that reaches a handler without one is a defect of the wiring.
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Problem::new("unauthorized", "the request has no credential"))
    }
}

/// The context in the path, of the caller's tenant.
pub(super) struct Key(pub(super) ContextKey);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, state).await?;
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::new("malformed_request", format!("the path: {error}")))?;
        Ok(Self(ContextKey::new(principal.tenant, ContextId::parse(&id)?)))
    }
}

/// The whole body, bounded by `server.max_body`.
pub(super) struct Body(pub(super) Bytes);

impl FromRequest<Rest> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, rest: &Rest) -> Result<Self, Problem> {
        let media = request
            .headers()
            .get(header::CONTENT_TYPE)
            .map(|value| value.to_str().unwrap_or_default());
        let essence = media.map(|media| media.split(';').next().unwrap_or_default().trim());
        if essence.is_some_and(|essence| !is_json(essence)) {
            return Err(Problem::new(
                "unsupported_media_type",
                format!("{:?} is not JSON", media.unwrap_or_default()),
            )
            .hint("send Content-Type: application/json"));
        }
        let limit = usize::try_from(rest.settings.max_body.as_u64()).unwrap_or(usize::MAX);
        // Refused before it is read where the client says its size.
        let declared = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if let Some(actual) = declared.filter(|actual| *actual > limit as u64) {
            return Err(too_large(actual, limit as u64));
        }
        match Limited::new(request.into_body(), limit).collect().await {
            Ok(body) => Ok(Self(body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit as u64 + 1, limit as u64)),
            Err(error) => Err(Problem::new(
                "malformed_request",
                format!("the body did not arrive whole: {error}"),
            )),
        }
    }
}

fn is_json(essence: &str) -> bool {
    essence.eq_ignore_ascii_case("application/json")
        || essence.to_ascii_lowercase().ends_with("+json")
        || essence.eq_ignore_ascii_case("application/x-ndjson")
        || essence.eq_ignore_ascii_case("application/jsonl")
}

fn too_large(actual: u64, limit: u64) -> Problem {
    Error::TooLarge {
        what: "the body in bytes".into(),
        actual,
        limit,
    }
    .into()
}

impl Body {
    /// The body as a value. Unknown and duplicate fields are errors.
    pub(super) fn json<'body, T: Deserialize<'body>>(&'body self) -> Result<T, Problem> {
        let text = std::str::from_utf8(&self.0).map_err(|error| {
            Problem::new(
                "malformed_request",
                format!("the body is not UTF-8 at byte {}", error.valid_up_to()),
            )
        })?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            problem_of(
                error.inner(),
                &field_of(error.inner(), if path == "." { "" } else { &path }),
            )
        })?;
        deserializer.end().map_err(|error| problem_of(&error, ""))?;
        Ok(value)
    }
}

/// The field that an error is about. The path to one that is missing ends above it; its name is in the words only.
fn field_of(error: &serde_json::Error, path: &str) -> String {
    let words = error.to_string();
    let missing = words
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'));
    match missing {
        Some((name, _)) if path.is_empty() => name.to_owned(),
        Some((name, _)) => format!("{path}.{name}"),
        None => path.to_owned(),
    }
}

fn problem_of(error: &serde_json::Error, path: &str) -> Problem {
    if error.is_data() {
        Error::from(Invalid::new(path.to_owned(), error.to_string())).into()
    } else {
        Problem::new("malformed_json", error.to_string()).hint("send one JSON object")
    }
}

/// `If-Match`: the version that a write is conditional on.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<Version>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        // `parse` would also take "+7", which no ETag of ours is.
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok());
    version.map(Some).ok_or_else(|| {
        Error::from(
            Invalid::new("If-Match", format!("{text:?} is not an ETag of a context"))
                .hint("send the ETag as it came, such as \"7\""),
        )
        .into()
    })
}

/// `Idempotency-Key`.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    Ok(Some(IdempotencyKey::parse(value.to_str().unwrap_or_default())?))
}

/// The query string, taken apart key by key; what is left over is an error.
pub(super) struct Params<'query> {
    pairs: Vec<(Cow<'query, str>, Cow<'query, str>)>,
    /// The keys that were asked for while something was left.
    known: Vec<&'static str>,
}

impl<S: Sync> FromRequestParts<S> for Params<'static> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let pairs = Params::of(&parts.uri).pairs.into_iter();
        Ok(Self {
            pairs: pairs.map(|(name, value)| (owned(name), owned(value))).collect(),
            known: Vec::new(),
        })
    }
}

impl<'query> Params<'query> {
    /// The query of a request.
    pub(super) fn of(uri: &'query Uri) -> Self {
        Self {
            pairs: pairs(uri.query().unwrap_or_default()),
            known: Vec::new(),
        }
    }

    /// Takes one of the values of a key, the first.
    fn take(&mut self, key: &'static str) -> Option<Cow<'query, str>> {
        let place = self.pairs.iter().position(|(name, _)| name == key)?;
        Some(self.pairs.remove(place).1)
    }

    /// With nothing left, nothing will be refused, and nobody is told which keys there are.
    fn know(&mut self, key: &'static str) {
        if !self.pairs.is_empty() {
            self.known.push(key);
        }
    }

    /// All values of a key.
    pub(super) fn all(&mut self, key: &'static str) -> Vec<String> {
        // Each pair is moved once, however many there are of this key.
        let (taken, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pairs)
            .into_iter()
            .partition(|(name, _)| name == key);
        self.pairs = left;
        self.know(key);
        taken.into_iter().map(|(_, value)| value.into_owned()).collect()
    }

    /// The one value of a key.
    pub(super) fn one(&mut self, key: &'static str) -> Result<Option<Cow<'query, str>>, Problem> {
        if self.pairs.is_empty() {
            return Ok(None);
        }
        let value = self.take(key);
        if value.is_some() && self.take(key).is_some() {
            return Err(Error::from(Invalid::new(key, "is given more than once")).into());
        }
        self.know(key);
        Ok(value)
    }

    /// The one value of a key as a number.
    pub(super) fn number(&mut self, key: &'static str) -> Result<Option<u64>, Problem> {
        self.one(key)?
            .map(|text| text.parse().map_err(|_| not_a_number(key, &text)))
            .transpose()
    }

    /// `true` or `false`; not if not said.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool, Problem> {
        match self.one(key)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                let invalid = Invalid::new(key, format!("{other:?} is neither true nor false"));
                Err(Error::from(invalid).into())
            }
        }
    }

    /// How many entries a page has: from 1 to `max`, `default` if not said.
    pub(super) fn limit(&mut self, default: u32, max: u32) -> Result<u32, Problem> {
        match self.number("limit")? {
            None => Ok(default.min(max)),
            Some(limit) => u32::try_from(limit)
                .ok()
                .filter(|limit| (1..=max).contains(limit))
                .ok_or_else(|| {
                    Error::from(
                        Invalid::new("limit", format!("is {limit}")).hint(format!("ask for 1 to {max}")),
                    )
                    .into()
                }),
        }
    }

    /// Refuses keys that nobody asked for: a misspelt filter must not widen an answer.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => {
                let known = self.known.join(", ");
                Err(Error::from(
                    Invalid::new(key.clone().into_owned(), "is not a parameter of this request")
                        .hint(format!("it takes: {known}")),
                )
                .into())
            }
        }
    }
}

/// The pairs of a query. Most have nothing in them that is to be decoded, and are only taken apart.
fn pairs<'query>(query: &'query str) -> Vec<(Cow<'query, str>, Cow<'query, str>)> {
    if query.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return form_urlencoded::parse(query.as_bytes()).collect();
    }
    // Sets of one letter: a loop, which for texts this short is faster than the search for a byte.
    let plain = |pair: &'query str| pair.split_once(['=']).unwrap_or((pair, ""));
    let pairs = query.split(['&']).filter(|pair| !pair.is_empty());
    pairs
        .map(plain)
        .map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value)))
        .collect()
}

fn not_a_number(key: &'static str, text: &str) -> Problem {
    Error::from(Invalid::new(key, format!("{text:?} is not a whole number"))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every query of up to six of these, against the library.
    #[test]
    fn a_query_is_taken_apart_as_by_the_library() {
        const PARTS: [&str; 6] = ["a", "=", "&", "%", "+", "2"];
        let mut queries = vec![String::new()];
        let mut next = 0;
        while let Some(query) = queries.get(next).cloned() {
            let library: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
            assert_eq!(pairs(&query), library, "{query}");
            if query.len() < 6 {
                queries.extend(PARTS.map(|part| format!("{query}{part}")));
            }
            next += 1;
        }
        assert!(next > 50_000, "{next}");
    }

    type Taken = (Option<String>, Option<u64>, Vec<String>);

    /// What a request that takes `a` and `b`, and any number of `c`, makes of a query.
    fn taken(query: &str) -> Result<Taken, String> {
        let uri = Uri::try_from(format!("/x?{query}")).unwrap();
        let mut params = Params::of(&uri);
        let told = |problem: Problem| format!("{problem:?}");
        let one = params.one("a").map_err(told)?.map(Cow::into_owned);
        let number = params.number("b").map_err(told)?;
        let all = params.all("c");
        params.finish().map_err(told)?;
        Ok((one, number, all))
    }

    #[test]
    fn values_are_taken_by_key_in_their_order() {
        assert_eq!(taken(""), Ok((None, None, vec![])));
        let all = vec!["1".to_owned(), "%".to_owned()];
        assert_eq!(
            taken("c=1&b=7&c=%25&a=x+y"),
            Ok((Some("x y".into()), Some(7), all))
        );
    }

    #[test]
    fn what_is_not_a_parameter_is_refused_with_all_that_are() {
        for query in ["z=1", "a=1&z=1", "z=1&b=1&c=1"] {
            let problem = taken(query).unwrap_err();
            assert!(problem.contains("it takes: a, b, c"), "{query}: {problem}");
        }
        for query in ["a=1&a=2", "a=1&b=1&a=1", "a=1&a=2&a=3"] {
            let problem = taken(query).unwrap_err();
            assert!(problem.contains("more than once"), "{query}: {problem}");
        }
    }
}
