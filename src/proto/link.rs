//! One connection, whichever protocol it speaks: the [`named`] one where it was made for that; else seed 000's until
//! the peer's first packet is here, and from then on the [`extended`] one if both hellos say so.

use super::duplex::{self, Counters, LinkConfig, Peer, Write};
use super::extended::{self, FEATURES, Instruction, Piece};
use super::named;
use crate::transfer::Flow;
use crate::units::{LinkId, PacketLen, Time};
use crate::wire::duplex::Inner;
use crate::wire::hello::Hello;

/// One connection.
#[derive(Debug)]
pub enum Link {
    /// It speaks the seed's grammar, or has not met its peer yet.
    Seed(Box<duplex::Link>),
    /// It speaks the extended grammar, or is about to.
    Extended(Box<extended::Link>),
    /// It answers a client that asks by name.
    Serving(Box<named::Server>),
    /// It asks a server by name.
    Asking(Box<named::Client>),
}

/// What a connection is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Seed 000, and the extended grammar where both ends know it.
    Duplex,
    /// Seed 001, at this end of it.
    Named(named::End),
}

/// Why a link must end. Other links, files and the daemon are untouched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// In seed 000's grammar or the extended one.
    #[error(transparent)]
    Duplex(#[from] extended::LinkError),
    /// In seed 001's.
    #[error(transparent)]
    Named(#[from] named::LinkError),
}

impl From<duplex::LinkError> for LinkError {
    fn from(error: duplex::LinkError) -> Self {
        Self::Duplex(error.into())
    }
}

impl LinkError {
    /// Whether bytes came in that the peer cannot have meant to send: they were damaged on the way, or both ends do not
    /// have the same `packet_bytes`.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Duplex(error) => error.is_damage(),
            Self::Named(error) => error.is_damage(),
        }
    }

    /// Whether the two ends do not fit together: until a person has corrected a config, each link ends like this.
    pub fn is_misfit(&self) -> bool {
        match self {
            Self::Duplex(extended::LinkError::Seed(error)) => error.is_misfit(),
            Self::Duplex(_) | Self::Named(_) => false,
        }
    }
}

/// What is to be done with bytes that came in, as ranges of the train.
#[derive(Debug, Default)]
pub struct Received {
    /// In the seed's grammar.
    pub writes: Vec<Write>,
    /// In the extended one.
    pub instructions: Vec<Instruction>,
}

impl Link {
    /// A link that was connected at `now`.
    pub fn new(config: LinkConfig, protocol: Protocol, now: Time) -> Self {
        match protocol {
            Protocol::Duplex => Self::Seed(Box::new(duplex::Link::new(config, now))),
            Protocol::Named(named::End::Server) => Self::Serving(Box::new(named::Server::new(config, now))),
            Protocol::Named(named::End::Client) => Self::Asking(Box::new(named::Client::new(config, now))),
        }
    }

    /// Its id.
    pub fn id(&self) -> LinkId {
        self.config().id
    }

    /// Who is at the other end, once its first packet is here.
    pub fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Seed(link) => link.peer(),
            Self::Extended(link) => Some(link.peer()),
            Self::Serving(link) => link.peer(),
            Self::Asking(link) => Some(link.peer()),
        }
    }

    /// N.
    pub fn packet_len(&self) -> PacketLen {
        self.config().packet_len
    }

    /// What this node says of itself.
    pub fn hello(&self) -> &Hello {
        &self.config().hello
    }

    /// Whether neither end waits for the other to have its say.
    pub fn runs_free(&self) -> bool {
        match self {
            Self::Seed(link) => link.runs_free(),
            Self::Extended(_) | Self::Serving(_) | Self::Asking(_) => true,
        }
    }

    /// What passed.
    pub fn counters(&self) -> Counters {
        match self {
            Self::Seed(link) => link.counters(),
            Self::Extended(link) => link.counters(),
            Self::Serving(link) => link.counters(),
            Self::Asking(link) => link.counters(),
        }
    }

    /// Requests of the peer that are not answered yet.
    pub fn asked(&self) -> usize {
        match self {
            Self::Seed(link) => link.asked(),
            Self::Extended(link) => link.asked(),
            Self::Serving(link) => link.asked(),
            Self::Asking(_) => 0,
        }
    }

    fn config(&self) -> &LinkConfig {
        match self {
            Self::Seed(link) => link.config(),
            Self::Extended(link) => link.config(),
            Self::Serving(link) => link.config(),
            Self::Asking(link) => link.config(),
        }
    }

    /// See [`duplex::Link::handle_packets`] and [`extended::Link::handle_packets`].
    pub fn handle_packets(
        &mut self,
        train: &[u8],
        now: Time,
        fetch: &mut Flow,
        serve: &mut Flow,
        received: &mut Received,
    ) -> Result<(), LinkError> {
        let mut skipped = 0;
        if let Self::Seed(link) = self
            && let Some(peer) = meets_extended(link, train)?
        {
            let extended = extended::Link::new(link.config().clone(), peer, link.has_greeted(), now, fetch);
            skipped = link.packet_len().bytes();
            *self = Self::Extended(Box::new(extended));
        }
        match self {
            Self::Seed(link) => Ok(link.handle_packets(train, now, fetch, serve, &mut received.writes)?),
            Self::Extended(link) => {
                let before = received.instructions.len();
                let result = link.handle_packets(&train[skipped..], now, fetch, serve, &mut received.instructions);
                for instruction in &mut received.instructions[before..] {
                    if let Instruction::Data(data) = instruction {
                        data.at += skipped;
                    }
                }
                Ok(result?)
            }
            Self::Serving(link) => Ok(link.handle_packets(train)?),
            Self::Asking(link) => Ok(link.handle_packets(train, now, fetch, &mut received.writes)?),
        }
    }

    /// See [`duplex::Link::poll_transmit`] and [`extended::Link::poll_transmit`].
    pub fn poll_transmit(&mut self, now: Time, room: usize, fetch: &mut Flow, serve: &mut Flow) -> Option<Piece> {
        match self {
            Self::Seed(link) => link.poll_transmit(now, room, fetch, serve).map(Piece::Seed),
            Self::Extended(link) => link.poll_transmit(now, fetch, serve),
            Self::Serving(link) => link.poll_transmit(now, room, serve).map(Piece::Seed),
            Self::Asking(link) => link.poll_transmit(now, fetch).map(Piece::Seed),
        }
    }

    /// See [`duplex::Link::handle_tail_read`].
    pub fn handle_tail_read(&mut self, now: Time, serve: &mut Flow) {
        match self {
            Self::Seed(link) => link.handle_tail_read(now, serve),
            Self::Serving(link) => link.handle_tail_read(now, serve),
            Self::Extended(_) | Self::Asking(_) => {}
        }
    }

    /// See [`duplex::Link::handle_source_failed`]. The extended grammar has its own.
    pub fn handle_source_failed(
        &mut self,
        piece: &duplex::Piece,
        reason: String,
        now: Time,
        fetch: &Flow,
        serve: &mut Flow,
    ) {
        match self {
            Self::Seed(link) => link.handle_source_failed(piece, reason, now, fetch, serve),
            Self::Serving(link) => link.handle_source_failed(piece, reason, now, serve),
            Self::Extended(_) | Self::Asking(_) => {}
        }
    }

    /// See [`duplex::Link::poll_timeout`] and [`extended::Link::poll_timeout`].
    pub fn poll_timeout(&self, fetch: &Flow, may_send: bool, now: Time) -> Time {
        match self {
            Self::Seed(link) => link.poll_timeout(fetch, may_send, now),
            Self::Extended(link) => link.poll_timeout(fetch, may_send, now),
            Self::Serving(link) => link.poll_timeout(now),
            Self::Asking(link) => link.poll_timeout(fetch, now),
        }
    }

    /// See [`duplex::Link::handle_timeout`] and [`extended::Link::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), LinkError> {
        match self {
            Self::Seed(link) => Ok(link.handle_timeout(now)?),
            Self::Extended(link) => Ok(link.handle_timeout(now)?),
            Self::Serving(link) => Ok(link.handle_timeout(now)?),
            Self::Asking(link) => Ok(link.handle_timeout(now)?),
        }
    }

    /// See [`duplex::Link::handle_life`].
    pub fn handle_life(&mut self, now: Time) {
        match self {
            Self::Seed(link) => link.handle_life(now),
            Self::Extended(link) => link.handle_life(now),
            Self::Serving(_) => {}
            Self::Asking(link) => link.handle_life(now),
        }
    }

    /// See [`duplex::Link::check_partial`].
    pub fn check_partial(&self, partial: &[u8]) -> Result<(), LinkError> {
        match self {
            Self::Seed(link) => Ok(link.check_partial(partial)?),
            Self::Extended(_) | Self::Serving(_) | Self::Asking(_) => Ok(()),
        }
    }

    /// The link is gone. Gives back what it had on order and what it was asked for.
    pub fn close(&mut self, now: Time, fetch: &mut Flow, serve: &mut Flow) {
        match self {
            Self::Seed(link) => link.close(now, fetch, serve),
            Self::Extended(link) => link.close(now, fetch, serve),
            Self::Serving(link) => link.close(now, serve),
            Self::Asking(link) => link.close(fetch),
        }
    }
}

/// The peer, where `train` starts with its first packet and both ends speak the extended grammar.
fn meets_extended(link: &duplex::Link, train: &[u8]) -> Result<Option<Peer>, LinkError> {
    let ours = link.hello();
    if link.peer().is_some() || train.is_empty() || !ours.features.contains(FEATURES) {
        return Ok(None);
    }
    let packet = &train[..link.packet_len().bytes()];
    let is_hello = crate::wire::duplex::parse(packet).is_ok_and(|p| p.request.is_none() && p.inner == Inner::Nil);
    // Whatever else it is, the seed's link knows what to do with it.
    let hello = if is_hello { Hello::find(packet).map_err(duplex::LinkError::from)? } else { None };
    match hello.filter(|hello| hello.features.contains(FEATURES)) {
        Some(hello) => Ok(Some(link.config().meet(Some(hello))?)),
        None => Ok(None),
    }
}
