//! Receive buffers: one anonymous mapping cut into pieces, handed out and taken back.
//!
//! A pool is mapped once and touched only when used. Pieces are reused last in, first out, so the memory in use stays
//! warm and small. Its pages are ordinary ones: a receive often fills a fraction of a buffer, and what it does not
//! fill is not made. A [`Buffer`] goes back to its pool when it is dropped, from any thread.
//!
//! A buffer's bytes are always initialised: the kernel hands out anonymous memory as zeroes.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The largest ordinary page that Linux has on any machine; mappings are whole multiples of it.
const PAGE_BYTES_MAX: usize = 64 << 10;
/// Buffers start on such boundaries; a multiple of every page size that matters would waste memory, this does not.
const ALIGN_BYTES: usize = 4096;

/// A bounded set of equal receive buffers. Cloning shares the set.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// One receive buffer, taken from a [`Pool`]: `filled` bytes from its start, then free space.
pub struct Buffer {
    shared: Arc<Shared>,
    /// Which piece of the mapping; no other buffer has the same while this one lives.
    index: u32,
    filled: usize,
}

struct Shared {
    map: Mapping,
    /// Distance between two pieces, bytes.
    stride: usize,
    /// Capacity of a piece, bytes.
    capacity: usize,
    count: usize,
    free: Mutex<Free>,
}

struct Free {
    /// Used as a stack.
    indices: Vec<u32>,
    /// Somebody asked and got nothing since the last return.
    starved: bool,
    on_return: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Pool {
    /// Maps `count` buffers of `bytes` each. Memory is used only as buffers are filled.
    ///
    /// # Errors
    /// What `mmap` says, or `InvalidInput` when either number is zero or the product does not fit.
    pub fn new(count: usize, bytes: usize) -> io::Result<Pool> {
        let stride = bytes.checked_next_multiple_of(ALIGN_BYTES);
        let total = stride.and_then(|stride| stride.checked_mul(count)).and_then(NonZeroUsize::new);
        let (Some(stride), Some(total), Ok(end)) = (stride, total, u32::try_from(count)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a pool of {count} x {bytes} bytes")));
        };
        let map = Mapping::new(total)?;
        let free = Free { indices: (0..end).rev().collect(), starved: false, on_return: None };
        let shared = Shared { map, stride, capacity: bytes, count, free: Mutex::new(free) };
        Ok(Pool { shared: Arc::new(shared) })
    }

    /// An empty buffer, or `None` while all are in use: the caller stops reading until one comes back.
    pub fn take(&self) -> Option<Buffer> {
        let mut free = self.shared.free();
        let index = free.indices.pop();
        free.starved |= index.is_none();
        drop(free);
        index.map(|index| Buffer { shared: Arc::clone(&self.shared), index, filled: 0 })
    }

    /// Has `wake` called when a buffer comes back after [`Pool::take`] had none to give; once for each such shortage.
    /// It runs on the thread that drops the buffer. There is one such call-back; a new one replaces it.
    pub fn on_return(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.shared.free().on_return = Some(Arc::new(wake));
    }

    /// Buffers that are free now.
    pub fn available(&self) -> usize {
        self.shared.free().indices.len()
    }

    /// Buffers in all.
    pub fn count(&self) -> usize {
        self.shared.count
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("count", &self.count())
            .field("bytes", &self.shared.capacity)
            .field("available", &self.available())
            .finish()
    }
}

impl Buffer {
    /// What has been received and not been cleared.
    pub fn filled(&self) -> &[u8] {
        // SAFETY: `start` points to `capacity` bytes of the mapping, which lives as long as `self.shared`, and which
        // were initialised by the kernel; `filled <= capacity` (kept by `advance`, `copy_from`, `clear`). Nobody else
        // has this piece: `Pool::take` gives an index out once until `drop` returns it. The kernel writes into it only
        // while a driver owns this value, and then nobody can call this.
        unsafe { std::slice::from_raw_parts(self.start(), self.filled) }
    }

    /// Forgets what is filled.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Adds `bytes` after what is filled: carries a partial packet over from another buffer.
    ///
    /// # Panics
    /// When `bytes` is longer than [`Buffer::free_len`]: a packet is never longer than a buffer.
    pub fn copy_from(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.free_len(), "{} bytes into {} free", bytes.len(), self.free_len());
        // SAFETY: the free space has at least `bytes.len()` bytes (asserted above); the two do not overlap, because
        // `bytes` cannot be borrowed from this buffer while it is borrowed mutably, and no other piece overlaps it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.free_start(), bytes.len()) };
        self.filled += bytes.len();
    }

    /// Has `fill` make the next `len` bytes, which are whatever was there before, and adds them if it succeeds.
    ///
    /// # Panics
    /// When `len` is more than [`Buffer::free_len`].
    pub fn fill_with<E>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<(), E> {
        assert!(len <= self.free_len(), "{len} bytes into {} free", self.free_len());
        // SAFETY: the free space has at least `len` bytes (asserted above), initialised by the kernel when they were
        // mapped; this value alone may touch them (see `filled`), and is borrowed mutably as long as the slice lives.
        fill(unsafe { std::slice::from_raw_parts_mut(self.free_start(), len) })?;
        self.filled += len;
        Ok(())
    }

    /// Receives once into the free space with a plain system call that does not wait. Returns the bytes added; 0 means
    /// that the peer closed.
    ///
    /// # Errors
    /// What `recv` says: EAGAIN when nothing is there now.
    pub(super) fn recv_once(&mut self, socket: &OwnedFd) -> io::Result<usize> {
        // SAFETY: `free_start` points to `free_len` writable bytes that this value alone may touch (see `filled`),
        // borrowed mutably for the whole call; the kernel keeps no pointer after it returns.
        let received =
            unsafe { libc::recv(socket.as_raw_fd(), self.free_start().cast(), self.free_len(), libc::MSG_DONTWAIT) };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        self.advance(received);
        Ok(received)
    }

    /// Bytes that fit in all.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Bytes that still fit.
    pub fn free_len(&self) -> usize {
        self.shared.capacity - self.filled
    }

    /// Where the next received byte goes; valid for [`Buffer::free_len`] bytes while this value lives, wherever it is
    /// moved to.
    pub(super) fn free_start(&mut self) -> *mut u8 {
        // SAFETY: `filled <= capacity`, so the result stays within this piece or just behind it.
        unsafe { self.start().add(self.filled) }
    }

    /// Counts `received` more bytes as filled.
    pub(super) fn advance(&mut self, received: usize) {
        assert!(received <= self.free_len(), "{received} bytes received into {} free", self.free_len());
        self.filled += received;
    }

    fn start(&self) -> *mut u8 {
        let offset = self.index as usize * self.shared.stride;
        // SAFETY: the mapping is `count * stride` bytes and `index < count`, so the piece lies within it.
        unsafe { self.shared.map.start.as_ptr().add(offset) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.shared.free();
        free.indices.push(self.index);
        let wake = if std::mem::take(&mut free.starved) { free.on_return.clone() } else { None };
        drop(free);
        if let Some(wake) = wake {
            wake();
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("filled", &self.filled).field("capacity", &self.capacity()).finish()
    }
}

impl Shared {
    /// The list is one push or pop at a time, so a thread that panicked holding it left it whole.
    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Anonymous memory, read and write. Zeroes at first; what is not touched takes no memory, and what was is given back
/// when it is dropped.
pub(super) struct Mapping {
    pub(super) start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is plain memory without ties to a thread. It is reached only through `Buffer` and `Gather`, which
// uphold that each byte has one owner: writing needs `&mut` of them, reading `&`.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`; `&Mapping` by itself gives no access to the bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(bytes: NonZeroUsize) -> io::Result<Mapping> {
        let bytes = bytes.get().checked_next_multiple_of(PAGE_BYTES_MAX).and_then(NonZeroUsize::new);
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private anonymous mapping at an address that the kernel chooses replaces nothing.
        let start = unsafe { mmap_anonymous(None, bytes, protection, MapFlags::MAP_PRIVATE)? }.cast();
        Ok(Mapping { start, bytes: bytes.get() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this value owns exactly this range. It is dropped with the last `Arc<Shared>`, and each `Buffer`,
        // also one that the kernel still writes into, keeps one.
        let unmapped = unsafe { munmap(self.start.cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn pool_empties_and_refills_and_tells_once_a_shortage() {
        let pool = Pool::new(2, 5000).expect("a small mapping");
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        pool.on_return(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });

        let first = pool.take().expect("two are free");
        drop(pool.take().expect("one is free"));
        assert_eq!(woken.load(Ordering::SeqCst), 0, "nobody was refused yet");

        let second = pool.take().expect("one came back");
        assert!(pool.take().is_none());
        assert!(pool.take().is_none());
        assert_eq!(pool.available(), 0);
        std::thread::spawn(move || drop(second)).join().expect("the dropping thread");
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        drop(first);
        assert_eq!(woken.load(Ordering::SeqCst), 1, "the shortage was over");
        assert_eq!(pool.available(), pool.count());
    }

    #[test]
    fn buffers_do_not_overlap_and_are_reused_last_in_first_out() {
        let pool = Pool::new(3, 1 << 20).expect("three MiB");
        let mut buffers: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
        for (fill, buffer) in (1u8..).zip(&mut buffers) {
            buffer.copy_from(&vec![fill; buffer.capacity()]);
            assert_eq!(buffer.free_len(), 0);
        }
        for (fill, buffer) in (1u8..).zip(&buffers) {
            assert!(buffer.filled().iter().all(|&byte| byte == fill));
        }
        let last = buffers.pop().expect("three were taken");
        let place = last.filled().as_ptr();
        drop(last);
        let again = pool.take().expect("one came back");
        assert_eq!(again.start().cast_const(), place);
        assert!(again.filled().is_empty());
    }

    #[test]
    fn buffer_outlives_its_pool() {
        let pool = Pool::new(1, 4096).expect("a small mapping");
        let mut buffer = pool.take().expect("one is free");
        drop(pool);
        buffer.copy_from(b"partial ");
        buffer.copy_from(b"packet");
        assert_eq!(buffer.filled(), b"partial packet");
        buffer.clear();
        assert_eq!(buffer.free_len(), buffer.capacity());
    }

    #[test]
    fn pool_of_nothing_or_of_too_much_is_refused() {
        for (count, bytes) in [(0, 4096), (4, 0), (usize::MAX, 4096), (2, usize::MAX)] {
            let refused = Pool::new(count, bytes).expect_err("nonsense sizes");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
