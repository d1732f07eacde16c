//! What an earlier run has left of a part, in the terms of those who go on with it.
//!
//! A block that is all there is believed as it is. What is there of other blocks is read once, at most a block's
//! length each time, since a block is judged by the checksums of its pieces and the journal has none of them.

use super::error::StoreError;
use super::hash::{block_crc, block_range};
use super::journal::Journal;
use super::part::Part;
use crate::limits;
use crate::units::{ByteCount, Offset, RangeSet};

/// What of a part is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// All of it.
    pub ranges: RangeSet,
    /// The pieces of it that lie in blocks that are not all there, with their CRC-32C, in ascending order.
    pub pieces: Vec<(Offset, ByteCount, u32)>,
}

impl Journal {
    /// What is there of a part. Reads what is not in whole blocks.
    pub fn left(&self, part: &Part) -> Result<Left, StoreError> {
        let ranges = self.ranges(part);
        let mut pieces = Vec::new();
        let mut bytes = Vec::new();
        for (offset, length) in rest(&ranges, part.size()) {
            bytes.resize(length.0 as usize, 0);
            part.read_exact_at(&mut bytes, offset)?;
            pieces.push((offset, length, block_crc(&bytes)));
        }
        Ok(Left { ranges, pieces })
    }
}

/// The runs of `ranges`, each within one block, that do not fill their blocks.
fn rest(ranges: &RangeSet, size: ByteCount) -> Vec<(Offset, ByteCount)> {
    let mut rest = Vec::new();
    for (offset, length) in ranges.runs() {
        let (mut at, end) = (offset.0, offset.0 + length.0);
        while at < end {
            let (block, block_length) = block_range(at / limits::BLOCK_BYTES, size);
            let stop = end.min(block.0 + block_length.0);
            if !ranges.contains(block, block_length) {
                rest.push((Offset(at), ByteCount(stop - at)));
            }
            at = stop;
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: u64 = limits::BLOCK_BYTES;

    #[test]
    fn what_does_not_fill_its_block_is_told_block_by_block() {
        let check = |runs: &[(u64, u64)], size: u64, expected: &[(u64, u64)]| {
            let ranges = runs.iter().map(|run| (Offset(run.0), ByteCount(run.1 - run.0))).collect();
            let found = rest(&ranges, ByteCount(size));
            let found: Vec<_> = found.iter().map(|(offset, length)| (offset.0, offset.0 + length.0)).collect();
            assert_eq!(found, expected, "{runs:?} of {size}");
        };
        check(&[], 100, &[]);
        check(&[(0, 100)], 100, &[]);
        check(&[(0, 99)], 100, &[(0, 99)]);
        check(&[(7, 8), (9, 100)], 100, &[(7, 8), (9, 100)]);
        check(&[(0, B)], 3 * B, &[]);
        check(&[(5, 2 * B)], 3 * B, &[(5, B)]);
        check(&[(5, 2 * B + 1)], 3 * B, &[(5, B), (2 * B, 2 * B + 1)]);
        check(&[(B - 1, B + 1)], 3 * B, &[(B - 1, B), (B, B + 1)]);
        check(&[(2 * B, 2 * B + 100)], 2 * B + 100, &[]);
    }
}
