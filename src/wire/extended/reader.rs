//! Trains of packets, taken apart into frames and runs of data.

use std::ops::Range;

use super::error::{Expected, FrameError};
use super::frame::{DataOf, Frame};
use super::parse::{parse, unexpected};
use crate::units::{Offset, PacketLen};
use crate::wire::duplex::{MIDDLE, NIL, plain_middles};

/// What stands next in a train.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A frame; the data of [`Frame::Begin`] and [`Frame::News`] comes as the next items.
    Frame(Frame),
    /// Some of the data.
    Data(Data),
    /// The data is complete.
    DataEnd(DataOf),
}

/// Bytes of a frame's data. They lie in the train in pieces of `each` bytes, `stride` apart, the last one shorter if
/// `length` says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    /// Whose bytes.
    pub of: DataOf,
    /// Where in the object (in the news) they belong.
    pub offset: Offset,
    /// Where in the train the first piece starts.
    pub at: usize,
    /// From the start of a piece to the start of the next, bytes.
    pub stride: usize,
    /// Bytes of a piece.
    pub each: usize,
    /// Bytes in all, at least 1.
    pub length: usize,
}

impl Data {
    /// The pieces as ranges of the train.
    pub fn pieces(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.length.div_ceil(self.each)).map(move |i| {
            let start = self.at + i * self.stride;
            start..start + self.each.min(self.length - i * self.each)
        })
    }
}

/// The data that is still to come.
#[derive(Debug, Clone, Copy)]
struct Open {
    of: DataOf,
    offset: Offset,
    remaining: usize,
}

/// Takes one direction of a link apart.
///
/// For each train [`Reader::start`] once, then [`Reader::next`] with that train until it returns `Ok(None)`. After an
/// error the link must be closed; items before it are good.
#[derive(Debug)]
pub struct Reader {
    packet_len: PacketLen,
    /// Where in the train the packet being read starts.
    packet_at: usize,
    /// How much of that packet has been read.
    position: usize,
    open: Option<Open>,
}

impl Reader {
    /// A reader of the packets behind `X:`.
    pub fn new(packet_len: PacketLen) -> Self {
        Self { packet_len, packet_at: 0, position: 0, open: None }
    }

    /// A new train begins, with the packet after the last one that was read.
    pub fn start(&mut self) {
        debug_assert!(self.position == 0, "a train is read to its end before the next one");
        self.packet_at = 0;
    }

    /// What stands next in `train`, which must be the same until [`Reader::start`]. `None`: all of its whole packets
    /// are read; a packet at its end that is not whole yet was not looked at.
    #[inline]
    pub fn next(&mut self, train: &[u8]) -> Result<Option<Item>, FrameError> {
        let n = self.packet_len.bytes();
        loop {
            if let Some(open) = self.open.filter(|open| open.remaining == 0) {
                self.open = None;
                self.leave_short_rest(n);
                return Ok(Some(Item::DataEnd(open.of)));
            }
            let Some(packet) = train.get(self.packet_at..self.packet_at + n) else { return Ok(None) };
            if let Some(open) = self.open {
                return self.take_data(train, open).map(|data| Some(Item::Data(data)));
            }
            if packet[self.position..].starts_with(NIL) {
                self.packet_at += n;
                self.position = 0;
                continue;
            }
            let (frame, end) = parse(packet, self.position, self.packet_at)?;
            self.position = end;
            match frame.data() {
                Some((of, offset, length)) => {
                    self.open = Some(Open { of, offset, remaining: length.0 as usize });
                    self.leave_full_packet(n);
                }
                None => self.leave_short_rest(n),
            }
            return Ok(Some(Item::Frame(frame)));
        }
    }

    /// How many bytes of the train have been read; whole packets, once [`Reader::next`] has returned `None`.
    pub fn consumed(&self) -> usize {
        self.packet_at + self.position
    }

    /// The rest of the packet that a head stands in, else a run of packets that go on with `M:`. There is a whole
    /// packet, and `open` has bytes remaining.
    fn take_data(&mut self, train: &[u8], open: Open) -> Result<Data, FrameError> {
        let n = self.packet_len.bytes();
        let Open { of, offset, remaining } = open;
        let data = if self.position > 0 {
            let length = remaining.min(n - self.position);
            let at = self.packet_at + self.position;
            self.position += length;
            Data { of, offset, at, stride: n, each: length, length }
        } else {
            let each = n - MIDDLE.len();
            let rest = &train[self.packet_at..];
            let wanted = remaining.div_ceil(each).min(rest.len() / n);
            let packets = plain_middles(&rest[..wanted * n], self.packet_len);
            if packets == 0 {
                return Err(unexpected(&rest[..n], 0, self.packet_at, Expected::Middle));
            }
            let length = remaining.min(packets * each);
            let at = self.packet_at + MIDDLE.len();
            // The last packet is left only if data fills it: frames may follow.
            self.packet_at += (packets - 1) * n;
            self.position = MIDDLE.len() + (length - (packets - 1) * each);
            Data { of, offset, at, stride: n, each, length }
        };
        self.open =
            Some(Open { of, offset: Offset(offset.0 + data.length as u64), remaining: remaining - data.length });
        self.leave_full_packet(n);
        Ok(data)
    }

    /// A packet of which nothing is left is done.
    fn leave_full_packet(&mut self, n: usize) {
        if self.position == n {
            self.packet_at += n;
            self.position = 0;
        }
    }

    /// Where no data is open, a last byte is padding.
    fn leave_short_rest(&mut self, n: usize) {
        if self.position + 1 >= n {
            self.packet_at += n;
            self.position = 0;
        }
    }
}
