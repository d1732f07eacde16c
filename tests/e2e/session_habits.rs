//! What people who know rsync and its like expect of `supersyncctl push` and `pull`, where a mistake costs them.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::session::{Outcome, Server};
use super::site::{PATIENCE, random_bytes};

#[test]
fn a_server_that_closes_every_connection_may_be_another_one() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let outcome = Outcome::of(&server, server.pull_from(address, "open", &server.path("there"), &[]));
    assert_eq!(outcome.status, Some(4), "{}", outcome.errors);
    assert!(outcome.errors.contains("that of a [[listen]]"), "{}", outcome.errors);
}

/// A pull whose destination was on another host as well made a directory here that was called like it.
#[test]
fn what_is_pulled_goes_to_no_other_host() {
    let server = Server::start();
    let outcome = server.pull("open", Path::new("backup.invalid:data/x"), &[]);
    assert_eq!(outcome.status, Some(2), "{}", outcome.errors);
    assert!(outcome.errors.contains("./backup.invalid:data/x"), "{}", outcome.errors);
    assert!(!Path::new("backup.invalid:data").exists());
}

#[test]
fn a_server_that_speaks_something_else_is_named_so_at_once() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let speaker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("it comes");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("it listens");
        // Nobody else is accepted: a second try would wait for ever.
        stream
    });
    let outcome = Outcome::of(&server, server.pull_from(address, "open", &server.path("there"), &[]));
    drop(speaker.join());
    assert_eq!(outcome.status, Some(4), "{}", outcome.errors);
    for part in ["byte 0", "found 0x48", "that of a [[listen]]"] {
        assert!(outcome.errors.contains(part), "{part}: {}", outcome.errors);
    }
}

/// `touch -d @SECONDS`.
fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).expect("opened").set_modified(time).expect("set");
}

fn tree(server: &Server, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let root = server.path("here").join(name);
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    root
}

/// `path/`: what is in it.
fn contents(path: &Path) -> PathBuf {
    path.join("")
}

fn parts(server: &Server) -> usize {
    fs::read_dir(server.path("open/.supersync/parts")).map_or(0, Iterator::count)
}

/// Begins to push `source`, and is killed when some of it is there.
fn begin(server: &Server, source: &Path, to: &str) {
    let before = parts(server);
    let mut command = server.push_to(server.address, source, to, &["--bwlimit", "4MB"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let by = Instant::now() + PATIENCE;
    while parts(server) == before {
        assert!(Instant::now() < by, "nothing comes");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("it runs");
    child.wait().expect("it ended");
}

#[test]
fn a_file_of_the_same_size_and_time_is_another_one_where_a_transfer_goes_on() {
    let server = Server::start();
    let (one, two) = (random_bytes(16 << 20), random_bytes(16 << 20));
    let first = tree(&server, "one", &[("img", &one)]);
    let second = tree(&server, "two", &[("img", &two)]);
    set_time(&first.join("img"), 1);
    let changed = |tree: &Path| {
        let meta = fs::metadata(tree.join("img")).expect("there");
        (meta.ctime(), meta.ctime_nsec())
    };
    // The kernel's clock has ticks.
    while changed(&first) >= changed(&second) || fs::metadata(second.join("img")).expect("there").mtime() != 1 {
        set_time(&second.join("img"), 1);
    }
    begin(&server, &first.join("img"), "open/there");
    server.push(&second.join("img"), "open/there", &[]).ok();
    assert!(fs::read(server.path("open/there/img")).expect("there") == two, "it is a mix");
    // The session that was interrupted may have had it until now.
    let by = Instant::now() + PATIENCE;
    while parts(&server) > 0 {
        assert!(Instant::now() < by, "what was there of the other one is gone");
        server.push(&second.join("img"), "open/there", &[]).ok();
    }
}

#[test]
fn what_is_in_the_way_of_the_top_is_not_replaced() {
    let server = Server::start();
    let source = tree(&server, "tree", &[("a", b"a")]);
    fs::write(server.path("open/file"), "precious").expect("written");
    fs::create_dir(server.path("open/release1")).expect("made");
    symlink("release1", server.path("open/current")).expect("linked");
    for to in ["open/file", "open/current", "open/file/below"] {
        for options in [&[][..], &["--dry-run"]] {
            let outcome = server.push(&contents(&source), to, options);
            assert_eq!(outcome.status, Some(1), "{to} {options:?}: {}", outcome.errors);
            let found = ["'file' is a file", "'current' is a symbolic link", "Not a directory"];
            assert!(found.iter().any(|found| outcome.errors.contains(found)), "{}", outcome.errors);
        }
    }
    assert_eq!(fs::read(server.path("open/file")).expect("there"), b"precious");
    assert!(fs::symlink_metadata(server.path("open/current")).expect("there").is_symlink());
}

#[test]
fn a_directory_of_a_module_that_is_gone_is_not_made() {
    let server = Server::start();
    let source = tree(&server, "tree", &[("a", b"a")]);
    fs::remove_dir(server.path("open")).expect("empty");
    let outcome = server.push(&source, "open/there", &[]);
    assert_eq!(outcome.status, Some(1), "{}", outcome.errors);
    assert!(outcome.errors.contains("the directory of module open is not there"), "{}", outcome.errors);
    assert!(!server.path("open").exists());
}

#[test]
fn one_file_that_fails_keeps_nothing_from_being_deleted() {
    let server = Server::start();
    let source = tree(&server, "tree", &[("a", b"new"), ("b/c", b"file")]);
    fs::create_dir_all(server.path("open/there/a/in/the/way")).expect("made");
    fs::create_dir_all(server.path("open/there/b")).expect("made");
    fs::write(server.path("open/there/b/old"), "old").expect("written");
    fs::write(server.path("open/there/a/in/keep.log"), "kept").expect("written");
    let outcome = server.push(&contents(&source), "open/there", &["--delete", "--exclude", "*.log"]);
    assert_eq!(outcome.status, Some(3), "{}", outcome.errors);
    assert!(!server.path("open/there/b/old").exists() && server.path("open/there/b/c").exists());
}

#[test]
fn a_dry_run_tells_what_goes_out_of_the_way_and_pipes_stay() {
    let server = Server::start();
    let source = tree(&server, "tree", &[("b", b"a file now")]);
    fs::create_dir_all(server.path("open/there/b/deep")).expect("made");
    fs::write(server.path("open/there/b/deep/precious"), "x").expect("written");
    fs::create_dir(server.path("open/there/run")).expect("made");
    for pipe in ["pipe", "run/pipe"] {
        mkfifo(&server.path("open/there").join(pipe), Mode::S_IRWXU).expect("made");
    }
    let told = |options: &[&str]| {
        let outcome = server.push(&contents(&source), "open/there", options);
        outcome.ok();
        outcome.paths("deleted").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let dry = told(&["--delete", "--dry-run"]);
    assert!(server.path("open/there/b/deep/precious").exists());
    assert_eq!(dry, told(&["--delete"]));
    assert!(dry.contains(&"b/deep/precious".to_owned()), "{dry:?}");
    assert!(server.path("open/there/pipe").exists() && server.path("open/there/run/pipe").exists());
}

#[test]
fn of_several_sources_the_first_one_that_has_a_path_counts() {
    let server = Server::start();
    let first = tree(&server, "one", &[("f", &random_bytes(3 << 20)), ("g", b"x"), ("d/a", b"1")]);
    let second = tree(&server, "two", &[("f", b"second"), ("h", b"other"), ("d/b", b"2"), ("g/x", b"in the way")]);
    fs::set_permissions(second.join("d"), fs::Permissions::from_mode(0o700)).expect("ours");
    fs::hard_link(first.join("g"), first.join("h")).expect("linked");
    let push = || {
        let one = server.push_to(server.address, &contents(&first), "open/there", &[]);
        let (to, arguments): (Vec<_>, Vec<_>) =
            one.get_args().partition(|text| text.as_bytes().starts_with(b"supersync:"));
        let mut both = Command::new(one.get_program());
        both.env("NO_COLOR", "1").args(arguments).arg(contents(&second)).args(to);
        let outcome = Outcome::of(&server, both);
        assert_eq!(outcome.paths("skipped"), ["f", "g", "h"]);
        outcome.ok().clone()
    };
    for _ in 0..3 {
        push();
        let again = push();
        assert_eq!(["new", "changed", "attributes"].map(|count| again[count].as_u64()), [Some(0); 3], "{again}");
        let there = |name: &str| fs::read(server.path("open/there").join(name)).expect("there");
        assert_eq!(there("f").len(), 3 << 20);
        assert_eq!((there("h"), there("d/a"), there("d/b")), (b"x".to_vec(), b"1".to_vec(), b"2".to_vec()));
        fs::remove_dir_all(server.path("open/there")).expect("removed");
    }
}

#[test]
fn what_an_ignore_file_leaves_out_is_not_deleted_though_the_file_leaves_out_itself() {
    let server = Server::start();
    let source =
        tree(&server, "tree", &[(".supersyncignore", b"*.log\n.supersyncignore\n"), ("a", b"a"), ("b.log", b"b")]);
    fs::create_dir(server.path("open/there")).expect("made");
    for name in ["prod.log", "old"] {
        fs::write(server.path("open/there").join(name), name).expect("written");
    }
    let outcome = server.push(&contents(&source), "open/there", &["--delete"]);
    outcome.ok();
    assert_eq!(outcome.paths("deleted"), ["old"]);
    assert!(server.path("open/there/prod.log").exists() && !server.path("open/there/b.log").exists());
}

#[test]
fn a_link_to_a_directory_is_followed_where_a_pull_begins_and_no_further_than_the_module() {
    let server = Server::start();
    tree(&server, "../closed/release1", &[("a", b"a"), ("deep/b", b"b")]);
    symlink("release1", server.path("closed/current")).expect("linked");
    symlink(server.path("here"), server.path("closed/out")).expect("linked");
    tree(&server, "secret", &[("c", b"c")]);
    let places = [("closed/current/", "deep/b"), ("closed/current/deep", "deep/b"), ("closed/current/deep/b", "b")];
    for (number, (from, landed)) in places.into_iter().enumerate() {
        let there = server.path(format!("there{number}"));
        server.pull(from, &there, &[]).ok();
        assert_eq!(fs::read(there.join(landed)).expect("landed"), b"b", "{from}");
    }
    let there = server.path("link");
    server.pull("closed/current", &there, &[]).ok();
    assert_eq!(fs::read_link(there.join("current")).expect("a link"), Path::new("release1"));
    for from in ["closed/out/", "closed/out/secret", "closed/out/secret/c"] {
        let outcome = server.pull(from, &server.path("none"), &[]);
        assert_eq!(outcome.status, Some(1), "{from}: {}", outcome.errors);
        assert!(outcome.errors.contains("leads out of it"), "{from}: {}", outcome.errors);
    }
}

#[test]
fn a_pull_that_is_refused_leaves_no_directory() {
    let server = Server::start();
    let there = server.path("there");
    for from in ["closed/none", "closed/none/", "other/x"] {
        let outcome = server.pull(from, &there, &[]);
        assert_eq!(outcome.status, Some(1), "{from}: {}", outcome.errors);
        assert!(!there.exists(), "{from}");
    }
    fs::create_dir(&there).expect("made");
    assert_eq!(server.pull("closed/none", &there, &[]).status, Some(1));
    assert!(there.exists(), "it was there before");
    fs::remove_dir(&there).expect("empty");
    server.pull("closed/", &there, &[]).ok();
    assert!(there.exists(), "what was pulled is an empty directory");
}

/// What a client comes to that finds a new file system of `kind` mounted on a directory; `None` where that cannot be.
fn with_mount(server: &Server, kind: &str, on: &Path, client: &Command) -> Option<Outcome> {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", "mount -t \"$0\" none \"$1\" && shift && exec \"$@\"", kind]).arg(on);
    command.arg(client.get_program()).args(client.get_args());
    let outcome = Outcome::of(server, command);
    if outcome.errors.contains("unshare") || outcome.errors.contains("mount:") {
        eprintln!("skipped: a mount needs root and unshare(1); run it as root");
        return None;
    }
    Some(outcome)
}

/// Needs root, to mount something.
#[test]
fn what_is_mounted_in_the_way_is_told_before_anything_comes() {
    let server = Server::start();
    tree(&server, "../closed/data", &[("mounted/below/a", &random_bytes(1 << 20)), ("b", b"b")]);
    let there = server.path("there");
    fs::create_dir_all(there.join("data/mounted")).expect("made");
    let pull = server.pull_from(server.address, "closed/data", &there, &[]);
    let Some(outcome) = with_mount(&server, "tmpfs", &there.join("data/mounted"), &pull) else { return };
    assert_eq!(outcome.status, Some(3), "{}", outcome.errors);
    let failed = outcome.of_kind("failed");
    assert!(failed[0]["reason"].as_str().expect("text").contains("another file system"), "{failed:?}");
    assert!(there.join("data/b").exists());
    assert_eq!(outcome.of_kind("summary")[0]["bytes_data"], 1);
}

/// Needs root, to mount a file system that has none.
#[test]
fn extended_attributes_that_the_receiver_cannot_keep_are_told() {
    let server = Server::start();
    let source = tree(&server, "tree", &[("a", b"a")]);
    if xattr::set(source.join("a"), "user.note", b"x").is_err() {
        eprintln!("skipped: the directory for temporary files has no extended attributes");
        return;
    }
    let there = server.path("there");
    fs::create_dir(&there).expect("made");
    fs::create_dir(server.path("closed/tree")).expect("made");
    let copied = Command::new("cp").arg("-a").arg(source.join("a")).arg(server.path("closed/tree")).status();
    assert!(copied.expect("cp(1)").success());
    let pull = server.pull_from(server.address, "closed/tree", &there, &["--xattrs"]);
    let Some(outcome) = with_mount(&server, "ramfs", &there, &pull) else { return };
    assert_eq!(outcome.status, Some(3), "{}", outcome.errors);
    let reason = outcome.of_kind("failed")[0]["reason"].as_str().expect("text");
    assert!(reason.contains("'user.note' of 'tree/a'"), "{reason}");
    assert_eq!(outcome.paths("failed"), ["tree/a"]);
}

/// Only root could set them, and whoever else pulled was told of a failure each time.
#[test]
fn extended_attributes_of_what_its_owner_may_not_write_come_and_change() {
    let server = Server::start();
    let (source, there) = (server.path("open/tree"), server.path("there"));
    fs::create_dir_all(source.join("dir")).expect("made");
    fs::write(source.join("file"), "a").expect("written");
    fs::create_dir(&there).expect("made");
    if nix::unistd::geteuid().is_root() {
        // It may write to everything: somebody else is to.
        std::os::unix::fs::chown(&there, Some(65_534), Some(65_534)).expect("given away");
        fs::set_permissions(server.path(""), fs::Permissions::from_mode(0o755)).expect("set");
    }
    for value in ["one", "two"] {
        for (name, mode) in [("file", 0o444), ("dir", 0o555)] {
            if xattr::set(source.join(name), "user.note", value.as_bytes()).is_err() {
                eprintln!("skipped: the directory for temporary files has no extended attributes");
                return;
            }
            fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).expect("set");
        }
        let mut pull = server.pull_from(server.address, "open/tree", &there, &["--xattrs"]);
        if nix::unistd::geteuid().is_root() {
            pull.uid(65_534).gid(65_534);
        }
        Outcome::of(&server, pull).ok();
        for (name, mode) in [("file", 0o444), ("dir", 0o555)] {
            let path = there.join("tree").join(name);
            assert_eq!(xattr::get(&path, "user.note").expect("read"), Some(value.as_bytes().to_vec()), "{name}");
            assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, mode, "{name}");
        }
        for name in ["file", "dir"] {
            fs::set_permissions(source.join(name), fs::Permissions::from_mode(0o755)).expect("set");
        }
    }
    fs::set_permissions(there.join("tree/dir"), fs::Permissions::from_mode(0o755)).expect("set");
}

#[test]
fn a_dry_run_tells_how_much_would_be_sent() {
    let server = Server::start();
    let source = tree(&server, "tree", &[("a", &[1; 3000]), ("d/b", &[2; 400]), ("empty", b"")]);
    std::fs::hard_link(source.join("a"), source.join("c")).expect("linked");
    let there = server.path("there");
    let wanted = |outcome: Outcome| (outcome.ok()["bytes_wanted"].clone(), outcome.ok()["bytes_data"].clone());
    assert_eq!(wanted(server.push(&source, "open", &["--dry-run"])), (3400.into(), 0.into()));
    assert_eq!(wanted(server.push(&source, "open", &[])), (serde_json::Value::Null, 3400.into()));
    fs::write(source.join("d/b"), [3; 50]).expect("written");
    assert_eq!(wanted(server.push(&source, "open", &["--dry-run"])), (50.into(), 0.into()));
    assert_eq!(wanted(server.pull("open/tree", &there, &["--dry-run"])), (3400.into(), 0.into()));
}

/// What a walk could not look at was once forgotten after so many entries that are not sent, and taken for deleted.
#[test]
fn however_much_is_skipped_nothing_that_could_not_be_listed_is_deleted() {
    let server = Server::start();
    let source = tree(&server, "tree", &[("odd/.supersyncignore", b"[z-a]\n"), ("odd/a", b"a")]);
    let pipes = supersync::limits::SKIPPED_MAX + 500;
    for at in 0..pipes {
        mkfifo(&source.join(format!("pipe-{at}")), Mode::S_IRWXU).expect("made");
    }
    fs::create_dir_all(server.path("open/there/odd")).expect("made");
    fs::write(server.path("open/there/odd/precious"), "x").expect("written");
    let outcome = server.push(&contents(&source), "open/there", &["--delete"]);
    assert_eq!(outcome.status, Some(3), "{}", outcome.errors);
    assert!(server.path("open/there/odd/precious").exists() && server.path("open/there/odd/a").exists());
    assert_eq!(outcome.of_kind("summary")[0]["skipped"], pipes);
    assert!(outcome.paths("failed").contains(&"odd"), "{:?}", outcome.of_kind("failed"));
}

/// In a pull nobody learned what the server had passed over, nor which of its entries it could not send.
#[test]
fn a_pull_tells_of_what_is_left_out_as_a_push_does() {
    let server = Server::start();
    let source = tree(&server, "tree", &[("file", b"sent"), ("sub/.supersyncignore", b"[z-a\n"), ("sub/x", b"too")]);
    mkfifo(&source.join("sub/pipe"), Mode::S_IRWXU).expect("made");
    let pushed = server.push(&contents(&source), "open/tree", &[]);
    mkfifo(&server.path("open/tree/sub/pipe"), Mode::S_IRWXU).expect("made");
    let pulled = server.pull("open/tree/", &server.path("pulled"), &[]);
    assert_eq!((pushed.status, pulled.status), (Some(3), Some(3)), "{}{}", pushed.errors, pulled.errors);
    for (kind, paths) in [("skipped", ["sub/pipe"]), ("failed", ["sub"])] {
        for outcome in [&pushed, &pulled] {
            assert_eq!(outcome.paths(kind), paths, "{:?}", outcome.of_kind(kind));
        }
        assert_eq!(pushed.of_kind(kind), pulled.of_kind(kind));
    }
    fs::remove_file(server.path("open/tree/sub/.supersyncignore")).expect("removed");
    let pulled = server.pull("open/tree/", &server.path("pulled"), &[]);
    assert_eq!(pulled.ok()["skipped"], 1);
}

/// A dry run told of a file as new that the real one could not read.
#[test]
fn a_dry_run_tells_of_what_cannot_be_read_as_the_real_one_does() {
    let server = Server::start();
    let source = tree(&server, "tree", &[("open", b"sent"), ("closed", b"not"), ("empty", b"")]);
    fs::set_permissions(source.join("closed"), fs::Permissions::from_mode(0o000)).expect("set");
    fs::set_permissions(source.join("empty"), fs::Permissions::from_mode(0o000)).expect("set");
    let is_root = nix::unistd::geteuid().is_root();
    let push = |options: &[&str]| {
        let mut command = server.push_to(server.address, &contents(&source), "open", options);
        if is_root {
            // It may read everything: somebody else is to.
            fs::set_permissions(server.path(""), fs::Permissions::from_mode(0o755)).expect("set");
            command.uid(65_534).gid(65_534);
        }
        Outcome::of(&server, command)
    };
    let (dry, real) = (push(&["--dry-run"]), push(&[]));
    assert_eq!((dry.status, real.status), (Some(3), Some(3)), "{}{}", dry.errors, real.errors);
    assert_eq!(real.paths("failed"), ["closed"]);
    assert_eq!(dry.of_kind("failed"), real.of_kind("failed"));
    assert_eq!(dry.paths("change"), real.paths("change"));
}

/// Whose server was stopped learned only that a connection was closed.
#[test]
fn a_server_that_is_stopped_says_so() {
    let mut server = Server::start();
    let source = tree(&server, "tree", &[("large", &random_bytes(4 << 20))]);
    let mut command = server.push_to(server.address, &source, "open", &["--bwlimit", "1MB"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let by = Instant::now() + PATIENCE;
    let has_some = || {
        let mut parts = fs::read_dir(server.path("open/.supersync/parts")).into_iter().flatten().flatten();
        parts.any(|part| part.metadata().is_ok_and(|found| found.len() > 0))
    };
    while !has_some() {
        assert!(Instant::now() < by, "nothing comes: {}", server.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut daemon = server.daemon.take().expect("it runs");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.id() as i32), nix::sys::signal::Signal::SIGTERM)
        .expect("it is ours");
    let outcome = Outcome::wait(&server, child);
    assert!(daemon.wait().expect("ended").success());
    assert_eq!(outcome.status, Some(3), "{}", outcome.errors);
    for part in ["stopped by its operator", "Run the same command again"] {
        assert!(outcome.errors.contains(part), "{}", outcome.errors);
    }
}
