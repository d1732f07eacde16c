//! An object that is being sent.
//!
//! Its file is mapped, and the kernel sends from the map's pages; nobody here looks into them. A file cut short
//! under us is then a failed send, not a signal (ARCHITECTURE, invariant 5). Whatever must look at bytes
//! reads them with [`Source::read_exact_at`]. Before an object's last bytes are sent, [`Source::verify_unchanged`]
//! says whether what was sent is one consistent version of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{FileStat, fstat};

use super::error::SourceError;
use crate::units::{ByteCount, ObjectName, Offset};

/// A file's time, nanoseconds since 1970 as the file system keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime(pub i64);

impl FileTime {
    pub(super) fn new(seconds: i64, nanoseconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
    }
}

/// A file's number on its file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Inode(pub u64);

/// A file system's number on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Device(pub u64);

/// What an object looked like when it was seen; two equal stamps are, as far as a file system tells, the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Its length.
    pub size: ByteCount,
    /// When its bytes were last written.
    pub mtime: FileTime,
    /// When its bytes or attributes were last changed; nobody can set it back.
    pub ctime: FileTime,
    /// Its number on the file system.
    pub inode: Inode,
    /// The file system.
    pub device: Device,
}

impl Stamp {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            size: ByteCount(u64::try_from(stat.st_size).unwrap_or(0)),
            mtime: FileTime::new(stat.st_mtime, stat.st_mtime_nsec),
            ctime: FileTime::new(stat.st_ctime, stat.st_ctime_nsec),
            inode: Inode(stat.st_ino),
            device: Device(stat.st_dev),
        }
    }
}

/// Who writes the file behind a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Anyone: it is an object in its root.
    Object,
    /// Only this process: it is a part that is still arriving.
    Part,
}

/// An object that is being sent: its open file and its map.
#[derive(Debug)]
pub struct Source {
    root: Arc<Path>,
    name: ObjectName,
    file: OwnedFd,
    stamp: Stamp,
    map: Option<Arc<MmapRaw>>,
    origin: Origin,
}

impl Source {
    /// Takes over `file`, which `stamp` describes.
    pub(super) fn new(
        root: Arc<Path>,
        name: ObjectName,
        file: OwnedFd,
        stamp: Stamp,
        origin: Origin,
    ) -> Result<Self, SourceError> {
        let mut source = Self { root, name, file, stamp, map: None, origin };
        if stamp.size.0 > 0 {
            let length = usize::try_from(stamp.size.0).map_err(|_| source.io("map", Errno::EFBIG))?;
            let map = MmapOptions::new().len(length).map_raw_read_only(&source.file).map_err(|cause| {
                SourceError::Io { root: source.root.to_path_buf(), name: source.name.clone(), operation: "map", cause }
            })?;
            source.map = Some(Arc::new(map));
        }
        Ok(source)
    }

    /// The object's name.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// Its size when it was opened.
    pub fn size(&self) -> ByteCount {
        self.stamp.size
    }

    /// What it looked like when it was opened.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The whole object as memory for the kernel to send from, `None` for an empty one. Never to be dereferenced:
    /// pages beyond the end of a file that was cut short are SIGBUS to user space.
    pub fn map(&self) -> Option<&Arc<MmapRaw>> {
        self.map.as_ref()
    }

    /// Fills `buffer` with the bytes from `offset` on. An end of file within it is [`SourceError::Shrunk`].
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: Offset) -> Result<(), SourceError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let position = offset.0.saturating_add(filled as u64);
            let position = i64::try_from(position).map_err(|_| self.io("read", Errno::EOVERFLOW))?;
            match nix::sys::uio::pread(&self.file, &mut buffer[filled..], position) {
                Ok(0) => return Err(self.shrunk()),
                Ok(read) => filled += read,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.io("read", errno)),
            }
        }
        Ok(())
    }

    /// Whether the bytes are still those of the version that was opened. A file that was removed, or replaced by
    /// another of its name, is still whole here and passes.
    pub fn verify_unchanged(&self) -> Result<(), SourceError> {
        if self.origin == Origin::Part {
            return Ok(());
        }
        let stat = fstat(&self.file).map_err(|errno| self.io("look at", errno))?;
        let now = Stamp::of(&stat);
        if now.size < self.stamp.size {
            return Err(SourceError::Shrunk { name: self.name.clone(), expected: self.stamp.size, found: now.size });
        }
        // Removing the last name changes the ctime, and nothing else.
        let same_ctime = stat.st_nlink == 0 || now.ctime == self.stamp.ctime;
        if (Stamp { ctime: self.stamp.ctime, ..now }) == self.stamp && same_ctime {
            Ok(())
        } else {
            Err(SourceError::Changed { name: self.name.clone() })
        }
    }

    /// Whether no name leads to the file any more; its bytes stay until this is dropped.
    pub fn is_removed(&self) -> bool {
        fstat(&self.file).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Tells the kernel that the object will be read from its start to its end, so that it reads ahead.
    pub fn advise_sequential(&self) {
        // Advice: a file system that does not take it is as good without.
        let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
        if let Some(map) = &self.map {
            let _ = map.advise(Advice::Sequential);
        }
    }

    /// Brings `length` bytes from `offset` on into memory and into the map's page table, so that the send that
    /// follows finds them. Blocks for as long as the disk takes; what lies beyond the end is left out.
    pub fn populate(&self, offset: Offset, length: ByteCount) {
        if let Some(map) = &self.map {
            let start = usize::try_from(offset.0).unwrap_or(usize::MAX).min(map.len());
            let length = usize::try_from(length.0).unwrap_or(usize::MAX).min(map.len() - start);
            if length > 0 {
                // A page that cannot be had fails here as an error, and again in the send, where it is reported.
                let _ = map.advise_range(Advice::PopulateRead, start, length);
            }
        }
    }

    fn shrunk(&self) -> SourceError {
        let found = fstat(&self.file).map(|stat| Stamp::of(&stat).size).unwrap_or_default();
        SourceError::Shrunk { name: self.name.clone(), expected: self.stamp.size, found }
    }

    fn io(&self, operation: &'static str, errno: Errno) -> SourceError {
        SourceError::Io { root: self.root.to_path_buf(), name: self.name.clone(), operation, cause: errno.into() }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
