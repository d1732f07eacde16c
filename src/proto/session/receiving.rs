//! The receiving end: learns what there is, says what it lacks, and when a batch stands.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::channel::Channel;
use super::{AT_RECEIVER, Event, NO_ENTRY, SessionError, words};
use crate::limits;
use crate::transfer::batch::{Arrivals, Batch};
use crate::units::{BlockSeq, ByteCount, Entry, FileId, Kind as EntryKind, LinkId, Offset, RangeSet, TreePath};
use crate::wire::session::{Again, BlockRun, ChangesBuf, FileChange, FileInfo, Message, RunsBuf, What};

/// What is to be done with what came in, in this order.
#[derive(Debug)]
pub enum Received {
    /// An entry is announced: look at what is there of it ([`super::Session::handle_examined`]).
    Entry {
        /// Its place in the batch.
        file: FileId,
        /// What it is.
        entry: Box<Entry>,
    },
    /// The last entry of the batch was announced ([`super::Session::handle_listed`]).
    Listed,
    /// Bytes of a file.
    Write {
        /// Which one.
        file: FileId,
        /// Where they belong.
        offset: Offset,
        /// Where they are in what was received.
        at: Range<usize>,
    },
    /// Zeros of a file that need not be written.
    Hole {
        /// Which one.
        file: FileId,
        /// Where they begin.
        offset: Offset,
        /// How many.
        length: ByteCount,
    },
    /// The sender cannot go on with a file.
    GiveUp {
        /// Which one.
        file: FileId,
    },
    /// The sender does not know all that there is.
    Incomplete,
    /// All of the batch is here ([`super::Session::handle_batch_stands`]).
    EndBatch,
    /// Nothing more comes ([`super::Session::handle_ended`]).
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A batch may begin.
    Idle,
    /// Its entries are announced; so many are still to come.
    Listing(u16),
    /// All are announced, and looked at.
    Examining,
    /// Blocks are asked for.
    Fetching,
    /// All are here.
    Landing,
    /// Nothing more comes.
    Ending,
    Over,
}

#[derive(Debug)]
pub(super) struct Receiving {
    phase: Phase,
    block_bytes: u32,
    batch: Batch,
    arrivals: Arrivals,
    info_bytes: usize,
    /// What is there of the entries that were looked at.
    have: Vec<(FileId, Option<RangeSet>)>,
    changes: Vec<FileChange>,
    failed: BTreeSet<FileId>,
    /// The sender has said that it does not know all that there is.
    is_incomplete: bool,
    /// Counts what was asked for, over the whole session.
    round: u32,
    /// What was missing when the round began, ...
    lacked: u64,
    /// ... and how many rounds have ended with no less.
    rounds_in_vain: u32,
    /// The last round that each connection has brought all of.
    done: BTreeMap<LinkId, u32>,
    /// Control messages before this one have been seen when the round is over, or the next batch begins.
    told: u32,
}

impl Receiving {
    pub(super) fn new(block_bytes: u32) -> Self {
        Self {
            phase: Phase::Idle,
            block_bytes,
            batch: Batch::new(block_bytes),
            arrivals: Arrivals::default(),
            info_bytes: 0,
            have: Vec::new(),
            changes: Vec::new(),
            failed: BTreeSet::new(),
            is_incomplete: false,
            round: 0,
            lacked: 0,
            rounds_in_vain: 0,
            done: BTreeMap::new(),
            told: 0,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn handle_control(
        &mut self,
        channel: &mut Channel,
        link: LinkId,
        message: &Message<'_>,
        received: &mut Vec<Received>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), SessionError> {
        match (message, self.phase) {
            (Message::FileCount(_), Phase::Idle) if channel.sent() < self.told => {
                return Err(SessionError::OutOfPlace {
                    what: "FILE_COUNT",
                    why: "it was not told that the last batch stands",
                });
            }
            (Message::FileCount(0), Phase::Idle) => {
                self.phase = Phase::Ending;
                received.push(Received::End);
            }
            (Message::FileCount(count), Phase::Idle) => {
                channel.forget_before(self.told);
                self.batch = Batch::new(self.block_bytes);
                self.info_bytes = 0;
                self.have.clear();
                self.failed.clear();
                self.phase = Phase::Listing(*count);
            }
            (Message::FileInfo(info), Phase::Listing(left)) => self.handle_info(info, left, received)?,
            (Message::LeftOut { is_failure, path, text }, _) => {
                let (path, is_failure) = (TreePath::new(path).map_err(SessionError::Path)?, *is_failure);
                if is_failure {
                    self.note_incomplete(received);
                }
                events.push_back(Event::LeftOut { path, reason: words(text), is_failure });
            }
            (Message::Failed { file, text }, _) if *file == NO_ENTRY => {
                self.note_incomplete(received);
                events.push_back(Event::Failed { file: *file, reason: words(text) });
            }
            (Message::Failed { file, text }, Phase::Listing(_) | Phase::Examining | Phase::Fetching) => {
                if self.give_up(*file) {
                    received.push(Received::GiveUp { file: *file });
                    events.push_back(Event::Failed { file: *file, reason: words(text) });
                }
            }
            // It could not be read while its last blocks were on their way.
            (Message::Failed { .. }, _) => {}
            (Message::Retransmit(Again::Control { number, .. }), _) => channel.resend(link, *number)?,
            _ => return Err(SessionError::unexpected(message.kind(), AT_RECEIVER)),
        }
        Ok(())
    }

    /// The sender does not know all that there is.
    fn note_incomplete(&mut self, received: &mut Vec<Received>) {
        if !std::mem::replace(&mut self.is_incomplete, true) {
            received.push(Received::Incomplete);
        }
    }

    fn handle_info(
        &mut self,
        info: &FileInfo<'_>,
        left: u16,
        received: &mut Vec<Received>,
    ) -> Result<(), SessionError> {
        let file = FileId(self.batch.len() as u16);
        if info.file != file {
            return Err(SessionError::OutOfPlace { what: "FILE_INFO", why: "entries are numbered in their order" });
        }
        let mut entry = info.to_entry().map_err(SessionError::Entry)?;
        entry.unreadable = entry.unreadable.map(|text| words(&text).into());
        self.info_bytes += entry.weight();
        if self.info_bytes > limits::BATCH_INFO_BYTES_MAX {
            return Err(SessionError::OutOfPlace { what: "FILE_INFO", why: "the batch is too long to be remembered" });
        }
        let size = if entry.kind == EntryKind::File { entry.size } else { ByteCount(0) };
        self.batch
            .push(size)
            .map_err(|_| SessionError::OutOfPlace { what: "FILE_INFO", why: "the batch has too many blocks" })?;
        received.push(Received::Entry { file, entry: Box::new(entry) });
        self.phase = Phase::Listing(left - 1);
        if left == 1 {
            self.phase = Phase::Examining;
            received.push(Received::Listed);
        }
        Ok(())
    }

    /// A file gets no more bytes; false where that is known.
    fn give_up(&mut self, file: FileId) -> bool {
        if !self.failed.insert(file) {
            return false;
        }
        // Until all entries were looked at, arrivals are those of the batch before.
        if matches!(self.phase, Phase::Fetching | Phase::Landing) {
            self.arrivals.insert(&self.batch, file, self.batch.blocks_of(file));
        }
        true
    }

    /// An entry was looked at: `None` for what needs no bytes, else what is there of it.
    pub(super) fn handle_examined(&mut self, file: FileId, what: Option<What>, have: Option<RangeSet>) {
        self.have.push((file, have));
        self.changes.extend(what.map(|what| FileChange { file, what }));
    }

    /// All entries were looked at, or reported as failed.
    pub(super) fn handle_listed(&mut self, channel: &mut Channel, received: &mut Vec<Received>) {
        // It ended while its rim was at work: what that reports says nothing any more.
        if self.is_over() {
            return;
        }
        assert_eq!(self.phase, Phase::Examining, "entries are looked at once they are all announced");
        self.arrivals = Arrivals::of(&self.batch);
        for &file in &self.failed {
            self.arrivals.insert(&self.batch, file, self.batch.blocks_of(file));
        }
        for (file, have) in std::mem::take(&mut self.have) {
            match have {
                None => drop(self.arrivals.insert(&self.batch, file, self.batch.blocks_of(file))),
                Some(ranges) => {
                    for blocks in self.batch.within(file, &ranges) {
                        self.arrivals.insert(&self.batch, file, blocks);
                    }
                }
            }
        }
        for changes in std::mem::take(&mut self.changes).chunks(ChangesBuf::ITEMS_MAX) {
            let mut list = ChangesBuf::new();
            assert!(changes.iter().all(|change| list.push(*change)), "as many were taken as fit");
            channel.push(&Message::Change(list.as_list()));
        }
        self.phase = Phase::Fetching;
        if self.arrivals.missing_count() == 0 {
            return self.check(channel, received);
        }
        let missing = self.arrivals.missing(&self.batch);
        let have = gaps(self.batch.blocks(), &missing);
        for list in lists(&have) {
            channel.push(&Message::Have(list.as_list()));
        }
        self.rounds_in_vain = 0;
        self.begin_round(channel);
    }

    fn begin_round(&mut self, channel: &mut Channel) {
        self.round += 1;
        self.lacked = self.arrivals.missing_count();
        channel.push(&Message::Ready);
        self.told = channel.count();
    }

    pub(super) fn handle_data(
        &mut self,
        link: LinkId,
        file: FileId,
        seq: BlockSeq,
        at: Range<usize>,
        received: &mut Vec<Received>,
    ) -> Result<(), SessionError> {
        let error = SessionError::OutOfPlace { what: "DATA", why: "it is not a block that was announced" };
        if self.is_late(link).ok_or(error.clone())? {
            return Ok(());
        }
        let located = self.batch.locate(seq);
        let located = located.filter(|located| located.file == file && located.length == at.len()).ok_or(error)?;
        if self.arrivals.insert(&self.batch, file, seq.0..seq.0 + 1) > 0 {
            received.push(Received::Write { file, offset: located.offset, at });
        }
        self.check_runs("DATA")
    }

    /// What comes in one gap after another takes memory for each of them.
    fn check_runs(&self, what: &'static str) -> Result<(), SessionError> {
        match self.arrivals.run_count() <= limits::ARRIVED_RUNS_MAX {
            true => Ok(()),
            false => {
                Err(SessionError::OutOfPlace { what, why: "blocks come in no order, with too many gaps between them" })
            }
        }
    }

    /// Whether what comes over a connection now was asked for in an earlier round, or for a file that was given up
    /// meanwhile: its numbers may be those of another batch. `None` where nothing was asked for that could come yet.
    fn is_late(&self, link: LinkId) -> Option<bool> {
        let brought = self.done.get(&link).copied().unwrap_or(0);
        (brought < self.round).then(|| brought + 1 < self.round || self.phase != Phase::Fetching)
    }

    pub(super) fn handle_hole(
        &mut self,
        link: LinkId,
        run: BlockRun,
        received: &mut Vec<Received>,
    ) -> Result<(), SessionError> {
        let error =
            SessionError::OutOfPlace { what: "HOLE", why: "it is not of blocks of one file that were announced" };
        if self.is_late(link).ok_or(error.clone())? {
            return Ok(());
        }
        let blocks = run.blocks();
        let first = self.batch.locate(BlockSeq(blocks.start));
        let Some((first, last)) = first.zip(self.batch.locate(BlockSeq(blocks.end - 1))) else { return Err(error) };
        if first.file != last.file {
            return Err(error);
        }
        let count = blocks.len() as u64;
        match self.arrivals.insert(&self.batch, first.file, blocks) {
            0 => {}
            new if new == count => {
                let length = ByteCount(last.offset.0 + last.length as u64 - first.offset.0);
                received.push(Received::Hole { file: first.file, offset: first.offset, length });
            }
            _ => return Err(error),
        }
        self.check_runs("HOLE")
    }

    /// A connection has brought all that was to come over it in a round.
    pub(super) fn handle_done(&mut self, link: LinkId, round: u32) {
        self.done.insert(link, round);
    }

    /// Files that cannot be written need no more bytes.
    pub(super) fn handle_unwritable(&mut self, channel: &mut Channel, file: FileId, reason: &str) {
        self.give_up(file);
        channel.push(&Message::Failed { file, text: reason });
    }

    /// Looks whether the round is over, and what follows.
    pub(super) fn check(&mut self, channel: &mut Channel, received: &mut Vec<Received>) {
        if self.phase != Phase::Fetching {
            return;
        }
        if self.arrivals.missing_count() == 0 {
            self.phase = Phase::Landing;
            received.push(Received::EndBatch);
            return;
        }
        let round = self.round;
        if !channel.connections().all(|link| self.done.get(&link).is_some_and(|done| *done == round)) {
            return;
        }
        if channel.sent() < self.told {
            // The sender cannot know of the round that it says is over.
            return;
        }
        channel.forget_before(self.told);
        self.rounds_in_vain = if self.arrivals.missing_count() < self.lacked { 0 } else { self.rounds_in_vain + 1 };
        // Damaged on the way, or lost with a connection.
        let missing = self.arrivals.missing(&self.batch);
        if self.arrivals.missing_count() <= limits::RETRANSMIT_EACH_MAX {
            for seq in missing.into_iter().flatten() {
                channel.push(&Message::Retransmit(Again::Block(BlockSeq(seq))));
            }
        } else {
            for list in lists(&missing) {
                channel.push(&Message::Missing(list.as_list()));
            }
        }
        self.begin_round(channel);
    }

    /// Whether there is any use in asking once more.
    pub(super) fn check_hope(&self) -> Result<(), SessionError> {
        if self.rounds_in_vain < limits::ROUNDS_IN_VAIN_MAX {
            return Ok(());
        }
        let why = "nothing of what is missing comes, or only damaged, however often it is asked for";
        Err(SessionError::OutOfPlace { what: "DONE", why })
    }

    /// Nothing more is taken in.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Over;
    }

    pub(super) fn handle_closed(&mut self, link: LinkId) {
        self.done.remove(&link);
    }

    pub(super) fn handle_batch_stands(&mut self, channel: &mut Channel) {
        // It ended while its rim was at work: what that reports says nothing any more.
        if self.is_over() {
            return;
        }
        assert_eq!(self.phase, Phase::Landing, "a batch stands when all of it is here");
        channel.push(&Message::Verify);
        self.told = channel.count();
        self.phase = Phase::Idle;
    }

    pub(super) fn handle_ended(&mut self, channel: &mut Channel, deleted: &[TreePath]) {
        // It ended while its rim was at work: what that reports says nothing any more.
        if self.is_over() {
            return;
        }
        assert_eq!(self.phase, Phase::Ending, "the end was announced");
        deleted.iter().for_each(|path| channel.push(&Message::Deleted { path: path.as_bytes() }));
        channel.push(&Message::Verify);
        self.phase = Phase::Over;
    }
}

/// Blocks as messages hold them.
fn lists(blocks: &[Range<u32>]) -> impl Iterator<Item = RunsBuf> {
    blocks.chunks(RunsBuf::ITEMS_MAX).map(|ranges| {
        let mut list = RunsBuf::new();
        for run in ranges.iter().cloned().filter_map(BlockRun::of) {
            assert!(list.push(run), "as many were taken as fit");
        }
        list
    })
}

/// What of the first `blocks` is in none of `missing`, which rise and do not touch.
fn gaps(blocks: u32, missing: &[Range<u32>]) -> Vec<Range<u32>> {
    let starts = std::iter::once(0).chain(missing.iter().map(|range| range.end));
    let ends = missing.iter().map(|range| range.start).chain(std::iter::once(blocks));
    starts.zip(ends).filter(|(start, end)| start < end).map(|(start, end)| start..end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_in_no_order_take_bounded_memory() {
        // A client had 5 MB of HOLE messages, each for every second block, hold up a whole node for minutes.
        let mut receiving = Receiving::new(512);
        let pieces = limits::ARRIVED_RUNS_MAX as u32;
        receiving.batch.push(ByteCount(512 * 2 * (u64::from(pieces) + 1))).expect("fits");
        receiving.arrivals = Arrivals::of(&receiving.batch);
        receiving.phase = Phase::Fetching;
        receiving.round = 1;
        let mut received = Vec::new();
        let mut hole = |piece: u32| {
            received.clear();
            receiving.handle_hole(LinkId(0), BlockRun::new(BlockSeq(2 * piece), 1).expect("a run"), &mut received)
        };
        for piece in (1..=pieces).rev() {
            hole(piece).expect("it may be on its way over another connection");
        }
        assert!(hole(0).expect_err("too many pieces").ends_session());
    }
}
