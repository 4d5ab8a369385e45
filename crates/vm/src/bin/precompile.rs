//! `precompile MODULE OUTPUT`: compiles a wasm module for the embedded host, ahead of time.

#![allow(clippy::print_stderr, reason = "a tool of the build reports on its own")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use vkey_vm::precompile;

fn main() -> ExitCode {
    let done = match &env::args_os().skip(1).map(PathBuf::from).collect::<Vec<_>>()[..] {
        [module, output] => compile(module, output),
        _ => Err("usage: precompile MODULE OUTPUT".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("precompile: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The output appears whole or not at all.
fn compile(module: &PathBuf, output: &PathBuf) -> Result<(), String> {
    let failed = |path: &PathBuf| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    let wasm = fs::read(module).map_err(failed(module))?;
    let code = precompile(&wasm).map_err(|error| format!("{}: {error}", module.display()))?;
    let new = output.with_extension("new");
    fs::write(&new, code).and_then(|()| fs::rename(&new, output)).map_err(failed(output))
}
