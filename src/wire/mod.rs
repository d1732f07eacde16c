//! Bytes to packets and back, for every protocol: what stands where, and nothing about why it was sent.
//!
//! Participants: `proto` hands in the bytes of whole packets and the names, sizes and headers to be written; it gets
//! back parsed packets as enums and ranges into what it handed in. No payload is copied in either direction.
//!
//! Owns the grammar of the wire: letters, separators, escapes, integer layouts, checksums, padding.
//!
//! Never does: I/O, clocks, randomness other than from a seed handed in, allocation sized by a peer, panics on bytes
//! from a peer. It knows [`units`](crate::units) and [`limits`](crate::limits) only; it has never heard of an object's
//! state, a file or a socket. What it keeps from one packet to the next is how much of a frame's data is still to come.
//!
//! | module | what |
//! |---|---|
//! | [`duplex`] | seed 000's packets |
//! | [`hello`] | the block in the first packet's padding by which our own nodes know each other |
//! | [`extended`] | frames between our own nodes |
//! | [`named`] | seed 001's packets |
//! | [`inventory`] | entries of an inventory, the data of its news |
//! | [`session`] | seed 002's messages |
//! | [`padding`] | the pool of pseudo-random bytes that fills packets up |
//! | [`checksum`] | CRC-32C |

pub mod checksum;
pub mod duplex;
pub mod extended;
pub mod hello;
pub mod inventory;
pub mod named;
pub mod padding;
pub mod session;

use std::fmt;

/// Most bytes of malformed input that an error carries along.
const EXCERPT_BYTES: usize = 16;

/// The first few bytes of what stood where something else was expected; short however long the input is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Excerpt {
    bytes: [u8; EXCERPT_BYTES],
    length: u8,
}

impl Excerpt {
    /// What `input` holds from `position` on; empty at or behind its end.
    fn of(input: &[u8], position: usize) -> Self {
        let rest = input.get(position..).unwrap_or_default();
        let kept = &rest[..rest.len().min(EXCERPT_BYTES)];
        let mut bytes = [0; EXCERPT_BYTES];
        bytes[..kept.len()].copy_from_slice(kept);
        Self { bytes, length: kept.len() as u8 }
    }

    /// The bytes kept, at most 16.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length == 0 {
            return f.write_str("the end of the packet");
        }
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
