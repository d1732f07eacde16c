//! Ctrl-C, or a terminal that goes away: asked for once, the demo ends its nodes and removes what it made; asked for
//! again, it ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io, thread};

use tokio::signal::unix::{SignalKind, signal};

use super::DemoError;
use crate::exit;

/// Whether somebody asked for an end.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on SIGINT, SIGTERM and SIGHUP are heard here, for the rest of the process; the last one not where
    /// whoever started it has it ignored, as nohup(1) does.
    pub(super) fn listen() -> Result<Self, DemoError> {
        let failed = DemoError::system("listen for signals");
        let interrupt = Self::default();
        let asked = interrupt.clone();
        let listening = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            let entered = runtime.enter();
            let signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            let hangup = if ignores_hangup()? { None } else { Some(signal(SignalKind::hangup())?) };
            drop(entered);
            thread::Builder::new().name("signals".to_owned()).spawn(move || {
                runtime.block_on(async move {
                    let (mut first, mut second) = signals;
                    let mut third = hangup;
                    loop {
                        tokio::select! {
                            _ = first.recv() => {}
                            _ = second.recv() => {}
                            Some(_) = async { third.as_mut()?.recv().await } => {}
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

/// Whether SIGHUP was ignored when the process began (proc_pid_status(5)).
fn ignores_hangup() -> io::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    Ok(ignored & (1 << (SignalKind::hangup().as_raw_value() - 1)) != 0)
}
