//! Entries of an inventory: what a node has, one object after another, and what it has no more.
//!
//! Participants: a server that appends an entry to its log whenever its store changes, and receivers that read the log
//! from where they know it; on the wire it is the data of [`News`](super::extended::Frame::News). A later entry of a
//! name replaces the earlier one.
//!
//! ```text
//! entry := 1 name size mtime mode root crc*     an object as it is now
//!        | 2 name                               it was removed
//! name  := varint length, bytes                 1 to 4095, see ObjectName
//! size  := varint, bytes                        at most limits::BLOCKS_PER_OBJECT_MAX blocks
//! mtime := i64, nanoseconds since 1970          before it: negative
//! mode  := u16                                  the permission bits, at most 0o7777
//! root  := 32 bytes                             BLAKE3 of the whole content
//! crc   := u32                                  CRC-32C of one block; as many as the size has blocks
//! ```
//!
//! Integers are little endian; a varint has 7 bits a byte, lowest first, the top bit set in all but the last byte, in
//! as few bytes as there can be. So an entry tells its own length, and has one encoding. An object of one block is
//! about 50 bytes and its name.
//!
//! Non-goals: damage on the way (each news has a checksum), truth (the checksums of blocks and the root are checked
//! against bytes when these come in), and the order of entries.

use crate::limits;
use crate::units::{BlockCrcs, ByteCount, NameError, ObjectName};
use crate::wire::Excerpt;

/// Begins the entry of an object.
const OBJECT: u8 = 1;
/// Begins the entry of a name that was removed.
const REMOVED: u8 = 2;
/// Largest mode: permissions, set-user-ID, set-group-ID and sticky (inode(7)).
const MODE_MAX: u16 = 0o7777;
const ROOT_BYTES: usize = 32;
const CRC_BYTES: usize = 4;
/// Bits of a varint's byte that carry the number.
const VARINT_BITS: u32 = 7;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// There is this object.
    Object(Object),
    /// There is none of this name any more.
    Removed {
        /// The name.
        name: ObjectName,
    },
}

/// An object as an inventory describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its path.
    pub name: ObjectName,
    /// Its length, at most [`limits::BLOCKS_PER_OBJECT_MAX`] blocks.
    pub size: ByteCount,
    /// When it was last changed, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its permission bits, at most `0o7777`.
    pub mode: u16,
    /// BLAKE3 of its whole content.
    pub root: [u8; ROOT_BYTES],
    /// CRC-32C of each of its blocks, [`blocks`] many.
    pub block_crcs: BlockCrcs,
}

/// Why bytes are not an entry. Positions count from the first byte that was handed in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The bytes end within an entry.
    #[error("malformed inventory: the entry at byte {entry_at} needs {needed} bytes at byte {position}, found {found}")]
    Short {
        /// Where the entry starts.
        entry_at: usize,
        /// Where bytes are missing.
        position: usize,
        /// How many the field there needs, at least.
        needed: u64,
        /// How many there are.
        found: usize,
    },
    /// The layout asks for something else here.
    #[error("malformed inventory at byte {position}: expected {expected}, found {found}")]
    Unexpected {
        /// Where.
        position: usize,
        /// What the layout allows there.
        expected: Expected,
        /// What stands there.
        found: Excerpt,
    },
    /// A name that no object has.
    #[error("malformed inventory at byte {position}: expected an object's name, found {found}: {source}")]
    Name {
        /// Where.
        position: usize,
        /// How it starts.
        found: Excerpt,
        /// What is wrong with it.
        source: NameError,
    },
}

/// What the layout allows at the place of an [`EntryError::Unexpected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Expected {
    /// The first byte of an entry.
    #[error("an entry that starts with byte 1 (an object) or 2 (removed)")]
    Kind,
    /// A varint of at most 64 bits, without zeros at its end.
    #[error("a varint of at most 64 bits in as few bytes as there can be")]
    Varint,
    /// The length of a name.
    #[error("a name of 1 to {max} bytes", max = limits::NAME_BYTES_MAX)]
    NameLength,
    /// The size of an object.
    #[error("an object of at most {max} blocks", max = limits::BLOCKS_PER_OBJECT_MAX)]
    Size,
    /// The mode of an object.
    #[error("a mode of at most 0o7777")]
    Mode,
}

/// An object is longer than an inventory can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has {0}, more than the {max} blocks of 1 MiB that an inventory lists; split it", max = limits::BLOCKS_PER_OBJECT_MAX)]
pub struct TooLong(pub ByteCount);

/// How many blocks an object of `size` has; none if it is empty.
pub const fn blocks(size: ByteCount) -> u64 {
    size.0.div_ceil(limits::BLOCK_BYTES)
}

/// Whether an object of `size` can be in an inventory.
pub fn check_size(size: ByteCount) -> Result<(), TooLong> {
    if blocks(size) <= limits::BLOCKS_PER_OBJECT_MAX { Ok(()) } else { Err(TooLong(size)) }
}

impl Entry {
    /// The name that it is about.
    pub fn name(&self) -> &ObjectName {
        match self {
            Self::Object(object) => &object.name,
            Self::Removed { name } => name,
        }
    }

    /// Appends the entry.
    ///
    /// # Panics
    /// Where an object has another number of checksums than [`blocks`], a longer size than [`check_size`] allows, or
    /// more than permission bits in its mode.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        match self {
            Self::Object(object) => {
                assert!(check_size(object.size).is_ok(), "{} of {} cannot be listed", object.name, object.size);
                assert_eq!(object.block_crcs.len() as u64, blocks(object.size), "checksums of {}", object.name);
                assert!(object.mode <= MODE_MAX, "mode {:o} of {}", object.mode, object.name);
                out.push(OBJECT);
                encode_name(out, &object.name);
                encode_varint(out, object.size.0);
                out.extend_from_slice(&object.mtime_ns.to_le_bytes());
                out.extend_from_slice(&object.mode.to_le_bytes());
                out.extend_from_slice(&object.root);
                out.extend(object.block_crcs.iter().flat_map(|crc| crc.to_le_bytes()));
            }
            Self::Removed { name } => {
                out.push(REMOVED);
                encode_name(out, name);
            }
        }
    }

    /// Bytes that [`Entry::encode`] appends; at most [`limits::NEWS_BYTES_MAX`].
    pub fn encoded_len(&self) -> usize {
        let name_bytes = self.name().as_bytes().len();
        let name = varint_len(name_bytes as u64) + name_bytes;
        1 + name
            + match self {
                Self::Object(object) => {
                    let fixed = size_of::<i64>() + size_of::<u16>() + ROOT_BYTES;
                    varint_len(object.size.0) + fixed + CRC_BYTES * object.block_crcs.len()
                }
                Self::Removed { .. } => 0,
            }
    }

    /// The entry that `bytes` start with, and how many bytes it takes up.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), EntryError> {
        let mut reader = Reader { bytes, entry_at: 0, at: 0 };
        reader.entry().map(|entry| (entry, reader.at))
    }
}

/// All entries of `bytes`, which must be whole; nothing follows an error.
pub fn entries(bytes: &[u8]) -> Entries<'_> {
    Entries { reader: Reader { bytes, entry_at: 0, at: 0 } }
}

/// See [`entries`].
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    reader: Reader<'a>,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = &mut self.reader;
        if reader.at == reader.bytes.len() {
            return None;
        }
        let entry = reader.entry();
        if entry.is_err() {
            reader.at = reader.bytes.len();
        }
        Some(entry)
    }
}

/// A place in the bytes of entries.
#[derive(Debug, Clone)]
struct Reader<'a> {
    bytes: &'a [u8],
    entry_at: usize,
    at: usize,
}

impl<'a> Reader<'a> {
    fn entry(&mut self) -> Result<Entry, EntryError> {
        self.entry_at = self.at;
        match self.array::<1>()? {
            [OBJECT] => self.object().map(Entry::Object),
            [REMOVED] => self.name().map(|name| Entry::Removed { name }),
            _ => Err(self.unexpected(self.entry_at, Expected::Kind)),
        }
    }

    fn object(&mut self) -> Result<Object, EntryError> {
        let name = self.name()?;
        let size_at = self.at;
        let size = ByteCount(self.varint()?);
        if check_size(size).is_err() {
            return Err(self.unexpected(size_at, Expected::Size));
        }
        let mtime_ns = i64::from_le_bytes(self.array()?);
        let mode_at = self.at;
        let mode = u16::from_le_bytes(self.array()?);
        if mode > MODE_MAX {
            return Err(self.unexpected(mode_at, Expected::Mode));
        }
        let root = self.array()?;
        // Taken before anything is allocated: there are never more checksums than bytes came for them.
        let crcs = self.take(blocks(size) * CRC_BYTES as u64)?;
        let (crcs, _) = crcs.as_chunks::<CRC_BYTES>();
        let block_crcs = crcs.iter().map(|crc| u32::from_le_bytes(*crc)).collect();
        Ok(Object { name, size, mtime_ns, mode, root, block_crcs })
    }

    fn name(&mut self) -> Result<ObjectName, EntryError> {
        let length_at = self.at;
        let length = self.varint()?;
        if !(1..=limits::NAME_BYTES_MAX as u64).contains(&length) {
            return Err(self.unexpected(length_at, Expected::NameLength));
        }
        let position = self.at;
        let name = self.take(length)?;
        let found = Excerpt::of(name, 0);
        ObjectName::new(name).map_err(|source| EntryError::Name { position, found, source })
    }

    fn varint(&mut self) -> Result<u64, EntryError> {
        let start = self.at;
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(VARINT_BITS as usize) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit, and a last byte of zero adds nothing.
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                return Err(self.unexpected(start, Expected::Varint));
            }
            number |= bits << shift;
            if byte == bits as u8 {
                return Ok(number);
            }
        }
        Err(self.unexpected(start, Expected::Varint))
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], EntryError> {
        let rest = &self.bytes[self.at..];
        let array = rest.first_chunk().ok_or_else(|| self.short(LENGTH as u64))?;
        self.at += LENGTH;
        Ok(*array)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], EntryError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or_else(|| self.short(length))?;
        self.at += taken.len();
        Ok(taken)
    }

    #[cold]
    fn short(&self, needed: u64) -> EntryError {
        EntryError::Short { entry_at: self.entry_at, position: self.at, needed, found: self.bytes.len() - self.at }
    }

    #[cold]
    fn unexpected(&self, position: usize, expected: Expected) -> EntryError {
        EntryError::Unexpected { position, expected, found: Excerpt::of(self.bytes, position) }
    }
}

fn encode_name(out: &mut Vec<u8>, name: &ObjectName) {
    encode_varint(out, name.as_bytes().len() as u64);
    out.extend_from_slice(name.as_bytes());
}

fn encode_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= VARINT_BITS;
    }
    out.push(number as u8);
}

fn varint_len(number: u64) -> usize {
    (number.checked_ilog2().unwrap_or(0) / VARINT_BITS + 1) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(bytes: &[u8]) -> ObjectName {
        ObjectName::new(bytes).expect("a test's name is valid")
    }

    fn object(bytes: &[u8], size: u64, crcs: &[u32]) -> Object {
        let (size, block_crcs) = (ByteCount(size), crcs.iter().copied().collect());
        Object { name: name(bytes), size, mtime_ns: -2, mode: 0o4755, root: [0xab; 32], block_crcs }
    }

    fn encoded(entry: &Entry) -> Vec<u8> {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert_eq!(bytes.len(), entry.encoded_len());
        bytes
    }

    #[test]
    fn entries_are_these_bytes() {
        let check = |entry: Entry, expected: &[&[u8]]| {
            let expected = expected.concat();
            assert_eq!(encoded(&entry), expected, "{entry:?}");
            assert_eq!(Entry::decode(&expected), Ok((entry, expected.len())));
        };
        let mtime_mode = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xed\x09";
        check(Entry::Object(object(b"d/a", 0, &[])), &[b"\x01\x03d/a\x00", mtime_mode, &[0xab; 32]]);
        check(
            Entry::Object(object(b"b", 1 << 20, &[0x0102_0304])),
            &[b"\x01\x01b\x80\x80\x40", mtime_mode, &[0xab; 32], b"\x04\x03\x02\x01"],
        );
        check(
            Entry::Object(object(b"b", (1 << 20) + 1, &[1, 2])),
            &[b"\x01\x01b\x81\x80\x40", mtime_mode, &[0xab; 32], b"\x01\0\0\0\x02\0\0\0"],
        );
        check(Entry::Removed { name: name(b"a:b\n") }, &[b"\x02\x04a:b\n"]);
        let long = [b'n'; 200];
        check(Entry::Removed { name: name(&long) }, &[b"\x02\xc8\x01", &long]);
    }

    #[test]
    fn malformed_entries_are_refused_where_they_go_wrong() {
        let check = |bytes: &[u8], position: usize, expected: Expected| {
            let found = Excerpt::of(bytes, position);
            let error = Err(EntryError::Unexpected { position, expected, found });
            assert_eq!(Entry::decode(bytes), error, "{}", bytes.escape_ascii());
        };
        check(b"\x00", 0, Expected::Kind);
        check(b"\x03\x01a", 0, Expected::Kind);
        check(b"\x02\x00", 1, Expected::NameLength);
        check(b"\x02\x80\x20", 1, Expected::NameLength);
        check(b"\x02\x81\x00a", 1, Expected::Varint);
        check(b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 1, Expected::Varint);
        check(b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00", 1, Expected::Varint);
        check(b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 1, Expected::NameLength);
        let sized = |size: u64| {
            let mut bytes = b"\x01\x01a".to_vec();
            encode_varint(&mut bytes, size);
            bytes
        };
        check(&sized(limits::BLOCKS_PER_OBJECT_MAX * limits::BLOCK_BYTES + 1), 3, Expected::Size);
        check(&sized(u64::MAX), 3, Expected::Size);
        check(&[b"\x01\x01a\x00".as_slice(), &[0; 8], b"\x00\x10"].concat(), 12, Expected::Mode);

        let error = Entry::decode(b"\x02\x02..").expect_err("no name");
        let found = Excerpt::of(b"..", 0);
        assert_eq!(error, EntryError::Name { position: 2, found, source: NameError::DotComponent });
    }

    #[test]
    fn checksums_that_did_not_come_are_not_allocated() {
        let longest = limits::BLOCKS_PER_OBJECT_MAX * limits::BLOCK_BYTES;
        let mut bytes = b"\x01\x01a".to_vec();
        encode_varint(&mut bytes, longest);
        bytes.extend_from_slice(&[0; 8 + 2 + 32 + 40]);
        let (position, needed) = (bytes.len() - 40, limits::BLOCKS_PER_OBJECT_MAX * 4);
        let error = EntryError::Short { entry_at: 0, position, needed, found: 40 };
        assert_eq!(Entry::decode(&bytes), Err(error.clone()));
        assert_eq!(
            error.to_string(),
            "malformed inventory: the entry at byte 0 needs 8000000 bytes at byte 51, found 40"
        );
    }

    #[test]
    fn every_entry_cut_short_is_refused_as_such() {
        let whole = encoded(&Entry::Object(object(b"dir/name", 5 << 20, &[1, 2, 3, 4, 5])));
        for length in 0..whole.len() {
            let error = Entry::decode(&whole[..length]).expect_err("cut");
            assert!(matches!(error, EntryError::Short { entry_at: 0, .. }), "{length}: {error}");
        }
    }

    #[test]
    fn nothing_follows_an_error() {
        let mut bytes = encoded(&Entry::Removed { name: name(b"a") });
        bytes.extend_from_slice(b"\x07\x02\x01b");
        let found: Vec<_> = entries(&bytes).collect();
        let expected = Expected::Kind;
        let error = EntryError::Unexpected { position: 3, expected, found: Excerpt::of(&bytes, 3) };
        assert_eq!(found, [Ok(Entry::Removed { name: name(b"a") }), Err(error)]);
        assert_eq!(entries(b"").next(), None);
    }

    #[test]
    fn the_longest_object_fits_into_news() {
        let longest = ByteCount(limits::BLOCKS_PER_OBJECT_MAX * limits::BLOCK_BYTES);
        assert_eq!(check_size(longest), Ok(()));
        let longer = ByteCount(longest.0 + 1);
        assert_eq!(check_size(longer), Err(TooLong(longer)));
        assert!(check_size(ByteCount(u64::MAX)).is_err());
        let crcs = vec![7; limits::BLOCKS_PER_OBJECT_MAX as usize];
        let entry = Entry::Object(object(&[b'n'; limits::NAME_BYTES_MAX], longest.0, &crcs));
        assert!(entry.encoded_len() <= limits::NEWS_BYTES_MAX);
        assert!(Entry::decode(&encoded(&entry)).is_ok_and(|(decoded, _)| decoded == entry));
    }

    fn names() -> impl Strategy<Value = ObjectName> {
        let bytes = prop::collection::vec(any::<u8>(), 1..300);
        bytes.prop_filter_map("not a name", |bytes| ObjectName::new(&bytes).ok())
    }

    fn some_entries() -> impl Strategy<Value = Vec<Entry>> {
        let sizes = (0..=20 * limits::BLOCK_BYTES, 0..25_u32).prop_map(|(bits, shift)| bits >> shift);
        let object = (names(), sizes, any::<i64>(), 0..=MODE_MAX, any::<[u8; 32]>(), any::<u32>()).prop_map(
            |(name, size, mtime_ns, mode, root, crc)| {
                let size = ByteCount(size);
                let block_crcs = (0..blocks(size) as u32).map(|i| crc.wrapping_mul(i + 1)).collect();
                Entry::Object(Object { name, size, mtime_ns, mode, root, block_crcs })
            },
        );
        let entry = prop_oneof![object, names().prop_map(|name| Entry::Removed { name })];
        prop::collection::vec(entry, 0..20)
    }

    /// Bytes that get further into the layout than chance alone would.
    fn nearly_entries() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            2 => some_entries().prop_map(|entries| entries.iter().flat_map(encoded).take(200).collect()),
            2 => (0..4_u8, 0..6_u8).prop_map(|pair| vec![pair.0, pair.1, b'a']),
            1 => prop::collection::vec(any::<u8>(), 0..20),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces: Vec<Vec<u8>>| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(written in some_entries()) {
            let bytes: Vec<u8> = written.iter().flat_map(encoded).collect();
            let read: Result<Vec<Entry>, EntryError> = entries(&bytes).collect();
            prop_assert_eq!(read, Ok(written));
        }

        #[test]
        fn any_bytes_decode_to_what_encodes_to_them_or_fail(
            bytes in prop_oneof![nearly_entries(), prop::collection::vec(any::<u8>(), 0..300)]
        ) {
            let mut again = Vec::new();
            for entry in entries(&bytes) {
                match entry {
                    Ok(entry) => entry.encode(&mut again),
                    Err(error) => {
                        prop_assert!(error.to_string().len() < 256);
                        prop_assert!(again.len() < bytes.len());
                        break;
                    }
                }
            }
            prop_assert!(bytes.starts_with(&again));
        }

        #[test]
        fn varints_have_the_length_that_is_told(bits: u64, shift in 0..64_u32) {
            let (number, mut bytes) = (bits >> shift, Vec::new());
            encode_varint(&mut bytes, number);
            prop_assert_eq!(bytes.len(), varint_len(number));
            let mut reader = Reader { bytes: &bytes, entry_at: 0, at: 0 };
            prop_assert_eq!(reader.varint(), Ok(number));
        }
    }
}
