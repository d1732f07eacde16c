//! Small objects of `local/` that were read to be hashed: whoever fetches one soon after is sent what was read then.
//!
//! To find, open, read and close a file costs many times what it takes to send a few thousand bytes. What is here is
//! all of one version of its object, that which was told of. The thread that hashes stays a little ahead of the links:
//! it waits for them while they keep up, and not for those that do not.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};

use bytes::Bytes;

use super::shared::{PartKey, lock};
use crate::limits;
use crate::units::{ByteCount, Offset};

/// What was read ahead, within [`limits::AHEAD_BYTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Ahead {
    objects: Mutex<Objects>,
    /// Half of the room is free again.
    taken: Condvar,
}

#[derive(Debug, Default)]
struct Objects {
    all: HashMap<PartKey, (Bytes, u32)>,
    /// What all of it costs.
    cost: usize,
    /// The links did not keep up: nothing is added before they have taken half of it.
    is_shut: bool,
    /// Something was taken since the last [`Ahead::rest`].
    was_taken: bool,
}

impl Objects {
    /// Whether more than half of the room is taken.
    fn is_full(&self) -> bool {
        self.cost > limits::AHEAD_BYTES_MAX / 2
    }
}

fn cost(bytes: &Bytes) -> usize {
    bytes.len() + limits::KEPT_OBJECT_COST
}

impl Ahead {
    /// Has all of an object, and its checksum, until it is taken; not where there is no room.
    pub(super) fn add(&self, key: PartKey, bytes: Bytes, crc: u32) {
        let mut objects = lock(&self.objects);
        let added = cost(&bytes);
        if objects.is_shut || objects.cost + added > limits::AHEAD_BYTES_MAX {
            return;
        }
        objects.cost += added;
        if let Some((replaced, _)) = objects.all.insert(key, (bytes, crc)) {
            objects.cost -= cost(&replaced);
        }
    }

    /// All of an object and its checksum, once, where that is what is asked for.
    pub(super) fn take(&self, key: PartKey, offset: Offset, length: ByteCount) -> Option<(Bytes, u32)> {
        let mut objects = lock(&self.objects);
        objects.all.get(&key).filter(|(bytes, _)| offset.0 == 0 && length.0 == bytes.len() as u64)?;
        let found = objects.all.remove(&key)?;
        let was_full = objects.is_full();
        objects.cost -= cost(&found.0);
        objects.was_taken = true;
        if was_full && !objects.is_full() {
            objects.is_shut = false;
            self.taken.notify_one();
        }
        Some(found)
    }

    /// Blocks until half of the room is free, or the links have had the time for that.
    pub(super) fn wait(&self) {
        let objects = lock(&self.objects);
        let is_to_wait = |objects: &mut Objects| !objects.is_shut && objects.is_full();
        let waited = self.taken.wait_timeout_while(objects, limits::AHEAD_PATIENCE, is_to_wait);
        let (mut objects, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        objects.is_shut |= waited.timed_out();
    }

    /// Nothing is hashed now: what nobody took since the last time goes.
    pub(super) fn rest(&self) {
        let mut objects = lock(&self.objects);
        if !std::mem::take(&mut objects.was_taken) {
            *objects = Objects::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::transfer::FlowId;
    use crate::units::{Generation, ObjectId};

    const LENGTH: ByteCount = ByteCount(limits::SMALL_OBJECT_BYTES_MAX);

    fn key(id: u32) -> PartKey {
        (FlowId(1), ObjectId(id), Generation(0))
    }

    fn add(ahead: &Ahead, id: u32) {
        ahead.add(key(id), Bytes::from(vec![id as u8; LENGTH.0 as usize]), id);
    }

    fn take(ahead: &Ahead, id: u32) -> bool {
        let found = ahead.take(key(id), Offset(0), LENGTH);
        assert!(found.as_ref().is_none_or(|(bytes, crc)| bytes[0] == id as u8 && *crc == id));
        found.is_some()
    }

    /// As many as there is room for; how many those are.
    fn fill(ahead: &Ahead) -> u32 {
        (0..u32::MAX)
            .take_while(|&id| {
                add(ahead, id);
                lock(&ahead.objects).all.contains_key(&key(id))
            })
            .count() as u32
    }

    #[test]
    fn all_of_an_object_is_had_once() {
        let ahead = Ahead::default();
        ahead.add(key(1), Bytes::from_static(b"abc"), 7);
        ahead.add(key(1), Bytes::from_static(b"abcdef"), 8);
        assert_eq!(ahead.take(key(1), Offset(0), ByteCount(3)), None, "a part of it");
        assert_eq!(ahead.take(key(1), Offset(1), ByteCount(6)), None, "what it does not have");
        assert_eq!(ahead.take(key(2), Offset(0), ByteCount(6)), None, "another one");
        assert_eq!(ahead.take(key(1), Offset(0), ByteCount(6)), Some((Bytes::from_static(b"abcdef"), 8)));
        assert_eq!(ahead.take(key(1), Offset(0), ByteCount(6)), None);
        assert_eq!(lock(&ahead.objects).cost, 0);
    }

    #[test]
    fn who_hashes_waits_while_objects_are_taken() {
        let ahead = Ahead::default();
        let count = fill(&ahead);
        assert!(count as usize >= limits::AHEAD_BYTES_MAX / 2 / LENGTH.0 as usize, "{count}");
        thread::scope(|scope| {
            scope.spawn(|| (0..count).for_each(|id| assert!(take(&ahead, id))));
            ahead.wait();
        });
        let left = lock(&ahead.objects);
        assert_eq!((left.is_shut, left.cost), (false, 0));
    }

    #[test]
    fn what_nobody_takes_holds_nobody_up() {
        let ahead = Ahead::default();
        let count = fill(&ahead);
        ahead.wait();
        assert!(lock(&ahead.objects).is_shut);
        assert!(take(&ahead, 0), "what is there is there");
        add(&ahead, count);
        assert!(!take(&ahead, count), "nothing more is added");
        (1..count).filter(|id| id % 3 > 0).for_each(|id| assert!(take(&ahead, id)));
        add(&ahead, count);
        assert!(take(&ahead, count), "but once most of it is gone");
        ahead.rest();
        assert!(take(&ahead, 3), "something was taken meanwhile");
        ahead.rest();
        ahead.rest();
        assert!(!take(&ahead, 6), "and now nothing was");
    }
}
