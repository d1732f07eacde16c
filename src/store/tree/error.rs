//! What can go wrong with an entry of a tree: where, at what, what the system said, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::super::error::{Lack, SourceError, StoreError, hint};
use crate::limits;
use crate::units::{ByteCount, PathError, TreePath};

/// What went wrong in a tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The file system refused an operation.
    #[error("{root}: cannot {operation} '{path}': {cause}{}", hint(.cause))]
    Io {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The entry.
        path: TreePath,
        /// What was tried, as a verb.
        operation: &'static str,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The disk (or a quota on it) has no room for the entry.
    #[error("{root}: no room for '{path}': {lack}; free space there and go on")]
    Full {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The entry.
        path: TreePath,
        /// What there is too little of.
        lack: Lack,
    },
    /// The directory as a whole cannot serve.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file was written to, replaced or cut short since it was listed.
    #[error("{root}: '{path}' was changed while it was being sent; send it again when nothing writes to it")]
    Changed {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The entry.
        path: TreePath,
    },
    /// A symbolic link stands where a directory was, or is to be.
    #[error("{root}: a symbolic link is on the way to '{path}'; replace it by a directory")]
    ThroughLink {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The entry.
        path: TreePath,
    },
    /// A symbolic link on the way leads out of the directory.
    #[error("{root}: a symbolic link on the way to '{path}' leads out of it")]
    LeadsOut {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// What was to be sent.
        path: TreePath,
    },
    /// A directory that is not empty stands where something else is to be.
    #[error(
        "{root}: '{path}' is a directory that is not empty, where a {wanted} is to be; remove it, or let extraneous entries be deleted (--delete)"
    )]
    InTheWay {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The entry.
        path: TreePath,
        /// What is to be there.
        wanted: &'static str,
    },
    /// What comes is to land in something that is no directory.
    #[error("{root}: '{path}' is a {found}, and what comes lands in a directory; remove it, or name another place")]
    NoDirectory {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// Where it is to land.
        path: TreePath,
        /// What stands there.
        found: &'static str,
    },
    /// In a dry run the rules for what is left out are not those that will hold.
    #[error("{root}: what would be deleted in '{path}' cannot be told before its {file} has come", file = limits::IGNORE_FILE)]
    Unruled {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The directory.
        path: TreePath,
    },
    /// The path cannot be an entry of the tree.
    #[error("{root}: '{path}' is refused: {reason}")]
    Refused {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The entry.
        path: TreePath,
        /// Why.
        reason: RefusedPath,
    },
    /// The file that an entry is to be another name of is not there as it was sent.
    #[error("{root}: '{path}' cannot be linked to '{target}', which is not there as it was sent; send both again")]
    NoLinkTarget {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The entry.
        path: TreePath,
        /// What it is to be a link to.
        target: TreePath,
    },
    /// The file system, or what this process may do, has no place for an extended attribute.
    #[error("not all extended attributes could be set, the first of them '{name}' of '{path}': {cause}")]
    Xattr {
        /// The entry, in the transfer.
        path: TreePath,
        /// The attribute.
        name: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A write would go beyond the file's size.
    #[error("{root}: a write beyond the {size} of '{path}'")]
    BeyondEnd {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The entry.
        path: TreePath,
        /// Its size.
        size: ByteCount,
    },
    /// The file was to be made final while some of it had not come.
    #[error("{root}: {missing} of '{path}' have not come")]
    NotWhole {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The entry.
        path: TreePath,
        /// How many bytes lack.
        missing: ByteCount,
    },
    /// An earlier session had begun the file, and what there was of it is not what the sender has.
    #[error("{root}: what was here of '{path}' from an earlier run was damaged, and is thrown away; send it again")]
    Damaged {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The entry.
        path: TreePath,
    },
    /// Its sender could not send it, in its own words.
    #[error("{reason}")]
    Unsent {
        /// Why.
        reason: Box<str>,
    },
    /// Another session brings the same file in, and has some of it.
    #[error("{root}: another session is receiving '{path}'; try again when that is over")]
    Busy {
        /// The directory that the path is relative to.
        root: PathBuf,
        /// The entry.
        path: TreePath,
    },
    /// No file of that number is on its way in this batch.
    #[error("no file with the number {0} is on its way")]
    UnknownFile(u16),
    /// More than one session's tables hold.
    #[error("{root}: more than {max} {what}; send the tree in several sessions")]
    TooMany {
        /// The tree's directory.
        root: PathBuf,
        /// The bound.
        max: usize,
        /// Of what.
        what: &'static str,
    },
    /// More than all sessions' tables hold.
    #[error("{root}: the sessions of this node remember {max} bytes of entries; try again when others have ended")]
    Crowded {
        /// The tree's directory.
        root: PathBuf,
        /// The bound.
        max: usize,
    },
    /// A line among the rules is not a pattern.
    #[error("the rule '{line}' is not a pattern: {reason}")]
    Rule {
        /// The line.
        line: String,
        /// Why.
        reason: String,
    },
}

/// Why a path that is valid elsewhere is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedPath {
    /// It is not a path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It lies in the directory for unfinished files.
    #[error("the name is reserved: '{dir}/' is private", dir = limits::PRIVATE_DIR)]
    Reserved,
    /// It is the top of the transfer, and no directory.
    #[error("the top of a tree is a directory")]
    Top,
}

impl TreeError {
    /// What an operation on `path` came to.
    pub(super) fn of(root: &Path, path: &TreePath, operation: &'static str, errno: Errno) -> Self {
        let (root, path) = (root.to_path_buf(), path.clone());
        match errno {
            Errno::ELOOP => Self::ThroughLink { root, path },
            _ => Self::Io { root, path, operation, cause: errno.into() },
        }
    }

    /// A failure of the store's, told of the entry that it concerns.
    pub(super) fn of_store(path: &TreePath, error: StoreError) -> Self {
        match error {
            StoreError::Io { root, object: Some(_), operation, cause } => {
                Self::Io { root, path: path.clone(), operation: plain(operation), cause }
            }
            StoreError::Full { root, lack, .. } => Self::Full { root, path: path.clone(), lack },
            StoreError::BeyondEnd { root, size, .. } => Self::BeyondEnd { root, path: path.clone(), size },
            StoreError::Changing { root, .. } => Self::Changed { root, path: path.clone() },
            error => Self::Store(error),
        }
    }

    /// The same of a file that is being read.
    pub(super) fn of_source(root: &Path, path: &TreePath, error: SourceError) -> Self {
        let (root, path) = (root.to_path_buf(), path.clone());
        match error {
            SourceError::Shrunk { .. } | SourceError::Changed { .. } => Self::Changed { root, path },
            SourceError::Io { operation, cause, .. } => Self::Io { root, path, operation, cause },
        }
    }

    /// Whether the disk is full: that concerns all that is still to come.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Store(error) => error.is_full(),
            _ => false,
        }
    }
}

/// The store's verbs end in a preposition where it names an object; here the same verb stands before a path.
fn plain(operation: &'static str) -> &'static str {
    if operation == "make a part of" { "make a file for" } else { operation }
}
