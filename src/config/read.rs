//! Typed access to a TOML document that notes what is wrong and goes on.
//!
//! Owns no knowledge of what a config means. A [`Section`] is opened with the keys it may have; a [`Field`] is
//! absent, refused (and then already in the report), or a value with its place.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Report;

/// A place in the text, in bytes.
pub(super) type Span = Range<usize>;

/// Why a value is refused, and what to write instead.
pub(super) struct Refusal {
    pub(super) what: String,
    pub(super) fix: String,
}

impl Refusal {
    pub(super) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }
}

/// What a key holds.
pub(super) enum Field<T> {
    Absent,
    /// The report says why.
    Refused,
    Is(T, Span),
}

impl<T> Field<T> {
    /// The value, or `default` where the key is absent; `None` where it was refused.
    pub(super) fn or(self, default: T) -> Option<T> {
        self.or_else(|| Some(default))
    }

    /// The value, or what `default` gives where the key is absent; `None` where it was refused.
    pub(super) fn or_else(self, default: impl FnOnce() -> Option<T>) -> Option<T> {
        match self {
            Self::Absent => default(),
            Self::Refused => None,
            Self::Is(value, _) => Some(value),
        }
    }

    /// `Some(None)` where the key is absent, `None` where it was refused.
    pub(super) fn optional(self) -> Option<Option<T>> {
        match self {
            Self::Absent => Some(None),
            Self::Refused => None,
            Self::Is(value, _) => Some(Some(value)),
        }
    }

    /// Goes on with a value that is there; where `next` refuses it, the report says so of the key `name`.
    pub(super) fn then<U>(
        self,
        name: &str,
        report: &mut Report<'_>,
        next: impl FnOnce(T) -> Result<U, Refusal>,
    ) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Refused => Field::Refused,
            Self::Is(value, span) => match next(value) {
                Ok(value) => Field::Is(value, span),
                Err(refusal) => {
                    report.add(Some(span), format!("`{name}`: {}", refusal.what), refusal.fix);
                    Field::Refused
                }
            },
        }
    }
}

/// A key that a section may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
}

/// A table of the document.
pub(super) struct Section<'t> {
    table: &'t DeTable<'t>,
    /// What it is called in messages; empty for the document itself.
    path: String,
    place: Option<Span>,
}

impl<'t> Section<'t> {
    /// The document itself, with `keys` as in [`Section::open`].
    pub(super) fn root(table: &'t DeTable<'t>, keys: &[Key], report: &mut Report<'_>) -> Self {
        Self::open(table, String::new(), None, "", keys, report)
    }

    /// A table called `path`, whose keys are those of `keys` that belong to `section`; others are noted, with what
    /// was probably meant.
    fn open(
        table: &'t DeTable<'t>,
        path: String,
        place: Option<Span>,
        section: &str,
        keys: &[Key],
        report: &mut Report<'_>,
    ) -> Self {
        for (key, _) in table.iter() {
            if !keys.iter().any(|known| known.section == section && known.name == key.get_ref().as_ref()) {
                let within = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
                let shown = shown(key.get_ref());
                report.add(
                    Some(key.span()),
                    format!("unknown key `{shown}`{within}"),
                    advice(key.get_ref(), section, keys),
                );
            }
        }
        Self { table, path, place }
    }

    /// What `key` of this section is called in messages.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The place of a key itself.
    pub(super) fn key_span(&self, key: &str) -> Option<Span> {
        self.table.get_key_value(key).map(|(key, _)| key.span())
    }

    /// Notes that `key` is missing.
    pub(super) fn missing(&self, key: &str, report: &mut Report<'_>, fix: &str) {
        report.add(self.place.clone(), format!("`{}` is missing", self.name(key)), fix);
    }

    /// The value, noting where the key is absent.
    pub(super) fn required<T>(&self, key: &str, field: Field<T>, report: &mut Report<'_>, fix: &str) -> Option<T> {
        if matches!(field, Field::Absent) {
            self.missing(key, report, fix);
        }
        match field {
            Field::Is(value, _) => Some(value),
            Field::Absent | Field::Refused => None,
        }
    }

    /// The value as it is in the document.
    pub(super) fn value(&self, key: &str) -> Field<&'t DeValue<'t>> {
        match self.table.get(key) {
            Some(value) => Field::Is(value.get_ref(), value.span()),
            None => Field::Absent,
        }
    }

    /// A string.
    pub(super) fn text(&self, key: &str, report: &mut Report<'_>) -> Field<&'t str> {
        self.value(key).then(&self.name(key), report, text)
    }

    /// A string that `parse` makes into something else.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        report: &mut Report<'_>,
        parse: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Field<T> {
        self.text(key, report).then(&self.name(key), report, parse)
    }

    /// An integer that is not negative.
    pub(super) fn integer(&self, key: &str, report: &mut Report<'_>) -> Field<u64> {
        self.value(key).then(&self.name(key), report, integer)
    }

    /// True or false.
    pub(super) fn boolean(&self, key: &str, report: &mut Report<'_>) -> Field<bool> {
        self.value(key).then(&self.name(key), report, boolean)
    }

    /// An array of strings with the place of each and of the whole; those that are not strings are noted and left out.
    pub(super) fn texts(&self, key: &str, report: &mut Report<'_>) -> Field<Vec<(&'t str, Span)>> {
        let name = self.name(key);
        let array = self.value(key).then(&name, report, |value| match value {
            DeValue::Array(array) => Ok(array),
            other => Err(unexpected("an array of strings", other)),
        });
        let (array, span) = match array {
            Field::Is(array, span) => (array, span),
            Field::Absent => return Field::Absent,
            Field::Refused => return Field::Refused,
        };
        let mut texts = Vec::with_capacity(array.len());
        for (index, item) in array.iter().enumerate() {
            let item = Field::Is(item.get_ref(), item.span());
            if let Field::Is(text, span) = item.then(&format!("{name}[{index}]"), report, text) {
                texts.push((text, span));
            }
        }
        if texts.len() == array.len() { Field::Is(texts, span) } else { Field::Refused }
    }

    /// The table under `key`.
    pub(super) fn table(&self, key: &'static str, keys: &[Key], report: &mut Report<'_>) -> Field<Section<'t>> {
        let name = self.name(key);
        let table = self.value(key).then(&name, report, |value| match value {
            DeValue::Table(table) => Ok(table),
            DeValue::Array(_) => Err(Refusal::new("there can be only one", format!("write it as [{name}]"))),
            other => Err(unexpected("a table", other)),
        });
        match table {
            Field::Absent => Field::Absent,
            Field::Refused => Field::Refused,
            Field::Is(table, span) => {
                Field::Is(Section::open(table, name, Some(span.clone()), key, keys, report), span)
            }
        }
    }

    /// The tables under `key`, each opened with `[[key]]`.
    pub(super) fn tables(&self, key: &'static str, keys: &[Key], report: &mut Report<'_>) -> Field<Vec<Section<'t>>> {
        let name = self.name(key);
        let wanted = format!("write each of them as [[{name}]]");
        let array = self.value(key).then(&name, report, |value| match value {
            DeValue::Array(array) => Ok(array),
            _ => Err(Refusal::new("there can be several of them, and this is not a list", wanted.clone())),
        });
        let (array, span) = match array {
            Field::Is(array, span) => (array, span),
            Field::Absent => return Field::Absent,
            Field::Refused => return Field::Refused,
        };
        let mut sections = Vec::with_capacity(array.len());
        for (index, item) in array.iter().enumerate() {
            let path = format!("{name}[{index}]");
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section::open(table, path, Some(item.span()), key, keys, report));
                }
                other => {
                    let refusal = unexpected("a table", other);
                    report.add(Some(item.span()), format!("`{path}`: {}", refusal.what), wanted.clone());
                }
            }
        }
        if sections.len() == array.len() { Field::Is(sections, span) } else { Field::Refused }
    }

    /// Where the section starts.
    pub(super) fn place(&self) -> Option<Span> {
        self.place.clone()
    }
}

/// A string.
pub(super) fn text<'t>(value: &'t DeValue<'t>) -> Result<&'t str, Refusal> {
    value.as_str().ok_or_else(|| unexpected("a string", value))
}

/// True or false.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Refusal> {
    value.as_bool().ok_or_else(|| unexpected("true or false", value))
}

/// An integer that is not negative.
pub(super) fn integer(value: &DeValue<'_>) -> Result<u64, Refusal> {
    let DeValue::Integer(digits) = value else { return Err(unexpected("an integer", value)) };
    let number = i64::from_str_radix(digits.as_str(), digits.radix());
    let number =
        number.map_err(|_| Refusal::new(format!("{digits} does not fit into 64 bits"), "write a smaller number"))?;
    u64::try_from(number).map_err(|_| Refusal::new(format!("{number} is negative"), "write a positive number"))
}

/// A text from the document as it may be printed: without control characters, and not endless.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    let mut out: String =
        text.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

/// A choice that is the nearest to `text`, if any is near.
pub(super) fn nearest<'c>(text: &str, choices: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    // Nobody mistypes a key at this length, and the distance costs the product of both lengths.
    const MISTYPED_BYTES_MAX: usize = 64;
    if text.len() > MISTYPED_BYTES_MAX {
        return None;
    }
    let plain = text.to_ascii_lowercase().replace('-', "_");
    let distances = choices.map(|choice| (strsim::damerau_levenshtein(&plain, choice), choice));
    let (distance, choice) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= choice.len().max(3) / 3).then_some(choice)
}

fn unexpected(wanted: &str, value: &DeValue<'_>) -> Refusal {
    let article = if value.type_str().starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    Refusal::new(format!("this is {article} {}", value.type_str()), format!("{wanted} belongs here"))
}

/// What to do about a key that `section` does not have.
fn advice(key: &str, section: &str, keys: &[Key]) -> String {
    let own = || keys.iter().filter(|known| known.section == section).map(|known| known.name);
    if let Some(key) = nearest(key, own()) {
        return format!("did you mean `{key}`?");
    }
    match keys.iter().find(|known| known.name == key).map(|known| known.section) {
        Some("") => format!("`{key}` belongs at the top, before the first [section]"),
        Some(elsewhere) => format!("`{key}` belongs in `{elsewhere}`"),
        None => format!("remove it; known here: {}", own().collect::<Vec<_>>().join(", ")),
    }
}

/// What the parser hands out.
pub(super) type Document<'t> = Spanned<DeTable<'t>>;
