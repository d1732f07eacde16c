//! A client and a server face to face in memory, and each of them against packets written by hand.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::limits;
use crate::proto::duplex::{FEATURES, LinkConfig, Piece};
use crate::transfer::{Action, Flow, ObjectState, Problem};
use crate::units::{Generation, LinkId, ObjectId, Time};
use crate::wire::hello::{Hello, Role};

const N: usize = 64;
const LINK: LinkId = LinkId(1);

fn name(text: &str) -> ObjectName {
    ObjectName::new(text.as_bytes()).unwrap()
}

fn at(seconds: u64) -> Time {
    Time(Duration::from_secs(seconds))
}

fn config() -> LinkConfig {
    let node: crate::units::NodeName = "t1".parse().unwrap();
    let hello = Hello {
        version: 1,
        features: FEATURES,
        packet_bytes_max: 1 << 20,
        link: None,
        role: Role::Trader,
        node: node.clone(),
    };
    let packet_len = PacketLen::new(N as u32).unwrap();
    LinkConfig { id: LINK, packet_len, hello, configured_peer: None, fallback_peer: node }
}

fn packet(text: &str) -> Vec<u8> {
    let mut packet = text.as_bytes().to_vec();
    packet.resize(N, b'#');
    packet
}

fn bytes_of(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// A server and what its files hold.
struct Serving {
    link: Server,
    flow: Flow,
    files: BTreeMap<ObjectName, Vec<u8>>,
}

impl Serving {
    fn new(files: &[(&str, usize)]) -> Self {
        let mut flow = Flow::offer_only();
        let files: BTreeMap<_, _> = files.iter().map(|&(text, length)| (name(text), bytes_of(length))).collect();
        for (name, bytes) in &files {
            flow.offer(name.clone(), ByteCount(bytes.len() as u64));
        }
        Self { link: Server::new(config(), Time::ZERO), flow, files }
    }

    fn ask(&mut self, texts: &[&str]) {
        let packets: Vec<u8> = texts.iter().flat_map(|text| packet(&format!("R:{text}:"))).collect();
        self.link.handle_packets(&packets).unwrap();
    }

    /// The next packets; `None` when there are none.
    fn send(&mut self, room: usize) -> Option<Vec<u8>> {
        let piece = self.link.poll_transmit(Time::ZERO, room, &mut self.flow)?;
        let packets = self.lay_out(&piece);
        assert!(packets.len() <= room.max(limits::TAIL_BYTES_MAX / N) * N, "{} in room for {room}", packets.len());
        if piece.data.is_some_and(|data| data.tail) {
            self.link.handle_tail_read(Time::ZERO, &mut self.flow);
        }
        Some(packets)
    }

    fn lay_out(&self, piece: &Piece) -> Vec<u8> {
        let mut out = piece.header.clone();
        if let Some(data) = piece.data {
            let bytes = &self.files[self.flow.name(data.id)][data.offset.0 as usize..][..data.length];
            let (first, rest) = bytes.split_at(bytes.len().min(N - out.len()));
            out.extend_from_slice(first);
            for more in rest.chunks(N - piece.middle.len()) {
                out.extend_from_slice(&piece.middle);
                out.extend_from_slice(more);
            }
        }
        out.resize(out.len().div_ceil(N) * N, b'#');
        assert_eq!(out.len(), piece.packets(PacketLen::new(N as u32).unwrap()) * N);
        out
    }

    fn send_all(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.send(3)).flatten().collect()
    }
}

/// A client, its disk, and what it has whole.
struct Asking {
    link: Client,
    flow: Flow,
    parts: BTreeMap<(ObjectId, Generation), Vec<u8>>,
    has: BTreeMap<ObjectName, Vec<u8>>,
}

impl Asking {
    fn new(wanted: &[&str]) -> Self {
        let mut flow = Flow::fetch();
        for text in wanted {
            flow.want(name(text), None, false);
        }
        Self { link: Client::new(config(), Time::ZERO), flow, parts: BTreeMap::new(), has: BTreeMap::new() }
    }

    fn ask(&mut self, now: Time) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(piece) = self.link.poll_transmit(now, &mut self.flow) {
            out.extend(packet(std::str::from_utf8(&piece.header).unwrap()));
        }
        out
    }

    fn receive(&mut self, train: &[u8], now: Time) -> Result<(), LinkError> {
        let mut writes = Vec::new();
        let result = self.link.handle_packets(train, now, &mut self.flow, &mut writes);
        self.act(now);
        for write in writes {
            let Some(part) = self.parts.get_mut(&(write.id, write.generation)) else { continue };
            assert_eq!(part.len() as u64, write.offset.0, "it comes in order");
            write.pieces().for_each(|piece| part.extend_from_slice(&train[piece]));
            let upto = ByteCount(part.len() as u64);
            self.flow.handle_written(write.id, write.generation, upto);
        }
        self.act(now);
        result
    }

    fn act(&mut self, now: Time) {
        while let Some(action) = self.flow.poll_action() {
            match action {
                Action::Create { id, generation, size: None } => {
                    self.parts.insert((id, generation), Vec::new());
                    self.flow.handle_created(id, generation);
                }
                Action::Abandon { id, generation } => drop(self.parts.remove(&(id, generation)).unwrap()),
                Action::Commit { id, generation, size, .. } => {
                    let mut part = self.parts.remove(&(id, generation)).unwrap();
                    part.truncate(size.0 as usize);
                    self.has.insert(self.flow.name(id).clone(), part);
                    self.flow.handle_committed(id, generation, now);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn problem(&self, text: &str) -> Option<Problem> {
        let mut objects = self.flow.objects();
        objects.find(|(found, ..)| **found == name(text)).and_then(|(_, _, _, problem)| problem.cloned())
    }
}

/// Both run until neither has anything to send.
fn run(server: &mut Serving, client: &mut Asking) {
    loop {
        let asked = client.ask(Time::ZERO);
        server.link.handle_packets(&asked).unwrap();
        let answer = server.send_all();
        client.receive(&answer, Time::ZERO).unwrap();
        if asked.is_empty() && answer.is_empty() {
            return;
        }
    }
}

#[test]
fn objects_of_every_length_arrive_whole() {
    // A packet of "a1" holds 59 bytes.
    let files: Vec<(String, usize)> =
        [0, 1, 58, 59, 60, 118, 177, 1000, 70_000].iter().map(|&length| (format!("a{length:05}"), length)).collect();
    let files: Vec<(&str, usize)> = files.iter().map(|(text, length)| (text.as_str(), *length)).collect();
    let mut server = Serving::new(&files);
    let mut client = Asking::new(&files.iter().map(|(text, _)| *text).collect::<Vec<_>>());
    run(&mut server, &mut client);
    assert_eq!(client.has, server.files);
    assert!(client.flow.is_complete());
    assert_eq!(server.link.asked(), 0);
}

#[test]
fn a_client_of_the_seed_alone_is_answered_in_order() {
    let mut server = Serving::new(&[("a", 70), ("b", 0)]);
    server.ask(&["a", "none", "b", "../x", "a"]);
    let answer = server.send_all();
    let heads: Vec<String> = answer
        .chunks(N)
        .map(|packet| String::from_utf8_lossy(packet).split(':').take(3).collect::<Vec<_>>().join(":"))
        .map(|head| if head.starts_with('E') { head } else { head[..head.len().min(4)].to_owned() })
        .collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let b = &heads[4];
    assert!(b.starts_with("B:b:"), "{b}");
    assert!(heads[0].starts_with("B:a:") && heads[1].starts_with("M:a:"), "{heads:?}");
    assert_eq!([heads[2], heads[3], heads[5], heads[6]], ["E:a:70", "E:none:-1", "E:b:0", "E:../x:-1"]);
    assert_eq!(&heads[7..], &heads[..3]);
    assert_eq!(answer[4..N], bytes_of(70)[..60]);
}

#[test]
fn the_listing_tells_what_is_offered_however_long_it_is() {
    for count in [0, 1, 30, 300] {
        let names: Vec<String> = (0..count).map(|i| format!("dir/o:{i}")).collect();
        let files: Vec<(&str, usize)> = names.iter().map(|text| (text.as_str(), 1)).collect();
        let mut server = Serving::new(&files);
        server.flow.withdraw(&name("dir/o:7"));
        server.ask(&[""]);
        let answer = server.send_all();
        let mut listing = Listing::new(PacketLen::new(N as u32).unwrap());
        let (mut found, mut last) = (Vec::new(), Progress::Coming);
        for packet in answer.chunks(N) {
            assert_eq!(last, Progress::Coming);
            last = listing.handle_packet(packet, |line| found.push(line.unwrap().to_string())).unwrap();
        }
        assert_eq!(last, Progress::Done);
        let mut expected: Vec<String> = names.into_iter().filter(|text| text != "dir/o:7").collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_listing_that_is_none_is_refused() {
    let check = |packets: &[&str]| {
        let mut listing = Listing::new(PacketLen::new(N as u32).unwrap());
        let mut results = packets.iter().map(|text| listing.handle_packet(&packet(text), |_| {}));
        results.find(Result::is_err).expect("refused").unwrap_err().to_string()
    };
    assert!(check(&["M::a\n"]).contains("at byte 0"));
    assert!(check(&["B::a\n", "M:x:a"]).contains("\"M:\" of 'x' is out of place"));
    assert!(check(&["B::a\n", "E::62:"]).contains("is told to have 62 bytes, and 61 bytes came"));
    assert!(check(&["E::1:"]).contains("is told to have 1 bytes"));
    assert!(check(&["N:"]).contains("expected one of B: M: E:"));
}

#[test]
fn answers_of_several_objects_may_be_mixed() {
    let mut client = Asking::new(&["a", "b", "c"]);
    let mut now = Time::ZERO;
    assert_eq!(client.ask(now), packet("R:a:"), "what is not measured is asked for one by one");
    client.receive(&[packet("B:a:123"), packet("E:a:3:")].concat(), now).unwrap();
    now = at(1);
    assert_eq!(client.ask(now), [packet("R:b:"), packet("R:c:")].concat());
    let b = [packet("B:b:"), packet("M:b:"), packet("M:b:")];
    let c = [packet("B:c:"), packet("M:c:")];
    let train =
        [&b[0], &c[0], &b[1], &b[2], &c[1], &packet("E:c:62:"), &packet("E:b:180:")].map(|p| p.clone()).concat();
    client.receive(&train, now).unwrap();
    assert_eq!(client.has[&name("a")], b"123");
    assert_eq!(client.has[&name("b")], vec![b'#'; 180]);
    assert_eq!(client.has[&name("c")], vec![b'#'; 62]);
}

#[test]
fn a_server_of_the_seed_alone_tells_no_length() {
    let mut client = Asking::new(&["a"]);
    client.ask(Time::ZERO);
    let train = [packet("B:a:123"), packet("M:a:456"), packet("E:a:")].concat();
    client.receive(&train, Time::ZERO).unwrap();
    assert_eq!(client.has[&name("a")], [&packet("123")[..60], &packet("456")[..60]].concat());
}

#[test]
fn what_is_refused_is_told_apart_from_what_broke_off() {
    let mut client = Asking::new(&["a"]);
    client.ask(Time::ZERO);
    client.receive(&packet("E:a:-1:there is none:"), Time::ZERO).unwrap();
    assert_eq!(client.problem("a"), Some(Problem::Refused("there is none".into())));
    let later = at(5);
    assert_eq!(client.ask(later), packet("R:a:"), "it is tried again");
    client.receive(&[packet("B:a:x"), packet("E:a:-1:it changed:")].concat(), later).unwrap();
    assert_eq!(client.problem("a"), Some(Problem::BrokenOff("it changed".into())));
    assert!(client.parts.is_empty());
    assert_eq!(client.ask(at(20)), packet("R:a:"));
    client.receive(&[packet("B:a:old"), packet("B:a:new"), packet("E:a:3:")].concat(), at(20)).unwrap();
    assert_eq!(client.has[&name("a")], b"new", "it began again");
}

#[test]
fn what_a_server_must_not_send_ends_the_link() {
    let check = |packets: &[&str], expected: &str| {
        let mut client = Asking::new(&["a"]);
        client.ask(Time::ZERO);
        let train: Vec<u8> = packets.iter().flat_map(|text| packet(text)).collect();
        let error = client.receive(&train, Time::ZERO).expect_err("refused");
        assert!(error.to_string().contains(expected) && error.is_damage(), "{packets:?}: {error}");
        client.link.close(&mut client.flow);
        client.act(Time::ZERO);
        assert!(client.has.is_empty() && client.parts.is_empty(), "{packets:?}");
        assert_eq!(client.flow.objects().next().unwrap().1, ObjectState::Absent);
    };
    check(&["N:"], "at byte 0 of the stream: malformed packet at byte 0");
    check(&["B:b:"], "at byte 0 of the stream: \"B:\" of 'b' is out of place");
    check(&["M:a:"], "\"M:\" of 'a' is out of place");
    check(&["B:a:", "M:b:"], "at byte 64 of the stream: \"M:\" of 'b'");
    check(&["E:b:1:"], "\"E:\" of 'b' is out of place");
    check(&["B::x"], "\"B:\" of the listing");
    check(&["B:a:", "M:../a:"], "at byte 64 of the stream: malformed packet at byte 2");
    check(&["B:a:", "E:a:61:"], "'a' is told to have 61 bytes, and 60 bytes came");
    check(&["B:a:", "M:a:", "E:a:60:"], "'a' is told to have 60 bytes, and 120 bytes came");
    check(&["B:a:", "M:a:", "E:a:0:"], "'a' is told to have 0 bytes");
    check(&["E:a:1:"], "'a' is told to have 1 bytes, and 0 bytes came");
    check(&["B:a:", "E:a:9223372036854775808:"], "expected a size of at most");
}

#[test]
fn what_a_client_must_not_send_ends_the_link() {
    let mut server = Serving::new(&[]);
    let endless = [b"R:".to_vec(), vec![b'n'; N - 2]].concat();
    let long = [b"R:".to_vec(), vec![b'n'; N - 3], b":".to_vec()].concat();
    for (bytes, expected) in [(packet("N:"), "expected R:"), (endless, "after a name"), (long, "no room for an answer")]
    {
        let error = server.link.handle_packets(&bytes).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    let many = packet("R:a:").repeat(limits::NAMED_REQUESTS_BYTES_MAX / limits::NAMED_REQUEST_COST);
    let error = server.link.handle_packets(&many).expect_err("refused");
    assert!(matches!(error, LinkError::TooManyRequests { .. }), "{error}");
}

#[test]
fn an_object_that_changes_while_it_is_sent_is_told_to_end() {
    let mut server = Serving::new(&[("a", 200_000), ("b", 10)]);
    server.ask(&["a", "b"]);
    let first = server.send(10).unwrap();
    assert!(first.starts_with(b"B:a:"));
    server.flow.withdraw(&name("a"));
    assert!(server.send(10).unwrap().starts_with(b"E:a:-1:it changed"));
    assert!(server.send(10).unwrap().starts_with(b"B:b:"));
    assert!(server.send(10).unwrap().starts_with(b"E:b:10:"));
    assert_eq!(server.send(10), None);
}

#[test]
fn an_object_whose_tail_cannot_be_read_is_told_to_end() {
    let mut server = Serving::new(&[("a", 100)]);
    server.ask(&["a"]);
    let piece = server.link.poll_transmit(Time::ZERO, 10, &mut server.flow).unwrap();
    server.link.handle_source_failed(&piece, "/secret: cut short".into(), Time::ZERO, &mut server.flow);
    let answer = server.send(1).unwrap();
    assert!(answer.starts_with(b"E:a:-1:it changed"), "{}", answer.escape_ascii());
    assert_eq!(server.send(1), None);
    server.flow.offer(name("a"), ByteCount(100));
    server.ask(&["a"]);
    assert!(server.send_all().ends_with(&packet("E:a:100:")));
}

#[test]
fn a_client_that_is_gone_is_sent_nothing_more() {
    let mut server = Serving::new(&[("a", 200_000)]);
    server.ask(&["a", "a"]);
    server.send(10).unwrap();
    server.link.close(Time::ZERO, &mut server.flow);
    assert_eq!(server.send(10), None);
}

#[test]
fn a_server_that_does_not_answer_is_lost_and_an_idle_one_is_not() {
    let mut client = Asking::new(&["a"]);
    let late = Time::ZERO + limits::NAMED_SILENCE_MAX;
    client.link.handle_timeout(late).expect("nothing was asked");
    client.ask(late);
    assert!(client.link.poll_timeout(&client.flow, late) <= late + limits::NAMED_SILENCE_MAX);
    client.link.handle_timeout(late).expect("it was asked just now");
    client.link.handle_life(late + Duration::from_secs(3));
    client.link.handle_timeout(late + limits::NAMED_SILENCE_MAX).expect("some of a packet came");
    let error = client.link.handle_timeout(late + 2 * limits::NAMED_SILENCE_MAX).expect_err("silent");
    assert!(matches!(error, LinkError::Silent(_)));
    let mut server = Server::new(config(), Time::ZERO);
    assert!(matches!(server.handle_timeout(at(10)), Err(LinkError::NoRequest(_))));
    server.handle_packets(&packet("R:x:")).unwrap();
    server.handle_timeout(at(1000)).expect("it may ask again whenever it likes");
}

proptest! {
    #[test]
    fn neither_end_panics_whatever_comes(
        letters in prop::collection::vec(("[BMER]", "[ab]?", ":-?[0-9]{0,3}:?"), 1..12),
        noise in prop::collection::vec(any::<u8>(), N),
    ) {
        let mut train: Vec<u8> = letters.iter().flat_map(|(l, n, s)| packet(&format!("{l}:{n}{s}"))).collect();
        train.extend(noise);
        let mut client = Asking::new(&["a", "b"]);
        client.ask(Time::ZERO);
        let _ = client.receive(&train, Time::ZERO);
        let mut server = Serving::new(&[("a", 100)]);
        let _ = server.link.handle_packets(&train);
        server.send_all();
    }
}
