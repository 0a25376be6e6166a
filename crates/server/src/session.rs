//! The client's session in a request's headers and in its answer's (G4).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::AGE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use contextkeep_core::session::{Consistency, MadeToken, Session, Token};
use contextkeep_core::{Error, Invalid};

pub(crate) const TOKEN: HeaderName = HeaderName::from_static("contextkeep-token");
pub(crate) const CONSISTENCY: HeaderName = HeaderName::from_static("contextkeep-consistency");

/// The session that a request asks for; none if it says nothing of one.
pub(crate) fn asked_explicitly(headers: &HeaderMap) -> Result<Option<Arc<Session>>, Error> {
    if headers.contains_key(&TOKEN) || headers.contains_key(&CONSISTENCY) {
        return asked(headers).map(Some);
    }
    Ok(None)
}

/// The session that a request asks for.
pub(crate) fn asked(headers: &HeaderMap) -> Result<Arc<Session>, Error> {
    of(headers.get(TOKEN), headers.get(CONSISTENCY))
}

/// As [`asked`], by the values of [`TOKEN`] and [`CONSISTENCY`].
pub(crate) fn of(
    token: Option<&HeaderValue>,
    consistency: Option<&HeaderValue>,
) -> Result<Arc<Session>, Error> {
    let consistency = match consistency.map(text) {
        None => Consistency::default(),
        Some(name) => Consistency::parse(name).ok_or_else(|| {
            Invalid::new("Contextkeep-Consistency", format!("is {name:?}"))
                .hint("strong, session, bounded or any; session if it is left out")
        })?,
    };
    let token = token
        .map(text)
        .map_or_else(|| Ok(Token::default()), Token::parse)?;
    Ok(Session::new(consistency, token))
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}

/// Says in the answer what the client has seen by now.
pub(crate) fn tell<B>(session: &Session, response: &mut Response<B>) {
    say(session.told(), response);
}

/// As [`tell`]. `made` is kept with what is answered.
pub(crate) fn tell_with<B>(session: &Session, made: &MadeToken, response: &mut Response<B>) {
    say(session.told_with(made), response);
}

fn say<B>((token, age): (Option<Bytes>, Option<Duration>), response: &mut Response<B>) {
    let headers = response.headers_mut();
    if let Some(token) = token
        && let Ok(token) = HeaderValue::from_maybe_shared(token)
    {
        headers.insert(TOKEN, token);
    }
    if let Some(age) = age {
        headers.insert(AGE, seconds(age.as_secs()));
    }
}

/// A number of seconds. Nearly all ages are below the bound, and those are at hand.
fn seconds(seconds: u64) -> HeaderValue {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let digit = usize::try_from(seconds).ok().and_then(|at| DIGITS.get(at));
    digit.map_or_else(|| seconds.into(), |digit| HeaderValue::from_static(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_in_decimal() {
        for number in [0, 1, 9, 10, 59, u64::MAX] {
            assert_eq!(seconds(number).to_str().unwrap(), number.to_string());
        }
    }
}
