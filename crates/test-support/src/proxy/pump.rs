//! Moving bytes between the two ends of one connection.
//!
//! Both sockets are set to reset when they are closed and are only closed after a cut or an error: an orderly end
//! is passed on by shutting down the sending side first, which leaves nothing to reset. A cut wakes the readers by
//! shutting down the *receiving* sides, which the peers do not see; what they see is the reset of the close.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{CONNECT_TIMEOUT, Pair, Shared};

/// Bytes moved at a time.
const CHUNK: usize = 16 * 1024;
/// How often a writer whose peer does not read looks whether it has been cut.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);

/// Serves one connection until both directions have ended or it is cut.
pub(super) fn serve(shared: &Arc<Shared>, id: u64, client: TcpStream) {
    // A new connection is held by a blackhole (and delayed by a delay) before its server hears of it.
    if !shared.may_pass() {
        return;
    }
    let upstream = shared.lock().upstream;
    let Ok(server) = TcpStream::connect_timeout(&upstream, CONNECT_TIMEOUT) else {
        return;
    };
    reset_on_close(&server);
    let pair: Pair = (Arc::new(client), Arc::new(server));
    if !shared.register(id, &pair) {
        return;
    }
    let back = (Arc::clone(&pair.1), Arc::clone(&pair.0));
    let shared_back = Arc::clone(shared);
    let other = thread::spawn(move || copy(&shared_back, &back));
    let orderly = copy(shared, &pair);
    if other.join().is_ok_and(|back| back && orderly) {
        // What is still on its way to a slow reader must not be thrown away by the close.
        linger(&pair.0, None);
        linger(&pair.1, None);
    }
}

/// Makes closing the socket a reset. A socket that is gone already needs none.
pub(super) fn reset_on_close(socket: &TcpStream) {
    linger(socket, Some(Duration::ZERO));
    drop(socket.set_nodelay(true));
    drop(socket.set_write_timeout(Some(WRITE_TIMEOUT)));
}

fn linger(socket: &TcpStream, time: Option<Duration>) {
    rustix::net::sockopt::set_socket_linger(socket, time).unwrap_or_default();
}

/// Wakes whoever reads from either end; both ends are reset when the last holder lets go.
pub(super) fn reset(pair: &Pair) {
    drop(pair.0.shutdown(Shutdown::Read));
    drop(pair.1.shutdown(Shutdown::Read));
}

/// Copies from the first end to the second until the first has no more (`true`), or the connection is cut.
fn copy(shared: &Shared, (from, to): &Pair) -> bool {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = match (&**from).read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        if !shared.may_pass() {
            break;
        }
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else {
            // An orderly end: pass it on, and let the other direction finish by itself.
            drop(to.shutdown(Shutdown::Write));
            return true;
        };
        if !write_all(shared, to, chunk) {
            break;
        }
    }
    reset(&(Arc::clone(from), Arc::clone(to)));
    false
}

/// Writes a chunk, however slowly the peer takes it; `false` when the connection is broken or cut.
fn write_all(shared: &Shared, mut to: &TcpStream, mut chunk: &[u8]) -> bool {
    while !chunk.is_empty() {
        match to.write(chunk) {
            Ok(written) => chunk = chunk.get(written..).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if !shared.may_pass() {
                    return false;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}
