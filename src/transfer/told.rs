//! Which peers have told of which objects: a peer is not asked for what only others have told of.

use std::collections::BTreeMap;

use crate::units::{NodeName, ObjectId};

/// A bit for each object and peer.
#[derive(Debug, Default)]
pub(super) struct Told {
    by_peer: BTreeMap<NodeName, Vec<u64>>,
}

impl Told {
    /// A peer has told of an object.
    pub(super) fn add(&mut self, peer: &NodeName, id: ObjectId) {
        let (word, bit) = place(id);
        let words = match self.by_peer.get_mut(peer) {
            Some(words) => words,
            None => self.by_peer.entry(peer.clone()).or_default(),
        };
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= bit;
    }

    /// A peer has it no more.
    pub(super) fn remove(&mut self, peer: &NodeName, id: ObjectId) {
        let (word, bit) = place(id);
        if let Some(found) = self.by_peer.get_mut(peer).and_then(|words| words.get_mut(word)) {
            *found &= !bit;
        }
    }

    /// An object's place is to be another object's.
    pub(super) fn forget(&mut self, id: ObjectId) {
        let (word, bit) = place(id);
        for found in self.by_peer.values_mut().filter_map(|words| words.get_mut(word)) {
            *found &= !bit;
        }
    }

    /// What a peer has told means nothing any more.
    pub(super) fn forget_peer(&mut self, peer: &NodeName) {
        self.by_peer.remove(peer);
    }

    /// Whether a peer may be asked: it has told of the object, or nobody has.
    pub(super) fn may_ask(&self, peer: &NodeName, id: ObjectId) -> bool {
        let (word, bit) = place(id);
        let has = |words: &Vec<u64>| words.get(word).is_some_and(|found| found & bit != 0);
        self.by_peer.get(peer).is_some_and(has) || !self.by_peer.values().any(has)
    }
}

fn place(id: ObjectId) -> (usize, u64) {
    (id.0 as usize / 64, 1 << (id.0 % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_told_is_asked_and_where_nobody_has_all_are() {
        let name = |text: &str| NodeName::new(text.as_bytes()).expect("valid");
        let (e1, e2) = (name("e1"), name("e2"));
        let mut told = Told::default();
        assert!(told.may_ask(&e1, ObjectId(70)));
        told.add(&e1, ObjectId(70));
        assert!(told.may_ask(&e1, ObjectId(70)) && !told.may_ask(&e2, ObjectId(70)));
        assert!(told.may_ask(&e2, ObjectId(71)) && told.may_ask(&e2, ObjectId(6)));
        told.add(&e2, ObjectId(70));
        told.remove(&e1, ObjectId(70));
        assert!(!told.may_ask(&e1, ObjectId(70)) && told.may_ask(&e2, ObjectId(70)));
        told.forget_peer(&e2);
        assert!(told.may_ask(&e1, ObjectId(70)));
        told.add(&e1, ObjectId(70));
        told.forget(ObjectId(70));
        assert!(told.may_ask(&e2, ObjectId(70)));
    }
}
