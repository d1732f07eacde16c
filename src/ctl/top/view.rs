//! How `top` looks: a pure function from what there is to show to a frame.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Gauge, Paragraph, Row as TableRow, Table};

use super::model::{COLUMNS, Column, Row, Top};
use crate::control::{HeldBy, LinkState, SpoolStatus, State, Status};
use crate::ctl::render::{clean, coarse, duration, percent, rate, size, totals};
use crate::limits;

const KEYS: &str = "q quit   p pause   s/←/→ sort   r reverse   ↑/↓ scroll   ? help";
const HELP: [&str; 8] = [
    "q, Esc, Ctrl-C  leave",
    "p, space        let the picture stand still, and go on",
    "s, →  ←         sort by the next column, by the one before",
    "r               the other way round",
    "↑ ↓ PgUp PgDn   move through the links",
    "? h             this",
    "",
    "LAST MINUTE: in and out together, as high as the link's own most",
];

/// Draws all of it; `has_colour` is whether colours may be used.
pub(super) fn draw(frame: &mut Frame<'_>, top: &Top, has_colour: bool) {
    let palette = Palette(has_colour);
    let problems = problems(top);
    let problem_lines = (problems.len() as u16).min(frame.area().height / 4);
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(problem_lines),
        Constraint::Length(1),
    ]);
    let [head, figures, bar, _, links, bottom, keys] = areas.areas(frame.area());
    frame.render_widget(headline(top, palette), head);
    frame.render_widget(Line::from(format!("  {}", totals(&top.status))), figures);
    draw_progress(frame, &top.status, palette, bar);
    draw_links(frame, top, palette, links);
    let lines: Vec<Line<'_>> = problems.into_iter().map(|text| Line::styled(text, palette.of(Color::Red))).collect();
    frame.render_widget(Paragraph::new(lines), bottom);
    frame.render_widget(Line::styled(KEYS, Style::new().add_modifier(Modifier::DIM)), keys);
    if top.shows_help {
        draw_help(frame);
    }
}

/// Colours, where they may be used.
#[derive(Clone, Copy)]
struct Palette(bool);

impl Palette {
    fn of(self, colour: Color) -> Style {
        if self.0 { Style::new().fg(colour) } else { Style::new() }
    }

    fn state(self, status: &Status) -> Style {
        self.of(match status.state {
            State::Synced if status.is_complete() => Color::Green,
            State::Synced | State::Syncing | State::Draining => Color::Yellow,
            State::Waiting => Color::Red,
        })
    }

    fn held_by(self, held_by: HeldBy) -> Style {
        match held_by {
            HeldBy::Nothing => Style::new(),
            HeldBy::Network => self.of(Color::Green),
            HeldBy::Peer | HeldBy::Disk | HeldBy::Relay | HeldBy::Paused => self.of(Color::Yellow),
            HeldBy::Damage | HeldBy::Down => self.of(Color::Red),
        }
    }

    fn link(self, state: LinkState) -> Style {
        self.of(match state {
            LinkState::Up => Color::Green,
            LinkState::Connecting => Color::Yellow,
            LinkState::Down => Color::Red,
        })
    }
}

fn headline(top: &Top, palette: Palette) -> Line<'static> {
    let Status { node, role, state, engine, config, .. } = &top.status;
    let style = palette.state(&top.status);
    let up = coarse(top.status.uptime_seconds);
    let mut spans = vec![
        Span::styled("● ", style),
        Span::styled(clean(node), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("  {role}  ")),
        Span::styled(state.to_string(), style),
        Span::raw(format!("  up {up}  engine {}  ", clean(engine))),
        if config.ok { Span::raw("config ok") } else { Span::styled("config not in force", palette.of(Color::Red)) },
    ];
    let loud = Style::new().add_modifier(Modifier::REVERSED);
    if top.is_paused {
        spans.push(Span::styled("  PAUSED: p goes on", loud));
    }
    if top.away.is_some() {
        spans.push(Span::styled("  NO ANSWER: this is how it was", loud));
    }
    Line::from(spans)
}

/// How much is here of what is wanted; of an exchange, how full its spool is.
fn draw_progress(frame: &mut Frame<'_>, status: &Status, palette: Palette, area: Rect) {
    let (done, all, label) = match status.spool {
        Some(SpoolStatus { bytes, max_bytes, .. }) => {
            (bytes, max_bytes, format!("spool {} of {}", size(bytes), size(max_bytes)))
        }
        None => {
            let (have, want) = (status.have.bytes, status.want.bytes);
            let eta = match status.eta_seconds {
                _ if status.is_synced() => String::new(),
                Some(seconds) => format!("   ETA {}", duration(seconds.max(0.0).ceil() as u64)),
                None => "   ETA unknown".to_owned(),
            };
            (have, want, format!("{} of {}{eta}", size(have), size(want)))
        }
    };
    let ratio = if all == 0 { 1.0 } else { (done as f64 / all as f64).clamp(0.0, 1.0) };
    let style = palette.state(status).add_modifier(if palette.0 { Modifier::empty() } else { Modifier::REVERSED });
    let gauge = Gauge::default().ratio(ratio).label(format!("{}   {label}", percent(ratio))).gauge_style(style);
    frame.render_widget(gauge, area);
}

fn draw_links(frame: &mut Frame<'_>, top: &Top, palette: Palette, area: Rect) {
    let rows = top.rows();
    if rows.is_empty() {
        frame.render_widget(Line::from("  no links"), area);
        return;
    }
    let names = rows.iter().map(|row| clean(&row.peer.name).chars().count()).max().unwrap_or(0).clamp(5, 24) as u16;
    let fixed = [names, 5, 10, 10, 10, 7, 8, 4];
    let taken: u16 = fixed.iter().map(|width| width + 1).sum();
    let trace = usize::from(area.width.saturating_sub(taken)).min(limits::TOP_HISTORY);
    let widths = fixed.into_iter().map(Constraint::Length).chain([Constraint::Min(0)]);
    let header = COLUMNS.iter().map(|column| {
        let sorted = *column == top.sort;
        let mark = if sorted { if top.is_reversed { "▴" } else { "▾" } } else { "" };
        let style = if sorted { Modifier::BOLD | Modifier::UNDERLINED } else { Modifier::BOLD };
        Cell::from(format!("{}{mark}", title(*column))).style(Style::new().add_modifier(style))
    });
    let last = if trace < "LAST MINUTE".len() { "MINUTE" } else { "LAST MINUTE" };
    let header = header.chain([Cell::from(last).style(Style::new().add_modifier(Modifier::BOLD))]);
    let visible = usize::from(area.height.saturating_sub(1)).max(1);
    let skipped = top.skipped.min(rows.len().saturating_sub(visible));
    let shown = rows.iter().skip(skipped).take(visible).map(|row| cells(row, palette, trace));
    let table = Table::new(shown, widths).header(TableRow::new(header)).column_spacing(1);
    frame.render_widget(table, area);
}

fn title(column: Column) -> &'static str {
    match column {
        Column::Peer => "PEER",
        Column::Link => "LINK",
        Column::State => "STATE",
        Column::In => "IN",
        Column::Out => "OUT",
        Column::Share => "SHARE",
        Column::HeldBy => "HELD BY",
        Column::Bad => "BAD",
    }
}

fn cells(row: &Row<'_>, palette: Palette, trace: usize) -> TableRow<'static> {
    let link = row.link;
    TableRow::new([
        Cell::from(clean(&row.peer.name)),
        Cell::from(link.number.to_string()),
        Cell::from(link.state.to_string()).style(palette.link(link.state)),
        Cell::from(rate(link.rate_in)),
        Cell::from(rate(link.rate_out)),
        Cell::from(link.share.map_or_else(|| "-".to_owned(), percent)),
        Cell::from(link.held_by.to_string()).style(palette.held_by(link.held_by)),
        Cell::from(link.bad.to_string()),
        Cell::from(sparkline(row.history, trace)),
    ])
}

/// The history in `width` characters at most, the newest moment at the right, as high as its own most.
fn sparkline(history: &VecDeque<f64>, width: usize) -> String {
    const LEVELS: [&str; 9] = [
        " ",
        bar::ONE_EIGHTH,
        bar::ONE_QUARTER,
        bar::THREE_EIGHTHS,
        bar::HALF,
        bar::FIVE_EIGHTHS,
        bar::THREE_QUARTERS,
        bar::SEVEN_EIGHTHS,
        bar::FULL,
    ];
    let most = history.iter().copied().fold(0.0, f64::max);
    if width == 0 || most < 1.0 {
        return String::new();
    }
    // Where a minute does not fit, a character is the mean of several moments.
    let each = limits::TOP_HISTORY.div_ceil(width);
    let moments: Vec<f64> = history.iter().copied().collect();
    let means = moments.rchunks(each).map(|some| some.iter().sum::<f64>() / some.len() as f64);
    let levels: Vec<&str> = means.map(|mean| LEVELS[((mean / most * 8.0).ceil() as usize).min(8)]).collect();
    levels.into_iter().rev().collect()
}

/// What an operator should look at.
fn problems(top: &Top) -> Vec<String> {
    let away = top.away.iter().map(|why| format!("! {}", clean(why)));
    let lines = |(index, line)| format!("{} {}", if index == 0 { "!" } else { " " }, clean(line));
    let of_node = top.status.problems.iter().flat_map(|why| why.lines().enumerate().map(lines));
    let of_links = top.status.peers.iter().flat_map(|peer| {
        let links = peer.links.iter().filter(|link| link.state != LinkState::Up);
        links.map(move |link| format!("! {} link {}: {}", clean(&peer.name), link.number, clean(&link.why)))
    });
    away.chain(of_node).chain(of_links).collect()
}

fn draw_help(frame: &mut Frame<'_>) {
    let all = frame.area();
    let (width, height) = (68.min(all.width), (HELP.len() as u16 + 2).min(all.height));
    let area = Rect::new((all.width - width) / 2, (all.height - height) / 2, width, height);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(HELP.map(Line::from).to_vec()).block(Block::bordered().title("Keys")), area);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_is_as_high_as_its_most_and_as_wide_as_there_is_room() {
        let history: VecDeque<f64> = (0..limits::TOP_HISTORY).map(|moment| moment as f64).collect();
        let whole = sparkline(&history, limits::TOP_HISTORY);
        assert_eq!((whole.chars().count(), whole.chars().last()), (limits::TOP_HISTORY, Some('█')));
        assert_eq!(sparkline(&history, limits::TOP_HISTORY / 4).chars().count(), limits::TOP_HISTORY / 4);
        assert_eq!(sparkline(&VecDeque::from([8e6, 0.0, 1e6]), 60), "█ ▁");
        for (history, width) in [(VecDeque::new(), 60), (VecDeque::from([0.0; 3]), 60), (history, 0)] {
            assert_eq!(sparkline(&history, width), "");
        }
    }
}
