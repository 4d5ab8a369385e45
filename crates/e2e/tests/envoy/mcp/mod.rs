//! MCP between clients and servers of other authors, with the gate in between.

mod clients;
mod conformance;
mod hostile;
mod vectors;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::keys::{Minter, options};
use crate::support::peers::{node, python, script};
use crate::support::{Options, artefact, config};

/// A server of MCP over HTTP on a port of its own; dropping it ends the process.
struct Server {
    child: Child,
    port: u16,
    /// Open, because a server may write to it at any time.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// `@modelcontextprotocol/server-everything`.
    fn everything() -> Self {
        let mut node = Command::new("node");
        node.arg(script("../on_a_free_port.mjs")).arg("/dev/stdout");
        Self::start(node.arg(artefact("VKEY_TEST_MCP_SERVER")))
    }

    /// The tests' own server on the npm SDK, which passes the conformance suites.
    fn own() -> Self {
        Self::start(&mut node("server.mjs"))
    }

    /// A server whose lists come in pages.
    fn paged() -> Self {
        Self::start(&mut node("paged.mjs"))
    }

    /// A server on the Python package, that notes in the file which tools it runs.
    fn recording(file: &Path) -> Self {
        Self::start(python("recording.py").arg(file))
    }

    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the server starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        // Some say more than the port.
        let port = stdout.by_ref().lines().find_map(|line| line.ok()?.parse().ok());
        // From here on the process has an owner that ends it, whatever happens next.
        let mut server = Self { child, port: 0, _stdout: stdout };
        server.port = port.expect("a port");
        server
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    /// The gate in front of it, with the routes of MCP.
    fn behind_gate(&self, label: &str, minter: &Minter) -> Options {
        let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": self.port}});
        options(label, minter, plugin()).edit(move |config| {
            let cluster = config::named(config, "/static_resources/clusters", "echo");
            let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
            endpoint["endpoint"]["address"] = address;
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

fn plugin() -> Value {
    let routes = json!([{"path": "/mcp", "server": "main"}, {"path": "/mcp/{server}"}]);
    json!({"mcp": {"routes": routes, "refuse_with": "rpc"}, "tiers": {"default": {}}})
}

/// What a key has that may do everything, one by one.
fn all_globs() -> Value {
    let members = ["methods", "servers", "tools", "resources", "prompts"];
    let globs = members.map(|member| (member.to_owned(), json!(["*"])));
    json!({"only": {"mcp": serde_json::Map::from_iter(globs)}})
}
