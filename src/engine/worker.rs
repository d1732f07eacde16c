//! One thread, one driver, many links: receives into buffers, feeds the protocol core, builds trains and sends them.
//!
//! A turn of the loop: wait for completions, messages or a deadline; take them all; then pump each link that something
//! happened to: send if nothing is in flight, receive if nothing is being received, note its next deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::connection::Connection;
use super::flight::Flight;
use super::frames;
use super::inbox::Message;
use super::session;
use super::shared::Shared;
use super::train::{self, Layout, OpenSource};
use super::writer::WriteJob;
use super::{EngineError, Notice};
use crate::limits;
use crate::proto::extended::Piece;
use crate::proto::{Link, LinkError, Received};
use crate::units::{ByteCount, LinkId, Time};
use crate::uring::{Buffer, Completion, Driver, Gather, Outcome, Pool, Token, socket};

/// A connection, by what is spoken over it.
enum Spoken {
    /// A link of the node's site.
    Site(Box<Connection>),
    /// A session's.
    Session(Box<session::Connection>),
}

impl Spoken {
    fn flight(&self) -> &Flight {
        match self {
            Self::Site(connection) => &connection.flight,
            Self::Session(connection) => &connection.flight,
        }
    }

    fn flight_mut(&mut self) -> &mut Flight {
        match self {
            Self::Site(connection) => &mut connection.flight,
            Self::Session(connection) => &mut connection.flight,
        }
    }
}

struct Worker {
    index: usize,
    shared: Arc<Shared>,
    driver: Driver,
    /// Large buffers, for links over which much comes.
    pool: Pool,
    /// Small ones, for all others: a link that waits for bytes keeps nobody from receiving.
    idle_pool: Pool,
    connections: BTreeMap<LinkId, Spoken>,
    /// Links that something happened to in this turn.
    touched: BTreeSet<LinkId>,
    /// Links that want to receive and found no buffer.
    starved: BTreeSet<LinkId>,
    /// All links are to end; those still busy are cut off at this time.
    drain_by: Option<Time>,
    /// What is read of files to be copied into trains.
    scratch: Vec<u8>,
}

/// Starts worker `index`. Fails where the kernel does not give what its driver needs.
pub(super) fn spawn(index: usize, shared: Arc<Shared>) -> Result<JoinHandle<()>, EngineError> {
    let (ready, started) = mpsc::channel();
    let thread = super::spawn(format!("ss-worker-{index}"), move || match Worker::new(index, shared) {
        Ok(mut worker) => {
            let _ = ready.send(Ok(()));
            worker.run();
        }
        Err(error) => drop(ready.send(Err(error))),
    })?;
    match started.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(EngineError::Io(std::io::Error::other("a worker thread died at its start"))),
    }
}

impl Worker {
    fn new(index: usize, shared: Arc<Shared>) -> Result<Self, EngineError> {
        let (driver, missed) = Driver::new(shared.driver, limits::RING_ENTRIES)?;
        if let Some(why) = missed {
            tracing::warn!("worker {index} goes by plain calls: {why}");
        }
        shared.is_plain.fetch_or(matches!(driver, Driver::Blocking(_)), Ordering::Relaxed);
        let pool = Pool::new(limits::RECV_BUFFERS_PER_WORKER, limits::RECV_BUFFER_BYTES)?;
        let idle_pool = Pool::new(limits::IDLE_BUFFERS_PER_WORKER, limits::IDLE_BUFFER_BYTES)?;
        let waker = driver.waker();
        shared.inboxes[index].attach(waker.clone());
        let idle_waker = waker.clone();
        pool.on_return(move || waker.wake());
        idle_pool.on_return(move || idle_waker.wake());
        Ok(Self {
            index,
            shared,
            driver,
            pool,
            idle_pool,
            connections: BTreeMap::new(),
            touched: BTreeSet::new(),
            starved: BTreeSet::new(),
            drain_by: None,
            scratch: Vec::new(),
        })
    }

    fn run(&mut self) {
        while !(self.drain_by.is_some() && self.connections.is_empty()) {
            let timeout = if self.shared.inboxes[self.index].may_wait() { self.next_timeout() } else { Duration::ZERO };
            if let Err(error) = self.driver.wait(Some(timeout)) {
                // Links that it has, and those that it is handed, would hang for ever.
                panic!("a worker's driver failed, start this process again: {error}");
            }
            while let Some(completion) = self.driver.next_completion() {
                self.handle_completion(completion);
            }
            for message in self.shared.inboxes[self.index].take(self.shared.now()) {
                self.handle_message(message);
            }
            if self.pool.available() > 0 || self.idle_pool.available() > 0 {
                self.touched.append(&mut self.starved);
            }
            self.handle_deadlines();
            while let Some(link) = self.touched.pop_first() {
                self.pump(link);
            }
        }
    }

    fn next_timeout(&self) -> Duration {
        let now = self.shared.now();
        let deadline = self.connections.values().map(|connection| connection.flight().deadline).min();
        deadline.into_iter().chain(self.drain_by).min().map_or(limits::KEEPALIVE_EVERY, |at| at.since(now))
    }

    fn handle_message(&mut self, message: Message) {
        match message {
            Message::Wake(link) => {
                self.touched.insert(link);
            }
            Message::Look => self.touched.append(&mut self.starved),
            Message::Add(new, stats) => {
                let id = new.config.id;
                if self.drain_by.is_none() {
                    let connection = Connection::new(*new, stats, self.shared.now());
                    self.connections.insert(id, Spoken::Site(Box::new(connection)));
                    self.touched.insert(id);
                }
            }
            Message::AddSession(new) => {
                let id = new.id;
                let mut connection = session::Connection::new(*new, self.shared.now());
                if self.drain_by.is_some() {
                    connection.handle_closed("the node stops");
                } else {
                    self.connections.insert(id, Spoken::Session(Box::new(connection)));
                    self.touched.insert(id);
                }
            }
            Message::Answer(link, answer) => match self.connections.get_mut(&link) {
                Some(Spoken::Session(connection)) if connection.flight.closing.is_none() => {
                    self.touched.insert(link);
                    if let Err(reason) = connection.handle_answer(&self.shared, answer, self.shared.now()) {
                        self.close(link, reason);
                    }
                }
                _ => answer.forget(),
            },
            Message::Close(link, reason) => self.close(link, reason),
            Message::Drain(within) => {
                self.drain_by = Some(self.shared.now() + within);
                self.touched.extend(self.connections.keys());
            }
        }
    }

    fn handle_deadlines(&mut self) {
        let now = self.shared.now();
        let due: Vec<LinkId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.flight().deadline <= now)
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            self.touched.insert(id);
            match connection {
                Spoken::Session(connection) => {
                    if let Err(reason) = connection.handle_timeout(now) {
                        self.close(id, reason);
                    }
                }
                Spoken::Site(connection) => {
                    // A file that is gone keeps its room on the disk while it is open.
                    if connection.link.asked() == 0 {
                        connection.source = None;
                    }
                    if !connection.flight.receiving && connection.flight.closing.is_none() {
                        connection.link.handle_life(now);
                    }
                    if let Err(error) = connection.link.handle_timeout(now) {
                        self.fail(id, &error);
                    }
                }
            }
        }
        if self.drain_by.is_some_and(|at| at <= now) {
            let links: Vec<LinkId> = self.connections.keys().copied().collect();
            for link in links {
                self.close(link, "the node stops".into());
                self.touched.insert(link);
            }
        }
    }

    // -- completions -------------------------------------------------------------------------------------------------

    fn handle_completion(&mut self, completion: Completion) {
        let id = LinkId(completion.token.0);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.touched.insert(id);
        let is_closing = connection.flight().closing.is_some();
        match completion.outcome {
            Outcome::Received { buffer, result } => {
                connection.flight_mut().receiving = false;
                match result {
                    _ if is_closing => {}
                    Ok(0) => self.close(id, "the peer closed the connection".into()),
                    Ok(bytes) => self.handle_received(id, buffer, bytes),
                    Err(error) => self.close(id, socket::describe(&error)),
                }
            }
            Outcome::Sent { train, result } => {
                let now = self.shared.now();
                connection.flight_mut().train = Some(train);
                match result {
                    _ if is_closing => {}
                    Ok(bytes) => {
                        connection.flight_mut().send_rate.add(ByteCount(bytes as u64), now);
                        match connection {
                            Spoken::Site(connection) => {
                                connection.stats.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
                            }
                            Spoken::Session(connection) => connection.handle_sent(bytes),
                        }
                    }
                    Err(error) => self.close(id, socket::describe(&error)),
                }
            }
        }
    }

    fn handle_received(&mut self, id: LinkId, mut buffer: Buffer, bytes: usize) {
        let connection = match self.connections.get_mut(&id) {
            Some(Spoken::Site(connection)) => connection,
            Some(Spoken::Session(connection)) => {
                if let Err(reason) = connection.handle_received(&self.shared, buffer, bytes, self.shared.now()) {
                    self.close(id, reason);
                }
                return;
            }
            None => return,
        };
        connection.stats.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        connection.flight.busy = bytes >= limits::IDLE_BUFFER_BYTES / 2;
        let n = connection.link.packet_len().bytes();
        let whole = buffer.filled().len() / n * n;
        if whole == 0 {
            connection.link.handle_life(self.shared.now());
            let result = connection.link.check_partial(buffer.filled());
            connection.flight.keep_partial(buffer);
            if let Err(error) = result {
                self.fail(id, &error);
            }
            return;
        }
        let mut received = Received::default();
        let (fetch, serve) = (connection.fetch, connection.serve);
        let link = &mut connection.link;
        let result = self.shared.with_flows(|flows, now| {
            let (fetch, serve) = flows.pair(fetch, serve);
            link.handle_packets(&buffer.filled()[..whole], now, fetch, serve, &mut received)
        });
        let result = result.and_then(|()| link.check_partial(&buffer.filled()[whole..]));
        let Received { writes, instructions } = received;
        let fetch = connection.fetch;
        frames::follow(&self.shared, connection, &buffer.filled()[..whole], instructions);
        connection.flight.carry.clear();
        connection.flight.carry.extend_from_slice(&buffer.filled()[whole..]);
        if writes.is_empty() {
            buffer.clear();
            buffer.copy_from(&connection.flight.carry);
            connection.flight.carry.clear();
            connection.flight.keep_partial(buffer);
        } else {
            self.shared.backlog.fetch_add(buffer.filled().len(), Ordering::AcqRel);
            self.shared.write(WriteJob::Write { flow: fetch, buffer, writes });
        }
        // One that is no peer, for its config, is none to be missed later.
        if !connection.met
            && !result.as_ref().is_err_and(LinkError::is_misfit)
            && let Some(peer) = connection.link.peer()
        {
            connection.met = true;
            let address = connection.flight.address.clone();
            let number = peer.hello.as_ref().and_then(|hello| hello.link);
            self.shared.notify(Notice::Met { link: id, peer: peer.name.clone(), number, address });
        }
        if let Err(error) = result {
            self.fail(id, &error);
        }
    }

    /// A link of a site ends for what its peer sends, or does not send.
    fn fail(&mut self, id: LinkId, error: &LinkError) {
        if let Some(Spoken::Site(connection)) = self.connections.get_mut(&id) {
            (connection.damaged, connection.misfit) = (error.is_damage(), error.is_misfit());
        }
        self.close(id, error.to_string());
    }

    // -- pumping -----------------------------------------------------------------------------------------------------

    fn pump(&mut self, id: LinkId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let has_words = matches!(connection, Spoken::Session(connection) if connection.has_last_words());
        let flight = connection.flight();
        if flight.closing.is_none() && self.drain_by.is_some() && flight.train.is_some() && !has_words {
            self.close(id, "the node stops".into());
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Some(reason) = connection.flight().closing.clone() {
            if connection.flight().is_quiet()
                && let Some(connection) = self.connections.remove(&id)
            {
                self.finish(connection, reason);
            }
            return;
        }
        self.pump_send(id);
        self.pump_receive(id);
        match self.connections.get_mut(&id) {
            Some(Spoken::Site(connection)) => {
                let (link, fetch) = (&connection.link, connection.fetch);
                // With a train in flight there is nothing that could be done about what is due to be sent.
                let may_send = connection.flight.train.is_some();
                let deadline = self.shared.with_flows(|flows, now| link.poll_timeout(flows.at(fetch), may_send, now));
                let held_until = connection.held_until.filter(|_| may_send);
                connection.flight.deadline = held_until.map_or(deadline, |at| at.min(deadline));
                connection.stats.update(&connection.link);
            }
            Some(Spoken::Session(connection)) => {
                connection.update_deadline(self.shared.now());
                let is_sent = connection.flight.train.is_some();
                if let Some(reason) = connection.poll_leave().filter(|_| is_sent) {
                    self.close(id, reason);
                }
            }
            None => {}
        }
    }

    fn pump_receive(&mut self, id: LinkId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // A session that has caught up wakes its connections.
        let is_behind = matches!(connection, Spoken::Session(connection) if connection.is_behind());
        let flight = connection.flight_mut();
        if flight.receiving || flight.closing.is_some() || is_behind {
            return;
        }
        if self.shared.backlog.load(Ordering::Acquire) >= limits::WRITE_BACKLOG_MAX {
            self.starved.insert(id);
            return;
        }
        let fits_small = flight.carry.len() < limits::IDLE_BUFFER_BYTES / 2;
        let small = || fits_small.then(|| self.idle_pool.take()).flatten();
        let fresh = || match flight.busy {
            true => self.pool.take().or_else(small),
            false => small().or_else(|| self.pool.take()),
        };
        let Some(mut buffer) = flight.buffer.take().or_else(fresh) else {
            self.starved.insert(id);
            return;
        };
        buffer.copy_from(&flight.carry);
        flight.carry.clear();
        match self.driver.recv(Token(id.0), &flight.socket, buffer) {
            Ok(()) => flight.receiving = true,
            Err(rejected) => {
                flight.buffer = Some(rejected.returned);
                self.close(id, rejected.error.to_string());
            }
        }
    }

    fn pump_send(&mut self, id: LinkId) {
        let Some(flight) = self.connections.get_mut(&id).map(Spoken::flight_mut) else { return };
        let Some(mut train) = flight.train.take() else { return };
        if train.is_done() {
            train.clear();
            self.build(id, &mut train);
        }
        let Some(flight) = self.connections.get_mut(&id).map(Spoken::flight_mut) else { return };
        let now = self.shared.now();
        if train.is_empty() {
            flight.send_rate.stop(now);
            flight.train = Some(train);
            return;
        }
        flight.send_rate.start(now);
        if let Err(rejected) = self.driver.send(Token(id.0), &flight.socket, train) {
            flight.train = Some(rejected.returned);
            self.close(id, rejected.error.to_string());
        }
    }

    /// Fills an empty train with as much as the link carries in a short while, or with what there is.
    fn build(&mut self, id: LinkId, train: &mut Gather) {
        let connection = match self.connections.get_mut(&id) {
            Some(Spoken::Site(connection)) => connection,
            Some(Spoken::Session(connection)) => return connection.build(train, self.shared.now()),
            None => return,
        };
        let budget = connection.flight.send_rate.train_bytes(self.shared.now());
        tune(connection, budget);
        if let Link::Extended(_) = connection.link {
            frames::build(&self.shared, connection, train, budget);
            return;
        }
        let n = connection.link.packet_len();
        let worst = train::worst_piece_bytes(n);
        loop {
            let used = train.len_bytes();
            let full = used + worst > limits::TRAIN_BYTES_MAX.max(worst);
            if used > 0 && (full || used + n.bytes() > budget) {
                return;
            }
            let room = (budget.saturating_sub(used) / n.bytes()).max(1);
            let (fetch, serve, source) = (connection.fetch, connection.serve, &connection.source);
            let link = &mut connection.link;
            let polled = self.shared.with_flows(|flows, now| {
                let (fetch, serve) = flows.pair(fetch, serve);
                let Piece::Seed(piece) = link.poll_transmit(now, room, fetch, serve)? else { return None };
                let is_open = |data: &crate::proto::duplex::Data| {
                    source.as_ref().is_some_and(|open| open.id == data.id && open.generation == data.generation)
                };
                let name = piece.data.filter(|data| !is_open(data)).map(|data| serve.name(data.id).clone());
                Some((piece, name))
            });
            let Some((piece, name)) = polled else { return };
            let mark = train.mark();
            let opened = match (piece.data, name) {
                (Some(data), Some(name)) => {
                    OpenSource::open(&self.shared, serve, data, &name).map(|open| connection.source = Some(open))
                }
                _ => Ok(()),
            };
            let mut layout = Layout {
                shared: &self.shared,
                packet_len: n,
                hello: connection.link.hello(),
                padding_cursor: &mut connection.padding_cursor,
                scratch: &mut self.scratch,
            };
            let added = opened.and_then(|()| layout.add(train, &piece, connection.source.as_ref()));
            let link = &mut connection.link;
            match added {
                Ok(()) => {
                    if piece.data.is_some_and(|data| data.tail) {
                        connection.source = None;
                        self.shared.with_flows(|flows, now| link.handle_tail_read(now, flows.at(serve)));
                    }
                }
                Err(reason) => {
                    train.truncate_to(mark);
                    connection.source = None;
                    self.shared.with_flows(|flows, now| {
                        let (fetch, serve) = flows.pair(fetch, serve);
                        link.handle_source_failed(&piece, reason, now, fetch, serve);
                    });
                }
            }
        }
    }

    // -- ends --------------------------------------------------------------------------------------------------------

    /// Begins to end a link: its work is given back now, it goes when nothing is in flight.
    fn close(&mut self, id: LinkId, reason: String) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.touched.insert(id);
        let flight = connection.flight_mut();
        if flight.closing.is_some() {
            return;
        }
        flight.closing = Some(reason.clone());
        flight.buffer = None;
        flight.deadline = self.shared.now() + limits::KEEPALIVE_EVERY;
        give_back(&self.shared, connection, &reason);
        // Fails only when the peer was faster.
        let _ = socket::shutdown(&connection.flight().socket, Shutdown::Both);
        self.driver.cancel(Token(id.0));
    }

    fn finish(&self, connection: Spoken, reason: String) {
        let connection = match connection {
            Spoken::Site(connection) => connection,
            Spoken::Session(connection) => {
                tracing::debug!(address = connection.flight.address, "a connection of a session ended: {reason}");
                return;
            }
        };
        let id = connection.link.id();
        self.shared.remove_link(id);
        let peer = connection.link.peer().map(|peer| peer.name.clone());
        tracing::debug!(connection = id.0, address = connection.flight.address, "ended: {reason}");
        let address = connection.flight.address.clone();
        let (damaged, misfit) = (connection.damaged, connection.misfit);
        drop(connection);
        self.shared.notify(Notice::Closed { link: id, peer, address, damaged, misfit, reason });
        // Behind the last of its ranges.
        self.shared.write(WriteJob::Settle { link: id });
    }
}

/// What a connection that ends was to do goes back.
fn give_back(shared: &Shared, connection: &mut Spoken, reason: &str) {
    match connection {
        Spoken::Site(connection) => {
            let (fetch, serve) = (connection.fetch, connection.serve);
            let link = &mut connection.link;
            shared.with_flows(|flows, now| {
                let (fetch, serve) = flows.pair(fetch, serve);
                link.close(now, fetch, serve);
            });
            connection.stats.update(&connection.link);
        }
        Spoken::Session(connection) => connection.handle_closed(reason),
    }
}

/// Tells the kernel how much may wait unsent in the socket: enough to keep the link busy, little enough that a request
/// is never long behind data.
fn tune(connection: &mut Connection, train_bytes: usize) {
    let wanted = (2 * train_bytes) as u32;
    let differs = wanted > connection.unsent_max.saturating_mul(3) / 2 || wanted < connection.unsent_max / 2;
    if differs && socket::set_not_sent_low_water(&connection.flight.socket, wanted).is_ok() {
        connection.unsent_max = wanted;
    }
}
