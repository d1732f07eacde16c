//! Exchanges that pass on from memory what comes in quickly.

use std::fs;

use nix::sys::signal::Signal;

use super::proxy::Proxy;
use super::seed::{Habits, Peer};
use super::site::{Plan, Site};

/// Bytes a second of each link, each way: a segment comes in a tenth of a second, all of them in some seconds.
const RATE: u64 = 10_000_000;

/// A site of one exchange whose links to both traders are that fast; nothing runs yet.
fn site() -> (Site, [Proxy; 2]) {
    let plan = Plan { segments: 30, records: 50_000, exchanges: 1, links: 2, blocks: true, ..Plan::default() };
    let site = Site::new(plan);
    let links = ["t1", "t2"].map(|trader| Proxy::to(site.address(trader), RATE));
    site.write_exchange("e1", [links[0].address, links[1].address]);
    (site, links)
}

/// What a process has written by calls that write to files; what goes to sockets is not among it.
fn written_to_files(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("a field of the kernel");
    line.parse().expect("a number")
}

#[test]
fn what_comes_quickly_is_not_written_down() {
    let (mut site, _links) = site();
    site.all().iter().for_each(|node| site.run(node));
    site.until_converged();
    let data = 2 * (site.plan.segments * site.segment_bytes()) as u64;
    let written = written_to_files(site.pid("e1"));
    assert!(written < data / 2, "{written} of {data}");
}

#[test]
fn what_was_in_memory_at_a_stop_is_had_by_the_next_run() {
    let (mut site, links) = site();
    site.all().iter().for_each(|node| site.run(node));
    for count in [8, 16] {
        site.until("the job is under way", |site| site.has_markers("t1", count) && site.has_markers("t2", count));
        // What comes in for t2 stays where it is.
        links[1].set_rate(RATE / 100);
        site.signal("e1", Signal::SIGTERM);
        assert!(site.reap("e1").success(), "{}", site.log("e1"));
        let is_spooled = site.parts().iter().any(|part| part.starts_with(site.path("e1")));
        assert!(is_spooled, "what t2 has not had is kept");
        links[1].set_rate(RATE);
        site.run("e1");
    }
    site.until_converged();
    site.until("no parts are left", |site| site.stray_parts().is_empty());
}

/// Whoever reads an object from its start to its end reads its file, also while it comes in.
#[test]
fn who_reads_files_has_what_was_in_memory() {
    let (mut site, links) = site();
    let names: Vec<String> = (1..=site.plan.segments).map(|segment| format!("stock{segment}")).collect();
    let (local, remote) = (site.path("t1").join("local"), site.path("t1").join("remote"));
    site.write_exchange("e1", [site.address("t1"), links[1].address]);
    let peer = Peer::trader(site.address("t1"), &names, &local, &remote, Habits::default());
    ["t2", "e1"].iter().for_each(|node| site.run(node));
    site.until_converged();
    drop(peer);
}
