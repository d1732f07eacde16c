//! How far a flow has come, and how its links do. Only looks, but for [`Flow::take_ended`].

use super::carrier::Health;
use super::flow::{Flow, Kind};
use super::object::{Object, ObjectState};
use super::schedule::Fetcher;
use crate::limits;
use crate::units::{ByteCount, LinkId, Time};

/// Totals of one flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Objects in the flow's table that it wants, offers or keeps.
    pub objects: u64,
    /// Their length, as far as it is known.
    pub bytes: ByteCount,
    /// Objects that are here and whole.
    pub present: u64,
    /// Their length.
    pub present_bytes: ByteCount,
    /// Objects that are here in part.
    pub arriving: u64,
    /// Bytes written of those.
    pub arriving_bytes: ByteCount,
    /// Objects among those that are here in part that have a problem as well.
    pub arriving_failed: u64,
    /// Objects with a problem that an operator should look at.
    pub failed: u64,
}

impl Flow {
    /// How a link that fetches into this flow stands and what passed over it; also of one that has ended, until
    /// [`Flow::take_ended`].
    pub fn health(&self, link: LinkId, now: Time) -> Option<Health> {
        let carrier = self.blocks.carriers.get(&link).map(|carrier| carrier.health(now));
        carrier
            .or_else(|| self.schedule.fetchers.get(&link).map(|fetcher| self.fetcher_health(fetcher, now)))
            .or_else(|| self.blocks.ended.get(&link).copied())
    }

    /// What passed over a link that has ended and of which nothing is on its way to disk any more; nothing is known of
    /// it from then on.
    pub fn take_ended(&mut self, link: LinkId) -> Option<Health> {
        self.blocks.ended.remove(&link)
    }

    /// Why nothing new is fetched now: the store could not take the last thing, and is not to be tried again yet.
    /// `None` where fetching goes on.
    pub fn hold_reason(&self, now: Time) -> Option<&str> {
        self.last_store_failure(now).filter(|_| now < self.hold.until)
    }

    /// Whether all links that fetch into this flow bring whole objects by their names: no peer tells what there is.
    pub fn fetches_by_name_only(&self) -> bool {
        self.blocks.carriers.is_empty() && !self.schedule.fetchers.is_empty()
    }

    /// Whether something is to be fetched that is neither here nor on its way.
    pub fn wants_more(&self) -> bool {
        match self.kind {
            Kind::Fetch => !self.is_complete(),
            Kind::Offer => false,
            Kind::Relay => !self.blocks.demands.is_empty() || self.has_asked_for(),
        }
    }

    /// Whether something is asked of a spool that finds no room in it until something else has been fetched.
    pub fn is_out_of_room(&self) -> bool {
        let Some(room) = self.room.as_ref().filter(|_| self.kind == Kind::Relay) else { return false };
        let demands = self.blocks.demands.iter().take(limits::OBJECTS_PASSED_OVER_MAX);
        let by_ranges = demands.map(|demand| self.at(demand.object)).any(|object| {
            let size = object.content.as_ref().map(|content| content.size);
            object.state() == ObjectState::Absent && size.is_some_and(|size| !room.could_fit(size))
        });
        by_ranges || (self.has_asked_for() && !self.has_room_for_one_more())
    }

    /// Whether a reader of a relay waits for an object that nobody has been asked for.
    fn has_asked_for(&self) -> bool {
        let waits = |object: &Object| object.state() == ObjectState::Absent && object.queued;
        self.read.iter().any(|&id| waits(self.at(id)))
    }

    /// Of a link that fetches whole objects, of which nothing is checked on the way.
    fn fetcher_health(&self, fetcher: &Fetcher, now: Time) -> Health {
        let is_idle = fetcher.outstanding.is_empty();
        Health {
            rate: fetcher.meter.rate(now),
            orders: fetcher.outstanding.len(),
            object: fetcher.outstanding.front().copied(),
            silent: if is_idle { std::time::Duration::ZERO } else { now.since(fetcher.moved_at) },
            pending: fetcher.is_shy(),
            ..Health::default()
        }
    }
}
