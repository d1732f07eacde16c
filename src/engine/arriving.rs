//! What came in is judged and written several pieces at a time.
//!
//! Each look at the flows costs about as much as to write a small object, so the pieces that wait for the writer are
//! looked at together. An object of one range never becomes a part that is filled bit by bit: it is awaited here, and
//! its file is made when all of it has come.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::kept::Filled;
use super::shared::{PartKey, Shared, Store};
use super::writer::{fail, make_part};
use crate::limits;
use crate::store::{FileMode, FileTime, Part, StoreError};
use crate::transfer::pace::Meter;
use crate::transfer::{FlowId, RangeRequest};
use crate::units::{ByteCount, LinkId, ObjectName, Rate, Root256, Time};

/// The version of an object that a part is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    pub(super) size: ByteCount,
    pub(super) root: Root256,
    pub(super) mode: FileMode,
    pub(super) mtime: FileTime,
}

/// A range that came in over a link.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) key: PartKey,
    pub(super) link: LinkId,
    pub(super) range: RangeRequest,
    /// The checksum that its sender told.
    pub(super) crc: u32,
    /// Its bytes have it.
    pub(super) is_right: bool,
    pub(super) bytes: Bytes,
}

impl Arrived {
    /// What it counts for while it waits for the writer: a peer may send a range in pieces of one byte.
    pub(super) fn cost(&self) -> usize {
        self.bytes.len() + limits::WAITING_RANGE_COST
    }
}

/// What the flows are to be told at the next look at them; at most [`limits::JUDGED_AT_ONCE_MAX`] of each.
pub(super) struct Arriving<'s> {
    shared: &'s Shared,
    /// Objects whose file is made when all of them is here; as many as the flows have parts open.
    awaited: BTreeMap<PartKey, Version>,
    /// Objects that have room in memory now.
    created: Vec<PartKey>,
    /// Whole objects that are kept in memory.
    kept: Vec<PartKey>,
    arrived: Vec<Arrived>,
    /// What these count for.
    cost: usize,
    /// How fast objects of spools come in.
    rates: BTreeMap<FlowId, Incoming>,
}

/// How fast bytes come in, and when they did last.
#[derive(Debug, Default)]
struct Incoming {
    meter: Meter,
    last: Time,
}

impl Incoming {
    /// A pause in which nothing was wanted says nothing of the path, and neither does one in which it was cut.
    fn add(&mut self, bytes: ByteCount, now: Time) {
        let idle = now.since(self.last);
        if idle > limits::KEPT_TIME_MAX {
            self.meter.skip(idle);
        }
        self.last = now;
        self.meter.start(now);
        self.meter.add(bytes, now);
    }

    fn rate(&self) -> Option<Rate> {
        self.meter.rate(self.last)
    }
}

impl<'s> Arriving<'s> {
    pub(super) fn new(shared: &'s Shared) -> Self {
        Self {
            shared,
            awaited: BTreeMap::new(),
            created: Vec::new(),
            kept: Vec::new(),
            arrived: Vec::new(),
            cost: 0,
            rates: BTreeMap::new(),
        }
    }

    /// Takes on an object that begins to come in; `false` where it needs a part first.
    pub(super) fn open(&mut self, key: PartKey, version: Version) -> bool {
        let is_one_range = (1..=limits::SMALL_OBJECT_BYTES_MAX).contains(&version.size.0);
        match self.shared.stores[usize::from(key.0.0)] {
            Store::Spool(_) if self.is_soon_here(key.0, version.size) && self.reserve(key, version) => {
                self.created.push(key);
                self.settle_if(self.created.len() >= limits::JUDGED_AT_ONCE_MAX);
                true
            }
            Store::Remote(_) if is_one_range => {
                self.awaited.insert(key, version);
                true
            }
            _ => false,
        }
    }

    /// Whether an object is small, or comes in no time. While nobody knows, it may be long.
    fn is_soon_here(&self, flow: FlowId, size: ByteCount) -> bool {
        let is_quick = |rate: Rate| size.0 as f64 <= rate.0 * limits::KEPT_TIME_MAX.as_secs_f64();
        size.0 <= limits::SMALL_OBJECT_BYTES_MAX || self.rates.get(&flow).and_then(Incoming::rate).is_some_and(is_quick)
    }

    fn reserve(&self, key: PartKey, version: Version) -> bool {
        self.shared.kept(key.0).is_some_and(|mut kept| kept.reserve(key, version))
    }

    pub(super) fn arrive(&mut self, arrived: Arrived) {
        if let Store::Spool(_) = self.shared.stores[usize::from(arrived.key.0.0)] {
            self.rates.entry(arrived.key.0).or_default().add(arrived.range.length, self.shared.now());
        }
        let overlaps = |other: &Arrived| {
            other.key == arrived.key
                && other.range.offset < arrived.range.end()
                && arrived.range.offset < other.range.end()
        };
        // The second copy of a range is not wanted when the first one has been judged.
        self.settle_if(self.arrived.iter().any(overlaps));
        self.cost += arrived.cost();
        self.arrived.push(arrived);
        let is_much = self.arrived.len() >= limits::JUDGED_AT_ONCE_MAX || self.cost >= limits::JOURNAL_WRITE_BYTES;
        self.settle_if(is_much);
    }

    /// All of an object is here; `false` where it is not kept in memory.
    pub(super) fn finish(&mut self, key: PartKey) -> bool {
        let is_kept = self.shared.kept(key.0).is_some_and(|mut kept| kept.finish(key));
        if is_kept {
            self.kept.push(key);
            self.settle_if(self.kept.len() >= limits::JUDGED_AT_ONCE_MAX);
        }
        is_kept
    }

    /// An attempt is given up.
    pub(super) fn forget(&mut self, key: PartKey) {
        self.awaited.remove(&key);
    }

    fn settle_if(&mut self, now: bool) {
        if now {
            self.settle();
        }
    }

    /// Tells the flows all that has happened, and writes what came in.
    pub(super) fn settle(&mut self) {
        if self.arrived.is_empty() && self.created.is_empty() && self.kept.is_empty() {
            return;
        }
        if self.shared.dead.load(Ordering::Acquire) {
            return;
        }
        let (created, kept) = (std::mem::take(&mut self.created), std::mem::take(&mut self.kept));
        let arrived = std::mem::take(&mut self.arrived);
        // The names of those that are to be written.
        let wanted: Vec<Option<ObjectName>> = self.shared.with_flows(|flows, now| {
            for (flow, id, generation) in kept {
                flows.at(flow).handle_committed(id, generation, now);
            }
            for (flow, id, generation) in created {
                flows.at(flow).handle_kept(id, generation);
            }
            let judge = |arrived: &Arrived| {
                let flow = flows.at(arrived.key.0);
                if !arrived.is_right {
                    flow.handle_damaged(arrived.link, arrived.range, now);
                    return None;
                }
                if !flow.wants_piece(arrived.range) {
                    flow.handle_unwanted(arrived.link, arrived.range, now);
                    return None;
                }
                Some(flow.name(arrived.range.object).clone())
            };
            arrived.iter().map(judge).collect()
        });
        let mut written = Vec::with_capacity(arrived.len());
        for (arrived, name) in arrived.iter().zip(wanted) {
            let Some(name) = name else { continue };
            match self.write(arrived, &name) {
                Ok(part) => written.push((arrived, part)),
                Err(error) => fail(self.shared, arrived.key, &error),
            }
        }
        self.tell_written(written);
        self.shared.shrink_backlog(std::mem::take(&mut self.cost));
    }

    /// Puts a range where it belongs; the part, if it is one that has just been made of it.
    fn write(&mut self, arrived: &Arrived, name: &ObjectName) -> Result<Option<Part>, StoreError> {
        let Arrived { key, range, ref bytes, .. } = *arrived;
        if let Some(&version) = self.awaited.get(&key) {
            if range.length == version.size {
                let part = self.shared.stores[usize::from(key.0.0)].root().write_part(name, bytes)?;
                part.set_attributes(version.mode, version.mtime);
                return Ok(Some(part));
            }
            self.awaited.remove(&key);
            make_part(self.shared, key, name, version)?;
        }
        if let Some(mut kept) = self.shared.kept(key.0) {
            // It may have become a slow one since it began.
            let is_slow = kept.size(key).is_some_and(|size| !self.is_soon_here(key.0, size));
            let filled = if is_slow { Filled::NoRoom } else { kept.fill(key, range.offset, bytes, arrived.crc) };
            drop(kept);
            match filled {
                Filled::Kept => return Ok(None),
                Filled::NoRoom => self.shared.spill(key, name)?,
                Filled::NotKept => {}
            }
        }
        if let Some(part) = self.shared.part(key) {
            match self.shared.stores[usize::from(key.0.0)] {
                Store::Remote(_) => part.write_seen_at(bytes, range.offset)?,
                // Nobody takes its root of what is written.
                Store::Spool(_) | Store::Local(_) => part.write_vectored_at(&[IoSlice::new(bytes)], range.offset)?,
            }
            if let Some(mut journal) = self.shared.journal(key.0) {
                journal.record(&part, range.offset, range.length);
            }
            if let Some(mut recent) = self.shared.recent(key.0) {
                recent.add(key, range.offset, bytes, arrived.crc);
            }
        }
        Ok(None)
    }

    fn tell_written(&mut self, written: Vec<(&Arrived, Option<Part>)>) {
        if written.is_empty() {
            return;
        }
        let wrong: Vec<_> = self.shared.with_flows(|flows, now| {
            let tell = |(arrived, part): &(&Arrived, Option<Part>)| {
                let &Arrived { key: (flow, id, generation), link, range, crc, .. } = *arrived;
                let flow = flows.at(flow);
                if part.is_some() {
                    flow.handle_created(id, generation);
                }
                flow.handle_verified(link, range, crc, now)
            };
            written.iter().map(tell).collect()
        });
        for ((arrived, made), wrong) in written.into_iter().zip(wrong) {
            match (made, wrong) {
                (Some(part), None) => {
                    self.awaited.remove(&arrived.key);
                    self.shared.add_part(arrived.key, part);
                }
                // Its object is awaited on.
                (Some(_), Some(_)) | (None, None) => {}
                (None, Some((offset, length))) => {
                    if let Some(mut recent) = self.shared.recent(arrived.key.0) {
                        recent.forget(arrived.key);
                    }
                    if let Some(mut kept) = self.shared.kept(arrived.key.0) {
                        kept.retract(arrived.key, offset, length);
                    }
                    if let (Some(part), Some(mut journal)) =
                        (self.shared.part(arrived.key), self.shared.journal(arrived.key.0))
                    {
                        journal.retract(&part, offset, length);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pause_takes_nothing_off_the_rate() {
        let mut incoming = Incoming::default();
        let come_in = |incoming: &mut Incoming, from: u64| {
            (0..=500).for_each(|ms| incoming.add(ByteCount(1 << 20), Time::ZERO + Duration::from_millis(from + ms)));
        };
        assert_eq!(incoming.rate().map(|rate| rate.0), None, "nothing is known");
        come_in(&mut incoming, 1);
        let before = incoming.rate().expect("500 ms are enough for a reading").0;
        incoming.add(ByteCount(1), Time::ZERO + Duration::from_secs(60));
        assert_eq!(incoming.rate().map(|rate| rate.0), Some(before));
        come_in(&mut incoming, 60_001);
        let after = incoming.rate().expect("it is known").0;
        assert!((before * 0.95..before * 1.05).contains(&after), "{before} {after}");
    }
}
