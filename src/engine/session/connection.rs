//! One connection of a session: how it finds its session, and what it sends and receives then.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::running::{Ending, Running};
use super::server::{Answer, Caller, Seat};
use super::source::Opened;
use crate::engine::flight::Flight;
use crate::engine::shared::Shared;
use crate::engine::spawn;
use crate::limits;
use crate::proto::session::{Received, Run, words};
use crate::units::{LinkId, Time};
use crate::uring::{Buffer, Gather};
use crate::wire::session::{self, Message, Read};

/// A connection that a worker is to take on.
pub(in crate::engine) struct NewConnection {
    pub(in crate::engine) id: LinkId,
    pub(super) socket: OwnedFd,
    pub(super) address: String,
    pub(super) role: Role,
    /// Of one that somebody made to this end.
    pub(super) seat: Option<Seat>,
}

/// How a connection begins.
pub(super) enum Role {
    /// Somebody called: the first message says what for.
    Called(Caller),
    /// This end asks for a session.
    Asks { session: Arc<Running>, command: Vec<u8> },
    /// This end adds it to a session that it has.
    Joins { session: Arc<Running>, greeting: Vec<u8> },
}

enum State {
    Called(Caller),
    /// What it calls for is being looked at, on a thread that may wait for a disk.
    Opening,
    Asks(Arc<Running>),
    Joined(Arc<Running>),
    /// It ends, for this reason, when everything has been sent.
    Leaves(String),
}

/// A connection of one worker.
pub(in crate::engine) struct Connection {
    pub(in crate::engine) flight: Flight,
    id: LinkId,
    state: State,
    began: Time,
    /// It was added to the session, and the server has said nothing yet.
    is_unheard: bool,
    /// Since when the peer does not keep to the protocol: what it says counts no more, and it is told why.
    deaf: Option<Time>,
    /// What goes out first.
    greeting: Vec<u8>,
    /// The file that was read last.
    opened: Option<Opened>,
    out: Vec<u8>,
    runs: Vec<Run>,
    /// Bytes that came and were taken in.
    taken: usize,
    seat: Option<Seat>,
}

impl std::fmt::Debug for NewConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewConnection").field("id", &self.id).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Connection {
    pub(in crate::engine) fn new(new: NewConnection, now: Time) -> Self {
        let is_unheard = matches!(new.role, Role::Joins { .. });
        let (state, greeting) = match new.role {
            Role::Called(caller) => (State::Called(caller), Vec::new()),
            Role::Asks { session, command } => (State::Asks(session), command),
            Role::Joins { session, greeting } => {
                session.handle_connected(new.id, now);
                (State::Joined(session), greeting)
            }
        };
        let flight = Flight::new(new.socket, new.address, now);
        Self {
            flight,
            id: new.id,
            state,
            began: now,
            is_unheard,
            deaf: None,
            greeting,
            opened: None,
            out: Vec::new(),
            runs: Vec::new(),
            taken: 0,
            seat: new.seat,
        }
    }

    // -- in ----------------------------------------------------------------------------------------------------------

    /// Takes in what was received. An error says why the connection ends.
    pub(in crate::engine) fn handle_received(
        &mut self,
        shared: &Arc<Shared>,
        mut buffer: Buffer,
        bytes: usize,
        now: Time,
    ) -> Result<(), String> {
        self.flight.busy = bytes >= limits::IDLE_BUFFER_BYTES / 2;
        if self.deaf.is_some() {
            buffer.clear();
            self.flight.keep_partial(buffer);
            return self.check_deaf(now);
        }
        let mut at = 0;
        if !matches!(self.state, State::Joined(_)) {
            at = self.meet(shared, buffer.filled(), now)?;
            self.taken += at;
        }
        if self.is_unheard {
            self.is_unheard = Self::is_unsaid(buffer.filled())?;
        }
        let mut received = Vec::new();
        let mut result = Ok(());
        if let State::Joined(session) = &self.state {
            let session = Arc::clone(session);
            session.count_received(bytes);
            let mut core = session.lock();
            let outcome = core.protocol.handle_bytes(self.id, &buffer.filled()[at..], now, &mut received);
            shift(&mut received, at);
            match outcome.map_err(|error| error.after(self.taken)) {
                Ok(taken) => {
                    at += taken;
                    self.taken += taken;
                    self.flight.carry.clear();
                    self.flight.carry.extend_from_slice(&buffer.filled()[at..]);
                    if received.iter().any(|received| matches!(received, Received::Write { .. })) {
                        // Under the lock, so that the writer gets its work in the order of the decisions.
                        session.follow(Some(buffer), received);
                    } else {
                        session.follow(None, received);
                        buffer.clear();
                        buffer.copy_from(&self.flight.carry);
                        self.flight.carry.clear();
                        self.flight.keep_partial(buffer);
                    }
                }
                Err(error) => {
                    // What came before it counts as here: it is to be written.
                    session.follow(Some(buffer), received);
                    if error.ends_session() {
                        let ending = Ending::of(&error);
                        self.deaf = matches!(ending, Ending::Protocol(_)).then_some(now);
                        session.fail(&mut core, ending);
                    }
                    if self.deaf.is_none() {
                        result = Err(error.to_string());
                    }
                }
            }
            session.drain(core, Some(self.id));
        } else {
            let rest = buffer.filled()[at..].to_vec();
            buffer.clear();
            buffer.copy_from(&rest);
            self.flight.keep_partial(buffer);
        }
        result
    }

    /// Reads what opens the connection; how long that was, 0 where it is not whole yet.
    fn meet(&mut self, shared: &Arc<Shared>, bytes: &[u8], now: Time) -> Result<usize, String> {
        let (read, length) = match session::read(bytes) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(0),
            Err(error) => {
                if let State::Asks(session) = &self.state {
                    session.give_up(Ending::NoSession(error.to_string()));
                }
                return Err(error.to_string());
            }
        };
        let Read::Message(message) = read else { return Err("its first message came damaged".into()) };
        match &self.state {
            State::Called(caller) if matches!(message, Message::Session(_)) => {
                // It needs no disk, and data may be right behind it.
                let answer = caller.answer(shared, &message);
                self.take_answer(shared, answer, now);
            }
            State::Called(_) => {
                let State::Called(caller) = std::mem::replace(&mut self.state, State::Opening) else { return Ok(0) };
                self.open(shared, caller, bytes[..length].to_vec())?;
            }
            State::Asks(session) => match message {
                Message::Session(id) => {
                    session.handle_connected(self.id, now);
                    session.handle_accepted(id);
                    self.state = State::Joined(Arc::clone(session));
                }
                Message::Error { code, text } => {
                    session.handle_refused(code, text);
                    return Err(format!("the server refuses: {}", words(text)));
                }
                other => return Err(format!("expected SESSION or ERROR from the server, found {}", other.kind())),
            },
            // Too early: it is read when the answer is known.
            State::Opening => return Ok(0),
            State::Joined(_) | State::Leaves(_) => {}
        }
        Ok(length)
    }

    /// Whether the server has yet to say something. That it takes no further connection, as of a session that it has
    /// given up, is the end of this one: where it is the last one, the session was lost, and can be run again.
    fn is_unsaid(bytes: &[u8]) -> Result<bool, String> {
        match session::read(bytes) {
            Ok(Some((Read::Message(Message::Error { text, .. }), _))) => {
                Err(format!("the server refuses it: {}", words(text)))
            }
            // What is wrong with it is told where it is taken in.
            found => Ok(matches!(found, Ok(None))),
        }
    }

    /// Has somebody who may wait find the answer to a first message.
    fn open(&self, shared: &Arc<Shared>, caller: Caller, message: Vec<u8>) -> Result<(), String> {
        let (id, here) = (self.id, Arc::clone(shared));
        let thread = spawn("ss-open", move || {
            let Ok(Some((Read::Message(message), _))) = session::read(&message) else { return };
            here.answer_session_link(id, caller.answer(&here, &message));
        });
        shared.sessions.keep(thread.map_err(|error| format!("no thread for it: {error}"))?);
        Ok(())
    }

    /// The answer is known; what came in the meantime is taken in. An error says why the connection ends.
    pub(in crate::engine) fn handle_answer(
        &mut self,
        shared: &Arc<Shared>,
        answer: Answer,
        now: Time,
    ) -> Result<(), String> {
        self.take_answer(shared, answer, now);
        match self.flight.buffer.take() {
            Some(buffer) => self.handle_received(shared, buffer, 0, now),
            None => Ok(()),
        }
    }

    fn take_answer(&mut self, shared: &Shared, answer: Answer, now: Time) {
        match answer {
            Answer::Join(session, greeting) => {
                session.handle_connected(self.id, now);
                session.add_link(self.id, shared.worker_of_session(self.id));
                self.greeting = greeting;
                self.state = State::Joined(session);
            }
            Answer::Refuse { words, reason } => {
                self.greeting = words;
                self.state = State::Leaves(reason);
            }
        }
    }

    /// Whether nothing is to be received now.
    pub(in crate::engine) fn is_behind(&self) -> bool {
        match &self.state {
            State::Joined(session) => session.is_behind(),
            State::Opening => true,
            State::Called(_) | State::Asks(_) | State::Leaves(_) => false,
        }
    }

    // -- out ---------------------------------------------------------------------------------------------------------

    /// Fills an empty train with what there is to send.
    pub(in crate::engine) fn build(&mut self, train: &mut Gather, now: Time) {
        let fits = train.push_bytes(&self.greeting);
        assert!(fits, "an empty train has room for a message");
        self.greeting.clear();
        if let State::Joined(session) = &self.state {
            self.out.clear();
            self.runs.clear();
            session.fill(self.id, now, train, &mut self.out, &mut self.runs, &mut self.opened);
        }
    }

    /// Bytes went out.
    pub(in crate::engine) fn handle_sent(&self, bytes: usize) {
        if let State::Joined(session) = &self.state {
            session.count_sent(bytes);
        }
    }

    /// Why the connection may end now: nothing is left to be said.
    pub(in crate::engine) fn poll_leave(&self) -> Option<String> {
        match &self.state {
            State::Leaves(reason) if self.greeting.is_empty() => Some(reason.clone()),
            // What it still sends would have a socket that is closed throw away what it is told: it hangs up when it
            // has read that.
            State::Joined(_) if self.deaf.is_some() && self.seat.is_some() => None,
            State::Joined(session) if session.may_leave() => Some("the session is over".into()),
            State::Asks(session) if session.has_ended() => Some("nobody waits for the answer any more".into()),
            _ => None,
        }
    }

    /// Whether the peer has yet to be told that its session is over.
    pub(in crate::engine) fn has_last_words(&self) -> bool {
        matches!(&self.state, State::Joined(session) if session.has_last_words(self.id))
    }

    // -- time and end ------------------------------------------------------------------------------------------------

    pub(in crate::engine) fn update_deadline(&mut self, now: Time) {
        let deadline = match &self.state {
            State::Called(_) => Some(self.began + limits::COMMAND_WITHIN),
            State::Opening => None,
            State::Asks(_) | State::Leaves(_) => Some(self.began + limits::SESSION_SILENCE_MAX),
            State::Joined(session) => session.lock().protocol.poll_timeout(self.id, self.flight.train.is_some()),
        };
        let deaf_until = self.deaf.map(|since| since + limits::SESSION_SILENCE_MAX);
        let deadline = deadline.unwrap_or(now + limits::SESSION_KEEPALIVE_EVERY);
        self.flight.deadline = deaf_until.map_or(deadline, |until| until.min(deadline));
    }

    /// A peer that does not hang up is not waited for for ever, whatever it sends.
    fn check_deaf(&self, now: Time) -> Result<(), String> {
        match self.deaf.filter(|since| now.since(*since) >= limits::SESSION_SILENCE_MAX) {
            Some(_) => Err("the session is over, and the peer does not hang up".into()),
            None => Ok(()),
        }
    }

    /// The time is there. An error says why the connection ends.
    pub(in crate::engine) fn handle_timeout(&mut self, now: Time) -> Result<(), String> {
        self.check_deaf(now)?;
        let overdue = |within| now.since(self.began) >= within;
        match &self.state {
            State::Called(_) if !self.flight.receiving => {
                // It is us who do not read.
                self.began = now;
                Ok(())
            }
            State::Called(_) if overdue(limits::COMMAND_WITHIN) => {
                Err(format!("no command came within {} s", limits::COMMAND_WITHIN.as_secs()))
            }
            State::Asks(_) | State::Leaves(_) if overdue(limits::SESSION_SILENCE_MAX) => {
                Err("the peer does not answer".into())
            }
            State::Joined(session) => {
                let mut core = session.lock();
                if !self.flight.receiving {
                    // It is us who do not read.
                    core.protocol.handle_life(self.id, now);
                }
                core.protocol.handle_timeout(self.id, now).map_err(|error| error.to_string())
            }
            _ => Ok(()),
        }
    }

    /// The connection ends.
    pub(in crate::engine) fn handle_closed(&mut self, reason: &str) {
        match &self.state {
            State::Joined(session) => session.handle_closed(self.id, reason),
            State::Asks(session) => session.handle_not_accepted(self.id, reason),
            State::Called(caller) => tracing::info!(address = caller.address(), "a caller is gone: {reason}"),
            State::Opening => tracing::info!(address = self.flight.address, "a caller is gone: {reason}"),
            State::Leaves(reason) => tracing::info!(address = self.flight.address, "refused: {reason}"),
        }
    }
}

/// What was received lies so far behind the start of the buffer.
fn shift(received: &mut [Received], by: usize) {
    for received in received {
        if let Received::Write { at, .. } = received {
            *at = at.start + by..at.end + by;
        }
    }
}
