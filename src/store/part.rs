//! An object that is arriving: a file under a private name, of its full size where that is known.
//!
//! Nothing is seen of it under the object's name before it is whole. There are three kinds:
//!
//! - a part from [`Root::write_part`](super::Root::write_part) is whole from the start, and has no name at all until it
//!   gets the object's, where the file system knows such files (O_TMPFILE, open(2)): that is one name less to make and
//!   to remove for each small object;
//! - a part from [`Root::create_part`](super::Root::create_part) or
//!   [`Root::create_growing_part`](super::Root::create_growing_part) that is dropped before it was committed or kept is
//!   removed; one that a killed process left is removed when its root is opened again;
//! - a part from [`Root::open_part`](super::Root::open_part) is of one version of an object, stays when it is dropped,
//!   and is found again by its name and root, in this process and, as far as the root's
//!   [`Journal`](super::Journal) knows it, in the next. It goes with [`Part::abandon`].

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, OFlag, fallocate, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat, fstatat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, fdatasync, fsync, ftruncate, linkat, unlinkat};

use super::error::StoreError;
use super::hash::{BlockCv, block_count, block_cv, block_range, root_of};
use super::resolve::{self, Links};
use super::root::{Shared, Writer};
use super::source::{FileMode, Origin, Source, Stamp};
use super::spool;
use crate::limits;
use crate::units::{ByteCount, FileTime, ObjectName, Offset, Root256};

/// When a part takes its room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// When it is made, so that a full disk shows before any byte was fetched.
    Reserved,
    /// As it is written, but there must be enough of it when it is made. Until then it is shorter than it will be: what
    /// a crash keeps from the disk shows in its length, though nobody flushed it.
    Looked,
    /// As it is written: of a file with holes.
    AsWritten,
}

/// A file that is arriving. Writes of disjoint ranges may run at the same time.
#[derive(Debug)]
pub struct Part {
    name: ObjectName,
    /// Told when all of it has come, for a part that grows.
    size: OnceLock<ByteCount>,
    root: Option<Root256>,
    attributes: OnceLock<(FileMode, FileTime)>,
    /// BLAKE3 of all of it, where that was read back.
    read_root: OnceLock<Root256>,
    /// What blocks add to the root that were seen whole when they were written.
    seen: Mutex<BTreeMap<u64, BlockCv>>,
    file: Arc<PrivateFile>,
}

impl Part {
    /// Makes the file with all that is in it.
    pub(super) fn write_whole(shared: &Arc<Shared>, name: &ObjectName, content: &[u8]) -> Result<Self, StoreError> {
        let size = ByteCount(content.len() as u64);
        shared.check_room(name, size)?;
        let part = Self::new(name, size, None, Arc::new(PrivateFile::create_unnamed(shared, name)?));
        for (index, block) in content.chunks(limits::BLOCK_BYTES as usize).enumerate() {
            part.write_seen_at(block, block_range(index as u64, size).0)?;
        }
        Ok(part)
    }

    /// Reserves `size` bytes, so that a full disk shows before any byte was fetched.
    pub(super) fn create(shared: &Arc<Shared>, name: &ObjectName, size: ByteCount) -> Result<Self, StoreError> {
        shared.check_room(name, size)?;
        let file = PrivateFile::create(shared, name)?;
        let part = Self::new(name, size, None, Arc::new(file));
        part.reserve(Room::Reserved)?;
        Ok(part)
    }

    /// Begins one that takes its room as its bytes come; [`Part::cut`] says how long it is.
    pub(super) fn create_growing(shared: &Arc<Shared>, name: &ObjectName) -> Result<Self, StoreError> {
        let file = PrivateFile::create(shared, name)?;
        Ok(Self { size: OnceLock::new(), ..Self::new(name, ByteCount(0), None, Arc::new(file)) })
    }

    /// Finds the part of this version of the object, or begins it like [`Part::create`].
    pub(super) fn open(
        shared: &Arc<Shared>,
        name: &ObjectName,
        size: ByteCount,
        root: Root256,
        room: Room,
    ) -> Result<Self, StoreError> {
        let stem = PartStem::of(name, &root);
        let mut lasting = shared.writer()?.lasting();
        if let Some(file) = find(shared, &mut lasting, stem, name, size, room)? {
            return Ok(Self::new(name, size, Some(root), file));
        }
        if room != Room::AsWritten {
            shared.check_room(name, size)?;
        }
        // No two files of a root ever have the same number, so that what is known of one is never taken for the
        // other's.
        let id = PartId { stem, number: rand::random() };
        let file = Arc::new(PrivateFile::create_as(shared, name, id.entry(), Some(id))?);
        lasting.insert(stem, Lasting { number: id.number, open: Arc::downgrade(&file) });
        drop(lasting);
        let part = Self::new(name, size, Some(root), file);
        part.reserve(room).inspect_err(|_| part.abandon())?;
        Ok(part)
    }

    /// Finds the part of this version of the object, and begins none.
    pub(super) fn find(
        shared: &Arc<Shared>,
        name: &ObjectName,
        size: ByteCount,
        root: Root256,
        room: Room,
    ) -> Result<Option<Self>, StoreError> {
        let mut lasting = shared.writer()?.lasting();
        let file = find(shared, &mut lasting, PartStem::of(name, &root), name, size, room)?;
        Ok(file.map(|file| Self::new(name, size, Some(root), file)))
    }

    fn new(name: &ObjectName, size: ByteCount, root: Option<Root256>, file: Arc<PrivateFile>) -> Self {
        let (attributes, read_root) = (OnceLock::new(), OnceLock::new());
        Self { name: name.clone(), size: size.into(), root, attributes, read_root, seen: Mutex::default(), file }
    }

    /// Whether it is found again when it is dropped: it is one that stays, and has not got the object's name.
    pub fn lasts(&self) -> bool {
        self.root.is_some() && self.is_arriving()
    }

    /// The object's name.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// The size it will have; the largest that there is for one that grows and was not cut yet.
    pub fn size(&self) -> ByteCount {
        self.size.get().copied().unwrap_or(ByteCount(limits::OBJECT_BYTES_MAX))
    }

    /// All of a part that grows was written: it has this size, and what was written beyond is thrown away. Does nothing
    /// to a part whose size was known when it was made.
    pub fn cut(&self, size: ByteCount) -> Result<(), StoreError> {
        if self.size.get().is_some() {
            return Ok(());
        }
        let io = |errno| StoreError::io(&self.file.shared.path, Some(&self.name), "cut to its length", errno);
        let length = i64::try_from(size.0).map_err(|_| io(Errno::EFBIG))?;
        ftruncate(&self.file.fd, length).map_err(io)?;
        let _ = self.size.set(size);
        Ok(())
    }

    /// BLAKE3 of the version that is arriving, where that was known when the part was made.
    pub fn root(&self) -> Option<Root256> {
        self.root
    }

    /// All of it was read back, when nothing was written any more, and has this root.
    pub fn set_read_root(&self, root: Root256) {
        let _ = self.read_root.set(root);
    }

    /// BLAKE3 of what is in it, where nothing has to be read back for that any more.
    pub fn seen_root(&self) -> Option<Root256> {
        if let Some(root) = self.read_root.get() {
            return Some(*root);
        }
        let seen = self.seen();
        let is_all = seen.len() as u64 == block_count(self.size());
        is_all.then(|| root_of(self.size(), &seen.values().copied().collect::<Vec<_>>()))
    }

    /// What a block adds to the root, where it need not be read back for that.
    pub fn seen_block(&self, index: u64) -> Option<BlockCv> {
        self.seen().get(&index).copied()
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<u64, BlockCv>> {
        // Each change is one insertion or removal: a thread that panicked left nothing half done.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The permissions and the time that the object will have; the first call counts. A commit sets them when all
    /// bytes are written, and makes them durable with the bytes.
    pub fn set_attributes(&self, mode: FileMode, mtime: FileTime) {
        let _ = self.attributes.set((mode, mtime));
    }

    /// Whether they were set.
    pub fn has_attributes(&self) -> bool {
        self.attributes.get().is_some()
    }

    /// Gives the object up: removes the file, unless it was committed or kept. Bytes that are written later are lost.
    pub fn abandon(&self) {
        self.file.discard();
    }

    /// Writes `slices`, one after the other, from `offset` on. All of it is written when this returns `Ok`.
    ///
    /// Panics when the part was committed or kept already: a name under its final path never changes.
    pub fn write_vectored_at(&self, slices: &[IoSlice<'_>], offset: Offset) -> Result<(), StoreError> {
        assert!(!self.file.is_moved(), "'{}' is written to after it was committed", self.name);
        let length = ByteCount(slices.iter().map(|slice| slice.len() as u64).sum());
        if offset.0.checked_add(length.0).is_none_or(|end| end > self.size().0) {
            return Err(StoreError::BeyondEnd {
                root: self.file.shared.path.to_path_buf(),
                object: self.name.clone(),
                size: self.size(),
                offset,
                length,
            });
        }
        if length.0 > 0 {
            let touched = offset.0 / limits::BLOCK_BYTES..=(offset.0 + length.0 - 1) / limits::BLOCK_BYTES;
            let mut seen = self.seen();
            touched.for_each(|index| _ = seen.remove(&index));
        }
        let mut offset = offset;
        for slices in slices.chunks(limits::TRAIN_IOVECS_MAX) {
            offset = self.write_chunk(slices, offset)?;
        }
        Ok(())
    }

    /// Writes `bytes` from `offset` on, and takes note of what they add to the root if they are a whole block: it will
    /// not have to be read back.
    ///
    /// Panics as [`Part::write_vectored_at`] does.
    pub fn write_seen_at(&self, bytes: &[u8], offset: Offset) -> Result<(), StoreError> {
        self.write_vectored_at(&[IoSlice::new(bytes)], offset)?;
        let index = offset.0 / limits::BLOCK_BYTES;
        if !bytes.is_empty() && block_range(index, self.size()) == (offset, ByteCount(bytes.len() as u64)) {
            self.seen().insert(index, block_cv(index, self.size(), [bytes]));
        }
        Ok(())
    }

    /// Fills `buffer` with what is written from `offset` on.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: Offset) -> Result<(), StoreError> {
        let io = |errno| StoreError::io(&self.file.shared.path, Some(&self.name), "read back", errno);
        let mut filled = 0;
        while filled < buffer.len() {
            let position = i64::try_from(offset.0 + filled as u64).map_err(|_| io(Errno::EFBIG))?;
            match nix::sys::uio::pread(&self.file.fd, &mut buffer[filled..], position) {
                Ok(0) => return Err(io(Errno::ENODATA)),
                Ok(read) => filled += read,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(io(errno)),
            }
        }
        Ok(())
    }

    /// The part as something to serve while it is still arriving. It stays good after a commit, and after this
    /// part is dropped. The caller serves only ranges that were written.
    pub fn source(&self) -> Result<Arc<Source>, StoreError> {
        let shared = &self.file.shared;
        let io = |operation, errno| StoreError::io(&shared.path, Some(&self.name), operation, errno);
        let file = self.file.fd.try_clone().map_err(|error| io("serve", errno_of(&error)))?;
        let stamp = Stamp::of(&fstat(&file).map_err(|errno| io("look at", errno))?);
        let stamp = Stamp { size: self.size(), ..stamp };
        Ok(Arc::new(Source::new(Arc::clone(&shared.path), self.name.clone(), file, stamp, Origin::Part)))
    }

    /// Gives the whole part its final name without flushing it and without a marker: what a spool keeps. An
    /// object of that name is replaced. Only to be trusted until the host restarts; until then
    /// [`Root::noted_root`](super::Root::noted_root) tells by which root it came.
    pub fn keep_unsynced(&self) -> Result<(), StoreError> {
        let shared = &self.file.shared;
        if let Some(root) = self.root {
            spool::note_root(&self.file, root);
        }
        let _tree = shared.hold_tree()?;
        let (directory, entry) = shared.make_parent(&self.name, &mut Vec::new())?;
        self.file
            .rename_to(directory.as_fd(), entry)
            .map_err(|errno| StoreError::io(&shared.path, Some(&self.name), "rename a finished part to", errno))
    }

    /// Names the file; `None` for a part that does not last.
    pub(super) fn id(&self) -> Option<PartId> {
        self.file.id
    }

    /// Whether the file is still in the private directory.
    pub(super) fn is_arriving(&self) -> bool {
        !self.file.is_moved() && !self.file.discarded.load(Ordering::Acquire)
    }

    /// Sets mode and time, where they were given; whether they were.
    pub(super) fn apply_attributes(&self) -> nix::Result<bool> {
        let Some((mode, mtime)) = self.attributes.get() else { return Ok(false) };
        let mode = mode.without_special();
        if self.file.made_with != Some(mode) {
            fchmod(&self.file.fd, Mode::from_bits_truncate(u32::from(mode.bits())))?;
        }
        futimens(&self.file.fd, &TimeSpec::UTIME_OMIT, &time_spec(*mtime))?;
        Ok(true)
    }

    pub(super) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.file.shared, shared)
    }

    pub(super) fn file(&self) -> &PrivateFile {
        &self.file
    }

    /// Takes the space for all of it, so that a full disk shows before any byte was fetched; for little, its first
    /// write shows that as soon, and costs less.
    fn reserve(&self, room: Room) -> Result<(), StoreError> {
        let shared = &self.file.shared;
        let io = |operation, errno| StoreError::io(&shared.path, Some(&self.name), operation, errno);
        let length = i64::try_from(self.size().0).map_err(|_| io("make a file of that size for", Errno::EFBIG))?;
        if length == 0 || room != Room::Reserved {
            return Ok(());
        }
        let reserved = loop {
            if self.size().0 < limits::RESERVE_BYTES_MIN {
                break ftruncate(&self.file.fd, length);
            }
            match fallocate(&self.file.fd, FallocateFlags::empty(), 0, length) {
                Err(Errno::EINTR) => {}
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => break ftruncate(&self.file.fd, length),
                outcome => break outcome,
            }
        };
        match reserved {
            Ok(()) => Ok(()),
            Err(errno @ (Errno::ENOSPC | Errno::EDQUOT)) => Err(shared.full(&self.name, self.size(), errno)),
            Err(errno) => Err(io("reserve space for", errno)),
        }
    }

    /// Writes at most [`limits::TRAIN_IOVECS_MAX`] slices; the offset after them.
    fn write_chunk(&self, slices: &[IoSlice<'_>], offset: Offset) -> Result<Offset, StoreError> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = if length == 0 { 0 } else { self.write_some(slices, offset)? };
        if written < length {
            let mut copy = slices.to_vec();
            let mut rest = &mut copy[..];
            IoSlice::advance_slices(&mut rest, written);
            while written < length {
                let more = self.write_some(rest, offset + ByteCount(written as u64))?;
                IoSlice::advance_slices(&mut rest, more);
                written += more;
            }
        }
        Ok(offset + ByteCount(length as u64))
    }

    /// One system call; at least one byte.
    fn write_some(&self, slices: &[IoSlice<'_>], offset: Offset) -> Result<usize, StoreError> {
        let shared = &self.file.shared;
        let io = |errno| StoreError::io(&shared.path, Some(&self.name), "write", errno);
        let position = i64::try_from(offset.0).map_err(|_| io(Errno::EFBIG))?;
        loop {
            match nix::sys::uio::pwritev(&self.file.fd, slices, position) {
                Ok(0) => return Err(io(Errno::EIO)),
                Ok(written) => return Ok(written),
                Err(Errno::EINTR) => {}
                Err(errno @ (Errno::ENOSPC | Errno::EDQUOT)) => {
                    let so_far = offset.0 + slices.iter().map(|slice| slice.len() as u64).sum::<u64>();
                    let needed = self.size.get().copied().unwrap_or(ByteCount(so_far));
                    return Err(shared.full(&self.name, needed, errno));
                }
                Err(errno) => return Err(io(errno)),
            }
        }
    }
}

/// Opens the part that is known by `stem`. One that is not what it was is removed, and known no more.
fn find(
    shared: &Arc<Shared>,
    lasting: &mut BTreeMap<PartStem, Lasting>,
    stem: PartStem,
    name: &ObjectName,
    size: ByteCount,
    room: Room,
) -> Result<Option<Arc<PrivateFile>>, StoreError> {
    let Some(known) = lasting.get_mut(&stem) else { return Ok(None) };
    let found = known.open(shared, stem, size, room);
    let found = found.map_err(|errno| StoreError::io(&shared.path, Some(name), "open what is here of", errno))?;
    if let Some(file) = &found {
        known.open = Arc::downgrade(file);
    } else {
        let stale = PartId { stem, number: known.number };
        lasting.remove(&stem);
        let _ = unlinkat(shared.writer()?.parts.as_fd(), stale.entry().as_str(), UnlinkatFlags::NoRemoveDir);
    }
    Ok(found)
}

/// What the parts of one version of an object have in common: its name and root, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartStem(Root256);

impl PartStem {
    pub(super) fn of(name: &ObjectName, root: &Root256) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&root.0).update(name.as_bytes());
        Self(Root256(*hasher.finalize().as_bytes()))
    }
}

/// Names the file of a part that lasts, once and for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartId {
    pub(super) stem: PartStem,
    pub(super) number: u64,
}

impl PartId {
    /// What the file is called in the directory of parts.
    pub(super) fn entry(&self) -> String {
        format!("{}-{:016x}", self.stem.0, self.number)
    }

    /// The other way round; `None` for what is called otherwise.
    pub(super) fn of_entry(entry: &[u8]) -> Option<Self> {
        let (stem, number) = entry.split_at_checked(64)?;
        let number = std::str::from_utf8(number.strip_prefix(b"-")?).ok()?;
        let number = u64::from_str_radix(number, 16).ok()?;
        let id = Self { stem: PartStem(Root256::from_hex(stem)?), number };
        (id.entry().as_bytes() == entry).then_some(id)
    }
}

/// The file of a part that lasts, whether or not it is open.
#[derive(Debug)]
pub(super) struct Lasting {
    pub(super) number: u64,
    /// Shared by all who open it, so that all learn that it was committed.
    pub(super) open: Weak<PrivateFile>,
}

impl Lasting {
    /// Opens it; `None` where it is not there, or not of that size, so that nothing in it can be believed.
    fn open(
        &self,
        shared: &Arc<Shared>,
        stem: PartStem,
        size: ByteCount,
        room: Room,
    ) -> nix::Result<Option<Arc<PrivateFile>>> {
        let file = match self.open.upgrade() {
            Some(file) => file,
            None => match PrivateFile::open(shared, PartId { stem, number: self.number }) {
                Ok(file) => Arc::new(file),
                Err(Errno::ENOENT | Errno::EACCES | Errno::EPERM | Errno::ELOOP) => return Ok(None),
                // It may well be there.
                Err(errno) => return Err(errno),
            },
        };
        let found = Stamp::of(&fstat(&file.fd)?).size;
        let is_it = if room == Room::Reserved { found == size } else { found <= size };
        Ok(is_it.then_some(file))
    }
}

/// A file in the private directory, or without a name; removed when dropped unless it was moved to its place or lasts.
#[derive(Debug)]
pub(super) struct PrivateFile {
    shared: Arc<Shared>,
    fd: OwnedFd,
    /// Unset while it has no name.
    entry: OnceLock<String>,
    /// The permissions that it was made with, where they are known.
    made_with: Option<FileMode>,
    /// For one that lasts.
    id: Option<PartId>,
    moved: AtomicBool,
    discarded: AtomicBool,
    /// What a flush failed with.
    lost: Mutex<Option<Errno>>,
}

/// What of a file is to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// Its bytes, and what is needed to find them: neither mode nor time (fdatasync(2)).
    Bytes,
    /// Its attributes as well.
    All,
}

impl PrivateFile {
    /// Makes one that will become (or stand for) `name`; the root must have been opened for writing.
    pub(super) fn create(shared: &Arc<Shared>, name: &ObjectName) -> Result<Self, StoreError> {
        let entry = shared.writer()?.next_entry();
        Self::create_as(shared, name, entry, None)
    }

    /// Makes one with the permissions that are given, as far as the process may give them.
    pub(super) fn create_plain(shared: &Arc<Shared>, mode: Mode) -> nix::Result<Self> {
        let writer = shared.writer().map_err(|_| Errno::EROFS)?;
        let entry = writer.next_entry();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let fd = openat(&writer.parts, entry.as_str(), flags, mode)?;
        Ok(Self::new(shared, fd, OnceLock::from(entry), None))
    }

    /// The same without a name, where that can be.
    pub(super) fn create_unnamed(shared: &Arc<Shared>, name: &ObjectName) -> Result<Self, StoreError> {
        let writer = shared.writer()?;
        let Some(mode) = writer.unnamed_mode else { return Self::create(shared, name) };
        // In the directory itself: no path leads out of it.
        let flags = OFlag::O_RDWR | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
        let fd = openat(&writer.parts, ".", flags, Mode::from_bits_truncate(0o666))
            .map_err(|errno| not_made(shared, name, errno))?;
        let mut file = Self::new(shared, fd, OnceLock::new(), None);
        file.made_with = Some(mode);
        Ok(file)
    }

    fn create_as(
        shared: &Arc<Shared>,
        name: &ObjectName,
        entry: String,
        id: Option<PartId>,
    ) -> Result<Self, StoreError> {
        let writer = shared.writer()?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let fd = resolve::open_beneath(writer.parts.as_fd(), entry.as_bytes(), flags, Links::Refuse)
            .map_err(|errno| not_made(shared, name, errno))?;
        Ok(Self::new(shared, fd, OnceLock::from(entry), id))
    }

    /// Opens one that lasted.
    fn open(shared: &Arc<Shared>, id: PartId) -> nix::Result<Self> {
        let parts = shared.writer().map_err(|_| Errno::EBADF)?.parts.as_fd();
        let entry = id.entry();
        let open = || resolve::open_beneath(parts, entry.as_bytes(), OFlag::O_RDWR, Links::Refuse);
        let fd = match open() {
            // A commit that was interrupted had given it the object's mode already.
            Err(Errno::EACCES) => {
                fchmodat(parts, entry.as_str(), Mode::S_IRUSR | Mode::S_IWUSR, FchmodatFlags::FollowSymlink)?;
                open()?
            }
            outcome => outcome?,
        };
        Ok(Self::new(shared, fd, OnceLock::from(entry), Some(id)))
    }

    fn new(shared: &Arc<Shared>, fd: OwnedFd, entry: OnceLock<String>, id: Option<PartId>) -> Self {
        let (moved, discarded) = (AtomicBool::new(false), AtomicBool::new(false));
        let lost = Mutex::new(None);
        Self { shared: Arc::clone(shared), fd, entry, made_with: None, id, moved, discarded, lost }
    }

    /// Has the disk take it. Where that fails it is thrown away and every further flush fails as well: what did not
    /// reach the disk is still read back as if it had, and the kernel says so only once (fsync(2)).
    pub(super) fn flush(&self, what: Flush) -> nix::Result<()> {
        // Held so long that who comes second learns what the first was told.
        let mut lost = self.lock_lost();
        let flushed = match (*lost, what) {
            (Some(errno), _) => Err(errno),
            (None, Flush::Bytes) => fdatasync(&self.fd),
            (None, Flush::All) => fsync(&self.fd),
        };
        flushed.inspect_err(|errno| {
            *lost = Some(*errno);
            self.discard();
        })
    }

    fn lock_lost(&self) -> MutexGuard<'_, Option<Errno>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the next flush fail.
    #[cfg(test)]
    pub(super) fn lose(&self) {
        *self.lock_lost() = Some(Errno::EIO);
    }

    /// Its name in the private directory, which it is given if it has none.
    pub(super) fn entry(&self) -> nix::Result<&str> {
        if self.entry.get().is_none() {
            let writer = self.shared.writer().map_err(|_| Errno::EBADF)?;
            let entry = writer.next_entry();
            linkat(&self.fd, "", &writer.parts, entry.as_str(), AtFlags::AT_EMPTY_PATH)?;
            let _ = self.entry.set(entry);
        }
        Ok(self.entry.get().expect("it was just set"))
    }

    /// Removes it from the private directory, unless it is out of it.
    fn discard(&self) {
        let Ok(writer) = self.shared.writer() else { return };
        self.leave(writer, || {
            if !self.is_moved()
                && !self.discarded.swap(true, Ordering::AcqRel)
                && let Some(entry) = self.entry.get()
            {
                // What cannot be removed now is removed when the root is opened again.
                let _ = unlinkat(writer.parts.as_fd(), entry.as_str(), UnlinkatFlags::NoRemoveDir);
            }
            Ok(())
        })
        .unwrap_or(());
    }

    /// Does what takes it out of the private directory. Nobody who looks for a part finds it half gone.
    fn leave(&self, writer: &Writer, step: impl FnOnce() -> nix::Result<()>) -> nix::Result<()> {
        let Some(id) = self.id else { return step() };
        let mut lasting = writer.lasting();
        step()?;
        if lasting.get(&id.stem).is_some_and(|known| known.number == id.number) {
            lasting.remove(&id.stem);
        }
        Ok(())
    }

    /// Gives it its final name where it has no name yet, and no other file has that one; whether it did.
    pub(super) fn link_to(&self, directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<bool> {
        if self.entry.get().is_some() {
            return Ok(false);
        }
        match linkat(&self.fd, "", directory, name, AtFlags::AT_EMPTY_PATH) {
            Err(Errno::EEXIST) => Ok(false),
            linked => {
                linked?;
                self.moved.store(true, Ordering::Release);
                Ok(true)
            }
        }
    }

    /// Moves it out of the private directory, in place of whatever file has that name.
    pub(super) fn rename_to(&self, directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
        let writer = self.shared.writer().map_err(|_| Errno::EBADF)?;
        self.leave(writer, || {
            if !self.link_to(directory, name)? {
                nix::fcntl::renameat(&writer.parts, self.entry()?, directory, name)?;
                self.moved.store(true, Ordering::Release);
            }
            Ok(())
        })
    }

    pub(super) fn is_moved(&self) -> bool {
        self.moved.load(Ordering::Acquire)
    }
}

impl AsFd for PrivateFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        if self.id.is_none() {
            self.discard();
        }
    }
}

fn not_made(shared: &Shared, name: &ObjectName, errno: Errno) -> StoreError {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => shared.full(name, ByteCount(0), errno),
        _ => StoreError::io(&shared.path, Some(name), "make a part of", errno),
    }
}

/// The size of the file of a part that lasted, `None` where it is not there.
pub(super) fn lasting_size(parts: BorrowedFd<'_>, id: &PartId) -> Option<ByteCount> {
    let stat = fstatat(parts, id.entry().as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    Some(Stamp::of(&stat).size)
}

/// A time as the system takes it.
pub(super) fn time_spec(FileTime(nanoseconds): FileTime) -> TimeSpec {
    TimeSpec::new(nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000))
}

/// The system's number for an error that came through the standard library; what that found itself, as a file that ends
/// too early, has none.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
