//! The end that asks for the listing.

use super::{LinkError, is_length_of};
use crate::units::{ByteCount, ObjectName, PacketLen};
use crate::wire::named::{self as wire, End, Lines, Packet};

/// A listing that is coming in. Keeps a packet and the start of a line: what names come in is the caller's to keep.
#[derive(Debug)]
pub struct Listing {
    packet_len: PacketLen,
    packets_in: u64,
    lines: Lines,
    /// The last packet's payload, of which the end may be padding.
    last: Option<Vec<u8>>,
    received: ByteCount,
}

/// How a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// More is to come.
    Coming,
    /// That is all of it.
    Done,
    /// The server does not tell what it has, for this reason.
    Refused(String),
}

impl Listing {
    /// Of a server with packets of this length, which nothing was asked of yet.
    pub fn new(packet_len: PacketLen) -> Self {
        Self { packet_len, packets_in: 0, lines: Lines::default(), last: None, received: ByteCount(0) }
    }

    /// The head of the one packet that asks for it; padding follows.
    pub fn request() -> Vec<u8> {
        let mut head = Vec::new();
        wire::encode_request(&mut head, None);
        head
    }

    /// A whole packet came in. `take` is given each name that is known from it, or the encoded line where that is no
    /// object's name.
    pub fn handle_packet(
        &mut self,
        packet: &[u8],
        mut take: impl FnMut(Result<ObjectName, &[u8]>),
    ) -> Result<Progress, LinkError> {
        let at = self.packets_in * packet.len() as u64;
        let parsed = wire::parse(packet);
        let parsed = parsed.map_err(|source| LinkError::Malformed { at, packet_len: self.packet_len, source })?;
        self.packets_in += 1;
        let out_of_place = |found, name| Err(LinkError::OutOfPlace { at, found, name, expected: "the listing" });
        match parsed {
            Packet::Begin { name: None, payload } if self.last.is_none() => self.keep(&packet[payload]),
            Packet::Middle { name: None, payload } if self.last.is_some() => {
                let before = self.last.take().unwrap_or_default();
                self.lines.push(&before, &mut take)?;
                self.keep(&packet[payload]);
            }
            Packet::Begin { name, .. } => return out_of_place("\"B:\"", name),
            Packet::Middle { name, .. } => return out_of_place("\"M:\"", name),
            Packet::End { name: name @ Some(_), .. } => return out_of_place("\"E:\"", name),
            Packet::End { name: None, end: End::Refused(reason) } => return Ok(Progress::Refused(reason)),
            Packet::End { name: None, end: End::Untold } => {
                // Lines end where a byte comes that no line has: padding cannot be told from them.
                return Ok(Progress::Refused("the server does not tell how long the listing is".into()));
            }
            Packet::End { name: None, end: End::Whole(size) } => {
                let last = self.last.take().unwrap_or_default();
                if size != self.received && !is_length_of(size, self.received, last.len()) {
                    return Err(LinkError::WrongSize { at, name: None, told: size, received: self.received });
                }
                let padding = (self.received - size).0 as usize;
                self.lines.push(&last[..last.len() - padding], &mut take)?;
                self.lines.finish(take);
                return Ok(Progress::Done);
            }
        }
        Ok(Progress::Coming)
    }

    fn keep(&mut self, payload: &[u8]) {
        self.received += ByteCount(payload.len() as u64);
        self.last = Some(payload.to_vec());
    }
}
