//! The end of a session: what the sender does not have goes, then directories get their attributes.
//!
//! Only directories that the sender told of are looked into; what the rules leave out stays, and so do the
//! directories that it is in. When the sender could not list all that it has, nothing goes: what was not listed may be
//! there all the same.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::Ordering;

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, syncfs, unlinkat};

use super::super::resolve::{self, Links};
use super::error::{RefusedPath, TreeError};
use super::landing::Landing;
use super::rules::Scope;
use super::walk::kind_of;
use crate::limits;
use crate::units::TreePath;

/// What the end of a session came to.
#[derive(Debug, Default)]
pub struct Ended {
    /// What was removed, or in a dry run would be; the deepest first. Paths are those of the transfer.
    pub deleted: Vec<TreePath>,
    /// What could not be removed, or given its attributes, and why; of extended attributes the first.
    pub failed: Vec<(TreePath, TreeError)>,
}

impl Ended {
    fn fail(&mut self, path: &TreePath, outcome: Result<(), TreeError>) {
        self.failed.extend(outcome.err().map(|error| (path.clone(), error)));
    }
}

/// Something to remove: a directory is looked at twice, before and after what is in it.
struct Doomed {
    path: TreePath,
    is_dir: bool,
    is_emptied: bool,
}

impl Landing {
    /// Ends the session: deletes what was not sent, if that is wanted and `is_complete` says that the sender told of
    /// all that it has, then sets the attributes of directories.
    pub fn end(&mut self, is_complete: bool) -> Ended {
        let mut ended = Ended::default();
        self.directories.close();
        if self.options.delete && is_complete {
            self.delete(&mut ended);
        }
        ended.deleted.splice(..0, std::mem::take(&mut self.deleted));
        if !self.options.dry_run {
            self.directories.close();
            let listed = std::mem::take(&mut self.listed);
            for (path, entry) in listed.iter().rev() {
                let dressed = self.dress_directory(path, entry);
                if dressed.is_ok() {
                    self.directories.settle(path.as_bytes());
                }
                ended.fail(&entry.path, dressed);
            }
            self.directories.tighten();
            ended.failed.extend(self.dresser.refused.take());
            ended.fail(&TreePath::top(), self.flush());
            if self.options.fsync
                && let Err(errno) = self.tree.dir().and_then(syncfs)
            {
                ended.fail(&TreePath::top(), Err(self.fail(&TreePath::top(), "flush", errno)));
            }
        }
        ended
    }

    /// Removes the directory at `path`, which is in the way of a file, with all that no rule keeps; whether it is gone.
    pub(super) fn remove_in_way(&mut self, path: &TreePath) -> Result<bool, TreeError> {
        let below_base = path.as_bytes().strip_prefix(self.base.as_bytes()).unwrap_or(path.as_bytes());
        let below_base = below_base.strip_prefix(b"/").unwrap_or(below_base);
        let scope = Scope::new(&self.options.rules);
        let mut ended = Ended::default();
        let mut is_gone = false;
        if let Ok(path) = TreePath::new(below_base) {
            self.remove(Doomed { path: path.clone(), is_dir: true, is_emptied: false }, &scope, &mut ended);
            is_gone = ended.deleted.last() == Some(&path);
        }
        self.deleted.append(&mut ended.deleted);
        ended.failed.pop().map_or(Ok(is_gone), |(_, error)| Err(error))
    }

    fn delete(&mut self, ended: &mut Ended) {
        // Each directory comes after the one that it is in, and its scope is within that one's.
        let directories: Vec<TreePath> = self.listed.values().map(|entry| entry.path.clone()).collect();
        let mut scopes: HashMap<TreePath, Scope> = HashMap::new();
        for path in directories {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            if self.is_unruled(&path) {
                let is_there = self.full(&path).and_then(|full| self.open_to_list(&full)).is_ok();
                // Those below it are not told of, too.
                if is_there && self.unruled.contains(&path) {
                    let root = self.tree.path().to_path_buf();
                    ended.fail(&path, Err(TreeError::Unruled { root, path: path.clone() }));
                }
                continue;
            }
            let scope = std::iter::successors(path.parent(), TreePath::parent).find_map(|above| scopes.get(&above));
            let scope = scope.cloned().unwrap_or_else(|| Scope::new(&self.options.rules));
            match self.extraneous(&path, &scope) {
                Ok((scope, doomed)) => {
                    for doomed in doomed {
                        self.remove(doomed, &scope, ended);
                    }
                    scopes.insert(path, scope);
                }
                // In a dry run it may not be there, or something that would be replaced.
                Err(TreeError::ThroughLink { .. }) if self.options.dry_run => {}
                Err(TreeError::Io { cause, .. })
                    if self.options.dry_run
                        && matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => ended.failed.push((path, error)),
            }
        }
    }

    /// Whether the rules of a directory, or of one that it is in, are not known in a dry run.
    fn is_unruled(&self, path: &TreePath) -> bool {
        let mut way = std::iter::successors(Some(path.clone()), TreePath::parent);
        !self.unruled.is_empty() && way.any(|path| self.unruled.contains(&path))
    }

    /// What in a directory was not sent and is not left out, and the rules that hold in it.
    fn extraneous(&mut self, path: &TreePath, scope: &Scope) -> Result<(Scope, Vec<Doomed>), TreeError> {
        let full = self.full(path)?;
        let directory = self.open_to_list(&full)?;
        let ignore_file = resolve::join(path.as_bytes(), limits::IGNORE_FILE.as_bytes());
        let scope = match self.is_seen(&ignore_file) {
            true => match scope.enter(directory.as_fd(), path.as_bytes()) {
                (scope, None) => scope,
                // What it may keep must not be deleted.
                (_, Some(reason)) => return Err(TreeError::Rule { line: limits::IGNORE_FILE.into(), reason }),
            },
            false => scope.clone(),
        };
        let (mut doomed, mut failed) = (Vec::new(), None);
        let listed = resolve::list(directory, |directory, name, kind| {
            let Some(is_dir) = is_directory(directory, name, kind) else { return ControlFlow::Continue(()) };
            match path.join(name) {
                Ok(path) if self.is_kept(&path, is_dir, &scope) || self.is_seen(path.as_bytes()) => {}
                Ok(path) => doomed.push(Doomed { path, is_dir, is_emptied: false }),
                Err(reason) => failed = Some(reason),
            }
            ControlFlow::Continue(())
        });
        listed.map_err(|errno| self.fail(&full, "list", errno))?;
        match failed {
            Some(reason) => Err(self.refused(path, reason.into())),
            None => Ok((scope, doomed)),
        }
    }

    /// Whether an entry is never deleted.
    fn is_kept(&self, path: &TreePath, is_dir: bool, scope: &Scope) -> bool {
        is_dir && path.name() == limits::PRIVATE_DIR.as_bytes() || scope.excludes(path.as_bytes(), is_dir)
    }

    /// Removes an entry, with all that is in it and not kept.
    fn remove(&mut self, doomed: Doomed, scope: &Scope, ended: &mut Ended) {
        let mut pending = vec![doomed];
        // Directories that something stays in.
        let mut kept: HashSet<TreePath> = HashSet::new();
        while let Some(Doomed { path, is_dir, is_emptied }) = pending.pop() {
            if is_dir && !is_emptied {
                match self.children(&path, scope) {
                    Ok((children, keeps)) => {
                        if keeps {
                            kept.insert(path.clone());
                        }
                        pending.push(Doomed { path, is_dir, is_emptied: true });
                        pending.extend(children);
                    }
                    Err(error) => {
                        kept.extend(path.parent());
                        ended.failed.push((path, error));
                    }
                }
                continue;
            }
            let removed = if kept.contains(&path) { Ok(false) } else { self.unlink(&path, is_dir) };
            match removed {
                Ok(true) => ended.deleted.push(path),
                Ok(false) => kept.extend(path.parent()),
                Err(error) => {
                    kept.extend(path.parent());
                    ended.failed.push((path, error));
                }
            }
        }
    }

    /// What in a directory goes with it, and whether something in it stays.
    fn children(&mut self, path: &TreePath, scope: &Scope) -> Result<(Vec<Doomed>, bool), TreeError> {
        let full = self.full(path)?;
        let directory = self.open_to_list(&full)?;
        let (mut children, mut keeps) = (Vec::new(), false);
        let listed = resolve::list(directory, |directory, name, kind| {
            let Some(is_dir) = is_directory(directory, name, kind) else {
                keeps = true;
                return ControlFlow::Continue(());
            };
            match path.join(name) {
                Ok(path) if !self.is_kept(&path, is_dir, scope) => {
                    children.push(Doomed { path, is_dir, is_emptied: false });
                }
                // A path that is too long cannot be told to the sender, and stays.
                _ => keeps = true,
            }
            ControlFlow::Continue(())
        });
        listed.map_err(|errno| self.fail(&full, "list", errno))?;
        Ok((children, keeps))
    }

    /// Removes one entry, a directory only when it is empty; whether it is gone.
    fn unlink(&mut self, path: &TreePath, is_dir: bool) -> Result<bool, TreeError> {
        if self.options.dry_run {
            return Ok(true);
        }
        let full = self.full(path)?;
        let flags = if is_dir { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
        let attempt = |landing: &mut Self| {
            let (directory, name) = landing.parent_of(&full)?;
            unlinkat(&directory, name, flags)
        };
        let mut removed = attempt(self);
        if removed == Err(Errno::EACCES) && self.directories.loosen(full.split().0) {
            removed = attempt(self);
        }
        match removed {
            Ok(()) => {
                if is_dir {
                    self.directories.close();
                }
                Ok(true)
            }
            Err(Errno::ENOENT) => Ok(true),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
            Err(errno) => Err(self.fail(&full, "remove", errno)),
        }
    }

    fn open_to_list(&mut self, full: &TreePath) -> Result<std::os::fd::OwnedFd, TreeError> {
        let open = |landing: &Self| resolve::open_directory(landing.tree.dir()?, full.as_bytes(), Links::Refuse);
        let mut opened = open(self);
        if matches!(opened, Err(Errno::EACCES)) && !self.options.dry_run && self.directories.loosen(full.as_bytes()) {
            opened = open(self);
        }
        opened.map_err(|errno| self.fail(full, "list", errno))
    }

    fn full(&self, path: &TreePath) -> Result<TreePath, TreeError> {
        self.base.append(path).map_err(|reason| self.refused(path, reason.into()))
    }

    fn refused(&self, path: &TreePath, reason: RefusedPath) -> TreeError {
        TreeError::Refused { root: self.tree.path().to_path_buf(), path: path.clone(), reason }
    }
}

/// Whether an entry is a directory; `None` for a device, a socket or a pipe: such is never sent, and so never deleted.
fn is_directory(directory: BorrowedFd<'_>, name: &[u8], kind: Option<Type>) -> Option<bool> {
    let kind = match kind {
        Some(kind) => kind,
        // A file system need not tell the type in its listing.
        None => match kind_of(&fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?) {
            SFlag::S_IFDIR => Type::Directory,
            SFlag::S_IFREG => Type::File,
            SFlag::S_IFLNK => Type::Symlink,
            _ => return None,
        },
    };
    matches!(kind, Type::Directory | Type::File | Type::Symlink).then_some(kind == Type::Directory)
}
