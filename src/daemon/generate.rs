//! `supersyncd gen`: manual pages and completions of both programs, for packages.
//!
//! Made from the definitions that parse the command lines, so that they say what `--help` says. The page of the
//! config's format is written by hand; `config` holds it against the keys that there are.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{Cli, DaemonError, answer};
use crate::{ctl, exit};

/// The page of the config's format.
const CONFIG_PAGE: &str = include_str!("../../deploy/man/supersync.toml.5");
/// What only the page of the service tells.
const SERVICE_PAGE_END: &str = include_str!("../../deploy/man/supersyncd.8.end");
/// What only the page of its operator's hand tells.
const CTL_PAGE_END: &str = include_str!("../../deploy/man/supersyncctl.1.end");
/// With this word the help of a program begins to tell its exit statuses.
const EXIT_STATUS: &str = "Exit status: ";

/// What is to be written.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Generated {
    /// Manual pages: supersyncd(8), supersyncctl(1), supersync.toml(5)
    Man {
        /// Write them into this directory; made where it is not there
        dir: std::path::PathBuf,
    },
    /// Completions of both programs for bash, zsh and fish
    Completions {
        /// Write them into this directory; made where it is not there
        dir: std::path::PathBuf,
    },
}

pub(super) fn run(what: &Generated) -> Result<u8, DaemonError> {
    let (Generated::Man { dir } | Generated::Completions { dir }) = what;
    let failed = |source| DaemonError::Write { file: dir.clone(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    match what {
        Generated::Man { dir } => pages(dir).map_err(failed)?,
        Generated::Completions { dir } => completions(dir).map_err(failed)?,
    }
    answer(&format!("{}: written\n", dir.display()))?;
    Ok(exit::OK)
}

fn completions(dir: &Path) -> io::Result<()> {
    for mut program in [Cli::command(), ctl::Cli::command()] {
        let name = program.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut program, &name, dir)?;
        }
    }
    Ok(())
}

fn pages(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("supersyncd.8"), page(Cli::command(), "8", SERVICE_PAGE_END)?)?;
    fs::write(dir.join("supersyncctl.1"), page(ctl::Cli::command(), "1", CTL_PAGE_END)?)?;
    fs::write(dir.join("supersync.toml.5"), CONFIG_PAGE)
}

/// One page for a program with all of its commands, as systemctl(1) is; `end` are its last sections.
fn page(program: Command, section: &str, end: &str) -> io::Result<String> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let man = Man::new(program.clone()).section(section).manual("SuperSync");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    let mut out = String::from_utf8(out).map_err(io::Error::other)?;
    out += ".SH NAME\n";
    out += &format!("{} \\- {}\n", program.get_name(), text(&about(&program)));
    out += ".SH SYNOPSIS\n";
    out += &body(|out| man.render_synopsis_section(out))?;
    out += ".SH DESCRIPTION\n";
    out += &body(|out| man.render_description_section(out))?;
    let after = program.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (notes, statuses) = after.split_once(EXIT_STATUS).unwrap_or((&after, ""));
    out += &format!(".PP\n{}", text(notes.trim()));
    out += ".SH OPTIONS\n";
    out += &body(|out| man.render_options_section(out))?;
    out += ".SH COMMANDS\n";
    commands(&program, &mut out)?;
    out += &format!(".SH \"EXIT STATUS\"\n{}", text(statuses));
    out += end;
    Ok(out)
}

/// The commands of `program`, and theirs, each with what only it has.
fn commands(program: &Command, out: &mut String) -> io::Result<()> {
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        if command.has_subcommands() {
            commands(command, out)?;
            continue;
        }
        // What every command has stands in OPTIONS.
        let everywhere = |arg: &clap::Arg| arg.is_global_set() || arg.get_id() == "help" || arg.get_id() == "version";
        let own = command.clone().mut_args(|arg| if everywhere(&arg) { arg.hide(true) } else { arg });
        let has_own = own.get_arguments().any(|arg| !arg.is_hide_set());
        let name = own.get_bin_name().unwrap_or_else(|| own.get_name()).to_owned();
        let after = own.get_after_long_help().or_else(|| own.get_after_help()).map(ToString::to_string);
        let man = Man::new(own);
        *out += &format!(".SS \"{}\"\n", name.split_once(' ').map_or(&*name, |(_, command)| command));
        *out += &body(|out| man.render_synopsis_section(out))?;
        *out += ".PP\n";
        *out += &body(|out| man.render_description_section(out))?;
        if has_own {
            *out += &body(|out| man.render_options_section(out))?;
        }
        if let Some(after) = after {
            *out += &format!(".PP\n{}", text(&after));
        }
    }
    Ok(())
}

fn about(program: &Command) -> String {
    program.get_about().map(ToString::to_string).unwrap_or_default()
}

/// What `render` writes, without its heading and all that stands before that.
fn body(render: impl Fn(&mut dyn Write) -> io::Result<()>) -> io::Result<String> {
    let mut out = Vec::new();
    render(&mut out)?;
    let page = String::from_utf8(out).map_err(io::Error::other)?;
    let heading = page.find(".SH ").map_or("", |at| &page[at..]);
    Ok(heading.split_once('\n').map_or("", |(_, body)| body).to_owned())
}

/// Plain text as roff: its lines stay lines.
fn text(plain: &str) -> String {
    let mut roff = Roff::new();
    for (index, line) in plain.lines().enumerate() {
        match line.trim() {
            "" => {
                roff.control("PP", []);
            }
            line => {
                if index > 0 {
                    roff.control("br", []);
                }
                roff.text([roman(line)]);
            }
        }
    }
    roff.to_roff()
}
