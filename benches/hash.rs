//! What knowing an object's content costs: reading and hashing it once, hashing its blocks as they arrive, and
//! loading what is known of a million objects at a start.
//!
//! The bytes are in the page cache: the figures are the processor's.

use std::fs;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use supersync::limits;
use supersync::store::{
    FileTime, HashCache, Hashes, Inode, Root, Stamp, block_count, block_crc, block_cv, hash_source,
};
use supersync::units::{ByteCount, ObjectName, Root256};

const OBJECT_BYTES: usize = 64 << 20;
const OBJECTS: u64 = 1_000_000;

fn hashing(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bytes: Vec<u8> = (0..OBJECT_BYTES as u64).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect();
    fs::write(directory.path().join("object"), &bytes).expect("a fresh directory takes a file");
    let root = Root::open(directory.path()).expect("it exists");
    let name = ObjectName::new(b"object").expect("valid");
    let mut group = criterion.benchmark_group("hash");
    group.throughput(Throughput::Bytes(OBJECT_BYTES as u64)).sample_size(10);
    group.bench_function("an object", |bencher| {
        bencher.iter(|| hash_source(&root.open_source(&name).expect("it exists")).expect("nobody writes to it"));
    });
    group.throughput(Throughput::Bytes(limits::BLOCK_BYTES));
    let block = &bytes[..limits::BLOCK_BYTES as usize];
    group.bench_function("a block that arrived", |bencher| {
        bencher.iter(|| block_cv(3, ByteCount(OBJECT_BYTES as u64), [black_box(block)]));
    });
    group.bench_function("a block's checksum", |bencher| bencher.iter(|| block_crc(black_box(block))));
    group.finish();
}

fn loading(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut cache = HashCache::open(directory.path()).expect("a fresh one");
    for at in 0..OBJECTS {
        let name = format!("2026/{:03}/segment{at:08}.bin", at % 365);
        let (size, time) = (ByteCount(4096 + at), FileTime(at as i64));
        let stamp = Stamp { size, mtime: time, ctime: time, inode: Inode(at), ..Stamp::default() };
        let block_crcs = (0..block_count(size)).map(|_| at as u32).collect();
        let hashes = Hashes { root: Root256([at as u8; 32]), block_crcs };
        cache.insert(&ObjectName::new(name.as_bytes()).expect("valid"), &stamp, &hashes);
    }
    cache.flush().expect("the disk takes it");
    drop(cache);
    let mut group = criterion.benchmark_group("cache of hashes");
    group.throughput(Throughput::Elements(OBJECTS)).sample_size(10);
    group.bench_function(format!("load {OBJECTS} objects"), |bencher| {
        bencher.iter_with_large_drop(|| HashCache::open(directory.path()).expect("it stands"));
    });
    group.finish();
}

criterion_group!(benches, hashing, loading);
criterion_main!(benches);
