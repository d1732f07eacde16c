//! What is in flight on a ring: each slot owns what the kernel may touch until the operation's last completion.

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::libc;

use super::buffer::Buffer;
use super::driver::{Completion, Outcome, Token};
use super::gather::Gather;

/// A receive or a send, with all that the kernel may touch on its behalf.
pub(super) struct Operation {
    pub(super) token: Token,
    /// Keeps the descriptor from being closed, and its number from being given to another file.
    pub(super) socket: Arc<OwnedFd>,
    pub(super) work: Work,
}

pub(super) enum Work {
    Receive(Buffer),
    Send(Gather),
}

impl Operation {
    /// `result` is bytes, or an error as a negative number.
    pub(super) fn complete(self, result: i32) -> Completion {
        let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()));
        let bytes = *result.as_ref().unwrap_or(&0);
        let outcome = match self.work {
            Work::Receive(mut buffer) => {
                buffer.advance(bytes);
                Outcome::Received { buffer, result }
            }
            Work::Send(mut train) => {
                train.advance(bytes);
                Outcome::Sent { train, result }
            }
        };
        drop(self.socket);
        Completion { token: self.token, outcome }
    }
}

/// A slab of operations. A key is a slot's index and, in its high half, how often the slot was used, so that a late
/// cancel cannot hit the slot's next operation.
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// One for each slot. Never grows beyond the capacity it was made with, so an element never moves; written and read
    /// by the kernel through the pointers that `UnsafeCell` gives.
    messages: Vec<UnsafeCell<libc::msghdr>>,
    vacant: Vec<u32>,
    pub(super) occupied: usize,
}

struct Slot {
    uses: u32,
    cancelling: bool,
    operation: Option<Operation>,
}

impl Slots {
    pub(super) fn new(capacity: u32) -> Slots {
        let capacity = capacity as usize;
        Slots { slots: Vec::new(), messages: Vec::with_capacity(capacity), vacant: Vec::new(), occupied: 0 }
    }

    pub(super) fn has_room(&self) -> bool {
        !self.vacant.is_empty() || self.slots.len() < self.messages.capacity()
    }

    /// Puts `operation` into a free slot and returns its key.
    pub(super) fn occupy(&mut self, operation: Operation) -> u64 {
        assert!(self.has_room(), "room was made");
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot { uses: 0, cancelling: false, operation: None });
            // SAFETY: a message header is integers and pointers, for which all zeroes is a value.
            self.messages.push(UnsafeCell::new(unsafe { std::mem::zeroed() }));
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.uses = slot.uses.wrapping_add(1);
        slot.cancelling = false;
        slot.operation = Some(operation);
        self.occupied += 1;
        u64::from(slot.uses) << 32 | u64::from(index)
    }

    fn slot(&mut self, key: u64) -> &mut Slot {
        let slot = &mut self.slots[(key & u64::from(u32::MAX)) as usize];
        assert!(u64::from(slot.uses) == key >> 32, "a completion of an operation that is over");
        slot
    }

    pub(super) fn work(&mut self, key: u64) -> &mut Work {
        &mut self.slot(key).operation.as_mut().expect("the key is of an operation in flight").work
    }

    /// Puts `message` where the kernel will read it.
    pub(super) fn place_message(&mut self, key: u64, message: libc::msghdr) -> *const libc::msghdr {
        let place = self.messages[(key & u64::from(u32::MAX)) as usize].get();
        // SAFETY: the cell is this slot's own; its last operation is over, so neither the kernel nor a reference from
        // here reads it now.
        unsafe { place.write(message) };
        place
    }

    /// Empties a slot whose operation is over.
    pub(super) fn vacate(&mut self, key: u64) -> Operation {
        let operation = self.slot(key).operation.take().expect("one last completion for each operation");
        self.vacant.push((key & u64::from(u32::MAX)) as u32);
        self.occupied -= 1;
        operation
    }

    /// Whether the operation was not being cancelled yet.
    pub(super) fn begin_cancel(&mut self, key: u64) -> bool {
        !std::mem::replace(&mut self.slot(key).cancelling, true)
    }

    /// Keys of all operations in flight.
    pub(super) fn keys(&self) -> Vec<u64> {
        let occupied = self.slots.iter().enumerate().filter(|(_, slot)| slot.operation.is_some());
        occupied.map(|(index, slot)| u64::from(slot.uses) << 32 | index as u64).collect()
    }
}
