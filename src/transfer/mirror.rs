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
//! A log that is empty, or that lacks most of what is here, removes nothing either: at its origin a file system is not
//! mounted, more likely than not.

use std::collections::BTreeSet;

use super::action::Action;
use super::flow::{Flow, Kind};
use super::ledger::{Cursor, Entry};
use super::object::ObjectState;
use crate::limits;
use crate::units::{LinkId, NodeName, ObjectId, ObjectName, Time};

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

    /// Asks again where something may be gone; to be called from time to time.
    pub fn review(&mut self, now: Time) {
        let is_asked = || self.ledger.cursors.values().any(|cursor| cursor.reader.is_some());
        if !self.asks.settled && is_asked() && now.since(*self.asks.begun.get_or_insert(now)) >= limits::UNSURE_PATIENCE
        {
            self.settle();
        }
        if self.kind == Kind::Fetch && std::mem::take(&mut self.asks.doubt) {
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
        let Cursor { reader, mask, asked, again, origin, .. } = *cursor;
        *cursor = Cursor { epoch, reader, mask, asked, again, origin, unswept: true, ..Cursor::default() };
        self.untell(mask);
        self.asks.doubt = true;
        true
    }

    /// `peer` says that there is this object.
    pub fn learn(&mut self, peer: &NodeName, entry: Entry) {
        if self.id_of(&entry.name).is_some_and(|id| self.is_doubtful(peer, id, &entry.content)) {
            return;
        }
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
        let is_news = object.given_by & mask == 0;
        object.told_by |= mask;
        object.given_by |= mask;
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
        cursor.sure = true;
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
        self.ledger.cursors.retain(|_, cursor| {
            let has_told = if cursor.mask == 0 { cursor.seq > 0 } else { cursor.mask & told != 0 };
            let stays = cursor.reader.is_some() || (has_told && !is_spoken_for(cursor));
            gone |= if stays { 0 } else { cursor.mask };
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
    /// it.
    fn sweep(&mut self, peer: &NodeName, mask: u32, origin: u32, ask: u32) {
        if self.has_too_many_peers() {
            // Who told what is not known of all of them.
            return;
        }
        let others = self.ledger.cursors.values().filter(|cursor| cursor.origin != Some(origin));
        let others = others.fold(0, |masks, cursor| masks | cursor.mask);
        let is_mirror = self.asks.mirror && self.kind == Kind::Fetch;
        let (mut gone, mut kept, mut stay, mut here) = (Vec::new(), 0, 0, 0);
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
                _ if object.told_at >= ask => self.asks.doubt = true,
                ObjectState::Present { .. } if !is_mirror && self.kind == Kind::Fetch => {}
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
                    self.set_kept(id);
                }
                !is_here
            });
        }
        self.asks.kept_back = (kept > 0).then(|| (peer.clone(), kept));
        gone.into_iter().for_each(|id| self.remove(id, is_mirror));
    }

    fn remove(&mut self, id: ObjectId, is_mirror: bool) {
        let name = self.at(id).name.clone();
        if is_mirror {
            self.forget_all_of(id);
            // Last, behind what ends an attempt that is under way.
            self.actions.push_back(Action::Remove { name });
        } else {
            self.forget(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::{Content, News};
    use crate::units::{ByteCount, Offset, Root256, Time};

    const L1: LinkId = LinkId(1);
    const L2: LinkId = LinkId(2);
    const READER: LinkId = LinkId(9);
    const HERE: u32 = 1;
    const ELSEWHERE: u32 = 2;

    fn name(text: &str) -> ObjectName {
        ObjectName::new(text.as_bytes()).expect("valid")
    }

    fn peer(text: &str) -> NodeName {
        text.parse().expect("valid")
    }

    fn entry(text: &str) -> Entry {
        let (root, block_crcs) = (Root256([1; 32]), vec![7].into());
        Entry { name: name(text), content: Content { size: ByteCount(9), mtime_ns: 0, mode: 0o644, root, block_crcs } }
    }

    /// A flow that mirrors, with objects from an earlier run.
    fn mirroring(present: &[&str]) -> Flow {
        let mut flow = Flow::fetch();
        flow.set_mirror(true);
        for text in present {
            flow.have(name(text), ByteCount(9), Root256([1; 32]));
        }
        flow
    }

    fn ask(flow: &mut Flow, link: LinkId, from: &str) {
        assert!(flow.subscription(link, &peer(from)).is_some(), "{from} is asked");
    }

    fn tell(flow: &mut Flow, link: LinkId, from: &str, epoch: u64, texts: &[&str]) {
        assert!(flow.begin_news(link, &peer(from), epoch), "it reads them");
        texts.iter().for_each(|text| flow.learn(&peer(from), entry(text)));
        flow.handle_news(link, &peer(from), epoch, texts.len() as u64);
    }

    fn removed(flow: &mut Flow) -> Vec<String> {
        let actions = std::iter::from_fn(|| flow.poll_action());
        let names = actions.filter_map(|action| match action {
            Action::Remove { name } => Some(name.to_string()),
            _ => None,
        });
        names.collect()
    }

    #[test]
    fn what_an_answer_lacks_is_gone() {
        let mut flow = mirroring(&["a", "b", "old"]);
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["a", "b"]);
        assert_eq!(removed(&mut flow), [""; 0], "not before it is an answer");
        assert!(!flow.was_told_whole());
        flow.handle_whole(L1, &peer("e1"), 7, 2, HERE);
        assert!(flow.was_told_whole());
        assert_eq!(removed(&mut flow), ["old"]);
        flow.unlearn(&peer("e1"), &name("b"));
        flow.handle_news(L1, &peer("e1"), 7, 3);
        assert_eq!(removed(&mut flow), [""; 0], "it may be behind");
        assert!(flow.is_ask_due(L1));
        ask(&mut flow, L1, "e1");
        flow.handle_whole(L1, &peer("e1"), 7, 3, HERE);
        assert_eq!(removed(&mut flow), ["b"]);
        assert_eq!(flow.totals().objects, 1);
    }

    #[test]
    fn an_answer_that_does_not_fit_what_came_is_none() {
        let mut flow = mirroring(&["a", "old"]);
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["a"]);
        flow.handle_whole(L1, &peer("e1"), 7, 2, HERE);
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        flow.handle_whole(L2, &peer("e2"), 7, 0, HERE);
        assert_eq!(removed(&mut flow), [""; 0]);
    }

    /// The reader of a relay whose peer gave such an answer was not answered itself until somebody else asked.
    #[test]
    fn an_answer_that_does_not_fit_keeps_nobody_from_asking_again() {
        let mut relay = Flow::relay(ByteCount(1000));
        ask(&mut relay, L1, "t1");
        tell(&mut relay, L1, "t1", 7, &["a"]);
        let subscribed = relay.subscribe(READER);
        relay.handle_whole(L1, &peer("t1"), 7, 2, HERE);
        assert!(relay.is_ask_due(L1));
        ask(&mut relay, L1, "t1");
        relay.handle_whole(L1, &peer("t1"), 7, 1, HERE);
        assert_eq!(relay.whole_since(subscribed), Some(HERE));
    }

    #[test]
    fn what_nobody_asked_for_ends_no_epoch() {
        let mut flow = mirroring(&[]);
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["a"]);
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        let told_by = |flow: &Flow| flow.objects[0].told_by;
        assert_eq!(told_by(&flow), 1);
        assert!(!flow.begin_news(L2, &peer("e1"), 8), "another link reads the log");
        flow.handle_whole(L1, &peer("e1"), 8, 0, HERE);
        assert_eq!(told_by(&flow), 1, "no answer without a question");
        assert!(flow.begin_news(L1, &peer("e1"), 8));
        assert_eq!(told_by(&flow), 0);
    }

    #[test]
    fn what_was_told_since_the_question_waits_for_the_next_one() {
        let mut flow = mirroring(&[]);
        ask(&mut flow, L1, "e1");
        ask(&mut flow, L2, "e2");
        tell(&mut flow, L2, "e2", 8, &["a", "new"]);
        flow.handle_whole(L2, &peer("e2"), 8, 2, HERE);
        tell(&mut flow, L1, "e1", 7, &["a"]);
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        assert_eq!(removed(&mut flow), [""; 0], "e1 may be behind");
        flow.review(Time::ZERO);
        ask(&mut flow, L1, "e1");
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        assert_eq!(removed(&mut flow), ["new"], "e2 is");
    }

    #[test]
    fn a_peer_that_is_gone_binds_only_where_it_may_know_of_another_origin() {
        for (origin, expected) in [(Some(HERE), vec!["x"]), (Some(ELSEWHERE), vec![]), (None, vec![])] {
            let mut flow = mirroring(&["a", "x"]);
            flow.attach_blocks(L2, peer("e2"), Time::ZERO);
            ask(&mut flow, L2, "e2");
            tell(&mut flow, L2, "e2", 8, &["a", "x"]);
            if let Some(origin) = origin {
                flow.handle_whole(L2, &peer("e2"), 8, 2, origin);
            }
            flow.detach_blocks(L2, Time::ZERO);
            ask(&mut flow, L1, "e1");
            tell(&mut flow, L1, "e1", 7, &["a"]);
            flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
            flow.review(Time::ZERO);
            ask(&mut flow, L1, "e1");
            flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
            assert_eq!(removed(&mut flow), expected, "{origin:?}");
        }
    }

    /// Whoever connected 33 times under other names kept everything from being removed until the node was started
    /// again.
    #[test]
    fn peers_that_told_of_nothing_make_room_for_others() {
        let mut flow = mirroring(&["a", "b"]);
        for number in 0..100 {
            let from = format!("x{number}");
            flow.attach_blocks(L2, peer(&from), Time::ZERO);
            ask(&mut flow, L2, &from);
            flow.detach_blocks(L2, Time::ZERO);
        }
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["a"]);
        assert!(!flow.has_too_many_peers());
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        assert_eq!(removed(&mut flow), ["b"]);
    }

    #[test]
    fn a_peer_that_is_gone_makes_room_only_where_another_one_speaks_for_its_origin() {
        for (origin, expected) in [(HERE, vec!["x"]), (ELSEWHERE, vec![])] {
            let mut flow = mirroring(&["a", "x"]);
            ask(&mut flow, L1, "e1");
            tell(&mut flow, L1, "e1", 7, &["a"]);
            flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
            flow.have(name("x"), ByteCount(9), Root256([1; 32]));
            for number in 0..32 {
                let from = format!("x{number}");
                flow.attach_blocks(L2, peer(&from), Time::ZERO);
                ask(&mut flow, L2, &from);
                tell(&mut flow, L2, &from, 8, &["a", "x"]);
                flow.handle_whole(L2, &peer(&from), 8, 2, origin);
                flow.detach_blocks(L2, Time::ZERO);
            }
            removed(&mut flow);
            (0..2).for_each(|_| {
                flow.review(Time::ZERO);
                ask(&mut flow, L1, "e1");
                flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
            });
            assert_eq!(flow.has_too_many_peers(), expected.is_empty(), "{origin}");
            assert_eq!(removed(&mut flow), expected, "{origin}");
        }
    }

    #[test]
    fn a_log_that_lacks_most_of_what_is_here_removes_nothing() {
        let names: Vec<String> = (0..100).map(|number| format!("{number}")).collect();
        let texts: Vec<&str> = names.iter().map(String::as_str).collect();
        for (told, expected) in [(49, 0), (50, 50), (99, 1)] {
            let mut flow = mirroring(&texts);
            ask(&mut flow, L1, "e1");
            tell(&mut flow, L1, "e1", 7, &texts[..told]);
            flow.handle_whole(L1, &peer("e1"), 7, told as u64, HERE);
            assert_eq!(removed(&mut flow).len(), expected);
            assert_eq!(flow.kept_back().is_some(), expected == 0);
        }
    }

    #[test]
    fn what_was_kept_and_is_removed_by_hand_is_wanted_no_more() {
        let mut flow = mirroring(&["a", "b"]);
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["absent"]);
        tell(&mut flow, L1, "e1", 8, &[]);
        flow.handle_whole(L1, &peer("e1"), 8, 0, HERE);
        ask(&mut flow, L1, "e1");
        flow.handle_whole(L1, &peer("e1"), 8, 0, HERE);
        assert_eq!(removed(&mut flow), ["absent"], "it is not here: there is nothing to keep");
        assert_eq!(flow.kept_back(), Some((&peer("e1"), 2)));
        for (text, left) in [("a", Some(1)), ("b", None)] {
            assert!(flow.want_again(&name(text), ByteCount(9)));
            assert_eq!(flow.kept_back().map(|(_, count)| count), left);
        }
        assert!(flow.is_complete() && flow.totals().objects == 0);
    }

    #[test]
    fn what_an_earlier_run_left_of_nobodys_objects_is_thrown_away() {
        let mut flow = mirroring(&[]);
        for text in ["a", "gone"] {
            let ranges = [(Offset(0), ByteCount(4))].into_iter().collect();
            flow.resume(name(text), (ByteCount(9), Root256([1; 32])), ranges, Vec::new());
        }
        let discarded = |flow: &mut Flow| {
            let actions = std::iter::from_fn(|| flow.poll_action());
            let names = actions.filter_map(|action| match action {
                Action::Discard { name, .. } => Some(name.to_string()),
                _ => None,
            });
            names.collect::<Vec<_>>()
        };
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["a"]);
        assert_eq!(discarded(&mut flow), [""; 0], "more may be told");
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        assert_eq!(discarded(&mut flow), ["gone"]);
    }

    #[test]
    fn an_empty_log_removes_nothing_and_what_it_spared_stays() {
        let mut flow = mirroring(&["a", "b"]);
        ask(&mut flow, L1, "e1");
        flow.handle_whole(L1, &peer("e1"), 7, 0, HERE);
        assert_eq!(removed(&mut flow), [""; 0]);
        assert_eq!(flow.kept_back(), Some((&peer("e1"), 2)));
        tell(&mut flow, L1, "e1", 8, &["a"]);
        ask(&mut flow, L1, "e1");
        flow.handle_whole(L1, &peer("e1"), 8, 1, HERE);
        assert_eq!(removed(&mut flow), [""; 0]);
        assert_eq!(flow.kept_back(), Some((&peer("e1"), 1)));
    }

    #[test]
    fn what_is_not_mirrored_stays_and_is_wanted_no_more_where_it_is_not_here() {
        let mut flow = mirroring(&["old"]);
        flow.set_mirror(false);
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["a", "absent"]);
        flow.handle_whole(L1, &peer("e1"), 7, 2, HERE);
        tell(&mut flow, L1, "e1", 8, &["a"]);
        ask(&mut flow, L1, "e1");
        flow.handle_whole(L1, &peer("e1"), 8, 1, HERE);
        assert_eq!(removed(&mut flow), [""; 0]);
        let left: Vec<String> = flow.objects().map(|(name, ..)| name.to_string()).collect();
        assert_eq!(left, ["old", "a"]);
    }

    /// What was moved out of `local/` and back was fetched again in full.
    #[test]
    fn what_is_kept_and_told_of_again_is_here_unless_it_is_another_version() {
        for (root, is_here) in [([1; 32], true), ([2; 32], false)] {
            let mut flow = mirroring(&["a"]);
            flow.set_mirror(false);
            ask(&mut flow, L1, "e1");
            tell(&mut flow, L1, "e1", 7, &["a"]);
            flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
            flow.unlearn(&peer("e1"), &name("a"));
            flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
            assert!(flow.is_complete() && flow.kept_back().is_none() && !flow.knows(&name("a")));
            let Entry { name, content } = entry("a");
            flow.learn(&peer("e1"), Entry { name, content: Content { root: Root256(root), ..content } });
            assert_eq!((flow.is_complete(), flow.totals().objects, flow.totals().bytes), (is_here, 1, ByteCount(9)));
        }
    }

    #[test]
    fn what_is_kept_and_removed_by_hand_is_wanted_when_it_is_told_of_again() {
        let mut flow = mirroring(&[]);
        flow.set_mirror(false);
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["a"]);
        flow.have(name("a"), ByteCount(9), Root256([1; 32]));
        flow.unlearn(&peer("e1"), &name("a"));
        assert!(flow.want_again(&name("a"), ByteCount(9)));
        assert!(flow.is_complete() && flow.totals().objects == 0, "nobody has it");
        tell(&mut flow, L1, "e1", 7, &["a"]);
        assert!(!flow.is_complete());
    }

    #[test]
    fn a_relay_answers_when_it_has_asked_itself_since() {
        let mut relay = Flow::relay(ByteCount(1000));
        ask(&mut relay, L1, "t1");
        tell(&mut relay, L1, "t1", 7, &["a", "b"]);
        let subscribed = relay.subscribe(READER);
        assert_eq!(relay.whole_since(subscribed), None);
        relay.handle_whole(L1, &peer("t1"), 7, 2, HERE);
        assert_eq!(relay.whole_since(subscribed), None, "it was asked before");
        assert!(relay.is_ask_due(L1));
        ask(&mut relay, L1, "t1");
        relay.handle_whole(L1, &peer("t1"), 7, 2, HERE);
        assert_eq!(relay.whole_since(subscribed), Some(HERE));
        // The trader comes back without one of them.
        tell(&mut relay, L1, "t1", 8, &["b"]);
        assert_eq!(relay.whole_since(subscribed), None);
        ask(&mut relay, L1, "t1");
        relay.handle_whole(L1, &peer("t1"), 8, 1, HERE);
        assert_eq!(relay.whole_since(subscribed), Some(HERE));
        let told: Vec<_> = relay.news_from(relay.epoch(), 3).map(|(_, news)| news).collect();
        assert_eq!(told, [News::Removed(&name("a"))]);
    }

    #[test]
    fn who_offers_answers_when_all_that_is_there_is_told() {
        let mut flow = Flow::offer_only();
        flow.set_origin(HERE);
        let subscribed = flow.subscribe(READER);
        assert_eq!(flow.whole_since(subscribed), None, "it has not looked yet");
        flow.set_told_all(false);
        assert_eq!(flow.whole_since(subscribed), None);
        flow.know(entry("a")).expect("room");
        flow.set_told_all(true);
        assert_eq!(flow.whole_since(subscribed), Some(HERE));
        flow.set_told_all(false);
        assert_eq!(flow.whole_since(subscribed), None);
    }
}
