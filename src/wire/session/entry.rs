//! Entries of a tree, as `FILE_INFO` tells them: what a [`FileInfo`] must hold to be an [`Entry`].

use super::{FileInfo, Xattrs};
use crate::limits;
use crate::units::{ByteCount, Entry, FileId, Kind, Owner, PathError, TreePath};
use crate::wire::Excerpt;

/// The bits of `st_mode` that tell what an entry is, and their values (inode(7)).
const KIND_BITS: u16 = 0o170000;
const REGULAR: u16 = 0o100000;
const DIRECTORY: u16 = 0o040000;
const SYMLINK: u16 = 0o120000;
/// The others: permissions.
const PERMISSION_BITS: u16 = 0o7777;

/// Why a `FILE_INFO` tells of nothing that could be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Its path leads out of the tree, or is no path.
    #[error("file {id}: {found} is no path of an entry: {source}", id = file.0)]
    Path {
        /// Which.
        file: FileId,
        /// How the path starts.
        found: Excerpt,
        /// What is wrong with it.
        source: PathError,
    },
    /// It is a hard link to something that cannot be one of the entries.
    #[error("file {id}: a hard link to {found}, which is no path of an entry: {source}", id = file.0)]
    Link {
        /// Which.
        file: FileId,
        /// How the path of the other one starts.
        found: Excerpt,
        /// What is wrong with it.
        source: PathError,
    },
    /// It is a device, a pipe, a socket or nothing that exists.
    #[error("file {id}: mode {mode:06o} is neither a regular file's, a directory's nor a symbolic link's", id = file.0)]
    Mode {
        /// Which.
        file: FileId,
        /// Its mode.
        mode: u16,
    },
    /// A symbolic link that says nothing, or more than can be written.
    #[error("file {id}: a symbolic link says 1 to {max} bytes, this one {bytes}", max = limits::NAME_BYTES_MAX, id = file.0)]
    Target {
        /// Which.
        file: FileId,
        /// How many bytes it says.
        bytes: usize,
    },
    /// It has content, and is no file.
    #[error("file {id}: {size} of content in what is no regular file of its own", id = file.0)]
    Size {
        /// Which.
        file: FileId,
        /// So much.
        size: ByteCount,
    },
    /// A directory that is a hard link, or the top of the transfer as one.
    #[error("file {id}: a hard link that is no regular file", id = file.0)]
    HardLink {
        /// Which.
        file: FileId,
    },
    /// It belongs to a user without a group, or the other way round.
    #[error("file {id}: uid and gid come together", id = file.0)]
    Owner {
        /// Which.
        file: FileId,
    },
}

impl<'a> FileInfo<'a> {
    /// What is told of `entry`.
    pub fn of_entry(entry: &'a Entry, file: FileId) -> Self {
        let owner = entry.owner.as_ref();
        let mut info = Self {
            file,
            mode: entry.mode & PERMISSION_BITS,
            ctime: entry.ctime,
            mtime: entry.mtime,
            atime: entry.atime,
            path: entry.path.as_bytes(),
            uid: owner.map(|owner| owner.uid),
            gid: owner.map(|owner| owner.gid),
            user: owner.and_then(|owner| owner.user.as_deref()),
            group: owner.and_then(|owner| owner.group.as_deref()),
            hash: entry.hash,
            is_sparse: entry.is_sparse,
            unreadable: entry.unreadable.as_deref(),
            xattrs: Xattrs::new(&entry.xattrs),
            ..Self::empty()
        };
        match &entry.kind {
            Kind::File => {
                info.mode |= REGULAR;
                info.size = entry.size;
            }
            Kind::Directory => info.mode |= DIRECTORY,
            Kind::Symlink(target) => {
                info.mode |= SYMLINK;
                info.target = Some(target);
            }
            Kind::HardLink(other) => {
                info.mode |= REGULAR;
                info.link = Some(other.as_bytes());
            }
        }
        info
    }

    /// The entry that is told of. Its path stays inside the tree, and only a regular file has content; a mode that
    /// tells only permissions is a regular file's, as the seed has it.
    pub fn to_entry(&self) -> Result<Entry, EntryError> {
        let file = self.file;
        let path = TreePath::new(self.path);
        let path = path.map_err(|source| EntryError::Path { file, found: Excerpt::of(self.path, 0), source })?;
        let kind = self.kind()?;
        if kind != Kind::File && self.size != ByteCount(0) {
            return Err(EntryError::Size { file, size: self.size });
        }
        let owner = match (self.uid, self.gid) {
            (None, None) => None,
            (Some(uid), Some(gid)) => {
                Some(Owner { uid, gid, user: self.user.map(Into::into), group: self.group.map(Into::into) })
            }
            _ => return Err(EntryError::Owner { file }),
        };
        let xattrs = self.xattrs.iter().map(|(name, value)| (Box::from(name), Box::from(value)));
        Ok(Entry {
            path,
            kind,
            mode: self.mode & PERMISSION_BITS,
            size: self.size,
            mtime: self.mtime,
            atime: self.atime,
            ctime: self.ctime,
            owner,
            xattrs: xattrs.collect(),
            hash: self.hash,
            is_sparse: self.is_sparse,
            unreadable: self.unreadable.map(Into::into),
        })
    }

    fn kind(&self) -> Result<Kind, EntryError> {
        let file = self.file;
        match (self.mode & KIND_BITS, self.link, self.target) {
            (REGULAR | 0, Some(other), None) => match TreePath::new(other) {
                Ok(other) if other.is_top() => Err(EntryError::HardLink { file }),
                Ok(other) => Ok(Kind::HardLink(other)),
                Err(source) => Err(EntryError::Link { file, found: Excerpt::of(other, 0), source }),
            },
            (_, Some(_), _) => Err(EntryError::HardLink { file }),
            (REGULAR | 0, ..) => Ok(Kind::File),
            (DIRECTORY, ..) => Ok(Kind::Directory),
            (SYMLINK, _, target) => match target.unwrap_or_default() {
                target if target.is_empty() || target.len() > limits::NAME_BYTES_MAX => {
                    Err(EntryError::Target { file, bytes: target.len() })
                }
                target => Ok(Kind::Symlink(target.into())),
            },
            _ => Err(EntryError::Mode { file, mode: self.mode }),
        }
    }
}
