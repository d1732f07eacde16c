//! What the sessions of a node remember of entries, together: one that announces without end takes nobody's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that sessions may still take, roughly.
#[derive(Debug)]
pub struct Memory(AtomicUsize);

impl Memory {
    /// So many in all.
    pub fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }
}

/// What one session holds of it; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Held {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, bytes: 0 }
    }

    /// Takes more; false where there is not so much left.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let taken = self.memory.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }

    /// Has so much; false where there is not so much left.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        if bytes < self.bytes {
            self.memory.0.fetch_add(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
        }
        bytes == self.bytes || self.take(bytes - self.bytes)
    }

    /// Gives back all of it.
    pub(super) fn clear(&mut self) {
        self.memory.0.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }

    /// None of it yet, of the same memory.
    pub(super) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.memory))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clear();
    }
}
