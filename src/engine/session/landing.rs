//! The receiving side's disk: one thread a session that makes what was announced and writes what comes.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Instant;

use super::running::{Counters, Running};
use super::server::Share;
use crate::limits;
use crate::proto::session::Received;
use crate::store::tree::{self, Ended, Examined, Landing, TreeError};
use crate::transfer::batch::whole_blocks;
use crate::units::{ByteCount, Entry, FileId, Kind, Offset, RangeSet, TreePath};
use crate::uring::Buffer;
use crate::wire::session::{FileChange, What};

/// Work for the writer.
pub(super) enum Job {
    /// Do what the protocol says, with the bytes that came.
    Follow { buffer: Option<Buffer>, received: Vec<Received> },
    /// The session has ended.
    Stop,
}

impl Job {
    /// What it counts for while it waits, bytes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Follow { buffer, received } => {
                let entries = received.iter().map(|received| match received {
                    Received::Entry { entry, .. } => entry.weight(),
                    _ => 0,
                });
                let bytes = buffer.as_ref().map_or(0, |buffer| buffer.filled().len());
                bytes + size_of_val(&received[..]) + entries.sum::<usize>()
            }
            Self::Stop => 0,
        }
    }
}

struct Writer {
    session: Arc<Running>,
    landing: Landing,
    /// Behind the landing, which has the tree as well.
    _share: Option<Share>,
    block_bytes: u32,
    is_dry_run: bool,
    /// Entries of the batch that were looked at, and what is needed of them.
    examined: Vec<(FileId, Option<What>, Option<RangeSet>)>,
    paths: Vec<TreePath>,
    /// Bytes that files still lack.
    lacking: BTreeMap<FileId, u64>,
    /// Another session has a file that is needed here: until when that is waited for, in all.
    busy_until: Option<Instant>,
    /// The sender told of all that it has: what it could not list may be anything.
    is_complete: bool,
}

/// Starts the writer of a session.
pub(super) fn spawn(
    session: Arc<Running>,
    (mut landing, share): (Landing, Option<Share>),
    block_bytes: u32,
    is_dry_run: bool,
    jobs: Receiver<Job>,
) -> std::io::Result<JoinHandle<()>> {
    landing.stop_when(Arc::clone(&session.is_over));
    let mut writer = Writer {
        session,
        landing,
        _share: share,
        block_bytes,
        is_dry_run,
        examined: Vec::new(),
        paths: Vec::new(),
        lacking: BTreeMap::new(),
        busy_until: None,
        is_complete: true,
    };
    crate::engine::spawn("ss-session", move || {
        while let Some(job) = writer.next(&jobs) {
            let weight = job.weight();
            let Job::Follow { buffer, received } = job else { break };
            writer.follow(buffer.as_ref().map_or(&[], |buffer| buffer.filled()), received);
            drop(buffer);
            writer.session.shrink_backlog(weight);
        }
    })
}

impl Writer {
    /// The next job; before it waits for one, what was written is put where the next run finds it.
    fn next(&mut self, jobs: &Receiver<Job>) -> Option<Job> {
        if let Ok(job) = jobs.try_recv() {
            return Some(job);
        }
        if let Err(error) = self.landing.flush() {
            tracing::warn!(
                peer = self.session.peer,
                "an interrupted transfer would not go on where it is now: {error}"
            );
        }
        jobs.recv().ok()
    }

    fn follow(&mut self, bytes: &[u8], received: Vec<Received>) {
        let mut slices: Vec<IoSlice<'_>> = Vec::new();
        let mut pending: Option<(FileId, Offset, u64)> = None;
        for item in received {
            if let Received::Write { file, offset, at } = &item {
                let length = at.len() as u64;
                match &mut pending {
                    // Blocks that follow one another are one write.
                    Some((of, from, long)) if of == file && from.0 + *long == offset.0 => *long += length,
                    _ => {
                        self.write(pending.take(), &mut slices);
                        pending = Some((*file, *offset, length));
                    }
                }
                slices.push(IoSlice::new(&bytes[at.clone()]));
                continue;
            }
            self.write(pending.take(), &mut slices);
            self.handle(item);
        }
        self.write(pending, &mut slices);
    }

    fn write(&mut self, run: Option<(FileId, Offset, u64)>, slices: &mut Vec<IoSlice<'_>>) {
        let Some((file, offset, length)) = run else { return };
        let result = if self.lacking.contains_key(&file) { self.landing.write(file.0, offset, slices) } else { Ok(()) };
        slices.clear();
        let counters = &self.session.counters;
        Counters::add(&counters.bytes_done, length);
        Counters::add(&counters.bytes_data, length);
        match result {
            Ok(()) => self.fill(file, length),
            Err(error) => self.give_up(file, &error.to_string()),
        }
    }

    /// So much of a file is here; the last of it makes the file final.
    fn fill(&mut self, file: FileId, length: u64) {
        let Some(lacking) = self.lacking.get_mut(&file) else { return };
        *lacking = lacking.saturating_sub(length);
        if *lacking > 0 {
            return;
        }
        self.lacking.remove(&file);
        if let Err(error) = self.landing.finish(file.0) {
            self.give_up(file, &error.to_string());
        }
    }

    fn give_up(&mut self, file: FileId, reason: &str) {
        self.lacking.remove(&file);
        self.landing.give_up(file.0);
        let mut core = self.session.lock();
        let path = core.path_of(file);
        self.is_complete &= !is_ignore_file(&path);
        let mut received = Vec::new();
        core.protocol.handle_unwritable(file, reason, &mut received);
        self.session.follow(None, received);
        self.session.uncount(&mut core, file);
        self.session.drain(core, None);
        self.session.handle_failed(path, reason.to_owned());
    }

    fn handle(&mut self, received: Received) {
        match received {
            Received::Entry { file, entry } => self.examine(file, *entry),
            Received::Listed => self.list(),
            Received::Hole { file, offset, length } if self.lacking.contains_key(&file) => {
                Counters::add(&self.session.counters.bytes_done, length.0);
                match self.landing.hole(file.0, offset, length) {
                    Ok(()) => self.fill(file, length.0),
                    Err(error) => self.give_up(file, &error.to_string()),
                }
            }
            Received::Write { .. } | Received::Hole { .. } => {}
            // Bytes that came are kept for the next run; nothing else is worth the time of one who waits for the end.
            _ if self.session.has_ended() => {}
            Received::GiveUp { file } => {
                let mut core = self.session.lock();
                self.is_complete &= !is_ignore_file(&core.path_of(file));
                // It may have failed before it was looked at.
                self.session.uncount(&mut core, file);
                drop(core);
                if self.lacking.remove(&file).is_some() {
                    self.landing.give_up(file.0);
                }
            }
            Received::Incomplete => self.is_complete = false,
            Received::EndBatch => self.end_batch(),
            Received::End => self.end(),
        }
    }

    fn examine(&mut self, file: FileId, entry: Entry) {
        let session = Arc::clone(&self.session);
        let counters = &session.counters;
        let size = if entry.kind == Kind::File { entry.size.0 } else { 0 };
        Counters::add(&counters.entries_found, 1);
        Counters::add(&counters.bytes_total, size);
        self.paths.push(entry.path.clone());
        match self.examine_when_free(file, entry) {
            Ok(Examined::Same) => {
                Counters::add(&counters.bytes_skipped, size);
                self.examined.push((file, None, None));
            }
            Ok(Examined::Made(change)) => self.examined.push((file, Some(what(change)), None)),
            Ok(Examined::Wanted { change, .. }) if self.is_dry_run => {
                Counters::add(&counters.bytes_wanted, size);
                self.examined.push((file, Some(what(change)), None));
            }
            Ok(Examined::Wanted { change, have }) => {
                Counters::add(&counters.bytes_wanted, size);
                let have = whole_blocks(&have, ByteCount(size), self.block_bytes);
                let held = have.total().0;
                Counters::add(&counters.bytes_skipped, held);
                self.lacking.insert(file, size - held);
                self.examined.push((file, Some(what(change)), Some(have)));
            }
            Err(error) => {
                // It is not among those that are known to be there.
                self.is_complete &=
                    !matches!(error, TreeError::TooMany { .. } | TreeError::Crowded { .. } | TreeError::Refused { .. });
                self.session.lock().paths.clone_from(&self.paths);
                self.give_up(file, &error.to_string());
            }
        }
    }

    /// Looks at an entry; where another session is bringing the same file in, waits for that to end: it may be an
    /// earlier run whose client is gone, which takes a moment to show, and what it has need not come again. Not longer
    /// for many files than for one; then both bring it in, and it is the last one's that stands.
    fn examine_when_free(&mut self, file: FileId, entry: Entry) -> Result<Examined, TreeError> {
        loop {
            let outcome = self.landing.examine(file.0, entry.clone());
            let Err(TreeError::Busy { .. }) = outcome else { return outcome };
            let by = *self.busy_until.get_or_insert_with(|| Instant::now() + limits::SESSION_BUSY_WITHIN);
            if self.session.has_ended() {
                return outcome;
            }
            if Instant::now() >= by {
                self.landing.wait_no_more();
                continue;
            }
            std::thread::sleep(limits::SESSION_LOOK_EVERY);
        }
    }

    fn list(&mut self) {
        self.session.wait_for_reader();
        let mut core = self.session.lock();
        core.paths = std::mem::take(&mut self.paths);
        for (file, what, have) in self.examined.drain(..) {
            if let Some(what) = what {
                self.session.handle_changed(&mut core, FileChange { file, what });
            }
            core.protocol.handle_examined(file, what, have);
        }
        let mut received = Vec::new();
        core.protocol.handle_listed(&mut received);
        self.session.follow(None, received);
        self.session.drain(core, None);
        // All of these was there before, under a name that no other run knows.
        let whole: Vec<FileId> =
            self.lacking.iter().filter(|(_, lacking)| **lacking == 0).map(|(&file, _)| file).collect();
        whole.into_iter().for_each(|file| self.fill(file, 0));
    }

    fn end_batch(&mut self) {
        for (id, error) in self.landing.end_batch() {
            self.give_up(FileId(id), &error.to_string());
        }
        // Only a sender that gives a file up before it has announced it.
        let rest = std::mem::take(&mut self.lacking);
        rest.into_keys().for_each(|file| self.give_up(file, "its sender did not send all of it"));
        let mut core = self.session.lock();
        Counters::add(&self.session.counters.entries_done, core.paths.len() as u64);
        self.session.report_changes(&mut core);
        core.protocol.handle_batch_stands();
        self.session.drain(core, None);
    }

    fn end(&mut self) {
        let Ended { deleted, failed } = self.landing.end(self.is_complete);
        let spares = self.landing.deletes() && !self.is_complete;
        let spared = spares.then(|| "nothing is deleted, as the sender could not list all that it has".to_owned());
        let failed = failed.into_iter().map(|(path, error)| (path, error.to_string()));
        let failed: Vec<_> = failed.chain(spared.map(|reason| (TreePath::top(), reason))).collect();
        for (path, reason) in &failed {
            self.session.handle_failed(path.clone(), reason.clone());
        }
        deleted.iter().for_each(|path| self.session.handle_deleted(path.clone()));
        let mut core = self.session.lock();
        failed.iter().for_each(|(_, reason)| core.protocol.note(reason));
        core.protocol.handle_ended(&deleted);
        self.session.finish(&mut core);
        self.session.drain(core, None);
    }
}

/// What such a file leaves out is not known where it does not come.
fn is_ignore_file(path: &TreePath) -> bool {
    path.name() == limits::IGNORE_FILE.as_bytes()
}

fn what(change: tree::Change) -> What {
    match change {
        tree::Change::New => What::New,
        tree::Change::Content => What::Content,
        tree::Change::Attributes => What::Attributes,
    }
}
