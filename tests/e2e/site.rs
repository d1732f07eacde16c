//! A site of daemons: its directory, its configs, its processes, and the oracle that looks at its files.
//!
//! Nodes are called `t1`, `t2` (traders), `e1`, `e2` (exchanges). Trader `t` listens on a loopback address that no
//! other test of any process uses, so that ports never collide.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use serde_json::Value;
use supersync::config::EngineChoice;
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const RECORD_BYTES: usize = 24;

/// What a site is made of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) segments: usize,
    /// Length of each segment, in records.
    pub(crate) records: usize,
    pub(crate) links: usize,
    pub(crate) exchanges: usize,
    pub(crate) packet_bytes: usize,
    pub(crate) spool: &'static str,
    /// Nodes of ours carry checked blocks between them. With SUPERSYNC_E2E_WHOLE in the environment no site does
    /// that a test does not want to.
    pub(crate) blocks: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            segments: 12,
            records: 5000,
            links: 2,
            exchanges: 2,
            packet_bytes: 1400,
            spool: "64MiB",
            blocks: std::env::var_os("SUPERSYNC_E2E_WHOLE").is_none(),
        }
    }
}

/// A running site.
pub(crate) struct Site {
    pub(crate) plan: Plan,
    dir: TempDir,
    nodes: Vec<(String, Child)>,
    address: [SocketAddr; 2],
    /// A node with mounts of its own, and the root directory as it sees it.
    inside: Option<(String, PathBuf)>,
}

impl Site {
    /// Makes directories, segments and configs, and starts nothing.
    pub(crate) fn new(plan: Plan) -> Self {
        let dir = tempfile::Builder::new().prefix("ss").tempdir().expect("a temporary directory");
        let address = [fresh_address(), fresh_address()];
        let site = Self { plan, dir, nodes: Vec::new(), address, inside: None };
        for trader in ["t1", "t2"] {
            fs::create_dir_all(site.path(trader).join("local")).expect("made");
            fs::create_dir_all(site.path(trader).join("remote")).expect("made");
            for segment in 1..=site.plan.segments {
                fs::write(site.local(trader, segment), random_bytes(site.segment_bytes())).expect("written");
            }
        }
        let [a, b] = site.address;
        site.write_trader("t1", &["127.0.0.0/8"], a);
        site.write_trader("t2", &["127.0.0.0/8"], b);
        for exchange in site.exchanges() {
            site.write_exchange(&exchange, [a, b]);
        }
        site
    }

    /// The same, with all nodes started, exchanges last.
    pub(crate) fn start(plan: Plan) -> Self {
        let mut site = Self::new(plan);
        for node in site.all() {
            site.run(&node);
        }
        site
    }

    pub(crate) fn exchanges(&self) -> Vec<String> {
        (1..=self.plan.exchanges).map(|index| format!("e{index}")).collect()
    }

    pub(crate) fn all(&self) -> Vec<String> {
        ["t1", "t2"].map(String::from).into_iter().chain(self.exchanges()).collect()
    }

    pub(crate) fn segment_bytes(&self) -> usize {
        self.plan.records * RECORD_BYTES
    }

    /// A node's directory.
    pub(crate) fn path(&self, node: &str) -> PathBuf {
        let path = self.dir.path().join(node);
        match &self.inside {
            Some((inside, root)) if inside == node => root.join(path.strip_prefix("/").expect("absolute")),
            _ => path,
        }
    }

    /// From now on sees the files of a running node as that node sees them.
    pub(crate) fn look_through(&mut self, node: &str) {
        self.inside = Some((node.to_owned(), format!("/proc/{}/root", self.pid(node)).into()));
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self, node: &str) -> PathBuf {
        self.dir.path().join(format!("{node}.toml"))
    }

    pub(crate) fn socket(&self, node: &str) -> PathBuf {
        self.dir.path().join(format!("{node}.sock"))
    }

    pub(crate) fn local(&self, trader: &str, segment: usize) -> PathBuf {
        self.path(trader).join(format!("local/stock{segment}"))
    }

    pub(crate) fn remote(&self, trader: &str, segment: usize) -> PathBuf {
        self.path(trader).join(format!("remote/stock{segment}"))
    }

    pub(crate) fn marker(&self, trader: &str, segment: usize) -> PathBuf {
        self.path(trader).join(format!("remote/stock{segment}.success"))
    }

    /// Where a trader listens.
    pub(crate) fn address(&self, trader: &str) -> SocketAddr {
        self.address[usize::from(trader != "t1")]
    }

    // -- configs -----------------------------------------------------------------------------------------------------

    pub(crate) fn write_trader(&self, name: &str, allow: &[&str], address: SocketAddr) {
        let Plan { segments, records, packet_bytes, blocks, .. } = self.plan;
        let (dir, home, engine) = (self.dir.path().display(), self.path(name), engine());
        let home = home.display();
        let text = format!(
            "role = \"trader\"\nname = \"{name}\"\npacket_bytes = {packet_bytes}\nengine = \"{engine}\"\nblocks = {blocks}\nstate_dir = \"{home}/state\"\n\
             [control]\nsocket = \"{dir}/{name}.sock\"\n\
             [store]\nlocal = \"{home}/local\"\nremote = \"{home}/remote\"\n\
             segments = {{ pattern = \"stock{{1..{segments}}}\", records = {records}, record_bytes = {RECORD_BYTES} }}\n\
             [[listen]]\naddress = \"{address}\"\nprotocol = \"duplex\"\nallow = {allow:?}\n"
        );
        fs::write(self.config(name), text).expect("written");
    }

    pub(crate) fn write_exchange(&self, name: &str, traders: [SocketAddr; 2]) {
        let Plan { links, packet_bytes, spool, blocks, .. } = self.plan;
        let (dir, home, engine) = (self.dir.path().display(), self.path(name), engine());
        let home = home.display();
        let mut text = format!(
            "role = \"exchange\"\nname = \"{name}\"\npacket_bytes = {packet_bytes}\nengine = \"{engine}\"\nblocks = {blocks}\nstate_dir = \"{home}/state\"\n\
             [control]\nsocket = \"{dir}/{name}.sock\"\n[spool]\npath = \"{home}/spool\"\nmax_bytes = \"{spool}\"\n"
        );
        for (trader, address) in ["t1", "t2"].iter().zip(traders) {
            let all = vec![address.to_string(); links];
            text.push_str(&format!("[[peer]]\nname = \"{trader}\"\nlinks = {all:?}\n"));
        }
        fs::create_dir_all(self.path(name).join("spool")).expect("made");
        fs::write(self.config(name), text).expect("written");
    }

    /// Has a trader want whatever its peers have, and not the segments of the plan. `delete`: a line of its store, or
    /// nothing.
    pub(crate) fn unlist(&self, trader: &str, delete: &str) {
        let text = fs::read_to_string(self.config(trader)).expect("there");
        let lines = text.lines().map(|line| if line.starts_with("segments") { delete } else { line });
        fs::write(self.config(trader), lines.flat_map(|line| [line, "\n"]).collect::<String>()).expect("written");
    }

    /// Says of one node alone whether it carries blocks.
    pub(crate) fn set_blocks(&self, node: &str, blocks: bool) {
        let text = fs::read_to_string(self.config(node)).expect("there");
        let said = format!("blocks = {}", self.plan.blocks);
        fs::write(self.config(node), text.replace(&said, &format!("blocks = {blocks}"))).expect("written");
    }

    // -- processes ---------------------------------------------------------------------------------------------------

    pub(crate) fn run(&mut self, node: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supersyncd"));
        command.arg("run").arg(self.config(node)).stdin(Stdio::null());
        self.run_as(node, command);
    }

    /// Runs a node by `command`, with its log in `NODE.log`.
    pub(crate) fn run_as(&mut self, node: &str, mut command: Command) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path(node)).expect("opened");
        let out = log.try_clone().expect("cloned");
        let child = command.env("NO_COLOR", "1").stdout(out).stderr(log).spawn().expect("started");
        self.nodes.push((node.to_owned(), child));
    }

    pub(crate) fn pid(&self, node: &str) -> u32 {
        self.child(node).id()
    }

    fn child(&self, node: &str) -> &Child {
        &self.nodes.iter().find(|(name, _)| name == node).expect("it runs").1
    }

    pub(crate) fn is_running(&mut self, node: &str) -> bool {
        let found = self.nodes.iter_mut().find(|(name, _)| name == node);
        found.is_some_and(|(_, child)| child.try_wait().expect("ours").is_none())
    }

    pub(crate) fn signal(&self, node: &str, signal: Signal) {
        kill(Pid::from_raw(self.pid(node) as i32), signal).expect("it lives");
    }

    /// Kills a node as a crash would.
    pub(crate) fn kill(&mut self, node: &str) {
        self.signal(node, Signal::SIGKILL);
        self.reap(node);
    }

    /// Waits for a node to end.
    pub(crate) fn reap(&mut self, node: &str) -> ExitStatus {
        let at = self.nodes.iter().position(|(name, _)| name == node).expect("it runs");
        let (_, mut child) = self.nodes.remove(at);
        let by = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("ours") {
                return status;
            }
            if Instant::now() > by {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{node} does not end; its log:\n{}", self.log(node));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn log_path(&self, node: &str) -> PathBuf {
        self.dir.path().join(format!("{node}.log"))
    }

    pub(crate) fn log(&self, node: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path(node)).unwrap_or_default()).into_owned()
    }

    // -- what there is to see ----------------------------------------------------------------------------------------

    /// What a node says of itself; `None` while it does not answer.
    pub(crate) fn status(&self, node: &str) -> Option<Value> {
        ask(&self.socket(node), "GET", "/v1/status")
    }

    /// One field of it by its JSON pointer; null while it does not answer.
    pub(crate) fn tells(&self, node: &str, pointer: &str) -> Value {
        self.status(node).and_then(|status| status.pointer(pointer).cloned()).unwrap_or_default()
    }

    /// Waits until `condition` holds. At every look the markers are checked too.
    pub(crate) fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        self.until_unchecked(what, |site| {
            site.check_markers();
            condition(site)
        });
    }

    /// The same where the test itself made a marker a lie.
    pub(crate) fn until_unchecked(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let by = Instant::now() + PATIENCE;
        loop {
            if condition(self) {
                return;
            }
            if Instant::now() > by {
                let directory = self.dir.path().to_owned();
                panic!("not within {PATIENCE:?}: {what}\n{}\nsee {}", self.report(), directory.display());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until both traders have everything, then compares all of it.
    pub(crate) fn until_converged(&mut self) {
        self.until("both traders have everything", |site| site.missing().is_empty());
        self.check_contents();
    }

    /// What is marked has the far trader's bytes.
    pub(crate) fn check_contents(&self) {
        self.check_markers();
        for trader in ["t1", "t2"] {
            for segment in (1..=self.plan.segments).filter(|&segment| self.marker(trader, segment).exists()) {
                let (ours, theirs) = (self.remote(trader, segment), self.local(other(trader), segment));
                assert_eq!(fs::read(&ours).expect("here"), fs::read(&theirs).expect("there"), "{}", ours.display());
            }
        }
    }

    /// What has no marker yet.
    pub(crate) fn missing(&self) -> Vec<(&'static str, usize)> {
        let all = ["t1", "t2"].into_iter().flat_map(|t| (1..=self.plan.segments).map(move |s| (t, s)));
        all.filter(|&(trader, segment)| !self.marker(trader, segment).exists()).collect()
    }

    pub(crate) fn has_markers(&self, trader: &str, count: usize) -> bool {
        (1..=self.plan.segments).filter(|&segment| self.marker(trader, segment).exists()).count() >= count
    }

    /// A marker stands only beside a whole, right file, whatever happens.
    pub(crate) fn check_markers(&self) {
        for trader in ["t1", "t2"] {
            for segment in 1..=self.plan.segments {
                let marker = self.marker(trader, segment);
                if !marker.exists() {
                    continue;
                }
                let here = fs::metadata(self.remote(trader, segment)).map(|meta| meta.len()).ok();
                let whole = self.segment_bytes() as u64;
                // A segment that is fetched again loses its marker first.
                assert!(here == Some(whole) || !marker.exists(), "{}: {here:?} of {whole}", marker.display());
            }
        }
    }

    /// The parts of objects that are arriving somewhere.
    pub(crate) fn parts(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut pending = vec![self.dir.path().to_owned()];
        while let Some(directory) = pending.pop() {
            let is_parts = directory.ends_with(".supersync/parts");
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                    _ if is_parts => found.push(entry.path()),
                    _ => {}
                }
            }
        }
        found
    }

    /// Of these, such as nobody will go on with: all but those in spools of sites with blocks, which keep them a while.
    pub(crate) fn stray_parts(&self) -> Vec<PathBuf> {
        let is_stray =
            |part: &PathBuf| !self.plan.blocks || !self.exchanges().iter().any(|e| part.starts_with(self.path(e)));
        self.parts().into_iter().filter(is_stray).collect()
    }

    /// Every node's status and the end of its log.
    pub(crate) fn report(&self) -> String {
        let mut text = format!("missing: {:?}\n", self.missing());
        for node in self.all() {
            let log = self.log(&node);
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(6)..];
            let status = self.status(&node).map(|s| s["state"].to_string()).unwrap_or_default();
            text.push_str(&format!("== {node}: {status}\n{}\n", tail.join("\n")));
        }
        text
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for (_, child) in &mut self.nodes {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() && std::env::var_os("SUPERSYNC_E2E_KEEP").is_some() {
            self.dir.disable_cleanup(true);
        }
    }
}

/// The trader at the far end.
pub(crate) fn other(trader: &str) -> &'static str {
    if trader == "t1" { "t2" } else { "t1" }
}

/// A loopback address of this process that was not given out before.
pub(crate) fn fresh_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (pid, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    assert!(next < 2500, "a test process has addresses for 2500 listeners");
    let address = [127, (1 + pid / 250 % 250) as u8, (pid % 250) as u8, 1 + (next % 250) as u8];
    (address, 7401 + (next / 250) as u16).into()
}

/// What nodes and clients move bytes with: as SUPERSYNC_E2E_ENGINE in the environment says, or what they choose.
pub(crate) fn engine() -> EngineChoice {
    let Ok(wanted) = std::env::var("SUPERSYNC_E2E_ENGINE") else { return EngineChoice::Auto };
    let found = EngineChoice::NAMED.into_iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("SUPERSYNC_E2E_ENGINE is no engine: {wanted}")).1
}

/// A number that a test draws its chances from; told, so that a failure can be had again.
pub(crate) fn chance() -> Pcg64Mcg {
    let given = std::env::var("SUPERSYNC_E2E_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| rand::rng().random());
    println!("SUPERSYNC_E2E_SEED={seed}");
    Pcg64Mcg::seed_from_u64(seed)
}

pub(crate) fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// One question to a control socket; `None` where nobody answers.
pub(crate) fn ask(socket: &Path, method: &str, path: &str) -> Option<Value> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8(answer).ok()?;
    let (_, body) = text.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

/// A kernel's figure of a process in KiB, such as `VmHWM`.
pub(crate) fn process_kib(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = text.lines().find(|line| line.starts_with(field)).expect("a field of the kernel");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count()
}
