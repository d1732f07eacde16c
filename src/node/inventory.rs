//! What a trader tells of its `local/`: each object's checksums, made in the background and remembered.
//!
//! An object is offered once it has been hashed, one after the other, so that serving starts with the first one. Hashes are
//! kept in the state directory by name, size, times and inode: a restart hashes only what has changed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::site::{SECOND, Site};
use crate::store::{HashCache, Hashes, Refusal, Refused, Root, Sample, Stamp, hash_source};
use crate::transfer::{Content, Entry, Flow};
use crate::units::ObjectName;

/// Objects that were found new or changed.
pub(super) type Batch = Vec<(ObjectName, Stamp)>;

/// Whether a look at `local/` has seen all that is there: a directory that cannot be read may hold anything.
pub(super) fn is_whole(refused: &Sample<Refused>) -> bool {
    let is_known = |refused: &Refused| !matches!(refused.reason, Refusal::Unreadable(_));
    refused.count == refused.first.len() as u64 && refused.first.iter().all(is_known)
}

/// Tells that what was told of is not there any more. Not so where nothing is there any more: then a file system is not
/// mounted, more likely than not, and `false` is returned.
pub(super) fn forget_gone(flow: &mut Flow, is_there: impl Fn(&ObjectName) -> bool, problems: &mut Vec<String>) -> bool {
    let known = || flow.objects().map(|(name, ..)| name).filter(|name| flow.knows(name));
    let gone: Vec<ObjectName> = known().filter(|name| !is_there(name)).cloned().collect();
    if !gone.is_empty() && !known().any(is_there) {
        let count = gone.len();
        problems.push(format!(
            "none of the {count} objects of local/ is there any more: nobody is told so. Is its file system mounted?"
        ));
        return false;
    }
    gone.iter().for_each(|name| flow.forget(name));
    true
}

/// Starts the thread that hashes; it ends with the node.
pub(super) fn start(site: &Arc<Site>, root: Arc<Root>) -> std::io::Result<Sender<Batch>> {
    let (batches, queue) = channel();
    let site = Arc::downgrade(site);
    std::thread::Builder::new().name("ss-hasher".into()).spawn(move || run(&site, &root, &queue))?;
    Ok(batches)
}

fn run(site: &std::sync::Weak<Site>, root: &Root, queue: &Receiver<Batch>) {
    let mut cache = site.upgrade().and_then(|site| open_cache(&site));
    for batch in queue {
        for (name, stamp) in batch {
            let Some(site) = site.upgrade().filter(|site| !site.is_ending()) else { return };
            let known = cache.as_ref().and_then(|cache| cache.lookup(&name, &stamp)).cloned();
            let hashes = known.map_or_else(|| hash(root, &name, &stamp, cache.as_mut()), Ok);
            match hashes {
                Ok(hashes) => offer(&site, name, &stamp, &hashes),
                // It has changed meanwhile, and a look at the directory will tell.
                Err(error) => {
                    tracing::debug!(object = %name, "not hashed: {error}");
                    site.look_again();
                }
            }
        }
        if let Some(Err(error)) = cache.as_mut().map(HashCache::flush) {
            tracing::warn!("hashes are not remembered: {error}");
        }
    }
}

fn open_cache(site: &Site) -> Option<HashCache> {
    let directory = site.config().state_dir.clone();
    let opened = std::fs::create_dir_all(&directory)
        .map_err(|error| format!("{}: {error}", directory.display()))
        .and_then(|()| HashCache::open(&directory).map_err(|error| error.to_string()));
    opened.inspect_err(|error| tracing::warn!("hashes are not remembered: {error}")).ok()
}

fn hash(root: &Root, name: &ObjectName, stamp: &Stamp, cache: Option<&mut HashCache>) -> Result<Hashes, String> {
    let source = root.open_source(name).map_err(|error| error.to_string())?;
    if source.stamp() != *stamp {
        return Err("it has changed since it was seen".into());
    }
    let hashes = hash_source(&source).map_err(|error| error.to_string())?;
    if let Some(cache) = cache.filter(|_| source.is_settled()) {
        cache.insert(name.clone(), *stamp, hashes.clone());
    }
    Ok(hashes)
}

fn offer(site: &Site, name: ObjectName, stamp: &Stamp, hashes: &Hashes) {
    let content = Content {
        size: stamp.size,
        mtime_ns: stamp.mtime.0,
        mode: stamp.mode.bits(),
        root: hashes.root,
        block_crcs: hashes.block_crcs.clone(),
    };
    site.engine().with_flows(|flows, _| {
        let flow = flows.at(SECOND);
        flow.offer(name.clone(), content.size);
        flow.know(Entry { name, content });
    });
}
