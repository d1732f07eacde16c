//! What is in a root: its regular files, by name.
//!
//! The walk opens one directory at a time, by descriptor, and follows no symbolic link, so that it can neither
//! leave the root nor go in circles. Markers and the private directory are not data. What cannot be an
//! object is listed with the reason; a file that disappears while the walk goes on was never there. That a walk lacks a
//! name does not prove that nothing stands there: [`look_up`] tells.

use std::ffi::OsStr;
use std::fmt;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};

use super::error::{Refusal, StoreError, check_name};
use super::resolve::{self, Links};
use super::root::Root;
use super::source::Stamp;
use crate::limits;
use crate::units::{ByteCount, ObjectName};

/// The first of many, and how many there were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample<T> {
    /// At most [`limits::SCAN_LIST_MAX`].
    pub first: Vec<T>,
    /// Of all.
    pub count: u64,
}

impl<T> Default for Sample<T> {
    fn default() -> Self {
        Self { first: Vec::new(), count: 0 }
    }
}

impl<T> Sample<T> {
    /// Counts one more, and keeps it while there is room.
    pub fn push(&mut self, item: T) {
        self.count += 1;
        if self.first.len() < limits::SCAN_LIST_MAX {
            self.first.push(item);
        }
    }
}

/// What an entry that is never replicated is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkippedKind {
    /// A symbolic link.
    Symlink,
    /// A device, a socket or a pipe.
    Special,
    /// A file with the name of a marker, and nothing beside it that it could mark.
    Marker,
}

impl fmt::Display for SkippedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symlink => "a symbolic link",
            Self::Special => "a device, a socket or a pipe",
            Self::Marker => "the name of a marker",
        })
    }
}

/// An entry that is never replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Relative to the root.
    pub path: PathBuf,
    /// What it is.
    pub kind: SkippedKind,
}

/// An entry that would be replicated but for its name, or that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Relative to the root.
    pub path: PathBuf,
    /// Why.
    pub reason: Refusal,
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Every object, in the order of their names' bytes.
    pub objects: Vec<(ObjectName, Stamp)>,
    /// Their sizes' sum.
    pub bytes: ByteCount,
    /// Links, special files, and names that only markers have.
    pub skipped: Sample<Skipped>,
    /// What a person should rename or give access to.
    pub refused: Sample<Refused>,
}

/// Walks a root. Fails where the root itself cannot be read, and beyond [`limits::OBJECTS_MAX`].
pub fn scan(root: &Root) -> Result<ScanReport, StoreError> {
    let mut objects = Vec::new();
    let report = scan_by_parts(root, || false, |part| objects.extend(part))?;
    let mut report = report.expect("nobody stops it");
    objects.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    report.objects = objects;
    Ok(report)
}

/// The same, but gives what it finds to `visit`, about [`limits::SCAN_PART_OBJECTS`] at a time, in no order; the report
/// names no objects. Half of them may have been visited when it fails. `None` when `stop` has said that it is to end;
/// it is asked before each entry, as a cold disk takes its time for each.
pub fn scan_by_parts(
    root: &Root,
    stop: impl Fn() -> bool,
    mut visit: impl FnMut(Vec<(ObjectName, Stamp)>),
) -> Result<Option<ScanReport>, StoreError> {
    let mut walk = Walk::new(&stop, &mut visit);
    while let Some(directory) = walk.pending.pop() {
        if let Err(errno) = walk.directory(root.shared().dir.as_fd(), &directory) {
            if directory.is_empty() {
                return Err(StoreError::io(root.path(), None, "list the directory", errno));
            }
            walk.unreadable(&directory, errno);
        }
        if walk.stopped {
            return Ok(None);
        }
        if walk.overflow {
            return Err(StoreError::TooManyObjects { root: root.path().into() });
        }
    }
    walk.hand_over();
    Ok(Some(walk.report))
}

/// What a scan tells of one object, asked for by its name; `None` where no such object stands. A listing may lack a
/// name that is there all the time, while others are renamed over it (readdir(3)): this never does.
pub fn look_up(root: &Root, name: &ObjectName) -> Result<Option<Stamp>, StoreError> {
    root.shared().check(name)?;
    let io = |errno| StoreError::io(root.path(), Some(name), "look at", errno);
    match resolve::open_beneath(root.shared().dir.as_fd(), name.as_bytes(), OFlag::O_PATH, Links::Refuse) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        found => {
            let stat = found.and_then(fstat).map_err(io)?;
            Ok((kind_of(&stat) == SFlag::S_IFREG).then(|| Stamp::of(&stat)))
        }
    }
}

struct Walk<'v> {
    stop: &'v dyn Fn() -> bool,
    stopped: bool,
    visit: &'v mut dyn FnMut(Vec<(ObjectName, Stamp)>),
    report: ScanReport,
    found: usize,
    /// Directories that were seen and not walked yet, relative to the root.
    pending: Vec<Vec<u8>>,
    overflow: bool,
}

impl<'v> Walk<'v> {
    fn new(stop: &'v dyn Fn() -> bool, visit: &'v mut dyn FnMut(Vec<(ObjectName, Stamp)>)) -> Self {
        let (report, pending) = (ScanReport::default(), vec![Vec::new()]);
        Self { stop, stopped: false, visit, report, found: 0, pending, overflow: false }
    }

    fn hand_over(&mut self) {
        (self.visit)(std::mem::take(&mut self.report.objects));
    }

    fn directory(&mut self, root: BorrowedFd<'_>, path: &[u8]) -> nix::Result<()> {
        let directory = resolve::open_directory(root, path, Links::Refuse)?;
        resolve::list(directory, |directory, entry, kind| {
            self.stopped = (self.stop)();
            if self.stopped {
                return ControlFlow::Break(());
            }
            if !path.is_empty() || entry != limits::PRIVATE_DIR.as_bytes() {
                let full = resolve::join(path, entry);
                match kind {
                    Some(Type::Directory) => self.below(full),
                    Some(Type::Symlink) => self.skip(&full, SkippedKind::Symlink),
                    Some(Type::File) if is_marker(entry) => self.marker(directory, entry, &full),
                    // A file system need not tell the type in its listing.
                    Some(Type::File) | None => self.look(directory, entry, full),
                    Some(_) => self.skip(&full, SkippedKind::Special),
                }
            }
            self.overflow = self.found > limits::OBJECTS_MAX || self.pending.len() > limits::OBJECTS_MAX;
            if self.overflow { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    fn look(&mut self, directory: BorrowedFd<'_>, entry: &[u8], full: Vec<u8>) {
        let stat = match fstatat(directory, entry, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(errno) => return self.unreadable(&full, errno),
        };
        match kind_of(&stat) {
            SFlag::S_IFREG if is_marker(entry) => self.marker(directory, entry, &full),
            SFlag::S_IFREG => self.file(&full, Stamp::of(&stat)),
            SFlag::S_IFDIR => self.below(full),
            SFlag::S_IFLNK => self.skip(&full, SkippedKind::Symlink),
            _ => self.skip(&full, SkippedKind::Special),
        }
    }

    fn file(&mut self, full: &[u8], stamp: Stamp) {
        match object_name(full) {
            Ok(name) => {
                self.report.bytes = ByteCount(self.report.bytes.0.saturating_add(stamp.size.0));
                self.report.objects.push((name, stamp));
                self.found += 1;
                if self.report.objects.len() >= limits::SCAN_PART_OBJECTS {
                    self.hand_over();
                }
            }
            Err(reason) => self.refuse(full, reason),
        }
    }

    /// A directory's name is checked like an object's: nothing below a refused one could be an object.
    fn below(&mut self, full: Vec<u8>) {
        match object_name(&full) {
            Ok(_) => self.pending.push(full),
            Err(reason) => self.refuse(&full, reason),
        }
    }

    fn unreadable(&mut self, full: &[u8], errno: Errno) {
        match errno {
            // Removed, or replaced by something else, since it was listed.
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => {}
            // What a file system check keeps for its administrator is no data.
            Errno::EACCES if full == b"lost+found" => {}
            _ => self.refuse(full, Refusal::Unreadable(std::io::Error::from(errno).kind())),
        }
    }

    fn marker(&mut self, directory: BorrowedFd<'_>, entry: &[u8], full: &[u8]) {
        let marked = &entry[..entry.len() - limits::SUCCESS_SUFFIX.len()];
        if marked.is_empty() || fstatat(directory, marked, AtFlags::AT_SYMLINK_NOFOLLOW) == Err(Errno::ENOENT) {
            self.skip(full, SkippedKind::Marker);
        }
    }

    fn skip(&mut self, full: &[u8], kind: SkippedKind) {
        self.report.skipped.push(Skipped { path: path_of(full), kind });
    }

    fn refuse(&mut self, full: &[u8], reason: Refusal) {
        self.report.refused.push(Refused { path: path_of(full), reason });
    }
}

/// A path below a root as an object's name.
fn object_name(full: &[u8]) -> Result<ObjectName, Refusal> {
    let name = ObjectName::new(full)?;
    check_name(&name)?;
    Ok(name)
}

pub(super) fn is_marker(entry: &[u8]) -> bool {
    entry.ends_with(limits::SUCCESS_SUFFIX.as_bytes())
}

fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}
