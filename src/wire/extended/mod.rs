//! The extended grammar: what our own nodes speak behind an `X:` packet.
//!
//! Participants: two nodes whose hellos both say [`EXTENDED`](super::hello::Features::EXTENDED), equal on the link.
//! Each direction is still a sequence of packets of exactly N bytes. A packet holds frames one after another:
//!
//! ```text
//! packet := [ "M:" data ] frame* padding
//! frame  := "R:" id ":" name ":" offset ":" length ":"        request a range of an object
//!         | "R:" id ":" name ":0:0:"                          tell an interest in an object, whatever its length
//!         | "B:" id ":" offset ":" length ":" crc ":" data    a range in answer to request id, or a part of it
//!         | "P:" id ":"                                       not here now; the request is over
//!         | "F:" id ":" reason ":"                            refused for good; the request is over
//!         | "C:" id ":"                                       cancel a request; what is on its way still comes
//!         | "K:"                                              keep-alive
//!         | "I:" epoch ":" seq ":"                            subscribe to the inventory's news
//!         | "I:" epoch ":" seq ":" length ":" crc ":" data    news: entries seq, seq + 1, ... of the inventory
//!         | "I:" epoch ":" seq ":" "0:" origin ":"            that is all of it up to seq, as it was after you subscribed
//!
//!   0                            26         N   N+2                 2N  2N+2   2N+r  +4  +6     3N
//!   +----------------------------+----------+---+-------------------+---+------+-----+--+---------+
//!   | B:7:1048576:3000:89abcdef: | data ... | M:| ... N-2 bytes ... | M:| rest | P:8:|N:| padding |
//!   +----------------------------+----------+---+-------------------+---+------+-----+--+---------+
//! ```
//!
//! - The head of a frame, everything but its data, never crosses the end of a packet. Data may: it fills the packet,
//!   and each further packet of it starts with `M:`. Nothing else stands in between.
//! - After data, and after a head without data, the next frame starts at once. `N:` starts padding, which runs to the
//!   end of the packet; one byte left over there is padding as well.
//! - Numbers are decimal ASCII. A `crc` is CRC-32C of exactly the frame's data, 8 lowercase hexadecimal digits. Names
//!   are encoded as in [`duplex`](super::duplex).
//! - The frames `I:` are told apart by what follows `seq:`. News go on with a digit, and no frame starts with one;
//!   a digit that is the packet's last byte is padding. News of no bytes are the end of what there is; what stands in
//!   the place of their checksum is that of the name of the node which the entries come from in the first place.
//! - `B:` carries 1 byte to a block ([`limits::BLOCK_BYTES`](crate::limits::BLOCK_BYTES)) and never crosses a block's
//!   boundary. An empty object has no block and is never requested.
//!
//! Goals: no byte of data is copied or looked at in either direction; a run of whole `M:` packets is one [`Data`] when
//! it comes in and one [`Segment`] when it goes out, whatever N is. Non-goals: whether a frame makes sense (an unknown
//! id, a range beyond the object's end, an offset that steps back) and whether its checksum holds.
//!
//! Driven by `proto::extended`, where a [`Reader`] for each link takes trains of whole packets apart, and by the rim,
//! where a [`Packer`] for each lays frames out into packets. Both keep nothing from one packet to the next but how much
//! of a frame's data is still to come.

mod error;
mod frame;
mod packer;
mod parse;
mod reader;

pub use error::{Expected, FrameError};
pub use frame::{DataOf, Epoch, Frame, Refusal, RequestId, Seq, check_request_fits};
pub use packer::{HeadTooLong, Packer, Segment};
pub use reader::{Data, Item, Reader};

#[cfg(test)]
mod tests;
