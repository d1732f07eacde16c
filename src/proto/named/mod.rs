//! The `named` protocol of seed 001 on one link: a client asks for objects by name, a server sends them.
//!
//! Participants: a [`Server`] (a trader that listens, and serves its `local/`) and a [`Client`] (it dialed, and fetches
//! into its `remote/`). Goals: every packet exactly N bytes and with the name of its object; nothing that a peer of the
//! seed alone would not understand. Not its business: which object comes next ([`transfer`](crate::transfer)), bytes on
//! disk, the socket.
//!
//! ```text
//! client -> server  R:name: ...  R::         as many as it likes, at any time
//! server -> client  B:name:data  M:name:data ...  E:name:size:
//!                   E:name:-1:reason:        not there, or not to its end; the connection stays up
//! ```
//!
//! Neither end says a hello, and no packet tells that an end lives. A client that waits for an answer gives the server
//! up when nothing comes for [`limits::NAMED_SILENCE_MAX`](crate::limits::NAMED_SILENCE_MAX); a server leaves it to TCP
//! to find out that a client is gone. Either loss ends what was under way on this link and nothing else: a client that
//! connects again asks for its objects from their start.
//!
//! Our server answers requests in the order in which they came. A client takes answers in any order, packets of several
//! objects mixed, and objects that begin again.
//!
//! The listing is what the server has, as an object with the empty name: [`Server`] makes it as it sends it, and a
//! [`Listing`] reads it, on a connection of its own.
//!
//! Driven like this: `handle_packets` for whole packets received; `poll_transmit` until it returns nothing or the rim
//! has enough for one send; at a server, for every piece with a tail, one of [`Server::handle_tail_read`] and
//! [`Server::handle_source_failed`] before the next poll; `handle_timeout` when `poll_timeout` has come; `close` once,
//! at the end.

mod client;
mod listing;
mod server;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use client::Client;
pub use listing::{Listing, Progress};
pub use server::Server;

use crate::units::{ByteCount, ObjectName, PacketLen};
use crate::wire::named::{LineTooLong, PacketError};

/// Which end of the protocol a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It asks.
    Client,
    /// It answers.
    Server,
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
    /// A packet that is right in itself, but not here.
    #[error("at byte {at} of the stream: {found} of {} is out of place, expected {expected}", shown(.name))]
    OutOfPlace {
        /// Where in the stream its packet starts.
        at: u64,
        /// What came.
        found: &'static str,
        /// Of which object; `None` is the listing.
        name: Option<ObjectName>,
        /// What would have been right.
        expected: &'static str,
    },
    /// An object has not the length that it is told to have.
    #[error("at byte {at} of the stream: {} is told to have {told}, and {received} came, padding included", shown(.name))]
    WrongSize {
        /// Where in the stream its packet starts.
        at: u64,
        /// Which object; `None` is the listing.
        name: Option<ObjectName>,
        /// What the server tells.
        told: ByteCount,
        /// What it sent.
        received: ByteCount,
    },
    /// A name so long that no answer to it fits a packet.
    #[error(
        "at byte {at} of the stream: a name of {bytes} bytes leaves no room for an answer in packets of {packet_len}"
    )]
    NoAnswerFits {
        /// Where in the stream its packet starts.
        at: u64,
        /// How long the name is, as encoded.
        bytes: usize,
        /// N.
        packet_len: PacketLen,
    },
    /// More requests than a server keeps for one client.
    #[error("at byte {at} of the stream: more requests than are kept for one client; wait for answers in between")]
    TooManyRequests {
        /// Where in the stream its packet starts.
        at: u64,
    },
    /// A line of a listing that cannot be a name.
    #[error(transparent)]
    Line(#[from] LineTooLong),
    /// No request came.
    #[error("no request came within {} s of connecting", .0.as_secs())]
    NoRequest(Duration),
    /// The server does not answer.
    #[error("nothing came for {} s, though the server was asked for something", .0.as_secs())]
    Silent(Duration),
}

impl LinkError {
    /// Whether bytes came in that the peer cannot have meant to send.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Malformed { .. } | Self::OutOfPlace { .. } | Self::WrongSize { .. } | Self::Line(_) => true,
            Self::NoAnswerFits { .. } | Self::TooManyRequests { .. } | Self::NoRequest(_) | Self::Silent(_) => false,
        }
    }
}

/// Whether an object of which this came may have that length: its last byte is in the last of its packets, of which
/// each holds `each` bytes.
fn is_length_of(size: ByteCount, received: ByteCount, each: usize) -> bool {
    let padding = received.0.checked_sub(size.0);
    padding.is_some_and(|padding| padding < each as u64 || (size.0 == 0 && padding == each as u64))
}

fn shown(name: &Option<ObjectName>) -> String {
    name.as_ref().map_or_else(|| "the listing".to_owned(), |name| format!("'{name}'"))
}
