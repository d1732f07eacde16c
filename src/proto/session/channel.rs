//! The connections of a session, and the control messages that go over one of them.
//!
//! Control messages of one direction are numbered from 0 over the whole session, by their order; no number is on the
//! wire. Each end keeps what it sent until the other is known to have it. A damaged one is asked for by its number
//! (RETRANSMIT) and comes wrapped (RESENT); what came after it waits, but for RETRANSMIT itself, so that two ends never
//! wait for each other. They all go over the *carrier*: the first
//! connection, until it ends. Then the client names another one (CONTROL, with the number that it expects next), the
//! server answers with its own, and both go on from there, so that neither loses or sees anything twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::SessionError;
use crate::limits;
use crate::units::{LinkId, Time};
use crate::wire::session::{Again, Message, MessageKind, MessageNumber, encode};

/// Which end of the session this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It opened the connections.
    Client,
    /// It was asked.
    Server,
}

/// What becomes of a control message that came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accept {
    /// It is the next one.
    Now,
    /// One before it is missing: it waits.
    Held,
}

#[derive(Debug)]
struct Connection {
    heard: Time,
    /// Bytes of a message that is not whole, which were there then.
    begun: usize,
    sent: Time,
    /// This connection is to be the carrier, or is agreed on, and the peer is not told yet.
    carries: bool,
    /// Control messages that go out again.
    again: BTreeSet<u32>,
    damaged_in_a_row: u32,
}

/// Appends a message of this end.
pub(super) fn put(message: &Message<'_>, out: &mut Vec<u8>) {
    encode(message, out).expect("paths, texts and lists of this end are cut to what a message holds");
}

/// Bytes of a RESENT in front of the message in it.
const RESENT_HEAD_BYTES: usize = 11;

/// See the module.
#[derive(Debug)]
pub(super) struct Channel {
    side: Side,
    connections: BTreeMap<LinkId, Connection>,
    carrier: Option<LinkId>,
    /// Both ends know the carrier.
    is_settled: bool,
    /// Control messages from number `base` on.
    log: VecDeque<Box<[u8]>>,
    base: u32,
    /// The next one that goes over the carrier.
    next: u32,
    /// The next one that is delivered.
    expected: u32,
    /// The number of the one that comes next over the carrier.
    arriving: u32,
    held: BTreeMap<u32, Box<[u8]>>,
    held_bytes: usize,
    /// Damaged ones that were asked for.
    asked: BTreeMap<u32, MessageKind>,
    /// Some of these came damaged a second time.
    asks_again: bool,
    /// How often anything was asked for again since the peer was last known to have all that it was sent.
    asks: usize,
    /// Since when both ends have not agreed on a carrier, as far as somebody looked.
    unsettled: Option<Time>,
    /// There is something to send that was not there before.
    wakes: bool,
}

impl Channel {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            connections: BTreeMap::new(),
            carrier: None,
            is_settled: true,
            log: VecDeque::new(),
            base: 0,
            next: 0,
            expected: 0,
            arriving: 0,
            held: BTreeMap::new(),
            held_bytes: 0,
            asked: BTreeMap::new(),
            asks_again: false,
            asks: 0,
            unsettled: None,
            wakes: false,
        }
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = LinkId> {
        self.connections.keys().copied()
    }

    pub(super) fn has(&self, link: LinkId) -> bool {
        self.connections.contains_key(&link)
    }

    /// The first one carries the control messages.
    pub(super) fn add(&mut self, link: LinkId, now: Time) {
        if self.connections.is_empty() && self.next == 0 && self.arriving == 0 {
            self.carrier = Some(link);
        }
        let connection =
            Connection { heard: now, begun: 0, sent: now, carries: false, again: BTreeSet::new(), damaged_in_a_row: 0 };
        self.connections.insert(link, connection);
    }

    pub(super) fn remove(&mut self, link: LinkId) {
        self.connections.remove(&link);
        if self.carrier != Some(link) {
            return;
        }
        self.carrier = None;
        self.is_settled = false;
        let Some(&other) = self.connections.keys().next().filter(|_| self.side == Side::Client) else { return };
        self.carry_on(other);
    }

    /// Has control messages go over `link`, and says which one is expected next.
    fn carry_on(&mut self, link: LinkId) {
        self.carrier = Some(link);
        self.arriving = self.expected;
        self.held.clear();
        self.held_bytes = 0;
        self.asked.clear();
        if let Some(connection) = self.connections.get_mut(&link) {
            connection.carries = true;
            self.wakes = true;
        }
    }

    /// The peer names the carrier, or agrees to it.
    pub(super) fn handle_control(&mut self, link: LinkId, next: MessageNumber) -> Result<(), SessionError> {
        let end = self.base + self.log.len() as u32;
        if next.0 < self.base {
            // It was said before what another connection said.
            return Err(SessionError::NotCarrier);
        }
        if next.0 > end {
            return Err(SessionError::OutOfPlace { what: "CONTROL", why: "it asks for messages that are not there" });
        }
        match self.side {
            Side::Client if self.carrier != Some(link) || self.is_settled => return Ok(()),
            Side::Client => {}
            Side::Server => self.carry_on(link),
        }
        self.next = next.0;
        self.is_settled = true;
        self.wakes = true;
        Ok(())
    }

    // -- in ----------------------------------------------------------------------------------------------------------

    /// Something could have come over a connection, but for us.
    pub(super) fn hear(&mut self, link: LinkId, now: Time) {
        if let Some(connection) = self.connections.get_mut(&link) {
            connection.heard = now;
        }
    }

    /// Something came: messages that are whole, and `begun` bytes of one that is not. Behind a damaged length that one
    /// would take what says that the peer is there for its own bytes, and wait for them for ever.
    pub(super) fn handle_progress(&mut self, link: LinkId, now: Time, is_whole: bool, begun: usize) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        if is_whole || begun >= connection.begun + limits::SESSION_TRICKLE_BYTES {
            (connection.heard, connection.begun) = (now, begun);
        }
    }

    /// A message came whole.
    pub(super) fn handle_whole(&mut self, link: LinkId) {
        if let Some(connection) = self.connections.get_mut(&link) {
            connection.damaged_in_a_row = 0;
        }
    }

    /// A control message came, `raw` as it is.
    pub(super) fn accept(&mut self, link: LinkId, raw: &[u8]) -> Result<Accept, SessionError> {
        self.is_carrier(link)?;
        let number = self.arriving;
        self.arriving += 1;
        if number == self.expected {
            self.expected += 1;
            return Ok(Accept::Now);
        }
        self.hold(number, raw)?;
        Ok(Accept::Held)
    }

    fn is_carrier(&self, link: LinkId) -> Result<(), SessionError> {
        if self.carrier == Some(link) {
            return Ok(());
        }
        // It did, and the peer goes on over another, where this message comes again; or it does not want this
        // connection.
        Err(SessionError::NotCarrier)
    }

    fn hold(&mut self, number: u32, raw: &[u8]) -> Result<(), SessionError> {
        self.held_bytes += raw.len();
        if self.held_bytes > limits::HELD_BYTES_MAX {
            return Err(SessionError::TooMuchDamage);
        }
        self.held.insert(number, raw.into());
        Ok(())
    }

    /// A message came damaged. One that has a number is asked for; others are made up for elsewhere.
    pub(super) fn handle_damaged(&mut self, link: LinkId, kind: MessageKind) -> Result<(), SessionError> {
        if let Some(connection) = self.connections.get_mut(&link) {
            connection.damaged_in_a_row += 1;
            if connection.damaged_in_a_row > limits::DAMAGED_IN_A_ROW_MAX {
                return Err(SessionError::TooMuchDamage);
            }
        }
        if kind == MessageKind::Resent {
            self.asks_again = true;
        } else if kind.is_control() {
            if self.carrier != Some(link) {
                return Err(SessionError::OutOfStep);
            }
            let number = self.arriving;
            self.arriving += 1;
            self.asked.insert(number, kind);
            self.ask(kind, number)?;
        }
        Ok(())
    }

    /// Asks for a message again, though not for ever.
    pub(super) fn ask(&mut self, kind: MessageKind, number: u32) -> Result<(), SessionError> {
        self.asks += 1;
        if self.asks > limits::ASKS_MAX {
            return Err(SessionError::TooMuchDamage);
        }
        self.push(&Message::Retransmit(Again::Control { kind, number: MessageNumber(number) }));
        Ok(())
    }

    /// Asks for what was asked for and came damaged again. Whichever that was: what did come is not asked for any more.
    /// Once for all that came together, since each asks for all.
    pub(super) fn ask_again(&mut self) -> Result<(), SessionError> {
        if std::mem::take(&mut self.asks_again) {
            let asked: Vec<(u32, MessageKind)> = self.asked.iter().map(|(&number, &kind)| (number, kind)).collect();
            asked.into_iter().try_for_each(|(number, kind)| self.ask(kind, number))?;
        }
        Ok(())
    }

    /// A control message that had been damaged came again; false where that is known already.
    pub(super) fn handle_resent(&mut self, number: MessageNumber, raw: &[u8]) -> Result<bool, SessionError> {
        let is_asked = self.asked.remove(&number.0).is_some();
        if is_asked {
            self.hold(number.0, raw)?;
        }
        Ok(is_asked)
    }

    /// The next control message that had to wait and need not any more.
    pub(super) fn next_held(&mut self) -> Option<Box<[u8]>> {
        let raw = self.held.remove(&self.expected)?;
        self.held_bytes -= raw.len();
        self.expected += 1;
        Some(raw)
    }

    // -- out ---------------------------------------------------------------------------------------------------------

    /// Sends a control message.
    pub(super) fn push(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        put(message, &mut bytes);
        self.push_encoded(bytes.into());
    }

    pub(super) fn push_encoded(&mut self, message: Box<[u8]>) {
        self.log.push_back(message);
        self.wakes = true;
    }

    /// Every connection may have something to send.
    pub(super) fn wake(&mut self) {
        self.wakes = true;
    }

    /// Whether connections are to be looked at since there may be something to send; asked once.
    pub(super) fn poll_wake(&mut self) -> bool {
        std::mem::take(&mut self.wakes)
    }

    /// The peer asks for a control message again.
    pub(super) fn resend(&mut self, link: LinkId, number: MessageNumber) -> Result<(), SessionError> {
        if number.0 >= self.count() {
            return Err(SessionError::OutOfStep);
        }
        // What is forgotten has come since it was asked for, over another connection; what is not sent yet will come.
        let index = number.0.checked_sub(self.base).filter(|_| number.0 < self.next);
        if let Some(connection) = self.connections.get_mut(&link).filter(|_| index.is_some()) {
            connection.again.insert(number.0);
            self.wakes = true;
        }
        Ok(())
    }

    /// How many control messages there have been; for [`Channel::forget_before`].
    pub(super) fn count(&self) -> u32 {
        self.base + self.log.len() as u32
    }

    /// How many of them were sent: what answers a later one is made up.
    pub(super) fn sent(&self) -> u32 {
        self.next
    }

    /// The peer has all control messages before this one.
    pub(super) fn forget_before(&mut self, number: u32) {
        self.asks = 0;
        while self.base < number.min(self.next) {
            self.log.pop_front();
            self.base += 1;
        }
    }

    /// Adds to `out` what goes over this connection now, at most `room` bytes, or one message.
    pub(super) fn transmit(&mut self, link: LinkId, now: Time, room: usize, out: &mut Vec<u8>) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        if std::mem::take(&mut connection.carries) {
            put(&Message::Control { next: MessageNumber(self.expected) }, out);
        }
        while let Some(&number) = connection.again.first() {
            // What is forgotten has come meanwhile.
            let index = number.checked_sub(self.base);
            if let Some(message) = index.and_then(|index| self.log.get(index as usize)) {
                if !out.is_empty() && out.len() + RESENT_HEAD_BYTES + message.len() > room {
                    break;
                }
                put(&Message::Resent { number: MessageNumber(number), message }, out);
            }
            connection.again.pop_first();
        }
        if self.carrier == Some(link) && self.is_settled {
            while let Some(message) = self.log.get((self.next - self.base) as usize)
                && (out.is_empty() || out.len() + message.len() <= room)
            {
                out.extend_from_slice(message);
                self.next += 1;
            }
        }
        if out.is_empty() && now.since(connection.sent) >= limits::SESSION_KEEPALIVE_EVERY {
            put(&Message::KeepAlive, out);
        }
        if !out.is_empty() {
            connection.sent = now;
        }
    }

    /// Whether control messages are still to go out over this connection.
    pub(super) fn has_words(&self, link: LinkId) -> bool {
        self.carrier == Some(link) && self.is_settled && self.next < self.count()
    }

    /// Everything that was to be sent has been handed to the connections.
    pub(super) fn is_flushed(&self) -> bool {
        let all = self.next == self.count() || self.connections.is_empty();
        all && self.connections.values().all(|connection| connection.again.is_empty() && !connection.carries)
    }

    pub(super) fn poll_timeout(&self, link: LinkId, may_send: bool) -> Option<Time> {
        let connection = self.connections.get(&link)?;
        let speak = may_send.then(|| connection.sent + limits::SESSION_KEEPALIVE_EVERY);
        Some(speak.into_iter().fold(connection.heard + limits::SESSION_SILENCE_MAX, Time::min))
    }

    pub(super) fn handle_timeout(&mut self, link: LinkId, now: Time) -> Result<(), SessionError> {
        self.unsettled = self.unsettled.or(Some(now)).filter(|_| !self.is_settled);
        if self.unsettled.is_some_and(|since| now.since(since) >= limits::SESSION_SILENCE_MAX) {
            return Err(SessionError::NoCarrier);
        }
        let Some(connection) = self.connections.get(&link) else { return Ok(()) };
        if now.since(connection.heard) >= limits::SESSION_SILENCE_MAX {
            return Err(SessionError::Silent);
        }
        Ok(())
    }
}
