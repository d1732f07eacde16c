//! The service: see [`supersync::daemon`].

use std::process::ExitCode;

fn main() -> ExitCode {
    supersync::daemon::main(std::env::args_os())
}
