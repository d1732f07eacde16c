//! One ring of one worker thread.
//!
//! An operation's slot owns what the kernel may touch (buffer or train, message header, socket) from the call that
//! starts it until its last completion has been seen. Dropping a ring cancels what is in flight and waits for it; what
//! the kernel does not give back within `limits::RING_REAP_WITHIN` is leaked on purpose, because memory that is lost is
//! better than memory that is written to after it was freed.
//!
//! Sockets must be in blocking mode: on a non-blocking one the kernel does not wait but answers EAGAIN
//! (`socket::set_blocking`).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use nix::libc;

use super::buffer::Buffer;
use super::driver::{Completion, Rejected, Token};
use super::gather::{Gather, SEND_FLAGS};
use super::setup::{RingError, Setup};
use super::slots::{Operation, Slots, Work};
use super::waker::Waker;
use crate::limits::RING_REAP_WITHIN;

/// Key of the read that a wake-up completes. No slot's key: the low half of those is an index of 32768 at most.
const WAKE_KEY: u64 = u64::MAX;
/// Key of all cancel requests, whose answers tell nothing that the cancelled operations' own do not.
const CANCEL_KEY: u64 = u64::MAX - 1;
/// Bytes that a read of an eventfd takes.
const WAKE_BYTES: u32 = 8;
/// How often a submission that the kernel could not take at once is tried before the caller hears of it.
const SUBMIT_ATTEMPTS: usize = 4;

/// What the kernel says when nothing is wrong.
const PASSING: [i32; 4] = [libc::ETIME, libc::EINTR, libc::EAGAIN, libc::EBUSY];

/// The kernel refuses a time whose seconds do not fit; a wait may always end early.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(1 << 30);

/// An io_uring instance; made, used and dropped on one thread.
pub struct Ring {
    io: IoUring,
    setup: Setup,
    slots: ManuallyDrop<Slots>,
    /// What each token has in flight.
    tokens: HashMap<u64, InFlight>,
    ready: VecDeque<Completion>,
    /// Entries of our own that found the submission queue full. At most one for each operation and the wake-up.
    backlog: VecDeque<squeue::Entry>,
    waker: Waker,
    /// The kernel has, or will be given, the read on the waker's eventfd.
    wake_armed: bool,
    /// The kernel refused that read: waking does not work.
    wake_refused: Option<io::Error>,
    /// The kernel takes submissions from the thread that made the ring only, so the type cannot be sent.
    on_this_thread: PhantomData<*const ()>,
}

#[derive(Default)]
struct InFlight {
    receive: Option<u64>,
    send: Option<u64>,
}

impl Ring {
    /// A ring for up to `entries` operations in flight (at most 32768, rounded up to a power of two by the kernel).
    ///
    /// # Errors
    /// What refused, and what to do about it.
    pub fn new(entries: u32) -> Result<Ring, RingError> {
        let (io, setup) = Setup::best(entries)?;
        if !io.params().is_feature_ext_arg() {
            return Err(RingError::TooOld { feature: "waiting with a timeout (EXT_ARG)", since: "5.11" });
        }
        let waker = Waker::new().map_err(|source| RingError::Os { call: "eventfd", source })?;
        let capacity = io.params().sq_entries();
        Ok(Ring {
            io,
            setup,
            slots: ManuallyDrop::new(Slots::new(capacity)),
            tokens: HashMap::new(),
            ready: VecDeque::new(),
            backlog: VecDeque::new(),
            waker,
            wake_armed: false,
            wake_refused: None,
            on_this_thread: PhantomData,
        })
    }

    /// Which set-up flags are on.
    pub fn setup(&self) -> Setup {
        self.setup
    }

    /// Receives once into the free space of `buffer`. The operation starts with the next [`Ring::wait`].
    ///
    /// # Errors
    /// The ring is full, or the kernel takes nothing now; the buffer comes back.
    ///
    /// # Panics
    /// When the token already has a receive in flight, or the buffer has no free space.
    pub fn recv(&mut self, token: Token, socket: &Arc<OwnedFd>, buffer: Buffer) -> Result<(), Rejected<Buffer>> {
        assert!(buffer.free_len() > 0, "a receive needs free space");
        let in_flight = self.tokens.get(&token.0);
        assert!(in_flight.is_none_or(|ops| ops.receive.is_none()), "{token:?} already receives");
        if let Err(error) = self.make_room() {
            return Err(Rejected { returned: buffer, error });
        }
        let fd = Fd(socket.as_raw_fd());
        let length = u32::try_from(buffer.free_len()).unwrap_or(u32::MAX);
        let key = self.slots.occupy(Operation { token, socket: Arc::clone(socket), work: Work::Receive(buffer) });
        let Work::Receive(buffer) = self.slots.work(key) else { unreachable!("just put there") };
        let entry = opcode::Recv::new(fd, buffer.free_start(), length).build().user_data(key);
        self.tokens.entry(token.0).or_default().receive = Some(key);
        // SAFETY: the entry's pointer and length are the free space of a buffer, and its descriptor is that of a
        // socket, both of which the slot owns until `reap` has seen the operation's last completion; so does `drop`.
        unsafe { self.push(&entry) };
        Ok(())
    }

    /// Sends what is left of `train`, all of it if the peer takes it. The operation starts with the next
    /// [`Ring::wait`].
    ///
    /// # Errors
    /// The ring is full, or the kernel takes nothing now; the train comes back.
    ///
    /// # Panics
    /// When the token already has a send in flight (two would mix their bytes), or the train has nothing to send.
    #[expect(
        clippy::result_large_err,
        reason = "the train comes back by value; boxing it would allocate for each send"
    )]
    pub fn send(&mut self, token: Token, socket: &Arc<OwnedFd>, train: Gather) -> Result<(), Rejected<Gather>> {
        assert!(!train.is_done(), "a send needs bytes");
        let in_flight = self.tokens.get(&token.0);
        assert!(in_flight.is_none_or(|ops| ops.send.is_none()), "{token:?} already sends");
        if let Err(error) = self.make_room() {
            return Err(Rejected { returned: train, error });
        }
        let fd = Fd(socket.as_raw_fd());
        let message = train.message();
        let key = self.slots.occupy(Operation { token, socket: Arc::clone(socket), work: Work::Send(train) });
        let message = self.slots.place_message(key, message);
        let entry = opcode::SendMsg::new(fd, message).flags(SEND_FLAGS as u32).build().user_data(key);
        self.tokens.entry(token.0).or_default().send = Some(key);
        // SAFETY: the entry points to the slot's message header, which stays in place, and through it to the pieces of
        // a train, valid while that is unchanged; its descriptor is that of a socket. The slot owns all three until
        // `reap` has seen the operation's last completion; so does `drop`.
        unsafe { self.push(&entry) };
        Ok(())
    }

    /// Asks the kernel to give up what `token` has in flight. The completions still come, as ECANCELED or as whatever
    /// the operation had come to.
    pub fn cancel(&mut self, token: Token) {
        let Some(in_flight) = self.tokens.get(&token.0) else { return };
        for key in [in_flight.receive, in_flight.send].into_iter().flatten() {
            if self.slots.begin_cancel(key) {
                self.push_cancel(key);
            }
        }
    }

    /// Ends this ring's waits from other threads.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Submits what was asked for and waits for a completion, a wake-up or the end of `timeout` (`None`: no end).
    /// `Some(ZERO)` takes what is there without waiting; so does a call while [`Ring::next_completion`] has some left.
    /// It may return without any of these, for instance after a signal.
    ///
    /// # Errors
    /// The kernel refuses the ring altogether; it is of no more use.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<(), RingError> {
        self.flush_backlog();
        if !self.wake_armed {
            self.arm_wake();
        }
        // With entries of our own still to be submitted, perhaps the wake-up's, a wait could be without end.
        if !self.ready.is_empty() || !self.backlog.is_empty() || timeout == Some(Duration::ZERO) {
            self.poll()?;
        } else {
            self.enter_and_wait(timeout)?;
        }
        self.reap();
        match self.wake_refused.take() {
            None => Ok(()),
            Some(source) => Err(RingError::Os { call: "read of an eventfd", source }),
        }
    }

    /// The next operation that is over.
    pub fn next_completion(&mut self) -> Option<Completion> {
        self.ready.pop_front()
    }

    /// Operations whose completions have not been seen by a [`Ring::wait`].
    pub fn in_flight(&self) -> usize {
        self.slots.occupied
    }

    // -- to the kernel ---------------------------------------------------------------------------------

    fn enter_and_wait(&mut self, timeout: Option<Duration>) -> Result<(), RingError> {
        let submitter = self.io.submitter();
        let entered = match timeout {
            None => submitter.submit_and_wait(1),
            Some(timeout) => {
                let timeout = Timespec::from(timeout.min(WAIT_MAX));
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
            }
        };
        passing_is_fine(entered)
    }

    /// Submits and has deferred work done, without waiting.
    fn poll(&mut self) -> Result<(), RingError> {
        let queue = self.io.submission();
        let to_submit = queue.len() as u32;
        let idle = to_submit == 0 && self.setup.taskrun_flag && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if idle {
            return Ok(());
        }
        // SAFETY: no argument is passed, and `to_submit` entries are in the queue, put there by `push`.
        let entered =
            unsafe { self.io.submitter().enter::<libc::sigset_t>(to_submit, 0, EnterFlags::GETEVENTS.bits(), None) };
        passing_is_fine(entered)
    }

    /// A free slot, and a free entry in the submission queue.
    fn make_room(&mut self) -> Result<(), RingError> {
        let in_flight = self.slots.occupied;
        if !self.slots.has_room() {
            return Err(RingError::Full { in_flight });
        }
        for _ in 0..SUBMIT_ATTEMPTS {
            if !self.io.submission().is_full() {
                return Ok(());
            }
            // Whatever has completed is taken off, for the kernel does not submit while completions overflow.
            self.poll()?;
            self.reap();
        }
        if self.io.submission().is_full() { Err(RingError::Busy { in_flight }) } else { Ok(()) }
    }

    /// # Safety
    /// All that `entry` points to stays valid, and is not touched from here, until its last completion was seen, and
    /// the descriptor stays open as long.
    ///
    /// # Panics
    /// When the submission queue is full: `make_room` comes first.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise is the one that the queue asks for.
        let pushed = unsafe { self.io.submission().push(entry) };
        pushed.expect("room was made");
    }

    fn push_cancel(&mut self, key: u64) {
        let entry = opcode::AsyncCancel::new(key).build().user_data(CANCEL_KEY);
        self.backlog.push_back(entry);
        self.flush_backlog();
    }

    fn arm_wake(&mut self) {
        let place = self.waker.count_address().cast();
        let entry = opcode::Read::new(Fd(self.waker.fd()), place, WAKE_BYTES).build().user_data(WAKE_KEY);
        self.wake_armed = true;
        self.backlog.push_back(entry);
        self.flush_backlog();
    }

    /// Submits our own entries as far as the queue has room; the rest waits for the next time.
    fn flush_backlog(&mut self) {
        while !self.backlog.is_empty() {
            if self.io.submission().is_full() {
                // It cannot be said here what failed; the next wait submits again and says it.
                let _ = self.poll();
            }
            if self.io.submission().is_full() {
                return;
            }
            let Some(entry) = self.backlog.pop_front() else { return };
            // SAFETY: a cancel points to nothing. The wake-up's read points to the count in the shared part of the
            // waker and names its eventfd, both kept by `self.waker` until `drop` has seen the read's completion or has
            // leaked a share.
            unsafe { self.push(&entry) };
        }
    }

    // -- from the kernel -------------------------------------------------------------------------------

    /// Takes all completions off the queue.
    fn reap(&mut self) {
        let Ring { io, slots, tokens, ready, waker, wake_armed, wake_refused, .. } = self;
        for entry in io.completion() {
            if cqueue::more(entry.flags()) {
                // Not the operation's last: the kernel may still use its memory.
                continue;
            }
            match entry.user_data() {
                CANCEL_KEY => {}
                WAKE_KEY => {
                    *wake_armed = false;
                    waker.taken();
                    match entry.result() {
                        result if result >= 0 || PASSING.contains(&-result) || result == -libc::ECANCELED => {}
                        result => *wake_refused = Some(io::Error::from_raw_os_error(result.saturating_neg())),
                    }
                }
                key => {
                    let operation = slots.vacate(key);
                    let token = operation.token;
                    if let Some(in_flight) = tokens.get_mut(&token.0) {
                        in_flight.forget(key);
                        if in_flight.receive.is_none() && in_flight.send.is_none() {
                            tokens.remove(&token.0);
                        }
                    }
                    ready.push_back(operation.complete(entry.result()));
                }
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for key in self.slots.keys() {
            self.push_cancel(key);
        }
        if self.wake_armed {
            self.push_cancel(WAKE_KEY);
        }
        let deadline = Instant::now() + RING_REAP_WITHIN;
        while self.in_flight() > 0 || self.wake_armed {
            let left = deadline.saturating_duration_since(Instant::now());
            self.flush_backlog();
            if left.is_zero() || self.enter_and_wait(Some(left)).is_err() {
                break;
            }
            self.reap();
        }
        if self.in_flight() == 0 {
            // SAFETY: dropped once, here, and not used afterwards. No operation is in flight, so the kernel has no
            // pointer to anything the slots own.
            unsafe { ManuallyDrop::drop(&mut self.slots) };
        }
        if self.wake_armed {
            // The read may still write its count.
            std::mem::forget(self.waker.clone());
        }
    }
}

impl InFlight {
    fn forget(&mut self, key: u64) {
        if self.receive == Some(key) {
            self.receive = None;
        } else if self.send == Some(key) {
            self.send = None;
        }
    }
}

/// Being out of time, interrupted, or told to try again is a wait like any other.
fn passing_is_fine(entered: io::Result<usize>) -> Result<(), RingError> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error().is_some_and(|errno| PASSING.contains(&errno)) => Ok(()),
        Err(source) => Err(RingError::Os { call: "io_uring_enter", source }),
    }
}
