//! The main job: two traders converge through two exchanges.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::site::{Plan, Site, ask, process_kib};

#[test]
fn two_traders_converge_through_two_exchanges() {
    let mut site = Site::start(Plan { segments: 24, records: 10_000, links: 3, ..Plan::default() });
    site.until_converged();
    site.until("no parts are left", |site| site.parts().is_empty());
    site.until("every trader says that it is synced", |site| {
        ["t1", "t2"].iter().all(|trader| site.tells(trader, "/state") == "SYNCED")
    });
    for trader in ["t1", "t2"] {
        let status = site.status(trader).expect("it answers");
        assert_eq!(status["have"]["objects"], 24, "{status}");
        assert_eq!(status["failed"], 0, "{status}");
    }
    for exchange in ["e1", "e2"] {
        let status = site.status(exchange).expect("it answers");
        let spool = &status["spool"];
        assert!(spool["bytes"].as_u64() <= spool["max_bytes"].as_u64(), "{status}");
        // Segments of one name go both ways, and are told apart.
        let objects = ask(&site.socket(exchange), "GET", "/v1/objects").expect("it answers")["objects"].take();
        let objects = objects.as_array().expect("a list");
        let told: BTreeSet<_> =
            objects.iter().map(|object| (object["name"].as_str(), object["from"].as_str())).collect();
        assert!(told.len() == objects.len() && told.iter().all(|(_, from)| from.is_some()), "{objects:?}");
    }
}

/// Everything through spools that hold a few objects only, over links enough to fill them.
#[test]
fn a_spool_that_is_much_smaller_than_the_job_stays_within_its_bound() {
    let mut site = Site::start(Plan { segments: 24, records: 20_000, spool: "3MiB", ..Plan::default() });
    site.until("both traders have everything", |site| {
        for exchange in site.exchanges() {
            let bytes = bytes_below(&site.path(&exchange).join("spool"));
            // Besides: the boot id, and a file that is renamed between two looks of this count.
            assert!(bytes < (3 << 20) + 2 * 20_000 * 24, "{exchange} holds {bytes}");
        }
        site.missing().is_empty()
    });
    site.until_converged();
}

/// A mode or time that was changed alone never came over, while both traders said that they were synced.
#[test]
fn attributes_that_change_alone_come_over_and_nothing_else_does() {
    let mut site = Site::start(Plan { segments: 2, exchanges: 1, blocks: true, ..Plan::default() });
    site.until_converged();
    let (local, remote, marker) = (site.local("t1", 1), site.remote("t2", 1), site.marker("t2", 1));
    let attributes = |path: &Path| {
        let found = fs::metadata(path).expect("there");
        (found.permissions().mode() & 0o777, found.modified().expect("known"))
    };
    let committed = attributes(&marker);
    for (mode, seconds, is_down) in [(0o600, 1_000_000_000, false), (0o640, 1_000_000_001, true)] {
        if is_down {
            site.kill("t2");
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::open(&local).and_then(|file| file.set_modified(time)).expect("set");
        fs::set_permissions(&local, fs::Permissions::from_mode(mode)).expect("set");
        // A directory is looked at when something appears in it.
        fs::write(site.path("t1").join("local").join(format!("{seconds}")), "new").expect("written");
        if is_down {
            site.run("t2");
        }
        site.until("they are those of the original", |_| attributes(&remote) == (mode, time));
    }
    assert_eq!(attributes(&marker), committed);
}

#[test]
fn start_order_does_not_matter() {
    let mut site = Site::new(Plan::default());
    for node in ["e2", "e1"] {
        site.run(node);
        site.until("it answers", |site| site.status(node).is_some());
    }
    site.run("t2");
    site.until("both exchanges reach the one trader that is there", |site| {
        ["e1", "e2"].iter().all(|exchange| {
            let peers = site.tells(exchange, "/peers");
            peers.as_array().is_some_and(|peers| peers.iter().any(|peer| peer["links_up"] == 2))
        })
    });
    site.run("t1");
    site.until_converged();
}

#[test]
fn packets_of_other_lengths_carry_the_same_job() {
    for packet_bytes in [64, 65_536, 1 << 20] {
        let mut site = Site::start(Plan { segments: 4, packet_bytes, ..Plan::default() });
        site.until_converged();
    }
}

/// 2 x 96 MB through each exchange's bounded memory.
#[test]
fn memory_of_a_node_stays_below_its_bound() {
    let mut site = Site::start(Plan { segments: 8, records: 500_000, links: 4, spool: "1GiB", ..Plan::default() });
    site.until_converged();
    for node in site.all() {
        let anon = process_kib(site.pid(&node), "RssAnon");
        let shared = process_kib(site.pid(&node), "RssShmem");
        assert!(anon + shared < 256 << 10, "{node}: {anon} KiB of its own and {shared} KiB shared");
    }
}

fn bytes_below(path: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// The status named half of what the config says, and `why-slow` a full spool that held nothing.
#[test]
fn an_object_that_no_spool_of_this_size_can_hold_is_named_with_what_it_needs() {
    let plan = Plan { segments: 1, records: 100_000, spool: "1MiB", exchanges: 1, blocks: true, ..Plan::default() };
    let mut site = Site::start(plan);
    let needs = format!("need spool.max_bytes of at least {} (now 1048576;", 2 * site.segment_bytes());
    site.until("status says what it needs", |site| site.tells("e1", "/problems").to_string().contains(&needs));
    site.until("so does why-slow", |site| {
        ask(&site.socket("e1"), "GET", "/v1/why-slow").is_some_and(|why| why["links"].to_string().contains(&needs))
    });
}
