//! The `vkey` command; [`vkey::cli`] is all of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    vkey::cli::main()
}
