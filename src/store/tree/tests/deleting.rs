//! What goes when the sender does not have it, and what stays all the same.

use super::*;

fn deleting() -> LandingOptions {
    LandingOptions { delete: true, ..LandingOptions::default() }
}

/// A tree that was sent, and files at the receiver that the sender does not have.
fn sent() -> Site {
    let site = Site::new();
    site.write("kept/file", b"x");
    site.write("kept-too/file", b"x");
    site.write("kept/sub/.supersyncignore", b"*.local\n");
    site.write("gone/deep/er", b"x");
    site.write("gone.txt", b"x");
    site.send(&[], &deleting());
    let extra = |name: &str| {
        let path = site.to().join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(path, "extra").expect("written");
    };
    extra("kept/extra");
    extra("kept/sub/a.local");
    extra("kept/sub/b.other");
    extra("kept/cache/x.o");
    extra("extra-dir/x.o");
    extra("extra-dir/y");
    extra("kept/.supersync/private");
    symlink("/", site.to().join("kept/link")).expect("linked");
    fs::remove_dir_all(site.from().join("gone")).expect("removed");
    fs::remove_file(site.from().join("gone.txt")).expect("removed");
    site
}

fn texts(paths: &[TreePath]) -> Vec<String> {
    let mut texts: Vec<_> = paths.iter().map(TreePath::to_string).collect();
    texts.sort();
    texts
}

/// Where `IMG.JPG` stood and `img.jpg` was sent, the only file there was of both was found to be as it should be, and
/// then deleted, since the directory lists it by its old name.
#[test]
fn names_that_a_file_system_takes_for_one_are_not_deleted_for_another() {
    let site = Site::new();
    site.write("img.jpg", b"x");
    site.write("photos/a", b"x");
    site.send(&[], &deleting());
    for extra in ["IMG.JPG", "Photos", "img.bak"] {
        fs::write(site.to().join(extra), "extra").expect("written");
    }
    let mut landing = site.landing(deleting());
    assert!(!landing.folds, "the file systems of tests tell them apart");
    landing.folds = true;
    for (id, found) in (0..).zip(all(&mut site.walk(&[], WalkOptions::default()), 100)) {
        landing.examine(id, found.entry).expect("examined");
    }
    assert_eq!(texts(&landing.end(true).deleted), ["img.bak"]);
}

#[test]
fn what_was_not_sent_goes_but_what_the_rules_leave_out() {
    let site = sent();
    let rules = Rules::new(["*.o"]).expect("patterns");
    let options = LandingOptions { rules, ..deleting() };
    let dry = LandingOptions { dry_run: true, ..options.clone() };
    let expected =
        ["extra-dir/y", "gone", "gone.txt", "gone/deep", "gone/deep/er", "kept/extra", "kept/link", "kept/sub/b.other"];
    let mut landing = site.landing(dry);
    for (id, found) in (0..).zip(all(&mut site.walk(&["*.o"], WalkOptions::default()), 100)) {
        landing.examine(id, found.entry).expect("examined");
    }
    assert_eq!(texts(&landing.end(true).deleted), expected);
    drop(landing);
    let (_, ended) = site.send(&["*.o"], &options);
    assert!(ended.failed.is_empty(), "{ended:?}");
    assert_eq!(texts(&ended.deleted), expected);
    let at = |name| ended.deleted.iter().position(|path| path.to_string() == name);
    assert!(at("gone/deep/er") < at("gone/deep") && at("gone/deep") < at("gone"));
    let left: Vec<_> = picture(&site.to()).into_keys().map(|path| path.display().to_string()).collect();
    assert_eq!(
        left,
        [
            "extra-dir",
            "extra-dir/x.o",
            "kept",
            "kept/.supersync",
            "kept/.supersync/private",
            "kept/cache",
            "kept/cache/x.o",
            "kept/file",
            "kept/sub",
            "kept/sub/.supersyncignore",
            "kept/sub/a.local",
            "kept-too",
            "kept-too/file",
        ]
    );
}

#[test]
fn nothing_goes_when_the_sender_could_not_tell_all() {
    let site = sent();
    let before = picture(&site.to()).into_keys().collect::<Vec<_>>();
    let mut landing = site.landing(deleting());
    land(&mut site.walk(&[], WalkOptions::default()), &mut landing, 100);
    assert!(landing.end(false).deleted.is_empty());
    drop(landing);
    assert_eq!(picture(&site.to()).into_keys().collect::<Vec<_>>(), before);
}

#[test]
fn only_directories_that_were_sent_are_looked_into() {
    let site = sent();
    let source = WalkSource { root: site.from(), start: path("kept-too"), lands: path("kept-too") };
    let mut walk = Walk::new(vec![source], Rules::none(), WalkOptions::default()).expect("a directory");
    let mut landing = site.landing(deleting());
    fs::write(site.to().join("kept-too/extra"), "x").expect("written");
    land(&mut walk, &mut landing, 100);
    assert_eq!(landing.end(true).deleted, [path("kept-too/extra")]);
}

#[test]
fn directories_that_let_nobody_in_are_no_hindrance() {
    let site = Site::new();
    let file = site.write("sealed/inner/file", b"one");
    let modes = |mode: u32| {
        for directory in ["sealed/inner", "sealed"] {
            fs::set_permissions(site.from().join(directory), PermissionsExt::from_mode(mode)).expect("set");
        }
    };
    modes(0o500);
    site.send(&[], &deleting());
    assert_eq!(picture(&site.to()), picture(&site.from()));
    modes(0o700);
    fs::write(&file, "another").expect("written");
    modes(0o500);
    let locked = site.to().join("sealed/inner");
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o700)).expect("set");
    fs::write(locked.join("extra"), "x").expect("written");
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o000)).expect("set");
    let (_, ended) = site.send(&[], &deleting());
    assert!(ended.failed.is_empty(), "{ended:?}");
    assert_eq!(ended.deleted, [path("sealed/inner/extra")]);
    assert_eq!(picture(&site.to()), picture(&site.from()));
    // So that the directory of the test can be removed.
    modes(0o700);
    for directory in ["sealed", "sealed/inner"] {
        fs::set_permissions(site.to().join(directory), PermissionsExt::from_mode(0o700)).expect("set");
    }
}

#[test]
fn a_directory_that_is_to_let_its_owner_in_still_does_at_the_end() {
    // It was opened up to the very mode that it was to get, and closed again: with each run, and told as done.
    let site = Site::new();
    let file = site.write("sealed/file", b"one");
    site.send(&[], &deleting());
    fs::write(&file, "another").expect("written");
    let locked = site.to().join("sealed");
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o555)).expect("set");
    fs::set_permissions(site.from().join("sealed"), PermissionsExt::from_mode(0o755)).expect("set");
    let mut landing = site.landing(deleting());
    // As a write is that is not permitted, which every one is to root.
    assert!(landing.directories.loosen(b"sealed"));
    let changes = land(&mut site.walk(&[], WalkOptions::default()), &mut landing, 100);
    assert_eq!(changes["sealed/file"], Change::Content);
    assert!(landing.end(true).failed.is_empty());
    drop(landing);
    assert_eq!(picture(&site.to()), picture(&site.from()));
}

#[test]
fn a_dry_run_does_not_guess_what_rules_that_have_not_come_would_keep() {
    let site = Site::new();
    site.write("same/.supersyncignore", b"*.o\n");
    site.write("other/.supersyncignore", b"*.o\n");
    site.write("fresh/.supersyncignore", b"*.o\n");
    site.send(&[], &deleting());
    site.write("other/.supersyncignore", b"*.log\n");
    fs::remove_file(site.to().join("fresh/.supersyncignore")).expect("there");
    site.write("missing/.supersyncignore", b"*.o\n");
    site.write("other/sub/kept", b"x");
    for name in ["same/a.o", "same/b.log", "other/a.o", "other/b.log", "other/sub/c.o", "fresh/a.o", "extra"] {
        let path = site.to().join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(path, "extra").expect("written");
    }
    let mut landing = site.landing(LandingOptions { dry_run: true, ..deleting() });
    for (id, found) in (0..).zip(all(&mut site.walk(&[], WalkOptions::default()), 100)) {
        landing.examine(id, found.entry).expect("examined");
    }
    let ended = landing.end(true);
    assert_eq!(texts(&ended.deleted), ["extra", "same/b.log"]);
    let unruled = ended.failed.iter().map(|failed| match failed {
        (of, TreeError::Unruled { path, .. }) if of == path => path.clone(),
        (_, other) => panic!("{other}"),
    });
    assert_eq!(texts(&unruled.collect::<Vec<_>>()), ["fresh", "other"]);
    drop(landing);
    let (_, ended) = site.send(&[], &deleting());
    let really = ["extra", "other/a.o", "other/sub/c.o", "same/b.log"];
    assert_eq!(texts(&ended.deleted), really, "{:?}", ended.failed);
}
