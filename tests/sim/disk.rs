//! A root on disk: part files, final files and markers, what a crash leaves of them, and who writes them.
//!
//! A part is lost in a crash. A final file and a marker are durable from the moment that they stand here: the committer
//! puts them here only when the step that makes them so is done, and a crash may come between any two steps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use supersync::transfer::FlowId;
use supersync::units::{Generation, ObjectId, ObjectName};

pub(crate) type Bytes = Rc<Vec<u8>>;

/// Where a part belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attempt {
    pub(crate) flow: FlowId,
    pub(crate) id: ObjectId,
    pub(crate) generation: Generation,
}

#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) bytes: Vec<u8>,
    /// From the start without a gap.
    pub(crate) written: usize,
}

/// What the writer is to do, in order.
#[derive(Debug)]
pub(crate) enum Job {
    Create { attempt: Attempt, size: usize },
    Write { attempt: Attempt, offset: usize, bytes: Vec<u8> },
    Abandon { attempt: Attempt },
    Evict { flow: FlowId, name: ObjectName },
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Done {
    Created(Attempt),
    Written(Attempt, usize),
    Failed(Attempt, &'static str),
}

/// How far the committer is with its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Rename,
    Mark,
    Tell,
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    // Durable.
    pub(crate) files: BTreeMap<(FlowId, ObjectName), Bytes>,
    pub(crate) markers: BTreeSet<ObjectName>,
    // Volatile.
    pub(crate) parts: BTreeMap<Attempt, Part>,
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) backlog: usize,
    pub(crate) writing: bool,
    pub(crate) to_commit: Vec<(Attempt, ObjectName)>,
    pub(crate) committing: Vec<(Attempt, ObjectName)>,
    pub(crate) full: bool,
}

impl Disk {
    /// kill -9: what is not durable is gone.
    pub(crate) fn crash(&mut self) {
        let files = std::mem::take(&mut self.files);
        let markers = std::mem::take(&mut self.markers);
        *self = Self { files, markers, full: self.full, ..Self::default() };
    }

    pub(crate) fn push(&mut self, job: Job) {
        if let Job::Write { bytes, .. } = &job {
            self.backlog += bytes.len();
        }
        self.jobs.push_back(job);
    }

    /// Does the next job.
    pub(crate) fn work(&mut self) -> Option<Done> {
        match self.jobs.pop_front()? {
            Job::Create { attempt, .. } if self.full => Some(Done::Failed(attempt, "No space left on device")),
            Job::Create { attempt, size } => {
                let part = Part { bytes: vec![0xEE; size], written: 0 };
                assert!(self.parts.insert(attempt, part).is_none(), "{attempt:?} is made twice");
                Some(Done::Created(attempt))
            }
            Job::Write { attempt, offset, bytes } => {
                self.backlog -= bytes.len();
                // Abandoned in the meantime, or never made.
                let part = self.parts.get_mut(&attempt)?;
                assert_eq!(part.written, offset, "an attempt's bytes come in order");
                part.bytes[offset..offset + bytes.len()].copy_from_slice(&bytes);
                part.written += bytes.len();
                Some(Done::Written(attempt, part.written))
            }
            Job::Abandon { attempt } => {
                self.parts.remove(&attempt);
                None
            }
            Job::Evict { flow, name } => {
                self.files.remove(&(flow, name));
                None
            }
        }
    }

    /// Does one step of a commit for the whole batch.
    pub(crate) fn commit(&mut self, step: Step, marks: bool) {
        match step {
            Step::Rename => self.committing.retain(|(attempt, name)| {
                // Abandoned in the meantime.
                let Some(part) = self.parts.remove(attempt) else { return false };
                assert_eq!(part.written, part.bytes.len(), "only a whole part is committed");
                self.files.insert((attempt.flow, name.clone()), Rc::new(part.bytes));
                true
            }),
            Step::Mark if marks => self.markers.extend(self.committing.iter().map(|(_, name)| name.clone())),
            Step::Mark | Step::Tell => {}
        }
    }

    pub(crate) fn bytes_of(&self, flow: FlowId) -> u64 {
        self.files.iter().filter(|((f, _), _)| *f == flow).map(|(_, bytes)| bytes.len() as u64).sum()
    }
}
