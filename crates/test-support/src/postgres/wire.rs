//! Just enough of Postgres' protocol 3.0 to ask a server questions: trust authentication and simple queries.
//!
//! The harness must not depend on the client that the product tests with, and needs no more than text results.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::{Error, Result};

/// Longest message accepted; ours are tiny, anything longer is not Postgres.
const MAX_MESSAGE: usize = 16 << 20;
/// Protocol 3.0.
const PROTOCOL: i32 = 3 << 16;

/// A row: each column's text, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// A connection that runs one statement after another; closed by dropping it.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects and logs in without a password; `timeout` bounds the connect and each later read and write.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when nobody listens or answers in time, [`Error::Refused`] when the server turns us away
    /// (57P03 while it starts).
    pub fn open(addr: SocketAddr, user: &str, database: &str, timeout: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, timeout)
            .map_err(|e| Error::io(format!("connect to {addr}"), e))?;
        let timeouts = stream
            .set_read_timeout(Some(timeout))
            .and(stream.set_write_timeout(Some(timeout)));
        timeouts.map_err(|e| Error::io("set socket timeouts", e))?;
        let mut connection = Self {
            stream: BufReader::new(stream),
        };
        let mut startup = PROTOCOL.to_be_bytes().to_vec();
        for text in ["user", user, "database", database, ""] {
            startup.extend_from_slice(text.as_bytes());
            startup.push(0);
        }
        connection.send(None, &startup)?;
        connection.until_ready()?;
        Ok(connection)
    }

    /// Runs statements and returns the rows of all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the SQLSTATE when the server reports an error; the connection stays usable.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        self.send(Some(b'Q'), &body)?;
        self.until_ready()
    }

    fn send(&mut self, tag: Option<u8>, body: &[u8]) -> Result<()> {
        let length = u32::try_from(body.len() + 4).map_err(|_| protocol("statement too long"))?;
        let mut message: Vec<u8> = tag.into_iter().collect();
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(body);
        self.stream
            .get_mut()
            .write_all(&message)
            .map_err(|e| Error::io("write to Postgres", e))
    }

    /// Reads up to "ready for query": the rows, or the first error.
    fn until_ready(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            let (tag, body) = self.receive()?;
            match tag {
                b'D' => rows.push(parse_row(&body).ok_or_else(|| protocol("malformed row"))?),
                b'E' => failed = failed.or_else(|| Some(parse_error(&body))),
                b'R' if body.iter().any(|byte| *byte != 0) => {
                    return Err(protocol("only trust authentication is spoken"));
                }
                b'Z' => return failed.map_or(Ok(rows), Err),
                _ => {}
            }
            // A fatal error is the last thing before the server hangs up.
            if tag == b'E' && is_fatal(&body) {
                return failed.map_or_else(|| Err(protocol("an error without text")), Err);
            }
        }
    }

    fn receive(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream
            .read_exact(&mut head)
            .map_err(|e| Error::io("read from Postgres", e))?;
        let [tag, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let length = length.checked_sub(4).filter(|length| *length <= MAX_MESSAGE);
        let mut body = vec![0; length.ok_or_else(|| protocol("impossible message length"))?];
        self.stream
            .read_exact(&mut body)
            .map_err(|e| Error::io("read from Postgres", e))?;
        Ok((tag, body))
    }
}

fn protocol(message: &str) -> Error {
    Error::Protocol {
        server: "Postgres",
        message: message.to_owned(),
    }
}

fn parse_row(body: &[u8]) -> Option<Row> {
    let (count, mut rest) = body.split_at_checked(2)?;
    let count = u16::from_be_bytes(count.try_into().ok()?);
    let mut row = Row::with_capacity(count.into());
    for _ in 0..count {
        let (length, after) = rest.split_at_checked(4)?;
        rest = after;
        // A length of -1 means NULL.
        let Ok(length) = usize::try_from(i32::from_be_bytes(length.try_into().ok()?)) else {
            row.push(None);
            continue;
        };
        let (text, after) = rest.split_at_checked(length)?;
        rest = after;
        row.push(Some(String::from_utf8_lossy(text).into_owned()));
    }
    Some(row)
}

/// The field of an error message with the given letter.
fn error_field(body: &[u8], letter: u8) -> Option<String> {
    let mut fields = body.split(|byte| *byte == 0);
    fields.find_map(|field| Some(String::from_utf8_lossy(field.strip_prefix(&[letter])?).into_owned()))
}

fn parse_error(body: &[u8]) -> Error {
    let code = error_field(body, b'C').unwrap_or_default();
    let message = format!("{} ({code})", error_field(body, b'M').unwrap_or_default());
    Error::Refused {
        server: "Postgres",
        code,
        message,
    }
}

fn is_fatal(body: &[u8]) -> bool {
    // `V` is the severity that is never translated.
    error_field(body, b'V').is_some_and(|severity| severity != "ERROR")
}

#[cfg(test)]
mod tests;
