//! Pieces become trains: header bytes, ranges of objects and padding in the order in which they go out.

use std::sync::Arc;

use bytes::Bytes;

use super::shared::Shared;
use super::space::Space;
use crate::limits;
use crate::proto::duplex::{Data, Piece};
use crate::store::{Source, SourceError, StoreError};
use crate::transfer::{FlowId, RangeRequest};
use crate::units::{ByteCount, Generation, ObjectId, ObjectName, Offset, PacketLen};
use crate::uring::Gather;
use crate::wire::duplex::MIDDLE;
use crate::wire::hello::Hello;

/// The file that a link is sending from.
#[derive(Debug)]
pub(super) struct OpenSource {
    pub(super) id: ObjectId,
    pub(super) generation: Generation,
    file: Arc<Source>,
}

/// What a piece is laid out with.
pub(super) struct Layout<'a> {
    pub(super) shared: &'a Shared,
    pub(super) packet_len: PacketLen,
    pub(super) hello: &'a Hello,
    pub(super) padding_cursor: &'a mut u64,
    pub(super) scratch: &'a mut Vec<u8>,
}

/// Most bytes that a piece takes up in a train though there was room for one packet: a tail with headers and padding.
pub(super) fn worst_piece_bytes(packet_len: PacketLen) -> usize {
    let n = packet_len.bytes();
    (limits::TAIL_BYTES_MAX.div_ceil(n - MIDDLE.len()) + 2) * n
}

impl OpenSource {
    /// Opens what is served of an object.
    pub(super) fn open(shared: &Shared, flow: FlowId, data: Data, name: &ObjectName) -> Result<Self, String> {
        let file = shared.source((flow, data.id, data.generation), name).map_err(|error| error.to_string())?;
        file.advise_sequential();
        Ok(Self { id: data.id, generation: data.generation, file })
    }

    /// The same, for ranges of it.
    pub(super) fn open_range(
        shared: &Shared,
        flow: FlowId,
        range: RangeRequest,
        name: &ObjectName,
    ) -> Result<Self, StoreError> {
        let key = (flow, range.object, range.generation);
        let file = shared.source(key, name)?;
        Ok(Self { id: range.object, generation: range.generation, file })
    }

    /// Reads a range, and finds the file unchanged after that.
    pub(super) fn read(&self, mut space: Space, offset: Offset, length: ByteCount) -> Result<Bytes, SourceError> {
        space.fill(length, |bytes| self.file.read_exact_at(bytes, offset))?;
        self.file.verify_unchanged()?;
        Ok(space.freeze())
    }

    /// A file may have been replaced by one of another length between the scan and the opening.
    fn has_length_of(&self, data: Data) -> Result<(), String> {
        let end = ByteCount(data.offset.0 + data.length as u64);
        let size = self.file.size();
        let fits = if data.tail { end == size } else { end < size };
        if fits { Ok(()) } else { Err(format!("it has {size} now, which is not what was announced")) }
    }
}

impl Layout<'_> {
    /// Adds a piece to the train, which has room for it. An error says why the data cannot be had; the train is then
    /// as it was.
    pub(super) fn add(&mut self, train: &mut Gather, piece: &Piece, source: Option<&OpenSource>) -> Result<(), String> {
        let Some(data) = piece.data else {
            self.add_control(train, piece);
            return Ok(());
        };
        let source = source.ok_or("it was not opened")?;
        source.has_length_of(data)?;
        self.add_data(train, piece, data, source).map_err(|error| error.to_string())
    }

    fn add_control(&mut self, train: &mut Gather, piece: &Piece) {
        assert!(train.push_bytes(&piece.header), "the train has room for a packet");
        let padding = self.packet_len.bytes() - piece.header.len();
        let space = train.arena_mut(padding).expect("the train has room for a packet");
        space.copy_from_slice(self.shared.padding.slice(padding, self.padding_cursor));
        if piece.hello {
            self.hello.write_into(space).expect("the configuration was refused if the hello does not fit");
        }
    }

    /// Bytes of an object, read, and the file found unchanged after that. The packet behind its last bytes is padded.
    fn add_data(
        &mut self,
        train: &mut Gather,
        piece: &Piece,
        data: Data,
        source: &OpenSource,
    ) -> Result<(), SourceError> {
        let n = self.packet_len.bytes();
        // Long packets are read one by one into their places; many short ones cost less to read at once, and to copy.
        let at_once = n < limits::PIECE_BYTES_UNCOPIED_MIN;
        if at_once {
            self.scratch.resize(data.length, 0);
            source.file.read_exact_at(self.scratch, data.offset)?;
        }
        let mut fits = train.push_bytes(&piece.header);
        let (mut at, mut room) = (0, n - piece.header.len());
        loop {
            let part = at..data.length.min(at + room);
            (at, room) = (part.end, room - part.len());
            if at_once {
                fits &= train.push_bytes(&self.scratch[part]);
            } else {
                let place = train.arena_mut(part.len()).expect("a piece was asked for that fits the train");
                source.file.read_exact_at(place, Offset(data.offset.0 + part.start as u64))?;
            }
            if at == data.length {
                break;
            }
            fits &= train.push_bytes(&piece.middle);
            room = n - piece.middle.len();
        }
        fits &= train.push_bytes(self.shared.padding.slice(room, self.padding_cursor));
        assert!(fits, "a piece was asked for that fits the train");
        source.file.verify_unchanged()
    }
}
