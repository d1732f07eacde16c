//! An object that one link brings whole: its bytes on their way to disk, and one whose length is told behind the last
//! of them.
//!
//! A link that knows an object's length when it begins calls [`Flow::handle_begin`] and [`Flow::handle_received`], in
//! the order in which it asked. One that does not calls [`Flow::handle_begin_unsized`], then [`Flow::handle_told`] or
//! [`Flow::handle_refused`], for any of the objects that it has on order.

use super::action::{Action, Problem, Refusal};
use super::flow::{Flow, Kind};
use super::object::{ObjectState, Told};
use crate::limits;
use crate::units::{ByteCount, Generation, LinkId, ObjectId, Time};

impl Flow {
    /// The part file of a generation stands.
    pub fn handle_created(&mut self, id: ObjectId, generation: Generation) {
        self.handle_begun(id, generation, false);
    }

    /// There is room in memory for a generation: it needs no part file.
    pub fn handle_kept(&mut self, id: ObjectId, generation: Generation) {
        self.handle_begun(id, generation, true);
    }

    fn handle_begun(&mut self, id: ObjectId, generation: Generation, in_memory: bool) {
        if !self.is_current(id, generation) {
            return;
        }
        if self.at(id).in_memory != in_memory {
            self.unmark_evictable(id);
            self.at_mut(id).in_memory = in_memory;
            self.update_evictable(id);
        }
        if let Some(ObjectState::Arriving { created, .. } | ObjectState::Gathering { created, .. }) =
            self.at_mut(id).moving_mut()
        {
            *created = true;
            self.wake_readers(id);
        }
        self.handle_written(id, generation, ByteCount(0));
    }

    /// `bytes` from the start of a generation are in its part file.
    pub fn handle_written(&mut self, id: ObjectId, generation: Generation, bytes: ByteCount) {
        if !self.is_current(id, generation) {
            return;
        }
        let whole = match self.at_mut(id).moving_mut() {
            Some(ObjectState::Arriving { size, written, .. }) => {
                *written = bytes.max(*written);
                (*written == *size).then_some(*size)
            }
            Some(ObjectState::Growing { written, end, .. }) => {
                *written = bytes.max(*written);
                end.filter(|told| *written >= told.received).map(|told| told.size)
            }
            _ => return,
        };
        if let Some(size) = whole {
            self.at_mut(id).set_state(ObjectState::Whole { size });
            let root = self.at(id).content.as_ref().map(|content| content.root);
            self.actions.push_back(Action::Commit { id, generation, root, size });
        }
        self.wake_readers(id);
    }

    /// The peer begins to send, or begins again, an object that `link` has on order; how long it is comes last. Its
    /// bytes belong to the generation returned. Not for a relay, which has to know what room an object takes.
    pub fn handle_begin_unsized(&mut self, link: LinkId, id: ObjectId) -> Result<Generation, Refusal> {
        debug_assert_eq!(self.kind, Kind::Fetch);
        if !self.is_ordered(link, id) || (self.at(id).state() != ObjectState::Absent && !self.end_attempt_of(link, id))
        {
            return Err(Refusal::NotWanted);
        }
        if let Some(fetcher) = self.schedule.fetchers.get_mut(&link) {
            fetcher.handle_begin();
        }
        let object = self.at_mut(id);
        object.queued = false;
        object.generation = object.generation.next();
        object.set_state(ObjectState::Growing { link, written: ByteCount(0), end: None });
        let generation = object.generation;
        self.open_parts += 1;
        self.actions.push_back(Action::Create { id, generation, size: None });
        Ok(generation)
    }

    /// All bytes of such an object came in (some may still be on their way to disk). `generation` is what they belong
    /// to, if they were wanted.
    pub fn handle_told(&mut self, link: LinkId, id: ObjectId, generation: Option<Generation>, told: Told, now: Time) {
        self.end_order(link, id, now);
        let is_current = generation.is_some_and(|generation| self.is_current(id, generation));
        let expected = self.at(id).expected().filter(|&expected| expected != told.size);
        if let (true, Some(expected)) = (is_current, expected) {
            self.give_back(id);
            self.fail(id, Problem::WrongSize { expected, found: told.size }, now);
        }
        // At least a byte, so that others are not taken for objects of which nothing is known.
        self.longest = self.longest.max(told.size).max(ByteCount(1));
        if let (true, Some(ObjectState::Growing { end, .. })) = (is_current, self.at_mut(id).moving_mut()) {
            *end = Some(told);
            let generation = self.at(id).generation;
            self.handle_written(id, generation, ByteCount(0));
        } else if self.at(id).state() == ObjectState::Absent && !self.at(id).queued {
            self.enqueue_later(id, now);
        }
    }

    /// The peer does not send an object that `link` has on order, or not to its end. It is tried again later.
    pub fn handle_refused(&mut self, link: LinkId, id: ObjectId, problem: Problem, now: Time) {
        self.end_order(link, id, now);
        let is_idle = self.at(id).state() == ObjectState::Absent && !self.at(id).queued;
        if self.end_attempt_of(link, id) || is_idle {
            self.fail(id, problem, now);
            self.enqueue_later(id, now);
        }
    }

    /// A seed-only peer is asked for one object at a time, and may never have it, or the rest of it. The head of
    /// `link`, where it was not begun or got no further for long, is open to the links of other peers; whoever begins
    /// it first brings it in.
    pub fn share_unanswered(&mut self, link: LinkId, now: Time) {
        let Some(fetcher) = self.schedule.fetchers.get(&link).filter(|_| self.kind == Kind::Fetch) else { return };
        let Some(&id) = fetcher.outstanding.front() else { return };
        let is_late = now.since(fetcher.asked_at) >= limits::UNANSWERED_MAX;
        let has_others = || {
            let others = self.schedule.fetchers.values().any(|other| other.peer != fetcher.peer);
            others || self.blocks.carriers.values().any(|carrier| carrier.peer != fetcher.peer)
        };
        let is_open = match self.at(id).state() {
            ObjectState::Requested { link: of } => of == link && is_late,
            ObjectState::Arriving { link: of, .. } => of == link && !fetcher.is_moving(now) && has_others(),
            _ => false,
        };
        if !is_open {
            return;
        }
        let peer = fetcher.peer.clone();
        self.give_back(id);
        let object = self.at_mut(id);
        object.queued = true;
        (object.pending_at, object.retry_at) = (Some(peer), now);
        self.schedule.defer(id, now);
        self.open_blocks(id, None);
        self.wake_fetchers();
    }

    /// How many attempts at an object came to nothing since it was present last.
    pub fn failures(&self, id: ObjectId) -> u32 {
        self.at(id).failures
    }

    pub(super) fn is_ordered(&self, link: LinkId, id: ObjectId) -> bool {
        self.schedule.fetchers.get(&link).is_some_and(|fetcher| fetcher.outstanding.contains(&id))
    }

    /// An object leaves what `link` has on order, whatever place it has there.
    fn end_order(&mut self, link: LinkId, id: ObjectId, now: Time) {
        let Some(fetcher) = self.schedule.fetchers.get_mut(&link) else { return };
        fetcher.outstanding.retain(|&other| other != id);
        fetcher.moved_at = now;
        fetcher.head_received = ByteCount(0);
        if fetcher.outstanding.is_empty() {
            fetcher.meter.stop(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{NodeName, ObjectName};

    const LINK: LinkId = LinkId(1);

    /// A flow that wants these objects, with all of them on order.
    fn ordered(names: &[&str]) -> (Flow, Vec<ObjectId>) {
        let mut flow = Flow::fetch();
        // What is not measured is asked for one by one.
        flow.longest = ByteCount(1);
        for text in names {
            flow.want(ObjectName::new(text.as_bytes()).expect("valid"), None, false);
        }
        flow.attach_fetcher(LINK, NodeName::new(b"s").expect("valid"));
        let ids: Vec<_> = std::iter::from_fn(|| flow.next_request(LINK, false, Time::ZERO)).collect();
        assert_eq!(ids.len(), names.len());
        (flow, ids)
    }

    fn actions(flow: &mut Flow) -> Vec<Action> {
        std::iter::from_fn(|| flow.poll_action()).collect()
    }

    #[test]
    fn an_object_is_whole_when_what_came_is_written_and_its_length_is_told() {
        let told = Told { size: ByteCount(90), received: ByteCount(100) };
        for written_first in [true, false] {
            let (mut flow, ids) = ordered(&["a"]);
            let id = ids[0];
            let generation = flow.handle_begin_unsized(LINK, id).expect("wanted");
            flow.handle_created(id, generation);
            flow.handle_written(id, generation, ByteCount(50));
            let create = Action::Create { id, generation, size: None };
            assert_eq!(actions(&mut flow), [create], "nothing is whole yet");
            if written_first {
                flow.handle_written(id, generation, ByteCount(100));
                flow.handle_told(LINK, id, Some(generation), told, Time::ZERO);
            } else {
                flow.handle_told(LINK, id, Some(generation), told, Time::ZERO);
                assert_eq!(actions(&mut flow), [], "its padding is not written yet");
                flow.handle_written(id, generation, ByteCount(100));
            }
            let commit = Action::Commit { id, generation, root: None, size: ByteCount(90) };
            assert_eq!(actions(&mut flow), [commit]);
            flow.handle_committed(id, generation, Time::ZERO);
            assert!(flow.is_complete());
        }
    }

    #[test]
    fn answers_may_come_in_any_order_and_begin_again() {
        let (mut flow, ids) = ordered(&["a", "b", "c"]);
        let first = flow.handle_begin_unsized(LINK, ids[2]).expect("wanted");
        flow.handle_begin_unsized(LINK, ids[0]).expect("wanted");
        let again = flow.handle_begin_unsized(LINK, ids[2]).expect("wanted");
        assert!(actions(&mut flow).contains(&Action::Abandon { id: ids[2], generation: first }));
        let told = Told { size: ByteCount(0), received: ByteCount(0) };
        flow.handle_told(LINK, ids[2], Some(again), told, Time::ZERO);
        let commit = Action::Commit { id: ids[2], generation: again, root: None, size: ByteCount(0) };
        assert_eq!(actions(&mut flow).last(), Some(&commit));
        assert_eq!(flow.handle_begin_unsized(LINK, ids[2]), Err(Refusal::NotWanted), "it is not on order any more");
    }

    #[test]
    fn what_the_peer_refuses_is_counted_and_tried_again() {
        let (mut flow, ids) = ordered(&["a", "b"]);
        flow.handle_refused(LINK, ids[0], Problem::Refused("there is none".into()), Time::ZERO);
        let generation = flow.handle_begin_unsized(LINK, ids[1]).expect("wanted");
        flow.handle_refused(LINK, ids[1], Problem::BrokenOff("it changed".into()), Time::ZERO);
        assert!(actions(&mut flow).contains(&Action::Abandon { id: ids[1], generation }));
        assert_eq!((flow.failures(ids[0]), flow.failures(ids[1])), (1, 1));
        assert_eq!(flow.next_request(LINK, false, Time::ZERO), None, "not at once");
        assert!(flow.poll_timeout(LINK, Time::ZERO).is_some());
    }

    #[test]
    fn a_dead_link_gives_up_what_it_had_begun() {
        let (mut flow, ids) = ordered(&["a"]);
        let generation = flow.handle_begin_unsized(LINK, ids[0]).expect("wanted");
        flow.detach_fetcher(LINK);
        assert!(actions(&mut flow).contains(&Action::Abandon { id: ids[0], generation }));
        assert_eq!((flow.state(ids[0]), flow.open_parts), (ObjectState::Absent, 0));
    }
}
