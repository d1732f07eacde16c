//! What objects hash to, remembered over restarts, so that only what changed is read again.
//!
//! A log in the node's state directory, owned by one process; see `log` for what a crash leaves of it. An entry is good
//! for as long as the object's size, times and inode are what they were. Losing entries costs reading the
//! objects again, nothing else, so that additions are kept in memory and go to the file a buffer at a time; only
//! [`HashCache::flush`] waits for the disk.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::Path;

use nix::errno::Errno;

use super::error::StoreError;
use super::hash::{Hashes, block_count};
use super::log::{Fields, HEAD_BYTES, Log, LogKind};
use super::part::errno_of;
use super::source::{FileTime, Inode, Stamp};
use crate::limits;
use crate::units::{ByteCount, ObjectName, Root256};

const KIND: LogKind = LogKind { entry: "hashes", temporary: "hashes.new", magic: b"supersync hashes 1\n" };

const REMEMBER: u8 = 1;
const FORGET: u8 = 2;
/// A record's payload less the name and the checksums: kind, name's length, size, two times, inode, root.
const FIXED_BYTES: usize = 1 + 2 + 4 * 8 + 32;

/// The cache of one root's hashes. About 150 bytes of memory for an object of one block, and its name.
pub struct HashCache {
    log: Log,
    // Boxed, because a table has about as many free places as used ones.
    known: HashMap<ObjectName, Box<Known>>,
    /// Of the records that say what `known` holds, bytes.
    live: u64,
    /// Set when additions could not be written and were dropped.
    incomplete: bool,
}

struct Known {
    size: ByteCount,
    mtime: FileTime,
    ctime: FileTime,
    inode: Inode,
    hashes: Hashes,
}

impl HashCache {
    /// Opens the cache in `directory`, making both where they are missing. Reads all of it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let io = |operation| move |errno: Errno| StoreError::io(directory, None, operation, errno);
        std::fs::create_dir_all(directory).map_err(|error| io("make the directory")(errno_of(&error)))?;
        let handle = std::fs::File::open(directory).map_err(|error| io("open the directory")(errno_of(&error)))?;
        let (mut known, mut live) = (HashMap::new(), 0);
        let log =
            Log::open(directory, handle.into(), KIND, |payload| replay(payload, &mut known, &mut live).is_some())?;
        Ok(Self { log, known, live, incomplete: false })
    }

    /// What the object hashes to, if it is still what it was.
    pub fn lookup(&self, name: &ObjectName, stamp: &Stamp) -> Option<&Hashes> {
        self.known.get(name).filter(|known| known.is_of(stamp)).map(|known| &known.hashes)
    }

    /// Remembers what an object of this stamp hashes to, in place of what was known under the name. The stamp must be
    /// one that any later change of the object shows in: see [`Source::is_settled`](super::Source::is_settled).
    ///
    /// Panics when there are not as many checksums as the object has blocks.
    pub fn insert(&mut self, name: ObjectName, stamp: Stamp, hashes: Hashes) {
        assert!(hashes.block_crcs.len() as u64 == block_count(stamp.size), "one checksum for each block of '{name}'");
        if record_bytes(&name, stamp.size) > (limits::LOG_RECORD_BYTES_MAX + HEAD_BYTES) as u64
            || self.lookup(&name, &stamp) == Some(&hashes)
        {
            return;
        }
        let known = Known { size: stamp.size, mtime: stamp.mtime, ctime: stamp.ctime, inode: stamp.inode, hashes };
        self.log.append(|out| put_known(out, &name, &known));
        remember(&mut self.known, &mut self.live, name, known);
        self.write_some();
    }

    /// Drops what is known under the name.
    pub fn forget(&mut self, name: &ObjectName) {
        if let Some(known) = self.known.remove(name) {
            self.live -= record_bytes(name, known.size);
            self.log.append(|out| {
                out.push(FORGET);
                out.extend_from_slice(name.as_bytes());
            });
            self.write_some();
        }
    }

    /// Drops what is known of every object that `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(&ObjectName) -> bool) {
        let gone: Vec<_> = self.known.keys().filter(|name| !keep(name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Makes all of it durable, and rewrites the file when more than half of it is dead. Blocks for as long as the disk
    /// takes.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        let bytes = self.log.bytes();
        let mostly_dead = bytes >= limits::LOG_REWRITE_BYTES_MIN && self.live < bytes / 2;
        if !mostly_dead && !self.incomplete && !self.log.is_unsure() {
            return self.log.sync();
        }
        let known = &self.known;
        self.log.rewrite(|records| {
            known.iter().try_for_each(|(name, known)| records.put(|out| put_known(out, name, known)))
        })?;
        self.incomplete = false;
        Ok(())
    }

    /// Keeps the memory of additions bounded.
    fn write_some(&mut self) {
        if self.log.unwritten() >= limits::LOG_BUFFER_BYTES && self.log.write().is_err() {
            // The next flush writes all of it anew, and says what is wrong if it still is.
            self.log.drop_unwritten();
            self.incomplete = true;
        }
    }
}

impl fmt::Debug for HashCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashCache").field("log", &self.log).field("known", &self.known.len()).finish_non_exhaustive()
    }
}

impl Known {
    fn is_of(&self, stamp: &Stamp) -> bool {
        (self.size, self.mtime, self.ctime, self.inode) == (stamp.size, stamp.mtime, stamp.ctime, stamp.inode)
    }
}

/// Applies one record; `None` for one that makes no sense.
fn replay(payload: &[u8], known: &mut HashMap<ObjectName, Box<Known>>, live: &mut u64) -> Option<()> {
    let mut fields = Fields(payload);
    match fields.u8()? {
        REMEMBER => {
            let name_length = fields.u16()?;
            let name = ObjectName::new(fields.bytes(name_length.into())?).ok()?;
            let size = ByteCount(fields.u64()?);
            let (mtime, ctime) = (FileTime(fields.i64()?), FileTime(fields.i64()?));
            let inode = Inode(fields.u64()?);
            let root = Root256(fields.array()?);
            let (crcs, rest) = fields.0.as_chunks();
            if !rest.is_empty() || crcs.len() as u64 != block_count(size) {
                return None;
            }
            let hashes = Hashes { root, block_crcs: crcs.iter().map(|crc| u32::from_le_bytes(*crc)).collect() };
            remember(known, live, name, Known { size, mtime, ctime, inode, hashes });
        }
        FORGET => {
            let name = ObjectName::new(fields.0).ok()?;
            *live -= record_bytes(&name, known.remove(&name)?.size);
        }
        _ => return None,
    }
    Some(())
}

fn remember(table: &mut HashMap<ObjectName, Box<Known>>, live: &mut u64, name: ObjectName, known: Known) {
    *live += record_bytes(&name, known.size);
    match table.entry(name) {
        Entry::Occupied(mut before) => {
            *live -= record_bytes(before.key(), before.get().size);
            **before.get_mut() = known;
        }
        Entry::Vacant(place) => _ = place.insert(Box::new(known)),
    }
}

fn put_known(out: &mut Vec<u8>, name: &ObjectName, known: &Known) {
    out.push(REMEMBER);
    out.extend_from_slice(&(name.as_bytes().len() as u16).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&known.size.0.to_le_bytes());
    out.extend_from_slice(&known.mtime.0.to_le_bytes());
    out.extend_from_slice(&known.ctime.0.to_le_bytes());
    out.extend_from_slice(&known.inode.0.to_le_bytes());
    out.extend_from_slice(&known.hashes.root.0);
    known.hashes.block_crcs.iter().for_each(|crc| out.extend_from_slice(&crc.to_le_bytes()));
}

/// How long the record of an object is in the file.
fn record_bytes(name: &ObjectName, size: ByteCount) -> u64 {
    (HEAD_BYTES + FIXED_BYTES + name.as_bytes().len()) as u64 + 4 * block_count(size)
}
