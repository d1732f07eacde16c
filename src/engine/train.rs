//! Pieces become trains: header bytes, mapped ranges and padding in the order in which they go out.

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

/// Most bytes that one piece takes up in a train's arena: a tail with its headers and padding.
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
        if data.tail { self.add_tail(train, piece, data, source) } else { self.add_mapped(train, piece, data, source) }
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

    /// Whole packets of mapped bytes.
    fn add_mapped(&self, train: &mut Gather, piece: &Piece, data: Data, source: &OpenSource) -> Result<(), String> {
        let map = source.file.map().map_err(|error| error.to_string())?.ok_or("it is empty now")?;
        let n = self.packet_len.bytes();
        let (mut offset, end) = (data.offset.0, data.offset.0 + data.length as u64);
        let first = n - piece.header.len();
        let mut fits = train.push_bytes(&piece.header) && train.push_mapped(map, offset, first);
        offset += first as u64;
        while offset < end {
            let each = n - piece.middle.len();
            fits &= train.push_bytes(&piece.middle) && train.push_mapped(map, offset, each);
            offset += each as u64;
        }
        assert!(fits, "a piece was asked for that fits the train");
        Ok(())
    }

    /// An object's last bytes: read, and the file found unchanged after all of it was read or sent.
    fn add_tail(&mut self, train: &mut Gather, piece: &Piece, data: Data, source: &OpenSource) -> Result<(), String> {
        self.scratch.resize(data.length, 0);
        source.file.read_exact_at(self.scratch, data.offset).map_err(|error| error.to_string())?;
        source.file.verify_unchanged().map_err(|error| error.to_string())?;
        let n = self.packet_len.bytes();
        let mut fits = train.push_bytes(&piece.header);
        let mut rest = self.scratch.as_slice();
        let mut room = n - piece.header.len();
        loop {
            let (now, later) = rest.split_at(rest.len().min(room));
            fits &= train.push_bytes(now);
            room -= now.len();
            rest = later;
            if rest.is_empty() {
                break;
            }
            fits &= train.push_bytes(&piece.middle);
            room = n - piece.middle.len();
        }
        fits &= train.push_bytes(self.shared.padding.slice(room, self.padding_cursor));
        assert!(fits, "a piece was asked for that fits the train");
        Ok(())
    }
}
