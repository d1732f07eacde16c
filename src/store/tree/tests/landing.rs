//! What a landed tree looks like, beside the one that was sent.

use std::os::unix::fs::FileExt as _;

use super::*;
use crate::units::Owner;

fn owning() -> LandingOptions {
    LandingOptions { owner: true, xattrs: true, resume: true, ..LandingOptions::default() }
}

/// A tree with something of everything.
fn rich() -> Site {
    let site = Site::new();
    let names: Vec<u8> = (1..=255).filter(|&b| b != b'/').collect();
    for (seed, name) in [&names[..127], &names[127..]].into_iter().enumerate() {
        site.write(OsStr::from_bytes(name), &bytes(100, seed as u8));
    }
    site.write("empty", b"");
    site.write("a.success", b"an ordinary file");
    site.write("deep/er/est/small", &bytes(4_096, 3));
    site.write("deep/big", &bytes(300_000, 4));
    let file = site.write("odd/setuid", b"#!");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o6711)).expect("set");
    let _ = xattr::set(&file, "user.note", b"a\0b");
    let file = site.write("odd/unreadable", b"secret");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o400)).expect("set");
    set_mtime(&file, -5, 999_999_999);
    fs::create_dir(site.from().join("odd/empty-dir")).expect("made");
    symlink("no/such\nplace", site.from().join("odd/link")).expect("linked");
    fs::hard_link(site.from().join("deep/big"), site.from().join("odd/big-too")).expect("linked");
    fs::hard_link(site.from().join("deep/big"), site.from().join("big-again")).expect("linked");
    let sparse = site.write("sparse", b"");
    let file = fs::OpenOptions::new().write(true).open(sparse).expect("opened");
    file.set_len(8 << 20).expect("set");
    file.write_all_at(&[7; 10_000], 4 << 20).expect("written");
    let hole = site.write("hole", b"");
    fs::OpenOptions::new().write(true).open(hole).expect("opened").set_len(1 << 20).expect("set");
    let sealed = site.write("sealed/file", b"within");
    let _ = xattr::set(sealed.parent().expect("a directory"), "user.dir", b"x");
    set_mtime(sealed.parent().expect("a directory"), 1_000, 7);
    fs::set_permissions(sealed.parent().expect("a directory"), PermissionsExt::from_mode(0o555)).expect("set");
    set_mtime(&site.from(), 2_000, 8);
    site
}

#[test]
fn a_landed_tree_is_the_one_that_was_sent() {
    let site = rich();
    let (changes, ended) = site.send(&[], &owning());
    assert!(ended.failed.is_empty() && ended.deleted.is_empty(), "{ended:?}");
    assert_eq!(picture(&site.to()), picture(&site.from()));
    let (from, to) = (fs::metadata(site.from()).expect("stands"), fs::metadata(site.to()).expect("stands"));
    assert_eq!((to.mtime(), to.mtime_nsec(), to.mode()), (from.mtime(), from.mtime_nsec(), from.mode()));
    let inode = |name: &str| fs::metadata(site.to().join(name)).expect("stands").ino();
    assert!(inode("deep/big") == inode("odd/big-too") && inode("deep/big") == inode("big-again"));
    let blocks = |top: PathBuf| fs::metadata(top.join("sparse")).expect("stands").blocks();
    assert!(blocks(site.to()) <= blocks(site.from()) + 64, "{} blocks", blocks(site.to()));
    assert_eq!(fs::metadata(site.to().join("hole")).expect("stands").blocks(), 0);
    assert_eq!(changes["deep/big"], Change::New);
    assert!(!site.to().join(".supersync").exists());
}

#[test]
fn a_second_run_touches_nothing() {
    let site = rich();
    site.send(&[], &owning());
    let ctimes = |top: PathBuf| -> BTreeMap<PathBuf, (i64, i64)> {
        let ctime = |path: &PathBuf| {
            let metadata = fs::symlink_metadata(top.join(path)).expect("stands");
            (metadata.ctime(), metadata.ctime_nsec())
        };
        picture(&top).into_keys().map(|path| (path.clone(), ctime(&path))).collect()
    };
    let before = ctimes(site.to());
    let (changes, ended) = site.send(&[], &LandingOptions { delete: true, ..owning() });
    assert_eq!(changes, BTreeMap::new());
    assert!(ended.failed.is_empty() && ended.deleted.is_empty(), "{ended:?}");
    assert_eq!(ctimes(site.to()), before);
    let (changes, _) = site.send(&[], &LandingOptions { checksum: true, ..owning() });
    assert_eq!((changes, ctimes(site.to())), (BTreeMap::new(), before));
}

#[test]
fn only_what_differs_is_changed() {
    let site = rich();
    site.send(&[], &owning());
    site.write("deep/er/est/small", &bytes(4_096, 9));
    fs::set_permissions(site.from().join("empty"), PermissionsExt::from_mode(0o600)).expect("set");
    set_mtime(&site.from().join("a.success"), 77, 1);
    fs::remove_file(site.from().join("odd/link")).expect("removed");
    symlink("elsewhere", site.from().join("odd/link")).expect("linked");
    let (changes, ended) = site.send(&[], &owning());
    assert!(ended.failed.is_empty(), "{ended:?}");
    assert_eq!(changes["deep/er/est/small"], Change::Content);
    assert_eq!(changes["empty"], Change::Attributes);
    assert_eq!(changes["odd/link"], Change::Content);
    // Its size is what it was: without a look at the content the time tells.
    assert_eq!(changes["a.success"], Change::Content);
    assert!(!changes.contains_key("deep/big") && !changes.contains_key("odd/big-too"), "{changes:?}");
    assert_eq!(picture(&site.to()), picture(&site.from()));

    set_mtime(&site.from().join("a.success"), 78, 1);
    let (changes, _) = site.send(&[], &LandingOptions { checksum: true, ..owning() });
    assert_eq!(changes["a.success"], Change::Attributes);
    // A change that neither size nor time show.
    let times = fs::metadata(site.from().join("deep/big")).expect("stands");
    site.write("deep/big", &bytes(300_000, 5));
    set_mtime(&site.from().join("deep/big"), times.mtime(), times.mtime_nsec());
    let (changes, _) = site.send(&[], &owning());
    assert!(!changes.contains_key("deep/big"), "{changes:?}");
    let (changes, _) = site.send(&[], &LandingOptions { checksum: true, ..owning() });
    assert_eq!(changes["deep/big"], Change::Content);
    assert_eq!(picture(&site.to()), picture(&site.from()));
}

#[test]
fn a_replaced_file_keeps_its_other_names() {
    let site = rich();
    site.send(&[], &owning());
    // Another content under one name of three: all three are again one file.
    site.write("deep/big", &bytes(300_001, 6));
    let (_, ended) = site.send(&[], &owning());
    assert!(ended.failed.is_empty(), "{ended:?}");
    assert_eq!(picture(&site.to()), picture(&site.from()));
}

#[test]
fn what_is_in_the_way_is_replaced() {
    let site = Site::new();
    site.write("dir/file", b"x");
    site.write("plain", b"y");
    site.write("other", b"z");
    symlink("nowhere", site.from().join("link")).expect("linked");
    let outside = site.dir.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("plain"), "keep").expect("written");
    fs::create_dir(site.to()).expect("made");
    symlink(&outside, site.to().join("dir")).expect("linked");
    symlink(outside.join("plain"), site.to().join("plain")).expect("linked");
    fs::create_dir(site.to().join("other")).expect("made");
    fs::write(site.to().join("link"), "a file").expect("written");
    let (_, ended) = site.send(&[], &owning());
    assert!(ended.failed.is_empty(), "{ended:?}");
    assert_eq!(picture(&site.to()), picture(&site.from()));
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 1);
    assert_eq!(fs::read(outside.join("plain")).expect("stands"), b"keep");
}

#[test]
fn a_directory_that_is_not_empty_is_only_replaced_when_asked() {
    let site = Site::new();
    site.write("name", b"a file");
    fs::create_dir_all(site.to().join("name/below")).expect("made");
    fs::write(site.to().join("name/below/x"), "x").expect("written");
    let entry = by_path(&all(&mut site.walk(&[], WalkOptions::default()), 9))["name"].entry.clone();
    let error = site.landing(owning()).examine(0, entry).expect_err("it is not empty");
    assert!(matches!(error, TreeError::InTheWay { .. }), "{error}");
    let (_, ended) = site.send(&[], &LandingOptions { delete: true, ..owning() });
    assert_eq!(
        ended.deleted.iter().map(|path| path.to_string()).collect::<Vec<_>>(),
        ["name/below/x", "name/below", "name"]
    );
    assert_eq!(picture(&site.to()), picture(&site.from()));
}

#[test]
fn a_link_swapped_into_the_way_is_refused() {
    let site = Site::new();
    site.write("dir/file", &bytes(20_000, 1));
    let outside = site.dir.path().join("outside");
    fs::create_dir(&outside).expect("made");
    let mut walk = site.walk(&[], WalkOptions::default());
    let found = all(&mut walk, 9);
    let mut landing = site.landing(owning());
    for (id, found) in (0..).zip(&found) {
        landing.examine(id, found.entry.clone()).expect("examined");
    }
    assert!(landing.end_batch().is_empty());
    fs::rename(site.to().join("dir"), site.to().join("moved")).expect("moved");
    symlink(&outside, site.to().join("dir")).expect("linked");
    let entry = by_path(&found)["dir/file"].entry.clone();
    let error = landing.examine(0, entry).expect_err("the way leads elsewhere");
    assert!(matches!(error, TreeError::ThroughLink { .. }), "{error}");
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0);
}

#[test]
fn names_that_are_reserved_and_tops_that_are_files_are_refused() {
    let site = Site::new();
    let mut landing = site.landing(owning());
    let mut refused = |path: &str, kind: Kind| {
        let entry = Entry::new(TreePath::new(path.as_bytes()).expect("valid"), kind);
        matches!(landing.examine(0, entry), Err(TreeError::Refused { .. }))
    };
    assert!(refused(".supersync/parts/x", Kind::File));
    assert!(refused(".supersync", Kind::Symlink((*b"x").into())));
    assert!(refused("", Kind::File));
    assert!(refused("x", Kind::HardLink(path(".supersync/lock"))));
    assert!(!refused("a/.supersync", Kind::Directory));
}

#[test]
fn a_link_to_what_did_not_come_is_told() {
    let site = Site::new();
    let mut landing = site.landing(owning());
    let entry = Entry::new(path("other"), Kind::HardLink(path("first")));
    assert_eq!(landing.examine(3, entry).expect("examined"), Examined::Made(Change::New));
    let failed = landing.end_batch();
    assert!(matches!(failed[..], [(3, TreeError::NoLinkTarget { .. })]), "{failed:?}");
}

/// Where the first name of a file could not be had, the others were once linked to what stood there before.
#[test]
fn nothing_is_linked_to_what_a_file_that_failed_was_to_replace() {
    let site = Site::new();
    fs::create_dir(site.to()).expect("made");
    let old = [("first", b"the old version"), ("other", b"a good version!")];
    old.iter().for_each(|(name, bytes)| fs::write(site.to().join(name), bytes).expect("written"));
    let mut landing = site.landing(owning());
    let first = Entry { size: ByteCount(9), ..Entry::new(path("first"), Kind::File) };
    let link = |name| Entry::new(path(name), Kind::HardLink(path("first")));
    assert!(matches!(landing.examine(0, first.clone()), Ok(Examined::Wanted { .. })));
    assert_eq!(landing.examine(1, link("other")).expect("examined"), Examined::Made(Change::Content));
    landing.give_up(0);
    let is_refused = |failed: &[(u16, TreeError)]| matches!(failed, [(_, TreeError::NoLinkTarget { .. })]);
    assert!(is_refused(&landing.end_batch()));
    // In a batch that comes later, and to what is linked to it in turn.
    landing.examine(7, link("new")).expect("examined");
    assert!(is_refused(&landing.end_batch()));
    landing.examine(8, Entry::new(path("newer"), Kind::HardLink(path("other")))).expect("examined");
    assert!(is_refused(&landing.end_batch()));
    for (name, bytes) in old {
        assert_eq!(fs::read(site.to().join(name)).expect("stands"), bytes);
    }
    assert!(!site.to().join("new").exists() && !site.to().join("newer").exists());
    // What cannot even be begun is known to fail at once.
    fs::remove_file(site.to().join("first")).expect("removed");
    fs::create_dir_all(site.to().join("first/in the way")).expect("made");
    assert!(matches!(landing.examine(0, first), Err(TreeError::InTheWay { .. })));
    assert!(matches!(landing.examine(1, link("other")), Err(TreeError::NoLinkTarget { .. })));
}

/// Two files that are alike but for their modes took the one file that they were at the receiver from each other, in
/// each run again.
#[test]
fn what_is_one_file_here_and_two_unlike_ones_there_becomes_two() {
    let site = Site::new();
    let modes = [("a", 0o644), ("b", 0o600), ("c", 0o644)];
    for (name, mode) in modes {
        let path = site.write(name, b"alike");
        set_mtime(&path, 1_000_000_000, 5);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    }
    fs::create_dir(site.to()).expect("made");
    fs::copy(site.from().join("a"), site.to().join("a")).expect("copied");
    set_mtime(&site.to().join("a"), 1_000_000_000, 5);
    ["b", "c"].iter().for_each(|name| fs::hard_link(site.to().join("a"), site.to().join(name)).expect("linked"));
    let mut dry = site.landing(LandingOptions { dry_run: true, ..owning() });
    let found = all(&mut site.walk(&[], WalkOptions::default()), 9);
    let mut examine = |found: &Found| dry.examine(0, found.entry.clone()).expect("examined");
    let told = found.iter().filter(|found| examine(found) != Examined::Same).map(|found| found.entry.path.to_string());
    let told: Vec<_> = told.collect();
    drop(dry);
    let (changes, ended) = site.send(&[], &owning());
    assert!(ended.failed.is_empty(), "{ended:?}");
    assert_eq!(told.len(), changes.len(), "{told:?} {changes:?}");
    let stat = |name: &str| fs::metadata(site.to().join(name)).expect("stands");
    for (name, mode) in modes {
        assert_eq!(stat(name).mode() & 0o7777, mode, "{name}");
    }
    assert_eq!(stat("a").ino(), stat("c").ino(), "nothing speaks against it");
    assert_eq!(site.send(&[], &owning()).0, BTreeMap::new());
}

#[test]
fn a_file_gets_no_name_before_it_is_whole() {
    let site = Site::new();
    let mut landing = site.landing(owning());
    let entry = Entry { size: ByteCount(10), mode: 0o644, ..Entry::new(path("file"), Kind::File) };
    landing.examine(0, entry).expect("examined");
    landing.write(0, Offset(2), &[IoSlice::new(b"cdefg")]).expect("written");
    assert!(matches!(landing.finish(0), Err(TreeError::NotWhole { missing: ByteCount(5), .. })));
    assert!(matches!(landing.write(0, Offset(8), &[IoSlice::new(b"xyz")]), Err(TreeError::BeyondEnd { .. })));
    assert!(matches!(landing.write(0, Offset(u64::MAX), &[IoSlice::new(b"x")]), Err(TreeError::BeyondEnd { .. })));
    assert!(matches!(landing.write(1, Offset(0), &[IoSlice::new(b"x")]), Err(TreeError::UnknownFile(1))));
    assert!(!site.to().join("file").exists());
    landing.write(0, Offset(0), &[IoSlice::new(b"abc")]).expect("written");
    landing.write(0, Offset(7), &[IoSlice::new(b"h"), IoSlice::new(b"ij")]).expect("written");
    landing.finish(0).expect("whole");
    assert_eq!(fs::read(site.to().join("file")).expect("stands"), b"abcdefghij");
    assert!(matches!(landing.finish(0), Err(TreeError::UnknownFile(0))));
}

#[test]
fn nobody_is_made_to_run_as_somebody_whom_the_sender_did_not_tell() {
    let site = Site::new();
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let told = |uid, gid| Some(Owner { uid, gid, user: None, group: None });
    let check = |owner: Option<Owner>, options: LandingOptions, expected: u32| {
        let mut landing = site.landing(options);
        let entry = Entry { mode: 0o6755, owner, ..Entry::new(path("program"), Kind::File) };
        // Made, then found as it should be.
        for examined in [Examined::Made(Change::New), Examined::Same] {
            assert_eq!(landing.examine(0, entry.clone()).expect("examined"), examined);
            let found = fs::metadata(site.to().join("program")).expect("stands").mode();
            assert_eq!(found & 0o7777, expected, "{:?}", entry.owner);
        }
        fs::remove_file(site.to().join("program")).expect("removed");
    };
    let numbers = LandingOptions { owner: true, numeric_ids: true, ..LandingOptions::default() };
    check(None, numbers.clone(), 0o755);
    check(told(uid, gid), LandingOptions::default(), 0o755);
    check(told(uid, gid), numbers, 0o6755);
}

#[test]
fn small_files_that_are_flushed_get_their_names_together() {
    let most = crate::limits::COMMIT_BATCH_MAX as u16;
    for count in [3, most + 50] {
        let site = Site::new();
        let mut landing = site.landing(LandingOptions { fsync: true, ..owning() });
        for id in 0..count {
            let entry = Entry { size: ByteCount(1), mode: 0o600, ..Entry::new(path(&format!("f{id}")), Kind::File) };
            landing.examine(id, entry).expect("examined");
        }
        fs::create_dir_all(site.to().join("f1/in/the/way")).expect("made");
        for id in 0..count {
            landing.write(id, Offset(0), &[IoSlice::new(&[id as u8])]).expect("written");
            landing.finish(id).expect("whole");
        }
        let named = || (0..count).filter(|id| site.to().join(format!("f{id}")).is_file()).count();
        assert_eq!(named(), if count > most { usize::from(most) - 1 } else { 0 });
        let failed = landing.end_batch();
        assert!(matches!(failed[..], [(1, TreeError::InTheWay { .. })]), "{failed:?}");
        assert_eq!(named(), usize::from(count) - 1);
        assert_eq!(fs::read(site.to().join("f2")).expect("stands"), [2]);
        assert!(landing.end_batch().is_empty());
    }
}

#[test]
fn more_files_arrive_at_once_than_are_open() {
    let site = Site::new();
    let mut landing = site.landing(owning());
    let count = crate::limits::ARRIVING_OPEN_MAX as u16 + 40;
    for id in 0..count {
        let name = format!("f{id}");
        let entry = Entry { size: ByteCount(4), mode: 0o600, ..Entry::new(path(&name), Kind::File) };
        landing.examine(id, entry).expect("examined");
    }
    for part in 0..4 {
        for id in 0..count {
            landing.write(id, Offset(part), &[IoSlice::new(&[part as u8 + id as u8])]).expect("written");
        }
    }
    for id in 0..count {
        landing.finish(id).expect("whole");
        let expected: Vec<_> = (0..4).map(|part| part + id as u8).collect();
        assert_eq!(fs::read(site.to().join(format!("f{id}"))).expect("stands"), expected);
    }
}

#[test]
fn entries_land_below_their_base_and_missing_directories_are_made() {
    let site = Site::new();
    let tree = Tree::open(&site.to()).expect("opened");
    let mut landing = Landing::new(tree, path("a/b"), owning());
    let entry = Entry { mode: 0o600, ..Entry::new(path("c/d/file"), Kind::File) };
    assert_eq!(landing.examine(0, entry).expect("examined"), Examined::Made(Change::New));
    assert!(site.to().join("a/b/c/d/file").exists());
}

#[test]
fn a_dry_run_touches_nothing() {
    let site = rich();
    let look = LandingOptions { dry_run: true, delete: true, ..owning() };
    let mut landing = Landing::new(Tree::look(&site.to()).expect("opened"), TreePath::top(), look.clone());
    let dry = |landing: &mut Landing| {
        let mut changes = BTreeMap::new();
        for (id, found) in (0..).zip(all(&mut site.walk(&[], WalkOptions::default()), 1000)) {
            let change = match landing.examine(id, found.entry.clone()).expect("examined") {
                Examined::Same => continue,
                Examined::Made(change) | Examined::Wanted { change, .. } => change,
            };
            changes.insert(found.entry.path.to_string(), change);
        }
        assert!(landing.end_batch().is_empty());
        changes
    };
    let changes = dry(&mut landing);
    assert!(changes.len() > 20 && changes.values().all(|change| *change == Change::New), "{changes:?}");
    assert!(landing.end(true).failed.is_empty() && !site.to().exists());

    site.send(&[], &owning());
    site.write("empty", b"not any more");
    site.write("deep/big", &bytes(300_001, 9));
    fs::write(site.to().join("deep/extra"), "x").expect("written");
    set_mtime(&site.to().join("deep"), 5, 5);
    let before = picture(&site.to());
    let mut landing = Landing::new(Tree::open(&site.to()).expect("opened"), TreePath::top(), look);
    let changes = dry(&mut landing);
    assert_eq!(changes["empty"], Change::Content);
    for name in ["deep/big", "odd/big-too", "big-again"] {
        assert_eq!(changes[name], Change::Content, "all names of one file");
    }
    assert_eq!(changes["deep"], Change::Attributes);
    assert_eq!(landing.end(true).deleted, [path("deep/extra")]);
    drop(landing);
    assert_eq!(picture(&site.to()), before);
}

#[test]
fn owners_are_set_when_that_is_permitted() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root may give files away");
        return;
    }
    let site = Site::new();
    let file = site.write("file", b"x");
    let dir = site.from().join("dir");
    fs::create_dir(&dir).expect("made");
    symlink("x", site.from().join("link")).expect("linked");
    for (path, uid, gid) in
        [(&file, 65_001, 65_002), (&dir, 65_003, 65_004), (&site.from().join("link"), 65_005, 65_006)]
    {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("given away");
    }
    fs::set_permissions(&file, PermissionsExt::from_mode(0o6755)).expect("set");
    let (_, ended) = site.send(&[], &owning());
    assert!(ended.failed.is_empty(), "{ended:?}");
    assert_eq!(picture(&site.to()), picture(&site.from()));
    std::os::unix::fs::lchown(&file, Some(65_009), Some(65_010)).expect("given away");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o6755)).expect("set");
    let (changes, _) = site.send(&[], &owning());
    assert_eq!(changes["file"], Change::Attributes);
    assert_eq!(picture(&site.to()), picture(&site.from()));
}

#[test]
fn capabilities_are_there_when_the_owner_is_another() {
    let site = Site::new();
    let file = site.write("program", b"x");
    // CAP_NET_RAW, permitted and effective, as setcap(8) writes it: struct vfs_cap_data of revision 2.
    let value: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    let options = LandingOptions { xattrs: true, ..owning() };
    for uid in [65_001, 65_002] {
        let given = std::os::unix::fs::chown(&file, Some(uid), None).map_err(|error| error.to_string());
        let set =
            given.and_then(|()| xattr::set(&file, "security.capability", &value).map_err(|error| error.to_string()));
        if let Err(reason) = set {
            println!("skipped: needs root and a file system with capabilities: {reason}");
            return;
        }
        let (_, ended) = site.send(&[], &options);
        assert!(ended.failed.is_empty(), "{ended:?}");
        let landed = site.to().join("program");
        assert_eq!(xattr::get(&landed, "security.capability").expect("read"), Some(value.clone()), "{uid}");
        assert_eq!(fs::metadata(&landed).expect("stands").uid(), uid);
    }
}

#[test]
fn the_longest_paths_land() {
    let site = Site::new();
    let mut landing = site.landing(owning());
    let longest = [&b"d/".repeat(2000)[..], &[b'f'; 95]].concat();
    let entry = Entry {
        size: ByteCount(4),
        mode: 0o600,
        mtime: FileTime(5),
        ..Entry::new(TreePath::new(&longest).expect("valid"), Kind::File)
    };
    landing.examine(0, entry.clone()).expect("examined");
    landing.write(0, Offset(0), &[IoSlice::new(b"deep")]).expect("written");
    landing.finish(0).expect("whole");
    assert_eq!(landing.examine(0, entry).expect("examined"), Examined::Same);
}

#[test]
fn directories_are_remembered_only_for_what_is_done_with_them() {
    let site = Site::new();
    let options = |dry_run, delete, xattrs| LandingOptions { dry_run, delete, xattrs, ..LandingOptions::default() };
    let kept = |options: LandingOptions| {
        let tree = if options.dry_run { Tree::look(&site.to()) } else { Tree::open(&site.to()) };
        let mut landing = Landing::new(tree.expect("opened"), TreePath::top(), options);
        let xattrs = vec![(b"user.a"[..].into(), b"x".repeat(1000).into())];
        let entry = Entry { xattrs, ..Entry::new(path("d"), Kind::Directory) };
        landing.examine(0, entry).expect("examined");
        (landing.listed.len(), landing.listed.values().map(|entry| entry.xattrs.len()).sum::<usize>())
    };
    assert_eq!(kept(options(true, false, true)), (0, 0), "nothing is done in a dry run");
    assert_eq!(kept(options(true, true, true)), (1, 0), "but that it tells what would be deleted");
    assert_eq!(kept(options(false, false, false)), (1, 0), "attributes that are not set");
    assert_eq!(kept(options(false, false, true)), (1, 1));
}

#[test]
fn directories_that_take_too_much_memory_are_refused() {
    let site = Site::new();
    let mut landing = site.landing(owning());
    landing.listed_bytes = limits::LISTED_BYTES_MAX + 1;
    let error = landing.examine(0, Entry::new(path("d"), Kind::Directory)).expect_err("too many");
    assert!(matches!(error, TreeError::TooMany { max: limits::LISTED_BYTES_MAX, .. }), "{error}");
}

/// What one session remembered was bounded, and what all of them did was not.
#[test]
fn sessions_share_what_they_may_remember() {
    let site = Site::new();
    let tree = Tree::open(&site.to()).expect("opened");
    let memory = Arc::new(Memory::new(100_000));
    let landing = || {
        let mut landing = Landing::new(Arc::clone(&tree), TreePath::top(), owning());
        landing.share_memory(Arc::clone(&memory));
        landing
    };
    let (mut first, mut second) = (landing(), landing());
    let long = path(&"d".repeat(200));
    let file = |at: usize| Entry::new(long.join(at.to_string().as_bytes()).expect("valid"), Kind::File);
    first.examine(0, Entry::new(long.clone(), Kind::Directory)).expect("there is room for one");
    let examined = (1..).map(|at| first.examine(at as u16, file(at))).take_while(Result::is_ok).count();
    assert!((100..1_000).contains(&examined), "{examined}");
    let error = second.examine(0, file(5)).expect_err("the other one has all");
    assert!(matches!(error, TreeError::Crowded { .. }), "{error}");
    // Of a batch that is over only directories are remembered.
    assert!(first.end_batch().is_empty());
    let fits = |landing: &mut Landing| {
        let examined = (1..).map(|at| landing.examine(at as u16, file(at))).take_while(Result::is_ok).count();
        landing.end_batch();
        examined
    };
    let beside = fits(&mut second);
    assert!((examined..examined + 5).contains(&beside), "{beside} {examined}");
    drop(first);
    assert!(fits(&mut second) > beside, "it has given all back");
}

#[test]
fn who_waits_for_the_end_does_not_wait_for_a_file_that_is_hashed() {
    let site = Site::new();
    site.write("file", &bytes(100_000, 1));
    let stop = Arc::new(AtomicBool::new(false));
    let hashing = WalkOptions { hash: true, ..WalkOptions::default() };
    let entry = all(&mut site.walk(&[], hashing), 9).pop().expect("the file").entry;
    fs::create_dir(site.to()).expect("made");
    fs::copy(site.from().join("file"), site.to().join("file")).expect("copied");
    let mut landing = site.landing(LandingOptions { checksum: true, ..LandingOptions::default() });
    landing.stop_when(Arc::clone(&stop));
    let mut walk = site.walk(&[], hashing);
    walk.stop_when(Arc::clone(&stop));
    assert!(matches!(landing.examine(0, entry.clone()), Ok(Examined::Same | Examined::Made(Change::Attributes))));
    assert_eq!(walk.next_batch(1).expect("the top").len(), 1);
    stop.store(true, Ordering::Release);
    assert!(matches!(landing.examine(1, entry), Ok(Examined::Wanted { .. })), "it was not read");
    assert_eq!(walk.next_batch(9).expect("ended").len(), 0);
    let found = all(&mut site.walk(&[], WalkOptions::default()), 9).pop().expect("the file");
    assert_eq!(found.hash(&stop).expect("readable"), None);
}
