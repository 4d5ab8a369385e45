//! Finds the upstream-TLS policy that is compiled in; the module's own build script checks it.

#![allow(clippy::print_stdout, reason = "a build script talks to cargo by printing")]
#![allow(clippy::disallowed_methods, reason = "a build script is an edge")]

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=POLICY");
    let policy = std::env::var("POLICY").ok().filter(|path| !path.is_empty());
    let policy = policy.unwrap_or_else(|| "filters/vkey/upstream-tls.json".to_owned());
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let policy = Path::new(&root).join(policy);
    println!("cargo::rerun-if-changed={}", policy.display());
    println!("cargo::rustc-env=VKEY_UPSTREAM_TLS_POLICY={}", policy.display());
}
