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
/// Those that go through a site.
const SMALL_BYTES: u64 = 4096;
const SITE_OBJECTS: u64 = 4000;

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
    Case { name: "site/4KiB/source", unit: "object", run: || site(Node::Source) },
    Case { name: "site/4KiB/exchange", unit: "object", run: || site(Node::Exchange) },
    Case { name: "site/4KiB/destination", unit: "object", run: || site(Node::Destination) },
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

/// An object goes over a link.
fn link(packet_bytes: u32, features: Features, way: Way) -> Done {
    let mut server = End::new("server", packet_bytes, features, Counts { sent: way == Way::Out, ..Counts::default() });
    let mut client =
        End::new("client", packet_bytes, features, Counts { received: way == Way::In, ..Counts::default() });
    let (mut offer, mut want) = (Flow::offer_only(), Flow::fetch());
    let (mut nothing, mut nobody) = (Flow::fetch(), Flow::offer_only());
    offer.offer(name(), ByteCount(OBJECT_BYTES));
    offer.know(Entry { name: name(), content: content(OBJECT_BYTES) }).expect("room for one");
    want.want(name(), Some(ByteCount(OBJECT_BYTES)), false);
    want.share_out(Time::ZERO);
    let mut ms = 0;
    while !want.is_complete() {
        ms += 1;
        assert!(ms < 10_000, "the object does not come");
        let now = Time(Duration::from_millis(ms));
        let asked = client.sends(now, &mut want, &mut nobody);
        server.receives(&asked, now, &mut nothing, &mut offer);
        let answered = server.sends(now, &mut nothing, &mut offer);
        client.receives(&answered, now, &mut want, &mut nobody);
    }
    Done { units: client.link.counters().packets_in, bytes: OBJECT_BYTES }
}

/// Who of a site is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Source,
    Exchange,
    Destination,
}

/// Small objects go from one trader to another through an exchange.
fn site(of: Node) -> Done {
    let counts = |node| Counts { sent: node == of, received: node == of, stored: node == of };
    let new = |node: &str, counts| End::new(node, LARGE, extended::FEATURES, counts);
    let (mut source, mut destination) =
        (new("source", counts(Node::Source)), new("destination", counts(Node::Destination)));
    let (mut to_source, mut to_destination) =
        (new("exchange", counts(Node::Exchange)), new("exchange", counts(Node::Exchange)));
    let (mut offer, mut relay, mut want) =
        (Flow::offer_only(), Flow::relay(ByteCount(SITE_OBJECTS * SMALL_BYTES)), Flow::fetch());
    // What goes the other way: nothing.
    let (mut nothing, mut nobody) = (Flow::fetch(), Flow::offer_only());
    offer.start_epoch(1);
    relay.start_epoch(2);
    for at in 0..SITE_OBJECTS {
        let name = ObjectName::new(format!("{}/{:03}", at / 1000, at % 1000).as_bytes()).expect("valid");
        offer.offer(name.clone(), ByteCount(SMALL_BYTES));
        offer.know(Entry { name, content: content(SMALL_BYTES) }).expect("room for all");
    }
    offer.set_told_all(true);
    want.fetch_listed_only(false);
    let mut ms = 0;
    while want.totals().present < SITE_OBJECTS {
        ms += 1;
        assert!(ms < 10_000, "the objects do not come: {:?}", want.totals());
        let now = Time(Duration::from_millis(ms));
        let asked = destination.sends(now, &mut want, &mut nobody);
        to_destination.receives(&asked, now, &mut nothing, &mut relay);
        let asked = to_source.sends(now, &mut relay, &mut nobody);
        source.receives(&asked, now, &mut nothing, &mut offer);
        let answered = source.sends(now, &mut nothing, &mut offer);
        to_source.receives(&answered, now, &mut relay, &mut nobody);
        let answered = to_destination.sends(now, &mut nothing, &mut relay);
        destination.receives(&answered, now, &mut want, &mut nobody);
    }
    Done { units: SITE_OBJECTS, bytes: SITE_OBJECTS * SMALL_BYTES }
}

/// Of an object of zeros.
fn content(bytes: u64) -> Content {
    let block_crcs = (0..bytes).step_by(BLOCK_BYTES as usize).map(|at| zeros_crc((bytes - at).min(BLOCK_BYTES)));
    let block_crcs = block_crcs.collect();
    Content { size: ByteCount(bytes), mtime_ns: 1_234_567, mode: 0o640, root: Root256([7; 32]), block_crcs }
}

fn zeros_crc(bytes: u64) -> u32 {
    crc32c(&vec![0; bytes as usize])
}

/// What a node does that is counted.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// What it finds to send.
    sent: bool,
    /// What it does with packets that come in.
    received: bool,
    /// What it does when that is judged and stored.
    stored: bool,
}

fn counted_if<T>(counts: bool, work: impl FnOnce() -> T) -> T {
    if counts { counted(work) } else { work() }
}

/// One node at its end of the link.
struct End {
    link: Link,
    packer: Packer,
    counts: Counts,
}

impl End {
    fn new(node: &str, packet_bytes: u32, features: Features, counts: Counts) -> Self {
        let role = if matches!(node, "client" | "exchange") { Role::Exchange } else { Role::Trader };
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
        Self { link, packer, counts }
    }

    /// What it has to send now, about a train of it.
    fn sends(&mut self, now: Time, fetch: &mut Flow, serve: &mut Flow) -> Vec<u8> {
        let n = self.link.packet_len().bytes();
        let packets_max = TRAIN_BYTES_MAX / n;
        let (mut train, mut news) = (Vec::new(), Vec::new());
        self.packer.start();
        while train.len() / n + self.packer.packets() < packets_max {
            let room = packets_max - train.len() / n;
            let poll = || self.link.poll_transmit(now, room, fetch, serve);
            let Some(piece) = counted_if(self.counts.sent, poll) else { break };
            match piece {
                Piece::Seed(piece) => self.send_seed(&piece, now, serve, &mut train),
                Piece::Head(frame) => self.packer.push_head(&frame).expect("short"),
                Piece::News { frame, data } => {
                    self.packer.push_head(&frame).expect("short");
                    self.packer.push_data(ByteCount(data.len() as u64));
                    news.extend(data);
                }
                Piece::Range { id, range } => {
                    let crc = zeros_crc(range.length.0);
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
    fn send_seed(&mut self, piece: &seed::Piece, now: Time, serve: &mut Flow, train: &mut Vec<u8>) {
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
            self.link.handle_tail_read(now, serve);
        }
    }

    fn receives(&mut self, train: &[u8], now: Time, fetch: &mut Flow, serve: &mut Flow) {
        let mut received = Received::default();
        let handle = || self.link.handle_packets(train, now, fetch, serve, &mut received);
        counted_if(self.counts.received, handle).expect("well formed");
        counted_if(self.counts.stored, || settle(now, fetch, serve));
        for write in received.writes {
            let to = ByteCount(write.offset.0 + write.length as u64);
            fetch.handle_written(write.id, write.generation, to);
        }
        counted_if(self.counts.stored, || {
            for instruction in received.instructions {
                if let Instruction::End { range, crc } = instruction {
                    fetch.handle_verified(self.link.id(), range, crc, now);
                }
            }
            settle(now, fetch, serve);
        });
    }
}

/// Does what the flows want done: it always succeeds.
fn settle(now: Time, fetch: &mut Flow, serve: &mut Flow) {
    while let Some(action) = fetch.poll_action() {
        match action {
            Action::Create { id, generation, .. } | Action::OpenPart { id, generation, .. } => {
                fetch.handle_created(id, generation);
            }
            Action::Commit { id, generation, .. } => fetch.handle_committed(id, generation, now),
            _ => {}
        }
    }
    while serve.poll_action().is_some() {}
    while fetch.poll_event().is_some() || serve.poll_event().is_some() {}
    while fetch.poll_wake().is_some() || serve.poll_wake().is_some() {}
}
