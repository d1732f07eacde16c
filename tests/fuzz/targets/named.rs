//! Packets of the named protocol, of a server and of a client, and the lines of a listing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supersync::units::PacketLen;
use supersync::wire::named::{self, End, Lines, Packet, Request};

fuzz_target!(|packet: &[u8]| {
    if let Ok(found) = named::parse(packet) {
        let mut head = Vec::new();
        match &found {
            Packet::Begin { name, payload } | Packet::Middle { name, payload } => {
                assert!(payload.start <= payload.end && payload.end == packet.len());
                match &found {
                    Packet::Begin { .. } => named::encode_begin(&mut head, name.as_ref()),
                    _ => named::encode_middle(&mut head, name.as_ref()),
                }
                assert_eq!(head.len(), named::head_len(name.as_ref()));
                head.extend_from_slice(&packet[payload.clone()]);
                let payload = head.len() - payload.len()..head.len();
                let again = match &found {
                    Packet::Begin { .. } => Packet::Begin { name: name.clone(), payload },
                    _ => Packet::Middle { name: name.clone(), payload },
                };
                assert_eq!(named::parse(&head), Ok(again));
            }
            Packet::End { name, end: End::Whole(size) } => {
                named::encode_end(&mut head, name.as_ref(), *size);
                assert_eq!(named::parse(&head).as_ref(), Ok(&found));
            }
            Packet::End { end: End::Refused(reason), .. } => assert!(!reason.contains(char::is_control)),
            Packet::End { end: End::Untold, .. } => {}
        }
    }
    match named::parse_request(packet) {
        Ok(Request::Object(name)) => {
            let mut again = Vec::new();
            named::encode_request(&mut again, Some(&name));
            assert_eq!(named::parse_request(&again), Ok(Request::Object(name)));
        }
        Ok(Request::NoObject { encoded, problem }) => {
            let (mut refusal, shortest) = (Vec::new(), PacketLen::DEFAULT);
            if named::encode_refusal(&mut refusal, &packet[encoded], &problem.to_string(), shortest) {
                assert!(refusal.len() <= shortest.bytes());
            }
        }
        Ok(Request::Listing) | Err(_) => {}
    }
    list(packet);
});

/// However a listing comes in, the same names are in it.
fn list(bytes: &[u8]) {
    let names_of = |pieces: &[&[u8]]| {
        let (mut lines, mut names) = (Lines::default(), Vec::new());
        let mut take = |name: Result<_, &[u8]>| names.push(name.map_err(<[u8]>::to_vec));
        if pieces.iter().any(|piece| lines.push(piece, &mut take).is_err()) {
            return None;
        }
        lines.finish(&mut take);
        Some(names)
    };
    let (front, back) = bytes.split_at(bytes.len() / 2);
    assert_eq!(names_of(&[bytes]), names_of(&[front, back]));
}
