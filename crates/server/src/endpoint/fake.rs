//! An endpoint in the process that does what it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// What the endpoint does with one connection.
pub(crate) enum Act {
    /// Sends these bytes.
    Send(String),
    /// Says nothing and keeps the connection.
    Hang,
    /// Closes the connection.
    Close,
}

pub(crate) fn reply(status: &str, headers: &str, body: &str) -> Act {
    let length = body.len();
    Act::Send(format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    ))
}

/// An endpoint; its last act is done over and over.
pub(crate) struct Fake {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Fake {
    pub(crate) async fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::over(acts, None).await
    }

    pub(crate) async fn over(
        acts: impl IntoIterator<Item = Act>,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (noted, mut acts) = (requests.clone(), acts.into_iter().collect::<VecDeque<_>>());
        let task = tokio::spawn(async move {
            let mut hanging = Vec::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let act = if acts.len() > 1 { acts.pop_front() } else { None };
                let act = act.as_ref().or(acts.front()).unwrap();
                match &tls {
                    None => hanging.extend(
                        serve(stream, act, &noted)
                            .await
                            .map(|it| Box::new(it) as Box<dyn Send>),
                    ),
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, act, &noted).await;
                        }
                    }
                }
            }
        });
        Self {
            url: format!("{scheme}://localhost:{}/v1", address.port()),
            requests,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Reads a request, notes it, and does what it is told; answers the connection if that is to hang.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(
    mut stream: S,
    act: &Act,
    requests: &Mutex<Vec<String>>,
) -> Option<S> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                requests.lock().unwrap().push(text);
                break;
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    match act {
        Act::Send(answer) => {
            // Who has read enough may have gone.
            drop(stream.write_all(answer.as_bytes()).await);
            drop(stream.shutdown().await);
            None
        }
        Act::Hang => Some(stream),
        Act::Close => None,
    }
}
