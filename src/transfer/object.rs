//! One object of a flow: what is known of it and where it stands.

use std::collections::BTreeSet;
use std::time::Duration;

use super::action::Problem;
use super::ledger::Content;
use crate::units::{ByteCount, Generation, LinkId, NodeName, ObjectName, Offset, Root256, Time};

/// Where an object stands. Absent -> Requested -> Arriving -> Whole -> Present, or by ranges Absent -> Gathering -> Whole
/// -> Present; back to Absent from anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectState {
    /// Not here and not on its way. Next: Requested, Gathering, Present (it appeared on disk).
    Absent,
    /// A link has it on order. Next: Arriving, Absent (pending at the peer, or the link died).
    Requested {
        /// The link that asked.
        link: LinkId,
    },
    /// Its size is known and bytes are coming in. Next: Whole, Absent (link died, disk failed), Arriving (the
    /// peer began again).
    Arriving {
        /// The link that carries it.
        link: LinkId,
        /// Its whole length.
        size: ByteCount,
        /// Bytes from its start that are in the part file.
        written: ByteCount,
        /// Whether its part file stands.
        created: bool,
    },
    /// Ranges of it come in, over any links. Next: Whole, Absent (it changed, or no link that carries ranges is left).
    Gathering {
        /// Its whole length.
        size: ByteCount,
        /// Bytes that are here, each range with its checksum.
        verified: ByteCount,
        /// Bytes from its start that are in blocks which agree with the inventory.
        prefix: ByteCount,
        /// Whether its part file stands.
        created: bool,
    },
    /// All bytes are written; the commit is under way. Next: Present, Absent (the commit failed).
    Whole {
        /// Its length.
        size: ByteCount,
    },
    /// Here and whole (and marked, where the flow marks). Next: Absent (evicted, withdrawn, to be fetched again).
    Present {
        /// Its length.
        size: ByteCount,
    },
}

/// What a server can send of an object now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Not here; the peer is to be told so.
    Pending,
    /// Not here yet, but on its way: nothing is said until more is known.
    Awaited,
    /// `ready` bytes from its start can be sent.
    Ready {
        /// Its whole length.
        size: ByteCount,
        /// Bytes that can be sent.
        ready: ByteCount,
        /// The attempt that these bytes belong to.
        generation: Generation,
    },
}

#[derive(Debug)]
pub(super) struct Object {
    pub(super) name: ObjectName,
    /// The length that it must have, where that is known beforehand.
    pub(super) expected: Option<ByteCount>,
    /// What it holds, where an inventory tells.
    pub(super) content: Option<Box<Content>>,
    /// The root of what is present, where that is known.
    pub(super) here: Option<Root256>,
    /// It was put on the list by name.
    pub(super) listed: bool,
    pub(super) state: ObjectState,
    pub(super) generation: Generation,
    /// Links that asked for it and have not had all of it.
    pub(super) readers: BTreeSet<LinkId>,
    /// It stands in a queue, or would if a link were there.
    pub(super) queued: bool,
    /// It was sent whole to somebody.
    pub(super) delivered: bool,
    pub(super) last_use: Time,
    /// Not to be asked for before this.
    pub(super) retry_at: Time,
    pub(super) retry_delay: Duration,
    /// The peer that said last that it is pending.
    pub(super) pending_at: Option<NodeName>,
    pub(super) problem: Option<Problem>,
}

impl Object {
    pub(super) fn new(name: ObjectName, expected: Option<ByteCount>) -> Self {
        Self {
            name,
            expected,
            content: None,
            here: None,
            listed: false,
            state: ObjectState::Absent,
            generation: Generation::default(),
            readers: BTreeSet::new(),
            queued: false,
            delivered: false,
            last_use: Time::ZERO,
            retry_at: Time::ZERO,
            retry_delay: Duration::ZERO,
            pending_at: None,
            problem: None,
        }
    }

    /// Bytes that it takes up on disk.
    pub(super) fn footprint(&self) -> ByteCount {
        match self.state {
            ObjectState::Absent | ObjectState::Requested { .. } => ByteCount(0),
            ObjectState::Arriving { size, .. }
            | ObjectState::Gathering { size, .. }
            | ObjectState::Whole { size }
            | ObjectState::Present { size } => size,
        }
    }

    /// Whether it may be thrown away to make room.
    pub(super) fn is_evictable(&self) -> bool {
        matches!(self.state, ObjectState::Present { .. } | ObjectState::Gathering { .. }) && self.readers.is_empty()
    }

    /// Whether an object of its length has such a range; `true` where that is not known.
    pub(super) fn has_range(&self, offset: Offset, length: ByteCount) -> bool {
        let size = self.content.as_ref().map(|content| content.size).or(self.expected);
        size.is_none_or(|size| offset.0.checked_add(length.0).is_some_and(|end| end <= size.0))
    }
}
