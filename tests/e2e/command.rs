//! What `supersyncctl` has real daemons do, and what it says of them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::proxy::Proxy;
use super::schema;
use super::session::Server;
use super::site::{PATIENCE, Plan, Site, fresh_address, random_bytes};

fn command(site: &Site, node: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supersyncctl"));
    command.arg("--socket").arg(site.socket(node)).args(args).stdin(Stdio::null());
    command
}

fn ctl(site: &Site, node: &str, args: &[&str]) -> Output {
    command(site, node, args).output().expect("it starts")
}

/// What it prints, having exited with `status`.
fn said(site: &Site, node: &str, args: &[&str], status: i32) -> String {
    let output = ctl(site, node, args);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {err}");
    if status == 0 { String::from_utf8(output.stdout).expect("text") } else { err }
}

fn told(site: &Site, node: &str, args: &[&str], status: i32) -> Value {
    let output = ctl(site, node, &[args, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(status), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let lines = schema::check_lines(str::from_utf8(&output.stdout).expect("text"));
    lines.into_iter().next_back().expect("a line")
}

#[test]
fn who_has_not_been_told_what_there_is_is_not_synced() {
    let mut site = Site::new(Plan { segments: 2, exchanges: 1, blocks: true, ..Plan::default() });
    site.unlist("t1", "");
    site.run("t1");
    site.run("e1");
    site.until("they are linked", |site| links_up(site, "e1", "t1") == 2);
    let err = said(&site, "t1", &["wait", "--synced", "--timeout", "0"], 5);
    assert!(err.contains("have 0 of 0 objects") && err.contains("no peer has told yet all there is"), "{err}");
    site.run("t2");
    said(&site, "t1", &["wait", "--synced", "--timeout", "60s"], 0);
    assert!(site.marker("t1", 1).exists() && site.marker("t1", 2).exists());
}

/// Each was told of by itself every 5 s, and status knew of nothing.
#[test]
fn what_cannot_be_looked_at_is_one_problem_told_once() {
    let mut site = Site::start(Plan { segments: 4, exchanges: 1, ..Plan::default() });
    site.until_converged();
    for segment in 1..=3 {
        let marker = site.marker("t1", segment);
        fs::rename(&marker, site.path(&format!("marker{segment}"))).expect("moved away");
        std::os::unix::fs::symlink(&marker, &marker).expect("made");
    }
    let is_told = |site: &mut Site| site.tells("t1", "/problems").to_string().contains("so it is with 2 others");
    site.until_unchecked("status tells of them", is_told);
    let told = |site: &Site| site.log("t1").lines().filter(|line| line.contains("so it is with 2 others")).count();
    // It looks once more before it answers.
    said(&site, "t1", &["wait", "--synced", "--timeout", "10s"], 0);
    assert!(is_told(&mut site) && told(&site) == 1 && !site.log("t1").contains("it is fetched again"));
    for segment in 1..=3 {
        let marker = site.marker("t1", segment);
        fs::remove_file(&marker).expect("removed");
        fs::rename(site.path(&format!("marker{segment}")), &marker).expect("moved back");
    }
    site.until("nothing is amiss any more", |site| site.tells("t1", "/problems") == serde_json::json!([]));
}

fn links_up(site: &Site, node: &str, peer: &str) -> u64 {
    let peers = site.tells(node, "/peers");
    let peer = peers.as_array().into_iter().flatten().find(|found| found["name"] == peer);
    peer.map_or(0, |peer| peer["links_up"].as_u64().expect("a number"))
}

#[test]
fn a_peer_that_a_trader_pauses_is_refused_until_it_is_resumed_and_others_take_over() {
    let mut site = Site::start(Plan { segments: 2, ..Plan::default() });
    site.until_converged();
    site.until("all links are up", |site| links_up(site, "t1", "e1") == 2 && links_up(site, "t1", "e2") == 2);
    let error = said(&site, "t1", &["pause", "e 3"], 1);
    assert!(error.contains("t1 has no peer \"e 3\"; its peers are: e1, e2"), "{error}");

    let answer = told(&site, "t1", &["pause", "e1"], 0);
    assert_eq!((&answer["paused"], &answer["changed"]), (&json!(true), &json!(true)));
    assert_eq!(told(&site, "t1", &["pause", "e1"], 0)["changed"], json!(false));
    site.until("no link is left", |site| links_up(site, "t1", "e1") == 0 && links_up(site, "e1", "t1") == 0);
    let status = told(&site, "t1", &["status"], 0);
    assert_eq!((&status["peers"][0]["name"], &status["peers"][0]["state"]), (&json!("e1"), &json!("paused")));
    let text = said(&site, "t1", &["status"], 0);
    assert!(text.contains("paused; to go on: supersyncctl resume e1"), "{text}");
    let why = told(&site, "t1", &["why-slow"], 0);
    assert_eq!((&why["links"][0]["peer"], &why["links"][0]["held_by"]), (&json!("e1"), &json!("paused")));

    // It may be started again and call: it stays refused, and all goes by the other exchange.
    site.kill("e1");
    site.run("e1");
    site.until("the exchange has called", |site| {
        site.tells("e1", "/peers/0/links/0/reconnects").as_u64().is_some_and(|count| count > 0)
    });
    fs::remove_file(site.marker("t1", 1)).expect("there");
    site.until_converged();
    assert_eq!(links_up(&site, "t1", "e1"), 0);
    assert_eq!(site.tells("t1", "/peers/0/state"), json!("paused"));

    let answer = told(&site, "t1", &["resume", "e1"], 0);
    assert_eq!((&answer["paused"], &answer["changed"]), (&json!(false), &json!(true)));
    site.until("it is back", |site| links_up(site, "t1", "e1") == 2);
}

#[test]
fn a_trader_that_an_exchange_pauses_is_not_dialed_until_it_is_resumed() {
    let mut site = Site::start(Plan { segments: 2, ..Plan::default() });
    site.until_converged();
    said(&site, "e1", &["pause", "t2"], 0);
    site.until("no link is left", |site| links_up(site, "e1", "t2") == 0 && links_up(site, "t2", "e1") == 0);
    let paused = site.tells("e1", "/peers/1");
    assert_eq!((&paused["state"], &paused["links_total"]), (&json!("paused"), &json!(2)), "{paused}");
    site.until("nothing is in demand there", |site| site.tells("e1", "/state") == "SYNCED");
    said(&site, "e1", &["status"], 0);

    fs::remove_file(site.marker("t2", 2)).expect("there");
    site.until_converged();
    // A reload gives it other links to make, and they wait as well.
    site.plan.links = 3;
    let both = [site.address("t1"), site.address("t2")];
    site.write_exchange("e1", both);
    told(&site, "e1", &["reload"], 0);
    site.until("the other trader has one more", |site| links_up(site, "e1", "t1") == 3);
    assert_eq!(site.tells("e1", "/peers/1/links_total"), json!(3));
    assert_eq!(links_up(&site, "e1", "t2"), 0);
    said(&site, "e1", &["resume", "t2"], 0);
    site.until("it has its links", |site| links_up(site, "e1", "t2") == 3);
    assert_eq!(said(&site, "e1", &["resume", "t2"], 0), "t2 was not paused\n");
}

#[test]
fn drain_finishes_what_is_in_flight_and_returns_when_the_daemon_is_gone() {
    let plan = Plan { segments: 4, records: 40_000, links: 1, exchanges: 1, ..Plan::default() };
    let mut site = Site::new(plan);
    let proxy = Proxy::to(site.address("t1"), 500_000);
    site.write_exchange("e1", [proxy.address, site.address("t2")]);
    site.all().iter().for_each(|node| site.run(node));
    site.until("bytes flow", |site| site.tells("e1", "/payload_received").as_u64() > Some(100_000));

    assert_eq!(told(&site, "t1", &["drain"], 0), json!({"schema": "supersync.drain/1", "node": "t1", "stopped": true}));
    // It has ended by then, and not only said that it would.
    assert!(!site.is_running("t1"));
    assert_eq!(site.reap("t1").code(), Some(0), "{}", site.log("t1"));
    assert!(!site.socket("t1").exists());
    let text = said(&site, "e1", &["drain", "--timeout", "60"], 0);
    assert!(text.starts_with("e1 has stopped, after "), "{text}");
    assert_eq!(site.reap("e1").code(), Some(0), "{}", site.log("e1"));
    said(&site, "e1", &["drain"], 4);

    proxy.set_rate(u64::MAX);
    site.run("t1");
    site.run("e1");
    site.until_converged();
}

#[test]
fn a_reload_of_a_bad_file_exits_with_78_and_status_says_so_until_a_good_one() {
    let mut site = Site::start(Plan { segments: 1, exchanges: 1, ..Plan::default() });
    site.until_converged();
    let good = fs::read_to_string(site.config("t1")).expect("there");
    fs::write(site.config("t1"), format!("colour = \"green\"\n{good}")).expect("written");
    let error = said(&site, "t1", &["reload"], 78);
    assert!(error.contains(":1:1: unknown key `colour`") && error.contains("nothing was changed"), "{error}");
    let config = &told(&site, "t1", &["status"], 3)["config"];
    assert_eq!(config["ok"], json!(false));
    assert!(config["message"].to_string().contains("colour"), "{config}");
    let shown = ctl(&site, "t1", &["status"]).stdout;
    let shown = String::from_utf8_lossy(&shown);
    assert!(
        shown.contains("config not in force") && shown.contains("`colour`\n") && shown.contains("    1 | colour"),
        "{shown}"
    );
    let problems = site.tells("t1", "/problems");
    assert!(problems.as_array().is_some_and(|all| all.len() == 1) && problems[0].to_string().contains("colour"));

    // What a running node does not take is told, and no less true at the next reload.
    let other = good.replace("stock{1..1}", "stock{1..2}").replace("127.0.0.0/8", "127.0.0.0/9");
    fs::write(site.config("t1"), other).expect("written");
    let report = told(&site, "t1", &["reload"], 0);
    assert!(report["applied"][0].to_string().contains(".allow: "), "{report}");
    assert!(report["needs_restart"][0].to_string().contains("store.segments: stock{1..1} "), "{report}");
    for change in ["applied: listen[", "needs a restart: store.segments: "] {
        assert!(site.log("t1").contains(change), "who reloads by a signal reads the log:\n{}", site.log("t1"));
    }
    assert_eq!(told(&site, "t1", &["reload"], 0)["applied"], json!([]));
    assert_eq!(site.tells("t1", "/want/objects"), json!(1));
    assert_eq!(site.tells("t1", "/config/ok"), json!(false));

    fs::write(site.config("t1"), good).expect("written");
    said(&site, "t1", &["reload"], 0);
    assert_eq!(site.tells("t1", "/config/ok"), json!(true));
}

/// A file that is right and that `check` fails on this host closed the links that were up, and was said to be applied.
#[test]
fn a_reload_of_what_this_host_lacks_changes_nothing() {
    let mut site = Site::start(Plan { segments: 1, exchanges: 1, links: 2, ..Plan::default() });
    site.until_converged();
    site.until("all links are up", |site| links_up(site, "e1", "t1") == 2);
    let up: Vec<_> = [0, 1].map(|link| site.tells("e1", &format!("/peers/0/links/{link}/id"))).into();
    let good = fs::read_to_string(site.config("e1")).expect("there");
    let bind = "name = \"t1\"\nbind = [\"203.0.113.77\", \"203.0.113.77\"]\n";
    fs::write(site.config("e1"), good.replace("name = \"t1\"\n", bind)).expect("written");
    let error = said(&site, "e1", &["reload"], 78);
    assert!(error.contains("peer t1: cannot bind to 203.0.113.77: ") && error.contains("nothing was"), "{error}");
    assert_eq!(up, [0, 1].map(|link| site.tells("e1", &format!("/peers/0/links/{link}/id"))));
    said(&site, "e1", &["status"], 3);
    fs::write(site.config("e1"), good).expect("written");
    said(&site, "e1", &["reload"], 0);
}

#[test]
fn a_module_that_is_not_there_is_a_problem_and_no_reload_brings_another() {
    let mut site = Site::new(Plan { segments: 1, exchanges: 1, ..Plan::default() });
    let (good, path) = (fs::read_to_string(site.config("t1")).expect("there"), site.dir().join("not-mounted"));
    let module = |name: &str| format!("[[module]]\nname = \"{name}\"\npath = \"{}\"\n", path.join(name).display());
    let listen = format!("[[listen]]\naddress = \"{}\"\nprotocol = \"session\"\n", fresh_address());
    let with = |modules: &str| fs::write(site.config("t1"), format!("{good}{listen}{modules}")).expect("written");
    fs::create_dir(&path).expect("made");
    with(&module("a"));
    site.run("t1");
    let lacks =
        |site: &Site, name: &str| site.tells("t1", "/problems").to_string().contains(&format!("module {name}: "));
    site.until("the module is missed", |site| lacks(site, "a"));
    assert!(site.log("t1").contains("not-mounted/a is not there"), "{}", site.log("t1"));
    let with = |modules: &str| fs::write(site.config("t1"), format!("{good}{listen}{modules}")).expect("written");
    with(&(module("a") + &module("b")));
    let error = said(&site, "t1", &["reload"], 78);
    assert!(error.contains("module b: ") && !error.contains("module a: "), "{error}");
    fs::create_dir(path.join("a")).expect("made");
    fs::create_dir(path.join("b")).expect("made");
    said(&site, "t1", &["reload"], 0);
    site.until("both are there", |site| !lacks(site, "a") && !lacks(site, "b"));
}

/// 0 to 6, 77 and 78, each from a real command before real nodes.
#[test]
fn every_exit_status_is_what_the_contract_says() {
    // Objects that come whole have nothing to be verified by.
    let mut site = Site::start(Plan { segments: 2, exchanges: 1, blocks: true, ..Plan::default() });
    site.until_converged();
    site.until("all links are up", |site| links_up(site, "e1", "t1") == 2 && links_up(site, "e1", "t2") == 2);
    let check = |site: &Site, node: &str, args: &[&str], status| drop(said(site, node, args, status));
    check(&site, "e1", &["status"], 0);
    check(&site, "t1", &["verify"], 0);
    check(&site, "e1", &["verify", "--deep"], 1);
    check(&site, "e1", &["pause", "nobody"], 1);
    check(&site, "e1", &["frobnicate"], 2);
    check(&site, "e1", &["schema", "nonsense"], 2);
    check(&site, "no-such-node", &["status"], 4);

    site.kill("t2");
    site.until("its links are down", |site| links_up(site, "e1", "t2") == 0);
    check(&site, "e1", &["status"], 3);
    // Nobody is left to bring again what is missed.
    site.kill("e1");
    site.until("its links are missed", |site| site.tells("t1", "/peers/0/links_up") == 0);
    assert_eq!(site.tells("t1", "/state"), "SYNCED");
    check(&site, "t1", &["status"], 3);
    fs::remove_file(site.marker("t1", 1)).expect("there");
    check(&site, "t1", &["verify"], 3);
    check(&site, "t1", &["wait", "--synced", "--timeout", "0"], 5);
    let whole = fs::read(site.remote("t1", 2)).expect("there");
    fs::write(site.remote("t1", 2), &whole[1..]).expect("written");
    check(&site, "t1", &["verify"], 6);
    fs::write(site.remote("t1", 2), whole).expect("written");

    fs::write(site.config("t1"), "colour = 1").expect("written");
    check(&site, "t1", &["reload"], 78);
    check(&site, "t1", &["verify", "--config", site.config("t1").to_str().expect("text")], 78);
    if nix::unistd::geteuid().is_root() {
        // For somebody else the socket is there and not to be used; the program must be where that user finds it.
        let bin = tempfile::tempdir().expect("made");
        fs::set_permissions(bin.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        fs::set_permissions(site.dir(), fs::Permissions::from_mode(0o755)).expect("ours");
        let copy = bin.path().join("supersyncctl");
        // By a process of its own: a file that is open for writing anywhere is not run.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_supersyncctl")).arg(&copy).status();
        assert!(copied.expect("cp(1)").success());
        let mut command = Command::new(copy);
        let output = command.arg("--socket").arg(site.socket("t1")).arg("status").uid(65_534).gid(65_534).output();
        let output = output.expect("it starts");
        assert_eq!(output.status.code(), Some(77), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn whatever_is_printed_as_json_is_as_its_schema_says() {
    let mut site = Site::start(Plan { segments: 3, blocks: true, ..Plan::default() });
    site.until_converged();
    for node in ["t1", "e1"] {
        for args in [&["status"][..], &["links"], &["why-slow"], &["objects"], &["wait", "--synced"], &["reload"]] {
            told(&site, node, args, 0);
        }
    }
    told(&site, "t1", &["verify", "--deep"], 0);
    fs::write(site.remote("t1", 2), "damaged").expect("written");
    told(&site, "t1", &["verify"], 6);
    for path in ["/v1/inventory?limit=10", "/v1/nonsense", "/v1/pause?peer=e1"] {
        schema::check(&super::site::ask(&site.socket("t1"), "GET", path).expect("an answer"));
    }
    let doctor = Command::new(env!("CARGO_BIN_EXE_supersyncd")).args(["doctor", "--json"]).output().expect("it starts");
    schema::check_lines(str::from_utf8(&doctor.stdout).expect("text"));

    let server = Server::start();
    fs::write(server.path("here/a"), "a").expect("written");
    server.push(&server.path("here/"), "open/here", &[]).ok();
    // What is sent and what fails is told in other tests, whose outputs are held against the schema too.
    fs::remove_file(server.path("here/a")).expect("there");
    let socket = std::os::unix::net::UnixListener::bind(server.path("here/socket")).expect("bound");
    let pushed = server.push(&server.path("here/"), "open/here", &["--delete"]);
    drop(socket);
    for event in ["deleted", "skipped", "summary"] {
        assert_eq!(pushed.of_kind(event).len(), 1, "{event}: {:#?}", pushed.of_kind(event));
    }
}

#[test]
fn who_is_served_now_is_shown_with_what_for() {
    let server = Server::start();
    fs::write(server.path("open/big"), random_bytes(32 << 20)).expect("written");
    let proxy = Proxy::to(server.address, 500_000);
    let mut pull = server.pull_from(proxy.address, "open/big", &server.path("here/"), &["--connections", "1"]);
    let mut pull = pull.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let clients = |path: &str| {
        super::site::ask(&server.path("control.sock"), "GET", path).map_or(Value::Null, |mut answer| {
            schema::check(&answer);
            answer["clients"].take()
        })
    };
    let by = Instant::now() + PATIENCE;
    let seen = loop {
        let seen = clients("/v1/status");
        if seen[0]["payload_out"].as_u64() > Some(0) && seen[0]["rate_out"].as_f64() > Some(0.0) {
            break seen;
        }
        assert!(Instant::now() < by, "{seen}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let client = &seen[0];
    assert_eq!(seen.as_array().map(Vec::len), Some(1), "{seen}");
    assert_eq!((&client["protocol"], &client["doing"]), (&json!("session"), &json!("pull open/big")));
    assert_eq!((&client["connections"], &client["payload_in"]), (&json!(1), &json!(0)));
    assert_eq!(clients("/v1/links")[0]["address"], client["address"]);
    let mut links = Command::new(env!("CARGO_BIN_EXE_supersyncctl"));
    let links = links.arg("--socket").arg(server.path("control.sock")).arg("links").output().expect("it starts");
    assert!(String::from_utf8_lossy(&links.stdout).contains("pull open/big"), "{links:?}");
    pull.kill().expect("ours");
    pull.wait().expect("it ends");
    while clients("/v1/status") != json!([]) {
        assert!(Instant::now() < by, "it is gone, and still shown");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_person_who_watches_sees_the_daemon_go_and_come_back() {
    let mut site = Site::start(Plan { segments: 1, exchanges: 1, ..Plan::default() });
    site.until_converged();
    let mut watch = command(&site, "t1", &["status", "--watch"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut script = command(&site, "t1", &["status", "--watch", "--json"]);
    let mut script = script.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let mut until =
        |what: &str| lines.find(|line| line.contains(what)).unwrap_or_else(|| panic!("it never says {what}"));
    let mut objects = BufReader::new(script.stdout.take().expect("piped")).lines();
    until("● t1  trader");
    schema::check_lines(&objects.next().expect("a line").expect("text"));
    site.kill("t1");
    until("cannot reach supersyncd");
    // A program learns from the exit status.
    let rest: Vec<String> = objects.map(|line| line.expect("text")).collect();
    rest.iter().for_each(|line| drop(schema::check_lines(line)));
    assert_eq!(script.wait().expect("it ends").code(), Some(4));
    site.run("t1");
    until("● t1  trader");
    // Nobody reads on: it ends by itself.
    drop(lines);
    assert_eq!(watch.wait().expect("it ends").code(), Some(0));
}
