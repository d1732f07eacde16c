//! Every bound and default in one place, with the relations between them checked when this compiles.
//!
//! Reaching a bound is back-pressure or a clear error, never a growing queue.

use std::time::Duration;

// -- packets and names ---------------------------------------------------------------------------------

/// Shortest packet, bytes.
pub const PACKET_BYTES_MIN: u32 = 64;
/// Longest packet, bytes.
pub const PACKET_BYTES_MAX: u32 = 1 << 20;
/// The seed's example and the default.
pub const PACKET_BYTES_DEFAULT: u32 = 1400;
/// Longest name of an object, bytes before percent-encoding; PATH_MAX less the terminating NUL.
pub const NAME_BYTES_MAX: usize = 4095;
/// Longest single component of a name: what Linux file systems take, less room for `.success`.
pub const NAME_COMPONENT_BYTES_MAX: usize = COMPONENT_BYTES_MAX - SUCCESS_SUFFIX.len();
/// Longest component of a path in a tree: what Linux file systems take (NAME_MAX).
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Largest object, bytes: what a file's offset (`off_t`) can tell.
pub const OBJECT_BYTES_MAX: u64 = i64::MAX as u64;
/// Longest reason for which an object of the named protocol is refused, bytes as encoded; more is cut off.
pub const REASON_BYTES_MAX: usize = 256;
/// Most decimal digits of a size on the wire: those of the largest 64-bit number.
pub const SIZE_DIGITS_MAX: usize = 20;
/// Longest name of a node, bytes.
pub const NODE_NAME_BYTES_MAX: usize = 64;
/// Longest name of a thread, bytes: what Linux keeps, less the terminating NUL (PR_SET_NAME(2const)).
pub const THREAD_NAME_BYTES_MAX: usize = 15;
/// What stands beside each finished file, after its name.
pub const SUCCESS_SUFFIX: &str = ".success";
/// The private directory of a root: parts of objects that are not whole yet.
pub const PRIVATE_DIR: &str = ".supersync";
/// Padding pool, bytes; a power of two so that an offset wraps by masking.
pub const PADDING_POOL_BYTES: usize = 2 << 20;
/// A block of an object, bytes: what is checked end to end and recorded, and hashed as one subtree of BLAKE3; an
/// object's last one may be shorter.
pub const BLOCK_BYTES: u64 = 1 << 20;
/// Blocks of the longest object that an inventory lists, of 2,097,152,000,000 bytes.
pub const BLOCKS_PER_OBJECT_MAX: u64 = 2_000_000;
/// News of an inventory are cut to this many bytes of entries, unless one entry alone is longer, ...
pub const NEWS_BYTES: usize = 64 << 10;
/// ... and are never longer than this.
pub const NEWS_BYTES_MAX: usize = 8 << 20;
/// Bytes of news longer than [`NEWS_BYTES`] that a flow's links receive at one time: of eight at their longest.
pub const LONG_NEWS_BYTES_MAX: usize = 8 * NEWS_BYTES_MAX;
/// A packet that has less room than this is not worth another frame's head.
pub const HEAD_ROOM: usize = 64;
/// No frame's head is longer: the longest name, all of it escaped, and its numbers.
pub const HEAD_BYTES_MAX: usize = 3 * NAME_BYTES_MAX + 128;

// -- clients of sessions -------------------------------------------------------------------------------

/// Where a server listens for sessions unless the command line says otherwise.
pub const SESSION_PORT_DEFAULT: u16 = 7402;
/// ... and a server of the named protocol.
pub const NAMED_PORT_DEFAULT: u16 = 7403;
/// Connections of one session that carry data.
pub const SESSION_CONNECTIONS_MAX: usize = 64;
/// The same, where nobody said how many, as long as the server is near, ...
pub const SESSION_CONNECTIONS_NEAR: usize = 4;
/// ... and where it is far, ...
pub const SESSION_CONNECTIONS_FAR: usize = 8;
/// ... which it is from this round-trip time on.
pub const SESSION_FAR_RTT: Duration = Duration::from_millis(20);
/// Reports of a session that wait to be read; beyond this no further batch of entries begins, ...
pub const SESSION_REPORTS_MAX: usize = 4096;
/// ... which is looked at this often.
pub const SESSION_READER_LOOK_EVERY: Duration = Duration::from_millis(5);
/// Progress is shown this often on a terminal, ...
pub const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// ... and this often as JSON.
pub const PROGRESS_JSON_EVERY: Duration = Duration::from_secs(1);
/// A transfer that was told to stop is left alone after this time.
pub const SESSION_STOP_WITHIN: Duration = Duration::from_secs(5);
/// Who follows it, and cannot say how it ended since nobody reads that, is left alone after this time.
pub const SESSION_LEFT_WITHIN: Duration = Duration::from_secs(6);

// -- data plane ----------------------------------------------------------------------------------------

/// One receive buffer, bytes.
pub const RECV_BUFFER_BYTES: usize = 1 << 20;
/// Receive buffers of one worker in all; when none is free its links stop reading.
pub const RECV_BUFFERS_PER_WORKER: usize = 64;
/// One receive buffer of a link that little comes over, bytes.
pub const IDLE_BUFFER_BYTES: usize = 16 << 10;
/// Such buffers of one worker in all: one that receives and one on its way to disk for each link, and for each
/// connection of a session; one for each that is to be refused.
pub const IDLE_BUFFERS_PER_WORKER: usize = 2 * (LINKS_MAX + SESSION_LINKS_MAX) + SESSION_CALLERS_MAX;
/// A range of so many bytes takes its memory from the pool.
pub const RANGE_POOLED_BYTES_MIN: u64 = 64 << 10;
/// Ranges that have memory of the pool at a time, each a block: those that are kept, and those on their way.
pub const RANGES_POOLED_MAX: usize = KEPT_BYTES_MAX / BLOCK_BYTES as usize + 64;
/// Requests of the named protocol that wait at a server for one client, bytes of their names and what it takes to keep
/// them.
pub const NAMED_REQUESTS_BYTES_MAX: usize = 1 << 20;
/// What such a request takes besides its name, bytes, roughly.
pub const NAMED_REQUEST_COST: usize = 64;
/// Most bytes in one send.
pub const TRAIN_BYTES_MAX: usize = 1 << 20;
/// Fewest bytes that a paced train is cut to.
pub const TRAIN_BYTES_MIN: usize = 16 << 10;
/// Most iovecs in one send (UIO_MAXIOV).
pub const TRAIN_IOVECS_MAX: usize = 1024;
/// Pieces of so many bytes are sent from where they are; to copy shorter ones costs no more than to point to them.
pub const PIECE_BYTES_UNCOPIED_MIN: usize = 16 << 10;
/// An object's last bytes, which are sent only when all of it was found unchanged: so many, or what fits the packet.
pub const TAIL_BYTES_MAX: usize = 64 << 10;
/// Bytes that may wait for the writer, and what it takes to keep them, before links stop reading: few enough to be in
/// the processor's cache still when they are written, where the links are quicker than the writer.
pub const WRITE_BACKLOG_MAX: usize = 4 << 20;
/// What a range in memory takes besides its bytes, roughly.
pub const WAITING_RANGE_COST: usize = 256;
/// Ranges that came in, and objects that are whole, of which the flows are told at once.
pub const JUDGED_AT_ONCE_MAX: usize = 64;
/// Links of one node, those to clients of the named protocol among them; half of them with one address.
pub const LINKS_MAX: usize = 1024;
/// Connections of sessions that others have with one node, beside its links; half of them with one address.
pub const SESSION_LINKS_MAX: usize = 1024;
/// Entries of one worker's ring, a send, a receive and a cancel for each link or connection of a session, and its
/// wake-up; operations of its twin.
pub const RING_ENTRIES: u32 = 8192;
/// A ring that is dropped waits this long for the kernel to give back the memory of cancelled operations.
pub const RING_REAP_WITHIN: Duration = Duration::from_secs(2);
/// Each feature that is tested at start must show itself within this time.
pub const PROBE_WITHIN: Duration = Duration::from_secs(2);

// -- store ---------------------------------------------------------------------------------------------

/// Components of an object's name: how deep directories nest below a root.
pub const NAME_DEPTH_MAX: usize = 128;
/// Objects that one commit takes at once.
pub const COMMIT_BATCH_MAX: usize = 256;
/// A commit of others waits while so many blocks of an object are read back to prove its root, and for no more.
pub const READ_BACK_BLOCKS_MAX: u64 = 8;
/// Parts of one commit that are flushed one by one; a larger batch flushes its whole file system once.
pub const COMMIT_SYNC_EACH_MAX: usize = 8;
/// Directories that a root remembers as durable; when there are more it flushes them again.
pub const DURABLE_DIRECTORIES_MAX: usize = 100_000;
/// Bytes of a `.success` marker that are read; further ones say nothing.
pub const MARKER_BYTES_MAX: usize = 4096;
/// The kernel is told to read ahead only in objects that are longer, bytes.
pub const READ_AHEAD_BYTES_MIN: u64 = 128 << 10;
/// An object that is longer has its room reserved before any of it is fetched, bytes; a shorter one takes it as it
/// comes.
pub const RESERVE_BYTES_MIN: u64 = 64 << 10;
/// Objects that a scan hands over at once.
pub const SCAN_PART_OBJECTS: usize = 1024;
/// Entries of a scan that are named one by one in each of its lists; beyond this they are counted.
pub const SCAN_LIST_MAX: usize = 100;
/// Names that wait to be verified.
pub const VERIFY_QUEUE_MAX: usize = 1024;
/// Directories of one root that are watched; beyond this the root is rescanned from time to time.
pub const WATCHED_DIRECTORIES_MAX: usize = 100_000;
/// Reads of the watch's descriptor in one turn, of some tens of events each.
pub const WATCH_READS_MAX: usize = 64;
/// A burst of changes in `local/` is looked at once, this long after its first.
pub const LOCAL_SETTLE: Duration = Duration::from_millis(50);
/// `local/` is looked at this often though nothing was seen to change there.
pub const LOCAL_LOOK_EVERY: Duration = Duration::from_secs(30);
/// Where it could not be watched, that is tried again after this time.
pub const WATCH_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Whether `remote/` still has what was marked is looked at this often.
pub const REMOTE_LOOK_EVERY: Duration = Duration::from_secs(5);
/// Whether the directories of modules can be served is looked at this often.
pub const MODULES_LOOK_EVERY: Duration = Duration::from_secs(30);
/// A reload looks at the file systems that the config names, and gives up after this time.
pub const RELOAD_READ_WITHIN: Duration = Duration::from_secs(8);
/// To look at `local/` or `remote/` takes at most one part in this many of the time.
pub const LOOK_DUTY: u32 = 20;
/// What was hashed is offered after this time, however little it is.
pub const OFFER_AFTER: Duration = Duration::from_millis(10);
/// The thread that hashes looks this often whether its node still lives.
pub const HASHER_LOOK_EVERY: Duration = Duration::from_millis(500);
/// A journal is written to its file when the writer has nothing else to do, or after so many bytes of ranges: what a
/// killed process fetches again at most.
pub const JOURNAL_WRITE_BYTES: usize = 256 << 10;
/// What arrives is made durable this often: what a host that loses its power fetches again at most is what comes in
/// within about twice this time.
pub const JOURNAL_DURABLE_EVERY: Duration = Duration::from_secs(1);
/// Records that a log keeps in memory before it puts them to its file by itself, bytes.
pub const LOG_BUFFER_BYTES: usize = 64 << 10;
/// A log shorter than this is never rewritten, bytes.
pub const LOG_REWRITE_BYTES_MIN: u64 = 1 << 20;
/// Longest record of a log, bytes: the checksums of an object of 16 TiB.
pub const LOG_RECORD_BYTES_MAX: usize = (64 << 20) + 8192;
/// Ranges in one record of a journal; more make several records.
pub const JOURNAL_RECORD_RANGES_MAX: usize = 1024;
/// A file that was changed less than this before it was opened may change again without its times telling: they
/// advance with the kernel's tick, 10 ms at most.
pub const FILE_TIME_TICK: Duration = Duration::from_millis(20);
/// The same for a file system that keeps whole seconds, or every other one.
pub const FILE_TIME_TICK_COARSE: Duration = Duration::from_secs(2);
/// Tries at resolving a name while others rename directories on its way.
pub const RESOLVE_TRIES_MAX: usize = 8;

// -- sessions ------------------------------------------------------------------------------------------

/// Longest payload of a message of variable length, bytes: what its length field can tell (seed 002).
pub const SESSION_PAYLOAD_BYTES_MAX: usize = 65_535;
/// Longest message, bytes: type, checksum, length and payload.
pub const SESSION_MESSAGE_BYTES_MAX: usize = 7 + SESSION_PAYLOAD_BYTES_MAX;
/// Longest payload of a control message, bytes: it may have to travel, whole and behind its number, as the payload of
/// another.
pub const SESSION_CONTROL_BYTES_MAX: usize = SESSION_PAYLOAD_BYTES_MAX - 4 - 7;
/// Most data in one message, bytes: the longest payload less file_id and seq ([`wire::session`](crate::wire::session)).
pub const SESSION_DATA_BYTES_MAX: usize = SESSION_PAYLOAD_BYTES_MAX - 6;
/// Shortest block of a session, bytes ...
pub const SESSION_BLOCK_BYTES_MIN: u32 = 512;
/// ... and the one that is used unless another is agreed on.
pub const SESSION_BLOCK_BYTES_DEFAULT: u32 = 61_440;
/// Largest file that a session can tell of, bytes: 48 bits (seed 002).
pub const SESSION_FILE_BYTES_MAX: u64 = (1 << 48) - 1;
/// Longest text of an error that is sent, bytes.
pub const SESSION_TEXT_BYTES_MAX: usize = 4096;
/// Options of a command, bytes; the longest path fits behind them.
pub const SESSION_OPTIONS_BYTES_MAX: usize = 56 << 10;
/// Rules of one command.
pub const SESSION_RULES_MAX: usize = 1024;
/// Longest name of an extended attribute, bytes: XATTR_NAME_MAX (xattr(7)).
pub const XATTR_NAME_BYTES_MAX: usize = 255;

/// Connections that wait for their first message: more are not taken, and half of them from one address.
pub const SESSION_CALLERS_MAX: usize = LINKS_MAX / 2;
/// A server waits this long for a connection's first message (seed 002).
pub const COMMAND_WITHIN: Duration = Duration::from_secs(3);
/// A connection of a session that has sent nothing for so long says that it is there.
pub const SESSION_KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
/// A connection of a session over which nothing came for so long is given up.
pub const SESSION_SILENCE_MAX: Duration = Duration::from_secs(15);
/// So few bytes of a message are no sign of life: more than all that a connection says of itself in that time.
pub const SESSION_TRICKLE_BYTES: usize = 512;
/// A session waits so long for a file that another one is bringing in: longer than it takes to notice that one's client
/// is gone.
pub const SESSION_BUSY_WITHIN: Duration = Duration::from_secs(20);
/// A client gives a server up that has not answered for its session within this time, however often it was asked.
pub const SESSION_ANSWER_WITHIN: Duration = Duration::from_secs(45);
/// A client asks so often for its session where the server closes the connection before it answers, as one does that
/// starts.
pub const SESSION_ASKS_MAX: usize = 10;
/// Bytes of a session that wait for its writer, and what it takes to say what they are; beyond this its connections
/// read nothing.
pub const SESSION_BACKLOG_MAX: usize = 3 << 20;
/// A peer whose round trip is shorter is on this host or beside it.
pub const SESSION_LOCAL_RTT: Duration = Duration::from_millis(2);
/// Bytes that the socket of a session keeps unread of such a peer; the kernel takes twice as much.
pub const SESSION_LOCAL_UNREAD_BYTES: usize = 256 << 10;
/// Bytes that a connection of a session leaves unsent in its socket.
pub const SESSION_UNSENT_BYTES: u32 = 256 << 10;
/// Sessions that a node serves at once; half of them for one address.
pub const SESSIONS_MAX: usize = 256;
/// Entries that a sender announces at once: few first, so that bytes flow soon, ...
pub const BATCH_ENTRIES_FIRST: usize = 1024;
/// ... and more later, so that few round trips pass between batches.
pub const BATCH_ENTRIES_MAX: usize = 16 << 10;
/// Bytes of announcements that a receiver takes for one batch, ...
pub const BATCH_INFO_BYTES_MAX: usize = 64 << 20;
/// ... and that a sender puts into one, who counts otherwise.
pub const BATCH_INFO_BYTES_SENT: usize = BATCH_INFO_BYTES_MAX / 4;
/// Bytes of control messages that wait for one that was damaged before them.
pub const HELD_BYTES_MAX: usize = 1 << 20;
/// Messages that an end of a session asks for again in one round: more than a batch has, and less than memory.
pub const ASKS_MAX: usize = 1 << 17;
/// Rounds, one after the other, in which nothing came of what was asked for; after so many nothing will.
pub const ROUNDS_IN_VAIN_MAX: u32 = 128;
/// Damaged messages of one connection, one after the other, after which it is given up.
pub const DAMAGED_IN_A_ROW_MAX: u32 = 16;
/// Missing blocks that are asked for one by one (seed 002's message 0x03); more are asked for by ranges.
pub const RETRANSMIT_EACH_MAX: u64 = 256;
/// Runs of blocks of one batch that are here with gaps between them. They are few where blocks come in their order.
pub const ARRIVED_RUNS_MAX: usize = 1 << 20;
/// Runs of blocks that a sender remembers of what its receiver has, or asks for again.
pub const RUNS_TOLD_MAX: usize = ARRIVED_RUNS_MAX + 1;
/// What an announced entry counts for beside its path, bytes.
pub const ENTRY_BYTES: usize = 128;
/// ... and each of its extended attributes beside name and value.
pub const XATTR_BYTES: usize = 16;
/// A session that is held to a rate sends as much at once as it may in this time.
pub const SESSION_BURST: Duration = Duration::from_millis(50);
/// A client looks this often whether it should replace a connection that was lost.
pub const SESSION_REDIAL_EVERY: Duration = Duration::from_millis(500);
/// A client looks this often whether it is to stop, and tells how far it is.
pub const SESSION_LOOK_EVERY: Duration = Duration::from_millis(100);
/// A session that has ended looks this often whether its last words are sent.
pub const SESSION_LINGER: Duration = Duration::from_millis(1);
/// Pieces of files that one train of a session is made of.
pub const RUNS_PER_TRAIN_MAX: usize = 128;

// -- trees ---------------------------------------------------------------------------------------------

/// A file in a directory of a tree that says, like a `.gitignore`, what of it is left out.
pub const IGNORE_FILE: &str = ".supersyncignore";
/// Bytes of such a file that are read.
pub const IGNORE_FILE_BYTES_MAX: u64 = 1 << 20;
/// Entries of one directory that are put in order at once; what is beyond them comes after them.
pub const WALK_ORDERED_MAX: usize = 65_536;
/// Entries that a walk has skipped when it waits to be asked for them; those left out of one batch that the receiver is
/// told by name.
pub const SKIPPED_MAX: usize = 10_000;
/// Extended attributes of one entry, bytes as they are encoded; with a path they fit one message.
pub const XATTR_BYTES_MAX: usize = 56 << 10;
/// Files of a session that are arriving and open at once; others are closed until more of them comes.
pub const ARRIVING_OPEN_MAX: usize = 128;
/// Directories of a session that are remembered until its end, bytes of their paths and extended attributes.
pub const LISTED_BYTES_MAX: usize = 1 << 30;
/// All sessions of a node that write remember so much of entries, bytes: the directories of each, and its batch.
pub const SESSIONS_BYTES_MAX: usize = 2 << 30;
/// Directories of a session that are held open.
pub const DIRECTORIES_OPEN_MAX: usize = 32;
/// One read of a file that is hashed, bytes.
pub const HASH_READ_BYTES: usize = 256 << 10;

// -- transfer ------------------------------------------------------------------------------------------

/// Objects in one flow's table.
pub const OBJECTS_MAX: usize = 4_000_000;
/// Bytes of names and checksums of what peers tell a flow of: 512 TiB of long objects. What is told beyond is not
/// taken, as with more objects than the table has room for.
pub const KNOWN_BYTES_MAX: u64 = 2 << 30;
/// Objects that a flow remembers to have missed and that are here by now, beside as many as it still misses.
pub const MISSED_SLACK: usize = 1024;
/// Requests that a link may have outstanding, and that a server queues for one link.
pub const REQUESTS_PER_LINK_MAX: usize = 256;
/// Part files that one flow has open before it asks for no more: arriving, or whole and not committed yet.
pub const OPEN_PARTS_MAX: usize = 2048;
/// A requester asks for its next object when what is outstanding would be here within this time.
pub const REQUEST_AHEAD: Duration = Duration::from_millis(500);
/// ... or when it is fewer bytes than this.
pub const REQUEST_AHEAD_BYTES_MIN: u64 = 64 << 10;
/// Objects of which ranges are on order or here; each may come to be open.
pub const GATHERS_MAX: usize = 8 * OPEN_PARTS_MAX;
/// A peer's log that starts over and does so again within this time ends its link.
pub const EPOCH_LASTS_MIN: Duration = Duration::from_secs(1);
/// Names that a flow's log tells to be removed; beyond this the log starts over.
pub const REMOVALS_MAX: usize = 1_000_000;
/// ... or with more bytes than these in their names.
pub const REMOVALS_BYTES_MAX: usize = 128 << 20;
/// While no peer's answer says that its log is of now, what is here from an earlier run is replaced by another version
/// only after this time: a relay may tell of one that is older.
pub const UNSURE_PATIENCE: Duration = Duration::from_secs(10);
/// Where what is gone at the origin is removed, so many objects may go at once, or as many as the origin still has: of
/// more it is likelier that a file system is not mounted there.
pub const MIRROR_REMOVED_MAX: usize = 32;
/// An object of at most so many bytes is small: one range.
pub const SMALL_OBJECT_BYTES_MAX: u64 = RANGE_BYTES_MIN;
/// An exchange passes an object on from memory if it is small; or if it has at most so many bytes ...
pub const KEPT_OBJECT_BYTES_MAX: u64 = 32 << 20;
/// ... and comes within this time, at the rate of those before it: so much is fetched again where the process dies.
pub const KEPT_TIME_MAX: Duration = Duration::from_millis(200);
/// What such an object costs besides its bytes, roughly.
pub const KEPT_OBJECT_COST: usize = 256;
/// However short it is, it may come in so many pieces that stay as they came.
pub const KEPT_RANGES_MIN: usize = 8;
/// Memory for such objects; what does not fit goes to disk.
pub const KEPT_BYTES_MAX: usize = 96 << 20;
/// Memory for small objects that a trader read to hash them; what does not fit is read again.
pub const AHEAD_BYTES_MAX: usize = 32 << 20;
/// For so long the links may take to free half of that.
pub const AHEAD_PATIENCE: Duration = Duration::from_millis(200);
/// The last bytes that came into spools and are had without reading a file, and what it takes to keep them.
pub const RECENT_BYTES_MAX: usize = 32 << 20;
/// Ranges that a link may have on order.
pub const RANGES_ORDERED_MAX: usize = 512;
/// Ranges that a server queues for one link.
pub const RANGES_PER_LINK_MAX: usize = 1024;
/// Ranges that an exchange has yet to order for one link, those among them that were cancelled since; of more it says
/// that they are not there now.
pub const DEMANDS_PER_LINK_MAX: usize = 4 * RANGES_PER_LINK_MAX;
/// Shortest range that is ordered, bytes, but for an object's end.
pub const RANGE_BYTES_MIN: u64 = 32 << 10;
/// A link that is not measured yet orders ranges of this length, bytes, ...
pub const RANGE_BYTES_FIRST: u64 = 32 << 10;
/// A range is what its link carries in this time.
pub const RANGE_TIME: Duration = Duration::from_millis(25);
/// A link has on order what it carries in this time.
pub const RANGES_AHEAD: Duration = Duration::from_millis(900);
/// ... or so many bytes, where that is more: what it takes to find out what a link carries, be it long.
pub const RANGES_AHEAD_BYTES_MIN: u64 = 1 << 20;
/// ... and of a fast link no more than this, unless it takes more to keep it busy for as long as its orders take.
pub const RANGES_AHEAD_BYTES_MUCH: u64 = 8 << 20;
/// A link that is not measured yet may have one range more on order each time that this has passed.
pub const RAMP_STEP: Duration = Duration::from_millis(5);
/// A link that carries nothing for this long is taken to go on so for as long again.
pub const STALL_AFTER: Duration = Duration::from_millis(150);
/// Of this many ranges ...
pub const HEALTH_RANGES: u32 = 16;
/// ... so many may be damaged before their link is put aside, ...
pub const DAMAGED_RANGES_MAX: u32 = 2;
/// ... for this time.
pub const ASIDE: Duration = Duration::from_secs(30);
/// Ranges of one object that are remembered to be damaged over a link.
pub const AVOIDED_RANGES_MAX: usize = 64;
/// Objects that one peer is asked for by name alone at a time, and that an exchange takes so from one link.
pub const INTERESTS_PER_PEER_MAX: usize = 64;
/// Pieces that a block may come in, twice as many as of the shortest packets that are passed on one by one; a block of
/// more is taken for damaged.
pub const PIECES_PER_BLOCK_MAX: usize = BLOCK_BYTES as usize / 32;
/// Objects that are passed over in the search for a range that a link may order.
pub const OBJECTS_PASSED_OVER_MAX: usize = 256;
/// Objects of which a peer has told another version than is known, and that are noted until it is clear whose counts.
pub const DOUBTS_PER_PEER_MAX: usize = 1024;
/// What came in by ranges is given up for whole objects when no link that carries ranges was there for this time.
pub const BLOCKS_PATIENCE: Duration = Duration::from_secs(30);
/// A peer's inventory is given this time to come before the peer is asked for objects by name alone, ...
pub const INTERESTS_AFTER: Duration = Duration::from_millis(500);
/// ... which is done again after this pause when the end of the list was reached, ...
pub const INTERESTS_EVERY: Duration = Duration::from_secs(1);
/// ... and after this one where all that the peer has comes with its inventory.
pub const INTERESTS_REFUSED: Duration = Duration::from_secs(10);
/// A train is at most what the link carries in this time, so that requests are never long behind data.
pub const TRAIN_TIME: Duration = Duration::from_millis(20);

// -- time ----------------------------------------------------------------------------------------------

/// An idle link between our own nodes sends `N:` this often.
pub const KEEPALIVE_EVERY: Duration = Duration::from_millis(400);
/// A link between our own nodes from which nothing came for this long is dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);
/// A server of the named protocol that was asked for something and sends nothing for this long is lost: there is no
/// packet by which it could say that it lives.
pub const NAMED_SILENCE_MAX: Duration = Duration::from_secs(10);
/// A peer must send its first packet within this time.
pub const FIRST_PACKET_WITHIN: Duration = Duration::from_secs(10);
/// An object that was pending at the peer is asked for again after this time, doubling ...
pub const RETRY_PENDING_MIN: Duration = Duration::from_millis(100);
/// ... up to this.
pub const RETRY_PENDING_MAX: Duration = Duration::from_secs(2);
/// A peer of which a block of an object was wrong is asked for more of that object after this time, doubling ...
pub const WRONG_BLOCK_DELAY_MIN: Duration = Duration::from_millis(100);
/// ... up to this, whatever else of it was right.
pub const WRONG_BLOCK_DELAY_MAX: Duration = Duration::from_secs(30);
/// A spool forgets an object that was delivered after this time, ...
pub const KEEP_DELIVERED: Duration = Duration::from_secs(10);
/// ... but one that is in memory after this, ...
pub const KEEP_DELIVERED_IN_MEMORY: Duration = Duration::from_millis(25);
/// ... and one that nobody asked for after this.
pub const KEEP_UNDELIVERED: Duration = Duration::from_secs(60);
/// Requests that wait are looked at this often though nothing happened to their objects: some have waited for too long.
pub const LOOK_AT_ASKED_EVERY: Duration = Duration::from_millis(250);
/// A packet that is not full waits at most this long for more, while its socket has enough to send.
pub const HOLD_PACKET: Duration = Duration::from_millis(40);
/// An object that one peer said is pending is left to the links of other peers for this time once it may be tried
/// again.
pub const OTHERS_FIRST: Duration = Duration::from_secs(1);
/// What a seed-only peer was asked for and has not begun to send within this time is open to links of other peers too.
pub const UNANSWERED_MAX: Duration = Duration::from_secs(2);
/// An exchange that has no link to the trader that an object is fetched from says so after this time.
pub const UPSTREAM_PATIENCE: Duration = Duration::from_secs(1);
/// An exchange that has no room to fetch an object within this time says that it is pending, so that what was asked for
/// behind it can go out and make room.
pub const ROOM_PATIENCE: Duration = Duration::from_secs(2);
/// A link that has something on order and brings nothing of it for this long is hoped for no more: what an exchange was
/// to pass on from it is pending.
pub const STALL_PATIENCE: Duration = Duration::from_secs(5);
/// A link that has something on order and brings nothing of it for this long is said to wait for it.
pub const LATE_AFTER: Duration = Duration::from_millis(500);
/// A peer of which nothing at all came for this long is said to be silent.
pub const QUIET_AFTER: Duration = Duration::from_secs(1);
/// After the store could not take an object, nothing new is fetched for this time, doubling ...
pub const HOLD_MIN: Duration = Duration::from_secs(1);
/// ... up to this.
pub const HOLD_MAX: Duration = Duration::from_secs(30);
/// ... and up to this for an object whose own place takes nothing.
pub const PLACE_RETRY_MAX: Duration = Duration::from_secs(300);
/// A packet that is owed to a seed-only peer only to keep its loop turning is sent after this time, doubling with each
/// idle turn ...
pub const IDLE_TURN_MIN: Duration = Duration::from_micros(100);
/// ... up to this.
pub const IDLE_TURN_MAX: Duration = Duration::from_millis(10);
/// Idle turns in a row after which a seed-only peer that asks for nothing is taken to want nothing.
pub const IDLE_TURNS_BEFORE_END: u32 = 20;
/// First delay before a dial is tried again; doubles, with jitter ...
pub const REDIAL_MIN: Duration = Duration::from_millis(20);
/// ... up to this.
pub const REDIAL_MAX: Duration = Duration::from_secs(10);
/// A fetch that brought no object over so many connections in a row ends.
pub const FETCH_TRIES_MAX: u32 = 12;
/// ... and one that nothing understandable ever came to, over so many.
pub const FETCH_UNANSWERED_MAX: u32 = 3;
/// Longest delay between two of them; the first is [`REDIAL_MIN`].
pub const FETCH_RETRY_MAX: Duration = Duration::from_secs(5);
/// A fetch asks so many times for an object that the server does not send to its end.
pub const FETCH_BROKEN_OFF_MAX: u32 = 3;
/// A fetch looks whether everything is here this often, ...
pub const FETCH_LOOK_EVERY: Duration = Duration::from_millis(10);
/// ... and tells how far it has come this often.
pub const FETCH_PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// A link that was up for this long is dialed again after the first delay.
pub const REDIAL_FORGET: Duration = Duration::from_secs(1);
/// A listener's address that is in use is tried again for this long when a node starts.
pub const BIND_WITHIN: Duration = Duration::from_secs(3);
/// ... after this pause each time.
pub const BIND_PAUSE: Duration = Duration::from_millis(20);
/// A listener pauses for this time after the system could not accept, for want of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A dial that got no answer is given up after this time.
pub const DIAL_WITHIN: Duration = Duration::from_secs(5);
/// Addresses of one name that are dialed one after the other.
pub const DIAL_ADDRESSES_MAX: usize = 8;
/// Data that a peer's TCP does not acknowledge for this long ends the link.
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// TCP asks an idle peer whether it lives after this time, ...
pub const TCP_IDLE: Duration = Duration::from_secs(10);
/// ... then this often, ...
pub const TCP_PROBE_EVERY: Duration = Duration::from_secs(3);
/// ... and gives it up after this many questions.
pub const TCP_PROBES: u32 = 3;
/// A worker that has not gone through its loop for this long is stuck.
pub const TURN_MAX: Duration = Duration::from_secs(10);
/// The service manager's watchdog is fed at least this often.
pub const WATCHDOG_EVERY_MAX: Duration = Duration::from_secs(5);
/// Rates are taken this often.
pub const RATE_EVERY: Duration = Duration::from_millis(500);
/// Problems of one kind that status shows and the log tells at once.
pub const PROBLEMS_SHOWN_MAX: usize = 20;
/// Of the objects that cannot be fetched the log tells so many once in this time.
pub const FAILURES_TOLD_EVERY: Duration = Duration::from_secs(60);
/// SIGTERM: links finish their packet and files are committed within this time.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// Lines that the log has at once for the changes of one link; an outage of the peer takes three, ...
pub const LINK_LINES_AT_ONCE: u32 = 12;
/// ... further changes are counted and told after this time, which doubles ...
pub const LINK_LINES_EVERY_MIN: Duration = Duration::from_secs(60);
/// ... up to this.
pub const LINK_LINES_EVERY_MAX: Duration = Duration::from_secs(3600);
/// A link that fails each time for what a person has to correct is a problem until it has not failed so for this time:
/// it is tried again within [`REDIAL_MAX`], and may take [`FIRST_PACKET_WITHIN`] to fail.
pub const MISFIT_SHOWN_FOR: Duration = Duration::from_secs(40);
/// Longest value of one field of an entry of the journal, bytes; more is cut off.
pub const LOG_FIELD_BYTES_MAX: usize = 8 << 10;

// -- config --------------------------------------------------------------------------------------------

/// Longest config file, bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Problems of one config that are printed; the rest is counted.
pub const CONFIG_PROBLEMS_SHOWN_MAX: usize = 20;
/// Addresses that one trader listens on.
pub const LISTENERS_MAX: usize = 64;
/// Networks that one listener allows.
pub const ALLOW_MAX: usize = 1024;
/// Modules of one node.
pub const MODULES_MAX: usize = 256;
/// Longest name of a module, bytes.
pub const MODULE_NAME_BYTES_MAX: usize = 64;
/// Worker threads of one node.
pub const WORKERS_MAX: usize = 64;
/// What one spool may hold when the config does not say, bytes.
pub const SPOOL_BYTES_DEFAULT: u64 = 4 << 30;
/// Longest path of a unix socket, bytes: `sockaddr_un` less the terminating NUL (unix(7)), and less the `.new` that a
/// socket is called until it is ready.
pub const SOCKET_PATH_BYTES_MAX: usize = 103;
/// Longest name of a TCP congestion control, bytes: TCP_CA_NAME_MAX less the terminating NUL (tcp(7)).
pub const CONGESTION_BYTES_MAX: usize = 15;

// -- control -------------------------------------------------------------------------------------------

/// Connections to the control socket at a time, and as many to the page. More wait in the backlog, ...
pub const CONTROL_CONNECTIONS_MAX: usize = 64;
/// ... unless one of these has sent nothing for so long: it gives way.
pub const CONTROL_SILENT_MIN: Duration = Duration::from_secs(1);
/// A control connection that sends no whole request head for this long is closed.
pub const CONTROL_HEADER_WITHIN: Duration = Duration::from_secs(10);
/// ... and so is one that takes nothing of its answer for this long.
pub const CONTROL_TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// A daemon looks this often whether its control socket still has its name.
pub const CONTROL_LOOK_EVERY: Duration = Duration::from_secs(1);
/// SIGTERM: answers under way on the control socket are finished within this time.
pub const CONTROL_DRAIN_WITHIN: Duration = Duration::from_secs(1);
/// A request that waits for the node looks at it this often.
pub const CONTROL_POLL_EVERY: Duration = Duration::from_millis(100);
/// A request that waits for the node is answered after this time at the latest.
pub const CONTROL_WAIT_MAX: Duration = Duration::from_secs(60);
/// ... and before it hears that the node is synced, what is marked is looked at for no longer than this.
pub const CONTROL_CHECK_WITHIN: Duration = Duration::from_secs(5);
/// The page is told this often how the node is, ...
pub const PAGE_EVERY: Duration = Duration::from_secs(1);
/// ... in so many places at a time: the other connections are for those who ask and go, ...
pub const PAGE_READERS_MAX: usize = CONTROL_CONNECTIONS_MAX / 2;
/// ... and at its start how fast the links were so many times before.
pub const PAGE_HISTORY_MAX: usize = 60;
/// A client gives a daemon up that has not answered a plain question within this time.
pub const CONTROL_ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Longest answer that a client reads, bytes.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 64 << 20;
/// A rate below this is shown as idle, bytes per second: keep-alive alone makes some.
pub const RATE_IDLE: f64 = 16_384.0;
/// Objects in one answer, unless told otherwise ...
pub const CONTROL_OBJECTS_DEFAULT: usize = 1000;
/// ... and at most.
pub const CONTROL_OBJECTS_MAX: usize = 100_000;
/// `--watch` and `top` show a new picture this often.
pub const SHOW_EVERY: Duration = Duration::from_secs(1);
/// `top` shows so many moments of each link, [`SHOW_EVERY`] apart: the last minute.
pub const TOP_HISTORY: usize = 60;

// -- demo ----------------------------------------------------------------------------------------------

/// Segments of each trader in the demo ...
pub const DEMO_SEGMENTS_DEFAULT: u32 = 48;
/// ... and records of each, unless told otherwise.
pub const DEMO_RECORDS_DEFAULT: u64 = 1_000_000;
/// Exchanges of the demo.
pub const DEMO_EXCHANGES_MAX: u16 = 16;
/// Links between each exchange and each trader of the demo.
pub const DEMO_LINKS_MAX: u16 = 32;
/// Segments that one spool of the demo holds.
pub const DEMO_SPOOL_SEGMENTS: u64 = 64;
/// The exchange that the demo kills comes back after this time.
pub const DEMO_REVIVE_AFTER: Duration = Duration::from_secs(1);
/// The demo gives up when nothing arrived for this long.
pub const DEMO_STALL_MAX: Duration = Duration::from_secs(60);

const _: () = {
    assert!(SESSION_STOP_WITHIN.as_millis() < SESSION_LEFT_WITHIN.as_millis());
    // One session alone does not have all of it.
    assert!(LISTED_BYTES_MAX + 2 * BATCH_INFO_BYTES_MAX < SESSIONS_BYTES_MAX);
    assert!(SESSION_SILENCE_MAX.as_millis() < SESSION_BUSY_WITHIN.as_millis());
    // What says that a connection is there has 5 bytes.
    assert!(SESSION_SILENCE_MAX.as_millis() / SESSION_KEEPALIVE_EVERY.as_millis() * 10 < SESSION_TRICKLE_BYTES as u128);
    assert!(2 + SESSION_OPTIONS_BYTES_MAX + NAME_BYTES_MAX <= SESSION_PAYLOAD_BYTES_MAX);
    assert!(SESSION_BLOCK_BYTES_DEFAULT >= SESSION_BLOCK_BYTES_MIN);
    assert!(SESSION_BLOCK_BYTES_DEFAULT as usize <= SESSION_DATA_BYTES_MAX);
    assert!(SESSION_TEXT_BYTES_MAX + 2 <= SESSION_CONTROL_BYTES_MAX);
    assert!(SESSION_MESSAGE_BYTES_MAX <= RECV_BUFFER_BYTES);
    assert!(RANGES_ORDERED_MAX <= RANGES_PER_LINK_MAX);
    assert!(RANGE_BYTES_MIN.is_power_of_two() && RANGE_BYTES_MIN <= RANGE_BYTES_FIRST);
    assert!(RANGE_BYTES_FIRST.is_power_of_two() && RANGE_BYTES_FIRST <= BLOCK_BYTES);
    assert!(RANGE_TIME.as_millis() * 2 <= RANGES_AHEAD.as_millis());
    // Objects that another peer is about to have leave room to look at others.
    assert!(INTERESTS_PER_PEER_MAX < OBJECTS_PASSED_OVER_MAX);
    assert!(HEALTH_RANGES <= u32::BITS && DAMAGED_RANGES_MAX < HEALTH_RANGES);
    // The longest entry of an inventory: a checksum a block, a name, and room for the rest of it.
    assert!(BLOCKS_PER_OBJECT_MAX * 4 + NAME_BYTES_MAX as u64 + 256 <= NEWS_BYTES_MAX as u64);
    assert!(NEWS_BYTES <= NEWS_BYTES_MAX);
    assert!(XATTR_BYTES_MAX + NAME_BYTES_MAX + 4096 < 65_536);
    assert!(BLOCKS_PER_OBJECT_MAX <= OBJECT_BYTES_MAX / BLOCK_BYTES);
    // A size, a root and a time.
    assert!(MARKER_BYTES_MAX >= 256);
    // A block is a whole subtree.
    assert!(BLOCK_BYTES.is_power_of_two() && BLOCK_BYTES >= 2048);
    assert!(LOG_RECORD_BYTES_MAX > 2 * NAME_BYTES_MAX + 16 * JOURNAL_RECORD_RANGES_MAX);
    assert!(PADDING_POOL_BYTES.is_power_of_two());
    assert!(PADDING_POOL_BYTES >= 2 * PACKET_BYTES_MAX as usize);
    assert!(RECV_BUFFER_BYTES >= PACKET_BYTES_MAX as usize);
    assert!(IDLE_BUFFER_BYTES < RECV_BUFFER_BYTES);
    assert!(TRAIN_BYTES_MAX >= PACKET_BYTES_MAX as usize);
    assert!(TRAIN_BYTES_MIN <= TRAIN_BYTES_MAX);
    assert!(RING_ENTRIES as usize > 3 * (LINKS_MAX + SESSION_LINKS_MAX + SESSION_CALLERS_MAX));
    assert!(SESSION_CONNECTIONS_MAX <= SESSION_LINKS_MAX / 2);
    assert!(LISTENERS_MAX <= LINKS_MAX);
    assert!(DEMO_EXCHANGES_MAX as usize * DEMO_LINKS_MAX as usize <= LINKS_MAX);
    assert!(2 * DEMO_LINKS_MAX as usize <= LINKS_MAX);
    assert!(PACKET_BYTES_DEFAULT >= PACKET_BYTES_MIN && PACKET_BYTES_DEFAULT <= PACKET_BYTES_MAX);
    assert!(KEEPALIVE_EVERY.as_millis() * 3 <= SILENCE_MAX.as_millis());
    assert!(
        KEEPALIVE_EVERY.as_millis() * 2 <= QUIET_AFTER.as_millis() && QUIET_AFTER.as_millis() < SILENCE_MAX.as_millis()
    );
    assert!(RETRY_PENDING_MIN.as_millis() <= RETRY_PENDING_MAX.as_millis());
    assert!(LINK_LINES_EVERY_MIN.as_secs() <= LINK_LINES_EVERY_MAX.as_secs());
    assert!(MISFIT_SHOWN_FOR.as_secs() > REDIAL_MAX.as_secs() + FIRST_PACKET_WITHIN.as_secs());
    assert!(MISFIT_SHOWN_FOR.as_secs() < LINK_LINES_EVERY_MIN.as_secs());
    assert!(REDIAL_MIN.as_millis() <= REDIAL_MAX.as_millis());
    assert!(CONTROL_DRAIN_WITHIN.as_millis() <= DRAIN_WITHIN.as_millis());
    assert!(CONTROL_OBJECTS_DEFAULT <= CONTROL_OBJECTS_MAX);
};
