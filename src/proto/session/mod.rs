//! The session protocol (seed 002): one directory tree goes from one host to another, over several connections.
//!
//! Participants: a *client* that opens the connections and says what is to be done, a *server* that answers; one of
//! them is the *sender*, the other the *receiver*. Messages are described in [`crate::wire::session`].
//!
//! ```text
//! client                       server
//!   PULL | PUSH  ------------->            first connection; within 3 s
//!                <-------------  SESSION
//!   SESSION      ------------->            each further connection
//!
//! sender                       receiver
//!   FILE_COUNT, FILE_INFO* --->            what there is; the receiver makes directories, links, empty files
//!                <-------------  CHANGE* HAVE* READY
//!   DATA*, HOLE* ------------->            over all connections, whichever has room
//!   DONE         ------------->            on each connection behind the last of them; so each end knows what round its data are of
//!                <-------------  RETRANSMIT* or MISSING*, READY     while something lacks: damaged, or lost with a connection
//!                <-------------  VERIFY                             the batch stands
//!   ...next batch...
//!   FILE_COUNT 0 ------------->
//!                <-------------  DELETED* VERIFY                    all is done
//! ```
//!
//! Goals: every connection carries any block; a damaged message costs itself only (DONE: what is behind it, until it is
//! there); a connection that dies costs what was on its way over it. Non-goals: finding out which parts of a changed
//! file differ; secrecy.
//!
//! Driven like this: [`Session::handle_connected`] for each connection, then [`Session::handle_bytes`] with what comes
//! over it, [`Session::poll_transmit`] when there is room to send, [`Session::handle_closed`] when it is gone. A sender
//! is given batches by [`Session::announce`] while [`Session::wants_batch`]; a receiver's rim follows what [`Received`]
//! says and reports with [`Session::handle_examined`], [`Session::handle_listed`], [`Session::handle_unwritable`],
//! [`Session::handle_batch_stands`] and [`Session::handle_ended`]. [`Session::poll_event`] tells what a person may want
//! to know.

mod channel;
mod receiving;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;

pub use channel::Side;
use channel::{Accept, Channel};
pub use receiving::Received;
use receiving::Receiving;
use sending::Sending;
pub use sending::{Announcement, Run};

use crate::limits;
use crate::units::{FileId, LinkId, PathError, RangeSet, Rate, Time, TreePath};
use crate::wire::session::{self, EntryError, ErrorCode, FileChange, Message, MessageKind, Read, What, WireError};

/// Stands where a message is of no entry: a batch never has so many.
const NO_ENTRY: FileId = FileId(u16::MAX);

/// Why a connection of a session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// What came is not in the format.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// An entry is announced that could never be written.
    #[error("the peer announces what it must not: {0}")]
    Entry(EntryError),
    /// A path that is none.
    #[error("the peer names what is no path: {0}")]
    Path(PathError),
    /// What came is not what may come now.
    #[error("the peer sent {what}, and {why}")]
    OutOfPlace {
        /// Which message.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nothing came for [`limits::SESSION_SILENCE_MAX`].
    #[error("nothing came for {} s", crate::limits::SESSION_SILENCE_MAX.as_secs())]
    Silent,
    /// The length of something that came was damaged, or that of what the peer got, so that messages and what only
    /// looks like them cannot be told apart any more.
    #[error("what comes over it is out of step: the length of a message was damaged")]
    OutOfStep,
    /// A control message came over a connection that does not carry them, or not any more.
    #[error("a control message came over it, and another connection carries them")]
    NotCarrier,
    /// The connection that carried the control messages is gone, and the ends have not agreed on another.
    #[error("no connection was named for {} s that carries the control messages", crate::limits::SESSION_SILENCE_MAX.as_secs())]
    NoCarrier,
    /// Too much came damaged.
    #[error("too many damaged messages came over it one after the other")]
    TooMuchDamage,
    /// The peer ended the session.
    #[error("the peer says: {text}")]
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// For people.
        text: String,
    },
}

/// What is wrong with a message that has no place at the end that it came to.
const AT_SENDER: &str = "a sender expects no such thing now";
const AT_RECEIVER: &str = "a receiver expects no such thing now";

impl SessionError {
    /// `why`: [`AT_SENDER`] or [`AT_RECEIVER`].
    fn unexpected(kind: MessageKind, why: &'static str) -> Self {
        Self::OutOfPlace { what: kind.as_str(), why }
    }

    /// The same where so many bytes came over the connection before those that were given.
    pub fn after(self, bytes: usize) -> Self {
        match self {
            Self::Wire(error) => Self::Wire(error.after(bytes)),
            other => other,
        }
    }

    /// Whether the whole session ends with it, since the peer does not keep to the protocol or has ended it. Otherwise
    /// only the connection does.
    pub fn ends_session(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Entry(_) | Self::Path(_) | Self::OutOfPlace { .. } => true,
            // What is malformed under a right checksum was made so; a type that nobody knows may be damage.
            Self::Wire(WireError::Malformed { .. }) => true,
            Self::Wire(WireError::UnknownType { .. })
            | Self::Silent
            | Self::OutOfStep
            | Self::NotCarrier
            | Self::NoCarrier
            | Self::TooMuchDamage => false,
        }
    }
}

/// What a peer says, as it may be shown: it moves no cursor and fills no log.
pub fn words(text: &str) -> String {
    let shown = text.chars().take(limits::SESSION_TEXT_BYTES_MAX);
    shown.map(|found| if found.is_control() { '\u{fffd}' } else { found }).collect()
}

/// What a person may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The receiver asked for so many blocks of the batch; in the first round, or for what was damaged or lost.
    Asked {
        /// How many.
        blocks: u64,
        /// Counts over the session.
        round: u32,
    },
    /// The batch stands at the receiver.
    BatchDone,
    /// Everything stands.
    Finished,
    /// The receiver's tree differs (or would, in a dry run) from before.
    Changed(FileChange),
    /// The receiver removed something, or would.
    Deleted {
        /// What.
        path: TreePath,
    },
    /// The sender has something that it does not announce.
    LeftOut {
        /// What.
        path: TreePath,
        /// Why.
        reason: String,
        /// It should have been announced.
        is_failure: bool,
    },
    /// The peer cannot send or write an entry.
    Failed {
        /// Which entry of the batch.
        file: FileId,
        /// Why.
        reason: String,
    },
}

/// One end of a session.
#[derive(Debug)]
pub struct Session {
    channel: Channel,
    end: End,
    events: VecDeque<Event>,
    damaged: u64,
}

#[derive(Debug)]
enum End {
    Sending(Sending),
    Receiving(Receiving),
}

impl Session {
    /// The end that sends, at most `limit` bytes a second.
    pub fn sender(side: Side, block_bytes: u32, limit: Option<Rate>) -> Self {
        Self::new(side, End::Sending(Sending::new(block_bytes, limit)))
    }

    /// The end that receives.
    pub fn receiver(side: Side, block_bytes: u32) -> Self {
        Self::new(side, End::Receiving(Receiving::new(block_bytes)))
    }

    fn new(side: Side, end: End) -> Self {
        Self { channel: Channel::new(side), end, events: VecDeque::new(), damaged: 0 }
    }

    // -- connections -------------------------------------------------------------------------------------------------

    /// A connection has become part of the session; its first messages (up to SESSION) are behind it.
    pub fn handle_connected(&mut self, link: LinkId, now: Time) {
        self.channel.add(link, now);
    }

    /// A connection is gone. What of it the receiver lacks is asked for over others.
    pub fn handle_closed(&mut self, link: LinkId, received: &mut Vec<Received>) {
        self.channel.remove(link);
        match &mut self.end {
            End::Sending(sending) => sending.handle_closed(link),
            End::Receiving(receiving) => {
                receiving.handle_closed(link);
                if self.channel.connections().next().is_some() {
                    receiving.check(&mut self.channel, received);
                }
            }
        }
    }

    /// The connections that are left.
    pub fn connections(&self) -> Vec<LinkId> {
        self.channel.connections().collect()
    }

    /// Something came over a connection, or could have, but for us.
    pub fn handle_life(&mut self, link: LinkId, now: Time) {
        self.channel.hear(link, now);
    }

    /// When a connection is to be looked at though nothing happens. Where it cannot send before it was heard of anyway,
    /// as when something is on its way out, `may_send` is false.
    pub fn poll_timeout(&self, link: LinkId, may_send: bool) -> Option<Time> {
        let sending = match &self.end {
            End::Sending(sending) if may_send => sending.poll_timeout(),
            End::Sending(_) | End::Receiving(_) => None,
        };
        self.channel.poll_timeout(link, may_send).into_iter().chain(sending).min()
    }

    /// The time is there.
    ///
    /// # Errors
    /// The peer is silent: the connection ends.
    pub fn handle_timeout(&mut self, link: LinkId, now: Time) -> Result<(), SessionError> {
        self.channel.handle_timeout(link, now)
    }

    // -- in ----------------------------------------------------------------------------------------------------------

    /// Takes in what came over a connection; how many bytes of it were whole messages. The rest is to be given again
    /// with what comes behind it.
    ///
    /// # Errors
    /// The connection ends, or the session does ([`SessionError::ends_session`]). What `received` says is to be
    /// followed all the same.
    pub fn handle_bytes(
        &mut self,
        link: LinkId,
        bytes: &[u8],
        now: Time,
        received: &mut Vec<Received>,
    ) -> Result<usize, SessionError> {
        let mut at = 0;
        while let Some((read, length)) = session::read(&bytes[at..]).map_err(|error| error.after(at))? {
            let raw = at..at + length;
            match read {
                Read::Damaged { kind, .. } => self.handle_damaged(link, kind)?,
                Read::Message(message) => self.handle_message(link, &message, bytes, raw, received)?,
            }
            at += length;
            while let Some(raw) = self.channel.next_held() {
                match session::read(&raw)? {
                    // Followed when it came.
                    Some((Read::Message(Message::Retransmit(_)), _)) | None => {}
                    Some((Read::Message(message), _)) => self.handle_control(link, &message, received)?,
                    Some((Read::Damaged { .. }, _)) => {}
                }
            }
        }
        self.channel.handle_progress(link, now, at > 0, bytes.len() - at);
        self.channel.ask_again()?;
        if let End::Receiving(receiving) = &mut self.end {
            receiving.check(&mut self.channel, received);
            receiving.check_hope()?;
        }
        Ok(at)
    }

    fn handle_damaged(&mut self, link: LinkId, kind: MessageKind) -> Result<(), SessionError> {
        self.damaged += 1;
        // A receiver sends no blocks: it was a list of some, and has a number.
        let is_list = kind == MessageKind::Data && matches!(self.end, End::Sending(_));
        let kind = if is_list { MessageKind::Missing } else { kind };
        match kind {
            // What these say is needed, and they are not kept by who sent them.
            MessageKind::Session | MessageKind::Control | MessageKind::Pull | MessageKind::Push => {
                return Err(SessionError::TooMuchDamage);
            }
            MessageKind::Done => self.channel.ask(kind, 0)?,
            _ => {}
        }
        self.channel.handle_damaged(link, kind)
    }

    fn handle_message(
        &mut self,
        link: LinkId,
        message: &Message<'_>,
        bytes: &[u8],
        raw: Range<usize>,
        received: &mut Vec<Received>,
    ) -> Result<(), SessionError> {
        self.channel.handle_whole(link);
        match (message, &mut self.end) {
            (Message::KeepAlive, _) => Ok(()),
            (Message::Control { next }, _) => self.channel.handle_control(link, *next),
            (Message::Resent { number, message }, _) => {
                let is_asked = self.channel.handle_resent(*number, message)?;
                let inner = raw.end - message.len();
                match session::read(message).map_err(|error| error.after(inner))? {
                    Some((Read::Message(again @ Message::Retransmit(_)), _)) if is_asked => {
                        self.handle_control(link, &again, received)
                    }
                    _ => Ok(()),
                }
            }
            (Message::Data { file, seq, data }, End::Receiving(receiving)) => {
                let at = raw.end - data.len()..raw.end;
                receiving.handle_data(link, *file, *seq, at, received)
            }
            (Message::Hole(run), End::Receiving(receiving)) => receiving.handle_hole(link, *run, received),
            (Message::Done(round), End::Receiving(receiving)) => {
                receiving.handle_done(link, round.0);
                Ok(())
            }
            (message, _) if message.kind().is_control() => match self.channel.accept(link, &bytes[raw])? {
                Accept::Held if message.kind() != MessageKind::Retransmit => Ok(()),
                Accept::Now | Accept::Held => self.handle_control(link, message, received),
            },
            (message, End::Sending(_)) => Err(SessionError::unexpected(message.kind(), AT_SENDER)),
            (message, End::Receiving(_)) => Err(SessionError::unexpected(message.kind(), AT_RECEIVER)),
        }
    }

    fn handle_control(
        &mut self,
        link: LinkId,
        message: &Message<'_>,
        received: &mut Vec<Received>,
    ) -> Result<(), SessionError> {
        if let Message::Error { code, text } = message {
            return Err(SessionError::Refused { code: *code, text: words(text) });
        }
        match &mut self.end {
            End::Sending(sending) => sending.handle_control(&mut self.channel, link, message, &mut self.events),
            End::Receiving(receiving) => {
                receiving.handle_control(&mut self.channel, link, message, received, &mut self.events)
            }
        }
    }

    // -- out ---------------------------------------------------------------------------------------------------------

    /// What goes out over a connection now: `out` first, then `runs`; at most about `room` bytes. Runs are blocks of
    /// files, each of which the rim sends as a DATA message, or as a HOLE where there are none but zeros.
    pub fn poll_transmit(&mut self, link: LinkId, now: Time, room: usize, out: &mut Vec<u8>, runs: &mut Vec<Run>) {
        if !self.channel.has(link) {
            return;
        }
        self.channel.transmit(link, now, room, out);
        if let End::Sending(sending) = &mut self.end {
            sending.transmit(link, now, room, out, runs);
        }
    }

    /// Whether all connections are to be looked at ([`Session::poll_transmit`]), since there may be something to send
    /// that was not there before; asked once.
    pub fn poll_wake(&mut self) -> bool {
        self.channel.poll_wake()
    }

    /// Whether all is said and done: the connections may be closed.
    pub fn is_over(&self) -> bool {
        let over = match &self.end {
            End::Sending(sending) => sending.is_over(),
            End::Receiving(receiving) => receiving.is_over(),
        };
        over && self.channel.is_flushed()
    }

    /// Whether control messages, such as why it ends, are still to go out over a connection.
    pub fn has_words(&self, link: LinkId) -> bool {
        self.channel.has_words(link)
    }

    /// Tells the peer that the session ends, and why.
    pub fn refuse(&mut self, code: ErrorCode, text: &str) {
        self.channel.push(&Message::Error { code, text });
    }

    /// The session has ended before its time: no more blocks are sent.
    pub fn stop(&mut self) {
        match &mut self.end {
            End::Sending(sending) => sending.stop(),
            End::Receiving(receiving) => receiving.stop(),
        }
    }

    // -- what the sender's rim tells
    // -----------------------------------------------------------------------------------

    /// Whether a batch may be announced: the one before it stands.
    pub fn wants_batch(&self) -> bool {
        matches!(&self.end, End::Sending(sending) if sending.wants_batch())
    }

    /// Announces the next batch; an empty one is the end.
    ///
    /// # Panics
    /// When this is no sender, or no batch is wanted.
    pub fn announce(&mut self, announcement: Announcement) {
        match &mut self.end {
            End::Sending(sending) => sending.announce(&mut self.channel, announcement),
            End::Receiving(_) => panic!("a receiver announces nothing"),
        }
    }

    /// There is something that cannot be announced, and why: what the receiver has of it is to stay.
    pub fn note(&mut self, reason: &str) {
        self.channel.push(&Message::Failed { file: NO_ENTRY, text: reason });
    }

    /// The same, or that something is left out as it should be, to a receiver that has asked to be told of each.
    pub fn leave_out(&mut self, path: &TreePath, reason: &str, is_failure: bool) {
        self.channel.push(&Message::LeftOut { is_failure, path: path.as_bytes(), text: reason });
    }

    /// A file of the batch cannot be sent: it is gone, changed, or cannot be read.
    pub fn handle_unreadable(&mut self, file: FileId, reason: &str) {
        if let End::Sending(sending) = &mut self.end {
            sending.handle_unreadable(&mut self.channel, file, reason);
        }
    }

    // -- what the receiver's rim tells
    // ---------------------------------------------------------------------------------

    /// An entry was looked at: how it differs from what was there, and, where its bytes are needed, what is there of
    /// them.
    pub fn handle_examined(&mut self, file: FileId, what: Option<What>, have: Option<RangeSet>) {
        if let End::Receiving(receiving) = &mut self.end {
            receiving.handle_examined(file, what, have);
        }
    }

    /// All entries of the batch were looked at.
    pub fn handle_listed(&mut self, received: &mut Vec<Received>) {
        if let End::Receiving(receiving) = &mut self.end {
            receiving.handle_listed(&mut self.channel, received);
        }
    }

    /// A file of the batch cannot be written.
    pub fn handle_unwritable(&mut self, file: FileId, reason: &str, received: &mut Vec<Received>) {
        if let End::Receiving(receiving) = &mut self.end {
            receiving.handle_unwritable(&mut self.channel, file, reason);
            receiving.check(&mut self.channel, received);
        }
    }

    /// All of the batch is under its names.
    pub fn handle_batch_stands(&mut self) {
        if let End::Receiving(receiving) = &mut self.end {
            receiving.handle_batch_stands(&mut self.channel);
        }
    }

    /// Attributes of directories are set, and `deleted` is gone.
    pub fn handle_ended(&mut self, deleted: &[TreePath]) {
        if let End::Receiving(receiving) = &mut self.end {
            receiving.handle_ended(&mut self.channel, deleted);
        }
    }

    // -- what people may want to know
    // ----------------------------------------------------------------------------------

    /// What happened, in its order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Messages that came damaged.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}
