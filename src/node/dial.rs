//! An exchange's links: each is dialed for ever, with capped and jittered back-off, so that start order never matters.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rand::RngExt as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::flaps::Change;
use super::line::{Slot, SlotState};
use super::site::{Site, on_thread};
use crate::config::{LinkAddress, Remote};
use crate::limits;
use crate::uring::{DriverKind, control, socket};

/// Keeps one configured link up until `slot` is retired.
pub(super) fn start(site: Arc<Site>, slot: Arc<Slot>) {
    control::spawn(async move {
        let mut delay = limits::REDIAL_MIN;
        loop {
            site.until_resumed(&slot).await;
            if slot.is_retired() {
                return;
            }
            let began = Instant::now();
            let reason = match dial(site.runtime, &slot.address).await {
                Ok(_) if slot.is_retired() => return,
                Ok(_) if site.is_slot_paused(&slot) => continue,
                Ok((socket, address)) => {
                    let (closed, end) = oneshot::channel();
                    let link = site.add_dialed(socket, address, &slot, closed);
                    slot.set(SlotState::Up(link));
                    end.await.unwrap_or_else(|_| "the node stops".into())
                }
                Err(error) => {
                    if !slot.is_retired() && !site.is_ending() {
                        site.tell(site.place_of(&slot), Change::Failure(format!("no link: {error}")));
                    }
                    error
                }
            };
            if slot.is_retired() || site.is_ending() {
                return;
            }
            // A link that lasted is dialed again at once: its peer was restarted. One that ends as soon as it is up,
            // for what the peer sends, is not.
            if slot.was_met() && began.elapsed() >= limits::REDIAL_FORGET {
                delay = limits::REDIAL_MIN;
            }
            let wait = delay.mul_f64(rand::rng().random_range(0.5..1.0));
            slot.set(SlotState::Waiting { reason, until: Instant::now() + wait });
            sleep(wait).await;
            delay = (delay * 2).min(limits::REDIAL_MAX);
            slot.set(SlotState::Dialing);
        }
    });
}

async fn dial(kind: DriverKind, address: &LinkAddress) -> Result<(OwnedFd, SocketAddr), String> {
    match &address.remote {
        Remote::Address(remote) => connect(kind, *remote, address.bind).await,
        Remote::Host { name, port } => {
            let mut failed = Vec::new();
            for remote in resolve(name, *port, address.bind).await? {
                match connect(kind, remote, address.bind).await {
                    Err(error) => failed.push(format!("{remote}: {error}")),
                    connected => return connected,
                }
            }
            Err(failed.join("; "))
        }
    }
}

/// The addresses of a host, the best one first.
async fn resolve(name: &str, port: u16, bind: Option<IpAddr>) -> Result<Vec<SocketAddr>, String> {
    let host = name.to_owned();
    // Name servers may not answer for long.
    let found = on_thread("ss-resolver", move || (host.as_str(), port).to_socket_addrs()).await;
    let found = found.flatten().map_err(|error| format!("cannot resolve {name}: {error}"))?;
    // An address of the other family than `bind` cannot be reached from it.
    let fits = |found: &SocketAddr| bind.is_none_or(|bind| bind.is_ipv4() == found.is_ipv4());
    match found.filter(fits).take(limits::DIAL_ADDRESSES_MAX).collect::<Vec<_>>() {
        found if found.is_empty() => match bind {
            Some(bind) => Err(format!("{name} has no address that {bind}, which `bind` says, could reach")),
            None => Err(format!("{name} has no address")),
        },
        found => Ok(found),
    }
}

async fn connect(kind: DriverKind, remote: SocketAddr, bind: Option<IpAddr>) -> Result<(OwnedFd, SocketAddr), String> {
    match timeout(limits::DIAL_WITHIN, control::connect(kind, remote, bind)).await {
        Ok(Ok(socket)) => Ok((socket, remote)),
        Ok(Err(error)) => Err(match bind.filter(|_| error.kind() == ErrorKind::AddrNotAvailable) {
            Some(bind) => format!("this host does not have {bind}, which `bind` says; `ip address` shows what it has"),
            None => socket::describe(&error),
        }),
        Err(_) => Err(format!("no answer within {} s", limits::DIAL_WITHIN.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a name's addresses only the first one was dialed, which may be the one that nobody listens at.
    #[test]
    fn every_address_of_a_name_is_dialed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let at = |name: &str, port, bind| {
            let address = LinkAddress { remote: Remote::Host { name: name.into(), port }, bind };
            control::block_on(DriverKind::Blocking, |kind| dial(kind, &address)).expect("a runtime")
        };
        let (_, found) = at("localhost", port, None).expect("it listens at one of them");
        assert_eq!(found, listener.local_addr().expect("its address"));
        drop(listener);
        let error = at("localhost", port, None).expect_err("nobody listens now");
        assert!(error.contains(&format!("127.0.0.1:{port}: connection refused")), "{error}");
        let error = at("nowhere.invalid", port, None).expect_err("there is no such host");
        assert!(error.starts_with("cannot resolve nowhere.invalid: "), "{error}");
    }

    #[test]
    fn an_address_that_this_host_does_not_have_is_named() {
        let remote = Remote::Address("127.0.0.1:9".parse().expect("an address"));
        let address = LinkAddress { remote, bind: Some("203.0.113.77".parse().expect("an address")) };
        let error = control::block_on(DriverKind::Blocking, |kind| dial(kind, &address)).expect("a runtime");
        let error = error.expect_err("it is an address of documentation");
        assert_eq!(error, "this host does not have 203.0.113.77, which `bind` says; `ip address` shows what it has");
    }
}
