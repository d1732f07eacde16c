//! Ranges that came into a spool last: whoever waits at an exchange wants them as soon as they are there, and needs no
//! file to be read for it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::shared::PartKey;
use crate::limits;
use crate::units::{ByteCount, Offset};
use crate::wire::checksum::crc32c;

/// The last of them, verified, within [`limits::RECENT_BYTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Recent {
    ranges: VecDeque<Range>,
    /// What all of them cost.
    cost: usize,
}

#[derive(Debug)]
struct Range {
    of: PartKey,
    offset: Offset,
    bytes: Bytes,
    crc: u32,
}

impl Range {
    /// A peer may send a range in pieces of one byte.
    fn cost(&self) -> usize {
        self.bytes.len() + limits::WAITING_RANGE_COST
    }
}

impl Recent {
    pub(super) fn add(&mut self, of: PartKey, offset: Offset, bytes: &Bytes, crc: u32) {
        let range = Range { of, offset, bytes: bytes.clone(), crc };
        self.cost += range.cost();
        self.ranges.push_back(range);
        while self.cost > limits::RECENT_BYTES_MAX
            && let Some(oldest) = self.ranges.pop_front()
        {
            self.cost -= oldest.cost();
        }
    }

    /// Some of what came in of an attempt is not right after all.
    pub(super) fn forget(&mut self, key: PartKey) {
        self.ranges.retain(|range| range.of != key);
        self.cost = self.ranges.iter().map(Range::cost).sum();
    }

    /// A range of an attempt, where all of it came in at once, and its checksum.
    pub(super) fn read(&self, key: PartKey, offset: Offset, length: ByteCount) -> Option<(Bytes, u32)> {
        self.ranges.iter().rev().filter(|range| range.of == key).find_map(|range| {
            let start = offset.0.checked_sub(range.offset.0)? as usize;
            let end = start.checked_add(length.0 as usize).filter(|&end| end <= range.bytes.len())?;
            let bytes = range.bytes.slice(start..end);
            let crc = if bytes.len() == range.bytes.len() { range.crc } else { crc32c(&bytes) };
            Some((bytes, crc))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::FlowId;
    use crate::units::{Generation, ObjectId};

    fn key(generation: u32) -> PartKey {
        (FlowId(0), ObjectId(1), Generation(generation))
    }

    #[test]
    fn a_range_is_had_while_it_is_among_the_last() {
        let mut recent = Recent::default();
        recent.add(key(1), Offset(10), &Bytes::from_static(b"abcdef"), 7);
        let read = |recent: &Recent, of, offset, length| recent.read(key(of), Offset(offset), ByteCount(length));
        assert_eq!(read(&recent, 1, 10, 6), Some((Bytes::from_static(b"abcdef"), 7)));
        assert_eq!(read(&recent, 1, 12, 3), Some((Bytes::from_static(b"cde"), crc32c(b"cde"))));
        for (of, offset, length) in [(1, 9, 2), (1, 12, 5), (1, 16, 1), (2, 12, 3)] {
            assert_eq!(read(&recent, of, offset, length), None, "{of} {offset} {length}");
        }
        let most = Bytes::from(vec![0; limits::RECENT_BYTES_MAX - limits::WAITING_RANGE_COST]);
        recent.add(key(2), Offset(0), &most, 8);
        assert_eq!(read(&recent, 1, 12, 3), None);
        assert_eq!(read(&recent, 2, 0, most.len() as u64), Some((most.clone(), 8)));
        recent.forget(key(2));
        assert_eq!((read(&recent, 2, 0, most.len() as u64), recent.cost), (None, 0));
    }

    /// Ranges of one byte each were kept in hundreds of MiB, and each that was served was looked for among all of them.
    #[test]
    fn short_ranges_are_as_few_as_they_cost() {
        let mut recent = Recent::default();
        let most = limits::RECENT_BYTES_MAX / (1 + limits::WAITING_RANGE_COST);
        (0..2 * most).for_each(|at| recent.add(key(1), Offset(at as u64), &Bytes::from_static(b"a"), 7));
        assert_eq!(recent.ranges.len(), most);
    }
}
