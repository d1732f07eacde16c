//! Facts about who may say what is gone, one at a time.

use std::time::Duration;

use super::{Action, Content, Entry, Flow, News};
use crate::units::{ByteCount, LinkId, NodeName, ObjectName, Offset, Root256, Time};

const L1: LinkId = LinkId(1);
const L2: LinkId = LinkId(2);
const READER: LinkId = LinkId(9);
const HERE: u32 = 1;
const ELSEWHERE: u32 = 2;

fn name(text: &str) -> ObjectName {
    ObjectName::new(text.as_bytes()).expect("valid")
}

fn peer(text: &str) -> NodeName {
    text.parse().expect("valid")
}

fn entry(text: &str) -> Entry {
    let (root, block_crcs) = (Root256([1; 32]), vec![7].into());
    Entry { name: name(text), content: Content { size: ByteCount(9), mtime_ns: 0, mode: 0o644, root, block_crcs } }
}

/// A flow that mirrors, with objects from an earlier run.
fn mirroring(present: &[&str]) -> Flow {
    let mut flow = Flow::fetch();
    flow.set_mirror(true);
    for text in present {
        flow.have(name(text), ByteCount(9), Root256([1; 32]));
    }
    flow
}

fn ask(flow: &mut Flow, link: LinkId, from: &str) {
    assert!(flow.subscription(link, &peer(from)).is_some(), "{from} is asked");
}

fn tell(flow: &mut Flow, link: LinkId, from: &str, epoch: u64, texts: &[&str]) {
    assert!(flow.begin_news(link, &peer(from), epoch), "it reads them");
    texts.iter().for_each(|text| flow.learn(&peer(from), entry(text)));
    flow.handle_news(link, &peer(from), epoch, texts.len() as u64);
}

fn removed(flow: &mut Flow) -> Vec<String> {
    let actions = std::iter::from_fn(|| flow.poll_action());
    let names = actions.filter_map(|action| match action {
        Action::Remove { name } => Some(name.to_string()),
        _ => None,
    });
    names.collect()
}

#[test]
fn what_an_answer_lacks_is_gone() {
    let mut flow = mirroring(&["a", "b", "old"]);
    ask(&mut flow, L1, "e1");
    tell(&mut flow, L1, "e1", 7, &["a", "b"]);
    assert_eq!(removed(&mut flow), [""; 0], "not before it is an answer");
    assert!(!flow.was_told_whole());
    flow.handle_whole(L1, &peer("e1"), 7, 2, HERE);
    assert!(flow.was_told_whole());
    assert_eq!(removed(&mut flow), ["old"]);
    flow.unlearn(&peer("e1"), &name("b"));
    flow.handle_news(L1, &peer("e1"), 7, 3);
    assert_eq!(removed(&mut flow), [""; 0], "it may be behind");
    assert!(flow.is_ask_due(L1));
    ask(&mut flow, L1, "e1");
    flow.handle_whole(L1, &peer("e1"), 7, 3, HERE);
    assert_eq!(removed(&mut flow), ["b"]);
    assert_eq!(flow.totals().objects, 1);
}

#[test]
fn an_answer_that_does_not_fit_what_came_is_none() {
    let mut flow = mirroring(&["a", "old"]);
    ask(&mut flow, L1, "e1");
    tell(&mut flow, L1, "e1", 7, &["a"]);
    flow.handle_whole(L1, &peer("e1"), 7, 2, HERE);
    flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
    flow.handle_whole(L2, &peer("e2"), 7, 0, HERE);
    assert_eq!(removed(&mut flow), [""; 0]);
}

/// The reader of a relay whose peer gave such an answer was not answered itself until somebody else asked.
#[test]
fn an_answer_that_does_not_fit_keeps_nobody_from_asking_again() {
    let mut relay = Flow::relay(ByteCount(1000));
    ask(&mut relay, L1, "t1");
    tell(&mut relay, L1, "t1", 7, &["a"]);
    let subscribed = relay.subscribe(READER);
    relay.handle_whole(L1, &peer("t1"), 7, 2, HERE);
    assert!(relay.is_ask_due(L1));
    ask(&mut relay, L1, "t1");
    relay.handle_whole(L1, &peer("t1"), 7, 1, HERE);
    assert_eq!(relay.whole_since(subscribed), Some(HERE));
}

#[test]
fn what_nobody_asked_for_ends_no_epoch() {
    let mut flow = mirroring(&[]);
    ask(&mut flow, L1, "e1");
    tell(&mut flow, L1, "e1", 7, &["a"]);
    flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
    let told_by = |flow: &Flow| flow.objects[0].told_by;
    assert_eq!(told_by(&flow), 1);
    assert!(!flow.begin_news(L2, &peer("e1"), 8), "another link reads the log");
    flow.handle_whole(L1, &peer("e1"), 8, 0, HERE);
    assert_eq!(told_by(&flow), 1, "no answer without a question");
    assert!(flow.begin_news(L1, &peer("e1"), 8));
    assert_eq!(told_by(&flow), 0);
}

#[test]
fn what_was_told_since_the_question_waits_for_the_next_one() {
    let mut flow = mirroring(&[]);
    ask(&mut flow, L1, "e1");
    ask(&mut flow, L2, "e2");
    tell(&mut flow, L2, "e2", 8, &["a", "new"]);
    flow.handle_whole(L2, &peer("e2"), 8, 2, HERE);
    tell(&mut flow, L1, "e1", 7, &["a"]);
    flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
    assert_eq!(removed(&mut flow), [""; 0], "e1 may be behind");
    flow.review(Time::ZERO);
    ask(&mut flow, L1, "e1");
    ask(&mut flow, L2, "e2");
    flow.unlearn(&peer("e2"), &name("new"));
    flow.handle_news(L2, &peer("e2"), 8, 3);
    flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
    assert_eq!(removed(&mut flow), ["new"], "e2 was");
}

/// One exchange whose log lacked an object had it removed, and if it was not here yet never brought, though the
/// other one went on telling of it.
#[test]
fn what_another_peer_of_the_same_origin_tells_of_stays_unless_that_one_does_not_answer() {
    let mut flow = mirroring(&["a", "b"]);
    flow.attach_blocks(L1, peer("e1"), Time::ZERO);
    flow.attach_blocks(L2, peer("e2"), Time::ZERO);
    ask(&mut flow, L2, "e2");
    tell(&mut flow, L2, "e2", 8, &["a", "b", "absent"]);
    flow.handle_whole(L2, &peer("e2"), 8, 3, HERE);
    let at = |seconds| Time(Duration::from_secs(seconds));
    let answers = |flow: &mut Flow, seconds, is_e2_there: bool| {
        flow.review(at(seconds));
        ask(flow, L1, "e1");
        flow.begin_news(L1, &peer("e1"), 7);
        if seconds == 1 {
            tell(flow, L1, "e1", 7, &["a"]);
        }
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        if is_e2_there && flow.subscription(L2, &peer("e2")).is_some() {
            flow.handle_whole(L2, &peer("e2"), 8, 3, HERE);
        }
    };
    (1..30).for_each(|seconds| answers(&mut flow, seconds, true));
    assert_eq!(removed(&mut flow), [""; 0], "e2 answers, too");
    assert_eq!(flow.totals().objects, 3);
    flow.review(at(30));
    ask(&mut flow, L2, "e2");
    (30..40).for_each(|seconds| answers(&mut flow, seconds, false));
    assert_eq!(removed(&mut flow), [""; 0], "it may be about to");
    (40..42).for_each(|seconds| answers(&mut flow, seconds, false));
    assert_eq!(removed(&mut flow), ["b", "absent"], "it is cut off");
    assert_eq!(flow.totals().objects, 1);
}

#[test]
fn a_peer_that_is_gone_binds_only_where_it_may_know_of_another_origin() {
    for (origin, expected) in [(Some(HERE), vec!["x"]), (Some(ELSEWHERE), vec![]), (None, vec![])] {
        let mut flow = mirroring(&["a", "x"]);
        flow.attach_blocks(L2, peer("e2"), Time::ZERO);
        ask(&mut flow, L2, "e2");
        tell(&mut flow, L2, "e2", 8, &["a", "x"]);
        if let Some(origin) = origin {
            flow.handle_whole(L2, &peer("e2"), 8, 2, origin);
        }
        flow.detach_blocks(L2, Time::ZERO);
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["a"]);
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        flow.review(Time::ZERO);
        ask(&mut flow, L1, "e1");
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        assert_eq!(removed(&mut flow), expected, "{origin:?}");
    }
}

/// Whoever connected 33 times under other names kept everything from being removed until the node was started
/// again.
#[test]
fn peers_that_told_of_nothing_make_room_for_others() {
    let mut flow = mirroring(&["a", "b"]);
    for number in 0..100 {
        let from = format!("x{number}");
        flow.attach_blocks(L2, peer(&from), Time::ZERO);
        ask(&mut flow, L2, &from);
        flow.detach_blocks(L2, Time::ZERO);
    }
    ask(&mut flow, L1, "e1");
    tell(&mut flow, L1, "e1", 7, &["a"]);
    assert!(!flow.has_too_many_peers());
    flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
    assert_eq!(removed(&mut flow), ["b"]);
}

#[test]
fn a_peer_that_is_gone_makes_room_only_where_another_one_speaks_for_its_origin() {
    for (origin, expected) in [(HERE, vec!["x"]), (ELSEWHERE, vec![])] {
        let mut flow = mirroring(&["a", "x"]);
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["a"]);
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        flow.have(name("x"), ByteCount(9), Root256([1; 32]));
        for number in 0..32 {
            let from = format!("x{number}");
            flow.attach_blocks(L2, peer(&from), Time::ZERO);
            ask(&mut flow, L2, &from);
            tell(&mut flow, L2, &from, 8, &["a", "x"]);
            flow.handle_whole(L2, &peer(&from), 8, 2, origin);
            flow.detach_blocks(L2, Time::ZERO);
        }
        removed(&mut flow);
        (0..2).for_each(|_| {
            flow.review(Time::ZERO);
            ask(&mut flow, L1, "e1");
            flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        });
        assert_eq!(flow.has_too_many_peers(), expected.is_empty(), "{origin}");
        assert_eq!(removed(&mut flow), expected, "{origin}");
    }
}

#[test]
fn a_log_that_lacks_most_of_what_is_here_removes_nothing() {
    let names: Vec<String> = (0..100).map(|number| format!("{number}")).collect();
    let texts: Vec<&str> = names.iter().map(String::as_str).collect();
    for (told, expected) in [(49, 0), (50, 50), (99, 1)] {
        let mut flow = mirroring(&texts);
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &texts[..told]);
        flow.handle_whole(L1, &peer("e1"), 7, told as u64, HERE);
        assert_eq!(removed(&mut flow).len(), expected);
        assert_eq!(flow.kept_back().is_some(), expected == 0);
    }
}

#[test]
fn what_was_kept_and_is_removed_by_hand_is_wanted_no_more() {
    let mut flow = mirroring(&["a", "b"]);
    ask(&mut flow, L1, "e1");
    tell(&mut flow, L1, "e1", 7, &["absent"]);
    tell(&mut flow, L1, "e1", 8, &[]);
    flow.handle_whole(L1, &peer("e1"), 8, 0, HERE);
    ask(&mut flow, L1, "e1");
    flow.handle_whole(L1, &peer("e1"), 8, 0, HERE);
    assert_eq!(removed(&mut flow), ["absent"], "it is not here: there is nothing to keep");
    assert_eq!(flow.kept_back(), Some((&peer("e1"), 2)));
    for (text, left) in [("a", Some(1)), ("b", None)] {
        assert!(flow.want_again(&name(text), ByteCount(9)));
        assert_eq!(flow.kept_back().map(|(_, count)| count), left);
    }
    assert!(flow.is_complete() && flow.totals().objects == 0);
}

#[test]
fn what_an_earlier_run_left_of_nobodys_objects_is_thrown_away() {
    let mut flow = mirroring(&[]);
    for text in ["a", "gone"] {
        let ranges = [(Offset(0), ByteCount(4))].into_iter().collect();
        flow.resume(name(text), (ByteCount(9), Root256([1; 32])), ranges, Vec::new());
    }
    let discarded = |flow: &mut Flow| {
        let actions = std::iter::from_fn(|| flow.poll_action());
        let names = actions.filter_map(|action| match action {
            Action::Discard { name, .. } => Some(name.to_string()),
            _ => None,
        });
        names.collect::<Vec<_>>()
    };
    ask(&mut flow, L1, "e1");
    tell(&mut flow, L1, "e1", 7, &["a"]);
    assert_eq!(discarded(&mut flow), [""; 0], "more may be told");
    flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
    assert_eq!(discarded(&mut flow), ["gone"]);
}

#[test]
fn an_empty_log_removes_nothing_and_what_it_spared_stays() {
    let mut flow = mirroring(&["a", "b"]);
    ask(&mut flow, L1, "e1");
    flow.handle_whole(L1, &peer("e1"), 7, 0, HERE);
    assert_eq!(removed(&mut flow), [""; 0]);
    assert_eq!(flow.kept_back(), Some((&peer("e1"), 2)));
    tell(&mut flow, L1, "e1", 8, &["a"]);
    ask(&mut flow, L1, "e1");
    flow.handle_whole(L1, &peer("e1"), 8, 1, HERE);
    assert_eq!(removed(&mut flow), [""; 0]);
    assert_eq!(flow.kept_back(), Some((&peer("e1"), 1)));
}

#[test]
fn what_is_not_mirrored_stays_and_is_wanted_no_more_where_it_is_not_here() {
    let mut flow = mirroring(&["old"]);
    flow.set_mirror(false);
    ask(&mut flow, L1, "e1");
    tell(&mut flow, L1, "e1", 7, &["a", "absent"]);
    flow.handle_whole(L1, &peer("e1"), 7, 2, HERE);
    tell(&mut flow, L1, "e1", 8, &["a"]);
    ask(&mut flow, L1, "e1");
    flow.handle_whole(L1, &peer("e1"), 8, 1, HERE);
    assert_eq!(removed(&mut flow), [""; 0]);
    let left: Vec<String> = flow.objects().map(|(name, ..)| name.to_string()).collect();
    assert_eq!(left, ["old", "a"]);
}

/// Since it was not known to be kept after a restart, it was wanted for good, and the trader SYNCING.
#[test]
fn what_is_not_mirrored_and_removed_by_hand_after_a_restart_is_wanted_no_more() {
    for removed_before_the_answer in [true, false] {
        let mut flow = mirroring(&["a", "old"]);
        flow.set_mirror(false);
        if removed_before_the_answer {
            assert!(flow.want_again(&name("old"), ByteCount(9)));
        }
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["a"]);
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        if !removed_before_the_answer {
            assert!(flow.want_again(&name("old"), ByteCount(9)));
        }
        assert!(flow.is_complete() && flow.totals().objects == 1);
    }
}

/// A far trader that could not read all of its `local/` kept what was gone there from being removed here, and nothing
/// said so.
#[test]
fn peers_none_of_which_answers_are_told_of() {
    let mut flow = mirroring(&["a", "b"]);
    let at = |seconds| Time(Duration::from_secs(seconds));
    let silent = |flow: &Flow| flow.silent_peers().map(ToString::to_string).collect::<Vec<_>>();
    ask(&mut flow, L1, "e1");
    ask(&mut flow, L2, "e2");
    [1, 12].iter().for_each(|&seconds| flow.review(at(seconds)));
    assert_eq!(silent(&flow), ["e1", "e2"]);
    tell(&mut flow, L1, "e1", 7, &["a", "b"]);
    flow.handle_whole(L1, &peer("e1"), 7, 2, HERE);
    assert_eq!(silent(&flow), [""; 0], "one is enough");
    flow.unlearn(&peer("e1"), &name("b"));
    ask(&mut flow, L1, "e1");
    [13, 24].iter().for_each(|&seconds| flow.review(at(seconds)));
    assert_eq!(silent(&flow), ["e1", "e2"], "b stays here");
    flow.set_mirror(false);
    assert_eq!(silent(&flow), [""; 0]);
}

/// What its origin had no more after a restart went on being known from before, and `verify --deep` found it there.
#[test]
fn what_is_kept_is_not_taken_to_be_at_its_origin_any_more() {
    for is_mirror in [true, false] {
        let mut flow = mirroring(&["a", "b"]);
        flow.set_mirror(is_mirror);
        let answer = |flow: &mut Flow, epoch, texts: &[&str]| {
            ask(flow, L1, "e1");
            tell(flow, L1, "e1", epoch, texts);
            flow.handle_whole(L1, &peer("e1"), epoch, texts.len() as u64, HERE);
            (flow.known().count(), flow.totals().objects, flow.is_complete())
        };
        assert_eq!(answer(&mut flow, 7, &["a", "b"]), (2, 2, true));
        assert_eq!(answer(&mut flow, 8, &[]), (0, 2, true));
        assert_eq!(answer(&mut flow, 9, &["a", "b"]), (2, 2, true), "and is not fetched when it comes back");
    }
}

/// What was moved out of `local/` and back was fetched again in full.
#[test]
fn what_is_kept_and_told_of_again_is_here_unless_it_is_another_version() {
    for (root, is_here) in [([1; 32], true), ([2; 32], false)] {
        let mut flow = mirroring(&["a"]);
        flow.set_mirror(false);
        ask(&mut flow, L1, "e1");
        tell(&mut flow, L1, "e1", 7, &["a"]);
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        flow.unlearn(&peer("e1"), &name("a"));
        flow.handle_whole(L1, &peer("e1"), 7, 1, HERE);
        assert!(flow.is_complete() && flow.kept_back().is_none() && !flow.knows(&name("a")));
        let Entry { name, content } = entry("a");
        flow.learn(&peer("e1"), Entry { name, content: Content { root: Root256(root), ..content } });
        assert_eq!((flow.is_complete(), flow.totals().objects, flow.totals().bytes), (is_here, 1, ByteCount(9)));
    }
}

#[test]
fn what_is_kept_and_removed_by_hand_is_wanted_when_it_is_told_of_again() {
    let mut flow = mirroring(&[]);
    flow.set_mirror(false);
    ask(&mut flow, L1, "e1");
    tell(&mut flow, L1, "e1", 7, &["a"]);
    flow.have(name("a"), ByteCount(9), Root256([1; 32]));
    flow.unlearn(&peer("e1"), &name("a"));
    assert!(flow.want_again(&name("a"), ByteCount(9)));
    assert!(flow.is_complete() && flow.totals().objects == 0, "nobody has it");
    tell(&mut flow, L1, "e1", 7, &["a"]);
    assert!(!flow.is_complete());
}

#[test]
fn a_relay_answers_when_it_has_asked_itself_since() {
    let mut relay = Flow::relay(ByteCount(1000));
    ask(&mut relay, L1, "t1");
    tell(&mut relay, L1, "t1", 7, &["a", "b"]);
    let subscribed = relay.subscribe(READER);
    assert_eq!(relay.whole_since(subscribed), None);
    relay.handle_whole(L1, &peer("t1"), 7, 2, HERE);
    assert_eq!(relay.whole_since(subscribed), None, "it was asked before");
    assert!(relay.is_ask_due(L1));
    ask(&mut relay, L1, "t1");
    relay.handle_whole(L1, &peer("t1"), 7, 2, HERE);
    assert_eq!(relay.whole_since(subscribed), Some(HERE));
    // The trader comes back without one of them.
    tell(&mut relay, L1, "t1", 8, &["b"]);
    assert_eq!(relay.whole_since(subscribed), None);
    ask(&mut relay, L1, "t1");
    relay.handle_whole(L1, &peer("t1"), 8, 1, HERE);
    assert_eq!(relay.whole_since(subscribed), Some(HERE));
    let told: Vec<_> = relay.news_from(relay.epoch(), 3).map(|(_, news)| news).collect();
    assert_eq!(told, [News::Removed(&name("a"))]);
}

#[test]
fn who_offers_answers_when_all_that_is_there_is_told() {
    let mut flow = Flow::offer_only();
    flow.set_origin(HERE);
    let subscribed = flow.subscribe(READER);
    assert_eq!(flow.whole_since(subscribed), None, "it has not looked yet");
    flow.set_told_all(false);
    assert_eq!(flow.whole_since(subscribed), None);
    flow.know(entry("a")).expect("room");
    flow.set_told_all(true);
    assert_eq!(flow.whole_since(subscribed), Some(HERE));
    flow.set_told_all(false);
    assert_eq!(flow.whole_since(subscribed), None);
}
