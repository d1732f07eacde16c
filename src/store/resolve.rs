//! Names to descriptors: every path below a root goes through here.
//!
//! `openat2` with RESOLVE_BENEATH makes the kernel refuse whatever would leave the directory, also while
//! others rename directories on the way (openat2(2)). Paths are relative, `/`-separated; the empty path
//! is the directory itself.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use super::part::errno_of;
use crate::limits;

/// What becomes of symbolic links that stay beneath the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Followed: a name given by a person or a peer.
    Follow,
    /// Refused anywhere in the path (ELOOP): the private directory, and the walk of a scan.
    Refuse,
    /// Refused, and so is whatever is mounted beneath the root (EXDEV): nothing can be renamed into that.
    RefuseMounts,
}

/// Opens `path` beneath `root`; EXDEV where it would lead out.
pub(super) fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlag, links: Links) -> nix::Result<OwnedFd> {
    let mut resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    match links {
        Links::Follow => {}
        Links::Refuse => resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS,
        Links::RefuseMounts => resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV,
    }
    let makes = flags.contains(OFlag::O_CREAT) || flags.contains(OFlag::O_TMPFILE);
    let mode = if makes { Mode::from_bits_truncate(0o666) } else { Mode::empty() };
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
    let path = if path.is_empty() { b"." } else { path };
    let mut tries = limits::RESOLVE_TRIES_MAX;
    loop {
        tries -= 1;
        match openat2(root, path, how) {
            // The kernel could not prove that the path stays beneath while something on it was renamed.
            Err(Errno::EAGAIN | Errno::EINTR) if tries > 0 => {}
            outcome => return outcome,
        }
    }
}

/// Opens the directory `path` so that it can be listed and flushed.
pub(super) fn open_directory(root: BorrowedFd<'_>, path: &[u8], links: Links) -> nix::Result<OwnedFd> {
    open_beneath(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, links)
}

/// Opens the directory `path`, making what is missing of it. The directories that got a new entry are
/// appended to `touched`: they must be flushed before the new ones are durable.
pub(super) fn make_directory(
    root: BorrowedFd<'_>,
    path: &[u8],
    links: Links,
    touched: &mut Vec<Vec<u8>>,
) -> nix::Result<OwnedFd> {
    match open_directory(root, path, links) {
        Err(Errno::ENOENT) => {}
        outcome => return outcome,
    }
    let mut above = open_directory(root, b"", links)?;
    let mut start = 0;
    loop {
        let end = path[start..].iter().position(|&b| b == b'/').map_or(path.len(), |length| start + length);
        match nix::sys::stat::mkdirat(above.as_fd(), &path[start..end], Mode::from_bits_truncate(0o777)) {
            Ok(()) => touched.push(path[..start.saturating_sub(1)].to_vec()),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        above = open_directory(root, &path[..end], links)?;
        if end == path.len() {
            return Ok(above);
        }
        start = end + 1;
    }
}

/// A path's directory (empty for the root) and its last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// The directories that a name lies in, outermost first, without the root.
pub(super) fn directories_of(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(slash, _)| &name[..slash])
}

/// `entry` within the directory `path`.
pub(super) fn join(path: &[u8], entry: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + 1 + entry.len());
    joined.extend_from_slice(path);
    if !path.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(entry);
    joined
}

/// Calls `visit` with each entry of a directory but `.` and `..`, in no order, until it breaks off. It gets a
/// descriptor of the directory to look at the entry with.
pub(super) fn list(
    directory: OwnedFd,
    mut visit: impl FnMut(BorrowedFd<'_>, &[u8], Option<Type>) -> ControlFlow<()>,
) -> nix::Result<()> {
    let handle = directory.try_clone().map_err(|error| errno_of(&error))?;
    for entry in Dir::from_fd(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && visit(handle.as_fd(), name, entry.file_type()).is_break() {
            break;
        }
    }
    Ok(())
}
