//! The session codec held against its bytes: every message drawn, every bit flipped, anything read.

use proptest::prelude::*;

use super::file_info::parse_decimal;
use super::*;
use crate::units::{ByteCount, Entry, FileTime, Kind, Owner, Root256, TreePath, Xattr};

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).expect("it fits");
    bytes
}

/// A message of `kind` with this payload, whatever it is, and the right checksum.
fn sealed(kind: MessageKind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind.code(), 0, 0, 0, 0];
    if kind.form() == Form::Variable {
        bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    bytes.extend_from_slice(payload);
    let crc = checksum(&bytes);
    bytes[1..5].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn run(first: u32, count: u32) -> BlockRun {
    BlockRun::new(BlockSeq(first), count).expect("a run")
}

fn list<T: Item>(items: &[T]) -> ListBuf<T> {
    let mut list = ListBuf::new();
    assert!(items.iter().all(|item| list.push(*item)));
    list
}

const INFO: FileInfo<'static> = FileInfo {
    file: FileId(1),
    mode: 0o100_644,
    size: ByteCount(0x0102_0304_0506),
    ctime: FileTime(1_000_000_000),
    mtime: FileTime(2_000_000_000),
    atime: FileTime(3_000_000_000),
    path: b"a/b",
    ..FileInfo::empty()
};
/// What [`INFO`] is on the wire, but for its attributes.
const INFO_BYTES: &[u8] = b"\0\x01\x81\xa4\x01\x02\x03\x04\x05\x06\0\0\0\x01\0\0\0\x02\0\0\0\x03a/b";

#[test]
fn messages_are_these_bytes() {
    let check = |message: Message<'_>, kind: MessageKind, payload: &[u8]| {
        let bytes = encoded(&message);
        assert_eq!(bytes.escape_ascii().to_string(), sealed(kind, payload).escape_ascii().to_string());
        assert_eq!(message.kind(), kind);
        assert_eq!(read(&bytes), Ok(Some((Read::Message(message), bytes.len()))));
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), Ok(None), "{message:?} cut to {length} bytes");
        }
    };
    let command = Command { options: b"version=1\0block=512", path: b"dir/\xff" };
    check(Message::Pull(command), MessageKind::Pull, b"\0\x13version=1\0block=512dir/\xff");
    check(Message::Push(command), MessageKind::Push, b"\0\x13version=1\0block=512dir/\xff");
    check(Message::Push(Command { options: b"", path: b"" }), MessageKind::Push, b"\0\0");
    check(Message::Retransmit(Again::Block(BlockSeq(7))), MessageKind::Retransmit, b"\x08\0\0\0\x07");
    let again = Again::Control { kind: MessageKind::FileInfo, number: MessageNumber(0x0102_0304) };
    check(Message::Retransmit(again), MessageKind::Retransmit, b"\x04\x01\x02\x03\x04");
    check(Message::FileInfo(INFO), MessageKind::FileInfo, INFO_BYTES);
    check(Message::Session(SessionId(0x0102)), MessageKind::Session, b"\x01\x02");
    check(Message::FileCount(65_535), MessageKind::FileCount, b"\xff\xff");
    check(Message::Ready, MessageKind::Ready, b"");
    let data = Message::Data { file: FileId(0x0102), seq: BlockSeq(0x0304_0506), data: b"data" };
    check(data, MessageKind::Data, b"\x01\x02\x03\x04\x05\x06data");
    let runs = list(&[run(0, 1), run(5, u32::MAX - 5)]);
    check(Message::Have(runs.as_list()), MessageKind::Have, b"\0\0\0\0\0\0\0\x01\0\0\0\x05\xff\xff\xff\xfa");
    check(Message::Have(RunsBuf::new().as_list()), MessageKind::Have, b"");
    check(Message::Hole(run(u32::MAX - 1, 1)), MessageKind::Hole, b"\xff\xff\xff\xfe\0\0\0\x01");
    check(Message::Done(Round(3)), MessageKind::Done, b"\0\0\0\x03");
    check(Message::Missing(runs.as_list()), MessageKind::Missing, b"\0\0\0\0\0\0\0\x01\0\0\0\x05\xff\xff\xff\xfa");
    check(Message::Verify, MessageKind::Verify, b"");
    let error = Message::Error { code: ErrorCode::NOT_FOUND, text: "n\u{f6}" };
    check(error, MessageKind::Error, b"\0\x04n\xc3\xb6");
    check(Message::Failed { file: FileId(9), text: "" }, MessageKind::Failed, b"\0\x09");
    let ready = encoded(&Message::Ready);
    let resent = Message::Resent { number: MessageNumber(2), message: &ready };
    check(resent, MessageKind::Resent, &[b"\0\0\0\x02", &ready[..]].concat());
    check(Message::Control { next: MessageNumber(1) }, MessageKind::Control, b"\0\0\0\x01");
    check(Message::KeepAlive, MessageKind::KeepAlive, b"");
    let change = |file, what| FileChange { file: FileId(file), what };
    let changes = list(&[change(0, What::New), change(1, What::Content), change(0x0203, What::Attributes)]);
    check(Message::Change(changes.as_list()), MessageKind::Change, b"\0\0\x01\0\x01\x02\x02\x03\x03");
    check(Message::Deleted { path: b"a\xff" }, MessageKind::Deleted, b"a\xff");
    let left_out = Message::LeftOut { is_failure: true, path: b"a\xff", text: "n\u{f6}" };
    check(left_out, MessageKind::LeftOut, b"\x01\0\x02a\xffn\xc3\xb6");
    check(Message::LeftOut { is_failure: false, path: b"", text: "" }, MessageKind::LeftOut, b"\0\0\0");
}

#[test]
fn a_checksum_is_of_type_length_and_payload() {
    let crc = crc32c(b"\x05\x01\x02").to_be_bytes();
    assert_eq!(encoded(&Message::Session(SessionId(0x0102))), [&[5], &crc[..], &[1, 2]].concat());
    let crc = crc32c(b"\x14\0\x01a").to_be_bytes();
    assert_eq!(encoded(&Message::Deleted { path: b"a" }), [&[0x14], &crc[..], b"\0\x01a"].concat());
    // The standard's check value, so that no other CRC is meant.
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
}

#[test]
fn attributes_are_these_bytes() {
    let check = |info: FileInfo<'_>, attributes: &[u8]| {
        let bytes = encoded(&Message::FileInfo(info));
        assert_eq!(bytes[VARIABLE_HEAD_BYTES + 22..].escape_ascii().to_string(), attributes.escape_ascii().to_string());
        assert_eq!(read(&bytes), Ok(Some((Read::Message(Message::FileInfo(info)), bytes.len()))));
    };
    let time = |seconds: i64, nanoseconds| FileTime::new(seconds, nanoseconds);
    check(FileInfo { path: b"", ..INFO }, b"");
    check(FileInfo { mtime: time(2, 5), atime: time(3, 999_999_999), ..INFO }, b"a/b\0mtime_ns=5\0atime_ns=999999999");
    check(FileInfo { ctime: time(u32::MAX.into(), 1), ..INFO }, b"a/b\0ctime_ns=1");
    check(FileInfo { mtime: time(1 << 32, 0), ..INFO }, b"a/b\0mtime=4294967296");
    check(FileInfo { mtime: time(-1, 7), ctime: time(-5, 0), ..INFO }, b"a/b\0mtime=-1\0mtime_ns=7\0ctime=-5");
    check(FileInfo { atime: FileTime(i64::MIN), ..INFO }, b"a/b\0atime=-9223372037\0atime_ns=145224192");
    check(FileInfo { atime: FileTime(i64::MAX), ..INFO }, b"a/b\0atime=9223372036\0atime_ns=854775807");
    check(FileInfo { target: Some(b"../x=\xff"), ..INFO }, b"a/b\0target=../x=\xff");
    check(FileInfo { link: Some(b"c=d"), ..INFO }, b"a/b\0link=c=d");
    check(FileInfo { uid: Some(0), gid: Some(u32::MAX), ..INFO }, b"a/b\0uid=0\0gid=4294967295");
    check(FileInfo { user: Some("n\u{f6}"), group: Some("g"), ..INFO }, b"a/b\0user=n\xc3\xb6\0group=g");
    let digits = [b"a/b\0hash=", b"0af".as_slice(), &[b'f'; 61]].concat();
    let hash = Root256::from_hex(&digits[9..]);
    assert!(hash.is_some());
    check(FileInfo { hash, ..INFO }, &digits);
    check(FileInfo { is_sparse: true, ..INFO }, b"a/b\0sparse=1");
    check(FileInfo { unreadable: Some("n\u{f6}"), ..INFO }, b"a/b\0unreadable=n\xc3\xb6");
    let xattrs = [xattr(b"user.a=%\n", b"\0v=%41\xff"), xattr(b"user.b", b"")];
    let xattrs = Xattrs::new(&xattrs);
    check(FileInfo { xattrs, ..INFO }, b"a/b\0x.user.a%3D%25\n=%00v%3D%2541\xff\0x.user.b=");
}

#[test]
fn unknown_attributes_are_passed_over() {
    let check = |attributes: &[u8], expected: FileInfo<'_>| {
        let bytes = sealed(MessageKind::FileInfo, &[INFO_BYTES, attributes].concat());
        assert_eq!(read(&bytes), Ok(Some((Read::Message(Message::FileInfo(expected)), bytes.len()))));
    };
    check(b"\0new=1\0=\0x=y\0mtime_nsx=z", INFO);
    check(b"\0sparse=1\0new=\0sparse=0", INFO);
    check(b"\0mtime_ns=1\0mtime_ns=000000002", FileInfo { mtime: FileTime(2_000_000_002), ..INFO });
    check(b"\0mtime=-0", FileInfo { mtime: FileTime(0), ..INFO });
    let (a, b) = (xattr(b"a", b"="), xattr(b"b", b"%"));
    check(b"\0x.a==\0new=1\0x.b=%25", FileInfo { xattrs: Xattrs::new(&[a, b]), ..INFO });
}

#[test]
fn what_its_sender_made_wrong_is_refused_where_it_goes_wrong() {
    let check = |kind: MessageKind, payload: &[u8], position: usize, expected: Expected| {
        let bytes = sealed(kind, payload);
        let head_bytes = bytes.len() - payload.len();
        let (position, found) = (head_bytes + position, Excerpt::of(payload, position));
        let error = WireError::Malformed { kind, position, expected, found };
        assert_eq!(read(&bytes), Err(error), "{kind} {}", payload.escape_ascii());
    };
    for kind in [MessageKind::Pull, MessageKind::Push] {
        check(kind, b"", 0, Expected::Options);
        check(kind, b"\0", 0, Expected::Options);
        check(kind, b"\0\x03ab", 0, Expected::Options);
    }
    for cmd in [0, 0x16, 0xff] {
        check(MessageKind::Retransmit, &[cmd, 0, 0, 0, 0], 0, Expected::Kind);
    }
    for payload in [&b""[..], b"\x01\0", b"\x02\0\0", b"\0\0\x02a"] {
        check(MessageKind::LeftOut, payload, 0, Expected::Path);
    }
    check(MessageKind::LeftOut, b"\0\0\x01a\xff", 4, Expected::Text);
    check(MessageKind::Data, b"", 0, Expected::Head);
    check(MessageKind::Data, b"\0\0\0\0\0", 0, Expected::Head);
    check(MessageKind::Data, b"\0\0\0\0\0\0", 6, Expected::Data);
    for kind in [MessageKind::Have, MessageKind::Missing] {
        check(kind, b"\0\0\0\0\0\0\0", 0, Expected::Runs);
        check(kind, b"\0\0\0\0\0\0\0\x01\0", 8, Expected::Runs);
        check(kind, b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0", 8, Expected::Runs);
        check(kind, b"\0\0\0\x01\xff\xff\xff\xfe\0\0\0\x01\xff\xff\xff\xff", 8, Expected::Runs);
    }
    check(MessageKind::Hole, b"\0\0\0\0\0\0\0\0", 0, Expected::Runs);
    check(MessageKind::Hole, b"\xff\xff\xff\xff\0\0\0\x01", 0, Expected::Runs);
    check(MessageKind::Error, b"\0", 0, Expected::Head);
    check(MessageKind::Error, b"\0\0\xff", 2, Expected::Text);
    check(MessageKind::Failed, b"", 0, Expected::Head);
    check(MessageKind::Failed, b"\0\0ab\xc3", 2, Expected::Text);
    check(MessageKind::Change, b"\0\0", 0, Expected::Changes);
    check(MessageKind::Change, b"\0\0\x01\0\0\x04", 3, Expected::Changes);
    check(MessageKind::Change, b"\0\0\0", 0, Expected::Changes);
    check(MessageKind::Resent, b"\0\0\0", 0, Expected::Head);
    for message in
        [Message::KeepAlive, Message::Resent { number: MessageNumber(0), message: &encoded(&Message::Ready) }]
    {
        let inner = encoded(&message);
        check(MessageKind::Resent, &[&[0; 4], &inner[..]].concat(), 4, Expected::ControlMessage);
    }
    let ready = encoded(&Message::Ready);
    check(MessageKind::Resent, &[0; 4], 4, Expected::ControlMessage);
    check(MessageKind::Resent, &[&[0; 4], &ready[..4]].concat(), 4, Expected::ControlMessage);
    check(MessageKind::Resent, &[&[0; 4], &ready[..], &[0]].concat(), 4, Expected::ControlMessage);
    check(MessageKind::FileInfo, &INFO_BYTES[..21], 0, Expected::Head);
}

#[test]
fn malformed_attributes_are_refused_where_they_go_wrong() {
    let check = |attribute: &[u8], offset: usize, expected: Expected| {
        let payload = [INFO_BYTES, b"\0new=1\0", attribute, b"\0sparse=1"].concat();
        let bytes = sealed(MessageKind::FileInfo, &payload);
        let position = VARIABLE_HEAD_BYTES + INFO_BYTES.len() + 7 + offset;
        let error = WireError::Malformed {
            kind: MessageKind::FileInfo,
            position,
            expected,
            found: Excerpt::of(&bytes, position),
        };
        assert_eq!(read(&bytes), Err(error), "{}", attribute.escape_ascii());
    };
    check(b"", 0, Expected::Attribute);
    check(b"sparse", 0, Expected::Attribute);
    for wrong in [&b""[..], b"1000000000", b"-1", b"+1", b"1 ", b"000000000000000000001"] {
        check(&[b"mtime_ns=", wrong].concat(), 9, Expected::Nanoseconds);
    }
    for wrong in [&b""[..], b"-", b"--1", b"1.5", b"9223372037", b"-9223372038", b"18446744073709551615"] {
        check(&[b"ctime=", wrong].concat(), 6, Expected::Seconds);
    }
    check(b"uid=4294967296", 4, Expected::Owner);
    check(b"gid=", 4, Expected::Owner);
    check(b"user=\xff", 5, Expected::OwnerName);
    check(b"group=\xc3", 6, Expected::OwnerName);
    check(b"hash=00", 5, Expected::Hash);
    check(&[b"hash=", &[b'g'; 64][..]].concat(), 5, Expected::Hash);
    check(b"sparse=2", 7, Expected::Flag);
    check(b"x.=", 2, Expected::XattrName);
    check(b"x.a%00b=", 2, Expected::XattrName);
    check(&[b"x.", &[b'n'; 256][..], b"="].concat(), 2, Expected::XattrName);
    check(b"x.a%4=", 3, Expected::Escape);
    check(b"x.a=%20%", 7, Expected::Escape);
    check(b"x.a=ab%%41", 6, Expected::Escape);
    check(b"x.a=%zz", 4, Expected::Escape);
    check(b"x.a", 0, Expected::Attribute);
}

#[test]
fn a_time_too_late_for_a_file_is_refused() {
    let bytes = sealed(MessageKind::FileInfo, &[INFO_BYTES, b"\0mtime=9223372036\0mtime_ns=854775808"].concat());
    assert!(matches!(read(&bytes), Err(WireError::Malformed { expected: Expected::Seconds, .. })));
}

#[test]
fn bytes_that_are_no_type_end_the_connection() {
    for code in (0..=u8::MAX).filter(|code| *code == 0 || *code > 0x15) {
        assert_eq!(read(&[code]), Err(WireError::UnknownType { position: 0, found: code }));
        assert_eq!(MessageKind::from_code(code), None);
    }
    let error = read(b"GET / HTTP/1.1").expect_err("no message");
    assert_eq!(error.to_string(), "malformed message at byte 0: expected a type of 0x01 to 0x15, found 0x47");
    for (code, kind) in (1..).zip(MessageKind::ALL) {
        assert_eq!((MessageKind::from_code(code), kind.code()), (Some(kind), code));
    }
}

#[test]
fn errors_say_what_where_and_what_instead() {
    let check = |kind, payload: &[u8], expected: &str| {
        assert_eq!(read(&sealed(kind, payload)).expect_err("malformed").to_string(), expected);
    };
    check(
        MessageKind::FileInfo,
        &[INFO_BYTES, b"\0mtime_ns=x"].concat(),
        r#"malformed FILE_INFO at byte 42: expected 0 to 999999999 nanoseconds, found "x""#,
    );
    check(
        MessageKind::Resent,
        b"\0\0\0\0\x04",
        r#"malformed RESENT at byte 11: expected one whole control message, found "\x04""#,
    );
}

#[test]
fn no_flipped_bit_makes_another_message() {
    let xattrs = [xattr(b"user.a", b"\0")];
    let info = FileInfo { mtime: FileTime(-5), xattrs: Xattrs::new(&xattrs), ..INFO };
    let data = [0x5a; 40];
    let runs = list(&[run(0, 1), run(5, 6)]);
    let ready = encoded(&Message::Ready);
    let messages = [
        Message::Pull(Command { options: b"block=512", path: b"p" }),
        Message::Retransmit(Again::Block(BlockSeq(1))),
        Message::FileInfo(info),
        Message::Session(SessionId(1)),
        Message::FileCount(0),
        Message::Ready,
        Message::Data { file: FileId(1), seq: BlockSeq(2), data: &data },
        Message::Have(runs.as_list()),
        Message::Hole(run(1, 2)),
        Message::Done(Round(0)),
        Message::Verify,
        Message::Error { code: ErrorCode::STORE, text: "full" },
        Message::Resent { number: MessageNumber(1), message: &ready },
        Message::KeepAlive,
        Message::Deleted { path: b"" },
        Message::LeftOut { is_failure: true, path: b"p", text: "why" },
    ];
    // What follows in the stream must not help.
    let next = encoded(&Message::Data { file: FileId(0), seq: BlockSeq(0), data: &[0; 64] });
    for message in messages {
        let bytes = encoded(&message);
        let stream = [&bytes[..], &next].concat();
        for bit in 0..8 * bytes.len() {
            let mut flipped = stream.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = read(&flipped);
            let is_noticed =
                matches!(found, Ok(None | Some((Read::Damaged { .. }, _))) | Err(WireError::UnknownType { .. }));
            assert!(is_noticed, "{message:?} with bit {bit} flipped: {found:?}");
        }
    }
}

#[test]
fn a_damaged_block_tells_which_one_it_seems_to_be() {
    let mut bytes = encoded(&Message::Data { file: FileId(3), seq: BlockSeq(77), data: b"data" });
    let length = bytes.len();
    bytes[length - 1] ^= 1;
    let expected = Read::Damaged { kind: MessageKind::Data, block: Some((FileId(3), BlockSeq(77))) };
    assert_eq!(read(&bytes), Ok(Some((expected, length))));

    // One that is too short to tell, and others, tell nothing.
    let mut bytes = sealed(MessageKind::Data, b"\0\0\0\0\0");
    bytes[1] ^= 1;
    assert_eq!(read(&bytes), Ok(Some((Read::Damaged { kind: MessageKind::Data, block: None }, 12))));
    let mut bytes = encoded(&Message::FileInfo(INFO));
    bytes[20] ^= 1;
    let expected = Read::Damaged { kind: MessageKind::FileInfo, block: None };
    assert_eq!(read(&bytes), Ok(Some((expected, bytes.len()))));
}

#[test]
fn the_head_of_a_block_is_the_message_without_its_data() {
    for data_bytes in [1, 2, 511, 61_440, limits::SESSION_DATA_BYTES_MAX] {
        let data: Vec<u8> = (0..data_bytes).map(|i| (i % 251) as u8).collect();
        let (file, seq) = (FileId(7), BlockSeq(9));
        let whole = encoded(&Message::Data { file, seq, data: &data });
        assert_eq!([&data_head(file, seq, &data)[..], &data].concat(), whole);
    }
}

#[test]
fn the_longest_messages_are_read_and_longer_ones_not_written() {
    let data = vec![1; limits::SESSION_DATA_BYTES_MAX + 1];
    let (file, seq) = (FileId(1), BlockSeq(1));
    let longest = encoded(&Message::Data { file, seq, data: &data[1..] });
    assert_eq!(longest.len(), limits::SESSION_MESSAGE_BYTES_MAX);
    assert!(matches!(read(&longest), Ok(Some((Read::Message(Message::Data { .. }), _)))));

    let check = |message: Message<'_>, bytes: usize, max: usize| {
        let mut out = b"kept".to_vec();
        let expected = EncodeError::TooLong { kind: message.kind(), bytes, max };
        assert_eq!(encode(&message, &mut out), Err(expected));
        assert_eq!(out, b"kept");
    };
    check(Message::Data { file, seq, data: &data }, 65_536, 65_535);
    check(Message::Deleted { path: &data[..65_525] }, 65_525, limits::SESSION_CONTROL_BYTES_MAX);
    check(
        Message::FileInfo(FileInfo { target: Some(&data[..65_500]), ..INFO }),
        65_533,
        limits::SESSION_CONTROL_BYTES_MAX,
    );
    check(Message::Push(Command { options: &[0; 4], path: &data }), 65_536, 65_535);
    check(Message::Pull(Command { options: &[0; 65_536], path: b"" }), 65_536, limits::SESSION_OPTIONS_BYTES_MAX);

    // The longest control message fits into another one.
    let control = encoded(&Message::Deleted { path: &data[..limits::SESSION_CONTROL_BYTES_MAX] });
    let resent = encoded(&Message::Resent { number: MessageNumber(0), message: &control });
    assert_eq!(resent.len(), limits::SESSION_MESSAGE_BYTES_MAX);

    let refused = |info| encode(&Message::FileInfo(info), &mut Vec::new());
    let size = ByteCount(1 << 48);
    assert_eq!(refused(FileInfo { size, ..INFO }), Err(EncodeError::Size { bytes: 1 << 48 }));
    assert_eq!(refused(FileInfo { path: b"a\0b", ..INFO }), Err(EncodeError::Nul { attribute: "path" }));
    assert_eq!(refused(FileInfo { user: Some("\0"), ..INFO }), Err(EncodeError::Nul { attribute: "user" }));
}

#[test]
fn long_texts_are_cut_between_characters() {
    let text = "\u{20ac}".repeat(2000);
    let bytes = encoded(&Message::Failed { file: FileId(0), text: &text });
    let Ok(Some((Read::Message(Message::Failed { text: sent, .. }), _))) = read(&bytes) else {
        panic!("a text that is cut is still text");
    };
    assert_eq!(sent, "\u{20ac}".repeat(1365));
}

#[test]
fn lists_end_where_a_message_does() {
    let mut runs = RunsBuf::new();
    let mut pushed = 0;
    while runs.push(run(pushed, 1)) {
        pushed += 1;
    }
    assert_eq!((pushed, runs.is_full(), RunsBuf::ITEMS_MAX), (8190, true, 8190));
    let bytes = encoded(&Message::Missing(runs.as_list()));
    let Ok(Some((Read::Message(Message::Missing(read)), _))) = read(&bytes) else { panic!("a full list is one") };
    assert_eq!((read.len(), read.iter().last()), (8190, Some(run(8189, 1))));
    runs.clear();
    assert!(runs.is_empty() && runs.push(run(0, 1)));

    assert_eq!(ChangesBuf::ITEMS_MAX, 21_841);
    assert_eq!(run(5, u32::MAX - 5).blocks(), 5..u32::MAX);
    assert_eq!((BlockRun::new(BlockSeq(1), 0), BlockRun::new(BlockSeq(1), u32::MAX)), (None, None));
    assert_eq!((BlockRun::of(3..3), BlockRun::of(3..5)), (None, Some(run(3, 2))));
}

// -- entries -----------------------------------------------------------------------------------------------------

#[test]
fn only_what_can_be_written_is_an_entry() {
    let check = |info: FileInfo<'_>, expected: &str| {
        let found = info.to_entry().expect_err("refused").to_string();
        assert_eq!(found, expected);
    };
    let nothing = ByteCount(0);
    let link = FileInfo { size: nothing, link: Some(b"other"), ..INFO };
    check(
        FileInfo { path: b"../a", ..INFO },
        r#"file 1: "../a" is no path of an entry: the path has a '.' or '..' component"#,
    );
    check(
        FileInfo { path: b"/etc/passwd", ..INFO },
        r#"file 1: "/etc/passwd" is no path of an entry: the path is absolute"#,
    );
    check(
        FileInfo { link: Some(b"a//b"), ..link },
        r#"file 1: a hard link to "a//b", which is no path of an entry: the path has an empty component"#,
    );
    check(FileInfo { mode: 0o040_755, ..link }, "file 1: a hard link that is no regular file");
    check(FileInfo { mode: 0o120_777, target: Some(b"t"), ..link }, "file 1: a hard link that is no regular file");
    check(FileInfo { link: Some(b""), ..link }, "file 1: a hard link that is no regular file");
    check(FileInfo { target: Some(b"t"), ..link }, "file 1: a hard link that is no regular file");
    for mode in [0o060_600, 0o020_600, 0o010_600, 0o140_600, 0o170_600] {
        let expected =
            format!("file 1: mode {mode:06o} is neither a regular file's, a directory's nor a symbolic link's");
        check(FileInfo { mode, ..INFO }, &expected);
    }
    let symlink = FileInfo { mode: 0o120_777, size: nothing, ..INFO };
    check(symlink, "file 1: a symbolic link says 1 to 4095 bytes, this one 0");
    check(
        FileInfo { target: Some(&[b'a'; 4096]), ..symlink },
        "file 1: a symbolic link says 1 to 4095 bytes, this one 4096",
    );
    check(
        FileInfo { mode: 0o040_755, size: ByteCount(4096), ..INFO },
        "file 1: 4096 bytes of content in what is no regular file of its own",
    );
    check(FileInfo { uid: Some(0), ..INFO }, "file 1: uid and gid come together");
    check(FileInfo { gid: Some(0), ..INFO }, "file 1: uid and gid come together");

    // A seed's perm tells nothing but permissions.
    let plain = FileInfo { mode: 0o644, ..INFO }.to_entry().expect("a file");
    assert_eq!((plain.kind, plain.mode), (Kind::File, 0o644));
}

// -- options -----------------------------------------------------------------------------------------------------

#[test]
fn options_are_these_bytes() {
    let check = |options: Options, bytes: &[u8]| {
        assert_eq!(options.encode().expect("it fits").escape_ascii().to_string(), bytes.escape_ascii().to_string());
        assert_eq!(Options::parse(bytes), Ok(options));
    };
    check(Options::default(), b"version=1\0block=61440");
    let all = Options {
        version: 2,
        block: 512,
        delete: true,
        checksum: true,
        dry_run: true,
        xattrs: true,
        numeric_ids: true,
        resume: false,
        bwlimit: Some(ByteCount(u64::MAX)),
        fsync: true,
        left_out: true,
        rules: vec![Box::from(&b"*.o"[..]), Box::from(&b"!a=b\xff"[..]), Box::from(&b""[..])],
    };
    check(
        all,
        b"version=2\0block=512\0delete=1\0checksum=1\0dry_run=1\0xattrs=1\0numeric_ids=1\0fsync=1\0left_out=1\0resume=0\
        \0bwlimit=18446744073709551615\0rule=*.o\0rule=!a=b\xff\0rule=",
    );
}

#[test]
fn options_that_are_not_told_are_as_they_are() {
    for bytes in [&b""[..], b"\0", b"new=1", b"new=1\0=x\0\xff=\0delete=1\0delete=0"] {
        assert_eq!(Options::parse(bytes), Ok(Options::default()), "{}", bytes.escape_ascii());
    }
}

#[test]
fn malformed_options_are_refused_by_name() {
    let check = |bytes: &[u8], expected: &str| {
        assert_eq!(Options::parse(bytes).expect_err("malformed").to_string(), expected);
    };
    check(b"delete", r#"expected an option, key=value, found "delete""#);
    check(b"version=0", r#"option version: expected a version of 1 to 65535, found "0""#);
    check(b"version=65536", r#"option version: expected a version of 1 to 65535, found "65536""#);
    check(b"block=511", r#"option block: expected 512 to 65529 bytes, found "511""#);
    check(b"block=65530", r#"option block: expected 512 to 65529 bytes, found "65530""#);
    check(b"block=", "option block: expected 512 to 65529 bytes, found the end of the packet");
    check(b"bwlimit=0", r#"option bwlimit: expected bytes a second, at least 1, found "0""#);
    check(b"bwlimit=1MB", r#"option bwlimit: expected bytes a second, at least 1, found "1MB""#);
    for key in ["delete", "checksum", "dry_run", "xattrs", "numeric_ids", "resume", "fsync", "left_out"] {
        let expected = format!("option {key}: expected 0 or 1, found \"yes\"");
        check(format!("{key}=yes").as_bytes(), &expected);
    }
    check(&b"rule=a\0".repeat(1025), "more than 1024 rules");
    check(&[0; 57_345], "57345 bytes of options, more than the 57344 that fit");
}

#[test]
fn options_that_nobody_would_take_are_not_written() {
    let check = |options: Options, expected: &str| {
        assert_eq!(options.encode().expect_err("refused").to_string(), expected);
    };
    let base = Options::default;
    check(Options { version: 0, ..base() }, r#"option version: expected a version of 1 to 65535, found "0""#);
    check(Options { block: 1, ..base() }, r#"option block: expected 512 to 65529 bytes, found "1""#);
    check(
        Options { bwlimit: Some(ByteCount(0)), ..base() },
        r#"option bwlimit: expected bytes a second, at least 1, found "0""#,
    );
    check(
        Options { rules: vec![Box::from([0])], ..base() },
        r#"option rule: expected a line without NUL, found "\x00""#,
    );
    check(Options { rules: vec![Box::from([]); 1025], ..base() }, "more than 1024 rules");
    check(
        Options { rules: vec![vec![b'a'; 1 << 16].into()], ..base() },
        "65563 bytes of options, more than the 57344 that fit",
    );
}

#[test]
fn decimals_are_digits_and_fit() {
    assert_eq!(parse_decimal(b"18446744073709551615"), Some(u64::MAX));
    assert_eq!(parse_decimal(b"00000000000000000007"), Some(7));
    for wrong in
        [&b""[..], b"18446744073709551616", b"99999999999999999999", b"000000000000000000007", b"1_0", b"0x1", b" 1"]
    {
        assert_eq!(parse_decimal(wrong), None, "{}", wrong.escape_ascii());
    }
}

// -- anything ----------------------------------------------------------------------------------------------------

fn xattr(name: &[u8], value: &[u8]) -> Xattr {
    (name.into(), value.into())
}

fn paths() -> impl Strategy<Value = TreePath> {
    let component = prop::collection::vec(any::<u8>(), 1..30);
    prop::collection::vec(component, 1..5)
        .prop_filter_map("no path", |components| TreePath::new(&components.join(&b'/')).ok())
}

fn entries() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        4 => Just(Kind::File),
        1 => Just(Kind::Directory),
        1 => prop::collection::vec(1_u8.., 1..50).prop_map(|target| Kind::Symlink(target.into())),
        1 => paths().prop_map(Kind::HardLink),
    ];
    let time = prop_oneof![any::<i64>(), 0..5_000_000_000_000_000_000_i64, Just(1_700_000_000_000_000_000_i64)];
    let times = (time.clone(), time.clone(), time).prop_map(|(a, b, c)| [a, b, c].map(FileTime));
    let name = prop::option::of("[^\0]{0,8}").prop_map(|name| name.map(String::into_boxed_str));
    let owner = (any::<u32>(), any::<u32>(), name.clone(), name);
    let owner = prop::option::of(owner.prop_map(|(uid, gid, user, group)| Owner { uid, gid, user, group }));
    let value = prop_oneof![prop::collection::vec(any::<u8>(), 0..20), "[%=\0a]{0,8}".prop_map(String::into_bytes)];
    let xattr = (prop::collection::vec(1_u8.., 1..20), value).prop_map(|(name, value)| xattr(&name, &value));
    let xattrs = prop::collection::vec(xattr, 0..3);
    let hash = prop::option::of(any::<[u8; 32]>().prop_map(Root256));
    let unreadable = prop::option::of("[^\0]{0,8}").prop_map(|text| text.map(String::into_boxed_str));
    let rest = (0..0o10000_u16, 0..1_u64 << 48, times, owner, xattrs, hash, any::<bool>(), unreadable);
    (paths(), kind, rest).prop_map(
        |(path, kind, (mode, size, [mtime, atime, ctime], owner, xattrs, hash, is_sparse, unreadable))| {
            let size = ByteCount(if kind == Kind::File { size } else { 0 });
            Entry { path, kind, mode, size, mtime, atime, ctime, owner, xattrs, hash, is_sparse, unreadable }
        },
    )
}

fn options() -> impl Strategy<Value = Options> {
    let rules = prop::collection::vec(prop::collection::vec(1_u8.., 0..20).prop_map(Into::into), 0..5);
    let bwlimit = prop::option::of((1_u64..).prop_map(ByteCount));
    (1_u16.., 512_u32..=65_529, any::<[bool; 8]>(), bwlimit, rules).prop_map(
        |(version, block, flags, bwlimit, rules)| {
            let [delete, checksum, dry_run, xattrs, numeric_ids, resume, fsync, left_out] = flags;
            let sizes = Options { version, block, bwlimit, rules, ..Options::default() };
            Options { delete, checksum, dry_run, xattrs, numeric_ids, resume, fsync, left_out, ..sizes }
        },
    )
}

/// Bytes that often are a message of some kind with a right checksum.
fn likely_messages() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        prop::collection::vec(0..3_u8, 0..60),
        "(\0?(mtime(_ns)?|x\\.a|uid|hash|sparse)=[-%0-9a]{0,4}){0,4}".prop_map(|attributes| [
            INFO_BYTES,
            attributes.as_bytes()
        ]
        .concat()),
    ];
    (prop::sample::select(&MessageKind::ALL[..]), payload).prop_map(|(kind, mut payload)| {
        if let Form::Fixed(bytes) = kind.form() {
            payload.resize(bytes, 1);
        }
        sealed(kind, &payload)
    })
}

proptest! {
    #[test]
    fn entries_come_back_as_they_were(entry in entries(), file: u16) {
        let info = FileInfo::of_entry(&entry, FileId(file));
        let bytes = encoded(&Message::FileInfo(info));
        let Ok(Some((Read::Message(Message::FileInfo(read)), length))) = read(&bytes) else {
            panic!("{:?}", read(&bytes));
        };
        prop_assert_eq!((read, length), (info, bytes.len()));
        prop_assert_eq!(read.file, FileId(file));
        prop_assert_eq!(read.to_entry(), Ok(entry));
    }

    #[test]
    fn options_come_back_as_they_were(options in options()) {
        let bytes = options.encode().expect("it fits");
        prop_assert_eq!(Options::parse(&bytes), Ok(options));
    }

    #[test]
    fn any_options_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(options) = Options::parse(&bytes) {
            let again = options.encode().expect("what was read can be written");
            prop_assert_eq!(Options::parse(&again), Ok(options));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..100), likely_messages()],
    ) {
        let Ok(Some((found, length))) = read(&bytes) else { return Ok(()) };
        prop_assert!(length <= bytes.len() && length >= FIXED_HEAD_BYTES);
        let Read::Message(message) = found else { return Ok(()) };
        if let Message::FileInfo(info) = message {
            // What an entry takes in memory is what came, and little more.
            if let Ok(entry) = info.to_entry() {
                let kept: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
                prop_assert!(kept + entry.path.as_bytes().len() <= length);
            }
        }
        // It is what it says: written again and read again it is the same.
        let again = encoded(&message);
        prop_assert_eq!(read(&again), Ok(Some((found, again.len()))));
        if !matches!(message, Message::FileInfo(_)) {
            prop_assert_eq!(&again[..], &bytes[..length]);
        }
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(cut in 0..200_usize) {
        let messages = [Message::FileInfo(INFO), Message::Ready, Message::Session(SessionId(1)), Message::FileInfo(INFO)];
        let stream: Vec<u8> = messages.iter().flat_map(encoded).collect();
        let mut at = 0;
        for message in messages {
            match read(&stream[at..cut.clamp(at, stream.len())]) {
                Ok(Some((Read::Message(found), length))) => {
                    prop_assert_eq!(found, message);
                    at += length;
                }
                found => {
                    prop_assert_eq!(found, Ok(None));
                    prop_assert!(at + encoded(&message).len() > cut);
                    break;
                }
            }
        }
        prop_assert!(at <= cut);
    }
}
