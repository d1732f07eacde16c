//! A config as TOML, with every default spelled out.

use std::fmt::{Display, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::model::{
    Config, Exchange, HttpAddress, LinkAddress, Module, Peer, Remote, RoleConfig, Segments, StoreConfig, Trader,
};
use crate::units::ByteCount;

impl Config {
    /// The config as TOML, with every default spelled out; it parses to an equal config. What has no value
    /// to spell out stands there as a comment.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        line(&mut out, "role", quoted(self.role.role()));
        line(&mut out, "name", quoted(&self.name));
        line(&mut out, "packet_bytes", self.packet_len);
        line(&mut out, "engine", quoted(self.engine));
        match self.workers {
            Some(workers) => line(&mut out, "workers", workers),
            None => out.push_str("# workers: by the number of cores\n"),
        }
        line(&mut out, "blocks", self.blocks);
        match &self.congestion {
            Some(congestion) => line(&mut out, "congestion", quoted(congestion)),
            None => out.push_str("# congestion: the system's default\n"),
        }
        line(&mut out, "state_dir", quoted_path(&self.state_dir));
        out.push_str("\n[control]\n");
        line(&mut out, "socket", quoted_path(&self.control.socket));
        match &self.control.http {
            Some(HttpAddress::Loopback(address)) => line(&mut out, "http", quoted(address)),
            Some(HttpAddress::Socket(path)) => line(&mut out, "http", quoted_path(path)),
            None => out.push_str("# http: not served\n"),
        }
        match &self.role {
            RoleConfig::Trader(config) => trader(&mut out, config),
            RoleConfig::Exchange(config) => exchange(&mut out, config),
        }
        out
    }
}

fn trader(out: &mut String, trader: &Trader) {
    if let Some(config) = &trader.store {
        store(out, config);
    }
    for Module { name, path, read_only, allow } in &trader.modules {
        out.push_str("\n[[module]]\n");
        line(out, "name", quoted(name));
        line(out, "path", quoted_path(path));
        line(out, "read_only", read_only);
        match allow {
            Some(allow) => line(out, "allow", list(allow.iter())),
            None => out.push_str("# allow: everybody who may connect\n"),
        }
    }
    for listen in &trader.listen {
        out.push_str("\n[[listen]]\n");
        line(out, "address", quoted(listen.address));
        line(out, "protocol", quoted(listen.protocol));
        line(out, "allow", list(listen.allow.iter()));
        if let Some(peer) = &listen.peer {
            line(out, "peer", quoted(peer));
        }
    }
}

fn store(out: &mut String, store: &StoreConfig) {
    out.push_str("\n[store]\n");
    line(out, "local", quoted_path(&store.local));
    line(out, "remote", quoted_path(&store.remote));
    match &store.segments {
        Some(Segments { pattern, records, record_bytes }) => {
            let pattern = quoted(pattern);
            let table = format!("{{ pattern = {pattern}, records = {records}, record_bytes = {record_bytes} }}");
            line(out, "segments", table);
        }
        None => out.push_str("# segments: whatever is there\n"),
    }
    line(out, "delete", quoted(store.delete));
}

fn exchange(out: &mut String, exchange: &Exchange) {
    out.push_str("\n[spool]\n");
    line(out, "path", quoted_path(&exchange.spool.path));
    line(out, "max_bytes", bytes(exchange.spool.max_bytes));
    for Peer { name, links } in &exchange.peers {
        out.push_str("\n[[peer]]\n");
        line(out, "name", quoted(name));
        line(out, "links", list(links.iter().map(|link| &link.remote)));
        line(out, "bind", list(links.iter().map(bound)));
    }
}

/// The address that a link is bound to; the unspecified one of its family where the kernel chooses.
fn bound(link: &LinkAddress) -> IpAddr {
    let unspecified = match link.remote {
        Remote::Address(address) if address.is_ipv6() => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Remote::Address(_) | Remote::Host { .. } => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    link.bind.unwrap_or(unspecified)
}

fn line(out: &mut String, key: &str, value: impl Display) {
    writeln!(out, "{key} = {value}").expect("a String takes everything");
}

/// As a TOML string.
fn quoted(value: impl Display) -> String {
    toml::Value::String(value.to_string()).to_string()
}

/// Paths of a config come from TOML, which is UTF-8.
fn quoted_path(path: &Path) -> String {
    quoted(path.display())
}

fn list(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.map(quoted).collect();
    format!("[{}]", items.join(", "))
}

/// In the largest unit that says it exactly.
fn bytes(count: ByteCount) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(size, _)| count.0 >= *size && count.0.is_multiple_of(*size)) {
        Some((size, unit)) => quoted(format_args!("{}{unit}", count.0 / size)),
        None => count.0.to_string(),
    }
}
