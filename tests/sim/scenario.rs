//! What a run is made of: nodes, links, stores and what happens to them, all drawn from one seed.

use std::rc::Rc;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::disk::Bytes;
use crate::pipe::Nature;
use crate::seed_peer::Habits;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;

/// A node: the two traders first, then the exchanges.
pub(crate) type NodeId = usize;

/// A place for a connection, redialled for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) exchange: NodeId,
    pub(crate) trader: NodeId,
    pub(crate) index: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection is reset; dialling again succeeds.
    Cut(Slot),
    /// The same, and dialling fails.
    Down(Slot),
    Up(Slot),
    /// Nothing arrives, nothing is reset.
    Stall(Slot),
    Heal(Slot),
    Crash(NodeId),
    Restart(NodeId),
    DiskFull(NodeId),
    DiskFree(NodeId),
    /// An object of a trader gets other content in place; `None`: it is removed.
    Change(NodeId, usize, Option<Bytes>),
    /// The trader looks at its root again.
    Rescan(NodeId),
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) packet_bytes: u32,
    /// What is seed-only, and its habits.
    pub(crate) seed_only: Vec<Option<Habits>>,
    pub(crate) spool_max: Vec<u64>,
    pub(crate) slots: Vec<(Slot, Nature)>,
    pub(crate) names: Vec<String>,
    /// What each trader has of each name at the start.
    pub(crate) contents: [Vec<Option<Bytes>>; 2],
    pub(crate) sizes_are_known: bool,
    pub(crate) write_latency_ns: u64,
    pub(crate) commit_latency_ns: u64,
    /// Our nodes close a link when both ends have said that they are done.
    pub(crate) closes_when_over: bool,
    pub(crate) faults: Vec<(u64, Fault)>,
    /// When all faults are healed.
    pub(crate) healed_at: u64,
}

pub(crate) fn noise(rng: &mut Pcg64Mcg, length: usize) -> Bytes {
    use rand::Rng;
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    Rc::new(bytes)
}

impl Plan {
    /// A quiet site: all nodes ours, links of one rate.
    pub(crate) fn quiet(seed: u64, exchanges: usize, links: usize, rate: f64, sizes: &[usize]) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let nature = Nature { bytes_per_second: rate, latency_ns: MS / 2, capacity: 64 << 10, fragment_max: 64 << 10 };
        let mut slots = Vec::new();
        for exchange in 2..2 + exchanges {
            for trader in 0..2 {
                slots.extend((0..links).map(|index| (Slot { exchange, trader, index }, nature)));
            }
        }
        Self {
            seed,
            packet_bytes: 1400,
            seed_only: vec![None; 2 + exchanges],
            spool_max: vec![u64::MAX / 4; exchanges],
            slots,
            names: (0..sizes.len()).map(|i| format!("stock/{i}")).collect(),
            contents: [(); 2].map(|()| sizes.iter().map(|&size| Some(noise(&mut rng, size))).collect()),
            sizes_are_known: true,
            write_latency_ns: MS / 10,
            commit_latency_ns: 2 * MS,
            closes_when_over: true,
            faults: Vec::new(),
            healed_at: 0,
        }
    }

    /// Whatever a seed gives.
    pub(crate) fn random(seed: u64) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let exchanges = rng.random_range(1..=3);
        let count = if rng.random_bool(0.1) { rng.random_range(1..=3) } else { rng.random_range(4..=60) };
        let longest = *[300, 3_000, 30_000, 300_000].get(rng.random_range(0..4_usize)).expect("in range");
        let longest = if count > 15 { longest.min(30_000) } else { longest };
        let sizes: Vec<usize> = (0..count).map(|_| Self::size(&mut rng, longest)).collect();
        let mut plan = Self::quiet(seed, exchanges, 1, 1e6, &sizes);
        plan.packet_bytes = [64, 200, 1400, 65_536][rng.random_range(0..4_usize)];
        plan.sizes_are_known = rng.random_bool(0.5);
        plan.write_latency_ns = rng.random_range(1..=20) * MS / 10;
        plan.closes_when_over = rng.random_bool(0.5);
        plan.commit_latency_ns = rng.random_range(1..=20) * MS;
        plan.slots.clear();
        let latency_ns = [MS / 10, MS, 25 * MS][rng.random_range(0..3_usize)];
        let rate = [2e5, 1e6, 1e7][rng.random_range(0..3_usize)];
        for exchange in 2..2 + exchanges {
            for trader in 0..2 {
                for index in 0..rng.random_range(1..=4) {
                    let slow = if rng.random_bool(0.2) { rng.random_range(0.1..1.0) } else { 1.0 };
                    let nature = Nature {
                        bytes_per_second: rate * slow,
                        latency_ns,
                        capacity: rng.random_range(1_000..=100_000),
                        fragment_max: rng.random_range(500..=50_000),
                    };
                    plan.slots.push((Slot { exchange, trader, index }, nature));
                }
            }
        }
        let total: usize = sizes.iter().sum();
        for max in &mut plan.spool_max {
            if rng.random_bool(0.6) {
                let objects = rng.random_range(1..=6) * longest as u64;
                *max = objects.max(rng.random_range(0..=total as u64 / 2)).max(1);
            }
        }
        plan.draw_seed_peers(&mut rng);
        if plan.seed_only.iter().any(Option::is_some) {
            // In lock-step each packet costs a round trip, and the run some events.
            plan.packet_bytes = plan.packet_bytes.max(200);
        }
        plan.draw_contents(&mut rng);
        plan.draw_faults(&mut rng);
        plan
    }

    fn size(rng: &mut Pcg64Mcg, longest: usize) -> usize {
        match rng.random_range(0..10_u32) {
            0 => 0,
            1 => rng.random_range(0..=64.min(longest)),
            2 => longest,
            _ => rng.random_range(0..=longest),
        }
    }

    fn draw_seed_peers(&mut self, rng: &mut Pcg64Mcg) {
        let habits = Habits {
            repeats: rng.random_bool(0.5),
            says_no_request: rng.random_bool(0.5),
            says_pending: rng.random_bool(0.7),
            says_end: rng.random_bool(0.5),
            keeps_to_share: rng.random_bool(0.5),
            is_configured: rng.random_bool(0.5),
        };
        match rng.random_range(0..10_u32) {
            0 => self.seed_only[0] = Some(habits),
            1 => self.seed_only[1] = Some(habits),
            2 | 3 => {
                let exchange = rng.random_range(2..self.seed_only.len());
                self.seed_only[exchange] = Some(habits);
            }
            _ => {}
        }
    }

    /// The traders' objects differ in content, and sometimes in length.
    fn draw_contents(&mut self, rng: &mut Pcg64Mcg) {
        for trader in 0..2 {
            for i in 0..self.names.len() {
                let length = self.contents[trader][i].as_ref().map_or(0, |bytes| bytes.len());
                let length = if trader == 1 && rng.random_bool(0.3) { rng.random_range(0..=length) } else { length };
                self.contents[trader][i] = Some(noise(rng, length));
            }
        }
    }

    fn draw_faults(&mut self, rng: &mut Pcg64Mcg) {
        if rng.random_bool(0.2) {
            return;
        }
        let span = self.ideal_ns() * 2 + SECOND;
        for _ in 0..rng.random_range(1..=8) {
            let at = rng.random_range(0..span);
            let until = at + rng.random_range(MS..8 * SECOND);
            let slot = self.slots[rng.random_range(0..self.slots.len())].0;
            let node = rng.random_range(0..self.seed_only.len());
            let kind = rng.random_range(0..10_u32);
            let crashes = self.seed_only[node].is_none();
            let mut plan = |pairs: [(u64, Fault); 2]| self.faults.extend(pairs);
            match kind {
                0 | 1 => plan([(at, Fault::Cut(slot)), (until, Fault::Cut(slot))]),
                2 => plan([(at, Fault::Down(slot)), (until, Fault::Up(slot))]),
                3 | 4 => plan([(at, Fault::Stall(slot)), (until, Fault::Heal(slot))]),
                5 | 6 if crashes => plan([(at, Fault::Crash(node)), (until, Fault::Restart(node))]),
                7 if crashes => plan([(at, Fault::DiskFull(node)), (until, Fault::DiskFree(node))]),
                8 | 9 => self.draw_change(rng, at, until),
                _ => {}
            }
        }
        if rng.random_bool(0.1) {
            let (at, until) = (rng.random_range(0..span), span);
            for node in (0..self.seed_only.len()).filter(|&node| self.seed_only[node].is_none()) {
                self.faults.extend([(at, Fault::Crash(node)), (until, Fault::Restart(node))]);
            }
        }
        self.faults.sort_by_key(|&(at, _)| at);
        self.healed_at = self.faults.last().map_or(0, |&(at, _)| at);
    }

    /// Another content of the same or another length, or none for a while; or an object that appears late.
    fn draw_change(&mut self, rng: &mut Pcg64Mcg, at: u64, until: u64) {
        let (trader, i) = (rng.random_range(0..2_usize), rng.random_range(0..self.names.len()));
        // With lengths laid down beforehand an object cannot change its length; a seed-only trader does not look again.
        if self.seed_only[trader].is_some() {
            return;
        }
        let Some(before) = self.contents[trader][i].clone() else { return };
        let mut length = before.len();
        if !self.sizes_are_known && rng.random_bool(0.5) {
            length = rng.random_range(0..=2 * length);
        }
        match rng.random_range(0..3_u32) {
            0 => {
                let content = noise(rng, length);
                self.faults.push((at, Fault::Change(trader, i, Some(content))));
            }
            1 => {
                let content = noise(rng, length);
                self.faults.push((at, Fault::Change(trader, i, None)));
                self.faults.push((until, Fault::Change(trader, i, Some(content))));
            }
            _ if self.faults.iter().any(|(_, f)| matches!(f, Fault::Change(t, j, _) if (*t, *j) == (trader, i))) => {}
            _ => {
                self.contents[trader][i] = None;
                self.faults.push((at, Fault::Change(trader, i, Some(before))));
            }
        }
        self.faults.push((at + rng.random_range(0..=until - at), Fault::Rescan(trader)));
        self.faults.push((until + 1, Fault::Rescan(trader)));
    }

    /// How long the bytes of the busier direction take over all links together.
    pub(crate) fn ideal_ns(&self) -> u64 {
        let bytes = |trader: usize| self.contents[trader].iter().flatten().map(|bytes| bytes.len()).sum::<usize>();
        let hop = |trader: usize| -> f64 {
            let links = self.slots.iter().filter(|(slot, _)| slot.trader == trader);
            links.map(|(_, nature)| nature.bytes_per_second).sum()
        };
        let n = f64::from(self.packet_bytes);
        (bytes(0).max(bytes(1)) as f64 / hop(0).min(hop(1)) * n / (n - 2.0) * 1e9) as u64
    }
}
