//! Brings what a trader offers up to what its `local/` has.
//!
//! A look goes through the whole of it, a part at a time, and keeps no list: what was seen of an object that is
//! offered, the flow remembers. What is new or changed is offered at once, or handed to be hashed first.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::Ordering;

use super::inventory::Batch;
use super::problems::{Subject, replaced};
use super::site::{NAMED, SECOND, Site, lock};
use crate::config::{RoleConfig, Trader};
use crate::engine::Store;
use crate::limits;
use crate::store::{Refusal, Refused, Root, Sample, ScanReport, SegmentSpec, Skipped, Stamp, look_up, scan_by_parts};
use crate::transfer::{Flow, FlowId};
use crate::units::{ObjectId, ObjectName, PacketLen};
use crate::wire::duplex::check_name_fits;

impl Site {
    /// Brings the offered flow up to what `local/` has now.
    pub(super) fn look_at_local(&self) {
        let config = self.config();
        let RoleConfig::Trader(Trader { store: Some(store), .. }) = &config.role else { return };
        let Store::Local(root) = &self.stores[usize::from(SECOND.0)] else { return };
        let spec = store.segments.as_ref().and_then(|s| SegmentSpec::new(&s.pattern, s.object_bytes()).ok());
        let mut look = Look::new(spec, config.packet_len);
        let before = self.offered(SECOND);
        let before_named = if self.serves_by_name() { self.offered(NAMED) } else { Places::default() };
        if let Some(queue) = &self.hasher {
            // What was not hashed yet is found again.
            queue.clear();
        }
        match scan_by_parts(root, || self.is_ending(), |part| self.take_part(&mut look, part)) {
            Ok(None) => {}
            Ok(Some(report)) => {
                self.scanned.store(true, Ordering::Relaxed);
                let is_sure = self.take_missed(root, &mut look, SECOND, &before)
                    & self.take_missed(root, &mut look, NAMED, &before_named);
                let mut problems: Vec<String> = replaced(root).into_iter().collect();
                problems.extend(look.problems(&report));
                let is_whole = is_sure && is_whole(&report.refused);
                let is_all = self.withdraw_gone(&before, &look, is_whole, &mut problems);
                self.end_look(is_all && look.is_told);
                self.withdraw_named(&before_named, &look);
                self.tell_problems(Subject::Local, problems);
                self.tell_skipped(report.skipped);
            }
            Err(error) => {
                self.end_look(false);
                tracing::error!("cannot look at local/: {error}");
                self.tell_problems(Subject::Local, vec![error.to_string()]);
            }
        }
    }

    /// The places of all objects that the flow has.
    fn offered(&self, flow: FlowId) -> Places {
        let mut places = Places::default();
        self.engine().with_flows(|flows, _| {
            let flow = flows.at(flow);
            let all = (0..flow.places()).map(ObjectId);
            all.filter(|&id| flow.is_object(id)).for_each(|id| places.insert(id));
        });
        places
    }

    fn take_part(&self, look: &mut Look, part: Batch) {
        let (part, unserved) = look.check(part);
        if self.serves_by_name() {
            self.offer_named(look, &part);
        }
        let mut news = Batch::new();
        self.engine().with_flows(|flows, _| {
            let flow = flows.at(SECOND);
            for name in unserved {
                if let Some(id) = flow.find(&name) {
                    look.seen.insert(id);
                    flow.withdraw(&name);
                }
                look.is_told &= flow.knows(&name);
            }
            for (name, stamp) in part {
                if let Some(id) = flow.find(&name) {
                    look.seen.insert(id);
                    match flow.mark(id) {
                        Some(mark) if mark == stamp.print() => continue,
                        // To be hashed once more, and served meanwhile as it was.
                        Some(mark) if mark == stamp.unsettled_print() => {}
                        _ => flow.withdraw(&name),
                    }
                }
                match &self.hasher {
                    // Offered once it has been hashed.
                    Some(_) => news.push((name, stamp)),
                    None => {
                        offer(flow, name.clone(), &stamp);
                        // It may have got the place of one that was there before.
                        flow.find(&name).into_iter().for_each(|id| look.seen.insert(id));
                    }
                }
            }
            if !news.is_empty() {
                flow.set_told_all(false);
            }
        });
        if let Some(queue) = &self.hasher {
            queue.push(news);
        }
    }

    /// Whoever asks by name is given what is there now, hashed or not.
    fn offer_named(&self, look: &mut Look, part: &Batch) {
        self.engine().with_flows(|flows, _| {
            let flow = flows.at(NAMED);
            for (name, stamp) in part {
                let known = flow.find(name).and_then(|id| flow.mark(id));
                if known.is_some_and(|mark| mark != stamp.print()) {
                    flow.withdraw(name);
                }
                if known != Some(stamp.print()) {
                    offer(flow, name.clone(), stamp);
                }
                if let Some(id) = flow.find(name) {
                    look.seen_named.insert(id);
                }
            }
        });
    }

    /// Takes what stands though the look has not seen it: what a listing lacks need not be gone. Whether all the rest
    /// is.
    fn take_missed(&self, root: &Root, look: &mut Look, flow: FlowId, before: &Places) -> bool {
        let seen = if flow == NAMED { &look.seen_named } else { &look.seen };
        let unseen: Vec<ObjectId> = before.without(seen).collect();
        let mut is_sure = true;
        for some in unseen.chunks(limits::SCAN_PART_OBJECTS) {
            let names: Vec<ObjectName> = self.engine().with_flows(|flows, _| {
                let flow = flows.at(flow);
                some.iter().filter(|&&id| flow.is_object(id)).map(|&id| flow.name(id).clone()).collect()
            });
            let mut missed = Batch::new();
            for name in names {
                match look_up(root, &name) {
                    Ok(stamp) => missed.extend(stamp.map(|stamp| (name, stamp))),
                    Err(error) => {
                        tracing::debug!("not known to be gone: {error}");
                        is_sure = false;
                    }
                }
            }
            self.take_part(look, missed);
        }
        is_sure
    }

    /// ... and not what is gone.
    fn withdraw_named(&self, before: &Places, look: &Look) {
        let gone: Vec<ObjectId> = before.without(&look.seen_named).collect();
        for some in gone.chunks(limits::SCAN_PART_OBJECTS) {
            self.engine().with_flows(|flows, _| {
                let flow = flows.at(NAMED);
                for &id in some {
                    let name = flow.name(id).clone();
                    flow.withdraw(&name);
                }
            });
        }
    }

    /// What is not there any more is served no more, and told to be gone where the look was whole. Not so where nothing
    /// is there any more: then a file system is not mounted, more likely than not. Whether all was told.
    fn withdraw_gone(&self, before: &Places, look: &Look, is_whole: bool, problems: &mut Vec<String>) -> bool {
        let gone: Vec<ObjectId> = before.without(&look.seen).collect();
        let (count, is_any_left) = self.engine().with_flows(|flows, _| {
            let flow = flows.at(SECOND);
            let is_known = |&id: &ObjectId| flow.content(id).is_some();
            (gone.iter().filter(|id| is_known(id)).count(), before.both(&look.seen).any(|id| is_known(&id)))
        });
        let is_mounted = count == 0 || is_any_left;
        if !is_mounted {
            problems.push(format!(
                "none of the {count} objects of local/ is there any more: nobody is told so. Is its file system mounted?"
            ));
        }
        for some in gone.chunks(limits::SCAN_PART_OBJECTS) {
            self.engine().with_flows(|flows, _| {
                let flow = flows.at(SECOND);
                for &id in some {
                    if !flow.is_object(id) {
                        continue;
                    }
                    let name = flow.name(id).clone();
                    flow.withdraw(&name);
                    if is_whole && is_mounted {
                        flow.forget(&name);
                    }
                }
            });
        }
        is_whole && is_mounted
    }

    fn end_look(&self, is_all: bool) {
        if !is_all {
            self.engine().with_flows(|flows, _| flows.at(SECOND).set_told_all(false));
        }
        if let Some(queue) = &self.hasher {
            queue.end_look(is_all);
        }
    }

    /// Tells what is passed over, when that is no longer what it was: some keep links there on purpose.
    fn tell_skipped(&self, mut skipped: Sample<Skipped>) {
        skipped.first.sort_by(|a, b| a.path.cmp(&b.path));
        let mut told = lock(&self.skipped);
        if skipped.count > 0 && skipped != *told {
            let (count, path) = (skipped.count, skipped.first[0].path.display());
            let kind = skipped.first[0].kind;
            tracing::warn!("entries of local/ that are never replicated: {count}, as {path}, {kind}");
        }
        *told = skipped;
    }
}

/// An object may be served as it stands.
fn offer(flow: &mut Flow, name: ObjectName, stamp: &Stamp) {
    if flow.offer(name.clone(), stamp.size)
        && let Some(id) = flow.find(&name)
    {
        flow.set_mark(id, stamp.print());
    }
}

/// Whether a look has seen all that is there: a directory that cannot be read may hold anything.
fn is_whole(refused: &Sample<Refused>) -> bool {
    let is_known = |refused: &Refused| !matches!(refused.reason, Refusal::Unreadable(_));
    refused.count == refused.first.len() as u64 && refused.first.iter().all(is_known)
}

/// What is gathered on the way through the directory.
struct Look {
    spec: Option<SegmentSpec>,
    named: HashSet<ObjectName>,
    packet_len: PacketLen,
    /// Objects that the specification names.
    found: Batch,
    misnamed: BTreeSet<String>,
    seen: Places,
    /// The same of those who ask by name.
    seen_named: Places,
    /// All that is there and not served is told of all the same: it was served before.
    is_told: bool,
}

impl Look {
    fn new(spec: Option<SegmentSpec>, packet_len: PacketLen) -> Self {
        let named = spec.iter().flat_map(|spec| spec.names.iter().cloned()).collect();
        let (found, misnamed, seen) = (Batch::new(), BTreeSet::new(), Places::default());
        Self { spec, named, packet_len, found, misnamed, seen, seen_named: Places::default(), is_told: true }
    }

    /// Those of a part that may be served, and those that may not.
    fn check(&mut self, mut part: Batch) -> (Batch, Vec<ObjectName>) {
        let mut unserved = Vec::new();
        part.retain(|(name, stamp)| {
            if self.named.contains(name) {
                self.found.push((name.clone(), *stamp));
                if self.spec.as_ref().is_some_and(|spec| spec.size != stamp.size) {
                    unserved.push(name.clone());
                    return false;
                }
            }
            let fits = check_name_fits(name, self.packet_len);
            if let Err(error) = &fits {
                unserved.push(name.clone());
                if self.misnamed.len() < limits::SCAN_LIST_MAX {
                    self.misnamed.insert(error.to_string());
                }
            }
            fits.is_ok()
        });
        (part, unserved)
    }

    fn problems(&mut self, report: &ScanReport) -> Vec<String> {
        let mut problems = Vec::new();
        for refused in &report.refused.first {
            problems.push(format!("{}: not served: {}", refused.path.display(), refused.reason));
        }
        if let Some(spec) = &self.spec {
            self.found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            let check = spec.check(&self.found);
            if let Some(first) = check.missing.first() {
                let (missing, all) = (check.missing.len(), spec.names.len());
                problems.push(format!("local/ lacks {missing} of {all} segments, first {first}"));
            }
            for (name, found) in &check.wrong_size {
                problems.push(format!("local/{name} has {found}, the specification says {}: not served", spec.size));
            }
        }
        problems.extend(std::mem::take(&mut self.misnamed));
        problems
    }
}

/// A set of places in a flow's table, a bit each.
#[derive(Debug, Default)]
struct Places(Vec<u64>);

impl Places {
    fn insert(&mut self, id: ObjectId) {
        let word = id.0 as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (id.0 % 64);
    }

    /// Those that `other` does not have.
    fn without<'p>(&'p self, other: &'p Self) -> impl Iterator<Item = ObjectId> + 'p {
        self.words(other, |own, other| own & !other)
    }

    /// Those that `other` has as well.
    fn both<'p>(&'p self, other: &'p Self) -> impl Iterator<Item = ObjectId> + 'p {
        self.words(other, |own, other| own & other)
    }

    fn words<'p>(&'p self, other: &'p Self, of: fn(u64, u64) -> u64) -> impl Iterator<Item = ObjectId> + 'p {
        self.0.iter().enumerate().flat_map(move |(word, &own)| {
            let left = of(own, other.0.get(word).copied().unwrap_or(0));
            (0..64).filter(move |bit| left >> bit & 1 == 1).map(move |bit| ObjectId((word * 64) as u32 + bit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_another_set_lacks_are_told_in_order() {
        let set = |ids: &[u32]| {
            let mut places = Places::default();
            ids.iter().for_each(|&id| places.insert(ObjectId(id)));
            places
        };
        let check = |a: &[u32], b: &[u32], expected: &[u32]| {
            let left: Vec<u32> = set(a).without(&set(b)).map(|id| id.0).collect();
            assert_eq!(left, expected);
        };
        check(&[200, 0, 63, 64], &[63], &[0, 64, 200]);
        check(&[1], &[1, 500], &[]);
        check(&[], &[3], &[]);
        assert_eq!(set(&[1, 2, 70]).both(&set(&[2, 70, 9])).collect::<Vec<_>>(), [ObjectId(2), ObjectId(70)]);
    }
}
