//! What all threads of an engine share: the flows, the parts that are arriving, who to tell what.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::ahead::Ahead;
use super::arriving::Version;
use super::connection::{LinkStats, LinkView, Traffic};
use super::inbox::{Inbox, Message};
use super::kept::{Evicted, Kept, Unwritten};
use super::recent::Recent;
use super::session::{Answer, NewConnection, Sessions};
use super::writer::{CommitJob, WriteJob, fail};
use super::{EngineConfig, NewLink, Notice};
use crate::limits;
use crate::store::{FileMode, FileTime, Journal, Part, Root, Source, StoreError};
use crate::transfer::{Action, Event, FlowId, Flows, Problem};
use crate::units::{ByteCount, Generation, LinkId, ObjectId, ObjectName, Offset, Time};
use crate::uring::{DriverKind, Pool};
use crate::wire::padding::Padding;

/// Where the objects of a flow live.
#[derive(Debug, Clone)]
pub enum Store {
    /// `remote/` of a trader: committed durably and marked.
    Remote(Arc<Root>),
    /// `local/` of a trader: only read.
    Local(Arc<Root>),
    /// One direction of an exchange's spool: kept, not flushed.
    Spool(Arc<Root>),
}

impl Store {
    /// The directory.
    pub fn root(&self) -> &Arc<Root> {
        match self {
            Self::Remote(root) | Self::Local(root) | Self::Spool(root) => root,
        }
    }
}

/// One attempt at one object of one flow.
pub(super) type PartKey = (FlowId, ObjectId, Generation);

/// What passed over links that have ended.
#[derive(Debug, Default)]
struct Ended {
    /// Over all of them.
    sum: Traffic,
    /// Over those that the node has not taken notice of.
    links: BTreeMap<LinkId, Traffic>,
}

pub(super) struct Shared {
    pub(super) driver: DriverKind,
    /// A worker goes by plain calls.
    pub(super) is_plain: AtomicBool,
    flows: Mutex<Flows>,
    pub(super) stores: Vec<Store>,
    parts: Mutex<BTreeMap<PartKey, Arc<Part>>>,
    started: Instant,
    links: Mutex<BTreeMap<LinkId, (usize, Arc<LinkStats>)>>,
    ended: Mutex<Ended>,
    pub(super) inboxes: Vec<Inbox>,
    write_jobs: Sender<WriteJob>,
    commit_jobs: Sender<CommitJob>,
    notify: Box<dyn Fn(Notice) + Send + Sync>,
    pub(super) padding: Padding,
    pub(super) committed_bytes: AtomicU64,
    /// When an object was committed last, milliseconds since 1970; 0: none was.
    pub(super) committed_at: AtomicU64,
    /// The engine was killed: nothing more goes to disk.
    pub(super) dead: AtomicBool,
    /// When whoever stops the engine has waited for long enough, nanoseconds of its clock.
    over_at: AtomicU64,
    /// Writer and committer have ended, and the flusher is to.
    pub(super) ending: AtomicBool,
    /// How many objects have failed since when, of those that the log tells as warnings.
    failed: Mutex<(Time, usize)>,
    /// Small objects of `local/`.
    pub(super) ahead: Ahead,
    /// Objects of spools that are in memory.
    kept: Mutex<Kept>,
    /// Held while one of these is written to its file.
    spilling: Mutex<()>,
    /// The last ranges that came into spools.
    recent: Mutex<Recent>,
    /// Memory for long ranges.
    pub(super) spaces: Pool,
    pub(super) sessions: Sessions,
    /// What waits for the writer counts for so many bytes.
    pub(super) backlog: AtomicUsize,
    /// What of the parts that are arriving is verified and written; in the order of the flows' ids.
    pub(super) journals: Vec<Option<Mutex<Journal>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("stores", &self.stores).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        config: EngineConfig,
        workers: usize,
        write_jobs: Sender<WriteJob>,
        commit_jobs: Sender<CommitJob>,
        notify: Box<dyn Fn(Notice) + Send + Sync>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            driver: config.driver,
            is_plain: AtomicBool::new(false),
            flows: Mutex::new(config.flows),
            stores: config.stores,
            parts: Mutex::new(BTreeMap::new()),
            started: Instant::now(),
            links: Mutex::new(BTreeMap::new()),
            ended: Mutex::default(),
            inboxes: (0..workers).map(|_| Inbox::default()).collect(),
            write_jobs,
            commit_jobs,
            notify,
            padding: Padding::new(config.seed),
            committed_bytes: AtomicU64::new(0),
            committed_at: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            over_at: AtomicU64::new(u64::MAX),
            failed: Mutex::default(),
            ahead: Ahead::default(),
            kept: Mutex::default(),
            spilling: Mutex::default(),
            recent: Mutex::default(),
            spaces: Pool::new(limits::RANGES_POOLED_MAX, limits::BLOCK_BYTES as usize)?,
            sessions: Sessions::default(),
            ending: AtomicBool::new(false),
            backlog: AtomicUsize::new(0),
            journals: config.journals.into_iter().map(|journal| journal.map(Mutex::new)).collect(),
        })
    }

    pub(super) fn now(&self) -> Time {
        Time(self.started.elapsed())
    }

    /// Runs `f` on the flows, then sets in motion what they want done.
    pub(super) fn with_flows<R>(&self, f: impl FnOnce(&mut Flows, Time) -> R) -> R {
        let mut flows = lock(&self.flows);
        let result = f(&mut flows, self.now());
        let mut wakes = Vec::new();
        let mut events = Vec::new();
        for (id, flow) in flows.iter_mut() {
            // Under the lock, so that the queues keep the order in which the flows decided.
            while let Some(action) = flow.poll_action() {
                self.act(id, action);
            }
            while let Some(event) = flow.poll_event() {
                events.push((id, event));
            }
            while let Some(link) = flow.poll_wake() {
                wakes.push(link);
            }
        }
        drop(flows);
        for (flow, event) in events {
            self.tell(flow, event);
        }
        if !wakes.is_empty() {
            self.wake(wakes);
        }
        result
    }

    fn act(&self, flow: FlowId, action: Action) {
        // The queues outlive every thread that could ask for something: a send cannot fail while it matters.
        let _ = match action {
            Action::Create { id, generation, size } => {
                self.write_jobs.send(WriteJob::Create { key: (flow, id, generation), size }).is_ok()
            }
            Action::OpenPart { id, generation, size, mtime_ns, mode, root, resumed } => {
                let version = Version { size, root, mode: FileMode::new(u32::from(mode)), mtime: FileTime(mtime_ns) };
                self.write_jobs.send(WriteJob::Open { key: (flow, id, generation), version, resumed }).is_ok()
            }
            Action::Abandon { id, generation } => {
                self.write_jobs.send(WriteJob::Abandon { key: (flow, id, generation) }).is_ok()
            }
            Action::Commit { id, generation, root, size } => {
                // Behind what makes its part, also where nothing had to be written to it.
                self.write_jobs.send(WriteJob::Finish { key: (flow, id, generation), root, size }).is_ok()
            }
            Action::Discard { name, size, root } => {
                self.write_jobs.send(WriteJob::Discard { flow, name, size, root }).is_ok()
            }
            Action::Hash { id, generation } => {
                self.commit_jobs.send(CommitJob::Hash { key: (flow, id, generation) }).is_ok()
            }
            Action::Check { id, generation, root } => {
                self.commit_jobs.send(CommitJob::Check { key: (flow, id, generation), root }).is_ok()
            }
            Action::SetAttributes { id, generation } => {
                self.commit_jobs.send(CommitJob::SetAttributes { key: (flow, id, generation) }).is_ok()
            }
            Action::Evict { id, name } => self.write_jobs.send(WriteJob::Evict { flow, id, name }).is_ok(),
            // Behind what makes a part of it final.
            Action::Remove { name } => self.write_jobs.send(WriteJob::Remove { flow, name }).is_ok(),
        };
    }

    fn tell(&self, flow: FlowId, event: Event) {
        match event {
            Event::Committed { name, size } => {
                self.committed_bytes.fetch_add(size.0, Ordering::Relaxed);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.committed_at.store(now.as_millis() as u64, Ordering::Relaxed);
                tracing::debug!(object = %name, size = size.0, "complete");
            }
            Event::Failed { name, problem } => self.tell_failed(&name, &problem),
            Event::Forgotten { name } => tracing::debug!(object = %name, "gone at the peer"),
            Event::SourceFailed { name, reason } => {
                let next = match self.stores[usize::from(flow.0)] {
                    Store::Spool(_) => "it is fetched again when it is asked for",
                    Store::Local(_) | Store::Remote(_) => "it is served again once it is stable",
                };
                tracing::warn!(object = %name, "not sent whole: {reason}; {next}");
                (self.notify)(Notice::SourceFailed { flow, name });
            }
        }
    }

    /// All that is under way meets a full disk at once.
    fn tell_failed(&self, name: &ObjectName, problem: &Problem) {
        let now = self.now();
        let mut failed = lock(&self.failed);
        if now.since(failed.0) >= limits::FAILURES_TOLD_EVERY {
            *failed = (now, 0);
        }
        failed.1 += 1;
        match failed.1.cmp(&(limits::PROBLEMS_SHOWN_MAX + 1)) {
            Less => tracing::warn!(object = %name, "cannot be fetched: {problem}; it is tried again"),
            Equal => tracing::warn!("more cannot be fetched: `supersyncctl objects --failed` names it all"),
            Greater => tracing::debug!(object = %name, "cannot be fetched: {problem}; it is tried again"),
        }
    }

    pub(super) fn notify(&self, notice: Notice) {
        (self.notify)(notice);
    }

    pub(super) fn write(&self, job: WriteJob) {
        // Fails only when the writer is gone, which is after all workers.
        let _ = self.write_jobs.send(job);
    }

    /// The journal of a flow, if it has one.
    pub(super) fn journal(&self, flow: FlowId) -> Option<MutexGuard<'_, Journal>> {
        self.journals.get(usize::from(flow.0))?.as_ref().map(lock)
    }

    /// Ranges have been written or thrown away; workers that waited for that may read again.
    pub(super) fn shrink_backlog(&self, cost: usize) {
        let before = self.backlog.fetch_sub(cost, Ordering::AcqRel);
        if before >= limits::WRITE_BACKLOG_MAX && before - cost < limits::WRITE_BACKLOG_MAX {
            self.inboxes.iter().for_each(|inbox| inbox.push([Message::Look]));
        }
    }

    pub(super) fn commit(&self, job: CommitJob) {
        // Fails only when the committer is gone, which is after the writer.
        let _ = self.commit_jobs.send(job);
    }

    pub(super) fn stop_writer(&self) {
        let _ = self.write_jobs.send(WriteJob::Stop);
    }

    pub(super) fn stop_committer(&self) {
        let _ = self.commit_jobs.send(CommitJob::Stop);
    }

    // -- parts and sources -------------------------------------------------------------------------------------------

    pub(super) fn add_part(&self, key: PartKey, part: Part) {
        lock(&self.parts).insert(key, Arc::new(part));
    }

    pub(super) fn part(&self, key: PartKey) -> Option<Arc<Part>> {
        lock(&self.parts).get(&key).cloned()
    }

    /// The parts of a flow that last.
    pub(super) fn lasting_parts(&self, flow: FlowId) -> Vec<(PartKey, Arc<Part>)> {
        let parts = lock(&self.parts);
        let of_flow = parts.iter().filter(|(key, part)| key.0 == flow && part.root().is_some());
        of_flow.map(|(key, part)| (*key, Arc::clone(part))).collect()
    }

    pub(super) fn take_part(&self, key: PartKey) -> Option<Arc<Part>> {
        lock(&self.parts).remove(&key)
    }

    /// The objects of spools that are in memory, if this is the flow of one.
    pub(super) fn kept(&self, flow: FlowId) -> Option<MutexGuard<'_, Kept>> {
        matches!(self.stores[usize::from(flow.0)], Store::Spool(_)).then(|| lock(&self.kept))
    }

    /// The last ranges that came in, if this is the flow of a spool.
    pub(super) fn recent(&self, flow: FlowId) -> Option<MutexGuard<'_, Recent>> {
        matches!(self.stores[usize::from(flow.0)], Store::Spool(_)).then(|| lock(&self.recent))
    }

    /// What is served of an object: its part while it is arriving, else its file.
    pub(super) fn source(&self, key: PartKey, name: &ObjectName) -> Result<Arc<Source>, StoreError> {
        self.spill(key, name).inspect_err(|error| fail(self, key, error))?;
        if let Some(part) = self.part(key) {
            return part.source();
        }
        let store = &self.stores[usize::from(key.0.0)];
        let source = store.root().open_source(name)?;
        if matches!(store, Store::Local(_)) {
            self.check_seen(key, name, &source)?;
        }
        Ok(Arc::new(source))
    }

    /// A file that has been replaced since it was looked at is not sent as what it was: whoever asked would take the
    /// links that it came over for bad ones.
    fn check_seen(&self, (flow, id, _): PartKey, name: &ObjectName, source: &Source) -> Result<(), StoreError> {
        let stamp = source.stamp();
        match self.with_flows(|flows, _| flows.at(flow).mark(id)) {
            Some(seen) if ![0, stamp.print(), stamp.unsettled_print()].contains(&seen) => {
                let root = self.stores[usize::from(flow.0)].root().path().to_path_buf();
                Err(StoreError::Changing { root, object: name.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Writes an object that is kept in memory to its spool: for a link that needs a file, where there is no more room,
    /// or at the end. What is not whole goes on in a part.
    pub(super) fn spill(&self, key: PartKey, name: &ObjectName) -> Result<(), StoreError> {
        if !self.kept(key.0).is_some_and(|kept| kept.has_no_file(key)) {
            return Ok(());
        }
        // Who else needs the file waits for it, and the object does not go before it stands; but whoever sends what is
        // in memory does not wait for the disk.
        let _alone = lock(&self.spilling);
        let Some(object) = self.kept(key.0).and_then(|kept| kept.unwritten(key, &[])) else { return Ok(()) };
        let Version { size, root, mode, mtime } = object.version;
        let part = self.stores[usize::from(key.0.0)].root().open_part(name, size, root)?;
        let write = |unwritten: &Unwritten| -> Result<Vec<_>, StoreError> {
            let write_one = |(offset, bytes): &(Offset, Bytes)| {
                part.write_vectored_at(&[IoSlice::new(bytes)], *offset)?;
                Ok((*offset, ByteCount(bytes.len() as u64)))
            };
            unwritten.ranges.iter().map(write_one).collect::<Result<_, _>>().inspect_err(|_| part.abandon())
        };
        let mut written = write(&object)?;
        let Some(mut kept) = self.kept(key.0) else { return Ok(()) };
        // What came in meanwhile; all of it, where some of what was written has turned out to be wrong.
        let Some(mut rest) = kept.unwritten(key, &written) else { return Ok(()) };
        if rest.retractions != object.retractions {
            written.clear();
            let Some(all) = kept.unwritten(key, &written) else { return Ok(()) };
            rest = all;
        }
        written.extend(write(&rest)?);
        if rest.is_whole {
            part.keep_unsynced().inspect_err(|_| part.abandon())?;
            kept.set_file(key, name);
            return Ok(());
        }
        part.set_attributes(mode, mtime);
        if let Some(mut journal) = self.journal(key.0).filter(|_| rest.is_known) {
            written.iter().for_each(|&(offset, length)| journal.record(&part, offset, length));
        }
        self.add_part(key, part);
        kept.remove(key);
        drop(kept);
        self.with_flows(|flows, _| flows.at(key.0).handle_created(key.1, key.2));
        Ok(())
    }

    /// Takes what is no longer kept in memory, but not while its file is made.
    pub(super) fn drop_kept(&self, flow: FlowId, take: impl FnOnce(&mut Kept) -> Option<Evicted>) -> Option<Evicted> {
        let _alone = lock(&self.spilling);
        self.kept(flow).and_then(|mut kept| take(&mut kept))
    }

    // -- links -------------------------------------------------------------------------------------------------------

    /// How many links there are with one address.
    pub(super) fn link_count_of(&self, address: IpAddr) -> usize {
        lock(&self.links).values().filter(|(_, stats)| stats.ip == Some(address)).count()
    }

    pub(super) fn add_link(&self, link: NewLink) {
        let stats = Arc::new(LinkStats::new(&link, self.now()));
        let mut links = lock(&self.links);
        let mut load = vec![0_usize; self.inboxes.len()];
        links.values().for_each(|(worker, _)| load[*worker] += 1);
        let worker = (0..load.len()).min_by_key(|&worker| load[worker]).unwrap_or(0);
        links.insert(link.config.id, (worker, Arc::clone(&stats)));
        drop(links);
        self.inboxes[worker].push([Message::Add(Box::new(link), stats)]);
    }

    /// The worker that has a connection of a session.
    pub(super) fn worker_of_session(&self, link: LinkId) -> usize {
        (link.0 % self.inboxes.len() as u64) as usize
    }

    /// Hands a connection of a session to its worker.
    pub(super) fn add_session_link(&self, new: NewConnection) {
        self.inboxes[self.worker_of_session(new.id)].push([Message::AddSession(Box::new(new))]);
    }

    /// Tells the worker of a connection what became of the session that it asked for.
    pub(super) fn answer_session_link(&self, link: LinkId, answer: Answer) {
        self.inboxes[self.worker_of_session(link)].push([Message::Answer(link, answer)]);
    }

    /// A link is gone: what passed over it is among the ended from now on, and was among the views until now.
    pub(super) fn remove_link(&self, link: LinkId) {
        let Some(stats) = lock(&self.links).get(&link).map(|(_, stats)| Arc::clone(stats)) else { return };
        let traffic = Traffic::from(&stats.view());
        let mut links = lock(&self.links);
        links.remove(&link);
        let mut ended = lock(&self.ended);
        ended.sum += traffic;
        ended.links.insert(link, traffic);
    }

    /// What passed over all links, ended ones too.
    pub(super) fn traffic(&self) -> Traffic {
        let links = lock(&self.links);
        let mut traffic = lock(&self.ended).sum;
        let up: Vec<_> = links.values().map(|(_, stats)| Arc::clone(stats)).collect();
        drop(links);
        up.iter().for_each(|stats| traffic += Traffic::from(&stats.view()));
        traffic
    }

    /// What passed over links that have ended and were not taken.
    pub(super) fn ended(&self) -> BTreeMap<LinkId, Traffic> {
        lock(&self.ended).links.clone()
    }

    /// What passed over a link that has ended; nothing is known of it alone from then on.
    pub(super) fn take_ended(&self, link: LinkId) -> Option<Traffic> {
        lock(&self.ended).links.remove(&link)
    }

    pub(super) fn link_count(&self) -> usize {
        lock(&self.links).len()
    }

    pub(super) fn views(&self) -> BTreeMap<LinkId, LinkView> {
        // Each view asks the kernel; workers that wake others need the table meanwhile.
        let links: Vec<_> = lock(&self.links).iter().map(|(&link, (_, stats))| (link, Arc::clone(stats))).collect();
        links.into_iter().map(|(link, stats)| (link, stats.view())).collect()
    }

    pub(super) fn send_to(&self, link: LinkId, message: Message) {
        let worker = lock(&self.links).get(&link).map(|(worker, _)| *worker);
        if let Some(worker) = worker {
            self.inboxes[worker].push([message]);
        }
    }

    /// Whether what takes long is to be left: the engine was killed, or was to have stopped by now.
    pub(super) fn is_over(&self) -> bool {
        self.dead.load(Ordering::Acquire) || self.now().0.as_nanos() as u64 >= self.over_at.load(Ordering::Relaxed)
    }

    /// Tells every worker to end its links, each after the train in flight but no later than `within`.
    pub(super) fn drain(&self, within: Duration) {
        self.over_at.store((self.now() + within).0.as_nanos() as u64, Ordering::Relaxed);
        self.inboxes.iter().for_each(|inbox| inbox.push([Message::Drain(within)]));
    }

    fn wake(&self, wakes: Vec<LinkId>) {
        let links = lock(&self.links);
        let mut by_worker: Vec<Vec<Message>> = self.inboxes.iter().map(|_| Vec::new()).collect();
        for link in wakes {
            if let Some((worker, _)) = links.get(&link) {
                by_worker[*worker].push(Message::Wake(link));
            }
        }
        drop(links);
        for (inbox, messages) in self.inboxes.iter().zip(by_worker) {
            if !messages.is_empty() {
                inbox.push(messages);
            }
        }
    }
}

/// A panic elsewhere ends the process by its own thread; the data behind the lock is whole between calls.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, mpsc};

    use super::super::kept::Filled;
    use super::*;
    use crate::transfer::Flow;
    use crate::units::Root256;

    fn shared_of(root: Root) -> Shared {
        let config = EngineConfig {
            flows: Flows::new(vec![Flow::relay(ByteCount(1 << 20))]),
            stores: vec![Store::Spool(Arc::new(root))],
            journals: Vec::new(),
            driver: DriverKind::Blocking,
            workers: 1,
            seed: 0,
        };
        let (write_jobs, commit_jobs) = (mpsc::channel().0, mpsc::channel().0);
        Shared::new(config, 1, write_jobs, commit_jobs, Box::new(|_| {})).expect("memory")
    }

    /// It was sent, and the peer took the link for one that damages what it carries.
    #[test]
    fn a_file_that_was_replaced_is_not_sent_as_what_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        std::fs::write(&path, "abc").expect("write");
        let mut shared = shared_of(Root::create(dir.path()).expect("a root"));
        let root = Arc::clone(shared.stores[0].root());
        shared.stores[0] = Store::Local(Arc::clone(&root));
        let name = ObjectName::new(b"a").expect("valid");
        let mut flow = Flow::offer_only();
        flow.offer(name.clone(), ByteCount(3));
        let id = flow.find(&name).expect("offered");
        let key = (FlowId(0), id, flow.generation(id));
        shared.with_flows(|flows, _| *flows.at(FlowId(0)) = flow);
        let opens = |mark: u64| {
            shared.with_flows(|flows, _| flows.at(FlowId(0)).set_mark(id, mark));
            shared.source(key, &name).map(|source| source.size())
        };
        let print = || root.open_source(&name).expect("here").stamp().print();
        let seen = print();
        assert!(opens(seen).is_ok() && opens(!seen).is_ok());
        std::fs::write(dir.path().join("b"), "xyz").expect("write");
        std::fs::rename(dir.path().join("b"), &path).expect("rename");
        assert!(matches!(opens(seen), Err(StoreError::Changing { .. })));
        assert!(matches!(opens(!seen), Err(StoreError::Changing { .. })));
        assert!(opens(print()).is_ok(), "it has been looked at");
    }

    /// The second of two links that needed the file of a small object at once found none, and the object was given up.
    #[test]
    fn a_small_object_has_a_file_for_all_who_need_one_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let shared = shared_of(Root::create(dir.path()).expect("a root"));
        let name = ObjectName::new(b"a").expect("valid");
        for generation in (0..200).map(Generation) {
            let key = (FlowId(0), ObjectId(0), generation);
            let kept = || shared.kept(FlowId(0)).expect("a spool");
            let (mode, mtime) = (FileMode::default(), FileTime(0));
            assert!(kept().reserve(key, Version { size: ByteCount(3), root: Root256([7; 32]), mode, mtime }));
            assert_eq!(kept().fill(key, Offset(0), &Bytes::from_static(b"abc"), 7), Filled::Kept);
            assert!(kept().finish(key));
            let barrier = Barrier::new(2);
            let open = || {
                barrier.wait();
                shared.source(key, &name).map(|source| source.size())
            };
            let (here, there) = std::thread::scope(|scope| {
                let there = scope.spawn(open);
                (open(), there.join().expect("no panic"))
            });
            assert_eq!((here.expect("a file"), there.expect("a file")), (ByteCount(3), ByteCount(3)));
            kept().remove(key).expect("it was kept");
            shared.stores[0].root().remove_kept(&name).expect("removed");
        }
    }
}
