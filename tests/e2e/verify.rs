//! `supersyncctl verify` on the stores of real sites.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::site::{Plan, Site, random_bytes};

fn plan() -> Plan {
    Plan { segments: 4, blocks: true, ..Plan::default() }
}

/// What `supersyncctl verify --json` exits with and prints.
fn verify(arguments: &[&str]) -> (i32, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supersyncctl"));
    let output = command.args(["--json", "verify"]).args(arguments).output().expect("started");
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().expect("it ends by itself"), json)
}

fn findings(report: &Value) -> Vec<(&str, &str)> {
    let findings = report["findings"].as_array().expect("a list").iter();
    let mut found: Vec<_> = findings.filter_map(|f| Some((f["name"].as_str()?, f["kind"].as_str()?))).collect();
    found.sort_unstable();
    found
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Writes an object with the marker that it should have.
fn commit(directory: &Path, name: &str, bytes: &[u8]) {
    fs::write(directory.join(name), bytes).expect("written");
    let marker = format!("size {}\nroot {}\n", bytes.len(), blake3::hash(bytes));
    fs::write(directory.join(format!("{name}.success")), marker).expect("written");
}

#[test]
fn a_store_is_verified_without_a_daemon_and_damage_is_named_and_repaired() {
    let mut site = Site::start(plan());
    site.until_converged();
    let (remote, config, socket) = (site.path("t1").join("remote"), site.config("t1"), site.socket("t1"));
    for place in [&[text(&remote)][..], &["--config", text(&config)], &["--socket", text(&socket)]] {
        let (status, report) = verify(place);
        assert_eq!((status, &report["objects"], &report["counts"]), (0, &json!(4), &json!({})), "{place:?}");
        assert_eq!(report["bytes"], json!(4 * site.segment_bytes()));
    }
    // It counted in MiB what all other commands count in MB.
    let said =
        Command::new(env!("CARGO_BIN_EXE_supersyncctl")).args(["verify", text(&remote)]).output().expect("started");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains(": 4 objects, 480.0 kB read in"), "{said}");
    site.kill("t1");
    let mut bytes = fs::read(site.remote("t1", 2)).expect("there");
    bytes[70_000] ^= 1;
    fs::write(site.remote("t1", 2), bytes).expect("written");
    fs::remove_file(site.remote("t1", 3)).expect("removed");
    fs::remove_file(site.marker("t1", 1)).expect("removed");
    let expected = [("stock1", "unmarked"), ("stock2", "damaged"), ("stock3", "damaged")];
    let (status, report) = verify(&[text(&remote)]);
    assert_eq!((status, findings(&report)), (6, expected.to_vec()));
    assert!(site.marker("t1", 2).exists(), "it was only looked at");
    let (status, report) = verify(&["--repair", text(&remote)]);
    assert_eq!((status, findings(&report)), (6, expected.to_vec()));
    assert!(!site.marker("t1", 2).exists() && !site.marker("t1", 3).exists());
    site.run("t1");
    site.until_converged();
    assert_eq!(verify(&[text(&remote)]).0, 0);
}

#[test]
fn damage_is_repaired_while_the_daemon_runs() {
    let mut site = Site::start(plan());
    site.until_converged();
    let whole = fs::read(site.remote("t2", 4)).expect("there");
    fs::write(site.remote("t2", 4), random_bytes(whole.len())).expect("written");
    let (status, report) = verify(&["--repair", "--socket", text(&site.socket("t2"))]);
    assert_eq!((status, findings(&report)), (6, vec![("stock4", "damaged")]));
    assert_eq!(report["findings"][0]["repaired"], json!(true));
    // What has just been unmarked is missed by whoever waits from then on.
    let mut wait = Command::new(env!("CARGO_BIN_EXE_supersyncctl"));
    wait.args(["wait", "--synced", "--timeout", "60s", "--socket", text(&site.socket("t2"))]);
    assert_eq!(wait.status().expect("started").code(), Some(0));
    assert!(fs::read(site.remote("t2", 4)).is_ok_and(|bytes| bytes == whole) && site.marker("t2", 4).exists());
}

#[test]
fn a_store_is_held_against_the_far_traders_inventory() {
    let mut site = Site::start(plan());
    site.until_converged();
    let socket = site.socket("t1");
    let deep = ["--deep", "--socket", text(&socket)];
    site.until("the far trader has told all that it has", |site| {
        super::site::ask(&site.socket("t1"), "GET", "/v1/inventory?limit=0")
            .is_some_and(|answer| answer["whole"] == true)
    });
    assert_eq!(verify(&deep).0, 0);
    let remote = site.path("t1").join("remote");
    commit(&remote, "more", b"than there is");
    let (status, report) = verify(&deep);
    assert_eq!((status, findings(&report)), (3, vec![("more", "extra")]));
    fs::remove_file(remote.join("more")).expect("removed");
    fs::remove_file(remote.join("more.success")).expect("removed");
    // A marker of another program tells nothing, and the far trader does.
    fs::write(site.marker("t1", 1), "").expect("written");
    let (status, report) = verify(&deep);
    assert_eq!((status, &report["without_root"], &report["told_whole"]), (0, &json!(0), &json!(true)));
    let whole = fs::read(site.remote("t1", 1)).expect("there");
    fs::write(site.remote("t1", 1), random_bytes(whole.len())).expect("written");
    let (status, report) = verify(&deep);
    assert_eq!((status, findings(&report)), (3, vec![("stock1", "outdated")]));
    fs::write(site.remote("t1", 1), whole).expect("written");
    // Nobody is there to bring it again.
    site.kill("e1");
    site.kill("e2");
    commit(&remote, "stock2", &random_bytes(site.segment_bytes()));
    fs::remove_file(site.marker("t1", 3)).expect("removed");
    fs::remove_file(site.remote("t1", 3)).expect("removed");
    let (status, report) = verify(&deep);
    assert_eq!((status, findings(&report)), (3, vec![("stock2", "outdated"), ("stock3", "missing")]));
}

#[test]
fn what_cannot_be_verified_is_said() {
    let mut site = Site::new(plan());
    site.run("t1");
    site.until("it answers", |site| site.status("t1").is_some());
    // Nobody has told it anything.
    let (status, report) = verify(&["--deep", "--socket", text(&site.socket("t1"))]);
    assert_eq!((status, &report["told_whole"]), (3, &json!(false)));
    site.kill("t1");
    assert_eq!(verify(&["/nowhere/at/all"]).0, 1);
    // As `fetch` leaves it: nothing to hold the file against.
    let fetched = site.dir().join("fetched");
    fs::create_dir_all(fetched.join("remote/.supersync")).expect("made");
    fs::write(fetched.join("remote/a"), "abc").expect("written");
    fs::write(fetched.join("remote/a.success"), "size 3\n").expect("written");
    for place in [&fetched, &fetched.join("remote")] {
        let (status, report) = verify(&[text(place)]);
        assert_eq!((status, &report["without_root"], &report["objects"]), (3, &json!(1), &json!(0)));
        assert_eq!(report["directory"], json!(fetched.join("remote")));
    }
    assert_eq!(verify(&["--deep", "--socket", text(&site.socket("t1"))]).0, 4);
    assert_eq!(verify(&["--config", text(&site.config("e1"))]).0, 2);
}
