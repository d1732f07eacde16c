//! What other threads tell a worker, and how they get its attention.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::NewLink;
use super::connection::LinkStats;
use super::session::{Answer, NewConnection};
use super::shared::lock;
use crate::units::{LinkId, Time};
use crate::uring::Waker;

/// Something for a worker to do.
#[derive(Debug)]
pub(super) enum Message {
    /// A link may have something new to ask for or to send.
    Wake(LinkId),
    /// Links that waited for others' bytes to be written may receive again.
    Look,
    /// A new connection.
    Add(Box<NewLink>, std::sync::Arc<LinkStats>),
    /// A new connection of a session.
    AddSession(Box<NewConnection>),
    /// What became of a session that a connection asked for.
    Answer(LinkId, Answer),
    /// End a link, for a reason.
    Close(LinkId, String),
    /// End all links: each after the train in flight, but no later than this.
    Drain(Duration),
}

/// One worker's inbox.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    queue: Mutex<Vec<Message>>,
    /// The worker will look into the queue before it waits.
    awake: AtomicBool,
    waker: OnceLock<Waker>,
    /// When the worker last took from the queue, nanoseconds of the node's clock.
    turn: AtomicU64,
}

impl Inbox {
    pub(super) fn attach(&self, waker: Waker) {
        let _ = self.waker.set(waker);
    }

    pub(super) fn push(&self, messages: impl IntoIterator<Item = Message>) {
        lock(&self.queue).extend(messages);
        if !self.awake.load(Ordering::SeqCst)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }

    /// When the worker last took from the queue.
    pub(super) fn last_turn(&self) -> Time {
        Time(Duration::from_nanos(self.turn.load(Ordering::Relaxed)))
    }

    /// The worker is about to wait. `false`: there is something in the queue, it must not.
    pub(super) fn may_wait(&self) -> bool {
        self.awake.store(false, Ordering::SeqCst);
        lock(&self.queue).is_empty()
    }

    /// The worker is at work again; everything that was told it so far.
    pub(super) fn take(&self, now: Time) -> Vec<Message> {
        self.turn.store(now.0.as_nanos() as u64, Ordering::Relaxed);
        self.awake.store(true, Ordering::SeqCst);
        std::mem::take(&mut *lock(&self.queue))
    }
}
