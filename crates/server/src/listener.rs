//! Accepting connections, with a bound on their number and on how long a client may take to say what it wants.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::ServerSettings;
use crate::rest::Front;
use crate::timer::ConnectionTimer;

/// Wait after the system refused to accept, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `draining` is cancelled, then lets requests end for `server.shutdown_grace`.
pub async fn serve(
    listener: TcpListener,
    front: Front,
    settings: &ServerSettings,
    draining: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(settings.max_connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = draining.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((stream, permit)) = accepted else {
            continue;
        };
        let connection = http1::Builder::new()
            .timer(ConnectionTimer::default())
            .header_read_timeout(settings.header_timeout)
            .serve_connection(TokioIo::new(stream), front.on_connection());
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
            drop(permit);
        });
    }
    drop(listener);
    tracing::info!(connections = graceful.count(), grace = ?settings.shutdown_grace, "draining");
    if tokio::time::timeout(settings.shutdown_grace, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests did not end within server.shutdown_grace and are broken off");
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // The permit comes first: what cannot be served waits in the system's queue, not in our memory.
    let permit = permits.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Without it small answers on kept-alive connections wait 40 ms for the client's delayed ACK.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection was gone before it was served");
            }
            Some((stream, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "accepting a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
