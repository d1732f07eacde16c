//! A file of records that is added to and never changed in place.
//!
//! ```text
//! magic | length u32 | CRC-32C of the payload u32 | payload | length ...        (all little-endian)
//! ```
//!
//! What is added stays in memory until [`Log::write`] puts it to the file, where it survives the process, and
//! [`Log::sync`] to the disk, where it survives the host. Whatever else a crash leaves at the end, half a record,
//! zeros or what the disk held before, fails a record's checksum; the file is cut there when it is opened. No
//! record is empty: a run of zeros would be a valid one.
//!
//! A log that is mostly dead is rewritten beside itself and renamed into place, so that there is a whole one at any
//! instant. What the records mean, and which are dead, its owner knows.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, renameat};
use nix::unistd::fsync;

use super::error::StoreError;
use super::hash::block_crc;
use super::part::errno_of;
use super::resolve::{self, Links};
use crate::limits;

/// Before each payload: its length and its checksum.
pub(super) const HEAD_BYTES: usize = 8;
/// Read and written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// What distinguishes one kind of log from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogKind {
    /// The file's name in its directory.
    pub(super) entry: &'static str,
    /// Where it is rewritten.
    pub(super) temporary: &'static str,
    /// Its first bytes, with its version.
    pub(super) magic: &'static [u8],
}

/// A log, open for adding to it.
#[derive(Debug)]
pub(super) struct Log {
    kind: LogKind,
    /// Of the file, for messages.
    path: PathBuf,
    directory: OwnedFd,
    file: File,
    /// Of the file, as far as it is good.
    length: u64,
    /// Records that are not in the file yet.
    buffer: Vec<u8>,
    /// Set when the disk refused to take what the file holds: that is said once, and nothing in it can be relied on.
    unsure: bool,
}

impl Log {
    /// Opens the log in `directory`, which is at `path`, making it where it is missing. `visit` gets each payload in
    /// order; at the first one that it does not take, or that is damaged, the file is cut.
    pub(super) fn open(
        path: &Path,
        directory: OwnedFd,
        kind: LogKind,
        visit: impl FnMut(&[u8]) -> bool,
    ) -> Result<Self, StoreError> {
        let path = path.join(kind.entry);
        let io = |operation| {
            let path = path.clone();
            move |error: io::Error| StoreError::io(&path, None, operation, errno_of(&error))
        };
        let flags = OFlag::O_RDWR | OFlag::O_CREAT;
        let file = open_private(directory.as_fd(), kind.entry, flags).map(File::from).map_err(io("open"))?;
        let held = file.metadata().map_err(io("look at"))?.len();
        let mut length = read_records(&file, held, kind.magic, visit).map_err(io("read"))?;
        if length < held {
            file.set_len(length).map_err(io("cut"))?;
        }
        if length == 0 {
            file.write_all_at(kind.magic, 0).map_err(io("write"))?;
            length = kind.magic.len() as u64;
        }
        Ok(Self { kind, path, directory, file, length, buffer: Vec::new(), unsure: false })
    }

    /// Of the file and of what will be added to it.
    pub(super) fn bytes(&self) -> u64 {
        self.length + self.buffer.len() as u64
    }

    /// How much of that is only in memory.
    pub(super) fn unwritten(&self) -> usize {
        self.buffer.len()
    }

    /// Adds the record that `fill` puts together, in memory.
    pub(super) fn append(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        put_record(&mut self.buffer, fill);
    }

    /// Puts everything to the file. After a failure it can be tried again.
    pub(super) fn write(&mut self) -> Result<(), StoreError> {
        if !self.buffer.is_empty() {
            self.file.write_all_at(&self.buffer, self.length).map_err(|error| self.io("write", &error))?;
            self.length += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Forgets what is only in memory.
    pub(super) fn drop_unwritten(&mut self) {
        self.buffer = Vec::new();
    }

    /// Puts everything to the disk. After a failure the log must be rewritten.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.write()?;
        self.file.sync_data().map_err(|error| {
            self.unsure = true;
            self.io("flush", &error)
        })
    }

    /// The file, to flush it while others add to it; who does tells by [`Log::doubt`] when that failed.
    pub(super) fn file(&self) -> Result<(File, PathBuf), StoreError> {
        let file = self.file.try_clone().map_err(|error| self.io("flush", &error))?;
        Ok((file, self.path.clone()))
    }

    /// The disk did not take what the file holds.
    pub(super) fn doubt(&mut self) {
        self.unsure = true;
    }

    /// Whether the disk failed to take it, so that only a rewritten one can be relied on.
    pub(super) fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// Puts a log of what `fill` writes in place of this one, durably. What was not written yet is dropped: the
    /// owner's records say it too. After a failure the old log stands as it was; or the new one does, and is unsure,
    /// where only its name may not be durable.
    pub(super) fn rewrite(
        &mut self,
        fill: impl FnOnce(&mut RecordWriter<'_>) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let (file, length) = self.write_beside(fill).map_err(|error| self.io("rewrite", &error))?;
        self.file = file;
        self.length = length;
        self.buffer = Vec::new();
        let flushed = fsync(&self.directory);
        self.unsure = flushed.is_err();
        flushed.map_err(|errno| self.io("flush the directory of", &errno.into()))
    }

    fn write_beside(&self, fill: impl FnOnce(&mut RecordWriter<'_>) -> io::Result<()>) -> io::Result<(File, u64)> {
        let directory = self.directory.as_fd();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC;
        let file = File::from(open_private(directory, self.kind.temporary, flags)?);
        let out = BufWriter::with_capacity(BUFFER_BYTES, &file);
        let mut records = RecordWriter { out, scratch: Vec::new(), length: self.kind.magic.len() as u64 };
        records.out.write_all(self.kind.magic)?;
        fill(&mut records)?;
        records.out.flush()?;
        let length = records.length;
        drop(records);
        file.sync_all()?;
        renameat(directory, self.kind.temporary, directory, self.kind.entry)?;
        Ok((file, length))
    }

    fn io(&self, operation: &'static str, error: &io::Error) -> StoreError {
        StoreError::io(&self.path, None, operation, errno_of(error))
    }
}

/// Takes the records of a log that is being rewritten.
pub(super) struct RecordWriter<'f> {
    out: BufWriter<&'f File>,
    scratch: Vec<u8>,
    length: u64,
}

impl RecordWriter<'_> {
    /// Adds the record that `fill` puts together.
    pub(super) fn put(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.scratch.clear();
        put_record(&mut self.scratch, fill);
        self.length += self.scratch.len() as u64;
        self.out.write_all(&self.scratch)
    }
}

/// The fields of a payload, taken from its front; `None` where it is too short.
pub(super) struct Fields<'p>(pub(super) &'p [u8]);

impl<'p> Fields<'p> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'p [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        Some(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.array()?))
    }
}

fn open_private(directory: BorrowedFd<'_>, entry: &str, flags: OFlag) -> io::Result<OwnedFd> {
    Ok(resolve::open_beneath(directory, entry.as_bytes(), flags, Links::Refuse)?)
}

fn put_record(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    fill(out);
    let payload = &out[start + HEAD_BYTES..];
    let (length, crc) = (payload.len(), block_crc(payload));
    assert!((1..=limits::LOG_RECORD_BYTES_MAX).contains(&length), "a record of {length} bytes");
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    out[start + 4..start + HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// Gives each good record of a file of `held` bytes to `visit`; where the last of them ends, 0 where the file is no
/// such log.
fn read_records(file: &File, held: u64, magic: &[u8], mut visit: impl FnMut(&[u8]) -> bool) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    let mut payload = vec![0; magic.len()];
    if held < magic.len() as u64 {
        return Ok(0);
    }
    // A file that shrinks while it is read is one that another process owns; that is an error like others.
    reader.read_exact(&mut payload)?;
    if payload != magic {
        return Ok(0);
    }
    let mut good = magic.len() as u64;
    while held - good > HEAD_BYTES as u64 {
        let mut head = [0; HEAD_BYTES];
        reader.read_exact(&mut head)?;
        let mut head = Fields(&head);
        let (Some(length), Some(crc)) = (head.u32(), head.u32()) else { break };
        let end = good + HEAD_BYTES as u64 + u64::from(length);
        if length == 0 || length as usize > limits::LOG_RECORD_BYTES_MAX || end > held {
            break;
        }
        payload.resize(length as usize, 0);
        reader.read_exact(&mut payload)?;
        if block_crc(&payload) != crc || !visit(&payload) {
            break;
        }
        good = end;
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: LogKind = LogKind { entry: "log", temporary: "log.new", magic: b"test log 1\n" };

    fn open(path: &Path, flags: OFlag) -> (Log, Vec<Vec<u8>>) {
        let directory = resolve::open_beneath(File::open(path).expect("there").as_fd(), b"", flags, Links::Refuse);
        let mut records = Vec::new();
        let log = Log::open(path, directory.expect("opened"), KIND, |payload| {
            records.push(payload.to_vec());
            true
        });
        (log.expect("opened"), records)
    }

    /// The owner went on in the file that had lost its name, and everything from then on was lost at its end.
    #[test]
    fn a_rewritten_log_whose_directory_cannot_be_flushed_is_gone_on_with() {
        let directory = tempfile::tempdir().expect("a directory");
        // Such a descriptor cannot be flushed: EBADF (open(2)).
        let (mut log, _) = open(directory.path(), OFlag::O_PATH | OFlag::O_DIRECTORY);
        log.append(|out| out.extend_from_slice(b"dead"));
        log.write().expect("written");
        log.rewrite(|records| records.put(|out| out.extend_from_slice(b"first"))).expect_err("it is not durable");
        assert!(log.is_unsure());
        log.append(|out| out.extend_from_slice(b"second"));
        log.write().expect("written");
        drop(log);
        let (mut log, records) = open(directory.path(), OFlag::O_DIRECTORY);
        assert_eq!(records, [b"first".to_vec(), b"second".to_vec()]);
        log.rewrite(|_| Ok(())).expect("durable");
        assert!(!log.is_unsure());
    }
}
