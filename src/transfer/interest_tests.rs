//! Facts about flows some of whose peers have no inventory, one at a time.

use super::block_tests::{ms, name, peer};
use super::{Action, Availability, Content, Entry, Event, Flow, ObjectState, Problem, RangeRequest, RangeState};
use crate::limits;
use crate::units::{ByteCount, Generation, LinkId, ObjectId, Offset, Root256, Time};

const K: u64 = 1024;
/// A first range.
const SIZE: ByteCount = ByteCount(limits::RANGE_BYTES_FIRST);
const L1: LinkId = LinkId(1);
const L2: LinkId = LinkId(2);
const READER: LinkId = LinkId(9);
const NONE: [u32; 0] = [];

/// When interests are told at first.
const NOW: Time = Time(limits::INTERESTS_AFTER);

fn content(version: u8) -> Content {
    let block_crcs = std::iter::once(crc_fast::crc32_iscsi(&[version; SIZE.0 as usize])).collect();
    Content { size: SIZE, mtime_ns: 0, mode: 0o644, root: Root256([version; 32]), block_crcs }
}

fn entry(text: &str, version: u8) -> Entry {
    Entry { name: name(text), content: content(version) }
}

/// A trader's list, with links that carry ranges.
fn list(count: u32, links: &[(LinkId, &str)]) -> Flow {
    let mut flow = Flow::fetch();
    flow.fetch_listed_only(true);
    for i in 0..count {
        flow.want(name(&format!("o{i}")), Some(SIZE), false);
    }
    links.iter().for_each(|&(link, to)| flow.attach_blocks(link, peer(to), Time::ZERO));
    flow
}

/// An exchange that fetches from a peer without an inventory.
fn relay(max: u64) -> Flow {
    let mut flow = Flow::relay(ByteCount(max));
    flow.attach_fetcher(L1, peer("t1"));
    flow
}

/// News come in over a link.
fn tells(flow: &mut Flow, link: LinkId, from: &str, text: &str, version: u8) {
    flow.subscription(link, &peer(from)).expect("it reads the log");
    flow.learn(&peer(from), entry(text, version));
}

fn interests(flow: &mut Flow, link: LinkId, now: Time) -> Vec<u32> {
    std::iter::from_fn(|| flow.next_interest(link, now)).map(|id| id.0).collect()
}

fn actions(flow: &mut Flow) -> Vec<Action> {
    std::iter::from_fn(|| flow.poll_action()).collect()
}

fn arrive(flow: &mut Flow, link: LinkId, range: RangeRequest, version: u8, now: Time) {
    flow.handle_range_begin(range);
    flow.handle_range_data(link, Some(range), range.length, now);
    let crc = crc_fast::crc32_iscsi(&vec![version; range.length.0 as usize]);
    flow.handle_verified(link, range, crc, now);
}

/// Brings what `link` asks for next in, whole.
fn bring(flow: &mut Flow, link: LinkId, now: Time) -> (ObjectId, Generation) {
    flow.next_request(link, true, now).expect("something is wanted");
    let (id, generation) = flow.handle_begin(link, SIZE, now).expect("it is taken");
    flow.handle_created(id, generation);
    flow.handle_received(link, now);
    flow.handle_written(id, generation, SIZE);
    (id, generation)
}

// -- who wants -------------------------------------------------------------------------------------------------------

#[test]
fn what_no_inventory_tells_of_is_asked_for_by_name_once_in_the_order_of_the_list() {
    let mut flow = list(100, &[(L1, "e1"), (L2, "e1")]);
    assert_eq!(interests(&mut flow, L1, ms(499)), NONE, "its inventory may be on its way");
    flow.know(entry("o1", 1)).expect("listed");
    let told = interests(&mut flow, L1, NOW);
    assert_eq!((told.len(), &told[..3]), (limits::INTERESTS_PER_PEER_MAX, &[0, 2, 3][..]));
    assert_eq!(interests(&mut flow, L2, NOW), NONE, "a peer is asked over one link");
    flow.handle_interest_pending(L1, ObjectId(2));
    assert_eq!(interests(&mut flow, L1, NOW), [65], "each comes round after all others");
}

#[test]
fn an_object_is_asked_of_one_peer_at_a_time_and_of_another_when_that_has_not() {
    let mut flow = list(2, &[(L1, "e1"), (L2, "e2")]);
    assert_eq!(interests(&mut flow, L1, NOW), [0, 1]);
    assert_eq!(interests(&mut flow, L2, NOW), NONE);
    flow.handle_interest_pending(L1, ObjectId(0));
    let later = NOW + limits::INTERESTS_EVERY;
    assert_eq!(interests(&mut flow, L2, later), [0]);
    flow.detach_blocks(L1, later);
    assert_eq!(interests(&mut flow, L2, later + limits::INTERESTS_EVERY), [1], "interests die with their link");
}

#[test]
fn a_peer_that_has_an_inventory_is_left_alone_for_long() {
    let mut flow = list(1, &[(L1, "e1")]);
    assert_eq!(interests(&mut flow, L1, NOW), [0]);
    flow.handle_interest_refused(L1, ObjectId(0), NOW);
    assert_eq!(interests(&mut flow, L1, NOW + limits::INTERESTS_EVERY), NONE);
    assert_eq!(interests(&mut flow, L1, NOW + limits::INTERESTS_REFUSED), [0]);
}

#[test]
fn an_object_that_was_asked_for_comes_from_that_peer_and_is_let_go_when_it_is_present() {
    let mut flow = list(1, &[(L1, "e1"), (L2, "e2")]);
    let id = flow.next_interest(L1, NOW).expect("unknown");
    tells(&mut flow, L1, "e1", "o0", 7);
    assert_eq!(flow.next_range(L2, NOW), None, "the other exchange has nothing of it");
    let range = flow.next_range(L1, NOW).expect("known");
    arrive(&mut flow, L1, range, 7, NOW);
    assert_eq!(flow.poll_interest_over(L1), None, "its root may be wrong");
    flow.handle_committed(id, range.generation, NOW);
    assert_eq!((flow.poll_interest_over(L1), flow.poll_interest_over(L1)), (Some(id), None));
    assert!(flow.is_complete());
}

#[test]
fn what_only_a_peer_that_is_gone_has_told_of_is_asked_of_the_others() {
    let mut flow = list(1, &[(L1, "e1"), (L2, "e2")]);
    tells(&mut flow, L1, "e1", "o0", 7);
    flow.detach_blocks(L1, NOW);
    assert!(flow.next_range(L2, NOW).is_some());
}

#[test]
fn a_length_that_is_not_the_lists_is_told_and_not_fetched() {
    let mut flow = list(1, &[(L1, "e1")]);
    let mut other = entry("o0", 1);
    other.content.size = ByteCount(10);
    assert_eq!(flow.know(other), None);
    let problem = Problem::WrongSize { expected: SIZE, found: ByteCount(10) };
    assert_eq!(flow.poll_event(), Some(Event::Failed { name: name("o0"), problem }));
    assert_eq!(flow.next_range(L1, NOW), None);
}

// -- beside links that carry whole objects ---------------------------------------------------------------------------

#[test]
fn links_of_whole_objects_begin_at_the_end_of_the_list_and_ranges_at_its_start() {
    let mut flow = list(4, &[(L1, "e1")]);
    flow.attach_fetcher(L2, peer("e2"));
    (0..4).for_each(|i| assert!(flow.know(entry(&format!("o{i}"), 1)).is_some()));
    let mut met = Vec::new();
    for _ in 0..2 {
        let range = flow.next_range(L1, ms(1)).expect("work");
        arrive(&mut flow, L1, range, 1, ms(1));
        let (id, generation) = bring(&mut flow, L2, ms(1));
        flow.handle_committed(id, generation, ms(1));
        met.push((range.object.0, id.0));
    }
    assert_eq!(met, [(0, 3), (1, 2)]);
    assert_eq!((flow.next_range(L1, ms(2)), flow.next_request(L2, true, ms(2))), (None, None));
}

#[test]
fn what_comes_whole_and_is_not_what_the_inventory_says_is_left_to_ranges() {
    let mut flow = list(1, &[(L1, "e1")]);
    flow.attach_fetcher(L2, peer("e2"));
    flow.know(entry("o0", 1)).expect("listed");
    let (id, generation) = bring(&mut flow, L2, ms(1));
    let commit = Action::Commit { id, generation, root: Some(Root256([1; 32])), size: SIZE };
    assert!(actions(&mut flow).contains(&commit), "its root is looked at");
    flow.handle_root_failed(id, generation, ms(1));
    assert_eq!(flow.poll_event(), Some(Event::Failed { name: name("o0"), problem: Problem::WrongRoot }));
    let later = ms(1) + limits::HOLD_MIN;
    assert_eq!(flow.next_request(L2, true, later), None);
    assert_eq!(flow.next_range(L1, later).map(|range| range.object), Some(id));
}

#[test]
fn what_becomes_known_while_it_comes_whole_goes_on_and_its_root_is_looked_at() {
    let mut flow = list(1, &[(L1, "e1")]);
    flow.attach_fetcher(L2, peer("e2"));
    flow.next_request(L2, true, ms(1)).expect("wanted");
    let (id, generation) = flow.handle_begin(L2, SIZE, ms(1)).expect("taken");
    flow.know(entry("o0", 1)).expect("listed");
    assert!(flow.is_current(id, generation));
    flow.handle_created(id, generation);
    flow.handle_written(id, generation, SIZE);
    assert!(actions(&mut flow).contains(&Action::Commit { id, generation, root: Some(Root256([1; 32])), size: SIZE }));
}

/// Before anything was told, it came whole and was marked without a root. Whether it was still there at its origin or
/// not, nobody held it against anything from then on, and a mirror did not remove it.
#[test]
fn what_is_missed_and_nobody_has_told_of_is_not_asked_for_by_name_without_a_list() {
    let mut flow = Flow::fetch();
    flow.have(name("o0"), SIZE, Root256([1; 32]));
    flow.attach_blocks(L1, peer("e1"), Time::ZERO);
    flow.attach_fetcher(L2, peer("e2"));
    assert!(flow.want_again(&name("o0"), SIZE));
    assert_eq!(flow.next_request(L2, true, ms(1)), None);
    assert!(!flow.is_complete());
    flow.know(entry("o0", 1)).expect("room");
    assert!(flow.next_request(L2, true, ms(1)).is_some());
}

#[test]
fn what_a_link_of_whole_objects_takes_no_exchange_need_fetch() {
    let mut flow = list(1, &[(L1, "e1")]);
    flow.attach_fetcher(L2, peer("e2"));
    let id = flow.next_interest(L1, NOW).expect("unknown");
    assert_eq!(flow.next_request(L2, true, NOW), Some(id));
    assert_eq!(flow.poll_interest_over(L1), Some(id));
}

// -- who fetches for others ------------------------------------------------------------------------------------------

#[test]
fn an_exchange_fetches_whole_what_it_is_asked_for_by_name_and_tells_what_it_found() {
    let mut flow = relay(1 << 20);
    flow.subscribe(READER);
    let id = flow.demand_content(READER, &name("a"), Time::ZERO).expect("it can be had");
    let (fetched, generation) = bring(&mut flow, L1, ms(1));
    assert_eq!((fetched, flow.interest_state(id, ms(1))), (id, RangeState::Awaited));
    flow.handle_committed(id, generation, ms(2));
    assert!(actions(&mut flow).contains(&Action::Hash { id, generation }));
    while flow.poll_wake().is_some() {}
    flow.handle_hashed(id, generation, content(1));
    assert_eq!((flow.poll_wake(), flow.news_from(flow.epoch(), 0).count()), (Some(READER), 1));
    assert_eq!(flow.interest_state(id, ms(3)), RangeState::Awaited);
    assert_eq!(flow.state(id), ObjectState::Present { size: SIZE });
    assert!(!actions(&mut flow).iter().any(|action| matches!(action, Action::Hash { .. })), "once is enough");
}

#[test]
fn what_was_asked_for_by_name_stays_in_the_spool_until_it_is_let_go_and_is_known_as_long_as_it_stays() {
    let mut flow = relay(SIZE.0);
    let id = flow.demand_content(READER, &name("a"), Time::ZERO).expect("it can be had");
    let (_, generation) = bring(&mut flow, L1, ms(1));
    flow.handle_committed(id, generation, ms(2));
    flow.handle_hashed(id, generation, content(1));
    let next = flow.demand_content(READER, &name("b"), ms(3)).expect("it can be had");
    let long = ms(3) + limits::ROOM_PATIENCE;
    assert_eq!(flow.next_request(L1, true, long), None, "there is no room");
    assert_eq!(flow.interest_state(next, long), RangeState::Awaited, "there will be");
    flow.demand_range(READER, id, Offset(0), SIZE, long);
    flow.release_range(READER, id, true, long);
    flow.release_range(READER, id, false, long);
    bring(&mut flow, L1, long);
    assert!(actions(&mut flow).iter().any(|action| matches!(action, Action::Evict { .. })));
    assert_eq!((flow.knows(&name("a")), flow.news_from(flow.epoch(), 0).count()), (false, 0));
}

#[test]
fn a_spools_file_of_an_earlier_run_is_hashed_when_it_is_asked_for() {
    let mut flow = relay(1 << 20);
    flow.keep(name("a"), SIZE, None);
    let id = flow.demand_content(READER, &name("a"), ms(1)).expect("it is here");
    assert!(matches!(actions(&mut flow)[..], [Action::Hash { .. }]));
    assert_eq!(flow.interest_state(id, ms(1)), RangeState::Awaited);
}

/// Nobody waited for it any more, and it was a problem for good.
#[test]
fn what_cannot_be_hashed_and_nobody_asks_for_any_more_is_forgotten() {
    let mut flow = relay(1 << 20);
    flow.keep(name("a"), SIZE, None);
    let id = flow.demand_content(READER, &name("a"), ms(1)).expect("it is here");
    let hash = actions(&mut flow).pop();
    let Some(Action::Hash { generation, .. }) = hash else { panic!("it is asked for: {hash:?}") };
    flow.release_range(READER, id, false, ms(2));
    flow.handle_source_failed(id, generation, "EIO".to_owned(), ms(3));
    assert_eq!((flow.totals().objects, flow.totals().failed), (0, 0));
}

#[test]
fn an_exchange_whose_upstream_has_an_inventory_fetches_nothing_by_name() {
    let mut flow = Flow::relay(ByteCount(1 << 20));
    let id = flow.demand_content(READER, &name("a"), Time::ZERO).expect("nothing is known of its upstream");
    assert_eq!(flow.interest_state(id, ms(1)), RangeState::Awaited);
    assert_eq!(flow.interest_state(id, Time(limits::UPSTREAM_PATIENCE)), RangeState::Pending);
    flow.attach_blocks(L1, peer("t1"), ms(2));
    assert_eq!(flow.interest_state(id, ms(2)), RangeState::Gone);
    assert_eq!(flow.demand_content(READER, &name("b"), ms(2)), None);
    flow.know(entry("a", 1)).expect("room");
    assert_eq!(flow.next_range(L1, ms(3)), None, "who knows it asks for its ranges");
}

#[test]
fn ranges_of_what_is_unknown_here_come_with_the_whole_object_as_it_arrives() {
    let mut flow = relay(1 << 20);
    let id = flow.find(&name("a")).expect("it can be had whole");
    flow.demand_range(READER, id, Offset(0), ByteCount(16 * K), Time::ZERO);
    let state = |flow: &Flow| flow.range_state(id, Offset(0), ByteCount(16 * K), ms(1));
    assert_eq!(state(&flow), RangeState::Awaited);
    assert_eq!(flow.next_request(L1, true, ms(1)), Some(id));
    let (_, generation) = flow.handle_begin(L1, SIZE, ms(1)).expect("taken");
    flow.handle_created(id, generation);
    assert_eq!(state(&flow), RangeState::Awaited);
    flow.handle_written(id, generation, ByteCount(K));
    assert_eq!(state(&flow), RangeState::Ready { length: ByteCount(K), generation });
    assert_eq!(Flow::offer_only().find(&name("a")), None);
}

#[test]
fn what_was_asked_for_whole_before_it_was_known_is_fetched_by_ranges_once_it_is() {
    let mut flow = Flow::relay(ByteCount(1 << 20));
    flow.attach_blocks(L1, peer("t1"), Time::ZERO);
    let id = flow.demand(READER, &name("a"), Time::ZERO).expect("a relay fetches anything");
    assert_eq!(flow.next_range(L1, Time::ZERO), None);
    flow.know(entry("a", 1)).expect("room");
    let range = flow.next_range(L1, ms(1)).expect("it is wanted");
    arrive(&mut flow, L1, range, 1, ms(1));
    let ready = Availability::Ready { size: SIZE, ready: SIZE, generation: range.generation };
    assert_eq!(flow.availability(id, ms(1)), ready);
}

/// It stayed queued when its reader went, so that the next one had nothing opened for it.
#[test]
fn what_a_reader_that_is_gone_asked_for_is_fetched_for_the_next_one() {
    let mut flow = Flow::relay(ByteCount(1 << 20));
    flow.know(entry("a", 1)).expect("room");
    let id = flow.demand(READER, &name("a"), Time::ZERO).expect("known");
    flow.release(READER, id, false, ms(1));
    flow.attach_blocks(L1, peer("t1"), ms(1));
    assert_eq!(flow.next_range(L1, ms(1)), None);
    flow.demand(READER, &name("a"), ms(2)).expect("known");
    assert!(flow.next_range(L1, ms(2)).is_some());
}
