//! Which object of a table has a name: places in the table alone, the names stay with the objects.
//!
//! Its key is the owner's to choose at random, so that no peer can send names that collide; nothing iterates over it,
//! so that no trace depends on it.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use hashbrown::HashTable;

use super::object::Object;
use crate::units::{ObjectId, ObjectName};

#[derive(Debug, Default)]
pub(super) struct Names {
    places: HashTable<Place>,
    key: u64,
}

/// With half of its name's hash, so that names are looked at only to tell that one is the right one.
#[derive(Debug, Clone, Copy)]
struct Place {
    hash: u32,
    id: ObjectId,
}

impl Names {
    /// To be called while it is empty.
    pub(super) fn set_key(&mut self, key: u64) {
        assert!(self.places.is_empty(), "places are found by the key");
        self.key = key;
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn find(&self, objects: &[Object], name: &ObjectName) -> Option<ObjectId> {
        let hash = hash_of(self.key, name);
        let is_it = |place: &Place| place.hash == hash && named(objects, place.id) == name;
        self.places.find(spread(hash), is_it).map(|place| place.id)
    }

    /// Adds an object whose name has no place yet.
    pub(super) fn insert(&mut self, objects: &[Object], id: ObjectId) {
        let hash = hash_of(self.key, named(objects, id));
        self.places.insert_unique(spread(hash), Place { hash, id }, |place| spread(place.hash));
    }

    pub(super) fn remove(&mut self, objects: &[Object], id: ObjectId) {
        let hash = hash_of(self.key, named(objects, id));
        if let Ok(place) = self.places.find_entry(spread(hash), |place| place.id == id) {
            place.remove();
        }
    }
}

fn named(objects: &[Object], id: ObjectId) -> &ObjectName {
    &objects[id.0 as usize].name
}

fn hash_of(key: u64, name: &ObjectName) -> u32 {
    BuildHasherDefault::<DefaultHasher>::new().hash_one((key, name.as_bytes())) as u32
}

/// The table goes by the lowest bits of what it is given, and by the highest.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
