//! The control of the file-to-file benches: the same bytes over the same sockets, with nothing but system calls that
//! copy least. `sendfile` from the page cache, `splice` through a pipe into the file; no packets, no checks, no commit.
//!
//! A relay splices what comes into its spool and sends it on from there block by block, as an exchange cuts through.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::sys::sendfile::sendfile64;
use nix::unistd::pipe;

use crate::bed::{Bed, Cost, Start};

/// What is moved at once, as far as the kernel goes along with it.
const BLOCK_BYTES: usize = 1 << 20;

/// Copies all objects through each of `places` but the last, into the last.
pub(crate) fn copy(bed: &Bed, places: &[PathBuf]) -> Cost {
    let source = bed.source();
    let mut connections: Vec<_> = places.iter().map(|_| bed.connect()).collect();
    let start = Start::now();
    std::thread::scope(|scope| {
        let (near, mut inward) = connections.remove(0);
        scope.spawn(move || {
            for (name, size) in bed.objects() {
                send(&near, &source.join(name), [size]);
            }
        });
        let (destination, spools) = places.split_last().expect("there is always a destination");
        for spool in spools {
            let (onward, next) = connections.remove(0);
            let from = std::mem::replace(&mut inward, next);
            let (came, told) = objects_in_blocks(bed);
            scope.spawn(move || receive(bed, &from, spool, came));
            scope.spawn(move || {
                for ((name, _), blocks) in bed.objects().zip(told) {
                    send(&onward, &spool.join(name), blocks);
                }
            });
        }
        let (came, _told) = objects_in_blocks(bed);
        receive(bed, &inward, destination, came);
    });
    start.cost()
}

/// For each object a channel that tells of blocks that have come.
fn objects_in_blocks(bed: &Bed) -> (Vec<Sender<u64>>, Vec<Receiver<u64>>) {
    bed.objects().map(|_| channel()).unzip()
}

/// Sends a file, block by block as they are told.
fn send(socket: &OwnedFd, path: &Path, blocks: impl IntoIterator<Item = u64>) {
    let mut blocks = blocks.into_iter();
    let mut left = blocks.next().expect("no object is empty");
    // It stands once its first block is told.
    let file = File::open(path).expect("it is there");
    let mut offset = 0;
    loop {
        while left > 0 {
            let sent = sendfile64(socket, &file, Some(&mut offset), left as usize).expect("the socket takes it");
            assert!(sent > 0, "the file ends before its time");
            left -= sent as u64;
        }
        let Some(next) = blocks.next() else { return };
        left = next;
    }
}

/// Receives all objects into files below `place`, and tells of each block; an object is told to its end when its
/// channel closes.
fn receive(bed: &Bed, socket: &OwnedFd, place: &Path, came: Vec<Sender<u64>>) {
    let (out, into) = pipe().expect("a pipe");
    // Less than wanted, where the user may not have so much, is slower and not wrong.
    let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(BLOCK_BYTES as i32));
    for ((name, size), came) in bed.objects().zip(came) {
        let file = File::create(place.join(name)).expect("a fresh directory takes a file");
        let (mut left, mut untold) = (size, 0);
        while left > 0 {
            let length = BLOCK_BYTES.min(left as usize);
            let flags = SpliceFFlags::SPLICE_F_MOVE;
            let piped = splice(socket, None, &into, None, length, flags).expect("the socket gives it");
            assert!(piped > 0, "the connection ends before its time");
            let mut piped_left = piped;
            while piped_left > 0 {
                piped_left -= splice(&out, None, &file, None, piped_left, flags).expect("room in the file");
            }
            left -= piped as u64;
            untold += piped as u64;
            if untold >= BLOCK_BYTES as u64 || left == 0 {
                // Nobody listens at the end of the way.
                let _ = came.send(std::mem::take(&mut untold));
            }
        }
    }
}
