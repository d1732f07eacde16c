//! What is in a tree, batch after batch, as it is going to be sent.
//!
//! A directory is listed, then those in it, one at a time, so that entries of a directory come together and each after
//! its directory. Within one they are in the order of their inodes, which is the order that a disk reads them in
//! fastest. Names are resolved in the directory that is open; no symbolic link is followed, but on the way to where a
//! walk begins.

use std::collections::HashMap;
use std::collections::hash_map;
use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::super::error::StoreError;
use super::super::part::errno_of;
use super::super::resolve::{self, Links};
use super::super::source::Stamp;
use super::error::{RefusedPath, TreeError};
use super::found::{Found, Place, Top};
use super::owners::Names;
use super::rules::{Rules, Scope};
use super::xattrs;
use crate::limits;
use crate::units::{ByteCount, Entry, Kind, PathError, TreePath};

const PRIVATE_NAME: &[u8] = limits::PRIVATE_DIR.as_bytes();

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkSource {
    /// A directory that exists; symbolic links in its path are followed.
    pub root: PathBuf,
    /// What below it is sent; the empty path is the directory itself, which is to say its contents. Symbolic links on
    /// the way are followed as long as they stay below the root, and at its end where it is contents that are sent.
    pub start: TreePath,
    /// What `start` is called in the transfer; for contents that land at the top, the empty path.
    pub lands: TreePath,
}

/// What is told of each entry beside its kind, size, mode and times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalkOptions {
    /// The numbers of user and group ...
    pub owner: bool,
    /// ... and their names.
    pub user_names: bool,
    /// Extended attributes; each file and directory is opened for them.
    pub xattrs: bool,
    /// BLAKE3 of each file; all of it is read for that.
    pub hash: bool,
    /// Whether a file's content could be read: each is opened for that. For a dry run.
    pub tries: bool,
}

/// An entry that is not sent, and why.
#[derive(Debug)]
pub struct Skipped {
    /// Where it lies in the transfer.
    pub path: TreePath,
    /// Why.
    pub reason: SkipReason,
}

/// Why an entry is not sent.
#[derive(Debug, thiserror::Error)]
pub enum SkipReason {
    /// A device, a socket or a pipe.
    #[error("it is a {0}")]
    Special(&'static str),
    /// Unfinished files, perhaps those of others.
    #[error("it is a private directory of SuperSync")]
    Private,
    /// A source before this one has something of that path.
    #[error("a source before has it, too")]
    Twice,
    /// It, or all below it, cannot be read.
    #[error("cannot {operation} it: {cause}")]
    Unreadable {
        /// What was tried, as a verb.
        operation: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// A directory that the receiver was told of, with all that was in it.
    #[error("it was moved, removed or replaced before all in it was listed")]
    Gone,
    /// An entry of this directory has a path that cannot be sent.
    #[error("an entry of it cannot be named: {0}")]
    Path(PathError),
    /// The entry is sent, without the extended attributes, which are too long.
    #[error("its extended attributes have {0} bytes, more than the {max} that can be sent", max = limits::XATTR_BYTES_MAX)]
    Xattrs(usize),
    /// The file was changed while it was hashed.
    #[error("{0}")]
    Changed(Box<TreeError>),
    /// The directory's `.supersyncignore` is not all used.
    #[error("its {file} is not all used: {0}", file = limits::IGNORE_FILE)]
    Rules(String),
}

impl SkipReason {
    /// Whether something that should have been sent was not: nothing may then be deleted for not having been listed.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Special(_) | Self::Private | Self::Twice | Self::Xattrs(_))
    }
}

/// A walk through trees that are to be sent. Driven by [`Walk::next_batch`]; all of it blocks.
#[derive(Debug)]
pub struct Walk {
    options: WalkOptions,
    rules: Rules,
    is_privileged: bool,
    /// In reverse order.
    sources: Vec<(Arc<Top>, WalkSource)>,
    /// Directories that were seen and not listed yet; the last one is next.
    pending: Vec<Pending>,
    current: Option<Listing>,
    /// Regular files of which other names are still to come, and how many.
    linked: HashMap<(u64, u64), (TreePath, u64)>,
    names: Names,
    /// Digests of the paths that were sent, and whether they are directories; where there are several sources.
    sent: Option<HashMap<u64, bool>>,
    digest: RandomState,
    skipped: Vec<Skipped>,
    stop: Arc<AtomicBool>,
}

/// Opens the directory that a source lies in, or whose contents it is; the source as it is called there.
fn open(source: WalkSource) -> Result<(Arc<Top>, WalkSource), TreeError> {
    let private =
        || TreeError::Refused { root: source.root.clone(), path: source.start.clone(), reason: RefusedPath::Reserved };
    // Opening it tells what is wrong with a root that cannot be resolved.
    let resolved = source.root.canonicalize().unwrap_or_else(|_| source.root.clone());
    let above_start = resolved.components().map(|component| component.as_os_str().as_bytes());
    if above_start.chain(source.start.as_bytes().split(|&b| b == b'/')).any(|name| name == PRIVATE_NAME) {
        return Err(private());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let not_directory = |root| TreeError::Store(StoreError::NotDirectory { root });
    let root = nix::fcntl::open(&source.root, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ENOTDIR => not_directory(source.root.clone()),
        _ => StoreError::io(&source.root, None, "open the directory", errno).into(),
    })?;
    let (above, name) = if source.lands.is_top() { (source.start.as_bytes(), &[][..]) } else { source.start.split() };
    let below = source.root.join(OsStr::from_bytes(above));
    let dir = resolve::open_directory(root.as_fd(), above, Links::Follow).map_err(|errno| match errno {
        Errno::EXDEV => TreeError::LeadsOut { root: source.root.clone(), path: source.start.clone() },
        Errno::ENOTDIR => not_directory(below.clone()),
        _ => TreeError::of(&source.root, &source.start, "open", errno),
    })?;
    // A symbolic link on the way may lead where no name does.
    if is_private(root.as_fd(), dir.as_fd())
        .map_err(|errno| TreeError::of(&source.root, &source.start, "open", errno))?
    {
        return Err(private());
    }
    let start = TreePath::new(name).expect("a component of a path is a path");
    let top = Arc::new(Top::new(if above.is_empty() { &source.root } else { &below }, dir));
    Ok((top, WalkSource { start, ..source }))
}

/// Whether a directory beneath `root` is a private one, or lies in one.
fn is_private(root: BorrowedFd<'_>, directory: BorrowedFd<'_>) -> nix::Result<bool> {
    let id_of = |stat: FileStat| (stat.st_dev, stat.st_ino);
    let root = id_of(fstat(root)?);
    let mut directory = directory.try_clone_to_owned().map_err(|error| errno_of(&error))?;
    let mut id = id_of(fstat(&directory)?);
    while id != root {
        let above = openat(&directory, "..", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        match fstatat(&above, PRIVATE_NAME, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if id_of(stat) == id => return Ok(true),
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        let below = std::mem::replace(&mut id, id_of(fstat(&above)?));
        if below == id {
            // It was moved away meanwhile, and this is the top of all.
            return Err(Errno::ENOENT);
        }
        directory = above;
    }
    Ok(false)
}

/// A directory to be listed.
#[derive(Debug)]
struct Pending {
    place: Arc<Place>,
    path: TreePath,
    scope: Scope,
}

/// The directory that is being listed.
#[derive(Debug)]
struct Listing {
    place: Arc<Place>,
    path: TreePath,
    scope: Scope,
    directory: OwnedFd,
    entries: Entries,
    /// What was read of it and not looked at yet, in reverse order.
    ordered: Vec<(u64, Box<[u8]>)>,
}

struct Entries(OwningIter);

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entries({})", self.0.as_raw_fd())
    }
}

impl Walk {
    /// Opens the roots of `sources`, which are walked one after the other.
    pub fn new(sources: Vec<WalkSource>, rules: Rules, options: WalkOptions) -> Result<Self, TreeError> {
        let is_several = sources.len() > 1;
        let sources = sources.into_iter().rev().map(open).collect::<Result<_, TreeError>>()?;
        Ok(Self {
            options,
            rules,
            is_privileged: nix::unistd::geteuid().is_root(),
            sources,
            pending: Vec::new(),
            current: None,
            linked: HashMap::new(),
            names: Names::default(),
            sent: is_several.then(HashMap::new),
            digest: RandomState::new(),
            skipped: Vec::new(),
            stop: Arc::default(),
        })
    }

    /// Nobody asks for the rest once this is true: it ends there, in the midst of a batch and of a file that is hashed.
    pub fn stop_when(&mut self, stop: Arc<AtomicBool>) {
        self.stop = stop;
    }

    /// The next entries, `max` at most. It is at its end where there are none and nothing was skipped; it stops before
    /// when [`limits::SKIPPED_MAX`] were, until they are [taken](Walk::take_skipped). After an error the walk goes on
    /// with what it can.
    pub fn next_batch(&mut self, max: usize) -> Result<Vec<Found>, TreeError> {
        let mut batch = Vec::new();
        while batch.len() < max && self.skipped.len() < limits::SKIPPED_MAX && !self.stop.load(Ordering::Acquire) {
            if let Some(mut listing) = self.current.take() {
                match listing.next() {
                    Ok(Some(name)) => {
                        let found = self.look(&listing, &name);
                        self.current = Some(listing);
                        batch.extend(found?);
                    }
                    Ok(None) => {}
                    Err(errno) => self.unlisted(&listing.path, "list", errno),
                }
            } else if let Some(directory) = self.pending.pop() {
                self.enter(directory)?;
            } else if let Some((top, source)) = self.sources.pop() {
                batch.extend(self.begin(&top, &source)?);
            } else {
                break;
            }
        }
        Ok(batch)
    }

    /// What was not sent since this was last asked.
    pub fn take_skipped(&mut self) -> Vec<Skipped> {
        std::mem::take(&mut self.skipped)
    }

    /// The first entry of a source.
    fn begin(&mut self, top: &Arc<Top>, source: &WalkSource) -> Result<Option<Found>, TreeError> {
        let scope = Scope::new(&self.rules);
        let place = Arc::new(Place { top: Arc::clone(top), path: Box::default() });
        let io = |errno| TreeError::of(&top.path, &source.start, "look at", errno);
        if source.start.is_top() {
            let stat = fstat(&top.dir).map_err(io)?;
            let entry = self.entry(source.lands.clone(), Kind::Directory, &stat);
            self.pending.push(Pending { place: Arc::clone(&place), path: source.lands.clone(), scope });
            if self.sent_before(&source.lands).is_some() {
                return Ok(None);
            }
            self.note_sent(&source.lands, true);
            let mut found = Found { entry, place, name: None, stamp: Stamp::of(&stat) };
            let dir = top.dir.try_clone().map_err(|error| io(errno_of(&error)))?;
            self.add_xattrs(&mut found, || Ok(dir));
            return Ok(Some(found));
        }
        let name = source.start.as_bytes();
        let stat = fstatat(&top.dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(io)?;
        let other = (source.lands.name() != name).then(|| name.into());
        if scope.excludes(source.lands.as_bytes(), kind_of(&stat) == SFlag::S_IFDIR) {
            return Ok(None);
        }
        self.found(&place, top.dir.as_fd(), source.lands.clone(), other, &scope, &stat)
    }

    /// Makes a directory the one that is listed.
    fn enter(&mut self, Pending { place, path, scope }: Pending) -> Result<(), TreeError> {
        let opened = resolve::open_directory(place.top.dir.as_fd(), &place.path, Links::Refuse);
        let listing = opened.and_then(|directory| {
            let handle = directory.try_clone().map_err(|error| errno_of(&error))?;
            Ok((directory, Entries(Dir::from_fd(handle)?.into_iter())))
        });
        let (directory, entries) = match listing {
            Ok(opened) => opened,
            Err(errno @ (Errno::EMFILE | Errno::ENFILE)) => {
                return Err(TreeError::of(&place.top.path, &path, "open the directory", errno));
            }
            Err(errno) => {
                self.unlisted(&path, "open", errno);
                return Ok(());
            }
        };
        let (scope, wrong) = scope.enter(directory.as_fd(), path.as_bytes());
        if let Some(wrong) = wrong {
            self.skip(&path, SkipReason::Rules(wrong));
        }
        self.current = Some(Listing { place, path, scope, directory, entries, ordered: Vec::new() });
        Ok(())
    }

    /// Looks at one entry of the directory that is listed.
    fn look(&mut self, listing: &Listing, name: &[u8]) -> Result<Option<Found>, TreeError> {
        let path = match listing.path.join(name) {
            Ok(path) => path,
            Err(reason) => {
                self.skip(&listing.path, SkipReason::Path(reason));
                return Ok(None);
            }
        };
        let stat = match fstatat(&listing.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(errno) => {
                self.unreadable(&path, "look at", errno);
                return Ok(None);
            }
        };
        let is_dir = kind_of(&stat) == SFlag::S_IFDIR;
        // The receiver must know what the directory leaves out, so that it does not delete that.
        let is_told = !is_dir && name == limits::IGNORE_FILE.as_bytes();
        if !is_told && listing.scope.excludes(path.as_bytes(), is_dir) {
            return Ok(None);
        }
        if is_dir && name == PRIVATE_NAME {
            self.skip(&path, SkipReason::Private);
            return Ok(None);
        }
        self.found(&listing.place, listing.directory.as_fd(), path, None, &listing.scope, &stat)
    }

    fn found(
        &mut self,
        place: &Arc<Place>,
        directory: BorrowedFd<'_>,
        path: TreePath,
        other: Option<Box<[u8]>>,
        scope: &Scope,
        stat: &FileStat,
    ) -> Result<Option<Found>, TreeError> {
        let name = other.as_deref().unwrap_or_else(|| path.name());
        let is_dir = kind_of(stat) == SFlag::S_IFDIR;
        let before = self.sent_before(&path);
        if before.is_some_and(|was_dir| !was_dir || !is_dir) {
            self.skip(&path, SkipReason::Twice);
            return Ok(None);
        }
        let kind = match kind_of(stat) {
            SFlag::S_IFREG => match self.link(stat, &path, &place.top)? {
                Some(first) => Kind::HardLink(first),
                None => Kind::File,
            },
            SFlag::S_IFDIR => {
                if self.pending.len() >= limits::OBJECTS_MAX {
                    return Err(TreeError::TooMany {
                        root: place.top.path.to_path_buf(),
                        max: limits::OBJECTS_MAX,
                        what: "directories",
                    });
                }
                let below = Place { top: Arc::clone(&place.top), path: resolve::join(&place.path, name).into() };
                self.pending.push(Pending { place: Arc::new(below), path: path.clone(), scope: scope.clone() });
                Kind::Directory
            }
            SFlag::S_IFLNK => match readlinkat(directory, name) {
                Ok(target) => Kind::Symlink(target.as_bytes().into()),
                Err(errno) => {
                    self.unreadable(&path, "read", errno);
                    return Ok(None);
                }
            },
            special => {
                self.skip(&path, SkipReason::Special(kind_name(special)));
                return Ok(None);
            }
        };
        if before.is_some() {
            // A directory is as the first source has it, with what all have in it.
            return Ok(None);
        }
        let entry = self.entry(path, kind, stat);
        let mut found = Found { entry, place: Arc::clone(place), name: other, stamp: Stamp::of(stat) };
        if self.options.xattrs && matches!(found.entry.kind, Kind::File | Kind::Directory) {
            let name = found.name.as_deref().unwrap_or_else(|| found.entry.path.name()).to_vec();
            self.add_xattrs(&mut found, || super::found::open_to_read(directory, &name));
        }
        if self.options.hash && found.entry.kind == Kind::File {
            match found.hash(&self.stop) {
                Ok(None) => return Ok(None),
                Ok(hash) => found.entry.hash = hash,
                Err(error) => {
                    // The next name of the file may be read.
                    self.linked.remove(&(stat.st_dev, stat.st_ino));
                    self.skip(&found.entry.path, SkipReason::Changed(Box::new(error)));
                    return Ok(None);
                }
            }
        }
        if self.options.tries && found.entry.kind == Kind::File && found.entry.size.0 > 0 {
            found.entry.unreadable = found.open().err().map(|error| error.to_string().into());
        }
        self.note_sent(&found.entry.path, is_dir);
        Ok(Some(found))
    }

    /// Whether an entry of that path was sent for a source before: `Some(true)` for a directory.
    fn sent_before(&self, path: &TreePath) -> Option<bool> {
        self.sent.as_ref()?.get(&self.digest.hash_one(path.as_bytes())).copied()
    }

    fn note_sent(&mut self, path: &TreePath, is_dir: bool) {
        if let Some(sent) = &mut self.sent {
            sent.insert(self.digest.hash_one(path.as_bytes()), is_dir);
        }
    }

    /// The path that a regular file was found under before; where it has more names, this one is remembered.
    fn link(&mut self, stat: &FileStat, path: &TreePath, top: &Top) -> Result<Option<TreePath>, TreeError> {
        if stat.st_nlink < 2 {
            return Ok(None);
        }
        let is_full = self.linked.len() >= limits::OBJECTS_MAX;
        match self.linked.entry((stat.st_dev, stat.st_ino)) {
            hash_map::Entry::Occupied(mut known) => {
                let (first, left) = known.get_mut();
                let first = first.clone();
                *left -= 1;
                if *left == 0 {
                    known.remove();
                }
                Ok(Some(first))
            }
            hash_map::Entry::Vacant(_) if is_full => {
                let (root, max) = (top.path.to_path_buf(), limits::OBJECTS_MAX);
                Err(TreeError::TooMany { root, max, what: "files with several names" })
            }
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert((path.clone(), stat.st_nlink - 1));
                Ok(None)
            }
        }
    }

    fn entry(&mut self, path: TreePath, kind: Kind, stat: &FileStat) -> Entry {
        let stamp = Stamp::of(stat);
        let is_file = kind == Kind::File;
        Entry {
            mode: stamp.mode.bits(),
            size: if is_file { stamp.size } else { ByteCount(0) },
            mtime: stamp.mtime,
            atime: crate::units::FileTime::new(stat.st_atime, stat.st_atime_nsec),
            ctime: stamp.ctime,
            owner: self.options.owner.then(|| self.names.owner(stat.st_uid, stat.st_gid, self.options.user_names)),
            is_sparse: is_file && (stat.st_blocks as u64).saturating_mul(512) < stamp.size.0,
            ..Entry::new(path, kind)
        }
    }

    fn add_xattrs(&mut self, found: &mut Found, open: impl FnOnce() -> nix::Result<OwnedFd>) {
        if !self.options.xattrs {
            return;
        }
        let read = open().map_err(io::Error::from).and_then(|file| xattrs::read(&File::from(file), self.is_privileged));
        match read {
            Ok(xattrs) => {
                let bytes = xattrs.iter().map(|(name, value)| encoded_bytes(name) + encoded_bytes(value) + 4).sum();
                if bytes > limits::XATTR_BYTES_MAX {
                    self.skip(&found.entry.path, SkipReason::Xattrs(bytes));
                } else {
                    found.entry.xattrs = xattrs;
                }
            }
            Err(cause) => {
                let reason = SkipReason::Unreadable { operation: "read the extended attributes of", cause };
                self.skip(&found.entry.path, reason);
            }
        }
    }

    fn unreadable(&mut self, path: &TreePath, operation: &'static str, errno: Errno) {
        if !is_gone(errno) {
            self.skip(path, SkipReason::Unreadable { operation, cause: errno.into() });
        }
    }

    /// A directory that was sent: nobody is to take it for empty.
    fn unlisted(&mut self, path: &TreePath, operation: &'static str, errno: Errno) {
        let unreadable = SkipReason::Unreadable { operation, cause: errno.into() };
        self.skip(path, if is_gone(errno) { SkipReason::Gone } else { unreadable });
    }

    fn skip(&mut self, path: &TreePath, reason: SkipReason) {
        self.skipped.push(Skipped { path: path.clone(), reason });
    }
}

impl Listing {
    /// The name of the next entry.
    fn next(&mut self) -> nix::Result<Option<Box<[u8]>>> {
        if self.ordered.is_empty() {
            for entry in self.entries.0.by_ref() {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    self.ordered.push((entry.ino(), name.into()));
                }
                if self.ordered.len() >= limits::WALK_ORDERED_MAX {
                    break;
                }
            }
            self.ordered.sort_unstable_by(|a, b| b.cmp(a));
        }
        Ok(self.ordered.pop().map(|(_, name)| name))
    }
}

/// Whether an entry was removed, or replaced by something else, since it was listed.
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)
}

/// How long a text is when NUL, `%` and `=` are percent-encoded.
fn encoded_bytes(text: &[u8]) -> usize {
    text.iter().map(|b| if matches!(b, 0 | b'%' | b'=') { 3 } else { 1 }).sum()
}

pub(super) fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

pub(super) fn kind_name(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFREG => "file",
        SFlag::S_IFDIR => "directory",
        SFlag::S_IFLNK => "symbolic link",
        SFlag::S_IFIFO => "pipe",
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFBLK => "block device",
        _ => "character device",
    }
}

/// A plain way to name what is sent: `path` is a file, a link, a directory with its name, or with a slash at its end
/// the contents of a directory.
impl WalkSource {
    /// What `path` stands for, by the rule of its last slash.
    pub fn of_path(path: &Path) -> Result<Self, PathError> {
        let bytes = path.as_os_str().as_bytes();
        let ends_in_dots = matches!(bytes.rsplit(|&b| b == b'/').next(), Some(b"." | b".." | b""));
        let (start, above) = match path.file_name() {
            Some(name) if !ends_in_dots => {
                let above = path.parent().filter(|above| !above.as_os_str().is_empty());
                (TreePath::new(name.as_bytes())?, above.unwrap_or(Path::new(".")))
            }
            _ => (TreePath::top(), path),
        };
        Ok(Self { root: above.into(), lands: start.clone(), start })
    }
}
