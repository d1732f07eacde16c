//! SuperSync: both hosts of a pair end up with both sets of segments, over all links and relays at once.
//!
//! Two *traders* each hold a set of objects; *exchanges* between them forward; each trader-exchange pair is joined by
//! several slow duplex links, one TCP connection each. One process, `supersyncd`, plays either role.
//!
//! # What lives where
//!
//! | module | what it is | may know |
//! |---|---|---|
//! | [`units`], [`limits`] | newtypes for ids and quantities; every bound and default | each other |
//! | [`wire`] | bytes <-> packets: duplex, hello, extended frames, inventory, session, padding, checksum | units, limits |
//! | [`transfer`] | what is wanted, where it comes from, what has arrived; knows no packets | units, limits |
//! | [`proto`] | one state machine a protocol (duplex, extended, named, session): wire x transfer | wire, transfer, units, limits |
//! | [`store`] | a root on disk: scan, safe paths, sources, parts, hashes, journal, durable commit, spool; directory trees | units, limits |
//! | [`uring`] | the only `unsafe`: rings and their twin of plain calls, buffers, trains, socket options, what the kernel allows | limits |
//! | [`engine`] | threads that carry bytes between sockets and files, for links of a site and for sessions | proto, transfer, wire, store, uring, units, limits |
//! | [`exit`] | exit statuses of both programs | nothing |
//! | [`config`] | raw TOML -> a config that is valid if it exists | store, wire, uring, exit, units, limits |
//! | [`control`] | the unix socket API and the client side of it; page, metrics and health | limits |
//! | [`node`] | roles, listening, dialing, watching the store, reload, shutdown; fetching by name | all above |
//! | [`demo`], [`daemon`] | a whole site in one process; the command line of `supersyncd` | node and all above; ctl for its manual |
//! | [`ctl`] | the command line of `supersyncctl`: asks a daemon, moves trees and files | node and all above |
//!
//! [`wire`], [`transfer`] and [`proto`] are the pure core: no file, socket, clock, thread, async or global randomness.
//! `tests/tidy.rs` holds the table above against the imports.
//!
//! Three protocols are given from outside, and are called seeds: 000, the plain duplex format ([`wire::duplex`]); 001,
//! files by name ([`wire::named`]); 002, trees ([`wire::session`]). A peer that speaks nothing but 000 is
//! *seed-only*.
//!
//! # A byte's way
//!
//! Out: [`proto::duplex::Link::poll_transmit`] describes what goes next; the engine's worker reads it from the object's
//! file ([`store::Source`]), lays headers and ranges out as one train ([`uring::Gather`]) and sends it.
//! In: the worker receives into a pool buffer; [`proto::duplex::Link::handle_packets`] says which ranges of it belong
//! where; the writer puts them into the part file ([`store::Part`]); the committer makes whole parts final
//! ([`store::Committer`]). Every decision on the way is [`transfer::Flow`]'s.
//!
//! Between nodes that both speak [`proto::extended`] it is ranges of objects that travel, over any link: read and
//! checksummed as they go out, but for small objects that were hashed a moment ago; gathered in memory and checked as
//! they come in, written and journaled ([`store::Journal`]); the object's root is verified before it is made final. An
//! exchange passes each range on as soon as it is checked, and writes down only what it cannot keep in memory until
//! then.
//!
//! In a session ([`proto::session`]) it is a tree: [`store::tree::Walk`] finds its entries, [`engine::session`]
//! announces them and reads their blocks into trains; at the other end [`store::tree::Landing`] makes directories and
//! links, and files when all of their blocks are there.
//!
//! # Invariants
//!
//! 1. `wire` knows no objects' bytes on disk, `transfer` knows no packets; `proto` translates a protocol's addressing
//!    into (object, range).
//! 2. Core types take `now` and seeds as arguments. Iterated maps are ordered. Same seed, same trace.
//! 3. A step of the core is: one input, then drain outputs. `handle_*`: something happened; `poll_*`: what to do next;
//!    plain verbs: commands.
//! 4. Outgoing data is described, not copied: a few header bytes and (object, offset, length).
//! 5. Files are read and written, never mapped: one that is cut short is an error, not a SIGBUS. What is sent of an
//!    object was read first, and its file found unchanged after that.
//! 6. One send operation in flight a socket; a short send goes on where it stopped.
//! 7. A buffer belongs to the driver, and with a ring to the kernel, from submission to its last completion. Tear-down:
//!    shut down, cancel, reap all, free.
//! 8. `.success` is written last: data, flush, rename, flush directory, marker, flush directory. A name under its final
//!    path is whole. Partial bytes live only in `.supersync/` of the same root.
//! 9. Every queue, retry, buffer and allocation has a bound in [`limits`]; reaching it is back-pressure or a clear
//!    error.
//! 10. Bytes from a peer or a disk never panic. A broken internal invariant always does.
//! 11. The control plane can stall without slowing the data plane, and the other way round.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod demo;
pub mod engine;
pub mod exit;
pub mod limits;
pub mod node;
pub mod proto;
pub mod store;
pub mod transfer;
pub mod units;
#[allow(unsafe_code)]
pub mod uring;
pub mod wire;
