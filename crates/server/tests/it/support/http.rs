//! A small HTTP/1.1 client on a socket: one request a connection, and raw bytes for what no client would send.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::{reference_codes, text};

/// A server that does not answer for this long has failed the test.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sends requests to one address, with one credential or none.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    secret: Option<String>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            secret: None,
        }
    }

    pub(crate) fn with_secret(mut self, secret: &str) -> Self {
        self.secret = Some(secret.to_owned());
        self
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn delete(&self, path: &str) -> Response {
        self.send("DELETE", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.send("POST", path, &[], body.as_ref())
    }

    pub(crate) fn patch(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.send("PATCH", path, &[], body.as_ref())
    }

    /// Sends a request; the server must answer.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Response {
        self.try_send(method, path, headers, body.as_ref())
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request to a server that may be gone.
    pub(crate) fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut stream = self.connect()?;
        let mut head = Vec::new();
        write!(
            head,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n",
            self.address
        )?;
        if let Some(secret) = &self.secret {
            write!(head, "authorization: Bearer {secret}\r\n")?;
        }
        let named = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if !body.is_empty() && !named("content-type") {
            write!(head, "content-type: application/json\r\n")?;
        }
        if !named("content-length")
            && !named("transfer-encoding")
            && !matches!(method, "GET" | "HEAD" | "DELETE")
        {
            write!(head, "content-length: {}\r\n", body.len())?;
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n")?;
        }
        write!(head, "\r\n")?;
        let sent = stream.write_all(&head).and_then(|()| stream.write_all(body));
        // A server may refuse a body before it has read it; its answer counts more than the broken pipe.
        match (
            Response::read(&mut BufReader::new(stream), method == "HEAD"),
            sent,
        ) {
            (Ok(response), _) => Ok(response),
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }

    /// A connection of its own.
    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Sends bytes as they are, says that no more will come if `half_close`, and answers all that comes back.
    pub(crate) fn raw(&self, bytes: &[u8], half_close: bool) -> Vec<u8> {
        let mut stream = self.connect().unwrap();
        // The server may hang up in the middle of what we send.
        let sent = stream.write_all(bytes);
        if half_close && sent.is_ok() {
            drop(stream.shutdown(Shutdown::Write));
        }
        read_to_end(&mut stream)
    }

    /// The first answer to bytes that are sent as they are.
    pub(crate) fn raw_response(&self, bytes: &[u8]) -> Response {
        let mut stream = self.connect().unwrap();
        drop(stream.write_all(bytes));
        Response::read(&mut BufReader::new(stream), false)
            .unwrap_or_else(|error| panic!("{error} after {}", text(bytes.get(..200).unwrap_or(bytes))))
    }
}

/// A request that the server is working on: it has asked for the body and not got it.
#[derive(Debug)]
pub(crate) struct Held(TcpStream);

const HELD_BODY: &[u8] = br#"{"agent_id":"held"}"#;

impl Held {
    /// Sends the rest; the request creates a context.
    pub(crate) fn finish(mut self) {
        self.0.write_all(HELD_BODY).unwrap();
        let answer = Response::read(&mut BufReader::new(self.0), false).unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

impl Client {
    /// Begins a request and waits until the server is working on it.
    pub(crate) fn hold(&self) -> Held {
        let mut stream = self.connect().unwrap();
        let head = format!(
            "POST /v1/contexts HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
            HELD_BODY.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).unwrap();
        assert_eq!(text(&interim), "HTTP/1.1 100 Continue\r\n\r\n");
        Held(stream)
    }
}

/// What comes until the other side hangs up, politely or not.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ) =>
        {
            panic!("the server kept the connection open: {error}")
        }
        _ => bytes,
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Reads one answer; interim ones are passed over.
    pub(crate) fn read(stream: &mut impl BufRead, headless: bool) -> io::Result<Self> {
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
            let status: u16 =
                status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
            let headers = read_headers(stream)?;
            if (100..200).contains(&status) {
                continue;
            }
            let mut response = Self {
                status,
                headers,
                body: Vec::new(),
            };
            if !headless && status != 204 {
                response.read_body(stream)?;
            }
            return Ok(response);
        }
    }

    fn read_body(&mut self, stream: &mut impl BufRead) -> io::Result<()> {
        if let Some(length) = self.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            self.body.resize(length, 0);
            stream.read_exact(&mut self.body)
        } else if self.header("transfer-encoding") == Some("chunked") {
            loop {
                let mut size = String::new();
                stream.read_line(&mut size)?;
                let size = usize::from_str_radix(size.trim_end(), 16).map_err(io::Error::other)?;
                let start = self.body.len();
                self.body.resize(start + size, 0);
                stream.read_exact(&mut self.body[start..])?;
                stream.read_line(&mut String::new())?;
                if size == 0 {
                    return Ok(());
                }
            }
        } else {
            stream.read_to_end(&mut self.body).map(|_| ())
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        text(&self.body)
    }

    /// The body of an answer that must be good.
    pub(crate) fn ok(&self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            self.text()
        );
        self.json()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The document of an answer that must be this problem: RFC 9457, with a code of the reference.
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.text()
        );
        let document = self.json();
        assert_eq!(document["code"], code, "{document}");
        assert_eq!(document["status"], status, "{document}");
        assert!(reference_codes().contains(code), "{code} is not in the reference");
        for member in ["title", "detail"] {
            let said = document[member].as_str().unwrap_or_default();
            assert!(!said.is_empty(), "{member} says nothing: {document}");
        }
        document
    }

    /// The same, blaming this field.
    pub(crate) fn problem_in(&self, status: u16, code: &str, field: &str) -> Value {
        let document = self.problem(status, code);
        assert_eq!(document["field"], field, "{document}");
        document
    }
}

fn read_headers(stream: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(headers);
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}
