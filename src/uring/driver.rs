//! What one worker moves its bytes with: a ring, or plain calls on its sockets. Both mean the same by everything.
//!
//! A worker is written for a [`Driver`] and cannot tell which it has; `uring/tests.rs` holds both against the same
//! facts.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::Buffer;
use super::gather::Gather;
use super::ring::Ring;
use super::setup::RingError;
use super::sockets::Sockets;
use super::waker::Waker;

/// The ways there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DriverKind {
    /// [`Ring`]: operations are handed to the kernel, many with one system call.
    Uring,
    /// [`Sockets`]: a system call for each operation, and `poll` for those that cannot be done at once.
    Blocking,
    /// A ring where there is memory for it when it is made, else plain calls: what rings may take is counted together
    /// with what else their user runs, and ran a moment ago.
    UringOrBlocking,
}

/// Starts receives and sends and tells what came of them; made, used and dropped on one thread.
pub enum Driver {
    /// By way of io_uring.
    Uring(Box<Ring>),
    /// By way of plain calls.
    Blocking(Sockets),
}

/// Names what an operation is for, chosen by the caller: one link, one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// An operation that is over, and its memory.
#[derive(Debug)]
pub struct Completion {
    /// As given when it was started.
    pub token: Token,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an operation.
#[derive(Debug)]
pub enum Outcome {
    /// A receive.
    Received {
        /// The buffer; what was received is already part of its filled bytes.
        buffer: Buffer,
        /// Bytes added; 0 means that the peer closed. ECANCELED after [`Driver::cancel`].
        result: io::Result<usize>,
    },
    /// A send.
    Sent {
        /// The train, already advanced by the bytes sent; `is_done()` says whether that is all.
        train: Gather,
        /// Bytes sent. ECANCELED after [`Driver::cancel`].
        result: io::Result<usize>,
    },
}

/// An operation that was not started, and its memory.
#[derive(Debug)]
pub struct Rejected<T> {
    /// What was to be received into or sent, unchanged.
    pub returned: T,
    /// Why.
    pub error: RingError,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DriverKind::Uring | DriverKind::UringOrBlocking => "io_uring",
            DriverKind::Blocking => "blocking",
        })
    }
}

impl Driver {
    /// For up to `operations` in flight: at most 32768, rounded up to a power of two where it is a ring. And why it is
    /// none, where it was to be one.
    ///
    /// # Errors
    /// What refused, and what to do about it.
    pub fn new(kind: DriverKind, operations: u32) -> Result<(Driver, Option<RingError>), RingError> {
        let missed = match kind {
            DriverKind::Blocking => None,
            _ => match Ring::new(operations) {
                Ok(ring) => return Ok((Driver::Uring(Box::new(ring)), None)),
                Err(why @ RingError::NoMemory { .. }) if kind == DriverKind::UringOrBlocking => Some(why),
                Err(why) => return Err(why),
            },
        };
        Ok((Driver::Blocking(Sockets::new(operations)?), missed))
    }

    /// Receives once into the free space of `buffer`. The operation starts with the next [`Driver::wait`].
    ///
    /// # Errors
    /// As many operations are in flight as there may be, or the kernel takes nothing now; the buffer comes back.
    ///
    /// # Panics
    /// When the token already has a receive in flight, or the buffer has no free space.
    pub fn recv(&mut self, token: Token, socket: &Arc<OwnedFd>, buffer: Buffer) -> Result<(), Rejected<Buffer>> {
        match self {
            Driver::Uring(ring) => ring.recv(token, socket, buffer),
            Driver::Blocking(sockets) => sockets.recv(token, socket, buffer),
        }
    }

    /// Sends what is left of `train`, all of it if the peer takes it. The operation starts with the next
    /// [`Driver::wait`].
    ///
    /// # Errors
    /// As many operations are in flight as there may be, or the kernel takes nothing now; the train comes back.
    ///
    /// # Panics
    /// When the token already has a send in flight (two would mix their bytes), or the train has nothing to send.
    #[expect(
        clippy::result_large_err,
        reason = "the train comes back by value; boxing it would allocate for each send"
    )]
    pub fn send(&mut self, token: Token, socket: &Arc<OwnedFd>, train: Gather) -> Result<(), Rejected<Gather>> {
        match self {
            Driver::Uring(ring) => ring.send(token, socket, train),
            Driver::Blocking(sockets) => sockets.send(token, socket, train),
        }
    }

    /// Gives up what `token` has in flight. The completions still come, as ECANCELED or as whatever the operation had
    /// come to.
    pub fn cancel(&mut self, token: Token) {
        match self {
            Driver::Uring(ring) => ring.cancel(token),
            Driver::Blocking(sockets) => sockets.cancel(token),
        }
    }

    /// Ends this driver's waits from other threads.
    pub fn waker(&self) -> Waker {
        match self {
            Driver::Uring(ring) => ring.waker(),
            Driver::Blocking(sockets) => sockets.waker(),
        }
    }

    /// Starts what was asked for and waits for a completion, a wake-up or the end of `timeout` (`None`: no end).
    /// `Some(ZERO)` takes what is there without waiting; so does a call while [`Driver::next_completion`] has some
    /// left. It may return without any of these, for instance after a signal.
    ///
    /// # Errors
    /// The kernel refuses altogether; the driver is of no more use.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<(), RingError> {
        match self {
            Driver::Uring(ring) => ring.wait(timeout),
            Driver::Blocking(sockets) => sockets.wait(timeout),
        }
    }

    /// The next operation that is over.
    pub fn next_completion(&mut self) -> Option<Completion> {
        match self {
            Driver::Uring(ring) => ring.next_completion(),
            Driver::Blocking(sockets) => sockets.next_completion(),
        }
    }

    /// Operations that are not over yet.
    pub fn in_flight(&self) -> usize {
        match self {
            Driver::Uring(ring) => ring.in_flight(),
            Driver::Blocking(sockets) => sockets.in_flight(),
        }
    }
}
