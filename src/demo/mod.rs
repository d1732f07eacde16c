//! Two traders and two exchanges in one process: what the `demo` command shows.
//!
//! Drives the same nodes that the service runs, over real sockets, on a store that it makes itself.
//! Nothing else in the crate knows this module.

pub mod records;
