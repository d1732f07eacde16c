//! Packets of the duplex protocol, from seed 000 ("File Sender and Receiver Duplex") and PROTOCOLS 1.1.
//!
//! Participants: two peers, equal once connected. Each direction of a link is a sequence of packets of exactly N bytes:
//!
//! ```text
//! packet := [ "R:" name ":" ] inner padding            name empty: nothing is being requested
//! inner  := "B:" size ":" payload                      begin: the object's length in decimal ASCII
//!         | "M:" payload                               middle
//!         | "N:"                                       nil
//!         | "P:"                                       pending: the requested object is not here yet
//!         | "E:"                                       nothing left to send and nothing left to request
//!         | "X:"                                       what follows is the extended grammar (PROTOCOLS 1.3)
//!
//!   0    2       7   8    10     14  15                 N
//!   +----+-------+---+----+------+---+------------------+
//!   | R: | a%3Ab | : | B: | 2400 | : | payload, padding |   a request for "a:b" in front of an object's first bytes
//!   +----+-------+---+----+------+---+------------------+
//! ```
//!
//! In a name, `:`, `%`, bytes below 0x20 and 0x7f are written `%XX`.
//!
//! Goals: parsing borrows the packet and costs tens of nanoseconds whatever N is; a train of middle packets is told
//! apart by two bytes a packet. Non-goals: where an object's last packet ends. Payload ranges run to the packet's
//! end; the receiver counts down `size` and cuts (seed: "it is the receivers' obligation").
//!
//! Driven by `proto::duplex`: [`parse`] or [`plain_middles`] for what comes in, [`Header`] or the `encode_*` functions
//! for what goes out. Nothing is kept between calls.

use std::fmt;
use std::ops::Range;

use super::Excerpt;
use crate::limits;
use crate::units::{ByteCount, NameError, ObjectName, PacketLen};

/// In front of a request's name.
const REQUEST: &[u8] = b"R:";
/// In front of an object's size.
const BEGIN: &[u8] = b"B:";
/// Header of a packet that carries an object on.
pub const MIDDLE: &[u8] = b"M:";
/// Header of a packet without data.
pub const NIL: &[u8] = b"N:";
/// Header of a packet that says: the requested object is not here yet.
pub const PENDING: &[u8] = b"P:";
/// Header of a packet that says: nothing left to send and nothing left to request.
pub const END: &[u8] = b"E:";
/// Header of the last packet in seed 000's grammar; the extended grammar follows in this direction.
pub const SWITCH: &[u8] = b"X:";

/// One whole packet. Its payload stays where it is and is told as a range within the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// What rode in front, if anything did.
    pub request: Option<Request>,
    /// The packet proper.
    pub inner: Inner,
}

/// A request, which replaces the one before it (unless the peers agreed to queue them).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `R::`: no object is wanted now.
    Nothing,
    /// `R:name:`.
    Object(ObjectName),
}

/// What a packet carries behind its request. Payload ranges run to the end of the packet, padding included, and may be
/// empty where a long request left no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inner {
    /// `B:size:payload`: an object begins.
    Begin {
        /// Length of the whole object; at most [`limits::OBJECT_BYTES_MAX`].
        size: ByteCount,
        /// Its first bytes.
        payload: Range<usize>,
    },
    /// `M:payload`: it goes on.
    Middle {
        /// Its next bytes.
        payload: Range<usize>,
    },
    /// `N:`, only padding follows (in a link's first packet a [`hello`](super::hello) too).
    Nil,
    /// `P:`, only padding follows.
    Pending,
    /// `E:`, only padding follows.
    End,
    /// `X:`, only padding follows.
    Switch,
}

/// Why bytes are not a packet. Positions count from the packet's first byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The grammar asks for something else here.
    #[error("malformed packet at byte {position}: expected {expected}, found {found}")]
    Unexpected {
        /// Where.
        position: usize,
        /// What the grammar allows there.
        expected: Expected,
        /// What stands there.
        found: Excerpt,
    },
    /// The requested name is well encoded, but no name of an object.
    #[error("malformed packet at byte {position}: expected an object's name, found {found}: {source}")]
    Name {
        /// Where the name starts.
        position: usize,
        /// How it starts, as encoded.
        found: Excerpt,
        /// What is wrong with it.
        source: NameError,
    },
}

/// What the grammar allows at the place of a [`PacketError::Unexpected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// `R:` or any inner packet.
    Packet,
    /// Any inner packet; a second request is not one.
    Inner,
    /// `:` behind a name, within the packet and within the longest name.
    NameEnd,
    /// A byte that stands for itself in a name, or an escape.
    NameByte,
    /// `%` and two hexadecimal digits.
    Escape,
    /// 1 to [`limits::SIZE_DIGITS_MAX`] decimal digits.
    SizeDigit,
    /// `:` behind a size.
    SizeEnd,
    /// A size of at most [`limits::OBJECT_BYTES_MAX`].
    SizeInRange,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet => f.write_str("one of R: B: M: N: P: E: X:"),
            Self::Inner => f.write_str("one of B: M: N: P: E: X:"),
            Self::NameEnd => write!(f, "':' after a name of at most {} bytes", limits::NAME_BYTES_MAX),
            Self::NameByte => f.write_str("a name with its control bytes written as %XX"),
            Self::Escape => f.write_str("'%' and two hexadecimal digits"),
            Self::SizeDigit => write!(f, "a size of 1 to {} decimal digits", limits::SIZE_DIGITS_MAX),
            Self::SizeEnd => write!(f, "':' after a size of at most {} digits", limits::SIZE_DIGITS_MAX),
            Self::SizeInRange => write!(f, "a size of at most {} bytes", limits::OBJECT_BYTES_MAX),
        }
    }
}

/// A name that cannot travel: its request and a `B:` header would leave no room for payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name {name} needs packets of at least {needed_bytes} bytes, packet_bytes is {packet_bytes}")]
pub struct NameTooLong {
    /// The name.
    pub name: ObjectName,
    /// The shortest packet it would fit.
    pub needed_bytes: usize,
    /// N.
    pub packet_bytes: PacketLen,
}

/// Parses one whole packet of any length.
///
/// Nothing is copied but a requested name. Middle packets without a request, nearly all there are, cost a comparison.
#[inline]
pub fn parse(packet: &[u8]) -> Result<Packet, PacketError> {
    if is_plain_middle(packet) {
        return Ok(Packet { request: None, inner: Inner::Middle { payload: MIDDLE.len()..packet.len() } });
    }
    if !packet.starts_with(REQUEST) {
        return Ok(Packet { request: None, inner: parse_inner(packet, 0)? });
    }
    let (request, inner_at) = parse_request(packet)?;
    Ok(Packet { request: Some(request), inner: parse_inner(packet, inner_at)? })
}

/// Whether `packet` is `M:payload` without a request in front.
#[inline]
pub fn is_plain_middle(packet: &[u8]) -> bool {
    packet.starts_with(MIDDLE)
}

/// How many whole packets from the start of `train` are plain middles, so that they can be taken as one run. Looks at
/// two bytes a packet; a packet that is not whole yet at the end does not count.
#[inline]
pub fn plain_middles(train: &[u8], packet_bytes: PacketLen) -> usize {
    train.chunks_exact(packet_bytes.bytes()).take_while(|packet| is_plain_middle(packet)).count()
}

/// What heads a packet's inner part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// `B:size:`.
    Begin {
        /// Length of the whole object.
        size: ByteCount,
    },
    /// `M:`.
    Middle,
    /// `N:`.
    Nil,
    /// `P:`.
    Pending,
    /// `E:`.
    End,
    /// `X:`.
    Switch,
}

/// The bytes in front of a packet's payload, `[R:name:]` and the inner packet's head. Kept and reused, it allocates only
/// for a longer request than any before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    bytes: Vec<u8>,
}

impl Header {
    /// An empty one.
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Replaces what was there by the header of one packet, and returns it.
    pub fn set(&mut self, request: Option<&Request>, head: Head) -> &[u8] {
        self.bytes.clear();
        match request {
            None => {}
            Some(Request::Nothing) => encode_request(&mut self.bytes, None),
            Some(Request::Object(name)) => encode_request(&mut self.bytes, Some(name)),
        }
        match head {
            Head::Begin { size } => encode_begin(&mut self.bytes, size),
            Head::Middle => self.bytes.extend_from_slice(MIDDLE),
            Head::Nil => self.bytes.extend_from_slice(NIL),
            Head::Pending => self.bytes.extend_from_slice(PENDING),
            Head::End => self.bytes.extend_from_slice(END),
            Head::Switch => self.bytes.extend_from_slice(SWITCH),
        }
        &self.bytes
    }

    /// What was set last.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Appends `R:name:` with the name encoded, or `R::` without one. An inner packet's head must follow.
pub fn encode_request(out: &mut Vec<u8>, request: Option<&ObjectName>) {
    out.extend_from_slice(REQUEST);
    for &byte in request.map_or(&[][..], ObjectName::as_bytes) {
        if is_escaped(byte) {
            out.extend_from_slice(&[b'%', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        } else {
            out.push(byte);
        }
    }
    out.push(b':');
}

/// Appends `B:size:`; payload follows. Sizes above [`limits::OBJECT_BYTES_MAX`] are no sizes of files, and [`parse`]
/// refuses them.
pub fn encode_begin(out: &mut Vec<u8>, size: ByteCount) {
    out.extend_from_slice(BEGIN);
    let mut digits = [0; limits::SIZE_DIGITS_MAX];
    let mut start = digits.len();
    let mut rest = size.0;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
    out.push(b':');
}

/// Bytes that [`encode_begin`] appends.
pub fn begin_header_len(size: ByteCount) -> usize {
    BEGIN.len() + size.0.checked_ilog10().unwrap_or(0) as usize + 1 + b":".len()
}

/// Bytes that [`encode_request`] appends.
pub fn request_len(request: Option<&ObjectName>) -> usize {
    let name = request.map_or(&[][..], ObjectName::as_bytes);
    REQUEST.len() + name.len() + 2 * name.iter().filter(|byte| is_escaped(**byte)).count() + b":".len()
}

/// Whether `name` can be requested in packets of `packet_bytes`: in front of the longest `B:size:` there must be room
/// for the request, and behind it for at least one byte of payload (PROTOCOLS 1.1; asked at scan time).
pub fn check_name_fits(name: &ObjectName, packet_bytes: PacketLen) -> Result<(), NameTooLong> {
    let longest_begin = BEGIN.len() + limits::SIZE_DIGITS_MAX + b":".len();
    let needed_bytes = request_len(Some(name)) + longest_begin + 1;
    if needed_bytes > packet_bytes.bytes() {
        return Err(NameTooLong { name: name.clone(), needed_bytes, packet_bytes });
    }
    Ok(())
}

/// Parses the inner packet that starts at `at` and runs to the packet's end.
fn parse_inner(packet: &[u8], at: usize) -> Result<Inner, PacketError> {
    let end = packet.len();
    match packet.get(at..at + 2) {
        Some(BEGIN) => {
            let (size, payload_at) = parse_size(packet, at + BEGIN.len())?;
            Ok(Inner::Begin { size, payload: payload_at..end })
        }
        Some(MIDDLE) => Ok(Inner::Middle { payload: at + MIDDLE.len()..end }),
        Some(NIL) => Ok(Inner::Nil),
        Some(PENDING) => Ok(Inner::Pending),
        Some(END) => Ok(Inner::End),
        Some(SWITCH) => Ok(Inner::Switch),
        _ => Err(unexpected(packet, at, if at == 0 { Expected::Packet } else { Expected::Inner })),
    }
}

/// Parses `digits ":"` at `at`; returns the position behind it too. Leading zeros are harmless and accepted.
fn parse_size(packet: &[u8], at: usize) -> Result<(ByteCount, usize), PacketError> {
    let rest = packet.get(at..).unwrap_or_default();
    let mut size: u128 = 0;
    let mut digits = 0;
    for byte in rest.iter().take(limits::SIZE_DIGITS_MAX) {
        if !byte.is_ascii_digit() {
            break;
        }
        size = size * 10 + u128::from(byte - b'0');
        digits += 1;
    }
    if digits == 0 {
        return Err(unexpected(packet, at, Expected::SizeDigit));
    }
    if rest.get(digits) != Some(&b':') {
        return Err(unexpected(packet, at + digits, Expected::SizeEnd));
    }
    match u64::try_from(size) {
        Ok(size) if size <= limits::OBJECT_BYTES_MAX => Ok((ByteCount(size), at + digits + 1)),
        _ => Err(unexpected(packet, at, Expected::SizeInRange)),
    }
}

/// Parses the `R:name:` that `packet` starts with; returns the position behind it too.
fn parse_request(packet: &[u8]) -> Result<(Request, usize), PacketError> {
    let name_at = REQUEST.len();
    let rest = packet.get(name_at..).unwrap_or_default();
    // A name may be three times as long encoded; without this bound a packet of 1 MiB would be searched to its end.
    let searched = &rest[..rest.len().min(3 * limits::NAME_BYTES_MAX + 1)];
    let Some(encoded_bytes) = searched.iter().position(|byte| *byte == b':') else {
        return Err(unexpected(packet, name_at + searched.len(), Expected::NameEnd));
    };
    if encoded_bytes == 0 {
        return Ok((Request::Nothing, name_at + 1));
    }
    let name = decode_name(packet, name_at..name_at + encoded_bytes)?;
    Ok((Request::Object(name), name_at + encoded_bytes + 1))
}

/// Undoes the encoding of the name at `range`.
fn decode_name(packet: &[u8], range: Range<usize>) -> Result<ObjectName, PacketError> {
    let name_error =
        |source| PacketError::Name { position: range.start, found: Excerpt::of(packet, range.start), source };
    let encoded = &packet[range.clone()];
    if !encoded.iter().any(|byte| is_escaped(*byte)) {
        return ObjectName::new(encoded).map_err(name_error);
    }
    let mut name = Vec::with_capacity(encoded.len());
    let mut at = 0;
    while at < encoded.len() {
        match encoded[at] {
            b'%' => {
                let escape = match encoded.get(at + 1..at + 3) {
                    Some(&[high, low]) => hex_value(high).zip(hex_value(low)),
                    _ => None,
                };
                let Some((high, low)) = escape else {
                    return Err(unexpected(packet, range.start + at, Expected::Escape));
                };
                name.push(high << 4 | low);
                at += 3;
            }
            byte if is_escaped(byte) => return Err(unexpected(packet, range.start + at, Expected::NameByte)),
            byte => {
                name.push(byte);
                at += 1;
            }
        }
    }
    ObjectName::new(&name).map_err(name_error)
}

#[cold]
fn unexpected(packet: &[u8], position: usize, expected: Expected) -> PacketError {
    PacketError::Unexpected { position, expected, found: Excerpt::of(packet, position) }
}

/// Whether `byte` of a name does not stand for itself on the wire.
fn is_escaped(byte: u8) -> bool {
    matches!(byte, 0..0x20 | b':' | b'%' | 0x7f)
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
