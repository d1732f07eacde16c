//! What is counted: the codecs by themselves, and links over which an object goes from one node to another in memory.

use std::hint::black_box;
use std::time::Duration;

use supersync::limits::{BLOCK_BYTES, PACKET_BYTES_MAX, TRAIN_BYTES_MAX};
use supersync::proto::duplex::{self as seed, LinkConfig};
use supersync::proto::extended::{self, Instruction, Piece};
use supersync::proto::{Link, Protocol, Received};
use supersync::transfer::{Action, Content, Entry, Flow};
use supersync::units::{BlockSeq, ByteCount, Entry as TreeEntry, FileId, FileTime, Kind, LinkId, ObjectName, Offset};
use supersync::units::{PacketLen, Root256, Time, TreePath};
use supersync::wire::checksum::crc32c;
use supersync::wire::duplex::{self, Head, Header};
use supersync::wire::extended::{DataOf, Frame, Item, Packer, Reader, RequestId, Segment};
use supersync::wire::hello::{Features, Hello, Role};
use supersync::wire::session::{self, FileInfo, Message, Read};

use crate::counted;

/// Something that is counted.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What its figure is a figure for.
    pub(crate) unit: &'static str,
    pub(crate) run: fn() -> Done,
}

/// What went through [`counted`].
pub(crate) struct Done {
    pub(crate) units: u64,
    /// Of objects; 0: it is not about bytes.
    pub(crate) bytes: u64,
}

const SMALL: u32 = 1400;
const LARGE: u32 = 65_536;
/// How often what takes next to nothing is done.
const TIMES: u64 = 1000;
/// The object that goes over a link.
const OBJECT_BYTES: u64 = 16 << 20;

#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    Case { name: "duplex/header", unit: "packet", run: || header(SMALL) },
    Case { name: "duplex/parse", unit: "packet", run: || parse(SMALL) },
    Case { name: "duplex/middles/1400", unit: "packet", run: || middles(SMALL) },
    Case { name: "duplex/middles/65536", unit: "packet", run: || middles(LARGE) },
    Case { name: "extended/pack/blocks/1400", unit: "packet", run: || pack(SMALL, BLOCK_BYTES) },
    Case { name: "extended/pack/blocks/65536", unit: "packet", run: || pack(LARGE, BLOCK_BYTES) },
    Case { name: "extended/pack/4KiB/1400", unit: "packet", run: || pack(SMALL, 4096) },
    Case { name: "extended/pack/4KiB/65536", unit: "packet", run: || pack(LARGE, 4096) },
    Case { name: "extended/read/blocks/1400", unit: "packet", run: || read(SMALL, BLOCK_BYTES) },
    Case { name: "extended/read/blocks/65536", unit: "packet", run: || read(LARGE, BLOCK_BYTES) },
    Case { name: "extended/read/4KiB/1400", unit: "packet", run: || read(SMALL, 4096) },
    Case { name: "extended/read/4KiB/65536", unit: "packet", run: || read(LARGE, 4096) },
    Case { name: "link/duplex/out/1400", unit: "packet", run: || link(SMALL, seed::FEATURES, Way::Out) },
    Case { name: "link/duplex/out/65536", unit: "packet", run: || link(LARGE, seed::FEATURES, Way::Out) },
    Case { name: "link/duplex/in/1400", unit: "packet", run: || link(SMALL, seed::FEATURES, Way::In) },
    Case { name: "link/duplex/in/65536", unit: "packet", run: || link(LARGE, seed::FEATURES, Way::In) },
    Case { name: "link/extended/out/1400", unit: "packet", run: || link(SMALL, extended::FEATURES, Way::Out) },
    Case { name: "link/extended/out/65536", unit: "packet", run: || link(LARGE, extended::FEATURES, Way::Out) },
    Case { name: "link/extended/in/1400", unit: "packet", run: || link(SMALL, extended::FEATURES, Way::In) },
    Case { name: "link/extended/in/65536", unit: "packet", run: || link(LARGE, extended::FEATURES, Way::In) },
    Case { name: "session/write_data", unit: "message", run: session_write_data },
    Case { name: "session/read_data", unit: "message", run: session_read_data },
    Case { name: "session/write_entry", unit: "message", run: session_write_entry },
    Case { name: "session/read_entry", unit: "message", run: session_read_entry },
    Case { name: "checksum", unit: "block", run: checksum },
];

fn name() -> ObjectName {
    ObjectName::new(b"segments/stock10_50").expect("valid")
}

fn length_of(packet_bytes: u32) -> PacketLen {
    PacketLen::new(packet_bytes).expect("in bounds")
}

// -- codecs --------------------------------------------------------------------------------------------

fn header(packet_bytes: u32) -> Done {
    let mut header = Header::new();
    let bytes =
        counted(|| (0..TIMES).map(|_| black_box(header.set(None, black_box(Head::Middle))).len()).sum::<usize>());
    Done { units: TIMES, bytes: TIMES * u64::from(packet_bytes) - bytes as u64 }
}

/// A train of middles.
fn train(packet_bytes: u32) -> (Vec<u8>, usize) {
    let n = packet_bytes as usize;
    let packets = TRAIN_BYTES_MAX / n;
    let mut train = vec![0; packets * n];
    train.chunks_exact_mut(n).for_each(|packet| packet[..duplex::MIDDLE.len()].copy_from_slice(duplex::MIDDLE));
    (train, packets)
}

fn payload(packet_bytes: u32, packets: usize) -> Done {
    Done { units: packets as u64, bytes: (packets * (packet_bytes as usize - duplex::MIDDLE.len())) as u64 }
}

fn parse(packet_bytes: u32) -> Done {
    let (train, packets) = train(packet_bytes);
    let all = || train.chunks_exact(packet_bytes as usize).all(|packet| duplex::parse(black_box(packet)).is_ok());
    assert!(counted(all));
    payload(packet_bytes, packets)
}

fn middles(packet_bytes: u32) -> Done {
    let (train, packets) = train(packet_bytes);
    assert_eq!(counted(|| duplex::plain_middles(&train, length_of(packet_bytes))), packets);
    payload(packet_bytes, packets)
}

/// Answers of `each` bytes that make up a train or a little more.
fn lay_out(packer: &mut Packer, each: u64) {
    packer.start();
    for id in 0..(TRAIN_BYTES_MAX as u64 / each) as u32 {
        let (offset, length) = (Offset(0), ByteCount(each));
        packer.push_head(&Frame::Begin { id: RequestId(id), offset, length, crc: 0x0123_4567 }).expect("a short head");
        packer.push_data(packer.remaining());
    }
    packer.finish();
}

fn pack(packet_bytes: u32, each: u64) -> Done {
    let mut packer = Packer::new(length_of(packet_bytes));
    // Once to have its memory.
    lay_out(&mut packer, each);
    counted(|| lay_out(&mut packer, each));
    Done { units: packer.packets() as u64, bytes: TRAIN_BYTES_MAX as u64 }
}

fn read(packet_bytes: u32, each: u64) -> Done {
    let packet_len = length_of(packet_bytes);
    let (mut packer, mut reader, mut train) = (Packer::new(packet_len), Reader::new(packet_len), Vec::new());
    lay_out(&mut packer, each);
    expand(&packer, &[], &mut train);
    let bytes = counted(|| {
        let mut bytes = 0;
        reader.start();
        while let Some(item) = reader.next(&train).expect("well formed") {
            if let Item::Data(data) = item {
                bytes += data.length;
            }
        }
        bytes
    });
    Done { units: packer.packets() as u64, bytes: bytes as u64 }
}

/// What has been laid out as it goes over the wire, with objects of zeros.
fn expand(packer: &Packer, mut news: &[u8], train: &mut Vec<u8>) {
    for segment in packer.segments() {
        match segment {
            Segment::Data { of: DataOf::News, length, .. } => {
                let (now, rest) = news.split_at(*length);
                train.extend_from_slice(now);
                news = rest;
            }
            Segment::Bytes(range) => train.extend_from_slice(&packer.heads()[range.clone()]),
            Segment::Data { length, .. } | Segment::Padding { length } => train.resize(train.len() + length, 0),
            Segment::DataRun { packets, each, .. } => {
                for _ in 0..*packets {
                    train.extend_from_slice(duplex::MIDDLE);
                    train.resize(train.len() + each, 0);
                }
            }
        }
    }
}

/// So little that its checksum is all but nothing.
const DATA: [u8; 64] = [0x5a; 64];

fn data_message() -> Vec<u8> {
    let mut bytes = Vec::new();
    session::encode(&Message::Data { file: FileId(1), seq: BlockSeq(2), data: &DATA }, &mut bytes).expect("it fits");
    bytes
}

fn messages() -> Done {
    Done { units: TIMES, bytes: 0 }
}

fn session_write_data() -> Done {
    counted(|| {
        for _ in 0..TIMES {
            black_box(session::data_head(FileId(1), BlockSeq(2), black_box(&DATA)));
        }
    });
    messages()
}

fn parsed(bytes: &[u8]) -> Message<'_> {
    match session::read(black_box(bytes)) {
        Ok(Some((Read::Message(message), _))) => message,
        found => panic!("{found:?}"),
    }
}

fn session_read_data() -> Done {
    let bytes = data_message();
    counted(|| {
        for _ in 0..TIMES {
            black_box(parsed(&bytes));
        }
    });
    messages()
}

fn entry() -> TreeEntry {
    let path = TreePath::new(b"projects/archive/2024/reports/quarter-3/figures.csv").expect("valid");
    let (mode, size, time) = (0o644, ByteCount(DATA.len() as u64), FileTime(1_700_000_000_123_456_789));
    TreeEntry { mode, size, mtime: time, atime: time, ctime: time, ..TreeEntry::new(path, Kind::File) }
}

fn session_write_entry() -> Done {
    let (entry, mut out) = (entry(), Vec::new());
    let mut write = || {
        out.clear();
        session::encode(&Message::FileInfo(FileInfo::of_entry(black_box(&entry), FileId(1))), &mut out)
            .expect("it fits");
    };
    write();
    counted(|| (0..TIMES).for_each(|_| write()));
    messages()
}

fn session_read_entry() -> Done {
    let mut bytes = Vec::new();
    session::encode(&Message::FileInfo(FileInfo::of_entry(&entry(), FileId(1))), &mut bytes).expect("it fits");
    counted(|| {
        for _ in 0..TIMES {
            let Message::FileInfo(info) = parsed(&bytes) else { panic!("it is of an entry") };
            black_box(info.to_entry()).expect("well formed");
        }
    });
    messages()
}

fn checksum() -> Done {
    let block = vec![0x5a; BLOCK_BYTES as usize];
    black_box(counted(|| crc32c(black_box(&block))));
    Done { units: 1, bytes: BLOCK_BYTES }
}

// -- links ---------------------------------------------------------------------------------------------

/// What of a link is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// What the one that has the object is asked to send.
    Out,
    /// What the one that wants it does with what it gets.
    In,
}

/// One node at its end of the link.
struct End {
    link: Link,
    fetch: Flow,
    serve: Flow,
    packer: Packer,
    /// Its way that is counted.
    counts: Option<Way>,
}

/// An object goes over a link.
fn link(packet_bytes: u32, features: Features, way: Way) -> Done {
    let mut server = End::new(Role::Trader, packet_bytes, features, (way == Way::Out).then_some(way));
    let mut client = End::new(Role::Exchange, packet_bytes, features, (way == Way::In).then_some(way));
    server.serve.offer(name(), ByteCount(OBJECT_BYTES));
    server.serve.know(Entry { name: name(), content: content() }).expect("room for one");
    client.fetch.want(name(), Some(ByteCount(OBJECT_BYTES)), false);
    client.fetch.share_out(Time::ZERO);
    let mut ms = 0;
    while !client.fetch.is_complete() {
        ms += 1;
        assert!(ms < 10_000, "the object does not come");
        let now = Time(Duration::from_millis(ms));
        let asked = client.sends(now);
        server.receives(&asked, now);
        let answered = server.sends(now);
        client.receives(&answered, now);
    }
    Done { units: client.link.counters().packets_in, bytes: OBJECT_BYTES }
}

fn content() -> Content {
    let crc = crc32c(&vec![0; BLOCK_BYTES as usize]);
    let block_crcs = (0..OBJECT_BYTES / BLOCK_BYTES).map(|_| crc).collect();
    Content { size: ByteCount(OBJECT_BYTES), mtime_ns: 1_234_567, mode: 0o640, root: Root256([7; 32]), block_crcs }
}

impl End {
    fn new(role: Role, packet_bytes: u32, features: Features, counts: Option<Way>) -> Self {
        let node = if role == Role::Trader { "server" } else { "client" };
        let node = node.parse().expect("a plain name");
        let hello =
            Hello { version: Hello::VERSION, features, packet_bytes_max: PACKET_BYTES_MAX, link: None, role, node };
        let config = LinkConfig {
            id: LinkId(1),
            packet_len: length_of(packet_bytes),
            hello,
            configured_peer: None,
            fallback_peer: "unknown".parse().expect("a plain name"),
        };
        let packer = Packer::new(config.packet_len);
        let link = Link::new(config, Protocol::Duplex, Time::ZERO);
        Self { link, fetch: Flow::fetch(), serve: Flow::offer_only(), packer, counts }
    }

    fn poll(&mut self, now: Time, room: usize) -> Option<Piece> {
        let Self { link, fetch, serve, .. } = self;
        let mut poll = || link.poll_transmit(now, room, fetch, serve);
        if self.counts == Some(Way::Out) { counted(poll) } else { poll() }
    }

    /// What it has to send now, about a train of it.
    fn sends(&mut self, now: Time) -> Vec<u8> {
        let n = self.link.packet_len().bytes();
        let packets_max = TRAIN_BYTES_MAX / n;
        let (mut train, mut news) = (Vec::new(), Vec::new());
        self.packer.start();
        while train.len() / n + self.packer.packets() < packets_max {
            let Some(piece) = self.poll(now, packets_max - train.len() / n) else { break };
            match piece {
                Piece::Seed(piece) => self.send_seed(&piece, now, &mut train),
                Piece::Head(frame) => self.packer.push_head(&frame).expect("short"),
                Piece::News { frame, data } => {
                    self.packer.push_head(&frame).expect("short");
                    self.packer.push_data(ByteCount(data.len() as u64));
                    news.extend(data);
                }
                Piece::Range { id, range } => {
                    let crc = crc32c(&vec![0; range.length.0 as usize]);
                    let frame = Frame::Begin { id, offset: range.offset, length: range.length, crc };
                    self.packer.push_head(&frame).expect("short");
                    self.packer.push_data(range.length);
                }
            }
        }
        self.packer.finish();
        expand(&self.packer, &news, &mut train);
        train
    }

    /// Packets of the seed's grammar.
    fn send_seed(&mut self, piece: &seed::Piece, now: Time, train: &mut Vec<u8>) {
        let n = self.link.packet_len().bytes();
        let from = train.len();
        train.resize(from + piece.packets(self.link.packet_len()) * n, 0);
        for (index, packet) in train[from..].chunks_exact_mut(n).enumerate() {
            let header: &[u8] = if index == 0 { &piece.header } else { &piece.middle };
            packet[..header.len()].copy_from_slice(header);
        }
        if piece.hello {
            self.link.hello().write_into(&mut train[from + piece.header.len()..]).expect("it fits");
        }
        if piece.data.is_some_and(|data| data.tail) {
            self.link.handle_tail_read(now, &mut self.serve);
        }
    }

    fn receives(&mut self, train: &[u8], now: Time) {
        let mut received = Received::default();
        let Self { link, fetch, serve, .. } = self;
        let mut handle = || link.handle_packets(train, now, fetch, serve, &mut received);
        let result = if self.counts == Some(Way::In) { counted(handle) } else { handle() };
        result.expect("well formed");
        self.settle(now);
        for write in received.writes {
            let to = ByteCount(write.offset.0 + write.length as u64);
            self.fetch.handle_written(write.id, write.generation, to);
        }
        for instruction in received.instructions {
            if let Instruction::End { range, crc } = instruction {
                self.fetch.handle_verified(self.link.id(), range, crc, now);
            }
        }
        self.settle(now);
    }

    /// Does what the flow wants done: it always succeeds.
    fn settle(&mut self, now: Time) {
        while let Some(action) = self.fetch.poll_action() {
            match action {
                Action::Create { id, generation, .. } | Action::OpenPart { id, generation, .. } => {
                    self.fetch.handle_created(id, generation);
                }
                Action::Commit { id, generation, .. } => self.fetch.handle_committed(id, generation, now),
                _ => {}
            }
        }
        while self.fetch.poll_event().is_some() || self.serve.poll_event().is_some() {}
        while self.fetch.poll_wake().is_some() || self.serve.poll_wake().is_some() {}
    }
}
