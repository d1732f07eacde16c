//! The serving side of ranges: who asked for which, and what of it is here.

use super::action::Problem;
use super::flow::{Flow, Kind};
use super::object::{Availability, ObjectState};
use crate::limits;
use crate::units::{ByteCount, Generation, LinkId, ObjectId, ObjectName, Offset, Time};

/// What can be sent of a range now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeState {
    /// So many bytes from its start, at least 1.
    Ready {
        /// How many.
        length: ByteCount,
        /// The attempt that they belong to.
        generation: Generation,
    },
    /// Not here yet, but on its way: nothing is said until more is known.
    Awaited,
    /// Not here now; the peer is to be told so.
    Pending,
    /// The same, since where it comes from it cannot be read.
    Damaged,
    /// There is no such object.
    Gone,
    /// The object has no such range.
    Invalid,
}

impl Flow {
    /// The object of this name, if it is known here or can be had whole.
    pub fn find(&mut self, name: &ObjectName) -> Option<ObjectId> {
        let may_have = self.fetches_whole() && self.names.len() < limits::OBJECTS_MAX;
        self.id_of(name).or_else(|| may_have.then(|| self.insert(name.clone(), None)))
    }

    /// `link` asks for a range, until [`Flow::release_range`]. One that has to be fetched first goes on the demand
    /// queue.
    pub fn demand_range(&mut self, link: LinkId, id: ObjectId, offset: Offset, length: ByteCount, now: Time) {
        self.unmark_evictable(id);
        let object = self.at_mut(id);
        if object.add_reader(link, 1) {
            object.last_use = now;
            self.read.insert(id);
        }
        if self.kind != Kind::Relay || !self.at(id).has_range(offset, length) {
            return;
        }
        let has_carriers = !self.blocks.carriers.is_empty();
        let is_missing = match self.at(id).state() {
            ObjectState::Absent => true,
            ObjectState::Gathering { .. } => has_carriers,
            _ => false,
        };
        if is_missing && self.at(id).retry_at <= now {
            // Of what comes by ranges no more is fetched than this, whenever those come who carry them.
            self.demand_gaps(Some(link), id, offset, length);
            self.wake_carriers();
            if !has_carriers {
                self.queue_whole(id, None);
            }
        }
        self.hash_if_asked(id);
    }

    /// A range that `link` asked for is answered or no longer wanted; `sent` says that bytes of it were sent, or need
    /// not be.
    pub fn release_range(&mut self, link: LinkId, id: ObjectId, sent: bool, now: Time) {
        if !self.at(id).waits_for_range(link) {
            return;
        }
        let object = self.at_mut(id);
        object.delivered |= sent;
        let Some(asks) = object.readers.get_mut(&link) else { return };
        *asks -= 1;
        if *asks == 0 {
            self.blocks.stirred.remove(link, id);
            self.release(link, id, sent, now);
        }
    }

    /// The link over which a range was asked for has ended before that was answered, or what was sent may be lost:
    /// the object is to stay for whoever comes next.
    pub fn lose_range(&mut self, link: LinkId, id: ObjectId, now: Time) {
        if self.at(id).waits_for_range(link) {
            self.at_mut(id).delivered = false;
            self.release_range(link, id, false, now);
        }
    }

    /// An object of which `link` has asked for ranges, and for which the answer may be another one than it was.
    pub fn poll_stirred(&mut self, link: LinkId) -> Option<ObjectId> {
        self.blocks.stirred.pop(link)
    }

    /// What can be sent of a range that was asked for.
    pub fn range_state(&self, id: ObjectId, offset: Offset, length: ByteCount, now: Time) -> RangeState {
        let object = self.at(id);
        let generation = object.generation;
        let from_start = |ready: ByteCount| match ready.0.checked_sub(offset.0) {
            Some(ready) if ready > 0 => RangeState::Ready { length: ByteCount(ready.min(length.0)), generation },
            _ => RangeState::Awaited,
        };
        match object.state() {
            ObjectState::Present { size } | ObjectState::Whole { size } => {
                if offset.0 >= size.0 || length.0 > size.0 - offset.0 {
                    return RangeState::Invalid;
                }
                from_start(size)
            }
            ObjectState::Absent if self.kind == Kind::Offer => match object.problem {
                Some(Problem::Unreadable(_)) => RangeState::Damaged,
                _ => RangeState::Gone,
            },
            _ if object.content.is_none() && self.kind == Kind::Relay && self.schedule.fetchers.is_empty() => {
                RangeState::Gone
            }
            _ if !object.has_range(offset, length) => RangeState::Invalid,
            ObjectState::Arriving { written, created: true, .. } if written.0 > offset.0 => from_start(written),
            ObjectState::Arriving { .. } | ObjectState::Growing { .. } | ObjectState::Requested { .. } => {
                self.whole_state(id, now)
            }
            ObjectState::Absent if self.blocks.carriers.is_empty() => self.whole_state(id, now),
            ObjectState::Gathering { .. } | ObjectState::Absent => self.gathering_state(id, offset, length, now),
        }
    }

    /// Of a range that comes with the whole object.
    fn whole_state(&self, id: ObjectId, now: Time) -> RangeState {
        match self.availability(id, now) {
            Availability::Pending => RangeState::Pending,
            Availability::Awaited | Availability::Ready { .. } => RangeState::Awaited,
        }
    }

    fn gathering_state(&self, id: ObjectId, offset: Offset, length: ByteCount, now: Time) -> RangeState {
        let generation = self.at(id).generation;
        let Some(gather) = self.blocks.gathers.get(&id) else { return RangeState::Pending };
        let ready = gather.ready(offset, length);
        if ready.0 > 0 {
            // What an earlier run has left is here before its part is open.
            let is_open = matches!(self.at(id).state(), ObjectState::Gathering { created: true, .. });
            return if is_open { RangeState::Ready { length: ready, generation } } else { RangeState::Awaited };
        }
        // As with whole objects: where it cannot be hoped for, whoever asked is told so.
        let waited = now.since(self.at(id).last_use);
        let has_room = gather.started || waited < limits::ROOM_PATIENCE;
        let is_put_off = |peer| gather.put_off_until(peer).is_some_and(|until| until > now);
        let can_come = self.blocks.carriers.values().any(|carrier| !is_put_off(&carrier.peer));
        let first = gather.have.missing_in(offset, length).next();
        let is_asked = first.is_some_and(|(at, _)| {
            let one = ByteCount(1);
            gather.taken.contains(at, one) || gather.demanded.contains(at, one)
        });
        if has_room && can_come && is_asked && now >= self.hold.until {
            RangeState::Awaited
        } else if self.at(id).problem == Some(Problem::DamagedSource) {
            RangeState::Damaged
        } else {
            RangeState::Pending
        }
    }
}
