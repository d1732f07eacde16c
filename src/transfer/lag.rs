//! How far a flow is behind: the age of the oldest object that it wants and does not have.
//!
//! An object is missed from the moment it is put on the list, or is found to be another one than is here, until all of
//! it is here and final. Ages are in whole seconds, of the clock that [`Flow::expire`] was last told.

use std::collections::VecDeque;
use std::time::Duration;

use super::flow::{Flow, Kind};
use crate::limits;
use crate::units::{ObjectId, Time};

/// What a flow misses, oldest first. What has come is passed over when it is first, so that this costs next to nothing
/// while things go their way.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// The second that it is.
    now: u32,
    line: VecDeque<(u32, ObjectId)>,
}

impl Flow {
    /// How long the oldest object has been missed that is still not here; zero where none is missed. Of a flow that
    /// fetches; the others miss nothing.
    pub fn lag(&mut self) -> Duration {
        while let Some(&(since, id)) = self.missed.line.front() {
            if self.at(id).missed_since() == Some(since.into()) {
                return Duration::from_secs((self.missed.now - since).into());
            }
            self.missed.line.pop_front();
        }
        Duration::ZERO
    }

    /// Time passes.
    pub(super) fn set_clock(&mut self, now: Time) {
        self.missed.now = u32::try_from(now.0.as_secs()).unwrap_or(u32::MAX);
    }

    /// An object is wanted from now on, and is not here.
    pub(super) fn miss(&mut self, id: ObjectId) {
        if self.kind != Kind::Fetch {
            return;
        }
        let since = self.missed.now;
        self.at_mut(id).set_missed_since(since);
        self.missed.line.push_back((since, id));
        // One that never comes keeps all behind it in the line: what has come of these goes when it is the most.
        let missing = self.totals.objects.saturating_sub(self.totals.present) as usize;
        if self.missed.line.len() > 2 * missing + limits::MISSED_SLACK {
            let objects = &self.objects;
            let is_missed =
                |&(since, id): &(u32, ObjectId)| objects[id.0 as usize].missed_since() == Some(since.into());
            self.missed.line.retain(is_missed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{ByteCount, ObjectName};

    fn name(index: u64) -> ObjectName {
        ObjectName::new(format!("o{index}").as_bytes()).expect("a name")
    }

    fn at(flow: &mut Flow, second: u64) -> u64 {
        flow.expire(Time(Duration::from_secs(second)));
        flow.lag().as_secs()
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_object_that_is_not_here() {
        let mut flow = Flow::fetch();
        let size = ByteCount(10);
        assert_eq!(at(&mut flow, 5), 0, "nothing is wanted");
        let first = flow.want(name(1), Some(size), false);
        assert_eq!(at(&mut flow, 7), 2);
        let second = flow.want(name(2), Some(size), false);
        flow.want(name(3), Some(size), true);
        assert_eq!(at(&mut flow, 10), 5);
        flow.set_present(first, size);
        assert_eq!(at(&mut flow, 11), 4, "the second is the oldest now, and the third was here all the time");
        flow.set_present(second, size);
        assert_eq!(at(&mut flow, 12), 0);
        assert!(flow.want_again(&name(1), size));
        assert_eq!(at(&mut flow, 15), 3, "since it is wanted again, and not since it was first");
        flow.drop_from_table(first);
        assert_eq!(at(&mut flow, 16), 0, "what is gone at the peer is not missed");
    }

    #[test]
    fn an_object_that_never_comes_keeps_no_trace_of_those_that_do() {
        let mut flow = Flow::fetch();
        let size = Some(ByteCount(1));
        flow.want(name(0), size, false);
        let others: Vec<ObjectName> = (1..100).map(name).collect();
        for name in &others {
            flow.want(name.clone(), size, true);
        }
        for second in 1..200 {
            assert_eq!(at(&mut flow, second), second);
            for name in &others {
                flow.want_again(name, ByteCount(1));
                flow.want(name.clone(), size, true);
            }
        }
        assert!(flow.missed.line.len() <= 2 * 100 + limits::MISSED_SLACK, "{}", flow.missed.line.len());
    }
}
