//! What `vkey explain` makes of a request for an MCP server.

use serde_json::{Value, json};

use crate::harness::{Gate, NOW};

const POST: [&str; 4] = ["--method", "POST", "--path", "/mcp"];

fn gate(mcp: &Value) -> Gate {
    let mut config = json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "mcp": {"routes": [{"path": "/mcp", "server": "docs"}, {"path": "/mcp/{server}"}]},
    });
    config["mcp"].as_object_mut().unwrap().extend(mcp.as_object().unwrap().clone());
    Gate::with(&config)
}

/// The call of a tool.
fn call(name: &str, arguments: &Value) -> String {
    let params = json!({"name": name, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
}

/// The arguments for a message in a file.
fn sent<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&POST[..], &["--body", file], more].concat()
}

fn message(gate: &Gate, key: &str, args: &[&str]) -> String {
    let report = gate.explain(key, args).1;
    let stages = report["stages"].as_array().unwrap();
    stages.iter().find(|stage| stage["verdict"] != "ok").unwrap()["message"].to_string()
}

#[test]
fn explain_decides_by_the_message() {
    let gate = gate(&json!({}));
    let tools = gate.mint(&["--tools", "read_*"]);
    let both = gate.mint(&["--models", "m", "--tools", "read_*"]);
    let (read, delete) = (call("read_page", &json!({})), call("delete_page", &json!({})));
    let (read, delete) = (gate.file("read", read), gate.file("delete", delete));
    for key in [&tools, &both] {
        let report = gate.allows(key, &sent(&read, &[]));
        let expected = json!({
            "message": "request", "method": "tools/call", "object": "tool", "names": ["read_page"],
            "server": "docs", "revision": null, "era": "legacy", "conditions": null,
        });
        assert_eq!(report["body"], expected);
        assert_eq!(report["stages"].as_array().unwrap().last().unwrap()["stage"], "body");
        gate.denies(key, &sent(&delete, &[]), "mcp_call");
    }
    let people = [&["explain", "--now", NOW][..], &sent(&delete, &[])].concat();
    let people = gate.vkey(&people).stdin(&tools).run();
    assert!(
        people.out.contains("\nasks for    {\"message\":\"request\",\"method\":\"tools/call\"")
    );
    assert!(people.out.ends_with("\ndecision    deny mcp_call\n"), "{}", people.out);
}

#[test]
fn explain_reads_a_message_as_strictly_as_the_gate() {
    let gate = gate(&json!({"legacy": false}));
    let key = gate.mint(&[]);
    let modern = |more: &str| {
        let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        let params = format!(r#"{{"name":"a","_meta":{meta}{more}}}"#);
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
    };
    let headers = |name: &'static str| {
        let revision = ["--header", "mcp-protocol-version: 2026-07-28"];
        [&revision[..], &["--header", "mcp-method: tools/call", "--header", name]].concat()
    };
    let file = |name: &str, text: String| gate.file(name, text);
    let good = file("good", modern(""));
    let report = gate.allows(&key, &sent(&good, &headers("mcp-name: a")));
    assert_eq!(
        (&report["body"]["revision"], &report["body"]["era"]),
        (&json!("2026-07-28"), &json!("modern"))
    );
    gate.denies(&key, &sent(&good, &headers("mcp-name: b")), "header_mismatch");
    gate.denies(&key, &sent(&good, &[]), "header_mismatch");
    let twice = file("twice", modern(r#","name":"b""#));
    gate.denies(&key, &sent(&twice, &headers("mcp-name: a")), "body_unreadable");
    let says = message(&gate, &key, &sent(&twice, &headers("mcp-name: a")));
    assert!(says.contains("twice"), "{says}");
    let legacy = file("legacy", call("a", &json!({})));
    gate.denies(&key, &sent(&legacy, &[]), "mcp_call");
    let says = message(&gate, &key, &sent(&legacy, &[]));
    assert!(says.contains("revision 2026-07-28"), "{says}");
}

/// Of the arguments of a call, only what they mean for the decision is shown.
#[test]
fn explain_shows_whether_arguments_meet_the_conditions() {
    let gate = gate(&json!({}));
    let entry = r#"{"name":"read_*","args":[{"at":"/page","max":9}]}"#;
    let key = gate.mint(&["--tools", entry, "--tools", "list_*"]);
    let file = |name: &str, page: Value| gate.file(name, call("read_page", &json!({"page": page})));
    let (met, unmet) = (file("met", json!(9)), file("unmet", json!(90_909)));
    let report = gate.allows(&key, &sent(&met, &[]));
    assert_eq!(report["body"]["conditions"], "met");
    let args = sent(&unmet, &[]);
    gate.denies(&key, &args, "mcp_call");
    let report = gate.explain(&key, &args).1;
    assert_eq!(report["body"]["conditions"], "not met");
    assert!(!report.to_string().contains("90909"), "{report}");
    let says = message(&gate, &key, &args);
    assert!(says.contains("may call this tool, but not with these arguments"), "{says}");
    for name in ["list_pages", "delete_page"] {
        let file = gate.file("other", call(name, &json!({"page": 90_909})));
        let report = gate.explain(&key, &sent(&file, &[])).1;
        assert_eq!(report["body"]["conditions"], Value::Null, "{name}");
    }
}

#[test]
fn explain_evaluates_the_call_on_a_path_of_an_mcp_server() {
    let gate = gate(&json!({}));
    let tools = gate.mint(&["--only", r#"{"mcp":{"servers":["docs"],"tools":["read_*"]}}"#]);
    let post = |path: &'static str| ["--path", path, "--method", "POST"];
    let call = |path, name: &'static str| {
        [&post(path)[..], &["--mcp-method", "tools/call", "--mcp-name", name]].concat()
    };
    assert_eq!(gate.allows(&tools, &call("/mcp", "read_page"))["notes"], json!([]));
    gate.allows(&tools, &call("/mcp/docs", "read_page"));
    gate.denies(&tools, &call("/mcp", "delete_page"), "mcp_call");
    // The path names the server, whatever the option says.
    let other = [&call("/mcp/other", "read_page")[..], &["--mcp-server", "docs"]].concat();
    gate.denies(&tools, &other, "mcp_call");
    // What opens a stream is no call, whatever is named.
    let stream = ["--method", "GET", "--path", "/mcp", "--mcp-method", "tools/call"];
    gate.allows(&tools, &[&stream[..], &["--mcp-name", "delete_page"]].concat());
}

/// A decision that depends on what is not known is none.
#[test]
fn explain_leaves_the_decision_open_without_the_call() {
    let gate = gate(&json!({}));
    let tools = gate.mint(&["--tools", "read_*"]);
    let notes = gate.undecided(&tools, &POST)["notes"].to_string();
    assert!(notes.contains("--body") && notes.contains("--mcp-method and --mcp-name"), "{notes}");
    let people = [&["explain", "--now", NOW][..], &POST].concat();
    let people = gate.vkey(&people).stdin(&tools).run();
    assert!(
        people.code == 4 && people.out.ends_with("\ndecision    undecided\n"),
        "{}",
        people.out
    );
    // What refuses every call decides, and so does a key on which no call has a bearing.
    gate.denies(&tools, &[&POST[..], &["--host", ""]].concat(), "upstream_name");
    gate.denies(&gate.mint(&["--only", r#"{"mcp":{},"methods":["GET"]}"#]), &POST, "method");
    let paths = gate.mint(&["--only", r#"{"any_of":[{"paths":["/mcp"]},{"mcp":{"tools":[]}}]}"#]);
    for key in [&gate.mint(&[]), &paths] {
        let notes = gate.allows(key, &POST)["notes"].to_string();
        assert!(notes.contains("refuses one that it cannot read"), "{notes}");
    }
    let entry = r#"{"name":"read_*","args":[{"at":"/page","max":9}]}"#;
    let entry = gate.mint(&["--tools", entry]);
    let named = |name: &'static str| {
        [&POST[..], &["--mcp-method", "tools/call", "--mcp-name", name]].concat()
    };
    let report = gate.undecided(&entry, &named("read_page"));
    let notes = report["notes"].to_string();
    assert!(notes.contains("depends on the arguments of the call"), "{notes}");
    assert_eq!(report["body"]["conditions"], "unknown");
    gate.denies(&entry, &named("delete_page"), "mcp_call");
}

#[test]
fn explain_takes_only_a_call_that_a_server_gets() {
    let gate = gate(&json!({}));
    let key = gate.mint(&[]);
    let refused = |args: &[&str], says: &str| {
        let args = [&["explain", "--now", NOW][..], &POST, args].concat();
        gate.vkey(&args).stdin(&key).refused(2, says);
    };
    refused(&["--mcp-method", "tools/call"], "add --mcp-name");
    refused(&["--mcp-method", "resources/subscribe"], "add --mcp-name");
    refused(&["--mcp-method", "tools/list", "--mcp-name", "a"], "--mcp-name: ");
    refused(&["--mcp-method", "ping", "--body", "a"], "cannot be used with");
    refused(&["--mcp-method", "ping", "--model", "a"], "cannot be used with");
}

/// Where the headers are trusted, they say what the call is, and the body is not read.
#[test]
fn explain_trusts_the_headers_where_the_gate_does() {
    let gate = gate(&json!({"verify": "headers"}));
    let key = gate.mint(&["--tools", "read_*"]);
    let headers = |name: &'static str| {
        let revision = ["--header", "mcp-protocol-version: 2026-07-28"];
        [&POST[..], &revision, &["--header", "mcp-method: tools/call", "--header", name]].concat()
    };
    gate.allows(&key, &headers("mcp-name: read_page"));
    gate.denies(&key, &headers("mcp-name: delete_page"), "mcp_call");
    let body = gate.file("body", "{");
    let unread = [&headers("mcp-name: read_page")[..], &["--body", &body]].concat();
    let notes = gate.allows(&key, &unread)["notes"].to_string();
    assert!(notes.contains("does not read the body"), "{notes}");
    gate.denies(&key, &sent(&body, &[]), "body_unreadable");
}

#[test]
fn explain_knows_that_nginx_reads_no_message() {
    let keyring = json!([{"name": "main", "secret": "${MAIN}"}]);
    let mcp = json!({"routes": [{"path": "/mcp", "server": "docs"}]});
    let gate = Gate::with(&json!({"keyring": keyring, "mcp": mcp, "host": "nginx"}));
    let key = gate.mint(&[]);
    for more in [&[][..], &["--mcp-method", "ping"]] {
        gate.denies(&key, &[&POST[..], more].concat(), "body_unreadable");
    }
}
