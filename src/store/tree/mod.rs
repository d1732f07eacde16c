//! Directory trees: one side walks one, the other lands it, with all that a file system keeps of each entry.
//!
//! - [`Walk`] lists what is to be sent, parents before what is in them; [`Found::open`] reads it.
//! - [`Rules`] leave entries out, on both sides.
//!
//! A name never leads out of the directory that it is relative to: its path cannot (see
//! [`TreePath`](crate::units::TreePath)), and no symbolic link is followed.

mod error;
mod found;
mod owners;
mod rules;
mod walk;
mod xattrs;

#[cfg(test)]
mod tests;

pub use error::{RefusedPath, TreeError};
pub use found::{Found, OpenFile};
pub use rules::Rules;
pub use walk::{SkipReason, Skipped, Walk, WalkOptions, WalkSource};
