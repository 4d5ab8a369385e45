//! The scenarios of `testdata/scenarios` on the library over the host in memory.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test a panic is the report"
)]

mod scenario;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use scenario::Machine;
use scenario::format::{HostKind, Scenario};
use scenario::native::Native;
use scenario::run::run;
use scenario::step::Expected;
use vkey::decision::DenyReason;

fn native(config: Vec<u8>, env: BTreeMap<String, String>, host: HostKind) -> Box<dyn Machine> {
    Box::new(Native::new(config, env, host))
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/scenarios");
    let entries = fs::read_dir(folder).expect("testdata/scenarios");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn read(file: &Path) -> Scenario {
    let text = fs::read(file).expect("a scenario");
    Scenario::read(&text).unwrap_or_else(|invalid| panic!("{}: {invalid}", file.display()))
}

fn problems(text: &str) -> Vec<String> {
    run(&Scenario::read(text.as_bytes()).unwrap(), &native)
}

#[test]
fn every_scenario_holds_on_the_library() {
    let mut failures = Vec::new();
    for file in files() {
        let scenario = read(&file);
        if scenario.not_on.iter().any(|machine| machine == "native") {
            continue;
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let found = run(&scenario, &native).into_iter();
        failures.extend(found.map(|problem| format!("{name} {problem}")));
    }
    assert!(failures.is_empty(), "{} problems:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_reason_has_a_scenario() {
    let mut reasons = BTreeSet::new();
    for scenario in files().iter().map(|file| read(file)) {
        let refused = scenario.steps.iter().filter(|step| step.expect.action == Expected::Refuse);
        reasons.extend(refused.filter_map(|step| step.expect.reason));
    }
    let lacking: Vec<_> = DenyReason::ALL.iter().filter(|r| !reasons.contains(r)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
}

/// A scenario that holds, to be spoiled.
const GOOD: &str = r#"{
    "about": "a key is let through",
    "config": {"keyring": [{"name": "main", "secret": "${MAIN}"}]},
    "env": {"MAIN": "@secret:main"},
    "keys": {"good": {}},
    "steps": [{
        "name": "good",
        "request": {"headers": [["authorization", "Bearer {{key good}}"], ["x-other", "1"]]},
        "expect": {
            "action": "forward",
            "audit": {"jti": "good"},
            "upstream": {"present": {"x-vkey-key": "good"}, "absent": ["authorization"]}
        }
    }]
}"#;

#[test]
fn a_scenario_that_is_wrong_fails() {
    assert_eq!(problems(GOOD), [""; 0]);
    for (right, wrong) in [
        (r#"{"jti": "good"}"#, r#"{"jti": "other"}"#),
        (r#"{"jti": "good"}"#, r#"{"no_such_member": null}"#),
        (r#""x-vkey-key": "good""#, r#""x-vkey-key": "other""#),
        (r#""absent": ["authorization"]"#, r#""absent": ["x-other"]"#),
        (r#""x-other", "1""#, r#""x-other", "{{env MAIN}}""#),
        (r#""action": "forward","#, r#""action": "forward", "log": ["no such text"],"#),
        (r#""action": "forward","#, r#""action": "forward", "reason": "path","#),
        (r#""keys": {"good": {}}"#, r#""keys": {"good": {"secret": "@secret:other"}}"#),
        (r#""about":"#, r#""configure": {"outcome": "closed"}, "about":"#),
    ] {
        let spoiled = GOOD.replace(right, wrong);
        assert_ne!(spoiled, GOOD, "{right}");
        assert_ne!(problems(&spoiled), [""; 0], "{wrong}");
    }
}

#[test]
fn what_a_scenario_does_not_know_is_an_error() {
    for (right, wrong) in [
        (r#""about":"#, r#""typo": 1, "about":"#),
        (r#""good": {}"#, r#""good": {"typo": 1}"#),
        (r#""name": "good","#, r#""name": "good", "typo": 1,"#),
        (r#"{"headers":"#, r#"{"typo": 1, "headers":"#),
        (r#""action": "forward","#, r#""action": "forward", "typo": 1,"#),
        (r#""action": "forward","#, r#""action": "forward", "reason": "no_such_reason","#),
        (r#""action": "forward","#, r#""action": "forward", "status": 200,"#),
        (r#""action": "forward","#, r#""action": "refuse", "status": 403,"#),
        (r#""action": "forward","#, r#""action": "Forward","#),
        (r#""name": "good","#, r#""name": "good", "faults": {"typo": true},"#),
        (r#""name": "good","#, r#""name": "good", "ending": {"typo": true},"#),
        (r#""about":"#, r#""not_on": {"typo": "reason"}, "about":"#),
        (r#""steps": [{"#, r#""steps": [], "variants": [{"#),
    ] {
        let spoiled = GOOD.replace(right, wrong);
        assert_ne!(spoiled, GOOD, "{right}");
        assert!(Scenario::read(spoiled.as_bytes()).is_err(), "{wrong}");
    }
}
