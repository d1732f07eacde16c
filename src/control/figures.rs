//! What is measured of a node, as text that Prometheus and its kin read.
//!
//! Counters are of the life of the daemon, over all connections that a link has had, and never go back while the daemon
//! runs; a link is `peer` and `link`, its number among that peer's links. No label ever holds a path or an object's
//! name.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::status::{Role, SpoolStatus, Totals};

/// What is measured of a node, at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// The node's name in its config.
    pub node: String,
    /// Trader or exchange.
    pub role: Role,
    /// The daemon's version.
    pub version: String,
    /// What drives the links.
    pub engine: String,
    /// The config file was read and refused, the last time that it was read.
    pub reload_failed: bool,
    /// What an operator should look at.
    pub problems: u64,
    /// Objects that are whole here, and marked where the node marks.
    pub done: u64,
    /// Objects that come in now and have no problem.
    pub arriving: u64,
    /// Objects that cannot be had until something changes.
    pub failed: u64,
    /// What a trader that replicates has and wants; `None` of any other node.
    pub store: Option<StoreFigures>,
    /// When an object was committed last, since 1970; `None`: none was since the start.
    pub last_commit: Option<Duration>,
    /// What an exchange holds.
    pub spool: Option<SpoolStatus>,
    /// How full the parts of its spool are, by the peer that what they hold comes from, 0 to 1.
    pub spool_used: Vec<(String, f64)>,
    /// Links that are up, of a node that has some with others.
    pub links_up: Option<u64>,
    /// Its links.
    pub links: Vec<LinkFigures>,
}

/// What a trader is to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreFigures {
    /// All that it should have in the end.
    pub want: Totals,
    /// What of this is whole and marked.
    pub have: Totals,
    /// How long the oldest object has been wanted that is not here, since the start at most; zero where all is here.
    pub lag: Duration,
}

/// What passed over one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFigures {
    /// Its peer's name.
    pub peer: String,
    /// As [`LinkStatus::number`](super::LinkStatus::number).
    pub number: u32,
    /// It carries packets.
    pub up: bool,
    /// Times it came back.
    pub reconnects: u64,
    /// Bytes sent, padding and headers included.
    pub sent: u64,
    /// Bytes received, padding and headers included.
    pub received: u64,
    /// Padding among the sent.
    pub padding: u64,
    /// Times that what came over it was damaged.
    pub bad: u64,
}

/// In which of the two formats a reader wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The older text format of Prometheus.
    Prometheus,
}

impl Format {
    /// What an `Accept` header asks for: the older format where it names that one alone.
    pub(super) fn accepted(header: &str) -> Self {
        match header.contains("text/plain") && !header.contains("application/openmetrics-text") {
            true => Self::Prometheus,
            false => Self::OpenMetrics,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

impl Figures {
    /// As text.
    pub(super) fn write(self, format: Format) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("supersync");
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        match format {
            Format::OpenMetrics => text::encode(&mut out, &registry)?,
            Format::Prometheus => prometheus_text::encode(&mut out, &registry)?,
        }
        Ok(out)
    }
}

/// One value with its labels.
type Sample<'f> = (Vec<(&'static str, &'f str)>, Value);

#[derive(Clone, Copy)]
enum Value {
    Count(u64),
    Level(u64),
    Seconds(f64),
    Part(f64),
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        let about = [("version", &*self.version), ("engine", &*self.engine)];
        out.info("build", "What runs", &about)?;
        let role = self.role.to_string();
        out.info(
            "node",
            "What the node is called, and whether it is a trader or an exchange",
            &[("node", &*self.node), ("role", &*role)],
        )?;
        let numbers: Vec<String> = self.links.iter().map(|link| link.number.to_string()).collect();
        let of_links = |value: fn(&LinkFigures) -> Value| -> Vec<Sample<'_>> {
            let links = self.links.iter().zip(&numbers);
            links.map(|(link, number)| (vec![("peer", &*link.peer), ("link", &**number)], value(link))).collect()
        };
        let bytes = Some(Unit::Bytes);
        let sent = of_links(|link| Value::Count(link.sent));
        out.counter("sent", "Bytes sent, padding and headers included", bytes.clone(), sent)?;
        let received = of_links(|link| Value::Count(link.received));
        out.counter("received", "Bytes received, padding and headers included", bytes.clone(), received)?;
        let padding = of_links(|link| Value::Count(link.padding));
        out.counter("padding", "Bytes of padding among those sent", bytes.clone(), padding)?;
        let bad = of_links(|link| Value::Count(link.bad));
        out.counter("blocks_bad", "Times that what came in was damaged", None, bad)?;
        let reconnects = of_links(|link| Value::Count(link.reconnects));
        out.counter("link_reconnects", "Times that the link came back", None, reconnects)?;
        let up = of_links(|link| Value::Level(link.up.into()));
        out.gauge("link_up", "Whether the link carries packets", None, up)?;
        let help = "Links that are up, to all peers; absent where a node has none with others";
        out.level("links_up", help, None, self.links_up.map(Value::Level))?;
        self.encode_store(&mut out)?;
        let spool = |of: fn(&SpoolStatus) -> u64| self.spool.as_ref().map(|spool| Value::Level(of(spool)));
        out.level("spool", "Bytes that the spool of an exchange holds", bytes.clone(), spool(|s| s.bytes))?;
        out.level("spool_max", "Most bytes that it may hold", bytes, spool(|s| s.max_bytes))?;
        let used = self.spool_used.iter().map(|(peer, used)| (vec![("peer", &**peer)], Value::Part(*used)));
        let help = "How full that part of it is which is for what comes from this peer: half of it, 0 to 1";
        out.gauge("spool_used_ratio", help, None, used.collect())?;
        let reloaded = Value::Level((!self.reload_failed).into());
        let help = "Whether the config file was accepted when it was read last";
        out.level("config_last_reload_successful", help, None, Some(reloaded))?;
        let help = "What an operator should look at; supersyncctl status tells";
        out.level("problems", help, None, Some(Value::Level(self.problems)))
    }
}

impl Figures {
    fn encode_store(&self, out: &mut Out<'_>) -> fmt::Result {
        let state = |state, count| (vec![("state", state)], Value::Level(count));
        let mut objects =
            vec![state("done", self.done), state("arriving", self.arriving), state("failed", self.failed)];
        if let Some(StoreFigures { want, .. }) = &self.store {
            let elsewhere = self.done + self.arriving + self.failed;
            objects.push(state("missing", want.objects.saturating_sub(elsewhere)));
        }
        let help = "Objects: done are whole here, failed cannot be had until something changes, missing are wanted and \
                    neither here nor on their way; an exchange wants nothing for itself";
        out.gauge("objects", help, None, objects)?;
        let store = |of: fn(&StoreFigures) -> u64| self.store.as_ref().map(|store| Value::Level(of(store)));
        let bytes = Some(Unit::Bytes);
        out.level("wanted", "Bytes that a trader should have in the end", bytes.clone(), store(|s| s.want.bytes))?;
        out.level("done", "Bytes of these that are whole here", bytes, store(|s| s.have.bytes))?;
        let help =
            "How long the oldest object has been wanted that is not here, since the start at most; 0 where all is";
        out.level("replication_lag", help, Some(Unit::Seconds), store(|s| s.lag.as_secs()))?;
        let help = "When an object was committed last, since 1970; absent until one was since the start";
        let at = self.last_commit.map(|at| Value::Seconds(at.as_secs_f64()));
        out.level("last_commit_timestamp", help, Some(Unit::Seconds), at)
    }
}

/// Where families of samples are written to, one after the other.
struct Out<'e>(DescriptorEncoder<'e>);

impl Out<'_> {
    fn info(&mut self, name: &str, help: &str, labels: &[(&'static str, &str)]) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<Unit>, samples: Vec<Sample<'_>>) -> fmt::Result {
        self.family(name, help, unit, MetricType::Counter, samples)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<Unit>, samples: Vec<Sample<'_>>) -> fmt::Result {
        self.family(name, help, unit, MetricType::Gauge, samples)
    }

    /// A gauge of the whole node, where the node has one.
    fn level(&mut self, name: &str, help: &str, unit: Option<Unit>, value: Option<Value>) -> fmt::Result {
        self.gauge(name, help, unit, value.into_iter().map(|value| (Vec::new(), value)).collect())
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        kind: MetricType,
        samples: Vec<Sample<'_>>,
    ) -> fmt::Result {
        // Some readers stumble over a family without samples.
        if samples.is_empty() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in samples {
            let mut sample = family.encode_family(&labels)?;
            match value {
                Value::Count(count) => sample.encode_counter::<[(&str, &str); 0], _, u64>(&count, None)?,
                Value::Level(level) => sample.encode_gauge(&level)?,
                Value::Seconds(level) | Value::Part(level) => sample.encode_gauge(&level)?,
            }
        }
        Ok(())
    }
}
