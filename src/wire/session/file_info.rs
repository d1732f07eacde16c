//! `FILE_INFO`: an entry of a tree, its numbers in fixed places, its path, and attributes behind it.
//!
//! ```text
//! 0         2      4      10      14      18      22
//! +---------+------+------+-------+-------+-------+------+-----+-----------+-----+-----------+
//! | file_id | perm | size | ctime | mtime | atime | path | NUL | key=value | NUL | key=value | ...
//! +---------+------+------+-------+-------+-------+------+-----+-----------+-----+-----------+
//! ```
//!
//! | key | value |
//! |---|---|
//! | `mtime_ns` `atime_ns` `ctime_ns` | 0 to 999999999, added to the seconds |
//! | `mtime` `atime` `ctime` | signed decimal seconds since 1970, where they do not fit the field, which is then the nearest that does |
//! | `target` | what a symbolic link says |
//! | `link` | path of the entry that this one is a hard link to |
//! | `uid` `gid` `user` `group` | who owns it |
//! | `hash` | BLAKE3 of its content, 64 hexadecimal digits |
//! | `sparse` | 1: it has regions that take no room on disk |
//! | `unreadable` | in a dry run: why its content could not be sent |
//! | `x.NAME` | an extended attribute; in NAME and value, NUL, `%` and `=` are written `%XX` |
//!
//! Attributes that say nothing (a time of whole seconds, a file without holes) are left out, unknown ones are passed
//! over, and of two with one key the later one counts. A path or a value has no NUL; a value may hold any other byte.

use std::borrow::Cow;
use std::fmt;

use super::{EncodeError, Expected, Payload, WireError};
use crate::limits;
use crate::units::{ByteCount, FileId, FileTime, Root256, Xattr};
use crate::wire::duplex::{encode_decimal, hex_digit};

const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;
/// In front of the name of an extended attribute.
const XATTR_PREFIX: &[u8] = b"x.";

/// What a sender tells of an entry. Whether it makes sense (a path that stays inside, a kind that is known) is not
/// looked at here; that its parts can be read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo<'a> {
    /// What other messages of the batch call it.
    pub file: FileId,
    /// The low 16 bits of `st_mode`: kind and permissions (inode(7)).
    pub mode: u16,
    /// Its length, at most [`limits::SESSION_FILE_BYTES_MAX`].
    pub size: ByteCount,
    /// When it was last changed, attributes included.
    pub ctime: FileTime,
    /// When its content was last changed.
    pub mtime: FileTime,
    /// When it was last read.
    pub atime: FileTime,
    /// Where it is, relative to the top of the transfer.
    pub path: &'a [u8],
    /// What a symbolic link says.
    pub target: Option<&'a [u8]>,
    /// Path of the entry that it is a hard link to, in this batch or an earlier one.
    pub link: Option<&'a [u8]>,
    /// The number of the user that owns it.
    pub uid: Option<u32>,
    /// The number of its group.
    pub gid: Option<u32>,
    /// The name of the user.
    pub user: Option<&'a str>,
    /// The name of the group.
    pub group: Option<&'a str>,
    /// What its content is.
    pub hash: Option<Root256>,
    /// Whether it has holes.
    pub is_sparse: bool,
    /// In a dry run: why its content could not be sent.
    pub unreadable: Option<&'a str>,
    /// Its extended attributes.
    pub xattrs: Xattrs<'a>,
}

impl<'a> FileInfo<'a> {
    /// One that tells nothing yet.
    pub const fn empty() -> Self {
        Self {
            file: FileId(0),
            mode: 0,
            size: ByteCount(0),
            ctime: FileTime(0),
            mtime: FileTime(0),
            atime: FileTime(0),
            path: &[],
            target: None,
            link: None,
            uid: None,
            gid: None,
            user: None,
            group: None,
            hash: None,
            is_sparse: false,
            unreadable: None,
            xattrs: Xattrs::NONE,
        }
    }

    /// One pass over the attributes; nothing is allocated.
    pub(super) fn parse(mut payload: Payload<'a>) -> Result<Self, WireError> {
        let mut info = Self::empty();
        let whole = payload;
        let mut seconds = info.parse_head(&mut payload).ok_or_else(|| whole.unexpected(Expected::Head))?;
        let mut nanoseconds = [0; TIMES];

        let mut rest = payload.rest();
        let is_nul = |byte: &u8| *byte == 0;
        let path_bytes = rest.iter().position(is_nul).unwrap_or(rest.len());
        (info.path, rest) = rest.split_at(path_bytes);
        payload.at += path_bytes;
        while let Some((_nul, attributes)) = rest.split_first() {
            payload.at += 1;
            let length = attributes.iter().position(is_nul).unwrap_or(attributes.len());
            let (attribute, after) = attributes.split_at(length);
            let key_bytes = attribute.iter().position(|byte| *byte == b'=');
            let key_bytes = key_bytes.ok_or_else(|| payload.unexpected(Expected::Attribute))?;
            let (key, value) = (&attribute[..key_bytes], &attribute[key_bytes + 1..]);
            if key.starts_with(XATTR_PREFIX) {
                if info.xattrs.wire.is_empty() {
                    info.xattrs.wire = attributes;
                }
                check_xattr(payload, key, value)?;
            } else {
                payload.at += key_bytes + 1;
                info.parse_attribute(key, value, &mut seconds, &mut nanoseconds)
                    .map_err(|expected| payload.unexpected(expected))?;
                payload.at -= key_bytes + 1;
            }
            payload.at += length;
            rest = after;
        }

        let time = |which: usize| file_time(seconds[which], nanoseconds[which]);
        let times = (time(MTIME), time(ATIME), time(CTIME));
        let (Some(mtime), Some(atime), Some(ctime)) = times else {
            return Err(payload.unexpected(Expected::Seconds));
        };
        (info.mtime, info.atime, info.ctime) = (mtime, atime, ctime);
        Ok(info)
    }

    /// The seconds are returned: they may be told better by attributes.
    fn parse_head(&mut self, payload: &mut Payload<'_>) -> Option<[i64; TIMES]> {
        self.file = FileId(payload.u16()?);
        self.mode = payload.u16()?;
        self.size = ByteCount(payload.u48()?);
        let (ctime, mtime, atime) = (payload.u32()?, payload.u32()?, payload.u32()?);
        Some([mtime.into(), atime.into(), ctime.into()])
    }

    fn parse_attribute(
        &mut self,
        key: &[u8],
        value: &'a [u8],
        seconds: &mut [i64; TIMES],
        nanoseconds: &mut [u32; TIMES],
    ) -> Result<(), Expected> {
        let owner_name = || std::str::from_utf8(value).map_err(|_| Expected::OwnerName);
        match key {
            b"mtime_ns" => nanoseconds[MTIME] = parse_nanoseconds(value)?,
            b"atime_ns" => nanoseconds[ATIME] = parse_nanoseconds(value)?,
            b"ctime_ns" => nanoseconds[CTIME] = parse_nanoseconds(value)?,
            b"mtime" => seconds[MTIME] = parse_seconds(value)?,
            b"atime" => seconds[ATIME] = parse_seconds(value)?,
            b"ctime" => seconds[CTIME] = parse_seconds(value)?,
            b"target" => self.target = Some(value),
            b"link" => self.link = Some(value),
            b"uid" => self.uid = Some(parse_owner(value)?),
            b"gid" => self.gid = Some(parse_owner(value)?),
            b"user" => self.user = Some(owner_name()?),
            b"group" => self.group = Some(owner_name()?),
            b"hash" => self.hash = Some(Root256::from_hex(value).ok_or(Expected::Hash)?),
            b"sparse" => self.is_sparse = parse_flag(value).ok_or(Expected::Flag)?,
            b"unreadable" => self.unreadable = Some(std::str::from_utf8(value).map_err(|_| Expected::Text)?),
            _ => {}
        }
        Ok(())
    }

    /// Appends the payload.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.size.0 > limits::SESSION_FILE_BYTES_MAX {
            return Err(EncodeError::Size { bytes: self.size.0 });
        }
        check_nul("path", self.path)?;
        let times = [self.mtime, self.atime, self.ctime].map(split_time);
        let field = |which: usize| times[which].0.clamp(0, u32::MAX.into()) as u32;
        out.extend_from_slice(&self.file.0.to_be_bytes());
        out.extend_from_slice(&self.mode.to_be_bytes());
        out.extend_from_slice(&self.size.0.to_be_bytes()[2..]);
        for which in [CTIME, MTIME, ATIME] {
            out.extend_from_slice(&field(which).to_be_bytes());
        }
        out.extend_from_slice(self.path);

        for (which, (key, key_ns)) in TIME_KEYS.into_iter().enumerate() {
            let (seconds, nanoseconds) = times[which];
            if seconds != i64::from(field(which)) {
                put_key(out, key);
                put_signed(out, seconds);
            }
            if nanoseconds != 0 {
                put_key(out, key_ns);
                encode_decimal(out, nanoseconds.into());
            }
        }
        put_bytes(out, "target", self.target)?;
        put_bytes(out, "link", self.link)?;
        for (key, number) in [("uid", self.uid), ("gid", self.gid)] {
            if let Some(number) = number {
                put_key(out, key);
                encode_decimal(out, number.into());
            }
        }
        put_bytes(out, "user", self.user.map(str::as_bytes))?;
        put_bytes(out, "group", self.group.map(str::as_bytes))?;
        if let Some(hash) = self.hash {
            put_key(out, "hash");
            out.extend(hash.0.iter().flat_map(|byte| [lower_hex_digit(byte >> 4), lower_hex_digit(byte & 15)]));
        }
        if self.is_sparse {
            put_key(out, "sparse");
            out.push(b'1');
        }
        put_bytes(out, "unreadable", self.unreadable.map(|text| super::cut(text).as_bytes()))?;
        for (name, value) in self.xattrs.iter() {
            out.push(0);
            out.extend_from_slice(XATTR_PREFIX);
            put_escaped(out, &name);
            out.push(b'=');
            put_escaped(out, &value);
        }
        Ok(())
    }
}

/// Extended attributes: as they lie in a message, or as somebody has them.
#[derive(Clone, Copy, Default)]
pub struct Xattrs<'a> {
    plain: &'a [Xattr],
    /// Attributes of a message, others among them; all that are extended attributes are well escaped.
    wire: &'a [u8],
}

impl<'a> Xattrs<'a> {
    /// No extended attributes.
    pub const NONE: Self = Self { plain: &[], wire: &[] };

    /// These, names and values. A name is 1 to [`limits::XATTR_NAME_BYTES_MAX`] bytes without NUL.
    pub fn new(plain: &'a [Xattr]) -> Self {
        Self { plain, wire: &[] }
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> + use<'a> {
        let wire = self.wire.split(|byte| *byte == 0).filter_map(|attribute| {
            let attribute = attribute.strip_prefix(XATTR_PREFIX)?;
            let equals = attribute.iter().position(|byte| *byte == b'=')?;
            Some((unescape(&attribute[..equals]), unescape(&attribute[equals + 1..])))
        });
        let plain = self.plain.iter().map(|(name, value)| (Cow::Borrowed(&**name), Cow::Borrowed(&**value)));
        plain.chain(wire)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.wire.is_empty()
    }
}

impl PartialEq for Xattrs<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Xattrs<'_> {}

impl fmt::Debug for Xattrs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |bytes: Cow<'_, [u8]>| bytes.escape_ascii().to_string();
        f.debug_map().entries(self.iter().map(|(name, value)| (escaped(name), escaped(value)))).finish()
    }
}

// -- times -----------------------------------------------------------------------------------------------------

/// How many times an entry has, and where each of them stands among them.
const TIMES: usize = 3;
const MTIME: usize = 0;
const ATIME: usize = 1;
const CTIME: usize = 2;
const TIME_KEYS: [(&str, &str); TIMES] = [("mtime", "mtime_ns"), ("atime", "atime_ns"), ("ctime", "ctime_ns")];

fn split_time(time: FileTime) -> (i64, u32) {
    (time.seconds(), time.subsecond_nanoseconds())
}

fn file_time(seconds: i64, nanoseconds: u32) -> Option<FileTime> {
    let whole = i128::from(seconds) * i128::from(NANOSECONDS_PER_SECOND) + i128::from(nanoseconds);
    i64::try_from(whole).ok().map(FileTime)
}

fn parse_nanoseconds(value: &[u8]) -> Result<u32, Expected> {
    let below_a_second = |nanoseconds: &u64| *nanoseconds < NANOSECONDS_PER_SECOND as u64;
    parse_decimal(value).filter(below_a_second).map(|nanoseconds| nanoseconds as u32).ok_or(Expected::Nanoseconds)
}

/// Only what a [`FileTime`] can have.
fn parse_seconds(value: &[u8]) -> Result<i64, Expected> {
    let (is_negative, digits) = value.strip_prefix(b"-").map_or((false, value), |digits| (true, digits));
    let seconds = parse_decimal(digits).and_then(|seconds| i64::try_from(seconds).ok());
    let seconds = seconds.map(|seconds| if is_negative { -seconds } else { seconds });
    let possible = FileTime(i64::MIN).seconds()..=FileTime(i64::MAX).seconds();
    seconds.filter(|seconds| possible.contains(seconds)).ok_or(Expected::Seconds)
}

// -- numbers and bytes -----------------------------------------------------------------------------------------

fn parse_owner(value: &[u8]) -> Result<u32, Expected> {
    parse_decimal(value).and_then(|number| u32::try_from(number).ok()).ok_or(Expected::Owner)
}

/// 0 or 1.
pub(super) fn parse_flag(value: &[u8]) -> Option<bool> {
    match value {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}

/// 1 to [`limits::SIZE_DIGITS_MAX`] decimal digits, nothing else.
pub(super) fn parse_decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > limits::SIZE_DIGITS_MAX {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    encode_decimal(out, number.unsigned_abs());
}

fn put_key(out: &mut Vec<u8>, key: &str) {
    out.push(0);
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
}

fn put_bytes(out: &mut Vec<u8>, key: &'static str, value: Option<&[u8]>) -> Result<(), EncodeError> {
    let Some(value) = value else { return Ok(()) };
    check_nul(key, value)?;
    put_key(out, key);
    out.extend_from_slice(value);
    Ok(())
}

fn check_nul(attribute: &'static str, value: &[u8]) -> Result<(), EncodeError> {
    if value.contains(&0) { Err(EncodeError::Nul { attribute }) } else { Ok(()) }
}

fn lower_hex_digit(nibble: u8) -> u8 {
    hex_digit(nibble).to_ascii_lowercase()
}

// -- escapes ---------------------------------------------------------------------------------------------------

fn put_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if matches!(byte, 0 | b'%' | b'=') {
            out.extend_from_slice(&[b'%', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        } else {
            out.push(byte);
        }
    }
}

/// Checks the extended attribute at the payload's place.
fn check_xattr(payload: Payload<'_>, key: &[u8], value: &[u8]) -> Result<(), WireError> {
    let at = |offset: usize| Payload { at: payload.at + offset, ..payload };
    let name = &key[XATTR_PREFIX.len()..];
    for (start, escaped) in [(XATTR_PREFIX.len(), name), (key.len() + 1, value)] {
        if let Some(offset) = bad_escape(escaped) {
            return Err(at(start + offset).unexpected(Expected::Escape));
        }
    }
    let name = unescape(name);
    if name.is_empty() || name.len() > limits::XATTR_NAME_BYTES_MAX || name.contains(&0) {
        return Err(at(XATTR_PREFIX.len()).unexpected(Expected::XattrName));
    }
    Ok(())
}

/// Where there is a `%` without two hexadecimal digits behind it.
fn bad_escape(escaped: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(next) = escaped[at..].iter().position(|byte| *byte == b'%') {
        at += next;
        if decode_escape(&escaped[at..]).is_none() {
            return Some(at);
        }
        at += 3;
    }
    None
}

/// The byte that the first three of `escaped` stand for.
fn decode_escape(escaped: &[u8]) -> Option<u8> {
    let &[b'%', high, low, ..] = escaped else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

/// Of bytes in which every escape is whole.
fn unescape(escaped: &[u8]) -> Cow<'_, [u8]> {
    if !escaped.contains(&b'%') {
        return Cow::Borrowed(escaped);
    }
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((&first, after)) = rest.split_first() {
        match decode_escape(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(bytes)
}
