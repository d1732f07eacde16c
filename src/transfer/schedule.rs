//! Who fetches what next.
//!
//! Every absent object that is wanted stands in exactly one queue. In a flow that knows beforehand what it wants,
//! object `i` of `n` stands first in the queue of one link: with K peers (by name) the `i*K/n`-th is first choice, and
//! of its W links the `i mod W`-th (seed 000). That is first choice, not cage: a link with nothing left takes whole
//! objects from the link that would end last, if it would end them sooner, unless its peer has nothing to give at
//! present. What a peer said is pending is left to other peers first: they may have it. In a flow that fetches on
//! demand there is one queue for all links, and those who ask take turns in it.
//!
//! Queues are rebuilt when links come and go; an entry whose object is no longer absent is dropped when met, or where
//! such may be most of them: nobody meets what comes by ranges.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::flow::{Flow, Kind};
use super::pace::Meter;
use crate::limits;
use crate::units::{ByteCount, LinkId, NodeName, ObjectId, Rate, Time};

/// A thief must end this much sooner than the link it takes from, or nothing is gained.
const STEAL_GAIN: f64 = 0.9;
/// Deferred objects that are passed over, at most, in the search for one that a link may take.
const PASSED_OVER_MAX: usize = 256;

/// From which end of the list a link takes its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Front,
    Back,
}

/// A link that fetches.
#[derive(Debug)]
pub(super) struct Fetcher {
    pub(super) peer: NodeName,
    pub(super) meter: Meter,
    /// Asked for and not had whole, oldest first: the head is the object being fetched.
    pub(super) outstanding: VecDeque<ObjectId>,
    /// When the head was asked for, where nothing was on order before it.
    pub(super) asked_at: Time,
    /// When it last got on: bytes that are kept, an object that is over, or something asked for at last.
    pub(super) moved_at: Time,
    /// Bytes of the head that have arrived.
    pub(super) head_received: ByteCount,
    /// It takes no work from others before this, for its last answers were that objects are pending ...
    shy_until: Time,
    /// ... and for so long after the next such answer.
    shy_delay: Duration,
    queue: VecDeque<ObjectId>,
}

impl Fetcher {
    fn new(peer: NodeName) -> Self {
        Self {
            peer,
            meter: Meter::default(),
            outstanding: VecDeque::new(),
            asked_at: Time::ZERO,
            moved_at: Time::ZERO,
            head_received: ByteCount(0),
            shy_until: Time::ZERO,
            shy_delay: Duration::ZERO,
            queue: VecDeque::new(),
        }
    }

    pub(super) fn handle_pending(&mut self, now: Time) {
        self.shy_delay = (self.shy_delay * 2).clamp(limits::RETRY_PENDING_MIN, limits::RETRY_PENDING_MAX);
        self.shy_until = now + self.shy_delay;
    }

    pub(super) fn handle_begin(&mut self) {
        self.shy_delay = Duration::ZERO;
        self.shy_until = Time::ZERO;
    }

    /// Whether its last answers were that objects are pending.
    pub(super) fn is_shy(&self) -> bool {
        self.shy_delay > Duration::ZERO
    }

    /// Whether what it has on order can be hoped for.
    pub(super) fn is_moving(&self, now: Time) -> bool {
        self.outstanding.is_empty() || now.since(self.moved_at) < limits::STALL_PATIENCE
    }
}

#[derive(Debug, Default)]
pub(super) struct Schedule {
    pub(super) fetchers: BTreeMap<LinkId, Fetcher>,
    /// What no link is first choice for, by turn and then in order.
    shared: BTreeMap<(u64, i64), ObjectId>,
    next_place: i64,
    /// The turn that is being served.
    turn: u64,
    /// The last turn that each reader was given.
    turns: BTreeMap<LinkId, u64>,
    /// What is to be tried again later, and when.
    deferred: BTreeSet<(Time, ObjectId)>,
    /// How many of both there were when what is no work any more was last thrown out.
    shed_to: usize,
}

impl Schedule {
    pub(super) fn attach(&mut self, link: LinkId, peer: NodeName) {
        self.fetchers.insert(link, Fetcher::new(peer));
    }

    /// Takes the link away; what it had on order is the caller's to queue again. `None` for one that was not there.
    pub(super) fn detach(&mut self, link: LinkId) -> Option<VecDeque<ObjectId>> {
        let fetcher = self.fetchers.remove(&link)?;
        fetcher.queue.into_iter().for_each(|id| self.push(id, None));
        Some(fetcher.outstanding)
    }

    /// To the end; where it is on demand of a `reader`, to the end of that reader's, which take turns. Each reader has
    /// its objects in the order in which it asked: three objects of one fetched side by side leave two readers idle.
    pub(super) fn push(&mut self, id: ObjectId, reader: Option<LinkId>) {
        self.turns.retain(|_, turn| *turn > self.turn);
        let turn = match reader {
            Some(reader) => {
                let turn = self.turns.entry(reader).or_insert(self.turn);
                *turn += 1;
                *turn
            }
            None => self.turn + 1,
        };
        self.next_place += 1;
        self.shared.insert((turn, self.next_place), id);
    }

    /// To the front: work that was given back has waited long enough.
    pub(super) fn push_front(&mut self, id: ObjectId) {
        self.next_place += 1;
        self.shared.insert((0, -self.next_place), id);
    }

    pub(super) fn defer(&mut self, id: ObjectId, until: Time) {
        self.deferred.insert((until, id));
    }

    /// Whether what is no longer to be fetched may be most of what is queued: what comes by ranges is taken out by
    /// nobody.
    pub(super) fn is_overfull(&self) -> bool {
        self.queued() >= 2 * self.shed_to.max(SHED_MIN)
    }

    /// Keeps of what is queued and deferred only what `stays`.
    pub(super) fn shed(&mut self, mut stays: impl FnMut(ObjectId) -> bool) {
        self.shared.retain(|_, id| stays(*id));
        self.deferred.retain(|&(_, id)| stays(id));
        if self.shared.is_empty() {
            self.turns.clear();
        }
        self.shed_to = self.queued();
    }

    /// How many are queued or deferred that no link is first choice for.
    pub(super) fn queued(&self) -> usize {
        self.shared.len() + self.deferred.len()
    }

    /// When the first deferred object may be tried again.
    pub(super) fn next_retry(&self) -> Option<Time> {
        self.deferred.first().map(|&(at, _)| at)
    }

    /// The links that an object of a known list is first choice for, by its place in the list.
    pub(super) fn share_out(&mut self, wanted: impl Iterator<Item = (ObjectId, u64)>, total: u64) {
        self.shared.clear();
        self.deferred.clear();
        let mut by_peer: BTreeMap<NodeName, Vec<LinkId>> = BTreeMap::new();
        for (&link, fetcher) in &mut self.fetchers {
            fetcher.queue.clear();
            by_peer.entry(fetcher.peer.clone()).or_default().push(link);
        }
        let peers: Vec<_> = by_peer.into_values().collect();
        for (id, index) in wanted {
            match first_choice(&peers, index, total) {
                Some(link) => self.fetchers.get_mut(&link).expect("just listed").queue.push_back(id),
                None => self.push(id, None),
            }
        }
    }

    /// The next object for `link`, taken out of its queue from that end. `is_waiting` says whether an object is still
    /// to be fetched; `typical` is how long objects are, for those of unknown length; `pending_at` is who said last
    /// that an object is pending.
    pub(super) fn take<'a>(
        &mut self,
        (link, from): (LinkId, Side),
        now: Time,
        typical: ByteCount,
        is_waiting: impl Fn(ObjectId) -> bool,
        owed: impl Fn(&Fetcher) -> ByteCount,
        pending_at: impl Fn(ObjectId) -> Option<&'a NodeName>,
    ) -> Option<ObjectId> {
        self.trim(&is_waiting);
        let is_worth_it = self.is_worth_it(link, now, typical, &owed);
        let fetcher = self.fetchers.get_mut(&link)?;
        if is_worth_it
            && let Some(id) = pop(&mut fetcher.queue, from, &is_waiting).or_else(|| self.pop_shared(from, &is_waiting))
        {
            return Some(id);
        }
        if let Some(id) = self.take_deferred(link, now, &is_waiting, pending_at) {
            return Some(id);
        }
        self.steal(link, now, typical, owed)
    }

    /// Whether an object taken by `link` would be here before any other link would have it, or before all that is
    /// queued is done. A slow link that takes one of the last objects holds up the job. Where it leaves one, the link
    /// that would end it first finds it worth its while.
    fn is_worth_it(&self, link: LinkId, now: Time, typical: ByteCount, owed: &impl Fn(&Fetcher) -> ByteCount) -> bool {
        let Some(fetcher) = self.fetchers.get(&link) else { return false };
        let mine = self.ends_in(fetcher, owed(fetcher), typical, now);
        let others = || {
            let others = self.fetchers.iter().filter(|&(&other, fetcher)| other != link && fetcher.shy_until <= now);
            others.map(|(_, fetcher)| fetcher)
        };
        // The same gain for which the other would take it: one of the two does.
        let ends_first = |other| mine * STEAL_GAIN <= self.ends_in(other, owed(other), typical, now);
        if mine.is_infinite() || others().all(ends_first) {
            return true;
        }
        let queued = self.shared.len() + self.fetchers.values().map(|f| f.queue.len()).sum::<usize>();
        let bytes: ByteCount = others().map(owed).sum();
        let rate: f64 = others().map(|other| self.rate(other, now)).sum();
        mine * rate <= bytes.0 as f64 + queued as f64 * typical.0.max(1) as f64
    }

    /// Seconds until `fetcher` has `owed` and `more` bytes.
    fn ends_in(&self, fetcher: &Fetcher, owed: ByteCount, more: ByteCount, now: Time) -> f64 {
        (owed.0 + more.0.max(1)) as f64 / self.rate(fetcher, now)
    }

    /// What a link whose rate is not measured yet is taken to do is what the others do on average.
    fn rate(&self, fetcher: &Fetcher, now: Time) -> f64 {
        fetcher.meter.rate(now).map_or_else(|| self.usual_rate(now), |Rate(rate)| rate)
    }

    /// Drops what is no longer to be fetched from the ends of the queues, so that what they hold is work.
    fn trim(&mut self, is_waiting: &impl Fn(ObjectId) -> bool) {
        for queue in self.fetchers.values_mut().map(|f| &mut f.queue) {
            while queue.back().is_some_and(|&id| !is_waiting(id)) {
                queue.pop_back();
            }
        }
        while self.shared.last_key_value().is_some_and(|(_, &id)| !is_waiting(id)) {
            self.shared.pop_last();
        }
    }

    fn pop_shared(&mut self, from: Side, is_waiting: &impl Fn(ObjectId) -> bool) -> Option<ObjectId> {
        let pop = |shared: &mut BTreeMap<_, _>| match from {
            Side::Front => shared.pop_first(),
            Side::Back => shared.pop_last(),
        };
        while let Some(((turn, _), id)) = pop(&mut self.shared) {
            if from == Side::Front {
                self.turn = self.turn.max(turn);
            }
            if is_waiting(id) {
                return Some(id);
            }
        }
        None
    }

    fn take_deferred<'a>(
        &mut self,
        link: LinkId,
        now: Time,
        is_waiting: impl Fn(ObjectId) -> bool,
        pending_at: impl Fn(ObjectId) -> Option<&'a NodeName>,
    ) -> Option<ObjectId> {
        let peer = &self.fetchers.get(&link)?.peer;
        let is_only_peer = self.fetchers.values().all(|other| other.peer == *peer);
        let is_asked = |id| self.fetchers.values().any(|f| f.peer == *peer && f.outstanding.front() == Some(&id));
        let may_take = |at: Time, id| {
            let waited = is_only_peer || pending_at(id) != Some(peer) || now.since(at) >= limits::OTHERS_FIRST;
            // A peer that was asked and is silent about it is not asked twice.
            waited && !is_asked(id)
        };
        let due = || self.deferred.iter().copied().take_while(|&(at, _)| at <= now);
        let stale: Vec<_> = due().take(PASSED_OVER_MAX).filter(|&(_, id)| !is_waiting(id)).collect();
        let found = due().take(PASSED_OVER_MAX).find(|&(at, id)| is_waiting(id) && may_take(at, id));
        for entry in stale.iter().chain(&found) {
            self.deferred.remove(entry);
        }
        found.map(|(_, id)| id)
    }

    fn steal(
        &mut self,
        thief: LinkId,
        now: Time,
        typical: ByteCount,
        owed: impl Fn(&Fetcher) -> ByteCount,
    ) -> Option<ObjectId> {
        if self.fetchers.get(&thief)?.shy_until > now {
            return None;
        }
        let ends_in = |fetcher: &Fetcher, more: u64| {
            self.ends_in(fetcher, owed(fetcher), ByteCount(more * typical.0.max(1)), now)
        };
        let (&victim, latest) = self
            .fetchers
            .iter()
            .filter(|(_, f)| !f.queue.is_empty())
            .map(|(link, f)| (link, ends_in(f, f.queue.len() as u64)))
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        let mine = ends_in(self.fetchers.get(&thief)?, 1);
        if mine.is_infinite() || mine > latest * STEAL_GAIN {
            return None;
        }
        let queue = &mut self.fetchers.get_mut(&victim).expect("just found").queue;
        queue.pop_back()
    }

    fn usual_rate(&self, now: Time) -> f64 {
        let rates: Vec<f64> = self.fetchers.values().filter_map(|f| f.meter.rate(now)).map(|r| r.0).collect();
        let sum: f64 = rates.iter().sum();
        if sum > 0.0 { sum / rates.len() as f64 } else { 1.0 }
    }

    /// Whether somebody has something to take from later on, so that an idle link should look again.
    pub(super) fn has_queued(&self) -> bool {
        !self.shared.is_empty() || self.fetchers.values().any(|f| !f.queue.is_empty())
    }
}

/// So many are never looked through for what is no work any more.
const SHED_MIN: usize = 512;

impl Flow {
    /// Queues an absent object if the flow still wants it.
    pub(super) fn enqueue(&mut self, id: ObjectId) {
        self.enqueue_for(id, None);
    }

    /// The same, on demand of a reader.
    pub(super) fn enqueue_for(&mut self, id: ObjectId, reader: Option<LinkId>) {
        if self.queue_whole(id, reader) {
            self.open_blocks(id, None);
        }
    }

    /// The same, for whoever carries whole objects alone; whether it was not queued.
    pub(super) fn queue_whole(&mut self, id: ObjectId, reader: Option<LinkId>) -> bool {
        let news = self.mark_queued(id);
        if news {
            self.schedule.push(id, reader);
            self.shed_queued();
        }
        news
    }

    /// The same, ahead of all others: work that was given back has waited long enough.
    pub(super) fn enqueue_first(&mut self, id: ObjectId) {
        if self.mark_queued(id) {
            self.schedule.push_front(id);
            self.shed_queued();
            self.open_blocks(id, None);
        }
    }

    fn shed_queued(&mut self) {
        if self.schedule.is_overfull() {
            // One that came by ranges and is wanted again is queued again.
            let (objects, mut seen) = (&self.objects, vec![false; self.objects.len()]);
            let mut is_first = |at: usize| !std::mem::replace(&mut seen[at], true);
            self.schedule.shed(|id| objects[id.0 as usize].queued && is_first(id.0 as usize));
        }
    }

    fn mark_queued(&mut self, id: ObjectId) -> bool {
        let object = self.at(id);
        let wanted = match self.kind {
            Kind::Fetch => true,
            Kind::Offer => false,
            Kind::Relay => !object.readers.is_empty(),
        };
        if !wanted {
            self.forget_if_idle(id);
            return false;
        }
        let news = !std::mem::replace(&mut self.at_mut(id).queued, true);
        if news {
            self.wake_fetchers();
        }
        news
    }

    pub(super) fn enqueue_later(&mut self, id: ObjectId, now: Time) {
        let retry_at = self.at(id).retry_at;
        if retry_at <= now {
            return self.enqueue(id);
        }
        // On demand, who demands decides when to try again.
        if self.kind == Kind::Fetch && !self.at(id).queued {
            self.at_mut(id).queued = true;
            self.schedule.defer(id, retry_at);
            self.shed_queued();
            self.open_blocks(id, Some(now));
            self.wake_fetchers();
        }
        self.forget_if_idle(id);
    }
}

/// How often an idle link looks whether it should take work from another.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn pop(queue: &mut VecDeque<ObjectId>, from: Side, is_waiting: &impl Fn(ObjectId) -> bool) -> Option<ObjectId> {
    let pop = match from {
        Side::Front => VecDeque::pop_front,
        Side::Back => VecDeque::pop_back,
    };
    while let Some(id) = pop(queue) {
        if is_waiting(id) {
            return Some(id);
        }
    }
    None
}

/// The link that object `index` of `total` belongs to first: exchange k of K has the k-th K-th, link `index mod W` of
/// it.
fn first_choice(peers: &[Vec<LinkId>], index: u64, total: u64) -> Option<LinkId> {
    if peers.is_empty() || total == 0 {
        return None;
    }
    let peer = (u128::from(index) * peers.len() as u128 / u128::from(total)) as usize;
    let links = &peers[peer.min(peers.len() - 1)];
    Some(links[(index % links.len() as u64) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text.as_bytes()).expect("valid")
    }

    fn schedule(links: &[(u64, &str)]) -> Schedule {
        let mut schedule = Schedule::default();
        for &(link, peer) in links {
            schedule.attach(LinkId(link), name(peer));
        }
        schedule
    }

    fn all(n: u32) -> impl Iterator<Item = (ObjectId, u64)> {
        (0..n).map(|i| (ObjectId(i), u64::from(i)))
    }

    fn drain(schedule: &mut Schedule, link: u64) -> Vec<u32> {
        let queue = &mut schedule.fetchers.get_mut(&LinkId(link)).expect("attached").queue;
        queue.drain(..).map(|id| id.0).collect()
    }

    #[test]
    fn an_exchange_is_first_choice_for_its_share_and_a_link_for_its_remainder() {
        let mut s = schedule(&[(1, "e1"), (2, "e1"), (3, "e2"), (4, "e2")]);
        s.share_out(all(8), 8);
        assert_eq!(drain(&mut s, 1), [0, 2]);
        assert_eq!(drain(&mut s, 2), [1, 3]);
        assert_eq!(drain(&mut s, 3), [4, 6]);
        assert_eq!(drain(&mut s, 4), [5, 7]);
    }

    #[test]
    fn shares_move_when_a_link_dies() {
        let mut s = schedule(&[(1, "e1"), (2, "e2")]);
        s.share_out(all(4), 4);
        s.detach(LinkId(2));
        s.share_out(all(4), 4);
        assert_eq!(drain(&mut s, 1), [0, 1, 2, 3]);
    }

    #[test]
    fn an_idle_link_takes_from_the_one_that_ends_last() {
        let mut s = schedule(&[(1, "e1"), (2, "e1"), (3, "e1")]);
        s.share_out(all(9), 9);
        drain(&mut s, 1);
        s.fetchers.get_mut(&LinkId(2)).expect("attached").queue.pop_back();
        let taken = s.take((LinkId(1), Side::Front), Time::ZERO, ByteCount(10), |_| true, |_| ByteCount(0), |_| None);
        assert_eq!(taken, Some(ObjectId(8)));
    }

    #[test]
    fn nothing_is_taken_from_a_link_that_would_end_it_sooner() {
        let mut s = schedule(&[(1, "e1"), (2, "e1")]);
        s.share_out(all(4), 4);
        drain(&mut s, 1);
        for (link, bytes) in [(1, 1_000_u64), (2, 100_000)] {
            let meter = &mut s.fetchers.get_mut(&LinkId(link)).expect("attached").meter;
            meter.start(Time::ZERO);
            meter.add(ByteCount(bytes), Time(Duration::from_secs(1)));
        }
        let now = Time(Duration::from_secs(1));
        assert_eq!(s.take((LinkId(1), Side::Front), now, ByteCount(1000), |_| true, |_| ByteCount(0), |_| None), None);
        drain(&mut s, 2);
        assert_eq!(s.take((LinkId(2), Side::Front), now, ByteCount(1000), |_| true, |_| ByteCount(0), |_| None), None);
    }

    #[test]
    fn a_deferred_object_waits_for_its_time() {
        let mut s = schedule(&[(1, "e1")]);
        let later = Time(Duration::from_secs(2));
        s.defer(ObjectId(7), later);
        assert_eq!(
            s.take((LinkId(1), Side::Front), Time::ZERO, ByteCount(1), |_| true, |_| ByteCount(0), |_| None),
            None
        );
        assert_eq!(
            s.take((LinkId(1), Side::Front), later, ByteCount(1), |_| true, |_| ByteCount(0), |_| None),
            Some(ObjectId(7))
        );
    }

    #[test]
    fn what_one_peer_does_not_have_is_left_to_the_others_for_a_while() {
        let mut s = schedule(&[(1, "e1"), (2, "e2")]);
        let said = name("e1");
        let at = Time(Duration::from_secs(2));
        let mut take = |link, now| {
            s.defer(ObjectId(7), at);
            s.take((LinkId(link), Side::Front), now, ByteCount(1), |_| true, |_| ByteCount(0), |_| Some(&said))
        };
        assert_eq!(take(1, at), None);
        assert_eq!(take(2, at), Some(ObjectId(7)));
        assert_eq!(take(1, at + limits::OTHERS_FIRST), Some(ObjectId(7)));
    }

    #[test]
    fn a_link_that_has_nothing_to_give_takes_no_work_from_others() {
        let mut s = schedule(&[(1, "e1"), (2, "e2")]);
        s.share_out(all(4), 4);
        drain(&mut s, 1);
        s.fetchers.get_mut(&LinkId(1)).expect("attached").handle_pending(Time::ZERO);
        let mut take = |now| s.take((LinkId(1), Side::Front), now, ByteCount(1), |_| true, |_| ByteCount(0), |_| None);
        assert_eq!(take(Time::ZERO), None);
        assert_eq!(take(Time(limits::RETRY_PENDING_MIN)), Some(ObjectId(3)));
    }

    #[test]
    fn those_who_ask_take_turns() {
        let mut s = schedule(&[(1, "t1")]);
        for (id, reader) in [(0, 7), (1, 7), (2, 7), (3, 8), (4, 9), (5, 8)] {
            s.push(ObjectId(id), Some(LinkId(reader)));
        }
        s.push_front(ObjectId(6));
        let mut take =
            || s.take((LinkId(1), Side::Front), Time::ZERO, ByteCount(1), |_| true, |_| ByteCount(0), |_| None);
        let order: Vec<_> = std::iter::from_fn(|| take().map(|id| id.0)).collect();
        assert_eq!(order, [6, 0, 3, 4, 1, 5, 2]);
    }
}
