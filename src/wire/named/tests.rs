//! The seed's forms byte for byte, bytes that are no packets, and round trips.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn name(bytes: &[u8]) -> ObjectName {
    ObjectName::new(bytes).unwrap()
}

fn packet_len(bytes: u32) -> PacketLen {
    PacketLen::new(bytes).unwrap()
}

#[test]
fn packets_of_a_server_parse() {
    let check = |bytes: &[u8], expected: Packet| assert_eq!(parse(bytes), Ok(expected), "{}", bytes.escape_ascii());
    let file = || Some(name(b"file_ab3f33.bin"));
    check(b"B:file_ab3f33.bin:payload", Packet::Begin { name: file(), payload: 18..25 });
    check(b"M:file_ab3f33.bin:data", Packet::Middle { name: file(), payload: 18..22 });
    check(b"M:d/a%3Ab%25:", Packet::Middle { name: Some(name(b"d/a:b%")), payload: 13..13 });
    check(b"B::a\nb\n", Packet::Begin { name: None, payload: 3..7 });
    let end = |bytes: &[u8], end: End| check(bytes, Packet::End { name: Some(name(b"a")), end });
    end(b"E:a:24000000:\x01\x02", End::Whole(ByteCount(24_000_000)));
    end(b"E:a:0:", End::Whole(ByteCount(0)));
    end(b"E:a:9223372036854775807:", End::Whole(ByteCount(limits::OBJECT_BYTES_MAX)));
    end(b"E:a:-1:there is none:x:y", End::Refused("there is none".into()));
    end(b"E:a:-1::", End::Refused(String::new()));
    end(b"E:a:-1:no end", End::Refused(String::new()));
    end(b"E:a:-1:50%25%20of %C3%A4 %1b[0m\xff %zz:", End::Refused("50% of \u{e4} \u{fffd}[0m\u{fffd} %zz".into()));
    // What a server of the seed alone sends, padded in whatever way.
    end(b"E:a:", End::Untold);
    end(b"E:a:\0\0\0\0", End::Untold);
    end(b"E:a:12\0:", End::Untold);
    end(b"E:a:-2:", End::Untold);
    check(b"E::9:", Packet::End { name: None, end: End::Whole(ByteCount(9)) });
}

#[test]
fn what_is_no_packet_of_a_server_is_refused_where_it_goes_wrong() {
    let check = |bytes: &[u8], expected: &str| {
        let error = parse(bytes).expect_err("malformed").to_string();
        assert!(error.contains(expected), "{}: {error}", bytes.escape_ascii());
    };
    check(b"", "byte 0: expected one of B: M: E:");
    check(b"B", "byte 0: expected one of B: M: E:, found \"B\"");
    check(b"N:", "byte 0: expected one of B: M: E:");
    check(b"R:a:", "byte 0: expected one of B: M: E:");
    check(b"B:a", "byte 3: expected ':' after a name");
    check(b"B:../a:x", "byte 2: expected an object's name");
    check(b"M:/etc/passwd:x", "byte 2: expected an object's name");
    check(b"M:a\nb:x", "byte 3: expected a name");
    check(b"M:a%4:x", "byte 3: expected '%'");
    check(b"E:a:9223372036854775808:", "byte 4: expected a size of at most");
    check(b"E:a:99999999999999999999999:", "expected ':' after a size");
    let endless = [b"M:".to_vec(), vec![b'n'; limits::PACKET_BYTES_MAX as usize]].concat();
    check(&endless, "expected ':' after a name");
}

#[test]
fn requests_parse_and_names_that_leave_the_root_are_told_apart() {
    assert_eq!(parse_request(b"R::"), Ok(Request::Listing));
    assert_eq!(parse_request(b"R:file_ab3f33.bin:"), Ok(Request::Object(name(b"file_ab3f33.bin"))));
    assert_eq!(parse_request(b"R:a%3ab:\0\xff"), Ok(Request::Object(name(b"a:b"))));
    for bytes in [&b"R:../x:"[..], b"R:/etc/passwd:", b"R:a//b:", b"R:%2e%2e/x:", b"R:a%:", b"R:a\nb:", b"R:a%00:"] {
        match parse_request(bytes) {
            Ok(Request::NoObject { encoded, .. }) => assert_eq!(encoded, 2..bytes.len() - 1),
            other => panic!("{}: {other:?}", bytes.escape_ascii()),
        }
    }
    for bytes in [&b""[..], b"R", b"B:a:", b"r:a:", b"R:a", b"GET / HTTP/1.1\r\n"] {
        assert!(parse_request(bytes).is_err(), "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_goes_out_is_the_seeds_bytes() {
    let check = |encode: &dyn Fn(&mut Vec<u8>), expected: &[u8]| {
        let mut out = Vec::new();
        encode(&mut out);
        assert_eq!(out, expected, "{}", out.escape_ascii());
    };
    let odd = name(b"d/a:b%\x1f \xff");
    check(&|out| encode_request(out, Some(&odd)), b"R:d/a%3Ab%25%1F \xff:");
    check(&|out| encode_request(out, None), b"R::");
    check(&|out| encode_begin(out, Some(&odd)), b"B:d/a%3Ab%25%1F \xff:");
    check(&|out| encode_middle(out, None), b"M::");
    check(&|out| encode_end(out, Some(&odd), ByteCount(7)), b"E:d/a%3Ab%25%1F \xff:7:");
    check(&|out| encode_line(out, &name(b"a\nb")), b"a%0Ab\n");
    let refuse = |out: &mut Vec<u8>| assert!(encode_refusal(out, b"../x", "it: leaves\nthe root", packet_len(64)));
    check(&refuse, b"E:../x:-1:it  leaves the root:");
    assert_eq!(head_len(Some(&odd)), b"B:d/a%3Ab%25%1F \xff:".len());
}

#[test]
fn a_refusal_never_outgrows_its_packet() {
    for length in 0..80 {
        let encoded = vec![b'n'; length];
        let mut out = Vec::new();
        let fits = encode_refusal(&mut out, &encoded, &"\u{e4}".repeat(100), packet_len(64));
        assert_eq!(fits, length <= 57, "{length}");
        assert!(out.len() <= 64 && out.is_empty() != fits);
        if fits && length > 0 {
            let parsed = parse(&out).unwrap();
            assert!(matches!(parsed, Packet::End { end: End::Refused(_), .. }), "{parsed:?}");
        }
    }
}

#[test]
fn a_run_ends_at_the_first_other_packet() {
    let n = packet_len(64);
    let packet = |head: &[u8]| [head, &vec![b'x'; 64 - head.len()]].concat();
    let train = [packet(b"M:a:"), packet(b"M:a:"), packet(b"M:b:"), packet(b"M:a:")].concat();
    assert_eq!(run_of(&train, b"M:a:", n), 2);
    assert_eq!(run_of(&train[..100], b"M:a:", n), 1);
    assert_eq!(run_of(&train, b"M:b:", n), 0);
    assert_eq!(run_of(&[], b"M:a:", n), 0);
}

#[test]
fn lines_come_whole_however_they_are_cut() {
    let text = b"a\nd/b%3A\n\n../x\nlast";
    for cut in 1..text.len() {
        let (mut lines, mut good, mut bad) = (Lines::default(), Vec::new(), Vec::new());
        let mut take = |line: Result<ObjectName, &[u8]>| match line {
            Ok(name) => good.push(name.to_string()),
            Err(line) => bad.push(line.to_vec()),
        };
        text.chunks(cut).for_each(|piece| lines.push(piece, &mut take).unwrap());
        lines.finish(&mut take);
        assert_eq!((good, bad), (vec!["a".to_owned(), "d/b:".into(), "last".into()], vec![b"../x".to_vec()]));
    }
    let endless = vec![b'n'; 3 * limits::NAME_BYTES_MAX + 1];
    assert_eq!(Lines::default().push(&endless, |_| {}), Err(LineTooLong));
}

/// Bytes that get further into the grammar than chance alone would.
fn nearly_packets() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&[u8]; 15] =
        [b"R:", b"B:", b"M:", b"E:", b"-1:", b":", b"%", b"%3A", b"a", b"/", b"..", b"0", b"9", b"\n", b"\0"];
    let piece = prop_oneof![
        8 => prop::sample::select(&PIECES[..]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn names() -> impl Strategy<Value = ObjectName> {
    prop::collection::vec(any::<u8>(), 1..200).prop_filter_map("not a name", |bytes| ObjectName::new(&bytes).ok())
}

proptest! {
    #[test]
    fn any_bytes_parse_or_fail_within_the_packet(
        packet in prop_oneof![nearly_packets(), prop::collection::vec(any::<u8>(), 0..300)]
    ) {
        match parse(&packet) {
            Ok(Packet::Begin { payload, .. } | Packet::Middle { payload, .. }) => {
                prop_assert!(payload.start <= payload.end && payload.end == packet.len());
                prop_assert_eq!(packet[payload.start - 1], b':');
            }
            Ok(Packet::End { end: End::Refused(reason), .. }) => prop_assert!(!reason.chars().any(char::is_control)),
            Ok(Packet::End { .. }) => {}
            Err(error) => prop_assert!(error.to_string().len() < 256),
        }
        match parse_request(&packet) {
            Ok(Request::NoObject { encoded, .. }) => prop_assert!(encoded.end < packet.len()),
            Ok(_) => {}
            Err(error) => prop_assert!(error.to_string().len() < 256),
        }
        let mut lines = Lines::default();
        let _ = lines.push(&packet, |_| {});
        lines.finish(|_| {});
    }

    #[test]
    fn what_is_encoded_parses_back(name in names(), size in 0..=limits::OBJECT_BYTES_MAX, payload_bytes in 0..100_usize) {
        let mut packet = Vec::new();
        encode_request(&mut packet, Some(&name));
        prop_assert_eq!(packet.len(), head_len(Some(&name)));
        prop_assert_eq!(parse_request(&packet), Ok(Request::Object(name.clone())));

        packet.clear();
        encode_begin(&mut packet, Some(&name));
        let payload = packet.len()..packet.len() + payload_bytes;
        packet.resize(payload.end, b':');
        prop_assert_eq!(parse(&packet), Ok(Packet::Begin { name: Some(name.clone()), payload: payload.clone() }));
        packet[0] = b'M';
        prop_assert_eq!(parse(&packet), Ok(Packet::Middle { name: Some(name.clone()), payload }));

        packet.clear();
        encode_end(&mut packet, Some(&name), ByteCount(size));
        packet.extend_from_slice(b"12:\xff");
        prop_assert_eq!(parse(&packet), Ok(Packet::End { name: Some(name.clone()), end: End::Whole(ByteCount(size)) }));

        let (mut line, mut found) = (Vec::new(), Vec::new());
        encode_line(&mut line, &name);
        Lines::default().push(&line, |line| found.push(line.map_err(<[u8]>::to_vec))).unwrap();
        prop_assert_eq!(found, vec![Ok(name)]);
    }
}
