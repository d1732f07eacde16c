//! The socket file: whose it is, who may use it, and that it goes away with its daemon.
//!
//! A lock file beside the socket says whose it is: its lock ends with the process that holds it, however
//! that ends, so a socket file under a free lock is a dead daemon's and is replaced. The socket appears
//! under its name only when its mode is set and it listens: no client ever meets a half-made one.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

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
        "cannot listen on {address} (control.http): {source}; `ss -ltnp` shows who has port {port}: stop that one, or give \
         this node another address in [control]",
        port = address.port()
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
    /// Held for as long as the socket stands.
    _lock: File,
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
        let placed = fs::set_permissions(&fresh, fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(failed("set its mode"))
            .and_then(|()| listener.set_nonblocking(true).map_err(failed("make it non-blocking")))
            .and_then(|()| fs::rename(&fresh, path).map_err(failed("put it in its place")));
        if let Err(error) = placed {
            let _ = fs::remove_file(&fresh);
            return Err(error);
        }
        Ok(Self { path: path.to_owned(), listener, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listening descriptor, for the runtime; the file stays this value's.
    pub(super) fn listener(&self) -> Result<UnixListener, ControlError> {
        self.listener.try_clone().map_err(|source| self.failed("duplicate its descriptor", source))
    }

    pub(super) fn failed(&self, step: &'static str, source: io::Error) -> ControlError {
        ControlError::Bind { socket: self.path.clone(), step, source }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The lock is still held, so the file is this daemon's. The lock file stays: removing it would let
        // two daemons hold "the" lock on two files.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(socket = %self.path.display(), %error, "control socket was gone already");
        }
    }
}

/// `path` with `suffix` after its last component.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether a connection to `path` is accepted. Never blocks: a full backlog (EAGAIN) has a listener too.
fn is_listened_on(path: &Path) -> io::Result<bool> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
