//! The member `mcp` of audit lines.

use serde_json::{Value, json};

use crate::harness::Gate;

use super::session::{Left, Session};

fn calls(left: &Left) -> Vec<Value> {
    left.audit().iter().map(|line| line["mcp"].clone()).collect()
}

#[test]
fn an_audit_line_names_method_and_tool() {
    let gate = Gate::new();
    let key = gate.mint(&[]);
    let mut session = Session::start(&gate, &key, &[]);
    session.request(1, "initialize", &json!({}));
    session.answer();
    let long = "n".repeat(200);
    for (id, method, params) in [
        (2, "tools/call", json!({"name": "search notes\n", "arguments": {"name": "private"}})),
        (3, "tools/call", json!({"name": long})),
        (4, "resources/read", json!({"uri": "db://me:pass@host/t?token=hidden"})),
        (5, "tools/list", json!({})),
        (6, "tools/call", json!({"name": key})),
        (7, "tools/call", json!({"name": &key[key.len() - 20..]})),
    ] {
        session.request(id, method, &params);
        session.answer();
    }
    session.send("{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{}}\n");
    session.send("{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"tools/call\"\n");
    session.answer();
    let left = session.finish();
    let revision = "stdio 2025-06-18";
    let shown = json!([
        "initialize - stdio -",
        format!("tools/call search%20notes%0A {revision}"),
        format!("tools/call {}… {revision}", &long[..128]),
        format!("resources/read db://host/t {revision}"),
        format!("tools/list - {revision}"),
        "***REDACTED***",
        "***REDACTED***",
        null,
        null,
    ]);
    assert_eq!(json!(calls(&left)), shown);
    for hidden in ["private", "hidden", "pass@", &key[key.len() - 20..]] {
        assert!(!left.err.contains(hidden), "{hidden}: {}", left.err);
    }
    assert!(left.ended(0).err.is_ascii());
}

#[test]
fn the_member_can_be_masked() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "audit": {"mask": ["mcp"]},
    }));
    let mut session = Session::start(&gate, &gate.mint(&["--ring", "main"]), &[]);
    session.request(1, "tools/call", &json!({"name": "search"}));
    session.answer();
    let left = session.finish();
    assert_eq!(calls(&left), ["***REDACTED***"]);
    assert!(!left.ended(0).err.contains("search"));
}
