//! Why bytes are no messages, and why a message cannot be written.

use std::fmt;

use super::MessageKind;
use crate::limits;
use crate::wire::Excerpt;

/// What a peer did wrong. Positions count from the first byte that was given to be read; [`WireError::after`] makes
/// them those of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No message begins with this byte, so nobody knows where the next one does.
    #[error("malformed message at byte {position}: expected a type of 0x01 to 0x{last:02x}, found 0x{found:02x}", last = MessageKind::LeftOut.code())]
    UnknownType {
        /// Where.
        position: usize,
        /// The byte.
        found: u8,
    },
    /// A message came as it was sent, and was made wrong.
    #[error("malformed {kind} at byte {position}: expected {expected}, found {found}")]
    Malformed {
        /// What it is.
        kind: MessageKind,
        /// Where.
        position: usize,
        /// What the protocol allows there.
        expected: Expected,
        /// What stands there.
        found: Excerpt,
    },
}

impl WireError {
    /// The same where so many bytes came before.
    pub fn after(self, bytes: usize) -> Self {
        match self {
            Self::UnknownType { position, found } => Self::UnknownType { position: position + bytes, found },
            Self::Malformed { kind, position, expected, found } => {
                Self::Malformed { kind, position: position + bytes, expected, found }
            }
        }
    }
}

/// What the protocol allows at the place of a [`WireError::Malformed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The fields of fixed length that such a message begins with.
    Head,
    /// At least a byte of data.
    Data,
    /// The length of options, and so many bytes.
    Options,
    /// The type of a message, and a number.
    Kind,
    /// Runs of blocks.
    Runs,
    /// Changes of entries.
    Changes,
    /// Text.
    Text,
    /// One whole control message.
    ControlMessage,
    /// An attribute.
    Attribute,
    /// Nanoseconds of a time.
    Nanoseconds,
    /// Seconds of a time.
    Seconds,
    /// The number of a user or a group.
    Owner,
    /// The name of a user or a group.
    OwnerName,
    /// A BLAKE3.
    Hash,
    /// 0 or 1.
    Flag,
    /// Whether it failed, the length of a path, and so many bytes.
    Path,
    /// The name of an extended attribute.
    XattrName,
    /// What `%` announces.
    Escape,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("the numbers that it begins with"),
            Self::Data => write!(f, "1 to {} bytes of data", limits::SESSION_DATA_BYTES_MAX),
            Self::Options => f.write_str("options_len and so many bytes of options"),
            Self::Kind => f.write_str("the type of a message and a number"),
            Self::Runs => f.write_str("first and count of blocks, at least one, numbered up to 4294967294"),
            Self::Changes => f.write_str("file_id and one of 1, 2, 3"),
            Self::Text => f.write_str("text in UTF-8"),
            Self::ControlMessage => f.write_str("one whole control message"),
            Self::Attribute => f.write_str("an attribute, key=value"),
            Self::Nanoseconds => f.write_str("0 to 999999999 nanoseconds"),
            Self::Seconds => f.write_str("seconds between the years 1677 and 2262"),
            Self::Owner => write!(f, "a number of at most {}", u32::MAX),
            Self::OwnerName => f.write_str("a name in UTF-8"),
            Self::Hash => f.write_str("64 hexadecimal digits"),
            Self::Flag => f.write_str("0 or 1"),
            Self::Path => f.write_str("0 or 1, path_len and so many bytes of a path"),
            Self::XattrName => {
                write!(f, "the name of an extended attribute, 1 to {} bytes without NUL", limits::XATTR_NAME_BYTES_MAX)
            }
            Self::Escape => f.write_str("'%' and two hexadecimal digits"),
        }
    }
}

/// Why a message cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It holds more than a message takes.
    #[error("a {kind} of {bytes} bytes is longer than the {max} that fit")]
    TooLong {
        /// What.
        kind: MessageKind,
        /// Bytes of its payload, or of its options.
        bytes: usize,
        /// As many as it may have.
        max: usize,
    },
    /// A file is larger than can be told.
    #[error("a file of {bytes} bytes is larger than the {max} that can be told", max = limits::SESSION_FILE_BYTES_MAX)]
    Size {
        /// Its length.
        bytes: u64,
    },
    /// A NUL ends an attribute, and cannot be in one.
    #[error("the {attribute} has a NUL byte in it")]
    Nul {
        /// Which.
        attribute: &'static str,
    },
}
