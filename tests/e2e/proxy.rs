//! A slow or a bad link: forwards connections to an address at a bounded rate, and flips bits if told to.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::site::fresh_address;

/// Bytes are forwarded in steps of this length.
const STEP: Duration = Duration::from_millis(10);

/// A forwarder, for as long as it lives.
pub(crate) struct Proxy {
    /// Where to connect.
    pub(crate) address: SocketAddr,
    control: Arc<Control>,
}

struct Control {
    /// Bytes a second, in each direction of each connection.
    rate: AtomicU64,
    /// After how many bytes of a direction a bit is flipped; 0: never.
    flip_every: AtomicU64,
    flips: AtomicU64,
    forwarded: AtomicU64,
    /// Where in the next connection's stream one byte is damaged; 0: nowhere.
    damage_at: AtomicU64,
    ended: AtomicBool,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr, rate: u64) -> Self {
        let listener = TcpListener::bind(fresh_address()).expect("a loopback address of our own");
        let address = listener.local_addr().expect("bound");
        let control = Arc::new(Control {
            rate: rate.into(),
            flip_every: 0.into(),
            flips: 0.into(),
            forwarded: 0.into(),
            damage_at: 0.into(),
            ended: false.into(),
        });
        let shared = Arc::clone(&control);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.ended.load(Ordering::Relaxed) {
                    break;
                }
                if let (Ok(here), Ok(there)) = (stream, TcpStream::connect(target)) {
                    let (a, b) = (here.try_clone().expect("cloned"), there.try_clone().expect("cloned"));
                    let (one, two) = (Arc::clone(&shared), Arc::clone(&shared));
                    std::thread::spawn(move || forward(here, there, &one));
                    std::thread::spawn(move || forward(b, a, &two));
                }
            }
        });
        Self { address, control }
    }

    pub(crate) fn flip_every(&self, bytes: u64) {
        self.control.flip_every.store(bytes, Ordering::Relaxed);
    }

    /// Damages one byte at this place of the first stream that is as long.
    pub(crate) fn damage_once_at(&self, offset: u64) {
        self.control.damage_at.store(offset, Ordering::Relaxed);
    }

    /// Bits flipped so far.
    pub(crate) fn flips(&self) -> u64 {
        self.control.flips.load(Ordering::Relaxed)
    }

    /// Bytes carried so far, both ways.
    pub(crate) fn forwarded(&self) -> u64 {
        self.control.forwarded.load(Ordering::Relaxed)
    }

    pub(crate) fn set_rate(&self, rate: u64) {
        self.control.rate.store(rate, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.control.ended.store(true, Ordering::Relaxed);
        // The listener's thread looks when somebody comes.
        let _ = TcpStream::connect(self.address);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, control: &Control) {
    let mut buffer = vec![0; 64 << 10];
    let (mut since_flip, mut passed) = (0, 0);
    let _ = from.set_read_timeout(Some(Duration::from_millis(200)));
    while !control.ended.load(Ordering::Relaxed) {
        let rate = control.rate.load(Ordering::Relaxed);
        let most = (rate / (Duration::from_secs(1).as_millis() / STEP.as_millis()) as u64).clamp(1, 64 << 10) as usize;
        match from.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(read) => {
                let every = control.flip_every.load(Ordering::Relaxed);
                since_flip += read as u64;
                if every > 0 && since_flip >= every {
                    since_flip = 0;
                    buffer[read / 2] ^= 1 << (read % 8);
                    control.flips.fetch_add(1, Ordering::Relaxed);
                }
                let damage_at = control.damage_at.load(Ordering::Relaxed);
                if damage_at >= passed && damage_at - passed < read as u64 && damage_at > 0 {
                    buffer[(damage_at - passed) as usize] ^= 0x80;
                    control.damage_at.store(0, Ordering::Relaxed);
                }
                passed += read as u64;
                control.forwarded.fetch_add(read as u64, Ordering::Relaxed);
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            _ => break,
        }
        if most < 64 << 10 {
            std::thread::sleep(STEP);
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
