//! Whether what a peer tells is all that there is, so that what it does not tell is gone; and what goes then.
//!
//! That a log lacks an object says nothing by itself: its keeper may have just begun to hash its store, or be a relay that
//! is behind, or cut off. So a log is held against what is here only when its keeper has answered a question, and a
//! question is an order in time:
//!
//! - a flow that fetches asks a peer: a subscription is a question, and is sent again to ask again;
//! - a relay then asks its own peer, and answers when it has had that answer, never from what it happens to know;
//! - the flow that offers answers behind all news, once it has told of every object that it has seen in its root.
//!
//! So the log that an answer speaks of is what the origin had at some time *after* the question. Whatever was told by
//! anybody *before* the question, or lies here from an earlier run, is of an earlier time of the same origin, and is gone
//! if the log lacks it. What was told since, by a peer that may know more or less, is left until the next question. What a
//! peer told that passes on another origin's entries, or has not said whose, only that peer can take back. A peer that is
//! not there answers nothing, and so removes nothing.
//!
//! A log that is empty removes nothing either: at its origin a file system is not mounted, more likely than not.

use std::collections::BTreeSet;

use super::action::Action;
use super::flow::{Flow, Kind};
use super::ledger::{Cursor, Entry};
use super::object::ObjectState;
use crate::units::{LinkId, NodeName, ObjectId, ObjectName};

/// Told at no question: stays, whatever the answers, until it is told again.
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
    /// Of a flow that offers: what is in its root and is not told yet; `None`: it is not known what is there.
    pub(super) unhashed: Option<BTreeSet<ObjectName>>,
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

    /// What a flow that offers has in its root, and has not told yet; `None`: the root could not be looked at as a whole, so
    /// that nobody may take what is not told for gone.
    pub fn set_unhashed(&mut self, unhashed: Option<BTreeSet<ObjectName>>) {
        self.asks.unhashed = unhashed;
        self.wakes.extend(&self.ledger.subscribers);
    }

    /// `link` wants to be woken when there are news, and asks whether they are all there is: [`Flow::whole_since`] what is
    /// returned here.
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
            Kind::Offer => self.asks.unhashed.as_ref().filter(|set| set.is_empty()).map(|_| self.asks.origin),
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

    /// The peer that has nothing any more, and how many objects are kept here all the same.
    pub fn kept_back(&self) -> Option<(&NodeName, u64)> {
        self.asks.kept_back.as_ref().map(|(peer, count)| (peer, *count))
    }

    /// Asks again where something may be gone; to be called from time to time.
    pub fn review(&mut self) {
        if self.kind == Kind::Fetch && std::mem::take(&mut self.asks.doubt) {
            self.ask_all();
        }
    }

    /// Whether `link` is to ask its peer again.
    pub fn is_ask_due(&self, link: LinkId) -> bool {
        self.asks.due.contains(&link)
    }

    /// Where `link` should read the log of `peer` from, if it is the link that reads it: the first one that asks. Each time
    /// is a question whether the log is all there is; there is none while the one before is not answered.
    pub fn subscription(&mut self, link: LinkId, peer: &NodeName) -> Option<(u64, u64)> {
        self.asks.due.remove(&link);
        if self.kind == Kind::Offer {
            return None;
        }
        let mask = 1_u32.checked_shl(self.ledger.cursors.len() as u32).unwrap_or(0);
        let cursor = self.ledger.cursors.entry(peer.clone()).or_insert(Cursor { mask, ..Cursor::default() });
        if *cursor.reader.get_or_insert(link) != link || cursor.asked.is_some() {
            return None;
        }
        self.asks.count += 1;
        cursor.asked = Some(self.asks.count);
        Some((cursor.epoch, cursor.seq))
    }

    /// Records of the log of `peer` are to be told; what it told in another epoch counts no more.
    pub fn begin_news(&mut self, peer: &NodeName, epoch: u64) {
        let Some(cursor) = self.ledger.cursors.get_mut(peer).filter(|cursor| cursor.epoch != epoch) else { return };
        let Cursor { reader, mask, asked, again, origin, .. } = *cursor;
        let answered = 0;
        *cursor = Cursor { epoch, seq: 0, reader, mask, asked, answered, again, origin, lossy: false, unswept: true };
        self.objects.iter_mut().for_each(|object| object.told_by &= !mask);
        self.asks.doubt = true;
    }

    /// `peer` says that there is this object.
    pub fn learn(&mut self, peer: &NodeName, entry: Entry) {
        let known = self.know(entry);
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
        let is_news = object.told_by & mask == 0;
        object.told_by |= mask;
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
        self.begin_news(peer, epoch);
        if let Some(cursor) = self.ledger.cursors.get_mut(peer).filter(|cursor| cursor.reader == Some(link)) {
            cursor.seq = seq;
        }
    }

    /// `peer` answers: its log up to number `seq` is all there was at `origin` at some time after it was asked.
    pub fn handle_whole(&mut self, link: LinkId, peer: &NodeName, epoch: u64, seq: u64, origin: u32) {
        self.begin_news(peer, epoch);
        let Some(cursor) = self.ledger.cursors.get_mut(peer).filter(|cursor| cursor.reader == Some(link)) else {
            return;
        };
        let Some(ask) = cursor.asked.take() else { return };
        if cursor.seq != seq {
            // Not all of it has come.
            self.asks.doubt = true;
            return;
        }
        cursor.answered = ask;
        self.asks.doubt |= cursor.origin.replace(origin) != Some(origin);
        if std::mem::take(&mut cursor.again) {
            self.asks.due.insert(link);
            self.wakes.insert(link);
        }
        let swept = std::mem::take(&mut cursor.unswept) || self.kind == Kind::Fetch;
        if swept && !cursor.lossy && cursor.mask != 0 {
            let mask = cursor.mask;
            self.sweep(peer, mask, origin, ask);
        }
        self.wakes.extend(&self.ledger.subscribers);
    }

    // -- helpers -----------------------------------------------------------------------------------------------------

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

    /// `peer` has answered question `ask`: what it does not tell is gone, unless that is told by others who may know of it.
    fn sweep(&mut self, peer: &NodeName, mask: u32, origin: u32, ask: u32) {
        if self.ledger.cursors.len() > u32::BITS as usize {
            // Who told what is not known of all of them.
            return;
        }
        let others = self.ledger.cursors.values().filter(|cursor| cursor.origin != Some(origin));
        let others = others.fold(0, |masks, cursor| masks | cursor.mask);
        let is_mirror = self.asks.mirror && self.kind == Kind::Fetch;
        let (mut gone, mut kept, mut has_any) = (Vec::new(), 0, false);
        for id in (0..self.objects.len() as u32).map(ObjectId) {
            let object = &self.objects[id.0 as usize];
            if object.is_gone {
                continue;
            }
            has_any |= object.told_by & mask != 0;
            if object.told_by & (mask | others) != 0 || object.listed {
                continue;
            }
            match object.state() {
                _ if object.told_at == KEPT => kept += 1,
                _ if object.told_at >= ask => self.asks.doubt = true,
                ObjectState::Present { .. } if !is_mirror && self.kind == Kind::Fetch => {}
                _ => gone.push(id),
            }
        }
        if is_mirror && !has_any {
            kept += gone.len() as u64;
            gone.drain(..).for_each(|id| self.at_mut(id).told_at = KEPT);
        }
        self.asks.kept_back = (kept > 0).then(|| (peer.clone(), kept));
        gone.into_iter().for_each(|id| self.remove(id, is_mirror));
    }

    fn remove(&mut self, id: ObjectId, is_mirror: bool) {
        let name = self.at(id).name.clone();
        if self.at(id).content.is_some() {
            self.forget(&name);
        } else if is_mirror {
            self.drop_from_table(id);
        }
        if is_mirror {
            // Last, behind what ends an attempt that is under way.
            self.actions.push_back(Action::Remove { name });
        }
    }
}
