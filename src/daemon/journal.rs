//! The log as entries of the journal: a line for people in MESSAGE, and each field of it as SUPERSYNC_FIELD to select
//! by.
//!
//! `journalctl SUPERSYNC_PEER=trader1 SUPERSYNC_LINK=3`. Entries go to the journal's socket, one datagram each
//! (systemd's "Native Journal Protocol"): `KEY`, a line feed, the value's length as 64 bits little-endian, the value, a
//! line feed.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::limits;

const SOCKET: &str = "/run/systemd/journal/socket";

/// A layer that writes to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// Fails where no journal listens.
    pub(super) fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Self { socket })
    }

    /// To a restarted journal it has to be connected again.
    fn send(&self, entry: &[u8]) -> io::Result<usize> {
        self.socket.send(entry).or_else(|_| {
            self.socket.connect(SOCKET)?;
            self.socket.send(entry)
        })
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut of_spans = Vec::new();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(Fields { others, .. }) = span.extensions().get::<Fields>() {
                of_spans.extend_from_slice(others);
            }
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let entry = entry(*event.metadata().level(), &fields, &of_spans);
        if self.send(&entry).is_err() {
            // Standard error is the journal's too; where that is gone as well, there is nowhere left to say so.
            let _ = io::Write::write_all(&mut io::stderr(), format!("{}\n", fields.line()).as_bytes());
        }
    }
}

/// What an event or a span says.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    /// As it is shown to people.
    fn line(&self) -> String {
        let mut line = self.message.clone();
        for (name, value) in &self.others {
            write!(line, " {name}={value}").expect("a String takes all that is written to it");
        }
        line
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.others.push((name, value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// One entry. What an event itself says of a field goes before what its spans say.
fn entry(level: Level, event: &Fields, of_spans: &[(&'static str, String)]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(512);
    put(&mut entry, "PRIORITY", &priority(level).to_string());
    put(&mut entry, "SYSLOG_IDENTIFIER", "supersyncd");
    put(&mut entry, "MESSAGE", &event.line());
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in event.others.iter().chain(of_spans) {
        if !seen.contains(name) {
            put(&mut entry, &format!("SUPERSYNC_{}", name.to_ascii_uppercase().replace('.', "_")), value);
            seen.push(name);
        }
    }
    entry
}

/// Adds a field; of a value that is longer than an entry should be, its beginning.
fn put(entry: &mut Vec<u8>, key: &str, value: &str) {
    let end = (0..=value.len().min(limits::LOG_FIELD_BYTES_MAX)).rev().find(|end| value.is_char_boundary(*end));
    let value = &value[..end.unwrap_or_default()];
    entry.extend_from_slice(key.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// As syslog(3) counts.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// The fields of an entry.
    fn read(mut entry: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
            let key = text(&entry[..end]);
            let (length, rest) = entry[end + 1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
            fields.push((key, text(&rest[..length])));
            assert_eq!(rest[length], b'\n');
            entry = &rest[length + 1..];
        }
        fields
    }

    #[test]
    fn an_entry_has_a_line_for_people_and_each_field_to_select_by() {
        let (socket, journal) = UnixDatagram::pair().expect("a pair");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Journal { socket }), || {
            let _node = tracing::info_span!("node", node = "trader1", link = 9).entered();
            tracing::warn!(link = 3_u64, peer = %"exchange1", "link down: reset\nby peer");
        });
        let mut entry = [0; 4096];
        let length = journal.recv(&mut entry).expect("an entry");
        let expected = [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "supersyncd"),
            ("MESSAGE", "link down: reset\nby peer link=3 peer=exchange1"),
            ("SUPERSYNC_LINK", "3"),
            ("SUPERSYNC_PEER", "exchange1"),
            ("SUPERSYNC_NODE", "trader1"),
        ];
        assert_eq!(read(&entry[..length]), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn an_endless_value_is_cut_between_characters() {
        let mut entry = Vec::new();
        put(&mut entry, "MESSAGE", &"é".repeat(limits::LOG_FIELD_BYTES_MAX));
        assert_eq!(read(&entry)[0].1, "é".repeat(limits::LOG_FIELD_BYTES_MAX / 2));
    }
}
