//! What becomes of objects that are whole, or cannot be stored.

use std::time::Duration;

use super::action::{Event, Fault, Problem};
use super::flow::{Flow, Kind};
use super::object::ObjectState;
use super::room::Room;
use crate::limits;
use crate::units::{Generation, ObjectId, Offset, Time};

/// What keeps a flow from fetching anything: the store could not take the last thing.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// Nothing new is fetched before this.
    pub(super) until: Time,
    /// For how long it was, the last time; none since something was stored.
    delay: Duration,
    /// What the store said.
    reason: String,
}

impl Flow {
    /// A generation is final (and marked).
    pub fn handle_committed(&mut self, id: ObjectId, generation: Generation, now: Time) {
        let ObjectState::Whole { size } = self.at(id).state() else { return };
        if !self.is_current(id, generation) {
            return;
        }
        self.close_part();
        let object = self.at_mut(id);
        object.last_use = now;
        object.set_here(object.content.as_ref().map(|content| content.root));
        let is_changed = object.passing_mut().is_some_and(|passing| std::mem::take(&mut passing.attributes_changed));
        self.set_present(id, size);
        if is_changed {
            self.renew_attributes(id);
        }
        self.hold.delay = Duration::ZERO;
        let name = self.at(id).name.clone();
        let here = self.at(id).content.as_ref().map(|content| content.root);
        // Where an earlier run has left some of it, it has come another way.
        self.actions.extend(self.blocks.discard(&name, |left| Some(left.root) == here));
        self.events.push_back(Event::Committed { name, size });
        self.wake_readers(id);
        self.hash_if_asked(id);
        if self.room.is_some() {
            // It may go now if nobody reads it, and so make room.
            self.wake_fetchers();
            // What passes from memory to memory comes faster than anybody looks from time to time.
            self.expire(now);
        }
    }

    /// The store could not take a generation: it is over. Nothing new at all is fetched for a while where that is the
    /// fault of the whole store.
    pub fn handle_store_failed(&mut self, id: ObjectId, generation: Generation, why: String, fault: Fault, now: Time) {
        // What a relay has in memory may want a file.
        let is_here = matches!(self.at(id).state(), ObjectState::Present { .. });
        if !self.is_current(id, generation) || (is_here && self.kind != Kind::Relay) {
            return;
        }
        if fault == Fault::Store {
            // All links meet a full disk at once: that is one failure, not one for each.
            if now >= self.hold.until {
                self.hold.delay = (self.hold.delay * 2).clamp(limits::HOLD_MIN, limits::HOLD_MAX);
                self.hold.until = now + self.hold.delay;
            }
            self.hold.reason.clone_from(&why);
            // A disk that is smaller than the bound of its spool is full before that: it is no place to keep anything.
            while let Some(delivered) = self.room.as_ref().and_then(Room::delivered) {
                self.evict(delivered);
            }
        }
        if is_here {
            return;
        }
        let is_coming_in = match self.at(id).state() {
            ObjectState::Arriving { link, .. } => self.head(link) == Some(id),
            ObjectState::Growing { link, end, .. } => end.is_none() && self.is_ordered(link, id),
            _ => false,
        };
        self.give_back(id);
        // For one name an operator has to make room: until then every try may cost all its bytes.
        let most = if fault == Fault::Name { limits::PLACE_RETRY_MAX } else { limits::HOLD_MAX };
        self.fail_for(id, Problem::Store(why), most, now);
        // What still comes in is thrown away first.
        if !is_coming_in {
            self.enqueue_later(id, now);
        }
        self.wake_all_readers();
    }

    /// A generation that is whole could not be made final, and all its bytes are still here: no more than that is tried
    /// again. `false`: it is not wanted any more, and nobody goes on with what is here.
    pub fn handle_commit_failed(
        &mut self,
        id: ObjectId,
        generation: Generation,
        why: String,
        fault: Fault,
        now: Time,
    ) -> bool {
        let object = self.at(id);
        let is_wanted = self.kind == Kind::Fetch && self.is_current(id, generation);
        let Some(content) = object.content.as_ref().filter(|_| is_wanted) else { return false };
        let (name, size, root) = (object.name.clone(), content.size, content.root);
        self.handle_store_failed(id, generation, why, fault, now);
        self.resume(name, (size, root), [(Offset(0), size)].into_iter().collect(), Vec::new());
        true
    }

    /// Why the store could not take the last thing, until [`limits::HOLD_MAX`] after it may be tried again: longer than
    /// [`Flow::hold_reason`].
    pub fn last_store_failure(&self, now: Time) -> Option<&str> {
        let is_news = self.hold.delay > Duration::ZERO && now < self.hold.until + limits::HOLD_MAX;
        is_news.then_some(&self.hold.reason)
    }
}
