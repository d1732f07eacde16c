//! A peer that knows seed 000's text and nothing else: no hello, one request at a time, in lock-step. It sends one
//! packet, then receives one; it relays whole objects only, and serves none without `.success` beside it.
//!
//! Independent of the code under test on purpose: its own parser, its own state.

use std::collections::{BTreeMap, VecDeque};

use crate::disk::Bytes;

/// What the seed leaves open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    /// The request at the head of the queue is in every packet, not only in the first.
    pub(crate) repeats: bool,
    /// `R::` is in every packet without a request.
    pub(crate) says_no_request: bool,
    /// `P:` while a request cannot be served yet, not `N:`.
    pub(crate) says_pending: bool,
    /// `E:` when there is nothing to do.
    pub(crate) says_end: bool,
    /// An exchange takes only its own share of the names.
    pub(crate) keeps_to_share: bool,
    /// The traders' configuration says who it is.
    pub(crate) is_configured: bool,
}

/// Files with `.success`, by name.
pub(crate) type Shelf = BTreeMap<String, Bytes>;

/// One connection of such a peer.
#[derive(Debug)]
pub(crate) struct SeedEnd {
    habits: Habits,
    n: usize,
    /// The next packet is to be sent; else one is to be received.
    pub(crate) sends: bool,
    queue: VecDeque<String>,
    is_said: bool,
    incoming: Option<(usize, Vec<u8>)>,
    asked: Option<String>,
    serving: Option<(Bytes, usize)>,
    pub(crate) packets_in: u64,
    pub(crate) packets_out: u64,
}

impl SeedEnd {
    pub(crate) fn new(habits: Habits, n: usize, queue: VecDeque<String>) -> Self {
        Self {
            habits,
            n,
            sends: true,
            queue,
            is_said: false,
            incoming: None,
            asked: None,
            serving: None,
            packets_in: 0,
            packets_out: 0,
        }
    }

    /// An object is coming in.
    pub(crate) fn is_receiving(&self) -> bool {
        self.incoming.is_some()
    }

    /// The next packet.
    pub(crate) fn send(&mut self, offers: &Shelf, has: &Shelf) -> Vec<u8> {
        while self.incoming.is_none() && self.queue.front().is_some_and(|name| has.contains_key(name)) {
            self.queue.pop_front();
            self.is_said = false;
        }
        let mut packet = Vec::with_capacity(self.n);
        match self.queue.front() {
            Some(name) if self.habits.repeats || !self.is_said => {
                packet.extend_from_slice(format!("R:{name}:").as_bytes());
                self.is_said = true;
            }
            None if self.habits.says_no_request => packet.extend_from_slice(b"R::"),
            _ => {}
        }
        if let (None, Some(name)) = (&self.serving, &self.asked)
            && let Some(bytes) = offers.get(name)
        {
            packet.extend_from_slice(format!("B:{}:", bytes.len()).as_bytes());
            self.serving = Some((bytes.clone(), 0));
            self.asked = None;
        } else if self.serving.is_some() {
            packet.extend_from_slice(b"M:");
        } else if self.asked.is_some() && self.habits.says_pending {
            packet.extend_from_slice(b"P:");
        } else if self.asked.is_none() && self.queue.is_empty() && self.habits.says_end {
            packet.extend_from_slice(b"E:");
        } else {
            packet.extend_from_slice(b"N:");
        }
        if let Some((bytes, at)) = &mut self.serving {
            let end = bytes.len().min(*at + self.n - packet.len());
            packet.extend_from_slice(&bytes[*at..end]);
            *at = end;
            if end == bytes.len() {
                self.serving = None;
            }
        }
        assert!(packet.len() <= self.n);
        packet.resize(self.n, b'?');
        self.sends = false;
        self.packets_out += 1;
        packet
    }

    /// One packet came in; says whether an object is whole now.
    pub(crate) fn receive(&mut self, packet: &[u8], has: &mut Shelf) -> Option<String> {
        self.sends = true;
        self.packets_in += 1;
        let mut rest = packet;
        if let Some(request) = rest.strip_prefix(b"R:") {
            let end = request.iter().position(|&b| b == b':').expect("a request ends in a colon");
            let name = String::from_utf8(request[..end].to_vec()).expect("names of the tests are text");
            rest = &request[end + 1..];
            if !name.is_empty() {
                self.asked = Some(name);
                self.serving = None;
            }
        }
        let (head, payload) = rest.split_at(2);
        let payload = match head {
            b"B:" => {
                let end = payload.iter().position(|&b| b == b':').expect("a size ends in a colon");
                let size = std::str::from_utf8(&payload[..end]).expect("digits").parse().expect("a size");
                self.incoming = Some((size, Vec::with_capacity(size)));
                &payload[end + 1..]
            }
            b"M:" => payload,
            b"P:" => {
                self.incoming = None;
                return None;
            }
            b"N:" | b"E:" => return None,
            other => panic!("not a packet of the seed: {}", other.escape_ascii()),
        };
        let (size, bytes) = self.incoming.as_mut().expect("data belongs to an object");
        bytes.extend_from_slice(&payload[..payload.len().min(*size - bytes.len())]);
        if bytes.len() < *size {
            return None;
        }
        let (_, bytes) = self.incoming.take().expect("just seen");
        let name = self.queue.front().expect("data answers a request").clone();
        has.insert(name.clone(), Bytes::new(bytes));
        Some(name)
    }
}
