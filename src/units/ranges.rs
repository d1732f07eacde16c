//! Which bytes of an object are there: a set of ranges.
//!
//! Kept as what it looks like, ranges in ascending order that neither touch nor overlap, so that an object that
//! arrived in order is one entry however long it is.

use std::collections::BTreeMap;
use std::fmt;

use super::{ByteCount, Offset};

/// A set of byte positions, some 16 bytes for each unbroken run of them. What is done with one run takes time as the
/// logarithm of their number, whatever order they come in.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RangeSet {
    runs: Runs,
}

/// None is empty, a gap between each two. Most sets have one at most, which takes no memory of its own.
#[derive(Clone, PartialEq, Eq)]
enum Runs {
    /// Start and end, where they differ.
    One(u64, u64),
    /// Two or more: the end of each by its start.
    Many(BTreeMap<u64, u64>),
}

impl Default for Runs {
    fn default() -> Self {
        Self::One(0, 0)
    }
}

impl Runs {
    /// The last run that starts at `position` or before.
    fn last_upto(&self, position: u64) -> Option<(u64, u64)> {
        match self {
            Self::One(start, end) => (start < end && *start <= position).then_some((*start, *end)),
            Self::Many(runs) => runs.range(..=position).next_back().map(|(&start, &end)| (start, end)),
        }
    }

    /// The first run that starts at `position` or behind.
    fn first_from(&self, position: u64) -> Option<(u64, u64)> {
        match self {
            Self::One(start, end) => (start < end && *start >= position).then_some((*start, *end)),
            Self::Many(runs) => runs.range(position..).next().map(|(&start, &end)| (start, end)),
        }
    }

    /// A run that touches no other; or another end of one that there is.
    fn set(&mut self, start: u64, end: u64) {
        match self {
            Self::One(from, to) if from == to || *from == start => *self = Self::One(start, end),
            Self::One(from, to) => *self = Self::Many(BTreeMap::from([(*from, *to), (start, end)])),
            Self::Many(runs) => _ = runs.insert(start, end),
        }
    }

    fn remove(&mut self, start: u64) {
        match self {
            Self::One(from, _) if *from == start => *self = Self::default(),
            Self::One(..) => {}
            Self::Many(runs) => {
                runs.remove(&start);
                if let (1, Some((&start, &end))) = (runs.len(), runs.first_key_value()) {
                    *self = Self::One(start, end);
                }
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(start, end) => usize::from(start < end),
            Self::Many(runs) => runs.len(),
        }
    }

    /// All of them from the first that starts at `position` or behind, in ascending order.
    fn iter_from(&self, position: u64) -> impl Iterator<Item = (u64, u64)> {
        let (one, many) = match self {
            Self::One(..) => (self.first_from(position), None),
            Self::Many(runs) => (None, Some(runs.range(position..))),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(&start, &end)| (start, end)))
    }
}

impl RangeSet {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `length` bytes from `offset` on, whether or not some of them are in it. Returns how many were not.
    pub fn insert(&mut self, offset: Offset, length: ByteCount) -> ByteCount {
        let (start, end) = span(offset, length);
        if start == end {
            return ByteCount(0);
        }
        let mut added = end - start;
        // The runs that touch the new one become one with it.
        let mut whole = start..end;
        if let Some((run_start, run_end)) = self.run_at(start) {
            added -= run_end.min(end) - start;
            whole = run_start..run_end.max(end);
        }
        while let Some((run_start, run_end)) = self.runs.first_from(start + 1).filter(|run| run.0 <= end) {
            added -= run_end.min(end) - run_start;
            whole.end = whole.end.max(run_end);
            self.runs.remove(run_start);
        }
        self.runs.set(whole.start, whole.end);
        ByteCount(added)
    }

    /// Takes `length` bytes from `offset` on out of it. Returns how many were in it.
    pub fn remove(&mut self, offset: Offset, length: ByteCount) -> ByteCount {
        let (start, end) = span(offset, length);
        if start == end {
            return ByteCount(0);
        }
        let mut removed = 0;
        let mut rest = None;
        if let Some((run_start, run_end)) = self.run_at(start).filter(|run| run.0 < start) {
            removed += run_end.min(end) - start;
            rest = Some(run_end);
            if run_end > start {
                self.runs.set(run_start, start);
            }
        }
        while let Some((run_start, run_end)) = self.runs.first_from(start).filter(|run| run.0 < end) {
            removed += run_end.min(end) - run_start;
            rest = Some(run_end);
            self.runs.remove(run_start);
        }
        if let Some(rest) = rest.filter(|rest| *rest > end) {
            self.runs.set(end, rest);
        }
        ByteCount(removed)
    }

    /// Whether all of `length` bytes from `offset` on are in it; always so of no bytes.
    pub fn contains(&self, offset: Offset, length: ByteCount) -> bool {
        let (start, end) = span(offset, length);
        start == end || self.run_at(start).is_some_and(|run| end <= run.1)
    }

    /// The run that `position` is in or right behind.
    fn run_at(&self, position: u64) -> Option<(u64, u64)> {
        self.runs.last_upto(position).filter(|run| position <= run.1)
    }

    /// What lacks of an object of `size` bytes, in ascending order.
    pub fn missing(&self, size: ByteCount) -> impl Iterator<Item = (Offset, ByteCount)> {
        self.missing_in(Offset(0), size)
    }

    /// What lacks of `length` bytes from `offset` on, in ascending order.
    pub fn missing_in(&self, offset: Offset, length: ByteCount) -> impl Iterator<Item = (Offset, ByteCount)> {
        let (start, end) = span(offset, length);
        let first = self.run_at(start).map_or(start, |run| run.0);
        let mut runs = self.runs.iter_from(first);
        let mut at = start;
        std::iter::from_fn(move || {
            while at < end {
                let (gap, (gap_end, next)) =
                    (at, runs.next().map_or((end, end), |(run_start, run_end)| (run_start.min(end), run_end)));
                at = next;
                if gap < gap_end {
                    return Some((Offset(gap), ByteCount(gap_end - gap)));
                }
            }
            None
        })
    }

    /// Whether every byte of an object of `size` bytes is in it.
    pub fn is_full(&self, size: ByteCount) -> bool {
        self.contains(Offset(0), size)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.runs.len() == 0
    }

    /// How many bytes are in it.
    pub fn total(&self) -> ByteCount {
        ByteCount(self.runs().map(|(_, length)| length.0).sum())
    }

    /// How many unbroken runs it has.
    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// Its unbroken runs, in ascending order.
    pub fn runs(&self) -> impl Iterator<Item = (Offset, ByteCount)> {
        self.runs.iter_from(0).map(|(start, end)| (Offset(start), ByteCount(end - start)))
    }
}

impl FromIterator<(Offset, ByteCount)> for RangeSet {
    fn from_iter<I: IntoIterator<Item = (Offset, ByteCount)>>(ranges: I) -> Self {
        let mut set = Self::new();
        set.extend(ranges);
        set
    }
}

impl Extend<(Offset, ByteCount)> for RangeSet {
    fn extend<I: IntoIterator<Item = (Offset, ByteCount)>>(&mut self, ranges: I) {
        for (offset, length) in ranges {
            self.insert(offset, length);
        }
    }
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.runs.iter_from(0).map(|(start, end)| start..end)).finish()
    }
}

/// (start, end); what would go beyond the last position is cut off there.
fn span(offset: Offset, length: ByteCount) -> (u64, u64) {
    (offset.0, offset.0.saturating_add(length.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 64;

    fn of(runs: &[(u64, u64)]) -> RangeSet {
        runs.iter().map(|run| (Offset(run.0), ByteCount(run.1 - run.0))).collect()
    }

    #[test]
    fn touching_runs_become_one() {
        let mut set = of(&[(10, 20), (30, 40), (50, 60)]);
        assert_eq!(set.insert(Offset(20), ByteCount(10)), ByteCount(10));
        assert_eq!(set, of(&[(10, 40), (50, 60)]));
        assert_eq!(set.insert(Offset(0), ByteCount(100)), ByteCount(60));
        assert_eq!(set.run_count(), 1);
        assert_eq!(set.remove(Offset(40), ByteCount(10)), ByteCount(10));
        assert_eq!(set, of(&[(0, 40), (50, 100)]));
    }

    #[test]
    fn the_ends_of_the_number_line_are_positions_like_others() {
        let mut set = RangeSet::new();
        assert_eq!(set.insert(Offset(u64::MAX - 1), ByteCount(u64::MAX)), ByteCount(1));
        assert_eq!(set.insert(Offset(u64::MAX), ByteCount(7)), ByteCount(0));
        assert!(set.contains(Offset(u64::MAX - 1), ByteCount(1)));
        assert_eq!(set.missing(ByteCount(u64::MAX)).collect::<Vec<_>>(), [(Offset(0), ByteCount(u64::MAX - 1))]);
        assert!(RangeSet::new().is_full(ByteCount(0)));
        assert!(!RangeSet::new().is_full(ByteCount(1)));
        assert_eq!(set.remove(Offset(0), ByteCount(u64::MAX)), ByteCount(1));
        assert_eq!(set, RangeSet::new());
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_bitmap(
            steps in prop::collection::vec((any::<bool>(), 0..SIZE, 0..SIZE / 3), 0..60),
            (offset, length) in (0..SIZE, 0..SIZE),
        ) {
            let mut set = RangeSet::new();
            let mut bits = vec![false; 2 * SIZE as usize];
            for (insert, offset, length) in steps {
                let span = &mut bits[offset as usize..(offset + length) as usize];
                let changed = span.iter().filter(|bit| **bit != insert).count() as u64;
                span.fill(insert);
                let change = if insert { RangeSet::insert } else { RangeSet::remove };
                prop_assert_eq!(change(&mut set, Offset(offset), ByteCount(length)), ByteCount(changed));
            }
            let span = &bits[offset as usize..(offset + length) as usize];
            prop_assert_eq!(set.contains(Offset(offset), ByteCount(length)), span.iter().all(|bit| *bit));
            prop_assert_eq!(set.total().0, bits.iter().filter(|bit| **bit).count() as u64);
            prop_assert_eq!(set.is_empty(), !bits.contains(&true));
            prop_assert_eq!(set.is_full(ByteCount(offset)), bits[..offset as usize].iter().all(|bit| *bit));

            let mut missing = vec![false; bits.len()];
            let mut end = None;
            for (gap, gap_length) in set.missing_in(Offset(offset), ByteCount(length)) {
                prop_assert!(gap_length.0 > 0 && end.is_none_or(|end| end < gap.0), "gaps are whole and ascend");
                end = Some(gap.0 + gap_length.0);
                missing[gap.0 as usize..(gap + gap_length).0 as usize].fill(true);
            }
            for (at, (missing, held)) in missing.iter().zip(&bits).enumerate() {
                let within = (offset..offset + length).contains(&(at as u64));
                prop_assert_eq!(*missing, within && !held, "position {}", at);
            }

            let runs: Vec<_> = set.runs().collect();
            prop_assert!(runs.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0), "{:?}", set);
            prop_assert_eq!(runs.len(), set.run_count());
            prop_assert_eq!(runs.into_iter().collect::<RangeSet>(), set);
        }
    }
}
