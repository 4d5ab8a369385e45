//! The conformance suites of MCP find nothing behind the gate that they do not find without it.

use std::process::Command;

use serde_json::{Value, json};

use super::{Server, all_globs};
use crate::keys::Minter;
use crate::support::peers::{script, stdout};
use crate::support::{Envoy, Options, artefact, config};

/// Of the four runs of a suite: 27 + 33 + 40 + 32 scenarios.
const SCENARIOS: usize = 132;

/// The lines of `crates/e2e/tests/mcp/peers/conformance.py`.
fn verdicts(url: &str) -> Vec<String> {
    let mut python = Command::new("python3");
    python.arg("-B").arg(script("conformance.py")).arg(url);
    python.env("VKEY_TEST_MCP_PEERS", artefact("VKEY_TEST_MCP_PEERS"));
    let lines: Vec<String> = stdout(&mut python).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), SCENARIOS, "{lines:#?}");
    lines
}

/// Envoy adds the key to each request before the gate sees it: no suite can send one.
fn with_key(options: Options, key: String) -> Options {
    options.edit(move |config| {
        let manager = config::connection_manager(config, "gate");
        let early = &mut manager["early_header_mutation_extensions"][0]["typed_config"];
        let header = json!({"key": "authorization", "value": format!("Bearer {key}")});
        let mutation =
            json!({"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}});
        early["mutations"].as_array_mut().expect("a list").push(mutation);
    })
}

fn assert_no_scenario_differs(label: &str, server: &Server, direct: &[String], claims: Value) {
    let main = Minter::new("main", None);
    let key = main.key("suite", claims);
    let envoy = Envoy::start(with_key(server.behind_gate(label, &main), key));
    let through = verdicts(&format!("http://{}/mcp", envoy.gate()));
    let differ = direct.iter().zip(&through).filter(|(one, other)| differs(one, other));
    let differ: Vec<_> = differ.collect();
    assert!(differ.is_empty(), "{label} {differ:#?}");
}

/// Whether a scenario ends otherwise through the gate, or a check fails there that does not without it. A check may
/// succeed there alone: some servers refuse a wrong header with another code than the gate.
fn differs(direct: &str, through: &str) -> bool {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (direct, through) = (words(direct), words(through));
    direct[..3] != through[..3] || through[4..].iter().any(|check| !direct[4..].contains(check))
}

#[test]
fn no_scenario_of_a_server_that_passes_all_differs() {
    let server = Server::own();
    let direct = verdicts(&server.url());
    assert!(direct.iter().all(|line| line.contains(" PASS ")), "{direct:#?}");
    assert_no_scenario_differs("mcp-suite-own-open", &server, &direct, json!({}));
    assert_no_scenario_differs("mcp-suite-own-globs", &server, &direct, all_globs());
}

#[test]
fn no_scenario_of_a_server_of_another_author_differs() {
    let server = Server::everything();
    let direct = verdicts(&server.url());
    assert_no_scenario_differs("mcp-suite-open", &server, &direct, json!({}));
    assert_no_scenario_differs("mcp-suite-globs", &server, &direct, all_globs());
}
