//! How far a flow has come.

use crate::units::ByteCount;

/// Totals of one flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Objects in the flow's table that it wants, offers or keeps.
    pub objects: u64,
    /// Their length, as far as it is known.
    pub bytes: ByteCount,
    /// Objects that are here and whole.
    pub present: u64,
    /// Their length.
    pub present_bytes: ByteCount,
    /// Objects that are here in part.
    pub arriving: u64,
    /// Bytes written of those.
    pub arriving_bytes: ByteCount,
    /// Objects with a problem that an operator should look at.
    pub failed: u64,
}
