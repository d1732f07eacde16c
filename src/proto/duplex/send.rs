//! The sending half of a [`Link`]: what goes out next, described and not copied.

use super::{Data, Link, Piece, Sending};
use crate::limits;
use crate::transfer::{Availability, Flow, Kind};
use crate::units::{ByteCount, ObjectId, Offset, Time};
use crate::wire::duplex::{Head, Header, MIDDLE, Request, begin_header_len, check_name_fits, request_len};

/// What the request being served can give now.
enum Answer {
    /// These bytes, with a `B:` in front if they are the object's first.
    Data(Data, Head),
    /// It is not here.
    Pending,
    /// Nothing yet, or nothing is asked for.
    Nothing,
}

impl Link {
    /// What to send next, at most `room` packets (at least one). `None`: nothing now.
    pub fn poll_transmit(&mut self, now: Time, room: usize, fetch: &mut Flow, serve: &mut Flow) -> Option<Piece> {
        debug_assert!(self.tail.is_none(), "the rim says what became of a tail before it polls again");
        if !self.greeted {
            self.greeted = true;
            return Some(self.piece(None, Head::Nil, None, true, now));
        }
        self.peer.as_ref()?;
        if !self.free {
            fetch.share_unanswered(self.config.id, now);
        }
        let request = self.next_request(now, fetch);
        let mut request = request.map(|id| fetch.name(id).clone());
        // A name that another peer has told of, which is longer than packets of this length have room for.
        let most = self.config.packet_len.bytes() - MIDDLE.len();
        if request.as_ref().is_some_and(|name| request_len(Some(name)) > most) {
            fetch.handle_unaskable(self.config.id, now);
            request = None;
        }
        let request_bytes = request.as_ref().map_or(0, |name| request_len(Some(name)));
        let rides = request.as_ref().is_none_or(|name| check_name_fits(name, self.config.packet_len).is_ok());
        let request = request.map(Request::Object);
        let answer = if rides { self.answer(request_bytes, room.max(1), now, serve) } else { Answer::Nothing };
        match answer {
            Answer::Data(data, head) => Some(self.piece(request.as_ref(), head, Some(data), false, now)),
            Answer::Pending => Some(self.piece(request.as_ref(), Head::Pending, None, false, now)),
            Answer::Nothing if request.is_some() || self.is_keepalive_due(now) || self.is_debt_due(now) => {
                self.ended = request.is_none() && (self.ended || self.is_end_due(fetch));
                let head = if self.ended { Head::End } else { Head::Nil };
                Some(self.piece(request.as_ref(), head, None, false, now))
            }
            Answer::Nothing => None,
        }
    }

    /// The tail of the last piece was read, and its source had not changed: the object has gone out whole.
    pub fn handle_tail_read(&mut self, now: Time, serve: &mut Flow) {
        let Some(sent) = self.tail.take() else { return };
        // A seed-only peer may have replaced its request since the tail was polled.
        if self.asked.front().is_none_or(|asked| asked.id != Some(sent.id)) {
            return;
        }
        if let Some(asked) = self.asked.pop_front() {
            serve.release(self.config.id, sent.id, true, now);
            self.answered = Some((asked.name, self.counters.packets_out));
        }
    }

    /// The last piece polled could not be made, since the bytes of its object cannot be had or have changed: none of it
    /// was or will be sent. The object is told to be pending, and sent from its start when it is offered again.
    pub fn handle_source_failed(&mut self, piece: &Piece, reason: String, now: Time, fetch: &Flow, serve: &mut Flow) {
        let Some(data) = piece.data else { return };
        let packets = piece.packets(self.config.packet_len) as u64;
        self.counters.packets_out -= packets;
        self.counters.payload_out -= data.length as u64;
        self.tail = None;
        self.sending = None;
        if self.owed() > 0 {
            self.pay_at = Some(now);
        }
        // A request that rode in front goes with the next packet.
        if piece.header.starts_with(b"R:") {
            self.unsent_request = fetch.last_on_order(self.config.id);
        }
        serve.handle_source_failed(data.id, data.generation, reason, now);
    }

    fn next_request(&mut self, now: Time, fetch: &mut Flow) -> Option<ObjectId> {
        self.unsent_request.take().or_else(|| fetch.next_request(self.config.id, !self.free, now))
    }

    fn answer(&mut self, request_bytes: usize, room: usize, now: Time, serve: &mut Flow) -> Answer {
        let link = self.config.id;
        let Some(asked) = self.asked.front_mut() else { return Answer::Nothing };
        if asked.id.is_none() || !self.free {
            // A seed-only peer says its request once and waits: the object may have come since, or may be tried again.
            asked.id = serve.demand(link, &asked.name, now);
        }
        let Some(id) = asked.id else { return self.say_pending(now, serve) };
        match serve.availability(id, now) {
            Availability::Pending => self.say_pending(now, serve),
            Availability::Awaited => Answer::Nothing,
            Availability::Ready { size, ready, generation } => {
                let fresh = Sending { id, generation, size, offset: Offset(0) };
                let sending = self.sending.filter(|s| s.id == id && s.generation == generation).unwrap_or(fresh);
                match self.cut(sending, ready, request_bytes, room) {
                    Some((data, head)) => Answer::Data(data, head),
                    None => Answer::Nothing,
                }
            }
        }
    }

    /// "Not here" answers the oldest request of one of our own for good, and is said to a seed-only peer as often as a
    /// packet is owed, and again from time to time: it may ask once and then wait for what comes.
    fn say_pending(&mut self, now: Time, serve: &mut Flow) -> Answer {
        self.sending = None;
        if self.free {
            if let Some(asked) = self.asked.pop_front()
                && let Some(id) = asked.id
            {
                serve.release(self.config.id, id, false, now);
            }
            return Answer::Pending;
        }
        let is_silent = now.since(self.last_out) >= limits::RETRY_PENDING_MAX;
        if is_silent || self.is_debt_due(now) { Answer::Pending } else { Answer::Nothing }
    }

    /// The next bytes of `sending`: whole packets of what is ready, or all of its tail once that is.
    fn cut(
        &mut self,
        mut sending: Sending,
        ready: ByteCount,
        request_bytes: usize,
        room: usize,
    ) -> Option<(Data, Head)> {
        let n = self.config.packet_len.bytes();
        let begins = sending.offset == Offset(0);
        let head = if begins { Head::Begin { size: sending.size } } else { Head::Middle };
        let head_len = if begins { begin_header_len(sending.size) } else { MIDDLE.len() };
        let (first, each) = (n - request_bytes - head_len, n - MIDDLE.len());
        let left = sending.size.0 - sending.offset.0;
        // One that fits this packet, however long packets are, so that no train has to take two of a megabyte.
        let tail_max = limits::TAIL_BYTES_MAX.max(first) as u64;
        let data = |length, tail| Data {
            id: sending.id,
            generation: sending.generation,
            offset: sending.offset,
            length,
            tail,
        };
        if left <= tail_max {
            if ready < sending.size {
                return None;
            }
            let data = data(left as usize, true);
            self.sending = None;
            self.tail = Some(sending);
            return Some((data, head));
        }
        // Whole packets only, and at least one byte is left for the tail.
        let here = (ready.0.min(sending.size.0 - 1) - sending.offset.0).min((room * n) as u64) as usize;
        if here < first {
            return None;
        }
        let length = first + (here - first) / each * each;
        let length =
            if length > first && (length - first) / each + 1 > room { first + (room - 1) * each } else { length };
        let data = data(length, false);
        sending.offset = sending.offset + ByteCount(length as u64);
        self.sending = Some(sending);
        Some((data, head))
    }

    fn piece(&mut self, request: Option<&Request>, head: Head, data: Option<Data>, hello: bool, now: Time) -> Piece {
        let mut header = Header::new();
        header.set(request, head);
        let piece = Piece { header: header.as_bytes().to_vec(), middle: MIDDLE.into(), data, hello };
        let packets = piece.packets(self.config.packet_len);
        let length = data.map_or(0, |data| data.length);
        self.counters.packets_out += packets as u64;
        self.counters.payload_out += length as u64;
        let headers = piece.header.len() + (packets - 1) * MIDDLE.len();
        self.counters.padding_out += (packets * self.config.packet_len.bytes() - headers - length) as u64;
        self.last_out = now;
        if self.owed() == 0 {
            self.pay_at = None;
        }
        piece
    }

    fn is_debt_due(&self, now: Time) -> bool {
        self.owed() > 0 && self.pay_at.is_some_and(|at| at <= now)
    }

    fn is_keepalive_due(&self, now: Time) -> bool {
        self.free && now.since(self.last_out) >= limits::KEEPALIVE_EVERY
    }

    /// A seed-only peer is told that we are done when nothing is left to request, and nothing was asked for for a
    /// while.
    fn is_end_due(&self, fetch: &Flow) -> bool {
        let quiet = self.peer_ended || self.idle_turns >= limits::IDLE_TURNS_BEFORE_END;
        let is_idle = self.asked.is_empty() && fetch.head(self.config.id).is_none();
        // What a relay is asked for next is not its to know: it is never done.
        !self.free && quiet && is_idle && fetch.kind() == Kind::Fetch && fetch.is_complete()
    }
}
