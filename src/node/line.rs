//! The places of links: a connection comes and goes, its place stays, and with it what passed over all of its
//! connections.
//!
//! An exchange has a [`Slot`] for each link of its config, and its hello says which it is. A trader does not know
//! beforehand who will dial it: a link of a number that was there before has its place, whether or not the end of the
//! connection before it is noticed yet. Where no number is told, what connects from the same address as a connection
//! that has ended takes the place of that one.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::AddAssign;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::Instant;

use super::site::lock;
use crate::config::LinkAddress;
use crate::engine::Traffic;
use crate::transfer::Health;
use crate::units::{ByteCount, LinkId};

/// What passed over a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// All bytes that went out and came in.
    pub(super) traffic: Traffic,
    /// Bytes that came in over it first, and right.
    pub(super) verified: ByteCount,
    /// Of these, bytes that another link had on order before.
    pub(super) stolen: ByteCount,
    /// Bytes that were here already, or no longer wanted.
    pub(super) duplicated: ByteCount,
    /// Times that bytes came in damaged.
    pub(super) bad: u64,
}

impl From<Health> for Tally {
    fn from(health: Health) -> Self {
        let Health { verified, stolen, duplicated, bad_ranges: bad, .. } = health;
        Self { verified, stolen, duplicated, bad, traffic: Traffic::default() }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.traffic += other.traffic;
        self.verified += other.verified;
        self.stolen += other.stolen;
        self.duplicated += other.duplicated;
        self.bad += other.bad;
    }
}

/// What passed over the connections of one place that have ended.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    past: Tally,
    /// Some of what came over these is still on its way to disk, so that it is the flow that knows.
    unsettled: Vec<LinkId>,
}

impl History {
    /// A connection has ended; `damaged`: for bytes that were damaged on the way, which is told here alone.
    pub(super) fn end(&mut self, link: LinkId, damaged: bool) {
        self.past.bad += u64::from(damaged);
        self.unsettled.push(link);
    }

    /// `tally` is all that came over `link`; `false` where it was none of this place.
    pub(super) fn settle(&mut self, link: LinkId, tally: Tally) -> bool {
        let Some(at) = self.unsettled.iter().position(|&unsettled| unsettled == link) else { return false };
        self.unsettled.swap_remove(at);
        self.past += tally;
        true
    }

    /// All that came in, over the connections of `now` too; `of` tells what the flows know of a connection.
    pub(super) fn sum(&self, now: &[LinkId], of: impl Fn(LinkId) -> Tally) -> Tally {
        let mut sum = self.past;
        // Its end may have been told before its place knows.
        let now = now.iter().filter(|link| !self.unsettled.contains(link));
        self.unsettled.iter().chain(now).for_each(|&link| sum += of(link));
        sum
    }

    /// Connections of which the flows know something that is not told here yet.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = LinkId> {
        self.unsettled.iter().copied()
    }

    fn absorb(&mut self, other: Self) {
        self.past += other.past;
        self.unsettled.extend(other.unsettled);
    }
}

/// A link that the config asks for, and where it stands.
#[derive(Debug)]
pub(super) struct Slot {
    /// Index of its peer in the config.
    pub(super) peer: usize,
    /// Which of its peer's links it is, from 1; its own for as long as it is in the config.
    pub(super) number: u32,
    pub(super) address: LinkAddress,
    state: Mutex<(SlotState, Instant)>,
    retired: AtomicBool,
    met: AtomicBool,
    pub(super) connects: AtomicU64,
    pub(super) history: Mutex<History>,
}

#[derive(Debug, Clone)]
pub(super) enum SlotState {
    Dialing,
    Up(LinkId),
    Waiting { reason: String, until: Instant },
}

impl Slot {
    pub(super) fn new(peer: usize, number: u32, address: LinkAddress) -> Self {
        let state = Mutex::new((SlotState::Dialing, Instant::now()));
        Self {
            peer,
            number,
            address,
            state,
            retired: false.into(),
            met: false.into(),
            connects: AtomicU64::new(0),
            history: Mutex::default(),
        }
    }

    pub(super) fn set(&self, state: SlotState) {
        *lock(&self.state) = (state, Instant::now());
    }

    pub(super) fn state(&self) -> (SlotState, Instant) {
        lock(&self.state).clone()
    }

    pub(super) fn is_link(&self, link: LinkId) -> bool {
        self.link() == Some(link)
    }

    /// Its connection, while there is one.
    pub(super) fn link(&self) -> Option<LinkId> {
        match lock(&self.state).0 {
            SlotState::Up(link) => Some(link),
            SlotState::Dialing | SlotState::Waiting { .. } => None,
        }
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// The peer has answered.
    pub(super) fn handle_met(&self) {
        self.met.store(true, Ordering::Relaxed);
    }

    /// Whether the peer answered on the link before, since this was last asked.
    pub(super) fn was_met(&self) -> bool {
        self.met.swap(false, Ordering::Relaxed)
    }
}

/// What is known of a peer that dials us.
#[derive(Debug, Default, Clone)]
pub(super) struct Caller {
    /// Links that it has made since the start.
    pub(super) connects: u64,
    /// Why the last link to it ended.
    pub(super) last_end: Option<String>,
    /// As many as ever had a connection at a time.
    places: Vec<Place>,
    /// What passed over links that come from other addresses now.
    pub(super) left: History,
}

/// Where a peer that dials us has, or had, a connection.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Which of its peer's links it is, from 1; its own for as long as it is a place.
    pub(super) number: u32,
    /// The peer's address, without its port: that is another one each time.
    pub(super) ip: Option<IpAddr>,
    /// Its connections, the newest last; more than one while the end of the one before it is not noticed.
    pub(super) links: Vec<LinkId>,
    /// When and why the last one ended.
    pub(super) ended: Option<(Instant, String)>,
    /// A connection is there, or expected back.
    is_missed: bool,
    pub(super) connects: u64,
    pub(super) history: History,
}

impl Caller {
    /// It has made a connection, the one of its link `number` if it said so.
    pub(super) fn handle_met(&mut self, link: LinkId, number: Option<NonZeroU16>, address: &str) {
        self.connects += 1;
        let ip = address.parse().map(|address: SocketAddr| address.ip()).ok();
        let number = number.map(|number| u32::from(number.get()));
        let is_its = |place: &&mut Place| match number {
            Some(number) => place.number == number,
            None => place.links.is_empty() && place.ip == ip,
        };
        if let Some(place) = self.places.iter_mut().find(is_its) {
            place.links.push(link);
            place.connects += 1;
            (place.ip, place.is_missed) = (ip, true);
            return;
        }
        let number = number.unwrap_or_else(|| free_number(self.places.iter().map(|place| place.number)));
        // There are no more places than ever had a connection at a time.
        if let Some(at) = self.places.iter().position(|place| place.links.is_empty()) {
            self.left.absorb(self.places.remove(at).history);
        }
        let (links, history) = (vec![link], History::default());
        self.places.push(Place { number, ip, links, ended: None, is_missed: true, connects: 1, history });
    }

    /// A connection is closed, and not expected back.
    pub(super) fn forget(&mut self, link: LinkId) {
        if let Some(place) = self.take(link) {
            place.history.end(link, false);
            place.is_missed = !place.links.is_empty();
        }
    }

    /// What has no connection is not expected back. What passed over it is kept, should it come.
    pub(super) fn forget_gone(&mut self) {
        self.places.iter_mut().for_each(|place| place.is_missed = !place.links.is_empty());
    }

    /// A connection of it is gone.
    pub(super) fn handle_closed(&mut self, link: LinkId, damaged: bool, reason: &str) {
        // One that was refused at once has no place.
        let Some(place) = self.take(link) else { return };
        place.ended = Some((Instant::now(), reason.to_owned()));
        place.history.end(link, damaged);
        self.last_end = Some(reason.to_owned());
    }

    /// The place of a connection, without it.
    fn take(&mut self, link: LinkId) -> Option<&mut Place> {
        let place = self.places.iter_mut().find(|place| place.links.contains(&link))?;
        place.links.retain(|&other| other != link);
        Some(place)
    }

    /// The places that have a connection, or miss one.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| place.is_missed)
    }

    /// The connections to it.
    pub(super) fn links(&self) -> Vec<LinkId> {
        self.places.iter().flat_map(|place| place.links.iter().copied()).collect()
    }

    /// Which of its links `link` is a connection of, if it is one.
    pub(super) fn number(&self, link: LinkId) -> Option<u32> {
        self.places.iter().find(|place| place.links.contains(&link)).map(|place| place.number)
    }

    /// As [`History::unsettled`], of all its places.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = LinkId> {
        self.places.iter().map(|place| &place.history).chain([&self.left]).flat_map(History::unsettled)
    }

    /// `tally` is all that came over a connection that is gone; `false` where it was none of this peer's.
    pub(super) fn settle(&mut self, link: LinkId, tally: Tally) -> bool {
        self.places.iter_mut().any(|place| place.history.settle(link, tally)) || self.left.settle(link, tally)
    }
}

/// The first number from 1 that is not among those `taken`.
pub(super) fn free_number(taken: impl Iterator<Item = u32> + Clone) -> u32 {
    (1..).find(|&number| !taken.clone().any(|taken| taken == number)).expect("links are fewer than numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(verified: u64, bad: u64) -> Tally {
        Tally { verified: ByteCount(verified), bad, ..Tally::default() }
    }

    #[test]
    fn what_a_link_did_outlives_its_connections_whatever_is_still_on_its_way_to_disk() {
        let mut caller = Caller::default();
        let live = |link: LinkId| tally(link.0 * 10, 0);
        let sum = |caller: &Caller| caller.places[0].history.sum(&caller.places[0].links, live);
        caller.handle_met(LinkId(1), None, "10.1.1.5:40001");
        assert_eq!(sum(&caller), tally(10, 0));
        caller.handle_closed(LinkId(1), true, "damaged");
        assert_eq!(sum(&caller), tally(10, 1), "the flow knows the rest until all is judged");
        caller.handle_met(LinkId(2), None, "10.1.1.5:40002");
        assert_eq!((caller.places.len(), sum(&caller)), (1, tally(30, 1)));
        assert!(caller.settle(LinkId(1), tally(12, 2)));
        assert!(!caller.settle(LinkId(1), tally(12, 2)), "once");
        assert_eq!(sum(&caller), tally(32, 3));
    }

    #[test]
    fn a_link_from_another_address_takes_no_history_over() {
        let mut caller = Caller::default();
        for (link, address) in [(1, "10.1.1.5:40001"), (2, "10.1.1.9:40001")] {
            caller.handle_met(LinkId(link), None, address);
        }
        caller.handle_closed(LinkId(1), false, "gone");
        caller.settle(LinkId(1), tally(7, 1));
        caller.handle_met(LinkId(3), None, "10.1.1.13:40001");
        assert_eq!(caller.links(), [LinkId(2), LinkId(3)]);
        assert_eq!(caller.places().count(), 2, "there were never more than two at a time");
        assert_eq!([1, 2, 3].map(|link| caller.number(LinkId(link))), [None, Some(2), Some(3)]);
        assert_eq!(caller.left.sum(&[], |_| Tally::default()), tally(7, 1), "and nothing is forgotten");
    }

    /// An exchange gave a silent connection up and dialed again while its trader still had the old one: a link more was
    /// missed from then on.
    #[test]
    fn a_connection_that_comes_before_the_end_of_the_one_before_it_has_its_place() {
        let mut caller = Caller::default();
        let met = |caller: &mut Caller, link, number| {
            caller.handle_met(LinkId(link), NonZeroU16::new(number), "10.1.1.5:40001");
        };
        (1..=3).for_each(|link| met(&mut caller, link, link as u16));
        met(&mut caller, 4, 2);
        assert_eq!(
            (caller.places().count(), caller.number(LinkId(2)), caller.number(LinkId(4))),
            (3, Some(2), Some(2))
        );
        caller.handle_closed(LinkId(2), false, "nothing came for 2.0 s");
        assert_eq!(caller.links(), [LinkId(1), LinkId(4), LinkId(3)]);
        assert!(caller.places().all(|place| !place.links.is_empty()), "none is missed");
        caller.handle_closed(LinkId(4), false, "gone");
        assert_eq!(caller.places().filter(|place| place.links.is_empty()).count(), 1, "and now one is");
    }

    #[test]
    fn what_passed_over_a_link_that_is_not_missed_any_more_is_there_when_it_comes_back() {
        let mut caller = Caller::default();
        caller.handle_met(LinkId(1), NonZeroU16::new(1), "10.1.1.5:40001");
        caller.handle_closed(LinkId(1), false, "gone");
        caller.settle(LinkId(1), tally(7, 1));
        caller.forget_gone();
        assert_eq!(caller.places().count(), 0);
        caller.handle_met(LinkId(2), NonZeroU16::new(1), "10.1.1.6:40001");
        let place = caller.places().next().expect("there again");
        assert_eq!((place.connects, place.history.sum(&[], |_| Tally::default())), (2, tally(7, 1)));
    }
}
