//! Conversations of the official clients of both generations, as `crates/e2e/tests/mcp/peers/plan.py` describes them.

use serde_json::{Value, json};

use super::{Server, all_globs};
use crate::keys::Minter;
use crate::support::Envoy;
use crate::support::peers::{CLIENTS, client, converse, error_class, names};

fn talk(name: &str, era: &str, url: &str, key: Option<&str>, calls: &Value) -> Value {
    converse(&mut client(name), &json!({"url": url, "key": key, "era": era, "calls": calls}))
}

/// Everything that a client does with `server-everything`, and errors of its own.
fn calls_of_everything() -> Value {
    json!([
        {"tool": "echo", "arguments": {"message": "a text, «quoted» — \"so\" \\ and \u{2028} so"}},
        {"tool": "trigger-long-running-operation", "arguments": {"duration": 0.5, "steps": 5}, "progress": true},
        {"prompt": "simple-prompt"},
        {"prompt": "args-prompt", "arguments": {"city": "Riga"}},
        {"resource": "demo://resource/static/document/features.md"},
        {"tool": "trigger-sampling-request", "arguments": {"prompt": "who is there?"}},
        {"tool": "no-such-tool"},
        {"prompt": "no-such-prompt"},
        {"tool": "get-sum", "arguments": {"a": 2, "b": 40}},
    ])
}

/// The same with the tests' own server, which speaks both eras.
fn calls_of_own() -> Value {
    json!([
        {"tool": "test_simple_text"},
        {"tool": "test_tool_with_progress", "progress": true},
        {"prompt": "test_prompt_with_arguments", "arguments": {"arg1": "a", "arg2": "b"}},
        {"resource": "test://static-text"},
        {"resource": "test://template/7/data"},
        {"tool": "test_sampling", "arguments": {"prompt": "who is there?"}},
        {"tool": "test_elicitation", "arguments": {"message": "who is there?"}},
        {"tool": "no_such_tool"},
        {"prompt": "no-such-prompt"},
        {"resource": "test://no-such-resource"},
        {"tool": "test_simple_text"},
    ])
}

#[test]
fn a_key_that_may_do_everything_changes_nothing_in_a_conversation() {
    let main = Minter::new("main", None);
    let keys = [main.key("open", json!({})), main.key("globs", all_globs())];
    let servers = [
        (Server::everything(), calls_of_everything()),
        (Server::own(), calls_of_own()),
        (Server::paged(), json!([{"tool": "item3"}, {"resource": "test://item1"}])),
    ];
    for (server, calls) in &servers {
        let envoy = Envoy::start(server.behind_gate("mcp-equal", &main));
        let gate = format!("http://{}/mcp", envoy.gate());
        for (name, era) in CLIENTS {
            let direct = talk(name, era, &server.url(), None, calls);
            assert!(direct["fatal"].is_null(), "{name} {era} {direct}");
            for key in &keys {
                let through = talk(name, era, &gate, Some(key), calls);
                assert_eq!(through, direct, "{name} {era}");
            }
        }
    }
}

/// Lists are as long as the key allows, a refused call is a typed error with the gate's code and reason, and the
/// session lives on.
#[test]
fn a_restricted_key_sees_less_and_its_session_outlives_a_refusal() {
    let main = Minter::new("main", None);
    let only = json!({"only": {"mcp": {
        "tools": ["test_simple_*", "test_tool_with_progress"],
        "resources": ["test://static-text"],
        "prompts": ["test_simple_prompt"],
    }}});
    let key = main.key("narrow", only);
    let calls = json!([
        {"tool": "test_simple_text"},
        {"tool": "test_image_content"},
        {"tool": "test_simple_text"},
        {"prompt": "test_prompt_with_image"},
        {"prompt": "test_simple_prompt"},
        {"resource": "test://static-binary"},
        {"resource": "test://static-text"},
        {"tool": "test_tool_with_progress", "progress": true},
    ]);
    let server = Server::own();
    let envoy = Envoy::start(server.behind_gate("mcp-narrow", &main));
    let gate = format!("http://{}/mcp", envoy.gate());
    for (name, era) in CLIENTS {
        let saw = talk(name, era, &gate, Some(&key), &calls);
        let told = format!("{name} {era} {saw}");
        assert!(saw["fatal"].is_null(), "{told}");
        assert_eq!(names(&saw, "tools", "name"), ["test_simple_text", "test_tool_with_progress"]);
        assert_eq!(names(&saw, "resources", "uri"), ["test://static-text"], "{told}");
        assert_eq!(names(&saw, "resource_templates", "uriTemplate"), [""; 0], "{told}");
        assert_eq!(names(&saw, "prompts", "name"), ["test_simple_prompt"], "{told}");
        for number in [1, 3, 5] {
            let error = &saw["calls"][number]["error"];
            assert_eq!(error["class"], error_class(name), "{told}");
            assert_eq!(error["code"], 403, "{told}");
            assert_eq!(error["data"]["reason"], "mcp_call", "{told}");
        }
        for number in [0, 2, 4, 6, 7] {
            assert!(saw["calls"][number]["result"].is_object(), "{number} {told}");
        }
    }
}

/// Pages keep their number, and a page of which nothing is left does not end the list.
#[test]
fn a_restricted_key_sees_every_page() {
    let main = Minter::new("main", None);
    let only = json!({"only": {"mcp": {
        "tools": ["item4", "item5"], "resources": ["test://item0"], "prompts": ["item3"],
    }}});
    let key = main.key("pages", only);
    let server = Server::paged();
    let envoy = Envoy::start(server.behind_gate("mcp-pages", &main));
    let gate = format!("http://{}/mcp", envoy.gate());
    for (name, era) in CLIENTS {
        let direct = talk(name, era, &server.url(), None, &json!([]));
        let saw = talk(name, era, &gate, Some(&key), &json!([]));
        let told = format!("{name} {era} {saw}");
        assert!(saw["fatal"].is_null(), "{told}");
        assert_eq!(names(&saw, "tools", "name"), ["item4", "item5"], "{told}");
        assert_eq!(names(&saw, "resources", "uri"), ["test://item0"], "{told}");
        assert_eq!(names(&saw, "resource_templates", "uriTemplate"), [""; 0], "{told}");
        assert_eq!(names(&saw, "prompts", "name"), ["item3"], "{told}");
        for list in ["tools", "resources", "resource_templates", "prompts"] {
            let pages = |saw: &Value| saw["lists"][list]["result"]["pages"].clone();
            assert_eq!(pages(&saw), pages(&direct), "{told}");
        }
    }
}
