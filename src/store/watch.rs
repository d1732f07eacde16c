//! Says when a root is worth scanning again.
//!
//! inotify(7) watches every directory of the root but the private one. It can lose events, and files change while
//! a scan runs, so that an event is only a reason to scan, never a fact about an object. Driven by readiness of
//! [`Watch::fd`]: call [`Watch::drain`], and again while it says `more`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::stat::{SFlag, fstatat};

use super::error::StoreError;
use super::part::errno_of;
use super::resolve::{self, Links};
use super::root::Root;
use super::scan::is_marker;
use crate::limits;

/// What happened since the last time it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// Objects may have come, gone or changed: scan.
    pub objects: bool,
    /// Events were lost; everything may have changed, and watches were set anew.
    pub overflow: bool,
    /// There is more to drain.
    pub more: bool,
}

/// Watches a root's directories.
#[derive(Debug)]
pub struct Watch {
    path: Arc<Path>,
    root: OwnedFd,
    inotify: Inotify,
    /// The directory behind each watch, relative to the root.
    directories: BTreeMap<i32, Watched>,
}

#[derive(Debug)]
struct Watched {
    path: Vec<u8>,
    descriptor: WatchDescriptor,
}

impl Watch {
    /// Watches every directory there is. [`StoreError::WatchLimit`] where the system or
    /// [`limits::WATCHED_DIRECTORIES_MAX`] allows fewer: the caller then scans from time to time instead.
    pub fn new(root: &Root) -> Result<Self, StoreError> {
        let shared = root.shared();
        let io = |errno| StoreError::io(&shared.path, None, "watch the directory", errno);
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(|errno| match errno {
            Errno::EMFILE => StoreError::WatchLimit {
                root: shared.path.to_path_buf(),
                directories: 0,
                setting: "the sysctl fs.inotify.max_user_instances",
            },
            _ => io(errno),
        })?;
        let dir = shared.dir.try_clone().map_err(|error| io(errno_of(&error)))?;
        let mut watch = Self { path: Arc::clone(&shared.path), root: dir, inotify, directories: BTreeMap::new() };
        watch.add_tree(Vec::new())?;
        Ok(watch)
    }

    /// Readable when there is something to drain.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// How many directories are watched.
    pub fn directories(&self) -> usize {
        self.directories.len()
    }

    /// Takes the events that are there, without waiting, and watches new directories. After an error the watch is
    /// incomplete: drop it and scan from time to time.
    pub fn drain(&mut self) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        for _ in 0..limits::WATCH_READS_MAX {
            match self.inotify.read_events() {
                Err(Errno::EAGAIN) => return Ok(changed),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.io(errno)),
                Ok(events) => {
                    for event in events {
                        self.handle_event(&event, &mut changed)?;
                    }
                }
            }
        }
        changed.more = true;
        Ok(changed)
    }

    fn handle_event(&mut self, event: &InotifyEvent, changed: &mut Changed) -> Result<(), StoreError> {
        let mask = event.mask;
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            *changed = Changed { objects: true, overflow: true, ..*changed };
            return self.start_over();
        }
        if mask.contains(AddWatchFlags::IN_IGNORED) {
            self.directories.remove(&event.wd.as_raw());
            return Ok(());
        }
        let (Some(watched), Some(entry)) = (self.directories.get(&event.wd.as_raw()), &event.name) else {
            return Ok(());
        };
        let entry = entry.as_encoded_bytes();
        if watched.path.is_empty() && entry == limits::PRIVATE_DIR.as_bytes() {
            return Ok(());
        }
        let full = resolve::join(&watched.path, entry);
        if mask.contains(AddWatchFlags::IN_ISDIR) {
            changed.objects = true;
            if mask.contains(AddWatchFlags::IN_MOVED_FROM) {
                self.forget_tree(&full);
            } else if mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO) {
                return self.add_tree(full);
            }
        } else if !is_marker(entry) {
            // A file that was just made is not whole before its writer closes it; one that was linked here is.
            changed.objects |= !mask.contains(AddWatchFlags::IN_CREATE) || self.is_linked(&full);
        }
        Ok(())
    }

    /// Watches what there is now, and nothing else.
    fn start_over(&mut self) -> Result<(), StoreError> {
        let before = std::mem::take(&mut self.directories);
        self.add_tree(Vec::new())?;
        for (number, watched) in before {
            if !self.directories.contains_key(&number) {
                // A directory that is gone has no watch any more.
                let _ = self.inotify.rm_watch(watched.descriptor);
            }
        }
        Ok(())
    }

    /// Watches a directory and all below it. Each is watched before it is listed, so that none is missed.
    fn add_tree(&mut self, path: Vec<u8>) -> Result<(), StoreError> {
        let mut pending = vec![path];
        while let Some(path) = pending.pop() {
            match self.add_directory(&path, &mut pending) {
                // Gone, replaced or not ours to read: the scan says so where it matters.
                Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(Errno::EACCES) if !path.is_empty() => {}
                Err(Errno::ENOSPC) => return Err(self.limit("the sysctl fs.inotify.max_user_watches")),
                Err(errno) => return Err(self.io(errno)),
            }
            if self.directories.len() + pending.len() > limits::WATCHED_DIRECTORIES_MAX {
                return Err(self.limit("nothing: this is the most that a node watches"));
            }
        }
        Ok(())
    }

    fn add_directory(&mut self, path: &[u8], pending: &mut Vec<Vec<u8>>) -> nix::Result<()> {
        let directory = resolve::open_directory(self.root.as_fd(), path, Links::Refuse)?;
        let mask = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_ONLYDIR;
        // By descriptor, so that it is the directory that was opened, whatever has its path by now.
        let by_descriptor = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let descriptor = self.inotify.add_watch(by_descriptor.as_str(), mask)?;
        self.directories.insert(descriptor.as_raw(), Watched { path: path.to_vec(), descriptor });
        resolve::list(directory, |directory, entry, kind| {
            let is_private = path.is_empty() && entry == limits::PRIVATE_DIR.as_bytes();
            if !is_private && kind.map_or_else(|| is_directory(directory, entry), |kind| kind == Type::Directory) {
                pending.push(resolve::join(path, entry));
            }
            if pending.len() > limits::WATCHED_DIRECTORIES_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    }

    /// Stops watching a directory that was moved away, and all below it. Where it was moved to is another event.
    fn forget_tree(&mut self, path: &[u8]) {
        let inotify = &self.inotify;
        self.directories.retain(|_, watched| {
            let below = watched.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
            if below {
                // A directory that is gone has no watch any more.
                let _ = inotify.rm_watch(watched.descriptor);
            }
            !below
        });
    }

    /// Whether a new name leads to a file that was there: it has another name, or had none and is not empty.
    fn is_linked(&self, path: &[u8]) -> bool {
        let (parent, entry) = resolve::split(path);
        resolve::open_directory(self.root.as_fd(), parent, Links::Refuse)
            .and_then(|directory| fstatat(&directory, entry, AtFlags::AT_SYMLINK_NOFOLLOW))
            .is_ok_and(|stat| stat.st_nlink > 1 || stat.st_size > 0)
    }

    fn limit(&self, setting: &'static str) -> StoreError {
        StoreError::WatchLimit { root: self.path.to_path_buf(), directories: self.directories.len(), setting }
    }

    fn io(&self, errno: Errno) -> StoreError {
        StoreError::io(&self.path, None, "watch the directory", errno)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

/// For file systems whose listing does not tell.
fn is_directory(directory: BorrowedFd<'_>, entry: &[u8]) -> bool {
    fstatat(directory, entry, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}
