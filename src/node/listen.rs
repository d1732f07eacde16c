//! A trader's listeners: who may connect, and what a connection becomes.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::site::Site;
use crate::config::Protocol;
use crate::limits;
use crate::uring::control::{self, Listener};

/// How long to wait after the system could not accept, for want of descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How often an address that is in use is tried.
const BIND_AGAIN: Duration = Duration::from_millis(20);

/// Listens on `address`. After a crash the kernel may need a moment to take back what the rings of the dead process had in
/// flight, its accept among them: until then the address is in use by nobody.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<Listener> {
    let by = Instant::now() + limits::BIND_WITHIN;
    loop {
        match Listener::bind(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < by => {
                std::thread::sleep(BIND_AGAIN);
            }
            outcome => return outcome,
        }
    }
}

/// Accepts on `listener`, the `index`-th of the config, for as long as the node lives.
pub(super) fn start(site: Arc<Site>, listener: Listener, index: usize) {
    let listener = Rc::new(listener);
    control::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((socket, address)) => take(&site, socket, address, index),
                Err(error) => {
                    tracing::warn!(listener = %listener.address(), "cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    });
}

fn take(site: &Arc<Site>, socket: OwnedFd, address: SocketAddr, index: usize) {
    let Some(listen) = site.listen(index) else { return };
    if !listen.allow.iter().any(|network| network.contains(address.ip())) {
        tracing::warn!(%address, listener = %listen.address, "refused: not in `allow` of this [[listen]]");
        return;
    }
    if site.engine().link_count() >= limits::LINKS_MAX {
        tracing::warn!(%address, "refused: there are {} links already", limits::LINKS_MAX);
        return;
    }
    match listen.protocol {
        Protocol::Duplex => {
            let peer = listen.peer.as_deref().and_then(|name| name.parse().ok());
            site.add_link(socket, address, peer);
        }
        Protocol::Named => site.add_client(socket, address),
        Protocol::Session => {
            let modules = site.modules(address.ip());
            site.engine().serve_session(socket, address, Arc::new(modules));
        }
    }
}
