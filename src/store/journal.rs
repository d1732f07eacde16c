//! Which bytes of the arriving parts are there, so that a restart fetches only the rest.
//!
//! A log in the root's private directory; see `log` for what a crash leaves of it. The caller records a range after
//! its bytes were verified and written to the part. What a restart believes:
//!
//! - in the same boot, whatever became of the process: every range whose record had been written to the file, since
//!   the kernel keeps the writes of both, and they were made in that order;
//! - in another boot, after a power loss too: the ranges that had been flushed to the disk before a further record said
//!   so, as far as that record had reached the disk itself.
//!
//! No file of a part is ever named like an earlier one, so that what was recorded of one is never believed of another.
//! A range that turns out wrong later is retracted, and not believed from then on. Whatever is believed is
//! checked once more by the object's root when it is whole; in a spool, by whoever gets it from there, and when the
//! spool is opened again; of a tree's file, only where its sender told the hash of what is in it (`--checksum`).
//!
//! The order of calls: [`Root::create`], [`Journal::open`] before any part is opened, then for each object
//! [`Root::open_part`] and [`Journal::ranges`] for what it holds already; [`Part::write_vectored_at`] and
//! [`Journal::record`] as blocks come; [`Journal::write`] after each batch of them; [`Journal::forget`] when it was
//! committed or abandoned. [`Journal::left`] tells what to do with what an earlier run has left.
//!
//! Now and then what was recorded is made durable, which takes as long as the disk does. Who shares a journal between
//! threads takes [`Journal::pending`], lets go of the journal for [`Pending::sync`], comes back to
//! [`Journal::confirm`], and lets go of it again for [`Confirmed::sync`], whose outcome [`Journal::settle`] is told.
//!
//! [`Root::create`]: super::Root::create
//! [`Root::open_part`]: super::Root::open_part

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::fstatat;
use nix::unistd::fsync;

use super::error::StoreError;
use super::log::{Fields, HEAD_BYTES, Log, LogKind, RecordWriter};
use super::part::{Flush, Lasting, Part, PartId, PartStem, errno_of, lasting_size};
use super::resolve::{self, Links};
use super::root::{Root, Shared, is_regular, marker_name};
use super::source::Stamp;
use super::spool::BootId;
use crate::limits;
use crate::units::{ByteCount, ObjectName, Offset, RangeSet, Root256};

const KIND: LogKind = LogKind { entry: "journal", temporary: "journal.new", magic: b"supersync journal 1\n" };

/// What a journal is called in the private directory, and while it is rewritten.
pub(super) const ENTRIES: [&str; 2] = [KIND.entry, KIND.temporary];

/// The boot in which the records that follow were written.
const BOOT: u8 = 1;
/// A part, and the serial by which the records that follow name it.
const BEGIN: u8 = 2;
/// Ranges that are in the part.
const RECORDED: u8 = 3;
/// Ranges that are in the part and on the disk.
const DURABLE: u8 = 4;
/// A part that was committed or abandoned.
const GONE: u8 = 5;
/// Ranges of a part that turned out wrong.
const RETRACTED: u8 = 6;

/// The journal of one root.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    log: Log,
    boot: BootId,
    parts: BTreeMap<PartId, Tracked>,
    next_serial: u32,
    /// When the log is this long, it is looked at whether it is worth rewriting.
    look_at: u64,
}

/// What becomes of an object that stands under its name without a marker, because a commit was interrupted when it
/// had given it the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmarked {
    /// It is a whole part again, to be verified and committed once more: of a root whose objects are marked.
    TakeBack,
    /// It is what it should be: of a spool.
    Keep,
}

/// A part that an earlier run left, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The object.
    pub name: ObjectName,
    /// Its size.
    pub size: ByteCount,
    /// BLAKE3 of the version that was arriving.
    pub root: Root256,
    /// What is there of it.
    pub ranges: RangeSet,
}

/// Ranges that are about to be made durable, and the parts that they are in.
#[derive(Debug)]
#[must_use = "nothing is durable before the journal confirmed it"]
pub struct Pending {
    shared: Arc<Shared>,
    parts: Vec<Flushing>,
}

#[derive(Debug)]
struct Flushing {
    part: Arc<Part>,
    id: PartId,
    ranges: RangeSet,
    /// As many as there had been of the part.
    retractions: u64,
    /// `None` before it was flushed.
    flushed: Option<bool>,
}

/// The journal's file, which says of parts that they are on the disk and may not be there itself.
#[derive(Debug)]
#[must_use = "what was confirmed survives the host when this was flushed"]
pub struct Confirmed {
    file: File,
    path: PathBuf,
}

/// What is known of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tracked {
    serial: u32,
    number: u64,
    name: ObjectName,
    size: ByteCount,
    root: Root256,
    /// What is believed in this boot; includes `durable`.
    recorded: RangeSet,
    /// What is believed in any.
    durable: RangeSet,
    /// How often some of it was retracted in this run.
    retractions: u64,
}

impl Journal {
    /// Opens the journal of a root that was opened for writing, making it where it is missing. Parts that it does not
    /// know are removed; those that it does are found by [`Root::open_part`].
    pub fn open(root: &Root, unmarked: Unmarked) -> Result<(Self, Vec<Resumed>), StoreError> {
        let boot = BootId::current().map_err(|error| {
            StoreError::io(root.path(), None, "learn the kernel's boot id for the journal", errno_of(&error))
        })?;
        Self::open_in_boot(root, unmarked, &boot)
    }

    /// The same, in the boot that the caller names.
    pub fn open_in_boot(root: &Root, unmarked: Unmarked, boot: &BootId) -> Result<(Self, Vec<Resumed>), StoreError> {
        let shared = Arc::clone(root.shared());
        let writer = shared.writer()?;
        let io = |operation| move |errno| StoreError::io(root.path(), None, operation, errno);
        let directory = writer.private.try_clone().map_err(|error| io("open the journal")(errno_of(&error)))?;
        let mut replay = Replay::default();
        let path = root.path().join(limits::PRIVATE_DIR);
        let log = Log::open(&path, directory, KIND, |payload| replay.apply(payload).is_some())?;
        let is_new = replay.boot.is_none();
        replay.enter(boot.clone());
        let next_serial = replay.next_serial;
        let (mut parts, mut gone) = (BTreeMap::new(), Vec::new());
        for tracked in replay.parts.into_values() {
            let id = PartId { stem: PartStem::of(&tracked.name, &tracked.root), number: tracked.number };
            let is_there = match lasting_size(writer.parts.as_fd(), &id) {
                Some(size) => tracked.fits(size),
                None => unmarked == Unmarked::TakeBack && tracked.is_whole() && tracked.take_back(&shared, &id),
            };
            if is_there {
                parts.insert(id, tracked);
            } else {
                gone.push(tracked.serial);
            }
        }
        let mut lasting = writer.lasting();
        for id in parts.keys() {
            lasting.entry(id.stem).or_insert(Lasting { number: id.number, open: Weak::new() });
        }
        let is_known = |id: PartId| lasting.get(&id.stem).is_some_and(|known| known.number == id.number);
        // Of two files for the same version the other one goes.
        parts.retain(|id, tracked: &mut Tracked| {
            let known = is_known(*id);
            gone.extend((!known).then_some(tracked.serial));
            known
        });
        writer
            .remove_parts_but(|entry| PartId::of_entry(entry).is_none_or(is_known))
            .map_err(io("remove the parts that the journal does not know"))?;
        drop(lasting);
        let resumed = parts.values().map(Tracked::resumed).collect();
        let mut journal = Self { shared, log, boot: boot.clone(), parts, next_serial, look_at: 0 };
        journal.log.append(|out| put_boot(out, boot));
        gone.into_iter().for_each(|serial| journal.put_gone(serial));
        journal.write()?;
        if is_new {
            // So that a host that fails finds a journal, and keeps the parts for it.
            journal.log.sync()?;
            fsync(&journal.shared.writer()?.private).map_err(io("flush the private directory"))?;
        }
        Ok((journal, resumed))
    }

    /// What of a part is there.
    pub fn ranges(&self, part: &Part) -> RangeSet {
        part.id().and_then(|id| self.parts.get(&id)).map(|tracked| tracked.recorded.clone()).unwrap_or_default()
    }

    /// Whether no part is there at all.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The parts of all versions of an object: their sizes and roots.
    pub fn parts_of(&self, name: &ObjectName) -> Vec<(ByteCount, Root256)> {
        let of_name = self.parts.values().filter(|tracked| tracked.name == *name);
        of_name.map(|tracked| (tracked.size, tracked.root)).collect()
    }

    /// Whether all of a part is there.
    pub fn is_whole(&self, part: &Part) -> bool {
        let tracked = part.id().and_then(|id| self.parts.get(&id));
        tracked.is_some_and(Tracked::is_whole)
    }

    /// Notes that `length` bytes from `offset` on are verified and written to the part, in memory until the next
    /// [`Journal::write`]. Of a part that was committed or abandoned nothing is noted. What is in memory is bounded:
    /// where it cannot be written, the file is made anew from what is known by the next [`Journal::write`].
    ///
    /// Panics when the part is not one from `Root::open_part` of this journal's root, or the range is beyond its end.
    pub fn record(&mut self, part: &Part, offset: Offset, length: ByteCount) {
        assert!(part.is_of(&self.shared), "a part is journaled in the root that it was made in");
        let (Some(id), Some(root)) = (part.id(), part.root()) else {
            panic!("only parts that last are journaled, '{}' does not", part.name());
        };
        let end = offset.0.saturating_add(length.0);
        assert!(end <= part.size().0, "'{}' ends at {}, {end} was recorded", part.name(), part.size());
        if length == ByteCount(0) || !part.is_arriving() {
            return;
        }
        let (log, next_serial) = (&mut self.log, &mut self.next_serial);
        let tracked = self.parts.entry(id).or_insert_with(|| {
            let tracked = Tracked::new(*next_serial, id.number, part.name().clone(), part.size(), root);
            *next_serial += 1;
            log.append(|out| tracked.put_begin(out));
            tracked
        });
        if tracked.recorded.insert(offset, length) > ByteCount(0) {
            log.append(|out| put_ranges(out, RECORDED, tracked.serial, &[(offset, length)]));
        }
        if log.unwritten() >= limits::LOG_BUFFER_BYTES && self.write().is_err() {
            self.log.drop_unwritten();
            self.log.doubt();
        }
    }

    /// Notes that of what was recorded `length` bytes from `offset` on are wrong, in memory until the next
    /// [`Journal::write`].
    pub fn retract(&mut self, part: &Part, offset: Offset, length: ByteCount) {
        let Some(tracked) = part.id().and_then(|id| self.parts.get_mut(&id)) else { return };
        tracked.durable.remove(offset, length);
        tracked.retractions += 1;
        if tracked.recorded.remove(offset, length) > ByteCount(0) {
            self.log.append(|out| put_ranges(out, RETRACTED, tracked.serial, &[(offset, length)]));
        }
    }

    /// How many bytes of records are only in memory.
    pub fn unwritten(&self) -> usize {
        self.log.unwritten()
    }

    /// Puts everything recorded to the file: from then on it survives this process, however that ends. Does not wait
    /// for the disk, but for the rare times that the file is rewritten. After a failure it can be tried again.
    pub fn write(&mut self) -> Result<(), StoreError> {
        self.log.write()?;
        if self.log.is_unsure() {
            return self.rewrite();
        }
        if self.log.bytes() >= self.look_at.max(limits::LOG_REWRITE_BYTES_MIN) {
            if self.live_bytes() < self.log.bytes() / 2 {
                return self.rewrite();
            }
            self.look_at = 2 * self.log.bytes();
        }
        Ok(())
    }

    /// What of `parts` is recorded and not durable yet.
    pub fn pending(&self, parts: &[Arc<Part>]) -> Pending {
        let flushing = |part: &Arc<Part>| {
            let id = part.id()?;
            let tracked = self.parts.get(&id)?;
            let ranges = tracked.not_durable();
            let retractions = tracked.retractions;
            let flushing = Flushing { part: Arc::clone(part), id, ranges, retractions, flushed: None };
            (!flushing.ranges.is_empty()).then_some(flushing)
        };
        Pending { shared: Arc::clone(&self.shared), parts: parts.iter().filter_map(flushing).collect() }
    }

    /// Notes what was flushed, and writes it to the file, which is to be flushed next.
    pub fn confirm(&mut self, pending: Pending) -> Result<Confirmed, StoreError> {
        for Flushing { id, ranges, retractions, flushed, .. } in pending.parts {
            match flushed {
                Some(true) => {
                    let Some(tracked) = self.parts.get_mut(&id) else { continue };
                    // What was retracted meanwhile may be there again, and not on the disk: the next time tells.
                    if tracked.retractions != retractions {
                        continue;
                    }
                    let runs: Vec<_> = ranges.runs().collect();
                    for runs in runs.chunks(limits::JOURNAL_RECORD_RANGES_MAX) {
                        self.log.append(|out| put_ranges(out, DURABLE, tracked.serial, runs));
                    }
                    tracked.durable.extend(runs);
                }
                Some(false) => self.remove(id),
                None => {}
            }
        }
        let written = self.write().and_then(|()| self.log.file());
        // It counts as durable by now.
        let (file, path) = written.inspect_err(|_| self.log.doubt())?;
        Ok(Confirmed { file, path })
    }

    /// Takes note of what came of [`Confirmed::sync`]: a journal that the disk did not take is rewritten next.
    pub fn settle(&mut self, flushed: Result<(), StoreError>) -> Result<(), StoreError> {
        if flushed.is_err() {
            self.log.doubt();
        }
        flushed
    }

    /// Notes that a part was committed or abandoned. Without that a restart finds it out from the file's absence.
    pub fn forget(&mut self, part: &Part) {
        if let Some(id) = part.id() {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: PartId) {
        if let Some(tracked) = self.parts.remove(&id) {
            self.put_gone(tracked.serial);
        }
    }

    fn put_gone(&mut self, serial: u32) {
        self.log.append(|out| {
            out.push(GONE);
            out.extend_from_slice(&serial.to_le_bytes());
        });
    }

    /// How long the log would be if it were rewritten.
    fn live_bytes(&self) -> u64 {
        self.parts.values().map(Tracked::live_bytes).sum()
    }

    pub(super) fn rewrite(&mut self) -> Result<(), StoreError> {
        let boot = &self.boot;
        let mut parts: Vec<_> = self.parts.values().collect();
        parts.sort_unstable_by_key(|tracked| tracked.serial);
        self.log.rewrite(|records| {
            records.put(|out| put_boot(out, boot))?;
            parts.into_iter().try_for_each(|tracked| tracked.put_all(records))
        })?;
        self.look_at = 2 * self.log.bytes();
        Ok(())
    }
}

impl Pending {
    /// Flushes the parts. Blocks for as long as the disk takes; the error is that of the first part that failed. Those
    /// that fail are thrown away.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        if self.parts.is_empty() {
            return Ok(());
        }
        // A part's name is what it is found by.
        fsync(&self.shared.writer()?.parts)
            .map_err(|errno| StoreError::io(&self.shared.path, None, "flush the directory of parts", errno))?;
        let mut outcome = Ok(());
        for flushing in &mut self.parts {
            let flushed = flushing.part.file().flush(Flush::Bytes);
            flushing.flushed = Some(flushed.is_ok());
            let flushed =
                flushed.map_err(|errno| StoreError::io(&self.shared.path, Some(flushing.part.name()), "flush", errno));
            outcome = outcome.and(flushed);
        }
        outcome
    }

    /// Whether there is nothing to flush.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The parts that the disk did not take.
    pub fn failed(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.parts.iter().filter(|flushing| flushing.flushed == Some(false)).map(|flushing| &flushing.part)
    }
}

impl Confirmed {
    /// Flushes the journal's file. Blocks for as long as the disk takes.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|error| StoreError::io(&self.path, None, "flush", errno_of(&error)))
    }
}

/// Whether an entry of the private directory is a journal's.
pub(super) fn owns(entry: &[u8]) -> bool {
    ENTRIES.iter().any(|known| known.as_bytes() == entry)
}

/// Whether a private directory has a journal.
pub(super) fn stands_in(private: BorrowedFd<'_>) -> bool {
    let opened = resolve::open_beneath(private, KIND.entry.as_bytes(), OFlag::O_PATH, Links::Refuse);
    !matches!(opened, Err(Errno::ENOENT))
}

impl Tracked {
    fn new(serial: u32, number: u64, name: ObjectName, size: ByteCount, root: Root256) -> Self {
        Self { serial, number, name, size, root, recorded: RangeSet::new(), durable: RangeSet::new(), retractions: 0 }
    }

    fn resumed(&self) -> Resumed {
        let Self { name, size, root, recorded, .. } = self;
        Resumed { name: name.clone(), size: *size, root: *root, ranges: recorded.clone() }
    }

    /// Whether a file of this size may have all that was recorded.
    fn fits(&self, size: ByteCount) -> bool {
        let last = self.recorded.runs().last();
        last.is_some_and(|(offset, length)| (offset.0 + length.0..=self.size.0).contains(&size.0))
    }

    fn is_whole(&self) -> bool {
        self.recorded.is_full(self.size)
    }

    /// Makes the file of the object's name the part that it was, if it is as long and not marked; whether that was so.
    /// That they are the same bytes is for the root to show.
    fn take_back(&self, shared: &Shared, id: &PartId) -> bool {
        let take_back = || -> nix::Result<()> {
            let writer = shared.writer().map_err(|_| Errno::EBADF)?;
            let (parent, entry) = resolve::split(self.name.as_bytes());
            let directory = resolve::open_directory(shared.dir.as_fd(), parent, Links::Follow)?;
            let stat = fstatat(&directory, entry, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let marker = fstatat(&directory, &marker_name(entry)[..], AtFlags::AT_SYMLINK_NOFOLLOW);
            if !is_regular(&stat) || Stamp::of(&stat).size != self.size || marker != Err(Errno::ENOENT) {
                return Err(Errno::EEXIST);
            }
            renameat(&directory, entry, &writer.parts, id.entry().as_str())
        };
        take_back().is_ok()
    }

    fn not_durable(&self) -> RangeSet {
        self.recorded.runs().flat_map(|(offset, length)| self.durable.missing_in(offset, length)).collect()
    }

    fn put_begin(&self, out: &mut Vec<u8>) {
        out.push(BEGIN);
        out.extend_from_slice(&self.serial.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.size.0.to_le_bytes());
        out.extend_from_slice(&self.root.0);
        out.extend_from_slice(self.name.as_bytes());
    }

    fn put_all(&self, records: &mut RecordWriter<'_>) -> io::Result<()> {
        records.put(|out| self.put_begin(out))?;
        for (kind, ranges) in [(DURABLE, &self.durable), (RECORDED, &self.not_durable())] {
            let runs: Vec<_> = ranges.runs().collect();
            for runs in runs.chunks(limits::JOURNAL_RECORD_RANGES_MAX) {
                records.put(|out| put_ranges(out, kind, self.serial, runs))?;
            }
        }
        Ok(())
    }

    /// About how long its records are in a log that was rewritten.
    fn live_bytes(&self) -> u64 {
        let runs = self.recorded.run_count() + self.durable.run_count();
        (3 * HEAD_BYTES + 64 + self.name.as_bytes().len() + 16 * runs) as u64
    }
}

fn put_boot(out: &mut Vec<u8>, boot: &BootId) {
    out.push(BOOT);
    out.extend_from_slice(boot.as_str().as_bytes());
}

fn put_ranges(out: &mut Vec<u8>, kind: u8, serial: u32, runs: &[(Offset, ByteCount)]) {
    out.push(kind);
    out.extend_from_slice(&serial.to_le_bytes());
    for (offset, length) in runs {
        out.extend_from_slice(&offset.0.to_le_bytes());
        out.extend_from_slice(&length.0.to_le_bytes());
    }
}

/// What the records of a journal say, one after the other.
#[derive(Debug, Default)]
struct Replay {
    boot: Option<BootId>,
    parts: BTreeMap<u32, Tracked>,
    next_serial: u32,
}

impl Replay {
    /// From here on records are of `boot`: of what an earlier one left, only what is durable counts.
    fn enter(&mut self, boot: BootId) {
        if self.boot.as_ref() != Some(&boot) {
            for tracked in self.parts.values_mut() {
                tracked.recorded = tracked.durable.clone();
            }
            self.boot = Some(boot);
        }
    }

    /// Applies one record; `None` for one that makes no sense.
    fn apply(&mut self, payload: &[u8]) -> Option<()> {
        let mut fields = Fields(payload);
        match fields.u8()? {
            BOOT => self.enter(BootId::new(std::str::from_utf8(fields.0).ok()?)),
            BEGIN => {
                let serial = fields.u32()?;
                // Ascending, so that no record is ever taken for one of another part.
                if serial < self.next_serial || self.boot.is_none() {
                    return None;
                }
                let (number, size, root) = (fields.u64()?, ByteCount(fields.u64()?), Root256(fields.array()?));
                let name = ObjectName::new(fields.0).ok()?;
                self.next_serial = serial.checked_add(1)?;
                self.parts.insert(serial, Tracked::new(serial, number, name, size, root));
            }
            kind @ (RECORDED | DURABLE) => {
                let tracked = self.parts.get_mut(&fields.u32()?)?;
                let ranges = ranges_of(fields.0, tracked.size)?;
                if kind == DURABLE {
                    tracked.durable.extend(ranges.iter().copied());
                }
                tracked.recorded.extend(ranges);
            }
            RETRACTED => {
                let tracked = self.parts.get_mut(&fields.u32()?)?;
                for (offset, length) in ranges_of(fields.0, tracked.size)? {
                    tracked.recorded.remove(offset, length);
                    tracked.durable.remove(offset, length);
                }
            }
            GONE => _ = self.parts.remove(&fields.u32()?)?,
            _ => return None,
        }
        Some(())
    }
}

/// The ranges of a record of a part of `size` bytes; `None` where one is not within it.
fn ranges_of(bytes: &[u8], size: ByteCount) -> Option<Vec<(Offset, ByteCount)>> {
    let (ranges, rest) = bytes.as_chunks::<16>();
    let range = |bytes: &[u8; 16]| {
        let mut fields = Fields(bytes);
        let (offset, length) = (fields.u64()?, fields.u64()?);
        let within = offset.checked_add(length).is_some_and(|end| end <= size.0);
        within.then_some((Offset(offset), ByteCount(length)))
    };
    if rest.is_empty() { ranges.iter().map(range).collect() } else { None }
}
