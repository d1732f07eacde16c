//! What `top` shows: the newest status, the last minute of every link, and what the person before it has chosen.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use crate::control::{ClientError, LinkStatus, PeerStatus, Status};
use crate::limits;

/// What a key or an event comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Leave,
}

/// What rows are sorted by; each is a column too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Peer,
    Link,
    State,
    In,
    Out,
    Share,
    HeldBy,
    Bad,
}

/// From left to right.
pub(super) const COLUMNS: [Column; 8] =
    [Column::Peer, Column::Link, Column::State, Column::In, Column::Out, Column::Share, Column::HeldBy, Column::Bad];

/// A link, its peer and its last minute.
pub(super) struct Row<'a> {
    pub(super) peer: &'a PeerStatus,
    pub(super) link: &'a LinkStatus,
    /// Bytes per second in and out together, the newest last.
    pub(super) history: &'a VecDeque<f64>,
}

/// All that there is to show.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) status: Status,
    /// Why the daemon does not answer now.
    pub(super) away: Option<String>,
    history: BTreeMap<(String, u32), VecDeque<f64>>,
    pub(super) sort: Column,
    pub(super) is_reversed: bool,
    /// The picture stands still.
    pub(super) is_paused: bool,
    pub(super) shows_help: bool,
    /// Rows above the first that is shown, as far as there are so many.
    pub(super) skipped: usize,
}

impl Top {
    pub(super) fn new(status: Status) -> Self {
        Self {
            status,
            away: None,
            history: BTreeMap::new(),
            sort: Column::Peer,
            is_reversed: false,
            is_paused: false,
            shows_help: false,
            skipped: 0,
        }
    }

    /// The daemon has answered, or has not.
    pub(super) fn handle_answer(&mut self, answer: Result<Status, ClientError>) {
        match answer {
            Ok(status) => {
                self.remember(&status);
                self.away = None;
                if !self.is_paused {
                    self.status = status;
                }
            }
            Err(error) => self.away = Some(error.to_string()),
        }
    }

    /// Adds a moment to the history of every link, and drops those of links that are no more.
    fn remember(&mut self, status: &Status) {
        let mut before = std::mem::take(&mut self.history);
        for (peer, link) in links(status) {
            let key = (peer.name.clone(), link.number);
            let mut history = before.remove(&key).unwrap_or_default();
            history.push_back(link.rate_in + link.rate_out);
            while history.len() > limits::TOP_HISTORY {
                history.pop_front();
            }
            self.history.insert(key, history);
        }
    }

    /// The links in the order that was chosen; equal ones as the daemon tells them.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        static NONE: VecDeque<f64> = VecDeque::new();
        let of = |peer: &PeerStatus, number| self.history.get(&(peer.name.clone(), number)).unwrap_or(&NONE);
        let mut rows: Vec<Row<'_>> =
            links(&self.status).map(|(peer, link)| Row { peer, link, history: of(peer, link.number) }).collect();
        rows.sort_by(|a, b| {
            let order = compare(self.sort, a, b);
            if self.is_reversed { order.reverse() } else { order }
        });
        rows
    }

    /// Sorts by the column that many to the right.
    pub(super) fn sort_by_next(&mut self, step: isize) {
        let at = COLUMNS.iter().position(|column| *column == self.sort).unwrap_or_default();
        self.sort = COLUMNS[at.wrapping_add_signed(step + COLUMNS.len() as isize) % COLUMNS.len()];
    }

    pub(super) fn toggle_pause(&mut self) {
        self.is_paused = !self.is_paused;
    }

    pub(super) fn scroll(&mut self, step: isize) {
        let last = links(&self.status).count().saturating_sub(1);
        self.skipped = self.skipped.saturating_add_signed(step).min(last);
    }
}

fn links(status: &Status) -> impl Iterator<Item = (&PeerStatus, &LinkStatus)> {
    status.peers.iter().flat_map(|peer| peer.links.iter().map(move |link| (peer, link)))
}

/// Names go up, figures go down: what there is most of comes first.
fn compare(column: Column, a: &Row<'_>, b: &Row<'_>) -> Ordering {
    match column {
        Column::Peer => a.peer.name.cmp(&b.peer.name).then(a.link.number.cmp(&b.link.number)),
        Column::Link => a.link.number.cmp(&b.link.number),
        Column::State => a.link.state.to_string().cmp(&b.link.state.to_string()),
        Column::In => b.link.rate_in.total_cmp(&a.link.rate_in),
        Column::Out => b.link.rate_out.total_cmp(&a.link.rate_out),
        Column::Share => b.link.share.unwrap_or_default().total_cmp(&a.link.share.unwrap_or_default()),
        Column::HeldBy => a.link.held_by.to_string().cmp(&b.link.held_by.to_string()),
        Column::Bad => b.link.bad.cmp(&a.link.bad),
    }
}
