//! What is known of objects: entries that come from a peer's inventory or from the own store, and the log of them for
//! those who subscribe.

use super::action::{Action, Event, Problem};
use super::flow::{Flow, Kind};
use super::ledger::{Content, Entry, News, Record};
use super::object::ObjectState;
use crate::limits;
use crate::units::{ByteCount, LinkId, ObjectId, ObjectName, Root256};

impl Flow {
    /// An object is known to be so from now on. A flow that fetches wants it, unless what is present has the same root;
    /// a relay can serve it; one that offers tells of it. `None` where the table is full or the entry makes no sense.
    pub fn know(&mut self, entry: Entry) -> Option<ObjectId> {
        self.know_at(self.id_of(&entry.name), entry)
    }

    /// The same of one whose place in the table, if it has one, has been looked up.
    pub(super) fn know_at(&mut self, place: Option<ObjectId>, entry: Entry) -> Option<ObjectId> {
        let Entry { name, content } = entry;
        if !content.is_consistent() {
            return None;
        }
        // What it offers itself its root has room for.
        let is_too_much =
            self.kind != Kind::Offer && self.known_bytes + known_bytes(&name, &content) > limits::KNOWN_BYTES_MAX;
        let id = match place {
            Some(id) => id,
            None if self.listed_only || self.names.len() >= limits::OBJECTS_MAX || is_too_much => return None,
            None => self.insert(name.clone(), (self.kind == Kind::Fetch).then_some(content.size)),
        };
        if self.at(id).content.as_ref() == Some(&content) {
            return Some(id);
        }
        if is_too_much {
            return None;
        }
        if self.kind == Kind::Fetch && !self.has_listed_size(id, content.size) {
            return None;
        }
        // What is here has this root: who tells another length is wrong.
        let is_shorter_or_longer = matches!(self.at(id).state(), ObjectState::Present { size } if size != content.size);
        if is_shorter_or_longer && self.at(id).is_here(content.root) {
            return None;
        }
        let before = self.at(id).expected().unwrap_or_default();
        let is_other = self.at(id).content.as_ref().is_none_or(|known| !known.is_of_same_bytes(&content));
        let attributes = |content: &Content| (content.mode, content.mtime_ns);
        let has_attributes =
            self.at(id).content.as_ref().is_some_and(|known| attributes(known) == attributes(&content));
        // What comes whole while nothing is known of it may well be this: its root will tell.
        let may_be_it = self.at(id).content.is_none()
            && matches!(self.at(id).state(), ObjectState::Arriving { size, .. } if size == content.size);
        if self.kind != Kind::Offer && is_other && !may_be_it {
            self.leave_former(id, content.root);
        }
        if self.kind == Kind::Fetch {
            self.totals.bytes = ByteCount(self.totals.bytes.0 - before.0 + content.size.0);
        }
        self.set_content(id, Some(content));
        if is_other {
            self.at_mut(id).given_by = 0;
        }
        self.discard_left(id);
        self.is_told(id);
        if self.kind == Kind::Fetch {
            self.interests.is_known(id);
            if !has_attributes {
                self.renew_attributes(id);
            }
            if is_other && self.at(id).state() == ObjectState::Absent {
                self.want_known(id);
            }
        } else {
            // Somebody asked for all of it before it was known.
            let object = self.at(id);
            if object.state() == ObjectState::Absent && object.readers.values().any(|&asks| asks == 0) {
                self.want_known(id);
            }
            self.ledger.add(&mut self.objects, id);
            self.wakes.extend(&self.ledger.subscribers);
            self.resume_relayed(id);
        }
        Some(id)
    }

    /// There is no object of this name any more. What is present of it in a flow that fetches stays, in the table too:
    /// if it comes back as it was it is here. An [`Event::Forgotten`] tells of it.
    pub fn forget(&mut self, name: &ObjectName) {
        let Some(id) = self.id_of(name) else { return };
        if self.at(id).content.is_none() {
            return;
        }
        if self.kind == Kind::Relay {
            self.evict_former(id);
        } else if self.kind == Kind::Fetch && !matches!(self.at(id).state(), ObjectState::Present { .. }) {
            self.give_back(id);
        }
        self.drop_blocks(id);
        let is_wanted = self.kind == Kind::Fetch && !self.at(id).is_present();
        self.ledger.remove(&mut self.objects, id);
        self.wakes.extend(&self.ledger.subscribers);
        let object = self.at_mut(id);
        if is_wanted {
            object.keep_expected();
        }
        (object.told_by, object.given_by) = (0, 0);
        self.set_content(id, None);
        self.discard_left(id);
        self.wake_readers(id);
        if self.kind != Kind::Fetch {
            self.clear_problem(id);
            self.forget_if_idle(id);
            return;
        }
        self.note_unknown(id);
        self.events.push_back(Event::Forgotten { name: name.clone() });
        if self.at(id).listed {
            // It left its queue when it began to come in.
            if self.at(id).state() == ObjectState::Absent && !self.is_on_order(id) {
                self.enqueue(id);
            }
            return;
        }
        if self.at(id).is_present() {
            self.set_kept(id);
        } else {
            self.drop_from_table(id);
        }
    }

    /// The same, and nothing of it is here any more either, or will be.
    pub(super) fn forget_all_of(&mut self, id: ObjectId) {
        let name = self.at(id).name.clone();
        self.forget(&name);
        if self.id_of(&name) == Some(id) {
            self.drop_from_table(id);
        }
    }

    /// An object of this root is present, whole and marked, from an earlier run. Links are not attached yet.
    pub fn have(&mut self, name: ObjectName, size: ByteCount, root: Root256) -> ObjectId {
        let id = self.id_of(&name).unwrap_or_else(|| self.insert(name, Some(size)));
        self.at_mut(id).set_here(Some(root));
        if !matches!(self.at(id).state(), ObjectState::Present { .. }) {
            self.give_back(id);
            self.set_present(id, size);
        }
        id
    }

    /// Whether only objects that [`Flow::want`] names are fetched, whatever else peers have.
    pub fn fetch_listed_only(&mut self, listed_only: bool) {
        self.listed_only = listed_only;
        if !listed_only {
            self.ledger.cursors.clear();
            self.ledger.doubts.clear();
        }
    }

    /// Whether the content of an object of this name is known.
    pub fn knows(&self, name: &ObjectName) -> bool {
        self.id_of(name).is_some_and(|id| self.at(id).content.is_some())
    }

    /// What is known of the contents of all objects, in the order of the table.
    pub fn known(&self) -> impl Iterator<Item = (&ObjectName, &Content)> {
        self.objects.iter().filter_map(|object| Some((&object.name, object.content.as_ref()?)))
    }

    /// What is known of an object's content.
    pub fn content(&self, id: ObjectId) -> Option<&Content> {
        self.at(id).content.as_ref()
    }

    // -- the log -----------------------------------------------------------------------------------------------------

    /// Begins the log with an epoch that no earlier run has used.
    pub fn start_epoch(&mut self, epoch: u64) {
        self.ledger.start_over(&mut self.objects, epoch.max(1));
    }

    /// The epoch of the log.
    pub fn epoch(&self) -> u64 {
        self.ledger.epoch
    }

    /// Records of the log from number `seq` on, all of them where `epoch` is not the log's, with their numbers.
    pub fn news_from(&self, epoch: u64, seq: u64) -> impl Iterator<Item = (u64, News<'_>)> {
        self.ledger.from(&self.objects, epoch, seq).filter_map(|(seq, record)| match record {
            Record::Removed(name) => Some((seq, News::Removed(name))),
            Record::Known(id) => {
                let object = self.at(id);
                object.content.as_ref().map(|content| (seq, News::Known(&object.name, content)))
            }
        })
    }

    /// `link` is gone.
    pub fn unsubscribe(&mut self, link: LinkId) {
        self.ledger.subscribers.remove(&link);
    }

    // -- helpers -----------------------------------------------------------------------------------------------------

    pub(super) fn set_content(&mut self, id: ObjectId, content: Option<Content>) {
        let object = &mut self.objects[id.0 as usize];
        let before = std::mem::replace(&mut object.content, content);
        let bytes =
            |content: &Option<Content>| content.as_ref().map_or(0, |content| known_bytes(&object.name, content));
        self.known_bytes = self.known_bytes - bytes(&before) + bytes(&object.content);
    }

    /// An object of the list has the length that the list says, or the operator is told.
    fn has_listed_size(&mut self, id: ObjectId, found: ByteCount) -> bool {
        let object = self.at(id);
        let Some(expected) = object.expected().filter(|&expected| object.listed && expected != found) else {
            return true;
        };
        self.let_go(id);
        self.tell_problem(id, Problem::WrongSize { expected, found });
        false
    }

    /// An object is another one than it was: what is here or under way of the former is no use.
    fn leave_former(&mut self, id: ObjectId, root: Root256) {
        match self.at(id).state() {
            ObjectState::Present { .. } if self.at(id).is_here(root) => {}
            ObjectState::Present { .. } if self.kind == Kind::Relay => self.evict_former(id),
            ObjectState::Present { size } => {
                self.uncount_present(size);
                self.at_mut(id).set_state(ObjectState::Absent);
                self.miss(id);
            }
            ObjectState::Absent | ObjectState::Requested { .. } => self.drop_blocks(id),
            ObjectState::Arriving { .. }
            | ObjectState::Growing { .. }
            | ObjectState::Gathering { .. }
            | ObjectState::Whole { .. } => {
                self.give_back(id);
                self.wake_readers(id);
            }
        }
        if let Some(passing) = self.at_mut(id).passing_mut() {
            passing.retry_at = crate::units::Time::ZERO;
        }
    }

    /// An object's attributes are not known to be those that it should have; of one that is on the move, they are
    /// looked at when it is final.
    pub(super) fn renew_attributes(&mut self, id: ObjectId) {
        let object = self.at_mut(id);
        let generation = object.generation;
        if object.is_present() {
            self.actions.push_back(Action::SetAttributes { id, generation });
        } else if object.moving_mut().is_some() {
            object.attributes_changed = true;
        }
    }

    fn evict_former(&mut self, id: ObjectId) {
        if let ObjectState::Present { .. } = self.at(id).state() {
            self.evict_id(id);
        } else {
            self.give_back(id);
        }
        self.wake_readers(id);
    }

    fn want_known(&mut self, id: ObjectId) {
        self.at_mut(id).queued = false;
        self.enqueue(id);
    }

    pub(super) fn drop_from_table(&mut self, id: ObjectId) {
        let object = self.at(id);
        debug_assert!(object.readers.is_empty(), "it is read: {object:?}");
        let (failed, state) = (object.problem.is_some(), object.state());
        let expected = object.expected().unwrap_or_default();
        self.totals.failed -= u64::from(failed);
        self.totals.objects -= 1;
        self.totals.bytes -= expected;
        if let ObjectState::Present { size } = state {
            self.uncount_present(size);
        }
        self.names.remove(&self.objects, id);
        let object = self.at_mut(id);
        object.generation = object.generation.next();
        object.clear();
        self.free_if_gone(id);
    }
}

/// What is kept of an object because its content is known.
fn known_bytes(name: &ObjectName, content: &Content) -> u64 {
    (name.as_bytes().len() + size_of_val(&content.block_crcs[..])) as u64
}
