//! What a node tells about itself: the model behind the control socket and `supersyncctl --json`.
//!
//! This is a contract with sites that script against it. It changes by addition only: a new field may
//! appear in any object, and a reader ignores what it does not know; no field changes its meaning, its unit
//! or its type, and none goes away, unless the number in `schema` changes. Bytes are unsigned integers,
//! rates are bytes per second, times are seconds. A field written `?` is `null` where nothing is known.
//!
//! # `supersync.status/1` - `GET /v1/status`, `GET /v1/wait`, `supersyncctl status|wait --json`
//!
//! ```text
//! { "schema": "supersync.status/1",
//!   "node": string                     the name in the config
//!   "role": "trader" | "exchange",
//!   "state": "SYNCED"                  trader: it knows all it wants, and has it marked; exchange: nothing is in demand
//!          | "SYNCING"                 something is missing, or not known yet, and at least one link is up
//!          | "WAITING"                 the same, and no link is up
//!          | "DRAINING",               asked to stop, finishing what is in flight
//!   "uptime_seconds": integer, "version": string, "engine": "io_uring" | "blocking",
//!   "config": { "ok": bool             the newest file on disk is the one in force, as far as is known
//!               "message": string? },  why it is not
//!   "want":    { "objects": integer, "bytes": integer },    what this node should have in the end, as far as it knows
//!   "want_known": bool                 that is all: store.segments lists it, or a peer has told all there is
//!   "have":    { "objects": integer, "bytes": integer },    of these, what is whole and marked
//!   "serving": { "objects": integer, "bytes": integer },    what it offers to others
//!   "failed": integer                  objects given up until something changes; see /v1/objects
//!   "rate_in": number, "rate_out": number,                  payload, now
//!   "capacity_in": number?,            what its links that bring something in are measured to carry, in all
//!   "eta_seconds": number?,            to the last wanted byte at that rate; null: nothing moves, or all is here
//!   "peers": [ peer, .. ],
//!   "clients": [ client, .. ],         who pushes, pulls or fetches from this node now
//!   "spool": { "bytes": integer, "max_bytes": integer, "objects": integer }?,     exchanges
//!   "bytes_received": integer, "bytes_sent": integer,       on the wire, since start
//!   "payload_received": integer, "payload_sent": integer,   of these, bytes of objects
//!   "payload_discarded": integer,      arrived twice, or thrown away
//!   "problems": [ string, .. ] }       what an operator should look at, each with what to do; that of config among them
//!
//! peer: { "name": string,
//!   "links_up": integer, "links_total": integer?,           configured; null when the peer dials this node
//!   "state": "streaming" | "idle" | "degraded" | "down"     degraded: some links up, some not
//!          | "paused",                 by an operator; its links are closed until it is resumed
//!   "rate_in": number, "rate_out": number, "reconnects": integer, "note": string?,
//!   "verified": integer, "stolen": integer, "duplicated": integer, "bad": integer,
//!                                      of all its links since the start, those too that are gone
//!   "links": [ link, .. ] }
//!
//! link: { "id": integer                of the connection, unique for the life of the daemon; 0: there is none
//!   "number": integer                  of the link, from 1: which of its peer's it is
//!   "address": string                  the other end
//!   "state": "up" | "connecting" | "down", "since_seconds": integer,              in this state
//!   "rate_in": number, "rate_out": number, "bytes_in": integer, "bytes_out": integer,
//!   "padding_in": integer, "padding_out": integer,          of these bytes, padding
//!   "reconnects": integer, "retransmits": integer,          TCP segments sent again
//!   "congestion": string?,             TCP congestion control in use
//!   "object": string?,                 being fetched over it
//!   "note": string?,
//!   "share": number?,                  of what the node brings in now, 0 to 1; null: nothing comes in
//!   "capacity_in": number?,            what it is measured to bring in when it has work
//!   "orders": integer, "on_order": integer,                 ranges asked for and not had, and the bytes of them
//!   "verified": integer,               bytes that came over it first, checked and right
//!   "stolen": integer,                 of these, bytes that another link had on order before
//!   "duplicated": integer,             bytes that were here already or no longer wanted
//!   "bad": integer,                    times that what came over it was damaged
//!   "aside_seconds": integer?,         put aside for the damage it did, and tried again after this
//!   "rtt_ms": number?, "unsent": integer,                   as TCP tells: round trip, bytes that wait to be sent
//!   "held_by": "nothing"               it has nothing to do
//!            | "network"               it carries what the network lets it
//!            | "peer"                  the other end does not answer, or does not read
//!            | "disk"                  this node's disk is behind, or takes nothing
//!            | "relay"                 an exchange has not yet what is asked for, or has no room for it
//!            | "damage"                it is put aside
//!            | "down"                  there is no connection
//!            | "paused",               its peer is paused
//!   "why": string }                    the same in words
//!
//! client: { "protocol": "named" | "session", "address": string,
//!   "doing": string                    "push" or "pull" and the path; "fetch" and what is asked for
//!   "connections": integer, "since_seconds": integer, "rate_in": number, "rate_out": number,
//!   "payload_in": integer, "payload_out": integer }         bytes of files since it came
//! ```
//!
//! Bytes and padding, `verified`, `stolen`, `duplicated` and `bad` are of all connections that a link has had since the
//! start, `retransmits` of the one that it has now. Where the peer dials this node, one link is what comes from one
//! address.
//!
//! # `supersync.why-slow/1` - `GET /v1/why-slow`, `supersyncctl why-slow --json`
//!
//! ```text
//! { "schema": "supersync.why-slow/1", "node": string, "state": as in supersync.status/1,
//!   "links": [ { "peer": string, "id": integer, "number": integer, "address": string, "state": as in a link,
//!                "rate_in": number, "rate_out": number, "held_by": as in a link, "why": string }, .. ] }
//! ```
//!
//! # `supersync.links/1` - `GET /v1/links`, `supersyncctl links --json`
//!
//! ```text
//! { "schema": "supersync.links/1", "node": string, "peers": [ peer, .. ], "clients": [ client, .. ] }
//! ```
//!
//! # `supersync.objects/1` - `GET /v1/objects?filter=all|missing|failed&limit=`, `supersyncctl objects --json`
//!
//! ```text
//! { "schema": "supersync.objects/1", "objects": [ object, .. ],
//!   "truncated": bool }                there are more than the limit asked for
//!
//! object: { "name": string, "size": integer?,
//!   "state": "missing"                 wanted, nobody asked for it yet
//!          | "waiting"                 asked for, the peer does not have it yet
//!          | "arriving" | "done" | "failed",
//!   "from": string?,                   the peer that an exchange has it from, each way by itself; null on a trader
//!   "have_bytes": integer, "note": string? }
//! ```
//!
//! # `supersync.inventory/1` - `GET /v1/inventory?offset=&limit=`
//!
//! ```text
//! { "schema": "supersync.inventory/1",
//!   "remote": string                   where the trader fetches into
//!   "whole": bool                      the far trader has told all that it has
//!   "objects": [ { "name": string, "size": integer, "root": string }, .. ],       BLAKE3, hexadecimal
//!   "truncated": bool }                there are more than the limit asked for
//! ```
//!
//! # `supersync.verify/1` - `supersyncctl verify --json`
//!
//! ```text
//! { "schema": "supersync.verify/1", "directory": string,
//!   "objects": integer, "bytes": integer,                   as they were committed
//!   "without_root": integer            not read, and so not verified, as their markers tell a size at most, which is right
//!   "told_whole": bool?                with --deep: the far trader has told all that it has, and all was compared
//!   "seconds": number,
//!   "counts": { kind: integer, .. },   findings of each kind
//!   "findings": [ finding, .. ] }      no more than 100,000
//!
//! finding: { "name": string,
//!   "kind": "damaged"                  not what its marker says
//!         | "unreadable" | "unmarked"  no marker, or one that contradicts itself
//!         | "missing" | "outdated" | "extra",               against the far trader's inventory
//!   "expected": string?, "found": string?, "advice": string,
//!   "repaired": bool }                 its marker is removed
//! ```
//!
//! # `supersync.reload/1` - `POST /v1/reload`, `supersyncctl reload --json`
//!
//! ```text
//! { "schema": "supersync.reload/1", "applied": [ string, .. ], "needs_restart": [ string, .. ] }
//! ```
//!
//! # `supersync.pause/1` - `POST /v1/pause?peer=`, `POST /v1/resume?peer=`, `supersyncctl pause|resume --json`
//!
//! ```text
//! { "schema": "supersync.pause/1", "node": string, "peer": string,
//!   "paused": bool,                    as it is now
//!   "changed": bool }                  it was the other way before
//! ```
//!
//! # `supersync.drain/1` - `POST /v1/drain`, `supersyncctl drain --json`
//!
//! ```text
//! { "schema": "supersync.drain/1", "node": string,
//!   "stopped": bool }                  false in the daemon's answer: it begins to; true once its process is gone
//! ```
//!
//! # Errors - any status but 200
//!
//! ```text
//! { "error": string, "hint": string? }
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// A whole node at one instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`Status::SCHEMA`].
    pub schema: String,
    /// The node's name in its config.
    pub node: String,
    /// Trader or exchange.
    pub role: Role,
    /// Where the node as a whole stands.
    pub state: State,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// The daemon's version.
    pub version: String,
    /// What drives the links: `io_uring` or `blocking`.
    pub engine: String,
    /// Whether the config file on disk is the one in force.
    pub config: ConfigState,
    /// What this node should have in the end, as far as it knows.
    pub want: Totals,
    /// That is all: `store.segments` lists it, or a peer has told all there is.
    #[serde(default = "assumed")]
    pub want_known: bool,
    /// What of this is whole and marked.
    pub have: Totals,
    /// What it offers to others.
    pub serving: Totals,
    /// Objects given up until something changes.
    pub failed: u64,
    /// Payload coming in, bytes per second.
    pub rate_in: f64,
    /// Payload going out, bytes per second.
    pub rate_out: f64,
    /// What its links that bring something in are measured to carry in all, bytes per second.
    #[serde(default)]
    pub capacity_in: Option<f64>,
    /// Seconds to the last wanted byte at that rate; `None` where nothing moves, or nothing is left.
    pub eta_seconds: Option<f64>,
    /// Everyone this node talks to, or is configured to.
    pub peers: Vec<PeerStatus>,
    /// Who pushes, pulls or fetches from this node now.
    #[serde(default)]
    pub clients: Vec<ClientStatus>,
    /// What an exchange holds on its way; `None` for a trader.
    pub spool: Option<SpoolStatus>,
    /// Bytes that came in over all links since start.
    pub bytes_received: u64,
    /// Bytes that went out over all links since start.
    pub bytes_sent: u64,
    /// Bytes of objects among the received.
    pub payload_received: u64,
    /// Bytes of objects among the sent.
    pub payload_sent: u64,
    /// Bytes of objects that arrived twice or were thrown away.
    pub payload_discarded: u64,
    /// What an operator should look at, each with what to do; that of `config` among them.
    pub problems: Vec<String>,
}

/// Of a daemon that does not say.
fn assumed() -> bool {
    true
}

impl Status {
    /// The schema that [`Status`] is written in.
    pub const SCHEMA: &'static str = "supersync.status/1";

    /// Nothing is missing, and it is known what there is.
    pub fn is_synced(&self) -> bool {
        self.state == State::Synced
    }

    /// Nothing is missing, every link is up but for those of paused peers, and there is nothing to look at: what
    /// `supersyncctl status` exits with 0 for.
    pub fn is_complete(&self) -> bool {
        let is_calm = self.config.ok && self.problems.is_empty();
        self.is_synced() && is_calm && self.peers.iter().all(PeerStatus::has_all_links)
    }
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Has a store, wants what the other trader has.
    Trader,
    /// Relays between traders.
    Exchange,
}

/// Where a node as a whole stands. Links that are missing show at their peer, not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Trader: it knows all it wants, and has it marked. Exchange: nothing is in demand.
    Synced,
    /// Something is missing, or not known yet, and at least one link is up.
    Syncing,
    /// The same, and no link is up.
    Waiting,
    /// Asked to stop, finishing what is in flight.
    Draining,
}

/// Whether the config file on disk is the one in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigState {
    /// The last load or reload succeeded.
    pub ok: bool,
    /// Why it did not.
    pub message: Option<String>,
}

/// A number of objects and the bytes in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// How many.
    pub objects: u64,
    /// Their sizes added up; objects of unknown size count as 0.
    pub bytes: u64,
}

/// What an exchange holds on its way to a trader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Bytes held.
    pub bytes: u64,
    /// Most bytes it may hold.
    pub max_bytes: u64,
    /// Objects held, whole or in part.
    pub objects: u64,
}

/// One peer and the links to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name in the config, or what it said in its hello.
    pub name: String,
    /// Links that carry packets now.
    pub links_up: u32,
    /// Links configured; `None` when the peer dials this node.
    pub links_total: Option<u32>,
    /// The peer as a whole.
    pub state: PeerState,
    /// Payload from it, bytes per second.
    pub rate_in: f64,
    /// Payload to it, bytes per second.
    pub rate_out: f64,
    /// Times any of its links came back.
    pub reconnects: u64,
    /// What a person should know, in a few words.
    pub note: Option<String>,
    /// Bytes that came over its links first, checked and right.
    #[serde(default)]
    pub verified: u64,
    /// Of these, bytes that another link had on order before.
    #[serde(default)]
    pub stolen: u64,
    /// Bytes that were here already or no longer wanted.
    #[serde(default)]
    pub duplicated: u64,
    /// Times that what came in was damaged.
    #[serde(default)]
    pub bad: u64,
    /// Its links, by their numbers.
    pub links: Vec<LinkStatus>,
}

impl PeerStatus {
    /// Every link that the config asks for is up, or that there was if the peer dials this node; always so for one that
    /// is paused: its links are down because somebody wants them to be.
    pub fn has_all_links(&self) -> bool {
        match (self.state, self.links_total) {
            (PeerState::Paused, _) => true,
            (_, Some(total)) => self.links_up >= total,
            (state, None) => !matches!(state, PeerState::Down | PeerState::Degraded),
        }
    }

    /// TCP segments sent again, over all its links.
    pub fn retransmits(&self) -> u64 {
        self.links.iter().map(|link| link.retransmits).fold(0, u64::saturating_add)
    }
}

/// A peer as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Bytes of objects flow.
    Streaming,
    /// Links are up and have nothing to carry.
    Idle,
    /// Some configured links are up, some are not.
    Degraded,
    /// No link is up.
    Down,
    /// An operator has paused it: nothing is begun with it until it is resumed.
    Paused,
}

/// One connection, or the place of one that is being tried again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Of the connection, unique for the life of the daemon; 0: there is none.
    pub id: u64,
    /// Which of its peer's links it is, from 1; connections come and go, it stays.
    #[serde(default)]
    pub number: u32,
    /// The other end.
    pub address: String,
    /// Whether it carries packets.
    pub state: LinkState,
    /// Seconds in this state.
    pub since_seconds: u64,
    /// Payload coming in, bytes per second.
    pub rate_in: f64,
    /// Payload going out, bytes per second.
    pub rate_out: f64,
    /// Bytes received over all of its connections, padding and headers included.
    pub bytes_in: u64,
    /// Bytes sent over all of its connections, padding and headers included.
    pub bytes_out: u64,
    /// Padding among the received.
    pub padding_in: u64,
    /// Padding among the sent.
    pub padding_out: u64,
    /// Times it came back.
    pub reconnects: u64,
    /// TCP segments sent again over the connection that it has now.
    pub retransmits: u64,
    /// TCP congestion control in use.
    pub congestion: Option<String>,
    /// Name of the object being fetched over it.
    pub object: Option<String>,
    /// What a person should know, in a few words.
    pub note: Option<String>,
    /// Its part of what the node brings in now.
    #[serde(default)]
    pub share: Option<f64>,
    /// What it is measured to bring in when it has work, bytes per second.
    #[serde(default)]
    pub capacity_in: Option<f64>,
    /// Ranges that were asked for over it and have not come; objects where it carries no ranges.
    #[serde(default)]
    pub orders: u64,
    /// Bytes of these ranges that have not come.
    #[serde(default)]
    pub on_order: u64,
    /// Bytes that came over it first, checked and right.
    #[serde(default)]
    pub verified: u64,
    /// Of these, bytes that another link had on order before.
    #[serde(default)]
    pub stolen: u64,
    /// Bytes that were here already or no longer wanted.
    #[serde(default)]
    pub duplicated: u64,
    /// Times that what came over it was damaged.
    #[serde(default)]
    pub bad: u64,
    /// Put aside for the damage it did, and tried again after this.
    #[serde(default)]
    pub aside_seconds: Option<u64>,
    /// TCP's round trip, milliseconds.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// Bytes that TCP has taken and not sent.
    #[serde(default)]
    pub unsent: u64,
    /// What holds it back.
    #[serde(default)]
    pub held_by: HeldBy,
    /// The same in words.
    #[serde(default)]
    pub why: String,
}

/// Somebody who pushes, pulls or fetches from this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// What it speaks: `named` or `session`.
    pub protocol: String,
    /// Its address; that of its first connection.
    pub address: String,
    /// What for, as far as it has said so.
    pub doing: String,
    /// Its connections.
    pub connections: u64,
    /// Seconds since it came.
    pub since_seconds: u64,
    /// Bytes of files from it, per second.
    pub rate_in: f64,
    /// Bytes of files to it, per second.
    pub rate_out: f64,
    /// Bytes of files from it.
    pub payload_in: u64,
    /// Bytes of files to it.
    pub payload_out: u64,
}

/// What holds a link back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldBy {
    /// It has nothing to do.
    #[default]
    Nothing,
    /// It carries what the network lets it.
    Network,
    /// The other end does not answer, or does not read.
    Peer,
    /// This node's disk is behind, or takes nothing.
    Disk,
    /// An exchange has not yet what is asked for, or has no room for it.
    Relay,
    /// It is put aside, since it damaged what it carried.
    Damage,
    /// There is no connection.
    Down,
    /// An operator has paused its peer.
    Paused,
}

/// Whether a link carries packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Connected.
    Up,
    /// A dial is under way.
    Connecting,
    /// Waiting for the next dial, or gone.
    #[default]
    Down,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Trader => "trader",
            Self::Exchange => "exchange",
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Synced => "SYNCED",
            Self::Syncing => "SYNCING",
            Self::Waiting => "WAITING",
            Self::Draining => "DRAINING",
        })
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Streaming => "streaming",
            Self::Idle => "idle",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Paused => "paused",
        })
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Connecting => "connecting",
            Self::Down => "down",
        })
    }
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nothing => "nothing",
            Self::Network => "network",
            Self::Peer => "peer",
            Self::Disk => "disk",
            Self::Relay => "relay",
            Self::Damage => "damage",
            Self::Down => "down",
            Self::Paused => "paused",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_on_a_screen_are_the_words_in_json() {
        fn check<T: Serialize + fmt::Display>(values: &[T]) {
            for value in values {
                assert_eq!(serde_json::json!(value), serde_json::json!(value.to_string()));
            }
        }
        check(&[Role::Trader, Role::Exchange]);
        check(&[State::Synced, State::Syncing, State::Waiting, State::Draining]);
        use PeerState::{Degraded, Down, Idle, Paused, Streaming};
        check(&[Streaming, Idle, Degraded, Down, Paused]);
        check(&[LinkState::Up, LinkState::Connecting, LinkState::Down]);
        use HeldBy::{Damage, Disk, Network, Nothing, Peer, Relay};
        check(&[Nothing, Network, Peer, Disk, Relay, Damage, HeldBy::Down, HeldBy::Paused]);
    }
}
