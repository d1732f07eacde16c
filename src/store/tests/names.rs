//! Names and roots: who may open what, and where it leads.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::super::*;
use super::{Site, name, take_away};
use crate::limits;
use crate::units::ByteCount;

#[test]
fn no_symbolic_link_leads_out_of_a_root() {
    let site = Site::new();
    symlink("../secret", site.path.join("end")).expect("made");
    symlink(site.outside.path().join("secret"), site.path.join("absolute")).expect("made");
    symlink("..", site.path.join("up")).expect("made");
    symlink(site.outside.path(), site.path.join("away")).expect("made");
    assert_eq!(fs::read(site.path.join("up/secret")).expect("the links lead there"), b"secret");
    for text in ["end", "absolute", "up/secret", "away/secret"] {
        let outcome = site.root.open_source(&name(text));
        assert!(matches!(outcome, Err(StoreError::Outside { .. })), "{text}: {outcome:?}");
        assert!(matches!(site.root.size_of(&name(text)), Err(StoreError::Outside { .. })), "{text}");
    }
    for text in ["up/new", "away/new", "away/deep/new"] {
        let outcome = site.commit(text, b"x");
        assert!(matches!(outcome, Err(StoreError::Outside { .. })), "{text}: {outcome:?}");
        let kept = site.part(text, b"x").keep_unsynced();
        assert!(matches!(kept, Err(StoreError::Outside { .. })), "{text}: {kept:?}");
    }
    assert!(matches!(take_away(&site.root, "up/secret"), Err(StoreError::Outside { .. })));
    let beside: Vec<_> = fs::read_dir(site.outside.path()).expect("stands").collect();
    assert_eq!(beside.len(), 2, "the root and the secret: {beside:?}");
    assert_eq!(site.parts_left(), 0);
}

#[test]
fn a_commit_replaces_a_link_and_never_writes_through_it() {
    let site = Site::new();
    symlink("../secret", site.path.join("object")).expect("made");
    symlink("../secret", site.path.join("object.success")).expect("made");
    site.commit("object", b"new").expect("committed");
    assert_eq!(fs::read(site.outside.path().join("secret")).expect("stands"), b"secret");
    assert_eq!(site.read("object").expect("stands"), b"new");
    assert!(site.root.is_done(&name("object")).expect("readable").is_yes());
}

#[test]
fn a_link_that_stays_inside_is_followed_when_named() {
    let site = Site::new();
    site.write("a/b", b"inside");
    symlink("a", site.path.join("link")).expect("made");
    assert_eq!(site.root.open_source(&name("link/b")).expect("beneath").size(), ByteCount(6));
}

#[test]
fn reserved_names_are_refused_by_every_door() {
    let site = Site::new();
    for text in [".supersync/lock", ".supersync/parts/x", "a.success", "a.success/b"] {
        let name = name(text);
        assert!(matches!(site.root.open_source(&name), Err(StoreError::BadName { .. })), "{text}");
        assert!(matches!(site.root.create_part(&name, ByteCount(1)), Err(StoreError::BadName { .. })), "{text}");
        assert!(matches!(take_away(&site.root, text), Err(StoreError::BadName { .. })), "{text}");
        assert!(matches!(site.root.size_of(&name), Err(StoreError::BadName { .. })), "{text}");
        assert!(matches!(site.root.is_done(&name), Err(StoreError::BadName { .. })), "{text}");
    }
}

#[test]
fn what_is_no_regular_file_is_no_object() {
    let site = Site::new();
    fs::create_dir(site.path.join("directory")).expect("made");
    nix::unistd::mkfifo(&site.path.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let _socket = UnixListener::bind(site.path.join("socket")).expect("bound");
    for text in ["directory", "pipe", "socket"] {
        let outcome = site.root.open_source(&name(text));
        assert!(matches!(outcome, Err(StoreError::NotRegular { .. })), "{text}: {outcome:?}");
        assert_eq!(site.root.size_of(&name(text)).expect("readable"), None, "{text}");
    }
    site.write("file", b"x");
    for text in ["missing", "missing/file", "file/below"] {
        let outcome = site.root.open_source(&name(text));
        assert!(matches!(outcome, Err(StoreError::NotFound { .. })), "{text}: {outcome:?}");
        assert_eq!(site.root.size_of(&name(text)).expect("readable"), None, "{text}");
    }
}

#[test]
fn the_longest_name_that_is_taken_can_be_marked() {
    let site = Site::new();
    let longest = "n".repeat(limits::NAME_COMPONENT_BYTES_MAX);
    site.commit(&longest, b"x").expect("fits with its marker");
    assert!(site.root.is_done(&name(&longest)).expect("readable").is_yes());
    let directory = format!("{}/", "d".repeat(200)).repeat(20);
    let deep = format!("{directory}{}", "f".repeat(limits::NAME_BYTES_MAX - directory.len()));
    site.commit(&deep, b"x").expect("fits, one directory at a time");
    // Its marker's path is longer than PATH_MAX.
    assert_eq!(site.root.size_of(&name(&deep)).expect("readable"), Some(ByteCount(1)));
    assert_eq!(site.root.is_done(&name(&deep)).expect("readable"), Done::Yes(ByteCount(1)));
}

#[test]
fn a_root_must_be_a_directory() {
    let site = Site::new();
    site.write("file", b"x");
    let check = |outcome: Result<Root, StoreError>, says: &str| {
        let text = outcome.expect_err("no root").to_string();
        assert!(text.contains(says) && text.contains("root/"), "{text}");
    };
    check(Root::open(&site.path.join("missing")), "No such file");
    check(Root::open(&site.path.join("file")), "not a directory");
    check(Root::create(&site.path.join("file")), "");
    check(Root::create(&site.path.join("file/below")), "");
}

#[test]
fn one_process_writes_a_root_and_others_read_it() {
    let site = Site::new();
    let second = Root::create(&site.path).expect_err("taken");
    assert!(matches!(second, StoreError::Locked { .. }));
    let text = second.to_string();
    assert!(text.contains(&site.path.display().to_string()), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    let reader = Root::open(&site.path).expect("readable");
    let outcome = reader.create_part(&name("a"), ByteCount(1));
    assert!(matches!(outcome, Err(StoreError::ReadOnly { .. })), "{outcome:?}");
    assert!(matches!(take_away(&reader, "a"), Err(StoreError::ReadOnly { .. })));

    // A part that is still around may yet be written, so it keeps the lock; a source does not.
    let Site { root, path, outside: _outside } = site;
    fs::write(path.join("b"), "x").expect("written");
    let source = root.open_source(&name("b")).expect("opened");
    let part = root.create_part(&name("a"), ByteCount(1)).expect("room");
    drop(root);
    assert!(matches!(Root::create(&path), Err(StoreError::Locked { .. })));
    drop(part);
    Root::create(&path).expect("free again");
    drop(source);
}

#[test]
fn parts_of_an_interrupted_run_are_removed() {
    let site = Site::new();
    site.write("kept", b"kept");
    site.write(".supersync/parts/0000000000000000", b"half");
    site.write(".supersync/parts/0000000000000007", b"half");
    let Site { root, path, outside: _outside } = site;
    assert_eq!(root.leftovers(), 0);
    drop(root);
    let root = Root::create(&path).expect("free again");
    assert_eq!(root.leftovers(), 2);
    assert_eq!(fs::read_dir(path.join(".supersync/parts")).expect("stands").count(), 0);
    assert_eq!(fs::read(path.join("kept")).expect("stands"), b"kept");
    root.create_part(&name("a"), ByteCount(1)).expect("its private name is free");
}

#[test]
fn an_object_that_does_not_fit_is_refused_before_it_is_fetched() {
    let site = Site::new();
    let free = site.root.free_bytes().expect("known");
    // Far beyond what is free, whatever others write meanwhile; and what only a hostile peer would announce.
    for size in [free.0 * 2 + (1 << 40), i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        let outcome = site.root.create_part(&name("big"), ByteCount(size));
        let Err(StoreError::Full { lack: Lack::Bytes { needed, free }, .. }) = outcome else {
            panic!("{size}: {outcome:?}")
        };
        assert_eq!(needed, ByteCount(size));
        assert!(free.0 > 0);
        assert_eq!(site.parts_left(), 0, "{size}");
    }
}
