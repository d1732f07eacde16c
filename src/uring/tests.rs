//! Rings and their twin against real sockets and files, by the same tests. Where the kernel refuses rings, theirs say
//! so and end.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use nix::libc;

use super::{Buffer, Driver, DriverKind, Gather, Outcome, Pool, RingError, Token, socket};
use crate::limits::{TRAIN_BYTES_MAX, TRAIN_IOVECS_MAX};

const PACKET: usize = 1400;

/// Each fact is a test of its own for each of the drivers, which gets one for so many operations.
macro_rules! of_each_driver {
    ($($fact:ident: $operations:literal,)*) => {
        mod uring {
            $(#[test] fn $fact() { super::check(super::DriverKind::Uring, $operations, super::$fact) })*
        }
        mod blocking {
            $(#[test] fn $fact() { super::check(super::DriverKind::Blocking, $operations, super::$fact) })*
        }
    };
}

of_each_driver! {
    echo_returns_every_byte_over_a_narrow_socket: 8,
    gather_of_1024_pieces_arrives_as_it_was_made: 8,
    receive_continues_behind_a_partial_packet: 8,
    cancelled_receive_gives_the_buffer_back: 8,
    cancelled_send_goes_on_where_it_stopped: 8,
    dropped_driver_gives_everything_back: 16,
    failed_peer_is_an_error_not_a_signal: 8,
    wakes_from_other_threads_are_never_lost: 8,
    returned_buffer_wakes_the_worker_that_had_none: 8,
    wait_ends_with_its_timeout: 8,
    full_driver_returns_what_it_does_not_take: 8,
    many_links_on_one_driver_each_get_their_own_bytes: 64,
    second_send_on_a_token_is_a_broken_invariant: 8,
}

fn check(kind: DriverKind, operations: u32, fact: fn(Driver)) {
    match Driver::new(kind, operations) {
        Ok((driver, _)) => fact(driver),
        Err(RingError::Os { call, source }) => panic!("{call}: {source}"),
        Err(error) if kind == DriverKind::Uring => println!("skipped, no rings here: {error}"),
        Err(error) => panic!("{error}"),
    }
}

fn unix_pair() -> (Arc<OwnedFd>, UnixStream) {
    let (near, far) = UnixStream::pair().expect("two sockets");
    (Arc::new(near.into()), far)
}

fn tcp_pair() -> (Arc<OwnedFd>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    (Arc::new(near.into()), listener.accept().expect("its other end").0)
}

fn buffer(bytes: usize) -> Buffer {
    Pool::new(1, bytes).expect("a mapping").take().expect("a new pool is full")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|place| (place % 251) as u8 ^ (place / 251) as u8).collect()
}

/// Packets of `M:` and payload, as many as fit, and the bytes that they are.
fn packets_of(content: &Bytes) -> (Gather, Vec<u8>) {
    let mut train = Gather::new();
    let mut expected = Vec::new();
    let mut offset = 0;
    while offset + PACKET - 2 <= content.len() && train.iovecs_left() >= 2 {
        let payload = content.slice(offset..offset + PACKET - 2);
        assert!(train.push_static(b"M:") && train.push_owned(&payload));
        expected.extend_from_slice(b"M:");
        expected.extend_from_slice(&payload);
        offset += PACKET - 2;
    }
    (train, expected)
}

fn next(driver: &mut Driver) -> (Token, Outcome) {
    loop {
        if let Some(completion) = driver.next_completion() {
            return (completion.token, completion.outcome);
        }
        driver.wait(None).expect("the driver works");
    }
}

fn next_sent(driver: &mut Driver) -> (Gather, io::Result<usize>) {
    match next(driver) {
        (_, Outcome::Sent { train, result }) => (train, result),
        (token, Outcome::Received { .. }) => panic!("{token:?} received"),
    }
}

fn next_received(driver: &mut Driver) -> (Buffer, io::Result<usize>) {
    match next(driver) {
        (_, Outcome::Received { buffer, result }) => (buffer, result),
        (token, Outcome::Sent { .. }) => panic!("{token:?} sent"),
    }
}

/// Sends all of it, again and again where it stopped.
fn send_all(driver: &mut Driver, socket: &Arc<OwnedFd>, mut train: Gather) -> Gather {
    while !train.is_done() {
        driver.send(Token(7), socket, train).expect("room for one more");
        let (back, result) = next_sent(driver);
        assert!(result.expect("the peer reads") > 0);
        train = back;
    }
    train
}

fn errno(result: &io::Result<usize>) -> Option<i32> {
    result.as_ref().err().and_then(io::Error::raw_os_error)
}

fn echo_returns_every_byte_over_a_narrow_socket(mut driver: Driver) {
    let (near, mut far) = unix_pair();
    let options = nix::sys::socket::sockopt::SndBuf;
    nix::sys::socket::setsockopt(&near, options, &4096).expect("an option");
    let echo = thread::spawn(move || {
        let mut bytes = [0; 3000];
        while let Ok(count @ 1..) = far.read(&mut bytes) {
            far.write_all(&bytes[..count]).expect("the driver reads");
        }
    });

    let sent = pattern(TRAIN_BYTES_MAX);
    let mut train = Gather::new();
    assert!(train.push_bytes(&sent));
    assert!(!train.push_bytes(b"x"), "the train is full");
    let mut received = Vec::new();
    driver.send(Token(1), &near, train).expect("room for one more");
    driver.recv(Token(1), &near, buffer(64 << 10)).expect("room for one more");
    let mut all_sent = false;
    while received.len() < sent.len() || !all_sent {
        match next(&mut driver) {
            (Token(1), Outcome::Sent { train, result }) => {
                result.expect("the peer reads");
                all_sent = train.is_done();
                if !all_sent {
                    driver.send(Token(1), &near, train).expect("room for one more");
                }
            }
            (Token(1), Outcome::Received { mut buffer, result }) => {
                let count = result.expect("the peer writes");
                assert_eq!(buffer.filled().len(), count);
                received.extend_from_slice(buffer.filled());
                buffer.clear();
                driver.recv(Token(1), &near, buffer).expect("room for one more");
            }
            (token, _) => panic!("{token:?} is nobody's"),
        }
    }
    assert!(received == sent);

    socket::shutdown(&near, Shutdown::Write).expect("a connected socket");
    let (_, result) = next_received(&mut driver);
    assert_eq!(result.expect("the echo has ended"), 0);
    echo.join().expect("the echo");
    assert_eq!(driver.in_flight(), 0);
}

fn gather_of_1024_pieces_arrives_as_it_was_made(mut driver: Driver) {
    let content = Bytes::from(pattern(600 * (PACKET - 2)));
    let (near, mut far) = tcp_pair();
    let (train, expected) = packets_of(&content);
    assert_eq!((train.iovecs_left(), train.len_bytes()), (0, TRAIN_IOVECS_MAX / 2 * PACKET));
    let reader = thread::spawn(move || {
        let mut arrived = vec![0; TRAIN_IOVECS_MAX / 2 * PACKET];
        far.read_exact(&mut arrived).expect("all of it");
        arrived
    });
    let train = send_all(&mut driver, &near, train);
    assert_eq!(train.sent(), expected.len());
    assert!(reader.join().expect("the reader") == expected);
}

fn receive_continues_behind_a_partial_packet(mut driver: Driver) {
    let (near, mut far) = unix_pair();
    let mut buffer = buffer(4096);
    buffer.copy_from(b"first half, ");
    far.write_all(b"second half").expect("room in the socket");
    driver.recv(Token(1), &near, buffer).expect("room for one more");
    let (buffer, result) = next_received(&mut driver);
    assert_eq!(result.expect("bytes are there"), 11);
    assert_eq!(buffer.filled(), b"first half, second half");
}

fn cancelled_receive_gives_the_buffer_back(mut driver: Driver) {
    let (near, _far) = unix_pair();
    let mut buffer = buffer(4096);
    buffer.copy_from(b"kept");
    driver.recv(Token(3), &near, buffer).expect("room for one more");
    driver.wait(Some(Duration::ZERO)).expect("the driver works");
    assert!(driver.next_completion().is_none());
    assert_eq!(driver.in_flight(), 1);
    driver.cancel(Token(4));
    driver.cancel(Token(3));
    driver.cancel(Token(3));
    let (buffer, result) = next_received(&mut driver);
    assert_eq!(errno(&result), Some(libc::ECANCELED));
    assert_eq!(buffer.filled(), b"kept");
    assert_eq!(driver.in_flight(), 0);
    driver.recv(Token(3), &near, buffer).expect("the token is free again");
}

fn cancelled_send_goes_on_where_it_stopped(mut driver: Driver) {
    let (near, mut far) = unix_pair();
    let sent = pattern(TRAIN_BYTES_MAX);
    let mut train = Gather::new();
    assert!(train.push_bytes(&sent));
    driver.send(Token(1), &near, train).expect("room for one more");
    driver.wait(Some(Duration::ZERO)).expect("the driver works");
    driver.cancel(Token(1));
    let (train, result) = next_sent(&mut driver);
    let count = result.expect("the socket's buffer took some");
    assert!(count > 0 && count < sent.len() && train.sent() == count, "{count} bytes");

    let reader = thread::spawn(move || {
        let mut arrived = vec![0; TRAIN_BYTES_MAX];
        far.read_exact(&mut arrived).expect("all of it");
        arrived
    });
    let train = send_all(&mut driver, &near, train);
    assert!(train.is_done());
    assert!(reader.join().expect("the reader") == sent);
}

fn dropped_driver_gives_everything_back(mut driver: Driver) {
    let pool = Pool::new(4, 1 << 20).expect("a mapping");
    let padding: Arc<[u8]> = vec![b'#'; TRAIN_BYTES_MAX].into();
    let waker = driver.waker();
    let sockets: Vec<_> = (0..4).map(|_| unix_pair()).collect();
    for (token, (near, _)) in (0..).map(Token).zip(&sockets) {
        driver.recv(token, near, pool.take().expect("one each")).expect("room for one more");
        if token.0 == 2 {
            // Two of the receives are with the kernel, two will not have been submitted.
            driver.wait(Some(Duration::ZERO)).expect("the driver works");
        }
        let mut train = Gather::with_arena(0);
        assert!(train.push_owned(&Bytes::from_owner(Arc::clone(&padding))));
        driver.send(token, near, train).expect("room for one more");
    }
    assert_eq!(pool.available(), 0);
    drop(driver);
    assert_eq!(pool.available(), 4);
    assert_eq!(Arc::strong_count(&padding), 1);
    assert!(sockets.iter().all(|(near, _)| Arc::strong_count(near) == 1));
    waker.wake();
}

fn failed_peer_is_an_error_not_a_signal(mut driver: Driver) {
    let (near, far) = unix_pair();
    drop(far);
    let mut train = Gather::with_arena(16);
    assert!(train.push_bytes(b"nobody reads it"));
    driver.send(Token(1), &near, train).expect("room for one more");
    let (train, result) = next_sent(&mut driver);
    assert_eq!(errno(&result), Some(libc::EPIPE));
    assert_eq!(train.sent(), 0);
}

fn wakes_from_other_threads_are_never_lost(mut driver: Driver) {
    const EACH: usize = 2000;
    let queued = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (waker, queued) = (driver.waker(), Arc::clone(&queued));
            thread::spawn(move || {
                for _ in 0..EACH {
                    queued.fetch_add(1, Ordering::Relaxed);
                    waker.wake();
                }
            })
        })
        .collect();
    // A lost wake-up would be a wait without end.
    while queued.load(Ordering::Relaxed) < 2 * EACH {
        driver.wait(None).expect("the driver works");
    }
    threads.into_iter().for_each(|thread| thread.join().expect("a waking thread"));
}

fn returned_buffer_wakes_the_worker_that_had_none(mut driver: Driver) {
    let pool = Pool::new(1, 4096).expect("a mapping");
    let waker = driver.waker();
    pool.on_return(move || waker.wake());
    let taken = pool.take().expect("a new pool is full");
    assert!(pool.take().is_none());
    let writer = thread::spawn(move || drop(taken));
    let buffer = loop {
        driver.wait(None).expect("the driver works");
        if let Some(buffer) = pool.take() {
            break buffer;
        }
    };
    assert!(buffer.filled().is_empty());
    writer.join().expect("the writer");
}

fn wait_ends_with_its_timeout(mut driver: Driver) {
    let (near, _far) = unix_pair();
    driver.recv(Token(1), &near, buffer(4096)).expect("room for one more");
    for timeout in [Duration::ZERO, Duration::from_millis(1), Duration::ZERO] {
        driver.wait(Some(timeout)).expect("the driver works");
        assert!(driver.next_completion().is_none());
    }
    driver.waker().wake();
    driver.wait(Some(Duration::MAX)).expect("any time will do");
}

fn full_driver_returns_what_it_does_not_take(mut driver: Driver) {
    let pool = Pool::new(9, 4096).expect("a mapping");
    let sockets: Vec<_> = (0..9).map(|_| unix_pair()).collect();
    let mut rejected = None;
    for (token, (near, _)) in (0..).map(Token).zip(&sockets) {
        let mut buffer = pool.take().expect("one each");
        buffer.copy_from(b"mine");
        if let Err(error) = driver.recv(token, near, buffer) {
            rejected = Some((token, error));
        }
    }
    let (token, rejected) = rejected.expect("nine do not fit into eight");
    assert_eq!(token, Token(8));
    assert!(matches!(rejected.error, RingError::Full { in_flight: 8 }), "{:?}", rejected.error);
    assert_eq!(rejected.returned.filled(), b"mine");
    // The submission queue is full of receives: these make room for themselves.
    (0..8).map(Token).for_each(|token| driver.cancel(token));
    for _ in 0..8 {
        assert_eq!(errno(&next_received(&mut driver).1), Some(libc::ECANCELED));
    }
    driver.recv(token, &sockets[8].0, rejected.returned).expect("there is room now");
}

fn many_links_on_one_driver_each_get_their_own_bytes(mut driver: Driver) {
    let pool = Pool::new(16, 4096).expect("a mapping");
    let pairs: Vec<_> = (0..16).map(|_| unix_pair()).collect();
    let mut seen = [0u32; 16];
    for (token, (near, _)) in (0..).map(Token).zip(&pairs) {
        driver.recv(token, near, pool.take().expect("one each")).expect("room for one more");
    }
    for round in 0..50u32 {
        for (index, (_, far)) in pairs.iter().enumerate() {
            (&*far).write_all(&(round * 16 + index as u32).to_ne_bytes()).expect("room in the socket");
        }
        for _ in 0..16 {
            let (token, outcome) = next(&mut driver);
            let Outcome::Received { mut buffer, result } = outcome else { panic!("nothing is sent") };
            assert_eq!(result.expect("bytes are there"), 4);
            assert_eq!(buffer.filled(), (round * 16 + token.0 as u32).to_ne_bytes());
            seen[token.0 as usize] += 1;
            buffer.clear();
            driver.recv(token, &pairs[token.0 as usize].0, buffer).expect("room for one more");
        }
    }
    assert_eq!(seen, [50; 16]);
}

fn second_send_on_a_token_is_a_broken_invariant(mut driver: Driver) {
    let (near, _far) = unix_pair();
    let train = || {
        let mut train = Gather::with_arena(16);
        assert!(train.push_bytes(b"once"));
        train
    };
    driver.send(Token(1), &near, train()).expect("room for one more");
    driver.recv(Token(1), &near, buffer(4096)).expect("a receive is another kind");
    let second = catch_unwind(AssertUnwindSafe(|| driver.send(Token(1), &near, train()).is_ok()));
    assert!(second.is_err(), "two sends would mix their bytes");
    let (train, result) = next_sent(&mut driver);
    assert!(result.is_ok() && train.is_done());
}
