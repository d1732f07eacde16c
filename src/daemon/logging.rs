//! The log: where it goes, what it looks like there, and how much of it.
//!
//! On standard error, as text for people or as JSON. Where standard error is connected to the journal, text has no
//! time (the journal has its own) and each line begins with its priority, `<3>` to `<7>` (sd-daemon(3)).

use std::fmt;
use std::io::{self, IsTerminal};

use nix::sys::stat::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

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
/// Where one was started before, that one stays.
pub(super) fn start(format: Format, asked: Option<Targets>, default: LevelFilter) {
    let default = Targets::new().with_default(default);
    let (filter, refused) = match (asked, std::env::var(LEVEL_VARIABLE)) {
        (Some(asked), _) => (asked, None),
        (None, Ok(text)) if !text.is_empty() => match levels(&text) {
            Ok(levels) => (levels, None),
            Err(why) => (default, Some(why)),
        },
        (None, _) => (default, None),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match format {
        Format::Json => layer.json().flatten_event(true).boxed(),
        Format::Text if is_journal() => layer.with_ansi(false).event_format(Journal).boxed(),
        Format::Text => layer.with_ansi(has_colour()).with_target(false).with_timer(SystemTime).boxed(),
    };
    if tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_err() {
        tracing::debug!("a log was started before; it stays as it is");
    }
    if let Some(why) = refused {
        tracing::warn!("{LEVEL_VARIABLE} is ignored: {why}");
    }
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

/// Text without a time, each line with its priority in front.
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = String::new();
        let plain = format::Format::default().without_time().with_level(false).with_target(false).with_ansi(false);
        plain.format_event(context, Writer::new(&mut text), event)?;
        let priority = priority(*event.metadata().level());
        for line in text.lines() {
            writeln!(writer, "<{priority}>{line}")?;
        }
        Ok(())
    }
}

/// As syslog(3) counts.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

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

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no other test has it").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_of_the_journal_has_its_priority() {
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.event_format(Journal));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(peer = "trader1", "link up");
            tracing::error!("two\nlines");
        });
        let text = String::from_utf8(captured.0.lock().expect("nobody panicked").clone()).expect("text");
        assert_eq!(text, "<6>link up peer=\"trader1\"\n<3>two\n<3>lines\n");
    }
}
