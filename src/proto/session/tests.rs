//! Two ends of a session over connections that damage and lose what they carry, in memory, from a seed.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::units::{BlockSeq, ByteCount, Entry, Kind, Offset, TreePath};
use crate::wire::session::{Again, FileInfo, MessageNumber, data_head, encode};

const BLOCK: u32 = 600;
/// Bytes that go out over a connection at once.
const ROOM: usize = 3000;

/// What a connection does to what it carries.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// One in so many messages is damaged behind its head; 0: none.
    damage_one_in: u32,
    /// Connections die, but for the last one.
    cuts: bool,
}

struct Wire {
    /// Towards the receiver, towards the sender.
    ways: [Vec<u8>; 2],
}

struct World {
    rng: Pcg64Mcg,
    faults: Faults,
    now: Time,
    sender: Session,
    receiver: Session,
    wires: BTreeMap<LinkId, Wire>,
    files: Vec<Vec<u8>>,
    /// First file and count of the batch that is being sent.
    batches: Vec<std::ops::Range<usize>>,
    batch: std::ops::Range<usize>,
    held: BTreeMap<usize, Vec<u8>>,
    landed: BTreeSet<usize>,
    had: BTreeMap<usize, RangeSet>,
    data_sent: u64,
    deleted: Vec<TreePath>,
    failed: Vec<(FileId, String)>,
    finished: bool,
    /// What the sender says over this one, the receiver does not hear yet.
    late: Option<LinkId>,
    dones_damaged: u64,
}

impl World {
    fn new(seed: u64, sizes: &[usize], batch: usize, links: u64, faults: Faults, sender_is_client: bool) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let files = sizes.iter().map(|size| (0..*size).map(|_| rng.random()).collect()).collect::<Vec<Vec<u8>>>();
        let batches = (0..files.len()).step_by(batch).map(|at| at..(at + batch).min(files.len())).collect();
        let (ours, theirs) = if sender_is_client { (Side::Client, Side::Server) } else { (Side::Server, Side::Client) };
        let mut world = Self {
            rng,
            faults,
            now: Time::default(),
            sender: Session::sender(ours, BLOCK, None),
            receiver: Session::receiver(theirs, BLOCK),
            wires: BTreeMap::new(),
            files,
            batches,
            batch: 0..0,
            held: BTreeMap::new(),
            landed: BTreeSet::new(),
            had: BTreeMap::new(),
            data_sent: 0,
            deleted: Vec::new(),
            failed: Vec::new(),
            finished: false,
            late: None,
            dones_damaged: 0,
        };
        (0..links).for_each(|link| world.connect(LinkId(link)));
        world
    }

    fn connect(&mut self, link: LinkId) {
        self.sender.handle_connected(link, self.now);
        self.receiver.handle_connected(link, self.now);
        self.wires.insert(link, Wire { ways: [Vec::new(), Vec::new()] });
    }

    fn run(&mut self) {
        for _ in 0..20_000 {
            self.step();
            if self.finished && self.receiver.is_over() {
                return;
            }
        }
        panic!("the session makes no progress: {:#?}", (&self.sender, &self.receiver));
    }

    fn step(&mut self) {
        self.now = self.now + std::time::Duration::from_millis(1);
        if self.sender.wants_batch() && !self.finished {
            self.announce();
        }
        let links: Vec<LinkId> = self.wires.keys().copied().collect();
        for link in links {
            if self.faults.cuts && self.wires.len() > 1 && self.rng.random_range(0..400) == 0 {
                self.cut(link);
                continue;
            }
            self.transmit(link);
            self.deliver(link);
        }
    }

    fn announce(&mut self) {
        let mut announcement = Announcement::default();
        self.batch = if self.batches.is_empty() { 0..0 } else { self.batches.remove(0) };
        for (id, index) in self.batch.clone().enumerate() {
            let mut entry = Entry::new(TreePath::new(format!("file{index}").as_bytes()).expect("valid"), Kind::File);
            entry.size = ByteCount(self.files[index].len() as u64);
            let mut info = Vec::new();
            let file = FileId(id as u16);
            encode(&Message::FileInfo(FileInfo::of_entry(&entry, file)), &mut info).expect("fits");
            announcement.infos.push(info.into());
            announcement.sizes.push(entry.size);
        }
        self.sender.announce(announcement);
    }

    fn transmit(&mut self, link: LinkId) {
        let (mut out, mut runs) = (Vec::new(), Vec::new());
        self.sender.poll_transmit(link, self.now, ROOM, &mut out, &mut runs);
        for run in runs {
            let file = &self.files[self.batch.start + usize::from(run.file.0)];
            let bytes = &file[run.offset.0 as usize..(run.offset.0 + run.length.0) as usize];
            for (index, block) in bytes.chunks(run.block_bytes as usize).enumerate() {
                out.extend_from_slice(&data_head(run.file, BlockSeq(run.first.0 + index as u32), block));
                out.extend_from_slice(block);
                self.data_sent += block.len() as u64;
            }
        }
        let out = self.damage(out);
        let mut back = Vec::new();
        self.receiver.poll_transmit(link, self.now, ROOM, &mut back, &mut Vec::new());
        let back = self.damage(back);
        let wire = self.wires.get_mut(&link).expect("connected");
        wire.ways[0].extend(out);
        wire.ways[1].extend(back);
    }

    /// Damages messages, but not the fields that say how long they are.
    fn damage(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let mut at = 0;
        while let Some((kind, length)) = session::frame(&bytes[at..]).expect("made by us") {
            let fragile = matches!(kind, MessageKind::Control | MessageKind::Session);
            if self.faults.damage_one_in > 0 && !fragile && self.rng.random_range(0..self.faults.damage_one_in) == 0 {
                // The checksum, or behind what frames the message.
                let place = if length > 7 { self.rng.random_range(7..length) } else { self.rng.random_range(1..5) };
                self.dones_damaged += u64::from(kind == MessageKind::Done);
                bytes[at + place] ^= 1 << self.rng.random_range(0..8);
            }
            at += length;
            if at == bytes.len() {
                break;
            }
        }
        bytes
    }

    fn deliver(&mut self, link: LinkId) {
        let Some(wire) = self.wires.get_mut(&link).filter(|_| self.late != Some(link)) else { return };
        let [to_receiver, to_sender] = &mut wire.ways;
        // As much as happens to be there, cut anywhere.
        let cut = self.rng.random_range(0..=to_receiver.len());
        let mut received = Vec::new();
        let bytes = to_receiver[..cut].to_vec();
        let taken = self.receiver.handle_bytes(link, &bytes, self.now, &mut received).expect("keeps to the protocol");
        to_receiver.drain(..taken);
        let taken = self.sender.handle_bytes(link, to_sender, self.now, &mut Vec::new()).expect("keeps to it");
        to_sender.drain(..taken);
        self.follow(&bytes, received);
        self.events();
    }

    fn cut(&mut self, link: LinkId) {
        self.wires.remove(&link);
        let mut received = Vec::new();
        self.sender.handle_closed(link, &mut Vec::new());
        self.receiver.handle_closed(link, &mut received);
        self.follow(&[], received);
    }

    fn follow(&mut self, bytes: &[u8], received: Vec<Received>) {
        for item in received {
            let mut more = Vec::new();
            match item {
                Received::Entry { file, entry } => {
                    let index: usize =
                        std::str::from_utf8(entry.path.as_bytes()).expect("text")[4..].parse().expect("number");
                    assert_eq!(self.batch.start + usize::from(file.0), index);
                    let have = self.had.get(&index).cloned();
                    let mut content = vec![0; entry.size.0 as usize];
                    for (offset, length) in have.iter().flat_map(|have| have.runs().collect::<Vec<_>>()) {
                        let range = offset.0 as usize..(offset.0 + length.0) as usize;
                        content[range.clone()].copy_from_slice(&self.files[index][range]);
                    }
                    self.held.insert(index, content);
                    self.receiver.handle_examined(file, Some(What::New), Some(have.unwrap_or_default()));
                }
                Received::Listed => self.receiver.handle_listed(&mut more),
                Received::Write { file, offset: Offset(offset), at } => {
                    let content = self.held.get_mut(&(self.batch.start + usize::from(file.0))).expect("announced");
                    content[offset as usize..offset as usize + at.len()].copy_from_slice(&bytes[at]);
                }
                Received::EndBatch => {
                    self.landed.extend(self.batch.clone());
                    self.receiver.handle_batch_stands();
                }
                Received::End => self.receiver.handle_ended(&[TreePath::new(b"gone").expect("valid")]),
                Received::Hole { .. } | Received::GiveUp { .. } | Received::Incomplete => {}
            }
            self.follow(&[], more);
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.sender.poll_event() {
            match event {
                Event::Finished => self.finished = true,
                Event::Deleted { path } => self.deleted.push(path),
                Event::LeftOut { path, .. } => panic!("{path} is not left out"),
                Event::Failed { file, reason } => self.failed.push((file, reason)),
                Event::Asked { .. } | Event::BatchDone | Event::Changed(_) => {}
            }
        }
    }

    fn data_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len() as u64).sum()
    }

    fn assert_complete(&self) {
        for (index, file) in self.files.iter().enumerate() {
            assert!(self.held.get(&index) == Some(file), "file {index} differs");
        }
        assert_eq!(self.landed.len(), self.files.len());
        assert_eq!(self.deleted, [TreePath::new(b"gone").expect("valid")]);
    }
}

const SIZES: [usize; 12] = [0, 1, 599, 600, 601, 0, 0, 20_000, 3, 70_000, 1200, 5];

#[test]
fn every_block_is_sent_once_where_nothing_is_damaged() {
    for links in 1..=4 {
        for sender_is_client in [false, true] {
            let mut world = World::new(links, &SIZES, 5, links, Faults::default(), sender_is_client);
            world.run();
            world.assert_complete();
            assert_eq!(world.data_sent, world.data_bytes());
            assert_eq!((world.sender.damaged(), world.receiver.damaged()), (0, 0));
        }
    }
}

#[test]
fn a_tree_without_bytes_needs_no_data() {
    let mut world = World::new(1, &[0, 0, 0], 2, 2, Faults::default(), true);
    world.run();
    world.assert_complete();
    let mut world = World::new(1, &[], 2, 1, Faults::default(), false);
    world.run();
    world.assert_complete();
}

#[test]
fn damaged_messages_are_sent_again_and_only_they() {
    for seed in 0..100 {
        let faults = Faults { damage_one_in: 20, cuts: false };
        let mut world = World::new(seed, &SIZES, 4, 1 + seed % 3, faults, seed % 2 == 0);
        world.run();
        world.assert_complete();
        let damaged = world.receiver.damaged();
        // Behind a damaged DONE nobody knows what round a block is of, until it is there again.
        let again = damaged * u64::from(BLOCK) + world.dones_damaged * 2 * ROOM as u64;
        assert!(world.data_sent <= world.data_bytes() + again, "seed {seed}");
    }
}

#[test]
fn connections_that_die_give_their_blocks_to_the_others() {
    let mut cut = 0;
    for seed in 0..200 {
        let faults = Faults { damage_one_in: if seed % 2 == 0 { 0 } else { 40 }, cuts: true };
        let mut world = World::new(seed, &SIZES, 4, 5, faults, seed % 3 == 0);
        world.run();
        world.assert_complete();
        cut += 5 - world.wires.len();
    }
    assert!(cut > 100, "only {cut} connections died");
}

#[test]
fn what_is_there_already_is_not_sent() {
    let mut world = World::new(7, &SIZES, 12, 2, Faults::default(), true);
    let mut most = RangeSet::new();
    most.insert(Offset(0), ByteCount(60_000));
    world.had.insert(9, most);
    world.run();
    world.assert_complete();
    assert_eq!(world.data_sent, world.data_bytes() - 60_000);
}

#[test]
fn a_file_that_cannot_be_read_is_left_out() {
    let mut world = World::new(7, &SIZES, 12, 2, Faults::default(), true);
    while world.data_sent == 0 {
        world.step();
    }
    world.sender.handle_unreadable(FileId(9), "gone");
    world.run();
    assert_eq!(world.landed.len(), SIZES.len());
    assert!(world.data_sent < world.data_bytes());
}

#[test]
fn a_rate_is_kept() {
    let mut world = World::new(7, &[100_000], 1, 1, Faults::default(), true);
    world.sender = Session::sender(Side::Client, BLOCK, Some(Rate(100_000.0)));
    world.sender.handle_connected(LinkId(0), world.now);
    world.run();
    world.assert_complete();
    // A millisecond a step.
    let seconds = world.now.0.as_secs_f64();
    assert!((0.9..1.2).contains(&seconds), "{seconds} s for a second's worth");
}

/// Feeds bytes to one end; what it says of them.
fn feed(end: &mut Session, messages: &[Message<'_>]) -> Result<Vec<Received>, SessionError> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| encode(message, &mut bytes).expect("fits"));
    let mut received = Vec::new();
    end.handle_connected(LinkId(1), Time::default());
    end.handle_bytes(LinkId(1), &bytes, Time::default(), &mut received).map(|_| received)
}

fn info(path: &[u8], file: u16, size: u64) -> FileInfo<'_> {
    FileInfo { file: FileId(file), mode: 0o100644, size: ByteCount(size), path, ..FileInfo::empty() }
}

#[test]
fn hostile_senders_are_refused() {
    let check = |what: &str, messages: &[Message<'_>]| {
        let mut receiver = Session::receiver(Side::Client, BLOCK);
        let error = feed(&mut receiver, messages).expect_err(what);
        assert!(error.ends_session(), "{what}: {error}");
    };
    let entry = |path, file, size| Message::FileInfo(info(path, file, size));
    check("a way out", &[Message::FileCount(1), entry(b"../passwd", 0, 1)]);
    check("an absolute name", &[Message::FileCount(1), entry(b"/etc/passwd", 0, 1)]);
    check("an entry out of order", &[Message::FileCount(2), entry(b"a", 1, 1)]);
    check("an entry more than announced", &[Message::FileCount(1), entry(b"a", 0, 1), entry(b"b", 1, 1)]);
    check("an entry without a batch", &[entry(b"a", 0, 1)]);
    check("a file of too many blocks", &[Message::FileCount(1), entry(b"a", 0, limits::SESSION_FILE_BYTES_MAX)]);
    check("data that nobody asked for", &[Message::Data { file: FileId(0), seq: BlockSeq(0), data: b"x" }]);
    let early = Message::Data { file: FileId(0), seq: BlockSeq(0), data: b"x" };
    check("data before it is asked for", &[Message::FileCount(1), entry(b"a", 0, 1), early]);
    check("a batch within a batch", &[Message::FileCount(1), Message::FileCount(1)]);
    check("a receiver's message", &[Message::Ready]);
    check("a command", &[Message::Session(crate::units::SessionId(1))]);
}

#[test]
fn what_fails_is_followed_once() {
    let mut receiver = Session::receiver(Side::Server, BLOCK);
    let announced = [Message::FileCount(2), Message::FileInfo(info(b"a", 0, 601))];
    feed(&mut receiver, &announced).expect("announced");
    let fails = |file| Message::Failed { file, text: "" };
    let told: Vec<_> = (0..100).map(|at| fails(if at % 2 == 0 { FileId(0) } else { NO_ENTRY })).collect();
    let received = feed(&mut receiver, &told).expect("it may say so");
    assert!(matches!(received[..], [Received::GiveUp { file: FileId(0) }, Received::Incomplete]), "{received:?}");
}

#[test]
fn data_must_be_what_was_announced() {
    let check = |file: u16, seq: u32, data: &[u8], is_right: bool| {
        let mut receiver = Session::receiver(Side::Client, BLOCK);
        let entries =
            [Message::FileCount(2), Message::FileInfo(info(b"a", 0, 601)), Message::FileInfo(info(b"b", 1, 5))];
        feed(&mut receiver, &entries).expect("announced");
        for file in 0..2 {
            receiver.handle_examined(FileId(file), None, Some(RangeSet::new()));
        }
        receiver.handle_listed(&mut Vec::new());
        let data = Message::Data { file: FileId(file), seq: BlockSeq(seq), data };
        assert_eq!(feed(&mut receiver, &[data]).is_ok(), is_right, "file {file}, block {seq}");
    };
    check(0, 1, b"x", true);
    check(1, 2, b"12345", true);
    check(0, 1, b"xy", false);
    check(1, 1, b"x", false);
    check(1, 3, b"12345", false);
    check(9, 2, b"12345", false);
    check(1, u32::MAX, b"12345", false);
}

#[test]
fn hostile_receivers_are_refused() {
    let check = |what: &str, messages: &[Message<'_>]| {
        let mut sender = Session::sender(Side::Server, BLOCK, None);
        let error = feed(&mut sender, messages).expect_err(what);
        assert!(error.ends_session(), "{what}: {error}");
    };
    check("ready for nothing", &[Message::Ready]);
    check("a batch of its own", &[Message::FileCount(1)]);
    check("done with nothing", &[Message::Verify]);
    check("control over what was never sent", &[Message::Control { next: MessageNumber(5) }]);
    check("data", &[Message::Data { file: FileId(0), seq: BlockSeq(0), data: b"x" }]);
}

/// A damaged length looks like anything: the connection ends, and the session goes on over others.
#[test]
fn what_may_come_of_a_damaged_length_ends_the_connection_alone() {
    let mut sender = Session::sender(Side::Server, BLOCK, None);
    let again = Again::Control { kind: MessageKind::FileInfo, number: MessageNumber(77) };
    let error = feed(&mut sender, &[Message::Retransmit(again)]).expect_err("there is no such message");
    assert!(!error.ends_session(), "{error}");
    sender.handle_connected(LinkId(2), Time::default());
    for garbage in [&[0xff; 20][..], &[MessageKind::Ready.code(); 50], &[MessageKind::Session.code(); 50]] {
        let error = sender.handle_bytes(LinkId(2), garbage, Time::default(), &mut Vec::new()).expect_err("garbage");
        assert!(!error.ends_session(), "{error}");
    }
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let mut sender = Session::sender(Side::Client, BLOCK, None);
    sender.handle_connected(LinkId(1), Time::default());
    let almost = Time(limits::SESSION_SILENCE_MAX - std::time::Duration::from_millis(1));
    assert_eq!(sender.handle_timeout(LinkId(1), almost), Ok(()));
    assert_eq!(sender.handle_timeout(LinkId(1), Time(limits::SESSION_SILENCE_MAX)), Err(SessionError::Silent));
}

#[test]
fn what_says_that_a_peer_is_there_is_not_the_rest_of_a_message() {
    // Behind a damaged length both ends waited for ever: what came every 2 s was taken for some of what lacked.
    let second = |seconds| Time(std::time::Duration::from_secs(seconds));
    let mut receiver = Session::receiver(Side::Client, BLOCK);
    receiver.handle_connected(LinkId(1), second(0));
    let mut bytes = data_head(FileId(0), BlockSeq(0), &[0; 100]).to_vec();
    bytes[5] = 0xff;
    bytes.extend_from_slice(&[0; 100]);
    let mut took = |bytes: &[u8], now| {
        assert_eq!(receiver.handle_bytes(LinkId(1), bytes, now, &mut Vec::new()), Ok(0));
        receiver.handle_timeout(LinkId(1), now)
    };
    assert_eq!(took(&bytes, second(1)), Ok(()));
    // A link that is very slow is one all the same.
    let slow = limits::SESSION_SILENCE_MAX.as_secs() - 1;
    for at in 1..10 {
        bytes.resize(bytes.len() + limits::SESSION_TRICKLE_BYTES, 0);
        assert_eq!(took(&bytes, second(1 + at * slow)), Ok(()));
    }
    let mut outcomes = (0..10).map(|at| {
        encode(&Message::KeepAlive, &mut bytes).expect("fits");
        took(&bytes, second(1 + 9 * slow + 2 * at))
    });
    assert!(outcomes.any(|outcome| outcome == Err(SessionError::Silent)), "it waits");
}

/// A sender announces one file of 1200 bytes, of which nothing is here.
fn announce(receiver: &mut Session) {
    feed(receiver, &[Message::FileCount(1), Message::FileInfo(info(b"a", 0, 1200))]).expect("announced");
    receiver.handle_examined(FileId(0), None, Some(RangeSet::new()));
    receiver.handle_listed(&mut Vec::new());
}

/// Blocks of equal files in batches of one have the same numbers in each batch.
#[test]
fn what_comes_late_over_a_connection_is_not_taken_for_another_batch() {
    for steps in (5..150).step_by(4) {
        let mut world = World::new(steps, &[20_000; 12], 1, 1, Faults::default(), true);
        let late = LinkId(1);
        world.sender.handle_connected(late, world.now);
        world.wires.insert(late, Wire { ways: [Vec::new(), Vec::new()] });
        world.late = Some(late);
        (0..steps).for_each(|_| world.step());
        // Only now the receiver takes the connection.
        world.receiver.handle_connected(late, world.now);
        world.late = None;
        world.run();
        world.assert_complete();
    }
}

#[test]
fn blocks_of_a_file_that_was_given_up_may_come_late() {
    let mut receiver = Session::receiver(Side::Client, BLOCK);
    receiver.handle_connected(LinkId(1), Time::default());
    receiver.handle_connected(LinkId(2), Time::default());
    let begin = |receiver: &mut Session| {
        announce(receiver);
        receiver.poll_transmit(LinkId(1), Time::default(), 9000, &mut Vec::new(), &mut Vec::new());
    };
    let late = |receiver: &mut Session, before: &[Message<'_>]| {
        let mut bytes = Vec::new();
        before.iter().for_each(|message| encode(message, &mut bytes).expect("fits"));
        encode(&Message::Data { file: FileId(0), seq: BlockSeq(1), data: &[7; 600] }, &mut bytes).expect("fits");
        let mut received = Vec::new();
        receiver.handle_bytes(LinkId(2), &bytes, Time::default(), &mut received).expect("it is late, not wrong");
        received.iter().any(|received| matches!(received, Received::Write { .. }))
    };
    begin(&mut receiver);
    let failed = Message::Failed { file: FileId(0), text: "it changed" };
    let received = feed(&mut receiver, &[failed]).expect("may be");
    assert!(matches!(received[..], [Received::GiveUp { .. }, Received::EndBatch]));
    assert!(!late(&mut receiver, &[]), "while the batch is made to stand");
    receiver.handle_batch_stands();
    assert!(!late(&mut receiver, &[]), "between batches");
    receiver.poll_transmit(LinkId(1), Time::default(), 9000, &mut Vec::new(), &mut Vec::new());
    begin(&mut receiver);
    assert!(!late(&mut receiver, &[]), "while the next batch is asked for");
    assert!(late(&mut receiver, &[Message::Done(session::Round(1))]), "of the next batch");
}

/// What an end sends over a connection, message by message, while it has something.
fn said(end: &mut Session, link: LinkId, room: usize) -> Vec<MessageKind> {
    let mut kinds = Vec::new();
    loop {
        let mut out = Vec::new();
        end.poll_transmit(link, Time::default(), room, &mut out, &mut Vec::new());
        let mut at = 0;
        while let Some((kind, length)) = session::frame(&out[at..]).expect("made by us") {
            assert!(out.len() <= room || length == out.len(), "{} bytes, {room} is room for", out.len());
            kinds.push(kind);
            at += length;
        }
        if out.is_empty() {
            return kinds;
        }
    }
}

fn sender_of(entries: u16) -> Session {
    let mut sender = Session::sender(Side::Server, BLOCK, None);
    let mut announcement = Announcement::default();
    for file in 0..entries {
        let mut bytes = Vec::new();
        encode(&Message::FileInfo(info(&[b'a'; 200], file, 1)), &mut bytes).expect("fits");
        announcement.infos.push(bytes.into());
        announcement.sizes.push(ByteCount(1));
    }
    sender.announce(announcement);
    sender
}

#[test]
fn what_is_asked_for_many_times_goes_out_once_and_in_pieces() {
    let mut sender = sender_of(100);
    sender.handle_connected(LinkId(1), Time::default());
    assert_eq!(said(&mut sender, LinkId(1), 3000).len(), 101);
    let again =
        |number| Message::Retransmit(Again::Control { kind: MessageKind::FileInfo, number: MessageNumber(number) });
    let all: Vec<Message<'_>> = (0..50).flat_map(|_| 1..=100).map(again).collect();
    feed(&mut sender, &all).expect("may be asked for");
    assert_eq!(said(&mut sender, LinkId(1), 3000), [MessageKind::Resent; 100]);
}

/// DONE was added to a train that was full of other messages: the daemon ended.
#[test]
fn the_end_of_a_round_keeps_to_the_room_behind_other_messages() {
    for room in 1000..1300 {
        let mut sender = sender_of(100);
        sender.handle_connected(LinkId(1), Time::default());
        said(&mut sender, LinkId(1), 3000);
        feed(&mut sender, &[Message::Ready]).expect("all were told");
        (0..100).for_each(|file| sender.handle_unreadable(FileId(file), &"cannot be opened ".repeat(5)));
        let kinds = said(&mut sender, LinkId(1), room);
        assert_eq!(kinds.iter().filter(|kind| **kind == MessageKind::Failed).count(), 100);
        assert_eq!(kinds.iter().filter(|kind| **kind == MessageKind::Done).count(), 1);
    }
}

/// Batch after batch was announced to a peer that read none of it, and all of them were kept.
#[test]
fn an_answer_to_what_was_not_sent_is_refused() {
    for answer in [Message::Ready, Message::Verify] {
        let mut sender = sender_of(100);
        sender.handle_connected(LinkId(1), Time::default());
        let mut out = Vec::new();
        sender.poll_transmit(LinkId(1), Time::default(), 3000, &mut out, &mut Vec::new());
        let error = feed(&mut sender, &[answer]).expect_err("most of it is still here");
        assert!(error.ends_session(), "{error}");
    }
}

#[test]
fn a_sender_that_does_not_listen_is_not_answered_without_end() {
    let mut receiver = Session::receiver(Side::Server, BLOCK);
    announce(&mut receiver);
    for round in 1..100 {
        feed(&mut receiver, &[Message::Done(session::Round(round))]).expect("says nothing");
    }
    assert_eq!(said(&mut receiver, LinkId(1), 3000), [MessageKind::Ready]);
    let failed = Message::Failed { file: FileId(0), text: "gone" };
    feed(&mut receiver, &[failed]).expect("may be");
    receiver.handle_batch_stands();
    let error = feed(&mut receiver, &[Message::FileCount(1)]).expect_err("it was not told yet");
    assert!(error.ends_session(), "{error}");
}

/// A pull went round and round where one block was damaged on its way each time that it was sent.
#[test]
fn what_never_comes_is_not_asked_for_without_end() {
    let mut receiver = Session::receiver(Side::Server, BLOCK);
    announce(&mut receiver);
    let mut round = 0;
    let mut over = |receiver: &mut Session| {
        said(receiver, LinkId(1), 3000);
        round += 1;
        feed(receiver, &[Message::Done(session::Round(round))])
    };
    (1..limits::ROUNDS_IN_VAIN_MAX).for_each(|_| drop(over(&mut receiver).expect("it may come yet")));
    let data = Message::Data { file: FileId(0), seq: BlockSeq(0), data: &[0; BLOCK as usize] };
    feed(&mut receiver, &[data]).expect("half of it");
    (0..limits::ROUNDS_IN_VAIN_MAX).for_each(|_| drop(over(&mut receiver).expect("so may the rest")));
    let error = over(&mut receiver).expect_err("it does not");
    assert!(error.ends_session(), "{error}");
}

#[test]
fn damage_without_end_ends_the_connection() {
    let mut receiver = Session::receiver(Side::Server, BLOCK);
    receiver.handle_connected(LinkId(1), Time::default());
    let mut bytes = Vec::new();
    encode(&Message::Done(session::Round(1)), &mut bytes).expect("fits");
    bytes[7] ^= 1;
    encode(&Message::KeepAlive, &mut bytes).expect("fits");
    let all = bytes.repeat(limits::ASKS_MAX + 1);
    let error = receiver.handle_bytes(LinkId(1), &all, Time::default(), &mut Vec::new()).expect_err("too much");
    assert_eq!(error, SessionError::TooMuchDamage);
}

#[test]
fn what_the_last_carrier_still_brings_ends_that_connection_alone() {
    let mut sender = sender_of(1);
    sender.handle_connected(LinkId(1), Time::default());
    sender.handle_connected(LinkId(2), Time::default());
    assert_eq!(said(&mut sender, LinkId(1), 3000).len(), 2);
    let speak = |sender: &mut Session, link, message: &Message<'_>| {
        let mut bytes = Vec::new();
        encode(message, &mut bytes).expect("fits");
        sender.handle_bytes(link, &bytes, Time::default(), &mut Vec::new())
    };
    speak(&mut sender, LinkId(2), &Message::Control { next: MessageNumber(1) }).expect("a carrier is named");
    let error = speak(&mut sender, LinkId(1), &Message::Ready).expect_err("it comes over the other one");
    assert!(!error.ends_session(), "{error}");
    sender.handle_closed(LinkId(1), &mut Vec::new());
    assert_eq!(said(&mut sender, LinkId(2), 3000), [MessageKind::Control, MessageKind::FileInfo]);
    speak(&mut sender, LinkId(2), &Message::Ready).expect("once more, since it was not taken");
}

#[test]
fn a_client_that_names_no_carrier_is_given_up() {
    let mut sender = sender_of(1);
    sender.handle_connected(LinkId(1), Time::default());
    sender.handle_connected(LinkId(2), Time::default());
    sender.handle_closed(LinkId(1), &mut Vec::new());
    let mut look = |seconds| {
        let now = Time(std::time::Duration::from_secs(seconds));
        sender.handle_life(LinkId(2), now);
        sender.handle_timeout(LinkId(2), now)
    };
    let begin = 100;
    assert_eq!(look(begin), Ok(()));
    assert_eq!(look(begin + limits::SESSION_SILENCE_MAX.as_secs() - 1), Ok(()));
    assert_eq!(look(begin + limits::SESSION_SILENCE_MAX.as_secs()), Err(SessionError::NoCarrier));
}

#[test]
fn a_connection_that_cannot_send_is_not_looked_at_for_that() {
    let mut sender = Session::sender(Side::Client, BLOCK, Some(Rate(1.0)));
    sender.handle_connected(LinkId(1), Time::default());
    assert_eq!(sender.poll_timeout(LinkId(1), true), Some(Time(limits::SESSION_KEEPALIVE_EVERY)));
    assert_eq!(sender.poll_timeout(LinkId(1), false), Some(Time(limits::SESSION_SILENCE_MAX)));
}

#[test]
fn a_list_that_looks_like_a_block_keeps_its_number() {
    let mut sender = sender_of(1);
    sender.handle_connected(LinkId(1), Time::default());
    said(&mut sender, LinkId(1), ROOM);
    let mut list = session::RunsBuf::new();
    assert!(list.push(session::BlockRun::of(0..1).expect("some")));
    let mut have = Vec::new();
    encode(&Message::Have(list.as_list()), &mut have).expect("fits");
    let mut bytes = have.clone();
    bytes[0] = MessageKind::Data.code();
    encode(&Message::Ready, &mut bytes).expect("fits");
    sender.handle_bytes(LinkId(1), &bytes, Time::default(), &mut Vec::new()).expect("it is damaged");
    assert_eq!(said(&mut sender, LinkId(1), ROOM), [MessageKind::Retransmit]);
    feed(&mut sender, &[Message::Resent { number: MessageNumber(0), message: &have }]).expect("it was asked for");
    let asked = std::iter::from_fn(|| sender.poll_event()).any(|event| event == Event::Asked { blocks: 0, round: 1 });
    assert!(asked, "the receiver has all of it");
}

#[test]
fn what_a_peer_says_moves_no_cursor() {
    let mut sender = Session::sender(Side::Server, BLOCK, None);
    let error = Message::Error { code: ErrorCode::STORE, text: "no\x1b[2Jroom\n" };
    let error = feed(&mut sender, &[error]).expect_err("it ends the session");
    assert_eq!(error.to_string(), "the peer says: no\u{fffd}[2Jroom\u{fffd}");
}
