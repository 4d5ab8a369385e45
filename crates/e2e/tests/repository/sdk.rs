//! The proxy-wasm SDK, of which the module uses the traits and the types, and no host call.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::text;

fn sdk() -> PathBuf {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(crate::root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let sdk = packages.iter().find(|package| package["name"] == "proxy-wasm").unwrap();
    PathBuf::from(sdk["manifest_path"].as_str().unwrap()).with_file_name("src")
}

fn name_of(declaration: &str) -> &str {
    let end = declaration.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &declaration[..end.unwrap()]
}

/// Its host calls as functions, and the methods of contexts that make one.
fn host_calls() -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    for line in fs::read_to_string(sdk().join("hostcalls.rs")).unwrap().lines() {
        if let Some(function) = line.strip_prefix("pub fn ") {
            calls.insert(format!("proxy_wasm::hostcalls::{}", name_of(function)));
        }
    }
    let (mut of, mut method) = (String::new(), String::new());
    for line in fs::read_to_string(sdk().join("traits.rs")).unwrap().lines() {
        if let Some(name) = line.strip_prefix("pub trait ") {
            name_of(name).clone_into(&mut of);
        } else if let Some(name) = line.strip_prefix("    fn ") {
            name_of(name).clone_into(&mut method);
        } else if line.contains("hostcalls::") && !line.starts_with("use ") {
            calls.insert(format!("proxy_wasm::traits::{of}::{method}"));
        }
    }
    calls
}

/// The paths in a `clippy.toml`.
fn disallowed(file: &str) -> BTreeSet<String> {
    let text = text(file);
    let entries = text.lines().map(|line| line.trim().trim_start_matches("{ path = "));
    entries.filter_map(|line| Some(line.strip_prefix('"')?.split_once('"')?.0.to_owned())).collect()
}

#[test]
fn the_module_may_make_no_host_call_of_the_sdk() {
    let calls = host_calls();
    assert!(calls.len() > 120, "{calls:#?}");
    let forbidden = disallowed("filters/vkey/clippy.toml");
    let missing: Vec<_> = calls.difference(&forbidden).collect();
    assert!(missing.is_empty(), "filters/vkey/clippy.toml lacks {missing:#?}");
    let gone: Vec<_> = forbidden
        .iter()
        .filter(|path| path.starts_with("proxy_wasm::") && *path != "proxy_wasm::set_log_level")
        .filter(|path| !calls.contains(*path))
        .collect();
    assert!(gone.is_empty(), "the SDK has no {gone:#?}");
}

/// Clippy reads one file for a package.
#[test]
fn what_the_workspace_forbids_the_module_forbids_too() {
    let workspace = disallowed("clippy.toml");
    assert!(!workspace.is_empty());
    assert!(workspace.is_subset(&disallowed("filters/vkey/clippy.toml")));
}
