//! What the service manager says and is told: signals, readiness, the watchdog.

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::interval;

use super::NodeError;
use super::site::{Command, Site};
use crate::limits;

/// Where signals come in. From when this is made SIGHUP ends nobody: whoever is still starting reloads when that is
/// over.
pub(super) struct Signals {
    runtime: Runtime,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, NodeError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(NodeError::Runtime)?;
        let hangup = runtime.block_on(async { signal(SignalKind::hangup()) }).map_err(NodeError::Runtime)?;
        Ok(Self { runtime, hangup })
    }

    /// Obeys them until the node is to end. Feeds the service manager's watchdog meanwhile.
    pub(super) fn serve(
        mut self,
        site: &Arc<Site>,
        commands: &mpsc::UnboundedSender<Command>,
    ) -> Result<(), NodeError> {
        self.runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::Runtime)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(NodeError::Runtime)?;
            let most = limits::WATCHDOG_EVERY_MAX;
            let mut tick = interval(sd_notify::watchdog_enabled().map_or(most, |every| most.min(every / 3)));
            notify(&[NotifyState::Ready]);
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    () = site.ending.notified() => break,
                    _ = self.hangup.recv() => {
                        // On the node's own thread, where links can be dialed.
                        let (done, reloaded) = oneshot::channel();
                        let _ = commands.send(Command::Reload(done));
                        let _ = reloaded.await;
                    }
                    _ = tick.tick() => {
                        if let Some(stuck) = site.stuck() {
                            tracing::error!("{stuck}");
                        } else {
                            notify(&[NotifyState::Watchdog, NotifyState::Status(&site.headline())]);
                        }
                    }
                }
            }
            tracing::info!("stopping: links finish their packets, whole objects are committed");
            notify(&[NotifyState::Stopping]);
            Ok(())
        })
    }
}

/// Tells the service manager.
pub(super) fn notify(state: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(state);
}
