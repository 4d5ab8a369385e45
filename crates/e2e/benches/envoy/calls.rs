//! Messages of MCP, and the server that answers them.

use serde_json::json;

use crate::support::origin::Received;
use crate::support::tls::Cluster;
use crate::support::{Provider, Replay, Request};

/// The size of a message.
const BYTES: usize = 1024;

/// A message as a client sends it.
#[derive(Clone, Copy)]
pub(crate) struct Message {
    /// The tool that is called.
    pub(crate) tool: &'static str,
    /// An argument on which the key has a condition.
    pub(crate) limit: u32,
}

/// The server.
pub(crate) struct Server(Provider);

// === impl Message ===

impl Message {
    /// A path of the server, and one that is no path of MCP to the gate.
    pub(crate) const PATH: &str = "/v1/mcp/search";
    pub(crate) const PLAIN_PATH: &str = "/v1/search";

    /// A call that the key may make.
    pub(crate) const ALLOWED: Self = Self { tool: "search_documents", limit: 20 };

    /// The request, without a credential. All are of one size.
    pub(crate) fn request(self, path: &str) -> Request {
        let rest = BYTES - self.body("").len();
        let body = self.body(&"rivers of ".chars().cycle().take(rest).collect::<String>());
        Request::new("POST", path)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", self.tool)
            .body(body)
    }

    fn body(self, query: &str) -> String {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1.0.0"},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let arguments = json!({
            "limit": self.limit,
            "query": query,
            "fields": ["title", "author", "year", "abstract"],
            "filter": {"language": "en", "years": {"from": 1990, "to": 2026}, "open": true},
        });
        let params = json!({"_meta": meta, "name": self.tool, "arguments": arguments});
        json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string()
    }
}

// === impl Server ===

impl Server {
    /// Serves until it is dropped.
    pub(crate) fn start() -> Self {
        Self(Provider::start(answer))
    }

    /// A cluster that leads to it.
    pub(crate) fn cluster(&self, name: &str) -> Cluster {
        Cluster::plain_at(name, self.0.address())
    }
}

fn answer(_: &Received) -> Replay {
    let text = "Rhine, Danube, Elbe";
    let result = json!({"content": [{"type": "text", "text": text}], "isError": false});
    Replay::json(json!({"jsonrpc": "2.0", "id": 7, "result": result}))
}
