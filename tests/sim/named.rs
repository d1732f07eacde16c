//! Sites with a story, each with a fact that must hold.

use std::rc::Rc;

use supersync::transfer::{Event, Problem};

use crate::oracle::{converge, finish, run};
use crate::scenario::{Fault, MS, Plan, SECOND, Slot};
use crate::seed_peer::Habits;
use crate::world::World;

const LINK_RATE: f64 = 1.4e6;
/// The site that PERFORMANCE measures, half as long: two exchanges, three links a pair.
const OBJECTS: usize = 24;
const OBJECT_BYTES: usize = 1_200_000;

fn site(seed: u64) -> Plan {
    Plan::quiet(seed, 2, 3, LINK_RATE, &[OBJECT_BYTES; OBJECTS])
}

fn slots(plan: &Plan, which: impl Fn(Slot) -> bool) -> Vec<Slot> {
    plan.slots.iter().map(|&(slot, _)| slot).filter(|&slot| which(slot)).collect()
}

/// Virtual time until both have everything.
fn makespan(plan: Plan) -> f64 {
    run(plan).converged_at as f64
}

#[test]
fn a_healthy_site_is_as_fast_as_its_links() {
    for (latency_ns, bound) in [(MS / 10, 1.10), (MS / 2, 1.10), (5 * MS, 1.15)] {
        let mut plan = site(1);
        plan.slots.iter_mut().for_each(|(_, nature)| nature.latency_ns = latency_ns);
        let ideal = plan.ideal_ns() as f64;
        let ratio = makespan(plan) / ideal;
        println!("one-way delay {} us: makespan / ideal = {ratio:.3}", latency_ns / 1000);
        assert!(ratio <= bound, "{ratio}");
    }
}

#[test]
fn a_healthy_site_sends_nothing_twice() {
    let mut world = World::new(site(2));
    converge(&mut world);
    finish(&mut world);
    let sent = world.payload_sent_to_traders();
    assert_eq!(sent, 2 * (OBJECTS * OBJECT_BYTES) as u64);
}

#[test]
fn one_link_cut_for_good() {
    let mut plan = site(3);
    let healthy = plan.ideal_ns();
    let slot = slots(&plan, |slot| slot.exchange == 2 && slot.trader == 1)[0];
    plan.faults.push((healthy / 2, Fault::Down(slot)));
    plan.healed_at = healthy / 2;
    // Five links do what is left of the work of six, and the object in hand is begun again.
    let remaining = healthy as f64 * (0.5 + 0.5 * 6.0 / 5.0);
    let ratio = makespan(plan) / remaining;
    println!("makespan / ideal with five of six links from the middle on = {ratio:.3}");
    assert!(ratio <= 1.25, "{ratio}");
}

#[test]
fn every_link_of_one_hop_cut_for_good() {
    // The exchange stays up and answers, but has lost the far trader: what it was asked for must come over the other.
    let mut plan = site(4);
    let at = plan.ideal_ns() / 2;
    let cut = slots(&plan, |slot| slot.exchange == 2 && slot.trader == 0);
    plan.faults = cut.into_iter().map(|slot| (at, Fault::Down(slot))).collect();
    plan.healed_at = at;
    let ratio = makespan(plan.clone()) / plan.ideal_ns() as f64;
    assert!(ratio <= 1.0 + 0.5 + 0.35, "{ratio}");
}

fn kill(plan: &mut Plan, nodes: &[usize], at: u64, until: u64) {
    plan.faults.extend(nodes.iter().map(|&node| (at, Fault::Crash(node))));
    plan.faults.extend(nodes.iter().map(|&node| (until, Fault::Restart(node))));
    plan.healed_at = until;
}

#[test]
fn exchange_dies_and_returns() {
    let mut plan = site(5);
    let ideal = plan.ideal_ns();
    kill(&mut plan, &[2], ideal / 3, ideal / 2);
    let ratio = makespan(plan) / ideal as f64;
    assert!(ratio <= 1.6, "{ratio}");
}

#[test]
fn exchange_never_returns() {
    let mut plan = site(6);
    let ideal = plan.ideal_ns();
    plan.faults.push((ideal / 2, Fault::Crash(3)));
    plan.healed_at = ideal / 2;
    let mut world = World::new(plan);
    let ratio = converge(&mut world) as f64 / ideal as f64;
    assert!(ratio <= 1.5 * 1.25, "{ratio}");
}

#[test]
fn all_four_killed_midway() {
    let mut plan = site(7);
    let at = plan.ideal_ns() / 2;
    kill(&mut plan, &[0, 1, 2, 3], at, at + SECOND);
    let mut world = World::new(plan);
    while world.now < at - MS {
        world.step();
    }
    let marked: usize = world.nodes[..2].iter().map(|node| node.disk.markers.len()).sum();
    assert!(marked > 0, "something is done by then");
    converge(&mut world);
    finish(&mut world);
    // What was marked is not fetched again; what was in hand, an object a link and those asked for ahead, may be.
    let sent = world.payload_sent_to_traders();
    let most = 2 * OBJECTS * OBJECT_BYTES + 2 * 12 * OBJECT_BYTES;
    assert!(sent <= most as u64, "{sent} bytes for {most}");
}

#[test]
fn spool_smaller_than_the_data() {
    let mut plan = site(8);
    plan.spool_max = vec![3 * OBJECT_BYTES as u64; 2];
    let ratio = makespan(plan.clone()) / plan.ideal_ns() as f64;
    println!("makespan / ideal with spools of three objects = {ratio:.3}");
    assert!(ratio <= 3.0, "{ratio}");
}

#[test]
fn object_larger_than_the_spool_is_reported_and_others_flow() {
    let mut plan = site(9);
    plan.sizes_are_known = false;
    plan.spool_max = vec![3 * OBJECT_BYTES as u64; 2];
    let large = Rc::new(vec![7; 4 * OBJECT_BYTES]);
    plan.contents[0][5] = Some(large);
    let mut world = World::new(plan);
    let all_but_one = |world: &World| {
        world.nodes[0].disk.markers.len() == OBJECTS && world.nodes[1].disk.markers.len() == OBJECTS - 1
    };
    while !all_but_one(&world) {
        assert!(world.now < 60 * SECOND, "the others flow");
        world.step();
    }
    while world.now < 120 * SECOND {
        world.step();
    }
    for exchange in 2..4 {
        let is_it = |e: &&Event| matches!(e, Event::Failed { problem: Problem::LargerThanSpool { .. }, .. });
        let told = world.nodes[exchange].told.iter().filter(is_it).count();
        assert_eq!(told, 1, "it is reported once");
    }
    let discarded: u64 = world.discarded_by(|node| node >= 2);
    // Each try costs all of its bytes: they get rarer, down to one in thirty seconds.
    assert!(discarded <= 2 * 12 * 4 * OBJECT_BYTES as u64, "{discarded}");
}

#[test]
fn segment_appears_later() {
    let mut plan = site(10);
    let late = plan.contents[0][3].take();
    let at = 20 * SECOND;
    plan.faults = vec![(at, Fault::Change(0, 3, late)), (at + 1, Fault::Rescan(0))];
    plan.healed_at = at + 1;
    let done = run(plan).converged_at;
    assert!(done > at && done < at + 4 * SECOND, "{done}");
}

#[test]
fn stalled_link_is_declared_dead_and_its_work_taken() {
    let mut plan = site(11);
    let ideal = plan.ideal_ns();
    let slot = slots(&plan, |slot| slot.exchange == 2 && slot.trader == 1)[1];
    plan.faults.push((ideal / 2, Fault::Stall(slot)));
    plan.healed_at = ideal / 2;
    let done = run(plan).converged_at;
    // Three seconds until the silence is noticed, and an object to be fetched again.
    assert!(done < ideal + 5 * SECOND, "{done}");
}

#[test]
fn a_slow_link_does_not_hold_the_job() {
    let mut plan = site(12);
    let slow = 5.0;
    for (slot, nature) in &mut plan.slots {
        if slot.index == 0 && slot.exchange == 2 {
            nature.bytes_per_second /= slow;
        }
    }
    // Its share is an even one, which would take it five times as long as the others.
    let ratio = makespan(plan.clone()) / plan.ideal_ns() as f64;
    println!("makespan / ideal with one link at a fifth = {ratio:.3}");
    assert!(ratio <= 1.5, "{ratio}");
}

const HABITS: Habits = Habits {
    repeats: false,
    says_no_request: true,
    says_pending: true,
    says_end: true,
    keeps_to_share: true,
    is_configured: false,
};

#[test]
fn seed_only_exchange() {
    for repeats in [false, true] {
        let mut plan = Plan::quiet(13, 2, 3, LINK_RATE, &[30_000; 24]);
        plan.seed_only[2] = Some(Habits { repeats, ..HABITS });
        run(plan);
    }
}

#[test]
fn seed_only_trader() {
    for repeats in [false, true] {
        let mut plan = Plan::quiet(14, 2, 3, LINK_RATE, &[30_000; 24]);
        plan.seed_only[1] = Some(Habits { repeats, ..HABITS });
        run(plan);
    }
}

#[test]
fn an_idle_link_to_a_seed_only_peer_carries_little() {
    // Data that ran ahead of a peer in lock-step must not go round as padding for ever.
    let mut plan = Plan::quiet(15, 1, 1, LINK_RATE, &[100_000; 8]);
    plan.seed_only[1] = Some(HABITS);
    let mut world = World::new(plan);
    converge(&mut world);
    let before = world.packets_in_of(2);
    let until = world.now + 10 * SECOND;
    while world.now < until {
        world.step();
    }
    let packets = world.packets_in_of(2) - before;
    assert!(packets <= 10 * 110, "{packets} packets in ten idle seconds");
}

#[test]
fn a_source_that_keeps_changing_is_never_marked_half() {
    let mut plan = site(16);
    plan.sizes_are_known = false;
    // About where the traders' links are at the time.
    let ideal = plan.ideal_ns();
    for i in 0..4 * OBJECTS {
        let at = i as u64 * ideal / (4 * OBJECTS) as u64 + 30 * MS;
        let bytes = Rc::new(vec![i as u8; OBJECT_BYTES - 1000 * i]);
        plan.faults.push((at, Fault::Change(0, i / 8 + i % 2 * OBJECTS / 2, Some(bytes))));
        plan.faults.push((at + 500 * MS, Fault::Rescan(0)));
    }
    plan.faults.sort_by_key(|&(at, _)| at);
    plan.healed_at = ideal + SECOND;
    let mut world = World::new(plan);
    converge(&mut world);
    finish(&mut world);
    let failed = |e: &&Event| matches!(e, Event::SourceFailed { .. });
    assert!(world.nodes[0].told.iter().any(|e| failed(&e)), "some changed under the sender");
}
