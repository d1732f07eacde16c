//! Reads the source tree and checks the rules of the house that the compiler cannot see.
//!
//! A rule is a function from a file's path and text to its findings; each finding names the rule, the file and
//! the line. The first tests hold every file of the tree against each rule, the last ones show each rule to be
//! broken by a few lines, so that a rule that finds nothing is known to be one that could have.

use std::fmt;
use std::path::Path;
use std::process::Command;

/// Longest file, lines.
const FILE_LINES_MAX: usize = 800;
/// Longest line of a comment, characters: as rustfmt.toml has code, but for tables and what is in a code block.
const COMMENT_WIDTH_MAX: usize = 120;
/// Longest file under `src/bin`, lines.
const BIN_LINES_MAX: usize = 100;

/// What may stand at the top of the repository, beside names that begin with a dot.
const TOP_LEVEL: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "deploy",
    "src",
    "tests",
];

/// What each layer up to `node` may name of the crate, beside itself.
const MAY_KNOW: [(&str, &[&str]); 12] = [
    ("limits", &["units"]),
    ("units", &["limits"]),
    ("wire", &["units", "limits"]),
    ("transfer", &["units", "limits"]),
    ("proto", &["wire", "transfer", "units", "limits"]),
    ("store", &["units", "limits"]),
    ("uring", &["limits"]),
    ("engine", &["proto", "transfer", "wire", "store", "uring", "units", "limits"]),
    ("exit", &[]),
    ("config", &["store", "wire", "uring", "exit", "units", "limits"]),
    ("control", &["limits"]),
    (
        "node",
        &["engine", "config", "control", "proto", "transfer", "wire", "store", "uring", "exit", "units", "limits"],
    ),
];

/// Who may name `node`: what puts whole nodes together.
const KNOWS_NODE: [&str; 5] = ["node", "demo", "daemon", "ctl", "bin"];

/// Layers without I/O.
const PURE: [&str; 3] = ["wire", "transfer", "proto"];
/// Of these, the ones that iterate over what they hold.
const ORDERED: [&str; 2] = ["transfer", "proto"];
/// Paths that reach out of a pure layer.
const IMPURE_PATHS: [&[&str]; 8] = [
    &["std", "fs"],
    &["std", "net"],
    &["std", "thread"],
    &["std", "process"],
    &["std", "env"],
    &["std", "os"],
    &["rand", "rng"],
    &["rand", "random"],
];
/// Names that do so wherever they stand.
const IMPURE_NAMES: [&str; 12] = [
    "Instant",
    "SystemTime",
    "OsRng",
    "SysRng",
    "ThreadRng",
    "thread_rng",
    "RandomState",
    "async",
    "io_uring",
    "nix",
    "tokio",
    "tokio_uring",
];

/// Words that mark work left undone; spelled in halves, because this file is held against them too.
const UNDONE: [&str; 4] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];

// -- the tree ------------------------------------------------------------------------------------------------

#[test]
fn layers_know_only_what_is_below_them() {
    hold_tree_against(direction_of_knowledge);
}

#[test]
fn the_core_does_no_io() {
    hold_tree_against(pure_core);
}

#[test]
fn unsafe_code_stays_in_uring() {
    hold_tree_against(unsafe_only_in_uring);
}

#[test]
fn files_fit_in_a_sitting() {
    hold_tree_against(file_length);
}

#[test]
fn comments_are_as_wide_as_code() {
    hold_tree_against(comment_width);
}

#[test]
fn files_open_with_what_they_own() {
    hold_tree_against(opening_doc);
}

#[test]
fn nothing_is_left_undone() {
    hold_tree_against(nothing_undone);
}

#[test]
fn ignored_tests_say_why() {
    hold_tree_against(ignored_with_reason);
}

#[test]
fn the_top_level_is_fixed() {
    // A checkout that is not git's, such as an unpacked package, has no list of what belongs to it.
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    match listed {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            report(top_level(&String::from_utf8_lossy(&output.stdout)));
        }
        _ => println!("skipped: the top level is not checked, `git ls-files` does not work here"),
    }
}

fn hold_tree_against(rule: fn(&str, &str) -> Vec<Finding>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for top in ["src", "tests", "benches"] {
        collect(root, &root.join(top), &mut files);
    }
    assert!(files.iter().any(|(path, _)| path == "src/lib.rs"), "found no source below {}", root.display());
    report(files.iter().flat_map(|(path, text)| rule(path, text)).collect());
}

/// Every Rust file below `directory` as (path relative to `root`, text), in order of names.
fn collect(root: &Path, directory: &Path, files: &mut Vec<(String, String)>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let relative = path.strip_prefix(root).expect("below the root").to_str().expect("a name in UTF-8");
            files.push((relative.to_owned(), text));
        }
    }
}

fn report(findings: Vec<Finding>) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "the house is not tidy:\n{}\n", lines.join("\n"));
}

/// One broken rule.
#[derive(Debug)]
struct Finding {
    rule: &'static str,
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.what)
    }
}

// -- the rules -----------------------------------------------------------------------------------------------

fn direction_of_knowledge(path: &str, text: &str) -> Vec<Finding> {
    let Some((layer, module)) = place(path) else { return Vec::new() };
    let mut findings = Vec::new();
    for named in paths(&lex(text)) {
        let Some(other) = named.crate_module(&module) else { continue };
        if other == layer {
            continue;
        }
        let only = MAY_KNOW.iter().find(|(name, _)| *name == layer).map(|(_, may)| *may);
        let why = if only.is_some_and(|may| !may.contains(&other)) {
            format!("it may know only {}", only.unwrap_or_default().join(", "))
        } else if other == "node" && !KNOWS_NODE.contains(&layer) {
            "only the binaries, their command lines and demo put nodes together".to_owned()
        } else {
            continue;
        };
        let what = format!("`{layer}` names `{other}`: {why}");
        findings.push(Finding { rule: "direction of knowledge", path: path.into(), line: named.line, what });
    }
    findings
}

fn pure_core(path: &str, text: &str) -> Vec<Finding> {
    let Some((layer, _)) = place(path).filter(|(layer, _)| PURE.contains(layer)) else { return Vec::new() };
    let tokens = without_tests(path, lex(text));
    let mut findings = Vec::new();
    let mut find = |line, what| findings.push(Finding { rule: "pure core", path: path.into(), line, what });
    for named in paths(&tokens) {
        let segments: Vec<&str> = named.segments.iter().map(String::as_str).collect();
        if IMPURE_PATHS.iter().any(|forbidden| segments.starts_with(forbidden)) {
            find(named.line, format!("`{}` reaches outside; take it as an argument", segments.join("::")));
        }
    }
    for token in &tokens {
        let Kind::Ident(name) = &token.kind else { continue };
        if IMPURE_NAMES.contains(&name.as_str()) {
            find(token.line, format!("`{name}` reaches outside; take it as an argument"));
        }
        if ORDERED.contains(&layer) && (name == "HashMap" || name == "HashSet") {
            find(token.line, format!("`{name}` has no order: the same seed must give the same trace"));
        }
    }
    findings
}

fn unsafe_only_in_uring(path: &str, text: &str) -> Vec<Finding> {
    if path.starts_with("src/uring/") {
        return Vec::new();
    }
    let rule = "unsafe only in uring";
    let found = lex(text).into_iter().filter(|token| token.is("unsafe"));
    let what = "wrap what is needed in a safe type under src/uring";
    found.map(|token| Finding { rule, path: path.into(), line: token.line, what: what.into() }).collect()
}

fn file_length(path: &str, text: &str) -> Vec<Finding> {
    let max = if path.starts_with("src/bin/") { BIN_LINES_MAX } else { FILE_LINES_MAX };
    let lines = text.lines().count();
    let what = format!("{lines} lines, more than {max}: split it by subject");
    let over = (lines > max).then(|| Finding { rule: "file length", path: path.into(), line: max + 1, what });
    over.into_iter().collect()
}

fn comment_width(path: &str, text: &str) -> Vec<Finding> {
    let (mut in_block, mut found) = (false, Vec::new());
    for (line, text) in (1..).zip(text.lines()) {
        let comment = text.trim_start().strip_prefix("//").map(|text| text.trim_start_matches(['/', '!', ' ']));
        in_block = comment.is_some_and(|comment| comment.starts_with("```") != in_block);
        let is_prose = comment.is_some_and(|comment| !comment.starts_with('|')) && !in_block;
        if is_prose && text.chars().count() > COMMENT_WIDTH_MAX {
            let what = format!("a comment of more than {COMMENT_WIDTH_MAX} columns: wrap it");
            found.push(Finding { rule: "comment width", path: path.into(), line, what });
        }
    }
    found
}

fn opening_doc(path: &str, text: &str) -> Vec<Finding> {
    let opens = text.strip_prefix("//!").is_some_and(|rest| !rest.lines().next().unwrap_or("").trim().is_empty());
    let what = "open it with `//!` and what it owns".to_owned();
    (!opens).then(|| Finding { rule: "opening doc", path: path.into(), line: 1, what }).into_iter().collect()
}

fn nothing_undone(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line, what| findings.push(Finding { rule: "nothing undone", path: path.into(), line, what });
    for (index, line) in text.lines().enumerate() {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        for word in words.filter(|word| UNDONE.contains(word)) {
            find(index + 1, format!("`{word}`: do it, or take it out"));
        }
    }
    if path.starts_with("src/") {
        let tokens = without_tests(path, lex(text));
        for at in 0..tokens.len() {
            if matches(&tokens[at..], &["dbg", "!"]) {
                find(tokens[at].line, "`dbg!` is for the moment of looking".to_owned());
            }
            if matches(&tokens[at..], &[".", "unwrap", "(", ")"]) {
                find(tokens[at].line, "`unwrap()`: handle it, or `expect` with the reason in sight".to_owned());
            }
        }
    }
    findings
}

fn ignored_with_reason(path: &str, text: &str) -> Vec<Finding> {
    let tokens = lex(text);
    let mut findings = Vec::new();
    for start in 0..tokens.len() {
        if !matches(&tokens[start..], &["#", "["]) {
            continue;
        }
        let end = closing(&tokens, start + 1);
        for at in start + 2..end {
            let is_reason =
                |token: &Token| matches!(&token.kind, Kind::Literal(text) if text.trim_matches('"').len() > 1);
            let reasoned = matches(&tokens[at + 1..], &["="]) && tokens.get(at + 2).is_some_and(is_reason);
            if tokens[at].is("ignore") && !reasoned {
                let what = "say why, and how to run it: `#[ignore = \"...\"]`".to_owned();
                findings.push(Finding { rule: "ignored with reason", path: path.into(), line: tokens[at].line, what });
            }
        }
    }
    findings
}

/// `listed` is what `git ls-files -z` prints.
fn top_level(listed: &str) -> Vec<Finding> {
    let mut tops: Vec<&str> = listed.split('\0').filter_map(|path| path.split('/').next()).collect();
    tops.sort_unstable();
    tops.dedup();
    let strange = tops.into_iter().filter(|top| !top.is_empty() && !top.starts_with('.') && !TOP_LEVEL.contains(top));
    let what = format!("only dot-files and {} stand at the top", TOP_LEVEL.join(", "));
    strange.map(|top| Finding { rule: "top level", path: top.into(), line: 1, what: what.clone() }).collect()
}

/// The layer that a file of the library belongs to, and its module path; `None` for the crate root, the
/// binaries and what is not under `src`.
fn place(path: &str) -> Option<(&str, Vec<&str>)> {
    let inside = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let mut module: Vec<&str> = inside.split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    let layer = *module.first()?;
    (layer != "lib" && layer != "bin").then_some((layer, module))
}

// -- reading Rust: just enough of it --------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Ident(String),
    /// `::` is one, every other mark its own.
    Punct(&'static str),
    /// A string, character or number, as written.
    Literal(String),
}

#[derive(Debug, Clone)]
struct Token {
    line: usize,
    kind: Kind,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Ident(name) => name == text,
            Kind::Punct(mark) => *mark == text,
            Kind::Literal(_) => false,
        }
    }
}

fn matches(tokens: &[Token], texts: &[&str]) -> bool {
    tokens.len() >= texts.len() && tokens.iter().zip(texts).all(|(token, text)| token.is(text))
}

/// The tokens of `text`; comments and white space are gone.
fn lex(text: &str) -> Vec<Token> {
    const MARKS: [&str; 29] = [
        "::", "#", "[", "]", "(", ")", "{", "}", "<", ">", ".", ",", ";", ":", "=", "!", "*", "&", "$", "?", "+", "-",
        "/", "|", "%", "^", "@", "~", "\\",
    ];
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = comment(rest).or_else(|| literal(rest)).unwrap_or(0);
        let (length, kind) = if length > 0 {
            (length, (!rest.starts_with("//") && !rest.starts_with("/*")).then(|| Kind::Literal(rest[..length].into())))
        } else if first.is_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            (length, Some(Kind::Ident(rest[..length].into())))
        } else if let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(**mark)) {
            (mark.len(), Some(Kind::Punct(mark)))
        } else {
            (first.len_utf8(), None)
        };
        tokens.extend(kind.map(|kind| Token { line, kind }));
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

/// Length of the comment that `text` begins with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.strip_prefix("/*")?;
    let (mut depth, mut at) = (1, 2);
    while depth > 0 && at < text.len() {
        let here = &text.as_bytes()[at..];
        let step = if here.starts_with(b"/*") { 1 } else { -i32::from(here.starts_with(b"*/")) };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
    }
    Some(at.min(text.len()))
}

/// Length of the string, byte string, character or number that `text` begins with.
fn literal(text: &str) -> Option<usize> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()));
    }
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with('"') || (prefix.ends_with('r') && rest.starts_with('#')))
    });
    if let Some(prefix) = prefix {
        let body = &text[prefix.len()..];
        if !prefix.ends_with('r') {
            return Some(prefix.len() + quoted(body, '"')?);
        }
        let hashes = body.len() - body.trim_start_matches('#').len();
        let open = body[hashes..].strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        return Some(prefix.len() + hashes + 1 + open.find(&close)? + close.len());
    }
    let (prefix, body) = text.strip_prefix('b').map_or((0, text), |body| (1, body));
    let inner = body.strip_prefix('\'')?;
    // `'a` is a lifetime unless a quote follows the one character.
    let character = inner.starts_with('\\') || inner.chars().nth(1) == Some('\'');
    if character { Some(prefix + quoted(body, '\'')?) } else { None }
}

/// Length of what stands between two `quote`s at the start of `text`, both included.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

/// Where the bracket at `open` closes; the last token where it does not.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Punct("(" | "[" | "{") => depth += 1,
            Kind::Punct(")" | "]" | "}") => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len().saturating_sub(1)
}

/// The tokens that are not behind `#[cfg(test)]`.
fn without_tests(path: &str, tokens: Vec<Token>) -> Vec<Token> {
    let is_test = |attribute: &[Token]| {
        matches(attribute, &["cfg", "("])
            && attribute.iter().any(|t| t.is("test"))
            && !attribute.iter().any(|t| t.is("not"))
    };
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return Vec::new();
    }
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let inner = matches(&tokens[at..], &["#", "!", "["]);
        if !inner && !matches(&tokens[at..], &["#", "["]) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let open = at + 1 + usize::from(inner);
        let end = closing(&tokens, open);
        if !is_test(&tokens[open + 1..end]) {
            kept.extend_from_slice(&tokens[at..=end]);
            at = end + 1;
        } else if inner {
            return Vec::new();
        } else {
            at = item_end(&tokens, end + 1);
        }
    }
    kept
}

/// Where the item that begins at `at` is over.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while at < tokens.len() && !tokens[at].is(";") {
        match tokens[at].kind {
            Kind::Punct("{") => return closing(tokens, at) + 1,
            Kind::Punct("(" | "[") => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    at + 1
}

/// A path as written, its groups taken apart: `a::{b, c::d}` is `a::b` and `a::c::d`.
#[derive(Debug)]
struct Named {
    line: usize,
    segments: Vec<String>,
    /// Inline modules around it.
    inline: usize,
}

impl Named {
    /// The module at the crate's root that this leads to from a file whose module path is `file`.
    fn crate_module<'a>(&'a self, file: &[&'a str]) -> Option<&'a str> {
        let supers = self.segments.iter().take_while(|segment| *segment == "super" || *segment == "self").count();
        let ups = self.segments.iter().take(supers).filter(|segment| *segment == "super").count();
        match self.segments[0].as_str() {
            "crate" => self.segments.get(1).map(String::as_str),
            "super" if ups >= file.len() + self.inline => self.segments.get(supers).map(String::as_str),
            _ => None,
        }
    }
}

fn paths(tokens: &[Token]) -> Vec<Named> {
    let mut named = Vec::new();
    // For each open brace, whether it opens a module.
    let mut braces: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let inline = braces.iter().filter(|module| **module).count();
        match &tokens[at].kind {
            Kind::Punct("{") => braces.push(at >= 2 && tokens[at - 2].is("mod")),
            Kind::Punct("}") => _ = braces.pop(),
            Kind::Ident(_) => {
                at = tree(tokens, at, &[], inline, &mut named);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    named
}

/// Reads the path or use tree at `at`, adds what it names, and returns where it is over.
fn tree(tokens: &[Token], mut at: usize, before: &[String], inline: usize, named: &mut Vec<Named>) -> usize {
    let mut segments = before.to_vec();
    let line = tokens[at].line;
    loop {
        match tokens.get(at).map(|token| &token.kind) {
            Some(Kind::Ident(name)) => segments.push(name.clone()),
            Some(Kind::Punct("*")) => segments.push("*".to_owned()),
            Some(Kind::Punct("{")) => {
                let end = closing(tokens, at);
                at += 1;
                while at < end {
                    let is_start = matches!(tokens[at].kind, Kind::Ident(_) | Kind::Punct("*" | "{"));
                    at = if is_start { tree(tokens, at, &segments, inline, named) } else { at + 1 };
                    // `as name` is no path of its own.
                    at += if matches(&tokens[at..], &["as"]) { 2 } else { 0 };
                }
                return end + 1;
            }
            _ => break,
        }
        at += 1;
        if !tokens.get(at).is_some_and(|token| token.is("::")) {
            break;
        }
        at += 1;
    }
    named.push(Named { line, segments, inline });
    at
}

// -- the rules can be broken ----------------------------------------------------------------------------------

/// Holds `text` as the file `path` against `rule`; the findings' lines must be `expected`.
fn check(rule: fn(&str, &str) -> Vec<Finding>, path: &str, text: &str, expected: &[usize]) {
    let findings = rule(path, text);
    let mut lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
    lines.dedup();
    assert_eq!(lines, expected, "{path}:\n{text}\n{findings:?}");
}

#[test]
fn knowledge_in_the_wrong_direction_is_found() {
    let check = |path, text, expected| check(direction_of_knowledge, path, text, expected);
    check("src/wire/duplex.rs", "use crate::units::Offset;\nuse crate::wire::padding;\n", &[]);
    check("src/wire/duplex.rs", "use crate::transfer::Flow;\n", &[1]);
    check("src/wire/duplex.rs", "use crate::{limits, units::{Offset, Time},\n  proto};\n", &[2]);
    check("src/wire/mod.rs", "fn f() -> crate::store::Root { todo() }\n", &[1]);
    check("src/wire/mod.rs", "use crate::*;\n", &[1]);
    check(
        "src/wire/mod.rs",
        "//! [`crate::proto`] calls this.\n/* crate::node */ const A: &str = \"crate::node\";\n",
        &[],
    );
    check("src/transfer/mod.rs", "use crate::wire;\n", &[1]);
    check("src/transfer/flow.rs", "use super::super::wire::duplex;\nuse super::queue::{Queue};\n", &[1]);
    check(
        "src/transfer/flow.rs",
        "mod tests {\n  use super::super::queue;\n  use super::super::super::wire;\n}\n",
        &[3],
    );
    check("src/proto/duplex.rs", "use crate::{wire, transfer, units, limits};\nuse crate::store;\n", &[2]);
    check("src/store/mod.rs", "use crate::config::Store;\n", &[1]);
    check("src/uring/ring.rs", "use crate::engine;\n", &[1]);
    check(
        "src/engine/mod.rs",
        "use crate::{proto, store, uring};\nuse crate::config;\nuse crate::node::Role;\n",
        &[2, 3],
    );
    check("src/control/mod.rs", "use crate::limits;\nuse crate::engine as e;\nuse crate::wire;\n", &[2, 3]);
    check("src/config/mod.rs", "use crate::node;\n", &[1]);
    check("src/other.rs", "use crate::node;\n", &[1]);
    check("src/demo/mod.rs", "use crate::node;\n", &[]);
    check("src/daemon/mod.rs", "use crate::{demo, node};\n", &[]);
    check("src/ctl/mod.rs", "use crate::{control, engine, node};\n", &[]);
    check("src/control/mod.rs", "use crate::ctl;\n", &[1]);
    check("src/node/mod.rs", "use crate::node::dial;\nuse crate::engine;\n", &[]);
    check("src/bin/supersyncd.rs", "use supersync::node;\n", &[]);
}

#[test]
fn a_core_that_reaches_outside_is_found() {
    let check = |path, text, expected| check(pure_core, path, text, expected);
    check("src/wire/mod.rs", "use std::collections::HashMap;\nuse std::time::Duration;\n", &[]);
    check("src/wire/mod.rs", "use std::fs::File;\n", &[1]);
    check("src/wire/mod.rs", "use std::{fmt,\n  net::SocketAddr};\n", &[2]);
    check("src/proto/duplex.rs", "use std::time::{Duration, Instant};\n", &[1]);
    check("src/proto/duplex.rs", "use std::time;\nfn f() { time::SystemTime::now(); }\n", &[2]);
    check("src/proto/duplex.rs", "async fn f() {}\n", &[1]);
    check("src/transfer/mod.rs", "use std::thread;\nuse tokio::net;\nuse nix::sys;\n", &[1, 2, 3]);
    check("src/transfer/mod.rs", "fn f() { rand::rng(); }\nuse rand::rngs::SysRng;\n", &[1, 2]);
    check("src/transfer/mod.rs", "use std::collections::{BTreeMap, HashMap};\n", &[1]);
    check("src/proto/mod.rs", "fn f() { let s = HashSet::new(); }\n", &[1]);
    check("src/transfer/mod.rs", "#[cfg(test)]\nmod tests {\n  use std::fs;\n}\nuse std::net;\n", &[5]);
    check("src/transfer/mod.rs", "#[cfg(not(test))]\nuse std::fs;\n", &[2]);
    check("src/transfer/tests.rs", "use std::fs;\n", &[]);
    check("src/store/mod.rs", "use std::fs;\n", &[]);
}

#[test]
fn unsafe_code_elsewhere_is_found() {
    check(unsafe_only_in_uring, "src/uring/ring.rs", "unsafe { f() }\n", &[]);
    check(unsafe_only_in_uring, "src/store/map.rs", "// unsafe\nfn f<'a>() {\n  unsafe { g('\"', '\\'') }\n}\n", &[3]);
    check(unsafe_only_in_uring, "src/lib.rs", "#[allow(unsafe_code)]\nmod uring;\n", &[]);
    check(unsafe_only_in_uring, "tests/e2e.rs", "unsafe fn f() {}\n", &[1]);
}

#[test]
fn long_files_are_found() {
    check(file_length, "src/a.rs", &"//\n".repeat(800), &[]);
    check(file_length, "src/a.rs", &"//\n".repeat(801), &[801]);
    check(file_length, "src/bin/a.rs", &"//\n".repeat(100), &[]);
    check(file_length, "src/bin/a.rs", &"//\n".repeat(101), &[101]);
}

#[test]
fn wide_comments_are_found() {
    let (long, short) = ("a ".repeat(60), "a ".repeat(56));
    let text = format!("//! {long}\n\nfn f() {{\n    // {short}\n}}\n// {long}\nlet s = \"// {long}\";\n");
    check(comment_width, "src/a.rs", &text, &[1, 6]);
    let text = format!("//! | {long} |\n//!\n//! ```text\n//! {long}\n//! ```\n//! {long}\n");
    check(comment_width, "src/a.rs", &text, &[6]);
}

#[test]
fn files_without_an_opening_doc_are_found() {
    check(opening_doc, "src/a.rs", "//! Owns a.\n", &[]);
    check(opening_doc, "src/a.rs", "use b;\n//! Late.\n", &[1]);
    check(opening_doc, "src/a.rs", "//!\n", &[1]);
    check(opening_doc, "src/a.rs", "", &[1]);
}

#[test]
fn what_is_left_undone_is_found() {
    for word in UNDONE {
        check(nothing_undone, "src/a.rs", &format!("fn f() {{\n  // {word}: later\n}}\n"), &[2]);
        check(nothing_undone, "tests/a.rs", &format!("//! {word}\n"), &[1]);
        check(nothing_undone, "src/a.rs", &format!("// {word}_{word} {word}S\n"), &[]);
    }
    check(nothing_undone, "src/a.rs", "fn f() { g().unwrap(); }\nfn h() { dbg!(1); }\n", &[1, 2]);
    check(nothing_undone, "src/a.rs", "fn f() {\n  g()\n    .unwrap()\n}\n", &[3]);
    check(nothing_undone, "src/a.rs", "/// `a.unwrap()`\nfn f() { g(\".unwrap()\").unwrap_or(1); }\n", &[]);
    check(
        nothing_undone,
        "src/a.rs",
        "#[cfg(test)]\nfn f(a: [u8; 2]) { g().unwrap(); }\nfn h() { i().unwrap(); }\n",
        &[3],
    );
    check(nothing_undone, "src/a.rs", "#![cfg(test)]\nfn f() { g().unwrap(); }\n", &[]);
    check(nothing_undone, "src/a.rs", "#[cfg(test)]\nmod tests;\nfn f() { g().unwrap(); }\n", &[3]);
    check(nothing_undone, "tests/a.rs", "fn f() { g().unwrap(); }\n", &[]);
}

#[test]
fn tests_ignored_without_a_reason_are_found() {
    check(ignored_with_reason, "tests/a.rs", "#[test]\n#[ignore]\nfn f() {}\n", &[2]);
    check(ignored_with_reason, "tests/a.rs", "#[ignore = \"\"]\nfn f() {}\n", &[1]);
    check(ignored_with_reason, "tests/a.rs", "#[cfg_attr(miri, ignore)]\nfn f() {}\n", &[1]);
    check(ignored_with_reason, "tests/a.rs", "#[ignore = \"needs root: run with --ignored\"]\nfn f() {}\n", &[]);
    check(ignored_with_reason, "tests/a.rs", "fn f(ignore: u8) { let a = [ignore]; }\n", &[]);
}

#[test]
fn strange_entries_at_the_top_are_found() {
    let found = |listed: &str| top_level(listed).into_iter().map(|finding| finding.path).collect::<Vec<_>>();
    assert!(found("Cargo.toml\0.ci/run\0src/lib.rs\0LICENSE-MIT\0.rustfmt.toml\0").is_empty());
    assert_eq!(found("src/lib.rs\0notes.txt\0scripts/a\0scripts/b\0"), ["notes.txt", "scripts"]);
}

#[test]
fn tokens_are_told_from_text() {
    let idents = |text: &str| -> Vec<String> {
        let ident = |token: Token| if let Kind::Ident(name) = token.kind { Some(name) } else { None };
        lex(text).into_iter().filter_map(ident).collect()
    };
    assert_eq!(idents("a /* b /* c */ d */ e // f\ng"), ["a", "e", "g"]);
    assert_eq!(idents(r###"a r#"b " c"# "d \" e" b"f" br##"g"# h"## 'i' b'j' '\'' k"###), ["a", "k"]);
    assert_eq!(idents("a<'b>('c', 'é', b) 0x1f 1_000u64"), ["a", "b", "b"]);
    assert_eq!(idents("r#type break rust b c"), ["r", "type", "break", "rust", "b", "c"]);
    let lines: Vec<usize> = lex("a\n\"b\nc\"\n/*\n*/ d").iter().map(|token| token.line).collect();
    assert_eq!(lines, [1, 2, 5]);
}
