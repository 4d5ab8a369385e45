//! Finds the upstream-TLS policy to compile in, which the module's own build script checks, and the modules
//! that `make build` compiled for the command.

#![allow(clippy::print_stdout, reason = "a build script talks to cargo by printing")]
#![allow(clippy::disallowed_methods, reason = "a build script is an edge")]

use std::fs::{self, OpenOptions};
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=POLICY");
    let policy = std::env::var("POLICY").ok().filter(|path| !path.is_empty());
    let policy = policy.unwrap_or_else(|| "filters/vkey/upstream-tls.json".to_owned());
    let package = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&package).join("../..");
    let policy = root.join(policy);
    println!("cargo::rerun-if-changed={}", policy.display());
    println!("cargo::rustc-env=VKEY_UPSTREAM_TLS_POLICY={}", policy.display());
    let folder = root.join("target");
    show_module(&folder, "vkey.cwasm", "VKEY_MODULE");
    show_module(&folder, "vkey-nginx.cwasm", "VKEY_NGINX_MODULE");
}

/// The command also builds without the module: it then includes an empty file.
fn show_module(folder: &Path, name: &str, variable: &str) {
    let module = folder.join(name);
    let made = fs::create_dir_all(folder)
        .and_then(|()| OpenOptions::new().create(true).append(true).open(&module));
    if let Err(error) = made {
        println!("cargo::error={}: {error}", module.display());
    }
    println!("cargo::rustc-env={variable}={}", module.display());
}
