//! Peers that send anything but what they should: the daemon lives, says who and where, and serves the others.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::site::{Plan, Site, descriptors, fresh_address, random_bytes};

const N: usize = 1400;

/// One packet that starts with `text`.
fn packet(text: &str) -> Vec<u8> {
    let mut packet = text.as_bytes().to_vec();
    packet.resize(N, b'#');
    packet
}

fn connect(site: &Site) -> TcpStream {
    let stream = TcpStream::connect(site.address("t1")).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("set");
    stream
}

/// Sends `bytes` and reads until the other end closes; what came.
fn provoke(site: &Site, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(site);
    // It may close before it has taken everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..read]);
    }
    answer
}

fn started(names: &[&str]) -> Site {
    let mut site = Site::new(Plan::default());
    for name in names {
        site.run(name);
    }
    let first = names[0].to_owned();
    site.until("it listens", |site| site.status(&first).is_some());
    site
}

#[test]
fn bytes_that_are_no_packets_end_their_link_with_a_reason() {
    let mut site = started(&["t1", "t2"]);
    let cases: [(&str, Vec<Vec<u8>>); 8] = [
        ("at byte 0 ", vec![random_bytes(N * 70)]),
        ("at byte 1400 ", vec![packet("N:"), random_bytes(N * 2)]),
        ("at byte 0 ", vec![packet("B:99999999999999999999999999:")]),
        ("at byte 2800 ", vec![packet("N:"), packet("N:"), packet("B:12:")]),
        ("at byte 1400 ", vec![packet("N:"), packet("M:")]),
        ("at byte 1400 ", vec![packet("N:"), packet("R:../../etc/passwd:N:")]),
        ("at byte 1400 ", vec![packet("N:"), packet("R:/etc/passwd:N:")]),
        ("at byte 0 ", vec![packet(&format!("R:{}", "x".repeat(N - 2)))]),
    ];
    for (place, packets) in cases {
        let before = site.log("t1").len();
        let answer = provoke(&site, &packets.concat());
        assert!(!String::from_utf8_lossy(&answer).contains("root:"), "it read a file outside of its store");
        site.until("the log says why and where", |site| {
            let log = site.log("t1");
            let line = log[before..].lines().find(|line| line.contains("link down"));
            line.is_some_and(|line| line.contains(place) && line.contains("127.0.0.1"))
        });
    }
    site.run("e1");
    site.run("e2");
    site.until_converged();
    assert!(!site.log("t1").contains("panicked"));
}

#[test]
fn peers_that_hang_leave_the_others_their_links() {
    let mut site = started(&["t1", "t2"]);
    let mut held = Vec::new();
    for case in 0..150 {
        let mut stream = connect(&site);
        match case % 3 {
            0 => {}
            1 => stream.write_all(&packet("N:")[..700]).expect("sent"),
            _ => stream.write_all(&packet("N:")).expect("sent"),
        }
        held.push(stream);
    }
    site.until("they are connected", |site| descriptors(site.pid("t1")) >= 150);
    site.run("e1");
    site.run("e2");
    site.until_converged();
    drop(held);
    site.until("their descriptors are free again", |site| descriptors(site.pid("t1")) < 60);
}

#[test]
fn more_requests_than_anyone_needs_are_bounded() {
    let mut site = started(&["t1", "t2"]);
    let mut requests = packet("N:");
    for index in 0..10_000 {
        requests.extend(packet(&format!("R:stock{}:N:", index % 40)));
    }
    // Nothing is read back, so that what is sent in answer piles up.
    let mut mute = connect(&site);
    mute.set_write_timeout(Some(Duration::from_secs(5))).expect("set");
    let _ = mute.write_all(&requests);
    let reset = connect(&site);
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&reset, sockopt::Linger, &linger).expect("set");
    drop(reset);
    site.run("e1");
    site.run("e2");
    site.until_converged();
    let anon = super::site::process_kib(site.pid("t1"), "RssAnon");
    assert!(anon < 128 << 10, "{anon} KiB");
}

// -- a trader that is not one ----------------------------------------------------------------------------------------

/// Answers whoever dials with `script`, again and again.
struct BadTrader {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl BadTrader {
    fn new(script: Vec<u8>, repeat: bool) -> Self {
        let listener = TcpListener::bind(fresh_address()).expect("an address of our own");
        let address = listener.local_addr().expect("bound");
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let (script, over) = (script.clone(), Arc::clone(&over));
                std::thread::spawn(move || stream.map(|stream| play(stream, &script, repeat, &over)));
            }
        });
        Self { address, ended }
    }
}

impl Drop for BadTrader {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn play(mut stream: TcpStream, script: &[u8], repeat: bool, over: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
    let mut sink = vec![0; 64 << 10];
    let mut sent = stream.write_all(script).is_ok();
    while sent && !over.load(Ordering::Relaxed) {
        if repeat {
            sent = stream.write_all(&packet("M:")).is_ok();
        } else if matches!(stream.read(&mut sink), Ok(0)) {
            break;
        }
    }
}

/// `e1` is told that `t1` is at an address where somebody else answers; `e2` has the right one.
fn site_with(bad: &BadTrader) -> Site {
    let mut site = Site::new(Plan::default());
    let far = site.address("t2");
    site.write_exchange("e1", [bad.address, far]);
    for node in site.all() {
        site.run(&node);
    }
    site
}

fn exchange_blames(script: Vec<Vec<u8>>, repeat: bool, blame: &str) {
    let bad = BadTrader::new(script.concat(), repeat);
    let mut site = site_with(&bad);
    site.until_converged();
    site.until("the exchange says who and where", |site| {
        let log = site.log("e1");
        log.lines().any(|line| line.contains("link down") && line.contains(blame) && line.contains("t1"))
    });
    assert!(site.is_running("e1"));
    assert!(!site.log("e1").contains("panicked"));
}

#[test]
fn an_exchange_outlives_a_trader_that_sends_what_nobody_asked_for() {
    exchange_blames(vec![packet("N:"), packet("B:120000:")], false, "at byte 1400 ");
}

#[test]
fn an_exchange_outlives_a_trader_that_sends_middles_for_ever() {
    exchange_blames(vec![packet("N:")], true, "at byte 1400 ");
}

#[test]
fn an_exchange_outlives_a_trader_that_sends_noise() {
    exchange_blames(vec![random_bytes(10 * N)], true, "at byte 0 ");
}

/// It answers every request with an object of an absurd length and never ends it; what it has on order comes by the
/// other way.
#[test]
fn a_trader_that_never_ends_an_object_keeps_nobody_from_converging() {
    let mut site = Site::new(Plan::default());
    let listener = TcpListener::bind(fresh_address()).expect("an address of our own");
    let far = site.address("t2");
    site.write_exchange("e1", [listener.local_addr().expect("bound"), far]);
    let ended = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&ended);
    let thread = std::thread::spawn(move || {
        listener.set_nonblocking(true).expect("set");
        let mut streams = Vec::new();
        while !over.load(Ordering::Relaxed) {
            if let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.set_nonblocking(true);
                let _ = stream.write_all(&packet("N:"));
                streams.push(stream);
            }
            for stream in &mut streams {
                let mut heard = vec![0; N];
                if matches!(stream.peek(&mut heard), Ok(N)) && stream.read_exact(&mut heard).is_ok() {
                    let is_request = heard.starts_with(b"R:");
                    let size = "B:9223372036854775807:";
                    let _ = stream.write_all(&packet(if is_request { size } else { "N:" }));
                }
            }
            std::thread::yield_now();
        }
    });
    for node in site.all() {
        site.run(&node);
    }
    site.until("what t1 has is at t2, over the other exchange", |site| site.has_markers("t2", 12));
    site.until_converged();
    assert!(site.is_running("e1"));
    ended.store(true, Ordering::Relaxed);
    thread.join().expect("it ends");
}
