//! Directory trees: one side walks one, the other lands it, with all that a file system keeps of each entry.
//!
//! - [`Walk`] lists what is to be sent, parents before what is in them; [`Found::open`] reads it.
//! - [`Tree`] is a directory that trees land in, [`Landing`] one session's way into it, which describes the calls.
//! - [`Rules`] leave entries out, on both sides.
//!
//! A name never leads out of the directory that it is relative to: its path cannot (see
//! [`TreePath`](crate::units::TreePath)), and no symbolic link is followed but
//! on the way to where a walk begins, which stays below the directory.

mod attributes;
mod directories;
mod error;
mod found;
mod landing;
mod memory;
mod owners;
mod place;
mod remove;
mod rules;
mod shared;
mod walk;
mod xattrs;

#[cfg(test)]
mod tests;

pub use error::{RefusedPath, TreeError};
pub use found::{Found, OpenFile};
pub use landing::{Change, Examined, Landing, LandingOptions};
pub use memory::Memory;
pub use remove::Ended;
pub use rules::Rules;
pub use shared::Tree;
pub use walk::{SkipReason, Skipped, Walk, WalkOptions, WalkSource};
