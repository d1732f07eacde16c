//! Objects are taken away, durably and in groups: the reverse of a commit.
//!
//! After a crash at any instant a marker stands only beside the object that it speaks of: the markers of the whole
//! batch go first, their directories are flushed, then the objects go, and the directories that are empty then.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::unistd::fsync;

use super::error::StoreError;
use super::resolve::{self, Links};
use super::root::{Root, Shared, marker_name, remove_entry};
use crate::units::ObjectName;

type Outcome = (ObjectName, Result<(), StoreError>);

impl Root {
    /// Removes objects with their markers, and the directories that are empty then; nothing to remove is fine. Blocks
    /// until the disk has that. After an `Err` the object is there or not, and its marker never without it.
    pub fn remove_batch(&self, names: Vec<ObjectName>) -> Vec<(ObjectName, Result<(), StoreError>)> {
        let shared = self.shared();
        let mut outcomes: Vec<Outcome> = names
            .into_iter()
            .map(|name| {
                let checked = shared.check(&name).and_then(|()| shared.writer().map(drop));
                (name, checked)
            })
            .collect();
        let Ok(mut durable) = shared.hold_tree() else { return outcomes };
        remove_all(shared, &mut outcomes, marker_name);
        let touched = remove_all(shared, &mut outcomes, <[u8]>::to_vec);
        for directory in &touched {
            shared.prune(directory, &mut durable);
        }
        // A directory that went is flushed by the one above it that stays.
        let left = touched.iter().filter_map(|directory| nearest(shared, directory)).collect::<BTreeSet<_>>();
        sync(shared, &left, &mut outcomes);
        outcomes
    }
}

/// Unlinks `entry_of` the last component of each name that nothing failed for, and flushes the directories concerned.
fn remove_all(shared: &Shared, outcomes: &mut [Outcome], entry_of: fn(&[u8]) -> Vec<u8>) -> BTreeSet<Vec<u8>> {
    let mut touched = BTreeSet::new();
    for (name, outcome) in outcomes.iter_mut().filter(|(_, outcome)| outcome.is_ok()) {
        let (parent, entry) = resolve::split(name.as_bytes());
        let removed = match resolve::open_directory(shared.dir.as_fd(), parent, Links::Follow) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            opened => opened.and_then(|directory| remove_entry(directory.as_fd(), &entry_of(entry))),
        };
        match removed {
            Ok(true) => drop(touched.insert(parent.to_vec())),
            Ok(false) => {}
            Err(errno) => *outcome = Err(StoreError::of_name(&shared.path, name, "remove", errno)),
        }
    }
    sync(shared, &touched, outcomes);
    touched
}

/// Flushes each of `directories` once; a failure is one of every object right in it.
fn sync(shared: &Shared, directories: &BTreeSet<Vec<u8>>, outcomes: &mut [Outcome]) {
    for path in directories {
        match resolve::open_directory(shared.dir.as_fd(), path, Links::Follow).and_then(fsync) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => {
                for (name, outcome) in outcomes.iter_mut().filter(|(_, outcome)| outcome.is_ok()) {
                    if resolve::split(name.as_bytes()).0 == path {
                        *outcome = Err(StoreError::io(&shared.path, Some(name), "flush the directory of", errno));
                    }
                }
            }
        }
    }
}

/// The directory above one that is gone, or above all those that are.
fn nearest(shared: &Shared, directory: &[u8]) -> Option<Vec<u8>> {
    let stands = |path: &[u8]| resolve::open_directory(shared.dir.as_fd(), path, Links::Follow).is_ok();
    let mut path = directory;
    while !stands(path) {
        if path.is_empty() {
            return None;
        }
        path = resolve::split(path).0;
    }
    (path != directory).then(|| path.to_vec())
}
