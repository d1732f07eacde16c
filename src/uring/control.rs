//! The control plane's sockets: listening and dialing on the `tokio-uring` runtime, or on tokio's own where there is no
//! ring.
//!
//! The only place that names `tokio_uring`, so that it can be replaced in a day. It has no time-outs and no `select!`
//! over its operations: an accept that is dropped may swallow a connection, so each runs to its end in a task of its
//! own. What comes out is a plain descriptor, which the data plane's drivers own from then on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use tokio::io::unix::AsyncFd;
use tokio::task::{LocalSet, spawn_local};

use super::driver::DriverKind;

/// Runs `task` to its end on a runtime of this thread. It is told of which kind that is, `Uring` or `Blocking`:
/// [`Listener`] and [`connect`] of the same kind work on it, and so do tokio's timers, signals and unix sockets.
///
/// # Errors
/// The kernel gives no ring, or no descriptors.
pub fn block_on<F: Future>(kind: DriverKind, task: impl FnOnce(DriverKind) -> F) -> io::Result<F::Output> {
    if kind != DriverKind::Blocking {
        match tokio_uring::Runtime::new(&tokio_uring::builder()) {
            Ok(runtime) => return Ok(runtime.block_on(task(DriverKind::Uring))),
            Err(error) if kind == DriverKind::UringOrBlocking && error.raw_os_error() == Some(libc::ENOMEM) => {}
            Err(error) => return Err(error),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(LocalSet::new().block_on(&runtime, task(DriverKind::Blocking)))
}

/// Starts a task on the runtime of this thread.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(spawn_local(task));
}

/// A listening socket.
pub struct Listener {
    socket: Listening,
    address: SocketAddr,
}

enum Listening {
    Uring(tokio_uring::net::TcpListener),
    Blocking(tokio::net::TcpListener),
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish()
    }
}

impl Listener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(kind: DriverKind, address: SocketAddr) -> io::Result<Self> {
        // The standard library sets SO_REUSEADDR, so that a restarted node has its port at once.
        Self::adopt(kind, std::net::TcpListener::bind(address)?)
    }

    /// Goes on with a socket that listens already, perhaps since a node of the other kind had it.
    ///
    /// # Errors
    /// It has no address.
    pub fn adopt(kind: DriverKind, socket: std::net::TcpListener) -> io::Result<Self> {
        let address = socket.local_addr()?;
        // A ring waits where tokio must not.
        socket.set_nonblocking(kind == DriverKind::Blocking)?;
        let socket = match kind {
            DriverKind::Blocking => Listening::Blocking(tokio::net::TcpListener::from_std(socket)?),
            _ => Listening::Uring(tokio_uring::net::TcpListener::from_std(socket)),
        };
        Ok(Self { socket, address })
    }

    /// Where it listens: with the port that the kernel chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection and where it comes from. Must not be dropped before it is done.
    ///
    /// # Errors
    /// What the system says; most pass by themselves.
    pub async fn accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        match &self.socket {
            Listening::Uring(socket) => {
                let (stream, address) = socket.accept().await?;
                Ok((share(&stream)?, address))
            }
            Listening::Blocking(socket) => {
                let (stream, address) = socket.accept().await?;
                Ok((stream.into_std()?.into(), address))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            // SAFETY: the socket is open for as long as `self` is, which the result borrows.
            Listening::Uring(socket) => unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) },
            Listening::Blocking(socket) => socket.as_fd(),
        }
    }
}

/// The descriptors that the service manager has handed to this process (sd_listen_fds(3)); none the second time.
///
/// # Errors
/// They are not there: the environment says something that is not so.
pub fn inherited() -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let descriptors = sd_notify::listen_fds()?;
    // SAFETY: whoever set LISTEN_PID to the id of this process opened these descriptors for it, before it began, and
    // each of them was found open just now. They are taken once, so that nothing else owns them.
    Ok(descriptors.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }).collect())
}

/// Connects to `address`, from `bind` if given.
///
/// # Errors
/// What the system says.
pub async fn connect(kind: DriverKind, address: SocketAddr, bind: Option<IpAddr>) -> io::Result<OwnedFd> {
    // tokio-uring cannot bind before it connects.
    if kind != DriverKind::Blocking && bind.is_none() {
        return share(&tokio_uring::net::TcpStream::connect(address).await?);
    }
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    if let Some(bind) = bind {
        socket.bind(SocketAddr::new(bind, 0))?;
    }
    Ok(socket.connect(address).await?.into_std()?.into())
}

/// A descriptor of the same socket that outlives `socket`, which tokio-uring does not part with.
fn share(socket: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: `socket` is borrowed for the whole of this function, so its descriptor stays open while it is used.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }.try_clone_to_owned()
}

/// Says when a descriptor can be read.
#[derive(Debug)]
pub struct Readiness(AsyncFd<OwnedFd>);

impl Readiness {
    /// Of a pollable descriptor; a copy of the one that is read from will do.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open and the same descriptor from here until the `AsyncFd` drops it.
        let registered = unsafe { AsyncFd::register(descriptor) };
        registered.map(Self).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Waits until it can be read, which the caller must then do until nothing is left.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut ready| ready.clear_ready())
    }
}
