//! What can go wrong in a store, with the root, the object, the operation and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::limits;
use crate::units::{ByteCount, NameError, ObjectName, Offset};

/// Why a name that is valid elsewhere cannot be an object of a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not an object's name at all.
    #[error("{0}")]
    Name(#[from] NameError),
    /// A component leaves no room for `.success` within what file systems take.
    #[error("a component of the name has {0} bytes, more than the {max} allowed", max = limits::NAME_COMPONENT_BYTES_MAX)]
    ComponentTooLong(usize),
    /// Directories nest too deep.
    #[error("the name has {0} components, more than the {max} allowed", max = limits::NAME_DEPTH_MAX)]
    TooDeep(usize),
    /// Lies in the private directory, or has a component that ends like a marker.
    #[error("the name is reserved: '{dir}/' is private and '*{suffix}' are markers", dir = limits::PRIVATE_DIR, suffix = limits::SUCCESS_SUFFIX)]
    Reserved,
    /// The entry stands in a listing but could not be looked at.
    #[error("cannot be read: {0}")]
    Unreadable(io::ErrorKind),
}

/// What a file system has too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// Room for bytes.
    #[error("{needed} needed, {free} free")]
    Bytes {
        /// For the whole object.
        needed: ByteCount,
        /// What it has left for this process.
        free: ByteCount,
    },
    /// Room for files, however short.
    #[error("no inodes are free (df -i)")]
    Inodes,
    /// What the user, the group or the project may have there.
    #[error("the quota there is used up")]
    Quota,
}

/// What went wrong in a root.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused an operation.
    #[error("{root}: cannot {operation}{}: {cause}{}", of_object(.object), hint(.cause))]
    Io {
        /// The root.
        root: PathBuf,
        /// The object concerned, where there is one.
        object: Option<ObjectName>,
        /// What was tried, as a verb.
        operation: &'static str,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The root's path is no directory.
    #[error("{root}: not a directory; name a directory that exists, or remove what is in its place")]
    NotDirectory {
        /// The root.
        root: PathBuf,
    },
    /// Another process writes this root.
    #[error("{root}: in use by {holder}; stop it, or name another directory")]
    Locked {
        /// The root.
        root: PathBuf,
        /// Who holds it, as far as is known.
        holder: String,
    },
    /// The root was opened for reading.
    #[error("{root}: opened for reading, nothing can be written to it")]
    ReadOnly {
        /// The root.
        root: PathBuf,
    },
    /// The disk (or a quota on it) has no room for the object.
    #[error(
        "{root}: no room for '{object}': {lack}; free space there: a node goes on by itself, a command when run again"
    )]
    Full {
        /// The root.
        root: PathBuf,
        /// The object that was to be written.
        object: ObjectName,
        /// What there is too little of.
        lack: Lack,
    },
    /// No such object.
    #[error("{root}: there is no '{object}'")]
    NotFound {
        /// The root.
        root: PathBuf,
        /// The name looked for.
        object: ObjectName,
    },
    /// The object was written to while it was being read.
    #[error("{root}: '{object}' was changed while it was being read; look again when nothing writes to it")]
    Changing {
        /// The root.
        root: PathBuf,
        /// The object.
        object: ObjectName,
    },
    /// A symbolic link on the name's way leads out of the root.
    #[error("{root}: '{object}' leads out of the root through a symbolic link; replace the link by what it points to")]
    Outside {
        /// The root.
        root: PathBuf,
        /// The name.
        object: ObjectName,
    },
    /// A directory, a device, a socket or a pipe.
    #[error("{root}: '{object}' is not a regular file")]
    NotRegular {
        /// The root.
        root: PathBuf,
        /// The name.
        object: ObjectName,
    },
    /// The name cannot be an object of a root.
    #[error("{root}: '{object}' is refused: {reason}")]
    BadName {
        /// The root.
        root: PathBuf,
        /// The name.
        object: ObjectName,
        /// Why.
        reason: Refusal,
    },
    /// A write would go beyond the object's size.
    #[error("{root}: a write of {length} at {offset} goes beyond the {size} of '{object}'")]
    BeyondEnd {
        /// The root.
        root: PathBuf,
        /// The object.
        object: ObjectName,
        /// Its size.
        size: ByteCount,
        /// Where the write began.
        offset: Offset,
        /// How long it was.
        length: ByteCount,
    },
    /// More files and directories than a flow's table holds.
    #[error("{root}: more than {max} files or directories; split it into several roots", max = limits::OBJECTS_MAX)]
    TooManyObjects {
        /// The root.
        root: PathBuf,
    },
    /// A peer's name cannot name its directory in a spool.
    #[error("{root}: '{peer}' cannot name a peer's directory here; use letters, digits, '-' and '_'")]
    BadPeer {
        /// The spool.
        root: PathBuf,
        /// The name.
        peer: String,
    },
    /// A directory that a spool would throw away has something in it that is not the spool's.
    #[error(
        "{directory}: is not empty, and not of this spool, which would remove what is in it; choose another `spool.path`, \
         or remove it"
    )]
    NotSpool {
        /// The directory.
        directory: PathBuf,
    },
    /// A directory that a spool would remove files from is somewhere else.
    #[error(
        "{directory}: is a symbolic link, and a spool removes what is in its directories; remove the link, or mount there \
         what it leads to"
    )]
    SpoolLink {
        /// The link.
        directory: PathBuf,
    },
    /// It is not known which directories a spool has made.
    #[error(
        "{file}: damaged, so that it is not known which directories are this spool's; remove it, and those of the peers \
         in the config are taken for that"
    )]
    SpoolListDamaged {
        /// The list of them.
        file: PathBuf,
    },
    /// Changes cannot be watched.
    #[error(
        "{root}: cannot watch more than {directories} directories; raise {setting}, until then it is rescanned from time to time"
    )]
    WatchLimit {
        /// The root.
        root: PathBuf,
        /// How many directories are watched already.
        directories: usize,
        /// What bounds it.
        setting: &'static str,
    },
}

/// What went wrong with an object that is being sent.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It was cut short after it was opened.
    #[error("'{name}' was {}", cut(*expected, *found))]
    Shrunk {
        /// The object.
        name: ObjectName,
        /// Its size when it was opened.
        expected: ByteCount,
        /// Its size now.
        found: ByteCount,
    },
    /// It was written to, or its attributes changed, after it was opened.
    #[error("'{name}' was changed while it was being sent")]
    Changed {
        /// The object.
        name: ObjectName,
    },
    /// The file system refused.
    #[error("{root}: cannot {operation} '{name}': {cause}{}", hint(.cause))]
    Io {
        /// The root it is in.
        root: PathBuf,
        /// The object.
        name: ObjectName,
        /// What was tried, as a verb.
        operation: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

/// How a file was cut short. It may have been written again before it was looked at.
fn cut(expected: ByteCount, found: ByteCount) -> String {
    let when = "while it was being sent";
    if found < expected {
        format!("cut short {when}: {expected} when opened, {found} now")
    } else {
        format!("changed {when}")
    }
}

impl StoreError {
    pub(super) fn io(root: &Path, object: Option<&ObjectName>, operation: &'static str, errno: Errno) -> Self {
        Self::Io { root: root.into(), object: object.cloned(), operation, cause: errno.into() }
    }

    /// For an operation on a name: says plainly when it is missing or leads out.
    pub(super) fn of_name(root: &Path, name: &ObjectName, operation: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => Self::NotFound { root: root.into(), object: name.clone() },
            Errno::EXDEV => Self::Outside { root: root.into(), object: name.clone() },
            _ => Self::io(root, Some(name), operation, errno),
        }
    }

    /// Whether it is about one object's name, and others may well be stored.
    pub fn is_of_name(&self) -> bool {
        use StoreError::{BadName, NotFound, NotRegular, Outside};
        matches!(self, NotFound { .. } | Outside { .. } | NotRegular { .. } | BadName { .. })
    }

    /// Of an object that was to get its name: whether it is about the place where that leads, and others may well get
    /// theirs.
    pub fn is_of_place(&self) -> bool {
        match self {
            Self::Io { object: Some(_), cause, .. } => matches!(
                Errno::from_raw(cause.raw_os_error().unwrap_or(0)),
                Errno::EACCES
                    | Errno::EPERM
                    | Errno::ENOENT
                    | Errno::ENOTDIR
                    | Errno::EISDIR
                    | Errno::EEXIST
                    | Errno::ENOTEMPTY
                    | Errno::ENAMETOOLONG
                    | Errno::ELOOP
                    | Errno::EINVAL
                    | Errno::EILSEQ
                    // Another file system is mounted there.
                    | Errno::EXDEV
                    | Errno::EROFS
            ),
            _ => self.is_of_name(),
        }
    }

    /// Whether bytes may be lost that were written: what was to be on disk is not.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Io { operation, .. } if operation.starts_with("flush"))
    }

    /// Whether the disk is full: worth waiting for, unlike other failures.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

/// Whether `name` may be an object of a root; every name from a peer, a scan or a configuration passes here.
pub(super) fn check_name(name: &ObjectName) -> Result<(), Refusal> {
    let mut depth = 0;
    for component in name.as_bytes().split(|&b| b == b'/') {
        if depth == 0 && component == limits::PRIVATE_DIR.as_bytes() {
            return Err(Refusal::Reserved);
        }
        check_component(component)?;
        depth += 1;
    }
    if depth > limits::NAME_DEPTH_MAX { Err(Refusal::TooDeep(depth)) } else { Ok(()) }
}

/// Whether `component` may be part of an object's name anywhere.
fn check_component(component: &[u8]) -> Result<(), Refusal> {
    if component.len() > limits::NAME_COMPONENT_BYTES_MAX {
        Err(Refusal::ComponentTooLong(component.len()))
    } else if component.ends_with(limits::SUCCESS_SUFFIX.as_bytes()) {
        Err(Refusal::Reserved)
    } else {
        Ok(())
    }
}

fn of_object(object: &Option<ObjectName>) -> String {
    object.as_ref().map(|name| format!(" '{name}'")).unwrap_or_default()
}

/// What a person can do about it, for the causes that have an answer.
pub(super) fn hint(cause: &io::Error) -> &'static str {
    match cause.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES) => {
            "; give the user that this runs as access to it, and see that no sandbox forbids openat2"
        }
        Some(Errno::EPERM) => {
            "; it belongs to another user, is immutable or append-only (lsattr), or a sandbox forbids it"
        }
        Some(Errno::EROFS) => {
            "; it is mounted read-only, or the service's unit does not grant it: supersyncd config dropin FILE"
        }
        Some(Errno::EMFILE | Errno::ENFILE) => "; raise the limit on open files (LimitNOFILE=)",
        Some(Errno::EIO) => "; the device fails, look at the kernel's log",
        Some(Errno::ENOSPC) => "; free space there, or inodes (df -i)",
        Some(Errno::EDQUOT) => "; free space there, or have the quota raised",
        Some(Errno::EXDEV) => "; a directory below the root is another file system, make that a root of its own",
        Some(Errno::ENOTDIR | Errno::EISDIR | Errno::ENOTEMPTY) => "; a file and a directory want the same name",
        Some(Errno::ENOSYS) => "; a Linux kernel of 5.6 or later is needed",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_collide_with_the_stores_own_are_refused() {
        let check = |name: &[u8], expected: Result<(), Refusal>| {
            let name = ObjectName::new(name).expect("valid");
            assert_eq!(check_name(&name), expected, "{name}");
        };
        check(b"a/b/c", Ok(()));
        check(b"a/.supersync/b", Ok(()));
        check(b".supersync2", Ok(()));
        check(b"a.success.bak", Ok(()));
        check(b".supersync", Err(Refusal::Reserved));
        check(b".supersync/lock", Err(Refusal::Reserved));
        check(b"a.success", Err(Refusal::Reserved));
        check(b"a.success/b", Err(Refusal::Reserved));
        check(&[b'a'; limits::NAME_COMPONENT_BYTES_MAX], Ok(()));
        let long = limits::NAME_COMPONENT_BYTES_MAX + 1;
        check(&vec![b'a'; long], Err(Refusal::ComponentTooLong(long)));
        check(&b"a/".repeat(limits::NAME_DEPTH_MAX)[..2 * limits::NAME_DEPTH_MAX - 1], Ok(()));
        let deep = limits::NAME_DEPTH_MAX + 1;
        check(&b"a/".repeat(deep)[..2 * deep - 1], Err(Refusal::TooDeep(deep)));
    }

    #[test]
    fn an_error_says_where_what_why_and_what_next() {
        let name = ObjectName::new(b"a/b").expect("valid");
        let error = StoreError::io(Path::new("/srv/x"), Some(&name), "open", Errno::EACCES);
        assert_eq!(
            error.to_string(),
            "/srv/x: cannot open 'a/b': Permission denied (os error 13); give the user that this runs as access to it, \
             and see that no sandbox forbids openat2"
        );
        // Nobody's access is too narrow there.
        let error = StoreError::io(Path::new("/srv/x"), Some(&name), "put in place", Errno::EPERM);
        assert!(error.to_string().contains("immutable or append-only (lsattr)"), "{error}");
        let check = |lack: Lack, expected: &str| {
            let full = StoreError::Full { root: "/srv/x".into(), object: name.clone(), lack };
            assert!(full.is_full());
            assert!(full.to_string().starts_with(&format!("/srv/x: no room for 'a/b': {expected}; ")), "{full}");
        };
        check(Lack::Bytes { needed: ByteCount(24), free: ByteCount(3) }, "24 bytes needed, 3 bytes free");
        check(Lack::Inodes, "no inodes are free (df -i)");
        check(Lack::Quota, "the quota there is used up");
    }
}
