//! An object that is arriving: a file of its full size under a private name.
//!
//! Nothing is seen of it under the object's name before it is whole. A part that is dropped before it was
//! committed or kept is removed; one that a killed process left is removed when its root is opened again.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::stat::fstat;
use nix::unistd::{UnlinkatFlags, ftruncate, unlinkat};

use super::error::StoreError;
use super::resolve::{self, Links};
use super::root::Shared;
use super::source::{Origin, Source, Stamp};
use crate::limits;
use crate::units::{ByteCount, ObjectName, Offset};

/// A file that is arriving. Writes of disjoint ranges may run at the same time.
#[derive(Debug)]
pub struct Part {
    name: ObjectName,
    size: ByteCount,
    file: PrivateFile,
}

impl Part {
    /// Reserves `size` bytes, so that a full disk shows before any byte was fetched.
    pub(super) fn create(shared: &Arc<Shared>, name: &ObjectName, size: ByteCount) -> Result<Self, StoreError> {
        let io = |operation, errno| StoreError::io(&shared.path, Some(name), operation, errno);
        // Asking for more than there is would fill the disk first and fail then.
        if size > shared.free_at_most()? {
            return Err(shared.full(name, size));
        }
        let length = i64::try_from(size.0).map_err(|_| io("make a file of that size for", Errno::EFBIG))?;
        let file = PrivateFile::create(shared, name)?;
        if length > 0 {
            let reserved = loop {
                match fallocate(&file.fd, FallocateFlags::empty(), 0, length) {
                    Err(Errno::EINTR) => {}
                    Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => break ftruncate(&file.fd, length),
                    outcome => break outcome,
                }
            };
            match reserved {
                Ok(()) => {}
                Err(Errno::ENOSPC | Errno::EDQUOT) => return Err(shared.full(name, size)),
                Err(errno) => return Err(io("reserve space for", errno)),
            }
        }
        Ok(Self { name: name.clone(), size, file })
    }

    /// The object's name.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// The size it will have.
    pub fn size(&self) -> ByteCount {
        self.size
    }

    /// Writes `slices`, one after the other, from `offset` on. All of it is written when this returns `Ok`.
    ///
    /// Panics when the part was committed or kept already: a name under its final path never changes.
    pub fn write_vectored_at(&self, slices: &[IoSlice<'_>], offset: Offset) -> Result<(), StoreError> {
        assert!(!self.file.is_moved(), "'{}' is written to after it was committed", self.name);
        let length = ByteCount(slices.iter().map(|slice| slice.len() as u64).sum());
        if offset.0.checked_add(length.0).is_none_or(|end| end > self.size.0) {
            return Err(StoreError::BeyondEnd {
                root: self.file.shared.path.to_path_buf(),
                object: self.name.clone(),
                size: self.size,
                offset,
                length,
            });
        }
        let mut offset = offset;
        for slices in slices.chunks(limits::TRAIN_IOVECS_MAX) {
            offset = self.write_chunk(slices, offset)?;
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
        let stamp = Stamp { size: self.size, ..stamp };
        Source::new(Arc::clone(&shared.path), self.name.clone(), file, stamp, Origin::Part)
            .map(Arc::new)
            .map_err(|error| shared.of_source(error))
    }

    /// Gives the whole part its final name without flushing it and without a marker: what a spool keeps. An
    /// object of that name is replaced. Only to be trusted until the host restarts.
    pub fn keep_unsynced(&self) -> Result<(), StoreError> {
        let shared = &self.file.shared;
        let _tree = shared.hold_tree()?;
        let (directory, entry) = shared.make_parent(&self.name, &mut Vec::new())?;
        self.file
            .rename_to(directory.as_fd(), entry)
            .map_err(|errno| StoreError::io(&shared.path, Some(&self.name), "rename a finished part to", errno))
    }

    pub(super) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.file.shared, shared)
    }

    pub(super) fn file(&self) -> &PrivateFile {
        &self.file
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
                Err(Errno::ENOSPC | Errno::EDQUOT) => return Err(shared.full(&self.name, self.size)),
                Err(errno) => return Err(io(errno)),
            }
        }
    }
}

/// A file in the private directory, removed when dropped unless it was renamed out of it.
#[derive(Debug)]
pub(super) struct PrivateFile {
    shared: Arc<Shared>,
    fd: OwnedFd,
    entry: String,
    moved: AtomicBool,
}

impl PrivateFile {
    /// Makes one that will become (or stand for) `name`; the root must have been opened for writing.
    pub(super) fn create(shared: &Arc<Shared>, name: &ObjectName) -> Result<Self, StoreError> {
        let writer = shared.writer()?;
        let entry = writer.next_entry();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let fd =
            resolve::open_beneath(writer.parts.as_fd(), entry.as_bytes(), flags, Links::Refuse).map_err(|errno| {
                match errno {
                    Errno::ENOSPC | Errno::EDQUOT => shared.full(name, ByteCount(0)),
                    _ => StoreError::io(&shared.path, Some(name), "make a part of", errno),
                }
            })?;
        Ok(Self { shared: Arc::clone(shared), fd, entry, moved: AtomicBool::new(false) })
    }

    /// Moves it out of the private directory, in place of whatever file has that name.
    pub(super) fn rename_to(&self, directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
        let parts = self.shared.writer().map_err(|_| Errno::EBADF)?.parts.as_fd();
        nix::fcntl::renameat(parts, self.entry.as_str(), directory, name)?;
        self.moved.store(true, Ordering::Release);
        Ok(())
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
        if !self.is_moved()
            && let Ok(writer) = self.shared.writer()
        {
            // What cannot be removed now is removed when the root is opened again.
            let _ = unlinkat(writer.parts.as_fd(), self.entry.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// The system's number for an error that came through the standard library.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
