//! The traders' stores: made from a seed at the start, compared at the end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::DemoError;
use super::interrupt::Interrupt;
use super::plan::Plan;
use super::records::{Orders, RECORD_BYTES};
use crate::limits::{PRIVATE_DIR, SUCCESS_SUFFIX};
use crate::store::{Marker, Pattern};

/// Bytes made or compared at a time.
const PIECE_BYTES: u64 = 40_960 * RECORD_BYTES as u64;

/// What was compared and is the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Identical {
    pub(super) segments: u64,
    pub(super) bytes: u64,
}

/// Writes the store of the trader `index` into `local`, counting the bytes in `done`.
pub(super) fn make(
    plan: &Plan,
    index: u64,
    local: &Path,
    done: &AtomicU64,
    interrupt: &Interrupt,
) -> Result<(), DemoError> {
    // No two traders have the same records.
    let seed = plan.seed.wrapping_mul(2).wrapping_add(index);
    let mut piece = vec![0; PIECE_BYTES.min(plan.segment_bytes()) as usize];
    for (number, name) in (0..).zip(names(plan)?) {
        let path = local.join(name);
        let mut file = File::create_new(&path).map_err(DemoError::io("make", &path))?;
        let mut orders = Orders::new(seed, number);
        let mut left = plan.segment_bytes();
        while left > 0 {
            interrupt.check()?;
            let piece = &mut piece[..PIECE_BYTES.min(left) as usize];
            orders.fill(piece);
            file.write_all(piece).map_err(DemoError::io("write", &path))?;
            left -= piece.len() as u64;
            done.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Holds what a trader fetched into `remote` against what the other has in `local`: the same names, neither more nor
/// less than planned, the same bytes, and beside each file its marker.
pub(super) fn compare(
    plan: &Plan,
    remote: &Path,
    local: &Path,
    done: &AtomicU64,
    interrupt: &Interrupt,
) -> Result<Identical, DemoError> {
    let names = names(plan)?;
    let planned: BTreeSet<String> = names.iter().cloned().collect();
    let marked = names.iter().map(|name| format!("{name}{SUCCESS_SUFFIX}"));
    same_names(local, &planned)?;
    same_names(remote, &planned.iter().cloned().chain(marked).collect())?;
    let mut identical = Identical::default();
    for name in names {
        let bytes = compare_file(&remote.join(&name), &local.join(&name), done, interrupt)?;
        if bytes != plan.segment_bytes() {
            return different(format!("{name} has {bytes} bytes instead of {}", plan.segment_bytes()));
        }
        check_marker(&remote.join(format!("{name}{SUCCESS_SUFFIX}")), bytes)?;
        identical.segments += 1;
        identical.bytes += bytes;
    }
    Ok(identical)
}

fn names(plan: &Plan) -> Result<Vec<String>, DemoError> {
    let names = Pattern::parse(&plan.pattern).and_then(|pattern| pattern.expand());
    let names = names.expect("the demo's own pattern, of digits and letters");
    Ok(names.iter().map(ToString::to_string).collect())
}

/// What is in `dir`, but for what the store keeps to itself, is what is expected.
fn same_names(dir: &Path, expected: &BTreeSet<String>) -> Result<(), DemoError> {
    let failed = || DemoError::io("list", dir);
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        if name != PRIVATE_DIR {
            found.insert(name.to_string_lossy().into_owned());
        }
    }
    if let Some(name) = expected.difference(&found).next() {
        return different(format!("{} has no {name}", dir.display()));
    }
    if let Some(name) = found.difference(expected).next() {
        return different(format!("{} has {name}, which nobody made", dir.display()));
    }
    Ok(())
}

/// How many bytes both files have, which are the same.
fn compare_file(one: &Path, other: &Path, done: &AtomicU64, interrupt: &Interrupt) -> Result<u64, DemoError> {
    let mut readers = [one, other].map(|path| (path, Vec::with_capacity(PIECE_BYTES as usize)));
    let open = |path: &Path| File::open(path).map_err(DemoError::io("open", path));
    let mut files = [open(one)?, open(other)?];
    let mut offset = 0;
    loop {
        interrupt.check()?;
        for (file, (path, piece)) in files.iter_mut().zip(&mut readers) {
            piece.clear();
            file.take(PIECE_BYTES).read_to_end(piece).map_err(DemoError::io("read", path))?;
        }
        let [(_, piece), (_, other_piece)] = &readers;
        if piece != other_piece {
            let same = piece.iter().zip(other_piece).take_while(|(a, b)| a == b).count() as u64;
            let what = format!("{} and {} from byte {}", one.display(), other.display(), offset + same);
            return different(what);
        }
        if piece.is_empty() {
            return Ok(offset);
        }
        offset += piece.len() as u64;
        done.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
}

fn check_marker(path: &Path, bytes: u64) -> Result<(), DemoError> {
    let text = fs::read(path).map_err(DemoError::io("read", path))?;
    match Marker::parse(&text) {
        Ok(Marker { size: Some(size), .. }) if size.0 == bytes => Ok(()),
        Ok(marker) => different(format!("{} says {:?} of {bytes} bytes", path.display(), marker.size)),
        Err(error) => different(format!("{}: {error}", path.display())),
    }
}

fn different<T>(what: String) -> Result<T, DemoError> {
    Err(DemoError::Different { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            segments: 3,
            records: 50_000,
            pattern: "stock{1..3}".to_owned(),
            links: 1,
            exchanges: 1,
            packet_bytes: 1400,
            link_rate: None,
            seed: 1,
            chaos: false,
        }
    }

    /// A store, and a copy of it as a node would leave it, after `spoil` was at the copy.
    fn compared(spoil: impl FnOnce(&Path)) -> Result<Identical, DemoError> {
        let dir = tempfile::tempdir().expect("a directory");
        let (local, remote) = (dir.path().join("local"), dir.path().join("remote"));
        for path in [&local, &remote, &remote.join(PRIVATE_DIR)] {
            fs::create_dir(path).expect("made");
        }
        let (plan, done, interrupt) = (plan(), AtomicU64::new(0), Interrupt::default());
        make(&plan, 0, &local, &done, &interrupt).expect("made");
        assert_eq!(done.into_inner(), plan.data_bytes());
        for name in names(&plan).expect("names") {
            fs::copy(local.join(&name), remote.join(&name)).expect("copied");
            let marker = Marker::now(crate::units::ByteCount(plan.segment_bytes()), None);
            fs::write(remote.join(format!("{name}.success")), marker.to_text()).expect("written");
        }
        spoil(&remote);
        compare(&plan, &remote, &local, &AtomicU64::new(0), &interrupt)
    }

    #[test]
    fn a_whole_copy_is_identical() {
        assert_eq!(compared(|_| ()).expect("the same"), Identical { segments: 3, bytes: 3_600_000 });
    }

    #[test]
    fn whatever_is_not_a_whole_copy_is_different() {
        let check = |expected: &str, spoil: &dyn Fn(&Path)| {
            let error = compared(spoil).expect_err(expected);
            assert!(matches!(&error, DemoError::Different { what } if what.contains(expected)), "{expected}: {error}");
        };
        let flip = |remote: &Path| {
            let path = remote.join("stock2");
            let mut bytes = fs::read(&path).expect("there");
            bytes[1_000_001] ^= 1;
            fs::write(path, bytes).expect("written");
        };
        let empty = |remote: &Path| {
            for entry in fs::read_dir(remote).expect("there") {
                let path = entry.expect("read").path();
                if path.is_file() {
                    fs::remove_file(path).expect("removed");
                }
            }
        };
        let cut = |remote: &Path| {
            let file = File::options().write(true).open(remote.join("stock1")).expect("there");
            file.set_len(1_199_999).expect("cut");
        };
        check("from byte 1000001", &flip);
        check("from byte 1199999", &cut);
        check("has no stock1", &empty);
        check("has no stock3", &|remote| fs::remove_file(remote.join("stock3")).expect("removed"));
        check("has no stock3.success", &|remote| fs::remove_file(remote.join("stock3.success")).expect("removed"));
        check("size is not a number", &|remote| fs::write(remote.join("stock1.success"), "size x").expect("written"));
        check("of 1200000 bytes", &|remote| fs::write(remote.join("stock1.success"), "size 7\n").expect("written"));
        check("of 1200000 bytes", &|remote| fs::write(remote.join("stock1.success"), "").expect("written"));
        check("which nobody made", &|remote| fs::write(remote.join("stock4"), "").expect("written"));
    }

    #[test]
    fn two_traders_have_different_records() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = [0, 1].map(|index| {
            let local = dir.path().join(index.to_string());
            fs::create_dir(&local).expect("made");
            make(&plan(), index, &local, &AtomicU64::new(0), &Interrupt::default()).expect("made");
            fs::read(local.join("stock1")).expect("there")
        });
        assert!(made[0] != made[1]);
    }
}
