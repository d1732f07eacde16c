//! `supersyncctl top`: a node on a full screen, until the person before it has seen enough.
//!
//! Owns the terminal from its first picture to its last, and gives it back however it ends: by a key, a signal, an
//! error or a panic. What is shown is [`model`]'s, how it looks [`view`]'s, and both are pure. A task of its own asks
//! the daemon, and a thread waits for keys: neither keeps a key waiting for an answer.

mod model;
mod view;

use std::io::{self, IsTerminal};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::{Colour, CtlError, Screen};
use crate::control::{Answer, Client, ClientError, Status};
use crate::{exit, limits};
use model::{Step, Top};

/// Shows the daemon behind `client` until `q`, Ctrl-C or a signal.
pub(super) async fn run(client: Client, screen: &Screen) -> Result<u8, CtlError> {
    if screen.json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "top fills a terminal, and this is none. For programs: supersyncctl status --watch --json";
        return Err(CtlError::Usage(text.into()));
    }
    // A daemon that is not there is told as to any other command.
    let first = client.status().await?;
    let mut answers = ask(client);
    let mut keys = keys()?;
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [terminate, interrupt, hangup] = &mut ends;
    let mut top = Top::new(first.body);
    let mut terminal = Terminal::take()?;
    loop {
        terminal.0.draw(|frame| view::draw(frame, &top, screen.colour == Colour::Ansi))?;
        tokio::select! {
            Some(answer) = answers.recv() => top.handle_answer(answer),
            event = keys.recv() => match event {
                Some(event) => if let Step::Leave = handle_event(&mut top, &event) { break },
                // The terminal is gone.
                None => break,
            },
            () = received(terminate) => break,
            () = received(interrupt) => break,
            () = received(hangup) => break,
        }
    }
    Ok(exit::OK)
}

async fn received(signal: &mut io::Result<tokio::signal::unix::Signal>) {
    match signal {
        Ok(signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// The terminal while it is ours. It is given back at a panic too: that has a hook of its own.
struct Terminal(ratatui::DefaultTerminal);

impl Terminal {
    fn take() -> io::Result<Self> {
        // What was begun is undone where the rest of it fails.
        ratatui::try_init().map(Self).inspect_err(|_| ratatui::restore())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        ratatui::restore();
    }
}

/// Asks once every [`limits::SHOW_EVERY`], and never before the last answer is here.
fn ask(client: Client) -> mpsc::UnboundedReceiver<Result<Status, ClientError>> {
    let (told, answers) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut ticks = interval(limits::SHOW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answer = client.status().await.map(|Answer { body, .. }| body);
            if told.send(answer).is_err() {
                return;
            }
        }
    });
    answers
}

/// What the terminal tells, until it is gone.
fn keys() -> io::Result<mpsc::UnboundedReceiver<Event>> {
    let (told, keys) = mpsc::unbounded_channel();
    let read = move || {
        while let Ok(event) = event::read() {
            if told.send(event).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("keys".into()).spawn(read)?;
    Ok(keys)
}

/// A change of the size draws the picture anew, as everything does.
fn handle_event(top: &mut Top, event: &Event) -> Step {
    let Event::Key(key) = event else { return Step::Stay };
    if key.kind == KeyEventKind::Release {
        return Step::Stay;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Step::Leave,
        KeyCode::Esc if top.shows_help => top.shows_help = false,
        KeyCode::Char('q') | KeyCode::Esc => return Step::Leave,
        KeyCode::Char('?' | 'h') => top.shows_help = !top.shows_help,
        KeyCode::Char('p' | ' ') => top.toggle_pause(),
        KeyCode::Char('s') | KeyCode::Right => top.sort_by_next(1),
        KeyCode::Left => top.sort_by_next(-1),
        KeyCode::Char('r') => top.is_reversed = !top.is_reversed,
        KeyCode::Down => top.scroll(1),
        KeyCode::Up => top.scroll(-1),
        KeyCode::PageDown => top.scroll(10),
        KeyCode::PageUp => top.scroll(-10),
        _ => {}
    }
    Step::Stay
}
