//! Facts about objects of which a peer has nothing, or nothing right, one at a time.

use std::collections::BTreeSet;

use super::block_tests::{arrive, fetching, ms, name, peer, relay};
use crate::limits;
use crate::units::{ByteCount, LinkId, Time};

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
