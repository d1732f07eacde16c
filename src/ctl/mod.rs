//! `supersyncctl`: command line in, text and exit status out.
//!
//! Exit status: 0 ok, 1 failed, 2 usage, 3 incomplete or degraded, 4 daemon or host unreachable, 5 wait timed out,
//! 6 integrity mismatch, 77 permission, 78 config. Answers go to standard output, errors to standard error. Text is
//! coloured on a terminal unless `NO_COLOR` is set.

mod engine;
mod fetch;
mod progress;
mod remote;
mod render;
mod stay;
mod top;
mod transfer;
mod verify;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::config::ConfigError;
use crate::control::{Client, ClientError, ObjectFilter, RUN_DIR, SOCKET_NAME, Status, is_listened_on, schema};
use crate::engine::session::SessionError;
use crate::node::fetch::FetchError;
use crate::store::StoreError;
use crate::uring::RingError;
use crate::{exit, limits};
use clap::{Args, Parser, Subcommand};

pub use render::{Colour, links, objects, pause, reload, status, why_slow};

/// Asks a running supersyncd how it is, tells it what to do, and moves directory trees between hosts.
#[derive(Debug, Parser)]
#[command(name = "supersyncctl", version, arg_required_else_help = true)]
#[command(after_help = "Exit status: 0 ok, 1 failed, 2 usage, 3 incomplete or degraded, 4 daemon or host \
                        unreachable, 5 wait timed out, 6 damaged objects (verify), 77 permission, 78 config.")]
pub struct Cli {
    #[command(flatten)]
    target: Target,
    /// Print JSON, one object a line, instead of text for people
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Target {
    /// The daemon of this name: its socket is /run/supersync/NAME/control.sock
    #[arg(short, long, value_name = "NAME", global = true, conflicts_with = "socket", value_parser = instance_name)]
    instance: Option<String>,
    /// The daemon with this control socket. With neither: the only one under /run/supersync
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show how far the node is; exits with 3 unless it is SYNCED, every link is up but for those of paused peers, and
    /// nothing is to be looked at
    ///
    /// A trader is dialed: it misses peers and links that it has had since its own start, and knows of no others.
    Status(Watch),
    /// Show each link: rates, its share of what comes in, and what it stole, brought twice and damaged since the start
    Links(Watch),
    /// Show what holds each link back: the network, the peer, the disk, the relay, its own damage, or nothing at all
    WhySlow(Watch),
    /// Show the objects that a trader wants, or that an exchange passes on, each way by itself
    Objects {
        /// Only those that are not whole and marked
        #[arg(long, conflicts_with = "failed")]
        missing: bool,
        /// Only those given up
        #[arg(long)]
        failed: bool,
        /// Show at most this many
        #[arg(long, value_name = "COUNT", default_value_t = limits::CONTROL_OBJECTS_DEFAULT, value_parser = object_limit)]
        limit: usize,
    },
    /// Wait until the node is SYNCED; exits with 5 if that takes longer than the timeout
    Wait {
        /// Until it has all that it wants
        #[arg(long, required = true)]
        synced: bool,
        /// Give up after this time: seconds, or 90s, 10m, 2h. Without it: wait for ever
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        timeout: Option<Duration>,
    },
    /// Send files and directories of this host to a module of another; exits with 3 if it is to be run again
    Push(transfer::Push),
    /// Fetch a file or directory from a module of another host; exits with 3 if it is to be run again
    Pull(transfer::Pull),
    /// Fetch whole files, by name or all of them, from a trader that listens for the named protocol
    Fetch(fetch::Fetch),
    /// Read all that was fetched again and hold it against its markers; exits with 6 where something is damaged, with 3
    /// where something has no marker, or one without BLAKE3 as all that `fetch` writes, or is not as at the far trader
    Verify(verify::Options),
    /// Have the daemon read its config file again, and show what that changed; exits with 78 if the file is wrong, and
    /// nothing was changed
    Reload,
    /// Close the links to a peer and make none, until it is resumed or the daemon starts again; others take over its
    /// work
    Pause {
        /// As status names it
        peer: String,
    },
    /// Go on with a peer that is paused
    Resume {
        /// As status names it
        peer: String,
    },
    /// Have the daemon finish what is in flight and end, as systemctl stop does; returns once it is gone, with 5 if
    /// that takes longer than the timeout
    Drain {
        /// Wait for so long: seconds, or 90s, 10m, 2h
        #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "90s")]
        timeout: Duration,
    },
    /// Follow the node on a full screen: progress, links with their last minute, problems; ? shows the keys
    Top,
    /// Print the JSON schema of an output, or the names of all there are
    Schema {
        /// As in the output's `schema`, or short: status
        name: Option<String>,
    },
}

/// Whether a picture is followed by others.
#[derive(Debug, Args)]
struct Watch {
    /// Show it again every second, until interrupted
    #[arg(long)]
    watch: bool,
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    #[error("no daemon has a control socket under {}. Name it with --socket PATH, or start one: systemctl start supersyncd@NAME", .0.display())]
    NoDaemon(PathBuf),
    #[error("several daemons run here: {}. Choose one with -i NAME", .0.join(", "))]
    SeveralDaemons(Vec<String>),
    #[error("cannot look for daemons in {}: {source}. Name one with -i NAME or --socket PATH", dir.display())]
    Search { dir: PathBuf, source: io::Error },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{node} is not synced after {patience}: {progress}. See what holds it up: supersyncctl why-slow")]
    TimedOut { node: String, patience: String, progress: String },
    #[error("{node} is still ending after {patience}. See what it does: supersyncctl status, and its log")]
    StillDraining { node: String, patience: String },
    // What is wrong with the file, and that nothing was changed.
    #[error(transparent)]
    Reload(ClientError),
    #[error("the config has no [store]: there is nothing to verify")]
    NoStore,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Usage(String),
    #[error("cannot find {host}: {source}. Is its name spelled right?")]
    Resolve { host: String, source: io::Error },
    #[error(
        "{host} does not answer at port {port}: {source}. Its config needs a [[listen]] with protocol = \"{protocol}\"; \
         another port goes with --port"
    )]
    NoAnswer { host: String, port: u16, protocol: &'static str, source: io::Error },
    // It is as long as all others together.
    #[error(transparent)]
    Fetch(Box<FetchError>),
    #[error("--engine uring: {0}")]
    Engine(#[from] RingError),
    #[error("{lead}{source}{hint}")]
    Session { lead: String, source: SessionError, hint: String },
    // More may fail than there are entries: what is deleted, and what is done at the end.
    #[error("{remote}: {failed} failed, with {entries} entries in all. Run the same command again to try again")]
    Incomplete { remote: String, failed: u64, entries: u64 },
    #[error("{remote} does not have {failed} of {entries} objects")]
    NotThere { remote: String, failed: u64, entries: u64 },
    #[error("interrupted. Run the same command again to go on")]
    Interrupted,
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl CtlError {
    fn exit_status(&self) -> u8 {
        match self {
            Self::NoDaemon(_) | Self::Client(ClientError::Unreachable { .. }) => exit::UNREACHABLE,
            Self::SeveralDaemons(_) | Self::NoStore | Self::Usage(_) => exit::USAGE,
            Self::Resolve { .. } | Self::NoAnswer { .. } => exit::UNREACHABLE,
            Self::Session { source, .. } => session_status(source),
            Self::Fetch(error) => error.exit_status(),
            Self::Incomplete { .. } | Self::Interrupted => exit::INCOMPLETE,
            Self::Config(error) => error.exit_status(),
            Self::Reload(_) => exit::CONFIG,
            Self::Search { .. } | Self::Store(_) if exit::is_permission(self) => exit::PERMISSION,
            Self::Client(ClientError::Permission { .. }) => exit::PERMISSION,
            Self::TimedOut { .. } | Self::StillDraining { .. } => exit::TIMED_OUT,
            // The reader has seen enough and left, as `head` does; that is no failure of ours.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::OK,
            Self::Search { .. } | Self::Client(_) | Self::Store(_) | Self::Engine(_) | Self::Output(_) => exit::FAILED,
            Self::NotThere { .. } => exit::FAILED,
        }
    }
}

fn session_status(error: &SessionError) -> u8 {
    match error {
        SessionError::Unreachable { .. } | SessionError::NoSession { .. } => exit::UNREACHABLE,
        // Others have what it gives, and will have had it.
        SessionError::Refused { .. } if error.is_busy() => exit::INCOMPLETE,
        SessionError::Lost { .. } | SessionError::Interrupted => exit::INCOMPLETE,
        SessionError::Options(_) => exit::USAGE,
        SessionError::Local { .. } if exit::is_permission(error) => exit::PERMISSION,
        SessionError::Local { .. }
        | SessionError::Refused { .. }
        | SessionError::Protocol { .. }
        | SessionError::Engine(_)
        | SessionError::Died => exit::FAILED,
    }
}

/// Runs one command line, program name first, to its exit status.
pub fn main<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; nothing can be done about a closed terminal.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { exit::OK.into() };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return exit::FAILED.into();
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(status) => status.into(),
        Err(error) => {
            let status = error.exit_status();
            if status != exit::OK {
                complain(&error.to_string());
            }
            status.into()
        }
    }
}

/// Says what is wrong. Where that cannot be written, on a full disk perhaps, the exit status has to say it.
fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "supersyncctl: {}", printable(what));
}

async fn run(cli: Cli) -> Result<u8, CtlError> {
    let client = || cli.target.socket(Path::new(RUN_DIR)).map(Client::new);
    let screen = Screen::of_stdout(cli.json);
    match cli.command {
        Command::Push(options) => transfer::push(options, screen).await,
        Command::Pull(options) => transfer::pull(options, screen).await,
        Command::Fetch(options) => fetch::fetch(options, screen).await,
        Command::Verify(options) => verify::run(options, client, &screen).await,
        Command::Status(Watch { watch: true }) => {
            stay::watch(&client()?, &screen, Client::status, |status| render::status(status, screen.colour)).await
        }
        Command::Status(_) => {
            let answer = client()?.status().await?;
            let text = || render::status(&answer.body, screen.colour);
            screen.conclude(&answer.json, text, verdict(&answer.body))
        }
        Command::Links(Watch { watch: true }) => {
            stay::watch(&client()?, &screen, Client::links, |answer| render::links(&answer.body)).await
        }
        Command::Links(_) => {
            let answer = client()?.links().await?;
            screen.show(&answer.json, || render::links(&answer.body.body))?;
            Ok(exit::OK)
        }
        Command::WhySlow(Watch { watch: true }) => {
            stay::watch(&client()?, &screen, Client::why_slow, |answer| render::why_slow(&answer.body)).await
        }
        Command::WhySlow(_) => {
            let answer = client()?.why_slow().await?;
            screen.show(&answer.json, || render::why_slow(&answer.body.body))?;
            Ok(exit::OK)
        }
        Command::Objects { missing, failed, limit } => {
            let filter = match (missing, failed) {
                (true, _) => ObjectFilter::Missing,
                (_, true) => ObjectFilter::Failed,
                _ => ObjectFilter::All,
            };
            let answer = client()?.objects(filter, limit).await?;
            screen.show(&answer.json, || render::objects(&answer.body.body))?;
            Ok(exit::OK)
        }
        Command::Wait { synced: _, timeout } => stay::wait(&client()?, &screen, timeout).await,
        Command::Reload => {
            let answer = client()?.reload().await.map_err(of_reload)?;
            screen.show(&answer.json, || render::reload(&answer.body.body))?;
            Ok(exit::OK)
        }
        Command::Pause { peer } => set_paused(&client()?, &screen, &peer, true).await,
        Command::Resume { peer } => set_paused(&client()?, &screen, &peer, false).await,
        Command::Drain { timeout } => stay::drain(&client()?, &screen, timeout).await,
        Command::Top => top::run(client()?, &screen).await,
        Command::Schema { name } => show_schema(name.as_deref()),
    }
}

/// A refusal means that the file is wrong.
fn of_reload(error: ClientError) -> CtlError {
    match error {
        ClientError::Refused { code: 422, .. } => CtlError::Reload(error),
        other => other.into(),
    }
}

async fn set_paused(client: &Client, screen: &Screen, peer: &str, paused: bool) -> Result<u8, CtlError> {
    let answer = client.set_paused(peer, paused).await?;
    screen.show(&answer.json, || render::pause(&answer.body.body))?;
    Ok(exit::OK)
}

fn show_schema(name: Option<&str>) -> Result<u8, CtlError> {
    let mut text = String::new();
    match name {
        None => schema::names().for_each(|name| text += &format!("{name}\n")),
        Some(name) => {
            let found = schema::find(name).ok_or_else(|| {
                let names: Vec<&str> = schema::names().collect();
                CtlError::Usage(format!("there is no schema {name:?}, but these: {}", names.join(", ")))
            })?;
            text = serde_json::to_string_pretty(&found).map_err(io::Error::from)? + "\n";
        }
    }
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(exit::OK)
}

fn verdict(status: &Status) -> u8 {
    if status.is_complete() { exit::OK } else { exit::INCOMPLETE }
}

impl Target {
    /// The socket that was named, or the only one there is.
    fn socket(&self, run_dir: &Path) -> Result<PathBuf, CtlError> {
        match (&self.socket, &self.instance) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, Some(name)) => Ok(run_dir.join(name).join(SOCKET_NAME)),
            (None, None) => only_socket(run_dir),
        }
    }
}

/// The socket of the only daemon that has a directory with one under `run_dir`.
fn only_socket(run_dir: &Path) -> Result<PathBuf, CtlError> {
    let failed = |source| CtlError::Search { dir: run_dir.to_owned(), source };
    let entries = match run_dir.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CtlError::NoDaemon(run_dir.to_owned())),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        // What may not be looked at counts too: connecting then says what is not allowed.
        match run_dir.join(&name).join(SOCKET_NAME).symlink_metadata() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            _ => names.push(name),
        }
    }
    if names.len() > 1 {
        // One that was killed has left its socket.
        names.retain(|name| is_listened_on(&run_dir.join(name).join(SOCKET_NAME)).unwrap_or(true));
    }
    names.sort();
    match names.as_slice() {
        [] => Err(CtlError::NoDaemon(run_dir.to_owned())),
        [name] => Ok(run_dir.join(name).join(SOCKET_NAME)),
        several => {
            Err(CtlError::SeveralDaemons(several.iter().map(|name| name.to_string_lossy().into_owned()).collect()))
        }
    }
}

/// Where answers go.
#[derive(Debug, Clone, Copy)]
struct Screen {
    json: bool,
    /// One that understands more than text.
    is_terminal: bool,
    colour: Colour,
}

impl Screen {
    fn of_stdout(json: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let is_terminal = io::stdout().is_terminal() && !is_dumb;
        // https://no-color.org: any value but the empty one.
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = if is_terminal && !no_color { Colour::Ansi } else { Colour::Plain };
        Self { json, is_terminal, colour }
    }

    /// Whether one picture is drawn over the one before.
    fn redraws(&self) -> bool {
        self.is_terminal && !self.json
    }

    fn show(&self, json: &str, text: impl FnOnce() -> String) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            writeln!(stdout, "{json}")?
        } else {
            stdout.write_all(text().as_bytes())?
        }
        stdout.flush()
    }

    /// The last thing to show, and the status to exit with, which is the same where its reader has left.
    fn conclude(&self, json: &str, text: impl FnOnce() -> String, status: u8) -> Result<u8, CtlError> {
        match self.show(json, text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(status),
        }
    }

    /// One of a series: over the one before on a terminal, after a blank line elsewhere.
    fn redraw(&self, is_first: bool, json: &str, text: impl FnOnce() -> String) -> io::Result<()> {
        if self.redraws() {
            // Home, then each line over the old one, then clear what is left: no flicker as clearing first has.
            let clear = if is_first { "\x1b[2J" } else { "" };
            let (columns, rows) = crossterm::terminal::size().unwrap_or((u16::MAX, u16::MAX));
            let lines = fitted(&text(), columns.into(), rows.into()).replace('\n', "\x1b[K\n");
            return self.show(json, || format!("{clear}\x1b[H{lines}\x1b[J"));
        }
        let gap = if is_first { "" } else { "\n" };
        self.show(json, || format!("{gap}{}", text()))
    }
}

/// What of `text` has room on a screen, from its top: a picture that is longer would push its own beginning away.
fn fitted(text: &str, columns: usize, rows: usize) -> String {
    let height = |line: &str| line.chars().count().div_ceil(columns.max(1)).max(1);
    // The cursor stands below the last line. A screen that does not say how large it is has room for everything.
    if columns == 0 || rows == 0 || text.lines().map(height).sum::<usize>() < rows {
        return text.to_owned();
    }
    let (mut shown, mut used) = (String::new(), 2);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next_if(|line| used + height(line) <= rows) {
        used += height(line);
        shown.push_str(line);
        shown.push('\n');
    }
    shown + &format!("... {} lines more: make the window larger\n", lines.count())
}

/// An error's text with its lines, and without anything else that steers a terminal.
fn printable(text: &str) -> String {
    text.split('\n').map(render::clean).collect::<Vec<_>>().join("\n")
}

fn instance_name(text: &str) -> Result<String, String> {
    match text {
        "" | "." | ".." => Err("not a name".to_owned()),
        _ if text.contains('/') => Err("a name has no '/'; a path goes with --socket".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn object_limit(text: &str) -> Result<usize, String> {
    let max = limits::CONTROL_OBJECTS_MAX;
    text.parse()
        .ok()
        .filter(|limit| (1..=max).contains(limit))
        .ok_or_else(|| format!("a number from 1 to {max} is needed"))
}

/// `90`, `90s`, `10m`, `2h`, `1d`; fractions too.
fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1.0),
        Some((at, 'm')) => (&text[..at], 60.0),
        Some((at, 'h')) => (&text[..at], 3600.0),
        Some((at, 'd')) => (&text[..at], 86_400.0),
        _ => (text, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| "a time is seconds, or 90s, 10m, 2h, 1d".to_owned())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| format!("{text} is no time that can be waited for"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(seconds(text).ok(), expected.map(Duration::from_millis), "{text}");
        };
        check("90", Some(90_000));
        check("0", Some(0));
        check("0.5s", Some(500));
        check("10m", Some(600_000));
        check("2h", Some(7_200_000));
        check("1d", Some(86_400_000));
        for bad in ["", "s", "-1", "ten", "1w", "nan", "inf", "1e300", "5é"] {
            check(bad, None);
        }
    }

    /// Thirty links on a screen of 24 lines: what was seen of each picture was its end.
    #[test]
    fn a_picture_that_is_longer_than_the_screen_is_cut_at_its_end() {
        let check = |text: &str, columns, rows, expected: &str| assert_eq!(fitted(text, columns, rows), expected);
        check("one\ntwo\nthree\n", 80, 4, "one\ntwo\nthree\n");
        check("one\ntwo\nthree\n", 80, 3, "one\n... 2 lines more: make the window larger\n");
        check("one\nlonger than that\n", 7, 4, "one\n... 1 lines more: make the window larger\n");
        check("one\ntwo\n", 80, 1, "... 2 lines more: make the window larger\n");
        check("one\ntwo\n", 0, 0, "one\ntwo\n");
    }

    #[test]
    fn the_only_socket_is_found_and_two_are_not_guessed_between() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run_dir = dir.path().join("supersync");
        assert!(matches!(only_socket(&run_dir), Err(CtlError::NoDaemon(_))));
        fs::create_dir_all(run_dir.join("stopped")).expect("a directory");
        fs::write(run_dir.join("stray"), "").expect("a file");
        assert!(matches!(only_socket(&run_dir), Err(CtlError::NoDaemon(_))));
        for name in ["trader1", "exchange1"] {
            fs::create_dir(run_dir.join(name)).expect("a directory");
        }
        let socket = run_dir.join("trader1").join(SOCKET_NAME);
        let _living = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        assert_eq!(only_socket(&run_dir).expect("one"), socket);
        let second =
            std::os::unix::net::UnixListener::bind(run_dir.join("exchange1").join(SOCKET_NAME)).expect("a socket");
        let error = only_socket(&run_dir).expect_err("two");
        assert_eq!(error.to_string(), "several daemons run here: exchange1, trader1. Choose one with -i NAME");
        drop(second);
        assert_eq!(only_socket(&run_dir).expect("the other one is dead"), socket);
        assert_eq!(error.exit_status(), exit::USAGE);
    }

    #[test]
    fn errors_have_the_documented_exit_status() {
        let check = |error: CtlError, expected| assert_eq!(error.exit_status(), expected, "{error}");
        let socket = PathBuf::from("/run/supersync/trader1/control.sock");
        let cause = crate::control::Cause::NoFile;
        check(ClientError::Permission { socket: socket.clone() }.into(), exit::PERMISSION);
        check(ClientError::Unreachable { socket: socket.clone(), cause }.into(), exit::UNREACHABLE);
        check(ClientError::Refused { code: 422, error: String::new(), hint: None }.into(), exit::FAILED);
        check(ClientError::Strange { socket, why: String::new() }.into(), exit::FAILED);
        let refused = |code| ClientError::Refused { code, error: String::new(), hint: None };
        check(of_reload(refused(422)), exit::CONFIG);
        check(of_reload(refused(404)), exit::FAILED);
        check(CtlError::NoDaemon(PathBuf::from(RUN_DIR)), exit::UNREACHABLE);
        check(io::Error::from(io::ErrorKind::BrokenPipe).into(), exit::OK);
        check(io::Error::from(io::ErrorKind::StorageFull).into(), exit::FAILED);
        for (kind, expected) in
            [(io::ErrorKind::PermissionDenied, exit::PERMISSION), (io::ErrorKind::Other, exit::FAILED)]
        {
            check(CtlError::Search { dir: PathBuf::from(RUN_DIR), source: kind.into() }, expected);
        }
    }
}
