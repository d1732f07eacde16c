//! A session that runs: its protocol behind a lock, its disk side, its connections, and what a person is told of it.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use super::job::{Change, Report, SessionFeed, SessionProgress, Summary};
use super::landing::Job;
use super::source::{self, Opened};
use crate::engine::inbox::Message as Note;
use crate::engine::shared::{Shared, lock};
use crate::limits;
use crate::proto::session::{self, Event, Received, Run, Session};
use crate::store::tree::Found;
use crate::units::{FileId, Kind, LinkId, SessionId, Time, TreePath};
use crate::uring::{Buffer, Gather};
use crate::wire::session::{ErrorCode, FileChange, What};

/// A session of this engine, as its connections and its threads share it.
pub(in crate::engine) struct Running {
    shared: Arc<Shared>,
    /// The peer's address, for people.
    pub(super) peer: String,
    pub(super) id: OnceLock<SessionId>,
    core: Mutex<Core>,
    /// A batch may be announced, or the session has ended.
    pub(super) turned: Condvar,
    /// Its connections and their workers.
    links: Mutex<BTreeMap<LinkId, usize>>,
    /// Of a receiver: the way to its writer.
    writer: Option<Sender<Job>>,
    /// Of a client: who is told what happens.
    feed: Option<SessionFeed>,
    /// The weight of what waits for the writer, bytes.
    backlog: AtomicUsize,
    pub(super) counters: Counters,
    /// It has ended; for whoever must not wait for the lock, or is busy for long.
    pub(super) is_over: Arc<AtomicBool>,
    started: Instant,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("peer", &self.peer).field("id", &self.id).finish_non_exhaustive()
    }
}

/// What the lock holds.
pub(super) struct Core {
    pub(super) protocol: Session,
    /// Of a sender: the batch that is being sent.
    pub(super) batch: Arc<Vec<Found>>,
    /// Of a receiver: the paths of the batch that is arriving.
    pub(super) paths: Vec<TreePath>,
    /// What was counted of the entries of the batch, and is told when it stands.
    counted: BTreeMap<FileId, Change>,
    /// How it ended.
    pub(super) ended: Option<Ending>,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ending {
    /// Everything stands.
    #[error("everything stands")]
    Done,
    /// The peer does not want it, or not any more.
    #[error("the peer says: {text}")]
    Refused { code: ErrorCode, text: String },
    /// The last connection is gone.
    #[error("{0}")]
    Lost(String),
    /// There never was a session: nobody who speaks of it is there.
    #[error("{0}")]
    NoSession(String),
    /// The peer does not keep to the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The tree on this side cannot be read.
    #[error("{0}")]
    Local(String),
    /// This end was told to stop.
    #[error("this end was told to stop")]
    Stopped,
}

impl Ending {
    /// What an error of the protocol that ends the session makes of it.
    pub(super) fn of(error: &session::SessionError) -> Self {
        match error {
            session::SessionError::Refused { code, text } => Self::Refused { code: *code, text: text.clone() },
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// What people watch.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) entries_found: AtomicU64,
    pub(super) entries_done: AtomicU64,
    pub(super) bytes_total: AtomicU64,
    pub(super) bytes_done: AtomicU64,
    pub(super) bytes_skipped: AtomicU64,
    /// Payload that went over the wire, again or not.
    pub(super) bytes_data: AtomicU64,
    /// Of files whose content is new or another.
    pub(super) bytes_wanted: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    pub(super) is_scanned: AtomicBool,
    pub(super) new: AtomicU64,
    pub(super) changed: AtomicU64,
    pub(super) attributes: AtomicU64,
    pub(super) deleted: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) skipped: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    fn of(&self, change: Change) -> &AtomicU64 {
        match change {
            Change::New => &self.new,
            Change::Content => &self.changed,
            Change::Attributes => &self.attributes,
        }
    }

    fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

impl Running {
    /// A session with `peer`. A receiver has a writer; a client has a feed.
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: String,
        protocol: Session,
        writer: Option<Sender<Job>>,
        feed: Option<SessionFeed>,
    ) -> Arc<Self> {
        let core = Core { protocol, batch: Arc::default(), paths: Vec::new(), counted: BTreeMap::new(), ended: None };
        Arc::new(Self {
            shared,
            peer,
            id: OnceLock::new(),
            core: Mutex::new(core),
            turned: Condvar::new(),
            links: Mutex::default(),
            writer,
            feed,
            backlog: AtomicUsize::new(0),
            counters: Counters::default(),
            is_over: Arc::default(),
            started: Instant::now(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    // -- connections -------------------------------------------------------------------------------------------------

    pub(super) fn add_link(&self, link: LinkId, worker: usize) {
        lock(&self.links).insert(link, worker);
    }

    pub(super) fn link_count(&self) -> usize {
        lock(&self.links).len()
    }

    pub(super) fn handle_connected(&self, link: LinkId, now: Time) {
        self.lock().protocol.handle_connected(link, now);
    }

    /// The server has made the session.
    pub(super) fn handle_accepted(&self, id: SessionId) {
        let _ = self.id.set(id);
        // Who adds connections waits for it.
        let _core = self.lock();
        self.turned.notify_all();
    }

    /// The server does not want it.
    pub(super) fn handle_refused(&self, code: ErrorCode, text: &str) {
        let mut core = self.lock();
        self.fail(&mut core, Ending::Refused { code, text: session::words(text) });
    }

    /// The connection that asked for the session ended before it was made: it is asked for again.
    pub(super) fn handle_not_accepted(&self, link: LinkId, reason: &str) {
        lock(&self.links).remove(&link);
        tracing::debug!(peer = self.peer, "not answered: {reason}");
        self.turned.notify_all();
    }

    /// Nobody makes the session.
    pub(super) fn give_up(&self, ending: Ending) {
        let mut core = self.lock();
        self.fail(&mut core, ending);
        self.drain(core, None);
    }

    pub(super) fn handle_closed(&self, link: LinkId, reason: &str) {
        lock(&self.links).remove(&link);
        let mut core = self.lock();
        let mut received = Vec::new();
        core.protocol.handle_closed(link, &mut received);
        self.follow(None, received);
        if core.protocol.connections().is_empty() && core.ended.is_none() {
            self.fail(&mut core, Ending::Lost(reason.to_owned()));
        } else if core.ended.is_none() {
            tracing::warn!(peer = self.peer, "a connection is gone, the others go on: {reason}");
        }
        self.drain(core, None);
    }

    /// Ends it at once; what is here stays for the next run.
    pub(super) fn stop(&self) {
        let mut core = self.lock();
        self.fail(&mut core, Ending::Stopped);
        self.drain(core, None);
    }

    /// Everything stands.
    pub(super) fn finish(&self, core: &mut Core) {
        if core.ended.is_none() {
            self.end(core, Ending::Done);
        }
    }

    /// Ends for another reason than that everything stands, unless it has ended.
    pub(super) fn fail(&self, core: &mut Core, ending: Ending) {
        if core.ended.is_some() {
            return;
        }
        core.protocol.stop();
        match &ending {
            Ending::Protocol(text) => core.protocol.refuse(ErrorCode::PROTOCOL, text),
            Ending::Local(text) => core.protocol.refuse(ErrorCode::STORE, text),
            Ending::Stopped => core.protocol.refuse(ErrorCode::STOPPED, "stopped by its operator"),
            Ending::Done | Ending::Refused { .. } | Ending::Lost(_) | Ending::NoSession(_) => {}
        }
        self.end(core, ending);
    }

    /// It has ended: who waits learns of it.
    fn end(&self, core: &mut Core, ending: Ending) {
        match &ending {
            Ending::Done => {
                let Summary { entries, new, changed, deleted, failed, bytes_data, damaged, .. } = self.summary(core);
                let bytes = bytes_data;
                tracing::info!(
                    peer = self.peer,
                    entries,
                    new,
                    changed,
                    deleted,
                    failed,
                    bytes,
                    damaged,
                    "session done"
                );
            }
            other => tracing::warn!(peer = self.peer, "session ended: {other}"),
        }
        core.ended = Some(ending);
        self.is_over.store(true, Ordering::Release);
        if let Some(writer) = &self.writer {
            let _ = writer.send(Job::Stop);
        }
        self.turned.notify_all();
        self.wake(None);
    }

    /// How long it has run.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Bytes of files that have passed.
    pub(super) fn payload(&self) -> u64 {
        Counters::read(&self.counters.bytes_data)
    }

    /// Every connection may end: all is said, or the session has failed.
    pub(super) fn may_leave(&self) -> bool {
        let core = self.lock();
        match &core.ended {
            // The sender leaves when it knows. Its last word may come damaged, and is asked for again then.
            Some(Ending::Done) if self.writer.is_some() => false,
            Some(_) => core.protocol.is_over(),
            None => false,
        }
    }

    /// It has ended, and the peer is to be told so over this connection.
    pub(super) fn has_last_words(&self, link: LinkId) -> bool {
        self.has_ended() && self.lock().protocol.has_words(link)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Has the workers of its connections look at them, but for `except`.
    fn wake(&self, except: Option<LinkId>) {
        let links = lock(&self.links);
        for (&link, &worker) in links.iter().filter(|(link, _)| Some(**link) != except) {
            self.shared.inboxes[worker].push([Note::Wake(link)]);
        }
    }

    // -- what follows from what came
    // -----------------------------------------------------------------------------------

    /// Hands what came in to the writer; called under the lock.
    pub(super) fn follow(&self, buffer: Option<Buffer>, received: Vec<Received>) {
        if let Some(writer) = self.writer.as_ref().filter(|_| !received.is_empty()) {
            let job = Job::Follow { buffer, received };
            self.backlog.fetch_add(job.weight(), Ordering::AcqRel);
            // The writer lives until the session has ended, and then nothing is missed.
            let _ = writer.send(job);
        }
    }

    /// Whether its connections read nothing now, for so much waits for the disk: what is lost if this process dies is
    /// little.
    pub(super) fn is_behind(&self) -> bool {
        self.backlog.load(Ordering::Acquire) >= limits::SESSION_BACKLOG_MAX
    }

    /// The writer is done with a job of this weight.
    pub(super) fn shrink_backlog(&self, bytes: usize) {
        let before = self.backlog.fetch_sub(bytes, Ordering::AcqRel);
        if before >= limits::SESSION_BACKLOG_MAX && before - bytes < limits::SESSION_BACKLOG_MAX {
            self.wake(None);
        }
    }

    /// Lets go of the lock and tells whom it concerns what has happened meanwhile.
    pub(super) fn drain(&self, mut core: MutexGuard<'_, Core>, by: Option<LinkId>) {
        while let Some(event) = core.protocol.poll_event() {
            self.handle_event(&mut core, event);
        }
        let wakes = core.protocol.poll_wake();
        drop(core);
        if wakes {
            self.wake(by);
        }
    }

    fn handle_event(&self, core: &mut Core, event: Event) {
        match event {
            Event::Asked { blocks, round } => tracing::debug!(peer = self.peer, blocks, round, "blocks are asked for"),
            Event::BatchDone => {
                self.report_changes(core);
                Counters::add(&self.counters.entries_done, core.batch.len() as u64);
                self.turned.notify_all();
            }
            Event::Finished => self.finish(core),
            Event::Changed(change) => self.handle_changed(core, change),
            Event::Deleted { path } => self.handle_deleted(path),
            Event::LeftOut { path, reason, is_failure: true } => self.handle_failed(path, reason),
            Event::LeftOut { path, reason, is_failure: false } => self.handle_skipped(path, reason),
            Event::Failed { file, reason } => {
                let path = core.path_of(file);
                self.uncount(core, file);
                self.handle_failed(path, reason);
            }
        }
    }

    /// An entry differs at the receiver.
    pub(super) fn handle_changed(&self, core: &mut Core, FileChange { file, what }: FileChange) {
        let change = match what {
            What::New => Change::New,
            What::Content => Change::Content,
            What::Attributes => Change::Attributes,
        };
        Counters::add(self.counters.of(change), 1);
        core.counted.insert(file, change);
        if let Some(found) = core.batch.get(usize::from(file.0)).filter(|_| change != Change::Attributes)
            && found.entry.kind == Kind::File
        {
            Counters::add(&self.counters.bytes_wanted, found.entry.size.0);
        }
    }

    /// All of the batch that did not fail stands.
    pub(super) fn report_changes(&self, core: &mut Core) {
        for (file, what) in std::mem::take(&mut core.counted) {
            if self.feed.is_some() {
                self.report(Report::Change { path: core.path_of(file), what });
            }
        }
    }

    /// An entry that was to change does not: it counts as failed alone.
    pub(super) fn uncount(&self, core: &mut Core, file: FileId) {
        if let Some(change) = core.counted.remove(&file) {
            self.counters.of(change).fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn handle_deleted(&self, path: TreePath) {
        Counters::add(&self.counters.deleted, 1);
        self.report(Report::Deleted { path });
    }

    pub(super) fn handle_failed(&self, path: TreePath, reason: String) {
        let before = self.counters.failed.fetch_add(1, Ordering::Relaxed);
        match before.cmp(&(limits::PROBLEMS_SHOWN_MAX as u64)) {
            Less => tracing::warn!(peer = self.peer, %path, "not transferred: {reason}"),
            Equal => tracing::warn!(peer = self.peer, "more is not transferred, which the log tells at level debug"),
            Greater => tracing::debug!(peer = self.peer, %path, "not transferred: {reason}"),
        }
        self.report(Report::Failed { path, reason });
    }

    pub(super) fn handle_skipped(&self, path: TreePath, reason: String) {
        Counters::add(&self.counters.skipped, 1);
        self.report(Report::Skipped { path, reason });
    }

    /// Waits until what was reported is read, more or less; never under the lock, and never on a worker.
    pub(super) fn wait_for_reader(&self) {
        if let Some(feed) = &self.feed {
            feed.wait_for_reader();
        }
    }

    fn report(&self, report: Report) {
        if let Some(feed) = &self.feed {
            // Nobody reads any more: then nobody misses it.
            let _ = feed.report(report);
        }
    }

    // -- out ---------------------------------------------------------------------------------------------------------

    /// Adds to an empty train what goes out over a connection.
    pub(super) fn fill(
        &self,
        link: LinkId,
        now: Time,
        train: &mut Gather,
        out: &mut Vec<u8>,
        runs: &mut Vec<Run>,
        opened: &mut Option<Opened>,
    ) {
        let room = limits::TRAIN_BYTES_MAX - train.len_bytes();
        let mut core = self.lock();
        core.protocol.poll_transmit(link, now, room, out, runs);
        let batch = Arc::clone(&core.batch);
        self.drain(core, Some(link));
        let fits = train.push_bytes(out);
        assert!(fits, "the protocol was told how much room there is");
        for run in runs.iter() {
            match source::lay_out(train, &batch, *run, opened) {
                Ok(bytes) => {
                    Counters::add(&self.counters.bytes_data, bytes);
                    Counters::add(&self.counters.bytes_done, run.length.0);
                }
                Err(reason) => {
                    let path = batch[usize::from(run.file.0)].entry.path.clone();
                    let mut core = self.lock();
                    // Where the receiver gave the file up as well, another batch may be on its way by now.
                    if Arc::ptr_eq(&batch, &core.batch) {
                        self.uncount(&mut core, run.file);
                        core.protocol.handle_unreadable(run.file, &reason);
                    }
                    // What is to be said of it may be the last thing that this connection has to say.
                    self.drain(core, None);
                    self.handle_failed(path, reason);
                }
            }
        }
    }

    pub(super) fn count_received(&self, bytes: usize) {
        Counters::add(&self.counters.bytes_received, bytes as u64);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        Counters::add(&self.counters.bytes_sent, bytes as u64);
    }

    // -- what people see ---------------------------------------------------------------------------------------------

    pub(super) fn progress(&self) -> SessionProgress {
        let counters = &self.counters;
        let read = Counters::read;
        SessionProgress {
            entries_found: read(&counters.entries_found),
            entries_done: read(&counters.entries_done),
            bytes_total: read(&counters.bytes_total),
            bytes_done: read(&counters.bytes_done),
            bytes_skipped: read(&counters.bytes_skipped),
            connections: self.link_count(),
            is_scanning: !counters.is_scanned.load(Ordering::Relaxed),
        }
    }

    pub(super) fn summary(&self, core: &Core) -> Summary {
        let counters = &self.counters;
        let read = Counters::read;
        Summary {
            entries: read(&counters.entries_found),
            new: read(&counters.new),
            changed: read(&counters.changed),
            attributes: read(&counters.attributes),
            deleted: read(&counters.deleted),
            failed: read(&counters.failed),
            skipped: read(&counters.skipped),
            bytes_data: read(&counters.bytes_data),
            bytes_wanted: read(&counters.bytes_wanted),
            bytes_sent: read(&counters.bytes_sent),
            bytes_received: read(&counters.bytes_received),
            damaged: core.protocol.damaged(),
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }
}

impl Core {
    /// The path of an entry of the present batch; the top for what is none.
    pub(super) fn path_of(&self, file: FileId) -> TreePath {
        let index = usize::from(file.0);
        let found = self.batch.get(index).map(|found| &found.entry.path);
        found.or_else(|| self.paths.get(index)).cloned().unwrap_or_else(TreePath::top)
    }
}
