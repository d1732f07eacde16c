//! A first look at many objects that were marked: at their lengths and those of their markers, and at nothing in them.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use super::commit::LastDirectory;
use super::marker::Marker;
use super::root::{Root, is_regular, marker_name};
use crate::units::{ByteCount, ObjectName};

/// Looks at objects of one root. It has the directory of the last one open: those of one directory are best looked at
/// one after the other.
pub struct Glance<'r> {
    root: &'r Root,
    last: LastDirectory,
}

impl Root {
    /// For a first look at what was marked.
    pub fn glance(&self) -> Glance<'_> {
        Glance { root: self, last: LastDirectory::default() }
    }
}

impl Glance<'_> {
    /// Whether an object of `size` bytes and its marker stand, the marker as long as one that this program writes: what
    /// is in them is not looked at. If not, [`Root::is_done`] tells what there is.
    pub fn stands(&mut self, name: &ObjectName, size: ByteCount) -> bool {
        let Ok((directory, entry)) = self.last.open(self.root.shared(), name) else { return false };
        length(directory, &marker_name(entry)).is_some_and(|length| Marker::is_length(size, length))
            && length(directory, entry) == Some(size.0)
    }
}

/// Of a regular file.
fn length(directory: BorrowedFd<'_>, entry: &[u8]) -> Option<u64> {
    let stat = fstatat(directory.as_fd(), entry, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    is_regular(&stat).then_some(stat.st_size as u64)
}

impl fmt::Debug for Glance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Glance").field("root", &self.root).finish_non_exhaustive()
    }
}
