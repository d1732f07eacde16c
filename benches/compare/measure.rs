//! What `benches/compare/engines` runs: the meter that it holds beside everybody alike, and the control.
//!
//! The meter starts some commands at once and waits for them, or until files have come. The time is that of the wall;
//! the processor time that of the commands, of daemons that were there before, and of the children of both, in both
//! modes; memory is what each of them had of its own (RssAnon: neither its code nor the pages of files that it maps),
//! at most, in all.
//!
//! The control is that of `benches/plain.rs` between processes, over one connection: no headers, so both ends are told
//! the files.
#![allow(missing_docs, reason = "an example has no users but the script")]

#[path = "../plain.rs"]
mod plain;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, exit};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::{Pid, SysconfVar, sysconf};

use plain::Pipe;

/// How often the meter looks whether the commands are done.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How many looks it takes from one look at the memory to the next.
const LOOKS_PER_SAMPLE: u32 = 5;
/// What takes longer than this has failed.
const WITHIN: Duration = Duration::from_secs(300);

#[derive(Parser)]
enum Args {
    /// Measures commands with a lone '+' between them, and prints seconds, seconds of processor time, KiB of memory,
    /// and the processor time of each daemon and command in turn
    Run {
        /// A process that has to do with it
        #[arg(long = "daemon", value_name = "PID")]
        daemons: Vec<i32>,
        /// It is done when there are so many markers in DIR; the commands are ended then
        #[arg(long, num_args = 2, value_names = ["DIR", "COUNT"])]
        until: Vec<String>,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        commands: Vec<String>,
    },
    /// Sends files to ADDRESS
    Send { address: String, files: Vec<PathBuf> },
    /// Receives files of BYTES each into DIR from whoever connects to ADDRESS
    Receive {
        /// Have each on disk before the next
        #[arg(long)]
        fsync: bool,
        address: String,
        dir: PathBuf,
        bytes: u64,
        names: Vec<String>,
    },
    /// Passes on what comes from whoever connects to ADDRESS
    Relay { address: String, onward: String },
}

fn main() {
    match Args::parse() {
        Args::Run { daemons, until, commands } => {
            let markers: Vec<(PathBuf, usize)> = until
                .chunks_exact(2)
                .map(|pair| (pair[0].clone().into(), pair[1].parse().expect("COUNT is a number")))
                .collect();
            let daemons = daemons.into_iter().map(Pid::from_raw).collect();
            if let Err(why) = Run::start(daemons, &commands).measure(&markers) {
                eprintln!("measure: {why}");
                exit(1);
            }
        }
        Args::Send { address, files } => send(&address, &files),
        Args::Receive { fsync, address, dir, bytes, names } => receive(&address, &dir, bytes, &names, fsync),
        Args::Relay { address, onward } => relay(&address, &onward),
    }
}

fn send(address: &str, files: &[PathBuf]) {
    let socket = connect(address);
    for file in files {
        let size = fs::metadata(file).expect("it is there").len();
        plain::send(&socket, file, [size]);
    }
}

fn receive(address: &str, dir: &Path, bytes: u64, names: &[String], fsync: bool) {
    let (socket, pipe) = (accept(address), Pipe::new());
    for name in names {
        let file = pipe.receive(&socket, &dir.join(name), bytes, |_| ());
        if fsync {
            file.sync_all().expect("a disk that works");
        }
    }
    if fsync {
        File::open(dir).and_then(|dir| dir.sync_all()).expect("a disk that works");
    }
}

fn relay(address: &str, onward: &str) {
    let (from, pipe) = (accept(address), Pipe::new());
    let to = connect(onward);
    while pipe.pass(&from, &to, plain::BLOCK_BYTES) > 0 {}
}

fn accept(address: &str) -> TcpStream {
    let listener = TcpListener::bind(address).expect("a free port");
    listener.accept().expect("a connection").0
}

/// The other end is started at the same time, and may not listen yet.
fn connect(address: &str) -> TcpStream {
    let start = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(socket) => return socket,
            Err(error) => assert!(start.elapsed() < WITHIN, "{address}: {error}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// One run under the meter.
struct Run {
    start: Instant,
    /// Each with what it had used before.
    daemons: Vec<(Pid, Duration)>,
    commands: Vec<Running>,
    /// The most memory that each process had of its own, KiB.
    memory: BTreeMap<i32, u64>,
}

struct Running {
    child: Child,
    /// What it has used, once it has ended.
    used: Option<Duration>,
}

impl Run {
    fn start(daemons: Vec<Pid>, commands: &[String]) -> Self {
        let daemons = daemons.into_iter().map(|pid| (pid, used(pid))).collect();
        let start = Instant::now();
        let commands = commands.split(|word| word == "+").map(Running::start).collect();
        Self { start, daemons, commands, memory: BTreeMap::new() }
    }

    fn measure(mut self, markers: &[(PathBuf, usize)]) -> Result<(), String> {
        let result = self.watch(markers);
        // Whatever came of it, none is left behind.
        self.commands.into_iter().for_each(Running::end);
        result
    }

    fn watch(&mut self, markers: &[(PathBuf, usize)]) -> Result<(), String> {
        let mut looks = 0;
        while !self.is_done(markers)? {
            if self.start.elapsed() >= WITHIN {
                return Err(format!("not done within {} s", WITHIN.as_secs()));
            }
            if looks % LOOKS_PER_SAMPLE == 0 {
                self.sample_memory();
            }
            looks += 1;
            thread::sleep(LOOK_EVERY);
        }
        let seconds = self.start.elapsed().as_secs_f64();
        self.sample_memory();
        let start = Instant::now();
        // What a daemon has forked for its caller counts once it has ended.
        while self.daemons.iter().any(|(pid, _)| !children(*pid).is_empty()) && start.elapsed() < Duration::from_secs(5)
        {
            thread::sleep(LOOK_EVERY);
        }
        let daemons = self.daemons.iter().map(|(pid, before)| used(*pid) - *before);
        let commands = self.commands.iter().map(Running::used);
        let each: Vec<Duration> = daemons.chain(commands).collect();
        let cpu: Duration = each.iter().sum();
        print!("{seconds:.4} {:.4} {}", cpu.as_secs_f64(), self.memory.values().sum::<u64>());
        each.iter().for_each(|used| print!(" {:.4}", used.as_secs_f64()));
        println!();
        Ok(())
    }

    /// With markers: there are so many. Without: all commands have ended.
    fn is_done(&mut self, markers: &[(PathBuf, usize)]) -> Result<bool, String> {
        let mut ended = 0;
        for command in &mut self.commands {
            ended += usize::from(command.has_ended()?);
        }
        match (markers, ended) {
            ([], _) => Ok(ended == self.commands.len()),
            (_, 0) => Ok(markers.iter().all(|(dir, count)| marked(dir) >= *count)),
            _ => Err("a command has ended before its time".to_owned()),
        }
    }

    fn sample_memory(&mut self) {
        let running = self.commands.iter().filter(|command| command.used.is_none());
        let pids = self.daemons.iter().map(|(pid, _)| *pid).chain(running.map(Running::pid));
        for pid in pids.flat_map(|pid| std::iter::once(pid).chain(children(pid))) {
            let most = self.memory.entry(pid.as_raw()).or_default();
            *most = own_kib(pid).unwrap_or(0).max(*most);
        }
    }
}

impl Running {
    fn start(words: &[String]) -> Self {
        let (program, args) = words.split_first().expect("a command between two +");
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        Self { child, used: None }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn has_ended(&mut self) -> Result<bool, String> {
        if self.used.is_none() {
            let before = used_by_ended_children();
            let Some(status) = self.child.try_wait().expect("it is a child") else { return Ok(false) };
            self.used = Some(used_by_ended_children() - before);
            if !status.success() {
                return Err(format!("a command failed: {status}"));
            }
        }
        Ok(true)
    }

    fn used(&self) -> Duration {
        self.used.unwrap_or_else(|| used(self.pid()))
    }

    fn end(mut self) {
        if self.used.is_none() {
            kill(self.pid(), Signal::SIGTERM).expect("it is a child that was not waited for");
            self.child.wait().expect("it is a child");
        }
    }
}

/// Processor time of a process that runs, with its children that have ended.
fn used(pid: Pid) -> Duration {
    let own = clock_getcpuclockid(pid).and_then(ClockId::now).expect("it runs");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // Behind the name, which may hold anything: state is field 3 of proc(5), cutime and cstime are 16 and 17.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: u64 =
        fields.split_ascii_whitespace().skip(13).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().expect("every system has it") as u32;
    Duration::from(own) + Duration::from_secs(ticks) / ticks_per_second
}

fn used_by_ended_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("a process may ask after its children");
    let times = [usage.user_time(), usage.system_time()];
    times.iter().map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000)).sum()
}

/// None where it has ended.
fn own_kib(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?.split_ascii_whitespace().next()?.parse().ok()
}

fn children(pid: Pid) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).collect()
}

fn marked(dir: &Path) -> usize {
    let names = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    names.filter(|entry| entry.file_name().as_encoded_bytes().ends_with(b".success")).count()
}
