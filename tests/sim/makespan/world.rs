//! Flows joined by links, on a clock of its own: events in the order of their time, nothing else.
//!
//! The flows are the real ones. A link stands for both ends of the extended protocol without its bytes: orders and
//! cancels take their way, the server answers the oldest request that it can answer now, its answer takes the time that
//! its bytes take and then its way, and all of it is lost when the link dies.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use supersync::limits;
use supersync::transfer::{Action, Content, Entry, Flow, RangeRequest, RangeState};
use supersync::units::{ByteCount, Generation, LinkId, NodeName, ObjectName, Root256, Time};

use super::links::Plan;

/// A run that takes longer hangs.
const PATIENCE: Time = Time(Duration::from_secs(600));
/// A link is looked at this often though nothing happens, as its keepalives do.
const LOOK_EVERY: Duration = limits::KEEPALIVE_EVERY;

/// A place of a flow in its world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeAt(usize);

#[derive(Debug)]
struct Asked {
    id: u32,
    /// What is still to be sent.
    rest: RangeRequest,
    generation: Option<Generation>,
}

/// An answer on its way out.
#[derive(Debug, Clone, Copy)]
struct Answer {
    id: u32,
    /// In terms of the client's attempt.
    range: RangeRequest,
    sent: u64,
}

/// A connection: one life of a link.
#[derive(Debug)]
struct Connection {
    id: LinkId,
    made: u32,
    /// By id, what of each is still to begin to come.
    orders: BTreeMap<u32, RangeRequest>,
    /// What comes in belongs to this order, and is kept.
    incoming: Option<(Option<RangeRequest>, bool)>,
    asked: VecDeque<Asked>,
    answer: Option<Answer>,
    sending: bool,
    look_at: Time,
}

#[derive(Debug)]
struct Link {
    plan: Plan,
    client: NodeAt,
    server: NodeAt,
    connection: Option<Connection>,
    /// What came in, bytes.
    carried: u64,
}

#[derive(Debug)]
enum Event {
    Rise(usize),
    Fall(usize),
    Request(u32, RangeRequest),
    Cancel(u32),
    /// A slice has left.
    Sent,
    /// A slice is here: of which answer, where it starts, how long, whether it is the last one.
    Data {
        id: u32,
        range: RangeRequest,
        from: u64,
        bytes: u64,
    },
    Pending(u32),
    Look,
}

/// Flows and links.
pub(super) struct World {
    flows: Vec<Flow>,
    names: Vec<NodeName>,
    links: Vec<Link>,
    /// Which link a connection is of.
    owners: Vec<usize>,
    events: BTreeMap<(Time, u64), (Option<LinkId>, Event)>,
    scheduled: u64,
    now: Time,
    rng: Pcg64Mcg,
    crcs: BTreeMap<u64, u32>,
    put_aside: usize,
}

/// What came of a run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) makespan: Time,
    /// Bytes that came in over each link.
    pub(super) carried: Vec<u64>,
    pub(super) put_aside: usize,
}

impl World {
    /// Who waits for everything.
    pub(super) const FETCHER: NodeAt = NodeAt(0);

    /// A world with a flow that fetches, which is over when that has everything.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            flows: vec![Flow::fetch()],
            names: vec![name_of(0)],
            links: Vec::new(),
            owners: Vec::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            now: Time::ZERO,
            rng: Pcg64Mcg::seed_from_u64(seed),
            crcs: BTreeMap::new(),
            put_aside: 0,
        }
    }

    /// Another flow.
    pub(super) fn add(&mut self, flow: Flow) -> NodeAt {
        self.flows.push(flow);
        self.names.push(name_of(self.names.len()));
        NodeAt(self.flows.len() - 1)
    }

    /// All flows know an object; those that offer have it. To be called when all flows are there.
    pub(super) fn know(&mut self, size: u64) {
        let name = name_of_object(self.flows[0].totals().objects);
        let full = (size / limits::BLOCK_BYTES) as usize;
        let mut block_crcs = vec![self.crc(limits::BLOCK_BYTES); full];
        if !size.is_multiple_of(limits::BLOCK_BYTES) {
            block_crcs.push(self.crc(size % limits::BLOCK_BYTES));
        }
        let content = Content {
            size: ByteCount(size),
            mtime_ns: 0,
            mode: 0o644,
            root: Root256([1; 32]),
            block_crcs: block_crcs.into_iter().collect(),
        };
        let mut ids = self.flows.iter_mut().map(|flow| {
            let id = flow.know(Entry { name: name.clone(), content: content.clone() }).expect("room in the table");
            if flow.kind() == supersync::transfer::Kind::Offer {
                flow.offer(name.clone(), ByteCount(size));
            }
            id
        });
        // So that a request need not name it.
        let first = ids.next().expect("a flow");
        assert!(ids.all(|id| id == first), "an object has one id in all flows");
    }

    /// A link over which `client` fetches from `server`.
    pub(super) fn join(&mut self, client: NodeAt, server: NodeAt, plan: Plan) {
        let at = self.links.len();
        if plan.troubles.first().is_none_or(|trouble| !trouble.dead || trouble.from > Time::ZERO) {
            self.schedule(Time::ZERO, None, Event::Rise(at));
        }
        for trouble in plan.troubles.iter().filter(|trouble| trouble.dead) {
            self.schedule(trouble.from, None, Event::Fall(at));
            self.schedule(trouble.until, None, Event::Rise(at));
        }
        self.links.push(Link { plan, client, server, connection: None, carried: 0 });
    }

    /// Runs until everything is fetched.
    pub(super) fn run(mut self) -> Run {
        while !self.flows[Self::FETCHER.0].is_complete() {
            let ((at, _), (connection, event)) = self.events.pop_first().expect("links are looked at for ever");
            self.now = at;
            assert!(at < PATIENCE, "it hangs: {:?}", self.flows[Self::FETCHER.0].totals());
            match connection {
                None => self.handle_life(event),
                Some(id) => {
                    let link = self.owners[id.0 as usize];
                    // What is under way on a connection that is gone is lost.
                    if self.links[link].connection.as_ref().is_some_and(|connection| connection.id == id) {
                        self.handle(link, id, event);
                        self.poll(link);
                    }
                }
            }
            self.follow();
        }
        let carried = self.links.iter().map(|link| link.carried).collect();
        Run { makespan: self.now, carried, put_aside: self.put_aside }
    }

    // -- helpers -----------------------------------------------------------------------------------------------------

    fn schedule(&mut self, at: Time, connection: Option<LinkId>, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), (connection, event));
    }

    /// CRC-32C of so many zeros, which all objects are made of.
    fn crc(&mut self, length: u64) -> u32 {
        *self.crcs.entry(length).or_insert_with(|| crc_fast::crc32_iscsi(&vec![0; length as usize]))
    }

    fn handle_life(&mut self, event: Event) {
        match event {
            Event::Rise(at) => {
                let id = LinkId(self.owners.len() as u64);
                self.owners.push(at);
                let link = &mut self.links[at];
                link.connection = Some(Connection {
                    id,
                    made: 0,
                    orders: BTreeMap::new(),
                    incoming: None,
                    asked: VecDeque::new(),
                    answer: None,
                    sending: false,
                    look_at: Time::ZERO,
                });
                let peer = self.names[link.server.0].clone();
                self.flows[link.client.0].attach_blocks(id, peer, self.now);
                self.schedule(self.now, Some(id), Event::Look);
            }
            Event::Fall(at) => {
                let link = &mut self.links[at];
                let Some(connection) = link.connection.take() else { return };
                self.flows[link.client.0].detach_blocks(connection.id, self.now);
                for asked in connection.asked {
                    let is_sent = asked.generation.is_some();
                    self.flows[link.server.0].release_range(connection.id, asked.rest.object, is_sent, self.now);
                }
            }
            _ => unreachable!("all else happens on a connection"),
        }
    }

    fn handle(&mut self, at: usize, id: LinkId, event: Event) {
        let link = &mut self.links[at];
        let connection = link.connection.as_mut().expect("the caller has looked");
        let server = &mut self.flows[link.server.0];
        match event {
            Event::Request(number, range) => {
                server.demand_range(id, range.object, range.offset, range.length, self.now);
                connection.asked.push_back(Asked { id: number, rest: range, generation: None });
            }
            Event::Cancel(number) => {
                if let Some(place) = connection.asked.iter().position(|asked| asked.id == number) {
                    let asked = connection.asked.remove(place).expect("just found");
                    server.release_range(id, asked.rest.object, asked.generation.is_some(), self.now);
                }
            }
            Event::Sent => connection.sending = false,
            Event::Data { id: number, range, from, bytes } => self.take_data(at, id, number, range, from, bytes),
            Event::Pending(number) => {
                if let Some(rest) = connection.orders.remove(&number) {
                    self.flows[link.client.0].handle_range_pending(id, rest, self.now);
                }
            }
            Event::Look => connection.look_at = Time::ZERO,
            Event::Rise(_) | Event::Fall(_) => unreachable!("these are not of a connection"),
        }
    }

    fn take_data(&mut self, at: usize, id: LinkId, number: u32, range: RangeRequest, from: u64, bytes: u64) {
        let crc = self.crc(range.length.0);
        let link = &mut self.links[at];
        link.carried += bytes;
        let connection = link.connection.as_mut().expect("the caller has looked");
        let flow = &mut self.flows[link.client.0];
        if from == 0 {
            let order = connection.orders.get_mut(&number).map(|order| {
                let whole = *order;
                *order =
                    RangeRequest { offset: range.end(), length: ByteCount(whole.end().0 - range.end().0), ..whole };
                RangeRequest { length: range.length, ..whole }
            });
            connection.orders.retain(|_, order| order.length.0 > 0);
            let kept = order.is_some_and(|order| flow.handle_range_begin(order));
            connection.incoming = Some((order, kept));
        }
        let (order, kept) = connection.incoming.expect("a slice follows the first one");
        flow.handle_range_data(id, order, ByteCount(bytes), self.now);
        if from + bytes < range.length.0 {
            return;
        }
        connection.incoming = None;
        let Some(order) = order.filter(|_| kept) else { return };
        if link.plan.damage > 0.0 && self.rng.random_bool(link.plan.damage) {
            flow.handle_damaged(id, order, self.now);
            self.put_aside += usize::from(flow.health(id, self.now).is_some_and(|h| h.aside_until.is_some()));
        } else {
            flow.handle_verified(id, order, crc, self.now);
        }
    }

    /// Does what the flows want done, until they want nothing more.
    fn follow(&mut self) {
        loop {
            let mut woken = Vec::new();
            for flow in &mut self.flows {
                while let Some(action) = flow.poll_action() {
                    match action {
                        Action::OpenPart { id, generation, .. } => flow.handle_created(id, generation),
                        Action::Commit { id, generation, .. } => flow.handle_committed(id, generation, self.now),
                        Action::Create { .. } | Action::Abandon { .. } | Action::Discard { .. } => {}
                        Action::Hash { .. } | Action::Check { .. } | Action::Evict { .. } | Action::Remove { .. } => {}
                        Action::SetAttributes { .. } => {}
                    }
                }
                while flow.poll_event().is_some() {}
                woken.extend(std::iter::from_fn(|| flow.poll_wake()));
            }
            if woken.is_empty() {
                return;
            }
            for id in woken {
                let at = self.owners[id.0 as usize];
                if self.links[at].connection.as_ref().is_some_and(|connection| connection.id == id) {
                    self.poll(at);
                }
            }
        }
    }

    /// Both ends of a link see what there is to send.
    fn poll(&mut self, at: usize) {
        self.order(at);
        self.answer(at);
        let link = &mut self.links[at];
        let Some(connection) = &mut link.connection else { return };
        let flow = &self.flows[link.client.0];
        let look_at = flow.poll_range_timeout(connection.id, self.now).unwrap_or(self.now + LOOK_EVERY);
        let look_at = look_at.min(self.now + LOOK_EVERY);
        if connection.look_at <= self.now || look_at < connection.look_at {
            connection.look_at = look_at;
            let id = connection.id;
            self.schedule(look_at, Some(id), Event::Look);
        }
    }

    fn order(&mut self, at: usize) {
        let link = &mut self.links[at];
        let Some(connection) = &mut link.connection else { return };
        let flow = &mut self.flows[link.client.0];
        let arrives = self.now + link.plan.order_delay;
        let mut out = Vec::new();
        while let Some(range) = flow.poll_cancel(connection.id) {
            let is_it = |order: &RangeRequest| {
                (order.object, order.generation, order.end()) == (range.object, range.generation, range.end())
            };
            let found = connection.orders.iter().find(|(_, order)| is_it(order)).map(|(&id, _)| id);
            if let Some(id) = found {
                connection.orders.remove(&id);
                out.push(Event::Cancel(id));
            }
        }
        while let Some(range) = flow.next_range(connection.id, self.now) {
            connection.made += 1;
            connection.orders.insert(connection.made, range);
            out.push(Event::Request(connection.made, range));
        }
        let id = connection.id;
        for event in out {
            self.schedule(arrives, Some(id), event);
        }
    }

    fn answer(&mut self, at: usize) {
        let link = &mut self.links[at];
        let Some(connection) = &mut link.connection else { return };
        if connection.sending {
            return;
        }
        let flow = &mut self.flows[link.server.0];
        let mut pending = Vec::new();
        if connection.answer.is_none() {
            connection.answer = next_answer(connection, flow, self.now, &mut pending);
        }
        let mut out: Vec<_> = pending.into_iter().map(|id| (self.now, Event::Pending(id))).collect();
        if let Some(answer) = &mut connection.answer {
            // What the link carries in half of the time of a range, so that the flow sees it come.
            let slice = ((link.plan.rate / 40.0) as u64).max(16 << 10);
            let left = answer.range.length.0 - answer.sent;
            let bytes = if left < 2 * slice { left } else { slice };
            connection.sending = true;
            let Answer { id, range, sent } = *answer;
            if let Some(ends) = link.plan.ends(self.now, bytes) {
                out.push((ends, Event::Data { id, range, from: sent, bytes }));
                out.push((ends, Event::Sent));
            }
            answer.sent += bytes;
            if answer.sent == range.length.0 {
                connection.answer = None;
            }
        }
        let (id, delay) = (connection.id, link.plan.data_delay);
        for (at, event) in out {
            let at = if matches!(event, Event::Sent) { at } else { at + delay };
            self.schedule(at, Some(id), event);
        }
    }
}

/// The oldest request that can be answered now; those that cannot be answered at all are over.
fn next_answer(connection: &mut Connection, flow: &mut Flow, now: Time, pending: &mut Vec<u32>) -> Option<Answer> {
    let link = connection.id;
    let mut at = 0;
    while at < connection.asked.len() {
        let asked = &mut connection.asked[at];
        let RangeRequest { object, offset, length, .. } = asked.rest;
        match flow.range_state(object, offset, length, now) {
            RangeState::Awaited => at += 1,
            RangeState::Ready { length, generation } if asked.generation.is_none_or(|sent| sent == generation) => {
                let range = RangeRequest { length, ..asked.rest };
                asked.generation = Some(generation);
                asked.rest.offset = range.end();
                asked.rest.length -= length;
                let answer = Answer { id: asked.id, range, sent: 0 };
                if asked.rest.length.0 == 0 {
                    connection.asked.remove(at);
                    flow.release_range(link, object, true, now);
                }
                return Some(answer);
            }
            RangeState::Ready { .. }
            | RangeState::Pending
            | RangeState::Damaged
            | RangeState::Gone
            | RangeState::Invalid => {
                pending.push(asked.id);
                flow.release_range(link, object, asked.generation.is_some(), now);
                connection.asked.remove(at);
            }
        }
    }
    None
}

fn name_of(node: usize) -> NodeName {
    NodeName::new(format!("n{node}").as_bytes()).expect("valid")
}

fn name_of_object(at: u64) -> ObjectName {
    ObjectName::new(format!("o{at:05}").as_bytes()).expect("valid")
}
