use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use super::*;
use crate::wait::eventually;

const SOON: Duration = Duration::from_secs(20);

/// A server that sends back what it gets, for as many connections as come.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    addr
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn round_trip(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes())?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, text.as_bytes());
    Ok(())
}

/// Whether nothing has arrived. The proxy's own thread may still be about to pass something on, so this is only
/// asked when something else proves that it had its chance.
fn is_silent(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let silent = stream
        .peek(&mut [0])
        .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    silent
}

#[test]
fn bytes_pass_both_ways_and_an_end_is_passed_on() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, &"hello".repeat(100_000)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    eventually("the connection to be forgotten", SOON, || {
        (proxy.connections() == 0).then_some(())
    });
}

#[test]
fn a_cut_resets_open_and_new_connections_until_healed() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut open = connect(&proxy);
    round_trip(&mut open, "a").unwrap();
    proxy.cut();
    assert_eq!(
        open.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let mut new = connect(&proxy);
    assert_eq!(new.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.heal();
    round_trip(&mut connect(&proxy), "b").unwrap();
}

#[test]
fn a_blackhole_holds_everything_and_loses_nothing() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut open = connect(&proxy);
    round_trip(&mut open, "a").unwrap();
    proxy.blackhole();
    open.write_all(b"held").unwrap();
    let mut new = connect(&proxy);
    new.write_all(b"held too").unwrap();
    eventually("the new connection to be accepted", SOON, || {
        (proxy.connections() == 2).then_some(())
    });
    assert!(is_silent(&open) && is_silent(&new));
    proxy.heal();
    let mut answer = [0; 4];
    open.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"held");
    let mut answer = [0; 8];
    new.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"held too");
}

#[test]
fn a_delayed_chunk_waits_for_its_delay_or_the_healing() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, "a").unwrap();
    proxy.delay(Duration::from_millis(1));
    round_trip(&mut stream, "b").unwrap();
    // Longer than the test may take: only the healing lets it through.
    proxy.delay(Duration::from_hours(1));
    stream.write_all(b"c").unwrap();
    assert!(is_silent(&stream));
    proxy.heal();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"c");
}

#[test]
fn a_cut_reaches_a_writer_whose_peer_does_not_read() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    // Never read: the echo fills every buffer on the way until our own writes stop.
    let block = vec![7; 65536];
    while stream.write(&block).is_ok() {}
    proxy.cut();
    eventually("the pumps to end", SOON, || {
        (proxy.connections() == 0).then_some(())
    });
}

#[test]
fn a_server_that_is_not_there_resets_the_client_and_a_new_target_serves_the_next() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = Proxy::start(gone).unwrap();
    assert_eq!(
        connect(&proxy).read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    proxy.retarget(echo());
    round_trip(&mut connect(&proxy), "x").unwrap();
}

#[test]
fn connections_beyond_the_limit_are_reset() {
    let proxy = Proxy::start(echo()).unwrap();
    proxy.blackhole();
    let held: Vec<_> = (0..MAX_CONNECTIONS).map(|_| connect(&proxy)).collect();
    eventually("all to be accepted", SOON, || {
        (proxy.connections() == MAX_CONNECTIONS).then_some(())
    });
    assert_eq!(
        connect(&proxy).read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    drop(held);
}

#[test]
fn a_dropped_proxy_ends_its_connections_even_held_ones() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, "a").unwrap();
    proxy.blackhole();
    stream.write_all(b"held").unwrap();
    drop(proxy);
    assert!(stream.read(&mut [0]).is_err());
}
