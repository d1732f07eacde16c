//! What a session may not do to others: to what they have, to the node that serves it, and to its end.

use std::fs;

use super::session::Server;

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
