//! A node's state, and the thread that runs its control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rand::RngExt as _;
use tokio::sync::{Notify, mpsc, oneshot, watch as signal};
use tokio::time::{Instant, interval};

use super::flaps::{self, Change, Flaps};
use super::flows::{exchange_flows, trader_flows};
use super::line::{Caller, Slot, Tally, free_number};
use super::links::Rates;
use super::problems::Subject;
use super::report::Handle;
use super::{NodeError, dial, inventory, listen, watch};
use crate::config::{Config, EngineChoice, HttpAddress, LinkAddress, Listen, RoleConfig, Trader};
use crate::control::{ControlError, ControlSocket, HttpDoor, ReloadReport};
use crate::engine::session::{Module, Modules};
use crate::engine::{self, Engine, EngineConfig, EngineError, NewLink, Notice, Store};
use crate::limits;
use crate::proto::duplex::{self, LinkConfig};
use crate::proto::{Protocol, extended, named};
use crate::store::{DirectoryLock, Sample, Skipped};
use crate::transfer::{Flow, FlowId, Flows};
use crate::units::{LinkId, NodeName};
use crate::uring::control::{self, Listener};
use crate::uring::{DriverKind, RingError};
use crate::wire::hello::{Hello, Role};

/// The flow of a trader's `remote/`, and of what an exchange fetches from its first peer.
pub(super) const FIRST: FlowId = FlowId(0);
/// The flow of a trader's `local/`, and of what an exchange fetches from its second peer.
pub(super) const SECOND: FlowId = FlowId(1);

/// The flow of a trader's `local/` for those who ask by name: offered as it stands, whether or not it was hashed.
pub(super) const NAMED: FlowId = FlowId(2);

/// Where the node answers: the control socket, and those who only look.
type Doors = (ControlSocket, Option<HttpDoor>);

/// What the node's thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// End in good order.
    Drain,
    /// End at once.
    Kill,
    /// Read the config again, and say what became of it.
    Reload(oneshot::Sender<Result<ReloadReport, String>>),
    /// The engine has something to say.
    Notice(Notice),
}

/// A node.
#[derive(Debug)]
pub(super) struct Site {
    config: Mutex<Arc<Config>>,
    pub(super) file: Option<PathBuf>,
    /// Of which kind the runtime of the node's thread is.
    pub(super) runtime: DriverKind,
    engine: OnceLock<Engine>,
    listening: OnceLock<Vec<SocketAddr>>,
    /// The flows' stores, in the order of the flows' ids.
    pub(super) stores: Vec<Store>,
    next_link: AtomicU64,
    pub(super) slots: Mutex<Vec<Arc<Slot>>>,
    closers: Mutex<BTreeMap<LinkId, oneshot::Sender<String>>>,
    pub(super) callers: Mutex<BTreeMap<NodeName, Caller>>,
    /// Links of those who ask by name, and come and go as they like.
    pub(super) clients: Mutex<BTreeSet<LinkId>>,
    /// What an operator should look at.
    pub(super) problems: Mutex<BTreeMap<Subject, Vec<String>>>,
    /// What of `local/` is never replicated, as it was told last.
    pub(super) skipped: Mutex<Sample<Skipped>>,
    pub(super) reload_problem: Mutex<Option<String>>,
    /// The config was refused when it was read last.
    pub(super) reload_failed: AtomicBool,
    /// Held by who reads the config again.
    pub(super) reloading: tokio::sync::Mutex<()>,
    /// It listens or dials: what there is to fetch is known.
    begun: AtomicBool,
    /// All of `local/` was looked through at least once.
    pub(super) scanned: AtomicBool,
    pub(super) rates: Mutex<Rates>,
    pub(super) flaps: Mutex<Flaps>,
    look_again: Arc<Notify>,
    /// Peers that an operator has paused.
    pub(super) paused: Mutex<BTreeSet<NodeName>>,
    /// A peer is resumed, or places of links are no longer in the config.
    pub(super) resumed: Notify,
    /// What of `local/` is to be hashed, where objects are offered with their checksums.
    pub(super) hasher: Option<inventory::Queue>,
    /// Held for as long as hashes are remembered.
    pub(super) state: Option<DirectoryLock>,
    pub(super) checks_wanted: Notify,
    /// The config has other modules.
    pub(super) modules_changed: Notify,
    /// Who waits for the next look at `remote/` to end.
    pub(super) check_waiters: Mutex<Vec<oneshot::Sender<()>>>,
    /// Somebody asks on the control socket that the node ends.
    pub(super) drain_wanted: Notify,
    draining: AtomicBool,
    /// The node has begun to end.
    pub(super) ending: Notify,
}

/// The node's thread: starts everything, says so, then serves until it is told to end.
pub(super) fn main(
    config: Config,
    file: Option<PathBuf>,
    kept: listen::Kept,
    commands: mpsc::UnboundedSender<Command>,
    inbox: mpsc::UnboundedReceiver<Command>,
    ready: oneshot::Sender<Result<Arc<Site>, NodeError>>,
) {
    let span = tracing::info_span!("node", node = %config.name);
    let _entered = span.enter();
    let driver = match choose_driver(config.engine) {
        Ok(driver) => driver,
        Err(error) => return drop(ready.send(Err(EngineError::from(error).into()))),
    };
    let ended = control::block_on(driver, async |runtime| {
        if runtime == DriverKind::Blocking && driver != runtime {
            tracing::warn!(
                "the node's own thread goes by plain calls: there is no memory for its ring (LimitMEMLOCK=)"
            );
        }
        let (site, (socket, http)) = match Site::new(config, file, (driver, runtime), commands.clone()) {
            Ok(made) => made,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let handle = Arc::new(Handle(Arc::clone(&site), commands));
        let (stop, stopped) = signal::channel(false);
        let end = async |mut stopped: signal::Receiver<bool>| drop(stopped.wait_for(|stopped| *stopped).await);
        // To look through the store may take minutes: until then whoever asks for its health is told so, and whoever
        // asks for more waits.
        let looking = http.map(|http| http.serve(Arc::clone(&handle) as _, end(stopped.clone())));
        let looking = looking.map(|looking| tokio::task::spawn_local(log_failure(looking)));
        match site.begin(kept).await {
            Ok(()) => {
                let answering = tokio::task::spawn_local(log_failure(socket.serve(handle, end(stopped))));
                let _ = ready.send(Ok(Arc::clone(&site)));
                site.serve(inbox).await;
                let _ = stop.send(true);
                let _ = answering.await;
            }
            Err(error) => {
                drop(socket);
                let _ = stop.send(true);
                let _ = ready.send(Err(error));
            }
        }
        if let Some(looking) = looking {
            let _ = looking.await;
        }
    });
    if let Err(error) = ended {
        tracing::error!("cannot start the node's runtime: {error}");
    }
}

/// What the config asks for, held against what the kernel allows.
fn choose_driver(wanted: EngineChoice) -> Result<DriverKind, RingError> {
    let (driver, missed) = wanted.driver()?;
    match missed {
        None => tracing::info!("the engine is {driver}, by engine = \"{wanted}\""),
        Some(why) => tracing::warn!("the engine is {driver}, plain calls instead of rings: {why}"),
    }
    Ok(driver)
}

async fn log_failure(serving: impl Future<Output = Result<(), ControlError>>) {
    if let Err(error) = serving.await {
        tracing::error!("the control plane failed: {error}");
    }
}

impl Site {
    /// A node that has not begun: nothing was looked at, nobody comes in.
    fn new(
        config: Config,
        file: Option<PathBuf>,
        (driver, runtime): (DriverKind, DriverKind),
        commands: mpsc::UnboundedSender<Command>,
    ) -> Result<(Arc<Self>, Doors), NodeError> {
        // First of all, so that two nodes of one name never share a store.
        let socket = ControlSocket::bind(&config.control.socket)?;
        let http = match &config.control.http {
            Some(HttpAddress::Loopback(address)) => Some(HttpDoor::loopback(*address)?),
            Some(HttpAddress::Socket(path)) => Some(HttpDoor::socket(path)?),
            None => None,
        };
        let (flows, stores, journals) = match &config.role {
            RoleConfig::Trader(trader @ Trader { store: Some(store), .. }) => trader_flows(trader, store, &config)?,
            // It has the flows of any trader; nothing is in them, and no link is made.
            RoleConfig::Trader(_) => (Flows::new(vec![Flow::fetch(), Flow::offer_only()]), Vec::new(), Vec::new()),
            RoleConfig::Exchange(exchange) => exchange_flows(exchange, config.blocks)?,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = config.workers.map_or((cores / 2).max(1), usize::from);
        let has_store = matches!(config.role, RoleConfig::Trader(Trader { store: Some(_), .. }));
        let hasher = (config.blocks && has_store).then(inventory::Queue::default);
        let state = if hasher.is_some() { inventory::lock_state(&config)? } else { None };
        let site = Arc::new(Self {
            config: Mutex::new(Arc::new(config)),
            file,
            runtime,
            engine: OnceLock::new(),
            listening: OnceLock::new(),
            stores: stores.clone(),
            next_link: AtomicU64::new(1),
            slots: Mutex::default(),
            closers: Mutex::default(),
            callers: Mutex::default(),
            clients: Mutex::default(),
            problems: Mutex::default(),
            skipped: Mutex::default(),
            reload_problem: Mutex::default(),
            reload_failed: AtomicBool::new(false),
            reloading: tokio::sync::Mutex::default(),
            begun: AtomicBool::new(false),
            scanned: AtomicBool::new(false),
            rates: Mutex::default(),
            flaps: Mutex::default(),
            look_again: Arc::default(),
            paused: Mutex::default(),
            resumed: Notify::new(),
            hasher,
            state,
            checks_wanted: Notify::new(),
            modules_changed: Notify::new(),
            check_waiters: Mutex::default(),
            drain_wanted: Notify::new(),
            draining: AtomicBool::new(false),
            ending: Notify::new(),
        });
        let notify = move |notice| drop(commands.send(Command::Notice(notice)));
        let seed = rand::rng().random();
        let engine = Engine::start(EngineConfig { flows, stores, journals, driver, workers, seed }, notify)?;
        let _ = site.engine.set(engine);
        if let Some(http) = &http {
            tracing::info!("page, metrics and health: {http}");
        }
        Ok((site, (socket, http)))
    }

    /// Looks at the store, then listens or dials.
    async fn begin(self: &Arc<Self>, mut kept: listen::Kept) -> Result<(), NodeError> {
        let config = self.config();
        match &config.role {
            RoleConfig::Trader(trader) => {
                if self.hasher.is_some() {
                    inventory::start(self).map_err(NodeError::Runtime)?;
                }
                // Whoever knows the names beforehand asks at once; others wait until they are told.
                let specified = trader.store.as_ref().is_some_and(|store| store.segments.is_some());
                let looks_later = self.hasher.is_some() && !specified && !self.serves_by_name();
                let looked = self.aside(move |site| {
                    if !looks_later {
                        site.look_at_local();
                    }
                    site.want_objects()
                });
                looked.await.map_err(NodeError::Runtime)??;
                let mut listeners = Vec::new();
                for Listen { address, protocol, .. } in &trader.listen {
                    let listener = kept.listener(self.runtime, *address);
                    let listener = listener.map_err(|source| NodeError::Listen { address: *address, source })?;
                    tracing::info!(address = %listener.address(), %protocol, "listening");
                    listeners.push(listener);
                }
                kept.keep(&listeners);
                let _ = self.listening.set(listeners.iter().map(Listener::address).collect());
                for (index, listener) in listeners.into_iter().enumerate() {
                    listen::start(Arc::clone(self), listener, index);
                }
                if let Some(local) = self.stores.get(usize::from(SECOND.0)).map(Store::root) {
                    let (site, local) = (Arc::clone(self), Arc::clone(local));
                    watch::start_local(site, local, Arc::clone(&self.look_again), looks_later);
                    watch::start_stores(Arc::clone(self));
                }
                watch::start_modules(Arc::clone(self));
            }
            RoleConfig::Exchange(exchange) => {
                for (index, peer) in exchange.peers.iter().enumerate() {
                    for address in &peer.links {
                        self.add_slot(index, address);
                    }
                }
                watch::start_stores(Arc::clone(self));
            }
        }
        self.begun.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn serve(self: &Arc<Self>, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let mut tick = interval(limits::RATE_EVERY);
        let kill = loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    None | Some(Command::Drain) => break false,
                    Some(Command::Kill) => break true,
                    // A failure is logged and shown by status, too.
                    Some(Command::Reload(done)) => {
                        let site = Arc::clone(self);
                        control::spawn(async move { drop(done.send(site.apply_reload().await)) });
                    }
                    Some(Command::Notice(notice)) => self.handle_notice(notice),
                },
                () = self.drain_wanted.notified() => break false,
                _ = tick.tick() => {
                    self.sample();
                    let due = lock(&self.flaps).poll(Instant::now());
                    due.into_iter().for_each(flaps::log);
                    self.engine().with_flows(|flows, now| flows.iter_mut().for_each(|(_, flow)| {
                        flow.expire(now);
                        flow.review(now);
                    }));
                }
            }
        };
        self.draining.store(true, Ordering::Relaxed);
        self.ending.notify_one();
        // Nobody reads it any more: who has asked for a reload is told so.
        drop(inbox);
        // The engine may take seconds to end; the control socket answers meanwhile.
        let ended = self.aside(move |site| {
            let engine = site.engine();
            if kill { engine.kill() } else { engine.drain(limits::DRAIN_WITHIN) }
        });
        let _ = ended.await;
    }

    /// Does what waits for the disk as [`on_thread`] does: `work` stops by itself when the node is ending.
    pub(super) async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> io::Result<T> {
        let site = Arc::clone(self);
        on_thread("ss-aside", move || work(&site)).await
    }

    fn handle_notice(&self, notice: Notice) {
        match notice {
            Notice::Met { link, address, .. } if lock(&self.clients).contains(&link) => {
                tracing::info!(connection = link.0, address, "a client asks by name");
            }
            Notice::Closed { link, address, reason, .. } if lock(&self.clients).remove(&link) => {
                tracing::info!(connection = link.0, address, "client gone: {reason}");
            }
            Notice::Met { link, peer, .. } if self.is_trader() && self.is_paused(&peer) => {
                tracing::debug!(connection = link.0, %peer, "refused: it is paused");
                self.engine().close_link(link, super::pause::REASON);
            }
            Notice::Met { link, peer, number, address } => {
                lock(&self.slots).iter().filter(|slot| slot.is_link(link)).for_each(|slot| slot.handle_met());
                if self.is_trader() {
                    let mut callers = lock(&self.callers);
                    // Whoever connects says what it is called: names that nobody uses any more make room.
                    if callers.len() >= limits::LINKS_MAX && !callers.contains_key(&peer) {
                        callers.retain(|peer, caller| !caller.links().is_empty() || self.is_paused(peer));
                    }
                    callers.entry(peer.clone()).or_default().handle_met(link, number, &address);
                }
                self.tell(self.place(link, peer.as_str(), &address), Change::Link("link up".into()));
            }
            Notice::Closed { link, peer, address, damaged, misfit, reason } => {
                let name = peer.as_ref().map(NodeName::to_string).or_else(|| self.dialed_peer(link));
                let name = name.unwrap_or_else(|| "unknown".into());
                let change = if misfit { Change::Misfit } else { Change::Link };
                self.tell(self.place(link, &name, &address), change(format!("link down: {reason}")));
                let mut callers = lock(&self.callers);
                if let Some(caller) = peer.and_then(|peer| callers.get_mut(&peer)) {
                    caller.handle_closed(link, damaged, &reason);
                }
                drop(callers);
                for slot in lock(&self.slots).iter().filter(|slot| slot.is_link(link)) {
                    lock(&slot.history).end(link, damaged);
                }
                if let Some(closer) = lock(&self.closers).remove(&link) {
                    let _ = closer.send(reason);
                }
            }
            Notice::Settled { link } => self.settle(link),
            Notice::SourceFailed { .. } => self.look_again.notify_one(),
        }
    }

    /// Logs what changed, unless it changes all the time.
    pub(super) fn tell(&self, place: flaps::Place, change: Change) {
        let line = lock(&self.flaps).handle(Instant::now(), place, change);
        line.into_iter().for_each(flaps::log);
    }

    /// Where a link is: the place of the config that it has, or the address that it comes from.
    fn place(&self, link: LinkId, peer: &str, address: &str) -> flaps::Place {
        match lock(&self.slots).iter().find(|slot| slot.is_link(link)) {
            Some(slot) => self.place_of(slot),
            None => {
                let host =
                    address.parse().map_or_else(|_| address.to_owned(), |address: SocketAddr| address.ip().to_string());
                let number = lock(&self.callers).values().find_map(|caller| caller.number(link));
                (peer.to_owned(), host, number)
            }
        }
    }

    /// Where the link of `slot` is, or is to be.
    pub(super) fn place_of(&self, slot: &Slot) -> flaps::Place {
        let config = self.config();
        let peer = match &config.role {
            RoleConfig::Exchange(exchange) => exchange.peers[slot.peer].name.to_string(),
            RoleConfig::Trader(_) => String::new(),
        };
        (peer, slot.address.remote.to_string(), Some(slot.number))
    }

    /// All that came over a connection that is gone is added to what its place has done.
    fn settle(&self, link: LinkId) {
        let take = |flows: &mut Flows| flows.iter_mut().find_map(|(_, flow)| flow.take_ended(link));
        let tally = self.engine().with_flows(|flows, _| take(flows)).map_or_else(Tally::default, Tally::from);
        let tally = Tally { traffic: self.engine().take_ended(link).unwrap_or_default(), ..tally };
        let of_caller = lock(&self.callers).values_mut().any(|caller| caller.settle(link, tally));
        if !of_caller {
            let _ = lock(&self.slots).iter().any(|slot| lock(&slot.history).settle(link, tally));
        }
    }

    /// Whom the config says that a link leads to.
    fn dialed_peer(&self, link: LinkId) -> Option<String> {
        let config = self.config();
        let RoleConfig::Exchange(exchange) = &config.role else { return None };
        let slots = lock(&self.slots);
        let slot = slots.iter().find(|slot| slot.is_link(link))?;
        Some(exchange.peers[slot.peer].name.to_string())
    }

    // -- what others ask ---------------------------------------------------------------------------------------------

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.config))
    }

    pub(super) fn set_config(&self, config: Config) {
        *lock(&self.config) = Arc::new(config);
    }

    pub(super) fn engine(&self) -> &Engine {
        self.engine.get().expect("set before anybody else has the site")
    }

    pub(super) fn listening(&self) -> &[SocketAddr] {
        self.listening.get().map_or(&[], Vec::as_slice)
    }

    pub(super) fn is_trader(&self) -> bool {
        matches!(self.config().role, RoleConfig::Trader(_))
    }

    /// Whether anybody may ask for what is in `local/` by name.
    pub(super) fn serves_by_name(&self) -> bool {
        self.stores.len() > usize::from(NAMED.0)
    }

    /// Whether it listens or dials, and knows what there is to fetch.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn is_ending(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn listen(&self, index: usize) -> Option<Listen> {
        match &self.config().role {
            RoleConfig::Trader(trader) => trader.listen.get(index).cloned(),
            RoleConfig::Exchange(_) => None,
        }
    }

    /// The modules that a client of sessions may use, as the config is now.
    pub(super) fn modules(&self, client: IpAddr) -> Modules {
        let config = self.config();
        let RoleConfig::Trader(trader) = &config.role else { return Modules::default() };
        let admitting = trader.modules.iter().filter(|module| module.admits(client));
        let list = admitting.map(|module| Module {
            name: module.name.clone(),
            path: module.path.clone(),
            read_only: module.read_only,
        });
        Modules { list: list.collect() }
    }

    // -- links -------------------------------------------------------------------------------------------------------

    /// A connection that a peer made.
    pub(super) fn add_link(&self, socket: OwnedFd, address: SocketAddr, peer: Option<NodeName>) {
        let id = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        self.hand_over((id, None), Protocol::Duplex, (socket, address), peer, (FIRST, SECOND));
    }

    /// A connection of one who asks by name.
    pub(super) fn add_client(&self, socket: OwnedFd, address: SocketAddr) {
        let id = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        lock(&self.clients).insert(id);
        self.hand_over((id, None), Protocol::Named(named::End::Server), (socket, address), None, (FIRST, NAMED));
    }

    /// A connection that we made for `slot`; `closed` is told when and why it ends.
    pub(super) fn add_dialed(
        &self,
        socket: OwnedFd,
        address: SocketAddr,
        slot: &Slot,
        closed: oneshot::Sender<String>,
    ) -> LinkId {
        let flows = if slot.peer == 0 { (FIRST, SECOND) } else { (SECOND, FIRST) };
        let config = self.config();
        let peer = match &config.role {
            RoleConfig::Exchange(exchange) => Some(exchange.peers[slot.peer].name.clone()),
            RoleConfig::Trader(_) => None,
        };
        slot.connects.fetch_add(1, Ordering::Relaxed);
        let id = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        lock(&self.closers).insert(id, closed);
        let number = u16::try_from(slot.number).ok().and_then(NonZeroU16::new);
        self.hand_over((id, number), Protocol::Duplex, (socket, address), peer, flows);
        id
    }

    fn hand_over(
        &self,
        (id, link): (LinkId, Option<NonZeroU16>),
        protocol: Protocol,
        (socket, address): (OwnedFd, SocketAddr),
        configured_peer: Option<NodeName>,
        (fetch, serve): (FlowId, FlowId),
    ) {
        let (config, fallback_peer) = (self.config(), fallback_name(address.ip()));
        let address = address.to_string();
        if let Err(error) = super::set_up(&socket, config.congestion.clone()) {
            tracing::warn!(connection = id.0, address, "the socket keeps the system's settings: {error}");
        }
        let role = if self.is_trader() { Role::Trader } else { Role::Exchange };
        let hello = Hello {
            version: Hello::VERSION,
            features: if config.blocks { extended::FEATURES } else { duplex::FEATURES },
            packet_bytes_max: limits::PACKET_BYTES_MAX,
            link,
            role,
            node: config.name.clone(),
        };
        let config = LinkConfig { id, packet_len: config.packet_len, hello, configured_peer, fallback_peer };
        tracing::debug!(connection = id.0, address, "connected");
        self.engine().add_link(NewLink { socket, config, protocol, fetch, serve, address });
    }

    pub(super) fn add_slot(self: &Arc<Self>, peer: usize, address: &LinkAddress) {
        let mut slots = lock(&self.slots);
        let number = free_number(slots.iter().filter(|slot| slot.peer == peer).map(|slot| slot.number));
        let slot = Arc::new(Slot::new(peer, number, address.clone()));
        slots.push(Arc::clone(&slot));
        drop(slots);
        dial::start(Arc::clone(self), slot);
    }

    // -- the store ---------------------------------------------------------------------------------------------------

    /// The root should be looked at again.
    pub(super) fn look_again(&self) {
        self.look_again.notify_one();
    }
}

/// What a peer is called that says nothing of itself: its address.
pub(super) fn fallback_name(address: IpAddr) -> NodeName {
    let text = address.to_canonical().to_string().replace(':', "-");
    let text = if text.starts_with('-') { format!("0{text}") } else { text };
    NodeName::new(text.as_bytes()).expect("an address without colons is a node's name")
}

/// Does what waits on a thread of its own, which the runtime's end does not wait for as it would for one of its own.
pub(super) async fn on_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, ended) = oneshot::channel();
    engine::spawn(name, move || drop(done.send(work())))?;
    ended.await.map_err(|_| io::Error::other("the thread for it died"))
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
