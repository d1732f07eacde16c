//! What a client of sessions asks for, and what it is told while that is done.
//!
//! A [`SessionJob`] is started and becomes a [`SessionHandle`]; whoever does the work has the [`SessionFeed`] at its
//! other end. The handle's owner reads [`SessionHandle::next_report`] until [`Report::Ended`], which is the last one,
//! and asks for [`SessionHandle::progress`] whenever it has a screen to fill, and for [`SessionHandle::summary`] where
//! it breaks off. Reports wait in a queue: who does not read them holds the work up between two batches of entries, and
//! never a connection.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::engine::shared::lock;
use crate::limits;
use crate::units::TreePath;
use crate::uring::DriverKind;
use crate::wire::session::{ErrorCode, Options};

/// One transfer of trees between this host and a module of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionJob {
    /// Which way, and what is here.
    pub direction: Direction,
    /// Where the server listens for sessions.
    pub address: SocketAddr,
    /// The path at the server: a module's name and what is below, as the user wrote it but with no two `/` in a row. Of
    /// a pull a `/` at the end means the directory's contents, without it the directory itself.
    pub path: Vec<u8>,
    /// Connections that carry data: 1 to [`limits::SESSION_CONNECTIONS_MAX`].
    pub connections: usize,
    /// What this side moves the bytes with.
    pub driver: DriverKind,
    /// How.
    pub options: Options,
}

/// Which way a transfer goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Direction {
    /// From here to the server.
    Push {
        /// Files and directories, at least one, as the user wrote them: a `/` at the end of one means its contents,
        /// without it the directory itself.
        sources: Vec<PathBuf>,
    },
    /// From the server to here.
    Pull {
        /// The directory that the tree comes into; made where it is not there.
        destination: PathBuf,
    },
}

/// How far a transfer is. All numbers only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionProgress {
    /// Entries of the tree that the sender has told of.
    pub entries_found: u64,
    /// Those of them that stand complete, or need nothing.
    pub entries_done: u64,
    /// Bytes of all files that were told of.
    pub bytes_total: u64,
    /// Bytes that have been transferred, holes included.
    pub bytes_done: u64,
    /// Bytes that need not be: of files that are as they should be, and of what an earlier run left.
    pub bytes_skipped: u64,
    /// Connections that are up.
    pub connections: usize,
    /// The sender still finds more, so that the totals are not the last word.
    pub is_scanning: bool,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// It was not there.
    New,
    /// Its content was another.
    Content,
    /// Only its attributes were others.
    Attributes,
}

/// What happened. In a dry run: what would.
#[derive(Debug)]
pub enum Report {
    /// An entry is new or changed, and stands complete.
    Change {
        /// Below the top of the transfer.
        path: TreePath,
        /// How.
        what: Change,
    },
    /// The receiver had an entry that the sender does not have, and removed it.
    Deleted {
        /// Below the top of the transfer.
        path: TreePath,
    },
    /// An entry could not be sent or written; the others are not disturbed.
    Failed {
        /// Below the top of the transfer.
        path: TreePath,
        /// Why, in words.
        reason: String,
    },
    /// An entry of a kind that is not transferred, such as a socket.
    Skipped {
        /// Below the top of the transfer.
        path: TreePath,
        /// Why, in words.
        reason: String,
    },
    /// It is over; nothing follows.
    Ended(Result<Summary, SessionError>),
}

/// What a transfer has done, until its end or when it broke off.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Summary {
    /// Entries that the sender told of.
    pub entries: u64,
    /// Of these: were not there.
    pub new: u64,
    /// Had another content.
    pub changed: u64,
    /// Had other attributes alone.
    pub attributes: u64,
    /// Entries that were removed.
    pub deleted: u64,
    /// Entries that could not be transferred.
    pub failed: u64,
    /// Entries of kinds that are not transferred.
    pub skipped: u64,
    /// Bytes of files that were transferred.
    pub bytes_data: u64,
    /// Bytes of files that are new or have another content, which an interrupted run may have brought some of.
    pub bytes_wanted: u64,
    /// Bytes that went to the server, of any kind.
    pub bytes_sent: u64,
    /// Bytes that came from it.
    pub bytes_received: u64,
    /// Messages that came damaged here, and came again.
    pub damaged: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Why a transfer did not go to its end.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Nobody answers there.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The server does not do it.
    #[error("{address} refuses: {text}")]
    Refused {
        /// Who.
        address: SocketAddr,
        /// Its code, an [`ErrorCode`].
        code: u16,
        /// Its words.
        text: String,
    },
    /// Something of this host stands in the way of all of it: a source or the destination.
    #[error("{}: {source}", path.display())]
    Local {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Who answers there, if anybody, speaks of no session.
    #[error("no session with {address}: {reason}")]
    NoSession {
        /// Where.
        address: SocketAddr,
        /// What came instead.
        reason: String,
    },
    /// All connections are gone, and could not be made again.
    #[error("lost the connection to {address}: {reason}")]
    Lost {
        /// To whom.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The server does not keep to the protocol.
    #[error("{address} does not keep to the protocol: {reason}")]
    Protocol {
        /// Who.
        address: SocketAddr,
        /// What it did.
        reason: String,
    },
    /// This host gives no threads or no memory for it.
    #[error("cannot start: {0}")]
    Engine(String),
    /// The options cannot be told to the server.
    #[error("{0}")]
    Options(String),
    /// It was to stop, and did.
    #[error("interrupted")]
    Interrupted,
    /// The work ended without saying how.
    #[error("the transfer ended without saying how; this is a fault of this program")]
    Died,
}

impl SessionError {
    /// Whether the server is busy with others, and may do it later.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == ErrorCode::BUSY.0)
    }
}

/// A transfer that is under way.
#[derive(Debug)]
pub struct SessionHandle {
    shared: Arc<Shared>,
    reports: Receiver<Report>,
}

/// The other end of a [`SessionHandle`]: whoever does the work speaks here.
#[derive(Debug, Clone)]
pub struct SessionFeed {
    shared: Arc<Shared>,
    reports: Sender<Report>,
}

/// Tells a transfer to stop, from any thread.
#[derive(Debug, Clone)]
pub struct StopSwitch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<SessionProgress>,
    summary: Mutex<Summary>,
    stop: AtomicBool,
    /// Reports that nobody has read yet.
    waiting: AtomicUsize,
    /// Nobody will.
    is_unread: AtomicBool,
}

impl SessionHandle {
    /// Both ends.
    pub fn new() -> (Self, SessionFeed) {
        let shared = Arc::new(Shared::default());
        let (feed, reports) = mpsc::channel();
        (Self { shared: Arc::clone(&shared), reports }, SessionFeed { shared, reports: feed })
    }

    /// How far it is.
    pub fn progress(&self) -> SessionProgress {
        *lock(&self.shared.progress)
    }

    /// What it has done so far.
    pub fn summary(&self) -> Summary {
        *lock(&self.shared.summary)
    }

    /// The next report, as soon as there is one; `None` where there is none within this time. A transfer whose other
    /// end is gone without a [`Report::Ended`] has [died](SessionError::Died).
    pub fn next_report(&self, within: Duration) -> Option<Report> {
        match self.reports.recv_timeout(within) {
            Ok(report) => {
                self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
                Some(report)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Report::Ended(Err(SessionError::Died))),
        }
    }

    /// What stops it.
    pub fn stop_switch(&self) -> StopSwitch {
        StopSwitch(Arc::clone(&self.shared))
    }
}

impl StopSwitch {
    /// Has the transfer end in good order: what is there is kept for the next run, and
    /// [`Interrupted`](SessionError::Interrupted) is reported.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
    }

    /// Whether it was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }
}

impl SessionFeed {
    /// Reports, and never waits. `false`: nobody reads any more.
    pub fn report(&self, report: Report) -> bool {
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        let is_read = self.reports.send(report).is_ok();
        if !is_read {
            self.shared.is_unread.store(true, Ordering::Release);
        }
        is_read
    }

    /// Waits while [`limits::SESSION_REPORTS_MAX`] reports or more wait to be read, and the transfer is to go on.
    pub fn wait_for_reader(&self) {
        let is_full = || self.shared.waiting.load(Ordering::Acquire) >= limits::SESSION_REPORTS_MAX;
        while is_full() && !self.is_stopped() && !self.shared.is_unread.load(Ordering::Acquire) {
            std::thread::sleep(limits::SESSION_READER_LOOK_EVERY);
        }
    }

    /// Says how far it is.
    pub fn set_progress(&self, progress: SessionProgress) {
        *lock(&self.shared.progress) = progress;
    }

    /// Says what it has done.
    pub fn set_summary(&self, summary: Summary) {
        *lock(&self.shared.summary) = summary;
    }

    /// Whether it is to stop.
    pub fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_that_is_gone_without_a_word_has_died() {
        let (handle, feed) = SessionHandle::new();
        assert!(handle.next_report(Duration::ZERO).is_none());
        assert!(feed.report(Report::Deleted { path: TreePath::top() }));
        drop(feed);
        assert!(matches!(handle.next_report(Duration::ZERO), Some(Report::Deleted { .. })));
        assert!(matches!(handle.next_report(Duration::ZERO), Some(Report::Ended(Err(SessionError::Died)))));
    }

    #[test]
    fn both_ends_see_the_switch_and_the_progress() {
        let (handle, feed) = SessionHandle::new();
        let progress = SessionProgress { entries_found: 3, ..SessionProgress::default() };
        feed.set_progress(progress);
        assert_eq!(handle.progress(), progress);
        assert!(!feed.is_stopped());
        handle.stop_switch().stop();
        assert!(feed.is_stopped() && handle.stop_switch().is_stopped());
        drop(handle);
        assert!(!feed.report(Report::Ended(Err(SessionError::Interrupted))), "nobody reads it");
    }
}
