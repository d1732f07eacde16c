//! Commands that go on until something comes true: `--watch`, `wait`, `drain`.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{CtlError, Screen, printable, render};
use crate::control::{Answer, Client, ClientError, Drain, Versioned};
use crate::{exit, limits};

/// A picture every [`limits::SHOW_EVERY`] until interrupted. A person who watches wants to see the daemon come back, so
/// its absence is told and watched too, once it was there; a program that reads JSON is told at once, by the exit
/// status.
pub(super) async fn watch<T>(
    client: &Client,
    screen: &Screen,
    ask: impl AsyncFn(&Client) -> Result<Answer<T>, ClientError>,
    text: impl Fn(&T) -> String,
) -> Result<u8, CtlError> {
    let mut ticks = interval(limits::SHOW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut is_first, mut is_away) = (true, false);
    loop {
        ticks.tick().await;
        match ask(client).await {
            Ok(answer) => {
                screen.redraw(is_first, &answer.json, || text(&answer.body))?;
                is_away = false;
            }
            Err(error @ ClientError::Unreachable { .. }) if !screen.json && !is_first => {
                // Once is enough where it stays to be read.
                if screen.is_terminal || !is_away {
                    screen.redraw(is_first, "", || format!("{}\n", printable(&error.to_string())))?;
                }
                is_away = true;
            }
            Err(error) => return Err(error.into()),
        }
        is_first = false;
    }
}

/// Asks in turns that the daemon bounds, until synced or `patience` is over.
pub(super) async fn wait(client: &Client, screen: &Screen, patience: Option<Duration>) -> Result<u8, CtlError> {
    let start = Instant::now();
    loop {
        let left = patience.map_or(limits::CONTROL_WAIT_MAX, |patience| patience.saturating_sub(start.elapsed()));
        let answer = client.wait_synced(left).await?;
        let status = &answer.body;
        if status.is_synced() {
            screen.show(&answer.json, || {
                format!("{} is synced: {}\n", render::clean(&status.node), render::progress(status))
            })?;
            return Ok(exit::OK);
        }
        if let Some(patience) = patience.filter(|patience| start.elapsed() >= *patience) {
            let patience = render::duration(patience.as_secs());
            let error = CtlError::TimedOut { node: status.node.clone(), patience, progress: render::progress(status) };
            if screen.json {
                screen.conclude(&answer.json, String::new, error.exit_status())?;
            }
            return Err(error);
        }
    }
}

/// Has the daemon end, and waits until its process is gone.
pub(super) async fn drain(client: &Client, screen: &Screen, patience: Duration) -> Result<u8, CtlError> {
    // Before it is asked: a process that has ended cannot be found.
    let process = client.process().await?;
    let began = Instant::now();
    let Drain { node, .. } = client.drain().await?.body.body;
    let gone = match process {
        Some(process) => process.ends_within(patience)?,
        None => timeout(patience, until_unreachable(client)).await.is_ok(),
    };
    if !gone {
        return Err(CtlError::StillDraining { node, patience: render::duration(patience.as_secs()) });
    }
    let json = serde_json::to_string(&Versioned::new(Drain::SCHEMA, Drain { node: node.clone(), stopped: true }));
    screen.show(&json.map_err(std::io::Error::from)?, || {
        format!("{} has stopped, after {:.1} s\n", render::clean(&node), began.elapsed().as_secs_f64())
    })?;
    Ok(exit::OK)
}

/// The socket goes away shortly before its daemon.
async fn until_unreachable(client: &Client) {
    while client.status().await.is_ok() {
        sleep(limits::CONTROL_POLL_EVERY).await;
    }
}
