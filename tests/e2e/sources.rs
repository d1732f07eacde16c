//! Files that change under the sender, while a slow link sends them.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};

use super::proxy::Proxy;
use super::site::{Plan, Site, random_bytes};

const SLOW: u64 = 400_000;
const FAST: u64 = u64::MAX;

/// One exchange behind a slow link to `t1`, which is the one whose files change.
fn slow_site() -> (Site, Proxy) {
    let plan = Plan { segments: 2, records: 40_000, links: 1, exchanges: 1, ..Plan::default() };
    let mut site = Site::new(plan);
    let proxy = Proxy::to(site.address("t1"), SLOW);
    let far = site.address("t2");
    site.write_exchange("e1", [proxy.address, far]);
    for node in site.all() {
        site.run(&node);
    }
    (site, proxy)
}

/// Which of t1's segments is on its way, with some of it sent.
fn one_under_way(site: &mut Site) -> usize {
    let mut found = 0;
    site.until("a segment is on its way", |site| {
        let sent = site.tells("e1", "/payload_received").as_u64().unwrap_or(0);
        let name = site.tells("e1", "/peers/0/links/0/object");
        let name = name.as_str().unwrap_or_default();
        found = name.strip_prefix("stock").and_then(|n| n.parse().ok()).unwrap_or(0);
        sent > 100_000 && found > 0 && !site.marker("t2", found).exists()
    });
    found
}

fn is_reported(site: &Site, segment: usize) -> bool {
    let name = format!("stock{segment}");
    let told = site.log("t1").lines().any(|line| line.contains(&name) && line.contains("WARN"));
    told || site.tells("t1", "/problems").to_string().contains(&name)
}

#[test]
fn a_file_removed_under_the_sender_is_reported_and_comes_when_it_is_back() {
    let (mut site, proxy) = slow_site();
    let segment = one_under_way(&mut site);
    fs::remove_file(site.local("t1", segment)).expect("removed");
    site.until("it is reported", |site| is_reported(site, segment));
    assert!(site.is_running("t1"));
    fs::write(site.local("t1", segment), random_bytes(site.segment_bytes())).expect("written");
    proxy.set_rate(FAST);
    site.until_converged();
}

#[test]
fn a_file_truncated_under_the_sender_is_reported_and_comes_when_it_is_whole() {
    let (mut site, proxy) = slow_site();
    let segment = one_under_way(&mut site);
    let file = fs::OpenOptions::new().write(true).open(site.local("t1", segment)).expect("there");
    file.set_len(10_000).expect("cut");
    site.until("it is reported", |site| is_reported(site, segment));
    assert!(site.is_running("t1"));
    assert!(!site.marker("t2", segment).exists());
    fs::write(site.local("t1", segment), random_bytes(site.segment_bytes())).expect("written");
    proxy.set_rate(FAST);
    site.until_converged();
}

#[test]
fn a_file_rewritten_under_the_sender_comes_in_its_last_version() {
    let (mut site, proxy) = slow_site();
    let segment = one_under_way(&mut site);
    let whole = site.segment_bytes();
    let mut file = fs::OpenOptions::new().write(true).open(site.local("t1", segment)).expect("there");
    // What was sent already and what was not is no version of the file any more.
    file.write_all(&random_bytes(whole / 2)).expect("written");
    file.seek(SeekFrom::Start(whole as u64 - 50_000)).expect("within");
    file.write_all(&random_bytes(50_000)).expect("written");
    drop(file);
    site.until("the link has gone on", |site| site.has_markers("t2", 1) || is_reported(site, segment));
    proxy.set_rate(FAST);
    site.until_converged();
}

/// Rewritten again and again: nothing of it may be marked but a version that was stable from its first byte to its
/// last.
#[test]
fn a_file_that_never_holds_still_is_never_marked_wrongly() {
    let (mut site, proxy) = slow_site();
    let segment = one_under_way(&mut site);
    let path = site.local("t1", segment);
    for _ in 0..20 {
        let file = fs::OpenOptions::new().write(true).open(&path).expect("there");
        let byte = random_bytes(8);
        std::os::unix::fs::FileExt::write_all_at(&file, &byte, 5).expect("written");
        assert!(!site.marker("t2", segment).exists(), "it has not held still since its first byte was sent");
        let received = |site: &Site| site.tells("e1", "/payload_received").as_u64();
        let before = received(&site);
        site.until("more has come", |site| received(site) > before);
    }
    proxy.set_rate(FAST);
    site.until_converged();
}

#[test]
fn a_link_that_is_slow_holds_up_no_other() {
    let plan = Plan { segments: 8, records: 20_000, links: 1, exchanges: 2, ..Plan::default() };
    let mut site = Site::new(plan);
    let proxy = Proxy::to(site.address("t1"), 20_000);
    let far = site.address("t2");
    site.write_exchange("e1", [proxy.address, far]);
    for node in site.all() {
        site.run(&node);
    }
    site.until("most has come over the other", |site| site.missing().len() <= 4);
    proxy.set_rate(FAST);
    site.until_converged();
}

/// It was read for hours, with all behind it waiting, and then there was no way to tell of it.
#[test]
fn a_file_that_is_too_long_to_tell_of_is_named_and_holds_up_no_other() {
    let mut site = Site::new(Plan { segments: 4, blocks: true, ..Plan::default() });
    for trader in ["t1", "t2"] {
        site.unlist(trader, "");
    }
    let long = fs::File::create(site.path("t1").join("local/a-long-one")).expect("made");
    long.set_len(3 << 40).expect("the file system takes sparse files of 3 TiB");
    for node in site.all() {
        site.run(&node);
    }
    site.until("it is named", |site| {
        let problems = site.tells("t1", "/problems").to_string();
        problems.contains("a-long-one") && problems.contains("split it")
    });
    site.until_converged();
    assert!(!site.path("t2").join("remote/a-long-one").exists());
}
