//! Sites whose nodes are all killed on the way and go on where they were: what was sent once is not sent again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use rand::RngExt as _;

use super::proxy::Proxy;
use super::site::{Plan, Site, chance};

/// Bytes a second of each link, each way.
const RATE: u64 = 2_000_000;
/// A link that is measured carries ranges of 50 ms: what had come in of one range on each link is lost with its node.
const RANGE_BYTES: u64 = RATE / 20;

/// What has passed between the traders and the exchanges, payload alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Passed {
    sent_by_traders: u64,
    had_by_exchanges: u64,
    sent_by_exchanges: u64,
    had_by_traders: u64,
}

impl Passed {
    /// `None` while a node does not answer.
    fn of(site: &Site) -> Option<Self> {
        let traders = ["t1", "t2"].map(String::from);
        let sum = |nodes: &[String], pointer: &str| -> Option<u64> {
            nodes.iter().map(|node| site.tells(node, pointer).as_u64()).sum()
        };
        Some(Self {
            sent_by_traders: sum(&traders, "/payload_sent")?,
            had_by_exchanges: sum(&site.exchanges(), "/payload_received")?,
            sent_by_exchanges: sum(&site.exchanges(), "/payload_sent")?,
            had_by_traders: sum(&traders, "/payload_received")?,
        })
    }
}

/// Runs a site over slow links, kills all its nodes when some of the job is done, and runs them again. What had passed
/// when they were killed, and in the second run.
fn kill_all_on_the_way(site: &mut Site) -> (Passed, Passed) {
    let links = ["t1", "t2"].map(|trader| Proxy::to(site.address(trader), RATE));
    for exchange in site.exchanges() {
        site.write_exchange(&exchange, [links[0].address, links[1].address]);
    }
    let nodes = site.all();
    nodes.iter().for_each(|node| site.run(node));
    let count = chance().random_range(2..8);
    site.until("the job is under way", |site| site.has_markers("t1", count));

    // The links stand still, so that what is on them can be told.
    links.iter().for_each(|link| link.set_rate(0));
    let mut looks = [None; 3];
    site.until("nothing passes any more", |site| {
        looks.rotate_left(1);
        looks[2] = Passed::of(site);
        looks[2].is_some() && looks.iter().all(|look| *look == looks[2])
    });
    nodes.iter().for_each(|node| site.kill(node));
    site.check_contents();
    links.iter().for_each(|link| link.set_rate(RATE));
    nodes.iter().for_each(|node| site.run(node));
    site.until_converged();
    let after = Passed::of(site).expect("all answer");
    site.until("no parts are left", |site| site.stray_parts().is_empty());
    (looks[2].expect("just seen"), after)
}

/// Lost by nature: what was on a link, and on each link what had come in of a range that was not all there.
#[test]
fn what_was_sent_before_all_nodes_were_killed_is_not_sent_again() {
    for (exchanges, links) in [(1, 4), (2, 2)] {
        let plan = Plan { segments: 10, records: 100_000, exchanges, links, blocks: true, ..Plan::default() };
        let mut site = Site::new(plan);
        let (before, after) = kill_all_on_the_way(&mut site);
        let data = 2 * (site.plan.segments * site.segment_bytes()) as u64;
        let broken_ranges = 2 * (exchanges * links) as u64 * RANGE_BYTES;
        let check = |hop: &str, sent: u64, lost: u64| {
            println!("{exchanges} exchanges, {hop}: {sent} of {data} sent in both runs, {lost} were on their way");
            assert!(sent <= data * 102 / 100 + lost + broken_ranges, "{hop}: {before:?}, then {after:?}");
        };
        let on_links = before.sent_by_traders - before.had_by_exchanges;
        // A trader may ask another exchange for what it has not had of the one that has it.
        let elsewhere = if exchanges > 1 { before.had_by_exchanges - before.had_by_traders } else { 0 };
        check("traders to exchanges", before.sent_by_traders + after.sent_by_traders, on_links + elsewhere);
        let on_links = before.sent_by_exchanges - before.had_by_traders;
        check("exchanges to traders", before.sent_by_exchanges + after.sent_by_exchanges, on_links);
    }
}

/// What was kept is believed when an exchange starts again, and read beside all else.
#[test]
fn what_a_spool_lost_while_its_exchange_was_down_goes_and_nothing_else_does() {
    let plan = Plan { segments: 3, records: 10_000, exchanges: 1, links: 1, blocks: true, ..Plan::default() };
    let mut site = Site::start(plan);
    site.until_converged();
    site.kill("e1");
    let spooled = |site: &Site, segment: usize| {
        let name = site.local("t1", segment).file_name().expect("a name").to_owned();
        site.path("e1").join("spool/t1").join(name)
    };
    let damaged = spooled(&site, 1);
    let file = File::options().write(true).open(&damaged).expect("it was delivered a moment ago");
    let written = file.metadata().and_then(|seen| seen.modified()).expect("told");
    let byte = fs::read(&damaged).expect("readable")[7];
    file.write_all_at(&[!byte], 7).expect("written");
    file.set_modified(written).expect("set");
    site.run("e1");
    site.until("what was damaged is gone", |_| !damaged.exists());
    site.until("it is named", |site| site.log("e1").contains("what the spool had of it was damaged"));
    assert!((2..=3).all(|segment| spooled(&site, segment).exists()), "{}", site.report());
    site.until_converged();
}
