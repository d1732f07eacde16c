//! Facts about a flow, one at a time.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::limits;
use crate::units::{ByteCount, Generation, LinkId, NodeName, ObjectId, ObjectName, Offset, Time};

const UP: LinkId = LinkId(1);
const UP_2: LinkId = LinkId(2);
const DOWN: LinkId = LinkId(8);
const DOWN_2: LinkId = LinkId(9);

fn name(text: &str) -> ObjectName {
    ObjectName::new(text.as_bytes()).unwrap()
}

fn peer(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn at(ms: u64) -> Time {
    Time(Duration::from_millis(ms))
}

fn actions(flow: &mut Flow) -> Vec<Action> {
    std::iter::from_fn(|| flow.poll_action()).collect()
}

fn events(flow: &mut Flow) -> Vec<Event> {
    std::iter::from_fn(|| flow.poll_event()).collect()
}

/// A trader's list, with one link to each of two exchanges.
fn list(names: &[&str]) -> Flow {
    let mut flow = Flow::fetch();
    for text in names {
        flow.want(name(text), Some(ByteCount(100)), false);
    }
    flow.attach_fetcher(UP, peer("e1"));
    flow.attach_fetcher(UP_2, peer("e2"));
    flow
}

/// An exchange with a link to the trader that it fetches from.
fn relay(max: u64) -> Flow {
    let mut flow = Flow::relay(ByteCount(max));
    flow.attach_fetcher(UP, peer("t1"));
    flow
}

/// Brings the object that `link` asks for next in, whole.
fn bring(flow: &mut Flow, link: LinkId, size: u64, now: Time) -> (ObjectId, Generation) {
    let asked = flow.next_request(link, false, now).unwrap();
    let (id, generation) = flow.handle_begin(link, ByteCount(size), now).unwrap();
    assert_eq!(id, asked);
    flow.handle_created(id, generation);
    flow.handle_payload(link, ByteCount(size), now);
    flow.handle_received(link, now);
    flow.handle_written(id, generation, ByteCount(size));
    (id, generation)
}

/// One that has two objects of 100 bytes, which its reader has not had yet.
fn relay_with_two(max: u64) -> Flow {
    let mut flow = relay(max);
    for text in ["a", "b"] {
        flow.demand(DOWN, &name(text), at(0)).unwrap();
        let (id, generation) = bring(&mut flow, UP, 100, at(0));
        flow.handle_committed(id, generation, at(0));
    }
    flow
}

#[test]
fn an_object_goes_from_absent_to_present_in_steps() {
    let mut flow = list(&["x"]);
    let (id, generation) = bring(&mut flow, UP, 100, at(0));
    assert_eq!(flow.state(id), ObjectState::Whole { size: ByteCount(100) });
    let create = Action::Create { id, generation, size: Some(ByteCount(100)) };
    assert_eq!(actions(&mut flow), [create, Action::Commit { id, generation, root: None, size: ByteCount(100) }]);
    assert!(!flow.is_complete());
    flow.handle_committed(id, generation, at(1));
    assert!(flow.is_complete());
    assert_eq!(events(&mut flow), [Event::Committed { name: name("x"), size: ByteCount(100) }]);
}

#[test]
fn a_dead_link_gives_its_work_back_at_once() {
    let mut flow = list(&["x", "y"]);
    let id = flow.next_request(UP, false, at(0)).unwrap();
    let (_, generation) = flow.handle_begin(UP, ByteCount(100), at(0)).unwrap();
    flow.detach_fetcher(UP);
    assert!(actions(&mut flow).contains(&Action::Abandon { id, generation }));
    let taken = [flow.next_request(UP_2, false, at(1)), flow.next_request(UP_2, false, at(1))];
    assert!(taken.contains(&Some(id)));
}

#[test]
fn what_is_said_late_of_an_attempt_ends_nothing_else() {
    // A generation outlived its attempt, and a failure told late ended the next request.
    let mut flow = list(&["x"]);
    let id = flow.next_request(UP, false, at(0)).unwrap();
    let (_, old) = flow.handle_begin(UP, ByteCount(100), at(0)).unwrap();
    flow.detach_fetcher(UP);
    assert_eq!(flow.next_request(UP_2, false, at(1)), Some(id));
    flow.handle_store_failed(id, old, "late".to_owned(), Fault::Store, at(2));
    flow.handle_written(id, old, ByteCount(100));
    flow.handle_committed(id, old, at(2));
    assert_eq!(flow.state(id), ObjectState::Requested { link: UP_2 });
    assert!(events(&mut flow).is_empty());
}

#[test]
fn a_full_disk_holds_the_flow_and_is_told_once() {
    let mut flow = list(&["x", "y"]);
    let id = flow.next_request(UP, false, at(0)).unwrap();
    let (_, generation) = flow.handle_begin(UP, ByteCount(100), at(0)).unwrap();
    flow.handle_store_failed(id, generation, "full".to_owned(), Fault::Store, at(0));
    assert_eq!(flow.next_request(UP_2, false, at(10)), None);
    flow.handle_received(UP, at(10));
    let later = Time(limits::HOLD_MIN);
    assert!(flow.next_request(UP_2, false, later).is_some());
    assert_eq!(events(&mut flow).len(), 1);
    assert_eq!(flow.totals().failed, 1);
}

#[test]
fn a_place_that_takes_nothing_holds_up_no_other_object() {
    let mut flow = list(&["x", "y"]);
    let id = flow.next_request(UP, false, at(0)).unwrap();
    let (_, generation) = flow.handle_begin(UP, ByteCount(100), at(0)).unwrap();
    flow.handle_store_failed(id, generation, "a directory".to_owned(), Fault::Name, at(0));
    assert!(flow.next_request(UP_2, false, at(0)).is_some_and(|other| other != id));
    assert_eq!(flow.totals().failed, 1);
}

#[test]
fn an_object_that_failed_and_then_is_pending_is_tried_again() {
    // It was dropped from the order and put into no queue.
    let mut flow = list(&["x"]);
    let id = flow.next_request(UP, false, at(0)).unwrap();
    let (_, generation) = flow.handle_begin(UP, ByteCount(100), at(0)).unwrap();
    flow.handle_store_failed(id, generation, "full".to_owned(), Fault::Store, at(0));
    flow.handle_pending(UP, at(1));
    assert_eq!(flow.next_request(UP_2, false, at(5000)), Some(id));
}

#[test]
fn what_one_peer_says_is_pending_goes_to_another_first() {
    let mut flow = list(&["x"]);
    let id = flow.next_request(UP, false, at(0)).unwrap();
    flow.handle_pending(UP, at(0));
    assert_eq!(flow.next_request(UP_2, false, at(50)), None);
    assert_eq!(flow.next_request(UP, false, at(100)), None);
    assert_eq!(flow.next_request(UP_2, false, at(100)), Some(id));
    flow.handle_pending(UP_2, at(101));
    assert_eq!(flow.next_request(UP, false, at(400)), Some(id));
}

#[test]
fn what_a_seed_only_peer_does_not_begin_is_open_to_other_peers() {
    let mut flow = list(&["x"]);
    let id = flow.next_request(UP, true, at(0)).unwrap();
    flow.share_unanswered(UP, at(1999));
    assert_eq!(flow.state(id), ObjectState::Requested { link: UP });
    flow.share_unanswered(UP, at(2000));
    assert_eq!(flow.next_request(UP_2, false, at(2000)), Some(id));
    assert_eq!(flow.handle_begin(UP, ByteCount(100), at(2001)), Err(Refusal::NotWanted));
    assert!(flow.handle_begin(UP_2, ByteCount(100), at(2002)).is_ok());
}

#[test]
fn what_a_seed_only_peer_begins_after_all_is_taken() {
    let mut flow = list(&["x"]);
    let id = flow.next_request(UP, true, at(0)).unwrap();
    flow.share_unanswered(UP, at(2000));
    assert!(flow.handle_begin(UP, ByteCount(100), at(2001)).is_ok());
    assert_eq!(flow.next_request(UP_2, false, at(9000)), None);
    assert!(matches!(flow.state(id), ObjectState::Arriving { link: UP, .. }));
}

/// It was waited for as long as the link lived, though others had it.
#[test]
fn what_a_seed_only_peer_begins_and_does_not_go_on_with_is_open_to_other_peers() {
    let mut flow = list(&["x"]);
    let id = flow.next_request(UP, true, at(0)).unwrap();
    flow.handle_begin(UP, ByteCount(100), at(0)).unwrap();
    flow.share_unanswered(UP, at(4999));
    assert!(matches!(flow.state(id), ObjectState::Arriving { link: UP, .. }));
    flow.share_unanswered(UP, at(5000));
    assert_eq!(flow.next_request(UP_2, false, at(5000)), Some(id));
    assert!(flow.handle_begin(UP_2, ByteCount(100), at(5001)).is_ok());
    flow.handle_received(UP, at(5002));
    assert!(matches!(flow.state(id), ObjectState::Arriving { link: UP_2, .. }), "what still comes is nobody's");

    let mut alone = list(&["x"]);
    alone.detach_fetcher(UP_2);
    alone.next_request(UP, true, at(0)).unwrap();
    alone.handle_begin(UP, ByteCount(100), at(0)).unwrap();
    alone.share_unanswered(UP, at(9000));
    assert!(matches!(alone.state(id), ObjectState::Arriving { link: UP, .. }), "nobody else could bring it");
}

#[test]
fn another_length_than_laid_down_is_refused_and_told() {
    let mut flow = list(&["x"]);
    flow.next_request(UP, false, at(0)).unwrap();
    assert_eq!(flow.handle_begin(UP, ByteCount(99), at(0)), Err(Refusal::WrongSize));
    flow.handle_received(UP, at(1));
    let problem = Problem::WrongSize { expected: ByteCount(100), found: ByteCount(99) };
    assert_eq!(events(&mut flow), [Event::Failed { name: name("x"), problem }]);
    assert!(actions(&mut flow).is_empty());
}

#[test]
fn an_object_that_turns_up_while_it_arrives_leaves_no_part() {
    let mut flow = list(&["x"]);
    let id = flow.next_request(UP, false, at(0)).unwrap();
    let (_, generation) = flow.handle_begin(UP, ByteCount(100), at(0)).unwrap();
    flow.want(name("x"), Some(ByteCount(100)), true);
    assert!(actions(&mut flow).contains(&Action::Abandon { id, generation }));
    assert!(flow.is_complete());
    flow.handle_received(UP, at(1));
    assert_eq!(flow.next_request(UP, false, at(5000)), None);
}

// -- offering --------------------------------------------------------------------------------------------------------

#[test]
fn a_failed_source_withdraws_its_own_generation_only() {
    let mut flow = Flow::offer_only();
    flow.offer(name("x"), ByteCount(10));
    let id = flow.demand(DOWN, &name("x"), at(0)).unwrap();
    let Availability::Ready { generation: old, .. } = flow.availability(id, at(0)) else { panic!("offered") };
    flow.withdraw(&name("x"));
    assert_eq!(flow.availability(id, at(0)), Availability::Pending);
    flow.offer(name("x"), ByteCount(12));
    flow.handle_source_failed(id, old, "it changed".to_owned(), at(1));
    assert!(matches!(flow.availability(id, at(1)), Availability::Ready { size: ByteCount(12), .. }));
    let Availability::Ready { generation, .. } = flow.availability(id, at(1)) else { panic!("offered") };
    flow.handle_source_failed(id, generation, "it changed".to_owned(), at(1));
    assert_eq!(flow.availability(id, at(1)), Availability::Pending);
    flow.release(DOWN, id, false, at(2));
    assert_eq!(flow.totals(), Totals::default());
}

/// What cannot be read was served no more like what has gone, so that the far trader never knew what held it up.
#[test]
fn who_asks_for_what_cannot_be_read_is_told_so_until_it_can() {
    let mut flow = Flow::offer_only();
    flow.offer(name("x"), ByteCount(10));
    let id = flow.find(&name("x")).unwrap();
    let state = |flow: &mut Flow| {
        flow.demand_range(DOWN, id, Offset(0), ByteCount(10), at(0));
        let state = flow.range_state(id, Offset(0), ByteCount(10), at(0));
        flow.release_range(DOWN, id, false, at(0));
        state
    };
    for unreadable in [true, false] {
        let RangeState::Ready { generation, .. } = state(&mut flow) else { panic!("offered") };
        if unreadable {
            flow.handle_source_unreadable(id, generation, "EACCES".to_owned(), at(0));
        } else {
            flow.handle_source_failed(id, generation, "it changed".to_owned(), at(0));
        }
        let expected = if unreadable { RangeState::Damaged } else { RangeState::Gone };
        assert_eq!(state(&mut flow), expected);
        flow.offer(name("x"), ByteCount(10));
    }
}

// -- relaying --------------------------------------------------------------------------------------------------------

#[test]
fn a_relay_fetches_on_demand_and_serves_what_has_arrived() {
    let mut flow = relay(1000);
    assert_eq!(flow.next_request(UP, false, at(0)), None);
    let id = flow.demand(DOWN, &name("x"), at(0)).unwrap();
    assert_eq!(flow.availability(id, at(0)), Availability::Awaited);
    assert_eq!(flow.next_request(UP, false, at(0)), Some(id));
    let (_, generation) = flow.handle_begin(UP, ByteCount(100), at(0)).unwrap();
    flow.handle_written(id, generation, ByteCount(40));
    assert_eq!(flow.availability(id, at(0)), Availability::Awaited, "its part does not stand yet");
    flow.handle_created(id, generation);
    let ready = Availability::Ready { size: ByteCount(100), ready: ByteCount(40), generation };
    assert_eq!(flow.availability(id, at(0)), ready);
}

#[test]
fn a_relay_that_lost_the_far_trader_says_so() {
    // It kept silent, and what it had been asked for came over no other exchange.
    let mut flow = relay(1000);
    let id = flow.demand(DOWN, &name("x"), at(0)).unwrap();
    std::iter::from_fn(|| flow.poll_wake()).count();
    flow.detach_fetcher(UP);
    assert_eq!(flow.poll_wake(), Some(DOWN));
    assert_eq!(flow.availability(id, at(999)), Availability::Awaited, "it may be on its way");
    assert_eq!(flow.availability(id, at(1000)), Availability::Pending);
}

#[test]
fn a_relay_whose_store_is_held_says_so() {
    let mut flow = relay(1000);
    let x = flow.demand(DOWN, &name("x"), at(0)).unwrap();
    let y = flow.demand(DOWN_2, &name("y"), at(0)).unwrap();
    assert_eq!(flow.next_request(UP, false, at(0)), Some(x));
    let (_, generation) = flow.handle_begin(UP, ByteCount(100), at(0)).unwrap();
    flow.handle_store_failed(x, generation, "full".to_owned(), Fault::Store, at(0));
    assert_eq!(flow.availability(y, at(0)), Availability::Pending);
    assert_eq!(flow.availability(y, Time(limits::HOLD_MIN)), Availability::Awaited);
}

#[test]
fn an_object_that_waits_for_the_room_of_those_behind_it_is_pending_in_the_end() {
    // The spool was full of what the same link had asked for behind it: each waited for the other.
    let mut flow = relay_with_two(200);
    let x = flow.demand(DOWN_2, &name("x"), at(0)).unwrap();
    assert_eq!(flow.next_request(UP, false, at(1)), None);
    assert_eq!(flow.availability(x, at(1)), Availability::Awaited);
    assert_eq!(flow.availability(x, Time(limits::ROOM_PATIENCE)), Availability::Pending);
}

#[test]
fn delivered_objects_make_room_before_others() {
    let mut flow = relay_with_two(200);
    flow.release(DOWN, ObjectId(0), false, at(1));
    flow.release(DOWN, ObjectId(1), true, at(2));
    actions(&mut flow);
    flow.demand(DOWN, &name("c"), at(3)).unwrap();
    bring(&mut flow, UP, 100, at(3));
    assert!(actions(&mut flow).contains(&Action::Evict { id: ObjectId(1), name: name("b") }));
    assert_eq!(flow.spool(), Some((ByteCount(200), ByteCount(200))));
}

#[test]
fn a_full_disk_keeps_nothing_that_was_delivered() {
    let mut flow = relay_with_two(1000);
    flow.release(DOWN, ObjectId(1), true, at(1));
    actions(&mut flow);
    let id = flow.demand(DOWN, &name("c"), at(2)).unwrap();
    flow.next_request(UP, false, at(2)).unwrap();
    let (_, generation) = flow.handle_begin(UP, ByteCount(100), at(2)).unwrap();
    flow.handle_store_failed(id, generation, "full".to_owned(), Fault::Store, at(2));
    assert!(actions(&mut flow).contains(&Action::Evict { id: ObjectId(1), name: name("b") }));
    assert_eq!(flow.state(ObjectId(0)), ObjectState::Present { size: ByteCount(100) }, "it is not delivered yet");
}

/// Its link was told what is in memory, and could not have the file that it needs: nothing else was held up, and it was
/// fetched again and again.
#[test]
fn a_full_disk_is_one_where_what_is_in_memory_wants_a_file() {
    let mut flow = relay_with_two(1000);
    let id = ObjectId(0);
    flow.handle_store_failed(id, flow.generation(id), "full".to_owned(), Fault::Store, at(1));
    assert_eq!(flow.state(id), ObjectState::Present { size: ByteCount(100) });
    flow.demand(DOWN, &name("c"), at(2)).unwrap();
    assert_eq!(flow.next_request(UP, false, at(2)), None);
    assert!(flow.next_request(UP, false, at(1) + limits::HOLD_MIN).is_some());
}

#[test]
fn what_is_in_memory_goes_a_moment_after_its_delivery() {
    let mut flow = relay_with_two(1000);
    let (kept, spooled) = (ObjectId(0), ObjectId(1));
    flow.handle_kept(kept, flow.generation(kept));
    [kept, spooled].into_iter().for_each(|id| flow.release(DOWN, id, true, at(1)));
    flow.expire(at(1));
    assert!(flow.is_delivered(kept) && flow.spool().is_some_and(|(used, _)| used == ByteCount(200)));
    flow.expire(at(1) + limits::KEEP_DELIVERED_IN_MEMORY);
    assert_eq!(flow.state(kept), ObjectState::Absent);
    assert_eq!(flow.state(spooled), ObjectState::Present { size: ByteCount(100) });
}

/// All of an object went when a link ended, for one range of it had been sent.
#[test]
fn what_may_be_lost_with_its_link_is_not_delivered() {
    let mut flow = relay_with_two(1000);
    let id = ObjectId(0);
    flow.release(DOWN, id, false, at(1));
    for offset in [0, 50] {
        flow.demand_range(DOWN, id, Offset(offset), ByteCount(50), at(2));
    }
    flow.release_range(DOWN, id, true, at(3));
    assert!(flow.is_delivered(id));
    flow.lose_range(DOWN, id, at(4));
    assert!(!flow.is_delivered(id));
    flow.expire(at(4) + limits::KEEP_DELIVERED);
    assert_eq!(flow.state(id), ObjectState::Present { size: ByteCount(100) });
}

/// A relay whose spool is too small for what its reader has asked for, and asks for no more.
fn with_an_object_too_long() -> (Flow, ObjectId) {
    let mut flow = relay(250);
    let large = flow.demand(DOWN, &name("large"), at(0)).unwrap();
    flow.next_request(UP, false, at(0)).unwrap();
    assert_eq!(flow.handle_begin(UP, ByteCount(300), at(0)), Err(Refusal::NoRoom));
    flow.handle_received(UP, at(1));
    flow.release(DOWN, large, false, at(1));
    (flow, large)
}

#[test]
fn an_object_longer_than_the_spool_is_remembered_and_others_flow() {
    // It was forgotten with its reader and fetched again each time; and no room sufficed for others after it.
    let (mut flow, large) = with_an_object_too_long();
    assert_eq!(flow.demand(DOWN, &name("large"), at(2)), Some(large));
    assert_eq!(flow.availability(large, at(2)), Availability::Pending);
    flow.release(DOWN, large, false, at(2));
    for text in ["a", "b"] {
        flow.demand(DOWN, &name(text), at(3)).unwrap();
        assert!(flow.next_request(UP, false, at(3)).is_some());
        assert!(flow.handle_begin(UP, ByteCount(100), at(3)).is_ok());
        flow.handle_received(UP, at(3));
    }
    assert_eq!(events(&mut flow).len(), 1);
}

/// It was a problem for good, though the spool had been made larger.
#[test]
fn what_was_too_long_for_a_spool_is_no_problem_of_a_larger_one() {
    let (mut flow, _) = with_an_object_too_long();
    flow.resize_spool(ByteCount(299));
    assert_eq!((flow.totals().failed, flow.objects().count()), (1, 1));
    flow.resize_spool(ByteCount(300));
    assert_eq!((flow.totals().failed, flow.objects().count()), (0, 0));
}

#[test]
fn a_spool_file_that_cannot_be_read_is_removed_and_fetched_again() {
    let mut flow = relay(250);
    flow.keep(name("x"), ByteCount(100), None);
    flow.keep(name("x"), ByteCount(100), None);
    assert_eq!(flow.spool().unwrap().0, ByteCount(100));
    let id = flow.demand(DOWN, &name("x"), at(0)).unwrap();
    let Availability::Ready { generation, .. } = flow.availability(id, at(0)) else { panic!("kept") };
    flow.handle_source_failed(id, generation, "EIO".to_owned(), at(0));
    assert_eq!(actions(&mut flow), [Action::Evict { id, name: name("x") }]);
    assert_eq!(flow.spool().unwrap().0, ByteCount(0));
    assert_eq!(flow.availability(id, at(0)), Availability::Pending);
    flow.release(DOWN, id, false, at(1));
    flow.demand(DOWN, &name("x"), at(200)).unwrap();
    assert!(flow.next_request(UP, false, at(200)).is_some());
}

/// Each connection that ended before its first packet had all that is wanted dealt out anew, of a million objects for a
/// tenth of a second.
#[test]
fn a_link_that_was_never_attached_changes_nothing_when_it_ends() {
    let mut flow = list(&["a", "b"]);
    while flow.poll_wake().is_some() {}
    flow.detach_fetcher(LinkId(99));
    assert_eq!(flow.poll_wake(), None);
    flow.detach_fetcher(UP);
    assert_eq!(flow.poll_wake(), Some(UP_2), "what was that link's is another's");
}

#[test]
fn what_is_wanted_is_dealt_out_anew_when_it_is_asked_for_and_not_for_each_link_that_comes_or_goes() {
    let mut flow = list(&["a", "b", "c", "d"]);
    let of_e1 = flow.next_request(UP, false, at(0)).unwrap();
    assert_eq!(flow.name(of_e1), &name("a"));
    (10..500).for_each(|link| flow.attach_fetcher(LinkId(link), peer("e3")));
    (10..500).for_each(|link| flow.detach_fetcher(LinkId(link)));
    assert!(flow.undealt, "nobody has asked since");
    assert_eq!(flow.next_request(UP_2, false, at(1)).map(|id| flow.name(id).clone()), Some(name("c")));
    assert!(!flow.undealt);
    flow.detach_fetcher(UP);
    let rest: Vec<_> = std::iter::from_fn(|| flow.next_request(UP_2, false, at(2))).collect();
    assert!(rest.contains(&of_e1), "what a link had on order is another's when it is gone");
}

#[test]
fn a_relay_forgets_what_nobody_wants_and_holds_nothing_of() {
    let mut flow = relay(1000);
    let id = flow.demand(DOWN, &name("x"), at(0)).unwrap();
    flow.release(DOWN, id, false, at(1));
    assert_eq!(flow.totals().objects, 0);
    assert_eq!(flow.next_request(UP, false, at(2)), None);
}
