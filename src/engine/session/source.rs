//! The sending side's disk: walks the tree ahead of the session, reads blocks into trains.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::running::{Counters, Ending, Running};
use crate::limits;
use crate::proto::session::{Announcement, Run};
use crate::store::tree::{Found, OpenFile, TreeError, Walk};
use crate::units::{BlockSeq, ByteCount, FileId, Kind, Offset, TreePath};
use crate::uring::Gather;
use crate::wire::session::{BlockRun, DATA_HEAD_BYTES, FileInfo, Message, data_head, encode};

/// The file that a connection read last.
pub(super) struct Opened {
    batch: Arc<Vec<Found>>,
    file: FileId,
    open: OpenFile,
}

/// Walks the tree on a thread of its own, one batch ahead of what is being sent, until all is announced or the session
/// has ended.
/// A receiver that wants to know is told of each entry that is left out; others, of those that should not have been.
pub(super) fn scan(session: &Arc<Running>, mut walk: Walk, block_bytes: u32, tells: bool) {
    let mut most = limits::BATCH_ENTRIES_FIRST;
    let mut carried = Vec::new();
    loop {
        let batch = match next_batch(session, &mut walk, &mut carried, (most, tells), block_bytes) {
            Ok(batch) => batch,
            Err(error) => {
                let mut core = session.lock();
                session.fail(&mut core, Ending::Local(error.to_string()));
                return session.drain(core, None);
            }
        };
        most = (2 * most).min(limits::BATCH_ENTRIES_MAX);
        session.wait_for_reader();
        let is_last = batch.found.is_empty();
        if is_last {
            session.counters.is_scanned.store(true, Ordering::Relaxed);
        }
        let mut core = session.lock();
        while core.ended.is_none() && !core.protocol.wants_batch() {
            core = match session.turned.wait(core) {
                Ok(core) => core,
                Err(poisoned) => poisoned.into_inner(),
            };
        }
        if core.ended.is_some() {
            return;
        }
        core.batch = Arc::new(batch.found);
        for LeftOut { path, reason, is_failure } in batch.left_out {
            match tells {
                true => core.protocol.leave_out(&path, &reason, is_failure),
                false => core.protocol.note(&format!("{path}: {reason}")),
            }
        }
        if batch.unnamed > 0 {
            core.protocol.note(&format!("{} more entries are left out", batch.unnamed));
        }
        if batch.unnamed_skipped > 0 {
            let reason = format!("{} more entries are skipped", batch.unnamed_skipped);
            core.protocol.leave_out(&TreePath::top(), &reason, false);
        }
        core.protocol.announce(batch.announcement);
        session.drain(core, None);
        if is_last {
            return;
        }
    }
}

#[derive(Default)]
struct Prepared {
    found: Vec<Found>,
    announcement: Announcement,
    /// What the walk could not look at, so that the receiver knows that it does not know all; and what else is not
    /// sent, where it is to be told.
    left_out: Vec<LeftOut>,
    /// How much more there is of that.
    unnamed: u64,
    unnamed_skipped: u64,
}

struct LeftOut {
    path: TreePath,
    reason: String,
    /// It should have been sent.
    is_failure: bool,
}

impl Prepared {
    /// Tells of what the walk has skipped; whether that was anything.
    fn tell_skipped(&mut self, session: &Running, walk: &mut Walk, tells: bool) -> bool {
        let skipped = walk.take_skipped();
        let is_any = !skipped.is_empty();
        for skipped in skipped {
            let reason = skipped.reason.to_string();
            if skipped.reason.is_failure() {
                self.leave_out(session, skipped.path, reason);
            } else {
                if tells && self.left_out.len() < limits::SKIPPED_MAX {
                    let (path, reason) = (skipped.path.clone(), reason.clone());
                    self.left_out.push(LeftOut { path, reason, is_failure: false });
                } else if tells {
                    self.unnamed_skipped += 1;
                }
                session.handle_skipped(skipped.path, reason);
            }
        }
        if is_any {
            session.wait_for_reader();
        }
        is_any
    }

    /// What stands at `path` is not announced, which both ends are told.
    fn leave_out(&mut self, session: &Running, path: TreePath, reason: String) {
        match self.left_out.len() < limits::SKIPPED_MAX {
            true => self.left_out.push(LeftOut { path: path.clone(), reason: reason.clone(), is_failure: true }),
            false => self.unnamed += 1,
        }
        session.handle_failed(path, reason);
    }
}

/// The next entries, `most` of them, and how they are announced. `carried` is what did not fit the batch before.
fn next_batch(
    session: &Running,
    walk: &mut Walk,
    carried: &mut Vec<Found>,
    (most, tells): (usize, bool),
    block_bytes: u32,
) -> Result<Prepared, TreeError> {
    let mut prepared = Prepared::default();
    let mut blocks = 0;
    let mut bytes = 0;
    loop {
        let more =
            if carried.is_empty() { walk.next_batch(most - prepared.found.len())? } else { std::mem::take(carried) };
        let has_skipped = prepared.tell_skipped(session, walk, tells);
        let ended = more.is_empty() && !has_skipped;
        let mut more = more.into_iter();
        for found in more.by_ref() {
            let file = FileId(prepared.found.len() as u16);
            let size = if found.entry.kind == Kind::File { found.entry.size } else { ByteCount(0) };
            let needed = size.0.div_ceil(u64::from(block_bytes));
            if needed > u64::from(u32::MAX) {
                let reason = format!("it has {size}, more than {} blocks of {block_bytes} bytes", u32::MAX);
                prepared.leave_out(session, found.entry.path, reason);
                continue;
            }
            if blocks + needed > u64::from(u32::MAX) {
                carried.push(found);
                break;
            }
            let mut info = Vec::new();
            let info_of = FileInfo::of_entry(&found.entry, file);
            if let Err(error) = encode(&Message::FileInfo(info_of), &mut info) {
                prepared.leave_out(session, found.entry.path, error.to_string());
                continue;
            }
            bytes += info.len() + limits::ENTRY_BYTES;
            if !prepared.found.is_empty() && bytes > limits::BATCH_INFO_BYTES_SENT {
                carried.push(found);
                break;
            }
            blocks += needed;
            Counters::add(&session.counters.entries_found, 1);
            Counters::add(&session.counters.bytes_total, size.0);
            prepared.announcement.infos.push(info.into());
            prepared.announcement.sizes.push(size);
            prepared.found.push(found);
        }
        carried.extend(more);
        if ended || !carried.is_empty() || prepared.found.len() >= most {
            return Ok(prepared);
        }
    }
}

/// Reads a run into the train, as DATA messages or a HOLE; how many bytes were read. An error says why the file cannot
/// be sent; the train is then as it was.
pub(super) fn lay_out(
    train: &mut Gather,
    batch: &Arc<Vec<Found>>,
    run: Run,
    opened: &mut Option<Opened>,
) -> Result<u64, String> {
    let mark = train.mark();
    let result = try_lay_out(train, batch, run, opened);
    if result.is_err() {
        train.truncate_to(mark);
        *opened = None;
    }
    result
}

fn try_lay_out(
    train: &mut Gather,
    batch: &Arc<Vec<Found>>,
    run: Run,
    opened: &mut Option<Opened>,
) -> Result<u64, String> {
    let found = &batch[usize::from(run.file.0)];
    if run.length == found.entry.size && run.length.0 <= u64::from(run.block_bytes) && !found.entry.is_sparse {
        let space = train.arena_mut(DATA_HEAD_BYTES + run.length.0 as usize);
        let (head, data) = space.expect("runs are cut to the room of a train").split_at_mut(DATA_HEAD_BYTES);
        found.read_whole(data).map_err(|error| error.to_string())?;
        head.copy_from_slice(&data_head(run.file, run.first, data));
        return Ok(run.length.0);
    }
    let is_open = |open: &Opened| open.file == run.file && Arc::ptr_eq(&open.batch, batch);
    if !opened.as_ref().is_some_and(is_open) {
        let open = found.open().map_err(|error| error.to_string())?;
        *opened = Some(Opened { batch: Arc::clone(batch), file: run.file, open });
    }
    let open = &opened.as_ref().ok_or("it was not opened")?.open;
    let end = run.offset.0 + run.length.0;
    let block = u64::from(run.block_bytes);
    let mut at = run.offset.0;
    let mut seq = run.first.0;
    let mut read = 0;
    while at < end {
        let data = if found.entry.is_sparse { open.next_data(Offset(at)).map_or(end, |(data, _)| data.0) } else { at };
        // Whole blocks that lie in a hole; the file's end ends its last block.
        let blocks = if data >= end { (end - at).div_ceil(block) } else { (data - at) / block };
        if let Some(hole) = BlockRun::new(BlockSeq(seq), blocks as u32) {
            let mut message = Vec::new();
            encode(&Message::Hole(hole), &mut message).map_err(|error| error.to_string())?;
            let fits = train.push_bytes(&message);
            assert!(fits, "it is shorter than the blocks that it stands for");
            at += blocks * block;
            seq += blocks as u32;
            continue;
        }
        let length = (end - at).min(block) as usize;
        let space = train.arena_mut(DATA_HEAD_BYTES + length).expect("runs are cut to the room of a train");
        let (head, data) = space.split_at_mut(DATA_HEAD_BYTES);
        open.read_exact_at(data, Offset(at)).map_err(|error| error.to_string())?;
        head.copy_from_slice(&data_head(run.file, BlockSeq(seq), data));
        at += length as u64;
        seq += 1;
        read += length as u64;
    }
    open.verify_unchanged().map_err(|error| error.to_string())?;
    Ok(read)
}
