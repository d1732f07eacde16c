//! The demo from its start to its end.

use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::interrupt::Interrupt;
use super::options::Options;
use super::plan::Plan;
use super::progress::{POLL_EVERY, Phase, Progress, Row, both};
use super::site::{Moved, Site, TRADERS};
use super::store::{self, Identical};
use super::{DemoError, plural, rate, size};
use crate::control::Status;
use crate::limits;

/// The exchange that is killed.
const VICTIM: usize = 0;
/// Asking every node about every link costs something, and so does drawing.
const SHOW_EVERY: Duration = Duration::from_millis(200);
/// Rates are taken over at least this long.
const RATE_OVER: Duration = Duration::from_secs(1);

pub(super) fn run(options: &Options) -> Result<(), DemoError> {
    let plan = Plan::new(options)?;
    let interrupt = Interrupt::listen()?;
    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    // A config's paths are absolute.
    let parent = std::path::absolute(&parent).map_err(DemoError::io("find", &parent))?;
    plan.check_space(&parent)?;
    let made =
        TempDir::with_prefix_in("supersync-demo-", &parent).map_err(DemoError::io("make a directory in", &parent))?;
    let kept = options.keep.then(|| made.path().to_owned());
    let shown = show(&plan, made.path(), &interrupt, kept.as_deref());
    if let Some(kept) = kept {
        let _ = made.keep();
        if shown.is_err() {
            print(&format!("kept: {}\n", kept.display()));
        }
    } else {
        let path = made.path().to_owned();
        made.close().map_err(DemoError::io("remove", &path))?;
    }
    shown
}

fn show(plan: &Plan, dir: &Path, interrupt: &Interrupt, kept: Option<&Path>) -> Result<(), DemoError> {
    let progress = Progress::new();
    let home = |index: usize, part: &str| dir.join(TRADERS[index]).join(part);
    let (segments, segment) = (plural(plan.segments as usize, "segment"), size(plan.segment_bytes()));
    progress.say(&format!("making {segments} of {segment} for each of two traders in {}", dir.display()));
    Site::lay_out(plan, dir)?;
    let mut phase = progress.phase("making", plan.data_bytes());
    both(&mut phase, TRADERS, |index, done| store::make(plan, index as u64, &home(index, "local"), done, interrupt))?;
    drop(phase);

    let mut site = Site::start(plan, dir)?;
    progress.say(&started(plan, &site.socket()));
    let moving = Moving::new(plan, interrupt, progress.phase("moving", plan.data_bytes()));
    let journey = moving.run(&mut site, &progress)?;
    let (traders, exchanges) = site.moved();
    progress.say("both traders have everything; ending the nodes, then comparing both sides");
    site.drain();

    let mut phase = progress.phase("comparing", plan.data_bytes());
    let identical = both(&mut phase, TRADERS, |index, done| {
        store::compare(plan, &home(index, "remote"), &home(1 - index, "local"), done, interrupt)
    })?;
    drop(phase);
    let expected = Identical { segments: plan.segments.into(), bytes: plan.data_bytes() };
    if identical != [expected; 2] {
        return Err(DemoError::Different { what: format!("{identical:?} were compared instead of {expected:?}") });
    }
    print(&report(plan, &journey, traders, exchanges, kept));
    Ok(())
}

fn started(plan: &Plan, socket: &Path) -> String {
    let links = plural(plan.links.into(), "link");
    let rate = plan.link_rate.map(|limit| format!(" at {} each way", rate(limit.0))).unwrap_or_default();
    format!(
        "2 traders and {} are up, {links}{rate} between each two; to look inside:\n          \
         supersyncctl --socket {} status --watch",
        plural(plan.exchanges.into(), "exchange"),
        socket.display()
    )
}

/// How the bytes moved.
#[derive(Debug, Default)]
struct Journey {
    took: Duration,
    /// How far the first trader was when an exchange was killed, percent.
    killed_at: Option<u64>,
    /// For how long the exchange was gone.
    gone: Duration,
}

/// The time from the start of the site until both traders have everything.
struct Moving<'a> {
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    phase: Phase<'a>,
    started: Instant,
    /// What both traders had together, and when that last grew.
    arrived: (u64, Instant),
    /// What each trader had when its rate was taken last.
    sampled: ([u64; 2], Instant),
    rates: [f64; 2],
    journey: Journey,
    down_since: Option<Instant>,
    synced_after: Option<Duration>,
    shown: Option<Instant>,
}

impl<'a> Moving<'a> {
    fn new(plan: &'a Plan, interrupt: &'a Interrupt, phase: Phase<'a>) -> Self {
        let now = Instant::now();
        Self {
            plan,
            interrupt,
            phase,
            started: now,
            arrived: (0, now),
            sampled: ([0; 2], now),
            rates: [0.0; 2],
            journey: Journey::default(),
            down_since: None,
            synced_after: None,
            shown: None,
        }
    }

    fn run(mut self, site: &mut Site, progress: &Progress) -> Result<Journey, DemoError> {
        loop {
            let traders = site.traders();
            let arrived = traders.each_ref().map(arrived);
            if self.synced_after.is_none() && traders.iter().all(|trader| self.has_everything(trader)) {
                self.synced_after = Some(self.started.elapsed());
            }
            // Not before the exchange that was killed is back: that it comes back is shown too.
            if let (Some(took), None) = (self.synced_after, self.down_since) {
                return Ok(Journey { took, ..self.journey });
            }
            self.interrupt.check()?;
            self.chaos(arrived[0], site, progress)?;
            self.check_stall(arrived, site)?;
            self.sample(arrived);
            if self.shown.is_none_or(|shown| shown.elapsed() >= SHOW_EVERY) {
                self.shown = Some(Instant::now());
                let row =
                    |index: usize| Row { name: TRADERS[index], done: arrived[index], note: rate(self.rates[index]) };
                self.phase.show(&[row(0), row(1)], &site.links_now());
            }
            thread::sleep(POLL_EVERY);
        }
    }

    fn has_everything(&self, trader: &Status) -> bool {
        trader.is_synced() && trader.have.objects >= u64::from(self.plan.segments)
    }

    /// Kills an exchange when half of the first trader's bytes are here, and brings it back.
    fn chaos(&mut self, arrived: u64, site: &mut Site, progress: &Progress) -> Result<(), DemoError> {
        match self.down_since {
            Some(since) if since.elapsed() >= limits::DEMO_REVIVE_AFTER => {
                let name = site.revive_exchange(VICTIM)?;
                self.journey.gone = since.elapsed();
                progress.say(&format!("{name} is back after {:.1} s", self.journey.gone.as_secs_f64()));
                self.down_since = None;
            }
            None if self.plan.chaos && self.journey.killed_at.is_none() && arrived >= self.plan.data_bytes() / 2 => {
                let percent = arrived * 100 / self.plan.data_bytes();
                progress.say(&format!("{} is killed, with {percent} % at {}", site.kill_exchange(VICTIM), TRADERS[0]));
                self.journey.killed_at = Some(percent);
                self.down_since = Some(Instant::now());
            }
            _ => {}
        }
        Ok(())
    }

    fn check_stall(&mut self, arrived: [u64; 2], site: &Site) -> Result<(), DemoError> {
        let sum = arrived.iter().sum();
        if sum != self.arrived.0 {
            self.arrived = (sum, Instant::now());
        }
        let waited = self.arrived.1.elapsed();
        if self.synced_after.is_some() || waited < limits::DEMO_STALL_MAX {
            return Ok(());
        }
        let left = size((2 * self.plan.data_bytes()).saturating_sub(sum));
        Err(DemoError::Stalled { waited, left, problems: site.problems() })
    }

    fn sample(&mut self, arrived: [u64; 2]) {
        let (before, at) = self.sampled;
        let seconds = at.elapsed().as_secs_f64();
        if seconds >= RATE_OVER.as_secs_f64() {
            let more = |index: usize| arrived[index].saturating_sub(before[index]) as f64 / seconds;
            self.rates = [more(0), more(1)];
            self.sampled = (arrived, Instant::now());
        }
    }
}

/// Bytes that a trader has, whole objects or not.
fn arrived(trader: &Status) -> u64 {
    let kept = trader.payload_received.saturating_sub(trader.payload_discarded);
    kept.max(trader.have.bytes).min(trader.want.bytes)
}

/// What was done, for people; the first word of the first line that says so is `identical`.
fn report(plan: &Plan, journey: &Journey, traders: [Moved; 2], exchanges: Moved, kept: Option<&Path>) -> String {
    let data = plan.data_bytes();
    let seconds = journey.took.as_secs_f64();
    // As the traders count it: they were up all the time.
    let into_traders: u64 = traders.iter().map(|trader| trader.received.saturating_sub(data)).sum();
    let into_exchanges: u64 = traders.iter().map(|trader| trader.sent.saturating_sub(data)).sum();
    let twice = into_traders + into_exchanges;
    let discarded = traders.iter().map(|trader| trader.discarded).sum::<u64>() + exchanges.discarded;
    let chaos = match (journey.killed_at, plan.chaos) {
        (Some(percent), _) => {
            format!("killed      exchange1 at {percent} %, back after {:.1} s", journey.gone.as_secs_f64())
        }
        (None, true) => {
            "killed      nothing: it was over before half of it was seen to be; try more with --size".to_owned()
        }
        (None, false) => "killed      nothing, as asked for".to_owned(),
    };
    let place = kept.map(|kept| format!("kept        {}\n", kept.display())).unwrap_or_default();
    let next = match plan.link_rate {
        None => "supersyncd demo --size 100MB --link-rate 1.5MB    # the same over slow links",
        Some(_) => "supersyncd init trader -o trader1.toml    # a site of your own",
    };
    format!(
        "identical   both sides, byte for byte: {} each, with a .success beside each file\n\
         moved       {} each way at the same time, in {seconds:.1} s: {} each way\n\
         {chaos}\n\
         sent twice  {} ({:.1} %): {} to the traders, {} to the exchanges; {} thrown away on arrival\n\
         {place}next        {next}\n",
        plural(plan.segments as usize, "segment"),
        size(data),
        rate(data as f64 / seconds.max(f64::MIN_POSITIVE)),
        size(twice),
        // Each byte goes once to an exchange and once to a trader.
        twice as f64 * 100.0 / (4 * data) as f64,
        size(into_traders),
        size(into_exchanges),
        size(discarded),
    )
}

/// To standard output; a reader that has gone is no reason to fail.
fn print(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}
