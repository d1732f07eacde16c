//! What objects hash to: reading them, remembering it, and holding finished ones against their markers.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::*;
use super::{Site, name};
use crate::limits;
use crate::units::{ByteCount, ObjectName, Root256};

/// Bytes that do not repeat with any block.
fn bytes(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

fn root_of_bytes(bytes: &[u8]) -> Root256 {
    Root256(*blake3::hash(bytes).as_bytes())
}

#[test]
fn an_object_hashes_to_its_root_and_its_blocks() {
    const MIB: usize = 1 << 20;
    let site = Site::new();
    for size in [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 17] {
        let bytes = bytes(size);
        site.write("object", &bytes);
        let source = site.root.open_source(&name("object")).expect("opened");
        let hashes = hash_source(&source).expect("unchanged");
        assert_eq!(hashes.root, root_of_bytes(&bytes), "{size} bytes");
        let crcs: Vec<u32> = bytes.chunks(MIB).map(block_crc).collect();
        assert_eq!(hashes.block_crcs[..], crcs[..], "{size} bytes");
    }
}

#[test]
fn an_object_that_changes_is_not_hashed() {
    let site = Site::new();
    site.write("object", &bytes(3000));
    let check = |change: &dyn Fn(), shrunk: bool| {
        let source = site.root.open_source(&name("object")).expect("opened");
        change();
        match hash_source(&source) {
            Err(SourceError::Shrunk { .. }) => assert!(shrunk),
            Err(SourceError::Changed { .. }) => assert!(!shrunk),
            outcome => panic!("{outcome:?}"),
        }
    };
    let path = site.path.join("object");
    let open = || fs::File::options().write(true).open(&path).expect("stands");
    check(&|| open().set_len(2000).expect("cut"), true);
    check(&|| open().set_len(4000).expect("grown"), false);
    check(&|| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours"), false);
}

#[test]
fn a_commit_sets_mode_time_and_root_and_they_can_be_verified() {
    let site = Site::new();
    let bytes = bytes(2_500_000);
    let (size, root) = (ByteCount(bytes.len() as u64), root_of_bytes(&bytes));
    // Alone, and in a batch that flushes its file system at once.
    for count in [1, 2 * limits::COMMIT_SYNC_EACH_MAX] {
        let part = |at: usize| {
            let part = site.root.open_part(&name(&format!("d/{at}")), size, root).expect("room");
            part.set_attributes(FileMode::new(0o100_640), FileTime(1_234_567_890_123_456_789));
            part.write_vectored_at(&[std::io::IoSlice::new(&bytes)], crate::units::Offset(0)).expect("written");
            ((), Arc::new(part))
        };
        for ((), outcome) in Committer::commit_batch(&site.root, (0..count).map(part).collect()) {
            outcome.expect("committed");
        }
        for at in 0..count {
            let object = name(&format!("d/{at}"));
            let found = fs::metadata(site.path.join(format!("d/{at}"))).expect("stands");
            assert_eq!(found.mode() & 0o7777, 0o640);
            assert_eq!((found.mtime(), found.mtime_nsec()), (1_234_567_890, 123_456_789));
            let stamp = site.root.open_source(&object).expect("opened").stamp();
            assert_eq!((stamp.mode.bits(), stamp.mtime), (0o640, FileTime(1_234_567_890_123_456_789)));
            assert_eq!(site.root.verify(&object).expect("readable"), Verified::Ok { size, root });
        }
    }
}

#[test]
fn times_before_1970_are_times() {
    let site = Site::new();
    let part = site.part("old", b"x");
    part.set_attributes(FileMode::new(0o600), FileTime(-1));
    part.set_attributes(FileMode::new(0o644), FileTime(7));
    Committer::commit_batch(&site.root, vec![((), part)]).pop().expect("one").1.expect("committed");
    let stamp = site.root.open_source(&name("old")).expect("opened").stamp();
    assert_eq!((stamp.mode.bits(), stamp.mtime), (0o600, FileTime(-1)));
}

#[test]
fn verification_tells_what_is_wrong() {
    let site = Site::new();
    let check = |text: &str, expected: Verified| {
        assert_eq!(site.root.verify(&name(text)).expect("readable"), expected, "{text}");
    };
    let (size, root) = (ByteCount(4), root_of_bytes(b"four"));
    let other = root_of_bytes(b"fuor");
    let marker = format!("size 4\nroot {root}\n");
    site.write("right", b"four");
    site.write("right.success", marker.as_bytes());
    check("right", Verified::Ok { size, root });
    site.write("flipped", b"fuor");
    site.write("flipped.success", marker.as_bytes());
    check("flipped", Verified::Differs(Difference::Content { marked: root, found: other }));
    site.write("cut", b"fou");
    site.write("cut.success", marker.as_bytes());
    check("cut", Verified::Differs(Difference::Size { marked: size, found: ByteCount(3) }));
    site.write("alone.success", marker.as_bytes());
    check("alone", Verified::Differs(Difference::Missing));
    site.write("unmarked", b"four");
    check("unmarked", Verified::Unmarked);
    site.write("damaged", b"four");
    site.write("damaged.success", b"size 4\nroot 00\n");
    check("damaged", Verified::Unmarked);
    check("nowhere", Verified::Unmarked);
    site.write("foreign", b"four");
    site.write("foreign.success", b"");
    check("foreign", Verified::NoRoot);
    site.commit("seed", b"four").expect("committed");
    check("seed", Verified::NoRoot);
    site.write("seed", b"three");
    check("seed", Verified::Differs(Difference::Size { marked: size, found: ByteCount(5) }));
}

// -- the cache -----------------------------------------------------------------------------------------------

fn stamp(size: u64, inode: u64) -> Stamp {
    let time = FileTime(1_700_000_000_000_000_000 + inode as i64);
    Stamp { size: ByteCount(size), mtime: time, ctime: time, inode: Inode(inode), ..Stamp::default() }
}

fn hashes(size: u64, seed: u8) -> Hashes {
    let crcs = (0..block_count(ByteCount(size))).map(|block| block as u32 * 7 + u32::from(seed));
    Hashes { root: Root256([seed; 32]), block_crcs: crcs.collect() }
}

#[test]
fn hashes_are_known_again_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state/flow");
    let mut cache = HashCache::open(&state).expect("new");
    let sizes = [0, 1, limits::BLOCK_BYTES, limits::BLOCK_BYTES + 1, 9 * limits::BLOCK_BYTES];
    for (at, size) in (0_u8..).zip(sizes) {
        cache.insert(&name(&format!("o{at}")), &stamp(size, at.into()), &hashes(size, at));
    }
    cache.insert(&name("o1"), &stamp(2, 100), &hashes(2, 200));
    cache.forget(&name("o2"));
    cache.forget(&name("never"));
    cache.flush().expect("durable");
    drop(cache);
    let cache = HashCache::open(&state).expect("stands");
    assert_eq!(cache.len(), 4);
    let check = |text: &str, stamp: &Stamp, expected: Option<Hashes>| {
        assert_eq!(cache.lookup(&name(text), stamp), expected, "{text}");
    };
    check("o0", &stamp(0, 0), Some(hashes(0, 0)));
    check("o1", &stamp(2, 100), Some(hashes(2, 200)));
    check("o1", &stamp(1, 1), None);
    check("o2", &stamp(limits::BLOCK_BYTES, 2), None);
    check("o4", &stamp(sizes[4], 4), Some(hashes(sizes[4], 4)));
    check("never", &stamp(0, 0), None);
}

#[test]
fn what_was_written_survives_a_process_that_never_flushed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut cache = HashCache::open(dir.path()).expect("new");
    cache.insert(&name("written"), &stamp(1, 1), &hashes(1, 1));
    cache.write().expect("written");
    cache.insert(&name("in memory"), &stamp(1, 1), &hashes(1, 1));
    drop(cache);
    let cache = HashCache::open(dir.path()).expect("stands");
    assert_eq!(cache.lookup(&name("written"), &stamp(1, 1)), Some(hashes(1, 1)));
    assert_eq!(cache.lookup(&name("in memory"), &stamp(1, 1)), None);
}

#[test]
fn an_object_that_looks_different_is_not_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut cache = HashCache::open(dir.path()).expect("new");
    let known = stamp(10, 1);
    cache.insert(&name("a"), &known, &hashes(10, 1));
    let check = |stamp: Stamp, expected: bool| {
        assert_eq!(cache.lookup(&name("a"), &stamp).is_some(), expected, "{stamp:?}");
    };
    check(known, true);
    check(Stamp { size: ByteCount(11), ..known }, false);
    check(Stamp { mtime: FileTime(known.mtime.0 + 1), ..known }, false);
    check(Stamp { ctime: FileTime(known.ctime.0 + 1), ..known }, false);
    check(Stamp { inode: Inode(2), ..known }, false);
    // A file system gets another number when it is mounted again.
    check(Stamp { device: Device(9), ..known }, true);
}

#[test]
fn a_cache_cut_or_damaged_at_any_byte_knows_only_what_is_right() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("hashes");
    let mut cache = HashCache::open(dir.path()).expect("new");
    let mut lengths = Vec::new();
    for at in 0..4_u8 {
        cache.insert(&name(&format!("o{at}")), &stamp(at.into(), at.into()), &hashes(at.into(), at));
        cache.flush().expect("durable");
        lengths.push(fs::metadata(&file).expect("stands").len() as usize);
    }
    drop(cache);
    let bytes = fs::read(&file).expect("stands");
    let check = |whole: usize, text: String| {
        let cache = HashCache::open(dir.path()).expect("opened");
        assert_eq!(cache.len(), whole, "{text}");
        for at in 0..whole as u8 {
            let found = cache.lookup(&name(&format!("o{at}")), &stamp(at.into(), at.into()));
            assert_eq!(found, Some(hashes(at.into(), at)), "{text}");
        }
    };
    for at in 0..bytes.len() {
        fs::write(&file, &bytes[..at]).expect("cut");
        check(lengths.iter().filter(|length| **length <= at).count(), format!("cut at {at}"));
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&file, damaged).expect("written");
        check(lengths.iter().filter(|length| **length <= at).count(), format!("damaged at {at}"));
    }
}

#[test]
fn a_cache_that_is_mostly_dead_is_rewritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut cache = HashCache::open(dir.path()).expect("new");
    // Some 120 bytes each.
    let count = limits::LOG_REWRITE_BYTES_MIN / 50;
    for at in 0..count {
        cache.insert(&name(&format!("object {at:030}")), &stamp(7, at), &hashes(7, at as u8));
    }
    cache.flush().expect("durable");
    let length = || fs::metadata(dir.path().join("hashes")).expect("stands").len();
    let full = length();
    assert!(full > 2 * limits::LOG_REWRITE_BYTES_MIN, "{full}");
    let kept = count / 10;
    (kept..count).for_each(|at| cache.forget(&name(&format!("object {at:030}"))));
    cache.flush().expect("rewritten");
    assert!(length() < full / 5, "{} of {full}", length());
    let names: Vec<ObjectName> = (0..count).map(|at| name(&format!("object {at:030}"))).collect();
    let known = |cache: &HashCache| -> Vec<bool> {
        (0_u64..).zip(&names).map(|(at, name)| cache.lookup(name, &stamp(7, at)).is_some()).collect()
    };
    let before = known(&cache);
    assert_eq!(before.iter().filter(|known| **known).count() as u64, kept);
    drop(cache);
    assert_eq!(known(&HashCache::open(dir.path()).expect("stands")), before);
}

#[test]
fn what_is_added_at_rest_is_remembered_and_replaces_what_was_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut cache = HashCache::open(dir.path()).expect("new");
    cache.insert(&name("a"), &stamp(1, 1), &hashes(1, 1));
    cache.rest();
    assert_eq!(cache.lookup(&name("a"), &stamp(1, 1)), None);
    cache.flush().expect("durable");
    let length = || fs::metadata(dir.path().join("hashes")).expect("stands").len();
    let one = length() - 19;
    for at in 0..2 * limits::LOG_REWRITE_BYTES_MIN / one {
        cache.insert(&name("a"), &stamp(1, at), &hashes(1, 2));
        cache.insert(&name("b"), &stamp(1, at), &hashes(1, 3));
    }
    let last = 2 * limits::LOG_REWRITE_BYTES_MIN / one - 1;
    cache.flush().expect("rewritten");
    assert!(length() < 4 * one + 19, "{}", length());
    let cache = HashCache::open(dir.path()).expect("stands");
    assert_eq!(cache.lookup(&name("a"), &stamp(1, last)), Some(hashes(1, 2)));
    assert_eq!(cache.lookup(&name("b"), &stamp(1, last)), Some(hashes(1, 3)));
}

/// What the disk had not taken while a cache rested was flushed as if it had, for the file was opened anew for that.
#[test]
fn a_cache_at_rest_that_the_disk_did_not_take_is_rewritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut cache = HashCache::open(dir.path()).expect("new");
    cache.insert(&name("a"), &stamp(1, 1), &hashes(1, 1));
    cache.rest();
    cache.flush().expect("durable");
    let inode = || fs::metadata(dir.path().join("hashes")).expect("stands").ino();
    let before = inode();
    cache.flush().expect("durable");
    assert_eq!(inode(), before);
    cache.lose();
    cache.flush().expect("rewritten");
    assert_ne!(inode(), before);
    let cache = HashCache::open(dir.path()).expect("stands");
    assert_eq!(cache.lookup(&name("a"), &stamp(1, 1)), Some(hashes(1, 1)));
}

#[test]
fn only_what_was_left_alone_for_a_while_is_settled() {
    let site = Site::new();
    site.write("object", b"x");
    assert!(!site.root.open_source(&name("object")).expect("opened").is_settled(), "written just now");
    // A time that lies ahead may be the next change's as well.
    let ahead = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(site.path.join("object")).and_then(|f| f.set_modified(ahead)).expect("ours");
    assert!(!site.root.open_source(&name("object")).expect("opened").is_settled());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_cache_behaves_like_a_map(
        steps in prop::collection::vec((0..6_u8, 0..8_u8, 0..3 * limits::BLOCK_BYTES), 1..80),
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut cache = HashCache::open(dir.path()).expect("new");
        let mut model = std::collections::BTreeMap::new();
        for (at, (step, object, size)) in steps.into_iter().enumerate() {
            let object = name(&format!("o{object}"));
            match step {
                0..3 => {
                    let entry = (stamp(size, at as u64), hashes(size, at as u8));
                    cache.insert(&object, &entry.0, &entry.1);
                    model.insert(object, entry);
                }
                3 => {
                    cache.forget(&object);
                    model.remove(&object);
                }
                _ => {
                    cache.flush().expect("durable");
                    drop(cache);
                    cache = HashCache::open(dir.path()).expect("stands");
                }
            }
            prop_assert_eq!(cache.len(), model.len());
            for (name, (stamp, hashes)) in &model {
                prop_assert_eq!(cache.lookup(name, stamp), Some(hashes.clone()));
            }
        }
    }
}
