//! The official clients of both generations, and requests that slip past parsers, with `vkey mcp` in between.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{Gate, KEY, SECRET, line, now_secs};
use crate::support::peers::{
    CLIENTS, client, converse, error_class, names, python, script, stdout,
};
use crate::support::{artefact, vkey};

/// At least this number of bodies make the server run what it must not, without the gate.
const LEAST_THAT_WORK: usize = 45;

impl Gate {
    /// A key with that restriction of its own.
    fn key_only(&self, only: &Value) -> String {
        let mut mint = Command::new(vkey());
        mint.args(["mint", "--tenant", "acme", "--lifetime", "1h", "--only", &only.to_string()]);
        mint.arg("--config").arg(self.dir.file("config.json")).env(SECRET, &self.secret);
        line(mint.output())
    }

    /// The words of `vkey mcp` with that server behind it.
    fn in_front_of(&self, server: &[String]) -> Vec<String> {
        let words = ["mcp", "--key-env", KEY, "--config"].map(str::to_owned);
        let mut command = vec![text(vkey())];
        command.extend(words);
        command.extend([text(self.dir.file("config.json")), "--audit".to_owned()]);
        command.extend([text(self.dir.file("audit")), "--".to_owned()]);
        command.extend_from_slice(server);
        command
    }

    fn plan(&self, era: &str, server: &[String], calls: &Value) -> Value {
        json!({"era": era, "command": self.in_front_of(server), "calls": calls})
    }
}

fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("a path in UTF-8")
}

/// The tests' own server, which speaks both eras.
fn own() -> Vec<String> {
    vec!["node".to_owned(), text(script("server.mjs")), "stdio".to_owned()]
}

fn everything() -> Vec<String> {
    vec!["node".to_owned(), text(artefact("VKEY_TEST_MCP_SERVER"))]
}

/// A client whose server gets the key and the secret, if it is the gate.
fn with(gate: &Gate, name: &str, key: &str) -> Command {
    let mut client = client(name);
    client.env("VKEY_TEST_MCP_PEERS", artefact("VKEY_TEST_MCP_PEERS"));
    client.env(KEY, key).env(SECRET, &gate.secret);
    client
}

#[test]
fn a_key_that_may_do_everything_changes_nothing_in_a_conversation_of_any_client() {
    let gate = Gate::new("equal");
    let members = ["methods", "servers", "tools", "resources", "prompts"];
    let globs = serde_json::Map::from_iter(members.map(|name| (name.to_owned(), json!(["*"]))));
    let keys = [gate.key(now_secs(), "1h"), gate.key_only(&json!({"mcp": globs}))];
    let of_own = json!([
        {"tool": "test_simple_text"},
        {"tool": "test_tool_with_progress", "progress": true},
        {"prompt": "test_prompt_with_arguments", "arguments": {"arg1": "a", "arg2": "b"}},
        {"resource": "test://static-text"},
        {"tool": "test_sampling", "arguments": {"prompt": "who is there?"}},
        {"tool": "no_such_tool"},
        {"tool": "test_simple_text"},
    ]);
    let of_everything = json!([
        {"tool": "echo", "arguments": {"message": "a text, «quoted» — \"so\" \\ and so"}},
        {"prompt": "simple-prompt"},
        {"resource": "demo://resource/static/document/features.md"},
        {"tool": "trigger-sampling-request", "arguments": {"prompt": "who is there?"}},
        {"prompt": "no-such-prompt"},
        {"tool": "get-sum", "arguments": {"a": 2, "b": 40}},
    ]);
    for (server, calls) in [(own(), of_own), (everything(), of_everything)] {
        for (name, era) in CLIENTS {
            let direct = json!({"era": era, "command": server, "calls": calls});
            let direct = converse(&mut with(&gate, name, ""), &direct);
            assert!(direct["fatal"].is_null(), "{name} {era} {direct}");
            for key in &keys {
                let plan = gate.plan(era, &server, &calls);
                assert_eq!(converse(&mut with(&gate, name, key), &plan), direct, "{name} {era}");
            }
        }
    }
}

#[test]
fn a_restricted_key_sees_less_and_its_session_outlives_a_refusal() {
    let gate = Gate::new("narrow");
    let only = json!({"mcp": {
        "tools": ["test_simple_*"], "resources": ["test://static-text"], "prompts": ["test_simple_prompt"],
    }});
    let key = gate.key_only(&only);
    let calls = json!([
        {"tool": "test_simple_text"},
        {"tool": "test_image_content"},
        {"prompt": "test_prompt_with_image"},
        {"resource": "test://static-binary"},
        {"tool": "test_simple_text"},
    ]);
    for (name, era) in CLIENTS {
        let saw = converse(&mut with(&gate, name, &key), &gate.plan(era, &own(), &calls));
        let told = format!("{name} {era} {saw}");
        assert!(saw["fatal"].is_null(), "{told}");
        assert_eq!(names(&saw, "tools", "name"), ["test_simple_text"], "{told}");
        assert_eq!(names(&saw, "resources", "uri"), ["test://static-text"], "{told}");
        assert_eq!(names(&saw, "resource_templates", "uriTemplate"), [""; 0], "{told}");
        assert_eq!(names(&saw, "prompts", "name"), ["test_simple_prompt"], "{told}");
        for number in 1..4 {
            let error = &saw["calls"][number]["error"];
            assert_eq!(error["class"], error_class(name), "{told}");
            assert_eq!(error["code"], 403, "{told}");
        }
        for number in [0, 4] {
            assert!(saw["calls"][number]["result"].is_object(), "{number} {told}");
        }
    }
}

#[test]
fn no_spelling_of_a_call_runs_a_tool_that_the_key_may_not_call() {
    let gate = Gate::new("hostile");
    let file = gate.dir.file("ran");
    fs::write(&file, "").expect("the directory is ours");
    let path_ok = json!({"name": "read_file", "args": [{"at": "/path", "equals": "/ok"}]});
    let key = gate.key_only(&json!({"mcp": {"tools": ["get_weather", path_ok]}}));
    let recording = python("recording.py");
    let program = recording.get_program().to_str().expect("UTF-8").to_owned();
    let arguments = recording.get_args().map(|word| word.to_str().expect("UTF-8").to_owned());
    let words = [text(file.clone()), "stdio".to_owned()];
    let server = Vec::from_iter([program].into_iter().chain(arguments).chain(words));
    let send = |server: &[String]| -> Vec<Value> {
        let mut sender = Command::new("python3");
        sender.arg("-B").arg(script("hostile.py")).arg("stdio").arg(&file).args(server);
        sender.env(KEY, &key).env(SECRET, &gate.secret);
        serde_json::from_str(&stdout(&mut sender)).expect("a list")
    };
    let is_forbidden = |request: &&Value| request["forbidden"] != json!([]);
    let direct = send(&server);
    assert!(direct.iter().filter(is_forbidden).count() >= LEAST_THAT_WORK, "{direct:#?}");
    let through = send(&gate.in_front_of(&server));
    assert_eq!(through.iter().filter(is_forbidden).collect::<Vec<_>>(), Vec::<&Value>::new());
    for (name, ran) in [("stdio/allowed", "get_weather"), ("stdio/allowed path", "read_file /ok")] {
        let request = through.iter().find(|request| request["name"] == name).expect(name);
        assert_eq!(request["ran"], json!([ran]), "{request}");
    }
}
