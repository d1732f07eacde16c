//! A peer that knows seed 000's text and nothing else: no hello, one packet out, one packet in, for ever.
//!
//! It shares no code with the product. As an exchange it connects to traders and keeps what it fetched in a directory
//! for each; it serves an object only when its `.success` file stands, and answers `P:` until then. As a trader it
//! listens, and serves what its `local/` has.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::site::random_bytes;

/// Length of every packet.
pub(crate) const N: usize = 1400;

/// What a peer may do that the seed leaves open.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Habits {
    /// It says its request in every packet until the answer begins, not only once.
    pub(crate) repeats: bool,
    /// It sends an `N:` between any two packets of data.
    pub(crate) stalls: bool,
    /// It hands packets to its socket in pieces of this length.
    pub(crate) fragment: Option<usize>,
    /// It says `E:` when it wants nothing and is asked for nothing.
    pub(crate) ends: bool,
}

/// What one link fetches and serves.
#[derive(Clone)]
struct Work {
    queue: Arc<Mutex<VecDeque<String>>>,
    fetched: PathBuf,
    served: PathBuf,
    /// Objects are served only beside their markers.
    gated: bool,
    habits: Habits,
}

/// A running peer.
pub(crate) struct Peer {
    ended: Arc<AtomicBool>,
    wake: Option<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

impl Peer {
    /// An exchange in `dir` with `links` links to each of two traders; it fetches `names`.
    pub(crate) fn exchange(
        traders: [SocketAddr; 2],
        links: usize,
        names: &[String],
        dir: &Path,
        habits: Habits,
    ) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let stores = [dir.join("from1"), dir.join("from2")];
        stores.iter().for_each(|store| fs::create_dir_all(store).expect("made"));
        for (index, address) in traders.into_iter().enumerate() {
            for link in 0..links {
                let mine = names.iter().enumerate().filter(|(i, _)| i % links == link).map(|(_, name)| name.clone());
                let work = Work {
                    queue: Arc::new(Mutex::new(mine.collect())),
                    fetched: stores[index].clone(),
                    served: stores[1 - index].clone(),
                    gated: true,
                    habits,
                };
                let over = Arc::clone(&ended);
                threads.push(std::thread::spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        match TcpStream::connect(address) {
                            Ok(stream) => drop(Turn::new(stream, work.clone()).and_then(|turn| turn.run(&over))),
                            Err(_) => std::thread::yield_now(),
                        }
                    }
                }));
            }
        }
        Self { ended, wake: None, threads }
    }

    /// A trader that listens on `address`; it fetches `names` into `remote` and serves `local`.
    pub(crate) fn trader(address: SocketAddr, names: &[String], local: &Path, remote: &Path, habits: Habits) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let queue = Arc::new(Mutex::new(names.iter().cloned().collect()));
        let work = Work { queue, fetched: remote.into(), served: local.into(), gated: false, habits };
        let listener = TcpListener::bind(address).expect("an address of our own");
        let over = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut links = Vec::new();
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let (Ok(stream), work, over) = (stream, work.clone(), Arc::clone(&over)) else { continue };
                links.push(std::thread::spawn(move || drop(Turn::new(stream, work).and_then(|turn| turn.run(&over)))));
            }
            links.into_iter().for_each(|link| link.join().expect("a link's thread ends"));
        });
        Self { ended, wake: Some(address), threads: vec![thread] }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(address) = self.wake {
            let _ = TcpStream::connect(address);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("the peer met something that the seed does not have");
            }
        }
    }
}

/// What is on order.
struct Head {
    name: String,
    /// It was asked for.
    said: bool,
    /// Its length, and its bytes so far, once the answer has begun.
    answer: Option<(usize, Vec<u8>)>,
}

/// One link, and where it stands.
struct Turn {
    stream: TcpStream,
    work: Work,
    head: Option<Head>,
    /// What the other end asked for, and how much of it was sent.
    asked: Option<(String, usize)>,
    stalled: bool,
}

impl Turn {
    fn new(stream: TcpStream, work: Work) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self { stream, work, head: None, asked: None, stalled: false })
    }

    fn run(mut self, ended: &AtomicBool) -> io::Result<()> {
        let mut outcome = Ok(());
        while outcome.is_ok() && !ended.load(Ordering::Relaxed) {
            outcome = self.turn(ended);
        }
        // What was not finished is for another link.
        if let Some(head) = self.head.take() {
            self.work.queue.lock().expect("no thread panicked").push_front(head.name);
        }
        let _ = self.stream.shutdown(Shutdown::Both);
        outcome
    }

    fn turn(&mut self, ended: &AtomicBool) -> io::Result<()> {
        let packet = self.next_packet();
        assert_eq!(packet.len(), N);
        for piece in packet.chunks(self.work.habits.fragment.unwrap_or(N)) {
            self.stream.write_all(piece)?;
        }
        let mut packet = [0; N];
        let mut filled = 0;
        while filled < N {
            match self.stream.read(&mut packet[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ended.load(Ordering::Relaxed) => {}
                Err(error) => return Err(error),
            }
        }
        self.take(&packet);
        Ok(())
    }

    fn next_packet(&mut self) -> Vec<u8> {
        if self.head.is_none() {
            let next = self.work.queue.lock().expect("no thread panicked").pop_front();
            self.head = next.map(|name| Head { name, said: false, answer: None });
        }
        let mut packet = Vec::with_capacity(N);
        if let Some(head) = &mut self.head
            && head.answer.is_none()
            && (!head.said || self.work.habits.repeats)
        {
            packet.extend_from_slice(format!("R:{}:", head.name).as_bytes());
            head.said = true;
        }
        self.add_inner(&mut packet);
        let padding = random_bytes(N - packet.len());
        packet.extend(padding);
        packet
    }

    fn add_inner(&mut self, packet: &mut Vec<u8>) {
        let habits = self.work.habits;
        let Some((name, sent)) = &mut self.asked else {
            packet.extend_from_slice(if habits.ends && self.head.is_none() { b"E:" } else { b"N:" });
            return;
        };
        let path = self.work.served.join(&*name);
        let is_here = path.exists() && (!self.work.gated || marker(&path).exists());
        if !is_here {
            return packet.extend_from_slice(b"P:");
        }
        self.stalled = habits.stalls && !self.stalled;
        if self.stalled {
            return packet.extend_from_slice(b"N:");
        }
        let bytes = fs::read(path).expect("it stands");
        let head = if *sent == 0 { format!("B:{}:", bytes.len()) } else { "M:".into() };
        packet.extend_from_slice(head.as_bytes());
        let payload = &bytes[*sent..bytes.len().min(*sent + N - packet.len())];
        packet.extend_from_slice(payload);
        *sent += payload.len();
        if *sent == bytes.len() {
            self.asked = None;
        }
    }

    fn take(&mut self, packet: &[u8]) {
        let mut inner = packet;
        if let Some(rest) = packet.strip_prefix(b"R:") {
            let (name, rest) = split(rest);
            let name = String::from_utf8(name.to_vec()).expect("names of this site are text");
            self.asked = (!name.is_empty()).then_some((name, 0));
            inner = rest;
        }
        let (kind, rest) = split(inner);
        match kind {
            b"B" => {
                let (size, payload) = split(rest);
                let size = std::str::from_utf8(size).ok().and_then(|text| text.parse().ok()).expect("a decimal size");
                let head = self.head.as_mut().expect("data that was asked for");
                assert!(head.answer.is_none(), "'{}' is begun twice", head.name);
                head.answer = Some((size, Vec::new()));
                self.add_payload(payload);
            }
            b"M" => self.add_payload(rest),
            b"N" | b"P" | b"E" => {}
            _ => panic!("{} is not of the seed", packet[..40].escape_ascii()),
        }
    }

    /// What is behind the object's end is padding.
    fn add_payload(&mut self, payload: &[u8]) {
        let Head { name, answer, .. } = self.head.as_mut().expect("data that was asked for");
        let (size, bytes) = answer.as_mut().expect("\"B:\" comes first");
        bytes.extend_from_slice(&payload[..payload.len().min(*size - bytes.len())]);
        if bytes.len() == *size {
            let path = self.work.fetched.join(&*name);
            fs::write(&path, bytes).expect("written");
            fs::write(marker(&path), "").expect("written");
            self.head = None;
        }
    }
}

/// What stands before the first colon, and what behind.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|&byte| byte == b':').expect("a colon");
    (&bytes[..at], &bytes[at + 1..])
}

fn marker(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".success");
    name.into()
}
