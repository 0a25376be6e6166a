//! A collector that keeps what it is sent, or behaves badly.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::support::eventually;

/// What it does with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Takes,
    /// All but one span.
    RejectsOne,
    Fails,
    /// Something that is no collector answers.
    Nonsense,
    /// Reads and never answers.
    Hangs,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    heads: String,
    exports: Vec<ExportTraceServiceRequest>,
    /// Connections without an answer, which have to stay open.
    hanging: Vec<TcpStream>,
}

/// See the [module](self). Ends with the process.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) url: String,
    kept: Arc<Mutex<Kept>>,
}

impl Collector {
    pub(super) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let keeper = kept.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                serve(stream, manner, &keeper);
            }
        });
        Self { url, kept }
    }

    /// The spans of all exports so far, each with its service's name.
    pub(super) fn spans(&self) -> Vec<(String, Span)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let of_service = kept.exports.iter().flat_map(|export| &export.resource_spans);
        let mut spans = Vec::new();
        for resource_spans in of_service {
            let resource = resource_spans.resource.as_ref().unwrap();
            let service = text(&resource.attributes, "service.name").unwrap();
            let all = resource_spans.scope_spans.iter().flat_map(|scope| &scope.spans);
            spans.extend(all.map(|span| (service.clone(), span.clone())));
        }
        spans
    }

    /// The first span of this name, once it is there.
    pub(super) fn span(&self, name: &str) -> Span {
        eventually(name, || {
            self.spans()
                .into_iter()
                .map(|(_, span)| span)
                .find(|span| span.name == name)
        })
    }

    /// The spans right under this one; all of a trace are exported together or in order, children first.
    pub(super) fn children(&self, of: &Span) -> Vec<Span> {
        let spans = self.spans().into_iter().map(|(_, span)| span);
        spans.filter(|span| span.parent_span_id == of.span_id).collect()
    }

    /// Whether anything that it was sent holds this text.
    pub(super) fn was_told(&self, text: &str) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }

    /// The heads of all exports.
    pub(super) fn heads(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.heads.clone()
    }
}

fn serve(stream: TcpStream, manner: Manner, kept: &Mutex<Kept>) {
    let mut reader = BufReader::new(stream);
    let (mut length, mut head) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    // A server that stops in the middle of an export is none of ours.
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let export = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
    let mut stream = reader.into_inner();
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.heads.push_str(&head);
    kept.bytes.extend(body);
    kept.exports.push(export);
    let reply = |rejected_spans| ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans,
            error_message: String::new(),
        }),
    };
    let (status, body) = match manner {
        Manner::Takes => ("200 OK", Vec::new()),
        Manner::RejectsOne => ("200 OK", reply(1).encode_to_vec()),
        Manner::Fails => ("500 Internal Server Error", Vec::new()),
        Manner::Nonsense => ("200 OK", b"<html>Welcome!</html>".to_vec()),
        Manner::Hangs => return kept.hanging.push(stream),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
    // Who has stopped does not listen any more.
    drop(stream.write_all(&[head.as_bytes(), &body].concat()));
}

/// An attribute that is text.
pub(super) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text),
        other => panic!("{key} is {other:?}"),
    }
}

/// An attribute that is a number.
pub(super) fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        Value::IntValue(number) => Some(number),
        other => panic!("{key} is {other:?}"),
    }
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.clone()
}
