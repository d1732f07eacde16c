//! The receiving half of a [`Link`]: packets in, calls of the flows and instructions out.

use super::asked::Asked;
use super::{Incoming, Instruction, Link, LinkError};
use crate::limits;
use crate::transfer::{Content, Entry, Flow, RangeRequest};
use crate::units::{ByteCount, ObjectName, Offset, Root256, Time};
use crate::wire::checksum::crc32c;
use crate::wire::duplex::{self, Inner};
use crate::wire::extended::{Data, DataOf, Frame, Item, Refusal, RequestId};
use crate::wire::inventory;

impl Link {
    /// Whole packets came in, in order: `train` is a multiple of N long. What is to be done with the data is appended
    /// to `instructions`, as ranges of the train. After an error the link must be closed; instructions before it are
    /// good.
    pub fn handle_packets(
        &mut self,
        train: &[u8],
        now: Time,
        fetch: &mut Flow,
        serve: &mut Flow,
        instructions: &mut Vec<Instruction>,
    ) -> Result<(), LinkError> {
        let n = self.config.packet_len.bytes();
        debug_assert_eq!(train.len() % n, 0);
        self.last_in = now;
        let mut skipped = 0;
        if !self.switched_in && !train.is_empty() {
            self.take_switch(&train[..n])?;
            skipped = n;
        }
        let rest = &train[skipped..];
        let stream_at = self.counters.packets_in * n as u64;
        self.counters.packets_in += (rest.len() / n) as u64;
        self.reader.start();
        loop {
            let at = stream_at + (self.reader.consumed() / n * n) as u64;
            let item = self.reader.next(rest).map_err(|source| LinkError::Malformed {
                at: stream_at + source.packet_at() as u64,
                packet_len: self.config.packet_len,
                source,
            })?;
            match item {
                None => return Ok(()),
                Some(Item::Frame(frame)) => self.take_frame(frame, at, now, fetch, serve, instructions)?,
                Some(Item::Data(data)) => self.take_data(data, rest, skipped, now, fetch, instructions),
                Some(Item::DataEnd(_)) => self.take_end(at, now, fetch, instructions)?,
            }
        }
    }

    /// Behind the hello comes the switch, and nothing else.
    fn take_switch(&mut self, packet: &[u8]) -> Result<(), LinkError> {
        let at = self.counters.packets_in * packet.len() as u64;
        let found = match duplex::parse(packet) {
            Ok(duplex::Packet { request: None, inner: Inner::Switch }) => None,
            Ok(_) => Some("a packet of the seed's grammar"),
            Err(source) => {
                let packet_len = self.config.packet_len;
                return Err(super::duplex::LinkError::Malformed { at, packet_len, source }.into());
            }
        };
        if let Some(found) = found {
            return Err(LinkError::OutOfPlace { at, found, expected: "\"X:\" behind a hello that has agreed to it" });
        }
        self.counters.packets_in += 1;
        self.switched_in = true;
        Ok(())
    }

    fn take_frame(
        &mut self,
        frame: Frame,
        at: u64,
        now: Time,
        fetch: &mut Flow,
        serve: &mut Flow,
        instructions: &mut Vec<Instruction>,
    ) -> Result<(), LinkError> {
        let link = self.config.id;
        match frame {
            Frame::Request { id, name, offset: _, length: ByteCount(0) } => {
                return self.take_interest(id, &name, at, now, serve);
            }
            Frame::Request { id, name, offset, length } => {
                return self.take_request(id, &name, (offset, length), at, now, serve);
            }
            Frame::Begin { id, offset, length, crc } => {
                let order = self.order(id, at)?;
                let range = order.map(|order| RangeRequest { offset, length, ..order });
                if let (Some(order), Some(range)) = (order, range) {
                    if offset != order.offset || range.end() > order.end() {
                        let expected = "the part of the request that comes next";
                        return Err(LinkError::OutOfPlace { at, found: "\"B:\"", expected });
                    }
                    self.advance(id, range);
                }
                let kept = range.is_some_and(|range| fetch.handle_range_begin(range));
                if let Some(range) = range.filter(|_| kept) {
                    instructions.push(Instruction::Begin { range });
                }
                self.incoming = Some(Incoming::Range { order: range, kept, crc });
            }
            Frame::Pending { id } => {
                if let Some(object) = self.interests.remove(&id.0) {
                    fetch.handle_interest_pending(link, object);
                } else if let Some(rest) = self.order(id, at)? {
                    self.orders.remove(&id.0);
                    fetch.handle_range_pending(link, rest, now);
                }
            }
            Frame::Refused { id, reason } => {
                if let Some(object) = self.interests.remove(&id.0) {
                    fetch.handle_interest_refused(link, object, now);
                } else if let Some(rest) = self.order(id, at)? {
                    self.orders.remove(&id.0);
                    fetch.handle_range_pending(link, rest, now);
                    if reason == Refusal::Damaged {
                        fetch.handle_source_damaged(rest);
                    }
                }
            }
            Frame::Cancel { id } => {
                if let Some(at) = self.wished.iter().position(|wished| wished.0 == id) {
                    let (_, object) = self.wished.remove(at);
                    serve.release_range(link, object, true, now);
                } else if let Some(asked) = self.asked.remove(id) {
                    // The peer has it from elsewhere, as a rule: it is as good as delivered.
                    serve.release_range(link, asked.object, true, now);
                }
            }
            Frame::KeepAlive => {}
            Frame::Subscribe { epoch, seq } => {
                // What was told over this link is here or on its way.
                let told = self.told.filter(|&(of, upto)| of == epoch.0 && upto >= seq.0);
                self.told = told.or(Some((epoch.0, seq.0)));
                self.unanswered = Some(serve.subscribe(link));
            }
            Frame::Whole { epoch, seq, origin } => {
                self.check_epoch(epoch.0, at, now)?;
                fetch.handle_whole(link, &self.peer.name, epoch.0, seq.0, origin);
            }
            Frame::News { epoch, seq, length, crc } => {
                if !fetch.make_room_for_news(length) {
                    let expected = "the end of others, which hold 64 MiB over all links";
                    return Err(LinkError::OutOfPlace { at, found: "the beginning of long news", expected });
                }
                let data = Vec::new();
                self.incoming = Some(Incoming::News { epoch: epoch.0, seq: seq.0, length, crc, data });
            }
        }
        Ok(())
    }

    /// What is still to come of a request; `None` of one that is over.
    fn order(&self, id: RequestId, at: u64) -> Result<Option<RangeRequest>, LinkError> {
        // Ids come round again, long after the request that had one before is over.
        let behind = (self.made as u32).wrapping_sub(1).wrapping_sub(id.0);
        if u64::from(behind) >= self.made.min(1 << 31) {
            let expected = "an answer to a request that was made";
            return Err(LinkError::OutOfPlace { at, found: "the id of an answer", expected });
        }
        Ok(self.orders.get(&id.0).copied())
    }

    /// `range` of a request begins to come.
    fn advance(&mut self, id: RequestId, range: RangeRequest) {
        let Some(order) = self.orders.get_mut(&id.0) else { return };
        let end = order.end();
        order.offset = range.end();
        order.length = ByteCount(end.0 - order.offset.0);
        if order.length.0 == 0 {
            self.orders.remove(&id.0);
        }
    }

    fn take_request(
        &mut self,
        id: RequestId,
        name: &ObjectName,
        (offset, length): (Offset, ByteCount),
        at: u64,
        now: Time,
        serve: &mut Flow,
    ) -> Result<(), LinkError> {
        if self.asked.len() + self.answers.len() >= limits::RANGES_PER_LINK_MAX {
            let expected = "at most 1024 outstanding requests";
            return Err(LinkError::OutOfPlace { at, found: "one request more", expected });
        }
        self.check_fresh(id, at)?;
        let Some(object) = serve.find(name) else {
            self.answers.push_back(Frame::Refused { id, reason: Refusal::Gone });
            return Ok(());
        };
        serve.demand_range(self.config.id, object, offset, length, now);
        self.asked.push(Asked { id, object, generation: None, offset, length });
        Ok(())
    }

    fn take_interest(
        &mut self,
        id: RequestId,
        name: &ObjectName,
        at: u64,
        now: Time,
        serve: &mut Flow,
    ) -> Result<(), LinkError> {
        if self.wished.len() >= limits::INTERESTS_PER_PEER_MAX {
            let expected = "at most 64 objects that are asked for by name alone";
            return Err(LinkError::OutOfPlace { at, found: "one more", expected });
        }
        if self.asked.len() + self.answers.len() >= limits::RANGES_PER_LINK_MAX {
            let expected = "answers to be read";
            return Err(LinkError::OutOfPlace { at, found: "one request more", expected });
        }
        self.check_fresh(id, at)?;
        match serve.demand_content(self.config.id, name, now) {
            Some(object) => {
                self.wished.push((id, object));
                self.stirred = true;
            }
            None => self.answers.push_back(Frame::Refused { id, reason: Refusal::Gone }),
        }
        Ok(())
    }

    fn check_fresh(&self, id: RequestId, at: u64) -> Result<(), LinkError> {
        if self.asked.contains(id) || self.wished.iter().any(|wished| wished.0 == id) {
            let expected = "an id that is not in use";
            return Err(LinkError::OutOfPlace { at, found: "a second request of one id", expected });
        }
        Ok(())
    }

    /// Each new epoch has all that was told before looked at, and a log seldom has one.
    fn check_epoch(&mut self, epoch: u64, at: u64, now: Time) -> Result<(), LinkError> {
        let (known, since) = *self.epoch.get_or_insert((epoch, now));
        if known == epoch {
            return Ok(());
        }
        if now.since(since) < limits::EPOCH_LASTS_MIN {
            let expected = "a log that does not start over again and again";
            return Err(LinkError::OutOfPlace { at, found: "one more epoch", expected });
        }
        self.epoch = Some((epoch, now));
        Ok(())
    }

    /// `train` starts `skipped` bytes behind the one that the rim has.
    fn take_data(
        &mut self,
        data: Data,
        train: &[u8],
        skipped: usize,
        now: Time,
        fetch: &mut Flow,
        instructions: &mut Vec<Instruction>,
    ) {
        match &mut self.incoming {
            Some(Incoming::News { data: news, .. }) => data.pieces().for_each(|piece| news.extend(&train[piece])),
            Some(Incoming::Range { order, kept, .. }) => {
                let length = ByteCount(data.length as u64);
                fetch.handle_range_data(self.config.id, *order, length, now);
                self.counters.payload_in += length.0;
                if *kept {
                    instructions.push(Instruction::Data(Data { at: data.at + skipped, ..data }));
                } else {
                    self.counters.discarded += length.0;
                }
            }
            None => debug_assert!(false, "data comes behind a head"),
        }
        debug_assert!(matches!(data.of, DataOf::News | DataOf::Request(_)));
    }

    fn take_end(
        &mut self,
        at: u64,
        now: Time,
        fetch: &mut Flow,
        instructions: &mut Vec<Instruction>,
    ) -> Result<(), LinkError> {
        let incoming = self.incoming.take();
        if let Some(Incoming::News { length, .. }) = incoming {
            fetch.end_news(length);
        }
        match incoming {
            Some(Incoming::Range { order: Some(range), kept: true, crc }) => {
                instructions.push(Instruction::End { range, crc });
            }
            Some(Incoming::Range { order: Some(range), kept: false, .. }) => {
                fetch.handle_unwanted(self.config.id, range, now);
            }
            Some(Incoming::Range { order: None, .. }) | None => {}
            Some(Incoming::News { crc, data, .. }) if crc32c(&data) != crc => {
                return Err(LinkError::DamagedNews { at });
            }
            Some(Incoming::News { epoch, seq, data, .. }) => {
                self.check_epoch(epoch, at, now)?;
                let mut count = 0;
                if !fetch.begin_news(self.config.id, &self.peer.name, epoch) {
                    return Ok(());
                }
                for entry in inventory::entries(&data) {
                    match entry.map_err(|source| LinkError::News { at, source })? {
                        inventory::Entry::Object(object) => {
                            fetch.learn(&self.peer.name, known(object));
                        }
                        inventory::Entry::Removed { name } => fetch.unlearn(&self.peer.name, &name),
                    }
                    count += 1;
                }
                fetch.handle_news(self.config.id, &self.peer.name, epoch, seq.saturating_add(count));
            }
        }
        Ok(())
    }
}

fn known(object: inventory::Object) -> Entry {
    let inventory::Object { name, size, mtime_ns, mode, root, block_crcs } = object;
    Entry { name, content: Content { size, mtime_ns, mode, root: Root256(root), block_crcs } }
}
