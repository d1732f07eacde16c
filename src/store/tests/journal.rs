//! The journal: what a restart believes after a clean end, a kill, a power loss and a damaged disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::*;
use super::{name, take_away};
use crate::limits;
use crate::units::{ByteCount, ObjectName, Offset, RangeSet, Root256};

/// Ranges of the tests are multiples of this, for short; the journal takes any.
const GRANULE: u64 = 32 << 10;
/// Four granules and a short one.
const SIZE: ByteCount = ByteCount(4 * GRANULE + 100);

/// A root with a journal, in a directory that outlives it.
struct Site {
    dir: TempDir,
    boot: BootId,
    unmarked: Unmarked,
    open: Option<(Root, Journal)>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut site = Self { dir, boot: BootId::new("monday"), unmarked: Unmarked::TakeBack, open: None };
        assert_eq!(site.restart(), []);
        site
    }

    /// Ends the process, as far as the disk can tell, and begins another.
    fn restart(&mut self) -> Vec<Resumed> {
        self.open = None;
        let root = Root::create(&self.dir.path().join("root")).expect("free");
        let (journal, resumed) = Journal::open_in_boot(&root, self.unmarked, &self.boot).expect("opened");
        self.open = Some((root, journal));
        resumed
    }

    fn reboot(&mut self) -> Vec<Resumed> {
        self.boot = BootId::new(&format!("{}+", self.boot.as_str()));
        self.restart()
    }

    fn journal(&mut self) -> &mut Journal {
        &mut self.open.as_mut().expect("open").1
    }

    fn root(&self) -> &Root {
        &self.open.as_ref().expect("open").0
    }

    fn part(&self, text: &str, version: u8) -> Arc<Part> {
        Arc::new(self.root().open_part(&name(text), SIZE, root(version)).expect("room"))
    }

    /// Writes granules `first..end` of a part and records them.
    fn write(&mut self, part: &Part, first: u64, end: u64) {
        let (offset, length) = granules(first, end);
        part.write_vectored_at(&[IoSlice::new(&vec![b'x'; length.0 as usize])], offset).expect("written");
        self.journal().record(part, offset, length);
    }

    /// Makes what was recorded of `parts` so far durable.
    fn make_durable(&mut self, parts: &[Arc<Part>]) {
        let mut pending = self.journal().pending(parts);
        pending.sync().expect("flushed");
        let confirmed = self.journal().confirm(pending).expect("written");
        self.journal().settle(confirmed.sync()).expect("durable");
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("root/.supersync/journal")
    }

    fn parts(&self) -> Vec<PathBuf> {
        let listing = fs::read_dir(self.dir.path().join("root/.supersync/parts")).expect("stands");
        listing.map(|entry| entry.expect("readable").path()).collect()
    }
}

fn root(version: u8) -> Root256 {
    Root256([version; 32])
}

/// Granules `first..end` of an object of `SIZE`.
fn granules(first: u64, end: u64) -> (Offset, ByteCount) {
    let end = (end * GRANULE).min(SIZE.0);
    (Offset(first * GRANULE), ByteCount(end - first * GRANULE))
}

fn set(runs: &[(u64, u64)]) -> RangeSet {
    runs.iter().map(|run| granules(run.0, run.1)).collect()
}

/// What was found, by name.
fn by_name(resumed: Vec<Resumed>) -> Believed {
    resumed.into_iter().map(|resumed| (resumed.name, resumed.ranges)).collect()
}

#[test]
fn a_restart_finds_the_bytes_that_were_recorded() {
    let mut site = Site::new();
    let part = site.part("a/b", 1);
    part.write_vectored_at(&[IoSlice::new(&[b'x'; GRANULE as usize])], Offset(GRANULE)).expect("written");
    site.journal().record(&part, Offset(GRANULE), ByteCount(GRANULE));
    site.journal().write().expect("written");
    drop(part);
    let resumed = site.restart();
    assert_eq!(resumed, [Resumed { name: name("a/b"), size: SIZE, root: root(1), ranges: set(&[(1, 2)]) }]);
    let part = site.part("a/b", 1);
    assert_eq!(site.journal().ranges(&part), set(&[(1, 2)]));
    let mut bytes = [0; GRANULE as usize];
    part.source().expect("served").read_exact_at(&mut bytes, Offset(GRANULE)).expect("there");
    assert_eq!(bytes, [b'x'; GRANULE as usize]);
    let other = site.part("a/b", 2);
    assert_eq!(site.journal().ranges(&other), RangeSet::new());
    assert_eq!(site.parts().len(), 2, "each version has a file of its own");
}

#[test]
fn what_was_not_written_to_the_journal_is_not_believed() {
    let mut site = Site::new();
    let part = site.part("a", 1);
    site.write(&part, 0, 1);
    site.journal().write().expect("written");
    site.write(&part, 1, 2);
    let other = site.part("b", 1);
    site.write(&other, 0, 5);
    drop((part, other));
    assert_eq!(by_name(site.restart()), [(name("a"), set(&[(0, 1)]))].into());
    assert_eq!(site.parts().len(), 1, "a part that nothing is known of is removed");
}

#[test]
fn another_boot_believes_only_what_was_made_durable() {
    let mut site = Site::new();
    let (a, b) = (site.part("a", 1), site.part("b", 1));
    site.write(&a, 0, 2);
    site.write(&b, 0, 5);
    site.make_durable(&[Arc::clone(&a)]);
    site.write(&a, 3, 5);
    site.journal().write().expect("written");
    drop((a, b));
    assert_eq!(by_name(site.restart()), [(name("a"), set(&[(0, 2), (3, 5)])), (name("b"), set(&[(0, 5)]))].into());
    assert_eq!(by_name(site.reboot()), [(name("a"), set(&[(0, 2)]))].into());
    // What an earlier boot left is not believed again because this one restarts.
    let a = site.part("a", 1);
    site.write(&a, 2, 3);
    site.journal().write().expect("written");
    drop(a);
    assert_eq!(by_name(site.restart()), [(name("a"), set(&[(0, 3)]))].into());
    assert_eq!(by_name(site.reboot()), [(name("a"), set(&[(0, 2)]))].into());
}

#[test]
fn what_is_recorded_while_the_disk_works_is_not_taken_for_durable() {
    let mut site = Site::new();
    let a = site.part("a", 1);
    site.write(&a, 0, 1);
    let mut pending = site.journal().pending(&[Arc::clone(&a)]);
    site.write(&a, 1, 2);
    pending.sync().expect("flushed");
    site.write(&a, 2, 3);
    site.journal().confirm(pending).expect("confirmed").sync().expect("flushed");
    let unflushed = site.journal().pending(&[Arc::clone(&a)]);
    site.journal().confirm(unflushed).expect("nothing to confirm").sync().expect("flushed");
    drop(a);
    assert_eq!(by_name(site.reboot()), [(name("a"), set(&[(0, 1)]))].into());
}

#[test]
fn ranges_of_any_length_are_recorded() {
    let mut site = Site::new();
    let part = site.part("a", 1);
    let mut expected = RangeSet::new();
    for (offset, end) in [(0, 0), (1, 2), (GRANULE - 7, GRANULE + 9), (SIZE.0 - 1, SIZE.0), (2, GRANULE - 7)] {
        site.journal().record(&part, Offset(offset), ByteCount(end - offset));
        expected.insert(Offset(offset), ByteCount(end - offset));
    }
    site.journal().write().expect("written");
    drop(part);
    assert_eq!(by_name(site.restart()), [(name("a"), expected)].into());
    let short = Arc::new(site.root().open_part(&name("short"), ByteCount(3), root(1)).expect("room"));
    short.write_vectored_at(&[IoSlice::new(b"abc")], Offset(0)).expect("written");
    site.journal().record(&short, Offset(0), ByteCount(3));
    assert!(site.journal().is_whole(&short));
}

#[test]
fn what_was_retracted_is_believed_in_no_boot() {
    let mut site = Site::new();
    let part = site.part("a", 1);
    site.write(&part, 0, 5);
    site.make_durable(&[Arc::clone(&part)]);
    let (offset, length) = granules(1, 3);
    site.journal().retract(&part, offset, length);
    assert_eq!(site.journal().ranges(&part), set(&[(0, 1), (3, 5)]));
    site.write(&part, 2, 3);
    site.journal().write().expect("written");
    drop(part);
    assert_eq!(by_name(site.restart()), [(name("a"), set(&[(0, 1), (2, 5)]))].into());
    assert_eq!(by_name(site.reboot()), [(name("a"), set(&[(0, 1), (3, 5)]))].into());
}

/// A wrong block was flushed, retracted, fetched again and written in the time between flushing and the journal's
/// saying so: what stands in the file now is not what was flushed.
#[test]
fn what_was_retracted_while_the_disk_worked_is_not_taken_for_durable() {
    let mut site = Site::new();
    let part = site.part("a", 1);
    site.write(&part, 0, 2);
    let mut pending = site.journal().pending(&[Arc::clone(&part)]);
    pending.sync().expect("flushed");
    let (offset, length) = granules(0, 1);
    site.journal().retract(&part, offset, length);
    site.write(&part, 0, 1);
    let confirmed = site.journal().confirm(pending).expect("confirmed");
    confirmed.sync().expect("flushed");
    drop(part);
    assert_eq!(by_name(site.reboot()), Believed::new());
}

#[test]
fn what_is_left_of_blocks_that_are_not_whole_is_told_with_its_checksums() {
    const BLOCK: u64 = limits::BLOCK_BYTES;
    let mut site = Site::new();
    let size = ByteCount(2 * BLOCK + 1000);
    let bytes: Vec<u8> = (0..size.0).map(|at| ((at * 31) >> 7) as u8).collect();
    let open = |site: &Site| site.root().open_part(&name("a"), size, root(1)).expect("room");
    let part = open(&site);
    for (offset, end) in [(BLOCK - 40, BLOCK + 50), (BLOCK + 60, 2 * BLOCK + 7), (0, BLOCK - 40)] {
        let slice = IoSlice::new(&bytes[offset as usize..end as usize]);
        part.write_vectored_at(&[slice], Offset(offset)).expect("written");
        site.journal().record(&part, Offset(offset), ByteCount(end - offset));
    }
    site.journal().write().expect("written");
    drop(part);
    site.restart();
    let part = open(&site);
    let left = site.journal().left(&part).expect("read back");
    let piece = |offset: u64, end: u64| {
        let crc = block_crc(&bytes[offset as usize..end as usize]);
        (Offset(offset), ByteCount(end - offset), crc)
    };
    assert_eq!(left.ranges, site.journal().ranges(&part));
    let expected = [piece(BLOCK, BLOCK + 50), piece(BLOCK + 60, 2 * BLOCK), piece(2 * BLOCK, 2 * BLOCK + 7)];
    assert_eq!(left.pieces, expected);
}

#[test]
fn committed_and_abandoned_parts_are_gone() {
    for told in [true, false] {
        let mut site = Site::new();
        let (committed, abandoned) = (site.part("a", 1), site.part("b", 1));
        site.write(&committed, 0, 5);
        site.write(&abandoned, 0, 5);
        site.journal().write().expect("written");
        Committer::commit_batch(site.root(), vec![((), Arc::clone(&committed))]).pop().expect("one").1.expect("whole");
        abandoned.abandon();
        assert_eq!(site.parts(), Vec::<PathBuf>::new());
        if told {
            site.journal().forget(&committed);
            site.journal().forget(&abandoned);
            assert!(site.journal().ranges(&committed).is_empty());
            site.journal().write().expect("written");
        }
        // Late bytes of an abandoned part go nowhere, and are not noted.
        site.write(&abandoned, 0, 1);
        // The same version once more is another file, of which nothing is believed.
        let again = site.part("b", 1);
        assert!(site.journal().ranges(&again).is_empty());
        site.write(&again, 2, 3);
        site.journal().write().expect("written");
        drop((committed, abandoned, again));
        assert_eq!(by_name(site.restart()), [(name("b"), set(&[(2, 3)]))].into(), "told: {told}");
        assert!(site.root().is_done(&name("a")).expect("readable").is_yes());
        assert_eq!(site.parts().len(), 1);
    }
}

/// A process was killed when its commit had renamed the object and not marked it yet.
#[test]
fn an_object_whose_commit_was_interrupted_is_a_whole_part_again() {
    let mut site = Site::new();
    let path = site.dir.path().join("root/a/b");
    for (unmarked, marked, whole, taken) in [
        (Unmarked::TakeBack, false, true, true),
        (Unmarked::TakeBack, true, true, false),
        (Unmarked::TakeBack, false, false, false),
        (Unmarked::Keep, false, true, false),
    ] {
        site.unmarked = unmarked;
        let part = site.part("a/b", 1);
        site.write(&part, u64::from(!whole), 5);
        site.journal().write().expect("written");
        part.keep_unsynced().expect("renamed");
        drop(part);
        let marker = path.with_extension("success");
        if marked {
            fs::write(&marker, format!("size {}\n", SIZE.0)).expect("written");
        }
        let expected = if taken { [(name("a/b"), set(&[(0, 5)]))].into() } else { Believed::new() };
        assert_eq!(by_name(site.restart()), expected, "{unmarked:?}, marked: {marked}, whole: {whole}");
        assert_eq!(path.exists(), !taken);
        if taken {
            let part = site.part("a/b", 1);
            assert!(site.journal().is_whole(&part));
            assert!(!Committer::commit_batch(site.root(), vec![((), part)]).iter().any(|(_, done)| done.is_err()));
            assert_eq!(fs::read(&path).expect("there").len() as u64, SIZE.0);
        }
        take_away(site.root(), "a/b").expect("removed");
    }
}

#[test]
fn a_part_that_was_replaced_or_cut_is_not_believed() {
    let mut site = Site::new();
    let part = site.part("a", 1);
    site.write(&part, 0, 5);
    site.journal().write().expect("written");
    drop(part);
    let file = site.parts().pop().expect("one");
    fs::File::options().write(true).open(&file).and_then(|file| file.set_len(SIZE.0 - 1)).expect("cut");
    assert_eq!(site.restart(), []);
    assert!(!file.exists());
}

#[test]
fn a_part_that_an_interrupted_commit_made_unwritable_is_found() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut site = Site::new();
    let part = site.part("a", 1);
    site.write(&part, 0, 1);
    site.journal().write().expect("written");
    drop(part);
    let file = site.parts().pop().expect("one");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).expect("ours");
    assert_eq!(site.restart().len(), 1);
    let part = site.part("a", 1);
    site.write(&part, 1, 2);
    assert_eq!(site.journal().ranges(&part), set(&[(0, 2)]));
}

#[test]
fn all_who_open_a_part_share_its_fate() {
    let site = Site::new();
    let (one, two) = (site.part("a", 1), site.part("a", 1));
    one.write_vectored_at(&[IoSlice::new(b"x")], Offset(7)).expect("written");
    let mut byte = [0];
    two.source().expect("served").read_exact_at(&mut byte, Offset(7)).expect("there");
    assert_eq!(&byte, b"x");
    Committer::commit_batch(site.root(), vec![((), one)]).pop().expect("one").1.expect("committed");
    let late = std::panic::catch_unwind(|| two.write_vectored_at(&[IoSlice::new(b"y")], Offset(7)).map_err(drop));
    assert!(late.is_err(), "a committed object is never written to");
    two.abandon();
    assert!(site.root().is_done(&name("a")).expect("readable").is_yes(), "nor removed");
}

/// The kernel tells of a write that failed once. The flusher heard of it while the part became whole, and the
/// committer, who flushed it next, was told that all was well.
#[test]
fn a_part_that_the_disk_did_not_take_is_nobodys_any_more() {
    let mut site = Site::new();
    let part = site.part("a", 1);
    site.write(&part, 0, 5);
    let mut pending = site.journal().pending(&[Arc::clone(&part)]);
    part.file().lose();
    assert!(pending.sync().expect_err("not flushed").is_loss());
    assert_eq!(site.parts().len(), 0, "whoever is killed now does not find it again");
    let outcome = Committer::commit_batch(site.root(), vec![((), Arc::clone(&part))]).pop().expect("one");
    assert!(outcome.1.expect_err("it is lost").is_loss());
    assert_eq!(site.root().is_done(&name("a")).expect("readable"), Done::MarkerMissing);
    let confirmed = site.journal().confirm(pending).expect("written");
    site.journal().settle(confirmed.sync()).expect("durable");
    assert!(site.journal().ranges(&part).is_empty());
    drop((part, confirmed));
    assert_eq!(site.restart(), []);
}

#[test]
fn a_root_without_a_journal_keeps_no_parts() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = Root::create(dir.path()).expect("created");
    drop(root.open_part(&name("a"), SIZE, self::root(1)).expect("room"));
    assert_eq!(fs::read_dir(dir.path().join(".supersync/parts")).expect("stands").count(), 1);
    drop(root);
    let root = Root::create(dir.path()).expect("created");
    assert_eq!(root.leftovers(), 1);
    assert_eq!(fs::read_dir(dir.path().join(".supersync/parts")).expect("stands").count(), 0);
}

#[test]
fn a_long_journal_is_rewritten_and_says_the_same() {
    let mut site = Site::new();
    let mut longest = 0;
    let keep = site.part("keep", 1);
    site.write(&keep, 1, 2);
    site.make_durable(&[Arc::clone(&keep)]);
    site.write(&keep, 3, 4);
    let mut rounds = 0;
    // Each round adds some 200 bytes, all of them dead at its end, until the file gets shorter.
    loop {
        let part = site.part(&format!("{rounds:0100}"), 1);
        site.journal().record(&part, Offset(0), SIZE);
        part.abandon();
        site.journal().forget(&part);
        site.journal().write().expect("written");
        let length = fs::metadata(site.file()).expect("stands").len();
        if length < longest {
            break;
        }
        longest = length;
        rounds += 1;
        assert!(rounds < 20_000, "{longest} bytes and never rewritten");
    }
    assert!(longest > limits::LOG_REWRITE_BYTES_MIN / 2, "{longest} bytes and rewritten already");
    site.write(&keep, 4, 5);
    site.journal().write().expect("written");
    assert!(fs::metadata(site.file()).expect("stands").len() < 1000);
    drop(keep);
    assert_eq!(by_name(site.restart()), [(name("keep"), set(&[(1, 2), (3, 5)]))].into());
    assert_eq!(by_name(site.reboot()), [(name("keep"), set(&[(1, 2)]))].into());
}

/// What is to be believed of each object.
type Believed = BTreeMap<ObjectName, RangeSet>;

/// Writes a journal a record at a time; what is to be believed when its file ends at each length, and the file.
fn journal_by_length(site: &mut Site) -> (Vec<(usize, Believed)>, Vec<u8>) {
    let (a, b) = (site.part("a", 1), site.part("b/c", 2));
    let mut believed = Believed::new();
    let mut by_length = vec![(0, believed.clone())];
    for (part, first, end) in [(&a, 0, 1), (&a, 2, 3), (&b, 4, 5), (&a, 1, 2), (&b, 0, 2), (&a, 4, 5)] {
        site.write(part, first, end);
        site.journal().write().expect("written");
        let (offset, length) = granules(first, end);
        believed.entry(part.name().clone()).or_default().insert(offset, length);
        by_length.push((fs::read(site.file()).expect("stands").len(), believed.clone()));
    }
    let (offset, length) = granules(2, 3);
    site.journal().retract(&a, offset, length);
    site.journal().write().expect("written");
    believed.entry(name("a")).or_default().remove(offset, length);
    by_length.push((fs::read(site.file()).expect("stands").len(), believed.clone()));
    site.make_durable(&[a, b]);
    let bytes = fs::read(site.file()).expect("stands");
    (by_length, bytes)
}

/// Puts back the files of the parts, which a restart that did not know them removed.
fn put_back(parts: &[PathBuf]) {
    for part in parts {
        fs::File::create(part).and_then(|file| file.set_len(SIZE.0)).expect("made");
    }
}

#[test]
fn a_journal_cut_at_any_byte_says_what_was_recorded_up_to_there() {
    let mut site = Site::new();
    let (by_length, bytes) = journal_by_length(&mut site);
    let parts = site.parts();
    for cut in 0..=bytes.len() {
        site.open = None;
        put_back(&parts);
        fs::write(site.file(), &bytes[..cut]).expect("cut");
        let (_, expected) = by_length.iter().rfind(|(length, _)| *length <= cut).expect("the first is 0");
        assert_eq!(&by_name(site.restart()), expected, "cut at {cut} of {}", bytes.len());
    }
}

#[test]
fn a_journal_damaged_at_any_byte_says_what_was_recorded_before_it() {
    let mut site = Site::new();
    let (by_length, bytes) = journal_by_length(&mut site);
    let parts = site.parts();
    for at in 0..bytes.len() {
        for damage in [0x01, 0xff] {
            site.open = None;
            put_back(&parts);
            let mut damaged = bytes.clone();
            damaged[at] ^= damage;
            fs::write(site.file(), damaged).expect("written");
            let (_, expected) = by_length.iter().rfind(|(length, _)| *length <= at).expect("the first is 0");
            assert_eq!(&by_name(site.restart()), expected, "{damage:02x} at {at} of {}", bytes.len());
        }
    }
}

#[test]
fn a_tail_of_zeros_or_of_anything_is_cut() {
    let mut site = Site::new();
    let (by_length, bytes) = journal_by_length(&mut site);
    let parts = site.parts();
    let (_, expected) = by_length.last().expect("some");
    for tail in [vec![0; 9000], vec![0xff; 64], b"supersync journal 1\n".to_vec()] {
        site.open = None;
        put_back(&parts);
        fs::write(site.file(), [&bytes[..], &tail].concat()).expect("written");
        assert_eq!(&by_name(site.restart()), expected);
        // The next record stands where it is found.
        let part = site.part("after", 3);
        site.write(&part, 0, 5);
        site.journal().write().expect("written");
        drop(part);
        assert_eq!(by_name(site.restart()).get(&name("after")), Some(&set(&[(0, 5)])));
    }
}

/// What happens to a root and its journal.
#[derive(Debug, Clone)]
enum Step {
    Record { object: usize, first: u64, end: u64 },
    Retract { object: usize, first: u64, end: u64 },
    Write,
    MakeDurable { object: usize },
    Commit { object: usize },
    Abandon { object: usize, told: bool },
    Rewrite,
    Restart,
    Reboot,
}

fn step() -> impl Strategy<Value = Step> {
    let object = 0..3_usize;
    prop_oneof![
        6 => (object.clone(), 0..5_u64, 1..5_u64)
            .prop_map(|(object, first, count)| Step::Record { object, first, end: (first + count).min(5) }),
        1 => (object.clone(), 0..5_u64, 1..5_u64)
            .prop_map(|(object, first, count)| Step::Retract { object, first, end: (first + count).min(5) }),
        2 => Just(Step::Write),
        2 => object.clone().prop_map(|object| Step::MakeDurable { object }),
        1 => object.clone().prop_map(|object| Step::Commit { object }),
        1 => (object, any::<bool>()).prop_map(|(object, told)| Step::Abandon { object, told }),
        1 => Just(Step::Rewrite),
        1 => Just(Step::Restart),
        1 => Just(Step::Reboot),
    ]
}

/// What is known of one object's part: in memory, in the journal's file, on the disk.
#[derive(Debug, Clone, Default)]
struct Known {
    recorded: RangeSet,
    written: RangeSet,
    durable: RangeSet,
}

fn run(steps: &[Step]) {
    let mut site = Site::new();
    let mut model: [Known; 3] = Default::default();
    let texts = ["a", "b/c", "d"];
    let open = |site: &Site, object: usize| site.part(texts[object], 1);
    for (at, step) in steps.iter().enumerate() {
        match *step {
            Step::Record { object, first, end } => {
                let part = open(&site, object);
                site.write(&part, first, end);
                let (offset, length) = granules(first, end);
                model[object].recorded.insert(offset, length);
            }
            Step::Retract { object, first, end } => {
                let part = open(&site, object);
                let (offset, length) = granules(first, end);
                site.journal().retract(&part, offset, length);
                // Written at once, so that it is not believed after a restart either.
                site.journal().write().expect("written");
                model.iter_mut().for_each(|known| known.written = known.recorded.clone());
                for set in [&mut model[object].recorded, &mut model[object].durable, &mut model[object].written] {
                    set.remove(offset, length);
                }
            }
            Step::Write => {
                site.journal().write().expect("written");
                model.iter_mut().for_each(|known| known.written = known.recorded.clone());
            }
            Step::MakeDurable { object } => {
                let part = open(&site, object);
                site.make_durable(&[part]);
                model.iter_mut().for_each(|known| known.written = known.recorded.clone());
                model[object].durable = model[object].recorded.clone();
            }
            Step::Commit { object } => {
                let part = open(&site, object);
                let outcome = Committer::commit_batch(site.root(), vec![((), Arc::clone(&part))]).pop().expect("one");
                outcome.1.expect("committed");
                site.journal().forget(&part);
                model[object] = Known::default();
            }
            Step::Abandon { object, told } => {
                let part = open(&site, object);
                part.abandon();
                if told {
                    site.journal().forget(&part);
                }
                model[object] = Known::default();
            }
            Step::Rewrite => {
                site.journal().rewrite().expect("rewritten");
                model.iter_mut().for_each(|known| known.written = known.recorded.clone());
            }
            Step::Restart | Step::Reboot => {
                let reboot = matches!(step, Step::Reboot);
                let resumed = by_name(if reboot { site.reboot() } else { site.restart() });
                for (known, text) in model.iter_mut().zip(texts) {
                    let believed = if reboot { &known.durable } else { &known.written };
                    let found = resumed.get(&name(text)).cloned().unwrap_or_default();
                    assert_eq!(&found, believed, "'{text}' after step {at} of {steps:?}");
                    (known.recorded, known.written) = (found.clone(), found);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_restart_believes_what_was_written_and_a_reboot_what_was_made_durable(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(&[&steps[..], &[Step::Write, Step::Restart, Step::Reboot]].concat());
    }
}
