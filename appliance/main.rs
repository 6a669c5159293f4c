//! The `phalanx` command: see [`phalanx_control::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    phalanx_control::cli::main(env!("PHALANX_VERSION"))
}
