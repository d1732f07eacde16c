//! Measured rates, and what follows from them: how much to send at once, how far ahead to ask.
//!
//! A [`Meter`] is told of bytes as they pass and forgets idle time, so that its rate is what the link can do
//! and not how much it was asked to do.

use std::time::Duration;

use crate::limits;
use crate::units::{ByteCount, Rate, Time};

/// Shortest stretch of busy time that gives a reading.
const WINDOW: Duration = Duration::from_millis(200);
/// Weight of the newest reading.
const NEWEST: f64 = 0.3;

/// A rate over busy time, exponentially weighted over windows of 200 ms.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    since: Option<Time>,
    bytes: u64,
    rate: Rate,
}

impl Meter {
    /// `bytes` passed; the link has been busy since the call before, or since [`Meter::start`].
    pub fn add(&mut self, bytes: ByteCount, now: Time) {
        self.bytes += bytes.0;
        self.turn(now);
    }

    /// Work began; a no-op while busy.
    pub fn start(&mut self, now: Time) {
        self.since.get_or_insert(now);
    }

    /// Nothing more to do: the time until the next [`Meter::start`] does not count.
    pub fn stop(&mut self, now: Time) {
        self.turn(now);
        self.since = None;
        self.bytes = 0;
    }

    /// For so long there was nothing that could have passed: it does not count.
    pub fn skip(&mut self, idle: Duration) {
        self.since = self.since.map(|since| since + idle);
    }

    /// The rate as of `now`, falling while a busy link carries nothing. `None` before the first reading.
    pub fn rate(&self, now: Time) -> Option<Rate> {
        let Some(since) = self.since else { return (self.rate.0 > 0.0).then_some(self.rate) };
        let open = now.since(since);
        if self.rate.0 == 0.0 {
            return (open >= WINDOW).then(|| Rate(self.bytes as f64 / open.as_secs_f64()));
        }
        if open < 5 * WINDOW { Some(self.rate) } else { Some(Rate(self.bytes as f64 / open.as_secs_f64())) }
    }

    /// [`train_bytes`] at this rate. Before the first reading it is an eighth of what has passed: a fast link need not
    /// wait for one, and a slow link is not given more than it can carry.
    pub fn train_bytes(&self, now: Time) -> usize {
        let unmeasured = || (self.bytes as usize / 8).clamp(4 * limits::TRAIN_BYTES_MIN, limits::TRAIN_BYTES_MAX);
        self.rate(now).map_or_else(unmeasured, train_bytes)
    }

    fn turn(&mut self, now: Time) {
        let since = *self.since.get_or_insert(now);
        let open = now.since(since);
        if open < WINDOW {
            return;
        }
        let reading = self.bytes as f64 / open.as_secs_f64();
        self.rate = Rate(if self.rate.0 == 0.0 { reading } else { self.rate.0 + NEWEST * (reading - self.rate.0) });
        self.since = Some(now);
        self.bytes = 0;
    }
}

/// How many bytes to hand to a socket at once: what the link carries in [`limits::TRAIN_TIME`], so that a
/// request never waits long behind data.
pub fn train_bytes(rate: Rate) -> usize {
    (rate.bytes_in(limits::TRAIN_TIME).0 as usize).clamp(limits::TRAIN_BYTES_MIN, limits::TRAIN_BYTES_MAX)
}

/// How many bytes a link should have on order: what it carries in [`limits::REQUEST_AHEAD`], so that it never
/// runs dry between two objects.
pub fn ahead_bytes(rate: Option<Rate>) -> ByteCount {
    let ahead = rate.map_or(0, |rate| rate.bytes_in(limits::REQUEST_AHEAD).0);
    ByteCount(ahead.max(limits::REQUEST_AHEAD_BYTES_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(Duration::from_millis(ms))
    }

    #[test]
    fn idle_time_does_not_lower_the_rate() {
        let mut meter = Meter::default();
        meter.start(at(0));
        for ms in (100..=1000).step_by(100) {
            meter.add(ByteCount(150_000), at(ms));
        }
        meter.stop(at(1000));
        let busy = meter.rate(at(1000)).expect("measured").0;
        assert!((1.4e6..1.6e6).contains(&busy), "{busy}");
        assert_eq!(meter.rate(at(60_000)).expect("kept").0, busy);
    }

    #[test]
    fn a_busy_link_that_carries_nothing_slows_down() {
        let mut meter = Meter::default();
        meter.start(at(0));
        meter.add(ByteCount(300_000), at(200));
        let before = meter.rate(at(300)).expect("measured").0;
        assert!(meter.rate(at(5000)).expect("measured").0 < before / 10.0);
    }

    #[test]
    fn a_train_is_paced_within_its_bounds() {
        assert_eq!(train_bytes(Rate(1.5e6)), 30_000);
        assert_eq!(train_bytes(Rate(1.0)), limits::TRAIN_BYTES_MIN);
        assert_eq!(train_bytes(Rate(1e10)), limits::TRAIN_BYTES_MAX);
    }

    #[test]
    fn a_train_grows_with_what_has_passed_until_there_is_a_reading() {
        let mut meter = Meter::default();
        meter.start(at(0));
        let mut trains = Vec::new();
        for _ in 0..40 {
            trains.push(meter.train_bytes(at(10)));
            meter.add(ByteCount(trains[trains.len() - 1] as u64), at(10));
        }
        assert_eq!(trains[..8], [4 * limits::TRAIN_BYTES_MIN; 8]);
        assert!(trains.is_sorted() && trains[39] == limits::TRAIN_BYTES_MAX, "{trains:?}");
        // 700,000 bytes in 200 ms.
        meter = Meter::default();
        meter.start(at(0));
        meter.add(ByteCount(700_000), at(200));
        assert_eq!(meter.train_bytes(at(200)), 70_000);
    }
}
