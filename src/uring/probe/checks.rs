//! The checks themselves, each on rings, sockets and files of its own.
//!
//! What the engine needs is checked through the same [`Ring`] that the engine uses. What it does not use is checked on
//! bare rings; `complete` holds the memory of those until the kernel is done with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::limits::{PROBE_WITHIN, RING_ENTRIES};
use crate::uring::buffer::{Buffer, Pool};
use crate::uring::driver::{Outcome, Token};
use crate::uring::gather::Gather;
use crate::uring::ring::Ring;
use crate::uring::setup::Setup;

/// One thing to try.
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) needed: bool,
    pub(super) run: fn() -> Result<(), String>,
}

/// All of them, in the order of the report.
pub(super) const ALL: [Check; 16] = [
    needed("ring of the engine's size", ring_of_full_size),
    optional("setup SINGLE_ISSUER", || setup(|flags| flags.single_issuer = true)),
    optional("setup DEFER_TASKRUN", || setup(|flags| (flags.single_issuer, flags.defer_taskrun) = (true, true))),
    optional("setup COOP_TASKRUN", || setup(|flags| flags.coop_taskrun = true)),
    optional("setup TASKRUN_FLAG", || setup(|flags| (flags.coop_taskrun, flags.taskrun_flag) = (true, true))),
    optional("setup SUBMIT_ALL", || setup(|flags| flags.submit_all = true)),
    optional("setup CQSIZE, CLAMP", || setup(|flags| flags.sized = true)),
    needed("EXT_ARG timeout", wait_ends_in_time),
    needed("RECV", recv),
    needed("SENDMSG gather", sendmsg_gather),
    needed("ASYNC_CANCEL", cancel),
    needed("eventfd READ wake-up", wake_up),
    optional("SEND vectorized", send_vectorized),
    optional("SEND_ZC", send_zero_copy),
    optional("registered buffers", read_fixed),
    optional("READV_FIXED", readv_fixed),
];

const TOKEN: Token = Token(1);
const PIECE: &[u8] = b"supersync";
const FILE_BYTES: usize = 64 << 10;

const fn needed(name: &'static str, run: fn() -> Result<(), String>) -> Check {
    Check { name, needed: true, run }
}

const fn optional(name: &'static str, run: fn() -> Result<(), String>) -> Check {
    Check { name, needed: false, run }
}

// -- set-up --------------------------------------------------------------------------------------------

fn ring_of_full_size() -> Result<(), String> {
    Ring::new(RING_ENTRIES).map(drop).map_err(|error| error.to_string())
}

fn setup(choose: fn(&mut Setup)) -> Result<(), String> {
    let mut flags = Setup::NONE;
    choose(&mut flags);
    flags.build(8).map(drop).map_err(|error| error.to_string())
}

// -- what the engine does ------------------------------------------------------------------------------

fn wait_ends_in_time() -> Result<(), String> {
    small_ring()?.wait(Some(Duration::from_millis(1))).map_err(|error| error.to_string())
}

fn recv() -> Result<(), String> {
    let mut ring = small_ring()?;
    let (near, mut far) = sockets()?;
    far.write_all(PIECE).map_err(said)?;
    ring.recv(TOKEN, &near, buffer()?).map_err(|rejected| rejected.error.to_string())?;
    match outcome(&mut ring)? {
        Outcome::Received { buffer, result: Ok(_) } => same(buffer.filled(), PIECE),
        Outcome::Received { result: Err(error), .. } => Err(said(error)),
        Outcome::Sent { .. } => Err("a receive completed as a send".to_owned()),
    }
}

fn sendmsg_gather() -> Result<(), String> {
    let mut train = Gather::with_arena(PIECE.len());
    let pushed = train.push_bytes(PIECE) && train.push_static(PIECE);
    debug_assert!(pushed, "two small pieces");
    sends(train, &[PIECE, PIECE].concat())
}

fn cancel() -> Result<(), String> {
    let mut ring = small_ring()?;
    let (near, _far) = sockets()?;
    ring.recv(TOKEN, &near, buffer()?).map_err(|rejected| rejected.error.to_string())?;
    ring.cancel(TOKEN);
    match outcome(&mut ring)? {
        Outcome::Received { result: Err(error), .. } if error.raw_os_error() == Some(libc::ECANCELED) => Ok(()),
        other => Err(format!("not ECANCELED but {other:?}")),
    }
}

fn wake_up() -> Result<(), String> {
    let mut ring = small_ring()?;
    let waker = ring.waker();
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| waker.wake());
        ring.wait(Some(PROBE_WITHIN)).map_err(|error| error.to_string())
    })?;
    if started.elapsed() < PROBE_WITHIN { Ok(()) } else { Err(no_completion()) }
}

/// `train` arrives as `expected`.
fn sends(train: Gather, expected: &[u8]) -> Result<(), String> {
    let mut ring = small_ring()?;
    let (near, mut far) = sockets()?;
    ring.send(TOKEN, &near, train).map_err(|rejected| rejected.error.to_string())?;
    match outcome(&mut ring)? {
        Outcome::Sent { train, result: Ok(_) } if train.is_done() => {}
        other => return Err(format!("not sent: {other:?}")),
    }
    let mut arrived = vec![0; expected.len()];
    far.read_exact(&mut arrived).map_err(said)?;
    same(&arrived, expected)
}

fn outcome(ring: &mut Ring) -> Result<Outcome, String> {
    let deadline = Instant::now() + PROBE_WITHIN;
    while Instant::now() < deadline {
        ring.wait(Some(PROBE_WITHIN)).map_err(|error| error.to_string())?;
        if let Some(completion) = ring.next_completion() {
            return Ok(completion.outcome);
        }
    }
    Err(no_completion())
}

fn small_ring() -> Result<Ring, String> {
    Ring::new(8).map_err(|error| error.to_string())
}

fn buffer() -> Result<Buffer, String> {
    let pool = Pool::new(1, FILE_BYTES).map_err(said)?;
    pool.take().ok_or_else(|| "a new pool is empty".to_owned())
}

/// One end for a ring, the other for plain calls, which do not hang.
fn sockets() -> Result<(Arc<OwnedFd>, UnixStream), String> {
    let (near, far) = UnixStream::pair().map_err(said)?;
    far.set_read_timeout(Some(PROBE_WITHIN)).map_err(said)?;
    Ok((Arc::new(near.into()), far))
}

// -- what it may do one day ----------------------------------------------------------------------------

fn send_vectorized() -> Result<(), String> {
    /// IORING_SEND_VECTORIZED
    const VECTORIZED: u16 = 1 << 5;
    let (near, mut far) = sockets()?;
    let piece = libc::iovec { iov_base: PIECE.as_ptr().cast_mut().cast(), iov_len: PIECE.len() };
    let pieces = vec![piece, piece];
    let entry = opcode::Send::new(Fd(near.as_raw_fd()), pieces.as_ptr().cast(), pieces.len() as u32);
    let entry = entry.ioprio(VECTORIZED).flags(libc::MSG_WAITALL).build();
    let ring = bare_ring()?;
    // SAFETY: the entry reads `pieces`, whose bytes are static, and names the socket `near`: both are handed over.
    let (_, sent) = unsafe { complete(ring, entry, (pieces, near)) }?;
    if sent != 2 * PIECE.len() {
        return Err(format!("{sent} bytes sent of {}", 2 * PIECE.len()));
    }
    let mut arrived = vec![0; sent];
    far.read_exact(&mut arrived).map_err(said)?;
    same(&arrived, &[PIECE, PIECE].concat())
}

fn send_zero_copy() -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(said)?;
    let near = TcpStream::connect(listener.local_addr().map_err(said)?).map_err(said)?;
    let (mut far, _) = listener.accept().map_err(said)?;
    far.set_read_timeout(Some(PROBE_WITHIN)).map_err(said)?;
    let entry = opcode::SendZc::new(Fd(near.as_raw_fd()), PIECE.as_ptr(), PIECE.len() as u32).build();
    let ring = bare_ring()?;
    // SAFETY: the entry reads static bytes and names the socket `near`, which is handed over.
    let (_near, sent) = unsafe { complete(ring, entry, near) }?;
    let mut arrived = vec![0; sent];
    far.read_exact(&mut arrived).map_err(said)?;
    same(&arrived, PIECE)
}

fn read_fixed() -> Result<(), String> {
    let (file, content) = file_in_memory()?;
    let (ring, mut memory) = ring_with_buffer()?;
    let entry = opcode::ReadFixed::new(Fd(file.as_raw_fd()), memory.as_mut_ptr(), FILE_BYTES as u32, 0).build();
    // SAFETY: the entry writes to `memory`, which is as long as it says, and names `file`: both are handed over.
    let ((memory, _), read) = unsafe { complete(ring, entry, (memory, file)) }?;
    same(&memory[..read], &content)
}

fn readv_fixed() -> Result<(), String> {
    const HALF: usize = FILE_BYTES / 2;
    const GAP: usize = 16;
    let (file, content) = file_in_memory()?;
    let (ring, mut memory) = ring_with_buffer()?;
    let halves = memory[..FILE_BYTES + GAP].split_at_mut(HALF + GAP);
    let pieces = [&mut halves.0[..HALF], halves.1]
        .map(|half| libc::iovec { iov_base: half.as_mut_ptr().cast(), iov_len: HALF })
        .to_vec();
    let entry = opcode::ReadvFixed::new(Fd(file.as_raw_fd()), pieces.as_ptr(), pieces.len() as u32, 0).build();
    // SAFETY: the entry reads `pieces`, writes to the two parts of `memory` that they name, and names `file`: all three
    // are handed over, and none is moved out of its place on the heap by that.
    let ((memory, _, _), read) = unsafe { complete(ring, entry, (memory, pieces, file)) }?;
    if read != FILE_BYTES {
        return Err(format!("{read} bytes read of {FILE_BYTES}"));
    }
    same(&memory[..HALF], &content[..HALF])?;
    same(&memory[HALF + GAP..FILE_BYTES + GAP], &content[HALF..])
}

/// A file in memory, and what is in it.
fn file_in_memory() -> Result<(File, Vec<u8>), String> {
    let mut file = File::from(memfd_create("probe", MFdFlags::MFD_CLOEXEC).map_err(|errno| said(errno.into()))?);
    let content: Vec<u8> = (0..FILE_BYTES).map(|place| (place % 251) as u8).collect();
    file.write_all(&content).map_err(said)?;
    Ok((file, content))
}

fn bare_ring() -> Result<IoUring, String> {
    IoUring::new(8).map_err(said)
}

/// A ring with a registered buffer of twice a file's length.
fn ring_with_buffer() -> Result<(IoUring, Vec<u8>), String> {
    let ring = bare_ring()?;
    let mut memory = vec![0; 2 * FILE_BYTES];
    let registered = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
    // SAFETY: the range is a live allocation of ours. Registering pins its pages, and only an operation that names the
    // buffer uses them; `complete` keeps the memory until that is over, and drops the ring before it gives it back.
    unsafe { ring.submitter().register_buffers(&[registered]) }.map_err(said)?;
    Ok((ring, memory))
}

/// Runs one operation to its last completion and gives its memory back, with the bytes that it did.
///
/// # Safety
/// All that `entry` points to, and the descriptor that it names, is owned by `memory` or static.
unsafe fn complete<M>(mut ring: IoUring, entry: squeue::Entry, memory: M) -> Result<(M, usize), String> {
    // SAFETY: the caller promises that `memory` owns what the entry uses. It is given back below after the last
    // completion only, and otherwise never freed.
    unsafe { ring.submission().push(&entry) }.map_err(|_| "a new ring is full".to_owned())?;
    let deadline = Instant::now() + PROBE_WITHIN;
    let mut result = None;
    let last = 'waiting: loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let entered = ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&Timespec::from(left)));
        for completion in ring.completion() {
            // A zero-copy send completes twice: what it did, then that its memory is free.
            result.get_or_insert(completion.result());
            if !cqueue::more(completion.flags()) {
                break 'waiting Ok(());
            }
        }
        match entered {
            Err(error)
                if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIME)) =>
            {
                break Err(said(error));
            }
            _ if left.is_zero() => break Err(no_completion()),
            _ => {}
        }
    };
    drop(ring);
    if let Err(why) = last {
        std::mem::forget(memory);
        return Err(why);
    }
    let result = result.unwrap_or(0);
    match usize::try_from(result) {
        Ok(bytes) => Ok((memory, bytes)),
        Err(_) => Err(said(io::Error::from_raw_os_error(result.saturating_neg()))),
    }
}

fn same(arrived: &[u8], expected: &[u8]) -> Result<(), String> {
    if arrived == expected { Ok(()) } else { Err("the bytes that arrived are not those that were sent".to_owned()) }
}

fn no_completion() -> String {
    format!("nothing completed within {PROBE_WITHIN:?}")
}

fn said(error: io::Error) -> String {
    error.to_string()
}
