//! What a valid config says. Everything here has been checked; nothing here reads text or the system.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::units::{ByteCount, NodeName, PacketLen};
use crate::uring::{DriverKind, RingError, probe};

/// Everything that one node is told. A `Config` that came out of [`parse`](super::parse) or
/// [`load`](super::load) is valid: names fit, paths are absolute, addresses are addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What the node calls itself towards its peers and its operators.
    pub name: NodeName,
    /// What the node is, with what only such a node has.
    pub role: RoleConfig,
    /// N; both ends of a link must have the same.
    pub packet_len: PacketLen,
    /// What moves the bytes.
    pub engine: EngineChoice,
    /// Where the node keeps what it must remember; never inside a replicated directory.
    pub state_dir: PathBuf,
    /// Where the node answers its operators.
    pub control: Control,
    /// Worker threads, at most [`WORKERS_MAX`](crate::limits::WORKERS_MAX); `None`: by the number of cores.
    pub workers: Option<NonZeroUsize>,
    /// Whether links to nodes of our own that say so too carry checked blocks instead of whole objects.
    pub blocks: bool,
    /// TCP congestion control of every link (tcp(7), TCP_CONGESTION); `None`: the system's default.
    pub congestion: Option<String>,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Has objects and wants the other trader's; listens.
    Trader,
    /// Relays between two traders; dials both.
    Exchange,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trader => "trader",
            Self::Exchange => "exchange",
        })
    }
}

/// A role with what only this role has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleConfig {
    /// `[store]`, `[[module]]` and `[[listen]]`.
    Trader(Trader),
    /// `[spool]` and `[[peer]]`.
    Exchange(Exchange),
}

impl RoleConfig {
    /// The role alone.
    pub fn role(&self) -> Role {
        match self {
            Self::Trader(_) => Role::Trader,
            Self::Exchange(_) => Role::Exchange,
        }
    }
}

/// What moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineChoice {
    /// io_uring where the kernel lets us, else plain system calls.
    Auto,
    /// io_uring, or the node does not start.
    Uring,
    /// Plain system calls.
    Blocking,
}

impl EngineChoice {
    /// All there are, and how they are written.
    pub const NAMED: [(&str, Self); 3] = [("auto", Self::Auto), ("uring", Self::Uring), ("blocking", Self::Blocking)];

    /// What it comes to on this host, where rings are tried if one is wanted; and why it is none where it could have
    /// been.
    ///
    /// # Errors
    /// It must be a ring, and the kernel gives none that would do.
    pub fn driver(self) -> Result<(DriverKind, Option<RingError>), RingError> {
        match self {
            Self::Blocking => Ok((DriverKind::Blocking, None)),
            Self::Auto => Ok(match probe::try_rings() {
                Ok(()) => (DriverKind::UringOrBlocking, None),
                Err(why) => (DriverKind::Blocking, Some(why)),
            }),
            Self::Uring => probe::try_rings().map(|()| (DriverKind::Uring, None)),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Blocking => "blocking",
        })
    }
}

/// Where the node answers its operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The unix socket that `supersyncctl` talks to; at most
    /// [`SOCKET_PATH_BYTES_MAX`](crate::limits::SOCKET_PATH_BYTES_MAX) bytes.
    pub socket: PathBuf,
    /// Page, metrics and health; `None`: they are not served.
    pub http: Option<HttpAddress>,
}

/// Where page, metrics and health are served: never to another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAddress {
    /// A loopback address.
    Loopback(SocketAddr),
    /// A unix socket, of another path than [`Control::socket`], within the same bound.
    Socket(PathBuf),
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(address) => address.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// What only a trader has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trader {
    /// What it replicates; there if and only if it listens for anything but sessions.
    pub store: Option<StoreConfig>,
    /// The directories that sessions reach, in the order of the config, each name once; there if and only if it listens
    /// for sessions.
    pub modules: Vec<Module>,
    /// Where it listens: at least one, no address twice.
    pub listen: Vec<Listen>,
}

impl Trader {
    /// Whether it has links with others of a site: exchanges, which fetch for a trader and from it.
    pub fn has_peers(&self) -> bool {
        self.listen.iter().any(|listen| listen.protocol == Protocol::Duplex)
    }

    /// Whether it is to fetch whatever these tell of, for want of a list.
    pub fn goes_by_what_is_told(&self) -> bool {
        self.has_peers() && self.store.as_ref().is_some_and(|store| store.segments.is_none())
    }
}

/// What a trader replicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The root it serves. Neither inside `remote` nor around it.
    pub local: PathBuf,
    /// The root it fetches into.
    pub remote: PathBuf,
    /// What should be in both roots; `None`: whatever is there.
    pub segments: Option<Segments>,
    /// What becomes of an object that the far trader has no more. [`Delete::Mirror`] only without `segments`.
    pub delete: Delete,
}

/// A directory that sessions reach under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The first component of the paths that lead into it: letters, digits, `.`, `_` and `-`, neither `.` nor `..`, at
    /// most [`MODULE_NAME_BYTES_MAX`](crate::limits::MODULE_NAME_BYTES_MAX) bytes.
    pub name: String,
    /// Its directory. One that may be written to shares nothing with another such, nor with what the node itself
    /// writes.
    pub path: PathBuf,
    /// It can be pulled from and not pushed to.
    pub read_only: bool,
    /// Who of those that may connect may use it; `None`: all of them. Never empty.
    pub allow: Option<Vec<Cidr>>,
}

impl Module {
    /// Whether a client at `address` may use it, if it may connect.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.iter().any(|network| network.contains(address)))
    }
}

/// What becomes of an object in `remote` that the far trader has no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Delete {
    /// It stays.
    #[default]
    Keep,
    /// It goes, with its marker.
    Mirror,
}

impl fmt::Display for Delete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Mirror => "mirror",
        })
    }
}

/// The objects of a segment store: their names and their length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// Names with ranges, as `stock{1..10}_{1..50}`: not empty, braces in pairs. The store reads the ranges.
    pub pattern: String,
    /// Records of one segment, at least 1.
    pub records: u64,
    /// Bytes of one record, at least 1.
    pub record_bytes: u64,
}

impl Segments {
    /// Length of every segment. Cannot overflow in a parsed config.
    pub fn object_bytes(&self) -> ByteCount {
        ByteCount(self.records.saturating_mul(self.record_bytes))
    }
}

/// One address a trader listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Who may connect: never empty.
    pub allow: Vec<Cidr>,
    /// Who connects here, for seed-only peers, which do not say who they are.
    pub peer: Option<String>,
}

impl Listen {
    /// Whether who has this address may connect.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(address))
    }
}

/// What is spoken on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Seed 000: with exchanges, both ways.
    Duplex,
    /// Seed 001: clients fetch what is in `local/`, by name.
    Named,
    /// Seed 002: trees are pushed to modules and pulled from them.
    Session,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplex => "duplex",
            Self::Named => "named",
            Self::Session => "session",
        })
    }
}

/// A network, as `10.1.0.0/16` or `fd00::/8`; a single address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr(IpNet);

/// Bits before the IPv4 address in an IPv6 address that stands for one (RFC 4291, 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// Why a text is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Neither an address nor an address and a prefix length.
    #[error("it is neither an address nor ADDRESS/PREFIX")]
    Form,
    /// Bits are set behind the prefix, as in `10.1.2.3/16`.
    #[error("it has bits set behind its prefix; the network would be {0}")]
    HostBits(Cidr),
}

impl Cidr {
    /// Every IPv4 address.
    pub const ANY_V4: Self = Self(IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 0)));
    /// Every IPv6 address.
    pub const ANY_V6: Self = Self(IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::UNSPECIFIED, 0)));

    /// Reads `ADDRESS/PREFIX` or `ADDRESS`. IPv4 addresses that are written as IPv6 sockets have them
    /// (`::ffff:10.1.1.5`) are the IPv4 addresses that they are.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| CidrError::Form)?,
        };
        if net.trunc() != net {
            return Err(CidrError::HostBits(Self(net.trunc())));
        }
        let mapped = match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => net.addr().to_ipv4_mapped().zip(net.prefix_len().checked_sub(MAPPED_PREFIX)),
        };
        let as_v4 = mapped.and_then(|(address, prefix)| ipnet::Ipv4Net::new(address, prefix).ok());
        Ok(Self(as_v4.map_or(net, IpNet::V4)))
    }

    /// Whether `address` is in this network. An IPv4 address that arrived on an IPv6 socket
    /// (`::ffff:10.1.1.5`) counts as the IPv4 address it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What only an exchange has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Where it keeps what passes through.
    pub spool: Spool,
    /// The two traders it relays between; their names differ, and no address belongs to both.
    pub peers: [Peer; 2],
}

/// Where an exchange keeps what passes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// Its directory.
    pub path: PathBuf,
    /// Most bytes in it, at least 1.
    pub max_bytes: ByteCount,
}

/// A trader that an exchange dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, as in its own config.
    pub name: NodeName,
    /// One connection each; at least one, and the same address may stand here several times.
    pub links: Vec<LinkAddress>,
}

/// Both ends of one connection that an exchange makes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LinkAddress {
    /// Where to dial.
    pub remote: Remote,
    /// The own address to dial from, of the same family; `None`: the kernel chooses.
    pub bind: Option<IpAddr>,
}

/// Where to dial; the port is never 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Remote {
    /// Needs no resolving.
    Address(SocketAddr),
    /// Resolved anew at each dial.
    Host {
        /// A host name (RFC 1123).
        name: String,
        /// TCP port.
        port: u16,
    },
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let check = |net: &str, address: &str, expected: bool| {
            let net = Cidr::parse(net).expect("valid network");
            assert_eq!(net.contains(address.parse().expect("valid address")), expected, "{address} in {net}");
        };
        check("10.1.0.0/16", "10.1.255.255", true);
        check("10.1.0.0/16", "10.2.0.0", false);
        check("10.1.0.0/16", "::ffff:10.1.2.3", true);
        check("10.1.1.5", "10.1.1.5", true);
        check("10.1.1.5", "10.1.1.6", false);
        check("0.0.0.0/0", "255.1.2.3", true);
        check("0.0.0.0/0", "::1", false);
        check("fd00::/8", "fd12::1", true);
        check("fd00::/8", "fe80::1", false);
        check("::/0", "fe80::1", true);
        // These admitted nobody at all.
        check("::ffff:10.1.1.5", "10.1.1.5", true);
        check("::ffff:10.1.0.0/112", "::ffff:10.1.1.5", true);
        check("::ffff:10.1.0.0/112", "10.2.1.5", false);
        check("::ffff:0:0/96", "10.2.1.5", true);
        check("::ffff:0:0/96", "fe80::1", false);
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for text in ["", "10.1.0.0/33", "10.1.0/16", "10.1.0.0/", "fd00::/129", "everyone", "10.1.0.0/16 "] {
            assert_eq!(Cidr::parse(text), Err(CidrError::Form), "{text:?}");
        }
        let network = Cidr::parse("10.1.0.0/16").expect("valid network");
        assert_eq!(Cidr::parse("10.1.2.3/16"), Err(CidrError::HostBits(network)));
    }
}
