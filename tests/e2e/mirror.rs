//! Sites whose traders are told to remove what is gone at the far end, and all that must not make them.

use std::fs;
use std::path::{Path, PathBuf};

use super::site::{Plan, Site, random_bytes};

fn plan() -> Plan {
    Plan { segments: 4, blocks: true, ..Plan::default() }
}

/// A site that is not started, whose traders want whatever there is and, if so told, no more than that.
fn site(plan: Plan, delete: &str) -> Site {
    let site = Site::new(plan);
    for trader in ["t1", "t2"] {
        site.unlist(trader, delete);
    }
    site
}

fn start(plan: Plan, delete: &str) -> Site {
    let mut site = site(plan, delete);
    for node in site.all() {
        site.run(&node);
    }
    site.until_converged();
    site
}

const MIRROR: &str = "delete = \"mirror\"";

/// Whether neither a segment of the far trader nor its marker is here.
fn is_gone(site: &Site, trader: &str, segment: usize) -> bool {
    !site.remote(trader, segment).exists() && !site.marker(trader, segment).exists()
}

/// Makes and brings over one more object of `t1`: what was to be done before it has been done.
fn bring_one_more(site: &mut Site, name: &str) {
    fs::write(site.path("t1").join("local").join(name), random_bytes(1000)).expect("written");
    let marker = site.path("t2").join(format!("remote/{name}.success"));
    site.until("one more object came", |_| marker.exists());
}

fn until_settled(site: &mut Site) {
    site.until("the far trader has all that there is", |site| {
        site.tells("t2", "/state") == "SYNCED"
            && site.tells("t2", "/want/objects") == site.tells("t1", "/serving/objects")
    });
}

#[test]
fn what_is_removed_goes_with_its_marker_and_the_directories_it_leaves_empty() {
    let mut site = site(plan(), MIRROR);
    let nested = |trader: &str, root: &str| -> PathBuf { site.path(trader).join(root).join("2026/11") };
    let (here, there) = (nested("t1", "local"), nested("t2", "remote"));
    fs::create_dir_all(&here).expect("made");
    fs::write(here.join("day"), b"nested").expect("written");
    for node in site.all() {
        site.run(&node);
    }
    site.until("all is there", |site| site.missing().is_empty() && there.join("day.success").exists());
    fs::remove_file(site.local("t1", 2)).expect("removed");
    fs::remove_file(here.join("day")).expect("removed");
    let remote = site.path("t2").join("remote");
    site.until("it is gone at the far trader", |site| is_gone(site, "t2", 2) && !remote.join("2026").exists());
    until_settled(&mut site);
    assert_eq!(site.missing(), [("t2", 2)], "nothing else went");
    assert!(site.log("t2").contains("they are gone at their origin"), "{}", site.log("t2"));
    // It may come back.
    fs::write(site.local("t1", 2), random_bytes(site.segment_bytes())).expect("written");
    site.until_converged();
}

#[test]
fn what_was_removed_while_its_trader_was_down_goes_when_it_is_back() {
    let mut site = start(plan(), MIRROR);
    site.kill("t1");
    fs::remove_file(site.local("t1", 3)).expect("removed");
    assert!(site.marker("t2", 3).exists());
    site.run("t1");
    site.until("it is gone at the far trader", |site| is_gone(site, "t2", 3));
    until_settled(&mut site);
    assert_eq!(site.missing(), [("t2", 3)]);
}

#[test]
fn what_was_removed_while_the_far_trader_was_down_goes_when_that_is_back() {
    let mut site = start(plan(), MIRROR);
    site.kill("t2");
    fs::remove_file(site.local("t1", 1)).expect("removed");
    site.run("t2");
    site.until("it is gone at the far trader", |site| is_gone(site, "t2", 1));
    until_settled(&mut site);
    assert_eq!(site.missing(), [("t2", 1)]);
}

#[test]
fn a_dead_exchange_removes_nothing_and_holds_nothing_up() {
    let mut site = start(plan(), MIRROR);
    site.kill("e2");
    fs::remove_file(site.local("t1", 4)).expect("removed");
    site.until("the other exchange tells that it is gone", |site| is_gone(site, "t2", 4));
    // What the dead one does not know of, and what it alone could tell to be there.
    bring_one_more(&mut site, "later");
    site.run("e2");
    bring_one_more(&mut site, "latest");
    site.kill("e1");
    bring_one_more(&mut site, "last");
    until_settled(&mut site);
    assert_eq!(site.missing(), [("t2", 4)]);
}

#[test]
fn exchanges_that_have_just_started_or_lost_a_trader_remove_nothing() {
    let mut site = start(plan(), MIRROR);
    site.kill("t1");
    for exchange in site.exchanges() {
        site.kill(&exchange);
        site.run(&exchange);
    }
    site.kill("t2");
    site.run("t2");
    site.until("the exchanges are back", |site| {
        let peers = site.tells("t2", "/peers").as_array().cloned().unwrap_or_default();
        peers.len() == 2 && peers.iter().all(|peer| peer["links_up"] == 2)
    });
    site.run("t1");
    bring_one_more(&mut site, "later");
    until_settled(&mut site);
    assert!(site.missing().is_empty());
}

#[test]
fn a_store_that_is_not_mounted_removes_nothing() {
    let mut site = start(plan(), MIRROR);
    site.kill("t1");
    let (local, aside) = (site.path("t1").join("local"), site.path("t1").join("aside"));
    fs::rename(&local, &aside).expect("moved");
    fs::create_dir(&local).expect("made");
    site.run("t1");
    site.until("the far trader says so", |site| {
        site.tells("t2", "/problems").to_string().contains("4 objects in remote/")
    });
    assert!(site.missing().is_empty());
    site.kill("t1");
    fs::remove_dir(&local).expect("removed");
    fs::rename(&aside, &local).expect("moved back");
    fs::remove_file(site.local("t1", 2)).expect("removed");
    site.run("t1");
    site.until("all is as before", |site| site.tells("t1", "/serving/objects") == 3);
    bring_one_more(&mut site, "later");
    site.until("what was not told of since is all that is kept", |site| {
        site.tells("t2", "/problems")
            .to_string()
            .contains("1 objects in remote/ that it has not told of since are kept")
    });
    assert!(site.missing().is_empty());
}

#[test]
fn a_store_that_vanishes_at_once_is_not_told_to_be_gone() {
    let mut site = start(Plan { segments: 1, ..plan() }, MIRROR);
    fs::rename(site.local("t1", 1), site.path("t1").join("aside")).expect("moved");
    site.until("its trader says so", |site| {
        site.tells("t1", "/problems").to_string().contains("Is its file system mounted")
    });
    assert!(site.missing().is_empty());
    fs::rename(site.path("t1").join("aside"), site.local("t1", 1)).expect("moved back");
    site.until("it is served again", |site| site.tells("t1", "/serving/objects") == 1);
    site.until_converged();
}

/// The listing of a tmpfs, as of other file systems, lacks names that are renamed over while it is read: they were told
/// to be gone, and removed at the far trader.
#[test]
fn what_is_replaced_while_it_is_listed_is_not_gone() {
    let mut site = site(Plan { segments: 1, exchanges: 1, ..plan() }, MIRROR);
    let tmpfs = Path::new("/dev/shm");
    let parent = if tmpfs.is_dir() { tmpfs } else { site.dir() };
    let home = tempfile::tempdir_in(parent).expect("a directory");
    let local = home.path().join("local");
    let text = fs::read_to_string(site.config("t1")).expect("there");
    let before = site.path("t1").join("local").display().to_string();
    fs::write(site.config("t1"), text.replace(&before, &local.display().to_string())).expect("written");
    fs::create_dir(&local).expect("made");
    // Long ones, so that the listing comes in several pieces.
    let names: Vec<String> = (0..600).map(|number| format!("{number:0200}")).collect();
    names.iter().for_each(|name| fs::write(local.join(name), name).expect("written"));
    for node in site.all() {
        site.run(&node);
    }
    let remote = site.path("t2").join("remote");
    site.until("all is there", |_| names.iter().all(|name| remote.join(format!("{name}.success")).exists()));
    let (new, mut replaced) = (home.path().join("new"), names.iter().cycle());
    for round in 0..10 {
        fs::write(local.join(format!("round {round}")), b"begun").expect("written");
        site.until("a look has seen that", |_| {
            for name in replaced.by_ref().take(100) {
                fs::write(&new, random_bytes(9)).expect("written");
                fs::rename(&new, local.join(name)).expect("renamed");
            }
            remote.join(format!("round {round}.success")).exists()
        });
    }
    until_settled(&mut site);
    assert!(!site.log("t2").contains("gone at their origin"), "{}", site.log("t2"));
}

#[test]
fn what_was_moved_goes_under_its_old_name() {
    let mut site = start(plan(), MIRROR);
    let whole = fs::read(site.local("t1", 2)).expect("there");
    site.kill("t1");
    let directory = site.path("t1").join("local/moved");
    fs::create_dir(&directory).expect("made");
    fs::rename(site.local("t1", 2), directory.join("stock2")).expect("moved");
    site.run("t1");
    site.until("what was moved is gone, and is there under its new name", |site| {
        is_gone(site, "t2", 2)
            && fs::read(site.path("t2").join("remote/moved/stock2")).is_ok_and(|bytes| bytes == whole)
    });
}

#[test]
fn keep_keeps() {
    for delete in ["delete = \"keep\"", ""] {
        let mut site = start(plan(), delete);
        let aside = site.path("t1").join("aside");
        fs::rename(site.local("t1", 2), &aside).expect("moved");
        site.until("it is not served any more", |site| site.tells("t1", "/serving/objects") == 3);
        bring_one_more(&mut site, "later");
        site.kill("t1");
        fs::remove_file(site.local("t1", 3)).expect("removed");
        site.run("t1");
        bring_one_more(&mut site, "latest");
        assert!(site.missing().is_empty());
        // What comes back as it was is here.
        let committed = |site: &Site| fs::metadata(site.marker("t2", 2)).expect("there").modified().expect("known");
        let before = committed(&site);
        fs::rename(&aside, site.local("t1", 2)).expect("moved back");
        site.until("it is served again", |site| site.tells("t1", "/serving/objects") == 5);
        bring_one_more(&mut site, "last");
        site.until("nothing is on its way", |site| site.tells("t2", "/state") == "SYNCED");
        assert_eq!(committed(&site), before);
    }
}
