//! Modules and listeners for sessions, in configs and against a host.

use std::fs;

use supersync::config::{Cidr, Listen, Module, Protocol, Trader};

use super::{SESSIONS, TRADER, below, check, errors, ok, refused, store, trader};

#[test]
fn a_node_may_serve_sessions_and_replicate_nothing() {
    let mut config = ok(SESSIONS);
    let module =
        |name: &str, path: &str, read_only| Module { name: name.into(), path: path.into(), read_only, allow: None };
    let expected = Trader {
        store: None,
        // Whoever does not say so lets nobody write.
        modules: vec![module("pub", "/srv/pub", true), module("inbox", "/srv/inbox", false)],
        listen: vec![Listen {
            address: "0.0.0.0:7402".parse().expect("valid"),
            protocol: Protocol::Session,
            allow: vec![Cidr::parse("10.1.0.0/16").expect("valid")],
            peer: None,
        }],
    };
    assert_eq!(trader(&mut config), &expected);

    let both = SESSIONS.replace("[[module]]\nname = \"pub\"", "[[module]]\nallow = [\"10.1.1.0/24\"]\nname = \"pub\"");
    let both = format!("{both}[store]\nlocal = \"/l\"\nremote = \"/r\"\n[[listen]]\naddress = \"0.0.0.0:7401\"\n");
    let mut config = ok(&both);
    assert!(store(&mut config).segments.is_none());
    let pub_module = &trader(&mut config).modules[0];
    assert!(pub_module.admits("10.1.1.9".parse().expect("valid")));
    assert!(!pub_module.admits("10.1.2.9".parse().expect("valid")));
    assert!(trader(&mut config).modules[1].admits("10.9.9.9".parse().expect("valid")), "the listener asks first");
}

#[test]
fn bad_modules_are_refused() {
    let check = |from: &str, to: &str, line: usize, pieces: &[&str]| check(SESSIONS, from, to, line, pieces);
    check("name = \"pub\"\n", "", 3, &["`module[0].name` is missing"]);
    check("path = \"/srv/pub\"\n", "", 3, &["`module[0].path` is missing"]);
    check("\"/srv/pub\"", "\"pub\"", 5, &["`module[0].path`: the path is relative"]);
    check("\"inbox\"", "\"pub\"", 7, &["`module[1].name`: \"pub\" is there already"]);
    for bad in ["", ".", "..", "a/b", "a b", "\u{e4}", &"n".repeat(65)] {
        check("\"pub\"", &format!("\"{bad}\""), 4, &["`module[0].name`", "up to 64 letters, digits, '.', '_' or '-'"]);
    }
    check("read_only = false", "read_only = \"no\"", 9, &["`module[1].read_only`: this is a string"]);
    check("read_only = false", "readonly = false", 9, &["did you mean `read_only`?"]);
    check("read_only = false", "allow = []", 9, &["`module[1].allow`: nobody could connect"]);
    check("[[listen]]", "[[listen]]\npeer = \"x\"", 11, &["`listen[0].peer`: clients of sessions have no name"]);
    check("name = \"files\"", "name = \"files\"\nstate_dir = \"/srv/inbox/s\"", 3, &["inside module \"inbox\""]);
    ok(&SESSIONS.replace("name = \"files\"", "name = \"files\"\nstate_dir = \"/srv/pub/s\""));
}

#[test]
fn modules_that_may_be_written_to_share_no_files() {
    let check = |from: &str, to: &str, line: usize, pieces: &[&str]| check(SESSIONS, from, to, line, pieces);
    check(
        "/srv/pub\"",
        "/srv/inbox/a\"\nread_only = false",
        3,
        &["module \"inbox\" may be written to, and shares files"],
    );
    ok(&SESSIONS.replace("/srv/pub", "/srv/inbox/a"));
    let replicating = |local: &str, remote: &str| {
        format!("{SESSIONS}[store]\nlocal = \"{local}\"\nremote = \"{remote}\"\n[[listen]]\naddress = \"0.0.0.0:1\"\n")
    };
    ok(&replicating("/srv/pub", "/srv/r"));
    ok(&replicating("/srv/inbox", "/srv/r"));
    assert!(refused(&replicating("/l", "/srv/inbox")).to_string().contains("shares files with `store.remote`"));
    assert!(refused(&replicating("/srv", "/r")).to_string().contains("shares files with `store.local`"));
}

#[test]
fn modules_store_and_listeners_belong_together() {
    let modules = &SESSIONS[SESSIONS.find("[[module]]").expect("there")..SESSIONS.find("[[listen]]").expect("there")];
    check(SESSIONS, modules, "", 0, &["`module` is missing", "add [[module]]"]);
    let duplex = refused(&SESSIONS.replace("protocol = \"session\"\n", "")).to_string();
    assert!(duplex.contains("`store` is missing") && duplex.contains("no [[listen]] is for sessions"), "{duplex}");
    let listen = "[[listen]]\naddress = \"0.0.0.0:7401\"\n";
    check(
        TRADER,
        listen,
        &format!("[[module]]\nname = \"m\"\npath = \"/m\"\n{listen}"),
        6,
        &["no [[listen]] is for sessions"],
    );
    let with_store = format!("{SESSIONS}[store]\nlocal = \"/l\"\nremote = \"/r\"\n");
    check(&with_store, "role", "role", 14, &["`store` is there, and every [[listen]] is for sessions"]);
}

#[test]
fn a_module_must_be_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(dir.path().join("inbox")).expect("made");
    let missing = errors(&below(dir.path(), SESSIONS));
    assert!(
        missing.len() == 1 && missing[0].contains("module pub: ") && missing[0].contains("is not there"),
        "{missing:?}"
    );
    fs::write(dir.path().join("pub"), b"").expect("written");
    let file = errors(&below(dir.path(), SESSIONS));
    assert!(file.len() == 1 && file[0].contains("pub is not a directory"), "{file:?}");
    fs::remove_file(dir.path().join("pub")).expect("removed");
    fs::create_dir(dir.path().join("pub")).expect("made");
    assert_eq!(errors(&below(dir.path(), SESSIONS)), [""; 0]);
}
