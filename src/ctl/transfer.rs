//! `supersyncctl push` and `pull`: trees between this host and the modules of another, in a session.
//!
//! Reads the command line into a [`SessionJob`], finds the server and how far it is, has the engine do it, shows how
//! far it is, and says how it ended. SIGINT and SIGTERM end it in good order; the second one at once.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgMatches, Args, FromArgMatches};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::engine::Engine;
use super::progress::{Mode, Show};
use super::remote::{self, Host, Remote};
use super::{CtlError, Screen};
use crate::engine::session::{
    Direction, Report, SessionError, SessionHandle, SessionJob, SessionOptions, StopSwitch, Summary,
};
use crate::units::ByteCount;
use crate::uring::DriverKind;
use crate::{exit, limits};

const PUSH_HELP: &str = "\
As with rsync, a '/' at the end of a SRC counts:
  supersyncctl push dir  host:data/x    makes data/x/dir
  supersyncctl push dir/ host:data/x    puts what is in dir into data/x

REMOTE is HOST:MODULE/PATH, [IPV6]:MODULE/PATH or supersync://HOST:PORT/MODULE/PATH; the server's config \
says which MODULEs there are. What is equal in size and mtime is left alone. A transfer that was interrupted goes on \
where it was when the same command is run again.

Exit status: 0 all is there, 1 failed or refused, 2 usage, 3 run it again to go on, 4 host unreachable, 77 permission.";

const PULL_HELP: &str = "\
As with rsync, a '/' at the end of REMOTE counts:
  supersyncctl pull host:data/dir  x    makes x/dir
  supersyncctl pull host:data/dir/ x    puts what is in dir into x
A whole MODULE has no name to make: its contents come into DST either way.

REMOTE is HOST:MODULE/PATH, [IPV6]:MODULE/PATH or supersync://HOST:PORT/MODULE/PATH; the server's config \
says which MODULEs there are. What is equal in size and mtime is left alone. A transfer that was interrupted goes on \
where it was when the same command is run again.

Exit status: 0 all is there, 1 failed or refused, 2 usage, 3 run it again to go on, 4 host unreachable, 77 permission.";

/// What is sent where.
#[derive(Debug, Args)]
#[command(after_help = PUSH_HELP, override_usage = "supersyncctl push [OPTIONS] SRC... REMOTE")]
pub(super) struct Push {
    /// Files and directories of this host, and at last a directory in a module of another; it is made where it is not
    /// there
    // One list, as options may stand anywhere between its members.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// What is fetched whereto.
#[derive(Debug, Args)]
#[command(after_help = PULL_HELP)]
pub(super) struct Pull {
    /// A file or directory in a module of another host
    #[arg(value_name = "REMOTE", value_parser = remote_parser())]
    remote: Remote,
    /// A directory of this host; made where it is not there
    #[arg(value_name = "DST")]
    destination: PathBuf,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
struct Options {
    /// Where the server listens, unless the URL says so. Without it: 7402
    #[arg(long, value_name = "PORT", value_parser = remote::port)]
    port: Option<u16>,
    /// Connections that carry data. Without it: up to 4 by the number of cores, 8 where the server is far
    #[arg(long, value_name = "COUNT", value_parser = connections)]
    connections: Option<usize>,
    /// Change nothing, and list what would change
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Remove at the receiver what the sender does not have; what is excluded stays
    #[arg(long)]
    delete: bool,
    #[command(flatten)]
    rules: Rules,
    /// As many bytes a second at most, as 1.5MB or 10MiB
    #[arg(long, value_name = "RATE", value_parser = bytes_per_second)]
    bwlimit: Option<ByteCount>,
    /// Compare contents, not size and mtime: slower, as all of both sides is read
    #[arg(short = 'c', long)]
    checksum: bool,
    /// Do not use what an interrupted transfer has left
    #[arg(long)]
    no_resume: bool,
    /// Keep the owners' numbers, not their names
    #[arg(long)]
    numeric_ids: bool,
    /// Extended attributes too
    #[arg(short = 'X', long)]
    xattrs: bool,
    /// Have everything on disk before the transfer is done
    #[arg(long)]
    fsync: bool,
    #[command(flatten)]
    engine: Engine,
    /// No bar and no summary
    #[arg(short, long)]
    quiet: bool,
}

/// `--exclude` and `--include` in the order in which they were given: the lines of a gitignore.
#[derive(Debug, Default)]
struct Rules(Vec<Box<[u8]>>);

const EXCLUDE: &str = "exclude";
const INCLUDE: &str = "include";

impl Args for Rules {
    fn augment_args(command: clap::Command) -> clap::Command {
        let rule = |name: &'static str, help: &'static str| {
            let pattern = OsStringValueParser::new().try_map(pattern);
            let action = clap::ArgAction::Append;
            clap::Arg::new(name).long(name).value_name("PATTERN").action(action).value_parser(pattern).help(help)
        };
        let exclude =
            "Leave out what matches, written as in a .gitignore; of several rules the last that matches counts";
        command
            .arg(rule(EXCLUDE, exclude))
            .arg(rule(INCLUDE, "Do not leave out what matches, though an earlier --exclude does"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Rules {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut placed: Vec<(usize, Box<[u8]>)> = Vec::new();
        for name in [EXCLUDE, INCLUDE] {
            let patterns = matches.get_many::<OsString>(name).into_iter().flatten();
            let places = matches.indices_of(name).into_iter().flatten();
            placed.extend(places.zip(patterns).map(|(place, pattern)| (place, rule(name, pattern))));
        }
        placed.sort_unstable_by_key(|(place, _)| *place);
        Ok(Self(placed.into_iter().map(|(_, rule)| rule).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn pattern(pattern: OsString) -> Result<OsString, String> {
    match pattern.as_bytes() {
        b"" => Err("the pattern is empty".to_owned()),
        bytes if bytes.contains(&b'\n') => Err("a pattern is one line; '?' matches a line feed".to_owned()),
        _ => Ok(pattern),
    }
}

/// The line of a gitignore: an include is `!pattern`; what a gitignore would take for that or for a comment is escaped.
fn rule(name: &str, pattern: &OsStr) -> Box<[u8]> {
    let pattern = pattern.as_bytes();
    let lead: &[u8] = match (name, pattern[0]) {
        (INCLUDE, _) => b"!",
        (_, b'!' | b'#') => b"\\",
        _ => b"",
    };
    [lead, pattern].concat().into()
}

fn remote_parser() -> impl TypedValueParser<Value = Remote> {
    OsStringValueParser::new().try_map(|text| Remote::parse(&text))
}

fn connections(text: &str) -> Result<usize, String> {
    let max = limits::SESSION_CONNECTIONS_MAX;
    let count = text.parse().ok().filter(|count| (1..=max).contains(count));
    count.ok_or_else(|| format!("a number from 1 to {max} is needed"))
}

fn bytes_per_second(text: &str) -> Result<ByteCount, String> {
    let bytes = text.strip_suffix("/s").unwrap_or(text).parse::<ByteSize>().map(|ByteSize(bytes)| bytes);
    let bytes = bytes.ok().filter(|bytes| *bytes > 0).map(ByteCount);
    bytes.ok_or_else(|| "a rate is bytes a second, as 500kB, 1.5MB or 10MiB".to_owned())
}

/// Runs `push` to its exit status.
pub(super) async fn push(push: Push, screen: Screen) -> Result<u8, CtlError> {
    let Push { paths, options } = push;
    let (sources, remote) = ends(paths).map_err(CtlError::Usage)?;
    for source in &sources {
        let local = |source_error| local(&remote, source, source_error);
        // A '/' at its end makes a symbolic link the directory that it leads to.
        source.symlink_metadata().map_err(local)?;
    }
    transfer(Direction::Push { sources }, remote, options, screen).await
}

/// What is to be pushed, and whereto.
fn ends(mut paths: Vec<PathBuf>) -> Result<(Vec<PathBuf>, Remote), String> {
    let last = paths.pop().unwrap_or_default();
    let remote = Remote::parse(last.as_os_str());
    match paths.as_slice() {
        [] if remote.is_ok() => Err(format!("what is to be sent to {} is missing: push SRC... REMOTE", last.display())),
        [] => Err(format!("whereto {} is to be sent is missing: push SRC... HOST:MODULE/PATH", last.display())),
        sources if sources.iter().any(|source| source.as_os_str().is_empty()) => {
            Err("an empty SRC is no path".to_owned())
        }
        _ => match remote {
            Ok(remote) => Ok((paths, remote)),
            Err(error) => Err(format!("{}: {error}", last.display())),
        },
    }
}

/// Runs `pull` to its exit status.
pub(super) async fn pull(pull: Pull, screen: Screen) -> Result<u8, CtlError> {
    let Pull { remote, destination, options } = pull;
    if destination.as_os_str().is_empty() {
        return Err(CtlError::Usage("an empty DST is no path; the directory that this is run in is '.'".to_owned()));
    }
    match destination.metadata() {
        Ok(found) if !found.is_dir() => {
            return Err(local(&remote, &destination, io::ErrorKind::NotADirectory.into()));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(local(&remote, &destination, error)),
        // Hardly anybody means a directory that is called so.
        Err(_) if Remote::parse(destination.as_os_str()).is_ok() => {
            let name = destination.display();
            let text = format!("{name}: what is pulled comes to this host; a directory of that name is ./{name}");
            return Err(CtlError::Usage(text));
        }
        _ => {}
    }
    transfer(Direction::Pull { destination }, remote, options, screen).await
}

async fn transfer(direction: Direction, remote: Remote, options: Options, screen: Screen) -> Result<u8, CtlError> {
    let port = remote.host.port_or(options.port, limits::SESSION_PORT_DEFAULT).map_err(CtlError::Usage)?;
    let plan = Plan { direction, remote, port, options, screen };
    interruptible(move |interrupt| plan.run(crate::engine::session::start, interrupt)).await
}

/// What is to be done, as it was typed.
struct Plan {
    direction: Direction,
    remote: Remote,
    port: u16,
    options: Options,
    screen: Screen,
}

impl Plan {
    fn run(
        self,
        start: impl FnOnce(SessionJob, TcpStream) -> Result<SessionHandle, SessionError>,
        interrupt: &Interrupt,
    ) -> Result<u8, CtlError> {
        let Self { direction, remote, port, options, screen } = self;
        let mode = if screen.json { Mode::Json } else { Mode::Text { quiet: options.quiet } };
        let mut show = Show::new(mode, options.dry_run, io::stdout(), io::stderr());
        let resume = !options.no_resume;
        let mut done = Summary::default();
        let outcome = reach(&remote.host, port, "session").and_then(|(reached, stream)| {
            let failed = |source| session_error(&remote, port, resume, source);
            let driver = options.engine.driver(options.quiet)?;
            let handle = start(job(direction, &remote, options, &reached, driver), stream).map_err(failed)?;
            interrupt.begin();
            let result = follow(&handle, &mut show, interrupt, Instant::now)?;
            done = handle.summary();
            result.map_err(failed)
        });
        conclude(outcome, done, &mut show, &remote)
    }
}

/// The summary and the exit status of a transfer that ended so; `done`: what it did where it broke off.
fn conclude<O: Write, E: Write>(
    outcome: Result<Summary, CtlError>,
    done: Summary,
    show: &mut Show<O, E>,
    remote: &Remote,
) -> Result<u8, CtlError> {
    let (summary, result) = match outcome {
        Err(error) => (done, Err(error)),
        Ok(summary) if summary.failed > 0 => {
            let Summary { failed, entries, .. } = summary;
            (summary, Err(CtlError::Incomplete { remote: remote.to_string(), failed, entries }))
        }
        Ok(summary) => (summary, Ok(exit::OK)),
    };
    match &result {
        Ok(status) => show.end(&summary, None, *status)?,
        // What was done is worth its line though not all of it was.
        Err(error @ CtlError::Incomplete { .. }) => show.end(&summary, None, error.exit_status())?,
        Err(error) => show.end(&summary, Some(&error.to_string()), error.exit_status())?,
    }
    result
}

fn job(direction: Direction, remote: &Remote, options: Options, reached: &Reached, driver: DriverKind) -> SessionJob {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    SessionJob {
        direction,
        address: reached.address,
        path: remote.path.clone(),
        connections: options.connections.unwrap_or_else(|| default_connections(cores, reached.rtt)),
        driver,
        options: SessionOptions {
            delete: options.delete,
            checksum: options.checksum,
            dry_run: options.dry_run,
            xattrs: options.xattrs,
            numeric_ids: options.numeric_ids,
            resume: !options.no_resume,
            bwlimit: options.bwlimit,
            fsync: options.fsync,
            rules: options.rules.0,
            ..SessionOptions::default()
        },
    }
}

/// A near server is as fast as the cores that read and write; to a far one each connection carries its window a round
/// trip, so that more of them carry more.
fn default_connections(cores: usize, rtt: Duration) -> usize {
    match rtt >= limits::SESSION_FAR_RTT {
        true => limits::SESSION_CONNECTIONS_FAR,
        false => cores.clamp(1, limits::SESSION_CONNECTIONS_NEAR),
    }
}

/// Shows what a transfer reports until it has ended, and how it ended.
fn follow<O: Write, E: Write>(
    handle: &SessionHandle,
    show: &mut Show<O, E>,
    interrupt: &Interrupt,
    now: impl Fn() -> Instant,
) -> io::Result<Result<Summary, SessionError>> {
    let switch: StopSwitch = handle.stop_switch();
    let mut stopped_at = None;
    loop {
        match handle.next_report(limits::PROGRESS_EVERY) {
            Some(Report::Ended(result)) => return Ok(result),
            Some(report) => show.report(&report)?,
            None => {}
        }
        show.progress(&handle.progress().into(), now())?;
        if interrupt.is_asked() {
            switch.stop();
            let since = *stopped_at.get_or_insert_with(&now);
            if now().saturating_duration_since(since) >= limits::SESSION_STOP_WITHIN {
                return Ok(Err(SessionError::Interrupted));
            }
        }
    }
}

/// A server that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    address: SocketAddr,
    /// How long it took to connect: about one round trip.
    rtt: Duration,
}

/// The first address of `host` that takes a connection, and the connection. `protocol`: what should be spoken there,
/// for people.
pub(super) fn reach(host: &Host, port: u16, protocol: &'static str) -> Result<(Reached, TcpStream), CtlError> {
    let name = Host { port: None, ..host.clone() }.to_string();
    let resolve = |source| CtlError::Resolve { host: name.clone(), source };
    let mut last = None;
    for address in (host.name.as_str(), port).to_socket_addrs().map_err(resolve)? {
        let began = Instant::now();
        match TcpStream::connect_timeout(&address, limits::DIAL_WITHIN) {
            Ok(stream) => return Ok((Reached { address, rtt: began.elapsed() }, stream)),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(source) => Err(CtlError::NoAnswer { host: name, port, protocol, source }),
        None => Err(resolve(io::Error::other("the name has no address"))),
    }
}

fn session_error(remote: &Remote, port: u16, resume: bool, source: SessionError) -> CtlError {
    let hint = match &source {
        SessionError::Unreachable { .. } => format!("; is port {port} still listened on?"),
        SessionError::Protocol { .. } | SessionError::NoSession { .. } => {
            format!("; is port {port} that of a [[listen]] with protocol = \"session\"? Another goes with --port")
        }
        SessionError::Refused { .. } if source.is_busy() => {
            ". Run the same command again when others have ended".to_owned()
        }
        SessionError::Local { .. } if exit::is_permission(&source) => {
            "; run this as a user that may, or choose another place".to_owned()
        }
        SessionError::Lost { .. } | SessionError::Interrupted if resume => {
            ". Run the same command again to go on".to_owned()
        }
        SessionError::Lost { .. } | SessionError::Interrupted => {
            ". Run it again without --no-resume to go on".to_owned()
        }
        _ => String::new(),
    };
    // What stands in the way here has nothing to do with there.
    let lead = match &source {
        SessionError::Local { .. } => String::new(),
        _ => format!("{remote}: "),
    };
    CtlError::Session { lead, source, hint }
}

/// Something here stands in the way, before there was a connection.
fn local(remote: &Remote, path: &Path, source: io::Error) -> CtlError {
    let path = path.to_owned();
    session_error(remote, limits::SESSION_PORT_DEFAULT, true, SessionError::Local { path, source })
}

/// Whether a person or the system has asked for the end.
#[derive(Debug, Default)]
pub(super) struct Interrupt {
    asked: AtomicBool,
    /// There is something to end in good order.
    begun: AtomicBool,
}

impl Interrupt {
    fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// Runs `work` on a thread of its own, which is told of the first SIGINT or SIGTERM once it has
/// [begun](Interrupt::begin). Before that, the second time, and where it does not end for that, as when nobody reads
/// what it says, it is left where it is.
pub(super) async fn interruptible(
    work: impl FnOnce(&Interrupt) -> Result<u8, CtlError> + Send + 'static,
) -> Result<u8, CtlError> {
    let interrupt = Arc::new(Interrupt::default());
    let (done, mut ended) = oneshot::channel();
    let mut signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let shared = Arc::clone(&interrupt);
    std::thread::Builder::new().name("transfer".into()).spawn(move || drop(done.send(work(&shared))))?;
    let mut leave_at = None;
    loop {
        tokio::select! {
            () = until(leave_at) => return Err(CtlError::Interrupted),
            result = &mut ended => return result.unwrap_or_else(|_| Err(CtlError::Interrupted)),
            () = either(&mut signals) => {
                let again = interrupt.asked.swap(true, Ordering::AcqRel);
                if again || !interrupt.begun.load(Ordering::Acquire) {
                    return Err(CtlError::Interrupted);
                }
                leave_at = Some(tokio::time::Instant::now() + limits::SESSION_LEFT_WITHIN);
            }
        }
    }
}

async fn until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn either((interrupt, terminate): &mut (Signal, Signal)) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::sync::mpsc;

    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;
    use crate::engine::session::{Change, SessionFeed, SessionProgress};
    use crate::units::TreePath;

    fn pushed(args: &[&str]) -> Result<Push, String> {
        let args = ["supersyncctl", "push"].iter().chain(args).map(OsStr::new);
        match Cli::try_parse_from(args).map_err(|error| error.to_string())?.command {
            Command::Push(push) => Ok(push),
            other => panic!("{other:?}"),
        }
    }

    fn pulled(args: &[&str]) -> Result<Pull, String> {
        let args = ["supersyncctl", "pull"].iter().chain(args).map(OsStr::new);
        match Cli::try_parse_from(args).map_err(|error| error.to_string())?.command {
            Command::Pull(pull) => Ok(pull),
            other => panic!("{other:?}"),
        }
    }

    fn reached() -> Reached {
        Reached { address: "127.0.0.1:7402".parse().expect("valid"), rtt: Duration::ZERO }
    }

    #[test]
    fn the_last_path_of_a_push_is_remote_and_slashes_are_kept() {
        let Push { paths, options } = pushed(&["a", "--delete", "b/", "h:data/x"]).expect("valid");
        let (sources, remote) = ends(paths).expect("valid");
        assert!(options.delete);
        let job = job(Direction::Push { sources }, &remote, options, &reached(), DriverKind::Blocking);
        let Direction::Push { sources } = &job.direction else { panic!("{job:?}") };
        let bytes: Vec<&[u8]> = sources.iter().map(|source| source.as_os_str().as_bytes()).collect();
        assert_eq!(bytes, [&b"a"[..], b"b/"]);
        assert_eq!(
            (job.path.as_slice(), &job.options),
            (&b"data/x"[..], &SessionOptions { delete: true, ..SessionOptions::default() })
        );
        let refused = |paths: &[&str]| ends(paths.iter().map(PathBuf::from).collect()).expect_err("no push");
        assert!(refused(&["h:data"]).contains("what is to be sent to h:data is missing"));
        assert!(refused(&["a"]).contains("whereto a is to be sent is missing"));
        assert!(refused(&["a", "b"]).contains("b: there is no host in it"));
        assert!(refused(&["", "h:data"]).contains("an empty SRC"));
        assert!(pushed(&[]).is_err(), "nothing is not enough");
        assert!(pulled(&["a", "b"]).expect_err("not remote").contains("there is no host in it"));
        assert!(pulled(&["h:data", "a", "b"]).is_err(), "a pull has one source");
    }

    #[test]
    fn every_option_is_told_to_the_engine() {
        let args = [
            "--connections",
            "3",
            "-n",
            "--delete",
            "--bwlimit",
            "1.5MB",
            "--checksum",
            "--no-resume",
            "--numeric-ids",
            "--xattrs",
            "--fsync",
            "--quiet",
            "h:data/",
            "dst",
        ];
        let Pull { remote, destination, options } = pulled(&args).expect("valid");
        assert!(options.quiet);
        let job = job(Direction::Pull { destination }, &remote, options, &reached(), DriverKind::Blocking);
        let expected = SessionOptions {
            delete: true,
            checksum: true,
            dry_run: true,
            xattrs: true,
            numeric_ids: true,
            resume: false,
            bwlimit: Some(ByteCount(1_500_000)),
            fsync: true,
            rules: vec![],
            ..SessionOptions::default()
        };
        assert_eq!((job.connections, job.path.as_slice(), job.options), (3, &b"data/"[..], expected));
    }

    #[test]
    fn rules_keep_the_order_in_which_they_were_given() {
        let args =
            ["--exclude=*.o", "a", "--include", "keep.o", "--exclude", "!odd", "--exclude=#x", "h:d", "--include=*"];
        let rules = pushed(&args).expect("valid").options.rules.0;
        let expected: [&[u8]; 5] = [b"*.o", b"!keep.o", b"\\!odd", b"\\#x", b"!*"];
        assert!(rules.iter().map(|rule| &**rule).eq(expected), "{rules:?}");
        assert!(pushed(&["--exclude=", "a", "h:d"]).expect_err("empty").contains("the pattern is empty"));
        assert!(pushed(&["--exclude=a\nb", "a", "h:d"]).expect_err("two lines").contains("one line"));
    }

    #[test]
    fn numbers_have_bounds_and_rates_have_units() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(bytes_per_second(text).ok(), expected.map(ByteCount), "{text}");
        };
        check("1.5MB", Some(1_500_000));
        check("1.5MB/s", Some(1_500_000));
        check("10MiB", Some(10 << 20));
        check("4096", Some(4096));
        for bad in ["", "0", "fast", "-1", "1.5MB/h", "/s"] {
            check(bad, None);
        }
        for bad in ["0", "65", "-1", "x"] {
            assert!(connections(bad).is_err(), "{bad}");
        }
        assert_eq!(connections("64"), Ok(64));
    }

    #[test]
    fn a_far_server_gets_more_connections() {
        let check = |cores, rtt_ms, expected| {
            assert_eq!(default_connections(cores, Duration::from_millis(rtt_ms)), expected);
        };
        check(1, 0, 1);
        check(2, 1, 2);
        check(64, 1, 4);
        check(1, 20, 8);
        check(64, 200, 8);
    }

    /// A transfer that a test feeds, followed by what is shown of it as JSON.
    fn followed(
        interrupted: bool,
        work: impl FnOnce(SessionFeed) + Send + 'static,
    ) -> (Result<u8, CtlError>, Vec<serde_json::Value>) {
        let remote = Remote::parse(OsStr::new("h:data/x")).expect("valid");
        let (handle, feed) = SessionHandle::new();
        let interrupt = Interrupt::default();
        interrupt.asked.store(interrupted, Ordering::Release);
        let mut out = Vec::new();
        let mut show = Show::new(Mode::Json, false, &mut out, io::sink());
        let worker = std::thread::spawn(move || work(feed));
        let ended = follow(&handle, &mut show, &interrupt, Instant::now).expect("a Vec takes all");
        let done = handle.summary();
        let outcome = ended.map_err(|error| session_error(&remote, 7402, true, error));
        let result = conclude(outcome, done, &mut show, &remote);
        worker.join().expect("it ends well");
        let lines = String::from_utf8(out).expect("text");
        (result, lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
    }

    #[test]
    fn what_is_reported_is_shown_until_the_end() {
        let (result, events) = followed(false, |feed| {
            feed.set_progress(SessionProgress { entries_found: 2, ..SessionProgress::default() });
            let path = TreePath::new(b"a").expect("valid");
            assert!(feed.report(Report::Change { path, what: Change::New }));
            let summary = Summary { entries: 2, new: 1, ..Summary::default() };
            assert!(feed.report(Report::Ended(Ok(summary))));
        });
        assert_eq!(result.expect("it went well"), exit::OK);
        let names: Vec<_> = events.iter().map(|event| event["event"].as_str().expect("text")).collect();
        assert_eq!((names.first(), names.last()), (Some(&"change"), Some(&"summary")));
        assert!(events.iter().any(|event| event["event"] == "progress" && event["entries_found"] == 2), "{events:?}");
        let summary = &events[events.len() - 1];
        assert_eq!((&summary["result"], &summary["new"]), (&"ok".into(), &1.into()));
    }

    #[test]
    fn entries_that_failed_make_it_incomplete() {
        let summary = Summary { entries: 5, failed: 2, ..Summary::default() };
        let (result, events) = followed(false, move |feed| {
            assert!(feed.report(Report::Ended(Ok(summary))));
        });
        let error = result.expect_err("not all came");
        assert_eq!(error.exit_status(), exit::INCOMPLETE);
        assert!(error.to_string().starts_with("h:data/x: 2 failed, with 5 entries in all."), "{error}");
        assert_eq!(events[events.len() - 1]["result"], "incomplete");
    }

    #[test]
    fn an_interrupted_transfer_is_told_to_stop_and_says_how_to_go_on() {
        let (result, events) = followed(true, |feed| {
            let (_open, never) = mpsc::channel::<()>();
            feed.set_summary(Summary { entries: 7, new: 3, bytes_data: 5, ..Summary::default() });
            while !feed.is_stopped() {
                let _ = never.recv_timeout(Duration::from_millis(1));
            }
            let _ = feed.report(Report::Ended(Err(SessionError::Interrupted)));
        });
        let error = result.expect_err("it was interrupted");
        assert_eq!(error.exit_status(), exit::INCOMPLETE);
        assert_eq!(error.to_string(), "h:data/x: interrupted. Run the same command again to go on");
        let summary = &events[events.len() - 1];
        assert_eq!(summary["error"], error.to_string());
        let done = (&summary["entries"], &summary["new"], &summary["bytes_data"]);
        assert_eq!(done, (&7.into(), &3.into(), &5.into()), "what was done until then");
    }

    #[test]
    fn a_transfer_that_does_not_stop_is_left_alone_in_the_end() {
        let (handle, _feed) = SessionHandle::new();
        let interrupt = Interrupt { asked: AtomicBool::new(true), ..Interrupt::default() };
        let mut show = Show::new(Mode::Text { quiet: true }, false, io::sink(), io::sink());
        let clock = std::cell::Cell::new(Instant::now());
        let now = || {
            clock.set(clock.get() + limits::SESSION_STOP_WITHIN / 2);
            clock.get()
        };
        let ended = follow(&handle, &mut show, &interrupt, now).expect("nothing is written");
        assert!(matches!(ended, Err(SessionError::Interrupted)));
        assert!(handle.stop_switch().is_stopped());
    }

    /// Runs `work`, which sends signals to this process: they are caught from before it begins.
    fn signalled(work: impl FnOnce(&Interrupt) -> Result<u8, CtlError> + Send + 'static) -> Result<u8, CtlError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(interruptible(work))
    }

    fn interrupt_this_process() {
        nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGINT).expect("it is ours");
    }

    #[test]
    fn the_first_signal_is_told_to_a_transfer_and_without_one_it_is_the_end() {
        let (_open, never) = mpsc::channel::<()>();
        let done = signalled(move |interrupt| {
            interrupt.begin();
            interrupt_this_process();
            while !interrupt.is_asked() {
                let _ = never.recv_timeout(Duration::from_millis(1));
            }
            Ok(exit::INCOMPLETE)
        });
        assert_eq!(done.expect("it ended by itself"), exit::INCOMPLETE);

        let (open, never) = mpsc::channel::<()>();
        let left = signalled(move |_| {
            interrupt_this_process();
            let _ = never.recv();
            Ok(exit::OK)
        });
        assert!(matches!(left, Err(CtlError::Interrupted)), "{left:?}");
        drop(open);
    }

    #[test]
    fn how_it_ended_is_told_by_the_exit_status() {
        let remote = Remote::parse(OsStr::new("h:data/x")).expect("valid");
        let address = reached().address;
        let check = |source: SessionError, expected: u8, says: &str| {
            let error = session_error(&remote, 7402, true, source);
            assert_eq!(error.exit_status(), expected, "{error}");
            let is_local = matches!(&error, CtlError::Session { source: SessionError::Local { .. }, .. });
            assert_eq!(error.to_string().starts_with("h:data/x: "), !is_local, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        };
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        check(SessionError::Unreachable { address, source: refused }, exit::UNREACHABLE, "127.0.0.1:7402");
        let text = "no such module".to_owned();
        check(SessionError::Refused { address, code: 1, text }, exit::FAILED, "127.0.0.1:7402 refuses: no such module");
        for (kind, status) in
            [(io::ErrorKind::PermissionDenied, exit::PERMISSION), (io::ErrorKind::Other, exit::FAILED)]
        {
            check(SessionError::Local { path: "/x".into(), source: kind.into() }, status, "/x: ");
        }
        let reason = "reset".to_owned();
        check(SessionError::Lost { address, reason: reason.clone() }, exit::INCOMPLETE, "Run the same command again");
        check(SessionError::Protocol { address, reason }, exit::FAILED, "--port");
        check(SessionError::Options("too many rules".into()), exit::USAGE, "too many rules");
        check(SessionError::Died, exit::FAILED, "fault of this program");
    }
}
