//! The serving side of a [`Flow`]: who asked for what, what can be sent of it, what may go from a spool.

use super::action::{Action, Event, Problem};
use super::flow::{Flow, Kind};
use super::object::{Availability, ObjectState};
use crate::limits;
use crate::units::{ByteCount, Generation, LinkId, ObjectId, ObjectName, Time};

impl Flow {
    /// An object stands in the root and may be served. `false` where the table is full.
    pub fn offer(&mut self, name: ObjectName, size: ByteCount) -> bool {
        debug_assert_eq!(self.kind, Kind::Offer);
        if let Some(id) = self.id_of(&name) {
            match self.at(id).state() {
                ObjectState::Present { size: before } if before == size => return true,
                ObjectState::Present { .. } => self.withdraw_id(id),
                _ => {}
            }
        } else if self.names.len() >= limits::OBJECTS_MAX {
            return false;
        }
        let id = self.id_of(&name).unwrap_or_else(|| self.insert(name, None));
        let object = self.at_mut(id);
        object.generation = object.generation.next();
        self.totals.bytes += size;
        self.set_present(id, size);
        self.wake_readers(id);
        true
    }

    /// Keeps for the owner what it saw of an object that it offers.
    pub fn set_mark(&mut self, id: ObjectId, mark: u64) {
        self.at_mut(id).mark = mark;
    }

    /// What the owner saw of an object that is offered now.
    pub fn mark(&self, id: ObjectId) -> Option<u64> {
        self.at(id).is_present().then_some(self.at(id).mark)
    }

    /// Somebody has had it from here.
    pub fn is_delivered(&self, id: ObjectId) -> bool {
        self.at(id).delivered
    }

    /// Which attempt at an object it stands by: a range of it is asked for by this.
    pub fn generation(&self, id: ObjectId) -> Generation {
        self.at(id).generation
    }

    /// Up to where places of objects go.
    pub fn places(&self) -> u32 {
        self.objects.len() as u32
    }

    /// Whether a place is an object's.
    pub fn is_object(&self, id: ObjectId) -> bool {
        self.objects.get(id.0 as usize).is_some_and(|object| !object.is_gone())
    }

    /// An object that was offered is gone from the root, or is not what it must be.
    pub fn withdraw(&mut self, name: &ObjectName) {
        if let Some(id) = self.id_of(name) {
            self.withdraw_id(id);
            self.forget_if_idle(id);
        }
    }

    fn withdraw_id(&mut self, id: ObjectId) {
        if let ObjectState::Present { size } = self.at(id).state() {
            self.at_mut(id).set_state(ObjectState::Absent);
            self.uncount_present(size);
            self.totals.bytes -= size;
            self.wake_readers(id);
        }
    }

    /// `link` asks for an object. `None`: it is not known here and this flow does not fetch it.
    pub fn demand(&mut self, link: LinkId, name: &ObjectName, now: Time) -> Option<ObjectId> {
        let id = match self.id_of(name) {
            Some(id) => id,
            None if self.kind == Kind::Relay && self.names.len() < limits::OBJECTS_MAX => {
                self.insert(name.clone(), None)
            }
            None => return None,
        };
        self.unmark_evictable(id);
        let object = self.at_mut(id);
        if object.add_reader(link, 0) {
            object.last_use = now;
            self.read.insert(id);
        }
        let object = self.at_mut(id);
        let retry_at = object.retry_at;
        let may_fetch = object.state() == ObjectState::Absent && retry_at <= now;
        if may_fetch && self.kind == Kind::Relay {
            self.enqueue_for(id, Some(link));
        }
        // Also of one that was queued already: for another reader, who is gone, or before it was known.
        let is_gathering = matches!(self.at(id).state(), ObjectState::Gathering { .. });
        if self.kind == Kind::Relay && (may_fetch || is_gathering) {
            self.open_blocks(id, None);
        }
        Some(id)
    }

    /// `link` no longer wants an object; `delivered` says that it has had all of it.
    pub fn release(&mut self, link: LinkId, id: ObjectId, delivered: bool, now: Time) {
        if !self.at(id).readers.contains_key(&link) {
            return;
        }
        self.unmark_evictable(id);
        let is_at_rest = self.room.is_none();
        let object = self.at_mut(id);
        object.readers.remove(&link);
        let is_last = object.readers.is_empty();
        object.delivered |= delivered;
        object.last_use = now;
        if is_at_rest && object.is_present() {
            object.rest();
        }
        if is_last {
            self.read.remove(&id);
            self.clear_unread_problem(id);
        }
        self.update_evictable(id);
        self.wake_fetchers();
        self.forget_if_idle(id);
    }

    /// A relay may never have all of an object: who reads it is served over other ways too. What keeps one from it that
    /// nobody reads is no problem; but where its length is not known, it is not fetched to learn again that it does not
    /// fit.
    pub(super) fn clear_unread_problem(&mut self, id: ObjectId) {
        let object = self.at(id);
        let cannot_fit = matches!(object.problem, Some(Problem::LargerThanSpool { .. })) && object.content.is_none();
        if self.kind == Kind::Relay && object.readers.is_empty() && !cannot_fit {
            self.clear_problem(id);
        }
    }

    /// What can be sent of an object now.
    pub fn availability(&self, id: ObjectId, now: Time) -> Availability {
        let object = self.at(id);
        let generation = object.generation;
        match object.state() {
            ObjectState::Present { size } | ObjectState::Whole { size } => {
                Availability::Ready { size, ready: size, generation }
            }
            ObjectState::Arriving { link, .. } | ObjectState::Requested { link } if self.is_stalled(link, now) => {
                Availability::Pending
            }
            ObjectState::Arriving { size, written, created: true, .. } => {
                Availability::Ready { size, ready: written, generation }
            }
            ObjectState::Gathering { size, prefix, created: true, .. } if !self.blocks.is_deserted(now) => {
                Availability::Ready { size, ready: prefix, generation }
            }
            ObjectState::Arriving { .. } | ObjectState::Growing { .. } | ObjectState::Requested { .. } => {
                Availability::Awaited
            }
            ObjectState::Gathering { .. } if self.blocks.carriers.is_empty() => Availability::Pending,
            ObjectState::Gathering { .. } => Availability::Awaited,
            ObjectState::Absent if object.queued && object.retry_at <= now && self.can_fetch(id, now) => {
                Availability::Awaited
            }
            ObjectState::Absent => Availability::Pending,
        }
    }

    /// Whether a queued object can be hoped for. Where it cannot, whoever asked is told so: it may have other ways to
    /// get it, and what it asked for behind it may be here and hold the room that this one waits for.
    fn can_fetch(&self, id: ObjectId, now: Time) -> bool {
        let waited = now.since(self.at(id).last_use);
        let by_ranges = self.at(id).content.is_some() && !self.blocks.carriers.is_empty();
        let fetchers = &self.schedule.fetchers;
        // The far trader's links may come up a moment after those of the one that asks.
        let is_hopeful = fetchers.is_empty() && waited < limits::UPSTREAM_PATIENCE;
        (fetchers.values().any(|fetcher| fetcher.is_moving(now)) || by_ranges || is_hopeful)
            && now >= self.hold.until
            && (waited < limits::ROOM_PATIENCE || self.has_room_for_one_more())
    }

    /// A link that lives but does not get on, whatever its peer sends: who waits for its object may have other ways.
    fn is_stalled(&self, link: LinkId, now: Time) -> bool {
        self.schedule.fetchers.get(&link).is_some_and(|fetcher| !fetcher.is_moving(now))
    }

    /// A generation of an object changed or vanished under its sender: it is withdrawn until the root has been looked
    /// at again. What is said of another generation is no news.
    pub fn handle_source_failed(&mut self, id: ObjectId, generation: Generation, reason: String, now: Time) {
        self.fail_source(id, generation, Problem::Source(reason), now);
    }

    /// The same of one that cannot be read: until it can, whoever asks for it is told so.
    pub fn handle_source_unreadable(&mut self, id: ObjectId, generation: Generation, reason: String, now: Time) {
        self.fail_source(id, generation, Problem::Unreadable(reason), now);
    }

    fn fail_source(&mut self, id: ObjectId, generation: Generation, problem: Problem, now: Time) {
        if !self.is_current(id, generation) {
            return;
        }
        match self.kind {
            Kind::Offer => self.withdraw_id(id),
            // A spool's own file is gone or unreadable.
            Kind::Relay | Kind::Fetch => self.lose(id, now),
        }
        let reason = problem.to_string();
        if self.at_mut(id).problem.replace(problem).is_none() {
            self.totals.failed += 1;
        }
        let name = self.at(id).name.clone();
        self.events.push_back(Event::SourceFailed { name, reason });
        self.wake_readers(id);
        if self.kind == Kind::Relay {
            self.clear_unread_problem(id);
            self.forget_if_idle(id);
        }
    }

    /// As if it had never been here; who wants it asks again.
    fn lose(&mut self, id: ObjectId, now: Time) {
        if let ObjectState::Present { size } = self.at(id).state() {
            self.unmark_evictable(id);
            self.uncount_present(size);
            self.room_give_back(size);
            self.forget_hashed(id);
            let object = self.at_mut(id);
            object.set_state(ObjectState::Absent);
            object.generation = object.generation.next();
            let name = object.name.clone();
            self.actions.push_back(Action::Evict { id, name });
        } else {
            self.give_back(id);
        }
        self.at_mut(id).retry_at = now + limits::RETRY_PENDING_MIN;
    }

    /// Throws away what a spool need not keep: what was delivered and not asked for again for a while, and what nobody
    /// asked for in a longer while. A spool that kept such objects could serve them when their source has long changed.
    pub fn expire(&mut self, now: Time) {
        self.set_clock(now);
        while let Some(id) = self.room.as_ref().and_then(|room| room.expired(now)) {
            self.evict(id);
        }
    }

    // -- room in a spool ---------------------------------------------------------------------------------------------

    /// Whether another object may be asked for: there is room for one as long as the longest met so far besides
    /// those on order, or nothing is on order and nothing holds room that will not come free.
    pub(super) fn has_room_for_one_more(&self) -> bool {
        let Some(room) = &self.room else { return true };
        let is_open = |id: &&ObjectId| matches!(self.at(**id).state(), ObjectState::Requested { .. });
        let on_order = self.schedule.fetchers.values().flat_map(|f| &f.outstanding);
        let unknown = on_order.filter(is_open).count() as u64;
        if unknown > 0 && self.longest.0 == 0 {
            return true;
        }
        room.could_fit(ByteCount((unknown + 1) * self.longest.0)) || (unknown == 0 && room.is_free())
    }

    /// Evicts until `size` more bytes fit; `false` where they cannot.
    pub(super) fn make_room(&mut self, size: ByteCount) -> bool {
        loop {
            let Some(room) = &mut self.room else { return true };
            if room.fits(size) {
                return true;
            }
            if size.0 > 0 && !room.could_fit(size) {
                return false;
            }
            let Some(id) = room.next_to_go() else { return false };
            self.evict(id);
        }
    }

    pub(super) fn evict(&mut self, id: ObjectId) {
        if matches!(self.at(id).state(), ObjectState::Gathering { .. }) {
            self.give_back(id);
            self.at_mut(id).delivered = false;
            self.forget_if_idle(id);
            return;
        }
        self.evict_id(id);
        self.forget_if_idle(id);
    }

    /// Throws a present object away.
    pub(super) fn evict_id(&mut self, id: ObjectId) {
        self.unmark_evictable(id);
        let size = self.at(id).footprint();
        self.room_give_back(size);
        self.uncount_present(size);
        self.forget_hashed(id);
        let object = self.at_mut(id);
        object.set_state(ObjectState::Absent);
        object.delivered = false;
        object.rest();
        let name = object.name.clone();
        self.actions.push_back(Action::Evict { id, name });
    }

    pub(super) fn room_take(&mut self, size: ByteCount) {
        if let Some(room) = &mut self.room {
            room.take(size);
        }
    }

    pub(super) fn room_give_back(&mut self, size: ByteCount) {
        if let Some(room) = &mut self.room {
            room.give_back(size);
        }
    }

    pub(super) fn update_evictable(&mut self, id: ObjectId) {
        let Some(room) = &mut self.room else { return };
        let object = &self.objects[id.0 as usize];
        if object.is_evictable() {
            room.may_go(id, object.footprint(), object.delivered, object.kept_until());
        }
    }

    /// An object is wanted, or goes by itself: it is not one that may go to make room.
    pub(super) fn unmark_evictable(&mut self, id: ObjectId) {
        let Some(room) = &mut self.room else { return };
        let object = &self.objects[id.0 as usize];
        // Whatever is marked may go: it is unmarked before it may not, or has other marks.
        if !object.is_evictable() {
            return;
        }
        room.must_stay(id, object.footprint(), object.delivered, object.kept_until());
    }

    /// A spool of `max` takes what was too long for it.
    pub(super) fn forget_too_long(&mut self, max: ByteCount) {
        let all = if self.totals.failed > 0 { self.objects.len() as u32 } else { 0 };
        for id in (0..all).map(ObjectId) {
            if matches!(self.at(id).problem, Some(Problem::LargerThanSpool { size, .. }) if size <= max) {
                self.clear_problem(id);
                self.forget_if_idle(id);
            }
        }
    }

    /// Drops an object from the table when nobody wants it and nothing of it is here. A list keeps its objects.
    pub(super) fn forget_if_idle(&mut self, id: ObjectId) {
        let object = self.at(id);
        // One that cannot fit is remembered: fetching it to learn so again would cost all of its bytes.
        let cannot_fit = matches!(object.problem, Some(Problem::LargerThanSpool { .. }));
        let idle = object.state() == ObjectState::Absent && object.readers.is_empty() && !cannot_fit;
        let idle = idle && object.content.is_none();
        if self.kind == Kind::Fetch || !idle || self.id_of(&object.name) != Some(id) || self.is_on_order(id) {
            return;
        }
        self.drop_from_table(id);
    }
}
