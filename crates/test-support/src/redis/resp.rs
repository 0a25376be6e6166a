//! Just enough of RESP2 to command a Redis server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::{Error, Result};

/// Longest string accepted; anything longer is not an answer to what the harness asks.
const MAX_BULK: usize = 64 << 20;
/// Most elements of an array.
const MAX_ARRAY: usize = 1 << 20;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// No value.
    Nil,
    /// `:1`
    Int(i64),
    /// A simple or bulk string.
    Text(String),
    /// Several answers.
    Array(Vec<Self>),
}

impl Value {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A connection to one server; closed by dropping it.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects; `timeout` bounds the connect and each later read and write.
    ///
    /// # Errors
    ///
    /// When nobody listens or answers in time.
    pub fn open(addr: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, timeout)
            .map_err(|e| Error::io(format!("connect to {addr}"), e))?;
        let timeouts = stream
            .set_read_timeout(Some(timeout))
            .and(stream.set_write_timeout(Some(timeout)));
        timeouts.map_err(|e| Error::io("set socket timeouts", e))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends one command and reads its answer.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the server answers with an error.
    pub fn command(&mut self, words: &[&str]) -> Result<Value> {
        let words_on_wire = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        let message = format!("*{}\r\n{}", words.len(), words_on_wire.collect::<String>());
        self.stream
            .get_mut()
            .write_all(message.as_bytes())
            .map_err(|e| Error::io("write to Redis", e))?;
        parse(&mut self.stream)
    }
}

fn parse(from: &mut impl BufRead) -> Result<Value> {
    let mut line = Vec::new();
    let read = from
        .read_until(b'\n', &mut line)
        .map_err(|e| Error::io("read from Redis", e))?;
    if read == 0 {
        return Err(Error::io(
            "read from Redis",
            std::io::ErrorKind::UnexpectedEof.into(),
        ));
    }
    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
    let mut chars = line.chars();
    let tag = chars.next();
    let rest = chars.as_str();
    match tag {
        Some('+') => Ok(Value::Text(rest.to_owned())),
        Some('-') => {
            let code = rest.split(' ').next().unwrap_or_default().to_owned();
            Err(Error::Refused {
                server: "Redis",
                code,
                message: rest.to_owned(),
            })
        }
        Some(':') => rest.parse().map(Value::Int).map_err(|_| odd(&line)),
        Some('$' | '*') if rest == "-1" => Ok(Value::Nil),
        Some('$') => bulk(from, length(rest, MAX_BULK).ok_or_else(|| odd(&line))?),
        Some('*') => {
            let length = length(rest, MAX_ARRAY).ok_or_else(|| odd(&line))?;
            (0..length)
                .map(|_| parse(from))
                .collect::<Result<_>>()
                .map(Value::Array)
        }
        _ => Err(odd(&line)),
    }
}

fn bulk(from: &mut impl Read, length: usize) -> Result<Value> {
    let mut bytes = vec![0; length + 2];
    from.read_exact(&mut bytes)
        .map_err(|e| Error::io("read from Redis", e))?;
    bytes.truncate(length);
    Ok(Value::Text(String::from_utf8_lossy(&bytes).into_owned()))
}

/// A length within the limit.
fn length(text: &str, limit: usize) -> Option<usize> {
    text.parse().ok().filter(|length| *length <= limit)
}

fn odd(line: &str) -> Error {
    Error::Protocol {
        server: "Redis",
        message: format!("unexpected line `{line}`"),
    }
}

#[cfg(test)]
mod tests;
