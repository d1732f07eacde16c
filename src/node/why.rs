//! What holds a link back: one verdict from what is known of it. Looks at nothing but its arguments.

use std::time::Duration;

use bytesize::ByteSize;

use crate::control::HeldBy;
use crate::limits;

/// A part of the time from which on something is taken to be what limits a link.
const MUCH: f64 = 0.3;

/// What is known of a link.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Why there is no connection, where there is none.
    pub(super) down: Option<String>,
    /// It is put aside for so long yet.
    pub(super) aside: Option<Duration>,
    /// Times that it damaged what it carried.
    pub(super) bad: u64,
    /// Why the disk takes nothing now.
    pub(super) disk: Option<String>,
    /// This node is an exchange, and its peer a trader; else it is the other way round.
    pub(super) is_exchange: bool,
    /// What is on order over it, and for how long nothing of that has come.
    pub(super) orders: usize,
    pub(super) on_order: u64,
    pub(super) silent: Duration,
    /// For how long nothing at all has come over it, keep-alive included.
    pub(super) quiet: Duration,
    /// The peer's last answer was that it has not what it is asked for.
    pub(super) pending: bool,
    /// Something is missing, and no link has any of it on order.
    pub(super) wanting: bool,
    /// Why what should come in over it has no place in the spool, where that is so.
    pub(super) no_room: Option<String>,
    /// Requests of the peer that are not answered.
    pub(super) asked: usize,
    /// Bytes of objects in and out, a second.
    pub(super) rate_in: f64,
    pub(super) rate_out: f64,
    /// As TCP tells: bytes that wait to be sent, how often the oldest was sent again, segments sent again since the
    /// start.
    pub(super) unsent: u64,
    pub(super) resending: u8,
    pub(super) retransmits: u64,
    pub(super) rtt: Duration,
    /// Parts of the time: something was to be sent, the peer's window was full, our send buffer was too small.
    pub(super) busy: f64,
    pub(super) receiver_limited: f64,
    pub(super) send_buffer_limited: f64,
}

/// What holds the link back, and the same in words. What stands still goes before what flows, and what comes in before
/// what goes out: that is what this node waits for.
pub(super) fn judge(facts: &Facts) -> (HeldBy, String) {
    let standing = stopped(facts).or_else(|| incoming(facts)).or_else(|| outgoing(facts));
    standing.or_else(|| flowing(facts)).unwrap_or_else(|| (HeldBy::Nothing, "nothing to do".into()))
}

/// The link as a whole does nothing.
fn stopped(facts: &Facts) -> Option<(HeldBy, String)> {
    if let Some(reason) = &facts.down {
        return Some((HeldBy::Down, reason.clone()));
    }
    // Where all links are put aside they are used all the same.
    if let Some(aside) = facts.aside.filter(|_| facts.orders == 0) {
        let why = format!("put aside: {} damaged; tried again in {}", times(facts.bad), seconds(aside));
        return Some((HeldBy::Damage, why));
    }
    if let Some(reason) = &facts.disk {
        return Some((HeldBy::Disk, reason.clone()));
    }
    (facts.resending > 1).then(|| {
        let why = format!("the peer's host acknowledges nothing: sent again {} times in a row", facts.resending);
        (HeldBy::Network, why)
    })
}

/// What should come in does not.
fn incoming(facts: &Facts) -> Option<(HeldBy, String)> {
    let orders = plural(facts.orders, "order");
    if facts.orders > 0 && facts.silent >= limits::LATE_AFTER {
        let silent = seconds(facts.silent);
        if facts.quiet >= limits::QUIET_AFTER {
            return Some((
                HeldBy::Peer,
                format!("{orders} out, and nothing at all has come for {}", seconds(facts.quiet)),
            ));
        }
        return Some(match facts.is_exchange {
            true => (HeldBy::Peer, format!("{orders} out, and the peer has answered none for {silent}")),
            false => (HeldBy::Relay, format!("{orders} out, and the exchange has had nothing of them for {silent}")),
        });
    }
    if let Some(why) = facts.no_room.as_ref().filter(|_| facts.orders == 0) {
        return Some((HeldBy::Relay, why.clone()));
    }
    let why = match () {
        () if facts.pending => "says that it has not yet what is wanted",
        () if facts.orders == 0 && facts.wanting => "has told of nothing that is missing here",
        () => return None,
    };
    Some(match facts.is_exchange {
        true => (HeldBy::Peer, format!("the peer {why}")),
        false => (HeldBy::Relay, format!("the exchange {why}")),
    })
}

/// What should go out does not, or no faster for a reason that is not the network's.
fn outgoing(facts: &Facts) -> Option<(HeldBy, String)> {
    let sends = facts.unsent > 0 || facts.busy >= MUCH;
    if sends && facts.receiver_limited >= MUCH {
        let why =
            format!("the peer reads too slowly: its window was full {} of the time", percent(facts.receiver_limited));
        return Some((HeldBy::Peer, why));
    }
    let waits = facts.is_exchange && facts.asked > 0 && !sends && facts.orders == 0;
    waits.then(|| {
        let why =
            format!("the peer has {} out, and none of it has come from the far trader", plural(facts.asked, "order"));
        (HeldBy::Relay, why)
    })
}

/// It carries what the network lets it.
fn flowing(facts: &Facts) -> Option<(HeldBy, String)> {
    let mut clauses = Vec::new();
    if facts.orders > 0 {
        clauses.push(format!("brings {}, with {} more on order", rate(facts.rate_in), size(facts.on_order)));
    }
    if facts.unsent > 0 || facts.busy >= MUCH {
        let sends = format!("sends {}, busy {} of the time", rate(facts.rate_out), percent(facts.busy));
        clauses.push(sends);
        if facts.retransmits > 0 {
            clauses.push(format!("{} segments sent again", facts.retransmits));
        }
        if facts.send_buffer_limited >= MUCH {
            clauses.push("its send buffer is too small (net.ipv4.tcp_wmem)".into());
        }
    }
    if !clauses.is_empty() && !facts.rtt.is_zero() {
        clauses.push(format!("round trip {:.1} ms", facts.rtt.as_secs_f64() * 1000.0));
    }
    (!clauses.is_empty()).then(|| (HeldBy::Network, clauses.join("; ")))
}

fn times(count: u64) -> String {
    if count == 1 { "once".into() } else { format!("{count} times") }
}

fn plural(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn percent(part: f64) -> String {
    format!("{:.0} %", 100.0 * part.clamp(0.0, 1.0))
}

pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().si().to_string()
}

fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", size(bytes_per_second.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn check(facts: Facts, expected: HeldBy, text: &str) {
        let (held_by, why) = judge(&facts);
        assert_eq!(held_by, expected, "{why}");
        assert!(why.contains(text), "{why}");
    }

    fn fetching() -> Facts {
        Facts { orders: 12, on_order: 1_300_000, rate_in: 1.5e6, ..Facts::default() }
    }

    #[test]
    fn a_link_without_work_is_held_by_nothing() {
        check(Facts::default(), HeldBy::Nothing, "nothing to do");
        // A trader serves at once what it has: what is asked of it is on its way out.
        check(Facts { asked: 3, ..Facts::default() }, HeldBy::Nothing, "nothing to do");
    }

    #[test]
    fn a_link_that_carries_all_it_can_is_held_by_the_network() {
        check(fetching(), HeldBy::Network, "brings 1.5 MB/s, with 1.3 MB more on order");
        let sending = Facts { busy: 0.98, rate_out: 1.4e6, unsent: 60_000, rtt: SECOND / 40, ..Facts::default() };
        check(sending.clone(), HeldBy::Network, "sends 1.4 MB/s, busy 98 % of the time; round trip 25.0 ms");
        check(Facts { retransmits: 7, ..sending.clone() }, HeldBy::Network, "7 segments sent again");
        check(Facts { send_buffer_limited: 0.5, ..sending }, HeldBy::Network, "tcp_wmem");
        check(Facts { resending: 3, ..fetching() }, HeldBy::Network, "sent again 3 times in a row");
    }

    #[test]
    fn orders_without_answer_are_the_peers_or_the_relays() {
        let waiting = Facts { silent: SECOND, ..fetching() };
        check(waiting.clone(), HeldBy::Relay, "12 orders out, and the exchange has had nothing of them for 1.0 s");
        check(Facts { is_exchange: true, ..waiting.clone() }, HeldBy::Peer, "the peer has answered none for 1.0 s");
        check(Facts { quiet: 2 * SECOND, ..waiting }, HeldBy::Peer, "nothing at all has come for 2.0 s");
        check(
            Facts { wanting: true, ..Facts::default() },
            HeldBy::Relay,
            "the exchange has told of nothing that is missing",
        );
        check(Facts { wanting: true, ..fetching() }, HeldBy::Network, "brings");
        check(Facts { pending: true, ..Facts::default() }, HeldBy::Relay, "the exchange says that it has not yet");
        check(Facts { pending: true, ..fetching() }, HeldBy::Relay, "says that it has not yet");
        check(Facts { pending: true, is_exchange: true, ..Facts::default() }, HeldBy::Peer, "says that it has not yet");
    }

    #[test]
    fn a_relay_waits_for_the_far_side_or_for_room() {
        let asked = Facts { is_exchange: true, asked: 4, ..Facts::default() };
        check(asked.clone(), HeldBy::Relay, "the peer has 4 orders out, and none of it has come from the far trader");
        check(Facts { busy: 0.9, ..asked }, HeldBy::Network, "sends");
        let no_room = || Some("the spool is full".to_owned());
        check(Facts { is_exchange: true, no_room: no_room(), ..Facts::default() }, HeldBy::Relay, "the spool is full");
        check(Facts { is_exchange: true, no_room: no_room(), ..fetching() }, HeldBy::Network, "brings");
    }

    #[test]
    fn a_peer_that_does_not_read_is_told_from_a_network_that_is_slow() {
        let full = Facts { unsent: 100_000, busy: 1.0, receiver_limited: 0.6, ..fetching() };
        check(full.clone(), HeldBy::Peer, "its window was full 60 % of the time");
        check(Facts { receiver_limited: 0.1, ..full }, HeldBy::Network, "brings 1.5 MB/s");
    }

    #[test]
    fn what_stops_the_link_as_a_whole_goes_first() {
        let all = Facts {
            down: Some("connection refused, next try in 8 s".into()),
            aside: Some(12 * SECOND),
            bad: 3,
            disk: Some("no space left".into()),
            ..Facts::default()
        };
        check(all.clone(), HeldBy::Down, "connection refused");
        check(Facts { down: None, ..all.clone() }, HeldBy::Damage, "put aside: 3 times damaged; tried again in 12.0 s");
        check(Facts { down: None, aside: None, ..all.clone() }, HeldBy::Disk, "no space left");
        check(Facts { down: None, disk: None, orders: 3, ..all }, HeldBy::Network, "brings");
    }
}
