//! A small TCP proxy in front of a server: how a test cuts a member off without touching it.
//!
//! | state | open connections | new connections |
//! | --- | --- | --- |
//! | [`heal`](Proxy::heal) (the start) | pass | pass |
//! | [`delay`](Proxy::delay) | each chunk is held back that long, in each direction | the same |
//! | [`blackhole`](Proxy::blackhole) | stay open, nothing passes | accepted, nothing passes |
//! | [`cut`](Proxy::cut) | reset | accepted and reset |
//!
//! A blackhole loses nothing: what was sent into it arrives after `heal`, as with a cable that is pulled and put
//! back before TCP gives up. A refused connection is what a stopped server gives; there is no state for it here.
//!
//! Bounds: 256 connections at a time, two threads and two 16 KiB buffers each; more are reset.

mod pump;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::{Error, Result};

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// How long the proxy tries to reach its server for a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A proxy on a loopback port of its own. Dropping it resets its connections and ends its threads.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Delay(Duration),
    Blackhole,
    Cut,
    Closed,
}

/// One connection through the proxy: the client's end and the server's.
type Pair = (Arc<TcpStream>, Arc<TcpStream>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signalled at each change of mode and whenever a connection has ended.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    upstream: SocketAddr,
    next: u64,
    /// `None`: accepted, not connected to the server yet.
    connections: HashMap<u64, Option<Pair>>,
}

impl Proxy {
    /// Starts a proxy in front of `upstream`, which need not listen yet.
    ///
    /// # Errors
    ///
    /// When no loopback port can be bound.
    pub fn start(upstream: SocketAddr) -> Result<Self> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = bound.map_err(|e| Error::io("bind the proxy", e))?;
        let addr = listener
            .local_addr()
            .map_err(|e| Error::io("read the proxy's address", e))?;
        let state = State {
            mode: Mode::Pass,
            upstream,
            next: 0,
            connections: HashMap::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &accepting));
        Ok(Self {
            addr,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets everything pass, also what a blackhole or a delay held back.
    pub fn heal(&self) {
        self.shared.set(Mode::Pass);
    }

    /// Holds each chunk back for `by` in each direction.
    pub fn delay(&self, by: Duration) {
        self.shared.set(Mode::Delay(by));
    }

    /// Lets nothing pass, and tells nobody.
    pub fn blackhole(&self) {
        self.shared.set(Mode::Blackhole);
    }

    /// Resets all connections, and each new one, until it is healed.
    pub fn cut(&self) {
        self.shared.set(Mode::Cut);
    }

    /// Sends new connections elsewhere; open ones stay where they are.
    pub fn retarget(&self, upstream: SocketAddr) {
        self.shared.lock().upstream = upstream;
    }

    /// How many connections go through it now.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.set(Mode::Closed);
        // Wakes the acceptor; if that fails it has ended already.
        drop(TcpStream::connect_timeout(&self.addr, CONNECT_TIMEOUT));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        let state = self.shared.lock();
        let all_ended = |state: &mut State| !state.connections.is_empty();
        drop(
            self.shared
                .changed
                .wait_timeout_while(state, CONNECT_TIMEOUT, all_ended),
        );
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic can't leave the state half changed: every change is a single assignment or map operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, mode: Mode) {
        let mut state = self.lock();
        state.mode = mode;
        if matches!(mode, Mode::Cut | Mode::Closed) {
            state.connections.values().flatten().for_each(pump::reset);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until data read now may go on; `false` when its connection is to be reset instead.
    fn may_pass(&self) -> bool {
        let state = self.lock();
        // A delay is served in full unless the mode changes meanwhile: then the new mode decides.
        let state = match state.mode {
            Mode::Delay(by) => {
                let waited = self
                    .changed
                    .wait_timeout_while(state, by, |state| state.mode == Mode::Delay(by));
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            _ => state,
        };
        let holding = |state: &mut State| state.mode == Mode::Blackhole;
        let state = self
            .changed
            .wait_while(state, holding)
            .unwrap_or_else(PoisonError::into_inner);
        !matches!(state.mode, Mode::Cut | Mode::Closed)
    }

    /// Admits a connection, if there is room.
    fn admit(&self) -> Option<u64> {
        let mut state = self.lock();
        let passes =
            !matches!(state.mode, Mode::Cut | Mode::Closed) && state.connections.len() < MAX_CONNECTIONS;
        if !passes {
            return None;
        }
        let id = state.next;
        state.next += 1;
        state.connections.insert(id, None);
        Some(id)
    }

    /// Notes both ends, so that a later cut finds them; `false` when it has happened already.
    fn register(&self, id: u64, pair: &Pair) -> bool {
        let mut state = self.lock();
        let open = !matches!(state.mode, Mode::Cut | Mode::Closed);
        if open {
            state.connections.insert(id, Some(pair.clone()));
        }
        open
    }

    fn release(&self, id: u64) {
        self.lock().connections.remove(&id);
        self.changed.notify_all();
    }
}

/// Accepts until the proxy is closed.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.lock().mode == Mode::Closed {
            return;
        }
        let Ok(client) = client else { continue };
        pump::reset_on_close(&client);
        let Some(id) = shared.admit() else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            pump::serve(&shared, id, client);
            shared.release(id);
        });
    }
}

#[cfg(test)]
mod tests;
