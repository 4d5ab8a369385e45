//! Checks the upstream-TLS policy with the library's own parser before it is compiled in.

#![allow(clippy::print_stdout, reason = "a build script talks to cargo by printing")]
#![allow(clippy::disallowed_methods, reason = "a build script is an edge")]

use std::path::Path;
use std::process::ExitCode;

use vkey::json::line;
use vkey::upstream_tls::Policy;

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=POLICY");
    let given = std::env::var("POLICY").ok().filter(|path| !path.is_empty());
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let path = match given {
        Some(path) => Path::new(&root).join("../..").join(path),
        None => Path::new(&root).join("upstream-tls.json"),
    };
    println!("cargo::rerun-if-changed={}", path.display());
    println!("cargo::rustc-env=VKEY_UPSTREAM_TLS_POLICY={}", path.display());
    match check(&path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error=upstream TLS policy {}{error}", path.display());
            ExitCode::FAILURE
        }
    }
}

/// The error begins where in the file it is.
fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read(path).map_err(|error| format!(": {error}"))?;
    let refused = |invalid| format!(":{}: {invalid}", line(&text, &invalid));
    Policy::parse(&text).map(drop).map_err(refused)
}
