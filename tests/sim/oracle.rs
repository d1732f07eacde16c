//! What must hold in the end, and what stops a run that does not get there.

use supersync::transfer::FlowId;

use crate::scenario::{Plan, SECOND};
use crate::world::{World, object_name};

/// Virtual time without progress after which nothing more is hoped for.
const PATIENCE: u64 = 60 * SECOND;

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) trace: u64,
    pub(crate) converged_at: u64,
    pub(crate) steps: u64,
}

/// Runs a plan to its end.
pub(crate) fn run(plan: Plan) -> Outcome {
    let mut world = World::new(plan);
    let converged_at = converge(&mut world);
    finish(&mut world);
    Outcome { trace: world.trace, converged_at, steps: world.steps }
}

/// What must hold once they have.
pub(crate) fn finish(world: &mut World) {
    settle_down(world);
    check_trees(world);
}

/// Until both traders have everything and nothing more will go wrong.
pub(crate) fn converge(world: &mut World) -> u64 {
    let mut converged_at = None;
    let deadline = world.plan.healed_at + time_bound(&world.plan);
    loop {
        if world.is_converged() {
            converged_at.get_or_insert(world.now);
            if world.faults_are_over() {
                return converged_at.expect("just set");
            }
        }
        let stuck = world.now.saturating_sub(world.last_progress.max(world.plan.healed_at)) > PATIENCE;
        if stuck || world.now > deadline {
            describe(world);
            panic!("{} at {} s", if stuck { "nothing moves" } else { "late" }, world.now / SECOND);
        }
        world.step();
    }
}

/// Generous: some times the time that the bytes take on the slowest half of the links, and round trips for each packet
/// where a peer goes in lock-step.
fn time_bound(plan: &Plan) -> u64 {
    let slowest = plan.slots.iter().map(|(_, nature)| nature.bytes_per_second).fold(f64::INFINITY, f64::min);
    let bytes: usize = plan.contents.iter().flatten().flatten().map(|bytes| bytes.len()).sum();
    // Data, and for each object of each trader a few packets more: the request, its answer, a padded end, an idle turn.
    let packets = (bytes / (plan.packet_bytes as usize - 2) + 2 * 4 * plan.names.len()) as u64;
    let wire_ns = (f64::from(plan.packet_bytes) / slowest * 1e9) as u64;
    let turn = 2 * (plan.slots[0].1.latency_ns + wire_ns) + 11 * SECOND / 1000;
    let lock_step = if plan.seed_only.iter().any(Option::is_some) { packets * turn * 2 } else { 0 };
    60 * SECOND + 10 * plan.ideal_ns() + (bytes as f64 / slowest * 1e9) as u64 + lock_step
}

/// All is done: what is under way ends, and nothing is left behind.
fn settle_down(world: &mut World) {
    let until = world.now + 5 * SECOND;
    while world.now < until {
        world.step();
    }
    for node in 0..world.nodes.len() {
        if world.plan.seed_only[node].is_some() {
            continue;
        }
        let this = &mut world.nodes[node];
        if !this.alive {
            continue;
        }
        assert!(this.disk.parts.is_empty(), "{} has parts left: {:?}", this.name, this.disk.parts.keys());
        for flow in [FlowId(0), FlowId(1)] {
            let held = this.disk.bytes_of(flow);
            let flow = this.flows.at(flow);
            if let Some((used, _)) = flow.spool() {
                assert_eq!(used.0, held, "{} reckons with what is in its spool", this.name);
            }
            let all_ours = world.plan.seed_only.iter().all(Option::is_none);
            assert!(!all_ours || flow.is_complete(), "{} has nothing left to fetch", this.name);
        }
    }
}

/// Each trader's remote tree is the other's local tree, byte for byte; where an object changed, one of its versions.
fn check_trees(world: &World) {
    for trader in 0..2 {
        for text in &world.plan.names {
            let name = object_name(text);
            let node = &world.nodes[trader];
            let has = match world.plan.seed_only[trader] {
                Some(_) => &node.shelves[0][text],
                None => &node.disk.files[&(FlowId(0), name.clone())],
            };
            let versions = &world.versions[1 - trader][&name];
            assert!(versions.contains(has), "{name} at {}", node.name);
        }
    }
}

/// For whoever has to find out why.
fn describe(world: &World) {
    println!("{} nodes, N = {}, faults:", world.nodes.len(), world.plan.packet_bytes);
    println!("  seed-only {:?}", world.plan.seed_only);
    println!("  spools {:?}", world.plan.spool_max);
    for (at, fault) in &world.plan.faults {
        let text = format!("{fault:?}");
        println!("  {:.3} s {}", *at as f64 / 1e9, &text[..text.len().min(100)]);
    }
    for line in world.ended_links.iter().rev().take(20).rev() {
        println!("  {line}");
    }
    for (trader, node) in world.nodes.iter().enumerate().take(2) {
        let has =
            |name: &&String| node.disk.markers.contains(&object_name(name)) || node.shelves[0].contains_key(*name);
        let missing: Vec<_> = world.plan.names.iter().filter(|name| !has(name)).collect();
        println!("trader {trader} misses {missing:?}");
    }
    for node in &world.nodes {
        println!("{} (alive {}), told last: {:?}", node.name, node.alive, node.told.last());
        for flow in node.flows.iter() {
            println!("  {:?} {:?} spool {:?}", flow.kind(), flow.totals(), flow.spool());
            let text = format!("{flow:?}");
            let (from, to) = (text.find("schedule:").unwrap_or(0), text.find("room:").unwrap_or(0));
            println!("    {}", &text[from..to]);
            for (name, state, _, problem) in flow.objects().filter(|o| o.3.is_some()).take(5) {
                println!("    {name} {state:?} {problem:?}");
            }
        }
    }
    for (id, conn) in &world.conns {
        println!("{id} {:?} {:?}", conn.slot, conn.pipes.iter().map(|p| (p.busy, p.arrived.len())).collect::<Vec<_>>());
        for end in conn.ends.iter().flatten() {
            let text = format!("{:?}", end.kind);
            let from = text.find("counters").unwrap_or(0);
            println!("    {}", &text[from..]);
        }
    }
}
