//! A file that a walk found, and its content.
//!
//! It is opened anew when its turn comes: what is opened must be what was listed, and is held to that once more when it
//! was read.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Whence, lseek};

use super::super::error::SourceError;
use super::super::resolve::{self, Links};
use super::super::source::{Origin, Source, Stamp};
use super::error::TreeError;
use crate::limits;
use crate::units::{ByteCount, Entry, ObjectName, Offset, Root256, TreePath};

/// A directory that is walked: what names below it are resolved from.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) path: Arc<Path>,
    pub(super) dir: OwnedFd,
    /// The directory that a file was last opened in. It has this top, which a strong reference would keep for ever.
    last: Mutex<Option<(Weak<Place>, Arc<OwnedFd>)>>,
}

/// A directory below a top that entries were found in.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) top: Arc<Top>,
    /// Where it is below the top.
    pub(super) path: Box<[u8]>,
}

impl Top {
    pub(super) fn new(path: &Path, dir: OwnedFd) -> Self {
        Self { path: path.into(), dir, last: Mutex::new(None) }
    }
}

impl Place {
    /// The directory itself, open to resolve names in it.
    fn open(self: &Arc<Self>) -> nix::Result<Arc<OwnedFd>> {
        // A whole directory is set or none.
        let mut last = self.top.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((place, directory)) = &*last
            && std::ptr::eq(place.as_ptr(), Arc::as_ptr(self))
        {
            return Ok(Arc::clone(directory));
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let directory = Arc::new(resolve::open_beneath(self.top.dir.as_fd(), &self.path, flags, Links::Refuse)?);
        *last = Some((Arc::downgrade(self), Arc::clone(&directory)));
        Ok(directory)
    }
}

/// An entry of a tree that was found, and the way back to it.
#[derive(Clone)]
pub struct Found {
    /// What is told of it.
    pub entry: Entry,
    pub(super) place: Arc<Place>,
    /// What it is called there, where that is not the name it has in the transfer.
    pub(super) name: Option<Box<[u8]>>,
    pub(super) stamp: Stamp,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("entry", &self.entry).finish_non_exhaustive()
    }
}

impl Found {
    /// Opens a regular file to read it. [`TreeError::Changed`] when it is not the one that was found any more.
    pub fn open(&self) -> Result<OpenFile, TreeError> {
        let file = self.open_entry().map_err(|errno| self.io("open", errno))?;
        let stamp = Stamp::of(&fstat(&file).map_err(|errno| self.io("look at", errno))?);
        if stamp != self.stamp {
            return Err(self.changed());
        }
        Ok(self.opened(file))
    }

    /// Reads all of a small file into `buffer`, which must be as long as the file; the same as [`Found::open`], reading
    /// and [`OpenFile::verify_unchanged`] in fewer steps.
    ///
    /// Panics when the length is another.
    pub fn read_whole(&self, buffer: &mut [u8]) -> Result<(), TreeError> {
        assert_eq!(buffer.len() as u64, self.entry.size.0, "a whole file is read into as much memory as it has bytes");
        let file = self.opened(self.open_entry().map_err(|errno| self.io("open", errno))?);
        let read = file.read_exact_at(buffer, Offset(0));
        // What cannot be read may be something else by now.
        file.verify_unchanged()?;
        read
    }

    /// BLAKE3 of a regular file's content. Reads all of it; `None` when it is to stop before.
    pub(super) fn hash(&self, stop: &AtomicBool) -> Result<Option<Root256>, TreeError> {
        let file = self.open()?;
        let root = hash_file(self.entry.size, stop, |buffer, offset| file.read_exact_at(buffer, offset))?;
        file.verify_unchanged()?;
        Ok(root)
    }

    /// A symbolic link that was put in its place, or on the way to it, is refused.
    pub(super) fn open_entry(&self) -> nix::Result<OwnedFd> {
        let directory = self.place.open()?;
        open_to_read(directory.as_fd(), self.name.as_deref().unwrap_or_else(|| self.entry.path.name()))
    }

    fn opened(&self, file: OwnedFd) -> OpenFile {
        // Both are checked alike, but that an object's name is never empty.
        let name = ObjectName::new(self.entry.path.as_bytes());
        let name = name.or_else(|_| ObjectName::new(b"file")).expect("a plain word is a name");
        let source = Source::new(Arc::clone(&self.place.top.path), name, file, self.stamp, Origin::Object);
        OpenFile { source, path: self.entry.path.clone(), top: Arc::clone(&self.place.top) }
    }

    fn changed(&self) -> TreeError {
        TreeError::Changed { root: self.place.top.path.to_path_buf(), path: self.entry.path.clone() }
    }

    fn io(&self, operation: &'static str, errno: Errno) -> TreeError {
        match errno {
            // It is gone, or something else stands there: a socket, a device without a driver.
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENXIO | Errno::ENODEV => self.changed(),
            _ => TreeError::of(&self.place.top.path, &self.entry.path, operation, errno),
        }
    }
}

/// A regular file that is being sent.
#[derive(Debug)]
pub struct OpenFile {
    source: Source,
    path: TreePath,
    top: Arc<Top>,
}

impl OpenFile {
    /// Fills `buffer` with the bytes from `offset` on; [`TreeError::Changed`] when the file ends within them.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: Offset) -> Result<(), TreeError> {
        self.source.read_exact_at(buffer, offset).map_err(|error| self.of_source(error))
    }

    /// Whether what was read is one consistent version of the file, the one that was found. To be asked when its last
    /// bytes were read.
    pub fn verify_unchanged(&self) -> Result<(), TreeError> {
        self.source.verify_unchanged().map_err(|error| self.of_source(error))
    }

    /// The first region at or after `offset` that is not a hole; `None` when there are only zeros until the end. A file
    /// system that does not tell holes has one region.
    pub fn next_data(&self, offset: Offset) -> Option<(Offset, ByteCount)> {
        let size = self.size().0;
        let rest = || (offset.0 < size).then(|| (offset, ByteCount(size - offset.0)));
        let Ok(from) = i64::try_from(offset.0) else { return None };
        let start = match lseek(&self.source, from, Whence::SeekData) {
            Ok(start) => start as u64,
            // No data from there on (lseek(2)).
            Err(Errno::ENXIO) => return None,
            Err(_) => return rest(),
        };
        if start >= size {
            return None;
        }
        let end = lseek(&self.source, start as i64, Whence::SeekHole).map_or(size, |end| (end as u64).min(size));
        (start < end).then(|| (Offset(start), ByteCount(end - start)))
    }

    /// Its size when it was found.
    pub fn size(&self) -> ByteCount {
        self.source.size()
    }

    /// What can be read; its errors name the same path.
    pub fn source(&self) -> &Source {
        &self.source
    }

    fn of_source(&self, error: SourceError) -> TreeError {
        TreeError::of_source(&self.top.path, &self.path, error)
    }
}

/// Opens an entry of `directory` to read it, without leaving a trace where that is permitted.
pub(super) fn open_to_read(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<OwnedFd> {
    // Opening a pipe would wait for its writer.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    match openat(directory, name, flags | OFlag::O_NOATIME, Mode::empty()) {
        // Of another user's file (open(2)).
        Err(Errno::EPERM) => openat(directory, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// BLAKE3 of `size` bytes that `read` brings; `None` when it is to stop before.
pub(super) fn hash_file<E>(
    size: ByteCount,
    stop: &AtomicBool,
    mut read: impl FnMut(&mut [u8], Offset) -> Result<(), E>,
) -> Result<Option<Root256>, E> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; limits::HASH_READ_BYTES.min(usize::try_from(size.0).unwrap_or(usize::MAX))];
    let mut at = 0;
    while at < size.0 {
        if stop.load(Ordering::Acquire) {
            return Ok(None);
        }
        let length = (size.0 - at).min(buffer.len() as u64) as usize;
        read(&mut buffer[..length], Offset(at))?;
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
    Ok(Some(Root256(*hasher.finalize().as_bytes())))
}
