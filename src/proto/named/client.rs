//! The end that asks for objects.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{LinkError, is_length_of};
use crate::limits;
use crate::proto::duplex::{Counters, LinkConfig, Peer, Piece, Write};
use crate::transfer::{Flow, Problem, Told};
use crate::units::{ByteCount, Generation, ObjectId, ObjectName, Offset, Time};
use crate::wire::named::{self as wire, End, Packet};

/// What is told of an object that a server of the seed alone ends without having begun it.
const NEVER_BEGUN: &str = "the server ended it without having begun it";

/// An object on order.
#[derive(Debug)]
struct Order {
    id: ObjectId,
    /// It has begun.
    begun: bool,
    /// The attempt that its bytes belong to; `None`: they are counted and dropped.
    kept: Option<Generation>,
    /// Bytes that came, padding included.
    received: ByteCount,
    /// Bytes that the last packet of it held.
    each: usize,
}

/// One connection to a server.
#[derive(Debug)]
pub struct Client {
    config: LinkConfig,
    peer: Peer,
    /// The flow knows that it fetches.
    attached: bool,
    counters: Counters,
    last_in: Time,
    orders: BTreeMap<ObjectName, Order>,
    /// The object whose bytes came last, and what its middle packets start with.
    current: Option<(ObjectName, Vec<u8>)>,
}

impl Client {
    /// A link that was connected at `now`.
    pub fn new(config: LinkConfig, now: Time) -> Self {
        let name = config.configured_peer.clone().unwrap_or_else(|| config.fallback_peer.clone());
        Self {
            config,
            peer: Peer { name, hello: None },
            attached: false,
            counters: Counters::default(),
            last_in: now,
            orders: BTreeMap::new(),
            current: None,
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Who was dialed.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What passed.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What to send next: a request. `None`: nothing now.
    pub fn poll_transmit(&mut self, now: Time, fetch: &mut Flow) -> Option<Piece> {
        if !self.attached {
            self.attached = true;
            fetch.attach_fetcher(self.config.id, self.peer.name.clone());
        }
        let id = fetch.next_request(self.config.id, false, now)?;
        let name = fetch.name(id).clone();
        let mut header = Vec::new();
        wire::encode_request(&mut header, Some(&name));
        if self.orders.is_empty() {
            // It was not asked for anything: its silence begins now.
            self.last_in = now;
        }
        self.orders.insert(name, Order { id, begun: false, kept: None, received: ByteCount(0), each: 0 });
        self.counters.packets_out += 1;
        self.counters.padding_out += (self.config.packet_len.bytes().saturating_sub(header.len())) as u64;
        Some(Piece { header, middle: Cow::Borrowed(&[]), data: None, hello: false })
    }

    /// Whole packets came in, in order: `train` is a multiple of N long. What is to be written is appended to `writes`,
    /// as ranges of the train. After an error the link must be closed; writes appended before it are good.
    pub fn handle_packets(
        &mut self,
        train: &[u8],
        now: Time,
        fetch: &mut Flow,
        writes: &mut Vec<Write>,
    ) -> Result<(), LinkError> {
        self.last_in = now;
        let n = self.config.packet_len.bytes();
        let mut at = 0;
        while at < train.len() {
            at += match self.take_run(&train[at..], at, now, fetch, writes) {
                0 => {
                    self.take_packet(&train[at..at + n], at, now, fetch, writes)?;
                    n
                }
                packets => packets * n,
            };
        }
        Ok(())
    }

    /// When to call [`Client::handle_timeout`] and to poll again, whatever else happens.
    pub fn poll_timeout(&self, fetch: &Flow, now: Time) -> Time {
        let at = fetch.poll_timeout(self.config.id, now).unwrap_or(now + limits::NAMED_SILENCE_MAX);
        let silent = self.last_in + limits::NAMED_SILENCE_MAX;
        if self.orders.is_empty() { at.max(now) } else { at.min(silent).max(now) }
    }

    /// Time has passed. An error ends the link.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), LinkError> {
        let silence = now.since(self.last_in);
        let is_lost = !self.orders.is_empty() && silence >= limits::NAMED_SILENCE_MAX;
        if is_lost { Err(LinkError::Silent(silence)) } else { Ok(()) }
    }

    /// Bytes came in, be they a whole packet or not; or the rim is not reading at present, for want of a buffer: the
    /// silence is not the server's.
    pub fn handle_life(&mut self, now: Time) {
        self.last_in = now;
    }

    /// The link is gone. What was here of its objects is thrown away, and they are fetched again from their start (seed
    /// 001, "Extreme conditions").
    pub fn close(&mut self, fetch: &mut Flow) {
        fetch.detach_fetcher(self.config.id);
        let orders = std::mem::take(&mut self.orders).into_values();
        self.counters.discarded += orders.map(|order| order.received.0).sum::<u64>();
        self.current = None;
    }

    // -- helpers -----------------------------------------------------------------------------------------------------

    /// The bulk: a run of middle packets of one object.
    fn take_run(&mut self, rest: &[u8], at: usize, now: Time, fetch: &mut Flow, writes: &mut Vec<Write>) -> usize {
        let Some((name, header)) = &self.current else { return 0 };
        let packets = wire::run_of(rest, header, self.config.packet_len);
        let Some(order) = self.orders.get_mut(name).filter(|order| packets > 0 && order.begun) else { return 0 };
        let stride = self.config.packet_len.bytes();
        let each = stride - header.len();
        let length = packets * each;
        self.counters.packets_in += packets as u64;
        self.counters.payload_in += length as u64;
        let offset = Offset(order.received.0);
        order.received += ByteCount(length as u64);
        match order.kept {
            Some(generation) if each > 0 => {
                writes.push(Write { id: order.id, generation, offset, at: at + header.len(), stride, each, length });
            }
            _ => self.counters.discarded += length as u64,
        }
        fetch.handle_payload(self.config.id, ByteCount(length as u64), now);
        packets
    }

    fn take_packet(
        &mut self,
        bytes: &[u8],
        at: usize,
        now: Time,
        fetch: &mut Flow,
        writes: &mut Vec<Write>,
    ) -> Result<(), LinkError> {
        let (link, packet_len) = (self.config.id, self.config.packet_len);
        let stream_at = self.counters.packets_in * bytes.len() as u64;
        let packet = wire::parse(bytes);
        let packet = packet.map_err(|source| LinkError::Malformed { at: stream_at, packet_len, source })?;
        let out_of_place = |found, name, expected| Err(LinkError::OutOfPlace { at: stream_at, found, name, expected });
        const ORDERED: &str = "an object that was asked for";
        match packet {
            Packet::Begin { name, payload } => {
                let Some(order) = name.as_ref().and_then(|name| self.orders.get_mut(name)) else {
                    return out_of_place("\"B:\"", name, ORDERED);
                };
                self.counters.discarded += order.received.0;
                (order.begun, order.received) = (true, ByteCount(0));
                order.kept = fetch.handle_begin_unsized(link, order.id).ok();
                self.take_first(name, &bytes[..payload.start], at, bytes.len(), now, fetch, writes);
            }
            Packet::Middle { name, payload } => {
                if name.as_ref().and_then(|name| self.orders.get(name)).is_none_or(|order| !order.begun) {
                    return out_of_place("\"M:\"", name, "\"B:\" first, of an object that was asked for");
                }
                self.take_first(name, &bytes[..payload.start], at, bytes.len(), now, fetch, writes);
            }
            Packet::End { name, end } => {
                let Some(order) = name.as_ref().and_then(|name| self.orders.get(name)) else {
                    return out_of_place("\"E:\"", name, ORDERED);
                };
                let Order { begun, received, each, .. } = *order;
                let size = match end {
                    End::Whole(size) if begun && is_length_of(size, received, each) => size,
                    End::Whole(ByteCount(0)) if !begun => ByteCount(0),
                    End::Whole(told) => {
                        return Err(LinkError::WrongSize { at: stream_at, name, told, received });
                    }
                    End::Untold if begun => received,
                    End::Untold => {
                        self.end_refused(name, NEVER_BEGUN.into(), now, fetch);
                        return Ok(());
                    }
                    End::Refused(reason) => {
                        self.end_refused(name, reason, now, fetch);
                        return Ok(());
                    }
                };
                self.end_whole(name, size, now, fetch);
            }
        }
        Ok(())
    }

    /// The payload of one packet whose header was parsed; those that follow it may be a run.
    #[expect(clippy::too_many_arguments, reason = "where the packet stands, and what becomes of it")]
    fn take_first(
        &mut self,
        name: Option<ObjectName>,
        header: &[u8],
        at: usize,
        stride: usize,
        now: Time,
        fetch: &mut Flow,
        writes: &mut Vec<Write>,
    ) {
        self.counters.packets_in += 1;
        let Some(order) = name.as_ref().and_then(|name| self.orders.get_mut(name)) else { return };
        let length = stride - header.len();
        self.counters.payload_in += length as u64;
        let offset = Offset(order.received.0);
        order.received += ByteCount(length as u64);
        order.each = length;
        match order.kept {
            Some(generation) if length > 0 => {
                let (id, at) = (order.id, at + header.len());
                writes.push(Write { id, generation, offset, at, stride, each: length, length });
            }
            _ => self.counters.discarded += length as u64,
        }
        fetch.handle_payload(self.config.id, ByteCount(length as u64), now);
        // A peer may encode names as it likes: what it does once it does again.
        let mut middle = header.to_vec();
        middle[0] = b'M';
        self.current = name.map(|name| (name, middle));
    }

    fn end_whole(&mut self, name: Option<ObjectName>, size: ByteCount, now: Time, fetch: &mut Flow) {
        let Some(order) = self.end_order(name) else { return };
        let kept = match order.begun {
            true => order.kept,
            // An empty object of which nothing but its end was sent.
            false => fetch.handle_begin_unsized(self.config.id, order.id).ok(),
        };
        let told = Told { size, received: order.received };
        fetch.handle_told(self.config.id, order.id, kept, told, now);
    }

    fn end_refused(&mut self, name: Option<ObjectName>, reason: String, now: Time, fetch: &mut Flow) {
        let Some(order) = self.end_order(name) else { return };
        self.counters.discarded += order.received.0;
        let problem = if order.begun { Problem::BrokenOff(reason) } else { Problem::Refused(reason) };
        fetch.handle_refused(self.config.id, order.id, problem, now);
    }

    fn end_order(&mut self, name: Option<ObjectName>) -> Option<Order> {
        self.counters.packets_in += 1;
        let name = name?;
        self.current = self.current.take().filter(|(current, _)| *current != name);
        self.orders.remove(&name)
    }
}
