//! What a connection has in flight on its socket, whatever is spoken over it: one train going out, one buffer coming
//! in.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::limits;
use crate::transfer::pace::Meter;
use crate::units::Time;
use crate::uring::{Buffer, Gather};

/// A socket and what is in flight on it.
pub(super) struct Flight {
    pub(super) socket: Arc<OwnedFd>,
    /// The peer's address, for people.
    pub(super) address: String,
    /// The train, while it is not in flight.
    pub(super) train: Option<Gather>,
    /// A receive buffer with the start of a packet in it, while it is not in flight.
    pub(super) buffer: Option<Buffer>,
    /// The start of a packet for which no buffer was free.
    pub(super) carry: Vec<u8>,
    pub(super) receiving: bool,
    /// The last receive brought so much that the next one is worth a large buffer.
    pub(super) busy: bool,
    pub(super) send_rate: Meter,
    /// When the connection wants to be looked at though nothing happens.
    pub(super) deadline: Time,
    /// Why it ends, once it does.
    pub(super) closing: Option<String>,
}

impl Flight {
    pub(super) fn new(socket: OwnedFd, address: String, now: Time) -> Self {
        Self {
            socket: Arc::new(socket),
            address,
            train: Some(Gather::new()),
            buffer: None,
            carry: Vec::new(),
            receiving: false,
            busy: false,
            send_rate: Meter::default(),
            deadline: now,
            closing: None,
        }
    }

    /// Goes on receiving behind what is not whole yet, which is what the buffer holds; in another buffer where this one
    /// is of the wrong kind.
    pub(super) fn keep_partial(&mut self, buffer: Buffer) {
        let is_large = buffer.capacity() > limits::IDLE_BUFFER_BYTES;
        let long = buffer.filled().len() >= limits::IDLE_BUFFER_BYTES / 2;
        if is_large == (self.busy || long) {
            self.buffer = Some(buffer);
        } else {
            self.carry.clear();
            self.carry.extend_from_slice(buffer.filled());
        }
    }

    /// Nothing is in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.train.is_some() && !self.receiving
    }
}
