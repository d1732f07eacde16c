//! What an exchange keeps between its traders: one root for each trader that objects come from.
//!
//! Objects are whole under their names, and neither flushed nor marked: an exchange that crashes fetches them
//! again, one that is restarted need not. The kernel's boot id tells the two apart. It stands in the
//! spool's private directory; when it is another one, or missing, what the spool holds is thrown away.
//! Beside it stands a list of the directories that are the spool's: nothing else is ever thrown away, and a
//! directory that somebody else has put something into, or something else in place of, is refused.
//! How much a spool may hold, and what goes first, is decided in `transfer`.
//!
//! By its root it can be told of a kept object whether it is still what its trader has. The root that the object came
//! by stands in an extended attribute of its file, so that after a restart what is kept can be had before it has been
//! read; it is read then, beside all else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::fstat;
use xattr::FileExt as _;

use super::error::{StoreError, check_name};
use super::hash::hash_source;
use super::part::errno_of;
use super::resolve::{self, Links};
use super::root::Root;
use super::scan::scan;
use super::source::Stamp;
use crate::limits;
use crate::units::{ByteCount, FileTime, ObjectName, Root256};

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
        let private = path.join(limits::PRIVATE_DIR);
        let id_file = private.join("boot_id");
        let mut listed = match Listed::read(&private)? {
            // Of a version that kept no list.
            None if id_file.exists() => {
                let listed = Listed(peers.iter().cloned().collect());
                listed.write(&private)?;
                listed
            }
            listed => listed.unwrap_or_default(),
        };
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
            for peer in &listed.0 {
                if Standing::of(&root, peer)? == Standing::Private {
                    empty(&path.join(peer)).map_err(io("empty the spool of an earlier boot"))?;
                }
            }
            listed = Listed::default();
            fs::write(&id_file, format!("{}\n", boot.0)).map_err(io("write the boot id of the spool"))?;
        }
        listed.extend(&root, peers)?.write(&private)?;
        let peers = peers.iter().map(|peer| open_peer(&root, peer)).collect::<Result<_, _>>()?;
        Ok(Self { root, peers })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// One for each peer, in the order they were asked for.
    pub fn peers(&self) -> &[SpoolPeer] {
        &self.peers
    }

    /// What its file system has left.
    pub fn free_bytes(&self) -> Result<ByteCount, StoreError> {
        self.root.free_bytes()
    }
}

/// Where it stands by which root a file was kept: behind the file's length and time then, 8 bytes each, little-endian.
const ROOT_XATTR: &str = "user.supersync.root";

/// Notes by which root a file is kept that nobody writes to any more. Nothing is lost where the file system takes no
/// such note: the file is read at the next start.
pub(super) fn note_root(file: &impl AsFd, root: Root256) {
    let Ok(stamp) = fstat(file).map(|stat| Stamp::of(&stat)) else { return };
    if let Ok(file) = file.as_fd().try_clone_to_owned() {
        let _ = File::from(file).set_xattr(ROOT_XATTR, &[&noted(&stamp)[..], &root.0].concat());
    }
}

/// What shows whether a file was written to since.
fn noted(stamp: &Stamp) -> [u8; 16] {
    let mut noted = [0; 16];
    noted[..8].copy_from_slice(&stamp.size.0.to_le_bytes());
    noted[8..].copy_from_slice(&stamp.mtime.0.to_le_bytes());
    noted
}

impl Root {
    /// The root by which an object was kept, where that was noted and its file has not been written to since. What came
    /// in was not read for it: a disk may have lost some of it.
    pub fn noted_root(&self, name: &ObjectName) -> Option<Root256> {
        let source = self.open_source(name).ok()?;
        let file = File::from(source.as_fd().try_clone_to_owned().ok()?);
        let note = file.get_xattr(ROOT_XATTR).ok().flatten()?;
        let root = note.strip_prefix(&noted(&source.stamp())[..])?;
        root.try_into().ok().map(Root256)
    }

    /// Reads a kept object, and notes what it hashes to.
    pub fn read_root(&self, name: &ObjectName) -> Option<Root256> {
        let source = self.open_source(name).ok()?;
        let root = hash_source(&source).ok()?.root;
        note_root(&source, root);
        Some(root)
    }
}

/// A peer's name must be one component, and neither hidden nor reserved.
fn check_peer(path: &Path, peer: &str) -> Result<(), StoreError> {
    let valid = !peer.contains('/')
        && !peer.starts_with('.')
        && ObjectName::new(peer.as_bytes()).is_ok_and(|name| check_name(&name).is_ok());
    if valid { Ok(()) } else { Err(StoreError::BadPeer { root: path.into(), peer: peer.to_owned() }) }
}

fn open_peer(spool: &Root, peer: &str) -> Result<SpoolPeer, StoreError> {
    let root = spool.create_in(peer)?;
    let kept = scan(&root)?
        .objects
        .into_iter()
        .map(|(name, stamp)| SpoolObject { name, size: stamp.size, last_use: stamp.mtime })
        .collect();
    Ok(SpoolPeer { name: peer.to_owned(), root: Arc::new(root), kept })
}

/// The directories that a spool has made, by their peers' names.
#[derive(Default)]
struct Listed(BTreeSet<String>);

impl Listed {
    const FILE: &'static str = "peers";

    fn read(private: &Path) -> Result<Option<Self>, StoreError> {
        let file = private.join(Self::FILE);
        match fs::read(&file) {
            Ok(bytes) => {
                let text = String::from_utf8(bytes).ok();
                let text = text.filter(|text| text.lines().all(|peer| check_peer(private, peer).is_ok()));
                let text = text.ok_or(StoreError::SpoolListDamaged { file })?;
                Ok(Some(Self(text.lines().map(Into::into).collect())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(StoreError::io(private, None, "read the list of the spool's directories", errno_of(&error)))
            }
        }
    }

    /// With `peers`, whose directories must have nothing in them but what this spool has put there: one that is not
    /// listed yet is empty, and one that is has a private directory of its own, or is empty. Whatever else stands in
    /// their place, by a mount or a link, is somebody else's.
    fn extend(mut self, spool: &Root, peers: &[String]) -> Result<Self, StoreError> {
        for peer in peers {
            let directory = spool.path().join(peer);
            match Standing::of(spool, peer)? {
                Standing::Nothing => {}
                Standing::Private if self.0.contains(peer) => {}
                Standing::Private | Standing::Other => return Err(StoreError::NotSpool { directory }),
                Standing::Link => return Err(StoreError::SpoolLink { directory }),
            }
        }
        self.0.extend(peers.iter().cloned());
        Ok(self)
    }

    /// To be on disk before a directory is made: what is not listed is nobody's after a crash.
    fn write(&self, private: &Path) -> Result<(), StoreError> {
        let text: String = self.0.iter().flat_map(|peer| [peer, "\n"]).collect();
        let (file, fresh) = (private.join(Self::FILE), private.join("peers.new"));
        if fs::read_to_string(&file).is_ok_and(|found| found == text) {
            return Ok(());
        }
        let written = fs::write(&fresh, text).and_then(|()| File::open(&fresh)?.sync_all());
        let written = written.and_then(|()| fs::rename(&fresh, &file)).and_then(|()| File::open(private)?.sync_all());
        written.map_err(|error| {
            StoreError::io(private, None, "write the list of the spool's directories", errno_of(&error))
        })
    }
}

/// What stands in the place of a peer's directory.
#[derive(PartialEq, Eq)]
enum Standing {
    /// Nothing, or a directory with nothing in it.
    Nothing,
    /// A directory with a private directory in it, as a spool makes them.
    Private,
    /// A symbolic link.
    Link,
    /// Anything else.
    Other,
}

impl Standing {
    fn of(spool: &Root, peer: &str) -> Result<Self, StoreError> {
        let io = |errno| StoreError::io(spool.path(), None, "look at a directory of the spool", errno);
        let opened = match resolve::open_directory(spool.shared().dir.as_fd(), peer.as_bytes(), Links::Refuse) {
            Err(Errno::ENOENT) => return Ok(Self::Nothing),
            Err(Errno::ELOOP) => return Ok(Self::Link),
            Err(Errno::ENOTDIR) => return Ok(Self::Other),
            outcome => outcome.map_err(io)?,
        };
        let mut found = Self::Nothing;
        let listed = resolve::list(opened, |_, entry, _| {
            let is_private = entry == limits::PRIVATE_DIR.as_bytes();
            found = if is_private { Self::Private } else { Self::Other };
            if is_private { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        listed.map(|()| found).map_err(io)
    }
}

/// Removes a directory of the spool, and its private directory last: what is left where this is interrupted is still
/// known by that. A mount point is left behind empty.
fn empty(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != limits::PRIVATE_DIR {
            fs::remove_dir_all(entry.path())?;
        } else if !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
        }
    }
    match fs::remove_dir_all(path) {
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
        keep(&spool.peers()[0], "a/one", b"11");
        keep(&spool.peers()[1], "two", b"222");
        fs::write(path.join("README"), "not ours").expect("written");
        drop(spool);

        let spool = Spool::open_in_boot(&path, &peers(), &monday).expect("the same boot");
        let kept: Vec<_> = spool.peers().iter().map(|peer| peer.kept.clone()).collect();
        assert_eq!((kept[0].len(), kept[1].len()), (1, 1));
        assert_eq!((kept[0][0].name.as_bytes(), kept[0][0].size), (&b"a/one"[..], ByteCount(2)));
        assert_eq!((kept[1][0].name.as_bytes(), kept[1][0].size), (&b"two"[..], ByteCount(3)));
        drop(spool);

        // A peer that is not configured any more leaves nothing behind either.
        let spool = Spool::open_in_boot(&path, &peers()[..1], &tuesday).expect("another boot");
        assert!(spool.peers()[0].kept.is_empty());
        assert!(!path.join("trader1/a").exists());
        assert!(!path.join("trader2").exists());
        assert!(path.join("README").exists());
        keep(&spool.peers()[0], "three", b"3");
        drop(spool);

        let spool = Spool::open_in_boot(&path, &peers(), &tuesday).expect("the same boot");
        assert_eq!(spool.peers()[0].kept.len(), 1);
    }

    /// An exchange that was restarted read all that its spool held before it dialled.
    #[test]
    fn by_which_root_a_file_was_kept_is_known_until_it_is_written_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let (name, noted) = (ObjectName::new(b"d/one").expect("valid"), Root256([0xab; 32]));
        let another = Some(Root256(*blake3::hash(b"another").as_bytes()));
        let spool = Spool::open(dir.path(), &peers()).expect("new");
        let root = &spool.peers()[0].root;
        let part = root.open_part(&name, ByteCount(3), noted).expect("a part");
        part.write_vectored_at(&[IoSlice::new(b"one")], Offset(0)).expect("written");
        part.keep_unsynced().expect("kept");
        let file = File::options().write(true).open(dir.path().join("trader1/d/one")).expect("there");
        let takes_notes = file.set_xattr("user.test", b"").is_ok();
        assert_eq!(root.noted_root(&name), takes_notes.then_some(noted));
        file.set_modified(std::time::UNIX_EPOCH).expect("set");
        assert_eq!(root.noted_root(&name), None);
        keep(&spool.peers()[0], "d/one", b"another");
        assert_eq!((root.noted_root(&name), root.read_root(&name)), (None, another));
        assert_eq!(root.noted_root(&name), another.filter(|_| takes_notes));
        let none = ObjectName::new(b"none").expect("valid");
        assert_eq!((root.noted_root(&none), root.read_root(&none)), (None, None));
    }

    #[test]
    fn what_others_have_in_a_spool_is_neither_used_nor_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (theirs, another) = (dir.path().join("trader1/local"), dir.path().join("exchange2"));
        fs::create_dir_all(&theirs).expect("made");
        drop(Spool::open(&another, &peers()).expect("a spool within the spool"));
        let refused = Spool::open(dir.path(), &peers());
        assert!(matches!(refused, Err(StoreError::NotSpool { .. })), "{refused:?}");
        assert!(theirs.exists() && another.join("trader1").exists());
        fs::remove_dir(&theirs).expect("removed");
        for boot in ["monday", "tuesday"] {
            Spool::open_in_boot(dir.path(), &peers(), &BootId::new(boot)).expect("empty");
            assert!(another.join("trader1").exists());
        }
    }

    /// What a link in place of a directory led to was taken for what the spool had kept, and removed; what was mounted
    /// there was removed by the first start after a reboot.
    #[test]
    fn what_stands_in_place_of_a_directory_is_neither_used_nor_removed() {
        for boots in [["monday"; 2], ["tuesday", "wednesday"]] {
            let [at_link, at_mount] = boots.map(BootId::new);
            let dir = tempfile::tempdir().expect("a directory");
            let (path, theirs) = (dir.path().join("spool"), dir.path().join("theirs"));
            let ours = path.join("trader1");
            drop(Spool::open_in_boot(&path, &peers(), &BootId::new("monday")).expect("new"));
            fs::create_dir(&theirs).expect("made");
            fs::write(theirs.join("precious"), "theirs").expect("written");
            fs::remove_dir_all(&ours).expect("there");
            std::os::unix::fs::symlink(&theirs, &ours).expect("linked");
            let refused = Spool::open_in_boot(&path, &peers(), &at_link);
            assert!(matches!(refused, Err(StoreError::SpoolLink { .. })), "{refused:?}");
            // As if it were mounted there.
            fs::remove_file(&ours).expect("there");
            fs::rename(&theirs, &ours).expect("moved");
            let refused = Spool::open_in_boot(&path, &peers(), &at_mount);
            assert!(matches!(refused, Err(StoreError::NotSpool { .. })), "{refused:?}");
            let left: Vec<_> =
                fs::read_dir(&ours).expect("there").map(|entry| entry.expect("read").file_name()).collect();
            assert_eq!(left, ["precious"]);
        }
    }

    #[test]
    fn a_list_of_directories_that_is_damaged_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(Spool::open(dir.path(), &peers()).expect("new"));
        let file = dir.path().join(".supersync/peers");
        fs::write(dir.path().join("trader1/kept"), "there").expect("written");
        for damaged in [&b"trader1\n\xf4rader2\n"[..], b"trader1\n../trader2\n"] {
            fs::write(&file, damaged).expect("written");
            let error = Spool::open(dir.path(), &peers()).expect_err("damaged").to_string();
            assert!(error.starts_with(&file.display().to_string()), "{error}");
        }
        fs::remove_file(&file).expect("there");
        assert_eq!(Spool::open(dir.path(), &peers()).expect("made again").peers()[0].kept.len(), 1);
    }

    #[test]
    fn an_evicted_object_leaves_no_directories() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::open(dir.path(), &peers()).expect("this boot");
        let peer = &spool.peers()[0];
        keep(peer, "a/b/c/one", b"1");
        keep(peer, "a/two", b"22");
        let remove =
            |name: &str| peer.root.remove_kept(&ObjectName::new(name.as_bytes()).expect("valid")).expect("removed");
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
