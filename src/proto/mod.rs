//! One state machine a protocol: it turns packets of [`wire`](crate::wire) into calls of
//! [`transfer`](crate::transfer), and what is to be sent into descriptions of packets. It never touches a file, a
//! socket or a clock.

pub mod duplex;
pub mod extended;
mod link;
pub mod named;
pub mod session;

pub use link::{Link, LinkError, Protocol, Received};
