//! What a segment store should hold: names from a pattern, all of one size.
//!
//! `stock{1..10}_{1..50}` is plain text and brace ranges. It stands for every combination, the first range
//! outermost: `stock1_1`, `stock1_2`, ... `stock10_50`. A bound written with leading zeros pads every number of
//! its range to the wider bound: `{01..10}`.

use std::collections::HashSet;

use super::error::{Refusal, check_name};
use super::source::Stamp;
use crate::limits;
use crate::units::{ByteCount, ObjectName};

/// Names with ranges in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    pieces: Vec<Piece>,
    count: usize,
}

/// Why text is not a pattern; positions count bytes from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No text at all.
    #[error("the pattern is empty; write for example stock{{1..10}}_{{1..50}}")]
    Empty,
    /// A `{` that is never closed.
    #[error("the '{{' at position {at} has no '}}'; a range is written {{1..10}}")]
    Unclosed {
        /// Where it stands.
        at: usize,
    },
    /// A `}` that closes nothing.
    #[error("the '}}' at position {at} has no '{{' before it; a range is written {{1..10}}")]
    Unopened {
        /// Where it stands.
        at: usize,
    },
    /// No two numbers with `..` between them.
    #[error("'{{{text}}}' at position {at} is no range; write two numbers, {{1..10}}")]
    NotARange {
        /// Where its `{` stands.
        at: usize,
        /// What stands between the braces.
        text: String,
    },
    /// A number that is too large.
    #[error("the number {text} at position {at} is too large")]
    NumberTooLarge {
        /// Where it stands.
        at: usize,
        /// The number.
        text: String,
    },
    /// The first number is the larger one.
    #[error("the range '{{{text}}}' at position {at} descends; write the smaller number first")]
    Descending {
        /// Where its `{` stands.
        at: usize,
        /// What stands between the braces.
        text: String,
    },
    /// More names than a flow's table holds.
    #[error("the pattern stands for more than {max} names", max = limits::OBJECTS_MAX)]
    TooMany,
    /// A name that no root takes.
    #[error("the pattern stands for '{name}': {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: Refusal,
    },
    /// One name in two ways.
    #[error("the pattern stands for '{name}' twice; put a separator between its ranges, or pad their numbers")]
    Twice {
        /// The name.
        name: ObjectName,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Range { first: u64, last: u64, width: usize },
}

impl Pattern {
    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let mut pieces = Vec::new();
        let mut count = 1_usize;
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            match rest.find(['{', '}']) {
                Some(0) if rest.starts_with('}') => return Err(PatternError::Unopened { at }),
                Some(0) => {
                    let end = rest.find('}').ok_or(PatternError::Unclosed { at })?;
                    let (range, members) = parse_range(&rest[1..end], at)?;
                    count = usize::try_from(members)
                        .ok()
                        .and_then(|members| count.checked_mul(members))
                        .filter(|&count| count <= limits::OBJECTS_MAX)
                        .ok_or(PatternError::TooMany)?;
                    pieces.push(range);
                    at += end + 1;
                }
                next => {
                    let end = next.unwrap_or(rest.len());
                    pieces.push(Piece::Text(rest[..end].to_owned()));
                    at += end;
                }
            }
        }
        Ok(Self { pieces, count })
    }

    /// How many names it stands for; at most [`limits::OBJECTS_MAX`].
    pub fn count(&self) -> usize {
        self.count
    }

    /// Every name, the first range outermost.
    pub fn expand(&self) -> Result<Vec<ObjectName>, PatternError> {
        let mut names = Vec::with_capacity(self.count);
        let mut text = String::new();
        expand_into(&self.pieces, &mut text, &mut names)?;
        let mut seen = HashSet::with_capacity(names.len());
        match names.iter().find(|name| !seen.insert(*name)) {
            Some(name) => Err(PatternError::Twice { name: name.clone() }),
            None => Ok(names),
        }
    }
}

/// What a segment store should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSpec {
    /// Every segment's name, in the pattern's order.
    pub names: Vec<ObjectName>,
    /// The size of each.
    pub size: ByteCount,
}

/// How a root differs from its specification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecReport {
    /// Segments that are not there, in the pattern's order.
    pub missing: Vec<ObjectName>,
    /// Segments of another size, with the size they have.
    pub wrong_size: Vec<(ObjectName, ByteCount)>,
    /// Objects that the specification does not name.
    pub extra: u64,
}

impl SpecReport {
    /// Whether every segment is there in its size; extra objects do no harm.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.wrong_size.is_empty()
    }
}

impl SegmentSpec {
    /// Every name that `pattern` stands for, each of `size`.
    pub fn new(pattern: &str, size: ByteCount) -> Result<Self, PatternError> {
        Ok(Self { names: Pattern::parse(pattern)?.expand()?, size })
    }

    /// Compares with a scan's objects, which are in the order of their names.
    pub fn check(&self, objects: &[(ObjectName, Stamp)]) -> SpecReport {
        let mut report = SpecReport::default();
        let mut matched = 0;
        for name in &self.names {
            match objects.binary_search_by(|(candidate, _)| candidate.cmp(name)) {
                Err(_) => report.missing.push(name.clone()),
                Ok(index) => {
                    matched += 1;
                    let found = objects[index].1.size;
                    if found != self.size {
                        report.wrong_size.push((name.clone(), found));
                    }
                }
            }
        }
        report.extra = (objects.len() as u64).saturating_sub(matched);
        report
    }
}

/// What stands between the braces that open at `at`: the range and how many numbers it has.
fn parse_range(text: &str, at: usize) -> Result<(Piece, u64), PatternError> {
    let not_a_range = || PatternError::NotARange { at, text: text.to_owned() };
    let (first, last) = text.split_once("..").ok_or_else(not_a_range)?;
    if ![first, last].iter().all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())) {
        return Err(not_a_range());
    }
    let is_padded = |number: &str| number.len() > 1 && number.starts_with('0');
    let width = if is_padded(first) || is_padded(last) { first.len().max(last.len()) } else { 0 };
    let number =
        |text: &str, at| text.parse::<u64>().map_err(|_| PatternError::NumberTooLarge { at, text: text.to_owned() });
    let (first, last) = (number(first, at + 1)?, number(last, at + 1 + first.len() + 2)?);
    if first > last {
        return Err(PatternError::Descending { at, text: text.to_owned() });
    }
    let members = (last - first).checked_add(1).ok_or(PatternError::TooMany)?;
    Ok((Piece::Range { first, last, width }, members))
}

/// Appends every name that begins with `text` and goes on with `pieces`. Its depth is the number of pieces.
fn expand_into(pieces: &[Piece], text: &mut String, names: &mut Vec<ObjectName>) -> Result<(), PatternError> {
    let Some((piece, rest)) = pieces.split_first() else {
        let name = ObjectName::new(text.as_bytes())
            .map_err(Refusal::from)
            .and_then(|name| check_name(&name).map(|()| name))
            .map_err(|reason| PatternError::Name { name: text.clone(), reason })?;
        names.push(name);
        return Ok(());
    };
    let length = text.len();
    match piece {
        Piece::Text(piece) => {
            text.push_str(piece);
            expand_into(rest, text, names)?;
        }
        Piece::Range { first, last, width } => {
            for number in *first..=*last {
                text.push_str(&format!("{number:0width$}"));
                expand_into(rest, text, names)?;
                text.truncate(length);
            }
        }
    }
    text.truncate(length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ObjectName {
        ObjectName::new(text.as_bytes()).expect("valid")
    }

    #[test]
    fn patterns_expand_first_range_outermost() {
        let check = |pattern: &str, expected: &[&str]| {
            let parsed = Pattern::parse(pattern).expect(pattern);
            let names = parsed.expand().expect(pattern);
            assert_eq!(names, expected.iter().map(|text| name(text)).collect::<Vec<_>>(), "{pattern}");
            assert_eq!(parsed.count(), expected.len(), "{pattern}");
        };
        check("plain", &["plain"]);
        check("a{1..3}", &["a1", "a2", "a3"]);
        check("{7..7}", &["7"]);
        check("s{1..2}_{9..11}", &["s1_9", "s1_10", "s1_11", "s2_9", "s2_10", "s2_11"]);
        check("{08..11}", &["08", "09", "10", "11"]);
        check("{8..011}", &["008", "009", "010", "011"]);
        check("{0..2}", &["0", "1", "2"]);
        check("d{1..2}/x.bin", &["d1/x.bin", "d2/x.bin"]);
        check("é{1..1}ü", &["é1ü"]);
        check("{18446744073709551615..18446744073709551615}", &["18446744073709551615"]);
    }

    #[test]
    fn what_is_no_pattern_says_where() {
        let check = |pattern: &str, expected: PatternError| {
            assert_eq!(Pattern::parse(pattern).and_then(|p| p.expand()), Err(expected), "{pattern}");
        };
        let no_range = |at, text: &str| PatternError::NotARange { at, text: text.into() };
        check("", PatternError::Empty);
        check("ab{1..2", PatternError::Unclosed { at: 2 });
        check("ab}", PatternError::Unopened { at: 2 });
        check("{1..2}}", PatternError::Unopened { at: 6 });
        check("a{}", no_range(1, ""));
        check("a{1,2}", no_range(1, "1,2"));
        check("a{1..}", no_range(1, "1.."));
        check("a{-1..2}", no_range(1, "-1..2"));
        check("a{1..2..3}", no_range(1, "1..2..3"));
        check("a{{1..2}}", no_range(1, "{1..2"));
        check("a{ 1..2}", no_range(1, " 1..2"));
        check("a{5..4}", PatternError::Descending { at: 1, text: "5..4".into() });
        let huge = "18446744073709551616";
        check(&format!("a{{1..{huge}}}"), PatternError::NumberTooLarge { at: 5, text: huge.into() });
        check("{0..18446744073709551615}", PatternError::TooMany);
        check("{1..2000}{1..2001}", PatternError::TooMany);
        check("{1..11}{1..11}", PatternError::Twice { name: name("111") });
        check(
            "a//{1..2}",
            PatternError::Name { name: "a//1".into(), reason: Refusal::Name(crate::units::NameError::EmptyComponent) },
        );
        check("{1..2}.success", PatternError::Name { name: "1.success".into(), reason: Refusal::Reserved });
    }

    #[test]
    fn the_seeds_store_has_500_segments_in_natural_order() {
        let spec = SegmentSpec::new("stock{1..10}_{1..50}", ByteCount(24_000_000)).expect("valid");
        assert_eq!(spec.names.len(), 500);
        assert_eq!(spec.names[0], name("stock1_1"));
        assert_eq!(spec.names[49], name("stock1_50"));
        assert_eq!(spec.names[50], name("stock2_1"));
        assert_eq!(spec.names[499], name("stock10_50"));
    }

    #[test]
    fn a_store_is_compared_with_its_specification() {
        let spec = SegmentSpec::new("s{1..3}", ByteCount(10)).expect("valid");
        let of = |size| Stamp { size: ByteCount(size), ..Stamp::default() };
        let whole = [(name("s1"), of(10)), (name("s2"), of(10)), (name("s3"), of(10))];
        assert_eq!(spec.check(&whole), SpecReport::default());
        assert!(spec.check(&whole).is_complete());
        let report = spec.check(&[(name("a"), of(10)), (name("s2"), of(9)), (name("s3"), of(10)), (name("z"), of(1))]);
        assert_eq!(report.missing, [name("s1")]);
        assert_eq!(report.wrong_size, [(name("s2"), ByteCount(9))]);
        assert_eq!(report.extra, 2);
        assert!(!report.is_complete());
    }
}
