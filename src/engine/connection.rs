//! One link's socket and what is in flight on it.

use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::NewLink;
use super::flight::Flight;
use super::shared::lock;
use super::space::Space;
use super::train::OpenSource;
use crate::proto::Link;
use crate::proto::duplex::{Counters, Peer};
use crate::transfer::FlowId;
use crate::transfer::RangeRequest;
use crate::units::Time;
use crate::uring::socket::{self, TcpInfo};
use crate::wire::extended::Packer;

/// A link as others may see it.
#[derive(Debug, Clone)]
pub struct LinkView {
    /// The peer's address.
    pub address: String,
    /// When the connection was made.
    pub since: Time,
    /// The flow that what comes in belongs to.
    pub fetch: FlowId,
    /// Who the peer is, once its first packet is here.
    pub peer: Option<Peer>,
    /// Both ends run free.
    pub runs_free: bool,
    /// What passed, in packets and payload.
    pub counters: Counters,
    /// Bytes received from the socket.
    pub bytes_in: u64,
    /// Bytes given to the socket.
    pub bytes_out: u64,
    /// Requests of the peer that are not answered yet.
    pub asked: usize,
    /// What the kernel tells of the connection, while it lasts.
    pub tcp: TcpInfo,
    /// TCP's congestion control.
    pub congestion: Option<String>,
}

/// What passed over a link, or over several in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received from sockets.
    pub bytes_in: u64,
    /// Bytes given to sockets.
    pub bytes_out: u64,
    /// Bytes of objects received.
    pub payload_in: u64,
    /// Bytes of objects sent.
    pub payload_out: u64,
    /// Packets received: with the bytes of objects in them, they tell how much was padding.
    pub packets_in: u64,
    /// Padding sent.
    pub padding_out: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.payload_in += other.payload_in;
        self.payload_out += other.payload_out;
        self.packets_in += other.packets_in;
        self.padding_out += other.padding_out;
    }
}

impl From<&LinkView> for Traffic {
    fn from(view: &LinkView) -> Self {
        let Counters { payload_in, payload_out, packets_in, padding_out, .. } = view.counters;
        Self { bytes_in: view.bytes_in, bytes_out: view.bytes_out, payload_in, payload_out, packets_in, padding_out }
    }
}

/// What a worker tells of a link, and others read.
#[derive(Debug)]
pub(super) struct LinkStats {
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// The peer's address.
    pub(super) ip: Option<IpAddr>,
    view: Mutex<LinkView>,
    socket: Mutex<std::sync::Weak<OwnedFd>>,
}

impl LinkStats {
    pub(super) fn new(link: &NewLink, now: Time) -> Self {
        let view = LinkView {
            address: link.address.clone(),
            since: now,
            fetch: link.fetch,
            peer: None,
            runs_free: false,
            counters: Counters::default(),
            bytes_in: 0,
            bytes_out: 0,
            asked: 0,
            tcp: TcpInfo::default(),
            congestion: None,
        };
        let zero = AtomicU64::default;
        let ip = link.address.parse().map(|address: SocketAddr| address.ip()).ok();
        Self { bytes_in: zero(), bytes_out: zero(), ip, view: Mutex::new(view), socket: Mutex::default() }
    }

    pub(super) fn update(&self, link: &Link) {
        let mut view = lock(&self.view);
        view.counters = link.counters();
        view.asked = link.asked();
        if view.peer.is_none() {
            view.peer = link.peer().cloned();
            view.runs_free = link.runs_free();
        }
    }

    fn watch(&self, socket: &Arc<OwnedFd>) {
        *lock(&self.socket) = Arc::downgrade(socket);
    }

    pub(super) fn view(&self) -> LinkView {
        let mut view = lock(&self.view).clone();
        view.bytes_in = self.bytes_in.load(Ordering::Relaxed);
        view.bytes_out = self.bytes_out.load(Ordering::Relaxed);
        if let Some(socket) = lock(&self.socket).upgrade() {
            view.tcp = socket::tcp_info(&socket).unwrap_or_default();
            view.congestion = socket::congestion(&socket).ok();
        }
        view
    }
}

/// A connection of one worker.
pub(super) struct Connection {
    pub(super) flight: Flight,
    pub(super) link: Link,
    pub(super) fetch: FlowId,
    pub(super) serve: FlowId,
    pub(super) stats: Arc<LinkStats>,
    pub(super) source: Option<OpenSource>,
    /// How frames lie in packets, once the link speaks them.
    pub(super) packer: Packer,
    /// Data whose head has been laid out, and where in its object it starts.
    pub(super) outgoing: Option<(u64, Bytes)>,
    /// The start of a packet that waits to be filled.
    pub(super) held: Vec<u8>,
    /// Since when, and when to look at it again.
    pub(super) held_since: Option<Time>,
    pub(super) held_until: Option<Time>,
    /// A range that is coming in.
    pub(super) assembly: Option<(RangeRequest, Space)>,
    /// What the kernel was told to keep unsent at most.
    pub(super) unsent_max: u32,
    pub(super) padding_cursor: u64,
    pub(super) met: bool,
    /// It ends for bytes that were damaged.
    pub(super) damaged: bool,
    /// It ends because both ends do not fit together.
    pub(super) misfit: bool,
}

impl Connection {
    pub(super) fn new(new: NewLink, stats: Arc<LinkStats>, now: Time) -> Self {
        let flight = Flight::new(new.socket, new.address, now);
        stats.watch(&flight.socket);
        Self {
            flight,
            packer: Packer::new(new.config.packet_len),
            outgoing: None,
            held: Vec::new(),
            held_since: None,
            held_until: None,
            assembly: None,
            padding_cursor: new.config.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            link: Link::new(new.config, new.protocol, now),
            fetch: new.fetch,
            serve: new.serve,
            stats,
            source: None,
            unsent_max: 0,
            met: false,
            damaged: false,
            misfit: false,
        }
    }
}
