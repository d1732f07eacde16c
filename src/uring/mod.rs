//! The data plane's way to the kernel: a safe interface over raw `io-uring`, for sockets only, and over plain system
//! calls where there is no io_uring.
//!
//! This is the only folder with `unsafe` code. It owns rings and their twin, receive buffers, send trains, socket
//! options and the test of what the kernel allows; it knows nothing of links, objects or protocols, and of the project
//! only `limits`.
//!
//! What makes it sound is ownership: whoever starts an operation gives its memory away (a [`Buffer`] to receive into,
//! a [`Gather`] to send from) together with a share of the socket, and gets it back with the operation's last
//! completion. While the kernel may touch memory there is no value from which a slice of it could be had.
//!
//! How a worker drives it, on one thread:
//!
//! 1. `recv`, `send`, `cancel` as it likes;
//! 2. [`Driver::wait`] starts them and waits;
//! 3. [`Driver::next_completion`] until `None`; then from 1.
//!
//! Another thread ends a wait with [`Waker::wake`].

mod buffer;
pub mod control;
mod driver;
mod gather;
pub mod probe;
mod ring;
mod setup;
mod slots;
pub mod socket;
mod sockets;
#[cfg(test)]
mod tests;
mod waker;

pub use buffer::{Buffer, Pool};
pub use driver::{Completion, Driver, DriverKind, Outcome, Rejected, Token};
pub use gather::{Gather, Mark};
pub use ring::Ring;
pub use setup::{RingError, Setup};
pub use sockets::Sockets;
pub use waker::Waker;
