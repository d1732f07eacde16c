//! Facts about objects of which a peer has nothing, or nothing right, one at a time.

use std::collections::BTreeSet;

use super::block_tests::{arrive, fetching, ms, name, peer, relay};
use crate::limits;
use crate::transfer::{Action, Availability};
use crate::units::{ByteCount, LinkId, ObjectId, Offset, Time};

const L1: LinkId = LinkId(1);
const L2: LinkId = LinkId(2);

/// Its other ranges, which were right, made the peer good again, so that the block was fetched without a pause.
#[test]
fn a_block_that_stays_wrong_is_fetched_ever_less_often() {
    let mut flow = fetching(&[("a", 100)], &[(L1, "e1")]);
    let (mut now, mut tries) = (0, Vec::new());
    while tries.len() < 8 {
        if let Some(range) = flow.next_range(L1, ms(now)) {
            tries.push(now);
            flow.handle_range_begin(range);
            flow.handle_verified(L1, range, 4711, ms(now));
        }
        now += 50;
    }
    let pauses: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.is_sorted() && pauses[0] <= 150 && pauses[6] >= 6400, "{pauses:?}");
}

/// No object was begun any more, and those that wait were hidden behind the others, until the node was restarted.
#[test]
fn as_many_as_may_be_in_block_hands_may_wait_for_a_peer_that_has_none_of_them() {
    let names: Vec<String> = (0..limits::GATHERS_MAX + 500).map(|at| format!("{at:05}")).collect();
    let objects: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1000)).collect();
    let mut flow = fetching(&objects, &[(L1, "e1")]);
    let (mut now, mut asked) = (0, BTreeSet::new());
    while asked.len() < limits::GATHERS_MAX {
        let ranges: Vec<_> = std::iter::from_fn(|| flow.next_range(L1, ms(now))).collect();
        asked.extend(ranges.iter().map(|range| range.object));
        ranges.into_iter().for_each(|range| flow.handle_range_pending(L1, range, ms(now)));
        now += 5;
        assert!(now < 1_000_000, "{} were asked for", asked.len());
    }
    // It has them now; another one that comes has them, too.
    now += 5000;
    let range = flow.next_range(L1, ms(now)).expect("what waits is asked for again");
    arrive(&mut flow, L1, range, ms(now + 1));
    flow.attach_blocks(L2, peer("e2"), ms(now + 1));
    let range = flow.next_range(L2, ms(now + 2)).expect("what waits for one may come from another");
    arrive(&mut flow, L2, range, ms(now + 3));
}

/// After one range of each of them nothing was asked for any more.
#[test]
fn all_of_what_waits_is_asked_for_where_no_further_objects_are_begun() {
    let mut flow = fetching(&[("a", 1 << 20), ("b", 1 << 20)], &[(L1, "e1")]);
    let first = flow.next_range(L1, ms(0)).expect("it is wanted");
    let second = flow.next_range(L1, ms(0)).expect("there is more of it");
    assert_eq!(first.object, second.object);
    flow.handle_range_pending(L1, first, ms(1));
    flow.open_parts = limits::OPEN_PARTS_MAX;
    // One range of it is on order still.
    let (mut now, mut left) = (5000, (1 << 20) - second.length.0);
    while left > 0 {
        let range = flow.next_range(L1, ms(now)).unwrap_or_else(|| panic!("{left} bytes are not asked for"));
        assert_eq!(range.object, first.object);
        arrive(&mut flow, L1, range, ms(now + 1));
        (now, left) = (now + 2, left - range.length.0);
    }
}

/// They were nobody else's for as long as the link lived.
#[test]
fn what_a_peer_has_nothing_of_is_left_to_those_who_carry_whole_objects() {
    let mut flow = fetching(&[("a", 1000), ("b", 1000)], &[(L1, "e1")]);
    flow.attach_fetcher(L2, peer("e2"));
    let ranges: Vec<_> = std::iter::from_fn(|| flow.next_range(L1, Time::ZERO)).collect();
    assert_eq!(ranges.len(), 2);
    assert_eq!(flow.next_request(L2, true, ms(1)), None, "both are on order");
    flow.handle_range_pending(L1, ranges[1], ms(2));
    assert_eq!(flow.next_request(L2, true, ms(3)), Some(ranges[1].object));
    flow.handle_begin(L2, ByteCount(1000), ms(4)).expect("it is wanted");
    arrive(&mut flow, L1, ranges[0], ms(5));
    assert_eq!(flow.next_range(L1, ms(6)), None);
}

/// What had come of it kept it from all others for as long as a link of ranges lived.
#[test]
fn what_a_peer_has_only_some_of_is_left_to_those_who_carry_whole_objects_in_the_end() {
    let mut flow = fetching(&[("a", 2 << 20)], &[(L1, "e1")]);
    flow.attach_fetcher(L2, peer("e2"));
    let range = flow.next_range(L1, Time::ZERO).expect("it is wanted");
    arrive(&mut flow, L1, range, ms(1));
    let patience = limits::BLOCKS_PATIENCE.as_millis() as u64;
    for now in (2..patience).step_by(10) {
        while let Some(range) = flow.next_range(L1, ms(now)) {
            flow.handle_range_pending(L1, range, ms(now));
        }
        assert_eq!(flow.next_request(L2, true, ms(now)), None, "it may come on");
    }
    assert_eq!(flow.next_request(L2, true, ms(patience + 2000)), Some(range.object));
}

/// It wanted something for ever from then on, and told that its peer had nothing of it.
#[test]
fn a_relay_wants_nothing_once_what_was_asked_for_as_a_whole_has_come_by_ranges() {
    let mut flow = relay(&[("a", 1000)]);
    let id = flow.demand(L2, &name("a"), Time::ZERO).expect("it is known");
    assert!(flow.wants_more());
    let range = flow.next_range(L1, ms(1)).expect("it is asked for");
    arrive(&mut flow, L1, range, ms(2));
    flow.handle_committed(id, range.generation, ms(3));
    assert_eq!(flow.next_range(L1, ms(4)), None);
    assert!(!flow.wants_more());
    flow.release(L2, id, true, ms(4));
    assert!(!flow.wants_more());
}

/// There is no range of it to ask for, so that nothing was, and whoever waited did so for ever.
#[test]
fn an_empty_object_is_made_at_once_for_who_asks_a_relay_for_the_whole_of_it() {
    let mut flow = relay(&[("a", 0)]);
    let id = flow.demand(L2, &name("a"), Time::ZERO).expect("it is known");
    assert!(matches!(flow.poll_action(), Some(Action::OpenPart { .. })));
    let Some(Action::Commit { generation, .. }) = flow.poll_action() else { panic!("it is whole") };
    flow.handle_created(id, generation);
    flow.handle_committed(id, generation, ms(1));
    assert!(matches!(flow.availability(id, ms(2)), Availability::Ready { size: ByteCount(0), .. }));
    assert_eq!((flow.next_range(L1, ms(3)), flow.wants_more()), (None, false));
}

/// All of the object was, from its beginning on and before all else.
#[test]
fn of_what_was_asked_for_while_nobody_could_give_it_no_more_is_fetched() {
    const ASKED: (Offset, ByteCount) = (Offset(512 << 10), ByteCount(32 << 10));
    let mut flow = relay(&[("a", 1 << 20)]);
    flow.detach_blocks(L1, ms(1));
    flow.demand_range(L2, ObjectId(0), ASKED.0, ASKED.1, ms(2));
    flow.attach_blocks(L1, peer("t1"), ms(3));
    let ranges: Vec<_> = std::iter::from_fn(|| flow.next_range(L1, ms(4))).collect();
    assert_eq!(ranges.iter().map(|range| (range.offset, range.length)).collect::<Vec<_>>(), [ASKED]);
}

/// Each such object cost room for ever.
#[test]
fn a_relay_keeps_nothing_of_what_was_asked_for_and_is_no_longer() {
    let mut flow = relay(&[("a", 1000), ("b", 1000)]);
    for id in [ObjectId(0), ObjectId(1)] {
        flow.demand_range(L2, id, Offset(0), ByteCount(1000), ms(1));
        flow.release_range(L2, id, false, ms(2));
    }
    assert_eq!(flow.next_range(L1, ms(3)), None);
    assert!(flow.blocks.gathers.is_empty());
}

/// It stood in the queue of those who carry whole objects for ever: at a trader, each version of each object.
#[test]
fn what_has_come_by_ranges_is_queued_no_more() {
    let mut flow = fetching(&[("a", 1000)], &[(L1, "e1")]);
    for now in 0..10_000 {
        let range = flow.next_range(L1, ms(now)).expect("it is wanted");
        arrive(&mut flow, L1, range, ms(now));
        flow.handle_committed(range.object, range.generation, ms(now));
        assert!(flow.want_again(&name("a"), ByteCount(1000)), "it is gone again");
    }
    assert!(flow.schedule.queued() < 2000, "{} are queued", flow.schedule.queued());
}
