//! SuperSync: both sides of a pair of hosts converge over all links and relays at once.
#![deny(unsafe_op_in_unsafe_fn)]
pub mod config;
pub mod control;
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
