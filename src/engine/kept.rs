//! Objects that an exchange passes on from memory.
//!
//! To make, fill, name, open, read and remove a file costs many times what it takes to send a few thousand bytes. And
//! to write a long object down costs more than all else that an exchange does with it, though a moment later it has
//! been passed on. So objects that are small, or come in quickly, are kept here instead of in part files of the spool,
//! while there is room; all others go to disk. When the engine stops, what nobody has had of these goes to disk as
//! well; when the process dies it is gone, and fetched again if somebody still wants it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::arriving::Version;
use super::shared::PartKey;
use crate::limits;
use crate::transfer::FlowId;
use crate::units::{ByteCount, Generation, ObjectId, ObjectName, Offset};
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
    version: Version,
    content: Content,
    /// Bytes of its ranges.
    held: usize,
    /// All of it has come.
    is_whole: bool,
    /// The name of its file, if there is one as well.
    file: Option<ObjectName>,
    /// How often some of it was wrong.
    retractions: u32,
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
            Content::Ranges(ranges) => self.held + ranges.len() * limits::WAITING_RANGE_COST,
            Content::Joined(joined) => joined.len(),
        };
        content + limits::KEPT_OBJECT_COST
    }

    /// Where among its ranges one has its place that stays as it comes.
    fn place(&self, offset: usize, length: usize) -> Option<usize> {
        let Content::Ranges(ranges) = &self.content else { return None };
        let at = ranges.partition_point(|range| range.end() <= offset);
        let is_free = ranges.get(at).is_none_or(|next| next.offset >= offset + length);
        (is_free && ranges.len() < ranges_max(self.version.size)).then_some(at)
    }

    /// What it will cost more with such a range, at most.
    fn cost_with(&self, offset: usize, length: usize) -> usize {
        match (&self.content, self.place(offset, length)) {
            (Content::Joined(_), _) => 0,
            (Content::Ranges(_), Some(_)) => length + limits::WAITING_RANGE_COST,
            (Content::Ranges(_), None) => self.version.size.0 as usize,
        }
    }

    fn add(&mut self, offset: usize, bytes: &Bytes, crc: u32) {
        let place = self.place(offset, bytes.len());
        if let Content::Ranges(ranges) = &mut self.content {
            if let Some(at) = place {
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
        let object = Object { version, content, held: 0, is_whole: false, file: None, retractions: 0 };
        self.cost += object.cost();
        self.objects.insert(key, object);
        true
    }

    /// Bytes of an object came in, with their checksum.
    pub(super) fn fill(&mut self, key: PartKey, offset: Offset, bytes: &Bytes, crc: u32) -> Filled {
        let Some(object) = self.objects.get_mut(&key) else { return Filled::NotKept };
        if self.cost + object.cost_with(offset.0 as usize, bytes.len()) > limits::KEPT_BYTES_MAX {
            return Filled::NoRoom;
        }
        let before = object.cost();
        object.add(offset.0 as usize, bytes, crc);
        self.cost = self.cost - before + object.cost();
        Filled::Kept
    }

    /// How long an object is that is kept here.
    pub(super) fn size(&self, key: PartKey) -> Option<ByteCount> {
        self.objects.get(&key).map(|object| object.version.size)
    }

    /// All of an object has come; `false` where it is not kept here.
    pub(super) fn finish(&mut self, key: PartKey) -> bool {
        self.objects.get_mut(&key).map(|object| object.is_whole = true).is_some()
    }

    /// A range of an object and its checksum, where that is kept here and the range has come.
    pub(super) fn read(&self, key: PartKey, offset: Offset, length: ByteCount) -> Option<(Bytes, u32)> {
        self.objects.get(&key)?.read(offset.0 as usize, length.0 as usize)
    }

    /// Whether an object is here and has no file.
    pub(super) fn has_no_file(&self, key: PartKey) -> bool {
        self.objects.get(&key).is_some_and(|object| object.file.is_none())
    }

    /// What is kept, and whether all of it has come.
    pub(super) fn all(&self) -> Vec<(PartKey, bool)> {
        self.objects.iter().map(|(&key, object)| (key, object.is_whole)).collect()
    }

    /// What has come of an object beyond `written`, to be written to its file, where there is none of it yet.
    pub(super) fn unwritten(&self, key: PartKey, written: &[(Offset, ByteCount)]) -> Option<Unwritten> {
        let object = self.objects.get(&key).filter(|object| object.file.is_none())?;
        let is_written = |range: &&Range| {
            let (offset, length) = (Offset(range.offset as u64), ByteCount(range.bytes.len() as u64));
            written.contains(&(offset, length))
        };
        let ranges = match &object.content {
            Content::Joined(joined) => vec![(Offset(0), Bytes::copy_from_slice(joined))],
            Content::Ranges(ranges) => {
                let unwritten = ranges.iter().filter(|range| !is_written(range));
                unwritten.map(|range| (Offset(range.offset as u64), range.bytes.clone())).collect()
            }
        };
        let is_known = matches!(object.content, Content::Ranges(_));
        let Object { version, is_whole, retractions, .. } = *object;
        Some(Unwritten { version, is_whole, is_known, retractions, ranges })
    }

    /// An object that is whole has a file of this name as well.
    pub(super) fn set_file(&mut self, key: PartKey, name: &ObjectName) {
        if let Some(object) = self.objects.get_mut(&key) {
            object.file = Some(name.clone());
        }
    }

    /// Some of what came of an object was wrong: that goes.
    pub(super) fn retract(&mut self, key: PartKey, offset: Offset, length: ByteCount) {
        let Some(object) = self.objects.get_mut(&key) else { return };
        object.retractions += 1;
        let before = object.cost();
        let wrong = offset.0 as usize..(offset.0 + length.0) as usize;
        if let Content::Ranges(ranges) = &mut object.content {
            ranges.retain(|range| range.end() <= wrong.start || wrong.end <= range.offset);
            object.held = ranges.iter().map(|range| range.bytes.len()).sum();
        }
        self.cost = self.cost - before + object.cost();
    }

    /// An attempt at an object is over.
    pub(super) fn remove(&mut self, key: PartKey) -> Option<Evicted> {
        let object = self.objects.remove(&key)?;
        self.cost -= object.cost();
        Some(Evicted { file: object.file })
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
    /// There is no room for them: their object is to go on in a file.
    NoRoom,
    /// Their object is not here.
    NotKept,
}

/// What is left of an object that was kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Evicted {
    /// There is a file of it, of this name.
    pub(super) file: Option<ObjectName>,
}

/// What has come of an object and is to be written to its file.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) version: Version,
    /// All of the object has come.
    pub(super) is_whole: bool,
    /// The ranges are those that came, and not all of an object of which some may be missing.
    pub(super) is_known: bool,
    /// Where it is another number than it was, ranges of the same place may be others.
    pub(super) retractions: u32,
    pub(super) ranges: Vec<(Offset, Bytes)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FileMode, FileTime};
    use crate::units::Root256;

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
        assert_eq!(kept.evict(FlowId(0), ObjectId(1)), Some(Evicted { file: None }));
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
    fn what_is_to_be_written_is_what_came_and_was_not() {
        let mut kept = Kept::default();
        assert!(kept.reserve(key(1), of(9)) && fill(&mut kept, 6, b"ghi") && fill(&mut kept, 0, b"abc"));
        let ranges = |kept: &Kept, written: &[(Offset, ByteCount)]| {
            let unwritten = kept.unwritten(key(1), written)?;
            let ranges = unwritten.ranges.iter().map(|(offset, bytes)| (offset.0, bytes.to_vec()));
            Some((unwritten.is_whole, unwritten.is_known, ranges.collect::<Vec<_>>()))
        };
        assert_eq!(ranges(&kept, &[]), Some((false, true, vec![(0, b"abc".to_vec()), (6, b"ghi".to_vec())])));
        assert_eq!(ranges(&kept, &[(Offset(0), ByteCount(3))]), Some((false, true, vec![(6, b"ghi".to_vec())])));
        assert!(fill(&mut kept, 5, b"FG") && kept.finish(key(1)));
        assert_eq!(ranges(&kept, &[]), Some((true, false, vec![(0, b"abc\0\0FGhi".to_vec())])), "joined");
        let name = ObjectName::new(b"a").expect("valid");
        kept.set_file(key(1), &name);
        assert_eq!(ranges(&kept, &[]), None, "it has a file");
        assert_eq!(kept.remove(key(1)), Some(Evicted { file: Some(name) }));
    }

    #[test]
    fn what_was_wrong_goes_and_comes_again() {
        let mut kept = Kept::default();
        assert!(kept.reserve(key(1), of(9)));
        assert!(fill(&mut kept, 0, b"abc") && fill(&mut kept, 3, b"d") && fill(&mut kept, 4, b"ef"));
        assert!(fill(&mut kept, 6, b"ghi"));
        let retractions = |kept: &Kept| kept.unwritten(key(1), &[]).map(|unwritten| unwritten.retractions);
        let before = retractions(&kept);
        kept.retract(key(1), Offset(3), ByteCount(3));
        assert_ne!(retractions(&kept), before, "who has written what was there learns that it is another");
        assert_eq!((read(&kept, 0, 3), read(&kept, 3, 1)), (Some((b"abc".to_vec(), 7)), None));
        assert_eq!(kept.cost, limits::KEPT_OBJECT_COST + 2 * (3 + limits::WAITING_RANGE_COST));
        assert!(fill(&mut kept, 3, b"DEF"));
        assert_eq!(read(&kept, 3, 3), Some((b"DEF".to_vec(), 7)), "as it came");
        assert_eq!(read(&kept, 0, 9), checked(b"abcDEFghi"));
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
