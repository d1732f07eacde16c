//! The whole cluster on one thread and a virtual clock: nodes, connections, and what happens to them next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use supersync::limits;
use supersync::proto::duplex::{Counters, FEATURES, Link, LinkConfig};
use supersync::transfer::{Event as Told, Flow, FlowId, Flows};
use supersync::units::{ByteCount, LinkId, NodeName, ObjectName, PacketLen, Time};
use supersync::wire::hello::{Hello, Role};

use crate::disk::{Bytes, Disk};
use crate::link_end::{End, Kind};
use crate::pipe::{Nature, Pipe};
use crate::scenario::{Fault, NodeId, Plan, SECOND, Slot};
use crate::seed_peer::{SeedEnd, Shelf};

/// Which end of a connection.
pub(crate) const TRADER: usize = 0;
pub(crate) const EXCHANGE: usize = 1;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) role: Role,
    /// How often it was started; events of an earlier life are void.
    pub(crate) life: u32,
    pub(crate) alive: bool,
    pub(crate) started: u64,
    pub(crate) flows: Flows,
    pub(crate) disk: Disk,
    /// A trader's own objects, each with the number of its version.
    pub(crate) local: BTreeMap<ObjectName, (Bytes, u64)>,
    offered: BTreeMap<ObjectName, u64>,
    /// What a seed-only node has: fetched and served by flow.
    pub(crate) shelves: [Shelf; 2],
    pub(crate) told: Vec<Told>,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) slot: Slot,
    pub(crate) ends: [Option<End>; 2],
    /// By the end that sends.
    pub(crate) pipes: [Pipe; 2],
}

#[derive(Debug)]
struct SlotState {
    nature: Nature,
    conn: Option<u64>,
    down: bool,
    stalled: bool,
    attempts: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Sent { conn: u64, from: usize },
    Arrive { conn: u64, to: usize },
    Timer { conn: u64, end: usize, at: u64 },
    Write { node: NodeId, life: u32 },
    Commit { node: NodeId, life: u32, step: crate::disk::Step },
    Dial(Slot),
    Fault(usize),
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Pcg64Mcg,
    pub(crate) now: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), Event>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) conns: BTreeMap<u64, Conn>,
    slots: BTreeMap<Slot, SlotState>,
    next_conn: u64,
    /// Ends to be driven, and ends to be read from, before time goes on.
    pub(crate) to_drive: BTreeSet<(u64, usize)>,
    pub(crate) to_read: BTreeSet<(u64, usize)>,
    pub(crate) last_progress: u64,
    /// Every content that a trader's object ever had.
    pub(crate) versions: [BTreeMap<ObjectName, Vec<Bytes>>; 2],
    pub(crate) next_version: u64,
    /// A digest of all that happened, in order.
    pub(crate) trace: u64,
    pub(crate) steps: u64,
    /// What links that are gone had counted, by node.
    counted: Vec<Counters>,
    pub(crate) ended_links: Vec<String>,
    last_fault: usize,
}

pub(crate) fn object_name(name: &str) -> ObjectName {
    ObjectName::new(name.as_bytes()).expect("names of the tests are valid")
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let rng = Pcg64Mcg::seed_from_u64(plan.seed ^ 0x51_3D);
        let slots = plan
            .slots
            .iter()
            .map(|&(slot, nature)| (slot, SlotState { nature, conn: None, down: false, stalled: false, attempts: 0 }));
        let mut world = Self {
            rng,
            now: 0,
            sequence: 0,
            events: BTreeMap::new(),
            nodes: Vec::new(),
            conns: BTreeMap::new(),
            slots: slots.collect(),
            next_conn: 0,
            to_drive: BTreeSet::new(),
            to_read: BTreeSet::new(),
            last_progress: 0,
            versions: Default::default(),
            next_version: 0,
            trace: 0xCBF2_9CE4_8422_2325,
            steps: 0,
            counted: vec![Counters::default(); plan.seed_only.len()],
            ended_links: Vec::new(),
            last_fault: 0,
            plan,
        };
        for node in 0..world.plan.seed_only.len() {
            world.add_node(node);
        }
        for node in 0..world.nodes.len() {
            world.start(node);
        }
        for index in 0..world.plan.faults.len() {
            world.at(world.plan.faults[index].0, Event::Fault(index));
        }
        world
    }

    fn add_node(&mut self, node: NodeId) {
        let (role, name) = match node {
            0 | 1 => (Role::Trader, format!("trader{}", node + 1)),
            _ => (Role::Exchange, format!("exchange{}", node - 1)),
        };
        self.nodes.push(Node {
            name: name.parse().expect("valid"),
            role,
            life: 0,
            alive: false,
            started: 0,
            flows: Flows::new(Vec::new()),
            disk: Disk::default(),
            local: BTreeMap::new(),
            offered: BTreeMap::new(),
            shelves: Default::default(),
            told: Vec::new(),
        });
        if node < 2 {
            for i in 0..self.plan.names.len() {
                if let Some(bytes) = self.plan.contents[node][i].clone() {
                    self.change(node, i, Some(bytes));
                }
            }
        }
    }

    /// A trader's object gets other content.
    fn change(&mut self, trader: NodeId, i: usize, content: Option<Bytes>) {
        let name = object_name(&self.plan.names[i]);
        let Some(content) = content else {
            self.nodes[trader].local.remove(&name);
            return;
        };
        self.next_version += 1;
        self.versions[trader].entry(name.clone()).or_default().push(content.clone());
        self.nodes[trader].shelves[1].insert(self.plan.names[i].clone(), content.clone());
        self.nodes[trader].local.insert(name, (content, self.next_version));
    }

    /// The length that a trader's object must have, where that is laid down.
    fn expected(&self, trader: NodeId, i: usize) -> Option<ByteCount> {
        if !self.plan.sizes_are_known {
            return None;
        }
        let change = self.plan.faults.iter().find_map(|(_, fault)| match fault {
            Fault::Change(t, j, Some(bytes)) if (*t, *j) == (trader, i) => Some(bytes.len()),
            _ => None,
        });
        let length = self.plan.contents[trader][i].as_ref().map(|bytes| bytes.len()).or(change);
        length.map(|length| ByteCount(length as u64))
    }

    // -- nodes -------------------------------------------------------------------------------------------------------

    /// Starts a node from what is durable.
    fn start(&mut self, node: NodeId) {
        let known: Vec<_> = self.plan.names.iter().map(|name| object_name(name)).collect();
        let expected: Vec<_> =
            if node < 2 { (0..known.len()).map(|i| self.expected(1 - node, i)).collect() } else { Vec::new() };
        let this = &mut self.nodes[node];
        if this.alive {
            return;
        }
        (this.alive, this.started) = (true, self.now);
        this.life += 1;
        if node < 2 {
            let mut fetch = Flow::fetch();
            for (name, expected) in known.into_iter().zip(expected) {
                let file = this.disk.files.get(&(FlowId(0), name.clone()));
                let present = file.filter(|_| this.disk.markers.contains(&name));
                let size = present.map(|bytes| ByteCount(bytes.len() as u64));
                fetch.want(name, size.or(expected), size.is_some());
            }
            fetch.share_out(Time::ZERO);
            this.offered.clear();
            this.flows = Flows::new(vec![fetch, Flow::offer_only()]);
            self.rescan(node);
        } else {
            let flows = [0, 1].map(|flow| {
                let mut relay = Flow::relay(ByteCount(self.plan.spool_max[node - 2]));
                for ((_, name), bytes) in this.disk.files.iter().filter(|((f, _), _)| f.0 == flow) {
                    relay.keep(name.clone(), ByteCount(bytes.len() as u64), None);
                }
                relay
            });
            this.flows = Flows::new(flows.into());
            let slots: Vec<_> = self.slots.keys().copied().filter(|slot| slot.exchange == node).collect();
            for slot in slots {
                let delay = self.rng.random_range(0..SECOND / 100);
                self.at(self.now + delay, Event::Dial(slot));
            }
        }
    }

    /// A trader looks at its root and offers what is there.
    fn rescan(&mut self, trader: NodeId) {
        let node = &mut self.nodes[trader];
        if !node.alive || self.plan.seed_only[trader].is_some() {
            return;
        }
        let serve = node.flows.at(FlowId(1));
        let now: BTreeMap<_, _> = node.local.iter().map(|(name, &(_, version))| (name.clone(), version)).collect();
        for (name, version) in &node.offered {
            if now.get(name) != Some(version) {
                serve.withdraw(name);
            }
        }
        for (name, (bytes, _)) in &node.local {
            serve.offer(name.clone(), ByteCount(bytes.len() as u64));
        }
        node.offered = now;
    }

    fn crash(&mut self, node: NodeId) {
        let this = &mut self.nodes[node];
        if !this.alive {
            return;
        }
        this.alive = false;
        this.life += 1;
        this.disk.crash();
        let mine = self.conns.iter().filter(|(_, c)| c.node(TRADER) == node || c.node(EXCHANGE) == node);
        let conns: Vec<_> = mine.map(|(&id, c)| (id, usize::from(c.node(EXCHANGE) == node))).collect();
        for (conn, end) in conns {
            self.close(conn, end, "node killed");
        }
    }

    pub(crate) fn time_of(&self, node: NodeId) -> Time {
        Time(Duration::from_nanos(self.now - self.nodes[node].started))
    }

    // -- connections -------------------------------------------------------------------------------------------------

    fn dial(&mut self, slot: Slot) {
        let state = &self.slots[&slot];
        if !self.nodes[slot.exchange].alive || state.conn.is_some() {
            return;
        }
        if state.down || !self.nodes[slot.trader].alive {
            return self.redial(slot);
        }
        let (nature, stalled) = (state.nature, state.stalled);
        let id = self.next_conn;
        self.next_conn += 1;
        let ends = [TRADER, EXCHANGE].map(|end| Some(self.end(slot, end, id)));
        let mut pipes = [Pipe::new(nature), Pipe::new(nature)];
        pipes.iter_mut().for_each(|pipe| pipe.stalled = stalled);
        self.conns.insert(id, Conn { slot, ends, pipes });
        self.slots.get_mut(&slot).expect("a slot of the plan").conn = Some(id);
        self.to_drive.extend([(id, TRADER), (id, EXCHANGE)]);
    }

    fn redial(&mut self, slot: Slot) {
        let state = self.slots.get_mut(&slot).expect("a slot of the plan");
        let delay = limits::REDIAL_MIN.saturating_mul(1 << state.attempts.min(10)).min(limits::REDIAL_MAX);
        state.attempts += 1;
        let jitter = self.rng.random_range(0.5..1.0);
        self.at(self.now + delay.mul_f64(jitter).as_nanos() as u64, Event::Dial(slot));
    }

    fn end(&mut self, slot: Slot, end: usize, conn: u64) -> End {
        let node = if end == TRADER { slot.trader } else { slot.exchange };
        // A trader fetches into its flow 0; an exchange has a flow for what comes from each trader.
        let fetch = if end == TRADER { 0 } else { slot.trader as u8 };
        let kind = match self.plan.seed_only[node] {
            Some(habits) => {
                let links =
                    self.slots.keys().filter(|s| (s.exchange, s.trader) == (slot.exchange, slot.trader)).count();
                let exchanges = self.plan.seed_only.len() - 2;
                let count = self.plan.names.len();
                let share = |i: usize| i * exchanges / count.max(1) == slot.exchange - 2;
                let is_whole = end == EXCHANGE && !habits.keeps_to_share;
                let mine = (0..count).filter(|&i| (is_whole || share(i)) && i % links == slot.index);
                let missing = mine.map(|i| self.plan.names[i].clone());
                let has = &self.nodes[node].shelves[usize::from(fetch)];
                let queue: VecDeque<_> = missing.filter(|name| !has.contains_key(name)).collect();
                Kind::Seed(SeedEnd::new(habits, self.plan.packet_bytes as usize, queue))
            }
            None => Kind::Ours(Box::new(self.link(slot, end, conn))),
        };
        End::new(kind, FlowId(fetch), FlowId(1 - fetch))
    }

    fn link(&self, slot: Slot, end: usize, conn: u64) -> Link {
        let node = if end == TRADER { slot.trader } else { slot.exchange };
        let config = LinkConfig {
            id: LinkId(conn * 2 + end as u64),
            packet_len: PacketLen::new(self.plan.packet_bytes).expect("valid"),
            hello: self.hello(node),
            configured_peer: match (end, self.plan.seed_only[slot.exchange]) {
                (TRADER, Some(habits)) if habits.is_configured => Some(self.nodes[slot.exchange].name.clone()),
                (TRADER, _) => None,
                _ => Some(self.nodes[slot.trader].name.clone()),
            },
            fallback_peer: format!("10.0.{}.{}", slot.exchange, slot.index).parse().expect("valid"),
        };
        Link::new(config, self.time_of(node))
    }

    pub(crate) fn hello(&self, node: NodeId) -> Hello {
        let (node, role) = (self.nodes[node].name.clone(), self.nodes[node].role);
        Hello { version: Hello::VERSION, features: FEATURES, packet_bytes_max: 1 << 20, link: None, role, node }
    }

    /// One end goes. The other hears of it unless nothing gets through.
    pub(crate) fn close(&mut self, conn: u64, end: usize, why: &str) {
        let Some(this) = self.conns.get_mut(&conn) else { return };
        let Some(mut gone) = this.ends[end].take() else { return };
        let (slot, stalled, node) = (this.slot, this.pipes[0].stalled, this.node(end));
        self.ended_links.push(format!("{:.3} s: {conn}.{end} {slot:?}: {why}", self.now as f64 / 1e9));
        let mut was_met = true;
        if let Kind::Ours(link) = &mut gone.kind {
            was_met = link.peer().is_some();
            if self.nodes[node].alive {
                let now = self.time_of(node);
                let (fetch, serve) = self.nodes[node].flows.pair(gone.fetch, gone.serve);
                link.close(now, fetch, serve);
            }
            let (counted, last) = (&mut self.counted[node], link.counters());
            counted.payload_in += last.payload_in;
            counted.discarded += last.discarded;
            counted.packets_in += last.packets_in;
        }
        if end == EXCHANGE {
            let state = self.slots.get_mut(&slot).expect("a slot of the plan");
            state.conn = None;
            if was_met {
                state.attempts = 0;
            }
            self.redial(slot);
        }
        if !stalled {
            self.close(conn, 1 - end, "reset by peer");
        }
        if self.conns.get(&conn).is_some_and(|conn| conn.ends.iter().all(Option::is_none)) {
            self.conns.remove(&conn);
        }
    }

    fn apply(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(slot) => self.cut(slot),
            Fault::Down(slot) => {
                self.slots.get_mut(&slot).expect("a slot of the plan").down = true;
                self.cut(slot);
            }
            Fault::Up(slot) => self.slots.get_mut(&slot).expect("a slot of the plan").down = false,
            Fault::Stall(slot) => self.stall(slot, true),
            Fault::Heal(slot) => self.stall(slot, false),
            Fault::Crash(node) => self.crash(node),
            Fault::Restart(node) => self.start(node),
            Fault::DiskFull(node) => self.nodes[node].disk.full = true,
            Fault::DiskFree(node) => self.nodes[node].disk.full = false,
            Fault::Change(trader, i, content) => self.change(trader, i, content),
            Fault::Rescan(trader) => self.rescan(trader),
        }
    }

    fn cut(&mut self, slot: Slot) {
        let conns: Vec<_> = self.conns.iter().filter(|(_, c)| c.slot == slot).map(|(&id, _)| id).collect();
        for conn in conns {
            self.close(conn, TRADER, "cut");
            self.close(conn, EXCHANGE, "cut");
        }
    }

    fn stall(&mut self, slot: Slot, stalled: bool) {
        self.slots.get_mut(&slot).expect("a slot of the plan").stalled = stalled;
        let conns: Vec<_> = self.conns.iter().filter(|(_, c)| c.slot == slot).map(|(&id, _)| id).collect();
        for id in conns {
            let conn = self.conns.get_mut(&id).expect("just listed");
            if stalled {
                conn.pipes.iter_mut().for_each(|pipe| pipe.stalled = true);
                continue;
            }
            conn.pipes.iter_mut().for_each(Pipe::heal);
            self.to_read.extend([(id, TRADER), (id, EXCHANGE)]);
            self.to_drive.extend([(id, TRADER), (id, EXCHANGE)]);
            let conn = &self.conns[&id];
            if let Some(gone) = (0..2).find(|&end| conn.ends[end].is_none()) {
                self.close(id, 1 - gone, "reset by peer");
                self.conns.remove(&id);
            }
        }
    }

    // -- time --------------------------------------------------------------------------------------------------------

    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((time.max(self.now), self.sequence), event);
    }

    pub(crate) fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x100_0000_01B3);
    }

    /// One event and all that follows from it at once.
    pub(crate) fn step(&mut self) {
        let ((at, _), event) = self.events.pop_first().expect("there is always something to come");
        self.now = at;
        self.steps += 1;
        self.note(at);
        match event {
            Event::Sent { conn, from } => {
                if let Some(this) = self.conns.get_mut(&conn) {
                    this.pipes[from].busy = false;
                    self.to_drive.insert((conn, from));
                    self.at(at + self.conns[&conn].pipes[from].nature.latency_ns, Event::Arrive { conn, to: 1 - from });
                }
            }
            Event::Arrive { conn, to } => {
                if let Some(this) = self.conns.get_mut(&conn)
                    && this.pipes[1 - to].arrive()
                {
                    self.to_read.insert((conn, to));
                }
            }
            Event::Timer { conn, end, at } => self.timer(conn, end, at),
            Event::Write { node, life } if self.nodes[node].life == life => self.write(node),
            Event::Commit { node, life, step } if self.nodes[node].life == life => self.commit(node, step),
            Event::Write { .. } | Event::Commit { .. } => {}
            Event::Dial(slot) => self.dial(slot),
            Event::Fault(index) => {
                self.last_fault = index + 1;
                self.apply(self.plan.faults[index].1.clone());
            }
        }
        self.settle();
    }

    pub(crate) fn faults_are_over(&self) -> bool {
        self.last_fault == self.plan.faults.len()
    }

    /// What a node's links counted, those that are gone included.
    fn counters_of(&self, node: NodeId) -> Counters {
        let ends = self.conns.values().flat_map(|conn| [0, 1].map(|end| (conn.node(end), &conn.ends[end])));
        ends.filter(|&(owner, _)| owner == node).fold(self.counted[node], |mut sum, (_, end)| {
            if let Some(End { kind: Kind::Ours(link), .. }) = end {
                sum.payload_in += link.counters().payload_in;
                sum.discarded += link.counters().discarded;
                sum.packets_in += link.counters().packets_in;
            }
            sum
        })
    }

    pub(crate) fn payload_sent_to_traders(&self) -> u64 {
        (0..2).map(|trader| self.counters_of(trader).payload_in).sum()
    }

    pub(crate) fn discarded_by(&self, which: impl Fn(NodeId) -> bool) -> u64 {
        (0..self.nodes.len()).filter(|&node| which(node)).map(|node| self.counters_of(node).discarded).sum()
    }

    pub(crate) fn packets_in_of(&self, node: NodeId) -> u64 {
        self.counters_of(node).packets_in
    }

    /// Whether both traders have all of each other's objects.
    pub(crate) fn is_converged(&self) -> bool {
        (0..2).all(|trader| {
            let node = &self.nodes[trader];
            let has =
                if self.plan.seed_only[trader].is_some() { node.shelves[0].len() } else { node.disk.markers.len() };
            has == self.plan.names.len()
        })
    }
}

impl Conn {
    pub(crate) fn node(&self, end: usize) -> NodeId {
        if end == TRADER { self.slot.trader } else { self.slot.exchange }
    }
}
