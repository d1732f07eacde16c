//! `--engine` of those commands that move bytes themselves.

use std::io::{self, Write as _};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::CtlError;
use crate::config::EngineChoice;
use crate::uring::DriverKind;

/// What is to move the bytes.
#[derive(Debug, Args)]
pub(super) struct Engine {
    /// What moves the bytes: io_uring where the kernel lets us (auto), io_uring or nothing, or plain system calls
    #[arg(long = "engine", value_name = "ENGINE", default_value = "auto", value_parser = choice())]
    choice: EngineChoice,
}

fn choice() -> impl TypedValueParser<Value = EngineChoice> {
    let of_name = |name: String| EngineChoice::NAMED.into_iter().find(|(known, _)| *known == name);
    let names = PossibleValuesParser::new(EngineChoice::NAMED.map(|(name, _)| name));
    names.map(move |name| of_name(name).expect("the parser lets no other through").1)
}

impl Engine {
    /// What it comes to on this host. That it is not what it could be is said once, unless it is to be `quiet`.
    pub(super) fn driver(&self, quiet: bool) -> Result<DriverKind, CtlError> {
        let (driver, missed) = self.choice.driver()?;
        if let Some(why) = missed.filter(|_| !quiet) {
            // Nobody may be reading; the work is done all the same.
            let _ = writeln!(io::stderr(), "supersyncctl: goes on by plain system calls, without io_uring: {why}");
        }
        Ok(driver)
    }
}
