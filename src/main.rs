//! The `vkey` command; [`vkey::cli`] is all of it, but for the module that is built in.

#![allow(unsafe_code)]

use std::process::ExitCode;

use vkey::vm::Precompiled;

/// The module, as `make build` compiles it ahead of time.
// SAFETY: the file is written by `precompile` alone, or empty.
const MODULE: Precompiled = unsafe { Precompiled::new(include_bytes!(env!("VKEY_MODULE"))) };

fn main() -> ExitCode {
    vkey::cli::main(MODULE)
}
