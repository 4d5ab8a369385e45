//! Requests that slip past parsers, with a Python server that notes what it runs: see
//! `crates/e2e/tests/mcp/peers/hostile.py`.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Server;
use crate::keys::Minter;
use crate::support::peers::{script, stdout};
use crate::support::{Envoy, TempDir, each_envoy};

/// At least this number of requests make the server run what it must not, without the gate.
const LEAST_THAT_WORK: usize = 150;

fn send(url: &str, file: &Path, key: Option<&str>) -> Vec<Value> {
    let mut python = Command::new("python3");
    python.arg("-B").arg(script("hostile.py")).arg(url).arg(file).args(key);
    serde_json::from_str(&stdout(&mut python)).expect("a list")
}

fn forbidden(sent: &[Value]) -> Vec<&Value> {
    sent.iter().filter(|request| request["forbidden"] != json!([])).collect()
}

#[test]
fn no_spelling_of_a_call_runs_a_tool_that_the_key_may_not_call() {
    let dir = TempDir::new("mcp-hostile");
    let file = dir.file("ran");
    let server = Server::recording(&file);
    let direct = send(&server.url(), &file, None);
    assert!(forbidden(&direct).len() >= LEAST_THAT_WORK, "{:#?}", forbidden(&direct));
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let path_ok = json!({"name": "read_file", "args": [{"at": "/path", "equals": "/ok"}]});
        let only = json!({"only": {"mcp": {"tools": ["get_weather", path_ok]}}});
        let envoy = Envoy::start(server.behind_gate("mcp-hostile", &main).on(binary));
        let url = format!("http://{}/mcp", envoy.gate());
        let through = send(&url, &file, Some(&main.key("narrow", only)));
        assert_eq!(forbidden(&through), Vec::<&Value>::new());
        // The gate lets through what it should.
        for era in ["legacy/allowed", "modern/allowed [get_weather]"] {
            let request = through.iter().find(|request| request["name"] == era).expect(era);
            assert_eq!(request["ran"], json!(["get_weather"]), "{request}");
        }
        for era in ["legacy/allowed path", "modern/allowed path [read_file]"] {
            let request = through.iter().find(|request| request["name"] == era).expect(era);
            assert_eq!(request["ran"], json!(["read_file /ok"]), "{request}");
        }
    });
}
