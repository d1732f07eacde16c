//! The sending half of the duplex codec: requests and heads of packets, and how long they are.

use super::{BEGIN, END, MIDDLE, NIL, PENDING, REQUEST, Request, SWITCH, is_escaped};
use crate::limits;
use crate::units::{ByteCount, ObjectName, PacketLen};

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

/// The bytes in front of a packet's payload, `[R:name:]` and the inner packet's head. Kept and reused, it allocates
/// only for a longer request than any before.
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

/// Appends `R:name:` with the name encoded, or `R::` without one. An inner packet's head must follow.
pub fn encode_request(out: &mut Vec<u8>, request: Option<&ObjectName>) {
    out.extend_from_slice(REQUEST);
    if let Some(name) = request {
        encode_name(out, name);
    }
    out.push(b':');
}

/// Appends `B:size:`; payload follows. Sizes above [`limits::OBJECT_BYTES_MAX`] are no sizes of files, and
/// [`parse`](super::parse) refuses them.
pub fn encode_begin(out: &mut Vec<u8>, size: ByteCount) {
    out.extend_from_slice(BEGIN);
    encode_decimal(out, size.0);
    out.push(b':');
}

/// Bytes that [`encode_begin`] appends.
pub fn begin_header_len(size: ByteCount) -> usize {
    BEGIN.len() + decimal_len(size.0) + b":".len()
}

/// Bytes that [`encode_request`] appends.
pub fn request_len(request: Option<&ObjectName>) -> usize {
    REQUEST.len() + request.map_or(0, encoded_name_len) + b":".len()
}

/// Appends `name`, encoded.
pub(in crate::wire) fn encode_name(out: &mut Vec<u8>, name: &ObjectName) {
    for &byte in name.as_bytes() {
        if is_escaped(byte) {
            out.extend_from_slice(&[b'%', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        } else {
            out.push(byte);
        }
    }
}

/// Bytes that [`encode_name`] appends.
pub(in crate::wire) fn encoded_name_len(name: &ObjectName) -> usize {
    name.as_bytes().len() + 2 * name.as_bytes().iter().filter(|byte| is_escaped(**byte)).count()
}

/// Appends `number` in decimal ASCII.
pub(in crate::wire) fn encode_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; limits::SIZE_DIGITS_MAX];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Bytes that [`encode_decimal`] appends.
pub(in crate::wire) fn decimal_len(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Whether `name` can be requested in packets of `packet_bytes`: in front of the longest `B:size:` there must be room
/// for the request, and behind it for at least one byte of payload (asked at scan time).
pub fn check_name_fits(name: &ObjectName, packet_bytes: PacketLen) -> Result<(), NameTooLong> {
    let longest_begin = BEGIN.len() + limits::SIZE_DIGITS_MAX + b":".len();
    let needed_bytes = request_len(Some(name)) + longest_begin + 1;
    if needed_bytes > packet_bytes.bytes() {
        return Err(NameTooLong { name: name.clone(), needed_bytes, packet_bytes });
    }
    Ok(())
}

/// Uppercase.
pub(in crate::wire) fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Inner, Packet, is_plain_middle, parse};
    use super::*;

    fn name(bytes: &[u8]) -> ObjectName {
        ObjectName::new(bytes).expect("a test's name is valid")
    }

    fn object(bytes: &[u8]) -> Option<Request> {
        Some(Request::Object(name(bytes)))
    }

    #[test]
    fn headers_are_the_seeds_bytes() {
        let mut header = Header::new();
        let mut check = |request: Option<Request>, head: Head, expected: &[u8]| {
            assert_eq!(header.set(request.as_ref(), head), expected);
            assert_eq!(header.as_bytes(), expected);
        };
        check(None, Head::Begin { size: ByteCount(24_000_000) }, b"B:24000000:");
        check(None, Head::Begin { size: ByteCount(0) }, b"B:0:");
        check(None, Head::Begin { size: ByteCount(u64::MAX) }, b"B:18446744073709551615:");
        check(None, Head::Middle, b"M:");
        check(Some(Request::Nothing), Head::Nil, b"R::N:");
        check(object(b"requested_file_name"), Head::Middle, b"R:requested_file_name:M:");
        check(object(b"d/a:b%\x1f\x7f \xff"), Head::Pending, b"R:d/a%3Ab%25%1F%7F \xff:P:");
        check(None, Head::End, b"E:");
        check(None, Head::Switch, b"X:");
    }

    #[test]
    fn a_name_fits_where_one_byte_of_payload_is_left() {
        let shortest = PacketLen::new(limits::PACKET_BYTES_MIN).expect("in bounds");
        // 64 = "R:" 37 ":" "B:" 20 ":" and one byte.
        assert_eq!(check_name_fits(&name(&[b'n'; 37]), shortest), Ok(()));
        let error = check_name_fits(&name(&[b'n'; 38]), shortest).expect_err("too long");
        assert_eq!((error.needed_bytes, error.packet_bytes), (65, shortest));
        assert!(error.to_string().ends_with("needs packets of at least 65 bytes, packet_bytes is 64"), "{error}");
        // Escapes count three times.
        assert_eq!(check_name_fits(&name(&[b':'; 12]), shortest), Ok(()));
        assert!(check_name_fits(&name(&[b':'; 13]), shortest).is_err());
        assert!(check_name_fits(&name(&[b'n'; 1400 - 27]), PacketLen::DEFAULT).is_ok());
        assert!(check_name_fits(&name(&[b'n'; 1400 - 26]), PacketLen::DEFAULT).is_err());
    }

    fn requests() -> impl Strategy<Value = Option<Request>> {
        let names = prop::collection::vec(any::<u8>(), 1..200).prop_filter_map("not a name", |bytes| {
            ObjectName::new(&bytes).ok().map(|name| Some(Request::Object(name)))
        });
        prop_oneof![Just(None), Just(Some(Request::Nothing)), names]
    }

    fn heads() -> impl Strategy<Value = Head> {
        let sizes = (0..=limits::OBJECT_BYTES_MAX, 0..63_u32)
            .prop_map(|(bits, shift)| Head::Begin { size: ByteCount(bits >> shift) });
        const OTHERS: [Head; 5] = [Head::Middle, Head::Nil, Head::Pending, Head::End, Head::Switch];
        prop_oneof![sizes, prop::sample::select(&OTHERS[..])]
    }

    proptest! {
        #[test]
        fn what_is_encoded_parses_back(request in requests(), head in heads(), payload_bytes in 0..100_usize) {
            let mut header = Header::new();
            let mut packet = header.set(request.as_ref(), head).to_vec();
            let payload = packet.len()..packet.len() + payload_bytes;
            packet.resize(payload.end, b':');

            let inner = match head {
                Head::Begin { size } => Inner::Begin { size, payload: payload.clone() },
                Head::Middle => Inner::Middle { payload: payload.clone() },
                Head::Nil => Inner::Nil,
                Head::Pending => Inner::Pending,
                Head::End => Inner::End,
                Head::Switch => Inner::Switch,
            };
            let request_bytes = match &request {
                None => 0,
                Some(Request::Nothing) => request_len(None),
                Some(Request::Object(name)) => request_len(Some(name)),
            };
            let head_bytes = if let Head::Begin { size } = head { begin_header_len(size) } else { 2 };
            prop_assert_eq!(payload.start, request_bytes + head_bytes);
            prop_assert_eq!(is_plain_middle(&packet), request.is_none() && head == Head::Middle);
            prop_assert_eq!(parse(&packet), Ok(Packet { request, inner }));
        }
    }
}
