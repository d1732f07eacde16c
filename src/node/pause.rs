//! Peers that an operator has paused: links to them are closed, and none is made, until they are resumed or the node
//! starts again. What they had on order goes to other links, as when they die.

use std::fmt::Write as _;
use std::pin::pin;

use super::line::{Caller, Slot};
use super::site::{Site, lock};
use crate::config::RoleConfig;
use crate::control::{HeldBy, LinkState, PeerState, PeerStatus};
use crate::units::{LinkId, NodeName};

/// Why a link to a paused peer ends.
pub(super) const REASON: &str = "its peer is paused";

impl Site {
    /// Pauses or resumes a peer; whether that changed anything. An error: it is none of the node's peers, which it
    /// names.
    pub(super) fn set_paused(&self, peer: &str, paused: bool) -> Result<bool, String> {
        let peers = self.peer_names();
        let Some(name) = peers.iter().find(|name| name.as_str() == peer) else {
            return Err(self.no_such(peer, &peers));
        };
        let changed = match paused {
            true => lock(&self.paused).insert(name.clone()),
            false => lock(&self.paused).remove(name),
        };
        if changed {
            tracing::info!(peer, "{}", if paused { "paused" } else { "resumed" });
        }
        if paused {
            self.links_to(name).into_iter().for_each(|link| self.engine().close_link(link, REASON));
        } else {
            self.resumed.notify_waiters();
        }
        Ok(changed)
    }

    pub(super) fn is_paused(&self, peer: &NodeName) -> bool {
        lock(&self.paused).contains(peer)
    }

    pub(super) fn is_slot_paused(&self, slot: &Slot) -> bool {
        match &self.config().role {
            RoleConfig::Exchange(exchange) => self.is_paused(&exchange.peers[slot.peer].name),
            RoleConfig::Trader(_) => false,
        }
    }

    /// Returns when the peer of `slot` is not paused, or the config no longer has the slot.
    pub(super) async fn until_resumed(&self, slot: &Slot) {
        loop {
            let mut resumed = pin!(self.resumed.notified());
            resumed.as_mut().enable();
            if slot.is_retired() || !self.is_slot_paused(slot) {
                return;
            }
            resumed.await;
        }
    }

    /// What `status` says of a peer that is paused.
    pub(super) fn tell_paused(&self, peer: &mut PeerStatus) {
        if !lock(&self.paused).iter().any(|name| name.as_str() == peer.name) {
            return;
        }
        let why = format!("paused; to go on: supersyncctl resume {}", peer.name);
        for link in peer.links.iter_mut().filter(|link| link.state != LinkState::Up) {
            (link.state, link.held_by) = (LinkState::Down, HeldBy::Paused);
            (link.note, link.why) = (Some("paused".into()), why.clone());
        }
        (peer.state, peer.note) = (PeerState::Paused, Some(why));
    }

    /// Those of the config, or those that have dialed this node.
    fn peer_names(&self) -> Vec<NodeName> {
        match &self.config().role {
            RoleConfig::Exchange(exchange) => exchange.peers.iter().map(|peer| peer.name.clone()).collect(),
            RoleConfig::Trader(_) => lock(&self.callers).keys().cloned().collect(),
        }
    }

    fn links_to(&self, peer: &NodeName) -> Vec<LinkId> {
        match &self.config().role {
            RoleConfig::Exchange(exchange) => {
                let slots = lock(&self.slots);
                let of_peer = slots.iter().filter(|slot| exchange.peers[slot.peer].name == *peer);
                of_peer.filter_map(|slot| slot.link()).collect()
            }
            RoleConfig::Trader(_) => lock(&self.callers).get(peer).map_or_else(Vec::new, Caller::links),
        }
    }

    fn no_such(&self, peer: &str, peers: &[NodeName]) -> String {
        let mut text = format!("{} has no peer {peer:?}", self.config().name);
        match peers {
            [] => text += "; nobody has dialed it yet",
            peers => {
                let names: Vec<&str> = peers.iter().map(NodeName::as_str).collect();
                write!(text, "; its peers are: {}", names.join(", "))
                    .expect("a String takes all that is written to it");
            }
        }
        text
    }
}
