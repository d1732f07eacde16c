//! `supersyncctl fetch`: whole files from a server of the named protocol (seed 001).
//!
//! Shows what [`node::fetch`](crate::node::fetch) does as `push` and `pull` show a session: see [`super::progress`].

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::engine::Engine;
use super::progress::{Mode, Progress, Show};
use super::remote::{self, Host};
use super::transfer::{Interrupt, interruptible, reach};
use super::{CtlError, Screen};
use crate::engine::session::{Report, Summary};
use crate::node::fetch::{self, FetchError, FetchJob, FetchProgress, FetchStage, FetchSummary};
use crate::units::{ObjectName, PacketLen, TreePath};
use crate::{exit, limits};

const HELP: &str = "\
What is fetched lands in remote/ below DST, each file with NAME.success beside it once it is whole. Files that are there, \
whole and marked, are skipped: after an interruption the same command goes on.

HOST is a name or an address, with :PORT where the server does not listen at 7403; its config needs a [[listen]] with \
protocol = \"named\".

Exit status: 0 all is there, 1 failed or refused, 2 usage, 3 run it again to go on, 4 host unreachable, 77 permission.";

/// What is fetched whereto.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Fetch {
    // Not as a comment of the documentation, where it would be a link.
    #[arg(value_name = "HOST", value_parser = Host::parse, help = "HOST, HOST:PORT or [IPV6]:PORT")]
    host: Host,
    /// A directory of this host; made where it is not there
    #[arg(value_name = "DST")]
    destination: PathBuf,
    /// Only these, relative to the server's local/. Without any: all that it has
    #[arg(value_name = "NAME", value_parser = name_parser())]
    names: Vec<ObjectName>,
    /// Where the server listens, unless HOST says so. Without it: 7403
    #[arg(long, value_name = "PORT", value_parser = remote::port)]
    port: Option<u16>,
    /// Length of every packet, as packet_bytes of the server's config says
    #[arg(long, value_name = "BYTES", default_value = "1400", value_parser = packet_len)]
    packet_bytes: PacketLen,
    #[command(flatten)]
    engine: Engine,
    /// No bar and no summary
    #[arg(short, long)]
    quiet: bool,
}

fn name_parser() -> impl TypedValueParser<Value = ObjectName> {
    OsStringValueParser::new().try_map(|name: OsString| ObjectName::new(name.as_bytes()))
}

fn packet_len(text: &str) -> Result<PacketLen, String> {
    let (min, max) = (limits::PACKET_BYTES_MIN, limits::PACKET_BYTES_MAX);
    text.parse().ok().and_then(PacketLen::new).ok_or_else(|| format!("a number from {min} to {max} is needed"))
}

/// Runs `fetch` to its exit status.
pub(super) async fn fetch(fetch: Fetch, screen: Screen) -> Result<u8, CtlError> {
    let port = fetch.host.port_or(fetch.port, limits::NAMED_PORT_DEFAULT).map_err(CtlError::Usage)?;
    // What is whole is marked and stays: there is nothing to end in good order, and the first signal ends it.
    interruptible(move |_: &Interrupt| run(fetch, port, screen)).await
}

fn run(fetch: Fetch, port: u16, screen: Screen) -> Result<u8, CtlError> {
    let Fetch { host, destination, names, packet_bytes, engine, quiet, .. } = fetch;
    let mode = if screen.json { Mode::Json } else { Mode::Text { quiet } };
    let mut show = Show::new(mode, false, io::stdout(), io::stderr());
    let address = Host { port: Some(port), ..host.clone() }.to_string();
    let outcome = reach(&host, port, "named").and_then(|_| {
        let driver = engine.driver(quiet)?;
        let job = FetchJob { address: address.clone(), destination, names, packet_len: packet_bytes, driver };
        let mut shown = Ok(());
        let result = fetch::fetch(job, |progress| {
            if shown.is_ok() {
                shown = show.progress(&told(progress), Instant::now());
            }
        });
        shown?;
        Ok(result?)
    });
    conclude(outcome, &mut show, address)
}

fn conclude<O: Write, E: Write>(
    outcome: Result<FetchSummary, CtlError>,
    show: &mut Show<O, E>,
    address: String,
) -> Result<u8, CtlError> {
    let done = match outcome {
        Ok(done) => done,
        Err(error) => {
            show.end(&Summary::default(), Some(&error.to_string()), error.exit_status())?;
            return Err(error);
        }
    };
    for (name, reason) in &done.failed {
        // A line of a listing that is no name may be anything; what cannot be a path is told in its reason.
        let (path, reason) = match TreePath::new(name.as_bytes()) {
            Ok(path) => (path, reason.clone()),
            Err(_) => (TreePath::top(), format!("{name}: {reason}")),
        };
        show.report(&Report::Failed { path, reason })?;
    }
    let failed = done.failed.len() as u64;
    let entries = done.fetched + done.skipped + failed;
    let summary = Summary {
        entries,
        new: done.fetched,
        failed,
        bytes_data: done.bytes.0,
        seconds: done.elapsed.as_secs_f64(),
        ..Summary::default()
    };
    let result = match failed {
        0 => Ok(exit::OK),
        _ if failed == done.refused => Err(CtlError::NotThere { remote: address, failed, entries }),
        _ => Err(CtlError::Incomplete { remote: address, failed, entries }),
    };
    show.end(&summary, None, result.as_ref().map_or_else(CtlError::exit_status, |status| *status))?;
    result
}

/// A server tells how long a file is with its last byte, so that nobody knows how much there is to come.
fn told(progress: &FetchProgress) -> Progress {
    Progress {
        entries_found: progress.objects + progress.skipped,
        entries_done: progress.fetched + progress.skipped,
        bytes_total: None,
        bytes_done: progress.bytes.0,
        bytes_skipped: 0,
        connections: usize::from(!matches!(progress.stage, FetchStage::Reconnecting { .. })),
        is_scanning: progress.stage == FetchStage::Listing,
    }
}

impl From<FetchError> for CtlError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::time::Duration;

    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;
    use crate::units::ByteCount;

    fn parsed(args: &[&str]) -> Result<Fetch, String> {
        let args = ["supersyncctl", "fetch"].iter().chain(args).map(OsStr::new);
        match Cli::try_parse_from(args).map_err(|error| error.to_string())?.command {
            Command::Fetch(fetch) => Ok(fetch),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_fetch_names_a_host_a_directory_and_perhaps_files() {
        let fetch = parsed(&["[::1]:9", "dst", "a", "b/c"]).expect("valid");
        assert_eq!(fetch.host, Host { name: "::1".into(), port: Some(9) });
        let names: Vec<String> = fetch.names.iter().map(ObjectName::to_string).collect();
        assert_eq!((names, fetch.packet_bytes), (vec!["a".to_owned(), "b/c".to_owned()], PacketLen::DEFAULT));
        assert!(parsed(&["h", "dst"]).expect("valid").names.is_empty());
        for bad in
            [&["h"][..], &["h:x", "dst"], &["h", "dst", "/a"], &["h", "dst", "../a"], &["h", "dst", "--packet-bytes=9"]]
        {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_was_fetched_is_told_and_what_was_not_makes_it_incomplete() {
        let check = |failed: Vec<(String, String)>, refused: u64, expected: Result<u8, u8>, out: &str, err: &str| {
            let done = FetchSummary {
                fetched: 2,
                bytes: ByteCount(4000),
                skipped: 1,
                refused,
                failed,
                reconnects: 0,
                elapsed: Duration::from_secs(2),
            };
            let (mut o, mut e) = (Vec::new(), Vec::new());
            let mut show = Show::new(Mode::Text { quiet: false }, false, &mut o, &mut e);
            let result = conclude(Ok(done), &mut show, "h:1".into()).map_err(|error| error.exit_status());
            assert_eq!(result, expected);
            assert_eq!((String::from_utf8(o), String::from_utf8(e)), (Ok(out.to_owned()), Ok(err.to_owned())));
        };
        let tail = "; 4.0 kB of files in 2.0 s (2.0 kB/s)\n";
        let counts = "2 new, 0 changed, 0 with other attributes";
        check(Vec::new(), 0, Ok(exit::OK), &format!("3 entries: {counts}{tail}"), "");
        let failed = vec![("a".to_owned(), "gone".to_owned()), ("/b".to_owned(), "no name".to_owned())];
        let err = "failed: a: gone\nfailed: .: /b: no name\n";
        let out = format!("5 entries: {counts}, 2 failed{tail}");
        check(failed.clone(), 1, Err(exit::INCOMPLETE), &out, err);
        check(failed, 2, Err(exit::FAILED), &out, err);
    }
}
