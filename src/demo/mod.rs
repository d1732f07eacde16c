//! Two traders and the exchanges between them in one process: what the `demo` command shows.
//!
//! Drives the same nodes that the service runs, with the config that a site would write, over real sockets, on stores
//! that it makes itself: makes the stores, starts the site, kills one exchange half way and brings it back, waits
//! until both traders have everything, ends the site, and compares what both have byte for byte. Nothing is a success
//! but two sides that are identical. Only the command line knows this module.

mod interrupt;
mod options;
mod plan;
mod progress;
pub mod records;
mod shape;
mod site;
mod store;
mod tour;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::ConfigError;
use crate::exit;
use crate::node::NodeError;

pub use options::Options;

/// Why the demo did not come to its end, or what it found there.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// So many segments of so many records have more bytes than can be counted.
    #[error("{segments} segments of {records} records are more than any disk holds; choose fewer of either")]
    TooMuch {
        /// How many segments.
        segments: u32,
        /// Of how many records.
        records: u64,
    },
    /// The file system has no room.
    #[error(
        "{} has {free} free, and the demo needs {needed}: both stores on both sides, and the spools; \
         choose another directory with --dir, or less with --size",
        dir.display()
    )]
    Space {
        /// The directory.
        dir: PathBuf,
        /// What it needs, for people.
        needed: String,
        /// What there is, for people.
        free: String,
    },
    /// A path cannot stand in a config.
    #[error("{} is not text, and configs are; choose another directory with --dir", .0.display())]
    Path(PathBuf),
    /// The system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no thread or no socket.
    #[error("cannot {what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A config that the demo wrote was refused.
    #[error("the demo's own config was refused; is the path of its directory very long? --dir\n{0}")]
    Config(#[from] ConfigError),
    /// A node did not start.
    #[error("{node} does not start: {source}")]
    Node {
        /// Its name.
        node: String,
        /// Why.
        source: NodeError,
    },
    /// Nothing arrived for too long.
    #[error("nothing arrived for {} s, {left} are missing{}", waited.as_secs(), listed(problems))]
    Stalled {
        /// For how long.
        waited: Duration,
        /// What is missing, for people.
        left: String,
        /// What the nodes say.
        problems: Vec<String>,
    },
    /// Both sides are not the same.
    #[error("the sides DIFFER: {what}")]
    Different {
        /// What was found first.
        what: String,
    },
    /// Somebody pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl DemoError {
    /// Exit status of a program that ends with this error.
    pub fn exit_status(&self) -> u8 {
        if matches!(self, Self::Different { .. }) { exit::MISMATCH } else { exit::FAILED }
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

fn listed(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n      {problem}")).collect()
}

/// Shows it all: progress on standard error, what was done on standard output.
pub fn run(options: &Options) -> Result<(), DemoError> {
    tour::run(options)
}

/// `bytes` as people say them, in decimal units, as links and disks are sold.
fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().si().to_string()
}

fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", size(bytes_per_second.round() as u64))
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
