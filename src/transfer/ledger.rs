//! What objects are made of, and the log of what became known and what was removed.
//!
//! A flow that is served keeps the log: each record has a number, later records of a name replace earlier ones, and a
//! subscriber reads on from where it knows it. Numbers ascend with gaps where records were replaced, so the log is
//! never longer than twice the names in it. An epoch is one life of the log; numbers mean nothing across epochs.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::object::Object;
use crate::limits;
use crate::units::{BlockCrcs, ByteCount, LinkId, NodeName, ObjectId, ObjectName, Root256, Time};

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
    pub block_crcs: BlockCrcs,
}

impl Content {
    /// Whether there is a checksum for each block, and neither more blocks nor more mode than can be told.
    pub fn is_consistent(&self) -> bool {
        let blocks = self.size.0.div_ceil(limits::BLOCK_BYTES);
        self.block_crcs.len() as u64 == blocks && blocks <= limits::BLOCKS_PER_OBJECT_MAX && self.mode <= 0o7777
    }

    /// Whether both tell of the same bytes. A peer may tell the same root of others.
    pub(super) fn is_of_same_bytes(&self, other: &Self) -> bool {
        (self.root, self.size, &self.block_crcs) == (other.root, other.size, &other.block_crcs)
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

#[derive(Debug, Clone, Copy)]
pub(super) enum Record<'l> {
    Known(ObjectId),
    Removed(&'l ObjectName),
}

/// The log of a flow, and how far it has read those of its peers.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) epoch: u64,
    next: NonZeroU32,
    /// Ascending. One that its object does not name as its own was replaced.
    known: Vec<(NonZeroU32, ObjectId)>,
    /// How many of these were.
    replaced: usize,
    removed: BTreeMap<NonZeroU32, ObjectName>,
    removals: BTreeMap<ObjectName, NonZeroU32>,
    /// Bytes of their names.
    removal_bytes: usize,
    pub(super) subscribers: BTreeSet<LinkId>,
    /// How far the logs of the peers are read.
    pub(super) cursors: BTreeMap<NodeName, Cursor>,
    /// Objects of which a peer has told a version that was not believed, or that another one took the place of, and the
    /// root of that.
    pub(super) doubts: BTreeMap<NodeName, BTreeMap<ObjectName, Root256>>,
    /// Bytes of long news that are coming in.
    pub(super) long_news: u64,
}

/// How far the log of one peer is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    pub(super) epoch: u64,
    /// The number of the first record not known.
    pub(super) seq: u64,
    /// The link that reads it.
    pub(super) reader: Option<LinkId>,
    /// The peer's bit in [`Object::told_by`]; none where there are too many peers.
    pub(super) mask: u32,
    /// The question that it was asked and has not answered yet, and the last one that it has answered.
    pub(super) asked: Option<u32>,
    pub(super) answered: u32,
    /// Since when it was seen to owe an answer, ...
    pub(super) waits_since: Option<Time>,
    /// ... and whether it did so for long: until it answers, it may be cut off from the origin.
    pub(super) late: bool,
    /// It is to be asked once more when it has answered.
    pub(super) again: bool,
    /// Where its entries come from in the first place.
    pub(super) origin: Option<u32>,
    /// Something that it told could not be taken: what it tells is not all that there is.
    pub(super) lossy: bool,
    /// What it told in an earlier epoch, and no more in this one, is still in the table.
    pub(super) unswept: bool,
    /// The last question that it has answered over this link, 0 if none: what it tells is not of a time before that.
    pub(super) sure: u32,
    /// Its log is to be read once more from the start, ...
    pub(super) reread: bool,
    /// ... which it has been asked for, and has not answered since.
    pub(super) rereading: bool,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            epoch: 1,
            next: NonZeroU32::MIN,
            known: Vec::new(),
            replaced: 0,
            removed: BTreeMap::new(),
            removals: BTreeMap::new(),
            removal_bytes: 0,
            subscribers: BTreeSet::new(),
            cursors: BTreeMap::new(),
            doubts: BTreeMap::new(),
            long_news: 0,
        }
    }
}

impl Ledger {
    /// A bit for another peer; 0 where there is none.
    pub(super) fn free_mask(&self) -> u32 {
        let used = self.cursors.values().fold(0, |masks, cursor| masks | cursor.mask);
        !used & used.wrapping_add(1)
    }

    /// What a peer told of an object, with this root, is not what is known of it.
    pub(super) fn doubt(&mut self, peer: &NodeName, object: &ObjectName, root: Root256) {
        let objects = match self.doubts.get_mut(peer) {
            Some(objects) => objects,
            None => self.doubts.entry(peer.clone()).or_default(),
        };
        if objects.len() < limits::DOUBTS_PER_PEER_MAX || objects.contains_key(object) {
            objects.insert(object.clone(), root);
        }
    }

    /// This is known of an object now: the bits of those who have told it, and were not believed.
    pub(super) fn vindicate(&mut self, object: &ObjectName, root: Root256) -> u32 {
        let mut masks = 0;
        for (peer, objects) in &mut self.doubts {
            // Of so many not all are noted.
            let is_all = objects.len() < limits::DOUBTS_PER_PEER_MAX;
            if is_all && objects.get(object) == Some(&root) {
                objects.remove(object);
                masks |= self.cursors.get(peer).map_or(0, |cursor| cursor.mask);
            }
        }
        masks
    }

    /// Records that an object is known, or is known anew.
    pub(super) fn add(&mut self, objects: &mut [Object], id: ObjectId) {
        let number = self.number(objects);
        let object = &mut objects[id.0 as usize];
        if let Some(number) = self.removals.remove(&object.name) {
            self.removed.remove(&number);
            self.removal_bytes -= object.name.as_bytes().len();
        }
        self.replaced += usize::from(object.record.replace(number).is_some());
        self.known.push((number, id));
        self.drop_replaced(objects);
    }

    /// Records that a known object is gone.
    pub(super) fn remove(&mut self, objects: &mut [Object], id: ObjectId) {
        let object = &mut objects[id.0 as usize];
        if object.record.take().is_none() {
            return;
        }
        self.replaced += 1;
        let name = object.name.clone();
        self.drop_replaced(objects);
        if self.removed.len() >= limits::REMOVALS_MAX || self.removal_bytes >= limits::REMOVALS_BYTES_MAX {
            self.start_over(objects, self.epoch.wrapping_add(1).max(1));
            return;
        }
        let number = self.number(objects);
        self.removal_bytes += name.as_bytes().len();
        self.removed.insert(number, name.clone());
        self.removals.insert(name, number);
    }

    /// What is known of an object is told no more, though it may be there.
    pub(super) fn drop_record(&mut self, objects: &mut [Object], id: ObjectId) {
        if objects[id.0 as usize].record.take().is_some() {
            self.replaced += 1;
            self.drop_replaced(objects);
        }
    }

    /// A new life: what is known is numbered again, removals are forgotten.
    pub(super) fn start_over(&mut self, objects: &mut [Object], epoch: u64) {
        self.epoch = epoch;
        self.removed.clear();
        self.removals.clear();
        self.removal_bytes = 0;
        self.known.retain(|&(number, id)| objects[id.0 as usize].record == Some(number));
        self.replaced = 0;
        self.next = NonZeroU32::MIN;
        for (number, id) in &mut self.known {
            *number = self.next;
            objects[id.0 as usize].record = Some(self.next);
            self.next = self.next.saturating_add(1);
        }
    }

    /// Records from number `seq` on; all where `epoch` is another.
    pub(super) fn from<'l>(
        &'l self,
        objects: &'l [Object],
        epoch: u64,
        seq: u64,
    ) -> impl Iterator<Item = (u64, Record<'l>)> {
        let seq = if epoch == self.epoch { u32::try_from(seq).unwrap_or(u32::MAX) } else { 0 };
        let seq = NonZeroU32::new(seq).unwrap_or(NonZeroU32::MIN);
        let first = self.known.partition_point(|&(number, _)| number < seq);
        let is_valid = |&&(number, id): &&(NonZeroU32, ObjectId)| objects[id.0 as usize].record == Some(number);
        let mut known = self.known[first..].iter().filter(is_valid).peekable();
        let mut removed = self.removed.range(seq..).peekable();
        std::iter::from_fn(move || {
            let known_is_next = match (known.peek(), removed.peek()) {
                (Some((known, _)), Some((removed, _))) => known < *removed,
                (known, _) => known.is_some(),
            };
            if known_is_next {
                known.next().map(|&(number, id)| (u64::from(number.get()), Record::Known(id)))
            } else {
                removed.next().map(|(number, name)| (u64::from(number.get()), Record::Removed(name)))
            }
        })
    }

    fn number(&mut self, objects: &mut [Object]) -> NonZeroU32 {
        if self.next == NonZeroU32::MAX {
            self.start_over(objects, self.epoch.wrapping_add(1).max(1));
        }
        let number = self.next;
        self.next = self.next.saturating_add(1);
        number
    }

    /// Keeps the log no longer than twice what is known.
    fn drop_replaced(&mut self, objects: &[Object]) {
        if self.replaced > self.known.len() / 2 {
            self.known.retain(|&(number, id)| objects[id.0 as usize].record == Some(number));
            self.replaced = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(i: u32) -> ObjectName {
        ObjectName::new(format!("o{i}").as_bytes()).expect("valid")
    }

    fn objects(count: u32) -> Vec<Object> {
        (0..count).map(|i| Object::new(name(i), None)).collect()
    }

    #[test]
    fn a_later_record_replaces_the_earlier_one_of_its_name() {
        let (mut ledger, mut objects) = (Ledger::default(), objects(3));
        (0..3).for_each(|i| ledger.add(&mut objects, ObjectId(i)));
        ledger.add(&mut objects, ObjectId(0));
        ledger.remove(&mut objects, ObjectId(1));
        let seqs: Vec<u64> = ledger.from(&objects, 1, 0).map(|(seq, _)| seq).collect();
        assert_eq!(seqs, [3, 4, 5]);
        let last = ledger.from(&objects, 1, 5).next();
        assert!(matches!(last, Some((5, Record::Removed(removed))) if *removed == name(1)));
        ledger.add(&mut objects, ObjectId(1));
        assert_eq!(ledger.from(&objects, 1, 0).count(), 3);
        assert_eq!(ledger.from(&objects, 7, 5).count(), 3, "another epoch starts over");
    }

    #[test]
    fn records_that_were_replaced_are_dropped_in_time_and_a_new_life_has_none() {
        let (mut ledger, mut objects) = (Ledger::default(), objects(10));
        (0..100).for_each(|i| ledger.add(&mut objects, ObjectId(i % 10)));
        assert!(ledger.known.len() <= 20);
        ledger.start_over(&mut objects, 9);
        let seqs: Vec<u64> = ledger.from(&objects, 9, 0).map(|(seq, _)| seq).collect();
        assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
    }

    #[test]
    fn removals_of_long_names_make_a_log_start_over_too() {
        let (mut ledger, mut objects) = (Ledger::default(), objects(3));
        (0..3).for_each(|i| ledger.add(&mut objects, ObjectId(i)));
        ledger.remove(&mut objects, ObjectId(0));
        ledger.add(&mut objects, ObjectId(0));
        assert_eq!(ledger.removal_bytes, 0);
        ledger.removal_bytes = limits::REMOVALS_BYTES_MAX - 2;
        (0..2).for_each(|i| ledger.remove(&mut objects, ObjectId(i)));
        assert_eq!((ledger.epoch, ledger.from(&objects, 1, 4).count()), (2, 1), "only what is known is told");
    }

    #[test]
    fn what_was_never_known_is_not_told_to_be_gone() {
        let (mut ledger, mut objects) = (Ledger::default(), objects(2));
        ledger.remove(&mut objects, ObjectId(1));
        assert_eq!(ledger.from(&objects, 1, 0).count(), 0);
    }
}
