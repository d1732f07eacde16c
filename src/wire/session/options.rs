//! Options of a command: what both ends must agree on before the first file.
//!
//! NUL-separated `key=value`; a key that is not known is passed over, so that newer clients may say more.
//!
//! | key | value | without it |
//! |---|---|---|
//! | `version` | of the protocol, from 1 on | 1 |
//! | `block` | bytes of a block, 512 to 65,529 | 61,440 |
//! | `delete` | 1: what the sender does not have is removed | 0 |
//! | `checksum` | 1: content decides what is equal, not size and mtime | 0 |
//! | `dry_run` | 1: nothing is changed | 0 |
//! | `xattrs` | 1: extended attributes too | 0 |
//! | `numeric_ids` | 1: owners go by number | 0 |
//! | `resume` | 0: what an interrupted transfer left is not used | 1 |
//! | `bwlimit` | bytes a second, at least 1 | no limit |
//! | `fsync` | 1: everything is on disk before it is verified | 0 |
//! | `left_out` | 1: a receiver is told, by `LEFT_OUT`, what its sender leaves out | 0 |
//! | `rule` | a line of a gitignore; repeated, in order | |

use super::file_info::{parse_decimal, parse_flag};
use crate::limits;
use crate::units::ByteCount;
use crate::wire::Excerpt;
use crate::wire::duplex::encode_decimal;

/// How a tree is transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Of the protocol that the client speaks; [`Options::VERSION`] is ours.
    pub version: u16,
    /// Bytes of a block, [`limits::SESSION_BLOCK_BYTES_MIN`] to [`limits::SESSION_DATA_BYTES_MAX`].
    pub block: u32,
    /// Remove what the sender does not have.
    pub delete: bool,
    /// Compare contents, not size and mtime.
    pub checksum: bool,
    /// Change nothing.
    pub dry_run: bool,
    /// Extended attributes too.
    pub xattrs: bool,
    /// Owners by number, not by name.
    pub numeric_ids: bool,
    /// Go on where an interrupted transfer stopped.
    pub resume: bool,
    /// As many bytes a second at most, at least 1.
    pub bwlimit: Option<ByteCount>,
    /// Have everything on disk before it is verified.
    pub fsync: bool,
    /// The sender tells of each entry that it leaves out, but for the rules.
    pub left_out: bool,
    /// What is left out, and what is not: lines of a gitignore, in order, without NUL. At most
    /// [`limits::SESSION_RULES_MAX`].
    pub rules: Vec<Box<[u8]>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: Self::VERSION,
            block: limits::SESSION_BLOCK_BYTES_DEFAULT,
            delete: false,
            checksum: false,
            dry_run: false,
            xattrs: false,
            numeric_ids: false,
            resume: true,
            bwlimit: None,
            fsync: false,
            left_out: false,
            rules: Vec::new(),
        }
    }
}

/// What is wrong with options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Not an option.
    #[error("expected an option, key=value, found {found}")]
    NoValue {
        /// What is there.
        found: Excerpt,
    },
    /// An option that cannot have this value.
    #[error("option {key}: expected {expected}, found {found}")]
    Value {
        /// Which.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: Excerpt,
    },
    /// Too many rules.
    #[error("more than {max} rules", max = limits::SESSION_RULES_MAX)]
    Rules,
    /// Too many bytes, most of them of rules.
    #[error("{bytes} bytes of options, more than the {max} that fit", max = limits::SESSION_OPTIONS_BYTES_MAX)]
    TooLong {
        /// How many.
        bytes: usize,
    },
}

const VERSION: &str = "version";
const BLOCK: &str = "block";
const DELETE: &str = "delete";
const CHECKSUM: &str = "checksum";
const DRY_RUN: &str = "dry_run";
const XATTRS: &str = "xattrs";
const NUMERIC_IDS: &str = "numeric_ids";
const RESUME: &str = "resume";
const BWLIMIT: &str = "bwlimit";
const FSYNC: &str = "fsync";
const LEFT_OUT: &str = "left_out";
const RULE: &str = "rule";

impl Options {
    /// What this code speaks.
    pub const VERSION: u16 = 1;

    /// The options of a [`Command`](super::Command). Of two with one key the later one counts, but for rules.
    pub fn parse(bytes: &[u8]) -> Result<Self, OptionsError> {
        if bytes.len() > limits::SESSION_OPTIONS_BYTES_MAX {
            return Err(OptionsError::TooLong { bytes: bytes.len() });
        }
        let mut options = Self::default();
        for option in bytes.split(|byte| *byte == 0).filter(|option| !option.is_empty()) {
            let equals = option.iter().position(|byte| *byte == b'=');
            let equals = equals.ok_or_else(|| OptionsError::NoValue { found: Excerpt::of(option, 0) })?;
            options.set(&option[..equals], &option[equals + 1..])?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), OptionsError> {
        match std::str::from_utf8(key).unwrap_or_default() {
            VERSION => {
                let version = parse_decimal(value).and_then(|version| u16::try_from(version).ok());
                self.version = version.filter(|version| *version > 0).ok_or_else(|| wrong(VERSION, value))?;
            }
            BLOCK => {
                let block = parse_decimal(value).and_then(|block| u32::try_from(block).ok());
                self.block = block.filter(|block| is_block(*block)).ok_or_else(|| wrong(BLOCK, value))?;
            }
            DELETE => self.delete = flag(DELETE, value)?,
            CHECKSUM => self.checksum = flag(CHECKSUM, value)?,
            DRY_RUN => self.dry_run = flag(DRY_RUN, value)?,
            XATTRS => self.xattrs = flag(XATTRS, value)?,
            NUMERIC_IDS => self.numeric_ids = flag(NUMERIC_IDS, value)?,
            RESUME => self.resume = flag(RESUME, value)?,
            BWLIMIT => {
                let bytes = parse_decimal(value).filter(|bytes| *bytes > 0);
                self.bwlimit = Some(ByteCount(bytes.ok_or_else(|| wrong(BWLIMIT, value))?));
            }
            FSYNC => self.fsync = flag(FSYNC, value)?,
            LEFT_OUT => self.left_out = flag(LEFT_OUT, value)?,
            RULE => {
                if self.rules.len() == limits::SESSION_RULES_MAX {
                    return Err(OptionsError::Rules);
                }
                self.rules.push(value.into());
            }
            _ => {}
        }
        Ok(())
    }

    /// The bytes for a [`Command`](super::Command). What is as it is without being told is not told, but for version
    /// and block.
    pub fn encode(&self) -> Result<Vec<u8>, OptionsError> {
        let mut out = Vec::new();
        put_number(&mut out, VERSION, self.version.into());
        if self.version == 0 {
            return Err(wrong(VERSION, b"0"));
        }
        put_number(&mut out, BLOCK, self.block.into());
        if !is_block(self.block) {
            return Err(wrong(BLOCK, self.block.to_string().as_bytes()));
        }
        let flags = [
            (DELETE, self.delete),
            (CHECKSUM, self.checksum),
            (DRY_RUN, self.dry_run),
            (XATTRS, self.xattrs),
            (NUMERIC_IDS, self.numeric_ids),
            (FSYNC, self.fsync),
            (LEFT_OUT, self.left_out),
        ];
        for (key, _) in flags.into_iter().filter(|(_, is_set)| *is_set) {
            put_number(&mut out, key, 1);
        }
        if !self.resume {
            put_number(&mut out, RESUME, 0);
        }
        if let Some(limit) = self.bwlimit {
            if limit.0 == 0 {
                return Err(wrong(BWLIMIT, b"0"));
            }
            put_number(&mut out, BWLIMIT, limit.0);
        }
        if self.rules.len() > limits::SESSION_RULES_MAX {
            return Err(OptionsError::Rules);
        }
        for rule in &self.rules {
            if rule.contains(&0) {
                return Err(wrong(RULE, rule));
            }
            put_key(&mut out, RULE);
            out.extend_from_slice(rule);
        }
        if out.len() > limits::SESSION_OPTIONS_BYTES_MAX {
            return Err(OptionsError::TooLong { bytes: out.len() });
        }
        Ok(out)
    }
}

fn is_block(bytes: u32) -> bool {
    (limits::SESSION_BLOCK_BYTES_MIN..=limits::SESSION_DATA_BYTES_MAX as u32).contains(&bytes)
}

fn flag(key: &'static str, value: &[u8]) -> Result<bool, OptionsError> {
    parse_flag(value).ok_or_else(|| wrong(key, value))
}

fn wrong(key: &'static str, value: &[u8]) -> OptionsError {
    let expected = match key {
        VERSION => "a version of 1 to 65535",
        BLOCK => "512 to 65529 bytes",
        BWLIMIT => "bytes a second, at least 1",
        RULE => "a line without NUL",
        _ => "0 or 1",
    };
    OptionsError::Value { key, expected, found: Excerpt::of(value, 0) }
}

fn put_number(out: &mut Vec<u8>, key: &str, number: u64) {
    put_key(out, key);
    encode_decimal(out, number);
}

fn put_key(out: &mut Vec<u8>, key: &str) {
    if !out.is_empty() {
        out.push(0);
    }
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
}

const _: () = assert!(limits::SESSION_BLOCK_BYTES_MIN == 512 && limits::SESSION_DATA_BYTES_MAX == 65_529);
