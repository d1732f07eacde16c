//! Nodes that die at any moment: what stands is true, and the job goes on when they are back.

use std::time::Duration;

use nix::sys::signal::Signal;
use rand::RngExt as _;

use super::site::{Plan, Site, chance};

/// A moment of the job: when so many markers stand.
fn kill_and_revive(victims: &[&str], rounds: usize) {
    let mut chance = chance();
    let plan = Plan { segments: 24, records: 10_000, ..Plan::default() };
    let mut site = Site::start(plan);
    for round in 0..rounds {
        let markers = chance.random_range(0..=4 + 6 * round);
        let node = victims[chance.random_range(0..victims.len())];
        let trader = if chance.random() { "t1" } else { "t2" };
        site.until("the moment has come", |site| site.has_markers(trader, markers) && site.status(node).is_some());
        // Somewhere within an object, not at its end.
        std::thread::sleep(Duration::from_micros(chance.random_range(0..20_000)));
        println!("round {round}: {node} dies when {trader} has {markers}");
        site.kill(node);
        site.check_contents();
        site.run(node);
    }
    site.until_converged();
    site.until("no parts are left", |site| site.stray_parts().is_empty());
}

#[test]
fn an_exchange_killed_at_a_random_moment_restarts_and_the_traders_converge() {
    kill_and_revive(&["e1", "e2"], 4);
}

#[test]
fn a_trader_killed_at_a_random_moment_restarts_and_converges() {
    kill_and_revive(&["t1", "t2"], 4);
}

#[test]
fn all_nodes_killed_at_once_restart_and_converge() {
    let mut chance = chance();
    let mut site = Site::start(Plan { segments: 24, records: 10_000, ..Plan::default() });
    for round in 0..3 {
        let markers = chance.random_range(0..=6 + 8 * round);
        site.until("the moment has come", |site| site.has_markers("t1", markers));
        let nodes = site.all();
        nodes.iter().for_each(|node| site.kill(node));
        site.check_contents();
        nodes.iter().for_each(|node| site.run(node));
    }
    site.until_converged();
    site.until("no parts are left", |site| site.stray_parts().is_empty());
}

#[test]
fn an_exchange_that_stays_dead_is_done_without() {
    let mut site = Site::start(Plan::default());
    site.until("the job is under way", |site| site.has_markers("t1", 1));
    site.kill("e2");
    site.until_converged();
}

/// Frozen as by a debugger or a full machine: its links are dead to the others until it thaws.
#[test]
fn a_node_that_is_frozen_for_a_while_is_done_without_and_taken_back() {
    let mut site = Site::start(Plan { segments: 24, ..Plan::default() });
    site.until("the job is under way", |site| site.has_markers("t1", 1));
    site.signal("e1", Signal::SIGSTOP);
    site.until_converged();
    site.signal("e1", Signal::SIGCONT);
    site.until("its links are back", |site| {
        ["t1", "t2"].iter().all(|trader| {
            let peers = site.tells(trader, "/peers").as_array().cloned().unwrap_or_default();
            peers.iter().all(|peer| peer["links_up"] == 2)
        })
    });
}
