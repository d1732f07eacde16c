//! What one link has on order.

use std::collections::{VecDeque, vec_deque};

use super::blocks::RangeRequest;
use crate::units::{ByteCount, Generation, ObjectId, Offset, Time};

/// A range on order; what of it came in right is cut off its front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub(super) request: RangeRequest,
    /// Bytes of it that came in and are not judged yet.
    pub(super) received: u64,
    /// When it was made.
    pub(super) made: Time,
    /// Until then another link is hoped to have it sooner.
    pub(super) doubled_until: Time,
    /// This link is the second one.
    pub(super) second: bool,
}

impl Order {
    /// Bytes of it that have not come in.
    pub(super) fn owed(&self) -> u64 {
        self.request.length.0.saturating_sub(self.received)
    }

    fn is_of(&self, object: ObjectId, generation: Generation, offset: Offset) -> bool {
        let r = &self.request;
        r.object == object && r.generation == generation && r.offset <= offset && offset.0 < r.end().0
    }
}

/// Orders, the oldest first. What they come to is known without adding them up: there may be a thousand, and a link is
/// asked for it with each.
#[derive(Debug, Default)]
pub(super) struct Orders {
    queue: VecDeque<Order>,
    owed: u64,
    /// Where data came in for last: what comes next is most likely for that one still, or for the one behind it.
    last: usize,
}

impl Orders {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of all of them that have not come in.
    pub(super) fn owed(&self) -> u64 {
        self.owed
    }

    pub(super) fn front(&self) -> Option<&Order> {
        self.queue.front()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Order> {
        self.queue.get(at)
    }

    pub(super) fn iter(&self) -> vec_deque::Iter<'_, Order> {
        self.queue.iter()
    }

    /// The order that this position is of. No two overlap.
    pub(super) fn find(&self, object: ObjectId, generation: Generation, offset: Offset) -> Option<usize> {
        self.queue.iter().position(|order| order.is_of(object, generation, offset))
    }

    pub(super) fn push(&mut self, order: Order) {
        self.owed += order.owed();
        self.queue.push_back(order);
    }

    pub(super) fn remove(&mut self, at: usize) -> Option<Order> {
        let order = self.queue.remove(at)?;
        self.owed -= order.owed();
        self.last -= usize::from(at < self.last);
        Some(order)
    }

    /// All of them that `is_it` is true of, in their order.
    pub(super) fn remove_all(&mut self, is_it: impl Fn(&Order) -> bool) -> Vec<Order> {
        let gone: Vec<_> = self.queue.iter().filter(|order| is_it(order)).copied().collect();
        self.queue.retain(|order| !is_it(order));
        self.owed -= gone.iter().map(Order::owed).sum::<u64>();
        self.last = 0;
        gone
    }

    /// Bytes came in of the order that this position is of, which is returned as it is now.
    pub(super) fn receive(&mut self, of: &RangeRequest, bytes: ByteCount) -> Option<Order> {
        let is_it = |order: &Order| order.is_of(of.object, of.generation, of.offset);
        let last = self.last.min(self.queue.len());
        let ahead = self.queue.range(last..).position(is_it).map(|at| last + at);
        let at = ahead.or_else(|| self.queue.range(..last).position(is_it))?;
        self.last = at;
        Some(self.change(at, |order| order.received += bytes.0))
    }

    /// Nothing but so much of its front is wanted of an order.
    pub(super) fn shorten(&mut self, at: usize, front: ByteCount) {
        self.change(at, |order| {
            order.request.length = front;
            order.received = order.received.min(front.0);
        });
    }

    /// A piece at the front of an order is judged. Nothing may be left of the order, which stays all the same.
    pub(super) fn cut_front(&mut self, at: usize, piece: &RangeRequest) -> Order {
        self.change(at, |order| {
            let end = order.request.end();
            order.request.offset = piece.end().min(end);
            order.request.length = ByteCount(end.0 - order.request.offset.0);
            order.received = order.received.saturating_sub(piece.length.0);
        })
    }

    /// Another link is hoped to have an order sooner, until then.
    pub(super) fn double(&mut self, at: usize, until: Time) {
        self.change(at, |order| order.doubled_until = until);
    }

    /// Those of an object, some of whose bytes are to come anew: no link is hoped to have what overlaps that sooner.
    pub(super) fn end_doubling(&mut self, object: ObjectId, offset: Offset, length: ByteCount) {
        let orders = self.queue.iter_mut().filter(|order| order.request.object == object);
        for order in orders.filter(|o| o.request.offset < offset + length && offset < o.request.end()) {
            order.doubled_until = Time::ZERO;
            order.second = false;
        }
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Order)) -> Order {
        let order = &mut self.queue[at];
        self.owed -= order.owed();
        change(order);
        self.owed += order.owed();
        *order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(object: u32, length: u64) -> Order {
        let request = RangeRequest {
            object: ObjectId(object),
            generation: Generation(0),
            offset: Offset(0),
            length: ByteCount(length),
        };
        Order { request, received: 0, made: Time::ZERO, doubled_until: Time::ZERO, second: false }
    }

    #[test]
    fn what_is_owed_follows_what_comes_in_whatever_the_order() {
        let mut orders = Orders::default();
        (0..4).for_each(|object| orders.push(order(object, 10)));
        let of = |object| order(object, 1).request;
        let mut receive = |object| orders.receive(&of(object), ByteCount(4)).map(|order| order.received);
        assert_eq!(
            [receive(2), receive(2), receive(0), receive(3), receive(7)],
            [Some(4), Some(8), Some(4), Some(4), None]
        );
        assert_eq!(orders.owed(), 40 - 16);
        let left = orders.cut_front(2, &RangeRequest { length: ByteCount(4), ..of(2) });
        assert_eq!((left.request.offset, left.request.length, left.received), (Offset(4), ByteCount(6), 4));
        assert_eq!(orders.owed(), 24);
        orders.shorten(2, ByteCount(1));
        assert_eq!(orders.owed(), 24 - 2);
        assert_eq!(orders.remove(0).map(|order| order.owed()), Some(6));
        assert_eq!(orders.receive(&of(3), ByteCount(1)).map(|order| order.received), Some(5));
        assert_eq!(orders.remove_all(|order| order.request.object == ObjectId(1)).len(), 1);
        assert_eq!((orders.owed(), orders.len()), (5, 2));
        assert_eq!(orders.find(ObjectId(3), Generation(0), Offset(9)), Some(1));
    }
}
