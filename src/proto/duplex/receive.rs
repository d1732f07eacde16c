//! The receiving half of a [`Link`]: packets in, calls of the flows and writes out.

use super::{Asked, FEATURES, Incoming, Link, LinkError, Write};
use crate::limits;
use crate::transfer::Flow;
use crate::units::{ByteCount, ObjectName, Offset, Time};
use crate::wire::duplex::{self, Inner, Request};
use crate::wire::hello::Hello;

impl Link {
    /// Whole packets came in, in order: `train` is a multiple of N long. What is to be written is appended to `writes`,
    /// as ranges of the train. After an error the link must be closed; writes appended before it are good.
    pub fn handle_packets(
        &mut self,
        train: &[u8],
        now: Time,
        fetch: &mut Flow,
        serve: &mut Flow,
        writes: &mut Vec<Write>,
    ) -> Result<(), LinkError> {
        let n = self.config.packet_len.bytes();
        debug_assert_eq!(train.len() % n, 0);
        self.last_in = now;
        let mut at = 0;
        while at < train.len() {
            at += match self.take_middles(&train[at..], at, now, fetch, writes) {
                0 => {
                    self.take_packet(&train[at..at + n], at, now, fetch, serve, writes)?;
                    n
                }
                packets => packets * n,
            };
        }
        Ok(())
    }

    /// The bulk: a run of plain `M:` packets of the object that is coming in, up to but without its last packet.
    fn take_middles(&mut self, rest: &[u8], at: usize, now: Time, fetch: &mut Flow, writes: &mut Vec<Write>) -> usize {
        let Some(incoming) = &mut self.incoming else { return 0 };
        let n = self.config.packet_len;
        let each = n.bytes() - duplex::MIDDLE.len();
        let whole = (incoming.size - incoming.received).0 / each as u64;
        let most = rest.len().min(usize::try_from(whole).unwrap_or(usize::MAX).saturating_mul(n.bytes()));
        // The last packet goes the long way, for what follows from it.
        let packets = duplex::plain_middles(&rest[..most], n).min((whole as usize).saturating_sub(1));
        if packets == 0 {
            return 0;
        }
        let length = packets * each;
        let offset = Offset(incoming.received.0);
        incoming.received += ByteCount(length as u64);
        self.counters.packets_in += packets as u64;
        self.counters.payload_in += length as u64;
        self.owe(true, now);
        let Some(incoming) = &self.incoming else { return 0 };
        match incoming.kept {
            Some((id, generation)) => {
                let at = at + duplex::MIDDLE.len();
                writes.push(Write { id, generation, offset, at, stride: n.bytes(), each, length });
                fetch.handle_payload(self.config.id, ByteCount(length as u64), now);
            }
            None => self.counters.discarded += length as u64,
        }
        packets
    }

    fn take_packet(
        &mut self,
        bytes: &[u8],
        at: usize,
        now: Time,
        fetch: &mut Flow,
        serve: &mut Flow,
        writes: &mut Vec<Write>,
    ) -> Result<(), LinkError> {
        let stream_at = self.counters.packets_in * bytes.len() as u64;
        let packet = duplex::parse(bytes).map_err(|source| LinkError::Malformed {
            at: stream_at,
            packet_len: self.config.packet_len,
            source,
        })?;
        if self.peer.is_none() {
            self.meet(if packet.inner == Inner::Nil { Hello::find(bytes)? } else { None }, fetch)?;
        }
        self.counters.packets_in += 1;
        let out_of_place = |found, expected| Err(LinkError::OutOfPlace { at: stream_at, found, expected });
        let asks = matches!(&packet.request, Some(Request::Object(name)) if !self.is_said_again(name));
        let is_busy = asks || matches!(packet.inner, Inner::Begin { .. } | Inner::Middle { .. });
        if is_busy {
            self.peer_ended = false;
        }
        self.owe(is_busy, now);
        if let Some(request) = packet.request
            && !self.take_request(request, now, serve)
        {
            return out_of_place("one request more", "at most 256 outstanding requests");
        }
        match packet.inner {
            Inner::Begin { size, payload } => {
                if fetch.head(self.config.id).is_none() {
                    return out_of_place("\"B:\"", "no data, for nothing is on order");
                }
                self.drop_incoming();
                let kept = fetch.handle_begin(self.config.id, size, now).ok();
                self.incoming = Some(Incoming { kept, size, received: ByteCount(0) });
                self.take_payload(at + payload.start, payload.len(), bytes.len(), now, fetch, writes);
            }
            Inner::Middle { payload } => {
                if self.incoming.is_none() {
                    return out_of_place("\"M:\"", "\"B:\" first");
                }
                self.take_payload(at + payload.start, payload.len(), bytes.len(), now, fetch, writes);
            }
            Inner::Pending if self.free => {
                if fetch.head(self.config.id).is_none() {
                    return out_of_place("\"P:\"", "nothing, for nothing is on order");
                }
                self.drop_incoming();
                fetch.handle_pending(self.config.id, now);
            }
            // A seed-only peer says so until it has bytes; its answer is still to come.
            Inner::Pending => self.drop_incoming(),
            Inner::Nil => {}
            Inner::End => self.peer_ended = true,
            Inner::Switch => return out_of_place("\"X:\"", "the grammar of the seed, for no other was agreed"),
        }
        Ok(())
    }

    /// The peer's first packet says who it is and how both will run.
    fn meet(&mut self, hello: Option<Hello>, fetch: &mut Flow) -> Result<(), LinkError> {
        let peer = self.config.meet(hello)?;
        let features = peer.hello.as_ref().map(|hello| hello.features.and(self.config.hello.features));
        self.free = features.is_some_and(|features| features.contains(FEATURES));
        fetch.attach_fetcher(self.config.id, peer.name.clone());
        self.peer = Some(peer);
        Ok(())
    }

    /// Payload of the incoming object; what is behind its end is padding.
    fn take_payload(
        &mut self,
        at: usize,
        available: usize,
        stride: usize,
        now: Time,
        fetch: &mut Flow,
        writes: &mut Vec<Write>,
    ) {
        let Some(incoming) = &mut self.incoming else { return };
        let left = (incoming.size - incoming.received).0;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(available);
        let offset = Offset(incoming.received.0);
        incoming.received += ByteCount(length as u64);
        let is_whole = incoming.received == incoming.size;
        self.counters.payload_in += length as u64;
        match incoming.kept {
            Some((id, generation)) => {
                if length > 0 {
                    writes.push(Write { id, generation, offset, at, stride, each: length, length });
                }
                fetch.handle_payload(self.config.id, ByteCount(length as u64), now);
            }
            None => self.counters.discarded += length as u64,
        }
        if is_whole {
            self.incoming = None;
            fetch.handle_received(self.config.id, now);
        }
    }

    fn drop_incoming(&mut self) {
        if let Some(incoming) = self.incoming.take()
            && incoming.kept.is_some()
        {
            self.counters.discarded += incoming.received.0;
        }
    }

    /// `false`: the peer has more requests outstanding than it may.
    fn take_request(&mut self, request: Request, now: Time, serve: &mut Flow) -> bool {
        match request {
            // It rides where a peer has no request to make at present, which need not mean that it gave up the last
            // one.
            Request::Nothing => {}
            Request::Object(name) if !self.free && self.is_said_again(&name) => {}
            Request::Object(name) => {
                self.ended = false;
                if !self.free {
                    self.sending = None;
                    self.drop_asked(serve, now);
                } else if self.asked.len() >= limits::REQUESTS_PER_LINK_MAX {
                    return false;
                }
                let id = serve.demand(self.config.id, &name, now);
                self.asked.push_back(Asked { name, id });
            }
        }
        true
    }

    /// A seed-only peer may say its request in every packet until the object is there: that is one request. In
    /// lock-step it has sent a packet before it received ours of the same number, so what it says up to the number of
    /// the object's last packet it says without having had that one.
    fn is_said_again(&self, name: &ObjectName) -> bool {
        let is_asked = self.asked.front().is_some_and(|asked| asked.name == *name);
        let is_answered = |(answered, last): &(ObjectName, u64)| answered == name && self.counters.packets_in <= *last;
        is_asked || self.asked.is_empty() && self.answered.as_ref().is_some_and(is_answered)
    }

    /// Packets came from a peer that may be waiting for as many in all.
    fn owe(&mut self, is_busy: bool, now: Time) {
        if self.owed() == 0 {
            return;
        }
        if is_busy {
            self.idle_turns = 0;
            self.pay_at = Some(now);
        } else {
            let wait = limits::IDLE_TURN_MIN * 2_u32.pow(self.idle_turns.min(10));
            self.idle_turns = self.idle_turns.saturating_add(1);
            self.pay_at.get_or_insert(now + wait.min(limits::IDLE_TURN_MAX));
        }
    }
}
