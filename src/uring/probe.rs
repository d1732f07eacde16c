//! Tests, once each and for real, of every ring feature that the engine uses, and of some that it may use one day.
//!
//! Set-up flags have no bit that tells of them, and a container may forbid what the kernel can do; so each feature is
//! tried on sockets and a file of its own. The file is in memory, for a hardened service may have nowhere to put one.
//! Nothing is printed: a [`Report`] is data.

use std::fmt;
use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use super::{Ring, RingError};
use crate::limits::RING_ENTRIES;

mod checks;

/// What this machine allows.
#[derive(Clone, Debug)]
pub struct Report {
    /// Release of the running kernel.
    pub kernel: String,
    /// `kernel.io_uring_disabled` (0: allowed, 1: privileged only, 2: nobody), where the kernel has it.
    pub io_uring_disabled: Option<String>,
    /// RLIMIT_MEMLOCK, bytes.
    pub memlock: Limit,
    /// RLIMIT_NOFILE.
    pub open_files: Limit,
    /// In the order in which they are best read: rings, what the engine uses, what it may use.
    pub features: Vec<Feature>,
}

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Feature {
    /// As the manual calls it.
    pub name: &'static str,
    /// The engine's rings cannot do without.
    pub needed: bool,
    /// It works, or why it does not.
    pub result: Result<(), String>,
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What holds.
    pub soft: u64,
    /// What it may be raised to without privilege.
    pub hard: u64,
}

/// Tries what the engine's rings cannot do without: whether they may be made first of all. Takes a few milliseconds.
///
/// # Errors
/// What does not work, and what to do about it.
pub fn try_rings() -> Result<(), RingError> {
    drop(Ring::new(RING_ENTRIES)?);
    for check in checks::ALL.iter().filter(|check| check.needed) {
        (check.run)().map_err(|why| RingError::Unfit { feature: check.name, why })?;
    }
    Ok(())
}

/// Tries everything. Takes some milliseconds; opens and closes a few rings, sockets and files in memory.
pub fn probe() -> Report {
    let features =
        checks::ALL.iter().map(|check| Feature { name: check.name, needed: check.needed, result: (check.run)() });
    Report {
        kernel: first_line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
        io_uring_disabled: io_uring_disabled(),
        memlock: Limit::of(Resource::RLIMIT_MEMLOCK),
        open_files: Limit::of(Resource::RLIMIT_NOFILE),
        features: features.collect(),
    }
}

impl Report {
    /// Whether the engine's rings would work here.
    ///
    /// # Errors
    /// The first needed feature that does not, and why.
    pub fn usable(&self) -> Result<(), String> {
        for feature in self.features.iter().filter(|feature| feature.needed) {
            if let Err(why) = &feature.result {
                return Err(format!("{}: {why}", feature.name));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(()) => write!(f, "{}: ok", self.name),
            Err(why) => write!(f, "{}: {why}", self.name),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
        write!(f, "{} (at most {})", show(self.soft), show(self.hard))
    }
}

impl Limit {
    /// A limit that cannot be read is shown as none: the feature tests tell what it really is.
    fn of(resource: Resource) -> Limit {
        let (soft, hard) = getrlimit(resource).unwrap_or((u64::MAX, u64::MAX));
        Limit { soft, hard }
    }
}

/// Value of the sysctl `kernel.io_uring_disabled`; `None` before Linux 6.6.
pub(super) fn io_uring_disabled() -> Option<String> {
    first_line("/proc/sys/kernel/io_uring_disabled")
}

/// The soft RLIMIT_MEMLOCK, bytes.
pub(super) fn memlock_limit() -> u64 {
    Limit::of(Resource::RLIMIT_MEMLOCK).soft
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(name: &'static str, needed: bool, result: Result<(), String>) -> Feature {
        Feature { name, needed, result }
    }

    #[test]
    fn usable_names_the_first_needed_feature_that_fails() {
        let mut report = probe();
        report.features = vec![feature("A", false, Err("old".to_owned())), feature("B", true, Ok(()))];
        assert_eq!(report.usable(), Ok(()));
        report.features.push(feature("C", true, Err("refused".to_owned())));
        assert_eq!(report.usable(), Err("C: refused".to_owned()));
    }

    #[test]
    fn probe_agrees_with_what_a_ring_says() {
        let report = probe();
        assert!(!report.kernel.is_empty());
        match crate::uring::Ring::new(8) {
            // Rings count against the memory-lock limit of all that the user runs.
            Ok(_) if report.memlock.soft < 8 << 20 => println!("skipped: memlock is {}", report.memlock),
            Ok(_) => assert_eq!(report.usable(), Ok(()), "{report:?}"),
            Err(error) => {
                println!("skipped, no rings here: {error}");
                assert!(report.usable().is_err());
            }
        }
        for feature in &report.features {
            println!("{feature}");
        }
    }
}
