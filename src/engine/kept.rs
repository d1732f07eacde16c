//! Small objects that an exchange passes on from memory.
//!
//! To make, fill, name, open, read and remove a file costs many times what it takes to send a few thousand bytes. So an
//! object of one short range is kept here instead of in a part file of the spool, while there is room; else it goes to
//! disk like any other. What is here is gone when the process ends, and fetched again if somebody still wants it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::shared::PartKey;
use crate::limits;
use crate::transfer::FlowId;
use crate::units::{ByteCount, Generation, ObjectId, Offset};
use crate::wire::checksum::crc32c;

/// What is kept, within [`limits::KEPT_BYTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Kept {
    objects: BTreeMap<PartKey, Object>,
    /// What all of it costs.
    cost: usize,
}

#[derive(Debug)]
struct Object {
    size: usize,
    /// All of it, once it has come.
    bytes: Bytes,
    /// The checksum of all of it, where that came with it.
    crc: Option<u32>,
    /// There is a file of it as well.
    spilled: bool,
}

impl Object {
    fn cost(&self) -> usize {
        self.size + limits::KEPT_OBJECT_COST
    }

    /// All of it, with nothing where nothing has come.
    fn padded(&self) -> Vec<u8> {
        let mut all = Vec::from(self.bytes.clone());
        all.resize(self.size, 0);
        all
    }
}

impl Kept {
    /// Takes room for an object; `false` where it has to go to disk.
    pub(super) fn reserve(&mut self, key: PartKey, size: ByteCount) -> bool {
        let object = match usize::try_from(size.0) {
            Ok(size) if size <= limits::KEPT_OBJECT_BYTES_MAX => {
                Object { size, bytes: Bytes::new(), crc: None, spilled: false }
            }
            _ => return false,
        };
        if self.objects.contains_key(&key) || self.cost + object.cost() > limits::KEPT_BYTES_MAX {
            return false;
        }
        self.cost += object.cost();
        self.objects.insert(key, object);
        true
    }

    /// Bytes of an object came in, as a rule all of them at once, with their checksum; `false` where it is not kept
    /// here.
    pub(super) fn fill(&mut self, key: PartKey, offset: Offset, bytes: &Bytes, crc: u32) -> bool {
        let Some(object) = self.objects.get_mut(&key) else { return false };
        if bytes.len() == object.size {
            (object.bytes, object.crc) = (bytes.clone(), Some(crc));
        } else {
            let mut all = object.padded();
            let start = offset.0 as usize;
            all[start..start + bytes.len()].copy_from_slice(bytes);
            (object.bytes, object.crc) = (all.into(), None);
        }
        true
    }

    pub(super) fn contains(&self, key: PartKey) -> bool {
        self.objects.contains_key(&key)
    }

    /// A range of an object and its checksum, where that is kept here and some of it has come.
    pub(super) fn read(&self, key: PartKey, offset: Offset, length: ByteCount) -> Option<(Bytes, u32)> {
        let start = offset.0 as usize;
        let object = self.objects.get(&key).filter(|object| !object.bytes.is_empty())?;
        let bytes = object.bytes.slice(start..start + length.0 as usize);
        let crc = object.crc.filter(|_| bytes.len() == object.size).unwrap_or_else(|| crc32c(&bytes));
        Some((bytes, crc))
    }

    /// Has `write` make a file of an object, for somebody who can only read that, where there is none yet.
    pub(super) fn spill<E>(&mut self, key: PartKey, write: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if let Some(object) = self.objects.get_mut(&key).filter(|object| !object.spilled) {
            write(&object.padded())?;
            object.spilled = true;
        }
        Ok(())
    }

    /// An attempt at an object is over.
    pub(super) fn remove(&mut self, key: PartKey) -> Option<Evicted> {
        let object = self.objects.remove(&key)?;
        self.cost -= object.cost();
        Some(Evicted { has_file: object.spilled })
    }

    /// An object is no longer kept, whichever attempt brought it.
    pub(super) fn evict(&mut self, flow: FlowId, id: ObjectId) -> Option<Evicted> {
        let attempts = (flow, id, Generation(0))..=(flow, id, Generation(u32::MAX));
        let key = *self.objects.range(attempts).next()?.0;
        self.remove(key)
    }
}

/// What is left of an object that was kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Evicted {
    /// There is a file of it.
    pub(super) has_file: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: ByteCount = ByteCount(limits::KEPT_OBJECT_BYTES_MAX as u64);

    fn key(id: u32) -> PartKey {
        (FlowId(0), ObjectId(id), Generation(1))
    }

    fn of(bytes: &'static [u8]) -> Bytes {
        Bytes::from_static(bytes)
    }

    #[test]
    fn what_is_small_is_kept_until_it_is_evicted() {
        let mut kept = Kept::default();
        assert!(!kept.reserve(key(1), ByteCount(SMALL.0 + 1)), "too long");
        assert!(kept.reserve(key(1), ByteCount(6)));
        assert!(kept.fill(key(1), Offset(3), &of(b"def"), 7) && kept.fill(key(1), Offset(0), &of(b"abc"), 7));
        assert_eq!(kept.read(key(1), Offset(2), ByteCount(3)), Some((of(b"cde"), crc32c(b"cde"))));
        assert_eq!(kept.read(key(1), Offset(0), ByteCount(6)), Some((of(b"abcdef"), crc32c(b"abcdef"))));
        assert!(kept.fill(key(1), Offset(0), &of(b"uvwxyz"), 7));
        assert_eq!(kept.read(key(1), Offset(0), ByteCount(6)), Some((of(b"uvwxyz"), 7)), "as it came");
        assert_eq!(kept.read(key(1), Offset(0), ByteCount(5)), Some((of(b"uvwxy"), crc32c(b"uvwxy"))));
        assert!(!kept.fill(key(2), Offset(0), &of(b"abc"), 7), "no room was taken for it");
        assert_eq!(kept.evict(FlowId(0), ObjectId(1)), Some(Evicted { has_file: false }));
        assert_eq!((kept.remove(key(1)), kept.cost), (None, 0));
    }

    #[test]
    fn who_needs_a_file_makes_it_once() {
        let mut kept = Kept::default();
        assert!(kept.reserve(key(1), ByteCount(3)) && kept.fill(key(1), Offset(0), &of(b"abc"), 7));
        assert_eq!(kept.spill(key(1), |_| Err("full")), Err("full"));
        let mut files = Vec::new();
        for _ in 0..2 {
            let made = kept.spill(key(1), |bytes| {
                files.push(bytes.to_vec());
                Ok::<(), ()>(())
            });
            assert_eq!(made, Ok(()));
        }
        assert_eq!((files, kept.remove(key(1))), (vec![b"abc".to_vec()], Some(Evicted { has_file: true })));
    }

    #[test]
    fn what_does_not_fit_goes_to_disk() {
        let mut kept = Kept::default();
        let fit = (0..).take_while(|&id| kept.reserve(key(id), SMALL)).count();
        assert!(fit >= 100 && kept.cost <= limits::KEPT_BYTES_MAX, "{fit}");
        assert!(kept.remove(key(0)).is_some() && kept.reserve(key(1_000_000), SMALL));
    }
}
