//! Trains of a link that speaks the extended grammar, and the ranges that come in over it.
//!
//! A range goes out from memory: it is read, its checksum taken, its file found unchanged. It comes in into memory too,
//! and is checked there, while the processor has it at hand; the writer lets nothing of a damaged or late copy into a
//! file.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::arriving::Arrived;
use super::connection::Connection;
use super::shared::Shared;
use super::space::Space;
use super::train::{Layout, OpenSource};
use super::writer::WriteJob;
use crate::limits;
use crate::proto::Link;
use crate::proto::extended::{Instruction, Piece};
use crate::store::{SourceError, StoreError};
use crate::transfer::RangeRequest;
use crate::units::{ByteCount, Offset};
use crate::uring::{Gather, socket};
use crate::wire::checksum::crc32c;
use crate::wire::duplex::MIDDLE;
use crate::wire::extended::{DataOf, Frame, Packer, Refusal, Segment};

/// Lays out what the link has to send now, at most about `budget` bytes.
pub(super) fn build(shared: &Shared, connection: &mut Connection, train: &mut Gather, budget: usize) {
    let n = connection.link.packet_len().bytes();
    let mut cap = limits::TRAIN_BYTES_MAX / n;
    let packets_max = (budget / n).clamp(1, cap);
    let mut padding = ByteCount(0);
    let mut laid_out = 0;
    connection.packer.start();
    let fits = train.push_bytes(&connection.held);
    assert!(fits, "an empty train has room for a packet");
    connection.held.clear();
    loop {
        if connection.outgoing.is_some() {
            let room = connection.packer.data_room(packets_max.min(cap));
            if room.0 == 0 {
                break;
            }
            connection.packer.push_data(room);
            padding += lay_out(shared, connection, train, &mut laid_out);
            if connection.packer.remaining().0 > 0 {
                break;
            }
            connection.outgoing = None;
            continue;
        }
        // What comes next fills the packet that has been begun if it can, and may need one of its own for its head.
        let (packets, room) = (connection.packer.packets(), connection.packer.room_in_packet());
        let is_enough = packets >= packets_max && room < limits::HEAD_ROOM;
        if is_enough || (packets >= cap && room < limits::HEAD_BYTES_MAX) {
            break;
        }
        let Some(piece) = poll(shared, connection) else { break };
        match piece {
            Piece::Seed(piece) => {
                let (hello, packet_len) = (connection.link.hello(), connection.link.packet_len());
                let padding_cursor = &mut connection.padding_cursor;
                let mut layout = Layout { shared, packet_len, hello, padding_cursor, scratch: &mut Vec::new() };
                layout.add(train, &piece, None).expect("a packet without data can always be made");
                cap -= 1;
            }
            Piece::Head(frame) => push_head(&mut connection.packer, &frame),
            Piece::News { frame, data } => {
                push_head(&mut connection.packer, &frame);
                connection.outgoing = Some((0, data.into()));
            }
            Piece::Range { id, range } => match read(shared, connection, range) {
                Ok((bytes, crc)) => {
                    let (offset, length) = (range.offset, range.length);
                    push_head(&mut connection.packer, &Frame::Begin { id, offset, length, crc });
                    connection.outgoing = Some((offset.0, bytes));
                }
                Err(why) => {
                    connection.source = None;
                    let serve = connection.serve;
                    if let Link::Extended(link) = &mut connection.link {
                        shared.with_flows(|flows, now| {
                            link.handle_source_failed(id, range, why, now, flows.at(serve));
                        });
                    }
                }
            },
        }
    }
    let hold = may_hold(shared, connection);
    if !hold {
        connection.packer.finish();
    }
    padding += lay_out(shared, connection, train, &mut laid_out);
    if hold {
        train.take_back(connection.packer.hold(), &mut connection.held);
    }
    if let Link::Extended(link) = &mut connection.link {
        link.handle_packed(connection.packer.packets() as u64, padding);
    }
}

/// Whether a packet that is not full may wait for more: while the socket has enough to send, that costs nobody
/// anything, and saves the padding. Otherwise the packet is to be finished now.
fn may_hold(shared: &Shared, connection: &mut Connection) -> bool {
    connection.held_until = None;
    let expects_more = matches!(&connection.link, Link::Extended(link) if link.expects_more());
    if connection.packer.room_in_packet() == 0 || !expects_more {
        connection.held_since = None;
        return false;
    }
    let now = shared.now();
    if connection.packer.packets() > 1 {
        connection.held_since = None;
    }
    let since = *connection.held_since.get_or_insert(now);
    let rate = connection.flight.send_rate.rate(now).map_or(f64::INFINITY, |rate| rate.0);
    let waiting = socket::unacknowledged(&connection.flight.socket).unwrap_or(0);
    let busy_for = Duration::from_secs_f64((waiting as f64 / rate).min(1.0));
    let until = (now + busy_for / 2).min(since + limits::HOLD_PACKET);
    if busy_for < limits::HOLD_PACKET / 8 || until <= now {
        connection.held_since = None;
        return false;
    }
    connection.held_until = Some(until);
    true
}

fn push_head(packer: &mut Packer, frame: &Frame) {
    packer.push_head(frame).expect("the link asks for nothing whose name is too long, and other heads fit any packet");
}

fn poll(shared: &Shared, connection: &mut Connection) -> Option<Piece> {
    let (fetch, serve) = (connection.fetch, connection.serve);
    let Link::Extended(link) = &mut connection.link else { return None };
    shared.with_flows(|flows, now| {
        let (fetch, serve) = flows.pair(fetch, serve);
        link.poll_transmit(now, fetch, serve)
    })
}

/// Why a range cannot be sent: what the peer is told, and what is seen here.
type Unread = (Refusal, String);

/// A range's bytes, all of one version of the file, and their checksum.
fn read(shared: &Shared, connection: &mut Connection, range: RangeRequest) -> Result<(Bytes, u32), Unread> {
    let key = (connection.serve, range.object, range.generation);
    if let Some(kept) = shared.kept(key.0).and_then(|kept| kept.read(key, range.offset, range.length)) {
        return Ok(kept);
    }
    if let Some(recent) = shared.recent(key.0).and_then(|recent| recent.read(key, range.offset, range.length)) {
        return Ok(recent);
    }
    if let Some(ahead) = shared.ahead.take(key, range.offset, range.length) {
        return Ok(ahead);
    }
    let bytes = read_file(shared, connection, range)?;
    let crc = crc32c(&bytes);
    Ok((bytes, crc))
}

fn read_file(shared: &Shared, connection: &mut Connection, range: RangeRequest) -> Result<Bytes, Unread> {
    let is_open = |open: &OpenSource| open.id == range.object && open.generation == range.generation;
    if !connection.source.as_ref().is_some_and(is_open) {
        let serve = connection.serve;
        let name = shared.with_flows(|flows, _| flows.at(serve).name(range.object).clone());
        let open = OpenSource::open_range(shared, serve, range, &name)
            .map_err(|error| unread(matches!(error, StoreError::Io { .. }), &error))?;
        connection.source = Some(open);
    }
    let source = connection.source.as_ref().expect("it was just opened");
    source
        .read(Space::new(&shared.spaces, range.length), range.offset, range.length)
        .map_err(|error| unread(matches!(error, SourceError::Io { .. }), &error))
}

fn unread(is_damage: bool, error: &dyn std::error::Error) -> Unread {
    (if is_damage { Refusal::Damaged } else { Refusal::Changed }, error.to_string())
}

/// Moves the packer's new segments into the train; how much of them is padding.
fn lay_out(shared: &Shared, connection: &mut Connection, train: &mut Gather, done: &mut usize) -> ByteCount {
    let Connection { packer, outgoing, padding_cursor, .. } = connection;
    let mut padding = 0;
    let mut fits = true;
    let data = |of: DataOf, offset: Offset, length: usize| {
        let (base, bytes) = outgoing.as_ref().expect("data is laid out while it is here");
        let base = if of == DataOf::News { 0 } else { *base };
        let start = (offset.0 - base) as usize;
        bytes.slice(start..start + length)
    };
    for segment in &packer.segments()[*done..] {
        match segment {
            Segment::Bytes(range) => fits &= train.push_bytes(&packer.heads()[range.clone()]),
            Segment::Data { of, offset, length } => fits &= train.push_bytes(&data(*of, *offset, *length)),
            Segment::DataRun { of, offset, packets, each } => {
                let data = data(*of, *offset, packets * each);
                for packet in 0..*packets {
                    let piece = packet * each..(packet + 1) * each;
                    // A packet that is begun may be taken back, so only whole ones are not copied.
                    let is_long = *each >= limits::PIECE_BYTES_UNCOPIED_MIN;
                    fits &= train.push_bytes(MIDDLE);
                    fits &= if is_long { train.push_owned(&data.slice(piece)) } else { train.push_bytes(&data[piece]) };
                }
            }
            Segment::Padding { length } => {
                padding += *length as u64;
                fits &= train.push_bytes(shared.padding.slice(*length, padding_cursor));
            }
        }
    }
    assert!(fits, "a train was laid out that fits");
    *done = packer.segments().len();
    ByteCount(padding)
}

/// Follows what the link says of bytes that came in.
pub(super) fn follow(shared: &Shared, connection: &mut Connection, train: &[u8], instructions: Vec<Instruction>) {
    for instruction in instructions {
        match instruction {
            Instruction::Begin { range } => {
                connection.assembly = Some((range, Space::new(&shared.spaces, range.length)));
            }
            Instruction::Data(data) => {
                if let Some((_, space)) = &mut connection.assembly {
                    data.pieces().for_each(|piece| space.extend(&train[piece]));
                }
            }
            Instruction::End { range, crc } => {
                let Some((begun, space)) = connection.assembly.take() else { continue };
                debug_assert_eq!(begun, range);
                let bytes = space.freeze();
                let is_right = crc32c(&bytes) == crc;
                let (flow, link) = (connection.fetch, connection.link.id());
                let key = (flow, range.object, range.generation);
                let arrived = Arrived { key, link, range, crc, is_right, bytes };
                shared.backlog.fetch_add(arrived.cost(), Ordering::AcqRel);
                shared.write(WriteJob::Range(arrived));
            }
        }
    }
}
