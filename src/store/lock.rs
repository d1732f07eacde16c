//! Whose a directory is: a lock in it that ends with the process that holds it, however that ends.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::error::StoreError;
use super::part::errno_of;
use super::resolve::{self, Links};

/// The file in the directory that is locked.
pub(super) const LOCK: &str = "lock";

/// A directory that is one process's for as long as this lives.
#[derive(Debug)]
pub struct DirectoryLock(Flock<OwnedFd>);

impl DirectoryLock {
    /// Has `directory`, which is made where it is missing. [`StoreError::Locked`] says who has it.
    pub fn take(directory: &Path) -> Result<Self, StoreError> {
        let io = |operation| move |error| StoreError::io(directory, None, operation, errno_of(&error));
        std::fs::create_dir_all(directory).map_err(io("make the directory"))?;
        let handle = File::open(directory).map_err(io("open the directory"))?;
        Self::take_in(directory, handle.as_fd())
    }

    /// Has what `path` says by a lock in `directory`.
    pub(super) fn take_in(path: &Path, directory: BorrowedFd<'_>) -> Result<Self, StoreError> {
        let io = |errno| StoreError::io(path, None, "lock the directory", errno);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT;
        let file = resolve::open_beneath(directory, LOCK.as_bytes(), flags, Links::Refuse).map_err(io)?;
        let mut note = File::from(file.try_clone().map_err(|error| io(errno_of(&error)))?);
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                // The process's number is a help for people; the lock holds without it.
                let _ = note.set_len(0).and_then(|()| writeln!(note, "{}", std::process::id()));
                Ok(Self(lock))
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let _ = note.take(32).read_to_string(&mut text);
                let holder = match text.trim().parse::<u32>() {
                    Ok(process) => format!("process {process}"),
                    Err(_) => "another process".to_owned(),
                };
                Err(StoreError::Locked { root: path.into(), holder })
            }
            Err((_, errno)) => Err(io(errno)),
        }
    }
}

impl AsFd for DirectoryLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
