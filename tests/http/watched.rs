//! A site that is served to those who look, and the few bytes of HTTP that it takes to look.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use supersync::control::{ControlError, HttpDoor};
use tokio::sync::oneshot;

use super::site::{Told, runtime};

/// A site behind the page's door, served by a thread of its own until dropped.
pub(crate) struct Watched {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ControlError>>>,
}

/// What was answered.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Watched {
    pub(crate) fn start(site: Arc<Told>) -> Self {
        Self::serve(HttpDoor::loopback("127.0.0.1:0".parse().expect("an address")).expect("a free port"), site)
    }

    pub(crate) fn serve(door: HttpDoor, site: Arc<Told>) -> Self {
        let address = door.address().unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let (stop, stopped) = oneshot::channel();
        let serve = move || runtime().block_on(door.serve(site, async { drop(stopped.await) }));
        Self { address, stop: Some(stop), thread: Some(std::thread::spawn(serve)) }
    }

    /// A connection on which `head` has been asked.
    pub(crate) fn connect(&self, head: &str) -> TcpStream {
        connect(self.address, head)
    }

    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic").expect("the server ends well");
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map_or_else(|| panic!("no {name} in {:?}", self.headers), |(_, value)| value)
    }
}

fn connect(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).expect("sent");
    stream
}

/// Asks with these first lines of a request, and reads the answer to its end.
pub(crate) fn ask(address: SocketAddr, head: &str) -> Answer {
    let mut text = String::new();
    connect(address, head).read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
    let mut lines = head.lines();
    let first = lines.next().expect("a status line");
    let code = first.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Answer { code, headers: lines.filter_map(header).collect(), body: body.to_owned() }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}"))
}
