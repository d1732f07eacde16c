//! What a node has places for, and how many of them one address may have.

use crate::limits;

/// So many of something, and at most half of them for one address: the others are for others.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    max: usize,
    what: &'static str,
}

impl Places {
    /// Links that others have made, those of clients of the named protocol among them.
    pub const LINKS: Self = Self { max: limits::LINKS_MAX, what: "links" };
    /// Connections of sessions that others have.
    pub(super) const SESSION_LINKS: Self = Self { max: limits::SESSION_LINKS_MAX, what: "connections of sessions" };
    /// Those of them that wait for their first message.
    pub(super) const SESSION_CALLERS: Self =
        Self { max: limits::SESSION_CALLERS_MAX, what: "connections that have not said yet what they are for" };
    /// Sessions of others.
    pub(super) const SESSIONS: Self = Self { max: limits::SESSIONS_MAX, what: "sessions" };

    /// Why there is to be no further one, where there are `all`, and of these `from_there` with its address.
    pub fn refusal(self, all: usize, from_there: usize) -> Option<String> {
        let Self { max, what } = self;
        if all >= max {
            Some(format!("{max} {what} are all that this node takes"))
        } else if from_there >= max / 2 {
            Some(format!("{} {what} are all that one address has", max / 2))
        } else {
            None
        }
    }
}
