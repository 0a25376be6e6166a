//! The stdio transport: one message a line, in and out. Logs must go to stderr.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use contextkeep_core::ContextManager;
use contextkeep_core::session::{Consistency, Session, Token};
use contextkeep_core::settings::LimitSettings;
use futures_util::StreamExt;
use rmcp::model::{ClientJsonRpcMessage, JsonRpcError, ServerJsonRpcMessage};
use rmcp::service::ServerInitializeError;
use rmcp::transport::Transport;
use rmcp::{ErrorData, RoleServer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::codec::FramedRead;

use super::endpoint::{refusal, too_long};
use super::handler::Handler;
use super::lines::{Line, Lines};
use super::message::Message;
use super::settings::McpSettings;
use crate::auth::Principal;
use crate::telemetry::traces::{Calls, Traces};

/// Answers that wait for a slow reader before the calls behind them wait.
const WRITES_WAITING_MAX: usize = 16;

/// Serves stdin and stdout, tracing calls by `traces` if there are any, until stdin ends; calls in flight then get up to five seconds to answer.
pub async fn serve_stdio(
    manager: Arc<dyn ContextManager>,
    limits: LimitSettings,
    settings: McpSettings,
    principal: Principal,
    traces: Option<Arc<Traces>>,
) -> io::Result<()> {
    serve_streams(
        manager,
        limits,
        settings,
        principal,
        traces,
        tokio::io::stdin(),
        tokio::io::stdout(),
    )
    .await
}

/// Serves any pair of streams like [`serve_stdio`] does.
pub async fn serve_streams<R, W>(
    manager: Arc<dyn ContextManager>,
    limits: LimitSettings,
    settings: McpSettings,
    principal: Principal,
    traces: Option<Arc<Traces>>,
    reader: R,
    writer: W,
) -> io::Result<()>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let transport = LineTransport::new(
        reader,
        writer,
        settings.request_bytes_max(),
        principal,
        traces.map(|traces| traces.calls()),
    );
    let handler = Handler::new(manager, limits, settings);
    match rmcp::serve_server(handler, transport).await {
        Ok(running) => running.waiting().await.map(drop).map_err(io::Error::other),
        // The client left before it said anything.
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// A line to write, and whom to tell that it was.
type Write = (Bytes, Option<oneshot::Sender<io::Result<()>>>);

struct LineTransport<R> {
    lines: FramedRead<R, Lines>,
    bytes_max: usize,
    principal: Principal,
    calls: Option<Calls>,
    /// Of the one client that there is (M5).
    session: Arc<Session>,
    /// `None` once closed.
    writes: Option<mpsc::Sender<Write>>,
    writer: Option<JoinHandle<()>>,
    /// An error that has still to be sent: `receive` may be dropped at any await and called again.
    refused: Option<Bytes>,
}

impl<R: AsyncRead + Send + Unpin> LineTransport<R> {
    fn new<W>(reader: R, writer: W, bytes_max: usize, principal: Principal, calls: Option<Calls>) -> Self
    where
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (writes, waiting) = mpsc::channel(WRITES_WAITING_MAX);
        Self {
            lines: FramedRead::new(reader, Lines::up_to(bytes_max)),
            bytes_max,
            principal,
            calls,
            session: Session::new(Consistency::Session, Token::default()),
            writes: Some(writes),
            writer: Some(tokio::spawn(write_all(writer, waiting))),
            refused: None,
        }
    }

    /// A message with what the handler needs beside it, or the error to answer with.
    fn read(&self, line: Line) -> Result<ClientJsonRpcMessage, JsonRpcError> {
        let bytes = match line {
            Line::TooLong => return Err(JsonRpcError::new(None, too_long(self.bytes_max))),
            Line::Whole(bytes) => bytes,
        };
        let mut message = serde_json::from_slice::<ClientJsonRpcMessage>(&bytes).map_err(|_| {
            let (id, error): (_, ErrorData) = refusal(&bytes);
            JsonRpcError::new(id, error)
        })?;
        message.insert_extension(self.principal.clone());
        message.insert_extension(self.session.clone());
        message.insert_extension(Message(bytes));
        if let Some(calls) = &self.calls {
            message.insert_extension(calls.clone());
        }
        Ok(message)
    }
}

impl<R: AsyncRead + Send + Unpin> Transport<RoleServer> for LineTransport<R> {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let writes = self.writes.clone();
        async move {
            let line = Bytes::from(serde_json::to_vec(&message).map_err(io::Error::other)?);
            let (done, written) = oneshot::channel();
            let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
            let writes = writes.ok_or_else(closed)?;
            writes.send((line, Some(done))).await.map_err(|_| closed())?;
            written.await.map_err(|_| closed())?
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            if self.refused.is_some() {
                let slot = self.writes.as_ref()?.reserve().await.ok()?;
                if let Some(line) = self.refused.take() {
                    slot.send((line, None));
                }
            }
            let line = match self.lines.next().await? {
                Ok(line) => line,
                Err(error) => {
                    tracing::error!(%error, "reading from the client failed");
                    return None;
                }
            };
            match self.read(line) {
                Ok(message) => return Some(message),
                Err(error) => {
                    tracing::debug!(error = %error.error.message, "a message was refused");
                    self.refused = serde_json::to_vec(&error).ok().map(Bytes::from);
                }
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.writes = None;
        match self.writer.take() {
            Some(writer) => writer.await.map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

/// The only writer: lines never mix, and none is cut when a sender is dropped.
async fn write_all<W: AsyncWrite + Unpin>(mut writer: W, mut waiting: mpsc::Receiver<Write>) {
    while let Some((line, done)) = waiting.recv().await {
        let outcome = write_line(&mut writer, &line).await;
        let failed = outcome.is_err();
        if let Some(done) = done {
            // Nobody waits any more: the call was dropped after its answer was queued.
            drop(done.send(outcome));
        }
        if failed {
            return;
        }
    }
}

async fn write_line<W: AsyncWrite + Unpin>(writer: &mut W, line: &[u8]) -> io::Result<()> {
    writer.write_all(line).await?;
    writer.write_all(b"\n").await?;
    writer.flush().await
}
