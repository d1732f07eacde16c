//! Frames and their data, laid out into packets.

use std::ops::Range;

use super::frame::{DataOf, Frame};
use crate::units::{ByteCount, Offset, PacketLen};
use crate::wire::duplex::{MIDDLE, NIL};

/// What goes out next. All segments of a train, in order, are its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Bytes of [`Packer::heads`].
    Bytes(Range<usize>),
    /// Data, without anything in between.
    Data {
        /// Whose bytes.
        of: DataOf,
        /// From where in the object (in the news).
        offset: Offset,
        /// How many, at least 1.
        length: usize,
    },
    /// Whole packets of data: `M:` and `each` bytes, `packets` times.
    DataRun {
        /// Whose bytes.
        of: DataOf,
        /// From where in the object (in the news).
        offset: Offset,
        /// How many packets, at least 1.
        packets: usize,
        /// Bytes of data in each, N - 2.
        each: usize,
    },
    /// Any bytes; what of a packet's padding follows its `N:`, or a packet's last byte.
    Padding {
        /// How many, at least 1.
        length: usize,
    },
}

/// A head that fits no packet: a request with a long name. It was not laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame's head of {head_bytes} bytes does not fit into a packet of {packet_bytes} bytes")]
pub struct HeadTooLong {
    /// Bytes of the head.
    pub head_bytes: usize,
    /// N.
    pub packet_bytes: PacketLen,
}

/// The data that is still to be laid out.
#[derive(Debug, Clone, Copy)]
struct Open {
    of: DataOf,
    offset: Offset,
    remaining: u64,
}

/// Lays out one direction of a link, train by train.
///
/// For each train [`Packer::start`], then [`Packer::push_head`] and, behind a head with data, [`Packer::push_data`]
/// until [`Packer::remaining`] is 0; then [`Packer::finish`]. A train may end and the next one start within data, but
/// only where a packet ends: [`Packer::data_room`] never tells any other place. Kept and reused, it allocates only for
/// more heads and segments than any train before.
#[derive(Debug)]
pub struct Packer {
    packet_len: PacketLen,
    /// How much of the packet being laid out is; 0 where none has been begun.
    position: usize,
    open: Option<Open>,
    heads: Vec<u8>,
    segments: Vec<Segment>,
    packets: usize,
}

impl Packer {
    /// A packer of the packets behind `X:`.
    pub fn new(packet_len: PacketLen) -> Self {
        let (heads, segments) = (Vec::new(), Vec::new());
        Self { packet_len, position: 0, open: None, heads, segments, packets: 0 }
    }

    /// Drops the segments of the last train and starts a new one, in the packet that the last one has left open, if it
    /// has.
    pub fn start(&mut self) {
        self.heads.clear();
        self.segments.clear();
        self.packets = usize::from(self.position > 0);
    }

    /// Lays out a frame's head, in a new packet where the one before has no room. Data that it announces must follow.
    ///
    /// # Panics
    /// Where data of the frame before is still to be laid out.
    pub fn push_head(&mut self, frame: &Frame) -> Result<(), HeadTooLong> {
        assert!(self.open.is_none(), "the data of a frame comes before the next frame");
        let n = self.packet_len.bytes();
        let head_bytes = frame.encoded_len();
        if head_bytes > n {
            return Err(HeadTooLong { head_bytes, packet_bytes: self.packet_len });
        }
        if head_bytes > n - self.position {
            self.pad();
        }
        self.begin_packet();
        let start = self.heads.len();
        frame.encode(&mut self.heads);
        debug_assert_eq!(self.heads.len() - start, head_bytes);
        self.add_heads(start);
        self.advance(head_bytes);
        self.open = frame.data().map(|(of, offset, length)| Open { of, offset, remaining: length.0 });
        Ok(())
    }

    /// Lays out the next `length` bytes of the data that the last head announced: the rest of the packet, then a run of
    /// whole packets, then a part of one.
    ///
    /// # Panics
    /// Where so much was not announced.
    pub fn push_data(&mut self, length: ByteCount) {
        let n = self.packet_len.bytes();
        let each = n - MIDDLE.len();
        let mut rest = length.0;
        assert!(rest <= self.remaining().0, "{length} of data, of which {} were announced", self.remaining());
        if self.position > 0 && rest > 0 {
            rest -= self.add_data(rest.min((n - self.position) as u64) as usize);
        }
        let packets = (rest / each as u64) as usize;
        if packets > 0 {
            rest -= self.add_run(packets, each);
        }
        if rest > 0 {
            self.begin_packet();
            let start = self.heads.len();
            self.heads.extend_from_slice(MIDDLE);
            self.add_heads(start);
            self.advance(MIDDLE.len());
            self.add_data(rest as usize);
        }
        if self.remaining().0 == 0 {
            self.open = None;
        }
    }

    /// Pads the packet that has been begun, if one has.
    ///
    /// # Panics
    /// Where the packet would have to go on with data.
    pub fn finish(&mut self) {
        assert!(self.position == 0 || self.open.is_none(), "a train ends where a packet ends, or behind all data");
        self.pad();
    }

    /// Ends the train where the last whole packet ends. How many bytes are behind that: they are the caller's to keep,
    /// and the first ones of the next train.
    ///
    /// # Panics
    /// Where the packet would have to go on with data.
    pub fn hold(&mut self) -> usize {
        assert!(self.position == 0 || self.open.is_none(), "a train ends where a packet ends, or behind all data");
        self.packets -= usize::from(self.position > 0);
        self.position
    }

    /// The bytes that [`Segment::Bytes`] tells of.
    pub fn heads(&self) -> &[u8] {
        &self.heads
    }

    /// The train so far.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// How many packets of this train have been begun.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Bytes left in the packet that has been begun; 0 where none has.
    pub fn room_in_packet(&self) -> usize {
        if self.position == 0 { 0 } else { self.packet_len.bytes() - self.position }
    }

    /// Data that is still to be laid out before another head can be.
    pub fn remaining(&self) -> ByteCount {
        ByteCount(self.open.map_or(0, |open| open.remaining))
    }

    /// How much data may be laid out now, so that the train, finished, has at most so many packets. It is all that
    /// remains, or ends where a packet ends; it is 0 where the train should be finished first. But the packet that has
    /// been begun is always filled, or else it could not be finished.
    pub fn data_room(&self, packets_max: usize) -> ByteCount {
        let remaining = self.remaining().0;
        let in_packet = self.room_in_packet();
        let packets = packets_max.saturating_sub(self.packets);
        let each = self.packet_len.bytes() - MIDDLE.len();
        ByteCount(remaining.min((in_packet as u64).saturating_add(packets as u64 * each as u64)))
    }

    /// Pads the packet that has been begun, if one has, to its end.
    fn pad(&mut self) {
        let mut length = self.room_in_packet();
        if length >= NIL.len() {
            let start = self.heads.len();
            self.heads.extend_from_slice(NIL);
            self.add_heads(start);
            length -= NIL.len();
        }
        if length > 0 {
            self.segments.push(Segment::Padding { length });
        }
        self.position = 0;
    }

    /// Counts the packet that the next bytes begin.
    fn begin_packet(&mut self) {
        self.packets += usize::from(self.position == 0);
    }

    /// Bytes were laid out into a packet that has room for them.
    fn advance(&mut self, length: usize) {
        self.position += length;
        if self.position == self.packet_len.bytes() {
            self.position = 0;
        }
    }

    /// Adds all heads from `start` on, to the heads before if nothing stands between.
    fn add_heads(&mut self, start: usize) {
        let end = self.heads.len();
        if let Some(Segment::Bytes(range)) = self.segments.last_mut() {
            range.end = end;
        } else {
            self.segments.push(Segment::Bytes(start..end));
        }
    }

    /// Data for the packet that has been begun.
    fn add_data(&mut self, length: usize) -> u64 {
        let (of, offset) = self.take(length as u64);
        // Only data that was laid out into the same packet can stand last.
        if let Some(Segment::Data { length: before, .. }) = self.segments.last_mut() {
            *before += length;
        } else {
            self.segments.push(Segment::Data { of, offset, length });
        }
        self.advance(length);
        length as u64
    }

    fn add_run(&mut self, packets: usize, each: usize) -> u64 {
        let length = packets as u64 * each as u64;
        let (of, offset) = self.take(length);
        self.segments.push(Segment::DataRun { of, offset, packets, each });
        self.packets += packets;
        length
    }

    /// The next `length` bytes of the open data are laid out.
    fn take(&mut self, length: u64) -> (DataOf, Offset) {
        let open = self.open.as_mut().expect("push_data has checked that so much remains");
        let offset = open.offset;
        open.offset = Offset(offset.0 + length);
        open.remaining -= length;
        (open.of, offset)
    }
}
