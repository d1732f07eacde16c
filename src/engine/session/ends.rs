//! What both ends of a session use, the server and the client: how it begins to send or to receive, and what its
//! options mean for the tree.

use std::sync::{Arc, mpsc};

use super::job::SessionFeed;
use super::running::Running;
use super::server::Share;
use super::{landing, source};
use crate::engine::shared::Shared;
use crate::engine::spawn;
use crate::proto::session::{Session, Side};
use crate::store::tree::{Landing, LandingOptions, Rules, Walk, WalkOptions};
use crate::units::Rate;
use crate::wire::session::Options;

/// Begins to send what `walk` finds.
pub(super) fn send(
    shared: &Arc<Shared>,
    peer: String,
    side: Side,
    options: &Options,
    mut walk: Walk,
    feed: Option<SessionFeed>,
) -> std::io::Result<Arc<Running>> {
    let limit = options.bwlimit.map(|bytes| Rate(bytes.0 as f64));
    let protocol = Session::sender(side, options.block, limit);
    let session = Running::new(Arc::clone(shared), peer, protocol, None, feed);
    walk.stop_when(Arc::clone(&session.is_over));
    let (scanned, block, tells) = (Arc::clone(&session), options.block, options.left_out);
    let thread = spawn("ss-scanner", move || source::scan(&scanned, walk, block, tells))?;
    shared.sessions.keep(thread);
    Ok(session)
}

/// Begins to put what comes where the landing says, which may write to a tree that others share.
pub(super) fn receive(
    shared: &Arc<Shared>,
    peer: String,
    side: Side,
    options: &Options,
    landing: (Landing, Option<Share>),
    feed: Option<SessionFeed>,
) -> std::io::Result<Arc<Running>> {
    let (jobs, queue) = mpsc::channel();
    let protocol = Session::receiver(side, options.block);
    let session = Running::new(Arc::clone(shared), peer, protocol, Some(jobs), feed);
    let thread = landing::spawn(Arc::clone(&session), landing, options.block, options.dry_run, queue)?;
    shared.sessions.keep(thread);
    Ok(session)
}

pub(super) fn rules(options: &Options) -> Result<Rules, String> {
    let lines: Result<Vec<&str>, _> = options.rules.iter().map(|rule| std::str::from_utf8(rule)).collect();
    let lines = lines.map_err(|error| format!("a rule is not UTF-8: {error}"))?;
    Rules::new(lines).map_err(|error| error.to_string())
}

pub(super) fn walk_options(options: &Options) -> WalkOptions {
    let is_privileged = nix::unistd::geteuid().is_root();
    WalkOptions {
        owner: is_privileged,
        user_names: is_privileged && !options.numeric_ids,
        xattrs: options.xattrs,
        hash: options.checksum,
        tries: options.dry_run,
    }
}

pub(super) fn landing_options(options: &Options, rules: Rules) -> LandingOptions {
    LandingOptions {
        delete: options.delete,
        checksum: options.checksum,
        dry_run: options.dry_run,
        xattrs: options.xattrs,
        owner: nix::unistd::geteuid().is_root(),
        numeric_ids: options.numeric_ids,
        resume: options.resume,
        rules,
        fsync: options.fsync,
    }
}
