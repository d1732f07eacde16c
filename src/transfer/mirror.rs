//! Whether what a peer tells is all that there is, so that what it does not tell is gone; and what goes then.
//!
//! That a log lacks an object says nothing by itself: its keeper may have just begun to hash its store, or be a relay
//! that is behind, or cut off. So a log is held against what is here only when its keeper has answered a question, and
//! a question is an order in time:
//!
//! - a flow that fetches asks a peer: a subscription is a question, and is sent again to ask again;
//! - a relay then asks its own peer, and answers when it has had that answer, never from what it happens to know;
//! - the flow that offers answers behind all news, once it has told of every object that it has seen in its root.
//!
//! So the log that an answer speaks of is what the origin had at some time *after* the question. Whatever was told by
//! anybody *before* the question, or lies here from an earlier run, is of an earlier time of the same origin, and is
//! gone if the log lacks it. What was told since, by a peer that may know more or less, is left until the next
//! question. What a peer told that passes on another origin's entries, or has not said whose, only that peer can take
//! back. A peer that is not there answers nothing, and so removes nothing.
//!
//! No peer is believed alone where another one that is there and speaks for the same origin tells of an object: both
//! are asked until they agree, or until that one has left a question unanswered for
//! [`limits::UNSURE_PATIENCE`]: then it is cut off from the origin, and behind.
//!
//! A log that is empty, or that lacks most of what is here, removes nothing either: at its origin a file system is not
//! mounted, more likely than not.

use std::collections::BTreeSet;

use super::action::Action;
use super::flow::{Flow, Kind};
use super::ledger::{Cursor, Entry};
use super::object::ObjectState;
use crate::limits;
use crate::units::{ByteCount, LinkId, NodeName, ObjectId, ObjectName, Time};

/// Told at no question, or to be gone: stays, whatever the answers, until it is told again.
const KEPT: u32 = u32::MAX;

/// Questions, answers, and what came of them.
#[derive(Debug, Default)]
pub(super) struct Asks {
    /// What is gone at the origin goes here as well.
    mirror: bool,
    /// Questions asked so far.
    count: u32,
    /// Links over which one is to be asked.
    pub(super) due: BTreeSet<LinkId>,
    /// Something is here that may be gone at its origin.
    doubt: bool,
    /// A peer has told all there was.
    was_told: bool,
    /// A peer has answered, or nobody has for so long that what is here from an earlier run may be replaced.
    pub(super) settled: bool,
    /// Peers tell different versions of an object.
    pub(super) differ: bool,
    /// When the first peer was asked.
    begun: Option<Time>,
    /// Of a flow that offers: all that is in its root is told.
    told_all: bool,
    /// Of a flow that offers: what its entries' origin is called on the wire.
    origin: u32,
    /// A peer that has nothing any more, and how many objects stay all the same.
    kept_back: Option<(NodeName, u64)>,
}

impl Flow {
    // -- who is asked ------------------------------------------------------------------------------------------------

    /// What a flow that offers is called, as the origin of its entries.
    pub fn set_origin(&mut self, origin: u32) {
        self.asks.origin = origin;
    }

    /// Whether a flow that offers has told all that is in its root. If not, or if the root could not be looked at as a
    /// whole, nobody may take what is not told for gone.
    pub fn set_told_all(&mut self, told_all: bool) {
        self.asks.told_all = told_all;
        self.wakes.extend(&self.ledger.subscribers);
    }

    /// `link` wants to be woken when there are news, and asks whether they are all there is: [`Flow::whole_since`] what
    /// is returned here.
    pub fn subscribe(&mut self, link: LinkId) -> u32 {
        self.ledger.subscribers.insert(link);
        if self.kind == Kind::Relay {
            self.ask_all();
        }
        self.asks.count
    }

    /// The log, told to its end, is all that the origin had at some time after this was subscribed to: which origin.
    pub fn whole_since(&self, subscribed: u32) -> Option<u32> {
        match self.kind {
            Kind::Offer => self.asks.told_all.then_some(self.asks.origin),
            Kind::Relay => {
                let mut cursors = self.ledger.cursors.values();
                let is_whole = |cursor: &Cursor| cursor.answered > subscribed && !cursor.lossy;
                cursors.clone().all(is_whole).then(|| cursors.next()?.origin)?
            }
            Kind::Fetch => None,
        }
    }

    // -- who asks ----------------------------------------------------------------------------------------------------

    /// Whether what is gone at the origin goes here as well; if not, what is here of it stays.
    pub fn set_mirror(&mut self, mirror: bool) {
        self.asks.mirror = mirror;
    }

    /// Whether what is gone at the origin goes here as well.
    pub fn is_mirror(&self) -> bool {
        self.asks.mirror
    }

    /// The peer that has nothing any more, and how many objects are kept here all the same.
    pub fn kept_back(&self) -> Option<(&NodeName, u64)> {
        self.asks.kept_back.as_ref().map(|(peer, count)| (peer, *count))
    }

    /// Whether there are more peers than can be told apart, so that nothing that is gone is removed.
    pub fn has_too_many_peers(&self) -> bool {
        self.ledger.cursors.values().any(|cursor| cursor.mask == 0)
    }

    /// Peers that are there and told of more than could be taken.
    pub fn lossy_peers(&self) -> impl Iterator<Item = &NodeName> {
        let lossy = self.ledger.cursors.iter().filter(|(_, cursor)| cursor.lossy && cursor.reader.is_some());
        lossy.map(|(peer, _)| peer)
    }

    /// The peers that are there, if none of them says that it has told all there is, though they were asked long ago:
    /// what is gone is not removed, or nobody ever said that all is here.
    pub fn silent_peers(&self) -> impl Iterator<Item = &NodeName> {
        let matters = self.asks.mirror || !self.asks.was_told;
        let there = || self.ledger.cursors.iter().filter(|(_, cursor)| cursor.reader.is_some());
        let is_silent = matters && there().all(|(_, cursor)| cursor.late);
        there().filter(move |_| is_silent).map(|(peer, _)| peer)
    }

    /// Whether a peer has told all there was, at some time since this flow began.
    pub fn was_told_whole(&self) -> bool {
        self.asks.was_told
    }

    /// What is here of an object stays, though its origin has it no more.
    pub(super) fn set_kept(&mut self, id: ObjectId) {
        self.at_mut(id).told_at = KEPT;
    }

    /// An object that was kept though its origin has it no more is not here any more either: nobody wants it. `false`:
    /// it was not one of those.
    pub(super) fn lose_kept(&mut self, id: ObjectId) -> bool {
        if self.at(id).told_at != KEPT {
            return false;
        }
        if let Some((_, count)) = &mut self.asks.kept_back {
            *count = count.saturating_sub(1);
        }
        self.asks.kept_back.take_if(|(_, count)| *count == 0);
        self.forget_all_of(id);
        true
    }

    /// Whether a peer whose log is read now has told all there was since this flow began. Unlike
    /// [`Flow::was_told_whole`], not once that peer is gone.
    pub fn has_whole_log(&self) -> bool {
        self.ledger.cursors.values().any(|cursor| cursor.reader.is_some() && cursor.answered > 0 && !cursor.lossy)
    }

    /// Asks again where something may be gone or another version; to be called from time to time.
    pub fn review(&mut self, now: Time) {
        let is_asked = || self.ledger.cursors.values().any(|cursor| cursor.reader.is_some());
        if !self.asks.settled && is_asked() && now.since(*self.asks.begun.get_or_insert(now)) >= limits::UNSURE_PATIENCE
        {
            self.settle();
        }
        for cursor in self.ledger.cursors.values_mut().filter(|cursor| cursor.asked.is_some()) {
            cursor.late |= now.since(*cursor.waits_since.get_or_insert(now)) >= limits::UNSURE_PATIENCE;
        }
        let may_be_gone = self.kind == Kind::Fetch && std::mem::take(&mut self.asks.doubt);
        if std::mem::take(&mut self.asks.differ) || may_be_gone {
            self.ask_all();
        }
    }

    /// Whether `link` is to ask its peer again.
    pub fn is_ask_due(&self, link: LinkId) -> bool {
        self.asks.due.contains(&link)
    }

    /// Where `link` should read the log of `peer` from, if it is the link that reads it: the first one that asks. Each
    /// time is a question whether the log is all there is; there is none while the one before is not answered.
    pub fn subscription(&mut self, link: LinkId, peer: &NodeName) -> Option<(u64, u64)> {
        self.asks.due.remove(&link);
        if self.kind == Kind::Offer {
            return None;
        }
        if !self.ledger.cursors.contains_key(peer) {
            if self.ledger.free_mask() == 0 {
                self.forget_peers();
            }
            let mask = self.ledger.free_mask();
            self.ledger.cursors.insert(peer.clone(), Cursor { mask, ..Cursor::default() });
        }
        let cursor = self.ledger.cursors.get_mut(peer)?;
        if *cursor.reader.get_or_insert(link) != link {
            return None;
        }
        let is_again = cursor.reread;
        if cursor.asked.is_none() {
            self.asks.count += 1;
            cursor.asked = Some(self.asks.count);
            cursor.reread = false;
        } else if !is_again {
            return None;
        }
        if is_again {
            // In the log's own epoch what was told over this link would not be told again.
            (cursor.seq, cursor.rereading) = (0, true);
            return Some((0, 0));
        }
        Some((cursor.epoch, cursor.seq))
    }

    /// Records of the log of `peer` are to be told; what it told in another epoch counts no more. `false`: `link` is
    /// not the one that reads it, and nobody asked for them.
    pub fn begin_news(&mut self, link: LinkId, peer: &NodeName, epoch: u64) -> bool {
        let cursor = self.ledger.cursors.get_mut(peer).filter(|cursor| cursor.reader == Some(link));
        let Some(cursor) = cursor else { return false };
        if cursor.epoch == epoch {
            return true;
        }
        let Cursor { reader, mask, asked, waits_since, late, again, origin, .. } = *cursor;
        let unswept = true;
        *cursor = Cursor { epoch, reader, mask, asked, waits_since, late, again, origin, unswept, ..Cursor::default() };
        self.ledger.doubts.remove(peer);
        self.untell(mask);
        self.asks.doubt = true;
        true
    }

    /// News of so many bytes begin to come in, and are kept until all of them are here. `false`: others that are
    /// long, too, hold all the room there is. Short ones always have room.
    pub fn make_room_for_news(&mut self, length: ByteCount) -> bool {
        let held = self.ledger.long_news + long(length);
        let fits = held <= limits::LONG_NEWS_BYTES_MAX as u64;
        if fits {
            self.ledger.long_news = held;
        }
        fits
    }

    /// They are here, or will not come.
    pub fn end_news(&mut self, length: ByteCount) {
        self.ledger.long_news -= long(length);
    }

    /// `peer` says that there is this object.
    pub fn learn(&mut self, peer: &NodeName, entry: Entry) {
        let place = self.id_of(&entry.name);
        if place.is_some_and(|id| self.is_doubtful(peer, id, &entry.content)) {
            return;
        }
        let masks = self.ledger.vindicate(&entry.name, entry.content.root);
        let known = self.know_at(place, entry);
        let readers = self.ledger.cursors.values().filter(|cursor| cursor.reader.is_some());
        let readers = readers.fold(0, |masks, cursor| masks | cursor.mask);
        let count = self.asks.count;
        let Some(cursor) = self.ledger.cursors.get_mut(peer) else { return };
        let mask = cursor.mask;
        let Some(id) = known else {
            cursor.lossy |= !self.listed_only;
            return;
        };
        let object = self.at_mut(id);
        let is_news = object.given_by & (mask | masks) != mask | masks;
        object.told_by |= mask;
        object.given_by |= mask | masks;
        object.told_at = count;
        // Another peer has not told of it: it is behind, or this one is.
        let is_told_by_all = object.told_by & readers == readers;
        self.asks.doubt |= self.asks.mirror && !is_told_by_all;
        if is_news {
            self.wake_carriers();
        }
    }

    /// `peer` says that there is no object of this name any more.
    pub fn unlearn(&mut self, peer: &NodeName, name: &ObjectName) {
        let Some(&Cursor { mask, reader, .. }) = self.ledger.cursors.get(peer) else { return };
        let Some(id) = self.id_of(name) else { return };
        self.at_mut(id).told_by &= !mask;
        self.at_mut(id).given_by &= !mask;
        if self.kind != Kind::Fetch || (self.at(id).told_by == 0 && !self.asks.mirror) {
            return self.forget(name);
        }
        // It may be behind.
        self.asks.doubt = true;
        self.asks.due.extend(reader);
        self.wakes.extend(reader);
    }

    /// Records of the log of `peer` up to but without number `seq` are known.
    pub fn handle_news(&mut self, link: LinkId, peer: &NodeName, epoch: u64, seq: u64) {
        if self.begin_news(link, peer, epoch)
            && let Some(cursor) = self.ledger.cursors.get_mut(peer)
        {
            cursor.seq = seq;
        }
    }

    /// `peer` answers: its log up to number `seq` is all there was at `origin` at some time after it was asked.
    pub fn handle_whole(&mut self, link: LinkId, peer: &NodeName, epoch: u64, seq: u64, origin: u32) {
        let is_asked = self.ledger.cursors.get(peer).is_some_and(|cursor| cursor.asked.is_some());
        if !is_asked || !self.begin_news(link, peer, epoch) {
            return;
        }
        let Some(cursor) = self.ledger.cursors.get_mut(peer) else { return };
        let Some(ask) = cursor.asked.take() else { return };
        (cursor.waits_since, cursor.late) = (None, false);
        // Where it was asked to tell it from the start before it had answered, this may be the answer to the former
        // question, and what it tells be on its way.
        if std::mem::take(&mut cursor.again) || cursor.reread {
            self.asks.due.insert(link);
            self.wakes.insert(link);
        }
        if cursor.seq != seq {
            // Not all of it has come.
            self.asks.doubt = true;
            return;
        }
        cursor.sure = ask;
        self.settle();
        let Some(cursor) = self.ledger.cursors.get_mut(peer) else { return };
        if cursor.reread {
            // What it knows is here when that has been read once more.
            return;
        }
        (cursor.answered, cursor.rereading) = (ask, false);
        self.asks.doubt |= cursor.origin.replace(origin) != Some(origin);
        if !cursor.lossy {
            self.asks.was_told = true;
            self.discard_unnamed(origin);
        }
        let Some(cursor) = self.ledger.cursors.get_mut(peer) else { return };
        let swept = std::mem::take(&mut cursor.unswept) || self.kind == Kind::Fetch;
        if swept && !cursor.lossy && cursor.mask != 0 {
            let mask = cursor.mask;
            self.sweep(peer, mask, origin, ask);
        }
        self.wakes.extend(&self.ledger.subscribers);
    }

    // -- helpers -----------------------------------------------------------------------------------------------------

    /// What these peers told counts no more.
    fn untell(&mut self, masks: u32) {
        for object in &mut self.objects {
            object.told_by &= !masks;
            object.given_by &= !masks;
        }
    }

    fn ask_all(&mut self) {
        for cursor in self.ledger.cursors.values_mut() {
            if cursor.asked.is_some() {
                cursor.again = true;
            } else {
                self.asks.due.extend(cursor.reader);
                self.wakes.extend(cursor.reader);
            }
        }
    }

    /// There are too many peers: those that are gone make room for others, if another one that is there speaks for
    /// their origin, or they told of nothing.
    fn forget_peers(&mut self) {
        let told = self.objects.iter().fold(0, |masks, object| masks | object.told_by);
        let there: BTreeSet<u32> =
            self.ledger.cursors.values().filter(|cursor| cursor.reader.is_some()).filter_map(|c| c.origin).collect();
        let is_spoken_for = |cursor: &Cursor| cursor.origin.is_some_and(|origin| there.contains(&origin));
        let mut gone = 0;
        let doubts = &mut self.ledger.doubts;
        self.ledger.cursors.retain(|peer, cursor| {
            let has_told = if cursor.mask == 0 { cursor.seq > 0 } else { cursor.mask & told != 0 };
            let stays = cursor.reader.is_some() || (has_told && !is_spoken_for(cursor));
            if !stays {
                gone |= cursor.mask;
                doubts.remove(peer);
            }
            stays
        });
        if gone & told != 0 {
            self.untell(gone);
        }
    }

    /// All of the origin's objects are known: what an earlier run left of others is nobody's, if there is no other
    /// origin.
    fn discard_unnamed(&mut self, origin: u32) {
        if self.ledger.cursors.values().all(|cursor| cursor.origin == Some(origin)) {
            let is_unnamed = |name: &&ObjectName| self.id_of(name).is_none();
            let unnamed: Vec<ObjectName> = self.blocks.resumable.keys().filter(is_unnamed).cloned().collect();
            for name in unnamed {
                self.actions.extend(self.blocks.discard(&name, |_| true));
            }
        }
    }

    /// `peer` has answered question `ask`: what it does not tell is gone, unless that is told by others who may know of
    /// it, or know better.
    fn sweep(&mut self, peer: &NodeName, mask: u32, origin: u32, ask: u32) {
        if self.has_too_many_peers() {
            // Who told what is not known of all of them.
            return;
        }
        let cursors = || self.ledger.cursors.values();
        let others = masks_of(cursors().filter(|cursor| cursor.origin != Some(origin)));
        let equals = masks_of(cursors().filter(|cursor| cursor.reader.is_some() && !cursor.late));
        let is_mirror = self.asks.mirror && self.kind == Kind::Fetch;
        let (mut gone, mut spared, mut kept, mut stay, mut here) = (Vec::new(), Vec::new(), 0, 0, 0);
        for id in (0..self.objects.len() as u32).map(ObjectId) {
            let object = &self.objects[id.0 as usize];
            if object.is_gone() {
                continue;
            }
            stay += usize::from(object.told_by & mask != 0);
            if object.told_by & (mask | others) != 0 || object.listed {
                continue;
            }
            match object.state() {
                _ if object.told_at == KEPT => kept += u64::from(is_mirror),
                _ if object.told_at >= ask || (object.told_by & equals != 0 && self.kind == Kind::Fetch) => {
                    self.asks.doubt = true;
                }
                ObjectState::Present { .. } if !is_mirror && self.kind == Kind::Fetch => spared.push(id),
                state => {
                    here += usize::from(matches!(state, ObjectState::Present { .. }));
                    gone.push(id);
                }
            }
        }
        if is_mirror && (stay == 0 || here > stay.max(limits::MIRROR_REMOVED_MAX)) {
            kept += here as u64;
            gone.retain(|&id| {
                let is_here = matches!(self.at(id).state(), ObjectState::Present { .. });
                if is_here {
                    self.keep_untold(id);
                }
                !is_here
            });
        }
        self.asks.kept_back = (kept > 0).then(|| (peer.clone(), kept));
        spared.into_iter().for_each(|id| self.keep_untold(id));
        gone.into_iter().for_each(|id| self.remove(id, is_mirror));
    }

    /// What is here of an object stays, and its origin is not taken to have it any more.
    fn keep_untold(&mut self, id: ObjectId) {
        let name = self.at(id).name.clone();
        self.set_kept(id);
        self.forget(&name);
    }

    fn remove(&mut self, id: ObjectId, is_mirror: bool) {
        let name = self.at(id).name.clone();
        if is_mirror {
            self.forget_all_of(id);
            // Last, behind what ends an attempt that is under way.
            self.actions.push_back(Action::Remove { name });
        } else {
            self.forget(&name);
            // It was here and was removed before anybody could tell of it.
            if self.kind == Kind::Fetch && self.id_of(&name) == Some(id) && self.at(id).state() == ObjectState::Absent {
                self.drop_from_table(id);
            }
        }
    }
}

/// The masks of some peers, as one.
fn masks_of<'c>(cursors: impl Iterator<Item = &'c Cursor>) -> u32 {
    cursors.fold(0, |masks, cursor| masks | cursor.mask)
}

/// What news of this length hold of the room that all links have in common.
fn long(length: ByteCount) -> u64 {
    if length.0 > limits::NEWS_BYTES as u64 { length.0 } else { 0 }
}
