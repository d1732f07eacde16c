//! A session of our own: the client of `push` and `pull`.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::connection::{NewConnection, Role};
use super::ends::{landing_options, receive, rules, send, walk_options};
use super::job::{Direction, Report, SessionError, SessionFeed, SessionHandle, SessionJob};
use super::running::{Ending, Running};
use crate::engine::shared::Shared;
use crate::engine::{Engine, EngineConfig, spawn};
use crate::limits;
use crate::proto::session::Side;
use crate::store::tree::{Landing, Tree, TreeError, Walk, WalkSource};
use crate::transfer::Flows;
use crate::units::{SessionId, TreePath};
use crate::wire::session::{Command, ErrorCode, Message, Options, encode};

/// Begins the session over a connection to the job's address, and makes further ones. What becomes of it, the handle
/// tells; that the server refuses it, too.
///
/// # Errors
/// Something of this host stands in the way of all of it.
pub fn start(job: SessionJob, first: TcpStream) -> Result<SessionHandle, SessionError> {
    let first = prepare(first, job.address)?;
    let config = EngineConfig {
        flows: Flows::new(Vec::new()),
        stores: Vec::new(),
        journals: Vec::new(),
        driver: job.driver,
        workers: job.connections.min(workers()),
        seed: rand::random(),
    };
    let engine = Engine::start(config, |_| {}).map_err(|error| SessionError::Engine(error.to_string()))?;
    let (handle, feed) = SessionHandle::new();
    match begin(&engine.shared, &job, feed.clone()) {
        Ok((session, command)) => {
            let role = Role::Asks { session: Arc::clone(&session), command: command.clone() };
            add(&engine.shared, &session, first, job.address, role);
            spawn("ss-client", move || attend(&engine, &session, &job, &command, &feed))
                .map_err(|error| SessionError::Engine(error.to_string()))?;
            Ok(handle)
        }
        Err(error) => {
            engine.kill();
            Err(error)
        }
    }
}

/// This side of the session, and what the server is asked.
fn begin(shared: &Arc<Shared>, job: &SessionJob, feed: SessionFeed) -> Result<(Arc<Running>, Vec<u8>), SessionError> {
    let options = &job.options;
    let peer = job.address.to_string();
    let rules = rules(options).map_err(SessionError::Options)?;
    let thread = |error: std::io::Error| SessionError::Engine(error.to_string());
    // Who is asked for a tree tells here what a walk of our own would.
    let left_out = matches!(job.direction, Direction::Pull { .. });
    let told =
        Options { left_out, ..options.clone() }.encode().map_err(|error| SessionError::Options(error.to_string()))?;
    let asked = Command { options: &told, path: &job.path };
    let message = match &job.direction {
        Direction::Push { .. } => Message::Push(asked),
        Direction::Pull { .. } => Message::Pull(asked),
    };
    let mut command = Vec::new();
    encode(&message, &mut command).map_err(|error| SessionError::Options(error.to_string()))?;
    let session = match &job.direction {
        Direction::Push { sources } => {
            let first = sources.first().cloned().unwrap_or_default();
            let source = |path: &PathBuf| {
                let named = WalkSource::of_path(path);
                named.map_err(|error| SessionError::Local { path: path.clone(), source: std::io::Error::other(error) })
            };
            let sources = sources.iter().map(source).collect::<Result<_, _>>()?;
            let walk = Walk::new(sources, rules, walk_options(options)).map_err(|error| local(&first, error))?;
            send(shared, peer, Side::Client, options, walk, Some(feed)).map_err(thread)?
        }
        Direction::Pull { destination } => {
            let tree = if options.dry_run { Tree::look(destination) } else { Tree::open(destination) };
            let tree = tree.map_err(|error| local(destination, error))?;
            let landing = Landing::new(tree, TreePath::top(), landing_options(options, rules));
            receive(shared, peer, Side::Client, options, (landing, None), Some(feed)).map_err(thread)?
        }
    };
    Ok((session, command))
}

/// Looks after a session until it has ended: makes further connections when the server has made it, and new ones for
/// those that are lost, while there are any; tells how far it is.
fn attend(engine: &Engine, session: &Arc<Running>, job: &SessionJob, command: &[u8], feed: &SessionFeed) {
    let mut asks = limits::SESSION_ASKS_MAX;
    let mut joins = 2 * job.connections;
    let mut next_dial = Instant::now();
    let answered_by = next_dial + limits::SESSION_ANSWER_WITHIN;
    // Why there is no connection, if there is none for that.
    let mut refused = None;
    let mut core = session.lock();
    while core.ended.is_none() {
        drop(core);
        let links = session.link_count();
        let role = match session.id.get() {
            None if links == 0 => Some(Role::Asks { session: Arc::clone(session), command: command.to_vec() }),
            Some(&id) if (1..job.connections).contains(&links) && joins > 0 => Some(joins_as(session, id)),
            _ => None,
        };
        let is_time = Instant::now() >= next_dial;
        if feed.is_stopped() {
            session.stop();
        } else if session.id.get().is_none() && Instant::now() >= answered_by {
            let what = format!("the server has not answered for {} s", limits::SESSION_ANSWER_WITHIN.as_secs());
            session.give_up(unanswered(refused.take(), &what));
        } else if let Some(role) = role.filter(|_| is_time) {
            let left = if links == 0 { &mut asks } else { &mut joins };
            if *left == 0 {
                let what = "the server closes the connection and does not answer";
                session.give_up(unanswered(refused.take(), what));
                core = session.lock();
                continue;
            }
            match connect(job.address) {
                Ok(socket) => {
                    refused = None;
                    add(&engine.shared, session, socket, job.address, role);
                }
                Err(error) => {
                    tracing::warn!("a connection cannot be made: {error}");
                    refused = Some(error.to_string());
                }
            }
            *left = left.saturating_sub(1);
            if links + 1 < job.connections && links > 0 {
                // The others at once.
                core = session.lock();
                continue;
            }
            next_dial = Instant::now() + limits::SESSION_REDIAL_EVERY;
        }
        feed.set_progress(session.progress());
        core = session.lock();
        feed.set_summary(session.summary(&core));
        if core.ended.is_none() {
            let waited = session.turned.wait_timeout(core, limits::SESSION_LOOK_EVERY);
            core = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
    feed.set_summary(session.summary(&core));
    let result = match core.ended.clone() {
        // Not what was asked for is what stands in the way.
        Some(ending @ Ending::Refused { code: ErrorCode::STOPPED, .. }) => {
            Err(SessionError::Lost { address: job.address, reason: ending.to_string() })
        }
        Some(Ending::Refused { code, text }) => Err(SessionError::Refused { address: job.address, code: code.0, text }),
        Some(Ending::Lost(reason)) => Err(SessionError::Lost { address: job.address, reason }),
        Some(Ending::NoSession(reason)) => Err(SessionError::NoSession { address: job.address, reason }),
        Some(Ending::Protocol(reason)) => Err(SessionError::Protocol { address: job.address, reason }),
        Some(Ending::Local(text)) => {
            let path = match &job.direction {
                Direction::Push { sources } => sources.first().cloned().unwrap_or_default(),
                Direction::Pull { destination } => destination.clone(),
            };
            Err(SessionError::Local { path, source: std::io::Error::other(text) })
        }
        Some(Ending::Stopped) => Err(SessionError::Interrupted),
        Some(Ending::Done) | None => Ok(session.summary(&core)),
    };
    drop(core);
    // What is still to be said goes out, and what came is written.
    let by = Instant::now() + limits::DRAIN_WITHIN;
    while session.link_count() > 0 && Instant::now() < by {
        std::thread::sleep(limits::SESSION_LINGER);
    }
    engine.drain(limits::DRAIN_WITHIN);
    feed.set_progress(session.progress());
    feed.report(Report::Ended(result));
}

/// Why a session ends that was never made: nobody is there any more, or somebody who does not say a word of it.
fn unanswered(refused: Option<String>, what: &str) -> Ending {
    refused.map_or_else(|| Ending::NoSession(what.to_owned()), Ending::Lost)
}

fn joins_as(session: &Arc<Running>, id: SessionId) -> Role {
    let mut greeting = Vec::new();
    encode(&Message::Session(id), &mut greeting).expect("a number fits");
    Role::Joins { session: Arc::clone(session), greeting }
}

fn add(shared: &Arc<Shared>, session: &Arc<Running>, socket: OwnedFd, address: SocketAddr, role: Role) {
    let id = shared.sessions.next_link();
    session.add_link(id, shared.worker_of_session(id));
    shared.add_session_link(NewConnection { id, socket, address: address.to_string(), role, seat: None });
}

fn connect(address: SocketAddr) -> Result<OwnedFd, SessionError> {
    let unreachable = |source| SessionError::Unreachable { address, source };
    prepare(TcpStream::connect_timeout(&address, limits::DIAL_WITHIN).map_err(unreachable)?, address)
}

fn prepare(stream: TcpStream, address: SocketAddr) -> Result<OwnedFd, SessionError> {
    let socket = OwnedFd::from(stream);
    let unreachable = |source| SessionError::Unreachable { address, source };
    super::set_up(&socket).map_err(unreachable)?;
    Ok(socket)
}

/// Threads for connections: as many as there are cores for.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn local(path: &Path, error: TreeError) -> SessionError {
    SessionError::Local { path: path.to_owned(), source: std::io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Connection;
    use super::*;
    use crate::units::{LinkId, Time};
    use crate::uring::DriverKind;

    /// Who interrupted a transfer that no server had answered waited for the answer all the same.
    #[test]
    fn nobody_waits_for_the_answer_to_what_is_over() {
        let dir = tempfile::tempdir().expect("made");
        let job = SessionJob {
            direction: Direction::Pull { destination: dir.path().join("there") },
            address: "127.0.0.1:7402".parse().expect("an address"),
            path: b"any".to_vec(),
            connections: 1,
            driver: DriverKind::Blocking,
            options: Options::default(),
        };
        let config = EngineConfig {
            flows: Flows::new(Vec::new()),
            stores: Vec::new(),
            journals: Vec::new(),
            driver: job.driver,
            workers: 1,
            seed: 0,
        };
        let engine = Engine::start(config, |_| {}).expect("started");
        let (_handle, feed) = SessionHandle::new();
        let (session, command) = begin(&engine.shared, &job, feed).expect("begun");
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("made");
        let role = Role::Asks { session: Arc::clone(&session), command };
        let (id, socket, address) = (LinkId(1), OwnedFd::from(ours), job.address.to_string());
        let connection = Connection::new(NewConnection { id, socket, address, role, seat: None }, Time::default());
        assert_eq!(connection.poll_leave(), None);
        session.stop();
        assert!(connection.poll_leave().is_some());
        engine.kill();
    }
}
