//! What an interrupted session leaves, and how the next one goes on with it.

use super::*;

fn resuming() -> LandingOptions {
    LandingOptions { resume: true, ..LandingOptions::default() }
}

fn big(site: &Site) -> Found {
    site.write(OsStr::from_bytes(b"sub/big\n\xff"), &bytes(100_000, 1));
    let found = all(&mut site.walk(&[], WalkOptions::default()), 100);
    found.into_iter().find(|found| found.entry.kind == Kind::File).expect("there is one")
}

fn put(landing: &mut Landing, found: &Found, from: u64, to: u64) {
    let mut bytes = vec![0; (to - from) as usize];
    found.open().expect("unchanged").read_exact_at(&mut bytes, Offset(from)).expect("read");
    landing.write(0, Offset(from), &[IoSlice::new(&bytes)]).expect("written");
}

#[test]
fn an_interrupted_file_goes_on_where_it_was() {
    let site = Site::new();
    let found = big(&site);
    let mut landing = site.landing(resuming());
    landing.examine(0, found.entry.clone()).expect("examined");
    put(&mut landing, &found, 50_000, 70_000);
    put(&mut landing, &found, 0, 10);
    drop(landing);
    assert!(site.to().join(".supersync").exists() && !site.to().join("sub").exists());

    let mut landing = site.landing(resuming());
    let Examined::Wanted { have, .. } = landing.examine(0, found.entry.clone()).expect("examined") else {
        panic!("it is not whole");
    };
    let expected = [(Offset(0), ByteCount(10)), (Offset(50_000), ByteCount(20_000))];
    assert_eq!(have.runs().collect::<Vec<_>>(), expected);
    bring(&mut landing, 0, &found, &have, 7_000);
    landing.finish(0).expect("whole");
    assert_eq!(
        fs::read(site.to().join("sub").join(OsStr::from_bytes(found.entry.path.name()))).expect("stands"),
        bytes(100_000, 1)
    );
    drop(landing);
    assert!(!site.to().join(".supersync").exists(), "nothing unfinished is left");
}

#[test]
fn another_version_is_not_gone_on_with() {
    let site = Site::new();
    let found = big(&site);
    let check = |change: fn(&mut Entry), options: LandingOptions, expected: u64| {
        let mut landing = site.landing(resuming());
        landing.examine(0, found.entry.clone()).expect("examined");
        put(&mut landing, &found, 0, 60_000);
        drop(landing);
        let mut landing = site.landing(options);
        let mut entry = found.entry.clone();
        change(&mut entry);
        let Examined::Wanted { have, .. } = landing.examine(0, entry).expect("examined") else {
            panic!("it is not whole");
        };
        assert_eq!(have.total(), ByteCount(expected));
    };
    check(|entry| entry.mtime.0 += 1, resuming(), 0);
    check(|entry| entry.size.0 += 1, resuming(), 0);
    check(|entry| entry.path = path("elsewhere"), resuming(), 0);
    check(|_| {}, resuming(), 60_000);
    check(|_| {}, LandingOptions { resume: false, ..resuming() }, 0);
}

#[test]
fn what_is_given_up_leaves_nothing() {
    let site = Site::new();
    let found = big(&site);
    let mut landing = site.landing(resuming());
    landing.examine(0, found.entry.clone()).expect("examined");
    put(&mut landing, &found, 0, 60_000);
    landing.give_up(0);
    assert!(matches!(landing.finish(0), Err(TreeError::UnknownFile(0))));
    drop(landing);
    assert_eq!(fs::read_dir(site.to()).expect("a directory").count(), 0);
}

#[test]
fn what_rotted_between_two_sessions_is_not_taken_for_what_was_sent() {
    let site = Site::new();
    let found = big(&site);
    let mut entry = found.entry.clone();
    entry.hash = Some(crate::units::Root256(*blake3::hash(&bytes(100_000, 1)).as_bytes()));
    for is_damaged in [true, false] {
        let mut landing = site.landing(resuming());
        landing.examine(0, entry.clone()).expect("examined");
        put(&mut landing, &found, 0, 60_000);
        drop(landing);
        if is_damaged {
            let parts: Vec<_> = fs::read_dir(site.to().join(".supersync/parts")).expect("stands").collect();
            let [Ok(part)] = &parts[..] else { panic!("{parts:?}") };
            std::os::unix::fs::FileExt::write_all_at(
                &File::options().write(true).open(part.path()).expect("there"),
                &[0; 512],
                5_000,
            )
            .expect("written");
        }
        let mut landing = site.landing(resuming());
        let Examined::Wanted { have, .. } = landing.examine(0, entry.clone()).expect("examined") else {
            panic!("it is not whole");
        };
        assert_eq!(have.total(), ByteCount(60_000), "it is gone on with");
        put(&mut landing, &found, 60_000, 100_000);
        let finished = landing.finish(0);
        assert_eq!(matches!(finished, Err(TreeError::Damaged { .. })), is_damaged, "{finished:?}");
        drop(landing);
        assert_eq!(site.to().join("sub").exists(), !is_damaged);
        assert!(!site.to().join(".supersync").exists(), "nothing is left");
    }
}

/// The disk did not take a file's pages, and said so to the first who flushed it. The kernel read them back as they
/// should have been, and the next session's flush came to nothing: it sent nothing, and gave the file its name.
#[test]
fn a_file_that_the_disk_did_not_take_is_not_gone_on_with() {
    let site = Site::new();
    let found = big(&site);
    let options = LandingOptions { fsync: true, ..resuming() };
    let mut landing = site.landing(options.clone());
    landing.examine(0, found.entry.clone()).expect("examined");
    put(&mut landing, &found, 0, 60_000);
    put(&mut landing, &found, 60_000, 100_000);
    let super::super::landing::State::Part { part: Some(part), .. } = &landing.wanted[&0].state else {
        panic!("it is open")
    };
    part.file().lose();
    let error = landing.finish(0).expect_err("not flushed");
    assert!(matches!(error, TreeError::Io { operation: "flush", .. }), "{error}");
    for is_new in [false, true] {
        if is_new {
            drop(landing);
            assert_eq!(fs::read_dir(site.to()).expect("a directory").count(), 0);
            landing = site.landing(options.clone());
        }
        let Examined::Wanted { have, .. } = landing.examine(0, found.entry.clone()).expect("examined") else {
            panic!("it is not whole");
        };
        assert!(have.is_empty(), "{have:?}");
    }
}

/// Of two that pushed the same new file at the same time one was told that it failed.
#[test]
fn two_sessions_that_bring_the_same_file_in_do_not_disturb_each_other() {
    let site = Site::new();
    let found = big(&site);
    let tree = Tree::open(&site.to()).expect("opened");
    let landing = || Landing::new(std::sync::Arc::clone(&tree), TreePath::top(), resuming());
    let (mut first, mut second, mut third) = (landing(), landing(), landing());
    first.examine(0, found.entry.clone()).expect("examined");
    second.examine(0, found.entry.clone()).expect("examined");
    put(&mut first, &found, 0, 60_000);
    put(&mut second, &found, 0, 50_000);
    // One that comes later does not have what is there brought again, if that is over soon.
    let error = third.examine(0, found.entry.clone()).expect_err("the first one has it");
    assert!(matches!(error, TreeError::Busy { .. }), "{error}");
    third.wait_no_more();
    third.examine(0, found.entry.clone()).expect("examined");
    put(&mut third, &found, 0, 10);
    for (landing, from) in [(&mut first, 60_000), (&mut second, 50_000)] {
        put(landing, &found, from, 100_000);
        landing.finish(0).expect("whole");
        let stands = site.to().join(OsStr::from_bytes(found.entry.path.as_bytes()));
        assert_eq!(fs::read(&stands).expect("there"), bytes(100_000, 1));
        fs::remove_file(stands).expect("removed");
    }
    third.give_up(0);
    drop((first, second, third, tree));
    assert!(!site.to().join(".supersync").exists(), "nothing is left of any");
}

#[test]
fn a_tree_has_one_process_and_leaves_its_time_alone() {
    let site = Site::new();
    fs::create_dir(site.to()).expect("made");
    set_mtime(&site.to(), 1_234, 5_678);
    let tree = Tree::open(&site.to()).expect("opened");
    let error = Tree::open(&site.to()).expect_err("it is open already");
    assert!(matches!(error, TreeError::Store(crate::store::StoreError::Locked { .. })), "{error}");
    drop(tree);
    drop(Tree::open(&site.to()).expect("opened"));
    let metadata = fs::metadata(site.to()).expect("stands");
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_234, 5_678));
    assert_eq!(fs::read_dir(site.to()).expect("a directory").count(), 0);
}

#[test]
fn what_a_node_keeps_beside_its_parts_stays() {
    let site = Site::new();
    fs::create_dir_all(site.to().join(".supersync")).expect("made");
    fs::write(site.to().join(".supersync/hashes"), "a node's").expect("written");
    drop(Tree::open(&site.to()).expect("opened"));
    assert!(site.to().join(".supersync/hashes").exists() && site.to().join(".supersync/lock").exists());
}
