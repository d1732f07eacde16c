//! What a person sees meanwhile, on standard error: bars on a terminal, else a line now and then.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::DemoError;

/// Something new is looked for this often.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(10);
/// Off a terminal a line is written this often.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// Bars are drawn at most this often a second.
const DRAWS_PER_SECOND: u8 = 8;

/// How far one trader is.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Bytes.
    pub(super) done: u64,
    /// What else there is to say, as a rate.
    pub(super) note: String,
}

/// Bars or lines.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    bars: Option<MultiProgress>,
}

/// What is going on in one phase of the demo. Dropping it takes its bars away.
#[derive(Debug)]
pub(super) struct Phase<'a> {
    progress: &'a Progress,
    what: &'static str,
    total: u64,
    rows: Vec<ProgressBar>,
    notes: Vec<ProgressBar>,
    last_line: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let target = || ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bars = io::stderr().is_terminal().then(|| MultiProgress::with_draw_target(target()));
        Self { started: Instant::now(), bars: bars.filter(|bars| !bars.is_hidden()) }
    }

    /// Something happened. Above the bars where there are some.
    pub(super) fn say(&self, text: &str) {
        let line = format!("{:6.1} s  {text}", self.started.elapsed().as_secs_f64());
        // A terminal that is gone is no reason to stop.
        let _ = match &self.bars {
            Some(bars) => bars.println(line),
            None => writeln!(io::stderr(), "{line}"),
        };
    }

    /// Begins to show `what`, of `total` bytes each.
    pub(super) fn phase(&self, what: &'static str, total: u64) -> Phase<'_> {
        Phase { progress: self, what, total, rows: Vec::new(), notes: Vec::new(), last_line: None }
    }
}

impl Phase<'_> {
    /// Shows how far it is: a bar a row, and the notes below.
    pub(super) fn show(&mut self, rows: &[Row], notes: &[String]) {
        let Some(bars) = &self.progress.bars else { return self.line(rows, notes) };
        while self.rows.len() < rows.len() {
            let bar =
                ProgressBar::new(self.total).with_style(style("{prefix:<10} {wide_bar} {percent:>3} % {msg:>14}"));
            self.rows.push(bars.insert(self.rows.len(), bar));
        }
        while self.notes.len() < notes.len() {
            self.notes.push(bars.add(ProgressBar::no_length().with_style(style("{wide_msg}"))));
        }
        for (bar, row) in self.rows.iter().zip(rows) {
            bar.set_prefix(row.name);
            bar.set_message(row.note.clone());
            bar.set_position(row.done);
        }
        for (bar, note) in self.notes.iter().zip(notes) {
            bar.set_message(note.clone());
        }
    }

    fn line(&mut self, rows: &[Row], notes: &[String]) {
        if self.last_line.is_some_and(|last| last.elapsed() < LINE_EVERY) {
            return;
        }
        self.last_line = Some(Instant::now());
        let percent = |done: u64| u128::from(done) * 100 / u128::from(self.total.max(1));
        let rows = rows.iter().map(|row| format!("{} {} % {}", row.name, percent(row.done), row.note));
        let rows: Vec<String> = rows.map(|row| row.trim_end().to_owned()).collect();
        self.progress.say(&format!("{}: {}", self.what, rows.join(", ")));
        notes.iter().for_each(|note| self.progress.say(&format!("  {note}")));
    }
}

impl Drop for Phase<'_> {
    fn drop(&mut self) {
        self.rows.iter().chain(&self.notes).for_each(ProgressBar::finish_and_clear);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is right").progress_chars("=> ")
}

/// Does `work` for both traders at once, each on its own thread and counting its bytes, and shows how far they are.
/// Where one fails the other goes on to its own end: both see an interrupt.
pub(super) fn both<T: Send>(
    phase: &mut Phase<'_>,
    names: [&'static str; 2],
    work: impl Fn(usize, &AtomicU64) -> Result<T, DemoError> + Sync,
) -> Result<[T; 2], DemoError> {
    let done = [AtomicU64::new(0), AtomicU64::new(0)];
    let failed = || DemoError::system("start a thread");
    let [first, second] = thread::scope(|scope| {
        let spawn = |index: usize| {
            let (work, done) = (&work, &done[index]);
            thread::Builder::new().spawn_scoped(scope, move || work(index, done)).map_err(failed())
        };
        let threads = [spawn(0)?, spawn(1)?];
        while !threads.iter().all(|thread| thread.is_finished()) {
            let row = |index: usize| Row {
                name: names[index],
                done: done[index].load(Ordering::Relaxed),
                note: String::new(),
            };
            phase.show(&[row(0), row(1)], &[]);
            thread::sleep(POLL_EVERY);
        }
        Ok::<_, DemoError>(threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
    })?;
    Ok([first?, second?])
}
