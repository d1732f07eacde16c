//! Ctrl-C: asked for once, the demo ends its nodes and removes what it made; asked for again, it ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::DemoError;
use crate::exit;

/// Whether somebody asked for an end.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on SIGINT and SIGTERM are heard here, for the rest of the process.
    pub(super) fn listen() -> Result<Self, DemoError> {
        let failed = DemoError::system("listen for signals");
        let interrupt = Self::default();
        let asked = interrupt.clone();
        let listening = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            let entered = runtime.enter();
            let signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            drop(entered);
            thread::Builder::new().name("signals".to_owned()).spawn(move || {
                runtime.block_on(async move {
                    let (mut first, mut second) = signals;
                    loop {
                        tokio::select! {
                            _ = first.recv() => {}
                            _ = second.recv() => {}
                        }
                        if asked.0.swap(true, Ordering::Relaxed) {
                            std::process::exit(exit::FAILED.into());
                        }
                    }
                });
            })
        };
        listening().map(|_| interrupt).map_err(failed)
    }

    /// An error once somebody asked for an end.
    pub(super) fn check(&self) -> Result<(), DemoError> {
        if self.0.load(Ordering::Relaxed) { Err(DemoError::Interrupted) } else { Ok(()) }
    }
}
