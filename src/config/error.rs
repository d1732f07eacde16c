//! What is wrong with a config, where, and what to do: every problem at once, each with its line and a caret.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use crate::{exit, limits};

/// Why a config was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the config: {source}\n      {}", path.display(), read_advice(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is longer than [`limits::CONFIG_BYTES_MAX`].
    #[error(
        "{}: the file is longer than the {max} bytes a config may have\n      is this the right file?",
        path.display(), max = limits::CONFIG_BYTES_MAX
    )]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file is not UTF-8.
    #[error("{}: byte {offset} is not UTF-8 text\n      is this the right file?", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte that is not.
        offset: usize,
    },
    /// The text is not TOML.
    #[error("{0}")]
    Syntax(Problems),
    /// The text is TOML but not a config.
    #[error("{0}")]
    Meaning(Problems),
}

impl ConfigError {
    /// Exit status of a program that ends with this error.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => exit::PERMISSION,
            _ => exit::CONFIG,
        }
    }

    /// What is wrong with the text; empty where it could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Syntax(problems) | Self::Meaning(problems) => &problems.0,
            Self::Read { .. } | Self::TooLong { .. } | Self::NotText { .. } => &[],
        }
    }
}

fn read_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "write one with `supersyncd init trader` or `supersyncd init exchange`",
        io::ErrorKind::PermissionDenied => "let the user that runs this read it",
        _ => "give the path of a config file",
    }
}

/// Problems of one text, in the order of their places; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(limits::CONFIG_PROBLEMS_SHOWN_MAX).enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        match self.0.len().saturating_sub(limits::CONFIG_PROBLEMS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// One thing that is wrong. Prints as
///
/// ```text
/// supersync.toml:12:1: unknown key `pakcet_bytes`
///    12 | pakcet_bytes = 1400
///       | ^^^^^^^^^^^^ did you mean `packet_bytes`?
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, or whatever else the text came from.
    pub origin: String,
    /// Where in the text; `None` where something is missing from all of it.
    pub place: Option<Place>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// A part of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line, or as much of it as fits on a screen.
    excerpt: String,
    /// Characters of `excerpt` in front of the carets.
    indent: usize,
    /// Carets, at least one.
    carets: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.place else { return write!(f, "{}: {}\n      {}", self.origin, self.what, self.fix) };
        writeln!(f, "{}:{}:{}: {}", self.origin, place.line, place.column, self.what)?;
        writeln!(f, "{:>5} | {}", place.line, place.excerpt)?;
        write!(f, "      | {}{} {}", " ".repeat(place.indent), "^".repeat(place.carets), self.fix)
    }
}

/// Characters of a line that are printed.
const EXCERPT_CHARS_MAX: usize = 120;
/// Characters in front of a problem that are printed where the whole line does not fit.
const EXCERPT_CHARS_BEFORE: usize = 30;

impl Place {
    /// The place of `span`, which is in bytes of `text`; of a span of several lines, what is on its first.
    fn new(text: &str, span: &Range<usize>) -> Self {
        let boundary = |offset: usize| (0..=offset.min(text.len())).rfind(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let start = boundary(span.start);
        let end = boundary(span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let line = text[line_start..line_end].trim_end_matches('\r');
        let before = text[line_start..start].chars().count();
        let marked = text[start..end.min(line_end)].trim_end_matches('\r').chars().count();
        // A window of the line, so that one endless line does not fill the screen. Control characters could
        // do anything to a terminal, and a tab has no width of its own: each becomes one visible character.
        let fits = line.chars().nth(EXCERPT_CHARS_MAX).is_none();
        let skipped = if fits { 0 } else { before.saturating_sub(EXCERPT_CHARS_BEFORE) };
        let shown = line.chars().skip(skipped).take(EXCERPT_CHARS_MAX);
        let excerpt = shown.map(|c| if c == '\t' { ' ' } else { c });
        let excerpt: String = excerpt.map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let indent = before - skipped;
        let room = excerpt.chars().count().saturating_sub(indent);
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: before + 1,
            excerpt,
            indent,
            carets: marked.min(room).max(1),
        }
    }
}

/// Collects what is wrong with one text.
pub(super) struct Report<'t> {
    origin: &'t str,
    text: &'t str,
    found: Vec<(Option<usize>, Problem)>,
}

impl<'t> Report<'t> {
    /// An empty report about `text`, which came from `origin`.
    pub(super) fn new(text: &'t str, origin: &'t str) -> Self {
        Self { origin, text, found: Vec::new() }
    }

    /// Notes one problem; `span` is in bytes of the text.
    pub(super) fn add(&mut self, span: Option<Range<usize>>, what: impl Into<String>, fix: impl Into<String>) {
        let place = span.as_ref().map(|span| Place::new(self.text, span));
        let problem = Problem { origin: self.origin.to_owned(), place, what: what.into(), fix: fix.into() };
        self.found.push((span.map(|span| span.start), problem));
    }

    /// Every problem in the order of its place, or `None` where there is none.
    pub(super) fn into_problems(mut self) -> Option<Problems> {
        self.found.sort_by_key(|(start, _)| *start);
        (!self.found.is_empty()).then(|| Problems(self.found.into_iter().map(|(_, problem)| problem).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        let mut report = Report::new(text, "x.toml");
        report.add(Some(span), "what", "fix");
        report.into_problems().expect("one was added").to_string()
    }

    #[test]
    fn a_problem_is_shown_under_its_line() {
        assert_eq!(shown("a = 1\nbcd = 2\n", 6..9), "x.toml:2:1: what\n    2 | bcd = 2\n      | ^^^ fix");
    }

    #[test]
    fn carets_stay_under_their_characters() {
        let check = |text: &str, span: Range<usize>, expected: &str| assert_eq!(shown(text, span), expected);
        check("\tä = \"b\"", 6..9, "x.toml:1:6: what\n    1 |  ä = \"b\"\n      |      ^^^ fix");
        check("a = [\r\n1]", 4..9, "x.toml:1:5: what\n    1 | a = [\n      |     ^ fix");
        check("", 0..0, "x.toml:1:1: what\n    1 | \n      | ^ fix");
        check("a", 7..9, "x.toml:1:2: what\n    1 | a\n      |  ^ fix");
        check("ä", 1..1, "x.toml:1:1: what\n    1 | ä\n      | ^ fix");
    }

    #[test]
    fn a_long_line_is_cut_around_the_problem() {
        let text = format!("{}bad{}", "x".repeat(500), "y".repeat(500));
        let expected = format!(
            "x.toml:1:501: what\n    1 | {}bad{}\n      | {}^^^ fix",
            "x".repeat(30),
            "y".repeat(120 - 33),
            " ".repeat(30)
        );
        assert_eq!(shown(&text, 500..503), expected);
    }

    #[test]
    fn problems_come_in_the_order_of_the_text_and_are_bounded() {
        let mut report = Report::new("a\nb\n", "x.toml");
        report.add(Some(2..3), "second", "fix");
        report.add(None, "missing", "fix");
        report.add(Some(0..1), "first", "fix");
        for _ in 0..limits::CONFIG_PROBLEMS_SHOWN_MAX {
            report.add(Some(2..3), "again", "fix");
        }
        let text = report.into_problems().expect("some were added").to_string();
        let place = |what: &str| text.find(what).expect("shown");
        assert!(place("missing") < place("first") && place("first") < place("second"), "{text}");
        assert!(text.ends_with("\nand 3 more"), "{text}");
    }
}
