//! Whose word counts where peers tell different versions of an object.
//!
//! What a peer tells is its own log, and that may be of a time before the object changed: a relay may have been cut off
//! from the origin since. It is known to be of now when the peer has answered a question
//! ([`mirror`](super::mirror)) over the link that its log is read over: then the peer is *sure*.
//!
//! - The later word of a peer takes the place of its own earlier one: a log is told in order.
//! - It takes the place of what another one has told that is sure only where the peer has answered a question that was
//!   asked since. Until then, most likely, it is behind, and tells the same in a moment. Where it does not, its log is
//!   read once more from the start when it has answered.
//! - Where nobody who told what is known is sure, the last word counts, and whoever answers is heard once more.
//! - As long as nobody has answered, but for no longer than [`limits::UNSURE_PATIENCE`], nothing takes the place of
//!   what is here from an earlier run: it may be the newest there is.

use super::flow::{Flow, Kind};
use super::ledger::{Content, Cursor};
use super::object::ObjectState;
use crate::limits;
use crate::units::{NodeName, ObjectId};

impl Flow {
    /// Whether this version, which `peer` tells, may be of an earlier time than what is known, so that it is not
    /// believed for now. Other attributes are another version, too.
    pub(super) fn is_doubtful(&mut self, peer: &NodeName, id: ObjectId, told: &Content) -> bool {
        let Some(&cursor) = self.ledger.cursors.get(peer) else { return false };
        let object = self.at(id);
        let is_other = match &object.content {
            Some(known) => known != told,
            None => matches!(object.state(), ObjectState::Present { .. }) && !object.is_here(told.root),
        };
        if !is_other {
            return false;
        }
        let (name, told_by) = (object.name.clone(), object.told_by);
        let known = object.content.as_ref().map(|content| content.root);
        if self.may_be_behind(&cursor, id) {
            self.ledger.doubt(peer, &name, told.root);
            self.at_mut(id).told_by |= cursor.mask;
            self.asks.differ = true;
            return true;
        }
        if let Some(known) = known.filter(|_| cursor.sure == 0) {
            // So may be whoever told what is known.
            let is_other = |(other, cursor): &(&NodeName, &Cursor)| *other != peer && cursor.mask & told_by != 0;
            let others: Vec<_> = self.ledger.cursors.iter().filter(is_other).map(|(other, _)| other.clone()).collect();
            others.iter().for_each(|other| self.ledger.doubt(other, &name, known));
        }
        false
    }

    /// Whether another version of an object than is known, told over a log that is read so far, may be an earlier one.
    fn may_be_behind(&self, cursor: &Cursor, id: ObjectId) -> bool {
        let object = self.at(id);
        let is_told_since = cursor.mask == 0 || object.content.is_none() || object.told_at < cursor.sure;
        if cursor.mask & object.given_by != 0 || (cursor.sure > 0 && is_told_since) {
            return false;
        }
        let is_present = matches!(object.state(), ObjectState::Present { .. });
        let is_earlier_run =
            self.kind == Kind::Fetch && is_present && (object.content.is_none() || object.told_by == 0);
        let is_sure = |cursor: &Cursor| cursor.sure > 0 && cursor.mask & object.given_by != 0;
        self.ledger.cursors.values().any(is_sure) || (is_earlier_run && !self.asks.settled)
    }

    /// What was told and not believed is told once more: by who is to be believed now, and when nobody has to wait for
    /// that any more, by all. Not what such a peer has told by now as it is known.
    pub(super) fn settle(&mut self) {
        let is_first = !std::mem::replace(&mut self.asks.settled, true);
        for (peer, mut objects) in std::mem::take(&mut self.ledger.doubts) {
            let Some(&cursor) = self.ledger.cursors.get(&peer) else { continue };
            let is_all = objects.len() < limits::DOUBTS_PER_PEER_MAX;
            objects.retain(|name, _| self.id_of(name).is_none_or(|id| self.at(id).given_by & cursor.mask == 0));
            let is_believed =
                || objects.keys().any(|name| self.id_of(name).is_none_or(|id| !self.may_be_behind(&cursor, id)));
            if objects.is_empty() && is_all {
                continue;
            }
            match cursor.reader {
                Some(reader) if is_first || (cursor.sure > 0 && (!is_all || is_believed())) => {
                    self.ledger.cursors.entry(peer).and_modify(|cursor| cursor.reread = true);
                    self.asks.due.insert(reader);
                    self.wakes.insert(reader);
                }
                reader => {
                    self.asks.differ |= reader.is_some();
                    self.ledger.doubts.insert(peer, objects);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::transfer::Entry;
    use crate::units::{ByteCount, LinkId, ObjectName, Root256, Time};

    const L1: LinkId = LinkId(1);
    const L2: LinkId = LinkId(2);
    const ORIGIN: u32 = 1;

    fn name() -> ObjectName {
        ObjectName::new(b"a").expect("valid")
    }

    fn peer(text: &str) -> NodeName {
        text.parse().expect("valid")
    }

    fn seconds(s: u64) -> Time {
        Time(Duration::from_secs(s))
    }

    fn ask(flow: &mut Flow, link: LinkId, from: &str) {
        assert!(flow.subscription(link, &peer(from)).is_some(), "{from} is asked");
    }

    fn tell(flow: &mut Flow, link: LinkId, from: &str, root: u8, seq: u64) {
        assert!(flow.begin_news(link, &peer(from), 1));
        let (root, block_crcs) = (Root256([root; 32]), vec![7].into());
        let content = Content { size: ByteCount(9), mtime_ns: 0, mode: 0o644, root, block_crcs };
        flow.learn(&peer(from), Entry { name: name(), content });
        flow.handle_news(link, &peer(from), 1, seq);
    }

    fn answer(flow: &mut Flow, link: LinkId, from: &str, seq: u64) {
        flow.handle_whole(link, &peer(from), 1, seq, ORIGIN);
    }

    fn root_of(flow: &Flow) -> Option<u8> {
        let id = flow.id_of(&name())?;
        flow.content(id).map(|content| content.root.0[0])
    }

    #[test]
    fn a_peer_that_has_not_answered_takes_no_version_from_one_that_has() {
        let mut flow = Flow::fetch();
        flow.attach_blocks(L1, peer("e1"), Time::ZERO);
        ask(&mut flow, L1, "e1");
        ask(&mut flow, L2, "e2");
        tell(&mut flow, L2, "e2", 2, 2);
        answer(&mut flow, L2, "e2", 2);
        tell(&mut flow, L1, "e1", 1, 5);
        assert_eq!(root_of(&flow), Some(2), "e1 may have been cut off before");
        // It was asked before e2 told of it.
        answer(&mut flow, L1, "e1", 5);
        assert_eq!(flow.subscription(L1, &peer("e1")), Some((1, 5)));
        // It was not, or is not any more: what it told is heard again from the start.
        answer(&mut flow, L1, "e1", 5);
        assert_eq!(flow.subscription(L1, &peer("e1")), Some((0, 0)));
        tell(&mut flow, L1, "e1", 3, 6);
        assert_eq!(root_of(&flow), Some(3));
        answer(&mut flow, L1, "e1", 6);
        assert!(flow.subscription(L1, &peer("e1")).is_some_and(|(_, seq)| seq == 6), "once is enough");
        ask(&mut flow, L2, "e2");
        answer(&mut flow, L2, "e2", 2);
        tell(&mut flow, L2, "e2", 4, 3);
        // Over another link it has to answer anew.
        flow.detach_blocks(L1, Time::ZERO);
        let link = LinkId(3);
        ask(&mut flow, link, "e1");
        tell(&mut flow, link, "e1", 1, 7);
        assert_eq!(root_of(&flow), Some(4));
    }

    /// It was sure for as long as its link lived, so that each late word of it took the place of a newer version.
    #[test]
    fn a_peer_that_is_behind_takes_no_version_from_one_that_is_not() {
        let told = |late: u8| {
            let mut flow = Flow::fetch();
            for (link, from) in [(L1, "e1"), (L2, "e2")] {
                flow.attach_blocks(link, peer(from), Time::ZERO);
                ask(&mut flow, link, from);
                answer(&mut flow, link, from, 0);
            }
            tell(&mut flow, L2, "e2", 1, 2);
            tell(&mut flow, L2, "e2", 2, 3);
            tell(&mut flow, L1, "e1", late, 2);
            assert_eq!(root_of(&flow), Some(2));
            flow.review(seconds(1));
            assert!(flow.is_ask_due(L1));
            flow
        };
        // It catches up, or it was the other one that was behind and does.
        for (late, link, from) in [(1, L1, "e1"), (3, L2, "e2")] {
            let mut flow = told(late);
            let now = if late == 1 { 2 } else { 3 };
            tell(&mut flow, link, from, now, 4);
            assert_eq!(root_of(&flow), Some(now));
            let seq = if link == L1 { 4 } else { 2 };
            ask(&mut flow, L1, "e1");
            answer(&mut flow, L1, "e1", seq);
            assert!(!flow.is_ask_due(L1), "nothing is told twice");
            assert!(flow.next_range(L1, Time::ZERO).is_some(), "it has it, too");
        }
        // It does not.
        let mut flow = told(3);
        ask(&mut flow, L1, "e1");
        answer(&mut flow, L1, "e1", 2);
        assert_eq!(flow.subscription(L1, &peer("e1")), Some((0, 0)));
        tell(&mut flow, L1, "e1", 3, 2);
        assert_eq!(root_of(&flow), Some(3));
        tell(&mut flow, L2, "e2", 2, 4);
        assert_eq!(root_of(&flow), Some(3), "it says so still");
        tell(&mut flow, L2, "e2", 4, 5);
        assert_eq!(root_of(&flow), Some(3), "it may say this late as well");
    }

    /// What it has not been believed is told of, and no answer takes it for gone.
    #[test]
    fn what_a_peer_was_not_believed_is_not_gone_there() {
        let mut flow = Flow::fetch();
        flow.set_mirror(true);
        for (link, from) in [(L1, "e1"), (L2, "e2")] {
            flow.attach_blocks(link, peer(from), Time::ZERO);
            ask(&mut flow, link, from);
            answer(&mut flow, link, from, 0);
        }
        tell(&mut flow, L2, "e2", 2, 3);
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L2, "e2", 3, 4);
        tell(&mut flow, L1, "e1", 1, 2);
        flow.detach_blocks(L2, Time::ZERO);
        answer(&mut flow, L1, "e1", 2);
        assert_eq!(root_of(&flow), Some(3));
    }

    #[test]
    fn a_peer_that_has_not_answered_takes_no_attributes_from_one_that_has() {
        let mut flow = Flow::fetch();
        flow.have(name(), ByteCount(9), Root256([1; 32]));
        ask(&mut flow, L1, "e1");
        ask(&mut flow, L2, "e2");
        tell(&mut flow, L2, "e2", 1, 2);
        answer(&mut flow, L2, "e2", 2);
        let id = flow.id_of(&name()).expect("known");
        let content = Content { mode: 0o600, ..flow.content(id).expect("known").clone() };
        for (link, from, expected) in [(L1, "e1", 0o644), (L2, "e2", 0o600)] {
            assert!(flow.begin_news(link, &peer(from), 1));
            flow.learn(&peer(from), Entry { name: name(), content: content.clone() });
            assert_eq!(flow.content(id).map(|content| content.mode), Some(expected));
        }
    }

    #[test]
    fn where_nobody_was_sure_who_answers_first_is_heard_again() {
        let mut flow = Flow::fetch();
        ask(&mut flow, L1, "e1");
        ask(&mut flow, L2, "e2");
        tell(&mut flow, L2, "e2", 2, 2);
        tell(&mut flow, L1, "e1", 1, 5);
        assert_eq!(root_of(&flow), Some(1), "one of them");
        answer(&mut flow, L2, "e2", 2);
        assert_eq!(flow.subscription(L2, &peer("e2")), Some((0, 0)));
        tell(&mut flow, L2, "e2", 2, 2);
        answer(&mut flow, L2, "e2", 2);
        assert_eq!(root_of(&flow), Some(2));
    }

    #[test]
    fn what_is_here_from_an_earlier_run_is_replaced_when_somebody_is_sure_or_nobody_will_be() {
        let is_here = |flow: &Flow| {
            flow.id_of(&name()).is_some_and(|id| matches!(flow.at(id).state(), ObjectState::Present { .. }))
        };
        let told = || {
            let mut flow = Flow::fetch();
            flow.have(name(), ByteCount(9), Root256([1; 32]));
            ask(&mut flow, L1, "e1");
            flow.review(seconds(1));
            tell(&mut flow, L1, "e1", 2, 2);
            assert!(is_here(&flow), "it may be newer than what e1 knows");
            flow
        };
        let mut flow = told();
        answer(&mut flow, L1, "e1", 2);
        assert_eq!(flow.subscription(L1, &peer("e1")), Some((0, 0)));
        tell(&mut flow, L1, "e1", 2, 2);
        assert!(!is_here(&flow) && root_of(&flow) == Some(2));

        let mut flow = told();
        flow.review(seconds(10));
        assert_eq!(flow.subscription(L1, &peer("e1")), None, "it was asked");
        flow.review(seconds(11));
        assert_eq!(flow.subscription(L1, &peer("e1")), Some((0, 0)));
        tell(&mut flow, L1, "e1", 2, 2);
        assert!(!is_here(&flow) && root_of(&flow) == Some(2));
    }

    #[test]
    fn a_log_that_is_to_be_read_once_more_is_read_to_its_end() {
        let mut flow = Flow::fetch();
        flow.have(name(), ByteCount(9), Root256([1; 32]));
        flow.attach_blocks(L1, peer("e1"), Time::ZERO);
        ask(&mut flow, L1, "e1");
        flow.review(seconds(1));
        tell(&mut flow, L1, "e1", 2, 2);
        flow.review(seconds(11));
        assert_eq!(flow.subscription(L1, &peer("e1")), Some((0, 0)));
        // The answer to the first question, and news before it, were on their way.
        flow.handle_news(L1, &peer("e1"), 1, 3);
        answer(&mut flow, L1, "e1", 3);
        assert!(!flow.was_told_whole() && flow.is_ask_due(L1));
        assert_eq!(flow.subscription(L1, &peer("e1")), Some((0, 0)));
        flow.handle_news(L1, &peer("e1"), 1, 4);
        flow.detach_blocks(L1, Time::ZERO);
        assert_eq!(flow.subscription(L2, &peer("e1")), Some((0, 0)), "nothing of it has come again");
        tell(&mut flow, L2, "e1", 2, 4);
        answer(&mut flow, L2, "e1", 4);
        assert!(flow.was_told_whole());
        assert_eq!(root_of(&flow), Some(2));
    }

    #[test]
    fn a_peer_that_told_of_another_version_is_not_asked_for_this_one() {
        let mut flow = Flow::fetch();
        flow.attach_blocks(L1, peer("e1"), Time::ZERO);
        flow.attach_blocks(L2, peer("e2"), Time::ZERO);
        ask(&mut flow, L1, "e1");
        ask(&mut flow, L2, "e2");
        tell(&mut flow, L1, "e1", 1, 2);
        tell(&mut flow, L2, "e2", 1, 2);
        tell(&mut flow, L2, "e2", 2, 3);
        assert_eq!(flow.next_range(L1, Time::ZERO), None, "it would be other bytes");
        assert!(flow.next_range(L2, Time::ZERO).is_some());
        flow.detach_blocks(L2, Time::ZERO);
        tell(&mut flow, L1, "e1", 2, 3);
        assert!(flow.next_range(L1, Time::ZERO).is_some());
    }
}
