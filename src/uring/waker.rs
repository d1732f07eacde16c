//! Ends a driver's wait from another thread.
//!
//! An eventfd that a ring keeps a read armed on, and that its twin waits for beside its sockets. A flag remembers that
//! a wake-up is under way, so that a thousand calls between two waits cost one system call. The driver clears the flag
//! before its worker looks at its queues: what was queued before a `wake` that did nothing is therefore seen.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Makes [`Driver::wait`](super::Driver::wait) of one driver return soon. Cheap to clone, used from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Not `O_NONBLOCK`: the ring's read must wait in the kernel, and a write of 1 blocks only at 2^64 - 2.
    event: EventFd,
    /// A wake-up was written that the driver has not taken yet.
    pending: AtomicBool,
    /// Where the kernel puts the count that it read; nobody reads it.
    count: AtomicU64,
}

impl Waker {
    pub(super) fn new() -> io::Result<Waker> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let shared = Shared { event, pending: AtomicBool::new(false), count: AtomicU64::new(0) };
        Ok(Waker { shared: Arc::new(shared) })
    }

    /// Makes the driver's present or next wait return. Costs nothing while an earlier call is still to be seen.
    pub fn wake(&self) {
        if !self.shared.pending.swap(true, Ordering::AcqRel) {
            let written = self.shared.event.write(1);
            // A signal cannot interrupt a write that need not wait, so nothing is left to go wrong.
            debug_assert!(written.is_ok(), "eventfd: {written:?}");
        }
    }

    /// The ring saw the wake-up: from here on a `wake` writes again.
    pub(super) fn taken(&self) {
        self.shared.pending.swap(false, Ordering::AcqRel);
    }

    /// Takes what was written off the eventfd, which can be read: of one that cannot, this would wait for a `wake`.
    pub(super) fn take(&self) -> io::Result<()> {
        self.shared.event.read()?;
        self.taken();
        Ok(())
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    pub(super) fn fd(&self) -> RawFd {
        self.shared.event.as_fd().as_raw_fd()
    }

    /// Eight bytes for the kernel to write to, valid while any clone of this value lives.
    pub(super) fn count_address(&self) -> *mut u64 {
        self.shared.count.as_ptr()
    }
}
