//! Objects that an exchange passes on from memory.
//!
//! To make, fill, name, open, read and remove a file costs many times what it takes to send a few thousand bytes. And
//! to write a long object down costs more than all else that an exchange does with it, though a moment later it has
//! been passed on. So objects that are small, or come in quickly, are kept here instead of in part files of the spool,
//! while there is room; all others go to disk. When the engine stops, what nobody has had of these goes to disk as
//! well; when the process dies it is gone, and fetched again if somebody still wants it.

use std::collections::BTreeMap;
use std::io::IoSlice;

use bytes::Bytes;

use super::arriving::Version;
use super::shared::PartKey;
use crate::limits;
use crate::store::{Part, StoreError};
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
pub(super) struct Object {
    pub(super) version: Version,
    content: Content,
    /// Bytes of its ranges.
    held: usize,
    /// All of it has come.
    pub(super) is_whole: bool,
    /// There is a file of it as well.
    has_file: bool,
}

/// What has come of an object.
#[derive(Debug)]
enum Content {
    /// Ranges as they came, in order; no two of them overlap.
    Ranges(Vec<Range>),
    /// What came in too many pieces, or twice; nothing where nothing has come.
    Joined(Vec<u8>),
}

#[derive(Debug)]
struct Range {
    offset: usize,
    bytes: Bytes,
    crc: u32,
}

impl Range {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }
}

impl Object {
    /// What it costs to have it.
    fn cost(&self) -> usize {
        let content = match &self.content {
            Content::Ranges(ranges) => self.held + ranges.len() * size_of::<Range>(),
            Content::Joined(joined) => joined.len(),
        };
        content + limits::KEPT_OBJECT_COST
    }

    fn add(&mut self, offset: usize, bytes: &Bytes, crc: u32) {
        if let Content::Ranges(ranges) = &mut self.content {
            let at = ranges.partition_point(|range| range.end() <= offset);
            let is_free = ranges.get(at).is_none_or(|next| next.offset >= offset + bytes.len());
            if is_free && ranges.len() < ranges_max(self.version.size) {
                ranges.insert(at, Range { offset, bytes: own(bytes), crc });
                self.held += bytes.len();
                return;
            }
            let mut joined = vec![0; self.version.size.0 as usize];
            for range in ranges {
                joined[range.offset..range.end()].copy_from_slice(&range.bytes);
            }
            self.content = Content::Joined(joined);
        }
        if let Content::Joined(joined) = &mut self.content {
            joined[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Some of it that has come, and its checksum; `None` where it has not.
    fn read(&self, offset: usize, length: usize) -> Option<(Bytes, u32)> {
        let bytes = match &self.content {
            Content::Joined(joined) => Bytes::copy_from_slice(&joined[offset..offset + length]),
            Content::Ranges(ranges) => {
                let first = ranges.partition_point(|range| range.end() <= offset);
                let range = ranges.get(first).filter(|range| range.offset <= offset)?;
                if (range.offset, range.bytes.len()) == (offset, length) {
                    return Some((range.bytes.clone(), range.crc));
                }
                let start = offset - range.offset;
                if start + length <= range.bytes.len() {
                    range.bytes.slice(start..start + length)
                } else {
                    join(&ranges[first..], offset, length)?
                }
            }
        };
        let crc = crc32c(&bytes);
        Some((bytes, crc))
    }

    /// Writes what has come of it to a part; which ranges those are, where that is still known.
    pub(super) fn write_to(&self, part: &Part) -> Result<Vec<(Offset, ByteCount)>, StoreError> {
        let write = |offset: usize, bytes: &[u8]| {
            let offset = Offset(offset as u64);
            part.write_vectored_at(&[IoSlice::new(bytes)], offset)?;
            Ok((offset, ByteCount(bytes.len() as u64)))
        };
        match &self.content {
            Content::Joined(joined) => write(0, joined).map(|_| Vec::new()),
            Content::Ranges(ranges) => ranges.iter().map(|range| write(range.offset, &range.bytes)).collect(),
        }
    }
}

/// So many ranges of an object stay as they came: no fewer than it takes where none is shorter than is ordered.
fn ranges_max(size: ByteCount) -> usize {
    limits::KEPT_RANGES_MIN + (2 * size.0 / limits::RANGE_BYTES_MIN) as usize
}

/// What is in a buffer of a block and much shorter does not keep that.
fn own(bytes: &Bytes) -> Bytes {
    let is_pooled = bytes.len() as u64 >= limits::RANGE_POOLED_BYTES_MIN;
    let is_short = (bytes.len() as u64) < limits::BLOCK_BYTES / 8 * 7;
    if is_pooled && is_short { Bytes::copy_from_slice(bytes) } else { bytes.clone() }
}

/// What several ranges have in a row.
fn join(ranges: &[Range], offset: usize, length: usize) -> Option<Bytes> {
    let mut joined = Vec::with_capacity(length);
    for range in ranges {
        let (at, end) = (offset + joined.len(), range.end().min(offset + length));
        if at >= end {
            break;
        }
        joined.extend_from_slice(range.bytes.get(at.checked_sub(range.offset)?..end - range.offset)?);
    }
    (joined.len() == length).then(|| joined.into())
}

impl Kept {
    /// Takes on an object; `false` where it has to go to disk.
    pub(super) fn reserve(&mut self, key: PartKey, version: Version) -> bool {
        let first = limits::KEPT_OBJECT_COST + version.size.0.min(limits::BLOCK_BYTES) as usize;
        let has_room = version.size.0 <= limits::KEPT_OBJECT_BYTES_MAX && self.cost + first <= limits::KEPT_BYTES_MAX;
        if !has_room || self.objects.contains_key(&key) {
            return false;
        }
        let content = Content::Ranges(Vec::new());
        let object = Object { version, content, held: 0, is_whole: false, has_file: false };
        self.cost += object.cost();
        self.objects.insert(key, object);
        true
    }

    /// Bytes of an object came in, with their checksum.
    pub(super) fn fill(&mut self, key: PartKey, offset: Offset, bytes: &Bytes, crc: u32) -> Filled {
        let Some(object) = self.objects.get_mut(&key) else { return Filled::NotKept };
        if self.cost + bytes.len() > limits::KEPT_BYTES_MAX {
            return Filled::NoRoom;
        }
        let before = object.cost();
        object.add(offset.0 as usize, bytes, crc);
        self.cost = self.cost - before + object.cost();
        Filled::Kept
    }

    /// All of an object has come; `false` where it is not kept here.
    pub(super) fn finish(&mut self, key: PartKey) -> bool {
        self.objects.get_mut(&key).map(|object| object.is_whole = true).is_some()
    }

    /// A range of an object and its checksum, where that is kept here and the range has come.
    pub(super) fn read(&self, key: PartKey, offset: Offset, length: ByteCount) -> Option<(Bytes, u32)> {
        self.objects.get(&key)?.read(offset.0 as usize, length.0 as usize)
    }

    /// What is kept, and whether all of it has come.
    pub(super) fn all(&self) -> Vec<(PartKey, bool)> {
        self.objects.iter().map(|(&key, object)| (key, object.is_whole)).collect()
    }

    /// Has `write` make a file of an object, for somebody who can only read that, where there is none yet. What is not
    /// whole is kept no longer, for more of it is to come: it has a part from then on.
    pub(super) fn spill<E>(&mut self, key: PartKey, write: impl FnOnce(&Object) -> Result<(), E>) -> Result<(), E> {
        let Some(object) = self.objects.get_mut(&key).filter(|object| !object.has_file) else { return Ok(()) };
        write(object)?;
        object.has_file = true;
        if !object.is_whole {
            self.remove(key);
        }
        Ok(())
    }

    /// An attempt at an object is over.
    pub(super) fn remove(&mut self, key: PartKey) -> Option<Evicted> {
        let object = self.objects.remove(&key)?;
        self.cost -= object.cost();
        Some(Evicted { has_file: object.has_file })
    }

    /// An object is no longer kept, whichever attempt brought it.
    pub(super) fn evict(&mut self, flow: FlowId, id: ObjectId) -> Option<Evicted> {
        let attempts = (flow, id, Generation(0))..=(flow, id, Generation(u32::MAX));
        let key = *self.objects.range(attempts).next()?.0;
        self.remove(key)
    }
}

/// What became of bytes that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// They are here.
    Kept,
    /// There is no room for them: their object is to be [spilled](Kept::spill).
    NoRoom,
    /// Their object is not here.
    NotKept,
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
    use crate::store::{FileMode, FileTime, Root};
    use crate::units::{ObjectName, Root256};

    fn key(id: u32) -> PartKey {
        (FlowId(0), ObjectId(id), Generation(1))
    }

    fn of(size: u64) -> Version {
        Version { size: ByteCount(size), root: Root256([7; 32]), mode: FileMode::default(), mtime: FileTime(0) }
    }

    fn fill(kept: &mut Kept, offset: u64, bytes: &'static [u8]) -> bool {
        kept.fill(key(1), Offset(offset), &Bytes::from_static(bytes), 7) == Filled::Kept
    }

    fn read(kept: &Kept, offset: u64, length: u64) -> Option<(Vec<u8>, u32)> {
        kept.read(key(1), Offset(offset), ByteCount(length)).map(|(bytes, crc)| (bytes.to_vec(), crc))
    }

    fn checked(bytes: &[u8]) -> Option<(Vec<u8>, u32)> {
        Some((bytes.to_vec(), crc32c(bytes)))
    }

    #[test]
    fn ranges_are_had_as_they_came_and_in_parts_and_in_a_row() {
        let mut kept = Kept::default();
        assert!(kept.reserve(key(1), of(9)));
        assert!(!kept.reserve(key(1), of(9)), "it is there");
        assert!(fill(&mut kept, 6, b"ghi") && fill(&mut kept, 0, b"abc"));
        assert_eq!(read(&kept, 0, 3), Some((b"abc".to_vec(), 7)), "as it came");
        assert_eq!((read(&kept, 1, 2), read(&kept, 7, 2)), (checked(b"bc"), checked(b"hi")));
        for (offset, length) in [(3, 3), (0, 4), (5, 2), (2, 5), (0, 9)] {
            assert_eq!(read(&kept, offset, length), None, "{offset} {length}: not all of it has come");
        }
        assert!(fill(&mut kept, 3, b"def"));
        assert_eq!((read(&kept, 2, 5), read(&kept, 0, 9)), (checked(b"cdefg"), checked(b"abcdefghi")));
        assert_eq!(kept.fill(key(2), Offset(0), &Bytes::from_static(b"abc"), 7), Filled::NotKept);
        assert_eq!(kept.evict(FlowId(0), ObjectId(1)), Some(Evicted { has_file: false }));
        assert_eq!((kept.remove(key(1)), kept.cost), (None, 0));
    }

    #[test]
    fn what_comes_twice_or_in_many_pieces_is_joined() {
        for again in [(2, b"CDE".as_slice()), (3, b"DEF"), (0, b"ABCDEFGHI")] {
            let mut kept = Kept::default();
            assert!(kept.reserve(key(1), of(9)));
            assert!(fill(&mut kept, 0, b"abc") && fill(&mut kept, 3, b"def") && fill(&mut kept, 6, b"ghi"));
            assert!(fill(&mut kept, again.0, again.1));
            let mut all = b"abcdefghi".to_vec();
            all[again.0 as usize..][..again.1.len()].copy_from_slice(again.1);
            assert_eq!((read(&kept, 0, 9), read(&kept, 2, 4)), (checked(&all), checked(&all[2..6])));
        }
        let mut kept = Kept::default();
        let size = 4 * limits::RANGE_BYTES_MIN;
        assert!(kept.reserve(key(1), of(size)));
        (0..size).for_each(|at| assert!(fill(&mut kept, at, b"a")));
        assert!(matches!(kept.objects[&key(1)].content, Content::Joined(_)), "its pieces cost more than it does");
        assert_eq!(read(&kept, 5, 100), checked(&[b'a'; 100]));
    }

    #[test]
    fn who_needs_a_file_makes_it_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::create(dir.path()).expect("a root");
        let name = ObjectName::new(b"a").expect("valid");
        let write = |object: &Object| {
            let part = root.open_part(&name, object.version.size, object.version.root)?;
            object.write_to(&part)?;
            part.keep_unsynced()
        };
        let mut kept = Kept::default();
        assert!(kept.reserve(key(1), of(3)) && fill(&mut kept, 0, b"abc") && kept.finish(key(1)));
        assert_eq!(kept.spill(key(1), |_| Err("full")), Err("full"));
        kept.spill(key(1), write).expect("room");
        kept.spill(key(1), |_| Err("once more")).expect("it is there");
        assert_eq!(std::fs::read(dir.path().join("a")).expect("it stands"), b"abc");
        assert_eq!(kept.remove(key(1)), Some(Evicted { has_file: true }));
    }

    #[test]
    fn what_is_not_whole_goes_to_a_part_for_good() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::create(dir.path()).expect("a root");
        let name = ObjectName::new(b"a").expect("valid");
        let part = root.open_part(&name, ByteCount(9), of(9).root).expect("room");
        let mut kept = Kept::default();
        assert!(kept.reserve(key(1), of(9)) && fill(&mut kept, 6, b"ghi") && fill(&mut kept, 0, b"abc"));
        let mut written = Vec::new();
        let write = |object: &Object| object.write_to(&part).map(|ranges| written = ranges);
        kept.spill(key(1), write).expect("room");
        assert_eq!(written, [(Offset(0), ByteCount(3)), (Offset(6), ByteCount(3))]);
        assert_eq!((kept.cost, fill(&mut kept, 3, b"def"), kept.finish(key(1))), (0, false, false));
        let mut read = [1; 9];
        part.read_exact_at(&mut read, Offset(0)).expect("as long as it will be");
        assert_eq!(&read, b"abc\0\0\0ghi");
    }

    #[test]
    fn what_does_not_fit_goes_to_disk() {
        let mut kept = Kept::default();
        let longest = of(limits::KEPT_OBJECT_BYTES_MAX);
        assert!(!kept.reserve(key(0), of(longest.size.0 + 1)), "too long");
        let block = Bytes::from(vec![1; limits::BLOCK_BYTES as usize]);
        let mut held = Vec::new();
        // As many as have room, each with what has come of it.
        for id in 0.. {
            if !kept.reserve(key(id), longest) {
                break;
            }
            let blocks = (0..longest.size.0).step_by(block.len());
            let fill = |at| kept.fill(key(id), Offset(at), &block, 7);
            held.push(blocks.map(fill).take_while(|&filled| filled == Filled::Kept).count());
        }
        let bytes = held.iter().sum::<usize>() * block.len();
        assert!(bytes <= limits::KEPT_BYTES_MAX && bytes + 2 * block.len() > limits::KEPT_BYTES_MAX, "{held:?}");
        assert!(kept.reserve(key(1000), of(3)), "a small one has room still");
        assert_eq!(kept.fill(key(0), Offset(0), &block, 7), Filled::NoRoom);
        kept.remove(key(1)).expect("it is there");
        assert_eq!(kept.fill(key(1000), Offset(0), &Bytes::from_static(b"abc"), 7), Filled::Kept);
        (0..held.len() as u32).chain([1000]).for_each(|id| _ = kept.remove(key(id)));
        assert_eq!(kept.cost, 0);
    }
}
