//! The nodes: two traders, the exchanges between them, and the links as slow as asked for.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;

use super::plan::{Plan, socket_of};
use super::shape::Shaper;
use super::{DemoError, plural, rate};
use crate::config;
use crate::control::{LinkState, PeerStatus, Status};
use crate::node::Node;

/// What both traders are called.
pub(super) const TRADERS: [&str; 2] = ["trader1", "trader2"];

/// One node, up or down.
#[derive(Debug)]
struct Member {
    name: String,
    file: PathBuf,
    node: Option<Node>,
    /// What it had moved in the lives before this one.
    past: Moved,
}

/// Bytes of objects that a node moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Of the received, thrown away.
    pub(super) discarded: u64,
}

/// All of them. Each that is dropped while it is up is killed.
#[derive(Debug)]
pub(super) struct Site {
    dir: PathBuf,
    traders: [Member; 2],
    exchanges: Vec<Member>,
    /// Forward for as long as the nodes are up.
    shapers: Vec<Shaper>,
}

impl Site {
    /// Makes the directories of everyone's stores in `dir`.
    pub(super) fn lay_out(plan: &Plan, dir: &Path) -> Result<(), DemoError> {
        let make = |path: PathBuf| fs::create_dir_all(&path).map_err(DemoError::io("make", &path));
        for name in TRADERS {
            for part in ["local", "remote", "state"] {
                make(dir.join(name).join(part))?;
            }
        }
        for index in 0..plan.exchanges.into() {
            for part in ["spool", "state"] {
                make(dir.join(exchange_name(index)).join(part))?;
            }
        }
        Ok(())
    }

    /// Writes everyone's config into `dir` and starts them, the traders first: an exchange's config says where they
    /// listen.
    pub(super) fn start(plan: &Plan, dir: &Path) -> Result<Self, DemoError> {
        let trader = |name: &str| Member::start(dir, name, &plan.trader_config(name, &dir.join(name))?);
        let traders = [trader(TRADERS[0])?, trader(TRADERS[1])?];
        let mut site = Self { dir: dir.to_owned(), traders, exchanges: Vec::new(), shapers: Vec::new() };
        for index in 0..plan.exchanges.into() {
            let links = [site.links(plan, 0)?, site.links(plan, 1)?];
            let name = exchange_name(index);
            let peers = [(TRADERS[0], &*links[0]), (TRADERS[1], &*links[1])];
            let config = plan.exchange_config(&name, &dir.join(&name), peers)?;
            site.exchanges.push(Member::start(dir, &name, &config)?);
        }
        Ok(site)
    }

    /// Where an exchange dials a trader, once for each link.
    fn links(&mut self, plan: &Plan, trader: usize) -> Result<Vec<SocketAddr>, DemoError> {
        let listening = self.traders[trader].node.as_ref().and_then(|node| node.listening().first().copied());
        let listening = listening.expect("a trader that has started listens where its config says");
        let Some(rate) = plan.link_rate else { return Ok(vec![listening; plan.links.into()]) };
        let mut links = Vec::new();
        for _ in 0..plan.links {
            let shaper = Shaper::start(listening, rate).map_err(DemoError::system("make a slow link"))?;
            links.push(shaper.address());
            self.shapers.push(shaper);
        }
        Ok(links)
    }

    /// Where `supersyncctl` reaches the first trader.
    pub(super) fn socket(&self) -> PathBuf {
        socket_of(&self.dir.join(TRADERS[0]))
    }

    pub(super) fn traders(&self) -> [Status; 2] {
        self.traders.each_ref().map(|trader| trader.status().expect("traders are up from start to end"))
    }

    /// A line for each exchange and trader: its links, what they carry, each link for itself.
    pub(super) fn links_now(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for exchange in &self.exchanges {
            match exchange.status() {
                None => lines.extend(TRADERS.map(|trader| format!("{} = {trader}   down", exchange.name))),
                Some(status) => lines.extend(status.peers.iter().map(|peer| links_line(&exchange.name, peer))),
            }
        }
        lines
    }

    /// Kills an exchange as a crash would, and says its name.
    pub(super) fn kill_exchange(&mut self, index: usize) -> &str {
        let exchange = &mut self.exchanges[index];
        exchange.past = exchange.moved();
        if let Some(node) = exchange.node.take() {
            node.kill();
        }
        &exchange.name
    }

    /// Starts a killed exchange again, with the config that it had.
    pub(super) fn revive_exchange(&mut self, index: usize) -> Result<&str, DemoError> {
        let exchange = &mut self.exchanges[index];
        exchange.node = Some(start(&exchange.name, &exchange.file)?);
        Ok(&exchange.name)
    }

    /// What the traders moved, each, and all exchanges together, from the start on.
    pub(super) fn moved(&self) -> ([Moved; 2], Moved) {
        let exchanges = self.exchanges.iter().map(Member::moved).fold(Moved::default(), Moved::plus);
        (self.traders.each_ref().map(Member::moved), exchanges)
    }

    /// What the nodes want an operator to look at.
    pub(super) fn problems(&self) -> Vec<String> {
        let members = self.traders.iter().chain(&self.exchanges);
        let said = members.filter_map(|member| Some((&member.name, member.status()?)));
        said.flat_map(|(name, status)| status.problems.into_iter().map(move |problem| format!("{name}: {problem}")))
            .collect()
    }

    /// Ends all of them in good order, at the same time.
    pub(super) fn drain(mut self) {
        thread::scope(|scope| {
            for member in self.traders.iter_mut().chain(&mut self.exchanges) {
                if let Some(node) = member.node.take() {
                    scope.spawn(|| node.drain());
                }
            }
        });
    }
}

impl Member {
    /// Writes the config beside the node's directory and starts it from there, as `supersyncd run` does.
    fn start(dir: &Path, name: &str, config: &str) -> Result<Self, DemoError> {
        let file = dir.join(format!("{name}.toml"));
        fs::write(&file, config).map_err(DemoError::io("write", &file))?;
        let node = start(name, &file)?;
        Ok(Self { name: name.to_owned(), file, node: Some(node), past: Moved::default() })
    }

    fn status(&self) -> Option<Status> {
        self.node.as_ref().map(Node::status)
    }

    fn moved(&self) -> Moved {
        let now = self.status().map_or(Moved::default(), |status| Moved {
            sent: status.payload_sent,
            received: status.payload_received,
            discarded: status.payload_discarded,
        });
        self.past.plus(now)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.kill();
        }
    }
}

impl Moved {
    fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            discarded: self.discarded + other.discarded,
        }
    }
}

fn start(name: &str, file: &Path) -> Result<Node, DemoError> {
    let config = config::load(file)?;
    Node::start(config, Some(file.to_owned())).map_err(|source| DemoError::Node { node: name.to_owned(), source })
}

fn exchange_name(index: usize) -> String {
    format!("exchange{}", index + 1)
}

fn links_line(exchange: &str, peer: &PeerStatus) -> String {
    let each = peer.links.iter().map(|link| match link.state {
        LinkState::Up => rate(link.rate_in + link.rate_out),
        LinkState::Connecting => "connecting".to_owned(),
        LinkState::Down => "down".to_owned(),
    });
    let each: Vec<String> = each.collect();
    format!(
        "{exchange} = {}   {} up   in {:>11}   out {:>11}   each {}",
        peer.name,
        plural(peer.links_up as usize, "link"),
        rate(peer.rate_in),
        rate(peer.rate_out),
        each.join(", ")
    )
}
