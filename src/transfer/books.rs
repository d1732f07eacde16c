//! The books of a flow: what its tables say of each other, which must agree at any time.

use super::flow::{Flow, Kind};
use super::object::{Object, ObjectState};
use super::orders::Order;
use crate::units::ObjectId;

impl Flow {
    /// Fails where they do not.
    pub(super) fn check_books(&self) {
        self.check_totals();
        self.check_orders();
        (0..self.objects.len() as u32).for_each(|id| self.check_place(ObjectId(id)));
    }

    /// What is counted of objects, names and bytes is what the table has, and a spool has taken what they take up.
    fn check_totals(&self) {
        let totals = self.totals;
        let live = || self.objects.iter().filter(|object| !object.is_gone());
        let present = || live().filter(|object| object.is_present());
        assert_eq!(self.names.len(), live().count(), "names");
        assert_eq!(totals.objects, live().count() as u64, "objects");
        assert_eq!(totals.present, present().count() as u64, "present");
        assert_eq!(totals.present_bytes, present().map(Object::footprint).sum(), "bytes present");
        assert_eq!(totals.failed, self.objects.iter().filter(|o| o.problem.is_some()).count() as u64, "failed");
        let known = |o: &Object| o.content.as_ref().map(|known| o.name.as_bytes().len() + 4 * known.block_crcs.len());
        assert_eq!(self.known_bytes, live().filter_map(known).sum::<usize>() as u64, "known bytes");
        if self.kind() == Kind::Fetch {
            assert_eq!(totals.bytes, live().filter_map(Object::expected).sum(), "bytes");
        }
        if let Some(room) = &self.room {
            assert_eq!(room.used(), live().map(Object::footprint).sum(), "room");
            for id in room.evictable() {
                let object = self.at(id);
                let is_marked = room.is_marked(id, object.footprint(), object.delivered, object.kept_until());
                assert!(object.is_evictable() && is_marked, "{id} may go: {object:?}");
            }
        }
    }

    /// An order is of the attempt under way, and no two of a link overlap. Of each gather there are as many as it says,
    /// and taken is what is here and what is on order, no more and no less.
    fn check_orders(&self) {
        let blocks = &self.blocks;
        let orders = || blocks.carriers.values().flat_map(|carrier| carrier.orders.iter()).map(|order| order.request);
        for order in orders() {
            assert_eq!(self.at(order.object).generation, order.generation, "{order:?} is of what is over");
            assert!(blocks.gathers.contains_key(&order.object), "{order:?} is for nothing");
        }
        for (link, carrier) in &blocks.carriers {
            let mut orders: Vec<_> = carrier.orders.iter().map(|order| order.request).collect();
            orders.sort();
            let is_clear = orders.is_sorted_by(|a, b| a.object != b.object || a.end() <= b.offset);
            assert!(is_clear, "{link} has orders that overlap: {orders:?}");
            let owed = carrier.orders.iter().map(Order::owed).sum::<u64>();
            assert_eq!(carrier.owed(), owed, "{link} is owed");
        }
        for (&id, gather) in &blocks.gathers {
            let (mut taken, mut count) = (gather.have.clone(), 0);
            for order in orders().filter(|order| order.object == id) {
                taken.insert(order.offset, order.length);
                count += 1;
            }
            assert!(taken == gather.taken, "taken of {id}: {:?}, but {taken:?}", gather.taken);
            assert_eq!(gather.orders, count, "orders of {id}");
        }
        for id in &blocks.waiting {
            assert!(blocks.gathers.get(id).is_some_and(|gather| gather.started), "{id} waits, and was not begun");
        }
    }

    /// A place is free once if its object is gone and no link names it. What is absent and wanted is in a queue or on
    /// order; a relay keeps nothing else that is of no use.
    fn check_place(&self, id: ObjectId) {
        let object = self.at(id);
        let (is_on_order, is_read) = (self.is_on_order(id), !object.readers.is_empty());
        let is_free = object.is_gone() && !is_on_order;
        assert_eq!(self.free.iter().filter(|&&free| free == id).count(), usize::from(is_free), "{id} is free");
        assert_eq!(self.read.contains(&id), is_read, "{id} is read");
        if object.is_gone() {
            assert!(!object.queued && object.problem.is_none(), "{id} is gone: {object:?}");
            return;
        }
        let is_gathering = matches!(object.state(), ObjectState::Gathering { .. });
        assert_eq!(self.blocks.gathers.get(&id).is_some_and(|g| g.started), is_gathering, "{id} is gathering");
        let is_idle = object.state() == ObjectState::Absent && !is_on_order;
        let is_useful = is_read || object.content.is_some() || object.problem.is_some();
        let may_idle = if self.kind == Kind::Fetch { object.queued } else { is_useful };
        assert!(!is_idle || may_idle, "{id} is nobody's: {object:?}");
    }
}
