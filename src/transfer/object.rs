//! One object of a flow: what is known of it and where it stands.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::action::Problem;
use super::ledger::Content;
use crate::limits;
use crate::units::{ByteCount, Generation, LinkId, NodeName, ObjectName, Offset, Root256, Time};

/// Where an object stands. Absent -> Requested -> Arriving or Growing -> Whole -> Present, or by ranges Absent ->
/// Gathering -> Whole -> Present; back to Absent from anywhere.
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
    /// Bytes are coming in, and how many there are is told behind the last of them. Next: Whole, Absent (link died,
    /// disk failed, the peer cannot send it to its end), Growing (the peer began again).
    Growing {
        /// The link that carries it.
        link: LinkId,
        /// Bytes from its start that are in the part file.
        written: ByteCount,
        /// What the peer told at its end.
        end: Option<Told>,
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

/// What a peer tells of an object behind the last of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Its length.
    pub size: ByteCount,
    /// Bytes that came in, the padding of its last packet included; they are written before it is cut to its length.
    pub received: ByteCount,
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

/// What is known of an object. There may be millions, of which few are on the move: what only those need is kept aside
/// and reads as nothing where it is not there.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) name: ObjectName,
    /// What it holds, where an inventory tells.
    pub(super) content: Option<Content>,
    stage: Stage,
    /// Of what is present, how many bytes it has; of all else, since which second of the node's clock it is missed.
    figure: u64,
    passing: Option<Box<Passing>>,
    /// The peers that say there is such an object, by their masks.
    pub(super) told_by: u32,
    /// Of these, those that tell of it as it is known here, and not of another version.
    pub(super) given_by: u32,
    /// The last question that was asked when one of them said so.
    pub(super) told_at: u32,
    /// It was put on the list by name.
    pub(super) listed: bool,
    /// It stands in a queue, or would if a link were there.
    pub(super) queued: bool,
    /// It was sent whole to somebody.
    pub(super) delivered: bool,
    pub(super) generation: Generation,
    /// The number of its record in the log, if it has one.
    pub(super) record: Option<NonZeroU32>,
    /// What is present, in few bytes: of its root, or what its owner saw of it; 0 where that is not known.
    pub(super) mark: u64,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Absent,
    Present,
    Moving,
    /// Nobody names it any more: it is a place for another.
    Gone,
}

/// What an object has only while it is on the move, is read, or could not be had.
#[derive(Debug)]
pub(super) struct Passing {
    /// Where it stands, if neither absent nor present.
    moving: ObjectState,
    /// The length that it must have, where that is known beforehand and no content tells.
    listed_size: Option<ByteCount>,
    /// Links that asked for it and have not had all of it, each with how many ranges it waits for; none: for all of it.
    pub(super) readers: BTreeMap<LinkId, u32>,
    pub(super) last_use: Time,
    /// Not to be asked for before this.
    pub(super) retry_at: Time,
    pub(super) retry_delay: Duration,
    /// The peer that said last that it is pending.
    pub(super) pending_at: Option<NodeName>,
    pub(super) problem: Option<Problem>,
    /// Attempts in a row that came to nothing.
    pub(super) failures: u32,
    /// What is on the move has other attributes since it began to.
    pub(super) attributes_changed: bool,
    /// What is here of it is in memory, not in a file.
    pub(super) in_memory: bool,
}

impl Passing {
    const NOTHING: Self = Self {
        moving: ObjectState::Absent,
        listed_size: None,
        readers: BTreeMap::new(),
        last_use: Time::ZERO,
        retry_at: Time::ZERO,
        retry_delay: Duration::ZERO,
        pending_at: None,
        problem: None,
        failures: 0,
        attributes_changed: false,
        in_memory: false,
    };
}

static NOTHING: Passing = Passing::NOTHING;

impl Deref for Object {
    type Target = Passing;
    fn deref(&self) -> &Passing {
        self.passing.as_deref().unwrap_or(&NOTHING)
    }
}

/// Takes memory; what changes nothing should not be written.
impl DerefMut for Object {
    fn deref_mut(&mut self) -> &mut Passing {
        self.passing.get_or_insert_with(|| Box::new(Passing::NOTHING))
    }
}

impl Object {
    pub(super) fn new(name: ObjectName, expected: Option<ByteCount>) -> Self {
        let mut object = Self {
            name,
            content: None,
            stage: Stage::Absent,
            figure: 0,
            passing: None,
            told_by: 0,
            given_by: 0,
            told_at: 0,
            listed: false,
            queued: false,
            delivered: false,
            generation: Generation::default(),
            record: None,
            mark: 0,
        };
        if expected.is_some() {
            object.listed_size = expected;
        }
        object
    }

    pub(super) fn state(&self) -> ObjectState {
        match self.stage {
            Stage::Absent | Stage::Gone => ObjectState::Absent,
            Stage::Present => ObjectState::Present { size: ByteCount(self.figure) },
            Stage::Moving => self.moving,
        }
    }

    pub(super) fn set_state(&mut self, state: ObjectState) {
        self.stage = match state {
            ObjectState::Absent => Stage::Absent,
            ObjectState::Present { size } => {
                self.figure = size.0;
                Stage::Present
            }
            state => {
                self.moving = state;
                Stage::Moving
            }
        };
    }

    /// Its state, while it is neither absent nor present.
    pub(super) fn moving_mut(&mut self) -> Option<&mut ObjectState> {
        matches!(self.stage, Stage::Moving).then(|| &mut self.moving)
    }

    /// What it has for the time being, where it has that.
    pub(super) fn passing_mut(&mut self) -> Option<&mut Passing> {
        self.passing.as_deref_mut()
    }

    pub(super) fn is_present(&self) -> bool {
        matches!(self.stage, Stage::Present)
    }

    /// It is not here, and missed since this second.
    pub(super) fn set_missed_since(&mut self, second: u32) {
        debug_assert!(!self.is_present());
        self.figure = second.into();
    }

    /// Since which second it is missed; `None` where it is here, or nobody names it any more.
    pub(super) fn missed_since(&self) -> Option<u64> {
        (!self.is_present() && !self.is_gone()).then_some(self.figure)
    }

    /// The length that it must have, where that is known beforehand.
    pub(super) fn expected(&self) -> Option<ByteCount> {
        let known = self.content.as_ref().map(|content| content.size).or(self.listed_size);
        known.or(self.is_present().then_some(ByteCount(self.figure)))
    }

    /// Something else tells no more what length it must have.
    pub(super) fn keep_expected(&mut self) {
        if self.listed_size != self.expected() {
            self.listed_size = self.expected();
        }
    }

    /// Whether what is present is known to have this root.
    pub(super) fn is_here(&self, root: Root256) -> bool {
        self.mark != 0 && self.mark == print_of(root)
    }

    /// Says what root that has which is present, where it is known.
    pub(super) fn set_here(&mut self, root: Option<Root256>) {
        self.mark = root.map_or(0, print_of);
    }

    /// Nobody names it any more.
    pub(super) fn clear(&mut self) {
        debug_assert!(self.content.is_none(), "it is counted while it is known");
        (self.stage, self.queued) = (Stage::Gone, false);
        (self.passing, self.record) = (None, None);
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.stage, Stage::Gone)
    }

    /// Gives memory back that it needs no more. When it was used last is forgotten.
    pub(super) fn rest(&mut self) {
        let is_done = self.readers.is_empty() && self.problem.is_none() && !matches!(self.stage, Stage::Moving);
        if is_done && (self.is_present() || self.content.is_some()) {
            self.passing = None;
        }
    }

    /// Bytes that it takes up on disk.
    pub(super) fn footprint(&self) -> ByteCount {
        match self.state() {
            ObjectState::Absent | ObjectState::Requested { .. } | ObjectState::Growing { .. } => ByteCount(0),
            ObjectState::Arriving { size, .. }
            | ObjectState::Gathering { size, .. }
            | ObjectState::Whole { size }
            | ObjectState::Present { size } => size,
        }
    }

    /// A link asks for so many ranges of it, or for all of it; whether it had not asked for anything before.
    pub(super) fn add_reader(&mut self, link: LinkId, ranges: u32) -> bool {
        let before = self.readers.len();
        *self.readers.entry(link).or_default() += ranges;
        self.readers.len() > before
    }

    /// Whether a link has asked for ranges of it that are not answered.
    pub(super) fn waits_for_range(&self, link: LinkId) -> bool {
        self.readers.get(&link).is_some_and(|&asks| asks > 0)
    }

    /// Links that have.
    pub(super) fn range_readers(&self) -> impl Iterator<Item = LinkId> {
        self.readers.iter().filter(|(_, asks)| **asks > 0).map(|(&link, _)| link)
    }

    /// Whether it may be thrown away to make room.
    pub(super) fn is_evictable(&self) -> bool {
        matches!(self.state(), ObjectState::Present { .. } | ObjectState::Gathering { .. }) && self.readers.is_empty()
    }

    /// Until when it stays in a spool though it may go.
    pub(super) fn kept_until(&self) -> Time {
        self.last_use
            + match (self.delivered, self.in_memory) {
                (false, _) => limits::KEEP_UNDELIVERED,
                (true, false) => limits::KEEP_DELIVERED,
                (true, true) => limits::KEEP_DELIVERED_IN_MEMORY,
            }
    }

    /// Whether an object of its length has such a range; `true` where that is not known.
    pub(super) fn has_range(&self, offset: Offset, length: ByteCount) -> bool {
        self.expected().is_none_or(|size| offset.0.checked_add(length.0).is_some_and(|end| end <= size.0))
    }
}

/// A root in few bytes: those of two objects differ, but once in 2^64.
fn print_of(root: Root256) -> u64 {
    let (first, _) = root.0.split_first_chunk().expect("a root is longer");
    u64::from_le_bytes(*first).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_at_rest_is_small() {
        // Of these, with its name's count and length and its places by name and in the log: 200 bytes at most.
        assert!(size_of::<Object>() <= 136, "{}", size_of::<Object>());
    }
}
