//! What a node says of itself: its answers to the control socket.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::site::{Command, FIRST, SECOND, Site, lock};
use crate::config::{Config, RoleConfig, Trader};
use crate::control::{
    ConfigState, Figures, HeldBy, Inventory, InventoryObject, LinkStatus, ObjectFilter, ObjectState, ObjectStatus,
    PeerStatus, ReloadReport, Role, SpoolStatus, State, Status, Totals,
};
use crate::limits;
use crate::transfer::{self, Flow};
use crate::units::{ByteCount, ObjectName};

impl Site {
    /// One line for the service manager.
    pub(super) fn headline(&self) -> String {
        let status = self.status();
        let percent = (status.have.bytes * 100).checked_div(status.want.bytes).unwrap_or(100);
        let links: u32 = status.peers.iter().map(|peer| peer.links_up).sum();
        format!("{}: {percent} % here, {links} links up", status.state)
    }

    pub(super) fn status(&self) -> Status {
        let config = self.config();
        let uptime = self.engine().now().0;
        let peers = self.peers();
        let sums = self.engine().traffic();
        let facts = self.engine().with_flows(|flows, _| {
            let totals = [flows.at(FIRST).totals(), flows.at(SECOND).totals()];
            let spool = [flows.at(FIRST).spool(), flows.at(SECOND).spool()];
            let complete = flows.iter().all(Flow::is_complete);
            (totals, spool, complete, flows.at(FIRST).was_told_whole())
        });
        let ([first, second], spool, complete, told_whole) = facts;
        let want_known = self.has_begun() && (told_whole || !wants_what_is_told(&config));
        let is_trader = matches!(config.role, RoleConfig::Trader(_));
        let (want, have, serving, arriving) = if is_trader {
            let want = Totals { objects: first.objects, bytes: first.bytes.0 };
            let have = Totals { objects: first.present, bytes: first.present_bytes.0 };
            let serving = Totals { objects: second.present, bytes: second.present_bytes.0 };
            (want, have, serving, first.arriving_bytes.0)
        } else {
            let held = Totals {
                objects: first.present + second.present,
                bytes: first.present_bytes.0 + second.present_bytes.0,
            };
            (Totals::default(), Totals::default(), held, first.arriving_bytes.0 + second.arriving_bytes.0)
        };
        let rate_in: f64 = peers.iter().map(|peer| peer.rate_in).sum();
        let rate_out: f64 = peers.iter().map(|peer| peer.rate_out).sum();
        let capacity = capacity_in(peers.iter().flat_map(|peer| &peer.links));
        let left = want.bytes.saturating_sub(have.bytes + arriving);
        let links_up: u32 = peers.iter().map(|peer| peer.links_up).sum();
        let state = match (self.is_ending(), complete && want_known, links_up) {
            (true, _, _) => State::Draining,
            (false, true, _) => State::Synced,
            (false, false, 0) => State::Waiting,
            (false, false, _) => State::Syncing,
        };
        let message = lock(&self.reload_problem).clone();
        // What an exchange passed on of an object that was never whole here was not thrown away.
        let verified: u64 = peers.iter().map(|peer| peer.verified).sum();
        let kept = verified.max(self.engine().committed_bytes() + arriving);
        Status {
            schema: Status::SCHEMA.into(),
            node: config.name.to_string(),
            role: if is_trader { Role::Trader } else { Role::Exchange },
            state,
            uptime_seconds: uptime.as_secs(),
            version: env!("CARGO_PKG_VERSION").into(),
            engine: self.engine().driver().to_string(),
            config: ConfigState { ok: message.is_none(), message },
            want,
            want_known,
            have,
            serving,
            failed: first.failed + second.failed,
            rate_in,
            rate_out,
            capacity_in: capacity,
            eta_seconds: eta(left, capacity),
            peers,
            clients: self.clients(),
            spool: spool_status(spool, first.present + second.present),
            bytes_received: sums.bytes_in,
            bytes_sent: sums.bytes_out,
            payload_received: sums.payload_in,
            payload_sent: sums.payload_out,
            payload_discarded: sums.payload_in.saturating_sub(kept),
            problems: self.problems(),
        }
    }

    fn object_states(&self, filter: ObjectFilter, limit: usize) -> Vec<ObjectStatus> {
        let config = self.config();
        let sources = match &config.role {
            RoleConfig::Trader(_) => vec![None],
            RoleConfig::Exchange(exchange) => exchange.peers.iter().map(|peer| Some(peer.name.to_string())).collect(),
        };
        let mut objects: Vec<ObjectStatus> = self.engine().with_flows(|flows, _| {
            let flows = flows.iter().zip(&sources);
            let all = flows.flat_map(|(flow, from)| flow.objects().map(move |object| (from, object)));
            let told = all.map(|(from, (name, state, expected, problem))| {
                let (state, size, have) = match state {
                    transfer::ObjectState::Absent => (ObjectState::Missing, expected.map(|size| size.0), 0),
                    transfer::ObjectState::Requested { .. } => (ObjectState::Waiting, expected.map(|size| size.0), 0),
                    transfer::ObjectState::Arriving { size, written, .. }
                    | transfer::ObjectState::Gathering { size, verified: written, .. } => {
                        (ObjectState::Arriving, Some(size.0), written.0)
                    }
                    transfer::ObjectState::Growing { written, .. } => (ObjectState::Arriving, None, written.0),
                    transfer::ObjectState::Whole { size } => (ObjectState::Arriving, Some(size.0), size.0),
                    transfer::ObjectState::Present { size } => (ObjectState::Done, Some(size.0), size.0),
                };
                let state = if problem.is_some() && have == 0 { ObjectState::Failed } else { state };
                let note = problem.map(ToString::to_string);
                ObjectStatus { name: name.to_string(), size, state, from: from.clone(), have_bytes: have, note }
            });
            told.filter(|object| filter.admits(object.state)).take(limit).collect()
        });
        objects.sort_unstable_by(|a: &ObjectStatus, b| (&a.name, &a.from).cmp(&(&b.name, &b.from)));
        objects
    }
}

impl crate::control::Site for Handle {
    fn status(&self) -> Status {
        self.0.status()
    }

    fn objects(&self, filter: ObjectFilter, limit: usize) -> Vec<ObjectStatus> {
        self.0.object_states(filter, limit)
    }

    fn inventory(&self, offset: usize, limit: usize) -> Option<Inventory> {
        let config = self.0.config();
        let RoleConfig::Trader(Trader { store: Some(store), .. }) = &config.role else { return None };
        let (whole, objects) = self.0.engine().with_flows(|flows, _| {
            let flow = flows.at(FIRST);
            let object = |(name, content): (&ObjectName, &transfer::Content)| InventoryObject {
                name: name.to_string(),
                size: content.size.0,
                root: content.root.to_string(),
            };
            (flow.has_whole_log(), flow.known().skip(offset).take(limit).map(object).collect())
        });
        Some(Inventory { remote: store.remote.clone(), whole, objects, truncated: false })
    }

    fn peers(&self) -> Vec<PeerStatus> {
        self.0.peers()
    }

    fn figures(&self) -> Figures {
        self.0.figures()
    }

    fn stuck(&self) -> Option<String> {
        self.0.stuck()
    }

    fn unready(&self) -> Option<String> {
        self.0.unready()
    }

    fn check(&self) -> oneshot::Receiver<()> {
        let (done, checked) = oneshot::channel();
        if self.0.is_trader() && !self.0.stores.is_empty() {
            lock(&self.0.check_waiters).push(done);
            self.0.checks_wanted.notify_one();
        }
        checked
    }

    fn reload(&self) -> oneshot::Receiver<Result<ReloadReport, String>> {
        let (done, reloaded) = oneshot::channel();
        let _ = self.1.send(Command::Reload(done));
        reloaded
    }

    fn set_paused(&self, peer: &str, paused: bool) -> Result<bool, String> {
        self.0.set_paused(peer, paused)
    }

    fn drain(&self) {
        self.0.drain_wanted.notify_one();
    }
}

/// A node as the control socket sees it, and the way to its thread.
pub(super) struct Handle(pub(super) Arc<Site>, pub(super) mpsc::UnboundedSender<Command>);

/// What an exchange holds for both of its peers; each has a part of the room.
pub(super) fn spool_status(parts: [Option<(ByteCount, ByteCount)>; 2], objects: u64) -> Option<SpoolStatus> {
    let [(a, max_a), (b, max_b)] = [parts[0]?, parts[1]?];
    Some(SpoolStatus { bytes: a.0 + b.0, max_bytes: max_a.0 + max_b.0, objects })
}

/// Whether a node fetches whatever the far trader has.
pub(super) fn wants_what_is_told(config: &Config) -> bool {
    config.blocks && matches!(&config.role, RoleConfig::Trader(trader) if trader.goes_by_what_is_told())
}

/// What the links that bring something in are measured to carry in all.
fn capacity_in<'a>(links: impl Iterator<Item = &'a LinkStatus>) -> Option<f64> {
    let brings =
        |link: &&LinkStatus| link.rate_in > limits::RATE_IDLE || (link.orders > 0 && link.held_by == HeldBy::Network);
    let sum: f64 = links.filter(brings).filter_map(|link| link.capacity_in).sum();
    (sum >= 1.0).then_some(sum)
}

/// Seconds to the last of `left` bytes; `None` where nothing moves, or nothing is left.
fn eta(left: u64, capacity: Option<f64>) -> Option<f64> {
    capacity.filter(|_| left > 0).map(|capacity| left as f64 / capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(rate_in: f64, orders: u64, held_by: HeldBy, capacity: f64) -> LinkStatus {
        LinkStatus { rate_in, orders, held_by, capacity_in: Some(capacity), ..LinkStatus::default() }
    }

    #[test]
    fn time_left_is_reckoned_with_what_the_links_that_bring_something_in_can_do() {
        let links = [
            link(1.2e6, 10, HeldBy::Network, 1.5e6),
            // It has just begun: what it brought in the last second says nothing.
            link(0.0, 10, HeldBy::Network, 1.5e6),
            // These have capacity, and it is of no use now.
            link(0.0, 10, HeldBy::Relay, 1.5e6),
            link(0.0, 0, HeldBy::Nothing, 1.5e6),
        ];
        assert_eq!(eta(6_000_000, capacity_in(links.iter())), Some(2.0));
        assert_eq!(eta(0, capacity_in(links.iter())), None);
        assert_eq!(eta(6_000_000, capacity_in(links[2..].iter())), None, "nothing moves");
    }
}
