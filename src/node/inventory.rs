//! What a trader tells of its `local/`: each object's checksums, made in the background and remembered.
//!
//! An object is offered once it has been hashed, so that serving starts with the first ones. Hashes are kept in the
//! state directory by name, size, times and inode: a restart hashes only what has changed. After the first look at the
//! directory nothing more is looked up there, as what comes later is new.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Instant;

use bytes::Bytes;

use super::problems::Subject;
use super::site::{SECOND, Site, lock};
use crate::config::Config;
use crate::engine;
use crate::limits;
use crate::store::{DirectoryLock, HashCache, Hashes, Root, SourceError, Stamp, StoreError, hash_small, hash_source};
use crate::transfer::{Content, Entry};
use crate::units::ObjectName;
use crate::wire::inventory::check_size;

/// Objects that were found new or changed.
pub(super) type Batch = Vec<(ObjectName, Stamp)>;

/// What the hasher is to do.
#[derive(Debug, Default)]
pub(super) struct Queue {
    todo: Mutex<Todo>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Todo {
    objects: VecDeque<(ObjectName, Stamp)>,
    /// A look has ended, and all that it found is in the queue; whether that is all there is.
    look_ended: Option<bool>,
    /// Something that it found has changed meanwhile.
    changed: bool,
    /// What cannot be read of it, in words; the first few.
    unreadable: Vec<String>,
}

/// What there is to do next.
enum Next {
    Hash(Vec<(ObjectName, Stamp)>),
    LookEnded { is_all: bool, unreadable: Vec<String> },
    Nothing,
}

impl Queue {
    /// Drops what was not hashed yet.
    pub(super) fn clear(&self) {
        *lock(&self.todo) = Todo::default();
    }

    pub(super) fn push(&self, batch: Batch) {
        if !batch.is_empty() {
            lock(&self.todo).objects.extend(batch);
            self.changed.notify_one();
        }
    }

    /// All that a look found was pushed; `is_all`: nothing else is there.
    pub(super) fn end_look(&self, is_all: bool) {
        lock(&self.todo).look_ended = Some(is_all);
        self.changed.notify_one();
    }

    fn note(&self, missed: &Missed) {
        let mut todo = lock(&self.todo);
        match missed {
            Missed::Changed(_) => todo.changed = true,
            Missed::Unreadable(why) if todo.unreadable.len() < limits::PROBLEMS_SHOWN_MAX => {
                todo.unreadable.push(why.clone());
            }
            Missed::Unreadable(_) => {}
        }
    }

    fn next(&self) -> Next {
        let todo = lock(&self.todo);
        let is_idle = |todo: &mut Todo| todo.objects.is_empty() && todo.look_ended.is_none();
        let waited = self.changed.wait_timeout_while(todo, limits::HASHER_LOOK_EVERY, is_idle);
        let (mut todo, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let count = todo.objects.len().min(limits::SCAN_PART_OBJECTS);
        if count > 0 {
            return Next::Hash(todo.objects.drain(..count).collect());
        }
        let Some(is_all) = todo.look_ended.take() else { return Next::Nothing };
        let Todo { changed, unreadable, .. } = std::mem::take(&mut *todo);
        Next::LookEnded { is_all: is_all && !changed && unreadable.is_empty(), unreadable }
    }
}

/// Why an object was not hashed.
enum Missed {
    /// It is another one, or gone, since it was seen: a look at the directory will tell.
    Changed(String),
    /// It cannot be read.
    Unreadable(String),
}

impl From<StoreError> for Missed {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } | StoreError::NotRegular { .. } => Self::Changed(error.to_string()),
            error => Self::Unreadable(error.to_string()),
        }
    }
}

impl From<SourceError> for Missed {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Shrunk { .. } | SourceError::Changed { .. } => Self::Changed(error.to_string()),
            SourceError::Io { .. } => Self::Unreadable(error.to_string()),
        }
    }
}

/// Starts the thread that hashes; it ends with the node.
pub(super) fn start(site: &Arc<Site>) -> std::io::Result<()> {
    let root = Arc::clone(site.stores[usize::from(SECOND.0)].root());
    let site = Arc::downgrade(site);
    engine::spawn("ss-hasher", move || run(&site, &root)).map(drop)
}

fn run(site: &Weak<Site>, root: &Root) {
    let mut cache = site.upgrade().and_then(|site| open_cache(&site));
    loop {
        let Some(site) = site.upgrade().filter(|site| !site.is_ending()) else { return };
        let Some(queue) = &site.hasher else { return };
        match queue.next() {
            Next::Hash(batch) => hash_all(&site, root, batch, cache.as_mut()),
            Next::LookEnded { is_all, unreadable } => {
                site.tell_problems(Subject::Unreadable, unreadable);
                if is_all {
                    site.engine().with_flows(|flows, _| flows.at(SECOND).set_told_all(true));
                }
                if let Some(Err(error)) = cache.as_mut().map(HashCache::flush) {
                    tracing::warn!("hashes are not remembered: {error}");
                }
                if let Some(cache) = &mut cache {
                    cache.rest();
                }
            }
            Next::Nothing => site.engine().rest_ahead(),
        }
    }
}

fn hash_all(site: &Site, root: &Root, batch: Batch, mut cache: Option<&mut HashCache>) {
    let mut hashed = Vec::with_capacity(batch.len());
    let mut began = Instant::now();
    for (name, stamp) in batch {
        if site.is_ending() {
            return;
        }
        let known = cache.as_ref().and_then(|cache| cache.lookup(&name, &stamp));
        let known = known.map(|hashes| Hashed { hashes, mark: stamp.print(), bytes: None });
        match known.map_or_else(|| hash(root, &name, &stamp, cache.as_deref_mut()), Ok) {
            Ok(found) => hashed.push((name, stamp, found)),
            Err(missed) => {
                site.hasher.iter().for_each(|queue| queue.note(&missed));
                if let Missed::Changed(why) = missed {
                    tracing::debug!(object = %name, "not hashed: {why}");
                    site.look_again();
                }
            }
        }
        if began.elapsed() >= limits::OFFER_AFTER {
            offer(site, std::mem::take(&mut hashed));
            remember(cache.as_deref_mut());
            site.engine().wait_for_links();
            began = Instant::now();
        }
    }
    offer(site, hashed);
    remember(cache);
}

/// A node that ends before it has looked at everything goes on where it was.
fn remember(cache: Option<&mut HashCache>) {
    // A failure is told when the look has ended.
    let _ = cache.map_or(Ok(()), HashCache::write);
}

/// Has the state directory for this node alone. Where it cannot be used, nothing is remembered, which is said once.
///
/// # Errors
/// Another process has it.
pub(super) fn lock_state(config: &Config) -> Result<Option<DirectoryLock>, StoreError> {
    match DirectoryLock::take(&config.state_dir) {
        Err(error @ StoreError::Locked { .. }) => Err(error),
        taken => Ok(remembering(taken)),
    }
}

fn open_cache(site: &Site) -> Option<HashCache> {
    site.state.as_ref().and_then(|_| remembering(HashCache::open(&site.config().state_dir)))
}

fn remembering<T>(done: Result<T, StoreError>) -> Option<T> {
    done.inspect_err(|error| tracing::warn!("hashes are not remembered: {error}")).ok()
}

/// What an object was found to hold.
struct Hashed {
    hashes: Hashes,
    /// What to know it by at the next look: the print of its stamp; or [`Stamp::unsettled_print`].
    mark: u64,
    /// All of it, where it is small and was read just now.
    bytes: Option<Bytes>,
}

fn hash(root: &Root, name: &ObjectName, stamp: &Stamp, cache: Option<&mut HashCache>) -> Result<Hashed, Missed> {
    // It would be read for hours, and then could not be told of.
    let too_long = |error| Missed::Unreadable(format!("'{}/{name}' is not offered: {error}", root.path().display()));
    check_size(stamp.size).map_err(too_long)?;
    let source = root.open_source(name)?;
    if source.stamp() != *stamp {
        return Err(Missed::Changed("it has changed since it was seen".into()));
    }
    let (hashes, bytes) = if stamp.size.0 <= limits::SMALL_OBJECT_BYTES_MAX {
        let (hashes, bytes) = hash_small(&source)?;
        (hashes, Some(Bytes::from(bytes)))
    } else {
        (hash_source(&source)?, None)
    };
    // It may be written to again without another stamp.
    if !source.is_settled() {
        return Ok(Hashed { hashes, mark: stamp.unsettled_print(), bytes });
    }
    if let Some(cache) = cache {
        cache.insert(name, stamp, &hashes);
    }
    Ok(Hashed { hashes, mark: stamp.print(), bytes })
}

fn offer(site: &Site, hashed: Vec<(ObjectName, Stamp, Hashed)>) {
    if hashed.is_empty() {
        return;
    }
    site.engine().with_flows(|flows, _| {
        let flow = flows.at(SECOND);
        for (name, stamp, Hashed { hashes, mark, bytes }) in hashed {
            let crc = hashes.block_crcs.first().copied();
            let content = engine::content_of(&stamp, hashes);
            let is_other = |known: &Content| known.root != content.root;
            if flow.find(&name).and_then(|id| flow.content(id)).is_some_and(is_other) {
                flow.withdraw(&name);
            }
            flow.offer(name.clone(), content.size);
            if let Some(id) = flow.know(Entry { name, content }) {
                flow.set_mark(id, mark);
                if let Some((bytes, crc)) = bytes.zip(crc) {
                    site.engine().read_ahead(SECOND, id, flow.generation(id), bytes, crc);
                }
            }
        }
    });
}
