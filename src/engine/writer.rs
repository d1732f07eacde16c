//! The threads that touch the disk: one writes payload into part files, one makes whole parts final.
//!
//! The writer takes its jobs strictly in order, so a part stands before its first bytes come. A spool is its own: what
//! is whole is only renamed, and what is evicted is gone before the part is made that it gives its room to. The
//! committer takes all that waits at once, so that many small objects share their waits for the disk.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use super::arriving::{Arrived, Arriving, Version};
use super::kept::Evicted;
use super::shared::{PartKey, Shared, Store, lock};
use super::{Notice, spawn};
use crate::limits;
use crate::proto::duplex::Write;
use crate::store::{
    Committer, FileMode, FileTime, Hashes, Part, Stamp, StoreError, hash_part, hash_source_unless, unseen_blocks,
};
use crate::transfer::{Content, Fault, FlowId, ObjectState};
use crate::units::{ByteCount, LinkId, ObjectId, ObjectName, Root256};
use crate::uring::Buffer;

/// Work for the writer.
pub(super) enum WriteJob {
    /// Make a part file, or one that grows.
    Create {
        key: PartKey,
        size: Option<ByteCount>,
    },
    /// Put ranges of a buffer where they belong.
    Write {
        flow: FlowId,
        buffer: Buffer,
        writes: Vec<Write>,
    },
    /// Find or make the part file of a version, for ranges.
    Open {
        key: PartKey,
        version: Version,
        /// It is there from an earlier run.
        resumed: bool,
    },
    /// Put a range where it belongs, if it is right.
    Range(Arrived),
    /// Throw a part away.
    Abandon {
        key: PartKey,
    },
    /// Throw away what an earlier run has left of a version.
    Discard {
        flow: FlowId,
        name: ObjectName,
        size: ByteCount,
        root: Root256,
    },
    /// All of a part is written: have it made final.
    Finish {
        key: PartKey,
        /// What its bytes must hash to, where that is known.
        root: Option<Root256>,
        /// Its length.
        size: ByteCount,
    },
    /// Remove a file from a spool.
    Evict {
        flow: FlowId,
        id: ObjectId,
        name: ObjectName,
    },
    /// Remove a file and its marker.
    Remove {
        flow: FlowId,
        name: ObjectName,
    },
    /// A link is gone, and this is behind all that came in over it.
    Settle {
        link: LinkId,
    },
    Stop,
}

/// Work for the committer: of stores that are durable, and what reads whole objects.
pub(super) enum CommitJob {
    /// Make a part final.
    Commit {
        key: PartKey,
        /// What its bytes must hash to, where that is known.
        root: Option<Root256>,
    },
    /// Remove a file and its marker.
    Remove {
        flow: FlowId,
        name: ObjectName,
    },
    /// Find out what an object of a spool is made of.
    Hash {
        key: PartKey,
    },
    /// Read an object that a spool has from an earlier run.
    Check {
        key: PartKey,
        /// What it must hash to.
        root: Root256,
    },
    /// Give a file the mode and time that are known of it.
    SetAttributes {
        key: PartKey,
    },
    Stop,
}

pub(super) fn spawn_writer(shared: Arc<Shared>, jobs: Receiver<WriteJob>) -> std::io::Result<JoinHandle<()>> {
    spawn("ss-writer", move || {
        let mut journals = Journals { shared: &shared, unwritten: 0, failed: false };
        let mut arriving = Arriving::new(&shared);
        while let Some(job) = journals.write_before_next(&mut arriving, &jobs) {
            handle(&shared, &mut arriving, job);
        }
        arriving.settle();
        // What followed from the last writes: whole parts that a spool keeps.
        jobs.try_iter().for_each(|job| handle(&shared, &mut arriving, job));
        arriving.settle();
        spill(&shared);
        journals.write();
    })
}

/// Has the journals say what was written: from then on it survives this process.
struct Journals<'s> {
    shared: &'s Shared,
    /// Bytes of ranges of which they may not say so.
    unwritten: usize,
    failed: bool,
}

impl Journals<'_> {
    /// The writer's next job; `None` at the end. What it has written is in the journals before it waits for another
    /// one, and before it is much.
    fn write_before_next(&mut self, arriving: &mut Arriving<'_>, jobs: &Receiver<WriteJob>) -> Option<WriteJob> {
        if self.unwritten >= limits::JOURNAL_WRITE_BYTES {
            self.write();
        }
        let settled = || {
            arriving.settle();
            jobs.try_recv().ok()
        };
        let job = jobs.try_recv().ok().or_else(settled).or_else(|| {
            self.write();
            jobs.recv().ok()
        })?;
        if let WriteJob::Range(arrived) = &job {
            self.unwritten += arrived.bytes.len();
        }
        (!matches!(job, WriteJob::Stop)).then_some(job)
    }

    fn write(&mut self) {
        self.unwritten = 0;
        if self.shared.dead.load(Ordering::Acquire) {
            return;
        }
        let outcomes = self.shared.journals.iter().flatten().map(|journal| lock(journal).write());
        let failed = outcomes.filter_map(Result::err).last();
        if let Some(error) = failed.as_ref().filter(|_| !self.failed) {
            tracing::warn!("what arrives now is fetched again if this node crashes: {error}");
        }
        self.failed = failed.is_some();
    }
}

fn handle(shared: &Shared, arriving: &mut Arriving<'_>, job: WriteJob) {
    if shared.dead.load(Ordering::Acquire) {
        return;
    }
    let job = match job {
        WriteJob::Open { key, version, resumed: false } if arriving.open(key, version) => return,
        WriteJob::Range(arrived) => return arriving.arrive(arrived),
        WriteJob::Finish { key, .. } if arriving.finish(key) => return,
        job => job,
    };
    // All others come behind what they may be about.
    arriving.settle();
    match job {
        WriteJob::Create { key, size } => create(shared, key, size),
        WriteJob::Write { flow, buffer, writes } => write(shared, flow, buffer, &writes),
        WriteJob::Open { key, version, resumed: _ } => open(shared, key, version),
        WriteJob::Abandon { key } => {
            arriving.forget(key);
            if let Some(Evicted { file: Some(name) }) = shared.drop_kept(key.0, |kept| kept.remove(key)) {
                evict(shared, key.0, &name);
            }
            if let Some(part) = shared.take_part(key) {
                throw_away(shared, key.0, &part);
            }
        }
        WriteJob::Discard { flow, name, size, root } => {
            // What cannot be opened cannot be removed either, and is in nobody's way.
            if let Ok(part) = shared.stores[usize::from(flow.0)].root().open_part(&name, size, root) {
                throw_away(shared, flow, &part);
            }
        }
        WriteJob::Finish { key, root, size } if cut(shared, key, size) => match shared.stores[usize::from(key.0.0)] {
            Store::Spool(_) => keep(shared, key),
            Store::Remote(_) | Store::Local(_) => shared.commit(CommitJob::Commit { key, root }),
        },
        WriteJob::Finish { .. } => {}
        WriteJob::Evict { flow, id, name } => {
            let kept = shared.drop_kept(flow, |kept| kept.evict(flow, id));
            if kept.is_none_or(|kept| kept.file.is_some()) {
                evict(shared, flow, &name);
            }
        }
        WriteJob::Remove { flow, name } => shared.commit(CommitJob::Remove { flow, name }),
        WriteJob::Settle { link } => shared.notify(Notice::Settled { link }),
        WriteJob::Range(_) | WriteJob::Stop => {}
    }
}

/// What spools have in memory goes to disk while there is time, so that the next run need not fetch it; not what is
/// whole and somebody has had.
fn spill(shared: &Shared) {
    let spool = shared.stores.iter().position(|store| matches!(store, Store::Spool(_)));
    let all = spool.and_then(|flow| shared.kept(FlowId(flow as u8))).map(|kept| kept.all()).unwrap_or_default();
    let mut failed = Vec::new();
    for (key, is_whole) in all {
        let is_had = is_whole && shared.with_flows(|flows, _| flows.at(key.0).is_delivered(key.1));
        let Some(name) = current_name(shared, key).filter(|_| !is_had && !shared.is_over()) else { continue };
        failed.extend(shared.spill(key, &name).err());
    }
    if let Some(first) = failed.first() {
        tracing::warn!("objects that are fetched again after the restart: {}, for {first}", failed.len());
    }
}

/// The name of an object, while the attempt is the one under way or the one that made it present.
fn current_name(shared: &Shared, (flow, id, generation): PartKey) -> Option<ObjectName> {
    shared.with_flows(|flows, _| {
        let flow = flows.at(flow);
        flow.is_current(id, generation).then(|| flow.name(id).clone())
    })
}

/// Gives a part that grew its length; `false` where that failed, which the flow is told.
fn cut(shared: &Shared, key: PartKey, size: ByteCount) -> bool {
    let cut = shared.part(key).map_or(Ok(()), |part| part.cut(size));
    cut.inspect_err(|error| give_up(shared, key, error)).is_ok()
}

fn create(shared: &Shared, key: PartKey, size: Option<ByteCount>) {
    let (flow, id, generation) = key;
    let Some(name) = current_name(shared, key) else { return };
    let root = shared.stores[usize::from(flow.0)].root();
    match size.map_or_else(|| root.create_growing_part(&name), |size| root.create_part(&name, size)) {
        Ok(part) => {
            shared.add_part(key, part);
            shared.with_flows(|flows, _| flows.at(flow).handle_created(id, generation));
        }
        Err(error) => fail(shared, key, &error),
    }
}

fn open(shared: &Shared, key: PartKey, version: Version) {
    let (flow, id, generation) = key;
    let Some(name) = current_name(shared, key) else { return };
    match make_part(shared, key, &name, version) {
        Ok(()) => shared.with_flows(|flows, _| flows.at(flow).handle_created(id, generation)),
        Err(error) => fail(shared, key, &error),
    }
}

/// Finds or makes the part of a version.
pub(super) fn make_part(
    shared: &Shared,
    key: PartKey,
    name: &ObjectName,
    Version { size, root, mode, mtime }: Version,
) -> Result<(), StoreError> {
    let part = shared.stores[usize::from(key.0.0)].root().open_part(name, size, root)?;
    part.set_attributes(mode, mtime);
    shared.add_part(key, part);
    Ok(())
}

/// A part has ended: the journal has nothing more to say of it.
fn forget(shared: &Shared, flow: FlowId, part: &Part) {
    if let Some(mut journal) = shared.journal(flow).filter(|_| part.root().is_some()) {
        journal.forget(part);
    }
}

fn write(shared: &Shared, flow: FlowId, buffer: Buffer, writes: &[Write]) {
    let bytes = buffer.filled();
    let mut written = Vec::with_capacity(writes.len());
    let mut part: Option<(PartKey, Arc<Part>)> = None;
    for write in writes {
        let key = (flow, write.id, write.generation);
        if part.as_ref().is_none_or(|(at, _)| *at != key) {
            part = shared.part(key).map(|part| (key, part));
        }
        // No part: the attempt was given up while these bytes were on their way.
        let Some((_, part)) = &part else { continue };
        let slices: Vec<IoSlice<'_>> = write.pieces().map(|piece| IoSlice::new(&bytes[piece])).collect();
        match part.write_vectored_at(&slices, write.offset) {
            Ok(()) => written.push((write.id, write.generation, write.offset.0 + write.length as u64)),
            Err(error) => fail(shared, key, &error),
        }
    }
    let held = buffer.filled().len();
    drop(buffer);
    shared.with_flows(|flows, _| {
        for (id, generation, upto) in written {
            flows.at(flow).handle_written(id, generation, ByteCount(upto));
        }
    });
    shared.shrink_backlog(held);
}

/// Nobody goes on with a part.
fn throw_away(shared: &Shared, flow: FlowId, part: &Part) {
    // In this order: nothing is recorded of what is abandoned, and what was recorded before is forgotten.
    part.abandon();
    forget(shared, flow, part);
}

/// The store does not have what it should of a part: that goes, and is fetched again.
pub(super) fn give_up(shared: &Shared, key: PartKey, error: &StoreError) {
    if let Some(part) = shared.take_part(key) {
        throw_away(shared, key.0, &part);
    }
    fail(shared, key, error);
}

pub(super) fn fail(shared: &Shared, (flow, id, generation): PartKey, error: &StoreError) {
    let fault = if error.is_of_name() { Fault::Name } else { Fault::Store };
    tell_failed(shared, (flow, id, generation), error, fault);
}

fn tell_failed(shared: &Shared, (flow, id, generation): PartKey, error: &StoreError, fault: Fault) {
    let why = error.to_string();
    shared.with_flows(|flows, now| flows.at(flow).handle_store_failed(id, generation, why, fault, now));
}

/// A part could not be made final. What can be gone on with stays, and is not fetched again.
fn put_off(shared: &Shared, key: PartKey, error: &StoreError) {
    let fault = if error.is_of_place() { Fault::Name } else { Fault::Store };
    let Some(part) = shared.take_part(key) else { return tell_failed(shared, key, error, fault) };
    let (flow, id, generation) = key;
    let is_kept = part.lasts()
        && !error.is_loss()
        && shared.with_flows(|flows, now| {
            flows.at(flow).handle_commit_failed(id, generation, error.to_string(), fault, now)
        });
    if !is_kept {
        throw_away(shared, flow, &part);
        tell_failed(shared, key, error, fault);
    }
}

pub(super) fn spawn_committer(shared: Arc<Shared>, jobs: Receiver<CommitJob>) -> std::io::Result<JoinHandle<()>> {
    spawn("ss-committer", move || {
        while let Ok(first) = jobs.recv() {
            let mut batch = BTreeMap::<FlowId, Vec<(PartKey, Arc<Part>)>>::new();
            let mut gone = BTreeMap::<FlowId, Vec<ObjectName>>::new();
            let mut stop = false;
            for job in std::iter::once(first).chain(jobs.try_iter().take(limits::COMMIT_BATCH_MAX - 1)) {
                match job {
                    CommitJob::Stop => stop = true,
                    _ if shared.dead.load(Ordering::Acquire) => {}
                    CommitJob::Remove { flow, name } => gone.entry(flow).or_default().push(name),
                    CommitJob::Hash { key } => hash(&shared, key),
                    CommitJob::Check { key, root } => check(&shared, key, root),
                    CommitJob::SetAttributes { key } => set_attributes(&shared, key),
                    CommitJob::Commit { key, root } => {
                        if !gone.is_empty() {
                            // It may be a new object of a name that was removed.
                            commit(&shared, std::mem::take(&mut batch));
                            remove(&shared, std::mem::take(&mut gone));
                        }
                        let Some(part) = shared.part(key) else { continue };
                        if root.is_some() && unseen_blocks(&part) > limits::READ_BACK_BLOCKS_MAX {
                            // It takes a while, in which the others need not wait.
                            commit(&shared, std::mem::take(&mut batch));
                        }
                        if has_root(&shared, key, &part, root) {
                            add_attributes(&shared, key, &part);
                            batch.entry(key.0).or_default().push((key, part));
                        }
                    }
                }
            }
            commit(&shared, batch);
            remove(&shared, gone);
            if stop {
                break;
            }
        }
    })
}

/// Finds out what an object is made of that came whole from a peer without an inventory. Its attributes are those of
/// the spool's file, for nobody has told others.
fn hash(shared: &Shared, key: PartKey) {
    let (flow, id, generation) = key;
    let Some(name) = current_name(shared, key) else { return };
    let read = read(shared, flow, &name);
    shared.with_flows(|flows, now| match read {
        Ok(None) => {}
        Ok(Some((stamp, hashes))) => flows.at(flow).handle_hashed(id, generation, content_of(&stamp, hashes)),
        Err(reason) => flows.at(flow).handle_source_failed(id, generation, reason, now),
    });
}

/// What is told of an object that was read.
pub fn content_of(stamp: &Stamp, hashes: Hashes) -> Content {
    Content {
        size: stamp.size,
        mtime_ns: stamp.mtime.0,
        mode: stamp.mode.bits(),
        root: hashes.root,
        block_crcs: hashes.block_crcs,
    }
}

/// What an object is and holds; `None` where the engine stops first.
fn read(shared: &Shared, flow: FlowId, name: &ObjectName) -> Result<Option<(Stamp, Hashes)>, String> {
    let source = shared.stores[usize::from(flow.0)].root().open_source(name).map_err(|error| error.to_string())?;
    let hashes = hash_source_unless(&source, || shared.is_over()).map_err(|error| error.to_string())?;
    Ok(hashes.map(|hashes| (source.stamp(), hashes)))
}

/// Holds what a spool has from an earlier run against its root: what a disk has lost meanwhile is fetched again. Where
/// the engine stops first, the next run finds out.
fn check(shared: &Shared, key: PartKey, root: Root256) {
    let (flow, id, generation) = key;
    let Some(name) = current_name(shared, key) else { return };
    let reason = match read(shared, flow, &name) {
        Ok(None) => return,
        Ok(Some((_, hashes))) if hashes.root == root => return,
        Ok(Some(_)) => "what the spool had of it was damaged".to_owned(),
        Err(reason) => reason,
    };
    shared.with_flows(|flows, now| {
        let flow = flows.at(flow);
        // Or it has gone to make room.
        if matches!(flow.state(id), ObjectState::Present { .. }) {
            flow.handle_source_failed(id, generation, reason, now);
        }
    });
}

/// The name of an object, and what is known of the version that is here or on its way.
fn known_version(shared: &Shared, (flow, id, generation): PartKey) -> Option<(ObjectName, Version)> {
    shared.with_flows(|flows, _| {
        let flow = flows.at(flow);
        let content = flow.content(id).filter(|_| flow.is_current(id, generation))?;
        let version = Version {
            size: content.size,
            root: content.root,
            mode: FileMode::new(u32::from(content.mode)),
            mtime: FileTime(content.mtime_ns),
        };
        Some((flow.name(id).clone(), version))
    })
}

/// What came whole brought neither mode nor time: it gets those that are known of it.
fn add_attributes(shared: &Shared, key: PartKey, part: &Part) {
    if !part.has_attributes()
        && let Some((_, Version { mode, mtime, .. })) = known_version(shared, key)
    {
        part.set_attributes(mode, mtime);
    }
}

/// Gives a file the mode and time that are known of it now, if it is the version that they are known of.
fn set_attributes(shared: &Shared, key: PartKey) {
    let Some((name, Version { root, mode, mtime, .. })) = known_version(shared, key) else { return };
    let flow = key.0;
    if let Err(error) = shared.stores[usize::from(flow.0)].root().set_attributes(&name, root, mode, mtime) {
        tracing::warn!(object = %name, "{error}");
    }
}

/// Whether all of a part is what the inventory says; if not, the flow is told. Where the engine stops first, the next
/// run finds out.
fn has_root(shared: &Shared, key: PartKey, part: &Part, root: Option<Root256>) -> bool {
    let Some(root) = root else { return true };
    match hash_part(part, || shared.is_over()) {
        Ok(Some(found)) if found == root => {
            part.set_read_root(found);
            return true;
        }
        Ok(Some(_)) => {}
        Ok(None) => return false,
        Err(error) => tracing::warn!("{error}"),
    }
    shared.with_flows(|flows, now| flows.at(key.0).handle_root_failed(key.1, key.2, now));
    false
}

fn commit(shared: &Shared, batch: BTreeMap<FlowId, Vec<(PartKey, Arc<Part>)>>) {
    for (flow, parts) in batch {
        end(shared, Committer::commit_batch(shared.stores[usize::from(flow.0)].root(), parts));
    }
}

fn remove(shared: &Shared, gone: BTreeMap<FlowId, Vec<ObjectName>>) {
    for (flow, names) in gone {
        let root = shared.stores[usize::from(flow.0)].root();
        let mut removed = 0;
        for (name, result) in root.remove_batch(names) {
            match result {
                Ok(()) => {
                    removed += 1;
                    tracing::debug!(object = %name, "removed: it is gone at its origin");
                }
                Err(error) => tracing::warn!(object = %name, "is gone at its origin, and cannot be removed: {error}"),
            }
        }
        if removed > 0 {
            tracing::info!("removed {removed} objects from {}: they are gone at their origin", root.path().display());
        }
    }
}

fn keep(shared: &Shared, key: PartKey) {
    let Some(part) = shared.part(key) else { return };
    end(shared, vec![(key, part.keep_unsynced())]);
    // Given up in the meantime: the flow does not reckon with the file.
    let (flow, id, generation) = key;
    if !shared.with_flows(|flows, _| flows.at(flow).is_current(id, generation)) {
        evict(shared, flow, part.name());
    }
}

/// Attempts are over. The part of each can be had until the flow knows of the file.
fn end(shared: &Shared, results: Vec<(PartKey, Result<(), StoreError>)>) {
    for results in results.chunks(limits::JUDGED_AT_ONCE_MAX) {
        shared.with_flows(|flows, now| {
            for ((flow, id, generation), _) in results.iter().filter(|(_, result)| result.is_ok()) {
                flows.at(*flow).handle_committed(*id, *generation, now);
            }
        });
        for (key, result) in results {
            match result {
                Ok(()) => {
                    if let Some(part) = shared.take_part(*key) {
                        forget(shared, key.0, &part);
                    }
                }
                Err(error) => put_off(shared, *key, error),
            }
        }
    }
}

fn evict(shared: &Shared, flow: FlowId, name: &ObjectName) {
    if let Err(error) = shared.stores[usize::from(flow.0)].root().remove_kept(name) {
        tracing::warn!(object = %name, "cannot be evicted from the spool: {error}");
    }
}
