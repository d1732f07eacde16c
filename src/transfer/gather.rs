//! One object that comes in by ranges: which are here, which are on order, and whether its blocks are right.
//!
//! Ranges come over any links and in any order, each with its own checksum. A block is believed when the checksums of
//! its ranges combine to the one that the inventory tells of it; until then its ranges are here, and may be passed
//! on, but may be dropped again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crc_fast::{CrcAlgorithm, Digest};

use super::ledger::Content;
use crate::limits;
use crate::units::{ByteCount, LinkId, NodeName, Offset, RangeSet, Root256, Time};

/// Bytes that came in as one, with their checksum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) offset: Offset,
    pub(super) length: ByteCount,
    pub(super) crc: u32,
    /// What it came over; `None` for what an earlier run has left.
    pub(super) link: Option<LinkId>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.offset.0 + self.length.0
    }
}

/// What an earlier run has left of an object.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) size: ByteCount,
    pub(super) root: Root256,
    /// All of it; whole blocks of it are believed.
    pub(super) ranges: RangeSet,
    /// What lies in other blocks, with its checksums.
    pub(super) pieces: Vec<(Offset, ByteCount, u32)>,
}

/// What a piece has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// Nothing: it was here, or does not fit what is here.
    Nothing,
    /// So many bytes are here that were not.
    New(ByteCount),
    /// The block is whole, but wrong, or in more pieces than anyone need send: it is dropped. It came over these links;
    /// none are told where an earlier run had left some of it, for then nobody knows whose fault it is.
    BadBlock { offset: Offset, length: ByteCount, links: BTreeSet<LinkId> },
}

/// What a peer does not have now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Later {
    since: Time,
    pub(super) until: Time,
    delay: Duration,
}

#[derive(Debug)]
pub(super) struct Gather {
    pub(super) size: ByteCount,
    /// Ranges that are here.
    pub(super) have: RangeSet,
    /// These, and those on order.
    pub(super) taken: RangeSet,
    /// Ranges that were asked for and are neither here nor on order; of a flow that fetches on demand.
    pub(super) demanded: RangeSet,
    /// Blocks that are whole and right.
    right: RangeSet,
    /// The ranges of blocks that are not, by block and offset.
    parts: BTreeMap<u64, BTreeMap<u64, Piece>>,
    /// What is to come over another link, since it was damaged over this one.
    avoid: Vec<(Offset, ByteCount, LinkId)>,
    later: BTreeMap<NodeName, Later>,
    /// Peers of which a block was wrong: what else they give does not make that right.
    doubted: BTreeMap<NodeName, Later>,
    /// Room is reserved, the object is in block hands.
    pub(super) started: bool,
    /// The part file has been asked for.
    pub(super) opened: bool,
    /// Orders under way.
    pub(super) orders: usize,
}

impl Gather {
    pub(super) fn new(size: ByteCount) -> Self {
        Self {
            size,
            have: RangeSet::new(),
            taken: RangeSet::new(),
            demanded: RangeSet::new(),
            right: RangeSet::new(),
            parts: BTreeMap::new(),
            avoid: Vec::new(),
            later: BTreeMap::new(),
            doubted: BTreeMap::new(),
            started: false,
            opened: false,
            orders: 0,
        }
    }

    /// Takes over what an earlier run has left: whole blocks as right ones, pieces of others as if they came in now.
    pub(super) fn resume(&mut self, left: &Left, content: &Content) {
        let blocks = self.size.0.div_ceil(limits::BLOCK_BYTES);
        for block in 0..blocks {
            let (offset, length) = self.block(block);
            if left.ranges.contains(offset, length) {
                self.have.insert(offset, length);
                self.taken.insert(offset, length);
                self.right.insert(offset, length);
            }
        }
        for &(offset, length, crc) in &left.pieces {
            // A block that turns out wrong has been fetched again when it is right.
            let _ = self.add(Piece { offset, length, crc, link: None }, content);
        }
    }

    /// Bytes from its start that are in right blocks.
    pub(super) fn prefix(&self) -> ByteCount {
        self.right.missing(self.size).next().map_or(self.size, |(offset, _)| ByteCount(offset.0))
    }

    /// How much of `length` bytes from `offset` on is here without a gap.
    pub(super) fn ready(&self, offset: Offset, length: ByteCount) -> ByteCount {
        self.have.missing_in(offset, length).next().map_or(length, |(gap, _)| ByteCount(gap.0 - offset.0))
    }

    pub(super) fn is_whole(&self) -> bool {
        self.right.is_full(self.size)
    }

    /// Whether all of it is here or on order.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.is_full(self.size)
    }

    /// The first range within `length` bytes from `offset` on that is neither here nor on order and that `may_take`:
    /// aligned, at most `unit` long, and within one block.
    pub(super) fn cut(
        &self,
        offset: Offset,
        length: ByteCount,
        unit: u64,
        may_take: impl Fn(&Self, Offset, ByteCount) -> bool,
    ) -> Option<(Offset, ByteCount)> {
        for (gap, gap_length) in self.taken.missing_in(offset, length) {
            let (mut at, end) = (gap.0, gap.0 + gap_length.0);
            while at < end {
                let next = end.min((at / unit + 1) * unit);
                let range = (Offset(at), ByteCount(next - at));
                if may_take(self, range.0, range.1) {
                    return Some(range);
                }
                at = next;
            }
        }
        None
    }

    /// A range that was on order is so no more: what of it is not here is free.
    pub(super) fn release(&mut self, offset: Offset, length: ByteCount) -> Vec<(Offset, ByteCount)> {
        let gaps: Vec<_> = self.have.missing_in(offset, length).collect();
        for &(offset, length) in &gaps {
            self.taken.remove(offset, length);
        }
        gaps
    }

    /// Whether bytes of this place would be taken: some of them are not here, and they reach over no others.
    pub(super) fn fits(&self, offset: Offset, length: ByteCount) -> bool {
        !self.have.contains(offset, length) && !self.reaches_over(offset, length)
    }

    /// Checksums combine only of ranges that follow each other. Those that are here do, so the last one that begins
    /// before either end is all that can reach over it.
    fn reaches_over(&self, offset: Offset, length: ByteCount) -> bool {
        let Some(parts) = self.parts.get(&(offset.0 / limits::BLOCK_BYTES)) else { return false };
        let (start, end) = (offset.0, offset.0 + length.0);
        let last_before = |at: u64| parts.range(..at).next_back();
        match last_before(end) {
            None => false,
            Some((&first, part)) if first < start => part.end() > start,
            Some((_, part)) => part.end() > end || last_before(start).is_some_and(|(_, part)| part.end() > start),
        }
    }

    /// Bytes came in that are what their sender says they are.
    pub(super) fn add(&mut self, piece: Piece, content: &Content) -> Added {
        let Piece { offset, length, .. } = piece;
        let new: u64 = self.have.missing_in(offset, length).map(|gap| gap.1.0).sum();
        if new == 0 || self.reaches_over(offset, length) {
            return Added::Nothing;
        }
        let block = offset.0 / limits::BLOCK_BYTES;
        let parts = self.parts.entry(block).or_default();
        while let Some((&inside, _)) = parts.range(offset.0..piece.end()).next() {
            parts.remove(&inside);
        }
        parts.insert(offset.0, piece);
        let count = parts.len();
        self.have.insert(offset, length);
        self.taken.insert(offset, length);
        let (start, whole) = self.block(block);
        let is_whole = self.have.contains(start, whole);
        if !is_whole && count < limits::PIECES_PER_BLOCK_MAX {
            return Added::New(ByteCount(new));
        }
        let parts = self.parts.remove(&block).unwrap_or_default();
        if is_whole && combined(&parts) == content.block_crcs.get(block as usize).copied() {
            self.right.insert(start, whole);
            self.avoid.retain(|avoid| avoid.0.0 / limits::BLOCK_BYTES != block);
            return Added::New(ByteCount(new));
        }
        self.have.remove(start, whole);
        self.taken.remove(start, whole);
        let links: Option<_> = parts.values().map(|part| part.link).collect();
        Added::BadBlock { offset: start, length: whole, links: links.unwrap_or_default() }
    }

    /// A range is to come over another link, where there is one.
    pub(super) fn avoid(&mut self, offset: Offset, length: ByteCount, link: LinkId) {
        if self.avoid.len() < limits::AVOIDED_RANGES_MAX {
            self.avoid.push((offset, length, link));
        }
    }

    /// Whether a range was damaged over `link`.
    pub(super) fn is_avoided(&self, offset: Offset, length: ByteCount, link: LinkId) -> bool {
        let touches =
            |a: &(Offset, ByteCount, LinkId)| a.2 == link && a.0.0 < offset.0 + length.0 && offset.0 < a.0.0 + a.1.0;
        self.avoid.iter().any(touches)
    }

    /// A peer cannot give of it now.
    pub(super) fn put_off(&mut self, peer: &NodeName, now: Time) {
        put_off(&mut self.later, peer, (limits::RETRY_PENDING_MIN, limits::RETRY_PENDING_MAX), now);
    }

    /// A block is wrong that a peer has given.
    pub(super) fn doubt(&mut self, peer: &NodeName, now: Time) {
        put_off(&mut self.doubted, peer, (limits::WRONG_BLOCK_DELAY_MIN, limits::WRONG_BLOCK_DELAY_MAX), now);
    }

    /// Nothing of it is on order, and of `peers`, who carry ranges, one has had nothing of it, or all for long where
    /// some of it is here.
    pub(super) fn is_given_up<'p>(&self, mut peers: impl Iterator<Item = &'p NodeName>, now: Time) -> bool {
        let is_begun = !self.have.is_empty() || self.opened;
        let is_long = |later: &Later| now.since(later.since) >= limits::BLOCKS_PATIENCE;
        self.orders == 0
            && !self.later.is_empty()
            && (!is_begun || peers.all(|peer| self.later.get(peer).is_some_and(is_long)))
    }

    /// A peer has given of it.
    pub(super) fn put_on(&mut self, peer: &NodeName) {
        self.later.remove(peer);
    }

    pub(super) fn put_off_until(&self, peer: &NodeName) -> Option<Time> {
        let until = |of: &BTreeMap<NodeName, Later>| of.get(peer).map(|later| later.until);
        until(&self.later).max(until(&self.doubted))
    }

    fn block(&self, block: u64) -> (Offset, ByteCount) {
        let start = block * limits::BLOCK_BYTES;
        (Offset(start), ByteCount(limits::BLOCK_BYTES.min(self.size.0 - start)))
    }
}

/// Doubles what a peer was put off by, within `least` and `most`.
fn put_off(of: &mut BTreeMap<NodeName, Later>, peer: &NodeName, (least, most): (Duration, Duration), now: Time) {
    let before = of.get(peer);
    // Answers to requests that were on their way together are one answer.
    if before.is_some_and(|later| later.until > now) {
        return;
    }
    let delay = (before.map_or(Duration::ZERO, |later| later.delay) * 2).clamp(least, most);
    let since = before.map_or(now, |later| later.since);
    of.insert(peer.clone(), Later { since, until: now + delay, delay });
}

/// CRC-32C of ranges that follow each other.
fn combined(parts: &BTreeMap<u64, Piece>) -> Option<u32> {
    let mut parts = parts.values();
    let first = parts.next()?.crc;
    Some(parts.fold(first, |crc, part| combine(crc, part.crc, part.length)))
}

/// CRC-32C of bytes that have `front`, with `length` others behind them that have `back`. Checksums are linear: as many
/// zeros behind the first ones, in place of the others, are checked in less time than it takes to find out by matrices
/// (crc_fast::checksum_combine) what they would do.
fn combine(front: u32, back: u32, length: ByteCount) -> u32 {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    // The value that checksums begin with is also that which is added at their end, and is in both.
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(front));
    let mut left = length.0;
    while left > 0 {
        let now = left.min(ZEROS.len() as u64);
        digest.update(&ZEROS[..now as usize]);
        left -= now;
    }
    !(digest.finalize() as u32) ^ back
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Root256;

    const K: u64 = 1024;

    fn bytes(size: u64) -> Vec<u8> {
        (0..size as u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect()
    }

    fn content(bytes: &[u8]) -> Content {
        let block_crcs = bytes.chunks(limits::BLOCK_BYTES as usize).map(crc_fast::crc32_iscsi).collect();
        Content { size: ByteCount(bytes.len() as u64), mtime_ns: 0, mode: 0o644, root: Root256([0; 32]), block_crcs }
    }

    fn piece(bytes: &[u8], offset: u64, length: u64, link: u64) -> Piece {
        let crc = crc_fast::crc32_iscsi(&bytes[offset as usize..(offset + length) as usize]);
        Piece { offset: Offset(offset), length: ByteCount(length), crc, link: Some(LinkId(link)) }
    }

    #[test]
    fn a_block_is_believed_when_its_ranges_combine_to_its_checksum() {
        let bytes = bytes(1200 * K);
        let content = content(&bytes);
        let mut gather = Gather::new(content.size);
        assert_eq!(gather.add(piece(&bytes, 512 * K, 512 * K, 1), &content), Added::New(ByteCount(512 * K)));
        assert_eq!(gather.add(piece(&bytes, 1024 * K, 176 * K, 2), &content), Added::New(ByteCount(176 * K)));
        assert_eq!(gather.prefix(), ByteCount(0));
        assert_eq!(gather.add(piece(&bytes, 0, 512 * K, 1), &content), Added::New(ByteCount(512 * K)));
        assert!(gather.is_whole());
        assert_eq!(gather.add(piece(&bytes, 0, 32 * K, 1), &content), Added::Nothing);
    }

    #[test]
    fn checksums_of_parts_combine_to_that_of_the_whole() {
        let bytes = bytes(200 * K);
        for cut in [0, 1, 7, 64 * 1024, 64 * 1024 + 1, 130_001, bytes.len()] {
            let (front, back) = bytes.split_at(cut);
            let length = ByteCount(back.len() as u64);
            let crc = combine(crc_fast::crc32_iscsi(front), crc_fast::crc32_iscsi(back), length);
            assert_eq!(crc, crc_fast::crc32_iscsi(&bytes), "cut at {cut}");
        }
    }

    #[test]
    fn a_wrong_block_is_dropped_and_told_with_the_links_it_came_over() {
        let bytes = bytes(100 * K);
        let content = content(&bytes);
        let mut gather = Gather::new(content.size);
        let wrong = Piece { crc: 7, ..piece(&bytes, 0, 64 * K, 3) };
        assert_eq!(gather.add(wrong, &content), Added::New(ByteCount(64 * K)));
        let links = BTreeSet::from([LinkId(3), LinkId(4)]);
        let bad = Added::BadBlock { offset: Offset(0), length: ByteCount(100 * K), links };
        assert_eq!(gather.add(piece(&bytes, 64 * K, 36 * K, 4), &content), bad);
        assert!(gather.have.is_empty() && gather.taken.is_empty());
    }

    #[test]
    fn a_piece_that_covers_others_takes_their_place_and_one_that_cuts_them_is_refused() {
        let bytes = bytes(128 * K);
        let content = content(&bytes);
        let mut gather = Gather::new(content.size);
        gather.add(piece(&bytes, 0, 32 * K, 1), &content);
        assert!(!gather.fits(Offset(16 * K), ByteCount(32 * K)), "nor is it written");
        assert_eq!(gather.add(piece(&bytes, 16 * K, 32 * K, 2), &content), Added::Nothing);
        assert_eq!(gather.add(piece(&bytes, 0, 64 * K, 2), &content), Added::New(ByteCount(32 * K)));
        assert_eq!(gather.add(piece(&bytes, 64 * K, 64 * K, 2), &content), Added::New(ByteCount(64 * K)));
        assert!(gather.is_whole());
    }

    #[test]
    fn a_block_in_more_pieces_than_anyone_need_send_is_dropped() {
        let bytes = bytes(1024 * K);
        let content = content(&bytes);
        let mut gather = Gather::new(content.size);
        let last = limits::PIECES_PER_BLOCK_MAX as u64 - 1;
        for at in 0..last {
            assert_eq!(gather.add(piece(&bytes, at, 1, 3), &content), Added::New(ByteCount(1)));
        }
        let bad = Added::BadBlock { offset: Offset(0), length: content.size, links: BTreeSet::from([LinkId(3)]) };
        assert_eq!(gather.add(piece(&bytes, last, 1, 3), &content), bad);
        assert!(gather.have.is_empty() && gather.taken.is_empty());
    }

    #[test]
    fn ranges_are_cut_aligned_and_within_a_block() {
        let mut gather = Gather::new(ByteCount(3000 * K));
        let all = ByteCount(3000 * K);
        let mut cut = |unit| {
            let range = gather.cut(Offset(0), all, unit, |_, _, _| true).expect("some is left");
            gather.taken.insert(range.0, range.1);
            (range.0.0 / K, range.1.0 / K)
        };
        assert_eq!(cut(32 * K), (0, 32));
        assert_eq!(cut(64 * K), (32, 32));
        assert_eq!(cut(1024 * K), (64, 960));
        assert_eq!(cut(1024 * K), (1024, 1024));
        assert_eq!(cut(512 * K), (2048, 512));
        assert_eq!(cut(1024 * K), (2560, 440));
    }

    fn left(bytes: &[u8], ranges: &[(u64, u64)], pieces: &[(u64, u64)]) -> Left {
        let ranges = ranges.iter().map(|&(offset, length)| (Offset(offset), ByteCount(length))).collect();
        let piece = |&(offset, length): &(u64, u64)| {
            let Piece { offset, length, crc, .. } = piece(bytes, offset, length, 0);
            (offset, length, crc)
        };
        Left {
            size: ByteCount(bytes.len() as u64),
            root: Root256([0; 32]),
            ranges,
            pieces: pieces.iter().map(piece).collect(),
        }
    }

    #[test]
    fn whole_blocks_and_pieces_of_others_are_taken_over_from_an_earlier_run() {
        let bytes = bytes(2500 * K);
        let content = content(&bytes);
        let mut gather = Gather::new(content.size);
        gather.resume(&left(&bytes, &[(32 * K, 2468 * K)], &[(32 * K, 992 * K)]), &content);
        assert_eq!(gather.have.total(), ByteCount(2468 * K));
        assert_eq!(gather.prefix(), ByteCount(0));
        assert_eq!(gather.ready(Offset(1024 * K), ByteCount(100 * K)), ByteCount(100 * K));
        assert_eq!(gather.add(piece(&bytes, 0, 32 * K, 1), &content), Added::New(ByteCount(32 * K)));
        assert!(gather.is_whole());
    }

    #[test]
    fn a_block_that_an_earlier_run_left_wrong_is_dropped_and_nobody_blamed() {
        let bytes = bytes(100 * K);
        let content = content(&bytes);
        let mut gather = Gather::new(content.size);
        let mut left = left(&bytes, &[(0, 64 * K)], &[(0, 64 * K)]);
        left.pieces[0].2 ^= 1;
        gather.resume(&left, &content);
        let bad = Added::BadBlock { offset: Offset(0), length: ByteCount(100 * K), links: BTreeSet::new() };
        assert_eq!(gather.add(piece(&bytes, 64 * K, 36 * K, 4), &content), bad);
        assert!(gather.have.is_empty() && gather.taken.is_empty());
    }
}
