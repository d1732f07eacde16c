//! What is told of one entry of a directory tree: where it lies, what it is, and the attributes that go with it.
//!
//! A [`TreePath`] cannot lead out of the directory that it is relative to, so that none has to be checked again.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::{ByteCount, FileTime, Root256, write_escaped};
use crate::limits;

/// Path of an entry relative to the top of a tree: `/`-separated bytes, never absolute, without empty, `.` or `..`
/// components and without NUL, at most [`limits::NAME_BYTES_MAX`] bytes, each component at most
/// [`limits::COMPONENT_BYTES_MAX`]. The empty path is the top itself. A clone shares the bytes.
///
/// The order is that of the bytes, so that a directory comes before what is in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Arc<[u8]>);

/// Why bytes are not a path in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// More than [`limits::NAME_BYTES_MAX`] bytes.
    #[error("the path has {0} bytes, more than the {max} allowed", max = limits::NAME_BYTES_MAX)]
    TooLong(usize),
    /// A component of more than [`limits::COMPONENT_BYTES_MAX`] bytes.
    #[error("a component of the path has {0} bytes, more than the {max} allowed", max = limits::COMPONENT_BYTES_MAX)]
    ComponentTooLong(usize),
    /// Starts with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// Two `/` in a row, or one at the end.
    #[error("the path has an empty component")]
    EmptyComponent,
    /// A `.` or `..` component.
    #[error("the path has a '.' or '..' component")]
    DotComponent,
    /// Contains a NUL byte.
    #[error("the path contains a NUL byte")]
    Nul,
}

impl TreePath {
    /// Checks `bytes` and keeps a copy of them.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.len() > limits::NAME_BYTES_MAX {
            return Err(PathError::TooLong(bytes.len()));
        }
        if bytes.first() == Some(&b'/') {
            return Err(PathError::Absolute);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        if !bytes.is_empty() {
            bytes.split(|&b| b == b'/').try_for_each(check_component)?;
        }
        Ok(Self(bytes.into()))
    }

    /// The top of a tree: the empty path.
    pub fn top() -> Self {
        Self(Arc::from(&[][..]))
    }

    /// The bytes, as they are on disk.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the top itself.
    pub fn is_top(&self) -> bool {
        self.0.is_empty()
    }

    /// What `path`, itself checked like any other, is called when it lies below this one.
    pub fn join(&self, path: &[u8]) -> Result<Self, PathError> {
        if self.is_top() {
            return Self::new(path);
        }
        if path.is_empty() {
            return Ok(self.clone());
        }
        if path[0] == b'/' {
            return Err(PathError::Absolute);
        }
        let length = self.0.len() + 1 + path.len();
        if length > limits::NAME_BYTES_MAX {
            return Err(PathError::TooLong(length));
        }
        if path.contains(&0) {
            return Err(PathError::Nul);
        }
        path.split(|&b| b == b'/').try_for_each(check_component)?;
        let mut joined = Vec::with_capacity(length);
        joined.extend_from_slice(&self.0);
        joined.push(b'/');
        joined.extend_from_slice(path);
        Ok(Self(joined.into()))
    }

    /// The same for a path that is checked already; only the length can be refused.
    pub fn append(&self, path: &Self) -> Result<Self, PathError> {
        if self.is_top() { Ok(path.clone()) } else { self.join(path.as_bytes()) }
    }

    /// The directory that it lies in; `None` for the top.
    pub fn parent(&self) -> Option<Self> {
        (!self.is_top()).then(|| Self(self.split().0.into()))
    }

    /// Its last component; empty for the top.
    pub fn name(&self) -> &[u8] {
        self.split().1
    }

    /// The path of its directory (empty for the top) and its last component, as bytes.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0),
        }
    }
}

impl Borrow<[u8]> for TreePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_top() { f.write_str(".") } else { write_escaped(f, &self.0) }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, and what it says: any bytes but NUL, never followed.
    Symlink(Box<[u8]>),
    /// Another name of a regular file that was told of before under this path.
    HardLink(TreePath),
}

/// Whom an entry belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The user's name at the sender, where it is known and wanted.
    pub user: Option<Box<str>>,
    /// The group's name, likewise.
    pub group: Option<Box<str>>,
}

/// An extended attribute: its name and its value.
pub type Xattr = (Box<[u8]>, Box<[u8]>);

/// One entry of a tree and its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub path: TreePath,
    /// What it is.
    pub kind: Kind,
    /// Its permissions: the lowest twelve bits of `st_mode`, no others.
    pub mode: u16,
    /// Length of a regular file; zero of everything else.
    pub size: ByteCount,
    /// When its content was last changed.
    pub mtime: FileTime,
    /// When it was last read.
    pub atime: FileTime,
    /// When it or its attributes were last changed; cannot be set, and is told for information.
    pub ctime: FileTime,
    /// Whom it belongs to, where that is wanted.
    pub owner: Option<Owner>,
    /// Extended attributes, in the order of names.
    pub xattrs: Vec<Xattr>,
    /// BLAKE3 of a regular file's content, where that is wanted.
    pub hash: Option<Root256>,
    /// Whether a regular file takes less room than its length: it has holes.
    pub is_sparse: bool,
    /// In a dry run: why a regular file's content could not be sent.
    pub unreadable: Option<Box<str>>,
}

impl Entry {
    /// An entry of which only path and kind are known yet.
    pub fn new(path: TreePath, kind: Kind) -> Self {
        Self {
            path,
            kind,
            mode: 0,
            size: ByteCount(0),
            mtime: FileTime(0),
            atime: FileTime(0),
            ctime: FileTime(0),
            owner: None,
            xattrs: Vec::new(),
            hash: None,
            is_sparse: false,
            unreadable: None,
        }
    }

    /// What it takes to remember it, roughly, in bytes.
    pub fn weight(&self) -> usize {
        let other = match &self.kind {
            Kind::Symlink(target) => target.len(),
            Kind::HardLink(path) => path.as_bytes().len(),
            Kind::File | Kind::Directory => 0,
        };
        let unreadable = self.unreadable.as_ref().map_or(0, |reason| reason.len());
        limits::ENTRY_BYTES + self.path.as_bytes().len() + other + self.xattrs_weight() + unreadable
    }

    /// The same of its extended attributes alone.
    pub fn xattrs_weight(&self) -> usize {
        self.xattrs.iter().map(|(name, value)| name.len() + value.len() + limits::XATTR_BYTES).sum()
    }
}

fn check_component(component: &[u8]) -> Result<(), PathError> {
    match component {
        b"" => Err(PathError::EmptyComponent),
        b"." | b".." => Err(PathError::DotComponent),
        _ if component.len() > limits::COMPONENT_BYTES_MAX => Err(PathError::ComponentTooLong(component.len())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> TreePath {
        TreePath::new(bytes).expect("valid")
    }

    #[test]
    fn paths_that_could_leave_a_tree_are_refused() {
        let check = |bytes: &[u8], expected: Result<(), PathError>| {
            assert_eq!(TreePath::new(bytes).map(|_| ()), expected, "{}", bytes.escape_ascii());
            // Below another path the same is refused.
            let joined = path(b"x").join(bytes).map(|_| ());
            assert_eq!(joined, expected, "x + {}", bytes.escape_ascii());
        };
        check(b"", Ok(()));
        check(b"a", Ok(()));
        check(b"a/b.success", Ok(()));
        check(b"\x01\xff\n/ ", Ok(()));
        check(b"...", Ok(()));
        check(&[b'a'; 255], Ok(()));
        check(&[b'a'; 256], Err(PathError::ComponentTooLong(256)));
        check(b"/", Err(PathError::Absolute));
        check(b"/a", Err(PathError::Absolute));
        check(b"a/", Err(PathError::EmptyComponent));
        check(b"a//b", Err(PathError::EmptyComponent));
        check(b".", Err(PathError::DotComponent));
        check(b"a/../b", Err(PathError::DotComponent));
        check(b"a\0", Err(PathError::Nul));
    }

    #[test]
    fn a_path_is_as_long_as_the_system_takes() {
        let longest = &b"a/".repeat(2048)[..4095];
        assert_eq!(path(longest).as_bytes(), longest);
        assert_eq!(TreePath::new(&b"ab".repeat(2048)), Err(PathError::TooLong(4096)));
        assert_eq!(path(&longest[..4093]).join(b"b").map(|path| path.as_bytes().len()), Ok(4095));
        assert_eq!(path(&longest[..4093]).join(b"bc"), Err(PathError::TooLong(4096)));
    }

    #[test]
    fn a_path_has_a_directory_and_a_name() {
        let check = |bytes: &[u8], parent: Option<&[u8]>, name: &[u8]| {
            let path = path(bytes);
            assert_eq!(path.parent().as_ref().map(TreePath::as_bytes), parent);
            assert_eq!(path.name(), name);
        };
        check(b"", None, b"");
        check(b"a", Some(b""), b"a");
        check(b"a/b/c", Some(b"a/b"), b"c");
        assert_eq!(TreePath::top().join(b"a/b"), Ok(path(b"a/b")));
        assert_eq!(path(b"a").join(b""), Ok(path(b"a")));
        assert!(TreePath::top().is_top());
    }

    #[test]
    fn a_path_prints_without_control_bytes() {
        assert_eq!(path(b"a\x1b[31m\xffb/c").to_string(), "a\\u{1b}[31m\\xffb/c");
        assert_eq!(TreePath::top().to_string(), ".");
    }
}
