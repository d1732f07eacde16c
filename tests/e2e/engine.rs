//! Where the kernel gives no ring: everything works by plain system calls, and says so.
//!
//! A seccomp filter refuses the three system calls of io_uring, as many containers' profiles do. It holds for the
//! thread that a test does its work on, and for the daemons and clients that are started there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};
use std::thread;

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use supersync::config::EngineChoice;

use super::session::{Outcome, Server, assert_same, make_tree};
use super::site::{Plan, Site, engine};

/// An ordinary user.
const NOBODY: u32 = 65_534;

fn without_rings(work: impl FnOnce() + Send) {
    if engine() != EngineChoice::Auto {
        println!("skipped: SUPERSYNC_E2E_ENGINE leaves nothing to choose");
        return;
    }
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let rules: BTreeMap<_, _> = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with seccomp");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).expect("three rules");
    let program: BpfProgram = filter.try_into().expect("a short program");
    let outcome = thread::scope(|scope| {
        let refused = scope.spawn(|| {
            apply_filter(&program).expect("a thread may take rights from itself");
            work();
        });
        refused.join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).env("NO_COLOR", "1").output().expect("it runs")
}

fn supersyncd(args: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_supersyncd"), args)
}

#[track_caller]
fn assert_says(output: &Output, status: i32, wanted: &[&str]) {
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(wanted.iter().all(|text| said.contains(text)), "{wanted:?} in\n{said}");
}

#[test]
fn a_site_without_rings_converges_and_says_what_it_runs_on() {
    without_rings(|| {
        let mut site = Site::start(Plan::default());
        site.until_converged();
        for node in site.all() {
            assert_eq!(site.tells(&node, "/engine"), "blocking", "{node}");
            let log = site.log(&node);
            assert!(log.contains("WARN") && log.contains("the kernel forbids io_uring here"), "{log}");
        }
    });
}

#[test]
fn a_node_that_must_have_rings_does_not_start_without_and_says_what_to_change() {
    without_rings(|| {
        let site = Site::new(Plan { exchanges: 0, ..Plan::default() });
        let file = site.config("t1");
        let text = fs::read_to_string(&file).expect("there");
        fs::write(&file, text.replace("engine = \"auto\"", "engine = \"uring\"")).expect("written");
        let advice = ["the kernel forbids io_uring here", "seccomp", "engine = \"blocking\""];
        let file = file.to_str().expect("plain");
        assert_says(&supersyncd(&["run", file]), 1, &advice);
        assert_says(&supersyncd(&["check", file]), 1, &advice);
    });
}

/// It found one ring to try, and then none to work with; it did not start, though nobody had asked for rings.
#[test]
fn a_node_that_has_too_little_memory_for_its_rings_runs_without_and_says_so() {
    if engine() != EngineChoice::Auto {
        return println!("skipped: SUPERSYNC_E2E_ENGINE leaves nothing to choose");
    }
    let mut site = Site::new(Plan { segments: 1, exchanges: 0, ..Plan::default() });
    let file = site.config("t1");
    let text = fs::read_to_string(&file).expect("there");
    fs::write(&file, format!("workers = 2\n{text}")).expect("written");
    let is_root = nix::unistd::geteuid().is_root();
    for path in [site.dir().to_owned(), site.path("t1"), site.path("t1").join("remote")].iter().filter(|_| is_root) {
        std::os::unix::fs::chown(path, Some(NOBODY), None).expect("ours");
    }
    // Enough for the ring that is tried, for the first of a worker's, and for all.
    for kibibytes in (1_200..=4_800).step_by(400) {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -l {kibibytes} && exec \"$@\"")).arg("sh");
        command.arg(env!("CARGO_BIN_EXE_supersyncd")).arg("run").arg(&file);
        if is_root {
            // Of root nothing is counted.
            command.uid(NOBODY);
        }
        let said = site.log("t1").len();
        site.run_as("t1", command);
        site.until("it answers or ends", |site| site.status("t1").is_some() || !site.is_running("t1"));
        if !site.is_running("t1") && matches!(site.reap("t1").code(), Some(126 | 127)) {
            return println!("skipped: an ordinary user cannot run it: {}", site.log("t1"));
        }
        let engine = site.tells("t1", "/engine");
        let log = site.log("t1").split_off(said);
        let warned = ["worker 0 goes by plain calls", "worker 1 goes by plain calls", "the engine is blocking"];
        let warned = warned.iter().any(|text| log.contains(text));
        assert_eq!(engine, if warned { "blocking" } else { "io_uring" }, "{kibibytes} KiB: {log}");
        site.kill("t1");
    }
}

#[test]
fn trees_are_pushed_and_pulled_without_rings() {
    without_rings(|| {
        let server = Server::start();
        let (tree, back) = (server.path("tree"), server.path("back"));
        make_tree(&tree);
        let contents = tree.join("");
        let pushed = Outcome::of(&server, server.push_to(server.address, &contents, "open/", &[]));
        pushed.ok();
        assert!(pushed.errors.contains("goes on by plain system calls, without io_uring"), "{}", pushed.errors);
        Outcome::of(&server, server.pull_from(server.address, "open/", &back, &["--quiet"])).ok();
        assert_same(&tree, &back);
        let remote = format!("supersync://{}/open/", server.address);
        let source = contents.to_str().expect("plain");
        let refused = run(env!("CARGO_BIN_EXE_supersyncctl"), &["push", "--engine=uring", source, &remote]);
        assert_says(&refused, 1, &["--engine uring: the kernel forbids io_uring here"]);
    });
}

#[test]
fn doctor_and_demo_do_without_rings() {
    without_rings(|| {
        assert_says(&supersyncd(&["doctor"]), 0, &["engine        blocking, for io_uring does not work", "seccomp"]);
        assert_says(&supersyncd(&["demo", "--segments", "4", "--records", "5000"]), 0, &["byte for byte"]);
    });
}
