//! What nodes measure of themselves while links come and go.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::proxy::Proxy;
use super::site::{Plan, Site};

fn page(site: &Site, node: &str) -> PathBuf {
    site.dir().join(format!("{node}.http"))
}

/// Has a node serve page, metrics and health beside its control socket.
fn serve_page(site: &Site, node: &str) {
    let text = fs::read_to_string(site.config(node)).expect("there");
    let http = format!("[control]\nhttp = \"{}\"\n", page(site, node).display());
    fs::write(site.config(node), text.replace("[control]\n", &http)).expect("written");
}

/// What is answered to one question, status and body; `None` where nobody answers.
fn ask(site: &Site, node: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(page(site, node)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// All samples of a node by name and labels.
fn scrape(site: &Site, node: &str) -> Option<BTreeMap<String, f64>> {
    let (200, text) = ask(site, node, "/metrics")? else { return None };
    let sample =
        |line: &str| line.rsplit_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    samples.iter().filter(|(sample, _)| sample.starts_with(name)).map(|(_, value)| value).sum()
}

/// Holds each scrape of `node` against the one before: no counter goes back.
#[derive(Default)]
struct Watch(BTreeMap<String, f64>);

impl Watch {
    fn look(&mut self, site: &Site, node: &str) {
        let Some(samples) = scrape(site, node) else { return };
        for (name, value) in samples.into_iter().filter(|(name, _)| name.contains("_total{")) {
            let before = self.0.insert(name.clone(), value).unwrap_or(0.0);
            assert!(value >= before, "{node}: {name} went from {before} back to {value}");
        }
    }
}

#[test]
fn counters_go_on_over_reconnects_and_lag_ends_with_the_last_object() {
    let plan = Plan { segments: 6, records: 20_000, links: 2, exchanges: 1, ..Plan::default() };
    let mut site = Site::new(plan);
    let proxy = Proxy::to(site.address("t2"), 600_000);
    let near = site.address("t1");
    site.write_exchange("e1", [near, proxy.address]);
    ["t1", "e1"].iter().for_each(|node| serve_page(&site, node));
    site.all().iter().for_each(|node| site.run(node));
    let (mut exchange, mut trader) = (Watch::default(), Watch::default());
    for round in 1..=3 {
        site.until("bytes flow", |site| {
            exchange.look(site, "e1");
            trader.look(site, "t1");
            let received = |samples| sum(&samples, "supersync_received_bytes_total{peer=\"t2\"");
            scrape(site, "e1").map(received) > Some(f64::from(round) * 300_000.0)
        });
        assert_eq!(ask(&site, "t1", "/readyz"), Some((200, "ok\n".into())));
        assert!(scrape(&site, "t1").is_some_and(|samples| samples["supersync_objects{state=\"done\"}"] < 6.0));
        site.kill("t2");
        site.run("t2");
        site.until("both links came back", |site| {
            exchange.look(site, "e1");
            trader.look(site, "t1");
            let samples = scrape(site, "e1").unwrap_or_default();
            let back = |link| samples.get(&format!("supersync_link_reconnects_total{{peer=\"t2\",link=\"{link}\"}}"));
            [1, 2].iter().all(|link| back(link) >= Some(&f64::from(round)))
        });
    }
    proxy.set_rate(u64::MAX);
    site.until("both traders have everything", |site| {
        exchange.look(site, "e1");
        trader.look(site, "t1");
        site.missing().is_empty()
    });
    site.check_contents();
    // A marker is there a moment before the flow knows.
    site.until("nothing is missed any more", |site| {
        scrape(site, "t1").is_some_and(|samples| samples["supersync_replication_lag_seconds"] == 0.0)
    });
    let samples = scrape(&site, "t1").expect("it answers");
    assert_eq!(samples["supersync_objects{state=\"done\"}"], 6.0);
    assert_eq!(samples["supersync_objects{state=\"missing\"}"], 0.0);
    assert_eq!(samples["supersync_done_bytes"], samples["supersync_wanted_bytes"]);
    assert!(samples["supersync_last_commit_timestamp_seconds"] > 1.6e9);
    let payload = site.segment_bytes() as f64 * 6.0;
    assert!(sum(&samples, "supersync_received_bytes_total") >= payload, "{samples:?}");
    assert!(sum(&samples, "supersync_sent_bytes_total") >= sum(&samples, "supersync_padding_bytes_total"));
    let samples = scrape(&site, "e1").expect("it answers");
    assert!(samples["supersync_spool_bytes"] <= samples["supersync_spool_max_bytes"]);
    site.until("all links are up", |site| {
        let samples = scrape(site, "e1").unwrap_or_default();
        sum(&samples, "supersync_link_up{") == 4.0 && samples.get("supersync_links_up") == Some(&4.0)
    });
    // The control socket has the same links, with the same numbers and all that passed over them; so has the log, a
    // trader's too.
    for (at, link) in [(0, 1), (1, 2)] {
        for (node, peer) in [("e1", "t2"), ("t2", "e1")] {
            let (log, said) = (site.log(node), format!("link up link={link} peer=\"{peer}\""));
            assert!(log.contains(&said), "{node} does not log {said}:\n{log}");
        }
        assert_eq!(site.tells("e1", &format!("/peers/1/links/{at}/number")), link);
        let bytes = site.tells("e1", &format!("/peers/1/links/{at}/bytes_in")).as_u64();
        let measured = samples[&format!("supersync_received_bytes_total{{peer=\"t2\",link=\"{link}\"}}")];
        assert!(bytes >= Some(measured as u64), "link {link}: {bytes:?}, and {measured} of metrics before");
    }
}
