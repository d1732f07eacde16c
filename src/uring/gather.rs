//! What one send carries: pieces of memory in order, and what keeps them alive.
//!
//! Short things are copied into an arena of the train's own; static bytes and long ranges are pointers.
//!
//! Life of a train: `push_*` until it is full or nothing is left, then [`Driver::send`](super::Driver::send), which
//! gives it back advanced by what went out; sent again until [`Gather::is_done`]; then [`Gather::clear`] and over
//! again.

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

use bytes::Bytes;
use nix::libc;

use super::buffer::Mapping;
use crate::limits::{TRAIN_BYTES_MAX, TRAIN_IOVECS_MAX};

/// How a train is sent, from a ring or by a plain system call: all of it if possible, and an error, not SIGPIPE.
pub(super) const SEND_FLAGS: libc::c_int = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// A train of bytes for one send, at most [`TRAIN_BYTES_MAX`] in at most [`TRAIN_IOVECS_MAX`] pieces.
pub struct Gather {
    arena: Arena,
    /// Bytes of the arena in use.
    arena_used: usize,
    /// The last piece ends at the arena's end, so that more arena bytes make it longer.
    open: bool,
    /// Every piece is readable by the kernel while `self` is unchanged: it lies in `arena`, in static memory, or in
    /// what `keep` holds.
    pieces: Vec<libc::iovec>,
    keep: Vec<Bytes>,
    /// First piece that is not wholly sent.
    first: usize,
    /// Bytes of all pieces from `first` on.
    rest: usize,
    sent: usize,
}

/// A place in a train that [`Gather::truncate_to`] goes back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pieces: usize,
    last_len: usize,
    arena_used: usize,
}

// SAFETY: the raw pointers in `pieces` lead to memory that is static, or owned by this value through `arena` and
// `keep`, whose types may all be sent. Nothing is tied to a thread.
unsafe impl Send for Gather {}
// SAFETY: through `&Gather` only numbers can be had; no memory behind a pointer is read or written.
unsafe impl Sync for Gather {}

impl Gather {
    /// A train whose arena could hold all of it. Memory is used only as it is filled.
    pub fn new() -> Gather {
        Gather::with_arena(TRAIN_BYTES_MAX)
    }

    /// A train with room for `bytes` copied bytes.
    pub fn with_arena(bytes: usize) -> Gather {
        Gather {
            arena: Arena::new(bytes),
            arena_used: 0,
            open: false,
            pieces: Vec::with_capacity(TRAIN_IOVECS_MAX),
            keep: Vec::new(),
            first: 0,
            rest: 0,
            sent: 0,
        }
    }

    /// Adds a copy of `bytes`. False: they do not fit, and nothing changed.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> bool {
        let Some(space) = self.arena_mut(bytes.len()) else { return false };
        space.copy_from_slice(bytes);
        true
    }

    /// Adds `len` bytes of the arena for the caller to fill. None: they do not fit, and nothing changed. Until they are
    /// filled they hold zeroes or what an earlier train had there: undo with [`Gather::truncate_to`] what was not.
    pub fn arena_mut(&mut self, len: usize) -> Option<&mut [u8]> {
        let lengthens = self.open && len > 0;
        if len > self.arena.bytes - self.arena_used || !self.has_room(len, !lengthens) {
            return None;
        }
        // SAFETY: `arena_used + len <= arena.bytes`, so the place lies within the arena or just behind it.
        let place = unsafe { self.arena.start().add(self.arena_used) };
        if len > 0 {
            match self.pieces.last_mut() {
                Some(last) if lengthens => last.iov_len += len,
                _ => self.pieces.push(libc::iovec { iov_base: place.as_ptr().cast(), iov_len: len }),
            }
            self.open = true;
            self.arena_used += len;
            self.rest += len;
        }
        // SAFETY: `place` points to `len` bytes of the arena, initialised when it was made, which nobody else reaches
        // while `self` is borrowed mutably; the arena never moves and outlives the borrow.
        Some(unsafe { std::slice::from_raw_parts_mut(place.as_ptr(), len) })
    }

    /// Adds `bytes` without copying. False: the train is full, and nothing changed.
    pub fn push_static(&mut self, bytes: &'static [u8]) -> bool {
        self.has_room(bytes.len(), true) && {
            self.push_piece(bytes.as_ptr(), bytes.len());
            true
        }
    }

    /// Adds `bytes` without copying, and keeps them. False: the train is full, and nothing changed.
    pub fn push_owned(&mut self, bytes: &Bytes) -> bool {
        if !self.has_room(bytes.len(), true) {
            return false;
        }
        if !bytes.is_empty() {
            self.keep.push(bytes.clone());
        }
        self.push_piece(bytes.as_ptr(), bytes.len());
        true
    }

    /// The present end of the train, for [`Gather::truncate_to`].
    pub fn mark(&self) -> Mark {
        let last_len = self.pieces.last().map_or(0, |last| last.iov_len);
        Mark { pieces: self.pieces.len(), last_len, arena_used: self.arena_used }
    }

    /// Undoes what was added since `mark` was taken.
    ///
    /// # Panics
    /// When this train has been sent from, or `mark` is behind its end: of another train, or from before a `clear`.
    pub fn truncate_to(&mut self, mark: Mark) {
        assert!(self.sent == 0, "a train that is being sent is not shortened");
        assert!(mark.pieces <= self.pieces.len() && mark.arena_used <= self.arena_used, "the mark is behind the end");
        self.pieces.truncate(mark.pieces);
        if let Some(last) = self.pieces.last_mut() {
            assert!(mark.last_len <= last.iov_len, "the mark is behind the end");
            last.iov_len = mark.last_len;
        }
        // What was kept alive since stays so until `clear`: whatever pieces are left, they stay valid. The rest is
        // worked out from the pieces, so that no mark, however old, could make a piece longer than its memory.
        self.arena_used = mark.arena_used;
        self.open = self.pieces.last().is_some_and(|last| self.arena.ends_at(last, self.arena_used));
        self.rest = self.pieces.iter().map(|piece| piece.iov_len).sum();
    }

    /// Moves the last `len` bytes out of the train and to the end of `into`.
    ///
    /// # Panics
    /// When they were not all copied into it in a row, or this train has been sent from.
    pub fn take_back(&mut self, len: usize, into: &mut Vec<u8>) {
        assert!(self.sent == 0, "a train that is being sent is not shortened");
        let last = self.pieces.last_mut().filter(|last| self.open && last.iov_len >= len);
        let last = last.expect("the last bytes were copied in a row");
        let start = self.arena_used - len;
        // SAFETY: the last piece ends at `arena_used` (`open`) and is at least `len` long, so the place and the `len`
        // bytes behind it are in the arena, initialised when it was made; `self` is borrowed mutably, so nobody writes
        // to them.
        into.extend_from_slice(unsafe { std::slice::from_raw_parts(self.arena.start().add(start).as_ptr(), len) });
        last.iov_len -= len;
        self.arena_used = start;
        self.rest -= len;
        if last.iov_len == 0 {
            self.pieces.pop();
            self.open = false;
        }
    }

    /// Bytes that are still to be sent.
    pub fn len_bytes(&self) -> usize {
        self.rest
    }

    /// Nothing has been added since [`Gather::clear`].
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// All that was added has been sent (or nothing was added).
    pub fn is_done(&self) -> bool {
        self.rest == 0
    }

    /// Bytes sent so far of this train.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Pieces that still fit.
    #[cfg(test)]
    pub(super) fn iovecs_left(&self) -> usize {
        TRAIN_IOVECS_MAX - self.pieces.len()
    }

    /// Empties the train for its next use and lets go of what it kept alive.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.keep.clear();
        self.arena_used = 0;
        self.open = false;
        self.first = 0;
        self.rest = 0;
        self.sent = 0;
    }

    /// Sends once with a plain system call that does not wait, and advances by what went out.
    ///
    /// # Errors
    /// What `sendmsg` says: EAGAIN when the socket takes nothing now.
    pub(super) fn send_once(&mut self, socket: &OwnedFd) -> io::Result<usize> {
        let message = self.message();
        // SAFETY: `message` points to `pieces` from `first` on, which are valid for the kernel to read, and not changed
        // during the call because `self` is borrowed mutably; the kernel keeps no pointer after it returns.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, SEND_FLAGS | libc::MSG_DONTWAIT) };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        self.advance(sent);
        Ok(sent)
    }

    /// Counts `n` more bytes as sent.
    pub(super) fn advance(&mut self, n: usize) {
        assert!(n <= self.rest, "{n} bytes sent of {}", self.rest);
        self.sent += n;
        self.rest -= n;
        let mut left = n;
        while left > 0 {
            let piece = &mut self.pieces[self.first];
            if left >= piece.iov_len {
                left -= piece.iov_len;
                self.first += 1;
            } else {
                // SAFETY: `left < iov_len`, so the result stays within the same piece.
                piece.iov_base = unsafe { piece.iov_base.cast::<u8>().add(left) }.cast();
                piece.iov_len -= left;
                left = 0;
            }
        }
    }

    /// What `sendmsg` is given. It points into this value, which must not be changed or dropped until the send is over;
    /// it may be moved.
    pub(super) fn message(&self) -> libc::msghdr {
        let rest = &self.pieces[self.first..];
        // SAFETY: a message header is integers and pointers, for which all zeroes is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = rest.as_ptr().cast_mut();
        message.msg_iovlen = rest.len() as _;
        message
    }

    fn has_room(&self, len: usize, new_piece: bool) -> bool {
        debug_assert!(self.sent == 0, "a train that is being sent does not grow");
        len <= TRAIN_BYTES_MAX - self.rest && (!new_piece || self.pieces.len() < TRAIN_IOVECS_MAX || len == 0)
    }

    fn push_piece(&mut self, start: *const u8, len: usize) {
        if len > 0 {
            self.pieces.push(libc::iovec { iov_base: start.cast_mut().cast(), iov_len: len });
            self.rest += len;
            self.open = false;
        }
    }
}

impl Default for Gather {
    fn default() -> Gather {
        Gather::new()
    }
}

impl fmt::Debug for Gather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather")
            .field("pieces", &self.pieces.len())
            .field("rest", &self.rest)
            .field("sent", &self.sent)
            .finish()
    }
}

/// Memory that stays where it is, initialised, and is reached through one raw pointer only: a box would claim to be
/// alone with its bytes each time it is moved, while the pieces point into them.
struct Arena {
    /// Of its own: the allocator would clear what it has had before, and so use all of it, and keep it for ever.
    map: Mapping,
    bytes: usize,
}

impl Arena {
    fn new(bytes: usize) -> Arena {
        let map = Mapping::new(NonZeroUsize::new(bytes).unwrap_or(NonZeroUsize::MIN));
        let map = map.unwrap_or_else(|_| handle_alloc_error(Arena::layout(bytes)));
        Arena { map, bytes }
    }

    fn start(&self) -> NonNull<u8> {
        self.map.start
    }

    /// Whether `piece` is a part of this arena that ends `used` bytes from its start.
    fn ends_at(&self, piece: &libc::iovec, used: usize) -> bool {
        let from = piece.iov_base.addr().wrapping_sub(self.start().as_ptr().addr());
        from < self.bytes && from + piece.iov_len == used
    }

    fn layout(bytes: usize) -> Layout {
        Layout::array::<u8>(bytes).expect("an arena is smaller than the address space")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// Bytes that still fit into the arena.
    fn arena_left(train: &Gather) -> usize {
        train.arena.bytes - train.arena_used
    }

    /// What a peer would read of the rest of `train`; it must fit into a socket's buffer.
    fn bytes_of(train: &mut Gather) -> Vec<u8> {
        let (near, mut far) = UnixStream::pair().expect("two sockets");
        let near = OwnedFd::from(near);
        while !train.is_done() {
            assert!(train.send_once(&near).expect("room in the socket") > 0);
        }
        drop(near);
        let mut arrived = Vec::new();
        far.read_to_end(&mut arrived).expect("an orderly end");
        arrived
    }

    #[test]
    fn copied_bytes_in_a_row_are_one_piece() {
        let mut train = Gather::with_arena(100);
        assert!(train.push_bytes(b"B:12:") && train.push_bytes(b"") && train.push_bytes(b"hello"));
        assert_eq!(train.iovecs_left(), TRAIN_IOVECS_MAX - 1);
        assert!(train.push_static(b"M:") && train.push_bytes(b"x"));
        assert_eq!(train.iovecs_left(), TRAIN_IOVECS_MAX - 3);
        assert_eq!((train.len_bytes(), arena_left(&train)), (13, 89));
        assert_eq!(bytes_of(&mut train), b"B:12:helloM:x");
        assert!(train.is_done() && !train.is_empty());
        train.clear();
        assert!(train.is_empty() && arena_left(&train) == 100);
    }

    #[test]
    fn bytes_taken_back_are_out_of_the_train() {
        let mut train = Gather::new();
        assert!(train.push_static(b"head") && train.push_bytes(b"one") && train.push_bytes(b"two"));
        let mut back = b"<".to_vec();
        train.take_back(4, &mut back);
        assert_eq!((back.as_slice(), train.len_bytes()), (b"<etwo".as_slice(), 6));
        train.take_back(2, &mut back);
        assert!(train.push_bytes(b"!"));
        assert_eq!(bytes_of(&mut train), b"head!");
    }

    /// The allocator cleared what it had had before: each silent connection took a MiB, and a thousand of them a GiB
    /// that was never given back.
    #[test]
    fn an_arena_takes_memory_only_as_it_is_filled() {
        const PAGE_BYTES_MIN: usize = 4096;
        let resident = |train: &Gather| {
            let (mut pages, start) = ([0; TRAIN_BYTES_MAX / PAGE_BYTES_MIN], train.arena.start().as_ptr());
            // SAFETY: it writes one byte for each page of the arena, of which there are no more than `pages` has.
            let asked = unsafe { libc::mincore(start.cast(), TRAIN_BYTES_MAX, pages.as_mut_ptr()) };
            assert_eq!(asked, 0, "{}", io::Error::last_os_error());
            pages.iter().filter(|page| **page & 1 != 0).count()
        };
        for _ in 0..3 {
            let mut train = Gather::new();
            assert_eq!(resident(&train), 0);
            train.arena_mut(TRAIN_BYTES_MAX).expect("all of it").fill(1);
            assert!(resident(&train) > 0);
        }
    }

    #[test]
    fn owned_bytes_are_sent_from_where_they_are_and_kept_as_long() {
        let pool = super::super::Pool::new(1, 100).expect("a small pool");
        let mut buffer = pool.take().expect("it is free");
        buffer.copy_from(b"a range of an object");
        let range = Bytes::from_owner(buffer);
        let mut train = Gather::with_arena(10);
        assert!(train.push_bytes(b"M:") && train.push_owned(&range.slice(2..7)) && train.push_owned(&Bytes::new()));
        drop(range);
        assert_eq!(arena_left(&train), 8);
        assert_eq!(bytes_of(&mut train), b"M:range");
        assert_eq!(pool.available(), 0);
        train.clear();
        assert_eq!(pool.available(), 1);
    }

    #[test]
    fn full_train_takes_nothing_and_stays_as_it_was() {
        let mut train = Gather::with_arena(3);
        assert!(!train.push_bytes(b"four"));
        assert!(train.push_bytes(b"abc") && !train.push_bytes(b"d"));
        let owned = Bytes::from_static(b"+");
        while train.iovecs_left() > 0 {
            assert!(train.push_static(b"-") || train.iovecs_left() == 0);
            assert!(train.push_owned(&owned) || train.iovecs_left() == 0);
        }
        let len = train.len_bytes();
        assert!(!train.push_static(b"-") && !train.push_owned(&owned) && !train.push_bytes(b"-"));
        assert!(train.push_bytes(b"") && train.push_static(b""), "nothing fits anywhere");
        assert_eq!(train.len_bytes(), len);
        assert_eq!(bytes_of(&mut train)[..6], *b"abc-+-");

        let padding = Bytes::from(vec![0; TRAIN_BYTES_MAX]);
        train.clear();
        assert!(train.push_owned(&padding) && !train.push_static(b"x"));
        assert_eq!((train.len_bytes(), train.iovecs_left()), (TRAIN_BYTES_MAX, TRAIN_IOVECS_MAX - 1));
    }

    #[test]
    fn kept_memory_is_let_go_by_clear_only() {
        let owned = Bytes::from(vec![b'o'; 100]);
        let mut train = Gather::with_arena(0);
        let empty = train.mark();
        assert!((0..100).all(|place| train.push_owned(&owned.slice(place..=place))));
        train.truncate_to(empty);
        assert_eq!((owned.is_unique(), train.len_bytes()), (false, 0));
        train.clear();
        assert!(owned.is_unique());
    }

    #[test]
    fn old_mark_never_makes_a_piece_longer() {
        let mut train = Gather::with_arena(100);
        assert!(train.push_static(b"M:"));
        let before = train.mark();
        assert!(train.push_bytes(b"0123456789"));
        let copied = train.mark();
        train.truncate_to(before);
        assert!(train.push_bytes(b"01234567890") && train.push_static(b"tail"));
        // The mark's place exists again; going back to it is as if the later bytes were never added.
        train.truncate_to(copied);
        assert!(train.push_bytes(b"x"));
        assert_eq!(bytes_of(&mut train), b"M:0123456789x");

        let mut other = Gather::with_arena(100);
        assert!(other.push_bytes(b"abc") && other.push_static(b"M:"));
        other.truncate_to(Mark { pieces: 2, last_len: 2, arena_used: 0 });
        assert!(other.push_bytes(b"!"), "starts a piece of its own");
        assert_eq!(other.iovecs_left(), TRAIN_IOVECS_MAX - 3);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Copy(Vec<u8>),
        Static(usize),
        Owned(usize, usize),
        Undone(usize),
        Filled(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Step::Copy),
            (0..8usize).prop_map(Step::Static),
            (0..6000usize, 0..2000usize).prop_map(|(start, len)| Step::Owned(start, len)),
            (0..50usize).prop_map(Step::Undone),
            (0..50usize).prop_map(Step::Filled),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn train_is_what_was_pushed_wherever_it_was_interrupted(
            steps in proptest::collection::vec(step(), 1..60),
            cut in any::<prop::sample::Index>(),
        ) {
            static WORDS: &[u8] = b"M:N:E:R:";
            let owned: Bytes = (0..8000).map(|place| (place % 239) as u8).collect();
            let mut train = Gather::with_arena(1 << 16);
            let mut expected = Vec::new();
            for step in steps {
                match step {
                    Step::Copy(bytes) => {
                        prop_assert!(train.push_bytes(&bytes));
                        expected.extend(bytes);
                    }
                    Step::Static(start) => {
                        prop_assert!(train.push_static(&WORDS[start..]));
                        expected.extend(&WORDS[start..]);
                    }
                    Step::Owned(start, len) => {
                        prop_assert!(train.push_owned(&owned.slice(start..start + len)));
                        expected.extend(&owned[start..start + len]);
                    }
                    Step::Undone(len) => {
                        let mark = train.mark();
                        prop_assert!(train.arena_mut(len).is_some() && train.push_owned(&owned.slice(..len)));
                        train.truncate_to(mark);
                    }
                    Step::Filled(len) => {
                        let space = train.arena_mut(len).expect("the arena is large");
                        space.fill(b'f');
                        expected.resize(expected.len() + len, b'f');
                    }
                }
                prop_assert_eq!(train.len_bytes(), expected.len());
            }
            let sent = cut.index(expected.len() + 1);
            train.advance(sent);
            prop_assert_eq!((train.sent(), train.len_bytes()), (sent, expected.len() - sent));
            prop_assert_eq!(bytes_of(&mut train), &expected[sent..]);
        }
    }
}
