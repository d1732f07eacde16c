//! Peers made from the seed's text alone, in lock-step, against ours: both sides have everything in the end.

use super::seed::{Habits, Peer};
use super::site::{Plan, Site};

/// Objects of many packets, of exactly one, and of hardly any bytes.
const LENGTHS: [usize; 3] = [1000, 50, 1];

fn names(site: &Site) -> Vec<String> {
    (1..=site.plan.segments).map(|segment| format!("stock{segment}")).collect()
}

/// Our two traders with nothing but a seed-only exchange between them.
fn through_a_seed_exchange(habits: Habits) {
    for records in LENGTHS {
        let mut site = Site::start(Plan { records, exchanges: 0, ..Plan::default() });
        let traders = ["t1", "t2"].map(|trader| site.address(trader));
        let peer = Peer::exchange(traders, 2, &names(&site), &site.path("e1"), habits);
        site.until_converged();
        drop(peer);
        assert!(site.is_running("t1") && site.is_running("t2"));
    }
}

/// Our exchanges between a seed-only trader and one of ours.
fn with_a_seed_trader(habits: Habits) {
    for records in LENGTHS {
        let mut site = Site::new(Plan { records, ..Plan::default() });
        let (local, remote) = (site.path("t1").join("local"), site.path("t1").join("remote"));
        let peer = Peer::trader(site.address("t1"), &names(&site), &local, &remote, habits);
        for node in ["t2", "e1", "e2"] {
            site.run(node);
        }
        site.until_converged();
        drop(peer);
        assert!(site.is_running("e1") && site.is_running("e2"));
    }
}

#[test]
fn our_traders_converge_through_a_seed_only_exchange() {
    through_a_seed_exchange(Habits::default());
}

#[test]
fn our_traders_converge_through_an_exchange_that_repeats_its_requests() {
    through_a_seed_exchange(Habits { repeats: true, ..Habits::default() });
}

#[test]
fn our_traders_converge_through_an_exchange_that_stalls_every_other_turn() {
    through_a_seed_exchange(Habits { stalls: true, ends: true, ..Habits::default() });
}

#[test]
fn our_traders_converge_through_an_exchange_that_sends_in_fragments() {
    through_a_seed_exchange(Habits { fragment: Some(100), ..Habits::default() });
}

#[test]
fn a_seed_only_trader_converges_with_ours_through_our_exchanges() {
    with_a_seed_trader(Habits::default());
}

#[test]
fn a_trader_that_repeats_its_requests_converges_with_ours() {
    with_a_seed_trader(Habits { repeats: true, ..Habits::default() });
}

#[test]
fn a_trader_that_stalls_every_other_turn_converges_with_ours() {
    with_a_seed_trader(Habits { stalls: true, ends: true, ..Habits::default() });
}

#[test]
fn a_trader_that_sends_in_fragments_converges_with_ours() {
    with_a_seed_trader(Habits { fragment: Some(100), ..Habits::default() });
}

/// It keeps to its half of the segments, as the seed has it; the other half comes through ours.
#[test]
fn a_seed_only_exchange_works_beside_one_of_ours() {
    let mut site = Site::start(Plan { records: 1000, exchanges: 1, ..Plan::default() });
    let traders = ["t1", "t2"].map(|trader| site.address(trader));
    let half = names(&site)[6..].to_vec();
    let peer = Peer::exchange(traders, 2, &half, &site.path("e9"), Habits::default());
    site.until_converged();
    drop(peer);
}
