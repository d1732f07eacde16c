//! One node: its role, its links, its store and its control socket, from start to end.
//!
//! Owns the control plane. Accepting, dialing, watching the store and answering the control socket run on one thread of
//! the node's own, on a `tokio-uring` runtime or, where the node does without rings, on tokio's own; what waits for the
//! disk runs beside it. It makes the flows from what the config says and the disk holds, hands connected sockets to the
//! [`engine`](crate::engine), and never touches a byte of an object but to hash it.
//!
//! - [`run`] is the daemon: in the foreground, with signals and service notifications.
//! - [`Node`] is the same within a process, for a whole site in one (`supersyncd demo`, tests).
//! - [`fetch`](mod@fetch) is the client of the named protocol, which is no node: it comes, fetches and goes.

mod clients;
mod dial;
pub mod fetch;
mod figures;
mod flaps;
mod flows;
mod inventory;
mod line;
mod links;
mod listen;
mod local;
mod pause;
mod problems;
mod reload;
mod remote;
mod report;
mod signals;
mod site;
mod watch;
mod why;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::config::{Config, ConfigError};
use crate::control::{ControlError, Status, listen_hint};
use crate::engine::EngineError;
use crate::limits;
use crate::store::{PatternError, StoreError};
use crate::uring::socket;
use site::{Command, Site};

/// Why a node cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The config is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The segment specification is wrong.
    #[error("store.segments.pattern: {0}")]
    Segments(#[from] PatternError),
    /// A root cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control socket cannot be made.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The data plane cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; {}", listen_hint(.source))]
    Listen {
        /// The address of the config.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The runtime of the control plane cannot start.
    #[error("cannot start the node's runtime: {0}")]
    Runtime(std::io::Error),
}

/// A running node of this process.
#[derive(Debug)]
pub struct Node {
    site: Arc<Site>,
    commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
}

impl Node {
    /// Starts a node; when this returns it listens, and its store has been looked at. `file`: where the config came
    /// from, for a reload.
    pub fn start(config: Config, file: Option<PathBuf>) -> Result<Self, NodeError> {
        Self::start_with(config, file, listen::Kept::default())
    }

    fn start_with(config: Config, file: Option<PathBuf>, kept: listen::Kept) -> Result<Self, NodeError> {
        let (ready, started) = oneshot::channel();
        let (commands, inbox) = mpsc::unbounded_channel();
        let sender = commands.clone();
        let name = format!("ss-{}", config.name);
        let thread = std::thread::Builder::new()
            .name(name.chars().take(limits::THREAD_NAME_BYTES_MAX).collect())
            .spawn(move || site::main(config, file, kept, sender, inbox, ready))
            .map_err(NodeError::Runtime)?;
        match started.blocking_recv() {
            Ok(Ok(site)) => Ok(Self { site, commands, thread }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(NodeError::Runtime(std::io::Error::other("the node's thread died at its start"))),
        }
    }

    /// The node as it is now.
    pub fn status(&self) -> Status {
        self.site.status()
    }

    /// Where it listens, in the order of the config: with the port that the kernel chose for port 0.
    pub fn listening(&self) -> &[std::net::SocketAddr] {
        self.site.listening()
    }

    /// Ends in good order: packets are finished, what is whole is committed.
    pub fn drain(self) {
        self.end(Command::Drain);
    }

    /// Ends as a crash would, but for the process: what is in flight is lost.
    pub fn kill(self) {
        self.end(Command::Kill);
    }

    fn end(self, command: Command) {
        let _ = self.commands.send(command);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Runs a node until SIGTERM, SIGINT or a request to drain, then drains it. SIGHUP reloads. Tells the service manager,
/// where there is one, when it is ready, reloading and stopping, and feeds its watchdog while every worker makes
/// progress.
pub fn run(config: Config, file: PathBuf) -> Result<(), NodeError> {
    let _entered = tracing::info_span!("node", node = %config.name).entered();
    raise_open_files();
    let signals = signals::Signals::new()?;
    let kept = listen::Kept::take(&config);
    let node = Node::start_with(config, Some(file), kept)?;
    signals.serve(&node.site, &node.commands)?;
    node.drain();
    Ok(())
}

/// Sets up the socket of a link: a peer that is gone is noticed, and what is sent does not wait for more.
fn set_up(socket: &OwnedFd, congestion: Option<String>) -> std::io::Result<()> {
    let options = socket::Options {
        no_delay: true,
        user_timeout: Some(limits::UNACKNOWLEDGED_MAX),
        keep_alive: Some((limits::TCP_IDLE, limits::TCP_PROBE_EVERY, limits::TCP_PROBES)),
        congestion,
        ..socket::Options::default()
    };
    socket::apply(socket, &options)
}

/// Lets this process have as many files open as it may: many small objects are many parts.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}
