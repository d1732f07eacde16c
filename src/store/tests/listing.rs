//! Scans and watches: what is in a root, and when to look again.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::*;
use super::{Site, name};
use crate::limits;

#[test]
fn a_scan_lists_data_and_nothing_else() {
    let site = Site::new();
    for text in ["b", "a/z", "a/y/x", "a-b", "stock1_1", ".hidden", "a/.supersync/data"] {
        site.write(text, text.as_bytes());
    }
    site.write("b.success", b"");
    site.write("a/z.success", b"");
    site.write("a/alone.success", b"data, by its name a marker");
    site.write(".supersync/parts/12", b"half");
    fs::create_dir(site.path.join("empty")).expect("made");
    symlink("b", site.path.join("link")).expect("made");
    symlink("..", site.path.join("a/loop")).expect("made");
    nix::unistd::mkfifo(&site.path.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let long = "n".repeat(limits::NAME_COMPONENT_BYTES_MAX + 1);
    site.write(&long, b"refused");
    site.write("marked.success/below", b"refused");

    let report = scan(&site.root).expect("readable");
    let names: Vec<_> = report.objects.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, [".hidden", "a-b", "a/.supersync/data", "a/y/x", "a/z", "b", "stock1_1"]);
    for (name, stamp) in &report.objects {
        assert_eq!(stamp.size.0, name.as_bytes().len() as u64, "{name}");
        assert_eq!(*stamp, site.root.open_source(name).expect("opened").stamp(), "{name}");
    }
    assert_eq!(report.bytes.0, names.iter().map(|name| name.len() as u64).sum::<u64>());
    let mut skipped: Vec<_> =
        report.skipped.first.iter().map(|entry| (entry.path.to_str().expect("text"), entry.kind)).collect();
    skipped.sort_by_key(|entry| entry.0);
    assert_eq!(
        skipped,
        [
            ("a/alone.success", SkippedKind::Marker),
            ("a/loop", SkippedKind::Symlink),
            ("link", SkippedKind::Symlink),
            ("pipe", SkippedKind::Special)
        ]
    );
    let mut refused: Vec<_> =
        report.refused.first.iter().map(|entry| (entry.path.clone(), entry.reason.clone())).collect();
    refused.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        refused,
        [
            (PathBuf::from("marked.success"), Refusal::Reserved),
            (PathBuf::from(&long), Refusal::ComponentTooLong(long.len()))
        ]
    );
}

#[test]
fn an_object_is_looked_up_as_a_scan_would_find_it() {
    let site = Site::new();
    site.write("a/file", b"four");
    symlink("a/file", site.path.join("link")).expect("made");
    symlink("a", site.path.join("way")).expect("made");
    for text in ["a/file", "a/gone", "gone/file", "a/file/below", "a", "link", "way/file"] {
        let listed = scan(&site.root).expect("readable").objects.into_iter().find(|(found, _)| *found == name(text));
        assert_eq!(look_up(&site.root, &name(text)).expect("known"), listed.map(|(_, stamp)| stamp), "{text}");
    }
    assert!(look_up(&site.root, &name("a/file")).expect("known").is_some());
}

#[test]
fn a_scans_lists_are_bounded_and_its_counts_are_not() {
    let site = Site::new();
    let count = limits::SCAN_LIST_MAX + 5;
    for i in 0..count {
        symlink("nowhere", site.path.join(format!("link{i}"))).expect("made");
    }
    let report = scan(&site.root).expect("readable");
    assert_eq!((report.skipped.first.len(), report.skipped.count), (limits::SCAN_LIST_MAX, count as u64));
}

#[test]
fn a_scan_goes_as_deep_as_names_may_and_says_where_it_stopped() {
    let site = Site::new();
    let deepest = vec!["d"; limits::NAME_DEPTH_MAX].join("/");
    site.write(&format!("{}/file", &deepest[..deepest.len() - 2]), b"taken");
    fs::create_dir_all(site.path.join(&deepest).join("further")).expect("made");
    let report = scan(&site.root).expect("readable");
    assert_eq!(report.objects.len(), 1);
    assert_eq!(report.refused.first.len(), 1);
    assert_eq!(report.refused.first[0].reason, Refusal::TooDeep(limits::NAME_DEPTH_MAX + 1));
}

#[test]
fn a_root_is_the_directory_that_was_opened_wherever_it_is_moved() {
    let site = Site::new();
    site.write("a", b"x");
    fs::rename(&site.path, site.outside.path().join("moved")).expect("renamed");
    fs::create_dir(&site.path).expect("made");
    assert_eq!(scan(&site.root).expect("readable").objects.len(), 1);
    site.commit("b", b"y").expect("committed");
    assert_eq!(fs::read(site.outside.path().join("moved/b")).expect("stands"), b"y");
}

/// Everything that has happened so far; an event is queued before the call that causes it returns.
fn drain(watch: &mut Watch) -> Changed {
    let mut all = Changed::default();
    loop {
        let changed = watch.drain().expect("watched");
        all.objects |= changed.objects;
        all.overflow |= changed.overflow;
        if !changed.more {
            return all;
        }
    }
}

#[test]
fn a_watch_tells_of_objects_and_of_nothing_else() {
    let site = Site::new();
    fs::create_dir_all(site.path.join("a/b")).expect("made");
    let mut watch = Watch::new(&site.root).expect("watched");
    assert_eq!(watch.directories(), 3);
    let mut check = |what: &str, expected: bool, act: &dyn Fn(&Path)| {
        act(&site.path);
        let changed = drain(&mut watch);
        assert_eq!((changed.objects, changed.overflow), (expected, false), "{what}");
        assert!(!drain(&mut watch).objects, "{what}: told twice");
    };
    check("nothing", false, &|_| {});
    check("a file", true, &|root| fs::write(root.join("one"), "x").expect("written"));
    check("a file below", true, &|root| fs::write(root.join("a/b/two"), "x").expect("written"));
    check("a new name", true, &|root| fs::rename(root.join("one"), root.join("three")).expect("renamed"));
    check("a link", true, &|root| fs::hard_link(root.join("three"), root.join("a/four")).expect("linked"));
    check("a removal", true, &|root| fs::remove_file(root.join("three")).expect("removed"));
    check("only read", false, &|root| drop(fs::read(root.join("a/four")).expect("read")));
    check("a marker", false, &|root| fs::write(root.join("a/four.success"), "").expect("written"));
    check("a part", false, &|_| drop(site.part("x", b"x")));
    check("objects that came whole", true, &|_| {
        let part = |at| Arc::new(site.root.write_part(&name(&format!("a/whole{at}")), b"x").expect("room"));
        let parts = (0..=limits::COMMIT_SYNC_EACH_MAX).map(|at| (at, part(at)));
        let outcomes = Committer::commit_batch(&site.root, parts.collect());
        assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()), "{outcomes:?}");
    });
    check("a new directory", true, &|root| fs::create_dir_all(root.join("n/m")).expect("made"));
    check("a file in it", true, &|root| fs::write(root.join("n/m/five"), "x").expect("written"));
    check("a directory moves", true, &|root| fs::rename(root.join("n"), root.join("a/n")).expect("renamed"));
    check("a file where it is now", true, &|root| fs::write(root.join("a/n/m/six"), "x").expect("written"));
    check("it moves out", true, &|root| fs::rename(root.join("a/n"), root.join("../n")).expect("renamed"));
    check("a file out there", false, &|root| fs::write(root.join("../n/m/seven"), "x").expect("written"));
    check("a file that is still written", false, &|root| {
        std::mem::forget(File::create(root.join("open")).expect("made"))
    });
}

/// What had been moved out meanwhile was watched on under the name that it had had, and what happened out there was
/// taken for a change here; and each directory counted twice of those that a node watches at most.
#[test]
fn a_watch_that_lost_events_says_so_and_watches_what_it_missed() {
    let site = Site::new();
    let (inside, outside) = (site.path.join("moves"), site.outside.path().join("moved"));
    fs::create_dir(&inside).expect("made");
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("readable");
    let limit: usize = limit.trim().parse().expect("a number");
    if limit > 1 << 17 {
        // Filling the queue would take minutes on a host that was tuned so far.
        return;
    }
    let mut watch = Watch::new(&site.root).expect("watched");
    let (one, two) = (site.path.join("one"), site.path.join("two"));
    fs::write(&one, "x").expect("written");
    for _ in 0..limit / 4 + 1 {
        fs::rename(&one, &two).expect("renamed");
        fs::rename(&two, &one).expect("renamed");
    }
    fs::create_dir(site.path.join("late")).expect("made");
    fs::rename(&inside, &outside).expect("moved out");
    let changed = drain(&mut watch);
    assert!(changed.objects && changed.overflow, "{changed:?}");
    assert_eq!(watch.directories(), 2);
    fs::write(site.path.join("late/file"), "x").expect("written");
    assert!(drain(&mut watch).objects);
    fs::write(outside.join("file"), "x").expect("written");
    assert!(!drain(&mut watch).objects);
}
