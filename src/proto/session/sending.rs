//! The sending end: announces batches, sends the blocks that the receiver lacks over whatever connection has room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::channel::{Channel, put};
use super::{AT_SENDER, Event, SessionError, words};
use crate::limits;
use crate::transfer::batch::Batch;
use crate::units::{BlockSeq, ByteCount, FileId, LinkId, Offset, Rate, Time, TreePath};
use crate::wire::session::{Again, DATA_HEAD_BYTES, DONE_BYTES, Message, MessageKind, Round, Runs};

/// Blocks of one file that are to go out over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Of the batch that is being sent.
    pub file: FileId,
    /// Where in the file it starts.
    pub offset: Offset,
    /// How long it is.
    pub length: ByteCount,
    /// Its first block.
    pub first: BlockSeq,
    /// Bytes in a block; the last may be shorter.
    pub block_bytes: u32,
}

/// Entries of one batch, ready to be announced.
#[derive(Debug, Default)]
pub struct Announcement {
    /// FILE_INFO of each.
    pub infos: Vec<Box<[u8]>>,
    /// Bytes of each that are to be sent: 0 for what is no regular file.
    pub sizes: Vec<ByteCount>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A batch may be announced.
    Idle,
    /// The receiver looks at what it has.
    Announced,
    /// It has asked for blocks.
    Sending,
    /// Nothing more is announced.
    Ending,
    Over,
}

#[derive(Debug)]
pub(super) struct Sending {
    phase: Phase,
    block_bytes: u32,
    batch: Batch,
    /// What the receiver has of the batch.
    have: Vec<Range<u32>>,
    /// What it asked for again.
    again: Vec<Range<u32>>,
    queue: VecDeque<Range<u32>>,
    failed: BTreeSet<FileId>,
    /// Counts what the receiver has asked for, over the whole session.
    round: u32,
    /// The last round that each connection was told the end of.
    done: BTreeMap<LinkId, u32>,
    /// Control messages of the announcement end before this one.
    announced: u32,
    bucket: Option<Bucket>,
}

/// Keeps to a rate.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// Bytes that may go out; less than none after a train that was longer.
    level: f64,
    at: Time,
}

impl Bucket {
    fn room(&mut self, now: Time) -> usize {
        let most = (self.rate.0 * limits::SESSION_BURST.as_secs_f64()).max(1.0);
        self.level = (self.level + self.rate.0 * now.since(self.at).as_secs_f64()).min(most);
        self.at = now;
        self.level.max(0.0) as usize
    }

    fn opens(&self) -> Time {
        let lacking = (1.0 - self.level).max(0.0);
        self.at + std::time::Duration::from_secs_f64(lacking / self.rate.0)
    }
}

impl Sending {
    pub(super) fn new(block_bytes: u32, limit: Option<Rate>) -> Self {
        Self {
            phase: Phase::Idle,
            block_bytes,
            batch: Batch::new(block_bytes),
            have: Vec::new(),
            again: Vec::new(),
            queue: VecDeque::new(),
            failed: BTreeSet::new(),
            round: 0,
            done: BTreeMap::new(),
            announced: 0,
            bucket: limit.map(|rate| Bucket { rate, level: 0.0, at: Time::default() }),
        }
    }

    pub(super) fn wants_batch(&self) -> bool {
        self.phase == Phase::Idle
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn announce(&mut self, channel: &mut Channel, announcement: Announcement) {
        assert!(self.wants_batch(), "a batch is announced when the one before stands");
        let count = u16::try_from(announcement.infos.len()).expect("a batch has at most 65,535 entries");
        channel.push(&Message::FileCount(count));
        if count == 0 {
            self.phase = Phase::Ending;
            return;
        }
        self.batch = Batch::new(self.block_bytes);
        for size in &announcement.sizes {
            self.batch.push(*size).expect("a batch is cut before its blocks run out");
        }
        announcement.infos.into_iter().for_each(|info| channel.push_encoded(info));
        self.announced = channel.count();
        self.have.clear();
        self.again.clear();
        self.failed.clear();
        self.phase = Phase::Announced;
    }

    pub(super) fn handle_control(
        &mut self,
        channel: &mut Channel,
        link: LinkId,
        message: &Message<'_>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), SessionError> {
        match (message, self.phase) {
            // It answers what was not all sent yet: who goes on like this has the log grow without end.
            (Message::Ready | Message::Verify, Phase::Announced) if channel.sent() < self.announced => {
                return Err(SessionError::unexpected(message.kind(), AT_SENDER));
            }
            (Message::Have(runs), Phase::Announced) => extend(&mut self.have, runs)?,
            (Message::Missing(runs), Phase::Sending) => extend(&mut self.again, runs)?,
            (Message::Ready, Phase::Announced | Phase::Sending) => self.begin_round(channel, events),
            (Message::Verify, Phase::Announced | Phase::Sending) => {
                self.phase = Phase::Idle;
                self.queue.clear();
                channel.forget_before(self.announced);
                events.push_back(Event::BatchDone);
            }
            (Message::Verify, Phase::Ending) => {
                self.phase = Phase::Over;
                events.push_back(Event::Finished);
            }
            (Message::Retransmit(Again::Block(seq)), Phase::Sending) => {
                told(self.again.len() + 1)?;
                self.again.push(seq.0..seq.0.saturating_add(1));
            }
            (Message::Retransmit(Again::Control { kind: MessageKind::Done, .. }), _) => {
                self.done.clear();
                channel.wake();
            }
            (Message::Retransmit(Again::Control { number, .. }), _) => channel.resend(link, *number)?,
            (Message::Change(changes), _) => events.extend(changes.iter().map(Event::Changed)),
            (Message::Deleted { path }, _) => {
                let path = TreePath::new(path).map_err(SessionError::Path)?;
                events.push_back(Event::Deleted { path });
            }
            (Message::Failed { file, text }, _) => {
                // It wants no more of it.
                self.failed.insert(*file);
                events.push_back(Event::Failed { file: *file, reason: words(text) });
            }
            _ => return Err(SessionError::unexpected(message.kind(), AT_SENDER)),
        }
        Ok(())
    }

    fn begin_round(&mut self, channel: &mut Channel, events: &mut VecDeque<Event>) {
        if self.phase == Phase::Announced {
            channel.forget_before(self.announced);
            self.again = without(self.batch.blocks(), std::mem::take(&mut self.have));
        }
        self.phase = Phase::Sending;
        channel.wake();
        self.round += 1;
        let blocks = self.batch.blocks();
        let again = std::mem::take(&mut self.again).into_iter().map(|range| range.start..range.end.min(blocks));
        self.queue = again.filter(|range| !range.is_empty()).collect();
        let wanted = self.queue.iter().map(|range| range.len() as u64).sum();
        events.push_back(Event::Asked { blocks: wanted, round: self.round });
    }

    /// A file cannot be read any more, or is not what was announced.
    pub(super) fn handle_unreadable(&mut self, channel: &mut Channel, file: FileId, reason: &str) {
        if self.failed.insert(file) {
            channel.push(&Message::Failed { file, text: reason });
        }
    }

    pub(super) fn handle_closed(&mut self, link: LinkId) {
        self.done.remove(&link);
    }

    /// Nothing more goes out.
    pub(super) fn stop(&mut self) {
        self.queue.clear();
        self.phase = Phase::Over;
    }

    /// What goes out over a connection: at most `room` bytes of runs, one after the other.
    pub(super) fn transmit(&mut self, link: LinkId, now: Time, room: usize, out: &mut Vec<u8>, runs: &mut Vec<Run>) {
        if self.phase != Phase::Sending {
            return;
        }
        // There may be two of them; in the next train they find room.
        if out.len() + 2 * DONE_BYTES > room {
            return;
        }
        let told = self.done.get(&link).copied().unwrap_or(0);
        if !self.queue.is_empty() && told + 1 < self.round {
            // Rounds ended without it: what comes now must not be taken for what belongs to one of them.
            self.done.insert(link, self.round - 1);
            put(&Message::Done(Round(self.round - 1)), out);
        }
        let message = self.block_bytes as usize + DATA_HEAD_BYTES;
        let mut room = room.saturating_sub(out.len());
        if let Some(bucket) = &mut self.bucket {
            let open = bucket.room(now);
            // A block at a time, however low the rate.
            room = if open == 0 { 0 } else { room.min(open.max(message)) };
        }
        let mut taken = 0;
        while runs.len() < limits::RUNS_PER_TRAIN_MAX
            && let Some(run) = self.take_run(room - taken)
        {
            let blocks = run.length.0.div_ceil(u64::from(self.block_bytes)) as usize;
            taken += run.length.0 as usize + blocks * DATA_HEAD_BYTES;
            runs.push(run);
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.level -= taken as f64;
        }
        if self.queue.is_empty() && runs.is_empty() && self.done.insert(link, self.round) != Some(self.round) {
            put(&Message::Done(Round(self.round)), out);
        }
    }

    /// The next blocks of one file, at most `room` bytes with their heads.
    fn take_run(&mut self, room: usize) -> Option<Run> {
        loop {
            let range = self.queue.front()?.clone();
            let first = BlockSeq(range.start);
            let Some(at) = self.batch.locate(first).filter(|_| range.start < range.end) else {
                self.queue.pop_front();
                continue;
            };
            let end = self.batch.blocks_of(at.file).end.min(range.end);
            if self.failed.contains(&at.file) {
                self.advance(end);
                continue;
            }
            // Small files fill what is left of a train; blocks of large ones are all of one length but the last.
            if at.length + DATA_HEAD_BYTES > room {
                return None;
            }
            let fits = (room / (self.block_bytes as usize + DATA_HEAD_BYTES)).max(1) as u32;
            let last = end.min(first.0.saturating_add(fits));
            self.advance(last);
            let asked = u64::from(last - first.0) * u64::from(self.block_bytes);
            let length = ByteCount(asked.min(self.batch.size_of(at.file).0 - at.offset.0));
            return Some(Run { file: at.file, offset: at.offset, length, first, block_bytes: self.block_bytes });
        }
    }

    /// The first range of the queue is sent up to this block.
    fn advance(&mut self, to: u32) {
        if let Some(range) = self.queue.front_mut() {
            range.start = to;
        }
    }

    /// When there is something to send, or room for it, though nothing happens.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let bucket = self.bucket.as_ref().filter(|_| self.phase == Phase::Sending && !self.queue.is_empty())?;
        Some(bucket.opens())
    }
}

/// A peer that tells of more than there can be is not listened to.
fn told(runs: usize) -> Result<(), SessionError> {
    if runs > limits::RUNS_TOLD_MAX {
        return Err(SessionError::OutOfPlace { what: "a list of blocks", why: "it tells of more than is remembered" });
    }
    Ok(())
}

/// Adds what a message tells.
fn extend(blocks: &mut Vec<Range<u32>>, runs: &Runs<'_>) -> Result<(), SessionError> {
    told(blocks.len() + runs.len())?;
    blocks.extend(runs.iter().map(|run| run.blocks()));
    Ok(())
}

/// What of the first `blocks` is in none of `ranges`.
fn without(blocks: u32, mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut at = 0;
    let mut rest = Vec::new();
    for range in ranges {
        if at < range.start.min(blocks) {
            rest.push(at..range.start.min(blocks));
        }
        at = at.max(range.end);
    }
    if at < blocks {
        rest.push(at..blocks);
    }
    rest
}
