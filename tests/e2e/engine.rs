//! Where the kernel gives no ring: everything works by plain system calls, and says so.
//!
//! A seccomp filter refuses the three system calls of io_uring, as many containers' profiles do. It holds for the
//! thread that a test does its work on, and for the daemons and clients that are started there.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};
use std::thread;

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use supersync::config::EngineChoice;

use super::session::{Outcome, Server, assert_same, make_tree};
use super::site::{Plan, Site, engine};

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
