//! The blocks of one batch of files: how they are numbered, which are wanted, which have arrived.
//!
//! A session (seed 002) moves files in batches. Blocks are numbered over the whole batch, in the order in which the
//! files were announced: each file takes as many numbers as it has blocks, none if it is empty or no regular file.

use std::ops::Range;

use crate::units::{BlockSeq, ByteCount, FileId, Offset, RangeSet};

/// How the files of a batch lie in its blocks.
#[derive(Debug)]
pub struct Batch {
    block_bytes: u32,
    files: Vec<Placed>,
    blocks: u32,
}

#[derive(Debug, Clone, Copy)]
struct Placed {
    first: u32,
    size: ByteCount,
}

/// Where a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// In which file.
    pub file: FileId,
    /// From where on.
    pub offset: Offset,
    /// How long it is: only a file's last block is shorter than the others.
    pub length: usize,
}

/// A file has more blocks than there are numbers left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{size} more do not fit: a batch has at most {} blocks", u32::MAX)]
pub struct BatchFull {
    /// Of the file.
    pub size: ByteCount,
}

impl Batch {
    /// An empty batch of blocks of `block_bytes` (at least 1).
    pub fn new(block_bytes: u32) -> Self {
        Self { block_bytes: block_bytes.max(1), files: Vec::new(), blocks: 0 }
    }

    /// Adds the next file.
    ///
    /// # Errors
    /// It has more blocks than there are numbers left; the batch is as it was.
    pub fn push(&mut self, size: ByteCount) -> Result<(), BatchFull> {
        let blocks = size.0.div_ceil(u64::from(self.block_bytes));
        let end = u32::try_from(blocks).ok().and_then(|blocks| self.blocks.checked_add(blocks));
        self.files.push(Placed { first: self.blocks, size });
        match end {
            Some(end) => self.blocks = end,
            None => {
                self.files.pop();
                return Err(BatchFull { size });
            }
        }
        Ok(())
    }

    /// Files in it.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Blocks of all files.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Bytes of a file; none of one that is not in the batch.
    pub fn size_of(&self, file: FileId) -> ByteCount {
        self.files.get(usize::from(file.0)).map_or(ByteCount(0), |placed| placed.size)
    }

    /// The numbers of a file's blocks; none of one that is not in the batch.
    pub fn blocks_of(&self, file: FileId) -> Range<u32> {
        let index = usize::from(file.0);
        let Some(placed) = self.files.get(index) else { return 0..0 };
        placed.first..self.files.get(index + 1).map_or(self.blocks, |next| next.first)
    }

    /// Where a block lies; `None` for a number that no file has.
    pub fn locate(&self, seq: BlockSeq) -> Option<Located> {
        if seq.0 >= self.blocks {
            return None;
        }
        // Files without blocks share their number with the next file that has some: the last one of these.
        let index = self.files.partition_point(|file| file.first <= seq.0) - 1;
        let placed = self.files[index];
        let offset = u64::from(seq.0 - placed.first) * u64::from(self.block_bytes);
        let length = (placed.size.0 - offset).min(u64::from(self.block_bytes));
        Some(Located { file: FileId(index as u16), offset: Offset(offset), length: length as usize })
    }

    /// Those of a file's blocks that lie wholly within `ranges` of it.
    pub fn within(&self, file: FileId, ranges: &RangeSet) -> Vec<Range<u32>> {
        let first = self.blocks_of(file).start;
        let each = u64::from(self.block_bytes);
        let whole = whole_blocks(ranges, self.size_of(file), self.block_bytes);
        let block = |offset: u64| first + offset.div_ceil(each) as u32;
        whole.runs().map(|(offset, length)| block(offset.0)..block(offset.0 + length.0)).collect()
    }
}

/// The part of `ranges` that is whole blocks of a file: what need not be sent. The last block is whole where the file
/// ends.
pub fn whole_blocks(ranges: &RangeSet, size: ByteCount, block_bytes: u32) -> RangeSet {
    let each = u64::from(block_bytes);
    let whole = ranges.runs().filter_map(|(offset, length)| {
        let end = offset.0.saturating_add(length.0).min(size.0);
        let first = offset.0.next_multiple_of(each);
        let last = if end == size.0 { end } else { end / each * each };
        (first < last).then(|| (Offset(first), ByteCount(last - first)))
    });
    whole.collect()
}

/// Which blocks of a batch have arrived.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// Of each file, which of its blocks; kept by file, so that many small files make no long list.
    files: Vec<RangeSet>,
    missing: u64,
    /// Unbroken runs of all files.
    runs: usize,
}

impl Arrivals {
    /// Nothing of `batch` yet.
    pub fn of(batch: &Batch) -> Self {
        Self { files: vec![RangeSet::new(); batch.len()], missing: u64::from(batch.blocks()), runs: 0 }
    }

    /// Blocks of one file are here; how many were not before. Numbers that are not the file's do not count.
    pub fn insert(&mut self, batch: &Batch, file: FileId, blocks: Range<u32>) -> u64 {
        let own = batch.blocks_of(file);
        let (start, end) = (blocks.start.max(own.start), blocks.end.min(own.end));
        let Some(set) = self.files.get_mut(usize::from(file.0)) else { return 0 };
        let length = u64::from(end.saturating_sub(start));
        let before = set.run_count();
        let added = set.insert(Offset(u64::from(start.saturating_sub(own.start))), ByteCount(length)).0;
        self.runs = self.runs + set.run_count() - before;
        self.missing -= added;
        added
    }

    /// Whether a block is here.
    pub fn contains(&self, batch: &Batch, file: FileId, seq: BlockSeq) -> bool {
        let own = batch.blocks_of(file);
        let set = self.files.get(usize::from(file.0)).filter(|_| own.contains(&seq.0));
        set.is_some_and(|set| set.contains(Offset(u64::from(seq.0 - own.start)), ByteCount(1)))
    }

    /// How many unbroken runs there are of those that are here; what touches at the border of two files is two.
    pub fn run_count(&self) -> usize {
        self.runs
    }

    /// How many are not here.
    pub fn missing_count(&self) -> u64 {
        self.missing
    }

    /// The blocks that are not here, in rising order; what touches is one range.
    pub fn missing(&self, batch: &Batch) -> Vec<Range<u32>> {
        let mut missing: Vec<Range<u32>> = Vec::new();
        for (index, set) in self.files.iter().enumerate() {
            let own = batch.blocks_of(FileId(index as u16));
            for (first, count) in set.missing(ByteCount(own.len() as u64)) {
                let range = own.start + first.0 as u32..own.start + (first.0 + count.0) as u32;
                match missing.last_mut().filter(|last| last.end == range.start) {
                    Some(last) => last.end = range.end,
                    None => missing.push(range),
                }
            }
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(sizes: &[u64]) -> Batch {
        let mut batch = Batch::new(100);
        sizes.iter().for_each(|size| batch.push(ByteCount(*size)).expect("fits"));
        batch
    }

    #[test]
    fn blocks_are_numbered_over_the_whole_batch() {
        let batch = batch(&[0, 250, 0, 0, 100, 1, 0]);
        assert_eq!(batch.blocks(), 5);
        assert_eq!(batch.blocks_of(FileId(0)), 0..0);
        assert_eq!(batch.blocks_of(FileId(1)), 0..3);
        assert_eq!(batch.blocks_of(FileId(4)), 3..4);
        assert_eq!(batch.blocks_of(FileId(5)), 4..5);
        assert_eq!(batch.blocks_of(FileId(6)), 5..5);
        assert_eq!(batch.blocks_of(FileId(7)), 0..0);
        let at = |seq| batch.locate(BlockSeq(seq)).map(|at| (at.file.0, at.offset.0, at.length));
        assert_eq!(at(0), Some((1, 0, 100)));
        assert_eq!(at(2), Some((1, 200, 50)));
        assert_eq!(at(3), Some((4, 0, 100)));
        assert_eq!(at(4), Some((5, 0, 1)));
        assert_eq!(at(5), None);
    }

    #[test]
    fn a_file_with_too_many_blocks_leaves_the_batch_as_it_was() {
        let mut batch = Batch::new(1);
        batch.push(ByteCount(u64::from(u32::MAX))).expect("fits exactly");
        assert_eq!(batch.push(ByteCount(1)), Err(BatchFull { size: ByteCount(1) }));
        assert_eq!(batch.len(), 1);
        batch.push(ByteCount(0)).expect("needs no block");
    }

    #[test]
    fn only_whole_blocks_count_as_here() {
        let batch = batch(&[1000, 250]);
        let mut have = RangeSet::new();
        have.insert(Offset(50), ByteCount(170));
        assert_eq!(batch.within(FileId(1), &have).first(), Some(&(11..12)));
        have.insert(Offset(200), ByteCount(50));
        assert_eq!(batch.within(FileId(1), &have).first(), Some(&(11..13)));
        assert!(batch.within(FileId(2), &have).is_empty());
    }

    #[test]
    fn what_is_missing_touches_over_files() {
        let batch = batch(&[250, 0, 100, 100]);
        let mut arrivals = Arrivals::of(&batch);
        assert_eq!(arrivals.missing(&batch).first(), Some(&(0..5)));
        assert_eq!(arrivals.insert(&batch, FileId(0), 1..9), 2);
        assert_eq!(arrivals.insert(&batch, FileId(0), 1..2), 0);
        assert_eq!(arrivals.insert(&batch, FileId(1), 3..4), 0);
        assert_eq!(arrivals.insert(&batch, FileId(3), 4..5), 1);
        assert!(arrivals.contains(&batch, FileId(0), BlockSeq(2)));
        assert!(!arrivals.contains(&batch, FileId(3), BlockSeq(2)));
        assert_eq!(arrivals.missing(&batch), [0..1, 3..4]);
        assert_eq!(arrivals.missing_count(), 2);
    }
}
