//! The socket file: whose it is, who may use it, and that it goes away with its daemon.
//!
//! A lock file beside the socket says whose it is: its lock ends with the process that holds it, however
//! that ends, so a socket file under a free lock is a dead daemon's and is replaced. The socket appears
//! under its name only when its mode is set and it listens: no client ever meets a half-made one. Where somebody has
//! removed it from under its daemon, it is made again ([`Served`]).

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::limits;

/// Who may talk to the daemon: its own user and its group.
const SOCKET_MODE: u32 = 0o660;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another daemon answers there.
    #[error(
        "{} belongs to a running supersyncd: stop that one first, or give this node another path in [control]",
        socket.display()
    )]
    AlreadyServed {
        /// The socket's path.
        socket: PathBuf,
    },
    /// Something that is not a socket has the name; it is not ours to remove.
    #[error("{} exists and is not a socket: remove it, or give this node another path in [control]", socket.display())]
    NotASocket {
        /// The path that was to be the socket's.
        socket: PathBuf,
    },
    /// The file system or the kernel refused.
    #[error("cannot make the control socket {}: {step}: {source}", socket.display())]
    Bind {
        /// The socket's path.
        socket: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address of the page cannot be had.
    #[error(
        "cannot listen on {address} (control.http): {source}; {}, or give this node another address in [control]",
        listen_hint(.source)
    )]
    Listen {
        /// The address of the config.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A control socket that is bound and listens, not yet served. Dropping it removes the file.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
    /// Device and inode of the file: whatever else has its name is not ours.
    file: (u64, u64),
    /// Held for as long as the socket stands.
    lock: File,
}

impl ControlSocket {
    /// Binds `path` with mode 0660. A dead daemon's socket is replaced, a living one's is refused; missing
    /// parent directories are made. Needs no runtime.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |step| move |source| ControlError::Bind { socket: path.to_owned(), step, source };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("make its directory"))?;
        }
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(beside(path, ".lock"))
            .map_err(failed("open its lock file"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ControlError::AlreadyServed { socket: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed("lock its lock file")(source)),
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ControlError::NotASocket { socket: path.to_owned() });
            }
            Ok(_) if is_listened_on(path).map_err(failed("ask who listens there"))? => {
                return Err(ControlError::AlreadyServed { socket: path.to_owned() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at what is there")(error)),
        }
        let fresh = beside(path, ".new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("clear the way")(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(failed("bind"))?;
        let place = || {
            fs::set_permissions(&fresh, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed("set its mode"))?;
            listener.set_nonblocking(true).map_err(failed("make it non-blocking"))?;
            let file = identity(&fresh).map_err(failed("look at it"))?;
            fs::rename(&fresh, path).map_err(failed("put it in its place"))?;
            Ok(file)
        };
        let placed = place().inspect_err(|_| drop(fs::remove_file(&fresh)));
        Ok(Self { file: placed?, path: path.to_owned(), listener, lock })
    }

    /// Whether its file has its name.
    fn stands(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its listener on the runtime of this thread.
    fn listener(&self) -> Result<tokio::net::UnixListener, ControlError> {
        let failed = |source| ControlError::Bind { socket: self.path.clone(), step: "hand it to the runtime", source };
        self.listener.try_clone().and_then(tokio::net::UnixListener::from_std).map_err(failed)
    }

    /// On the runtime of this thread.
    pub(super) fn served(self) -> Result<Served, ControlError> {
        let mut ticks = interval(limits::CONTROL_LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Served { listener: self.listener()?, socket: self, ticks, is_lost: false })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The lock file stays: removing it would let two daemons hold "the" lock on two files.
        if self.stands() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A control socket whose daemon looks from time to time whether it still stands.
pub(super) struct Served {
    socket: ControlSocket,
    listener: tokio::net::UnixListener,
    ticks: Interval,
    /// It does not stand and cannot be made again, which was said.
    is_lost: bool,
}

impl Served {
    /// The next connection. Nothing is lost where it is dropped before it ends.
    pub(super) async fn accept(&mut self) -> io::Result<tokio::net::UnixStream> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => return Ok(accepted?.0),
                _ = self.ticks.tick() => self.look(),
            }
        }
    }

    fn look(&mut self) {
        let restored = self.restore();
        let is_lost = restored.is_err();
        match restored {
            Ok(false) => {}
            Ok(true) => tracing::warn!("{} was gone, and is there again", self.socket.path.display()),
            Err(error) if !self.is_lost => tracing::warn!("the control socket is gone, and is tried again: {error}"),
            Err(_) => {}
        }
        self.is_lost = is_lost;
    }

    /// Makes the socket again where it does not stand; whether it did so. Another daemon's in its place is left alone.
    fn restore(&mut self) -> Result<bool, ControlError> {
        if self.socket.stands() {
            return Ok(false);
        }
        // Or it would be in the way of its own successor.
        let _ = self.socket.lock.unlock();
        let socket = ControlSocket::bind(&self.socket.path)?;
        self.listener = socket.listener()?;
        self.socket = socket;
        Ok(true)
    }
}

/// What a person can do where an address cannot be listened on.
pub fn listen_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "`ss -ltnp` shows who has the port: stop that one",
        io::ErrorKind::AddrNotAvailable => "`ip address` shows what this host has: write one of these",
        io::ErrorKind::PermissionDenied => "choose a port from 1024 on",
        _ => "choose another address",
    }
}

/// Device and inode of what has a name.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// `path` with `suffix` after its last component.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether a connection to `path` is accepted. Never blocks: a full backlog (EAGAIN) has a listener too.
///
/// # Errors
/// It is no socket, or may not be used.
pub fn is_listened_on(path: &Path) -> io::Result<bool> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A daemon whose socket file was removed could not be told anything any more, not even to end; and one whose place
    /// another had taken removed that one's at its end.
    #[test]
    fn a_socket_that_was_removed_is_made_again_where_no_other_has_its_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/control.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut served = ControlSocket::bind(&path).expect("free").served().expect("on the runtime");
            assert!(!served.restore().expect("it stands"));
            for gone in ["run/control.sock", "run"].map(|gone| dir.path().join(gone)) {
                if gone.is_dir() { fs::remove_dir_all(&gone) } else { fs::remove_file(&gone) }.expect("removed");
                assert!(served.restore().expect("there is nobody else"));
                UnixStream::connect(&path).expect("it listens");
                served.accept().await.expect("it came here");
            }
            fs::remove_dir_all(dir.path().join("run")).expect("removed");
            let other = ControlSocket::bind(&path).expect("free");
            for _ in 0..2 {
                let error = served.restore().expect_err("it is another's");
                assert!(matches!(error, ControlError::AlreadyServed { .. }), "{error}");
            }
            drop(served);
            UnixStream::connect(&path).expect("the other still listens");
            drop(other);
            assert!(!path.exists());
        });
    }
}
