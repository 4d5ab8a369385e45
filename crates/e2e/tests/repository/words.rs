//! Phrases that CONTRIBUTING.md replaces do not come back.

use std::fs;
use std::path::{Path, PathBuf};

use crate::root;

/// Phrases that are never right here. Those that are right somewhere are left to the reader.
const BANNED: [&str; 9] = [
    "Takes down", "be it to", "is none's", "so many", "tell of", "tells of", "that is none",
    "what is none", "whoever asks",
];

const FOLDERS: [&str; 7] = ["src", "crates", "filters", "docs", "tests", "benches", "examples"];

#[test]
fn banned_phrases_occur_nowhere() {
    let mut files: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "CHANGELOG.md"].map(|file| root().join(file)).into();
    FOLDERS.iter().for_each(|folder| find(&root().join(folder), &mut files));
    files.retain(|file| !file.ends_with("words.rs"));
    assert!(files.len() > 100, "{} files", files.len());
    let found = files.iter().flat_map(|file| {
        let text = fs::read_to_string(file).unwrap();
        banned(&text).into_iter().map(|phrase| format!("{}: {phrase:?}", file.display()))
    });
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "see the list of words in CONTRIBUTING.md\n{}", found.join("\n"));
}

#[test]
fn a_banned_phrase_is_found_across_lines() {
    assert_eq!(banned("    /// Takes\n    /// down a verdict, so\n// many times.\n").len(), 2);
    assert!(banned("One trap takes down every stream.\n/// So\nfn many() {}\n").is_empty());
}

/// The banned phrases of a text, wherever its lines break.
fn banned(text: &str) -> Vec<&'static str> {
    let words = text.lines().flat_map(|line| {
        let line = line.trim_start();
        let comment = ["//!", "///", "//"].into_iter().find_map(|mark| line.strip_prefix(mark));
        comment.unwrap_or(line).split_whitespace()
    });
    let text = Vec::from_iter(words).join(" ");
    BANNED.into_iter().filter(|phrase| text.contains(phrase)).collect()
}

/// The sources and pages below a folder. A folder that does not exist has none.
fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
            files.push(path);
        }
    }
}
