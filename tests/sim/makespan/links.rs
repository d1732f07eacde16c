//! What links are made of, and what they could have carried at best.

use std::time::Duration;

use rand::{Rng, RngExt};
use supersync::units::Time;

/// The rate of a link in the lab, less what headers take, bytes/s.
pub(super) const LINK_RATE: f64 = 1_400_000.0;

/// A stretch of time in which a link carries another part of its rate, or is not there at all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble {
    pub(super) from: Time,
    pub(super) until: Time,
    /// What it carries of its rate; 0 is a stall.
    pub(super) part: f64,
    /// The connection is gone, with all that is under way on it, and comes back in the end.
    pub(super) dead: bool,
}

/// A link as it will turn out to be.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Bytes/s.
    pub(super) rate: f64,
    /// From an order to when the other end can act on it: behind data of the other direction.
    pub(super) order_delay: Duration,
    /// From what the other end has put to its socket to when it is here, beside the time its bytes take.
    pub(super) data_delay: Duration,
    /// One after the other.
    pub(super) troubles: Vec<Trouble>,
    /// How likely a range is damaged.
    pub(super) damage: f64,
}

impl Plan {
    /// A link of the lab.
    pub(super) fn healthy() -> Self {
        let delay = Duration::from_millis(5);
        Self { rate: LINK_RATE, order_delay: delay, data_delay: delay, troubles: Vec::new(), damage: 0.0 }
    }

    /// The same, with these delays.
    pub(super) fn delayed(order_delay_ms: u64, data_delay_ms: u64) -> Self {
        let (order_delay, data_delay) = (Duration::from_millis(order_delay_ms), Duration::from_millis(data_delay_ms));
        Self { order_delay, data_delay, ..Self::healthy() }
    }

    /// A link of a site where an order takes about `latency` seconds.
    pub(super) fn random(rng: &mut impl Rng, latency: f64) -> Self {
        let mut delay = || Duration::from_secs_f64(latency / 2.0 * rng.random_range(0.5..1.5));
        let (order_delay, data_delay) = (delay(), delay());
        let rate = LINK_RATE * rng.random_range(0.05..1.5);
        let damage = if rng.random_bool(0.1) { rng.random_range(0.0..0.1) } else { 0.0 };
        let mut troubles = Vec::new();
        let mut from = rng.random_range(0.0..20.0);
        while rng.random_bool(0.5) && from < 60.0 {
            let until = from + rng.random_range(0.1..4.0);
            let dead = rng.random_bool(0.5);
            let part = if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..1.0) };
            troubles.push(Trouble { from: at(from), until: at(until), part, dead });
            from = until + rng.random_range(0.1..10.0);
        }
        Self { rate, order_delay, data_delay, troubles, damage }
    }

    /// What it carries at a time, bytes/s.
    pub(super) fn rate(&self, now: Time) -> f64 {
        let trouble = self.troubles.iter().find(|trouble| trouble.from <= now && now < trouble.until);
        self.rate * trouble.map_or(1.0, |trouble| if trouble.dead { 0.0 } else { trouble.part })
    }

    /// When it will have carried so many bytes from `now` on, if it lives.
    pub(super) fn ends(&self, now: Time, bytes: u64) -> Option<Time> {
        let (mut at, mut left) = (now, bytes as f64);
        loop {
            let rate = self.rate(at);
            let edges = self.troubles.iter().flat_map(|trouble| [trouble.from, trouble.until]);
            let next = edges.filter(|&edge| edge > at).min();
            let until = if rate > 0.0 { at + Duration::from_secs_f64(left / rate) } else { FAR };
            match next {
                Some(next) if next < until => {
                    left -= rate * next.since(at).as_secs_f64();
                    at = next;
                }
                _ => return (until < FAR).then_some(until),
            }
        }
    }

    /// What may come in over it at a time, bytes/s: what left then was ordered when its connection stood, and is not
    /// lost.
    fn brings(&self, now: Time) -> f64 {
        let latency = self.order_delay + self.data_delay;
        let Some(ordered) = now.0.checked_sub(latency).map(Time) else { return 0.0 };
        let is_cut = |trouble: &Trouble| trouble.dead && trouble.from <= now && ordered < trouble.until;
        if self.troubles.iter().any(is_cut) { 0.0 } else { self.rate(ordered + self.order_delay) }
    }
}

/// Never.
const FAR: Time = Time(Duration::from_secs(1 << 30));

/// A time.
pub(super) fn at(seconds: f64) -> Time {
    Time(Duration::from_secs_f64(seconds))
}

/// The links of one relay, or of one peer that has everything where there are none `up`.
pub(super) struct Path<'a> {
    pub(super) up: Vec<&'a Plan>,
    pub(super) down: Vec<&'a Plan>,
}

impl Path<'_> {
    /// What comes to its relay soon enough to be here now, bytes/s: nobody fetches before it is asked.
    fn feeds(&self, now: Time) -> f64 {
        let order_delay = self.down.iter().map(|plan| plan.order_delay).min().unwrap_or_default();
        let data_delay = self.down.iter().map(|plan| plan.data_delay).min().unwrap_or_default();
        let Some(at) = now.0.checked_sub(data_delay).map(Time) else { return 0.0 };
        let is_asked = |plan: &&&Plan| at.0 >= order_delay + plan.order_delay + plan.data_delay;
        self.up.iter().filter(is_asked).map(|plan| plan.brings(at)).sum()
    }
}

/// When `bytes` could have been here at best: a link brings what it carries from an order's way after it stands until
/// it dies, and what comes to a relay goes on at once.
pub(super) fn ideal(paths: &[Path<'_>], bytes: u64) -> Time {
    const STEP: Duration = Duration::from_millis(10);
    let bring = |links: &[&Plan], now| links.iter().map(|plan| plan.brings(now) * STEP.as_secs_f64()).sum::<f64>();
    let mut held = vec![0.0; paths.len()];
    let (mut now, mut brought) = (Time::ZERO, 0.0);
    while brought < bytes as f64 {
        for (path, held) in paths.iter().zip(&mut held) {
            let mut out = bring(&path.down, now);
            if !path.up.is_empty() {
                *held += path.feeds(now) * STEP.as_secs_f64();
                out = out.min(*held);
                *held -= out;
            }
            brought += out;
        }
        now = now + STEP;
        assert!(now < FAR, "the links never carry it");
    }
    now
}
