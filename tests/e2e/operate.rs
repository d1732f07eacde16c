//! What an operator does to a running daemon: stop it, reload it, restart its peers.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::proxy::Proxy;
use super::site::{Plan, Site, descriptors};

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
        // Systemd would wait for 90 s; OPERATIONS promises seconds.
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
