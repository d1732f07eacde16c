//! Sites that stay up: segments that come later, segments that are damaged at the receiver, sockets that outlive a
//! node.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::{fs, thread};

use super::site::{Plan, Site, random_bytes};

#[test]
fn a_segment_that_appears_later_is_replicated() {
    let mut site = Site::new(Plan::default());
    let whole = site.segment_bytes();
    fs::remove_file(site.local("t1", 3)).expect("removed");
    fs::remove_file(site.local("t1", 9)).expect("removed");
    fs::write(site.local("t2", 5), random_bytes(whole / 2)).expect("cut");
    for node in site.all() {
        site.run(&node);
    }
    site.until("all but what is not there is here", |site| site.missing() == [("t1", 5), ("t2", 3), ("t2", 9)]);
    let problems = |site: &Site| site.tells("t1", "/problems").to_string();
    assert!(problems(&site).contains("stock3"), "{}", problems(&site));

    // Renamed into place, written in place, and made whole in place.
    let aside = site.path("t1").join("aside");
    fs::write(&aside, random_bytes(whole)).expect("written");
    fs::rename(&aside, site.local("t1", 3)).expect("renamed");
    fs::write(site.local("t1", 9), random_bytes(whole)).expect("written");
    fs::write(site.local("t2", 5), random_bytes(whole)).expect("written");
    site.until_converged();
    site.until("nothing is amiss any more", |site| {
        ["t1", "t2"].iter().all(|t| site.tells(t, "/problems") == serde_json::json!([]))
    });
}

/// Nothing arrived any more, and nobody was told why.
/// The far trader kept the former version and was never SYNCED again.
#[test]
fn a_segment_that_changed_while_the_far_trader_was_down_is_replicated() {
    for delete in ["delete = \"keep\"", "delete = \"mirror\""] {
        let mut site = Site::new(Plan { segments: 3, blocks: true, exchanges: 1, ..Plan::default() });
        ["t1", "t2"].iter().for_each(|trader| site.unlist(trader, delete));
        for node in site.all() {
            site.run(&node);
        }
        site.until_converged();
        site.kill("t2");
        let changed = site.path("t1").join("changed");
        fs::write(&changed, random_bytes(site.segment_bytes())).expect("written");
        fs::rename(changed, site.local("t1", 2)).expect("renamed");
        site.run("t2");
        site.until("the change is there", |site| {
            fs::read(site.remote("t2", 2)).ok() == fs::read(site.local("t1", 2)).ok()
                && site.tells("t2", "/state") == "SYNCED"
        });
        site.check_contents();
    }
}

#[test]
fn a_store_that_is_removed_under_its_node_is_told_until_that_is_restarted() {
    let mut site = Site::start(Plan { segments: 1, exchanges: 1, ..Plan::default() });
    site.until_converged();
    let from_t2 = site.path("e1").join("spool/t2");
    fs::remove_dir_all(site.path("t1").join("remote/.supersync/parts")).expect("removed");
    fs::remove_dir_all(&from_t2).expect("removed");
    for (node, expected) in [("t1", "remote/.supersync was removed"), ("e1", "spool/t2 is no longer the directory")] {
        site.until("it says so", |site| site.tells(node, "/problems").to_string().contains(expected));
        site.kill(node);
        site.run(node);
    }
    site.until("nothing is amiss any more", |site| {
        ["t1", "e1"].iter().all(|node| site.tells(node, "/problems") == serde_json::json!([]))
    });
    site.until_converged();
}

#[test]
fn a_damaged_segment_is_fetched_again() {
    let mut site = Site::start(Plan::default());
    site.until_converged();
    fs::remove_file(site.marker("t1", 1)).expect("removed");
    fs::remove_file(site.remote("t1", 1)).expect("removed");
    fs::remove_file(site.marker("t1", 2)).expect("removed");
    fs::remove_file(site.remote("t1", 3)).expect("removed");
    fs::remove_file(site.marker("t2", 4)).expect("removed");
    let cut = fs::OpenOptions::new().write(true).open(site.remote("t2", 4)).expect("there");
    cut.set_len(100).expect("cut");
    // Its marker stands, and is a lie from here on until the daemon has seen it.
    site.until_unchecked("the daemon has seen what was done", |site| {
        site.log("t1").contains("is marked, but its file is gone") && !site.missing().contains(&("t1", 3))
    });
    site.until_converged();
}

#[test]
fn a_truncated_segment_loses_its_marker_and_is_fetched_again() {
    let mut site = Site::start(Plan { segments: 3, ..Plan::default() });
    site.until_converged();
    site.kill("t1");
    fs::write(site.remote("t1", 2), b"short").expect("cut");
    fs::write(site.marker("t1", 3), b"size x\n").expect("damaged");
    fs::remove_file(site.marker("t1", 1)).expect("removed");
    site.run("t1");
    let whole = site.segment_bytes() as u64;
    let is_whole = |site: &Site, s| fs::metadata(site.remote("t1", s)).is_ok_and(|meta| meta.len() == whole);
    site.until_unchecked("all are whole again", |site| {
        (1..=3).all(|segment| is_whole(site, segment)) && site.missing().is_empty()
    });
    site.until_converged();
}

#[test]
fn the_same_segment_is_not_sent_twice_to_a_trader_that_has_it() {
    check_nothing_is_sent_twice(Plan { segments: 6, ..Plan::default() });
}

/// Both exchanges have both links to a trader, and it has everything.
fn until_back(site: &mut Site, trader: &str) {
    site.until("the links are back", |site| {
        let peers = site.tells(trader, "/peers").as_array().cloned().unwrap_or_default();
        let are_up = peers.len() == 2 && peers.iter().all(|peer| peer["links_up"] == 2);
        are_up && site.tells(trader, "/state") == "SYNCED"
    });
}

/// A trader that has everything is restarted.
pub(crate) fn check_nothing_is_sent_twice(plan: Plan) {
    let mut site = Site::start(plan);
    site.until_converged();
    let sent = |site: &Site| site.tells("t1", "/payload_sent").as_u64().expect("a number");
    let before = sent(&site);
    site.kill("t2");
    site.run("t2");
    until_back(&mut site, "t2");
    assert_eq!(sent(&site), before);
}

#[test]
fn what_is_here_stays_when_the_config_asks_for_another_size() {
    let mut site = Site::start(Plan { segments: 3, ..Plan::default() });
    site.until_converged();
    let right = fs::read_to_string(site.config("t1")).expect("there");
    site.kill("t1");
    fs::write(site.config("t1"), right.replace("records = 5000", "records = 5001")).expect("written");
    site.run("t1");
    site.until_unchecked("it says so", |site| site.log("t1").contains("which should be"));
    site.until_unchecked("it looks for others", |site| site.tells("t1", "/have/objects") == 0);
    assert!((1..=3).all(|segment| site.remote("t1", segment).exists() && site.marker("t1", segment).exists()));
    site.kill("t1");
    let sent = site.tells("t2", "/payload_sent");
    fs::write(site.config("t1"), right).expect("written");
    site.run("t1");
    until_back(&mut site, "t1");
    assert_eq!(site.tells("t2", "/payload_sent"), sent, "nothing of it had to come again");
}

#[test]
fn what_has_no_place_keeps_nothing_else_up_and_comes_once() {
    let mut site = Site::new(Plan { segments: 1, exchanges: 1, blocks: true, ..Plan::default() });
    ["t1", "t2"].iter().for_each(|trader| site.unlist(trader, ""));
    let (local, remote) = (site.path("t1").join("local"), site.path("t2").join("remote"));
    fs::write(local.join("x"), random_bytes(100)).expect("written");
    for node in site.all() {
        site.run(&node);
    }
    site.until("the file is there", |_| remote.join("x.success").exists());
    fs::remove_file(local.join("x")).expect("removed");
    fs::create_dir(local.join("x")).expect("made");
    let long = random_bytes(300_000);
    fs::write(local.join("x/long"), &long).expect("written");
    site.until("it cannot be placed", |site| site.tells("t2", "/failed") == 1);
    let received = site.tells("t2", "/payload_received").as_u64().expect("a number");
    fs::write(local.join("after"), random_bytes(1000)).expect("written");
    site.until("what comes after it has come", |_| remote.join("after.success").exists());
    fs::remove_file(remote.join("x.success")).expect("removed");
    fs::remove_file(remote.join("x")).expect("removed");
    site.until("it has found its place", |_| remote.join("x/long.success").exists());
    assert_eq!(fs::read(remote.join("x/long")).expect("there"), long);
    assert_eq!(site.tells("t2", "/payload_received").as_u64(), Some(received + 1000));
    site.until("nothing is amiss any more", |site| site.tells("t2", "/state") == "SYNCED");
}

/// The command that runs a node with a listening socket that is handed to it.
fn handed(site: &Site, node: &str, listener: TcpListener) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" run \"$1\""]);
    command.arg(env!("CARGO_BIN_EXE_supersyncd")).arg(site.config(node)).stdin(OwnedFd::from(listener));
    command
}

/// As systemd does with a `.socket` unit: whoever connects before the node runs waits, and is served.
#[test]
fn a_node_takes_over_the_socket_that_it_is_handed() {
    let mut site = Site::new(Plan::default());
    let listener = TcpListener::bind(site.address("t1")).expect("nobody is there");
    for exchange in site.exchanges() {
        site.run(&exchange);
    }
    site.run("t2");
    site.until("an exchange waits for the first packet", |site| {
        site.tells("e1", "/peers/0/links/0/state") == "connecting"
    });
    let command = handed(&site, "t1", listener);
    site.run_as("t1", command);
    site.until_converged();
}

/// systemd keeps the listening sockets over a restart. A node whose address was narrowed from 0.0.0.0 found that port
/// in use, by the socket that was kept for it, at each of its starts.
#[test]
fn what_was_kept_for_an_address_that_is_no_longer_listened_on_is_given_up() {
    let mut site = Site::new(Plan::default());
    let listener = TcpListener::bind("0.0.0.0:0").expect("bound");
    let kept = listener.try_clone().expect("cloned");
    let mut narrowed = site.address("t1");
    narrowed.set_port(listener.local_addr().expect("bound").port());
    site.write_trader("t1", &["127.0.0.0/8"], narrowed);
    for exchange in site.exchanges() {
        site.write_exchange(&exchange, [narrowed, site.address("t2")]);
    }
    let manager = site.path("t1").join("notify");
    let told = UnixDatagram::bind(&manager).expect("bound");
    let keeper = thread::spawn(move || {
        let mut message = [0; 512];
        let length = told.recv(&mut message).expect("the node tells something");
        drop(kept);
        String::from_utf8_lossy(&message[..length]).into_owned()
    });
    let mut command = handed(&site, "t1", listener);
    command.env("NOTIFY_SOCKET", &manager);
    site.run_as("t1", command);
    for node in site.all().into_iter().filter(|node| node != "t1") {
        site.run(&node);
    }
    site.until_converged();
    assert!(keeper.join().expect("no panic").starts_with("FDSTOREREMOVE=1"));
}
