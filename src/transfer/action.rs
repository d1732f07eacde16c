//! What a flow has done and what there is to tell of it.

#[cfg(doc)]
use super::flow::Flow;
use crate::units::{ByteCount, Generation, ObjectId, ObjectName, Offset, Root256};

/// What the rim is to do. In the order given, for each object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a part file of this length, or one that grows, then call [`Flow::handle_created`].
    Create {
        /// Which object.
        id: ObjectId,
        /// Which attempt.
        generation: Generation,
        /// Its length; `None` where that is told when all of it has come.
        size: Option<ByteCount>,
    },
    /// Make or open a part file of this length for ranges that come in any order, then call [`Flow::handle_created`].
    OpenPart {
        /// Which object.
        id: ObjectId,
        /// Which attempt.
        generation: Generation,
        /// Its length.
        size: ByteCount,
        /// When it was last changed, nanoseconds since 1970.
        mtime_ns: i64,
        /// Its permission bits.
        mode: u16,
        /// BLAKE3 of all of it.
        root: Root256,
        /// An earlier run's part is to be gone on with.
        resumed: bool,
    },
    /// This attempt is over: throw its part file away.
    Abandon {
        /// Which object.
        id: ObjectId,
        /// Which attempt.
        generation: Generation,
    },
    /// All bytes are in the part file: make it final, then call [`Flow::handle_committed`]; or
    /// [`Flow::handle_root_failed`] where they have not the root they must have.
    Commit {
        /// Which object.
        id: ObjectId,
        /// Which attempt.
        generation: Generation,
        /// BLAKE3 of all of it, where that is known.
        root: Option<Root256>,
        /// Its length; what a part file that grows has beyond it is padding.
        size: ByteCount,
    },
    /// What an earlier run has left of this version is no use any more: throw its part file away.
    Discard {
        /// The object's name.
        name: ObjectName,
        /// The version's length.
        size: ByteCount,
        /// The version's root.
        root: Root256,
    },
    /// Read an object that came whole, then call [`Flow::handle_hashed`]: nobody has told what it is made of.
    Hash {
        /// Which object.
        id: ObjectId,
        /// Which attempt.
        generation: Generation,
    },
    /// Read an object that is here from an earlier run: where it has not this root, call
    /// [`Flow::handle_source_failed`].
    Check {
        /// Which object.
        id: ObjectId,
        /// Which attempt.
        generation: Generation,
        /// BLAKE3 of all of it.
        root: Root256,
    },
    /// The final file is what it should be, but perhaps for its mode and time: give it those that are known of it.
    SetAttributes {
        /// Which object.
        id: ObjectId,
        /// Which attempt made it final.
        generation: Generation,
    },
    /// Remove the final file: its room is needed.
    Evict {
        /// Which object.
        id: ObjectId,
        /// Its name.
        name: ObjectName,
    },
    /// Remove the final file and its marker, durably: there is no such object any more. What was made final before is
    /// removed, what is made final later stays.
    Remove {
        /// Its name.
        name: ObjectName,
    },
}

/// Something that an operator may want to read about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An object is here, whole (and marked, where the flow marks).
    Committed {
        /// Its name.
        name: ObjectName,
        /// Its length.
        size: ByteCount,
    },
    /// An object could not be brought in; it will be tried again.
    Failed {
        /// Its name.
        name: ObjectName,
        /// Why.
        problem: Problem,
    },
    /// The peer has an object no more.
    Forgotten {
        /// Its name.
        name: ObjectName,
    },
    /// An object that is served changed or vanished under the sender; it is served again once it is stable.
    SourceFailed {
        /// Its name.
        name: ObjectName,
        /// What was seen.
        reason: String,
    },
}

/// Why an object is not here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The peer offers another length than the segment specification says.
    #[error("the peer offers {found}, the segment specification says {expected}")]
    WrongSize {
        /// What the specification says.
        expected: ByteCount,
        /// What the peer said.
        found: ByteCount,
    },
    /// Longer than all that the spool has for what comes this way, which is half of it.
    #[error("its {size} need spool.max_bytes of at least {} (now {}; half is for each way)", 2 * size.0, 2 * max.0)]
    LargerThanSpool {
        /// Its length.
        size: ByteCount,
        /// The bound of this half.
        max: ByteCount,
    },
    /// The store could not take it.
    #[error("{0}")]
    Store(String),
    /// The peer does not send it.
    #[error("refused by the peer: {0}")]
    Refused(String),
    /// The peer began to send it, and did not get to its end.
    #[error("not sent whole by the peer: {0}")]
    BrokenOff(String),
    /// It changed under the sender.
    #[error("{0}")]
    Source(String),
    /// It cannot be read here.
    #[error("{0}")]
    Unreadable(String),
    /// Whoever has it cannot read it.
    #[error("its source cannot read it: look at the log and the disk of the node that it comes from")]
    DamagedSource,
    /// Bytes came in as they were sent, but are not those that the inventory tells.
    #[error("the block at byte {} is not what the inventory says; its source is damaged or has changed", .offset.0)]
    WrongBlock {
        /// Where the block starts.
        offset: Offset,
    },
    /// All its blocks are right, but it is not.
    #[error("its content has not the root that the inventory says")]
    WrongRoot,
}

/// What of a store it is that could not take an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// All of it: it is full, or its disk fails.
    Store,
    /// The place of this one name.
    Name,
}

/// Why the bytes of an object that a peer begins to send are to be thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has not the length it must have.
    WrongSize,
    /// There is no room for it in the spool.
    NoRoom,
    /// It failed here in the meantime, or another link fetches it now.
    NotWanted,
}
