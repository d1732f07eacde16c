//! A root directory, held by descriptor.
//!
//! Whoever moves the directory away or replaces it by a link does not change where a running node reads and
//! writes. One process writes a root at a time: it holds a lock in the private directory for as long as the
//! root, or any part in it, lives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat, stat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, fsync, linkat, syncfs, unlinkat};

use super::error::{Lack, SourceError, StoreError, check_name};
use super::hash::hash_source;
use super::journal;
use super::lock::{DirectoryLock, LOCK};
use super::marker::Marker;
use super::part::{Lasting, Part, PartId, PartStem, Room, errno_of};
use super::resolve::{self, Links};
use super::source::{FileMode, Origin, Source, Stamp};
use crate::limits;
use crate::units::{ByteCount, ObjectName, Root256};

/// What the private directory of every root has beside its lock: the directory of parts.
const PARTS: &str = "parts";

/// A root directory. Every name is resolved beneath it; shared as `Arc<Root>`.
#[derive(Debug)]
pub struct Root {
    shared: Arc<Shared>,
}

/// Whether an object is here for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Its marker stands, and so does the file, in the size that the marker names.
    Yes(ByteCount),
    /// No marker: whatever stands under the name was never finished here.
    MarkerMissing,
    /// The marker contradicts itself.
    MarkerDamaged,
    /// The marker stands alone.
    FileMissing,
    /// The file is not the one that was marked.
    SizeDiffers {
        /// What the marker says.
        marked: ByteCount,
        /// What the file has.
        found: ByteCount,
    },
}

impl Done {
    /// Whether nothing is left to fetch.
    pub fn is_yes(self) -> bool {
        matches!(self, Self::Yes(_))
    }
}

/// What a finished object looks like beside its marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// Every byte is as it was when it was committed.
    Ok {
        /// How many there are.
        size: ByteCount,
        /// What they hash to.
        root: Root256,
    },
    /// It is not what was committed.
    Differs(Difference),
    /// No marker, or one that contradicts itself: it was never finished here.
    Unmarked,
    /// The marker says nothing of the content; the size, where it says that, is right.
    NoRoot,
}

/// How an object differs from what its marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// The marker stands alone.
    Missing,
    /// The file was cut short, or goes on.
    Size {
        /// What the marker says.
        marked: ByteCount,
        /// What the file has.
        found: ByteCount,
    },
    /// The size is right and the bytes are others.
    Content {
        /// What the marker says.
        marked: Root256,
        /// What the file's bytes hash to.
        found: Root256,
    },
}

impl Root {
    /// Opens a root for reading. It must exist and be a directory.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let dir = open_root(path)?;
        Ok(Self { shared: Arc::new(Shared { path: path.into(), dir, writer: None }) })
    }

    /// Opens a root for writing, making it where it is missing: takes its lock and removes the parts that an
    /// interrupted run left. Where the root has a journal, the parts that last stay until
    /// [`Journal::open`](super::Journal::open) has told which of them it knows.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        make_root(path).map_err(|error| StoreError::io(path, None, "make the directory", errno_of(&error)))?;
        Self::for_writing(path, open_root(path)?)
    }

    /// The same of a directory in this one, which must be one itself: no symbolic link is followed.
    pub(super) fn create_in(&self, entry: &str) -> Result<Self, StoreError> {
        let (path, above) = (&*self.shared.path.join(entry), self.shared.dir.as_fd());
        let io = |operation| move |errno| StoreError::io(path, None, operation, errno);
        match mkdirat(above, entry, Mode::from_bits_truncate(0o777)) {
            Ok(()) => fsync(above).map_err(io("flush the directory above"))?,
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(io("make the directory")(errno)),
        }
        let dir = resolve::open_directory(above, entry.as_bytes(), Links::Refuse).map_err(io("open the directory"))?;
        Self::for_writing(path, dir)
    }

    fn for_writing(path: &Path, dir: OwnedFd) -> Result<Self, StoreError> {
        let writer = Writer::open(path, dir.as_fd())?;
        Ok(Self { shared: Arc::new(Shared { path: path.into(), dir, writer: Some(writer) }) })
    }

    /// Where it was opened; for messages only.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Whether its path leads to another directory than the one that was opened, or to none.
    pub fn is_replaced(&self) -> bool {
        match (fstat(&self.shared.dir), stat(&*self.shared.path)) {
            (Ok(open), Ok(there)) => !is_same_file(&open, &there),
            (_, Err(errno)) => errno == Errno::ENOENT,
            (Err(_), Ok(_)) => false,
        }
    }

    /// Whether what arrives has no place any more: the directory of parts is gone from where it was, or another one.
    pub fn has_lost_parts(&self) -> bool {
        let Some(writer) = &self.shared.writer else { return false };
        let parts = resolve::join(limits::PRIVATE_DIR.as_bytes(), PARTS.as_bytes());
        let there = resolve::open_beneath(self.shared.dir.as_fd(), &parts, OFlag::O_PATH, Links::Refuse);
        match there.and_then(|there| Ok((fstat(there)?, fstat(&writer.parts)?))) {
            Ok((there, held)) => !is_same_file(&there, &held),
            Err(errno) => matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP),
        }
    }

    /// How many parts of an interrupted run were removed when the root was opened.
    pub fn leftovers(&self) -> u64 {
        self.shared.writer.as_ref().map_or(0, |writer| writer.leftovers)
    }

    /// Opens an object to send it.
    pub fn open_source(&self, name: &ObjectName) -> Result<Source, StoreError> {
        // Opening a pipe would wait for its writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let (file, stat) = self.shared.open_object(name, "open", flags)?;
        Ok(Source::new(Arc::clone(&self.shared.path), name.clone(), file, Stamp::of(&stat), Origin::Object))
    }

    /// Begins an object of `size` bytes that is to arrive. A full disk shows here, as [`StoreError::Full`].
    pub fn create_part(&self, name: &ObjectName, size: ByteCount) -> Result<Part, StoreError> {
        self.shared.check(name)?;
        Part::create(&self.shared, name, size)
    }

    /// The same where the size is told only when all of it has come, by [`Part::cut`]. A full disk shows when it is
    /// written.
    pub fn create_growing_part(&self, name: &ObjectName) -> Result<Part, StoreError> {
        self.shared.check(name)?;
        Part::create_growing(&self.shared, name)
    }

    /// An object all of which is here, in memory: a part that is whole, to be committed next. It is meant for small
    /// objects, costs less than a part that is filled bit by bit, and is gone with this process until it is committed.
    pub fn write_part(&self, name: &ObjectName, content: &[u8]) -> Result<Part, StoreError> {
        self.shared.check(name)?;
        Part::write_whole(&self.shared, name, content)
    }

    /// Finds the part of one version of an object, or begins it. Which bytes of it are there, the journal says; without
    /// a journal, none. A full disk shows here, as [`StoreError::Full`].
    pub fn open_part(&self, name: &ObjectName, size: ByteCount, root: Root256) -> Result<Part, StoreError> {
        self.shared.check(name)?;
        Part::open(&self.shared, name, size, root, Room::Reserved)
    }

    /// Removes an object that has no marker, since a spool kept it, and the directories that are empty then. Nothing to
    /// remove is fine.
    pub fn remove_kept(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.shared.check(name)?;
        let io = |errno| StoreError::of_name(&self.shared.path, name, "remove", errno);
        let mut durable = self.shared.hold_tree()?;
        let (parent, entry) = resolve::split(name.as_bytes());
        let directory = match resolve::open_directory(self.shared.dir.as_fd(), parent, Links::Follow) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            outcome => outcome.map_err(io)?,
        };
        remove_entry(directory.as_fd(), entry).map_err(io)?;
        self.shared.prune(parent, &mut durable);
        Ok(())
    }

    /// The size of an object, `None` where there is no such regular file.
    pub fn size_of(&self, name: &ObjectName) -> Result<Option<ByteCount>, StoreError> {
        match self.shared.open_object(name, "look at", OFlag::O_PATH) {
            Ok((_, stat)) => Ok(Some(Stamp::of(&stat).size)),
            Err(StoreError::NotFound { .. } | StoreError::NotRegular { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether an object needs no fetching: its marker stands, and the file is the one that was marked.
    pub fn is_done(&self, name: &ObjectName) -> Result<Done, StoreError> {
        Ok(self.is_done_as(name)?.0)
    }

    /// The same, and the BLAKE3 root that the marker tells.
    pub fn is_done_as(&self, name: &ObjectName) -> Result<(Done, Option<Root256>), StoreError> {
        self.shared.check(name)?;
        let Some(text) = self.read_marker(name)? else { return Ok((Done::MarkerMissing, None)) };
        let Ok(marker) = Marker::parse(&text) else { return Ok((Done::MarkerDamaged, None)) };
        let Some(found) = self.size_of(name)? else { return Ok((Done::FileMissing, marker.root)) };
        let done = match marker.size {
            Some(marked) if marked != found => Done::SizeDiffers { marked, found },
            _ => Done::Yes(found),
        };
        Ok((done, marker.root))
    }

    /// The BLAKE3 root that an object is marked with, if its marker tells.
    pub fn marked_root(&self, name: &ObjectName) -> Result<Option<Root256>, StoreError> {
        self.shared.check(name)?;
        Ok(self.marker(name)?.and_then(|marker| marker.root))
    }

    /// Reads all of an object and holds it against its marker. Blocks for as long as the disk takes.
    pub fn verify(&self, name: &ObjectName) -> Result<Verified, StoreError> {
        self.shared.check(name)?;
        let Some(marker) = self.marker(name)? else { return Ok(Verified::Unmarked) };
        let source = match self.open_source(name) {
            Ok(source) => source,
            Err(StoreError::NotFound { .. } | StoreError::NotRegular { .. }) => {
                return Ok(Verified::Differs(Difference::Missing));
            }
            Err(error) => return Err(error),
        };
        let size = source.size();
        match marker.size {
            Some(marked) if marked != size => {
                return Ok(Verified::Differs(Difference::Size { marked, found: size }));
            }
            _ => {}
        }
        let Some(marked) = marker.root else { return Ok(Verified::NoRoot) };
        let found = hash_source(&source).map_err(|error| self.shared.of_source(error))?.root;
        Ok(if found == marked {
            Verified::Ok { size, root: found }
        } else {
            Verified::Differs(Difference::Content { marked, found })
        })
    }

    /// What this process may still write to the file system.
    pub fn free_bytes(&self) -> Result<ByteCount, StoreError> {
        self.shared.free()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What an object's marker says, `None` where none stands that can be trusted.
    fn marker(&self, name: &ObjectName) -> Result<Option<Marker>, StoreError> {
        Ok(self.read_marker(name)?.and_then(|text| Marker::parse(&text).ok()))
    }

    /// The first bytes of an object's marker, `None` where none stands.
    fn read_marker(&self, name: &ObjectName) -> Result<Option<Vec<u8>>, StoreError> {
        let io = |errno| StoreError::of_name(&self.shared.path, name, "read the marker of", errno);
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let dir = self.shared.dir.as_fd();
        let file = match resolve::open_beneath(dir, &marker_name(name.as_bytes()), flags, Links::Follow) {
            // With the suffix the path is longer than PATH_MAX, but not from its own directory.
            Err(Errno::ENAMETOOLONG) => {
                let (parent, entry) = resolve::split(name.as_bytes());
                resolve::open_directory(dir, parent, Links::Follow).and_then(|directory| {
                    resolve::open_beneath(directory.as_fd(), &marker_name(entry), flags, Links::Follow)
                })
            }
            outcome => outcome,
        };
        let file = match file {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENXIO | Errno::ENODEV) => return Ok(None),
            outcome => outcome.map_err(io)?,
        };
        let stat = fstat(&file).map_err(io)?;
        if !is_regular(&stat) {
            return Ok(None);
        }
        // Room for all of it, or what there is not is asked for in several reads.
        let length = Stamp::of(&stat).size.0.min(limits::MARKER_BYTES_MAX as u64);
        let mut text = Vec::with_capacity(length as usize + 64);
        let mut file = File::from(file).take(limits::MARKER_BYTES_MAX as u64);
        file.read_to_end(&mut text).map_err(|error| io(errno_of(&error)))?;
        Ok(Some(text))
    }
}

/// What a root and the parts in it hold together.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) path: Arc<Path>,
    pub(super) dir: OwnedFd,
    writer: Option<Writer>,
}

impl Shared {
    /// The writing side; an error for a root that was opened for reading.
    pub(super) fn writer(&self) -> Result<&Writer, StoreError> {
        self.writer.as_ref().ok_or_else(|| StoreError::ReadOnly { root: self.path.to_path_buf() })
    }

    pub(super) fn check(&self, name: &ObjectName) -> Result<(), StoreError> {
        check_name(name).map_err(|reason| StoreError::BadName {
            root: self.path.to_path_buf(),
            object: name.clone(),
            reason,
        })
    }

    /// Opens a regular file by its name.
    fn open_object(
        &self,
        name: &ObjectName,
        operation: &'static str,
        flags: OFlag,
    ) -> Result<(OwnedFd, FileStat), StoreError> {
        self.check(name)?;
        let io = |errno| StoreError::of_name(&self.path, name, operation, errno);
        let file = match resolve::open_beneath(self.dir.as_fd(), name.as_bytes(), flags, Links::Follow) {
            // What open(2) says of a socket, and of a device without a driver.
            Err(Errno::ENXIO | Errno::ENODEV) => {
                return Err(StoreError::NotRegular { root: self.path.to_path_buf(), object: name.clone() });
            }
            outcome => outcome.map_err(io)?,
        };
        let stat = fstat(&file).map_err(io)?;
        if !is_regular(&stat) {
            return Err(StoreError::NotRegular { root: self.path.to_path_buf(), object: name.clone() });
        }
        Ok((file, stat))
    }

    /// Opens the directory of an object, making it where it is missing, and gives the object's last component.
    /// The caller holds the tree.
    pub(super) fn make_parent<'n>(
        &self,
        name: &'n ObjectName,
        touched: &mut Vec<Vec<u8>>,
    ) -> Result<(OwnedFd, &'n [u8]), StoreError> {
        let (parent, entry) = resolve::split(name.as_bytes());
        let directory =
            resolve::make_directory(self.dir.as_fd(), parent, Links::Follow, touched).map_err(|errno| match errno {
                Errno::EXDEV => StoreError::of_name(&self.path, name, "make the directory of", errno),
                Errno::ENOSPC | Errno::EDQUOT => self.full(name, ByteCount(0), errno),
                _ => StoreError::io(&self.path, Some(name), "make the directory of", errno),
            })?;
        Ok((directory, entry))
    }

    /// The directories that are known to be durable; holding them keeps the tree as it is.
    pub(super) fn hold_tree(&self) -> Result<MutexGuard<'_, BTreeSet<Vec<u8>>>, StoreError> {
        // Each change of the set is one insertion or removal: a thread that panicked left nothing half done.
        Ok(self.writer()?.durable.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What an unprivileged process may still write.
    pub(super) fn free(&self) -> Result<ByteCount, StoreError> {
        let stat = fstatvfs(&self.dir).map_err(|errno| StoreError::io(&self.path, None, "look at", errno))?;
        Ok(ByteCount(stat.blocks_available().saturating_mul(stat.fragment_size())))
    }

    /// What even a privileged process cannot exceed.
    pub(super) fn free_at_most(&self) -> Result<ByteCount, StoreError> {
        let stat = fstatvfs(&self.dir).map_err(|errno| StoreError::io(&self.path, None, "look at", errno))?;
        Ok(ByteCount(stat.blocks_free().saturating_mul(stat.fragment_size())))
    }

    /// Asking for more than there is would fill the disk first and fail then.
    pub(super) fn check_room(&self, name: &ObjectName, size: ByteCount) -> Result<(), StoreError> {
        if size.0 >= limits::RESERVE_BYTES_MIN && size > self.free_at_most()? {
            Err(self.full(name, size, Errno::ENOSPC))
        } else {
            Ok(())
        }
    }

    /// The error for an object that `errno` leaves no room for.
    pub(super) fn full(&self, name: &ObjectName, needed: ByteCount, errno: Errno) -> StoreError {
        let lack = self.lack(needed, errno);
        StoreError::Full { root: self.path.to_path_buf(), object: name.clone(), lack }
    }

    /// What there is too little of for `needed` bytes of a file.
    pub(super) fn lack(&self, needed: ByteCount, errno: Errno) -> Lack {
        let Ok(stat) = fstatvfs(&self.dir) else { return Lack::Bytes { needed, free: ByteCount(0) } };
        let free = ByteCount(stat.blocks_available().saturating_mul(stat.fragment_size()));
        // Not every file system counts inodes.
        let has_no_inodes = stat.files() > 0 && stat.files_available() == 0;
        match errno {
            Errno::EDQUOT => Lack::Quota,
            _ if has_no_inodes && needed <= free && free.0 > 0 => Lack::Inodes,
            _ => Lack::Bytes { needed, free },
        }
    }

    pub(super) fn of_source(&self, error: SourceError) -> StoreError {
        match error {
            SourceError::Io { root, name, operation, cause } => {
                StoreError::Io { root, object: Some(name), operation, cause }
            }
            SourceError::Shrunk { name, .. } | SourceError::Changed { name } => {
                StoreError::Changing { root: self.path.to_path_buf(), object: name }
            }
        }
    }

    /// Removes the private directory, unless a part, or anything that only a node has there, is left in it. To be
    /// called when nothing more will be written; the lock holds until the root is dropped.
    pub(super) fn remove_private(&self) -> nix::Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let (private, mut is_strange) = (writer.private.as_fd(), false);
        resolve::list(resolve::open_directory(private, b"", Links::Refuse)?, |_, entry, _| {
            is_strange |= entry != LOCK.as_bytes() && entry != PARTS.as_bytes() && !journal::owns(entry);
            std::ops::ControlFlow::Continue(())
        })?;
        if is_strange {
            return Ok(());
        }
        match unlinkat(private, PARTS, UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => return Ok(()),
            outcome => outcome?,
        }
        for entry in journal::ENTRIES {
            remove_entry(private, entry.as_bytes())?;
        }
        remove_entry(private, LOCK.as_bytes())?;
        unlinkat(&self.dir, limits::PRIVATE_DIR, UnlinkatFlags::RemoveDir)
    }

    /// Removes `path` and the directories above it, as long as they are empty.
    pub(super) fn prune(&self, mut path: &[u8], durable: &mut BTreeSet<Vec<u8>>) {
        while !path.is_empty() {
            let (parent, entry) = resolve::split(path);
            let Ok(directory) = resolve::open_directory(self.dir.as_fd(), parent, Links::Follow) else { return };
            if unlinkat(&directory, entry, UnlinkatFlags::RemoveDir).is_err() {
                return;
            }
            durable.remove(path);
            path = parent;
        }
    }
}

/// What only the one process that writes a root has.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) private: OwnedFd,
    pub(super) parts: OwnedFd,
    /// The parts that last, by what they are parts of.
    lasting: Mutex<BTreeMap<PartStem, Lasting>>,
    next_entry: AtomicU64,
    /// The permissions of a file that is made without a name, to be given one when it is whole. `None` where that
    /// cannot be: not every file system knows such files, and before Linux 6.10 only the privileged may name one by its
    /// descriptor.
    pub(super) unnamed_mode: Option<FileMode>,
    /// Directories whose own entry is known to be durable. While it is held no directory of the root is made or
    /// pruned by another thread of this process.
    durable: Mutex<BTreeSet<Vec<u8>>>,
    /// Set when flushing the whole file system failed once: the kernel reports such a failure a single time, so
    /// from then on every file is flushed, and answers, for itself. Held while it is flushed, so that nobody misses
    /// what another thread was told.
    sync_each: Mutex<bool>,
    leftovers: u64,
    /// Released last.
    _lock: DirectoryLock,
}

impl Writer {
    fn open(path: &Path, root: BorrowedFd<'_>) -> Result<Self, StoreError> {
        let io = |operation| move |errno| StoreError::io(path, None, operation, errno);
        let mut tries = limits::RESOLVE_TRIES_MAX;
        let (private, lock) = loop {
            tries -= 1;
            let private = make_private(root, limits::PRIVATE_DIR).map_err(io("make the private directory"))?;
            match DirectoryLock::take_in(path, private.as_fd()) {
                Ok(lock) if lock_stands(root, private.as_fd(), lock.as_fd()) => break (private, lock),
                // Who had it removed the directory in passing.
                Ok(_) if tries > 0 => {}
                Err(StoreError::Io { cause, .. }) if tries > 0 && errno_of(&cause) == Errno::ENOENT => {}
                Ok(_) => return Err(io("lock the directory")(Errno::EAGAIN)),
                Err(error) => return Err(error),
            }
        };
        let parts = make_private(private.as_fd(), PARTS).map_err(io("make the private directory"))?;
        let listing = resolve::open_directory(parts.as_fd(), b"", Links::Refuse).map_err(io("list the parts"))?;
        let journaled = journal::stands_in(private.as_fd());
        let leftovers = remove_leftovers(listing, |entry| journaled && PartId::of_entry(entry).is_some())
            .map_err(io("remove the parts of an interrupted run"))?;
        let unnamed_mode = try_unnamed(parts.as_fd()).ok();
        Ok(Self {
            private,
            parts,
            unnamed_mode,
            lasting: Mutex::new(BTreeMap::new()),
            next_entry: AtomicU64::new(0),
            durable: Mutex::new(BTreeSet::new()),
            sync_each: Mutex::new(false),
            leftovers,
            _lock: lock,
        })
    }

    /// The parts that last; while it is held none is made, found or given up.
    pub(super) fn lasting(&self) -> MutexGuard<'_, BTreeMap<PartStem, Lasting>> {
        // Each change is one insertion or removal, as above.
        self.lasting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flushes the whole file system, where that is less work than to flush each of `files`. False: each is to be
    /// flushed.
    pub(super) fn sync_at_once(&self, files: usize) -> bool {
        if files <= limits::COMMIT_SYNC_EACH_MAX {
            return false;
        }
        let mut sync_each = self.sync_each.lock().unwrap_or_else(PoisonError::into_inner);
        // Which file it was is not said, so that each is asked, now and from now on.
        *sync_each = *sync_each || syncfs(&self.parts).is_err();
        !*sync_each
    }

    /// Removes every part but those that `keep`s; to be called before any is made.
    pub(super) fn remove_parts_but(&self, keep: impl Fn(&[u8]) -> bool) -> nix::Result<u64> {
        remove_leftovers(resolve::open_directory(self.parts.as_fd(), b"", Links::Refuse)?, keep)
    }

    /// A name that nothing in the private directory has.
    pub(super) fn next_entry(&self) -> String {
        format!("{:016x}", self.next_entry.fetch_add(1, Ordering::Relaxed))
    }
}

/// `NAME.success` for a name or its last component.
pub(super) fn marker_name(name: &[u8]) -> Vec<u8> {
    [name, limits::SUCCESS_SUFFIX.as_bytes()].concat()
}

/// Unlinks a file; whether there was one.
pub(super) fn remove_entry(directory: BorrowedFd<'_>, entry: &[u8]) -> nix::Result<bool> {
    match unlinkat(directory, entry, UnlinkatFlags::NoRemoveDir) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Makes a file without a name, gives it one and removes it; its permissions.
fn try_unnamed(parts: BorrowedFd<'_>) -> nix::Result<FileMode> {
    let file = resolve::open_beneath(parts, b"", OFlag::O_TMPFILE | OFlag::O_RDWR, Links::Refuse)?;
    linkat(&file, "", parts, "unnamed", AtFlags::AT_EMPTY_PATH)?;
    unlinkat(parts, "unnamed", UnlinkatFlags::NoRemoveDir)?;
    Ok(Stamp::of(&fstat(&file)?).mode)
}

/// Whether both are of one file or directory.
pub(super) fn is_same_file(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

pub(super) fn is_regular(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

fn open_root(path: &Path) -> Result<OwnedFd, StoreError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ENOTDIR => StoreError::NotDirectory { root: path.into() },
        _ => StoreError::io(path, None, "open the directory", errno),
    })?;
    // A kernel or a sandbox without openat2 shows here, not at the first object.
    resolve::open_directory(dir.as_fd(), b"", Links::Follow)
        .map_err(|errno| StoreError::io(path, None, "resolve names beneath the directory", errno))?;
    Ok(dir)
}

/// Makes the directory and those above it, durably.
fn make_root(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_root(above)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    Ok(fsync(File::open(above)?)?)
}

/// Makes (or finds) a directory that only this program looks into.
fn make_private(above: BorrowedFd<'_>, entry: &str) -> nix::Result<OwnedFd> {
    match mkdirat(above, entry, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    resolve::open_directory(above, entry.as_bytes(), Links::Refuse)
}

/// Whether a lock that was taken is the one that others find.
fn lock_stands(root: BorrowedFd<'_>, private: BorrowedFd<'_>, lock: BorrowedFd<'_>) -> bool {
    let is_same = |above, entry, fd| -> nix::Result<bool> {
        let (found, held) = (fstatat(above, entry, AtFlags::AT_SYMLINK_NOFOLLOW)?, fstat(fd)?);
        Ok(is_same_file(&found, &held))
    };
    let stands = is_same(root, limits::PRIVATE_DIR, private).and_then(|same| Ok(same && is_same(private, LOCK, lock)?));
    stands.unwrap_or(false)
}

/// Unlinks the files in the parts' directory that are not to be kept; how many.
fn remove_leftovers(parts: OwnedFd, keep: impl Fn(&[u8]) -> bool) -> nix::Result<u64> {
    let mut names = Vec::new();
    let handle = parts.try_clone().map_err(|error| errno_of(&error))?;
    resolve::list(parts, |_, entry, _| {
        if !keep(entry) {
            names.push(entry.to_vec());
        }
        std::ops::ControlFlow::Continue(())
    })?;
    let mut removed = 0;
    for name in names {
        removed += u64::from(remove_entry(handle.as_fd(), &name)?);
    }
    Ok(removed)
}
