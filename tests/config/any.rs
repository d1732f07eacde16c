//! Any config that there can be.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use supersync::config::{
    Cidr, Config, Control, Delete, EngineChoice, Exchange, HttpAddress, LinkAddress, Listen, Module, Peer, Protocol,
    Remote, RoleConfig, Segments, Spool, StoreConfig, Trader,
};
use supersync::units::{ByteCount, NodeName, PacketLen};

fn node_name() -> impl Strategy<Value = NodeName> {
    "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|text| text.parse::<NodeName>().expect("of the right form"))
}

fn absolute_path() -> impl Strategy<Value = PathBuf> {
    // Quotes, backslashes, spaces and control characters are what TOML must escape.
    "/[a-zA-Z \"'\\\\\t\u{1}ä]{1,12}(/[a-z]{1,8}){0,2}".prop_map(PathBuf::from)
}

fn cidr() -> impl Strategy<Value = Cidr> {
    prop_oneof![
        any::<[u8; 2]>().prop_map(|[a, b]| format!("{a}.{b}.0.0/16")),
        any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string()),
    ]
    .prop_map(|text| Cidr::parse(&text).expect("of the right form"))
}

/// From this port on it is `control.http` that listens: no two of a node share one.
const HTTP_PORTS: u16 = 32_768;

fn segments() -> impl Strategy<Value = Segments> {
    ("[a-z\"\\\\]{1,5}(\\{1\\.\\.9\\})?", 1..1_000_000_000u64, 1..1_000_000_000u64)
        .prop_map(|(pattern, records, record_bytes)| Segments { pattern, records, record_bytes })
}

fn trader_config() -> impl Strategy<Value = RoleConfig> {
    let listen = (proptest::collection::vec(cidr(), 1..4), proptest::option::of(node_name()));
    let listeners = proptest::collection::btree_map(8000..HTTP_PORTS, listen, 1..4);
    let store =
        (absolute_path(), absolute_path(), proptest::option::of(segments())).prop_map(|(local, remote, segments)| {
            StoreConfig {
                local: Path::new("/l").join(local.strip_prefix("/").expect("absolute")),
                remote: Path::new("/r").join(remote.strip_prefix("/").expect("absolute")),
                delete: Delete::Keep,
                segments,
            }
        });
    let replicates = (store, listeners).prop_map(|(store, listeners)| {
        let listen = listeners.into_iter().map(|(port, (allow, peer))| Listen {
            address: ([0, 0, 0, 0], port).into(),
            // Its clients have no names.
            protocol: if peer.is_none() && port % 2 == 1 { Protocol::Named } else { Protocol::Duplex },
            allow,
            peer: peer.map(|name| name.to_string()),
        });
        (store, listen.collect::<Vec<_>>())
    });
    let serves = (modules(), proptest::collection::vec(cidr(), 1..4)).prop_map(|(modules, allow)| {
        let address = ([127, 0, 0, 1], 7402).into();
        (modules, Listen { address, protocol: Protocol::Session, allow, peer: None })
    });
    let one = (replicates, serves, 0..3);
    one.prop_map(|((store, mut listen), (modules, session), kind)| {
        RoleConfig::Trader(match kind {
            0 => Trader { store: Some(store), modules: Vec::new(), listen },
            1 => Trader { store: None, modules, listen: vec![session] },
            _ => {
                listen.push(session);
                Trader { store: Some(store), modules, listen }
            }
        })
    })
}

fn modules() -> impl Strategy<Value = Vec<Module>> {
    let module = (absolute_path(), any::<bool>(), proptest::option::of(proptest::collection::vec(cidr(), 1..4)));
    proptest::collection::btree_map("m[a-zA-Z0-9._-]{0,63}", module, 1..4).prop_map(|modules| {
        let module = |(index, (name, (path, read_only, allow))): (usize, (String, (PathBuf, bool, _)))| Module {
            path: Path::new(&format!("/m{index}")).join(path.strip_prefix("/").expect("absolute")),
            name,
            read_only,
            allow,
        };
        modules.into_iter().enumerate().map(module).collect()
    })
}

/// Links to hosts whose names end in `side`.
fn links(side: &'static str) -> impl Strategy<Value = Vec<LinkAddress>> {
    let remote = (proptest::bool::ANY, any::<[u8; 2]>(), 1..u16::MAX).prop_map(move |(named, [a, b], port)| {
        let third = if side == "one" { 1 } else { 2 };
        match named {
            true => Remote::Host { name: format!("h{a}-{b}.{side}"), port },
            false => Remote::Address(([10, third, a, b], port).into()),
        }
    });
    let bind = proptest::option::of(any::<[u8; 3]>().prop_map(|[a, b, c]| [10, a, b, c].into()));
    proptest::collection::vec((remote, bind).prop_map(|(remote, bind)| LinkAddress { remote, bind }), 1..5)
}

fn exchange_config() -> impl Strategy<Value = RoleConfig> {
    let max_bytes = prop_oneof![1..=i64::MAX as u64, (1..4096u64, 0..40u32).prop_map(|(n, shift)| n << shift)];
    let names = (node_name(), node_name()).prop_filter("two peers have two names", |(a, b)| a != b);
    (absolute_path(), max_bytes, names, links("one"), links("two")).prop_map(|(path, max_bytes, names, one, two)| {
        let path = Path::new("/spool").join(path.strip_prefix("/").expect("absolute"));
        RoleConfig::Exchange(Exchange {
            spool: Spool { path, max_bytes: ByteCount(max_bytes) },
            peers: [Peer { name: names.0, links: one }, Peer { name: names.1, links: two }],
        })
    })
}

fn http_address() -> impl Strategy<Value = Option<HttpAddress>> {
    let loopback = (any::<u8>(), HTTP_PORTS..);
    let loopback = loopback.prop_map(|(host, port)| HttpAddress::Loopback(([127, 0, 0, host], port).into()));
    let socket = "/http/[a-z ]{1,30}".prop_map(|path| HttpAddress::Socket(path.into()));
    proptest::option::of(prop_oneof![loopback, socket])
}

pub(super) fn any_config() -> impl Strategy<Value = Config> {
    let packet_len = (101u32..=1 << 20).prop_map(|bytes| PacketLen::new(bytes).expect("within bounds"));
    let engine = prop_oneof![Just(EngineChoice::Auto), Just(EngineChoice::Uring), Just(EngineChoice::Blocking)];
    let workers = proptest::option::of((1usize..=64).prop_map(|n| n.try_into().expect("not 0")));
    let role = prop_oneof![trader_config(), exchange_config()];
    // No peer has a name as long as this one.
    let name = "self[a-z0-9]{59,60}";
    let congestion = proptest::option::of("[a-z][a-z0-9_]{0,14}");
    let small = (packet_len, engine, workers, any::<bool>(), (congestion, http_address()));
    (name, role, small, absolute_path(), "/[a-z]{1,50}").prop_map(|(name, role, small, state_dir, socket)| {
        let (packet_len, engine, workers, blocks, (congestion, http)) = small;
        // Without a list, somebody has to tell what there is.
        let is_listed = |trader: &Trader| trader.store.as_ref().is_none_or(|store| store.segments.is_some());
        let may_do_without = !matches!(&role, RoleConfig::Trader(trader) if !is_listed(trader));
        Config {
            name: name.parse().expect("of the right form"),
            role,
            packet_len,
            engine,
            state_dir: Path::new("/state").join(state_dir.strip_prefix("/").expect("absolute")),
            control: Control { socket: Path::new("/run").join(&socket[1..]), http },
            workers,
            blocks: blocks || !may_do_without,
            congestion,
        }
    })
}
