//! One set of objects: its table, and the side that fetches them.
//!
//! The side that serves is in [`serve`](super::serve). Methods by kind: `handle_*` (something happened), `poll_*` (what
//! to do next), plain verbs (commands).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::action::{Action, Event, Problem, Refusal};
use super::blocks::Blocks;
use super::interest::Interests;
use super::lag::Missed;
use super::ledger::Ledger;
use super::mirror::Asks;
use super::names::Names;
use super::object::{Object, ObjectState};
use super::pace;
use super::progress::Totals;
use super::room::Room;
use super::schedule::{self, Fetcher, Schedule, Side};
use super::stored::Hold;
use crate::limits;
use crate::units::{ByteCount, Generation, LinkId, NodeName, ObjectId, ObjectName, Root256, Time};

/// What decides which objects a flow fetches, and what it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everything in the table that is not present (a trader's `remote/`).
    Fetch,
    /// Nothing; it only serves (a trader's `local/`).
    Offer,
    /// What somebody asked for, kept within a number of bytes (an exchange's spool).
    Relay,
}

/// A set of objects that comes in over some links and goes out over others.
#[derive(Debug)]
pub struct Flow {
    pub(super) kind: Kind,
    pub(super) objects: Vec<Object>,
    pub(super) names: Names,
    pub(super) free: Vec<ObjectId>,
    /// Objects that have readers.
    pub(super) read: BTreeSet<ObjectId>,
    pub(super) schedule: Schedule,
    pub(super) blocks: Blocks,
    pub(super) interests: Interests,
    pub(super) ledger: Ledger,
    pub(super) asks: Asks,
    /// Links came or went: what is absent is dealt out anew before the next object is asked for.
    pub(super) undealt: bool,
    /// Only what is on the list by name is fetched.
    pub(super) listed_only: bool,
    pub(super) room: Option<Room>,
    pub(super) totals: Totals,
    /// Bytes of names and checksums of the objects whose content is known.
    pub(super) known_bytes: u64,
    pub(super) missed: Missed,
    /// Part files that are open: of objects that are arriving, or whole and not committed yet.
    pub(super) open_parts: usize,
    /// The longest object met so far.
    pub(super) longest: ByteCount,
    pub(super) hold: Hold,
    pub(super) actions: VecDeque<Action>,
    pub(super) events: VecDeque<Event>,
    pub(super) wakes: BTreeSet<LinkId>,
}

impl Flow {
    /// A flow that fetches whatever is put on its list by [`Flow::want`].
    pub fn fetch() -> Self {
        Self::new(Kind::Fetch, None)
    }

    /// A flow that serves what [`Flow::offer`] names.
    pub fn offer_only() -> Self {
        Self::new(Kind::Offer, None)
    }

    /// A flow that fetches on demand and keeps at most `max` bytes.
    pub fn relay(max: ByteCount) -> Self {
        Self::new(Kind::Relay, Some(Room::new(max)))
    }

    fn new(kind: Kind, room: Option<Room>) -> Self {
        Self {
            kind,
            objects: Vec::new(),
            names: Names::default(),
            free: Vec::new(),
            read: BTreeSet::new(),
            schedule: Schedule::default(),
            blocks: Blocks::default(),
            interests: Interests::default(),
            ledger: Ledger::default(),
            asks: Asks::default(),
            undealt: false,
            listed_only: false,
            room,
            totals: Totals::default(),
            known_bytes: 0,
            missed: Missed::default(),
            open_parts: 0,
            longest: ByteCount(0),
            hold: Hold::default(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            wakes: BTreeSet::new(),
        }
    }

    /// Names are looked up by this from now on. To be called first, with what no peer can know.
    pub fn set_key(&mut self, key: u64) {
        self.names.set_key(key);
    }

    /// What decides which objects it fetches.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How far it has come.
    pub fn totals(&self) -> Totals {
        let mut totals = self.totals;
        let on_order = self.schedule.fetchers.values().flat_map(|f| &f.outstanding);
        for object in on_order.map(|&id| self.at(id)) {
            if let ObjectState::Arriving { written, .. } | ObjectState::Growing { written, .. } = object.state() {
                totals.arriving += 1;
                totals.arriving_bytes += written;
                totals.arriving_failed += u64::from(object.problem.is_some());
            }
        }
        for (&id, gather) in &self.blocks.gathers {
            if let ObjectState::Gathering { verified, .. } = self.at(id).state()
                && gather.started
            {
                totals.arriving += 1;
                totals.arriving_bytes += verified;
                totals.arriving_failed += u64::from(self.at(id).problem.is_some());
            }
        }
        totals
    }

    /// Whether nothing is left to fetch: everything wanted is present, nothing demanded is missing.
    pub fn is_complete(&self) -> bool {
        match self.kind {
            Kind::Fetch => self.totals.present == self.totals.objects,
            Kind::Offer => true,
            Kind::Relay => self.read.is_empty(),
        }
    }

    /// Bytes that the spool holds and may hold.
    pub fn spool(&self) -> Option<(ByteCount, ByteCount)> {
        self.room.as_ref().map(|room| (room.used(), room.max()))
    }

    /// Changes the spool's bound; what is over it goes as soon as it may.
    pub fn resize_spool(&mut self, max: ByteCount) {
        if let Some(room) = &mut self.room {
            room.resize(max);
            self.make_room(ByteCount(0));
            self.forget_too_long(max);
            self.wake_fetchers();
        }
    }

    /// An object's name.
    pub fn name(&self, id: ObjectId) -> &ObjectName {
        &self.at(id).name
    }

    /// An object's state.
    pub fn state(&self, id: ObjectId) -> ObjectState {
        self.at(id).state()
    }

    /// All objects with what an operator may want to know of them: name, state, length where known, problem. In the
    /// order of the table, which is about that in which they became known.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectName, ObjectState, Option<ByteCount>, Option<&Problem>)> {
        let named = self.objects.iter().filter(|object| !object.is_gone());
        named.map(|o| (&o.name, o.state(), o.expected(), o.problem.as_ref()))
    }

    // -- what is wanted --------------------------------------------------------------------------------------------

    /// Puts an object on the list; `present` says that it is here already, whole and marked. Call
    /// [`Flow::share_out`] after the last.
    pub fn want(&mut self, name: ObjectName, size: Option<ByteCount>, present: bool) -> ObjectId {
        debug_assert_eq!(self.kind, Kind::Fetch);
        let id = self.id_of(&name).unwrap_or_else(|| self.insert(name, size));
        self.at_mut(id).listed = true;
        if let (true, Some(size)) = (present, size)
            && !matches!(self.at(id).state(), ObjectState::Present { .. })
        {
            self.give_back(id);
            self.set_present(id, size);
        }
        self.note_unknown(id);
        id
    }

    /// An object that is present with this size is to be fetched again: its file or marker is gone, or is not what the
    /// marker says. False: no such object is present.
    pub fn want_again(&mut self, name: &ObjectName, size: ByteCount) -> bool {
        let Some(id) = self.id_of(name).filter(|&id| self.at(id).state() == ObjectState::Present { size }) else {
            return false;
        };
        if self.lose_kept(id) {
            return true;
        }
        self.uncount_present(size);
        let object = self.at_mut(id);
        object.keep_expected();
        object.set_state(ObjectState::Absent);
        object.set_here(None);
        self.miss(id);
        self.note_unknown(id);
        // Without a list nothing is asked for by its name alone: it may be gone at its origin, and what comes could not
        // be checked.
        if self.at(id).listed || self.at(id).content.is_some() {
            self.enqueue(id);
        }
        true
    }

    /// An object that a spool holds from before, and its root where that is known. Objects beyond the bound go at once.
    pub fn keep(&mut self, name: ObjectName, size: ByteCount, root: Option<Root256>) {
        debug_assert_eq!(self.kind, Kind::Relay);
        let id = self.id_of(&name).unwrap_or_else(|| self.insert(name, None));
        if matches!(self.at(id).state(), ObjectState::Present { .. }) {
            return;
        }
        self.at_mut(id).set_here(root);
        self.give_back(id);
        self.room_take(size);
        self.set_present(id, size);
        self.make_room(ByteCount(0));
    }

    /// The same of one that was kept by this root and has not been read since: that is asked for.
    pub fn keep_unread(&mut self, name: ObjectName, size: ByteCount, root: Root256) {
        self.keep(name.clone(), size, Some(root));
        if let Some(id) = self.id_of(&name).filter(|&id| matches!(self.at(id).state(), ObjectState::Present { .. })) {
            self.actions.push_back(Action::Check { id, generation: self.at(id).generation, root });
        }
    }

    /// Deals out what is absent to the links that are first choice for it. To be called when the list or the links
    /// have changed; a flow that fetches on demand has nothing to deal out.
    pub fn share_out(&mut self, now: Time) {
        if self.kind != Kind::Fetch {
            return;
        }
        self.undealt = false;
        let total = self.objects.len() as u64;
        let on_order: BTreeSet<_> =
            self.schedule.fetchers.values().flat_map(|fetcher| fetcher.outstanding.iter().copied()).collect();
        let absent = |o: &Object| o.state() == ObjectState::Absent;
        let (ready, later): (Vec<_>, Vec<_>) = (0..total)
            .filter(|&i| absent(&self.objects[i as usize]))
            .map(|i| (ObjectId(i as u32), i))
            .partition(|&(id, _)| self.at(id).retry_at <= now && !on_order.contains(&id));
        self.schedule.share_out(ready.into_iter(), total);
        for (id, _) in later {
            self.schedule.defer(id, self.at(id).retry_at);
        }
        self.wake_fetchers();
    }

    /// The links have changed. All that is absent is looked at for that, so it waits until there is somebody to ask
    /// for it: many links that come and go together cost no more than one.
    pub(super) fn links_changed(&mut self) {
        self.undealt = self.kind == Kind::Fetch;
        self.wake_fetchers();
    }

    // -- links that fetch --------------------------------------------------------------------------------------------

    /// A link to `peer` may fetch from now on.
    pub fn attach_fetcher(&mut self, link: LinkId, peer: NodeName) {
        self.schedule.attach(link, peer);
        self.links_changed();
    }

    /// A link is gone; what it had on order is given back at once.
    pub fn detach_fetcher(&mut self, link: LinkId) {
        // One that has met nobody was never attached: all that is wanted need not be dealt out anew.
        let Some(orphans) = self.schedule.detach(link) else { return };
        for id in orphans.into_iter().rev() {
            if self.free_if_gone(id) {
                continue;
            }
            self.end_attempt_of(link, id);
            if self.at(id).state() == ObjectState::Absent {
                self.enqueue_first(id);
            }
            self.wake_readers(id);
        }
        self.links_changed();
        self.wakes.remove(&link);
        if self.schedule.fetchers.is_empty() {
            self.wake_all_readers();
        }
    }

    /// The next object that `link` should ask for, now on order. `one_by_one`: the peer takes one request at a time.
    pub fn next_request(&mut self, link: LinkId, one_by_one: bool, now: Time) -> Option<ObjectId> {
        self.leave_to_whole(now);
        if now < self.hold.until || !self.may_ask(link, one_by_one, now) {
            return None;
        }
        if self.kind == Kind::Relay && !self.has_room_for_one_more() {
            return None;
        }
        if self.undealt {
            self.share_out(now);
        }
        let id = self.take_request(link, now).or_else(|| {
            let is_given = self.kind == Kind::Fetch && self.leave_one_to_whole(now);
            is_given.then(|| self.take_request(link, now)).flatten()
        })?;
        self.let_go(id);
        let fetcher = self.schedule.fetchers.get_mut(&link)?;
        if fetcher.outstanding.is_empty() {
            fetcher.asked_at = now;
            fetcher.moved_at = now;
        }
        fetcher.outstanding.push_back(id);
        fetcher.meter.start(now);
        let object = self.at_mut(id);
        object.queued = false;
        object.set_state(ObjectState::Requested { link });
        Some(id)
    }

    /// What of that which is queued `link` is to ask for.
    fn take_request(&mut self, link: LinkId, now: Time) -> Option<ObjectId> {
        let typical = self.longest;
        let (objects, schedule) = (&self.objects, &mut self.schedule);
        // Beside links that carry blocks, which take what comes first of the list, the others begin at its end. A relay
        // leaves to them what is known block by block, and everybody what is about to come or once came wrong.
        let by_blocks = !self.blocks.carriers.is_empty();
        let (kind, interests) = (self.kind, &self.interests);
        let is_left = |id: ObjectId, object: &Object| {
            let is_known = by_blocks && object.content.is_some();
            is_known && (kind == Kind::Relay || object.problem == Some(Problem::WrongRoot) || interests.is_standing(id))
        };
        let is_waiting = |id: ObjectId| {
            let object = &objects[id.0 as usize];
            object.state() == ObjectState::Absent && object.queued && !is_left(id, object)
        };
        let from = if by_blocks && kind == Kind::Fetch { Side::Back } else { Side::Front };
        let owed = |fetcher: &Fetcher| owed(objects, fetcher, typical);
        let pending_at = |id: ObjectId| objects[id.0 as usize].pending_at.as_ref();
        schedule.take((link, from), now, typical, is_waiting, owed, pending_at)
    }

    fn may_ask(&self, link: LinkId, one_by_one: bool, now: Time) -> bool {
        let Some(fetcher) = self.schedule.fetchers.get(&link) else { return false };
        if self.open_parts >= limits::OPEN_PARTS_MAX {
            return false;
        }
        if fetcher.outstanding.is_empty() {
            return true;
        }
        if one_by_one || fetcher.outstanding.len() >= limits::REQUESTS_PER_LINK_MAX || self.longest.0 == 0 {
            return false;
        }
        owed(&self.objects, fetcher, self.longest) < pace::ahead_bytes(fetcher.meter.rate(now))
    }

    /// The peer begins to send the head of what `link` has on order. Its bytes belong to the generation returned.
    pub fn handle_begin(
        &mut self,
        link: LinkId,
        size: ByteCount,
        now: Time,
    ) -> Result<(ObjectId, Generation), Refusal> {
        let id = self.head(link).expect("the link checks that it has something on order");
        if let Some(fetcher) = self.schedule.fetchers.get_mut(&link) {
            fetcher.head_received = ByteCount(0);
            fetcher.handle_begin();
        }
        // Absent: its attempt failed, or it is open to others and none has asked.
        let is_wanted = self.at(id).state() == ObjectState::Absent || self.end_attempt_of(link, id);
        if !is_wanted || self.at(id).is_gone() {
            return Err(Refusal::NotWanted);
        }
        self.at_mut(id).queued = false;
        if let Some(expected) = self.at(id).expected().filter(|&expected| expected != size && self.kind == Kind::Fetch)
        {
            self.fail(id, Problem::WrongSize { expected, found: size }, now);
            return Err(Refusal::WrongSize);
        }
        if let Some(max) = self.room.as_ref().map(Room::max) {
            if !self.make_room(size) {
                if size > max {
                    self.fail(id, Problem::LargerThanSpool { size, max }, now);
                } else {
                    self.at_mut(id).retry_at = now + limits::RETRY_PENDING_MIN;
                }
                self.wake_readers(id);
                return Err(Refusal::NoRoom);
            }
            self.room_take(size);
        }
        // Not before: an object that is longer than the spool says nothing of the room that the others need.
        self.longest = self.longest.max(size);
        let object = self.at_mut(id);
        object.generation = object.generation.next();
        object.set_state(ObjectState::Arriving { link, size, written: ByteCount(0), created: false });
        let generation = object.generation;
        self.open_parts += 1;
        self.actions.push_back(Action::Create { id, generation, size: Some(size) });
        Ok((id, generation))
    }

    /// `bytes` of the head's payload came in (for the measured rate).
    pub fn handle_payload(&mut self, link: LinkId, bytes: ByteCount, now: Time) {
        if let Some(fetcher) = self.schedule.fetchers.get_mut(&link) {
            fetcher.head_received += bytes;
            fetcher.moved_at = now;
            fetcher.meter.add(bytes, now);
        }
    }

    /// All bytes of the head came in (some may still be on their way to disk), or the rest of it was thrown away.
    pub fn handle_received(&mut self, link: LinkId, now: Time) {
        let Some(id) = self.pop_head(link, now) else { return };
        // Refused, or failed while it came in: it is nobody's now and waits for its next try.
        if self.at(id).state() == ObjectState::Absent && !self.at(id).queued {
            self.enqueue_later(id, now);
        }
    }

    /// The peer says that the head is not there now; it leaves the order and is tried again later.
    pub fn handle_pending(&mut self, link: LinkId, now: Time) {
        if let Some(id) = self.pop_head(link, now) {
            self.put_off(link, id, now);
        }
    }

    /// What `link` was given to ask for last cannot be asked for over it.
    pub fn handle_unaskable(&mut self, link: LinkId, now: Time) {
        let Some(fetcher) = self.schedule.fetchers.get_mut(&link) else { return };
        let Some(id) = fetcher.outstanding.pop_back() else { return };
        if fetcher.outstanding.is_empty() {
            fetcher.meter.stop(now);
        }
        self.put_off(link, id, now);
    }

    /// The peer of `link` has not what was asked of it.
    fn put_off(&mut self, link: LinkId, id: ObjectId, now: Time) {
        let is_idle = self.at(id).state() == ObjectState::Absent && !self.at(id).queued;
        if !self.end_attempt_of(link, id) && !is_idle {
            return;
        }
        let peer = self.schedule.fetchers.get_mut(&link).map(|fetcher| {
            fetcher.handle_pending(now);
            fetcher.peer.clone()
        });
        let object = self.at_mut(id);
        object.pending_at = peer;
        object.retry_delay = (object.retry_delay * 2).clamp(limits::RETRY_PENDING_MIN, limits::RETRY_PENDING_MAX);
        object.retry_at = now + object.retry_delay;
        self.enqueue_later(id, now);
        self.wake_readers(id);
    }

    /// When the fetching side wants to be looked at again though nothing happens: `link` has nothing on order, and
    /// something is to be tried again or could be taken from another link.
    pub fn poll_timeout(&self, link: LinkId, now: Time) -> Option<Time> {
        let fetcher = self.schedule.fetchers.get(&link)?;
        if !fetcher.outstanding.is_empty() {
            return None;
        }
        let retry = self.schedule.next_retry().map(|at| if at <= now { now + schedule::LOOK_AGAIN } else { at });
        let look = (self.undealt || self.schedule.has_queued()).then(|| now + schedule::LOOK_AGAIN);
        let at = [retry, look].into_iter().flatten().min()?;
        Some(at.max(self.hold.until).max(now + Duration::from_millis(1)))
    }

    /// What the rim is to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What there is to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A link that should be polled, for it may have something new to ask for or to send.
    pub fn poll_wake(&mut self) -> Option<LinkId> {
        self.wakes.pop_first()
    }

    /// The object that `link` is fetching, if any.
    pub fn head(&self, link: LinkId) -> Option<ObjectId> {
        self.schedule.fetchers.get(&link)?.outstanding.front().copied()
    }

    /// The object that `link` asked for last, if it has not had it.
    pub fn last_on_order(&self, link: LinkId) -> Option<ObjectId> {
        self.schedule.fetchers.get(&link)?.outstanding.back().copied()
    }

    /// Whether `generation` is the attempt under way or the one that made the object present.
    pub fn is_current(&self, id: ObjectId, generation: Generation) -> bool {
        self.at(id).generation == generation && self.at(id).state() != ObjectState::Absent
    }

    // -- helpers -----------------------------------------------------------------------------------------------------

    pub(super) fn at(&self, id: ObjectId) -> &Object {
        &self.objects[id.0 as usize]
    }

    pub(super) fn at_mut(&mut self, id: ObjectId) -> &mut Object {
        &mut self.objects[id.0 as usize]
    }

    pub(super) fn id_of(&self, name: &ObjectName) -> Option<ObjectId> {
        self.names.find(&self.objects, name)
    }

    /// A new absent object; a fetching flow queues it when it is shared out.
    pub(super) fn insert(&mut self, name: ObjectName, expected: Option<ByteCount>) -> ObjectId {
        let mut object = Object::new(name, expected);
        object.queued = self.kind == Kind::Fetch;
        let id = match self.free.pop() {
            Some(id) => {
                // Work of the object that had this place before may still be under way: its generation is over.
                object.generation = self.at(id).generation;
                *self.at_mut(id) = object;
                id
            }
            None => {
                self.objects.push(object);
                ObjectId(self.objects.len() as u32 - 1)
            }
        };
        self.names.insert(&self.objects, id);
        self.totals.objects += 1;
        self.miss(id);
        if let Some(expected) = expected {
            self.totals.bytes += expected;
            self.longest = self.longest.max(expected);
        }
        id
    }

    pub(super) fn set_present(&mut self, id: ObjectId, size: ByteCount) {
        if matches!(self.at(id).state(), ObjectState::Present { .. }) {
            return;
        }
        // A spool goes by when an object was used last.
        let is_at_rest = self.room.is_none();
        let object = self.at_mut(id);
        let had_problem = object.problem.is_some();
        object.queued = false;
        object.set_state(ObjectState::Present { size });
        if let Some(passing) = object.passing_mut() {
            passing.problem = None;
            passing.pending_at = None;
            passing.retry_delay = Duration::ZERO;
            passing.failures = 0;
        }
        if is_at_rest {
            object.rest();
        }
        self.totals.failed -= u64::from(had_problem);
        self.longest = self.longest.max(size);
        self.totals.present += 1;
        self.totals.present_bytes += size;
        self.drop_blocks(id);
        self.interests.is_known(id);
        self.let_go(id);
        self.update_evictable(id);
    }

    /// An object of this size is present no more.
    pub(super) fn uncount_present(&mut self, size: ByteCount) {
        self.totals.present -= 1;
        self.totals.present_bytes -= size;
    }

    pub(super) fn fail(&mut self, id: ObjectId, problem: Problem, now: Time) {
        self.fail_for(id, problem, limits::HOLD_MAX, now);
    }

    /// The next try is put off for twice as long as before, `most` at most.
    pub(super) fn fail_for(&mut self, id: ObjectId, problem: Problem, most: Duration, now: Time) {
        let object = self.at_mut(id);
        object.failures += 1;
        object.retry_delay = (object.retry_delay * 2).clamp(limits::HOLD_MIN, most);
        object.retry_at = now + object.retry_delay;
        self.tell_problem(id, problem);
    }

    /// Something is wrong with an object, and the operator is told once.
    pub(super) fn tell_problem(&mut self, id: ObjectId, problem: Problem) {
        let object = self.at_mut(id);
        let is_news = object.problem.as_ref() != Some(&problem);
        let first = object.problem.is_none();
        object.problem = Some(problem.clone());
        let name = object.name.clone();
        self.totals.failed += u64::from(first);
        if is_news {
            self.events.push_back(Event::Failed { name, problem });
        }
        self.clear_unread_problem(id);
    }

    /// What was wrong with an object is no news any more.
    pub(super) fn clear_problem(&mut self, id: ObjectId) {
        if self.at(id).problem.is_some() {
            self.at_mut(id).problem = None;
            self.totals.failed -= 1;
        }
    }

    pub(super) fn is_on_order(&self, id: ObjectId) -> bool {
        self.schedule.fetchers.values().any(|f| f.outstanding.contains(&id))
    }

    /// The head of `link` leaves the order; `None` where there is none, or no such object any more.
    fn pop_head(&mut self, link: LinkId, now: Time) -> Option<ObjectId> {
        let fetcher = self.schedule.fetchers.get_mut(&link)?;
        let id = fetcher.outstanding.pop_front()?;
        fetcher.moved_at = now;
        fetcher.head_received = ByteCount(0);
        if fetcher.outstanding.is_empty() {
            fetcher.meter.stop(now);
        }
        (!self.free_if_gone(id)).then_some(id)
    }

    /// An object has left what a link has on order. Whether it is gone: its place is another's once no link names it.
    pub(super) fn free_if_gone(&mut self, id: ObjectId) -> bool {
        let is_gone = self.at(id).is_gone();
        if is_gone && !self.is_on_order(id) {
            self.free.push(id);
        }
        is_gone
    }

    /// Ends the attempt of `link` at an object; `false` where the object is not in that link's hands.
    pub(super) fn end_attempt_of(&mut self, link: LinkId, id: ObjectId) -> bool {
        match self.at(id).state() {
            ObjectState::Requested { link: owner }
            | ObjectState::Arriving { link: owner, .. }
            | ObjectState::Growing { link: owner, .. }
                if owner == link =>
            {
                self.give_back(id);
                true
            }
            _ => false,
        }
    }

    /// Ends the attempt under way, if any: its part goes, its room is free, the object is absent.
    pub(super) fn give_back(&mut self, id: ObjectId) {
        let (footprint, generation) = (self.at(id).footprint(), self.at(id).generation);
        match self.at(id).state() {
            ObjectState::Gathering { .. } => {
                let is_open = self.blocks.gathers.get(&id).is_some_and(|gather| gather.opened);
                if is_open {
                    self.close_part();
                    self.actions.push_back(Action::Abandon { id, generation });
                }
                self.unmark_evictable(id);
                self.drop_blocks(id);
                self.room_give_back(footprint);
                self.at_mut(id).generation = generation.next();
            }
            ObjectState::Arriving { .. } | ObjectState::Growing { .. } | ObjectState::Whole { .. } => {
                self.close_part();
                self.actions.push_back(Action::Abandon { id, generation });
                self.room_give_back(footprint);
                // What the rim still says of this attempt is about nothing any more.
                self.at_mut(id).generation = generation.next();
            }
            ObjectState::Absent | ObjectState::Requested { .. } | ObjectState::Present { .. } => {}
        }
        self.at_mut(id).set_state(ObjectState::Absent);
    }

    /// A part file is no longer open: its place may be wanted.
    pub(super) fn close_part(&mut self) {
        if self.open_parts == limits::OPEN_PARTS_MAX {
            self.wake_fetchers();
            self.wake_carriers();
        }
        self.open_parts -= 1;
    }

    pub(super) fn wake_fetchers(&mut self) {
        self.wakes.extend(self.schedule.fetchers.keys());
    }

    pub(super) fn wake_readers(&mut self, id: ObjectId) {
        let object = &self.objects[id.0 as usize];
        self.wakes.extend(object.readers.keys());
        self.blocks.stirred.insert(object.range_readers(), id);
    }

    /// What could be hoped for no longer can, or the other way round.
    pub(super) fn wake_all_readers(&mut self) {
        for &id in &self.read {
            let object = &self.objects[id.0 as usize];
            self.wakes.extend(object.readers.keys());
            self.blocks.stirred.insert(object.range_readers(), id);
        }
    }
}

/// Bytes that a link has on order and has not had.
fn owed(objects: &[Object], fetcher: &Fetcher, typical: ByteCount) -> ByteCount {
    let length = |&id: &ObjectId| {
        let object = &objects[id.0 as usize];
        match object.state() {
            ObjectState::Arriving { size, .. } => size,
            _ => object.expected().unwrap_or(typical),
        }
    };
    let all: ByteCount = fetcher.outstanding.iter().map(length).sum();
    ByteCount(all.0.saturating_sub(fetcher.head_received.0))
}
