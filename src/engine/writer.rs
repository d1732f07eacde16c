//! The threads that touch the disk: one writes payload into part files, one makes whole parts final.
//!
//! The writer takes its jobs strictly in order, so a part stands before its first bytes come. A spool is its own: what is
//! whole is only renamed, and what is evicted is gone before the part is made that it gives its room to. The committer
//! takes all that waits at once, so that many small objects share their waits for the disk.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use super::shared::{PartKey, Shared};
use crate::limits;
use crate::proto::duplex::Write;
use crate::store::{Committer, Part, StoreError};
use crate::transfer::FlowId;
use crate::units::{ByteCount, ObjectName};
use crate::uring::Buffer;

/// Work for the writer.
pub(super) enum WriteJob {
    /// Make a part file.
    Create {
        key: PartKey,
        size: ByteCount,
    },
    /// Put ranges of a buffer where they belong.
    Write {
        flow: FlowId,
        buffer: Buffer,
        writes: Vec<Write>,
    },
    /// Throw a part away.
    Abandon {
        key: PartKey,
    },
    /// Make a part final in a spool.
    Keep {
        key: PartKey,
    },
    /// Remove a file from a spool.
    Evict {
        flow: FlowId,
        name: ObjectName,
    },
    Stop,
}

/// Work for the committer: of stores that are durable.
pub(super) enum CommitJob {
    /// Make a part final.
    Commit {
        key: PartKey,
    },
    Stop,
}

pub(super) fn spawn_writer(shared: Arc<Shared>, jobs: Receiver<WriteJob>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("ss-writer".into()).spawn(move || {
        for job in jobs.iter().take_while(|job| !matches!(job, WriteJob::Stop)) {
            handle(&shared, job);
        }
        // What followed from the last writes: whole parts that a spool keeps.
        jobs.try_iter().for_each(|job| handle(&shared, job));
    })
}

fn handle(shared: &Shared, job: WriteJob) {
    match job {
        _ if shared.dead.load(Ordering::Acquire) => {}
        WriteJob::Create { key, size } => create(shared, key, size),
        WriteJob::Write { flow, buffer, writes } => write(shared, flow, buffer, &writes),
        WriteJob::Abandon { key } => drop(shared.take_part(key)),
        WriteJob::Keep { key } => keep(shared, key),
        WriteJob::Evict { flow, name } => evict(shared, flow, &name),
        WriteJob::Stop => {}
    }
}

fn create(shared: &Shared, key: PartKey, size: ByteCount) {
    let (flow, id, generation) = key;
    let name = shared.with_flows(|flows, _| {
        let flow = flows.at(flow);
        flow.is_current(id, generation).then(|| flow.name(id).clone())
    });
    let Some(name) = name else { return };
    match shared.stores[usize::from(flow.0)].root().create_part(&name, size) {
        Ok(part) => {
            shared.add_part(key, part);
            shared.with_flows(|flows, _| flows.at(flow).handle_created(id, generation));
        }
        Err(error) => fail(shared, key, &error),
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
    drop(buffer);
    shared.with_flows(|flows, _| {
        for (id, generation, upto) in written {
            flows.at(flow).handle_written(id, generation, ByteCount(upto));
        }
    });
}

fn fail(shared: &Shared, (flow, id, generation): PartKey, error: &StoreError) {
    shared.with_flows(|flows, now| flows.at(flow).handle_store_failed(id, generation, error.to_string(), now));
}

pub(super) fn spawn_committer(shared: Arc<Shared>, jobs: Receiver<CommitJob>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("ss-committer".into()).spawn(move || {
        while let Ok(first) = jobs.recv() {
            let mut batch = BTreeMap::<FlowId, Vec<(PartKey, Arc<Part>)>>::new();
            let mut stop = false;
            for job in std::iter::once(first).chain(jobs.try_iter().take(limits::COMMIT_BATCH_MAX - 1)) {
                match job {
                    CommitJob::Stop => stop = true,
                    _ if shared.dead.load(Ordering::Acquire) => {}
                    CommitJob::Commit { key } => {
                        if let Some(part) = shared.part(key) {
                            batch.entry(key.0).or_default().push((key, part));
                        }
                    }
                }
            }
            commit(&shared, batch);
            if stop {
                break;
            }
        }
    })
}

fn commit(shared: &Shared, batch: BTreeMap<FlowId, Vec<(PartKey, Arc<Part>)>>) {
    for (flow, parts) in batch {
        for (key, result) in Committer::commit_batch(shared.stores[usize::from(flow.0)].root(), parts) {
            end(shared, key, result);
        }
    }
}

fn keep(shared: &Shared, key: PartKey) {
    let Some(part) = shared.part(key) else { return };
    end(shared, key, part.keep_unsynced());
    // Given up in the meantime: the flow does not reckon with the file.
    let (flow, id, generation) = key;
    if !shared.with_flows(|flows, _| flows.at(flow).is_current(id, generation)) {
        evict(shared, flow, part.name());
    }
}

/// An attempt is over. Its part can be had until the flow knows of the file.
fn end(shared: &Shared, key: PartKey, result: Result<(), StoreError>) {
    let (flow, id, generation) = key;
    match result {
        Ok(()) => {
            shared.with_flows(|flows, now| flows.at(flow).handle_committed(id, generation, now));
            shared.take_part(key);
        }
        Err(error) => {
            shared.take_part(key);
            fail(shared, key, &error);
        }
    }
}

fn evict(shared: &Shared, flow: FlowId, name: &ObjectName) {
    if let Err(error) = shared.stores[usize::from(flow.0)].root().remove(name) {
        tracing::warn!(object = %name, "cannot be evicted from the spool: {error}");
    }
}
