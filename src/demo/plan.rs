//! What the demo is going to do, and the configs that say so.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::options::Options;
use super::records::RECORD_BYTES;
use super::{DemoError, size};
use crate::limits;
use crate::units::Rate;

/// Room for what is beside the data: parts, markers, directories.
const SLACK_BYTES: u64 = 16 << 20;

/// What the demo is going to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Segments of each trader.
    pub(super) segments: u32,
    /// Records of each segment.
    pub(super) records: u64,
    /// Their names, as in a config.
    pub(super) pattern: String,
    pub(super) links: u16,
    pub(super) exchanges: u16,
    pub(super) packet_bytes: u32,
    pub(super) link_rate: Option<Rate>,
    pub(super) seed: u64,
    /// An exchange is killed half way.
    pub(super) chaos: bool,
}

impl Plan {
    pub(super) fn new(options: &Options) -> Result<Self, DemoError> {
        let (segments, records) = shape(options);
        let plan = Self {
            segments,
            records,
            pattern: pattern(segments),
            links: options.links,
            exchanges: options.exchanges,
            packet_bytes: options.packet_bytes,
            link_rate: options.link_rate,
            seed: options.seed,
            chaos: !options.no_chaos,
        };
        let bytes = records.checked_mul(RECORD_BYTES as u64).and_then(|bytes| bytes.checked_mul(u64::from(segments)));
        // Far enough from the end of the numbers for all that is added up from it.
        match bytes {
            Some(bytes) if bytes < limits::OBJECTS_MAX as u64 * (1 << 30) => Ok(plan),
            _ => Err(DemoError::TooMuch { segments, records }),
        }
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.records * RECORD_BYTES as u64
    }

    /// Bytes of each trader's own store.
    pub(super) fn data_bytes(&self) -> u64 {
        u64::from(self.segments) * self.segment_bytes()
    }

    fn spool_bytes(&self) -> u64 {
        limits::DEMO_SPOOL_SEGMENTS * self.segment_bytes()
    }

    /// Local and remote of both traders, and the spools as full as they can be.
    fn space_bytes(&self) -> u64 {
        let spool = self.spool_bytes().min(2 * self.data_bytes());
        4 * self.data_bytes() + u64::from(self.exchanges) * spool + SLACK_BYTES
    }

    /// Whether `dir` has room for all of it.
    pub(super) fn check_space(&self, dir: &Path) -> Result<(), DemoError> {
        let failed = |error: nix::Error| DemoError::io("look at", dir)(error.into());
        let stat = statvfs(dir).map_err(failed)?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        if free < self.space_bytes() {
            let (needed, free) = (size(self.space_bytes()), size(free));
            return Err(DemoError::Space { dir: dir.to_owned(), needed, free });
        }
        Ok(())
    }

    /// The config of a trader whose files are in `home`; the kernel chooses its port.
    pub(super) fn trader_config(&self, name: &str, home: &Path) -> Result<String, DemoError> {
        let Self { pattern, records, .. } = self;
        Ok(format!(
            "role = \"trader\"\n{}\n\
             [store]\n\
             local = {}\n\
             remote = {}\n\
             segments = {{ pattern = {}, records = {records}, record_bytes = {RECORD_BYTES} }}\n\n\
             [[listen]]\n\
             address = \"127.0.0.1:0\"\n\
             protocol = \"duplex\"\n\
             allow = [\"127.0.0.0/8\"]\n",
            self.common(name, home)?,
            quoted_path(&home.join("local"))?,
            quoted_path(&home.join("remote"))?,
            quoted(pattern),
        ))
    }

    /// The config of an exchange whose files are in `home` and that dials these addresses of each trader.
    pub(super) fn exchange_config(
        &self,
        name: &str,
        home: &Path,
        peers: [(&str, &[SocketAddr]); 2],
    ) -> Result<String, DemoError> {
        let mut text = format!(
            "role = \"exchange\"\n{}\n\
             [spool]\n\
             path = {}\n\
             max_bytes = {}\n",
            self.common(name, home)?,
            quoted_path(&home.join("spool"))?,
            self.spool_bytes(),
        );
        for (peer, links) in peers {
            let links: Vec<String> = links.iter().map(|link| quoted(&link.to_string())).collect();
            text += &format!("\n[[peer]]\nname = {}\nlinks = [{}]\n", quoted(peer), links.join(", "));
        }
        Ok(text)
    }

    fn common(&self, name: &str, home: &Path) -> Result<String, DemoError> {
        Ok(format!(
            "name = {}\n\
             packet_bytes = {}\n\
             state_dir = {}\n\n\
             [control]\n\
             socket = {}\n",
            quoted(name),
            self.packet_bytes,
            quoted_path(&home.join("state"))?,
            quoted_path(&socket_of(home))?,
        ))
    }
}

/// Where the node whose files are in `home` answers `supersyncctl`.
pub(super) fn socket_of(home: &Path) -> PathBuf {
    home.join("control.sock")
}

/// How many segments of how many records.
fn shape(options: &Options) -> (u32, u64) {
    const SEGMENTS: u32 = limits::DEMO_SEGMENTS_DEFAULT;
    let Some(bytes) = options.size else {
        let records = options.records.unwrap_or(limits::DEMO_RECORDS_DEFAULT);
        return (options.segments.unwrap_or(SEGMENTS), records);
    };
    let total = bytes.div_ceil(RECORD_BYTES as u64);
    // So few bytes make smaller segments, so that there is still something to share out.
    let fitting = total.div_ceil(u64::from(SEGMENTS)).min(limits::DEMO_RECORDS_DEFAULT);
    let records = options.records.unwrap_or(fitting);
    let segments = total.div_ceil(records).min(limits::OBJECTS_MAX as u64);
    (u32::try_from(segments).unwrap_or(u32::MAX), records)
}

/// Exactly `segments` names.
fn pattern(segments: u32) -> String {
    const STOCKS: u32 = 10;
    match segments {
        _ if segments.is_multiple_of(STOCKS) => format!("stock{{1..{STOCKS}}}_{{1..{}}}", segments / STOCKS),
        _ => format!("stock{{1..{segments}}}"),
    }
}

/// As a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_path(path: &Path) -> Result<String, DemoError> {
    path.to_str().map(quoted).ok_or_else(|| DemoError::Path(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{self, RoleConfig};
    use crate::store::Pattern;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn plan(args: &[&str]) -> Result<Plan, DemoError> {
        let args = ["demo"].iter().chain(args);
        Plan::new(&Cli::try_parse_from(args).expect("a valid command line").options)
    }

    #[test]
    fn segments_are_as_many_as_asked_for() {
        let check = |args: &[&str], segments: u32, records: u64, names: &str| {
            let plan = plan(args).expect("possible");
            assert_eq!((plan.segments, plan.records, &*plan.pattern), (segments, records, names), "{args:?}");
            let pattern = Pattern::parse(&plan.pattern).expect("a pattern");
            assert_eq!(pattern.count(), segments as usize);
            assert_eq!(pattern.expand().expect("names").len(), segments as usize);
        };
        check(&[], 48, 1_000_000, "stock{1..48}");
        check(&["--segments", "500"], 500, 1_000_000, "stock{1..10}_{1..50}");
        check(&["--segments", "1", "--records", "1"], 1, 1, "stock{1..1}");
        check(&["--segments", "10"], 10, 1_000_000, "stock{1..10}_{1..1}");
        check(&["--size", "12GB"], 500, 1_000_000, "stock{1..10}_{1..50}");
        check(&["--size", "1MB"], 48, 869, "stock{1..48}");
        check(&["--size", "1MB", "--records", "10000"], 5, 10_000, "stock{1..5}");
        check(&["--size", "1"], 1, 1, "stock{1..1}");
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        let error = plan(&["--segments", "4000000", "--records", "18446744073709551615"]).expect_err("too much");
        assert!(matches!(error, DemoError::TooMuch { .. }), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_to_do() {
        let plan = plan(&["--segments", "1000000", "--records", "100000000"]).expect("it can be counted");
        let error = plan.check_space(&std::env::temp_dir()).expect_err("2.4 PB each");
        let text = error.to_string();
        assert!(matches!(error, DemoError::Space { .. }) && text.contains("--dir"), "{text}");
        assert!(text.contains("9.6 PB"), "{text}");
    }

    #[test]
    fn the_configs_are_valid_and_say_what_is_planned() {
        let plan = plan(&["--segments", "6", "--records", "2000", "--packet-bytes", "4096"]).expect("possible");
        let home = Path::new("/tmp/a \"quoted\" place/trader1");
        let text = plan.trader_config("trader1", home).expect("text");
        let parsed = config::parse(&text, "trader1.toml").expect("valid");
        assert_eq!(parsed.packet_len.bytes(), 4096);
        let RoleConfig::Trader(trader) = parsed.role else { panic!("it is a trader") };
        let store = trader.store.expect("a demo replicates");
        assert_eq!(store.local, home.join("local"));
        let segments = store.segments.expect("they are specified");
        assert_eq!(segments.object_bytes().0, 48_000);

        let one: [SocketAddr; 1] = ["127.0.0.1:4001".parse().expect("an address")];
        let two: [SocketAddr; 2] = ["127.0.0.1:4002", "127.0.0.1:4003"].map(|a| a.parse().expect("an address"));
        let home = Path::new("/tmp/demo/exchange1");
        let text = plan.exchange_config("exchange1", home, [("trader1", &one), ("trader2", &two)]).expect("text");
        let parsed = config::parse(&text, "exchange1.toml").expect("valid");
        let RoleConfig::Exchange(exchange) = parsed.role else { panic!("it is an exchange") };
        assert_eq!(exchange.peers.each_ref().map(|peer| peer.links.len()), [1, 2]);
        assert_eq!(exchange.spool.max_bytes.0, 64 * 48_000);
    }
}
