//! What a rim does for one end of a connection: bytes in, bytes out, timers; and for a node: writing and committing.

use rand::RngExt;
use supersync::proto::duplex::{Data, Link};
use supersync::transfer::{Action, Fault, FlowId, ObjectState, pace};
use supersync::units::{ByteCount, Generation, ObjectId, Rate};
use supersync::wire::hello::Role;

use crate::disk::{Attempt, Done, Job, Step};
use crate::expand::expand;
use crate::scenario::NodeId;
use crate::seed_peer::SeedEnd;
use crate::world::{Event, Node, World};

/// A node whose writer is this far behind does not read.
const BACKLOG_MAX: usize = 256 << 10;
/// More pieces in one step than any train could need: the link turns without end.
const SPIN: usize = 100_000;

#[derive(Debug)]
pub(crate) enum Kind {
    Ours(Box<Link>),
    Seed(SeedEnd),
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) kind: Kind,
    pub(crate) fetch: FlowId,
    pub(crate) serve: FlowId,
    received: Vec<u8>,
    train: Vec<u8>,
    sent: usize,
    /// The source that is being sent, and its version when it was opened.
    opened: Option<(ObjectId, Generation, u64)>,
    timer_at: Option<u64>,
    cursor: u64,
}

impl End {
    pub(crate) fn new(kind: Kind, fetch: FlowId, serve: FlowId) -> Self {
        Self {
            kind,
            fetch,
            serve,
            received: Vec::new(),
            train: Vec::new(),
            sent: 0,
            opened: None,
            timer_at: None,
            cursor: 0,
        }
    }
}

impl World {
    /// Drains everything that follows from what just happened.
    pub(crate) fn settle(&mut self) {
        for _ in 0..SPIN {
            for node in 0..self.nodes.len() {
                if self.nodes[node].alive && self.plan.seed_only[node].is_none() {
                    self.drain(node);
                }
            }
            if let Some((conn, end)) = self.to_read.pop_first() {
                self.read(conn, end);
            } else if let Some((conn, end)) = self.to_drive.pop_first() {
                self.drive(conn, end);
            } else {
                return;
            }
        }
        panic!("the nodes wake each other without end");
    }

    fn drain(&mut self, node: NodeId) {
        let this = &mut self.nodes[node];
        for (id, flow) in this.flows.iter_mut() {
            while let Some(action) = flow.poll_action() {
                match action {
                    Action::Create { id: object, generation, size } => {
                        let attempt = Attempt { flow: id, id: object, generation };
                        this.disk.push(Job::Create {
                            attempt,
                            size: size.expect("every peer tells how long its objects are").0 as usize,
                        });
                    }
                    Action::Abandon { id: object, generation } => {
                        this.disk.push(Job::Abandon { attempt: Attempt { flow: id, id: object, generation } });
                    }
                    Action::Commit { id: object, generation, .. } => {
                        let attempt = Attempt { flow: id, id: object, generation };
                        this.disk.to_commit.push((attempt, flow.name(object).clone()));
                    }
                    Action::OpenPart { .. }
                    | Action::Discard { .. }
                    | Action::Hash { .. }
                    | Action::Check { .. }
                    | Action::SetAttributes { .. } => {
                        panic!("these links carry whole objects")
                    }
                    Action::Evict { name, .. } | Action::Remove { name } => {
                        this.disk.push(Job::Evict { flow: id, name })
                    }
                }
            }
            while let Some(event) = flow.poll_event() {
                this.told.push(event);
            }
            while let Some(link) = flow.poll_wake() {
                self.to_drive.insert((link.0 / 2, (link.0 % 2) as usize));
            }
            if let Some((used, max)) = flow.spool() {
                assert!(used <= max, "{} holds {used} in a spool of {max}", this.name);
            }
        }
        let life = this.life;
        if !this.disk.jobs.is_empty() && !this.disk.writing {
            this.disk.writing = true;
            let delay = self.rng.random_range(0..=self.plan.write_latency_ns);
            self.at(self.now + delay, Event::Write { node, life });
        }
        let disk = &mut self.nodes[node].disk;
        if !disk.to_commit.is_empty() && disk.committing.is_empty() {
            disk.committing = std::mem::take(&mut disk.to_commit);
            self.plan_commit(node, Step::Rename);
        }
    }

    fn plan_commit(&mut self, node: NodeId, step: Step) {
        let delay = self.rng.random_range(0..=self.plan.commit_latency_ns);
        self.at(self.now + delay, Event::Commit { node, life: self.nodes[node].life, step });
    }

    // -- disk --------------------------------------------------------------------------------------------------------

    pub(crate) fn write(&mut self, node: NodeId) {
        let now = self.time_of(node);
        let was_behind = self.nodes[node].disk.backlog > BACKLOG_MAX;
        for _ in 0..self.rng.random_range(1..=8) {
            let this = &mut self.nodes[node];
            match this.disk.work() {
                Some(Done::Created(a)) => this.flows.at(a.flow).handle_created(a.id, a.generation),
                Some(Done::Written(a, bytes)) => {
                    this.flows.at(a.flow).handle_written(a.id, a.generation, ByteCount(bytes as u64));
                    self.last_progress = self.now;
                }
                Some(Done::Failed(a, why)) => {
                    this.flows.at(a.flow).handle_store_failed(a.id, a.generation, why.to_owned(), Fault::Store, now);
                }
                None => {}
            }
        }
        self.nodes[node].disk.writing = false;
        if was_behind {
            let mine = self.conns.iter().flat_map(|(&id, conn)| [(id, 0, conn.node(0)), (id, 1, conn.node(1))]);
            self.to_read.extend(mine.filter(|&(.., owner)| owner == node).map(|(id, end, _)| (id, end)));
        }
    }

    pub(crate) fn commit(&mut self, node: NodeId, step: Step) {
        let now = self.time_of(node);
        let marks = self.nodes[node].role == Role::Trader;
        let this = &mut self.nodes[node];
        this.disk.commit(step, marks);
        match step {
            Step::Rename => self.plan_commit(node, Step::Mark),
            Step::Mark => {
                if marks {
                    self.check_markers(node);
                }
                self.plan_commit(node, Step::Tell);
            }
            Step::Tell => {
                for (attempt, name) in std::mem::take(&mut this.disk.committing) {
                    let flow = this.flows.at(attempt.flow);
                    if flow.is_current(attempt.id, attempt.generation) {
                        flow.handle_committed(attempt.id, attempt.generation, now);
                    } else if !marks {
                        this.disk.push(Job::Evict { flow: attempt.flow, name });
                    }
                }
                self.last_progress = self.now;
            }
        }
    }

    /// Every marker tells the truth: its file is whole, and is what the source was at one time.
    pub(crate) fn check_markers(&self, trader: NodeId) {
        let disk = &self.nodes[trader].disk;
        for (_, name) in &disk.committing {
            let file = &disk.files[&(FlowId(0), name.clone())];
            let versions = &self.versions[1 - trader][name];
            let is_true = versions.iter().any(|version| version == file);
            assert!(is_true, "{} at {} is marked, and was never what its source was", name, self.nodes[trader].name);
        }
    }

    // -- one end -----------------------------------------------------------------------------------------------------

    pub(crate) fn timer(&mut self, conn: u64, end: usize, at: u64) {
        let Some(this) = self.conns.get_mut(&conn) else { return };
        let node = this.node(end);
        let has_unread = !this.pipes[1 - end].arrived.is_empty();
        let Some(this) = &mut this.ends[end] else { return };
        if this.timer_at != Some(at) {
            return;
        }
        this.timer_at = None;
        let Kind::Ours(link) = &mut this.kind else { return };
        let now = supersync::units::Time(std::time::Duration::from_nanos(self.now - self.nodes[node].started));
        if has_unread {
            link.handle_life(now);
        }
        match link.handle_timeout(now) {
            Ok(()) => {
                self.to_drive.insert((conn, end));
            }
            Err(error) => self.close(conn, end, &error.to_string()),
        }
    }

    fn read(&mut self, id: u64, end: usize) {
        let Some(conn) = self.conns.get(&id) else { return };
        let node = conn.node(end);
        if conn.ends[end].is_none() || self.nodes[node].disk.backlog > BACKLOG_MAX {
            return;
        }
        let most = self.rng.random_range(1..=conn.pipes[1 - end].nature.fragment_max * 2);
        let now = self.time_of(node);
        let conn = self.conns.get_mut(&id).expect("just seen");
        let arrived = &mut conn.pipes[1 - end].arrived;
        let length = arrived.len().min(most);
        if length == 0 {
            return;
        }
        let this = conn.ends[end].as_mut().expect("just seen");
        let (front, back) = arrived.as_slices();
        let from_front = length.min(front.len());
        this.received.extend_from_slice(&front[..from_front]);
        this.received.extend_from_slice(&back[..length - from_front]);
        arrived.drain(..length);
        if !arrived.is_empty() {
            self.to_read.insert((id, end));
        }
        self.to_drive.extend([(id, end), (id, 1 - end)]);
        self.note(length as u64);
        let conn = self.conns.get_mut(&id).expect("just seen");
        let this = conn.ends[end].as_mut().expect("just seen");
        if let Kind::Ours(link) = &mut this.kind {
            link.handle_life(now);
            let n = link.packet_len().bytes();
            let whole = this.received.len() / n * n;
            let mut writes = Vec::new();
            let (fetch, serve) = self.nodes[node].flows.pair(this.fetch, this.serve);
            let result = link.handle_packets(&this.received[..whole], now, fetch, serve, &mut writes);
            // Parts are made before they are written to.
            self.drain(node);
            let this = self.conns.get_mut(&id).and_then(|conn| conn.ends[end].as_mut()).expect("just seen");
            let node = &mut self.nodes[node];
            for write in writes {
                let attempt = Attempt { flow: this.fetch, id: write.id, generation: write.generation };
                let mut bytes = Vec::with_capacity(write.length);
                write.pieces().for_each(|piece| bytes.extend_from_slice(&this.received[piece]));
                assert_eq!(bytes.len(), write.length);
                node.disk.push(Job::Write { attempt, offset: write.offset.0 as usize, bytes });
            }
            this.received.drain(..whole);
            self.to_drive.insert((id, end));
            if let Err(error) = result {
                panic!("{} ends link {id}.{end}: {error}", node.name);
            }
        }
    }

    /// Sends what there is to send.
    fn drive(&mut self, id: u64, end: usize) {
        for _ in 0..SPIN {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            let Some(this) = &mut conn.ends[end] else { return };
            if this.sent < this.train.len() {
                let fragment = self.rng.random_range(1..=conn.pipes[end].nature.fragment_max);
                if let Some((length, wire_ns)) = conn.pipes[end].send(&this.train[this.sent..], fragment) {
                    this.sent += length;
                    self.at(self.now + wire_ns, Event::Sent { conn: id, from: end });
                    continue;
                }
                break;
            }
            this.sent = 0;
            this.train.clear();
            let filled = match this.kind {
                Kind::Ours(_) => self.fill(id, end),
                Kind::Seed(_) => self.turn(id, end),
            };
            if !filled {
                break;
            }
        }
        self.arm(id, end);
    }

    fn arm(&mut self, id: u64, end: usize) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let node = conn.node(end);
        let started = self.nodes[node].started;
        let Some(this) = &mut conn.ends[end] else { return };
        let Kind::Ours(link) = &this.kind else { return };
        if self.plan.closes_when_over && link.is_over() && this.sent == this.train.len() {
            return self.close(id, end, "over");
        }
        let now = supersync::units::Time(std::time::Duration::from_nanos(self.now - started));
        let (fetch, _) = self.nodes[node].flows.pair(this.fetch, this.serve);
        let may_send = this.sent == this.train.len();
        let at = started + link.poll_timeout(fetch, may_send, now).0.as_nanos() as u64;
        if this.timer_at != Some(at) {
            this.timer_at = Some(at);
            self.at(at, Event::Timer { conn: id, end, at });
        }
    }

    /// Makes the next train; `false` where there is nothing to send.
    fn fill(&mut self, id: u64, end: usize) -> bool {
        let conn = self.conns.get_mut(&id).expect("the caller saw it");
        let (node, rate) = (conn.node(end), conn.pipes[end].nature.bytes_per_second);
        let (now, hello) = (self.time_of(node), self.hello(node));
        let this = self.conns.get_mut(&id).and_then(|conn| conn.ends[end].as_mut()).expect("the caller saw it");
        let Kind::Ours(link) = &mut this.kind else { return false };
        let n = link.packet_len();
        let most = pace::train_bytes(Rate(rate));
        let node = &mut self.nodes[node];
        for _ in 0..SPIN {
            if this.train.len() >= most {
                return true;
            }
            let room = ((most - this.train.len()) / n.bytes()).max(1);
            let (fetch, serve) = node.flows.pair(this.fetch, this.serve);
            let Some(piece) = link.poll_transmit(now, room, fetch, serve) else { return !this.train.is_empty() };
            let Some(data) = piece.data else {
                expand(&piece, &[], n, &hello, &mut this.cursor, &mut this.train);
                continue;
            };
            assert!(data.tail || piece.packets(n) <= room, "a piece keeps to the room that it is given");
            let bytes = node.read_source(this.serve, data, &mut this.opened);
            let (fetch, serve) = node.flows.pair(this.fetch, this.serve);
            match bytes {
                Ok(bytes) => {
                    expand(&piece, &bytes, n, &hello, &mut this.cursor, &mut this.train);
                    if data.tail {
                        link.handle_tail_read(now, serve);
                        this.opened = None;
                    }
                }
                Err(why) => {
                    link.handle_source_failed(&piece, why, now, fetch, serve);
                    this.opened = None;
                }
            }
        }
        panic!("{id}.{end} is polled without end");
    }

    /// A seed-only end takes its turn; `false` where it waits for a packet.
    fn turn(&mut self, id: u64, end: usize) -> bool {
        let conn = self.conns.get_mut(&id).expect("the caller saw it");
        let node = conn.node(end);
        let Some(this) = &mut conn.ends[end] else { return false };
        let Kind::Seed(peer) = &mut this.kind else { return false };
        let [first, second] = &mut self.nodes[node].shelves;
        let (has, offers) = if this.fetch == FlowId(0) { (first, second) } else { (second, first) };
        let n = self.plan.packet_bytes as usize;
        if peer.sends {
            this.train = peer.send(offers, has);
            return true;
        }
        if this.received.len() < n {
            return false;
        }
        let packet: Vec<u8> = this.received.drain(..n).collect();
        let before = peer.is_receiving();
        let whole = peer.receive(&packet, has);
        if before || peer.is_receiving() || whole.is_some() {
            self.last_progress = self.now;
        }
        if let (Some(name), 0 | 1) = (whole, node) {
            let versions = &self.versions[1 - node][&crate::world::object_name(&name)];
            let is_true = versions.iter().any(|version| *version == self.nodes[node].shelves[0][&name]);
            assert!(is_true, "{name} at seed-only {} was never what its source was", self.nodes[node].name);
        }
        true
    }
}

impl Node {
    /// Bytes of a source, as a rim reads them: from a trader's file, which must still be what it was when it was
    /// opened; from an exchange's part or file.
    fn read_source(
        &self,
        flow: FlowId,
        data: Data,
        opened: &mut Option<(ObjectId, Generation, u64)>,
    ) -> Result<Vec<u8>, String> {
        let range = data.offset.0 as usize..data.offset.0 as usize + data.length;
        let table = self.flows.iter().nth(usize::from(flow.0)).expect("a flow of this node");
        if self.role == Role::Exchange {
            let attempt = Attempt { flow, id: data.id, generation: data.generation };
            if let Some(part) = self.disk.parts.get(&attempt) {
                assert!(range.end <= part.written, "only what is written is sent on");
                return Ok(part.bytes[range].to_vec());
            }
            if !table.is_current(data.id, data.generation) {
                return Err("the attempt is over".to_owned());
            }
            let file =
                self.disk.files.get(&(flow, table.name(data.id).clone())).expect("a current attempt has its file");
            return Ok(file[range].to_vec());
        }
        let (bytes, version) = self.local.get(table.name(data.id)).ok_or("the file is gone")?;
        if opened.is_none_or(|(id, generation, _)| (id, generation) != (data.id, data.generation)) {
            if table.state(data.id) != (ObjectState::Present { size: ByteCount(bytes.len() as u64) }) {
                return Err("the file has another length than was offered".to_owned());
            }
            *opened = Some((data.id, data.generation, *version));
        }
        let was = opened.map(|(.., version)| version);
        if was != Some(*version) {
            return Err("the file changed while it was sent".to_owned());
        }
        bytes.get(range).map(<[u8]>::to_vec).ok_or_else(|| "the file was cut short".to_owned())
    }
}
