//! What is wanted, where it comes from, what has arrived. Knows no packets, no files, no clock.
//!
//! A node has [`Flows`]. One [`Flow`] is a set of objects that come in over some links (its fetchers) and go
//! out over others (its servers):
//!
//! - a trader has one that is fetched into `remote/` and one that is offered from `local/`;
//! - an exchange has one a direction, fetched from one trader on demand of the other, through a spool.
//!
//! A session has no flows: what it wants is one [`batch`] of files after another.
//!
//! An object is fetched whole by one link at a time, or by ranges over all links that carry them
//! ([`Flow::next_range`]), in one [`Generation`](crate::units::Generation). What a generation has written so far may be
//! served while the rest is arriving; when a generation ends before it is whole, its bytes are never mixed with those
//! of the next.
//!
//! Driven like this: a link or the rim calls one `handle_*` or a plain verb, then everything that
//! [`Flow::poll_action`], [`Flow::poll_event`] and [`Flow::poll_wake`] return is drained. Time and seeds are
//! arguments; iterated maps are ordered; the same calls give the same results.

mod action;
mod arrivals;
pub mod batch;
mod blocks;
mod carrier;
mod demands;
mod flow;
mod gather;
mod interest;
mod known;
mod lag;
mod ledger;
mod mirror;
mod names;
mod object;
mod orders;
pub mod pace;
mod progress;
mod ranges;
mod room;
mod schedule;
mod serve;
mod stored;
mod versions;
mod whole;

pub use action::{Action, Event, Fault, Problem, Refusal};
pub use blocks::RangeRequest;
pub use carrier::Health;
pub use flow::{Flow, Kind};
pub use ledger::{Content, Entry, News};
pub use object::{Availability, ObjectState, Told};
pub use progress::Totals;
pub use ranges::RangeState;

/// All flows of a node. Links name the flow that they fetch into and the flow that they serve from by [`FlowId`].
#[derive(Debug)]
pub struct Flows(Vec<Flow>);

/// A flow's place in its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u8);

impl Flows {
    /// The flows of a node, in the order of their ids.
    pub fn new(flows: Vec<Flow>) -> Self {
        Self(flows)
    }

    /// One flow.
    pub fn at(&mut self, id: FlowId) -> &mut Flow {
        &mut self.0[usize::from(id.0)]
    }

    /// The flow that a link fetches into and the one that it serves from, which differ.
    pub fn pair(&mut self, fetch: FlowId, serve: FlowId) -> (&mut Flow, &mut Flow) {
        let [fetch, serve] = self
            .0
            .get_disjoint_mut([usize::from(fetch.0), usize::from(serve.0)])
            .expect("a link fetches into one flow of its node and serves from another");
        (fetch, serve)
    }

    /// All flows with their ids.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (FlowId, &mut Flow)> {
        self.0.iter_mut().enumerate().map(|(i, flow)| (FlowId(i as u8), flow))
    }

    /// All flows.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.0.iter()
    }
}

#[cfg(test)]
mod block_tests;
#[cfg(test)]
mod books;
#[cfg(test)]
mod interest_tests;
#[cfg(test)]
mod mirror_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod waiting_tests;
