//! What the engine sets on a link's socket, and what it asks of it.
//!
//! Each function is one socket option or call; none keeps state. Errors are what the kernel says.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{self, getsockopt, setsockopt, sockopt};

/// Longest TCP_INFO that is read. Kernels add fields at its end and return what both know.
const TCP_INFO_BYTES: usize = 256;

/// What a link's socket is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// TCP_NODELAY: trains are sent whole, so waiting to fill a segment only delays their ends.
    pub no_delay: bool,
    /// TCP_NOTSENT_LOWAT, bytes: the socket takes more only while less than this is unsent, so that a request is never
    /// long behind data. `None`: the system's.
    pub not_sent_low_water: Option<u32>,
    /// SO_SNDBUF, bytes (the kernel doubles it). `None`: the kernel tunes it, which is better on long paths.
    pub send_buffer: Option<usize>,
    /// TCP_USER_TIMEOUT: sent data that is not acknowledged for this long kills the connection.
    pub user_timeout: Option<Duration>,
    /// Keep-alive: idle time before the first, time between, and how many go unanswered. Whole seconds.
    pub keep_alive: Option<(Duration, Duration, u32)>,
    /// TCP_CONGESTION. `None`: the system's.
    pub congestion: Option<String>,
}

/// Bounds what the kernel keeps of what has come and was not read (SO_RCVBUF; the kernel doubles it, and tunes it no
/// more).
///
/// # Errors
/// What `setsockopt` says.
pub fn set_receive_buffer(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::RcvBuf, &bytes)?)
}

/// What an error of a connection, or of making one, means to a person.
pub fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::HostUnreachable => "no route to the host".into(),
        io::ErrorKind::NetworkUnreachable => "the network is unreachable".into(),
        io::ErrorKind::TimedOut => "no answer".into(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            "the peer closed the connection; its log says why".into()
        }
        _ => error.to_string(),
    }
}

/// What the kernel tells of a TCP connection (TCP_INFO). A field that this kernel does not have is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Shortest round-trip time seen, microseconds.
    pub min_rtt_us: u32,
    /// Congestion window, segments.
    pub congestion_window: u32,
    /// Segment size for sending, bytes.
    pub segment_bytes: u32,
    /// Latest rate at which data was delivered, bytes per second.
    pub delivery_rate: u64,
    /// The delivery rate was limited by us having nothing to send, not by the path.
    pub application_limited: bool,
    /// Bytes that the peer acknowledged, since the connection was made.
    pub bytes_acked: u64,
    /// Bytes received, since the connection was made.
    pub bytes_received: u64,
    /// Bytes taken from us and not sent yet.
    pub not_sent: u32,
    /// Segments sent again, since the connection was made.
    pub retransmitted: u32,
    /// Times in a row that the oldest unacknowledged segment was sent again.
    pub resending: u8,
    /// Time with something to send, or sent and not acknowledged.
    pub busy: Duration,
    /// Of this, the time that the peer's receive window was full.
    pub receiver_limited: Duration,
    /// Of this, the time that our own send buffer was too small.
    pub send_buffer_limited: Duration,
}

/// Sets `options`, and blocking mode, which rings need and their twin does not mind.
///
/// # Errors
/// The first option that the kernel refuses, by name.
pub fn apply(socket: impl AsFd, options: &Options) -> io::Result<()> {
    let socket = socket.as_fd();
    set_blocking(socket)?;
    named("TCP_NODELAY", setsockopt(&socket, sockopt::TcpNoDelay, &options.no_delay))?;
    if let Some(bytes) = options.not_sent_low_water {
        named("TCP_NOTSENT_LOWAT", set_not_sent_low_water(socket, bytes))?;
    }
    if let Some(bytes) = options.send_buffer {
        named("SO_SNDBUF", setsockopt(&socket, sockopt::SndBuf, &bytes))?;
    }
    if let Some(timeout) = options.user_timeout {
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        named("TCP_USER_TIMEOUT", setsockopt(&socket, sockopt::TcpUserTimeout, &milliseconds))?;
    }
    if let Some((idle, interval, count)) = options.keep_alive {
        named("SO_KEEPALIVE", setsockopt(&socket, sockopt::KeepAlive, &true))?;
        named("TCP_KEEPIDLE", setsockopt(&socket, sockopt::TcpKeepIdle, &whole_seconds(idle)))?;
        named("TCP_KEEPINTVL", setsockopt(&socket, sockopt::TcpKeepInterval, &whole_seconds(interval)))?;
        named("TCP_KEEPCNT", setsockopt(&socket, sockopt::TcpKeepCount, &count))?;
    }
    if let Some(name) = &options.congestion {
        set_congestion(socket, name)?;
    }
    Ok(())
}

/// Clears O_NONBLOCK. On a non-blocking socket a ring's operations do not wait: they fail with EAGAIN.
///
/// # Errors
/// What `fcntl` says.
pub fn set_blocking(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    if flags.contains(OFlag::O_NONBLOCK) {
        fcntl(socket, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

/// Chooses the congestion control by name ("bbr", "cubic", ...).
///
/// # Errors
/// ENOENT when the kernel does not have it, EPERM when it is not among `net.ipv4.tcp_allowed_congestion_control`.
pub fn set_congestion(socket: impl AsFd, name: &str) -> io::Result<()> {
    named("TCP_CONGESTION", setsockopt(&socket.as_fd(), sockopt::TcpCongestion, &OsString::from(name)))
}

/// The congestion control in use.
///
/// # Errors
/// What `getsockopt` says.
pub fn congestion(socket: impl AsFd) -> io::Result<String> {
    let name: OsString = getsockopt(&socket.as_fd(), sockopt::TcpCongestion)?;
    Ok(OsStr::to_string_lossy(&name).trim_end_matches('\0').to_owned())
}

/// How the connection does.
///
/// # Errors
/// What `getsockopt` says; it is not a TCP socket.
pub fn tcp_info(socket: impl AsFd) -> io::Result<TcpInfo> {
    let mut raw = [0u8; TCP_INFO_BYTES];
    let mut length = TCP_INFO_BYTES as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `raw` is `length` writable bytes, and `length` is a writable integer, both borrowed for the call; the
    // kernel writes at most `length` bytes and keeps no pointer.
    let told =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, raw.as_mut_ptr().cast(), &raw mut length) };
    Errno::result(told)?;
    let known = raw.get(..length as usize).unwrap_or(&raw);
    Ok(TcpInfo::read(known))
}

/// Bytes taken from us that the peer has not acknowledged, sent or not (SIOCOUTQ).
///
/// # Errors
/// What `ioctl` says.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: this request writes one integer to the address that it is given, which is borrowed for the call.
    let told = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    Errno::result(told)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Ends one or both directions: operations in flight complete, the peer reads an end. Not being connected any more is
/// no error: then it is done.
///
/// # Errors
/// What `shutdown` says.
pub fn shutdown(socket: impl AsFd, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => socket::Shutdown::Read,
        Shutdown::Write => socket::Shutdown::Write,
        Shutdown::Both => socket::Shutdown::Both,
    };
    match socket::shutdown(socket.as_fd().as_raw_fd(), how) {
        Ok(()) | Err(Errno::ENOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Default for Options {
    /// No delay, and everything else as the system has it.
    fn default() -> Options {
        Options {
            no_delay: true,
            not_sent_low_water: None,
            send_buffer: None,
            user_timeout: None,
            keep_alive: None,
            congestion: None,
        }
    }
}

impl TcpInfo {
    /// Offsets are those of `struct tcp_info` in linux/tcp.h, which only ever grows.
    fn read(raw: &[u8]) -> TcpInfo {
        let u32_at = |offset: usize| {
            raw.get(offset..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
        };
        let u64_at = |offset: usize| {
            raw.get(offset..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        // A bit field: its lowest bit in memory is the first declared.
        let limited_bit = if cfg!(target_endian = "little") { 1 } else { 0x80 };
        TcpInfo {
            application_limited: raw.get(7).is_some_and(|bits| bits & limited_bit != 0),
            segment_bytes: u32_at(16),
            rtt_us: u32_at(68),
            congestion_window: u32_at(80),
            retransmitted: u32_at(100),
            bytes_acked: u64_at(120),
            bytes_received: u64_at(128),
            not_sent: u32_at(144),
            min_rtt_us: u32_at(148),
            delivery_rate: u64_at(160),
            resending: raw.get(2).copied().unwrap_or(0),
            busy: Duration::from_micros(u64_at(168)),
            receiver_limited: Duration::from_micros(u64_at(176)),
            send_buffer_limited: Duration::from_micros(u64_at(184)),
        }
    }
}

/// Sets how many bytes may wait unsent in the socket (TCP_NOTSENT_LOWAT).
///
/// # Errors
/// What `setsockopt` says.
pub fn set_not_sent_low_water(socket: impl AsFd, bytes: u32) -> nix::Result<()> {
    let socket = socket.as_fd();
    let length = mem::size_of::<u32>() as libc::socklen_t;
    let value = (&raw const bytes).cast();
    // SAFETY: `value` points to `length` readable bytes, borrowed for the call; the kernel keeps no pointer.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, value, length) };
    Errno::result(set).map(drop)
}

fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1)
}

fn named(option: &str, result: nix::Result<()>) -> io::Result<()> {
    result.map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("{option}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        (near, listener.accept().expect("its other end").0)
    }

    #[test]
    fn options_are_set_as_asked() {
        let (near, _far) = pair();
        near.set_nonblocking(true).expect("a flag");
        let name = congestion(&near).expect("every TCP socket has one");
        assert!(!name.is_empty() && !name.contains('\0'), "{name:?}");
        let options = Options {
            not_sent_low_water: Some(128 << 10),
            send_buffer: Some(64 << 10),
            user_timeout: Some(Duration::from_secs(3)),
            keep_alive: Some((Duration::from_secs(5), Duration::from_millis(10), 3)),
            congestion: Some(name.clone()),
            ..Options::default()
        };
        apply(&near, &options).expect("ordinary options");
        assert!(near.nodelay().expect("an option"));
        assert_eq!(getsockopt(&near, sockopt::SndBuf).expect("an option"), 128 << 10);
        assert_eq!(getsockopt(&near, sockopt::TcpUserTimeout).expect("an option"), 3000);
        assert_eq!(getsockopt(&near, sockopt::TcpKeepIdle).expect("an option"), 5);
        assert_eq!(getsockopt(&near, sockopt::TcpKeepInterval).expect("an option"), 1);
        assert_eq!(congestion(&near).expect("an option"), name);
        let flags = OFlag::from_bits_retain(fcntl(&near, FcntlArg::F_GETFL).expect("flags"));
        assert!(!flags.contains(OFlag::O_NONBLOCK));

        let refused = set_congestion(&near, "no-such-control").expect_err("no kernel has it");
        assert!(refused.to_string().starts_with("TCP_CONGESTION: "), "{refused}");
    }

    #[test]
    fn info_counts_what_the_peer_acknowledged() {
        let (mut near, mut far) = pair();
        near.write_all(&[7; 5000]).expect("room in the socket buffer");
        far.read_exact(&mut [0; 5000]).expect("what was sent");
        far.write_all(&[8; 100]).expect("room in the socket buffer");
        near.read_exact(&mut [0; 100]).expect("the answer, which acknowledges");
        let info = tcp_info(&near).expect("a TCP socket");
        assert!(info.bytes_acked >= 5000, "{info:?}");
        assert_eq!(info.bytes_received, 100);
        assert!(info.rtt_us > 0 && info.segment_bytes > 0 && info.congestion_window > 0, "{info:?}");
        assert_eq!(unacknowledged(&near).expect("a TCP socket"), 0);
    }

    #[test]
    fn a_short_answer_leaves_later_fields_zero() {
        let mut raw = [0u8; 104];
        raw[68..72].copy_from_slice(&1500u32.to_ne_bytes());
        raw[100..].copy_from_slice(&3u32.to_ne_bytes());
        let info = TcpInfo::read(&raw);
        assert_eq!((info.rtt_us, info.retransmitted, info.bytes_acked), (1500, 3, 0));
        assert_eq!(TcpInfo::read(&raw[..102]).retransmitted, 0);
        assert_eq!(TcpInfo::read(&[]), TcpInfo::default());
    }

    #[test]
    fn shutdown_of_a_connection_that_was_reset_is_no_error() {
        let (near, far) = pair();
        (&near).write_all(b"unread").expect("room in the socket buffer");
        far.peek(&mut [0; 6]).expect("it arrived");
        // Closing with unread data resets the connection.
        drop(far);
        let mut byte = [0];
        let end = (&near).read(&mut byte);
        let error = end.expect_err("it is reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(describe(&error), "the peer closed the connection; its log says why");
        assert_eq!(describe(&io::Error::from(Errno::EPIPE)), "the peer closed the connection; its log says why");
        shutdown(&near, Shutdown::Both).expect("no error");
    }
}
