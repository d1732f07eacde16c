//! Entries become files: each is held against what stands in its place, and what is not the same is replaced by a file
//! that is whole and dressed before it gets its name.
//!
//! The order of calls: [`Landing::new`]; for each batch [`Landing::examine`] of its entries in their order,
//! [`Landing::write`], [`Landing::hole`] and [`Landing::finish`] (or [`Landing::give_up`]) of the wanted files in any
//! order, [`Landing::end_batch`]; at last [`Landing::end`]. All of it blocks.
//!
//! A file that comes in one piece is written and renamed, no more; one that comes in several is a part that lasts, so
//! that an interrupted session goes on where it was. Small files that are to be on disk before they have their names
//! wait for one another, hard links for the end of their batch, attributes of directories for the end of all. A landing
//! that is dropped leaves what it finished and what can be gone on with.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque, hash_map};
use std::hash::{BuildHasher as _, RandomState};
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};

use super::super::part::{Part, PrivateFile, Room};
use super::super::resolve;
use super::super::root::is_same_file;
use super::super::source::Stamp;
use super::attributes::Dresser;
use super::directories::Directories;
use super::error::{RefusedPath, TreeError};
use super::found::{hash_file, open_to_read};
use super::memory::{Held, Memory};
use super::rules::Rules;
use super::shared::{Claim, Tree, Version};
use super::walk::{kind_name, kind_of};
use crate::limits;
use crate::units::{ByteCount, Entry, Kind, Offset, RangeSet, Root256, TreePath};

/// Tables of digests are taken to grow by so many bytes at a time.
const TABLES_STEP_BYTES: usize = 64 << 10;

/// How a tree lands.
#[derive(Debug, Clone, Default)]
pub struct LandingOptions {
    /// Remove what is in the directories that were sent and was not sent itself.
    pub delete: bool,
    /// Compare content (the entries' hashes) instead of times.
    pub checksum: bool,
    /// Touch nothing, only tell what would be done.
    pub dry_run: bool,
    /// Set extended attributes.
    pub xattrs: bool,
    /// Set owner and group, as far as the process may.
    pub owner: bool,
    /// By number, also where the sender told names.
    pub numeric_ids: bool,
    /// Go on with unfinished files of an earlier session.
    pub resume: bool,
    /// Flush each file before it gets its name, small ones together, and all at the end.
    pub fsync: bool,
    /// What they leave out is not deleted.
    pub rules: Rules,
}

/// What was or will be done to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing of its kind stood there.
    New,
    /// Its content.
    Content,
    /// Only mode, times, owner or extended attributes.
    Attributes,
}

/// What examining an entry came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Examined {
    /// It is here as it should be.
    Same,
    /// It is now, or will be without any further bytes.
    Made(Change),
    /// Its bytes are wanted. In a dry run they are not, and nothing more needs to be called.
    Wanted {
        /// What it is that they change.
        change: Change,
        /// Those that are here already.
        have: RangeSet,
    },
}

/// One session's entries on their way into a tree.
#[derive(Debug)]
pub struct Landing {
    pub(super) base: TreePath,
    pub(super) options: LandingOptions,
    pub(super) wanted: HashMap<u16, Wanted>,
    /// Wanted files whose parts are open, the one that was used last at the end.
    open: VecDeque<u16>,
    /// Whole files that are to be flushed before they get their names.
    pub(super) unflushed: Vec<(u16, TreePath, PrivateFile)>,
    /// Of these, what went wrong.
    pub(super) failed: Vec<(u16, TreeError)>,
    pub(super) links: Vec<(u16, Entry)>,
    /// Digests of the paths of the session's files that do not stand there: what does is no target for a link.
    pub(super) unlanded: HashMap<u64, Unlanded>,
    /// Directories of the session, as they are to be.
    pub(super) listed: BTreeMap<TreePath, Entry>,
    /// What these take, roughly.
    pub(super) listed_bytes: usize,
    pub(super) listed_held: Held,
    /// What the entries of the batch take ...
    batch_held: Held,
    /// ... and the tables of digests.
    tables_held: Held,
    /// In a dry run, directories whose rules for what is left out would be others by the time of deleting.
    pub(super) unruled: BTreeSet<TreePath>,
    /// Digests of the paths of all entries, where others are to be deleted.
    seen: HashSet<u64>,
    /// They are told apart no more than the file system does: whether in upper or lower case is the same.
    pub(super) folds: bool,
    /// Files with several names that entries were found to be already: device, inode, and a digest of the attributes.
    kept: HashMap<(u64, u64), u64>,
    digest: RandomState,
    pub(super) deleted: Vec<TreePath>,
    unjournaled: u64,
    /// Whether a file that another session is bringing in is left to it for now.
    waits: bool,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) dresser: Dresser,
    pub(super) directories: Directories,
    pub(super) tree: Arc<Tree>,
}

/// A file whose bytes are coming.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) entry: Entry,
    /// Where it lies below the tree.
    pub(super) path: TreePath,
    pub(super) here: RangeSet,
    pub(super) state: State,
    /// Some of it came in an earlier session, and was not seen since.
    pub(super) is_resumed: bool,
}

/// Why a file does not stand under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unlanded {
    /// It did not yet when its batch was looked at; once the batch is over it failed.
    Coming,
    /// It cannot.
    Failed,
}

/// What there is of a wanted file.
#[derive(Debug)]
pub(super) enum State {
    /// Nothing was written in this session.
    Waiting,
    /// All of it, written at once.
    Whole(PrivateFile),
    /// A part that lasts; closed while others are written.
    Part { claim: Claim, part: Option<Part> },
}

impl Landing {
    /// Begins to land entries below `base`, which is made with the first of them where it is missing.
    pub fn new(tree: Arc<Tree>, base: TreePath, options: LandingOptions) -> Self {
        let held = Held::new(Arc::new(Memory::new(limits::SESSIONS_BYTES_MAX)));
        Self {
            dresser: Dresser::new(options.owner, options.numeric_ids, options.xattrs, tree.made()),
            directories: Directories::new(Arc::clone(&tree)),
            base,
            wanted: HashMap::new(),
            open: VecDeque::new(),
            unflushed: Vec::new(),
            failed: Vec::new(),
            links: Vec::new(),
            unlanded: HashMap::new(),
            listed: BTreeMap::new(),
            listed_bytes: 0,
            listed_held: held.another(),
            batch_held: held.another(),
            tables_held: held,
            unruled: BTreeSet::new(),
            seen: HashSet::new(),
            folds: options.delete && tree.folds_names(),
            kept: HashMap::new(),
            digest: RandomState::new(),
            deleted: Vec::new(),
            unjournaled: 0,
            waits: true,
            stop: Arc::default(),
            options,
            tree,
        }
    }

    /// Once this is true nobody waits for more than what is here: what takes long ends early.
    pub fn stop_when(&mut self, stop: Arc<AtomicBool>) {
        self.stop = stop;
    }

    /// It remembers no more than all who share this do together. Before the first entry.
    pub fn share_memory(&mut self, memory: Arc<Memory>) {
        let held = || Held::new(Arc::clone(&memory));
        (self.listed_held, self.batch_held, self.tables_held) = (held(), held(), held());
    }

    /// Files that other sessions are bringing in are brought in beside them from now on: until then examining one whose
    /// beginning is here is [`TreeError::Busy`], and can be tried again when the other session is over.
    pub fn wait_no_more(&mut self) {
        self.waits = false;
    }

    /// Whether what comes may land at the base: nothing stands there, or a directory.
    pub fn check_base(&mut self) -> Result<(), TreeError> {
        let base = self.base.clone();
        let (above, name) = base.split();
        match self.look_in(above, name) {
            Ok(stat) if kind_of(&stat) == SFlag::S_IFDIR => Ok(()),
            Ok(stat) => {
                let root = self.tree.path().to_path_buf();
                Err(TreeError::NoDirectory { root, path: base, found: kind_name(kind_of(&stat)) })
            }
            Err(Errno::ENOENT | Errno::EACCES) => Ok(()),
            Err(errno) => Err(self.fail(&base, "look at", errno)),
        }
    }

    /// Whether what was not sent is to be removed.
    pub fn deletes(&self) -> bool {
        self.options.delete
    }

    /// Holds an entry against what stands in its place, and makes what needs no bytes: directories, symbolic links,
    /// empty files, attributes. `id` names the entry in what follows, within its batch.
    pub fn examine(&mut self, id: u16, mut entry: Entry) -> Result<Examined, TreeError> {
        entry.mode &= 0o7777;
        if !self.options.xattrs {
            entry.xattrs = Vec::new();
        }
        let path = self.place_of(&entry)?;
        let tables = 16 * self.seen.len() + 24 * self.unlanded.len() + 32 * self.kept.len();
        if !self.batch_held.take(entry.weight()) || !self.tables_held.set(tables.next_multiple_of(TABLES_STEP_BYTES)) {
            return Err(self.crowded());
        }
        if self.options.delete {
            if self.seen.len() >= limits::OBJECTS_MAX {
                return Err(self.too_many(limits::OBJECTS_MAX, "entries"));
            }
            self.seen.insert(self.seen_as(entry.path.as_bytes()));
        }
        // Another entry may be linked to it.
        let digest = matches!(entry.kind, Kind::File | Kind::HardLink(_)).then(|| self.digest_of(path.as_bytes()));
        if digest.is_some() && self.unlanded.len() >= limits::OBJECTS_MAX && !self.options.dry_run {
            return Err(self.too_many(limits::OBJECTS_MAX, "files that could not be written"));
        }
        let is_link = matches!(entry.kind, Kind::HardLink(_));
        let examined = self.examine_at(id, path, entry);
        if let Some(digest) = digest {
            self.note_examined(digest, is_link, &examined);
        }
        examined
    }

    /// Notes whether what stands under a name is what was sent.
    fn note_examined(&mut self, digest: u64, is_link: bool, examined: &Result<Examined, TreeError>) {
        let unlanded = match examined {
            Err(_) => Some(Unlanded::Failed),
            Ok(Examined::Wanted { .. }) => Some(Unlanded::Coming),
            Ok(Examined::Made(_)) if is_link => Some(Unlanded::Coming),
            Ok(_) => None,
        };
        match unlanded {
            None => drop(self.unlanded.remove(&digest)),
            // A dry run that knows of so many takes others for what stands there.
            Some(unlanded) if self.unlanded.len() < limits::OBJECTS_MAX => {
                self.unlanded.insert(digest, unlanded);
            }
            Some(_) => {}
        }
    }

    /// What stands at `path` is what was sent.
    pub(super) fn note_landed(&mut self, path: &TreePath) {
        self.unlanded.remove(&self.digest_of(path.as_bytes()));
    }

    /// Whether what stands at `path` may be linked to: what was sent, or what this session does not touch.
    pub(super) fn is_landed(&self, path: &TreePath) -> bool {
        !self.unlanded.contains_key(&self.digest_of(path.as_bytes()))
    }

    fn examine_at(&mut self, id: u16, path: TreePath, entry: Entry) -> Result<Examined, TreeError> {
        let stat = self.look(&path)?;
        self.tree.keep();
        let ruled = entry.path.parent().filter(|_| entry.path.name() == limits::IGNORE_FILE.as_bytes());
        let examined = self.examine_kind(id, path, entry, stat.as_ref())?;
        let is_other = matches!(examined, Examined::Made(Change::New | Change::Content) | Examined::Wanted { .. });
        if self.options.dry_run && self.options.delete && is_other {
            self.unruled.extend(ruled);
        }
        Ok(examined)
    }

    fn examine_kind(
        &mut self,
        id: u16,
        path: TreePath,
        entry: Entry,
        stat: Option<&FileStat>,
    ) -> Result<Examined, TreeError> {
        match &entry.kind {
            Kind::Directory => self.examine_directory(path, entry, stat),
            Kind::Symlink(target) => {
                let target = target.clone();
                self.examine_symlink(&path, &target, &entry, stat)
            }
            Kind::HardLink(target) => {
                let target = target.clone();
                self.examine_link(id, &target, entry, stat)
            }
            Kind::File => self.examine_file(id, path, entry, stat),
        }
    }

    /// Writes `slices`, one after the other, from `offset` of a wanted file on. What is there already is not written
    /// again.
    pub fn write(&mut self, id: u16, offset: Offset, slices: &[IoSlice<'_>]) -> Result<(), TreeError> {
        let length = ByteCount(slices.iter().map(|slice| slice.len() as u64).sum());
        if !self.is_lacking(id, offset, length)? {
            return Ok(());
        }
        let wanted = self.wanted.get_mut(&id).ok_or(TreeError::UnknownFile(id))?;
        if matches!(wanted.state, State::Waiting) && length == wanted.entry.size {
            let file = self.write_whole(id, slices)?;
            let wanted = self.wanted.get_mut(&id).ok_or(TreeError::UnknownFile(id))?;
            wanted.state = State::Whole(file);
            wanted.here.insert(offset, length);
            return Ok(());
        }
        self.open_part(id)?;
        let wanted = self.wanted.get_mut(&id).ok_or(TreeError::UnknownFile(id))?;
        let State::Part { part: Some(part), .. } = &wanted.state else { return Err(TreeError::UnknownFile(id)) };
        let of_store = |error| TreeError::of_store(&wanted.path, error);
        part.write_vectored_at(slices, offset).map_err(of_store)?;
        let recorded = self.tree.with_journal(|journal| {
            journal.record(part, offset, length);
            Ok(())
        });
        recorded.map_err(of_store)?;
        wanted.here.insert(offset, length);
        self.unjournaled += length.0;
        if self.unjournaled >= limits::JOURNAL_WRITE_BYTES as u64 { self.flush() } else { Ok(()) }
    }

    /// Notes that `length` bytes of a wanted file are zeros, which need not be written.
    pub fn hole(&mut self, id: u16, offset: Offset, length: ByteCount) -> Result<(), TreeError> {
        if self.is_lacking(id, offset, length)? {
            let wanted = self.wanted.get_mut(&id).ok_or(TreeError::UnknownFile(id))?;
            wanted.here.insert(offset, length);
        }
        Ok(())
    }

    /// Puts what was written to the journal, so that it survives this process: when there is nothing else to do.
    pub fn flush(&mut self) -> Result<(), TreeError> {
        self.unjournaled = 0;
        Ok(self.tree.write_journal()?)
    }

    /// Gives a wanted file up: the sender cannot send it, or what it sent is not one version. What is there of it goes.
    pub fn give_up(&mut self, id: u16) {
        let Some(wanted) = self.take_wanted(id) else { return };
        if let State::Part { claim, part } = wanted.state {
            drop(part);
            // What cannot be removed now is removed when a session of the same version is.
            let _ = self.tree.discard(&claim, wanted.entry.size);
        }
    }

    /// Where an entry lies below the tree.
    fn place_of(&self, entry: &Entry) -> Result<TreePath, TreeError> {
        let refuse =
            |reason| TreeError::Refused { root: self.tree.path().to_path_buf(), path: entry.path.clone(), reason };
        let path = self.base.append(&entry.path).map_err(|reason| refuse(reason.into()))?;
        if path.as_bytes().split(|&b| b == b'/').next() == Some(limits::PRIVATE_DIR.as_bytes()) {
            return Err(refuse(RefusedPath::Reserved));
        }
        if entry.path.is_top() && entry.kind != Kind::Directory {
            return Err(refuse(RefusedPath::Top));
        }
        Ok(path)
    }

    /// What stands at `path`, `None` where nothing does. A directory on the way that lets nobody in is opened up.
    pub(super) fn look(&mut self, path: &TreePath) -> Result<Option<FileStat>, TreeError> {
        let (above, name) = path.split();
        let mut outcome = self.look_in(above, name);
        if outcome == Err(Errno::EACCES) && !self.options.dry_run && self.directories.loosen(above) {
            outcome = self.look_in(above, name);
        }
        match outcome {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            // What is in the way would have been replaced.
            Err(Errno::ENOTDIR | Errno::ELOOP) if self.options.dry_run => Ok(None),
            Err(errno) => Err(self.fail(path, "look at", errno)),
        }
    }

    fn look_in(&mut self, above: &[u8], name: &[u8]) -> nix::Result<FileStat> {
        if name.is_empty() {
            return fstat(self.tree.dir()?);
        }
        fstatat(self.directories.open(above)?, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    fn examine_file(
        &mut self,
        id: u16,
        path: TreePath,
        entry: Entry,
        stat: Option<&FileStat>,
    ) -> Result<Examined, TreeError> {
        let change = match stat {
            None => Change::New,
            Some(stat) => match kind_of(stat) {
                SFlag::S_IFREG if self.is_same_content(&path, &entry, stat)? && self.may_keep(&entry, stat) => {
                    let _ = self.tree.discard_left(&path);
                    return self.correct(&path, &entry, stat);
                }
                SFlag::S_IFREG => Change::Content,
                SFlag::S_IFDIR => {
                    self.check_way(&path, "file")?;
                    Change::New
                }
                _ => Change::New,
            },
        };
        // Before all of it has come for nothing.
        if self.directories.is_mounted(path.split().0).unwrap_or(false) {
            return Err(self.fail(&path, "put in place", Errno::EXDEV));
        }
        if self.options.dry_run {
            if let Some(reason) = entry.unreadable {
                return Err(TreeError::Unsent { reason });
            }
            return Ok(Examined::Wanted { change, have: RangeSet::new() });
        }
        let (here, state) = self.left(&path, &entry)?;
        let (is_empty, is_resumed, have) = (entry.size.0 == 0, !here.is_empty(), here.clone());
        self.wanted.insert(id, Wanted { entry, path, here, state, is_resumed });
        if is_empty {
            self.finish(id)?;
            return Ok(Examined::Made(change));
        }
        Ok(Examined::Wanted { change, have })
    }

    /// What an earlier session left of a file, when it is gone on with.
    fn left(&self, path: &TreePath, entry: &Entry) -> Result<(RangeSet, State), TreeError> {
        let version = Version::of(path, entry);
        let of_store = |error| TreeError::of_store(path, error);
        let left = || if entry.size.0 > 0 { self.tree.left(version, entry.size).map_err(of_store) } else { Ok(None) };
        if left()?.is_none() {
            return Ok((RangeSet::new(), State::Waiting));
        }
        let Some(claim) = self.tree.claim(version) else {
            let busy = TreeError::Busy { root: self.tree.path().to_path_buf(), path: path.clone() };
            return if self.waits { Err(busy) } else { Ok((RangeSet::new(), State::Waiting)) };
        };
        // Until now another session may have thrown it away.
        let Some(left) = left()? else { return Ok((RangeSet::new(), State::Waiting)) };
        if self.options.resume {
            return Ok((left, State::Part { claim, part: None }));
        }
        self.tree.discard(&claim, entry.size).map_err(of_store)?;
        Ok((RangeSet::new(), State::Waiting))
    }

    /// Whether a regular file has the entry's bytes, as far as it is looked.
    fn is_same_content(&mut self, path: &TreePath, entry: &Entry, stat: &FileStat) -> Result<bool, TreeError> {
        let stamp = Stamp::of(stat);
        if stamp.size != entry.size {
            return Ok(false);
        }
        let (true, Some(hash)) = (self.options.checksum, entry.hash) else {
            return Ok(self.tree.made().is_time(stamp.mtime, entry.mtime));
        };
        let (above, name) = path.split();
        let directory = self.directories.open(above).map_err(|errno| self.fail(path, "open", errno))?;
        let file = match open_to_read(directory.as_fd(), name) {
            // It is replaced without having been read.
            Err(Errno::EACCES | Errno::ENOENT | Errno::ELOOP) => return Ok(false),
            opened => opened.map_err(|errno| self.fail(path, "open", errno))?,
        };
        match self.hash(&file, entry.size) {
            // Where it was stopped nothing comes of it any more.
            Ok(found) => Ok(found == Some(hash)),
            // It was cut short meanwhile.
            Err(Errno::ENODATA) => Ok(false),
            Err(errno) => Err(self.fail(path, "read", errno)),
        }
    }

    /// Whether the file that stands for an entry can be given its attributes. It cannot where it stands for another
    /// one as well, which the sender has apart from this one and with other attributes: each would take them from the
    /// other.
    fn may_keep(&mut self, entry: &Entry, stat: &FileStat) -> bool {
        if stat.st_nlink < 2 {
            return true;
        }
        let owner = entry.owner.as_ref().filter(|_| self.options.owner);
        let attributes = self.digest.hash_one((entry.mode, entry.mtime, owner, &entry.xattrs));
        let has_room = self.kept.len() < limits::OBJECTS_MAX;
        match self.kept.entry((stat.st_dev, stat.st_ino)) {
            hash_map::Entry::Occupied(other) => *other.get() == attributes,
            hash_map::Entry::Vacant(vacant) => {
                if has_room {
                    vacant.insert(attributes);
                }
                true
            }
        }
    }

    /// BLAKE3 of a file's first `size` bytes; `None` where nobody waits for it any more.
    pub(super) fn hash(&self, file: impl AsFd, size: ByteCount) -> nix::Result<Option<Root256>> {
        hash_file(size, &self.stop, |buffer, offset| {
            let mut filled = 0;
            while filled < buffer.len() {
                match nix::sys::uio::pread(&file, &mut buffer[filled..], (offset.0 + filled as u64) as i64) {
                    Ok(0) => return Err(Errno::ENODATA),
                    Ok(read) => filled += read,
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            Ok(())
        })
    }

    fn examine_link(
        &mut self,
        id: u16,
        target: &TreePath,
        entry: Entry,
        stat: Option<&FileStat>,
    ) -> Result<Examined, TreeError> {
        let first = Entry::new(target.clone(), Kind::File);
        let first_path = self.place_of(&first)?;
        let path = self.place_of(&entry)?;
        let unlanded = self.unlanded.get(&self.digest_of(first_path.as_bytes())).copied();
        if unlanded == Some(Unlanded::Failed) {
            return Err(self.no_link_target(&path, &first_path));
        }
        let first_stat = self.look(&first_path)?;
        let is_same = match (stat, &first_stat) {
            (Some(stat), Some(first)) => is_same_file(stat, first),
            _ => false,
        };
        if is_same && unlanded.is_none() {
            return Ok(Examined::Same);
        }
        let is_file = stat.is_some_and(|stat| kind_of(stat) == SFlag::S_IFREG);
        if stat.is_some_and(|stat| kind_of(stat) == SFlag::S_IFDIR) {
            self.check_way(&path, "file")?;
        }
        if !self.options.dry_run {
            self.links.push((id, entry));
        }
        Ok(Examined::Made(if is_file { Change::Content } else { Change::New }))
    }

    /// Whether some of a range lacks; an error where the file is not wanted or ends before it.
    fn is_lacking(&self, id: u16, offset: Offset, length: ByteCount) -> Result<bool, TreeError> {
        let wanted = self.wanted.get(&id).ok_or(TreeError::UnknownFile(id))?;
        if offset.0.checked_add(length.0).is_none_or(|end| end > wanted.entry.size.0) {
            let (root, path) = (self.tree.path().to_path_buf(), wanted.path.clone());
            return Err(TreeError::BeyondEnd { root, path, size: wanted.entry.size });
        }
        Ok(!wanted.here.contains(offset, length))
    }

    /// Makes sure that a wanted file is a part, and open.
    fn open_part(&mut self, id: u16) -> Result<(), TreeError> {
        let wanted = self.wanted.get(&id).ok_or(TreeError::UnknownFile(id))?;
        if matches!(wanted.state, State::Part { part: Some(_), .. }) {
            if self.open.back() != Some(&id) {
                self.open.retain(|open| *open != id);
                self.open.push_back(id);
            }
            return Ok(());
        }
        let claimed = match wanted.state {
            State::Waiting => Some(self.tree.claim_beside(Version::of(&wanted.path, &wanted.entry))),
            _ => None,
        };
        let wanted = self.wanted.get_mut(&id).ok_or(TreeError::UnknownFile(id))?;
        let size = wanted.entry.size;
        let of_store = |error| TreeError::of_store(&wanted.path, error);
        if let Some(claim) = claimed {
            // What cannot be removed now is removed the next time.
            let _ = self.tree.discard_left(&wanted.path);
            let room = if wanted.entry.is_sparse { Room::AsWritten } else { Room::Looked };
            let part = self.tree.open_part(&claim, size, room).map_err(of_store)?;
            wanted.state = State::Part { claim, part: Some(part) };
        } else if let State::Part { claim, part } = &mut wanted.state {
            // Not begun anew: some of it is reckoned with.
            *part = Some(self.tree.find_part(claim, size).map_err(of_store)?);
        }
        self.open.push_back(id);
        while self.open.len() > limits::ARRIVING_OPEN_MAX {
            if let Some(oldest) = self.open.front().copied() {
                self.close_part(oldest);
            }
        }
        Ok(())
    }

    /// Closes a part until more of it comes.
    fn close_part(&mut self, id: u16) {
        self.open.retain(|open| *open != id);
        if let Some(Wanted { state: State::Part { part, .. }, .. }) = self.wanted.get_mut(&id) {
            *part = None;
        }
    }

    /// Takes a wanted file out of the table, to finish it.
    pub(super) fn take_wanted(&mut self, id: u16) -> Option<Wanted> {
        let wanted = self.wanted.remove(&id)?;
        if matches!(wanted.state, State::Part { .. }) {
            self.open.retain(|open| *open != id);
        }
        Some(wanted)
    }

    /// Puts one back that cannot be finished yet.
    pub(super) fn put_wanted_back(&mut self, id: u16, wanted: Wanted) {
        if matches!(wanted.state, State::Part { part: Some(_), .. }) {
            self.open.push_back(id);
        }
        self.wanted.insert(id, wanted);
    }

    /// A batch is over: what of it was not finished is left as it is.
    pub(super) fn clear_batch(&mut self) {
        self.wanted.clear();
        self.open.clear();
        self.batch_held.clear();
        self.directories.close();
    }

    /// Whether the session told of an entry.
    pub(super) fn is_seen(&self, path: &[u8]) -> bool {
        self.seen.contains(&self.seen_as(path))
    }

    /// A file system that takes two spellings for one name may list what was sent by another than was sent.
    fn seen_as(&self, path: &[u8]) -> u64 {
        if self.folds {
            self.digest_of(String::from_utf8_lossy(path).to_lowercase().as_bytes())
        } else {
            self.digest_of(path)
        }
    }

    fn digest_of(&self, path: &[u8]) -> u64 {
        self.digest.hash_one(path)
    }

    pub(super) fn parent_of<'p>(&mut self, path: &'p TreePath) -> nix::Result<(Arc<OwnedFd>, &'p [u8])> {
        let (above, name) = path.split();
        Ok((self.directories.open(above)?, name))
    }

    pub(super) fn no_link_target(&self, path: &TreePath, target: &TreePath) -> TreeError {
        TreeError::NoLinkTarget { root: self.tree.path().to_path_buf(), path: path.clone(), target: target.clone() }
    }

    pub(super) fn too_many(&self, max: usize, what: &'static str) -> TreeError {
        TreeError::TooMany { root: self.tree.path().to_path_buf(), max, what }
    }

    pub(super) fn crowded(&self) -> TreeError {
        TreeError::Crowded { root: self.tree.path().to_path_buf(), max: limits::SESSIONS_BYTES_MAX }
    }

    /// What an operation on `path` below the tree came to.
    pub(super) fn fail(&self, path: &TreePath, operation: &'static str, errno: Errno) -> TreeError {
        self.fail_of_size(path, operation, ByteCount(0), errno)
    }

    pub(super) fn fail_of_size(
        &self,
        path: &TreePath,
        operation: &'static str,
        needed: ByteCount,
        errno: Errno,
    ) -> TreeError {
        match (errno, self.tree.shared()) {
            (Errno::ENOSPC | Errno::EDQUOT, Ok(shared)) => {
                let lack = shared.lack(needed, errno);
                TreeError::Full { root: self.tree.path().to_path_buf(), path: path.clone(), lack }
            }
            _ => TreeError::of(self.tree.path(), path, operation, errno),
        }
    }

    /// Whether a directory that stands at `path` can be put out of the way.
    pub(super) fn check_way(&mut self, path: &TreePath, wanted: &'static str) -> Result<(), TreeError> {
        if self.options.delete && !self.options.dry_run {
            return Ok(());
        }
        let mut is_empty = true;
        let opened =
            self.tree.dir().and_then(|dir| resolve::open_directory(dir, path.as_bytes(), resolve::Links::Refuse));
        let listed = opened.and_then(|directory| {
            resolve::list(directory, |_, _, _| {
                is_empty = false;
                std::ops::ControlFlow::Break(())
            })
        });
        listed.map_err(|errno| self.fail(path, "list", errno))?;
        if is_empty {
            return Ok(());
        }
        if self.options.delete && self.remove_in_way(path)? {
            return Ok(());
        }
        Err(TreeError::InTheWay { root: self.tree.path().to_path_buf(), path: path.clone(), wanted })
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        // What is not written is fetched again.
        let _ = self.tree.write_journal();
    }
}
