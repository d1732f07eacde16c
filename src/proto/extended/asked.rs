//! What the peer has asked for on one link, and which of it is worth looking at.
//!
//! A request that has to wait is looked at again when something happened to its object, not each time that the link has
//! room: an exchange may have a thousand of them waiting. What only time can change is seen to by
//! [`AskedRanges::stir_all`].

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::units::{ByteCount, Generation, ObjectId, Offset};
use crate::wire::extended::RequestId;

/// A range that the peer has asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: RequestId,
    pub(super) object: ObjectId,
    /// Of which the bytes are that were sent of it.
    pub(super) generation: Option<Generation>,
    /// What is still to be sent.
    pub(super) offset: Offset,
    pub(super) length: ByteCount,
}

/// Where requests of one object stand: most often there is one.
#[derive(Debug)]
struct Places {
    first: u64,
    more: Vec<u64>,
}

/// Requests in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct AskedRanges {
    next: u64,
    by_place: BTreeMap<u64, Asked>,
    places: BTreeMap<u32, u64>,
    by_object: BTreeMap<ObjectId, Places>,
    /// Those that may be answered now.
    stirred: BTreeSet<u64>,
}

impl AskedRanges {
    pub(super) fn len(&self) -> usize {
        self.by_place.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    pub(super) fn contains(&self, id: RequestId) -> bool {
        self.places.contains_key(&id.0)
    }

    pub(super) fn push(&mut self, asked: Asked) {
        let place = self.next;
        self.next += 1;
        self.places.insert(asked.id.0, place);
        match self.by_object.entry(asked.object) {
            Entry::Vacant(entry) => _ = entry.insert(Places { first: place, more: Vec::new() }),
            Entry::Occupied(mut entry) => entry.get_mut().more.push(place),
        }
        self.stirred.insert(place);
        self.by_place.insert(place, asked);
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<Asked> {
        let place = self.places.remove(&id.0)?;
        let asked = self.by_place.remove(&place)?;
        if let Entry::Occupied(mut entry) = self.by_object.entry(asked.object) {
            let places = entry.get_mut();
            match places.more.iter().position(|&other| other == place) {
                Some(at) => _ = places.more.swap_remove(at),
                None => match places.more.pop() {
                    Some(other) => places.first = other,
                    None => _ = entry.remove(),
                },
            }
        }
        self.stirred.remove(&place);
        Some(asked)
    }

    /// The oldest request that may be answered now.
    pub(super) fn first_stirred(&mut self) -> Option<&mut Asked> {
        let place = self.stirred.first()?;
        self.by_place.get_mut(place)
    }

    /// The request that [`AskedRanges::first_stirred`] tells of has to wait.
    pub(super) fn settle_first(&mut self) {
        self.stirred.pop_first();
    }

    /// Something happened to an object.
    pub(super) fn stir(&mut self, object: ObjectId) {
        if let Some(places) = self.by_object.get(&object) {
            self.stirred.insert(places.first);
            self.stirred.extend(&places.more);
        }
    }

    pub(super) fn stir_all(&mut self) {
        self.stirred.extend(self.by_place.keys());
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Asked> {
        std::mem::take(self).by_place.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(id: u32, object: u32) -> Asked {
        let (offset, length) = (Offset(0), ByteCount(1));
        Asked { id: RequestId(id), object: ObjectId(object), generation: None, offset, length }
    }

    fn first(ranges: &mut AskedRanges) -> Option<u32> {
        ranges.first_stirred().map(|asked| asked.id.0)
    }

    #[test]
    fn what_waits_is_looked_at_when_its_object_stirs() {
        let mut ranges = AskedRanges::default();
        [asked(8, 1), asked(7, 2), asked(9, 1)].into_iter().for_each(|asked| ranges.push(asked));
        while first(&mut ranges).is_some() {
            ranges.settle_first();
        }
        ranges.stir(ObjectId(1));
        assert_eq!(first(&mut ranges), Some(8));
        ranges.settle_first();
        assert_eq!(first(&mut ranges), Some(9));
        ranges.push(asked(6, 1));
        ranges.settle_first();
        ranges.settle_first();
        assert!(ranges.remove(RequestId(9)).is_some() && !ranges.contains(RequestId(9)));
        assert!(ranges.remove(RequestId(8)).is_some());
        ranges.stir(ObjectId(1));
        assert_eq!(first(&mut ranges), Some(6));
        assert!(ranges.remove(RequestId(6)).is_some() && ranges.remove(RequestId(6)).is_none());
        ranges.stir(ObjectId(1));
        assert_eq!(first(&mut ranges), None);
        ranges.stir_all();
        assert_eq!((first(&mut ranges), ranges.len(), ranges.by_object.len()), (Some(7), 1, 1));
    }
}
