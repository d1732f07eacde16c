//! The store as a whole, on a real file system: what another process would see at each step.

mod hashes;
mod journal;
mod listing;
mod names;
mod parts;
mod removal;
mod sources;

use std::fs;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::units::{ByteCount, ObjectName, Offset};

/// A directory with a root for writing in it, and beside the root a file that nobody may reach through it.
struct Site {
    root: Root,
    path: PathBuf,
    outside: TempDir,
}

impl Site {
    fn new() -> Self {
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("secret"), "secret").expect("written");
        let path = outside.path().join("root");
        Self { root: Root::create(&path).expect("created"), path, outside }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path.join(name)).ok()
    }

    fn part(&self, text: &str, bytes: &[u8]) -> Arc<Part> {
        let part = self.root.create_part(&name(text), ByteCount(bytes.len() as u64)).expect("room");
        part.write_vectored_at(&[IoSlice::new(bytes)], Offset(0)).expect("written");
        Arc::new(part)
    }

    fn commit(&self, text: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut outcome = Committer::commit_batch(&self.root, vec![((), self.part(text, bytes))]);
        outcome.pop().expect("one part, one answer").1
    }

    fn parts_left(&self) -> usize {
        fs::read_dir(self.path.join(".supersync/parts")).expect("stands").count()
    }
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text.as_bytes()).expect("valid")
}

fn take_away(root: &Root, text: &str) -> Result<(), StoreError> {
    let mut outcomes = root.remove_batch(vec![name(text)]);
    outcomes.pop().expect("one name, one answer").1
}
