//! What an operator does to a running daemon: stop it, reload it, restart its peers.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::proxy::Proxy;
use super::site::{PATIENCE, Plan, Site, descriptors};

fn site_under_way() -> (Site, Proxy) {
    let plan = Plan { segments: 4, records: 40_000, links: 1, exchanges: 1, ..Plan::default() };
    let mut site = Site::new(plan);
    let proxy = Proxy::to(site.address("t1"), 500_000);
    let far = site.address("t2");
    site.write_exchange("e1", [proxy.address, far]);
    for node in site.all() {
        site.run(&node);
    }
    site.until("bytes flow", |site| site.tells("e1", "/payload_received").as_u64() > Some(100_000));
    (site, proxy)
}

#[test]
fn sigterm_drains_within_seconds_and_exits_with_0() {
    let (mut site, proxy) = site_under_way();
    for node in ["t1", "e1", "t2"] {
        let began = Instant::now();
        site.signal(node, Signal::SIGTERM);
        let status = site.reap(node);
        assert_eq!(status.code(), Some(0), "{node}: {status}\n{}", site.log(node));
        // Systemd would wait for 90 s; deploy/README.md promises seconds.
        assert!(began.elapsed() < Duration::from_secs(20), "{node} took {:?}", began.elapsed());
    }
    // What stands under a final name is whole, also without a marker; parts stay only where they can be gone on with.
    site.check_contents();
    for (trader, segment) in site.missing() {
        assert!(!site.remote(trader, segment).exists(), "{trader}: {segment}");
    }
    assert!(site.plan.blocks || site.parts().is_empty(), "{:?}", site.parts());
    assert!(!site.socket("t1").exists(), "the control socket is taken away");
    proxy.set_rate(u64::MAX);
    site.all().iter().for_each(|node| site.run(node));
    site.until_converged();
}

#[test]
fn a_bad_file_changes_nothing_at_a_reload() {
    let (mut site, proxy) = site_under_way();
    let good = fs::read_to_string(site.config("t1")).expect("there");
    fs::write(site.config("t1"), format!("{good}\ncolour = \"green\"\n")).expect("written");
    site.signal("t1", Signal::SIGHUP);
    site.until("status says that the reload failed", |site| site.tells("t1", "/config/ok") == false);
    assert!(site.tells("t1", "/config/message").to_string().contains("colour"));
    fs::write(site.config("t1"), good).expect("written");
    site.signal("t1", Signal::SIGHUP);
    site.until("status says that all is well", |site| site.tells("t1", "/config/ok") == true);
    proxy.set_rate(u64::MAX);
    site.until_converged();
}

#[test]
fn a_reload_applies_who_may_connect() {
    let mut site = Site::new(Plan::default());
    let address = site.address("t1");
    site.write_trader("t1", &["192.0.2.0/24"], address);
    site.all().iter().for_each(|node| site.run(node));
    site.until("the trader refuses", |site| site.log("t1").contains("refused: not in `allow`"));
    assert!(site.missing().len() == 24, "{:?}", site.missing());
    site.write_trader("t1", &["127.0.0.0/8"], address);
    site.signal("t1", Signal::SIGHUP);
    site.until_converged();
    let up = |site: &Site| -> u64 {
        let peers = site.tells("t1", "/peers").as_array().cloned().unwrap_or_default();
        peers.iter().filter_map(|peer| peer["links_up"].as_u64()).sum()
    };
    site.until("all links are up", |site| up(site) == 4);
    site.write_trader("t1", &["192.0.2.0/24"], address);
    site.signal("t1", Signal::SIGHUP);
    site.until("those who may not connect any more are gone", |site| up(site) == 0);
}

/// With two links to one trader under two names it was told of its own objects as of the far trader's.
#[test]
fn an_exchange_makes_no_link_with_another_node_than_its_config_names() {
    let mut site = Site::new(Plan { exchanges: 1, links: 1, segments: 2, ..Plan::default() });
    let (t1, t2) = (site.address("t1"), site.address("t2"));
    site.write_exchange("e1", [t2, t1]);
    site.all().iter().for_each(|node| site.run(node));
    let problem = "the node there is t1, and the config calls it t2";
    site.until("status says what is wrong", |site| site.tells("e1", "/problems").to_string().contains(problem));
    site.until("so does the link, while it waits to be dialed again", |site| {
        site.tells("e1", "/peers/1/links/0/note").to_string().contains(problem)
    });
    assert_eq!(site.missing().len(), 4, "nobody has anything of the far trader's");
    site.write_exchange("e1", [t1, t2]);
    site.signal("e1", Signal::SIGHUP);
    site.until_converged();
    site.until("all is well", |site| site.tells("e1", "/problems") == serde_json::json!([]));
}

/// Each end said that all was well, and nothing passed.
#[test]
fn packets_of_two_lengths_are_a_problem_at_both_ends() {
    let mut site = Site::new(Plan { exchanges: 1, links: 1, segments: 1, ..Plan::default() });
    for (node, theirs) in [("t1", "packet_bytes = 1000"), ("t2", "packet_bytes = 9000")] {
        let text = fs::read_to_string(site.config(node)).expect("there");
        fs::write(site.config(node), text.replace("packet_bytes = 1400", theirs)).expect("written");
    }
    site.all().iter().for_each(|node| site.run(node));
    let tells = |site: &Site, node: &str| site.tells(node, "/problems").to_string().contains("packet_bytes");
    site.until("all three say so", |site| site.all().iter().all(|node| tells(site, node)));
}

#[test]
fn a_reload_forgets_links_that_are_not_to_come_back() {
    let mut site = Site::start(Plan { exchanges: 1, ..Plan::default() });
    site.until_converged();
    let both = [site.address("t1"), site.address("t2")];
    site.plan.links = 1;
    site.write_exchange("e1", both);
    site.signal("e1", Signal::SIGHUP);
    site.until("a link is missed", |site| site.tells("t1", "/peers/0/state") == "degraded");
    site.signal("t1", Signal::SIGHUP);
    site.until("it is not missed any more", |site| site.tells("t1", "/peers/0/state") != "degraded");
    assert_eq!(site.tells("t1", "/peers/0/links").as_array().map(Vec::len), Some(1));
}

/// Its exchange had given the silent connections up and made new ones, which the trader met before it noticed the end
/// of the old ones: it missed as many for ever.
#[test]
fn a_trader_that_stood_still_misses_no_link() {
    let mut site = Site::start(Plan { exchanges: 1, links: 3, segments: 2, ..Plan::default() });
    site.until_converged();
    site.signal("t1", Signal::SIGSTOP);
    site.until("the exchange has given its links up", |site| site.tells("e1", "/peers/0/links_up") == 0);
    site.signal("t1", Signal::SIGCONT);
    let links = |site: &Site, node: &str| -> Vec<(u64, String)> {
        let links = site.tells(node, "/peers/0/links").as_array().cloned().unwrap_or_default();
        links.iter().map(|link| (link["number"].as_u64().expect("a number"), link["state"].to_string())).collect()
    };
    let all = [1, 2, 3].map(|number| (number, "\"up\"".to_owned()));
    site.until("both have all links, and no others", |site| ["e1", "t1"].iter().all(|node| links(site, node) == all));
}

/// All its exchanges were shut out: nobody was left to miss, and all was well.
#[test]
fn a_trader_to_whom_nobody_is_connected_is_not_well() {
    let mut site = Site::start(Plan { exchanges: 1, segments: 2, ..Plan::default() });
    site.until_converged();
    site.until("all is well", |site| site.tells("t1", "/problems") == serde_json::json!([]));
    let address = site.address("t1");
    for (allow, is_well) in [("192.0.2.0/24", false), ("127.0.0.0/8", true)] {
        site.write_trader("t1", &[allow], address);
        site.signal("t1", Signal::SIGHUP);
        site.until("it says so", |site| site.tells("t1", "/problems").to_string().contains("nobody") != is_well);
    }
    site.until("its links are back", |site| site.tells("t1", "/peers/0/links_up") == 2);
    let reconnects = site.tells("t1", "/peers/0/links/0/reconnects");
    assert!(reconnects.as_u64() > Some(0), "its links are those that were there before: {reconnects}");
}

#[test]
fn a_reload_dials_links_that_are_new_and_ends_those_that_are_gone() {
    let mut site = Site::start(Plan { exchanges: 1, links: 1, ..Plan::default() });
    site.until_converged();
    let both = [site.address("t1"), site.address("t2")];
    for links in [3, 1] {
        site.plan.links = links;
        site.write_exchange("e1", both);
        site.signal("e1", Signal::SIGHUP);
        site.until("the links are as the config says", |site| {
            ["t1", "t2"].iter().all(|trader| site.tells(trader, "/peers/0/links_up") == links)
                && site.tells("e1", "/peers/1/links_total") == links
        });
    }
    assert!(!site.log("e1").contains("panicked"));
}

#[test]
fn fifty_reconnects_leak_no_descriptor() {
    let mut site = Site::start(Plan { segments: 2, exchanges: 1, links: 15, ..Plan::default() });
    site.until_converged();
    let mut before = Vec::new();
    for round in 0..5 {
        site.kill("t2");
        site.run("t2");
        site.until("its links are back", |site| site.tells("t2", "/peers/0/links_up") == 15);
        site.until("the exchange has as many", |site| site.tells("e1", "/peers/1/links_up") == 15);
        if round == 0 {
            before = ["e1", "t1"].map(|node| descriptors(site.pid(node))).to_vec();
        }
    }
    site.until("as many descriptors as at first", |site| {
        ["e1", "t1"].iter().zip(&before).all(|(node, before)| descriptors(site.pid(node)) <= before + 2)
    });
}

/// 300 small objects at once, each with a descriptor for its part and one for its marker.
#[test]
fn what_a_shell_allows_of_descriptors_is_not_what_a_daemon_lives_on() {
    let mut site = Site::new(Plan { segments: 300, records: 1, ..Plan::default() });
    for node in site.all() {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -S -n 80 && exec \"$1\" run \"$2\"", "sh", env!("CARGO_BIN_EXE_supersyncd")]);
        command.arg(site.config(&node));
        site.run_as(&node, command);
    }
    site.until_converged();
    for node in site.all() {
        assert!(!site.log(&node).contains("Too many open files"), "{node}");
    }
}

// -- what links say
// ----------------------------------------------------------------------------------------------------------

/// A site that carries blocks, with one exchange that reaches `t1` through a proxy; one link each.
fn proxied(rate: u64) -> (Site, Proxy) {
    let plan = Plan { segments: 4, records: 40_000, links: 1, exchanges: 1, blocks: true, ..Plan::default() };
    let site = Site::new(plan);
    let proxy = Proxy::to(site.address("t1"), rate);
    site.write_exchange("e1", [proxy.address, site.address("t2")]);
    (site, proxy)
}

/// A node's peers, as soon as it answers: a question may be interrupted by a signal.
fn peers(site: &Site, node: &str) -> serde_json::Value {
    let by = Instant::now() + PATIENCE;
    loop {
        let peers = site.tells(node, "/peers");
        if peers.is_array() {
            return peers;
        }
        assert!(Instant::now() < by, "{node} does not answer");
    }
}

fn sum(site: &Site, node: &str, field: &str) -> u64 {
    let peers = peers(site, node);
    let links = peers.as_array().into_iter().flatten().flat_map(|peer| peer["links"].as_array().into_iter().flatten());
    links.map(|link| link[field].as_u64().expect("a number")).sum()
}

fn supersyncctl(site: &Site, node: &str, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supersyncctl"));
    let output = command.arg("--socket").arg(site.socket(node)).args(args).output().expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn what_links_say_they_brought_is_what_was_fetched() {
    let mut site = Site::start(Plan { blocks: true, ..Plan::default() });
    site.until_converged();
    let fetched = (site.plan.segments * site.segment_bytes()) as u64;
    for trader in ["t1", "t2"] {
        assert_eq!(sum(&site, trader, "verified"), fetched, "{}", peers(&site, trader));
        assert_eq!(sum(&site, trader, "bad"), 0);
        assert!(sum(&site, trader, "stolen") <= fetched);
    }
    site.until("all links are idle", |site| {
        let text = supersyncctl(site, "t1", &["why-slow", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((json["schema"].as_str(), json["node"].as_str()), (Some("supersync.why-slow/1"), Some("t1")));
        let links = json["links"].as_array().expect("links");
        links.len() == 4 && links.iter().all(|link| link["held_by"] == "nothing" && link["why"] == "nothing to do")
    });
    let table = supersyncctl(&site, "e1", &["why-slow"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("e1 is SYNCED") && lines[1].starts_with("PEER  LINK  ADDRESS"), "{table}");
    assert_eq!(lines.len(), 6, "{table}");
    let table = supersyncctl(&site, "e1", &["links"]);
    assert!(["SHARE", "STOLEN", "TWICE", "BAD"].iter().all(|column| table.contains(column)), "{table}");
}

#[test]
fn each_link_says_what_holds_it_back() {
    let (mut site, proxy) = proxied(400_000);
    site.all().iter().for_each(|node| site.run(node));
    let held = |site: &Site, node: &str, peer: usize| site.tells(node, &format!("/peers/{peer}/links/0/held_by"));
    site.until("the slow link carries what it can", |site| held(site, "e1", 0) == "network");
    site.until("its share, its capacity and the time left are told", |site| {
        let link = site.tells("t2", "/peers/0/links/0");
        let rate = link["capacity_in"].as_f64().is_some_and(|rate| (100_000.0..4e6).contains(&rate));
        rate && link["share"] == 1.0 && site.tells("t2", "/eta_seconds").as_f64().is_some_and(|eta| eta > 1.0)
    });
    // What is not on disk at the exchange cannot come any more.
    site.kill("t1");
    site.until("the exchange says which link is down", |site| {
        held(site, "e1", 0) == "down" && site.tells("e1", "/peers/0/links/0/why").as_str() != Some("")
    });
    site.until("the trader says that it waits for the exchange", |site| held(site, "t2", 0) == "relay");
    site.until("and that it cannot tell how long", |site| site.tells("t2", "/eta_seconds").is_null());
    site.run("t1");
    proxy.set_rate(u64::MAX);
    site.until_converged();
}

#[test]
fn what_a_link_did_outlives_its_connections() {
    let (mut site, proxy) = proxied(400_000);
    site.all().iter().for_each(|node| site.run(node));
    site.until("some has come", |site| ["t1", "t2"].iter().all(|trader| sum(site, trader, "verified") > 500_000));
    site.kill("e1");
    site.until("the link is shown in spite of that", |site| {
        site.tells("t2", "/peers/0/links/0/state") == "down" && site.tells("t2", "/peers/0/links/0/held_by") == "down"
    });
    assert!(sum(&site, "t2", "verified") > 500_000);
    site.run("e1");
    proxy.set_rate(u64::MAX);
    site.until_converged();
    let fetched = (site.plan.segments * site.segment_bytes()) as u64;
    for trader in ["t1", "t2"] {
        assert_eq!(sum(&site, trader, "verified"), fetched, "{}", peers(&site, trader));
        let peers = peers(&site, trader);
        assert_eq!(peers[0]["links"].as_array().map(Vec::len), Some(1), "it took its place again: {peers}");
        assert!(peers[0]["links"][0]["reconnects"].as_u64() > Some(0), "{peers}");
    }
}

/// A damaged packet head ends its connection: that too is damage of this link.
#[test]
fn a_damaged_head_counts_against_its_link() {
    let (mut site, proxy) = proxied(u64::MAX);
    // The hello, the switch, and then the first packet of frames.
    proxy.damage_once_at(2 * site.plan.packet_bytes as u64);
    site.all().iter().for_each(|node| site.run(node));
    site.until_converged();
    let [exchange, near, far] = ["e1", "t1", "t2"].map(|node| peers(&site, node));
    let bad = |link: &serde_json::Value| link["links"][0]["bad"].as_u64().expect("a number");
    assert_eq!(bad(&exchange[0]) + bad(&near[0]), 1, "{exchange} {near}");
    assert!(exchange[0]["links"][0]["reconnects"].as_u64() > Some(0), "{exchange}");
    assert_eq!((bad(&exchange[1]), bad(&far[0])), (0, 0), "the other link did no harm");
}

#[test]
fn damage_counts_against_the_link_that_did_it() {
    let (mut site, proxy) = proxied(u64::MAX);
    proxy.flip_every(1_000_000);
    site.all().iter().for_each(|node| site.run(node));
    site.until_converged();
    let [exchange, near, far] = ["e1", "t1", "t2"].map(|node| peers(&site, node));
    let bad = |peer: &serde_json::Value| peer["bad"].as_u64().expect("a number");
    assert!(proxy.flips() > 0 && bad(&exchange[0]) + bad(&near[0]) > 0, "{} flips: {exchange} {near}", proxy.flips());
    assert_eq!((bad(&exchange[1]), bad(&far[0])), (0, 0), "the other link did no harm");
}

/// A directory that is exchanged by a rename is another one: the node went on with the old one, and was SYNCED.
#[test]
fn a_directory_that_another_one_stands_in_for_is_a_problem() {
    let mut site = Site::start(Plan { segments: 1, exchanges: 1, ..Plan::default() });
    site.until_converged();
    for root in ["local", "remote"] {
        let (path, away) = (site.path("t1").join(root), site.path("t1").join("away"));
        fs::rename(&path, &away).expect("renamed");
        fs::create_dir(&path).expect("made");
        let is_told = |site: &Site| site.tells("t1", "/problems").to_string().contains(path.to_str().expect("text"));
        site.until("it is told", |site| is_told(site));
        fs::remove_dir(&path).expect("removed");
        fs::rename(&away, &path).expect("renamed");
        site.until("it is told no more", |site| !is_told(site));
    }
}

#[test]
fn what_is_never_replicated_is_said_when_it_changes() {
    let mut site = Site::new(Plan { segments: 1, exchanges: 1, ..Plan::default() });
    let local = site.path("t1").join("local");
    std::os::unix::fs::symlink("stock1", local.join("link")).expect("made");
    fs::write(local.join("stock1.success"), "").expect("written");
    site.all().iter().for_each(|node| site.run(node));
    site.until_converged();
    assert!(site.log("t1").contains("never replicated: 1, as link, a symbolic link"));
    assert_eq!(site.tells("t1", "/problems").as_array().map(Vec::len), Some(0), "somebody may want it so");
    fs::write(local.join("alone.success"), "").expect("written");
    fs::write(local.join("more"), "").expect("written");
    site.until("the second one is said", |site| {
        site.log("t1").contains("never replicated: 2, as alone.success, the name")
    });
}
