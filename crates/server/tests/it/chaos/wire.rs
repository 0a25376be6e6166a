//! Requests of one client to one node, over a connection that stays open.

use std::io::{self, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::http::Response;

/// A node that answers nothing for this long: what became of the request is unknown.
const PATIENCE: Duration = Duration::from_secs(2);
/// A connection that a frozen process has not accepted is made all the same; this bounds everything else.
const CONNECT: Duration = Duration::from_secs(2);

/// One client's connection to one node.
#[derive(Debug)]
pub(super) struct Wire {
    patience: Duration,
    open: Option<(SocketAddr, BufReader<TcpStream>)>,
}

/// A request as it goes over the wire.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, &'a str)>,
    pub(super) body: String,
}

impl Default for Wire {
    fn default() -> Self {
        Self::patient(PATIENCE)
    }
}

impl Wire {
    /// Waits so long for each piece of an answer.
    pub(super) fn patient(patience: Duration) -> Self {
        Self { patience, open: None }
    }

    /// Sends a request and reads its answer; the connection is kept if both went well.
    pub(super) fn call(&mut self, to: SocketAddr, request: &Request<'_>) -> io::Result<Response> {
        let mut stream = match self.open.take() {
            Some((address, stream)) if address == to => stream,
            _ => connect(to, self.patience)?,
        };
        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: {to}\r\ncontent-length: {}\r\n",
            request.method,
            request.path,
            request.body.len()
        );
        if !request.body.is_empty() {
            head.push_str("content-type: application/json\r\n");
        }
        for (name, value) in &request.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        head.push_str(&request.body);
        stream.get_mut().write_all(head.as_bytes())?;
        let response = Response::read(&mut stream, false)?;
        if response.header("connection") != Some("close") {
            self.open = Some((to, stream));
        }
        Ok(response)
    }
}

fn connect(to: SocketAddr, patience: Duration) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&to, CONNECT)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}
