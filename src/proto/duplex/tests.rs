//! Two links face to face in memory, and one link against packets written by hand.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::transfer::{Action, Availability, Event, ObjectState};
use crate::wire::padding::Padding;

const N: u32 = 64;

fn name(text: &str) -> ObjectName {
    ObjectName::new(text.as_bytes()).unwrap()
}

fn at(ms: u64) -> Time {
    Time(Duration::from_millis(ms))
}

fn bytes_of(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A node with one link: what it serves, what it has.
struct Side {
    link: Link,
    fetch: Flow,
    serve: Flow,
    serves: BTreeMap<ObjectName, Vec<u8>>,
    parts: BTreeMap<(ObjectId, Generation), Vec<u8>>,
    has: BTreeMap<ObjectName, Vec<u8>>,
    padding: Padding,
}

impl Side {
    fn new(role: Role, n: u32) -> Self {
        let node: NodeName = if role == Role::Trader { "t1" } else { "e1" }.parse().unwrap();
        let hello = Hello { version: 1, features: FEATURES, packet_bytes_max: 1 << 20, link: None, role, node };
        let config = LinkConfig {
            id: LinkId(1),
            packet_len: PacketLen::new(n).unwrap(),
            hello,
            configured_peer: None,
            fallback_peer: "10.0.0.1".parse().unwrap(),
        };
        Self {
            link: Link::new(config, Time::ZERO),
            fetch: Flow::fetch(),
            serve: Flow::offer_only(),
            serves: BTreeMap::new(),
            parts: BTreeMap::new(),
            has: BTreeMap::new(),
            padding: Padding::new(3),
        }
    }

    fn n(&self) -> usize {
        self.link.packet_len().bytes()
    }

    fn wants(&mut self, names: &[&str]) {
        for text in names {
            self.fetch.want(name(text), None, false);
        }
        self.fetch.share_out(Time::ZERO);
    }

    fn offers(&mut self, text: &str, bytes: Vec<u8>) {
        self.serve.offer(name(text), ByteCount(bytes.len() as u64));
        self.serves.insert(name(text), bytes);
    }

    fn poll(&mut self, now: Time, room: usize) -> Option<Piece> {
        self.link.poll_transmit(now, room, &mut self.fetch, &mut self.serve)
    }

    /// The packets of a piece; a tail is read at once.
    fn expand(&mut self, piece: &Piece, now: Time) -> Vec<u8> {
        let n = self.n();
        let data: &[u8] = match piece.data {
            Some(data) => {
                let from = data.offset.0 as usize;
                &self.serves[self.serve.name(data.id)][from..from + data.length]
            }
            None => &[],
        };
        let mut out = piece.header.clone();
        let first = data.len().min(n - out.len());
        out.extend_from_slice(&data[..first]);
        for more in data[first..].chunks(n - 2) {
            out.extend_from_slice(b"M:");
            out.extend_from_slice(more);
        }
        let left = out.len().next_multiple_of(n) - out.len();
        assert!(left == 0 || piece.data.is_none_or(|data| data.tail), "only a last packet is padded");
        out.extend_from_slice(self.padding.slice(left, &mut 1));
        assert_eq!(out.len(), piece.packets(self.link.packet_len()) * n);
        if piece.hello {
            let from = out.len() - left;
            self.link.config.hello.write_into(&mut out[from..]).unwrap();
        }
        if piece.data.is_some_and(|data| data.tail) {
            self.link.handle_tail_read(now, &mut self.serve);
        }
        out
    }

    /// All there is to send now, in pieces of at most `room` packets.
    fn sends(&mut self, now: Time, room: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(piece) = self.poll(now, room) {
            out.extend(self.expand(&piece, now));
        }
        out
    }

    fn receives(&mut self, train: &[u8], now: Time) -> Result<(), LinkError> {
        let mut writes = Vec::new();
        let result = self.link.handle_packets(train, now, &mut self.fetch, &mut self.serve, &mut writes);
        self.act();
        for write in writes {
            let key = (write.id, write.generation);
            let Some(part) = self.parts.get_mut(&key) else { continue };
            assert_eq!(part.len() as u64, write.offset.0);
            write.pieces().for_each(|piece| part.extend_from_slice(&train[piece]));
            let written = ByteCount(part.len() as u64);
            self.fetch.handle_written(write.id, write.generation, written);
        }
        self.act();
        result
    }

    fn act(&mut self) {
        while let Some(action) = self.fetch.poll_action() {
            match action {
                Action::Create { id, generation, .. } => {
                    self.parts.insert((id, generation), Vec::new());
                    self.fetch.handle_created(id, generation);
                }
                Action::Abandon { id, generation } => drop(self.parts.remove(&(id, generation)).unwrap()),
                Action::Commit { id, generation, .. } => {
                    let bytes = self.parts.remove(&(id, generation)).unwrap();
                    self.has.insert(self.fetch.name(id).clone(), bytes);
                    self.fetch.handle_committed(id, generation, Time::ZERO);
                }
                Action::Evict { .. } | Action::Remove { .. } | Action::Discard { .. } => {}
                Action::Hash { .. } | Action::Check { .. } => {}
                Action::OpenPart { .. } | Action::SetAttributes { .. } => panic!("no range was ever offered"),
            }
        }
    }

    /// Meets a seed-only peer.
    fn meets_seed_peer(&mut self) {
        self.sends(Time::ZERO, 1);
        self.receives_text(&["N:"], Time::ZERO).unwrap();
    }

    fn receives_text(&mut self, packets: &[&str], now: Time) -> Result<(), LinkError> {
        let n = self.n();
        let mut train = Vec::new();
        for text in packets {
            let mut packet = text.as_bytes().to_vec();
            packet.resize(n, b'?');
            train.extend(packet);
        }
        self.receives(&train, now)
    }
}

/// The packets as text up to `length` bytes each.
fn heads(train: &[u8], n: usize, length: usize) -> Vec<String> {
    train.chunks(n).map(|packet| String::from_utf8_lossy(&packet[..length]).into_owned()).collect()
}

/// A trader and an exchange that know each other.
fn pair(n: u32) -> (Side, Side) {
    let (mut a, mut b) = (Side::new(Role::Trader, n), Side::new(Role::Exchange, n));
    let (from_a, from_b) = (a.sends(Time::ZERO, 1), b.sends(Time::ZERO, 1));
    a.receives(&from_b, Time::ZERO).unwrap();
    b.receives(&from_a, Time::ZERO).unwrap();
    (a, b)
}

fn exchange_all(a: &mut Side, b: &mut Side) {
    for ms in (0..60_000).step_by(100) {
        let (from_a, from_b) = (a.sends(at(ms), 7), b.sends(at(ms), 3));
        a.receives(&from_b, at(ms)).unwrap();
        b.receives(&from_a, at(ms)).unwrap();
        if a.fetch.is_complete() && b.fetch.is_complete() {
            return;
        }
    }
    panic!("not done in a minute");
}

#[test]
fn first_packets_settle_that_both_run_free() {
    let (a, b) = pair(N);
    assert!(a.link.runs_free() && b.link.runs_free());
    assert_eq!(a.link.peer().unwrap().name, "e1".parse().unwrap());
    assert_eq!(b.link.peer().unwrap().hello.as_ref().unwrap().role, Role::Trader);
}

#[test]
fn two_of_one_role_part() {
    let (mut a, mut b) = (Side::new(Role::Trader, N), Side::new(Role::Trader, N));
    let from_b = b.sends(Time::ZERO, 1);
    assert!(matches!(a.receives(&from_b, Time::ZERO), Err(LinkError::SameRole { .. })));
}

/// An exchange of a wrong address took a trader for its far one and told it of its own objects; as a mirror that trader
/// then removed all that the far one had.
#[test]
fn an_exchange_makes_no_link_with_another_node_than_it_was_to_dial() {
    let meets = |configured: &str, trader: &mut Side| {
        let mut exchange = Side::new(Role::Exchange, N);
        exchange.link.config.configured_peer = Some(configured.parse().unwrap());
        let packets = trader.sends(Time::ZERO, 1);
        (exchange.receives(&packets, Time::ZERO), exchange.link.peer().cloned())
    };
    let mut t1 = Side::new(Role::Trader, N);
    let (met, peer) = meets("t2", &mut t1);
    let error = met.unwrap_err();
    assert!(error.is_misfit() && peer.is_none());
    assert!(error.to_string().starts_with("the node there is t1, and the config calls it t2"), "{error}");
    let (met, peer) = meets("t1", &mut Side::new(Role::Trader, N));
    assert_eq!((met, peer.unwrap().name.as_str()), (Ok(()), "t1"));
    let (said, known) = ("t1".parse().unwrap(), "t2".parse().unwrap());
    t1.link.config.configured_peer = Some(known);
    let peer = t1.link.config.meet(None).unwrap();
    assert_eq!(peer.name.as_str(), "t2", "a seed-only peer says nothing");
    let hello = Hello { role: Role::Exchange, node: said, ..t1.link.config.hello.clone() };
    assert_eq!(t1.link.config.meet(Some(hello)).unwrap().name.as_str(), "t1", "a trader believes the hello");
}

/// The one with the smaller packets took the other for a seed-only peer, and all was well but for what did not come.
#[test]
fn packets_of_another_length_end_a_link_of_either_side() {
    let check = |ours: u32, theirs: u32| {
        let (mut a, mut b) = (Side::new(Role::Trader, ours), Side::new(Role::Exchange, theirs));
        let first = b.sends(Time::ZERO, 1);
        let whole = first.len() / ours as usize * ours as usize;
        a.receives(&first[..whole.min(ours as usize)], Time::ZERO).unwrap();
        let error = match whole as u32 / ours {
            0 | 1 => a.link.check_partial(&first[whole..]).unwrap_err(),
            _ => a.receives(&first[ours as usize..whole], Time::ZERO).unwrap_err(),
        };
        assert!(error.is_misfit() && error.to_string().contains("packet_bytes"), "{ours} {theirs}: {error}");
    };
    for (ours, theirs) in [(1400, 1000), (1000, 1400), (1000, 1999), (100, 1000), (65_536, 64), (64, 65_536)] {
        check(ours, theirs);
    }
    let (a, b) = pair(N);
    assert!(a.link.check_partial(&[0; 63]).is_ok() && b.link.check_partial(&[]).is_ok());
}

#[test]
fn objects_of_every_length_at_a_bound_arrive() {
    for n in [64_usize, 1400, 65_536, 1 << 20] {
        let tail = limits::TAIL_BYTES_MAX.max(n - 2);
        let sizes = [0, 1, 56, 57, 58, 59, 60, 61, 62, 63, n - 7, n - 2, n, 2 * n, tail - 1, tail, tail + 1, tail + n];
        let (mut a, mut b) = pair(n as u32);
        for (i, &size) in sizes.iter().enumerate() {
            let text = format!("o{i}");
            b.offers(&text, bytes_of(i as u64, size));
            a.wants(&[&text]);
        }
        exchange_all(&mut a, &mut b);
        assert_eq!(a.has, b.serves, "N = {n}");
        assert_eq!(a.link.counters().payload_in, b.link.counters().payload_out);
        assert_eq!(a.link.counters().discarded, 0);
        let out = b.link.counters();
        let bytes = out.packets_out * n as u64;
        assert!(out.payload_out + out.padding_out < bytes, "headers are neither payload nor padding");
    }
}

#[test]
fn request_rides_in_front_of_data() {
    let (mut a, mut b) = pair(N);
    a.offers("x", bytes_of(1, 40));
    b.wants(&["x"]);
    a.wants(&["y"]);
    let from_b = b.sends(Time::ZERO, 1);
    a.receives(&from_b, Time::ZERO).unwrap();
    let from_a = a.sends(Time::ZERO, 1);
    assert_eq!(heads(&from_a, 64, 9), ["R:y:B:40:"]);
}

#[test]
fn queued_requests_are_answered_in_order() {
    let (mut a, mut b) = pair(N);
    for text in ["x", "y", "z"] {
        b.offers(text, text.as_bytes().repeat(3));
    }
    a.wants(&["z", "x", "y"]);
    a.fetch.resize_spool(ByteCount(0));
    exchange_all(&mut a, &mut b);
    b.receives_text(&["R:y:N:", "R:z:N:", "R:x:N:"], at(0)).unwrap();
    assert_eq!(heads(&b.sends(at(0), 9), 64, 7), ["B:3:yyy", "B:3:zzz", "B:3:xxx"]);
}

#[test]
fn a_tail_is_alone_and_last_whatever_the_room() {
    let (mut a, mut b) = pair(N);
    b.offers("x", bytes_of(1, limits::TAIL_BYTES_MAX + 1000));
    a.wants(&["x"]);
    let from_a = a.sends(at(0), 1);
    b.receives(&from_a, at(0)).unwrap();
    let mut pieces = Vec::new();
    while let Some(piece) = b.poll(at(0), 4) {
        b.expand(&piece, at(0));
        pieces.push(piece.data.unwrap());
    }
    let (tail, before) = pieces.split_last().unwrap();
    assert!(tail.tail && before.iter().all(|data| !data.tail));
    assert!(tail.length <= limits::TAIL_BYTES_MAX);
    let mut offset = Offset(0);
    for data in &pieces {
        assert_eq!(data.offset, offset);
        offset = offset + ByteCount(data.length as u64);
    }
    assert_eq!(offset.0 as usize, limits::TAIL_BYTES_MAX + 1000);
}

/// A tail as long as a packet has room for without the object's size took a second packet for it, and with packets of a
/// megabyte no train had room for two: the node ended.
#[test]
fn a_piece_fits_a_train_however_long_packets_are() {
    for n in [1400, 65_530, 65_536, 65_550, 600_000, limits::PACKET_BYTES_MAX] {
        for size in n - 14..=n + 2 {
            let (mut a, mut b) = pair(n);
            b.offers("x", bytes_of(1, size as usize));
            a.wants(&["x"]);
            let from_a = a.sends(at(0), 1);
            b.receives(&from_a, at(0)).unwrap();
            while let Some(piece) = b.poll(at(0), 1) {
                let bytes = b.expand(&piece, at(0)).len();
                assert!(bytes <= limits::TRAIN_BYTES_MAX, "{bytes} bytes of {size} in packets of {n}");
            }
        }
    }
}

#[test]
fn pending_answers_the_oldest_request_and_drops_it() {
    let (mut a, mut b) = pair(N);
    b.offers("y", vec![1, 2, 3]);
    a.wants(&["x", "y"]);
    let from_a = a.sends(at(0), 1);
    b.receives(&from_a, at(0)).unwrap();
    let from_b = b.sends(at(0), 1);
    assert_eq!(heads(&from_b, 64, 2), ["P:"]);
    a.receives(&from_b, at(0)).unwrap();
    assert_eq!(a.fetch.state(ObjectId(0)), ObjectState::Absent);
    exchange_all_but(&mut a, &mut b, 1);
    b.offers("x", vec![4]);
    exchange_all(&mut a, &mut b);
}

fn exchange_all_but(a: &mut Side, b: &mut Side, missing: u64) {
    for ms in (0..5000).step_by(50) {
        let from_a = a.sends(at(ms), 7);
        b.receives(&from_a, at(ms)).unwrap();
        let from_b = b.sends(at(ms), 7);
        a.receives(&from_b, at(ms)).unwrap();
    }
    assert_eq!(a.fetch.totals().present + missing, a.fetch.totals().objects);
}

#[test]
fn begin_in_the_middle_begins_again() {
    let (mut a, _) = pair(N);
    a.wants(&["x"]);
    a.sends(at(0), 1);
    let first = format!("B:100:{}", "a".repeat(58));
    let again = format!("B:70:{}", "b".repeat(59));
    a.receives_text(&[&first, &again, &format!("M:{}", "b".repeat(11))], at(0)).unwrap();
    assert_eq!(a.has[&name("x")], "b".repeat(70).into_bytes());
    assert_eq!(a.link.counters().discarded, 58);
}

#[test]
fn pending_in_the_middle_ends_the_object_unfinished() {
    let (mut a, _) = pair(N);
    a.wants(&["x"]);
    a.sends(at(0), 1);
    a.receives_text(&["B:100:aaa", "P:"], at(0)).unwrap();
    assert!(a.parts.is_empty() && a.has.is_empty());
    assert_eq!(a.fetch.head(LinkId(1)), None);
    let middle = a.receives_text(&["M:aaa"], at(0));
    assert!(matches!(middle, Err(LinkError::OutOfPlace { found: "\"M:\"", .. })));
}

#[test]
fn packets_out_of_place_end_the_link() {
    let check = |packets: &[&str]| {
        let (mut a, _) = pair(N);
        assert!(matches!(a.receives_text(packets, at(0)), Err(LinkError::OutOfPlace { .. })), "{packets:?}");
    };
    check(&["M:abc"]);
    check(&["B:3:abc"]);
    check(&["P:"]);
    check(&["X:"]);
    let (mut a, _) = pair(N);
    assert!(matches!(a.receives_text(&["nonsense"], at(0)), Err(LinkError::Malformed { at: 64, .. })));
}

#[test]
fn one_request_more_than_may_be_outstanding_ends_the_link() {
    let (mut a, _) = pair(N);
    for i in 0..limits::REQUESTS_PER_LINK_MAX {
        a.receives_text(&[&format!("R:o{i}:N:")], at(0)).unwrap();
    }
    assert!(matches!(a.receives_text(&["R:one:N:"], at(0)), Err(LinkError::OutOfPlace { .. })));
}

#[test]
fn a_request_that_fills_its_packet_goes_alone() {
    // An exchange asks for whatever it was asked for; a name of this length left less than no room for "B:".
    let (mut a, mut b) = pair(N);
    b.offers("x", bytes_of(1, 40));
    a.wants(&["x"]);
    let long = "n".repeat(64 - 5);
    b.wants(&[&long]);
    let from_a = a.sends(at(0), 1);
    b.receives(&from_a, at(0)).unwrap();
    let from_b = b.sends(at(0), 1);
    assert_eq!(heads(&from_b, 64, 5), ["R:nnn", "B:40:"]);
    a.receives(&from_b, at(0)).unwrap();
    assert_eq!(a.has[&name("x")], b.serves[&name("x")]);
}

#[test]
fn a_tail_that_changed_is_not_sent_and_its_request_goes_with_the_next_packet() {
    let (mut a, mut b) = pair(N);
    b.offers("x", bytes_of(1, 40));
    a.wants(&["x"]);
    let from_a = a.sends(at(0), 1);
    b.receives(&from_a, at(0)).unwrap();
    b.wants(&["y"]);
    let before = b.link.counters();
    let piece = b.poll(at(0), 1).unwrap();
    assert!(piece.header.starts_with(b"R:y:B:40:"));
    b.link.handle_source_failed(&piece, "it changed".to_owned(), at(0), &b.fetch, &mut b.serve);
    assert_eq!(b.link.counters().payload_out, before.payload_out);
    assert_eq!(heads(&b.sends(at(0), 1), 64, 6), ["R:y:P:"]);
    assert!(matches!(b.serve.poll_event(), Some(Event::SourceFailed { .. })));
    assert_eq!(b.fetch.last_on_order(LinkId(1)), b.fetch.head(LinkId(1)));
}

// -- a seed-only peer ------------------------------------------------------------------------------------------------

#[test]
fn a_peer_without_hello_is_owed_a_packet_for_each_one() {
    let mut a = Side::new(Role::Trader, N);
    a.meets_seed_peer();
    assert!(!a.link.runs_free());
    assert_eq!(a.sends(at(1), 1).len(), 0, "our first packet answers its first");
    for turn in 1..10 {
        a.receives_text(&["N:"], at(20 * turn)).unwrap();
        assert_eq!(heads(&a.sends(at(20 * turn + 15), 1), 64, 2).len(), 1);
        assert_eq!(a.sends(at(20 * turn + 16), 1).len(), 0);
    }
}

/// It asked once, was told nothing more, and left after a while.
#[test]
fn a_peer_that_asks_once_and_waits_is_told_again_that_it_must() {
    let mut a = Side::new(Role::Trader, N);
    a.meets_seed_peer();
    a.receives_text(&["R:x:N:"], at(0)).unwrap();
    assert_eq!(heads(&a.sends(at(0), 1), 64, 2), ["P:"]);
    assert_eq!(a.sends(at(1999), 1).len(), 0);
    assert!(a.link.poll_timeout(&a.fetch, true, at(1999)) < at(3000), "it is looked at again");
    assert_eq!(heads(&a.sends(at(2000), 1), 64, 2), ["P:"]);
    a.offers("x", vec![b'x']);
    assert_eq!(heads(&a.sends(at(2001), 1), 64, 5), ["B:1:x"]);
}

#[test]
fn data_that_ran_ahead_is_not_owed_again() {
    // Each packet of an object was answered, and answered once more: they went round the loop for ever.
    let mut a = Side::new(Role::Trader, N);
    a.meets_seed_peer();
    a.offers("x", bytes_of(1, 62 * 20));
    a.receives_text(&["R:x:N:"], at(0)).unwrap();
    let packets = a.sends(at(0), 99).len() / 64;
    assert!(packets >= 20);
    a.receives_text(&vec!["N:"; packets - 1], at(1)).unwrap();
    assert_eq!(a.sends(at(1000), 1).len(), 0);
    a.receives_text(&["N:"], at(1000)).unwrap();
    assert_eq!(a.sends(at(2000), 1).len(), 64);
}

#[test]
fn a_request_in_every_packet_is_one_request() {
    let mut a = Side::new(Role::Trader, N);
    a.meets_seed_peer();
    a.offers("x", bytes_of(1, 62 * 3));
    a.receives_text(&["R:x:N:"; 2], at(0)).unwrap();
    let packets = a.sends(at(0), 99).len() / 64;
    let out = a.link.counters().packets_out;
    // Sent before the object's last packet was received.
    let stale = out - a.link.counters().packets_in;
    assert_eq!(stale, packets as u64 - 2);
    a.receives_text(&vec!["R:x:N:"; stale as usize], at(1)).unwrap();
    assert_eq!(a.sends(at(1), 99).len(), 0);
    // Said knowing all of it: it is wanted once more.
    a.receives_text(&["R:x:N:"], at(2)).unwrap();
    assert_eq!(a.sends(at(2), 99).len() / 64, packets);
}

#[test]
fn no_request_in_a_packet_gives_up_nothing_and_another_replaces() {
    let mut a = Side::new(Role::Trader, N);
    a.meets_seed_peer();
    a.offers("x", vec![b'x']);
    a.offers("y", vec![b'y']);
    a.receives_text(&["R:x:N:", "R::N:"], at(0)).unwrap();
    assert_eq!(heads(&a.sends(at(0), 1), 64, 5)[..1], ["B:1:x"]);
    a.receives_text(&["R:x:N:", "R:y:N:"], at(1)).unwrap();
    assert_eq!(heads(&a.sends(at(1), 1), 64, 5)[..1], ["B:1:y"]);
}

#[test]
fn a_request_replaced_while_a_tail_is_read_is_answered() {
    let mut a = Side::new(Role::Trader, N);
    a.meets_seed_peer();
    a.offers("x", vec![b'x']);
    a.offers("y", vec![b'y']);
    a.receives_text(&["R:x:N:"], at(0)).unwrap();
    let piece = a.poll(at(0), 1).unwrap();
    a.receives_text(&["R:y:N:"], at(0)).unwrap();
    a.expand(&piece, at(0));
    assert_eq!(heads(&a.sends(at(0), 1), 64, 5), ["B:1:y"]);
}

#[test]
fn a_seed_only_peer_is_asked_for_one_object_at_a_time_and_once() {
    let mut a = Side::new(Role::Exchange, N);
    a.wants(&["x", "y"]);
    a.meets_seed_peer();
    assert_eq!(heads(&a.sends(at(0), 1), 64, 6), ["R:x:N:"]);
    a.receives_text(&["P:", "N:", "P:"], at(1)).unwrap();
    assert!(heads(&a.sends(at(50), 1), 64, 2).iter().all(|head| head == "N:"));
    a.receives_text(&["B:3:abc"], at(51)).unwrap();
    assert_eq!(a.has[&name("x")], b"abc");
    assert_eq!(heads(&a.sends(at(52), 1), 64, 6), ["R:y:N:"]);
}

#[test]
fn end_is_said_when_all_is_here_and_taken_back_by_a_request() {
    let mut a = Side::new(Role::Trader, N);
    a.meets_seed_peer();
    a.receives_text(&["E:"], at(1)).unwrap();
    assert_eq!(heads(&a.sends(at(20), 1), 64, 2), ["E:"]);
    assert!(a.link.is_over());
    a.wants(&["x"]);
    assert_eq!(heads(&a.sends(at(21), 1), 64, 6), ["R:x:N:"]);
    assert!(!a.link.is_over());
}

#[test]
fn a_relay_never_says_end() {
    let mut a = Side::new(Role::Exchange, N);
    a.fetch = Flow::relay(ByteCount(1000));
    a.meets_seed_peer();
    for turn in 1..100 {
        a.receives_text(&["E:"], at(20 * turn)).unwrap();
        assert_eq!(heads(&a.sends(at(20 * turn + 15), 1), 64, 2), ["N:"]);
    }
}

// -- time ------------------------------------------------------------------------------------------------------------

#[test]
fn silence_ends_a_link_of_ours_and_keepalives_prevent_it() {
    let (mut a, mut b) = pair(N);
    let keepalive = b.sends(Time(limits::KEEPALIVE_EVERY), 1);
    assert_eq!(heads(&keepalive, 64, 2), ["N:"]);
    a.receives(&keepalive, Time(limits::KEEPALIVE_EVERY)).unwrap();
    assert!(a.link.handle_timeout(Time(limits::SILENCE_MAX)).is_ok());
    let end = Time(limits::KEEPALIVE_EVERY + limits::SILENCE_MAX);
    assert_eq!(a.link.poll_timeout(&a.fetch, true, end), end);
    assert!(matches!(a.link.handle_timeout(end), Err(LinkError::Silent(_))));
}

/// A peer that kept alive and read nothing had its link looked at again and again, for a keep-alive that could not go.
#[test]
fn a_link_whose_train_is_in_flight_is_not_looked_at_for_what_is_due_to_be_sent() {
    let (a, _) = pair(N);
    let late = Time(2 * limits::KEEPALIVE_EVERY);
    assert_eq!(a.link.poll_timeout(&a.fetch, true, late), late);
    assert!(a.link.poll_timeout(&a.fetch, false, late) > late);
    let mut seed = Side::new(Role::Trader, N);
    seed.meets_seed_peer();
    seed.receives_text(&["N:"], at(0)).unwrap();
    assert_eq!(seed.link.poll_timeout(&seed.fetch, true, late), late, "a packet is owed");
    assert!(seed.link.poll_timeout(&seed.fetch, false, late) > late);
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let mut a = Side::new(Role::Trader, N);
    assert!(matches!(a.link.handle_timeout(Time(limits::FIRST_PACKET_WITHIN)), Err(LinkError::NoFirstPacket(_))));
}

#[test]
fn closing_gives_back_what_was_on_order_and_asked_for() {
    let (mut a, _) = pair(N);
    a.offers("y", vec![1]);
    a.wants(&["x"]);
    a.sends(at(0), 1);
    a.receives_text(&["R:y:B:100:abc"], at(0)).unwrap();
    a.link.close(at(1), &mut a.fetch, &mut a.serve);
    a.act();
    assert!(a.parts.is_empty());
    assert_eq!(a.fetch.state(ObjectId(0)), ObjectState::Absent);
    assert!(matches!(a.serve.availability(ObjectId(0), at(1)), Availability::Ready { .. }));
    assert!(a.serve.is_complete());
}

/// Objects that one end offers and the other wants.
fn fill(from: &mut Side, to: &mut Side, sizes: &[usize], n: u32) {
    for (i, &size) in sizes.iter().enumerate() {
        let text = format!("dir{i}/o:{i}%");
        from.offers(&text, bytes_of(i as u64 + u64::from(n), size));
        to.wants(&[&text]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_sets_pass_both_ways_in_any_fragments(
        n in prop_oneof![Just(64_u32), 64..300_u32, Just(1400), Just(65_536)],
        ours in prop::collection::vec(0..9000_usize, 0..12),
        theirs in prop::collection::vec(0..9000_usize, 0..12),
        fragments in prop::collection::vec(1..200_usize, 1..20),
    ) {
        let (mut a, mut b) = pair(n);
        fill(&mut a, &mut b, &ours, n);
        fill(&mut b, &mut a, &theirs, n);
        let mut fragments = fragments.into_iter().cycle();
        let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
        for ms in (0..100_000).step_by(10) {
            to_b.extend(a.sends(at(ms), fragments.next().unwrap()));
            to_a.extend(b.sends(at(ms), fragments.next().unwrap()));
            for (side, bytes) in [(&mut a, &mut to_a), (&mut b, &mut to_b)] {
                let packets = (bytes.len() / n as usize).min(fragments.next().unwrap());
                let train: Vec<u8> = bytes.drain(..packets * n as usize).collect();
                side.receives(&train, at(ms)).unwrap();
            }
            if a.fetch.is_complete() && b.fetch.is_complete() {
                break;
            }
        }
        prop_assert_eq!(&a.has, &b.serves);
        prop_assert_eq!(&b.has, &a.serves);
        prop_assert_eq!(a.link.counters().discarded + b.link.counters().discarded, 0);
    }

    #[test]
    fn no_packet_makes_a_link_panic(
        free in any::<bool>(),
        packets in prop::collection::vec("(R:[a-z%:]{0,6}:)?[BMNPEX]:([0-9]{1,20}:)?.{0,9}", 0..30),
    ) {
        let mut a = if free { pair(N).0 } else { Side::new(Role::Trader, N) };
        a.offers("a", vec![5; 200]);
        a.wants(&["x", "y", "z"]);
        for packet in packets {
            if a.receives_text(&[&packet.chars().take(16).collect::<String>()], at(1)).is_err() {
                break;
            }
            a.sends(at(2), 3);
        }
        a.link.close(at(3), &mut a.fetch, &mut a.serve);
    }
}
