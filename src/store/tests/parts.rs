//! Parts and commits: what stands on disk before, between and after.

use std::fs;
use std::io::IoSlice;
use std::sync::Arc;

use super::super::*;
use super::{Site, name, take_away};
use crate::limits;
use crate::units::{ByteCount, Offset, Root256};

#[test]
fn an_object_appears_whole_and_marked_or_not_at_all() {
    let site = Site::new();
    let bytes: Vec<u8> = (0..200_000_u32).map(|i| i as u8).collect();
    let part = site.root.create_part(&name("a/b/object"), ByteCount(200_000)).expect("room");
    let (front, back) = bytes.split_at(70_000);
    part.write_vectored_at(&[IoSlice::new(back)], Offset(70_000)).expect("written");
    assert_eq!(site.parts_left(), 1);
    assert!(!site.path.join("a").exists(), "nothing under the final name yet");
    assert_eq!(site.root.is_done(&name("a/b/object")).expect("readable"), Done::MarkerMissing);
    part.write_vectored_at(&[IoSlice::new(&front[..1]), IoSlice::new(&[]), IoSlice::new(&front[1..])], Offset(0))
        .expect("written");
    let outcome = Committer::commit_batch(&site.root, vec![("token", Arc::new(part))]);
    assert!(matches!(outcome[..], [("token", Ok(()))]), "{outcome:?}");
    assert_eq!(site.read("a/b/object").expect("stands"), bytes);
    let marker = Marker::parse(&site.read("a/b/object.success").expect("stands")).expect("ours");
    assert_eq!(marker.size, Some(ByteCount(200_000)));
    assert!(marker.committed.is_some());
    assert_eq!(site.root.is_done(&name("a/b/object")).expect("readable"), Done::Yes(ByteCount(200_000)));
    assert_eq!(site.parts_left(), 0);
}

#[test]
fn an_empty_object_is_an_object() {
    let site = Site::new();
    site.commit("empty", b"").expect("committed");
    assert_eq!(site.read("empty").expect("stands"), b"");
    assert_eq!(site.root.is_done(&name("empty")).expect("readable"), Done::Yes(ByteCount(0)));
    let source = site.root.open_source(&name("empty")).expect("opened");
    source.read_exact_at(&mut [], Offset(0)).expect("nothing to read");
    source.advise_sequential();
    source.verify_unchanged().expect("unchanged");
}

#[test]
fn a_large_batch_commits_every_object_in_its_own_directory() {
    let site = Site::new();
    let count = 4 * limits::COMMIT_SYNC_EACH_MAX;
    let parts = (0..count).map(|i| (i, site.part(&format!("d{}/o{i}", i % 5), format!("{i}").as_bytes()))).collect();
    let outcome = Committer::commit_batch(&site.root, parts);
    assert_eq!(outcome.iter().map(|(token, _)| *token).collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
    for (i, outcome) in outcome {
        outcome.expect("committed");
        let text = format!("d{}/o{i}", i % 5);
        assert_eq!(site.read(&text).expect("stands"), format!("{i}").as_bytes());
        assert!(site.root.is_done(&name(&text)).expect("readable").is_yes(), "{text}");
    }
    assert_eq!(site.parts_left(), 0);
}

#[test]
fn an_object_that_comes_whole_has_no_name_before_its_own_and_is_marked_with_its_root() {
    let site = Site::new();
    // Flushed one by one, and all at once; the second time each replaces the one before, the third time what is left
    // where somebody removed that and not its marker.
    let counts = [1, 4 * limits::COMMIT_SYNC_EACH_MAX];
    for (count, round) in counts.into_iter().flat_map(|count| (0..3).map(move |round| (count, round))) {
        if round == 2 {
            (0..count).for_each(|i| fs::remove_file(site.path.join(format!("{count}/{i}"))).expect("removed"));
        }
        let text = |i| format!("object {i}, round {round}");
        let part = |i: usize| {
            let part = site.root.write_part(&name(&format!("{count}/{i}")), text(i).as_bytes()).expect("room");
            part.set_attributes(FileMode::new(0o640), FileTime(1_234_567_890));
            Arc::new(part)
        };
        let parts: Vec<_> = (0..count).map(|i| (i, part(i))).collect();
        assert_eq!(parts[0].1.seen_root(), Some(Root256(*blake3::hash(text(0).as_bytes()).as_bytes())));
        for (i, outcome) in Committer::commit_batch(&site.root, parts) {
            outcome.expect("committed");
            let object = format!("{count}/{i}");
            assert_eq!(site.read(&object).expect("stands"), text(i).as_bytes());
            let verified = site.root.verify(&name(&object)).expect("readable");
            assert!(matches!(verified, Verified::Ok { .. }), "{object}: {verified:?}");
            let stamp = site.root.open_source(&name(&object)).expect("opened").stamp();
            assert_eq!((stamp.mode, stamp.mtime), (FileMode::new(0o640), FileTime(1_234_567_890)));
        }
        assert_eq!(site.parts_left(), 0);
    }
    drop(site.root.write_part(&name("dropped"), b"bytes").expect("room"));
    assert_eq!(site.parts_left(), 0);
    assert_eq!(site.read("dropped"), None);
}

#[test]
fn one_failed_object_does_not_hold_up_its_batch() {
    let site = Site::new();
    site.write("file", b"in the way");
    fs::create_dir_all(site.path.join("directory/below")).expect("made");
    let texts = ["before", "file/below", "directory", "after"];
    let parts = texts.map(|text| (text, site.part(text, b"new"))).into();
    let outcome: Vec<_> = Committer::commit_batch(&site.root, parts);
    assert_eq!(outcome.iter().map(|(_, outcome)| outcome.is_ok()).collect::<Vec<_>>(), [true, false, false, true]);
    drop(outcome);
    assert!(site.root.is_done(&name("before")).expect("readable").is_yes());
    assert!(site.root.is_done(&name("after")).expect("readable").is_yes());
    assert!(!site.path.join("directory.success").exists());
    assert_eq!(site.read("file").expect("stands"), b"in the way");
    assert_eq!(site.parts_left(), 0);
}

#[test]
fn a_failed_replacement_leaves_no_marker_of_the_object_before() {
    let site = Site::new();
    site.commit("object", b"old").expect("committed");
    fs::remove_file(site.path.join("object")).expect("removed");
    fs::create_dir_all(site.path.join("object/below")).expect("made");
    site.commit("object", b"new").expect_err("a directory is in the way");
    assert!(!site.path.join("object.success").exists());
}

/// A version that was no longer wanted took the marker of the one that stood along, which was fetched again.
#[test]
fn a_part_that_is_given_up_before_its_commit_leaves_what_stands_marked() {
    let site = Site::new();
    site.commit("object", b"old").expect("committed");
    let part = Arc::new(site.root.open_part(&name("object"), ByteCount(3), Root256([1; 32])).expect("room"));
    part.write_vectored_at(&[IoSlice::new(b"new")], Offset(0)).expect("written");
    part.abandon();
    let outcome = Committer::commit_batch(&site.root, vec![("given up", part), ("other", site.part("b", b"b"))]);
    assert!(matches!(outcome[..], [("given up", Err(_)), ("other", Ok(()))]), "{outcome:?}");
    assert_eq!(site.root.is_done(&name("object")).expect("readable"), Done::Yes(ByteCount(3)));
    assert_eq!(site.read("object").expect("stands"), b"old");
}

#[test]
fn replacing_an_object_replaces_its_marker() {
    let site = Site::new();
    site.commit("object", b"old").expect("committed");
    let before = site.root.open_source(&name("object")).expect("opened");
    site.commit("object", b"newer").expect("committed");
    assert_eq!(site.root.is_done(&name("object")).expect("readable"), Done::Yes(ByteCount(5)));
    assert_eq!(site.read("object").expect("stands"), b"newer");
    // Who was sending the old one still has it whole.
    let mut old = [0; 3];
    before.read_exact_at(&mut old, Offset(0)).expect("whole");
    assert_eq!(&old, b"old");
    before.verify_unchanged().expect("the old version, unchanged");
}

#[test]
fn a_dropped_part_leaves_nothing() {
    let site = Site::new();
    let part = site.part("a/b", b"bytes");
    assert_eq!(site.parts_left(), 1);
    drop(part);
    assert_eq!(site.parts_left(), 0);
    assert_eq!(scan(&site.root).expect("readable").objects, []);
    assert!(!site.path.join("a").exists());
}

#[test]
fn a_write_beyond_the_size_is_refused() {
    let site = Site::new();
    let part = site.root.create_part(&name("a"), ByteCount(4)).expect("room");
    let check = |bytes: &[u8], offset, expected: bool| {
        let outcome = part.write_vectored_at(&[IoSlice::new(bytes)], Offset(offset));
        match outcome {
            Err(StoreError::BeyondEnd { .. }) => assert!(!expected, "{offset}"),
            outcome => assert!(outcome.is_ok() && expected, "{offset}: {outcome:?}"),
        }
    };
    check(b"abcd", 0, true);
    check(b"", 4, true);
    check(b"x", 4, false);
    check(b"abcde", 0, false);
    check(b"x", u64::MAX, false);
    check(b"", u64::MAX, false);
    drop(part);
    assert_eq!(site.parts_left(), 0);
}

#[test]
fn a_write_of_more_slices_than_one_call_takes_is_whole() {
    let site = Site::new();
    let count = 2 * limits::TRAIN_IOVECS_MAX + 7;
    let bytes: Vec<u8> = (0..count * 3).map(|i| i as u8).collect();
    let slices: Vec<_> = bytes.chunks(3).map(IoSlice::new).collect();
    let part = site.root.create_part(&name("a"), ByteCount(bytes.len() as u64 + 1)).expect("room");
    part.write_vectored_at(&slices, Offset(1)).expect("written");
    Committer::commit_batch(&site.root, vec![((), Arc::new(part))]).pop().expect("one").1.expect("committed");
    let found = site.read("a").expect("stands");
    assert_eq!((found[0], &found[1..]), (0, &bytes[..]));
}

#[test]
#[should_panic(expected = "after it was committed")]
fn a_committed_object_is_never_written_to() {
    let site = Site::new();
    let part = site.part("a", b"bytes");
    Committer::commit_batch(&site.root, vec![((), Arc::clone(&part))]).pop().expect("one").1.expect("committed");
    let _ = part.write_vectored_at(&[IoSlice::new(b"x")], Offset(0));
}

#[test]
fn a_part_is_served_while_it_arrives_and_after() {
    let site = Site::new();
    let part = site.root.create_part(&name("a"), ByteCount(8)).expect("room");
    let source = part.source().expect("served");
    assert_eq!(source.size(), ByteCount(8));
    let read = |offset| {
        let mut bytes = [0; 4];
        source.read_exact_at(&mut bytes, Offset(offset)).expect("reserved");
        bytes
    };
    part.write_vectored_at(&[IoSlice::new(b"abcd")], Offset(0)).expect("written");
    assert_eq!(&read(0), b"abcd");
    source.verify_unchanged().expect("ours");
    part.write_vectored_at(&[IoSlice::new(b"efgh")], Offset(4)).expect("written");
    Committer::commit_batch(&site.root, vec![((), Arc::new(part))]).pop().expect("one").1.expect("committed");
    assert_eq!(&read(4), b"efgh");
    source.verify_unchanged().expect("ours");

    let lost = site.part("b", b"bytes");
    let source = lost.source().expect("served");
    drop(lost);
    assert_eq!(site.parts_left(), 0);
    let mut bytes = [0; 5];
    source.read_exact_at(&mut bytes, Offset(0)).expect("the bytes stay");
    assert_eq!(&bytes, b"bytes");
}

#[test]
fn done_says_what_is_not_done() {
    let site = Site::new();
    let check = |text: &str, expected: Done| {
        assert_eq!(site.root.is_done(&name(text)).expect("readable"), expected, "{text}");
    };
    site.write("unmarked", b"four");
    check("unmarked", Done::MarkerMissing);
    check("nowhere/at/all", Done::MarkerMissing);
    site.write("alone.success", b"size 4\n");
    check("alone", Done::FileMissing);
    site.write("cut", b"fou");
    site.write("cut.success", b"size 4\n");
    check("cut", Done::SizeDiffers { marked: ByteCount(4), found: ByteCount(3) });
    site.write("damaged", b"four");
    site.write("damaged.success", b"size four\n");
    check("damaged", Done::MarkerDamaged);
    site.write("foreign", b"four");
    site.write("foreign.success", b"");
    check("foreign", Done::Yes(ByteCount(4)));
    site.write("long", b"four");
    site.write("long.success", &[&b"size 4\n"[..], &[b'x'; 3 * limits::MARKER_BYTES_MAX]].concat());
    check("long", Done::Yes(ByteCount(4)));
    fs::create_dir(site.path.join("directory.success")).expect("made");
    site.write("directory", b"four");
    check("directory", Done::MarkerMissing);
}

#[test]
fn attributes_are_set_only_of_the_version_that_is_marked() {
    let site = Site::new();
    let part = site.root.write_part(&name("a/b"), b"bytes").expect("room");
    let root = part.seen_root().expect("all was seen");
    part.set_attributes(FileMode::new(0o640), FileTime(7));
    Committer::commit_batch(&site.root, vec![((), Arc::new(part))]).pop().expect("one").1.expect("committed");
    let marker = site.read("a/b.success");
    let check = |root, mode, mtime, expected| {
        site.root.set_attributes(&name("a/b"), root, FileMode::new(mode), FileTime(mtime)).expect("set");
        let stamp = look_up(&site.root, &name("a/b")).expect("known").expect("there");
        assert_eq!((stamp.mode.bits(), stamp.mtime.0), expected);
    };
    check(Root256([1; 32]), 0o600, 8, (0o640, 7));
    check(root, 0o640, -1_000_000_007, (0o640, -1_000_000_007));
    check(root, 0o7400, -1_000_000_007, (0o400, -1_000_000_007));
    check(root, 0, 9, (0, 9));
    check(root, 0o644, 9, (0o644, 9));
    assert_eq!(site.read("a/b.success"), marker);
    assert_eq!(site.read("a/b").as_deref(), Some(&b"bytes"[..]));
    fs::remove_file(site.path.join("a/b.success")).expect("removed");
    check(root, 0o600, 10, (0o644, 9));
    site.root.set_attributes(&name("gone/a"), root, FileMode::new(0o600), FileTime(1)).expect("nothing to do");
}

#[test]
fn removing_takes_the_marker_along() {
    let site = Site::new();
    site.commit("a/b", b"x").expect("committed");
    take_away(&site.root, "a/b").expect("removed");
    assert!(!site.path.join("a").exists());
    assert!(site.path.exists());
    take_away(&site.root, "a/b").expect("gone already");
}

#[test]
fn a_part_that_grows_is_cut_to_the_length_that_is_told_last() {
    let site = Site::new();
    for (text, size) in [("some", 150_u64), ("all", 200), ("none", 0)] {
        let part = site.root.create_growing_part(&name(text)).expect("made");
        part.write_vectored_at(&[IoSlice::new(&[7; 100]), IoSlice::new(&[8; 100])], Offset(0)).expect("written");
        part.cut(ByteCount(size)).expect("cut");
        let beyond = part.write_vectored_at(&[IoSlice::new(b"x")], Offset(size));
        assert!(matches!(beyond, Err(StoreError::BeyondEnd { .. })), "{beyond:?}");
        let outcome = Committer::commit_batch(&site.root, vec![((), Arc::new(part))]);
        assert!(matches!(outcome[..], [((), Ok(()))]), "{outcome:?}");
        let expected: Vec<u8> = [[7; 100], [8; 100]].concat()[..size as usize].to_vec();
        assert_eq!(site.read(text).expect("stands"), expected);
        assert_eq!(site.root.is_done(&name(text)).expect("readable"), Done::Yes(ByteCount(size)));
    }
}

#[test]
fn a_part_of_known_size_is_not_cut() {
    let site = Site::new();
    let part = site.part("whole", b"abc");
    part.cut(ByteCount(1)).expect("nothing to do");
    assert_eq!(part.size(), ByteCount(3));
}

#[test]
fn blocks_that_were_seen_whole_are_not_read_back_unless_they_are_written_to_again() {
    let site = Site::new();
    const BLOCK: usize = limits::BLOCK_BYTES as usize;
    let mut content: Vec<u8> = (0..2 * BLOCK + 5).map(|at| (at / 7) as u8).collect();
    let part = site.root.create_part(&name("o"), ByteCount(content.len() as u64)).expect("room");
    let root_of = |content: &[u8]| Root256(*blake3::hash(content).as_bytes());
    let write = |range: std::ops::Range<usize>, content: &[u8]| {
        part.write_seen_at(&content[range.clone()], Offset(range.start as u64)).expect("written");
    };
    write(2 * BLOCK..content.len(), &content);
    write(0..BLOCK, &content);
    // In two halves, so that nobody saw all of it.
    write(BLOCK..BLOCK + 9, &content);
    write(BLOCK + 9..2 * BLOCK, &content);
    assert_eq!([0, 1, 2].map(|index| part.seen_block(index).is_some()), [true, false, true]);
    assert_eq!((part.seen_root(), hash_part(&part, || false).expect("readable")), (None, Some(root_of(&content))));
    assert_eq!(hash_part(&part, || true).expect("nothing is read"), None);
    write(BLOCK..2 * BLOCK, &content);
    assert_eq!(part.seen_root(), Some(root_of(&content)));
    assert_eq!(hash_part(&part, || true).expect("nothing is to be read"), Some(root_of(&content)));

    content[BLOCK - 1..BLOCK + 1].fill(0xFF);
    write(BLOCK - 1..BLOCK + 1, &content);
    assert_eq!([0, 1, 2].map(|index| part.seen_block(index).is_some()), [false, false, true]);
    assert_eq!(hash_part(&part, || false).expect("readable"), Some(root_of(&content)));
}
