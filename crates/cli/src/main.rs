//! The `vkey` command: [`vkey_cli`] with the built-in modules.

#![allow(unsafe_code)]

use std::process::ExitCode;

use vkey_vm::{BuiltIn, Precompiled};

/// The modules that `make build` compiled ahead of time.
// SAFETY: the files are empty, or written by `precompile`.
const MODULES: BuiltIn = unsafe {
    BuiltIn {
        module: Precompiled::new(include_bytes!(env!("VKEY_MODULE"))),
        nginx: Precompiled::new(include_bytes!(env!("VKEY_NGINX_MODULE"))),
    }
};

fn main() -> ExitCode {
    vkey_cli::main(MODULES)
}
