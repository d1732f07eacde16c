//! What changes from one config to the next, and what of it a running node takes.

use std::fmt;

use super::model::{
    Cidr, Config, Control, Exchange, LinkAddress, Listen, Module, Peer, RoleConfig, Segments, Spool, StoreConfig,
    Trader,
};

/// One difference between two configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key; an item of a list is named by its address or its name, as in `listen[0.0.0.0:7401].allow`.
    pub key: String,
    /// What it was.
    pub from: String,
    /// What it is to be.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.from, self.to)
    }
}

/// The config that a node which runs with `old` has once `new` was read: what a running node takes is that of `new`,
/// all else is as it was. The difference from it to `new` is what a restart is needed for.
pub fn reloaded(old: &Config, new: &Config) -> Config {
    let mut merged = old.clone();
    let is_same_place = old.state_dir == new.state_dir && old.control.socket == new.control.socket;
    match (&mut merged.role, &new.role) {
        (RoleConfig::Trader(old), RoleConfig::Trader(new)) => {
            // Modules must keep clear of a node's own directories, and were held against those of `new`.
            if is_same_place && old.store == new.store {
                old.modules.clone_from(&new.modules);
            }
            let mut rest: Vec<&Listen> = new.listen.iter().collect();
            for listen in &mut old.listen {
                // Whoever may speak another protocol may not speak this one.
                if let Some(new) = take_same(&mut rest, listen).filter(|new| new.protocol == listen.protocol) {
                    listen.allow.clone_from(&new.allow);
                }
            }
        }
        (RoleConfig::Exchange(old), RoleConfig::Exchange(new)) => {
            old.spool.max_bytes = new.spool.max_bytes;
            for peer in &mut old.peers {
                if let Some(new) = new.peers.iter().find(|new| new.name == peer.name) {
                    peer.links.clone_from(&new.links);
                }
            }
        }
        _ => {}
    }
    merged
}

/// Listeners are matched by their address, and the n-th of an address (of port 0) with the n-th.
fn take_same<'l>(rest: &mut Vec<&'l Listen>, old: &Listen) -> Option<&'l Listen> {
    let index = rest.iter().position(|new| new.address == old.address)?;
    Some(rest.remove(index))
}

/// Every difference from `old` to `new`; empty if and only if they are equal.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    let Config { name, role, packet_len, engine, state_dir, control, workers, blocks, congestion } = old;
    changes.compare("name", name, &new.name, ToString::to_string);
    changes.compare("packet_bytes", packet_len, &new.packet_len, ToString::to_string);
    changes.compare("engine", engine, &new.engine, ToString::to_string);
    changes.compare("workers", workers, &new.workers, |w| shown_or(w.as_ref(), "by cores"));
    changes.compare("blocks", blocks, &new.blocks, ToString::to_string);
    changes.compare("congestion", congestion, &new.congestion, |c| shown_or(c.as_ref(), "the system's"));
    changes.compare("state_dir", state_dir, &new.state_dir, |path| path.display().to_string());
    let Control { socket, http } = control;
    changes.compare("control.socket", socket, &new.control.socket, |path| path.display().to_string());
    changes.compare("control.http", http, &new.control.http, |http| shown_or(http.as_ref(), "none"));
    match (role, &new.role) {
        (RoleConfig::Trader(old), RoleConfig::Trader(new)) => trader(old, new, &mut changes),
        (RoleConfig::Exchange(old), RoleConfig::Exchange(new)) => exchange(old, new, &mut changes),
        (old, new) => changes.compare("role", &old.role(), &new.role(), ToString::to_string),
    }
    changes.0
}

struct Changes(Vec<Change>);

impl Changes {
    fn compare<T: PartialEq>(&mut self, key: impl Into<String>, old: &T, new: &T, show: impl Fn(&T) -> String) {
        if old != new {
            self.0.push(Change { key: key.into(), from: show(old), to: show(new) });
        }
    }
}

fn trader(old: &Trader, new: &Trader, changes: &mut Changes) {
    let Trader { store, modules: old_modules, listen } = old;
    match (store, &new.store) {
        (Some(old), Some(new)) => stores(old, new, changes),
        (old, new) => changes.compare("store", old, new, |store| {
            shown_or(store.as_ref().map(|store| store.local.display()).as_ref(), "none")
        }),
    }
    modules(old_modules, &new.modules, changes);
    let same_addresses = listen.iter().map(|l| l.address).eq(new.listen.iter().map(|l| l.address));
    if !same_addresses {
        let shown = |listen: &Vec<Listen>| list(listen.iter().map(|l| l.address));
        changes.0.push(Change { key: "listen".into(), from: shown(listen), to: shown(&new.listen) });
    }
    let mut rest: Vec<&Listen> = new.listen.iter().collect();
    for old in listen {
        if let Some(new) = take_same(&mut rest, old) {
            listener(old, new, changes);
        }
    }
}

fn stores(old: &StoreConfig, new: &StoreConfig, changes: &mut Changes) {
    let StoreConfig { local, remote, segments, delete } = old;
    changes.compare("store.local", local, &new.local, |path| path.display().to_string());
    changes.compare("store.remote", remote, &new.remote, |path| path.display().to_string());
    changes.compare("store.segments", segments, &new.segments, shown_segments);
    changes.compare("store.delete", delete, &new.delete, ToString::to_string);
}

/// Modules are matched by their names; a session that has begun goes on with what it began with.
fn modules(old: &[Module], new: &[Module], changes: &mut Changes) {
    let names = |modules: &[Module]| modules.iter().map(|module| module.name.clone()).collect::<Vec<_>>();
    changes.compare("module", &names(old), &names(new), |names| list(names.iter()));
    for Module { name, path, read_only, allow } in old {
        if let Some(new) = new.iter().find(|module| module.name == *name) {
            let key = |key: &str| format!("module[{name}].{key}");
            changes.compare(key("path"), path, &new.path, |path| path.display().to_string());
            changes.compare(key("read_only"), read_only, &new.read_only, ToString::to_string);
            changes.compare(key("allow"), allow, &new.allow, |allow| match allow {
                Some(allow) => list(allow.iter().map(Cidr::to_string)),
                None => "everybody who may connect".to_owned(),
            });
        }
    }
}

fn listener(old: &Listen, new: &Listen, changes: &mut Changes) {
    let Listen { address, protocol, allow, peer } = old;
    let key = |name: &str| format!("listen[{address}].{name}");
    changes.compare(key("protocol"), protocol, &new.protocol, ToString::to_string);
    changes.compare(key("allow"), allow, &new.allow, |allow| list(allow.iter()));
    changes.compare(key("peer"), peer, &new.peer, |peer| shown_or(peer.as_ref(), "none"));
}

fn exchange(old: &Exchange, new: &Exchange, changes: &mut Changes) {
    let Exchange { spool: Spool { path, max_bytes }, peers } = old;
    changes.compare("spool.path", path, &new.spool.path, |path| path.display().to_string());
    changes.compare("spool.max_bytes", max_bytes, &new.spool.max_bytes, ToString::to_string);
    let names = |peers: &[Peer; 2]| peers.each_ref().map(|peer| peer.name.clone());
    changes.compare("peer", &names(peers), &names(&new.peers), |names| list(names.iter()));
    for Peer { name, links } in peers {
        if let Some(new) = new.peers.iter().find(|peer| peer.name == *name) {
            let key = format!("peer[{name}].links");
            changes.compare(key, links, &new.links, |links| list(links.iter().map(shown_link)));
        }
    }
}

fn shown_or<T: ToString>(value: Option<&T>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), ToString::to_string)
}

fn shown_segments(segments: &Option<Segments>) -> String {
    match segments {
        Some(Segments { pattern, records, record_bytes }) => format!("{pattern} of {records} x {record_bytes} bytes"),
        None => "whatever is there".to_owned(),
    }
}

fn shown_link(link: &LinkAddress) -> String {
    match link.bind {
        Some(bind) => format!("{} from {bind}", link.remote),
        None => link.remote.to_string(),
    }
}

fn list(items: impl Iterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}
