//! The control plane's door: what a node tells about itself and the few things it can be asked to do.
//!
//! Owns the unix socket, the HTTP/1.1 + JSON endpoints behind it, their model, the door for those who only look
//! ([`HttpDoor`]: a page, metrics, health; for this host alone), and the client side that
//! [`ctl`](crate::ctl), the command line of `supersyncctl`, is made of. It never touches the data plane: it sees the
//! node through [`Site`] alone, so a slow reader of status can never slow a link.
//!
//! Driven in this order: [`ControlSocket::bind`] (fails early when another daemon has the socket), then
//! [`ControlSocket::serve`] on the control thread's runtime until its shutdown future ends.
//! [`HttpDoor`] is bound and served in the same way, beside it.

mod answers;
mod client;
mod connections;
mod figures;
pub mod schema;
mod server;
mod socket;
mod status;
mod web;

pub use answers::{
    Drain, ErrorBody, Inventory, InventoryObject, Links, ObjectFilter, ObjectState, ObjectStatus, Objects, Pause,
    ReloadReport, Versioned, WhyLink, WhySlow,
};
pub use client::{Answer, Cause, Client, ClientError, Process, RUN_DIR, SOCKET_NAME};
pub use figures::{Figures, LinkFigures, StoreFigures};
pub use server::Site;
pub use socket::{ControlError, ControlSocket, is_listened_on, listen_hint};
pub use status::{
    ClientStatus, ConfigState, HeldBy, LinkState, LinkStatus, PeerState, PeerStatus, Role, SpoolStatus, State, Status,
    Totals,
};
pub use web::HttpDoor;
