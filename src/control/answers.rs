//! What a node answers to each question but that for its status, whose schema is told there too: [`super::status`].

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::status::{ClientStatus, HeldBy, LinkState, LinkStatus, PeerStatus, State, Status};

/// One object that this node wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStatus {
    /// Its path below the root, unprintable bytes escaped.
    pub name: String,
    /// Its length in bytes, once known.
    pub size: Option<u64>,
    /// How far it is.
    pub state: ObjectState,
    /// The peer that an exchange has it from; `None` on a trader.
    #[serde(default)]
    pub from: Option<String>,
    /// Bytes here already.
    pub have_bytes: u64,
    /// What a person should know: why it failed, where it comes from.
    pub note: Option<String>,
}

/// How far an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectState {
    /// Wanted, and nobody was asked for it yet.
    Missing,
    /// Bytes of it come in.
    Arriving,
    /// Whole and marked.
    Done,
    /// Given up until something changes.
    Failed,
    /// Asked for; the peer does not have it yet.
    Waiting,
}

/// Which objects to tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectFilter {
    /// All that are wanted.
    #[default]
    All,
    /// All that are not whole and marked, whatever the reason.
    Missing,
    /// Those given up.
    Failed,
}

impl ObjectFilter {
    /// Whether an object in `state` is asked for.
    pub fn admits(self, state: ObjectState) -> bool {
        match self {
            Self::All => true,
            Self::Missing => state != ObjectState::Done,
            Self::Failed => state == ObjectState::Failed,
        }
    }
}

/// An answer with the name of its schema in front; [`Status`] carries its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// Name and number of the schema.
    pub schema: String,
    /// The answer.
    #[serde(flatten)]
    pub body: T,
}

impl<T> Versioned<T> {
    /// `body` as written in `schema`.
    pub fn new(schema: &str, body: T) -> Self {
        Self { schema: schema.to_owned(), body }
    }
}

/// The links of a node, by peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// The node's name.
    pub node: String,
    /// Its peers.
    pub peers: Vec<PeerStatus>,
    /// Who pushes, pulls or fetches from it now.
    #[serde(default)]
    pub clients: Vec<ClientStatus>,
}

impl Links {
    /// The schema that they are written in.
    pub const SCHEMA: &'static str = "supersync.links/1";
}

/// What holds each link of a node back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhySlow {
    /// The node's name.
    pub node: String,
    /// Where the node as a whole stands.
    pub state: State,
    /// Its links, by peer.
    pub links: Vec<WhyLink>,
}

/// What holds one link back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyLink {
    /// Its peer's name.
    pub peer: String,
    /// As [`LinkStatus::id`].
    pub id: u64,
    /// As [`LinkStatus::number`].
    #[serde(default)]
    pub number: u32,
    /// The other end.
    pub address: String,
    /// Whether it carries packets.
    pub state: LinkState,
    /// Payload coming in, bytes per second.
    pub rate_in: f64,
    /// Payload going out, bytes per second.
    pub rate_out: f64,
    /// What holds it back.
    pub held_by: HeldBy,
    /// The same in words.
    pub why: String,
}

impl WhySlow {
    /// The schema that it is written in.
    pub const SCHEMA: &'static str = "supersync.why-slow/1";
}

impl From<Status> for WhySlow {
    fn from(status: Status) -> Self {
        let of_peer = |peer: PeerStatus| {
            let of_link = move |link: LinkStatus| {
                let LinkStatus { id, number, address, state, rate_in, rate_out, held_by, why, .. } = link;
                WhyLink { peer: peer.name.clone(), id, number, address, state, rate_in, rate_out, held_by, why }
            };
            peer.links.into_iter().map(of_link)
        };
        Self { node: status.node, state: status.state, links: status.peers.into_iter().flat_map(of_peer).collect() }
    }
}

/// Objects that passed a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    /// At most as many as were asked for.
    pub objects: Vec<ObjectStatus>,
    /// There are more.
    pub truncated: bool,
}

impl Objects {
    /// The schema that they are written in.
    pub const SCHEMA: &'static str = "supersync.objects/1";
}

/// What the far trader is known to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Where the trader fetches into.
    pub remote: PathBuf,
    /// The far trader has told all that it has.
    pub whole: bool,
    /// At most as many as were asked for.
    pub objects: Vec<InventoryObject>,
    /// There are more.
    pub truncated: bool,
}

impl Inventory {
    /// The schema that it is written in.
    pub const SCHEMA: &'static str = "supersync.inventory/1";
}

/// One object of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryObject {
    /// Its path below the root, unprintable bytes escaped.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// BLAKE3 of its content, hexadecimal.
    pub root: String,
}

/// What became of a reload that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Changes in force now, one line each.
    pub applied: Vec<String>,
    /// Changes that wait for a restart, one line each.
    pub needs_restart: Vec<String>,
}

impl ReloadReport {
    /// The schema that it is written in.
    pub const SCHEMA: &'static str = "supersync.reload/1";
}

/// Whether a node has to do with a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The node's name.
    pub node: String,
    /// The peer's name.
    pub peer: String,
    /// Nothing is begun with it now.
    pub paused: bool,
    /// It was the other way before.
    pub changed: bool,
}

impl Pause {
    /// The schema that it is written in.
    pub const SCHEMA: &'static str = "supersync.pause/1";
}

/// A node that was asked to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// The node's name.
    pub node: String,
    /// Its process is gone.
    pub stopped: bool,
}

impl Drain {
    /// The schema that it is written in.
    pub const SCHEMA: &'static str = "supersync.drain/1";
}

/// What any answer but a good one carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What failed and why.
    pub error: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl fmt::Display for ObjectState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Missing => "missing",
            Self::Arriving => "arriving",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
        })
    }
}

/// The word for a filter in a query.
impl fmt::Display for ObjectFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::All => "all",
            Self::Missing => "missing",
            Self::Failed => "failed",
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
        check(&[ObjectFilter::All, ObjectFilter::Missing, ObjectFilter::Failed]);
        use ObjectState::{Arriving, Done, Failed, Missing, Waiting};
        check(&[Missing, Arriving, Done, Failed, Waiting]);
    }

    #[test]
    fn missing_is_all_that_is_not_marked() {
        use ObjectState::{Arriving, Done, Failed, Missing, Waiting};
        for state in [Missing, Arriving, Failed, Waiting] {
            assert!(ObjectFilter::Missing.admits(state), "{state}");
        }
        assert!(!ObjectFilter::Missing.admits(Done));
        assert!(ObjectFilter::All.admits(Done));
        assert!(ObjectFilter::Failed.admits(Failed) && !ObjectFilter::Failed.admits(Waiting));
    }
}
