//! The `duplex` protocol of seed 000 on one link: both ends request and serve at the same time.
//!
//! Participants: a trader (it listened) and an exchange (it dialed); after connecting they are equal. Goals: every
//! packet exactly N bytes; requests ride in front of data; neither end ever waits for the other while it has something
//! to send. Not its business: which object comes next ([`transfer`](crate::transfer)), bytes on disk, the socket.
//!
//! ```text
//! first packet  N: padding hello        ours says who we are; a peer without a hello is seed-only
//! then          [R:name:] B:size:data   data of the request being served, first packet
//!               [R:name:] M:data        ... and the others, the last one padded
//!               [R:name:] N: P: E:      nothing, "not here", "I am done"
//! ```
//!
//! Two ways of running, settled by the peer's first packet ([`hello`](crate::wire::hello)):
//!
//! - **ours**: a hello was found. Both run free. Requests queue up at the server and are answered in order; `P:`
//!   answers the oldest one with "not here now" and drops it. An idle link carries `N:` as keep-alive, and one that is
//!   silent is dead.
//! - **seed-only**: one request at a time, never replaced while its answer may be on the way (an answer carries no
//!   name, so that would mix up two objects). As many packets are owed as were received, since such a peer may go in
//!   lock-step; data runs ahead freely. Debts that only keep a loop turning are paid at a modest pace.
//!
//! In both, `B:` in the middle of an object begins it again (its source changed), and `P:` in the middle of an object
//! ends it unfinished.
//!
//! Driven like this: [`Link::handle_packets`] for whole packets received; [`Link::poll_transmit`] until it returns
//! nothing or the rim has enough for one send; for every piece with a tail one of [`Link::handle_tail_read`] and
//! [`Link::handle_source_failed`] before the next poll; [`Link::handle_timeout`] when [`Link::poll_timeout`] has come;
//! [`Link::close`] once, at the end.

mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use crate::limits;
use crate::transfer::Flow;
use crate::units::{ByteCount, Generation, LinkId, NodeName, ObjectId, ObjectName, Offset, PacketLen, Time};
use crate::wire::duplex::PacketError;
use crate::wire::hello::{Features, Hello, HelloError, Role};

/// What both ends of our own make must have in common to run free.
pub const FEATURES: Features = Features::FREE_RUN.or(Features::KEEPALIVE).or(Features::QUEUED_REQUESTS);

/// What a link is made with.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Its id, unique in the node.
    pub id: LinkId,
    /// N, as configured at both ends.
    pub packet_len: PacketLen,
    /// What this node says of itself.
    pub hello: Hello,
    /// Who the peer is by configuration: an exchange knows whom it dials, and a hello that says otherwise ends the
    /// link. A trader believes the hello.
    pub configured_peer: Option<NodeName>,
    /// What a peer is called that neither is configured nor says hello: its address.
    pub fallback_peer: NodeName,
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// By its hello, else by configuration, else by its address.
    pub name: NodeName,
    /// Its hello, if it said one.
    pub hello: Option<Hello>,
}

impl LinkConfig {
    /// Who the peer is whose first packet is here, with this hello or none. An error: not one to make a link with.
    pub(super) fn meet(&self, hello: Option<Hello>) -> Result<Peer, LinkError> {
        let Some(hello) = hello else {
            let name = self.configured_peer.as_ref().unwrap_or(&self.fallback_peer).clone();
            return Ok(Peer { name, hello: None });
        };
        let name = hello.node.clone();
        if hello.role == self.hello.role {
            return Err(LinkError::SameRole { name, role: Link::role_name(hello.role) });
        }
        // Taken for another one, a trader would be told what it has itself as what the far trader has.
        if self.hello.role == Role::Exchange
            && let Some(configured) = self.configured_peer.clone().filter(|configured| *configured != name)
        {
            return Err(LinkError::OtherNode { name, configured });
        }
        Ok(Peer { name, hello: Some(hello) })
    }
}

/// Bytes that are to be written to a part file. Its payload lies in the received train in pieces of `each` bytes,
/// `stride` apart, the last one shorter if `length` says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Whose bytes.
    pub id: ObjectId,
    /// Of which attempt.
    pub generation: Generation,
    /// Where in the object they belong.
    pub offset: Offset,
    /// Where in the train the first piece starts.
    pub at: usize,
    /// From the start of a piece to the start of the next, bytes.
    pub stride: usize,
    /// Bytes of a piece.
    pub each: usize,
    /// Bytes in all.
    pub length: usize,
}

impl Write {
    /// The pieces as ranges of the train.
    pub fn pieces(self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let count = if self.length == 0 { 0 } else { self.length.div_ceil(self.each) };
        (0..count).map(move |i| {
            let start = self.at + i * self.stride;
            start..start + self.each.min(self.length - i * self.each)
        })
    }
}

/// Packets to be sent: `header`, then data or padding. The first packet starts with `header`, each further one with
/// `middle`; each is filled with data, and the last one padded to N.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The bytes in front of the first packet's data.
    pub header: Vec<u8>,
    /// The bytes in front of the data of all others.
    pub middle: Cow<'static, [u8]>,
    /// The data, if any.
    pub data: Option<Data>,
    /// Whether our hello stands at the end of the padding.
    pub hello: bool,
}

/// The data of a [`Piece`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    /// Whose bytes.
    pub id: ObjectId,
    /// Of which attempt.
    pub generation: Generation,
    /// From where.
    pub offset: Offset,
    /// How many.
    pub length: usize,
    /// They are the object's last, to be sent only where the source is found unchanged after all of it was read.
    pub tail: bool,
}

impl Piece {
    /// How many packets it makes.
    pub fn packets(&self, packet_len: PacketLen) -> usize {
        let length = self.data.map_or(0, |data| data.length);
        let first = packet_len.bytes() - self.header.len();
        1 + length.saturating_sub(first).div_ceil(packet_len.bytes() - self.middle.len())
    }
}

/// Why a link must end. Other links, files and the daemon are untouched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Bytes that are no packet.
    #[error("at byte {at} of the stream: {source}; do both ends have the same packet_bytes ({packet_len})?")]
    Malformed {
        /// Where in the stream its packet starts.
        at: u64,
        /// N here.
        packet_len: PacketLen,
        /// What was wrong.
        source: PacketError,
    },
    /// A damaged hello.
    #[error("in the first packet: {0}")]
    Hello(#[from] HelloError),
    /// A packet that is right in itself, but not here.
    #[error("at byte {at} of the stream: {found} is out of place, expected {expected}")]
    OutOfPlace {
        /// Where in the stream its packet starts.
        at: u64,
        /// What came.
        found: &'static str,
        /// What would have been right.
        expected: &'static str,
    },
    /// Two nodes of one role.
    #[error("the peer {name} is a {role} too; a trader and an exchange make a link")]
    SameRole {
        /// The peer's name.
        name: NodeName,
        /// The role of both.
        role: &'static str,
    },
    /// An exchange dialed somebody else than it was to.
    #[error(
        "the node there is {name}, and the config calls it {configured}: correct the name or the addresses of this \
         [[peer]]"
    )]
    OtherNode {
        /// What the peer calls itself.
        name: NodeName,
        /// What the config calls it.
        configured: NodeName,
    },
    /// The peer's first packet is of another length.
    #[error("the peer's packets are of {theirs} bytes, and of {ours} here: packet_bytes must be the same at both ends")]
    OtherPacketLen {
        /// Bytes of the peer's first packet.
        theirs: u64,
        /// N here.
        ours: PacketLen,
    },
    /// Nothing came for too long.
    #[error("nothing came for {:.1} s", .0.as_secs_f64())]
    Silent(Duration),
    /// No first packet came.
    #[error("no packet came within {} s of connecting; is this a supersync peer with the same packet_bytes?", .0.as_secs())]
    NoFirstPacket(Duration),
}

impl LinkError {
    /// See [`proto::LinkError::is_misfit`](crate::proto::LinkError::is_misfit).
    pub(super) fn is_misfit(&self) -> bool {
        match self {
            Self::SameRole { .. } | Self::OtherNode { .. } | Self::OtherPacketLen { .. } | Self::NoFirstPacket(_) => {
                true
            }
            // What follows a first packet of another length.
            Self::Malformed { at, packet_len, .. } => *at <= packet_len.bytes() as u64,
            Self::Hello(_) | Self::OutOfPlace { .. } | Self::Silent(_) => false,
        }
    }
}

/// What passed over a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Whole packets received.
    pub packets_in: u64,
    /// Packets handed to the rim for sending.
    pub packets_out: u64,
    /// Bytes of objects received.
    pub payload_in: u64,
    /// Bytes of objects handed to the rim for sending.
    pub payload_out: u64,
    /// Padding handed to the rim for sending.
    pub padding_out: u64,
    /// Bytes of objects received that were thrown away: refused, or begun again.
    pub discarded: u64,
}

/// What the peer asked for, oldest first; the first is being served.
#[derive(Debug)]
struct Asked {
    name: ObjectName,
    id: Option<ObjectId>,
}

/// The object whose bytes are coming in.
#[derive(Debug)]
struct Incoming {
    /// `None`: it is refused, its bytes are counted and dropped.
    kept: Option<(ObjectId, Generation)>,
    size: ByteCount,
    received: ByteCount,
}

/// The object whose bytes are going out.
#[derive(Debug, Clone, Copy)]
struct Sending {
    id: ObjectId,
    generation: Generation,
    size: ByteCount,
    offset: Offset,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    opened: Time,
    peer: Option<Peer>,
    /// Both ends are ours and run free.
    free: bool,
    greeted: bool,
    counters: Counters,
    last_in: Time,
    last_out: Time,

    incoming: Option<Incoming>,

    asked: VecDeque<Asked>,
    sending: Option<Sending>,
    /// The last piece carried the tail of this, and the rim has not said yet that it could be read.
    tail: Option<Sending>,
    /// A request that was taken from the queue but whose piece was not sent.
    unsent_request: Option<ObjectId>,

    // A seed-only peer.
    /// What it was sent last, and how many packets had been sent by the end of it.
    answered: Option<(ObjectName, u64)>,
    /// Debts in a row that only keep a loop turning.
    idle_turns: u32,
    /// Such a debt is paid at this time.
    pay_at: Option<Time>,
    ended: bool,
    peer_ended: bool,
}

impl Link {
    /// A link that was connected at `now`.
    pub fn new(config: LinkConfig, now: Time) -> Self {
        Self {
            config,
            opened: now,
            peer: None,
            free: false,
            greeted: false,
            counters: Counters::default(),
            last_in: now,
            last_out: now,
            incoming: None,
            asked: VecDeque::new(),
            sending: None,
            tail: None,
            unsent_request: None,
            answered: None,
            idle_turns: 0,
            pay_at: None,
            ended: false,
            peer_ended: false,
        }
    }

    /// Its id.
    pub fn id(&self) -> LinkId {
        self.config.id
    }

    /// N.
    pub fn packet_len(&self) -> PacketLen {
        self.config.packet_len
    }

    /// What this node says of itself.
    pub fn hello(&self) -> &Hello {
        &self.config.hello
    }

    /// What it was made with.
    pub(super) fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Whether our first packet has been polled.
    pub(super) fn has_greeted(&self) -> bool {
        self.greeted
    }

    /// Who is at the other end, once its first packet is here.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Whether both ends are ours and run free.
    pub fn runs_free(&self) -> bool {
        self.free
    }

    /// What passed.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Requests of the peer that are not answered yet.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    /// Both ends have said that they are done; the link may be closed. One that is left open goes on when either end
    /// wants something again.
    pub fn is_over(&self) -> bool {
        self.ended && self.peer_ended
    }

    /// When to call [`Link::handle_timeout`] and to poll again, whatever else happens. Where it cannot send before it
    /// was heard of anyway, as when something is on its way out, `may_send` is false.
    pub fn poll_timeout(&self, fetch: &Flow, may_send: bool, now: Time) -> Time {
        if self.peer.is_none() {
            return self.opened + limits::FIRST_PACKET_WITHIN;
        }
        if !may_send {
            let at = now + limits::KEEPALIVE_EVERY;
            return if self.free { at.min(self.last_in + limits::SILENCE_MAX).max(now) } else { at };
        }
        let mut at = fetch.poll_timeout(self.config.id, now).unwrap_or(now + limits::KEEPALIVE_EVERY);
        if self.free {
            at = at.min(self.last_in + limits::SILENCE_MAX).min(self.last_out + limits::KEEPALIVE_EVERY);
        } else if !self.asked.is_empty() {
            at = at.min(now + limits::KEEPALIVE_EVERY);
        }
        at.min(self.pay_at.filter(|_| self.owed() > 0).unwrap_or(at)).max(now)
    }

    /// Time has passed. An error ends the link.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), LinkError> {
        if self.peer.is_none() && now.since(self.opened) >= limits::FIRST_PACKET_WITHIN {
            return Err(LinkError::NoFirstPacket(limits::FIRST_PACKET_WITHIN));
        }
        let silence = now.since(self.last_in);
        if self.free && silence >= limits::SILENCE_MAX {
            return Err(LinkError::Silent(silence));
        }
        Ok(())
    }

    /// Bytes came in, be they a whole packet or not; or the rim is not reading at present, for want of a buffer: the
    /// silence is not the peer's.
    pub fn handle_life(&mut self, now: Time) {
        self.last_in = now;
    }

    /// `partial` came in behind the last whole packet. Where the peer's hello ends there, its packets are not of our
    /// length: ours may be longer, or what was taken for the first packet of a seed-only peer is the start of a longer
    /// one.
    pub fn check_partial(&self, partial: &[u8]) -> Result<(), LinkError> {
        let packets = self.counters.packets_in;
        if packets > 1 || self.free || self.incoming.is_some() || !matches!(Hello::find(partial), Ok(Some(_))) {
            return Ok(());
        }
        let ours = self.config.packet_len;
        Err(LinkError::OtherPacketLen { theirs: packets * ours.bytes() as u64 + partial.len() as u64, ours })
    }

    /// The link is gone. Gives back what it had on order and what it was asked for.
    pub fn close(&mut self, now: Time, fetch: &mut Flow, serve: &mut Flow) {
        if let Some(incoming) = self.incoming.take() {
            self.counters.discarded += incoming.received.0;
        }
        fetch.detach_fetcher(self.config.id);
        self.sending = None;
        self.drop_asked(serve, now);
    }

    /// Packets that a peer in lock-step waits for: it takes as many as it sends, so what ran ahead counts for what it
    /// sends later. More would go round the loop for ever, each object's packets on top of those before.
    fn owed(&self) -> u64 {
        if self.free {
            return 0;
        }
        self.counters.packets_in.saturating_sub(self.counters.packets_out)
    }

    fn drop_asked(&mut self, serve: &mut Flow, now: Time) {
        for asked in self.asked.drain(..) {
            if let Some(id) = asked.id {
                serve.release(self.config.id, id, false, now);
            }
        }
    }

    fn role_name(role: Role) -> &'static str {
        match role {
            Role::Trader => "trader",
            Role::Exchange => "exchange",
        }
    }
}
