//! `supersyncd init`: a commented config to start from. Never overwrites a file.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::{DaemonError, answer};
use crate::config::{Role, template};
use crate::exit;

/// What the node is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Template {
    /// Has objects and wants the other trader's; listens
    Trader,
    /// Relays between two traders; dials both
    Exchange,
}

impl From<Template> for Role {
    fn from(template: Template) -> Self {
        match template {
            Template::Trader => Self::Trader,
            Template::Exchange => Self::Exchange,
        }
    }
}

pub(super) fn run(role: Template, output: Option<&Path>) -> Result<u8, DaemonError> {
    let text = template(role.into());
    let Some(file) = output else {
        answer(text)?;
        return Ok(exit::OK);
    };
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::AlreadyExists => DaemonError::Exists(file.to_owned()),
        _ => DaemonError::Write { file: file.to_owned(), source },
    };
    let mut created = OpenOptions::new().write(true).create_new(true).open(file).map_err(failed)?;
    created.write_all(text.as_bytes()).map_err(failed)?;
    let shown = file.display();
    answer(&format!("{shown}: written; edit it, then check it with `supersyncd check {shown}`\n"))?;
    Ok(exit::OK)
}
