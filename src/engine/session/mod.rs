//! Trees that are pushed and pulled in sessions (PROTOCOLS, "session"): what a server reaches under which names, and what a
//! client asks for and is told.

mod job;
mod modules;

pub use job::{
    Change, Direction, Report, SessionError, SessionFeed, SessionHandle, SessionJob, SessionOptions, SessionProgress,
    StopSwitch, Summary,
};
pub use modules::{Module, Modules, Refusal};

/// Starts a transfer.
///
/// # Errors
/// Nobody answers at the address, or something of this host stands in the way of all of it.
pub fn start(_job: SessionJob) -> Result<SessionHandle, SessionError> {
    Err(SessionError::NotAvailable)
}
