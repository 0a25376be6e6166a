//! The body of what is served on the port.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};

/// The body of an answer.
#[derive(Debug)]
pub enum FrontBody {
    /// All of it, unless it was taken.
    Ready(Option<Bytes>),
    /// What a route gives.
    Routed(Body),
}

impl From<Bytes> for FrontBody {
    fn from(bytes: Bytes) -> Self {
        Self::Ready(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl hyper::body::Body for FrontBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Ready(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Routed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ready(bytes) => bytes.is_none(),
            Self::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ready(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Routed(body) => body.size_hint(),
        }
    }
}
