//! docs/add-to-envoy.md, followed command by command.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::page::{blocks, run, section, steps};
use crate::support::{TempDir, artefact, each_envoy, root, vkey};

fn page() -> String {
    fs::read_to_string(root().join("docs/add-to-envoy.md")).expect("a page")
}

fn example(name: &str) -> PathBuf {
    root().join("examples/add-to-envoy").join(name)
}

fn example_text(name: &str) -> String {
    fs::read_to_string(example(name)).expect("an example")
}

#[test]
fn the_page_shows_exactly_what_changes() {
    for (heading, from, to) in [
        ("## What changes", "before.yaml", "after.yaml"),
        ("## So that you can revoke without a restart", "after.yaml", "after-ecds.yaml"),
    ] {
        assert_eq!(blocks(section(&page(), heading), "diff"), [diff("-u", from, to)]);
    }
}

/// The difference between two examples, without the first two lines, which name the files and their times.
fn diff(format: &str, from: &str, to: &str) -> String {
    let mut diff = Command::new("diff");
    diff.arg(format).args([example(from), example(to)]);
    let diff = String::from_utf8(diff.output().expect("diff").stdout).expect("text");
    diff.splitn(3, '\n').nth(2).expect("a difference").to_owned()
}

/// The example of docs/upstream-tls.md.
#[test]
fn a_credential_without_tls_is_complete() {
    let page = fs::read_to_string(root().join("docs/upstream-tls.md")).expect("a page");
    let shown = blocks(section(&page, "### Credentials without TLS"), "diff");
    assert_eq!(shown, [diff("-U1", "after.yaml", "after-credential.yaml")]);
    let complete = example_text("after-credential.yaml");
    assert!(lint(&complete).is_empty());
    let start = complete.find(",\n                      \"plaintext\"").expect("the exception");
    let end = start + complete[start..].find('}').expect("its end") + 1;
    let granted = r#"[{"name": "local"}]"#;
    for defect in [
        [&complete[..start], &complete[end..]].concat(),
        complete.replace(", LOCAL_MODEL_KEY]", "]"),
        complete.replace(granted, r#"[{"name": "other"}]"#),
    ] {
        assert_ne!(defect, complete);
        assert!(!lint(&defect).is_empty(), "{defect}");
    }
}

/// The step that validates shows what the module logs.
#[test]
fn validation_shows_that_no_ring_is_ready() {
    each_envoy(|envoy| {
        let machine = Machine::new(envoy);
        let page = page();
        let line = page.lines().find(|line| line.starts_with("$ envoy --mode validate"));
        let line = line.expect("the step");
        let shown = "…\n…no ring is ready…\n…\nconfiguration '/etc/envoy/envoy.yaml' OK";
        let copy = "$ mkdir -p /etc/envoy\n$ cp target/vkey.wasm /etc/envoy/vkey.wasm\n\
                    $ cp examples/add-to-envoy/after.yaml /etc/envoy/envoy.yaml";
        let block = format!("\n```console\n{copy}\n{line}\n{shown}\n```\n");
        let steps = steps(&machine.moved(&block));
        run(&steps, machine.dir.path(), &[("PATH", &machine.path())]);
    });
}

/// Nothing that was there is removed or moved.
#[test]
fn every_line_of_the_existing_configuration_stays() {
    let after = example_text("after.yaml");
    let mut after = after.lines();
    for line in example_text("before.yaml").lines() {
        assert!(after.any(|other| other == line), "{line}");
    }
}

/// Ports that were free a moment ago.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// The files and commands of the page, for a machine where other directories and ports are free.
struct Machine {
    dir: TempDir,
    etc: String,
    ports: [u16; 3],
}

impl Machine {
    fn new(envoy: &Path) -> Self {
        let dir = TempDir::new("add_to_envoy");
        let etc = dir.file("etc").to_str().expect("text").to_owned();
        let machine = Self { dir, etc, ports: free_ports() };
        let examples = machine.dir.file("examples/add-to-envoy");
        for folder in [&examples, &machine.dir.file("target"), &machine.dir.file("bin")] {
            fs::create_dir_all(folder).expect("ours");
        }
        for name in ["before.yaml", "after.yaml", "after-ecds.yaml", "after-credential.yaml"] {
            fs::write(examples.join(name), machine.moved(&example_text(name))).expect("ours");
        }
        let module = machine.dir.file("target/vkey.wasm");
        fs::copy(artefact("VKEY_TEST_WASM"), module).expect("ours");
        for (name, file) in [("envoy", envoy), ("vkey", &vkey())] {
            let link = machine.dir.file("bin").join(name);
            std::os::unix::fs::symlink(file, link).expect("a link");
        }
        machine
    }

    fn moved(&self, text: &str) -> String {
        let [front, app, admin] = self.ports.map(|port| port.to_string());
        let text = text.replace("/etc/envoy", &self.etc).replace("10000", &front);
        let text = text.replace("10001", &app).replace("9901", &admin);
        // Envoy writes its access log every ten seconds, and the page waits for its lines.
        let options = format!("--base-id {admin} --concurrency 2 --file-flush-interval-msec 100");
        text.replace("$ envoy --", &format!("$ envoy {options} --"))
    }

    fn path(&self) -> String {
        let own = self.dir.file("bin");
        format!("{}:{}", own.display(), std::env::var("PATH").expect("text"))
    }
}

/// Lets Envoy log more after its audit lines, and counts them again.
const LOG_MORE: &str = r#"
```console
$ curl -s -X POST 'http://127.0.0.1:9901/logging?level=debug' > /etc/envoy/levels
$ until grep -q '\[debug\]' /etc/envoy/envoy.log; do curl -s http://127.0.0.1:9901/stats > /etc/envoy/stats; done
$ grep -c '"decision"' /etc/envoy/envoy.log
8
```
"#;

/// Counts the audit lines of allowed requests after Envoy has logged an update.
const COUNT: &str = r#"
```console
$ grep -c '"decision":"allow"' /etc/envoy/envoy.log
4
```
"#;

#[test]
fn the_page_leads_to_an_envoy_that_asks_for_keys() {
    each_envoy(|envoy| {
        let machine = Machine::new(envoy);
        let page = page();
        let revoking = section(&page, "## So that you can revoke without a restart");
        let all = [section(&page, "## Step by step"), LOG_MORE, revoking, COUNT].concat();
        let steps = steps(&machine.moved(&all));
        assert!(steps.len() > 25, "{steps:?}");
        run(&steps, machine.dir.path(), &[("PATH", &machine.path())]);
    });
}

#[test]
fn envoy_accepts_the_configuration_before_and_after() {
    each_envoy(|envoy| {
        let machine = Machine::new(envoy);
        fs::create_dir_all(&machine.etc).expect("ours");
        let module = Path::new(&machine.etc).join("vkey.wasm");
        fs::copy(artefact("VKEY_TEST_WASM"), module).expect("ours");
        for name in ["before.yaml", "after.yaml", "after-credential.yaml"] {
            let file = machine.dir.file("examples/add-to-envoy").join(name);
            let mut command = Command::new(envoy);
            command.args(["--mode", "validate", "--disable-hot-restart", "--config-path"]);
            command.arg(file).env("VKEY_MAIN_SECRET", "Used-1-only-to-validate");
            command.env("LOCAL_MODEL_KEY", "used-to-validate");
            let output = command.stdin(Stdio::null()).output().expect("Envoy starts");
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    });
}

/// The rules and notes of lint for a bootstrap.
fn lint(bootstrap: &str) -> Vec<String> {
    let dir = TempDir::new("add_to_envoy_lint");
    let file = dir.file("envoy.yaml");
    fs::write(&file, bootstrap).expect("ours");
    let mut command = Command::new(vkey());
    let output = command
        .args(["tls", "lint", "--json", "--now", "2026-12-01T00:00:00Z"])
        .arg(file)
        .output()
        .expect("it starts");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = |name: &str, member: &str| {
        let items = report[name].as_array().expect("a list").iter();
        Vec::from_iter(items.map(|item| item[member].as_str().expect("text").to_owned()))
    };
    [list("findings", "rule"), list("notes", "text")].concat()
}

/// The bootstrap without the lines from one comment to the next line that begins so.
fn without(from: &str, to: &str) -> String {
    let text = example_text("after.yaml");
    let start = text.find(from).unwrap_or_else(|| panic!("no {from}"));
    let end = text[start..].find(to).unwrap_or_else(|| panic!("no {to}"));
    [&text[..start], &text[start + end..]].concat()
}

/// The rows of the table name what lint says.
#[test]
fn lint_reports_each_piece_that_is_missing() {
    assert!(lint(&example_text("after.yaml")).is_empty());
    let page = page();
    let pieces = [
        ("1", without("          # 1.", "          # 2.")),
        ("2", without("          # 2.", "          # 5.")),
        ("3", without("          # 3.", "          # 4.").replace("*vm", "{}")),
        ("3", example_text("after.yaml").replace("VKEY_MAIN_SECRET]}", "VKEY_OTHER]}")),
        ("4", without("          # 4.", "          - name: envoy.filters.http.router")),
        ("5", without("          # 5.", "          http_filters:")),
        ("6", without("# 6.", "static_resources:")),
        ("7", example_text("after.yaml").split("    # 7.").next().expect("a part").to_owned()),
    ];
    for (number, bootstrap) in pieces {
        let row = page.lines().find(|line| line.starts_with(&format!("| {number} |")));
        let cell = row.and_then(|row| row.split('|').nth(4)).expect("a row");
        let found = lint(&bootstrap);
        assert!(!found.is_empty(), "{number}");
        for rule in &found {
            let is_note = cell.trim() == "a note" && rule.starts_with("stats_config");
            assert!(is_note || cell.contains(&format!("`{rule}`")), "{number}: {rule}");
        }
        if number == "1" {
            assert_eq!(found.len(), cell.matches('`').count() / 2, "{found:?}");
        }
    }
}
