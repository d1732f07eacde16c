//! What `control.http` serves, as a browser, a scraper and a load balancer meet it: a served site, and bytes on a
//! socket.

#[path = "control/site.rs"]
#[allow(dead_code)]
mod site;

#[path = "http/watched.rs"]
mod watched;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use openmetrics_parser::{openmetrics, prometheus};
use supersync::control::{Figures, HttpDoor, Role, SpoolStatus, Status};
use supersync::limits;

use site::{Told, figures, half_way};
use watched::{Answer, Watched, ask, get};

/// What every node measures, ...
const OF_ALL: [&str; 11] = [
    "supersync_build",
    "supersync_node",
    "supersync_sent_bytes",
    "supersync_received_bytes",
    "supersync_padding_bytes",
    "supersync_blocks_bad",
    "supersync_link_reconnects",
    "supersync_link_up",
    "supersync_links_up",
    "supersync_objects",
    "supersync_config_last_reload_successful",
];
/// ... what a trader does beside it, ...
const OF_TRADER: [&str; 4] = [
    "supersync_wanted_bytes",
    "supersync_done_bytes",
    "supersync_replication_lag_seconds",
    "supersync_last_commit_timestamp_seconds",
];
/// ... and what an exchange does.
const OF_EXCHANGE: [&str; 3] = ["supersync_spool_bytes", "supersync_spool_max_bytes", "supersync_spool_used_ratio"];

fn exchange_figures() -> Figures {
    let spool = SpoolStatus { bytes: 1 << 30, max_bytes: 4 << 30, objects: 7 };
    let spool_used = vec![("trader1".into(), 0.5), ("trader2".into(), 0.0)];
    Figures { role: Role::Exchange, node: "exchange1".into(), store: None, spool: Some(spool), spool_used, ..figures() }
}

// -- health
// ------------------------------------------------------------------------------------------------------------

#[test]
fn health_is_ok_or_says_what_is_not() {
    let site = Arc::new(Told::new(half_way()));
    let served = Watched::start(Arc::clone(&site));
    let check = |path: &str, code: u16, body: &str| {
        let answer = get(served.address, path);
        assert_eq!((answer.code, &*answer.body), (code, body), "{path}");
    };
    check("/livez", 200, "ok\n");
    check("/readyz", 200, "ok\n");
    *site.unready.lock().expect("no panic while held") = Some("local/ has not been looked through yet".into());
    check("/livez", 200, "ok\n");
    check("/readyz", 503, "local/ has not been looked through yet\n");
    *site.stuck.lock().expect("no panic while held") = Some("a worker has made no progress for 12 s".into());
    check("/livez", 503, "a worker has made no progress for 12 s\n");
    check("/readyz", 503, "a worker has made no progress for 12 s\n");
}

// -- who may ask, and for what
// -----------------------------------------------------------------------------------------

#[test]
fn only_who_asks_for_this_host_is_answered_and_nothing_can_be_changed() {
    let served = Watched::start(Arc::new(Told::new(half_way())));
    let code = |head: &str| ask(served.address, head).code;
    for path in ["/", "/metrics", "/livez", "/readyz"] {
        assert_eq!(code(&format!("GET {path} HTTP/1.1\r\nHost: localhost:9999")), 200, "{path}, through a tunnel");
        for host in ["evil.example", "10.1.1.5:7190", "localhost.evil.example", ""] {
            assert_eq!(code(&format!("GET {path} HTTP/1.1\r\nHost: {host}")), 403, "{path} of {host:?}");
        }
        assert_eq!(code(&format!("GET {path} HTTP/1.0")), 403, "{path} of nobody");
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            assert_eq!(code(&format!("{method} {path} HTTP/1.1\r\nHost: localhost")), 405, "{method} {path}");
        }
    }
    let elsewhere = get(served.address, "/v1/reload");
    assert_eq!(elsewhere.code, 404);
    assert!(elsewhere.body.contains("/metrics"), "{}", elsewhere.body);
}

#[test]
fn the_page_may_load_nothing_and_nobody_else_may_read_it() {
    let served = Watched::start(Arc::new(Told::new(half_way())));
    let page = get(served.address, "/");
    let policy = page.header("content-security-policy");
    let nonce = policy.split("script-src 'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
    assert!(nonce.len() >= 32 && policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(page.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2, "script and style");
    assert!(!page.body.contains("{nonce}"));
    assert_ne!(get(served.address, "/").header("content-security-policy"), policy, "a number used once");
    let foreign = page.body.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "//cdn", "src=", "@import", "url(", "innerHTML", "eval("] {
        assert!(!foreign.contains(outside), "the page has {outside}");
    }
    for path in ["/", "/metrics", "/livez", "/nowhere"] {
        let answer = get(served.address, path);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("access-control")), "{path}");
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let error = HttpDoor::loopback(address).expect_err("taken").to_string();
    assert!(error.contains(&address.to_string()) && error.contains("control.http"), "{error}");
    assert!(error.contains("ss -ltnp") && error.contains("another address"), "{error}");
}

#[test]
fn a_unix_socket_answers_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("http.sock");
    let door = HttpDoor::socket(&path).expect("bound");
    let served = Watched::serve(door, Arc::new(Told::new(half_way())));
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
    drop(served);
    assert!(!path.exists(), "the socket goes away with its daemon");
}

// -- events
// ------------------------------------------------------------------------------------------------------------

/// 64 who asked for events and never read left /metrics unanswered.
#[test]
fn those_who_read_events_leave_room_for_those_who_ask() {
    let served = Watched::start(Arc::new(Told::new(half_way())));
    let follow = || served.connect("GET /events HTTP/1.1\r\nHost: localhost");
    let followed = |stream| BufReader::new(stream).lines().next().and_then(Result::ok).unwrap_or_default();
    let readers: Vec<_> = (0..limits::PAGE_READERS_MAX).map(|_| follow()).collect();
    for reader in &readers {
        assert!(followed(reader).contains("200 OK"));
    }
    assert!(followed(&follow()).contains("503"), "there is no place for one more");
    assert_eq!(get(served.address, "/metrics").code, 200);
}

#[test]
fn events_tell_what_was_then_how_it_is_until_the_daemon_ends() {
    let mut served = Watched::start(Arc::new(Told::new(half_way())));
    let mut lines = BufReader::new(served.connect("GET /events HTTP/1.1\r\nHost: localhost")).lines();
    let mut next = |prefix: &str| -> String {
        lines
            .by_ref()
            .map(|line| line.expect("the stream goes on"))
            .find_map(|line| line.strip_prefix(prefix).map(ToOwned::to_owned))
            .unwrap_or_else(|| panic!("no {prefix:?} before the end"))
    };
    assert_eq!(next("content-type: "), "text/event-stream");
    assert_eq!(next("event: "), "history");
    let history: serde_json::Value = serde_json::from_str(&next("data: ")).expect("JSON");
    assert!(history["links"].is_object(), "{history}");
    for _ in 0..2 {
        let status: Status = serde_json::from_str(&next("data: ")).expect("a status");
        assert_eq!(status, half_way());
    }
    served.stop();
    assert!(lines.map_while(Result::ok).all(|line| !line.starts_with("event:")), "and then it ends");
}

// -- metrics
// -----------------------------------------------------------------------------------------------------------

fn scrape(figures: Figures, accept: &str) -> Answer {
    let mut site = Told::new(half_way());
    site.figures = figures;
    let served = Watched::start(Arc::new(site));
    ask(served.address, &format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}"))
}

/// The value of one sample, by its line.
fn value<'t>(text: &'t str, sample: &str) -> &'t str {
    let found = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {sample} in\n{text}"))
}

#[test]
fn metrics_are_what_openmetrics_wants_by_a_parser_of_others() {
    for (figures, own) in [(figures(), &OF_TRADER[..]), (exchange_figures(), &OF_EXCHANGE[..])] {
        let answer = scrape(figures, "application/openmetrics-text; version=1.0.0");
        assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(answer.body.ends_with("# EOF\n"));
        let parsed =
            openmetrics::parse_openmetrics(&answer.body).unwrap_or_else(|error| panic!("{error}\n{}", answer.body));
        for &name in OF_ALL.iter().chain(own) {
            let family = parsed.families.get(name).unwrap_or_else(|| panic!("no {name} in\n{}", answer.body));
            assert!(!family.help.is_empty(), "{name}");
            let unit = ["bytes", "seconds"].into_iter().find(|unit| name.ends_with(unit)).unwrap_or_default();
            assert_eq!(family.unit, unit, "{name}");
        }
        has_known_labels_only(&answer.body);
    }
}

/// Labels are few, and none of them could hold a path.
fn has_known_labels_only(text: &str) {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let labels = samples.filter_map(|line| line.split_once('{')?.1.split_once('}'));
    let names: BTreeSet<&str> =
        labels.flat_map(|(labels, _)| labels.split(',')).filter_map(|label| Some(label.split_once('=')?.0)).collect();
    assert_eq!(names, BTreeSet::from(["peer", "link", "state", "version", "engine", "node", "role"]));
}

#[test]
fn metrics_say_what_was_measured() {
    let text = scrape(figures(), "*/*").body;
    let check = |sample: &str, expected: &str| assert_eq!(value(&text, sample), expected, "{sample}");
    check("supersync_build_info{version=\"0.1.0\",engine=\"io_uring\"}", "1");
    check("supersync_node_info{node=\"trader1\",role=\"trader\"}", "1");
    check("supersync_sent_bytes_total{peer=\"exchange1\",link=\"1\"}", "5300000000");
    check("supersync_received_bytes_total{peer=\"exchange1\",link=\"2\"}", "5200000000");
    check("supersync_padding_bytes_total{peer=\"exchange1\",link=\"1\"}", "4000");
    check("supersync_blocks_bad_total{peer=\"exchange1\",link=\"1\"}", "1");
    check("supersync_link_reconnects_total{peer=\"exchange1\",link=\"1\"}", "2");
    check("supersync_link_up{peer=\"exchange1\",link=\"1\"}", "1");
    check("supersync_link_up{peer=\"exchange1\",link=\"2\"}", "0");
    check("supersync_objects{state=\"done\"}", "212");
    check("supersync_objects{state=\"arriving\"}", "6");
    check("supersync_objects{state=\"failed\"}", "1");
    check("supersync_objects{state=\"missing\"}", "281");
    check("supersync_replication_lag_seconds", "750");
    check("supersync_last_commit_timestamp_seconds", "1790000000.25");
    check("supersync_config_last_reload_successful", "1");
    assert!(!text.contains("\nsupersync_spool_bytes "), "a trader has none");
    let text = scrape(exchange_figures(), "*/*").body;
    assert_eq!(value(&text, "supersync_spool_bytes"), "1073741824");
    assert!(!text.contains("state=\"missing\"") && !text.contains("\nsupersync_replication_lag_seconds "), "{text}");
}

#[test]
fn promtool_finds_nothing_to_say_of_the_metrics() {
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("skipped: no promtool here (Debian package prometheus)");
        return;
    }
    for figures in [figures(), exchange_figures()] {
        let answer = scrape(figures, "text/plain; version=0.0.4");
        assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
        prometheus::parse_prometheus(&answer.body).unwrap_or_else(|error| panic!("{error}\n{}", answer.body));
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut promtool = promtool.spawn().expect("it is here");
        promtool.stdin.take().expect("piped").write_all(answer.body.as_bytes()).expect("it reads");
        let output = promtool.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim().is_empty(), "{said}\n{}", answer.body);
    }
}

/// Names of metrics in a text, as they stand in a scrape.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let starts = text.match_indices("supersync_").map(|(at, _)| &text[at..]);
    starts.map(|rest| &rest[..rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len())]).collect()
}

#[test]
fn dashboard_and_alerts_ask_for_nothing_that_is_not_there() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let texts = [figures(), exchange_figures()].map(|figures| scrape(figures, "*/*").body);
    let samples = texts.iter().flat_map(|text| text.lines().filter(|line| !line.starts_with('#')));
    let samples: BTreeSet<&str> = samples.flat_map(metrics_in).collect();
    for file in ["grafana/supersync.json", "prometheus/alerts.yml", "prometheus/alerts.test.yml"] {
        let text = fs::read_to_string(deploy.join(file)).expect("it is here");
        let asked = metrics_in(&text);
        assert!(asked.len() > 3, "{file}: {asked:?}");
        assert!(asked.is_subset(&samples), "{file}: {:?}", asked.difference(&samples));
    }
    let dashboard = fs::read(deploy.join("grafana/supersync.json")).expect("it is here");
    let dashboard: serde_json::Value = serde_json::from_slice(&dashboard).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 10));
}

#[test]
fn alerts_fire_for_what_they_are_for() {
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("skipped: no promtool here (Debian package prometheus)");
        return;
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    for (verb, file) in [("check", "alerts.yml"), ("test", "alerts.test.yml")] {
        let output =
            Command::new("promtool").args([verb, "rules", file]).current_dir(&rules).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}
