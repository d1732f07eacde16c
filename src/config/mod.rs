//! Raw TOML -> validated [`Config`]: a config that exists is valid.
//!
//! Three layers, each of which names everything that it finds wrong at once, with line, caret and what to do:
//! syntax (is it TOML), meaning (are these the keys, do the values fit each other), and environment (does this
//! host have the directories, addresses and rights). [`parse`] and [`load`] do the first two and touch nothing but
//! the file itself; [`check_environment`] does the third, and only looks.
//!
//! A reload parses the file again and makes the running config what [`reloaded`] says; the [`diff()`] to the old one is
//! what was applied, that to the new one what needs a restart. A file that does not parse, or of which this host lacks
//! what would be applied ([`check_reload`]), changes nothing.

mod diff;
mod effective;
mod environment;
mod error;
#[cfg(test)]
mod manual;
mod meaning;
mod model;
mod read;
mod template;
mod value;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::de::DeTable;

pub use diff::{Change, diff, reloaded};
pub use environment::{Finding, Severity, check_environment, check_modules, check_reload};
pub use error::{ConfigError, Place, Problem, Problems};
pub use model::{
    Cidr, CidrError, Config, Control, Delete, EngineChoice, Exchange, HttpAddress, LinkAddress, Listen, Module, Peer,
    Protocol, Remote, Role, RoleConfig, Segments, Spool, StoreConfig, Trader,
};
pub use template::template;

use crate::limits;

/// Reads and checks the config at `path`.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(read_error)?;
    file.take(limits::CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > limits::CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLong { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| ConfigError::NotText { path: path.to_owned(), offset: error.utf8_error().valid_up_to() })?;
    parse(&text, &path.display().to_string())
}

/// Checks `text`; `origin` is where it came from, for messages.
pub fn parse(text: &str, origin: &str) -> Result<Config, ConfigError> {
    let mut report = error::Report::new(text, origin);
    let (document, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        for error in syntax {
            report.add(error.span(), error.message(), "this is not TOML (https://toml.io)");
        }
        let problems = report.into_problems().expect("each syntax error was added");
        return Err(ConfigError::Syntax(problems));
    }
    let config = meaning::config(&document, &mut report);
    match (config, report.into_problems()) {
        (_, Some(problems)) => Err(ConfigError::Meaning(problems)),
        (config, None) => Ok(config.expect("whatever keeps a config from being made is in the report")),
    }
}
