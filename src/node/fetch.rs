//! The client of the named protocol (seed 001): fetches what a server has in its `local/` into a `remote/` of its own.
//!
//! No node: it has no config, no control socket and no state but the directory that it fetches into. It blocks the
//! thread that calls it; the bytes go through an [`engine`](crate::engine) of its own, so that parts, commits and
//! markers are those of every other protocol.
//!
//! ```text
//! connect -> R:: -> names -> what is not here, whole and marked -> connect -> R:name: ... -> all here
//!                                                                     ^   server lost: what was here in part goes,
//!                                                                     +-- and is fetched again from its start
//! ```

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::engine::{Engine, EngineConfig, EngineError, NewLink, Notice, Store};
use crate::proto::duplex::LinkConfig;
use crate::proto::named::{End, Listing, Progress};
use crate::proto::{Protocol, duplex};
use crate::store::{Root, StoreError};
use crate::transfer::{Flow, FlowId, Flows, ObjectState, Problem, Totals};
use crate::units::{ByteCount, LinkId, NodeName, ObjectName, PacketLen};
use crate::uring::{DriverKind, socket};
use crate::wire::duplex::{NameTooLong, check_name_fits};
use crate::wire::hello::{Hello, Role};
use crate::wire::padding::Padding;
use crate::{exit, limits};

/// The directory in the data directory that objects come into.
pub const FETCHED_INTO: &str = "remote";

/// The flow that is fetched.
const FETCH: FlowId = FlowId(0);
/// A flow that serves nothing: a link has one.
const NOTHING: FlowId = FlowId(1);

/// What is to be fetched.
#[derive(Debug, Clone)]
pub struct FetchJob {
    /// The server, as `host:port`.
    pub address: String,
    /// The data directory: what is fetched lands in `remote/` below it, which is made where it is missing.
    pub destination: PathBuf,
    /// The objects; none: all that the server has. Those that are here already, whole and marked, are skipped.
    pub names: Vec<ObjectName>,
    /// N, as at the server.
    pub packet_len: PacketLen,
    /// What the bytes are moved with.
    pub driver: DriverKind,
}

/// How far a fetch has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchProgress {
    /// What it does now.
    pub stage: FetchStage,
    /// Objects that were not here when it began; 0 until the names are known.
    pub objects: u64,
    /// Of these, the ones that are here now.
    pub fetched: u64,
    /// Bytes of them that are here, of objects under way too.
    pub bytes: ByteCount,
    /// Objects that were here already.
    pub skipped: u64,
}

/// What a fetch does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchStage {
    /// It asks what there is.
    Listing,
    /// It fetches.
    Fetching,
    /// The server is lost, and tried again.
    Reconnecting {
        /// Why the last connection ended, or could not be made.
        reason: String,
    },
}

/// What a fetch has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchSummary {
    /// Objects that were fetched.
    pub fetched: u64,
    /// Their length.
    pub bytes: ByteCount,
    /// Objects that were here already, whole and marked.
    pub skipped: u64,
    /// Objects that could not be had, or lines of the listing that name none, and why.
    pub failed: Vec<(String, String)>,
    /// Of these, what the server says that it does not have, or that is no name: no other run gets it either.
    pub refused: u64,
    /// Connections that were lost on the way.
    pub reconnects: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why a fetch ended before everything was tried. What was whole by then is here and marked, and the next run skips it.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A name that does not fit the packets.
    #[error("{0}; fetch with larger packets, which the server must have too")]
    Name(#[from] NameTooLong),
    /// The server's address is none.
    #[error("{address}: cannot resolve it: {reason}; write HOST:PORT")]
    Address {
        /// What was given.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk does not take what comes.
    #[error("{reason}")]
    Disk {
        /// What the store said.
        reason: String,
    },
    /// The data plane cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The server cannot be reached any more.
    #[error(
        "{address}: given up after {tries} tries in a row: {reason}; {missing} are still missing, and the same command goes on with these"
    )]
    Lost {
        /// The server.
        address: String,
        /// Why the last connection ended, or could not be made.
        reason: String,
        /// Connections in a row that brought nothing whole.
        tries: u32,
        /// What is not here.
        missing: Missing,
    },
    /// The server sends what it must not, or nothing.
    #[error("{address}: {reason}; is it a listener with protocol = \"named\" and the same packet_bytes?")]
    Protocol {
        /// The server.
        address: String,
        /// What came, and where, or that nothing did.
        reason: String,
    },
    /// The server does not tell what it has.
    #[error("{address}: it does not tell what it has: {reason}; name the objects that are to be fetched")]
    NoListing {
        /// The server.
        address: String,
        /// What it said.
        reason: String,
    },
    /// More objects than one flow holds.
    #[error("{address}: it has more than {max} objects; name the ones that are to be fetched", max = limits::OBJECTS_MAX)]
    TooMany {
        /// The server.
        address: String,
    },
}

/// What is not here when a fetch ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// So many objects.
    Objects(u64),
    /// All, and how many that is was not told.
    All,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Objects(objects) => write!(f, "{objects} objects"),
            Self::All => f.write_str("all objects"),
        }
    }
}

impl FetchError {
    /// The exit status that says so to scripts.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Lost { .. } => exit::INCOMPLETE,
            Self::Name(_) => exit::USAGE,
            _ if exit::is_permission(self) => exit::PERMISSION,
            _ => exit::FAILED,
        }
    }
}

/// Fetches, and returns when everything is here, durable and marked, or was tried. `on_progress` is called on this
/// thread, about every [`limits::FETCH_PROGRESS_EVERY`].
pub fn fetch(job: FetchJob, on_progress: impl FnMut(&FetchProgress)) -> Result<FetchSummary, FetchError> {
    let began = Instant::now();
    for name in &job.names {
        check_name_fits(name, job.packet_len)?;
    }
    if let Err(error) = job.address.to_socket_addrs() {
        return Err(FetchError::Address { address: job.address, reason: error.to_string() });
    }
    super::raise_open_files();
    let root = Arc::new(Root::create(&job.destination.join(FETCHED_INTO))?);
    let stage = FetchStage::Fetching;
    let progress = FetchProgress { stage, objects: 0, fetched: 0, bytes: ByteCount(0), skipped: 0 };
    let line = Line { address: job.address, packet_len: job.packet_len, tries: 0, connections: 0, answered: false };
    let mut run =
        Run { line, driver: job.driver, failed: Vec::new(), refused: 0, reconnects: 0, progress, on_progress };
    let names = if job.names.is_empty() { run.list()? } else { job.names.into_iter().collect() };
    let wanted = run.missing(&root, names)?;
    if !wanted.is_empty() {
        run.fetch(&root, wanted)?;
    }
    let FetchProgress { fetched, bytes, skipped, .. } = run.progress;
    let Run { failed, refused, reconnects, .. } = run;
    Ok(FetchSummary { fetched, bytes, skipped, failed, refused, reconnects, elapsed: began.elapsed() })
}

/// The way to the server.
struct Line {
    address: String,
    packet_len: PacketLen,
    /// Tries in a row that brought nothing whole.
    tries: u32,
    connections: u32,
    /// Something that can be understood has come over one.
    answered: bool,
}

impl Line {
    fn connect(&mut self) -> Result<TcpStream, String> {
        let addresses = self.address.to_socket_addrs().map_err(|error| format!("cannot resolve the name: {error}"))?;
        let mut last = "the name has no address".to_owned();
        for address in addresses {
            match TcpStream::connect_timeout(&address, limits::DIAL_WITHIN) {
                Ok(stream) => {
                    self.connections += 1;
                    return Ok(stream);
                }
                Err(error) => last = socket::describe(&error),
            }
        }
        Err(last)
    }

    /// A connection brought nothing: how long to wait for the next try, if there is one.
    fn next_try(&mut self, reason: &str, missing: Missing) -> Result<Duration, FetchError> {
        self.tries += 1;
        let address = || self.address.clone();
        if !self.answered && self.connections >= limits::FETCH_UNANSWERED_MAX {
            let reason = format!("nothing that can be understood came over {} connections: {reason}", self.connections);
            return Err(FetchError::Protocol { address: address(), reason });
        }
        if self.tries >= limits::FETCH_TRIES_MAX {
            let reason = reason.to_owned();
            return Err(FetchError::Lost { address: address(), reason, tries: self.tries, missing });
        }
        let delay = limits::REDIAL_MIN * 2_u32.pow(self.tries.min(16) - 1);
        Ok(delay.min(limits::FETCH_RETRY_MAX).mul_f64(rand::rng().random_range(0.5..1.0)))
    }
}

/// A fetch under way.
struct Run<P> {
    line: Line,
    driver: DriverKind,
    failed: Vec<(String, String)>,
    refused: u64,
    reconnects: u64,
    progress: FetchProgress,
    on_progress: P,
}

/// Why a listing did not come.
enum ListError {
    /// It may come over another connection.
    Lost(String),
    Final(FetchError),
}

impl<P: FnMut(&FetchProgress)> Run<P> {
    // -- what there is -----------------------------------------------------------------------------------------------

    /// The names of all that the server has.
    fn list(&mut self) -> Result<BTreeSet<ObjectName>, FetchError> {
        self.tell(FetchStage::Listing);
        loop {
            let reason = match self.list_once() {
                Ok((names, unnamed)) => {
                    let why = "the listing has it, and it is no object's name";
                    self.failed.extend(unnamed.into_iter().map(|line| (line, why.to_owned())));
                    self.line.tries = 0;
                    return Ok(names);
                }
                Err(ListError::Final(error)) => return Err(error),
                Err(ListError::Lost(reason)) => reason,
            };
            let delay = self.line.next_try(&reason, Missing::All)?;
            self.reconnects += 1;
            self.tell(FetchStage::Reconnecting { reason });
            std::thread::sleep(delay);
        }
    }

    /// Names, and the first of the lines that are none.
    fn list_once(&mut self) -> Result<(BTreeSet<ObjectName>, Vec<String>), ListError> {
        let lost = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => ListError::Lost("the peer closed the connection".into()),
            std::io::ErrorKind::WouldBlock => ListError::Lost("it does not answer".into()),
            _ => ListError::Lost(socket::describe(&error)),
        };
        let mut stream = self.line.connect().map_err(ListError::Lost)?;
        let address = self.line.address.clone();
        stream.set_read_timeout(Some(limits::NAMED_SILENCE_MAX)).map_err(lost)?;
        stream.set_write_timeout(Some(limits::NAMED_SILENCE_MAX)).map_err(lost)?;
        let mut packet = Listing::request();
        let padding = Padding::new(rand::rng().random());
        let room = self.line.packet_len.bytes() - packet.len();
        packet.extend_from_slice(padding.slice(room, &mut 0));
        stream.write_all(&packet).map_err(lost)?;
        let mut stream = std::io::BufReader::with_capacity(limits::IDLE_BUFFER_BYTES, stream);
        let mut listing = Listing::new(self.line.packet_len);
        let (mut names, mut unnamed) = (BTreeSet::new(), Vec::new());
        loop {
            stream.read_exact(&mut packet).map_err(lost)?;
            self.line.answered = true;
            let taken = listing.handle_packet(&packet, |line| match line {
                Ok(name) => drop(names.insert(name)),
                Err(line) if unnamed.len() < limits::SCAN_LIST_MAX => unnamed.push(line.escape_ascii().to_string()),
                Err(_) => {}
            });
            match taken {
                Ok(Progress::Done) => return Ok((names, unnamed)),
                Ok(Progress::Coming) if names.len() <= limits::OBJECTS_MAX => {}
                Ok(Progress::Coming) => return Err(ListError::Final(FetchError::TooMany { address })),
                Ok(Progress::Refused(reason)) => {
                    return Err(ListError::Final(FetchError::NoListing { address, reason }));
                }
                Err(error) => {
                    let reason = error.to_string();
                    return Err(ListError::Final(FetchError::Protocol { address, reason }));
                }
            }
        }
    }

    /// Those of `names` that are not here, whole and marked.
    fn missing(&mut self, root: &Root, names: BTreeSet<ObjectName>) -> Result<Vec<ObjectName>, FetchError> {
        let mut wanted = Vec::new();
        for name in names {
            if let Err(error) = check_name_fits(&name, self.line.packet_len) {
                self.refuse(&name, &error);
                continue;
            }
            match root.is_done(&name) {
                Ok(done) if done.is_yes() => self.progress.skipped += 1,
                Ok(_) => wanted.push(name),
                Err(StoreError::BadName { reason, .. }) => self.refuse(&name, &reason),
                Err(StoreError::Outside { root, object }) => {
                    let error = StoreError::Outside { root, object };
                    self.failed.push((name.to_string(), error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.progress.objects = wanted.len() as u64;
        Ok(wanted)
    }

    /// No run gets it.
    fn refuse(&mut self, name: &ObjectName, reason: &dyn std::fmt::Display) {
        self.refused += 1;
        self.failed.push((name.to_string(), reason.to_string()));
    }

    // -- bringing it here --------------------------------------------------------------------------------------------

    fn fetch(&mut self, root: &Arc<Root>, wanted: Vec<ObjectName>) -> Result<(), FetchError> {
        let mut flow = Flow::fetch();
        flow.set_key(rand::rng().random());
        for name in wanted {
            flow.want(name, None, false);
        }
        let (notices, inbox) = mpsc::channel();
        let config = EngineConfig {
            flows: Flows::new(vec![flow, Flow::offer_only()]),
            stores: vec![Store::Remote(Arc::clone(root)), Store::Local(Arc::clone(root))],
            journals: vec![None, None],
            driver: self.driver,
            workers: 1,
            seed: rand::rng().random(),
        };
        let engine = Engine::start(config, move |notice| drop(notices.send(notice)))?;
        let outcome = self.connect_until_done(&engine, &inbox);
        engine.drain(limits::DRAIN_WITHIN);
        let totals = self.look(&engine);
        (self.progress.fetched, self.progress.bytes) = (totals.present, totals.present_bytes);
        outcome
    }

    fn connect_until_done(&mut self, engine: &Engine, inbox: &Receiver<Notice>) -> Result<(), FetchError> {
        for link in 1.. {
            // What came last may have become whole since the connection ended.
            if self.is_over(engine) {
                break;
            }
            let before = self.look(engine).present;
            let (reason, damaged) = match self.line.connect() {
                Ok(stream) => {
                    self.tell(FetchStage::Fetching);
                    self.add_link(engine, LinkId(link), stream);
                    match self.follow(engine, inbox, LinkId(link))? {
                        None => return Ok(()),
                        Some(end) => {
                            self.line.answered |= engine.traffic().payload_in > 0;
                            end
                        }
                    }
                }
                Err(reason) => (reason, false),
            };
            let totals = self.look(engine);
            if totals.present > before {
                self.line.tries = 0;
            } else if damaged {
                return Err(FetchError::Protocol { address: self.line.address.clone(), reason });
            }
            let missing = Missing::Objects(totals.objects - totals.present);
            let delay = self.line.next_try(&reason, missing)?;
            self.reconnects += 1;
            self.tell(FetchStage::Reconnecting { reason });
            std::thread::sleep(delay);
        }
        Ok(())
    }

    fn add_link(&self, engine: &Engine, id: LinkId, stream: TcpStream) {
        let socket = stream.into();
        if let Err(error) = super::set_up(&socket, None) {
            tracing::warn!("the socket keeps the system's settings: {error}");
        }
        // Nobody is told these names: the protocol has no hello.
        let name = NodeName::new(b"server").expect("letters");
        let hello = Hello {
            version: Hello::VERSION,
            features: duplex::FEATURES,
            packet_bytes_max: limits::PACKET_BYTES_MAX,
            link: None,
            role: Role::Exchange,
            node: name.clone(),
        };
        let packet_len = self.line.packet_len;
        let config = LinkConfig { id, packet_len, hello, configured_peer: None, fallback_peer: name };
        let (protocol, address) = (Protocol::Named(End::Client), self.line.address.clone());
        engine.add_link(NewLink { socket, config, protocol, fetch: FETCH, serve: NOTHING, address });
    }

    /// Waits for a connection to end: why, and whether for bytes that were damaged. `None`: all that could be had is
    /// here.
    fn follow(
        &mut self,
        engine: &Engine,
        inbox: &Receiver<Notice>,
        id: LinkId,
    ) -> Result<Option<(String, bool)>, FetchError> {
        let mut told = Instant::now();
        loop {
            match inbox.recv_timeout(limits::FETCH_LOOK_EVERY) {
                Ok(Notice::Closed { link, damaged, reason, .. }) if link == id => return Ok(Some((reason, damaged))),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Some(("the engine has ended".into(), false))),
            }
            if let Some(reason) =
                engine.with_flows(|flows, now| flows.at(FETCH).last_store_failure(now).map(str::to_owned))
            {
                return Err(FetchError::Disk { reason });
            }
            if self.is_over(engine) {
                return Ok(None);
            }
            if told.elapsed() >= limits::FETCH_PROGRESS_EVERY {
                told = Instant::now();
                self.tell(FetchStage::Fetching);
            }
        }
    }

    /// Whether everything is here or was tried often enough.
    fn is_over(&mut self, engine: &Engine) -> bool {
        let totals = self.look(engine);
        if totals.present + totals.failed < totals.objects {
            return false;
        }
        let failed = engine.with_flows(|flows, _| {
            let flow = flows.at(FETCH);
            let left = flow.objects().filter(|(_, state, ..)| !matches!(state, ObjectState::Present { .. }));
            let left: Vec<_> = left.map(|(name, .., problem)| (name.clone(), problem.cloned())).collect();
            let given_up = left.into_iter().map(|(name, problem)| {
                let problem = problem?;
                let id = flow.find(&name)?;
                let is_final = match problem {
                    Problem::BrokenOff(_) => flow.failures(id) >= limits::FETCH_BROKEN_OFF_MAX,
                    _ => true,
                };
                let is_refused = matches!(problem, Problem::Refused(_));
                is_final.then(|| (is_refused, (name.to_string(), problem.to_string())))
            });
            given_up.collect::<Option<Vec<_>>>()
        });
        let is_over = failed.is_some();
        for (is_refused, failed) in failed.into_iter().flatten() {
            self.refused += u64::from(is_refused);
            self.failed.push(failed);
        }
        is_over
    }

    fn look(&mut self, engine: &Engine) -> Totals {
        let totals = engine.with_flows(|flows, _| flows.at(FETCH).totals());
        self.progress.fetched = totals.present;
        self.progress.bytes = totals.present_bytes + totals.arriving_bytes;
        totals
    }

    fn tell(&mut self, stage: FetchStage) {
        self.progress.stage = stage;
        (self.on_progress)(&self.progress);
    }
}
