//! Making a ring with as much as the kernel agrees to, and saying why it does not.

use std::io;

use io_uring::IoUring;
use nix::libc;
use thiserror::Error;

use super::probe;

/// How the kernel agreed to set a ring up. Each flag only saves work; none is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// IORING_SETUP_SINGLE_ISSUER.
    pub single_issuer: bool,
    /// IORING_SETUP_DEFER_TASKRUN.
    pub defer_taskrun: bool,
    /// IORING_SETUP_COOP_TASKRUN, tried where the kernel does not defer.
    pub coop_taskrun: bool,
    /// IORING_SETUP_TASKRUN_FLAG.
    pub taskrun_flag: bool,
    /// IORING_SETUP_SUBMIT_ALL.
    pub submit_all: bool,
    /// IORING_SETUP_CQSIZE and IORING_SETUP_CLAMP.
    pub sized: bool,
}

/// Why a ring cannot be made or used, or its twin cannot.
#[derive(Debug, Error)]
pub enum RingError {
    /// EPERM or EACCES from set-up.
    #[error(
        "the kernel forbids io_uring here (kernel.io_uring_disabled = {}): set the sysctl to 0, or allow io_uring_setup, \
         io_uring_enter and io_uring_register in the container's seccomp profile, or use engine = \"blocking\"",
        .sysctl.as_deref().unwrap_or("unknown")
    )]
    Forbidden {
        /// Value of the sysctl, where the kernel has it.
        sysctl: Option<String>,
    },
    /// ENOMEM from set-up.
    #[error(
        "no memory for a ring of {entries} entries: raise the memory-lock limit (LimitMEMLOCK=, ulimit -l, now {limit} bytes) \
         or use engine = \"blocking\""
    )]
    NoMemory {
        /// Entries asked for.
        entries: u32,
        /// The soft RLIMIT_MEMLOCK.
        limit: u64,
    },
    /// ENOSYS from set-up.
    #[error("the kernel has no io_uring (or a seccomp profile hides it): use engine = \"blocking\"")]
    Missing,
    /// The kernel has io_uring but lacks what cannot be done without.
    #[error("the kernel's io_uring lacks {feature}: use Linux {since} or later, or engine = \"blocking\"")]
    TooOld {
        /// What is missing.
        feature: &'static str,
        /// The first kernel that has it.
        since: &'static str,
    },
    /// It works as the kernel says, but not as the engine needs it.
    #[error(
        "io_uring cannot be used here, {feature}: {why}; `supersyncd doctor` tells more, or use engine = \"blocking\""
    )]
    Unfit {
        /// What was tried.
        feature: &'static str,
        /// What came of it.
        why: String,
    },
    /// As many operations are in flight as there may be.
    #[error("{in_flight} operations are in flight, as many as there may be")]
    Full {
        /// How many that is.
        in_flight: usize,
    },
    /// The kernel takes no submission at present.
    #[error("the kernel does not take submissions; {in_flight} operations are in flight")]
    Busy {
        /// Operations in flight.
        in_flight: usize,
    },
    /// Anything else.
    #[error("{call}: {source}")]
    Os {
        /// The system call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl Setup {
    pub(super) const NONE: Setup = Setup {
        single_issuer: false,
        defer_taskrun: false,
        coop_taskrun: false,
        taskrun_flag: false,
        submit_all: false,
        sized: false,
    };

    /// From the newest kernel's flags to none: 6.1, 6.0, 5.19, 5.18, 5.6, before.
    const LADDER: [Setup; 6] = {
        let sized = Setup { sized: true, ..Setup::NONE };
        let submit_all = Setup { submit_all: true, ..sized };
        let coop = Setup { coop_taskrun: true, taskrun_flag: true, ..submit_all };
        let single = Setup { single_issuer: true, ..coop };
        let defer = Setup { defer_taskrun: true, coop_taskrun: false, ..single };
        [defer, single, coop, submit_all, sized, Setup::NONE]
    };

    /// The first of the ladder that the kernel takes.
    pub(super) fn best(entries: u32) -> Result<(IoUring, Setup), RingError> {
        let mut refusal = io::Error::from_raw_os_error(libc::EINVAL);
        for setup in Setup::LADDER {
            match setup.build(entries) {
                Ok(io) => return Ok((io, setup)),
                Err(error) => refusal = error,
            }
            if refusal.raw_os_error() != Some(libc::EINVAL) {
                break;
            }
        }
        Err(RingError::of_setup(refusal, entries))
    }

    /// Makes a ring with exactly these flags.
    pub(super) fn build(self, entries: u32) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.dontfork();
        if self.single_issuer {
            builder.setup_single_issuer();
        }
        if self.defer_taskrun {
            builder.setup_defer_taskrun();
        }
        if self.coop_taskrun {
            builder.setup_coop_taskrun();
        }
        if self.taskrun_flag {
            builder.setup_taskrun_flag();
        }
        if self.submit_all {
            builder.setup_submit_all();
        }
        if self.sized {
            // Room for the completion of every operation and of a cancel for each.
            builder.setup_clamp().setup_cqsize(entries.saturating_mul(2));
        }
        builder.build(entries)
    }
}

impl RingError {
    pub(super) fn of_setup(error: io::Error, entries: u32) -> RingError {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => RingError::Forbidden { sysctl: probe::io_uring_disabled() },
            Some(libc::ENOMEM) => RingError::NoMemory { entries, limit: probe::memlock_limit() },
            Some(libc::ENOSYS) => RingError::Missing,
            _ => RingError::Os { call: "io_uring_setup", source: error },
        }
    }
}
