//! What the file-to-file benches stand on: objects to send, a fresh destination for each run, and engines in one
//! process that are connected over loopback TCP.
//!
//! A run is timed from the moment the links are handed over (connected already) until the last object is committed.
//! What has come is compared with what was sent afterwards, outside the timed part. Everything lies on tmpfs where
//! there is one, so that the figures are about the data plane and not about a disk.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use nix::sys::resource::{UsageWho, getrusage};
use rand::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use supersync::engine::{Engine, EngineConfig, NewLink, Store};
use supersync::limits;
use supersync::proto::Protocol;
use supersync::proto::duplex::{FEATURES, LinkConfig};
use supersync::store::Root;
use supersync::transfer::{Flow, FlowId, Flows};
use supersync::units::{ByteCount, LinkId, ObjectName, PacketLen};
use supersync::uring::DriverKind;
use supersync::uring::socket::{self, Options};
use supersync::wire::checksum::crc32c;
use supersync::wire::hello::{Hello, Role};
use tempfile::TempDir;

use crate::plain::{self, Pipe};

/// Objects of the segment store's size: enough for the steady state to outweigh the start.
const OBJECTS: usize = 20;
const OBJECT_BYTES: usize = 24_000_000;
const TOTAL_BYTES: u64 = (OBJECTS * OBJECT_BYTES) as u64;
/// A run that takes longer than this has failed.
const RUN_WITHIN: Duration = Duration::from_secs(60);
/// How often a run looks whether it is done.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// The one that does not hold a link back on loopback.
const CONGESTION_WANTED: &str = "cubic";

/// What a node fetches into.
const INTO: FlowId = FlowId(0);
/// What a node serves from.
const FROM: FlowId = FlowId(1);

/// The objects, and where runs take place.
struct Bed {
    dir: TempDir,
    names: Vec<String>,
    digests: Vec<u32>,
    congestion: String,
}

/// Wall time and processor time of one run.
struct Cost {
    wall: Duration,
    cpu: Duration,
}

/// Carries all objects into the last of some places, through the others.
type Run<'a> = Box<dyn Fn(&[PathBuf]) -> Cost + 'a>;

/// The start of a run.
struct Start {
    at: Instant,
    cpu: Duration,
}

impl Start {
    fn now() -> Self {
        Self { cpu: cpu_time(), at: Instant::now() }
    }

    fn cost(&self) -> Cost {
        Cost { wall: self.at.elapsed(), cpu: cpu_time() - self.cpu }
    }
}

/// Times the engines on both drivers at both packet lengths, and plain copies as the control, with so many `relays`
/// between the ends.
pub(crate) fn bench(criterion: &mut Criterion, name: &str, relays: usize) {
    let bed = Bed::new();
    println!(
        "{name}: {TOTAL_BYTES} bytes in {OBJECTS} objects, below {}, {}",
        bed.dir.path().display(),
        bed.congestion
    );
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(TOTAL_BYTES)).sampling_mode(SamplingMode::Flat);
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(8));
    let mut runs: Vec<(String, Run<'_>)> = vec![("control".into(), Box::new(|places| copy(&bed, places)))];
    for (mode, driver) in [("engines", DriverKind::Uring), ("blocking", DriverKind::Blocking)] {
        for packet_bytes in [1400, 65_536] {
            let bed = &bed;
            let run = move |places: &[PathBuf]| run_engines(bed, driver, packet_bytes, places);
            runs.push((format!("{mode}/{packet_bytes}"), Box::new(run)));
        }
    }
    for (function, run) in runs {
        let mut cpu = Vec::new();
        group.bench_function(&function, |bencher| {
            bencher.iter_custom(|iterations| {
                let costs = (0..iterations).map(|_| bed.timed(relays, &run));
                costs.inspect(|cost| cpu.push(cost.cpu)).map(|cost| cost.wall).sum()
            });
        });
        cpu.sort();
        if let Some(median) = cpu.get(cpu.len() / 2) {
            let seconds = median.as_secs_f64() / (TOTAL_BYTES as f64 / 1e9);
            println!("{name}/{function}: processor time of all threads {seconds:.2} s/GB");
        }
    }
    group.finish();
}

impl Bed {
    fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("supersync-bench").tempdir_in(parent).expect("a directory");
        let source = dir.path().join("source");
        fs::create_dir(&source).expect("a fresh directory takes a name");
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let mut bytes = vec![0; OBJECT_BYTES];
        let (mut names, mut digests) = (Vec::new(), Vec::new());
        for index in 0..OBJECTS {
            let name = format!("stock{index}");
            random.fill_bytes(&mut bytes);
            fs::write(source.join(&name), &bytes).expect("room for the objects");
            names.push(name);
            digests.push(crc32c(&bytes));
        }
        let mut bed = Self { dir, names, digests, congestion: String::new() };
        bed.congestion = socket::congestion(&bed.connect().0).expect("every TCP socket has one");
        bed
    }

    /// Where the objects are.
    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// The objects' names and lengths.
    fn objects(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.iter().map(|name| (name.as_str(), OBJECT_BYTES as u64))
    }

    /// Two ends of a new connection, with the congestion control wanted where that is allowed.
    fn connect(&self) -> (OwnedFd, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        let (far, _) = listener.accept().expect("its other end");
        let ends = (OwnedFd::from(near), OwnedFd::from(far));
        for end in [&ends.0, &ends.1] {
            let wanted = Options { no_delay: true, congestion: Some(CONGESTION_WANTED.into()), ..Options::default() };
            // Where it is not allowed the system's serves both, and is printed.
            let _ = socket::apply(end, &wanted);
        }
        ends
    }

    /// One run into fresh places: a spool for each relay, then the destination.
    fn timed(&self, relays: usize, run: impl Fn(&[PathBuf]) -> Cost) -> Cost {
        let fresh = tempfile::tempdir_in(self.dir.path()).expect("a fresh directory");
        let places: Vec<PathBuf> = (0..=relays).map(|index| fresh.path().join(index.to_string())).collect();
        places.iter().for_each(|place| fs::create_dir(place).expect("a fresh directory takes a name"));
        let cost = run(&places);
        self.check(&places[relays]);
        cost
    }

    fn check(&self, place: &Path) {
        for (name, digest) in self.names.iter().zip(&self.digests) {
            let found = fs::read(place.join(name)).expect("it is there when the run is over");
            assert!(found.len() == OBJECT_BYTES && crc32c(&found) == *digest, "{name} is not what was sent");
        }
    }
}

/// Processor time of this process so far, in both modes.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask after itself");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
        .sum()
}

/// The control: copies all objects through each of `places` but the last, into the last. A relay splices what comes
/// into its spool and sends it on from there block by block, as an exchange cuts through.
fn copy(bed: &Bed, places: &[PathBuf]) -> Cost {
    let source = bed.source();
    let mut connections: Vec<_> = places.iter().map(|_| bed.connect()).collect();
    let start = Start::now();
    std::thread::scope(|scope| {
        let (near, mut inward) = connections.remove(0);
        scope.spawn(move || {
            for (name, size) in bed.objects() {
                plain::send(&near, &source.join(name), [size]);
            }
        });
        let (destination, spools) = places.split_last().expect("there is always a destination");
        for spool in spools {
            let (onward, next) = connections.remove(0);
            let from = std::mem::replace(&mut inward, next);
            let (came, told) = objects_in_blocks(bed);
            scope.spawn(move || receive(bed, &from, spool, came));
            scope.spawn(move || {
                for ((name, _), blocks) in bed.objects().zip(told) {
                    plain::send(&onward, &spool.join(name), blocks);
                }
            });
        }
        let (came, _told) = objects_in_blocks(bed);
        receive(bed, &inward, destination, came);
    });
    start.cost()
}

/// For each object a channel that tells of blocks that have come.
fn objects_in_blocks(bed: &Bed) -> (Vec<Sender<u64>>, Vec<Receiver<u64>>) {
    bed.objects().map(|_| channel()).unzip()
}

/// Receives all objects into files below `place`, and tells of each block; an object is told to its end when its
/// channel closes.
fn receive(bed: &Bed, socket: &OwnedFd, place: &Path, came: Vec<Sender<u64>>) {
    let pipe = Pipe::new();
    for ((name, size), came) in bed.objects().zip(came) {
        pipe.receive(socket, &place.join(name), size, |bytes| {
            // Nobody listens at the end of the way.
            let _ = came.send(bytes);
        });
    }
}

/// One node that serves, one for each spool, one that fetches; one link between neighbours.
fn run_engines(bed: &Bed, driver: DriverKind, packet_bytes: u32, places: &[PathBuf]) -> Cost {
    let (destination, spools) = places.split_last().expect("there is always a destination");
    let mut engines = vec![server(bed, driver)];
    engines.extend(spools.iter().map(|spool| relay(spool, driver)));
    engines.push(client(bed, destination, driver));
    let connections: Vec<_> = (1..engines.len()).map(|_| bed.connect()).collect();
    let start = Start::now();
    for (index, (pair, (near, far))) in engines.windows(2).zip(connections).enumerate() {
        // The one nearer to the source serves what the other one fetches. A relay's second flow has nothing in it.
        let fetches = if index == 0 { INTO } else { FROM };
        add_link(&pair[0], near, packet_bytes, 2 * index, fetches);
        add_link(&pair[1], far, packet_bytes, 2 * index + 1, INTO);
    }
    while engines.last().is_some_and(|client| client.committed_bytes() < TOTAL_BYTES) {
        assert!(start.at.elapsed() < RUN_WITHIN, "nothing has come of it within {} s", RUN_WITHIN.as_secs());
        std::thread::sleep(LOOK_EVERY);
    }
    let cost = start.cost();
    engines.iter().for_each(Engine::kill);
    cost
}

fn server(bed: &Bed, driver: DriverKind) -> Engine {
    let root = Arc::new(Root::open(&bed.source()).expect("it was made"));
    let mut offers = Flow::offer_only();
    for (name, size) in bed.objects() {
        offers.offer(object(name), ByteCount(size));
    }
    start_engine(driver, vec![Flow::fetch(), offers], vec![Store::Remote(Arc::clone(&root)), Store::Local(root)])
}

fn client(bed: &Bed, destination: &Path, driver: DriverKind) -> Engine {
    let root = Arc::new(Root::create(destination).expect("it was made"));
    let mut wants = Flow::fetch();
    for (name, size) in bed.objects() {
        wants.want(object(name), Some(ByteCount(size)), false);
    }
    start_engine(driver, vec![wants, Flow::offer_only()], vec![Store::Remote(Arc::clone(&root)), Store::Local(root)])
}

fn relay(spool: &Path, driver: DriverKind) -> Engine {
    let root = Arc::new(Root::create(spool).expect("it was made"));
    let flows = vec![Flow::relay(ByteCount(2 * TOTAL_BYTES)), Flow::relay(ByteCount(0))];
    start_engine(driver, flows, vec![Store::Spool(Arc::clone(&root)), Store::Spool(root)])
}

fn start_engine(driver: DriverKind, flows: Vec<Flow>, stores: Vec<Store>) -> Engine {
    let journals = stores.iter().map(|_| None).collect();
    let config = EngineConfig { flows: Flows::new(flows), stores, journals, driver, workers: 1, seed: 1 };
    Engine::start(config, |_| ()).expect("the kernel gives what the driver needs")
}

fn add_link(engine: &Engine, socket: OwnedFd, packet_bytes: u32, node: usize, fetch: FlowId) {
    let node_name = |node: usize| format!("node{node}").parse().expect("a plain name");
    // Neighbours must not be of one role; nothing else follows from it.
    let role = if node.is_multiple_of(2) { Role::Trader } else { Role::Exchange };
    let hello = Hello {
        version: Hello::VERSION,
        features: FEATURES,
        packet_bytes_max: limits::PACKET_BYTES_MAX,
        link: None,
        role,
        node: node_name(node),
    };
    let config = LinkConfig {
        id: LinkId(node as u64 + 1),
        packet_len: PacketLen::new(packet_bytes).expect("in bounds"),
        hello,
        configured_peer: None,
        fallback_peer: node_name(node),
    };
    let serve = if fetch == INTO { FROM } else { INTO };
    engine.add_link(NewLink { socket, config, protocol: Protocol::Duplex, fetch, serve, address: "loopback".into() });
}

fn object(name: &str) -> ObjectName {
    ObjectName::new(name.as_bytes()).expect("a plain name")
}
