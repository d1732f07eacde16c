//! Objects that are taken away, and roots that are held against their markers.

use std::num::NonZeroUsize;
use std::sync::Mutex;

use super::*;

#[test]
fn a_batch_goes_with_its_markers_and_the_directories_it_leaves_empty() {
    let site = Site::new();
    for object in ["a", "d/e/b", "d/c", "f/g/h"] {
        site.commit(object, b"bytes").expect("committed");
    }
    let gone = ["a", "d/e/b", "f/g/h", "never", "never/there"].map(name).to_vec();
    let outcomes = site.root.remove_batch(gone);
    assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()), "{outcomes:?}");
    let mut left: Vec<_> =
        fs::read_dir(&site.path).expect("stands").map(|e| e.expect("an entry").file_name()).collect();
    left.sort();
    assert_eq!(left, [".supersync", "d"]);
    assert!(!site.path.join("d/e").exists());
    assert_eq!(site.root.is_done(&name("d/c")).expect("readable"), Done::Yes(ByteCount(5)));
    // The directories can be made again.
    site.commit("f/g/h", b"again").expect("committed");
    assert_eq!(site.read("f/g/h").as_deref(), Some(&b"again"[..]));
}

#[test]
fn nothing_is_removed_of_a_root_that_is_only_read_or_through_a_link_out_of_it() {
    let site = Site::new();
    site.commit("a", b"bytes").expect("committed");
    let reading = Root::open(&site.path).expect("opened");
    assert!(matches!(reading.remove_batch(vec![name("a")])[0].1, Err(StoreError::ReadOnly { .. })));
    std::os::unix::fs::symlink(site.outside.path(), site.path.join("out")).expect("linked");
    let outcomes = site.root.remove_batch(vec![name("out/secret"), name("a")]);
    assert!(matches!(outcomes[0].1, Err(StoreError::Outside { .. })), "{outcomes:?}");
    assert!(outcomes[1].1.is_ok() && site.outside.path().join("secret").exists());
}

#[test]
fn a_whole_root_is_held_against_its_markers() {
    let site = Site::new();
    for object in ["a", "d/damaged", "d/cut", "gone", "e/unmarked"] {
        let part = site.root.open_part(&name(object), ByteCount(5), root_of_bytes(b"bytes")).expect("room");
        part.write_vectored_at(&[IoSlice::new(b"bytes")], Offset(0)).expect("written");
        let outcome = Committer::commit_batch(&site.root, vec![((), Arc::new(part))]);
        assert!(outcome[0].1.is_ok(), "{outcome:?}");
    }
    site.write("d/damaged", b"bytEs");
    site.write("d/cut", b"byt");
    fs::remove_file(site.path.join("gone")).expect("removed");
    fs::remove_file(site.path.join("e/unmarked.success")).expect("removed");
    let found = Mutex::new(Vec::new());
    let reading = Root::open(&site.path).expect("opened");
    reading.verify_all(NonZeroUsize::new(3).expect("not 0"), |name, verified| {
        found.lock().expect("no panic").push((name.to_string(), verified.expect("readable")));
    });
    let mut found = found.into_inner().expect("no panic");
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "d/cut", "d/damaged", "e/unmarked", "gone"]);
    let marked = root_of_bytes(b"bytes");
    let differs = Verified::Differs;
    assert_eq!(found[0].1, Verified::Ok { size: ByteCount(5), root: marked });
    assert_eq!(found[1].1, differs(Difference::Size { marked: ByteCount(5), found: ByteCount(3) }));
    assert_eq!(found[2].1, differs(Difference::Content { marked, found: root_of_bytes(b"bytEs") }));
    assert_eq!(found[3].1, Verified::Unmarked);
    assert_eq!(found[4].1, differs(Difference::Missing));
    assert!(reading.unmark(&name("d/cut")).expect("removed") && !reading.unmark(&name("d/cut")).expect("none"));
    assert_eq!(reading.is_done(&name("d/cut")).expect("readable"), Done::MarkerMissing);
}

/// As far as lengths tell.
#[test]
fn a_glance_sees_what_is_missing_cut_or_strange() {
    let site = Site::new();
    let names = ["whole", "d/whole", "d/cut", "d/gone", "e/unmarked", "e/emptied", "e/link", "e/other"];
    for text in names {
        site.commit(text, b"bytes").expect("room");
    }
    site.write("d/cut", b"byt");
    fs::remove_file(site.path.join("d/gone")).expect("removed");
    fs::remove_file(site.path.join("e/unmarked.success")).expect("removed");
    site.write("e/emptied.success", b"");
    fs::remove_file(site.path.join("e/link")).expect("removed");
    std::os::unix::fs::symlink("other", site.path.join("e/link")).expect("made");
    let mut glance = site.root.glance();
    let standing: Vec<_> = names.into_iter().filter(|text| glance.stands(&name(text), ByteCount(5))).collect();
    assert_eq!(standing, ["whole", "d/whole", "e/other"]);
    fs::rename(site.path.join("e"), site.path.join("f")).expect("renamed");
    assert!(!site.root.glance().stands(&name("e/other"), ByteCount(5)));
}

fn root_of_bytes(bytes: &[u8]) -> crate::units::Root256 {
    crate::units::Root256(*blake3::hash(bytes).as_bytes())
}
