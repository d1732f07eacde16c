//! The threads that touch the disk: one writes payload into part files, one makes whole parts final.
//!
//! The writer takes its jobs strictly in order, so a part stands before its first bytes come. The committer takes all
//! that waits at once, so that many small objects share their waits for the disk; it also evicts, since a name may be
//! evicted and committed again.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use super::shared::{PartKey, Shared, Store};
use crate::limits;
use crate::proto::duplex::Write;
use crate::store::{Committer, Part};
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
    Stop,
}

/// Work for the committer.
pub(super) enum CommitJob {
    /// Make a part final.
    Commit {
        key: PartKey,
    },
    /// Remove a file.
    Evict {
        flow: FlowId,
        name: ObjectName,
    },
    Stop,
}

pub(super) fn spawn_writer(shared: Arc<Shared>, jobs: Receiver<WriteJob>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("ss-writer".into()).spawn(move || {
        for job in jobs {
            match job {
                WriteJob::Stop => break,
                _ if shared.dead.load(Ordering::Acquire) => {}
                WriteJob::Create { key, size } => create(&shared, key, size),
                WriteJob::Write { flow, buffer, writes } => write(&shared, flow, buffer, &writes),
                WriteJob::Abandon { key } => drop(shared.take_part(key)),
            }
        }
    })
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

fn fail(shared: &Shared, (flow, id, generation): PartKey, error: &crate::store::StoreError) {
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
                    CommitJob::Evict { flow, name } => {
                        commit(&shared, std::mem::take(&mut batch));
                        evict(&shared, flow, &name);
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
        let done = match &shared.stores[usize::from(flow.0)] {
            Store::Remote(root) => Committer::commit_batch(root, parts),
            Store::Spool(_) | Store::Local(_) => {
                parts.into_iter().map(|(key, part)| (key, part.keep_unsynced())).collect()
            }
        };
        for (key, result) in done {
            match result {
                Ok(()) => {
                    shared.with_flows(|flows, now| flows.at(flow).handle_committed(key.1, key.2, now));
                    shared.take_part(key);
                }
                Err(error) => {
                    shared.take_part(key);
                    fail(shared, key, &error);
                }
            }
        }
    }
}

fn evict(shared: &Shared, flow: FlowId, name: &ObjectName) {
    if let Err(error) = shared.stores[usize::from(flow.0)].root().remove(name) {
        tracing::warn!(object = %name, "cannot be evicted from the spool: {error}");
    }
}
