//! Sessions (seed 002): a directory tree goes to or comes from another host, over several connections of this engine.
//!
//! ```text
//! sender    scanner thread: walks the tree, announces batches      worker: reads blocks into trains, sends them
//! receiver  worker: receives, checks, hands on                     writer thread of the session: files and directories
//! ```
//!
//! All decisions are [`proto::session`](crate::proto::session)'s, which stands behind the lock of a `Running`; it is
//! taken once a train and once a buffer. Receive buffers travel to the session's writer and come back empty, which is
//! the back-pressure from disk to peer. A client runs one session with [`start`]; a node serves those of others
//! ([`Engine::serve_session`](super::Engine::serve_session)), of the directories in its [`Modules`].

mod client;
mod connection;
mod ends;
mod job;
mod landing;
mod modules;
mod running;
mod server;
mod source;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How trees are transferred.
pub use crate::wire::session::Options as SessionOptions;
pub use client::start;
pub(super) use connection::{Connection, NewConnection};
pub use job::{
    Change, Direction, Report, SessionError, SessionFeed, SessionHandle, SessionJob, SessionProgress, StopSwitch,
    Summary,
};
pub use modules::{Module, Modules, Refusal};
pub use server::ServedView;
pub(super) use server::{Answer, Sessions, called};

use crate::limits;
use crate::uring::socket;

/// Sets up the socket of a connection that stands. What is on its way to a near peer is kept short: more would not make
/// it faster, and is lost when the peer dies. The kernel ends none whose peer takes nothing: its disk may be busy for
/// long. That a peer is gone shows in its silence.
fn set_up(socket: &OwnedFd) -> io::Result<()> {
    let options = socket::Options {
        no_delay: true,
        not_sent_low_water: Some(limits::SESSION_UNSENT_BYTES),
        send_buffer: None,
        user_timeout: None,
        keep_alive: None,
        congestion: None,
    };
    socket::apply(socket, &options)?;
    let rtt = Duration::from_micros(socket::tcp_info(socket)?.rtt_us.into());
    if rtt < limits::SESSION_LOCAL_RTT {
        socket::set_receive_buffer(socket, limits::SESSION_LOCAL_UNREAD_BYTES)?;
    }
    Ok(())
}
