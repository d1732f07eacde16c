//! A whole root is held against its markers: every file, and every marker that stands alone.
//!
//! It may be done beside a running node, which replaces an object in steps: what differs is looked at twice, and
//! believed when it does so both times. The walk runs ahead of those who read by a bounded queue, so that neither time
//! nor memory is spent on a list of a million names.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::fsync;

use super::error::StoreError;
use super::hash::hash_source;
use super::part::time_spec;
use super::resolve::{self, Links};
use super::root::{Root, Verified, is_regular, marker_name, remove_entry};
use super::source::{FileMode, Stamp};
use crate::limits;
use crate::units::{FileTime, ObjectName, Root256};

impl Root {
    /// Reads every object of the root, with so many threads, and tells `each` what came of it, in no order; of a
    /// directory that cannot be read why. Blocks for as long as the disk takes.
    pub fn verify_all(&self, threads: NonZeroUsize, each: impl Fn(ObjectName, Result<Verified, StoreError>) + Sync) {
        let (names, queue) = sync_channel(limits::VERIFY_QUEUE_MAX);
        let queue = Mutex::new(queue);
        std::thread::scope(|scope| {
            for _ in 0..threads.get() {
                scope.spawn(|| {
                    while let Some(name) = next(&queue) {
                        let found = self.verify_twice(&name);
                        each(name, found);
                    }
                });
            }
            // Owned here, so that the threads end when the walk has.
            let names = names;
            let mut pending = vec![Vec::new()];
            while let Some(directory) = pending.pop() {
                if let Err(errno) = self.list(&directory, &names, &mut pending)
                    && let Ok(name) = ObjectName::new(if directory.is_empty() { b"." } else { &directory })
                {
                    each(name, Err(StoreError::io(self.path(), None, "list the directory", errno)));
                }
            }
        });
    }

    /// Reads all of an object whose marker tells no root; its size and the root that it has.
    pub fn hash(&self, name: &ObjectName) -> Result<Verified, StoreError> {
        let source = self.open_source(name)?;
        let size = source.size();
        let root = hash_source(&source).map_err(|error| self.shared().of_source(error))?.root;
        Ok(Verified::Ok { size, root })
    }

    /// Removes an object's marker, so that it is fetched again, whoever holds the root. Whether there was one.
    pub fn unmark(&self, name: &ObjectName) -> Result<bool, StoreError> {
        let shared = self.shared();
        shared.check(name)?;
        let (parent, entry) = resolve::split(name.as_bytes());
        let removed = resolve::open_directory(shared.dir.as_fd(), parent, Links::Follow).and_then(|directory| {
            let removed = remove_entry(directory.as_fd(), &marker_name(entry))?;
            fsync(directory).map(|()| removed)
        });
        removed.map_err(|errno| StoreError::of_name(&shared.path, name, "remove the marker of", errno))
    }

    /// Gives an object that is marked with this root its permissions and time, where they are others. One that is
    /// marked otherwise, or not at all, stays as it is. The marker stands all the while; a loss of power may undo it.
    pub fn set_attributes(
        &self,
        name: &ObjectName,
        root: Root256,
        mode: FileMode,
        mtime: FileTime,
    ) -> Result<(), StoreError> {
        let shared = self.shared();
        shared.check(name)?;
        let io = |operation| move |errno| StoreError::of_name(&shared.path, name, operation, errno);
        // Nothing takes its place meanwhile.
        let _tree = shared.hold_tree()?;
        let (parent, entry) = resolve::split(name.as_bytes());
        let found = resolve::open_directory(shared.dir.as_fd(), parent, Links::Follow).and_then(|directory| {
            let stat = fstatat(&directory, entry, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            Ok((directory, stat))
        });
        let (directory, stat) = match found {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            found => found.map_err(io("look at"))?,
        };
        let (stamp, mode) = (Stamp::of(&stat), mode.without_special());
        let has_them = (stamp.mode.without_special(), stamp.mtime) == (mode, mtime);
        if has_them || !is_regular(&stat) || self.marked_root(name)? != Some(root) {
            return Ok(());
        }
        let bits = Mode::from_bits_truncate(u32::from(mode.bits()));
        fchmodat(&directory, entry, bits, FchmodatFlags::FollowSymlink).map_err(io("set the mode of"))?;
        let omit = TimeSpec::UTIME_OMIT;
        utimensat(&directory, entry, &omit, &time_spec(mtime), UtimensatFlags::NoFollowSymlink)
            .map_err(io("set the time of"))
    }

    fn verify_twice(&self, name: &ObjectName) -> Result<Verified, StoreError> {
        match self.verify(name) {
            Ok(found @ (Verified::Ok { .. } | Verified::NoRoot)) => Ok(found),
            Ok(_) | Err(_) => self.verify(name),
        }
    }

    /// Queues what is in one directory; directories below it are appended to `pending`.
    fn list(&self, path: &[u8], names: &SyncSender<ObjectName>, pending: &mut Vec<Vec<u8>>) -> nix::Result<()> {
        let (mut files, mut markers) = (BTreeSet::new(), BTreeSet::new());
        let directory = match resolve::open_directory(self.shared().dir.as_fd(), path, Links::Refuse) {
            // Removed since it was listed.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) if !path.is_empty() => return Ok(()),
            opened => opened?,
        };
        resolve::list(directory, |directory, entry, kind| {
            let is_private = path.is_empty() && entry == limits::PRIVATE_DIR.as_bytes();
            // A file system need not tell the type in its listing.
            let kind = kind.or_else(|| {
                let stat = fstatat(directory, entry, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
                match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
                    SFlag::S_IFREG => Some(Type::File),
                    SFlag::S_IFDIR => Some(Type::Directory),
                    _ => None,
                }
            });
            match kind {
                _ if is_private => {}
                Some(Type::Directory) => pending.push(resolve::join(path, entry)),
                Some(Type::File) => match entry.strip_suffix(limits::SUCCESS_SUFFIX.as_bytes()) {
                    Some(of) => drop(markers.insert(of.to_vec())),
                    None => drop(files.insert(entry.to_vec())),
                },
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        markers.retain(|marker| !files.contains(marker));
        // What is no object's name was never committed here.
        let all = files.iter().chain(&markers).filter_map(|entry| ObjectName::new(&resolve::join(path, entry)).ok());
        for name in all {
            // Fails only where all threads have panicked, which the scope tells.
            let _ = names.send(name);
        }
        Ok(())
    }
}

fn next(queue: &Mutex<Receiver<ObjectName>>) -> Option<ObjectName> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
