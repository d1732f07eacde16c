//! The bound of a spool: how many bytes it may hold, and who goes first.
//!
//! What was delivered goes before what was not, and within each the least recently used goes first. An object
//! that somebody is reading, or that is still arriving, never goes.

use std::collections::BTreeSet;

use crate::units::{ByteCount, ObjectId, Time};

#[derive(Debug)]
pub(super) struct Room {
    max: ByteCount,
    used: ByteCount,
    /// Not delivered, kept until then, which, how long.
    evictable: BTreeSet<(bool, Time, ObjectId, ByteCount)>,
    evictable_bytes: ByteCount,
}

impl Room {
    pub(super) fn new(max: ByteCount) -> Self {
        Self { max, used: ByteCount(0), evictable: BTreeSet::new(), evictable_bytes: ByteCount(0) }
    }

    pub(super) fn max(&self) -> ByteCount {
        self.max
    }

    pub(super) fn resize(&mut self, max: ByteCount) {
        self.max = max;
    }

    pub(super) fn used(&self) -> ByteCount {
        self.used
    }

    pub(super) fn take(&mut self, bytes: ByteCount) {
        self.used += bytes;
    }

    pub(super) fn give_back(&mut self, bytes: ByteCount) {
        self.used -= bytes;
    }

    /// Whether `bytes` more would fit once everything that can go is gone.
    pub(super) fn could_fit(&self, bytes: ByteCount) -> bool {
        self.used - self.evictable_bytes + bytes <= self.max
    }

    /// Whether `bytes` more fit now.
    pub(super) fn fits(&self, bytes: ByteCount) -> bool {
        self.used + bytes <= self.max
    }

    /// Whether nothing is held that could not go.
    pub(super) fn is_free(&self) -> bool {
        self.used == self.evictable_bytes
    }

    pub(super) fn may_go(&mut self, id: ObjectId, size: ByteCount, delivered: bool, until: Time) {
        if self.evictable.insert((!delivered, until, id, size)) {
            self.evictable_bytes += size;
        }
    }

    pub(super) fn must_stay(&mut self, id: ObjectId, size: ByteCount, delivered: bool, until: Time) {
        if self.evictable.remove(&(!delivered, until, id, size)) {
            self.evictable_bytes -= size;
        }
    }

    /// All who may go.
    #[cfg(test)]
    pub(super) fn evictable(&self) -> impl Iterator<Item = ObjectId> {
        self.evictable.iter().map(|&(_, _, id, _)| id)
    }

    /// Whether it may go, with just these marks.
    #[cfg(test)]
    pub(super) fn is_marked(&self, id: ObjectId, size: ByteCount, delivered: bool, until: Time) -> bool {
        self.evictable.contains(&(!delivered, until, id, size))
    }

    /// Who has been kept for no one longer than need be.
    pub(super) fn expired(&self, now: Time) -> Option<ObjectId> {
        let delivered = self.evictable.first().filter(|entry| !entry.0);
        let undelivered = self.evictable.range((true, Time::ZERO, ObjectId(0), ByteCount(0))..).next();
        let is_over = |entry: &&(bool, Time, ObjectId, ByteCount)| entry.1 <= now;
        delivered.filter(is_over).or(undelivered.filter(is_over)).map(|entry| entry.2)
    }

    /// Who was delivered, and goes first.
    pub(super) fn delivered(&self) -> Option<ObjectId> {
        self.evictable.first().filter(|entry| !entry.0).map(|entry| entry.2)
    }

    /// Who goes next.
    pub(super) fn next_to_go(&self) -> Option<ObjectId> {
        self.evictable.first().map(|&(_, _, id, _)| id)
    }
}
