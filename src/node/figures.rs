//! What is measured of a node: see [`Figures`].

use std::sync::atomic::Ordering;

use super::line::{Place, Slot, Tally};
use super::links::Look;
use super::report::spool_status;
use super::site::{FIRST, SECOND, Site, lock};
use crate::config::{Config, RoleConfig, Trader};
use crate::control::{Figures, LinkFigures, Role, StoreFigures, Totals};
use crate::limits;
use crate::transfer;
use crate::units::{ByteCount, LinkId, NodeName};

impl Site {
    pub(super) fn figures(&self) -> Figures {
        let config = self.config();
        let look = self.look();
        let (totals, spool, lag) = self.engine().with_flows(|flows, _| {
            let both = [FIRST, SECOND].map(|id| (flows.at(id).totals(), flows.at(id).spool()));
            (both.map(|(totals, _)| totals), both.map(|(_, spool)| spool), flows.at(FIRST).lag())
        });
        let [first, second] = totals;
        let is_trader = matches!(config.role, RoleConfig::Trader(_));
        let replicates = matches!(config.role, RoleConfig::Trader(Trader { store: Some(_), .. }));
        // A trader's second flow is what it offers; an exchange carries both.
        let sum = |a: u64, b: u64| if is_trader { a } else { a + b };
        // A link may bring in what another one has on order.
        let failed = |totals: &transfer::Totals| totals.failed.saturating_sub(totals.arriving_failed);
        let store = replicates.then_some(StoreFigures {
            want: Totals { objects: first.objects, bytes: first.bytes.0 },
            have: Totals { objects: first.present, bytes: first.present_bytes.0 },
            lag,
        });
        Figures {
            node: config.name.to_string(),
            role: if is_trader { Role::Trader } else { Role::Exchange },
            version: env!("CARGO_PKG_VERSION").into(),
            engine: self.engine().driver().to_string(),
            reload_failed: self.reload_failed.load(Ordering::Relaxed),
            problems: self.problems().len() as u64,
            done: sum(first.present, second.present),
            arriving: sum(first.arriving, second.arriving),
            failed: sum(failed(&first), failed(&second)),
            store,
            last_commit: self.engine().committed_at(),
            spool: spool_status(spool, first.present + second.present),
            spool_used: spool_used(&config, spool),
            links_up: has_links(&config).then(|| self.peers().iter().map(|peer| u64::from(peer.links_up)).sum()),
            links: if is_trader { self.callers_figures(&look) } else { self.dialed_figures(&look) },
        }
    }

    fn dialed_figures(&self, look: &Look) -> Vec<LinkFigures> {
        let config = self.config();
        let RoleConfig::Exchange(exchange) = &config.role else { return Vec::new() };
        let slots = lock(&self.slots).clone();
        let link = |slot: &Slot| {
            let up = slot.link();
            let tally = lock(&slot.history).sum(up.as_slice(), |link| look.tally(link));
            let connects = slot.connects.load(Ordering::Relaxed);
            link_figures(look, exchange.peers[slot.peer].name.to_string(), slot.number, up, connects, tally)
        };
        let mut links: Vec<LinkFigures> = slots.iter().map(|slot| link(slot)).collect();
        links.sort_by(|a, b| (&a.peer, a.number).cmp(&(&b.peer, b.number)));
        links
    }

    fn callers_figures(&self, look: &Look) -> Vec<LinkFigures> {
        let callers = lock(&self.callers);
        let places = callers.iter().flat_map(|(name, caller)| caller.places().map(move |place| (name, place)));
        let link = |(name, place): (&NodeName, &Place)| {
            let tally = place.history.sum(&place.links, |link| look.tally(link));
            let newest = place.links.last().copied();
            link_figures(look, name.to_string(), place.number, newest, place.connects, tally)
        };
        places.map(link).collect()
    }

    /// Why the data plane makes no progress, where it should.
    pub(super) fn stuck(&self) -> Option<String> {
        let stuck = self.engine().longest_turn();
        (stuck >= limits::TURN_MAX).then(|| format!("a worker has made no progress for {} s", stuck.as_secs()))
    }

    /// Why the node cannot do its work yet, or no more.
    pub(super) fn unready(&self) -> Option<String> {
        if self.is_ending() {
            return Some("the node is stopping".into());
        }
        if !self.has_begun() {
            return Some("the node is looking through its store".into());
        }
        let config = self.config();
        let replicates = matches!(config.role, RoleConfig::Trader(Trader { store: Some(_), .. }));
        let is_scanned = self.scanned.load(Ordering::Relaxed);
        (replicates && !is_scanned).then(|| "local/ has not been looked through yet".into())
    }
}

/// Whether a node has links with others of its site.
fn has_links(config: &Config) -> bool {
    match &config.role {
        RoleConfig::Exchange(_) => true,
        RoleConfig::Trader(trader) => trader.has_peers(),
    }
}

/// How full each part of a spool is, by the peer that it is fetched from.
fn spool_used(config: &Config, parts: [Option<(ByteCount, ByteCount)>; 2]) -> Vec<(String, f64)> {
    let RoleConfig::Exchange(exchange) = &config.role else { return Vec::new() };
    let used = |(used, max): (ByteCount, ByteCount)| used.0 as f64 / max.0.max(1) as f64;
    let named = exchange.peers.iter().zip(parts);
    named.filter_map(|(peer, part)| Some((peer.name.to_string(), used(part?)))).collect()
}

fn link_figures(
    look: &Look,
    peer: String,
    number: u32,
    link: Option<LinkId>,
    connects: u64,
    tally: Tally,
) -> LinkFigures {
    LinkFigures {
        peer,
        number,
        up: look.is_up(link),
        reconnects: connects.saturating_sub(1),
        sent: tally.traffic.bytes_out,
        received: tally.traffic.bytes_in,
        padding: tally.traffic.padding_out,
        bad: tally.bad,
    }
}
