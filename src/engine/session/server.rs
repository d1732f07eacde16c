//! The sessions that a node serves: what callers want, and whether they get it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::connection::{NewConnection, Role};
use super::ends::{landing_options, receive, rules, send, walk_options};
use super::modules::Modules;
use super::running::Running;
use crate::engine::Places;
use crate::engine::shared::{Shared, lock};
use crate::limits;
use crate::proto::session::Side;
use crate::store::tree::{Landing, Memory, Tree, TreeError, Walk, WalkSource};
use crate::units::{LinkId, PathError, SessionId, TreePath};
use crate::wire::session::{Command, ErrorCode, Message, MessageKind, Options, encode};

/// Links of sessions are numbered from here on, those of a site below.
const FIRST_LINK: u64 = 1 << 63;

/// The sessions of an engine.
#[derive(Debug)]
pub(in crate::engine) struct Sessions {
    served: Mutex<BTreeMap<SessionId, Served>>,
    /// Trees that are written to, shared by the sessions that write to them.
    trees: Mutex<BTreeMap<PathBuf, Arc<Slot>>>,
    /// What those that write remember of entries.
    memory: Arc<Memory>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// No more sessions begin.
    is_over: AtomicBool,
    next_link: AtomicU64,
    /// Those that have not said what for: [`limits::SESSION_CALLERS_MAX`].
    callers: Arc<Mutex<Seats>>,
    seats: Arc<Mutex<Seats>>,
}

/// Connections that others have made.
#[derive(Debug, Default)]
struct Seats {
    taken: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// A connection's place among them.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Mutex<Seats>>,
    from: IpAddr,
}

impl Seat {
    /// One more; also, why it is one too many.
    fn take(seats: &Arc<Mutex<Seats>>, from: IpAddr, places: Places) -> (Self, Option<String>) {
        let mut held = lock(seats);
        let taken = held.taken;
        held.taken += 1;
        let from_there = held.by_address.entry(from).or_default();
        let refusal = places.refusal(taken, *from_there);
        *from_there += 1;
        (Self { seats: Arc::clone(seats), from }, refusal)
    }

    fn take_link(seats: &Arc<Mutex<Seats>>, from: IpAddr) -> (Self, Option<String>) {
        Self::take(seats, from, Places::SESSION_LINKS)
    }

    fn take_caller(seats: &Arc<Mutex<Seats>>, from: IpAddr) -> (Self, Option<String>) {
        Self::take(seats, from, Places::SESSION_CALLERS)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = lock(&self.seats);
        held.taken -= 1;
        if let Entry::Occupied(mut from_there) = held.by_address.entry(self.from) {
            *from_there.get_mut() -= 1;
            if *from_there.get() == 0 {
                from_there.remove();
            }
        }
    }
}

/// A tree while a session writes to it. Its lock is held while it is opened or closed, so that nobody meets it half
/// way.
type Slot = Mutex<Option<Arc<Tree>>>;

/// A session's share of a tree: the last one that is dropped closes it. To be dropped after all else that has the tree.
#[derive(Debug)]
pub(super) struct Share(Arc<Slot>);

impl Drop for Share {
    fn drop(&mut self) {
        let mut tree = lock(&self.0);
        if tree.as_ref().is_some_and(|tree| Arc::strong_count(tree) == 1) {
            *tree = None;
        }
    }
}

#[derive(Debug)]
struct Served {
    session: Weak<Running>,
    from: IpAddr,
    is_push: bool,
    path: String,
}

/// A session of somebody else, as others may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedView {
    /// Which session.
    pub id: SessionId,
    /// The address of the connection that began it.
    pub address: String,
    /// What it brings comes here; else what it wants goes there.
    pub is_push: bool,
    /// Where to, or from: a module and a path in it, unprintable bytes escaped.
    pub path: String,
    /// How many connections it has now.
    pub connections: usize,
    /// How long it has run.
    pub age: Duration,
    /// Bytes of files that have passed.
    pub payload: u64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            served: Mutex::default(),
            trees: Mutex::default(),
            memory: Arc::new(Memory::new(limits::SESSIONS_BYTES_MAX)),
            threads: Mutex::default(),
            is_over: AtomicBool::new(false),
            next_link: AtomicU64::new(FIRST_LINK),
            callers: Arc::default(),
            seats: Arc::default(),
        }
    }
}

impl Sessions {
    pub(in crate::engine) fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// Keeps a thread of a session to be waited for.
    pub(super) fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    /// Ends the sessions of others, who are told so while their connections last.
    pub(in crate::engine) fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        let sessions: Vec<_> = lock(&self.served).values().filter_map(|served| served.session.upgrade()).collect();
        sessions.iter().for_each(|session| session.stop());
    }

    /// Ends what is left of sessions, whose connections are gone, and waits for their threads.
    pub(in crate::engine) fn join(&self) {
        self.stop();
        loop {
            // Without the lock while they are waited for: one that opens a session has others kept.
            let threads = std::mem::take(&mut *lock(&self.threads));
            if threads.is_empty() {
                return;
            }
            crate::engine::join(threads);
        }
    }

    /// The tree at `path`, which all sessions that write to it share. May wait for the disk.
    pub(super) fn tree(&self, path: &Path) -> Result<(Arc<Tree>, Share), TreeError> {
        let mut trees = lock(&self.trees);
        trees.retain(|_, slot| Arc::strong_count(slot) > 1);
        let share = Share(Arc::clone(trees.entry(path.to_owned()).or_default()));
        drop(trees);
        let mut slot = lock(&share.0);
        let tree = match &*slot {
            Some(tree) => Arc::clone(tree),
            None => Arc::clone(slot.insert(Tree::open(path)?)),
        };
        drop(slot);
        Ok((tree, share))
    }

    /// Why there is to be no further session for `from`.
    fn refusal(&self, from: IpAddr) -> Option<String> {
        let mut served = lock(&self.served);
        served.retain(|_, served| served.session.strong_count() > 0);
        let from_there = served.values().filter(|served| served.from == from).count();
        Places::SESSIONS.refusal(served.len(), from_there)
    }

    /// Those that have not ended.
    pub(in crate::engine) fn views(&self) -> Vec<ServedView> {
        let served = lock(&self.served);
        let running = served.iter().filter_map(|(&id, served)| Some((id, served, served.session.upgrade()?)));
        let view = |(id, Served { is_push, path, .. }, session): (SessionId, &Served, Arc<Running>)| ServedView {
            id,
            address: session.peer.clone(),
            is_push: *is_push,
            path: path.clone(),
            connections: session.link_count(),
            age: session.age(),
            payload: session.payload(),
        };
        running.filter(|(_, _, session)| !session.has_ended()).map(view).collect()
    }

    /// An error: why there is no room for it.
    fn add(&self, session: &Arc<Running>, from: IpAddr, is_push: bool, path: String) -> Result<SessionId, String> {
        if let Some(refusal) = self.refusal(from) {
            return Err(refusal);
        }
        let mut served = lock(&self.served);
        let id = loop {
            let id = SessionId(rand::random());
            if !served.contains_key(&id) {
                break id;
            }
        };
        served.insert(id, Served { session: Arc::downgrade(session), from, is_push, path });
        drop(served);
        // Who ends all of them may have looked before.
        if self.is_over.load(Ordering::SeqCst) { Err("this node stops".to_owned()) } else { Ok(id) }
    }

    /// The session of this id, for a further connection from the same peer.
    fn find(&self, id: SessionId, from: IpAddr) -> Option<Arc<Running>> {
        let served = lock(&self.served);
        served.get(&id).filter(|served| served.from == from).and_then(|served| served.session.upgrade())
    }
}

/// Somebody who called and has not said yet what for.
pub(super) struct Caller {
    address: SocketAddr,
    modules: Arc<Modules>,
    /// Why it gets nothing, whatever it wants.
    refusal: Option<String>,
    _place: Seat,
}

/// What a caller gets.
pub(in crate::engine) enum Answer {
    /// Its session, and what it is told first.
    Join(Arc<Running>, Vec<u8>),
    /// No, and why.
    Refuse { words: Vec<u8>, reason: String },
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Join(session, _) => f.debug_tuple("Join").field(session).finish(),
            Self::Refuse { reason, .. } => f.debug_tuple("Refuse").field(reason).finish(),
        }
    }
}

impl Answer {
    /// Whoever called is gone.
    pub(in crate::engine) fn forget(self) {
        if let Self::Join(session, _) = self
            && session.link_count() == 0
        {
            session.stop();
        }
    }
}

struct Refused {
    code: ErrorCode,
    text: String,
}

impl Refused {
    fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<PathError> for Refused {
    fn from(error: PathError) -> Self {
        Self::new(ErrorCode::REFUSED, error.to_string())
    }
}

impl From<TreeError> for Refused {
    fn from(error: TreeError) -> Self {
        let code = match &error {
            TreeError::Io { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound => ErrorCode::NOT_FOUND,
            _ => ErrorCode::STORE,
        };
        Self::new(code, error.to_string())
    }
}

/// A connection that somebody made to a listener of sessions. An error: too many have said nothing yet, or its socket
/// is of no use.
pub(in crate::engine) fn called(
    sessions: &Sessions,
    socket: OwnedFd,
    address: SocketAddr,
    modules: Arc<Modules>,
) -> std::io::Result<NewConnection> {
    let (place, too_many) = Seat::take_caller(&sessions.callers, address.ip());
    if let Some(text) = too_many {
        return Err(std::io::Error::other(text));
    }
    let (seat, refusal) = Seat::take_link(&sessions.seats, address.ip());
    let caller = Caller { address, modules, refusal, _place: place };
    let set_up = super::set_up(&socket);
    set_up.map_err(|error| std::io::Error::new(error.kind(), format!("its socket cannot be set up: {error}")))?;
    let role = Role::Called(caller);
    let (id, address) = (sessions.next_link(), address.to_string());
    Ok(NewConnection { id, socket, address, role, seat: Some(seat) })
}

impl Caller {
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// What becomes of a first message.
    pub(super) fn answer(&self, shared: &Arc<Shared>, message: &Message<'_>) -> Answer {
        let result = match message {
            _ if self.refusal.is_some() => Err(Refused::new(ErrorCode::BUSY, self.refusal.clone().unwrap_or_default())),
            Message::Pull(command) => self.serve(shared, command, false),
            Message::Push(command) => self.serve(shared, command, true),
            Message::Session(id) => match shared.sessions.find(*id, self.address.ip()).filter(|it| !it.has_ended()) {
                Some(session) if session.link_count() < limits::SESSION_CONNECTIONS_MAX => {
                    return Answer::Join(session, Vec::new());
                }
                Some(_) => Err(Refused::new(ErrorCode::REFUSED, "the session has enough connections")),
                None => Err(Refused::new(ErrorCode::REFUSED, "there is no such session from this address")),
            },
            other => {
                let expected = format!("expected PULL, PUSH or SESSION first, found {}", other.kind());
                Err(Refused::new(ErrorCode::PROTOCOL, expected))
            }
        };
        result.unwrap_or_else(|Refused { code, text }| {
            let mut words = Vec::new();
            encode(&Message::Error { code, text: &text }, &mut words).expect("a text is cut to what a message holds");
            Answer::Refuse { words, reason: text }
        })
    }

    fn serve(&self, shared: &Arc<Shared>, command: &Command<'_>, is_push: bool) -> Result<Answer, Refused> {
        let options =
            Options::parse(command.options).map_err(|error| Refused::new(ErrorCode::OPTIONS, error.to_string()))?;
        if options.version != Options::VERSION {
            let text =
                format!("version {} of the protocol is not known here, only {}", options.version, Options::VERSION);
            return Err(Refused::new(ErrorCode::OPTIONS, text));
        }
        let wanted = match is_push {
            true => self.modules.resolve_to_write(command.path),
            false => self.modules.resolve(command.path),
        };
        let (module, path) = wanted.map_err(|refusal| Refused::new(ErrorCode::REFUSED, refusal.to_string()))?;
        let rules = rules(&options).map_err(|text| Refused::new(ErrorCode::OPTIONS, text))?;
        let busy = |text| Refused::new(ErrorCode::BUSY, text);
        if let Some(text) = shared.sessions.refusal(self.address.ip()) {
            // Before it costs anything.
            return Err(busy(text));
        }
        let peer = self.address.to_string();
        let session = if is_push {
            // Its file system may not be mounted.
            if !module.path.is_dir() {
                let text = format!("the directory of module {} is not there", module.name);
                return Err(Refused::new(ErrorCode::NOT_FOUND, text));
            }
            let (tree, share) = match options.dry_run {
                true => (Tree::look(&module.path)?, None),
                false => shared.sessions.tree(&module.path).map(|(tree, share)| (tree, Some(share)))?,
            };
            let mut landing = Landing::new(tree, path, landing_options(&options, rules));
            landing.share_memory(Arc::clone(&shared.sessions.memory));
            landing.check_base()?;
            receive(shared, peer, Side::Server, &options, (landing, share), None)
        } else {
            let is_contents = command.path.ends_with(b"/") || path.is_top();
            let lands = if is_contents { TreePath::top() } else { TreePath::new(path.name())? };
            let source = WalkSource { root: module.path.clone(), start: path, lands };
            let walk = Walk::new(vec![source], rules, walk_options(&options))?;
            send(shared, peer, Side::Server, &options, walk, None)
        };
        let session = session.map_err(|error| Refused::new(ErrorCode::STORE, error.to_string()))?;
        let told = command.path.escape_ascii().to_string();
        let added = shared.sessions.add(&session, self.address.ip(), is_push, told);
        let id = added.map_err(|text| {
            session.stop();
            busy(text)
        })?;
        let _ = session.id.set(id);
        let verb = if is_push { MessageKind::Push } else { MessageKind::Pull };
        tracing::info!(peer = session.peer, session = id.0, path = %command.path.escape_ascii(), "session begins: {verb}");
        let mut greeting = Vec::new();
        encode(&Message::Session(id), &mut greeting).expect("a number fits");
        Ok(Answer::Join(session, greeting))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn one_address_leaves_connections_to_others_and_all_leave_them_to_links() {
        let seats = Arc::default();
        let from = |last| IpAddr::from([127, 0, 0, last]);
        let take = |last| Seat::take_link(&seats, from(last));
        let mut held: Vec<_> = (0..limits::SESSION_LINKS_MAX / 2).map(|_| take(1)).collect();
        assert!(held.iter().all(|(_, refusal)| refusal.is_none()));
        assert!(take(1).1.expect("too many").contains("one address"));
        held.pop();
        held.push(take(1));
        held.extend((held.len()..limits::SESSION_LINKS_MAX).map(|at| take(2 + (at % 4) as u8)));
        assert!(held.iter().all(|(_, refusal)| refusal.is_none()));
        assert!(take(9).1.expect("too many").contains("this node"));
        drop(held);
        let left = lock(&seats);
        assert_eq!((left.taken, left.by_address.len()), (0, 0));
    }

    /// One address that said nothing over each of its connections had all places of those who wait for their first
    /// message.
    #[test]
    fn one_address_leaves_places_to_wait_to_others() {
        let callers = Arc::default();
        let from = |last| IpAddr::from([127, 0, 0, last]);
        let held: Vec<_> = (0..limits::SESSION_CALLERS_MAX / 2).map(|_| Seat::take_caller(&callers, from(1))).collect();
        assert!(held.iter().all(|(_, refusal)| refusal.is_none()));
        assert!(Seat::take_caller(&callers, from(1)).1.expect("too many").contains("one address"));
        assert_eq!(Seat::take_caller(&callers, from(2)).1, None);
    }

    /// A node that was told to stop while it opened a session never did: each waited for the other.
    #[test]
    fn threads_that_are_waited_for_may_begin_others() {
        let sessions = Arc::new(Sessions::default());
        let (here, (done, ended)) = (Arc::clone(&sessions), std::sync::mpsc::channel());
        sessions.keep(std::thread::spawn(move || {
            while !here.is_over.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            (0..200).for_each(|_| here.keep(std::thread::spawn(|| ())));
        }));
        std::thread::spawn(move || {
            sessions.join();
            let _ = done.send(lock(&sessions.threads).len());
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(0));
    }

    #[test]
    fn a_tree_is_opened_again_only_when_it_is_closed() {
        // A client that came while the last session before it ended was told that this very process has the tree.
        let dir = tempfile::tempdir().expect("made");
        // What somebody else has put there takes a while to look at, and lets the lock's file stand.
        let private = dir.path().join(limits::PRIVATE_DIR);
        std::fs::create_dir(&private).expect("made");
        (0..500).for_each(|at| std::fs::write(private.join(format!("x{at}")), "").expect("written"));
        let sessions = Sessions::default();
        let refused = AtomicUsize::new(0);
        let take = || {
            sessions.tree(dir.path()).inspect_err(|_| {
                refused.fetch_add(1, Ordering::Relaxed);
            })
        };
        let both = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200 {
                    both.wait();
                    drop(take());
                    both.wait();
                }
            });
            for _ in 0..200 {
                let last = take();
                both.wait();
                drop(last);
                both.wait();
            }
        });
        (0..500).for_each(|at| std::fs::remove_file(private.join(format!("x{at}"))).expect("there"));
        assert_eq!(refused.load(Ordering::Relaxed), 0, "nobody else has it");
        drop(take());
        assert!(!private.exists(), "it is closed");
    }
}
