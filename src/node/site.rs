//! A node's state, and the thread that runs its control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::{Notify, mpsc, oneshot, watch as signal};
use tokio::time::{Instant, interval};

use super::flaps::{self, Change, Flaps};
use super::line::{Caller, Slot, Tally, free_number};
use super::links::Rates;
use super::report::Handle;
use super::{NodeError, dial, inventory, listen, watch};
use crate::config::{
    self, Config, Delete, EngineChoice, Exchange, HttpAddress, LinkAddress, Listen, RoleConfig, StoreConfig, Trader,
};
use crate::control::{ControlSocket, HttpDoor, ReloadReport};
use crate::engine::session::{Module, Modules};
use crate::engine::{Engine, EngineConfig, EngineError, NewLink, Notice, Store};
use crate::limits;
use crate::proto::duplex::{self, LinkConfig};
use crate::proto::{Protocol, extended, named};
use crate::store::{Done, Journal, Resumed, Root, SegmentSpec, Spool, Unmarked, hash_source, scan};
use crate::transfer::{Flow, FlowId, Flows, ObjectState};
use crate::units::{ByteCount, LinkId, NodeName, ObjectName};
use crate::uring::control::{self, Listener};
use crate::uring::socket::{self, Options};
use crate::uring::{DriverKind, RingError};
use crate::wire::checksum::crc32c;
use crate::wire::duplex::check_name_fits;
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
    engine: OnceLock<Engine>,
    listening: OnceLock<Vec<SocketAddr>>,
    /// The flow's stores, in the order of the flows' ids.
    pub(super) stores: Vec<Store>,
    next_link: AtomicU64,
    pub(super) slots: Mutex<Vec<Arc<Slot>>>,
    closers: Mutex<BTreeMap<LinkId, oneshot::Sender<String>>>,
    pub(super) callers: Mutex<BTreeMap<NodeName, Caller>>,
    /// Links of those who ask by name, and come and go as they like.
    pub(super) clients: Mutex<BTreeSet<LinkId>>,
    /// What an operator should look at in the store.
    pub(super) store_problems: Mutex<Vec<String>>,
    /// Files of `local/` that cannot be read.
    pub(super) unreadable: Mutex<Vec<String>>,
    pub(super) reload_problem: Mutex<Option<String>>,
    /// The config was refused when it was read last.
    pub(super) reload_failed: AtomicBool,
    /// All of `local/` was looked through at least once.
    pub(super) scanned: AtomicBool,
    pub(super) rates: Mutex<Rates>,
    flaps: Mutex<Flaps>,
    look_again: Arc<Notify>,
    /// Peers that an operator has paused.
    pub(super) paused: Mutex<BTreeSet<NodeName>>,
    /// A peer is resumed, or places of links are no longer in the config.
    pub(super) resumed: Notify,
    /// What of `local/` is to be hashed, where objects are offered with their checksums.
    pub(super) hasher: Option<inventory::Queue>,
    pub(super) checks_wanted: Notify,
    /// Who waits for the next look at `remote/` to end.
    pub(super) check_waiters: Mutex<Vec<oneshot::Sender<()>>>,
    /// Somebody asks on the control socket that the node ends.
    pub(super) drain_wanted: Notify,
    draining: AtomicBool,
    /// The node has begun to end.
    ending: Notify,
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
    let ended = control::block_on(driver, async {
        match Site::start(config, file, kept, driver, commands.clone()) {
            Ok((site, doors)) => {
                let _ = ready.send(Ok(Arc::clone(&site)));
                site.serve(doors, commands, inbox).await;
            }
            Err(error) => drop(ready.send(Err(error))),
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

impl Site {
    fn start(
        config: Config,
        file: Option<PathBuf>,
        kept: listen::Kept,
        driver: DriverKind,
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
        let site = Arc::new(Self {
            config: Mutex::new(Arc::new(config)),
            file,
            engine: OnceLock::new(),
            listening: OnceLock::new(),
            stores: stores.clone(),
            next_link: AtomicU64::new(1),
            slots: Mutex::default(),
            closers: Mutex::default(),
            callers: Mutex::default(),
            clients: Mutex::default(),
            store_problems: Mutex::default(),
            unreadable: Mutex::default(),
            reload_problem: Mutex::default(),
            reload_failed: AtomicBool::new(false),
            scanned: AtomicBool::new(false),
            rates: Mutex::default(),
            flaps: Mutex::default(),
            look_again: Arc::default(),
            paused: Mutex::default(),
            resumed: Notify::new(),
            hasher,
            checks_wanted: Notify::new(),
            check_waiters: Mutex::default(),
            drain_wanted: Notify::new(),
            draining: AtomicBool::new(false),
            ending: Notify::new(),
        });
        let notify = move |notice| drop(commands.send(Command::Notice(notice)));
        let seed = rand::rng().random();
        let engine = Engine::start(EngineConfig { flows, stores, journals, driver, workers, seed }, notify)?;
        let _ = site.engine.set(engine);
        site.begin(kept)?;
        if let Some(http) = &http {
            tracing::info!("page, metrics and health: {http}");
        }
        Ok((site, (socket, http)))
    }

    /// Looks at the store, then opens the doors.
    fn begin(self: &Arc<Self>, mut kept: listen::Kept) -> Result<(), NodeError> {
        let config = self.config();
        match &config.role {
            RoleConfig::Trader(trader) => {
                if self.hasher.is_some() {
                    inventory::start(self).map_err(NodeError::Runtime)?;
                }
                // Whoever knows the names beforehand asks at once; others wait until they are told.
                let specified = trader.store.as_ref().is_some_and(|store| store.segments.is_some());
                let looks_later = self.hasher.is_some() && !specified && !self.serves_by_name();
                if !looks_later {
                    self.look_at_local();
                }
                if let Some(store) = &trader.store {
                    self.want_objects(store)?;
                }
                let mut listeners = Vec::new();
                for Listen { address, protocol, .. } in &trader.listen {
                    let listener = kept.listener(self.engine().driver(), *address);
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
                    watch::start_remote(Arc::clone(self));
                }
            }
            RoleConfig::Exchange(exchange) => {
                for (index, peer) in exchange.peers.iter().enumerate() {
                    for address in &peer.links {
                        self.add_slot(index, address);
                    }
                }
            }
        }
        Ok(())
    }

    async fn serve(
        self: Arc<Self>,
        (socket, http): Doors,
        commands: mpsc::UnboundedSender<Command>,
        mut inbox: mpsc::UnboundedReceiver<Command>,
    ) {
        let (stop, stopped) = signal::channel(false);
        let answering = Arc::new(Handle(Arc::clone(&self), commands));
        let end = async |mut stopped: signal::Receiver<bool>| drop(stopped.wait_for(|stopped| *stopped).await);
        let looking = http.map(|http| http.serve(Arc::clone(&answering) as _, end(stopped.clone())));
        let serving = tokio::task::spawn_local(async move {
            let looking = async { if let Some(looking) = looking { looking.await } else { Ok(()) } };
            let (answered, looked) = tokio::join!(socket.serve(answering, end(stopped)), looking);
            for error in [answered, looked].into_iter().filter_map(Result::err) {
                tracing::error!("the control plane failed: {error}");
            }
        });
        let mut tick = interval(super::report::SAMPLE_EVERY);
        let kill = loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    None | Some(Command::Drain) => break false,
                    Some(Command::Kill) => break true,
                    // A failure is logged and shown by status, too.
                    Some(Command::Reload(done)) => drop(done.send(self.apply_reload())),
                    Some(Command::Notice(notice)) => self.handle_notice(notice),
                },
                () = self.drain_wanted.notified() => break false,
                _ = tick.tick() => {
                    self.sample();
                    let due = lock(&self.flaps).poll(Instant::now());
                    due.into_iter().for_each(flaps::log);
                    self.engine().with_flows(|flows, now| flows.iter_mut().for_each(|(_, flow)| {
                        flow.expire(now);
                        flow.review();
                    }));
                }
            }
        };
        self.draining.store(true, Ordering::Relaxed);
        self.ending.notify_one();
        // Nobody reads it any more: who has asked for a reload is told so.
        drop(inbox);
        // The engine may take seconds to end; the control socket answers meanwhile.
        let engine = Arc::clone(&self);
        let ended = tokio::task::spawn_blocking(move || {
            let engine = engine.engine();
            if kill { engine.kill() } else { engine.drain(limits::DRAIN_WITHIN) }
        });
        let _ = ended.await;
        let _ = stop.send(true);
        let _ = serving.await;
    }

    fn handle_notice(&self, notice: Notice) {
        match notice {
            Notice::Met { link, address, .. } if lock(&self.clients).contains(&link) => {
                tracing::info!(link = link.0, address, "a client asks by name");
            }
            Notice::Closed { link, address, reason, .. } if lock(&self.clients).remove(&link) => {
                tracing::info!(link = link.0, address, "client gone: {reason}");
            }
            Notice::Met { link, peer, .. } if self.is_trader() && self.is_paused(&peer) => {
                tracing::debug!(link = link.0, %peer, "refused: it is paused");
                self.engine().close_link(link, super::pause::REASON);
            }
            Notice::Met { link, peer, address } => {
                lock(&self.slots).iter().filter(|slot| slot.is_link(link)).for_each(|slot| slot.handle_met());
                self.tell(self.place(link, peer.as_str(), &address), Change::Link("link up".into()));
                if self.is_trader() {
                    let mut callers = lock(&self.callers);
                    // Whoever connects says what it is called: names that nobody uses any more make room.
                    if callers.len() >= limits::LINKS_MAX && !callers.contains_key(&peer) {
                        callers.retain(|peer, caller| caller.up > 0 || self.is_paused(peer));
                    }
                    callers.entry(peer).or_default().handle_met(link, &address);
                }
            }
            Notice::Closed { link, peer, address, damaged, reason } => {
                let name = peer.as_ref().map(NodeName::to_string).or_else(|| self.dialed_peer(link));
                let name = name.unwrap_or_else(|| "unknown".into());
                self.tell(self.place(link, &name, &address), Change::Link(format!("link down: {reason}")));
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
                (peer.to_owned(), host, None)
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
        (peer, slot.address.remote.to_string(), Some(slot.number.into()))
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
        self.hand_over(id, Protocol::Duplex, socket, address, peer, (FIRST, SECOND));
    }

    /// A connection of one who asks by name.
    pub(super) fn add_client(&self, socket: OwnedFd, address: SocketAddr) {
        let id = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        lock(&self.clients).insert(id);
        self.hand_over(id, Protocol::Named(named::End::Server), socket, address, None, (FIRST, NAMED));
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
        self.hand_over(id, Protocol::Duplex, socket, address, peer, flows);
        id
    }

    fn hand_over(
        &self,
        id: LinkId,
        protocol: Protocol,
        socket: OwnedFd,
        address: SocketAddr,
        configured_peer: Option<NodeName>,
        (fetch, serve): (FlowId, FlowId),
    ) {
        let (config, fallback_peer) = (self.config(), fallback_name(address.ip()));
        let address = address.to_string();
        let options = Options {
            no_delay: true,
            user_timeout: Some(limits::UNACKNOWLEDGED_MAX),
            keep_alive: Some((limits::TCP_IDLE, limits::TCP_PROBE_EVERY, limits::TCP_PROBES)),
            congestion: config.congestion.clone(),
            ..Options::default()
        };
        if let Err(error) = socket::apply(&socket, &options) {
            tracing::warn!(link = id.0, address, "the socket keeps the system's settings: {error}");
        }
        let role = if self.is_trader() { Role::Trader } else { Role::Exchange };
        let hello = Hello {
            version: Hello::VERSION,
            features: if config.blocks { extended::FEATURES } else { duplex::FEATURES },
            packet_bytes_max: limits::PACKET_BYTES_MAX,
            role,
            node: config.name.clone(),
        };
        let config = LinkConfig { id, packet_len: config.packet_len, hello, configured_peer, fallback_peer };
        tracing::debug!(link = id.0, address, "connected");
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

    /// Puts on the list what is to be fetched: the segments of the specification, or else whatever the peer has. What is here
    /// from earlier is told, marked and whole.
    fn want_objects(&self, store: &StoreConfig) -> Result<(), NodeError> {
        let Store::Remote(root) = &self.stores[usize::from(FIRST.0)] else { return Ok(()) };
        let packet_len = self.config().packet_len;
        let (names, size) = match &store.segments {
            Some(segments) => {
                let spec = SegmentSpec::new(&segments.pattern, segments.object_bytes())?;
                (spec.names, Some(spec.size))
            }
            None if self.config().blocks => (scan(root)?.objects.into_iter().map(|(name, _)| name).collect(), None),
            None => {
                tracing::warn!("no store.segments in the config and no blocks: nothing is fetched, local/ is served");
                return Ok(());
            }
        };
        let mut wants = Vec::with_capacity(names.len());
        for name in names {
            if let Err(error) = check_name_fits(&name, packet_len) {
                lock(&self.store_problems).push(error.to_string());
                continue;
            }
            let found = root.size_of(&name).ok().flatten();
            let whole = size.or(found).filter(|&size| match look(root, &name, size) {
                Looked::Whole => true,
                Looked::Lie(lie) => {
                    take_back(root, &name, &lie);
                    false
                }
                Looked::Unmarked | Looked::Other | Looked::Unknown => false,
            });
            let marked = whole.and_then(|size| Some((size, root.marked_root(&name).ok().flatten()?)));
            wants.push((name, whole.is_some(), marked));
        }
        self.engine().with_flows(|flows, now| {
            let flow = flows.at(FIRST);
            flow.fetch_listed_only(size.is_some());
            for (name, present, marked) in wants {
                if size.is_some() {
                    flow.want(name.clone(), size, present);
                }
                if let Some((size, root)) = marked {
                    flow.have(name, size, root);
                }
            }
            flow.share_out(now);
        });
        Ok(())
    }

    /// The root should be looked at again.
    pub(super) fn look_again(&self) {
        self.look_again.notify_one();
    }

    /// Fetches again what was marked and is no longer there, whole and marked.
    pub(super) fn check_remote(&self) {
        let Store::Remote(root) = &self.stores[usize::from(FIRST.0)] else { return };
        let present: Vec<(ObjectName, ByteCount)> = self.engine().with_flows(|flows, _| {
            let objects = flows.at(FIRST).objects();
            let present = objects.filter_map(|(name, state, _, _)| match state {
                ObjectState::Present { size } => Some((name.clone(), size)),
                _ => None,
            });
            present.collect()
        });
        for (name, size) in present {
            let looked = look(root, &name, size);
            if matches!(looked, Looked::Whole | Looked::Unknown) {
                continue;
            }
            // What has been replaced meanwhile is not what was looked at.
            let is_missed = self.engine().with_flows(|flows, _| flows.at(FIRST).want_again(&name, size));
            if let Looked::Lie(lie) = looked
                && is_missed
            {
                take_back(root, &name, &lie);
            }
        }
    }
}

/// What a peer is called that says nothing of itself: its address.
pub(super) fn fallback_name(address: IpAddr) -> NodeName {
    let text = address.to_canonical().to_string().replace(':', "-");
    let text = if text.starts_with('-') { format!("0{text}") } else { text };
    NodeName::new(text.as_bytes()).expect("an address without colons is a node's name")
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The flows of a node, where their objects live, and what their journals are.
type Parts = (Flows, Vec<Store>, Vec<Option<Journal>>);

fn trader_flows(trader: &Trader, store: &StoreConfig, node: &Config) -> Result<Parts, NodeError> {
    let remote = Arc::new(Root::create(&store.remote)?);
    let local = Arc::new(Root::open(&store.local)?);
    if remote.leftovers() > 0 {
        tracing::info!("removed {} parts of an interrupted run from remote/", remote.leftovers());
    }
    let mut fetch = Flow::fetch();
    fetch.set_key(rand::rng().random());
    fetch.set_mirror(store.delete == Delete::Mirror);
    let journal = if node.blocks { Some(open_journal(&remote, Unmarked::TakeBack, &mut fetch)?) } else { None };
    let mut offer = Flow::offer_only();
    offer.set_origin(crc32c(node.name.as_str().as_bytes()));
    offer.start_epoch(rand::rng().random());
    let (mut flows, mut journals) = (vec![fetch, offer], vec![journal, None]);
    let mut stores = vec![Store::Remote(remote), Store::Local(Arc::clone(&local))];
    if trader.listen.iter().any(|listen| listen.protocol == config::Protocol::Named) {
        let mut named = Flow::offer_only();
        named.set_key(rand::rng().random());
        flows.push(named);
        stores.push(Store::Local(local));
        journals.push(None);
    }
    Ok((Flows::new(flows), stores, journals))
}

fn exchange_flows(exchange: &Exchange, blocks: bool) -> Result<Parts, NodeError> {
    let names: Vec<String> = exchange.peers.iter().map(|peer| peer.name.to_string()).collect();
    let spool = Spool::open(&exchange.spool.path, &names)?;
    let half = ByteCount(exchange.spool.max_bytes.0 / 2);
    let (mut flows, mut stores, mut journals) = (Vec::new(), Vec::new(), Vec::new());
    for peer in spool.peers() {
        let mut flow = Flow::relay(half);
        flow.set_key(rand::rng().random());
        flow.start_epoch(rand::rng().random());
        let mut kept: Vec<_> = peer.kept.iter().collect();
        kept.sort_by_key(|object| object.last_use);
        for object in kept {
            // By its root it can be told whether it is still what the trader has.
            let source = if blocks { peer.root.open_source(&object.name).ok() } else { None };
            let hashes = source.and_then(|source| hash_source(&source).ok());
            flow.keep(object.name.clone(), object.size, hashes.map(|hashes| hashes.root));
        }
        journals.push(if blocks { Some(open_journal(&peer.root, Unmarked::Keep, &mut flow)?) } else { None });
        flows.push(flow);
        stores.push(Store::Spool(Arc::clone(&peer.root)));
    }
    Ok((Flows::new(flows), stores, journals))
}

/// Tells a flow what an earlier run has left of objects that were arriving.
fn open_journal(root: &Root, unmarked: Unmarked, flow: &mut Flow) -> Result<Journal, NodeError> {
    let (mut journal, resumed) = Journal::open(root, unmarked)?;
    let (mut objects, mut bytes) = (0, ByteCount(0));
    for Resumed { name, size, root: hash, .. } in resumed {
        let part = match root.open_part(&name, size, hash) {
            Ok(part) => part,
            Err(error) => {
                tracing::warn!("what is here of an object is fetched again: {error}");
                continue;
            }
        };
        match journal.left(&part) {
            Ok(left) => {
                (objects, bytes) = (objects + 1, bytes + left.ranges.total());
                flow.resume(name, (size, hash), left.ranges, left.pieces);
            }
            Err(error) => {
                tracing::warn!("what is here of an object is fetched again: {error}");
                journal.forget(&part);
                part.abandon();
            }
        }
    }
    if objects > 0 {
        tracing::info!(objects, bytes = bytes.0, "going on with what an interrupted run has left");
    }
    Ok(journal)
}

/// What there is of an object that should be here with a certain size.
enum Looked {
    /// It is marked and has that size.
    Whole,
    /// It has no marker.
    Unmarked,
    /// It is marked, rightly, with another size.
    Other,
    /// Its marker is not true of what is here.
    Lie(String),
    /// That cannot be told now.
    Unknown,
}

/// Changes nothing: what is here of an object stays until another version of it takes its place.
fn look(root: &Root, name: &ObjectName, size: ByteCount) -> Looked {
    match root.is_done(name) {
        Ok(Done::Yes(found)) if found == size => Looked::Whole,
        Ok(Done::Yes(found)) => {
            tracing::warn!(object = %name, "is here with {found}, which should be {size}: it is fetched again");
            Looked::Other
        }
        Ok(Done::MarkerMissing) => Looked::Unmarked,
        Ok(Done::MarkerDamaged) => Looked::Lie("has a damaged marker".into()),
        Ok(Done::FileMissing) => Looked::Lie("is marked, but its file is gone".into()),
        Ok(Done::SizeDiffers { marked, found }) => Looked::Lie(format!("is marked with {marked}, but has {found}")),
        Err(error) => {
            tracing::warn!(object = %name, "cannot be looked at: {error}");
            Looked::Unknown
        }
    }
}

/// Removes a marker that is not true.
fn take_back(root: &Root, name: &ObjectName, lie: &str) {
    tracing::warn!(object = %name, "{lie}: it is fetched again");
    if let Err(error) = root.unmark(name) {
        tracing::warn!(object = %name, "{error}");
    }
}

/// Waits for signals and obeys them; returns when the node is to end. Feeds the service manager's watchdog meanwhile.
pub(super) fn serve_signals(site: &Arc<Site>, commands: &mpsc::UnboundedSender<Command>) -> Result<(), NodeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NodeError::Runtime)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(NodeError::Runtime)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(NodeError::Runtime)?;
        let watchdog = sd_notify::watchdog_enabled().map_or(Duration::from_secs(5), |every| every / 3);
        let mut tick = interval(watchdog.min(Duration::from_secs(5)));
        notify(&[sd_notify::NotifyState::Ready]);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = site.ending.notified() => break,
                _ = hangup.recv() => {
                    // On the node's own thread, where links can be dialed.
                    let (done, reloaded) = oneshot::channel();
                    let _ = commands.send(Command::Reload(done));
                    let _ = reloaded.await;
                }
                _ = tick.tick() => {
                    if let Some(stuck) = site.stuck() {
                        tracing::error!("{stuck}");
                    } else {
                        let text = site.headline();
                        notify(&[sd_notify::NotifyState::Watchdog, sd_notify::NotifyState::Status(&text)]);
                    }
                }
            }
        }
        tracing::info!("stopping: links finish their packets, whole objects are committed");
        notify(&[sd_notify::NotifyState::Stopping]);
        Ok(())
    })
}

/// Tells the service manager.
pub(super) fn notify(state: &[sd_notify::NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(state);
}
