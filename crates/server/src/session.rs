//! The client's session in a request's headers and in its answer's (G4).

use std::sync::Arc;

use axum::http::header::AGE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use contextkeep_core::session::{Consistency, Session, Token};
use contextkeep_core::{Error, Invalid};

const TOKEN: HeaderName = HeaderName::from_static("contextkeep-token");
const CONSISTENCY: HeaderName = HeaderName::from_static("contextkeep-consistency");

/// The session that a request asks for; none if it says nothing of one.
pub(crate) fn asked_explicitly(headers: &HeaderMap) -> Result<Option<Arc<Session>>, Error> {
    if headers.contains_key(&TOKEN) || headers.contains_key(&CONSISTENCY) {
        return asked(headers).map(Some);
    }
    Ok(None)
}

/// The session that a request asks for.
pub(crate) fn asked(headers: &HeaderMap) -> Result<Arc<Session>, Error> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let consistency = match text(&CONSISTENCY) {
        None => Consistency::default(),
        Some(name) => Consistency::parse(name).ok_or_else(|| {
            Invalid::new("Contextkeep-Consistency", format!("is {name:?}"))
                .hint("strong, session, bounded or any; session if it is left out")
        })?,
    };
    let token = text(&TOKEN).map_or_else(|| Ok(Token::default()), Token::parse)?;
    Ok(Session::new(consistency, token))
}

/// Says in the answer what the client has seen by now.
pub(crate) fn tell<B>(session: &Session, response: &mut Response<B>) {
    let headers = response.headers_mut();
    let (token, age) = session.told();
    if let Some(token) = token
        && let Ok(token) = HeaderValue::from_maybe_shared(bytes::Bytes::from(token))
    {
        headers.insert(TOKEN, token);
    }
    if let Some(age) = age {
        headers.insert(AGE, HeaderValue::from(age.as_secs()));
    }
}
