//! Sources: objects that change while they are being sent.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use super::super::*;
use super::{Site, name};
use crate::units::{ByteCount, Offset};

#[test]
fn a_source_reads_its_bytes_and_no_others() {
    let site = Site::new();
    site.write("a", b"0123456789");
    let source = site.root.open_source(&name("a")).expect("opened");
    assert_eq!((source.name(), source.size()), (&name("a"), ByteCount(10)));
    let mut bytes = [0; 4];
    source.read_exact_at(&mut bytes, Offset(3)).expect("within");
    assert_eq!(&bytes, b"3456");
    source.advise_sequential();
    let beyond = source.read_exact_at(&mut bytes, Offset(7));
    let Err(error @ SourceError::Shrunk { .. }) = beyond else { panic!("{beyond:?}") };
    // As where it was cut short and is as long again: it would be told with two lengths that are the same.
    assert_eq!(error.to_string(), "'a' was changed while it was being sent");
    assert!(source.read_exact_at(&mut bytes, Offset(u64::MAX)).is_err());
    source.verify_unchanged().expect("only read");
}

#[test]
fn a_source_that_is_cut_rewritten_or_grows_is_noticed() {
    let site = Site::new();
    let open = |text: &str| {
        site.write(text, &[7; 5000]);
        // An earlier time than any that a write below can leave, however coarse the clock.
        let file = File::options().write(true).open(site.path.join(text)).expect("opened");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
        let source = site.root.open_source(&name(text)).expect("opened");
        source.verify_unchanged().expect("untouched");
        source
    };
    let changed = |source: &Source| matches!(source.verify_unchanged(), Err(SourceError::Changed { .. }));

    let source = open("cut");
    OpenOptions::new().write(true).open(site.path.join("cut")).expect("opened").set_len(4096).expect("cut");
    let outcome = source.verify_unchanged();
    let Err(SourceError::Shrunk { expected, found, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((expected, found), (ByteCount(5000), ByteCount(4096)));
    let mut bytes = [0; 1000];
    let error = source.read_exact_at(&mut bytes, Offset(4000)).expect_err("its end is within");
    let told = "'cut' was cut short while it was being sent: 5000 bytes when opened, 4096 bytes now";
    assert_eq!(error.to_string(), told);

    let source = open("rewritten");
    let file = OpenOptions::new().write(true).open(site.path.join("rewritten")).expect("opened");
    file.write_all_at(b"x", 17).expect("written");
    assert!(changed(&source));

    let source = open("grown");
    OpenOptions::new().append(true).open(site.path.join("grown")).expect("opened").write_all(b"x").expect("written");
    assert!(changed(&source));

    // Rewritten, and then given its old time: the change time cannot be set back.
    let source = open("disguised");
    let file = OpenOptions::new().write(true).open(site.path.join("disguised")).expect("opened");
    let before = source.stamp();
    loop {
        file.write_all_at(b"x", 17).expect("written");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
        let now = site.root.open_source(&name("disguised")).expect("opened").stamp();
        assert_eq!(now.mtime, before.mtime);
        if now.ctime != before.ctime {
            break;
        }
    }
    assert!(changed(&source));
}

#[test]
fn a_source_that_is_removed_is_still_whole() {
    let site = Site::new();
    site.write("a", b"0123456789");
    let source = site.root.open_source(&name("a")).expect("opened");
    fs::remove_file(site.path.join("a")).expect("removed");
    source.verify_unchanged().expect("whole");
    let mut bytes = [0; 10];
    source.read_exact_at(&mut bytes, Offset(0)).expect("whole");
    assert_eq!(&bytes, b"0123456789");
}
