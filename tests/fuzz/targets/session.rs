//! A stream of session messages, as it is or with its checksums made right: it is read to its end or refused, and what
//! was read is, written again, the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supersync::wire::checksum::{crc32c, crc32c_append};
use supersync::wire::session::{Message, MessageKind, Options, Read, data_head, encode, frame, read};

fuzz_target!(|input: &[u8]| {
    let Some((how, stream)) = input.split_first() else { return };
    let mut stream = stream.to_vec();
    if how & 1 != 0 {
        seal(&mut stream);
    }
    let mut rest = &stream[..];
    while let Ok(Some((found, length))) = read(rest) {
        if let Read::Message(message) = found {
            look_at(message);
            let mut again = Vec::new();
            // A control message of a peer may be a few bytes longer than ours.
            if encode(&message, &mut again).is_ok() {
                assert_eq!(read(&again), Ok(Some((found, again.len()))));
            } else {
                assert!(length > 65_000);
            }
        }
        rest = &rest[length..];
    }
});

/// Looks at all that is not looked at until it is asked for.
fn look_at(message: Message<'_>) {
    match message {
        Message::Pull(command) | Message::Push(command) => {
            let _ = Options::parse(command.options);
        }
        Message::FileInfo(info) => {
            let _ = info.to_entry();
        }
        Message::Data { file, seq, data } => {
            assert_eq!(data_head(file, seq, data)[0], MessageKind::Data.code());
        }
        Message::Have(runs) | Message::Missing(runs) => {
            assert!(runs.iter().all(|run| !run.blocks().is_empty()));
        }
        Message::Change(changes) => assert_eq!(changes.iter().count(), changes.len()),
        Message::Resent { message, .. } => {
            if let Ok(inner) = read(message) {
                assert_eq!(inner.map(|(_, length)| length), Some(message.len()));
            }
        }
        _ => {}
    }
}

/// Makes every checksum right, as far as there are whole messages.
fn seal(stream: &mut [u8]) {
    let mut at = 0;
    while let Ok(Some((_, length))) = frame(&stream[at..]) {
        let Some(message) = stream.get_mut(at..at + length) else { break };
        let crc = crc32c_append(crc32c(&message[..1]), &message[5..]);
        message[1..5].copy_from_slice(&crc.to_be_bytes());
        at += length;
    }
}
