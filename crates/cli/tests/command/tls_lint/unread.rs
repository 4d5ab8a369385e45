//! Filters that may be the module and come by discovery.

use std::fs;

use serde_json::Value;

use super::listeners::{edited, notes};
use super::{lint, lint_text, rules};
use crate::harness::{Gate, Vkey, root, text};

fn example() -> String {
    fs::read_to_string(root().join("examples/ecds/envoy.yaml")).expect("readable")
}

/// The rules that a configuration violates, and its findings.
fn found(config: &str) -> (Vec<String>, Value) {
    let (code, report) = lint_text(config, &[]);
    let rules = Vec::from_iter(rules(&report).into_iter().map(str::to_owned));
    assert_eq!(code, i32::from(!rules.is_empty()), "{report}");
    (rules, report["findings"].clone())
}

/// The example without its seal.
fn unsealed() -> String {
    let text = example();
    let start = text.find("          - name: envoy.filters.http.rbac").expect("the seal");
    let end = text.find("          - name: envoy.filters.http.router").expect("the router");
    [&text[..start], &text[end..]].concat()
}

#[test]
fn a_module_that_was_not_read_is_a_finding_and_names_the_file() {
    let (rules, findings) = found(&example());
    assert_eq!(rules, ["module_unread"]);
    let finding = &findings[0];
    assert_eq!((&finding["severity"], &finding["listener"]), (&"warning".into(), &"gate".into()));
    let fix = "give that file too: `vkey tls lint - target/ecds/vkey.json`";
    assert_eq!(finding["fix"], fix);
    let served = example().replace("path_config_source: {path: target/ecds/vkey.json, ", "ads: {");
    assert_ne!(served, example());
    let (rules, findings) = found(&served.replace("watched_directory: {path: target/ecds}", ""));
    assert_eq!(rules, ["module_unread"]);
    assert!(findings[0]["reason"].to_string().contains("comes by ECDS from a server"));
}

#[test]
fn both_files_together_are_read() {
    let gate = Gate::new();
    let bootstrap = text(root().join("examples/ecds/envoy.yaml"));
    let plugin = text(root().join("examples/ecds/plugin.json"));
    let file = text(gate.dir.file("vkey.json"));
    Vkey::new(&["config", "envoy", "--config", &plugin, "--out", &file]).ok();
    let done = Vkey::new(&["tls", "lint", &bootstrap, &file]).ok();
    assert!(done.out.contains("1 listener with the module, 0 findings"), "{}", done.out);
}

#[test]
fn a_missing_seal_is_found_without_the_module() {
    assert_eq!(found(&unsealed()).0, ["seal_missing", "module_unread"]);
    // The only filter that was not read may be the module, whatever its name.
    let named = |name: &str| unsealed().replace("- name: vkey\n", &format!("- name: {name}\n"));
    assert_eq!(found(&named("waf")).0, ["seal_missing", "module_unread"]);
    // Of several, one that is called so, or that has a seal after it.
    let two = |name: &str, text: &str| {
        let discovery = "config_discovery: {type_urls: [x.v3.Wasm], config_source: {ads: {}}}";
        let other = format!("http_filters:\n          - {{name: {name}, {discovery}}}\n");
        text.replace("http_filters:\n", &other)
    };
    lint(&["-"]).stdin(two("other", &named("waf"))).refused(4, "no listener with the module");
    assert_eq!(found(&two("other", &unsealed())).0, ["seal_missing", "module_unread"]);
    let sealed = example().replace("- name: vkey\n", "- name: waf\n");
    assert_eq!(found(&two("other", &sealed)).0, ["module_unread", "module_unread"]);
}

#[test]
fn listeners_without_the_module_are_a_note() {
    let text = edited(&[("\"keyring\"", "\"other\"")]);
    let text = text.replace("wasm.vkey.decision", "other");
    assert!(notes(&text).contains(&"listeners: no listener has the module".to_owned()));
    assert!(!notes(&edited(&[])).iter().any(|note| note.contains("no listener has")));
}
