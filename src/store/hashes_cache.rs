//! What objects hash to, remembered over restarts, so that only what changed is read again.
//!
//! A log in the node's state directory, owned by one process; see `log` for what a crash leaves of it. An entry is good
//! for as long as the object's size, times and inode are what they were. Losing entries costs reading the
//! objects again, nothing else, so that additions are kept in memory and go to the file a buffer at a time; only
//! [`HashCache::flush`] waits for the disk.
//!
//! What is known is needed when a node starts, and is as long as the file; after that [`HashCache::rest`] gives the
//! memory back, and what is added goes to the file alone.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};

use hashbrown::HashTable;
use nix::errno::Errno;

use super::error::StoreError;
use super::hash::{Hashes, block_count};
use super::log::{Fields, HEAD_BYTES, Log, LogKind};
use super::part::errno_of;
use super::source::{Inode, Stamp};
use crate::limits;
use crate::units::{ByteCount, FileTime, ObjectName, Root256};

const KIND: LogKind = LogKind { entry: "hashes", temporary: "hashes.new", magic: b"supersync hashes 1\n" };

const REMEMBER: u8 = 1;
const FORGET: u8 = 2;
/// A record's payload less the name and the checksums: kind, name's length, size, two times, inode, root.
const FIXED_BYTES: usize = 1 + 2 + 4 * 8 + 32;

/// How many records a file has is guessed by this, bytes.
const TYPICAL_NAME_BYTES: usize = 16;

/// The cache of one root's hashes.
pub struct HashCache {
    log: Log,
    directory: PathBuf,
    /// `None` while it rests.
    known: Option<Table>,
    /// How long the file was when it was last looked at as a whole, bytes.
    looked_at: u64,
    /// Set when additions could not be written and were dropped.
    incomplete: bool,
}

/// The records as they are in the file, one behind the other, and where that of a name starts.
#[derive(Default)]
struct Table {
    records: Vec<u8>,
    places: HashTable<u64>,
    keys: RandomState,
    /// Of the records that are found by a name, bytes.
    live: u64,
}

/// One record, read.
struct Known<'r> {
    name: &'r [u8],
    size: ByteCount,
    mtime: FileTime,
    ctime: FileTime,
    inode: Inode,
    root: Root256,
    crcs: &'r [[u8; 4]],
}

impl HashCache {
    /// Opens the cache in `directory`, making both where they are missing. Reads all of it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let io = |operation| move |errno: Errno| StoreError::io(directory, None, operation, errno);
        std::fs::create_dir_all(directory).map_err(|error| io("make the directory")(errno_of(&error)))?;
        let handle = std::fs::File::open(directory).map_err(|error| io("open the directory")(errno_of(&error)))?;
        let held = std::fs::metadata(directory.join(KIND.entry)).map_or(0, |found| found.len());
        let mut known = Table::with_room_for(held);
        let log = Log::open(directory, handle.into(), KIND, |payload| known.replay(payload).is_some())?;
        let looked_at = log.bytes();
        Ok(Self { log, directory: directory.into(), known: Some(known), looked_at, incomplete: false })
    }

    /// What the object hashes to, if it is still what it was. Nothing is known at rest.
    pub fn lookup(&self, name: &ObjectName, stamp: &Stamp) -> Option<Hashes> {
        let known = self.known.as_ref()?.find(name.as_bytes())?;
        known.is_of(stamp).then(|| known.hashes())
    }

    /// Remembers what an object of this stamp hashes to, in place of what was known under the name. The stamp must be
    /// one that any later change of the object shows in: see [`Source::is_settled`](super::Source::is_settled).
    ///
    /// Panics when there are not as many checksums as the object has blocks.
    pub fn insert(&mut self, name: &ObjectName, stamp: &Stamp, hashes: &Hashes) {
        assert!(hashes.block_crcs.len() as u64 == block_count(stamp.size), "one checksum for each block of '{name}'");
        if record_bytes(name.as_bytes(), stamp.size) > (limits::LOG_RECORD_BYTES_MAX + HEAD_BYTES) as u64
            || self.lookup(name, stamp).as_ref() == Some(hashes)
        {
            return;
        }
        self.log.append(|out| {
            let start = out.len();
            put_known(out, name, stamp, hashes);
            if let Some(known) = &mut self.known {
                known.remember(&out[start..]);
            }
        });
        self.write_some();
    }

    /// Drops what is known under the name.
    pub fn forget(&mut self, name: &ObjectName) {
        if self.known.as_mut().is_none_or(|known| known.forget(name.as_bytes())) {
            self.log.append(|out| {
                out.push(FORGET);
                out.extend_from_slice(name.as_bytes());
            });
            self.write_some();
        }
    }

    /// Hands everything to the system, so that it survives this process.
    pub fn write(&mut self) -> Result<(), StoreError> {
        self.log.write()
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.known.as_ref().map_or(0, |known| known.places.len())
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes all of it durable, and rewrites the file when more than half of it is dead. Blocks for as long as the disk
    /// takes.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        let must_rewrite = self.incomplete || self.log.is_unsure();
        let bytes = self.log.bytes();
        if self.known.is_none()
            && (must_rewrite || bytes >= limits::LOG_REWRITE_BYTES_MIN && bytes / 2 >= self.looked_at)
        {
            // What of it is dead shows only when all of it is read.
            let _ = self.log.write();
            *self = Self { incomplete: must_rewrite, ..Self::open(&self.directory)? };
            let flushed = self.flush();
            self.rest();
            return flushed;
        }
        let is_mostly_dead = |known: &Table| bytes >= limits::LOG_REWRITE_BYTES_MIN && known.live < bytes / 2;
        let Some(known) = self.known.as_ref().filter(|known| must_rewrite || is_mostly_dead(known)) else {
            return self.log.sync();
        };
        self.log.rewrite(|records| {
            known.places.iter().try_for_each(|&at| records.put(|out| out.extend_from_slice(known.record(at))))
        })?;
        self.incomplete = false;
        self.looked_at = self.log.bytes();
        Ok(())
    }

    /// As if the disk had not taken what the file holds.
    #[cfg(test)]
    pub(super) fn lose(&mut self) {
        self.log.doubt();
    }

    /// Gives the memory back: nothing is looked up for now.
    pub fn rest(&mut self) {
        self.known = None;
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
        f.debug_struct("HashCache").field("log", &self.log).field("known", &self.len()).finish_non_exhaustive()
    }
}

impl Table {
    /// Takes its memory at once, so that all of it goes back as one.
    fn with_room_for(bytes: u64) -> Self {
        let mut table = Self::default();
        table.records.reserve_exact(usize::try_from(bytes).unwrap_or(0));
        let records = usize::try_from(bytes).unwrap_or(0) / (HEAD_BYTES + FIXED_BYTES + TYPICAL_NAME_BYTES);
        table.places.reserve(records.min(limits::OBJECTS_MAX), |_| 0);
        table
    }

    /// Applies one record; `None` for one that makes no sense.
    fn replay(&mut self, payload: &[u8]) -> Option<()> {
        match *payload.first()? {
            REMEMBER => {
                let known = Known::read(payload)?;
                ObjectName::new(known.name).ok()?;
                (known.bytes() == payload.len()).then(|| self.remember(payload))
            }
            FORGET => {
                self.forget(&payload[1..]);
                Some(())
            }
            _ => None,
        }
    }

    fn find(&self, name: &[u8]) -> Option<Known<'_>> {
        let place = self.places.find(self.keys.hash_one(name), |&at| self.at(at).name == name);
        place.map(|&at| self.at(at))
    }

    fn remember(&mut self, record: &[u8]) {
        let known = Known::read(record).expect("a record that was read before, or was just made");
        self.forget(known.name);
        let at = self.records.len() as u64;
        self.records.extend_from_slice(record);
        self.live += record_bytes(known.name, known.size);
        let Self { records, places, keys, .. } = self;
        places.insert_unique(keys.hash_one(known.name), at, |&at| keys.hash_one(read_at(records, at).name));
    }

    /// Whether there was one of this name.
    fn forget(&mut self, name: &[u8]) -> bool {
        let Self { records, places, keys, live } = self;
        let Ok(found) = places.find_entry(keys.hash_one(name), |&at| read_at(records, at).name == name) else {
            return false;
        };
        *live -= record_bytes(name, read_at(records, *found.get()).size);
        found.remove();
        true
    }

    fn at(&self, at: u64) -> Known<'_> {
        read_at(&self.records, at)
    }

    fn record(&self, at: u64) -> &[u8] {
        &self.records[at as usize..][..self.at(at).bytes()]
    }
}

fn read_at(records: &[u8], at: u64) -> Known<'_> {
    Known::read(&records[at as usize..]).expect("it was read before")
}

impl<'r> Known<'r> {
    /// Reads the record that `bytes` begin with.
    fn read(bytes: &'r [u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        fields.u8()?;
        let name_length = fields.u16()?;
        let name = fields.bytes(name_length.into())?;
        let size = ByteCount(fields.u64()?);
        let (mtime, ctime) = (FileTime(fields.i64()?), FileTime(fields.i64()?));
        let inode = Inode(fields.u64()?);
        let root = Root256(fields.array()?);
        let crcs = usize::try_from(block_count(size)).ok()?.checked_mul(4)?;
        let (crcs, _) = fields.bytes(crcs)?.as_chunks();
        Some(Self { name, size, mtime, ctime, inode, root, crcs })
    }

    fn bytes(&self) -> usize {
        FIXED_BYTES + self.name.len() + 4 * self.crcs.len()
    }

    fn is_of(&self, stamp: &Stamp) -> bool {
        (self.size, self.mtime, self.ctime, self.inode) == (stamp.size, stamp.mtime, stamp.ctime, stamp.inode)
    }

    fn hashes(&self) -> Hashes {
        Hashes { root: self.root, block_crcs: self.crcs.iter().map(|crc| u32::from_le_bytes(*crc)).collect() }
    }
}

fn put_known(out: &mut Vec<u8>, name: &ObjectName, stamp: &Stamp, hashes: &Hashes) {
    out.push(REMEMBER);
    out.extend_from_slice(&(name.as_bytes().len() as u16).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&stamp.size.0.to_le_bytes());
    out.extend_from_slice(&stamp.mtime.0.to_le_bytes());
    out.extend_from_slice(&stamp.ctime.0.to_le_bytes());
    out.extend_from_slice(&stamp.inode.0.to_le_bytes());
    out.extend_from_slice(&hashes.root.0);
    hashes.block_crcs.iter().for_each(|crc| out.extend_from_slice(&crc.to_le_bytes()));
}

/// How long the record of an object is in the file.
fn record_bytes(name: &[u8], size: ByteCount) -> u64 {
    (HEAD_BYTES + FIXED_BYTES + name.len()) as u64 + 4 * block_count(size)
}
