//! A link that carries ranges: what it has on order, what it can do, and whether it can be trusted.

use std::collections::VecDeque;
use std::time::Duration;

use super::blocks::RangeRequest;
use super::orders::{Order, Orders};
use super::pace::Meter;
use crate::limits;
use crate::units::{ByteCount, NodeName, ObjectId, Rate, Time};

/// What an operator may want to know of a link.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Health {
    /// What it brings in.
    pub rate: Option<Rate>,
    /// Ranges on order; whole objects where it carries no ranges.
    pub orders: usize,
    /// What the oldest of them is of.
    pub object: Option<ObjectId>,
    /// How long nothing of them has come.
    pub silent: Duration,
    /// The peer's last answer was that it has not what it is asked for.
    pub pending: bool,
    /// Bytes on order that have not come in.
    pub owed: ByteCount,
    /// Bytes that came in over it first, and right.
    pub verified: ByteCount,
    /// Of these, bytes that another link had on order before.
    pub stolen: ByteCount,
    /// Bytes that came in though they were here, or no longer wanted.
    pub duplicated: ByteCount,
    /// Ranges that were damaged on it, and blocks that were made up of wrong ranges.
    pub bad_ranges: u64,
    /// It is put aside until then, for the damage it does.
    pub aside_until: Option<Time>,
}

#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) peer: NodeName,
    pub(super) meter: Meter,
    pub(super) orders: Orders,
    /// What the peer should be told to be wanted no more.
    pub(super) cancels: VecDeque<RangeRequest>,
    pub(super) totals: Health,
    /// When the first order of all was made.
    begun: Option<Time>,
    /// When data came last, or the first order was made.
    active: Time,
    /// From an order to its first data, as short as it ever was.
    latency: Option<Duration>,
    shy_until: Time,
    shy_delay: Duration,
    /// The last ranges, a bit each, set where it was damaged.
    history: u32,
    aside_until: Option<Time>,
    /// It was put aside, and is tried with one range at a time.
    probing: bool,
}

impl Carrier {
    pub(super) fn new(peer: NodeName, now: Time) -> Self {
        Self {
            peer,
            meter: Meter::default(),
            orders: Orders::default(),
            cancels: VecDeque::new(),
            totals: Health::default(),
            begun: None,
            active: now,
            latency: None,
            shy_until: Time::ZERO,
            shy_delay: Duration::ZERO,
            history: 0,
            aside_until: None,
            probing: false,
        }
    }

    pub(super) fn health(&self, now: Time) -> Health {
        Health {
            rate: self.meter.rate(now),
            orders: self.orders.len(),
            object: self.orders.front().map(|order| order.request.object),
            silent: self.silent(now),
            pending: self.shy_delay > Duration::ZERO,
            owed: ByteCount(self.owed()),
            aside_until: self.aside_until.filter(|&until| until > now),
            ..self.totals
        }
    }

    /// How long nothing of what is on order has come.
    fn silent(&self, now: Time) -> Duration {
        if self.orders.is_empty() { Duration::ZERO } else { now.since(self.active) }
    }

    /// Bytes on order that have not come in.
    pub(super) fn owed(&self) -> u64 {
        self.orders.owed()
    }

    /// The length of the ranges that it should order: what it carries in [`limits::RANGE_TIME`], a power of two.
    pub(super) fn unit(&self, now: Time) -> u64 {
        let Some(rate) = self.meter.rate(now) else { return limits::RANGE_BYTES_FIRST };
        let bytes = rate.bytes_in(limits::RANGE_TIME).0.clamp(limits::RANGE_BYTES_MIN, limits::BLOCK_BYTES);
        1 << bytes.ilog2()
    }

    /// Whether it has less on order than it should.
    pub(super) fn has_room(&self, now: Time) -> bool {
        if self.shy_until > now || self.orders.len() >= limits::RANGES_ORDERED_MAX {
            return false;
        }
        if self.probing && !self.orders.is_empty() {
            return false;
        }
        self.orders.len() < 2 || self.owed() < self.ahead(now)
    }

    /// How much it should have on order. One that is not measured begins with little, so that all links begin with what
    /// comes first, and has more as time passes and as data comes.
    fn ahead(&self, now: Time) -> u64 {
        let Some(rate) = self.meter.rate(now) else {
            let steps =
                self.begun.map_or(0, |begun| now.since(begun).as_millis() / limits::RAMP_STEP.as_millis()) as u64;
            let ahead = limits::RANGE_BYTES_FIRST.saturating_mul(steps + 2) + self.totals.verified.0;
            return ahead.min(limits::RANGES_AHEAD_BYTES_MIN);
        };
        let ahead = rate.bytes_in(limits::RANGES_AHEAD).0.max(limits::RANGES_AHEAD_BYTES_MIN);
        // A fast link waits for nothing longer than its orders take; a relay would have to keep what is ordered beyond
        // that.
        let near = rate.bytes_in(4 * self.latency.unwrap_or(limits::RANGES_AHEAD) + 2 * limits::RANGE_TIME).0;
        ahead.min(near.max(limits::RANGES_AHEAD_BYTES_MUCH))
    }

    /// When it will have room though nothing comes.
    pub(super) fn ramp_at(&self, now: Time) -> Option<Time> {
        let is_ramping = self.meter.rate(now).is_none() && self.ahead(now) < limits::RANGES_AHEAD_BYTES_MIN;
        is_ramping.then(|| now + limits::RAMP_STEP)
    }

    /// Whether it orders as soon as it has room.
    pub(super) fn may_order(&self, now: Time) -> bool {
        self.shy_until <= now && self.aside_until(now).is_none() && !self.probing
    }

    /// When it may order again, where it may not now.
    pub(super) fn shy_until(&self, now: Time) -> Option<Time> {
        (self.shy_until > now).then_some(self.shy_until)
    }

    /// Until when it is put aside.
    pub(super) fn aside_until(&self, now: Time) -> Option<Time> {
        self.aside_until.filter(|&until| until > now)
    }

    pub(super) fn order(&mut self, order: Order, now: Time) {
        if self.orders.is_empty() {
            self.active = now;
        }
        self.begun.get_or_insert(now);
        self.orders.push(order);
    }

    /// Bytes came in over it, of an order that was made at this time.
    pub(super) fn handle_data(&mut self, bytes: ByteCount, made: Option<Time>, now: Time) {
        if let Some(made) = made {
            let latency = now.since(made);
            let latency = self.latency.map_or(latency, |shortest| shortest.min(latency));
            self.latency = Some(latency);
            // Before, nothing was on order that could have come.
            self.meter.skip((made + latency).min(now).since(self.active));
        }
        self.active = now;
        self.meter.add(bytes, now);
    }

    /// Takes an order out, whatever of it is still to come.
    pub(super) fn end_order(&mut self, at: usize, now: Time) -> Option<Order> {
        let order = self.orders.remove(at)?;
        if self.orders.is_empty() {
            self.meter.stop(now);
        }
        Some(order)
    }

    /// Whether some of a range is on order. No two orders overlap: which of them bytes are for is told by their offset.
    pub(super) fn has_any_of(&self, range: &RangeRequest) -> bool {
        let overlaps = |order: &Order| {
            let r = &order.request;
            let is_of_attempt = r.object == range.object && r.generation == range.generation;
            is_of_attempt && r.offset < range.end() && range.offset < r.end()
        };
        self.orders.iter().any(overlaps)
    }

    /// In how many seconds an order made at `made` begins to come in, behind `before` bytes of others; `usual` is what
    /// links do that are not measured.
    pub(super) fn begins_in(&self, before: u64, made: Time, usual: f64, now: Time) -> f64 {
        let latency = self.latency.unwrap_or_default();
        // What is on its way to the peer and back is no stall.
        let due = self.orders.front().map_or(now, |first| self.active.max(first.made + latency));
        let silent = now.since(due);
        // A stall that has lasted for a while is as likely as not to last for as long again.
        let lag = if silent > limits::STALL_AFTER { silent.as_secs_f64() } else { 0.0 };
        let way = (made + latency).since(now).as_secs_f64();
        way.max(before as f64 / self.rate(usual, now)) + lag
    }

    /// In how many seconds `length` bytes of it are here.
    pub(super) fn ends_in(&self, before: u64, length: u64, made: Time, usual: f64, now: Time) -> f64 {
        self.begins_in(before, made, usual, now) + length as f64 / self.rate(usual, now)
    }

    /// Whether it would have nothing to carry for a while if it ordered nothing now.
    pub(super) fn runs_dry(&self, usual: f64, now: Time) -> bool {
        let latency = self.latency.unwrap_or_default() + limits::RANGE_TIME;
        self.owed() as f64 / self.rate(usual, now) < latency.as_secs_f64()
    }

    /// Bytes/s, as measured or `usual`, and never nothing.
    pub(super) fn rate(&self, usual: f64, now: Time) -> f64 {
        self.meter.rate(now).map_or(usual, |rate| rate.0).max(1.0)
    }

    /// A range came in right.
    pub(super) fn handle_good(&mut self) {
        self.shy_delay = Duration::ZERO;
        self.shy_until = Time::ZERO;
        self.probing = false;
        self.history <<= 1;
    }

    /// A range was damaged; `true` where the link is to be put aside.
    pub(super) fn handle_bad(&mut self, now: Time) -> bool {
        self.totals.bad_ranges += 1;
        self.history = self.history << 1 | 1;
        let recent = self.history & (u32::MAX >> (u32::BITS - limits::HEALTH_RANGES));
        if !self.probing && recent.count_ones() <= limits::DAMAGED_RANGES_MAX {
            return false;
        }
        self.aside_until = Some(now + limits::ASIDE);
        self.probing = true;
        self.history = 0;
        true
    }

    /// The peer has not what was ordered.
    pub(super) fn handle_pending(&mut self, now: Time) {
        // Answers to requests that were on their way together are one answer.
        if self.shy_until > now {
            return;
        }
        self.shy_delay = (self.shy_delay * 2).clamp(limits::RETRY_PENDING_MIN, limits::RETRY_PENDING_MAX);
        self.shy_until = now + self.shy_delay;
    }
}
