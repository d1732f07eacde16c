//! Disks that are full: nothing wrong is marked, it is said, and the job goes on by itself when there is room.
//!
//! The daemon concerned gets a small tmpfs in a mount namespace of its own, which needs root; without it these tests
//! say that they were skipped.

use std::process::{Command, Stdio};

use super::site::{Plan, Site};

/// A site in which `node` has a tmpfs with these options on `place` of its directory; `None` where that cannot be made.
fn site_with_small_disk(plan: Plan, node: &str, place: &str, options: &str) -> Option<Site> {
    let unshare =
        Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).stderr(Stdio::null()).status();
    if !unshare.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a full disk needs root and unshare(1), to mount a small tmpfs; run it as root");
        return None;
    }
    let mut site = Site::new(plan);
    let disk = site.path(node).join(place);
    let script = "mount -t tmpfs -o \"$1\" tmpfs \"$2\" && exec \"$3\" run \"$4\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", options]);
    command.arg(&disk).arg(env!("CARGO_BIN_EXE_supersyncd")).arg(site.config(node));
    site.run_as(node, command);
    site.until("it answers", |site| site.status(node).is_some());
    site.look_through(node);
    for other in site.all().iter().filter(|other| *other != node) {
        site.run(other);
    }
    Some(site)
}

fn enlarge(site: &Site, node: &str, place: &str) {
    // As the daemon knows it, in the daemon's namespace.
    let disk = site.dir().join(node).join(place);
    let pid = site.pid(node).to_string();
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-m", "mount", "-o", "remount,size=64m,nr_inodes=1000"]).arg(disk);
    assert!(command.status().expect("nsenter(1) is beside unshare(1)").success());
}

#[test]
fn a_trader_whose_disk_is_full_says_so_and_goes_on_when_there_is_room() {
    let Some(mut site) = site_with_small_disk(Plan::default(), "t1", "remote", "size=600k") else { return };
    site.until("it says that its disk is full", |site| {
        let problems = site.tells("t1", "/problems").to_string();
        problems.contains("no room for 'stock")
    });
    site.until("its links say so too", |site| site.tells("t1", "/peers/0/links/0/held_by") == "disk");
    site.until("the other trader has everything", |site| site.has_markers("t2", 12));
    site.check_contents();
    assert!(!site.has_markers("t1", 12));
    enlarge(&site, "t1", "remote");
    site.until_converged();
    site.until("nothing is amiss any more", |site| site.tells("t1", "/problems") == serde_json::json!([]));
}

/// It wrote a line for each object that was under way: thousands.
#[test]
fn of_many_objects_that_cannot_be_fetched_the_log_names_a_few() {
    let plan = Plan { segments: 300, records: 1, ..Plan::default() };
    let Some(mut site) = site_with_small_disk(plan, "t1", "remote", "size=64m,nr_inodes=40") else { return };
    site.until("most have failed", |site| site.tells("t1", "/failed").as_u64() > Some(200));
    let log = site.log("t1");
    assert!(log.contains("supersyncctl objects --failed"), "{log}");
    assert!(log.matches("cannot be fetched").count() < 100, "{log}");
    enlarge(&site, "t1", "remote");
    site.until_converged();
}

#[test]
fn a_trader_whose_disk_takes_no_more_files_says_so_and_goes_on_when_it_does() {
    let Some(mut site) = site_with_small_disk(Plan::default(), "t1", "remote", "size=64m,nr_inodes=16") else { return };
    site.until("it says what it lacks", |site| {
        let problems = site.tells("t1", "/problems").to_string();
        problems.contains("no room for 'stock") && problems.contains("no inodes are free")
    });
    enlarge(&site, "t1", "remote");
    site.until_converged();
}

/// Its bound says 64 MiB, the disk has room for two objects; the other exchange carries what it cannot.
#[test]
fn an_exchange_whose_disk_is_full_holds_nobody_up() {
    let Some(mut site) = site_with_small_disk(Plan::default(), "e1", "spool", "size=300k") else { return };
    site.until_converged();
    enlarge(&site, "e1", "spool");
    assert!(site.is_running("e1"));
}

/// The only exchange there is: what is delivered makes room for the rest.
#[test]
fn a_single_exchange_whose_disk_is_full_goes_on_when_there_is_room() {
    let Some(mut site) = site_with_small_disk(Plan::default(), "e1", "spool", "size=100k") else { return };
    site.kill("e2");
    site.until("it says that its disk is full", |site| {
        site.tells("e1", "/problems").to_string().contains("no room for 'stock")
    });
    site.check_contents();
    enlarge(&site, "e1", "spool");
    site.until_converged();
}
