//! What a person sees: one block of text for each answer.
//!
//! Pure: takes an answer, gives text that ends in a newline. Names and notes may come from a peer, so control
//! characters in them never reach a terminal.

use std::fmt::Write as _;

use bytesize::ByteSize;
use comfy_table::{Cell, Table, presets};

use crate::control::{
    ClientStatus, LinkState, Links, ObjectStatus, Objects, Pause, PeerStatus, ReloadReport, Role, SpoolStatus, State,
    Status, Totals, WhyLink, WhySlow,
};

/// Whether colours may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Text alone.
    Plain,
    /// ANSI escape sequences.
    Ansi,
}

impl Colour {
    fn paint(self, sgr: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Ansi => format!("\x1b[{sgr}m{text}\x1b[0m"),
        }
    }
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

/// The picture of `supersyncctl status`.
pub fn status(status: &Status, colour: Colour) -> String {
    let mut out = String::new();
    let sgr = match status.state {
        State::Synced if status.is_complete() => GREEN,
        State::Synced | State::Syncing | State::Draining => YELLOW,
        State::Waiting => RED,
    };
    let Status { node, role, state, engine, config, .. } = status;
    let (dot, state) = (colour.paint(sgr, "●"), colour.paint(sgr, &state.to_string()));
    let up = coarse(status.uptime_seconds);
    let loaded = if config.ok { "ok".to_owned() } else { colour.paint(RED, "not in force") };
    line(
        &mut out,
        format_args!("{dot} {}  {role}  {state}  up {up}  engine {}  config {loaded}", clean(node), clean(engine)),
    );
    line(&mut out, format_args!("  {}", totals(status)));
    if let Some(SpoolStatus { bytes, max_bytes, objects }) = status.spool {
        line(&mut out, format_args!("  spool {} of {}   {}", size(bytes), size(max_bytes), count(objects)));
    }
    if !status.peers.is_empty() {
        out.push_str(&peers(&status.peers));
    }
    if !status.clients.is_empty() {
        out.push_str(&clients("  ", &status.clients));
    }
    for problem in &status.problems {
        let (mark, text) = (colour.paint(RED, "!"), problem.lines().map(clean).collect::<Vec<_>>().join("\n    "));
        line(&mut out, format_args!("  {mark} {text}"));
    }
    out
}

/// The picture of `supersyncctl links`.
pub fn links(links: &Links) -> String {
    let told = if links.clients.is_empty() { String::new() } else { clients("", &links.clients) };
    if links.peers.iter().all(|peer| peer.links.is_empty()) {
        return format!("{} has no links\n{told}", clean(&links.node));
    }
    let header = [
        "PEER",
        "LINK",
        "ADDRESS",
        "STATE",
        "FOR",
        "IN",
        "OUT",
        "SHARE",
        "STOLEN",
        "TWICE",
        "BAD",
        "BYTES IN",
        "BYTES OUT",
        "RETRANS",
        "RECONN",
        "CC",
        "OBJECT",
        "NOTE",
    ];
    let rows = links.peers.iter().flat_map(|peer| peer.links.iter().map(move |link| (peer, link)));
    let rows = rows.map(|(peer, link)| {
        vec![
            clean(&peer.name),
            link.number.to_string(),
            clean(&link.address),
            link.state.to_string(),
            coarse(link.since_seconds),
            rate(link.rate_in),
            rate(link.rate_out),
            link.share.map_or_else(|| "-".to_owned(), percent),
            size(link.stolen),
            size(link.duplicated),
            link.bad.to_string(),
            size(link.bytes_in),
            size(link.bytes_out),
            link.retransmits.to_string(),
            link.reconnects.to_string(),
            link.congestion.as_deref().map_or_else(|| "-".to_owned(), clean),
            link.object.as_deref().map_or_else(|| "-".to_owned(), clean),
            link.note.as_deref().map(clean).unwrap_or_default(),
        ]
    });
    table("", &header, rows, &[2; 18]) + &told
}

fn clients(indent: &str, clients: &[ClientStatus]) -> String {
    let row = |client: &ClientStatus| {
        vec![
            clean(&client.address),
            client.protocol.clone(),
            client.connections.to_string(),
            coarse(client.since_seconds),
            rate(client.rate_in),
            rate(client.rate_out),
            size(client.payload_in),
            size(client.payload_out),
            clean(&client.doing),
        ]
    };
    let header = ["CLIENT", "PROTOCOL", "LINKS", "FOR", "IN", "OUT", "BYTES IN", "BYTES OUT", "DOING"];
    table(indent, &header, clients.iter().map(row), &[2; 9])
}

/// The picture of `supersyncctl why-slow`.
pub fn why_slow(why: &WhySlow) -> String {
    let WhySlow { node, state, links } = why;
    let mut out = format!("{} is {state}\n", clean(node));
    if links.is_empty() {
        line(&mut out, format_args!("it has no links"));
        return out;
    }
    let row = |link: &WhyLink| {
        let (rate_in, rate_out) = (rate(link.rate_in), rate(link.rate_out));
        let held_by = link.held_by.to_string();
        let number = link.number.to_string();
        vec![clean(&link.peer), number, clean(&link.address), rate_in, rate_out, held_by, clean(&link.why)]
    };
    let header = ["PEER", "LINK", "ADDRESS", "IN", "OUT", "HELD BY", "WHY"];
    out.push_str(&table("", &header, links.iter().map(row), &[2; 7]));
    out
}

/// The picture of `supersyncctl objects`.
pub fn objects(objects: &Objects) -> String {
    if objects.objects.is_empty() && !objects.truncated {
        return "no objects\n".to_owned();
    }
    // An exchange passes objects of one name on both ways.
    let has_from = objects.objects.iter().any(|object| object.from.is_some());
    let row = |object: &ObjectStatus| {
        let mut row = vec![
            clean(&object.name),
            object.state.to_string(),
            object.size.map_or_else(|| "?".to_owned(), size),
            size(object.have_bytes),
            object.note.as_deref().map(clean).unwrap_or_default(),
        ];
        if has_from {
            row.insert(1, object.from.as_deref().map(clean).unwrap_or_default());
        }
        row
    };
    let mut header = vec!["OBJECT", "STATE", "SIZE", "HAVE", "NOTE"];
    if has_from {
        header.insert(1, "FROM");
    }
    let mut out = table("", &header, objects.objects.iter().map(row), &[2; 6]);
    if objects.truncated {
        let shown = objects.objects.len();
        line(&mut out, format_args!("... there are more than these {shown}; --limit shows them"));
    }
    out
}

/// The picture of `supersyncctl reload`.
pub fn reload(report: &ReloadReport) -> String {
    let mut out = String::new();
    for change in &report.applied {
        line(&mut out, format_args!("applied: {}", clean(change)));
    }
    for change in &report.needs_restart {
        line(&mut out, format_args!("needs a restart: {}", clean(change)));
    }
    if out.is_empty() {
        out.push_str("nothing changed\n");
    }
    out
}

/// What `supersyncctl pause` and `resume` say.
pub fn pause(pause: &Pause) -> String {
    let peer = clean(&pause.peer);
    match (pause.paused, pause.changed) {
        (true, true) => {
            format!("{peer} is paused. To go on: supersyncctl resume {peer}, or a restart of {}\n", clean(&pause.node))
        }
        (true, false) => format!("{peer} was paused already\n"),
        (false, true) => format!("{peer} is resumed\n"),
        (false, false) => format!("{peer} was not paused\n"),
    }
}

/// There may be more than what is wanted now.
const UNTOLD: &str = "no peer has told yet all there is";

/// How far a node is, in one sentence's tail: `have 212 of 500 objects (5.1 GB of 12.0 GB)`.
pub(super) fn progress(status: &Status) -> String {
    let Status { have, want, .. } = status;
    let all =
        format!("have {} of {} ({} of {})", have.objects, count(want.objects), size(have.bytes), size(want.bytes));
    if status.want_known { all } else { format!("{all}, and {UNTOLD}") }
}

/// `seconds` as a person says them: `45s`, `12m 55s`, `3h 12m`, `2d 3h`.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if minutes == 0 => format!("{seconds}s"),
        () if hours == 0 => format!("{minutes}m {}s", seconds % 60),
        () if days == 0 => format!("{hours}h {}m", minutes % 60),
        () => format!("{days}d {}h", hours % 24),
    }
}

/// `text` with control characters escaped, so that it can neither steer a terminal nor break a line; and those that
/// turn the direction of what follows (UAX 9).
pub(super) fn clean(text: &str) -> String {
    let turns =
        |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// As [`duration`], without the seconds once there are minutes.
pub(super) fn coarse(seconds: u64) -> String {
    if (60..3600).contains(&seconds) { format!("{}m", seconds / 60) } else { duration(seconds) }
}

pub(super) fn totals(status: &Status) -> String {
    let Status { want, have, .. } = status;
    let Totals { objects, bytes } = have;
    let mut out = format!("want {} {}   have {objects} ({})", count(want.objects), size(want.bytes), size(*bytes));
    if status.failed > 0 {
        append(&mut out, format_args!("   {} failed", status.failed));
    }
    append(&mut out, format_args!("   {} in   {} out", rate(status.rate_in), rate(status.rate_out)));
    if !status.want_known {
        append(&mut out, format_args!("   {UNTOLD}"));
    }
    if status.is_synced() || want.bytes <= have.bytes || status.role == Role::Exchange {
        return out;
    }
    let eta = status.eta_seconds.map_or_else(|| "unknown".to_owned(), |eta| duration(eta.round() as u64));
    append(&mut out, format_args!("   ETA {eta}"));
    if let Some(capacity) = status.capacity_in.filter(|&capacity| capacity > 0.0) {
        append(&mut out, format_args!("   {} of link capacity", percent(status.rate_in / capacity)));
    }
    out
}

fn peers(peers: &[PeerStatus]) -> String {
    let rows = peers.iter().map(|peer| {
        let links =
            peer.links_total.map_or_else(|| peer.links_up.to_string(), |total| format!("{}/{total}", peer.links_up));
        vec![
            clean(&peer.name),
            links,
            peer.state.to_string(),
            rate(peer.rate_in),
            rate(peer.rate_out),
            peer.retransmits().to_string(),
            note(peer),
        ]
    });
    table("  ", &["PEER", "LINKS", "STATE", "IN", "OUT", "RETRANS", "NOTE"], rows, &[2, 2, 4, 3, 3, 2, 0])
}

/// The peer's own note, or else the first of a link that is not up.
fn note(peer: &PeerStatus) -> String {
    if let Some(note) = &peer.note {
        return clean(note);
    }
    let mut lame = peer.links.iter().filter(|link| link.state != LinkState::Up);
    lame.find_map(|link| Some(format!("link {}: {}", link.number, clean(link.note.as_deref()?)))).unwrap_or_default()
}

/// Left-aligned columns under a header, `gaps` blanks after each, no lines.
fn table(indent: &str, header: &[&str], rows: impl Iterator<Item = Vec<String>>, gaps: &[u16]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(Cell::new)).add_rows(rows);
    for (column, gap) in table.column_iter_mut().zip(gaps) {
        column.set_padding((0, *gap));
    }
    table.lines().map(|row| format!("{indent}{}\n", row.trim_end())).collect()
}

/// Decimal units, as links and disks are sold.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().si().to_string()
}

pub(super) fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", size(bytes_per_second.round() as u64))
}

pub(super) fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part.clamp(0.0, 1.0))
}

pub(super) fn count(objects: u64) -> String {
    if objects == 1 { "1 object".to_owned() } else { format!("{objects} objects") }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    append(out, text);
    out.push('\n');
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let check =
            |seconds, fine: &str, rough: &str| assert_eq!((&*duration(seconds), &*coarse(seconds)), (fine, rough));
        check(0, "0s", "0s");
        check(59, "59s", "59s");
        check(775, "12m 55s", "12m");
        check(3600, "1h 0m", "1h 0m");
        check(86_399, "23h 59m", "23h 59m");
        check(183_600, "2d 3h", "2d 3h");
    }

    #[test]
    fn sizes_are_decimal() {
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(999, "999 B");
        check(24_000_000, "24.0 MB");
        check(12_000_000_000, "12.0 GB");
        assert_eq!(rate(f64::NAN), "0 B/s");
        assert_eq!(rate(-1.0), "0 B/s");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{9b}d é"), "a\\u{1b}[2Jb\\nc\\u{9b}d é");
        // On a screen this was "gpj.exe" for all that followed.
        assert_eq!(clean("\u{202e}exe.jpg"), "\\u{202e}exe.jpg");
    }
}
