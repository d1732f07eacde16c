//! A directory that trees land in: what all sessions that write below it share.
//!
//! It is a root like any other: one process writes it, unfinished files lie in its private directory, and a journal
//! says what is there of them. When nothing unfinished is left the private directory goes, and the directory's own time
//! is put back to what it was, so that a session that had nothing to do leaves no trace.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, futimens};
use nix::sys::time::TimeSpec;

use super::super::error::StoreError;
use super::super::journal::{self, Journal, Unmarked};
use super::super::part::{Part, PrivateFile, Room};
use super::super::root::{Root, Shared, is_same_file};
use super::error::TreeError;
use crate::limits;
use crate::units::{ByteCount, Entry, FileTime, ObjectName, RangeSet, Root256, TreePath};

/// A directory that trees land in. Shared by the sessions that write below it.
#[derive(Debug)]
pub struct Tree {
    path: Arc<Path>,
    /// Opened when the first part is made, or when an earlier run left one.
    journal: Mutex<Option<Journal>>,
    /// The versions that are arriving, so that no two sessions write to one.
    arriving: Mutex<BTreeSet<Version>>,
    made: Made,
    /// It was made for what is to land, and nothing has yet.
    unused: AtomicBool,
    /// `None` when there is no such directory, and nothing is to be written.
    root: Option<Root>,
}

/// What becomes of the attributes of a file that is made here.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Made {
    /// The permissions that it does not get.
    pub(super) masked: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Its times are multiples of this, in nanoseconds.
    pub(super) tick: i64,
}

impl Made {
    /// Whether a time that was set to `wanted` is `found` here; false where that cannot be known.
    pub(super) fn is_time(&self, found: FileTime, wanted: FileTime) -> bool {
        if wanted.is_bound() {
            return false;
        }
        found == wanted || self.tick > 1 && found.0 == wanted.0 - wanted.0.rem_euclid(self.tick)
    }
}

/// The units that file systems have of time, in nanoseconds: from those of Linux to the two seconds of FAT.
const UNITS: [i64; 7] = [1, 100, 1000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000];

/// The unit of the times of `file`'s file system: from a nanosecond to the two seconds of FAT.
fn tick_of(file: &PrivateFile) -> nix::Result<i64> {
    const ODD: i64 = 1_000_000_001_123_456_789;
    let odd = TimeSpec::new(ODD / 1_000_000_000, ODD % 1_000_000_000);
    futimens(file, &odd, &odd)?;
    let stat = fstat(file)?;
    let found = FileTime::new(stat.st_mtime, stat.st_mtime_nsec);
    Ok(UNITS.into_iter().find(|unit| found.0 == ODD - ODD % unit).unwrap_or(1))
}

/// The same, as far as the times of something that stands in it show: those that nobody can set are hardly ever round.
fn tick_shown(stat: &FileStat) -> i64 {
    let times = [FileTime::new(stat.st_ctime, stat.st_ctime_nsec), FileTime::new(stat.st_mtime, stat.st_mtime_nsec)];
    let is_of = |unit: &i64| times.iter().all(|time| time.0 % unit == 0);
    UNITS.into_iter().rev().find(is_of).unwrap_or(1)
}

impl Tree {
    /// Opens a directory for writing, making it where it is missing: takes its lock, and finds what an interrupted run
    /// left. A [`StoreError::Locked`] when another process writes it.
    pub fn open(path: &Path) -> Result<Arc<Self>, TreeError> {
        let before = nix::sys::stat::stat(path).ok();
        let root = Root::create(path)?;
        let shared = root.shared();
        let io = |operation| move |errno| StoreError::io(path, None, operation, errno);
        let all = Mode::from_bits_truncate(0o777);
        let probe = PrivateFile::create_plain(shared, all).map_err(io("make a file in the private directory"))?;
        let stat = fstat(&probe).map_err(io("look at"))?;
        let tick = tick_of(&probe).map_err(io("set the time of a file in"))?;
        let made = Made { masked: !(stat.st_mode as u16) & 0o777, uid: stat.st_uid, gid: stat.st_gid, tick };
        drop(probe);
        let journal = if journal::stands_in(shared.writer()?.private.as_fd()) {
            Some(Journal::open(&root, Unmarked::Keep)?.0)
        } else {
            None
        };
        if let Some(before) = &before {
            put_time_back(shared.dir.as_fd(), before);
        }
        let (journal, arriving) = (Mutex::new(journal), Mutex::new(BTreeSet::new()));
        let unused = AtomicBool::new(before.is_none());
        Ok(Arc::new(Self { path: path.into(), journal, arriving, made, unused, root: Some(root) }))
    }

    /// Opens a directory to look at what would be done in it, whether or not it exists; nothing can land there.
    pub fn look(path: &Path) -> Result<Arc<Self>, TreeError> {
        let root = match Root::open(path) {
            Ok(root) => Some(root),
            Err(StoreError::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let stat = root.as_ref().map(|root| fstat(&root.shared().dir)).transpose();
        let stat = stat.map_err(|errno| StoreError::io(path, None, "look at", errno))?;
        let made = Made { tick: stat.as_ref().map_or(1, tick_shown), ..Made::default() };
        let (journal, arriving) = (Mutex::new(None), Mutex::new(BTreeSet::new()));
        let unused = AtomicBool::new(false);
        Ok(Arc::new(Self { path: path.into(), journal, arriving, made, unused, root }))
    }

    /// Where it was opened; for messages only.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Something lands in it: it stays.
    pub(super) fn keep(&self) {
        self.unused.store(false, Ordering::Relaxed);
    }

    pub(super) fn made(&self) -> Made {
        self.made
    }

    pub(super) fn dir(&self) -> nix::Result<BorrowedFd<'_>> {
        self.root.as_ref().map(|root| root.shared().dir.as_fd()).ok_or(Errno::ENOENT)
    }

    /// The writing side; an error where there is none.
    pub(super) fn shared(&self) -> Result<&Arc<Shared>, StoreError> {
        self.root.as_ref().map(Root::shared).ok_or_else(|| StoreError::ReadOnly { root: self.path.to_path_buf() })
    }

    /// Whether the file system takes upper and lower case for one, as FAT does; only known where something can land.
    pub(super) fn folds_names(&self) -> bool {
        let Some(root) = &self.root else { return false };
        let look = |name: &str| fstatat(&root.shared().dir, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        match (look(limits::PRIVATE_DIR), look(&limits::PRIVATE_DIR.to_uppercase())) {
            (Ok(lower), Ok(upper)) => is_same_file(&lower, &upper),
            _ => false,
        }
    }

    /// Notes that a version is arriving, until the claim is dropped; `None` while another session has it.
    pub(super) fn claim(self: &Arc<Self>, version: Version) -> Option<Claim> {
        let claimed = self.lock_arriving().insert(version);
        claimed.then(|| Claim { tree: Arc::clone(self), version })
    }

    /// The same, where another session may have it: then what comes is written beside that, and nobody goes on with it.
    pub(super) fn claim_beside(self: &Arc<Self>, version: Version) -> Claim {
        let mut versions = (0..).map(|twin| version.twin(twin));
        versions.find_map(|version| self.claim(version)).expect("they do not end")
    }

    /// What an earlier run left of a version.
    pub(super) fn left(&self, version: Version, size: ByteCount) -> Result<Option<RangeSet>, StoreError> {
        let mut journal = self.lock_journal();
        let (Some(root), Some(journal)) = (&self.root, &mut *journal) else { return Ok(None) };
        let name = version.name();
        if !root.shared().writer()?.lasting().contains_key(&super::super::part::PartStem::of(&name, &version.content)) {
            return Ok(None);
        }
        let part = Part::open(root.shared(), &name, size, version.content, Room::AsWritten)?;
        Ok(Some(journal.ranges(&part)))
    }

    /// Finds the part of a version, or begins it; room is reserved for one without holes.
    pub(super) fn open_part(&self, claim: &Claim, size: ByteCount, room: Room) -> Result<Part, StoreError> {
        // Parts are only made when there is a journal.
        self.with_journal(|_| Ok(()))?;
        Part::open(self.shared()?, &claim.version.name(), size, claim.version.content, room)
    }

    /// Finds the part of a version, which there should be.
    pub(super) fn find_part(&self, claim: &Claim, size: ByteCount) -> Result<Part, StoreError> {
        let (shared, name) = (self.shared()?, claim.version.name());
        let found = Part::find(shared, &name, size, claim.version.content, Room::AsWritten)?;
        found.ok_or_else(|| StoreError::io(&shared.path, Some(&name), "find what was here of", Errno::ENOENT))
    }

    /// Removes what there is of a version.
    pub(super) fn discard(&self, claim: &Claim, size: ByteCount) -> Result<(), StoreError> {
        let part = self.open_part(claim, size, Room::AsWritten)?;
        part.abandon();
        self.with_journal(|journal| {
            journal.forget(&part);
            Ok(())
        })
    }

    /// Removes what earlier runs left of the file at `path`, but for what is arriving now: nobody will go on with it.
    pub(super) fn discard_left(self: &Arc<Self>, path: &TreePath) -> Result<(), StoreError> {
        let left = match &*self.lock_journal() {
            Some(journal) if !journal.is_empty() => journal.parts_of(&name_of(digest_of(path))),
            // As a rule; it is asked for every file.
            _ => return Ok(()),
        };
        for (size, content) in left {
            if let Some(claim) = self.claim(Version { path: digest_of(path), content }) {
                self.discard(&claim, size)?;
            }
        }
        Ok(())
    }

    /// Does `step` with the journal, which is opened where it is not yet.
    pub(super) fn with_journal<R>(
        &self,
        step: impl FnOnce(&mut Journal) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut journal = self.lock_journal();
        if journal.is_none() {
            let root = self.root.as_ref();
            let root = root.ok_or_else(|| StoreError::ReadOnly { root: self.path.to_path_buf() })?;
            *journal = Some(Journal::open(root, Unmarked::Keep)?.0);
        }
        step(journal.as_mut().expect("it was just opened"))
    }

    /// Puts what was recorded to the journal's file, so that it survives this process.
    pub(super) fn write_journal(&self) -> Result<(), StoreError> {
        self.lock_journal().as_mut().map_or(Ok(()), Journal::write)
    }

    fn lock_journal(&self) -> MutexGuard<'_, Option<Journal>> {
        // A journal that a thread panicked with says less than there is, never more.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_arriving(&self) -> MutexGuard<'_, BTreeSet<Version>> {
        // Each change is one insertion or removal.
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What is not written is fetched again.
        let _ = self.write_journal();
        let Some(root) = &self.root else { return };
        let shared = root.shared();
        if shared.writer().is_ok() {
            let before = fstat(&shared.dir);
            // What cannot be removed now is found, and removed, by the next who opens it.
            let _ = shared.remove_private();
            if let Ok(before) = before {
                put_time_back(shared.dir.as_fd(), &before);
            }
            if self.unused.load(Ordering::Relaxed) {
                // Somebody else may have put something in it.
                let _ = std::fs::remove_dir(&self.path);
            }
        }
    }
}

/// One version of one file of a tree: digests of where it lies, and of its size, its times and, where that is told, its
/// content. Nobody can set a ctime: two files of one size and mtime are two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    path: Root256,
    content: Root256,
}

impl Version {
    pub(super) fn of(path: &TreePath, entry: &Entry) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&entry.size.0.to_le_bytes()).update(&entry.mtime.0.to_le_bytes());
        hasher.update(&entry.ctime.0.to_le_bytes()).update(entry.hash.as_ref().map_or(&[], |hash| &hash.0[..]));
        let path = digest_of(path);
        Self { path, content: Root256(*hasher.finalize().as_bytes()) }
    }

    /// The same version, to be told from that of another session; 0 is this one.
    fn twin(self, number: u64) -> Self {
        if number == 0 {
            return self;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.content.0).update(&number.to_le_bytes());
        Self { content: Root256(*hasher.finalize().as_bytes()), ..self }
    }

    /// What its part is called: any byte may be in a path, and few in an object's name.
    fn name(self) -> ObjectName {
        name_of(self.path)
    }
}

fn digest_of(path: &TreePath) -> Root256 {
    Root256(*blake3::hash(path.as_bytes()).as_bytes())
}

fn name_of(path: Root256) -> ObjectName {
    ObjectName::new(path.to_string().as_bytes()).expect("hexadecimal digits are a name")
}

/// A version that one session has to itself.
#[derive(Debug)]
pub(super) struct Claim {
    tree: Arc<Tree>,
    version: Version,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.tree.lock_arriving().remove(&self.version);
    }
}

/// The private directory came or went; nobody else is to take that for a change.
fn put_time_back(dir: BorrowedFd<'_>, before: &FileStat) {
    let Ok(now) = fstat(dir) else { return };
    if (now.st_mtime, now.st_mtime_nsec) != (before.st_mtime, before.st_mtime_nsec) {
        // Of another user's directory it stays as it is.
        let mtime = TimeSpec::new(before.st_mtime, before.st_mtime_nsec);
        let _ = futimens(dir, &TimeSpec::UTIME_OMIT, &mtime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_cut_to_the_units_of_the_file_system_is_the_same() {
        let check = |tick: i64, found: i64, wanted: i64, expected: bool| {
            let made = Made { tick, ..Made::default() };
            assert_eq!(made.is_time(FileTime(found), FileTime(wanted)), expected, "{tick} {found} {wanted}");
        };
        check(1, 5, 5, true);
        check(1, 5, 6, false);
        check(1_000_000_000, 7_000_000_000, 7_999_999_999, true);
        check(1_000_000_000, 7_000_000_000, 8_000_000_000, false);
        check(1_000_000_000, 7_000_000_001, 7_000_000_001, true);
        check(2_000_000_000, 6_000_000_000, 7_999_999_999, true);
        check(100, -200, -101, true);
        let (past, future) = (FileTime::new(-9_999_999_999, 5).0, FileTime::new(9_999_999_999, 5).0);
        check(1, past, past, false);
        check(1, future, future, false);
        check(2_000_000_000, past, past, false);
        check(0, 5, 5, true);
        check(0, 8_000_000_000, 8_765_432_100, false);
    }

    /// A dry run once took times of whole seconds for what the file system had made of others.
    #[test]
    fn where_nothing_may_be_tried_a_file_systems_own_times_show_its_units() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut stat = nix::sys::stat::stat(dir.path()).expect("there");
        let mut check = |ctime_nsec: i64, mtime_nsec: i64, expected: i64| {
            (stat.st_ctime, stat.st_ctime_nsec, stat.st_mtime, stat.st_mtime_nsec) = (8, ctime_nsec, 6, mtime_nsec);
            assert_eq!(tick_shown(&stat), expected, "{ctime_nsec} {mtime_nsec}");
        };
        check(123_456_789, 0, 1);
        check(0, 123_456_789, 1);
        check(123_456_700, 0, 100);
        check(120_000_000, 0, 10_000_000);
        check(0, 0, 2_000_000_000);
    }
}
