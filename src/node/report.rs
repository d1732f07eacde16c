//! What a node says of itself: its answers to the control socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::site::{FIRST, SECOND, Site, SlotState, lock};
use crate::config::RoleConfig;
use crate::control::{
    ConfigState, Inventory, InventoryObject, LinkState, LinkStatus, ObjectFilter, ObjectState, ObjectStatus, PeerState,
    PeerStatus, ReloadReport, Role, SpoolStatus, State, Status, Totals,
};
use crate::engine::LinkView;
use crate::transfer::{self, Flow};
use crate::units::{LinkId, ObjectName};

/// Rates are taken this often.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// Weight of the newest sample.
const NEWEST: f64 = 0.4;
/// A rate below this is shown as idle, bytes per second: keep-alive alone makes some.
const IDLE_RATE: f64 = 16_384.0;

/// Rates of all links.
#[derive(Debug, Default)]
pub(super) struct Rates(BTreeMap<LinkId, Sample>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    /// What had passed then, bytes of objects.
    payload: (u64, u64),
    rate_in: f64,
    rate_out: f64,
}

impl Site {
    /// Takes the links' rates anew.
    pub(super) fn sample(&self) {
        // Two threads take samples: who has the lock has the newer figures.
        let Rates(rates) = &mut *lock(&self.rates);
        let views = self.engine().links();
        let now = Instant::now();
        rates.retain(|id, _| views.contains_key(id));
        for (id, view) in &views {
            let payload = (view.counters.payload_in, view.counters.payload_out);
            let fresh = Sample { at: now, payload, rate_in: 0.0, rate_out: 0.0 };
            let sample = rates.entry(*id).or_insert(fresh);
            let seconds = now.duration_since(sample.at).as_secs_f64();
            if seconds > 0.0 {
                let blend = |rate: f64, more: u64| rate + NEWEST * (more as f64 / seconds - rate);
                sample.rate_in = blend(sample.rate_in, payload.0 - sample.payload.0);
                sample.rate_out = blend(sample.rate_out, payload.1 - sample.payload.1);
                (sample.at, sample.payload) = (now, payload);
            }
        }
    }

    /// One line for the service manager.
    pub(super) fn headline(&self) -> String {
        let status = self.status();
        let percent = (status.have.bytes * 100).checked_div(status.want.bytes).unwrap_or(100);
        let links: u32 = status.peers.iter().map(|peer| peer.links_up).sum();
        format!("{}: {percent} % here, {links} links up", status.state)
    }

    pub(super) fn status(&self) -> Status {
        let config = self.config();
        let views = self.engine().links();
        let uptime = self.engine().now().0;
        let peers = self.peers(&views);
        let sums = self.engine().traffic();
        let facts = self.engine().with_flows(|flows, _| {
            let totals = [flows.at(FIRST).totals(), flows.at(SECOND).totals()];
            let spool = [flows.at(FIRST).spool(), flows.at(SECOND).spool()];
            let complete = flows.iter().all(Flow::is_complete);
            (totals, spool, complete)
        });
        let ([first, second], spool, complete) = facts;
        let is_trader = matches!(config.role, RoleConfig::Trader(_));
        let (want, have, serving, arriving) = if is_trader {
            let want = Totals { objects: first.objects, bytes: first.bytes.0 };
            let have = Totals { objects: first.present, bytes: first.present_bytes.0 };
            let serving = Totals { objects: second.present, bytes: second.present_bytes.0 };
            (want, have, serving, first.arriving_bytes.0)
        } else {
            let held = Totals {
                objects: first.present + second.present,
                bytes: first.present_bytes.0 + second.present_bytes.0,
            };
            (Totals::default(), Totals::default(), held, first.arriving_bytes.0 + second.arriving_bytes.0)
        };
        let rate_in: f64 = peers.iter().map(|peer| peer.rate_in).sum();
        let rate_out: f64 = peers.iter().map(|peer| peer.rate_out).sum();
        let left = want.bytes.saturating_sub(have.bytes + arriving);
        let links_up: u32 = peers.iter().map(|peer| peer.links_up).sum();
        let state = match (self.is_ending(), complete, links_up) {
            (true, _, _) => State::Draining,
            (false, true, _) => State::Synced,
            (false, false, 0) => State::Waiting,
            (false, false, _) => State::Syncing,
        };
        let kept = self.engine().committed_bytes() + arriving;
        let spool = match spool {
            [Some((a, max_a)), Some((b, max_b))] => Some(SpoolStatus {
                bytes: a.0 + b.0,
                max_bytes: max_a.0 + max_b.0,
                objects: first.present + second.present,
            }),
            _ => None,
        };
        Status {
            schema: Status::SCHEMA.into(),
            node: config.name.to_string(),
            role: if is_trader { Role::Trader } else { Role::Exchange },
            state,
            uptime_seconds: uptime.as_secs(),
            version: env!("CARGO_PKG_VERSION").into(),
            engine: "io_uring".into(),
            config: match &*lock(&self.reload_problem) {
                None => ConfigState { ok: true, message: None },
                Some(problem) => ConfigState { ok: false, message: Some(problem.clone()) },
            },
            want,
            have,
            serving,
            failed: first.failed + second.failed,
            rate_in,
            rate_out,
            eta_seconds: (left > 0 && rate_in > IDLE_RATE).then(|| left as f64 / rate_in),
            peers,
            spool,
            bytes_received: sums.bytes_in,
            bytes_sent: sums.bytes_out,
            payload_received: sums.payload_in,
            payload_sent: sums.payload_out,
            payload_discarded: sums.payload_in.saturating_sub(kept),
            problems: self.problems(),
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = lock(&self.store_problems).clone();
        problems.truncate(crate::limits::PROBLEMS_SHOWN_MAX);
        let failed: Vec<String> = self.engine().with_flows(|flows, now| {
            let all = flows.iter().flat_map(Flow::objects);
            let failed = all.filter_map(|(name, _, _, problem)| problem.map(|problem| format!("{name}: {problem}")));
            let mut told: Vec<String> = failed.take(crate::limits::PROBLEMS_SHOWN_MAX).collect();
            for (peer, count) in flows.iter().filter_map(Flow::kept_back) {
                told.push(format!(
                    "by what {peer} tells, the far trader had nothing at all: {count} objects in remote/ that it has not \
                     told of since are kept. Was its local/ mounted? If they are to go, remove them by hand"
                ));
            }
            // A spool remembers no object that it could not take.
            for why in flows.iter().filter_map(|flow| flow.held(now)) {
                if !told.iter().any(|problem| problem.ends_with(why)) {
                    told.push(why.to_owned());
                }
            }
            told
        });
        problems.extend(failed);
        problems
    }

    fn peers(&self, views: &BTreeMap<LinkId, LinkView>) -> Vec<PeerStatus> {
        if self.is_trader() { self.callers(views) } else { self.dialed(views) }
    }

    /// An exchange's peers are those of the config, each link in its place.
    fn dialed(&self, views: &BTreeMap<LinkId, LinkView>) -> Vec<PeerStatus> {
        let config = self.config();
        let RoleConfig::Exchange(exchange) = &config.role else { return Vec::new() };
        let slots = lock(&self.slots).clone();
        let peer = |index: usize| {
            let links = slots.iter().filter(|slot| slot.peer == index).map(|slot| {
                let (state, since) = slot.state();
                let reconnects = slot.connects.load(Ordering::Relaxed).saturating_sub(1);
                let mut status = match &state {
                    SlotState::Up(link) => views.get(link).map(|view| self.link(*link, view)),
                    SlotState::Dialing | SlotState::Waiting { .. } => None,
                }
                .unwrap_or_else(|| down(slot.address.remote.to_string()));
                status.reconnects = reconnects;
                status.since_seconds = since.elapsed().as_secs();
                match state {
                    SlotState::Dialing => status.state = LinkState::Connecting,
                    SlotState::Waiting { reason, until } => {
                        let seconds = until.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
                        status.note = Some(format!("{reason}, next try in {seconds:.0} s"));
                    }
                    SlotState::Up(_) => {}
                }
                status
            });

            peer_status(exchange.peers[index].name.to_string(), links.collect(), true)
        };
        (0..exchange.peers.len()).map(peer).collect()
    }

    /// A trader's peers are those that dialed it.
    fn callers(&self, views: &BTreeMap<LinkId, LinkView>) -> Vec<PeerStatus> {
        let mut by_peer: BTreeMap<String, Vec<LinkStatus>> =
            lock(&self.callers).keys().map(|name| (name.to_string(), Vec::new())).collect();
        for (id, view) in views {
            if let Some(peer) = &view.peer {
                by_peer.entry(peer.name.to_string()).or_default().push(self.link(*id, view));
            }
        }
        let callers = lock(&self.callers).clone();
        let peers = by_peer.into_iter().map(|(name, links)| {
            let caller = callers.iter().find(|(caller, _)| caller.as_str() == name).map(|(_, caller)| caller);
            let up = links.len() as u64;
            let mut peer = peer_status(name, links, false);
            if let Some(caller) = caller {
                peer.reconnects = caller.connects.saturating_sub(up.max(caller.most_up));
                if up < caller.most_up {
                    let last = caller.last_end.as_deref().unwrap_or("it has not dialed again");
                    peer.note = Some(format!("{} of {} links gone: {last}", caller.most_up - up, caller.most_up));
                    peer.state = if up == 0 { PeerState::Down } else { PeerState::Degraded };
                }
            }
            peer
        });
        peers.collect()
    }

    fn link(&self, id: LinkId, view: &LinkView) -> LinkStatus {
        let sample = lock(&self.rates).0.get(&id).copied();
        let object = self.engine().with_flows(|flows, _| {
            let flow = flows.at(view.fetch);
            flow.head(id).map(|id| flow.name(id).to_string())
        });
        let n = u64::from(u32::try_from(self.config().packet_len.bytes()).unwrap_or(u32::MAX));
        let headers = 2 * view.counters.packets_in;
        LinkStatus {
            id: id.0,
            address: view.address.clone(),
            state: if view.peer.is_some() { LinkState::Up } else { LinkState::Connecting },
            since_seconds: self.engine().now().since(view.since).as_secs(),
            rate_in: sample.map_or(0.0, |sample| sample.rate_in),
            rate_out: sample.map_or(0.0, |sample| sample.rate_out),
            bytes_in: view.bytes_in,
            bytes_out: view.bytes_out,
            padding_in: (view.counters.packets_in * n).saturating_sub(view.counters.payload_in + headers),
            padding_out: view.counters.padding_out,
            reconnects: 0,
            retransmits: view.retransmits,
            congestion: view.congestion.clone(),
            object,
            note: (view.peer.is_some() && !view.runs_free).then(|| "the peer speaks the seed's protocol only".into()),
        }
    }

    fn object_states(&self, filter: ObjectFilter, limit: usize) -> Vec<ObjectStatus> {
        let is_trader = self.is_trader();
        let mut objects: Vec<ObjectStatus> = self.engine().with_flows(|flows, now| {
            let flows = flows.iter().take(if is_trader { 1 } else { 2 });
            let all = flows.flat_map(|flow| flow.objects());
            let told = all.map(|(name, state, expected, problem)| {
                let (state, size, have) = match state {
                    transfer::ObjectState::Absent => (ObjectState::Missing, expected.map(|size| size.0), 0),
                    transfer::ObjectState::Requested { .. } => (ObjectState::Waiting, expected.map(|size| size.0), 0),
                    transfer::ObjectState::Arriving { size, written, .. }
                    | transfer::ObjectState::Gathering { size, verified: written, .. } => {
                        (ObjectState::Arriving, Some(size.0), written.0)
                    }
                    transfer::ObjectState::Whole { size } => (ObjectState::Arriving, Some(size.0), size.0),
                    transfer::ObjectState::Present { size } => (ObjectState::Done, Some(size.0), size.0),
                };
                let state = if problem.is_some() && have == 0 { ObjectState::Failed } else { state };
                let note = problem.map(ToString::to_string);
                ObjectStatus { name: name.to_string(), size, state, have_bytes: have, note }
            });
            let _ = now;
            told.filter(|object| filter.admits(object.state)).take(limit).collect()
        });
        objects.sort_unstable_by(|a: &ObjectStatus, b| a.name.cmp(&b.name));
        objects
    }
}

impl crate::control::Site for Handle {
    fn status(&self) -> Status {
        self.0.status()
    }

    fn objects(&self, filter: ObjectFilter, limit: usize) -> Vec<ObjectStatus> {
        self.0.object_states(filter, limit)
    }

    fn inventory(&self, offset: usize, limit: usize) -> Option<Inventory> {
        let config = self.0.config();
        let RoleConfig::Trader(trader) = &config.role else { return None };
        let (whole, objects) = self.0.engine().with_flows(|flows, _| {
            let flow = flows.at(FIRST);
            let object = |(name, content): (&ObjectName, &transfer::Content)| InventoryObject {
                name: name.to_string(),
                size: content.size.0,
                root: content.root.to_string(),
            };
            (flow.is_told_whole(), flow.known().skip(offset).take(limit).map(object).collect())
        });
        Some(Inventory { remote: trader.remote.clone(), whole, objects, truncated: false })
    }

    fn reload(&self) -> Result<ReloadReport, String> {
        self.0.apply_reload()
    }
}

/// A node as the control socket sees it.
pub(super) struct Handle(pub(super) Arc<Site>);

fn peer_status(name: String, links: Vec<LinkStatus>, configured: bool) -> PeerStatus {
    let up = links.iter().filter(|link| link.state == LinkState::Up).count() as u32;
    let total = links.len() as u32;
    let rate_in: f64 = links.iter().map(|link| link.rate_in).sum();
    let rate_out: f64 = links.iter().map(|link| link.rate_out).sum();
    let state = match up {
        0 => PeerState::Down,
        _ if up < total => PeerState::Degraded,
        _ if rate_in + rate_out > IDLE_RATE => PeerState::Streaming,
        _ => PeerState::Idle,
    };
    PeerStatus {
        name,
        links_up: up,
        links_total: configured.then_some(total),
        state,
        rate_in,
        rate_out,
        reconnects: links.iter().map(|link| link.reconnects).sum(),
        note: None,
        links,
    }
}

fn down(address: String) -> LinkStatus {
    LinkStatus {
        id: 0,
        address,
        state: LinkState::Down,
        since_seconds: 0,
        rate_in: 0.0,
        rate_out: 0.0,
        bytes_in: 0,
        bytes_out: 0,
        padding_in: 0,
        padding_out: 0,
        reconnects: 0,
        retransmits: 0,
        congestion: None,
        object: None,
        note: None,
    }
}
