//! The operator's hand on a running daemon: see [`supersync::ctl`].

use std::process::ExitCode;

fn main() -> ExitCode {
    supersync::ctl::main(std::env::args_os())
}
