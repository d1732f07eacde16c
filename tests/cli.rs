//! `supersyncd` as a person at a terminal, a script and a service manager meet it: texts and exit statuses.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use clap::Parser as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use supersync::config::{self, Role};
use tempfile::TempDir;

const SUPERSYNCD: &str = env!("CARGO_BIN_EXE_supersyncd");
const SUPERSYNCCTL: &str = env!("CARGO_BIN_EXE_supersyncctl");

/// What one run said, and how it ended.
#[derive(Debug)]
struct Said {
    status: i32,
    out: String,
    err: String,
}

impl Said {
    fn expect(self, status: i32, wanted: &[&str]) -> Self {
        let all = format!("{}{}", self.out, self.err);
        assert_eq!(self.status, status, "{self:#?}");
        for text in wanted {
            assert!(all.contains(text), "there is no {text:?} in {self:#?}");
        }
        self
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(SUPERSYNCD);
    command.args(args).env_remove("SUPERSYNC_LOG").env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    command
}

fn status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| panic!("it was killed: {status}"))
}

fn say(command: &mut Command) -> Said {
    let output = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said { status: status(output.status), out: text(output.stdout), err: text(output.stderr) }
}

fn run(args: &[&str]) -> Said {
    say(&mut command(args))
}

/// A directory with what a trader needs, and the trader's config in it.
fn trader(change: impl Fn(String) -> String) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |part: &str| dir.path().join(part).display().to_string();
    for part in ["local", "remote", "state"] {
        fs::create_dir(at(part)).expect("made");
    }
    let text = format!(
        "role = \"trader\"\n\
         name = \"trader1\"\n\
         state_dir = \"{}\"\n\
         [control]\n\
         socket = \"{}\"\n\
         [store]\n\
         local = \"{}\"\n\
         remote = \"{}\"\n\
         segments = {{ pattern = \"stock{{1..3}}\", records = 10, record_bytes = 24 }}\n\
         [[listen]]\n\
         address = \"127.0.0.1:0\"\n",
        at("state"),
        at("control.sock"),
        at("local"),
        at("remote")
    );
    let file = dir.path().join("trader1.toml");
    fs::write(&file, change(text)).expect("written");
    (dir, file)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn help_names_every_command_and_the_exit_statuses() {
    let commands = ["run", "check", "demo", "doctor", "init", "config"];
    assert!(!run(&["--help"]).out.contains("  gen "), "it is for packages");
    run(&["--help"]).expect(0, &commands).expect(0, &["78 config", "supersyncd demo", "--log-format", "SUPERSYNC_LOG"]);
    run(&["demo", "--help"]).expect(0, &["--size", "--link-rate", "--links", "--exchanges", "--keep", "--no-chaos"]);
    run(&["check", "--help"]).expect(0, &["--no-environment"]);
    run(&["--version"]).expect(0, &[env!("CARGO_PKG_VERSION")]);
}

/// The first words of the lines of `help` that are indented as commands are.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let words = lines.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    words.filter_map(|line| line.split_whitespace().next()).filter(|word| *word != "help").map(str::to_owned).collect()
}

/// The `--flags` of a text.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.len() > 2 && word.starts_with("--")).map(str::to_owned).collect()
}

/// The flags of `program` and of all of its commands, as `--help` lists them.
fn helped(program: &str, path: &mut Vec<String>, found: &mut BTreeSet<String>) {
    let help = say(Command::new(program).args(&*path).arg("--help").stdin(Stdio::null())).expect(0, &["Usage:"]).out;
    let options = help.lines().filter(|line| line.trim_start().starts_with('-'));
    options.for_each(|line| found.extend(flags(line)));
    for command in commands(&help) {
        path.push(command);
        helped(program, path, found);
        path.pop();
    }
}

#[test]
fn manual_pages_tell_what_help_tells() {
    let dir = tempfile::tempdir().expect("a directory");
    run(&["gen", "man", text(dir.path())]).expect(0, &["written"]);
    for (program, page) in [(SUPERSYNCD, "supersyncd.8"), (SUPERSYNCCTL, "supersyncctl.1")] {
        let page = fs::read_to_string(dir.path().join(page)).expect("written");
        let page = page.replace("\\-", "-").replace("\\fB", " ").replace("\\fI", " ").replace("\\fR", " ");
        let mut helped_flags = BTreeSet::new();
        helped(program, &mut Vec::new(), &mut helped_flags);
        assert!(helped_flags.len() > 5, "{helped_flags:?}");
        // An option's own line follows .TP.
        let headers = page.split(".TP\n").skip(1).filter_map(|entry| entry.lines().next());
        let told: BTreeSet<String> = headers.flat_map(flags).collect();
        assert_eq!(told, helped_flags, "{page}");
        for section in ["NAME", "SYNOPSIS", "COMMANDS", "\"EXIT STATUS\"", "FILES", "\"SEE ALSO\""] {
            assert_eq!(page.matches(&format!(".SH {section}\n")).count(), 1, "{section} of {page}");
        }
    }
    assert!(dir.path().join("supersync.toml.5").exists());
}

/// The texts that tell people what to type.
const DOCUMENTS: [(&str, &str); 2] =
    [("README.md", include_str!("../README.md")), ("deploy/README.md", include_str!("../deploy/README.md"))];

#[test]
fn commands_of_the_documents_are_understood() {
    let is_for_the_shell = |word: &&str| word.starts_with(['#', '>', '|', '&']);
    for (name, document) in DOCUMENTS {
        let mut understood = 0;
        for line in document.lines().filter(|line| line.starts_with("    ")) {
            let words = line.split_whitespace().take_while(|word| !is_for_the_shell(word));
            let words: Vec<&str> = words.map(|word| word.trim_matches('\'')).collect();
            let error = match words.first() {
                Some(&"supersyncd") => supersync::daemon::Cli::try_parse_from(words).err(),
                Some(&"supersyncctl") => supersync::ctl::Cli::try_parse_from(words).err(),
                _ => continue,
            };
            assert!(error.is_none(), "{name}: {line}: {error:?}");
            understood += 1;
        }
        assert!(understood > 5, "{name}: {understood}");
    }
}

#[test]
fn configs_of_the_documents_are_right() {
    let configs = DOCUMENTS.iter().flat_map(|(_, document)| document.split("```toml\n").skip(1));
    let configs: Vec<&str> = configs.filter_map(|rest| rest.split("```").next()).collect();
    assert!(configs.len() >= 3, "{configs:?}");
    for text in configs {
        config::parse(text, "document").unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn completions_are_for_both_programs_and_three_shells() {
    let dir = tempfile::tempdir().expect("a directory");
    run(&["gen", "completions", text(dir.path())]).expect(0, &["written"]);
    for (name, wanted) in [
        ("supersyncd.bash", "--no-environment"),
        ("_supersyncd", "--no-environment"),
        ("supersyncd.fish", "no-environment"),
        ("supersyncctl.bash", "--synced"),
        ("_supersyncctl", "--synced"),
        ("supersyncctl.fish", "synced"),
    ] {
        let script = fs::read_to_string(dir.path().join(name)).expect("written");
        assert!(script.contains(wanted), "{name}: {script}");
    }
}

#[test]
fn a_dropin_is_printed_for_the_unit_that_has_the_name_of_the_file() {
    let (dir, file) = trader(|text| text);
    let remote = dir.path().join("remote");
    let said = run(&["config", "dropin", text(&file)]).expect(0, &["supersyncd@trader1", "[Service]"]);
    assert!(said.out.contains(&format!("Paths={}", remote.display())), "{said:#?}");
    run(&["config", "dropin", "/no/such.toml"]).expect(78, &["/no/such.toml"]);
}

#[test]
fn a_wrong_command_line_is_usage() {
    let check = |args: &[&str], wanted: &str| {
        let said = run(args).expect(2, &[wanted]);
        assert!(said.out.is_empty(), "{said:#?}");
    };
    check(&[], "Usage:");
    check(&["config"], "Usage:");
    check(&["frobnicate"], "frobnicate");
    check(&["run"], "<FILE>");
    check(&["init", "broker"], "trader");
    check(&["config", "show", "x.toml"], "--effective");
    check(&["doctor", "--log-level", "loud"], "is no level");
    check(&["demo", "--links", "0"], "--links");
    check(&["demo", "--size", "1MB", "--segments", "3"], "cannot be used with");
    check(&["demo", "--link-rate", "fast"], "as 500MB");
}

fn ctl(args: &[&str]) -> Said {
    say(Command::new(SUPERSYNCCTL).args(args).stdin(Stdio::null()))
}

#[test]
fn the_help_of_a_transfer_tells_the_rule_of_the_slash_and_every_option() {
    ctl(&["--help"]).expect(0, &["push", "pull", "4 daemon or host"]);
    let options = [
        "--port",
        "--connections",
        "--dry-run",
        "--delete",
        "--exclude",
        "--include",
        "--bwlimit",
        "--checksum",
        "--no-resume",
        "--numeric-ids",
        "--xattrs",
        "--fsync",
        "--quiet",
        "--json",
        "Exit status: 0 all is there",
    ];
    for (command, example) in [("push", "push dir/ host:data/x"), ("pull", "pull host:data/dir/ x")] {
        ctl(&[command, "--help"]).expect(0, &options).expect(0, &["As with rsync", example, "supersync://HOST:PORT/"]);
    }
}

#[test]
fn a_fetch_tells_where_files_land_and_who_does_not_answer() {
    ctl(&["fetch", "--help"]).expect(0, &["remote/ below DST", "protocol = \"named\"", "--packet-bytes", "7403"]);
    ctl(&["fetch", "h:0", "dst"]).expect(2, &["\"0\" is no port"]);
    ctl(&["fetch", "h", "dst", "../x"]).expect(2, &["../x"]);
    ctl(&["fetch", "h:1", "dst", "--port", "2"]).expect(2, &["write one of them"]);
    let dir = tempfile::tempdir().expect("a directory");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("bound");
    let wanted = ["127.0.0.1 does not answer", "protocol = \"named\""];
    ctl(&["fetch", &closed.to_string(), text(dir.path())]).expect(4, &wanted);
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0, "nothing was made");
}

/// A node that runs, and is killed when the test is over, however that ends.
struct Running(Child);

impl Running {
    fn terminate(&self) {
        kill(Pid::from_raw(self.0.id().try_into().expect("a pid")), Signal::SIGTERM).expect("it is ours");
    }

    fn status(&mut self) -> i32 {
        status(self.0.wait().expect("it ends"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node that runs and listens, the log that it goes on to write, and the line of it that says where.
fn node_of(file: &Path) -> (Running, BufReader<ChildStderr>, String) {
    let mut node = Running(command(&["run", text(file)]).stderr(Stdio::piped()).spawn().expect("it runs"));
    let mut log = BufReader::new(node.0.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("listening") {
        line.clear();
        assert_ne!(log.read_line(&mut line).expect("text"), 0, "it ended before it listened");
    }
    (node, log, line)
}

#[test]
fn a_fetch_brings_what_a_trader_has_and_skips_it_the_second_time() {
    let (dir, file) = trader(|text| {
        let text = text.replace("address = \"127.0.0.1:0\"", "address = \"127.0.0.1:0\"\nprotocol = \"named\"");
        text.lines().filter(|line| !line.starts_with("segments")).map(|line| format!("{line}\n")).collect()
    });
    fs::create_dir(dir.path().join("local/a")).expect("made");
    fs::write(dir.path().join("local/a/b"), "content").expect("written");
    let (mut node, log, line) = node_of(&file);
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("it says where");
    let reader = std::thread::spawn(move || log.lines().map_while(Result::ok).collect::<Vec<_>>());
    let there = dir.path().join("there");
    ctl(&["fetch", address, text(&there)]).expect(0, &["1 entry: 1 new"]);
    assert_eq!(fs::read(there.join("remote/a/b")).expect("fetched"), b"content");
    assert!(there.join("remote/a/b.success").exists());
    ctl(&["fetch", address, text(&there)]).expect(0, &["1 entry: 0 new"]);
    ctl(&["fetch", address, text(&there), "c"]).expect(1, &["failed: c: ", "does not have 1 of 1 objects"]);
    node.terminate();
    let rest = reader.join().expect("it reads to the end");
    assert_eq!(node.status(), 0, "{rest:#?}");
}

#[test]
fn an_interrupted_fetch_says_how_to_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = silent.local_addr().expect("bound").to_string();
    let fetch = Command::new(SUPERSYNCCTL)
        .args(["fetch", &address, text(dir.path())])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    // It catches signals from before it connects.
    let _first = silent.accept().expect("it connects");
    kill(Pid::from_raw(fetch.id().try_into().expect("a pid")), Signal::SIGINT).expect("it is ours");
    let output = fetch.wait_with_output().expect("it ends");
    let err = String::from_utf8(output.stderr).expect("text");
    assert_eq!(status(output.status), 3, "{err}");
    assert!(err.contains("interrupted. Run the same command again to go on"), "{err}");
}

#[test]
fn a_wrong_transfer_is_usage() {
    let check = |args: &[&str], wanted: &str| {
        let said = ctl(args).expect(2, &[wanted]);
        assert!(said.out.is_empty(), "{said:#?}");
    };
    check(&["push"], "SRC... REMOTE");
    check(&["push", "a"], "whereto a is to be sent is missing");
    check(&["push", "h:data"], "what is to be sent to h:data is missing");
    check(&["push", "a", "b"], "b: there is no host in it: write HOST:MODULE/PATH");
    check(&["pull", "a", "b"], "there is no host in it");
    check(&["pull", "h:/srv", "b"], "should with the name of a module");
    check(&["pull", "h:7402:data", "b"], "--port 7402");
    check(&["pull", "--port", "1", "supersync://h:2/data", "b"], "write one of them");
    check(&["pull", "--connections", "65", "h:data", "b"], "from 1 to 64");
    check(&["pull", "--bwlimit", "fast", "h:data", "b"], "1.5MB");
    check(&["pull", "h:data", ""], "DST");
}

#[test]
fn what_stands_in_the_way_of_a_transfer_is_told_by_its_exit_status() {
    let dir = tempfile::tempdir().expect("a directory");
    let here = text(dir.path());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("bound");
    let url = format!("supersync://{closed}/data");
    let wanted = ["127.0.0.1 does not answer", "protocol = \"session\"", "--port"];
    ctl(&["push", here, &url]).expect(4, &wanted);
    let said = ctl(&["--json", "pull", &url, here]).expect(4, &wanted);
    let event: serde_json::Value = serde_json::from_str(&said.out).expect("one object");
    assert_eq!((&event["schema"], &event["event"]), (&"supersync.transfer/1".into(), &"summary".into()));
    assert_eq!((&event["result"], &event["exit_status"]), (&"failed".into(), &4.into()));
    ctl(&["pull", "no-such-host.invalid:data", here]).expect(4, &["cannot find no-such-host.invalid"]);

    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    ctl(&["pull", &url, text(&file)]).expect(1, &["file", "ot a directory"]);
    ctl(&["push", text(&dir.path().join("gone")), &url]).expect(1, &["gone", "No such file"]);
    if !geteuid().is_root() {
        let closed = dir.path().join("closed");
        fs::create_dir(&closed).expect("made");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("it is ours");
        ctl(&["push", text(&closed.join("x")), &url]).expect(77, &["closed"]);
    }
}

#[test]
fn init_writes_a_config_that_parses() {
    for (role, parsed) in [("trader", Role::Trader), ("exchange", Role::Exchange)] {
        let said = run(&["init", role]).expect(0, &["supersyncd check"]);
        assert_eq!(config::parse(&said.out, role).expect("valid").role.role(), parsed);
    }
}

#[test]
fn init_never_overwrites() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("trader1.toml");
    run(&["init", "trader", "-o", text(&file)]).expect(0, &["supersyncd check"]);
    config::load(&file).expect("valid");
    fs::write(&file, "mine").expect("written");
    run(&["init", "trader", "-o", text(&file)]).expect(1, &["is there already"]);
    assert_eq!(fs::read(&file).expect("still there"), b"mine");
    run(&["init", "trader", "-o", text(&dir.path().join("no/such/place"))]).expect(1, &["cannot write"]);
}

#[test]
fn what_the_system_does_not_permit_is_77() {
    if !geteuid().is_root() {
        let (_dir, file) = trader(|text| text);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("it is ours");
        for args in [["check", text(&file)], ["run", text(&file)]] {
            run(&args).expect(77, &[text(&file), "cannot read"]);
        }
        return;
    }
    // Hardly anything is forbidden to root: making files in sysfs is.
    const FORBIDDEN: &str = "/sys/kernel/supersync.toml";
    match File::create_new(FORBIDDEN) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            run(&["init", "trader", "-o", FORBIDDEN]).expect(77, &[FORBIDDEN]);
        }
        other => println!("skipped: root may do everything here: {other:?}"),
    }
}

#[test]
fn a_config_error_shows_its_place_and_is_78() {
    let (_dir, file) = trader(|text| text.replace("name =", "pakcet_bytes = 1400\nname ="));
    let file = text(&file);
    let place = format!("{file}:2:1: unknown key `pakcet_bytes`\n    2 | pakcet_bytes = 1400\n      | ^^^^^^^^^^^^ ");
    for args in [&["check", file][..], &["run", file], &["config", "show", "--effective", file]] {
        let said = run(args).expect(78, &[&place, "packet_bytes"]);
        assert!(said.out.is_empty() && said.err.starts_with(&place), "{said:#?}");
    }
    for args in [&["check", "/no/such.toml"], &["run", "/no/such.toml"]] {
        run(args).expect(78, &["/no/such.toml: cannot read the config", "supersyncd init"]);
    }
    let (_dir, file) = trader(|text| text.replace("{1..3}", "{3..1}"));
    for args in [["check", text(&file)], ["run", text(&file)]] {
        run(&args).expect(78, &["store.segments.pattern", "descends"]);
    }
}

#[test]
fn check_says_what_the_node_would_be() {
    let (dir, file) = trader(|text| text);
    let ok = format!("{}: ok\n", file.display());
    let wanted = [&ok, "trader trader1", "3 segments of 240 bytes", "127.0.0.1:0"];
    run(&["check", text(&file)]).expect(0, &wanted).expect(0, &["memory that may be locked"]);
    let said = run(&["check", "--no-environment", text(&file)]).expect(0, &wanted);
    assert!(said.out.starts_with(&ok), "{said:#?}");

    let remote = dir.path().join("remote");
    fs::remove_dir(&remote).expect("it is empty");
    fs::write(&remote, "a file").expect("written");
    let said = run(&["check", text(&file)]).expect(1, &["store.remote", "is not a directory", "this host has 1 error"]);
    assert!(!said.out.contains(": ok"), "{said:#?}");
    run(&["check", "--no-environment", text(&file)]).expect(0, &wanted);
}

#[test]
fn the_effective_config_is_the_same_config() {
    let (_dir, file) = trader(|text| text);
    let said = run(&["config", "show", "--effective", text(&file)]).expect(0, &["packet_bytes = 1400"]);
    let effective = config::parse(&said.out, "effective").expect("valid");
    assert_eq!(effective, config::load(&file).expect("valid"));
}

#[test]
fn doctor_tries_the_ring_and_says_what_would_run() {
    let said = run(&["doctor", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("one object");
    assert_eq!(json["schema"], "supersync.doctor/1");
    assert!(json["features"].as_array().is_some_and(|features| features.len() > 5), "{json}");
    let engine = json["engine"].as_str().expect("it says so");
    assert!(["io_uring", "blocking"].contains(&engine), "{json}");
    let people = run(&["doctor"]).expect(0, &["kernel", "memlock", "clock", "congestion", "RECV", "engine"]);
    assert!(people.out.contains(&format!("engine        {engine}")), "{people:#?}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    for args in [&["init", "trader"][..], &["doctor"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command(args).stdout(writer).stderr(Stdio::piped()).output().expect("it runs");
        assert_eq!((status(output.status), &*output.stderr), (0, &b""[..]), "{args:?}");
    }
}

/// Runs something that logs a warning and fails, and returns what it logged.
fn warned(change: impl Fn(&mut Command) -> &mut Command) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("stderr");
    let log = File::create_new(&path).expect("made");
    let file = log.metadata().expect("open");
    let mut command = command(&["run", "/no/such.toml"]);
    command.env("SUPERSYNC_LOG", "loud").env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino())).stderr(log);
    assert_eq!(status(change(&mut command).status().expect("it runs")), 78);
    fs::read_to_string(&path).expect("text")
}

#[test]
fn the_journal_is_not_taken_for_another_standard_error() {
    // The variable is inherited by whoever has another one.
    let log = warned(|command| command.env("JOURNAL_STREAM", "1:1"));
    assert!(log.contains(" WARN SUPERSYNC_LOG is ignored: \"loud\" is no level") && log.starts_with("20"), "{log}");
}

#[test]
fn the_log_can_be_json_or_off() {
    let log = warned(|command| command.args(["--log-format", "json"]));
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let levels: Vec<_> = lines.iter().filter_map(|line| line["level"].as_str()).collect();
    assert_eq!(levels, ["WARN", "ERROR"], "{log}");
    let last = lines[1]["message"].as_str().expect("text");
    assert!(last.starts_with("/no/such.toml: cannot read"), "{log}");
    let log = warned(|command| command.args(["--log-level", "off"]));
    assert!(log.starts_with("/no/such.toml: cannot read"), "{log}");
}

#[test]
fn a_node_runs_until_it_is_told_to_stop() {
    let (dir, file) = trader(|text| text);
    let (mut node, log, _) = node_of(&file);
    let check = run(&["check", text(&file)]).expect(0, &["a node answers on control.socket"]);
    assert!(check.out.contains(": ok"), "{check:#?}");
    run(&["run", text(&file)]).expect(1, &[text(&dir.path().join("control.sock")), "running supersyncd"]);
    node.terminate();
    // Whoever reads a log reads it to its end.
    let rest: Vec<String> = log.lines().map(|line| line.expect("text")).collect();
    assert_eq!(node.status(), 0, "{rest:#?}");
}

/// Both started, and each wrote what it had hashed into the other's file.
#[test]
fn a_state_directory_is_of_one_node_and_of_none_that_is_dead() {
    let (dir, file) = trader(|text| text);
    let state = dir.path().join("state").display().to_string();
    let of_first = |text: String| {
        let lines = text
            .lines()
            .map(|line| if line.starts_with("state_dir") { format!("state_dir = \"{state}\"") } else { line.into() });
        lines.map(|line| line + "\n").collect()
    };
    let (_dir, other) = trader(of_first);
    let (node, _log, _) = node_of(&file);
    let holder = format!("{state}: in use by process {}; ", node.0.id());
    run(&["run", text(&other)]).expect(1, &[&holder, "name another directory"]);
    drop(node);
    node_of(&other);
}

#[test]
fn a_node_without_a_store_runs_and_takes_its_modules_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |part: &str| dir.path().join(part).display().to_string();
    fs::create_dir(at("pub")).expect("made");
    let config = |read_only: bool| {
        format!(
            "role = \"trader\"\nname = \"files\"\nstate_dir = \"{}\"\n[control]\nsocket = \"{}\"\n\
             [[module]]\nname = \"pub\"\npath = \"{}\"\nread_only = {read_only}\n\
             [[listen]]\naddress = \"127.0.0.1:0\"\nprotocol = \"session\"\n",
            at("state"),
            at("control.sock"),
            at("pub")
        )
    };
    let file = dir.path().join("files.toml");
    fs::write(&file, config(true)).expect("written");
    run(&["check", text(&file)])
        .expect(0, &["trader files: replicates nothing", "module pub", "can be read in sessions"]);

    let (mut node, log, line) = node_of(&file);
    assert!(line.contains("session"), "{line}");
    let ctl = |args: &[&str]| say(Command::new(SUPERSYNCCTL).args(["--socket", &at("control.sock")]).args(args));
    ctl(&["status"]).expect(0, &["files  trader  SYNCED", "want 0 objects"]);
    for args in [&["links"][..], &["why-slow"], &["objects"], &["wait", "--synced", "--timeout", "60"]] {
        ctl(args).expect(0, &[]);
    }
    ctl(&["verify", "--deep"]).expect(1, &["this node has no store"]);
    ctl(&["verify", "--config", text(&file)]).expect(2, &["the config has no [store]"]);
    fs::write(&file, config(false)).expect("written");
    ctl(&["reload"]).expect(0, &["applied: module[pub].read_only: true -> false"]);
    node.terminate();
    let rest: Vec<String> = log.lines().map(|line| line.expect("text")).collect();
    assert_eq!(node.status(), 0, "{rest:#?}");
    assert!(!rest.iter().any(|line| line.contains("ERROR") || line.contains("panicked")), "{rest:#?}");
}

/// Runs the demo in a directory of its own, which it must leave empty.
fn demo(args: &[&str]) -> Said {
    let dir = tempfile::tempdir().expect("a directory");
    let said = say(command(&["demo", "--dir", text(dir.path())]).args(args));
    let left: Vec<_> = fs::read_dir(dir.path()).expect("there").collect();
    assert!(left.is_empty(), "{left:?}");
    said
}

#[test]
fn the_demo_ends_with_identical_sides() {
    demo(&["--segments", "6", "--records", "2000", "--links", "2", "--no-chaos"])
        .expect(0, &["identical", "6 segments each", "moved       288.0 kB each way", "nothing, as asked for"]);
}

#[test]
fn the_demo_survives_the_loss_of_an_exchange() {
    // Slow enough that half of it is seen.
    let said = demo(&["--segments", "20", "--records", "5000", "--links", "2", "--link-rate", "400kB"]);
    said.expect(0, &["identical", "20 segments each", "exchange1 is killed", "exchange1 is back"]);
}

#[test]
fn the_demo_leaves_what_it_is_asked_to_keep() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = text(dir.path());
    let args = ["demo", "--size", "10kB", "--links", "1", "--exchanges", "1", "--no-chaos", "--keep", "--dir", at];
    let said = run(&args).expect(0, &["identical", "kept"]);
    let kept = said.out.lines().find_map(|line| line.strip_prefix("kept        ")).expect("it says where");
    let read = |path: &str| fs::read(Path::new(kept).join(path)).expect("there");
    let segment = read("trader1/local/stock1");
    assert!(!segment.is_empty() && segment.len().is_multiple_of(24));
    assert_eq!(read("trader2/remote/stock1"), segment);
    assert_ne!(read("trader2/local/stock1"), segment);
    read("trader2/remote/stock1.success");
    run(&["check", "--no-environment", text(&Path::new(kept).join("exchange1.toml"))]).expect(0, &["over 1 link"]);
}

#[test]
fn a_demo_without_room_says_so_before_it_begins() {
    let said = demo(&["--segments", "1000000", "--records", "100000000"]);
    said.expect(1, &["needs 9.6", "--dir", "--size"]);
    run(&["demo", "--dir", "/no/such/place", "--size", "1kB"]).expect(1, &["/no/such/place"]);
}

/// At a hang-up it was gone at once, and all that it had made stayed: four times the size of the data.
#[test]
fn an_interrupted_demo_takes_its_directory_away() {
    for signal in [Signal::SIGINT, Signal::SIGHUP] {
        interrupt_a_demo(signal);
    }
}

fn interrupt_a_demo(signal: Signal) {
    let dir = tempfile::tempdir().expect("a directory");
    let at = text(dir.path());
    let args = ["demo", "--dir", at, "--size", "100MB", "--records", "1000", "--link-rate", "10kB"];
    let mut demo = command(&args).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut log = BufReader::new(demo.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("are up") {
        line.clear();
        assert_ne!(log.read_line(&mut line).expect("text"), 0, "it ended before its nodes were up");
    }
    kill(Pid::from_raw(demo.id().try_into().expect("a pid")), signal).expect("it is ours");
    let rest: Vec<String> = log.lines().map(|line| line.expect("text")).collect();
    assert_eq!(status(demo.wait().expect("it ends")), 1, "{rest:#?}");
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:#?}");
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
}
