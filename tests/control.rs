//! The control socket as an operator meets it: a served site, the real client and the real `supersyncctl`.

#[path = "control/site.rs"]
mod site;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use hyper::Method;
use supersync::control::{
    Client, ClientError, ConfigState, ControlError, ControlSocket, HeldBy, Links, ObjectFilter, Objects, PeerState,
    ReloadReport, Role, SpoolStatus, State, Status, Totals,
};
use supersync::ctl::{self, Colour};

use site::{Served, Told, code, ctl, half_way, objects, runtime, stderr, stdout, synced};

// -- questions and answers -------------------------------------------------------------------------------

#[test]
fn status_and_links_arrive_as_the_site_told_them() {
    let served = Served::start(Told::new(half_way()));
    runtime().block_on(async {
        let status = served.client().status().await.expect("an answer");
        assert_eq!(status.body, half_way());
        assert!(!status.json.contains('\n'), "one line");
        let links = served.client().links().await.expect("an answer").body;
        assert_eq!(links.schema, "supersync.links/1");
        assert_eq!(links.body, Links { node: "trader1".to_owned(), peers: half_way().peers, clients: Vec::new() });
        let why = served.client().why_slow().await.expect("an answer").body;
        assert_eq!(why.schema, "supersync.why-slow/1");
        assert_eq!(why.body, half_way().into());
    });
}

#[test]
fn objects_are_filtered_and_bounded() {
    let mut site = Told::new(half_way());
    site.objects = objects();
    let served = Served::start(site);
    runtime().block_on(async {
        let check = async |filter, limit, expected: &str, truncated| {
            let answer = served.client().objects(filter, limit).await.expect("an answer").body;
            let names: String = answer.body.objects.iter().map(|object| &*object.name).collect();
            assert_eq!((answer.schema.as_str(), names.as_str()), ("supersync.objects/1", expected));
            assert_eq!(answer.body.truncated, truncated);
        };
        check(ObjectFilter::All, 5, "abcde", false).await;
        check(ObjectFilter::All, 4, "abcd", true).await;
        check(ObjectFilter::Missing, 100, "abde", false).await;
        check(ObjectFilter::Failed, 100, "d", false).await;
        let error = served.client().objects(ObjectFilter::All, 1 << 30).await.expect_err("too many");
        assert!(matches!(error, ClientError::Refused { code: 400, .. }), "{error}");
    });
}

#[test]
fn wait_answers_once_the_site_is_synced() {
    let site = Told::new(half_way());
    *site.synced_after.lock().expect("no panic while held") = Some(3);
    let served = Served::start(site);
    runtime().block_on(async {
        let early = served.client().wait_synced(Duration::ZERO).await.expect("an answer").body;
        assert_eq!(early.state, State::Syncing, "no time to wait, so it is told as it is");
        let late = served.client().wait_synced(Duration::from_secs(60)).await.expect("an answer").body;
        assert_eq!(late.state, State::Synced);
    });
}

#[test]
fn shutdown_answers_those_who_wait_and_takes_the_socket_away() {
    let site = Told::new(half_way());
    let (asked, hear) = mpsc::channel();
    *site.asked.lock().expect("no panic while held") = Some(asked);
    let mut served = Served::start(site);
    let client = served.client();
    let waiter = std::thread::spawn(move || runtime().block_on(client.wait_synced(Duration::from_secs(60))));
    hear.recv().expect("the waiter asks");
    served.stop();
    let answer = waiter.join().expect("no panic").expect("an answer in spite of the shutdown");
    assert_eq!(answer.body.state, State::Syncing);
    assert!(!served.socket().exists());
}

#[test]
fn reload_tells_what_was_done_or_what_is_wrong() {
    let mut site = Told::new(half_way());
    let report = ReloadReport {
        applied: vec!["peer exchange2: 4 links instead of 3".to_owned()],
        needs_restart: vec!["packet_bytes".to_owned()],
    };
    site.reload = Ok(report.clone());
    let served = Served::start(site);
    let answer = runtime().block_on(served.client().reload()).expect("an answer").body;
    assert_eq!((answer.schema.as_str(), answer.body), ("supersync.reload/1", report));
    let output = served.ctl(&["reload"]);
    assert_eq!(stdout(&output), "applied: peer exchange2: 4 links instead of 3\nneeds a restart: packet_bytes\n");
    assert_eq!(code(&output), 0);

    let mut site = Told::new(half_way());
    site.reload = Err("trader1.toml: line 3\n  lisen = 1\n  ^ unknown key".to_owned());
    let served = Served::start(site);
    let output = served.ctl(&["reload"]);
    let expected = "supersyncctl: trader1.toml: line 3\n  lisen = 1\n  ^ unknown key\n\
                    nothing was changed; correct the file and reload again\n";
    assert_eq!((code(&output), stdout(&output), stderr(&output)), (78, "", expected));
}

#[test]
fn what_is_not_an_endpoint_is_refused_with_what_is() {
    let served = Served::start(Told::new(half_way()));
    runtime().block_on(async {
        let check = async |method: Method, target: &str, expected_code, expected_error: &str| {
            let answer = served.client().ask::<serde_json::Value>(method, target, Duration::from_secs(10)).await;
            match answer.expect_err("refused") {
                ClientError::Refused { code, error, hint: Some(_) } => {
                    assert_eq!(code, expected_code, "{target}");
                    assert!(error.contains(expected_error), "{error}");
                }
                other => panic!("{target}: {other}"),
            }
        };
        check(Method::GET, "/v1/nonsense", 404, "no such endpoint: GET /v1/nonsense").await;
        check(Method::GET, "/", 404, "no such endpoint: GET /").await;
        check(Method::GET, "/v1/reload", 405, "GET does not go with /v1/reload").await;
        check(Method::POST, "/v1/status", 405, "POST does not go with /v1/status").await;
        check(Method::GET, "/v1/objects?filter=lost", 400, "lost").await;
        check(Method::GET, "/v1/objects?limit=-1", 400, "limit").await;
        check(Method::GET, "/v1/objects?limit=18446744073709551615", 400, "more than").await;
        check(Method::GET, "/v1/wait", 400, "synced").await;
        check(Method::GET, "/v1/wait?synced=false", 400, "nothing else to wait for").await;
        check(Method::GET, "/v1/wait?synced=true&timeout=-1", 400, "timeout").await;
        check(Method::GET, "/v1/wait?synced=true&timeout=NaN", 400, "timeout").await;
        let live = served.client().ask::<serde_json::Value>(Method::GET, "/v1/livez", Duration::from_secs(10)).await;
        assert_eq!(live.expect("an answer").json, r#"{"live":true}"#);
    });
}

#[test]
fn bytes_that_are_not_http_end_their_connection_alone() {
    let served = Served::start(Told::new(half_way()));
    let mut stream = UnixStream::connect(served.socket()).expect("a connection");
    stream.write_all(b"\x16\x03\x01 not http\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the other end closes");
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", answer.escape_ascii());
    runtime().block_on(served.client().status()).expect("others are served");
}

#[test]
fn connections_beyond_the_bound_wait_until_one_leaves() {
    let served = Served::start(Told::new(half_way()));
    let begin = |said: &[u8]| {
        let mut stream = UnixStream::connect(served.socket()).expect("a connection");
        stream.write_all(said).expect("sent");
        stream
    };
    let full: Vec<_> = (0..supersync::limits::CONTROL_CONNECTIONS_MAX).map(|_| begin(b"GET /v1/livez")).collect();
    let mut late = begin(b"GET /v1/livez HTTP/1.1\r\nhost: localhost\r\n\r\n");
    // An answer would come well within this; that none comes can only be seen by waiting a little.
    late.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    let mut answer = [0; 12];
    let error = loop {
        match late.read(&mut answer).expect_err("nobody serves it yet").kind() {
            std::io::ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    assert_eq!(error, std::io::ErrorKind::WouldBlock);
    drop(full);
    late.set_read_timeout(None).expect("set");
    late.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// 64 connections on which nothing was said kept everybody else out for ten seconds at a time.
#[test]
fn who_has_sent_nothing_gives_way_the_longest_there_first() {
    let served = Served::start(Told::new(half_way()));
    let connect = || UnixStream::connect(served.socket()).expect("a connection");
    let mut asks = connect();
    asks.write_all(b"GET /v1/livez").expect("sent");
    let mut silent: Vec<_> = (1..supersync::limits::CONTROL_CONNECTIONS_MAX).map(|_| connect()).collect();
    let mut late = connect();
    late.write_all(b"GET /v1/livez").expect("sent");
    let mut answer = [0; 12];
    for stream in [&mut late, &mut asks] {
        stream.write_all(b" HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    assert_eq!(silent[0].read(&mut answer).expect("it ended well"), 0, "the first had to leave");
    silent[1].write_all(b"GET /v1/livez HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    silent[1].read_exact(&mut answer).expect("it may stay");
}

// -- the socket file -------------------------------------------------------------------------------------

#[test]
fn the_socket_is_for_its_user_and_group() {
    let served = Served::start(Told::new(half_way()));
    let mode = served.socket().metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
}

#[test]
fn a_dead_daemons_socket_is_replaced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("deep/er/control.sock");
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists(), "closing a socket leaves its file, as dying does");
    // What another test is about to start has a copy of all descriptors until it is there, and with it the dead one's
    // socket and lock.
    let by = Instant::now() + Duration::from_secs(10);
    let bind = || loop {
        match ControlSocket::bind(&path) {
            Ok(socket) => break socket,
            Err(error) => assert!(Instant::now() < by, "{error}"),
        }
        std::thread::yield_now();
    };
    let socket = bind();
    UnixStream::connect(&path).expect("the new one listens");
    drop(socket);
    assert!(!path.exists());
    drop(bind());
}

#[test]
fn a_living_daemons_socket_is_refused_and_left_alone() {
    let served = Served::start(Told::new(half_way()));
    let error = ControlSocket::bind(&served.socket()).expect_err("it is in use");
    assert!(matches!(&error, ControlError::AlreadyServed { socket } if *socket == served.socket()), "{error}");
    runtime().block_on(served.client().status()).expect("the living one still answers");

    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("control.sock");
    let _other_program = UnixListener::bind(&path).expect("a socket");
    let error = ControlSocket::bind(&path).expect_err("it is in use");
    assert!(matches!(error, ControlError::AlreadyServed { .. }), "{error}");
    UnixStream::connect(&path).expect("still there");
}

#[test]
fn a_file_in_the_sockets_place_is_not_removed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("control.sock");
    std::fs::write(&path, "precious").expect("a file");
    let error = ControlSocket::bind(&path).expect_err("not a socket");
    assert!(matches!(error, ControlError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
}

#[test]
fn a_socket_is_served_until_told_to_stop() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("control.sock");
    let client = Client::new(&path);
    runtime().block_on(async {
        // The shutdown future is the client's whole visit.
        let visit = async { assert_eq!(client.status().await.expect("an answer").body, half_way()) };
        let socket = ControlSocket::bind(&path).expect("free");
        socket.serve(Arc::new(Told::new(half_way())), visit).await.expect("it ends well");
    });
    assert!(!path.exists());
}

// -- what a person sees ----------------------------------------------------------------------------------

#[test]
fn status_looks_as_documented() {
    let expected = "\
● trader1  trader  SYNCING  up 12m  engine io_uring  config ok
  want 500 objects 12.0 GB   have 212 (5.1 GB)   8.9 MB/s in   8.9 MB/s out   ETA 12m 55s   98.7 % of link capacity
  PEER       LINKS  STATE        IN         OUT        RETRANS  NOTE
  exchange1  3/3    streaming    4.4 MB/s   4.4 MB/s   0
  exchange2  2/3    degraded     2.9 MB/s   2.9 MB/s   0        link 3: connection refused, next try in 8 s
";
    assert_eq!(ctl::status(&half_way(), Colour::Plain), expected);
    let coloured = ctl::status(&half_way(), Colour::Ansi);
    assert!(coloured.starts_with("\x1b[33m●\x1b[0m trader1  trader  \x1b[33mSYNCING\x1b[0m  up"), "{coloured:?}");
}

#[test]
fn status_of_an_exchange_with_problems() {
    let mut status = synced();
    (status.node, status.role, status.state) = ("exchange1".to_owned(), Role::Exchange, State::Waiting);
    status.config = ConfigState { ok: false, message: Some("as in problems".to_owned()) };
    status.want = Totals { objects: 1, bytes: 24_000_000 };
    status.have = Totals::default();
    status.failed = 1;
    (status.rate_in, status.rate_out) = (0.0, 0.0);
    status.spool = Some(SpoolStatus { bytes: 24_000_000, max_bytes: 4 << 30, objects: 1 });
    status.peers[0].name = "trader\x1b[31m2".to_owned();
    (status.peers[0].links_total, status.peers[0].state) = (None, PeerState::Idle);
    let of_config = "config: exchange1.toml:3:1: unknown key `lisen`\n 3 | lisen = 1\n\x1b[2J".to_owned();
    status.problems = vec![of_config, "spool: disk full; free some space in /var/spool/supersync".to_owned()];
    let expected = "\
● exchange1  exchange  WAITING  up 12m  engine io_uring  config not in force
  want 1 object 24.0 MB   have 0 (0 B)   1 failed   0 B/s in   0 B/s out
  spool 24.0 MB of 4.3 GB   1 object
  PEER               LINKS  STATE    IN         OUT        RETRANS  NOTE
  trader\\u{1b}[31m2  3      idle     4.4 MB/s   4.4 MB/s   0
  ! config: exchange1.toml:3:1: unknown key `lisen`
     3 | lisen = 1
    \\u{1b}[2J
  ! spool: disk full; free some space in /var/spool/supersync
";
    assert_eq!(ctl::status(&status, Colour::Plain), expected);
}

#[test]
fn links_and_objects_are_tables() {
    let mut status = half_way();
    status.peers.remove(0);
    status.peers[0].links.remove(0);
    let links = Links { node: status.node, peers: status.peers, clients: Vec::new() };
    let expected = "\
PEER       LINK  ADDRESS         STATE  FOR  IN        OUT       SHARE   STOLEN   TWICE    BAD  BYTES IN  BYTES OUT  RETRANS  RECONN  CC     OBJECT    NOTE
exchange2  2     10.1.1.9:7402   up     12m  1.5 MB/s  1.5 MB/s  16.4 %  24.0 MB  65.5 kB  0    1.1 GB    1.2 GB     0        0       cubic  stock1_7
exchange2  3     10.1.1.13:7401  down   8s   0 B/s     0 B/s     -       24.0 MB  65.5 kB  2    1.1 GB    1.2 GB     0        0       -      -         connection refused, next try in 8 s
";
    assert_eq!(ctl::links(&links), expected);
    assert_eq!(ctl::links(&Links { node: "n".to_owned(), peers: Vec::new(), clients: Vec::new() }), "n has no links\n");

    let expected = "\
OBJECT  STATE    SIZE     HAVE  NOTE
d       failed   24.0 MB  0 B   changed while it was sent
e       waiting  ?        0 B
... there are more than these 2; --limit shows them
";
    let mut some = Objects { objects: objects().split_off(3), truncated: true };
    assert_eq!(ctl::objects(&some), expected);
    let expected = "\
OBJECT  FROM     STATE   SIZE     HAVE  NOTE
d       trader1  failed  24.0 MB  0 B   changed while it was sent
d       trader2  failed  24.0 MB  0 B   changed while it was sent
";
    some = Objects { objects: vec![some.objects[0].clone(), some.objects[0].clone()], truncated: false };
    for (object, from) in some.objects.iter_mut().zip(["trader1", "trader2"]) {
        object.from = Some(from.to_owned());
    }
    assert_eq!(ctl::objects(&some), expected);
    assert_eq!(ctl::objects(&Objects { objects: Vec::new(), truncated: false }), "no objects\n");
}

#[test]
fn time_left_is_unknown_where_nothing_moves() {
    let mut status = half_way();
    (status.capacity_in, status.eta_seconds) = (None, None);
    let text = ctl::status(&status, Colour::Plain);
    assert!(text.contains("8.9 MB/s out   ETA unknown\n"), "{text}");
}

#[test]
fn why_slow_has_a_line_for_each_link() {
    let mut status = half_way();
    status.peers[0].links.truncate(1);
    status.peers[1].links.remove(0);
    let waiting = &mut status.peers[1].links[0];
    (waiting.held_by, waiting.rate_in) = (HeldBy::Relay, 0.0);
    waiting.why = "3 orders out, and the exchange has had nothing of them for 1.2 s".to_owned();
    status.peers[1].links[1].id = 0;
    let expected = "\
trader1 is SYNCING
PEER       LINK  ADDRESS         IN        OUT       HELD BY  WHY
exchange1  1     10.1.1.5:7401   1.5 MB/s  1.5 MB/s  network  brings 1.5 MB/s, with 1.3 MB more on order
exchange2  2     10.1.1.9:7402   0 B/s     1.5 MB/s  relay    3 orders out, and the exchange has had nothing of them for 1.2 s
exchange2  3     10.1.1.13:7401  0 B/s     0 B/s     down     connection refused, next try in 8 s
";
    assert_eq!(ctl::why_slow(&status.clone().into()), expected);
    let served = Served::start(Told::new(status.clone()));
    let output = served.ctl(&["why-slow"]);
    assert_eq!((code(&output), stdout(&output)), (0, expected));
    status.peers.clear();
    assert_eq!(ctl::why_slow(&status.into()), "trader1 is SYNCING\nit has no links\n");
}

// -- JSON ------------------------------------------------------------------------------------------------

#[test]
fn status_survives_json_and_ignores_what_a_newer_daemon_adds() {
    let mut status = half_way();
    status.spool = Some(SpoolStatus { bytes: 1, max_bytes: u64::MAX, objects: 3 });
    let mut json = serde_json::to_value(&status).expect("serializable");
    assert_eq!(json["schema"], "supersync.status/1");
    assert_eq!(json["state"], "SYNCING");
    assert_eq!(json["role"], "trader");
    assert_eq!(json["peers"][1]["links"][2]["state"], "down");
    assert_eq!(json["spool"]["max_bytes"], u64::MAX);
    json["link_capacity"] = 1.into();
    json["peers"][0]["links"][0]["mood"] = "good".into();
    assert_eq!(serde_json::from_value::<Status>(json).expect("readable"), status);
}

#[test]
fn a_client_reads_what_an_older_daemon_tells() {
    let mut json = serde_json::to_value(half_way()).expect("serializable");
    let newer = ["share", "capacity_in", "orders", "on_order", "verified", "stolen", "duplicated", "bad"];
    let newer = newer.into_iter().chain(["aside_seconds", "rtt_ms", "unsent", "held_by", "why", "clients"]);
    let remove = |value: &mut serde_json::Value, key: &str| drop(value.as_object_mut().map(|map| map.remove(key)));
    for key in newer {
        remove(&mut json, key);
        remove(&mut json["peers"][0], key);
        remove(&mut json["peers"][0]["links"][0], key);
    }
    let status: Status = serde_json::from_value(json).expect("readable");
    assert_eq!(status.peers[0].links[0].held_by, HeldBy::Nothing);
    assert_eq!((status.peers[0].links[0].bad, status.peers[0].links[1].verified), (0, 1_000_000_000));
}

#[test]
fn ctl_passes_the_daemons_json_on_as_one_line() {
    let served = Served::start(Told::new(half_way()));
    for args in [
        &["status", "--json"][..],
        &["--json", "links"],
        &["why-slow", "--json"],
        &["objects", "--json"],
        &["reload", "--json"],
    ] {
        let output = served.ctl(args);
        let text = stdout(&output);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let schema = json["schema"].as_str().expect("a schema");
        assert!(schema.starts_with("supersync.") && schema.ends_with("/1"), "{schema}");
    }
    let output = served.ctl(&["status", "--json"]);
    assert_eq!(serde_json::from_slice::<Status>(&output.stdout).expect("a status"), half_way());
}

#[test]
fn watch_writes_one_picture_after_another_until_its_reader_leaves() {
    let served = Served::start(Told::new(half_way()));
    let watch = |args: &[&str], expected: [String; 2]| {
        let mut watcher = ctl(&served.socket(), args).stdout(Stdio::piped()).spawn().expect("supersyncctl starts");
        let mut lines = BufReader::new(watcher.stdout.take().expect("piped"));
        for expected in expected {
            let mut picture = String::new();
            for _ in 0..expected.matches('\n').count() {
                lines.read_line(&mut picture).expect("a line");
            }
            assert_eq!(picture, expected);
        }
        drop(lines);
        assert_eq!(watcher.wait().expect("it ends").code(), Some(0));
    };
    let json = format!("{}\n", serde_json::to_string(&half_way()).expect("serializable"));
    watch(&["status", "--watch", "--json"], [json.clone(), json]);
    let text = ctl::status(&half_way(), Colour::Plain);
    watch(&["status", "--watch"], [text.clone(), format!("\n{text}")]);
}

// -- exit status -----------------------------------------------------------------------------------------

#[test]
fn status_exits_with_how_it_stands() {
    let check = |status: Status, expected| {
        let served = Served::start(Told::new(status.clone()));
        let output = served.ctl(&["status"]);
        assert_eq!(code(&output), expected, "{}", stderr(&output));
        assert_eq!(stdout(&output), ctl::status(&status, Colour::Plain), "no terminal, no colours");
    };
    check(synced(), 0);
    check(half_way(), 3);
    let mut one_link_short = synced();
    one_link_short.peers[0].links_up = 2;
    check(one_link_short, 3);
    let mut dialled_by_its_peers = synced();
    (dialled_by_its_peers.peers[0].links_up, dialled_by_its_peers.peers[0].links_total) = (0, None);
    check(dialled_by_its_peers, 0);
    let mut draining = synced();
    draining.state = State::Draining;
    check(draining, 3);
}

#[test]
fn wait_exits_with_whether_it_was_worth_it() {
    let served = Served::start(Told::new(half_way()));
    let output = served.ctl(&["wait", "--synced", "--timeout", "0"]);
    let expected = "supersyncctl: trader1 is not synced after 0s: have 212 of 500 objects (5.1 GB of 12.0 GB). \
                    See what holds it up: supersyncctl why-slow\n";
    assert_eq!((code(&output), stderr(&output)), (5, expected));

    let site = Told::new(half_way());
    *site.synced_after.lock().expect("no panic while held") = Some(2);
    let served = Served::start(site);
    let output = served.ctl(&["wait", "--synced", "--timeout", "10m"]);
    let expected = "trader1 is synced: have 212 of 500 objects (5.1 GB of 12.0 GB)\n";
    assert_eq!((code(&output), stdout(&output)), (0, expected));
}

#[test]
fn a_daemon_that_is_not_there_is_named_with_what_to_type() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("control.sock");
    let check = |cause: &str| {
        for args in
            [&["status"][..], &["status", "--watch"], &["links"], &["why-slow"], &["wait", "--synced"], &["reload"]]
        {
            let output = ctl(&path, args).output().expect("supersyncctl starts");
            let expected = format!(
                "supersyncctl: cannot reach supersyncd at {}: {cause}. Is it running? \
                 Try: systemctl status 'supersyncd@*'\n",
                path.display()
            );
            assert_eq!((code(&output), stdout(&output), stderr(&output)), (4, "", &*expected), "{args:?}");
        }
    };
    check("no such file");
    drop(UnixListener::bind(&path).expect("a socket"));
    check("nobody listens there any more");

    let name = "no-daemon-has-this-name";
    let output = Command::new(env!("CARGO_BIN_EXE_supersyncctl")).args(["-i", name, "status"]).output();
    let output = output.expect("supersyncctl starts");
    let expected = format!(
        "supersyncctl: cannot reach supersyncd at /run/supersync/{name}/control.sock: no such file. \
         Is it running? Try: systemctl status supersyncd@{name}\n"
    );
    assert_eq!((code(&output), stderr(&output)), (4, &*expected));
}

#[test]
fn a_daemon_that_hangs_up_or_talks_nonsense_is_told_apart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let check = |name: &str, answer: &'static [u8], expected_code, expected: &str| {
        let path = dir.path().join(name);
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 1024];
            assert_ne!(stream.read(&mut request).expect("a request"), 0);
            stream.write_all(answer).expect("sent");
        });
        let output = ctl(&path, &["status"]).output().expect("supersyncctl starts");
        server.join().expect("no panic");
        assert_eq!(code(&output), expected_code, "{}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    };
    check("silent", b"", 4, "it hung up before it had answered");
    check("half", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", 4, "it hung up before it had answered");
    check("other", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", 1, "does not understand: missing field");
    check("error", b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", 1, "HTTP status 500");
}

#[test]
fn a_wrong_command_line_is_usage() {
    let check = |args: &[&str], expected| {
        let output = Command::new(env!("CARGO_BIN_EXE_supersyncctl")).args(args).output().expect("it starts");
        assert_eq!(code(&output), expected, "{args:?}: {}", stderr(&output));
    };
    check(&[], 2);
    check(&["dance"], 2);
    check(&["wait"], 2);
    check(&["objects", "--missing", "--failed"], 2);
    check(&["objects", "--limit", "0"], 2);
    check(&["-i", "a", "--socket", "/b", "status"], 2);
    check(&["-i", "../etc", "status"], 2);
    check(&["wait", "--synced", "--timeout", "soon"], 2);
    check(&["--help"], 0);
    check(&["--version"], 0);
}

#[test]
fn help_names_every_command_and_the_exit_statuses() {
    let output = Command::new(env!("CARGO_BIN_EXE_supersyncctl")).arg("--help").output().expect("it starts");
    let text = stdout(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    let commands = ["status", "links", "why-slow", "objects", "wait", "reload", "pause", "resume", "drain", "schema"];
    for wanted in commands.into_iter().chain(["--json", "--socket", "--instance"]) {
        assert!(text.contains(wanted), "there is no {wanted:?} in {text}");
    }
    for wanted in
        ["0 ok", "1 failed", "2 usage", "3 incomplete or degraded", "4 daemon or host unreachable", "5 wait timed out"]
    {
        assert!(text.contains(wanted), "there is no {wanted:?} in {text}");
    }
    assert!(text.contains("77 permission"), "{text}");
}
