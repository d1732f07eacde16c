//! The flows that a node begins with, from what its config says and its disk holds.

use std::sync::Arc;

use rand::RngExt as _;

use super::NodeError;
use crate::config::{self, Config, Delete, Exchange, StoreConfig, Trader};
use crate::engine::Store;
use crate::store::{Journal, Resumed, Root, Spool, SpoolObject, Unmarked};
use crate::transfer::{Flow, Flows};
use crate::units::ByteCount;
use crate::wire::checksum::crc32c;

/// The flows of a node, where their objects live, and what their journals are.
pub(super) type Parts = (Flows, Vec<Store>, Vec<Option<Journal>>);

pub(super) fn trader_flows(trader: &Trader, store: &StoreConfig, node: &Config) -> Result<Parts, NodeError> {
    let remote = Arc::new(Root::create(&store.remote)?);
    let local = Arc::new(Root::open(&store.local)?);
    if remote.leftovers() > 0 {
        tracing::info!("removed {} parts of an interrupted run from remote/", remote.leftovers());
    }
    let mut fetch = Flow::fetch();
    fetch.set_key(rand::rng().random());
    fetch.set_mirror(store.delete == Delete::Mirror);
    let journal = if node.blocks { Some(open_journal(&remote, Unmarked::TakeBack, &mut fetch)?) } else { None };
    let mut offer = Flow::offer_only();
    offer.set_origin(crc32c(node.name.as_str().as_bytes()));
    offer.start_epoch(rand::rng().random());
    let (mut flows, mut journals) = (vec![fetch, offer], vec![journal, None]);
    let mut stores = vec![Store::Remote(remote), Store::Local(Arc::clone(&local))];
    if trader.listen.iter().any(|listen| listen.protocol == config::Protocol::Named) {
        let mut named = Flow::offer_only();
        named.set_key(rand::rng().random());
        flows.push(named);
        stores.push(Store::Local(local));
        journals.push(None);
    }
    Ok((Flows::new(flows), stores, journals))
}

pub(super) fn exchange_flows(exchange: &Exchange, blocks: bool) -> Result<Parts, NodeError> {
    let names: Vec<String> = exchange.peers.iter().map(|peer| peer.name.to_string()).collect();
    let spool = Spool::open(&exchange.spool.path, &names)?;
    let half = ByteCount(exchange.spool.max_bytes.0 / 2);
    let (mut flows, mut stores, mut journals) = (Vec::new(), Vec::new(), Vec::new());
    for peer in spool.peers() {
        let mut flow = Flow::relay(half);
        flow.set_key(rand::rng().random());
        flow.start_epoch(rand::rng().random());
        let mut kept: Vec<_> = peer.kept.iter().collect();
        kept.sort_by_key(|object| object.last_use);
        for object in kept {
            let SpoolObject { name, size, .. } = object;
            // By its root it can be told whether it is still what the trader has.
            match peer.root.noted_root(name).filter(|_| blocks) {
                Some(root) => flow.keep_unread(name.clone(), *size, root),
                None if blocks => flow.keep(name.clone(), *size, peer.root.read_root(name)),
                None => flow.keep(name.clone(), *size, None),
            }
        }
        journals.push(if blocks { Some(open_journal(&peer.root, Unmarked::Keep, &mut flow)?) } else { None });
        flows.push(flow);
        stores.push(Store::Spool(Arc::clone(&peer.root)));
    }
    Ok((Flows::new(flows), stores, journals))
}

/// Tells a flow what an earlier run has left of objects that were arriving.
fn open_journal(root: &Root, unmarked: Unmarked, flow: &mut Flow) -> Result<Journal, NodeError> {
    let (mut journal, resumed) = Journal::open(root, unmarked)?;
    let (mut objects, mut bytes) = (0, ByteCount(0));
    for Resumed { name, size, root: hash, .. } in resumed {
        let part = match root.open_part(&name, size, hash) {
            Ok(part) => part,
            Err(error) => {
                tracing::warn!("what is here of an object is fetched again: {error}");
                continue;
            }
        };
        match journal.left(&part) {
            Ok(left) => {
                (objects, bytes) = (objects + 1, bytes + left.ranges.total());
                flow.resume(name, (size, hash), left.ranges, left.pieces);
            }
            Err(error) => {
                tracing::warn!("what is here of an object is fetched again: {error}");
                journal.forget(&part);
                part.abandon();
            }
        }
    }
    if objects > 0 {
        tracing::info!(objects, bytes = bytes.0, "going on with what an interrupted run has left");
    }
    Ok(journal)
}
