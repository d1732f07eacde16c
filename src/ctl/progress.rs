//! What a person or a script sees of a transfer.
//!
//! On a terminal: a bar with rate and time left on standard error, and the summary on standard output. Elsewhere: the
//! summary. Entries that fail are named on standard error, as are those that are skipped unless it is to be quiet; a
//! dry run names on standard output what it would change.
//!
//! # JSON
//!
//! One object a line on standard output, each with `"schema": "supersync.transfer/1"` and an `event`; more keys and
//! events may come with later versions.
//!
//! | event | keys |
//! |---|---|
//! | `progress` | `entries_found`, `entries_done`, `bytes_total`, `bytes_done`, `bytes_skipped`, `connections`, `scanning`, `bytes_per_second`, `eta_seconds`; null where it cannot be told |
//! | `change` | path, `what`: `new`, `content` or `attributes`; once it stands, with others that were found together with it |
//! | `deleted` | path |
//! | `failed`, `skipped` | path, `reason`; the path is empty where all of the transfer is meant, and where the server of a push could not delete something, which the reason names |
//! | `summary` | the last one, where command line and local paths were right: `result` (`ok`, `incomplete` or `failed`), `exit_status`, `error` (text or null), `dry_run`, `entries`, `new`, `changed`, `attributes`, `deleted`, `failed`, `skipped`, `bytes_data`, `bytes_wanted` (of a dry run: of files that would be sent, with what an interrupted run left of them; else null), `bytes_sent` and `bytes_received` (null where they are not counted), `damaged` (messages that came damaged here, and came again), `seconds` |
//!
//! A path is told under the key `path` where it is UTF-8. Where it is not, the key is `path_percent` instead, and every
//! byte but ASCII letters, digits, `/`, `.`, `_` and `-` is written as `%` and two hexadecimal digits. The top of the
//! transfer is the empty path.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::render::{clean, duration, rate, size};
use crate::engine::session::{Change, Report, SessionProgress, Summary};
use crate::units::TreePath;
use crate::{exit, limits};

const SCHEMA: &str = "supersync.transfer/1";
/// A rate is that of about the last so many seconds.
const RATE_SECONDS: f64 = 3.0;

/// How a transfer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A bar where standard error is a terminal, and text.
    Text {
        /// Only what failed.
        quiet: bool,
    },
    /// One object a line.
    Json,
}

/// Shows one transfer.
pub(super) struct Show<O, E> {
    mode: Mode,
    dry_run: bool,
    bar: ProgressBar,
    meter: Meter,
    shown: Option<Instant>,
    out: O,
    err: E,
    /// Nobody reads standard output any more. The transfer goes on: it is not what was to be seen, but what was to be
    /// done.
    out_is_closed: bool,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Progress {
    pub(super) entries_found: u64,
    pub(super) entries_done: u64,
    /// `None`: nobody tells before it is here.
    pub(super) bytes_total: Option<u64>,
    pub(super) bytes_done: u64,
    pub(super) bytes_skipped: u64,
    pub(super) connections: usize,
    /// The totals are not the last word.
    #[serde(rename = "scanning")]
    pub(super) is_scanning: bool,
}

impl From<SessionProgress> for Progress {
    fn from(progress: SessionProgress) -> Self {
        let SessionProgress {
            entries_found,
            entries_done,
            bytes_total,
            bytes_done,
            bytes_skipped,
            connections,
            is_scanning,
        } = progress;
        let bytes_total = Some(bytes_total);
        Self { entries_found, entries_done, bytes_total, bytes_done, bytes_skipped, connections, is_scanning }
    }
}

/// Bytes per second.
#[derive(Debug, Default)]
struct Meter {
    bytes: u64,
    rate: Option<f64>,
}

#[derive(Serialize)]
struct Event<'a, T> {
    schema: &'static str,
    event: &'static str,
    #[serde(flatten)]
    path: Option<PathKey<'a>>,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum PathKey<'a> {
    Path(&'a str),
    PathPercent(String),
}

#[derive(Serialize)]
struct ProgressBody {
    #[serde(flatten)]
    progress: Progress,
    bytes_per_second: f64,
    eta_seconds: Option<f64>,
}

#[derive(Serialize)]
struct ChangeBody {
    what: &'static str,
}

#[derive(Serialize)]
struct ReasonBody<'a> {
    reason: &'a str,
}

#[derive(Serialize)]
struct NoBody {}

#[derive(Serialize)]
struct SummaryBody<'a> {
    result: &'static str,
    exit_status: u8,
    error: Option<&'a str>,
    dry_run: bool,
    entries: u64,
    new: u64,
    changed: u64,
    attributes: u64,
    deleted: u64,
    failed: u64,
    skipped: u64,
    bytes_data: u64,
    bytes_wanted: Option<u64>,
    bytes_sent: Option<u64>,
    bytes_received: Option<u64>,
    damaged: u64,
    seconds: f64,
}

impl<O: Write, E: Write> Show<O, E> {
    /// A show on `out` and `err`; the bar, where there is one, is on the process's standard error.
    pub(super) fn new(mode: Mode, dry_run: bool, out: O, err: E) -> Self {
        let bar = match mode {
            // Hides itself where standard error is no terminal.
            Mode::Text { quiet: false } => ProgressBar::no_length(),
            Mode::Text { quiet: true } | Mode::Json => ProgressBar::hidden(),
        };
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg}") {
            bar.set_style(style);
        }
        Self { mode, dry_run, bar, meter: Meter::default(), shown: None, out, err, out_is_closed: false }
    }

    /// What happened to one entry.
    pub(super) fn report(&mut self, report: &Report) -> io::Result<()> {
        match (report, self.mode) {
            (Report::Ended(_), _) => Ok(()),
            (Report::Change { path, what }, Mode::Json) => {
                self.event("change", Some(path), ChangeBody { what: word(*what) })
            }
            (Report::Deleted { path }, Mode::Json) => self.event("deleted", Some(path), NoBody {}),
            (Report::Failed { path, reason }, Mode::Json) => self.event("failed", Some(path), ReasonBody { reason }),
            (Report::Skipped { path, reason }, Mode::Json) => self.event("skipped", Some(path), ReasonBody { reason }),
            (Report::Change { path, what }, Mode::Text { .. }) if self.dry_run => {
                self.print(&format!("{:<10}  {path}\n", word(*what)))
            }
            (Report::Deleted { path }, Mode::Text { .. }) if self.dry_run => {
                self.print(&format!("{:<10}  {path}\n", "delete"))
            }
            (Report::Change { .. } | Report::Deleted { .. }, Mode::Text { .. }) => Ok(()),
            (Report::Skipped { .. }, Mode::Text { quiet: true }) => Ok(()),
            (Report::Failed { path, reason }, Mode::Text { .. }) => self.complain("failed", path, reason),
            (Report::Skipped { path, reason }, Mode::Text { .. }) => self.complain("skipped", path, reason),
        }
    }

    /// How far it is at `now`; shown where it is time to.
    pub(super) fn progress(&mut self, progress: &Progress, now: Instant) -> io::Result<()> {
        let every = match self.mode {
            Mode::Text { .. } => limits::PROGRESS_EVERY,
            Mode::Json => limits::PROGRESS_JSON_EVERY,
        };
        let passed = self.shown.map(|shown| now.saturating_duration_since(shown));
        if passed.is_some_and(|passed| passed < every) {
            return Ok(());
        }
        self.meter.update(progress.bytes_done, passed);
        self.shown = Some(now);
        match self.mode {
            Mode::Json => {
                let bytes_per_second = self.meter.rate.unwrap_or(0.0);
                let body =
                    ProgressBody { progress: *progress, bytes_per_second, eta_seconds: self.meter.eta(progress) };
                self.event("progress", None, body)
            }
            Mode::Text { .. } => {
                let (length, position) = match progress.bytes_total {
                    Some(total) => (total, progress.bytes_done + progress.bytes_skipped),
                    None => (progress.entries_found, progress.entries_done),
                };
                self.bar.set_length(length.max(1));
                self.bar.set_position(position);
                self.bar.set_message(self.meter.line(progress));
                Ok(())
            }
        }
    }

    /// Its end: what was done, and the exit status. `error`: why it did not go to its end, which the caller tells
    /// people.
    pub(super) fn end(&mut self, summary: &Summary, error: Option<&str>, exit_status: u8) -> io::Result<()> {
        self.bar.finish_and_clear();
        match self.mode {
            Mode::Text { quiet: true } => Ok(()),
            Mode::Text { quiet: false } if error.is_some() => Ok(()),
            Mode::Text { quiet: false } => self.print(&told(summary, self.dry_run)),
            Mode::Json => {
                let Summary {
                    entries,
                    new,
                    changed,
                    attributes,
                    deleted,
                    failed,
                    skipped,
                    bytes_data,
                    bytes_wanted,
                    bytes_sent,
                    bytes_received,
                    damaged,
                    seconds,
                } = *summary;
                let counted = |bytes: u64| (bytes_sent > 0 || bytes_received > 0).then_some(bytes);
                let (bytes_sent, bytes_received) = (counted(bytes_sent), counted(bytes_received));
                let bytes_wanted = self.dry_run.then_some(bytes_wanted);
                let result = match exit_status {
                    exit::OK => "ok",
                    exit::INCOMPLETE => "incomplete",
                    _ => "failed",
                };
                let dry_run = self.dry_run;
                let body = SummaryBody {
                    result,
                    exit_status,
                    error,
                    dry_run,
                    entries,
                    new,
                    changed,
                    attributes,
                    deleted,
                    failed,
                    skipped,
                    bytes_data,
                    bytes_wanted,
                    bytes_sent,
                    bytes_received,
                    damaged,
                    seconds,
                };
                self.event("summary", None, body)
            }
        }
    }

    fn event(&mut self, event: &'static str, path: Option<&TreePath>, body: impl Serialize) -> io::Result<()> {
        let path = path.map(path_key);
        let json = serde_json::to_string(&Event { schema: SCHEMA, event, path, body }).map_err(io::Error::from)?;
        self.print(&format!("{json}\n"))
    }

    /// Puts text to standard output, above the bar.
    fn print(&mut self, text: &str) -> io::Result<()> {
        if self.out_is_closed {
            return Ok(());
        }
        let out = &mut self.out;
        match self.bar.suspend(|| out.write_all(text.as_bytes()).and_then(|()| out.flush())) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.out_is_closed = true;
                Ok(())
            }
            written => written,
        }
    }

    fn complain(&mut self, what: &str, path: &TreePath, reason: &str) -> io::Result<()> {
        let err = &mut self.err;
        let line = format!("{what}: {path}: {}\n", clean(reason));
        // Where nobody reads complaints, the summary counts them all the same.
        let _ = self.bar.suspend(|| err.write_all(line.as_bytes()));
        Ok(())
    }
}

impl Meter {
    /// `bytes` have passed in all, `after` that time since the last call.
    fn update(&mut self, bytes: u64, after: Option<Duration>) {
        let more = bytes.saturating_sub(std::mem::replace(&mut self.bytes, bytes)) as f64;
        let Some(seconds) = after.map(|after| after.as_secs_f64()).filter(|seconds| *seconds > 0.0) else { return };
        let now = more / seconds;
        let weight = 1.0 - (-seconds / RATE_SECONDS).exp();
        self.rate = Some(self.rate.map_or(now, |rate| rate + weight * (now - rate)));
    }

    /// Seconds to the end; `None` while that cannot be told.
    fn eta(&self, progress: &Progress) -> Option<f64> {
        let left = progress.bytes_total?.saturating_sub(progress.bytes_done + progress.bytes_skipped);
        let rate = self.rate.filter(|rate| *rate >= 1.0)?;
        (!progress.is_scanning).then_some(left as f64 / rate)
    }

    /// What stands beside the bar.
    fn line(&self, progress: &Progress) -> String {
        let here = size(progress.bytes_done + progress.bytes_skipped);
        let more = if progress.is_scanning { "+" } else { "" };
        let total = progress.bytes_total.map_or_else(String::new, |total| format!(" of {}{more}", size(total)));
        let speed = rate(self.rate.unwrap_or(0.0));
        let eta = self.eta(progress).map_or_else(|| "unknown".to_owned(), |eta| duration(eta.ceil() as u64));
        let Progress { entries_found, entries_done, connections, .. } = progress;
        format!(
            "{here}{total}  {speed}  ETA {eta}  {entries_done} of {entries_found}{more} entries  {}",
            plural(*connections as u64, "connection")
        )
    }
}

fn told(summary: &Summary, dry_run: bool) -> String {
    let Summary { entries, new, changed, attributes, deleted, failed, skipped, bytes_data, .. } = summary;
    let Summary { bytes_wanted, bytes_sent, bytes_received, damaged, seconds, .. } = summary;
    let counted = if *entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
    let lead = if dry_run { "dry run, nothing was changed: " } else { "" };
    let mut text = format!("{lead}{counted}: {new} new, {changed} changed, {attributes} with other attributes");
    let more = [(deleted, "deleted"), (skipped, "skipped"), (failed, "failed")];
    for (count, what) in more.into_iter().filter(|(count, _)| **count > 0) {
        text += &format!(", {count} {what}");
    }
    let speed = if *seconds > 0.0 { *bytes_data as f64 / seconds } else { 0.0 };
    if dry_run {
        text += &format!("; {} of files would be sent", size(*bytes_wanted));
    } else {
        text += &format!("; {} of files in {seconds:.1} s ({})", size(*bytes_data), rate(speed));
    }
    if *bytes_sent > 0 || *bytes_received > 0 {
        text += &format!(", {} sent, {} received", size(*bytes_sent), size(*bytes_received));
    }
    if *damaged > 0 {
        text += &format!(", {} came damaged and came again", plural(*damaged, "message"));
    }
    text + "\n"
}

fn word(what: Change) -> &'static str {
    match what {
        Change::New => "new",
        Change::Content => "content",
        Change::Attributes => "attributes",
    }
}

fn plural(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn path_key(path: &TreePath) -> PathKey<'_> {
    match std::str::from_utf8(path.as_bytes()) {
        Ok(text) => PathKey::Path(text),
        Err(_) => {
            let mut escaped = String::with_capacity(3 * path.as_bytes().len());
            for &byte in path.as_bytes() {
                match byte {
                    b'/' | b'.' | b'_' | b'-' => escaped.push(char::from(byte)),
                    _ if byte.is_ascii_alphanumeric() => escaped.push(char::from(byte)),
                    _ => escaped += &format!("%{byte:02X}"),
                }
            }
            PathKey::PathPercent(escaped)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn path(bytes: &[u8]) -> TreePath {
        TreePath::new(bytes).expect("valid")
    }

    /// What is shown of `reports` and of the summary: standard output and standard error.
    fn shown(mode: Mode, dry_run: bool, reports: &[Report]) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut show = Show::new(mode, dry_run, &mut out, &mut err);
        for report in reports {
            show.report(report).expect("a Vec takes all");
        }
        show.end(
            &Summary {
                entries: 4,
                new: 1,
                failed: 1,
                bytes_wanted: 3000,
                bytes_sent: 2000,
                seconds: 2.0,
                ..Summary::default()
            },
            None,
            exit::INCOMPLETE,
        )
        .expect("a Vec takes all");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(out), text(err))
    }

    fn one_of_each() -> [Report; 4] {
        let reason = "why\x1b[2J".to_owned();
        [
            Report::Change { path: path(b"a/b"), what: Change::New },
            Report::Deleted { path: path(b"old\n") },
            Report::Failed { path: path(b"bad"), reason: reason.clone() },
            Report::Skipped { path: path(b"sock"), reason },
        ]
    }

    const SUMMARY: &str = "4 entries: 1 new, 0 changed, 0 with other attributes, 1 failed; 0 B of files in 2.0 s (0 B/s), 2.0 kB sent, 0 B received\n";

    #[test]
    fn what_failed_is_named_and_what_changed_is_counted() {
        let (out, err) = shown(Mode::Text { quiet: false }, false, &one_of_each());
        assert_eq!(out, SUMMARY);
        assert_eq!(err, "failed: bad: why\\u{1b}[2J\nskipped: sock: why\\u{1b}[2J\n");
    }

    #[test]
    fn a_dry_run_names_what_it_would_change() {
        let (out, _) = shown(Mode::Text { quiet: false }, true, &one_of_each());
        let (counts, _) = SUMMARY.split_once(';').expect("counts come first");
        let (changes, bytes) = ("new         a/b\ndelete      old\\n\n", "3.0 kB of files would be sent");
        let expected = format!("{changes}dry run, nothing was changed: {counts}; {bytes}, 2.0 kB sent, 0 B received\n");
        assert_eq!(out, expected);
        let (out, _) = shown(Mode::Json, true, &[]);
        assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON")["bytes_wanted"], 3000);
    }

    #[test]
    fn who_is_quiet_tells_of_failures_alone() {
        let (out, err) = shown(Mode::Text { quiet: true }, false, &one_of_each());
        assert_eq!((out.as_str(), err.as_str()), ("", "failed: bad: why\\u{1b}[2J\n"));
    }

    #[test]
    fn every_event_is_an_object_on_a_line_of_its_own() {
        let (out, err) = shown(Mode::Json, false, &one_of_each());
        assert!(err.is_empty(), "{err}");
        let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert!(events.iter().all(|event| event["schema"] == SCHEMA), "{out}");
        assert_eq!(events[0], json!({"schema": SCHEMA, "event": "change", "path": "a/b", "what": "new"}));
        assert_eq!(events[1], json!({"schema": SCHEMA, "event": "deleted", "path": "old\n"}));
        assert_eq!(events[2]["reason"], "why\u{1b}[2J");
        assert_eq!(events[3]["event"], "skipped");
        let summary = &events[4];
        assert_eq!((&summary["event"], &summary["result"]), (&json!("summary"), &json!("incomplete")));
        assert_eq!(
            (&summary["exit_status"], &summary["entries"], &summary["error"]),
            (&json!(3), &json!(4), &json!(null))
        );
        assert!(summary.get("path").is_none(), "{summary}");
    }

    #[test]
    fn a_path_that_is_no_text_can_be_told_and_found_again() {
        let json = |bytes: &[u8]| {
            let path = path(bytes);
            serde_json::to_value(Event {
                schema: SCHEMA,
                event: "deleted",
                path: Some(path_key(&path)),
                body: NoBody {},
            })
            .expect("JSON")
        };
        assert_eq!(json("ä%41".as_bytes())["path"], "ä%41");
        let told = json(b"a-1/\xff%\n");
        assert_eq!(told["path_percent"], "a-1/%FF%25%0A");
        assert!(told.get("path").is_none(), "{told}");
    }

    #[test]
    fn progress_tells_rate_and_time_left() {
        let mut meter = Meter::default();
        let progress = Progress {
            entries_found: 10,
            entries_done: 4,
            bytes_total: Some(100_000_000),
            bytes_done: 20_000_000,
            bytes_skipped: 30_000_000,
            connections: 1,
            is_scanning: false,
        };
        meter.update(10_000_000, None);
        assert_eq!(meter.eta(&progress), None, "nothing is known yet");
        meter.update(20_000_000, Some(Duration::from_secs(1)));
        assert_eq!(meter.eta(&progress), Some(5.0));
        let expected = "50.0 MB of 100.0 MB  10.0 MB/s  ETA 5s  4 of 10 entries  1 connection";
        assert_eq!(meter.line(&progress), expected);
        let scanning = Progress { is_scanning: true, connections: 4, ..progress };
        let expected = "50.0 MB of 100.0 MB+  10.0 MB/s  ETA unknown  4 of 10+ entries  4 connections";
        assert_eq!(meter.line(&scanning), expected);
        let untold = Progress { bytes_total: None, ..progress };
        assert_eq!(meter.line(&untold), "50.0 MB  10.0 MB/s  ETA unknown  4 of 10 entries  1 connection");
        meter.update(20_000_000, Some(Duration::from_secs(60)));
        assert!(meter.rate.is_some_and(|rate| rate < 1.0), "nothing moves: {meter:?}");
        assert_eq!(meter.eta(&progress), None);
    }

    #[test]
    fn a_reader_that_leaves_does_not_end_the_transfer() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut show = Show::new(Mode::Json, false, Closed, Closed);
        for report in one_of_each() {
            show.report(&report).expect("it is no failure");
        }
        show.end(&Summary::default(), None, exit::OK).expect("it is no failure");
    }
}
