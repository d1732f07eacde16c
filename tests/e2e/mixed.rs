//! Sites where some nodes carry checked blocks between them and others only whole objects.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::proxy::Proxy;
use super::seed::{Habits, Peer};
use super::site::{Plan, Site};

fn plan() -> Plan {
    Plan { blocks: true, ..Plan::default() }
}

/// Runs a site of which these nodes carry whole objects only.
fn start_with_whole(plan: Plan, whole: &[&str]) -> Site {
    let mut site = Site::new(plan);
    whole.iter().for_each(|node| site.set_blocks(node, false));
    for node in site.all() {
        site.run(&node);
    }
    site
}

fn received(site: &Site, node: &str) -> u64 {
    site.tells(node, "/payload_received").as_u64().unwrap_or_default()
}

/// One of them has no inventory, the other asks for names.
#[test]
fn a_trader_without_blocks_and_one_with_converge_through_exchanges_with_blocks() {
    for packet_bytes in [1400, 65_536] {
        let mut site = start_with_whole(Plan { packet_bytes, ..plan() }, &["t1"]);
        site.until_converged();
    }
}

/// It waited for good, with nothing to be seen but that no peer had told what there is.
#[test]
fn a_trader_without_a_list_says_so_where_no_peer_has_one() {
    let mut site = Site::new(plan());
    site.set_blocks("e1", false);
    site.unlist("t1", "delete = \"keep\"");
    ["t1", "t2", "e1"].iter().for_each(|node| site.run(node));
    let is_told = |site: &Site, node: &str| site.tells(node, "/problems").to_string().contains("segments");
    site.until("the trader says so", |site| is_told(site, "t1"));
    assert!(!is_told(&site, "t2"), "it has a list");
    site.run("e2");
    site.until("another exchange tells", |site| !is_told(site, "t1"));
    site.until_converged();
}

/// What came over the exchange that carries whole objects had the time at which it came, the mode of new files and a
/// marker without a root, though the other exchange had told all three: after a restart it was fetched again, and what
/// was gone at its origin was not removed.
#[test]
fn what_comes_whole_and_is_known_from_an_inventory_is_as_good_as_what_comes_in_blocks() {
    let mut site = Site::new(plan());
    site.set_blocks("e2", false);
    site.unlist("t2", "delete = \"mirror\"");
    let slow = Proxy::to(site.address("t2"), 20_000);
    site.write_exchange("e1", [site.address("t1"), slow.address]);
    let segments: Vec<usize> = (1..=site.plan.segments).collect();
    for &segment in &segments {
        fs::set_permissions(site.local("t1", segment), fs::Permissions::from_mode(0o640)).expect("set");
    }
    site.all().iter().for_each(|node| site.run(node));
    site.until("most of it came whole", |site| site.has_markers("t2", segments.len() / 2));
    for &segment in segments.iter().filter(|&&segment| site.marker("t2", segment).exists()) {
        let marker = fs::read_to_string(site.marker("t2", segment)).expect("read");
        assert!(marker.contains("\nroot "), "{marker}");
        let [from, to] = [site.local("t1", segment), site.remote("t2", segment)].map(|path| {
            let found = fs::metadata(path).expect("there");
            (found.mode(), found.mtime(), found.mtime_nsec())
        });
        assert_eq!(from, to);
    }
    assert!(received(&site, "e2") > 0);
}

/// There is no range of it that the exchange could ask for, so that it never answered.
#[test]
fn an_empty_object_comes_to_a_seed_only_trader() {
    let mut site = Site::new(Plan { exchanges: 1, ..plan() });
    site.unlist("t2", "delete = \"keep\"");
    fs::write(site.local("t2", 1), []).expect("write");
    let names: Vec<String> = (1..=site.plan.segments).map(|segment| format!("stock{segment}")).collect();
    let (local, remote) = (site.path("t1").join("local"), site.path("t1").join("remote"));
    let peer = Peer::trader(site.address("t1"), &names, &local, &remote, Habits::default());
    ["t2", "e1"].iter().for_each(|node| site.run(node));
    let all = site.plan.segments;
    site.until_unchecked("all have come", |site| site.has_markers("t1", all));
    assert_eq!(fs::metadata(site.remote("t1", 1)).map(|meta| meta.len()).ok(), Some(0));
    drop(peer);
}

#[test]
fn what_comes_whole_from_a_trader_without_blocks_comes_over_each_exchange_once() {
    let mut site = start_with_whole(Plan { records: 20_000, ..plan() }, &["t1"]);
    site.until_converged();
    let job = (site.plan.segments * site.segment_bytes()) as u64;
    // Both directions pass both exchanges together once each; a tail may come twice.
    let all = received(&site, "e1") + received(&site, "e2");
    assert!(all < 3 * job, "{all} bytes for two times {job}");
}

/// What was asked for by name and not fetched yet keeps its place until there is room.
#[test]
fn a_small_spool_fetches_no_more_ahead_than_it_holds() {
    let plan = Plan { segments: 24, records: 20_000, spool: "3MiB", exchanges: 1, ..plan() };
    let mut site = start_with_whole(plan, &["t1"]);
    site.until_converged();
    let job = (site.plan.segments * site.segment_bytes()) as u64;
    let all = received(&site, "e1");
    assert!(all < 3 * job, "{all} bytes for two times {job}");
}

#[test]
fn more_objects_than_are_asked_for_at_a_time_come_from_a_seed_only_trader() {
    let mut site = Site::new(Plan { segments: 300, records: 5, ..plan() });
    let names: Vec<String> = (1..=300).map(|segment| format!("stock{segment}")).collect();
    let (local, remote) = (site.path("t1").join("local"), site.path("t1").join("remote"));
    let peer = Peer::trader(site.address("t1"), &names, &local, &remote, Habits::default());
    for node in ["t2", "e1", "e2"] {
        site.run(node);
    }
    site.until_converged();
    drop(peer);
}

/// It asks before anything is known of what it asks for: the far trader comes last.
#[test]
fn a_trader_without_blocks_that_asks_too_early_is_served_when_it_is_known() {
    let mut site = Site::new(plan());
    site.set_blocks("t1", false);
    for node in ["t1", "e1", "e2"] {
        site.run(node);
    }
    site.until("the exchanges are there", |site| site.tells("t1", "/peers/1/links_up") == 2);
    site.run("t2");
    site.until_converged();
}

#[test]
fn a_seed_only_trader_that_asks_too_early_is_served_when_it_is_known() {
    let mut site = Site::new(plan());
    let names: Vec<String> = (1..=site.plan.segments).map(|segment| format!("stock{segment}")).collect();
    let (local, remote) = (site.path("t1").join("local"), site.path("t1").join("remote"));
    let peer = Peer::trader(site.address("t1"), &names, &local, &remote, Habits::default());
    ["e1", "e2"].iter().for_each(|node| site.run(node));
    site.until("the exchanges have met it", |site| {
        ["e1", "e2"].iter().all(|node| site.tells(node, "/peers/0/links_up") == 2)
    });
    site.run("t2");
    site.until_converged();
    drop(peer);
}

#[test]
fn traders_with_blocks_converge_through_an_exchange_without() {
    let mut site = start_with_whole(Plan { exchanges: 1, ..plan() }, &["e1"]);
    site.until_converged();
}

#[test]
fn an_exchange_with_blocks_and_one_without_are_both_used() {
    let mut site = start_with_whole(Plan { segments: 48, records: 20_000, ..plan() }, &["e2"]);
    site.until_converged();
    let segment = site.segment_bytes() as u64;
    for exchange in ["e1", "e2"] {
        assert!(received(&site, exchange) >= 4 * segment, "{exchange} was left idle");
    }
}

#[test]
fn an_exchange_of_the_seed_and_one_with_blocks_are_both_used() {
    let mut site = Site::start(Plan { segments: 48, records: 5000, exchanges: 1, ..plan() });
    let names: Vec<String> = (1..=48).rev().map(|segment| format!("stock{segment}")).collect();
    let traders = ["t1", "t2"].map(|trader| site.address(trader));
    let peer = Peer::exchange(traders, 2, &names, &site.path("e9"), Habits::default());
    site.until_converged();
    drop(peer);
}

/// What was found out by hashing is not known any more, what is in the spool is.
#[test]
fn an_exchange_that_restarts_tells_of_what_came_whole_again() {
    let mut site = start_with_whole(Plan { segments: 24, exchanges: 1, ..plan() }, &["t1"]);
    site.until("the job is under way", |site| site.has_markers("t2", 1));
    site.kill("e1");
    site.run("e1");
    site.until_converged();
}
