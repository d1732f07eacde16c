//! Sites whose nodes carry checked blocks between them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use rand::RngExt as _;

use super::proxy::Proxy;
use super::site::{Plan, Site, chance, random_bytes};
use super::upkeep::check_nothing_is_sent_twice;

fn plan() -> Plan {
    Plan { blocks: true, ..Plan::default() }
}

#[test]
fn blocks_bring_each_object_with_its_root_mode_and_time() {
    let mut site = Site::new(plan());
    fs::set_permissions(site.local("t1", 3), fs::Permissions::from_mode(0o640)).expect("set");
    for node in site.all() {
        site.run(&node);
    }
    site.until_converged();
    let (here, there) =
        (fs::metadata(site.local("t1", 3)).expect("there"), fs::metadata(site.remote("t2", 3)).expect("there"));
    assert_eq!(there.mode(), here.mode());
    assert_eq!((there.mtime(), there.mtime_nsec()), (here.mtime(), here.mtime_nsec()));
    for segment in 1..=site.plan.segments {
        let root = blake3::hash(&fs::read(site.local("t1", segment)).expect("there"));
        let marker = fs::read_to_string(site.marker("t2", segment)).expect("there");
        assert!(marker.contains(&format!("root {root}")), "{marker}");
    }
}

#[test]
fn an_object_that_changes_is_fetched_again() {
    let mut site = Site::start(plan());
    site.until_converged();
    let aside = site.path("t1").join("aside");
    fs::write(&aside, random_bytes(site.segment_bytes())).expect("written");
    fs::rename(&aside, site.local("t1", 5)).expect("renamed");
    let new = fs::read(site.local("t1", 5)).expect("there");
    site.until_unchecked("the new version is there", |site| {
        fs::read(site.remote("t2", 5)).is_ok_and(|bytes| bytes == new) && site.marker("t2", 5).exists()
    });
    site.until_converged();
}

#[test]
fn all_nodes_killed_on_the_way_go_on_where_they_were() {
    let mut site = Site::start(Plan { segments: 40, ..plan() });
    let count = chance().random_range(1..30);
    site.until("the job is under way", |site| site.has_markers("t1", count));
    for node in site.all() {
        site.kill(&node);
    }
    for node in site.all() {
        site.run(&node);
    }
    site.until_converged();
}

#[test]
fn packets_of_any_length_carry_blocks() {
    for packet_bytes in [128, 65_536, 1 << 20] {
        let mut site = Site::start(Plan { segments: 4, packet_bytes, ..plan() });
        site.until_converged();
    }
}

#[test]
fn a_restarted_trader_is_not_sent_what_it_has() {
    check_nothing_is_sent_twice(Plan { segments: 6, ..plan() });
}

#[test]
fn flipped_bits_are_seen_and_only_what_they_hit_is_sent_again() {
    let mut site = Site::new(Plan { segments: 24, records: 20_000, exchanges: 1, ..plan() });
    let bad = Proxy::to(site.address("t1"), u64::MAX);
    bad.flip_every(2_000_000);
    let far = site.address("t2");
    site.write_exchange("e1", [bad.address, far]);
    for node in site.all() {
        site.run(&node);
    }
    site.until_converged();
    assert!(bad.flips() > 0, "the link did no harm");
}

#[test]
fn without_a_specification_whatever_the_peer_has_comes() {
    let mut site = Site::new(Plan { segments: 3, ..plan() });
    ["t1", "t2"].iter().for_each(|trader| site.unlist(trader, ""));
    let local = site.path("t1").join("local");
    fs::create_dir_all(local.join("2026/11")).expect("made");
    fs::write(local.join("2026/11/day: 20%"), b"nested").expect("written");
    fs::write(local.join("empty"), b"").expect("written");
    for node in site.all() {
        site.run(&node);
    }
    site.until_converged();
    let remote = site.path("t2").join("remote");
    site.until("names of all kinds and no bytes at all come too", |_| {
        fs::read(remote.join("2026/11/day: 20%")).is_ok_and(|bytes| bytes == b"nested")
            && remote.join("2026/11/day: 20%.success").exists()
            && remote.join("empty.success").exists()
    });
}
