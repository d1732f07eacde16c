//! What people who know rsync and its like expect of `supersyncctl push` and `pull`, where a mistake costs them.

use std::net::TcpListener;

use super::session::{Outcome, Server};

#[test]
fn a_server_that_closes_every_connection_is_another_one() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let outcome = Outcome::of(&server, server.pull_from(address, "open", &server.path("there"), &[]));
    assert_eq!(outcome.status, Some(1), "{}", outcome.errors);
    assert!(outcome.errors.contains("does not keep to the protocol"), "{}", outcome.errors);
}
