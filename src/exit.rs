//! Exit statuses of `supersyncd` and `supersyncctl`.
//!
//! They are a contract: sites script against them (`README.md`, "See what it does"), and unit files name them.

use std::error::Error;
use std::io::{self, ErrorKind};

/// Everything that was asked for was done.
pub const OK: u8 = 0;
/// It was tried and failed; the message says why.
pub const FAILED: u8 = 1;
/// The command line was wrong.
pub const USAGE: u8 = 2;
/// The node works but is not done, or works with less than it was given; or a transfer is to be run again.
pub const INCOMPLETE: u8 = 3;
/// No daemon answered on the control socket, or no host at the other end of a transfer.
pub const UNREACHABLE: u8 = 4;
/// `wait` ended before what it waited for came true.
pub const TIMED_OUT: u8 = 5;
/// Bytes are not what they should be.
pub const MISMATCH: u8 = 6;
/// The system refused permission (`EX_NOPERM` of sysexits.h).
pub const PERMISSION: u8 = 77;
/// The config is wrong (`EX_CONFIG` of sysexits.h); a restart would not help.
pub const CONFIG: u8 = 78;

/// Whether the system refused permission at the bottom of `error`.
pub fn is_permission(error: &(dyn Error + 'static)) -> bool {
    // A service has a read-only file system, but for what is granted to it.
    let is = |error: &io::Error| matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem);
    let mut errors = std::iter::successors(Some(error), |&error| error.source());
    errors.any(|error| error.downcast_ref::<io::Error>().is_some_and(is))
}
