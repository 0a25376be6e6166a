//! The lanes to a single node: a few connections of their own for reads. They are made in the background and never waited
//! for: a read that finds none goes over the shared connection, as do all to a cluster, through TLS or a socket's path.
//! A lane is made after the shared connection has answered, so none is tried where no server answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::ConnectionAddr;
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::lane::{Failure, Lane};
use super::link::{Dial, Login};
use super::resp::{Digits, command, word};

/// Most lanes of a level.
pub(super) const MOST: usize = 2;
/// How long no lane is made after one could not be.
const PAUSE: Duration = Duration::from_secs(1);

/// The lanes of a level. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Lanes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None where there can be no lanes.
    server: Option<Server>,
    dial_timeout: Duration,
    max_age: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Server {
    host: String,
    port: u16,
    login: Login,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Idle>,
    /// Idle, taken, and being made.
    open: usize,
    is_opening: bool,
    not_before: Option<Instant>,
    /// Lanes made before it was raised are behind, and not used again.
    era: u64,
}

#[derive(Debug)]
struct Idle {
    lane: Lane,
    made: Instant,
    used: Instant,
    era: u64,
}

/// A lane that is taken. Unless it is given back it ends.
#[derive(Debug)]
pub(super) struct Taken {
    /// There until it is given back.
    idle: Option<Idle>,
    lanes: Lanes,
}

impl Taken {
    pub(super) fn lane(&mut self) -> Option<&mut Lane> {
        self.idle.as_mut().map(|idle| &mut idle.lane)
    }

    /// For the next reader. It is idle from when the question was asked.
    pub(super) fn give_back(mut self, asked: Instant) {
        let mut state = self.lanes.state();
        if let Some(mut idle) = self.idle.take_if(|idle| idle.era == state.era) {
            idle.used = asked;
            state.idle.push(idle);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.idle.is_some() {
            self.lanes.state().open -= 1;
        }
    }
}

impl Lanes {
    pub(super) fn new(dial: &Dial) -> Self {
        let server = dial.login().and_then(|(address, login)| match address {
            ConnectionAddr::Tcp(host, port) => Some(Server {
                host: host.clone(),
                port: *port,
                login,
            }),
            _ => None,
        });
        Self(Arc::new(Inner {
            server,
            dial_timeout: dial.dial_timeout(),
            max_age: dial.max_conn_age(),
            state: Mutex::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane that nobody uses.
    pub(super) fn take(&self, now: Instant) -> Option<Taken> {
        self.0.server.as_ref()?;
        let mut state = self.state();
        while let Some(idle) = state.idle.pop() {
            if self.is_young(&idle, now) {
                return Some(Taken {
                    idle: Some(idle),
                    lanes: self.clone(),
                });
            }
            state.open -= 1;
        }
        None
    }

    /// Has a lane made for later, after a read that found none was answered all the same.
    pub(super) fn wish(&self, now: Instant) {
        if self.0.server.is_none() {
            return;
        }
        let mut state = self.state();
        let may_open = state.open < MOST && !state.is_opening;
        if may_open && state.not_before.is_none_or(|at| at <= now) {
            state.open += 1;
            state.is_opening = true;
            drop(tokio::spawn(self.clone().open(state.era)));
        }
    }

    fn is_young(&self, idle: &Idle, now: Instant) -> bool {
        self.0.max_age.is_zero() || now.duration_since(idle.made) <= self.0.max_age
    }

    /// The lanes that there are lead to a server that is behind: they end with the question they carry.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        state.era += 1;
        state.open -= state.idle.len();
        state.idle.clear();
    }

    /// Closes what nobody used for so long.
    pub(super) fn close_idle(&self, idle_for: Duration) {
        let now = Instant::now();
        let mut state = self.state();
        let before = state.idle.len();
        state
            .idle
            .retain(|idle| now.duration_since(idle.used) <= idle_for);
        state.open -= before - state.idle.len();
    }

    async fn open(self, era: u64) {
        let limit = self.0.dial_timeout;
        let made = match &self.0.server {
            Some(server) => tokio::time::timeout(limit, server.dial(limit)).await,
            None => Ok(Err(Failure::Broken)),
        };
        let mut state = self.state();
        state.is_opening = false;
        let now = Instant::now();
        if let Ok(Ok(lane)) = made
            && era == state.era
        {
            state.idle.push(Idle {
                lane,
                made: now,
                used: now,
                era,
            });
        } else {
            // The shared connection finds out what is wrong, and tells.
            state.open -= 1;
            state.not_before = Some(now + PAUSE);
        }
    }
}

impl Server {
    async fn dial(&self, limit: Duration) -> Result<Lane, Failure> {
        let deadline = Instant::now() + limit;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let mut lane = Lane::new(stream);
        let login = &self.login;
        if let Some(password) = &login.password {
            let user = login.user.as_deref();
            lane.tell(
                |out| {
                    command(out, 2 + usize::from(user.is_some()));
                    word(out, [b"AUTH"]);
                    if let Some(user) = user {
                        word(out, [user.as_bytes()]);
                    }
                    word(out, [password.expose_secret().as_bytes()]);
                },
                deadline,
            )
            .await?;
        }
        if login.db != 0 {
            lane.tell(
                |out| {
                    command(out, 2);
                    word(out, [b"SELECT"]);
                    word(out, [Digits::of(login.db).as_bytes()]);
                },
                deadline,
            )
            .await?;
        }
        Ok(lane)
    }
}
