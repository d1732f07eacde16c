//! What an exchange keeps between its traders: one root for each trader that objects come from.
//!
//! Objects are whole under their names, and neither flushed nor marked: an exchange that crashes fetches them
//! again, one that is restarted need not. The kernel's boot id tells the two apart. It stands in the
//! spool's private directory; when it is another one, or missing, what the spool holds is thrown away.
//! How much a spool may hold, and what goes first, is decided in `transfer`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{StoreError, check_name};
use super::part::errno_of;
use super::root::Root;
use super::scan::scan;
use crate::limits;
use crate::units::{ByteCount, FileTime, ObjectName};

/// Names one run of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootId(String);

impl BootId {
    /// From any text; white space around it does not count.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// As the kernel writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This boot's.
    pub fn current() -> io::Result<Self> {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| Self::new(&text))
    }
}

/// An exchange's spool, locked for this process.
#[derive(Debug)]
pub struct Spool {
    root: Root,
    peers: Vec<SpoolPeer>,
    wiped: bool,
}

/// What a spool holds from one peer.
#[derive(Debug)]
pub struct SpoolPeer {
    /// The trader that the objects come from.
    pub name: String,
    /// Where they are.
    pub root: Arc<Root>,
    /// The whole objects that were found at start, in the order of their names.
    pub kept: Vec<SpoolObject>,
}

/// A whole object in a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolObject {
    /// Its name.
    pub name: ObjectName,
    /// Its size.
    pub size: ByteCount,
    /// When it was last written; what arrived first is the first to go.
    pub last_use: FileTime,
}

impl Spool {
    /// Opens the spool in `path`, making it where it is missing, with a directory for each of `peers`.
    pub fn open(path: &Path, peers: &[String]) -> Result<Self, StoreError> {
        let boot = BootId::current().map_err(|error| {
            StoreError::io(path, None, "learn the kernel's boot id for the spool", errno_of(&error))
        })?;
        Self::open_in_boot(path, peers, &boot)
    }

    /// The same, in the boot that the caller names.
    pub fn open_in_boot(path: &Path, peers: &[String], boot: &BootId) -> Result<Self, StoreError> {
        for peer in peers {
            check_peer(path, peer)?;
        }
        let root = Root::create(path)?;
        let id_file = path.join(limits::PRIVATE_DIR).join("boot_id");
        let same_boot = fs::read_to_string(&id_file).is_ok_and(|text| BootId::new(&text) == *boot);
        if !same_boot {
            let io = |operation| move |error: io::Error| StoreError::io(path, None, operation, errno_of(&error));
            // Not trusted before everything of another boot is gone, also when this is interrupted.
            match fs::remove_file(&id_file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io("remove the boot id of the spool")(error));
                }
                _ => {}
            }
            wipe(path, peers).map_err(io("empty the spool of an earlier boot"))?;
            fs::write(&id_file, format!("{}\n", boot.0)).map_err(io("write the boot id of the spool"))?;
        }
        let peers = peers.iter().map(|peer| open_peer(path, peer)).collect::<Result<_, _>>()?;
        Ok(Self { root, peers, wiped: !same_boot })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// One for each peer, in the order they were asked for.
    pub fn peers(&self) -> &[SpoolPeer] {
        &self.peers
    }

    /// Whether it was emptied because it was of another boot, or new.
    pub fn was_wiped(&self) -> bool {
        self.wiped
    }

    /// What its file system has left.
    pub fn free_bytes(&self) -> Result<ByteCount, StoreError> {
        self.root.free_bytes()
    }
}

/// A peer's name must be one component, and neither hidden nor reserved.
fn check_peer(path: &Path, peer: &str) -> Result<(), StoreError> {
    let valid = !peer.contains('/')
        && !peer.starts_with('.')
        && ObjectName::new(peer.as_bytes()).is_ok_and(|name| check_name(&name).is_ok());
    if valid { Ok(()) } else { Err(StoreError::BadPeer { root: path.into(), peer: peer.to_owned() }) }
}

fn open_peer(path: &Path, peer: &str) -> Result<SpoolPeer, StoreError> {
    let root = Root::create(&path.join(peer))?;
    let kept = scan(&root)?
        .objects
        .into_iter()
        .map(|(name, stamp)| SpoolObject { name, size: stamp.size, last_use: stamp.mtime })
        .collect();
    Ok(SpoolPeer { name: peer.to_owned(), root: Arc::new(root), kept })
}

/// Removes what the spool's peers left. A directory is one of theirs when it is named so, or when it has a root's
/// private directory; anything else in the spool is not ours and stays.
fn wipe(path: &Path, peers: &[String]) -> io::Result<()> {
    let mut theirs: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let named = peers.iter().any(|peer| name == peer.as_str());
        let is_root = entry.file_type()?.is_dir() && entry.path().join(limits::PRIVATE_DIR).is_dir();
        if name != limits::PRIVATE_DIR && (named || is_root) {
            theirs.push(entry.path());
        }
    }
    theirs.into_iter().try_for_each(empty)
}

/// Removes a tree; a symbolic link is removed itself, and a mount point is left behind empty.
fn empty(path: PathBuf) -> io::Result<()> {
    let removed = if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Offset;
    use std::io::IoSlice;

    fn peers() -> Vec<String> {
        vec!["trader1".to_owned(), "trader2".to_owned()]
    }

    fn keep(peer: &SpoolPeer, name: &str, bytes: &[u8]) {
        let name = ObjectName::new(name.as_bytes()).expect("valid");
        let part = peer.root.create_part(&name, ByteCount(bytes.len() as u64)).expect("a part");
        part.write_vectored_at(&[IoSlice::new(bytes)], Offset(0)).expect("written");
        part.keep_unsynced().expect("kept");
    }

    #[test]
    fn a_spool_survives_a_restart_and_is_emptied_by_a_reboot() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("spool");
        let (monday, tuesday) = (BootId::new("monday\n"), BootId::new("tuesday\n"));
        let spool = Spool::open_in_boot(&path, &peers(), &monday).expect("new");
        assert!(spool.was_wiped());
        keep(&spool.peers()[0], "a/one", b"11");
        keep(&spool.peers()[1], "two", b"222");
        fs::write(path.join("README"), "not ours").expect("written");
        drop(spool);

        let spool = Spool::open_in_boot(&path, &peers(), &monday).expect("the same boot");
        assert!(!spool.was_wiped());
        let kept: Vec<_> = spool.peers().iter().map(|peer| peer.kept.clone()).collect();
        assert_eq!((kept[0].len(), kept[1].len()), (1, 1));
        assert_eq!((kept[0][0].name.as_bytes(), kept[0][0].size), (&b"a/one"[..], ByteCount(2)));
        assert_eq!((kept[1][0].name.as_bytes(), kept[1][0].size), (&b"two"[..], ByteCount(3)));
        drop(spool);

        // A peer that is not configured any more leaves nothing behind either.
        let spool = Spool::open_in_boot(&path, &peers()[..1], &tuesday).expect("another boot");
        assert!(spool.was_wiped());
        assert!(spool.peers()[0].kept.is_empty());
        assert!(!path.join("trader1/a").exists());
        assert!(!path.join("trader2").exists());
        assert!(path.join("README").exists());
        drop(spool);

        let spool = Spool::open_in_boot(&path, &peers(), &tuesday).expect("the same boot");
        assert!(!spool.was_wiped());
    }

    #[test]
    fn an_evicted_object_leaves_no_directories() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::open(dir.path(), &peers()).expect("this boot");
        let peer = &spool.peers()[0];
        keep(peer, "a/b/c/one", b"1");
        keep(peer, "a/two", b"22");
        let remove = |name: &str| peer.root.remove(&ObjectName::new(name.as_bytes()).expect("valid")).expect("removed");
        remove("a/b/c/one");
        assert!(!dir.path().join("trader1/a/b").exists());
        assert!(dir.path().join("trader1/a/two").exists());
        remove("a/two");
        remove("a/two");
        assert!(!dir.path().join("trader1/a").exists());
        assert!(dir.path().join("trader1").exists());
    }

    #[test]
    fn a_spool_has_one_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Spool::open(dir.path(), &peers()).expect("free");
        let second = Spool::open(dir.path(), &peers());
        assert!(matches!(second, Err(StoreError::Locked { .. })), "{second:?}");
        drop(first);
        Spool::open(dir.path(), &peers()).expect("free again");
    }

    #[test]
    fn peers_that_cannot_name_a_directory_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        for peer in ["", "..", ".supersync", "a/b", "/", "x.success", "nul\0"] {
            let outcome = Spool::open(dir.path(), &[peer.to_owned()]);
            assert!(matches!(outcome, Err(StoreError::BadPeer { .. })), "{peer:?}: {outcome:?}");
        }
    }
}
