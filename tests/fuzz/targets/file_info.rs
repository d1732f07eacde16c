//! The payload of a `FILE_INFO`: refused, or an entry that is told again as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supersync::units::FileId;
use supersync::wire::checksum::{crc32c, crc32c_append};
use supersync::wire::session::{FileInfo, Message, MessageKind, Read, encode, read};

fuzz_target!(|payload: &[u8]| {
    let payload = &payload[..payload.len().min(60_000)];
    let length = (payload.len() as u16).to_be_bytes();
    let mut bytes = [&[MessageKind::FileInfo.code(), 0, 0, 0, 0], &length[..], payload].concat();
    let crc = crc32c_append(crc32c(&bytes[..1]), &bytes[5..]);
    bytes[1..5].copy_from_slice(&crc.to_be_bytes());

    let Ok(found) = read(&bytes) else { return };
    let Some((Read::Message(Message::FileInfo(info)), _)) = found else { panic!("{found:?}") };
    let Ok(entry) = info.to_entry() else { return };
    let kept: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(kept <= payload.len());

    let mut again = Vec::new();
    encode(&Message::FileInfo(FileInfo::of_entry(&entry, FileId(7))), &mut again).expect("no longer than it was");
    let found = read(&again).expect("well made");
    let Some((Read::Message(Message::FileInfo(info)), _)) = found else { panic!("{found:?}") };
    assert_eq!(info.to_entry(), Ok(entry));
});
