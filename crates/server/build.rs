//! Lists the files of the npm package that `make js` built for the page.

#![allow(clippy::print_stdout, reason = "a build script talks to cargo by printing")]
#![allow(clippy::disallowed_methods, reason = "a build script is an edge")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn main() {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let package = variable("CARGO_MANIFEST_DIR").join("../../target/js");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", package.display());
    let written =
        list(&package).and_then(|text| fs::write(variable("OUT_DIR").join("package.rs"), text));
    if let Err(error) = written {
        println!("cargo::error={}: {error}", package.display());
    }
}

/// The files that a browser loads, as a slice of paths and contents. The server also builds without the package: the
/// list is empty then.
fn list(package: &Path) -> io::Result<String> {
    fs::create_dir_all(package)?;
    let mut files = Vec::new();
    add_files(package, &mut files)?;
    files.sort();
    let mut text = "&[\n".to_owned();
    for file in files {
        let name = file.strip_prefix(package).unwrap_or(&file);
        text += &format!("    ({:?}, include_bytes!({:?})),\n", name.display().to_string(), file);
    }
    Ok(text + "]\n")
}

fn add_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_for_node = path.file_name().is_some_and(|name| name == "node");
        if path.is_dir() && !is_for_node {
            add_files(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "js" || end == "wasm") {
            files.push(path);
        }
    }
    Ok(())
}
