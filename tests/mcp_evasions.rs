//! Requests that are made to pass a restriction of MCP calls, and honest ones beside them. Each is also read by a server
//! that forgives everything, to tell what would have run. They run natively and, in Node, on wasm32.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "mcp_evasions/arguments.rs"]
mod arguments;
#[path = "mcp_evasions/bodies.rs"]
mod bodies;
#[path = "mcp_evasions/lenient.rs"]
mod lenient;
#[path = "mcp_evasions/messages.rs"]
mod messages;

use vkey::access::restriction::{self, Restriction};
use vkey::access::{Access, Mcp, McpCall};
use vkey::body::Declared;
use vkey::body::json::{Limits, Unreadable};
use vkey::body::mcp::{MessageReader, Wanted};

use self::lenient::run;

/// Whether a key with this restriction may send this body to the server `s`, read in these pieces.
fn decide(restriction: &str, pieces: &[&[u8]]) -> Result<bool, Unreadable> {
    let restriction = Restriction::parse(restriction.as_bytes()).unwrap();
    let mut needs = restriction::ArgumentNeeds::default();
    restriction.add_needs(&mut needs);
    let wanted = Wanted::new(&needs.pointers, needs.names).unwrap();
    let declared = Declared::read([(&b"content-type"[..], &b"application/json"[..])]);
    let mut reader = MessageReader::new(wanted, declared, Limits::default())?;
    pieces.iter().try_for_each(|piece| reader.feed(piece))?;
    let message = reader.finish()?;
    let call = McpCall {
        method: &message.method,
        server: Some("s"),
        object: message.object.as_ref().map(|(kind, names)| (*kind, &**names)),
        arguments: Some(&message.arguments),
    };
    Ok(restriction.prohibits(&Access { mcp: Mcp::Call(call), ..Access::default() }).is_none())
}

/// How a body is read, however it is cut, and what the forgiving server runs.
#[track_caller]
fn judge(restriction: &str, body: &[u8]) -> (Result<bool, Unreadable>, String) {
    let verdict = decide(restriction, &[body]);
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(decide(restriction, &bytes), verdict, "{restriction} {}", body.escape_ascii());
    (verdict, run(body))
}

/// Checks that the restriction does not hold, and what would have run: nothing, if the server does not understand it
/// either. Returns a fault.
fn evasion(restriction: &str, body: &[u8], ran: &str) -> Option<String> {
    let (verdict, run) = judge(restriction, body);
    let is_refused = verdict != Ok(true) && run == ran;
    let shown = body.escape_ascii();
    (!is_refused).then(|| format!("{restriction} {shown}: {verdict:?}, ran {run}, not {ran}"))
}

/// Checks that the restriction holds, and what runs. Returns a fault.
fn honest(restriction: &str, body: &[u8], ran: &str) -> Option<String> {
    let (verdict, run) = judge(restriction, body);
    let is_allowed = verdict == Ok(true) && run == ran;
    let shown = body.escape_ascii();
    (!is_allowed).then(|| format!("{restriction} {shown}: {verdict:?}, ran {run}, not {ran}"))
}

#[track_caller]
fn none(faults: impl IntoIterator<Item = Option<String>>) {
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A request with a method and the members of its parameters.
fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
}
