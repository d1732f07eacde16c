//! The extended protocol on one link: what two nodes of our own speak once both hellos have said so.
//!
//! Participants: two nodes, equal on the link; each orders ranges of objects and answers the other's orders, and tells
//! the other what it has. Goals: many small answers in one packet, many requests on their way at once, no answer that
//! waits for another one. Not its business: which range comes next, what a block must be
//! ([`transfer`](crate::transfer)), bytes on disk, the socket, how frames lie in packets
//! ([`wire::extended`](crate::wire::extended)).
//!
//! ```text
//! ours: hello packet, "X:" packet, frames ...        each direction for itself, nothing waits for a round trip
//!
//! R: ------------------>
//!        <-------------- B: (one or more, offsets ascending) | P: not now | F: not ever
//! C: ------------------>                             nothing comes back, but what was on its way
//! I:epoch:seq: -------->
//!        <-------------- I: news, as they come; once also: these are all there are
//! ```
//!
//! A request for no bytes at all, `R:id:name:0:0:`, tells an interest in an object of which the requester knows the
//! name and nothing else. It stands, and no data answers it: what the object is made of comes as news, and the object
//! is kept for the requester until its `C:`. `P:`: it cannot be had now; `F:gone:`: what there is the inventory tells.
//!
//! A request is over when all of its bytes have come, or with `P:`, `F:` or our own `C:`. Answers to a request that is
//! over are dropped; answers to one that never was end the link.
//!
//! Driven like this: [`Link::handle_packets`] for whole packets received, whose [`Instruction`]s the rim follows in
//! order, in the end telling the flow of each range `handle_verified` or `handle_damaged`; [`Link::poll_transmit`]
//! until it returns nothing or the rim has enough for one send, where for a [`Piece::Range`] the rim either has its
//! bytes and sends them, or calls [`Link::handle_source_failed`]; [`Link::handle_timeout`] when [`Link::poll_timeout`]
//! has come; [`Link::close`] once, at the end.

mod asked;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::asked::AskedRanges;
use super::duplex::{self, Counters, LinkConfig, Peer};
use crate::limits;
use crate::transfer::{Flow, RangeRequest};
use crate::units::{ByteCount, LinkId, ObjectId, PacketLen, Time};
use crate::wire::extended::{Data, Frame, FrameError, Reader, RequestId};
use crate::wire::hello::Features;
use crate::wire::inventory::EntryError;

/// What both ends must have in common to speak it.
pub const FEATURES: Features = duplex::FEATURES.or(Features::EXTENDED);

/// What the rim is to do with bytes that came in. Of each range that begins, its data follows and then its end, though
/// not always in the same train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// Data of this range follows, at most a block: get memory for it.
    Begin {
        /// The range, which is a request or a part of one.
        range: RangeRequest,
    },
    /// Some of the data, as ranges of the train.
    Data(Data),
    /// All data of the range is here. If it has another CRC-32C, call [`Flow::handle_damaged`]; if
    /// [`Flow::wants_piece`] says that it is not wanted any more, [`Flow::handle_unwanted`]; else write it and call
    /// [`Flow::handle_verified`].
    End {
        /// The range.
        range: RangeRequest,
        /// CRC-32C of its bytes.
        crc: u32,
    },
}

/// What goes out next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A packet of the seed's grammar: the hello, or the switch.
    Seed(duplex::Piece),
    /// A frame without data.
    Head(Frame),
    /// A range that the peer has asked for, or a part of it, at most a block: read it, find its source unchanged, and
    /// send it behind a [`Frame::Begin`] with its CRC-32C.
    Range {
        /// The request that it answers.
        id: RequestId,
        /// What of which object.
        range: RangeRequest,
    },
    /// News of the inventory: the frame, and the data that follows it.
    News {
        /// The frame.
        frame: Frame,
        /// Its data.
        data: Vec<u8>,
    },
}

/// Why a link must end. Other links, files and the daemon are untouched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Before the switch.
    #[error(transparent)]
    Seed(#[from] duplex::LinkError),
    /// Bytes that are no frames.
    #[error("at byte {at} of the stream: {source}; do both ends have the same packet_bytes ({packet_len})?")]
    Malformed {
        /// Where in the stream its packet starts.
        at: u64,
        /// N here.
        packet_len: PacketLen,
        /// What was wrong.
        source: FrameError,
    },
    /// News that came in as they were sent, but make no sense.
    #[error("in the news up to byte {at} of the stream: {source}")]
    News {
        /// Where in the stream the packet starts that they end in.
        at: u64,
        /// What was wrong.
        source: EntryError,
    },
    /// News came in damaged. Another link goes on where they began, so that none is missed.
    #[error("the news up to byte {at} of the stream came in damaged")]
    DamagedNews {
        /// Where in the stream the packet starts that they end in.
        at: u64,
    },
    /// A frame that is right in itself, but not here.
    #[error("at byte {at} of the stream: {found} is out of place, expected {expected}")]
    OutOfPlace {
        /// Where in the stream its packet starts.
        at: u64,
        /// What came.
        found: &'static str,
        /// What would have been right.
        expected: &'static str,
    },
    /// Nothing came for too long.
    #[error("nothing came for {:.1} s", .0.as_secs_f64())]
    Silent(Duration),
}

impl LinkError {
    /// Whether bytes came in that the peer cannot have meant to send: they were damaged on the way, or both ends do not
    /// have the same `packet_bytes`.
    pub fn is_damage(&self) -> bool {
        use duplex::LinkError::{Hello, Malformed, OutOfPlace};
        match self {
            Self::Seed(error) => matches!(error, Malformed { .. } | Hello(_) | OutOfPlace { .. }),
            Self::Malformed { .. } | Self::News { .. } | Self::DamagedNews { .. } | Self::OutOfPlace { .. } => true,
            Self::Silent(_) => false,
        }
    }
}

/// Data that is coming in.
#[derive(Debug)]
enum Incoming {
    Range {
        /// What of it is still to come belongs to this order; `None`: nobody waits for it any more.
        order: Option<RangeRequest>,
        /// The rim is told.
        kept: bool,
        crc: u32,
    },
    News {
        epoch: u64,
        seq: u64,
        length: ByteCount,
        crc: u32,
        data: Vec<u8>,
    },
}

/// One connection between two of our own nodes.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    peer: Peer,
    counters: Counters,
    last_in: Time,
    last_out: Time,
    greeted: bool,
    switched_out: bool,
    switched_in: bool,
    reader: Reader,

    /// Requests made so far; the id of the next one is its low half.
    made: u64,
    /// Requests under way: what of each is still to begin to come.
    orders: BTreeMap<u32, RangeRequest>,
    /// Interests that stand.
    interests: BTreeMap<u32, ObjectId>,
    incoming: Option<Incoming>,
    /// The peer was asked for its news over this link, if it is the one that reads them.
    subscribed: bool,
    /// The epoch of the news that came last, and since when.
    epoch: Option<(u64, Time)>,

    asked: AskedRanges,
    /// The peer's interests that stand.
    wished: Vec<(RequestId, ObjectId)>,
    /// Whose last range was polled last: it must stay until that is read.
    sent: Option<ObjectId>,
    /// Some of these may be over.
    stirred: bool,
    /// When all of it was looked at last.
    looked_at: Time,
    /// What is to be said of the peer's requests.
    answers: VecDeque<Frame>,
    /// The epoch and the number of the record that the peer wants next.
    told: Option<(u64, u64)>,
    /// The peer asks whether that is all; see [`Flow::whole_since`].
    unanswered: Option<u32>,
    /// News went out last: data is next.
    news_last: bool,
}

impl Link {
    /// A link whose peer's first packet is here, and is of one that speaks it. `greeted`: our hello has been sent.
    pub(super) fn new(config: LinkConfig, peer: Peer, greeted: bool, now: Time, fetch: &mut Flow) -> Self {
        fetch.attach_blocks(config.id, peer.name.clone(), now);
        let counters = Counters { packets_in: 1, packets_out: u64::from(greeted), ..Counters::default() };
        Self {
            reader: Reader::new(config.packet_len),
            config,
            peer,
            counters,
            last_in: now,
            last_out: now,
            greeted,
            switched_out: false,
            switched_in: false,
            made: 0,
            orders: BTreeMap::new(),
            interests: BTreeMap::new(),
            incoming: None,
            subscribed: false,
            epoch: None,
            asked: AskedRanges::default(),
            wished: Vec::new(),
            sent: None,
            stirred: false,
            looked_at: now,
            answers: VecDeque::new(),
            told: None,
            unanswered: None,
            news_last: false,
        }
    }

    /// Its id.
    pub fn id(&self) -> LinkId {
        self.config.id
    }

    /// What it was made with.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What passed.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether something to send may follow soon: the peer waits for what is not here yet, or we for what comes.
    pub fn expects_more(&self) -> bool {
        !self.asked.is_empty() || !self.orders.is_empty()
    }

    /// Requests of the peer that are not answered yet.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    /// When to call [`Link::handle_timeout`] and to poll again, whatever else happens. Where it cannot send before it
    /// was heard of anyway, as when something is on its way out, `may_send` is false.
    pub fn poll_timeout(&self, fetch: &Flow, may_send: bool, now: Time) -> Time {
        let silent = self.last_in + limits::SILENCE_MAX;
        if !may_send {
            return silent.max(now);
        }
        let at = silent.min(self.last_out + limits::KEEPALIVE_EVERY);
        at.min(fetch.poll_range_timeout(self.config.id, now).unwrap_or(at)).max(now)
    }

    /// Time has passed. An error ends the link.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), LinkError> {
        let silence = now.since(self.last_in);
        if silence >= limits::SILENCE_MAX { Err(LinkError::Silent(silence)) } else { Ok(()) }
    }

    /// Bytes came in, be they a whole packet or not; or the rim is not reading at present, for want of a buffer: the
    /// silence is not the peer's.
    pub fn handle_life(&mut self, now: Time) {
        self.last_in = now;
    }

    /// The link is gone. Gives back what it had on order and what it was asked for.
    pub fn close(&mut self, now: Time, fetch: &mut Flow, serve: &mut Flow) {
        fetch.detach_blocks(self.config.id, now);
        serve.unsubscribe(self.config.id);
        for asked in self.asked.drain() {
            serve.lose_range(self.config.id, asked.object, now);
        }
        if let Some(object) = self.sent.take() {
            serve.lose_range(self.config.id, object, now);
        }
        for (_, object) in self.wished.drain(..) {
            serve.release_range(self.config.id, object, false, now);
        }
        self.orders.clear();
        self.interests.clear();
        if let Some(Incoming::News { length, .. }) = self.incoming.take() {
            fetch.end_news(length);
        }
    }
}
