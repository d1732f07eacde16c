//! Messages of the session protocol, from seed 002: directory trees, pushed or pulled over several connections, with
//! metadata and checksums.
//!
//! Participants: a client and a server; which of them is the sender of files and which the receiver follows from the
//! command, `PULL` or `PUSH`. A connection is a sequence of messages in each direction, all integers big-endian:
//!
//! ```text
//! fixed      0      1          5                    the payload's length follows from the type
//!            +------+----------+---------+
//!            | type |  chksum  | payload |
//!            +------+----------+---------+
//! variable   0      1          5        7           length is the payload's, 0 to 65,535
//!            +------+----------+--------+---------+
//!            | type |  chksum  | length | payload |
//!            +------+----------+--------+---------+
//! ```
//!
//! `chksum` is the CRC-32C of type, length (if there is one) and payload: of everything but itself.
//!
//! ```text
//! 01 PULL        v | options_len 2 | options | path                  options: see `Options`
//! 02 PUSH        v | options_len 2 | options | path
//! 03 RETRANSMIT  5 | cmd 1 | seq 4 |                                 cmd 08: the block seq, else: the control message seq
//! 04 FILE_INFO   v | file_id 2 | perm 2 | size 6 | ctime 4 | mtime 4 | atime 4 | path | { NUL key=value }
//! 05 SESSION     2 | session_id 2 |
//! 06 FILE_COUNT  2 | n_files 2 |                                     0: no more batches
//! 07 READY       0
//! 08 DATA        v | file_id 2 | seq 4 | data 1 to 65,529 |
//! 09 HAVE        v { first 4 | count 4 }                             blocks that are here already
//! 0a HOLE        8 | first 4 | count 4 |                             these blocks, of one file, are zeros
//! 0b DONE        4 | round 4 |
//! 0c MISSING     v { first 4 | count 4 }                             blocks to be sent again
//! 0d VERIFY      0
//! 0e ERROR       v | code 2 | text |
//! 0f FAILED      v | file_id 2 | text |
//! 10 RESENT      v | seq 4 | a whole control message |
//! 11 CONTROL     4 | next 4 |
//! 12 KEEP_ALIVE  0
//! 13 CHANGE      v { file_id 2 | what 1 }                            1 new, 2 content, 3 attributes only
//! 14 DELETED     v | path |
//! 15 LEFT_OUT    v | is_failure 1 | path_len 2 | path | text |
//!                ^ bytes of payload, v: variable
//! ```
//!
//! Control messages ([`MessageKind::is_control`]) are numbered by their place among the control messages of their
//! direction over the whole session, from 0; the number is not written. The others are not numbered.
//!
//! Goals: `DATA` is never copied, neither way; to read a message costs little more than its checksum; what is damaged
//! is told from what is wrong. Non-goals: what may come when, which is `proto`'s; a lost frame is not found again:
//! where the type or the length of a message is damaged, so is what follows it, until the connection ends.
//!
//! Driven by `proto::session`: [`read`] for what comes in, [`encode`] and [`data_head`] for what goes out. Nothing is
//! kept between calls.

mod entry;
mod error;
mod file_info;
mod kind;
mod list;
mod options;
#[cfg(test)]
mod tests;

use std::fmt;

pub use entry::EntryError;
pub use error::{EncodeError, Expected, WireError};
pub use file_info::{FileInfo, Xattrs};
pub use kind::{Form, MessageKind};
pub use list::{BlockRun, Changes, ChangesBuf, FileChange, Item, List, ListBuf, Runs, RunsBuf, What};
pub use options::{Options, OptionsError};

use super::Excerpt;
use super::checksum::{crc32c, crc32c_append};
use crate::limits;
use crate::units::{BlockSeq, FileId, SessionId};

/// Where the checksum starts: behind the type.
const CHECKSUM_AT: usize = 1;
/// Where the payload of a fixed message starts, and the length of a variable one.
const FIXED_HEAD_BYTES: usize = 5;
/// Where the payload of a variable message starts.
const VARIABLE_HEAD_BYTES: usize = 7;
/// Bytes of a `DATA` message in front of its data.
pub const DATA_HEAD_BYTES: usize = 13;
/// Bytes of a `DONE` message.
pub const DONE_BYTES: usize = FIXED_HEAD_BYTES + 4;

/// The place of a control message among those of its direction, over the whole session, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageNumber(pub u32);

impl fmt::Display for MessageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "control message {}", self.0)
    }
}

/// One READY and the data that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Round(pub u32);

/// Why a session ends early. Peers may know others than are named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// Something that has no place in the protocol was received.
    pub const PROTOCOL: Self = Self(1);
    /// An option, or a version, that is not understood.
    pub const OPTIONS: Self = Self(2);
    /// Not allowed: the command, the path, or one session more.
    pub const REFUSED: Self = Self(3);
    /// There is nothing at the path.
    pub const NOT_FOUND: Self = Self(4);
    /// Files cannot be read or written.
    pub const STORE: Self = Self(5);
    /// Another session has the destination.
    pub const BUSY: Self = Self(6);
    /// Stopped by its operator.
    pub const STOPPED: Self = Self(7);
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command<'a> {
    /// As [`Options::parse`] takes them.
    pub options: &'a [u8],
    /// The path wanted, or the destination; any bytes.
    pub path: &'a [u8],
}

/// What is asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// A block's `DATA`.
    Block(BlockSeq),
    /// A control message.
    Control {
        /// What it seemed to be. It came damaged, so the sender goes by the number.
        kind: MessageKind,
        /// Which.
        number: MessageNumber,
    },
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Client: send me what is at this path.
    Pull(Command<'a>),
    /// Client: take what I send, to this path.
    Push(Command<'a>),
    /// Send this again.
    Retransmit(Again),
    /// Sender: an entry of the batch.
    FileInfo(FileInfo<'a>),
    /// The server's answer to a command, and the first message of each further connection.
    Session(SessionId),
    /// Sender: a batch of so many entries begins; 0: there are no more.
    FileCount(u16),
    /// Receiver: send now.
    Ready,
    /// Sender: a block.
    Data {
        /// Whose.
        file: FileId,
        /// Which of the batch.
        seq: BlockSeq,
        /// 1 to [`limits::SESSION_DATA_BYTES_MAX`] bytes.
        data: &'a [u8],
    },
    /// Receiver: these blocks of the batch are here already.
    Have(Runs<'a>),
    /// Sender: these blocks, all of one file, are zeros.
    Hole(BlockRun),
    /// Sender: nothing more of this round comes on this connection.
    Done(Round),
    /// Receiver: send these blocks again.
    Missing(Runs<'a>),
    /// Receiver: the batch, or after the last one everything, stands complete.
    Verify,
    /// The session ends.
    Error {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people. What is longer than [`limits::SESSION_TEXT_BYTES_MAX`] is cut when it is encoded.
        text: &'a str,
    },
    /// This entry cannot be sent, or written.
    Failed {
        /// Which.
        file: FileId,
        /// Why. What is longer than [`limits::SESSION_TEXT_BYTES_MAX`] is cut when it is encoded.
        text: &'a str,
    },
    /// The answer to `RETRANSMIT` of a control message.
    Resent {
        /// Its number.
        number: MessageNumber,
        /// The whole of it, to be [`read`].
        message: &'a [u8],
    },
    /// Control goes on over this connection.
    Control {
        /// How many of the other's control messages are here; it goes on with the one of this number.
        next: MessageNumber,
    },
    /// I live.
    KeepAlive,
    /// Receiver: what the batch's entries change.
    Change(Changes<'a>),
    /// Receiver: this was removed, or would be in a dry run.
    Deleted {
        /// Relative to the top of the transfer.
        path: &'a [u8],
    },
    /// Sender: this is not announced. Only to a receiver that has asked to be told ([`Options::left_out`]).
    LeftOut {
        /// It should have been: what the receiver has of it is to stay.
        is_failure: bool,
        /// Relative to the top of the transfer.
        path: &'a [u8],
        /// Why. What is longer than [`limits::SESSION_TEXT_BYTES_MAX`] is cut when it is encoded.
        text: &'a str,
    },
}

impl Message<'_> {
    /// Its type.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Pull(_) => MessageKind::Pull,
            Self::Push(_) => MessageKind::Push,
            Self::Retransmit(_) => MessageKind::Retransmit,
            Self::FileInfo(_) => MessageKind::FileInfo,
            Self::Session(_) => MessageKind::Session,
            Self::FileCount(_) => MessageKind::FileCount,
            Self::Ready => MessageKind::Ready,
            Self::Data { .. } => MessageKind::Data,
            Self::Have(_) => MessageKind::Have,
            Self::Hole(_) => MessageKind::Hole,
            Self::Done(_) => MessageKind::Done,
            Self::Missing(_) => MessageKind::Missing,
            Self::Verify => MessageKind::Verify,
            Self::Error { .. } => MessageKind::Error,
            Self::Failed { .. } => MessageKind::Failed,
            Self::Resent { .. } => MessageKind::Resent,
            Self::Control { .. } => MessageKind::Control,
            Self::KeepAlive => MessageKind::KeepAlive,
            Self::Change(_) => MessageKind::Change,
            Self::Deleted { .. } => MessageKind::Deleted,
            Self::LeftOut { .. } => MessageKind::LeftOut,
        }
    }
}

/// What stands at the start of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives while one message is looked at, and nothing is allocated for it"
)]
pub enum Read<'a> {
    /// A message as it was sent.
    Message(Message<'a>),
    /// A message whose checksum is another. Nothing that is told of it may be believed, but may serve to ask for it
    /// again; where its length was damaged, what follows is not a message either.
    Damaged {
        /// What it seems to be.
        kind: MessageKind,
        /// Of a `DATA` message, the block that it seems to be.
        block: Option<(FileId, BlockSeq)>,
    },
}

/// Reads the message at the start of `bytes`, and tells how many bytes it takes; `None` where more are needed, at most
/// [`limits::SESSION_MESSAGE_BYTES_MAX`] in all. Nothing is copied.
///
/// An error ends the connection: a type that nobody knows, or a payload that its sender made wrong, since its checksum
/// is right.
#[inline]
pub fn read(bytes: &[u8]) -> Result<Option<(Read<'_>, usize)>, WireError> {
    let Some((kind, length)) = frame(bytes)? else { return Ok(None) };
    let Some(message) = bytes.get(..length) else { return Ok(None) };
    let (claimed, found) = (stored_checksum(message), checksum(message));
    if claimed != found {
        return Ok(Some((damaged(kind, message), length)));
    }
    let payload = Payload::new(kind, message);
    Ok(Some((Read::Message(parse(kind, payload)?), length)))
}

/// Kind and length, head included, of the message at the start of `bytes`; `None` where its head is not whole yet.
#[inline]
pub fn frame(bytes: &[u8]) -> Result<Option<(MessageKind, usize)>, WireError> {
    let Some(&code) = bytes.first() else { return Ok(None) };
    let kind = MessageKind::from_code(code).ok_or(WireError::UnknownType { position: 0, found: code })?;
    match (kind.form(), bytes.get(FIXED_HEAD_BYTES..VARIABLE_HEAD_BYTES)) {
        (Form::Fixed(payload_bytes), _) => Ok(Some((kind, FIXED_HEAD_BYTES + payload_bytes))),
        (Form::Variable, Some(&[high, low])) => {
            Ok(Some((kind, VARIABLE_HEAD_BYTES + usize::from(u16::from_be_bytes([high, low])))))
        }
        (Form::Variable, _) => Ok(None),
    }
}

/// Appends `message`. Where that is an error, nothing is appended.
///
/// # Panics
/// Where it is `DATA` without data.
pub fn encode(message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    let kind = message.kind();
    out.push(kind.code());
    let head_bytes = if kind.form() == Form::Variable { VARIABLE_HEAD_BYTES } else { FIXED_HEAD_BYTES };
    out.resize(start + head_bytes, 0);
    let sealed = put_payload(message, out).and_then(|()| seal(kind, &mut out[start..]));
    if sealed.is_err() {
        out.truncate(start);
    }
    sealed
}

/// The head of a `DATA` message, behind which `data` follows as it is.
///
/// # Panics
/// Where `data` is not 1 to [`limits::SESSION_DATA_BYTES_MAX`] bytes.
#[inline]
pub fn data_head(file: FileId, seq: BlockSeq, data: &[u8]) -> [u8; DATA_HEAD_BYTES] {
    assert!(!data.is_empty() && data.len() <= limits::SESSION_DATA_BYTES_MAX, "a block of {} bytes", data.len());
    let length = (data.len() + DATA_HEAD_BYTES - VARIABLE_HEAD_BYTES) as u16;
    let mut head = [0; DATA_HEAD_BYTES];
    head[0] = MessageKind::Data.code();
    head[5..7].copy_from_slice(&length.to_be_bytes());
    head[7..9].copy_from_slice(&file.0.to_be_bytes());
    head[9..].copy_from_slice(&seq.0.to_be_bytes());
    let crc = crc32c_append(checksum(&head), data);
    head[CHECKSUM_AT..FIXED_HEAD_BYTES].copy_from_slice(&crc.to_be_bytes());
    head
}

/// Of everything but the checksum itself.
fn checksum(message: &[u8]) -> u32 {
    crc32c_append(crc32c(&message[..CHECKSUM_AT]), &message[FIXED_HEAD_BYTES..])
}

fn stored_checksum(message: &[u8]) -> u32 {
    let [_, c0, c1, c2, c3, ..] = *message else { return 0 };
    u32::from_be_bytes([c0, c1, c2, c3])
}

fn damaged(kind: MessageKind, message: &[u8]) -> Read<'_> {
    let mut payload = Payload::new(kind, message);
    let mut block = || Some((FileId(payload.u16()?), BlockSeq(payload.u32()?)));
    Read::Damaged { kind, block: if kind == MessageKind::Data { block() } else { None } }
}

/// Writes length and checksum of a message whose payload is there.
fn seal(kind: MessageKind, message: &mut [u8]) -> Result<(), EncodeError> {
    if kind.form() == Form::Variable {
        let bytes = message.len() - VARIABLE_HEAD_BYTES;
        // A control message may have to travel within another one.
        let max = if kind.is_control() { limits::SESSION_CONTROL_BYTES_MAX } else { limits::SESSION_PAYLOAD_BYTES_MAX };
        if bytes > max {
            return Err(EncodeError::TooLong { kind, bytes, max });
        }
        message[FIXED_HEAD_BYTES..VARIABLE_HEAD_BYTES].copy_from_slice(&(bytes as u16).to_be_bytes());
    }
    let crc = checksum(message);
    message[CHECKSUM_AT..FIXED_HEAD_BYTES].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

fn put_payload(message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match message {
        Message::Pull(command) | Message::Push(command) => {
            let bytes = command.options.len();
            let too_long = EncodeError::TooLong { kind: message.kind(), bytes, max: limits::SESSION_OPTIONS_BYTES_MAX };
            let length = u16::try_from(bytes).map_err(|_| too_long)?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(command.options);
            out.extend_from_slice(command.path);
        }
        Message::Retransmit(again) => {
            let (kind, seq) = match again {
                Again::Block(seq) => (MessageKind::Data, seq.0),
                Again::Control { kind, number } => (*kind, number.0),
            };
            out.push(kind.code());
            out.extend_from_slice(&seq.to_be_bytes());
        }
        Message::FileInfo(info) => info.put(out)?,
        Message::Session(SessionId(number)) | Message::FileCount(number) => {
            out.extend_from_slice(&number.to_be_bytes());
        }
        Message::Ready | Message::Verify | Message::KeepAlive => {}
        Message::Data { file, seq, data } => {
            assert!(!data.is_empty(), "a block has data");
            out.extend_from_slice(&file.0.to_be_bytes());
            out.extend_from_slice(&seq.0.to_be_bytes());
            out.extend_from_slice(data);
        }
        Message::Have(runs) | Message::Missing(runs) => out.extend_from_slice(runs.as_bytes()),
        Message::Hole(run) => run.put(out),
        Message::Done(Round(number)) | Message::Control { next: MessageNumber(number) } => {
            out.extend_from_slice(&number.to_be_bytes());
        }
        Message::Error { code: ErrorCode(number), text } | Message::Failed { file: FileId(number), text } => {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(cut(text).as_bytes());
        }
        Message::Resent { number, message } => {
            out.extend_from_slice(&number.0.to_be_bytes());
            out.extend_from_slice(message);
        }
        Message::Change(changes) => out.extend_from_slice(changes.as_bytes()),
        Message::Deleted { path } => out.extend_from_slice(path),
        Message::LeftOut { is_failure, path, text } => {
            let too_long =
                EncodeError::TooLong { kind: message.kind(), bytes: path.len(), max: limits::NAME_BYTES_MAX };
            let length = u16::try_from(path.len()).map_err(|_| too_long)?;
            out.push((*is_failure).into());
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(path);
            out.extend_from_slice(cut(text).as_bytes());
        }
    }
    Ok(())
}

/// As much of `text` as may be sent.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(limits::SESSION_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The rest of a message's payload, and where it is.
#[derive(Clone, Copy)]
struct Payload<'a> {
    kind: MessageKind,
    message: &'a [u8],
    at: usize,
}

impl<'a> Payload<'a> {
    /// Of a whole message.
    fn new(kind: MessageKind, message: &'a [u8]) -> Self {
        let at = if kind.form() == Form::Variable { VARIABLE_HEAD_BYTES } else { FIXED_HEAD_BYTES };
        Self { kind, message, at }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let field = self.rest().first_chunk()?;
        self.at += N;
        Some(*field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u48(&mut self) -> Option<u64> {
        self.take().map(|[a, b, c, d, e, f]| u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    fn rest(&self) -> &'a [u8] {
        &self.message[self.at..]
    }

    /// That something else should stand here.
    fn unexpected(&self, expected: Expected) -> WireError {
        let found = Excerpt::of(self.message, self.at);
        WireError::Malformed { kind: self.kind, position: self.at, expected, found }
    }

    fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.rest()).map_err(|_| self.unexpected(Expected::Text))
    }

    fn list<T: Item>(&self, expected: Expected) -> Result<List<'a, T>, WireError> {
        List::parse(self.rest()).map_err(|at| Self { at: self.at + at, ..*self }.unexpected(expected))
    }
}

#[inline]
fn parse<'a>(kind: MessageKind, mut payload: Payload<'a>) -> Result<Message<'a>, WireError> {
    let whole = payload;
    let field = |value: Option<u32>| value.ok_or_else(|| whole.unexpected(Expected::Head));
    let short_field = |value: Option<u16>| value.ok_or_else(|| whole.unexpected(Expected::Head));
    Ok(match kind {
        MessageKind::Data => {
            let file = FileId(short_field(payload.u16())?);
            let seq = BlockSeq(field(payload.u32())?);
            let data = payload.rest();
            if data.is_empty() {
                return Err(payload.unexpected(Expected::Data));
            }
            Message::Data { file, seq, data }
        }
        MessageKind::FileInfo => Message::FileInfo(FileInfo::parse(payload)?),
        MessageKind::Pull => Message::Pull(parse_command(payload)?),
        MessageKind::Push => Message::Push(parse_command(payload)?),
        MessageKind::Retransmit => Message::Retransmit(parse_again(payload)?),
        MessageKind::Session => Message::Session(SessionId(short_field(payload.u16())?)),
        MessageKind::FileCount => Message::FileCount(short_field(payload.u16())?),
        MessageKind::Ready => Message::Ready,
        MessageKind::Have => Message::Have(payload.list(Expected::Runs)?),
        MessageKind::Hole => {
            let run = payload.take().and_then(BlockRun::take);
            Message::Hole(run.ok_or_else(|| whole.unexpected(Expected::Runs))?)
        }
        MessageKind::Done => Message::Done(Round(field(payload.u32())?)),
        MessageKind::Missing => Message::Missing(payload.list(Expected::Runs)?),
        MessageKind::Verify => Message::Verify,
        MessageKind::Error => Message::Error { code: ErrorCode(short_field(payload.u16())?), text: payload.text()? },
        MessageKind::Failed => Message::Failed { file: FileId(short_field(payload.u16())?), text: payload.text()? },
        MessageKind::Resent => {
            let number = MessageNumber(field(payload.u32())?);
            let message = payload.rest();
            // Never one within another one: whoever reads it does not go deeper.
            match frame(message) {
                Ok(Some((kind, length))) if kind.is_control() && length == message.len() => {}
                _ => return Err(payload.unexpected(Expected::ControlMessage)),
            }
            Message::Resent { number, message }
        }
        MessageKind::Control => Message::Control { next: MessageNumber(field(payload.u32())?) },
        MessageKind::KeepAlive => Message::KeepAlive,
        MessageKind::Change => Message::Change(payload.list(Expected::Changes)?),
        MessageKind::Deleted => Message::Deleted { path: payload.rest() },
        MessageKind::LeftOut => parse_left_out(payload)?,
    })
}

fn parse_left_out(mut payload: Payload<'_>) -> Result<Message<'_>, WireError> {
    let whole = payload;
    let is_failure = payload.u8().filter(|flag| *flag <= 1).map(|flag| flag == 1);
    let path = payload.u16().and_then(|length| payload.rest().get(..length.into()));
    let (is_failure, path) = is_failure.zip(path).ok_or_else(|| whole.unexpected(Expected::Path))?;
    payload.at += path.len();
    Ok(Message::LeftOut { is_failure, path, text: payload.text()? })
}

fn parse_command(mut payload: Payload<'_>) -> Result<Command<'_>, WireError> {
    let whole = payload;
    let split = payload.u16().and_then(|length| payload.rest().split_at_checked(length.into()));
    let (options, path) = split.ok_or_else(|| whole.unexpected(Expected::Options))?;
    Ok(Command { options, path })
}

fn parse_again(mut payload: Payload<'_>) -> Result<Again, WireError> {
    let whole = payload;
    let malformed = || whole.unexpected(Expected::Kind);
    let kind = payload.u8().and_then(MessageKind::from_code).ok_or_else(malformed)?;
    let seq = payload.u32().ok_or_else(malformed)?;
    Ok(match kind {
        MessageKind::Data => Again::Block(BlockSeq(seq)),
        kind => Again::Control { kind, number: MessageNumber(seq) },
    })
}
