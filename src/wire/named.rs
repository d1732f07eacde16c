//! Packets of the named protocol, from seed 001 ("File Sender and Receiver").
//!
//! Participants: a client, which asks for objects, and a server, which sends them. Each direction of a link is a
//! sequence of packets of exactly N bytes, and every packet names its object:
//!
//! ```text
//! client := "R:" name ":" padding                      name empty: the listing is requested
//! server := "B:" name ":" payload                      an object begins
//!         | "M:" name ":" payload                      it goes on
//!         | "E:" name ":" size ":" padding             it has ended, and has this length, in decimal ASCII
//!         | "E:" name ":-1:" reason ":" padding        it cannot be sent, or not to its end
//!
//!   0    2       7   8                                N
//!   +----+-------+---+--------------------------------+
//!   | B: | a%3Ab | : | payload, or its end and padding |   the first bytes of "a:b"
//!   +----+-------+---+--------------------------------+
//! ```
//!
//! In a name and in a reason, `:`, `%`, bytes below 0x20 and 0x7f are written `%XX`. The listing is an object like any
//! other whose name is empty: one name a line, encoded, each line ended by a line feed.
//!
//! Goals: a run of middle packets of one object is told apart by comparing its header; bytes from a peer never panic. A
//! server that knows no more than the seed ends an object with `E:name:` alone: that parses too ([`End::Untold`]).
//! Non-goals: where an object's last packet ends. Payload ranges run to the packet's end; the length comes last.
//!
//! Driven by `proto::named`: [`parse_request`] at the server, [`parse`] or [`run_of`] at the client, and the `encode_*`
//! functions for what goes out. Nothing is kept between calls but by [`Lines`].

use std::ops::Range;

use super::Excerpt;
use super::duplex::{self, decode_name, encode_decimal, encode_name, encoded_name_len, find_name_end, parse_size};
use crate::limits;
use crate::units::{ByteCount, ObjectName, PacketLen};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `R::`: the names of all that there is.
    Listing,
    /// `R:name:`: an object.
    Object(ObjectName),
    /// `R:name:` where the name cannot be one of an object: it leaves the root, or is not well encoded.
    NoObject {
        /// Where the name stands, as it was encoded.
        encoded: Range<usize>,
        /// What is wrong with it.
        problem: duplex::PacketError,
    },
}

/// What a server sends. A name that is `None` is that of the listing. Payload ranges run to the end of the packet,
/// padding included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// `B:name:payload`: an object begins, or begins again.
    Begin {
        /// Whose bytes.
        name: Option<ObjectName>,
        /// Its first ones.
        payload: Range<usize>,
    },
    /// `M:name:payload`: it goes on.
    Middle {
        /// Whose bytes.
        name: Option<ObjectName>,
        /// Its next ones.
        payload: Range<usize>,
    },
    /// `E:name:`: it is over.
    End {
        /// What is over.
        name: Option<ObjectName>,
        /// How.
        end: End,
    },
}

/// How an object ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It has this length; what came beyond it is padding. At most [`limits::OBJECT_BYTES_MAX`].
    Whole(ByteCount),
    /// It cannot be sent, or not to its end: the server's reason, printable.
    Refused(String),
    /// The server does not tell its length: it is all that came.
    Untold,
}

/// Why bytes are not a packet. Positions count from the packet's first byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// It starts with none of the letters.
    #[error("malformed packet at byte 0: expected {expected}, found {found}")]
    Letter {
        /// What a packet starts with.
        expected: &'static str,
        /// How this one starts.
        found: Excerpt,
    },
    /// What follows the letter is wrong.
    #[error(transparent)]
    Inside(#[from] duplex::PacketError),
}

const REQUEST: &[u8] = b"R:";
const BEGIN: &[u8] = b"B:";
const MIDDLE: &[u8] = b"M:";
const END: &[u8] = b"E:";
/// Stands in the place of a size.
const REFUSED: &[u8] = b"-1:";

// -- reading -----------------------------------------------------------------------------------------------------

/// Parses one whole packet of a client.
pub fn parse_request(packet: &[u8]) -> Result<Request, PacketError> {
    if !packet.starts_with(REQUEST) {
        return Err(PacketError::Letter { expected: "R:", found: Excerpt::of(packet, 0) });
    }
    let encoded = REQUEST.len()..find_name_end(packet, REQUEST.len())?;
    if encoded.is_empty() {
        return Ok(Request::Listing);
    }
    Ok(match decode_name(packet, encoded.clone()) {
        Ok(name) => Request::Object(name),
        Err(problem) => Request::NoObject { encoded, problem },
    })
}

/// Parses one whole packet of a server.
pub fn parse(packet: &[u8]) -> Result<Packet, PacketError> {
    let letter = packet.get(..BEGIN.len()).unwrap_or_default();
    if ![BEGIN, MIDDLE, END].contains(&letter) {
        return Err(PacketError::Letter { expected: "one of B: M: E:", found: Excerpt::of(packet, 0) });
    }
    let name_end = find_name_end(packet, letter.len())?;
    let name = match letter.len() {
        at if at == name_end => None,
        at => Some(decode_name(packet, at..name_end)?),
    };
    let rest = name_end + 1;
    Ok(match letter {
        BEGIN => Packet::Begin { name, payload: rest..packet.len() },
        MIDDLE => Packet::Middle { name, payload: rest..packet.len() },
        _ => Packet::End { name, end: parse_end(packet, rest)? },
    })
}

fn parse_end(packet: &[u8], at: usize) -> Result<End, PacketError> {
    let rest = &packet[at..];
    if let Some(reason) = rest.strip_prefix(REFUSED) {
        let reason = &reason[..reason.len().min(limits::REASON_BYTES_MAX)];
        let end = reason.iter().position(|&byte| byte == b':').unwrap_or(0);
        return Ok(End::Refused(printable(&reason[..end])));
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || rest.get(digits) != Some(&b':') {
        return Ok(End::Untold);
    }
    let (size, _) = parse_size(packet, at)?;
    Ok(End::Whole(size))
}

/// How many whole packets from the start of `train` start with `header`, so that they can be taken as one run.
pub fn run_of(train: &[u8], header: &[u8], packet_len: PacketLen) -> usize {
    train.chunks_exact(packet_len.bytes()).take_while(|packet| packet.starts_with(header)).count()
}

/// A reason for people: undone as far as it is well encoded, without anything that a terminal would obey.
fn printable(encoded: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&byte, behind)) = rest.split_first() {
        let digit = |at: usize| behind.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        match (byte, digit(0).zip(digit(1))) {
            (b'%', Some((high, low))) => {
                bytes.push((high << 4 | low) as u8);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

// -- writing -----------------------------------------------------------------------------------------------------

/// Appends `R:name:`, or `R::` for the listing; padding follows.
pub fn encode_request(out: &mut Vec<u8>, name: Option<&ObjectName>) {
    encode_head(out, REQUEST, name);
}

/// Appends `B:name:`; payload follows.
pub fn encode_begin(out: &mut Vec<u8>, name: Option<&ObjectName>) {
    encode_head(out, BEGIN, name);
}

/// Appends `M:name:`; payload follows.
pub fn encode_middle(out: &mut Vec<u8>, name: Option<&ObjectName>) {
    encode_head(out, MIDDLE, name);
}

/// Bytes that any of these three append.
pub fn head_len(name: Option<&ObjectName>) -> usize {
    BEGIN.len() + name.map_or(0, encoded_name_len) + b":".len()
}

/// Appends `E:name:size:`; padding follows. Of a name for which [`check_name_fits`](duplex::check_name_fits) holds it
/// fits a packet.
pub fn encode_end(out: &mut Vec<u8>, name: Option<&ObjectName>, size: ByteCount) {
    encode_head(out, END, name);
    encode_decimal(out, size.0);
    out.push(b':');
}

/// Appends `E:name:-1:reason:`, the reason cut to what fits into a packet; padding follows. The name is echoed as it
/// came, `encoded`. `false`: not even the name fits, and nothing was appended.
pub fn encode_refusal(out: &mut Vec<u8>, encoded: &[u8], reason: &str, packet_len: PacketLen) -> bool {
    let fixed = END.len() + encoded.len() + b":".len() + REFUSED.len() + b":".len();
    let Some(mut room) = packet_len.bytes().checked_sub(fixed) else { return false };
    room = room.min(limits::REASON_BYTES_MAX - 1);
    out.extend_from_slice(END);
    out.extend_from_slice(encoded);
    out.push(b':');
    out.extend_from_slice(REFUSED);
    for c in reason.chars() {
        let c = if c.is_control() || c == ':' || c == '%' { ' ' } else { c };
        let Some(left) = room.checked_sub(c.len_utf8()) else { break };
        room = left;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out.push(b':');
    true
}

/// A name as it is encoded.
pub fn encoded(name: &ObjectName) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_name_len(name));
    encode_name(&mut out, name);
    out
}

/// Appends a line of the listing.
pub fn encode_line(out: &mut Vec<u8>, name: &ObjectName) {
    encode_name(out, name);
    out.push(b'\n');
}

fn encode_head(out: &mut Vec<u8>, letter: &[u8], name: Option<&ObjectName>) {
    out.extend_from_slice(letter);
    if let Some(name) = name {
        encode_name(out, name);
    }
    out.push(b':');
}

// -- the listing -------------------------------------------------------------------------------------------------

/// The bytes of a listing as they come in, and the names in them. Keeps the start of a line at most.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

/// A line of a listing that is longer than any name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of the listing is longer than the longest name of {max} bytes", max = limits::NAME_BYTES_MAX)]
pub struct LineTooLong;

impl Lines {
    /// More of the listing came in. `take` is given each name that ends in it, or the encoded line where that is no
    /// object's name.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(Result<ObjectName, &[u8]>),
    ) -> Result<(), LineTooLong> {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.keep(&bytes[..end])?;
            self.end_line(&mut take);
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes)
    }

    /// All of it is here; a last line need not have its line feed.
    pub fn finish(&mut self, mut take: impl FnMut(Result<ObjectName, &[u8]>)) {
        self.end_line(&mut take);
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        if self.partial.len() + bytes.len() > 3 * limits::NAME_BYTES_MAX {
            return Err(LineTooLong);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, take: &mut impl FnMut(Result<ObjectName, &[u8]>)) {
        if !self.partial.is_empty() {
            take(decode_name(&self.partial, 0..self.partial.len()).map_err(|_| self.partial.as_slice()));
        }
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests;
