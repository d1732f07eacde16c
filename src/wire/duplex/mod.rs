//! Packets of the duplex protocol, from seed 000 ("File Sender and Receiver Duplex").
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
//!         | "X:"                                       what follows is the extended grammar
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

mod encode;

use std::fmt;
use std::ops::Range;

pub use encode::{
    Head, Header, NameTooLong, begin_header_len, check_name_fits, encode_begin, encode_request, request_len,
};

pub(in crate::wire) use encode::{decimal_len, encode_decimal, encode_name, encoded_name_len, hex_digit};

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
pub(in crate::wire) fn parse_size(packet: &[u8], at: usize) -> Result<(ByteCount, usize), PacketError> {
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
    let name_end = find_name_end(packet, name_at)?;
    if name_end == name_at {
        return Ok((Request::Nothing, name_end + 1));
    }
    let name = decode_name(packet, name_at..name_end)?;
    Ok((Request::Object(name), name_end + 1))
}

/// Where the encoded name that starts at `name_at` ends: the position of its `:`.
pub(in crate::wire) fn find_name_end(packet: &[u8], name_at: usize) -> Result<usize, PacketError> {
    let rest = packet.get(name_at..).unwrap_or_default();
    // A name may be three times as long encoded; without this bound a packet of 1 MiB would be searched to its end.
    let searched = &rest[..rest.len().min(3 * limits::NAME_BYTES_MAX + 1)];
    match searched.iter().position(|byte| *byte == b':') {
        Some(encoded_bytes) => Ok(name_at + encoded_bytes),
        None => Err(unexpected(packet, name_at + searched.len(), Expected::NameEnd)),
    }
}

/// Undoes the encoding of the name at `range`.
pub(in crate::wire) fn decode_name(packet: &[u8], range: Range<usize>) -> Result<ObjectName, PacketError> {
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

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(bytes: &[u8]) -> ObjectName {
        ObjectName::new(bytes).expect("a test's name is valid")
    }

    fn object(bytes: &[u8]) -> Option<Request> {
        Some(Request::Object(name(bytes)))
    }

    fn begin(size: u64, payload: Range<usize>) -> Inner {
        Inner::Begin { size: ByteCount(size), payload }
    }

    #[test]
    fn golden_packets_parse() {
        let check = |bytes: &[u8], request: Option<Request>, inner: Inner| {
            assert_eq!(parse(bytes), Ok(Packet { request, inner }), "{}", bytes.escape_ascii());
        };
        // The seed's forms, the size written out.
        check(b"B:24000000:payload", None, begin(24_000_000, 11..18));
        check(b"M:payload", None, Inner::Middle { payload: 2..9 });
        check(b"N:", None, Inner::Nil);
        check(b"E:", None, Inner::End);
        check(b"R::N:", Some(Request::Nothing), Inner::Nil);
        check(b"R:requested_file_name:B:7:payload", object(b"requested_file_name"), begin(7, 26..33));
        check(b"R:requested_file_name:M:payload", object(b"requested_file_name"), Inner::Middle { payload: 24..31 });
        check(b"R:requested_file_name:N:\x00\x01", object(b"requested_file_name"), Inner::Nil);
        check(b"R:requested_file_name:E:", object(b"requested_file_name"), Inner::End);
        check(b"R::M:payload", Some(Request::Nothing), Inner::Middle { payload: 5..12 });
        // Not the seed's, but ours.
        check(b"P:R:a:N:", None, Inner::Pending);
        check(b"X:R:a:N:", None, Inner::Switch);
        check(b"R:a:P:", object(b"a"), Inner::Pending);
        check(b"R:a:X:", object(b"a"), Inner::Switch);
        check(b"B:0:", None, begin(0, 4..4));
        check(b"B:0:M:", None, begin(0, 4..6));
        check(b"M:", None, Inner::Middle { payload: 2..2 });
        check(b"M:R:a:N:", None, Inner::Middle { payload: 2..8 });
        check(b"B:00000000000000000007:x", None, begin(7, 23..24));
        check(b"B:9223372036854775807:", None, begin(limits::OBJECT_BYTES_MAX, 22..22));
        // Names.
        check(b"R:dir/stock1_1:N:", object(b"dir/stock1_1"), Inner::Nil);
        check(b"R:a%3Ab%25%0a%7F%0D:N:", object(b"a:b%\n\x7f\r"), Inner::Nil);
        check(b"R:%41\xff \xc3\xa4:N:", object(b"A\xff \xc3\xa4"), Inner::Nil);
    }

    #[test]
    fn malformed_packets_are_refused_where_they_go_wrong() {
        let check = |bytes: &[u8], position: usize, expected: Expected, found: &[u8]| {
            let found = Excerpt::of(found, 0);
            let error = Err(PacketError::Unexpected { position, expected, found });
            assert_eq!(parse(bytes), error, "{}", bytes.escape_ascii());
        };
        check(b"", 0, Expected::Packet, b"");
        check(b"M", 0, Expected::Packet, b"M");
        check(b"R", 0, Expected::Packet, b"R");
        check(b"m:payload", 0, Expected::Packet, b"m:payload");
        check(b"Q:0123456789abcdefghij", 0, Expected::Packet, b"Q:0123456789abcd");
        check(b":M:", 0, Expected::Packet, b":M:");
        // The seed's words taken literally: what follows a request is a packet, not just anything.
        check(b"R:requested_file_name:other packet", 22, Expected::Inner, b"other packet");
        check(b"R::", 3, Expected::Inner, b"");
        check(b"R:a:", 4, Expected::Inner, b"");
        check(b"R:a:M", 4, Expected::Inner, b"M");
        check(b"R:a:R:b:N:", 4, Expected::Inner, b"R:b:N:");
        check(b"R:", 2, Expected::NameEnd, b"");
        check(b"R:name without end", 18, Expected::NameEnd, b"");
        check(b"R:a\nb:N:", 3, Expected::NameByte, b"\nb:N:");
        check(b"R:a\0:N:", 3, Expected::NameByte, b"\0:N:");
        check(b"R:a\x7f:N:", 3, Expected::NameByte, b"\x7f:N:");
        check(b"R:a%:N:", 3, Expected::Escape, b"%:N:");
        check(b"R:a%4:1N:", 3, Expected::Escape, b"%4:1N:");
        check(b"R:a%4g:N:", 3, Expected::Escape, b"%4g:N:");
        check(b"R:%+1:N:", 2, Expected::Escape, b"%+1:N:");
        check(b"B:", 2, Expected::SizeDigit, b"");
        check(b"B::x", 2, Expected::SizeDigit, b":x");
        check(b"B:file_size:payload", 2, Expected::SizeDigit, b"file_size:payloa");
        check(b"B:-1:x", 2, Expected::SizeDigit, b"-1:x");
        check(b"B:+1:x", 2, Expected::SizeDigit, b"+1:x");
        check(b"B:12", 4, Expected::SizeEnd, b"");
        check(b"B:1 2:", 3, Expected::SizeEnd, b" 2:");
        check(b"B:000000000000000000001:x", 22, Expected::SizeEnd, b"1:x");
        check(b"B:9223372036854775808:", 2, Expected::SizeInRange, b"9223372036854775");
        check(b"B:18446744073709551616:", 2, Expected::SizeInRange, b"1844674407370955");
        check(b"R:a:B:99999999999999999999:", 6, Expected::SizeInRange, b"9999999999999999");
    }

    #[test]
    fn names_that_could_leave_a_root_are_refused() {
        let check = |bytes: &[u8], source: NameError| match parse(bytes) {
            Err(PacketError::Name { position: 2, source: found, .. }) => assert_eq!(found, source),
            other => panic!("{}: {other:?}", bytes.escape_ascii()),
        };
        check(b"R:/etc/passwd:N:", NameError::Absolute);
        check(b"R:a/../b:N:", NameError::DotComponent);
        check(b"R:a/%2e%2E/b:N:", NameError::DotComponent);
        check(b"R:%2Fetc:N:", NameError::Absolute);
        check(b"R:a%00b:N:", NameError::Nul);
        check(b"R:a//b:N:", NameError::EmptyComponent);
    }

    #[test]
    fn an_error_says_where_what_and_what_instead() {
        let error = parse(b"B:12\x00\xff:").expect_err("malformed");
        assert_eq!(
            error.to_string(),
            r#"malformed packet at byte 4: expected ':' after a size of at most 20 digits, found "\x00\xff:""#
        );
        let error = parse(b"R:../up:N:").expect_err("malformed");
        assert_eq!(
            error.to_string(),
            concat!(
                r#"malformed packet at byte 2: expected an object's name, found "../up:N:": "#,
                "the name has a '.' or '..' component"
            )
        );
    }

    #[test]
    fn longest_names_travel_and_longer_ones_are_not_searched_for() {
        for byte in [b'n', b':'] {
            let longest = name(&[byte; limits::NAME_BYTES_MAX]);
            let mut packet = Vec::new();
            encode_request(&mut packet, Some(&longest));
            assert_eq!(packet.len(), request_len(Some(&longest)));
            packet.extend_from_slice(NIL);
            assert_eq!(parse(&packet), Ok(Packet { request: Some(Request::Object(longest)), inner: Inner::Nil }));
        }
        let too_long = [b"R:".to_vec(), vec![b'n'; limits::NAME_BYTES_MAX + 1], b":N:".to_vec()].concat();
        let source = NameError::TooLong(limits::NAME_BYTES_MAX + 1);
        assert!(matches!(parse(&too_long), Err(PacketError::Name { source: found, .. }) if found == source));

        let mut endless = vec![b'n'; limits::PACKET_BYTES_MAX as usize];
        endless[..2].copy_from_slice(REQUEST);
        let position = 2 + 3 * limits::NAME_BYTES_MAX + 1;
        let found = Excerpt::of(&[b'n'; 16], 0);
        assert_eq!(parse(&endless), Err(PacketError::Unexpected { position, expected: Expected::NameEnd, found }));
    }

    #[test]
    fn a_train_is_counted_up_to_its_first_other_packet() {
        for packet_bytes in [64, 1400, 65_536, limits::PACKET_BYTES_MAX] {
            let n = PacketLen::new(packet_bytes).expect("in bounds");
            let check = |heads: &[&[u8]], cut_bytes: usize, expected: usize| {
                let mut train = vec![b'x'; heads.len() * n.bytes()];
                for (packet, head) in train.chunks_exact_mut(n.bytes()).zip(heads) {
                    packet[..head.len()].copy_from_slice(head);
                    assert_eq!(parse(packet).expect("well formed").request.is_some(), head.starts_with(b"R"));
                }
                assert_eq!(plain_middles(&train[..train.len() - cut_bytes], n), expected, "N {n}: {heads:?}");
            };
            check(&[], 0, 0);
            check(&[MIDDLE, MIDDLE, MIDDLE], 0, 3);
            check(&[MIDDLE, MIDDLE, MIDDLE], 1, 2);
            check(&[MIDDLE], n.bytes() - 2, 0);
            check(&[MIDDLE, NIL, MIDDLE], 0, 1);
            check(&[MIDDLE, MIDDLE, b"B:5:"], 0, 2);
            check(&[b"R:a:M:", MIDDLE], 0, 0);
        }
    }

    /// Bytes that get further into the grammar than chance alone would.
    fn nearly_packets() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: [&[u8]; 16] =
            [b"R:", b"B:", b"M:", b"N:", b"P:", b"E:", b"X:", b":", b"%", b"%3A", b"a", b"/", b"..", b"0", b"9", b"\0"];
        let piece = prop_oneof![
            8 => prop::sample::select(&PIECES[..]).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 0..40),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_within_the_packet(
            packet in prop_oneof![nearly_packets(), prop::collection::vec(any::<u8>(), 0..300)]
        ) {
            match parse(&packet) {
                Ok(Packet { inner: Inner::Begin { payload, .. } | Inner::Middle { payload }, .. }) => {
                    prop_assert!(payload.start <= payload.end && payload.end == packet.len());
                    prop_assert_eq!(packet[payload.start - 1], b':');
                }
                Ok(Packet { request, .. }) => prop_assert_eq!(request.is_some(), packet.starts_with(REQUEST)),
                Err(error) => {
                    let (position, found) = match error {
                        PacketError::Unexpected { position, found, .. } => (position, found),
                        PacketError::Name { position, found, .. } => (position, found),
                    };
                    prop_assert!(position <= packet.len());
                    prop_assert!(packet[position..].starts_with(found.as_bytes()));
                    prop_assert!(error.to_string().len() < 256);
                }
            }
        }
    }
}
