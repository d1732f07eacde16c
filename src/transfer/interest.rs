//! Interests: objects that are asked for by name alone, since no inventory tells of them.
//!
//! A peer that speaks the seed's grammar alone has no inventory, so an exchange that fetches from it has none to pass
//! on, and a trader that carries ranges would never learn what to ask that exchange for. A trader with a list does
//! know names. It tells an interest in each object of the list of which nothing is known, in the order of the list, to
//! one peer at a time. The exchange fetches the object whole, on demand as ever, finds out what it is made of
//! once it is whole in the spool, and tells that as news; the trader then fetches it by ranges, checked like any other.
//! So on such a path an exchange stores an object before it forwards it, while for other readers of the same
//! object it still cuts through.
//!
//! An interest stands until the object is present at the trader, and keeps it in the spool for as long: an
//! exchange fetches no more ahead than [`limits::INTERESTS_PER_PEER_MAX`] objects and its spool's room allow. Nothing
//! is repeated while it stands. Where it is answered (not now, or not by this way: the exchange's own upstream has an
//! inventory) the object is left to other peers, and the peer is asked again when the end of the list was reached,
//! after a pause: each object at most once a round.
//!
//! What an exchange found by hashing it knows for as long as the object is in the spool and no longer: its source may
//! have changed by the time it is fetched again. Ranges that are asked for by someone who knows the object from
//! elsewhere have it fetched whole in the same way, and are answered as it comes in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::action::Action;
use super::flow::{Flow, Kind};
use super::ledger::{Content, Entry};
use super::object::{Availability, ObjectState};
use super::ranges::RangeState;
use crate::limits;
use crate::units::{Generation, LinkId, NodeName, ObjectId, ObjectName, Time};

/// What a flow asks for by name, and what it found out of objects that came whole.
#[derive(Debug, Default)]
pub(super) struct Interests {
    /// Listed objects that are not here and of which nothing is known.
    unknown: BTreeSet<ObjectId>,
    /// Interests that stand: over which link of which peer.
    standing: BTreeMap<ObjectId, (LinkId, NodeName)>,
    peers: BTreeMap<NodeName, Rounds>,
    /// Interests that links are to tell to be over.
    over: BTreeMap<LinkId, VecDeque<ObjectId>>,
    /// Objects of a relay that were or are being hashed: no inventory tells of them.
    hashed: BTreeSet<ObjectId>,
}

/// How far the list has been told to a peer.
#[derive(Debug)]
struct Rounds {
    standing: usize,
    next: ObjectId,
    not_before: Time,
}

impl Interests {
    /// A link to `peer` may tell interests. An inventory, if there is one, is given a moment to come first.
    pub(super) fn attach(&mut self, peer: &NodeName, now: Time) {
        if !self.peers.contains_key(peer) {
            let rounds = Rounds { standing: 0, next: ObjectId(0), not_before: now + limits::INTERESTS_AFTER };
            self.peers.insert(peer.clone(), rounds);
        }
    }

    /// A link is gone, and its interests with it; `is_last`: it was the last one to `peer`.
    pub(super) fn detach(&mut self, link: LinkId, peer: &NodeName, is_last: bool) {
        self.over.remove(&link);
        let before = self.standing.len();
        self.standing.retain(|_, (over, _)| *over != link);
        let ended = before - self.standing.len();
        if is_last {
            self.peers.remove(peer);
        } else if let Some(rounds) = self.peers.get_mut(peer) {
            rounds.standing -= ended;
        }
    }

    /// Whether an interest in this object stands.
    pub(super) fn is_standing(&self, id: ObjectId) -> bool {
        self.standing.contains_key(&id)
    }

    /// The object's content is known, or it is here.
    pub(super) fn is_known(&mut self, id: ObjectId) {
        self.unknown.remove(&id);
    }

    fn end(&mut self, id: ObjectId) -> Option<(LinkId, NodeName)> {
        let (link, peer) = self.standing.remove(&id)?;
        if let Some(rounds) = self.peers.get_mut(&peer) {
            rounds.standing -= 1;
        }
        Some((link, peer))
    }
}

impl Flow {
    // -- who wants an object of the list -----------------------------------------------------------------------------

    /// The next object that the peer of `link` should be told an interest in, which stands from now on.
    pub fn next_interest(&mut self, link: LinkId, now: Time) -> Option<ObjectId> {
        if self.interests.unknown.is_empty() || now < self.hold.until {
            return None;
        }
        let peer = &self.blocks.carriers.get(&link)?.peer;
        let Interests { unknown, standing, peers, .. } = &mut self.interests;
        let rounds = peers.get_mut(peer)?;
        if now < rounds.not_before || rounds.standing >= limits::INTERESTS_PER_PEER_MAX {
            return None;
        }
        let objects = &self.objects;
        let is_free =
            |id: &ObjectId| objects[id.0 as usize].state() == ObjectState::Absent && !standing.contains_key(id);
        let Some(id) = unknown.range(rounds.next..).copied().find(is_free) else {
            rounds.next = ObjectId(0);
            rounds.not_before = now + limits::INTERESTS_EVERY;
            return None;
        };
        rounds.next = ObjectId(id.0 + 1);
        rounds.standing += 1;
        standing.insert(id, (link, peer.clone()));
        Some(id)
    }

    /// An interest that `link` is to tell its peer to be over.
    pub fn poll_interest_over(&mut self, link: LinkId) -> Option<ObjectId> {
        self.interests.over.get_mut(&link)?.pop_front()
    }

    /// The peer cannot fetch the object now.
    pub fn handle_interest_pending(&mut self, link: LinkId, id: ObjectId) {
        if self.interests.standing.get(&id).is_some_and(|(over, _)| *over == link) {
            self.interests.end(id);
            self.wake_carriers();
        }
    }

    /// The peer does not fetch by name: what there is its inventory tells.
    pub fn handle_interest_refused(&mut self, link: LinkId, id: ObjectId, now: Time) {
        self.handle_interest_pending(link, id);
        let Some(carrier) = self.blocks.carriers.get(&link) else { return };
        if let Some(rounds) = self.interests.peers.get_mut(&carrier.peer) {
            rounds.next = ObjectId(0);
            rounds.not_before = now + limits::INTERESTS_REFUSED;
        }
    }

    /// An object of the list is wanted, and perhaps nothing is known of it.
    pub(super) fn note_unknown(&mut self, id: ObjectId) {
        let object = self.at(id);
        let is_here = matches!(object.state(), ObjectState::Present { .. });
        if self.kind == Kind::Fetch && object.listed && object.content.is_none() && !is_here {
            self.interests.unknown.insert(id);
        }
    }

    /// No peer need fetch or keep an object for us any more.
    pub(super) fn let_go(&mut self, id: ObjectId) {
        if let Some((link, _)) = self.interests.end(id) {
            self.interests.over.entry(link).or_default().push_back(id);
            self.wakes.insert(link);
        }
    }

    // -- who fetches it for others -----------------------------------------------------------------------------------

    /// Whether objects that nobody tells of can be had whole.
    pub(super) fn fetches_whole(&self) -> bool {
        self.kind == Kind::Relay && self.fetches_by_name_only()
    }

    /// `link` wants an object of which it knows the name, until [`Flow::release_range`]. `None`: what this flow has its
    /// inventory tells.
    pub fn demand_content(&mut self, link: LinkId, name: &ObjectName, now: Time) -> Option<ObjectId> {
        if self.kind != Kind::Relay || !self.blocks.carriers.is_empty() {
            return None;
        }
        let id = self.demand(link, name, now)?;
        self.at_mut(id).add_reader(link, 1);
        self.hash_if_asked(id);
        Some(id)
    }

    /// What is to be said to somebody who wants an object by name: nothing while it is on its way, or here.
    pub fn interest_state(&self, id: ObjectId, now: Time) -> RangeState {
        let object = self.at(id);
        if !self.blocks.carriers.is_empty() {
            return RangeState::Gone;
        }
        // For want of room it waits: what holds the room goes on to those who wait.
        let is_queued = object.state() == ObjectState::Absent && object.queued && object.retry_at <= now;
        let is_moving = self.schedule.fetchers.values().any(|fetcher| fetcher.is_moving(now));
        match self.availability(id, now) {
            Availability::Pending if is_queued && is_moving && now >= self.hold.until => RangeState::Awaited,
            Availability::Pending => RangeState::Pending,
            Availability::Awaited | Availability::Ready { .. } => RangeState::Awaited,
        }
    }

    /// An object that came whole is here, and links that know objects by their content wait for it.
    pub(super) fn hash_if_asked(&mut self, id: ObjectId) {
        let object = self.at(id);
        let (is_here, generation) = (matches!(object.state(), ObjectState::Present { .. }), object.generation);
        let is_asked = || object.range_readers().next().is_some();
        let is_unknown = object.content.is_none() && self.kind == Kind::Relay && self.blocks.carriers.is_empty();
        if is_here && is_unknown && is_asked() && self.interests.hashed.insert(id) {
            self.actions.push_back(Action::Hash { id, generation });
        }
    }

    /// What an object that came whole is made of.
    pub fn handle_hashed(&mut self, id: ObjectId, generation: Generation, content: Content) {
        let is_as_long = self.at(id).state() == ObjectState::Present { size: content.size };
        if !self.is_current(id, generation) || !is_as_long || self.at(id).content.is_some() {
            return;
        }
        let object = self.at_mut(id);
        object.set_here(Some(content.root));
        let name = object.name.clone();
        self.know(Entry { name, content });
        self.interests.hashed.insert(id);
    }

    /// An object is no longer here: what was found out by hashing it goes with it. Nobody is told that it is gone, for
    /// all that is known is that it is not here.
    pub(super) fn forget_hashed(&mut self, id: ObjectId) {
        if self.interests.hashed.remove(&id) && self.at(id).content.is_some() {
            self.set_content(id, None);
            self.ledger.drop_record(&mut self.objects, id);
        }
    }

    /// An inventory tells of an object: that is what it is, whatever was found here.
    pub(super) fn is_told(&mut self, id: ObjectId) {
        self.interests.hashed.remove(&id);
    }
}
