//! What a frame may be refused for, and where.

use std::fmt;

use crate::limits;
use crate::units::NameError;
use crate::wire::{Excerpt, duplex};

/// Why bytes are not frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The grammar asks for something else here.
    #[error("malformed packet at byte {position}: expected {expected}, found {found}")]
    Unexpected {
        /// Where in the train the packet starts.
        packet_at: usize,
        /// Where in the packet.
        position: usize,
        /// What the grammar allows there.
        expected: Expected,
        /// What stands there.
        found: Excerpt,
    },
    /// The requested name is well encoded, but no name of an object.
    #[error("malformed packet at byte {position}: expected an object's name, found {found}: {source}")]
    Name {
        /// Where in the train the packet starts.
        packet_at: usize,
        /// Where in the packet the name starts.
        position: usize,
        /// How it starts, as encoded.
        found: Excerpt,
        /// What is wrong with it.
        source: NameError,
    },
}

impl FrameError {
    /// Where in the train the malformed packet starts.
    pub fn packet_at(&self) -> usize {
        match self {
            Self::Unexpected { packet_at, .. } | Self::Name { packet_at, .. } => *packet_at,
        }
    }
}

/// What the grammar allows at the place of a [`FrameError::Unexpected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Any frame, or padding. `M:` is neither: there is no data to go on with.
    Frame,
    /// `M:`, since the data of a frame goes on.
    Middle,
    /// 1 to [`limits::SIZE_DIGITS_MAX`] decimal digits.
    Digit,
    /// `:` behind a number, within the packet.
    NumberEnd,
    /// A request's id of at most [`u32::MAX`].
    IdInRange,
    /// A number of at most [`u64::MAX`].
    NumberInRange,
    /// What [`duplex`] allows in an encoded name.
    Name(duplex::Expected),
    /// A checksum.
    Checksum,
    /// Why a request is refused.
    Refusal,
    /// A range of at least 1 byte within the longest object.
    RangeInObject,
    /// A range of 1 byte to a block, within one block.
    RangeInBlock,
    /// At most [`limits::NEWS_BYTES_MAX`] bytes.
    NewsLength,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame => f.write_str("one of R: B: P: F: C: K: I: N:"),
            Self::Middle => f.write_str("M: and the data that goes on"),
            Self::Digit => write!(f, "a number of 1 to {} decimal digits", limits::SIZE_DIGITS_MAX),
            Self::NumberEnd => write!(f, "':' after a number of at most {} digits", limits::SIZE_DIGITS_MAX),
            Self::IdInRange => write!(f, "an id of at most {}", u32::MAX),
            Self::NumberInRange => write!(f, "a number of at most {}", u64::MAX),
            Self::Name(expected) => expected.fmt(f),
            Self::Checksum => f.write_str("a checksum of 8 lowercase hexadecimal digits and ':'"),
            Self::Refusal => f.write_str("one of gone: changed: damaged: invalid:"),
            Self::RangeInObject => {
                write!(f, "offset:length: of at least 1 byte that ends at byte {} at most", limits::OBJECT_BYTES_MAX)
            }
            Self::RangeInBlock => {
                write!(f, "offset:length: of 1 to {} bytes within one block", limits::BLOCK_BYTES)
            }
            Self::NewsLength => write!(f, "at most {} bytes of news", limits::NEWS_BYTES_MAX),
        }
    }
}
