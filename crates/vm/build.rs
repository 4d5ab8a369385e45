//! Names the machine that modules are compiled for.

#![allow(clippy::print_stdout, reason = "a build script talks to cargo by printing")]
#![allow(clippy::disallowed_methods, reason = "a build script is an edge")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=VKEY_TARGET={}", std::env::var("TARGET").unwrap_or_default());
}
