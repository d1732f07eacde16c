//! Sessions whose peer speaks message by message: what comes over a connection in what order.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use supersync::units::{BlockSeq, ByteCount, Entry, FileId, Kind, SessionId, TreePath};
use supersync::wire::session::{
    Again, Command, ErrorCode, FileInfo, Message, MessageKind, MessageNumber, Options, Read, encode, read,
};

use super::session::{Outcome, Server};
use super::site::{PATIENCE, fresh_address};

/// Reads messages until one of this kind has come.
fn await_kind(mut stream: &TcpStream, kind: MessageKind) {
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut bytes = Vec::new();
    loop {
        let mut more = [0; 4096];
        let length = stream.read(&mut more).expect("answered");
        assert_ne!(length, 0, "{kind} does not come");
        bytes.extend_from_slice(&more[..length]);
        let mut at = 0;
        while let Some((message, length)) = read(&bytes[at..]).expect("messages") {
            if matches!(message, Read::Message(message) if message.kind() == kind) {
                return;
            }
            at += length;
        }
        bytes.drain(..at);
    }
}

/// Reads until nothing more comes.
fn await_end(mut stream: &TcpStream) {
    stream.read_to_end(&mut Vec::new()).expect("it ends in good order");
}

#[test]
fn what_came_before_damage_is_written_and_the_last_word_is_said_again() {
    let server = Server::start();
    let destination = server.path("pulled");
    let listener = TcpListener::bind(fresh_address()).expect("bound");
    let address = listener.local_addr().expect("bound");
    let thread = std::thread::spawn(move || {
        let send = |mut stream: &TcpStream, messages: &[Message<'_>], rest: &[u8]| {
            let mut bytes = Vec::new();
            messages.iter().for_each(|message| encode(message, &mut bytes).expect("fits"));
            bytes.extend_from_slice(rest);
            stream.write_all(&bytes).expect("sent");
        };
        let (first, _) = listener.accept().expect("called");
        await_kind(&first, MessageKind::Pull);
        send(&first, &[Message::Session(SessionId(1))], &[]);
        let (second, _) = listener.accept().expect("called");
        await_kind(&second, MessageKind::Session);
        let mut entry = Entry::new(TreePath::new(b"file").expect("valid"), Kind::File);
        entry.mode = 0o644;
        entry.size = ByteCount(5);
        let info = Message::FileInfo(FileInfo::of_entry(&entry, FileId(0)));
        send(&first, &[Message::FileCount(1), info], &[]);
        await_kind(&first, MessageKind::Ready);
        // No message begins like that: its type is damaged.
        send(&second, &[Message::Data { file: FileId(0), seq: BlockSeq(0), data: b"hello" }], &[0xff; 20]);
        await_kind(&first, MessageKind::Verify);
        send(&first, &[Message::FileCount(0)], &[]);
        await_kind(&first, MessageKind::Verify);
        // As if that had come damaged, behind CHANGE, READY and the first VERIFY.
        let again = Again::Control { kind: MessageKind::Verify, number: MessageNumber(3) };
        send(&first, &[Message::Retransmit(again)], &[]);
        await_kind(&first, MessageKind::Resent);
    });
    let outcome = Outcome::of(&server, server.pull_from(address, "any", &destination, &["--connections", "2"]));
    thread.join().expect("the client keeps to the protocol");
    outcome.ok();
    assert_eq!(fs::read(destination.join("file")).expect("landed"), b"hello");
}

/// The server gave the session up with the connection that it was made over, which the client noticed later.
#[test]
fn a_session_that_is_over_at_the_server_is_to_be_run_again() {
    let server = Server::start();
    let listener = TcpListener::bind(fresh_address()).expect("bound");
    let address = listener.local_addr().expect("bound");
    let thread = std::thread::spawn(move || {
        let send = |mut stream: &TcpStream, message: &Message<'_>| {
            let mut bytes = Vec::new();
            encode(message, &mut bytes).expect("fits");
            stream.write_all(&bytes).expect("sent");
        };
        let (first, _) = listener.accept().expect("called");
        await_kind(&first, MessageKind::Pull);
        send(&first, &Message::Session(SessionId(1)));
        let (second, _) = listener.accept().expect("called");
        await_kind(&second, MessageKind::Session);
        drop((first, listener));
        await_kind(&second, MessageKind::Control);
        send(&second, &Message::Error { code: ErrorCode::REFUSED, text: "there is no such session" });
        await_end(&second);
    });
    let destination = server.path("pulled");
    let outcome = Outcome::of(&server, server.pull_from(address, "any", &destination, &["--connections", "2"]));
    thread.join().expect("the client keeps to the protocol");
    assert_eq!(outcome.status, Some(3), "{}", outcome.errors);
    assert!(outcome.errors.contains("no such session"), "{}", outcome.errors);
}

/// A client whose only connection brought what has no place was hung up on, and what was wrong never reached it.
#[test]
fn whoever_does_not_keep_to_the_protocol_is_told_why() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.address).expect("connected");
    let options = Options::default().encode().expect("valid");
    let mut bytes = Vec::new();
    encode(&Message::Push(Command { options: &options, path: b"open" }), &mut bytes).expect("fits");
    encode(&Message::Ready, &mut bytes).expect("fits");
    // What it sends behind that does not have the answer thrown away.
    let flood = encoded(&Message::KeepAlive).repeat(1 << 18);
    stream.write_all(&[bytes, flood].concat()).expect("nobody hangs up");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut answer = vec![0; 4096];
    let mut length = 0;
    let told = loop {
        length += stream.read(&mut answer[length..]).expect("answered");
        let after = encoded(&Message::Session(SessionId(0))).len();
        if length > after
            && let Ok(Some((Read::Message(Message::Error { code, text }), _))) = read(&answer[after..length])
        {
            break (code, text.to_owned());
        }
        assert!(length < answer.len(), "{:?}", answer.escape_ascii());
    };
    assert_eq!(told.0, ErrorCode::PROTOCOL);
    assert!(told.1.contains("READY") && server.log().contains(&told.1), "{}", told.1);
    drop(stream);
    fs::write(server.path("file"), "others are served").expect("written");
    server.push(&server.path("file"), "open", &[]).ok();
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).expect("fits");
    bytes
}
