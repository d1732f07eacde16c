//! Links over pipes between whole nodes, each with a small rim: files are vectors, a commit checks the root.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{FEATURES, Instruction, Piece};
use crate::limits;
use crate::proto::duplex::{self, LinkConfig};
use crate::proto::{Link, LinkError, Protocol, Received};
use crate::transfer::{Action, Content, Entry, Event, Flow, FlowId, Flows, Problem, RangeRequest};
use crate::units::{ByteCount, Generation, LinkId, NodeName, ObjectId, ObjectName, Offset, PacketLen, Root256, Time};
use crate::wire::checksum::crc32c;
use crate::wire::extended::{DataOf, Epoch, Frame, Packer, Refusal, RequestId, Segment, Seq};
use crate::wire::hello::{Features, Hello, Role};

const REMOTE: FlowId = FlowId(0);
const LOCAL: FlowId = FlowId(1);

struct End {
    link: Link,
    fetch: FlowId,
    serve: FlowId,
    packer: Packer,
    assembling: Option<Vec<u8>>,
    /// Bytes on their way out.
    out: VecDeque<u8>,
}

struct Node {
    name: &'static str,
    role: Role,
    flows: Flows,
    disks: Vec<BTreeMap<ObjectName, Vec<u8>>>,
    parts: BTreeMap<(FlowId, ObjectId, Generation), Vec<u8>>,
    ends: Vec<End>,
    damaged: usize,
    events: Vec<Event>,
    features: Features,
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text.as_bytes()).expect("valid")
}

fn node_name(text: &str) -> NodeName {
    NodeName::new(text.as_bytes()).expect("valid")
}

fn bytes(size: usize, seed: u32) -> Vec<u8> {
    (0..size as u32).map(|i| (i.wrapping_add(seed).wrapping_mul(0x9E37_79B9) >> 21) as u8).collect()
}

fn entry(object: &ObjectName, bytes: &[u8]) -> Entry {
    let block_crcs = bytes.chunks(limits::BLOCK_BYTES as usize).map(crc32c).collect();
    let root = Root256(*blake3::hash(bytes).as_bytes());
    let content = Content { size: ByteCount(bytes.len() as u64), mtime_ns: 1_234_567, mode: 0o640, root, block_crcs };
    Entry { name: object.clone(), content }
}

impl Node {
    fn new(name: &'static str, role: Role) -> Self {
        let flows = match role {
            Role::Trader => vec![Flow::fetch(), Flow::offer_only()],
            Role::Exchange => vec![Flow::relay(ByteCount(64 << 20)), Flow::relay(ByteCount(64 << 20))],
        };
        let disks = vec![BTreeMap::new(), BTreeMap::new()];
        let (flows, parts) = (Flows::new(flows), BTreeMap::new());
        let (ends, events) = (Vec::new(), Vec::new());
        Self { name, role, flows, disks, parts, ends, damaged: 0, events, features: FEATURES }
    }

    fn offer(&mut self, object: &ObjectName, bytes: Vec<u8>) {
        let local = self.flows.at(LOCAL);
        assert!(local.offer(object.clone(), ByteCount(bytes.len() as u64)));
        local.know(entry(object, &bytes)).expect("room in the table");
        self.disks[1].insert(object.clone(), bytes);
    }

    fn connect(&mut self, id: u64, fetch: FlowId, serve: FlowId, packet_len: PacketLen, now: Time) -> usize {
        let hello = Hello {
            version: Hello::VERSION,
            features: self.features,
            packet_bytes_max: limits::PACKET_BYTES_MAX,
            link: None,
            role: self.role,
            node: node_name(self.name),
        };
        let id = LinkId(id);
        let fallback_peer = node_name("unknown");
        let config = LinkConfig { id, packet_len, hello, configured_peer: None, fallback_peer };
        let (link, packer) = (Link::new(config, Protocol::Duplex, now), Packer::new(packet_len));
        self.ends.push(End { link, fetch, serve, packer, assembling: None, out: VecDeque::new() });
        self.ends.len() - 1
    }

    fn range_bytes(&self, flow: FlowId, range: RangeRequest, object: &ObjectName) -> Option<Vec<u8>> {
        let file = self.parts.get(&(flow, range.object, range.generation));
        let file = file.or_else(|| self.disks[usize::from(flow.0)].get(object))?;
        file.get(range.offset.0 as usize..range.end().0 as usize).map(<[u8]>::to_vec)
    }

    /// Packs what the link has to send, some packets of it.
    fn send(&mut self, at: usize, now: Time) {
        let (fetch_id, serve_id) = (self.ends[at].fetch, self.ends[at].serve);
        self.ends[at].packer.start();
        let mut data = Vec::new();
        while self.ends[at].packer.packets() < 8 {
            let (fetch, serve) = self.flows.pair(fetch_id, serve_id);
            let end = &mut self.ends[at];
            match end.link.poll_transmit(now, 1, fetch, serve) {
                None => break,
                Some(Piece::Seed(piece)) => {
                    let object = piece.data.map(|data| serve.name(data.id).clone());
                    self.send_seed(at, &piece, object.as_ref(), now);
                    if piece.data.is_some() {
                        break;
                    }
                }
                Some(Piece::Head(frame)) => end.packer.push_head(&frame).expect("short"),
                Some(Piece::News { frame, data: news }) => {
                    end.packer.push_head(&frame).expect("short");
                    end.packer.push_data(ByteCount(news.len() as u64));
                    data.extend(news);
                }
                Some(Piece::Range { id, range }) => {
                    let object = serve.name(range.object).clone();
                    let Some(read) = self.range_bytes(serve_id, range, &object) else {
                        let serve = self.flows.at(serve_id);
                        let Link::Extended(link) = &mut self.ends[at].link else { panic!("a range of the seed's") };
                        link.handle_source_failed(id, range, (Refusal::Damaged, "gone".into()), now, serve);
                        continue;
                    };
                    let frame = Frame::Begin { id, offset: range.offset, length: range.length, crc: crc32c(&read) };
                    let end = &mut self.ends[at];
                    end.packer.push_head(&frame).expect("short");
                    end.packer.push_data(range.length);
                    data.extend(read);
                }
            }
        }
        self.ends[at].flush(&data);
        self.settle(now);
    }

    /// Packets of the seed's grammar.
    fn send_seed(&mut self, at: usize, piece: &duplex::Piece, object: Option<&ObjectName>, now: Time) {
        let end = &mut self.ends[at];
        let n = end.packer_len();
        let mut packet = piece.header.clone();
        if let Some((data, object)) = piece.data.zip(object) {
            let file = &self.disks[usize::from(end.serve.0)][object];
            let start = data.offset.0 as usize;
            for &byte in &file[start..start + data.length] {
                if packet.len() == n {
                    end.out.extend(std::mem::replace(&mut packet, b"M:".to_vec()));
                }
                packet.push(byte);
            }
            if let (true, Link::Seed(link)) = (data.tail, &mut end.link) {
                link.handle_tail_read(now, self.flows.at(end.serve));
            }
        }
        let header = packet.len();
        packet.resize(n, b'?');
        if piece.hello {
            end.hello().write_into(&mut packet[header..]).expect("it fits");
        }
        end.out.extend(packet);
    }

    fn receive(&mut self, at: usize, train: &[u8], now: Time) -> Result<(), LinkError> {
        let (fetch_id, serve_id) = (self.ends[at].fetch, self.ends[at].serve);
        let mut received = Received::default();
        let (fetch, serve) = self.flows.pair(fetch_id, serve_id);
        let result = self.ends[at].link.handle_packets(train, now, fetch, serve, &mut received);
        self.settle(now);
        for write in received.writes {
            let key = (fetch_id, write.id, write.generation);
            let Some(part) = self.parts.get_mut(&key) else { continue };
            let mut offset = write.offset.0 as usize;
            for piece in write.pieces() {
                part[offset..offset + piece.len()].copy_from_slice(&train[piece.clone()]);
                offset += piece.len();
            }
            self.flows.at(fetch_id).handle_written(write.id, write.generation, ByteCount(offset as u64));
        }
        for instruction in received.instructions {
            self.follow(at, instruction, train, now);
        }
        self.settle(now);
        result
    }

    fn follow(&mut self, at: usize, instruction: Instruction, train: &[u8], now: Time) {
        let link = self.ends[at].link.id();
        let flow_id = self.ends[at].fetch;
        match instruction {
            Instruction::Begin { range } => {
                assert!(range.length.0 <= limits::BLOCK_BYTES);
                self.ends[at].assembling = Some(Vec::new());
            }
            Instruction::Data(data) => {
                let assembling = self.ends[at].assembling.as_mut().expect("it has begun");
                data.pieces().for_each(|piece| assembling.extend(&train[piece]));
            }
            Instruction::End { range, crc } => {
                let bytes = self.ends[at].assembling.take().expect("it has begun");
                assert_eq!(bytes.len() as u64, range.length.0);
                let flow = self.flows.at(flow_id);
                if crc32c(&bytes) != crc {
                    self.damaged += 1;
                    return flow.handle_damaged(link, range, now);
                }
                if !flow.wants_piece(range) {
                    return flow.handle_unwanted(link, range, now);
                }
                let part = self.parts.get_mut(&(flow_id, range.object, range.generation)).expect("it was opened");
                part[range.offset.0 as usize..range.end().0 as usize].copy_from_slice(&bytes);
                flow.handle_verified(link, range, crc, now);
            }
        }
    }

    /// Does what the flows want done.
    fn settle(&mut self, now: Time) {
        for id in [FlowId(0), FlowId(1)] {
            let disk = &mut self.disks[usize::from(id.0)];
            let flow = self.flows.at(id);
            while let Some(action) = flow.poll_action() {
                match action {
                    Action::Create { id: object, generation, size: Some(size) }
                    | Action::OpenPart { id: object, generation, size, .. } => {
                        self.parts.insert((id, object, generation), vec![0; size.0 as usize]);
                        flow.handle_created(object, generation);
                    }
                    Action::Create { size: None, .. } => panic!("every peer tells how long its objects are"),
                    Action::Abandon { id: object, generation } => {
                        self.parts.remove(&(id, object, generation));
                    }
                    Action::Commit { id: object, generation, root, .. } => {
                        let part = self.parts.remove(&(id, object, generation)).expect("a part stands");
                        if root.is_some_and(|root| root.0 != *blake3::hash(&part).as_bytes()) {
                            flow.handle_root_failed(object, generation, now);
                            continue;
                        }
                        disk.insert(flow.name(object).clone(), part);
                        flow.handle_committed(object, generation, now);
                    }
                    Action::Discard { .. } | Action::SetAttributes { .. } | Action::Check { .. } => {}
                    Action::Hash { id: object, generation } => {
                        let content = entry(flow.name(object), &disk[flow.name(object)]).content;
                        flow.handle_hashed(object, generation, content);
                    }
                    Action::Evict { name, .. } | Action::Remove { name } => {
                        disk.remove(&name);
                    }
                }
            }
            while let Some(event) = flow.poll_event() {
                self.events.push(event);
            }
            while flow.poll_wake().is_some() {}
        }
    }
}

impl End {
    fn packer_len(&self) -> usize {
        self.link.packet_len().bytes()
    }

    fn hello(&self) -> Hello {
        self.link.hello().clone()
    }

    /// Lays the train out; `data` is that of all its frames.
    fn flush(&mut self, data: &[u8]) {
        self.packer.finish();
        let mut at = 0;
        for segment in self.packer.segments() {
            match *segment {
                Segment::Bytes(ref range) => self.out.extend(&self.packer.heads()[range.clone()]),
                Segment::Data { of, length, .. } => {
                    assert!(matches!(of, DataOf::News | DataOf::Request(_)));
                    self.out.extend(&data[at..at + length]);
                    at += length;
                }
                Segment::DataRun { packets, each, .. } => {
                    for _ in 0..packets {
                        self.out.extend(b"M:");
                        self.out.extend(&data[at..at + each]);
                        at += each;
                    }
                }
                Segment::Padding { length } => self.out.extend(std::iter::repeat_n(b'?', length)),
            }
        }
        assert_eq!(at, data.len());
    }
}

/// A connection: two nodes, the end of each, and whether bytes pass.
struct Pipe {
    ends: [(usize, usize); 2],
    cut: bool,
    /// Every so many bytes one is flipped on the way to the second end.
    flip_every: Option<usize>,
    passed: usize,
}

struct Net {
    nodes: Vec<Node>,
    pipes: Vec<Pipe>,
    now: Time,
    packet_len: PacketLen,
    ids: u64,
}

impl Net {
    fn new(nodes: Vec<Node>, packet_bytes: u32) -> Self {
        let packet_len = PacketLen::new(packet_bytes).expect("in bounds");
        Self { nodes, pipes: Vec::new(), now: Time::ZERO, packet_len, ids: 0 }
    }

    fn connect(&mut self, one: (usize, FlowId, FlowId), other: (usize, FlowId, FlowId)) {
        let ends = [one, other].map(|(node, fetch, serve)| {
            self.ids += 1;
            (node, self.nodes[node].connect(self.ids, fetch, serve, self.packet_len, self.now))
        });
        self.pipes.push(Pipe { ends, cut: false, flip_every: None, passed: 0 });
    }

    fn cut(&mut self, pipe: usize) {
        self.pipes[pipe].cut = true;
        for (node, end) in self.pipes[pipe].ends {
            let node = &mut self.nodes[node];
            let end = &mut node.ends[end];
            let (fetch, serve) = node.flows.pair(end.fetch, end.serve);
            end.link.close(self.now, fetch, serve);
        }
    }

    /// A millisecond passes, in which every pipe carries some packets each way.
    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        for pipe in &mut self.pipes {
            if pipe.cut {
                continue;
            }
            for (from, to) in [(pipe.ends[0], pipe.ends[1]), (pipe.ends[1], pipe.ends[0])] {
                let n = self.packet_len.bytes();
                if self.nodes[from.0].ends[from.1].out.len() < 8 * n {
                    self.nodes[from.0].send(from.1, self.now);
                }
                let out = &mut self.nodes[from.0].ends[from.1].out;
                let some = out.len().min(8 * n);
                let mut train: Vec<u8> = out.drain(..some).collect();
                if let Some(every) = pipe.flip_every.filter(|_| from == pipe.ends[0]) {
                    for (at, byte) in train.iter_mut().enumerate() {
                        // Heads and switches are left alone: damage to these ends the link.
                        if (pipe.passed + at) % every == every - 1 && at % n > 100 {
                            *byte ^= 1;
                        }
                    }
                    pipe.passed += train.len();
                }
                self.nodes[to.0].receive(to.1, &train, self.now).expect("the peer is right");
                let end = &mut self.nodes[to.0].ends[to.1];
                end.link.handle_timeout(self.now).expect("nobody is silent");
            }
        }
    }

    fn run(&mut self, until: impl Fn(&Self) -> bool) {
        for _ in 0..20_000 {
            if until(self) {
                return;
            }
            self.step();
        }
        let totals: Vec<_> = self.nodes.iter().map(|n| n.flows.iter().map(Flow::totals).collect::<Vec<_>>()).collect();
        panic!("it did not come to pass: {totals:?}");
    }

    fn has(&self, node: usize, disk: &BTreeMap<ObjectName, Vec<u8>>) -> bool {
        self.nodes[node].disks[0] == *disk
    }
}

fn pair(packet_bytes: u32) -> Net {
    let nodes = vec![Node::new("t1", Role::Trader), Node::new("e1", Role::Exchange)];
    let mut net = Net::new(nodes, packet_bytes);
    // The exchange's second flow is a spool that nobody reads; here it stands in for a trader's `remote/`.
    net.nodes[1].flows = Flows::new(vec![Flow::fetch(), Flow::offer_only()]);
    net.connect((0, REMOTE, LOCAL), (1, REMOTE, LOCAL));
    net
}

fn fill(node: &mut Node, prefix: &str, sizes: &[usize]) -> BTreeMap<ObjectName, Vec<u8>> {
    for (i, &size) in sizes.iter().enumerate() {
        node.offer(&name(&format!("{prefix}{i}")), bytes(size, i as u32 * 7919));
    }
    node.disks[1].clone()
}

#[test]
fn everything_a_peer_has_comes_without_being_named_both_ways_at_once() {
    for packet_bytes in [64, 101, 1400, 65_536] {
        let mut net = pair(packet_bytes);
        let scale = (packet_bytes as usize).min(1400);
        let one = fill(&mut net.nodes[0], "a", &[0, 1, 63, 64, 65, 40 * scale, 1000 * scale]);
        let other = fill(&mut net.nodes[1], "b", &[700 * scale, 0, 5]);
        net.run(|net| net.has(1, &one) && net.has(0, &other));
        assert!(net.nodes.iter().all(|node| node.ends.iter().all(|end| matches!(end.link, Link::Extended(_)))));
    }
}

#[test]
fn new_changed_and_removed_objects_flow_while_links_run() {
    let mut net = pair(1400);
    let first = fill(&mut net.nodes[0], "a", &[100_000, 3_000_000]);
    net.run(|net| net.has(1, &first));
    net.nodes[0].offer(&name("late"), bytes(5000, 1));
    net.nodes[0].offer(&name("a1"), bytes(2_000_000, 99));
    let second = net.nodes[0].disks[1].clone();
    net.run(|net| net.has(1, &second));
    let local = net.nodes[0].flows.at(LOCAL);
    local.withdraw(&name("late"));
    local.forget(&name("late"));
    net.nodes[0].disks[1].remove(&name("late"));
    net.run(|net| net.nodes[1].events.contains(&Event::Forgotten { name: name("late") }));
    assert!(net.nodes[1].flows.at(REMOTE).is_complete());
}

#[test]
fn what_is_present_with_the_same_root_is_not_fetched() {
    let mut net = pair(1400);
    let wanted = fill(&mut net.nodes[0], "a", &[1_000_000, 10]);
    let here = wanted[&name("a0")].clone();
    let root = Root256(*blake3::hash(&here).as_bytes());
    net.nodes[1].flows.at(REMOTE).have(name("a0"), ByteCount(here.len() as u64), root);
    net.nodes[1].disks[0].insert(name("a0"), here);
    net.run(|net| net.has(1, &wanted));
    let Link::Extended(link) = &net.nodes[1].ends[0].link else { panic!("extended") };
    assert!(link.counters().payload_in < 1000, "{:?}", link.counters());
}

/// A trader that was down while an object changed asked for the log once more from its start, as it should when it had
/// its first answer, and was told nothing: all of it had gone over this link. It kept what it had, for good.
#[test]
fn what_changed_since_an_earlier_run_comes_over() {
    let mut net = pair(1400);
    let wanted = fill(&mut net.nodes[0], "a", &[100_000, 10]);
    net.nodes[0].flows.at(LOCAL).set_told_all(true);
    let former = bytes(100_000, 99);
    let root = Root256(*blake3::hash(&former).as_bytes());
    net.nodes[1].flows.at(REMOTE).have(name("a0"), ByteCount(former.len() as u64), root);
    net.nodes[1].disks[0].insert(name("a0"), former);
    net.run(|net| net.has(1, &wanted) && net.nodes[1].flows.iter().any(Flow::was_told_whole));
}

#[test]
fn a_peer_without_the_feature_is_spoken_to_as_before() {
    let mut net = pair(1400);
    net.nodes[1].ends.clear();
    net.nodes[1].features = duplex::FEATURES;
    net.nodes[1].connect(7, REMOTE, LOCAL, net.packet_len, net.now);
    let one = fill(&mut net.nodes[0], "a", &[0, 5000, 300_000]);
    for object in one.keys() {
        net.nodes[1].flows.at(REMOTE).want(object.clone(), None, false);
    }
    net.run(|net| net.has(1, &one));
    assert!(net.nodes.iter().all(|node| node.ends.iter().all(|end| matches!(end.link, Link::Seed(_)))));
}

/// Trader 0 and trader 3, exchanges 1 and 2, two links each hop.
fn site() -> Net {
    let nodes = vec![
        Node::new("t1", Role::Trader),
        Node::new("e1", Role::Exchange),
        Node::new("e2", Role::Exchange),
        Node::new("t2", Role::Trader),
    ];
    let mut net = Net::new(nodes, 1400);
    for exchange in [1, 2] {
        for _ in 0..2 {
            net.connect((0, REMOTE, LOCAL), (exchange, FlowId(0), FlowId(1)));
            net.connect((exchange, FlowId(1), FlowId(0)), (3, REMOTE, LOCAL));
        }
    }
    net
}

#[test]
fn two_traders_converge_through_two_relays_both_ways() {
    let mut net = site();
    let one = fill(&mut net.nodes[0], "a", &[2_400_000, 0, 17, 1_048_576, 1_048_577, 300_000]);
    let other = fill(&mut net.nodes[3], "b", &[900_000, 2_400_000, 33]);
    net.run(|net| net.has(3, &one) && net.has(0, &other));
    let down: u64 = [1, 3, 5, 7]
        .iter()
        .map(|&pipe| net.pipes[pipe].ends[1])
        .map(|(node, end)| {
            let Link::Extended(link) = &net.nodes[node].ends[end].link else { panic!("extended") };
            link.counters().payload_in
        })
        .sum();
    let wanted: usize = one.values().map(Vec::len).sum();
    println!("relayed {down} bytes for {wanted}");
    assert!(down as usize <= wanted * 11 / 10);
}

#[test]
fn an_exchange_that_dies_leaves_nothing_undone() {
    let mut net = site();
    let one = fill(&mut net.nodes[0], "a", &[2_400_000; 4]);
    (0..150).for_each(|_| net.step());
    for pipe in 0..4 {
        net.cut(pipe);
    }
    net.run(|net| net.has(3, &one));
}

#[test]
fn damage_on_one_hop_is_found_there_and_only_that_is_sent_again() {
    let mut net = site();
    net.pipes[0].flip_every = Some(200_000);
    let one = fill(&mut net.nodes[0], "a", &[2_400_000; 4]);
    net.run(|net| net.has(3, &one));
    let damaged: Vec<usize> = net.nodes.iter().map(|node| node.damaged).collect();
    println!("damaged ranges seen by node: {damaged:?}");
    assert!(damaged[1] > 0, "{damaged:?}");
    assert_eq!((damaged[0], damaged[2], damaged[3]), (0, 0, 0));
    let link = net.nodes[1].ends[net.pipes[0].ends[1].1].link.id();
    let health = net.nodes[1].flows.at(FlowId(0)).health(link, net.now).expect("attached");
    assert_eq!(health.bad_ranges as usize, damaged[1]);
    let others: BTreeSet<u64> = net.nodes[3].ends.iter().map(|end| end.link.id().0).collect();
    for other in others {
        let health = net.nodes[3].flows.at(REMOTE).health(LinkId(other), net.now).expect("attached");
        assert_eq!(health.bad_ranges, 0);
    }
}

#[test]
fn a_spool_smaller_than_the_job_is_no_hindrance() {
    let mut net = site();
    for exchange in [1, 2] {
        net.nodes[exchange].flows.at(FlowId(0)).resize_spool(ByteCount(3_000_000));
    }
    let one = fill(&mut net.nodes[0], "a", &[1_400_000; 8]);
    net.run(|net| net.has(3, &one));
}

#[test]
fn a_source_that_is_not_what_its_inventory_says_is_never_committed() {
    let mut net = pair(1400);
    let object = name("a0");
    let right = fill(&mut net.nodes[0], "a", &[400_000]);
    net.nodes[0].disks[1].insert(object.clone(), bytes(400_000, 4711));
    (0..1500).for_each(|_| net.step());
    assert!(net.nodes[1].disks[0].is_empty());
    assert!(net.nodes[1].events.iter().any(|event| matches!(event, Event::Failed { .. })));
    net.nodes[0].disks[1].clone_from(&right);
    net.run(|net| net.has(1, &right));
}

#[test]
fn what_cannot_be_read_at_its_origin_is_told_to_the_far_end() {
    let mut net = site();
    let object = name("a0");
    let wanted = fill(&mut net.nodes[0], "a", &[400_000]);
    net.nodes[0].disks[1].clear();
    let is_told = |net: &mut Net| {
        let mut objects = net.nodes[3].flows.at(REMOTE).objects();
        objects.any(|(name, _, _, problem)| *name == object && problem == Some(&Problem::DamagedSource))
    };
    (0..2000).for_each(|_| net.step());
    assert!(is_told(&mut net));
    net.nodes[0].disks[1].clone_from(&wanted);
    assert!(net.nodes[0].flows.at(LOCAL).offer(object.clone(), ByteCount(400_000)));
    net.run(|net| net.has(3, &wanted));
    assert!(!is_told(&mut net));
}

#[test]
fn whole_blocks_of_an_earlier_run_are_not_sent_again() {
    let mut net = pair(1400);
    let wanted = fill(&mut net.nodes[0], "a", &[3_000_000]);
    let content = &wanted[&name("a0")];
    let remote = net.nodes[1].flows.at(REMOTE);
    let root = entry(&name("a0"), content).content.root;
    remote.resume(
        name("a0"),
        (ByteCount(3_000_000), root),
        [(Offset(1 << 20), ByteCount(1 << 20))].into_iter().collect(),
        Vec::new(),
    );
    // The part of an earlier run, as the rim would open it.
    for _ in 0..20_000 {
        net.step();
        for part in net.nodes[1].parts.values_mut() {
            part[1 << 20..2 << 20].copy_from_slice(&content[1 << 20..2 << 20]);
        }
        if net.has(1, &wanted) {
            break;
        }
    }
    assert!(net.has(1, &wanted));
    let Link::Extended(link) = &net.nodes[1].ends[0].link else { panic!("extended") };
    assert_eq!(link.counters().payload_in, 3_000_000 - (1 << 20));
}

/// What node 1 makes of these frames from node 0, and of the data of the last one.
fn provoke(net: &mut Net, frames: &[Frame], data: &[u8]) -> Result<(), LinkError> {
    let end = &mut net.nodes[0].ends[0];
    end.packer.start();
    frames.iter().for_each(|frame| end.packer.push_head(frame).expect("short"));
    end.packer.push_data(ByteCount(data.len() as u64));
    end.flush(data);
    let train: Vec<u8> = end.out.drain(..).collect();
    net.nodes[1].receive(0, &train, net.now)
}

#[test]
fn a_log_that_starts_over_again_and_again_ends_its_link() {
    let mut net = pair(1400);
    (0..10).for_each(|_| net.step());
    let whole = |epoch| Frame::Whole { epoch: Epoch(epoch), seq: Seq(0), origin: 1 };
    provoke(&mut net, &[whole(7)], &[]).expect("an epoch");
    net.now = net.now + limits::EPOCH_LASTS_MIN;
    provoke(&mut net, &[whole(8), whole(8)], &[]).expect("another one, later");
    let error = provoke(&mut net, &[whole(7)], &[]).expect_err("one more");
    assert!(error.to_string().contains("one more epoch"), "{error}");
}

/// What was half sent was kept link by link, 8 MiB and more of each, with no bound over all of them.
#[test]
fn long_news_that_are_half_sent_take_no_more_memory_than_there_is_for_them() {
    let mut net = pair(1400);
    let most = limits::LONG_NEWS_BYTES_MAX / limits::NEWS_BYTES_MAX;
    (0..most + 2).for_each(|_| net.connect((0, REMOTE, LOCAL), (1, REMOTE, LOCAL)));
    (0..10).for_each(|_| net.step());
    let begin = |net: &mut Net, link: usize, bytes: usize| {
        let (epoch, seq, length) = (Epoch(7), Seq(1), ByteCount(bytes as u64));
        let packer = &mut net.nodes[0].ends[link].packer;
        packer.start();
        packer.push_head(&Frame::News { epoch, seq, length, crc: 0 }).expect("short");
        let mut packet = packer.heads().to_vec();
        packet.resize(1400, 0);
        net.nodes[1].receive(link, &packet, net.now)
    };
    (0..most).for_each(|link| begin(&mut net, link, limits::NEWS_BYTES_MAX).expect("room"));
    let error = begin(&mut net, most, limits::NEWS_BYTES_MAX).expect_err("no room");
    assert!(error.to_string().contains("long news"), "{error}");
    net.cut(most);
    begin(&mut net, most + 1, limits::NEWS_BYTES).expect("short ones have room");
    // One of them comes to its end.
    let mut rest = b"M:".to_vec();
    rest.resize(1400, 0);
    let rest = rest.repeat(limits::NEWS_BYTES_MAX / 1398);
    net.nodes[1].receive(1, &rest, net.now).expect_err("its checksum is another");
    net.cut(1);
    begin(&mut net, most + 2, limits::NEWS_BYTES_MAX).expect("room again");
}

#[test]
fn an_answer_to_a_request_that_was_never_made_ends_the_link() {
    let mut net = pair(1400);
    (0..10).for_each(|_| net.step());
    let error = provoke(&mut net, &[Frame::Pending { id: RequestId(3) }], &[]).expect_err("out of place");
    assert!(matches!(error, LinkError::Duplex(super::LinkError::OutOfPlace { .. })) && error.is_damage(), "{error}");
    assert!(!super::LinkError::Silent(limits::SILENCE_MAX).is_damage());
}

/// What was here from elsewhere when it began to come was thrown away, and stayed on order: where its block turned out
/// wrong after that, nobody fetched it again.
#[test]
fn what_comes_and_is_not_wanted_is_on_order_no_more() {
    let mut net = pair(1400);
    (0..10).for_each(|_| net.step());
    let content = bytes(40_000, 1);
    let node = &mut net.nodes[1];
    node.flows.at(REMOTE).know(entry(&name("x"), &content)).expect("room");
    node.send(0, net.now);
    node.ends[0].out.clear();
    let (object, generation, length) = (ObjectId(0), Generation::default().next(), ByteCount(16_384));
    let piece = RangeRequest { object, generation, offset: Offset(0), length };
    assert!(node.flows.at(REMOTE).handle_range_begin(piece));
    node.settle(net.now);
    assert_eq!(node.flows.at(REMOTE).handle_verified(LinkId(99), piece, 7, net.now), None);
    let (id, data) = (RequestId(0), &content[..16_384]);
    let begin = Frame::Begin { id, offset: Offset(0), length, crc: crc32c(data) };
    provoke(&mut net, &[begin], data).expect("it was asked for");
    provoke(&mut net, &[Frame::Pending { id }, Frame::Pending { id: RequestId(1) }], &[]).expect("it was asked for");
    let node = &mut net.nodes[1];
    let link = node.ends[0].link.id();
    assert_eq!(node.flows.at(REMOTE).health(link, net.now).map(|health| health.orders), Some(0));
}

/// As in the plain grammar; here it took one core for each worker, and the flows from all links.
#[test]
fn a_link_whose_train_is_in_flight_is_not_looked_at_for_what_is_due_to_be_sent() {
    let mut net = pair(1400);
    (0..10).for_each(|_| net.step());
    let late = net.now + 2 * limits::KEEPALIVE_EVERY;
    let Node { flows, ends, .. } = &mut net.nodes[0];
    let (fetch, _) = flows.pair(ends[0].fetch, ends[0].serve);
    assert_eq!(ends[0].link.poll_timeout(fetch, true, late), late);
    assert!(ends[0].link.poll_timeout(fetch, false, late) > late);
}

#[test]
fn many_small_objects_share_packets() {
    let mut net = pair(1400);
    let sizes = vec![40; 3000];
    let one = fill(&mut net.nodes[0], "a", &sizes);
    net.run(|net| net.has(1, &one));
    let steps = net.now.0.as_millis();
    let Link::Extended(link) = &net.nodes[0].ends[0].link else { panic!("extended") };
    println!("3000 objects in {steps} steps");
    assert_eq!(link.counters().payload_out, 120_000);
    // 3000 answers of some 70 bytes each, in steps of 8 packets of 1400 bytes, and the news of them.
    assert!(steps < 150, "{steps}");
}
