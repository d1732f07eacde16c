//! The types of messages: their codes, how long they are, which of them are numbered.

use std::fmt;

/// The types of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// `PULL`.
    Pull = 0x01,
    /// `PUSH`.
    Push = 0x02,
    /// `RETRANSMIT`.
    Retransmit = 0x03,
    /// `FILE_INFO`.
    FileInfo = 0x04,
    /// `SESSION`.
    Session = 0x05,
    /// `FILE_COUNT`.
    FileCount = 0x06,
    /// `READY`.
    Ready = 0x07,
    /// `DATA`.
    Data = 0x08,
    /// `HAVE`.
    Have = 0x09,
    /// `HOLE`.
    Hole = 0x0a,
    /// `DONE`.
    Done = 0x0b,
    /// `MISSING`.
    Missing = 0x0c,
    /// `VERIFY`.
    Verify = 0x0d,
    /// `ERROR`.
    Error = 0x0e,
    /// `FAILED`.
    Failed = 0x0f,
    /// `RESENT`.
    Resent = 0x10,
    /// `CONTROL`.
    Control = 0x11,
    /// `KEEP_ALIVE`.
    KeepAlive = 0x12,
    /// `CHANGE`.
    Change = 0x13,
    /// `DELETED`.
    Deleted = 0x14,
    /// `LEFT_OUT`.
    LeftOut = 0x15,
}

/// How the length of a message is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By its type: so many bytes of payload.
    Fixed(usize),
    /// By its length field.
    Variable,
}

impl MessageKind {
    /// All there are, in the order of their codes, which start at 1.
    pub const ALL: [Self; 21] = [
        Self::Pull,
        Self::Push,
        Self::Retransmit,
        Self::FileInfo,
        Self::Session,
        Self::FileCount,
        Self::Ready,
        Self::Data,
        Self::Have,
        Self::Hole,
        Self::Done,
        Self::Missing,
        Self::Verify,
        Self::Error,
        Self::Failed,
        Self::Resent,
        Self::Control,
        Self::KeepAlive,
        Self::Change,
        Self::Deleted,
        Self::LeftOut,
    ];

    /// The first byte of such messages.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind of messages whose first byte is `code`.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// Fixed or variable.
    pub const fn form(self) -> Form {
        match self {
            Self::Ready | Self::Verify | Self::KeepAlive => Form::Fixed(0),
            Self::Session | Self::FileCount => Form::Fixed(2),
            Self::Done | Self::Control => Form::Fixed(4),
            Self::Retransmit => Form::Fixed(5),
            Self::Hole => Form::Fixed(8),
            _ => Form::Variable,
        }
    }

    /// Whether such messages are numbered, so that they can be asked for again by their numbers.
    pub const fn is_control(self) -> bool {
        !matches!(
            self,
            Self::Pull
                | Self::Push
                | Self::Session
                | Self::Data
                | Self::Hole
                | Self::Done
                | Self::Resent
                | Self::Control
                | Self::KeepAlive
        )
    }

    /// As the protocol calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "PULL",
            Self::Push => "PUSH",
            Self::Retransmit => "RETRANSMIT",
            Self::FileInfo => "FILE_INFO",
            Self::Session => "SESSION",
            Self::FileCount => "FILE_COUNT",
            Self::Ready => "READY",
            Self::Data => "DATA",
            Self::Have => "HAVE",
            Self::Hole => "HOLE",
            Self::Done => "DONE",
            Self::Missing => "MISSING",
            Self::Verify => "VERIFY",
            Self::Error => "ERROR",
            Self::Failed => "FAILED",
            Self::Resent => "RESENT",
            Self::Control => "CONTROL",
            Self::KeepAlive => "KEEP_ALIVE",
            Self::Change => "CHANGE",
            Self::Deleted => "DELETED",
            Self::LeftOut => "LEFT_OUT",
        }
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
