//! Ranges of objects, fetched over all links at once.
//!
//! An object whose [`Content`](super::Content) is known may come in by ranges, any range over any link. Driven like
//! this: a link that can carry ranges is attached by [`Flow::attach_blocks`]; it orders by [`Flow::next_range`] until
//! that returns nothing, tells the peer what [`Flow::poll_cancel`] returns, and reports what came of each order.
//!
//! # Why it ends within one range-time of optimal
//!
//! Work is bound late. A link owns nothing but what it has on order: what it carries in [`limits::RANGES_AHEAD`], or
//! [`limits::RANGES_AHEAD_BYTES_MIN`] where that is more, in ranges of [`limits::RANGE_TIME`]. Where it would be more
//! than [`limits::RANGES_AHEAD_BYTES_MUCH`], it is what keeps the link busy for a few times as long as an order takes.
//! All else is cut, when a link has room, off the front of the earliest object that is not all on order. So while much
//! is unassigned every link is busy.
//!
//! Where little is left (at a job's end; in a relay always, which knows no more than it is asked for), a link leaves a
//! range to the others if they would have all that is unassigned one range-time before it had that one. What there is
//! goes to where it is here first, so that all links end within one range-time of each other, if they go on as
//! measured. A slow link, whose least window is seconds long, takes nothing then that the others must take back, and in
//! a relay no link has a queue while another one is idle, whose readers would wait for it.
//!
//! Where a link does not go on as measured (it slows down, stalls, or was not known to be slow when it ordered), the
//! others run dry and take a second copy of what is here last of all, of the slow link's queue from its end: whoever
//! has it first, if that is in [`SECOND_GAIN`] of the time and one range-time sooner, and no sooner than need be to
//! keep its link busy over the time that an order takes. The first right copy wins, the other one is cancelled. The
//! conditions are a hysteresis: links that are equally fast never take from each other. A copy that is late itself is
//! not hoped for any more.
//!
//! That is, but for what nobody can know: that a link has stalled is seen after [`limits::STALL_AFTER`] and believed to
//! last as long again as it has lasted, and what is ordered elsewhere then takes an order's way. So a link that stalls
//! at the very end costs up to twice the time of an order. The simulation in `tests/sim/makespan` measures it all.
//!
//! What a dead link, a damaged range or a "not here" leaves behind is free at once, and as it belongs to an early
//! object it goes first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use super::action::{Action, Problem};
use super::carrier::{Carrier, Health};
use super::demands::{Demand, Demands};
use super::flow::{Flow, Kind};
use super::gather::{Gather, Left};
use super::object::ObjectState;
use super::orders::Order;
use super::room::Room;
use super::schedule;
use crate::limits;
use crate::units::{ByteCount, Generation, LinkId, NodeName, ObjectId, ObjectName, Offset, RangeSet, Root256, Time};

/// A second copy is ordered only if it would be here in this part of the time that the first would take.
const SECOND_GAIN: f64 = 0.8;

/// A range of one attempt at an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RangeRequest {
    /// Which object.
    pub object: ObjectId,
    /// Which attempt at it.
    pub generation: Generation,
    /// Where the range starts.
    pub offset: Offset,
    /// How long it is, at least 1 and at most a block.
    pub length: ByteCount,
}

impl RangeRequest {
    /// Where it ends.
    pub fn end(&self) -> Offset {
        self.offset + self.length
    }
}

/// What a flow knows of ranges.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pub(super) carriers: BTreeMap<LinkId, Carrier>,
    /// What passed over links that are gone, until it is asked for.
    pub(super) ended: BTreeMap<LinkId, Health>,
    /// What is in block hands, or asked for by ranges.
    pub(super) gathers: BTreeMap<ObjectId, Gather>,
    /// Objects that are not all here or on order, the earliest first; of a flow that knows what it wants.
    open: BTreeMap<u64, ObjectId>,
    pub(super) ranks: BTreeMap<ObjectId, u64>,
    next_rank: u64,
    /// Those in block hands of which something was given back that is not on order again.
    pub(super) waiting: BTreeSet<ObjectId>,
    /// The one that was looked at last.
    waiting_last: Option<ObjectId>,
    /// To be opened again at a time.
    deferred: BTreeSet<(Time, ObjectId)>,
    /// Of a flow that fetches on demand.
    pub(super) demands: Demands,
    /// What an earlier run has left, by name.
    pub(super) resumable: BTreeMap<ObjectName, Left>,
    pub(super) stirred: Stirred,
    left_at: Time,
}

/// Objects of which links have asked for ranges, and for which the answer may be another one than it was.
#[derive(Debug, Default)]
pub(super) struct Stirred {
    /// None is empty.
    by_link: BTreeMap<LinkId, BTreeSet<ObjectId>>,
}

impl Stirred {
    pub(super) fn insert(&mut self, links: impl Iterator<Item = LinkId>, id: ObjectId) {
        links.for_each(|link| _ = self.by_link.entry(link).or_default().insert(id));
    }

    pub(super) fn remove(&mut self, link: LinkId, id: ObjectId) {
        if let Some(ids) = self.by_link.get_mut(&link)
            && ids.remove(&id)
            && ids.is_empty()
        {
            self.by_link.remove(&link);
        }
    }

    pub(super) fn pop(&mut self, link: LinkId) -> Option<ObjectId> {
        let ids = self.by_link.get_mut(&link)?;
        let id = ids.pop_first();
        if ids.is_empty() {
            self.by_link.remove(&link);
        }
        id
    }
}

impl Blocks {
    /// Nothing comes in by ranges, and has not for so long that it will not soon.
    pub(super) fn is_deserted(&self, now: Time) -> bool {
        self.carriers.is_empty() && now.since(self.left_at) >= limits::UPSTREAM_PATIENCE
    }

    /// What an earlier run has left of an object is to go, if it `is_useless`.
    pub(super) fn discard(&mut self, name: &ObjectName, is_useless: impl Fn(&Left) -> bool) -> Option<Action> {
        self.resumable.get(name).filter(|left| is_useless(left))?;
        let (name, left) = self.resumable.remove_entry(name)?;
        Some(Action::Discard { name, size: left.size, root: left.root })
    }

    pub(super) fn open(&mut self, id: ObjectId) {
        let rank = *self.ranks.entry(id).or_insert_with(|| {
            self.next_rank += 1;
            self.next_rank
        });
        self.open.insert(rank, id);
    }

    fn shut(&mut self, id: ObjectId) {
        if let Some(rank) = self.ranks.get(&id) {
            self.open.remove(rank);
        }
    }

    /// Behind all others.
    pub(super) fn open_last(&mut self, id: ObjectId) {
        self.forget(id);
        self.open(id);
    }

    fn forget(&mut self, id: ObjectId) {
        if let Some(rank) = self.ranks.remove(&id) {
            self.open.remove(&rank);
        }
    }

    /// Whether a link is put aside and another one is not.
    pub(super) fn is_aside(&self, link: LinkId, now: Time) -> bool {
        let is_aside = |carrier: &Carrier| carrier.aside_until(now).is_some();
        self.carriers.get(&link).is_some_and(is_aside) && !self.carriers.values().all(is_aside)
    }

    /// Whether `link` may order this: it was not damaged over it, or over all others as well.
    fn may_carry(&self, gather: &Gather, link: LinkId, offset: Offset, length: ByteCount, now: Time) -> bool {
        let avoided = |link| gather.is_avoided(offset, length, link);
        !avoided(link) || self.carriers.keys().all(|&other| avoided(other) || self.is_aside(other, now))
    }

    /// What a link that is not measured is taken to do: as the others on average.
    fn usual_rate(&self, now: Time) -> f64 {
        let rates = self.carriers.values().filter_map(|carrier| carrier.meter.rate(now));
        let (count, sum) = rates.fold((0, 0.0), |(count, sum), rate| (count + 1, sum + rate.0));
        if sum > 0.0 { sum / f64::from(count) } else { limits::RANGE_BYTES_FIRST as f64 }
    }
}

impl Flow {
    // -- links that carry ranges -------------------------------------------------------------------------------------

    /// A link to `peer` may order ranges from now on.
    pub fn attach_blocks(&mut self, link: LinkId, peer: NodeName, now: Time) {
        self.interests.attach(&peer, now);
        self.blocks.carriers.insert(link, Carrier::new(peer, now));
        self.wake_carriers();
        self.wake_all_readers();
    }

    /// A link is gone; what it had on order is free at once.
    pub fn detach_blocks(&mut self, link: LinkId, now: Time) {
        let Some(carrier) = self.blocks.carriers.remove(&link) else { return };
        let is_last = self.blocks.carriers.values().all(|other| other.peer != carrier.peer);
        self.interests.detach(link, &carrier.peer, is_last);
        for order in carrier.orders.iter().rev() {
            self.free_order(order);
        }
        self.blocks.ended.insert(link, carrier.totals);
        self.ledger.subscribers.remove(&link);
        self.asks.due.remove(&link);
        for cursor in self.ledger.cursors.values_mut() {
            if cursor.reader == Some(link) {
                (cursor.reader, cursor.asked, cursor.sure) = (None, None, 0);
                cursor.waits_since = None;
                cursor.reread |= std::mem::take(&mut cursor.rereading);
            }
        }
        // One that could not be told from others, and told of nothing, was never there.
        self.ledger.cursors.retain(|_, cursor| cursor.reader.is_some() || cursor.mask != 0 || cursor.seq > 0);
        self.blocks.left_at = now;
        self.wake_carriers();
        self.wakes.remove(&link);
        if self.blocks.carriers.is_empty() {
            self.links_changed();
            self.wake_all_readers();
        }
    }

    /// The next range that `link` should ask for, now on order.
    pub fn next_range(&mut self, link: LinkId, now: Time) -> Option<RangeRequest> {
        self.reopen_deferred(now);
        let carrier = self.blocks.carriers.get(&link)?;
        if now < self.hold.until || !carrier.has_room(now) || self.blocks.is_aside(link, now) {
            return None;
        }
        let unit = carrier.unit(now);
        let cut = match self.kind {
            Kind::Fetch => self.cut_open(link, unit, now),
            Kind::Relay => self.cut_demand(link, unit, now),
            Kind::Offer => None,
        };
        let cut = cut.map(|cut| self.request(cut)).filter(|request| !self.leaves_to_others(link, request, now));
        let (request, doubled_until) = match cut {
            Some(request) => (request, Time::ZERO),
            None => self.second_copy(link, now)?,
        };
        let RangeRequest { object, offset, length, .. } = request;
        let gather = self.blocks.gathers.get_mut(&object)?;
        gather.demanded.remove(offset, length);
        gather.taken.insert(offset, length);
        gather.orders += 1;
        if gather.is_taken() {
            self.blocks.waiting.remove(&object);
            self.blocks.shut(object);
        }
        let carrier = self.blocks.carriers.get_mut(&link)?;
        let second = doubled_until > Time::ZERO;
        carrier.order(Order { request, received: 0, made: now, doubled_until, second }, now);
        Some(request)
    }

    /// A range that `link` has asked for and that is wanted over it no more.
    pub fn poll_cancel(&mut self, link: LinkId) -> Option<RangeRequest> {
        self.blocks.carriers.get_mut(&link)?.cancels.pop_front()
    }

    /// When `link` wants to be looked at again though nothing happens.
    pub fn poll_range_timeout(&self, link: LinkId, now: Time) -> Option<Time> {
        let carrier = self.blocks.carriers.get(&link)?;
        if let Some(until) = carrier.aside_until(now).filter(|_| self.blocks.is_aside(link, now)) {
            return Some(until);
        }
        if !carrier.orders.is_empty() && !carrier.has_room(now) {
            return carrier.ramp_at(now);
        }
        let is_work_left = !self.blocks.open.is_empty()
            || !self.blocks.demands.is_empty()
            || self.blocks.carriers.values().any(|other| !other.orders.is_empty());
        let look = is_work_left.then(|| now + schedule::LOOK_AGAIN / 2);
        let retry = self.blocks.deferred.first().map(|&(at, _)| at);
        let at = [look, retry].into_iter().flatten().min()?;
        let at = at.max(carrier.shy_until(now).unwrap_or(at)).max(self.hold.until);
        Some(at.max(now + Duration::from_millis(1)))
    }

    /// What an earlier run has left of an object of this size and root, as its journal tells; to be called before
    /// anything is known and links are attached. It is taken over when the object is known to be the same still: whole
    /// blocks of `ranges` as they are, and `pieces`, each within one other block and with its CRC-32C, as if they came
    /// in then.
    pub fn resume(
        &mut self,
        name: ObjectName,
        (size, root): (ByteCount, Root256),
        ranges: RangeSet,
        pieces: Vec<(Offset, ByteCount, u32)>,
    ) {
        if self.blocks.resumable.len() < limits::OBJECTS_MAX {
            self.blocks.resumable.insert(name, Left { size, root, ranges, pieces });
        }
    }

    /// An object is not what an earlier run has left of it, or is not there any more.
    pub(super) fn discard_left(&mut self, id: ObjectId) {
        let object = &self.objects[id.0 as usize];
        let root = object.content.as_ref().map(|content| content.root);
        self.actions.extend(self.blocks.discard(&object.name, |left| Some(left.root) != root));
    }

    // -- helpers -----------------------------------------------------------------------------------------------------

    pub(super) fn wake_carriers(&mut self) {
        self.wakes.extend(self.blocks.carriers.keys());
    }

    /// An absent object is wanted: it may come in by ranges if its content is known.
    pub(super) fn open_blocks(&mut self, id: ObjectId, now: Option<Time>) {
        if self.at(id).content.is_none() {
            return;
        }
        let retry_at = self.at(id).retry_at;
        match self.kind {
            Kind::Fetch if now.is_some_and(|now| retry_at > now) => {
                self.blocks.deferred.insert((retry_at, id));
            }
            Kind::Fetch => self.blocks.open(id),
            // Whoever asks for the whole of it asks for all its ranges.
            Kind::Relay => match self.at(id).content.as_ref().map_or(ByteCount(0), |content| content.size) {
                ByteCount(0) if self.at(id).state() == ObjectState::Absent && self.reserve(id) => {
                    self.start_gather(id);
                    self.complete(id);
                }
                size => self.demand_gaps(None, id, Offset(0), size),
            },
            Kind::Offer => {}
        }
        self.wake_carriers();
    }

    /// Ends what ranges have to do with an object: nothing of it is on order any more, nothing of it is known to be
    /// here.
    pub(super) fn drop_blocks(&mut self, id: ObjectId) {
        self.blocks.forget(id);
        self.blocks.waiting.remove(&id);
        let Some(gather) = self.blocks.gathers.remove(&id) else { return };
        if !gather.demanded.is_empty() {
            self.blocks.demands.forget(id);
        }
        if gather.orders == 0 {
            return;
        }
        for carrier in self.blocks.carriers.values_mut() {
            let gone = carrier.orders.remove_all(|order| order.request.object == id);
            carrier.cancels.extend(gone.iter().map(|order| order.request));
        }
        self.wake_carriers();
    }

    /// No link that carries ranges has been there for long: what came in by ranges is left to whole objects.
    pub(super) fn leave_to_whole(&mut self, now: Time) {
        let is_over = self.blocks.carriers.is_empty() && now.since(self.blocks.left_at) >= limits::BLOCKS_PATIENCE;
        if !is_over || self.blocks.gathers.is_empty() {
            return;
        }
        let started: Vec<_> = self.blocks.gathers.iter().filter(|(_, g)| g.started).map(|(&id, _)| id).collect();
        for id in started {
            if matches!(self.at(id).state(), ObjectState::Gathering { .. }) {
                self.give_back(id);
                self.enqueue(id);
            }
        }
    }

    fn reopen_deferred(&mut self, now: Time) {
        while let Some(&(at, id)) = self.blocks.deferred.first().filter(|(at, _)| *at <= now) {
            self.blocks.deferred.remove(&(at, id));
            if self.at(id).state() == ObjectState::Absent && self.at(id).content.is_some() {
                self.blocks.open(id);
            }
        }
    }

    /// Whether other links would have all that is not on order before `link` had this range of it. Someone orders it:
    /// the link that would have it first never leaves it.
    fn leaves_to_others(&self, link: LinkId, request: &RangeRequest, now: Time) -> bool {
        let Some(carrier) = self.blocks.carriers.get(&link) else { return false };
        if self.is_much_open() {
            return false;
        }
        let usual = self.blocks.usual_rate(now);
        let mine = carrier.ends_in(carrier.owed(), request.length.0, now, usual, now);
        let by = mine - limits::RANGE_TIME.as_secs_f64();
        if by <= 0.0 && self.has_unassigned(0) {
            return false;
        }
        let mut bytes = 0.0;
        let mut is_first = true;
        for (&other, carrier) in self.blocks.carriers.iter().filter(|(other, _)| **other != link) {
            if !carrier.may_order(now) || !self.may_double(other, carrier, request, now) {
                continue;
            }
            let begins = carrier.begins_in(carrier.owed(), now, usual, now);
            let rate = carrier.rate(usual, now);
            is_first &= begins + request.length.0 as f64 / rate >= mine;
            bytes += rate * (by - begins).max(0.0);
        }
        !is_first && !self.has_unassigned(bytes as u64)
    }

    /// Whether so many objects are not all here or on order that nobody adds up what they lack.
    fn is_much_open(&self) -> bool {
        self.blocks.open.len() > limits::OBJECTS_PASSED_OVER_MAX
    }

    /// Whether more than so many bytes are wanted that are neither here nor on order.
    fn has_unassigned(&self, bytes: u64) -> bool {
        let mut left = 0;
        let mut is_more = |more: u64| {
            left += more;
            left > bytes
        };
        let size = |id: ObjectId| self.at(id).content.as_ref().map_or(0, |content| content.size.0);
        match self.kind {
            Kind::Fetch if self.is_much_open() => true,
            Kind::Fetch => self.blocks.open.values().any(|&id| {
                let taken = self.blocks.gathers.get(&id).map_or(0, |gather| gather.taken.total().0);
                is_more(size(id).saturating_sub(taken))
            }),
            Kind::Relay => self.blocks.demands.iter().any(|demand| is_more(demand.length.0)),
            Kind::Offer => false,
        }
    }

    /// The first range of the earliest object that `link` may order.
    fn cut_open(&mut self, link: LinkId, unit: u64, now: Time) -> Option<(ObjectId, Offset, ByteCount)> {
        let mut passed = 0;
        let mut after = 0;
        while let Some((&rank, &id)) = self.blocks.open.range(after..).next() {
            after = rank + 1;
            if !self.may_start(id) {
                self.blocks.shut(id);
                continue;
            }
            if self.at(id).state() == ObjectState::Absent && !self.may_open_more() {
                return self.cut_waiting(link, unit, now);
            }
            self.start_gather(id);
            let Some(gather) = self.blocks.gathers.get(&id) else { continue };
            if gather.is_whole() {
                self.blocks.shut(id);
                self.complete(id);
                continue;
            }
            let size = gather.size;
            if let Some((offset, length)) = self.cut_from(id, link, Offset(0), size, unit, now) {
                return Some((id, offset, length));
            }
            passed += 1;
            if passed >= limits::OBJECTS_PASSED_OVER_MAX {
                break;
            }
        }
        None
    }

    /// The same of the objects that wait for those who were asked, where no further ones are begun.
    fn cut_waiting(&mut self, link: LinkId, unit: u64, now: Time) -> Option<(ObjectId, Offset, ByteCount)> {
        let (last, waiting) = (self.blocks.waiting_last.unwrap_or(ObjectId(0)), &self.blocks.waiting);
        let ids = waiting.range((Excluded(last), Unbounded)).chain(waiting.range(..=last)).copied();
        for id in ids.take(limits::OBJECTS_PASSED_OVER_MAX).collect::<Vec<_>>() {
            self.blocks.waiting_last = Some(id);
            let Some(size) = self.blocks.gathers.get(&id).map(|gather| gather.size) else { continue };
            if let Some((offset, length)) = self.cut_from(id, link, Offset(0), size, unit, now) {
                return Some((id, offset, length));
            }
        }
        None
    }

    /// An object that those who carry ranges do not give is given to those who carry whole objects; whether there was
    /// one.
    pub(super) fn leave_one_to_whole(&mut self, now: Time) -> bool {
        let peers = || self.blocks.carriers.values().map(|carrier| &carrier.peer);
        let is_given_up =
            |id: &&ObjectId| self.blocks.gathers.get(id).is_some_and(|gather| gather.is_given_up(peers(), now));
        let Some(&id) = self.blocks.waiting.iter().find(is_given_up) else { return false };
        self.give_back(id);
        self.enqueue(id);
        true
    }

    /// Whether the files that are open allow for another object: their commits may lag behind what comes in.
    fn may_open_more(&self) -> bool {
        self.open_parts < limits::OPEN_PARTS_MAX && self.blocks.gathers.len() < limits::GATHERS_MAX
    }

    /// The oldest demand's first range that `link` may order.
    fn cut_demand(&mut self, link: LinkId, unit: u64, now: Time) -> Option<(ObjectId, Offset, ByteCount)> {
        let mut passed = Vec::new();
        let mut found = None;
        while passed.len() < limits::OBJECTS_PASSED_OVER_MAX {
            let Some(demand) = self.blocks.demands.pop() else { break };
            let Demand { object: id, offset, length, .. } = demand;
            let is_wanted = !self.at(id).readers.is_empty() && self.may_start(id);
            let Some(gather) = self.blocks.gathers.get_mut(&id) else { continue };
            // It was all on order when a longer version made room for this one.
            if offset.0 + length.0 > gather.size.0 {
                continue;
            }
            if !is_wanted || gather.taken.contains(offset, length) {
                gather.demanded.remove(offset, length);
                if !gather.started && gather.demanded.is_empty() {
                    self.blocks.gathers.remove(&id);
                }
                continue;
            }
            if !gather.started && !self.reserve(id) {
                passed.push(demand);
                continue;
            }
            self.start_gather(id);
            found = self.cut_from(id, link, offset, length, unit, now).map(|cut| (id, cut.0, cut.1));
            passed.push(demand);
            if found.is_some() {
                break;
            }
        }
        for demand in passed.into_iter().rev() {
            self.blocks.demands.push_front(demand);
        }
        found
    }

    fn request(&self, (object, offset, length): (ObjectId, Offset, ByteCount)) -> RangeRequest {
        RangeRequest { object, generation: self.at(object).generation, offset, length }
    }

    fn cut_from(
        &self,
        id: ObjectId,
        link: LinkId,
        offset: Offset,
        length: ByteCount,
        unit: u64,
        now: Time,
    ) -> Option<(Offset, ByteCount)> {
        let gather = self.blocks.gathers.get(&id)?;
        let peer = &self.blocks.carriers.get(&link)?.peer;
        if !self.may_give(peer, id, gather, now) {
            return None;
        }
        gather.cut(offset, length, unit, |gather, offset, length| {
            self.blocks.may_carry(gather, link, offset, length, now)
        })
    }

    /// Whether a peer has told of an object as it is known here, or nobody has who is there, and it has not said that
    /// it cannot give of it now.
    fn may_give(&self, peer: &NodeName, id: ObjectId, gather: &Gather, now: Time) -> bool {
        let given_by = self.at(id).given_by;
        let has_told = || self.ledger.cursors.get(peer).is_some_and(|cursor| cursor.mask & given_by != 0);
        let others = || self.ledger.cursors.values().filter(|cursor| cursor.reader.is_some());
        let others_have = || others().any(|cursor| cursor.mask & given_by != 0);
        gather.put_off_until(peer).is_none_or(|until| until <= now) && (has_told() || !others_have())
    }

    /// Whether an object is absent and wanted, or in block hands.
    fn may_start(&self, id: ObjectId) -> bool {
        let object = self.at(id);
        object.content.is_some() && matches!(object.state(), ObjectState::Absent | ObjectState::Gathering { .. })
    }

    /// Takes an absent object into block hands; its room is reserved where that matters.
    fn start_gather(&mut self, id: ObjectId) {
        if self.at(id).state() != ObjectState::Absent {
            return;
        }
        self.discard_left(id);
        let object = &self.objects[id.0 as usize];
        let Some(content) = &object.content else { return };
        let size = content.size;
        let gather = self.blocks.gathers.entry(id).or_insert_with(|| Gather::new(size));
        gather.started = true;
        if let Some(left) = self.blocks.resumable.remove(&object.name) {
            gather.resume(&left, content);
        }
        let is_resumed = !gather.have.is_empty();
        let prefix = gather.prefix();
        let verified = gather.have.total();
        self.longest = self.longest.max(size);
        let object = self.at_mut(id);
        object.generation = object.generation.next();
        object.queued = false;
        object.set_state(ObjectState::Gathering { size, verified, prefix, created: false });
        if is_resumed {
            // What is there can be had before anything comes in.
            self.open_part(id);
        }
    }

    /// A relay takes over what an earlier run has left of an object as soon as it is known to be the same, if there is
    /// room for it: so it has that to give, and does not fetch it again.
    pub(super) fn resume_relayed(&mut self, id: ObjectId) {
        let object = self.at(id);
        let is_left = self.blocks.resumable.contains_key(&object.name);
        if !is_left || object.state() != ObjectState::Absent || !self.reserve(id) {
            return;
        }
        self.start_gather(id);
        if self.blocks.gathers.get(&id).is_some_and(Gather::is_whole) {
            self.complete(id);
        } else {
            self.update_evictable(id);
        }
    }

    /// Makes room in a spool for an object; `false` where it has to wait.
    fn reserve(&mut self, id: ObjectId) -> bool {
        let Some(size) = self.at(id).content.as_ref().map(|content| content.size) else { return false };
        if self.room.is_none() {
            return true;
        }
        let max = self.room.as_ref().map_or(size, Room::max);
        if !self.make_room(size) {
            if size > max {
                self.tell_problem(id, Problem::LargerThanSpool { size, max });
            }
            return false;
        }
        if matches!(self.at(id).problem, Some(Problem::LargerThanSpool { .. })) {
            self.clear_problem(id);
        }
        self.room_take(size);
        true
    }

    /// The range that some link would deliver last and `link` sooner, and until when that is to be hoped.
    fn second_copy(&mut self, link: LinkId, now: Time) -> Option<(RangeRequest, Time)> {
        let thief = self.blocks.carriers.get(&link)?;
        let usual = self.blocks.usual_rate(now);
        // No sooner than need be: who knows how the others get on until then.
        if !thief.runs_dry(usual, now) {
            return None;
        }
        let mut latest: Option<(f64, RangeRequest)> = None;
        for (_, carrier) in self.blocks.carriers.iter().filter(|(other, _)| **other != link) {
            let mut before = carrier.owed();
            for order in carrier.orders.iter().rev() {
                let length = order.owed();
                before = before.saturating_sub(length);
                let ends_in = carrier.ends_in(before, length, order.made, usual, now);
                if latest.is_some_and(|latest| ends_in <= latest.0) {
                    break;
                }
                if order.doubled_until <= now && self.may_double(link, thief, &order.request, now) {
                    latest = Some((ends_in, order.request));
                    break;
                }
            }
        }
        let (theirs, request) = latest?;
        let (before, length) = (thief.owed(), request.length.0);
        let mine = thief.ends_in(before, length, now, usual, now);
        let range_time = limits::RANGE_TIME.as_secs_f64();
        if mine > theirs * SECOND_GAIN || mine + range_time > theirs {
            return None;
        }
        let is_better = |(&other, carrier): (&LinkId, &Carrier)| {
            other != link
                && carrier.has_room(now)
                && carrier.ends_in(carrier.owed(), length, now, usual, now) + range_time < mine
                && !self.blocks.is_aside(other, now)
                && self.may_double(other, carrier, &request, now)
        };
        if self.blocks.carriers.iter().any(is_better) {
            return None;
        }
        let until = now + Duration::from_secs_f64(mine / SECOND_GAIN + range_time);
        for carrier in self.blocks.carriers.values_mut() {
            if let Some(at) = carrier.orders.find(request.object, request.generation, request.offset) {
                carrier.orders.double(at, until);
            }
        }
        Some((request, until))
    }

    fn may_double(&self, link: LinkId, thief: &Carrier, request: &RangeRequest, now: Time) -> bool {
        let Some(gather) = self.blocks.gathers.get(&request.object) else { return false };
        (gather.orders == 0 || !thief.has_any_of(request))
            && self.may_give(&thief.peer, request.object, gather, now)
            && self.blocks.may_carry(gather, link, request.offset, request.length, now)
    }

    /// Puts on the demand queue what of a range is neither here nor on order nor demanded already, as far as its
    /// reader's has room: what was cancelled stays there until its turn comes.
    pub(super) fn demand_gaps(&mut self, reader: Option<LinkId>, id: ObjectId, offset: Offset, length: ByteCount) {
        let Some(size) = self.at(id).content.as_ref().map(|content| content.size) else { return };
        if self.blocks.demands.is_full(reader) {
            return;
        }
        let gather = self.blocks.gathers.entry(id).or_insert_with(|| Gather::new(size));
        let gaps: Vec<_> = gather.taken.missing_in(offset, length).collect();
        for (offset, length) in gaps {
            let news: Vec<_> = gather.demanded.missing_in(offset, length).collect();
            for (offset, length) in news {
                if self.blocks.demands.is_full(reader) {
                    return;
                }
                gather.demanded.insert(offset, length);
                self.blocks.demands.push_back(Demand { reader, object: id, offset, length });
            }
        }
    }
}
