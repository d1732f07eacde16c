//! What objects are made of, and the log of what became known and what was removed.
//!
//! A flow that is served keeps the log: each record has a number, later records of a name replace earlier ones, and a
//! subscriber reads on from where it knows it. Numbers ascend with gaps where records were replaced, so the log is
//! never longer than there are names in it. An epoch is one life of the log; numbers mean nothing across epochs.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits;
use crate::units::{ByteCount, LinkId, NodeName, ObjectId, ObjectName, Root256};

/// What is known of an object before any of it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: ObjectName,
    /// What it holds, and its attributes.
    pub content: Content,
}

/// What an object holds, and its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its length.
    pub size: ByteCount,
    /// When it was last changed, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its permission bits.
    pub mode: u16,
    /// BLAKE3 of all of it.
    pub root: Root256,
    /// CRC-32C of each of its blocks of [`limits::BLOCK_BYTES`], the last of which may be shorter.
    pub block_crcs: Box<[u32]>,
}

impl Content {
    /// Whether there is a checksum for each block, and neither more blocks nor more mode than can be told.
    pub fn is_consistent(&self) -> bool {
        let blocks = self.size.0.div_ceil(limits::BLOCK_BYTES);
        self.block_crcs.len() as u64 == blocks && blocks <= limits::BLOCKS_PER_OBJECT_MAX && self.mode <= 0o7777
    }
}

/// One record of the log, as it is told to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'a> {
    /// There is this object.
    Known(&'a ObjectName, &'a Content),
    /// There is none of this name any more.
    Removed(&'a ObjectName),
}

#[derive(Debug, Clone)]
pub(super) enum Record {
    Known(ObjectId),
    Removed(ObjectName),
}

/// The log of a flow, and how far it has read those of its peers.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) epoch: u64,
    next: u64,
    records: BTreeMap<u64, Record>,
    places: BTreeMap<ObjectId, u64>,
    removed: BTreeMap<ObjectName, u64>,
    pub(super) subscribers: BTreeSet<LinkId>,
    /// By peer: its epoch, the number of the first record not known, and the link that reads it.
    pub(super) cursors: BTreeMap<NodeName, Cursor>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) reader: Option<LinkId>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            epoch: 1,
            next: 0,
            records: BTreeMap::new(),
            places: BTreeMap::new(),
            removed: BTreeMap::new(),
            subscribers: BTreeSet::new(),
            cursors: BTreeMap::new(),
        }
    }
}

impl Ledger {
    /// Records that an object is known, or is known anew.
    pub(super) fn add(&mut self, id: ObjectId, name: &ObjectName) {
        if let Some(seq) = self.removed.remove(name) {
            self.records.remove(&seq);
        }
        let seq = self.append(Record::Known(id));
        if let Some(before) = self.places.insert(id, seq) {
            self.records.remove(&before);
        }
    }

    /// Records that a known object is gone.
    pub(super) fn remove(&mut self, id: ObjectId, name: &ObjectName) {
        let Some(before) = self.places.remove(&id) else { return };
        self.records.remove(&before);
        if self.removed.len() >= limits::REMOVALS_MAX {
            self.start_over(self.epoch.wrapping_add(1).max(1));
            return;
        }
        let seq = self.append(Record::Removed(name.clone()));
        self.removed.insert(name.clone(), seq);
    }

    /// A new life: what is known is numbered again, removals are forgotten.
    pub(super) fn start_over(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.next = 0;
        self.records.clear();
        self.removed.clear();
        for (id, place) in &mut self.places {
            *place = self.next;
            self.records.insert(self.next, Record::Known(*id));
            self.next += 1;
        }
    }

    /// Records from number `seq` on; all where `epoch` is another.
    pub(super) fn from(&self, epoch: u64, seq: u64) -> impl Iterator<Item = (u64, &Record)> {
        let seq = if epoch == self.epoch { seq } else { 0 };
        self.records.range(seq..).map(|(&seq, record)| (seq, record))
    }

    fn append(&mut self, record: Record) -> u64 {
        let seq = self.next;
        self.next += 1;
        self.records.insert(seq, record);
        seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(i: u32) -> ObjectName {
        ObjectName::new(format!("o{i}").as_bytes()).expect("valid")
    }

    #[test]
    fn a_later_record_replaces_the_earlier_one_of_its_name() {
        let mut ledger = Ledger::default();
        (0..3).for_each(|i| ledger.add(ObjectId(i), &name(i)));
        ledger.add(ObjectId(0), &name(0));
        ledger.remove(ObjectId(1), &name(1));
        let seqs: Vec<u64> = ledger.from(1, 0).map(|(seq, _)| seq).collect();
        assert_eq!(seqs, [2, 3, 4]);
        assert!(matches!(ledger.from(1, 4).next(), Some((4, Record::Removed(removed))) if *removed == name(1)));
        ledger.add(ObjectId(1), &name(1));
        assert_eq!(ledger.from(1, 0).count(), 3);
        assert_eq!(ledger.from(7, 5).count(), 3, "another epoch starts over");
    }

    #[test]
    fn what_was_never_known_is_not_told_to_be_gone() {
        let mut ledger = Ledger::default();
        ledger.remove(ObjectId(1), &name(1));
        assert_eq!(ledger.from(1, 0).count(), 0);
    }
}
