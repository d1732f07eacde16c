//! The end that answers.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::LinkError;
use crate::limits;
use crate::proto::duplex::{Counters, Data, LinkConfig, Peer, Piece};
use crate::transfer::{Availability, Flow};
use crate::units::{ByteCount, Generation, ObjectId, ObjectName, Offset, Time};
use crate::wire::named::{self as wire, Request};

/// What is told of a name that is not offered.
const UNKNOWN: &str = "there is no such object";
/// ... and of an object whose file is not what it was.
const CHANGED: &str = "it changed or cannot be read; ask again";

/// What a client asked for.
#[derive(Debug)]
enum Asked {
    Listing,
    Object(ObjectName),
    /// What no object is called: the answer.
    Refused(Vec<u8>),
}

impl Asked {
    /// Memory that it takes, roughly.
    fn cost(&self) -> usize {
        let bytes = match self {
            Self::Listing => 0,
            Self::Object(name) => name.as_bytes().len(),
            Self::Refused(answer) => answer.len(),
        };
        limits::NAMED_REQUEST_COST + bytes
    }
}

/// The object whose bytes are going out.
#[derive(Debug, Clone, Copy)]
struct Sending {
    id: ObjectId,
    generation: Generation,
    size: ByteCount,
    offset: Offset,
}

/// The listing that is going out.
#[derive(Debug, Default)]
struct Telling {
    /// The place in the flow's table that comes next.
    next: u32,
    /// Bytes that went out.
    told: u64,
    /// What was begun and has not gone out.
    rest: Vec<u8>,
}

/// One connection of a client.
#[derive(Debug)]
pub struct Server {
    config: LinkConfig,
    opened: Time,
    peer: Option<Peer>,
    counters: Counters,
    /// Oldest first; the first is being answered.
    asked: VecDeque<Asked>,
    /// What they cost in all.
    asked_bytes: usize,
    sending: Option<Sending>,
    /// The last piece carried the tail of this, and the rim has not said yet that it could be read.
    tail: Option<Sending>,
    telling: Option<Telling>,
    /// The head of the packet that goes out next: an `E:`.
    end: Option<Vec<u8>>,
}

impl Server {
    /// A link that was connected at `now`.
    pub fn new(config: LinkConfig, now: Time) -> Self {
        Self {
            config,
            opened: now,
            peer: None,
            counters: Counters::default(),
            asked: VecDeque::new(),
            asked_bytes: 0,
            sending: None,
            tail: None,
            telling: None,
            end: None,
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Who is at the other end, once its first packet is here.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// What passed.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Requests that are not answered yet.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    /// Whole packets came in, in order: `train` is a multiple of N long. After an error the link must be closed.
    pub fn handle_packets(&mut self, train: &[u8]) -> Result<(), LinkError> {
        let packet_len = self.config.packet_len;
        for packet in train.chunks_exact(packet_len.bytes()) {
            let at = self.counters.packets_in * packet.len() as u64;
            let request = wire::parse_request(packet);
            let request = request.map_err(|source| LinkError::Malformed { at, packet_len, source })?;
            self.counters.packets_in += 1;
            if self.peer.is_none() {
                let name = self.config.configured_peer.as_ref().unwrap_or(&self.config.fallback_peer);
                self.peer = Some(Peer { name: name.clone(), hello: None });
            }
            self.push(request, packet, at)?;
        }
        Ok(())
    }

    fn push(&mut self, request: Request, packet: &[u8], at: u64) -> Result<(), LinkError> {
        let packet_len = self.config.packet_len;
        let refusal = |encoded: &[u8], reason: &str| {
            let mut answer = Vec::new();
            let fits = wire::encode_refusal(&mut answer, encoded, reason, packet_len);
            fits.then_some(answer).ok_or(LinkError::NoAnswerFits { at, bytes: encoded.len(), packet_len })
        };
        let asked = match request {
            Request::Listing => Asked::Listing,
            Request::NoObject { encoded, problem } => {
                Asked::Refused(refusal(&packet[encoded], &format!("no object has such a name ({problem})"))?)
            }
            // Such are not offered, for they do not fit the packets of other protocols either.
            Request::Object(name) if crate::wire::duplex::check_name_fits(&name, packet_len).is_err() => {
                Asked::Refused(refusal(&wire::encoded(&name), UNKNOWN)?)
            }
            Request::Object(name) => Asked::Object(name),
        };
        self.asked_bytes += asked.cost();
        if self.asked_bytes > limits::NAMED_REQUESTS_BYTES_MAX {
            return Err(LinkError::TooManyRequests { at });
        }
        self.asked.push_back(asked);
        Ok(())
    }

    /// What to send next, at most `room` packets (at least one). `None`: nothing is asked for.
    pub fn poll_transmit(&mut self, now: Time, room: usize, serve: &mut Flow) -> Option<Piece> {
        debug_assert!(self.tail.is_none(), "the rim says what became of a tail before it polls again");
        if let Some(head) = self.end.take() {
            return Some(self.piece(head, None));
        }
        let name = match self.asked.front()? {
            Asked::Refused(answer) => {
                let head = answer.clone();
                self.pop();
                return Some(self.piece(head, None));
            }
            Asked::Listing => return Some(self.tell(serve)),
            Asked::Object(name) => name.clone(),
        };
        let sending = match self.sending {
            Some(sending) => Ok(sending),
            None => match serve.demand(self.config.id, &name, now) {
                Some(id) => begin(id, serve, now),
                None => Err(None),
            },
        };
        let is_current = |s: &Sending| matches!(serve.availability(s.id, now), Availability::Ready { generation, .. } if generation == s.generation);
        let head = match sending {
            Ok(sending) if is_current(&sending) => return Some(self.cut(&name, sending, room.max(1))),
            // It was withdrawn: it is looked at again, and offered when it is stable.
            Ok(Sending { id, .. }) | Err(Some(id)) => self.refuse(&name, Some(id), CHANGED, now, serve),
            Err(None) => self.refuse(&name, None, UNKNOWN, now, serve),
        };
        Some(self.piece(head, None))
    }

    /// The tail of the last piece was read, and its source had not changed: the object has gone out whole.
    pub fn handle_tail_read(&mut self, now: Time, serve: &mut Flow) {
        let Some(sent) = self.tail.take() else { return };
        serve.release(self.config.id, sent.id, true, now);
        if let Some(Asked::Object(name)) = self.pop() {
            let mut head = Vec::new();
            wire::encode_end(&mut head, Some(&name), sent.size);
            self.end = Some(head);
        }
    }

    /// The last piece polled could not be made, since the bytes of its object cannot be had or have changed: none of it
    /// was or will be sent. The client is told that the object ends here.
    pub fn handle_source_failed(&mut self, piece: &Piece, reason: String, now: Time, serve: &mut Flow) {
        let Some(data) = piece.data else { return };
        self.counters.packets_out -= piece.packets(self.config.packet_len) as u64;
        self.counters.payload_out -= data.length as u64;
        self.tail = None;
        serve.handle_source_failed(data.id, data.generation, reason, now);
        if let Some(Asked::Object(name)) = self.asked.front() {
            let name = name.clone();
            self.end = Some(self.refuse(&name, Some(data.id), CHANGED, now, serve));
        }
    }

    /// When to call [`Server::handle_timeout`], whatever else happens.
    pub fn poll_timeout(&self, now: Time) -> Time {
        let first = self.opened + limits::FIRST_PACKET_WITHIN;
        if self.peer.is_none() { first.max(now) } else { now + limits::FIRST_PACKET_WITHIN }
    }

    /// Time has passed. An error ends the link.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), LinkError> {
        let is_late = self.peer.is_none() && now.since(self.opened) >= limits::FIRST_PACKET_WITHIN;
        if is_late { Err(LinkError::NoRequest(limits::FIRST_PACKET_WITHIN)) } else { Ok(()) }
    }

    /// The link is gone: nothing more is sent over it.
    pub fn close(&mut self, now: Time, serve: &mut Flow) {
        if let Some(sending) = self.sending.take().or(self.tail.take()) {
            serve.release(self.config.id, sending.id, false, now);
        }
        self.asked.clear();
        self.asked_bytes = 0;
    }

    // -- helpers -----------------------------------------------------------------------------------------------------

    fn pop(&mut self) -> Option<Asked> {
        let asked = self.asked.pop_front()?;
        self.asked_bytes -= asked.cost();
        Some(asked)
    }

    /// The oldest request is answered with "no": the head of that packet.
    fn refuse(
        &mut self,
        name: &ObjectName,
        id: Option<ObjectId>,
        reason: &str,
        now: Time,
        serve: &mut Flow,
    ) -> Vec<u8> {
        self.sending = None;
        if let Some(id) = id {
            serve.release(self.config.id, id, false, now);
        }
        self.pop();
        let mut head = Vec::new();
        let fits = wire::encode_refusal(&mut head, &wire::encoded(name), reason, self.config.packet_len);
        assert!(fits, "a name that leaves no room for an answer was refused when it came");
        head
    }

    /// The next bytes of an object: whole packets, or all of its tail.
    fn cut(&mut self, name: &ObjectName, mut sending: Sending, room: usize) -> Piece {
        let n = self.config.packet_len.bytes();
        let each = n - wire::head_len(Some(name));
        let left = sending.size.0 - sending.offset.0;
        // As many packets, so that a long name does not make it long on the wire.
        let tail_max = (limits::TAIL_BYTES_MAX / n).max(1) * each;
        let is_tail = left <= tail_max as u64;
        // At least one byte is left for the tail.
        let length = if is_tail { left as usize } else { (left - 1).min((room * each) as u64) as usize / each * each };
        let data =
            Data { id: sending.id, generation: sending.generation, offset: sending.offset, length, tail: is_tail };
        let (mut header, mut middle) = (Vec::new(), Vec::new());
        wire::encode_middle(&mut middle, Some(name));
        match sending.offset {
            Offset(0) => wire::encode_begin(&mut header, Some(name)),
            _ => header.clone_from(&middle),
        }
        sending.offset = sending.offset + ByteCount(length as u64);
        (self.sending, self.tail) = if is_tail { (None, Some(sending)) } else { (Some(sending), None) };
        let mut piece = self.piece(header, Some(data));
        piece.middle = Cow::Owned(middle);
        piece
    }

    /// The next packet of the listing.
    fn tell(&mut self, serve: &Flow) -> Piece {
        let mut telling = self.telling.take().unwrap_or_default();
        let room = self.config.packet_len.bytes() - wire::head_len(None);
        while telling.rest.len() < room && telling.next < serve.places() {
            let id = ObjectId(telling.next);
            telling.next += 1;
            if serve.is_object(id) && serve.mark(id).is_some() {
                wire::encode_line(&mut telling.rest, serve.name(id));
            }
        }
        let length = telling.rest.len().min(room);
        let mut header = Vec::new();
        match telling.told {
            0 => wire::encode_begin(&mut header, None),
            _ => wire::encode_middle(&mut header, None),
        }
        header.extend(telling.rest.drain(..length));
        telling.told += length as u64;
        if telling.rest.is_empty() && telling.next >= serve.places() {
            self.pop();
            let mut end = Vec::new();
            wire::encode_end(&mut end, None, ByteCount(telling.told));
            self.end = Some(end);
        } else {
            self.telling = Some(telling);
        }
        self.counters.payload_out += length as u64;
        self.piece(header, None)
    }

    fn piece(&mut self, header: Vec<u8>, data: Option<Data>) -> Piece {
        let piece = Piece { header, middle: Cow::Borrowed(&[]), data, hello: false };
        let n = self.config.packet_len.bytes();
        let length = data.map_or(0, |data| data.length);
        let packets = length.div_ceil(n - piece.header.len().min(n - 1)).max(1);
        self.counters.packets_out += packets as u64;
        self.counters.payload_out += length as u64;
        self.counters.padding_out += (packets * (n - piece.header.len())).saturating_sub(length) as u64;
        piece
    }
}

/// An object begins to go out; else it is not here now.
fn begin(id: ObjectId, serve: &Flow, now: Time) -> Result<Sending, Option<ObjectId>> {
    match serve.availability(id, now) {
        Availability::Ready { size, ready, generation } if ready == size => {
            Ok(Sending { id, generation, size, offset: Offset(0) })
        }
        _ => Err(Some(id)),
    }
}
