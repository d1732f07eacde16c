//! `supersyncctl top` in a pseudo terminal, before a real site.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::{Pid, ttyname};

use super::proxy::Proxy;
use super::site::{PATIENCE, Plan, Site};

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).expect("a terminal has some")
}

/// A terminal with `top` in it, and what is to be seen there.
struct Screen {
    program: Child,
    keyboard: File,
    /// Held open, so that the terminal outlives the program.
    terminal: OwnedFd,
    before: Termios,
    picture: Arc<Mutex<vt100::Parser>>,
}

impl Screen {
    fn start(site: &Site, node: &str, environment: &[(&str, &str)]) -> Self {
        let (rows, columns) = (24, 110);
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).expect("a pseudo terminal");
        // Copies are closed in programs that are started, so that `top` does not outlive the test as its own terminal.
        let master = pair.master.try_clone().expect("cloned");
        let terminal = pair.slave.try_clone().expect("cloned");
        drop(pair);
        let before = tcgetattr(&terminal).expect("a terminal");
        let end = || terminal.try_clone().expect("cloned");
        // Whose controlling terminal it is, hears of a new size.
        let program = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_supersyncctl"), "--socket"])
            .arg(site.socket(node))
            .arg("top")
            .env_remove("NO_COLOR")
            .env("TERM", "xterm-256color")
            .envs(environment.iter().copied())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("it starts");
        let picture = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 0)));
        let (seen, mut master) = (Arc::clone(&picture), File::from(master));
        let keyboard = master.try_clone().expect("cloned");
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(count) = master.read(&mut bytes) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
            }
        });
        Self { program, keyboard, terminal, before, picture }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("typed");
    }

    fn resize(&self, rows: u16, columns: u16) {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner).screen_mut().set_size(cells(rows), cells(columns));
        let name = ttyname(&self.terminal).expect("it has one");
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let status = Command::new("stty").arg("-F").arg(name).args(["rows", &rows, "cols", &columns]).status();
        assert!(status.expect("it starts").success());
    }

    /// Looks until the picture is as wanted.
    fn until(&self, what: &str, wanted: impl Fn(&vt100::Screen) -> bool) {
        let by = Instant::now() + PATIENCE;
        loop {
            let picture = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
            if wanted(picture.screen()) {
                return;
            }
            assert!(Instant::now() < by, "it never shows {what}:\n{}", picture.screen().contents());
            drop(picture);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn until_shown(&self, text: &str) {
        self.until(text, |screen| screen.contents().contains(text));
    }

    /// It ends, with `status`, and leaves the terminal as it was.
    fn ended(mut self) -> Option<i32> {
        let status = self.program.wait().expect("ours").code();
        self.until("what was there before", |screen| !screen.alternate_screen() && !screen.hide_cursor());
        assert_eq!(tcgetattr(&self.terminal).expect("a terminal"), self.before);
        status
    }
}

/// Whether the row of the first peer stands above that of the second.
fn above(screen: &vt100::Screen, first: &str, second: &str) -> bool {
    let contents = screen.contents();
    let row = |peer: &str| contents.lines().position(|line| line.starts_with(&format!("{peer} ")));
    matches!((row(first), row(second)), (Some(first), Some(second)) if first < second)
}

#[test]
fn top_shows_a_site_at_work_and_obeys_its_keys() {
    let plan = Plan { segments: 40, records: 40_000, links: 1, exchanges: 1, ..Plan::default() };
    let mut site = Site::new(plan);
    let proxy = Proxy::to(site.address("t1"), 500_000);
    site.write_exchange("e1", [proxy.address, site.address("t2")]);
    site.all().iter().for_each(|node| site.run(node));
    site.until("bytes flow", |site| site.tells("e1", "/payload_received").as_u64() > Some(100_000));

    let mut screen = Screen::start(&site, "e1", &[]);
    screen.until_shown("● e1  exchange");
    screen.until("a row for each link, and its last seconds", |screen| {
        let contents = screen.contents();
        let row = contents.lines().find(|line| line.starts_with("t1 ")).unwrap_or_default();
        row.contains("up") && row.contains("kB/s") && row.contains('█') && above(screen, "t1", "t2")
    });
    screen.until("colours", |screen| {
        (0..24).any(|row| screen.cell(row, 0).is_some_and(|cell| cell.fgcolor() != vt100::Color::Default))
    });
    screen.press("r");
    screen.until("the other order", |screen| above(screen, "t2", "t1"));
    screen.press("r\x1b[C\x1b[C\x1b[C");
    screen.until_shown("IN▾");
    screen.press("?");
    screen.until_shown("leave");
    screen.press("?p");
    screen.until_shown("PAUSED");
    screen.press("p");
    screen.until("it goes on", |screen| !screen.contents().contains("PAUSED"));
    screen.resize(24, 76);
    screen.until("whole words", |screen| {
        screen.contents().lines().any(|line| line.starts_with("PEER") && line.trim_end().ends_with(" BAD  MINUTE"))
    });
    screen.resize(12, 60);
    screen.until("a picture of the new size", |screen| {
        screen.rows(0, 60).last().is_some_and(|last| last.starts_with("q quit"))
    });

    site.kill("e1");
    screen.until_shown("cannot reach supersyncd");
    site.run("e1");
    screen.until("it is back", |screen| !screen.contents().contains("cannot reach supersyncd"));
    screen.press("q");
    assert_eq!(screen.ended(), Some(0));
}

#[test]
fn top_gives_the_terminal_back_at_a_signal_and_takes_none_that_is_no_terminal() {
    let mut site = Site::start(Plan { segments: 1, exchanges: 1, ..Plan::default() });
    site.until_converged();
    let screen = Screen::start(&site, "t1", &[("NO_COLOR", "1")]);
    screen.until_shown("SYNCED");
    screen.until("no colour", |screen| {
        let cells = (0..24).flat_map(|row| (0..110).map(move |column| (row, column)));
        cells
            .into_iter()
            .all(|(row, column)| screen.cell(row, column).is_none_or(|cell| cell.fgcolor() == vt100::Color::Default))
    });
    kill(Pid::from_raw(screen.program.id() as i32), Signal::SIGTERM).expect("it lives");
    assert_eq!(screen.ended(), Some(0));

    let output =
        Command::new(env!("CARGO_BIN_EXE_supersyncctl")).arg("--socket").arg(site.socket("t1")).arg("top").output();
    let output = output.expect("it starts");
    assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("this is none"), "{output:?}");
}
