//! The grammar in golden bytes, and whole trains from packer to reader.

use proptest::prelude::*;

use super::*;
use crate::limits;
use crate::units::{ByteCount, NameError, ObjectName, Offset, PacketLen};
use crate::wire::{Excerpt, duplex};

const ID: RequestId = RequestId(7);

fn name(bytes: &[u8]) -> ObjectName {
    ObjectName::new(bytes).expect("a test's name is valid")
}

fn packet_len(bytes: usize) -> PacketLen {
    PacketLen::new(bytes as u32).expect("in bounds")
}

fn request(id: u32, path: &[u8], offset: u64, length: u64) -> Frame {
    Frame::Request { id: RequestId(id), name: name(path), offset: Offset(offset), length: ByteCount(length) }
}

fn begin(offset: u64, length: u64) -> Frame {
    Frame::Begin { id: ID, offset: Offset(offset), length: ByteCount(length), crc: 0x0badcafe }
}

fn news(length: u64) -> Frame {
    Frame::News { epoch: Epoch(5), seq: Seq(9), length: ByteCount(length), crc: 0 }
}

/// The byte of an object at `offset`; never a letter of the grammar.
fn content(offset: u64) -> u8 {
    (offset % 251) as u8 | 0x80
}

/// A packet of N bytes that starts with `head`, filled with `fill`.
fn packet(n: usize, head: &[u8], fill: u8) -> Vec<u8> {
    let mut packet = vec![fill; n];
    packet[..head.len()].copy_from_slice(head);
    packet
}

/// All items of `train`, up to an error if there is one.
fn read(reader: &mut Reader, train: &[u8]) -> (Vec<Item>, Option<FrameError>) {
    let mut items = Vec::new();
    reader.start();
    loop {
        match reader.next(train) {
            Ok(Some(item)) => items.push(item),
            Ok(None) => return (items, None),
            Err(error) => return (items, Some(error)),
        }
    }
}

/// A train as it goes over the wire.
fn expand(packer: &Packer, fill: u8) -> Vec<u8> {
    let mut train = Vec::new();
    let data = |train: &mut Vec<u8>, offset: u64, length: usize| {
        train.extend((offset..offset + length as u64).map(content));
    };
    for segment in packer.segments() {
        match segment.clone() {
            Segment::Bytes(range) => train.extend_from_slice(&packer.heads()[range]),
            Segment::Data { offset, length, .. } => data(&mut train, offset.0, length),
            Segment::DataRun { offset, packets, each, .. } => {
                for i in 0..packets {
                    train.extend_from_slice(duplex::MIDDLE);
                    data(&mut train, offset.0 + (i * each) as u64, each);
                }
            }
            Segment::Padding { length } => train.resize(train.len() + length, fill),
        }
    }
    train
}

#[test]
fn heads_are_these_bytes() {
    let check = |frame: Frame, expected: &[u8]| {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(frame.encoded_len(), bytes.len());
        let train = packet(400, &[expected, b"N:"].concat(), b'0');
        let (items, error) = read(&mut Reader::new(packet_len(400)), &train);
        assert_eq!(
            (items.first(), frame.data().is_none()),
            (Some(&Item::Frame(frame)), error.is_none() && items.len() == 1)
        );
    };
    check(request(0, b"a", 0, 1), b"R:0:a:0:1:");
    check(request(0, b"a", 0, 0), b"R:0:a:0:0:");
    check(request(4_294_967_295, b"d/a:b%\n\xff", 1 << 20, 32_768), b"R:4294967295:d/a%3Ab%25%0A\xff:1048576:32768:");
    check(request(1, b"a", 1, limits::OBJECT_BYTES_MAX - 1), b"R:1:a:1:9223372036854775806:");
    check(begin(1_048_575, 1), b"B:7:1048575:1:0badcafe:");
    check(begin(1_048_576, 1_048_576), b"B:7:1048576:1048576:0badcafe:");
    check(Frame::Pending { id: ID }, b"P:7:");
    check(Frame::Refused { id: ID, reason: Refusal::Gone }, b"F:7:gone:");
    check(Frame::Refused { id: ID, reason: Refusal::Changed }, b"F:7:changed:");
    check(Frame::Refused { id: ID, reason: Refusal::Damaged }, b"F:7:damaged:");
    check(Frame::Refused { id: ID, reason: Refusal::Invalid }, b"F:7:invalid:");
    check(Frame::Cancel { id: ID }, b"C:7:");
    check(Frame::KeepAlive, b"K:");
    check(Frame::Subscribe { epoch: Epoch(0), seq: Seq(0) }, b"I:0:0:");
    check(Frame::Subscribe { epoch: Epoch(u64::MAX), seq: Seq(3) }, b"I:18446744073709551615:3:");
    check(news(8_388_608), b"I:5:9:8388608:00000000:");
    check(Frame::Whole { epoch: Epoch(5), seq: Seq(9), origin: 0x0badcafe }, b"I:5:9:0:0badcafe:");
}

#[test]
fn malformed_heads_are_refused_where_they_go_wrong() {
    // What a packet of 64 bytes holds is filled up with '~'; without "N:" before it, that is no frame.
    let check = |head: &[u8], position: usize, expected: Expected| {
        let train = [packet(64, b"K:N:", 0), packet(64, head, b'~')].concat();
        let found = Excerpt::of(&train[64..], position);
        let (_, error) = read(&mut Reader::new(packet_len(64)), &train);
        let expected = FrameError::Unexpected { packet_at: 64, position, expected, found };
        assert_eq!(error, Some(expected), "{}", head.escape_ascii());
    };
    for unknown in [&b"r:1:"[..], b"E:", b"X:", b"M:", b"K", b"", b"A:", b"\0\0", b":::"] {
        check(unknown, 0, Expected::Frame);
        check(&[b"K:P:3:", unknown].concat(), 6, Expected::Frame);
    }
    check(b"P:", 2, Expected::Digit);
    check(b"P::", 2, Expected::Digit);
    check(b"P:-1:", 2, Expected::Digit);
    check(b"P:+1:", 2, Expected::Digit);
    check(b"P:1", 3, Expected::NumberEnd);
    check(b"P:1 :", 3, Expected::NumberEnd);
    check(b"P:4294967296:", 2, Expected::IdInRange);
    check(b"P:000000000000000000001:", 22, Expected::NumberEnd);
    check(b"I:18446744073709551616:0:", 2, Expected::NumberInRange);
    check(b"C:x:", 2, Expected::Digit);
    check(b"F:1:", 4, Expected::Refusal);
    check(b"F:1:gone", 4, Expected::Refusal);
    check(b"F:1:Gone:", 4, Expected::Refusal);
    check(b"F:1:goner:", 4, Expected::Refusal);
    check(b"R:1:a%3:0:1:", 5, Expected::Name(duplex::Expected::Escape));
    check(b"R:1:a\x7f:0:1:", 5, Expected::Name(duplex::Expected::NameByte));
    check(b"R:1:a", 64, Expected::Name(duplex::Expected::NameEnd));
    check(b"R:1:a:1:0:", 6, Expected::RangeInObject);
    check(b"R:1:a:1:9223372036854775807:", 6, Expected::RangeInObject);
    check(b"R:1:a:18446744073709551615:1:", 6, Expected::RangeInObject);
    check(b"R:1:a:18446744073709551615:18446744073709551615:", 6, Expected::RangeInObject);
    check(b"B:7:0:0:0badcafe:", 4, Expected::RangeInBlock);
    check(b"B:7:0:1048577:0badcafe:", 4, Expected::RangeInBlock);
    check(b"B:7:1048575:2:0badcafe:", 4, Expected::RangeInBlock);
    check(b"B:7:9223372036854775807:1:0badcafe:", 4, Expected::RangeInBlock);
    check(b"B:7:18446744073709551615:1:0badcafe:", 4, Expected::RangeInBlock);
    check(b"B:7:18446744073708503040:1048576:0badcafe:", 4, Expected::RangeInBlock);
    check(b"B:7:0:1:0badcaf:", 8, Expected::Checksum);
    check(b"B:7:0:1:0BADCAFE:", 8, Expected::Checksum);
    check(b"B:7:0:1:0badcafe0:", 8, Expected::Checksum);
    check(b"I:5:9:0:0000000:", 8, Expected::Checksum);
    check(b"I:5:9:8388609:00000000:", 6, Expected::NewsLength);
    check(b"I:5:9:1:0000000g:", 8, Expected::Checksum);
}

#[test]
fn a_head_never_crosses_the_end_of_its_packet() {
    let tail = |head: &[u8]| {
        // 64 bytes of keep-alives that end in `head`, which the next packet would complete.
        let mut train = b"K:".repeat(32 - head.len() / 2);
        train.extend_from_slice(head);
        assert_eq!(train.len(), 64);
        train.extend_from_slice(&packet(64, b"7:", 0));
        train
    };
    let check = |head: &[u8], expected: Expected| {
        let (items, error) = read(&mut Reader::new(packet_len(64)), &tail(head));
        assert!(items.iter().all(|item| *item == Item::Frame(Frame::KeepAlive)), "{items:?}");
        let found = Excerpt::of(b"", 0);
        assert_eq!(error, Some(FrameError::Unexpected { packet_at: 0, position: 64, expected, found }));
    };
    check(b"P:", Expected::Digit);
    check(b"P:12", Expected::NumberEnd);
    check(b"R:1:", Expected::Name(duplex::Expected::NameEnd));
    check(b"R:1:ab", Expected::Name(duplex::Expected::NameEnd));
    check(b"F:1:", Expected::Refusal);
    check(b"B:1:0:1:", Expected::Checksum);
    check(b"I:12", Expected::NumberEnd);
}

#[test]
fn errors_say_where_what_and_what_instead() {
    let check = |head: &[u8], expected: &str| {
        let (_, error) = read(&mut Reader::new(packet_len(64)), &packet(64, head, b'~'));
        assert_eq!(error.expect("malformed").to_string(), expected);
    };
    check(
        b"B:7:12x:",
        r#"malformed packet at byte 6: expected ':' after a number of at most 20 digits, found "x:~~~~~~~~~~~~~~""#,
    );
    check(
        b"R:1:../up:0:1:",
        concat!(
            r#"malformed packet at byte 4: expected an object's name, found "../up:0:1:~~~~~~": "#,
            "the name has a '.' or '..' component"
        ),
    );
    let (_, error) = read(&mut Reader::new(packet_len(64)), &packet(64, b"R:1::0:1:", b'~'));
    assert!(matches!(error, Some(FrameError::Name { position: 4, source: NameError::Empty, .. })), "{error:?}");
}

#[test]
fn a_last_byte_is_padding_whatever_it_is() {
    for last in [b'7', b'N', b'K', b':', 0] {
        let mut train = b"K:".repeat(28);
        train.extend_from_slice(b"I:5:99:");
        train.push(last);
        assert_eq!(train.len(), 64);
        train.extend_from_slice(&packet(64, b"P:7:N:", last));
        let (items, error) = read(&mut Reader::new(packet_len(64)), &train);
        let last_two = [Frame::Subscribe { epoch: Epoch(5), seq: Seq(99) }, Frame::Pending { id: ID }].map(Item::Frame);
        assert_eq!((&items[28..], error), (&last_two[..], None));
    }
}

#[test]
fn a_run_of_middles_is_one_item_and_frames_follow_data_at_once() {
    // "B:7:0:300:0badcafe:" is 19 bytes, so 45 in its packet, 62 in each of 4, 7 in the last.
    let mut packer = Packer::new(packet_len(64));
    packer.push_head(&begin(0, 300)).expect("short");
    packer.push_data(ByteCount(300));
    packer.push_head(&Frame::Pending { id: ID }).expect("short");
    packer.finish();
    let (of, n) = (DataOf::Request(ID), 64);
    assert_eq!(
        packer.segments(),
        [
            Segment::Bytes(0..19),
            Segment::Data { of, offset: Offset(0), length: 45 },
            Segment::DataRun { of, offset: Offset(45), packets: 4, each: 62 },
            Segment::Bytes(19..21),
            Segment::Data { of, offset: Offset(293), length: 7 },
            Segment::Bytes(21..27),
            Segment::Padding { length: 49 },
        ]
    );
    assert_eq!(packer.heads(), b"B:7:0:300:0badcafe:M:P:7:N:");
    assert_eq!(packer.packets(), 6);
    let train = expand(&packer, b'~');
    let rest = Data { of, offset: Offset(45), at: 66, stride: n, each: 62, length: 255 };
    assert_eq!(rest.pieces().last(), Some(5 * 64 + 2..5 * 64 + 9));
    let expected = vec![
        Item::Frame(begin(0, 300)),
        Item::Data(Data { of, offset: Offset(0), at: 19, stride: n, each: 45, length: 45 }),
        Item::Data(rest),
        Item::DataEnd(of),
        Item::Frame(Frame::Pending { id: ID }),
    ];
    assert_eq!(read(&mut Reader::new(packet_len(n)), &train), (expected, None));

    // The same in two trains, and with a last packet that is not whole yet.
    let mut reader = Reader::new(packet_len(n));
    let (items, error) = read(&mut reader, &train[..3 * n + 5]);
    assert_eq!((items.len(), error, reader.consumed()), (3, None, 3 * n));
    let (items, error) = read(&mut reader, &train[3 * n..]);
    let rest = Data { of, offset: Offset(45 + 2 * 62), at: 2, stride: n, each: 62, length: 131 };
    assert_eq!((&items[0], items.len(), error), (&Item::Data(rest), 3, None));
    assert_eq!(reader.consumed(), 3 * n);
}

#[test]
fn data_goes_on_with_middles_and_nothing_else() {
    let first = packet(64, b"B:7:0:300:0badcafe:", 0x80);
    let middle = packet(64, b"M:", 0x80);
    for other in [&b"N:"[..], b"K:", b"P:1:", b"M", b"m:", b"\x80"] {
        for middles in 0..3 {
            let train = [first.clone(), middle.repeat(middles), packet(64, other, 0)].concat();
            let mut reader = Reader::new(packet_len(64));
            let (items, error) = read(&mut reader, &train);
            assert_eq!(items.len(), 2 + usize::from(middles > 0));
            let (packet_at, expected) = (64 * (1 + middles), Expected::Middle);
            let found = Excerpt::of(&train, packet_at);
            assert_eq!(error, Some(FrameError::Unexpected { packet_at, position: 0, expected, found }));
        }
    }
}

#[test]
fn packets_are_used_to_their_last_byte() {
    let laid_out = |frames: &[Frame]| {
        let mut packer = Packer::new(packet_len(64));
        for frame in frames {
            packer.push_head(frame).expect("short");
            packer.push_data(packer.remaining());
        }
        packer.finish();
        let train = expand(&packer, b'~');
        assert_eq!(train.len(), 64 * packer.packets());
        let (items, error) = read(&mut Reader::new(packet_len(64)), &train);
        assert_eq!(error, None);
        let read: Vec<Frame> = items
            .into_iter()
            .filter_map(|item| if let Item::Frame(frame) = item { Some(frame) } else { None })
            .collect();
        assert_eq!(read, frames);
        train
    };
    assert_eq!(laid_out(&[]), b"");
    assert_eq!(laid_out(&[Frame::KeepAlive]), packet(64, b"K:N:", b'~'));
    assert_eq!(laid_out(&vec![Frame::KeepAlive; 32]), b"K:".repeat(32));
    // "B:7:0:LL:0badcafe:" is 18 bytes.
    assert_eq!(laid_out(&[begin(0, 46), Frame::KeepAlive]).len(), 128);
    assert!(laid_out(&[begin(0, 45), Frame::KeepAlive])[63..].starts_with(b"~K:N:~"));
    assert!(laid_out(&[begin(0, 44), Frame::Pending { id: ID }])[62..].starts_with(b"N:P:7:N:~"));
    assert!(laid_out(&[begin(0, 44), Frame::KeepAlive]).ends_with(b"K:"));
    assert_eq!(laid_out(&[begin(0, 45), begin(45, 1)]).len(), 128);
    // A head that ends with its packet: its data starts in the next one.
    let mut frames = vec![Frame::KeepAlive; 23];
    frames.push(begin(0, 10));
    let train = laid_out(&frames);
    assert!(train[46..].starts_with(b"B:7:0:10:0badcafe:M:\x80\x81"), "{}", train.escape_ascii());
}

#[test]
fn a_head_longer_than_a_packet_is_refused_and_leaves_the_train_as_it_was() {
    let mut packer = Packer::new(packet_len(64));
    packer.push_head(&Frame::KeepAlive).expect("short");
    let error = packer.push_head(&request(1, &[b'n'; 56], 0, 1)).expect_err("too long");
    assert_eq!(error, HeadTooLong { head_bytes: 65, packet_bytes: packet_len(64) });
    packer.push_head(&request(1, &[b'n'; 55], 0, 1)).expect("as long as a packet");
    packer.finish();
    assert_eq!((packer.packets(), expand(&packer, 0).len()), (2, 128));
}

#[test]
#[should_panic(expected = "the data of a frame comes before the next frame")]
fn no_head_is_laid_out_within_data() {
    let mut packer = Packer::new(packet_len(64));
    packer.push_head(&begin(0, 10)).expect("short");
    packer.push_data(ByteCount(9));
    let _ = packer.push_head(&Frame::KeepAlive);
}

#[test]
#[should_panic(expected = "a train ends where a packet ends")]
fn no_packet_is_padded_within_data() {
    let mut packer = Packer::new(packet_len(64));
    packer.push_head(&begin(0, 10)).expect("short");
    packer.push_data(ByteCount(9));
    packer.finish();
}

/// What gets bytes further into the grammar than chance alone would.
const PIECES: [&[u8]; 8] = [b"M:", b"N:", b"B:1:0:9:01234567:", b"I:", b"1:", b":", b"R:1:", b"a:"];

/// N, the shortest and the odd ones more often than chance would have them.
fn packet_lens() -> impl Strategy<Value = usize> {
    prop_oneof![2 => 64..100_usize, 2 => 64..2000_usize, 1 => 2000..70_000_usize]
}

fn numbers() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(bits, shift)| bits >> shift)
}

fn begins(longest: u64) -> impl Strategy<Value = Frame> {
    (any::<u32>(), numbers(), 1..=longest, any::<u32>()).prop_map(|(id, offset, length, crc)| {
        let offset = offset % (limits::OBJECT_BYTES_MAX - limits::BLOCK_BYTES);
        // Moved back into one block where it would cross a boundary.
        let over = (offset % limits::BLOCK_BYTES + length).saturating_sub(limits::BLOCK_BYTES);
        Frame::Begin { id: RequestId(id), offset: Offset(offset - over), length: ByteCount(length), crc }
    })
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let names = prop::collection::vec(any::<u8>(), 1..30).prop_filter_map("no name", |b| ObjectName::new(&b).ok());
    let requests = (any::<u32>(), names, numbers(), numbers()).prop_map(|(id, name, offset, length)| {
        let offset = offset % limits::OBJECT_BYTES_MAX;
        let length = ByteCount(1 + length % (limits::OBJECT_BYTES_MAX - offset));
        Frame::Request { id: RequestId(id), name, offset: Offset(offset), length }
    });
    let ids = any::<u32>().prop_map(RequestId);
    let frame = prop_oneof![
        3 => requests,
        3 => begins(300),
        1 => begins(100_000),
        1 => ids.clone().prop_map(|id| Frame::Pending { id }),
        1 => (ids.clone(), prop::sample::select(&Refusal::ALL[..]))
            .prop_map(|(id, reason)| Frame::Refused { id, reason }),
        1 => ids.prop_map(|id| Frame::Cancel { id }),
        1 => Just(Frame::KeepAlive),
        1 => (numbers(), numbers()).prop_map(|(e, s)| Frame::Subscribe { epoch: Epoch(e), seq: Seq(s) }),
        1 => (numbers(), numbers(), 1..5000_u64, any::<u32>()).prop_map(|(e, s, length, crc)| {
            Frame::News { epoch: Epoch(e), seq: Seq(s), length: ByteCount(length), crc }
        }),
        1 => (numbers(), numbers(), any::<u32>())
            .prop_map(|(e, s, origin)| Frame::Whole { epoch: Epoch(e), seq: Seq(s), origin }),
    ];
    prop::collection::vec(frame, 0..25)
}

/// Lays `frames` out into trains of at most `packets_max` packets, and checks this bound.
fn lay_out(frames: &[Frame], n: usize, packets_max: usize, fill: u8) -> Vec<u8> {
    let mut packer = Packer::new(packet_len(n));
    let mut stream = Vec::new();
    let mut ship = |packer: &mut Packer| {
        packer.finish();
        assert!(packer.packets() <= packets_max, "{packer:?}");
        let train = expand(packer, fill);
        assert_eq!(train.len(), packer.packets() * n);
        stream.extend_from_slice(&train);
        packer.start();
    };
    for frame in frames {
        if packer.packets() == packets_max && frame.encoded_len() > packer.room_in_packet() {
            ship(&mut packer);
        }
        packer.push_head(frame).expect("filtered");
        while packer.remaining().0 > 0 {
            match packer.data_room(packets_max) {
                ByteCount(0) => ship(&mut packer),
                room => {
                    // In two steps, which may meet anywhere.
                    packer.push_data(ByteCount(room.0 / 3));
                    packer.push_data(ByteCount(room.0 - room.0 / 3));
                }
            }
        }
    }
    ship(&mut packer);
    stream
}

proptest! {
    #[test]
    fn what_is_laid_out_is_read(
        n in packet_lens(), mut frames in frames(), packets_max in 1..60_usize,
        cuts in prop::collection::vec(1..40_usize, 1..10), fill: u8,
    ) {
        frames.retain(|frame| frame.encoded_len() <= n);
        let stream = lay_out(&frames, n, packets_max, fill);

        let mut reader = Reader::new(packet_len(n));
        let mut expected = frames.iter();
        let mut open: Option<(DataOf, Offset, ByteCount)> = None;
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while at < stream.len() {
            let train = &stream[at..stream.len().min(at + n * cuts.next().expect("a cycle"))];
            at += train.len();
            let (items, error) = read(&mut reader, train);
            prop_assert_eq!(error, None);
            prop_assert_eq!(reader.consumed(), train.len());
            for item in items {
                match item {
                    Item::Frame(frame) => {
                        prop_assert_eq!(open, None);
                        open = frame.data();
                        prop_assert_eq!(Some(&frame), expected.next());
                    }
                    Item::Data(data) => {
                        let (of, offset, remaining) = open.expect("data is announced");
                        prop_assert_eq!((data.of, data.offset), (of, offset));
                        let bytes: Vec<u8> = data.pieces().flat_map(|piece| &train[piece]).copied().collect();
                        prop_assert_eq!(bytes.len(), data.length);
                        let end = offset.0 + data.length as u64;
                        prop_assert!(bytes.into_iter().eq((offset.0..end).map(content)));
                        open = Some((of, Offset(end), remaining - ByteCount(data.length as u64)));
                    }
                    Item::DataEnd(of) => {
                        let (open_of, _, remaining) = open.take().expect("data is announced");
                        prop_assert_eq!((open_of, remaining), (of, ByteCount(0)));
                    }
                }
            }
        }
        prop_assert_eq!((expected.next(), open), (None, None));
    }

    #[test]
    fn any_bytes_are_read_or_refused_within_their_packet(
        n in 64..100_usize,
        pieces in prop::collection::vec(prop_oneof![
            6 => frames().prop_map(|frames| {
                let mut bytes = Vec::new();
                frames.iter().take(3).for_each(|frame| frame.encode(&mut bytes));
                bytes
            }),
            4 => prop::sample::select(&PIECES[..]).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 0..200),
        ], 0..40),
        cut in 1..5_usize,
    ) {
        let stream = pieces.concat();
        let mut reader = Reader::new(packet_len(n));
        'trains: for train in stream.chunks(cut * n) {
            reader.start();
            let mut consumed = 0;
            loop {
                match reader.next(train) {
                    Ok(None) => break,
                    Ok(Some(Item::Data(data))) => {
                        let last = data.pieces().last().expect("at least one byte");
                        prop_assert!(data.length > 0 && !last.is_empty() && last.end <= train.len() / n * n);
                    }
                    Ok(Some(_)) => {}
                    Err(error) => {
                        let (position, found) = match &error {
                            FrameError::Unexpected { position, found, .. } => (position, found),
                            FrameError::Name { position, found, .. } => (position, found),
                        };
                        let packet = &train[error.packet_at()..error.packet_at() + n];
                        prop_assert!(packet[*position..].starts_with(found.as_bytes()));
                        prop_assert!(error.to_string().len() < 300);
                        prop_assert_eq!(reader.next(train), Err(error));
                        break 'trains;
                    }
                }
                prop_assert!(reader.consumed() >= consumed && reader.consumed() <= train.len());
                consumed = reader.consumed();
            }
            prop_assert_eq!(reader.consumed(), train.len() / n * n);
        }
    }
}
