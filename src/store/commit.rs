//! Whole parts become objects, durably and in groups.
//!
//! The order is invariant 8 of the [crate]. After a crash at any instant a marker stands only beside the object
//! that it speaks of:
//!
//! 1. the parts' bytes, their modes and times, and the markers' text under private names or none, are flushed;
//! 2. parts of names that no file has get them, directories being made as needed;
//! 3. of all others the markers are removed, and their directories flushed;
//! 4. these parts get their final names as well; all directories concerned are flushed;
//! 5. the markers get their final names; the directories are flushed again.
//!
//! A marker that was left alone when its object was removed by hand stands until the new one takes its place.
//!
//! Each step is taken for the whole batch before the next, so that many small objects cost few waits. An object
//! that fails a step is out of the batch and reported; the others go on.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::uio::pwrite;
use nix::unistd::fsync;

use super::error::StoreError;
use super::marker::Marker;
use super::part::{Flush, Part, PrivateFile};
use super::resolve::{self, Links};
use super::root::{Root, Shared, marker_name, remove_entry};
use crate::limits;
use crate::units::ObjectName;

/// Makes whole parts durable. Keeps nothing between batches.
#[derive(Debug, Clone, Copy)]
pub struct Committer;

impl Committer {
    /// Commits `parts`, which must be whole, of `root`, and neither committed nor kept yet. Blocks until the disk
    /// has them. The answers come in the order of the parts, each with its token; after an `Err` no marker
    /// stands beside the object, so it will be fetched again; or, where the part was abandoned meanwhile, what stood
    /// before stands as it was, if that was before its turn. A batch opens one more descriptor for each part.
    ///
    /// Panics when a part is of another root.
    pub fn commit_batch<T>(root: &Root, parts: Vec<(T, Arc<Part>)>) -> Vec<(T, Result<(), StoreError>)> {
        let shared = root.shared();
        let (tokens, parts): (Vec<T>, Vec<Arc<Part>>) = parts.into_iter().unzip();
        assert!(parts.iter().all(|part| part.is_of(shared)), "a part is committed in the root that it was made in");
        let mut batch = Batch { shared, entries: parts.into_iter().map(Entry::new).collect() };
        batch.each(|shared, entry| {
            entry.marker = Some(write_marker(shared, &entry.part)?);
            entry.attributed = entry.part.apply_attributes().map_err(|errno| {
                StoreError::io(&shared.path, Some(entry.part.name()), "set the mode and time of", errno)
            })?;
            Ok(())
        });
        batch.sync_contents();
        let touched = batch.rename_objects();
        batch.sync_directories(&touched);
        batch.remember_directories();
        let (mut marked, mut last) = (BTreeSet::new(), LastDirectory::default());
        batch.each(|shared, entry| entry.rename_marker(shared, &mut last, &mut marked));
        batch.sync_directories(&marked);
        tokens.into_iter().zip(batch.entries.into_iter().map(|entry| entry.finish(shared))).collect()
    }
}

struct Batch<'r> {
    shared: &'r Arc<Shared>,
    entries: Vec<Entry>,
}

impl Batch<'_> {
    /// Takes one step for every entry that has not failed yet.
    fn each(&mut self, mut step: impl FnMut(&Arc<Shared>, &mut Entry) -> Result<(), StoreError>) {
        for entry in &mut self.entries {
            if entry.outcome.is_ok() {
                entry.outcome = step(self.shared, entry);
            }
        }
    }

    /// Flushes the bytes of all parts and markers.
    fn sync_contents(&mut self) {
        let shared = Arc::clone(self.shared);
        let Ok(writer) = shared.writer() else { return };
        if writer.sync_at_once(self.entries.len()) {
            return;
        }
        self.each(|shared, entry| {
            let io = |errno| StoreError::io(&shared.path, Some(entry.part.name()), "flush", errno);
            // Some file systems do not flush a file that no name leads to: it would be lost, they think.
            entry.part.file().entry().map_err(io)?;
            entry.marker.as_ref().map_or(Ok(""), PrivateFile::entry).map_err(io)?;
            let what = if entry.attributed { Flush::All } else { Flush::Bytes };
            entry.part.file().flush(what).map_err(io)?;
            entry.marker.as_ref().map_or(Ok(()), |marker| marker.flush(Flush::Bytes).map_err(io))
        });
    }

    /// Gives the parts their final names, and removes the markers of objects that are replaced before that. The
    /// directories to flush: those that got a name, and those above a directory that is not known to be durable.
    fn rename_objects(&mut self) -> BTreeSet<Vec<u8>> {
        let (mut retired, mut touched) = (BTreeSet::new(), BTreeSet::new());
        let shared = Arc::clone(self.shared);
        let Ok(durable) = shared.hold_tree() else { return touched };
        let mut last = LastDirectory::default();
        self.each(|shared, entry| entry.link_object(shared, &mut last, &mut touched));
        self.each(|shared, entry| entry.retire_marker(shared, &mut last, &mut retired));
        self.sync_directories(&retired);
        self.each(|shared, entry| {
            let name = entry.part.name().as_bytes();
            let unsure = resolve::directories_of(name).filter(|&directory| !durable.contains(directory));
            touched.extend(unsure.map(|directory| resolve::split(directory).0.to_vec()));
            entry.rename_object(shared, &mut last, &mut touched)
        });
        touched
    }

    /// Notes the directories of all objects that got this far: they need no flushing on behalf of later ones.
    fn remember_directories(&mut self) {
        let Ok(mut durable) = self.shared.hold_tree() else { return };
        for entry in self.entries.iter().filter(|entry| entry.outcome.is_ok()) {
            for directory in resolve::directories_of(entry.part.name().as_bytes()) {
                if !durable.contains(directory) {
                    if durable.len() >= limits::DURABLE_DIRECTORIES_MAX {
                        durable.clear();
                    }
                    durable.insert(directory.to_vec());
                }
            }
        }
    }

    /// Flushes each of `directories` once; a failure is one of every object in it or below it.
    fn sync_directories(&mut self, directories: &BTreeSet<Vec<u8>>) {
        for path in directories {
            let flushed = resolve::open_directory(self.shared.dir.as_fd(), path, Links::Follow).and_then(fsync);
            if let Err(errno) = flushed {
                self.each(|shared, entry| {
                    if is_below(entry.part.name().as_bytes(), path) {
                        let name = entry.part.name();
                        return Err(StoreError::io(&shared.path, Some(name), "flush the directory of", errno));
                    }
                    Ok(())
                });
            }
        }
    }
}

struct Entry {
    part: Arc<Part>,
    marker: Option<PrivateFile>,
    /// Whether the part was given a mode and a time.
    attributed: bool,
    outcome: Result<(), StoreError>,
}

impl Entry {
    fn new(part: Arc<Part>) -> Self {
        Self { part, marker: None, attributed: false, outcome: Ok(()) }
    }

    /// Gives the part its final name if that is free; makes the object's directory on the way.
    fn link_object(
        &mut self,
        shared: &Shared,
        last: &mut LastDirectory,
        touched: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), StoreError> {
        if !self.part.is_arriving() {
            // Given up meanwhile: what stands stays, and so does its marker.
            return Err(self.io(shared, "commit", Errno::ECANCELED));
        }
        let (directory, entry) = last.make(shared, self.part.name(), touched)?;
        let linked = self.part.file().link_to(directory, entry);
        linked.map(drop).map_err(|errno| self.io(shared, "rename a finished part to", errno))
    }

    /// Removes the marker of the object that this one replaces.
    fn retire_marker(
        &mut self,
        shared: &Shared,
        last: &mut LastDirectory,
        retired: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), StoreError> {
        if self.part.file().is_moved() {
            return Ok(());
        }
        let removed = last
            .open(shared, self.part.name())
            .and_then(|(directory, entry)| remove_entry(directory, &marker_name(entry)))
            .map_err(|errno| self.io(shared, "remove the old marker of", errno))?;
        if removed {
            note(retired, self.parent());
        }
        Ok(())
    }

    fn rename_object(
        &mut self,
        shared: &Shared,
        last: &mut LastDirectory,
        touched: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), StoreError> {
        if !self.part.file().is_moved() {
            let (directory, entry) = last.make(shared, self.part.name(), touched)?;
            self.part
                .file()
                .rename_to(directory, entry)
                .map_err(|errno| self.io(shared, "rename a finished part to", errno))?;
        }
        note(touched, self.parent());
        Ok(())
    }

    fn rename_marker(
        &mut self,
        shared: &Shared,
        last: &mut LastDirectory,
        marked: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let (directory, entry) =
            last.open(shared, self.part.name()).map_err(|errno| self.io(shared, "open the directory of", errno))?;
        if let Some(marker) = &self.marker {
            marker
                .rename_to(directory, &marker_name(entry))
                .map_err(|errno| self.io(shared, "write the marker of", errno))?;
        }
        note(marked, self.parent());
        Ok(())
    }

    /// The outcome. A marker that stands but may not be durable is taken back.
    fn finish(self, shared: &Shared) -> Result<(), StoreError> {
        // Or one stands that speaks of another object.
        if self.outcome.is_err() && self.part.file().is_moved() {
            let (parent, entry) = resolve::split(self.part.name().as_bytes());
            if let Ok(directory) = resolve::open_directory(shared.dir.as_fd(), parent, Links::Follow) {
                // The failure is reported already, and this one has the same cause.
                let _ = remove_entry(directory.as_fd(), &marker_name(entry));
            }
        }
        self.outcome
    }

    /// Its directory.
    fn parent(&self) -> &[u8] {
        resolve::split(self.part.name().as_bytes()).0
    }

    fn io(&self, shared: &Shared, operation: &'static str, errno: Errno) -> StoreError {
        StoreError::io(&shared.path, Some(self.part.name()), operation, errno)
    }
}

/// The directory that one step was last taken in: most objects of a batch share it.
#[derive(Default)]
pub(super) struct LastDirectory(Option<(Vec<u8>, OwnedFd)>);

impl LastDirectory {
    /// Opens the directory of an object, making it as needed, and the object's name in it.
    fn make<'n>(
        &mut self,
        shared: &Shared,
        name: &'n ObjectName,
        touched: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(BorrowedFd<'_>, &'n [u8]), StoreError> {
        let (parent, entry) = resolve::split(name.as_bytes());
        if !self.is(parent) {
            let mut made = Vec::new();
            let directory = shared.make_parent(name, &mut made);
            touched.extend(made);
            self.0 = Some((parent.to_vec(), directory?.0));
        }
        Ok((self.fd(), entry))
    }

    /// The same where it stands.
    pub(super) fn open<'n>(
        &mut self,
        shared: &Shared,
        name: &'n ObjectName,
    ) -> nix::Result<(BorrowedFd<'_>, &'n [u8])> {
        let (parent, entry) = resolve::split(name.as_bytes());
        if !self.is(parent) {
            self.0 = Some((parent.to_vec(), resolve::open_directory(shared.dir.as_fd(), parent, Links::Follow)?));
        }
        Ok((self.fd(), entry))
    }

    fn is(&self, path: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|(last, _)| last == path)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("it was just opened").1.as_fd()
    }
}

/// Writes a part's marker under a private name or none.
fn write_marker(shared: &Arc<Shared>, part: &Part) -> Result<PrivateFile, StoreError> {
    let marker = PrivateFile::create_unnamed(shared, part.name())?;
    let text = Marker::now(part.size(), part.root().or_else(|| part.seen_root())).to_text();
    // Less than a page: it is written at once or not at all.
    match pwrite(&marker, text.as_bytes(), 0) {
        Ok(written) if written == text.len() => Ok(marker),
        Ok(_) => Err(shared.full(part.name(), part.size(), Errno::ENOSPC)),
        Err(errno @ (Errno::ENOSPC | Errno::EDQUOT)) => Err(shared.full(part.name(), part.size(), errno)),
        Err(errno) => Err(StoreError::io(&shared.path, Some(part.name()), "write the marker of", errno)),
    }
}

/// Most objects of a batch share their directory.
fn note(directories: &mut BTreeSet<Vec<u8>>, path: &[u8]) {
    if !directories.contains(path) {
        directories.insert(path.to_vec());
    }
}

/// Whether an object lies in `directory` or in one below it; the empty path is the root.
fn is_below(name: &[u8], directory: &[u8]) -> bool {
    directory.is_empty() || name.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}
