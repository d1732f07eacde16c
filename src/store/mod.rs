//! A root on disk: the objects that a node has, and those that are arriving.
//!
//! Owns every access to the file system. All of it blocks, so it is called from threads of the rim, never from
//! the protocol core, and it never touches a socket or a packet. It knows `units` and `limits` only.
//!
//! - [`Root`] is a directory held by descriptor. Every name is resolved beneath it; no symbolic link leads out.
//! - [`scan()`] lists what is in a root; [`SegmentSpec`] says what should be; [`Watch`] says when to look again.
//! - [`Source`] is an object being sent: read, and then found unchanged.
//! - [`Part`] is an object that is arriving, under a private name; [`Committer`] makes whole parts durable in
//!   groups and writes their `.success` [`Marker`]s last (invariant 8 of the [crate]).
//! - [`hash_source`] reads an object into its [`Hashes`], and [`HashCache`] remembers them over restarts; a receiver
//!   gets at the same root from its blocks, [`block_cv`] and [`root_of`]. [`Root::verify`] and
//!   [`Root::verify_all`] hold objects to it.
//! - [`Journal`] says which bytes of the parts are there after a crash, and [`Journal::left`] what to do with them.
//! - [`Root::remove_batch`] takes objects away for good, [`Root::remove_kept`] those of a spool, in passing.
//! - [`Spool`] is what an exchange keeps between its traders: whole objects, never flushed, trusted within one boot.
//!
//! A receiver calls [`Root::create`] once, then for each object [`Root::is_done`], [`Root::create_part`],
//! [`Part::write_vectored_at`] until it is whole, and [`Committer::commit_batch`]. A part that is dropped before
//! that leaves nothing behind. A small object that is all in memory comes by [`Root::write_part`], whole at once. One
//! that knows which version it fetches takes [`Root::open_part`] instead, so that the part stays, and opens a
//! [`Journal`] first, which describes the calls.

mod commit;
mod error;
mod glance;
mod hash;
mod hashes_cache;
mod journal;
mod lock;
mod log;
mod marker;
mod part;
mod remove;
mod resolve;
mod resume;
mod root;
mod scan;
mod segments;
mod source;
mod spool;
pub mod tree;
mod verify;
mod watch;

#[cfg(test)]
mod tests;

pub use commit::Committer;
pub use error::{Lack, Refusal, SourceError, StoreError};
pub use glance::Glance;
pub use hash::{
    BlockCv, Hashes, block_count, block_crc, block_cv, block_range, hash_part, hash_small, hash_source,
    hash_source_unless, root_of, unseen_blocks,
};
pub use hashes_cache::HashCache;
pub use journal::{Confirmed, Journal, Pending, Resumed, Unmarked};
pub use lock::DirectoryLock;
pub use marker::{Marker, MarkerError};
pub use part::Part;
pub use resume::Left;
pub use root::{Difference, Done, Root, Verified};
pub use scan::{Refused, Sample, ScanReport, Skipped, SkippedKind, look_up, scan, scan_by_parts};
pub use segments::{Pattern, PatternError, SegmentSpec, SpecReport};
pub use source::{Device, FileMode, Inode, Source, Stamp};
pub use spool::{BootId, Spool, SpoolObject, SpoolPeer};
pub use watch::{Changed, Watch};

pub use crate::units::FileTime;
