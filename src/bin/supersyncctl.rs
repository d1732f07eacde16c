//! The operator's hand on a running daemon: see [`supersync::control::ctl`].

use std::process::ExitCode;

fn main() -> ExitCode {
    supersync::control::ctl::main(std::env::args_os())
}
