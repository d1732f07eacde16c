//! Trees on a real file system: what was there, what was sent, what another process would see.

mod deleting;
mod landing;
mod resuming;
mod walking;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::IoSlice;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::{Mode, SFlag, futimens, mknod};
use nix::sys::time::TimeSpec;
use tempfile::TempDir;

use super::*;
use crate::limits;
use crate::units::{ByteCount, Entry, FileTime, Kind, Offset, RangeSet, TreePath};

/// A directory to send from and one to land in.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("from")).expect("made");
        Self { dir }
    }

    fn from(&self) -> PathBuf {
        self.dir.path().join("from")
    }

    /// A file, with the directories that it needs.
    fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> PathBuf {
        let path = self.from().join(name);
        fs::create_dir_all(path.parent().expect("below the tree")).expect("made");
        fs::write(&path, bytes).expect("written");
        path
    }

    fn walk(&self, rules: &[&str], options: WalkOptions) -> Walk {
        let rules = Rules::new(rules).expect("patterns");
        Walk::new(vec![self.contents()], rules, options).expect("a directory")
    }

    fn to(&self) -> PathBuf {
        self.dir.path().join("to")
    }

    fn landing(&self, options: LandingOptions) -> Landing {
        Landing::new(Tree::open(&self.to()).expect("opened"), TreePath::top(), options)
    }

    /// Sends everything, as two hosts would; what was changed at the receiver, and how it ended.
    fn send(&self, rules: &[&str], options: &LandingOptions) -> (BTreeMap<String, Change>, Ended) {
        let (xattrs, hash, tries) = (options.xattrs, options.checksum, options.dry_run);
        let walked = WalkOptions { owner: true, xattrs, hash, user_names: true, tries };
        let mut walk = self.walk(rules, walked);
        let mut landing = self.landing(options.clone());
        let changes = land(&mut walk, &mut landing, 7);
        (changes, landing.end(true))
    }

    fn contents(&self) -> WalkSource {
        WalkSource { root: self.from(), start: TreePath::top(), lands: TreePath::top() }
    }
}

/// Everything that a walk finds, `batch` at a time.
fn all(walk: &mut Walk, batch: usize) -> Vec<Found> {
    let mut found = Vec::new();
    loop {
        let more = walk.next_batch(batch).expect("readable");
        assert!(more.len() <= batch);
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Lands what a walk finds, `batch` entries at a time; what was changed.
fn land(walk: &mut Walk, landing: &mut Landing, batch: usize) -> BTreeMap<String, Change> {
    let mut changes = BTreeMap::new();
    loop {
        let found = walk.next_batch(batch).expect("readable");
        if found.is_empty() {
            return changes;
        }
        for (id, found) in (0..).zip(&found) {
            let change = match landing.examine(id, found.entry.clone()).expect("examined") {
                Examined::Same => continue,
                Examined::Made(change) => change,
                Examined::Wanted { change, have } => {
                    bring(landing, id, found, &have, 5_000);
                    landing.finish(id).expect("whole");
                    change
                }
            };
            changes.insert(found.entry.path.to_string(), change);
        }
        let failed = landing.end_batch();
        assert!(failed.is_empty(), "{failed:?}");
    }
}

/// Writes what lacks of a file, in pieces of `piece` bytes at most, the last one first; holes are told.
fn bring(landing: &mut Landing, id: u16, found: &Found, have: &RangeSet, piece: u64) {
    let file = found.open().expect("unchanged");
    let size = file.size();
    let mut pieces = Vec::new();
    for (offset, length) in have.missing(size) {
        let (mut at, end) = (offset.0, offset.0 + length.0);
        while at < end {
            let (data, data_end) = match file.next_data(Offset(at)) {
                Some((start, length)) => (start.0.min(end), (start.0 + length.0).min(end)),
                None => (end, end),
            };
            if at < data {
                landing.hole(id, Offset(at), ByteCount(data - at)).expect("within the file");
            }
            let mut from = data;
            while from < data_end {
                pieces.push((from, piece.min(data_end - from)));
                from += piece;
            }
            at = data_end.max(data);
        }
    }
    for (at, length) in pieces.into_iter().rev() {
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, Offset(at)).expect("read");
        let (front, back) = bytes.split_at(bytes.len() / 3);
        landing.write(id, Offset(at), &[IoSlice::new(front), IoSlice::new(back)]).expect("written");
    }
    file.verify_unchanged().expect("unchanged");
}

/// What the file system keeps of everything below a directory, but the directory itself.
fn picture(top: &Path) -> BTreeMap<PathBuf, Picture> {
    let mut pictures = BTreeMap::new();
    let mut pending = vec![top.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("readable").path();
            let metadata = fs::symlink_metadata(&path).expect("stands");
            let content = if metadata.is_file() {
                fs::read(&path).expect("readable")
            } else if metadata.is_symlink() {
                fs::read_link(&path).expect("readable").into_os_string().into_encoded_bytes()
            } else {
                Vec::new()
            };
            let xattrs = xattr::list(&path)
                .map(|names| names.filter(|name| name.as_bytes().starts_with(b"user.")).collect::<Vec<_>>());
            pictures.insert(
                path.strip_prefix(top).expect("below").into(),
                Picture {
                    mode: metadata.mode(),
                    size: if metadata.is_dir() { 0 } else { metadata.size() },
                    mtime: (metadata.mtime(), metadata.mtime_nsec()),
                    owner: (metadata.uid(), metadata.gid()),
                    links: if metadata.is_dir() { 0 } else { metadata.nlink() },
                    content,
                    xattrs: xattrs.unwrap_or_default(),
                },
            );
            if metadata.is_dir() {
                pending.push(path);
            }
        }
    }
    pictures
}

#[derive(Debug, PartialEq, Eq)]
struct Picture {
    mode: u32,
    size: u64,
    mtime: (i64, i64),
    owner: (u32, u32),
    links: u64,
    content: Vec<u8>,
    xattrs: Vec<OsString>,
}

fn by_path(found: &[Found]) -> BTreeMap<String, &Found> {
    found.iter().map(|found| (found.entry.path.to_string(), found)).collect()
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("valid")
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    futimens(File::open(path).expect("opened"), &time, &time).expect("set");
}

/// Some bytes that are not all the same.
fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect()
}
