//! One direction of a connection: bytes in order, at a rate, after a latency, in random fragments, a bounded number of
//! them on the way.

use std::collections::VecDeque;

/// What a direction does to bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nature {
    pub(crate) bytes_per_second: f64,
    pub(crate) latency_ns: u64,
    /// Bytes on the way or arrived and not read, at most: socket buffers and the wire.
    pub(crate) capacity: usize,
    /// Longest fragment.
    pub(crate) fragment_max: usize,
}

#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) nature: Nature,
    /// Sent and not arrived.
    under_way: VecDeque<Vec<u8>>,
    /// Arrived and not read.
    pub(crate) arrived: VecDeque<u8>,
    on_the_way: usize,
    /// A fragment is being put on the wire.
    pub(crate) busy: bool,
    /// Nothing arrives; what would have waits.
    pub(crate) stalled: bool,
    held: usize,
}

impl Pipe {
    pub(crate) fn new(nature: Nature) -> Self {
        Self {
            nature,
            under_way: VecDeque::new(),
            arrived: VecDeque::new(),
            on_the_way: 0,
            busy: false,
            stalled: false,
            held: 0,
        }
    }

    /// Takes the first bytes of `bytes` and says how many, and how long they take on the wire; none while a fragment
    /// is being sent or the pipe is full.
    pub(crate) fn send(&mut self, bytes: &[u8], fragment: usize) -> Option<(usize, u64)> {
        let space = self.nature.capacity.saturating_sub(self.on_the_way + self.arrived.len());
        let length = bytes.len().min(fragment).min(space);
        if self.busy || length == 0 {
            return None;
        }
        self.busy = true;
        self.on_the_way += length;
        self.under_way.push_back(bytes[..length].to_vec());
        Some((length, (length as f64 / self.nature.bytes_per_second * 1e9) as u64 + 1))
    }

    /// The oldest fragment gets there; `false` where it is held up.
    pub(crate) fn arrive(&mut self) -> bool {
        if self.stalled || self.held > 0 {
            self.held += 1;
            return false;
        }
        self.arrive_now();
        true
    }

    /// The stall is over: what was held up arrives.
    pub(crate) fn heal(&mut self) {
        self.stalled = false;
        for _ in 0..std::mem::take(&mut self.held) {
            self.arrive_now();
        }
    }

    fn arrive_now(&mut self) {
        let fragment = self.under_way.pop_front().expect("one arrival is planned a fragment");
        self.on_the_way -= fragment.len();
        self.arrived.extend(fragment);
    }
}
