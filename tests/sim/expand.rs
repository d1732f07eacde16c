//! From described pieces to bytes, as a rim would make them.

use std::sync::LazyLock;

use supersync::proto::duplex::Piece;
use supersync::units::PacketLen;
use supersync::wire::hello::Hello;
use supersync::wire::padding::Padding;

static PADDING: LazyLock<Padding> = LazyLock::new(|| Padding::new(1));

/// Appends the packets of `piece` with `data` in them to `out`.
pub(crate) fn expand(
    piece: &Piece,
    data: &[u8],
    packet_len: PacketLen,
    hello: &Hello,
    cursor: &mut u64,
    out: &mut Vec<u8>,
) {
    let (start, n) = (out.len(), packet_len.bytes());
    assert_eq!(piece.data.map_or(0, |data| data.length), data.len());
    out.extend_from_slice(&piece.header);
    let first = data.len().min(n.checked_sub(piece.header.len()).expect("a header fits into its packet"));
    out.extend_from_slice(&data[..first]);
    for more in data[first..].chunks(n - 2) {
        out.extend_from_slice(b"M:");
        out.extend_from_slice(more);
    }
    let bytes = piece.packets(packet_len) * n;
    let left = bytes.checked_sub(out.len() - start).expect("the packets of a piece hold its data");
    assert!(left < n, "only the last packet of a piece is padded");
    assert!(left == 0 || piece.data.is_none_or(|data| data.tail), "only an object's last packet is padded");
    out.extend_from_slice(PADDING.slice(left, cursor));
    if piece.hello {
        let padding_at = out.len() - left;
        hello.write_into(&mut out[padding_at..]).expect("a hello fits into the first packet");
    }
    assert_eq!(out.len() - start, bytes);
}
