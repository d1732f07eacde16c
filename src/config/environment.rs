//! What this host has to say to a config: directories, rights, addresses. Looks, and changes nothing but for the
//! sockets it binds and closes again.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, eaccess};

use super::model::{
    Config, EngineChoice, Exchange, HttpAddress, Listen, Module, Protocol, Remote, RoleConfig, StoreConfig, Trader,
};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know.
    Info,
    /// The node starts, and somebody should look.
    Warning,
    /// The node could not start or could not do its work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What was found, with its key.
    pub what: String,
    /// What to do; empty where there is nothing to do.
    pub fix: String,
}

impl Finding {
    /// Without how much it matters.
    pub fn in_a_line(&self) -> String {
        let Self { what, fix, .. } = self;
        if fix.is_empty() { what.clone() } else { format!("{what}: {fix}") }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.what)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, "\n      {}", self.fix) }
    }
}

/// Holds `config` against this host, as the user that runs this. May ask the resolver for host names.
pub fn check_environment(config: &Config) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    let running = UnixStream::connect(&config.control.socket).is_ok();
    if running {
        let what = format!("a node answers on control.socket ({})", config.control.socket.display());
        findings.add(Severity::Info, what, "");
    }
    findings.directory("state_dir", &config.state_dir, Access::Write);
    findings.socket("control.socket", &config.control.socket);
    match &config.control.http {
        Some(HttpAddress::Loopback(address)) => findings.address("control.http", *address, running),
        Some(HttpAddress::Socket(path)) => findings.socket("control.http", path),
        None => {}
    }
    match &config.role {
        RoleConfig::Trader(trader) => findings.trader(trader, running),
        RoleConfig::Exchange(exchange) => findings.exchange(exchange),
    }
    if let Some(congestion) = &config.congestion {
        findings.congestion(congestion);
    }
    findings.engine(config.engine);
    findings.memlock();
    findings.0
}

/// What keeps modules from being served to this user.
pub fn check_modules<'m>(modules: impl IntoIterator<Item = &'m Module>) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    modules.into_iter().for_each(|module| findings.module(module));
    findings.errors()
}

/// What on this host keeps a node that runs with `old` from running with `new`, as a reload would have it. What it had
/// before is no worse for a reload, and is not looked at.
pub fn check_reload(old: &Config, new: &Config) -> Vec<Finding> {
    match (&old.role, &new.role) {
        (RoleConfig::Trader(old), RoleConfig::Trader(new)) => {
            let needs = |module: &Module| (module.path.clone(), module.read_only);
            let is_new = |module: &&Module| !old.modules.iter().any(|old| needs(old) == needs(module));
            check_modules(new.modules.iter().filter(is_new))
        }
        (RoleConfig::Exchange(old), RoleConfig::Exchange(new)) => {
            let mut findings = Findings(Vec::new());
            let had: Vec<IpAddr> = old.peers.iter().flat_map(|peer| &peer.links).filter_map(|link| link.bind).collect();
            for peer in &new.peers {
                let binds = peer.links.iter().filter_map(|link| link.bind);
                binds.filter(|bind| !had.contains(bind)).for_each(|bind| findings.bind(peer.name.as_str(), bind));
            }
            findings.errors()
        }
        _ => Vec::new(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, what: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Finding { severity, what: what.into(), fix: fix.into() });
    }

    fn errors(mut self) -> Vec<Finding> {
        self.0.retain(|finding| finding.severity == Severity::Error);
        self.0
    }

    fn trader(&mut self, trader: &Trader, running: bool) {
        if let Some(store) = &trader.store {
            self.store(store);
        }
        for module in &trader.modules {
            self.module(module);
        }
        for listen in &trader.listen {
            self.listener(listen, running);
        }
    }

    fn store(&mut self, store: &StoreConfig) {
        self.given("store.local", &store.local, Access::Read);
        self.directory("store.remote", &store.remote, Access::Write);
        if let (Ok(local), Ok(remote)) = (fs::canonicalize(&store.local), fs::canonicalize(&store.remote))
            && (local.starts_with(&remote) || remote.starts_with(&local))
        {
            let what = format!(
                "store.local ({}) and store.remote ({}) lead to the same place",
                local.display(),
                remote.display()
            );
            self.add(Severity::Error, what, "a symbolic link joins them: give each its own directory");
        }
    }

    fn module(&mut self, module: &Module) {
        let access = if module.read_only { Access::Read } else { Access::Write };
        self.given(&format!("module {}", module.name), &module.path, access);
    }

    /// A directory that the node never makes: what is not there is not mounted, or mistyped.
    fn given(&mut self, key: &str, path: &Path, access: Access) {
        if !path.exists() && matches!(nearest_existing(path), Some((near, false)) if near.is_dir()) {
            let what = format!("{key}: {} is not there", path.display());
            return self.add(Severity::Error, what, "make it, mount it, or write the path of another directory");
        }
        self.directory(key, path, access);
    }

    /// A path that is to be a unix socket's.
    fn socket(&mut self, key: &str, path: &Path) {
        if let Some(parent) = path.parent() {
            self.directory(&format!("the directory of {key}"), parent, Access::Write);
        }
        if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
            let what = format!("{key}: {} is there, and is not a socket", path.display());
            self.add(Severity::Error, what, "remove it, or write another path");
        }
    }

    /// An address that the node is to listen on; `running`: a node of this config runs.
    fn address(&mut self, key: &str, address: SocketAddr, running: bool) {
        if let Err(error) = TcpListener::bind(address) {
            let what = format!("{key} {address}: {}", reason(&error));
            match error.kind() {
                ErrorKind::AddrInUse if running => self.add(Severity::Info, what, "probably by the node that runs"),
                ErrorKind::AddrInUse => {
                    self.add(Severity::Error, what, format!("`ss -ltnp` shows who has port {}", address.port()))
                }
                ErrorKind::AddrNotAvailable => self.add(Severity::Error, what, "`ip address` shows what this host has"),
                ErrorKind::PermissionDenied => self.add(Severity::Error, what, "choose a port from 1024 on"),
                _ => self.add(Severity::Error, what, "choose another address"),
            }
        }
        if address.port() == 0 {
            let what = format!("{key} {address}: the kernel chooses a different port at each start");
            self.add(Severity::Warning, what, "write a port, so that it can be dialed");
        }
    }

    fn listener(&mut self, listen: &Listen, running: bool) {
        let address = listen.address;
        self.address("listen", address, running);
        let allows_all = listen.allow.iter().any(|net| net.contains(UNRELATED_V4) || net.contains(UNRELATED_V6));
        if allows_all && !address.ip().is_loopback() {
            let (may, who) = match listen.protocol {
                Protocol::Duplex => ("fetch everything", "exchanges"),
                Protocol::Named => ("fetch everything", "clients"),
                Protocol::Session => ("use every module that does not say who may", "clients"),
            };
            let what = format!("listen {address}: everybody who reaches it may {may}");
            self.add(Severity::Warning, what, format!("write allow with the networks of the {who}"));
        }
    }

    fn exchange(&mut self, exchange: &Exchange) {
        let spool = &exchange.spool;
        self.directory("spool.path", &spool.path, Access::Write);
        if let Some((existing, _)) = nearest_existing(&spool.path)
            && let Ok(stat) = statvfs(&existing)
        {
            let free = stat.blocks_available().saturating_mul(stat.fragment_size());
            if free < spool.max_bytes.0 {
                let what =
                    format!("spool.max_bytes is {}, and {} has {free} free", spool.max_bytes, existing.display());
                self.add(Severity::Warning, what, "lower it or make room: a full disk stops the relay");
            }
        }
        for peer in &exchange.peers {
            for link in &peer.links {
                if let Remote::Host { name, port } = &link.remote
                    && let Err(error) = (name.as_str(), *port).to_socket_addrs()
                {
                    let what = format!("peer {}: {name} does not resolve: {error}", peer.name);
                    self.add(Severity::Warning, what, "it is tried again at each dial; write an address to be sure");
                }
                if let Some(bind) = link.bind {
                    self.bind(peer.name.as_str(), bind);
                }
            }
        }
    }

    /// An address that links to `peer` are to come from.
    fn bind(&mut self, peer: &str, bind: IpAddr) {
        if let Err(error) = TcpListener::bind(SocketAddr::new(bind, 0)) {
            let what = format!("peer {peer}: cannot bind to {bind}: {}", reason(&error));
            self.add(Severity::Error, what, "`ip address` shows what this host has");
        }
    }

    /// A directory that must be there with these rights, or that could be made.
    fn directory(&mut self, key: &str, path: &Path, access: Access) {
        let shown = path.display();
        let Some((existing, is_itself)) = nearest_existing(path) else {
            return self.add(
                Severity::Error,
                format!("{key}: {shown} cannot be looked at"),
                "check its parents' rights",
            );
        };
        let user = nix::unistd::geteuid();
        if !existing.is_dir() {
            let what = format!("{key}: {} is not a directory", existing.display());
            return self.add(Severity::Error, what, "write the path of a directory");
        }
        let wanted = match access {
            Access::Read => AccessFlags::R_OK | AccessFlags::X_OK,
            Access::Write => AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK,
        };
        let allowed = eaccess(&existing, wanted);
        match (is_itself, allowed) {
            (true, Ok(())) => {}
            (true, Err(error)) => {
                let verb = if access == Access::Read { "read" } else { "write to" };
                let what = format!("{key}: user {user} may not {verb} {shown}: {}", error.desc());
                self.add(Severity::Error, what, format!("chown it, or run this as the user that may {verb} it"));
            }
            (false, Ok(())) => {
                self.add(Severity::Info, format!("{key}: {shown} is not there; it can be made"), "");
            }
            (false, Err(error)) => {
                let what = format!(
                    "{key}: {shown} is not there, and user {user} may not make it in {}: {}",
                    existing.display(),
                    error.desc()
                );
                self.add(Severity::Error, what, format!("mkdir -p {shown}, and chown it to the user of the node"));
            }
        }
    }

    fn congestion(&mut self, congestion: &str) {
        const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
        if let Ok(available) = fs::read_to_string(AVAILABLE)
            && !available.split_whitespace().any(|name| name == congestion)
        {
            let what = format!("congestion: the kernel has {}, not {congestion}", available.trim());
            self.add(Severity::Warning, what, format!("modprobe tcp_{congestion}, or write one of those"));
        }
    }

    fn engine(&mut self, wanted: EngineChoice) {
        const FIX: &str = "`supersyncd doctor` tries each part of it and says what to change";
        match wanted.driver() {
            Ok((driver, None)) => self.add(Severity::Info, format!("engine: {driver}"), ""),
            Ok((driver, Some(why))) => self.add(Severity::Warning, format!("engine: {driver}: {why}"), FIX),
            Err(why) => self.add(Severity::Error, format!("engine = \"{wanted}\": {why}"), FIX),
        }
    }

    fn memlock(&mut self) {
        match getrlimit(Resource::RLIMIT_MEMLOCK) {
            Ok((RLIM_INFINITY, _)) => self.add(Severity::Info, "memory that may be locked: unlimited", ""),
            Ok((soft, hard)) => {
                let hard = if hard == RLIM_INFINITY { "unlimited".to_owned() } else { format!("{hard} bytes") };
                self.add(Severity::Info, format!("memory that may be locked: {soft} bytes of {hard}"), "");
            }
            Err(error) => self.add(Severity::Warning, format!("cannot read RLIMIT_MEMLOCK: {}", error.desc()), ""),
        }
    }
}

/// Documentation addresses (RFC 5737, RFC 3849): only a network that means everybody contains them.
const UNRELATED_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));
const UNRELATED_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// `path` itself and true, or else the nearest of its parents that is there; `None` where none can be seen.
fn nearest_existing(path: &Path) -> Option<(PathBuf, bool)> {
    for ancestor in path.ancestors() {
        match fs::metadata(ancestor) {
            Ok(_) => return Some((ancestor.to_owned(), ancestor == path)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // A file where a directory should be: it is what stands in the way.
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            Err(_) => return None,
        }
    }
    None
}

/// What went wrong in words, without the number.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
