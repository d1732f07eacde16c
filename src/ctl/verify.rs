//! `supersyncctl verify`: every object in a trader's `remote/` is read again and held against its marker, and with
//! `--deep` against what the far trader tells that it has.
//!
//! Reads the disk itself, on all cores, beside a running daemon or without one; only `--deep` needs the daemon. What to
//! do about what is found is said with it; `--repair` does it: an object without its marker is fetched again.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{CtlError, Screen, render};
use crate::config::{self, RoleConfig};
use crate::control::{Client, Inventory};
use crate::node::fetch::FETCHED_INTO;
use crate::store::{Difference, Root, StoreError, Verified};
use crate::units::{ByteCount, ObjectName};
use crate::{exit, limits};

/// What of which store is verified.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The directory that was fetched into, or the one that was given to `fetch`, which fetches into remote/ below it.
    /// Without it: `store.remote` of the config, or of the daemon that runs
    directory: Option<PathBuf>,
    /// Take `store.remote` of this config
    #[arg(short, long, value_name = "FILE", conflicts_with = "directory")]
    config: Option<PathBuf>,
    /// Hold it against what the far trader has, too, as the running daemon knows that
    #[arg(long)]
    deep: bool,
    /// Remove the markers of what is damaged, so that it is fetched again
    #[arg(long)]
    repair: bool,
}

/// What is wrong with one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// It is not what its marker says.
    Damaged,
    /// It cannot be read.
    Unreadable,
    /// It has no marker, or one that contradicts itself.
    Unmarked,
    /// The far trader has it, and it is not here.
    Missing,
    /// The far trader has another version.
    Outdated,
    /// The far trader does not have it.
    Extra,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    kind: Kind,
    expected: Option<String>,
    found: Option<String>,
    advice: String,
    repaired: bool,
}

/// What `--json` prints; `supersync.verify/1`.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    directory: PathBuf,
    /// Objects that were read whole, and their bytes.
    objects: u64,
    bytes: u64,
    /// Objects whose markers tell no root, and which were not read: of these the size at most was looked at.
    without_root: u64,
    /// With `--deep`: the far trader has told all that it has, so that all of it was compared.
    told_whole: Option<bool>,
    seconds: f64,
    /// The findings of each kind.
    counts: BTreeMap<Kind, u64>,
    /// At most [`limits::CONTROL_OBJECTS_MAX`].
    findings: Vec<Finding>,
}

/// What all threads add to.
struct Tally<'a> {
    root: &'a Root,
    screen: &'a Screen,
    repair: bool,
    bar: &'a ProgressBar,
    report: Report,
    /// What the far trader tells, by name; what has been found here is taken out.
    told: Option<BTreeMap<String, (u64, String)>>,
}

pub(super) async fn run(
    options: Options,
    client: impl FnOnce() -> Result<Client, CtlError>,
    screen: &Screen,
) -> Result<u8, CtlError> {
    let (directory, told) = match (&options.directory, &options.config, options.deep) {
        (Some(directory), _, false) => (fetched_into(directory), None),
        (None, Some(file), false) => (remote_of(file)?, None),
        (named, file, deep) => {
            let inventory = ask(&client()?, deep).await?;
            let directory = match (named, file) {
                (Some(directory), _) => fetched_into(directory),
                (None, Some(file)) => remote_of(file)?,
                (None, None) => inventory.remote.clone(),
            };
            (directory, deep.then_some(inventory))
        }
    };
    let root = Root::open(&directory)?;
    let began = Instant::now();
    let bar = ProgressBar::new_spinner();
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {decimal_bytes} read, {decimal_bytes_per_sec}, {elapsed}")
    {
        bar.set_style(style);
    }
    let report = Report {
        schema: "supersync.verify/1",
        directory,
        objects: 0,
        bytes: 0,
        without_root: 0,
        told_whole: told.as_ref().map(|told| told.whole),
        seconds: 0.0,
        counts: BTreeMap::new(),
        findings: Vec::new(),
    };
    let told: Option<BTreeMap<_, _>> =
        told.map(|told| told.objects.into_iter().map(|o| (o.name, (o.size, o.root))).collect());
    let tally = Mutex::new(Tally { root: &root, screen, repair: options.repair, bar: &bar, report, told });
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    root.verify_all(threads, |name, found| {
        let lock = || tally.lock().unwrap_or_else(PoisonError::into_inner);
        // Its marker tells nothing to hold it against, but the far trader may.
        let is_told = matches!(found, Ok(Verified::NoRoot)) && lock().is_told(&name);
        let found = if is_told { root.hash(&name) } else { found };
        lock().take(&name, found);
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.take_missing();
    bar.finish_and_clear();
    tally.report.seconds = began.elapsed().as_secs_f64();
    tally.conclude()
}

/// `directory`, or `remote/` in it where that is the one that objects come into.
fn fetched_into(directory: &Path) -> PathBuf {
    let is_root = |directory: &Path| directory.join(limits::PRIVATE_DIR).is_dir();
    let below = directory.join(FETCHED_INTO);
    if !is_root(directory) && is_root(&below) { below } else { directory.to_owned() }
}

fn remote_of(file: &Path) -> Result<PathBuf, CtlError> {
    match config::load(file)?.role {
        RoleConfig::Trader(trader) => trader.store.map(|store| store.remote).ok_or(CtlError::NoStore),
        RoleConfig::Exchange(_) => Err(CtlError::NoStore),
    }
}

/// Where the daemon fetches into, and with `deep` all that it knows of the far trader's objects.
async fn ask(client: &Client, deep: bool) -> Result<Inventory, CtlError> {
    let limit = if deep { limits::CONTROL_OBJECTS_MAX } else { 0 };
    let mut inventory = client.inventory(0, limit).await?.body.body;
    while deep && inventory.truncated {
        let next = client.inventory(inventory.objects.len(), limit).await?.body.body;
        (inventory.truncated, inventory.whole) = (next.truncated, inventory.whole && next.whole);
        inventory.objects.extend(next.objects);
    }
    Ok(inventory)
}

impl Tally<'_> {
    /// Whether the far trader tells of it.
    fn is_told(&self, name: &ObjectName) -> bool {
        self.told.as_ref().is_some_and(|told| told.contains_key(&name.to_string()))
    }

    fn take(&mut self, name: &ObjectName, found: Result<Verified, StoreError>) {
        let told = self.told.as_mut().and_then(|told| told.remove(&name.to_string()));
        match found {
            Ok(Verified::Ok { size, root }) => {
                self.report.objects += 1;
                self.report.bytes += size.0;
                self.bar.inc(size.0);
                self.compare(name, size, root.to_string(), told);
            }
            Ok(Verified::NoRoot) => {
                self.report.without_root += 1;
                self.handle_untold(name);
            }
            Ok(Verified::Unmarked) => {
                let advice =
                    "it was never finished here, or another program put it here; supersyncd replaces what it wants";
                self.add(name, Kind::Unmarked, None, None, advice.into());
            }
            Ok(Verified::Differs(difference)) => {
                let (expected, found) = match difference {
                    Difference::Missing => ("a file".into(), "its marker alone".into()),
                    Difference::Size { marked, found } => (marked.to_string(), found.to_string()),
                    Difference::Content { marked, found } => (format!("BLAKE3 {marked}"), format!("BLAKE3 {found}")),
                };
                let advice =
                    format!("have it fetched again: verify --repair, or remove {name}{}", limits::SUCCESS_SUFFIX);
                self.add(name, Kind::Damaged, Some(expected), Some(found), advice);
            }
            Err(error) => {
                let advice = match exit::is_permission(&error) {
                    true => "run it as the user of the service",
                    false => "look at the disk",
                };
                self.add(name, Kind::Unreadable, None, Some(error.to_string()), advice.into());
            }
        }
    }

    /// An object that is as it was committed, against what the far trader tells.
    fn compare(&mut self, name: &ObjectName, size: ByteCount, root: String, told: Option<(u64, String)>) {
        match told {
            Some((_, expected)) if expected == root => {}
            Some((expected_size, expected)) => {
                let advice = "supersyncd fetches the far trader's version".into();
                let (expected, found) = (ByteCount(expected_size).to_string() + ", BLAKE3 " + &expected, root);
                self.add(name, Kind::Outdated, Some(expected), Some(format!("{size}, BLAKE3 {found}")), advice);
            }
            None => self.handle_untold(name),
        }
    }

    /// The far trader tells nothing of it.
    fn handle_untold(&mut self, name: &ObjectName) {
        if self.report.told_whole == Some(true) {
            let advice = "it is kept; with store.delete = \"mirror\" supersyncd removes such objects";
            self.add(name, Kind::Extra, None, None, advice.into());
        }
    }

    /// What the far trader has and nothing here has the name of.
    fn take_missing(&mut self) {
        for (name, (size, _)) in std::mem::take(&mut self.told).into_iter().flatten() {
            let advice = "supersyncd fetches it; see supersyncctl objects --missing".into();
            self.tell(name, Kind::Missing, Some(ByteCount(size).to_string()), None, advice, false);
        }
    }

    fn add(&mut self, name: &ObjectName, kind: Kind, expected: Option<String>, found: Option<String>, advice: String) {
        let repaired = self.repair && kind == Kind::Damaged;
        let (advice, repaired) = match repaired.then(|| self.root.unmark(name)) {
            Some(Ok(_)) => ("its marker is removed, so that it is fetched again".into(), true),
            Some(Err(error)) => (error.to_string(), false),
            None => (advice, false),
        };
        self.tell(name.to_string(), kind, expected, found, advice, repaired);
    }

    fn tell(
        &mut self,
        name: String,
        kind: Kind,
        expected: Option<String>,
        found: Option<String>,
        advice: String,
        repaired: bool,
    ) {
        *self.report.counts.entry(kind).or_default() += 1;
        if !self.screen.json {
            let what = match kind {
                Kind::Damaged => "damaged",
                Kind::Unreadable => "cannot be read",
                Kind::Unmarked => "has no marker, or one that contradicts itself",
                Kind::Missing => "is missing",
                Kind::Outdated => "is not the far trader's version",
                Kind::Extra => "is not at the far trader",
            };
            let expected = expected.map(|text| format!(", expected {text}")).unwrap_or_default();
            let found = found.map(|text| format!(", found {text}")).unwrap_or_default();
            let line = render::clean(&format!("{name}: {what}{expected}{found}: {advice}"));
            // The next write to the same place fails as well, and is the one that counts.
            self.bar.suspend(|| drop(writeln!(io::stdout(), "{line}")));
        } else if self.report.findings.len() < limits::CONTROL_OBJECTS_MAX {
            self.report.findings.push(Finding { name, kind, expected, found, advice, repaired });
        }
    }

    fn conclude(self) -> Result<u8, CtlError> {
        let Self { screen, report, .. } = self;
        let json = serde_json::to_string(&report).map_err(io::Error::from)?;
        let has = |kind: Kind| report.counts.contains_key(&kind);
        let verdict = match () {
            () if has(Kind::Damaged) => exit::MISMATCH,
            () if has(Kind::Unreadable) => exit::FAILED,
            () if !report.counts.is_empty() || report.told_whole == Some(false) => exit::INCOMPLETE,
            () if report.without_root > 0 => exit::INCOMPLETE,
            () => exit::OK,
        };
        screen.conclude(&json, || summary(&report), verdict)
    }
}

fn summary(report: &Report) -> String {
    let Report { objects, bytes, seconds, without_root, counts, .. } = report;
    let directory = render::clean(&report.directory.display().to_string());
    let (objects, total) = (render::count(*objects), render::size(*bytes));
    let mut text = format!("{directory}: {objects}, {total} read in {seconds:.1} s and as they were committed");
    if *without_root > 0 {
        text += &format!("; {without_root} not verified: their markers have no BLAKE3 to hold them against");
    }
    if report.told_whole == Some(false) {
        text += "; the far trader has not told all that it has, and only what it has told was compared";
    }
    for (kind, count) in counts {
        text += &format!("; {count} {}", format!("{kind:?}").to_lowercase());
    }
    text + "\n"
}
