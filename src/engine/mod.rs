//! The data plane: threads that carry bytes between sockets and files, driven by the protocol core.
//!
//! ```text
//! disk -> train of packets -> socket               worker: one driver, many links; builds trains, sends, receives
//! socket -> packets -> blocks -> disk              writer: puts received payload into part files
//!                                                  committer: makes whole parts durable, in groups
//!                                                  flusher: makes what arrives durable, from time to time
//! ```
//!
//! All decisions are the core's ([`Flows`], [`Link`](crate::proto::Link)); the flows stand behind one lock, which is
//! taken for a train that came in and for each piece of one that goes out, never per packet. Whoever holds it drains
//! what the flows want done before letting go: actions go to writer and committer, wakes to the workers of the links
//! concerned, events to the log.
//!
//! A worker waits for no file but those that it sends from, which it reads; it writes none but an object of a spool
//! that is in memory, for a link that needs a file. What came in travels to the writer, in its receive buffer or as a
//! range in memory of its own. When no buffer is left, or too many bytes of ranges wait, links stop reading, which is
//! the back-pressure from disk to peer.

mod ahead;
mod arriving;
mod connection;
mod flight;
mod flusher;
mod frames;
mod inbox;
mod kept;
mod places;
mod recent;
pub mod session;
mod shared;
mod space;
mod train;
mod worker;
mod writer;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
pub use connection::{LinkView, Traffic};
pub use places::Places;
pub use shared::Store;
pub use writer::content_of;

use crate::limits;
use crate::proto::Protocol;
use crate::proto::duplex::LinkConfig;
use crate::store::Journal;
use crate::transfer::{FlowId, Flows};
use crate::units::{Generation, LinkId, NodeName, ObjectId, ObjectName, Time};
use crate::uring::{DriverKind, RingError};
use inbox::Message;
use shared::{Shared, lock};

/// What an engine is made with.
#[derive(Debug)]
pub struct EngineConfig {
    /// The node's flows.
    pub flows: Flows,
    /// Where the objects of each flow live, in the order of their ids.
    pub stores: Vec<Store>,
    /// Journals of the flows that fetch, in the order of their ids.
    pub journals: Vec<Option<Journal>>,
    /// What the workers move bytes with.
    pub driver: DriverKind,
    /// Worker threads; at least one.
    pub workers: usize,
    /// Where padding starts from; any number.
    pub seed: u64,
}

/// Why an engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel gives no ring, or no descriptor.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No memory, no thread.
    #[error("cannot start the engine: {0}")]
    Io(#[from] std::io::Error),
}

/// A connection that is to become a link.
#[derive(Debug)]
pub struct NewLink {
    /// The connected socket.
    pub socket: OwnedFd,
    /// Who both ends are.
    pub config: LinkConfig,
    /// What it is made for.
    pub protocol: Protocol,
    /// The flow that what comes in belongs to.
    pub fetch: FlowId,
    /// The flow that is served over it.
    pub serve: FlowId,
    /// The peer's address, for people.
    pub address: String,
}

/// What the engine tells its node. Called on the engine's threads; it must not block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The peer's first packet came.
    Met {
        /// Which link.
        link: LinkId,
        /// Who it is.
        peer: NodeName,
        /// Which of the peer's links it is, if it said so.
        number: Option<NonZeroU16>,
        /// The peer's address.
        address: String,
    },
    /// A link is gone.
    Closed {
        /// Which link.
        link: LinkId,
        /// Who it was, if it had said so.
        peer: Option<NodeName>,
        /// The peer's address.
        address: String,
        /// It ended for bytes that were damaged on the way.
        damaged: bool,
        /// It ended because both ends do not fit together, which a person has to correct.
        misfit: bool,
        /// Why.
        reason: String,
    },
    /// All that came in over a link that is gone has been judged:
    /// [`Flow::take_ended`](crate::transfer::Flow::take_ended) tells all of it.
    Settled {
        /// Which link.
        link: LinkId,
    },
    /// A file that is served changed or vanished under the sender: the root should be looked at again.
    SourceFailed {
        /// Of which flow.
        flow: FlowId,
        /// Which object.
        name: ObjectName,
    },
}

/// The running data plane of one node.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    /// Until they were told to end.
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    workers: Vec<JoinHandle<()>>,
    writer: JoinHandle<()>,
    committer: JoinHandle<()>,
    flusher: JoinHandle<()>,
}

impl Engine {
    /// Starts the threads. `notify` is told what the node should know.
    pub fn start(config: EngineConfig, notify: impl Fn(Notice) + Send + Sync + 'static) -> Result<Self, EngineError> {
        let (write_jobs, write_queue) = mpsc::channel();
        let (commit_jobs, commit_queue) = mpsc::channel();
        let workers = config.workers.max(1);
        let shared = Arc::new(Shared::new(config, workers, write_jobs, commit_jobs, Box::new(notify))?);
        let workers = (0..workers).map(|index| worker::spawn(index, Arc::clone(&shared)));
        let threads = Threads {
            workers: workers.collect::<Result<_, _>>()?,
            writer: writer::spawn_writer(Arc::clone(&shared), write_queue)?,
            committer: writer::spawn_committer(Arc::clone(&shared), commit_queue)?,
            flusher: flusher::spawn(Arc::clone(&shared))?,
        };
        Ok(Self { shared, threads: Mutex::new(Some(threads)) })
    }

    /// What the workers move bytes with: plain calls where one of them has no ring.
    pub fn driver(&self) -> DriverKind {
        if self.shared.is_plain.load(Ordering::Relaxed) { DriverKind::Blocking } else { DriverKind::Uring }
    }

    /// Hands a connection to the worker with the fewest links.
    pub fn add_link(&self, link: NewLink) {
        self.shared.add_link(link);
    }

    /// Serves a client of sessions, which reaches `modules` and nothing else. `address`: the client's. An error: too
    /// many have not said yet what they want, or the socket is of no use.
    pub fn serve_session(
        &self,
        socket: OwnedFd,
        address: SocketAddr,
        modules: Arc<session::Modules>,
    ) -> std::io::Result<()> {
        let new = session::called(&self.shared.sessions, socket, address, modules)?;
        self.shared.add_session_link(new);
        Ok(())
    }

    /// The sessions of others that are under way.
    pub fn sessions(&self) -> Vec<session::ServedView> {
        self.shared.sessions.views()
    }

    /// Ends a link; a notice follows.
    pub fn close_link(&self, link: LinkId, reason: &str) {
        self.shared.send_to(link, Message::Close(link, reason.to_owned()));
    }

    /// Looks at or changes the flows; what follows from it is under way when this returns.
    pub fn with_flows<R>(&self, f: impl FnOnce(&mut Flows, Time) -> R) -> R {
        self.shared.with_flows(f)
    }

    /// All of a small object was read to be hashed: its bytes and their checksum are sent to whoever fetches it next.
    pub fn read_ahead(&self, flow: FlowId, id: ObjectId, generation: Generation, bytes: Bytes, crc: u32) {
        self.shared.ahead.add((flow, id, generation), bytes, crc);
    }

    /// Blocks while more than enough was read ahead and the links take it, for [`limits::AHEAD_PATIENCE`] at most.
    pub fn wait_for_links(&self) {
        self.shared.ahead.wait();
    }

    /// Nothing is read ahead now. To be called from time to time: what nobody took in between is let go.
    pub fn rest_ahead(&self) {
        self.shared.ahead.rest();
    }

    /// The node's clock.
    pub fn now(&self) -> Time {
        self.shared.now()
    }

    /// All links as they are now.
    pub fn links(&self) -> BTreeMap<LinkId, LinkView> {
        self.shared.views()
    }

    /// What passed over each link that has ended, until [`Engine::take_ended`]. A link that [`Engine::links`] no longer
    /// has is here.
    pub fn ended(&self) -> BTreeMap<LinkId, Traffic> {
        self.shared.ended()
    }

    /// What passed over a link that has ended, once: to be asked for at [`Notice::Settled`].
    pub fn take_ended(&self, link: LinkId) -> Option<Traffic> {
        self.shared.take_ended(link)
    }

    /// What passed over all links since the start.
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic()
    }

    /// How many links there are.
    pub fn link_count(&self) -> usize {
        self.shared.link_count()
    }

    /// How many links there are with one address.
    pub fn link_count_of(&self, address: IpAddr) -> usize {
        self.shared.link_count_of(address)
    }

    /// The longest time since a worker last went through its loop.
    pub fn longest_turn(&self) -> Duration {
        let now = self.shared.now();
        let turns = self.shared.inboxes.iter().map(|inbox| now.since(inbox.last_turn()));
        turns.max().unwrap_or_default()
    }

    /// Bytes of objects that were committed since the start.
    pub fn committed_bytes(&self) -> u64 {
        self.shared.committed_bytes.load(Ordering::Relaxed)
    }

    /// When an object was committed last, since 1970, if one was since the start.
    pub fn committed_at(&self) -> Option<Duration> {
        let at = self.shared.committed_at.load(Ordering::Relaxed);
        (at > 0).then(|| Duration::from_millis(at))
    }

    /// Whether links read nothing now, for so much waits for the disk.
    pub fn is_behind(&self) -> bool {
        self.shared.backlog.load(Ordering::Acquire) >= limits::WRITE_BACKLOG_MAX
    }

    /// Ends in good order: every link finishes its packet, what is whole is committed. Takes at most about `within`.
    pub fn drain(&self, within: Duration) {
        self.shared.sessions.stop();
        self.stop(within);
    }

    /// Ends at once, as a crash would: what is in flight is lost.
    pub fn kill(&self) {
        self.shared.dead.store(true, Ordering::Release);
        self.stop(Duration::ZERO);
    }

    fn stop(&self, within: Duration) {
        self.shared.drain(within);
        let Some(Threads { workers, writer, committer, flusher }) = lock(&self.threads).take() else { return };
        // Workers first: they give the writer its last work; then the writer, which gives the committer its; what is
        // left then is the flusher's.
        join(workers);
        self.shared.sessions.join();
        self.shared.stop_writer();
        join([writer]);
        self.shared.stop_committer();
        join([committer]);
        self.shared.ending.store(true, Ordering::Release);
        flusher.thread().unpark();
        join([flusher]);
    }
}

/// Starts a thread whose log lines are of the same node as those of whoever starts it.
pub(crate) fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    let span = tracing::Span::current();
    std::thread::Builder::new().name(name.into()).spawn(move || span.in_scope(work))
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}
