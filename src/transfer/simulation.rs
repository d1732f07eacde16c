//! The scheduler against links of any kind, on a clock of its own: how much longer than ideal it takes.
//!
//! A simulated link takes requests after a delay, answers them in order at its rate, and loses all of it when it dies.
//! Ideal is the time in which the links' capacity, as it turned out to be, adds up to the bytes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{Action, Content, Entry, Flow, RangeRequest};
use crate::limits;
use crate::units::{BlockCrcs, ByteCount, LinkId, NodeName, ObjectName, Root256, Time};

const TICK: Duration = Duration::from_millis(5);
const LINK_RATE: f64 = 1_400_000.0;

/// A stretch of time in which a link carries another part of its rate, or is not there at all.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    from: Time,
    until: Time,
    part: f64,
    dead: bool,
}

#[derive(Debug, Clone)]
struct Plan {
    rate: f64,
    delay: Duration,
    troubles: Vec<Trouble>,
    damage: f64,
}

impl Plan {
    fn healthy() -> Self {
        Self { rate: LINK_RATE, delay: Duration::from_millis(5), troubles: Vec::new(), damage: 0.0 }
    }

    fn trouble(&self, now: Time) -> Option<&Trouble> {
        self.troubles.iter().find(|t| t.from <= now && now < t.until)
    }

    fn rate(&self, now: Time) -> f64 {
        self.rate * self.trouble(now).map_or(1.0, |t| if t.dead { 0.0 } else { t.part })
    }

    fn is_dead(&self, now: Time) -> bool {
        self.trouble(now).is_some_and(|t| t.dead)
    }
}

#[derive(Debug, Default)]
struct Wire {
    /// Attached under this id.
    id: Option<LinkId>,
    /// Requests and when they reach the server.
    queue: VecDeque<(Time, RangeRequest)>,
    budget: f64,
    sent: u64,
}

#[derive(Debug)]
struct Outcome {
    ratio: f64,
    /// Seconds longer than ideal.
    beyond: f64,
    /// Bytes carried per byte wanted.
    copies: f64,
    put_aside: usize,
}

struct Simulation {
    flow: Flow,
    plans: Vec<Plan>,
    wires: Vec<Wire>,
    ids: u64,
    rng: Pcg64Mcg,
    data: Vec<u8>,
    carried: u64,
    put_aside: usize,
}

impl Simulation {
    fn new(plans: Vec<Plan>, objects: u32, size: u64, seed: u64) -> Self {
        let data: Vec<u8> = (0..size as u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 23) as u8).collect();
        let mut flow = Flow::fetch();
        let block_crcs: BlockCrcs = data.chunks(limits::BLOCK_BYTES as usize).map(crc_fast::crc32_iscsi).collect();
        for i in 0..objects {
            let name = ObjectName::new(format!("o{i:05}").as_bytes()).expect("valid");
            let block_crcs = block_crcs.clone();
            let content =
                Content { size: ByteCount(size), mtime_ns: 0, mode: 0o644, root: Root256([1; 32]), block_crcs };
            flow.know(Entry { name, content }).expect("room in the table");
        }
        let wires = plans.iter().map(|_| Wire::default()).collect();
        let rng = Pcg64Mcg::seed_from_u64(seed);
        Self { flow, plans, wires, ids: 0, rng, data, carried: 0, put_aside: 0 }
    }

    fn step(&mut self, now: Time, crcs: &mut BTreeMap<(u64, u64), u32>) {
        for at in 0..self.plans.len() {
            let plan = self.plans[at].clone();
            match (self.wires[at].id, plan.is_dead(now)) {
                (Some(id), true) => {
                    self.flow.detach_blocks(id, now);
                    self.wires[at] = Wire::default();
                    continue;
                }
                (None, true) => continue,
                (None, false) => {
                    self.ids += 1;
                    let peer = NodeName::new(format!("e{}", at % 2).as_bytes()).expect("valid");
                    self.flow.attach_blocks(LinkId(self.ids), peer, now);
                    self.wires[at].id = Some(LinkId(self.ids));
                }
                (Some(_), false) => {}
            }
            let id = self.wires[at].id.expect("attached");
            while let Some(cancelled) = self.flow.poll_cancel(id) {
                let wire = &mut self.wires[at];
                let under_way = wire.queue.front().map(|front| front.1).filter(|_| wire.sent > 0);
                wire.queue.retain(|(_, r)| {
                    Some(*r) == under_way || (r.object, r.end()) != (cancelled.object, cancelled.end())
                });
            }
            while let Some(request) = self.flow.next_range(id, now) {
                self.wires[at].queue.push_back((now + plan.delay * 2, request));
            }
            self.carry(at, id, &plan, now, crcs);
        }
        while let Some(action) = self.flow.poll_action() {
            match action {
                Action::OpenPart { id, generation, .. } => self.flow.handle_created(id, generation),
                Action::Commit { id, generation, .. } => self.flow.handle_committed(id, generation, now),
                Action::Create { .. } | Action::Abandon { .. } | Action::Discard { .. } => {}
                Action::Evict { .. } | Action::Remove { .. } => {}
            }
        }
        while self.flow.poll_event().is_some() {}
        while self.flow.poll_wake().is_some() {}
    }

    fn carry(&mut self, at: usize, id: LinkId, plan: &Plan, now: Time, crcs: &mut BTreeMap<(u64, u64), u32>) {
        self.wires[at].budget += plan.rate(now) * TICK.as_secs_f64();
        while let Some(&(_, request)) = self.wires[at].queue.front().filter(|front| front.0 <= now) {
            let wire = &mut self.wires[at];
            let bytes = (wire.budget as u64).min(request.length.0 - wire.sent);
            if bytes == 0 {
                return;
            }
            wire.budget -= bytes as f64;
            wire.sent += bytes;
            self.carried += bytes;
            let is_whole = wire.sent == request.length.0;
            self.flow.handle_range_data(id, Some(request), ByteCount(bytes), now);
            if !is_whole {
                continue;
            }
            self.wires[at].sent = 0;
            self.wires[at].queue.pop_front();
            if plan.damage > 0.0 && self.rng.random_bool(plan.damage) {
                self.flow.handle_damaged(id, request, now);
                self.put_aside += usize::from(self.flow.health(id, now).is_some_and(|h| h.aside_until.is_some()));
            } else if self.flow.handle_range_begin(request) {
                let crc = *crcs.entry((request.offset.0, request.length.0)).or_insert_with(|| {
                    crc_fast::crc32_iscsi(&self.data[request.offset.0 as usize..request.end().0 as usize])
                });
                self.flow.handle_verified(id, request, crc, now);
            } else {
                self.flow.handle_verified(id, request, 0, now);
            }
        }
        // What an idle link could have carried is lost.
        self.wires[at].budget = self.wires[at].budget.min(1.0);
    }

    fn run(mut self) -> Outcome {
        let bytes = self.flow.totals().bytes.0 as f64;
        let mut crcs = BTreeMap::new();
        let (mut now, mut capacity, mut ideal) = (Time::ZERO, 0.0, None);
        while !self.flow.is_complete() {
            capacity += self.plans.iter().map(|plan| plan.rate(now) * TICK.as_secs_f64()).sum::<f64>();
            self.step(now, &mut crcs);
            now = now + TICK;
            if capacity >= bytes {
                ideal.get_or_insert(now);
            }
            assert!(now < Time(Duration::from_secs(600)), "it hangs: {:?}", self.flow.totals());
        }
        let ideal = ideal.expect("nothing is carried beyond capacity");
        let ratio = now.0.as_secs_f64() / ideal.0.as_secs_f64();
        let beyond = now.since(ideal).as_secs_f64();
        Outcome { ratio, beyond, copies: self.carried as f64 / bytes, put_aside: self.put_aside }
    }
}

fn at(seconds: f64) -> Time {
    Time(Duration::from_secs_f64(seconds))
}

fn random_plans(rng: &mut Pcg64Mcg) -> Vec<Plan> {
    let links = rng.random_range(2..=8);
    (0..links)
        .map(|_| {
            let mut plan = Plan {
                rate: LINK_RATE * rng.random_range(0.05..1.5),
                delay: Duration::from_millis(rng.random_range(1..30)),
                troubles: Vec::new(),
                damage: if rng.random_bool(0.1) { rng.random_range(0.0..0.1) } else { 0.0 },
            };
            let mut from = rng.random_range(0.0..20.0);
            while rng.random_bool(0.5) && from < 60.0 {
                let until = from + rng.random_range(0.1..4.0);
                let dead = rng.random_bool(0.5);
                let part = if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..1.0) };
                plan.troubles.push(Trouble { from: at(from), until: at(until), part, dead });
                from = until + rng.random_range(0.1..10.0);
            }
            plan
        })
        .collect()
}

fn distribution(mut ratios: Vec<f64>) -> String {
    ratios.sort_by(f64::total_cmp);
    let quantile = |q: f64| ratios[((ratios.len() - 1) as f64 * q) as usize];
    let quantiles = [0.0, 0.1, 0.5, 0.9, 0.99, 1.0].map(|q| format!("p{:.0} {:.3}", q * 100.0, quantile(q)));
    quantiles.join("  ")
}

#[test]
fn healthy_links_end_within_a_twentieth_of_ideal() {
    let outcome = Simulation::new(vec![Plan::healthy(); 6], 24, 2_400_000, 1).run();
    println!("healthy: {outcome:?}");
    assert!(outcome.ratio <= 1.05, "{outcome:?}");
    assert!(outcome.copies <= 1.01, "healthy links thrash: {outcome:?}");
}

#[test]
fn one_link_at_a_tenth_does_not_hold_up_the_others() {
    let mut plans = vec![Plan::healthy(); 6];
    plans[2].rate /= 10.0;
    let outcome = Simulation::new(plans, 24, 2_400_000, 1).run();
    println!("one link at a tenth: {outcome:?}");
    assert!(outcome.ratio <= 1.05, "{outcome:?}");
    assert!(outcome.copies <= 1.02, "{outcome:?}");
}

#[test]
fn half_of_the_links_dying_at_half_time_costs_no_more_than_their_capacity() {
    let mut plans = vec![Plan::healthy(); 6];
    for plan in &mut plans[3..] {
        plan.troubles.push(Trouble { from: at(3.4), until: at(1000.0), part: 0.0, dead: true });
    }
    let outcome = Simulation::new(plans, 24, 2_400_000, 1).run();
    println!("half of the links dead at half time: {outcome:?}");
    assert!(outcome.ratio <= 1.06, "{outcome:?}");
}

#[test]
fn a_link_that_damages_every_other_range_is_put_aside_and_costs_little() {
    let mut plans = vec![Plan::healthy(); 6];
    plans[1].damage = 0.5;
    let outcome = Simulation::new(plans, 24, 2_400_000, 1).run();
    println!("one link that damages every other range: {outcome:?}");
    assert!(outcome.put_aside >= 1, "{outcome:?}");
    // Its capacity counts in the ideal.
    assert!(outcome.ratio <= 1.25, "{outcome:?}");
    assert!(outcome.copies <= 1.02, "{outcome:?}");
}

#[test]
fn links_of_any_kind_end_near_ideal() {
    let mut outcomes = Vec::new();
    for seed in 0..300 {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let plans = random_plans(&mut rng);
        let damages = plans.iter().any(|plan| plan.damage > 0.0);
        let (objects, size) = (rng.random_range(8..40), rng.random_range(500_000..3_000_000));
        outcomes.push((seed, damages, Simulation::new(plans, objects, size, seed).run()));
    }
    let all = |part: fn(&Outcome) -> f64, damages: Option<bool>| {
        let those = outcomes.iter().filter(|outcome| damages.is_none_or(|damages| outcome.1 == damages));
        distribution(those.map(|outcome| part(&outcome.2)).collect())
    };
    println!("makespan / ideal, no damage: {}", all(|o| o.ratio, Some(false)));
    println!("makespan / ideal, damage:    {}", all(|o| o.ratio, Some(true)));
    println!("seconds beyond ideal:        {}", all(|o| o.beyond, Some(false)));
    println!("carried / wanted:            {}", all(|o| o.copies, None));
    for (seed, damages, outcome) in &outcomes {
        assert!(*damages || outcome.beyond <= 0.6, "seed {seed}: {outcome:?}");
        // The capacity of links that are put aside counts in the ideal.
        assert!(outcome.ratio <= 3.0 && outcome.copies <= 1.06, "seed {seed}: {outcome:?}");
    }
}
