//! The `vkey` command; [`vkey_cli`] is all of it, but for the modules that are built in.

#![allow(unsafe_code)]

use std::process::ExitCode;

use vkey_vm::{BuiltIn, Precompiled};

/// The modules, as `make build` compiles them ahead of time.
// SAFETY: the files are written by `precompile` alone, or empty.
const MODULES: BuiltIn = unsafe {
    BuiltIn {
        module: Precompiled::new(include_bytes!(env!("VKEY_MODULE"))),
        nginx: Precompiled::new(include_bytes!(env!("VKEY_NGINX_MODULE"))),
    }
};

fn main() -> ExitCode {
    vkey_cli::main(MODULES)
}
