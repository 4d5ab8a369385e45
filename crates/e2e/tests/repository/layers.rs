//! The rooms of the library are in an order, and each knows only those before it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use crate::{root, text};

/// The rooms, lowest first. A room that is not here fails the test: it is to be put where it belongs.
const ROOMS: [&str; 24] = [
    "bytes", "time", "digest", "json", "record", "glob", "body", "decision", "alerts", "limits",
    "access", "key", "ledger", "issuing", "headers", "audit", "reply", "upstream_tls", "host",
    "config", "usage", "engine", "exchange", "gate",
];

/// The packages whose sources are read: the library, the embedded host, the server and the command.
const LIBRARY: &str = "src";
const HOST: &str = "crates/vm/src";
const SERVER: &str = "crates/server/src";
const COMMAND: &str = "crates/cli/src";

/// What a function of its arguments has no use for.
const IMPURE: [&str; 5] = ["std::env", "std::fs", "std::process", "std::thread", "env!"];

/// A source file: its room, its module path, and the paths that it names outside of tests.
struct Source {
    file: PathBuf,
    module: Vec<String>,
    paths: Vec<Vec<String>>,
    /// Its text, without tests and comments.
    code: String,
}

#[test]
fn no_room_knows_a_later_one() {
    let problems = upward(&sources(LIBRARY));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The table of `docs/architecture.md` has the rooms in their order.
#[test]
fn the_rooms_are_documented_in_their_order() {
    let page = text("docs/architecture.md");
    let table = page.split("| room |").nth(1).unwrap().split("\n\n").next().unwrap();
    let cells = table.lines().filter_map(|row| row.strip_prefix("| `")?.split(" |").next());
    let documented: Vec<&str> = cells
        .flat_map(|cell| cell.split('`').filter(|name| name.chars().any(char::is_alphabetic)))
        .collect();
    assert_eq!(documented, ROOMS);
}

/// A change of the policy of upstreams rebuilds the module and the command, and nothing else.
#[test]
fn the_library_is_pure_and_built_in_one_way() {
    let manifest = text("Cargo.toml");
    assert!(!manifest.contains("[features]") && !manifest.contains("build ="));
    assert!(!root().join("build.rs").exists());
    for source in sources(LIBRARY) {
        let impure = IMPURE.iter().find(|name| source.code.contains(**name));
        assert_eq!(impure, None, "{}", source.file.display());
    }
}

#[test]
fn an_arrow_upwards_is_noticed() {
    let problems = upward(&[source("limits/tally.rs", "use crate::engine::Engine;\n")]);
    assert_eq!(problems, ["limits/tally.rs: limits is below engine"]);
    let problems = upward(&[source("limits/tally.rs", "fn f() -> crate::gate::Gate {}\n")]);
    assert_eq!(problems, ["limits/tally.rs: limits is below gate"]);
    let in_tests = "#[cfg(test)]\nmod tests {\n    use crate::engine::Engine;\n}\n";
    assert!(upward(&[source("limits/tally.rs", in_tests)]).is_empty());
    assert_eq!(
        upward(&[source("attic.rs", "")]),
        ["attic.rs: attic is no room of crates/e2e/tests/repository/layers.rs"]
    );
}

#[test]
fn no_files_of_a_folder_know_each_other() {
    // The rooms of the library are in an order already.
    let mut problems = circles(&sources(LIBRARY), 1);
    for package in [HOST, SERVER, COMMAND] {
        problems.extend(circles(&sources(package), 0));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_circle_is_noticed() {
    let there = source("limits/tally.rs", "use super::cell::Cell;\n");
    let back = source("limits/cell.rs", "use crate::limits::tally::Tally;\n");
    assert_eq!(circles(&[there, back], 1), ["limits: cell -> tally -> cell"]);
    let there = source("limits/tally.rs", "use super::{quota, cell::{Cell, self}};\n");
    let back = source("limits/cell.rs", "use crate::{limits::{tally}, time};\n");
    assert_eq!(circles(&[there, back], 1), ["limits: cell -> tally -> cell"]);
}

fn upward(sources: &[Source]) -> Vec<String> {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut problems = Vec::new();
    for Source { file, module, paths, .. } in sources {
        let room = &module[0];
        if room == "lib" {
            continue;
        }
        let file = file.display();
        let Some(own) = place(room) else {
            problems.push(format!(
                "{file}: {room} is no room of crates/e2e/tests/repository/layers.rs"
            ));
            continue;
        };
        let known: BTreeSet<&String> = paths.iter().map(|path| &path[0]).collect();
        for other in known {
            if place(other).is_some_and(|other| other > own) {
                problems.push(format!("{file}: {room} is below {other}"));
            }
        }
    }
    problems
}

/// Circles among the files and folders of each folder that is at least so deep. A folder and what is in it are one: it
/// shows what it is made of.
fn circles(sources: &[Source], min_depth: usize) -> Vec<String> {
    let mut folders: BTreeMap<&[String], BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for Source { module, paths, .. } in sources {
        for depth in min_depth..module.len() {
            let (folder, own) = (&module[..depth], module[depth].as_str());
            let known = folders.entry(folder).or_default().entry(own).or_default();
            let siblings = paths.iter().filter(|path| path.starts_with(folder));
            known.extend(siblings.filter_map(|path| path.get(depth)).map(String::as_str));
            known.remove(own);
        }
    }
    let mut problems = Vec::new();
    for (folder, known) in &folders {
        let circle = known.keys().find_map(|start| way(known, start, start, &mut BTreeSet::new()));
        problems.extend(circle.map(|way| format!("{}: {}", folder.join("::"), way.join(" -> "))));
    }
    problems
}

/// A way from one file to another.
fn way<'a>(
    known: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    from: &'a str,
    to: &str,
    seen: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    known.get(from)?.iter().find_map(|next| {
        if *next == to {
            return Some(vec![from, next]);
        }
        let is_new = seen.insert(next);
        let rest = if is_new { way(known, next, to, seen) } else { None };
        rest.map(|rest| [vec![from], rest].concat())
    })
}

fn sources(package: &str) -> Vec<Source> {
    let root = root().join(package);
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
            if name == "tests" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                let file = path.strip_prefix(&root).expect("below src");
                sources.push(source(file.to_str().expect("a name"), &text));
            }
        }
    }
    assert!(sources.len() > 5, "{} sources", sources.len());
    sources
}

fn source(file: &str, text: &str) -> Source {
    let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let module: Vec<String> = module.split('/').map(str::to_owned).collect();
    let is_folder = file.ends_with("mod.rs");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code = lines.collect::<Vec<_>>().join(" ");
    let paths = paths(&code, &module, is_folder);
    Source { file: file.into(), module, paths, code }
}

/// The paths of a text that begin with `crate` or `super`, without that.
fn paths(code: &str, module: &[String], is_folder: bool) -> Vec<Vec<String>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let code = spelled_out(code);
    let words = code.split(|c: char| !is_word(c)).filter(|word| word.contains("::"));
    let parent = if is_folder { module } else { &module[..module.len() - 1] };
    let mut paths = Vec::new();
    for word in words {
        let parts: Vec<String> = word.split("::").map(str::to_owned).collect();
        let (base, rest) = match parts[0].as_str() {
            "crate" => (&module[..0], &parts[1..]),
            "super" if is_folder => (&parent[..parent.len() - 1], &parts[1..]),
            "super" => (parent, &parts[1..]),
            _ => continue,
        };
        let path = [base, rest].concat();
        if !path.is_empty() && !path[0].is_empty() {
            paths.push(path);
        }
    }
    paths
}

/// The text with `a::{b, c}` as `a::b a::c`, outermost braces first.
fn spelled_out(code: &str) -> String {
    let Some((before, rest)) = code.split_once("::{") else {
        return code.to_owned();
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let base = before.rsplit(|c: char| !is_word(c)).next().unwrap_or_default();
    let mut depth = 1;
    let end = rest.find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    let (inside, after) = rest.split_at(end.expect("a brace that closes"));
    let (mut items, mut depth) = (String::new(), 0);
    for c in inside.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match c {
            ',' if depth == 0 => items.push_str(&format!(" {base}::")),
            ' ' => {}
            _ => items.push(c),
        }
    }
    let text = format!("{before}::{} {}", spelled_out(&items), &after[1..]);
    spelled_out(&text)
}
