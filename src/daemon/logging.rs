//! The log: where it goes, what it looks like there, and how much of it.
//!
//! On standard error, as text for people or as JSON. Where standard error is connected to the journal, what would be
//! text goes there as entries with fields.

use std::io::{self, IsTerminal};

use nix::sys::stat::fstat;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::journal::Journal;

/// Says how much is logged where the command line does not.
const LEVEL_VARIABLE: &str = "SUPERSYNC_LOG";

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Lines for people, or for the journal
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Reads `info`, or `warn,supersync::proto=trace`.
pub(super) fn levels(text: &str) -> Result<Targets, String> {
    const FORM: &str = "write off, error, warn, info, debug or trace, or by module as info,supersync::proto=trace";
    // A word that is no level would be taken for a module's name, and everything of that module be logged.
    for directive in text.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        // An empty one is a level to the parser, and nothing that anyone means.
        let level = if level.trim().is_empty() { "none" } else { level.trim() };
        level.parse::<LevelFilter>().map_err(|_| format!("\"{}\" is no level; {FORM}", level.escape_debug()))?;
    }
    text.parse().map_err(|_| FORM.to_owned())
}

/// Starts the log of this process: as `asked`, or else as the environment says, or else from `default` on.
/// Where one was started before, that one stays. Whether it is text for people on standard error.
pub(super) fn start(format: Format, asked: Option<Targets>, default: LevelFilter) -> bool {
    let default = Targets::new().with_default(default);
    let (filter, refused) = match (asked, std::env::var(LEVEL_VARIABLE)) {
        (Some(asked), _) => (asked, None),
        (None, Ok(text)) if !text.is_empty() => match levels(&text) {
            Ok(levels) => (levels, None),
            Err(why) => (default, Some(why)),
        },
        (None, _) => (default, None),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let journal = if format == Format::Text && is_journal() { Journal::connect().ok() } else { None };
    let is_for_people = format == Format::Text && journal.is_none();
    let layer = match (format, journal) {
        (Format::Json, _) => lines.json().flatten_event(true).boxed(),
        (Format::Text, Some(journal)) => journal.boxed(),
        (Format::Text, None) => lines.with_ansi(has_colour()).with_target(false).with_timer(SystemTime).boxed(),
    };
    if tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_err() {
        tracing::debug!("a log was started before; it stays as it is");
    }
    if let Some(why) = refused {
        tracing::warn!("{LEVEL_VARIABLE} is ignored: {why}");
    }
    is_for_people
}

fn has_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether standard error is the journal's: JOURNAL_STREAM names it by device and inode (systemd.exec(5)). A child
/// that was given another one inherits the variable all the same.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words_or_words_by_module() {
        for good in ["info", "OFF", "warn,supersync::proto=trace", "supersync=debug"] {
            assert!(levels(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "info,", "supersync=loud", "info,supersync"] {
            assert!(levels(bad).is_err(), "{bad}");
        }
    }
}
