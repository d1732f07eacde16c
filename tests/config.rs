//! Configs as operators meet them: the examples, the templates, and what is said about bad ones.

#[path = "config/any.rs"]
mod any;
#[path = "config/modules.rs"]
mod modules;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use supersync::config::{
    Change, Cidr, Config, ConfigError, Control, Delete, EngineChoice, Exchange, HttpAddress, LinkAddress, Listen, Peer,
    Protocol, Remote, Role, RoleConfig, Segments, Severity, Spool, StoreConfig, Trader, check_environment, diff, load,
    parse, reloaded, template,
};
use supersync::exit;
use supersync::units::{ByteCount, PacketLen};

use any::any_config;

const TRADER: &str = r#"role = "trader"
name = "trader1"
[store]
local = "/srv/local"
remote = "/srv/remote"
[[listen]]
address = "0.0.0.0:7401"
allow = ["10.1.0.0/16"]
"#;

const EXCHANGE: &str = r#"role = "exchange"
name = "exchange1"
[spool]
path = "/var/spool/x"
[[peer]]
name = "trader1"
links = ["10.1.1.5:7401"]
[[peer]]
name = "trader2"
links = ["10.2.1.5:7401"]
"#;

const SESSIONS: &str = r#"role = "trader"
name = "files"
[[module]]
name = "pub"
path = "/srv/pub"
[[module]]
name = "inbox"
path = "/srv/inbox"
read_only = false
[[listen]]
address = "0.0.0.0:7402"
protocol = "session"
allow = ["10.1.0.0/16"]
"#;

fn ok(text: &str) -> Config {
    parse(text, "x.toml").unwrap_or_else(|error| panic!("{error}\n--- of\n{text}"))
}

fn refused(text: &str) -> ConfigError {
    match parse(text, "x.toml") {
        Ok(_) => panic!("this was taken:\n{text}"),
        Err(error) => error,
    }
}

fn trader(config: &mut Config) -> &mut Trader {
    match &mut config.role {
        RoleConfig::Trader(trader) => trader,
        RoleConfig::Exchange(_) => panic!("an exchange"),
    }
}

fn store(config: &mut Config) -> &mut StoreConfig {
    trader(config).store.as_mut().expect("it replicates")
}

fn exchange(config: &mut Config) -> &mut Exchange {
    match &mut config.role {
        RoleConfig::Exchange(exchange) => exchange,
        RoleConfig::Trader(_) => panic!("a trader"),
    }
}

#[test]
fn every_example_is_valid_and_is_what_its_file_name_says() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let site =
        ["trader1", "trader2", "exchange1", "exchange2", "files"].map(|name| examples.join(format!("{name}.toml")));
    let loopback = ["trader1", "trader2", "exchange1"].map(|name| examples.join(format!("loopback/{name}.toml")));
    for path in site.iter().chain(&loopback) {
        let mut config = load(path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(config.name.as_str()));
        if config.role.role() == Role::Exchange {
            assert!(exchange(&mut config).peers.iter().all(|peer| peer.links.len() == 3), "{}", path.display());
        }
    }
}

#[test]
fn the_links_of_the_example_exchanges_are_let_in_by_the_example_traders() {
    let example = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("deploy/examples/{name}.toml"));
        load(&path).unwrap_or_else(|error| panic!("{error}"))
    };
    for exchange_name in ["exchange1", "exchange2"] {
        for peer in &exchange(&mut example(exchange_name)).peers {
            let allow = trader(&mut example(peer.name.as_str())).listen[0].allow.clone();
            for link in &peer.links {
                let bind = link.bind.expect("the examples bind their links");
                assert!(allow.iter().any(|net| net.contains(bind)), "{exchange_name} from {bind} to {}", peer.name);
            }
        }
    }
}

#[test]
fn templates_are_valid() {
    for role in [Role::Trader, Role::Exchange] {
        assert_eq!(ok(template(role)).role.role(), role);
    }
}

/// What a template leaves to the default stands there as a comment; with the comments taken off it is as valid.
#[test]
fn the_keys_that_templates_comment_out_are_valid_too() {
    for role in [Role::Trader, Role::Exchange] {
        let is_key =
            |line: &str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let uncommented: Vec<&str> = template(role)
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line))
            .collect();
        let config = ok(&uncommented.join("\n"));
        assert!(config.workers.is_some() && config.congestion.is_some(), "{role}");
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = ok(TRADER);
    let expected = Config {
        name: "trader1".parse().expect("valid"),
        role: RoleConfig::Trader(Trader {
            store: Some(StoreConfig {
                local: "/srv/local".into(),
                remote: "/srv/remote".into(),
                segments: None,
                delete: Delete::Keep,
            }),
            modules: vec![],
            listen: vec![Listen {
                address: "0.0.0.0:7401".parse().expect("valid"),
                protocol: Protocol::Duplex,
                allow: vec![Cidr::parse("10.1.0.0/16").expect("valid")],
                peer: None,
            }],
        }),
        packet_len: PacketLen::DEFAULT,
        engine: EngineChoice::Auto,
        state_dir: "/var/lib/supersync/trader1".into(),
        control: Control { socket: "/run/supersync/trader1/control.sock".into(), http: None },
        workers: None,
        blocks: true,
        congestion: None,
    };
    assert_eq!(config, expected);

    let config = ok(EXCHANGE);
    let peer = |name: &str, remote: &str| Peer {
        name: name.parse().expect("valid"),
        links: vec![LinkAddress { remote: Remote::Address(remote.parse().expect("valid")), bind: None }],
    };
    let expected = Exchange {
        spool: Spool { path: "/var/spool/x".into(), max_bytes: ByteCount(4 << 30) },
        peers: [peer("trader1", "10.1.1.5:7401"), peer("trader2", "10.2.1.5:7401")],
    };
    assert_eq!(config.role, RoleConfig::Exchange(expected));
}

#[test]
fn everything_that_can_be_said_is_heard() {
    let mut config = ok(r#"
        role = "trader"
        name = "t.1"
        packet_bytes = 65_536
        engine = "uring"
        workers = 3
        congestion = "bbr"
        state_dir = "/state//t1/"
        [control]
        socket = "/t1.sock"
        [store]
        local = "/a"
        remote = "/ab"
        segments = { pattern = "s{1..2}", records = 10, record_bytes = 24 }
        [[listen]]
        address = "[::]:7401"
        protocol = "duplex"
        allow = ["fd00::/8", "10.1.1.5"]
        peer = "exchange1"
        [[listen]]
        address = "0.0.0.0:7402"
    "#);
    assert_eq!(config.packet_len, PacketLen::new(65_536).expect("valid"));
    assert_eq!(config.engine, EngineChoice::Uring);
    assert_eq!(config.workers.map(usize::from), Some(3));
    assert_eq!(config.congestion.as_deref(), Some("bbr"));
    assert_eq!(config.state_dir, PathBuf::from("/state/t1"));
    assert_eq!(config.control.socket, PathBuf::from("/t1.sock"));
    let trader = trader(&mut config);
    let segments = Segments { pattern: "s{1..2}".into(), records: 10, record_bytes: 24 };
    assert_eq!(segments.object_bytes(), ByteCount(240));
    assert_eq!(trader.store.as_ref().and_then(|store| store.segments.clone()), Some(segments));
    assert_eq!(trader.listen[0].peer.as_deref(), Some("exchange1"));
    assert_eq!(trader.listen[1].allow, [Cidr::ANY_V4, Cidr::ANY_V6]);

    let text = EXCHANGE.replace(
        "links = [\"10.1.1.5:7401\"]",
        "links = [\"a.example:1\", \"[fd00::5]:2\", \"10.1.1.5:3\"]\nbind = [\"10.1.1.6\", \"::\", \"0.0.0.0\"]",
    );
    let mut config = ok(&text);
    let links = &exchange(&mut config).peers[0].links;
    let host = Remote::Host { name: "a.example".into(), port: 1 };
    assert_eq!(links[0], LinkAddress { remote: host, bind: Some("10.1.1.6".parse().expect("valid")) });
    assert!(links[1].bind.is_none() && links[2].bind.is_none());
}

#[test]
fn an_unknown_key_is_shown_with_a_caret_and_a_suggestion() {
    let text = format!("pakcet_bytes = 1400\n{TRADER}");
    let expected = "x.toml:1:1: unknown key `pakcet_bytes`\n\
                    \x20   1 | pakcet_bytes = 1400\n\
                    \x20     | ^^^^^^^^^^^^ did you mean `packet_bytes`?";
    assert_eq!(refused(&text).to_string(), expected);
}

/// `from` of a valid config replaced by `to` is refused in this line, with one problem that says all of `pieces`.
#[track_caller]
fn check(base: &str, from: &str, to: &str, line: usize, pieces: &[&str]) {
    assert!(base.contains(from), "{from:?} is not there");
    let text = base.replacen(from, to, 1);
    let error = refused(&text);
    assert_eq!(error.exit_status(), exit::CONFIG);
    let problems = error.problems();
    assert_eq!(problems.len(), 1, "{error}\n--- of\n{text}");
    assert_eq!(problems[0].place.as_ref().map_or(0, |place| place.line), line, "{error}");
    let shown = error.to_string();
    for piece in pieces {
        assert!(shown.contains(piece), "{piece:?} is not in\n{shown}");
    }
}

#[test]
fn bad_top_level_keys_are_refused() {
    check(TRADER, "\"trader\"", "\"tradr\"", 1, &["`role`: \"tradr\" is not a choice", "did you mean \"trader\"?"]);
    check(TRADER, "\"trader\"", "\"x\"", 1, &["write \"trader\" or \"exchange\""]);
    check(TRADER, "role = \"trader\"\n", "", 0, &["x.toml: `role` is missing", "write role = "]);
    check(TRADER, "name = \"trader1\"\n", "", 0, &["`name` is missing"]);
    check(TRADER, "\"trader1\"", "\"a/b\"", 2, &["`name`", "'/' at byte 1", "letters, digits"]);
    check(TRADER, "\"trader1\"", "7", 2, &["`name`: this is an integer", "a string belongs here"]);
    let with = |line: &str| format!("{line}\n{TRADER}");
    let refuse = |line: &str, pieces: &[&str]| check(&with("#"), "#", line, 1, pieces);
    refuse("packet_bytes = 63", &["`packet_bytes`: 63 bytes are out of bounds", "from 64 to 1048576"]);
    refuse("packet_bytes = 1048577", &["out of bounds"]);
    refuse("packet_bytes = -1", &["-1 is negative"]);
    refuse("packet_bytes = 1e3", &["this is a float", "an integer belongs here"]);
    refuse("packet_bytes = 99999999999999999999", &["does not fit"]);
    refuse("engine = \"epoll\"", &["\"epoll\" is not a choice", "\"auto\" or \"uring\" or \"blocking\""]);
    refuse("workers = 0", &["`workers`: 0 is out of bounds", "from 1 to 64"]);
    refuse("workers = 65", &["out of bounds"]);
    refuse("congestion = \"BBR!\"", &["`congestion`", "tcp_available_congestion_control"]);
    refuse("state_dir = \"state\"", &["`state_dir`: the path is relative", "whole path from / on"]);
    refuse("state_dir = \"/srv/../x\"", &["'..'"]);
    refuse("state_dir = \"/srv/local/state\"", &["`state_dir` (/srv/local/state) is inside `store.local`"]);
    refuse("local = \"/x\"", &["unknown key `local`", "`local` belongs in `store`"]);
    refuse("frobnicate = 1", &["unknown key `frobnicate`", "remove it; known here: role, name, packet_bytes"]);
    refuse("Packet-Bytes = 1", &["did you mean `packet_bytes`?"]);
    refuse("\"\\u001b[31m\" = 1", &["unknown key `\u{fffd}[31m`"]);
}

#[test]
fn a_short_packet_has_no_room_for_the_hello_of_a_long_name() {
    let text = format!("packet_bytes = 64\n{TRADER}");
    ok(&text);
    let long = "n".repeat(64);
    check(&text, "trader1", &long, 1, &["`packet_bytes`", "no room for the hello", "write 101 or more"]);
    ok(&text.replace("trader1", &long).replace("= 64", "= 101"));
}

#[test]
fn bad_control_sections_are_refused() {
    let base = TRADER.replace("[store]", "[control]\nhttp_x = 1\n[store]");
    check(&base, "http_x = 1", "http = \"everywhere\"", 4, &["`control.http`"]);
    let taken = "`control.http` (127.0.0.1:7401) is taken by the [[listen]] of 0.0.0.0:7401";
    check(&base, "http_x = 1", "http = \"127.0.0.1:7401\"", 3, &[taken, "its own port"]);
    check(&base, "http_x = 1", "socket = \"control.sock\"", 4, &["`control.socket`: the path is relative"]);
    let long = format!("socket = \"/{}\"", "s".repeat(103));
    check(&base, "http_x = 1", &long, 4, &["104 bytes", "at most 103"]);
    check(&base, "http_x = 1", "socket = \"/srv/remote/x.sock\"", 3, &["`control.socket`", "inside `store.remote`"]);
    check(&base, "http_x = 1", "sokcet = \"/x\"", 4, &["unknown key `sokcet` in `control`", "did you mean `socket`?"]);
    check(&base, "http_x = 1", "packet_bytes = 1400", 4, &["belongs at the top, before the first [section]"]);
    check(&base, "[control]\nhttp_x = 1\n", "[[control]]\n", 3, &["there can be only one", "[control]"]);
}

#[test]
fn bad_stores_are_refused() {
    check(TRADER, "local = \"/srv/local\"\n", "", 3, &["`store.local` is missing", "| [store]", "| ^^^^^^^"]);
    check(TRADER, "remote = \"/srv/remote\"\n", "", 3, &["`store.remote` is missing"]);
    check(TRADER, "/srv/remote", "/srv/local", 5, &["are the same directory"]);
    check(TRADER, "/srv/remote", "/srv//local/./", 5, &["are the same directory"]);
    check(TRADER, "/srv/remote", "/srv/local/remote", 5, &["inside one another"]);
    check(TRADER, "/srv/remote", "/srv", 5, &["inside one another"]);
    check(TRADER, "/srv/remote", "srv", 5, &["`store.remote`: the path is relative"]);
    check(TRADER, "[store]\nlocal = \"/srv/local\"\nremote = \"/srv/remote\"\n", "", 0, &["`store` is missing"]);
    let segments = |text: &str, line, pieces: &[&str]| {
        check(&TRADER.replace("[[listen]]", "#\n[[listen]]"), "#", &format!("segments = {{ {text} }}"), line, pieces);
    };
    segments("pattern = \"\", records = 1, record_bytes = 1", 6, &["`store.segments.pattern`: the pattern is empty"]);
    segments("pattern = \"a{1..2\", records = 1, record_bytes = 1", 6, &["has no '}'"]);
    let descending = "pattern = \"a{2..1}\", records = 1, record_bytes = 1";
    segments(descending, 6, &["`store.segments.pattern`: the range '{2..1}' at position 1 descends", "^^^^"]);
    segments("pattern = \"a\", records = 0, record_bytes = 1", 6, &["`store.segments.records`: 0 are too few"]);
    segments("pattern = \"a\", records = 1", 6, &["`store.segments.record_bytes` is missing"]);
    segments("pattern = \"a\", record = 1, record_bytes = 1, records = 1", 6, &["did you mean `records`?"]);
    let huge = "pattern = \"a\", records = 9_000_000_000_000_000_000, record_bytes = 3";
    segments(huge, 6, &["longer than any file"]);
}

#[test]
fn bad_listeners_are_refused() {
    let listen = "[[listen]]\naddress = \"0.0.0.0:7401\"\nallow = [\"10.1.0.0/16\"]\n";
    check(TRADER, listen, "", 0, &["`listen` is missing", "[[listen]]"]);
    check(&TRADER.replace(listen, ""), "[store]", "listen = []\n[store]", 3, &["nobody could connect"]);
    check(TRADER, "[[listen]]", "[listen]", 6, &["`listen`: there can be several", "[[listen]]"]);
    check(TRADER, "address = \"0.0.0.0:7401\"\n", "", 6, &["`listen[0].address` is missing"]);
    check(TRADER, "0.0.0.0:7401", "trader1:7401", 7, &["not an address and a port"]);
    check(TRADER, "[\"10.1.0.0/16\"]", "[]", 8, &["`listen[0].allow`: nobody could connect"]);
    check(TRADER, "[\"10.1.0.0/16\"]", "\"10.1.0.0/16\"", 8, &["this is a string", "an array of strings belongs here"]);
    check(TRADER, "\"10.1.0.0/16\"", "\"::1\", 5", 8, &["`listen[0].allow[1]`: this is an integer"]);
    check(TRADER, "10.1.0.0/16", "10.1.0.0/33", 8, &["not a network", "\"10.1.0.0/16\""]);
    check(TRADER, "10.1.0.0/16", "10.1.2.3/16", 8, &["write \"10.1.0.0/16\", or \"10.1.2.3\" for this one alone"]);
    let protocol =
        |value: &str, pieces: &[&str]| check(TRADER, "allow", &format!("protocol = \"{value}\"\nallow"), 8, pieces);
    let named = "protocol = \"named\"\npeer = \"client1\"\nallow";
    check(TRADER, "allow", named, 9, &["`listen[0].peer`: clients that ask by name have none"]);
    protocol("namd", &["did you mean \"named\"?"]);
    protocol("duplx", &["did you mean \"duplex\"?"]);
    let twice = format!("{TRADER}{listen}");
    ok(&twice.replacen("0.0.0.0:7401", "0.0.0.0:7402", 1));
    check(&twice, "role", "role", 10, &["`listen[1].address`: 0.0.0.0:7401 is there already"]);
    // A node that cannot bind the second one does not start.
    let first = |address: &str| twice.replacen("0.0.0.0:7401", address, 1);
    for address in ["10.1.1.5:7401", "[::]:7401"] {
        check(&first(address), "role", "role", 10, &[&format!("0.0.0.0:7401 and {address} of another [[listen]]")]);
    }
    ok(&first("[::1]:7401"));
    ok(&twice.replace("0.0.0.0:7401", "0.0.0.0:0"));
    check(TRADER, "[[listen]]", "[spool]\npath = \"/x\"\n[[listen]]", 6, &["`spool` is for the role exchange"]);
}

#[test]
fn bad_exchanges_are_refused() {
    check(EXCHANGE, "[spool]\npath = \"/var/spool/x\"\n", "", 0, &["`spool` is missing"]);
    check(EXCHANGE, "path = \"/var/spool/x\"\n", "", 3, &["`spool.path` is missing"]);
    check(EXCHANGE, "[spool]\n", "[spool]\nmax_bytes = \"4 gigs\"\n", 4, &["`spool.max_bytes`", "\"4GiB\""]);
    check(EXCHANGE, "[spool]\n", "[spool]\nmax_bytes = 0\n", 4, &["0 bytes are too few"]);
    check(
        EXCHANGE,
        "[[peer]]\nname = \"trader2\"\nlinks = [\"10.2.1.5:7401\"]\n",
        "",
        5,
        &["exactly two peers, and there are 1"],
    );
    let three = format!("{EXCHANGE}[[peer]]\nname = \"trader3\"\nlinks = [\"10.3.1.5:7401\"]\n");
    check(&three, "role", "role", 11, &["exactly two peers, and there are 3", "once for each trader"]);
    check(EXCHANGE, "\"trader2\"", "\"trader1\"", 9, &["`peer[1].name`: \"trader1\" is there already"]);
    check(EXCHANGE, "\"trader2\"", "\"exchange1\"", 9, &["the name of this node itself"]);
    check(EXCHANGE, "[\"10.1.1.5:7401\"]", "[]", 7, &["`peer[0].links`: the peer could not be reached"]);
    check(EXCHANGE, "links = [\"10.2.1.5:7401\"]\n", "", 8, &["`peer[1].links` is missing"]);
    check(EXCHANGE, "10.1.1.5:7401", "10.1.1.5", 7, &["`peer[0].links[0]`", "not a host and a port"]);
    check(EXCHANGE, "10.1.1.5:7401", "10.1.1.500:7401", 7, &["not a host and a port"]);
    check(EXCHANGE, "10.1.1.5:7401", "10.1.1.5:0", 7, &["nobody listens on port 0"]);
    check(EXCHANGE, "10.2.1.5:7401", "10.1.1.5:7401", 10, &["10.1.1.5:7401 belongs to both peers"]);
    let bind = |value: &str, pieces: &[&str]| {
        check(
            EXCHANGE,
            "[[peer]]\nname = \"trader2\"",
            &format!("bind = {value}\n[[peer]]\nname = \"trader2\""),
            8,
            pieces,
        )
    };
    bind("[\"10.1.1.6\", \"10.1.1.7\"]", &["has 2 where `links` has 1"]);
    bind("[\"fd00::6\"]", &["different families"]);
    bind("[\"eth0\"]", &["`peer[0].bind[0]`: \"eth0\" is not an address"]);
    check(EXCHANGE, "[spool]", "[store]\nlocal = \"/a\"\n[spool]", 3, &["`store` is for the role trader"]);
    check(
        EXCHANGE,
        "name = \"exchange1\"",
        "name = \"exchange1\"\nstate_dir = \"/var/spool/x\"",
        3,
        &["inside `spool.path`"],
    );
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_text() {
    let error = refused(
        r#"role = "trader"
pakcet_bytes = 1400
engine = "epoll"
[store]
local = "local"
[[listen]]
address = "nowhere"
"#,
    );
    let lines: Vec<_> = error.problems().iter().map(|p| p.place.as_ref().map_or(0, |place| place.line)).collect();
    assert_eq!(lines, [0, 2, 3, 4, 5, 7], "{error}");
}

#[test]
fn sections_are_checked_even_where_the_role_is_not_known() {
    let error = refused(&TRADER.replace("\"trader\"", "\"x\"").replace("/srv/local", "local"));
    let lines: Vec<_> = error.problems().iter().map(|p| p.place.as_ref().map_or(0, |place| place.line)).collect();
    assert_eq!(lines, [1, 4], "{error}");
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    let check = |text: &str, line: usize| {
        let error = refused(text);
        assert!(matches!(error, ConfigError::Syntax(_)), "{error}");
        assert_eq!(error.problems()[0].place.as_ref().map(|place| place.line), Some(line), "{error}");
        assert_eq!(error.exit_status(), exit::CONFIG);
    };
    check("role = \"trader\"\nname = trader1\n", 2);
    check("a = 1\nb = 2\na = 3\n", 3);
    check("\n\n[store\n", 3);
    check("x = \"\"\"\nnever ends", 2);
}

#[test]
fn files_that_are_no_config_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let missing = load(&dir.path().join("none.toml")).expect_err("it is not there");
    assert!(missing.to_string().contains("supersyncd init"), "{missing}");
    assert_eq!(missing.exit_status(), exit::CONFIG);

    let binary = dir.path().join("binary.toml");
    fs::write(&binary, b"role = \"\xff\"").expect("written");
    assert!(matches!(load(&binary), Err(ConfigError::NotText { offset: 8, .. })));

    assert!(matches!(load(Path::new("/dev/zero")), Err(ConfigError::TooLong { .. })));
    assert!(matches!(load(dir.path()), Err(ConfigError::Read { .. })));

    let good = dir.path().join("good.toml");
    fs::write(&good, TRADER).expect("written");
    assert_eq!(load(&good).expect("valid"), ok(TRADER));
}

/// The keys of the changes from one text to the other, and whether each is applied.
fn changes(old: &str, new: &str) -> Vec<(String, bool)> {
    let (old, new) = (ok(old), ok(new));
    let running = reloaded(&old, &new);
    let (applied, waiting) = (diff(&old, &running), diff(&running, &new));
    let told = |changes: Vec<Change>, applied| changes.into_iter().map(move |change| (change.key, applied));
    told(applied, true).chain(told(waiting, false)).collect()
}

#[test]
fn a_reload_applies_what_a_running_node_can_take() {
    let check = |base: &str, from: &str, to: &str, expected: &[(&str, bool)]| {
        assert!(base.contains(from), "{from:?} is not there");
        let expected: Vec<_> = expected.iter().map(|(key, applied)| ((*key).to_owned(), *applied)).collect();
        assert_eq!(changes(base, &base.replacen(from, to, 1)), expected, "{from:?} -> {to:?}");
    };
    check(TRADER, "role", "role", &[]);
    check(TRADER, "10.1.0.0/16", "10.2.0.0/16", &[("listen[0.0.0.0:7401].allow", true)]);
    check(
        TRADER,
        "[[listen]]",
        "segments = { pattern = \"a\", records = 1, record_bytes = 1 }\n[[listen]]",
        &[("store.segments", false)],
    );
    check(TRADER, "[[listen]]", "[[listen]]\npeer = \"e\"", &[("listen[0.0.0.0:7401].peer", false)]);
    check(TRADER, "0.0.0.0:7401", "0.0.0.0:7402", &[("listen", false)]);
    check(TRADER, "[[listen]]", "[[listen]]\naddress = \"0.0.0.0:1\"\n[[listen]]", &[("listen", false)]);
    check(TRADER, "/srv/remote", "/srv/elsewhere", &[("store.remote", false)]);
    check(TRADER, "/srv/local", "/srv/elsewhere", &[("store.local", false)]);
    check(TRADER, "name", "packet_bytes = 1500\nname", &[("packet_bytes", false)]);
    check(
        SESSIONS,
        "\"/srv/pub\"",
        "\"/srv/x\"\nread_only = false",
        &[("module[pub].path", true), ("module[pub].read_only", true)],
    );
    check(SESSIONS, "read_only = false", "read_only = false\nallow = [\"10.1.0.1\"]", &[("module[inbox].allow", true)]);
    check(SESSIONS, "\"pub\"", "\"public\"", &[("module", true)]);
    let with_store =
        format!("{SESSIONS}[store]\nlocal = \"/l\"\nremote = \"/r\"\n[[listen]]\naddress = \"0.0.0.0:1\"\n");
    assert_eq!(changes(SESSIONS, &with_store), [("store".to_owned(), false), ("listen".to_owned(), false)]);
    // Whoever may speak another protocol from the next start on may not speak the present one.
    check(
        TRADER,
        "allow = [\"10.1.0.0/16\"]",
        "allow = [\"10.2.0.0/16\"]\nprotocol = \"named\"",
        &[("listen[0.0.0.0:7401].protocol", false), ("listen[0.0.0.0:7401].allow", false)],
    );
    // Modules that keep clear of the directories of the next start may be in those of the present one.
    let moved = SESSIONS.replacen("\"pub\"", "\"public\"", 1).replacen("role", "state_dir = \"/elsewhere\"\nrole", 1);
    assert_eq!(changes(SESSIONS, &moved), [("state_dir".to_owned(), false), ("module".to_owned(), false)]);
    check(
        TRADER,
        "name",
        "engine = \"uring\"\nworkers = 2\ncongestion = \"cubic\"\nname",
        &[("engine", false), ("workers", false), ("congestion", false)],
    );
    check(TRADER, "trader1", "t", &[("name", false), ("state_dir", false), ("control.socket", false)]);
    check(EXCHANGE, "[spool]", "[spool]\nmax_bytes = \"1GiB\"", &[("spool.max_bytes", true)]);
    check(EXCHANGE, "/var/spool/x", "/var/spool/y", &[("spool.path", false)]);
    check(EXCHANGE, "[\"10.1.1.5:7401\"]", "[\"10.1.1.5:7401\", \"10.1.1.9:7401\"]", &[("peer[trader1].links", true)]);
    check(
        EXCHANGE,
        "[[peer]]\nname = \"trader2\"",
        "bind = [\"10.1.1.6\"]\n[[peer]]\nname = \"trader2\"",
        &[("peer[trader1].links", true)],
    );
    check(EXCHANGE, "trader2", "trader3", &[("peer", false)]);
    // In the other order they are the same peers with the same links, and each goes on in its place until a restart.
    let (first, second) = EXCHANGE.split_once("[[peer]]").expect("it has two");
    let (one, two) = second.split_once("[[peer]]").expect("it has two");
    let swapped = format!("{first}[[peer]]{two}\n[[peer]]{}", one.replace("10.1.1.5", "10.1.1.6"));
    assert_eq!(changes(EXCHANGE, &swapped), [("peer[trader1].links".to_owned(), true), ("peer".to_owned(), false)]);
    // Each listener of an address keeps to its own.
    let twins = TRADER.replace("0.0.0.0:7401", "0.0.0.0:0");
    let twins = format!("{twins}[[listen]]\naddress = \"0.0.0.0:0\"\nallow = [\"10.2.0.0/16\"]\n");
    let running = reloaded(&ok(&twins), &ok(&twins.replace("10.2.0.0/16", "10.3.0.0/16")));
    assert_eq!(running, ok(&twins.replace("10.2.0.0/16", "10.3.0.0/16")));
    let to_exchange = EXCHANGE.replace("exchange1", "trader1").replace("\"trader1\"\nlinks", "\"trader9\"\nlinks");
    assert_eq!(changes(TRADER, &to_exchange), [("role".to_owned(), false)]);
}

#[test]
fn a_change_says_what_it_was_and_what_it_is_to_be() {
    let changes = diff(&ok(EXCHANGE), &ok(&EXCHANGE.replace("[spool]", "[spool]\nmax_bytes = 1000")));
    assert_eq!(changes[0].to_string(), "spool.max_bytes: 4294967296 bytes -> 1000 bytes");
}

/// A config whose directories are all below `dir`.
fn below(dir: &Path, base: &str) -> Config {
    let mut config = ok(base);
    config.state_dir = dir.join("state");
    config.control.socket = dir.join("control.sock");
    match &mut config.role {
        RoleConfig::Trader(trader) => {
            if let Some(store) = &mut trader.store {
                (store.local, store.remote) = (dir.join("local"), dir.join("remote"));
            }
            for module in &mut trader.modules {
                module.path = dir.join(&module.name);
            }
            trader.listen[0].address = "127.0.0.1:0".parse().expect("valid");
        }
        RoleConfig::Exchange(exchange) => exchange.spool.path = dir.join("spool"),
    }
    config
}

fn errors(config: &Config) -> Vec<String> {
    let findings = check_environment(config).into_iter();
    findings.filter(|finding| finding.severity == Severity::Error).map(|finding| finding.what).collect()
}

#[test]
fn directories_that_are_there_or_can_be_made_are_fine() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(dir.path().join("local")).expect("made");
    for base in [TRADER, EXCHANGE] {
        let config = below(dir.path(), base);
        assert_eq!(errors(&config), [""; 0]);
    }
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "a check makes nothing");
}

/// It was a warning that said "it can be made", and the node, which never makes it, did not start.
#[test]
fn what_is_to_be_served_must_be_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let errors = errors(&below(dir.path(), TRADER));
    assert!(errors.len() == 1 && errors[0].contains("store.local: "), "{errors:?}");
    assert!(errors[0].ends_with("is not there"), "{errors:?}");
}

#[test]
fn a_file_in_place_of_a_directory_is_an_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("local"), b"").expect("written");
    let mut config = below(dir.path(), TRADER);
    store(&mut config).remote = dir.path().join("local/remote");
    let errors = errors(&config);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors.iter().all(|error| error.contains("local is not a directory")), "{errors:?}");
}

/// `check` found nothing, and the node did not start.
#[test]
fn what_stands_in_place_of_a_socket_is_an_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(dir.path().join("local")).expect("made");
    let mut config = below(dir.path(), TRADER);
    config.control.socket = dir.path().join("local");
    let errors = errors(&config);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("control.socket") && errors[0].contains("is not a socket"), "{errors:?}");
}

#[test]
fn a_directory_that_may_not_be_written_is_an_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let remote = dir.path().join("remote");
    fs::create_dir(dir.path().join("local")).expect("made");
    fs::create_dir(&remote).expect("made");
    fs::set_permissions(&remote, fs::Permissions::from_mode(0o555)).expect("set");
    let errors = errors(&below(dir.path(), TRADER));
    if nix::unistd::geteuid().is_root() {
        // Modes do not bind root: this fact shows itself to every other user.
        assert_eq!(errors, [""; 0]);
        return;
    }
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("store.remote") && errors[0].contains("may not write"), "{errors:?}");
}

#[test]
fn a_symbolic_link_cannot_hide_that_two_roots_are_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(dir.path().join("local")).expect("made");
    symlink(dir.path().join("local"), dir.path().join("remote")).expect("made");
    let errors = errors(&below(dir.path(), TRADER));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("lead to the same place"), "{errors:?}");
}

#[test]
fn a_port_in_use_is_an_error_unless_this_node_runs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(dir.path().join("local")).expect("made");
    let occupant = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let mut config = below(dir.path(), TRADER);
    trader(&mut config).listen[0].address = occupant.local_addr().expect("bound");
    let before = errors(&config);
    assert!(before.len() == 1 && before[0].contains("listen 127.0.0.1:"), "{before:?}");
    let _running = std::os::unix::net::UnixListener::bind(&config.control.socket).expect("bound");
    assert_eq!(errors(&config), [""; 0]);
}

#[test]
fn an_address_of_another_host_cannot_be_bound() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = below(dir.path(), EXCHANGE);
    exchange(&mut config).peers[0].links[0].bind = Some("203.0.113.7".parse().expect("valid"));
    let errors = errors(&config);
    assert!(errors.len() == 1 && errors[0].contains("cannot bind to 203.0.113.7"), "{errors:?}");
}

#[test]
fn a_listener_for_everybody_is_a_warning() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let warns = |address: &str, allow: &str| {
        let mut config = below(dir.path(), TRADER);
        let listen = &mut trader(&mut config).listen[0];
        listen.address = address.parse().expect("valid");
        listen.allow = vec![Cidr::parse(allow).expect("valid")];
        check_environment(&config).iter().any(|f| f.severity == Severity::Warning && f.what.contains("everybody"))
    };
    assert!(warns("0.0.0.0:0", "0.0.0.0/0"));
    assert!(!warns("0.0.0.0:0", "10.1.0.0/16"));
    assert!(!warns("127.0.0.1:0", "0.0.0.0/0"));
}

#[test]
fn what_is_gone_is_removed_only_where_it_can_be_known_to_be_gone() {
    let mirror = |text: &str| {
        let config =
            parse(&format!("blocks = true\n{}", TRADER.replace("[[listen]]", text)), "x").map_err(|e| e.to_string());
        config.map(|config| match config.role {
            RoleConfig::Trader(trader) => trader.store.expect("it replicates").delete,
            RoleConfig::Exchange(_) => panic!("a trader's"),
        })
    };
    assert_eq!(mirror("[[listen]]"), Ok(Delete::Keep));
    assert_eq!(mirror("delete = \"mirror\"\n[[listen]]"), Ok(Delete::Mirror));
    let segments = "segments = { pattern = \"a\", records = 1, record_bytes = 1 }\ndelete = \"mirror\"\n[[listen]]";
    assert!(mirror(segments).expect_err("in vain").contains("remove `store.segments`"));
    let unlisted = parse(&format!("blocks = false\n{TRADER}"), "x").expect_err("nothing would be fetched").to_string();
    assert!(unlisted.contains("nothing is fetched: nobody tells what there is"), "{unlisted}");
    let without_blocks = format!("blocks = false\n{}", TRADER.replace("[[listen]]", "delete = \"mirror\"\n[[listen]]"));
    assert!(parse(&without_blocks, "x").expect_err("in vain").to_string().contains("`store.delete` is \"mirror\""));
}

/// Pieces of configs, so that arbitrary texts come near to valid ones.
fn nearly_a_config() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => proptest::sample::select(TRADER.lines().chain(EXCHANGE.lines()).chain(SESSIONS.lines()).map(str::to_owned).collect::<Vec<_>>()),
        1 => proptest::sample::select(["engine", "workers", "store", "segments", "listen", "peer", "module", "control", "spool", "x"].to_vec())
            .prop_flat_map(|key| "(\\[\\]|\\{\\}|\\[\\{\\}\\]|-?[0-9]{1,22}|\"[^\"]{0,9}\"|1.5|true|1979-05-27)".prop_map(move |v| format!("{key} = {v}"))),
        1 => ".{0,30}",
    ];
    proptest::collection::vec(piece, 0..20).prop_map(|lines| lines.join("\n"))
}

/// The trader, with its page at `http`.
fn with_http(http: &str) -> String {
    TRADER.replace("[store]", &format!("[control]\nhttp = \"{http}\"\n[store]"))
}

#[test]
fn the_page_is_for_this_host_alone() {
    let check = |http: &str, expected: HttpAddress| {
        assert_eq!(parse(&with_http(http), "x").expect("valid").control.http, Some(expected));
    };
    check("127.0.0.1:7190", HttpAddress::Loopback("127.0.0.1:7190".parse().expect("an address")));
    check("[::1]:0", HttpAddress::Loopback("[::1]:0".parse().expect("an address")));
    check("/run/x/http.sock", HttpAddress::Socket("/run/x/http.sock".into()));
    let base = with_http("127.0.0.1:7190");
    let refused = |http: &str, wanted: &[&str]| refuses(&base, http, wanted);
    refused("0.0.0.0:7190", &["`control.http`", "0.0.0.0 is not a loopback address", "ssh -L 7190:127.0.0.1:7190"]);
    refused("10.1.1.5:80", &["10.1.1.5 is not a loopback address", "write \"127.0.0.1:80\""]);
    refused("[::]:7190", &[":: is not a loopback address"]);
    refused("localhost:7190", &["is not an address and a port", "or the path of a unix socket"]);
    refused("/run/supersync/trader1/control.sock", &["`control.http` and `control.socket` are the same"]);
    refused("/srv/remote/http.sock", &["`control.http`", "inside `store.remote`"]);
}

fn refuses(base: &str, http: &str, wanted: &[&str]) {
    let error = parse(&base.replace("127.0.0.1:7190", http), "x").expect_err("refused").to_string();
    wanted.iter().for_each(|text| assert!(error.contains(text), "no {text:?} in {error}"));
}

#[test]
fn a_port_of_the_page_that_is_taken_is_found_before_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let config = parse(&with_http(&address), "x").expect("valid");
    let findings = supersync::config::check_environment(&config);
    let told = |text: &str| findings.iter().any(|finding| finding.to_string().contains(text));
    assert!(told(&format!("error: control.http {address}: ")) && told("ss -ltnp"), "{findings:?}");
}

proptest! {
    #[test]
    fn a_config_written_as_toml_is_read_as_the_same(config in any_config()) {
        let text = config.to_toml();
        let again = parse(&text, "effective").unwrap_or_else(|error| panic!("{error}\n--- of\n{text}"));
        prop_assert_eq!(&again, &config);
        prop_assert_eq!(diff(&again, &config), vec![]);
    }

    #[test]
    fn two_configs_differ_if_and_only_if_there_is_a_change(old in any_config(), new in any_config()) {
        prop_assert_eq!(diff(&old, &new).is_empty(), old == new);
    }

    #[test]
    fn a_second_reload_of_the_same_file_applies_nothing(old in any_config(), new in any_config()) {
        let running = reloaded(&old, &new);
        prop_assert_eq!(diff(&running, &reloaded(&running, &new)), vec![]);
        prop_assert_eq!(diff(&old, &reloaded(&old, &old)), vec![]);
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        if let Err(error) = parse(&text, "x.toml") {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn no_text_that_is_nearly_a_config_panics(text in nearly_a_config()) {
        match parse(&text, "x.toml") {
            Ok(config) => prop_assert_eq!(parse(&config.to_toml(), "x.toml").ok(), Some(config)),
            Err(error) => prop_assert!(!error.problems().is_empty() && !error.to_string().is_empty()),
        }
    }
}
