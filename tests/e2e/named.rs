//! The named protocol of seed 001: real servers, our client, and peers that know the seed's text and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use supersync::exit;
use supersync::node::fetch::{FetchError, FetchJob, FetchSummary, fetch};
use supersync::units::{ObjectName, PacketLen};

use super::proxy::Proxy;
use super::site::{Plan, Site, descriptors, engine, fresh_address, random_bytes};

const N: usize = 1400;
const SLOW: u64 = 1_000_000;
const FAST: u64 = u64::MAX;

type Files = BTreeMap<String, Vec<u8>>;

/// A site whose `t1` serves `files` by name.
fn serving(files: &Files) -> (Site, SocketAddr) {
    let mut site = Site::new(Plan { segments: 0, exchanges: 0, ..Plan::default() });
    let address = fresh_address();
    let (dir, home) = (site.dir().display(), site.path("t1"));
    let (blocks, home) = (site.plan.blocks, home.display());
    let text = format!(
        "role = \"trader\"\nname = \"t1\"\nengine = \"{}\"\nblocks = {blocks}\nstate_dir = \"{home}/state\"\n\
         [control]\nsocket = \"{dir}/t1.sock\"\n[store]\nlocal = \"{home}/local\"\nremote = \"{home}/remote\"\n\
         [[listen]]\naddress = \"{address}\"\nprotocol = \"named\"\nallow = [\"127.0.0.0/8\"]\n",
        engine()
    );
    fs::write(site.config("t1"), text).expect("written");
    for (name, bytes) in files {
        put(&site, name, bytes);
    }
    site.run("t1");
    site.until("it listens", |site| site.status("t1").is_some());
    (site, address)
}

fn put(site: &Site, name: &str, bytes: &[u8]) {
    let path = site.path("t1").join("local").join(name);
    fs::create_dir_all(path.parent().expect("below local/")).expect("made");
    fs::write(path, bytes).expect("written");
}

/// Of the bytes that a packet with such a name holds, `packets` times.
fn fits(name: &str, packets: usize) -> usize {
    packets * (N - 3 - name.len())
}

fn some_files() -> Files {
    let mut files = Files::new();
    for (name, length) in
        [("empty", 0), ("one", 1), ("deep/er/file_ab3f33.bin", 24_000), ("a:b%c\nd", 5000), ("large", 2_000_000)]
    {
        files.insert(name.into(), random_bytes(length));
    }
    for packets in [1, 2, 100] {
        let name = format!("exactly{packets}");
        files.insert(name.clone(), random_bytes(fits(&name, packets)));
        let name = format!("nearly_{packets}");
        files.insert(name.clone(), random_bytes(fits(&name, packets) - 1));
        let name = format!("over___{packets}");
        files.insert(name.clone(), random_bytes(fits(&name, packets) + 1));
    }
    files
}

fn job(address: SocketAddr, destination: &Path, names: &[&str]) -> FetchJob {
    let names = names.iter().map(|text| ObjectName::new(text.as_bytes()).expect("valid")).collect();
    let packet_len = PacketLen::new(N as u32).expect("in bounds");
    let (driver, _) = engine().driver().expect("what is asked for can be had");
    FetchJob { address: address.to_string(), destination: destination.into(), names, packet_len, driver }
}

fn fetched(address: SocketAddr, destination: &Path, names: &[&str]) -> FetchSummary {
    fetch(job(address, destination, names), |_| {}).expect("fetched")
}

/// A fetch of everything on a thread of its own, and the bytes that it has so far.
struct Fetching {
    thread: JoinHandle<Result<FetchSummary, FetchError>>,
    bytes: Arc<AtomicU64>,
}

impl Fetching {
    fn start(address: SocketAddr, destination: &Path) -> Self {
        let job = job(address, destination, &[]);
        let bytes = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || fetch(job, |progress| told.store(progress.bytes.0, Ordering::Relaxed)));
        Self { thread, bytes }
    }

    fn has(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn end(self) -> FetchSummary {
        self.thread.join().expect("no panic").expect("fetched")
    }
}

/// `destination` has these files, whole and marked, and nothing else.
fn check(destination: &Path, files: &Files) {
    let remote = destination.join("remote");
    let mut found = Files::new();
    let mut pending = vec![remote.clone()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).expect("there").map(|entry| entry.expect("there").path()) {
            let name = entry.strip_prefix(&remote).expect("below").to_str().expect("text").to_owned();
            if entry.is_dir() && name != ".supersync" {
                pending.push(entry);
            } else if entry.is_file() && !name.ends_with(".success") {
                let marker = PathBuf::from(format!("{}.success", entry.display()));
                assert!(marker.exists(), "{name} is not marked");
                found.insert(name, fs::read(entry).expect("read"));
            }
        }
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), files.keys().collect::<Vec<_>>());
    assert!(found == *files, "bytes differ");
    let parts = fs::read_dir(remote.join(".supersync/parts")).expect("there").count();
    assert_eq!(parts, 0, "parts are left");
}

// -- a client of the seed alone --------------------------------------------------------------------------------------

/// Sends `R:name:` packets, and reads packets of N bytes.
struct SeedClient(TcpStream);

impl SeedClient {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        Self(stream)
    }

    fn send(&mut self, text: &[u8]) {
        let mut packet = text.to_vec();
        packet.resize(N, 0);
        self.0.write_all(&packet).expect("sent");
    }

    fn request(&mut self, name: &str) {
        self.send(format!("R:{name}:").as_bytes());
    }

    /// The next packet: its letter, its name, and what follows.
    fn receive(&mut self) -> io::Result<(u8, String, Vec<u8>)> {
        let mut packet = vec![0; N];
        self.0.read_exact(&mut packet)?;
        let mut fields = packet.splitn(3, |&byte| byte == b':');
        let mut next = || fields.next().expect("three fields").to_vec();
        let (letter, name, rest) = (next(), next(), next());
        assert_eq!(letter.len(), 1);
        Ok((letter[0], String::from_utf8(name).expect("text"), rest))
    }

    /// Reads until so many objects have ended: their bytes, or why there are none, by name in the order of their ends.
    fn receive_objects(&mut self, count: usize) -> Vec<(String, Result<Vec<u8>, String>)> {
        let mut coming = BTreeMap::<String, Vec<u8>>::new();
        let mut ended = Vec::new();
        while ended.len() < count {
            let (letter, name, rest) = self.receive().expect("a packet");
            match letter {
                b'B' => assert!(coming.insert(name, rest).is_none(), "it begins once"),
                b'M' => coming.get_mut(&name).expect("it has begun").extend(rest),
                b'E' => {
                    let fields: Vec<String> =
                        rest.split(|&b| b == b':').map(|field| String::from_utf8_lossy(field).into_owned()).collect();
                    let bytes = coming.remove(&name);
                    let result = match fields[0].as_str() {
                        "-1" => Err(fields[1].clone()),
                        size => {
                            let mut bytes = bytes.expect("it has begun");
                            let size: usize = size.parse().expect("a number");
                            assert!(size <= bytes.len() && bytes.len() - size < N, "{size} of {}", bytes.len());
                            bytes.truncate(size);
                            Ok(bytes)
                        }
                    };
                    ended.push((name, result));
                }
                other => panic!("a packet that the seed does not have: {other}"),
            }
        }
        ended
    }
}

// -- fetching --------------------------------------------------------------------------------------------------------

#[test]
fn everything_is_fetched_once_and_what_is_here_is_skipped() {
    let files = some_files();
    let (site, address) = serving(&files);
    let home = site.path("c");
    let summary = fetched(address, &home, &[]);
    let bytes: usize = files.values().map(Vec::len).sum();
    assert_eq!((summary.fetched, summary.bytes.0), (files.len() as u64, bytes as u64));
    assert_eq!((summary.skipped, summary.reconnects, summary.failed), (0, 0, Vec::new()));
    check(&home, &files);
    fs::remove_file(home.join("remote/one.success")).expect("removed");
    let summary = fetched(address, &home, &[]);
    assert_eq!((summary.fetched, summary.skipped), (1, files.len() as u64 - 1));
    check(&home, &files);
}

#[test]
fn what_is_named_is_fetched_and_what_is_not_there_is_told() {
    let files = some_files();
    let (mut site, address) = serving(&files);
    let home = site.path("c");
    let summary = fetched(address, &home, &["one", "no/such/file", "large", "x.success"]);
    assert_eq!(summary.fetched, 2);
    let failed: Vec<&str> = summary.failed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(failed, ["x.success", "no/such/file"]);
    assert!(summary.failed[1].1.contains("there is no such object"), "{:?}", summary.failed);
    let expected = ["one", "large"].map(|name| (name.to_owned(), files[name].clone()));
    check(&home, &Files::from(expected));
    site.until("the server has seen the client go", |site| site.log("t1").contains("client gone"));
}

#[test]
fn what_is_put_there_later_is_served_too() {
    let (mut site, address) = serving(&Files::new());
    let home = site.path("c");
    assert_eq!(fetched(address, &home, &[]).fetched, 0);
    put(&site, "late", b"here");
    site.until("it is served", |_| fetched(address, &home, &["late"]).failed.is_empty());
    check(&home, &Files::from([("late".into(), b"here".to_vec())]));
    fs::remove_file(site.path("t1").join("local/late")).expect("removed");
    site.until("it is served no more", |_| fetched(address, &site_dir(&home), &[]).fetched == 0);
}

/// A directory that nothing was fetched into.
fn site_dir(home: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    home.with_extension(NEXT.fetch_add(1, Ordering::Relaxed).to_string())
}

#[test]
fn a_name_that_fits_no_packet_is_refused_before_anything_is_sent() {
    let home = tempfile::tempdir().expect("a directory");
    let name = "n/".repeat(700) + "n";
    let error = fetch(job(fresh_address(), home.path(), &[&name]), |_| {}).expect_err("refused");
    assert!(matches!(error, FetchError::Name(_)) && error.exit_status() == exit::USAGE, "{error}");
}

#[test]
fn an_address_that_is_none_is_told_at_once() {
    let home = tempfile::tempdir().expect("a directory");
    let job = FetchJob { address: "127.0.0.1".into(), ..job(fresh_address(), home.path(), &[]) };
    let error = fetch(job, |_| {}).expect_err("no port");
    assert!(matches!(error, FetchError::Address { .. }) && error.to_string().contains("HOST:PORT"), "{error}");
    assert!(!home.path().join("remote").exists());
}

#[test]
fn eight_clients_fetch_at_once() {
    let files = some_files();
    let (site, address) = serving(&files);
    let homes: Vec<PathBuf> = (0..8).map(|client| site.path(&format!("c{client}"))).collect();
    let running: Vec<Fetching> = homes.iter().map(|home| Fetching::start(address, home)).collect();
    for (running, home) in running.into_iter().zip(&homes) {
        assert_eq!(running.end().fetched, files.len() as u64);
        check(home, &files);
    }
}

#[test]
fn traders_that_mirror_each_other_serve_clients_as_well() {
    let mut site = Site::new(Plan::default());
    let address = fresh_address();
    let listen = format!("[[listen]]\naddress = \"{address}\"\nprotocol = \"named\"\nallow = [\"127.0.0.0/8\"]\n");
    let text = fs::read_to_string(site.config("t1")).expect("there") + &listen;
    fs::write(site.config("t1"), text).expect("written");
    for node in site.all() {
        site.run(&node);
    }
    site.until("it listens", |site| site.status("t1").is_some());
    let home = site.path("c");
    let summary = fetched(address, &home, &[]);
    assert_eq!(summary.fetched, site.plan.segments as u64);
    site.until_converged();
    site.until("clients are no peers that could be missed", |site| {
        let peers = site.tells("t1", "/peers").as_array().map_or(0, Vec::len);
        peers == 2 && site.tells("t1", "/state") != "degraded"
    });
}

// -- extreme conditions ----------------------------------------------------------------------------------------------

#[test]
fn a_server_that_is_killed_half_way_is_fetched_from_when_it_is_back() {
    let files = Files::from([("a".into(), random_bytes(3000)), ("large".into(), random_bytes(3_000_000))]);
    let (mut site, address) = serving(&files);
    let home = site.path("c");
    let proxy = Proxy::to(address, SLOW);
    let running = Fetching::start(proxy.address, &home);
    site.until("some of it is here", |_| running.has() > 300_000);
    site.kill("t1");
    assert!(!home.join("remote/large").exists() && !home.join("remote/large.success").exists());
    site.until("what was here in part is thrown away", |_| running.has() < 10_000);
    site.run("t1");
    proxy.set_rate(FAST);
    let summary = running.end();
    assert!(summary.reconnects > 0 && summary.failed.is_empty(), "{summary:?}");
    check(&home, &files);
}

#[test]
fn a_server_that_stays_away_is_given_up_with_what_is_missing() {
    let files = Files::from([("a".into(), random_bytes(3000)), ("large".into(), random_bytes(3_000_000))]);
    let (mut site, address) = serving(&files);
    let home = site.path("c");
    let proxy = Proxy::to(address, SLOW);
    let running = Fetching::start(proxy.address, &home);
    site.until("some of it is here", |_| running.has() > 300_000);
    site.kill("t1");
    let error = running.thread.join().expect("no panic").expect_err("lost");
    assert_eq!(error.exit_status(), exit::INCOMPLETE, "{error}");
    let text = error.to_string();
    assert!(text.contains("given up after 12 tries") && text.contains("1 objects are still missing"), "{text}");
    check(&home, &Files::from([("a".into(), files["a"].clone())]));
}

#[test]
fn a_client_that_is_gone_disturbs_no_other() {
    let files = Files::from([("large".into(), random_bytes(4_000_000))]);
    let (mut site, address) = serving(&files);
    let home = site.path("c");
    let proxy = Proxy::to(address, 2 * SLOW);
    let running = Fetching::start(proxy.address, &home);
    site.until("some of it is here", |_| running.has() > 100_000);
    let idle = descriptors(site.pid("t1"));
    for _ in 0..4 {
        let mut killed = SeedClient::connect(address);
        killed.request("large");
        killed.request("large");
        killed.receive().expect("it begins");
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&killed.0, sockopt::Linger, &linger).expect("set");
    }
    site.until("the server says that they are gone", |site| site.log("t1").matches("client gone").count() >= 4);
    site.until("and keeps nothing of them", |site| descriptors(site.pid("t1")) <= idle);
    proxy.set_rate(FAST);
    assert_eq!(running.end().reconnects, 0);
    check(&home, &files);
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_fetched_again() {
    let (mut site, address) = serving(&Files::from([("large".into(), random_bytes(2_000_000))]));
    let home = site.path("c");
    let proxy = Proxy::to(address, SLOW);
    let running = Fetching::start(proxy.address, &home);
    site.until("some of it is here", |_| running.has() > 200_000);
    let changed = random_bytes(2_000_000);
    put(&site, "large", &changed);
    proxy.set_rate(FAST);
    assert!(running.end().failed.is_empty());
    check(&home, &Files::from([("large".into(), changed)]));
}

// -- peers of the seed alone -----------------------------------------------------------------------------------------

#[test]
fn a_client_of_the_seed_alone_is_served_everything_it_asks_for() {
    let files = some_files();
    let (_site, address) = serving(&files);
    let mut client = SeedClient::connect(address);
    let names: Vec<&String> = files.keys().filter(|name| !name.contains(':')).collect();
    names.iter().for_each(|name| client.request(name));
    client.request("no_such_file");
    client.request("../x");
    client.request("/etc/passwd");
    let ended = client.receive_objects(names.len() + 3);
    let mut wrong = 0;
    for (name, result) in ended {
        match (files.get(&name), result) {
            (Some(bytes), Ok(found)) => assert!(found == *bytes, "{name} differs"),
            (None, Err(reason)) => {
                assert!(!reason.is_empty());
                wrong += 1;
            }
            (_, result) => panic!("{name}: {:?}", result.map(|bytes| bytes.len())),
        }
    }
    assert_eq!(wrong, 3);
    client.request("one");
    assert_eq!(client.receive_objects(1)[0].1.as_ref(), Ok(&files["one"]), "the connection stays up");
    client.request("");
    let listing = client.receive_objects(1)[0].1.clone().expect("a listing");
    let mut lines: Vec<&str> = std::str::from_utf8(&listing).expect("text").lines().collect();
    lines.sort_unstable();
    let mut expected: Vec<String> = files.keys().map(|name| name.replace("a:b%c\n", "a%3Ab%25c%0A")).collect();
    expected.sort();
    assert_eq!(lines, expected);
}

/// Serves `files` as the seed's text has it; `tells` whether it says how long an object is.
fn seed_server(files: Files, tells: bool) -> SocketAddr {
    let listener = TcpListener::bind(fresh_address()).expect("an address of our own");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut packet = vec![0; N];
        while stream.read_exact(&mut packet).is_ok() {
            let text = String::from_utf8_lossy(&packet).into_owned();
            let name = text.split(':').nth(1).expect("a name").to_owned();
            let bytes = &files[&name];
            let each = N - 3 - name.len();
            let mut pieces: Vec<&[u8]> = bytes.chunks(each).collect();
            if pieces.is_empty() {
                pieces.push(b"");
            }
            for (index, piece) in pieces.into_iter().enumerate() {
                let letter = if index == 0 { 'B' } else { 'M' };
                packet = [format!("{letter}:{name}:").as_bytes(), piece].concat();
                packet.resize(N, 0);
                stream.write_all(&packet).expect("sent");
            }
            packet = format!("E:{name}:").into_bytes();
            if tells {
                packet.extend(format!("{}:", bytes.len()).bytes());
            }
            packet.resize(N, 0);
            stream.write_all(&packet).expect("sent");
        }
    });
    address
}

#[test]
fn a_server_of_the_seed_alone_is_fetched_from() {
    let home = tempfile::tempdir().expect("a directory");
    let mut files = some_files();
    files.retain(|name, _| !name.contains(':'));
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(fetched(seed_server(files.clone(), true), home.path(), &names).fetched, files.len() as u64);
    check(home.path(), &files);
}

#[test]
fn a_server_that_tells_no_lengths_is_taken_at_its_packets() {
    let home = tempfile::tempdir().expect("a directory");
    let mut files = some_files();
    files.retain(|name, _| name.starts_with("exactly"));
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(fetched(seed_server(files.clone(), false), home.path(), &names).fetched, files.len() as u64);
    check(home.path(), &files);
}

// -- hostile peers ---------------------------------------------------------------------------------------------------

#[test]
fn a_client_that_sends_what_it_must_not_is_cut_off_with_a_reason() {
    let files = Files::from([("one".into(), random_bytes(3000))]);
    let (mut site, address) = serving(&files);
    let endless = format!("R:{}", "n".repeat(N - 2));
    let long = format!("R:{}:", "n".repeat(N - 3));
    let cases: [(&str, &[u8]); 6] = [
        ("at byte 0 ", b"GET / HTTP/1.1\r\n"),
        ("at byte 0 ", b"B:one:x"),
        ("at byte 0 ", b"N:"),
        ("at byte 0 ", b"\0\xff\0"),
        ("at byte 0 ", endless.as_bytes()),
        ("no room for an answer", long.as_bytes()),
    ];
    for (expected, bytes) in cases {
        let before = site.log("t1").len();
        let mut client = SeedClient::connect(address);
        client.send(bytes);
        assert!(client.receive().is_err(), "nothing is answered");
        site.until("the log says why", |site| {
            let log = site.log("t1");
            log[before..].lines().any(|line| line.contains("client gone") && line.contains(expected))
        });
    }
    let mut flood = SeedClient::connect(address);
    flood.0.set_write_timeout(Some(Duration::from_secs(5))).expect("set");
    let requests = {
        let mut packet = b"R:one:".to_vec();
        packet.resize(N, 0);
        packet.repeat(1000)
    };
    while flood.0.write_all(&requests).is_ok() {}
    assert_eq!(fetched(address, &site.path("c"), &[]).fetched, 1);
    assert!(!site.log("t1").contains("panicked"));
}

/// Answers every connection with these packets, and keeps it open.
fn hostile_server(packets: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind(fresh_address()).expect("an address of our own");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), packets) = (stream, packets.clone()) else { continue };
            std::thread::spawn(move || {
                let mut request = vec![0; N];
                let _ = stream.read_exact(&mut request);
                for mut packet in packets {
                    packet.resize(N, b'#');
                    let _ = stream.write_all(&packet);
                }
                let _ = stream.read(&mut request);
            });
        }
    });
    address
}

#[test]
fn a_server_that_sends_what_it_must_not_leaves_nothing_behind() {
    let cases: [(&str, Vec<&[u8]>); 7] = [
        ("expected one of B: M: E:", vec![b"N:"]),
        ("'other' is out of place", vec![b"B:other:x"]),
        ("is out of place", vec![b"M:a:x"]),
        ("expected an object's name", vec![b"B:../a:x"]),
        ("is told to have 9000 bytes", vec![b"B:a:x", b"E:a:9000:"]),
        ("expected a size of at most", vec![b"B:a:x", b"E:a:18446744073709551615:"]),
        ("expected ':' after a size", vec![b"B:a:x", b"E:a:111111111111111111111111111111:"]),
    ];
    for (expected, packets) in cases {
        let home = tempfile::tempdir().expect("a directory");
        let packets = packets.into_iter().map(<[u8]>::to_vec).collect();
        let error = fetch(job(hostile_server(packets), home.path(), &["a"]), |_| {}).expect_err("refused");
        assert!(matches!(error, FetchError::Protocol { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        check(home.path(), &Files::new());
    }
}

#[test]
fn a_listing_cannot_lead_out_of_the_directory() {
    let home = tempfile::tempdir().expect("a directory");
    let lines = b"B::../x\n/etc/passwd\n.supersync/lock\n\x1b[2J\n";
    let address = hostile_server(vec![lines.to_vec(), format!("E::{}:", lines.len() - 3).into_bytes()]);
    let summary = fetch(job(address, home.path(), &[]), |_| {}).expect("there is nothing to fetch");
    assert_eq!((summary.fetched, summary.failed.len()), (0, 4));
    assert!(summary.failed.iter().all(|(name, _)| !name.chars().any(char::is_control)), "{:?}", summary.failed);
    check(home.path(), &Files::new());
}

/// It went on for two minutes, then said that the same command goes on.
#[test]
fn a_server_that_never_answers_is_given_up_with_what_to_look_at() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for names in [&[][..], &["a"]] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let closing = std::thread::spawn(move || listener.incoming().take(3).map(drop).count());
        let error = fetch(job(address, directory.path(), names), |_| {}).expect_err("nobody answers");
        assert_eq!(closing.join().expect("no panic"), 3);
        let text = error.to_string();
        assert!(matches!(error, FetchError::Protocol { .. }) && text.contains("came over 3 connections"), "{text}");
        assert!(text.ends_with("is it a listener with protocol = \"named\" and the same packet_bytes?"), "{text}");
    }
}
