//! What a session may not do to others: to what they have, to the node that serves it, and to its end.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use nix::unistd::Pid;
use supersync::limits;
use supersync::wire::session::{Command as Asked, Message, MessageKind, Options, encode};

use super::session::Server;
use super::site::{PATIENCE, descriptors};

#[test]
fn unfinished_files_of_others_are_not_given_out() {
    let server = Server::start();
    fs::create_dir_all(server.path("open/.supersync/parts")).expect("made");
    fs::write(server.path("open/.supersync/parts/x"), "somebody's").expect("written");
    std::os::unix::fs::symlink(".supersync/parts", server.path("open/link")).expect("linked");
    let there = server.path("there");
    for from in ["open/.supersync/", "open/.supersync", "open/.supersync/parts/x", "open/link/", "open/link/x"] {
        let outcome = server.pull(from, &there, &[]);
        assert_eq!(outcome.status, Some(1), "{from}: {}", outcome.errors);
        assert!(outcome.errors.contains("the name is reserved"), "{from}: {}", outcome.errors);
        let outcome = server.push(&server.path(from), "open/there", &[]);
        assert_eq!(outcome.status, Some(1), "{from}: {}", outcome.errors);
    }
    assert!(!there.exists());
    let outcome = server.push(&server.path("open"), "open/there", &[]);
    outcome.ok();
    assert_eq!(outcome.paths("skipped"), ["open/.supersync"]);
}

#[test]
fn a_node_that_hashes_for_a_session_ends_when_it_is_told_to() {
    let mut server = Server::start();
    // Longer than anybody waits.
    let file = fs::File::create(server.path("closed/long")).expect("made");
    if file.set_len(1 << 40).is_err() {
        println!("skipped: no file of 1 TiB here, even without content");
        return;
    }
    let mut pull = server.pull_from(server.address, "closed/", &server.path("there"), &["--checksum"]);
    let mut client = pull.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let by = Instant::now() + PATIENCE;
    while !server.log().contains("session begins") {
        assert!(Instant::now() < by, "the session does not begin:\n{}", server.log());
        std::thread::yield_now();
    }
    let mut daemon = server.daemon.take().expect("it runs");
    kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM).expect("it lives");
    while daemon.try_wait().expect("ours").is_none() {
        if Instant::now() >= by {
            daemon.kill().expect("it lives");
            panic!("it does not end:\n{}", server.log());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    client.kill().expect("ours");
    client.wait().expect("it ended");
}

#[test]
fn who_has_too_little_memory_for_rings_transfers_without() {
    // An ordinary user who began several at once: some had a ring to try, and then none to work with.
    let server = Server::start();
    for path in ["", "here"] {
        fs::set_permissions(server.path(path), fs::Permissions::from_mode(0o755)).expect("set");
    }
    fs::write(server.path("here/file"), "some").expect("written");
    let is_root = nix::unistd::geteuid().is_root();
    // Enough for one ring, and for two.
    for kibibytes in (1_500..=3_000).step_by(100) {
        let mut push = Command::new("sh");
        push.arg("-c").arg(format!("ulimit -l {kibibytes} && exec \"$@\"")).arg("sh");
        push.arg(env!("CARGO_BIN_EXE_supersyncctl")).args(["push", "--connections=4", "--engine=auto"]);
        push.arg(server.path("here/file")).arg(format!("supersync://{}/open/{kibibytes}", server.address));
        if is_root {
            // Of root nothing is counted.
            push.uid(65_534);
        }
        let output = push.stdin(Stdio::null()).output().expect("started");
        if matches!(output.status.code(), Some(126 | 127)) {
            println!("skipped: an ordinary user cannot run it: {output:?}");
            return;
        }
        assert!(output.status.success(), "{kibibytes} KiB: {output:?}");
        assert!(server.path("open").join(kibibytes.to_string()).join("file").exists());
    }
}

#[test]
fn a_client_whose_words_nobody_can_keep_says_it_by_its_exit_status() {
    let server = Server::start();
    let full = || fs::File::options().write(true).open("/dev/full").expect("opened");
    let mut pull = server.pull_from(server.address, "nothing/there", &server.path("there"), &[]);
    let status = pull.stdin(Stdio::null()).stdout(full()).stderr(full()).status().expect("started");
    assert_eq!(status.code(), Some(1), "{status}");
}

#[test]
fn a_client_that_nobody_reads_ends_when_it_is_told_to() {
    let server = Server::start();
    fs::write(server.path("here/file"), "some").expect("written");
    let (_unread, words) = nix::unistd::pipe2(OFlag::O_NONBLOCK).expect("a pipe");
    let mut words = fs::File::from(words);
    while words.write(&[b'x'; 4096]).is_ok() {}
    fcntl(&words, FcntlArg::F_SETFL(OFlag::empty())).expect("it waits from now on");
    let mut push = server.push_to(server.address, &server.path("here/file"), "open/there", &[]);
    let mut client = push.stdin(Stdio::null()).stdout(words).stderr(Stdio::null()).spawn().expect("started");
    let by = Instant::now() + PATIENCE;
    while !server.path("open/there/file").exists() {
        assert!(Instant::now() < by, "nothing comes:\n{}", server.log());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    kill(Pid::from_raw(client.id() as i32), Signal::SIGTERM).expect("it lives");
    let status = loop {
        match client.try_wait().expect("ours") {
            Some(status) => break status,
            None if Instant::now() >= by => {
                client.kill().expect("it lives");
                panic!("it does not end");
            }
            None => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    };
    assert_eq!(status.code(), Some(3), "{status}");
}

/// A pull left two descriptors behind, until the daemon had none left.
#[test]
fn what_was_pulled_is_let_go_of() {
    let server = Server::start();
    fs::write(server.path("closed/file"), "content").expect("written");
    let pid = server.daemon.as_ref().expect("it runs").id();
    let pull = |at: usize| {
        server.pull("closed/", &server.path(format!("there{at}")), &[]).ok();
    };
    pull(0);
    let before = descriptors(pid);
    (1..=20).for_each(pull);
    let by = Instant::now() + PATIENCE;
    while descriptors(pid) > before + 10 {
        assert!(Instant::now() < by, "{before} descriptors before, and {} now", descriptors(pid));
        std::thread::yield_now();
    }
}

/// A connection from 127.0.0.`last` that asks for what is in `closed`, and the first byte of the answer.
fn ask_from(last: u8, server: SocketAddr) -> (TcpStream, u8) {
    let SocketAddr::V4(server) = server else { panic!("tests listen on IPv4") };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, last, 0)).expect("all of 127.0.0.0/8 is this host");
    connect(socket.as_raw_fd(), &SockaddrIn::from(server)).expect("it listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let options = Options::default().encode().expect("fit");
    let mut message = Vec::new();
    encode(&Message::Pull(Asked { options: &options, path: b"closed/" }), &mut message).expect("fits");
    stream.write_all(&message).expect("it reads");
    let mut kind = [0];
    stream.read_exact(&mut kind).expect("it answers");
    (stream, kind[0])
}

/// One client that began sessions and did nothing with them kept everybody else out.
#[test]
fn one_address_leaves_sessions_to_others() {
    let server = Server::start();
    let begun: Vec<_> = (0..limits::SESSIONS_MAX / 2).map(|_| ask_from(2, server.address)).collect();
    assert!(begun.iter().all(|(_, kind)| *kind == MessageKind::Session.code()));
    assert_eq!(ask_from(2, server.address).1, MessageKind::Error.code(), "it has all that one address has");
    assert_eq!(ask_from(3, server.address).1, MessageKind::Session.code());
}
