//! An object that is being sent.
//!
//! Its bytes are read with [`Source::read_exact_at`], never mapped: a file cut short under us is an error and not a
//! signal (invariant 5 of the [crate]). [`Source::verify_unchanged`] says afterwards whether all that was read is of
//! one version of it.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{FileStat, fstat};

use super::error::SourceError;
use crate::limits;
use crate::units::{ByteCount, FileTime, ObjectName, Offset};

/// A file's permissions: read, write and execute for owner, group and others, set-user-ID, set-group-ID and sticky.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileMode(u16);

impl FileMode {
    /// From the lowest twelve of `bits`; others say what kind of file it is.
    pub fn new(bits: u32) -> Self {
        Self((bits & 0o7777) as u16)
    }

    /// But for set-user-ID, set-group-ID and sticky: a peer is never trusted so far that what it sends would run as
    /// somebody else.
    pub(super) fn without_special(self) -> Self {
        Self(self.0 & 0o777)
    }

    /// The twelve bits.
    pub fn bits(self) -> u16 {
        self.0
    }
}

/// A file's number on its file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Inode(pub u64);

/// A file system's number on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Device(pub u64);

/// What an object looked like when it was seen; two equal stamps are, as far as a file system tells, the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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
    /// Its permissions.
    pub mode: FileMode,
}

impl Stamp {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            size: ByteCount(u64::try_from(stat.st_size).unwrap_or(0)),
            mtime: FileTime::new(stat.st_mtime, stat.st_mtime_nsec),
            ctime: FileTime::new(stat.st_ctime, stat.st_ctime_nsec),
            inode: Inode(stat.st_ino),
            device: Device(stat.st_dev),
            mode: FileMode::new(stat.st_mode),
        }
    }

    /// The stamp in few bytes: two that differ have two prints, but once in 2^64.
    pub fn print(&self) -> u64 {
        BuildHasherDefault::<DefaultHasher>::new().hash_one(self)
    }

    /// The same of what may be written to again without another stamp, so that it is to be looked at again.
    pub fn unsettled_print(&self) -> u64 {
        !self.print()
    }

    /// Whether a change after `now` is sure to change the stamp: its times are at least a tick of the file system's
    /// clock away, most likely before.
    fn is_settled(&self, now: FileTime) -> bool {
        let whole_seconds = self.mtime.0 % 1_000_000_000 == 0 && self.ctime.0 % 1_000_000_000 == 0;
        let tick = if whole_seconds { limits::FILE_TIME_TICK_COARSE } else { limits::FILE_TIME_TICK };
        [self.mtime, self.ctime].iter().all(|time| now.0.abs_diff(time.0) >= tick.as_nanos() as u64)
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

/// An object that is being sent: its open file, and what that was when it was opened.
#[derive(Debug)]
pub struct Source {
    root: Arc<Path>,
    name: ObjectName,
    file: OwnedFd,
    stamp: Stamp,
    origin: Origin,
    settled: bool,
}

impl Source {
    /// Takes over `file`, which `stamp` describes.
    pub(super) fn new(root: Arc<Path>, name: ObjectName, file: OwnedFd, stamp: Stamp, origin: Origin) -> Self {
        let settled = stamp.is_settled(file_clock());
        Self { root, name, file, stamp, origin, settled }
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

    /// Whether any change since it was opened shows in the object's stamp. What is remembered of an object by its stamp
    /// is only to be remembered where this is so; a file that was written a moment ago may be written again within
    /// the same tick of the clock.
    pub fn is_settled(&self) -> bool {
        self.settled
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

    /// Tells the kernel that the object will be read from its start to its end, so that it reads ahead.
    pub fn advise_sequential(&self) {
        if self.stamp.size.0 > limits::READ_AHEAD_BYTES_MIN {
            // Advice: a file system that does not take it is as good without.
            let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
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

/// The host's clock.
fn file_clock() -> FileTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    FileTime(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_settled_a_tick_after_the_last_change() {
        const SECOND: i64 = 1_000_000_000;
        let check = |mtime: i64, ctime: i64, now: i64, expected: bool| {
            let stamp = Stamp { mtime: FileTime(mtime), ctime: FileTime(ctime), ..Stamp::default() };
            assert_eq!(stamp.is_settled(FileTime(now)), expected, "{mtime} {ctime} {now}");
        };
        let tick = limits::FILE_TIME_TICK.as_nanos() as i64;
        check(7 * SECOND, 7, 7 * SECOND, false);
        check(7, 7 * SECOND + 1, 7 * SECOND + tick, false);
        check(7, 7 * SECOND + 1, 7 * SECOND + 1 + tick, true);
        check(8 * SECOND + 1, 7, 8 * SECOND, false);
        check(i64::MAX, 7, 8 * SECOND, true);
        // Whole seconds are what a coarse clock shows.
        check(7 * SECOND, 7 * SECOND, 8 * SECOND, false);
        check(7 * SECOND, 7 * SECOND, 9 * SECOND, true);
    }
}
