//! Trees on a real file system: what was there, what was sent, what another process would see.

mod walking;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, futimens, mknod};
use nix::sys::time::TimeSpec;
use tempfile::TempDir;

use super::*;
use crate::units::{Kind, TreePath};

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
