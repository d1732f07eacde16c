//! Keeps the flows true to the disk: looks at `local/` when something changes there, at `remote/`, at spools and at
//! modules from time to time.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::site::{SECOND, Site, lock};
use crate::engine::Store;
use crate::limits;
use crate::store::{Root, Watch};
use crate::uring::control::{self, Readiness};

/// Watches a trader's `local/`; `again` asks for a look without a change, `at_once` for the first one.
pub(super) fn start_local(site: Arc<Site>, root: Arc<Root>, again: Arc<Notify>, at_once: bool) {
    control::spawn(async move {
        let mut failed = None;
        let mut watch = open(&site, &root, &mut failed).await;
        let mut tried = Instant::now();
        if at_once {
            look(&site).await;
        }
        loop {
            let changed = async {
                match &mut watch {
                    Some((watch, ready)) => changed(watch, ready).await,
                    None => std::future::pending().await,
                }
            };
            let lost = tokio::select! {
                seen = changed => seen.is_err(),
                () = again.notified() => false,
                () = sleep(limits::LOCAL_LOOK_EVERY) => watch.is_none() && tried.elapsed() >= limits::WATCH_AGAIN_AFTER,
            };
            if lost {
                watch = open(&site, &root, &mut failed).await;
                tried = Instant::now();
            }
            sleep(limits::LOCAL_SETTLE).await;
            let began = Instant::now();
            look(&site).await;
            sleep(began.elapsed() * limits::LOOK_DUTY).await;
        }
    });
}

async fn look(site: &Arc<Site>) {
    if let Err(error) = site.aside(Site::look_at_local).await {
        tracing::error!("cannot look at local/: {error}");
    }
}

/// Watches all directories of a root, which may be many and far away; `failed`: why that could not be done before.
async fn open(site: &Arc<Site>, root: &Arc<Root>, failed: &mut Option<String>) -> Option<(Watch, Readiness)> {
    let root = Arc::clone(root);
    let watch = site.aside(move |_| Watch::new(&root).map_err(|error| error.to_string())).await;
    let watch = watch.unwrap_or_else(|error| Err(error.to_string()));
    let opened = watch.and_then(|watch| {
        let ready = watch.fd().try_clone_to_owned().and_then(Readiness::new).map_err(|error| error.to_string())?;
        Ok((watch, ready))
    });
    let (opened, why) = match opened {
        Ok(opened) => (Some(opened), None),
        Err(error) => (None, Some(error)),
    };
    if let Some(error) = why.as_ref().filter(|_| *failed != why) {
        tracing::warn!("{error}; it is looked at every {} s instead", limits::LOCAL_LOOK_EVERY.as_secs());
    }
    *failed = why;
    opened
}

/// Returns when objects may have changed.
async fn changed(watch: &mut Watch, ready: &Readiness) -> Result<(), String> {
    loop {
        ready.readable().await.map_err(|error| error.to_string())?;
        let mut seen = false;
        loop {
            let changed = watch.drain().map_err(|error| error.to_string())?;
            seen |= changed.objects || changed.overflow;
            if !changed.more {
                break;
            }
        }
        if seen {
            return Ok(());
        }
    }
}

/// Checks from time to time that the stores are still there, what a trader has marked in its own, and that `local/` is
/// the directory that it has open, which only a look at it tells.
pub(super) fn start_stores(site: Arc<Site>) {
    control::spawn(async move {
        let mut pause = limits::REMOTE_LOOK_EVERY;
        let mut was_replaced = false;
        loop {
            let _ = timeout(pause, site.checks_wanted.notified()).await;
            let waiters = std::mem::take(&mut *lock(&site.check_waiters));
            let began = Instant::now();
            let look = |site: &Site| {
                site.look_at_stores();
                site.check_remote();
                matches!(&site.stores[usize::from(SECOND.0)], Store::Local(root) if root.is_replaced())
            };
            match site.aside(look).await {
                Ok(is_replaced) if is_replaced == was_replaced => {}
                Ok(is_replaced) => {
                    was_replaced = is_replaced;
                    site.look_again();
                }
                Err(error) => tracing::error!("cannot look at the stores: {error}"),
            }
            for waiter in waiters {
                let _ = waiter.send(());
            }
            pause = limits::REMOTE_LOOK_EVERY.max(began.elapsed() * limits::LOOK_DUTY);
        }
    });
}

/// Checks from time to time, and when they change, that the modules can be served. A file system that does not answer
/// keeps nobody but this from going on.
pub(super) fn start_modules(site: Arc<Site>) {
    control::spawn(async move {
        while !site.is_ending() {
            if let Err(error) = site.aside(Site::look_at_modules).await {
                tracing::error!("cannot look at the modules: {error}");
            }
            let _ = timeout(limits::MODULES_LOOK_EVERY, site.modules_changed.notified()).await;
        }
    });
}
