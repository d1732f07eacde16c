//! `NAME.success`: says that NAME beside it is whole and durable.
//!
//! Text, a field a line: `size 24000000`, `root` and 64 hexadecimal digits of BLAKE3 over the content where that was
//! known, `committed 2026-01-31T12:00:00Z`. Further lines are for later versions
//! and are skipped. An empty marker, as other tools make it, says nothing but that it stands.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::limits;
use crate::units::{ByteCount, Root256};

/// What a marker says of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marker {
    /// The object's size, in bytes.
    pub size: Option<ByteCount>,
    /// What its content hashes to.
    pub root: Option<Root256>,
    /// When it was committed, to the second.
    pub committed: Option<Timestamp>,
}

/// Why a marker cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarkerError {
    /// The `size` line is no number.
    #[error("the marker's size is not a number")]
    Size,
    /// The `root` line is no BLAKE3.
    #[error("the marker's root is not 64 hexadecimal digits")]
    Root,
    /// The `committed` line is no time.
    #[error("the marker's time is not a time")]
    Time,
    /// A field stands twice.
    #[error("the marker says the same thing twice")]
    Twice,
}

impl Marker {
    /// For an object of `size` bytes that is being committed now.
    pub fn now(size: ByteCount, root: Option<Root256>) -> Self {
        let now = Timestamp::now();
        // Whole seconds are what the text keeps.
        let committed = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Self { size: Some(size), root, committed: Some(committed) }
    }

    /// The first [`limits::MARKER_BYTES_MAX`] of `bytes` as a marker.
    pub fn parse(bytes: &[u8]) -> Result<Self, MarkerError> {
        let mut marker = Self::default();
        let bytes = &bytes[..bytes.len().min(limits::MARKER_BYTES_MAX)];
        for line in bytes.split(|&b| b == b'\n') {
            let line = line.trim_ascii();
            if let Some(value) = line.strip_prefix(b"size ") {
                let size = parse_decimal(value.trim_ascii()).ok_or(MarkerError::Size)?;
                if marker.size.replace(ByteCount(size)).is_some() {
                    return Err(MarkerError::Twice);
                }
            } else if let Some(value) = line.strip_prefix(b"root ") {
                let root = Root256::from_hex(value.trim_ascii()).ok_or(MarkerError::Root)?;
                if marker.root.replace(root).is_some() {
                    return Err(MarkerError::Twice);
                }
            } else if let Some(value) = line.strip_prefix(b"committed ") {
                let text = std::str::from_utf8(value).map_err(|_| MarkerError::Time)?;
                let time = text.trim().parse::<Timestamp>().map_err(|_| MarkerError::Time)?;
                if marker.committed.replace(time).is_some() {
                    return Err(MarkerError::Twice);
                }
            }
        }
        Ok(marker)
    }

    /// Whether the text of a marker of an object of `size` bytes may be so long, with a root or without.
    pub(super) fn is_length(size: ByteCount, length: u64) -> bool {
        let digits = size.0.checked_ilog10().map_or(1, |log| u64::from(log) + 1);
        let without = ("size \n".len() + "committed 2026-01-31T12:00:00Z\n".len()) as u64 + digits;
        length == without || length == without + ("root \n".len() + 64) as u64
    }

    /// The text that stands in the file.
    pub fn to_text(self) -> String {
        let mut text = String::new();
        if let Some(size) = self.size {
            let _ = writeln!(text, "size {}", size.0);
        }
        if let Some(root) = self.root {
            let _ = writeln!(text, "root {root}");
        }
        if let Some(committed) = self.committed {
            let _ = writeln!(text, "committed {committed}");
        }
        text
    }
}

/// Digits only: no sign, no space, no more than a `u64` holds.
fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_of_every_kind_parse_or_say_why_not() {
        let at = |text: &str| Some(text.parse::<Timestamp>().expect("a time"));
        let check = |bytes: &[u8], expected: Result<Marker, MarkerError>| {
            assert_eq!(Marker::parse(bytes), expected, "{}", bytes.escape_ascii());
        };
        let size = |size| Some(ByteCount(size));
        check(b"", Ok(Marker::default()));
        check(b"\n\n", Ok(Marker::default()));
        check(b"done\n", Ok(Marker::default()));
        check(b"\xff\xfe\0", Ok(Marker::default()));
        check(b"size 0\n", Ok(Marker { size: size(0), ..Marker::default() }));
        check(
            b"size 24000000\ncommitted 2026-01-31T12:00:00Z\n",
            Ok(Marker { size: size(24_000_000), root: None, committed: at("2026-01-31T12:00:00Z") }),
        );
        check(b"blake3 00ff\r\nsize 7\r\nmore to come", Ok(Marker { size: size(7), ..Marker::default() }));
        check(b"sizes 7\n", Ok(Marker::default()));
        check(b"size 18446744073709551615", Ok(Marker { size: size(u64::MAX), ..Marker::default() }));
        check(b"size 18446744073709551616", Err(MarkerError::Size));
        check(b"size -1", Err(MarkerError::Size));
        check(b"size +1", Err(MarkerError::Size));
        check(b"size 1 2", Err(MarkerError::Size));
        check(b"size  \n", Ok(Marker::default()));
        check(b"size 1\nsize 1\n", Err(MarkerError::Twice));
        let root = Root256(std::array::from_fn(|at| at as u8));
        check(format!("root {root}\n").as_bytes(), Ok(Marker { root: Some(root), ..Marker::default() }));
        check(format!("root {root}\nroot {root}\n").as_bytes(), Err(MarkerError::Twice));
        check(&format!("root {root}").as_bytes()[..68], Err(MarkerError::Root));
        check(b"root \n", Ok(Marker::default()));
        check(b"committed yesterday\n", Err(MarkerError::Time));
        check(b"committed \xff\n", Err(MarkerError::Time));
    }

    #[test]
    fn what_is_written_reads_back() {
        let root = Root256([0xab; 32]);
        let marker = Marker::now(ByteCount(24_000_000), Some(root));
        let text = marker.to_text();
        assert_eq!(Marker::parse(text.as_bytes()), Ok(marker));
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("size 24000000"));
        assert_eq!(lines.next(), Some(format!("root {root}").as_str()));
        let committed = lines.next().and_then(|line| line.strip_prefix("committed ")).expect("the third line");
        assert_eq!(committed.len(), "2026-01-31T12:00:00Z".len(), "{committed}");
        for (size, root) in [(0, None), (9, Some(root)), (10, None), (24_000_000, Some(root)), (u64::MAX, Some(root))] {
            let length = Marker::now(ByteCount(size), root).to_text().len() as u64;
            let is_length = |length| Marker::is_length(ByteCount(size), length);
            assert!(is_length(length) && !is_length(length - 1) && !is_length(length + 1), "{size} {length}");
        }
    }
}
