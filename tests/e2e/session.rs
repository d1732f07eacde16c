//! `supersyncctl push` and `pull` of directory trees, to and from a real daemon with modules.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::AtFlags;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use rand::RngExt as _;
use serde_json::Value;
use supersync::units::{ByteCount, Entry, FileId, Kind, SessionId, TreePath};
use supersync::wire::session::{Command as Asked, FileInfo, Message, Options, Read, encode, read};

use super::proxy::Proxy;
use super::schema;
use super::site::{PATIENCE, ask, chance, engine, fresh_address, random_bytes};

/// A daemon with a module that is written to, `open`, and one that is only read, `closed`.
pub(super) struct Server {
    dir: tempfile::TempDir,
    pub(super) address: SocketAddr,
    pub(super) daemon: Option<Child>,
    starts: usize,
}

impl Server {
    pub(super) fn start() -> Self {
        let server =
            Self { dir: tempfile::tempdir().expect("made"), address: fresh_address(), daemon: None, starts: 0 };
        for name in ["open", "closed", "here"] {
            fs::create_dir(server.path(name)).expect("made");
        }
        let (dir, address) = (server.dir.path().display(), server.address);
        let text = format!(
            "role = \"trader\"\nname = \"server\"\nengine = \"{}\"\nstate_dir = \"{dir}/state\"\n[control]\nsocket = \"{dir}/control.sock\"\n\
             [[listen]]\naddress = \"{address}\"\nprotocol = \"session\"\nallow = [\"127.0.0.0/8\"]\n\
             [[module]]\nname = \"open\"\npath = \"{dir}/open\"\nread_only = false\n\
             [[module]]\nname = \"closed\"\npath = \"{dir}/closed\"\nread_only = true\n",
            engine()
        );
        fs::write(server.path("server.toml"), text).expect("written");
        let mut server = server;
        server.run();
        server
    }

    fn run(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("opened");
        let out = log.try_clone().expect("cloned");
        let mut command = Command::new(env!("CARGO_BIN_EXE_supersyncd"));
        command.arg("run").arg(self.path("server.toml")).env("NO_COLOR", "1").stdin(Stdio::null());
        self.daemon = Some(command.stdout(out).stderr(log).spawn().expect("started"));
        let by = Instant::now() + PATIENCE;
        // After a crash connections may still be taken for a moment by what is left of the dead process.
        self.starts += 1;
        while self.log().matches("listening").count() < self.starts {
            assert!(Instant::now() < by, "the daemon does not listen:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    pub(super) fn push_to(&self, address: SocketAddr, source: &Path, to: &str, options: &[&str]) -> Command {
        let mut command = ctl();
        command
            .arg("push")
            .arg(format!("--engine={}", engine()))
            .args(options)
            .arg(source)
            .arg(format!("supersync://{address}/{to}"));
        command
    }

    pub(super) fn pull_from(&self, address: SocketAddr, from: &str, destination: &Path, options: &[&str]) -> Command {
        let mut command = ctl();
        command
            .arg("pull")
            .arg(format!("--engine={}", engine()))
            .args(options)
            .arg(format!("supersync://{address}/{from}"))
            .arg(destination);
        command
    }

    pub(super) fn push(&self, source: &Path, to: &str, options: &[&str]) -> Outcome {
        Outcome::of(self, self.push_to(self.address, source, to, options))
    }

    pub(super) fn pull(&self, from: &str, destination: &Path, options: &[&str]) -> Outcome {
        Outcome::of(self, self.pull_from(self.address, from, destination, options))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supersyncctl"));
    command.env("NO_COLOR", "1").arg("--json");
    command
}

/// What a client said and exited with.
pub(super) struct Outcome {
    pub(super) status: Option<i32>,
    events: Vec<Value>,
    pub(super) errors: String,
    log: String,
}

impl Outcome {
    pub(super) fn of(server: &Server, mut command: Command) -> Self {
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        Self::wait(server, child)
    }

    pub(super) fn wait(server: &Server, child: Child) -> Self {
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8(output.stdout).expect("JSON is text");
        let events: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
        events.iter().for_each(schema::check);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { status: output.status.code(), events, errors, log: server.log() }
    }

    /// Its summary, of one that exited with 0.
    pub(super) fn ok(&self) -> &Value {
        assert_eq!(self.status, Some(0), "{}\n{:?}\n{}", self.errors, self.events, self.log);
        self.events.last().expect("a summary")
    }

    pub(super) fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["event"] == kind).collect()
    }

    pub(super) fn paths(&self, kind: &str) -> Vec<&str> {
        let mut paths: Vec<_> = self.of_kind(kind).iter().filter_map(|event| event["path"].as_str()).collect();
        paths.sort_unstable();
        paths
    }
}

// -- trees -----------------------------------------------------------------------------------------------------------

/// What a person can see of an entry.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    size: u64,
    link: Option<PathBuf>,
    content: Option<blake3::Hash>,
    /// The first of the names that are the same file.
    same_as: Option<PathBuf>,
}

fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut names = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        let mut entries: Vec<_> =
            fs::read_dir(root.join(&directory)).expect("listed").map(|e| e.expect("read")).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = directory.join(entry.file_name());
            let meta = fs::symlink_metadata(root.join(&path)).expect("there");
            if meta.is_dir() {
                pending.push(path.clone());
            }
            names.entry((meta.dev(), meta.ino())).or_insert_with(Vec::new).push(path.clone());
            let size = if meta.is_file() { meta.len() } else { 0 };
            let link = meta.is_symlink().then(|| fs::read_link(root.join(&path)).expect("a link"));
            let content = meta.is_file().then(|| {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(fs::File::open(root.join(&path)).expect("opened")).expect("read");
                hasher.finalize()
            });
            let (mode, owner, mtime) = (meta.mode(), (meta.uid(), meta.gid()), (meta.mtime(), meta.mtime_nsec()));
            seen.insert(path, Seen { mode, owner, mtime, size, link, content, same_as: None });
        }
    }
    for mut paths in names.into_values().filter(|paths| paths.len() > 1) {
        paths.sort();
        for path in &paths {
            if let Some(seen) = seen.get_mut(path) {
                seen.same_as = Some(paths[0].clone());
            }
        }
    }
    seen
}

#[track_caller]
pub(super) fn assert_same(one: &Path, other: &Path) {
    let (left, right) = (look(one), look(other));
    for path in left.keys().chain(right.keys()) {
        assert_eq!(left.get(path), right.get(path), "{}", path.display());
    }
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).expect("set");
}

/// One of everything that a tree may hold.
pub(super) fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("deep/er/and/deeper")).expect("made");
    fs::create_dir_all(root.join("empty")).expect("made");
    fs::write(root.join("nothing"), "").expect("written");
    fs::write(root.join("small"), "small").expect("written");
    fs::write(root.join("deep/er/block"), random_bytes(61_440)).expect("written");
    fs::write(root.join("deep/er/block and a byte"), random_bytes(61_441)).expect("written");
    fs::write(root.join("deep/er/and/deeper/large"), random_bytes(3_000_000)).expect("written");
    fs::write(root.join("run.sh"), "#!/bin/sh\n").expect("written");
    // It is kept with its owner alone.
    let set_user_id = if nix::unistd::geteuid().is_root() { 0o4000 } else { 0 };
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(set_user_id | 0o751)).expect("set");
    fs::write(root.join("x.success"), "an ordinary file here").expect("written");
    fs::hard_link(root.join("small"), root.join("deep/also small")).expect("linked");
    symlink("small", root.join("link")).expect("linked");
    symlink("/nowhere/at all", root.join("deep/dangling")).expect("linked");
    symlink("er", root.join("deep/to a directory")).expect("linked");
    for name in [&b"not \xff utf-8"[..], b"new\nline", b"co:lon", b"%41", b" ", b"-n", b"\x01\x1b[2J"] {
        fs::write(root.join(OsStr::from_bytes(name)), name).expect("written");
    }
    let sparse = fs::File::create(root.join("sparse")).expect("made");
    sparse.set_len(5_000_000).expect("set");
    sparse.write_all_at(b"in the middle of nothing", 2_500_000).expect("written");
    set_mtime(&root.join("small"), 1_000_000_000, 123_456_789);
    set_mtime(&root.join("link"), 1_111_111_111, 987_654_321);
    set_mtime(&root.join("nothing"), -5, 1);
    fs::set_permissions(root.join("deep/er"), fs::Permissions::from_mode(0o500)).expect("set");
    set_mtime(&root.join("deep/er"), 999_999_999, 1);
    set_mtime(&root.join("empty"), 5_000_000_000, 999_999_999);
}

/// Lets the temporary directory be removed by who is not root.
fn open_up(root: &Path) {
    let _ = fs::set_permissions(root.join("deep/er"), fs::Permissions::from_mode(0o700));
}

#[test]
fn a_tree_is_pushed_and_pulled_back_with_all_there_is_to_it() {
    let server = Server::start();
    let source = server.path("here/tree");
    make_tree(&source);
    let outcome = server.push(&source, "open/backup", &[]);
    let summary = outcome.ok();
    assert_eq!(summary["failed"], 0, "{summary}");
    let there = server.path("open/backup/tree");
    assert_same(&source, &there);
    let blocks = fs::metadata(there.join("sparse")).expect("there").blocks();
    assert!(blocks * 512 < 1_000_000, "{} KiB for a file that is nearly all hole", blocks / 2);
    let back = server.path("here/back");
    server.pull("open/backup/tree/", &back, &["--connections", "3"]).ok();
    assert_same(&source, &back);
    for root in [&source, &there, &back] {
        assert!(!root.join(".supersync").exists(), "nothing is left beside the tree");
        open_up(root);
    }
    assert!(!server.path("open/.supersync").exists(), "nor in the module");
}

#[test]
fn what_is_equal_is_left_alone_and_what_is_not_is_replaced() {
    let server = Server::start();
    let source = server.path("here/tree");
    make_tree(&source);
    server.push(&source, "open", &[]).ok();
    let there = server.path("open/tree");
    let inode = |path: &str| fs::metadata(there.join(path)).expect("there").ino();
    let before = (inode("small"), inode("deep/er/and/deeper/large"));
    let again = server.push(&source, "open", &[]);
    let summary = again.ok();
    assert_eq!((&summary["new"], &summary["changed"], &summary["attributes"]), (&0.into(), &0.into(), &0.into()));
    assert_eq!(summary["bytes_data"], 0);
    assert_eq!(before, (inode("small"), inode("deep/er/and/deeper/large")));

    fs::write(source.join("run.sh"), "#!/bin/bash\n").expect("written");
    fs::set_permissions(source.join("nothing"), fs::Permissions::from_mode(0o640)).expect("set");
    let changed = server.push(&source, "open", &[]);
    let summary = changed.ok();
    assert_eq!((&summary["new"], &summary["changed"]), (&0.into(), &1.into()), "{:?}", changed.events);
    assert_eq!(summary["bytes_data"], 12);
    assert_same(&source, &there);
    open_up(&source);
    open_up(&there);
}

#[test]
fn only_checksums_tell_a_change_that_size_and_mtime_do_not() {
    let server = Server::start();
    let source = server.path("here/tree");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("a"), "one").expect("written");
    set_mtime(&source.join("a"), 1000, 0);
    server.push(&source, "open", &[]).ok();
    fs::write(source.join("a"), "two").expect("written");
    set_mtime(&source.join("a"), 1000, 0);
    server.push(&source, "open", &[]).ok();
    assert_eq!(fs::read(server.path("open/tree/a")).expect("there"), b"one");
    server.push(&source, "open", &["--checksum"]).ok();
    assert_eq!(fs::read(server.path("open/tree/a")).expect("there"), b"two");
}

#[test]
fn rules_leave_out_and_deletion_spares_what_they_leave_out() {
    let server = Server::start();
    let source = server.path("here/tree");
    for path in ["keep/a", "keep/b.tmp", "build/x", "deep/.supersyncignore", "deep/secret", "deep/plain"] {
        fs::create_dir_all(source.join(path).parent().expect("below")).expect("made");
        fs::write(source.join(path), path).expect("written");
    }
    fs::write(source.join("deep/.supersyncignore"), "secret\n").expect("written");
    let there = server.path("open/tree");
    fs::create_dir_all(there.join("build")).expect("made");
    fs::create_dir_all(there.join("extra/below")).expect("made");
    fs::write(there.join("build/spared"), "").expect("written");
    fs::write(there.join("extra/below/gone"), "").expect("written");
    let rules = ["--exclude", "*.tmp", "--exclude", "/tree/build/", "--delete"];
    let dry = server.push(&source, "open", &[&rules[..], &["--dry-run"]].concat());
    dry.ok();
    assert_eq!(dry.paths("deleted"), ["tree/extra", "tree/extra/below", "tree/extra/below/gone"]);
    assert!(there.join("extra/below/gone").exists() && !there.join("keep").exists(), "a dry run does nothing");
    let wet = server.push(&source, "open", &rules);
    wet.ok();
    assert_eq!(wet.paths("deleted"), dry.paths("deleted"));
    let paths: Vec<_> = look(&there).into_keys().map(|path| path.to_str().expect("text").to_owned()).collect();
    assert_eq!(
        paths,
        ["build", "build/spared", "deep", "deep/.supersyncignore", "deep/plain", "keep", "keep/a"].map(str::to_owned)
    );
}

#[test]
fn a_path_of_four_thousand_bytes_arrives() {
    let server = Server::start();
    let source = server.path("here/tree");
    fs::create_dir(&source).expect("made");
    // Made step by step: no path of this length can be given to the kernel from the root.
    let component = "d".repeat(250);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "set -e; cd '{}'; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do mkdir {component}; cd -P {component}; done; echo deep > {}",
        source.display(),
        "f".repeat(230)
    ));
    assert!(command.status().expect("started").success());
    let outcome = server.push(&source, "open", &[]);
    assert_eq!(outcome.ok()["failed"], 0);
    let mut find = Command::new("find");
    let found = find.arg(server.path("open")).args(["-type", "f", "-size", "-6c"]).output().expect("started");
    assert!(found.stdout.ends_with(format!("{}\n", "f".repeat(230)).as_bytes()));
}

#[test]
fn special_files_are_named_and_skipped() {
    let server = Server::start();
    let source = server.path("here/tree");
    fs::create_dir(&source).expect("made");
    nix::unistd::mkfifo(&source.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    fs::write(source.join("file"), "").expect("written");
    let outcome = server.push(&source, "open", &[]);
    outcome.ok();
    assert_eq!(outcome.paths("skipped"), ["tree/pipe"]);
    assert!(server.path("open/tree/file").exists() && !server.path("open/tree/pipe").exists());
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_named_and_not_landed() {
    let server = Server::start();
    let source = server.path("here/tree");
    fs::create_dir(&source).expect("made");
    let size = 4 << 20;
    for name in ["grows", "shrinks", "vanishes", "stays"] {
        fs::write(source.join(name), random_bytes(size)).expect("written");
    }
    let mut command = server.push_to(server.address, &source, "open", &["--bwlimit", "6MB", "--connections", "1"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    // When bytes flow, all are announced; the rate leaves time.
    let by = Instant::now() + PATIENCE;
    let came = || ask(&server.path("control.sock"), "GET", "/v1/status")?["clients"][0]["payload_in"].as_u64();
    while came().is_none_or(|bytes| bytes == 0) {
        assert!(Instant::now() < by, "nothing comes");
        std::thread::sleep(Duration::from_millis(1));
    }
    fs::OpenOptions::new().append(true).open(source.join("grows")).expect("there").write_all(b"more").expect("written");
    fs::OpenOptions::new().write(true).open(source.join("shrinks")).expect("there").set_len(5).expect("set");
    fs::remove_file(source.join("vanishes")).expect("there");
    let outcome = Outcome::wait(&server, child);
    assert_eq!(outcome.status, Some(3), "{:?}\n{}", outcome.events, outcome.errors);
    let failed = outcome.paths("failed");
    let there = server.path("open/tree");
    for name in ["grows", "shrinks", "vanishes"] {
        let landed = fs::read(there.join(name)).ok().map(|bytes| bytes.len());
        let named = failed.contains(&format!("tree/{name}").as_str());
        // Whole, as it was when it was sent, or named.
        assert!(landed == Some(size) || (landed.is_none() && named), "{name}: {landed:?}, {failed:?}");
    }
    assert!(!failed.is_empty() && outcome.of_kind("summary")[0]["new"] == 5 - failed.len(), "{:?}", outcome.events);
    assert_eq!(outcome.paths("change").len(), 5 - failed.len(), "what failed is not told as changed, {failed:?}");
    assert_eq!(fs::read(there.join("stays")).expect("landed"), fs::read(source.join("stays")).expect("there"));
    assert!(server.push(&source, "open", &["--delete"]).ok()["failed"] == 0, "the next run brings what there is now");
    assert_same(&source, &there);
}

// -- faults ----------------------------------------------------------------------------------------------------------

#[test]
fn flipped_bits_cost_the_messages_that_they_hit() {
    let server = Server::start();
    let source = server.path("here/tree");
    fs::create_dir(&source).expect("made");
    for index in 0..4 {
        fs::write(source.join(format!("large{index}")), random_bytes(8 << 20)).expect("written");
    }
    for index in 0..300 {
        fs::write(source.join(format!("small{index}")), random_bytes(index * 10)).expect("written");
    }
    let data: u64 = look(&source).values().map(|seen| seen.size).sum();
    let proxy = Proxy::to(server.address, 400_000_000);
    proxy.flip_every(1 << 20);
    let outcome = Outcome::of(&server, server.push_to(proxy.address, &source, "open", &["--connections", "4"]));
    let sent = outcome.ok()["bytes_data"].as_u64().expect("a number");
    assert_same(&source, &server.path("open/tree"));
    assert!(proxy.flips() > 10, "{} bits were flipped", proxy.flips());
    // A connection whose framing was hit loses what is on its way over it.
    assert!(sent <= data + proxy.flips() * 61_440 + (8 << 20), "{sent} for {data} and {} flips", proxy.flips());
    let back = server.path("here/back");
    let pulled = Outcome::of(&server, server.pull_from(proxy.address, "open/tree/", &back, &["--connections", "4"]));
    pulled.ok();
    assert_same(&source, &back);
}

/// Kills the client, the server or both at a random moment, again and again; `SUPERSYNC_E2E_KILLS` says how often.
#[test]
fn an_interrupted_transfer_goes_on_where_it_was() {
    let kills = std::env::var("SUPERSYNC_E2E_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6_u64);
    let mut chance = chance();
    let mut server = Server::start();
    let source = server.path("here/tree");
    fs::create_dir(&source).expect("made");
    for index in 0..6 {
        fs::write(source.join(format!("large{index}")), random_bytes(8 << 20)).expect("written");
    }
    for index in 0..200 {
        fs::write(source.join(format!("small{index:03}")), random_bytes(4096)).expect("written");
    }
    let data: u64 = look(&source).values().map(|seen| seen.size).sum();
    let proxy = Proxy::to(server.address, 60_000_000);
    let back = server.path("here/back");
    let options = ["--connections", "2"];
    let push = |server: &Server| server.push_to(proxy.address, &source, "open", &options);
    let pull = |server: &Server| server.pull_from(proxy.address, "open/tree/", &back, &options);
    for (is_push, rounds) in [(true, kills.div_ceil(2)), (false, kills / 2)] {
        let command = |server: &Server| if is_push { push(server) } else { pull(server) };
        let before = proxy.forwarded();
        for round in 0..rounds {
            let mut command = command(&server);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
            std::thread::sleep(Duration::from_millis(chance.random_range(20..250)));
            if chance.random() {
                let _ = child.kill();
                let _ = child.wait();
            } else {
                server.kill();
                let outcome = Outcome::wait(&server, child);
                let is_right = matches!(outcome.status, Some(0 | 3 | 4));
                assert!(is_right, "round {round}: {:?}, {}\n{}", outcome.status, outcome.errors, outcome.log);
                server.run();
            }
        }
        Outcome::of(&server, command(&server)).ok();
        let carried = proxy.forwarded() - before;
        // For each kill and connection a block, and what was in sockets and buffers on the way through the proxy.
        let allowed = data * 105 / 100 + rounds * 2 * (61_440 + (4 << 20));
        assert!(carried <= allowed, "{carried} bytes for {data} and {rounds} kills");
    }
    assert_same(&source, &server.path("open/tree"));
    assert_same(&source, &back);
}

#[test]
fn a_connection_that_dies_gives_its_blocks_to_the_others() {
    let server = Server::start();
    let source = server.path("here/tree");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("large"), random_bytes(24 << 20)).expect("written");
    let proxy = Proxy::to(server.address, 10_000_000);
    // Somewhere in the second megabyte of one connection the length of what follows is not what it was.
    proxy.damage_once_at(1_500_000);
    let outcome = Outcome::of(&server, server.push_to(proxy.address, &source, "open", &["--connections", "4"]));
    outcome.ok();
    assert_same(&source, &server.path("open/tree"));
}

#[test]
fn a_server_that_is_gone_for_good_ends_the_transfer_with_3() {
    let mut server = Server::start();
    let source = server.path("here/tree");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("large"), random_bytes(8 << 20)).expect("written");
    let mut command = server.push_to(server.address, &source, "open", &["--bwlimit", "4MB"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let by = Instant::now() + PATIENCE;
    while fs::read_dir(server.path("open/.supersync")).is_err() {
        assert!(Instant::now() < by, "nothing comes");
        std::thread::sleep(Duration::from_millis(1));
    }
    server.kill();
    let outcome = Outcome::wait(&server, child);
    assert_eq!(outcome.status, Some(3), "{}", outcome.errors);
    assert_eq!(
        Outcome::of(&server, server.push_to(server.address, &source, "open", &[])).status,
        Some(4),
        "nobody is there"
    );
}

// -- peers that mean harm --------------------------------------------------------------------------------------------

/// Says something, and returns what is answered first.
fn say(mut stream: &TcpStream, message: &Message<'_>) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut bytes = Vec::new();
    encode(message, &mut bytes).expect("fits");
    stream.write_all(&bytes).expect("sent");
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).expect("answered");
    answer.truncate(length);
    answer
}

/// Says something that is refused at once, or when the session has begun; with which words.
fn refusal(stream: TcpStream, message: &Message<'_>) -> String {
    let mut answer = say(&stream, message);
    (&stream).read_to_end(&mut answer).expect("the server ends it");
    let mut at = 0;
    while let Some((message, length)) = read(&answer[at..]).expect("messages") {
        if let Read::Message(Message::Error { text, .. }) = message {
            return text.to_owned();
        }
        at += length;
    }
    panic!("{message:?} is not refused")
}

#[test]
fn hostile_clients_are_refused_and_named() {
    let server = Server::start();
    fs::write(server.path("outside"), "not to be seen").expect("written");
    let options = Options::default().encode().expect("valid");
    let options = options.as_slice();
    let pull = |path| Message::Pull(Asked { options, path });
    let push = |path| Message::Push(Asked { options, path });
    for (message, expected) in [
        (pull(b"closed/../outside"), "'.' or '..'"),
        (pull(b"/etc"), "names no module"),
        (pull(b"other/x"), "no module"),
        (push(b"closed"), "read-only"),
        (pull(b"closed/not there"), "No such file"),
        (Message::Session(SessionId(7)), "no such session"),
        (Message::Ready, "expected PULL, PUSH or SESSION"),
        (Message::Pull(Asked { options: b"block=1", path: b"closed" }), "block"),
    ] {
        let text = refusal(TcpStream::connect(server.address).expect("connected"), &message);
        assert!(text.contains(expected), "{message:?}: {text}");
    }
    let stream = TcpStream::connect(server.address).expect("connected");
    let answer = say(&stream, &push(b"open"));
    let Some((Read::Message(Message::Session(id)), _)) = read(&answer).expect("a message") else {
        panic!("a session is made")
    };
    // The session of somebody else, from another address.
    let text = refusal(connect_from("127.0.0.77:0", server.address), &Message::Session(id));
    assert!(text.contains("no such session"), "{text}");
}

/// A connection from an address of our choice.
fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd as _;
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("made");
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from.parse().expect("an address"), to) else { panic!("IPv4") };
    bind(socket.as_raw_fd(), &SockaddrIn::from(from)).expect("a loopback address");
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).expect("connected");
    TcpStream::from(socket)
}

/// Data may come right behind the message by which a connection joins its session, and a batch behind a command: more
/// than one buffer of it, before anybody has looked.
#[test]
fn what_comes_before_it_was_asked_for_is_neither_lost_nor_too_much() {
    let server = Server::start();
    let options = Options::default().encode().expect("valid");
    let mut bytes = Vec::new();
    encode(&Message::Push(Asked { options: &options, path: b"open" }), &mut bytes).expect("fits");
    encode(&Message::FileCount(1), &mut bytes).expect("fits");
    let mut entry = Entry::new(TreePath::new(b"early").expect("valid"), Kind::File);
    entry.mode = 0o644;
    encode(&Message::FileInfo(FileInfo::of_entry(&entry, FileId(0))), &mut bytes).expect("fits");
    let mut stream = TcpStream::connect(server.address).expect("connected");
    stream.write_all(&bytes).expect("sent");
    let by = Instant::now() + Duration::from_secs(10);
    while !server.path("open/early").exists() {
        assert!(Instant::now() < by, "{}", server.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    // A flood behind a join that is refused: the server goes on.
    let mut flood = Vec::new();
    encode(&Message::Session(SessionId(1)), &mut flood).expect("fits");
    flood.resize(4 << 20, 0x12);
    let mut stream = TcpStream::connect(server.address).expect("connected");
    let _ = stream.write_all(&flood);
    let source = server.path("here/after");
    fs::write(&source, "still there").expect("written");
    server.push(&source, "open", &[]).ok();
}

/// A pull in blocks so small that a file has more of them than there are numbers.
#[test]
fn a_file_of_too_many_blocks_is_named_and_left_out() {
    let server = Server::start();
    let huge = fs::File::create(server.path("closed/huge")).expect("made");
    if huge.set_len((1 << 32) * 512).is_err() {
        println!("skipped: no file of 2 TiB here, even without content");
        return;
    }
    let options = Options { block: 512, ..Options::default() }.encode().expect("valid");
    let stream = TcpStream::connect(server.address).expect("connected");
    let mut answer = say(&stream, &Message::Pull(Asked { options: &options, path: b"closed/" }));
    let by = Instant::now() + PATIENCE;
    let is_named = |answer: &[u8]| {
        let mut at = 0;
        while let Some((message, length)) = read(&answer[at..]).expect("messages") {
            if matches!(message, Read::Message(Message::Failed { text, .. }) if text.contains("blocks")) {
                return true;
            }
            at += length;
        }
        false
    };
    while !is_named(&answer) {
        assert!(Instant::now() < by, "{}", server.log());
        let mut more = [0; 4096];
        let length = (&stream).read(&mut more).expect("answered");
        answer.extend_from_slice(&more[..length]);
    }
}

#[test]
fn a_client_that_says_nothing_is_sent_away() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    assert_eq!(stream.read(&mut [0; 10]).expect("closed"), 0);
}

/// A pushing client that swaps a symbolic link into the path while it writes reaches nothing outside.
#[test]
fn nothing_outside_a_module_is_touched_through_links() {
    let server = Server::start();
    let outside = server.path("outside");
    fs::create_dir(&outside).expect("made");
    fs::create_dir_all(server.path("open/dir")).expect("made");
    symlink(&outside, server.path("open/away")).expect("linked");
    let source = server.path("here/away");
    fs::create_dir_all(&source).expect("made");
    fs::write(source.join("file"), "data").expect("written");
    // Into a path that leads through a link.
    let through = server.push(&source, "open/away", &[]);
    assert_ne!(through.status, Some(0), "{:?}", through.events);
    assert_eq!(fs::read_dir(&outside).expect("there").count(), 0, "{:?}", through.events);
    // Over a link: it is replaced.
    server.push(&source, "open", &[]).ok();
    assert!(fs::symlink_metadata(server.path("open/away")).expect("there").is_dir());
    assert_eq!(fs::read_dir(&outside).expect("there").count(), 0);
}

/// A server that answers a pull with entries of its choice.
fn hostile_server(infos: Vec<(Vec<u8>, u64)>) -> SocketAddr {
    let listener = TcpListener::bind(fresh_address()).expect("bound");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        // A client may look how far the server is before it says anything.
        let mut stream = loop {
            let (stream, _) = listener.accept().expect("called");
            if stream.peek(&mut [0]).is_ok_and(|length| length > 0) {
                break stream;
            }
        };
        let mut bytes = Vec::new();
        encode(&Message::Session(SessionId(1)), &mut bytes).expect("fits");
        encode(&Message::FileCount(infos.len() as u16), &mut bytes).expect("fits");
        for (index, (path, size)) in infos.iter().enumerate() {
            let mut entry = Entry::new(TreePath::top(), Kind::File);
            entry.mode = 0o644;
            entry.size = ByteCount(*size);
            let info = FileInfo { path, ..FileInfo::of_entry(&entry, FileId(index as u16)) };
            encode(&Message::FileInfo(info), &mut bytes).expect("fits");
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    address
}

#[test]
fn hostile_servers_are_refused_and_named() {
    let server = Server::start();
    for (path, size, expected) in [
        (&b"../escaped"[..], 1, "'.' or '..'"),
        (b"/tmp/escaped", 1, "absolute"),
        (b"a//b", 1, "empty component"),
        (b".supersync/x", 1, "reserved"),
        (b"huge", (1 << 48) - 1, "too many blocks"),
    ] {
        let destination = server.path("here/pulled");
        let address = hostile_server(vec![(path.to_vec(), size)]);
        let outcome = Outcome::of(&server, server.pull_from(address, "any", &destination, &["--connections", "1"]));
        assert_ne!(outcome.status, Some(0), "{}", path.escape_ascii());
        let told = format!("{} {:?}", outcome.errors, outcome.events);
        assert!(told.contains(expected), "{}: {told}", path.escape_ascii());
        assert!(!server.path("here/escaped").exists());
        assert!(!destination.exists(), "{}", path.escape_ascii());
    }
}

#[test]
fn owners_go_along_where_both_ends_are_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root gives files away");
        return;
    }
    let server = Server::start();
    let source = server.path("here/tree");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("theirs"), "x").expect("written");
    symlink("theirs", source.join("link")).expect("linked");
    let (uid, gid) = (Some(nix::unistd::Uid::from_raw(12_345)), Some(nix::unistd::Gid::from_raw(23_456)));
    for name in ["theirs", "link"] {
        nix::unistd::fchownat(nix::fcntl::AT_FDCWD, &source.join(name), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
            .expect("given");
    }
    fs::set_permissions(source.join("theirs"), fs::Permissions::from_mode(0o6755)).expect("set");
    server.push(&source, "open", &[]).ok();
    assert_same(&source, &server.path("open/tree"));
}

#[test]
fn extended_attributes_go_along_when_asked_for() {
    let server = Server::start();
    let source = server.path("here/tree");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("file"), "x").expect("written");
    let set = |path: &Path| Command::new("setfattr").args(["-n", "user.note", "-v", "a value"]).arg(path).status();
    if !set(&source.join("file")).is_ok_and(|status| status.success()) {
        println!("skipped: no setfattr here, or a file system without extended attributes");
        return;
    }
    let value = |path: PathBuf| {
        let output =
            Command::new("getfattr").args(["--only-values", "-n", "user.note"]).arg(path).output().expect("ran");
        OsString::from_vec(output.stdout)
    };
    server.push(&source, "open", &[]).ok();
    assert_eq!(value(server.path("open/tree/file")), "");
    server.push(&source, "open", &["--xattrs"]).ok();
    assert_eq!(value(server.path("open/tree/file")), "a value");
}
