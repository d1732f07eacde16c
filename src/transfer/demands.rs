//! Ranges that were asked for of a flow that fetches on demand, and that are neither here nor on order.
//!
//! Those who ask take turns: a link that asked for much at once must not keep the others waiting until it has all of
//! it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use crate::limits;
use crate::units::{ByteCount, LinkId, ObjectId, Offset};

/// A range, and who asked for it; `None`: it was on order already, and goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) reader: Option<LinkId>,
    pub(super) object: ObjectId,
    pub(super) offset: Offset,
    pub(super) length: ByteCount,
}

#[derive(Debug, Default)]
pub(super) struct Demands {
    /// By reader, the oldest first; none is empty.
    queues: BTreeMap<Option<LinkId>, VecDeque<Demand>>,
    /// Whose turn it was.
    last: Option<LinkId>,
}

impl Demands {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Demand> {
        self.queues.values().flatten()
    }

    /// Whether a reader has asked for as much as is kept for one.
    pub(super) fn is_full(&self, reader: Option<LinkId>) -> bool {
        reader.is_some() && self.queues.get(&reader).is_some_and(|queue| queue.len() >= limits::DEMANDS_PER_LINK_MAX)
    }

    /// Behind what its reader asked for before.
    pub(super) fn push_back(&mut self, demand: Demand) {
        self.queues.entry(demand.reader).or_default().push_back(demand);
    }

    /// Ahead of it.
    pub(super) fn push_front(&mut self, demand: Demand) {
        self.queues.entry(demand.reader).or_default().push_front(demand);
    }

    /// The oldest demand of the reader whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Demand> {
        let first = self.queues.contains_key(&None).then_some(None);
        let next = self.queues.range((Excluded(self.last), Unbounded)).next();
        let reader = first.or(next.map(|(&reader, _)| reader)).or_else(|| self.queues.keys().next().copied())?;
        self.last = reader.or(self.last);
        let queue = self.queues.get_mut(&reader)?;
        let demand = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&reader);
        }
        demand
    }

    /// Nothing of an object is asked for any more.
    pub(super) fn forget(&mut self, object: ObjectId) {
        self.queues.retain(|_, queue| {
            queue.retain(|demand| demand.object != object);
            !queue.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(reader: Option<u64>, offset: u64) -> Demand {
        Demand { reader: reader.map(LinkId), object: ObjectId(0), offset: Offset(offset), length: ByteCount(1) }
    }

    #[test]
    fn readers_take_turns_and_what_was_on_order_goes_first() {
        let mut demands = Demands::default();
        (0..3).for_each(|offset| demands.push_back(demand(Some(7), offset)));
        demands.push_back(demand(Some(9), 10));
        demands.push_back(demand(Some(9), 11));
        let mut next = || demands.pop().map(|demand| demand.offset.0);
        assert_eq!([next(), next()], [Some(0), Some(10)]);
        demands.push_front(demand(None, 20));
        let mut next = || demands.pop().map(|demand| demand.offset.0);
        assert_eq!([next(), next(), next(), next(), next()], [Some(20), Some(1), Some(11), Some(2), None]);
        assert!(demands.is_empty());
    }

    #[test]
    fn what_is_forgotten_leaves_no_empty_queue() {
        let mut demands = Demands::default();
        demands.push_back(demand(Some(7), 0));
        demands.forget(ObjectId(0));
        assert!(demands.is_empty() && demands.pop().is_none());
    }
}
