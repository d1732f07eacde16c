//! What comes of the ranges on order: they come in right, damaged or not at all.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Problem};
use super::blocks::{Blocks, RangeRequest};
use super::carrier::Health;
use super::demands::Demand;
use super::flow::{Flow, Kind};
use super::gather::{Added, Gather, Piece};
use super::object::ObjectState;
use super::orders::Order;
use crate::limits;
use crate::units::{ByteCount, Generation, LinkId, NodeName, ObjectId, Offset, Time};

impl Flow {
    /// Data of an order begins to come in: its part file is asked for, before anything is written. `false` where the
    /// bytes are not wanted any more.
    pub fn handle_range_begin(&mut self, piece: RangeRequest) -> bool {
        if !self.wants_piece(piece) {
            return false;
        }
        self.open_part(piece.object);
        true
    }

    /// Whether a piece should be written: it is of the attempt under way, not all here, and reaches over no other one.
    pub fn wants_piece(&self, piece: RangeRequest) -> bool {
        let gather = self.blocks.gathers.get(&piece.object).filter(|gather| gather.started);
        self.is_current(piece.object, piece.generation)
            && gather.is_some_and(|gather| gather.fits(piece.offset, piece.length))
    }

    /// `bytes` at the front of what is left of an order came in; `None`: of an order that was cancelled.
    pub fn handle_range_data(&mut self, link: LinkId, order: Option<RangeRequest>, bytes: ByteCount, now: Time) {
        let Some(carrier) = self.blocks.carriers.get_mut(&link) else { return };
        let found = order.and_then(|of| carrier.orders.receive(&of, bytes));
        carrier.handle_data(bytes, found.map(|order| order.made), now);
        if found.is_none() {
            carrier.totals.duplicated += bytes;
        }
    }

    /// A piece is in the part file, and its bytes have the checksum that was told with them. Returns the block that is
    /// whole by it, but wrong: what is in the part file of that is not to be believed.
    pub fn handle_verified(
        &mut self,
        link: LinkId,
        piece: RangeRequest,
        crc: u32,
        now: Time,
    ) -> Option<(Offset, ByteCount)> {
        let order = self.end_piece(link, piece, now);
        if let Some(carrier) = self.blocks.carriers.get_mut(&link) {
            carrier.handle_good();
        }
        let added = self.add_piece(link, piece, crc);
        let new = if let Added::New(new) = added { new } else { ByteCount(0) };
        if let Some(totals) = self.totals_of(link) {
            totals.verified += new;
            if order.is_some_and(|order| order.second) {
                totals.stolen += new;
            }
            // Where there is no order it was counted as it came in.
            if order.is_some() {
                totals.duplicated += ByteCount(piece.length.0.saturating_sub(new.0));
            }
        }
        if self.blocks.gathers.contains_key(&piece.object) && self.is_current(piece.object, piece.generation) {
            let Blocks { carriers, gathers, .. } = &mut self.blocks;
            if let (Some(carrier), Some(gather)) = (carriers.get(&link), gathers.get_mut(&piece.object)) {
                gather.put_on(&carrier.peer);
            }
            match added {
                Added::New(_) => {
                    let look_for_others = order.is_none_or(|order| order.doubled_until > Time::ZERO);
                    self.finish_piece(piece, look_for_others, now);
                }
                Added::BadBlock { offset, length, links } => {
                    self.drop_block(piece.object, offset, length, &links, now);
                    return Some((offset, length));
                }
                Added::Nothing => self.free_range(piece.object, piece.offset, piece.length),
            }
        }
        None
    }

    /// A piece came in over `link` that was not wanted when it began to, and was thrown away.
    pub fn handle_unwanted(&mut self, link: LinkId, piece: RangeRequest, now: Time) {
        if self.end_piece(link, piece, now).is_none() {
            return;
        }
        if let Some(totals) = self.totals_of(link) {
            totals.duplicated += piece.length;
        }
        if self.is_current(piece.object, piece.generation) {
            self.free_range(piece.object, piece.offset, piece.length);
        }
    }

    /// A piece came in damaged over `link`, and was not written.
    pub fn handle_damaged(&mut self, link: LinkId, piece: RangeRequest, now: Time) {
        self.end_piece(link, piece, now);
        let is_current = self.at(piece.object).generation == piece.generation;
        if let Some(gather) = self.blocks.gathers.get_mut(&piece.object)
            && is_current
        {
            gather.avoid(piece.offset, piece.length, link);
            self.free_range(piece.object, piece.offset, piece.length);
        }
        self.blame(link, now);
        self.wake_carriers();
    }

    /// The peer says that it has not now what is left of an order, or refuses it: it has the object no more, or another
    /// one, or its copy is damaged. It is asked again after a while, in which news may come.
    pub fn handle_range_pending(&mut self, link: LinkId, rest: RangeRequest, now: Time) {
        let Some(carrier) = self.blocks.carriers.get_mut(&link) else { return };
        let Some(at) = carrier.orders.find(rest.object, rest.generation, rest.offset) else { return };
        carrier.handle_pending(now);
        let peer = carrier.peer.clone();
        let Some(&Order { request: order, .. }) = carrier.orders.get(at) else { return };
        // What came before it is still to be judged.
        let front = ByteCount(rest.offset.0 - order.offset.0);
        if front.0 > 0 {
            carrier.orders.shorten(at, front);
        } else {
            carrier.end_order(at, now);
        }
        let is_current = self.at(rest.object).generation == rest.generation;
        if let Some(gather) = self.blocks.gathers.get_mut(&rest.object)
            && is_current
        {
            gather.put_off(&peer, now);
            gather.orders = gather.orders.saturating_sub(usize::from(front.0 == 0));
            self.free_range(rest.object, rest.offset, ByteCount(order.end().0 - rest.offset.0));
        }
        if self.kind == Kind::Fetch && self.blocks.ranks.contains_key(&rest.object) {
            self.blocks.open_last(rest.object);
        }
        self.wake_readers(rest.object);
        self.wake_carriers();
    }

    /// The peer refused what was left of an order since it cannot read it, which [`Flow::handle_range_pending`] was
    /// told.
    pub fn handle_source_damaged(&mut self, rest: RangeRequest) {
        if self.is_current(rest.object, rest.generation) {
            self.tell_problem(rest.object, Problem::DamagedSource);
        }
    }

    /// The root of a generation is not the one that the inventory tells: all of it is fetched again.
    pub fn handle_root_failed(&mut self, id: ObjectId, generation: Generation, now: Time) {
        if !self.is_current(id, generation) || !matches!(self.at(id).state(), ObjectState::Whole { .. }) {
            return;
        }
        self.give_back(id);
        self.fail(id, Problem::WrongRoot, now);
        self.enqueue_later(id, now);
        self.wake_readers(id);
    }

    // -- helpers -----------------------------------------------------------------------------------------------------

    pub(super) fn open_part(&mut self, id: ObjectId) {
        let Some(gather) = self.blocks.gathers.get_mut(&id) else { return };
        if std::mem::replace(&mut gather.opened, true) {
            return;
        }
        let resumed = !gather.have.is_empty();
        let object = self.at(id);
        let Some(content) = &object.content else { return };
        let action = Action::OpenPart {
            id,
            generation: object.generation,
            size: content.size,
            mtime_ns: content.mtime_ns,
            mode: content.mode,
            root: content.root,
            resumed,
        };
        self.open_parts += 1;
        self.actions.push_back(action);
    }

    /// A piece is judged: it is cut off its order, which is returned as it was and is over when nothing is left of it.
    fn end_piece(&mut self, link: LinkId, piece: RangeRequest, now: Time) -> Option<Order> {
        let carrier = self.blocks.carriers.get_mut(&link)?;
        let at = carrier.orders.find(piece.object, piece.generation, piece.offset)?;
        let before = *carrier.orders.get(at)?;
        if carrier.orders.cut_front(at, &piece).request.length.0 == 0 {
            carrier.end_order(at, now);
            // A link that had as many as it may would not look again when the last of their bytes have come in already.
            if carrier.orders.len() == limits::RANGES_ORDERED_MAX / 2 {
                self.wakes.insert(link);
            }
            if let Some(gather) = self.blocks.gathers.get_mut(&piece.object) {
                gather.orders = gather.orders.saturating_sub(1);
            }
        }
        Some(before)
    }

    fn add_piece(&mut self, link: LinkId, piece: RangeRequest, crc: u32) -> Added {
        if !self.wants_piece(piece) {
            return Added::Nothing;
        }
        let object = &self.objects[piece.object.0 as usize];
        let gather = self.blocks.gathers.get_mut(&piece.object).expect("a wanted piece is of an object in block hands");
        let Some(content) = &object.content else { return Added::Nothing };
        let is_within = piece.end().0 <= content.size.0
            && piece.offset.0 % limits::BLOCK_BYTES + piece.length.0 <= limits::BLOCK_BYTES;
        if !is_within {
            return Added::Nothing;
        }
        gather.add(Piece { offset: piece.offset, length: piece.length, crc, link: Some(link) }, content)
    }

    /// New bytes are here: others need not fetch them, readers may have them, and they may have been the last.
    fn finish_piece(&mut self, piece: RangeRequest, look_for_others: bool, now: Time) {
        let id = piece.object;
        if look_for_others {
            self.cancel_what_is_here(id, now);
        }
        self.update_gathering(id);
        if self.blocks.gathers.get(&id).is_some_and(Gather::is_whole) {
            self.complete(id);
        } else {
            self.wake_readers(id);
        }
    }

    fn cancel_what_is_here(&mut self, id: ObjectId, now: Time) {
        let Some(gather) = self.blocks.gathers.get_mut(&id) else { return };
        for (&link, carrier) in &mut self.blocks.carriers {
            let is_here = |order: &Order| {
                let r = order.request;
                r.object == id && gather.have.contains(r.offset, r.length)
            };
            while let Some(at) = carrier.orders.iter().position(is_here) {
                let Some(order) = carrier.end_order(at, now) else { break };
                carrier.totals.duplicated += ByteCount(order.received);
                carrier.cancels.push_back(order.request);
                gather.orders = gather.orders.saturating_sub(1);
                self.wakes.insert(link);
            }
        }
    }

    /// A whole block is wrong: its ranges are fetched again, over others of the links where there are any.
    fn drop_block(&mut self, id: ObjectId, offset: Offset, length: ByteCount, links: &BTreeSet<LinkId>, now: Time) {
        let peers: BTreeSet<NodeName> =
            links.iter().filter_map(|link| self.blocks.carriers.get(link)).map(|c| c.peer.clone()).collect();
        if let Some(gather) = self.blocks.gathers.get_mut(&id) {
            links.iter().for_each(|&link| gather.avoid(offset, length, link));
            // A peer whose copy is wrong must not be asked for it again and again.
            peers.iter().for_each(|peer| gather.doubt(peer, now));
        }
        for &link in links {
            self.blame(link, now);
        }
        self.tell_problem(id, Problem::WrongBlock { offset });
        self.free_range(id, offset, length);
        self.update_gathering(id);
        self.wake_carriers();
    }

    /// What is counted of a link, which may have ended while its last ranges were on their way to disk.
    fn totals_of(&mut self, link: LinkId) -> Option<&mut Health> {
        let Blocks { carriers, ended, .. } = &mut self.blocks;
        carriers.get_mut(&link).map(|carrier| &mut carrier.totals).or_else(|| ended.get_mut(&link))
    }

    /// A link has damaged something; one that does so often is put aside.
    fn blame(&mut self, link: LinkId, now: Time) {
        let Some(carrier) = self.blocks.carriers.get_mut(&link) else {
            self.totals_of(link).into_iter().for_each(|totals| totals.bad_ranges += 1);
            return;
        };
        if !carrier.handle_bad(now) || !self.blocks.is_aside(link, now) {
            return;
        }
        let Some(carrier) = self.blocks.carriers.get_mut(&link) else { return };
        carrier.meter.stop(now);
        let orders = std::mem::take(&mut carrier.orders);
        carrier.cancels.extend(orders.iter().map(|order| order.request));
        for order in orders.iter().rev() {
            self.free_order(order);
        }
    }

    /// An order that was taken off its link is over.
    pub(super) fn free_order(&mut self, order: &Order) {
        let request = order.request;
        if self.at(request.object).generation != request.generation {
            return;
        }
        if let Some(gather) = self.blocks.gathers.get_mut(&request.object) {
            gather.orders = gather.orders.saturating_sub(1);
        }
        self.free_range(request.object, request.offset, request.length);
    }

    /// A range is no longer on order over a link: what of it is neither here nor on order over another link is free.
    pub(super) fn free_range(&mut self, id: ObjectId, offset: Offset, length: ByteCount) {
        let Some(gather) = self.blocks.gathers.get_mut(&id) else { return };
        let gaps = gather.release(offset, length);
        let carriers = if gather.orders > 0 { Some(&mut self.blocks.carriers) } else { None };
        for carrier in carriers.into_iter().flat_map(BTreeMap::values_mut) {
            for order in carrier.orders.iter().filter(|order| order.request.object == id) {
                gather.taken.insert(order.request.offset, order.request.length);
            }
            carrier.orders.end_doubling(id, offset, length);
        }
        let (is_open, is_started) = (!gather.is_taken(), gather.started);
        match self.kind {
            Kind::Fetch if is_open => {
                self.blocks.open(id);
                if is_started {
                    self.blocks.waiting.insert(id);
                }
            }
            Kind::Relay if !self.at(id).readers.is_empty() => {
                let gather = self.blocks.gathers.get_mut(&id).expect("just seen");
                for (offset, length) in gaps.into_iter().rev() {
                    for gap in gather.taken.missing_in(offset, length) {
                        let demand = Demand { reader: None, object: id, offset: gap.0, length: gap.1 };
                        self.blocks.demands.push_front(demand);
                        gather.demanded.insert(gap.0, gap.1);
                    }
                }
            }
            _ => {}
        }
        self.update_evictable(id);
    }

    fn update_gathering(&mut self, id: ObjectId) {
        let Some(gather) = self.blocks.gathers.get(&id) else { return };
        let (now_verified, now_prefix) = (gather.have.total(), gather.prefix());
        if let Some(ObjectState::Gathering { verified, prefix, .. }) = self.at_mut(id).moving_mut() {
            *verified = now_verified;
            *prefix = now_prefix;
        }
    }

    /// All of an object is here: what remains is its root.
    pub(super) fn complete(&mut self, id: ObjectId) {
        self.open_part(id);
        // It may go again once it was committed, by then with other marks.
        self.unmark_evictable(id);
        self.drop_blocks(id);
        let object = self.at_mut(id);
        let ObjectState::Gathering { size, .. } = object.state() else { return };
        object.set_state(ObjectState::Whole { size });
        let (generation, root) = (object.generation, object.content.as_ref().map(|content| content.root));
        self.actions.push_back(Action::Commit { id, generation, root, size });
        self.wake_readers(id);
    }
}
