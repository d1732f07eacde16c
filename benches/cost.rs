//! Instructions that the codec and the links take, counted by valgrind (callgrind) and held against
//! `benches/cost.baseline`. They do not drift as times do: with one toolchain the figures are the same on every
//! machine, for valgrind's processor is always the same one.
//!
//!     cargo bench --bench cost              # a table; fails where a figure is more than a tenth above the baseline
//!     cargo bench --bench cost -- --write   # makes what there is now the baseline
//!
//! Runs itself below valgrind, once a case, and counts only what goes through [`counted`]. Checksums have a row of
//! their own; messages of sessions, which are made and read with theirs, have so little data that it is all but
//! nothing.

#[path = "cost/cases.rs"]
mod cases;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, exit};

use cases::{CASES, Case, Done};

/// A figure that is so many times its baseline has grown.
const GROWN: f64 = 1.1;
/// ... and one of so many should have its baseline lowered.
const SHRUNK: f64 = 0.9;

/// What it is that callgrind counts.
#[inline(never)]
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> T {
    work()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == "--count") {
        let case = CASES.iter().find(|case| Some(case.name) == args.get(at + 1).map(String::as_str));
        let Done { units, bytes } = (case.expect("a case of ours").run)();
        println!("{units} {bytes}");
        return;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: no valgrind here");
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cost.baseline");
    let figures: Vec<Figure> = CASES.iter().map(Figure::of).collect();
    if args.iter().any(|arg| arg == "--write") {
        write_baseline(&path, &figures);
    }
    if !report(&figures, &read_baseline(&path)) {
        println!("if that is meant: cargo bench --bench cost -- --write, and commit {} with it", path.display());
        exit(1);
    }
}

/// What a case came to.
struct Figure {
    name: &'static str,
    unit: &'static str,
    /// Instructions a unit.
    each: f64,
    /// Instructions for 10⁶ bytes, where it is about bytes.
    per_megabyte: Option<f64>,
}

impl Figure {
    fn of(case: &Case) -> Self {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
        command.arg("--toggle-collect=*cost::counted*");
        let exe = std::env::current_exe().expect("it runs");
        let output = command.arg(exe).args(["--count", case.name]).output().expect("valgrind runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", case.name);
        let collected = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
        let collected: f64 = collected.and_then(|count| count.parse().ok()).expect("callgrind tells what it collected");
        assert!(collected > 0.0, "{}: valgrind has not met cost::counted", case.name);
        let done = String::from_utf8_lossy(&output.stdout);
        let (units, bytes) = done.trim().split_once(' ').expect("units and bytes");
        let of = |count: &str| count.parse::<f64>().expect("a count");
        let per_megabyte = (of(bytes) > 0.0).then(|| collected / of(bytes) * 1e6);
        Self { name: case.name, unit: case.unit, each: collected / of(units), per_megabyte }
    }
}

/// Prints all figures. Whether none has grown.
fn report(figures: &[Figure], baseline: &BTreeMap<String, f64>) -> bool {
    println!("{:<36} {:>12} {:>10}  {:>10} {:>10}", "", "instructions", "per MB", "baseline", "");
    let mut all_hold = true;
    for Figure { name, unit, each, per_megabyte } in figures {
        let (base, said, holds) = match baseline.get(*name) {
            None => (String::new(), "no baseline".to_owned(), false),
            Some(base) => {
                let by = each / base;
                let holds = by <= GROWN;
                let hint = match by {
                    _ if !holds => "  grown",
                    _ if by < SHRUNK => "  lower the baseline",
                    _ => "",
                };
                (format!("{base:.2}"), format!("{:+.1} %{hint}", (by - 1.0) * 100.0), holds)
            }
        };
        all_hold &= holds;
        let per_megabyte = per_megabyte.map_or(String::new(), |count| format!("{count:.0}"));
        println!("{:<36} {each:>12.2} {per_megabyte:>10}  {base:>10} {said}", format!("{name}, a {unit}"));
    }
    all_hold
}

/// A name and a figure a line; lines that begin with # are for people.
fn read_baseline(path: &Path) -> BTreeMap<String, f64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, figure) = line.rsplit_once(' ').expect("a name and a figure");
        (name.trim().to_owned(), figure.parse().expect("a figure"))
    };
    lines.map(pair).collect()
}

fn write_baseline(path: &Path, figures: &[Figure]) {
    let mut text = "# Instructions a packet, message or block: cargo bench --bench cost -- --write\n".to_owned();
    for Figure { name, each, .. } in figures {
        writeln!(text, "{name:<32} {each:.2}").expect("a string takes it");
    }
    fs::write(path, text).expect("the baseline can be written");
}
