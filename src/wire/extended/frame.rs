//! Frames, and how their heads are written.

use std::fmt;

use crate::limits;
use crate::units::{ByteCount, ObjectName, Offset, PacketLen};
use crate::wire::duplex::{NameTooLong, decimal_len, encode_decimal, encode_name, encoded_name_len};

/// In front of a request.
pub(super) const REQUEST: &[u8; 2] = b"R:";
/// In front of a range's data.
pub(super) const BEGIN: &[u8; 2] = b"B:";
/// In front of the id of a request whose object is not here now.
pub(super) const PENDING: &[u8; 2] = b"P:";
/// In front of the id of a request that is refused.
pub(super) const REFUSED: &[u8; 2] = b"F:";
/// In front of the id of a request that is taken back.
pub(super) const CANCEL: &[u8; 2] = b"C:";
/// The whole of a keep-alive.
pub(super) const KEEP_ALIVE: &[u8; 2] = b"K:";
/// In front of a subscription and of news.
pub(super) const INVENTORY: &[u8; 2] = b"I:";
/// Digits of a checksum.
pub(super) const CRC_DIGITS: usize = 8;
/// The colon that ends each field.
const COLON: usize = 1;

/// What a requester calls one of its requests; unique among those outstanding on its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}", self.0)
    }
}

/// One life of a server's inventory log; numbers of entries mean nothing across epochs. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// The number of an entry in an inventory log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

/// Why a request is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// There is no such object any more.
    Gone,
    /// It is not the one that the inventory described.
    Changed,
    /// Its bytes cannot be read, or are not the ones that the inventory described.
    Damaged,
    /// The request makes no sense, such as a range beyond the object's end.
    Invalid,
}

impl Refusal {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Gone, Self::Changed, Self::Damaged, Self::Invalid];

    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Changed => "changed",
            Self::Damaged => "damaged",
            Self::Invalid => "invalid",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One frame; of [`Frame::Begin`] and [`Frame::News`] the head, behind which their data comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// `R:id:name:offset:length:`, answered by one or more `B:` of that id, offsets ascending, or by `P:` or `F:`.
    /// `R:id:name:0:0:` asks for no bytes: it tells an interest in the object.
    Request {
        /// Chosen by the requester.
        id: RequestId,
        /// Whose bytes.
        name: ObjectName,
        /// From where.
        offset: Offset,
        /// How many, 0 only from the start; the range ends at [`limits::OBJECT_BYTES_MAX`] at most.
        length: ByteCount,
    },
    /// `B:id:offset:length:crc:`, data follows.
    Begin {
        /// The request that it answers.
        id: RequestId,
        /// Where in the object the data belongs.
        offset: Offset,
        /// Bytes of data, at least 1, within one block.
        length: ByteCount,
        /// CRC-32C of the data.
        crc: u32,
    },
    /// `P:id:`, not here now; the request is over.
    Pending {
        /// The request.
        id: RequestId,
    },
    /// `F:id:reason:`, refused for good; the request is over.
    Refused {
        /// The request.
        id: RequestId,
        /// Why.
        reason: Refusal,
    },
    /// `C:id:`, the requester wants no more of it; what is on its way still comes.
    Cancel {
        /// The request.
        id: RequestId,
    },
    /// `K:`.
    KeepAlive,
    /// `I:epoch:seq:`, the requester wants the entries of the inventory from number `seq` on, and those to come.
    Subscribe {
        /// The log that it knows; 0 for none.
        epoch: Epoch,
        /// The first entry that it does not know.
        seq: Seq,
    },
    /// `I:epoch:seq:length:crc:`, entries of the [`inventory`](crate::wire::inventory) follow.
    News {
        /// The log that they are from; another than was asked for means that it starts over.
        epoch: Epoch,
        /// Number of the first.
        seq: Seq,
        /// Bytes of them, 1 to [`limits::NEWS_BYTES_MAX`].
        length: ByteCount,
        /// CRC-32C of these bytes.
        crc: u32,
    },
    /// `I:epoch:seq:0:origin:`, the answer to a subscription, behind all news: whoever has had the log up to `seq`
    /// knows all that there was at its origin at some time after it subscribed.
    Whole {
        /// The log that it is about; it starts over, and is empty, where that is another than was asked for and told.
        epoch: Epoch,
        /// The number that the next entry will have, at least.
        seq: Seq,
        /// Where the entries come from in the first place: CRC-32C of that node's name.
        origin: u32,
    },
}

/// Whose data it is that follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataOf {
    /// Bytes of an object, in answer to this request.
    Request(RequestId),
    /// Entries of an inventory.
    News,
}

impl Frame {
    /// Appends the frame's head. What it holds must be within the bounds told at its fields; a peer's
    /// [`Reader`](super::Reader) refuses anything else.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Request { id, name, offset, length } => {
                out.extend_from_slice(REQUEST);
                encode_number(out, id.0.into());
                encode_name(out, name);
                out.push(b':');
                encode_number(out, offset.0);
                encode_number(out, length.0);
            }
            Self::Begin { id, offset, length, crc } => {
                out.extend_from_slice(BEGIN);
                encode_number(out, id.0.into());
                encode_number(out, offset.0);
                encode_number(out, length.0);
                encode_crc(out, *crc);
            }
            Self::Pending { id } => encode_answer(out, PENDING, *id),
            Self::Refused { id, reason } => {
                encode_answer(out, REFUSED, *id);
                out.extend_from_slice(reason.as_str().as_bytes());
                out.push(b':');
            }
            Self::Cancel { id } => encode_answer(out, CANCEL, *id),
            Self::KeepAlive => out.extend_from_slice(KEEP_ALIVE),
            Self::Subscribe { epoch, seq } => encode_inventory(out, *epoch, *seq),
            Self::News { epoch, seq, length, crc } => {
                encode_inventory(out, *epoch, *seq);
                encode_number(out, length.0);
                encode_crc(out, *crc);
            }
            Self::Whole { epoch, seq, origin } => {
                encode_inventory(out, *epoch, *seq);
                encode_number(out, 0);
                encode_crc(out, *origin);
            }
        }
    }

    /// Bytes that [`Frame::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        let fields = match self {
            Self::Request { id, name, offset, length } => {
                let name = encoded_name_len(name) + COLON;
                number_len(id.0.into()) + name + number_len(offset.0) + number_len(length.0)
            }
            Self::Begin { id, offset, length, crc: _ } => {
                number_len(id.0.into()) + number_len(offset.0) + number_len(length.0) + CRC_DIGITS + COLON
            }
            Self::Pending { id } | Self::Cancel { id } => number_len(id.0.into()),
            Self::Refused { id, reason } => number_len(id.0.into()) + reason.as_str().len() + COLON,
            Self::KeepAlive => 0,
            Self::Subscribe { epoch, seq } => number_len(epoch.0) + number_len(seq.0),
            Self::News { epoch, seq, length, crc: _ } => {
                number_len(epoch.0) + number_len(seq.0) + number_len(length.0) + CRC_DIGITS + COLON
            }
            Self::Whole { epoch, seq, origin: _ } => {
                number_len(epoch.0) + number_len(seq.0) + number_len(0) + CRC_DIGITS + COLON
            }
        };
        REQUEST.len() + fields
    }

    /// Whose data follows the head, where it starts in the object (in the news), and how much there is.
    pub fn data(&self) -> Option<(DataOf, Offset, ByteCount)> {
        match self {
            Self::Begin { id, offset, length, .. } => Some((DataOf::Request(*id), *offset, *length)),
            Self::News { length, .. } => Some((DataOf::News, Offset(0), *length)),
            _ => None,
        }
    }
}

/// Whether any range of `name` can be requested in packets of `packet_bytes`, whatever the request's id. Asked before
/// the object is wanted; all other frames fit the shortest packet.
pub fn check_request_fits(name: &ObjectName, packet_bytes: PacketLen) -> Result<(), NameTooLong> {
    let longest_number = decimal_len(limits::OBJECT_BYTES_MAX) + COLON;
    let needed_bytes =
        REQUEST.len() + number_len(u32::MAX.into()) + encoded_name_len(name) + COLON + 2 * longest_number;
    if needed_bytes > packet_bytes.bytes() {
        return Err(NameTooLong { name: name.clone(), needed_bytes, packet_bytes });
    }
    Ok(())
}

fn encode_answer(out: &mut Vec<u8>, letter: &[u8; 2], id: RequestId) {
    out.extend_from_slice(letter);
    encode_number(out, id.0.into());
}

fn encode_inventory(out: &mut Vec<u8>, epoch: Epoch, seq: Seq) {
    out.extend_from_slice(INVENTORY);
    encode_number(out, epoch.0);
    encode_number(out, seq.0);
}

fn encode_number(out: &mut Vec<u8>, number: u64) {
    encode_decimal(out, number);
    out.push(b':');
}

fn encode_crc(out: &mut Vec<u8>, crc: u32) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend((0..CRC_DIGITS).rev().map(|digit| DIGITS[(crc >> (4 * digit)) as usize & 15]));
    out.push(b':');
}

fn number_len(number: u64) -> usize {
    decimal_len(number) + COLON
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8]) -> ObjectName {
        ObjectName::new(bytes).expect("a test's name is valid")
    }

    #[test]
    fn a_request_fits_where_its_longest_form_does() {
        let shortest = PacketLen::new(limits::PACKET_BYTES_MIN).expect("in bounds");
        // 64 = "R:" 10 ":" name ":" 19 ":" 19 ":"
        assert_eq!(check_request_fits(&name(b"tenbytes.x"), shortest), Ok(()));
        let error = check_request_fits(&name(b"elevenbytes"), shortest).expect_err("too long");
        assert_eq!((error.needed_bytes, error.packet_bytes), (65, shortest));
        assert!(check_request_fits(&name(b"a:b:c:"), shortest).is_err(), "escapes count three times");

        let (offset, length) = (Offset(limits::OBJECT_BYTES_MAX - 1), ByteCount(1));
        let longest = Frame::Request { id: RequestId(u32::MAX), name: name(b"tenbytes.x"), offset, length };
        // No range has both numbers of 19 digits and ends within the longest object, but nearly so.
        assert!(longest.encoded_len() <= 64);
    }

    #[test]
    fn every_head_but_a_requests_fits_the_shortest_packet() {
        let (id, crc, length) = (RequestId(u32::MAX), u32::MAX, ByteCount(limits::BLOCK_BYTES));
        let (epoch, seq) = (Epoch(u64::MAX), Seq(u64::MAX));
        let longest = [
            Frame::Begin { id, offset: Offset(limits::OBJECT_BYTES_MAX), length, crc },
            Frame::Pending { id },
            Frame::Refused { id, reason: Refusal::Damaged },
            Frame::Cancel { id },
            Frame::Subscribe { epoch, seq },
            Frame::News { epoch, seq, length: ByteCount(limits::NEWS_BYTES_MAX as u64), crc },
            Frame::Whole { epoch, seq, origin: crc },
        ];
        for frame in longest {
            assert!(frame.encoded_len() <= limits::PACKET_BYTES_MIN as usize, "{frame:?}: {}", frame.encoded_len());
        }
    }
}
