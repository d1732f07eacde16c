//! A slow link without root: a TCP forwarder on loopback that passes on so many bytes a second, each way.
//!
//! Stands between an exchange and a trader, once for each link. What the receiving side may have under way is kept
//! small, so that the sender meets back-pressure as soon as it would on a real link. It has no delay and loses nothing.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::{RcvBuf, TcpMaxSeg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket};

use crate::units::{ByteCount, Rate};

/// A link that was kept from sending, by its sender or by us, catches up on at most this time.
const BURST: Duration = Duration::from_millis(20);
/// Bytes passed on at once are what the link carries in this time, ...
const STEP: Duration = Duration::from_millis(10);
/// ... within these bounds.
const STEP_BYTES: (usize, usize) = (512, 64 << 10);
/// A receive buffer holds what the link carries in this time, ...
const BUFFERED: Duration = Duration::from_millis(100);
/// ... within these bounds.
const BUFFER_BYTES: (usize, usize) = (32 << 10, 1 << 20);
/// As on an Ethernet. Loopback's own segments of 64 KiB would not fit into a small receive buffer.
const SEGMENT_BYTES: u32 = 1448;

/// One forwarder. Dropping it takes no new connections; those that are there end with their ends.
#[derive(Debug)]
pub(super) struct Shaper {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Shaper {
    /// Forwards every connection to `target`, each way of each at `rate`.
    pub(super) fn start(target: SocketAddr, rate: Rate) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // What is accepted inherits both.
        narrow(&listener, rate)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let accept = move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                if let Err(error) = forward(stream, target, rate) {
                    tracing::warn!("the demo cannot forward a link to {target}: {error}");
                }
            }
        };
        let thread = thread::Builder::new().name("shaper".to_owned()).spawn(accept)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where to connect instead of to the target.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread; where this fails it is not waiting.
        if TcpStream::connect(self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn narrow(socket: &impl AsFd, rate: Rate) -> io::Result<()> {
    let buffer = rate.bytes_in(BUFFERED).0 as usize;
    setsockopt(socket, RcvBuf, &buffer.clamp(BUFFER_BYTES.0, BUFFER_BYTES.1))?;
    setsockopt(socket, TcpMaxSeg, &SEGMENT_BYTES)?;
    Ok(())
}

/// Connects to `target`, and starts to pass on, both ways.
fn forward(near: TcpStream, target: SocketAddr, rate: Rate) -> io::Result<()> {
    let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let far = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Before the connection: it says how long segments to us may be.
    narrow(&far, rate)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&far), &SockaddrStorage::from(target))?;
    let far = TcpStream::from(far);
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ways = [(near.try_clone()?, far.try_clone()?), (far, near)];
    for (from, to) in ways {
        thread::Builder::new().name("shaper".to_owned()).spawn(move || pass_on(from, to, rate))?;
    }
    Ok(())
}

/// Passes on until either end ends, and tells the other.
fn pass_on(mut from: TcpStream, mut to: TcpStream, rate: Rate) {
    let step = (rate.bytes_in(STEP).0 as usize).clamp(STEP_BYTES.0, STEP_BYTES.1);
    let mut buffer = vec![0; step];
    let mut pace = Pace { rate, next: Instant::now() };
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        thread::sleep(pace.take(ByteCount(read as u64), Instant::now()));
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Either may be gone already.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// When the next bytes may pass.
#[derive(Debug)]
struct Pace {
    rate: Rate,
    next: Instant,
}

impl Pace {
    /// How long `bytes` that are here at `now` must wait.
    fn take(&mut self, bytes: ByteCount, now: Instant) -> Duration {
        let at = self.next.max(now.checked_sub(BURST).unwrap_or(now));
        self.next = at + self.rate.time_for(bytes).unwrap_or_default();
        at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_both_ways_and_so_does_the_end() {
        let target = TcpListener::bind("127.0.0.1:0").expect("a port");
        let shaper = Shaper::start(target.local_addr().expect("bound"), Rate(50e6)).expect("started");
        let near = TcpStream::connect(shaper.address()).expect("connected");
        let (far, _) = target.accept().expect("forwarded");
        let sent: Vec<u8> = (0..300_000_u32).map(|place| (place % 251) as u8).collect();
        for (mut from, mut to) in [(&near, &far), (&far, &near)] {
            let mut arrived = vec![0; sent.len()];
            thread::scope(|scope| {
                scope.spawn(|| from.write_all(&sent).expect("sent"));
                to.read_exact(&mut arrived).expect("arrived");
            });
            assert!(arrived == sent);
        }
        drop(near);
        assert_eq!((&far).read(&mut [0; 1]).expect("an end, not an error"), 0);
    }

    #[test]
    fn a_link_carries_no_more_than_its_rate() {
        let start = Instant::now();
        let mut now = start;
        let mut pace = Pace { rate: Rate(1e6), next: start };
        for _ in 0..1000 {
            now += pace.take(ByteCount(10_000), now);
        }
        // All but the last have had their 10 ms.
        assert_eq!(now - start, Duration::from_millis(9_990));
        // An hour without bytes makes up for no more than a burst.
        now += Duration::from_secs(3600);
        let waited: Duration = (0..4).map(|_| pace.take(ByteCount(10_000), now)).sum();
        assert_eq!(waited, Duration::from_millis(10), "{BURST:?} at once");
    }
}
