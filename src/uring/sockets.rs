//! The twin of a ring, for where the kernel gives none: the same operations by plain system calls on one thread.
//!
//! An operation is tried at the next [`Sockets::wait`]; one that would block stays and is tried again when `ppoll` says
//! that its socket is ready. A send goes on until its train is out, so that it completes as a ring's does. Each wait
//! costs the kernel a look at every socket with something in flight.
//!
//! No call but `ppoll` blocks, whatever mode the sockets are in.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::buffer::Buffer;
use super::driver::{Completion, Outcome, Rejected, Token};
use super::gather::Gather;
use super::ring::WAIT_MAX;
use super::setup::RingError;
use super::waker::Waker;

/// Receives and sends of one worker, by plain calls; see [`Driver`](super::Driver) for what each method promises.
pub struct Sockets {
    operations_max: usize,
    in_flight: BTreeMap<Key, Operation>,
    ready: VecDeque<Completion>,
    waker: Waker,
}

/// What `ppoll` says of a socket whether it was asked for or not.
const ALWAYS_TOLD: PollFlags = PollFlags::POLLERR.union(PollFlags::POLLHUP).union(PollFlags::POLLNVAL);

/// A token has one operation of each kind in flight at most.
type Key = (Token, Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Receive,
    Send,
}

struct Operation {
    socket: Arc<OwnedFd>,
    work: Work,
    /// The socket was not ready when it was last tried.
    blocked: bool,
}

enum Work {
    Receive(Buffer),
    Send {
        train: Gather,
        /// Bytes that went out since the operation was started.
        sent: usize,
    },
}

impl Sockets {
    /// For up to `operations` in flight.
    ///
    /// # Errors
    /// The system has no descriptor left to wake it with.
    pub fn new(operations: u32) -> Result<Sockets, RingError> {
        let waker = Waker::new().map_err(|source| RingError::Os { call: "eventfd", source })?;
        let operations_max = operations as usize;
        Ok(Sockets { operations_max, in_flight: BTreeMap::new(), ready: VecDeque::new(), waker })
    }

    /// See [`Driver::recv`](super::Driver::recv).
    ///
    /// # Errors
    /// As many operations are in flight as there may be.
    ///
    /// # Panics
    /// As there.
    pub fn recv(&mut self, token: Token, socket: &Arc<OwnedFd>, buffer: Buffer) -> Result<(), Rejected<Buffer>> {
        assert!(buffer.free_len() > 0, "a receive needs free space");
        assert!(!self.in_flight.contains_key(&(token, Kind::Receive)), "{token:?} already receives");
        match self.room() {
            Ok(()) => self.start((token, Kind::Receive), socket, Work::Receive(buffer)),
            Err(error) => return Err(Rejected { returned: buffer, error }),
        }
        Ok(())
    }

    /// See [`Driver::send`](super::Driver::send).
    ///
    /// # Errors
    /// As many operations are in flight as there may be.
    ///
    /// # Panics
    /// As there.
    #[expect(
        clippy::result_large_err,
        reason = "the train comes back by value; boxing it would allocate for each send"
    )]
    pub fn send(&mut self, token: Token, socket: &Arc<OwnedFd>, train: Gather) -> Result<(), Rejected<Gather>> {
        assert!(!train.is_done(), "a send needs bytes");
        assert!(!self.in_flight.contains_key(&(token, Kind::Send)), "{token:?} already sends");
        match self.room() {
            Ok(()) => self.start((token, Kind::Send), socket, Work::Send { train, sent: 0 }),
            Err(error) => return Err(Rejected { returned: train, error }),
        }
        Ok(())
    }

    /// See [`Driver::cancel`](super::Driver::cancel).
    pub fn cancel(&mut self, token: Token) {
        for kind in [Kind::Receive, Kind::Send] {
            if let Some(operation) = self.in_flight.remove(&(token, kind)) {
                let outcome = operation.work.over(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
                self.ready.push_back(Completion { token, outcome });
            }
        }
    }

    /// See [`Driver::waker`](super::Driver::waker).
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// See [`Driver::wait`](super::Driver::wait).
    ///
    /// # Errors
    /// What `ppoll` says, but for signals.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<(), RingError> {
        let fresh = self.in_flight.iter().filter(|(_, operation)| !operation.blocked).map(|(&key, _)| key);
        self.attempt(fresh.collect());
        let timeout = if self.ready.is_empty() { timeout } else { Some(Duration::ZERO) };
        let ready = self.poll(timeout)?;
        self.attempt(ready);
        Ok(())
    }

    /// See [`Driver::next_completion`](super::Driver::next_completion).
    pub fn next_completion(&mut self) -> Option<Completion> {
        self.ready.pop_front()
    }

    /// See [`Driver::in_flight`](super::Driver::in_flight).
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn room(&self) -> Result<(), RingError> {
        let in_flight = self.in_flight.len();
        if in_flight < self.operations_max { Ok(()) } else { Err(RingError::Full { in_flight }) }
    }

    fn start(&mut self, key: Key, socket: &Arc<OwnedFd>, work: Work) {
        self.in_flight.insert(key, Operation { socket: Arc::clone(socket), work, blocked: false });
    }

    /// Tries each of `keys` once.
    fn attempt(&mut self, keys: Vec<Key>) {
        for key in keys {
            let Some(operation) = self.in_flight.get_mut(&key) else { continue };
            let Some(result) = operation.attempt() else { continue };
            let operation = self.in_flight.remove(&key).expect("it was there just now");
            self.ready.push_back(Completion { token: key.0, outcome: operation.work.over(result) });
        }
    }

    /// Waits until a socket is ready for what is in flight on it, and returns which operations that are.
    fn poll(&mut self, timeout: Option<Duration>) -> Result<Vec<Key>, RingError> {
        let mut sockets = self.poll_fds();
        let timeout = timeout.map(|timeout| TimeSpec::from_duration(timeout.min(WAIT_MAX)));
        match ppoll(&mut sockets, timeout, None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(errno) => return Err(RingError::Os { call: "ppoll", source: errno.into() }),
        }
        let mut found = sockets.iter().map(|socket| socket.revents().unwrap_or(PollFlags::all()));
        if found.next().is_some_and(|found| !found.is_empty()) {
            self.waker.take().map_err(|source| RingError::Os { call: "read of an eventfd", source })?;
        }
        let (mut ready, mut last) = (Vec::new(), None);
        for &(token, kind) in self.in_flight.keys() {
            let events = match last {
                Some((same, events)) if same == token => events,
                _ => found.next().expect("each socket was asked for"),
            };
            last = Some((token, events));
            if events.intersects(kind.event() | ALWAYS_TOLD) {
                ready.push((token, kind));
            }
        }
        Ok(ready)
    }

    /// The waker, and each socket once: there may be no more than the process may have open files (poll(2)).
    fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let mut fds = Vec::with_capacity(1 + self.in_flight.len());
        fds.push(PollFd::new(self.waker.as_fd(), PollFlags::POLLIN));
        let mut last = None;
        for ((token, kind), operation) in &self.in_flight {
            match fds.last_mut().filter(|_| last == Some(*token)) {
                Some(fd) => fd.set_events(fd.events() | kind.event()),
                None => fds.push(PollFd::new(operation.socket.as_fd(), kind.event())),
            }
            last = Some(*token);
        }
        fds
    }
}

impl Kind {
    /// What a socket is waited for.
    fn event(self) -> PollFlags {
        match self {
            Self::Receive => PollFlags::POLLIN,
            Self::Send => PollFlags::POLLOUT,
        }
    }
}

impl Operation {
    /// `None`: it would block.
    fn attempt(&mut self) -> Option<io::Result<usize>> {
        let result = match &mut self.work {
            Work::Receive(buffer) => buffer.recv_once(&self.socket),
            Work::Send { train, sent } => train.send_once(&self.socket).inspect(|bytes| *sent += bytes),
        };
        self.blocked = match (&result, &self.work) {
            // What is left waits for the peer.
            (Ok(_), Work::Send { train, .. }) => !train.is_done(),
            (Ok(_), Work::Receive(_)) => false,
            (Err(error), _) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        (!self.blocked).then_some(result)
    }
}

impl Work {
    /// What is told of an operation whose last try gave `result`. As with a ring, a send of which a part went out has
    /// sent that; what stopped it the next one meets again.
    fn over(self, result: io::Result<usize>) -> Outcome {
        match self {
            Work::Receive(buffer) => Outcome::Received { buffer, result },
            Work::Send { train, sent: 0 } => Outcome::Sent { train, result },
            Work::Send { train, sent } => Outcome::Sent { train, result: Ok(sent) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pool;
    use super::*;
    use std::os::unix::net::UnixStream;

    /// Of a socket that both received and sent there were two: more than there may be where the process may have few
    /// files, and then the worker ended.
    #[test]
    fn each_socket_is_asked_for_once() {
        let pool = Pool::new(3, 4096).expect("a mapping");
        let mut sockets = Sockets::new(16).expect("an eventfd");
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().expect("two sockets")).collect();
        for (token, (near, _)) in (0..).map(Token).zip(&pairs) {
            let near = Arc::new(OwnedFd::from(near.try_clone().expect("a descriptor")));
            sockets.recv(token, &near, pool.take().expect("one each")).expect("room");
            if token != Token(1) {
                let mut train = Gather::with_arena(1);
                assert!(train.push_bytes(b"x"));
                sockets.send(token, &near, train).expect("room");
            }
        }
        let events: Vec<PollFlags> = sockets.poll_fds().iter().map(PollFd::events).collect();
        let both = PollFlags::POLLIN | PollFlags::POLLOUT;
        assert_eq!(events, [PollFlags::POLLIN, both, PollFlags::POLLIN, both]);
        let ready = sockets.poll(Some(Duration::ZERO)).expect("ppoll");
        assert_eq!(ready, [(Token(0), Kind::Send), (Token(2), Kind::Send)], "nothing has come");
        drop(pairs);
        assert_eq!(sockets.poll(Some(Duration::ZERO)).expect("ppoll").len(), 5, "all of them are over");
    }
}
