//! Directories of the tree that is written, open to make entries in them.
//!
//! Entries of a directory come together, so that a few that are held open spare nearly all resolving. A directory that
//! does not let its owner in is opened up until the end, when it gets the mode that it is to have.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat};
use nix::unistd::geteuid;

use super::super::resolve::{self, Links};
use super::shared::Tree;
use super::walk::kind_of;
use crate::limits;

/// What is open of one tree's directories. Paths are those below the tree.
#[derive(Debug)]
pub(super) struct Directories {
    /// The one that was used last comes first.
    open: VecDeque<(Box<[u8]>, Arc<OwnedFd>)>,
    /// The modes that directories had before they were opened up.
    loosened: BTreeMap<Vec<u8>, u32>,
    /// The one that was last seen to be on the tree's own file system.
    reachable: Option<Box<[u8]>>,
    tree: Arc<Tree>,
}

impl Directories {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        Self { open: VecDeque::new(), loosened: BTreeMap::new(), reachable: None, tree }
    }

    /// The directory `path`, to resolve names in it; it cannot be listed through this.
    pub(super) fn open(&mut self, path: &[u8]) -> nix::Result<Arc<OwnedFd>> {
        if let Some(at) = self.open.iter().position(|(held, _)| **held == *path) {
            if at > 0
                && let Some(used) = self.open.remove(at)
            {
                self.open.push_front(used);
            }
            return Ok(Arc::clone(&self.open[0].1));
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let directory = Arc::new(resolve::open_beneath(self.tree.dir()?, path, flags, Links::Refuse)?);
        self.hold(path, &directory);
        Ok(directory)
    }

    /// The same, making what is missing of it.
    pub(super) fn make(&mut self, path: &[u8]) -> nix::Result<Arc<OwnedFd>> {
        match self.open(path) {
            Err(Errno::ENOENT) => {}
            outcome => return outcome,
        }
        let made = resolve::make_directory(self.tree.dir()?, path, Links::Refuse, &mut Vec::new());
        let made = match made {
            Err(Errno::EACCES) if self.loosen(path) => {
                resolve::make_directory(self.tree.dir()?, path, Links::Refuse, &mut Vec::new())?
            }
            outcome => outcome?,
        };
        let directory = Arc::new(made);
        self.hold(path, &directory);
        Ok(directory)
    }

    /// Whether something else is mounted on the way to the directory `path`, which files cannot be renamed into.
    pub(super) fn is_mounted(&mut self, path: &[u8]) -> nix::Result<bool> {
        if self.reachable.as_deref() == Some(path) {
            return Ok(false);
        }
        let opened = resolve::open_beneath(self.tree.dir()?, path, OFlag::O_PATH, Links::RefuseMounts);
        if opened.is_ok() {
            self.reachable = Some(path.into());
        }
        Ok(opened.is_err_and(|errno| errno == Errno::EXDEV))
    }

    fn hold(&mut self, path: &[u8], directory: &Arc<OwnedFd>) {
        self.open.truncate(limits::DIRECTORIES_OPEN_MAX - 1);
        self.open.push_front((path.into(), Arc::clone(directory)));
    }

    /// Closes all of them: something was put in place of a directory, or a batch is over.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }

    /// Lets the owner into the directory `path` and those on the way to it; whether that changed anything.
    pub(super) fn loosen(&mut self, path: &[u8]) -> bool {
        let mut changed = false;
        let above = resolve::directories_of(path).map(<[u8]>::to_vec);
        let way: Vec<_> = std::iter::once(Vec::new()).chain(above).chain([path.to_vec()]).collect();
        for path in way {
            changed |= self.loosen_one(&path).unwrap_or(false);
        }
        changed
    }

    fn loosen_one(&mut self, path: &[u8]) -> nix::Result<bool> {
        let (above, name) = resolve::split(path);
        let directory = resolve::open_beneath(self.tree.dir()?, above, OFlag::O_PATH, Links::Refuse)?;
        let name = if name.is_empty() { b"." } else { name };
        let stat = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let is_dir = kind_of(&stat) == nix::sys::stat::SFlag::S_IFDIR;
        if !is_dir || stat.st_mode & 0o700 == 0o700 || stat.st_uid != geteuid().as_raw() {
            return Ok(false);
        }
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777 | 0o700);
        fchmodat(&directory, name, mode, FchmodatFlags::NoFollowSymlink)?;
        self.loosened.entry(path.to_vec()).or_insert(stat.st_mode & 0o7777);
        Ok(true)
    }

    /// The directory `path` has the mode that it is to have, be it the one that it was opened up with.
    pub(super) fn settle(&mut self, path: &[u8]) {
        self.loosened.remove(path);
    }

    /// Gives directories that were opened up the modes that they had; those that were given another since keep it.
    pub(super) fn tighten(&mut self) {
        // The deepest first, so that each can still be reached.
        for (path, mode) in std::mem::take(&mut self.loosened).into_iter().rev() {
            let (above, name) = resolve::split(&path);
            let name = if name.is_empty() { b"." } else { name };
            let Ok(dir) = self.tree.dir() else { return };
            let Ok(directory) = resolve::open_beneath(dir, above, OFlag::O_PATH, Links::Refuse) else { continue };
            let Ok(stat) = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            if stat.st_mode & 0o7777 == mode | 0o700 {
                // Whoever removed it has no use for its mode.
                let mode = Mode::from_bits_truncate(mode);
                let _ = fchmodat(directory.as_fd(), name, mode, FchmodatFlags::NoFollowSymlink);
            }
        }
    }
}

impl Drop for Directories {
    fn drop(&mut self) {
        self.tighten();
    }
}
