//! Heads of frames, taken apart.

use super::error::{Expected, FrameError};
use super::frame::{
    BEGIN, CANCEL, CRC_DIGITS, Epoch, Frame, INVENTORY, KEEP_ALIVE, PENDING, REFUSED, REQUEST, Refusal, RequestId, Seq,
};
use crate::limits;
use crate::units::{ByteCount, ObjectName, Offset};
use crate::wire::Excerpt;
use crate::wire::duplex::{PacketError, decode_name, find_name_end};

/// The frame whose head starts at `at` of `packet`, and the position behind its head. `packet_at` is told in errors.
pub(super) fn parse(packet: &[u8], at: usize, packet_at: usize) -> Result<(Frame, usize), FrameError> {
    let mut head = Head { packet, at: at + 2, packet_at };
    let letter = packet.get(at..).and_then(<[u8]>::first_chunk::<2>);
    let frame = match letter {
        Some(REQUEST) => {
            let (id, name) = (head.id()?, head.name()?);
            let range_at = head.at;
            let (offset, length) = (Offset(head.number()?), ByteCount(head.number()?));
            let is_none = offset.0 == 0 && length.0 == 0;
            head.check(range_at, is_none || is_in_object(offset, length), Expected::RangeInObject)?;
            Frame::Request { id, name, offset, length }
        }
        Some(BEGIN) => {
            let id = head.id()?;
            let range_at = head.at;
            let (offset, length) = (Offset(head.number()?), ByteCount(head.number()?));
            head.check(range_at, is_in_block(offset, length), Expected::RangeInBlock)?;
            Frame::Begin { id, offset, length, crc: head.crc()? }
        }
        Some(PENDING) => Frame::Pending { id: head.id()? },
        Some(REFUSED) => Frame::Refused { id: head.id()?, reason: head.refusal()? },
        Some(CANCEL) => Frame::Cancel { id: head.id()? },
        Some(KEEP_ALIVE) => Frame::KeepAlive,
        Some(INVENTORY) => {
            let (epoch, seq) = (Epoch(head.number()?), Seq(head.number()?));
            if head.is_at_number() {
                let length_at = head.at;
                let length = ByteCount(head.number()?);
                head.check(length_at, length.0 <= limits::NEWS_BYTES_MAX as u64, Expected::NewsLength)?;
                match (length, head.crc()?) {
                    (ByteCount(0), origin) => Frame::Whole { epoch, seq, origin },
                    (length, crc) => Frame::News { epoch, seq, length, crc },
                }
            } else {
                Frame::Subscribe { epoch, seq }
            }
        }
        _ => return Err(head.unexpected(at, Expected::Frame)),
    };
    Ok((frame, head.at))
}

/// `expected` stands somewhere else than at `position` of `packet`.
#[cold]
pub(super) fn unexpected(packet: &[u8], position: usize, packet_at: usize, expected: Expected) -> FrameError {
    FrameError::Unexpected { packet_at, position, expected, found: Excerpt::of(packet, position) }
}

fn is_in_object(offset: Offset, length: ByteCount) -> bool {
    let end = offset.0.checked_add(length.0);
    length.0 > 0 && end.is_some_and(|end| end <= limits::OBJECT_BYTES_MAX)
}

fn is_in_block(offset: Offset, length: ByteCount) -> bool {
    is_in_object(offset, length) && offset.0 % limits::BLOCK_BYTES + length.0 <= limits::BLOCK_BYTES
}

/// A place in a head.
struct Head<'a> {
    packet: &'a [u8],
    at: usize,
    packet_at: usize,
}

impl Head<'_> {
    fn rest(&self) -> &[u8] {
        self.packet.get(self.at..).unwrap_or_default()
    }

    /// Whether a field that is a number comes next. A last byte is padding, whatever it is.
    fn is_at_number(&self) -> bool {
        matches!(self.rest(), [first, _, ..] if first.is_ascii_digit())
    }

    fn id(&mut self) -> Result<RequestId, FrameError> {
        let at = self.at;
        let id = u32::try_from(self.number()?);
        id.map(RequestId).map_err(|_| self.unexpected(at, Expected::IdInRange))
    }

    /// `digits ":"`. Leading zeros are harmless and accepted, as in [`duplex`](crate::wire::duplex).
    fn number(&mut self) -> Result<u64, FrameError> {
        let rest = self.rest();
        let mut number: u128 = 0;
        let mut digits = 0;
        for byte in rest.iter().take(limits::SIZE_DIGITS_MAX) {
            if !byte.is_ascii_digit() {
                break;
            }
            number = number * 10 + u128::from(byte - b'0');
            digits += 1;
        }
        if digits == 0 {
            return Err(self.unexpected(self.at, Expected::Digit));
        }
        if rest.get(digits) != Some(&b':') {
            return Err(self.unexpected(self.at + digits, Expected::NumberEnd));
        }
        let number = u64::try_from(number).map_err(|_| self.unexpected(self.at, Expected::NumberInRange))?;
        self.at += digits + 1;
        Ok(number)
    }

    fn name(&mut self) -> Result<ObjectName, FrameError> {
        let name = find_name_end(self.packet, self.at)
            .and_then(|end| decode_name(self.packet, self.at..end).map(|name| (name, end)));
        let packet_at = self.packet_at;
        let (name, end) = name.map_err(|error| match error {
            PacketError::Unexpected { position, expected, found } => {
                FrameError::Unexpected { packet_at, position, expected: Expected::Name(expected), found }
            }
            PacketError::Name { position, found, source } => FrameError::Name { packet_at, position, found, source },
        })?;
        self.at = end + 1;
        Ok(name)
    }

    fn crc(&mut self) -> Result<u32, FrameError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let field = self.rest().first_chunk::<{ CRC_DIGITS + 1 }>();
        let crc = field.and_then(|[digits @ .., colon]| {
            let mut digits = digits.iter();
            let crc = digits.try_fold(0, |crc: u32, byte| Some(crc << 4 | u32::from(digit(*byte)?)));
            crc.filter(|_| *colon == b':')
        });
        let crc = crc.ok_or_else(|| self.unexpected(self.at, Expected::Checksum))?;
        self.at += CRC_DIGITS + 1;
        Ok(crc)
    }

    fn refusal(&mut self) -> Result<Refusal, FrameError> {
        for reason in Refusal::ALL {
            let after = self.rest().strip_prefix(reason.as_str().as_bytes());
            if after.is_some_and(|after| after.first() == Some(&b':')) {
                self.at += reason.as_str().len() + 1;
                return Ok(reason);
            }
        }
        Err(self.unexpected(self.at, Expected::Refusal))
    }

    fn check(&self, at: usize, holds: bool, expected: Expected) -> Result<(), FrameError> {
        if holds { Ok(()) } else { Err(self.unexpected(at, expected)) }
    }

    fn unexpected(&self, position: usize, expected: Expected) -> FrameError {
        unexpected(self.packet, position, self.packet_at, expected)
    }
}
