//! What a node says of its links: how each stands, what passed over it, and what holds it back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::line::{Caller, Place, Slot, SlotState, Tally};
use super::site::{FIRST, SECOND, Site, lock};
use super::why::{Facts, judge};
use crate::config::RoleConfig;
use crate::control::{HeldBy, LinkState, LinkStatus, PeerState, PeerStatus};
use crate::engine::{LinkView, Traffic};
use crate::limits;
use crate::transfer::{Flow, FlowId, Flows, Health, Problem};
use crate::units::{LinkId, NodeName, SessionId, Time};

/// Weight of the newest sample.
const NEWEST: f64 = 0.4;

/// Rates of all links, and of the sessions of others.
#[derive(Debug, Default)]
pub(super) struct Rates {
    pub(super) links: BTreeMap<LinkId, Sample>,
    pub(super) sessions: BTreeMap<SessionId, Sample>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    at: Instant,
    /// What had passed then.
    passed: Passed,
    /// When something came in last.
    heard: Instant,
    pub(super) rate_in: f64,
    pub(super) rate_out: f64,
    /// Parts of the time: see [`Facts`].
    busy: f64,
    receiver_limited: f64,
    send_buffer_limited: f64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Passed {
    /// Bytes of objects.
    pub(super) payload_in: u64,
    pub(super) payload_out: u64,
    /// Bytes of any kind.
    bytes_in: u64,
    busy: Duration,
    receiver_limited: Duration,
    send_buffer_limited: Duration,
}

impl Passed {
    /// Bytes of objects alone.
    pub(super) fn payload(payload_in: u64, payload_out: u64) -> Self {
        Self { payload_in, payload_out, ..Self::default() }
    }
}

impl Sample {
    pub(super) fn new(at: Instant, passed: Passed) -> Self {
        let zero = 0.0;
        Self {
            at,
            passed,
            heard: at,
            rate_in: zero,
            rate_out: zero,
            busy: zero,
            receiver_limited: zero,
            send_buffer_limited: zero,
        }
    }

    pub(super) fn update(&mut self, now: Instant, passed: Passed) {
        let seconds = now.duration_since(self.at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let before = std::mem::replace(&mut self.passed, passed);
        let blend = |rate: &mut f64, more: f64| *rate += NEWEST * (more / seconds - *rate);
        let time = |after: Duration, before: Duration| after.saturating_sub(before).as_secs_f64();
        blend(&mut self.rate_in, passed.payload_in.saturating_sub(before.payload_in) as f64);
        blend(&mut self.rate_out, passed.payload_out.saturating_sub(before.payload_out) as f64);
        blend(&mut self.busy, time(passed.busy, before.busy));
        blend(&mut self.receiver_limited, time(passed.receiver_limited, before.receiver_limited));
        blend(&mut self.send_buffer_limited, time(passed.send_buffer_limited, before.send_buffer_limited));
        if passed.bytes_in != before.bytes_in {
            self.heard = now;
        }
        self.at = now;
    }
}

impl From<&LinkView> for Passed {
    fn from(view: &LinkView) -> Self {
        Self {
            payload_in: view.counters.payload_in,
            payload_out: view.counters.payload_out,
            bytes_in: view.bytes_in,
            busy: view.tcp.busy,
            receiver_limited: view.tcp.receiver_limited,
            send_buffer_limited: view.tcp.send_buffer_limited,
        }
    }
}

/// All that is looked at to tell of the links, of one moment.
pub(super) struct Look {
    views: BTreeMap<LinkId, LinkView>,
    samples: BTreeMap<LinkId, Sample>,
    /// What passed over links that have ended and whose places do not know all of it.
    ended: BTreeMap<LinkId, Traffic>,
    health: BTreeMap<LinkId, (Health, Option<String>)>,
    /// Why the disk takes nothing for a flow.
    disk: [Option<String>; 2],
    /// Why a flow's spool takes nothing more.
    no_room: [Option<String>; 2],
    /// Something is missing in a flow, and no link has any of it on order.
    wanting: [bool; 2],
    now: Time,
    packet_bytes: u64,
    is_exchange: bool,
}

impl Site {
    /// Takes the links' rates anew.
    pub(super) fn sample(&self) {
        let now = Instant::now();
        self.sample_sessions(now);
        let views = self.engine().links();
        let rates = &mut lock(&self.rates).links;
        rates.retain(|id, _| views.contains_key(id));
        for (id, view) in &views {
            let passed = Passed::from(view);
            rates.entry(*id).or_insert_with(|| Sample::new(now, passed)).update(now, passed);
        }
    }

    /// Everyone this node talks to, or is configured to.
    pub(super) fn peers(&self) -> Vec<PeerStatus> {
        let look = self.look();
        let mut peers = if self.is_trader() { self.callers(&look) } else { self.dialed(&look) };
        peers.iter_mut().for_each(|peer| self.tell_paused(peer));
        let links = || peers.iter().flat_map(|peer| &peer.links);
        let all: f64 = links().map(|link| link.rate_in).sum();
        if all > limits::RATE_IDLE {
            peers.iter_mut().flat_map(|peer| &mut peer.links).for_each(|link| link.share = Some(link.rate_in / all));
        }
        peers
    }

    pub(super) fn look(&self) -> Look {
        let views = self.engine().links();
        // Later, so that a link is in one of the two.
        let ended = self.engine().ended();
        let mut asked: Vec<LinkId> = views.keys().copied().collect();
        lock(&self.slots).iter().for_each(|slot| asked.extend(lock(&slot.history).unsettled()));
        lock(&self.callers).values().for_each(|caller| asked.extend(caller.unsettled()));
        let behind = self.engine().is_behind();
        let told = self.engine().with_flows(|flows, now| {
            let health = asked.into_iter().filter_map(|link| Some((link, health(flows, link, now)?))).collect();
            let disk = [FIRST, SECOND].map(|flow| match flows.at(flow).hold_reason(now) {
                Some(reason) => Some(format!("the store takes nothing: {reason}")),
                None => behind.then(|| "more waits to be written than this node keeps in memory".into()),
            });
            let no_room = [FIRST, SECOND].map(|flow| no_room(flows.at(flow)));
            let missing = [FIRST, SECOND].map(|flow| flows.at(flow).wants_more());
            (health, disk, no_room, missing, now)
        });
        let (health, disk, no_room, missing, now) = told;
        let health: BTreeMap<LinkId, (Health, Option<String>)> = health;
        let has_orders = |flow: FlowId| {
            let mut links = views.iter().filter(|(_, view)| view.fetch == flow);
            links.any(|(link, _)| health.get(link).is_some_and(|(health, _)| health.orders > 0))
        };
        let wanting = [FIRST, SECOND].map(|flow| missing[usize::from(flow.0)] && !has_orders(flow));
        let packet_bytes = self.config().packet_len.bytes() as u64;
        let samples = lock(&self.rates).links.clone();
        let is_exchange = !self.is_trader();
        Look { views, ended, samples, health, disk, no_room, wanting, now, packet_bytes, is_exchange }
    }

    /// An exchange's peers are those of the config, each link in its place.
    fn dialed(&self, look: &Look) -> Vec<PeerStatus> {
        let config = self.config();
        let RoleConfig::Exchange(exchange) = &config.role else { return Vec::new() };
        let slots = lock(&self.slots).clone();
        let peer = |index: usize| {
            let links = slots.iter().filter(|slot| slot.peer == index).map(|slot| look.slot(slot));
            peer_status(exchange.peers[index].name.to_string(), links.collect(), true)
        };
        (0..exchange.peers.len()).map(peer).collect()
    }

    /// A trader's peers are those that dialed it.
    fn callers(&self, look: &Look) -> Vec<PeerStatus> {
        let callers = lock(&self.callers).clone();
        let peer = |(name, caller): (_, &Caller)| {
            // The engine has forgotten a link before its end is told.
            let links = caller.places().filter_map(|place| look.place(place)).collect();
            let mut peer = peer_status(format!("{name}"), links, false);
            add_tally(&mut peer, caller.left.sum(&[], |link| look.tally(link)));
            let (up, all) = (peer.links_up as usize, caller.places().count());
            peer.reconnects = caller.connects.saturating_sub(all as u64);
            if up < all {
                let last = caller.last_end.as_deref().unwrap_or("it has not dialed again");
                peer.note = Some(format!("{} of {all} links gone: {last}", all - up));
                peer.state = if up == 0 { PeerState::Down } else { PeerState::Degraded };
            }
            peer
        };
        callers.iter().filter(|(name, caller)| self.is_known(name, caller)).map(peer).collect()
    }

    /// Whether anybody has a link to this trader, is missed, or is paused.
    pub(super) fn has_callers(&self) -> bool {
        lock(&self.callers).iter().any(|(name, caller)| self.is_known(name, caller))
    }

    fn is_known(&self, name: &NodeName, caller: &Caller) -> bool {
        caller.places().next().is_some() || self.is_paused(name)
    }
}

impl Look {
    fn slot(&self, slot: &Slot) -> LinkStatus {
        let (state, since) = slot.state();
        let up = match &state {
            SlotState::Up(link) => Some(*link),
            SlotState::Dialing | SlotState::Waiting { .. } => None,
        };
        let flow = if slot.peer == 0 { FIRST } else { SECOND };
        let tally = lock(&slot.history).sum(up.as_slice(), |link| self.tally(link));
        let reason = match &state {
            SlotState::Up(_) => "connected, and waits for the peer's first packet".into(),
            SlotState::Dialing => "dialing".into(),
            SlotState::Waiting { reason, until } => {
                let seconds = until.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
                format!("{reason}, next try in {seconds:.0} s")
            }
        };
        let mut status = self.link(up, &slot.address.remote.to_string(), tally, flow, &reason);
        status.number = slot.number;
        status.reconnects = slot.connects.load(Ordering::Relaxed).saturating_sub(1);
        status.since_seconds = since.elapsed().as_secs();
        match state {
            SlotState::Dialing => status.state = LinkState::Connecting,
            SlotState::Waiting { .. } => status.note = Some(reason),
            SlotState::Up(_) => {}
        }
        status
    }

    /// `None` where a connection that was there last is no more, and its end has not been told.
    fn place(&self, place: &Place) -> Option<LinkStatus> {
        let newest = place.links.last().copied();
        if newest.is_some_and(|link| !self.views.contains_key(&link)) {
            return None;
        }
        let tally = place.history.sum(&place.links, |link| self.tally(link));
        let address = place.ip.map_or_else(|| "unknown".into(), |ip| ip.to_string());
        let (since, reason) = place.ended.clone().unwrap_or_else(|| (Instant::now(), "it has not dialed again".into()));
        let note = format!(
            "the peer has not dialed again: {reason}. If its config has this link no longer, reload this node to have it \
             missed no more"
        );
        let mut status = self.link(newest, &address, tally, FIRST, &note);
        status.number = place.number;
        status.reconnects = place.connects.saturating_sub(1);
        if newest.is_none() {
            status.since_seconds = since.elapsed().as_secs();
            status.note = Some(note);
        }
        Some(status)
    }

    pub(super) fn tally(&self, link: LinkId) -> Tally {
        let tally = self.health.get(&link).map_or_else(Tally::default, |(health, _)| Tally::from(*health));
        let traffic = self.views.get(&link).map(Traffic::from).or_else(|| self.ended.get(&link).copied());
        Tally { traffic: traffic.unwrap_or_default(), ..tally }
    }

    /// Whether a link is there and its peer has answered.
    pub(super) fn is_up(&self, link: Option<LinkId>) -> bool {
        link.and_then(|link| self.views.get(&link)).is_some_and(|view| view.peer.is_some())
    }

    /// A link's status; `address` and `reason` are for one that has no connection.
    fn link(&self, up: Option<LinkId>, address: &str, tally: Tally, flow: FlowId, reason: &str) -> LinkStatus {
        let found = up.and_then(|id| Some((id, self.views.get(&id)?)));
        let mut status = match found {
            Some((id, view)) => self.connected(id, view),
            None => LinkStatus { address: address.to_owned(), ..LinkStatus::default() },
        };
        let traffic = tally.traffic;
        (status.bytes_in, status.bytes_out) = (traffic.bytes_in, traffic.bytes_out);
        let headers = 2 * traffic.packets_in;
        status.padding_in = (traffic.packets_in * self.packet_bytes).saturating_sub(traffic.payload_in + headers);
        status.padding_out = traffic.padding_out;
        (status.verified, status.stolen) = (tally.verified.0, tally.stolen.0);
        (status.duplicated, status.bad) = (tally.duplicated.0, tally.bad);
        let facts = match found {
            Some((id, view)) if view.peer.is_some() => self.facts(id, view, flow, tally.bad),
            _ => Facts { down: Some(reason.to_owned()), ..Facts::default() },
        };
        (status.held_by, status.why) = judge(&facts);
        if status.held_by == HeldBy::Damage {
            status.note = Some(status.why.clone());
        }
        status
    }

    /// What a connection says of itself.
    fn connected(&self, id: LinkId, view: &LinkView) -> LinkStatus {
        let sample = self.samples.get(&id);
        let health = self.health.get(&id);
        let told = health.map_or_else(Health::default, |health| health.0);
        let seed_only = view.peer.is_some() && !view.runs_free;
        LinkStatus {
            id: id.0,
            address: view.address.clone(),
            state: if view.peer.is_some() { LinkState::Up } else { LinkState::Connecting },
            since_seconds: self.now.since(view.since).as_secs(),
            rate_in: sample.map_or(0.0, |sample| sample.rate_in),
            rate_out: sample.map_or(0.0, |sample| sample.rate_out),
            retransmits: view.tcp.retransmitted.into(),
            congestion: view.congestion.clone(),
            object: health.and_then(|health| health.1.clone()),
            note: seed_only.then(|| "the peer speaks the seed's protocol only".into()),
            capacity_in: told.rate.map(|rate| rate.0),
            orders: told.orders as u64,
            on_order: told.owed.0,
            aside_seconds: told.aside_until.map(|until| until.since(self.now).as_secs()),
            rtt_ms: (view.tcp.rtt_us > 0).then(|| f64::from(view.tcp.rtt_us) / 1000.0),
            unsent: view.tcp.not_sent.into(),
            ..LinkStatus::default()
        }
    }

    fn facts(&self, id: LinkId, view: &LinkView, flow: FlowId, bad: u64) -> Facts {
        let health = self.health.get(&id).map_or_else(Health::default, |health| health.0);
        let mut facts = Facts {
            aside: health.aside_until.map(|until| until.since(self.now)),
            bad,
            disk: self.disk[usize::from(flow.0)].clone(),
            is_exchange: self.is_exchange,
            orders: health.orders,
            on_order: health.owed.0,
            silent: health.silent,
            pending: health.pending,
            no_room: self.no_room[usize::from(flow.0)].clone(),
            wanting: self.wanting[usize::from(flow.0)],
            asked: view.asked,
            unsent: view.tcp.not_sent.into(),
            resending: view.tcp.resending,
            retransmits: view.tcp.retransmitted.into(),
            rtt: Duration::from_micros(view.tcp.rtt_us.into()),
            ..Facts::default()
        };
        if let Some(sample) = self.samples.get(&id) {
            // A sample is as old as the time between two.
            facts.quiet = sample.heard.elapsed().saturating_sub(limits::RATE_EVERY);
            (facts.rate_in, facts.rate_out, facts.busy) = (sample.rate_in, sample.rate_out, sample.busy);
            facts.receiver_limited = sample.receiver_limited;
            facts.send_buffer_limited = sample.send_buffer_limited;
        }
        facts
    }
}

/// Why a spool has no room for what is asked of it, where that is so: one object too long for it, or what it holds.
fn no_room(flow: &Flow) -> Option<String> {
    if !flow.is_out_of_room() {
        return None;
    }
    let mut objects = flow.objects().filter(|_| flow.totals().failed > 0);
    let too_long = objects.find_map(|(name, _, _, problem)| match problem {
        Some(problem @ Problem::LargerThanSpool { .. }) => Some(format!("{name}: {problem}")),
        _ => None,
    });
    Some(
        too_long.unwrap_or_else(|| {
            "the spool is full: nothing more is fetched until what it holds has been sent on".into()
        }),
    )
}

/// What a link's flow knows of it, and what it is bringing in.
fn health(flows: &Flows, link: LinkId, now: Time) -> Option<(Health, Option<String>)> {
    flows.iter().find_map(|flow| {
        let health = flow.health(link, now)?;
        Some((health, health.object.map(|id| flow.name(id).to_string())))
    })
}

fn peer_status(name: String, mut links: Vec<LinkStatus>, configured: bool) -> PeerStatus {
    links.sort_by_key(|link| link.number);
    let up = links.iter().filter(|link| link.state == LinkState::Up).count() as u32;
    let total = links.len() as u32;
    let rate_in: f64 = links.iter().map(|link| link.rate_in).sum();
    let rate_out: f64 = links.iter().map(|link| link.rate_out).sum();
    let sum = |of: fn(&LinkStatus) -> u64| links.iter().map(of).sum::<u64>();
    let state = match up {
        0 => PeerState::Down,
        _ if up < total => PeerState::Degraded,
        _ if rate_in + rate_out > limits::RATE_IDLE => PeerState::Streaming,
        _ => PeerState::Idle,
    };
    PeerStatus {
        name,
        links_up: up,
        links_total: configured.then_some(total),
        state,
        rate_in,
        rate_out,
        reconnects: sum(|link| link.reconnects),
        note: None,
        verified: sum(|link| link.verified),
        stolen: sum(|link| link.stolen),
        duplicated: sum(|link| link.duplicated),
        bad: sum(|link| link.bad),
        links,
    }
}

fn add_tally(peer: &mut PeerStatus, tally: Tally) {
    peer.verified += tally.verified.0;
    peer.stolen += tally.stolen.0;
    peer.duplicated += tally.duplicated.0;
    peer.bad += tally.bad;
}
