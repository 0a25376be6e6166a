//! One URL that requests are posted to, over HTTP/1.1, a connection for each: a model takes much longer than a handshake.
//! Nothing leads anywhere else: a redirect is an answer like others, and the credential is sent to this host alone.

#[cfg(test)]
pub(crate) mod fake;
mod guarded;
mod traced;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use contextkeep_resilience::classify::http::retry_after;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::guarded::{Guarded, Guards};
pub(crate) use self::traced::{TRACEPARENT, within_trace};

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    tls: bool,
    host: String,
    port: u16,
    /// As in the header: with the port if it was given.
    authority: String,
    path: PathAndQuery,
}

impl Target {
    /// Reads a base URL, to which `path` is added.
    pub(crate) fn parse(endpoint: &str, path: &str) -> Result<Self, String> {
        let uri: Uri = endpoint
            .parse()
            .map_err(|error| format!("is not a URL: {error}"))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err("does not begin with https:// or http://".to_owned()),
        };
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("holds a credential; there is a key of its own for that".to_owned());
        }
        if uri.query().is_some() {
            return Err("has a query".to_owned());
        }
        let path = format!("{}{path}", uri.path().trim_end_matches('/'));
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("names no host".to_owned());
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: path
                .parse()
                .map_err(|error| format!("has no usable path: {error}"))?,
        })
    }

    /// Whether it is the host alone.
    pub(crate) fn has_no_path(&self) -> bool {
        matches!(self.path.as_str(), "" | "/")
    }

    /// Scheme and host, for the log.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

/// See the [module](self).
pub(crate) struct Endpoint {
    pub(crate) target: Target,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    content_type: HeaderValue,
    /// What every request has besides.
    headers: HeaderMap,
    reply_bytes_max: usize,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Why there is no reply to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("no connection: {0}")]
    NotConnected(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    /// An answer without a reply. Its body is not shown: nobody knows what is in it.
    #[error("status {status}")]
    Status {
        status: u16,
        retry_after: Option<Duration>,
    },
    /// A reply that is none.
    #[error("{0}")]
    Garbage(&'static str),
}

impl Endpoint {
    /// The one at a base URL, to which `path` is added.
    ///
    /// # Errors
    /// What is wrong with the URL, the key or the file of certificates.
    pub(crate) fn new(
        (url, path): (&str, &str),
        api_key: Option<&SecretString>,
        ca_file: Option<&Path>,
        reply_bytes_max: u64,
    ) -> anyhow::Result<Self> {
        let target = Target::parse(url, path).map_err(|wrong| anyhow::anyhow!("endpoint {wrong}"))?;
        let tls = if target.tls {
            let name = ServerName::try_from(target.host.clone()).context("endpoint: no name to verify")?;
            Some((TlsConnector::from(Arc::new(client_config(ca_file)?)), name))
        } else {
            None
        };
        let mut headers = HeaderMap::new();
        if let Some(key) = api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                .context("api_key has characters that no header can have")?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(Self {
            target,
            tls,
            content_type: HeaderValue::from_static("application/json"),
            headers,
            reply_bytes_max: usize::try_from(reply_bytes_max).unwrap_or(usize::MAX),
        })
    }

    /// What is posted and answered is of this type, instead of JSON.
    pub(crate) fn content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = HeaderValue::from_static(content_type);
        self
    }

    /// Every request has these headers as well.
    pub(crate) fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Posts a body and answers that of a reply of class 2xx.
    ///
    /// Cancellation: dropping the future closes the connection.
    pub(crate) async fn post(&self, body: Bytes) -> Result<Bytes, Trouble> {
        let request = self.request(body)?;
        let not_connected = |error: std::io::Error| Trouble::NotConnected(error.to_string());
        let stream = TcpStream::connect((self.target.host.as_str(), self.target.port))
            .await
            .map_err(not_connected)?;
        match &self.tls {
            None => self.exchange(stream, request).await,
            Some((connector, name)) => {
                let stream = connector
                    .connect(name.clone(), stream)
                    .await
                    .map_err(not_connected)?;
                self.exchange(stream, request).await
            }
        }
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, Trouble> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(Uri::from(self.target.path.clone()))
            .header(header::HOST, &self.target.authority)
            .header(header::CONTENT_TYPE, &self.content_type)
            .header(header::ACCEPT, &self.content_type)
            .header(
                header::USER_AGENT,
                concat!("contextkeep/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.clone());
            if let Some(traceparent) = traced::traceparent() {
                headers.insert(TRACEPARENT, traceparent);
            }
        }
        request
            .body(Full::new(body))
            .map_err(|error| Trouble::NotConnected(format!("the request cannot be made: {error}")))
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Bytes, Trouble> {
        let broken = |error: hyper::Error| Trouble::Broken(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(request).await.map_err(broken)?;
        if !response.status().is_success() {
            return Err(status(&response));
        }
        let body = Limited::new(response.into_body(), self.reply_bytes_max);
        match body.collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(Trouble::Garbage("the reply is larger than max_reply_size"))
            }
            Err(error) => Err(Trouble::Broken(error.to_string())),
        }
    }
}

fn status(response: &Response<Incoming>) -> Trouble {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    if response.status().is_redirection() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Trouble::Garbage("the endpoint redirects, which is not followed");
    }
    Trouble::Status {
        status: response.status().as_u16(),
        retry_after: text(header::RETRY_AFTER).and_then(|value| retry_after(value, text(header::DATE))),
    }
}

fn client_config(ca_file: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            let certificates =
                CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let certificates =
                certificates.with_context(|| format!("ca_file: {} cannot be read", file.display()))?;
            for certificate in certificates {
                roots
                    .add(certificate)
                    .context("ca_file has a certificate that is no authority's")?;
            }
        }
        // The system's list may hold a few that rustls does not understand.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    anyhow::ensure!(
        !roots.is_empty(),
        "there is no certificate to trust: set ca_file, or install the system's (Debian: ca-certificates)"
    );
    Ok(
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("TLS cannot be set up")?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/chat/completions";

    #[test]
    fn a_base_url_becomes_a_target() {
        let target = Target::parse("https://api.example.com/v1/", PATH).unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.path.as_str()),
            ("api.example.com", 443, "/v1/chat/completions")
        );
        let target = Target::parse("http://[::1]:11434", PATH).unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.path.as_str()),
            ("::1", 11434, "/chat/completions")
        );
        assert_eq!(target.origin(), "http://[::1]:11434");
        for wrong in [
            "",
            "api.example.com/v1",
            "ftp://x/",
            "https://user:pass@x/",
            "https://x/?a=b",
            "https:///v1",
        ] {
            assert!(Target::parse(wrong, PATH).is_err(), "{wrong}");
        }
        assert!(
            !Target::parse("https://user:pass@x/", PATH)
                .unwrap_err()
                .contains("pass@")
        );
    }

    #[tokio::test]
    async fn what_is_posted_within_a_trace_goes_on_with_it() {
        let fake = fake::Fake::new([fake::reply("200 OK", "", "")]).await;
        let endpoint = Endpoint::new((&fake.url, PATH), None, None, 1 << 10).unwrap();
        let header = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        for traceparent in [None, Some(header)] {
            within_trace(traceparent, endpoint.post(Bytes::new()))
                .await
                .unwrap();
        }
        endpoint.post(Bytes::new()).await.unwrap();
        let lines = |request: &String| {
            request
                .lines()
                .filter(|line| line.contains("traceparent"))
                .count()
        };
        let requests: Vec<usize> = fake.requests().iter().map(lines).collect();
        assert_eq!(requests, [0, 1, 0]);
    }
}
