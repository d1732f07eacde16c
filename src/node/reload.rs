//! The config read again: what a running node takes of it, takes effect.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sd_notify::NotifyState;
use tokio::time::timeout;

use super::line::Caller;
use super::signals::notify;
use super::site::{Site, lock};
use crate::config::{self, Change, Config, Finding, Protocol, RoleConfig};
use crate::control::ReloadReport;
use crate::limits;
use crate::units::ByteCount;

impl Site {
    /// Reads the config again and applies what can be applied. A bad file changes nothing, nor does one that does not
    /// fit this host. The service manager is told that the node reloads, whoever asked for it.
    pub(super) async fn apply_reload(self: &Arc<Self>) -> Result<ReloadReport, String> {
        // One after the other: each goes by what the one before has left.
        let _alone = self.reloading.lock().await;
        let since = NotifyState::monotonic_usec_now().ok();
        notify(&[&[NotifyState::Reloading], since.as_slice()].concat());
        let outcome = self.reload_file().await;
        notify(&[NotifyState::Ready]);
        outcome
    }

    async fn reload_file(self: &Arc<Self>) -> Result<ReloadReport, String> {
        let Some(file) = self.file.clone() else { return Err("this node was not started from a file".into()) };
        let old = self.config();
        // A file system that does not answer holds up nothing but this.
        let read = timeout(limits::RELOAD_READ_WITHIN, self.aside(move |site| read(&file, &site.config())));
        let read = match read.await {
            Ok(read) => read.unwrap_or_else(|error| Err(error.to_string())),
            Err(_) => Err(format!(
                "a file system that the config names has not answered within {} s",
                limits::RELOAD_READ_WITHIN.as_secs()
            )),
        };
        if self.is_ending() {
            return Err("the node stops".into());
        }
        let (running, new) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::error!("reload failed, nothing was changed: {error}");
                *lock(&self.reload_problem) = Some(error.clone());
                self.reload_failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        };
        let told = |from: &Config, to: &Config| config::diff(from, to).iter().map(Change::to_string).collect();
        let report = ReloadReport { applied: told(&old, &running), needs_restart: told(&running, &new) };
        self.set_config(running);
        self.apply_exchange();
        self.apply_trader();
        lock(&self.flaps).forget_misfits();
        self.modules_changed.notify_one();
        let message =
            (!report.needs_restart.is_empty()).then(|| format!("needs a restart: {}", report.needs_restart.join("; ")));
        tracing::info!(applied = report.applied.len(), needs_restart = report.needs_restart.len(), "reloaded");
        report.applied.iter().for_each(|change| tracing::info!("applied: {change}"));
        report.needs_restart.iter().for_each(|change| tracing::info!("needs a restart: {change}"));
        *lock(&self.reload_problem) = message;
        self.reload_failed.store(false, Ordering::Relaxed);
        Ok(report)
    }

    /// Closes links from addresses that are not allowed any more, and forgets those that are gone: they were not meant
    /// to come back, or come back as new ones.
    fn apply_trader(&self) {
        let config = self.config();
        let RoleConfig::Trader(trader) = &config.role else { return };
        let clients = lock(&self.clients).clone();
        for (link, view) in self.engine().links() {
            let protocol = if clients.contains(&link) { Protocol::Named } else { Protocol::Duplex };
            let Ok(address) = view.address.parse::<SocketAddr>() else { continue };
            let mut listeners = trader.listen.iter().filter(|listen| listen.protocol == protocol);
            if !listeners.any(|listen| listen.admits(address.ip())) {
                self.engine().close_link(link, "its address is no longer in `allow`");
                lock(&self.callers).values_mut().for_each(|caller| caller.forget(link));
            }
        }
        lock(&self.callers).values_mut().for_each(Caller::forget_gone);
    }

    /// Brings links and spool to what the config says.
    fn apply_exchange(self: &Arc<Self>) {
        let config = self.config();
        let RoleConfig::Exchange(exchange) = &config.role else { return };
        let half = ByteCount(exchange.spool.max_bytes.0 / 2);
        self.engine().with_flows(|flows, _| flows.iter_mut().for_each(|(_, flow)| flow.resize_spool(half)));
        for (index, peer) in exchange.peers.iter().enumerate() {
            let mut wanted = peer.links.clone();
            lock(&self.slots).retain(|slot| {
                if slot.peer != index {
                    return true;
                }
                if let Some(at) = wanted.iter().position(|address| *address == slot.address) {
                    wanted.remove(at);
                    return true;
                }
                slot.retire();
                if let Some(link) = slot.link() {
                    self.engine().close_link(link, "the config no longer has it");
                }
                false
            });
            for address in &wanted {
                self.add_slot(index, address);
            }
        }
        // Retired places of a paused peer wait for this.
        self.resumed.notify_waiters();
    }
}

/// The config of `file`, and before it the one that a node of `old` runs with from then on.
fn read(file: &Path, old: &Config) -> Result<(Config, Config), String> {
    let new = config::load(file).map_err(|error| error.to_string())?;
    let running = config::reloaded(old, &new);
    match config::check_reload(old, &running) {
        errors if errors.is_empty() => Ok((running, new)),
        errors => {
            let errors: Vec<String> = errors.iter().map(Finding::in_a_line).collect();
            Err(format!("{}: this host lacks what it asks for\n{}", file.display(), errors.join("\n")))
        }
    }
}
