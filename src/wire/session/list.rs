//! Lists of small things in a message, one behind another: runs of blocks, and what becomes of entries.
//!
//! A list is read from where it lies, and built in a buffer that knows when a message is full.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use crate::limits;
use crate::units::{BlockSeq, FileId};

/// Blocks of the batch that follow one another: at least one. A batch has at most [`u32::MAX`] blocks, so that the
/// number behind the last one is a number too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRun {
    first: u32,
    end: u32,
}

impl BlockRun {
    /// `None` where there is none, or one that has no number.
    pub fn new(first: BlockSeq, count: u32) -> Option<Self> {
        let end = first.0.checked_add(count)?;
        (count > 0).then_some(Self { first: first.0, end })
    }

    /// The blocks of these numbers; `None` where there is none.
    pub fn of(blocks: Range<u32>) -> Option<Self> {
        (!blocks.is_empty()).then_some(Self { first: blocks.start, end: blocks.end })
    }

    /// Their numbers.
    pub fn blocks(self) -> Range<u32> {
        self.first..self.end
    }
}

/// What becomes of an entry at the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// It was not there.
    New,
    /// Its content is another.
    Content,
    /// Only its attributes are.
    Attributes,
}

impl What {
    fn code(self) -> u8 {
        match self {
            Self::New => 1,
            Self::Content => 2,
            Self::Attributes => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::New),
            2 => Some(Self::Content),
            3 => Some(Self::Attributes),
            _ => None,
        }
    }
}

/// An entry that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileChange {
    /// Which.
    pub file: FileId,
    /// How.
    pub what: What,
}

/// Something of which a message holds many.
pub trait Item: Copy + fmt::Debug + PartialEq {
    /// Bytes that each takes.
    const BYTES: usize;

    /// Appends it.
    fn put(self, out: &mut Vec<u8>);

    /// What the [`Item::BYTES`] bytes of `bytes` say; `None` where that is nothing.
    fn parse(bytes: &[u8]) -> Option<Self>;
}

impl BlockRun {
    pub(super) fn take([a, b, c, d, e, f, g, h]: [u8; 8]) -> Option<Self> {
        Self::new(BlockSeq(u32::from_be_bytes([a, b, c, d])), u32::from_be_bytes([e, f, g, h]))
    }
}

impl Item for BlockRun {
    const BYTES: usize = 8;

    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first.to_be_bytes());
        out.extend_from_slice(&(self.end - self.first).to_be_bytes());
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        Self::take(bytes.try_into().ok()?)
    }
}

impl Item for FileChange {
    const BYTES: usize = 3;

    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.file.0.to_be_bytes());
        out.push(self.what.code());
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[high, low, what] = bytes else { return None };
        Some(Self { file: FileId(u16::from_be_bytes([high, low])), what: What::from_code(what)? })
    }
}

/// Items as they lie in a message; each of them is valid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct List<'a, T> {
    bytes: &'a [u8],
    items: PhantomData<T>,
}

/// Runs of blocks.
pub type Runs<'a> = List<'a, BlockRun>;
/// Entries that change.
pub type Changes<'a> = List<'a, FileChange>;

impl<'a, T: Item> List<'a, T> {
    /// Checks every item of `bytes`; the error is where the first one starts that is none.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, usize> {
        match bytes.chunks(T::BYTES).position(|item| T::parse(item).is_none()) {
            Some(index) => Err(index * T::BYTES),
            None => Ok(Self { bytes, items: PhantomData }),
        }
    }

    /// The items, in the order in which they were sent.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + use<'a, T> {
        self.bytes.chunks_exact(T::BYTES).map(|item| T::parse(item).expect("checked when the list was made"))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / T::BYTES
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<T: Item> fmt::Debug for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A list that is being built, never longer than one message takes.
#[derive(Debug, Clone, Default)]
pub struct ListBuf<T> {
    bytes: Vec<u8>,
    items: PhantomData<T>,
}

/// Runs of blocks that are to be sent.
pub type RunsBuf = ListBuf<BlockRun>;
/// Changes that are to be sent.
pub type ChangesBuf = ListBuf<FileChange>;

impl<T: Item> ListBuf<T> {
    /// Items that one message takes.
    pub const ITEMS_MAX: usize = limits::SESSION_CONTROL_BYTES_MAX / T::BYTES;

    /// An empty one.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), items: PhantomData }
    }

    /// Appends `item`; false where the list is full, and must be sent and cleared first.
    #[must_use]
    pub fn push(&mut self, item: T) -> bool {
        let fits = self.bytes.len() < Self::ITEMS_MAX * T::BYTES;
        if fits {
            item.put(&mut self.bytes);
        }
        fits
    }

    /// For [`Message::Have`](super::Message::Have), [`Message::Missing`](super::Message::Missing) or
    /// [`Message::Change`](super::Message::Change).
    pub fn as_list(&self) -> List<'_, T> {
        List { bytes: &self.bytes, items: PhantomData }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it takes no more.
    pub fn is_full(&self) -> bool {
        self.bytes.len() == Self::ITEMS_MAX * T::BYTES
    }

    /// Empties it, its memory is kept.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}
