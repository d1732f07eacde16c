//! What an object's bytes are, in few: its BLAKE3 root, and the CRC-32C of each of its blocks.
//!
//! A block is [`limits::BLOCK_BYTES`] long, the last one of an object shorter; an empty object has none. Checksums
//! find damage block by block, the root proves the whole.
//!
//! A sender reads an object from its start to its end: [`hash_source`]. A receiver, whose blocks come in any order,
//! takes each block's chaining value as it comes, [`block_cv`], and combines them when all are there, [`root_of`]: a
//! block is a whole subtree of BLAKE3's tree (BLAKE3 paper, section 2.1), so that no byte is hashed twice and none is
//! read back from the disk.

use blake3::Hasher;
use blake3::hazmat::{self, HasherExt as _, Mode};

use super::error::{SourceError, StoreError};
use super::part::Part;
use super::source::Source;
use crate::limits;
use crate::units::{BlockCrcs, ByteCount, Offset, Root256};

/// What is known of an object's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// BLAKE3 of all of it.
    pub root: Root256,
    /// CRC-32C of each block, in order.
    pub block_crcs: BlockCrcs,
}

/// A block's place in its object's tree: the chaining value of its subtree, or the root where the object is no longer
/// than the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCv(pub [u8; 32]);

/// How many blocks an object of `size` bytes has.
pub fn block_count(size: ByteCount) -> u64 {
    size.0.div_ceil(limits::BLOCK_BYTES)
}

/// Where block `index` of an object of `size` bytes is; zero bytes where the object is shorter.
pub fn block_range(index: u64, size: ByteCount) -> (Offset, ByteCount) {
    let start = index.saturating_mul(limits::BLOCK_BYTES).min(size.0);
    (Offset(start), ByteCount((size.0 - start).min(limits::BLOCK_BYTES)))
}

/// CRC-32C (Castagnoli, as in iSCSI), the same as stands on the wire. Known here as well because a store knows nothing
/// of the wire.
pub fn block_crc(block: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(block)
}

/// Reads all of an object. Blocks for as long as the disk and the processor take; an object that changed meanwhile is
/// an error, never a mixture of two. `None` where `is_over`, which is asked before each block, said that it is to be
/// left.
pub fn hash_source_unless(source: &Source, is_over: impl Fn() -> bool) -> Result<Option<Hashes>, SourceError> {
    hash_by_blocks(source, &mut Vec::new(), is_over)
}

/// The same of an object that is no longer than a block, to its end; and its bytes.
pub fn hash_small(source: &Source) -> Result<(Hashes, Vec<u8>), SourceError> {
    let mut bytes = Vec::new();
    let hashes = hash_by_blocks(source, &mut bytes, || false)?;
    Ok((hashes.expect("nobody said that it is over"), bytes))
}

/// Leaves the last block in `block`.
fn hash_by_blocks(
    source: &Source,
    block: &mut Vec<u8>,
    is_over: impl Fn() -> bool,
) -> Result<Option<Hashes>, SourceError> {
    source.advise_sequential();
    let size = source.size();
    let mut hasher = Hasher::new();
    let mut block_crcs = Vec::with_capacity(usize::try_from(block_count(size)).unwrap_or(0));
    for index in 0..block_count(size) {
        let (offset, length) = block_range(index, size);
        if is_over() {
            return Ok(None);
        }
        block.resize(length.0 as usize, 0);
        source.read_exact_at(block, offset)?;
        hasher.update(block);
        block_crcs.push(block_crc(block));
    }
    source.verify_unchanged()?;
    Ok(Some(Hashes { root: Root256(*hasher.finalize().as_bytes()), block_crcs: block_crcs.into() }))
}

/// The same, to its end.
pub fn hash_source(source: &Source) -> Result<Hashes, SourceError> {
    hash_source_unless(source, || false).map(|hashes| hashes.expect("nobody said that it is over"))
}

/// BLAKE3 of all of a part, every byte of which is written. Reads back what was not seen whole as it was written;
/// `None` where `is_over`, which is asked before each block that is read, said that it is to be left.
pub fn hash_part(part: &Part, is_over: impl Fn() -> bool) -> Result<Option<Root256>, StoreError> {
    let (size, mut buffer) = (part.size(), Vec::new());
    let mut blocks = Vec::with_capacity(usize::try_from(block_count(size)).unwrap_or(0));
    for index in 0..block_count(size) {
        if let Some(seen) = part.seen_block(index) {
            blocks.push(seen);
            continue;
        }
        if is_over() {
            return Ok(None);
        }
        let (offset, length) = block_range(index, size);
        buffer.resize(length.0 as usize, 0);
        part.read_exact_at(&mut buffer, offset)?;
        blocks.push(block_cv(index, size, [&buffer[..]]));
    }
    Ok(Some(root_of(size, &blocks)))
}

/// How many blocks of a part [`hash_part`] reads back.
pub fn unseen_blocks(part: &Part) -> u64 {
    (0..block_count(part.size())).filter(|&index| part.seen_block(index).is_none()).count() as u64
}

/// What block `index` of an object of `size` bytes adds to its root; `pieces` are the block's bytes in order.
///
/// Panics when they are not the block's length, or when there is no such block.
pub fn block_cv<'a>(index: u64, size: ByteCount, pieces: impl IntoIterator<Item = &'a [u8]>) -> BlockCv {
    let (offset, length) = block_range(index, size);
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset.0);
    for piece in pieces {
        hasher.update(piece);
    }
    assert!(length.0 > 0 && hasher.count() == length.0, "block {index} has {length}, not {}", hasher.count());
    // The root of a tree is finished differently from a subtree.
    BlockCv(if block_count(size) == 1 { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() })
}

/// The root of an object of `size` bytes from its blocks' values, in the order of the blocks.
///
/// Panics when there are not as many as the object has blocks.
pub fn root_of(size: ByteCount, blocks: &[BlockCv]) -> Root256 {
    assert!(block_count(size) == blocks.len() as u64, "{} values for {} blocks", blocks.len(), block_count(size));
    Root256(match blocks {
        [] => *blake3::hash(&[]).as_bytes(),
        [only] => only.0,
        _ => {
            let (left, right) = blocks.split_at(left_blocks(blocks.len()));
            *hazmat::merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
        }
    })
}

/// The chaining value over one block or more. As deep as the tree, 43 levels at most.
fn subtree(blocks: &[BlockCv]) -> hazmat::ChainingValue {
    if let [only] = blocks {
        return only.0;
    }
    let (left, right) = blocks.split_at(left_blocks(blocks.len()));
    hazmat::merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// How many of `blocks` are to the left: the largest power of two that leaves something to the right.
fn left_blocks(blocks: usize) -> usize {
    blocks.div_ceil(2).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
    }

    /// The root by way of its blocks, each given in pieces of `piece` bytes.
    fn by_blocks(bytes: &[u8], piece: usize) -> Root256 {
        let size = ByteCount(bytes.len() as u64);
        let mut values: Vec<_> = bytes.chunks(limits::BLOCK_BYTES as usize).enumerate().collect();
        // In any order but the natural one.
        values.reverse();
        let mut values: Vec<_> = values
            .into_iter()
            .map(|(index, block)| (index, block_cv(index as u64, size, block.chunks(piece))))
            .collect();
        values.sort_by_key(|(index, _)| *index);
        root_of(size, &values.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
    }

    #[test]
    fn blocks_in_any_order_make_the_root_of_the_whole() {
        const MIB: usize = 1 << 20;
        let all = bytes(9 * MIB);
        let sizes = [0, 1, 63, 64, 1023, 1024, 1025, 2048, 3000, MIB - 1, MIB, MIB + 1, MIB + 1024, 2 * MIB]
            .into_iter()
            .chain([2 * MIB + MIB / 2, 3 * MIB, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 5 * MIB, 6 * MIB + 1])
            .chain([7 * MIB, 8 * MIB, 8 * MIB + 17, 9 * MIB]);
        for size in sizes {
            let expected = Root256(*blake3::hash(&all[..size]).as_bytes());
            assert_eq!(by_blocks(&all[..size], MIB), expected, "{size} bytes");
            assert_eq!(by_blocks(&all[..size], 100_003), expected, "{size} bytes, in pieces");
        }
    }

    #[test]
    fn the_root_is_that_of_the_reference_vectors() {
        // BLAKE3's test_vectors.json, input lengths 0 and 1.
        let check = |bytes: &[u8], expected: &str| assert_eq!(by_blocks(bytes, 7).to_string(), expected);
        check(b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        check(b"\0", "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213");
    }

    #[test]
    fn the_checksum_is_that_of_the_wire() {
        // RFC 3720, appendix B.4.
        assert_eq!(block_crc(&[0; 32]), 0x8A91_36AA);
        assert_eq!(block_crc(b"123456789"), 0xE306_9283);
    }

    #[test]
    #[should_panic(expected = "block 1 has 1 bytes")]
    fn a_block_of_another_length_is_not_hashed() {
        block_cv(1, ByteCount(limits::BLOCK_BYTES + 1), [&b"xx"[..]]);
    }

    proptest! {
        #[test]
        fn blocks_cover_an_object_without_gap_or_overlap(size in 0..20 * limits::BLOCK_BYTES) {
            let size = ByteCount(size);
            let mut at = Offset(0);
            for index in 0..block_count(size) {
                let (offset, length) = block_range(index, size);
                prop_assert_eq!(offset, at);
                prop_assert!((1..=limits::BLOCK_BYTES).contains(&length.0));
                at = offset + length;
            }
            prop_assert_eq!(at.0, size.0);
            prop_assert_eq!(block_range(block_count(size), size), (at, ByteCount(0)));
        }
    }
}
