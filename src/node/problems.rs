//! What an operator should look at, by where it was found. Each look replaces what the one before it found.

use tokio::time::Instant;

use super::report::wants_what_is_told;
use super::site::{FIRST, Site, lock};
use crate::config::{self, RoleConfig, StoreConfig, Trader};
use crate::engine::Store;
use crate::limits;
use crate::store::Root;
use crate::transfer::Flow;

/// Where problems are found, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// The directories of modules.
    Modules,
    /// The directories that are fetched into.
    Stores,
    /// Objects that are here and cannot be looked at.
    Remote,
    /// Names of the specification.
    Wanted,
    /// The directory that is served.
    Local,
    /// Files in it that cannot be read.
    Unreadable,
}

/// A directory that a node has open and that another one stands in for, or that nothing can arrive in any more.
pub(super) fn replaced(root: &Root) -> Option<String> {
    let path = root.path().display();
    if root.is_replaced() {
        return Some(format!(
            "{path} is no longer the directory that this node has open: it was removed, renamed, unmounted or mounted over. \
             Put that one back, or restart the node to use what is there now"
        ));
    }
    root.has_lost_parts().then(|| {
        format!(
            "{path}/{} was removed or replaced under this node, and nothing more can arrive there: restart the node",
            limits::PRIVATE_DIR
        )
    })
}

impl Site {
    /// All that a look at `subject` found. What the one before it did not find is logged.
    pub(super) fn tell_problems(&self, subject: Subject, problems: Vec<String>) {
        let mut all = lock(&self.problems);
        let known = all.entry(subject).or_default();
        for problem in problems.iter().filter(|problem| !known.contains(problem)).take(limits::PROBLEMS_SHOWN_MAX) {
            tracing::warn!("{problem}");
        }
        *known = problems;
    }

    /// Whether the directories that are fetched into are still those that were opened.
    pub(super) fn look_at_stores(&self) {
        let fetched_into = self.stores.iter().filter(|store| !matches!(store, Store::Local(_)));
        self.tell_problems(Subject::Stores, fetched_into.filter_map(|store| replaced(store.root())).collect());
    }

    /// Whether the directories of modules are there, with the rights that they need.
    pub(super) fn look_at_modules(&self) {
        let config = self.config();
        let RoleConfig::Trader(trader) = &config.role else { return };
        let found = config::check_modules(&trader.modules).into_iter();
        self.tell_problems(Subject::Modules, found.map(|finding| finding.in_a_line()).collect());
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = lock(&self.problems).values().flatten().cloned().collect();
        problems.truncate(limits::PROBLEMS_SHOWN_MAX);
        if let Some(problem) = &*lock(&self.reload_problem) {
            problems.insert(0, format!("config: {problem}"));
        }
        if let RoleConfig::Trader(trader) = &self.config().role
            && trader.has_peers()
            && self.has_begun()
            && !self.has_callers()
        {
            problems.push(
                "nobody is connected: what the far trader has is not known here, nor the other way round. Does an \
                 exchange dial this node, and does `listen.allow` let it in?"
                    .into(),
            );
        }
        if let RoleConfig::Trader(Trader { store: Some(StoreConfig { segments: None, .. }), .. }) = &self.config().role
            && self.engine().with_flows(|flows, _| flows.at(FIRST).fetches_by_name_only())
        {
            problems.push(
                "no peer that is connected can tell what the far trader has, and without `segments` under [store] nothing \
                 is fetched from such peers: write it, or blocks = true at the exchanges"
                    .into(),
            );
        }
        problems.extend(lock(&self.flaps).misfits(Instant::now()).take(limits::PROBLEMS_SHOWN_MAX));
        let wants_all = wants_what_is_told(&self.config());
        let failed: Vec<String> = self.engine().with_flows(|flows, now| {
            let all = flows.iter().filter(|flow| flow.totals().failed > 0).flat_map(Flow::objects);
            let failed = all.filter_map(|(name, _, _, problem)| problem.map(|problem| format!("{name}: {problem}")));
            let mut told: Vec<String> = failed.take(limits::PROBLEMS_SHOWN_MAX).collect();
            for (peer, count) in flows.iter().filter_map(Flow::kept_back) {
                told.push(format!(
                    "by what {peer} tells, the far trader lacks most of what was here: {count} objects in remote/ that it has \
                     not told of since are kept. Was its local/ mounted? If they are to go, remove them by hand"
                ));
            }
            for peer in flows.iter().flat_map(Flow::lossy_peers) {
                told.push(format!(
                    "not all that {peer} tells of can be taken, and the rest is not fetched: there is room for {} objects, \
                     and for {} bytes of names and checksums",
                    limits::OBJECTS_MAX,
                    limits::KNOWN_BYTES_MAX
                ));
            }
            for peer in flows.iter().filter(|_| wants_all).flat_map(Flow::silent_peers) {
                told.push(format!(
                    "{peer} does not say that it has told all that the far trader has: it is cut off from that, or the far \
                     trader still reads its local/ or cannot read all of it. Its own status says what cannot be read"
                ));
            }
            let mirror = flows.iter().filter(|flow| flow.is_mirror());
            if mirror.filter(|flow| flow.has_too_many_peers()).count() > 0 {
                told.push(format!(
                    "more than {} peers have told what there is, so that nobody can say what of it is gone: nothing is \
                     removed. Allow only exchanges of this site to connect (listen.allow), and restart this node",
                    u32::BITS
                ));
            }
            // A spool remembers no object that it could not take.
            for why in flows.iter().filter_map(|flow| flow.last_store_failure(now)) {
                if !told.iter().any(|problem| problem.ends_with(why)) {
                    told.push(why.to_owned());
                }
            }
            told
        });
        problems.extend(failed);
        problems
    }
}
