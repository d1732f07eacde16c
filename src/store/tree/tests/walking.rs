//! What a walk tells, what it leaves out, and how its files are read.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use super::*;

#[test]
fn a_walk_tells_what_the_file_system_keeps() {
    let site = Site::new();
    let file = site.write("sub/file", b"content");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o4751)).expect("set");
    set_mtime(&file, -3, 123_456_789);
    fs::hard_link(&file, site.from().join("sub/other")).expect("linked");
    fs::create_dir(site.from().join("empty")).expect("made");
    symlink("no/such\nplace", site.from().join("link")).expect("linked");
    mknod(&site.from().join("pipe"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).expect("made");
    let names: Vec<u8> = (1..=255).filter(|&b| b != b'/').collect();
    site.write(OsStr::from_bytes(&names[..127]), b"");
    site.write(OsStr::from_bytes(&names[127..]), b"");
    site.write(".supersync/lock", b"private");
    site.write("x.success", b"plain");

    let mut walk = site.walk(&[], WalkOptions { owner: true, ..WalkOptions::default() });
    let found = all(&mut walk, 3);
    for (at, found_here) in found.iter().enumerate().skip(1) {
        let parent = found_here.entry.path.parent().expect("below the top");
        let before = found[..at].iter().find(|found| found.entry.path == parent).expect("its directory came before");
        assert_eq!(before.entry.kind, Kind::Directory);
    }
    assert!(found[0].entry.path.is_top());
    let found_by_path = by_path(&found);
    assert_eq!(found.len(), 9 - 1 + 1, "{:?}", found_by_path.keys());

    let (first, second) = (&found_by_path["sub/file"].entry, &found_by_path["sub/other"].entry);
    let (first, second) = if first.kind == Kind::File { (first, second) } else { (second, first) };
    assert_eq!(second.kind, Kind::HardLink(first.path.clone()));
    assert_eq!((first.mode, first.size, first.mtime), (0o4751, ByteCount(7), FileTime(-3_000_000_000 + 123_456_789)));
    let metadata = fs::metadata(&file).expect("stands");
    let owner = first.owner.as_ref().expect("asked for");
    assert_eq!((owner.uid, owner.gid, &owner.user), (metadata.uid(), metadata.gid(), &None));
    assert_eq!(found_by_path["link"].entry.kind, Kind::Symlink((*b"no/such\nplace").into()));
    assert_eq!(found_by_path["empty"].entry.kind, Kind::Directory);

    let skipped = walk.take_skipped();
    let mut told: Vec<_> =
        skipped.iter().map(|skipped| (skipped.path.to_string(), skipped.reason.to_string())).collect();
    told.sort_unstable();
    let private = (".supersync".into(), "it is a private directory of SuperSync".into());
    assert_eq!(told, [private, ("pipe".into(), "it is a pipe".into())]);
    assert!(!skipped.iter().any(|skipped| skipped.reason.is_failure()) && walk.take_skipped().is_empty());
}

#[test]
fn nothing_of_a_private_directory_is_sent_whatever_leads_there() {
    let site = Site::new();
    site.write(".supersync/parts/file", b"somebody's");
    site.write("sub/.supersync/parts/file", b"somebody's");
    for (link, target) in [("link", ".supersync"), ("parts", "sub/.supersync/parts"), ("top", "."), ("sub/up", "..")] {
        symlink(target, site.from().join(link)).expect("linked");
    }
    let check = |root: &str, start: &str, is_contents: bool, is_refused: bool| {
        let lands = if is_contents { TreePath::top() } else { path("x") };
        let source = WalkSource { root: site.from().join(root), start: path(start), lands };
        let walk = Walk::new(vec![source], Rules::none(), WalkOptions::default());
        let reserved = matches!(walk, Err(TreeError::Refused { reason: RefusedPath::Reserved, .. }));
        assert_eq!((reserved, walk.is_ok()), (is_refused, !is_refused), "{root} {start}: {walk:?}");
    };
    check("", ".supersync", false, true);
    check("", ".supersync", true, true);
    check("", "sub/.supersync/parts/file", false, true);
    check(".supersync/parts", "", true, true);
    check("", "link", true, true);
    check("", "link/parts/file", false, true);
    check("", "parts", true, true);
    check("", "parts/file", false, true);
    check("", "link", false, false);
    check("", "top/sub/up", true, false);
    check("", "sub", true, false);
}

#[test]
fn a_source_lands_where_it_is_told() {
    let site = Site::new();
    site.write("a/b/c", b"x");
    let check = |start: &str, lands: &str, expected: &[&str]| {
        let source = WalkSource { root: site.from(), start: path(start), lands: path(lands) };
        let mut walk = Walk::new(vec![source], Rules::none(), WalkOptions::default()).expect("a directory");
        let found = all(&mut walk, 100);
        let paths: Vec<_> = found.iter().map(|found| found.entry.path.to_string()).collect();
        assert_eq!(paths, expected, "{start} -> {lands}");
        let file = found.last().expect("not empty").open().expect("unchanged");
        let mut byte = [0];
        file.read_exact_at(&mut byte, Offset(0)).expect("read");
        assert_eq!(byte, *b"x");
    };
    check("", "", &[".", "a", "a/b", "a/b/c"]);
    check("a", "a", &["a", "a/b", "a/b/c"]);
    check("a/b", "y/z", &["y/z", "y/z/c"]);
    check("a/b", "", &[".", "c"]);
    check("a/b/c", "d", &["d"]);
    check("", "x", &["x", "x/a", "x/a/b", "x/a/b/c"]);
}

#[test]
fn a_path_is_split_by_the_rule_of_its_last_slash() {
    let check = |text: &str, root: &str, start: &str| {
        let source = WalkSource::of_path(Path::new(text)).expect("valid");
        assert_eq!((source.root, source.start.as_bytes()), (root.into(), start.as_bytes()), "{text}");
    };
    check("/srv/data", "/srv", "data");
    check("/srv/data/", "/srv/data/", "");
    check("data", ".", "data");
    check(".", ".", "");
    check("/", "/", "");
    check("/srv/..", "/srv/..", "");
}

#[test]
fn excluded_directories_are_not_entered() {
    let site = Site::new();
    site.write("build/out/x", b"");
    site.write("src/x.o", b"");
    site.write("src/keep.o", b"");
    site.write("src/.supersyncignore", b"*.tmp\n");
    site.write("src/deep/y.tmp", b"");
    site.write("z.tmp", b"");
    let mut walk = site.walk(&["build/", "*.o", "!keep.o"], WalkOptions::default());
    let found = all(&mut walk, 100);
    let paths: Vec<_> = by_path(&found).into_keys().collect();
    assert_eq!(paths, [".", "src", "src/.supersyncignore", "src/deep", "src/keep.o", "z.tmp"]);
}

/// A directory that was moved while a push ran once counted as empty, and was emptied where it landed.
#[test]
fn a_directory_that_is_gone_before_it_is_listed_is_told() {
    let site = Site::new();
    site.write("d/precious", b"");
    let mut walk = site.walk(&[], WalkOptions::default());
    assert_eq!(walk.next_batch(2).expect("readable").len(), 2, "the top and what is in it");
    fs::rename(site.from().join("d"), site.from().join("e")).expect("moved");
    assert!(all(&mut walk, 100).is_empty());
    let skipped = walk.take_skipped();
    assert!(matches!(&skipped[..], [Skipped { path, reason: SkipReason::Gone }] if path.as_bytes() == b"d"));
    assert!(skipped[0].reason.is_failure());
}

#[test]
fn a_file_that_is_not_what_was_listed_is_refused() {
    let check = |change: fn(&Path)| {
        let site = Site::new();
        let file = site.write("sub/file", b"content");
        site.write("secret", b"sec ret");
        let found = all(&mut site.walk(&[], WalkOptions::default()), 100);
        let found = by_path(&found)["sub/file"];
        change(&file);
        let refused = |error: &TreeError| matches!(error, TreeError::Changed { .. } | TreeError::ThroughLink { .. });
        assert!(refused(&found.open().expect_err("it is another")));
        assert!(refused(&found.read_whole(&mut [0; 7]).expect_err("it is another")));
    };
    check(|file| fs::remove_file(file).expect("removed"));
    check(|file| fs::write(file, b"other, and longer").expect("written"));
    check(|file| {
        fs::remove_file(file).expect("removed");
        symlink("../secret", file).expect("linked");
    });
    check(|file| {
        let sub = file.parent().expect("a directory");
        fs::rename(sub, sub.with_file_name("moved")).expect("moved");
        symlink("moved", sub).expect("linked");
    });
    check(|file| {
        fs::remove_file(file).expect("removed");
        mknod(file, SFlag::S_IFIFO, Mode::S_IRUSR | Mode::S_IWUSR, 0).expect("made");
    });
}

#[test]
fn a_change_while_a_file_is_read_is_told() {
    let site = Site::new();
    let path = site.write("file", b"content");
    set_mtime(&path, 1_000, 0);
    let found = all(&mut site.walk(&[], WalkOptions::default()), 100);
    let file = by_path(&found)["file"].open().expect("unchanged");
    file.verify_unchanged().expect("unchanged");
    let mut append = fs::OpenOptions::new().append(true).open(&path).expect("opened");
    append.write_all(b" and more").expect("written");
    assert!(matches!(file.verify_unchanged(), Err(TreeError::Changed { .. })));
    assert!(file.read_exact_at(&mut [0; 17], Offset(0)).is_err() || file.verify_unchanged().is_err());
}

#[test]
fn regions_without_holes_are_told() {
    let site = Site::new();
    let path = site.write("sparse", b"");
    let file = fs::OpenOptions::new().write(true).open(&path).expect("opened");
    file.set_len(4 << 20).expect("set");
    file.write_all_at(&[1; 4096], 1 << 20).expect("written");
    site.write("dense", &[1; 9000]);
    let found = all(&mut site.walk(&[], WalkOptions::default()), 100);
    let found = by_path(&found);
    assert!(found["sparse"].entry.is_sparse && !found["dense"].entry.is_sparse);
    let file = found["sparse"].open().expect("unchanged");
    let (start, length) = file.next_data(Offset(0)).expect("some data");
    assert!(start.0 <= 1 << 20 && start.0 + length.0 >= (1 << 20) + 4096 && length.0 < 4 << 20, "{start} {length}");
    assert_eq!(file.next_data(start + length), None);
    let dense = found["dense"].open().expect("unchanged");
    assert_eq!(dense.next_data(Offset(5)), Some((Offset(5), ByteCount(8995))));
    assert_eq!(dense.next_data(Offset(9000)), None);
}

#[test]
fn a_walk_hashes_and_reads_extended_attributes_when_asked() {
    let site = Site::new();
    let path = site.write("file", b"content");
    let has_xattrs = xattr::set(&path, "user.note", b"a\0b").is_ok();
    let mut walk = site.walk(&[], WalkOptions { hash: true, xattrs: true, ..WalkOptions::default() });
    let found = all(&mut walk, 100);
    let entry = &by_path(&found)["file"].entry;
    assert_eq!(entry.hash.expect("asked for").0, *blake3::hash(b"content").as_bytes());
    if has_xattrs {
        let user: Vec<_> = entry.xattrs.iter().filter(|(name, _)| name.starts_with(b"user.")).collect();
        assert_eq!(user, [&((*b"user.note").into(), (*b"a\0b").into())]);
    } else {
        println!("skipped: the file system has no extended attributes");
    }
}

#[test]
fn the_longest_paths_are_walked_and_read() {
    let site = Site::new();
    let component = "d".repeat(200);
    let mut at = site.from();
    // The system's calls take no longer path at once, so that directories are made from within.
    let mut directory = File::open(&at).expect("opened");
    let mut length = 0;
    while length + 201 + 60 < 4095 {
        use std::os::fd::AsFd as _;
        nix::sys::stat::mkdirat(directory.as_fd(), component.as_str(), Mode::S_IRWXU).expect("made");
        let flags = nix::fcntl::OFlag::O_DIRECTORY;
        let below = nix::fcntl::openat(directory.as_fd(), component.as_str(), flags, Mode::empty()).expect("opened");
        directory = File::from(below);
        at.push(&component);
        length += 201;
    }
    let name = "f".repeat(4095 - length);
    let flags = nix::fcntl::OFlag::O_CREAT | nix::fcntl::OFlag::O_WRONLY;
    let file = nix::fcntl::openat(&directory, name.as_str(), flags, Mode::S_IRWXU).expect("made");
    File::from(file).write_all(b"deep").expect("written");
    let mut walk = site.walk(&[], WalkOptions::default());
    let found = all(&mut walk, 100);
    let last = found.last().expect("not empty");
    assert_eq!(last.entry.path.as_bytes().len(), 4095);
    let mut bytes = [0; 4];
    last.read_whole(&mut bytes).expect("read");
    assert_eq!(&bytes, b"deep");
}

/// A daemon kept two descriptors for each tree that was ever pulled from it, until it had none left.
#[test]
fn a_walk_that_is_over_keeps_no_directory_open() {
    let site = Site::new();
    site.write("sub/file", b"content");
    let mut walk = site.walk(&[], WalkOptions::default());
    let found = all(&mut walk, 10);
    let file = found.iter().find(|found| found.entry.kind == Kind::File).expect("found");
    file.read_whole(&mut [0; 7]).expect("read");
    let top = std::sync::Arc::downgrade(&file.place.top);
    drop((walk, found));
    assert_eq!(top.strong_count(), 0, "nobody reads there any more");
}
