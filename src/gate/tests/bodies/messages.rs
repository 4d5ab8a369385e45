//! Messages of MCP that are refused.

use super::worker::Worker;
use crate::decision::DenyReason;

/// A key may call one tool. Upgrades pass.
const CONFIG: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}], "upgrades": true,
    "mcp": {"routes": [{"path": "/mcp", "server": "main"}]},
    "tiers": {"default": {"only": {"mcp": {"tools": ["a"]}}}}}"#;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;

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

/// What was refused stays so when the body has come, and so does what a filter before the gate has added meanwhile.
#[test]
fn no_header_that_claims_an_identity_passes_with_a_body() {
    let claim = ("x-vkey-key", "other");
    for (before, after, reason) in [
        (None, None, None),
        (Some(claim), None, Some(DenyReason::HeaderMismatch)),
        (None, Some(claim), Some(DenyReason::HeaderMismatch)),
    ] {
        let worker = Worker::new(CONFIG);
        let headers = [Some((":path", "/mcp")), before].into_iter().flatten();
        let mut sent = worker.send(&headers.collect::<Vec<_>>());
        let added = after.map(|(name, value)| (name.into(), value.into()));
        sent.host
            .memory
            .headers
            .borrow_mut()
            .iter_mut()
            .for_each(|headers| headers.extend(added.clone()));
        sent.body(&[CALL]);
        assert_eq!(sent.reason(), reason, "{before:?} {after:?}");
    }
}
