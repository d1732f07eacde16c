//! `supersyncd`: command line in, a running node or an answer and an exit status out.
//!
//! Owns what a person or a service manager meets before there is a node: arguments, the log, the checks of a config
//! and of the host. What a node does is not known here; [`crate::node`] and [`crate::demo`] are called.
//!
//! Exit status: 0 ok, 1 failed, 2 usage, 6 the sides of a demo differ, 77 permission, 78 config. Answers go to standard
//! output, errors and the log to standard error. A reader that has seen enough and left, as `head` does, is no failure.

mod check;
mod doctor;
mod dropin;
mod generate;
mod init;
mod journal;
mod logging;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::config::{self, ConfigError};
use crate::demo::{self, DemoError};
use crate::node::{self, NodeError};
use crate::{exit, store};

/// Replicates segment stores between hosts over many slow links and relays at once, both ways.
#[derive(Debug, Parser)]
#[command(name = "supersyncd", version, arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "First time here? `supersyncd demo` shows a whole site at work, without any set-up.\n\
                        Exit status: 0 ok, 1 failed, 2 usage, 6 the sides differ (demo), 77 permission, 78 config.")]
pub struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct LogArgs {
    /// How the log is written, on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: logging::Format,
    /// What is logged: error, warn, info, debug, trace or off, or by module as `info,supersync::proto=trace`.
    /// Without it: what SUPERSYNC_LOG says, or else info (`demo`: error)
    #[arg(long, global = true, value_name = "LEVEL", value_parser = logging::levels)]
    log_level: Option<Targets>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node that FILE describes, until SIGTERM or SIGINT; SIGHUP reads FILE again
    Run {
        /// The config
        file: PathBuf,
    },
    /// Check a config: syntax, then meaning, then what this host has to say to it
    Check {
        /// The config
        file: PathBuf,
        /// Look at the file only: it is for another host
        #[arg(long)]
        no_environment: bool,
    },
    /// Show a whole site at work: two traders, relays between them, one of them killed on the way
    Demo(demo::Options),
    /// Try what the engine needs of this host, and say what to change
    Doctor {
        /// Print one JSON object instead of text for people
        #[arg(long)]
        json: bool,
    },
    /// Write a commented config to start from
    Init {
        /// What the node is to be
        role: init::Template,
        /// Write it to this file, which must not be there yet, instead of to standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Look at a config
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    /// Write what packages bring along beside the programs
    #[command(subcommand, hide = true, arg_required_else_help = true)]
    Gen(generate::Generated),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print a config
    Show {
        /// With every default spelled out
        #[arg(long, required = true)]
        effective: bool,
        /// The config
        file: PathBuf,
    },
    /// Print the systemd drop-in that grants supersyncd@NAME the directories of its config, NAME.toml
    Dropin {
        /// The config
        file: PathBuf,
    },
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    /// Prints as it is: it names the file itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{}: store.segments.pattern: {source}", file.display())]
    Segments { file: PathBuf, source: store::PatternError },
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error("{} is there already, and is left as it is; write to another file with -o", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {source}", file.display())]
    Write { file: PathBuf, source: io::Error },
    #[error("{0:?} cannot be written into a unit: it has a control character or is not text")]
    NotForUnits(PathBuf),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl DaemonError {
    fn exit_status(&self) -> u8 {
        match self {
            Self::Config(error) | Self::Node(NodeError::Config(error)) => error.exit_status(),
            Self::Segments { .. } | Self::NotForUnits(_) | Self::Node(NodeError::Segments(_)) => exit::CONFIG,
            // The reader has seen enough and left.
            Self::Output(error) if error.kind() == ErrorKind::BrokenPipe => exit::OK,
            Self::Node(_) | Self::Demo(_) | Self::Write { .. } if exit::is_permission(self) => exit::PERMISSION,
            Self::Demo(error) => error.exit_status(),
            Self::Node(_) | Self::Exists(_) | Self::Write { .. } | Self::Output(_) => exit::FAILED,
        }
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
    match run(cli) {
        Ok(status) => status.into(),
        Err(error) => {
            let status = error.exit_status();
            if status != exit::OK {
                complain(&error);
            }
            status.into()
        }
    }
}

/// A config's error says itself where it is, as a compiler does; all others are said by this program.
fn complain(error: &DaemonError) {
    let said = match error {
        DaemonError::Config(_) | DaemonError::Segments { .. } | DaemonError::Node(NodeError::Config(_)) => {
            format!("{error}\n")
        }
        _ => format!("supersyncd: {error}\n"),
    };
    // There is nowhere left to say that this failed.
    let _ = io::stderr().write_all(said.as_bytes());
}

fn run(cli: Cli) -> Result<u8, DaemonError> {
    let log = |default| logging::start(cli.log.log_format, cli.log.log_level.clone(), default);
    match cli.command {
        Command::Run { file } => {
            let is_for_people = log(LevelFilter::INFO);
            match run_node(file) {
                // As all other lines.
                Err(error) if !is_for_people && tracing::enabled!(Level::ERROR) => {
                    tracing::error!("{error}");
                    Ok(error.exit_status())
                }
                ended => ended.map(|()| exit::OK),
            }
        }
        Command::Check { file, no_environment } => check::run(&file, !no_environment),
        Command::Demo(options) => {
            log(LevelFilter::ERROR);
            demo::run(&options)?;
            Ok(exit::OK)
        }
        Command::Doctor { json } => doctor::run(json),
        Command::Init { role, output } => init::run(role, output.as_deref()),
        Command::Config(ConfigCommand::Show { effective: _, file }) => show(&file),
        Command::Config(ConfigCommand::Dropin { file }) => dropin::run(&file),
        Command::Gen(what) => generate::run(&what),
    }
}

fn run_node(file: PathBuf) -> Result<(), DaemonError> {
    Ok(node::run(config::load(&file)?, file)?)
}

fn show(file: &Path) -> Result<u8, DaemonError> {
    let config = config::load(file)?;
    answer(&config.to_toml())?;
    Ok(exit::OK)
}

/// Writes to standard output; a lost reader is an error here, not a panic.
fn answer(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::control::ControlError;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Who might not have a port was asked whether another process had it.
    #[test]
    fn what_cannot_be_listened_on_says_what_to_do_about_that() {
        let address = "127.0.0.1:80".parse().expect("an address");
        for (kind, hint) in [
            (ErrorKind::AddrInUse, "ss -ltnp"),
            (ErrorKind::AddrNotAvailable, "ip address"),
            (ErrorKind::PermissionDenied, "from 1024 on"),
        ] {
            let listen = NodeError::Listen { address, source: kind.into() }.to_string();
            let http = ControlError::Listen { address, source: kind.into() }.to_string();
            for error in [listen, http] {
                assert!(error.contains("127.0.0.1:80") && error.contains(hint), "{error}");
            }
        }
    }

    #[test]
    fn what_an_error_means_to_a_service_manager() {
        let check = |error: DaemonError, expected| assert_eq!(error.exit_status(), expected, "{error}");
        let refused = || io::Error::from(ErrorKind::PermissionDenied);
        let address = "127.0.0.1:80".parse().expect("an address");
        check(NodeError::Listen { address, source: refused() }.into(), exit::PERMISSION);
        check(NodeError::Listen { address, source: ErrorKind::AddrInUse.into() }.into(), exit::FAILED);
        check(DaemonError::Write { file: "f".into(), source: refused() }, exit::PERMISSION);
        check(DaemonError::Write { file: "f".into(), source: ErrorKind::ReadOnlyFilesystem.into() }, exit::PERMISSION);
        check(DaemonError::Exists("f".into()), exit::FAILED);
        check(DaemonError::Output(ErrorKind::BrokenPipe.into()), exit::OK);
        check(DaemonError::Output(ErrorKind::StorageFull.into()), exit::FAILED);
        check(NodeError::Segments(store::PatternError::Empty).into(), exit::CONFIG);
        check(ConfigError::Read { path: "f".into(), source: refused() }.into(), exit::PERMISSION);
        check(ConfigError::Read { path: "f".into(), source: ErrorKind::NotFound.into() }.into(), exit::CONFIG);
    }
}
