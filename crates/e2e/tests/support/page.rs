//! Commands and code in a page of the documentation, to run them exactly as the page shows them.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Stands for any text in a line that a page shows; alone in a line, for any lines.
const ANY: &str = "…";

/// Ends the output of a command.
const MARK: &str = "--- the command has ended ---";

/// How long all commands of a page may take.
const SECONDS: &str = "300";

/// A command that a page shows, with its output.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) command: String,
    shown: Vec<String>,
}

/// The part of a page under a heading, up to the next one of the same depth.
#[track_caller]
pub(crate) fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let depth = heading.split(' ').next().expect("a heading");
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let rest = &page[start + heading.len() + 2..];
    let end = rest.find(&format!("\n{depth} ")).unwrap_or(rest.len());
    &rest[..end]
}

/// The blocks of a language, in their order.
pub(crate) fn blocks<'a>(section: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("\n```{language}\n");
    let starts = section.split(&opening).skip(1);
    starts.map(|rest| rest.split_once("```").expect("the block ends").0).collect()
}

/// The commands of all console blocks. A command goes on in the next line after a backslash, and in lines that
/// begin with `> `.
pub(crate) fn steps(section: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for block in blocks(section, "console") {
        let mut goes_on = false;
        for line in block.lines() {
            let more = if goes_on { Some(line) } else { line.strip_prefix("> ") };
            match (line.strip_prefix("$ "), more, steps.last_mut()) {
                (Some(command), None, _) => {
                    steps.push(Step { command: command.to_owned(), shown: Vec::new() });
                }
                (_, Some(more), Some(step)) => step.command = format!("{}\n{more}", step.command),
                (None, None, Some(step)) => step.shown.push(line.to_owned()),
                _ => panic!("no command before {line}"),
            }
            goes_on = (line.starts_with("$ ") || more.is_some()) && line.ends_with('\\');
        }
    }
    steps
}

/// Runs commands one after the other in one shell, as a reader does, and compares what each prints with what the
/// page shows. What they leave running is killed at the end.
#[track_caller]
pub(crate) fn run(steps: &[Step], folder: &Path, environment: &[(&str, &str)]) {
    let commands =
        steps.iter().map(|step| format!("{{ {}\n}} 2>&1\necho\necho {MARK}\n", step.command));
    let script: String = commands.collect();
    let mut shell = Command::new("timeout");
    shell.args(["--kill-after=5", SECONDS, "bash", "-c", &script]).current_dir(folder);
    shell.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut shell = shell.process_group(0).spawn().expect("bash");
    let mut output = String::new();
    let read = shell.stdout.take().expect("a pipe").read_to_string(&mut output);
    _ = Command::new("kill").args(["-s", "KILL", "--", &format!("-{}", shell.id())]).status();
    shell.wait().expect("it has ended");
    read.expect("text");
    let end = format!("\n{MARK}\n");
    let mut outputs = output.split(&end);
    for step in steps {
        let output = outputs.next().unwrap_or_default();
        assert!(step.shows(output), "{}\nprints\n{output}", step.command);
    }
    assert_eq!(outputs.next(), Some(""), "all commands have ended");
}

impl Step {
    /// Whether this is the output.
    fn shows(&self, output: &str) -> bool {
        let shown: Vec<&str> = self.shown.iter().map(String::as_str).collect();
        are_lines(&shown, &Vec::from_iter(output.lines()))
    }
}

fn are_lines(shown: &[&str], lines: &[&str]) -> bool {
    match (shown.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((&ANY, rest)), next) => {
            are_lines(rest, lines) || next.is_some_and(|(_, lines)| are_lines(shown, lines))
        }
        (Some((first, rest)), Some((line, lines))) => {
            is_line(first, line) && are_lines(rest, lines)
        }
        _ => false,
    }
}

fn is_line(shown: &str, line: &str) -> bool {
    let mut parts = shown.split(ANY);
    let Some(mut rest) = parts.next().and_then(|start| line.strip_prefix(start)) else {
        return false;
    };
    let mut parts = Vec::from_iter(parts);
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
