//! The control of whatever moves files: the same bytes over a socket, with nothing but system calls that copy least.
//! `sendfile` from the page cache, `splice` through a pipe into the file; no packets, no checks, no commit.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::sys::sendfile::sendfile64;
use nix::unistd::pipe;

/// What is moved at once, as far as the kernel goes along with it.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// Sends a file, block by block as they are told.
pub(crate) fn send(socket: impl AsFd, path: &Path, blocks: impl IntoIterator<Item = u64>) {
    let mut blocks = blocks.into_iter();
    let mut left = blocks.next().expect("no object is empty");
    // It stands once its first block is told.
    let file = File::open(path).expect("it is there");
    let mut offset = 0;
    loop {
        while left > 0 {
            let sent = sendfile64(&socket, &file, Some(&mut offset), left as usize).expect("the socket takes it");
            assert!(sent > 0, "the file ends before its time");
            left -= sent as u64;
        }
        let Some(next) = blocks.next() else { return };
        left = next;
    }
}

/// What bytes pass through from a socket to a file or another socket.
pub(crate) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Pipe {
    pub(crate) fn new() -> Self {
        let (out, into) = pipe().expect("a pipe");
        // Less than wanted, where the user may not have so much, is slower and not wrong.
        let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(BLOCK_BYTES as i32));
        Self { out, into }
    }

    /// Passes on what has come, at most `length` bytes. Returns how many; 0: the connection has ended.
    pub(crate) fn pass(&self, from: impl AsFd, to: impl AsFd, length: usize) -> usize {
        let flags = SpliceFFlags::SPLICE_F_MOVE;
        let piped = splice(from, None, &self.into, None, length, flags).expect("the socket gives it");
        let mut left = piped;
        while left > 0 {
            left -= splice(&self.out, None, &to, None, left, flags).expect("the other end takes it");
        }
        piped
    }

    /// Receives `size` bytes into a new file at `path`, tells of each block, and gives the file back.
    pub(crate) fn receive(&self, socket: impl AsFd, path: &Path, size: u64, mut came: impl FnMut(u64)) -> File {
        let file = File::create(path).expect("a fresh directory takes a file");
        let (mut left, mut untold) = (size, 0);
        while left > 0 {
            let passed = self.pass(&socket, &file, BLOCK_BYTES.min(left as usize)) as u64;
            assert!(passed > 0, "the connection ends before its time");
            left -= passed;
            untold += passed;
            if untold >= BLOCK_BYTES as u64 || left == 0 {
                came(std::mem::take(&mut untold));
            }
        }
        file
    }
}
