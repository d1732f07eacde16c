//! A trader's listeners: who may connect, and what a connection becomes.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::AcceptConn;
use sd_notify::NotifyState;

use super::flaps::Change;
use super::site::Site;
use crate::config::{Config, Protocol, RoleConfig};
use crate::engine::Places;
use crate::limits;
use crate::uring::DriverKind;
use crate::uring::control::{self, Listener};
use crate::uring::socket::{self, Options};

/// What the service manager calls the sockets that it keeps for us.
const KEPT_NAME: &str = "listen";

/// Listening sockets that the service manager keeps while the node is restarted, so that whoever connects meanwhile
/// waits and is not refused (sd_notify(3), FDSTORE). The default is without one that does so.
#[derive(Debug, Default)]
pub(super) struct Kept {
    sockets: Vec<TcpListener>,
    has_keeper: bool,
}

impl Kept {
    /// What it kept, or was told to listen on (systemd.socket(5)), for a node of `config`. What is kept at an address
    /// that is not listened on any more is given up, here and by the service manager: to it another one may lie in the
    /// way, as 0.0.0.0 does to an address of its port.
    pub(super) fn take(config: &Config) -> Self {
        let inherited = control::inherited().unwrap_or_else(|error| {
            tracing::warn!("what the service manager hands over is not there: {error}");
            Vec::new()
        });
        let listens = |socket: &OwnedFd| getsockopt(socket, AcceptConn).unwrap_or(false);
        let mut sockets: Vec<_> = inherited.into_iter().filter(listens).map(TcpListener::from).collect();
        let wanted: Vec<SocketAddr> = match &config.role {
            RoleConfig::Trader(trader) => trader.listen.iter().map(|listen| listen.address).collect(),
            RoleConfig::Exchange(_) => Vec::new(),
        };
        let count = sockets.len();
        sockets.retain(|socket| socket.local_addr().is_ok_and(|address| wanted.contains(&address)));
        if sockets.len() < count {
            have_kept(&sockets);
        }
        Self { sockets, has_keeper: true }
    }

    /// Listens on `address`, with the socket that was kept if there is one.
    pub(super) fn listener(&mut self, kind: DriverKind, address: SocketAddr) -> std::io::Result<Listener> {
        let is_there = |socket: &TcpListener| socket.local_addr().is_ok_and(|there| there == address);
        match self.sockets.iter().position(is_there) {
            Some(at) => Listener::adopt(kind, self.sockets.swap_remove(at)),
            None => bind(kind, address),
        }
    }

    /// Has these kept from now on, and nothing that was kept before.
    pub(super) fn keep(self, listeners: &[Listener]) {
        if self.has_keeper {
            have_kept(listeners);
        }
    }
}

/// Has the service manager keep these, and nothing that it kept before.
fn have_kept(listeners: &[impl AsFd]) {
    let name = NotifyState::FdName(KEPT_NAME);
    let sockets: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let mut kept = sd_notify::notify(&[NotifyState::FdStoreRemove, name.clone()]);
    if !sockets.is_empty() {
        kept = kept.and_then(|()| sd_notify::notify_with_fds(&[NotifyState::FdStore, name], &sockets));
    }
    if let Err(error) = kept {
        tracing::warn!("peers will be refused while this node is restarted: {error}");
    }
}

/// Listens on `address`. After a crash the kernel may need a moment to take back what the rings of the dead process had
/// in flight, its accept among them: until then the address is in use by nobody. So may the service manager, to give up
/// what it kept.
fn bind(kind: DriverKind, address: SocketAddr) -> std::io::Result<Listener> {
    let by = Instant::now() + limits::BIND_WITHIN;
    loop {
        match Listener::bind(kind, address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < by => {
                std::thread::sleep(limits::BIND_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Accepts on `listener`, the `index`-th of the config, for as long as the node lives.
pub(super) fn start(site: Arc<Site>, listener: Listener, index: usize) {
    let listener = Rc::new(listener);
    control::spawn(async move {
        let mut is_told = false;
        loop {
            match listener.accept().await {
                Ok((socket, address)) => {
                    is_told = false;
                    take(&site, socket, address, index);
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(listener = %listener.address(), "cannot accept: {error}");
                    }
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                }
            }
        }
    });
}

fn take(site: &Arc<Site>, socket: OwnedFd, address: SocketAddr, index: usize) {
    let Some(listen) = site.listen(index) else { return };
    let refuse = |why: String| {
        let place = (String::new(), address.ip().to_string(), None);
        site.tell(place, Change::Refusal(format!("refused: {why}")));
    };
    if !listen.admits(address.ip()) {
        return refuse(format!("not in `allow` of [[listen]] {}", listen.address));
    }
    // The engine counts what sessions have.
    if listen.protocol != Protocol::Session
        && let Some(why) = Places::LINKS.refusal(site.engine().link_count(), site.engine().link_count_of(address.ip()))
    {
        return refuse(why);
    }
    match listen.protocol {
        Protocol::Duplex => {
            let peer = listen.peer.as_deref().and_then(|name| name.parse().ok());
            site.add_link(socket, address, peer);
        }
        Protocol::Named => site.add_client(socket, address),
        Protocol::Session => {
            let options = Options { congestion: site.config().congestion.clone(), ..Options::default() };
            if let Err(error) = socket::apply(&socket, &options) {
                tracing::warn!(%address, "the socket keeps the system's settings: {error}");
            }
            let modules = site.modules(address.ip());
            if let Err(error) = site.engine().serve_session(socket, address, Arc::new(modules)) {
                refuse(error.to_string());
            }
        }
    }
}
