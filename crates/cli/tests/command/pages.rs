//! What the pages show is what the command does.

use std::fs;
use std::path::Path;

use crate::harness::{Gate, root};
use crate::page::{run, section, steps};

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).expect("a page")
}

/// The variable `PATH`, with the command in front.
fn search_path() -> String {
    let command = Path::new(env!("CARGO_BIN_EXE_vkey")).parent().expect("a directory");
    format!("{}:{}", command.display(), std::env::var("PATH").expect("text"))
}

#[test]
fn the_page_of_mcp_leads_to_a_refused_call() {
    let dir = Gate::new().dir;
    let folder = dir.file("mcp");
    fs::create_dir(&folder).expect("ours");
    for entry in fs::read_dir(root().join("examples/mcp")).expect("a directory") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), folder.join(entry.file_name())).expect("writable");
    }
    let page = page("mcp.md");
    let section = section(&page, "## In five minutes");
    let config = fs::read_to_string(folder.join("config.json")).expect("text");
    assert!(section.contains(&format!("```json\n{config}```")));
    let mut steps = steps(section);
    assert_eq!(steps.remove(0).command, "cd examples/mcp");
    assert!(steps.len() > 6, "{steps:?}");
    run(&steps, &folder, &[("PATH", &search_path())]);
}
