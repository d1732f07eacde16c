//! What a TOML document means as a config: which keys there are, their defaults, and how values must fit each other.
//!
//! Every function notes what is wrong in the report and goes on; it gives `None` where that left it without a value.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::error::Report;
use super::model::{
    Cidr, Config, Control, Delete, EngineChoice, Exchange, HttpAddress, LinkAddress, Listen, Module, Peer, Protocol,
    Remote, Role, RoleConfig, Segments, Spool, StoreConfig, Trader,
};
use super::read::{Document, Field, Key, Refusal, Section, Span};
use super::value;
use crate::limits;
use crate::units::{ByteCount, NodeName, PacketLen};
use crate::wire::hello;

/// Every key there is.
pub(super) const KEYS: &[Key] = &[
    Key { section: "", name: "role" },
    Key { section: "", name: "name" },
    Key { section: "", name: "packet_bytes" },
    Key { section: "", name: "engine" },
    Key { section: "", name: "workers" },
    Key { section: "", name: "blocks" },
    Key { section: "", name: "congestion" },
    Key { section: "", name: "state_dir" },
    Key { section: "", name: "control" },
    Key { section: "", name: "store" },
    Key { section: "", name: "module" },
    Key { section: "", name: "listen" },
    Key { section: "", name: "spool" },
    Key { section: "", name: "peer" },
    Key { section: "control", name: "socket" },
    Key { section: "control", name: "http" },
    Key { section: "store", name: "local" },
    Key { section: "store", name: "remote" },
    Key { section: "store", name: "segments" },
    Key { section: "store", name: "delete" },
    Key { section: "segments", name: "pattern" },
    Key { section: "segments", name: "records" },
    Key { section: "segments", name: "record_bytes" },
    Key { section: "module", name: "name" },
    Key { section: "module", name: "path" },
    Key { section: "module", name: "read_only" },
    Key { section: "module", name: "allow" },
    Key { section: "listen", name: "address" },
    Key { section: "listen", name: "protocol" },
    Key { section: "listen", name: "allow" },
    Key { section: "listen", name: "peer" },
    Key { section: "spool", name: "path" },
    Key { section: "spool", name: "max_bytes" },
    Key { section: "peer", name: "name" },
    Key { section: "peer", name: "links" },
    Key { section: "peer", name: "bind" },
];

const TRADER_KEYS: &[&str] = &["store", "module", "listen"];
const EXCHANGE_KEYS: &[&str] = &["spool", "peer"];

/// The config that `document` means.
pub(super) fn config(document: &Document<'_>, report: &mut Report<'_>) -> Option<Config> {
    let top = Section::root(document.get_ref(), KEYS, report);
    let role = top.parsed("role", report, value::role);
    let role = top.required("role", role, report, "write role = \"trader\" or role = \"exchange\"");
    let name = top.parsed("name", report, value::node_name);
    let name = top.required("name", name, report, "write a name of its own for this node, as name = \"trader1\"");
    let packet_len = packet_len(&top, name.as_ref(), report);
    let engine = top.parsed("engine", report, value::engine).or(EngineChoice::Auto);
    let workers = workers(&top, report);
    let blocks = top.boolean("blocks", report).or(true);
    let congestion = top.parsed("congestion", report, value::congestion).optional();
    let state_dir = top.parsed("state_dir", report, value::path);
    let state_dir = state_dir.or_else(|| Path::new("/var/lib/supersync").join(name.as_ref()?.as_str()).into());
    let control = control(&top, name.as_ref(), report);
    let role = role_config(&top, role, name.as_ref(), report);
    if let (Some(role), Some(state_dir)) = (&role, &state_dir) {
        apart(&top, role, state_dir, control.as_ref(), report);
    }
    if let (Some(Control { http: Some(HttpAddress::Loopback(http)), .. }), Some(RoleConfig::Trader(trader))) =
        (&control, &role)
        && let Some(Listen { address, .. }) = trader.listen.iter().find(|listen| share(*http, listen.address))
    {
        let what = format!("`control.http` ({http}) is taken by the [[listen]] of {address}");
        report.add(top.key_span("control"), what, "give each its own port");
    }
    let store = role.as_ref().and_then(|role| match role {
        RoleConfig::Trader(trader) => trader.store.as_ref(),
        RoleConfig::Exchange(_) => None,
    });
    if let (Some(false), Some(StoreConfig { delete: Delete::Mirror, .. })) = (blocks, store) {
        let what = "`store.delete` is \"mirror\", and without `blocks` the far trader does not tell what it has";
        report.add(top.key_span("store"), what, "write delete = \"keep\", or blocks = true at every node");
    }
    if let (Some(false), Some(RoleConfig::Trader(trader))) = (blocks, &role)
        && trader.goes_by_what_is_told()
    {
        let what = "without `blocks` and `store.segments` nothing is fetched: nobody tells what there is";
        report.add(top.key_span("blocks"), what, "write `segments` under [store], or blocks = true at every node");
    }
    Some(Config {
        name: name?,
        role: role?,
        packet_len: packet_len?,
        engine: engine?,
        state_dir: state_dir?,
        control: control?,
        workers: workers?,
        blocks: blocks?,
        congestion: congestion?,
    })
}

/// N, which is within its bounds and has room for the hello of a node called `name`.
fn packet_len(top: &Section<'_>, name: Option<&NodeName>, report: &mut Report<'_>) -> Option<PacketLen> {
    let field = top.integer("packet_bytes", report).then("packet_bytes", report, |bytes| {
        let length = u32::try_from(bytes).ok().and_then(PacketLen::new).ok_or_else(|| {
            let (min, max) = (limits::PACKET_BYTES_MIN, limits::PACKET_BYTES_MAX);
            Refusal::new(format!("{bytes} bytes are out of bounds"), format!("write a number from {min} to {max}"))
        })?;
        match name {
            Some(name) if !hello::fits(length, name) => {
                let fits = |bytes: &u32| PacketLen::new(*bytes).is_some_and(|length| hello::fits(length, name));
                let needed = (limits::PACKET_BYTES_MIN..=limits::PACKET_BYTES_MAX).find(fits);
                Err(Refusal::new(
                    format!("a packet of {bytes} bytes has no room for the hello of a node with this name"),
                    match needed {
                        Some(needed) => format!("write {needed} or more at both ends, or give the node a shorter name"),
                        None => "give the node a shorter name".to_owned(),
                    },
                ))
            }
            _ => Ok(length),
        }
    });
    field.or(PacketLen::DEFAULT)
}

fn workers(top: &Section<'_>, report: &mut Report<'_>) -> Option<Option<NonZeroUsize>> {
    let field = top.integer("workers", report).then("workers", report, |number| {
        let workers = usize::try_from(number).ok().and_then(NonZeroUsize::new);
        workers.filter(|workers| workers.get() <= limits::WORKERS_MAX).ok_or_else(|| {
            let max = limits::WORKERS_MAX;
            Refusal::new(
                format!("{number} is out of bounds"),
                format!("write a number from 1 to {max}, or leave it out to go by the number of cores"),
            )
        })
    });
    field.optional()
}

fn control(top: &Section<'_>, name: Option<&NodeName>, report: &mut Report<'_>) -> Option<Control> {
    let default = name.map(|name| Path::new("/run/supersync").join(name.as_str()).join("control.sock"));
    let section = match top.table("control", KEYS, report) {
        Field::Absent => return Some(Control { socket: default?, http: None }),
        Field::Refused => return None,
        Field::Is(section, _) => section,
    };
    let socket = section.parsed("socket", report, value::socket_path).or_else(|| default);
    let http = section.parsed("http", report, value::http_address).optional();
    let (socket, http) = (socket?, http?);
    if matches!(&http, Some(HttpAddress::Socket(path)) if *path == socket) {
        let what = format!("`control.http` and `control.socket` are the same ({})", socket.display());
        report.add(section.key_span("http"), what, "give each its own path");
    }
    Some(Control { socket, http })
}

/// What only this role has. Where the role is not known, what is there is checked all the same.
fn role_config(
    top: &Section<'_>,
    role: Option<Role>,
    name: Option<&NodeName>,
    report: &mut Report<'_>,
) -> Option<RoleConfig> {
    let has_any = |keys: &[&str]| keys.iter().any(|key| top.key_span(key).is_some());
    let (other, others_keys) = match role {
        Some(Role::Trader) => (Role::Exchange, EXCHANGE_KEYS),
        Some(Role::Exchange) => (Role::Trader, TRADER_KEYS),
        None => {
            if has_any(TRADER_KEYS) {
                trader(top, report);
            }
            if has_any(EXCHANGE_KEYS) {
                exchange(top, name, report);
            }
            return None;
        }
    };
    for key in others_keys {
        if let Some(span) = top.key_span(key) {
            let what = format!("`{key}` is for the role {other}, and this is not one");
            report.add(Some(span), what, format!("remove it, or write role = \"{other}\""));
        }
    }
    match role? {
        Role::Trader => trader(top, report).map(RoleConfig::Trader),
        Role::Exchange => exchange(top, name, report).map(RoleConfig::Exchange),
    }
}

fn trader(top: &Section<'_>, report: &mut Report<'_>) -> Option<Trader> {
    let section = top.table("store", KEYS, report);
    let (has_store, has_modules) = (!matches!(section, Field::Absent), top.key_span("module").is_some());
    let store = match section {
        Field::Absent => Some(None),
        Field::Refused => None,
        Field::Is(section, _) => store(&section, report).map(Some),
    };
    let modules = modules(top, report);
    let listen = listeners(top, report);
    // Where the listeners are not known, what they need is not known either.
    let listens_for = |session: bool| {
        listen.as_ref().map(|listen| listen.iter().any(|listen| (listen.protocol == Protocol::Session) == session))
    };
    let replicates = listens_for(false).or(top.key_span("listen").is_none().then_some(!has_modules));
    match (replicates, has_store) {
        (Some(true), false) => {
            top.missing("store", report, "add [store] with local = \"...\" and remote = \"...\"");
        }
        (Some(false), true) if listen.is_some() => {
            let fix = "add a [[listen]] for protocol = \"duplex\", or remove [store]";
            report.add(top.key_span("store"), "`store` is there, and every [[listen]] is for sessions", fix);
        }
        _ => {}
    }
    match (listens_for(true), has_modules) {
        (Some(true), false) => {
            let fix = "add [[module]] with name = \"data\" and path = \"...\"";
            top.missing("module", report, fix);
        }
        (Some(false), true) => {
            let fix = "add [[listen]] with protocol = \"session\", or remove them";
            report.add(top.key_span("module"), "`module` is there, and no [[listen]] is for sessions", fix);
        }
        _ => {}
    }
    let (store, modules) = (store?, modules?);
    written_once(top, store.as_ref(), &modules, report);
    Some(Trader { store, modules, listen: listen? })
}

/// Notes where a module that may be written to shares files with another such module, or with the store.
fn written_once(top: &Section<'_>, store: Option<&StoreConfig>, modules: &[Module], report: &mut Report<'_>) {
    let span = top.key_span("module");
    let mut add = |name: &str, key: &str, path: &Path, fix: &str| {
        let what = format!("module \"{name}\" may be written to, and shares files with {key} ({})", path.display());
        report.add(span.clone(), what, fix);
    };
    let apart = "give each its own directory, or write read_only = true";
    let writable = || modules.iter().filter(|module| !module.read_only);
    for (index, module) in writable().enumerate() {
        if let Some(store) = store {
            if overlap(&module.path, &store.remote) {
                add(&module.name, "`store.remote`", &store.remote, apart);
            }
            if module.path.starts_with(&store.local) && module.path != store.local {
                let fix = "name `store.local` itself as the module's path, or another directory";
                add(&module.name, "`store.local`", &store.local, fix);
            }
        }
        for other in writable().take(index).filter(|other| overlap(&module.path, &other.path)) {
            add(&module.name, &format!("module \"{}\"", other.name), &other.path, apart);
        }
    }
}

fn modules(top: &Section<'_>, report: &mut Report<'_>) -> Option<Vec<Module>> {
    let sections = match top.tables("module", KEYS, report) {
        Field::Absent => return Some(Vec::new()),
        Field::Refused => return None,
        Field::Is(sections, _) => sections,
    };
    if sections.is_empty() {
        report.add(top.key_span("module"), "`module` is empty", "add [[module]] with name and path, or remove it");
        return None;
    }
    if sections.len() > limits::MODULES_MAX {
        let what = format!("there are {} [[module]], more than {}", sections.len(), limits::MODULES_MAX);
        report.add(top.key_span("module"), what, "remove some");
        return None;
    }
    let mut seen: Vec<String> = Vec::with_capacity(sections.len());
    let mut modules = Vec::with_capacity(sections.len());
    for section in &sections {
        let name = section.parsed("name", report, value::module_name).then(&section.name("name"), report, |name| {
            match seen.contains(&name) {
                true => Err(Refusal::new(format!("\"{name}\" is there already"), "give each [[module]] its own name")),
                false => Ok(name),
            }
        });
        let name = section.required("name", name, report, "write the name that clients use, as name = \"data\"");
        seen.extend(name.clone());
        let path = section.parsed("path", report, value::path);
        let path = section.required("path", path, report, "write the directory that clients reach");
        let read_only = section.boolean("read_only", report).or(true);
        let allow = allow(section, report);
        if let (Some(name), Some(path), Some(read_only), Some(allow)) = (name, path, read_only, allow) {
            modules.push(Module { name, path, read_only, allow });
        }
    }
    (modules.len() == sections.len()).then_some(modules)
}

fn store(store: &Section<'_>, report: &mut Report<'_>) -> Option<StoreConfig> {
    let local = store.parsed("local", report, value::path);
    let local = store.required("local", local, report, "write the directory whose files are sent");
    let remote = store.parsed("remote", report, value::path);
    let remote = store.required("remote", remote, report, "write the directory that files are fetched into");
    if let (Some(local), Some(remote)) = (&local, &remote)
        && overlap(local, remote)
    {
        let what = match local == remote {
            true => "`store.local` and `store.remote` are the same directory",
            false => "`store.local` and `store.remote` are inside one another",
        };
        let fix = "give each its own directory, or what was fetched would be sent back";
        report.add(store.key_span("remote"), what, fix);
    }
    let segments = match store.table("segments", KEYS, report) {
        Field::Absent => Some(None),
        Field::Refused => None,
        Field::Is(section, span) => segments(&section, span, report).map(Some),
    };
    let delete = delete(store, report);
    Some(StoreConfig { local: local?, remote: remote?, segments: segments?, delete: delete? })
}

/// What is gone at the far trader can go here only where nothing else says what should be here.
fn delete(store: &Section<'_>, report: &mut Report<'_>) -> Option<Delete> {
    let field = store.parsed("delete", report, value::delete);
    let field = field.then("store.delete", report, |delete| match delete {
        Delete::Mirror if store.key_span("segments").is_some() => Err(Refusal::new(
            "what is in `store.segments` is wanted whether the far trader has it or not, and nothing else is fetched",
            "write \"keep\", or remove `store.segments`",
        )),
        delete => Ok(delete),
    });
    field.or(Delete::Keep)
}

fn segments(section: &Section<'_>, span: Span, report: &mut Report<'_>) -> Option<Segments> {
    let positive = |number: u64| match number {
        0 => Err(Refusal::new("0 are too few", "write a number of at least 1")),
        _ => Ok(number),
    };
    let pattern = section.parsed("pattern", report, value::pattern);
    let pattern = section.required("pattern", pattern, report, "write names with ranges, as \"stock{1..10}_{1..50}\"");
    let mut number = |key, fix| {
        let field = section.integer(key, report).then(&section.name(key), report, positive);
        section.required(key, field, report, fix)
    };
    let records = number("records", "write how many records one segment has");
    let record_bytes = number("record_bytes", "write how long one record is");
    let (pattern, records, record_bytes) = (pattern?, records?, record_bytes?);
    if records.checked_mul(record_bytes).is_none_or(|bytes| bytes > limits::OBJECT_BYTES_MAX) {
        let what = format!("{records} records of {record_bytes} bytes are longer than any file can be");
        report.add(Some(span), what, "write fewer records or fewer bytes");
        return None;
    }
    Some(Segments { pattern, records, record_bytes })
}

fn listeners(top: &Section<'_>, report: &mut Report<'_>) -> Option<Vec<Listen>> {
    let fix = "add [[listen]] with address = \"0.0.0.0:7401\"";
    let sections = top.tables("listen", KEYS, report);
    let sections = top.required("listen", sections, report, fix)?;
    if sections.is_empty() {
        report.add(top.key_span("listen"), "`listen` is empty: nobody could connect", fix);
        return None;
    }
    if sections.len() > limits::LISTENERS_MAX {
        let what = format!("there are {} [[listen]], more than {}", sections.len(), limits::LISTENERS_MAX);
        report.add(top.key_span("listen"), what, "remove some");
        return None;
    }
    let mut seen: Vec<SocketAddr> = Vec::with_capacity(sections.len());
    let mut listeners = Vec::with_capacity(sections.len());
    for section in &sections {
        let address = listen_address(section, &mut seen, report);
        let protocol = section.parsed("protocol", report, value::protocol).or(Protocol::Duplex);
        let allow = allow(section, report).map(|allow| allow.unwrap_or_else(|| vec![Cidr::ANY_V4, Cidr::ANY_V6]));
        let peer = section.parsed("peer", report, value::node_name);
        let peer = peer.then(&section.name("peer"), report, |peer| match protocol {
            Some(Protocol::Session) => Err(Refusal::new("clients of sessions have no name", "remove it")),
            Some(Protocol::Named) => Err(Refusal::new("clients that ask by name have none of their own", "remove it")),
            _ => Ok(peer),
        });
        let peer = peer.optional();
        let peer = peer.map(|peer| peer.map(|name| name.as_str().to_owned()));
        if let (Some(address), Some(protocol), Some(allow), Some(peer)) = (address, protocol, allow, peer) {
            listeners.push(Listen { address, protocol, allow, peer });
        }
    }
    (listeners.len() == sections.len()).then_some(listeners)
}

fn listen_address(section: &Section<'_>, seen: &mut Vec<SocketAddr>, report: &mut Report<'_>) -> Option<SocketAddr> {
    let name = section.name("address");
    let field = section.parsed("address", report, value::socket_address).then(&name, report, |address| {
        match seen.iter().find(|other| share(address, **other)) {
            Some(other) if *other == address => {
                Err(Refusal::new(format!("{address} is there already"), "give each [[listen]] its own address"))
            }
            Some(other) => {
                let what = format!("{address} and {other} of another [[listen]] take in one another");
                Err(Refusal::new(what, "give each [[listen]] its own port, or write the one that takes in all"))
            }
            None => Ok(address),
        }
    });
    let address = section.required("address", field, report, "write address = \"0.0.0.0:7401\"");
    seen.extend(address);
    address
}

/// Whether only one of these can be listened on. Port 0 is a different port each time.
fn share(one: SocketAddr, two: SocketAddr) -> bool {
    let takes_in = |all: SocketAddr, one: SocketAddr| {
        // The one of IPv6 takes in IPv4, too.
        all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4())
    };
    one.port() != 0 && one.port() == two.port() && (one.ip() == two.ip() || takes_in(one, two) || takes_in(two, one))
}

/// Who may connect, or use a module; everybody where the key is absent, which
/// [`check_environment`](super::check_environment) points out of listeners.
fn allow(section: &Section<'_>, report: &mut Report<'_>) -> Option<Option<Vec<Cidr>>> {
    let name = section.name("allow");
    let field = section.texts("allow", report).then(&name, report, |texts| match texts.len() {
        0 => Err(Refusal::new("nobody could connect", "write who may, as [\"10.1.0.0/16\"]")),
        1..=limits::ALLOW_MAX => Ok(texts),
        more => Err(Refusal::new(format!("{more} networks are more than {}", limits::ALLOW_MAX), "write wider ones")),
    });
    let texts = match field {
        Field::Absent => return Some(None),
        Field::Refused => return None,
        Field::Is(texts, _) => texts,
    };
    every(&name, texts, report, value::cidr).map(|networks| Some(networks.into_iter().map(|(net, _)| net).collect()))
}

fn exchange(top: &Section<'_>, name: Option<&NodeName>, report: &mut Report<'_>) -> Option<Exchange> {
    let spool = top.table("spool", KEYS, report);
    let spool = top.required("spool", spool, report, "add [spool] with path = \"...\"");
    let peers = peers(top, name, report);
    let spool = spool?;
    let path = spool.parsed("path", report, value::path);
    let path = spool.required("path", path, report, "write the directory for what passes through");
    let max_bytes = spool.value("max_bytes").then("spool.max_bytes", report, value::byte_count);
    let max_bytes = max_bytes.or(ByteCount(limits::SPOOL_BYTES_DEFAULT));
    Some(Exchange { spool: Spool { path: path?, max_bytes: max_bytes? }, peers: peers? })
}

/// A link and where the config says so.
type PlacedLink = (LinkAddress, Span);

fn peers(top: &Section<'_>, own_name: Option<&NodeName>, report: &mut Report<'_>) -> Option<[Peer; 2]> {
    let fix = "write [[peer]] twice, once for each trader";
    let sections = top.tables("peer", KEYS, report);
    let sections = top.required("peer", sections, report, fix)?;
    let mut found: Vec<(Option<NodeName>, Option<Vec<PlacedLink>>)> = Vec::with_capacity(sections.len());
    for section in &sections {
        let earlier = |peer: &NodeName| found.iter().any(|(name, _)| name.as_ref() == Some(peer));
        let name = section.parsed("name", report, value::node_name).then(&section.name("name"), report, |name| {
            match Some(&name) == own_name {
                true => Err(Refusal::new("this is the name of this node itself", "write the name of the trader")),
                false if earlier(&name) => {
                    Err(Refusal::new(format!("\"{name}\" is there already"), "give each peer the trader's own name"))
                }
                false => Ok(name),
            }
        });
        let name = section.required("name", name, report, "write the name that the trader has in its own config");
        let links = links(section, report);
        found.push((name, links));
    }
    if sections.len() != 2 {
        let place = sections.get(2).or(sections.last()).map_or(top.key_span("peer"), Section::place);
        let what = format!("an exchange relays between exactly two peers, and there are {}", sections.len());
        report.add(place, what, fix);
        return None;
    }
    let [(first_name, first), (second_name, second)] = <[_; 2]>::try_from(found).ok()?;
    if let (Some(first), Some(second)) = (&first, &second) {
        links_apart(first, second, report);
    }
    let peer = |name, links: Vec<PlacedLink>| Peer { name, links: links.into_iter().map(|(link, _)| link).collect() };
    Some([peer(first_name?, first?), peer(second_name?, second?)])
}

/// Notes what is wrong with the links of both peers together.
fn links_apart(first: &[PlacedLink], second: &[PlacedLink], report: &mut Report<'_>) {
    for (link, span) in second {
        if first.iter().any(|(other, _)| other.remote == link.remote) {
            let what = format!("{} belongs to both peers", link.remote);
            report.add(Some(span.clone()), what, "a trader would be sent its own objects: write the other's address");
        }
    }
    if let Some((_, span)) = second.last()
        && first.len() + second.len() > limits::LINKS_MAX
    {
        let what = format!("both peers have {} links, more than {}", first.len() + second.len(), limits::LINKS_MAX);
        report.add(Some(span.clone()), what, "remove some");
    }
}

fn links(section: &Section<'_>, report: &mut Report<'_>) -> Option<Vec<PlacedLink>> {
    let name = section.name("links");
    let field = section.texts("links", report).then(&name, report, |texts| match texts.is_empty() {
        true => Err(Refusal::new("the peer could not be reached", "write at least one, as [\"10.1.1.5:7401\"]")),
        false => Ok(texts),
    });
    let fix = "write one address for each connection, as links = [\"10.1.1.5:7401\"]";
    let texts = section.required("links", field, report, fix);
    let remotes = texts.and_then(|texts| every(&name, texts, report, value::remote));
    let bind_name = section.name("bind");
    let (binds, span) = match section.texts("bind", report) {
        Field::Absent => {
            let unbound = |(remote, span)| (LinkAddress { remote, bind: None }, span);
            return Some(remotes?.into_iter().map(unbound).collect());
        }
        Field::Refused => return None,
        Field::Is(texts, span) => (every(&bind_name, texts, report, value::address), span),
    };
    let (remotes, binds) = (remotes?, binds?);
    if remotes.len() != binds.len() {
        let what = format!("`{bind_name}` has {} where `links` has {}", binds.len(), remotes.len());
        report.add(Some(span), what, "write one for each link; \"0.0.0.0\" or \"::\" lets the kernel choose");
        return None;
    }
    let pairs = remotes.into_iter().zip(binds);
    pairs.map(|((remote, span), (bind, bind_span))| Some((link(remote, bind, bind_span, report)?, span))).collect()
}

/// One link; an unspecified address to bind to means that the kernel chooses.
fn link(remote: Remote, bind: IpAddr, bind_span: Span, report: &mut Report<'_>) -> Option<LinkAddress> {
    if let Remote::Address(address) = &remote
        && !bind.is_unspecified()
        && address.is_ipv4() != bind.is_ipv4()
    {
        let what = format!("{bind} and {address} are of different families");
        report.add(Some(bind_span), what, "write both as IPv4 or both as IPv6");
        return None;
    }
    Some(LinkAddress { remote, bind: (!bind.is_unspecified()).then_some(bind) })
}

/// Each of `texts` parsed, with its place; `None` where one of them was refused.
fn every<T>(
    name: &str,
    texts: Vec<(&str, Span)>,
    report: &mut Report<'_>,
    parse: impl Fn(&str) -> Result<T, Refusal>,
) -> Option<Vec<(T, Span)>> {
    let count = texts.len();
    let mut values = Vec::with_capacity(count);
    for (index, (text, span)) in texts.into_iter().enumerate() {
        if let Field::Is(value, span) = Field::Is(text, span).then(&format!("{name}[{index}]"), report, &parse) {
            values.push((value, span));
        }
    }
    (values.len() == count).then_some(values)
}

/// Notes where the node's own files would be among what it replicates or clears.
fn apart(
    top: &Section<'_>,
    role: &RoleConfig,
    state_dir: &PathBuf,
    control: Option<&Control>,
    report: &mut Report<'_>,
) {
    let (roots, modules): (Vec<(&str, &PathBuf)>, &[Module]) = match role {
        RoleConfig::Trader(Trader { store, modules, .. }) => {
            let roots = store.iter().flat_map(|store| [("store.local", &store.local), ("store.remote", &store.remote)]);
            (roots.collect(), modules)
        }
        RoleConfig::Exchange(exchange) => (vec![("spool.path", &exchange.spool.path)], &[]),
    };
    let socket = control.map(|control| ("control.socket", &control.socket, top.key_span("control")));
    let http = control.and_then(|control| match &control.http {
        Some(HttpAddress::Socket(path)) => Some(("control.http", path, top.key_span("control"))),
        _ => None,
    });
    let own = [Some(("state_dir", state_dir, top.key_span("state_dir"))), socket, http];
    for (key, path, span) in own.into_iter().flatten() {
        for (root_key, root) in &roots {
            if path.starts_with(root) {
                let what = format!("`{key}` ({}) is inside `{root_key}` ({})", path.display(), root.display());
                report.add(span.clone(), what, "put it elsewhere: everything in there is taken for objects");
            }
        }
        for module in modules.iter().filter(|module| !module.read_only && path.starts_with(&module.path)) {
            let what =
                format!("`{key}` ({}) is inside module \"{}\", which may be written to", path.display(), module.name);
            report.add(span.clone(), what, "put it elsewhere: clients could replace and remove it");
        }
    }
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}
