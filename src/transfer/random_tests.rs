//! Flows that are driven at random, whose books must be right after every step.
//!
//! A run is drawn from a seed. Its flow fetches, mirrors or relays six objects, which change and go, and which two
//! peers tell of, or lie about. Links come and go: fetchers, which bring whole objects, and carriers, which bring
//! ranges in pieces, in any order, damaged or not at all, and hear late what is wanted no more. The disk is slow and
//! sometimes full; a relay has readers, and less room than there is to read.
//!
//! After each step the flow's tables agree ([`books`](super::books)), and a part file is open where it was asked for
//! once and neither committed nor abandoned. Then nothing fails any more, and all that there is must arrive, and is
//! read of a relay. The same seed makes the same run: one that fails prints its seed and last steps. [`SEEDS`] are what
//! takes seconds; who changes a flow tries some thousands once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{Action, Content, Entry, Fault, Flow, Kind, RangeRequest, RangeState};
use crate::limits;
use crate::units::{ByteCount, Generation, LinkId, NodeName, ObjectId, ObjectName, Offset, Root256, Time};

const SEEDS: std::ops::Range<u64> = 0..40;
const STEPS: usize = 600;
/// In so many without a fault all that is to come is here.
const CALM_STEPS: usize = 4000;

const K: u64 = 1024;
const SIZES: [u64; 5] = [0, 1, 40 * K, 100 * K, 1100 * K];
const SPOOL: ByteCount = ByteCount(1500 * K);
const OBJECTS: u64 = 6;

type Attempt = (ObjectId, Generation);

/// Of so many bytes that are all alike, and that it begins with. What a table keeps of it tells lengths apart, too.
fn root_of(size: u64, byte: u8) -> Root256 {
    let mut root = [byte; 32];
    root[1] = (size % 251) as u8;
    root[8..16].copy_from_slice(&size.to_le_bytes());
    Root256(root)
}

fn content(size: u64, byte: u8) -> Content {
    let bytes = vec![byte; size as usize];
    let block_crcs = bytes.chunks(limits::BLOCK_BYTES as usize).map(crc_fast::crc32_iscsi).collect();
    Content { size: ByteCount(size), mtime_ns: 0, mode: 0o644, root: root_of(size, byte), block_crcs }
}

fn name(number: u64) -> ObjectName {
    ObjectName::new(number.to_string().as_bytes()).expect("valid")
}

/// The link of whoever reads an object.
fn link_of(number: u64) -> LinkId {
    LinkId((1 << 20) + number % 3)
}

fn peer_of(link: LinkId) -> NodeName {
    NodeName::new(if link.0.is_multiple_of(2) { b"e1" } else { b"e2" }).expect("valid")
}

/// A link that brings whole objects: what it was asked for, and how much it sends, for which attempt if any.
#[derive(Default)]
struct Fetcher {
    asked: VecDeque<ObjectId>,
    sends: Option<(ByteCount, Option<Attempt>)>,
}

/// A flow and all that it deals with.
struct World {
    rng: Pcg64Mcg,
    flow: Flow,
    now: Time,
    is_calm: bool,
    /// What there is: length and bytes.
    origin: BTreeMap<ObjectName, (u64, u8)>,
    fetchers: BTreeMap<LinkId, Fetcher>,
    carriers: BTreeMap<LinkId, Vec<RangeRequest>>,
    /// By what they read of a relay, and how much there is of that.
    readers: BTreeMap<u64, (ObjectId, ByteCount)>,
    /// What is still to be here, or read, now that all is calm.
    unseen: BTreeSet<u64>,
    parts: BTreeSet<Attempt>,
    jobs: VecDeque<Action>,
    log: Vec<String>,
}

impl World {
    fn live(&mut self) {
        (0..STEPS).for_each(|_| self.step());
        self.is_calm = true;
        for (number, (id, _)) in std::mem::take(&mut self.readers) {
            self.flow.release_range(link_of(number), id, false, self.now);
        }
        let is_there = |number: &u64| self.origin.get(&name(*number)).is_some_and(|&(size, _)| size > 0);
        self.unseen = (0..OBJECTS).filter(is_there).collect();
        let mut left = CALM_STEPS;
        while left > 0 && !self.unseen.is_empty() {
            self.step();
            left -= 1;
        }
        assert!(self.unseen.is_empty(), "never seen: {:?} of {:?}", self.unseen, self.flow.objects);
    }

    fn fails(&mut self, probability: f64) -> bool {
        !self.is_calm && self.rng.random_bool(probability)
    }

    fn step(&mut self) {
        // Now and then nothing comes for long, and what is late is asked of others.
        let pause = if self.rng.random_bool(0.01) { 3000 } else { 60 };
        self.now = self.now + Duration::from_millis(self.rng.random_range(0..pause));
        let number = self.rng.random_range(0..OBJECTS);
        match self.rng.random_range(0..100) {
            0..8 if !self.is_calm => self.change(number),
            8..20 => self.tell(number),
            20..28 => self.connect_or_break(),
            28..46 => self.bring_whole(),
            46..76 => self.bring_range(),
            76..90 => self.do_job(),
            90..98 => self.read(self.unseen.first().copied().unwrap_or(number)),
            98.. => {
                self.flow.expire(self.now);
                self.flow.review(self.now);
            }
            _ => {}
        }
        self.drain();
        self.flow.check_books();
    }

    fn change(&mut self, number: u64) {
        match SIZES.into_iter().choose(&mut self.rng).filter(|_| self.rng.random_bool(0.7)) {
            Some(size) => self.origin.insert(name(number), (size, self.rng.random_range(1..4))),
            None => self.origin.remove(&name(number)),
        };
    }

    /// A lie is another length, with its checksums, under the root.
    fn tell(&mut self, number: u64) {
        let Some(link) = self.carriers.keys().copied().choose(&mut self.rng) else { return };
        let from = peer_of(link);
        self.flow.subscription(link, &from);
        if !self.flow.begin_news(link, &from, 1) {
            return;
        }
        let version = self.origin.get(&name(number)).copied();
        let is_lie = self.flow.kind() == Kind::Fetch && self.fails(0.1);
        self.log.push(format!("{from} tells of {number} {version:?}, a lie: {is_lie}"));
        match version {
            Some((size, byte)) => {
                let content = Content { root: root_of(size, byte), ..content(size + u64::from(is_lie), byte) };
                self.flow.learn(&from, Entry { name: name(number), content });
            }
            None => self.flow.unlearn(&from, &name(number)),
        }
        let seq = self.flow.ledger.cursors.get(&from).map_or(0, |cursor| cursor.seq) + 1;
        self.flow.handle_news(link, &from, 1, seq);
        if self.rng.random_bool(0.2) {
            self.log.push(format!("{from} has told all"));
            self.flow.handle_whole(link, &from, 1, seq, 7);
        }
    }

    fn connect_or_break(&mut self) {
        let now = self.now;
        let link = LinkId(self.rng.random_range(0..1 << 20));
        let broken = self.carriers.keys().chain(self.fetchers.keys()).copied().choose(&mut self.rng);
        if self.fails(0.3)
            && let Some(link) = broken
        {
            self.log.push(format!("{link} breaks"));
            if self.carriers.remove(&link).is_some() {
                self.flow.detach_blocks(link, now);
            } else {
                self.fetchers.remove(&link);
                self.flow.detach_fetcher(link);
            }
        } else if self.carriers.len() < 3 && self.rng.random_bool(0.6) {
            self.log.push(format!("{link} carries"));
            self.flow.attach_blocks(link, peer_of(link), now);
            self.carriers.insert(link, Vec::new());
        } else if self.fetchers.len() < 2 {
            self.log.push(format!("{link} fetches"));
            self.flow.attach_fetcher(link, NodeName::new(b"seed").expect("valid"));
            self.fetchers.insert(link, Fetcher::default());
        }
    }

    /// A fetcher asks, begins to get, has all of it, or is told that it is not there.
    fn bring_whole(&mut self) {
        let (now, asks) = (self.now, self.rng.random_bool(0.5));
        let is_late = self.rng.random_bool(if self.is_calm { 0.05 } else { 0.2 });
        let Some(link) = self.fetchers.keys().copied().choose(&mut self.rng) else { return };
        let fetcher = self.fetchers.entry(link).or_default();
        let Some(&id) = fetcher.asked.front().filter(|_| fetcher.sends.is_some() || !asks) else {
            let next = self.flow.next_request(link, false, now).filter(|_| fetcher.sends.is_none());
            fetcher.asked.extend(next);
            self.log.extend(next.map(|id| format!("{link} asks for {id}")));
            return;
        };
        assert_eq!(self.flow.head(link), Some(id), "head of {link}");
        self.log.push(format!("{link} has {id}, late: {is_late}, {:?}", fetcher.sends));
        let sends = fetcher.sends.take();
        if is_late {
            fetcher.asked.pop_front();
            self.flow.handle_pending(link, now);
        } else if let Some((size, attempt)) = sends {
            fetcher.asked.pop_front();
            if attempt.is_some() {
                self.flow.handle_payload(link, size, now);
            }
            self.flow.handle_received(link, now);
            if let Some(attempt) = attempt.filter(|&attempt| !self.disk_fails(0.1, attempt)) {
                self.flow.handle_created(attempt.0, attempt.1);
                self.flow.handle_written(attempt.0, attempt.1, size);
            }
        } else {
            let size = ByteCount(self.origin.get(self.flow.name(id)).map_or(1, |version| version.0));
            let attempt = self.flow.handle_begin(link, size, now).ok();
            self.fetchers.entry(link).or_default().sends = Some((size, attempt));
        }
    }

    /// A carrier orders, gets a piece, or is told that what it ordered is not there.
    fn bring_range(&mut self) {
        let now = self.now;
        let Some(link) = self.carriers.keys().copied().choose(&mut self.rng) else { return };
        let orders = self.carriers.entry(link).or_default();
        while let Some(r) = self.flow.poll_cancel(link) {
            // Its peer may hear of it too late.
            let is_late = self.rng.random_bool(0.5);
            orders.retain(|o| is_late || (o.object, o.generation, o.end()) != (r.object, r.generation, r.end()));
        }
        let at = (0..orders.len()).choose(&mut self.rng).filter(|_| self.rng.random_bool(0.6));
        let Some(at) = at else {
            let next = self.flow.next_range(link, now);
            orders.extend(next);
            self.log.extend(next.map(|order| format!("{link} orders {order:?}")));
            return;
        };
        let order = orders.remove(at);
        let is_part = order.length.0 > 1 && self.rng.random_bool(0.5);
        let length = ByteCount(if is_part { self.rng.random_range(1..order.length.0) } else { order.length.0 });
        if self.fails(0.1) {
            self.log.push(format!("{link} has {order:?} later"));
            self.flow.handle_range_pending(link, order, now);
            return;
        }
        let piece = RangeRequest { length, ..order };
        if is_part {
            let rest = RangeRequest { offset: piece.end(), length: ByteCount(order.length.0 - length.0), ..order };
            self.carriers.entry(link).or_default().insert(at, rest);
        }
        self.bring_piece(link, piece);
    }

    fn bring_piece(&mut self, link: LinkId, piece: RangeRequest) {
        let now = self.now;
        let is_kept = self.flow.handle_range_begin(piece);
        self.flow.handle_range_data(link, Some(piece), piece.length, now);
        let is_damaged = self.fails(0.06);
        self.log.push(format!("{link} brings {piece:?}, kept: {is_kept}, damaged: {is_damaged}"));
        if !is_kept {
            self.flow.handle_unwanted(link, piece, now);
        } else if is_damaged {
            self.flow.handle_damaged(link, piece, now);
        } else if !self.flow.wants_piece(piece) {
            self.flow.handle_unwanted(link, piece, now);
        } else if !self.disk_fails(0.04, (piece.object, piece.generation)) {
            self.flow.handle_created(piece.object, piece.generation);
            let byte = self.flow.content(piece.object).map_or(0, |content| content.root.0[0]);
            let bytes = vec![byte; piece.length.0 as usize];
            self.flow.handle_verified(link, piece, crc_fast::crc32_iscsi(&bytes), now);
        }
    }

    fn disk_fails(&mut self, probability: f64, (id, generation): Attempt) -> bool {
        let fails = self.fails(probability);
        if fails {
            let fault = if self.rng.random_bool(0.5) { Fault::Store } else { Fault::Name };
            self.log.push(format!("{id} {generation:?} fails, {fault:?}"));
            self.flow.handle_store_failed(id, generation, "full".into(), fault, self.now);
        }
        fails
    }

    fn do_job(&mut self) {
        let Some(job) = self.jobs.pop_front() else { return };
        self.log.push(format!("does {job:?}"));
        match job {
            Action::Create { id, generation, .. } | Action::OpenPart { id, generation, .. } => {
                if self.disk_fails(0.08, (id, generation)) {
                    return;
                }
                self.flow.handle_created(id, generation);
            }
            Action::Commit { id, generation, root, size } if self.parts.contains(&(id, generation)) => {
                if root.is_some_and(|told| told != root_of(size.0, told.0[0])) {
                    self.flow.handle_root_failed(id, generation, self.now);
                } else if !self.disk_fails(0.1, (id, generation)) {
                    self.parts.remove(&(id, generation));
                    self.flow.handle_committed(id, generation, self.now);
                }
            }
            _ => {}
        }
    }

    /// Somebody asks a relay for an object, or goes when that is here, cannot be had, or is wanted no more. What a flow
    /// fetches is looked for.
    fn read(&mut self, number: u64) {
        let (now, link) = (self.now, link_of(number));
        let id = self.flow.id_of(&name(number));
        let (is_known, is_here) = (self.is_known(number), id.is_some_and(|id| self.flow.at(id).is_present()));
        if is_known && is_here && self.flow.kind() == Kind::Fetch {
            self.unseen.remove(&number);
        }
        let Some((id, length)) = self.readers.remove(&number) else {
            let Some(id) = id.filter(|_| self.flow.kind() == Kind::Relay) else { return };
            let length = ByteCount(self.flow.content(id).map_or(1, |content| content.size.0.max(1)));
            self.log.push(format!("{link} reads {length} of {number}, {id}"));
            self.flow.demand_range(link, id, Offset(0), length, now);
            self.readers.insert(number, (id, length));
            return;
        };
        let state = self.flow.range_state(id, Offset(0), length, now);
        let is_here = matches!(state, RangeState::Ready { length: here, .. } if here == length);
        if matches!(state, RangeState::Ready { .. } | RangeState::Awaited) && !is_here && !self.fails(0.5) {
            self.readers.insert(number, (id, length));
            return;
        }
        self.log.push(format!("{link} reads {id} no more: {state:?}"));
        self.flow.release_range(link, id, is_here, now);
        if is_known && is_here {
            self.unseen.remove(&number);
        }
    }

    fn drain(&mut self) {
        while self.flow.poll_wake().is_some() || self.flow.poll_event().is_some() {}
        while let Some(action) = self.flow.poll_action() {
            self.log.push(format!("  {action:?}"));
            match action {
                Action::Create { id, generation, .. } | Action::OpenPart { id, generation, .. } => {
                    assert!(self.parts.insert((id, generation)), "it is opened twice: {action:?}");
                }
                Action::Abandon { id, generation } => {
                    assert!(self.parts.remove(&(id, generation)), "it is not open: {action:?}");
                }
                _ => {}
            }
            self.jobs.push_back(action);
        }
        assert_eq!(self.flow.open_parts, self.parts.len(), "open parts");
    }

    /// Whether what is known of an object is what it is.
    fn is_known(&self, number: u64) -> bool {
        let known = self.flow.id_of(&name(number)).and_then(|id| self.flow.content(id));
        let version = known.map(|known| (known.size.0, known.root));
        version == self.origin.get(&name(number)).map(|&(size, byte)| (size, root_of(size, byte)))
    }
}

fn run(flow: impl Fn() -> Flow) {
    for seed in SEEDS {
        let mut world = World {
            rng: Pcg64Mcg::seed_from_u64(seed),
            flow: flow(),
            now: Time::ZERO,
            is_calm: false,
            origin: BTreeMap::new(),
            fetchers: BTreeMap::new(),
            carriers: BTreeMap::new(),
            readers: BTreeMap::new(),
            unseen: BTreeSet::new(),
            parts: BTreeSet::new(),
            jobs: VecDeque::new(),
            log: Vec::new(),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.live())) {
            let last = world.log[world.log.len().saturating_sub(40)..].join("\n");
            eprintln!("seed {seed} failed after these steps:\n{last}");
            resume_unwind(panic);
        }
    }
}

#[test]
fn what_a_flow_fetches_arrives() {
    run(Flow::fetch);
}

#[test]
fn what_a_flow_mirrors_arrives() {
    run(|| {
        let mut flow = Flow::fetch();
        flow.set_mirror(true);
        flow
    });
}

#[test]
fn what_a_relay_is_asked_for_arrives() {
    run(|| Flow::relay(SPOOL));
}
