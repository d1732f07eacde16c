//! Whole sites of real daemons over loopback: processes, sockets, files, signals.
//!
//! Every test has a site of its own: its own temporary directory, its own loopback addresses, processes that are
//! stopped by their ids. Tests wait for what they expect to see in files and on the control socket, with a deadline,
//! and never for time to pass. What depends on chance is drawn from a seed that is printed; `SUPERSYNC_E2E_SEED` sets
//! it. `SUPERSYNC_E2E_ENGINE` has all nodes and clients run on one engine, `SUPERSYNC_E2E_WHOLE` has sites carry whole
//! objects.

mod blocks;
mod command;
mod converge;
mod crash;
mod engine;
mod full;
mod hostile;
mod lockstep;
mod memory;
mod metrics;
mod mirror;
mod mixed;
mod named;
mod operate;
mod proxy;
mod resume;
mod schema;
mod seed;
mod session;
mod session_bounds;
mod session_habits;
mod session_order;
mod site;
mod sources;
mod top;
mod upkeep;
mod verify;
