//! Newtypes for the ids and quantities that every layer speaks in.
//!
//! Owns no behaviour beyond construction, arithmetic that keeps its unit, and display. A value that
//! exists is valid: an [`ObjectName`] can be joined below a root, a [`PacketLen`] is within bounds.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::Arc;
use std::time::Duration;

use crate::limits;

mod crcs;
mod entry;
mod ranges;

pub use crcs::BlockCrcs;
pub use entry::{Entry, Kind, Owner, PathError, TreePath, Xattr};
pub use ranges::RangeSet;

/// Path of an object relative to its root: `/`-separated bytes, never absolute, without empty, `.` or
/// `..` components and without NUL; 1 to [`limits::NAME_BYTES_MAX`] bytes. A clone shares them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<[u8]>);

/// Why bytes are not an object's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("the name is empty")]
    Empty,
    /// More than [`limits::NAME_BYTES_MAX`] bytes.
    #[error("the name has {0} bytes, more than the {max} allowed", max = limits::NAME_BYTES_MAX)]
    TooLong(usize),
    /// Starts with `/`.
    #[error("the name is absolute")]
    Absolute,
    /// Two `/` in a row, or one at the end.
    #[error("the name has an empty component")]
    EmptyComponent,
    /// A `.` or `..` component.
    #[error("the name has a '.' or '..' component")]
    DotComponent,
    /// Contains a NUL byte.
    #[error("the name contains a NUL byte")]
    Nul,
}

impl ObjectName {
    /// Checks `bytes` and keeps a copy of them.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > limits::NAME_BYTES_MAX {
            return Err(NameError::TooLong(bytes.len()));
        }
        if bytes[0] == b'/' {
            return Err(NameError::Absolute);
        }
        if bytes.contains(&0) {
            return Err(NameError::Nul);
        }
        for component in bytes.split(|&b| b == b'/') {
            match component {
                b"" => return Err(NameError::EmptyComponent),
                b"." | b".." => return Err(NameError::DotComponent),
                _ => {}
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes, as they are on disk.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, &self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What a node is called by its operator and by its peers: 1 to [`limits::NODE_NAME_BYTES_MAX`] bytes of
/// `A-Z a-z 0-9 . _ -`, and not `.` or `..`, so that it can name a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Box<str>);

/// Why a text is not a node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NodeNameError {
    /// Nothing at all.
    #[error("the node's name is empty")]
    Empty,
    /// More than [`limits::NODE_NAME_BYTES_MAX`] bytes.
    #[error("the node's name has {0} bytes, more than the {max} allowed", max = limits::NODE_NAME_BYTES_MAX)]
    TooLong(usize),
    /// A byte that is none of `A-Z a-z 0-9 . _ -`.
    #[error("the node's name has '{}' at byte {position}, only letters, digits, '.', '_' and '-' are allowed", byte.escape_ascii())]
    Byte {
        /// Where.
        position: usize,
        /// Which.
        byte: u8,
    },
    /// `.` or `..`.
    #[error("the node's name is '.' or '..'")]
    Dots,
}

impl NodeName {
    /// Checks `bytes` and keeps a copy of them.
    pub fn new(bytes: &[u8]) -> Result<Self, NodeNameError> {
        if bytes.is_empty() {
            return Err(NodeNameError::Empty);
        }
        if bytes.len() > limits::NODE_NAME_BYTES_MAX {
            return Err(NodeNameError::TooLong(bytes.len()));
        }
        if matches!(bytes, b"." | b"..") {
            return Err(NodeNameError::Dots);
        }
        let mut name = String::with_capacity(bytes.len());
        for (position, &byte) in bytes.iter().enumerate() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => name.push(char::from(byte)),
                _ => return Err(NodeNameError::Byte { position, byte }),
            }
        }
        Ok(Self(name.into()))
    }

    /// The name as text; all of it is ASCII.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for NodeName {
    type Err = NodeNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text.as_bytes())
    }
}

/// An object's place in one flow's table; meaningless in any other flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u32);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {}", self.0)
    }
}

/// One attempt at bringing an object in. Bytes of an earlier attempt are never mixed with a later one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u32);

impl Generation {
    /// The attempt after this one.
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// A file's place in a batch of a session (seed 002).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileId(pub u16);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.0)
    }
}

/// The number of a block in a batch of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockSeq(pub u32);

impl fmt::Display for BlockSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

/// Names a session at the server while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub u16);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.0)
    }
}

/// One TCP connection, unique for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}", self.0)
    }
}

/// A number of bytes: a length or a total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteCount(pub u64);

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

impl Add for ByteCount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for ByteCount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl AddAssign for ByteCount {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl SubAssign for ByteCount {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

impl std::iter::Sum for ByteCount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        Self(iter.map(|b| b.0).sum())
    }
}

/// A position in an object, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}", self.0)
    }
}

impl Add<ByteCount> for Offset {
    type Output = Self;
    fn add(self, length: ByteCount) -> Self {
        Self(self.0 + length.0)
    }
}

/// BLAKE3 of an object's whole content: two objects with the same root are the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Root256(pub [u8; 32]);

impl Root256 {
    /// From 64 hexadecimal digits, of either case.
    pub fn from_hex(digits: &[u8]) -> Option<Self> {
        let mut root = [0; 32];
        if digits.len() != 2 * root.len() {
            return None;
        }
        for (byte, pair) in root.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(0)? << 4 | digit(1)?;
        }
        Some(Self(root))
    }
}

impl fmt::Display for Root256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All digits at once: it is part of the name of each file that arrives.
        let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
        let mut text = String::with_capacity(2 * self.0.len());
        self.0.iter().for_each(|byte| text.extend([digit(byte >> 4), digit(byte & 15)]));
        f.write_str(&text)
    }
}

impl fmt::Debug for Root256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A file's time, nanoseconds since 1970 as the file system keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime(pub i64);

impl FileTime {
    /// From seconds and nanoseconds since 1970; what does not fit becomes the [nearest](FileTime::is_bound) that does.
    pub fn new(seconds: i64, nanoseconds: i64) -> Self {
        let exact = seconds.checked_mul(NANOSECONDS).and_then(|whole| whole.checked_add(nanoseconds));
        Self(exact.unwrap_or(if seconds < 0 { i64::MIN } else { i64::MAX }))
    }

    /// Whether it stands for all times before 1677, or all after April 2262.
    pub fn is_bound(self) -> bool {
        matches!(self.0, i64::MIN | i64::MAX)
    }

    /// Whole seconds since 1970, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(NANOSECONDS)
    }

    /// Nanoseconds beyond [`FileTime::seconds`], 0 to 999,999,999.
    pub fn subsecond_nanoseconds(self) -> u32 {
        self.0.rem_euclid(NANOSECONDS) as u32
    }
}

const NANOSECONDS: i64 = 1_000_000_000;

/// N: the length of every packet of a link, the same at both ends;
/// [`limits::PACKET_BYTES_MIN`] to [`limits::PACKET_BYTES_MAX`] (seed 000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PacketLen(u32);

impl PacketLen {
    /// The seed's example, and the default.
    pub const DEFAULT: Self = Self(limits::PACKET_BYTES_DEFAULT);

    /// `None` where `bytes` is out of bounds.
    pub fn new(bytes: u32) -> Option<Self> {
        (limits::PACKET_BYTES_MIN..=limits::PACKET_BYTES_MAX).contains(&bytes).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PacketLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Time since the node started, as the core sees it: it is always handed in, never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub Duration);

impl Time {
    /// The node's start.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// From `earlier` to this; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, delay: Duration) -> Self {
        Self(self.0 + delay)
    }
}

/// Bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Rate(pub f64);

impl Rate {
    /// How long `bytes` take; `None` for a rate of zero.
    pub fn time_for(self, bytes: ByteCount) -> Option<Duration> {
        (self.0 > 0.0).then(|| Duration::try_from_secs_f64(bytes.0 as f64 / self.0).unwrap_or(Duration::MAX))
    }

    /// How many bytes pass in `time`.
    pub fn bytes_in(self, time: Duration) -> ByteCount {
        ByteCount((self.0 * time.as_secs_f64()) as u64)
    }
}

/// Bytes as text that is safe to print: control characters and what is no UTF-8 are escaped.
fn write_escaped(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_has_nanoseconds_after_its_second() {
        let time = FileTime::new(-2, 999_999_999);
        assert_eq!(time, FileTime(-1_000_000_001));
        assert_eq!((time.seconds(), time.subsecond_nanoseconds()), (-2, 999_999_999));
        assert_eq!(FileTime::new(i64::MAX, 5), FileTime(i64::MAX));
    }

    #[test]
    fn names_that_could_leave_a_root_are_refused() {
        let check = |bytes: &[u8], expected: Result<(), NameError>| {
            assert_eq!(ObjectName::new(bytes).map(|_| ()), expected, "{bytes:?}");
        };
        check(b"stock1_1", Ok(()));
        check(b"a/b/c.bin", Ok(()));
        check(b"..a/.b", Ok(()));
        check(b"a:b%\xff", Ok(()));
        check(b"", Err(NameError::Empty));
        check(b"/etc/passwd", Err(NameError::Absolute));
        check(b"../up", Err(NameError::DotComponent));
        check(b"a/../../up", Err(NameError::DotComponent));
        check(b"a/./b", Err(NameError::DotComponent));
        check(b"a//b", Err(NameError::EmptyComponent));
        check(b"a/", Err(NameError::EmptyComponent));
        check(b"a\0b", Err(NameError::Nul));
        check(&[b'a'; limits::NAME_BYTES_MAX], Ok(()));
        check(&[b'a'; limits::NAME_BYTES_MAX + 1], Err(NameError::TooLong(limits::NAME_BYTES_MAX + 1)));
    }

    #[test]
    fn a_name_prints_without_control_bytes() {
        let name = ObjectName::new(b"a\x1b[31m\xffb").expect("valid");
        assert_eq!(name.to_string(), "a\\u{1b}[31m\\xffb");
    }

    #[test]
    fn node_names_are_short_and_plain() {
        let check = |bytes: &[u8], expected: Result<(), NodeNameError>| {
            assert_eq!(NodeName::new(bytes).map(|_| ()), expected, "{bytes:?}");
        };
        check(b"trader1", Ok(()));
        check(b"A-z_0.example", Ok(()));
        check(b"...", Ok(()));
        check(&[b'n'; limits::NODE_NAME_BYTES_MAX], Ok(()));
        check(b"", Err(NodeNameError::Empty));
        check(&[b'n'; 65], Err(NodeNameError::TooLong(65)));
        check(b".", Err(NodeNameError::Dots));
        check(b"..", Err(NodeNameError::Dots));
        check(b"a/b", Err(NodeNameError::Byte { position: 1, byte: b'/' }));
        check(b"ab\xc3\xa4", Err(NodeNameError::Byte { position: 2, byte: 0xc3 }));
    }

    #[test]
    fn a_root_is_64_hexadecimal_digits() {
        let root = Root256(std::array::from_fn(|at| at as u8 * 7));
        let text = root.to_string();
        assert!(text.starts_with("00070e15"), "{text}");
        assert_eq!(Root256::from_hex(text.as_bytes()), Some(root));
        assert_eq!(Root256::from_hex(text.to_uppercase().as_bytes()), Some(root));
        let check = |digits: &str| assert_eq!(Root256::from_hex(digits.as_bytes()), None, "{digits}");
        check("");
        check(&text[1..]);
        check(&format!("{text}0"));
        check(&format!("g{}", &text[1..]));
        check(&format!("+{}", &text[1..]));
    }

    #[test]
    fn packet_length_has_bounds() {
        assert!(PacketLen::new(63).is_none());
        assert_eq!(PacketLen::new(64).map(PacketLen::bytes), Some(64));
        assert_eq!(PacketLen::new(1 << 20).map(PacketLen::bytes), Some(1 << 20));
        assert!(PacketLen::new((1 << 20) + 1).is_none());
    }
}
