//! Messages of MCP that are refused.

use super::worker::Worker;
use crate::decision::DenyReason;

/// A key may call one tool. Upgrades pass.
const CONFIG: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}], "upgrades": true,
    "mcp": {"routes": [{"path": "/mcp", "server": "main"}]},
    "tiers": {"default": {"only": {"mcp": {"tools": ["a"]}}}}}"#;

/// Nobody would read the calls that it carries.
#[test]
fn no_upgrade_passes_on_the_path_of_a_server() {
    let worker = Worker::new(CONFIG);
    let headers = [(":method", "GET"), (":path", "/mcp"), ("content-type", "")];
    assert_eq!(worker.send(&headers).reason(), None);
    let upgrade = [&headers[..], &[("upgrade", "websocket"), ("connection", "upgrade")]].concat();
    let sent = worker.send(&upgrade);
    assert_eq!(sent.reason(), Some(DenyReason::Method));
    assert!(sent.reply().0 == 405 && sent.reply().1.contains("-32601"), "{:?}", sent.reply());
}
