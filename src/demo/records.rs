//! Order records: what the demo's segments are made of.
//!
//! A segment is a run of packed little-endian records of [`RECORD_BYTES`] bytes, without header or padding:
//!
//! ```text
//! 0         4          8      12              20       24
//! | order_id | direction | type | price          | volume |
//! |   i32    |    i32    | i32  |  f64           |  i32   |
//! ```
//!
//! The records of a segment follow from a seed and the segment's number alone, on any machine and in any
//! version, so that a store can be made again and compared. Call [`Orders::new`], then [`Orders::fill`] as often
//! as the segment needs: how the calls cut it up does not matter.

use rand::Rng as _;
use rand_pcg::Pcg64;

/// One record, bytes.
pub const RECORD_BYTES: usize = 24;

/// Kinds of orders; the type field is below this.
const TYPES: u64 = 6;
/// A segment's base price lies from this, in cents, ...
const BASE_CENTS_MIN: u64 = 1_000;
/// ... up to but not including this.
const BASE_CENTS_END: u64 = 100_000;
/// Largest volume; the least is 1.
const VOLUME_MAX: u64 = 10_000;

/// The order records of one segment, in order and without end.
#[derive(Debug, Clone)]
pub struct Orders {
    random: Pcg64,
    /// Lowest price that occurs, cents.
    cents_min: u64,
    /// How many different prices occur, counted upwards from `cents_min`.
    cents_count: u64,
    last_order_id: i32,
}

impl Orders {
    /// The records of `segment` in the store that `seed` names.
    pub fn new(seed: u64, segment: u32) -> Self {
        // A stream of its own a segment: no two segments run into each other's numbers.
        let mut random = Pcg64::new(u128::from(seed), u128::from(segment));
        let base = BASE_CENTS_MIN + below(random.next_u64() >> 32, BASE_CENTS_END - BASE_CENTS_MIN);
        let cents_min = (base * 9).div_ceil(10);
        let cents_max = base * 11 / 10;
        Self { random, cents_min, cents_count: cents_max - cents_min + 1, last_order_id: 0 }
    }

    /// Overwrites `out` with the records that come next.
    ///
    /// # Panics
    /// Where `out` does not hold a whole number of records.
    pub fn fill(&mut self, out: &mut [u8]) {
        let (records, rest) = out.as_chunks_mut::<RECORD_BYTES>();
        assert!(rest.is_empty(), "a segment holds whole records of {RECORD_BYTES} bytes");
        for record in records {
            *record = self.next_record();
        }
    }

    fn next_record(&mut self) -> [u8; RECORD_BYTES] {
        // One draw a record, cut up: the top half is the price, then 16 bits of volume, 15 of type, 1 of direction.
        let draw = self.random.next_u64();
        let cents = self.cents_min + below(draw >> 32, self.cents_count);
        let volume = 1 + ((((draw >> 16) & 0xffff) * VOLUME_MAX) >> 16);
        let kind = (((draw >> 1) & 0x7fff) * TYPES) >> 15;
        let direction = if draw & 1 == 0 { 1_i32 } else { -1 };
        self.last_order_id = self.last_order_id.checked_add(1).unwrap_or(1);

        let mut record = [0; RECORD_BYTES];
        record[0..4].copy_from_slice(&self.last_order_id.to_le_bytes());
        record[4..8].copy_from_slice(&direction.to_le_bytes());
        record[8..12].copy_from_slice(&(kind as i32).to_le_bytes());
        // The nearest f64 to a price of two decimals: a division by 100 is rounded correctly, a product with 0.01 is
        // not.
        record[12..20].copy_from_slice(&(cents as f64 / 100.0).to_le_bytes());
        record[20..24].copy_from_slice(&(volume as i32).to_le_bytes());
        record
    }
}

/// Maps `draw`, 32 bits evenly spread, to 0 up to but not including `end`, evenly but for rounding.
fn below(draw: u64, end: u64) -> u64 {
    debug_assert!(draw >> 32 == 0 && end >> 32 == 0);
    (draw * end) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: usize = 20_000;

    fn segment(seed: u64, segment: u32) -> Vec<u8> {
        let mut bytes = vec![0xaa; RECORDS * RECORD_BYTES];
        Orders::new(seed, segment).fill(&mut bytes);
        bytes
    }

    struct Order {
        order_id: i32,
        direction: i32,
        kind: i32,
        price: f64,
        volume: i32,
    }

    fn i32_at(record: &[u8], at: usize) -> i32 {
        i32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"))
    }

    fn parse(record: &[u8]) -> Order {
        Order {
            order_id: i32_at(record, 0),
            direction: i32_at(record, 4),
            kind: i32_at(record, 8),
            price: f64::from_le_bytes(record[12..20].try_into().expect("eight bytes")),
            volume: i32_at(record, 20),
        }
    }

    #[test]
    fn the_first_records_of_a_seed_never_change() {
        let mut bytes = [0; 2 * RECORD_BYTES];
        Orders::new(1, 0).fill(&mut bytes);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        // order_id 1, direction -1, type 2, 405.90, volume 9574; order_id 2, direction -1, type 5, 464.87, volume 4898.
        assert_eq!(
            hex,
            "01000000ffffffff0200000066666666665e794066250000\
             02000000ffffffff0500000052b81e85eb0d7d4022130000"
        );
    }

    #[test]
    fn every_field_keeps_its_bounds_and_uses_them() {
        let bytes = segment(7, 3);
        let orders: Vec<Order> = bytes.chunks_exact(RECORD_BYTES).map(parse).collect();
        for (index, order) in orders.iter().enumerate() {
            assert_eq!(order.order_id, index as i32 + 1);
            assert!(order.direction == 1 || order.direction == -1, "direction {}", order.direction);
            assert!((0..6).contains(&order.kind), "type {}", order.kind);
            assert!((1..=10_000).contains(&order.volume), "volume {}", order.volume);
            let cents = (order.price * 100.0).round();
            assert_eq!(order.price, cents / 100.0, "two decimals");
        }
        assert!(orders.iter().any(|o| o.direction == 1) && orders.iter().any(|o| o.direction == -1));
        assert!((0..6).all(|kind| orders.iter().any(|o| o.kind == kind)));
        assert!(orders.iter().any(|o| o.volume < 100) && orders.iter().any(|o| o.volume > 9_900));
    }

    #[test]
    fn prices_stay_within_a_tenth_of_one_base() {
        for number in 0..50 {
            let bytes = segment(2, number);
            let prices = bytes.chunks_exact(RECORD_BYTES).map(|record| parse(record).price);
            let (low, high) = prices.fold((f64::MAX, 0.0_f64), |(low, high), p| (low.min(p), high.max(p)));
            assert!(low >= 9.0 && high <= 1100.0, "segment {number}: {low} to {high}");
            // 0.9 of the base to 1.1 of it.
            assert!(high / low <= 1.1 / 0.9 + 1e-9, "segment {number}: {low} to {high}");
            assert!(high / low > 1.1, "segment {number}: prices vary, {low} to {high}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_however_they_are_asked_for() {
        let whole = segment(42, 9);
        let mut pieces = vec![0; whole.len()];
        let mut orders = Orders::new(42, 9);
        for piece in pieces.chunks_mut(77 * RECORD_BYTES) {
            orders.fill(piece);
        }
        assert!(whole == pieces);
    }

    #[test]
    fn another_seed_or_segment_gives_other_bytes() {
        let one = segment(42, 9);
        assert!(one != segment(42, 10));
        assert!(one != segment(43, 9));
        assert!(one[RECORDS * 12..] != segment(42, 10)[RECORDS * 12..]);
    }

    #[test]
    fn order_ids_start_again_rather_than_overflow() {
        let mut orders = Orders { last_order_id: i32::MAX - 1, ..Orders::new(0, 0) };
        let mut bytes = [0; 2 * RECORD_BYTES];
        orders.fill(&mut bytes);
        assert_eq!((i32_at(&bytes, 0), i32_at(&bytes, RECORD_BYTES)), (i32::MAX, 1));
    }

    #[test]
    #[should_panic(expected = "whole records")]
    fn a_piece_of_a_record_is_refused() {
        Orders::new(0, 0).fill(&mut [0; RECORD_BYTES + 1]);
    }
}
