//! An MCP session over HTTP, of a client and a server of other authors: the package `mcp` and
//! `@modelcontextprotocol/server-everything`.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use vkey::audit::{AuditRecord, Line};
use vkey::decision::{Decision, DenyReason};

use crate::keys::{Minter, options};
use crate::support::{Envoy, Options, TempDir, artefact, config, each_envoy, root, wait_for};

/// What the conversation may cost: `initialize`, `notifications/initialized`, the stream, `tools/list` and calls.
const REQUESTS: usize = 5;

/// A server on a port of its own; dropping it ends the process.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(dir: &TempDir) -> Self {
        let file = dir.file("port");
        let script = root().join("crates/e2e/tests/mcp/on_a_free_port.mjs");
        let mut node = Command::new("node");
        node.arg(script).arg(&file).arg(artefact("VKEY_TEST_MCP_SERVER"));
        node.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // From here on the process has an owner that ends it, whatever happens next.
        let mut server = Self { child: node.spawn().expect("node starts"), port: 0 };
        let port = || fs::read_to_string(&file).ok()?.strip_suffix('\n')?.parse().ok();
        server.port = wait_for(port, || "the server does not listen".to_owned());
        server
    }

    /// The gate in front of it.
    fn behind(&self, options: Options) -> Options {
        let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": self.port}});
        options.edit(move |config| {
            let cluster = config::named(config, "/static_resources/clusters", "echo");
            let endpoints = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
            endpoints[0]["endpoint"]["address"] = address;
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the client saw.
fn converse(envoy: &Envoy, key: &str) -> Value {
    let mut client = Command::new(artefact("VKEY_TEST_MCP_CLIENT"));
    client.arg("-B").arg(root().join("crates/e2e/tests/mcp/over_http.py"));
    client.arg(format!("http://{}/mcp", envoy.gate()));
    let output = client.env_clear().env("VKEY_TEST_KEY", key).output().expect("the client starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("what the client saw")
}

fn method<'a>(record: &'a AuditRecord<'_>) -> &'a str {
    record.method.as_deref().unwrap_or_default()
}

#[test]
fn a_client_that_has_used_up_its_quota_ends_its_session() {
    each_envoy(|binary| {
        let dir = TempDir::new("mcp-session-server");
        let server = Server::start(&dir);
        let main = Minter::new("main", None);
        let plugin =
            json!({"tiers": {"default": {"quotas": [{"requests": REQUESTS, "per": "total"}]}}});
        let envoy = Envoy::start(server.behind(options("mcp-session", &main, plugin).on(binary)));
        let saw = converse(&envoy, &main.key("k1", json!({})));
        assert_eq!(saw["server"], "mcp-servers/everything", "{saw}");
        assert!(saw["answers"][0] == "Echo: 0", "{saw}");
        assert!(saw["refusal"].is_string(), "{saw}");

        // The stream has no line before it ends.
        let is_allowed = |line: &&String| line.contains(r#""decision":"allow""#);
        let allowed = || envoy.access_log().iter().filter(is_allowed).count();
        let complete = || (allowed() > REQUESTS).then_some(());
        wait_for(complete, || format!("lines are missing in {:#?}", envoy.access_log()));
        envoy.stop();
        let lines = envoy.access_log();
        let records: Vec<_> =
            lines.iter().map(|line| Line::parse(line).expect(line).record.unwrap()).collect();
        let (end, others): (Vec<_>, Vec<_>) =
            records.iter().partition(|record| method(record) == "DELETE");
        let [end] = *end else { panic!("{records:#?}") };
        assert_eq!(end.decision, Some(Decision::Allow), "{end:?}");
        let (allowed, refused): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|record| record.decision == Some(Decision::Allow));
        assert_eq!(allowed.len(), REQUESTS, "{records:#?}");
        let quota = Some(Decision::Deny(DenyReason::Quota));
        assert!(!refused.is_empty() && refused.iter().all(|record| record.decision == quota));
    });
}
