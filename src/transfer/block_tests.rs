//! Facts about ranges, one at a time.

use std::time::Duration;

use super::{Action, Content, Entry, Event, Fault, Flow, News, ObjectState, Problem, RangeRequest, RangeState};
use crate::limits;
use crate::units::{ByteCount, LinkId, NodeName, ObjectId, ObjectName, Offset, Root256, Time};

const K: u64 = 1024;
const L1: LinkId = LinkId(1);
const L2: LinkId = LinkId(2);
const READER: LinkId = LinkId(9);

pub(super) fn name(text: &str) -> ObjectName {
    ObjectName::new(text.as_bytes()).expect("valid")
}

pub(super) fn peer(text: &str) -> NodeName {
    NodeName::new(text.as_bytes()).expect("valid")
}

pub(super) fn ms(ms: u64) -> Time {
    Time(Duration::from_millis(ms))
}

fn bytes(size: u64) -> Vec<u8> {
    (0..size as u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 21) as u8).collect()
}

fn entry(text: &str, size: u64, version: u8) -> Entry {
    let block_crcs = bytes(size).chunks(limits::BLOCK_BYTES as usize).map(crc_fast::crc32_iscsi).collect();
    let root = Root256([version; 32]);
    Entry { name: name(text), content: Content { size: ByteCount(size), mtime_ns: 0, mode: 0o644, root, block_crcs } }
}

/// A flow that fetches, with links to peers.
pub(super) fn fetching(objects: &[(&str, u64)], links: &[(LinkId, &str)]) -> Flow {
    let mut flow = Flow::fetch();
    for &(text, size) in objects {
        flow.know(entry(text, size, 1)).expect("room");
    }
    for &(link, to) in links {
        flow.attach_blocks(link, peer(to), Time::ZERO);
    }
    flow
}

pub(super) fn arrive(flow: &mut Flow, link: LinkId, range: RangeRequest, now: Time) {
    let all = bytes(range.end().0);
    let crc = crc_fast::crc32_iscsi(&all[range.offset.0 as usize..]);
    if flow.handle_range_begin(range) {
        flow.handle_created(range.object, range.generation);
    }
    flow.handle_range_data(link, Some(range), range.length, now);
    flow.handle_verified(link, range, crc, now);
}

/// What a link orders until it has as much on order as it ever has before it is measured.
fn orders(flow: &mut Flow, link: LinkId, now: Time) -> Vec<RangeRequest> {
    let first: Vec<_> = std::iter::from_fn(|| flow.next_range(link, now)).collect();
    let then = now + limits::RAMP_STEP * 32;
    first.into_iter().chain(std::iter::from_fn(|| flow.next_range(link, then))).collect()
}

fn actions(flow: &mut Flow) -> Vec<Action> {
    std::iter::from_fn(|| flow.poll_action()).collect()
}

fn at(range: &RangeRequest) -> (u32, u64, u64) {
    (range.object.0, range.offset.0 / K, range.length.0 / K)
}

#[test]
fn ranges_are_cut_off_the_front_of_the_earliest_object_by_whoever_has_room() {
    let mut flow = fetching(&[("a", 160 * K), ("b", 9000 * K)], &[(L1, "e1"), (L2, "e2")]);
    let one = flow.next_range(L1, Time::ZERO).expect("work");
    let two = flow.next_range(L2, Time::ZERO).expect("work");
    let three = flow.next_range(L2, Time::ZERO).expect("work");
    let four = flow.next_range(L1, Time::ZERO).expect("work");
    assert_eq!([one, two, three, four].each_ref().map(at), [(0, 0, 32), (0, 32, 32), (0, 64, 32), (0, 96, 32)]);
    let more = orders(&mut flow, L1, Time::ZERO);
    assert_eq!(more[..2].iter().map(at).collect::<Vec<_>>(), [(0, 128, 32), (1, 0, 32)]);
    let owed = flow.health(L1, Time::ZERO).expect("attached").owed;
    assert_eq!(owed, ByteCount(limits::RANGES_AHEAD_BYTES_MIN), "so much, and no more");
}

#[test]
fn what_a_dead_link_had_on_order_goes_first() {
    let mut flow = fetching(&[("a", 5000 * K)], &[(L1, "e1"), (L2, "e2")]);
    let lost = orders(&mut flow, L1, Time::ZERO);
    let next = flow.next_range(L2, Time::ZERO).expect("work");
    assert!(next.offset >= lost.last().expect("some").end());
    flow.detach_blocks(L1, Time::ZERO);
    assert_eq!(flow.next_range(L2, Time::ZERO), Some(lost[0]));
}

#[test]
fn bytes_that_are_written_when_their_link_is_gone_count() {
    let mut flow = fetching(&[("a", 100 * K)], &[(L1, "e1"), (L2, "e2")]);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    flow.handle_range_begin(range);
    flow.detach_blocks(L1, Time::ZERO);
    let again = flow.next_range(L2, Time::ZERO).expect("work");
    assert_eq!(again, range);
    arrive(&mut flow, L1, range, ms(1));
    assert_eq!(flow.poll_cancel(L2), Some(again), "nobody waits for the second copy");
    assert!(matches!(flow.state(range.object), ObjectState::Gathering { verified: ByteCount(v), .. } if v == 32 * K));
    assert_eq!(flow.health(L1, ms(1)).map(|health| health.verified), Some(ByteCount(32 * K)), "they are its own");
    assert_eq!(flow.take_ended(L1).map(|health| health.verified), Some(ByteCount(32 * K)));
    assert_eq!(flow.health(L1, ms(1)), None, "and nothing is kept of it for ever");
}

#[test]
fn damage_that_is_found_when_its_link_is_gone_counts() {
    let mut flow = fetching(&[("a", 100 * K)], &[(L1, "e1"), (L2, "e2")]);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    flow.detach_blocks(L1, Time::ZERO);
    flow.handle_damaged(L1, range, ms(1));
    assert_eq!(flow.take_ended(L1).map(|health| health.bad_ranges), Some(1));
}

#[test]
fn a_link_says_what_it_waits_for() {
    let mut flow = fetching(&[("a", 100 * K)], &[(L1, "e1")]);
    let idle = flow.health(L1, ms(900)).expect("attached");
    assert_eq!((idle.object, idle.silent, idle.pending), (None, Duration::ZERO, false));
    let range = flow.next_range(L1, ms(1000)).expect("work");
    let waits = flow.health(L1, ms(1700)).expect("attached");
    assert_eq!((waits.object, waits.silent), (Some(range.object), Duration::from_millis(700)));
    flow.handle_range_pending(L1, range, ms(1800));
    let told = flow.health(L1, ms(1900)).expect("attached");
    assert!(told.pending && told.orders == 0 && flow.wants_more());
}

#[test]
fn a_damaged_range_comes_over_another_link_where_there_is_one() {
    let mut flow = fetching(&[("a", 32 * K)], &[(L1, "e1"), (L2, "e2")]);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    flow.handle_range_begin(range);
    flow.handle_damaged(L1, range, Time::ZERO);
    assert_eq!(flow.next_range(L1, Time::ZERO), None);
    assert_eq!(flow.next_range(L2, Time::ZERO), Some(range));
    flow.detach_blocks(L2, Time::ZERO);
    assert_eq!(flow.next_range(L1, Time::ZERO), Some(range), "there is no other link left");
    let health = flow.health(L1, Time::ZERO).expect("attached");
    assert_eq!(health.bad_ranges, 1);
}

#[test]
fn a_link_that_damages_three_of_sixteen_is_put_aside_then_probed_with_one_range() {
    let mut flow = fetching(&[("a", 9000 * K)], &[(L1, "e1"), (L2, "e2")]);
    for _ in 0..3 {
        let range = flow.next_range(L1, Time::ZERO).expect("work");
        flow.handle_damaged(L1, range, Time::ZERO);
    }
    assert_eq!(flow.health(L1, Time::ZERO).and_then(|h| h.aside_until), Some(Time::ZERO + limits::ASIDE));
    assert_eq!(flow.next_range(L1, ms(1)), None);
    assert_eq!(flow.poll_range_timeout(L1, ms(1)), Some(Time::ZERO + limits::ASIDE));
    let later = Time::ZERO + limits::ASIDE;
    let probe = orders(&mut flow, L1, later);
    assert_eq!(probe.len(), 1);
    arrive(&mut flow, L1, probe[0], later);
    assert!(orders(&mut flow, L1, later).len() > 1, "it is trusted again");
}

#[test]
fn the_only_link_is_never_put_aside() {
    let mut flow = fetching(&[("a", 9000 * K)], &[(L1, "e1")]);
    for _ in 0..20 {
        let range = flow.next_range(L1, Time::ZERO).expect("work");
        flow.handle_damaged(L1, range, Time::ZERO);
    }
}

/// A flow of which one link has brought all but the two ranges that the other one has on order and nothing of.
fn stalled() -> (Flow, [RangeRequest; 2]) {
    let mut flow = fetching(&[("a", 256 * K)], &[(L1, "e1"), (L2, "e2")]);
    let slow = [flow.next_range(L1, Time::ZERO).expect("work"), flow.next_range(L1, Time::ZERO).expect("work")];
    let mut now = Time::ZERO;
    for _ in 0..6 {
        let range = flow.next_range(L2, now).expect("work");
        now = now + Duration::from_millis(150);
        arrive(&mut flow, L2, range, now);
    }
    (flow, slow)
}

#[test]
fn an_idle_link_takes_a_second_copy_of_what_a_stalled_one_has_and_the_first_copy_wins() {
    let (mut flow, slow) = stalled();
    let stolen = flow.next_range(L2, ms(1500)).expect("a second copy");
    assert_eq!(stolen, slow[1], "of what it would deliver last");
    arrive(&mut flow, L2, stolen, ms(1550));
    assert_eq!(flow.poll_cancel(L1), Some(stolen));
    let health = flow.health(L2, ms(1550)).expect("attached");
    assert_eq!(health.stolen, stolen.length);
    // It was on its way all the same.
    flow.handle_range_data(L1, None, stolen.length, ms(1600));
    flow.handle_verified(L1, stolen, 0, ms(1600));
    assert_eq!(flow.health(L1, ms(1600)).expect("attached").duplicated, stolen.length);
}

/// What came for one of two orders of a link was taken for the other's, and what that was still to bring was nobody's
/// when the link died.
#[test]
fn a_link_takes_no_second_copy_of_what_it_has_on_order_in_part() {
    let (mut flow, slow) = stalled();
    assert_eq!(flow.next_range(L2, ms(1500)), Some(slow[1]), "a second copy");
    for (link, from, to, now) in [(L1, 0, 8, 1600), (L2, 0, 12, 3000), (L2, 12, 24, 3250)] {
        let (offset, length) = (slow[1].offset + ByteCount(from * K), ByteCount((to - from) * K));
        arrive(&mut flow, link, RangeRequest { offset, length, ..slow[1] }, ms(now));
    }
    assert_eq!(flow.next_range(L2, ms(3260)), Some(slow[0]));
}

#[test]
fn equal_links_do_not_take_from_each_other() {
    let mut flow = fetching(&[("a", 128 * K)], &[(L1, "e1"), (L2, "e2")]);
    let (one, two) = (flow.next_range(L1, Time::ZERO), flow.next_range(L2, Time::ZERO));
    let (three, four) = (flow.next_range(L1, Time::ZERO), flow.next_range(L2, Time::ZERO));
    arrive(&mut flow, L1, one.expect("work"), ms(45));
    arrive(&mut flow, L2, two.expect("work"), ms(46));
    arrive(&mut flow, L1, three.expect("work"), ms(90));
    assert_eq!(flow.next_range(L1, ms(90)), None, "the other one is as good as done with {four:?}");
}

#[test]
fn what_one_peer_has_not_comes_from_the_other() {
    let mut flow = fetching(&[("a", 64 * K)], &[(L1, "e1"), (L2, "e2")]);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    flow.handle_range_pending(L1, range, Time::ZERO);
    assert_eq!(flow.next_range(L1, ms(1)), None);
    assert!(flow.poll_range_timeout(L1, ms(1)).is_some());
    assert_eq!(flow.next_range(L2, ms(1)), Some(range));
    flow.handle_range_pending(L2, range, ms(1));
    assert_eq!(flow.next_range(L1, Time::ZERO + limits::RETRY_PENDING_MIN), Some(range));
}

#[test]
fn a_wrong_block_is_told_and_fetched_again() {
    let mut flow = fetching(&[("a", 100)], &[(L1, "e1"), (L2, "e2")]);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    flow.handle_range_begin(range);
    flow.handle_verified(L1, range, 4711, ms(1));
    let problem = Problem::WrongBlock { offset: Offset(0) };
    assert_eq!(flow.poll_event(), Some(Event::Failed { name: name("a"), problem }));
    assert_eq!(flow.health(L1, ms(1)).expect("attached").bad_ranges, 1);
    let again = flow.next_range(L2, ms(1)).expect("work");
    arrive(&mut flow, L2, again, ms(2));
    assert!(matches!(flow.state(range.object), ObjectState::Whole { .. }));
}

#[test]
fn an_object_is_opened_once_and_committed_with_its_root() {
    let mut flow = fetching(&[("a", 100 * K), ("empty", 0)], &[(L1, "e1")]);
    let ranges = orders(&mut flow, L1, Time::ZERO);
    ranges.iter().for_each(|&range| arrive(&mut flow, L1, range, ms(1)));
    let root = Some(Root256([1; 32]));
    let all = actions(&mut flow);
    let opened = all.iter().filter(|a| matches!(a, Action::OpenPart { .. })).count();
    assert_eq!((all.len(), opened), (4, 2), "{all:?}");
    let id = ranges[0].object;
    let generation = ranges[0].generation;
    let commits = |a: &Action| matches!(a, Action::Commit { id: i, generation: g, root: r, .. } if (*i, *g, *r) == (id, generation, root));
    assert!(all.iter().any(commits));
    for action in all {
        if let Action::Commit { id, generation, .. } = action {
            flow.handle_committed(id, generation, ms(2));
        }
    }
    assert!(flow.is_complete());
}

#[test]
fn a_wrong_root_has_all_of_it_fetched_again() {
    let mut flow = fetching(&[("a", 100)], &[(L1, "e1")]);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    arrive(&mut flow, L1, range, ms(1));
    flow.handle_root_failed(range.object, range.generation, ms(2));
    assert_eq!(flow.next_range(L1, ms(3)), None);
    let again = flow.next_range(L1, Time::ZERO + limits::HOLD_MIN * 2).expect("work");
    assert!(again.generation != range.generation);
}

#[test]
fn an_object_that_changes_while_it_comes_in_is_begun_again() {
    let mut flow = fetching(&[("a", 100 * K)], &[(L1, "e1")]);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    arrive(&mut flow, L1, range, ms(1));
    flow.know(entry("a", 90 * K, 2)).expect("room");
    assert!(actions(&mut flow).iter().any(|action| matches!(action, Action::Abandon { .. })));
    assert!(!flow.wants_piece(range), "bytes of the former version are not wanted");
    let again = flow.next_range(L1, ms(2)).expect("work");
    assert_eq!((again.offset, again.generation == range.generation), (Offset(0), false));
    assert_eq!(flow.totals().bytes, ByteCount(90 * K));
}

/// The bytes of the one went on to come in for the other, which was never whole; what was here counted for two lengths.
#[test]
fn another_length_of_the_same_root_is_another_version_or_a_lie_where_that_root_is_here() {
    let mut flow = fetching(&[("a", 64 * K)], &[(L1, "e1")]);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    arrive(&mut flow, L1, range, ms(1));
    flow.know(entry("a", 32 * K, 1)).expect("the last word counts");
    let range = flow.next_range(L1, ms(2)).expect("work");
    assert_eq!(at(&range), (0, 0, 32));
    arrive(&mut flow, L1, range, ms(3));
    let generation = actions_generation(&mut flow);
    flow.handle_committed(range.object, generation, ms(4));
    assert_eq!(flow.know(entry("a", 64 * K, 1)), None, "it cannot be");
    assert!(flow.is_complete());
    flow.forget(&name("a"));
    assert!(flow.want_again(&name("a"), ByteCount(32 * K)));
    assert_eq!((flow.totals().objects, flow.totals().bytes), (0, ByteCount(0)));
}

#[test]
fn an_object_is_in_one_kind_of_hands_at_a_time_and_left_to_whole_ones_in_the_end() {
    let mut flow = fetching(&[("a", 100 * K)], &[(L1, "e1")]);
    flow.attach_fetcher(L2, peer("e2"));
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    assert_eq!(flow.next_request(L2, false, Time::ZERO), None);
    flow.detach_blocks(L1, ms(1));
    assert_eq!(flow.next_request(L2, false, ms(2)), None);
    assert_eq!(flow.next_request(L2, false, ms(2) + limits::BLOCKS_PATIENCE), Some(range.object));
    flow.attach_blocks(L1, peer("e1"), ms(3));
    assert_eq!(flow.next_range(L1, ms(3)), None);
}

/// It was asked for again, under the name that it had had, and counted as present though it was none of the objects.
#[test]
fn what_is_gone_at_its_origin_while_a_link_of_whole_objects_has_it_on_order_does_not_come() {
    for is_begun in [false, true] {
        let mut flow = fetching(&[], &[(L1, "e1")]);
        flow.attach_fetcher(L2, peer("seed"));
        assert!(flow.subscription(L1, &peer("e1")).is_some() && flow.begin_news(L1, &peer("e1"), 1));
        flow.learn(&peer("e1"), entry("a", 64 * K, 1));
        let id = flow.next_request(L2, true, Time::ZERO).expect("it is wanted");
        if is_begun {
            flow.handle_begin(L2, ByteCount(64 * K), ms(1)).expect("it is wanted");
        }
        flow.unlearn(&peer("e1"), &name("a"));
        assert_eq!((flow.totals().objects, flow.is_complete()), (0, true));
        if !is_begun {
            assert!(flow.handle_begin(L2, ByteCount(64 * K), ms(2)).is_err(), "nobody wants it");
        }
        flow.handle_received(L2, ms(3));
        assert_eq!(flow.next_request(L2, true, ms(4)), None);
        flow.learn(&peer("e1"), entry("b", 64 * K, 1));
        assert_eq!(flow.next_request(L2, true, ms(5)), Some(id), "its place is another's");
        assert_eq!(flow.name(id), &name("b"));
    }
}

/// It was nobody's from then on, though a peer without an inventory may have it.
#[test]
fn what_is_listed_and_gone_at_a_peer_while_it_comes_in_is_asked_of_others() {
    let mut flow = Flow::fetch();
    flow.want(name("a"), Some(ByteCount(64 * K)), false);
    flow.attach_blocks(L1, peer("e1"), Time::ZERO);
    flow.attach_fetcher(L2, peer("seed"));
    assert!(flow.subscription(L1, &peer("e1")).is_some() && flow.begin_news(L1, &peer("e1"), 1));
    flow.learn(&peer("e1"), entry("a", 64 * K, 1));
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    flow.unlearn(&peer("e1"), &name("a"));
    assert_eq!(flow.next_request(L2, true, ms(1)), Some(range.object));
}

#[test]
fn an_earlier_runs_whole_blocks_are_not_ordered() {
    let mut flow = fetching(&[("a", 3000 * K)], &[]);
    let have = [(Offset(0), ByteCount(2100 * K))].into_iter().collect();
    flow.resume(name("a"), (ByteCount(3000 * K), Root256([1; 32])), have, Vec::new());
    flow.attach_blocks(L1, peer("e1"), Time::ZERO);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    assert_eq!(range.offset, Offset(2048 * K));
    flow.handle_range_begin(range);
    assert!(matches!(actions(&mut flow)[..], [Action::OpenPart { resumed: true, .. }]));
}

fn pieces(of: u64, runs: &[(u64, u64)]) -> Vec<(Offset, ByteCount, u32)> {
    let all = bytes(of);
    let piece = |&(offset, end): &(u64, u64)| {
        (Offset(offset), ByteCount(end - offset), crc_fast::crc32_iscsi(&all[offset as usize..end as usize]))
    };
    runs.iter().map(piece).collect()
}

#[test]
fn an_earlier_runs_pieces_of_a_block_are_not_ordered() {
    let size = 1000 * K;
    let mut flow = fetching(&[("a", size)], &[]);
    let runs = [(32 * K, 512 * K), (600 * K, size)];
    let have = runs.iter().map(|run| (Offset(run.0), ByteCount(run.1 - run.0))).collect();
    flow.resume(name("a"), (ByteCount(3000 * K), Root256([1; 32])), have, pieces(size, &runs));
    flow.attach_blocks(L1, peer("e1"), Time::ZERO);
    let ranges = orders(&mut flow, L1, Time::ZERO);
    assert_eq!(ranges.iter().map(at).collect::<Vec<_>>(), [(0, 0, 32), (0, 512, 32), (0, 544, 32), (0, 576, 24)]);
    ranges.into_iter().for_each(|range| arrive(&mut flow, L1, range, ms(1)));
    let root = Some(Root256([1; 32]));
    assert!(actions(&mut flow).iter().any(|action| matches!(action, Action::Commit { root: r, .. } if *r == root)));
}

#[test]
fn what_an_earlier_run_left_whole_is_committed_and_not_ordered() {
    let mut flow = fetching(&[("a", 100 * K)], &[]);
    flow.resume(
        name("a"),
        (ByteCount(3000 * K), Root256([1; 32])),
        [(Offset(0), ByteCount(100 * K))].into_iter().collect(),
        Vec::new(),
    );
    flow.attach_blocks(L1, peer("e1"), Time::ZERO);
    assert_eq!(flow.next_range(L1, Time::ZERO), None);
    assert!(matches!(actions(&mut flow)[..], [Action::OpenPart { resumed: true, .. }, Action::Commit { .. }]));
}

#[test]
fn what_is_left_of_a_new_version_is_gone_on_with_beside_the_one_that_is_here() {
    let mut flow = Flow::fetch();
    let have = [(Offset(0), ByteCount(2048 * K))].into_iter().collect();
    flow.resume(name("a"), (ByteCount(3000 * K), Root256([2; 32])), have, Vec::new());
    flow.have(name("a"), ByteCount(2100 * K), Root256([1; 32]));
    flow.know(entry("a", 3000 * K, 2)).expect("room");
    assert!(actions(&mut flow).is_empty(), "nothing of it is thrown away");
}

#[test]
fn what_is_whole_and_could_not_be_committed_is_committed_later_and_not_fetched_again() {
    let mut flow = fetching(&[("a", 32 * K)], &[(L1, "e1")]);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    arrive(&mut flow, L1, range, ms(1));
    let commits = |flow: &mut Flow| {
        let commit = |action| match action {
            Action::Commit { generation, .. } => Some(generation),
            _ => None,
        };
        actions(flow).into_iter().filter_map(commit).collect::<Vec<_>>()
    };
    let [generation] = commits(&mut flow)[..] else { panic!("it is whole") };
    assert!(flow.handle_commit_failed(ObjectId(0), generation, "denied".into(), Fault::Name, ms(2)));
    assert!(!flow.handle_commit_failed(ObjectId(0), generation, "denied".into(), Fault::Name, ms(2)), "it is over");
    assert_eq!((flow.next_range(L1, ms(3)), flow.totals().failed), (None, 1));
    let later = Time(2 * limits::HOLD_MIN);
    assert_eq!(flow.next_range(L1, later), None);
    let [again] = commits(&mut flow)[..] else { panic!("it is tried again") };
    flow.handle_committed(ObjectId(0), again, later);
    assert_eq!((flow.is_complete(), flow.totals().failed), (true, 0));
}

#[test]
fn a_block_that_an_earlier_run_left_wrong_is_fetched_again_and_no_link_blamed() {
    let mut flow = fetching(&[("a", 96 * K)], &[]);
    let mut left = pieces(96 * K, &[(0, 64 * K)]);
    left[0].2 ^= 1;
    flow.resume(
        name("a"),
        (ByteCount(3000 * K), Root256([1; 32])),
        [(Offset(0), ByteCount(64 * K))].into_iter().collect(),
        left,
    );
    flow.attach_blocks(L1, peer("e1"), Time::ZERO);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    assert_eq!(at(&range), (0, 64, 32));
    arrive(&mut flow, L1, range, ms(1));
    assert_eq!(flow.health(L1, ms(1)).expect("attached").bad_ranges, 0);
    assert_eq!(flow.next_range(L1, ms(2)).as_ref().map(at), Some((0, 0, 32)));
}

#[test]
fn what_is_left_of_another_version_or_of_what_is_gone_is_thrown_away() {
    let mut flow = Flow::fetch();
    for text in ["a", "b"] {
        let have = [(Offset(0), ByteCount(2048 * K))].into_iter().collect();
        flow.resume(name(text), (ByteCount(2100 * K), Root256([2; 32])), have, Vec::new());
    }
    flow.know(entry("a", 3000 * K, 1)).expect("room");
    flow.know(entry("b", 2100 * K, 2)).expect("room");
    flow.forget(&name("b"));
    let discard = |text| Action::Discard { name: name(text), size: ByteCount(2100 * K), root: Root256([2; 32]) };
    assert_eq!(actions(&mut flow), [discard("a"), discard("b")]);
    flow.attach_blocks(L1, peer("e1"), Time::ZERO);
    assert_eq!(flow.next_range(L1, Time::ZERO).map(|range| range.offset), Some(Offset(0)));
}

/// A mode or time that was changed alone never came over, while everything was said to be in step.
#[test]
fn attributes_that_change_alone_are_set_when_the_object_is_final() {
    let attributes = |mode| Entry { content: Content { mode, ..entry("a", 32 * K, 1).content }, name: name("a") };
    let set = |flow: &mut Flow| {
        actions(flow).into_iter().filter(|action| matches!(action, Action::SetAttributes { .. })).count()
    };
    let mut flow = fetching(&[("a", 32 * K)], &[(L1, "e1")]);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    arrive(&mut flow, L1, range, ms(1));
    flow.know(attributes(0o600)).expect("room");
    assert_eq!(set(&mut flow), 0, "its part has been given the former ones");
    flow.handle_committed(range.object, range.generation, ms(2));
    assert_eq!(set(&mut flow), 1);
    flow.know(attributes(0o600)).expect("room");
    assert_eq!(set(&mut flow), 0, "that is no news");
    flow.know(attributes(0o640)).expect("room");
    assert_eq!((set(&mut flow), flow.is_complete()), (1, true));

    let mut flow = fetching(&[("a", 32 * K)], &[(L1, "e1")]);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    arrive(&mut flow, L1, range, ms(1));
    flow.handle_committed(range.object, range.generation, ms(2));
    assert_eq!(set(&mut flow), 0, "it was made final with them");

    let mut flow = Flow::fetch();
    flow.have(name("a"), ByteCount(32 * K), Root256([1; 32]));
    flow.know(attributes(0o600)).expect("room");
    assert_eq!(set(&mut flow), 1, "they may have changed since the earlier run");

    let mut flow = relay(&[("a", 32 * K)]);
    flow.know(attributes(0o600)).expect("room");
    assert_eq!(set(&mut flow), 0);
}

pub(super) fn relay(objects: &[(&str, u64)]) -> Flow {
    let mut flow = Flow::relay(ByteCount(4096 * K));
    for &(text, size) in objects {
        flow.know(entry(text, size, 1)).expect("room");
    }
    flow.attach_blocks(L1, peer("t1"), Time::ZERO);
    flow
}

#[test]
fn a_relay_fetches_what_is_asked_for_once_and_oldest_first_by_turns() {
    let mut flow = relay(&[("a", 1024 * K), ("b", 64 * K)]);
    assert_eq!(flow.next_range(L1, Time::ZERO), None);
    flow.demand_range(READER, ObjectId(0), Offset(64 * K), ByteCount(64 * K), Time::ZERO);
    flow.demand_range(READER, ObjectId(1), Offset(0), ByteCount(64 * K), Time::ZERO);
    flow.demand_range(LinkId(8), ObjectId(0), Offset(64 * K), ByteCount(128 * K), Time::ZERO);
    let ranges = orders(&mut flow, L1, Time::ZERO);
    assert_eq!(
        ranges.iter().map(at).collect::<Vec<_>>(),
        [(0, 128, 32), (0, 64, 32), (0, 160, 32), (0, 96, 32), (1, 0, 32), (1, 32, 32)]
    );
    let state = |flow: &Flow, offset| flow.range_state(ObjectId(0), Offset(offset), ByteCount(64 * K), ms(1));
    assert_eq!(state(&flow, 64 * K), RangeState::Awaited);
    assert_eq!(state(&flow, 512 * K), RangeState::Pending, "nobody asked for it");
    assert_eq!(state(&flow, 1000 * K), RangeState::Invalid);
    while flow.poll_wake().is_some() {}
    arrive(&mut flow, L1, ranges[1], ms(1));
    let generation = ranges[1].generation;
    assert_eq!(state(&flow, 64 * K), RangeState::Ready { length: ByteCount(32 * K), generation });
    assert_eq!(std::iter::from_fn(|| flow.poll_wake()).collect::<Vec<_>>(), [LinkId(8), READER]);
}

/// What was on order of it to the last byte was asked for again, of the shorter version, beyond its end and for good.
#[test]
fn a_relay_asks_for_nothing_beyond_the_end_of_a_version_that_is_shorter() {
    let mut flow = relay(&[("a", 64 * K)]);
    flow.demand_range(READER, ObjectId(0), Offset(0), ByteCount(64 * K), Time::ZERO);
    assert!((0..2).all(|_| flow.next_range(L1, Time::ZERO).is_some()), "it is all on order");
    flow.know(entry("a", 8 * K, 2)).expect("room");
    flow.demand_range(READER, ObjectId(0), Offset(0), ByteCount(8 * K), Time::ZERO);
    assert_eq!(orders(&mut flow, L1, Time::ZERO).iter().map(at).collect::<Vec<_>>(), [(0, 0, 8)]);
}

/// It was a problem for good, though its reader had it over another exchange.
#[test]
fn what_is_too_long_for_a_spool_is_a_problem_while_somebody_wants_it() {
    let mut flow = relay(&[("a", 5000 * K)]);
    for _ in 0..2 {
        flow.demand_range(READER, ObjectId(0), Offset(0), ByteCount(64 * K), Time::ZERO);
        assert_eq!(flow.next_range(L1, Time::ZERO), None);
        assert_eq!(flow.totals().failed, 1);
        flow.release(READER, ObjectId(0), false, Time::ZERO);
        assert_eq!(flow.totals().failed, 0);
    }
}

/// The disk of a spool filled up: whoever waited was told so and let go, and what was on its way by then could not be
/// written either. It was a problem for good, of objects that nobody wanted any more.
#[test]
fn what_cannot_be_stored_when_nobody_wants_it_any_more_is_no_problem() {
    let mut flow = relay(&[("a", 64 * K)]);
    flow.demand_range(READER, ObjectId(0), Offset(0), ByteCount(64 * K), Time::ZERO);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    assert!(flow.handle_range_begin(range));
    flow.release_range(READER, ObjectId(0), false, ms(1));
    flow.handle_store_failed(ObjectId(0), range.generation, "full".to_owned(), Fault::Store, ms(2));
    assert_eq!(flow.totals().failed, 0);
    assert!(matches!(flow.poll_event(), Some(Event::Failed { .. })), "it is told all the same");
}

#[test]
fn a_relay_has_what_an_earlier_run_left_and_does_not_fetch_it() {
    let size = 200 * K;
    let mut flow = Flow::relay(ByteCount(4096 * K));
    let have = [(Offset(0), ByteCount(128 * K))].into_iter().collect();
    flow.resume(name("a"), (ByteCount(3000 * K), Root256([1; 32])), have, pieces(size, &[(0, 128 * K)]));
    flow.resume(
        name("b"),
        (ByteCount(3000 * K), Root256([1; 32])),
        [(Offset(0), ByteCount(size))].into_iter().collect(),
        Vec::new(),
    );
    for text in ["a", "b"] {
        flow.know(entry(text, size, 1)).expect("room");
    }
    assert_eq!(flow.spool().map(|spool| spool.0), Some(ByteCount(2 * size)));
    flow.attach_blocks(L1, peer("t1"), Time::ZERO);
    flow.demand_range(READER, ObjectId(0), Offset(64 * K), ByteCount(64 * K), Time::ZERO);
    assert_eq!(flow.next_range(L1, Time::ZERO), None);
    let state = |flow: &Flow| flow.range_state(ObjectId(0), Offset(64 * K), ByteCount(64 * K), ms(1));
    assert_eq!(state(&flow), RangeState::Awaited, "its part is not open yet");
    let done = actions(&mut flow);
    let [Action::OpenPart { id, generation, .. }, Action::OpenPart { .. }, Action::Commit { .. }] = done[..] else {
        panic!("{done:?}")
    };
    while flow.poll_wake().is_some() {}
    flow.handle_created(id, generation);
    assert_eq!(state(&flow), RangeState::Ready { length: ByteCount(64 * K), generation });
    assert_eq!(flow.poll_wake(), Some(READER));
    flow.demand_range(READER, ObjectId(0), Offset(128 * K), ByteCount(64 * K), ms(2));
    assert_eq!(flow.next_range(L1, ms(2)).as_ref().map(at), Some((0, 128, 32)));
}

#[test]
fn a_relay_reserves_room_with_the_first_range_and_gives_it_up_once_delivered() {
    let mut flow = relay(&[("a", 3000 * K), ("b", 3000 * K)]);
    for id in [ObjectId(0), ObjectId(1)] {
        flow.demand_range(READER, id, Offset(0), ByteCount(32 * K), Time::ZERO);
    }
    let ranges = orders(&mut flow, L1, Time::ZERO);
    assert_eq!(ranges.iter().map(at).collect::<Vec<_>>(), [(0, 0, 32)], "there is room for one");
    arrive(&mut flow, L1, ranges[0], ms(1));
    flow.release_range(READER, ObjectId(0), true, ms(2));
    assert_eq!(flow.spool().map(|spool| spool.0), Some(ByteCount(3000 * K)));
    assert_eq!(flow.next_range(L1, ms(3)).as_ref().map(at), Some((1, 0, 32)));
    assert!(actions(&mut flow).iter().any(|action| matches!(action, Action::Abandon { id: ObjectId(0), .. })));
    assert_eq!(flow.spool().map(|spool| spool.0), Some(ByteCount(3000 * K)));
}

/// A relay's last reader went (its far trader had the object from elsewhere) while the last range was on its way. The
/// object stood on the list of what may go as it was before its commit and after it, and throwing it away never came to
/// an end.
#[test]
fn what_is_complete_when_nobody_reads_it_any_more_is_thrown_away_once() {
    let mut flow = relay(&[("a", 32 * K)]);
    flow.demand_range(READER, ObjectId(0), Offset(0), ByteCount(32 * K), Time::ZERO);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    flow.release_range(READER, ObjectId(0), true, ms(1));
    arrive(&mut flow, L1, range, ms(2));
    flow.handle_committed(ObjectId(0), range.generation, ms(3));
    assert_eq!(flow.spool().map(|spool| spool.0), Some(ByteCount(32 * K)));
    flow.expire(ms(3) + limits::KEEP_DELIVERED);
    assert_eq!(flow.spool().map(|spool| spool.0), Some(ByteCount(0)));
    let evicted = actions(&mut flow).into_iter().filter(|action| matches!(action, Action::Evict { .. })).count();
    assert_eq!(evicted, 1);
}

#[test]
fn a_relay_does_not_fetch_what_was_asked_for_and_then_was_not() {
    let mut flow = relay(&[("a", 64 * K)]);
    flow.demand_range(READER, ObjectId(0), Offset(0), ByteCount(64 * K), Time::ZERO);
    flow.release_range(READER, ObjectId(0), false, ms(1));
    assert_eq!(flow.next_range(L1, ms(2)), None);
    flow.demand_range(READER, ObjectId(0), Offset(0), ByteCount(64 * K), ms(3));
    assert!(flow.next_range(L1, ms(3)).is_some(), "asked for again");
}

#[test]
fn a_relay_whose_upstream_has_not_what_it_tells_says_so() {
    let mut flow = relay(&[("a", 64 * K)]);
    flow.demand_range(READER, ObjectId(0), Offset(0), ByteCount(64 * K), Time::ZERO);
    let range = flow.next_range(L1, Time::ZERO).expect("work");
    flow.handle_range_pending(L1, range, ms(1));
    let state = |flow: &Flow, now| flow.range_state(ObjectId(0), Offset(0), ByteCount(64 * K), now);
    assert_eq!(state(&flow, ms(2)), RangeState::Pending);
    flow.release_range(READER, ObjectId(0), false, ms(2));
    flow.demand_range(READER, ObjectId(0), Offset(0), ByteCount(64 * K), ms(500));
    assert_eq!(state(&flow, ms(500)), RangeState::Awaited);
    assert_eq!(flow.next_range(L1, ms(500)), Some(range));
    flow.detach_blocks(L1, ms(501));
    assert_eq!(state(&flow, ms(501)), RangeState::Pending);
}

#[test]
fn a_reader_of_whole_objects_is_served_what_comes_by_ranges() {
    let mut flow = relay(&[("a", 1500 * K)]);
    let id = flow.demand(READER, &name("a"), Time::ZERO).expect("known");
    let mut now = Time::ZERO;
    while !matches!(flow.state(id), ObjectState::Whole { .. }) {
        let range = flow.next_range(L1, now).expect("work");
        now = now + Duration::from_millis(40);
        arrive(&mut flow, L1, range, now);
    }
    let generation = actions_generation(&mut flow);
    flow.handle_committed(id, generation, now);
    assert!(matches!(flow.state(id), ObjectState::Present { .. }));
}

fn actions_generation(flow: &mut Flow) -> crate::units::Generation {
    let commit = actions(flow).into_iter().find_map(|action| match action {
        Action::Commit { generation, .. } => Some(generation),
        _ => None,
    });
    commit.expect("it is whole")
}

/// A trader that asks for every second byte and cancels that at once had its exchange keep and sort all of it.
#[test]
fn what_a_reader_cancels_is_not_kept_without_end() {
    let mut flow = relay(&[("a", 3000 * K)]);
    let (id, one, other) = (ObjectId(0), ByteCount(1), LinkId(8));
    flow.demand_range(READER, id, Offset(0), one, Time::ZERO);
    let asked = 2 * limits::DEMANDS_PER_LINK_MAX as u64;
    for at in (1..=asked).rev().map(|at| Offset(2 * at)) {
        flow.demand_range(READER, id, at, one, Time::ZERO);
        flow.release_range(READER, id, true, Time::ZERO);
    }
    assert_eq!(flow.blocks.demands.iter().count(), limits::DEMANDS_PER_LINK_MAX);
    assert_eq!(flow.range_state(id, Offset(2), one, Time::ZERO), RangeState::Pending, "it may ask again");
    flow.demand_range(other, id, Offset(2000 * K), ByteCount(32 * K), Time::ZERO);
    let next: Vec<_> = [(); 2].iter().filter_map(|()| flow.next_range(L1, Time::ZERO)).collect();
    assert!(next.iter().any(|range| range.offset == Offset(2000 * K)), "others take turns with it: {next:?}");
}

/// A peer told of objects of two million blocks each, and of as many of them as it liked.
#[test]
fn what_peers_tell_of_is_bounded_in_bytes() {
    let mut flow = fetching(&[("a", 3000 * K)], &[(L1, "e1")]);
    assert_eq!(flow.known_bytes, 1 + 3 * 4);
    flow.known_bytes = limits::KNOWN_BYTES_MAX - 9;
    assert!(flow.know(entry("b", 10, 1)).is_some());
    assert_eq!((flow.know(entry("c", 10, 1)), flow.id_of(&name("c"))), (None, None), "no place is taken either");
    assert_eq!(flow.know(entry("a", 6000 * K, 2)), None, "nor may one grow");
    flow.subscription(L1, &peer("e1"));
    assert!(flow.begin_news(L1, &peer("e1"), 7));
    flow.learn(&peer("e1"), entry("c", 10, 1));
    assert!(flow.lossy_peers().eq([&peer("e1")]), "what it has told is not all that it has");
    flow.forget(&name("b"));
    assert!(flow.know(entry("c", 10, 1)).is_some(), "what is gone makes room");
}

#[test]
fn one_link_to_a_peer_reads_its_news_and_another_goes_on_where_it_stopped() {
    let mut flow = fetching(&[], &[(L1, "e1"), (L2, "e1")]);
    assert_eq!(flow.subscription(L1, &peer("e1")), Some((0, 0)));
    assert_eq!(flow.subscription(L2, &peer("e1")), None);
    flow.handle_news(L1, &peer("e1"), 7, 100);
    flow.detach_blocks(L1, ms(1));
    assert_eq!(flow.subscription(L2, &peer("e1")), Some((7, 100)));
}

#[test]
fn a_relay_tells_on_what_it_is_told() {
    let mut flow = relay(&[("a", 10), ("b", 20)]);
    flow.subscribe(READER);
    while flow.poll_wake().is_some() {}
    flow.forget(&name("a"));
    assert!(std::iter::from_fn(|| flow.poll_wake()).any(|link| link == READER));
    let (a, b) = (name("a"), name("b"));
    let told: Vec<_> = flow.news_from(flow.epoch(), 0).collect();
    assert!(matches!(told[0], (2, News::Known(known, _)) if *known == b));
    assert_eq!(told[1], (3, News::Removed(&a)));
    assert_eq!(flow.find(&a), None);
}

/// Small objects: a link had as many orders as it may, all their bytes came in before the writer had judged the first
/// of them, and nothing made the link look again until its keep-alive.
#[test]
fn a_link_that_had_all_orders_it_may_looks_again_when_they_are_judged() {
    let names: Vec<String> = (0..2 * limits::RANGES_ORDERED_MAX).map(|i| format!("o{i}")).collect();
    let objects: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), K)).collect();
    let mut flow = fetching(&objects, &[(L1, "e1")]);
    let first = orders(&mut flow, L1, ms(10_000));
    assert_eq!(first.len(), limits::RANGES_ORDERED_MAX);
    for &range in &first {
        flow.handle_range_begin(range);
        flow.handle_range_data(L1, Some(range), range.length, ms(10_001));
    }
    assert_eq!(flow.next_range(L1, ms(10_002)), None);
    while flow.poll_wake().is_some() {}
    for &range in &first {
        flow.handle_verified(L1, range, crc_fast::crc32_iscsi(&bytes(K)), ms(10_003));
    }
    assert!(std::iter::from_fn(|| flow.poll_wake()).any(|link| link == L1));
    assert!(flow.next_range(L1, ms(10_004)).is_some());
}
