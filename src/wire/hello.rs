//! The hello: how our own nodes know each other without leaving seed 000's format.
//!
//! Participants: the two ends of a duplex link, each in the first packet that it sends. That packet is `[R:name:]N:`
//! and padding; the hello is the very end of the padding, so it is found from the packet's end. A seed-only peer drops
//! padding and sees nothing; its own padding does not end in the magic but by a chance of 2^-128.
//!
//! ```text
//!  -32-L      -32       -30        -28    -26          -22    -21  -20        -4        0 = packet end
//!   +-----------+---------+----------+------+------------+------+----+----------+--------+
//!   | node name | version | features | link | packet max | role | L  | magic    | crc32c |
//!   |  L bytes  |   u16   |   u16    | u16  |    u32     |  u8  | u8 | 16 bytes |  u32   |   L: 1 to 64
//!   +-----------+---------+----------+------+------------+------+----+----------+--------+
//! ```
//!
//! Integers are little endian. `crc32c` covers the block's bytes before it, from the first of the name to the last of
//! the magic. The layout is the same in every version; unknown feature bits are kept and mean nothing. `link` is 0
//! where its number is not told.
//!
//! A node whose hello does not fit behind `R::N:` is misconfigured ([`fits`]: N = 64 takes node names of up to 27
//! bytes). Our own nodes ask for nothing in the packet that it is in.
//!
//! Non-goals: secrecy and authentication. A hello says who a peer claims to be.

use std::num::NonZeroU16;

use super::checksum::crc32c;
use crate::limits;
use crate::units::{NodeName, NodeNameError, PacketLen};

/// Marks the end of a hello. Neither text nor anything that a record would hold.
const MAGIC: [u8; 16] = *b"\x89SuperSync\r\n\x1a\n\xd7\xe1";
/// Everything but the name.
const TRAILER_BYTES: usize = 32;
/// `R::N:`, the shortest header of a first packet that carries a request.
const SHORTEST_HEADER_BYTES: usize = 5;

const _: () = {
    assert!(limits::NODE_NAME_BYTES_MAX <= u8::MAX as usize);
    assert!(SHORTEST_HEADER_BYTES + TRAILER_BYTES < limits::PACKET_BYTES_MIN as usize);
};

/// What a node says of itself in the first packet of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Newest version of the extended grammar that the node speaks, at least 1; both ends use the smaller.
    pub version: u16,
    /// What the node can do; both ends use what both have.
    pub features: Features,
    /// Largest packet that the node takes, bytes, at least [`limits::PACKET_BYTES_MIN`]. For later versions to settle a
    /// length by: this one goes by what both ends have configured.
    pub packet_bytes_max: u32,
    /// Which of its links with this peer this is, from 1, the same each time that it is dialed; `None`: not told. So
    /// the peer knows a connection that takes the place of one whose end it has not noticed yet.
    pub link: Option<NonZeroU16>,
    /// What the node is.
    pub role: Role,
    /// What it is called.
    pub node: NodeName,
}

/// A set of things that a node can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u16);

impl Features {
    /// None at all: how a seed-only peer is treated.
    pub const NONE: Self = Self(0);
    /// Neither end owes a packet for each one received: no lock-step.
    pub const FREE_RUN: Self = Self(1);
    /// `N:` is sent on an idle link, and silence means that the link is dead.
    pub const KEEPALIVE: Self = Self(2);
    /// A request queues up behind those before it instead of replacing them.
    pub const QUEUED_REQUESTS: Self = Self(4);
    /// After one `X:` packet the frames of the [`extended`](super::extended) grammar are spoken.
    pub const EXTENDED: Self = Self(8);

    /// What is in this set and in `other`.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this set or in `other`.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Has objects of its own, and wants those of the far trader; 1 on the wire.
    Trader,
    /// Relays between two traders; 2 on the wire.
    Exchange,
}

/// Why a block with the magic is not a hello: damage, or a peer that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The name would be empty, longer than allowed, or start before the packet.
    #[error("hello: expected a node name of 1 to {most} bytes, found a length of {found}")]
    NameLength {
        /// What there is room for.
        most: usize,
        /// What the block says.
        found: u8,
    },
    /// The bytes are not those that were sent.
    #[error("hello: expected CRC-32C {expected:08x} over the block, found {found:08x}")]
    Checksum {
        /// Computed from the bytes.
        expected: u32,
        /// What the block says.
        found: u32,
    },
    /// No such version.
    #[error("hello: expected a version of at least 1, found {0}")]
    Version(u16),
    /// No such role.
    #[error("hello: expected role 1 (trader) or 2 (exchange), found {0}")]
    Role(u8),
    /// No packet could be so short.
    #[error("hello: expected packets of at least {min} bytes to be wanted, found {0}", min = limits::PACKET_BYTES_MIN)]
    PacketBytesMax(u32),
    /// No such name.
    #[error("hello: {0}")]
    Node(#[from] NodeNameError),
}

/// A hello is longer than the padding that it was to stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hello of {hello_bytes} bytes does not fit into {padding_bytes} bytes of padding")]
pub struct NoRoom {
    /// Bytes of the hello.
    pub hello_bytes: usize,
    /// Bytes that were left for it.
    pub padding_bytes: usize,
}

/// Bytes of a hello from the node `name`.
pub fn encoded_len(name: &NodeName) -> usize {
    name.as_str().len() + TRAILER_BYTES
}

/// Whether a node called `name` can say hello in packets of `packet_bytes`; a configuration where it cannot is refused.
pub fn fits(packet_bytes: PacketLen, name: &NodeName) -> bool {
    SHORTEST_HEADER_BYTES + encoded_len(name) <= packet_bytes.bytes()
}

impl Hello {
    /// The version that this code speaks.
    pub const VERSION: u16 = 1;

    /// Writes the hello over the end of `padding`, which is what follows the header of a first packet, already filled.
    /// Nothing is written where there is no room.
    pub fn write_into(&self, padding: &mut [u8]) -> Result<(), NoRoom> {
        let (hello_bytes, padding_bytes) = (encoded_len(&self.node), padding.len());
        let start = padding_bytes.checked_sub(hello_bytes).ok_or(NoRoom { hello_bytes, padding_bytes })?;
        let name = self.node.as_str().as_bytes();
        let mut block = Vec::with_capacity(hello_bytes);
        block.extend_from_slice(name);
        block.extend_from_slice(&self.version.to_le_bytes());
        block.extend_from_slice(&self.features.0.to_le_bytes());
        block.extend_from_slice(&self.link.map_or(0, NonZeroU16::get).to_le_bytes());
        block.extend_from_slice(&self.packet_bytes_max.to_le_bytes());
        block.push(self.role.code());
        block.push(name.len() as u8);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&crc32c(&block).to_le_bytes());
        padding[start..].copy_from_slice(&block);
        Ok(())
    }

    /// The hello at the end of `packet`, the first of a link; `None` where there is none, which is a seed-only peer.
    /// Asked only of a packet that carries no payload ([`Inner::Nil`](super::duplex::Inner::Nil)).
    pub fn find(packet: &[u8]) -> Result<Option<Self>, HelloError> {
        let Some((before, trailer)) = packet.split_last_chunk::<TRAILER_BYTES>() else {
            return Ok(None);
        };
        if trailer[12..28] != MAGIC {
            return Ok(None);
        }
        let [v0, v1, f0, f1, l0, l1, p0, p1, p2, p3, role, name_bytes, .., c0, c1, c2, c3] = *trailer;

        let most = before.len().min(limits::NODE_NAME_BYTES_MAX);
        if name_bytes == 0 || usize::from(name_bytes) > most {
            return Err(HelloError::NameLength { most, found: name_bytes });
        }
        let block_at = before.len() - usize::from(name_bytes);
        let expected = crc32c(&packet[block_at..packet.len() - 4]);
        let found = u32::from_le_bytes([c0, c1, c2, c3]);
        if found != expected {
            return Err(HelloError::Checksum { expected, found });
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version == 0 {
            return Err(HelloError::Version(version));
        }
        let packet_bytes_max = u32::from_le_bytes([p0, p1, p2, p3]);
        if packet_bytes_max < limits::PACKET_BYTES_MIN {
            return Err(HelloError::PacketBytesMax(packet_bytes_max));
        }
        Ok(Some(Self {
            version,
            features: Features(u16::from_le_bytes([f0, f1])),
            link: NonZeroU16::new(u16::from_le_bytes([l0, l1])),
            packet_bytes_max,
            role: Role::from_code(role).ok_or(HelloError::Role(role))?,
            node: NodeName::new(&before[block_at..])?,
        }))
    }
}

impl Role {
    fn code(self) -> u8 {
        match self {
            Self::Trader => 1,
            Self::Exchange => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Trader),
            2 => Some(Self::Exchange),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().expect("a test's name is valid")
    }

    fn packet_len(bytes: u32) -> PacketLen {
        PacketLen::new(bytes).expect("in bounds")
    }

    fn trader(name: &str) -> Hello {
        Hello {
            version: Hello::VERSION,
            features: Features::FREE_RUN.or(Features::KEEPALIVE),
            packet_bytes_max: 1 << 20,
            link: NonZeroU16::new(0x0203),
            role: Role::Trader,
            node: node(name),
        }
    }

    /// A packet of `bytes` that starts with `header` and ends in `hello`.
    fn first_packet(bytes: usize, header: &[u8], hello: &Hello) -> Vec<u8> {
        let mut packet = vec![0x5a; bytes];
        packet[..header.len()].copy_from_slice(header);
        hello.write_into(&mut packet[header.len()..]).expect("there is room");
        packet
    }

    /// Makes the checksum right again after the block has been changed.
    fn seal(packet: &mut [u8], block_bytes: usize) {
        let (start, crc_at) = (packet.len() - block_bytes, packet.len() - 4);
        let crc = crc32c(&packet[start..crc_at]);
        packet[crc_at..].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn the_block_is_as_drawn() {
        let packet = first_packet(64, b"R::N:", &trader("trader1"));
        let expected = b"trader1\x01\x00\x03\x00\x03\x02\x00\x00\x10\x00\x01\x07\x89SuperSync\r\n\x1a\n\xd7\xe1";
        assert_eq!(&packet[..25], b"R::N:ZZZZZZZZZZZZZZZZZZZZ");
        assert_eq!(&packet[25..60], expected);
        assert_eq!(packet[60..], crc32c(expected).to_le_bytes());
        assert_eq!(encoded_len(&node("trader1")), 39);
    }

    #[test]
    fn a_packet_without_the_magic_is_a_seed_only_peers() {
        for packet in [&b""[..], b"N:", &[0; 31], &[0; 32], &[0xff; 1400], MAGIC.as_slice()] {
            assert_eq!(Hello::find(packet), Ok(None), "{} bytes", packet.len());
        }
        // A hello anywhere but at the very end is padding.
        let mut packet = first_packet(1400, b"N:", &trader("t"));
        packet.push(0);
        assert_eq!(Hello::find(&packet), Ok(None));
    }

    #[test]
    fn damaged_and_impossible_hellos_are_refused() {
        let hello = trader("trader1");
        let block_bytes = encoded_len(&hello.node);
        // `back` counts from the packet's end, as in the drawing.
        let check = |back: usize, bytes: &[u8], expected: HelloError| {
            let mut packet = first_packet(100, b"R:a:N:", &hello);
            let at = packet.len() - back;
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            seal(&mut packet, block_bytes);
            assert_eq!(Hello::find(&packet), Err(expected));
        };
        check(32, &[0, 0], HelloError::Version(0));
        check(26, &63_u32.to_le_bytes(), HelloError::PacketBytesMax(63));
        check(22, &[0], HelloError::Role(0));
        check(22, &[3], HelloError::Role(3));
        check(21, &[0], HelloError::NameLength { most: 64, found: 0 });
        check(21, &[65], HelloError::NameLength { most: 64, found: 65 });
        check(39, b"/", HelloError::Node(NodeNameError::Byte { position: 0, byte: b'/' }));

        let mut short = first_packet(64, b"N:", &hello);
        short[64 - 21] = 33;
        assert_eq!(Hello::find(&short), Err(HelloError::NameLength { most: 32, found: 33 }));
        assert_eq!(Hello::find(&short[32..]), Err(HelloError::NameLength { most: 0, found: 33 }));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let packet = first_packet(100, b"N:", &trader("trader1"));
        for at in 61..100 {
            for bit in 0..8 {
                let mut damaged = packet.clone();
                damaged[at] ^= 1 << bit;
                let found = Hello::find(&damaged);
                let in_magic = (80..96).contains(&at);
                assert!(if in_magic { found == Ok(None) } else { found.is_err() }, "byte {at} bit {bit}: {found:?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let (longest, longer) = (node(&"n".repeat(27)), node(&"n".repeat(28)));
        assert!(fits(packet_len(64), &longest));
        assert!(!fits(packet_len(64), &longer));
        assert!(fits(packet_len(101), &node(&"n".repeat(64))));
        assert!(!fits(packet_len(100), &node(&"n".repeat(64))));

        let hello = trader(&"n".repeat(28));
        let mut padding = [0x5a; 59];
        assert_eq!(hello.write_into(&mut padding), Err(NoRoom { hello_bytes: 60, padding_bytes: 59 }));
        assert_eq!(padding, [0x5a; 59]);
    }

    #[test]
    fn features_are_sets() {
        let ours = Features::FREE_RUN.or(Features::QUEUED_REQUESTS);
        let theirs = Features(0x8003);
        assert_eq!(ours.and(theirs), Features::FREE_RUN);
        assert!(theirs.contains(Features::FREE_RUN.or(Features::KEEPALIVE)));
        assert!(!theirs.contains(ours));
        assert!(Features::NONE.contains(Features::NONE) && !Features::NONE.contains(Features::KEEPALIVE));
    }

    fn hellos() -> impl Strategy<Value = Hello> {
        let role = prop_oneof![Just(Role::Trader), Just(Role::Exchange)];
        let name = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}";
        (1..=u16::MAX, any::<u16>(), limits::PACKET_BYTES_MIN..=u32::MAX, any::<u16>(), role, name).prop_map(
            |(version, bits, packet_bytes_max, link, role, name)| Hello {
                version,
                features: Features(bits),
                packet_bytes_max,
                link: NonZeroU16::new(link),
                role,
                node: node(&name),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_found(hello in hellos(), room in 0..2000_usize) {
            let bytes = 2 + encoded_len(&hello.node) + room;
            let packet = first_packet(bytes, b"N:", &hello);
            prop_assert_eq!(&packet[..2 + room], [b"N:".to_vec(), vec![0x5a; room]].concat());
            prop_assert_eq!(Hello::find(&packet), Ok(Some(hello)));
        }

        #[test]
        fn any_bytes_with_the_magic_never_panic(
            mut packet in prop::collection::vec(any::<u8>(), TRAILER_BYTES..200),
            name_bytes in prop_oneof![0..70_u8, any::<u8>()],
            sealed: bool,
        ) {
            let end = packet.len();
            packet[end - 20..end - 4].copy_from_slice(&MAGIC);
            packet[end - 21] = name_bytes;
            let block_bytes = TRAILER_BYTES + usize::from(name_bytes);
            if sealed && block_bytes <= end {
                seal(&mut packet, block_bytes);
            }
            // A block found is one that would have been written.
            if let Ok(found) = Hello::find(&packet) {
                let found = found.expect("the magic is there");
                let mut again = packet.clone();
                again[end - block_bytes..].fill(0);
                found.write_into(&mut again).expect("there is room");
                prop_assert_eq!(again, packet);
            }
        }

        #[test]
        fn any_bytes_never_panic(packet in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Hello::find(&packet), Ok(None));
        }
    }
}
