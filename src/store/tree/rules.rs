//! What of a tree is left out: ordered lines in the syntax of `.gitignore`, and `.supersyncignore` files.
//!
//! The rules of a session speak of paths from the top of the transfer and come first; where they say nothing, the
//! `.supersyncignore` of the entry's own directory does, then that of the one above. Within one list the last line
//! that matches counts; `!` takes back. An excluded directory is not entered, so that nothing below it can be taken
//! back.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder, Glob};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::super::part::errno_of;
use super::error::TreeError;
use crate::limits;

/// The rules of a session. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    session: Option<Arc<Gitignore>>,
}

impl Rules {
    /// From lines in the syntax of `.gitignore`, in order: a pattern excludes, `!pattern` includes.
    pub fn new<L: AsRef<str>>(lines: impl IntoIterator<Item = L>) -> Result<Self, TreeError> {
        let mut builder = GitignoreBuilder::new("");
        for line in lines {
            let line = line.as_ref();
            add_line(&mut builder, line)?;
        }
        let session = builder.build().map_err(|error| of_line("", &error))?;
        Ok(Self { session: (!session.is_empty()).then(|| Arc::new(session)) })
    }

    /// Rules that leave nothing out.
    pub fn none() -> Self {
        Self::default()
    }
}

/// The rules that hold in one directory.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    session: Option<Arc<Gitignore>>,
    file: Option<Arc<ScopeFile>>,
}

/// A `.supersyncignore`, and the one that holds where it says nothing.
#[derive(Debug)]
struct ScopeFile {
    lines: Gitignore,
    /// Length of the path of its directory, with the slash.
    prefix: usize,
    above: Option<Arc<ScopeFile>>,
}

impl Scope {
    /// The scope of the top.
    pub(super) fn new(rules: &Rules) -> Self {
        Self { session: rules.session.clone(), file: None }
    }

    /// The scope within the directory `path`, which `directory` is; with the lines that are not patterns, or why its
    /// file cannot be read.
    pub(super) fn enter(&self, directory: BorrowedFd<'_>, path: &[u8]) -> (Self, Option<String>) {
        let text = match read(directory) {
            Ok(None) => return (self.clone(), None),
            Ok(Some(text)) => text,
            Err(errno) => return (self.clone(), Some(std::io::Error::from(errno).to_string())),
        };
        let mut builder = GitignoreBuilder::new("");
        let mut wrong = Vec::new();
        // Some editors mark a text that is UTF-8.
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
        for line in text.split(|&b| b == b'\n') {
            match std::str::from_utf8(line) {
                Ok(line) => wrong.extend(add_line(&mut builder, line).err().map(|error| error.to_string())),
                Err(_) => wrong.push(format!("the rule '{}' is not UTF-8", line.escape_ascii())),
            }
        }
        let prefix = if path.is_empty() { 0 } else { path.len() + 1 };
        let file = match builder.build() {
            Ok(lines) => Some(Arc::new(ScopeFile { lines, prefix, above: self.file.clone() })),
            Err(error) => {
                wrong.push(error.to_string());
                self.file.clone()
            }
        };
        let scope = Self { session: self.session.clone(), file };
        (scope, (!wrong.is_empty()).then(|| wrong.join("; ")))
    }

    /// Whether the entry `path`, which lies in this directory or below it, is left out.
    pub(super) fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        if let Some(lines) = &self.session
            && let Some(verdict) = verdict(lines, path, is_dir)
        {
            return verdict;
        }
        let mut file = self.file.as_ref();
        while let Some(scope) = file {
            if let Some(verdict) = verdict(&scope.lines, &path[scope.prefix.min(path.len())..], is_dir) {
                return verdict;
            }
            file = scope.above.as_ref();
        }
        false
    }
}

fn add_line(builder: &mut GitignoreBuilder, line: &str) -> Result<(), TreeError> {
    let pattern = translate(line).map_err(|reason| TreeError::Rule { line: line.to_owned(), reason })?;
    builder.add_line(None, &pattern).map(drop).map_err(|error| of_line(line, &error))
}

/// A line as the builder takes it. It would take `{a,b}` for a or b: in a gitignore braces are themselves, which a
/// backslash says. It does not know the named classes of characters, `[:digit:]` within brackets.
fn translate(line: &str) -> Result<String, String> {
    let mut pattern = String::with_capacity(line.len());
    let mut chars = line.chars();
    // Where the characters of an open class begin: a `]` is one of them there, and only there.
    let mut class = None;
    let mut has_dash = false;
    while let Some(char) = chars.next() {
        match (char, class) {
            ('[', None) => {
                pattern.push('[');
                if chars.as_str().starts_with(['!', '^']) {
                    pattern.extend(chars.next());
                }
                class = Some(pattern.len());
                continue;
            }
            ('[', Some(_)) if let Some((name, rest)) = class_name(chars.as_str()) => {
                let ranges = class_ranges(name).ok_or_else(|| format!("there is no class [:{name}:] of characters"))?;
                pattern.push_str(ranges);
                // No range begins with what a name stands for.
                has_dash |= rest.starts_with('-');
                chars = rest.strip_prefix('-').unwrap_or(rest).chars();
                continue;
            }
            (']', Some(begin)) if pattern.len() > begin => {
                if std::mem::take(&mut has_dash) {
                    pattern.push('-');
                }
                class = None;
            }
            ('{' | '}', None) => pattern.push('\\'),
            _ => {}
        }
        pattern.push(char);
        if char == '\\' {
            pattern.extend(chars.next());
        }
    }
    Ok(pattern)
}

/// What follows a `[` within a class, where that is the name of another: the name, and what follows that.
fn class_name(rest: &str) -> Option<(&str, &str)> {
    let (name, rest) = rest.strip_prefix(':')?.split_once(']')?;
    Some((name.strip_suffix(':')?, rest))
}

/// The characters that a name stands for, of ASCII. None begins with what would negate a class.
fn class_ranges(name: &str) -> Option<&'static str> {
    Some(match name {
        "alnum" => "0-9A-Za-z",
        "alpha" => "A-Za-z",
        "blank" => " \t",
        "cntrl" => "\0-\x1f\x7f",
        "digit" => "0-9",
        "graph" => "\"-~!",
        "lower" => "a-z",
        "print" => " -~",
        "punct" => "\"-/:-@[-`{-~!",
        "space" => " \t-\r",
        "upper" => "A-Z",
        "xdigit" => "0-9A-Fa-f",
        _ => return None,
    })
}

fn verdict(lines: &Gitignore, path: &[u8], is_dir: bool) -> Option<bool> {
    match lines.matched(Path::new(OsStr::from_bytes(path)), is_dir) {
        Match::<&Glob>::None => None,
        Match::Ignore(_) => Some(true),
        Match::Whitelist(_) => Some(false),
    }
}

/// The text of a directory's `.supersyncignore`, `None` where there is none; EFBIG where it is too long, for what its
/// last lines leave out must not be sent or deleted.
fn read(directory: BorrowedFd<'_>) -> nix::Result<Option<Vec<u8>>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = match openat(directory, limits::IGNORE_FILE, flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
        opened => opened?,
    };
    if SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Ok(None);
    }
    let mut text = Vec::new();
    let read = File::from(file).take(limits::IGNORE_FILE_BYTES_MAX + 1).read_to_end(&mut text);
    match read.map_err(|error| errno_of(&error))? as u64 {
        ..=limits::IGNORE_FILE_BYTES_MAX => Ok(Some(text)),
        _ => Err(Errno::EFBIG),
    }
}

fn of_line(line: &str, error: &ignore::Error) -> TreeError {
    TreeError::Rule { line: line.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    /// It was cut where it was longest, and what the lines behind that were to spare was sent, and deleted.
    #[test]
    fn an_ignore_file_that_is_too_long_is_not_read_in_part() {
        let dir = tempfile::tempdir().expect("made");
        let directory = File::open(dir.path()).expect("opened");
        let scope = Scope::new(&Rules::new(Vec::<&str>::new()).expect("none"));
        let enter = |bytes: u64| {
            std::fs::write(dir.path().join(limits::IGNORE_FILE), vec![b'\n'; bytes as usize]).expect("written");
            scope.enter(directory.as_fd(), b"").1
        };
        assert_eq!(enter(limits::IGNORE_FILE_BYTES_MAX), None);
        assert!(enter(limits::IGNORE_FILE_BYTES_MAX + 1).is_some_and(|reason| reason.contains("too large")));
    }

    #[test]
    fn the_last_line_that_matches_counts() {
        let scope = Scope::new(&Rules::new(["*.o", "!keep.o", "/build/", "a/**/z"]).expect("patterns"));
        let check = |path: &str, is_dir: bool, expected: bool| {
            assert_eq!(scope.excludes(path.as_bytes(), is_dir), expected, "{path}");
        };
        check("x.o", false, true);
        check("deep/below/x.o", false, true);
        check("deep/keep.o", false, false);
        check("build", true, true);
        check("build", false, false);
        check("a/build", true, false);
        check("a/b/c/z", false, true);
        check("x.c", false, false);
        assert!(!Scope::new(&Rules::none()).excludes(b"x.o", false));
    }

    #[test]
    fn braces_are_themselves() {
        let scope = Scope::new(&Rules::new(["{a,b}.o", r"x\{y", "[{]z", "${HOME}"]).expect("patterns"));
        for (path, expected) in
            [("{a,b}.o", true), ("a.o", false), ("b.o", false), ("x{y", true), ("{z", true), ("${HOME}", true)]
        {
            assert_eq!(scope.excludes(path.as_bytes(), false), expected, "{path}");
        }
    }

    /// As git(1) has it.
    #[test]
    fn classes_of_characters_have_names() {
        let check = |pattern: &str, within: &str, without: &str| {
            let scope = Scope::new(&Rules::new([pattern]).expect("a pattern"));
            let excludes = |char: char| scope.excludes(char.to_string().as_bytes(), false);
            assert!(within.chars().all(excludes) && !without.chars().any(excludes), "{pattern}");
        };
        check("[[:digit:]]", "059", "a:[d-");
        check("[![:digit:]]", "a:-", "059");
        check("[^[:alpha:][:digit:]_]", "-.", "aZ5_");
        check("[[:alnum:]]", "azAZ09", "_ ");
        check("[[:alpha:]]", "azAZ", "09");
        check("[[:blank:]]", " \t", "\nx");
        check("[[:cntrl:]]", "\u{1}\u{1f}\u{7f}", " a");
        check("[[:graph:]]", "!~a", " \t");
        check("[[:lower:]]", "az", "AZ");
        check("[[:print:]]", " !~", "\t");
        check("[[:punct:]]", "!\"-:@[]`{~", "a0 ");
        check("[[:space:]]", " \t\n\r", "a");
        check("[[:upper:]]", "AZ", "az");
        check("[[:xdigit:]]", "09afAF", "gG");
        check("[[:digit:]-x]", "0-x", "ad");
        check("[][:digit:]{]", "]0{", "[:d");
        check("[[:digit]", "[:dt", "0");
        let error = Rules::new(["[[:digits:]]*"]).expect_err("no class");
        assert!(error.to_string().contains("'[[:digits:]]*'"), "{error}");
    }

    #[test]
    fn a_line_that_is_no_pattern_is_named() {
        let error = Rules::new(["ok", "[z-a]"]).expect_err("a range that ends before it begins");
        assert!(error.to_string().contains("'[z-a]'"), "{error}");
    }

    #[test]
    fn a_directorys_own_file_goes_before_the_one_above() {
        let top = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(top.path().join("sub")).expect("made");
        std::fs::write(top.path().join(".supersyncignore"), "*.tmp\n/only-here\n").expect("written");
        std::fs::write(top.path().join("sub/.supersyncignore"), "\u{feff}!wanted.tmp\n").expect("written");
        let open = |path| File::open(path).expect("a directory");
        let outer = Scope::new(&Rules::new(["*.never"]).expect("patterns"));
        let (outer, wrong) = outer.enter(std::os::fd::AsFd::as_fd(&open(top.path().to_path_buf())), b"");
        assert_eq!(wrong, None);
        let (inner, _) = outer.enter(std::os::fd::AsFd::as_fd(&open(top.path().join("sub"))), b"sub");
        assert!(outer.excludes(b"x.tmp", false) && outer.excludes(b"only-here", false));
        assert!(inner.excludes(b"sub/x.tmp", false) && !inner.excludes(b"sub/only-here", false));
        assert!(!inner.excludes(b"sub/wanted.tmp", false) && inner.excludes(b"sub/x.never", false));
    }
}
