//! A root on disk: the objects that a node has, and those that are arriving.
//!
//! Owns every access to the file system. All of it blocks, so it is called from threads of the rim, never from
//! the protocol core, and it never touches a socket or a packet. It knows `units` and `limits` only.
//!
//! - [`Root`] is a directory held by descriptor. Every name is resolved beneath it; no symbolic link leads out.
//! - [`scan`] lists what is in a root; [`SegmentSpec`] says what should be; [`Watch`] says when to look again.
//! - [`Source`] is an object being sent: mapped for the kernel, never dereferenced here.
//! - [`Part`] is an object that is arriving, under a private name; [`Committer`] makes whole parts durable in
//!   groups and writes their `.success` [`Marker`]s last (ARCHITECTURE, invariant 8).
//! - [`Spool`] is what an exchange keeps between its traders: whole objects, never flushed, trusted within one boot.
//!
//! A receiver calls [`Root::create`] once, then for each object [`Root::is_done`], [`Root::create_part`],
//! [`Part::write_vectored_at`] until it is whole, and [`Committer::commit_batch`]. A part that is dropped before
//! that leaves nothing behind.

mod commit;
mod error;
mod marker;
mod part;
mod resolve;
mod root;
mod scan;
mod segments;
mod source;
mod spool;
mod watch;

#[cfg(test)]
mod tests;

pub use commit::Committer;
pub use error::{Refusal, SourceError, StoreError};
pub use marker::{Marker, MarkerError};
pub use part::Part;
pub use root::{Done, Root};
pub use scan::{Refused, Sample, ScanReport, Skipped, SkippedKind, scan};
pub use segments::{Pattern, PatternError, SegmentSpec, SpecReport};
pub use source::{Device, FileTime, Inode, Source, Stamp};
pub use spool::{BootId, Spool, SpoolObject, SpoolPeer};
pub use watch::{Changed, Watch};
