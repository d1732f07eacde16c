//! The thread that makes what is arriving durable, so that a host that loses its power need not fetch all of it again.
//!
//! It looks at the journals from time to time, flushes the parts that have grown, then has the journal say so and
//! flushes that. It waits for the disk without any lock, so that the writer never waits for it. Parts that are whole
//! are the committer's. A spool is trusted within one boot only, which needs no flushing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use super::shared::{PartKey, Shared, Store};
use super::writer::give_up;
use crate::limits;
use crate::store::{Part, StoreError};
use crate::transfer::FlowId;

pub(super) fn spawn(shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    super::spawn("ss-flusher", move || {
        let mut failed = false;
        while !shared.dead.load(Ordering::Acquire) {
            let is_last = shared.ending.load(Ordering::Acquire);
            let outcome = flush_all(&shared);
            match &outcome {
                Err(error) if !failed => tracing::warn!("what arrives is fetched again after a power loss: {error}"),
                _ => {}
            }
            failed = outcome.is_err();
            if is_last {
                break;
            }
            std::thread::park_timeout(limits::JOURNAL_DURABLE_EVERY);
        }
    })
}

/// Makes durable what has come in of the parts of all flows whose stores are to be. The error is the last one.
fn flush_all(shared: &Shared) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    for (index, store) in shared.stores.iter().enumerate() {
        let flow = FlowId(index as u8);
        let parts = match store {
            Store::Remote(_) => shared.lasting_parts(flow),
            Store::Local(_) | Store::Spool(_) => Vec::new(),
        };
        if !parts.is_empty() {
            outcome = outcome.and(flush(shared, flow, &parts));
        }
    }
    outcome
}

fn flush(shared: &Shared, flow: FlowId, parts: &[(PartKey, Arc<Part>)]) -> Result<(), StoreError> {
    let Some(journal) = shared.journal(flow) else { return Ok(()) };
    let growing = parts.iter().map(|(_, part)| part).filter(|part| !journal.is_whole(part));
    let mut pending = journal.pending(&growing.cloned().collect::<Vec<_>>());
    drop(journal);
    if pending.is_empty() {
        return Ok(());
    }
    let flushed = pending.sync();
    if let Err(error) = &flushed {
        for failed in pending.failed() {
            let found = parts.iter().find(|(_, part)| Arc::ptr_eq(part, failed));
            found.into_iter().for_each(|(key, _)| give_up(shared, *key, error));
        }
    }
    let confirmed = shared.journal(flow).map(|mut journal| journal.confirm(pending)).transpose()?;
    let synced = confirmed.map_or(Ok(()), |confirmed| confirmed.sync());
    let settled = shared.journal(flow).map_or(Ok(()), |mut journal| journal.settle(synced));
    flushed.and(settled)
}
