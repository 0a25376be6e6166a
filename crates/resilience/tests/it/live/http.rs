//! A real HTTP server on a real socket that hangs, asks for a pause, or resets.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use contextkeep_resilience::breaker::{Cause, HalfOpen, State};
use contextkeep_resilience::classify::http;
use contextkeep_resilience::{
    Backoff, Breaker, Error, Idempotent, Jitter, Outcome, Policy, Profile, Rejected, Why,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::{Dependency, endure};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const WELL: u8 = 0;
const HANGS: u8 = 1;
const BUSY: u8 = 2;
const RESETS: u8 = 3;

/// A server on a free port, and how many connections it took.
struct Server {
    port: u16,
    mode: Arc<AtomicU8>,
    connections: Arc<AtomicU32>,
}

impl Server {
    async fn start(mode: u8) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, connections) = (Arc::new(AtomicU8::new(mode)), Arc::new(AtomicU32::new(0)));
        let (shared, count) = (Arc::clone(&mode), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(socket, shared.load(Ordering::Relaxed)));
            }
        });
        Self {
            port,
            mode,
            connections,
        }
    }

    fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(mut socket: TcpStream, mode: u8) -> io::Result<()> {
    if mode == RESETS {
        // Closing a socket with unread bytes makes the kernel reset the connection.
        return socket.readable().await;
    }
    let mut request = [0; 256];
    let _read = socket.read(&mut request).await?;
    match mode {
        HANGS => std::future::pending().await,
        BUSY => {
            socket
                .write_all(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
                .await
        }
        _ => {
            socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
        }
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    retry_after: Option<Duration>,
}

#[derive(Debug)]
struct Broken {
    sent: bool,
}

/// One request on a connection of its own.
async fn get(port: u16) -> Result<Reply, Broken> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|_| Broken { sent: false })?;
    let sent = |_| Broken { sent: true };
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        .await
        .map_err(sent)?;
    let mut reply = Vec::new();
    let mut piece = [0; 512];
    while !reply.ends_with(b"\r\n\r\n") {
        let read = socket.read(&mut piece).await.map_err(sent)?;
        if read == 0 {
            return Err(Broken { sent: true });
        }
        reply.extend_from_slice(&piece[..read]);
    }
    let reply = String::from_utf8_lossy(&reply);
    let status = reply
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or(Broken { sent: true })?;
    let retry_after = reply
        .lines()
        .find_map(|line| http::retry_after(line.strip_prefix("Retry-After:")?, None));
    Ok(Reply { status, retry_after })
}

fn judge(result: Result<&Reply, &Broken>) -> Outcome {
    match result {
        Ok(reply) => http::status(reply.status, reply.retry_after),
        Err(broken) => http::transport(broken.sent),
    }
}

type Judge = fn(Result<&Reply, &Broken>) -> Outcome;

fn client(breaker: &Breaker) -> Policy<Judge> {
    Policy::named("http")
        .classify(judge as Judge)
        .guard(breaker.clone(), None)
        .attempt_timeout(ms(400))
        .build()
}

fn breaker() -> Breaker {
    Breaker::builder("http")
        .consecutive(5)
        .open(Backoff::constant(ms(1000)))
        .half_open(HalfOpen::probes(2, 1, ms(500)))
        .build()
        .unwrap()
}

async fn call(policy: &Policy<Judge>, port: u16) -> Result<Reply, Error<Broken>> {
    policy.run(Idempotent::Yes, |_| get(port)).await
}

fn refusal(result: Result<Reply, Error<Broken>>) -> Option<Rejected> {
    result.err()?.into_inner().err()
}

/// Calls until the breaker is closed, each time when it said to.
async fn until_closed(policy: &Policy<Judge>, breaker: &Breaker, port: u16) {
    while breaker.state() != State::Closed {
        if let Some(rejected) = refusal(call(policy, port).await) {
            sleep(rejected.retry_after.unwrap_or(ms(10))).await;
        }
    }
}

async fn trouble(mode: u8, failures: u32, expected: Cause) {
    let server = Server::start(WELL).await;
    let breaker = breaker();
    let policy = client(&breaker);
    let cause = Arc::new(AtomicU32::new(0));
    let heard = Arc::clone(&cause);
    let listener = move |event: &contextkeep_resilience::breaker::Transition| {
        if event.generation == 1 {
            heard.store(u32::from(event.cause == expected), Ordering::Relaxed);
        }
    };
    breaker.on_transition(listener).forever();
    assert_eq!(call(&policy, server.port).await.unwrap().status, 200);
    server.mode.store(mode, Ordering::Relaxed);
    let mut calls = 0;
    while breaker.state() == State::Closed {
        drop(call(&policy, server.port).await);
        calls += 1;
    }
    assert_eq!((calls, cause.load(Ordering::Relaxed)), (failures, 1));
    let before = server.connections();
    for _ in 0..200 {
        let rejected = refusal(call(&policy, server.port).await).unwrap();
        assert_eq!(rejected.why, Why::Open);
        assert!(rejected.retry_after.is_some());
    }
    assert_eq!(server.connections(), before, "an open breaker sends nothing");
    server.mode.store(WELL, Ordering::Relaxed);
    timeout(
        Duration::from_secs(20),
        until_closed(&policy, &breaker, server.port),
    )
    .await
    .unwrap();
    assert_eq!(call(&policy, server.port).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_server_that_hangs_opens_by_timeouts() {
    trouble(HANGS, 5, Cause::ConsecutiveFailures).await;
}

#[tokio::test]
async fn a_server_that_resets_opens() {
    trouble(RESETS, 5, Cause::ConsecutiveFailures).await;
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_gets_it_at_once() {
    trouble(BUSY, 1, Cause::Throttled).await;
}

#[tokio::test]
async fn a_herd_at_recovery_is_let_in_by_probes() {
    let server = Server::start(HANGS).await;
    let breaker = breaker();
    let policy = Arc::new(client(&breaker));
    while breaker.state() == State::Closed {
        drop(call(&policy, server.port).await);
    }
    let wait = breaker.try_acquire().unwrap_err().retry_after.unwrap();
    sleep(wait).await;
    let before = server.connections();
    let port = server.port;
    let herd: tokio::task::JoinSet<_> = (0..200)
        .map(|_| {
            let policy = Arc::clone(&policy);
            async move { refusal(call(&policy, port).await).map(|rejected| rejected.why) }
        })
        .collect();
    let refusals = herd.join_all().await;
    assert_eq!(
        refusals
            .iter()
            .filter(|why| **why == Some(Why::AttemptTimeout))
            .count(),
        2,
        "the two probes"
    );
    assert_eq!(server.connections() - before, 2);
}

/// A server that does what `trouble` says while it is in trouble.
struct Troubled {
    server: Server,
    trouble: u8,
}

impl Dependency for Troubled {
    async fn call(&self) -> Result<(), Outcome> {
        let result = get(self.server.port).await;
        match judge(result.as_ref()) {
            Outcome::SUCCESS => Ok(()),
            outcome => Err(outcome),
        }
    }

    fn fail(&self) {
        self.server.mode.store(self.trouble, Ordering::Relaxed);
    }

    async fn heal(&self) {
        self.server.mode.store(WELL, Ordering::Relaxed);
    }
}

async fn endure_http(what: &str, trouble: u8) {
    let server = Server::start(WELL).await;
    let breaker = Profile::RestUpstream
        .breaker("http")
        .open(Backoff::exponential(ms(400), ms(2000)).jitter(Jitter::Upper(0.5)))
        .half_open(HalfOpen::probes(2, 1, ms(1000)))
        .build()
        .unwrap();
    endure(what, Troubled { server, trouble }, breaker, ms(200), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_server_is_left_alone_until_it_answers() {
    endure_http("HTTP, hangs", HANGS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resetting_server_is_left_alone_until_it_answers() {
    endure_http("HTTP, resets", RESETS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_a_pause_is_left_alone_until_it_answers() {
    endure_http("HTTP, 429 with Retry-After: 1", BUSY).await;
}
