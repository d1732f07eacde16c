//! Which changes of a link are logged: each of a link that changes now and then, a count of one that flaps.
//!
//! The first changes of a place are told as they happen, as many as an outage takes. From then on they are counted, and
//! told in one line at intervals that double, until the place has been at rest for such an interval. A failure that is
//! the same as the one before is no change: it is told once, then counted.
//!
//! [`Flaps::handle`] for each change, [`Flaps::poll`] from time to time; both return what is to be logged. A link whose
//! ends do not fit together is a problem as well, once it has failed again: [`Flaps::misfits`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits;

/// Where a link is: the peer, as far as it is known, its address, and which of the peer's links it is.
pub(super) type Place = (String, String, Option<u32>);

/// What changed at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A link is up, or down for this reason; the text tells.
    Link(String),
    /// It is down, and will be each time that it is made, until a person corrects a config; the text tells.
    Misfit(String),
    /// It cannot be made, for this reason.
    Failure(String),
    /// Whoever tries may not, for this reason.
    Refusal(String),
}

impl Change {
    /// What the log says.
    pub(super) fn text(&self) -> &str {
        let (Self::Link(text) | Self::Misfit(text) | Self::Failure(text) | Self::Refusal(text)) = self;
        text
    }
}

/// What is to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) change: Change,
    /// Changes since the line before that were not told, and in which time.
    pub(super) untold: Option<(u64, Duration)>,
}

/// Writes a line to the log.
pub(super) fn log(Line { place: (peer, address, link), change, untold }: Line) {
    let peer = (!peer.is_empty()).then_some(peer);
    let (text, more) = (change.text(), Untold(untold));
    match change {
        Change::Link(_) | Change::Failure(_) => tracing::info!(link, peer, address, "{text}{more}"),
        Change::Misfit(_) => tracing::warn!(link, peer, address, "{text}{more}"),
        Change::Refusal(_) => tracing::warn!(address, "{text}{more}"),
    }
}

struct Untold(Option<(u64, Duration)>);

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some((changes, time)) => {
                write!(f, " (and {changes} changes and tries more in the last {} s)", time.as_secs())
            }
        }
    }
}

/// All places that changed lately.
#[derive(Debug, Default)]
pub(super) struct Flaps(BTreeMap<Place, Recent>);

#[derive(Debug)]
struct Recent {
    change: Change,
    at: Instant,
    /// Lines that may be told at once.
    left: u32,
    untold: u64,
    told_at: Instant,
    interval: Duration,
    /// How it failed last because both ends do not fit together, how often lately, and when.
    misfit: Option<(String, u32, Instant)>,
}

impl Flaps {
    /// Something changed at `place`.
    pub(super) fn handle(&mut self, now: Instant, place: Place, change: Change) -> Option<Line> {
        if self.0.len() >= limits::LINKS_MAX && !self.0.contains_key(&place) {
            let oldest = self.0.iter().min_by_key(|(_, recent)| recent.at).map(|(place, _)| place.clone());
            oldest.and_then(|place| self.0.remove(&place));
        }
        let recent = self.0.entry(place.clone()).or_insert_with(|| Recent {
            change: Change::Link(String::new()),
            at: now,
            left: limits::LINK_LINES_AT_ONCE,
            untold: 0,
            told_at: now,
            interval: limits::LINK_LINES_EVERY_MIN,
            misfit: None,
        });
        if let Change::Misfit(text) = &change {
            let before = recent.misfit(now).map_or(0, |(_, times, _)| *times);
            recent.misfit = Some((text.clone(), before.saturating_add(1), now));
        }
        let is_new = matches!(change, Change::Link(_)) || recent.change != change;
        (recent.change, recent.at) = (change.clone(), now);
        if !is_new || recent.left == 0 {
            recent.untold += 1;
            return None;
        }
        recent.left -= 1;
        Some(recent.tell(now, place))
    }

    /// Links that failed more than once, and lately, because both ends do not fit together: where, and how.
    pub(super) fn misfits(&self, now: Instant) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(move |((_, address, _), recent)| {
            let (text, ..) = recent.misfit(now).filter(|(_, times, _)| *times > 1)?;
            Some(format!("{address}: {text}"))
        })
    }

    /// A config is changed: what did not fit may.
    pub(super) fn forget_misfits(&mut self) {
        self.0.values_mut().for_each(|recent| recent.misfit = None);
    }

    /// What was counted and is due.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Line> {
        self.0.retain(|_, recent| recent.untold > 0 || now < recent.at + recent.interval);
        let due = self.0.iter_mut().filter(|(_, recent)| recent.untold > 0 && now >= recent.told_at + recent.interval);
        due.map(|(place, recent)| {
            let line = recent.tell(now, place.clone());
            recent.interval = (2 * recent.interval).min(limits::LINK_LINES_EVERY_MAX);
            line
        })
        .collect()
    }
}

impl Recent {
    /// How it failed lately because both ends do not fit together.
    fn misfit(&self, now: Instant) -> Option<&(String, u32, Instant)> {
        self.misfit.as_ref().filter(|(_, _, at)| now < *at + limits::MISFIT_SHOWN_FOR)
    }

    fn tell(&mut self, now: Instant, place: Place) -> Line {
        let untold = (self.untold > 0).then(|| (self.untold, now - self.told_at));
        (self.untold, self.told_at) = (0, now);
        Line { place, change: self.change.clone(), untold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(link: u32) -> Place {
        ("trader1".into(), "10.1.1.5".into(), Some(link))
    }

    fn link(text: &str) -> Change {
        Change::Link(text.into())
    }

    #[test]
    fn a_restart_of_the_peer_is_told_as_it_happens() {
        let (mut flaps, now) = (Flaps::default(), Instant::now());
        for change in [link("up"), link("down"), Change::Failure("refused".into()), link("up")] {
            let line = flaps.handle(now, place(1), change.clone()).expect("told");
            assert_eq!((line.change, line.untold), (change, None));
        }
        assert_eq!(flaps.poll(now + limits::LINK_LINES_EVERY_MAX), []);
    }

    #[test]
    fn a_link_that_flaps_every_second_for_a_day_has_few_lines_and_all_changes_are_in_them() {
        let (mut flaps, start) = (Flaps::default(), Instant::now());
        let (mut lines, mut told) = (Vec::new(), 0);
        let changes = 24 * 3600;
        for second in 0..changes {
            let now = start + Duration::from_secs(second);
            let change = link(if second % 2 == 0 { "up" } else { "down" });
            for line in flaps.handle(now, place(1), change).into_iter().chain(flaps.poll(now)) {
                told += line.untold.map_or(1, |(untold, _)| untold);
                lines.push(line);
            }
        }
        let in_first_minute = limits::LINK_LINES_AT_ONCE as usize + 1;
        assert!(lines.len() < in_first_minute + 6 + 24, "{} lines", lines.len());
        let late = start + Duration::from_secs(changes) + limits::LINK_LINES_EVERY_MAX;
        told += flaps.poll(late).iter().filter_map(|line| line.untold).map(|(untold, _)| untold).sum::<u64>();
        assert_eq!(told, changes);
        assert_eq!(flaps.poll(late + limits::LINK_LINES_EVERY_MAX), []);
        assert!(flaps.handle(late + limits::LINK_LINES_EVERY_MAX, place(1), link("up")).is_some(), "it was at rest");
    }

    #[test]
    fn the_same_failure_is_told_once_and_then_counted() {
        let (mut flaps, start) = (Flaps::default(), Instant::now());
        let refused = || Change::Failure("connection refused".into());
        assert!(flaps.handle(start, place(1), refused()).is_some());
        assert!(flaps.handle(start, place(2), refused()).is_some(), "another link");
        for _ in 0..8 {
            assert_eq!(flaps.handle(start, place(1), refused()), None);
        }
        assert!(flaps.handle(start, place(1), Change::Failure("no answer".into())).is_some(), "another failure");
        assert_eq!(flaps.handle(start, place(1), Change::Failure("no answer".into())), None);
        let lines = flaps.poll(start + limits::LINK_LINES_EVERY_MIN);
        let untold = Some((1, limits::LINK_LINES_EVERY_MIN));
        assert_eq!(lines, [Line { place: place(1), change: Change::Failure("no answer".into()), untold }]);
    }

    #[test]
    fn what_fails_again_for_what_a_person_must_correct_is_a_problem_until_it_stops() {
        let (mut flaps, start) = (Flaps::default(), Instant::now());
        let misfit = || Change::Misfit("link down: the node there is t1".into());
        let problems = |flaps: &Flaps, now| flaps.misfits(now).collect::<Vec<_>>();
        flaps.handle(start, place(1), misfit());
        assert!(problems(&flaps, start).is_empty(), "once may be chance");
        flaps.handle(start, place(1), link("link up"));
        flaps.handle(start, place(1), misfit());
        assert_eq!(problems(&flaps, start), ["10.1.1.5: link down: the node there is t1"]);
        let later = start + limits::MISFIT_SHOWN_FOR;
        assert!(problems(&flaps, later).is_empty());
        flaps.handle(later, place(1), misfit());
        assert!(problems(&flaps, later).is_empty(), "once again");
        flaps.handle(later, place(1), misfit());
        assert_eq!(problems(&flaps, later).len(), 1);
        flaps.forget_misfits();
        assert!(problems(&flaps, later).is_empty());
    }

    #[test]
    fn the_places_that_are_remembered_are_bounded() {
        let (mut flaps, now) = (Flaps::default(), Instant::now());
        for at in 0..2 * limits::LINKS_MAX as u32 {
            flaps.handle(now, place(at), Change::Refusal("not allowed".into()));
        }
        assert_eq!(flaps.0.len(), limits::LINKS_MAX);
    }
}
