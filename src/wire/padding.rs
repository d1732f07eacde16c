//! Padding: the bytes that fill a packet up to its length.
//!
//! Seed 000 asks for random data. A pool of it is made once from a seed that the caller hands in; every padding is a
//! window into that pool. So padding costs nothing per packet, is the same for the same seed, and can never be
//! memory that held something else before. It is filler, not a secret: the generator is not a cryptographic one.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::limits;

/// Windows start below this, so that the longest packet still ends within the pool.
const WINDOW_STARTS: usize = limits::PADDING_POOL_BYTES / 2;

const _: () = {
    assert!(WINDOW_STARTS.is_power_of_two());
    assert!(WINDOW_STARTS + limits::PACKET_BYTES_MAX as usize <= limits::PADDING_POOL_BYTES);
};

/// A pool of [`limits::PADDING_POOL_BYTES`] pseudo-random bytes, which neither move nor change while it lives.
#[derive(Debug)]
pub struct Padding {
    pool: Box<[u8]>,
}

impl Padding {
    /// Fills a pool from `seed`; the same seed makes the same pool.
    pub fn new(seed: u64) -> Self {
        let mut pool = vec![0; limits::PADDING_POOL_BYTES].into_boxed_slice();
        Pcg64Mcg::seed_from_u64(seed).fill_bytes(&mut pool);
        Self { pool }
    }

    /// The next window of `len` bytes. `cursor` is the caller's place, one a link, started at any value and moved on by
    /// each call.
    ///
    /// # Panics
    /// Where `len` is more than [`limits::PACKET_BYTES_MAX`]: no padding is longer than a packet.
    pub fn slice(&self, len: usize, cursor: &mut u64) -> &[u8] {
        assert!(len <= limits::PACKET_BYTES_MAX as usize, "padding of {len} bytes is longer than any packet");
        // Knuth's MMIX generator: full period whatever the start, and its high bits are the good ones.
        *cursor = cursor.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let start = (*cursor >> 33) as usize & (WINDOW_STARTS - 1);
        &self.pool[start..start + len]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn same_seed_makes_the_same_padding() {
        let (one, other, different) = (Padding::new(7), Padding::new(7), Padding::new(8));
        let (mut a, mut b, mut c) = (1, 1, 1);
        for len in [0, 1, 63, 1399, limits::PACKET_BYTES_MAX as usize] {
            let expected = one.slice(len, &mut a);
            assert_eq!(expected.len(), len);
            assert!(expected == other.slice(len, &mut b), "{len}");
            assert!(len < 63 || expected != different.slice(len, &mut c), "{len}");
        }
    }

    #[test]
    fn each_call_moves_on() {
        let padding = Padding::new(1);
        for start in [0, 1, u64::MAX] {
            let mut cursor = start;
            let windows: BTreeSet<Vec<u8>> = (0..1000).map(|_| padding.slice(64, &mut cursor).to_vec()).collect();
            assert!(windows.len() > 990, "{} of 1000 windows differ", windows.len());
        }
    }

    #[test]
    fn pool_is_filled_to_its_end_with_every_value() {
        let padding = Padding::new(0);
        for quarter in padding.pool.chunks(limits::PADDING_POOL_BYTES / 4) {
            let mut counts = [0_usize; 256];
            quarter.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
            let even = quarter.len() / 256;
            assert!(counts.iter().all(|count| (even * 8 / 10..even * 12 / 10).contains(count)), "{counts:?}");
        }
    }
}
