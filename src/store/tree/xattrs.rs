//! Extended attributes of open files: those of users always, those of security and trust where the process is
//! privileged. What the system keeps for itself (`system.`) is left alone.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use xattr::FileExt as _;

use crate::units::Xattr;

/// What a change of owner takes away (capabilities(7)).
pub(super) const CAPABILITIES: &[u8] = b"security.capability";

/// The extended attributes of `file` that travel, in the order of names; none where the file system has none.
pub(super) fn read(file: &File, is_privileged: bool) -> io::Result<Vec<Xattr>> {
    let names = match file.list_xattr() {
        Err(error) if is_unsupported(&error) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names.filter(|name| travels(name.as_bytes(), is_privileged)) {
        // Removed since it was listed.
        if let Some(value) = file.get_xattr(&name)? {
            found.push((name.as_bytes().into(), value.into()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes the attributes of `file` those that are `wanted`, of which `have` are there. What cannot be set is told to
/// `refused`, the rest is set all the same.
pub(super) fn replace(
    file: &File,
    have: &[Xattr],
    wanted: &[Xattr],
    is_privileged: bool,
    mut refused: impl FnMut(&[u8], io::Error),
) {
    for (name, _) in have {
        if !wanted.iter().any(|(other, _)| other == name) {
            let _ = file.remove_xattr(OsStr::from_bytes(name)).map_err(|error| refused(name, error));
        }
    }
    for (name, value) in wanted.iter().filter(|(name, _)| travels(name, is_privileged)) {
        if !have.iter().any(|(other, held)| other == name && held == value) {
            let _ = file.set_xattr(OsStr::from_bytes(name), value).map_err(|error| refused(name, error));
        }
    }
}

/// Whether `have` is what would be made of `wanted`.
pub(super) fn are_same(have: &[Xattr], wanted: &[Xattr], is_privileged: bool) -> bool {
    let mut wanted: Vec<_> = wanted.iter().filter(|(name, _)| travels(name, is_privileged)).collect();
    wanted.sort_unstable();
    have.iter().eq(wanted)
}

pub(super) fn travels(name: &[u8], is_privileged: bool) -> bool {
    // A name of NUL bytes is none, and one that is longer than XATTR_NAME_MAX the system refuses by itself.
    if name.contains(&0) {
        return false;
    }
    let is = |namespace: &[u8]| name.strip_prefix(namespace).is_some_and(|rest| !rest.is_empty());
    is(b"user.") || is_privileged && (is(b"security.") || is(b"trusted."))
}

/// Whether the file system has no extended attributes.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw) == Some(Errno::EOPNOTSUPP)
}
