//! The codecs of the formats duplex, extended, inventory and session, in process.
//!
//! Trains of 1 MiB are encoded and decoded at N = 1400 and N = 65,536.
//! `encode` writes the train as it goes over the wire, headers and copied payload. `headers` builds what the core
//! builds of it: the payload stays where it is. `decode` parses packet by packet, `decode_runs` takes plain middles as
//! one run, as a link does. `pack_*` lays frames out for a gathered send and `read_*` takes them apart again: blocks of
//! 1 MiB, which are runs of packets, and objects of 4 KiB, one after another in the same packets. `entries` decodes
//! what an inventory says of such objects. `session` reads messages of 61,440 bytes of data, and makes their heads,
//! beside the checksum of as many bytes; and it reads and writes what is told of an entry of a tree. Throughput is in
//! bytes of packets, so figures compare with those of sockets and files.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use supersync::limits::TRAIN_BYTES_MAX;
use supersync::units::{BlockSeq, ByteCount, Entry as TreeEntry, FileId, FileTime, Kind, ObjectName, Offset};
use supersync::units::{PacketLen, TreePath};
use supersync::wire::checksum::crc32c;
use supersync::wire::duplex::{self, Head, Header, Inner, Request};
use supersync::wire::extended::{Frame, Item, Packer, Reader, RequestId, Segment};
use supersync::wire::inventory::{self, Entry, Object};
use supersync::wire::session::{self, FileInfo, Message, Read};

/// One train: an object's first packet with a request in front, then middles.
struct Train {
    packet_len: PacketLen,
    packets: usize,
    request: Request,
    payload: Vec<u8>,
}

impl Train {
    fn new(packet_bytes: u32) -> Self {
        let packet_len = PacketLen::new(packet_bytes).expect("in bounds");
        let name = ObjectName::new(b"segments/stock10_50").expect("valid");
        let packets = TRAIN_BYTES_MAX / packet_len.bytes();
        let payload = (0..TRAIN_BYTES_MAX).map(|i| (i % 251) as u8).collect();
        Self { packet_len, packets, request: Request::Object(name), payload }
    }

    fn bytes(&self) -> usize {
        self.packets * self.packet_len.bytes()
    }

    /// Request and head of the packet at `index`.
    fn header(&self, index: usize) -> (Option<&Request>, Head) {
        match index {
            0 => (Some(&self.request), Head::Begin { size: ByteCount(24_000_000) }),
            _ => (None, Head::Middle),
        }
    }

    fn encode(&self, header: &mut Header, out: &mut Vec<u8>) {
        out.clear();
        let mut rest = &self.payload[..];
        for index in 0..self.packets {
            let (request, head) = self.header(index);
            let header = header.set(request, head);
            let (payload, after) = rest.split_at(self.packet_len.bytes() - header.len());
            out.extend_from_slice(header);
            out.extend_from_slice(payload);
            rest = after;
        }
    }

    /// Bytes of headers in all.
    fn headers(&self, header: &mut Header) -> usize {
        let mut bytes = 0;
        for index in 0..self.packets {
            let (request, head) = black_box(self.header(index));
            bytes += black_box(header.set(request, head)).len();
        }
        bytes
    }
}

/// Bytes of payload in `train`, packet by packet.
fn decode(train: &[u8], packet_len: PacketLen) -> usize {
    let mut bytes = 0;
    for packet in train.chunks_exact(packet_len.bytes()) {
        match duplex::parse(black_box(packet)).expect("well formed").inner {
            Inner::Begin { payload, .. } | Inner::Middle { payload } => bytes += payload.len(),
            Inner::Nil | Inner::Pending | Inner::End | Inner::Switch => {}
        }
    }
    bytes
}

/// The same, with plain middles as runs.
fn decode_runs(mut train: &[u8], packet_len: PacketLen) -> usize {
    let mut bytes = 0;
    while !train.is_empty() {
        let run = duplex::plain_middles(black_box(train), packet_len);
        bytes += run * (packet_len.bytes() - duplex::MIDDLE.len());
        train = &train[run * packet_len.bytes()..];
        if let Some(packet) = train.get(..packet_len.bytes()) {
            bytes += decode(packet, packet_len);
            train = &train[packet_len.bytes()..];
        }
    }
    bytes
}

fn codec(criterion: &mut Criterion) {
    for packet_bytes in [1400, 65_536] {
        let train = Train::new(packet_bytes);
        let (mut header, mut encoded) = (Header::new(), Vec::with_capacity(train.bytes()));
        let header_bytes = train.headers(&mut header);
        train.encode(&mut header, &mut encoded);
        assert_eq!(encoded.len(), train.bytes());
        assert_eq!(decode(&encoded, train.packet_len), train.bytes() - header_bytes);
        assert_eq!(decode_runs(&encoded, train.packet_len), train.bytes() - header_bytes);

        let mut group = criterion.benchmark_group("codec");
        group.throughput(Throughput::Bytes(train.bytes() as u64));
        group.bench_function(BenchmarkId::new("encode", packet_bytes), |b| {
            let mut out = Vec::with_capacity(train.bytes());
            b.iter(|| {
                train.encode(&mut header, &mut out);
                black_box(&out[..]);
            });
        });
        group.bench_function(BenchmarkId::new("headers", packet_bytes), |b| b.iter(|| train.headers(&mut header)));
        group.bench_function(BenchmarkId::new("decode", packet_bytes), |b| {
            b.iter(|| decode(&encoded, train.packet_len));
        });
        group.bench_function(BenchmarkId::new("decode_runs", packet_bytes), |b| {
            b.iter(|| decode_runs(&encoded, train.packet_len));
        });
        group.finish();
    }
}

/// Answers of `each` bytes that make up one train or a little more, laid out.
fn pack(packer: &mut Packer, each: u64) {
    packer.start();
    for id in 0..(TRAIN_BYTES_MAX as u64 / each) as u32 {
        let frame = Frame::Begin { id: RequestId(id), offset: Offset(0), length: ByteCount(each), crc: 0x0123_4567 };
        packer.push_head(black_box(&frame)).expect("a short head");
        packer.push_data(packer.remaining());
    }
    packer.finish();
}

/// What has been laid out as it goes over the wire, with data of zeros.
fn expand(packer: &Packer) -> Vec<u8> {
    let mut train = Vec::new();
    for segment in packer.segments() {
        match segment {
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
    train
}

/// Bytes of data in `train`.
fn read(reader: &mut Reader, train: &[u8]) -> usize {
    let mut bytes = 0;
    reader.start();
    while let Some(item) = reader.next(black_box(train)).expect("well formed") {
        match item {
            Item::Data(data) => bytes += data.length,
            Item::Frame(_) | Item::DataEnd(_) => {}
        }
    }
    bytes
}

fn frames(criterion: &mut Criterion) {
    for packet_bytes in [1400, 65_536] {
        let packet_len = PacketLen::new(packet_bytes).expect("in bounds");
        let (mut packer, mut reader) = (Packer::new(packet_len), Reader::new(packet_len));
        let mut group = criterion.benchmark_group("frames");
        for (what, each) in [("blocks", 1 << 20), ("objects_of_4k", 4 << 10)] {
            pack(&mut packer, each);
            let train = expand(&packer);
            assert_eq!(train.len(), packer.packets() * packet_len.bytes());
            assert_eq!(read(&mut reader, &train), TRAIN_BYTES_MAX);
            group.throughput(Throughput::Bytes(train.len() as u64));
            group.bench_function(BenchmarkId::new(format!("pack_{what}"), packet_bytes), |b| {
                b.iter(|| {
                    pack(&mut packer, each);
                    black_box(packer.segments());
                });
            });
            group.bench_function(BenchmarkId::new(format!("read_{what}"), packet_bytes), |b| {
                b.iter(|| read(&mut reader, &train));
            });
        }
        group.finish();
    }
}

fn entries(criterion: &mut Criterion) {
    let mut news = Vec::new();
    for index in 0..1000_u32 {
        let name = ObjectName::new(format!("segments/stock{}_{}", index / 50, index % 50).as_bytes()).expect("valid");
        let (size, block_crcs) = (ByteCount(4096), [index].into_iter().collect());
        let object = Object { name, size, mtime_ns: i64::from(index), mode: 0o644, root: [7; 32], block_crcs };
        Entry::Object(object).encode(&mut news);
    }
    let mut group = criterion.benchmark_group("inventory");
    group.throughput(Throughput::Bytes(news.len() as u64));
    group.bench_function("entries", |b| {
        b.iter(|| inventory::entries(black_box(&news)).map(|entry| entry.expect("well formed")).map(black_box).count());
    });
    group.finish();
}

fn session(criterion: &mut Criterion) {
    let data = vec![0x5a; 61_440];
    let (file, seq) = (FileId(1), BlockSeq(2));
    let mut block = Vec::new();
    session::encode(&Message::Data { file, seq, data: &data }, &mut block).expect("it fits");

    let path = TreePath::new(b"projects/archive/2024/reports/quarter-3/figures.csv").expect("valid");
    let time = FileTime(1_700_000_000_123_456_789);
    let (mode, size) = (0o644, ByteCount(12_345));
    let entry = TreeEntry { mode, size, mtime: time, atime: time, ctime: time, ..TreeEntry::new(path, Kind::File) };
    let mut info = Vec::new();
    session::encode(&Message::FileInfo(FileInfo::of_entry(&entry, file)), &mut info).expect("it fits");
    let read = |bytes| match session::read(black_box(bytes)) {
        Ok(Some((Read::Message(message), _))) => message,
        found => panic!("{found:?}"),
    };

    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("crc", |b| b.iter(|| crc32c(black_box(&data))));
    group.bench_function("data_head", |b| b.iter(|| session::data_head(file, seq, black_box(&data))));
    group.bench_function("read_data", |b| {
        b.iter(|| {
            black_box(read(&block));
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new("read_file_info", info.len()), |b| {
        b.iter(|| {
            black_box(read(&info));
        });
    });
    group.bench_function(BenchmarkId::new("read_entry", info.len()), |b| {
        b.iter(|| match read(&info) {
            Message::FileInfo(info) => info.to_entry(),
            found => panic!("{found:?}"),
        });
    });
    group.bench_function(BenchmarkId::new("write_entry", info.len()), |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            session::encode(&Message::FileInfo(FileInfo::of_entry(black_box(&entry), file)), &mut out)
        });
    });
    group.finish();
}

criterion_group!(benches, codec, frames, entries, session);
criterion_main!(benches);
