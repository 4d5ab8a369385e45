//! Clients of MCP by other authors, and the scripts that they and their servers are in: see
//! `crates/e2e/tests/mcp/peers`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{artefact, root};

/// The clients, each with every era that it speaks.
pub(crate) const CLIENTS: [(&str, &str); 6] = [
    ("py1", "legacy"),
    ("py2", "legacy"),
    ("py2", "auto"),
    ("ts1", "legacy"),
    ("ts2", "legacy"),
    ("ts2", "auto"),
];

/// The class of the error that a client raises for a JSON-RPC error.
pub(crate) fn error_class(client: &str) -> &'static str {
    match client {
        "py2" => "MCPError",
        "ts2" => "ProtocolError",
        _ => "McpError",
    }
}

pub(crate) fn script(name: &str) -> PathBuf {
    root().join("crates/e2e/tests/mcp/peers").join(name)
}

/// A script for Node.
pub(crate) fn node(name: &str) -> Command {
    let mut node = Command::new("node");
    node.arg(script(name)).env("VKEY_TEST_MCP_PEERS", artefact("VKEY_TEST_MCP_PEERS"));
    node
}

/// A script for the Python that has the package `mcp` of the second generation.
pub(crate) fn python(name: &str) -> Command {
    python_of("VKEY_TEST_MCP_CLIENT", name)
}

fn python_of(variable: &str, name: &str) -> Command {
    let mut python = Command::new(artefact(variable));
    python.arg("-B").arg(script(name));
    python
}

/// The client of that name.
pub(crate) fn client(name: &str) -> Command {
    match name {
        "py1" => python_of("VKEY_TEST_MCP_CLIENT_1", "py1.py"),
        "py2" => python("py2.py"),
        _ => node(&format!("{name}.mjs")),
    }
}

/// What a client saw in the conversation of a plan.
pub(crate) fn converse(client: &mut Command, plan: &Value) -> Value {
    let mut child =
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the client starts");
    let input = plan.to_string();
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{client:?} {}", output.status);
    serde_json::from_slice(&output.stdout).expect("what the client saw")
}

/// The names in a list that a client was shown.
pub(crate) fn names<'a>(saw: &'a Value, list: &str, member: &str) -> Vec<&'a str> {
    let items = saw["lists"][list]["result"]["items"].as_array();
    items.expect("a list").iter().map(|item| item[member].as_str().expect("a name")).collect()
}

/// What a script of Python, without packages, prints.
pub(crate) fn stdout(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().expect("the command starts");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}
