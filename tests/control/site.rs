//! What the tests of the control socket share: a site that tells what it was given, the server around it, and
//! a status that is half way.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use supersync::control::{
    Client, ConfigState, ControlError, ControlSocket, Figures, HeldBy, Inventory, LinkFigures, LinkState, LinkStatus,
    ObjectFilter, ObjectState, ObjectStatus, PeerState, PeerStatus, ReloadReport, Role, Site, State, Status,
    StoreFigures, Totals,
};
use tokio::sync::oneshot;

/// Tells what the test put into it.
pub(crate) struct Told {
    pub(crate) status: Mutex<Status>,
    pub(crate) objects: Vec<ObjectStatus>,
    pub(crate) reload: Result<ReloadReport, String>,
    pub(crate) figures: Figures,
    pub(crate) stuck: Mutex<Option<String>>,
    pub(crate) unready: Mutex<Option<String>>,
    /// Hears of each `status` call.
    pub(crate) asked: Mutex<Option<mpsc::Sender<()>>>,
    /// After this many more `status` calls it is SYNCED.
    pub(crate) synced_after: Mutex<Option<u32>>,
}

impl Told {
    pub(crate) fn new(status: Status) -> Self {
        Self {
            status: Mutex::new(status),
            objects: Vec::new(),
            reload: Ok(ReloadReport::default()),
            figures: figures(),
            stuck: Mutex::new(None),
            unready: Mutex::new(None),
            asked: Mutex::new(None),
            synced_after: Mutex::new(None),
        }
    }
}

impl Site for Told {
    fn status(&self) -> Status {
        if let Some(asked) = &*self.asked.lock().expect("no panic while held") {
            let _ = asked.send(());
        }
        let mut status = self.status.lock().expect("no panic while held");
        match &mut *self.synced_after.lock().expect("no panic while held") {
            Some(0) => status.state = State::Synced,
            Some(left) => *left -= 1,
            None => {}
        }
        status.clone()
    }

    fn objects(&self, filter: ObjectFilter, limit: usize) -> Vec<ObjectStatus> {
        self.objects.iter().filter(|object| filter.admits(object.state)).take(limit).cloned().collect()
    }

    fn inventory(&self, _offset: usize, _limit: usize) -> Option<Inventory> {
        None
    }

    fn peers(&self) -> Vec<PeerStatus> {
        self.status.lock().expect("no panic while held").peers.clone()
    }

    fn figures(&self) -> Figures {
        self.figures.clone()
    }

    fn stuck(&self) -> Option<String> {
        self.stuck.lock().expect("no panic while held").clone()
    }

    fn unready(&self) -> Option<String> {
        self.unready.lock().expect("no panic while held").clone()
    }

    fn check(&self) -> oneshot::Receiver<()> {
        let (done, checked) = oneshot::channel();
        done.send(()).expect("it is waited for");
        checked
    }

    fn reload(&self) -> oneshot::Receiver<Result<ReloadReport, String>> {
        let (done, reloaded) = oneshot::channel();
        done.send(self.reload.clone()).expect("it is waited for");
        reloaded
    }

    fn set_paused(&self, peer: &str, _paused: bool) -> Result<bool, String> {
        Err(format!("trader1 has no peer {peer:?}"))
    }

    fn drain(&self) {}
}

/// A site on a socket, served by a thread of its own until dropped.
pub(crate) struct Served {
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ControlError>>>,
}

impl Served {
    pub(crate) fn start(site: Told) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = ControlSocket::bind(&dir.path().join("control.sock")).expect("a free path");
        let (stop, stopped) = oneshot::channel();
        let thread =
            std::thread::spawn(move || runtime().block_on(socket.serve(Arc::new(site), async { drop(stopped.await) })));
        Self { dir, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.socket())
    }

    pub(crate) fn ctl(&self, args: &[&str]) -> Output {
        ctl(&self.socket(), args).output().expect("supersyncctl starts")
    }

    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic").expect("the server ends well");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub(crate) fn ctl(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supersyncctl"));
    command.arg("--socket").arg(socket).args(args);
    command
}

pub(crate) fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("text")
}

pub(crate) fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("text")
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

pub(crate) fn link(id: u64, address: &str) -> LinkStatus {
    LinkStatus {
        id,
        // Not the id: three to a peer.
        number: (id as u32 - 1) % 3 + 1,
        address: address.to_owned(),
        state: LinkState::Up,
        since_seconds: 750,
        rate_in: 1_460_000.0,
        rate_out: 1_470_000.0,
        bytes_in: 1_100_000_000,
        bytes_out: 1_200_000_000,
        padding_in: 3000,
        padding_out: 4000,
        reconnects: 0,
        retransmits: 0,
        congestion: Some("cubic".to_owned()),
        object: Some("stock1_7".to_owned()),
        note: None,
        share: Some(0.1643),
        capacity_in: Some(1_500_000.0),
        orders: 12,
        on_order: 1_300_000,
        verified: 1_000_000_000,
        stolen: 24_000_000,
        duplicated: 65_536,
        bad: 0,
        aside_seconds: None,
        rtt_ms: Some(25.2),
        unsent: 60_000,
        held_by: HeldBy::Network,
        why: "brings 1.5 MB/s, with 1.3 MB more on order".to_owned(),
    }
}

pub(crate) fn peer(name: &str, links: Vec<LinkStatus>) -> PeerStatus {
    PeerStatus {
        name: name.to_owned(),
        links_up: 3,
        links_total: Some(3),
        state: PeerState::Streaming,
        rate_in: 4_400_000.0,
        rate_out: 4_400_000.0,
        reconnects: 0,
        note: None,
        verified: links.iter().map(|link| link.verified).sum(),
        stolen: links.iter().map(|link| link.stolen).sum(),
        duplicated: links.iter().map(|link| link.duplicated).sum(),
        bad: links.iter().map(|link| link.bad).sum(),
        links,
    }
}

/// Half way, with one link of six down.
pub(crate) fn half_way() -> Status {
    let mut down = link(6, "10.1.1.13:7401");
    down.state = LinkState::Down;
    down.since_seconds = 8;
    (down.rate_in, down.rate_out) = (0.0, 0.0);
    (down.congestion, down.object) = (None, None);
    (down.share, down.capacity_in, down.orders, down.on_order) = (None, None, 0, 0);
    (down.bad, down.rtt_ms, down.unsent, down.held_by) = (2, None, 0, HeldBy::Down);
    down.note = Some("connection refused, next try in 8 s".to_owned());
    down.why = "connection refused, next try in 8 s".to_owned();
    let first = (1..=3).map(|id| link(id, "10.1.1.5:7401")).collect();
    let mut second = peer("exchange2", vec![link(4, "10.1.1.9:7401"), link(5, "10.1.1.9:7402"), down]);
    (second.links_up, second.state, second.rate_in, second.rate_out) =
        (2, PeerState::Degraded, 2_900_000.0, 2_900_000.0);
    Status {
        schema: Status::SCHEMA.to_owned(),
        node: "trader1".to_owned(),
        role: Role::Trader,
        state: State::Syncing,
        uptime_seconds: 750,
        version: "0.1.0".to_owned(),
        engine: "io_uring".to_owned(),
        config: ConfigState { ok: true, message: None },
        want: Totals { objects: 500, bytes: 12_000_000_000 },
        want_known: true,
        have: Totals { objects: 212, bytes: 5_088_000_000 },
        serving: Totals { objects: 500, bytes: 12_000_000_000 },
        failed: 0,
        rate_in: 8_900_000.0,
        rate_out: 8_900_000.0,
        capacity_in: Some(9_020_000.0),
        eta_seconds: Some(775.4),
        peers: vec![peer("exchange1", first), second],
        clients: Vec::new(),
        spool: None,
        bytes_received: 5_200_000_000,
        bytes_sent: 5_300_000_000,
        payload_received: 5_088_000_000,
        payload_sent: 5_100_000_000,
        payload_discarded: 24_000_000,
        problems: Vec::new(),
    }
}

/// A trader half way, with a peer whose second link is down.
pub(crate) fn figures() -> Figures {
    let link = |number, up| LinkFigures {
        peer: "exchange1".to_owned(),
        number,
        up,
        reconnects: 2,
        sent: 5_300_000_000,
        received: 5_200_000_000,
        padding: 4000,
        bad: 1,
    };
    Figures {
        node: "trader1".to_owned(),
        role: Role::Trader,
        version: "0.1.0".to_owned(),
        engine: "io_uring".to_owned(),
        reload_failed: false,
        problems: 1,
        done: 212,
        arriving: 6,
        failed: 1,
        store: Some(StoreFigures {
            want: Totals { objects: 500, bytes: 12_000_000_000 },
            have: Totals { objects: 212, bytes: 5_088_000_000 },
            lag: Duration::from_secs(750),
        }),
        last_commit: Some(Duration::from_millis(1_790_000_000_250)),
        spool: None,
        spool_used: Vec::new(),
        links_up: Some(1),
        links: vec![link(1, true), link(2, false)],
    }
}

pub(crate) fn synced() -> Status {
    let mut status = half_way();
    status.state = State::Synced;
    status.have = status.want;
    (status.capacity_in, status.eta_seconds) = (None, None);
    status.peers.truncate(1);
    status
}

pub(crate) fn object(name: &str, state: ObjectState) -> ObjectStatus {
    ObjectStatus { name: name.to_owned(), size: Some(24_000_000), state, from: None, have_bytes: 0, note: None }
}

/// One object of each state.
pub(crate) fn objects() -> Vec<ObjectStatus> {
    let mut failed = object("d", ObjectState::Failed);
    failed.note = Some("changed while it was sent".to_owned());
    let mut waiting = object("e", ObjectState::Waiting);
    waiting.size = None;
    vec![
        object("a", ObjectState::Missing),
        object("b", ObjectState::Arriving),
        object("c", ObjectState::Done),
        failed,
        waiting,
    ]
}
